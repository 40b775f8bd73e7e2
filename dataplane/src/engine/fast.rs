//! The fast way: a batch is parsed, looked up and replayed.

use arrayvec::ArrayVec;

use super::{Engine, EngineCounter};
use crate::flow::{End, FlowKey, Parsed, Record, Stale, parse_common, parse_general, parse_plain};
use crate::offload;
use crate::packet::{BURST, Batch, Packet};
use crate::port::PortDrop;
use crate::time::Time;

/// What a packet was found to be.
enum Class {
    /// Of this flow.
    Keyed(FlowKey, u64),
    /// The stages handle it.
    Unkeyed,
    /// It is dropped.
    Refused(PortDrop),
}

impl Engine {
    /// Parses and looks up the whole batch first, so that the table's memory is near when it is used; then handles
    /// the packets one after the other, in order.
    pub(super) fn forward(&mut self, ingress: u16, batch: &mut Batch, now: Time) {
        let mut classes = ArrayVec::new();
        self.classify(ingress, batch, &mut classes);
        if let Some(flows) = &self.flows {
            for class in &classes {
                if let Class::Keyed(_, hash) = class {
                    flows.prefetch_record(*hash);
                }
            }
        }
        for (packet, class) in batch.drain(..).zip(&classes) {
            match class {
                Class::Keyed(key, hash) => self.handle(ingress, packet, Some((key, *hash)), now),
                Class::Unkeyed => self.handle(ingress, packet, None, now),
                Class::Refused(reason) => self.ports[ingress as usize].tally.drop(*reason, 1),
            }
        }
    }

    #[inline(never)]
    fn classify(&self, ingress: u16, batch: &mut Batch, classes: &mut ArrayVec<Class, BURST>) {
        for packet in batch {
            let Some(parsed) = parse_plain(packet, ingress) else {
                classes.push(self.classify_other(ingress, packet));
                continue;
            };
            // Keys are made where they stay: a copy of each would cost as much as its hash.
            if offload::check(packet).is_err() {
                classes.push(Class::Refused(PortDrop::BadOffload));
            } else if let (Parsed::Keyed(key), Some(flows)) = (parsed, &self.flows) {
                let hash = flows.hash(&key);
                flows.prefetch(hash);
                classes.push(Class::Keyed(key, hash));
            } else {
                classes.push(Class::Unkeyed);
            }
        }
    }

    /// The same for a packet that is not as plain as most.
    #[inline(never)]
    fn classify_other(&self, ingress: u16, packet: &mut Packet) -> Class {
        let parsed = match parse_common(packet, ingress) {
            Some(parsed) => Ok(parsed),
            None => parse_general(packet, ingress),
        };
        match (parsed, &self.flows) {
            (Err(malformed), _) => Class::Refused(malformed.into()),
            (Ok(_), _) if offload::check(packet).is_err() => Class::Refused(PortDrop::BadOffload),
            (Ok(Parsed::Keyed(key)), Some(flows)) => {
                let hash = flows.hash(&key);
                flows.prefetch(hash);
                Class::Keyed(key, hash)
            }
            (Ok(_), _) => Class::Unkeyed,
        }
    }

    #[inline]
    fn handle(&mut self, ingress: u16, packet: Packet, key: Option<(&FlowKey, u64)>, now: Time) {
        let Some((key, hash)) = key else {
            self.counters.add(EngineCounter::Unkeyed as usize, 1);
            self.recorder.begin(false);
            return self.run_stages(ingress, packet, None, now);
        };
        let Some(packet) = self.replay(packet, key, hash, now) else {
            return;
        };
        self.recorder.begin(true);
        self.run_stages(ingress, packet, Some((key, hash)), now);
    }

    /// Replays the packet's record; gives the packet back if the stages have to run.
    #[inline]
    fn replay(
        &mut self,
        mut packet: Packet,
        key: &FlowKey,
        hash: u64,
        now: Time,
    ) -> Option<Packet> {
        let flows = self.flows.as_mut()?;
        let Some(record) = flows.get(key, hash) else {
            self.counters.add(EngineCounter::Misses as usize, 1);
            return Some(packet);
        };
        match record.check(&packet, &self.objects, now) {
            Ok(()) => {}
            Err(Stale::Guard) => {
                self.counters.add(EngineCounter::Guarded as usize, 1);
                return Some(packet);
            }
            Err(Stale::Dependency) => {
                flows.remove(key, hash);
                self.counters.add(EngineCounter::Stale as usize, 1);
                return Some(packet);
            }
        }
        let functions = &self.functions;
        let done = record.replay(&mut packet, &mut self.objects, now, |function, slot| {
            functions[function as usize]
                .tally
                .counters
                .add(slot as usize, 1);
        });
        self.counters.add(EngineCounter::Hits as usize, 1);
        self.paths.count(done.path, packet.len());
        if let End::Port(port) = done.end {
            self.send(port, packet, now);
        }
        None
    }

    pub(super) fn install(
        &mut self,
        key: Option<(&FlowKey, u64)>,
        packet: &Packet,
        end: End,
        now: Time,
    ) {
        let (Some((key, hash)), Some(flows)) = (key, &mut self.flows) else {
            return;
        };
        if !self.recorder.is_complete() {
            return;
        }
        let Some(record) = Record::finish(&self.recorder, key, packet, end, &mut self.paths, now)
        else {
            return;
        };
        let evicted = flows.insert(record, hash);
        self.counters.add(EngineCounter::Installed as usize, 1);
        self.counters
            .add(EngineCounter::Evicted as usize, u64::from(evicted));
    }
}
