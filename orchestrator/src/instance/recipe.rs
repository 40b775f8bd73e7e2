//! What a worker's thread builds its engine from.

use std::hash::BuildHasher;
use std::io;

use chainplane_dataplane::crew::Share;
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
    port_names: Vec<String>,
    function_names: Vec<String>,
    pool: PoolConfig,
    flows: usize,
}

impl Recipe {
    pub(super) fn new(model: &Model, plan: WorkerPlan) -> Self {
        let name = |port: &PlannedPort| model.ports[port.index].name.clone();
        Self {
            port_names: plan.ports.iter().map(name).collect(),
            function_names: plan
                .functions
                .iter()
                .map(|function| model.functions[function.index].name.clone())
                .collect(),
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
        let mut seeds = Seeds::new();
        let functions: Vec<_> = self
            .plan
            .functions
            .iter()
            .map(|planned| {
                let seed = seeds.next();
                planned.blueprint.build(&mut Build {
                    objects: &mut objects,
                    seed,
                    share: Share::WHOLE,
                })
            })
            .collect();
        let by_records = |port: &PlannedPort| matches!(port.way, Way::Records(_));
        let table = (self.flows > 0 && self.plan.ports.iter().any(by_records))
            .then(|| {
                let seeds = std::array::from_fn(|_| seeds.next());
                FlowTable::new(self.flows, &objects, seeds)
            })
            .transpose()?;
        let mut engine = Engine::new(Pool::new(self.pool)?, objects, table);
        let planned = self.plan.functions.into_iter().zip(functions);
        for ((planned, function), name) in planned.zip(&self.function_names) {
            engine.add_function(name, function, planned.interfaces);
        }
        let ports = self.plan.ports.iter().zip(makers).zip(&self.port_names);
        for (index, ((planned, maker), name)) in ports.enumerate() {
            engine.add_port(name, maker(), planned.link);
            if planned.way == Way::Functions {
                engine.go_without_records(index);
            }
        }
        Ok(engine)
    }
}

/// Secrets for hashing, fresh at each start: the standard library's hasher is keyed by the system's randomness.
struct Seeds(std::hash::RandomState, u64);

impl Seeds {
    fn new() -> Self {
        Self(std::hash::RandomState::new(), 0)
    }

    fn next(&mut self) -> u64 {
        self.1 += 1;
        self.0.hash_one(self.1)
    }
}
