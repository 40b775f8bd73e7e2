//! Interfaces of the host as endpoints: the dataplane's own ports, driven from the other side.

use std::io;

use chainplane_dataplane::packet::{BURST, Batch, HugePages, Pool, PoolConfig};
use chainplane_dataplane::port::{Offloads, Port, PortContext, PortTally};
use chainplane_dataplane::ports::{AfPacket, AfPacketConfig, Tap, TapConfig};
use chainplane_dataplane::time::Time;

use crate::bench::traffic::fill::{Fill, MAX_FRAME};
use crate::bench::traffic::head::HEAD;
use crate::bench::trial::BenchError;

/// Where Linux says whether an interface is there.
const INTERFACES: &str = "/sys/class/net";

/// Whether this network namespace has an interface of that name; /sys may show those of another.
fn is_there(name: &str) -> bool {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let asking = socket(AddressFamily::INET, SocketType::DGRAM, None);
    asking.is_ok_and(|socket| netdevice::name_to_index(&socket, name).is_ok())
}

/// An attached interface.
pub struct InterfaceEnd {
    kind: &'static str,
    name: String,
    port: Box<dyn Port>,
    pool: Pool,
    tally: PortTally,
    out: Batch,
    back: Batch,
    fill: Vec<u8>,
}

impl InterfaceEnd {
    /// One that is there: a name that is misspelt would make another, and measure nothing.
    pub fn tap(name: &str) -> Result<Self, BenchError> {
        if !is_there(name) {
            return Err(BenchError::Attach {
                endpoint: format!("tap {name}"),
                reason: "there is no such interface".into(),
                hint: Some(format!(
                    "`ip tuntap add {name} mode tap` makes one, `ip link set {name} up` starts it"
                )),
            });
        }
        let config = TapConfig {
            interface: name.to_owned(),
            mtu: None,
            offloads: Offloads::default(),
        };
        Self::new(
            "tap",
            name,
            Tap::open(&config).map(|port| Box::new(port) as _),
        )
    }

    pub fn af_packet(name: &str) -> Result<Self, BenchError> {
        let interface = name.to_owned();
        let port = AfPacket::open(&AfPacketConfig {
            interface,
            offloads: Offloads::default(),
        });
        Self::new("af-packet", name, port.map(|port| Box::new(port) as _))
    }

    fn new(
        kind: &'static str,
        name: &str,
        port: io::Result<Box<dyn Port>>,
    ) -> Result<Self, BenchError> {
        let pool = PoolConfig {
            small: 2048,
            large: 64,
            huge_pages: HugePages::Never,
        };
        let opened = port.and_then(|port| Ok((port, Pool::new(pool)?)));
        let (port, pool) = opened.map_err(|error| BenchError::Attach {
            endpoint: format!("{kind} {name}"),
            reason: error.to_string(),
            hint: (error.kind() == io::ErrorKind::PermissionDenied)
                .then(|| "interfaces need root, or the capability that is named".into()),
        })?;
        Ok(Self {
            kind,
            name: name.to_owned(),
            port,
            pool,
            tally: PortTally::default(),
            out: Batch::new(),
            back: Batch::new(),
            fill: vec![0; MAX_FRAME],
        })
    }

    #[expect(
        clippy::unused_self,
        reason = "all kinds of endpoint have the same methods"
    )]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![(
            "system calls",
            "the kernel takes a share of the time".into(),
        )]
    }

    /// As the interface's MTU says; without it, of Ethernet.
    pub fn longest_frame(&self) -> usize {
        let mtu = std::fs::read_to_string(format!("{INTERFACES}/{}/mtu", self.name));
        let mtu = mtu.ok().and_then(|mtu| mtu.trim().parse::<usize>().ok());
        mtu.map_or(1514, |mtu| (mtu + 14).min(MAX_FRAME))
    }

    #[expect(
        clippy::unused_self,
        reason = "all kinds of endpoint have the same methods"
    )]
    pub fn queues(&self) -> usize {
        1
    }

    pub fn set_fill(&mut self, fill: &Fill) {
        self.fill.copy_from_slice(fill.bytes());
    }

    pub fn send(&mut self, _queue: usize, head: &[u8; HEAD], len: usize) -> bool {
        self.push(len, |bytes, fill| {
            let cut = HEAD.min(len);
            bytes[..cut].copy_from_slice(&head[..cut]);
            bytes[cut..].copy_from_slice(&fill[cut..len]);
        })
    }

    pub fn send_whole(&mut self, frame: &[u8]) -> bool {
        self.push(frame.len(), |bytes, _| bytes.copy_from_slice(frame))
    }

    fn push(&mut self, len: usize, write: impl FnOnce(&mut [u8], &[u8])) -> bool {
        if self.out.len() == BURST {
            return false;
        }
        let Some(mut packet) = self.pool.take(len) else {
            return false;
        };
        let Some(bytes) = packet.extend(len) else {
            return false;
        };
        write(bytes, &self.fill);
        self.out.push(packet);
        true
    }

    pub fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let mut cx = PortContext::new(&mut self.pool, &self.tally, Time(0));
        // What the kernel has no room for is lost, as on a wire.
        self.port.send(&mut cx, &mut self.out);
    }

    pub fn receive(&mut self, _max: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut cx = PortContext::new(&mut self.pool, &self.tally, Time(0));
        self.port.receive(&mut cx, &mut self.back);
        let count = self.back.len();
        for packet in self.back.drain(..) {
            take(packet.data());
        }
        count
    }

    pub fn check(&mut self) -> Result<(), BenchError> {
        if is_there(&self.name) {
            return Ok(());
        }
        Err(BenchError::Died {
            endpoint: format!("{} {}", self.kind, self.name),
            reason: "the interface has gone".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_that_is_not_there_is_not_made() {
        let Err(BenchError::Attach { hint, .. }) = InterfaceEnd::tap("no-such-tap") else {
            panic!("it was made");
        };
        assert!(hint.is_some_and(|hint| hint.contains("ip tuntap add no-such-tap")));
        assert!(!is_there("no-such-tap"));
    }
}
