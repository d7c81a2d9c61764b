//! The side that dials.

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::sync::Arc;

use bytes::BytesMut;
use fluxar_proto::{Connection, ConnectionError};

use crate::address::{Address, AddressError, Transport};
use crate::clock::Clock;
use crate::driver::Driver;
use crate::handler::{HandlerError, Router};
use crate::hub::Hub;
use crate::keeper::Keeper;
use crate::payload::IntoPayload;
use crate::peer::Peer;
use crate::request::Request;
use crate::runtime::{Link, Runtime};
use crate::settings::{Settings, setters};
use crate::shared::Shared;
use crate::store::Store;
use crate::stream_request::StreamRequest;
use crate::upkeep::Upkeep;

/// A connection that this side has dialled. It is a [`Peer`] that also can be called back; once it is dropped, the
/// connection is closed.
pub struct Client<R: Runtime> {
    peer: Peer,
    hub: Hub,
    router: Router,
    runtime: R,
}

impl<R: Runtime + Default> Client<R> {
    /// Begins to connect to `url`: `tcp://host:port`, `unix:///path`; a bare `host:port` means TCP.
    pub fn connect(url: impl Into<String>) -> ClientBuilder<R> {
        ClientBuilder::new(R::default(), url)
    }
}

impl<R: Runtime> Client<R> {
    /// Runs `handler` when the server calls `method`. A later one for the same method takes its place. What the server
    /// may call from the first moment on is better registered with [`ClientBuilder::handle`].
    pub fn handle<F, Fut, T>(&self, method: &str, handler: F)
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: IntoPayload + 'static,
    {
        self.router.handle(self.runtime.clone(), method, handler);
    }

    /// Runs `handler` when the server opens a stream for `method`. A later one for the same method takes its place.
    ///
    /// The handler's return ends the stream: see [`StreamRequest`].
    pub fn handle_stream<F, Fut, T>(&self, method: &str, handler: F)
    where
        F: Fn(StreamRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: IntoPayload + 'static,
    {
        self.router.handle_stream(self.runtime.clone(), method, handler);
    }

    /// Where what the server publishes goes, and what it subscribes to comes from.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The connection without its owner: does not close when it is dropped.
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }
}

impl<R: Runtime> Deref for Client<R> {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl<R: Runtime> Drop for Client<R> {
    fn drop(&mut self) {
        self.peer.close();
    }
}

impl<R: Runtime> fmt::Debug for Client<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("remote", &self.peer.remote()).finish_non_exhaustive()
    }
}

/// A client that is about to connect.
#[must_use = "a client connects when it is built"]
pub struct ClientBuilder<R: Runtime> {
    runtime: R,
    url: String,
    transport: Option<Transport>,
    settings: Settings,
    router: Router,
    store: Option<Arc<dyn Store>>,
}

impl<R: Runtime> ClientBuilder<R> {
    /// As [`Client::connect`], on a runtime that has no default.
    pub fn new(runtime: R, url: impl Into<String>) -> Self {
        let (settings, router) = (Settings::default(), Router::default());
        Self { runtime, url: url.into(), transport: None, settings, router, store: None }
    }

    setters!();

    /// Keeps in `store` what is needed so that messages with acknowledgement are delivered over the end of the connection:
    /// see [`Store`]. What it holds from earlier connections is sent before anything new. A store belongs to one server.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Insists on a transport: an address of another one is an error.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Connects and shakes hands, which may take the [handshake timeout](crate::Config::handshake_timeout) in all.
    ///
    /// # Errors
    ///
    /// Where the address is bad, nobody answers there, or the handshake fails.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the connection is closed.
    pub async fn build(self) -> Result<Client<R>, ConnectError> {
        let address: Address = self.url.parse()?;
        if self.transport.is_some_and(|wanted| wanted != address.transport()) {
            return Err(ConnectError::WrongTransport(address));
        }
        let clock = Clock::new(&self.runtime);
        let ids = clock.ids().map_err(|error| ConnectError::Io(address.clone(), io_error(&error)))?;
        // One time for both, dialling and shaking hands.
        let began = clock.now();
        let dialled = dial(&self.runtime, &address, self.settings.config.handshake_timeout).await;
        let link = dialled.map_err(|error| ConnectError::Io(address.clone(), error))?;
        let mut settings = self.settings;
        // Nobody dials again.
        settings.configure(|config| config.resume = false);
        let connection = Connection::initiate(settings.config.clone(), began, ids);
        let remote = link.remote();
        let hub = settings.hub.clone().unwrap_or_else(|| Hub::new(self.runtime.clone()));
        let shared = Shared::new(connection, clock, remote, settings.call_timeout, hub.tasks().clone());
        if let Some(store) = self.store {
            let keeper = Keeper::new(store);
            Keeper::start(
                keeper.map_err(|error| ConnectError::Io(address.clone(), io_error(&error)))?,
                &shared,
                hub.clone(),
            );
        }
        let driver = Driver::new(
            &self.runtime,
            link,
            shared.link(),
            Upkeep::new(shared.clone(), self.router.clone(), hub.clone()),
            &settings,
            BytesMut::new(),
        );
        self.runtime.spawn(async move {
            driver.await;
        });
        let client =
            Client { peer: Peer::new(shared.clone()), hub, router: self.router, runtime: self.runtime };
        shared.established().await?;
        Ok(client)
    }
}

async fn dial<R: Runtime>(
    runtime: &R,
    address: &Address,
    timeout: std::time::Duration,
) -> std::io::Result<R::Link> {
    use crate::runtime::Timer;
    let mut timer = runtime.timer(runtime.now() + timeout);
    let mut dialling = std::pin::pin!(runtime.connect(address));
    poll_fn(|cx| {
        if let std::task::Poll::Ready(result) = dialling.as_mut().poll(cx) {
            return std::task::Poll::Ready(result);
        }
        timer.poll_expired(cx).map(|()| Err(std::io::ErrorKind::TimedOut.into()))
    })
    .await
}

impl<R: Runtime> fmt::Debug for ClientBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Why a client could not connect.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is no address that this build understands.
    Address(AddressError),
    /// The address is not of the transport asked for.
    WrongTransport(Address),
    /// Nobody could be reached there.
    Io(Address, std::io::Error),
    /// The handshake failed.
    Handshake(ConnectionError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::WrongTransport(address) => write!(f, "{address} is not of the transport asked for"),
            Self::Io(address, error) => write!(f, "{address}: {error}"),
            Self::Handshake(error) => write!(f, "the handshake failed: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(error) => Some(error),
            Self::WrongTransport(_) => None,
            Self::Io(_, error) => Some(error),
            Self::Handshake(error) => Some(error),
        }
    }
}

impl From<AddressError> for ConnectError {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

impl From<ConnectionError> for ConnectError {
    fn from(error: ConnectionError) -> Self {
        Self::Handshake(error)
    }
}

fn io_error(error: &getrandom::Error) -> std::io::Error {
    std::io::Error::other(format!("no randomness: {error}"))
}
