//! Who owns a packet.

use super::Claim;
use crate::function::Blueprint;
use crate::packet::Packet;

/// Who handles a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whoever received it.
    Anyone,
    /// This member.
    Member(u16),
    /// Whoever received it handles it, and every other member learns from it.
    Everyone,
}

/// The members' claims, compiled.
#[derive(Clone, Debug)]
pub struct Owners {
    members: u16,
}

impl Owners {
    /// The owners of packets among so many members, of which functions claim this.
    ///
    /// # Panics
    /// When there are no members.
    pub fn new(members: u16, _claims: &[Claim]) -> Self {
        assert!(members > 0);
        Self { members }
    }

    /// Whoever receives a packet owns it: for functions that keep nothing of connections.
    pub fn anyone() -> Self {
        Self { members: 0 }
    }

    /// What these functions, all of a connected part, need.
    pub fn of<'a>(members: u16, functions: impl IntoIterator<Item = &'a dyn Blueprint>) -> Self {
        let (mut claims, mut records) = (Vec::new(), false);
        for function in functions {
            claims.extend(function.claims());
            records |= function.wants_records();
        }
        if records || !claims.is_empty() {
            Self::new(members, &claims)
        } else {
            Self::anyone()
        }
    }

    /// Who owns a parsed packet.
    pub fn owner_of(&self, _packet: &Packet) -> Owner {
        if self.members == 0 {
            Owner::Anyone
        } else {
            Owner::Member(0)
        }
    }
}
