//! What clients and servers have in common to set.

use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::Config;

use crate::auth::Gate;
use crate::hub::Hub;

/// The settings of a client's or a server's connections.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) config: Arc<Config>,
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) write_timeout: Duration,
    pub(crate) hub: Option<Hub>,
    pub(crate) gate: Gate,
}

impl Default for Settings {
    fn default() -> Self {
        let write_timeout = Duration::from_secs(30);
        Self { config: Arc::default(), call_timeout: None, write_timeout, hub: None, gate: Gate::default() }
    }
}

impl Settings {
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(Arc::make_mut(&mut self.config));
    }
}

/// The setters that both builders have.
macro_rules! setters {
    () => {
        /// Changes the settings of the protocol: limits, timeouts, the agent's name.
        ///
        /// ```
        /// # use fluxar_runtime::{Client, ClientBuilder, Runtime};
        /// # fn doc<R: Runtime + Default>() -> ClientBuilder<R> {
        /// Client::<R>::connect("tcp://127.0.0.1:7777").configure(|config| {
        ///     config.limits.max_calls = 16;
        ///     config.agent = Some("inventory/2".into());
        /// })
        /// # }
        /// ```
        pub fn configure(mut self, change: impl FnOnce(&mut fluxar_proto::Config)) -> Self {
            self.settings.configure(change);
            self
        }

        /// The time that each call has which does not set its own with [`Call::timeout`](crate::Call::timeout).
        /// Default: none.
        pub fn call_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.call_timeout = Some(timeout);
            self
        }

        /// How long the transport may take no bytes before the connection is given up: the peer does not read.
        /// Default 30 s.
        pub fn write_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.write_timeout = timeout;
            self
        }

        /// Publishes and subscribes by way of `hub`, which others may share. Default: a hub of its own.
        pub fn hub(mut self, hub: crate::Hub) -> Self {
            self.settings.hub = Some(hub);
            self
        }

        /// Asks `hook` for leave before anything is done for the other side: before it calls a method, opens a stream,
        /// subscribes or publishes here. The error says why it may not, and is what the other side gets, as one that was
        /// certainly not acted upon; [`Error::permission_denied`](crate::Error::permission_denied) as a rule. What it
        /// publishes without acknowledgement is dropped silently, and [counted](crate::HubStats::denied). What this side
        /// does itself needs no leave.
        ///
        /// [`Peer::identity`](crate::Peer::identity) says who asks. The hook runs in the middle of things, for each
        /// opening: it should be quick. What takes longer belongs into the
        /// [`Authenticator`](crate::Authenticator), which can attach what it has found to the
        /// [`Identity`](crate::Identity), or into the handler.
        ///
        /// ```
        /// use fluxar_runtime::{Access, Error, Peer, Runtime, Server, ServerBuilder};
        ///
        /// fn doc<R: Runtime + Default>() -> ServerBuilder<R> {
        ///     Server::<R>::bind("tcp://127.0.0.1:7777").authorize(|who: &Peer, what: Access<'_>| {
        ///         let is_admin = who.identity().is_some_and(|id| id.attribute("role") == Some("admin"));
        ///         match what {
        ///             Access::Call(_) | Access::Subscribe(_) if what.is_within("public.>") => Ok(()),
        ///             _ if is_admin => Ok(()),
        ///             _ => Err(Error::permission_denied("for admins only")),
        ///         }
        ///     })
        /// }
        /// ```
        pub fn authorize(
            mut self,
            hook: impl Fn(&crate::Peer, crate::Access<'_>) -> Result<(), crate::Error> + Send + Sync + 'static,
        ) -> Self {
            self.settings.gate = crate::auth::Gate::new(hook);
            self
        }

        /// Runs `handler` when the other side calls `method`. A later one for the same method takes its place.
        ///
        /// `?` in a handler takes any [`std::error::Error`]; see [`HandlerError`](crate::HandlerError) for what the caller learns.
        pub fn handle<F, Fut, T>(self, method: &str, handler: F) -> Self
        where
            F: Fn(crate::Request) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<T, crate::HandlerError>> + Send + 'static,
            T: crate::IntoPayload + 'static,
        {
            self.router.handle(self.runtime.clone(), method, handler);
            self
        }

        /// Runs `handler` when the other side opens a stream for `method`. A later one for the same method takes its place.
        ///
        /// The handler's return ends the stream: see [`StreamRequest`](crate::StreamRequest).
        pub fn handle_stream<F, Fut, T>(self, method: &str, handler: F) -> Self
        where
            F: Fn(crate::StreamRequest) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<T, crate::HandlerError>> + Send + 'static,
            T: crate::IntoPayload + 'static,
        {
            self.router.handle_stream(self.runtime.clone(), method, handler);
            self
        }
    };
}
pub(crate) use setters;
