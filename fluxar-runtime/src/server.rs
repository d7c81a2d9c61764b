//! The side that listens.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::Psk;

use crate::address::{Address, AddressError, Transport};
use crate::auth::{Authenticator, Budget, Door};
use crate::connections::{Bounds, Connections, WhenFull};
use crate::handler::{HandlerError, Router};
use crate::hub::Hub;
use crate::message::Message;
use crate::payload::IntoPayload;
use crate::peer::Peer;
use crate::publish::Publish;
use crate::request::Request;
use crate::runtime::{Listener, Runtime};
use crate::serving::{OnConnect, Serving, StoreBy};
use crate::sessions::{self, ServerStats, Sessions};
use crate::settings::{Settings, setters};
use crate::store::Store;
use crate::stream_request::StreamRequest;
use crate::subscribe::{Subscribe, SubscribeMessages};

/// Listens, and runs handlers for whoever connects.
///
/// [`run`](Self::run) serves; a [`ServerHandle`] stops it from elsewhere.
pub struct Server<R: Runtime> {
    runtime: R,
    listeners: Vec<R::Listener>,
    addresses: Vec<Address>,
    settings: Settings,
    router: Router,
    door: Door,
    on_connect: Option<OnConnect>,
    store_by: Option<StoreBy>,
    handle: ServerHandle,
}

impl<R: Runtime + Default> Server<R> {
    /// Begins a server that listens on `url`: `tcp://host:port`, `unix:///path`; a bare `host:port` means TCP. Port 0
    /// lets the system choose.
    pub fn bind(url: impl Into<String>) -> ServerBuilder<R> {
        ServerBuilder::new(R::default()).listen(url)
    }

    /// Begins a server on a socket that listens already, as one that a supervisor hands over.
    pub fn on(listener: R::Listener) -> ServerBuilder<R> {
        ServerBuilder::new(R::default()).listener(listener)
    }
}

impl<R: Runtime> Server<R> {
    /// Runs `handler` when a peer calls `method`. A later one for the same method takes its place.
    ///
    /// `?` in a handler takes any [`std::error::Error`]; see [`HandlerError`] for what the caller learns. A handler that panics costs
    /// its caller an `internal` error, and nobody else anything.
    pub fn handle<F, Fut, T>(&self, method: &str, handler: F)
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: IntoPayload + 'static,
    {
        self.router.handle(self.runtime.clone(), method, handler);
    }

    /// Runs `handler` when a peer opens a stream for `method`. A later one for the same method takes its place.
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

    /// Where what the peers publish goes, and what they subscribe to comes from: also for this side itself.
    pub fn hub(&self) -> &Hub {
        &self.handle.hub
    }

    /// As [`Hub::publish`]: to all who have subscribed at this server.
    pub fn publish<'a>(&'a self, topic: &'a str, payload: &(impl IntoPayload + ?Sized)) -> Publish<'a> {
        self.handle.hub.publish(topic, payload)
    }

    /// As [`Hub::subscribe`]: to what is published to this server.
    pub fn subscribe<'a, F, Fut>(&'a self, filter: &'a str, handler: F) -> Subscribe<'a, F>
    where
        F: Fn(Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.handle.hub.subscribe(filter, handler)
    }

    /// As [`Hub::messages`]: what is published to this server.
    pub fn messages<'a>(&'a self, filter: &'a str) -> SubscribeMessages<'a> {
        self.handle.hub.messages(filter)
    }

    /// Where the server listens: with the port that the system chose where 0 was asked for.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The URL of the first listener.
    pub fn url(&self) -> String {
        self.addresses.first().map(Address::to_string).unwrap_or_default()
    }

    /// A handle that outlives [`run`](Self::run): it knows the connected peers, and stops the server.
    pub fn server_handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until [`ServerHandle::stop`] is called; then returns once every connection is closed. Takes the server, so
    /// that whoever wants to stop it gets a [`server_handle`](Self::server_handle) before; without one it serves until
    /// the future is dropped.
    ///
    /// # Errors
    ///
    /// None at present: trouble with accepting one connection is logged and tried again.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it stops listening; connections live on until their peers or
    /// [`ServerHandle::stop`] end them.
    pub async fn run(self) -> io::Result<()> {
        let Self { runtime, listeners, settings, router, door, on_connect, store_by, handle, .. } = self;
        for listener in listeners {
            let serving = Serving {
                runtime: runtime.clone(),
                settings: settings.clone(),
                router: router.clone(),
                door: door.clone(),
                on_connect: on_connect.clone(),
                store_by: store_by.clone(),
                connections: handle.connections.clone(),
                sessions: handle.sessions.clone(),
                hub: handle.hub.clone(),
            };
            runtime.spawn(serving.run(listener));
        }
        // Dropped without having been stopped: the listeners' tasks must end all the same.
        let _stop = StopListening(handle.connections.clone());
        handle.connections.over().await;
        Ok(())
    }
}

impl<R: Runtime> fmt::Debug for Server<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// A server that is about to listen.
#[must_use = "a server listens when it is built"]
pub struct ServerBuilder<R: Runtime> {
    runtime: R,
    urls: Vec<String>,
    listeners: Vec<R::Listener>,
    transport: Option<Transport>,
    settings: Settings,
    router: Router,
    door: Door,
    on_connect: Option<OnConnect>,
    store_by: Option<StoreBy>,
    bounds: Bounds,
    max_detached: usize,
    max_detached_bytes: usize,
}

impl<R: Runtime> ServerBuilder<R> {
    /// A server on `runtime` that listens nowhere yet.
    pub fn new(runtime: R) -> Self {
        let (settings, router) = (Settings::default(), Router::default());
        Self {
            runtime,
            urls: Vec::new(),
            listeners: Vec::new(),
            transport: None,
            settings,
            router,
            door: Door::default(),
            on_connect: None,
            store_by: None,
            bounds: Bounds::default(),
            max_detached: sessions::MAX_DETACHED,
            max_detached_bytes: sessions::MAX_DETACHED_BYTES,
        }
    }

    setters!();

    /// Listens on one more address.
    pub fn listen(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Listens on one more socket, which listens already.
    pub fn listener(mut self, listener: R::Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// How many links may be in the handshake at once; where there are more, the oldest is cut (§15.3). At least 1;
    /// default 1,024.
    pub fn max_handshakes(mut self, max: usize) -> Self {
        self.bounds.max_handshakes = max.max(1);
        self
    }

    /// How many connections there may be at once, those included that wait for their clients to come back; at least 1. What
    /// happens beyond that says [`when_full`](Self::when_full). Default: any number.
    pub fn max_connections(mut self, max: usize) -> Self {
        self.bounds.max_connections = max.max(1);
        self
    }

    /// What happens to who connects where there are as many connections as there may be. Default: [`WhenFull::Refuse`].
    pub fn when_full(mut self, action: WhenFull) -> Self {
        self.bounds.when_full = action;
        self
    }

    /// How long a session is kept for a client whose link is lost, so that it can go on over another one (§9.1); zero: not
    /// at all. Default 60 s.
    pub fn resume_for(mut self, time: Duration) -> Self {
        self.settings.configure(|config| config.resume_time = time);
        self
    }

    /// How many sessions are kept whose links are lost; where there are more, the one that has been without a link for the
    /// longest time ends. Default 1,024.
    pub fn max_detached(mut self, count: usize) -> Self {
        self.max_detached = count;
        self
    }

    /// How many bytes these may hold in all: messages that the client may not have, and what waits to be sent or to be
    /// handled. What several share, as messages of a hub, counts for each. Default 256 MiB.
    pub fn max_detached_bytes(mut self, bytes: usize) -> Self {
        self.max_detached_bytes = bytes;
        self
    }

    /// Lets nobody in whom `authenticator` does not let in; [`Peer::identity`] then says who is there. Default: everybody
    /// is let in, and nobody is known.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.door.set_authenticator(authenticator);
        self
    }

    /// Lets nobody in who does not prove to hold one of the pre-shared keys that are set so, and proves the same (§6.12):
    /// whatever else they show who connect. May be set several times. Where nothing else says who a peer is, its
    /// [`Peer::identity`] is named like its key.
    pub fn psk(mut self, psk: Psk) -> Self {
        self.door.keys.add(psk);
        self
    }

    /// The same with keys that come and go: `find` is asked for each handshake, with the name of a key. It should be
    /// quick. From outside, a name that it does not know looks like a wrong key.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::sync::{Arc, RwLock};
    ///
    /// use fluxar_runtime::{Psk, Runtime, Server, ServerBuilder};
    ///
    /// fn doc<R: Runtime + Default>(keys: Arc<RwLock<HashMap<String, Vec<u8>>>>) -> ServerBuilder<R> {
    ///     // Whoever holds `keys` changes them while the server runs.
    ///     Server::<R>::bind("tcp://127.0.0.1:7777")
    ///         .psks(move |name| Some(Psk::new(name, keys.read().unwrap().get(name)?.clone())))
    /// }
    /// ```
    pub fn psks(mut self, find: impl Fn(&str) -> Option<Psk> + Send + Sync + 'static) -> Self {
        self.door.keys.find_by(find);
        self
    }

    /// Lets in as well who names no pre-shared key. Who names one still has to prove it.
    pub fn psk_optional(mut self) -> Self {
        self.door.keys.set_optional();
        self
    }

    /// How often handshakes from one [source](crate::Link::source) may fail for want of valid credentials, at least once,
    /// and in what time each of these comes back (§17.4). A source that has none left is turned away unheard, with
    /// `resource_exhausted` and the time until it may try again; others do not notice. Default: 20, and one in 3 s.
    pub fn max_failures(mut self, failures: u32, refill: Duration) -> Self {
        self.door.set_budget(Budget::new(failures, refill));
        self
    }

    /// Lets everybody fail as often as he likes, as where something in front of the server counts already.
    pub fn unlimited_failures(mut self) -> Self {
        self.door.set_budget(Budget::unlimited());
        self
    }

    /// Insists on a transport: an address of another one is an error.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Keeps what is needed so that messages with acknowledgement are delivered over the end of a connection in the store
    /// that `choose` gives to a peer that has connected, if any: see [`Store`]. It must tell peers apart by what they cannot
    /// claim falsely, and give the same store to the same peer only.
    pub fn store_by(
        mut self,
        choose: impl Fn(&Peer) -> Option<Arc<dyn Store>> + Send + Sync + 'static,
    ) -> Self {
        self.store_by = Some(Arc::new(choose));
        self
    }

    /// Runs `hook` for each peer that has connected, in a task of its own: the place to call it first.
    pub fn on_connect<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_connect = Some(Arc::new(move |peer| Box::pin(hook(peer))));
        self
    }

    /// Listens. Connections are accepted once [`Server::run`] runs.
    ///
    /// # Errors
    ///
    /// Where an address is bad, or cannot be listened on.
    pub async fn build(mut self) -> Result<Server<R>, BindError> {
        let mut listeners = self.listeners;
        for url in &self.urls {
            let address: Address = url.parse()?;
            if self.transport.is_some_and(|wanted| wanted != address.transport()) {
                return Err(BindError::WrongTransport(address));
            }
            let listener = self.runtime.bind(&address).await;
            listeners.push(listener.map_err(|error| BindError::Io(url.clone(), error))?);
        }
        let addresses = listeners.iter().map(Listener::local_address).collect::<io::Result<_>>();
        let addresses = addresses.map_err(|error| BindError::Io("a listening socket".into(), error))?;
        let hub = self.settings.hub.clone().unwrap_or_else(|| Hub::new(self.runtime.clone()));
        let connections = Connections::new(listeners.len(), self.bounds);
        self.settings.configure(|config| self.door.configure(config));
        Ok(Server {
            runtime: self.runtime,
            handle: ServerHandle {
                connections,
                sessions: Sessions::new(self.max_detached, self.max_detached_bytes),
                hub,
            },
            listeners,
            addresses,
            settings: self.settings,
            router: self.router,
            door: self.door,
            on_connect: self.on_connect,
            store_by: self.store_by,
        })
    }
}

impl<R: Runtime> fmt::Debug for ServerBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// Why a server could not listen.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The URL is no address that this build understands.
    Address(AddressError),
    /// The address is not of the transport asked for.
    WrongTransport(Address),
    /// The system does not let us listen there.
    Io(String, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::WrongTransport(address) => write!(f, "{address} is not of the transport asked for"),
            Self::Io(address, error) => write!(f, "{address}: {error}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(error) => Some(error),
            Self::WrongTransport(_) => None,
            Self::Io(_, error) => Some(error),
        }
    }
}

impl From<AddressError> for BindError {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

/// Knows a server's connections, and stops it. Cheap to clone.
#[derive(Clone)]
pub struct ServerHandle {
    pub(crate) connections: Arc<Connections>,
    sessions: Arc<Sessions>,
    hub: Hub,
}

impl ServerHandle {
    /// The peers that are connected now: those included whose link is lost, while their sessions wait for another one.
    pub fn peers(&self) -> Vec<Peer> {
        self.connections.open().into_iter().map(Peer::new).collect()
    }

    /// Where what the peers publish goes, and what they subscribe to comes from.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// How the server is doing.
    pub fn stats(&self) -> ServerStats {
        ServerStats::new(self.connections.counts(), self.sessions.counts())
    }

    /// Stops listening and closes every connection at once, those without a link included; [`Server::run`] then returns.
    /// [`drain`](Self::drain) waits for what is open.
    pub fn stop(&self) {
        self.connections.stop();
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("connections", &self.connections.open().len()).finish()
    }
}

struct StopListening(Arc<Connections>);

impl Drop for StopListening {
    fn drop(&mut self) {
        self.0.stop_listening();
    }
}
