//! A server under test, with handlers that most tests need.

use std::io;

use fluxar::{
    Client, ClientBuilder, Error, Peer, Raw, Reconnect, Request, Server, ServerBuilder, ServerHandle,
};
use tokio::task::JoinHandle;

use crate::net::{Net, eventually};
use crate::wire::Wire;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Site {
    url: String,
    handle: ServerHandle,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl Site {
    /// A server with the handlers of [`common`].
    pub async fn open(net: Net) -> Self {
        Self::with(net, |builder| builder).await
    }

    /// The same, after `change`.
    ///
    /// # Panics
    ///
    /// Where it cannot listen.
    pub async fn with(net: Net, change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let builder = change(common(Server::bind(net.url())));
        Self::of(builder.build().await.expect("a server"))
    }

    /// Runs a server that is built already.
    pub fn of(server: Server) -> Self {
        let (url, handle) = (server.url(), server.server_handle());
        Self { url, handle, running: Some(tokio::spawn(server.run())) }
    }

    /// Where the server listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's handle.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// A client that is about to connect.
    pub fn connect(&self) -> ClientBuilder {
        Client::connect(&self.url)
    }

    /// A client whose connection ends with its link.
    ///
    /// # Panics
    ///
    /// Where it cannot connect.
    pub async fn fleeting(&self) -> Client {
        self.connect().reconnect(Reconnect::off()).build().await.expect("a client")
    }

    /// A client.
    ///
    /// # Panics
    ///
    /// Where it cannot connect.
    pub async fn client(&self) -> Client {
        self.connect().build().await.expect("a client")
    }

    /// A scripted peer that has shaken hands.
    pub async fn wire(&self) -> Wire {
        Wire::established(&self.url).await
    }

    /// The server's only peer.
    ///
    /// # Panics
    ///
    /// Where it never comes to exactly one.
    pub async fn peer(&self) -> Peer {
        eventually("exactly one peer", || self.handle.peers().len() == 1).await;
        self.handle.peers().remove(0)
    }

    /// Waits until the server has ended by itself.
    ///
    /// # Panics
    ///
    /// Where it failed.
    pub async fn ended(mut self) {
        let running = self.running.take().expect("it runs until now");
        running.await.expect("the server's task").expect("the server");
    }

    /// Stops the server, and waits until it has ended.
    ///
    /// # Panics
    ///
    /// Where it failed.
    pub async fn close(mut self) {
        self.handle.stop();
        let running = self.running.take().expect("it runs until now");
        running.await.expect("the server's task").expect("the server");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// Adds the handlers that most tests need: `echo`, `never`, `fail` and `count`.
pub fn common(builder: ServerBuilder) -> ServerBuilder {
    builder
        .handle("echo", |request: Request| async move { Ok(request.raw()) })
        .handle("never", |request: Request| async move {
            std::future::pending::<()>().await;
            Ok(request.raw())
        })
        .handle("fail", |request: Request| async move {
            let (code, message): (u32, String) = request.payload()?;
            Err::<Raw, _>(Error::new(fluxar::Code(code), message).into())
        })
        .handle("count", |request: Request| async move {
            let count: u32 = request.payload()?;
            for number in 0..count {
                request.update(&number).await?;
            }
            Ok(count)
        })
}
