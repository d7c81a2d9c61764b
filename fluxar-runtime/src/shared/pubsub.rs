//! Publications and subscriptions, in what handles and driver share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use fluxar_proto::{
    Code, Delivery, Error, Fate, Gone, Id, MessageId, OutMessage, Payload, PubSubEvent, Publication,
    PublicationId, PublishError, PublishOptions, QueueStats, SubscribeError, SubscribeOptions,
    SubscribeRequest, SubscriberId, SubscriptionId,
};

use super::{Chores, Shared, State, Table, register};
use crate::standing::Standing;

/// Bytes of publications of one peer that wait for room in the queues of subscribers; beyond it, no more of them are
/// taken from the core, which refuses what it cannot hold (§12.7).
const STALLED: usize = 4 << 20;

/// Somebody waits for the fate of a publication.
pub(super) struct Awaiting {
    publication: PublicationId,
    waker: Option<Waker>,
}

/// A subscription of ours.
pub(super) struct Subscribed {
    subscription: SubscriptionId,
    consumer: Option<Waker>,
    standing: Arc<Standing>,
}

/// All of it for one connection.
pub(crate) struct PubSubState {
    awaiting: Table<Awaiting>,
    subscribed: Table<Subscribed>,
    /// There may be publications of the peer in the core.
    has_publications: bool,
    /// Bytes of its publications that wait for room.
    stalled: Arc<AtomicUsize>,
    /// There is a durable store.
    pub(super) is_kept: bool,
}

/// What has happened that is the hub's to handle, in order.
#[derive(Debug)]
pub(crate) enum ForHub {
    Publication(Publication),
    Subscribe(SubscribeRequest),
    Unsubscribed(SubscriberId),
    Room(SubscriberId),
    Undelivered {
        subscriber: SubscriberId,
        message: OutMessage,
        attempts: u32,
        error: Error,
        ended: bool,
    },
    /// For durable stores: a publication of ours is forgotten by its receiver.
    Completed(Id),
    /// For durable stores: a publication of the peer's will not come again.
    Released(Id),
    /// The session is lost; the connection goes on with a fresh one.
    Lost,
    /// The connection has ended.
    Closed,
}

impl Shared {
    /// What became of a publication.
    pub(crate) fn poll_fate(&self, cx: &mut Context<'_>, publication: PublicationId) -> Poll<Fate> {
        let mut state = self.lock();
        match state.connection.take_fate(publication) {
            Ok(Some(fate)) => {
                let _awaiting = state.pubsub.awaiting.remove(publication.slot());
                // Whoever waits for room may go on.
                let driver = state.take_driver();
                drop(state);
                driver.into_iter().for_each(Waker::wake);
                Poll::Ready(fate)
            }
            Ok(None) => {
                state.await_fate(publication, cx);
                Poll::Pending
            }
            // Taken before: the future was polled after it was ready.
            Err(Gone) => Poll::Pending,
        }
    }

    /// Nobody waits for the fate of a publication any more.
    pub(crate) fn forget_publication(&self, publication: PublicationId) {
        let _awaiting = self.operate(|state| {
            // `Gone` where its fate was taken.
            state.connection.forget_publication(publication).ok();
            state.pubsub.awaiting(publication)?;
            state.pubsub.awaiting.remove(publication.slot())
        });
    }

    /// What the application is told whose message was not published.
    pub(crate) fn publish_error(&self, error: PublishError) -> Error {
        self.lock().publish_error(error)
    }

    /// Begins a subscription. `Blocked` before the handshake is done.
    pub(crate) fn subscribe(
        &self,
        filter: &str,
        options: SubscribeOptions,
    ) -> Result<(SubscriptionId, Arc<Standing>), SubscribeError> {
        let now = self.clock().now();
        self.operate(|state| {
            let subscription = state.connection.subscribe(now, filter, options)?;
            let standing = Standing::new();
            let entry = Subscribed { subscription, consumer: None, standing: standing.clone() };
            let before = state.pubsub.subscribed.put(subscription.slot(), entry);
            state.discard(before.and_then(|before| before.consumer));
            Ok((subscription, standing))
        })
    }

    /// What the application is told whose subscription could not be made.
    pub(crate) fn subscribe_error(&self, error: &SubscribeError) -> Error {
        let code = match error {
            SubscribeError::Closed => return self.lock().closed_error(),
            SubscribeError::TooMany { .. } => Code::RESOURCE_EXHAUSTED,
            SubscribeError::Draining => Code::DRAINING,
            SubscribeError::TooLarge { .. } => Code::MESSAGE_TOO_LARGE,
            SubscribeError::NotNegotiated => Code::UNIMPLEMENTED,
            _ => Code::INVALID_ARGUMENT,
        };
        Error::new(code, error.to_string()).with_processed(false)
    }

    /// The next message of a subscription of ours; `None` once there will be none.
    pub(crate) fn poll_delivery(
        &self,
        cx: &mut Context<'_>,
        subscription: SubscriptionId,
    ) -> Poll<Option<Delivery>> {
        let mut state = self.lock();
        match state.connection.poll_delivery(subscription) {
            Ok(Some(delivery)) => Poll::Ready(Some(delivery)),
            Err(Gone) => Poll::Ready(None),
            Ok(None) => {
                let Some(subscribed) = state.pubsub.subscribed(subscription) else {
                    return Poll::Ready(None);
                };
                let replaced = register(&mut subscribed.consumer, cx);
                state.discard(replaced);
                Poll::Pending
            }
        }
    }

    /// Ends a subscription of ours.
    pub(crate) fn unsubscribe(&self, subscription: SubscriptionId) {
        let mut wakers = Vec::new();
        self.operate(|state| {
            let last = state.connection.subscription_stats(subscription).unwrap_or_default();
            state.connection.unsubscribe(subscription).ok();
            if state.pubsub.subscribed(subscription).is_some()
                && let Some(subscribed) = state.pubsub.subscribed.remove(subscription.slot())
            {
                subscribed.standing.end(None, last, &mut wakers);
                wakers.extend(subscribed.consumer);
            }
        });
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How the queue of a subscription is doing.
    pub(crate) fn subscription_stats(&self, subscription: SubscriptionId) -> Option<QueueStats> {
        self.lock().connection.subscription_stats(subscription).ok()
    }

    /// Answers a message that came. Whether somebody waited for it.
    pub(crate) fn settle(&self, message: MessageId, result: Result<(), Error>) -> Result<(), Gone> {
        self.operate(|state| match result {
            Ok(()) => state.connection.ack(message),
            Err(error) => state.connection.nack(message, error),
        })
    }

    /// Refuses a subscription of the peer's.
    pub(crate) fn refuse_subscription(&self, subscriber: SubscriberId, error: Error) {
        let now = self.clock().now();
        // What it fails with ends the connection, which will say so.
        self.operate(|state| state.connection.refuse_subscription(now, subscriber, error)).ok();
    }

    /// Answers several publications.
    pub(crate) fn settle_all(&self, answers: impl Iterator<Item = (MessageId, Result<(), Error>)>) {
        self.operate(|state| {
            for (message, result) in answers {
                // `Gone` where the connection has ended.
                match result {
                    Ok(()) => state.connection.ack(message).ok(),
                    Err(error) => state.connection.nack(message, error).ok(),
                };
            }
        });
    }
}

impl PubSubState {
    pub(super) fn new(stalled: Arc<AtomicUsize>) -> Self {
        Self {
            awaiting: Table::default(),
            subscribed: Table::default(),
            has_publications: false,
            stalled,
            is_kept: false,
        }
    }

    /// Whether so many publications of the peer wait for room that no more are taken.
    fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) > STALLED
    }

    fn awaiting(&mut self, publication: PublicationId) -> Option<&mut Awaiting> {
        self.awaiting.get_mut(publication.slot()).filter(|awaiting| awaiting.publication == publication)
    }

    fn subscribed(&mut self, subscription: SubscriptionId) -> Option<&mut Subscribed> {
        self.subscribed
            .get_mut(subscription.slot())
            .filter(|subscribed| subscribed.subscription == subscription)
    }
}

impl State {
    pub(super) fn handle_pubsub_event(&mut self, event: PubSubEvent, chores: &mut Chores) {
        match event {
            PubSubEvent::Subscribe(request) => self.handle_subscribe(request, chores),
            PubSubEvent::Unsubscribed(subscriber) => chores.for_hub.push(ForHub::Unsubscribed(subscriber)),
            PubSubEvent::Room(subscriber) => chores.for_hub.push(ForHub::Room(subscriber)),
            PubSubEvent::Publication => self.pubsub.has_publications = true,
            PubSubEvent::Undelivered { subscriber, message, attempts, error, ended } => {
                let undelivered = ForHub::Undelivered { subscriber, message, attempts, error, ended };
                chores.for_hub.push(undelivered);
            }
            PubSubEvent::Confirmed(subscription, granted) => {
                if let Some(subscribed) = self.pubsub.subscribed(subscription) {
                    subscribed.standing.confirm(granted, &mut chores.wakers);
                }
            }
            PubSubEvent::Ended(subscription, error) => self.end_subscription(subscription, error, chores),
            PubSubEvent::Delivered(subscription) => {
                let subscribed = self.pubsub.subscribed(subscription);
                chores.wakers.extend(subscribed.and_then(|subscribed| subscribed.consumer.take()));
            }
            PubSubEvent::Fate(publication) => {
                let awaiting = self.pubsub.awaiting(publication);
                chores.wakers.extend(awaiting.and_then(|awaiting| awaiting.waker.take()));
            }
            PubSubEvent::Completed(id) if self.pubsub.is_kept => chores.for_hub.push(ForHub::Completed(id)),
            PubSubEvent::Released(id) if self.pubsub.is_kept => chores.for_hub.push(ForHub::Released(id)),
            PubSubEvent::Capacity => self.queue.serve_publications(&mut chores.wakers),
            _ => {}
        }
    }

    /// Takes what the peer has published from the core, unless too much of it waits already.
    pub(super) fn take_publications(&mut self, chores: &mut Chores) {
        while self.pubsub.has_publications && !self.pubsub.is_stalled() {
            match self.connection.poll_publication() {
                Some(publication) => chores.for_hub.push(ForHub::Publication(publication)),
                None => self.pubsub.has_publications = false,
            }
        }
    }

    /// A peer subscribes, to what is published from now on: what it has published itself before goes first (§2.4), unless
    /// that has to wait.
    fn handle_subscribe(&mut self, request: SubscribeRequest, chores: &mut Chores) {
        while !self.pubsub.is_stalled()
            && let Some(publication) = self.connection.poll_publication_before(&request)
        {
            chores.for_hub.push(ForHub::Publication(publication));
        }
        chores.for_hub.push(ForHub::Subscribe(request));
    }

    /// A subscription of ours is over; what it holds can still be taken.
    fn end_subscription(&mut self, subscription: SubscriptionId, error: Option<Error>, chores: &mut Chores) {
        let last = self.connection.subscription_stats(subscription).unwrap_or_default();
        if let Some(subscribed) = self.pubsub.subscribed(subscription) {
            let error = error.unwrap_or_else(|| Error::cancelled("the publisher has ended the subscription"));
            subscribed.standing.end(Some(error), last, &mut chores.wakers);
            chores.wakers.extend(subscribed.consumer.take());
        }
    }

    /// Publishes a message; where it will have a fate, the task is woken when it has.
    pub(crate) fn publish(
        &mut self,
        now: fluxar_proto::Instant,
        topic: &str,
        payload: Payload,
        options: PublishOptions,
        cx: &mut Context<'_>,
    ) -> Result<Option<PublicationId>, PublishError> {
        let publication = self.connection.publish(now, topic, payload, options)?;
        if let Some(publication) = publication {
            self.await_fate(publication, cx);
        }
        Ok(publication)
    }

    fn await_fate(&mut self, publication: PublicationId, cx: &mut Context<'_>) {
        let replaced = match self.pubsub.awaiting(publication) {
            Some(awaiting) => register(&mut awaiting.waker, cx),
            None => {
                let awaiting = Awaiting { publication, waker: Some(cx.waker().clone()) };
                self.pubsub.awaiting.put(publication.slot(), awaiting).and_then(|before| before.waker)
            }
        };
        self.discard(replaced);
    }

    pub(crate) fn publish_error(&self, error: PublishError) -> Error {
        let code = match error {
            PublishError::Closed => return self.closed_error(),
            PublishError::Draining => Code::DRAINING,
            PublishError::TooLarge { .. } => Code::MESSAGE_TOO_LARGE,
            PublishError::NoInflight => Code::RESOURCE_EXHAUSTED,
            PublishError::NotNegotiated => Code::UNIMPLEMENTED,
            PublishError::Resumed => Code::ALREADY_EXISTS,
            _ => Code::INVALID_ARGUMENT,
        };
        Error::new(code, error.to_string()).with_processed(false)
    }
}
