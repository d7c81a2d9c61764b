//! What a connection tells its driver.

use core::time::Duration;

use crate::message::Id;
use crate::pattern::{CallEvent, PubSubEvent, StreamEvent};
use crate::session::ConnectionError;

/// Something that happened, from [`poll_event`](super::Connection::poll_event).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is done; [`peer`](super::Connection::peer) says with whom. The first event of a link.
    Established,
    /// Something happened to a call.
    Call(CallEvent),
    /// Something happened to a stream.
    Stream(StreamEvent),
    /// Something happened to a subscription, a publication or a delivery.
    PubSub(PubSubEvent),
    /// The peer answered a ping that [`ping`](super::Connection::ping) or the heartbeat sent.
    Pong {
        /// The ping.
        ping: Id,
        /// How long the answer took.
        rtt: Duration,
    },
    /// The connection has ended. The last event: every open call was reported before.
    Closed(ConnectionError),
}
