//! Tap: an interface of the host whose other end is this port.
//!
//! The interface is made where there is none of that name and set up; it goes when the port does, unless somebody
//! made it persistent. It may be moved to another network namespace while it is attached.
//!
//! The kernel has no way to move several packets over a tap at once, so that a tap port costs a system call for
//! each packet. Where offloads are on, a packet may be a segment of up to 64 KiB, which makes up for much of it.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use chainplane_vhost::net::NetHeader;
use rustix::io::Errno;

use super::interface::{self, Name};
use crate::offload;
use crate::packet::{Batch, LARGE, Packet, SMALL};
use crate::port::{Offloads, Port, PortContext, PortDrop};

/// How a tap port is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// The interface's name, 15 bytes at most.
    pub interface: String,
    /// Largest packet, without Ethernet header, in bytes; `None` leaves it as it is.
    pub mtu: Option<u16>,
    /// What may be left undone, in both directions. Cutting needs `checksum`. UDP is cut where the kernel knows how to
    /// (6.2 and newer), and over both IP versions or none.
    pub offloads: Offloads,
}

/// A tap port.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    offloads: Offloads,
    /// Somebody deleted the interface; the descriptor will not come to life again.
    deleted: bool,
}

impl Tap {
    /// Attaches to the interface, and sets it up.
    ///
    /// # Errors
    /// With what could not be done and what is missing for it: a name that the kernel does not take, an interface
    /// that is in use or no tap, `CAP_NET_ADMIN` (not needed to attach to a tap that was made for this user, and is
    /// up).
    pub fn open(config: &TapConfig) -> io::Result<Self> {
        let name = Name::new(&config.interface)?;
        if !config.offloads.is_consistent() {
            let message = "a tap cannot leave segments uncut without leaving their checksums";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let (fd, offloads) = interface::attach_tap(&name, NetHeader::SHORT_LEN, config.offloads)?;
        if let Some(mtu) = config.mtu {
            interface::set_mtu(&name, mtu)?;
        }
        interface::set_up(&name)?;
        Ok(Self {
            fd,
            offloads,
            deleted: false,
        })
    }

    fn write(&mut self, packet: &Packet) -> Result<(), PortDrop> {
        let header = offload::to_header(packet).to_short();
        let parts = [IoSlice::new(&header), IoSlice::new(packet.data())];
        match rustix::io::writev(&self.fd, &parts) {
            Ok(_) => Ok(()),
            Err(Errno::IO) => Err(PortDrop::Down),
            Err(Errno::BADFD) => {
                self.deleted = true;
                Err(PortDrop::Down)
            }
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Err(PortDrop::Full),
            Err(Errno::MSGSIZE) => Err(PortDrop::TooLong),
            Err(_) => Err(PortDrop::Refused),
        }
    }

    /// Reads into both packets, the second as the first one's continuation; the length without the header.
    fn read(
        &mut self,
        header: &mut [u8; NetHeader::SHORT_LEN],
        small: &mut [u8],
        rest: &mut [u8],
    ) -> Option<usize> {
        let mut parts = [
            IoSliceMut::new(header),
            IoSliceMut::new(small),
            IoSliceMut::new(rest),
        ];
        match rustix::io::readv(&self.fd, &mut parts) {
            Ok(len) => len.checked_sub(NetHeader::SHORT_LEN),
            Err(error) => {
                self.deleted = error == Errno::BADFD;
                None
            }
        }
    }
}

impl Port for Tap {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        // How long the next packet is shows only once it is read. So there is always room for the longest, of which
        // the first bytes go to a small buffer; most packets fit into that.
        let mut spare: Option<Packet> = None;
        while !batch.is_full() && !self.deleted {
            let large = spare.take().or_else(|| blank(cx, LARGE));
            let (Some(mut large), Some(mut small)) = (large, blank(cx, SMALL)) else {
                // The packets wait in the kernel's queue.
                return;
            };
            let mut header = [0; NetHeader::SHORT_LEN];
            let rest = &mut large.data_mut()[SMALL..];
            let Some(len) = self.read(&mut header, small.data_mut(), rest) else {
                return;
            };
            let mut packet = if len <= SMALL {
                spare = Some(large);
                small
            } else {
                large.data_mut()[..SMALL].copy_from_slice(small.data());
                large
            };
            packet.truncate(len);
            match offload::from_header(&NetHeader::from_short(header), len) {
                Ok(offload) => {
                    *packet.offload_mut() = offload;
                    batch.push(packet);
                }
                Err(bad) => cx.tally.refuse(bad.into(), len),
            }
        }
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        for packet in batch.drain(..) {
            match self.write(&packet) {
                Ok(()) => cx.tally.sent(1, packet.len() as u64),
                Err(reason) => cx.tally.drop(reason, 1),
            }
        }
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn wakeups(&self, fds: &mut Vec<RawFd>) -> u64 {
        fds.push(self.fd.as_raw_fd());
        self.fd.as_raw_fd() as u64
    }

    fn arm(&mut self) -> bool {
        !self.deleted && interface::is_readable(&self.fd)
    }
}

/// A packet of `len` bytes to be written over.
fn blank(cx: &mut PortContext<'_>, len: usize) -> Option<Packet> {
    let mut packet = cx.pool.take(len)?;
    packet.extend(len)?;
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::super::interface::testing::{in_namespace, ip};
    use super::*;
    use crate::packet::{HugePages, Pool, PoolConfig, parse, protocol};
    use crate::port::{PortCounter, PortTally};
    use crate::time::Time;
    use etherparse::PacketBuilder;
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    fn config(interface: &str) -> TapConfig {
        TapConfig {
            interface: interface.to_owned(),
            mtu: Some(9000),
            offloads: Offloads::ALL,
        }
    }

    struct Bench {
        tap: Tap,
        pool: Pool,
        tally: PortTally,
    }

    impl Bench {
        /// A tap of which the host's side is 10.9.0.1, this side 10.9.0.2.
        fn new() -> Self {
            let tap = Tap::open(&config("test0")).unwrap();
            ip("addr add 10.9.0.1/24 dev test0");
            ip("link set test0 address 02:00:00:00:00:01");
            ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev test0");
            let huge_pages = HugePages::Never;
            let (small, large) = (128, 4);
            let pool = Pool::new(PoolConfig {
                small,
                large,
                huge_pages,
            })
            .unwrap();
            let mut bench = Self {
                tap,
                pool,
                tally: PortTally::default(),
            };
            bench.settle();
            bench
        }

        fn send(&mut self, bytes: &[u8]) {
            let mut batch = Batch::new();
            batch.push(self.pool.copy_of(bytes).unwrap());
            let Self { tap, pool, tally } = self;
            tap.send(&mut PortContext::new(pool, tally, Time(0)), &mut batch);
        }

        /// Waits until the kernel answers: it says that an interface is up before it is.
        fn settle(&mut self) {
            for number in 0..2000u16 {
                let number = number.to_be_bytes();
                self.send(&echo(&number));
                std::thread::sleep(Duration::from_millis(10));
                let last = std::iter::from_fn(|| self.try_receive().pop()).last();
                if last.is_some_and(|packet| packet.data()[42..] == number) {
                    return;
                }
            }
            panic!("no answer");
        }

        fn try_receive(&mut self) -> Batch {
            let Self { tap, pool, tally } = self;
            let mut batch = Batch::new();
            let now = Time(0);
            tap.receive(&mut PortContext::new(pool, tally, now), &mut batch);
            batch
        }

        fn receive(&mut self) -> Packet {
            let until = Instant::now() + Duration::from_secs(20);
            loop {
                if let Some(packet) = self.try_receive().pop() {
                    return packet;
                }
                assert!(Instant::now() < until, "a packet within 20 seconds");
            }
        }
    }

    fn echo(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
            .ipv4([10, 9, 0, 2], [10, 9, 0, 1], 64)
            .icmpv4_echo_request(1, 2)
            .write(&mut bytes, payload)
            .unwrap();
        bytes
    }

    #[test]
    fn the_hosts_kernel_answers() {
        in_namespace(|| {
            let mut bench = Bench::new();
            for len in [10, 8000] {
                let payload = vec![7; len];
                bench.send(&echo(&payload));
                let mut answer = bench.receive();
                parse(&mut answer).unwrap();
                assert_eq!(answer.layers().protocol, protocol::ICMP);
                assert_eq!(answer.icmp_type_code(), Some((0, 0)));
                assert_eq!(answer.data()[42..], payload);
            }
            assert!(!bench.tap.arm());
            // The kernel leaves the checksum undone, and tells.
            let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
            socket.send_to(b"hello", "10.9.0.2:9").unwrap();
            assert!(bench.tap.arm());
            let offload = *bench.receive().offload();
            assert!(offload.needs_checksum);
            assert_eq!((offload.checksum_start, offload.checksum_offset), (34, 6));
        });
    }

    #[test]
    fn a_tap_that_is_down_or_deleted_drops() {
        in_namespace(|| {
            let mut bench = Bench::new();
            let before = bench.pool.free();
            for words in ["link set test0 down", "link delete test0"] {
                ip(words);
                bench.send(&echo(b"lost"));
                let Bench { tap, pool, tally } = &mut bench;
                let mut batch = Batch::new();
                tap.receive(&mut PortContext::new(pool, tally, Time(0)), &mut batch);
                assert!(batch.is_empty());
            }
            assert!(bench.tap.deleted && !bench.tap.arm());
            let down = PortCounter::INFO.len() + PortDrop::Down as usize;
            assert_eq!(bench.tally.reader().at(down), 2);
            assert_eq!(bench.pool.free(), before);
        });
    }

    #[test]
    fn errors_name_what_is_wrong() {
        in_namespace(|| {
            let error = |config| Tap::open(&config).unwrap_err().to_string();
            let long = error(config("much-too-long-for-a-tap"));
            assert!(long.contains("longer than 15"), "{long}");
            let loopback = error(config("lo"));
            assert!(loopback.contains("is no tap"), "{loopback}");
            let _first = Tap::open(&config("test1")).unwrap();
            let second = error(config("test1"));
            assert!(second.contains("in use"), "{second}");
            let half = error(TapConfig {
                offloads: Offloads {
                    checksum: false,
                    ..Offloads::ALL
                },
                ..config("test2")
            });
            assert!(half.contains("checksums"), "{half}");
        });
    }
}
