//! Kinds of port and offloads against each other: whatever the two ends leave undone and complete, the same bytes
//! arrive through all four functions, and kernels and tshark find the checksums right.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use chainplane_tests::wire::{Route, receive};
use chainplane_tests::{
    Chainplane, Error, Need, Netns, Process, Result, Workspace, program, run, wait_until,
};
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{NetHeader, feature};

use crate::Test;

pub const TESTS: &[Test] = &[Test {
    name: "offloads::every_kind_to_every_other",
    needs: &[
        Need::NetworkNamespaces,
        Need::File("/dev/net/tun"),
        Need::Program("ip"),
        Need::Program("socat"),
        Need::Program("busybox"),
        Need::Program("tshark"),
    ],
    run: every_kind_to_every_other,
}];

/// Ports with a kernel behind them: name, kind, what is left undone.
const KINDS: [(&str, &str, &str); 6] = [
    ("tap-all", "tap", "{}"),
    ("tap-tcp", "tap", "{ udp-segmentation: false }"),
    ("tap-sum", "tap", "{ segmentation: false }"),
    ("tap-none", "tap", NONE),
    ("af-all", "af-packet", "{}"),
    ("af-none", "af-packet", NONE),
];
const NONE: &str = "{ checksum: false, segmentation: false }";
/// A guest of ours, an embedded one and a file come after them.
const GUEST: usize = KINDS.len();
const EMBEDDED: usize = GUEST + 1;
const FILE: usize = GUEST + 2;

/// Bytes of a train of datagrams, of a datagram, and of all trains.
const TRAIN: usize = 14_000;
const DATAGRAM: usize = 1400;
const TRAINS: usize = 3;
/// Bytes sent over TCP, and back.
const STREAM: usize = 500_000;
const UDP_PORT: u16 = 81;

/// A kernel's side of a port.
struct Host {
    netns: Netns,
    address: String,
    /// Where its UDP receiver writes what comes.
    received: std::path::PathBuf,
    /// What runs there until the end.
    servers: Vec<Process>,
}

impl Host {
    /// `side` is 0 inside and 1 outside.
    fn new(main: &Netns, files: &Workspace, side: usize, kind: usize) -> Result<Self> {
        let device = format!("{}-{}", ["i", "o"][side], KINDS[kind].0);
        let netns = Netns::new(&device)?;
        if KINDS[kind].1 == "af-packet" {
            main.veth(&device, &netns, "eth0")?;
        }
        Ok(Self {
            netns,
            address: address(side, kind, 2),
            received: files.path(&device),
            servers: Vec::new(),
        })
    }

    /// Takes the device, once chainplane has made it, and starts the servers.
    fn begin(&mut self, main: &Netns, side: usize, kind: usize) -> Result<()> {
        if KINDS[kind].1 == "tap" {
            let device = format!("{}-{}", ["i", "o"][side], KINDS[kind].0);
            main.give(&device, &self.netns)?;
            self.netns
                .ok(&format!("ip link set dev {device} name eth0"))?;
        }
        let (own, gateway) = (&self.address, address(side, kind, 1));
        self.netns.ok(&format!(
            "ip addr add {own}/24 dev eth0 && ip link set dev eth0 up && ip route add default via {gateway}"
        ))?;
        if side == 1 {
            let file = self.received.display();
            let udp = format!("socat -u UDP-RECV:{UDP_PORT} CREATE:{file}");
            let echo = "socat TCP-LISTEN:80,fork,reuseaddr EXEC:cat";
            self.servers = vec![self.netns.start(&udp)?, self.netns.start(echo)?];
            let file = &self.received;
            wait_until(Duration::from_secs(20), "a receiver", || {
                let listens = self.netns.ok("cat /proc/net/tcp")?.contains(":0050 ");
                Ok((file.exists() && listens).then_some(()))
            })?;
        }
        Ok(())
    }

    /// What the kernel counts of its cards and protocols.
    fn count(&self, protocol: &str, name: &str) -> Result<u64> {
        let text = self.netns.ok("cat /proc/net/snmp")?;
        let mut lines = text.lines().filter(|line| line.starts_with(protocol));
        let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        let mut both = names.split_whitespace().zip(values.split_whitespace());
        let found = both.find(|(known, _)| *known == name);
        let value = found.and_then(|(_, value)| value.parse().ok());
        value.ok_or_else(|| Error::new(format!("no {protocol} {name} in {text}")))
    }

    fn packets(&self) -> Result<u64> {
        let text = self
            .netns
            .ok("cat /sys/class/net/eth0/statistics/rx_packets")?;
        text.trim().parse().map_err(|_| Error::new(text))
    }

    /// Waits until what came last by UDP is `data`.
    fn expect(&self, before: u64, data: &[u8], what: &str) -> Result<()> {
        let mut got = Vec::new();
        let whole = wait_until(Duration::from_secs(20), what, || {
            got = fs::read(&self.received)?.split_off(before as usize);
            Ok((got.len() >= data.len()).then_some(()))
        });
        whole.map_err(|error| Error::new(format!("{error}: {} of {}", got.len(), data.len())))?;
        assert!(got == data, "{what}: other bytes arrive than were sent");
        Ok(())
    }

    fn received(&self) -> Result<u64> {
        Ok(fs::metadata(&self.received)?.len())
    }
}

fn address(side: usize, kind: usize, host: usize) -> String {
    let net = ["10.0", "198.18"][side];
    format!("{net}.{kind}.{host}")
}

fn mac(side: usize, kind: usize, host: usize) -> [u8; 6] {
    [2, 0, 0, side as u8, kind as u8, host as u8]
}

fn shown(mac: [u8; 6]) -> String {
    let words: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    words.join(":")
}

/// Everything on two routers, one on each side of the other functions.
fn configuration() -> String {
    let (mut ports, mut chains) = (Vec::new(), Vec::new());
    let mut interfaces = [Vec::new(), Vec::new()];
    for (side, router) in ["core", "beyond"].into_iter().enumerate() {
        let prefix = ["i", "o"][side];
        for kind in (0..KINDS.len()).chain([GUEST, EMBEDDED, FILE]) {
            let (name, port) = match kind {
                GUEST => (
                    "guest",
                    format!("vhost-user: {{ socket: {prefix}-guest.sock }}"),
                ),
                EMBEDDED => {
                    let (own, gateway) = (address(side, kind, 2), address(side, kind, 1));
                    let serve = format!("address: {own}/24, gateway: {gateway}, serve: [80]");
                    ("embedded", format!("embedded-guest: {{ {serve} }}"))
                }
                FILE if side == 0 => ("file", format!("generator: {{ {} }}", generator())),
                FILE => ("file", "pcap: { record: record.pcap }".to_owned()),
                _ => {
                    let &(name, what, undone) = &KINDS[kind];
                    let more = format!("interface: {prefix}-{name}, offloads: {undone}");
                    (name, format!("{what}: {{ {more} }}"))
                }
            };
            ports.push(format!("  {prefix}-{name}: {{ {port} }}\n"));
            chains.push(format!(
                "  {prefix}-{name}: [{prefix}-{name}, {router}.{name}]\n"
            ));
            let neighbours = if matches!(kind, GUEST | FILE) {
                let (host, mac) = (address(side, kind, 2), shown(mac(side, kind, 2)));
                format!(", neighbours: {{ {host}: \"{mac}\" }}")
            } else {
                String::new()
            };
            let (own, mac) = (address(side, kind, 1), shown(mac(side, kind, 1)));
            interfaces[side].push(format!(
                "        {name}: {{ address: {own}/24, mac: \"{mac}\"{neighbours} }}\n"
            ));
        }
    }
    let [inside, outside] = interfaces.map(|lines| lines.concat());
    let (ports, chains) = (ports.concat(), chains.concat());
    format!(
        r#"
version: 1
workers: [{{ idle: adaptive }}]
ports:
{ports}
functions:
  core:
    router:
      interfaces:
{inside}        wan: {{ address: 198.51.100.2/30 }}
      routes: [{{ to: 0.0.0.0/0, via: 198.51.100.1 }}]
  frontend:
    load-balancer: {{ address: "203.0.113.10:80/tcp", backends: [{{ address: 10.0.{EMBEDDED}.2 }}] }}
  egress:
    nat: {{ pool: 203.0.113.2, inside: [10.0.0.0/8] }}
  edge:
    firewall:
      default: {{ outbound: allow, inbound: drop }}
      rules: [{{ allow: tcp, direction: inbound, ports: [80] }}]
  beyond:
    router:
      interfaces:
{outside}        wan: {{ address: 198.51.100.1/30 }}
      routes: [{{ to: 203.0.113.0/24, via: 198.51.100.2 }}]
chains:
  wan: [core.wan, frontend, egress, edge, beyond.wan]
{chains}"#
    )
}

/// Complete packets, to the file.
fn generator() -> String {
    let (from, to) = (address(0, FILE, 2), address(1, FILE, 2));
    let (from_mac, to_mac) = (shown(mac(0, FILE, 2)), shown(mac(0, FILE, 1)));
    format!(
        "packets: 20, rate: 100, size: 1000, from: {from}, to: {to}, to-port: {UDP_PORT}, \
         from-mac: \"{from_mac}\", to-mac: \"{to_mac}\""
    )
}

/// A guest whose driver is ours.
struct Driver {
    front_end: FrontEnd,
    pair: DriverPair,
}

impl Driver {
    fn connect(socket: &Path, offloads: u64) -> Result<Self> {
        let mut config = FrontEndConfig::new(socket);
        config.features = feature::VERSION_1 | feature::MRG_RXBUF | offloads;
        let failed = |error| Error::new(format!("{}: {error}", socket.display()));
        let (front_end, mut pairs) = FrontEnd::connect(config).map_err(failed)?;
        let pair = pairs.remove(0);
        Ok(Self { front_end, pair })
    }

    /// Sends `data` with as much undone as was negotiated.
    fn send(&mut self, udp: bool, to: &str, to_port: u16, data: &[u8]) -> Result<()> {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        let route = Route {
            udp,
            to_mac: mac(0, GUEST, 1),
            from: parse(&address(0, GUEST, 2)),
            to: parse(to),
            from_port: 4000,
            to_port,
        };
        if !udp {
            // A TCP session begins with a SYN, to which a file has no answer.
            let syn = route.packet(chainplane_tests::wire::SYN, 0, b"");
            self.push(NetHeader::default(), &syn);
        }
        for train in data.chunks(TRAIN) {
            for (header, frame) in route.send(self.front_end.features(), 0, train) {
                self.push(header, &frame);
            }
        }
        wait_until(Duration::from_secs(20), "the ring to be read", || {
            Ok(self.pair.transmit.is_idle().then_some(()))
        })
    }

    fn push(&mut self, header: NetHeader, frame: &[u8]) {
        assert!(self.pair.transmit.send(header, frame), "room in the ring");
        self.pair.transmit.flush();
    }

    /// Waits for `data` by UDP; tells how many frames it came in.
    fn expect(&mut self, data: &[u8], what: &str) -> Result<usize> {
        let (mut got, mut frames) = (Vec::new(), 0);
        let features = self.front_end.features();
        let late = Instant::now() + Duration::from_secs(20);
        while got.len() < data.len() {
            if Instant::now() > late {
                let count = got.len();
                return Err(Error::new(format!("{what}: {count} bytes have come")));
            }
            let mut wrong = None;
            self.pair
                .receive
                .receive(64, |header, frame| match receive(features, header, frame) {
                    Ok(Some(piece)) if piece.udp => {
                        frames += 1;
                        got.extend(piece.payload);
                    }
                    Ok(_) => {}
                    Err(error) => wrong = Some(error),
                });
            if let Some(error) = wrong {
                return Err(Error::new(format!("{what}: {error}")));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        assert!(got == data, "{what}: other bytes arrive than were sent");
        Ok(frames)
    }
}

fn every_kind_to_every_other() -> Result<()> {
    let files = Workspace::new()?;
    let main = Netns::new("main")?;
    let mut hosts: Vec<Vec<Host>> = Vec::new();
    for side in 0..2 {
        let all = (0..KINDS.len()).map(|kind| Host::new(&main, &files, side, kind));
        hosts.push(all.collect::<Result<_>>()?);
    }
    let chainplane = Chainplane::start(&files, Some(&main), &configuration())?;
    for (side, hosts) in hosts.iter_mut().enumerate() {
        for (kind, host) in hosts.iter_mut().enumerate() {
            host.begin(&main, side, kind)?;
        }
    }
    let stream = bytes(STREAM);
    fs::write(files.path("stream"), &stream)?;
    let trains = &stream[..TRAINS * TRAIN];
    fs::write(files.path("trains"), trains)?;
    let (inside, outside) = (&hosts[0], &hosts[1]);

    for (from, sender) in inside.iter().enumerate() {
        for (to, receiver) in outside.iter().enumerate() {
            kernel_to_kernel(&files, (from, sender), (to, receiver), trains)?;
        }
        fetch_from_embedded(sender, &address(1, EMBEDDED, 2))?;
        send_trains(&files, sender, &address(1, FILE, 2))?;
    }
    for receiver in outside {
        fetch_from_embedded(receiver, "203.0.113.10")?;
    }
    let offloads = [feature::OFFLOADS, feature::CSUM | feature::GUEST_CSUM, 0];
    for offloads in offloads {
        let mut driver = Driver::connect(&files.path("i-guest.sock"), offloads)?;
        for (to, receiver) in outside.iter().enumerate() {
            let what = format!("guest with {offloads:#x} to {}", KINDS[to].0);
            let before = receiver.received()?;
            driver.send(true, &receiver.address, UDP_PORT, trains)?;
            receiver.expect(before, trains, &what)?;
        }
        driver.send(true, &address(1, FILE, 2), UDP_PORT, trains)?;
        driver.send(false, &address(1, FILE, 2), 80, &stream[..2 * TRAIN])?;
        let mut driver = Driver::connect(&files.path("o-guest.sock"), offloads)?;
        for (from, sender) in inside.iter().enumerate() {
            let what = format!("{} to guest with {offloads:#x}", KINDS[from].0);
            send_trains(&files, sender, &address(1, GUEST, 2))?;
            let frames = driver.expect(trains, &what)?;
            let whole = offloads == feature::OFFLOADS && leaves_trains(from);
            let expected = if whole {
                TRAINS
            } else {
                trains.len() / DATAGRAM
            };
            assert_eq!(frames, expected, "{what}");
        }
    }
    for host in hosts.iter().flatten() {
        for protocol in ["Tcp:", "Udp:"] {
            let wrong = host.count(protocol, "InCsumErrors")?;
            assert_eq!(wrong, 0, "{protocol} checksums at {}", host.address);
        }
    }
    chainplane.assert_conserved()?;
    chainplane.stop()?;
    // Each kernel, and each guest, has sent the trains to the file; the guests have sent TCP, too.
    let senders = KINDS.len() + offloads.len();
    let datagrams = senders * trains.len() / DATAGRAM + 20;
    let segments = offloads.len() * (2 * TRAIN / DATAGRAM + 1);
    tshark_finds(&files.path("record.pcap"), datagrams, segments)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 131 + (i >> 8) * 7) as u8).collect()
}

/// Whether trains come uncut from that kind of kernel's port.
fn leaves_trains(kind: usize) -> bool {
    matches!(KINDS[kind].0, "tap-all" | "af-all" | "af-none")
}

/// Sends the trains of datagrams, each with one call, to be cut by whoever can.
fn send_trains(files: &Workspace, sender: &Host, to: &str) -> Result<()> {
    let file = files.path("trains");
    // Level and number of UDP_SEGMENT.
    sender.netns.ok(&format!(
        "socat -u -b {TRAIN} FILE:{} UDP-SENDTO:{to}:{UDP_PORT},setsockopt-int=17:103:{DATAGRAM}",
        file.display()
    ))?;
    Ok(())
}

fn kernel_to_kernel(
    files: &Workspace,
    (from, sender): (usize, &Host),
    (to, receiver): (usize, &Host),
    trains: &[u8],
) -> Result<()> {
    let what = format!("{} to {}", KINDS[from].0, KINDS[to].0);
    // There and back.
    let (file, address) = (files.path("stream"), &receiver.address);
    let echo = format!(
        "socat -t 20 - TCP:{address}:80 <{0} | cmp - {0}",
        file.display()
    );
    let output = sender.netns.run(&echo, Duration::from_mins(1))?;
    assert_eq!(output.code, Some(0), "{what} by TCP: {}", output.text());

    let (before, packets) = (receiver.received()?, receiver.packets()?);
    send_trains(files, sender, address)?;
    receiver.expect(before, trains, &what)?;
    let packets = receiver.packets()? - packets;
    let whole = leaves_trains(from) && matches!(KINDS[to].0, "tap-all" | "af-all");
    let few = packets < (trains.len() / DATAGRAM) as u64;
    assert_eq!(few, whole, "{what}: trains came in {packets} packets");
    Ok(())
}

/// Gets bytes from an embedded guest, which has a TCP of its own.
fn fetch_from_embedded(client: &Host, address: &str) -> Result<()> {
    const BYTES: usize = 200_000;
    let got = client.netns.ok(&format!(
        "(echo send {BYTES}; sleep 1) | socat -t 20 - TCP:{address}:80 | head -c {BYTES} | wc -c"
    ))?;
    assert_eq!(got.trim(), BYTES.to_string(), "from {address}");
    Ok(())
}

/// Holds a record against what was sent: tshark sees as much, and no wrong checksum.
fn tshark_finds(record: &Path, datagrams: usize, segments: usize) -> Result<()> {
    let seen = |filter: &str| -> Result<usize> {
        let mut tshark = program("tshark");
        tshark.args(["-n", "-r"]).arg(record);
        for layer in ["ip", "tcp", "udp"] {
            tshark.args(["-o", &format!("{layer}.check_checksum:TRUE")]);
        }
        tshark.args(["-Y", filter]);
        let output = run(tshark, Duration::from_mins(1))?;
        Ok(output.stdout.lines().count())
    };
    let good = "ip.checksum.status == 1";
    assert_eq!(
        seen(&format!("udp.checksum.status == 1 && {good}"))?,
        datagrams
    );
    assert_eq!(
        seen(&format!("tcp.checksum.status == 1 && {good}"))?,
        segments
    );
    let bad = "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0";
    assert_eq!(seen(bad)?, 0, "packets with a wrong checksum");
    Ok(())
}
