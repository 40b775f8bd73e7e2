//! The fast way: a batch is parsed, looked up and replayed.

use arrayvec::ArrayVec;

use super::{Engine, EngineCounter, Hop};
use crate::crew::Owner;
use crate::flow::{
    Egress, End, FlowKey, Located, Parsed, Stale, parse_common, parse_general, parse_plain,
};
use crate::function::Glimpse;
use crate::offload;
use crate::packet::{BURST, Batch, Packet};
use crate::port::PortDrop;
use crate::tails::Lenders;
use crate::time::Time;

/// Packets without a record in a batch from which on it is worth while to look ahead for all of them.
const FEW: usize = 4;
/// Functions in a row that are asked to do so: what they foresee becomes less likely, and caches are small.
const FORESEEN: usize = 8;

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
    /// Goes over the whole batch for each step, so that memory is near when it is used: parses, and asks for the buckets;
    /// looks into these, and asks for the records; then handles the packets one after the other, in order, as one may
    /// install the record that the next one needs.
    pub(super) fn forward(&mut self, ingress: u16, batch: &mut Batch, now: Time) {
        let mut classes = ArrayVec::new();
        self.classify(ingress, batch, &mut classes);
        let mut located = [Located::NOWHERE; BURST];
        let mut strangers = classes.len();
        if let Some(flows) = &self.objects.flows {
            for (located, class) in located.iter_mut().zip(&classes) {
                if let Class::Keyed(key, hash) = class {
                    *located = flows.locate(key, *hash);
                    strangers -= usize::from(*located != Located::NOWHERE);
                }
            }
        }
        if std::mem::take(&mut self.fresh) && strangers > 0 {
            self.keep_own(ingress, batch, &mut classes, &mut located);
        }
        if strangers >= FEW {
            self.foresee(ingress, batch, &classes, &located);
        }
        for (packet, (class, located)) in batch.drain(..).zip(classes.iter().zip(located)) {
            match class {
                Class::Keyed(key, hash) => self.handle(ingress, packet, (key, *hash), located, now),
                Class::Unkeyed => self.run_unkeyed(ingress, packet, now),
                Class::Refused(reason) => self.ports[ingress as usize].tally.drop(*reason, 1),
            }
        }
        self.count_replayed();
    }

    /// Has the functions on the way of packets without a record ask for the memory that they will need.
    #[inline(never)]
    fn foresee(&self, ingress: u16, batch: &Batch, classes: &[Class], located: &[Located; BURST]) {
        let mut coming = ArrayVec::<_, BURST>::new();
        for (packet, (class, located)) in batch.iter().zip(classes.iter().zip(located)) {
            if *located == Located::NOWHERE && !matches!(class, Class::Refused(_)) {
                coming.extend(Glimpse::of(packet));
            }
        }
        let mut hop = self.ports[ingress as usize].link;
        for _ in 0..FORESEEN {
            let Hop::Function(function, by) = hop else {
                return;
            };
            let slot = &self.functions[function as usize];
            let to = slot.function.foresee(&mut coming, by, &self.objects);
            let Some(next) = to.and_then(|to| slot.links.get(to.0 as usize)) else {
                return;
            };
            hop = *next;
        }
    }

    /// Of packets that just came in, hands over what belongs to other members of the crew. Who has a flow's record owns the
    /// flow, so that nothing has to be found out of the packets of most. What only looks as if it had one is found later.
    #[inline(never)]
    fn keep_own(
        &mut self,
        ingress: u16,
        batch: &mut Batch,
        classes: &mut ArrayVec<Class, BURST>,
        located: &mut [Located; BURST],
    ) {
        let Some(crew) = &mut self.crew else { return };
        if !crew.has_port(ingress.into()) {
            return;
        }
        let packets = batch.iter_mut().zip(classes.iter().zip(&*located));
        let owners: ArrayVec<Owner, BURST> = packets
            .map(|(packet, (class, located))| match class {
                Class::Keyed(..) if *located != Located::NOWHERE => Owner::Anyone,
                Class::Refused(_) => Owner::Anyone,
                Class::Keyed(..) | Class::Unkeyed => crew.owner_of(packet),
            })
            .collect();
        if owners.iter().all(|owner| *owner == Owner::Anyone) {
            return;
        }
        let handed = crew.divide_by(ingress, batch, &owners, Lenders::all(&self.ports));
        // What is known of those that stay goes with them.
        let mut kept = 0;
        for (at, owner) in owners.iter().enumerate() {
            if crew.handles(*owner) {
                located[kept] = located[at];
                kept += 1;
            }
        }
        let mut owners = owners.iter();
        classes.retain(|_| owners.next().is_none_or(|owner| crew.handles(*owner)));
        self.count_handed(ingress.into(), handed);
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
            } else if let (Parsed::Keyed(key), Some(flows)) = (parsed, &self.objects.flows) {
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
        match (parsed, &self.objects.flows) {
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

    fn run_unkeyed(&mut self, ingress: u16, packet: Packet, now: Time) {
        self.counters.add(EngineCounter::Unkeyed as usize, 1);
        self.recorder.begin(false);
        self.run_stages(ingress, packet, None, now);
    }

    /// Replays the packet's record, or else runs the stages.
    #[inline]
    fn handle(
        &mut self,
        ingress: u16,
        mut packet: Packet,
        key: (&FlowKey, u64),
        located: Located,
        now: Time,
    ) {
        match self.replay(&mut packet, key, located, now) {
            Ok(Some(port)) => self.send(port, packet, now),
            Ok(None) => {}
            Err(why) => {
                if why == EngineCounter::Misses && located != Located::NOWHERE {
                    // The record of another flow with the same tag: nobody has asked yet whose packet this is.
                    let Some(own) = self.keep_if_own(ingress, packet) else {
                        return;
                    };
                    packet = own;
                }
                self.counters.add(why as usize, 1);
                self.recorder.begin(true);
                self.run_stages(ingress, packet, Some(key), now);
            }
        }
    }

    /// Replays the packet's record; tells where it goes, or as what it is counted if the stages have to run.
    #[inline]
    fn replay(
        &mut self,
        packet: &mut Packet,
        (key, hash): (&FlowKey, u64),
        located: Located,
        now: Time,
    ) -> Result<Egress, EngineCounter> {
        let flows = self.objects.flows.as_ref().ok_or(EngineCounter::Misses)?;
        let number = flows
            .find(key, hash, located)
            .ok_or(EngineCounter::Misses)?;
        match self.objects.replay(number, packet, now) {
            Ok(egress) => Ok(egress),
            Err(Stale::Guard) => Err(EngineCounter::Guarded),
            Err(Stale::Dependency) => {
                self.objects.forget(number);
                Err(EngineCounter::Stale)
            }
        }
    }

    /// Counts a batch's replayed packets, once for all that took the same way.
    #[inline]
    fn count_replayed(&mut self) {
        let (paths, functions) = (&self.paths, &self.functions);
        let Some(flows) = &mut self.objects.flows else {
            return;
        };
        let mut hits = 0;
        flows.drain_counts(|path, packets, bytes, slots| {
            hits += packets;
            paths.count(path, packets, bytes);
            for (function, slot) in slots {
                let tally = &functions[*function as usize].tally;
                tally.counters.add(*slot as usize, packets);
            }
        });
        self.counters.add(EngineCounter::Hits as usize, hits);
    }

    pub(super) fn install(
        &mut self,
        key: Option<(&FlowKey, u64)>,
        packet: &Packet,
        end: End,
        now: Time,
    ) {
        let Some(key) = key else { return };
        let (recorder, paths) = (&self.recorder, &mut self.paths);
        let installed = self
            .objects
            .install(recorder, key, (packet, end), paths, now);
        if let Some(evicted) = installed {
            self.counters.add(EngineCounter::Installed as usize, 1);
            self.counters
                .add(EngineCounter::Evicted as usize, u64::from(evicted));
        }
    }
}
