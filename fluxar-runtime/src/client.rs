//! The side that dials.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::{Auth, Connection, ConnectionError, Error, Psk};

use crate::address::{Address, AddressError, Transport};
use crate::auth::{Credentials, Wallet};
use crate::clock::Clock;
use crate::handler::{HandlerError, Router};
use crate::hub::Hub;
use crate::keeper::Keeper;
use crate::payload::IntoPayload;
use crate::peer::Peer;
use crate::reconnect::{Backoff, Journal, Linker, Reconnect, Site, Sites, State, States, dial};
use crate::request::Request;
use crate::runtime::{Link, Runtime};
use crate::settings::{Settings, setters};
use crate::shared::Shared;
use crate::store::Store;
use crate::stream_request::StreamRequest;

/// A connection that this side has dialled. It is a [`Peer`] that also can be called back; once it is dropped, the
/// connection is closed.
///
/// # Coming back
///
/// A link that is lost is replaced by another one, as [`Reconnect`] says, without the help of the application. As a rule the
/// session [goes on](State::Resumed) as if nothing had happened (§9): calls get their outcomes, streams their items once and
/// in order, messages are acknowledged. Where the server does not know it any more, or did not want to keep it for so long,
/// it is [lost](State::Lost), and a fresh one follows. Then
///
/// - subscriptions go on, and may have missed what was published meanwhile;
/// - messages that were not acknowledged are published again, and may arrive twice
///   ([`is_duplicate`](crate::Message::is_duplicate));
/// - calls that were not sent are made, and so are those that are [idempotent](crate::Call::idempotent); others fail with
///   `unavailable`, and may have been acted upon;
/// - streams end with `unavailable`;
/// - handlers that work for the server learn that nobody waits for them.
///
/// What is called, opened or published while there is no link waits for one, within the bounds of what is queued, and its
/// deadlines run on. [`state`](Self::state) and [`states`](Self::states) tell how the connection stands.
///
/// It ends when it is dropped or closed, when the server closes it in order, or for an error that would be the same the next
/// time: as when this side is not let in, or one of the two breaks the protocol. A server that leaves, or is full, or
/// not available, says so, and the client tries again: there, at another [URL](ClientBuilder::url), or where the server
/// [sends](ClientBuilder::follow_redirects) it.
pub struct Client<R: Runtime> {
    peer: Peer,
    journal: Arc<Journal>,
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

    /// How the connection stands.
    ///
    /// ```no_run
    /// # fn doc<R: fluxar_runtime::Runtime>(client: fluxar_runtime::Client<R>) {
    /// if !client.state().is_connected() {
    ///     eprintln!("offline");
    /// }
    /// # }
    /// ```
    pub fn state(&self) -> State {
        self.journal.now()
    }

    /// How the connection stands, and every change of that from now on, in order.
    ///
    /// ```no_run
    /// # async fn doc<R: fluxar_runtime::Runtime>(client: fluxar_runtime::Client<R>) {
    /// let mut states = client.states();
    /// while let Some(state) = states.next().await {
    ///     eprintln!("{state:?}");
    /// }
    /// # }
    /// ```
    pub fn states(&self) -> States {
        self.journal.states()
    }

    /// Shows fresh credentials to the server, within the session (§8.5); how long they last, without end where that is
    /// `None`. Until the answer is there, and where they are refused, the former ones count.
    ///
    /// Where the credentials come from [`ClientBuilder::auth`] or [`ClientBuilder::credentials`], that happens by itself,
    /// in time before they run out. The next link needs credentials of its own, which come from there.
    ///
    /// # Errors
    ///
    /// `unauthenticated` where the server does not accept them, `permission_denied` where they are another one's;
    /// `unavailable` where there is no link at the moment, `failed_precondition` where they must not be sent over it: in
    /// clear, or to where the client was [redirected](ClientBuilder::follow_redirects).
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, they may still be accepted.
    pub async fn authenticate(&self, auth: Auth) -> Result<Option<Duration>, Error> {
        self.peer.shared().authenticate(auth).await
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
    others: Vec<String>,
    transport: Option<Transport>,
    reconnect: Reconnect,
    follow_redirects: bool,
    settings: Settings,
    wallet: Wallet,
    router: Router,
    store: Option<Arc<dyn Store>>,
}

impl<R: Runtime> ClientBuilder<R> {
    /// As [`Client::connect`], on a runtime that has no default.
    pub fn new(runtime: R, url: impl Into<String>) -> Self {
        Self {
            runtime,
            url: url.into(),
            others: Vec::new(),
            transport: None,
            reconnect: Reconnect::default(),
            follow_redirects: false,
            settings: Settings::default(),
            wallet: Wallet::default(),
            router: Router::default(),
            store: None,
        }
    }

    setters!();

    /// Keeps in `store` what is needed so that messages with acknowledgement are delivered over the end of the connection:
    /// see [`Store`]. What it holds from earlier connections is sent before anything new. A store belongs to one server.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Adds another URL at which the same service is to be found. They are tried in the order in which they were added,
    /// beginning with the one that worked last.
    ///
    /// ```
    /// # use fluxar_runtime::{Client, ClientBuilder, Runtime};
    /// # fn doc<R: Runtime + Default>() -> ClientBuilder<R> {
    /// Client::<R>::connect("tcp://a.example:7777").url("tcp://b.example:7777")
    /// # }
    /// ```
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.others.push(url.into());
        self
    }

    /// How to come back after a link is lost. Default: [`Reconnect::default`], which never gives up.
    ///
    /// ```
    /// # use fluxar_runtime::{Client, ClientBuilder, Reconnect, Runtime};
    /// # fn doc<R: Runtime + Default>() -> ClientBuilder<R> {
    /// Client::<R>::connect("tcp://127.0.0.1:7777").reconnect(Reconnect::default().attempts(5))
    /// # }
    /// ```
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Whether to go wherever a server that leaves sends its clients (§8.6). Credentials are not sent there,
    /// neither to renew them nor when they are asked for, unless it is one of the URLs that were given here. Default: false,
    /// and only those URLs are followed.
    ///
    /// ```
    /// # use fluxar_runtime::{Client, ClientBuilder, Runtime};
    /// # fn doc<R: Runtime + Default>() -> ClientBuilder<R> {
    /// Client::<R>::connect("tcp://127.0.0.1:7777").follow_redirects(true)
    /// # }
    /// ```
    pub fn follow_redirects(mut self, follow: bool) -> Self {
        self.follow_redirects = follow;
        self
    }

    /// Shows these credentials to the server (§6.11), and the same again before they run out. Those that change come from
    /// [`credentials`](Self::credentials).
    ///
    /// They are sent where nobody can listen: see [`Link::is_confidential`]. Elsewhere the client does not connect, unless
    /// that is [allowed](Self::allow_plaintext_auth).
    ///
    /// ```
    /// # use fluxar_runtime::{Auth, Client, ClientBuilder, Runtime};
    /// # fn doc<R: Runtime + Default>(token: String) -> ClientBuilder<R> {
    /// Client::<R>::connect("tcp://127.0.0.1:7777").auth(Auth::bearer(token))
    /// # }
    /// ```
    pub fn auth(self, auth: Auth) -> Self {
        self.credentials(auth)
    }

    /// Asks `credentials` whenever some are needed: see [`Credentials`].
    pub fn credentials(mut self, credentials: impl Credentials) -> Self {
        self.wallet.set_credentials(credentials);
        self
    }

    /// Sends credentials in clear where there is no other way: everybody on the path can read them, and be this client from
    /// then on (§6.11). For networks that are trusted as a whole.
    pub fn allow_plaintext_auth(mut self) -> Self {
        self.settings.configure(|config| config.clear_auth = true);
        self
    }

    /// Proves to the server that this side holds a pre-shared key, and leaves a server that does not prove the same (§6.12).
    pub fn psk(mut self, psk: Psk) -> Self {
        self.wallet.set_psk(psk);
        self
    }

    /// Insists on a transport: an address of another one is an error.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Connects and shakes hands, which may take the [handshake timeout](crate::Config::handshake_timeout) in all. Where there
    /// are several URLs, each is tried once, and has that time.
    ///
    /// # Errors
    ///
    /// Where an address is bad; where nobody answers, or the handshake fails, at the last one.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the connection is closed.
    pub async fn build(mut self) -> Result<Client<R>, ConnectError> {
        let first: Address = self.url.parse()?;
        let mut addresses = vec![first.clone()];
        for url in &self.others {
            addresses.push(url.parse()?);
        }
        if let Some(transport) = self.transport
            && let Some(wrong) = addresses.iter().find(|address| address.transport() != transport)
        {
            return Err(ConnectError::WrongTransport(wrong.clone()));
        }
        let comes_back = self.reconnect.is_on();
        self.settings.configure(|config| {
            config.reconnect = comes_back;
            // Where nobody dials again, the server need not keep anything.
            config.resume &= comes_back;
        });
        self.wallet.set_time(self.settings.config.handshake_timeout);
        let hub = self.settings.hub.clone().unwrap_or_else(|| Hub::new(self.runtime.clone()));
        let mut result = self.connect_to(&first, &addresses, &hub).await;
        for address in addresses.iter().skip(1) {
            let Err(error) = &result else { break };
            tracing::debug!(%error, next = %address, "trying another URL");
            result = self.connect_to(address, &addresses, &hub).await;
        }
        result
    }

    /// One attempt, at one address.
    async fn connect_to(
        &self,
        address: &Address,
        all: &[Address],
        hub: &Hub,
    ) -> Result<Client<R>, ConnectError> {
        let failed = |error| ConnectError::Io(address.clone(), error);
        let clock = Clock::new(&self.runtime);
        let ids = clock.ids().map_err(|error| failed(io_error(&error)))?;
        let rng = crate::random::generator().map_err(|error| failed(io_error(&error)))?;
        let timeout = self.settings.config.handshake_timeout;
        let shown = self.wallet.dial(hub.tasks(), address, true).await;
        let mut shown = shown.map_err(ConnectError::Credentials)?;
        // One time for both, dialling and shaking hands.
        let began = clock.now();
        let link = dial(&self.runtime, address, timeout).await.map_err(failed)?;
        shown.confidential = link.is_confidential();
        let connection = Connection::initiate_with(self.settings.config.clone(), began, ids, shown)?;
        let shared =
            Shared::new(connection, clock, link.remote(), self.settings.call_timeout, hub.tasks().clone());
        shared.known().guard(self.settings.gate.clone());
        self.wallet.attend(&shared);
        let journal = Journal::new();
        shared.report_to(journal.clone(), self.reconnect.is_on());
        if let Some(store) = &self.store {
            let keeper = Keeper::new(store.clone()).map_err(|error| failed(io_error(&error)))?;
            Keeper::start(keeper, &shared, hub.clone());
        }
        let sites = Sites::new(all.to_vec(), self.follow_redirects, self.transport);
        let linker = Linker {
            runtime: self.runtime.clone(),
            shared: shared.clone(),
            router: self.router.clone(),
            hub: hub.clone(),
            settings: self.settings.clone(),
            wallet: self.wallet.clone(),
            backoff: Backoff::new(self.reconnect.clone(), sites.len()),
            sites,
            rng,
            redirect: None,
        };
        self.runtime.spawn(linker.run(link, Site { address: address.clone(), is_own: true }));
        let client = Client {
            peer: Peer::new(shared.clone()),
            journal,
            hub: hub.clone(),
            router: self.router.clone(),
            runtime: self.runtime.clone(),
        };
        shared.established().await?;
        Ok(client)
    }
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
    /// The [credentials](ClientBuilder::credentials) were not to be had.
    Credentials(Error),
    /// The handshake failed.
    Handshake(ConnectionError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::WrongTransport(address) => write!(f, "{address} is not of the transport asked for"),
            Self::Io(address, error) => write!(f, "{address}: {error}"),
            Self::Credentials(error) => write!(f, "no credentials: {error}"),
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
            Self::Credentials(error) => Some(error),
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
