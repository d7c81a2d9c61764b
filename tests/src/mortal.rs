//! A server that dies as a process does: without a word, and with all that it knew.

use fluxar::{Server, ServerBuilder, ServerHandle};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::net::{Flavor, Net, WATCHDOG, runtime};
use crate::site::common;

/// A server on a runtime of its own.
#[derive(Debug)]
pub struct Mortal {
    url: String,
    handle: ServerHandle,
    runtime: Option<Runtime>,
}

impl Mortal {
    /// A server with the handlers of [`common`], after `change`.
    ///
    /// # Panics
    ///
    /// Where it cannot listen.
    pub async fn birth(net: Net, change: impl Fn(ServerBuilder) -> ServerBuilder) -> Self {
        Self::at(&net.url(), change).await
    }

    /// The same at the URL of one that has died.
    ///
    /// # Panics
    ///
    /// Where it can never listen there.
    pub async fn at(url: &str, change: impl Fn(ServerBuilder) -> ServerBuilder) -> Self {
        let runtime = runtime(Flavor::Multi);
        let began = std::time::Instant::now();
        let server = loop {
            let (told, server) = oneshot::channel();
            let building = change(common(Server::bind(url))).build();
            runtime.spawn(async move { told.send(building.await) });
            match server.await.expect("the server's runtime") {
                Ok(server) => break server,
                // The one that has died may still be about to let go of the port.
                Err(error) => assert!(began.elapsed() < WATCHDOG / 4, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        let (url, handle) = (server.url(), server.server_handle());
        runtime.spawn(server.run());
        Self { url, handle, runtime: Some(runtime) }
    }

    /// Where the server listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's handle.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// It dies. Gives back where it was.
    pub fn die(mut self) -> String {
        self.kill();
        std::mem::take(&mut self.url)
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.kill();
    }
}
