//! What a connection tells its driver.

use core::time::Duration;

use crate::message::{Error, Id, Payload};
use crate::pattern::{CallEvent, PubSubEvent, StreamEvent};
use crate::session::{Auth, ConnectionError, Drain};

/// What was lost with a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// Why the session is over.
    pub why: ConnectionError,
    /// Calls of ours that failed.
    pub calls: usize,
    /// Streams that ended, whoever had opened them.
    pub streams: usize,
    /// Subscriptions of ours; those that go on in the fresh session included, since they may have missed something.
    pub subscriptions: usize,
}

/// Something that happened, from [`poll_event`](super::Connection::poll_event).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is done; [`peer`](super::Connection::peer) says with whom. The first event of a session.
    Established,
    /// As initiator, with custom credentials: the responder wants one more round of them. To be answered with
    /// [`prove`](super::Connection::prove), within the time that the handshake has.
    Challenge {
        /// What the scheme calls for.
        challenge: Payload,
    },
    /// As responder: the peer sends fresh credentials. To be answered with
    /// [`answer_auth`](super::Connection::answer_auth).
    AuthOffered {
        /// Which renewal it is.
        id: Id,
        /// The credentials.
        auth: Auth,
    },
    /// As initiator: what became of the credentials that [`authenticate`](super::Connection::authenticate) sent.
    Authenticated {
        /// Which renewal it was.
        id: Id,
        /// How long they last, without end where that is none; or why they were refused, so that the former ones count.
        /// With `unavailable` there was no answer before the link was lost.
        result: Result<Option<Duration>, Error>,
    },
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
    /// The link is gone, and the session lives on without one: a responder's until the initiator comes back, an
    /// initiator's until it [reconnects](super::Connection::reconnect). Also where an attempt at that has failed.
    Detached(ConnectionError),
    /// The session goes on over a new link.
    Resumed {
        /// Messages that are sent again, because the peer has not said that it has them.
        resent: usize,
    },
    /// The session could not go on, and this is what was lost with it. The connection lives on: what is safe to repeat
    /// goes over the fresh session that is to come.
    Lost(Lost),
    /// The peer is about to leave (§8.6): nothing can be opened any more, and what is open should come to its end. What was
    /// to be opened and not sent yet has failed. Again where the peer says something else.
    Draining(Drain),
    /// The connection has ended. The last event: every open call was reported before.
    Closed(ConnectionError),
}
