//! Turns a complete recording into a record.

use arrayvec::ArrayVec;

use super::key::FlowKey;
use super::paths::{End, Paths};
use super::record::{MAX_DEPENDENCIES, MAX_WATCHES, Record};
use super::recorder::{Dependency, Kind, Recorder};
use super::table::{FlowTable, Located};
use crate::objects::{Objects, Tie};
use crate::packet::Packet;
use crate::time::Time;

/// What a new record's age is taken to be, in [`Time::ticks`], until a packet replays it: about a second. So a record that
/// packets do replay is not given up for one of a flow that has shown a single packet, and a flood of those takes no
/// records but its own.
const PROBATION: u32 = 954;

/// What of a recording is looked at for each packet.
type Watched = ArrayVec<Dependency, MAX_WATCHES>;

/// Which sessions a record reaches through a bundle.
struct Plan {
    /// An existing bundle to join.
    bundle: Option<u32>,
    /// Sessions to put into it; into a new one, where there is none.
    fresh: ArrayVec<Dependency, MAX_DEPENDENCIES>,
    watched: Watched,
}

impl Objects {
    /// Installs the record of a flow: `packet` is as it left. Says whether another record was evicted for it; `None`
    /// when it was not installed, as it does not fit or something it relies on has changed meanwhile.
    pub(crate) fn install(
        &mut self,
        recorder: &Recorder,
        (key, hash): (&FlowKey, u64),
        (packet, end): (&Packet, End),
        paths: &mut Paths,
        now: Time,
    ) -> Option<bool> {
        if !recorder.is_complete() || !self.holds_all(recorder) {
            return None;
        }
        let path = paths.intern(&recorder.steps, end)?;
        let generation = self.generation;
        let flows = self.flows.as_mut()?;
        if let Some(old) = flows.find(key, hash, Located::NOWHERE) {
            flows.remove(old);
        }
        let plan = self.plan(recorder)?;
        let flows = self.flows.as_mut()?;
        let template = flows.templates.obtain(recorder, path, end, generation)?;
        let (mut record, wide) = Record::new(
            key,
            hash,
            recorder,
            packet,
            now.ticks().wrapping_sub(PROBATION),
        );
        record.template = template;
        record.watches = plan.watched.len() as u8;
        let Some((number, evicted)) = flows.insert(record, wide) else {
            flows.templates.release(template);
            return None;
        };
        self.watch(number, &plan.watched);
        self.tie(number, &plan, recorder, now);
        for used in recorder
            .dependencies
            .iter()
            .filter(|used| used.kind == Kind::Shared)
        {
            self.slots[used.object.0 as usize].set_tie(Tie::Templates);
        }
        Some(evicted)
    }

    /// Whether what was seen while the stages ran is still so: a later stage may have changed it.
    fn holds_all(&self, recorder: &Recorder) -> bool {
        recorder.dependencies.iter().all(|used| {
            let slot = &self.slots[used.object.0 as usize];
            // A session is no table: whoever treats one as the other is not replayed.
            let fits = used.kind != Kind::Shared || !matches!(slot.tie(), Tie::Bundle(_));
            slot.epoch == used.epoch && fits
        })
    }

    /// Finds the bundle for the record's sessions. One that has sessions which the record does not see can't be it; nor
    /// can sessions join one of which another record does not see them. What is in no such bundle is watched.
    fn plan(&self, recorder: &Recorder) -> Option<Plan> {
        let mut plan = Plan {
            bundle: None,
            fresh: ArrayVec::new(),
            watched: Watched::new(),
        };
        let bundles = &self.flows.as_ref()?.bundles;
        let tie = |used: &Dependency| self.slots[used.object.0 as usize].tie();
        let sessions = || {
            recorder
                .dependencies
                .iter()
                .filter(|used| used.kind == Kind::Session)
        };
        plan.bundle = sessions().find_map(|used| {
            let Tie::Bundle(bundle) = tie(used) else {
                return None;
            };
            let seen = sessions()
                .filter(|used| tie(used) == Tie::Bundle(bundle))
                .count();
            let found = bundles.get(bundle);
            (found.members as usize == seen && found.has_room()).then_some(bundle)
        });
        let grows = plan
            .bundle
            .is_none_or(|bundle| bundles.get(bundle).is_idle());
        for used in &recorder.dependencies {
            match (used.kind, tie(used)) {
                (Kind::Session, Tie::None) if grows => plan.fresh.push(*used),
                (Kind::Session, Tie::Bundle(bundle)) if plan.bundle == Some(bundle) => {}
                (Kind::Shared, _) => {}
                _ => plan.watched.try_push(*used).ok()?,
            }
        }
        Some(plan)
    }

    fn watch(&mut self, number: u32, watched: &Watched) {
        let Some(flows) = self.flows.as_mut().filter(|_| !watched.is_empty()) else {
            return;
        };
        let mut sessions = 0;
        let watches = flows.watches_mut(number);
        for (at, used) in watched.iter().enumerate() {
            (watches.objects[at], watches.epochs[at]) = (used.object.0, used.epoch);
            sessions |= u8::from(used.kind == Kind::Session) << at;
        }
        flows.record_mut(number).watched_sessions = sessions;
    }

    /// Puts the record and its sessions into their bundle.
    fn tie(&mut self, number: u32, plan: &Plan, recorder: &Recorder, now: Time) {
        let Some(flows) = &mut self.flows else { return };
        let fresh = plan.fresh.len() as u32;
        let bundle = match plan.bundle {
            Some(bundle) => {
                flows.bundles.get_mut(bundle).members += fresh;
                bundle
            }
            None if fresh == 0 => return,
            None => match flows.bundles.make(fresh, now.ticks()) {
                Some(bundle) => bundle,
                None => return flows.remove(number),
            },
        };
        for used in &plan.fresh {
            self.slots[used.object.0 as usize].set_tie(Tie::Bundle(bundle));
        }
        let tied =
            |used: &&Dependency| self.slots[used.object.0 as usize].tie() == Tie::Bundle(bundle);
        let timeouts = recorder.dependencies.iter().filter(tied);
        let timeouts = timeouts.map(|used| self.slots[used.object.0 as usize].timeout);
        let alive_for = timeouts.min().unwrap_or(u32::MAX);
        Self::join(flows, number, bundle, alive_for);
    }

    fn join(flows: &mut FlowTable, number: u32, bundle: u32, alive_for: u32) {
        flows.bundles.get_mut(bundle).add(number);
        let record = flows.record_mut(number);
        record.bundle = bundle + 1;
        record.alive_for = alive_for;
        // It must not look dead to its first packets.
        let younger = PROBATION - PROBATION.min(alive_for / 2);
        record.last_used = record.last_used.wrapping_add(younger);
    }
}
