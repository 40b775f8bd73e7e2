//! The cases that are measured: frames, rings and drivers.

use chainplane_vhost::driver::FastMode;

use crate::chain::Length;
use crate::guests::Settings;

/// Bytes of a large TCP segment as it is measured, Ethernet header included.
pub const LARGE: usize = 65_536;

/// One of the cases.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is called on command lines and in tables.
    pub name: &'static str,
    /// Bytes of a frame.
    pub size: usize,
    /// Functions between the guests.
    pub length: Length,
    /// What the guests negotiate and do.
    pub settings: Settings,
    /// Guests besides, that are attached and send nothing.
    pub idle: usize,
}

impl Case {
    const SMALL: Self = Self {
        name: "64",
        size: 64,
        length: Length::Zero,
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

    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SMALL,
        Self {
            name: "64-rewrite",
            ..Self::SMALL.rewriting()
        },
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
            ..Self::SMALL
        },
        Self {
            name: "64-packed",
            ..Self::SMALL.packed()
        },
        Self {
            name: "64-packed-rewrite",
            ..Self::SMALL.packed().rewriting()
        },
        Self {
            name: "64-idle-ports",
            idle: 64,
            ..Self::SMALL
        },
        Self {
            name: "64-four-functions",
            length: Length::Four,
            ..Self::SMALL
        },
        Self {
            name: "1518",
            size: 1518,
            ..Self::SMALL
        },
        Self {
            name: "1518-rewrite",
            size: 1518,
            ..Self::SMALL.rewriting()
        },
        Self {
            // A router passes no more than its MTU of 1500.
            name: "1514-four-functions",
            size: 1514,
            length: Length::Four,
            ..Self::SMALL
        },
        Self {
            name: "large",
            size: LARGE,
            ..Self::SMALL
        },
        Self {
            name: "large-rewrite",
            size: LARGE,
            ..Self::SMALL.rewriting()
        },
    ];

    /// The case of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|case| case.name == name)
    }
}
