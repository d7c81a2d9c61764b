//! What clients and servers have in common to set.

use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::Config;

use crate::hub::Hub;

/// The settings of a client's or a server's connections.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) config: Arc<Config>,
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) write_timeout: Duration,
    pub(crate) hub: Option<Hub>,
}

impl Default for Settings {
    fn default() -> Self {
        let write_timeout = Duration::from_secs(30);
        Self { config: Arc::default(), call_timeout: None, write_timeout, hub: None }
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
