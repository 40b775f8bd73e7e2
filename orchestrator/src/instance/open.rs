//! Opens ports: what can fail fails here, before a worker runs.

use std::io;
use std::path::Path;

use chainplane_dataplane::crew::Elsewhere;
use chainplane_dataplane::port::{Offloads, Port};
use chainplane_dataplane::ports::{
    AfPacket, AfPacketConfig, Generator, GeneratorConfig, Pcap, PcapConfig, Replay, Tap, TapConfig,
    Timing, Traffic, VhostUser, patch,
};
use chainplane_dataplane::worker::WakeHandle;
use chainplane_vhost::backend::{Device, DeviceConfig, QueuePair, Role};
use chainplane_vhost::net::feature;

use super::{GuestSeat, StartError};
use crate::ids;
use crate::plan::{Plan, Source};
use crate::spec::file;
use crate::spec::model::{Model, NamedPort};

/// Makes the port on its worker's thread.
pub type PortMaker = Box<dyn FnOnce() -> Box<dyn Port> + Send>;

/// All ports, opened.
pub struct OpenedPorts {
    /// What makes each worker's, in the worker's order.
    pub makers: Vec<Vec<PortMaker>>,
    /// The devices of vhost-user ports, by index into the model's ports.
    pub devices: Vec<(usize, Device)>,
    /// Guests to be attached.
    pub seats: Vec<GuestSeat>,
}

impl OpenedPorts {
    /// Opens the ports of a plan for workers that are woken by `wakes`. `sockets` is a directory for the sockets of
    /// embedded guests.
    pub fn open(
        model: &Model,
        plan: &Plan,
        wakes: &[WakeHandle],
        sockets: &Path,
    ) -> Result<Self, StartError> {
        let mut all = Self {
            makers: Vec::new(),
            devices: Vec::new(),
            seats: Vec::new(),
        };
        let ports = plan.workers.iter().map(|worker| worker.ports.iter());
        let mut slots: Vec<Vec<(Source, Option<PortMaker>)>> = ports
            .map(|ports| ports.map(|port| (port.source, None)).collect())
            .collect();
        for (index, named) in model.ports.iter().enumerate() {
            let holders = holders(&slots, Source::Port(index));
            if holders.is_empty() {
                continue;
            }
            let wakes = holders.iter().map(|(worker, _)| wakes[*worker].clone());
            let opened = open(named, wakes.collect(), sockets)
                .map_err(|error| StartError::Port(named.name.clone(), error))?;
            all.devices
                .extend(opened.device.map(|device| (index, device)));
            all.seats.extend(opened.seat);
            let part = plan.parts.iter().find(|part| part.ports.contains(&index));
            let first = part.map_or(0, |part| part.member_of_pair(index, 0, holders.len()));
            let makers = opened.queues.share(first, holders.len());
            for ((worker, at), maker) in holders.into_iter().zip(makers) {
                slots[worker][at].1 = Some(maker);
            }
        }
        for (index, joined) in plan.patches.iter().enumerate() {
            let (a, b) = patch(joined.workers.map(|worker| wakes[worker].clone()));
            let makers: [PortMaker; 2] = [Box::new(|| Box::new(a)), Box::new(|| Box::new(b))];
            for (end, maker) in makers.into_iter().enumerate() {
                if let [(worker, at)] = holders(&slots, Source::Patch(index, end))[..] {
                    slots[worker][at].1 = Some(maker);
                }
            }
        }
        all.makers = slots
            .into_iter()
            .map(|slots| slots.into_iter().filter_map(|(_, maker)| maker).collect())
            .collect();
        Ok(all)
    }
}

/// The workers that have a port, and its number there.
fn holders(slots: &[Vec<(Source, Option<PortMaker>)>], wanted: Source) -> Vec<(usize, usize)> {
    let at = |slots: &Vec<(Source, _)>| slots.iter().position(|(source, _)| *source == wanted);
    let holders = slots.iter().enumerate();
    holders
        .filter_map(|(worker, slots)| Some((worker, at(slots)?)))
        .collect()
}

/// An opened port.
struct Opened {
    /// The workers' side of it.
    queues: Queues,
    /// The control side, for vhost-user.
    device: Option<Device>,
    /// The guest that is to be attached, for embedded guests.
    seat: Option<GuestSeat>,
}

/// What workers poll.
enum Queues {
    /// One queue, of whatever kind.
    One(PortMaker),
    /// A guest's.
    Pairs(Vec<QueuePair>),
}

impl Queues {
    /// Deals queues out to so many workers in turn, the first queue to worker `first` of them. Who gets none knows that
    /// others have them.
    fn share(self, first: usize, workers: usize) -> Vec<PortMaker> {
        let elsewhere = || -> PortMaker { Box::new(|| Box::new(Elsewhere)) };
        let mut makers: Vec<_> = (0..workers).map(|_| elsewhere()).collect();
        match self {
            Self::One(maker) => makers[first] = maker,
            Self::Pairs(pairs) => {
                let mut dealt: Vec<Vec<QueuePair>> = (0..workers).map(|_| Vec::new()).collect();
                for (number, pair) in pairs.into_iter().enumerate() {
                    dealt[(first + number) % workers].push(pair);
                }
                for (maker, pairs) in makers.iter_mut().zip(dealt) {
                    if !pairs.is_empty() {
                        *maker = Box::new(|| Box::new(VhostUser::new(pairs)));
                    }
                }
            }
        }
        makers
    }
}

fn open(named: &NamedPort, wakes: Vec<WakeHandle>, sockets: &Path) -> Result<Opened, String> {
    match &named.config {
        file::Port::VhostUser(config) => vhost_user(device_config(config)?, wakes),
        file::Port::EmbeddedGuest(guest) => embedded_guest(named, guest, wakes, sockets),
        file::Port::Tap(config) => tap(config),
        file::Port::AfPacket(config) => {
            let (interface, offloads) = (config.interface.clone(), offloads(config.offloads));
            plain(AfPacket::open(&AfPacketConfig {
                interface,
                offloads,
            }))
        }
        file::Port::Pcap(config) => pcap(config),
        file::Port::Generator(config) => generator(config),
    }
}

fn plain<P: Port + Send + 'static>(port: io::Result<P>) -> Result<Opened, String> {
    let port = port.map_err(|error| error.to_string())?;
    Ok(Opened {
        queues: Queues::One(Box::new(|| Box::new(port))),
        device: None,
        seat: None,
    })
}

fn tap(config: &file::Tap) -> Result<Opened, String> {
    plain(Tap::open(&TapConfig {
        interface: config.interface.clone(),
        mtu: config.mtu,
        offloads: offloads(config.offloads),
    }))
}

fn pcap(config: &file::Pcap) -> Result<Opened, String> {
    let replay = config.replay.as_ref().map(|path| Replay {
        path: path.clone(),
        timing: match config.timing {
            file::Timing::Original => Timing::Original,
            file::Timing::Fast => Timing::Fast,
        },
        repeat: config.repeat,
    });
    plain(Pcap::open(&PcapConfig {
        replay,
        record: config.record.clone(),
    }))
}

fn generator(config: &file::Generator) -> Result<Opened, String> {
    let made = Generator::new(&GeneratorConfig {
        packets: config.packets,
        rate: config.rate,
        size: config.size,
        flows: config.flows,
        from: config.from,
        to: config.to,
        from_port: config.from_port,
        to_port: config.to_port,
        traffic: match config.protocol {
            file::Protocol::Udp => Traffic::Udp,
            file::Protocol::Tcp => Traffic::Tcp,
            file::Protocol::Icmp => Traffic::Echo,
        },
        from_mac: config.from_mac.0,
        to_mac: config.to_mac.0,
    });
    plain(made.map_err(io::Error::other))
}

fn embedded_guest(
    named: &NamedPort,
    guest: &file::EmbeddedGuest,
    wakes: Vec<WakeHandle>,
    sockets: &Path,
) -> Result<Opened, String> {
    let socket = sockets.join(format!("{}.sock", named.name));
    let mut opened = vhost_user(DeviceConfig::new(&socket), wakes)?;
    opened.seat = Some(GuestSeat {
        name: named.name.clone(),
        guest: guest.clone(),
        socket,
    });
    Ok(opened)
}

/// A device whose queues these workers poll.
fn vhost_user(config: DeviceConfig, wakes: Vec<WakeHandle>) -> Result<Opened, String> {
    let wake = move || wakes.iter().for_each(WakeHandle::wake);
    let (device, pairs) =
        Device::start(config, Box::new(wake)).map_err(|error| error.to_string())?;
    Ok(Opened {
        queues: Queues::Pairs(pairs),
        device: Some(device),
        seat: None,
    })
}

fn device_config(config: &file::VhostUser) -> Result<DeviceConfig, String> {
    Ok(DeviceConfig {
        socket: config.socket.clone(),
        role: match config.role {
            file::Role::Server => Role::Server,
            file::Role::Client => Role::Client,
        },
        owner: config.owner.as_deref().map(ids::user).transpose()?,
        group: config.group.as_deref().map(ids::group).transpose()?,
        mode: config.mode.map(file::FileMode::bits),
        queue_pairs: config.queues,
        offloads: features(config.offloads),
        mergeable: true,
        packed: config.packed,
        ring_reset: config.ring_reset,
        mtu: config.mtu,
        mac: config.mac.map(|mac| mac.0.0),
    })
}

/// What a kernel is to complete.
fn offloads(wanted: file::Offloads) -> Offloads {
    let (tcp, udp) = (wanted.segmentation, wanted.udp());
    Offloads {
        checksum: wanted.checksum,
        tcp4: tcp,
        tcp6: tcp,
        ecn: tcp,
        udp4: udp,
        udp6: udp,
    }
}

/// The feature bits to offer to a guest, in both directions.
fn features(wanted: file::Offloads) -> u64 {
    const CHECKSUM: u64 = feature::CSUM | feature::GUEST_CSUM;
    const UDP: u64 = feature::HOST_USO | feature::GUEST_USO4 | feature::GUEST_USO6;
    const TCP: u64 = feature::OFFLOADS & !CHECKSUM & !UDP;
    let bits = |wanted: bool, bits: u64| if wanted { bits } else { 0 };
    bits(wanted.checksum, CHECKSUM) | bits(wanted.segmentation, TCP) | bits(wanted.udp(), UDP)
}
