//! The instance's side of the control socket: a thread that accepts, and one for each client.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use chainplane_dataplane::pcapng;
use chainplane_vhost::socket::{Listener, Permissions};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::report::{Report, SessionReport, Sessions};
use super::watches::Watches;
use super::{Request, Response};
use crate::ids;
use crate::instance::Instance;
use crate::spec::model::ControlSocket;

/// Clients at a time; more are turned away.
const MAX_CLIENTS: usize = 16;
/// Bytes of a request.
const MAX_REQUEST: u64 = 64 << 10;
/// How long a client may take to ask, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sessions of one answer.
const SESSION_PAGE: usize = 1000;
/// How often a capture looks for packets and for its client's end.
const CAPTURE_INTERVAL: Duration = Duration::from_millis(10);

const ACCEPT: Token = Token(0);
const WAKE: Token = Token(1);

/// The running server. Dropping it ends it and removes the socket.
pub struct Server {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the socket and serves `instance` for as long as it lives.
    ///
    /// # Errors
    /// Why the socket can't be had; the text names it.
    pub fn start(socket: &ControlSocket, instance: &Arc<Instance>) -> Result<Self, String> {
        let listener = listen(socket)?;
        let failed = |error: io::Error| format!("control socket: {error}");
        let poll = Poll::new().map_err(failed)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(failed)?);
        let stop = Arc::new(AtomicBool::new(false));
        let acceptor = Acceptor {
            listener,
            poll,
            stop: Arc::clone(&stop),
            instance: Arc::downgrade(instance),
            clients: Arc::default(),
        };
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || acceptor.run())
            .map_err(failed)?;
        Ok(Self {
            stop,
            waker,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(socket: &ControlSocket) -> Result<Listener, String> {
    let permissions = Permissions {
        owner: socket.owner.as_deref().map(ids::user).transpose()?,
        group: socket.group.as_deref().map(ids::group).transpose()?,
        mode: Some(socket.mode.unwrap_or(0o600)),
    };
    if let Some(directory) = socket
        .path
        .parent()
        .filter(|path| !path.as_os_str().is_empty())
    {
        std::fs::create_dir_all(directory)
            .map_err(|error| format!("directory `{}`: {error}", directory.display()))?;
    }
    Listener::bind(&socket.path, permissions)
}

struct Acceptor {
    listener: Listener,
    poll: Poll,
    stop: Arc<AtomicBool>,
    instance: Weak<Instance>,
    clients: Arc<AtomicUsize>,
}

impl Acceptor {
    fn run(mut self) {
        use std::os::fd::{AsFd as _, AsRawFd as _};
        let descriptor = self.listener.as_fd().as_raw_fd();
        let registered =
            self.poll
                .registry()
                .register(&mut SourceFd(&descriptor), ACCEPT, Interest::READABLE);
        if let Err(error) = registered {
            tracing::error!(%error, "the control socket can't be served");
            return;
        }
        let mut events = Events::with_capacity(4);
        while !self.stop.load(Ordering::Acquire) {
            let _ = self.poll.poll(&mut events, None);
            while let Ok(Some(stream)) = self.listener.accept() {
                self.admit(stream);
            }
        }
    }

    fn admit(&self, stream: UnixStream) {
        if self.clients.load(Ordering::Relaxed) >= MAX_CLIENTS {
            let busy = Response::Error(format!("{MAX_CLIENTS} clients are connected already"));
            let _ = stream.set_nonblocking(true);
            let _ = answer(&stream, &busy);
            return;
        }
        self.clients.fetch_add(1, Ordering::Relaxed);
        let (clients, instance) = (Arc::clone(&self.clients), self.instance.clone());
        let stop = Arc::clone(&self.stop);
        let spawned = std::thread::Builder::new()
            .name("control-client".into())
            .spawn(move || {
                if let Err(error) = serve(&stream, &instance, &stop) {
                    tracing::debug!(%error, "a client of the control socket was lost");
                }
                clients.fetch_sub(1, Ordering::Relaxed);
            });
        if spawned.is_err() {
            self.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(stream: &UnixStream, instance: &Weak<Instance>, stop: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_REQUEST)).read_until(b'\n', &mut line)?;
    let Some(instance) = instance.upgrade() else {
        return answer(stream, &Response::Error("the instance is stopping".into()));
    };
    match serde_json::from_slice(&line) {
        Ok(Request::Show {}) => answer(stream, &Response::Report(Box::new(Report::of(&instance)))),
        Ok(Request::Sessions { function, cursor }) => {
            answer(stream, &sessions(&instance, &function, cursor))
        }
        Ok(Request::Capture { port }) => match instance.capture(&port) {
            Ok(watches) => {
                drop(instance);
                answer(stream, &Response::Capturing {})?;
                capture(stream, &port, Watches::new(watches), stop)
            }
            Err(error) => answer(stream, &Response::Error(error.to_string())),
        },
        Err(error) => answer(stream, &Response::Error(format!("not a request: {error}"))),
    }
}

fn answer(mut stream: &UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn sessions(instance: &Instance, function: &str, cursor: usize) -> Response {
    let Some(index) = instance
        .model()
        .functions
        .iter()
        .position(|named| named.name == function)
    else {
        return Response::Error(format!("there is no function `{function}`"));
    };
    match instance.sessions(index, cursor, SESSION_PAGE) {
        Ok(page) => Response::Sessions(Sessions {
            sessions: page
                .sessions
                .into_iter()
                .map(|session| SessionReport {
                    session: session.text,
                    idle_ms: session.idle_ms,
                })
                .collect(),
            next: page.next,
        }),
        Err(error) => Response::Error(error.to_string()),
    }
}

/// Streams packets until the client or the instance ends.
fn capture(
    mut stream: &UnixStream,
    port: &str,
    mut watches: Watches,
    stop: &AtomicBool,
) -> io::Result<()> {
    stream.set_read_timeout(Some(CAPTURE_INTERVAL))?;
    let mut file = pcapng::Writer::new(io::BufWriter::new(stream), port)?;
    while !stop.load(Ordering::Acquire) && !watches.are_over() {
        while let Some((time, packet)) = watches.next_packet() {
            file.missed(watches.missed());
            file.packet(time, packet.sent, packet.len, &packet.bytes)?;
        }
        file.flush()?;
        // A client sends nothing more: what there is to read is its end. The wait is the pause between two looks.
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(_) => return Ok(()),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    file.flush()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
