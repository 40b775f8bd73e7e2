//! What TCP's flags say of a connection.
//!
//! Only SYN, FIN and RST move a connection on. They always reach the stages, so that a connection whose other
//! packets are replayed goes through the same phases at the same moments.

use chainplane_dataplane::packet::tcp_flag::{ACK, FIN, RST, SYN};
use chainplane_dataplane::session::Way;

/// How far a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// One side has sent SYN. Sessions of other protocols stay here.
    #[default]
    Opening,
    /// Both sides have sent SYN.
    Established,
    /// One side has sent FIN or RST. Packets still pass: the other direction may have more to send, a FIN may be
    /// lost and sent again, and a RST may be forged (RFC 7857, section 2.2), but silence ends it soon.
    Closing,
}

impl Phase {
    /// The phase after a packet with these flags.
    #[must_use]
    pub fn after(self, flags: u8, way: Way) -> Self {
        if flags & (FIN | RST) != 0 {
            return Self::Closing;
        }
        if flags & SYN == 0 {
            return self;
        }
        match (self, way) {
            (Self::Opening, Way::Return) => Self::Established,
            // The same ports once more, before the old connection was forgotten.
            (Self::Closing, Way::Forward) if flags & ACK == 0 => Self::Opening,
            (phase, _) => phase,
        }
    }

    /// A word for operators.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::Closing => "closing",
        }
    }
}

/// Whether a TCP packet with these flags asks for a new connection: SYN alone.
pub fn opens(flags: u8) -> bool {
    flags & (SYN | ACK | FIN | RST) == SYN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_opens_closes_and_opens_again() {
        let phase = Phase::Opening;
        assert_eq!(phase.after(SYN, Way::Forward), Phase::Opening);
        assert_eq!(phase.after(ACK, Way::Return), Phase::Opening);
        let phase = phase.after(SYN | ACK, Way::Return);
        assert_eq!(phase, Phase::Established);
        assert_eq!(phase.after(ACK, Way::Forward), Phase::Established);
        assert_eq!(phase.after(SYN, Way::Forward), Phase::Established);
        let phase = phase.after(FIN | ACK, Way::Return);
        assert_eq!(phase, Phase::Closing);
        assert_eq!(phase.after(ACK, Way::Forward), Phase::Closing);
        assert_eq!(phase.after(SYN | ACK, Way::Forward), Phase::Closing);
        assert_eq!(phase.after(SYN, Way::Return), Phase::Closing);
        assert_eq!(phase.after(SYN, Way::Forward), Phase::Opening);
    }

    #[test]
    fn refusal_and_simultaneous_open() {
        assert_eq!(Phase::Opening.after(RST | ACK, Way::Return), Phase::Closing);
        assert_eq!(Phase::Opening.after(SYN, Way::Return), Phase::Established);
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(opens(SYN) && opens(SYN | 0xc0));
        assert!(!opens(SYN | ACK) && !opens(SYN | FIN) && !opens(SYN | RST) && !opens(0));
    }
}
