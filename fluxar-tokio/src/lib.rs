//! FLUXAR on Tokio: TCP and, where the system has them, Unix sockets.
//!
//! [`Server`] and [`Client`] are those of `fluxar-runtime`, on [`Tokio`]. They must be built and used within a Tokio
//! runtime that has its I/O and time drivers enabled; the single-threaded and the multi-threaded scheduler both serve.
//!
//! ```
//! use fluxar_tokio::{Client, Request, Server};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::bind("tcp://127.0.0.1:0").build().await?;
//! server.handle("add", |req: Request| async move {
//!     let (a, b): (i64, i64) = req.payload()?;
//!     Ok(a + b)
//! });
//! let url = server.url();
//! tokio::spawn(server.run());
//!
//! let client = Client::connect(url).build().await?;
//! let sum: i64 = client.call("add", &(2, 40)).await?;
//! assert_eq!(sum, 42);
//! # Ok(())
//! # }
//! ```

mod link;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

pub use fluxar_runtime::{
    Address, AddressError, BindError, Call, Calling, Code, Config, ConnectError, ConnectionError, Error,
    FromPayload, HandlerError, IntoPayload, Item, Limits, Meta, OpenCall, Origin, Payload, Peer, PeerInfo,
    Raw, Request, ServerHandle, Stats, Transport,
};
pub use link::TokioLink;
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

/// A server on Tokio.
pub type Server = fluxar_runtime::Server<Tokio>;
/// A server on Tokio that is about to listen.
pub type ServerBuilder = fluxar_runtime::ServerBuilder<Tokio>;
/// A client on Tokio.
pub type Client = fluxar_runtime::Client<Tokio>;
/// A client on Tokio that is about to connect.
pub type ClientBuilder = fluxar_runtime::ClientBuilder<Tokio>;

/// The Tokio runtime that the current task runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokio;

impl fluxar_runtime::Runtime for Tokio {
    type Timer = TokioTimer;
    type Link = TokioLink;
    type Listener = TokioListener;

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(future);
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn timer(&self, at: Instant) -> TokioTimer {
        TokioTimer(Box::pin(tokio::time::sleep_until(at.into())))
    }

    async fn connect(&self, address: &Address) -> io::Result<TokioLink> {
        match address {
            Address::Tcp { host, port } => {
                TokioLink::tcp(TcpStream::connect((host.trim_matches(['[', ']']), *port)).await?)
            }
            #[cfg(unix)]
            Address::Unix { path } => Ok(TokioLink::unix(UnixStream::connect(path).await?, path)),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    async fn bind(&self, address: &Address) -> io::Result<TokioListener> {
        match address {
            Address::Tcp { host, port } => {
                Ok(TokioListener::Tcp(TcpListener::bind((host.trim_matches(['[', ']']), *port)).await?))
            }
            #[cfg(unix)]
            Address::Unix { path } => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path)?;
                Ok(TokioListener::Unix { listener, path: path.clone() })
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Removes a socket file that nobody listens on any more, as a crashed server leaves it.
#[cfg(unix)]
async fn remove_stale(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    // A connection that does not block: a server that lives may be too busy to take it.
    if is_socket && UnixStream::connect(path).await.is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// A timer of Tokio's.
#[derive(Debug)]
pub struct TokioTimer(Pin<Box<tokio::time::Sleep>>);

impl fluxar_runtime::Timer for TokioTimer {
    fn reset(&mut self, at: Instant) {
        self.0.as_mut().reset(at.into());
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

/// A listening socket on Tokio. A Unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub enum TokioListener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix domain socket.
    #[cfg(unix)]
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Its file.
        path: std::path::PathBuf,
    },
}

impl fluxar_runtime::Listener for TokioListener {
    type Link = TokioLink;

    async fn accept(&mut self) -> io::Result<TokioLink> {
        loop {
            let link = match self {
                Self::Tcp(listener) => poll_fn(|cx| listener.poll_accept(cx)).await.map(|(stream, _)| {
                    // A connection that was reset before it was accepted has no peer any more.
                    TokioLink::tcp(stream).ok()
                }),
                #[cfg(unix)]
                Self::Unix { listener, path } => poll_fn(|cx| listener.poll_accept(cx))
                    .await
                    .map(|(stream, _)| Some(TokioLink::unix(stream, path))),
            };
            match link {
                Ok(Some(link)) => return Ok(link),
                Ok(None) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn local_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|at| {
                let host = if at.is_ipv6() { format!("[{}]", at.ip()) } else { at.ip().to_string() };
                Address::Tcp { host, port: at.port() }
            }),
            #[cfg(unix)]
            Self::Unix { path, .. } => Ok(Address::Unix { path: path.clone() }),
        }
    }
}

/// Whether a connection was gone before it was accepted: that is no trouble of the listener's, which must not rest for
/// it.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(unix)]
impl Drop for TokioListener {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            std::fs::remove_file(path).ok();
        }
    }
}
