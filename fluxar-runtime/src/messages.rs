//! Subscriptions: what their handles have in common, and messages as a stream.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use fluxar_proto::{Error, Qos, QueueStats, SubscriptionId};
use futures_util::stream::FusedStream;

use crate::hub::LocalQueue;
use crate::message::Message;
use crate::shared::Shared;
use crate::standing::Standing;
use crate::tasks::Alarm;

/// A subscription, at the other peer or at this side's own hub. Cheap to clone; dropping it ends nothing.
#[derive(Clone)]
pub(crate) enum Link {
    Remote { shared: Arc<Shared>, subscription: SubscriptionId, standing: Arc<Standing> },
    Local(Arc<LocalQueue>),
}

impl Link {
    pub(crate) fn standing(&self) -> &Standing {
        match self {
            Self::Remote { standing, .. } => standing,
            Self::Local(queue) => queue.standing(),
        }
    }

    pub(crate) fn unsubscribe(&self) {
        match self {
            Self::Remote { shared, subscription, .. } => shared.unsubscribe(*subscription),
            Self::Local(queue) => queue.unsubscribe(),
        }
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let now = match self {
            Self::Remote { shared, subscription, .. } => shared.subscription_stats(*subscription),
            Self::Local(queue) => Some(queue.stats()),
        };
        self.standing().last().or(now).unwrap_or_default()
    }

    fn poll_next(&self, cx: &mut Context<'_>, alarm: &mut Option<Alarm>) -> Poll<Option<Message>> {
        match self {
            Self::Remote { shared, subscription, .. } => {
                let delivery = ready!(shared.poll_delivery(cx, *subscription));
                Poll::Ready(delivery.map(|delivery| Message::remote(shared, delivery)))
            }
            Self::Local(queue) => queue.poll_next(cx, alarm),
        }
    }
}

/// The messages of a subscription: a [`futures` stream](futures_util::Stream) of [`Message`]s.
///
/// What comes is held only within [`buffer`](crate::SubscribeMessages::buffer).
///
/// # Dropping
///
/// Dropped, it unsubscribes. Messages that were taken from it can no longer be answered then: what they were published
/// with acknowledgement for may be delivered to others (§12.4).
pub struct Messages {
    link: Link,
    /// When a message of a local queue is to be tried again.
    alarm: Option<Alarm>,
    over: bool,
}

impl Messages {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, alarm: None, over: false }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The next message; `None` once the subscription is over, and what it held was taken.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no message is lost.
    pub async fn next(&mut self) -> Option<Message> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        if self.over {
            return Poll::Ready(None);
        }
        let message = ready!(self.link.poll_next(cx, &mut self.alarm));
        self.over = message.is_none();
        Poll::Ready(message)
    }

    /// The highest mode that the publisher has granted.
    pub fn qos(&self) -> Qos {
        self.link.standing().granted().unwrap_or_default()
    }

    /// How its queue is doing; once the subscription is over, how it did.
    pub fn stats(&self) -> QueueStats {
        self.link.stats()
    }

    /// Why the subscription is over, where it is: that the publisher has ended it, that its queue was full with
    /// [`Overflow::Close`](crate::Overflow::Close), or that the connection has ended.
    pub fn error(&self) -> Option<Error> {
        self.link.standing().error()
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.link.unsubscribe();
    }
}

impl futures_util::Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll_message(cx)
    }
}

impl FusedStream for Messages {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("over", &self.over).finish_non_exhaustive()
    }
}

/// A subscription whose messages go to a handler. It lasts until [`unsubscribe`](Self::unsubscribe), whether or not this
/// handle is kept; or until the publisher or the connection ends it. Cheap to clone.
#[derive(Clone)]
pub struct Subscription {
    link: Link,
}

impl Subscription {
    pub(crate) fn new(link: Link) -> Self {
        Self { link }
    }

    /// Ends the subscription. No handler is started any more; those that run run on, but their messages can no longer be
    /// answered.
    ///
    /// # Cancel safety
    ///
    /// Done when it is first polled; it never waits.
    pub async fn unsubscribe(&self) {
        self.link.unsubscribe();
    }

    /// The highest mode that the publisher has granted.
    pub fn qos(&self) -> Qos {
        self.link.standing().granted().unwrap_or_default()
    }

    /// How its queue is doing; once the subscription is over, how it did.
    pub fn stats(&self) -> QueueStats {
        self.link.stats()
    }

    /// Waits until the subscription is over. `None` where this side has ended it; otherwise why: the publisher has, its
    /// queue was full with [`Overflow::Close`](crate::Overflow::Close), or the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time.
    pub async fn ended(&self) -> Option<Error> {
        self.link.standing().ended().await
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("qos", &self.qos()).finish_non_exhaustive()
    }
}
