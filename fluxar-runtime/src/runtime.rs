//! What FLUXAR needs of an async runtime: the seam that an adapter fills.

use std::fmt::Debug;
use std::future::Future;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use crate::Address;

/// A runtime that FLUXAR can live on. Adapters implement it; applications name it once, in a type alias.
pub trait Runtime: Clone + Debug + Send + Sync + 'static {
    /// A timer of the runtime.
    type Timer: Timer;
    /// A connected socket of any transport that the adapter has.
    type Link: Link;
    /// A listening socket.
    type Listener: Listener<Link = Self::Link>;

    /// Runs a future as a task of its own.
    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static);

    /// The runtime's clock.
    fn now(&self) -> Instant;

    /// A timer that expires at `at`.
    fn timer(&self, at: Instant) -> Self::Timer;

    /// Connects to `address`.
    fn connect(&self, address: &Address) -> impl Future<Output = io::Result<Self::Link>> + Send;

    /// Listens on `address`.
    fn bind(&self, address: &Address) -> impl Future<Output = io::Result<Self::Listener>> + Send;
}

/// A timer that can be moved.
pub trait Timer: Send + Unpin + 'static {
    /// Moves the timer.
    fn reset(&mut self, at: Instant);

    /// Ready once the time has come.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A connected byte-stream socket.
pub trait Link: Send + Unpin + 'static {
    /// Appends what there is to read to `buffer`, within its spare capacity. `Ok(0)` is the end of input.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Ready once there is something to read, or the input has ended: lets an idle connection hold no buffer.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes as much as the socket takes.
    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Ends the output; input still comes.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Who is at the other end, for people to read.
    fn remote(&self) -> String;

    /// Whether nobody but the two ends can read and change what is sent, so that credentials may be (§6.11): a Unix
    /// socket, a loopback address, TLS. Default: not known, so not.
    fn is_confidential(&self) -> bool {
        false
    }

    /// Where the other end is, as one that cannot choose it freely: an IP address without its port, a user of this
    /// machine. Failed handshakes are counted by it (§17.4). Default: not known.
    fn source(&self) -> Option<String> {
        None
    }
}

/// A listening socket.
pub trait Listener: Send + 'static {
    /// What it accepts.
    type Link: Link;

    /// The next connection. Cancel safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Link>> + Send;

    /// Where it really listens, with the port that the system chose where 0 was asked for.
    fn local_address(&self) -> io::Result<Address>;
}
