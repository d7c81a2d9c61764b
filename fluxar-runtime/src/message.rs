//! A message, as its subscriber sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fluxar_proto::message::Meta;
use fluxar_proto::{Code, Delivery, Error, MessageId, Payload, Qos, Text};

use crate::auth::Identity;
use crate::handler::HandlerError;
use crate::hub::LocalQueue;
use crate::payload::{FromPayload, Raw};
use crate::peer::Peer;
use crate::shared::Shared;

/// A message that came on a subscription, whether from the other peer or from this side's own [`Hub`](crate::Hub).
///
/// One that was published with acknowledgement ([`Qos::AtLeastOnce`], [`Qos::ExactlyOnce`]) is answered once: with
/// [`ack`](Self::ack) or [`nack`](Self::nack), or by what the handler returns. Dropped without an answer it is not
/// accepted, as with a `nack` that says `unavailable`: its sender tries again soon, and need not wait for the timeout of
/// acknowledgements first.
pub struct Message {
    topic: Text,
    payload: Payload,
    meta: Bytes,
    qos: Qos,
    attempt: u32,
    dup: bool,
    retained: bool,
    seq: Option<u64>,
    peer: Option<Peer>,
    /// Where somebody waits for an answer.
    ticket: Option<Arc<Ticket>>,
}

/// What a local queue says of a message.
pub(crate) struct Local {
    pub(crate) topic: Text,
    pub(crate) payload: Payload,
    pub(crate) meta: Bytes,
    pub(crate) qos: Qos,
    pub(crate) attempt: u32,
    pub(crate) retained: bool,
    pub(crate) seq: Option<u64>,
    pub(crate) peer: Option<Peer>,
    pub(crate) id: u64,
}

impl Message {
    pub(crate) fn remote(shared: &Arc<Shared>, delivery: Delivery) -> Self {
        let source = || Source::Remote { shared: shared.clone(), message: delivery.id };
        let ticket = delivery.id.wants_ack().then(|| Ticket::new(source()));
        Self {
            ticket,
            topic: delivery.topic,
            payload: delivery.payload,
            meta: delivery.meta,
            qos: delivery.qos,
            attempt: delivery.attempt,
            dup: delivery.dup,
            retained: delivery.retained,
            seq: delivery.seq,
            peer: Some(Peer::new(shared.clone())),
        }
    }

    pub(crate) fn local(queue: &Arc<LocalQueue>, local: Local) -> Self {
        let Local { topic, payload, meta, qos, attempt, retained, seq, peer, id } = local;
        let source = || Source::Local { queue: queue.clone(), id };
        let ticket = (qos > Qos::AtMostOnce).then(|| Ticket::new(source()));
        Self { topic, payload, meta, qos, attempt, dup: attempt > 1, retained, seq, peer, ticket }
    }

    pub(crate) fn ticket(&self) -> Option<Arc<Ticket>> {
        self.ticket.clone()
    }

    pub(crate) fn topic_text(&self) -> Text {
        self.topic.clone()
    }

    /// What it was published on.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What it carries.
    ///
    /// # Errors
    ///
    /// `invalid_argument` where it is not a `T`; handed on with `?` in a handler, that is the `nack`, and the message does
    /// not come again.
    pub fn payload<T: FromPayload>(&self) -> Result<T, Error> {
        T::from_payload(&self.payload).map_err(|error| error.with_processed(false))
    }

    /// What it carries, as it was published.
    pub fn raw(&self) -> Raw {
        self.payload.clone().into()
    }

    /// What the publisher says about it, as `traceparent`.
    pub fn meta(&self) -> Meta<'_> {
        // Checked when it came.
        Meta::decode(&self.meta).unwrap_or(Meta::EMPTY)
    }

    /// How it was delivered: the lower one of what it was published with and what was subscribed with.
    pub fn qos(&self) -> Qos {
        self.qos
    }

    /// Which attempt to deliver it this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether it may have come before. With [`Qos::ExactlyOnce`] it was not accepted then.
    pub fn is_duplicate(&self) -> bool {
        self.dup
    }

    /// Whether it is the last value of its topic, from before the subscription (§12.16).
    pub fn is_retained(&self) -> bool {
        self.retained
    }

    /// Its number on the subscription, from 1: a gap shows how many were dropped before it (§12.6). `None` for one that
    /// comes again.
    pub fn seq(&self) -> Option<u64> {
        self.seq
    }

    /// The peer that it came from: that of the subscription; on a subscription of this side's own hub the one that has
    /// published it, and `None` where this side has itself.
    pub fn peer(&self) -> Option<Peer> {
        self.peer.clone()
    }

    /// Who that peer is, as [`Peer::identity`].
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.peer.as_ref()?.identity()
    }

    /// Accepts the message: its sender need not send it again. Does nothing for one that is delivered at most once.
    ///
    /// # Errors
    ///
    /// `failed_precondition` where it was answered before, `cancelled` where nobody waits for the answer any more: its
    /// subscription or the connection has ended, and it may come again on another.
    ///
    /// # Cancel safety
    ///
    /// Done when it is first polled.
    pub async fn ack(&self) -> Result<(), HandlerError> {
        self.settle(Ok(()))
    }

    /// Does not accept the message: it comes again, not before the error's `retry_after_ms`, where it says so. An error
    /// that makes that pointless, as `invalid_argument` or `not_found`, ends the attempts (§12.8), and so does the last of
    /// them. Does nothing for one that is delivered at most once.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    ///
    /// # Cancel safety
    ///
    /// Done when it is first polled.
    pub async fn nack(&self, error: Error) -> Result<(), HandlerError> {
        self.settle(Err(error))
    }

    fn settle(&self, result: Result<(), Error>) -> Result<(), HandlerError> {
        match &self.ticket {
            Some(ticket) => Ok(ticket.settle(result)?),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("qos", &self.qos)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// The right to answer a message, once. Whoever drops the last reference to it without having answered has not accepted
/// the message.
pub(crate) struct Ticket {
    source: Source,
    settled: AtomicBool,
}

enum Source {
    Remote { shared: Arc<Shared>, message: MessageId },
    Local { queue: Arc<LocalQueue>, id: u64 },
}

impl Ticket {
    fn new(source: Source) -> Arc<Self> {
        Arc::new(Self { source, settled: AtomicBool::new(false) })
    }

    /// Answers the message.
    pub(crate) fn settle(&self, result: Result<(), Error>) -> Result<(), Error> {
        if self.settled.swap(true, Ordering::AcqRel) {
            let error = Error::new(Code::FAILED_PRECONDITION, "the message was answered before");
            return Err(error.into_outcome());
        }
        let settled = match &self.source {
            Source::Remote { shared, message } => shared.settle(*message, result),
            Source::Local { queue, id } => queue.settle(*id, result),
        };
        settled.map_err(|_| Error::cancelled("nobody waits for the answer any more").into_outcome())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !*self.settled.get_mut() {
            // Where that fails, the subscription is over.
            self.settle(Err(Error::unavailable("the message was dropped without an answer"))).ok();
        }
    }
}
