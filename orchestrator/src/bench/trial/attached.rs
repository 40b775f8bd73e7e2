//! Whatever runs behind two endpoints, as a target.

use std::time::Duration;

use super::generator::Generator;
use super::{
    BenchError, Load, Progress, Silent, StatefulLoad, StatefulResult, StatefulTarget, Target,
    TargetDescription, TrialResult,
};
use crate::bench::endpoint::{Endpoint, EndpointSpec, plain_loop};
use crate::bench::stateful;
use crate::bench::traffic::Traffic;

/// How the generator runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// The core that it is pinned to; `None` lets the kernel choose.
    pub core: Option<usize>,
    /// Whether it gives its core away whenever it finds nothing to do. Needed where target and generator share one.
    pub polite: bool,
}

/// Two endpoints that others own the other side of.
pub struct Attached {
    generator: Generator,
    description: TargetDescription,
}

impl Attached {
    /// Attaches to two endpoints.
    ///
    /// # Errors
    /// The first that can't be attached.
    pub fn new(
        name: &str,
        ends: [EndpointSpec; 2],
        options: GeneratorOptions,
        progress: &dyn Progress,
    ) -> Result<Self, BenchError> {
        let names = [0, 1].map(|end| ends[end].to_string());
        Self::named(name, &names, ends, options, progress)
    }

    /// The same, with names for the endpoints that say more than what they are attached to.
    ///
    /// # Errors
    /// The first that can't be attached.
    pub fn named(
        name: &str,
        endpoints: &[String; 2],
        ends: [EndpointSpec; 2],
        options: GeneratorOptions,
        progress: &dyn Progress,
    ) -> Result<Self, BenchError> {
        Self::start(name, endpoints, options, progress, move |control| {
            let attach = |spec| Endpoint::attach(spec, &|| control.is_cancelled());
            Ok([attach(&ends[0])?, attach(&ends[1])?])
        })
    }

    /// Attaches to a plain loop in memory: what the generator reaches there is its own ceiling.
    ///
    /// # Errors
    /// A core that is not there.
    pub fn plain_loop(options: GeneratorOptions) -> Result<Self, BenchError> {
        let names = ["loop a", "loop b"].map(String::from);
        Self::start("plain loop in memory", &names, options, &Silent, |_| {
            Ok(plain_loop())
        })
    }

    fn start(
        name: &str,
        endpoints: &[String; 2],
        options: GeneratorOptions,
        progress: &dyn Progress,
        attach: impl FnOnce(&super::generator::Control) -> Result<[Endpoint; 2], BenchError>
        + Send
        + 'static,
    ) -> Result<Self, BenchError> {
        let GeneratorOptions { core, polite } = options;
        let names = endpoints.clone();
        let generator = Generator::start(core, names, polite, progress, attach)?;
        let settings = generator.run(progress, |engine, _| Ok(engine.settings()))?;
        let mut description = TargetDescription {
            name: name.to_owned(),
            endpoints: endpoints.to_vec(),
            settings: settings.into_iter().collect(),
        };
        let core = core.map_or("not pinned".into(), |core| core.to_string());
        description.settings.insert("generator core".into(), core);
        Ok(Self {
            generator,
            description,
        })
    }
}

impl Attached {
    /// A trial at `over` that goes on without a pause at `after`. Tells how long after the change the last packet was
    /// due that was lost or found no room; zero if there was none.
    ///
    /// # Errors
    /// As [`Target::trial`].
    pub fn overload(
        &mut self,
        over: &Load,
        after: &Load,
        progress: &dyn Progress,
    ) -> Result<(TrialResult, Duration), BenchError> {
        let (over, after) = (*over, *after);
        self.generator.run(progress, move |engine, control| {
            engine.overload(&over, &after, control)
        })
    }
}

impl Target for Attached {
    fn describe(&self) -> TargetDescription {
        self.description.clone()
    }

    fn set_traffic(&mut self, traffic: &Traffic) -> Result<(), BenchError> {
        let traffic = traffic.clone();
        self.generator.run(&Silent, move |engine, control| {
            engine.set_traffic(&traffic, control)
        })
    }

    fn trial(&mut self, load: &Load, progress: &dyn Progress) -> Result<TrialResult, BenchError> {
        let load = *load;
        self.generator.run(progress, move |engine, control| {
            engine.trial(&load, control)
        })
    }
}

impl StatefulTarget for Attached {
    fn stateful(
        &mut self,
        load: &StatefulLoad,
        progress: &dyn Progress,
    ) -> Result<StatefulResult, BenchError> {
        let load = *load;
        self.generator.run(progress, move |engine, control| {
            stateful::run(engine, &load, control)
        })
    }
}
