//! The stages: a packet goes from function to function until it reaches a port or its end.

use super::{Engine, Hop};
use crate::flow::{End, FlowKey};
use crate::function::{Context, Function, Verdict, cell};
use crate::packet::{BURST, Packet, parse};
use crate::port::PortDrop;
use crate::time::Time;

/// Functions a packet may pass before it is dropped: more than any sensible path has.
pub(super) const MAX_HOPS: usize = 64;

pub(super) enum Walked {
    Reached(u16, Packet),
    Dropped(Packet),
    Gone,
    Looped,
}

impl Engine {
    /// Runs the stages, which see whole packets only, and installs what they recorded.
    pub(super) fn run_stages(
        &mut self,
        ingress: u16,
        packet: Packet,
        key: Option<(&FlowKey, u64)>,
        now: Time,
    ) {
        let Some(packet) = self.whole(ingress, packet) else {
            return;
        };
        self.staged += 1;
        let first = self.ports[ingress as usize].link;
        match self.walk(first, packet, now) {
            Walked::Reached(port, packet) => {
                self.install(key, &packet, End::Port(port), now);
                self.send(port, packet, now);
            }
            Walked::Dropped(packet) => self.install(key, &packet, End::Drop, now),
            Walked::Gone => {}
            Walked::Looped => self.ports[ingress as usize].tally.drop(PortDrop::Loop, 1),
        }
        self.drain_emitted(now);
    }

    /// Takes a packet from function to function until it reaches a port or its end.
    pub(super) fn walk(&mut self, first: Hop, mut packet: Packet, now: Time) -> Walked {
        let mut hop = first;
        for _ in 0..MAX_HOPS {
            let (index, by) = match hop {
                Hop::Port(port) => return Walked::Reached(port, packet),
                Hop::Function(index, by) => (index, by),
            };
            self.functions[index as usize].tally.enter(by, packet.len());
            self.recorder.enter(index, by);
            let verdict = self.with_function(index as usize, now, |function, cx| {
                function.process(cx, packet, by)
            });
            let slot = &self.functions[index as usize];
            match verdict {
                Verdict::Leave(by, left) => {
                    slot.tally.leave(by, left.len());
                    self.recorder.left(by);
                    hop = slot.links[by.0 as usize];
                    packet = left;
                }
                Verdict::Drop(dropped, reason) => {
                    slot.tally
                        .counters
                        .add(slot.tally.first_drop() + reason.0 as usize, 1);
                    self.recorder.dropped(reason.0);
                    return Walked::Dropped(dropped);
                }
                Verdict::Consume(_) => {
                    slot.tally.counters.add(cell::CONSUMED, 1);
                    return Walked::Gone;
                }
                Verdict::Held => return Walked::Gone,
            }
        }
        Walked::Looped
    }

    pub(super) fn with_function<R>(
        &mut self,
        index: usize,
        now: Time,
        call: impl FnOnce(&mut dyn Function, &mut Context<'_>) -> R,
    ) -> R {
        let slot = &mut self.functions[index];
        let mut cx = Context {
            now,
            pool: &mut self.pool,
            objects: &mut self.objects,
            recorder: &mut self.recorder,
            emitted: &mut self.emitted,
            tally: &slot.tally,
            function: index as u16,
            listening: self.listening,
        };
        call(&mut *slot.function, &mut cx)
    }

    /// Sends on what functions emitted, and what they emit because of that. What comes out of it is bounded: a
    /// packet that a function created is not a reason for another one more than `MAX_HOPS` times.
    pub(super) fn drain_emitted(&mut self, now: Time) {
        let mut budget = MAX_HOPS * BURST;
        while let Some((function, by, packet)) = self.emitted.pop_at(0) {
            self.recorder.begin(false);
            let slot = &self.functions[function as usize];
            slot.tally.leave(by, packet.len());
            let mut packet = packet;
            let parsed = parse(&mut packet);
            let link = slot.links[by.0 as usize];
            budget = budget.saturating_sub(1);
            match self.walk(link, packet, now) {
                Walked::Reached(port, packet) => self.send(port, packet, now),
                Walked::Looped => self.ports[0].tally.drop(PortDrop::Loop, 1),
                Walked::Dropped(_) | Walked::Gone => {}
            }
            debug_assert!(parsed.is_ok(), "a function emitted a malformed packet");
            if budget == 0 {
                self.ports[0]
                    .tally
                    .drop(PortDrop::Loop, self.emitted.len() as u64);
                self.emitted.drain(..).for_each(|(function, by, packet)| {
                    self.functions[function as usize]
                        .tally
                        .leave(by, packet.len());
                });
            }
        }
    }
}
