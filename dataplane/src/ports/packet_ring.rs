//! A packet socket with a receive ring that it shares with the kernel (packet(7), and the kernel's
//! `packet_mmap` document).
//!
//! The ring is of the second version, with one slot for each packet. The third packs packets into blocks, but hands
//! a block over only when it is full or a timer of a millisecond or more has run out: too long for packets that
//! somebody waits for. A packet longer than a slot (a large segment) is queued on the socket as well, in the same
//! order, and read from there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use chainplane_vhost::net::NetHeader;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

/// Bytes of a slot, of which some 80 are the kernel's.
const SLOT: usize = 2048;
const SLOTS: usize = 4096;
const BLOCK: usize = 64 << 10;
const RING: usize = SLOT * SLOTS;
/// Bytes of large segments that wait on the socket, and of packets on their way out.
const QUEUE: usize = 16 << 20;

/// A received packet, as it lies in the ring.
pub(super) struct Slot<'a> {
    /// Its virtio-net header.
    pub header: [u8; NetHeader::SHORT_LEN],
    /// Its first bytes, all of them if there are `len`.
    pub data: &'a [u8],
    /// Its whole length.
    pub len: usize,
    /// The VLAN tag that the kernel has taken out: type and control information.
    pub vlan: Option<[u8; 4]>,
    /// Whether the whole packet is queued on the socket.
    pub queued: bool,
}

/// The socket and its ring.
pub(super) struct PacketSocket {
    fd: OwnedFd,
    ring: NonNull<u8>,
    next: usize,
}

// SAFETY: the ring is memory of this process that nothing but this struct refers to; it may move to another thread.
unsafe impl Send for PacketSocket {}

impl PacketSocket {
    /// A socket that is not bound yet.
    ///
    /// # Errors
    /// The system's error, as where `CAP_NET_RAW` is missing.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        set(
            &fd,
            libc::PACKET_VERSION,
            &(libc::tpacket_versions::TPACKET_V2 as i32),
        )?;
        set(&fd, libc::PACKET_VNET_HDR, &1i32)?;
        set(&fd, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
        set(&fd, libc::PACKET_COPY_THRESH, &1i32)?;
        // Beyond the system's limit where that is allowed.
        if sockopt::set_socket_recv_buffer_size_force(&fd, QUEUE).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, QUEUE)?;
        }
        if sockopt::set_socket_send_buffer_size_force(&fd, QUEUE).is_err() {
            sockopt::set_socket_send_buffer_size(&fd, QUEUE)?;
        }
        let layout = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: (RING / BLOCK) as u32,
            tp_frame_size: SLOT as u32,
            tp_frame_nr: SLOTS as u32,
        };
        set(&fd, libc::PACKET_RX_RING, &layout)?;
        let (read_write, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let ring =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), RING, read_write, shared, &fd, 0)? };
        let ring =
            NonNull::new(ring.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { fd, ring, next: 0 })
    }

    /// Takes all packets of the interface from now on, also those for other stations.
    pub fn bind(&self, index: u32) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is a whole `sockaddr_ll`, alive until the call returns.
        let bound = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        let membership = libc::packet_mreq {
            mr_ifindex: index as i32,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&self.fd, libc::PACKET_ADD_MEMBERSHIP, &membership)
    }

    /// Whether the interface that the socket was bound to is still there, up or not.
    pub fn is_bound(&self) -> bool {
        // SAFETY: all zeros is a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel writes no more than `len` bytes to the address, which is that long.
        let result = unsafe {
            libc::getsockname(self.fd.as_raw_fd(), (&raw mut address).cast(), &raw mut len)
        };
        result == 0 && address.sll_ifindex > 0
    }

    /// Packets that the kernel dropped for want of a free slot since this was last asked.
    pub fn missed(&self) -> u64 {
        let mut stats = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut len = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: the kernel writes no more than `len` bytes to the struct, which is that long.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        };
        if result == 0 {
            u64::from(stats.tp_drops)
        } else {
            0
        }
    }

    /// The status word of the slot that is next, and the slot's start.
    fn status(&self) -> (&AtomicU32, NonNull<u8>) {
        // SAFETY: `next` is below SLOTS, so that the slot lies in the ring.
        let slot = unsafe { self.ring.add(self.next * SLOT) };
        // SAFETY: a slot begins with its status, aligned as SLOT is; both sides access it as an atomic word.
        (unsafe { AtomicU32::from_ptr(slot.as_ptr().cast()) }, slot)
    }

    /// Whether a packet is there.
    pub fn is_ready(&self) -> bool {
        self.status().0.load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The next packet, which stays in the ring until [`PacketSocket::release`].
    pub fn peek(&self) -> Option<Slot<'_>> {
        let (status, slot) = self.status();
        let status = status.load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the status says that the slot is this process's until it is released; all of it is initialized,
        // and it lies in the mapping, which lives as long as `self`.
        let bytes = unsafe { std::slice::from_raw_parts(slot.as_ptr(), SLOT) };
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let half = |at: usize| [bytes[at], bytes[at + 1]];
        // The offsets of `tpacket2_hdr`.
        let (len, here, start) = (
            word(4) as usize,
            word(8) as usize,
            u16::from_ne_bytes(half(12)) as usize,
        );
        let (tci, kind) = (u16::from_ne_bytes(half(24)), u16::from_ne_bytes(half(26)));
        let data = bytes.get(start..)?;
        let header = bytes.get(start.checked_sub(NetHeader::SHORT_LEN)?..start)?;
        let kind = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
            kind
        } else {
            0x8100
        };
        let ([a, b], [c, d]) = (kind.to_be_bytes(), tci.to_be_bytes());
        Some(Slot {
            header: header.try_into().ok()?,
            data: &data[..here.min(len).min(data.len())],
            len,
            vlan: (status & libc::TP_STATUS_VLAN_VALID != 0).then_some([a, b, c, d]),
            queued: status & libc::TP_STATUS_COPY != 0,
        })
    }

    /// Gives the next packet's slot back to the kernel.
    pub fn release(&mut self) {
        self.status()
            .0
            .store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % SLOTS;
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open` with this length, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.ring.as_ptr().cast(), RING) };
    }
}

fn set<T>(fd: &OwnedFd, option: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the value, which is that long; each option is passed its own type.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
