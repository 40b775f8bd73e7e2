//! Listening unix sockets: made, checked, given away and removed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Whose a socket shall be, and who may connect; what is absent stays as the system makes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Permissions {
    /// User id of the owner.
    pub owner: Option<u32>,
    /// Group id.
    pub group: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// A listening socket, removed from the file system when dropped.
#[derive(Debug)]
pub struct Listener {
    inner: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket we made, so that no other's is removed.
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `path`, over a socket that nobody listens at any more if one is left there.
    ///
    /// # Errors
    /// Why the path can't be had, in words for the user that name it.
    pub fn bind(path: &Path, permissions: Permissions) -> Result<Self, String> {
        let Permissions { owner, group, mode } = permissions;
        clear(path)?;
        let tell = |what: &str, error: io::Error| {
            format!("socket `{}` can't be {what}: {error}", path.display())
        };
        let inner = UnixListener::bind(path).map_err(|e| tell("made", e))?;
        let identity = std::fs::symlink_metadata(path)
            .map(|m| (m.dev(), m.ino()))
            .unwrap_or_default();
        let made = Self {
            inner,
            path: path.to_owned(),
            identity,
        };
        made.inner
            .set_nonblocking(true)
            .map_err(|e| tell("set up", e))?;
        if let Some(mode) = mode {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, permissions).map_err(|e| tell("given its mode", e))?;
        }
        if owner.is_some() || group.is_some() {
            std::os::unix::fs::chown(path, owner, group)
                .map_err(|e| tell("given its owner and group", e))?;
        }
        Ok(made)
    }

    /// The next connection, if one waits.
    ///
    /// # Errors
    /// What accept(2) says, other than that there is none.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.inner.accept() {
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

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Drop for Listener {
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
