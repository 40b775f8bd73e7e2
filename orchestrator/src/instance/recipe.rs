//! What a worker's thread builds its engine from.

use std::hash::BuildHasher;
use std::io;

use chainplane_dataplane::crew::{Membership, Share};
use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::flow::FlowTable;
use chainplane_dataplane::function::Build;
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::{HugePages, Pool, PoolConfig};

use super::open::PortMaker;
use crate::plan::{PlannedPort, Way, WorkerPlan};
use crate::spec::file;
use crate::spec::model::Model;

/// One large buffer (64 KiB) for this many small ones.
const LARGE_SHARE: u32 = 16;

/// Everything but the ports, which are made on the thread.
pub(super) struct Recipe {
    plan: WorkerPlan,
    functions: Vec<(String, u64)>,
    pool: PoolConfig,
    flows: usize,
    crew: Option<Membership>,
}

impl Recipe {
    /// For a worker that runs this, with `seeds` for all functions of the model: members of a crew choose alike.
    pub(super) fn new(
        model: &Model,
        plan: WorkerPlan,
        seeds: &[u64],
        crew: Option<Membership>,
    ) -> Self {
        let functions = plan.functions.iter().map(|function| {
            let name = model.functions[function.index].name.clone();
            (name, seeds[function.index])
        });
        Self {
            functions: functions.collect(),
            crew,
            pool: PoolConfig {
                small: model.buffers as usize,
                large: (model.buffers / LARGE_SHARE) as usize,
                huge_pages: match model.huge_pages {
                    file::HugePages::Auto => HugePages::Auto,
                    file::HugePages::Never => HugePages::Never,
                    file::HugePages::Require => HugePages::Require,
                },
            },
            flows: model.flow_table as usize,
            plan,
        }
    }

    pub(super) fn cook(self, makers: Vec<PortMaker>) -> io::Result<Engine> {
        let mut objects = Objects::default();
        let share = self.crew.as_ref().map_or(Share::WHOLE, Membership::share);
        let planned = self.plan.functions.iter().zip(&self.functions);
        let functions: Vec<_> = planned
            .map(|(planned, (_, seed))| {
                planned.blueprint.build(&mut Build {
                    objects: &mut objects,
                    seed: *seed,
                    share,
                })
            })
            .collect();
        let by_records = |port: &PlannedPort| matches!(port.way, Way::Records(_));
        let table = (self.flows > 0 && self.plan.ports.iter().any(by_records))
            .then(|| {
                let mut seeds = Seeds::new();
                let seeds = std::array::from_fn(|_| seeds.next());
                FlowTable::new(self.flows, &objects, seeds)
            })
            .transpose()?;
        let mut engine = Engine::new(Pool::new(self.pool)?, objects, table);
        let planned = self.plan.functions.into_iter().zip(functions);
        for ((planned, function), (name, _)) in planned.zip(&self.functions) {
            engine.add_function(name, function, planned.interfaces);
        }
        for (index, (planned, maker)) in self.plan.ports.iter().zip(makers).enumerate() {
            engine.add_port(&planned.name, maker(), planned.link);
            if planned.way == Way::Functions {
                engine.go_without_records(index);
            }
        }
        if let Some(crew) = self.crew {
            engine.join(crew);
        }
        Ok(engine)
    }
}

/// Secrets for hashing, fresh at each start: the standard library's hasher is keyed by the system's randomness.
pub(super) struct Seeds(std::hash::RandomState, u64);

impl Seeds {
    pub(super) fn new() -> Self {
        Self(std::hash::RandomState::new(), 0)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.1 += 1;
        self.0.hash_one(self.1)
    }
}
