//! A server that leaves in order.

use std::time::Duration;

use fluxar_proto::Drain;

use crate::server::ServerHandle;

/// How the connections of a server ended that has [drained](ServerHandle::drain).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Those that had nothing open any more before the deadline, or whose peers or links were gone.
    pub finished: usize,
    /// Those with something open at the deadline, which was cut.
    pub cut: usize,
}

impl ServerHandle {
    /// Leaves in order (§8.6): stops listening, refuses who is about to connect, lets what is open on the connections come to
    /// its end, and closes each once nothing is; [`Server::run`](crate::Server::run) then returns. What is opened meanwhile is
    /// refused, in a way that makes it safe to try elsewhere. What is still open after `deadline` is cut.
    ///
    /// Sessions without a link end at once: nobody could come back to them.
    ///
    /// A further call replaces the deadline; [`stop`](Self::stop) ends it at once.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the server leaves all the same.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        self.drain_with(Drain::new().with_deadline(deadline)).await
    }

    /// As [`drain`](Self::drain), and says why, or where the clients may go on. Without a deadline it takes
    /// [`Config::drain_timeout`](crate::Config::drain_timeout) at the most.
    pub async fn drain_with(&self, drain: Drain) -> DrainReport {
        self.connections.leave(&drain);
        let connected = self.connections.open();
        for shared in &connected {
            shared.drain(drain.clone());
        }
        let mut report = DrainReport::default();
        for shared in connected {
            shared.leave().await;
            match shared.lock().connection.was_cut() {
                true => report.cut += 1,
                false => report.finished += 1,
            }
        }
        self.connections.emptied().await;
        report
    }
}
