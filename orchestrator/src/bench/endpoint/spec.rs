//! Endpoints as they are named on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointSpec {
    /// The socket of a vhost-user back end.
    Vhost(PathBuf, VhostOptions),
    /// A tap of the host, made if there is none of that name.
    Tap(String),
    /// An interface of the host, by a packet socket.
    AfPacket(String),
}

/// What the guest at a vhost-user socket is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostOptions {
    /// Whether the generator listens and the back end connects; otherwise the back end listens.
    pub listen: bool,
    /// Pairs of queues.
    pub queues: u16,
    /// Entries of each ring: a power of two.
    pub ring: u16,
    /// Whether rings are packed; a back end that does not offer that is not attached to.
    pub packed: bool,
    /// Whether to ask for mergeable receive buffers.
    pub mergeable: bool,
    /// How long the other side may take to answer.
    pub patience: Duration,
}

impl Default for VhostOptions {
    fn default() -> Self {
        Self {
            listen: false,
            queues: 1,
            ring: 1024,
            packed: false,
            mergeable: true,
            patience: Duration::from_secs(10),
        }
    }
}

impl FromStr for EndpointSpec {
    type Err = String;

    /// `PATH` of a socket where the back end listens, `listen:PATH` where it connects, `tap:NAME` or
    /// `af-packet:NAME`.
    fn from_str(text: &str) -> Result<Self, String> {
        let vhost = |path: &str, listen| {
            let options = VhostOptions {
                listen,
                ..VhostOptions::default()
            };
            Self::Vhost(path.into(), options)
        };
        let spec = match text.split_once(':') {
            Some(("listen", path)) => vhost(path, true),
            Some(("tap", name)) => Self::Tap(name.to_owned()),
            Some(("af-packet", name)) => Self::AfPacket(name.to_owned()),
            _ => vhost(text, false),
        };
        if spec.place().is_empty() {
            return Err(format!(
                "`{text}` names no endpoint: write the PATH of a vhost-user socket, `listen:PATH`, `tap:NAME` or \
                 `af-packet:NAME`"
            ));
        }
        Ok(spec)
    }
}

impl EndpointSpec {
    fn place(&self) -> String {
        match self {
            Self::Vhost(path, _) => path.display().to_string(),
            Self::Tap(name) | Self::AfPacket(name) => name.clone(),
        }
    }
}

impl fmt::Display for EndpointSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Vhost(_, options) if options.listen => "vhost-user server",
            Self::Vhost(..) => "vhost-user client",
            Self::Tap(_) => "tap",
            Self::AfPacket(_) => "af-packet",
        };
        write!(f, "{kind} {}", self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_named() {
        for (text, shown) in [
            ("/run/a.sock", "vhost-user client /run/a.sock"),
            ("listen:b.sock", "vhost-user server b.sock"),
            ("tap:t0", "tap t0"),
            ("af-packet:eth1", "af-packet eth1"),
        ] {
            let spec: EndpointSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), shown);
        }
        for wrong in ["", "tap:", "listen:"] {
            assert!(wrong.parse::<EndpointSpec>().is_err(), "{wrong}");
        }
    }
}
