//! How long a session lives in silence.

use core::time::Duration;

use chainplane_dataplane::packet::protocol;
use chainplane_dataplane::time::to_ticks;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Phase;
use crate::config::ConfigError;

/// The longest timeout: a fortnight, well inside of what the coarse clock can tell.
const LONGEST: u32 = 14 * 24 * 3600;
/// The most sessions of one function.
const MOST_SESSIONS: u32 = 1 << 22;
/// Sessions where the configuration does not say.
const SESSIONS: u32 = 1 << 16;

/// Seconds of silence after which a session ends: `timeouts: { udp: 120 }`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Timeouts {
    /// A TCP connection that both sides opened. RFC 5382, REQ-5: at least 2 hours and 4 minutes, the default.
    pub tcp_established: u32,
    /// A TCP connection that opens or closes. RFC 5382, REQ-5: at least 4 minutes, the default.
    pub tcp_transitory: u32,
    /// UDP. RFC 4787, REQ-5: at least 2 minutes, 5 recommended, the default.
    pub udp: u32,
    /// ICMP echo. RFC 5508, REQ-2: at least 60 seconds, the default.
    pub icmp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: 7440,
            tcp_transitory: 240,
            udp: 300,
            icmp: 60,
        }
    }
}

impl Timeouts {
    /// What is wrong with them, with paths from the function's body.
    pub fn check(&self) -> Vec<ConfigError> {
        let all = [
            ("tcp-established", self.tcp_established),
            ("tcp-transitory", self.tcp_transitory),
            ("udp", self.udp),
            ("icmp", self.icmp),
        ];
        let wrong = all
            .into_iter()
            .filter(|(_, seconds)| !(1..=LONGEST).contains(seconds));
        wrong
            .map(|(name, seconds)| {
                ConfigError::at(
                    ["timeouts".into(), name.into()],
                    format!("a timeout of {seconds} s; expected 1 to {LONGEST} seconds"),
                )
            })
            .collect()
    }

    /// The same in the units of the worker's clock.
    pub fn ticks(&self) -> TimeoutTicks {
        let ticks = |seconds: u32| to_ticks(Duration::from_secs(seconds.into()));
        TimeoutTicks {
            tcp_established: ticks(self.tcp_established),
            tcp_transitory: ticks(self.tcp_transitory),
            udp: ticks(self.udp),
            icmp: ticks(self.icmp),
        }
    }
}

/// [`Timeouts`] in units of the worker's clock.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutTicks {
    tcp_established: u32,
    tcp_transitory: u32,
    udp: u32,
    icmp: u32,
}

impl TimeoutTicks {
    /// How long a session of this protocol and phase lives in silence.
    pub fn of(&self, protocol: u8, phase: Phase) -> u32 {
        match (protocol, phase) {
            (protocol::TCP, Phase::Established) => self.tcp_established,
            (protocol::TCP, _) => self.tcp_transitory,
            (protocol::UDP, _) => self.udp,
            _ => self.icmp,
        }
    }
}

/// The number of sessions that a configuration asks for, where that is sensible.
///
/// # Errors
/// What is wrong with it, with the path from the function's body.
pub fn check_sessions(sessions: Option<u32>) -> Result<usize, ConfigError> {
    let sessions = sessions.unwrap_or(SESSIONS);
    if (1..=MOST_SESSIONS).contains(&sessions) {
        Ok(sessions as usize)
    } else {
        Err(ConfigError::at(
            ["sessions".into()],
            format!("{sessions} sessions; expected 1 to {MOST_SESSIONS}"),
        ))
    }
}
