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
mod listener;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

pub use fluxar_runtime::{
    Access, Accounts, Address, AddressError, Auth, AuthFuture, AuthKind, AuthRequest, Authenticator,
    BindError, Call, Calling, Code, Config, ConnectError, ConnectionError, Credentials, CredentialsFuture,
    DeliveryRecord, Drain, DrainReport, Encoded, Error, Fate, FromPayload, Granted, HandlerError, Hub,
    HubBuilder, HubStats, Id, Identity, IntoPayload, Item, Items, Limits, MemoryStore, Message, Messages,
    Meta, OpenCall, OpenStream, Opening, Origin, Overflow, Payload, Peer, PeerInfo, Psk, PskError, Publish,
    PublishError, Publishing, Qos, QueueLimits, QueueStats, Rate, RateAction, Rates, Raw, Reconnect, Request,
    ServerHandle, ServerStats, State, States, Stats, Store, StoreError, StoreFuture, Stored, Stream,
    StreamReceiver, StreamRequest, StreamSender, Subscribe, SubscribeMessages, Subscription, Transport,
    Undelivered, Verdict, Wanted, WhenFull,
};
pub use link::TokioLink;
pub use listener::TokioListener;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpListener, TcpStream};

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
                Ok(TcpListener::bind((host.trim_matches(['[', ']']), *port)).await?.into())
            }
            #[cfg(unix)]
            Address::Unix { path } => TokioListener::bind_unix(path).await,
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
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
