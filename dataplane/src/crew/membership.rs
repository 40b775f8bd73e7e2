//! A member's side of its crew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use arrayvec::ArrayVec;

use super::bell::Bell;
use super::owners::{Owner, Owners};
use super::ring::{Kind, Rings, Run, pair};
use super::share::Share;
use crate::packet::{BURST, Batch, Packet, Pool};
use crate::rota::Rota;
use crate::tails::Lenders;
use crate::worker::WakeHandle;

/// What all members see.
struct Shared {
    bells: Vec<Bell>,
    /// Whether a member can send by a port: port by port, member by member.
    reachable: Vec<AtomicBool>,
    /// How many packets that a member brought by a port ran the stages at others, since the member last asked: member by
    /// member, port by port.
    staged: Vec<AtomicU32>,
}

/// What a member knows of its crew: who owns what, rings to and from all others, who can send by which port. Handed
/// to [`Engine::join`](crate::engine::Engine::join).
pub struct Membership {
    owners: Owners,
    share: Share,
    ports: usize,
    /// The others, in order.
    peers: Vec<Rings>,
    /// The peers' turns, as far as the stages' time is concerned.
    pub(crate) rota: Rota,
    shared: Arc<Shared>,
}

/// The memberships of a crew, one for each worker of which this is the handle, in order. Every member's first `ports`
/// ports are the crew's, under the same numbers; behind them a member may have ports of its own.
///
/// # Panics
/// When `owners` were made for another number of members, or there are none or more than 65,535.
pub fn crew(owners: &Owners, wakes: Vec<WakeHandle>, ports: usize) -> Vec<Membership> {
    let members = u16::try_from(wakes.len()).expect("a crew of 65,535 at most");
    assert!(owners.are_of(members), "owners of another crew");
    let mut rings: Vec<Vec<Rings>> = wakes.iter().map(|_| Vec::new()).collect();
    // In this order everyone's peers come out sorted.
    for second in 1..rings.len() {
        for first in 0..second {
            let [a, b] = pair();
            rings[first].push(a);
            rings[second].push(b);
        }
    }
    let shared = Arc::new(Shared {
        staged: (0..ports * wakes.len())
            .map(|_| AtomicU32::new(0))
            .collect(),
        reachable: (0..ports * wakes.len())
            .map(|_| AtomicBool::new(false))
            .collect(),
        bells: wakes.into_iter().map(Bell::new).collect(),
    });
    let membership = |(index, peers): (u16, Vec<Rings>)| Membership {
        owners: owners.clone(),
        share: Share::new(index, members),
        ports,
        rota: Rota::of(peers.len()),
        peers,
        shared: Arc::clone(&shared),
    };
    (0..members).zip(rings).map(membership).collect()
}

/// What became of packets that were for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handed {
    /// Copies made.
    pub(crate) copies: usize,
    /// Packets handed over, copies among them.
    pub(crate) packets: usize,
    /// Packets for which there was no room, copies among them.
    pub(crate) lost: usize,
}

impl Membership {
    /// Which member it is.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Whether a port is the crew's.
    #[inline]
    pub(crate) fn has_port(&self, port: usize) -> bool {
        port < self.ports
    }

    /// How many others there are.
    #[inline]
    pub(crate) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// The member that a peer is.
    fn member(&self, peer: usize) -> u16 {
        peer as u16 + u16::from(peer >= usize::from(self.share.index()))
    }

    /// Who owns a packet that was just received.
    #[inline]
    pub(crate) fn owner_of(&self, packet: &mut Packet) -> Owner {
        self.owners.owner_of_received(packet)
    }

    /// Whether this member handles what belongs to `owner`.
    #[inline]
    pub(crate) fn handles(&self, owner: Owner) -> bool {
        !matches!(owner, Owner::Member(member) if member != self.share.index())
    }

    /// Of a batch that came in by a port, hands over what belongs to others, and copies of what everyone should know of.
    /// What is this member's to handle stays, in order.
    pub(crate) fn divide(&mut self, port: u16, batch: &mut Batch, lenders: Lenders<'_>) -> Handed {
        let owners = batch.iter_mut().map(|packet| self.owner_of(packet));
        let owners: ArrayVec<Owner, BURST> = owners.collect();
        self.divide_by(port, batch, &owners, lenders)
    }

    /// The same where the owners are known.
    pub(crate) fn divide_by(
        &mut self,
        port: u16,
        batch: &mut Batch,
        owners: &[Owner],
        lenders: Lenders<'_>,
    ) -> Handed {
        let me = self.share.index();
        let stays = |owner: &Owner| !matches!(owner, Owner::Member(member) if *member != me);
        let alone = |owner: &Owner| stays(owner) && *owner != Owner::Everyone;
        let mut handed = Handed::default();
        if owners.iter().all(alone) {
            return handed;
        }
        for peer in 0..self.peers.len() {
            let member = self.member(peer);
            let packets = batch.iter().zip(owners);
            let theirs: ArrayVec<(Kind, &Packet), BURST> = packets
                .filter_map(|(packet, owner)| match owner {
                    Owner::Member(owner) if *owner == member => Some((Kind::Enter, packet)),
                    Owner::Everyone => Some((Kind::Listen, packet)),
                    _ => None,
                })
                .collect();
            if theirs.is_empty() {
                continue;
            }
            let sent = self.peers[peer].send(port, &theirs, lenders);
            handed.packets += sent;
            handed.lost += theirs.len() - sent;
            let copies = theirs.iter().filter(|(kind, _)| *kind == Kind::Listen);
            handed.copies += copies.count();
        }
        let mut owners = owners.iter();
        batch.retain(|_| owners.next().is_none_or(stays));
        handed
    }

    /// Hands a batch that is to be sent by a port to the first member that can, if there is one.
    pub(crate) fn send_elsewhere(
        &mut self,
        port: u16,
        batch: &mut Batch,
        lenders: Lenders<'_>,
    ) -> Option<Handed> {
        // What this one can't send now comes back from nobody who has just seen that.
        self.note_reachable(port.into(), false);
        let members = usize::from(self.share.of());
        let first = usize::from(port) * members;
        let able = self.shared.reachable.get(first..first + members)?;
        let member = able.iter().position(|able| able.load(Relaxed))?;
        let peer = member - usize::from(member > usize::from(self.share.index()));
        let packets = self.peers[peer].send_all(Kind::Leave, port, batch, lenders);
        let lost = batch.len() - packets;
        batch.clear();
        Some(Handed {
            copies: 0,
            packets,
            lost,
        })
    }

    /// Notes whether this member can send by a port.
    pub(crate) fn note_reachable(&self, port: usize, reachable: bool) {
        let place = port * usize::from(self.share.of()) + usize::from(self.share.index());
        if let Some(noted) = self.shared.reachable.get(place)
            && noted.load(Relaxed) != reachable
        {
            noted.store(reachable, Relaxed);
        }
    }

    /// Notes how many packets that a peer brought by a port have run the stages here.
    #[inline]
    pub(crate) fn note_staged(&self, peer: usize, port: u16, staged: u32) {
        let place = usize::from(self.member(peer)) * self.ports + usize::from(port);
        if staged > 0
            && let Some(sum) = self.shared.staged.get(place)
        {
            sum.fetch_add(staged, Relaxed);
        }
    }

    /// How many packets that this member brought by a port have run the stages at others since it last asked.
    #[inline]
    pub(crate) fn staged_elsewhere(&self, port: usize) -> u32 {
        let place = usize::from(self.share.index()) * self.ports + port;
        match self.shared.staged.get(place) {
            Some(sum) if self.has_port(port) && sum.load(Relaxed) > 0 => sum.swap(0, Relaxed),
            _ => 0,
        }
    }

    /// Takes packets that a peer handed over into an empty batch, see [`super::ring::Receiver::take`].
    #[inline]
    pub(crate) fn take(
        &mut self,
        peer: usize,
        limit: usize,
        pool: &mut Pool,
        batch: &mut Batch,
    ) -> Option<Run> {
        self.peers[peer].receiver.take(limit, pool, batch)
    }

    /// At the end of a poll: wakes those who sleep and were handed something.
    #[inline]
    pub(crate) fn tell(&mut self) {
        for peer in 0..self.peers.len() {
            let member = usize::from(self.member(peer));
            self.peers[peer].tell(&self.shared.bells[member]);
        }
    }

    /// Asks to be woken for packets of others; true if some are there already.
    pub(crate) fn arm(&self) -> bool {
        self.bell().lie_down();
        self.peers.iter().any(|rings| !rings.receiver.is_empty())
    }

    pub(crate) fn disarm(&self) {
        self.bell().get_up();
    }

    fn bell(&self) -> &Bell {
        &self.shared.bells[usize::from(self.share.index())]
    }

    /// Whether nothing is on its way from or to others.
    pub(crate) fn is_idle(&self) -> bool {
        self.peers.iter().all(Rings::are_empty)
    }
}
