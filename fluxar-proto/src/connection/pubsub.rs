//! What the application may do with subscriptions, publications and deliveries (§12).

use super::Connection;
use crate::message::{Error, Id, Payload};
use crate::pattern::{
    Context, Delivered, Delivery, DeliveryRecord, Fate, Gone, MessageId, OutMessage, Publication,
    PublicationId, PublishError, PublishOptions, Qos, QueueLimits, QueueStats, SubscribeError,
    SubscribeOptions, SubscribeRequest, SubscriberId, SubscriptionId,
};
use crate::session::ConnectionError;
use crate::time::Instant;

impl Connection {
    /// Publishes a message to the peer (§12.5). With acknowledgement it has a [`PublicationId`], for
    /// [`take_fate`](Self::take_fate); sent at most once it has none, and nobody learns what became of it.
    ///
    /// # Errors
    ///
    /// Nothing was sent. After [`Blocked`](PublishError::Blocked), try again when
    /// [`PubSubEvent::Capacity`](crate::PubSubEvent::Capacity) says so.
    pub fn publish(
        &mut self,
        now: Instant,
        topic: &str,
        payload: Payload,
        options: PublishOptions,
    ) -> Result<Option<PublicationId>, PublishError> {
        if self.error.is_some() {
            return Err(PublishError::Closed);
        }
        if self.is_left_for_good() {
            return Err(PublishError::Draining);
        }
        let Self { pubsub, ids, open, budget, refusals, .. } = self;
        pubsub.publish(topic, payload, options, &mut Context { now, ids, open, budget, refusals })
    }

    /// Whether a message could be published now: to be asked by whoever does not want to hand over a payload in vain.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish); [`Blocked`](PublishError::Blocked) announces room too.
    pub fn ready_to_publish(&mut self) -> Result<(), PublishError> {
        if self.error.is_some() {
            Err(PublishError::Closed)
        } else if self.is_left_for_good() {
            Err(PublishError::Draining)
        } else {
            self.pubsub.ready_to_publish()
        }
    }

    /// What became of a publication, once that is known. Taking it ends what there is to know.
    ///
    /// # Errors
    ///
    /// [`Gone`] where it was taken before, or forgotten.
    pub fn take_fate(&mut self, publication: PublicationId) -> Result<Option<Fate>, Gone> {
        self.pubsub.take_fate(publication)
    }

    /// The fate of a publication is no longer wanted. The message goes on, with repetitions where they are needed.
    ///
    /// # Errors
    ///
    /// [`Gone`] where its fate was taken before, or forgotten.
    pub fn forget_publication(&mut self, publication: PublicationId) -> Result<(), Gone> {
        self.pubsub.forget_publication(publication)
    }

    /// Releases a publication of ours that is [`durable`](PublishOptions::durable) and was acknowledged (§12.9).
    ///
    /// # Errors
    ///
    /// [`Gone`] where there is none that waits for that.
    pub fn release_publication(&mut self, id: Id) -> Result<(), Gone> {
        self.pubsub.release_publication(id, &self.open)
    }

    /// The oldest message that the peer has published and that was not taken yet.
    pub fn poll_publication(&mut self) -> Option<Publication> {
        self.pubsub.poll_publication()
    }

    /// As [`poll_publication`](Self::poll_publication), but only what came before a subscription: for a hub, which handles
    /// both in the order in which they came (§2.4).
    pub fn poll_publication_before(&mut self, request: &SubscribeRequest) -> Option<Publication> {
        self.pubsub.poll_publication_before(request)
    }

    /// Takes responsibility for a message that came (§12.8). For one that is sent at most once it does nothing.
    ///
    /// # Errors
    ///
    /// [`Gone`] where nobody waits for it: it was settled before, its subscription is over, or the connection.
    pub fn ack(&mut self, message: MessageId) -> Result<(), Gone> {
        self.check_answerable(message)?;
        self.pubsub.ack(message)
    }

    /// Does not accept a message that came: its sender sends it again, not before `retry_after_ms` of `error`, unless the
    /// code makes that pointless (§16.4). For one that is sent at most once it does nothing.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn nack(&mut self, message: MessageId, error: Error) -> Result<(), Gone> {
        self.check_answerable(message)?;
        self.pubsub.nack(message, error)
    }

    /// Behind the end nothing is answered any more; what was before may still be sent (§8.7).
    fn check_answerable(&self, message: MessageId) -> Result<(), Gone> {
        if self.error.is_some() && message.wants_ack() { Err(Gone) } else { Ok(()) }
    }

    /// Subscribes to what the peer delivers for `filter` (§12.3).
    /// [`PubSubEvent::Confirmed`](crate::PubSubEvent::Confirmed) or [`Ended`](crate::PubSubEvent::Ended) says what came of it.
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    pub fn subscribe(
        &mut self,
        now: Instant,
        filter: &str,
        options: SubscribeOptions,
    ) -> Result<SubscriptionId, SubscribeError> {
        if self.error.is_some() {
            return Err(SubscribeError::Closed);
        }
        if self.is_left_for_good() {
            return Err(SubscribeError::Draining);
        }
        let Self { pubsub, ids, open, budget, refusals, .. } = self;
        pubsub.subscribe(filter, options, &mut Context { now, ids, open, budget, refusals })
    }

    /// Ends a subscription of ours and drops what it holds (§12.4). What was settled before is still told. Also to be called for
    /// one that has [`Ended`](crate::PubSubEvent::Ended), unless it was polled until it was gone: only that frees its slot.
    ///
    /// # Errors
    ///
    /// [`Gone`] where there is no such subscription any more.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId) -> Result<(), Gone> {
        self.pubsub.unsubscribe(subscription, &mut self.open)
    }

    /// The oldest message that came on a subscription of ours and was not taken yet.
    ///
    /// # Errors
    ///
    /// [`Gone`] where there is none and none will come; then the subscription is forgotten.
    pub fn poll_delivery(&mut self, subscription: SubscriptionId) -> Result<Option<Delivery>, Gone> {
        self.pubsub.poll_delivery(subscription)
    }

    /// How the queue of a subscription of ours is doing.
    ///
    /// # Errors
    ///
    /// [`Gone`] where there is no such subscription any more.
    pub fn subscription_stats(&self, subscription: SubscriptionId) -> Result<QueueStats, Gone> {
        self.pubsub.subscription_stats(subscription)
    }

    /// Confirms a subscription of the peer's (§12.3): what is delivered from now on is sent with `qos` at most, and no more
    /// than it asked for. `queue` bounds what is held for it: both what waits and what is not acknowledged.
    ///
    /// # Errors
    ///
    /// [`Gone`] where it is over, or was confirmed or refused before.
    pub fn confirm(&mut self, subscriber: SubscriberId, qos: Qos, queue: QueueLimits) -> Result<(), Gone> {
        self.pubsub.confirm(subscriber, qos, queue)
    }

    /// Refuses a subscription of the peer's with `error` and `processed: false`. It counts as a rejected opening (§10.7).
    /// Does nothing where it is over, or was confirmed before.
    ///
    /// # Errors
    ///
    /// The peer has caused more of those than are borne, or the connection was over before.
    pub fn refuse_subscription(
        &mut self,
        now: Instant,
        subscriber: SubscriberId,
        error: Error,
    ) -> Result<(), ConnectionError> {
        if let Some(over) = &self.error {
            return Err(over.clone());
        }
        let Self { pubsub, ids, open, budget, refusals, .. } = self;
        pubsub
            .refuse_subscription(subscriber, error, &mut Context { now, ids, open, budget, refusals })
            .map_err(|flood| self.fail(now, flood))
    }

    /// Ends a subscription of the peer's, and says why (§12.4). What is held for it is dropped.
    ///
    /// # Errors
    ///
    /// [`Gone`] where it is over.
    pub fn end_subscription(&mut self, subscriber: SubscriberId, error: Option<Error>) -> Result<(), Gone> {
        self.pubsub.end_subscription(subscriber, error, &mut self.open)
    }

    /// Delivers a message on a subscription of the peer's that was confirmed (§12.6). It costs no more than a place in a
    /// queue; the bytes are shared.
    ///
    /// # Errors
    ///
    /// [`Gone`] where the subscription is over, or was not confirmed.
    pub fn deliver(
        &mut self,
        _now: Instant,
        subscriber: SubscriberId,
        message: &OutMessage,
    ) -> Result<Delivered, Gone> {
        self.pubsub.deliver(subscriber, message, &mut self.open)
    }

    /// The latest deliveries to the peer, in the order in which they were first sent; as many as
    /// [`delivery_journal`](crate::Config::delivery_journal) says. For tests of other implementations (§21).
    pub fn delivery_journal(&self) -> impl DoubleEndedIterator<Item = &DeliveryRecord> {
        self.pubsub.delivery_journal()
    }

    /// How the queue of a subscription of the peer's is doing.
    ///
    /// # Errors
    ///
    /// [`Gone`] where it is over.
    pub fn subscriber_stats(&self, subscriber: SubscriberId) -> Result<QueueStats, Gone> {
        self.pubsub.subscriber_stats(subscriber)
    }
}
