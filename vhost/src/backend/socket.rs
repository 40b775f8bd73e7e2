//! The device's unix socket: made, checked, given away and removed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::{DeviceConfig, Role, StartError};

/// Where front ends come from.
#[derive(Debug)]
pub(super) enum Endpoint {
    Server(Server),
    Client(PathBuf),
}

impl Endpoint {
    /// Opens the socket of a server; a client only keeps the path.
    pub(super) fn open(config: &DeviceConfig) -> Result<Self, StartError> {
        match config.role {
            Role::Server => Server::bind(config)
                .map(Self::Server)
                .map_err(StartError::Socket),
            Role::Client => Ok(Self::Client(config.socket.clone())),
        }
    }
}

/// A listening socket, removed from the file system when dropped.
#[derive(Debug)]
pub(super) struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket we made, so that no other's is removed.
    identity: (u64, u64),
}

impl Server {
    fn bind(config: &DeviceConfig) -> Result<Self, String> {
        let path = &config.socket;
        clear(path)?;
        let tell = |what: &str, error: io::Error| {
            format!("socket `{}` can't be {what}: {error}", path.display())
        };
        let listener = UnixListener::bind(path).map_err(|e| tell("made", e))?;
        let identity = std::fs::symlink_metadata(path)
            .map(|m| (m.dev(), m.ino()))
            .unwrap_or_default();
        let server = Self {
            listener,
            path: path.clone(),
            identity,
        };
        server
            .listener
            .set_nonblocking(true)
            .map_err(|e| tell("set up", e))?;
        if let Some(mode) = config.mode {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, permissions).map_err(|e| tell("given its mode", e))?;
        }
        if config.owner.is_some() || config.group.is_some() {
            std::os::unix::fs::chown(path, config.owner, config.group)
                .map_err(|e| tell("given its owner and group", e))?;
        }
        Ok(server)
    }

    /// The next front end, if one waits.
    pub(super) fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                Ok(Some(stream))
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionAborted
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes room at `path`: a dead socket goes, anything else stays and is an error.
fn clear(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("socket `{shown}` can't be looked at: {e}")),
    };
    if found.is_dir() {
        return Err(format!("socket path `{shown}` is a directory"));
    }
    if !found.file_type().is_socket() {
        return Err(format!("socket path `{shown}` exists and is not a socket"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(format!(
            "socket `{shown}` is in use: somebody listens there"
        )),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|e| format!("dead socket `{shown}` can't be removed: {e}")),
        Err(e) => Err(format!("socket `{shown}` exists and can't be tried: {e}")),
    }
}
