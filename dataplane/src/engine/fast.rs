//! The fast way: a batch is parsed, looked up and replayed.

use arrayvec::ArrayVec;

use super::{Engine, EngineCounter};
use crate::flow::{End, FlowKey, Record, Stale, key_of};
use crate::offload;
use crate::packet::{BURST, Batch, Packet, parse};
use crate::port::PortDrop;
use crate::time::Time;

/// A packet's key and hash if it may be replayed, or why it is dropped.
type Classified = Result<Option<(FlowKey, u64)>, PortDrop>;

impl Engine {
    /// Parses and looks up the whole batch first, so that the table's memory is near when it is used; then handles
    /// the packets one after the other, in order.
    pub(super) fn forward(&mut self, ingress: u16, batch: &mut Batch, now: Time) {
        let classified: ArrayVec<Classified, BURST> = batch
            .iter_mut()
            .map(|packet| self.classify(ingress, packet))
            .collect();
        if let Some(flows) = &self.flows {
            for (_, hash) in classified.iter().flatten().flatten() {
                flows.prefetch_record(*hash);
            }
        }
        for (packet, class) in batch.drain(..).zip(&classified) {
            match class {
                Err(reason) => self.ports[ingress as usize].tally.drop(*reason, 1),
                Ok(key) => self.handle(ingress, packet, key.as_ref(), now),
            }
        }
    }

    #[inline]
    fn classify(&self, ingress: u16, packet: &mut Packet) -> Classified {
        parse(packet).map_err(PortDrop::from)?;
        offload::check(packet)?;
        let Some(flows) = &self.flows else {
            return Ok(None);
        };
        Ok(key_of(packet, ingress).map(|key| {
            let hash = flows.hash(&key);
            flows.prefetch(hash);
            (key, hash)
        }))
    }

    #[inline]
    fn handle(&mut self, ingress: u16, packet: Packet, key: Option<&(FlowKey, u64)>, now: Time) {
        let Some((key, hash)) = key else {
            self.counters.add(EngineCounter::Unkeyed as usize, 1);
            self.recorder.begin(false);
            return self.run_stages(ingress, packet, None, now);
        };
        let Some(packet) = self.replay(packet, key, *hash, now) else {
            return;
        };
        self.recorder.begin(true);
        self.run_stages(ingress, packet, Some((key, *hash)), now);
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
