//! The cases that are measured: frames, rings and drivers.

use chainplane_vhost::driver::FastMode;

use crate::chain::Functions;
use crate::guests::Settings;
use crate::traffic::Traffic;

/// Bytes of a large TCP segment as it is measured, Ethernet header included.
pub const LARGE: usize = 65_536;

/// One of the cases.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is called on command lines and in tables.
    pub name: &'static str,
    /// Bytes of a frame.
    pub size: usize,
    /// What is between the guests.
    pub functions: Functions,
    /// Flows.
    pub flows: usize,
    /// Frames that a guest sends before it begins anew: no fewer than the flows.
    pub frames: usize,
    /// What the guests negotiate and do.
    pub settings: Settings,
    /// Guests besides, that are attached and send nothing.
    pub idle: usize,
}

/// Flows where nothing else is said: one for each entry of a ring, which so holds the same frames for ever.
pub const FLOWS: usize = 1024;
/// More than any cache holds.
pub const MANY: usize = 1 << 20;

impl Case {
    /// What the guests send.
    pub fn traffic(&self) -> Traffic {
        let Self {
            size,
            flows,
            frames,
            ..
        } = *self;
        Traffic {
            size,
            flows,
            frames,
        }
    }

    const fn through(self, functions: Functions) -> Self {
        Self { functions, ..self }
    }

    const SMALL: Self = Self {
        name: "64",
        size: 64,
        functions: Functions::None,
        flows: FLOWS,
        frames: FLOWS,
        settings: Settings::DEFAULT,
        idle: 0,
    };

    const fn rewriting(self) -> Self {
        let settings = Settings {
            mode: FastMode::Rewrite,
            ..self.settings
        };
        Self { settings, ..self }
    }

    const fn packed(self) -> Self {
        let settings = Settings {
            packed: true,
            ..self.settings
        };
        Self { settings, ..self }
    }

    const LONG: Self = Self {
        name: "1518",
        size: 1518,
        ..Self::SMALL
    };

    /// As many as a ring of 1024 entries holds, in chains of 17 buffers.
    const LARGE: Self = Self {
        name: "large",
        size: LARGE,
        flows: 60,
        frames: 60,
        ..Self::SMALL
    };

    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::SMALL,
        Self::SMALL.rewriting().named("64-rewrite"),
        Self {
            name: "64-no-merge",
            settings: Settings {
                mergeable: false,
                ..Settings::DEFAULT
            },
            ..Self::SMALL
        },
        Self {
            name: "64-ring-256",
            settings: Settings {
                queue_size: 256,
                ..Settings::DEFAULT
            },
            flows: 256,
            frames: 256,
            ..Self::SMALL
        },
        Self::SMALL.packed().named("64-packed"),
        Self::SMALL.packed().rewriting().named("64-packed-rewrite"),
        Self {
            name: "64-idle-ports",
            idle: 64,
            ..Self::SMALL
        },
        Self::SMALL.through(Functions::One).named("64-one-function"),
        Self::SMALL
            .through(Functions::Four)
            .named("64-four-functions"),
        Self::SMALL
            .through(Functions::Eight)
            .named("64-eight-functions"),
        Self::SMALL.through(Functions::Router).named("64-router"),
        Self::SMALL
            .packed()
            .through(Functions::Four)
            .named("64-packed-four-functions"),
        Self {
            flows: 10_000,
            frames: 10_000,
            ..Self::SMALL
                .through(Functions::Four)
                .named("64-four-functions-10k")
        },
        Self {
            frames: MANY,
            ..Self::SMALL.named("64-spread")
        },
        Self {
            // What `64-four-functions-1m` is held against: as many buffers, few flows.
            flows: 1 << 13,
            frames: MANY,
            ..Self::SMALL
                .through(Functions::Four)
                .named("64-four-functions-spread")
        },
        Self {
            flows: MANY,
            frames: MANY,
            ..Self::SMALL
                .through(Functions::Four)
                .named("64-four-functions-1m")
        },
        Self::LONG,
        Self::LONG.rewriting().named("1518-rewrite"),
        Self::LONG
            .through(Functions::Four)
            .named("1518-four-functions"),
        Self::LONG
            .rewriting()
            .through(Functions::Four)
            .named("1518-rewrite-four-functions"),
        Self::LARGE,
        Self::LARGE.rewriting().named("large-rewrite"),
        Self::LARGE
            .through(Functions::Four)
            .named("large-four-functions"),
        Self::LARGE
            .rewriting()
            .through(Functions::Four)
            .named("large-rewrite-four-functions"),
    ];

    const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// The case of a name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|case| case.name == name)
    }
}
