//! The other side of a connection.

use std::fmt;
use std::future::poll_fn;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::{Code, ConnectionError, DeliveryRecord, Drain, Error, PeerInfo, Stats};

use crate::auth::Identity;
use crate::call::Call;
use crate::handler::HandlerError;
use crate::message::Message;
use crate::payload::{FromPayload, IntoPayload};
use crate::publish::{Publish, To};
use crate::shared::Shared;
use crate::stream::OpenStream;
use crate::subscribe::{Subscribe, SubscribeMessages};

/// The other side of a connection: who dialled whom makes no difference. Cheap to clone; all clones mean the same
/// connection, and keep nothing open. Two are equal where they mean the same connection.
#[derive(Clone)]
pub struct Peer {
    shared: Arc<Shared>,
}

impl Peer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Calls a method of the peer.
    ///
    /// # Errors
    ///
    /// The outcome is an [`Error`]: of the handler, of the protocol, or of the connection. Where
    /// [`is_retry_safe`](Error::is_retry_safe) says so, the call was certainly not acted upon.
    pub fn call<'a, T: FromPayload>(
        &'a self,
        method: &'a str,
        payload: &(impl IntoPayload + ?Sized),
    ) -> Call<'a, T> {
        Call::new(&self.shared, method, payload.to_payload())
    }

    /// Opens a stream for a method of the peer, whose items are `T`s.
    ///
    /// # Errors
    ///
    /// Where the stream could not be opened. That the peer refuses it shows when the first item is taken.
    pub fn stream<'a, T: FromPayload>(
        &'a self,
        method: &'a str,
        payload: &(impl IntoPayload + ?Sized),
    ) -> OpenStream<'a, T> {
        OpenStream::new(&self.shared, method, payload.to_payload())
    }

    /// Publishes a message to the peer, which handles it, or passes it on to those who have subscribed there.
    ///
    /// # Errors
    ///
    /// Why it was not sent, or, with acknowledgement, not accepted.
    pub fn publish<'a>(&'a self, topic: &'a str, payload: &(impl IntoPayload + ?Sized)) -> Publish<'a> {
        Publish::new(To::Peer(&self.shared), topic, payload.to_payload())
    }

    /// Subscribes to what is published at the peer on topics that match `filter` (`orders.created`, `orders.*`,
    /// `orders.>`), with a handler.
    ///
    /// # Errors
    ///
    /// Where the filter or the group is bad, the peer refuses, or the connection is closed.
    pub fn subscribe<'a, F, Fut>(&'a self, filter: &'a str, handler: F) -> Subscribe<'a, F>
    where
        F: Fn(Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        Subscribe::new(To::Peer(&self.shared), filter, handler, self.shared.tasks().clone())
    }

    /// The same as a stream of messages.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    pub fn messages<'a>(&'a self, filter: &'a str) -> SubscribeMessages<'a> {
        SubscribeMessages::new(To::Peer(&self.shared), filter)
    }

    /// Measures a round trip to the peer's protocol machinery and back (§8.3). Where the peer leaves this ping out and
    /// answers a later one, that one's round trip.
    ///
    /// # Errors
    ///
    /// Where the connection has ended, or eight pings are on the way already (`resource_exhausted`).
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time.
    pub async fn ping(&self) -> Result<Duration, Error> {
        struct Forget<'a>(&'a Shared, fluxar_proto::Id);
        impl Drop for Forget<'_> {
            fn drop(&mut self) {
                self.0.forget_ping(self.1);
            }
        }
        let Some(ping) = self.shared.ping().map_err(Error::into_outcome)? else {
            let error = Error::new(Code::RESOURCE_EXHAUSTED, "too many pings are on the way");
            return Err(error.with_processed(false).into_outcome());
        };
        let _forget = Forget(&self.shared, ping);
        poll_fn(|cx| self.shared.poll_pong(cx, ping)).await
    }

    /// Who the peer says that it is, and what it is ready to receive.
    pub fn info(&self) -> Option<PeerInfo> {
        self.shared.peer_info()
    }

    /// Who the peer is, as this side's [`Authenticator`](crate::Authenticator) has found; `None` where there is none.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.shared.known().identity()
    }

    /// Where the peer is, for people to read: at the other end of the latest link of the connection.
    pub fn remote(&self) -> String {
        self.shared.remote()
    }

    /// Counters of the connection.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The latest deliveries to subscriptions of the peer, in the order in which they were first sent; as many as
    /// [`delivery_journal`](crate::Config::delivery_journal) says, which is none where nothing else is set. For tests of
    /// other implementations.
    pub fn delivery_journal(&self) -> Vec<DeliveryRecord> {
        self.shared.delivery_journal()
    }

    /// Closes the connection: responses that are queued still go out, calls that are open fail.
    pub fn close(&self) {
        self.shared.close(None);
    }

    /// Closes the connection and tells the peer why.
    pub fn close_with(&self, error: Error) {
        self.shared.close(Some(error));
    }

    /// Closes the connection, and waits until the peer knows: until what there was to say is written and both sides
    /// have closed the transport. A peer that does not read holds it up for [`Config::close_timeout`](crate::Config) (5 s
    /// where nothing else is set), one that only leaves the transport open for a second. For programs that end then: what is only
    /// [closed](Self::close) when the runtime goes down leaves the peer with a lost connection.
    ///
    /// Returns why the connection has ended, which may have been before.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the connection is closed all the same.
    pub async fn shut_down(&self) -> ConnectionError {
        self.close();
        self.shared.unlinked().await
    }

    /// Announces that this side is about to leave (§8.6): the peer opens nothing more, and what it opens all the same is refused
    /// in a way that makes it safe to try elsewhere. What is open goes on to its end; then the connection closes, at the deadline
    /// at the latest. [`closed`](Self::closed) says when.
    pub fn drain(&self, drain: Drain) {
        self.shared.drain(drain);
    }

    /// What the peer said when it announced that it is about to leave, if it has: nothing can be opened there any more.
    pub fn draining(&self) -> Option<Drain> {
        self.shared.peer_draining()
    }

    /// Cuts the transport without telling the peer, as a failing network would; responses that are queued still go
    /// out. For tests of what peers do then.
    pub fn hang_up(&self) {
        self.shared.hang_up();
    }

    /// Cuts the transport as a failing network would: a session that may go on over another link does (§8.8, §9), and any
    /// other ends. For tests of what peers do then.
    pub fn drop_link(&self) {
        self.shared.drop_link();
    }

    /// Why the connection has ended, if it has.
    pub fn error(&self) -> Option<ConnectionError> {
        self.shared.error()
    }

    /// Waits until the connection has ended, and says why.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time.
    pub async fn closed(&self) -> ConnectionError {
        self.shared.ended().await
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.shared).hash(state);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("remote", &self.remote()).finish_non_exhaustive()
    }
}
