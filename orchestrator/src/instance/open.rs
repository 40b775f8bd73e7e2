//! Opens ports: what can fail fails here, before a worker runs.

use std::io;
use std::path::Path;

use chainplane_dataplane::port::{Offloads, Port};
use chainplane_dataplane::ports::{
    AfPacket, AfPacketConfig, Generator, GeneratorConfig, Pcap, PcapConfig, Replay, Tap, TapConfig,
    Timing, Traffic, VhostUser,
};
use chainplane_dataplane::worker::WakeHandle;
use chainplane_vhost::backend::{Device, DeviceConfig, Role};
use chainplane_vhost::net::feature;

use super::{GuestSeat, StartError};
use crate::ids;
use crate::plan::WorkerPlan;
use crate::spec::file;
use crate::spec::model::{Model, NamedPort};

/// Makes the port on its worker's thread.
pub type PortMaker = Box<dyn FnOnce() -> Box<dyn Port> + Send>;

/// A worker's ports, opened.
pub struct OpenedPorts {
    /// What makes each, in the worker's order.
    pub makers: Vec<PortMaker>,
    /// The devices of vhost-user ports, by index into the model's ports.
    pub devices: Vec<(usize, Device)>,
    /// Guests to be attached.
    pub seats: Vec<GuestSeat>,
}

impl OpenedPorts {
    /// Opens the ports of a worker. `sockets` is a directory for the sockets of embedded guests.
    pub fn open(
        model: &Model,
        plan: &WorkerPlan,
        wake: &WakeHandle,
        sockets: &Path,
    ) -> Result<Self, StartError> {
        let mut all = Self {
            makers: Vec::new(),
            devices: Vec::new(),
            seats: Vec::new(),
        };
        for port in &plan.ports {
            let named = &model.ports[port.index];
            let opened = open(named, wake, sockets)
                .map_err(|error| StartError::Port(named.name.clone(), error))?;
            all.makers.push(opened.maker);
            all.devices
                .extend(opened.device.map(|device| (port.index, device)));
            all.seats.extend(opened.seat);
        }
        Ok(all)
    }
}

/// An opened port.
struct Opened {
    /// Makes the worker's side of it.
    maker: PortMaker,
    /// The control side, for vhost-user.
    device: Option<Device>,
    /// The guest that is to be attached, for embedded guests.
    seat: Option<GuestSeat>,
}

fn open(named: &NamedPort, wake: &WakeHandle, sockets: &Path) -> Result<Opened, String> {
    match &named.config {
        file::Port::VhostUser(config) => vhost_user(device_config(config)?, wake),
        file::Port::EmbeddedGuest(guest) => embedded_guest(named, guest, wake, sockets),
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
        maker: Box::new(|| Box::new(port)),
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
    wake: &WakeHandle,
    sockets: &Path,
) -> Result<Opened, String> {
    let socket = sockets.join(format!("{}.sock", named.name));
    let mut opened = vhost_user(DeviceConfig::new(&socket), wake)?;
    opened.seat = Some(GuestSeat {
        name: named.name.clone(),
        guest: guest.clone(),
        socket,
    });
    Ok(opened)
}

fn vhost_user(config: DeviceConfig, wake: &WakeHandle) -> Result<Opened, String> {
    let wake = wake.clone();
    let (device, pairs) =
        Device::start(config, Box::new(move || wake.wake())).map_err(|error| error.to_string())?;
    let maker: PortMaker = Box::new(|| Box::new(VhostUser::new(pairs)));
    Ok(Opened {
        maker,
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
