//! What all workers together have counted, at one moment.

use chainplane_dataplane::stats::{FunctionSnapshot, PortSnapshot, Snapshot};

use crate::plan::is_patch;

/// All counters that the table shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By port, in the order of the workers.
    pub ports: Vec<PortTotals>,
    /// By function, in the order of the workers.
    pub functions: Vec<FunctionTotals>,
    /// Packets dropped, by place and reason; only what is above 0.
    pub drops: Vec<Drops>,
}

/// A port's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortTotals {
    /// Its name.
    pub name: String,
    /// Packets that came in.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets that went out.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Packets dropped.
    pub drops: u64,
}

/// A function's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionTotals {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Packets that came in, by all its interfaces.
    pub packets: u64,
    /// Sessions it holds.
    pub sessions: u64,
    /// Packets dropped.
    pub drops: u64,
}

/// Packets that one place dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops {
    /// The port's or function's name.
    pub place: String,
    /// The reason.
    pub reason: &'static str,
    /// How many.
    pub packets: u64,
}

impl Totals {
    /// Adds up what workers have counted. A port or function that stands on several workers has one line.
    pub fn of(snapshots: &[Snapshot]) -> Self {
        let mut totals = Self::default();
        for snapshot in snapshots {
            snapshot.ports.iter().for_each(|port| totals.add_port(port));
            let functions = snapshot.functions.iter();
            functions.for_each(|function| totals.add_function(function));
        }
        totals
    }

    fn add_port(&mut self, port: &PortSnapshot) {
        let drops = self.add_drops(&port.name, &port.drops);
        let known = self.ports.iter().position(|p| p.name == port.name);
        let index = known.unwrap_or_else(|| {
            self.ports.push(PortTotals {
                name: port.name.clone(),
                ..PortTotals::default()
            });
            self.ports.len() - 1
        });
        let totals = &mut self.ports[index];
        totals.rx_packets += port.value("rx-packets");
        totals.rx_bytes += port.value("rx-bytes");
        totals.tx_packets += port.value("tx-packets");
        totals.tx_bytes += port.value("tx-bytes");
        totals.drops += drops;
    }

    fn add_function(&mut self, function: &FunctionSnapshot) {
        let drops = self.add_drops(&function.name, &function.drops);
        let known = self.functions.iter().position(|f| f.name == function.name);
        let index = known.unwrap_or_else(|| {
            self.functions.push(FunctionTotals {
                name: function.name.clone(),
                kind: function.kind,
                ..FunctionTotals::default()
            });
            self.functions.len() - 1
        });
        let totals = &mut self.functions[index];
        totals.packets += function
            .interfaces
            .iter()
            .map(|i| i.in_packets)
            .sum::<u64>();
        totals.sessions += function.sessions;
        totals.drops += drops;
    }

    fn add_drops(
        &mut self,
        place: &str,
        drops: &[(chainplane_dataplane::counters::Info, u64)],
    ) -> u64 {
        for (info, packets) in drops.iter().filter(|(_, packets)| *packets > 0) {
            let same = |d: &&mut Drops| d.place == place && d.reason == info.name;
            match self.drops.iter_mut().find(same) {
                Some(known) => known.packets += packets,
                None => self.drops.push(Drops {
                    place: place.to_owned(),
                    reason: info.name,
                    packets: *packets,
                }),
            }
        }
        drops.iter().map(|(_, packets)| packets).sum()
    }

    /// Packets that came in by all ports; what goes from worker to worker came in once.
    pub fn received(&self) -> u64 {
        self.ends().map(|port| port.rx_packets).sum()
    }

    /// Packets that went out by all ports, likewise.
    pub fn sent(&self) -> u64 {
        self.ends().map(|port| port.tx_packets).sum()
    }

    /// Ports at the ends of chains.
    fn ends(&self) -> impl Iterator<Item = &PortTotals> {
        self.ports.iter().filter(|port| !is_patch(&port.name))
    }

    /// Packets that functions dropped.
    pub fn dropped_by_functions(&self) -> u64 {
        self.functions.iter().map(|function| function.drops).sum()
    }

    /// Packets dropped anywhere.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(|drops| drops.packets).sum()
    }
}
