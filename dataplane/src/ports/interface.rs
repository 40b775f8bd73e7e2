//! Network interfaces of the host by name: the few requests that have no safe wrapper elsewhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::port::Offloads;

/// A name that the kernel takes for an interface.
#[derive(Clone)]
pub(super) struct Name {
    text: String,
    bytes: [libc::c_char; libc::IFNAMSIZ],
}

impl Name {
    /// # Errors
    /// It is empty, longer than 15 bytes, or has a character that names of interfaces can't have.
    pub fn new(text: &str) -> io::Result<Self> {
        let wrong = |why: &str| {
            let message = format!("`{text}` is no name for an interface: {why}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        };
        if text.is_empty() {
            return wrong("it is empty");
        }
        if text.len() >= libc::IFNAMSIZ {
            return wrong("it is longer than 15 bytes");
        }
        // `%` would make the kernel pick a number.
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c);
        if text.contains(forbidden) || matches!(text, "." | "..") {
            return wrong("blanks, `/`, `:` and `%` can't be in it");
        }
        let mut bytes = [0; libc::IFNAMSIZ];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(Self {
            text: text.to_owned(),
            bytes,
        })
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn request(&self) -> libc::ifreq {
        libc::ifreq {
            ifr_name: self.bytes,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_map: libc::__c_anonymous_ifru_map {
                    mem_start: 0,
                    mem_end: 0,
                    base_addr: 0,
                    irq: 0,
                    dma: 0,
                    port: 0,
                },
            },
        }
    }
}

/// An error with what was being done, and what is missing where that is known.
pub(super) fn explain(what: &str, error: &io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => " (the capability CAP_NET_ADMIN is missing)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot {what}: {error}{hint}"))
}

fn ioctl(fd: BorrowedFd<'_>, code: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every code passed here takes a pointer to an `ifreq`, which lives until the call returns.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(request)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// For the codes of a tap that take an `int`, by pointer.
fn ioctl_int(fd: &OwnedFd, code: libc::Ioctl, value: i32) -> io::Result<()> {
    // SAFETY: the codes passed here read an `int` through the pointer, which is valid until the call returns.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code, &raw const value) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A socket to ask by.
fn asking() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        flags,
        None,
    )?)
}

/// The interface's index; `None` if there is none of that name.
pub(super) fn index(name: &Name) -> io::Result<Option<u32>> {
    match rustix::net::netdevice::name_to_index(asking()?, &name.text) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets the interface up, unless it is.
pub(super) fn set_up(name: &Name) -> io::Result<()> {
    let socket = asking()?;
    let mut request = name.request();
    let what = format!("set interface `{}` up", name.text);
    ioctl(socket.as_fd(), libc::SIOCGIFFLAGS, &mut request).map_err(|e| explain(&what, &e))?;
    // SAFETY: the request above filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if flags & libc::IFF_UP as libc::c_short != 0 {
        return Ok(());
    }
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    ioctl(socket.as_fd(), libc::SIOCSIFFLAGS, &mut request).map_err(|e| explain(&what, &e))
}

/// Sets the largest packet, without Ethernet header.
pub(super) fn set_mtu(name: &Name, mtu: u16) -> io::Result<()> {
    let socket = asking()?;
    let mut request = name.request();
    request.ifr_ifru.ifru_mtu = i32::from(mtu);
    ioctl(socket.as_fd(), libc::SIOCSIFMTU, &mut request).map_err(|error| {
        explain(
            &format!("set the MTU of interface `{}` to {mtu}", name.text),
            &error,
        )
    })
}

/// Attaches to a tap, which is made if it is not there, with a virtio-net header of `header_len` bytes, little
/// endian, before each packet. Reads and writes on the descriptor do not block. Of the wanted offloads those that the
/// kernel knows are in effect, and are told.
pub(super) fn attach_tap(
    name: &Name,
    header_len: usize,
    wanted: Offloads,
) -> io::Result<(OwnedFd, Offloads)> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
        .map_err(|error| explain("open /dev/net/tun, which makes taps", &error.into()))?;
    let mut request = name.request();
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    let what = format!("attach to tap `{}`", name.text);
    ioctl(fd.as_fd(), libc::TUNSETIFF, &mut request).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::EBUSY) => explain(&format!("{what}, which is in use"), &error),
            Some(libc::EINVAL) => {
                let why = "an interface of that name is no tap, or one with several queues";
                explain(&format!("{what}: {why}"), &error)
            }
            _ => explain(&what, &error),
        }
    })?;
    let configure = |code, value| ioctl_int(&fd, code, value).map_err(|e| explain(&what, &e));
    configure(libc::TUNSETVNETHDRSZ, header_len as i32)?;
    configure(libc::TUNSETVNETLE, 1)?;
    let offloads = set_tap_offloads(&fd, wanted).map_err(|error| explain(&what, &error))?;
    Ok((fd, offloads))
}

fn set_tap_offloads(fd: &OwnedFd, wanted: Offloads) -> io::Result<Offloads> {
    let set = |bits: u32| {
        // SAFETY: the code takes a number, not a pointer.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, u64::from(bits)) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    let bit = |wanted: bool, bit: u32| if wanted { bit } else { 0 };
    let others = bit(wanted.checksum, libc::TUN_F_CSUM)
        | bit(wanted.tcp4, libc::TUN_F_TSO4)
        | bit(wanted.tcp6, libc::TUN_F_TSO6)
        | bit(
            wanted.ecn && (wanted.tcp4 || wanted.tcp6),
            libc::TUN_F_TSO_ECN,
        );
    // The kernel takes both of these or none, and not before 6.2.
    let udp = wanted.udp4 && wanted.udp6;
    let udp = udp && set(others | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok();
    if !udp {
        set(others)?;
    }
    Ok(Offloads {
        udp4: udp,
        udp6: udp,
        ..wanted
    })
}

/// Whether the kernel knows trains of UDP datagrams by the virtio-net header: 6.2 and newer do. A packet socket has
/// no way to ask.
pub(super) fn knows_udp_trains() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    is_since_6_2(&release)
}

fn is_since_6_2(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(2))
}

/// Whether a descriptor has something to read.
pub(super) fn is_readable(fd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::IN)
}

#[cfg(test)]
pub(super) mod testing {
    //! A network namespace for a test.

    /// Runs a test in a network namespace of its own, which is gone when it returns; says so and does nothing as a
    /// user who may not make one, or on a machine without taps or the program `ip`.
    pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
        let run = move || {
            let program = std::process::Command::new("ip").arg("-V").output();
            if program.is_err() || !std::path::Path::new("/dev/net/tun").exists() {
                return false;
            }
            // SAFETY: changes the namespace of this thread only, which was made for the test.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return false;
            }
            // Without it the kernel's own IPv6 chatter would come in.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            test();
            true
        };
        let ran = std::thread::spawn(run).join();
        if !ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            crate::testing::leave_out("network namespaces, /dev/net/tun and the program ip");
        }
    }

    /// Runs `ip` in the thread's namespace.
    pub fn ip(words: &str) {
        let output = std::process::Command::new("ip")
            .args(words.split(' '))
            .output()
            .expect("the program ip");
        assert!(output.status.success(), "ip {words}: {output:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for new in ["6.2.0", "6.18.44-fc", "6.10-rc1", "7.0.1", "10.1"] {
            assert!(is_since_6_2(new), "{new}");
        }
        for old in ["6.1.0-51-cloud-amd64", "5.15.0", "6", "", "odd"] {
            assert!(!is_since_6_2(old), "{old}");
        }
    }

    #[test]
    fn names_that_the_kernel_would_refuse_are_refused() {
        for bad in [
            "",
            "abcdefghijklmnop",
            "a b",
            "a/b",
            "tap%d",
            ".",
            "a:1",
            "a\0",
        ] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
        assert!(Name::new("abcdefghijklmno").is_ok());
    }
}
