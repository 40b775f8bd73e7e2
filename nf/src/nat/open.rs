//! Where the first packet of a session goes, and as what.

use chainplane_dataplane::function::{Context, INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::packet::Mac;

use super::mapping::{MappingId, NoMapping};
use super::process::{Nat, NatDrop};
use crate::track::{Endpoint, Phase, Tuple};

/// What is kept of a session. Its two keys are the tuples of the packets that opened it and of their answers, each
/// as it comes in; so each is the translation of the other.
#[derive(Clone, Copy)]
pub(super) struct Session {
    pub phase: Phase,
    /// For packets of each way, where they go if they leave by the inside.
    pub macs: [Mac; 2],
    /// The mappings it uses: of the host that opened it, and, if it was turned round, of the other one.
    pub mappings: [Option<MappingId>; 2],
}

/// A session about to be made.
#[derive(Clone, Copy)]
pub(super) struct Opening {
    pub answer: Tuple,
    pub session: Session,
    /// A mapping that was made for it.
    pub fresh: Option<MappingId>,
}

/// Where a packet from inside is going.
struct Target {
    endpoint: Endpoint,
    side: Interface,
    mac: Mac,
    mapping: Option<MappingId>,
}

/// What a packet from inside appears as.
struct Source {
    endpoint: Endpoint,
    mapping: Option<MappingId>,
    /// Whether the mapping was made for it.
    fresh: bool,
}

impl Nat {
    /// From outside, only forwards are open.
    pub(super) fn open_inbound(&self, tuple: &Tuple) -> Result<Opening, NatDrop> {
        let inner = self.forwards.inner(tuple.protocol, tuple.dst);
        let translated = Tuple {
            dst: inner.ok_or(NatDrop::NoMapping)?,
            ..*tuple
        };
        Ok(Opening {
            answer: translated.answer(INSIDE),
            session: Session {
                phase: Phase::Opening,
                macs: [self.inside_mac, Mac::default()],
                mappings: [None; 2],
            },
            fresh: None,
        })
    }

    /// From inside, to the outside or, if it is to the pool, to another host inside.
    pub(super) fn open_outbound(
        &mut self,
        cx: &mut Context<'_>,
        tuple: &Tuple,
        mac: Mac,
    ) -> Result<Opening, NatDrop> {
        if tuple.echo_reply {
            return Err(NatDrop::Protocol);
        }
        let target = self.target(cx, tuple).ok_or(NatDrop::NoMapping)?;
        let source = self.source(cx, tuple, mac)?;
        let translated = Tuple {
            src: source.endpoint,
            dst: target.endpoint,
            ..*tuple
        };
        Ok(Opening {
            answer: translated.answer(target.side),
            session: Session {
                phase: Phase::Opening,
                macs: [target.mac, mac],
                mappings: [source.mapping, target.mapping],
            },
            fresh: source.mapping.filter(|_| source.fresh),
        })
    }

    fn target(&self, cx: &Context<'_>, tuple: &Tuple) -> Option<Target> {
        let Tuple { vlan, protocol, .. } = *tuple;
        if !self.pool.contains(tuple.dst.address) {
            return Some(Target {
                endpoint: tuple.dst,
                side: OUTSIDE,
                mac: Mac::default(),
                mapping: None,
            });
        }
        let (endpoint, mac, mapping) = match self.forwards.inner(protocol, tuple.dst) {
            Some(inner) => (inner, self.inside_mac, None),
            // Nobody can ask a port that is an echo's identifier.
            None if tuple.is_icmp() => return None,
            None => {
                let (objects, now) = (cx.objects_ref(), cx.now());
                let (id, inner, mac) = self
                    .mappings
                    .of_outer(vlan, protocol, tuple.dst, objects, now)?;
                (inner, mac, Some(id))
            }
        };
        Some(Target {
            endpoint,
            side: INSIDE,
            mac,
            mapping,
        })
    }

    /// What the sender appears as.
    fn source(&mut self, cx: &mut Context<'_>, tuple: &Tuple, mac: Mac) -> Result<Source, NatDrop> {
        let Tuple {
            vlan,
            protocol,
            src,
            ..
        } = *tuple;
        if let Some(endpoint) = self.forwards.outer(protocol, src) {
            return Ok(Source {
                endpoint,
                mapping: None,
                fresh: false,
            });
        }
        let now = cx.now();
        let objects = cx.objects_ref();
        let known = self.mappings.of_inner(vlan, protocol, src, objects, now);
        let fresh = known.is_err();
        let mapping = match known {
            Ok(known) => Ok(known),
            Err(key) => self
                .mappings
                .make((vlan, protocol, src), key, mac, cx.objects(), now),
        };
        match mapping {
            Ok((id, endpoint)) => Ok(Source {
                endpoint,
                mapping: Some(id),
                fresh,
            }),
            Err(NoMapping::Exhausted) => Err(NatDrop::PoolExhausted),
            Err(NoMapping::Full) => Err(NatDrop::SessionsFull),
        }
    }
}
