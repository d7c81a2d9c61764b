//! Connecting, as all commands do that need a peer.

use std::future::Future;

use fluxar::{Client, ConnectError, Reconnect};

use crate::failure::{Exit, Failure};

/// What this program calls itself in the handshake.
pub(crate) const AGENT: &str = concat!("fluxar-cli/", env!("CARGO_PKG_VERSION"));

/// Connects, unless Ctrl-C comes first.
pub(crate) async fn dial(url: &str) -> Result<Client, Failure> {
    unless_interrupted(connect(url)).await.unwrap_or_else(|| Err(Failure::silent(Exit::Interrupted)))
}

pub(crate) async fn connect(url: &str) -> Result<Client, Failure> {
    let client = Client::connect(url).configure(|config| config.agent = Some(AGENT.into()));
    // A command is about one connection: its loss is what is to be told.
    client.reconnect(Reconnect::off()).build().await.map_err(|error| match error {
        ConnectError::Address(_) | ConnectError::WrongTransport(_) => Failure::usage(error),
        ConnectError::Handshake(error) => {
            Failure::connection(format_args!("cannot connect: {url}: the handshake failed: {error}"))
        }
        _ => Failure::connection(format_args!("cannot connect: {error}")),
    })
}

/// What `command` comes to, or `None` where Ctrl-C comes first.
pub(crate) async fn unless_interrupted<T>(command: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        output = command => Some(output),
        // Where there is no such signal to be had, the command goes on.
        Ok(()) = tokio::signal::ctrl_c() => None,
    }
}
