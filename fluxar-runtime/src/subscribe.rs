//! Subscribing: with a handler, or to a stream of messages.

use std::future::{Future, IntoFuture, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use fluxar_proto::{Code, Error, Overflow, Payload, Qos, SubscribeError, SubscribeOptions, SubscriptionId};
use futures_util::FutureExt;

use crate::call::encode_pairs;
use crate::handler::{HandlerError, panicked};
use crate::message::Message;
use crate::messages::{Link, Messages, Subscription};
use crate::payload::IntoPayload;
use crate::publish::To;
use crate::shared::Shared;
use crate::standing::Standing;
use crate::tasks::{Boxed, Tasks};

/// What both ways to subscribe have to set.
struct Wish<'a> {
    to: To<'a>,
    filter: &'a str,
    options: SubscribeOptions,
    meta: Vec<(String, Result<Payload, Error>)>,
}

impl<'a> Wish<'a> {
    fn new(to: To<'a>, filter: &'a str) -> Self {
        // As it was published: whoever publishes knows best what a message is worth.
        let options = SubscribeOptions::new().with_qos(Qos::ExactlyOnce);
        Self { to, filter, options, meta: Vec::new() }
    }

    /// Subscribes. Dropped before it is ready, it unsubscribes.
    async fn messages(self) -> Result<Messages, Error> {
        let Self { to, filter, mut options, meta } = self;
        options.meta = encode_pairs(meta)?;
        let shared = match to {
            To::Hub(hub) => return hub.subscribe_here(filter, options).map_err(Error::into_outcome),
            To::Peer(shared) => shared,
        };
        // A peer that says that it leaves, and stays, must not keep us busy.
        let mut repeated = false;
        loop {
            let (subscription, standing) = subscribe(shared, filter, &options).await?;
            let messages = Messages::new(Link::Remote { shared: shared.clone(), subscription, standing });
            match messages.link().standing().confirmed().await {
                Ok(()) => return Ok(messages),
                // Whoever comes next takes it (§8.6).
                Err(error)
                    if error.code == Code::DRAINING
                        && error.is_retry_safe()
                        && shared.comes_back()
                        && (shared.moves_on() || !repeated) =>
                {
                    repeated = true;
                }
                Err(error) => return Err(error.into_outcome()),
            }
        }
    }
}

/// Begins a subscription, once there is a session that takes one.
async fn subscribe(
    shared: &Arc<Shared>,
    filter: &str,
    options: &SubscribeOptions,
) -> Result<(SubscriptionId, Arc<Standing>), Error> {
    loop {
        match shared.subscribe(filter, options.clone()) {
            Ok(subscribed) => return Ok(subscribed),
            Err(SubscribeError::Blocked) => shared.attached().await,
            Err(error) => return Err(shared.subscribe_error(&error).into_outcome()),
        }
        .map_err(|error| error.call_error(false).into_outcome())?;
    }
}

/// The setters that both builders have.
macro_rules! setters {
    () => {
        /// The highest mode that messages are delivered in; each comes in the lower one of this and of what it was
        /// published with. Default: [`Qos::ExactlyOnce`], so that it comes as it was published.
        pub fn qos(mut self, qos: Qos) -> Self {
            self.wish.options = self.wish.options.with_qos(qos);
            self
        }

        /// How many messages may be delivered and not answered at once (§12.11); 0 counts as 1. Default: what
        /// [`Limits::max_inflight`](crate::Limits::max_inflight) says, which is also the most.
        pub fn inflight(mut self, inflight: u32) -> Self {
            self.wish.options = self.wish.options.with_inflight(inflight);
            self
        }

        /// Joins a group: of the subscriptions with the same group and filter, one gets each message (§12.15).
        pub fn group(mut self, group: impl Into<String>) -> Self {
            self.wish.options = self.wish.options.with_group(group);
            self
        }

        /// What is held here until it is handled, in messages and in bytes. Default: 1,024 messages, 4 MiB.
        pub fn buffer(mut self, items: usize, bytes: usize) -> Self {
            self.wish.options.queue.items = items;
            self.wish.options.queue.bytes = bytes;
            self
        }

        /// What happens to messages beyond [`buffer`](Self::buffer). What a peer delivers with acknowledgement is never lost
        /// by it: it is not accepted, and comes again. On a subscription of this side's own [`Hub`](crate::Hub), which has no
        /// other queue, it is lost where this says so, and
        /// [`on_undelivered`](crate::HubBuilder::on_undelivered) tells. Default: [`Overflow::Wait`].
        pub fn when_full(mut self, overflow: Overflow) -> Self {
            self.wish.options.queue.overflow = overflow;
            self
        }

        /// Adds metadata that the publisher can read.
        pub fn meta(mut self, key: impl Into<String>, value: &(impl IntoPayload + ?Sized)) -> Self {
            self.wish.meta.push((key.into(), value.to_payload()));
            self
        }
    };
}

/// A subscription that is about to be made, as a stream of messages; `.await` makes it.
///
/// # Cancel safety
///
/// Dropped before it is ready, it unsubscribes.
#[must_use = "a subscription is made when it is awaited"]
pub struct SubscribeMessages<'a> {
    wish: Wish<'a>,
}

impl<'a> SubscribeMessages<'a> {
    pub(crate) fn new(to: To<'a>, filter: &'a str) -> Self {
        Self { wish: Wish::new(to, filter) }
    }

    setters!();
}

impl<'a> IntoFuture for SubscribeMessages<'a> {
    type Output = Result<Messages, Error>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wish.messages())
    }
}

/// A subscription with a handler that is about to be made; `.await` makes it.
///
/// Messages are handled one after the other, in their order; see [`concurrency`](Self::concurrency). One that was
/// published with acknowledgement and was not answered by the handler is accepted where the handler returns `Ok`. `Err`
/// refuses it with the error that a caller would get: it comes again, unless the error makes that pointless
/// ([`Message::nack`]). A handler that panics refuses it with `internal`.
///
/// # Cancel safety
///
/// Dropped before it is ready, it unsubscribes.
#[must_use = "a subscription is made when it is awaited"]
pub struct Subscribe<'a, F> {
    wish: Wish<'a>,
    handler: F,
    concurrency: usize,
    tasks: Tasks,
}

impl<'a, F> Subscribe<'a, F> {
    pub(crate) fn new(to: To<'a>, filter: &'a str, handler: F, tasks: Tasks) -> Self {
        Self { wish: Wish::new(to, filter), handler, concurrency: 1, tasks }
    }

    setters!();

    /// How many messages are handled at once, each in a task of its own: then nothing is said about their order. 0 counts
    /// as 1. Default 1.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }
}

impl<'a, F, Fut> IntoFuture for Subscribe<'a, F>
where
    F: Fn(Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    type Output = Result<Subscription, Error>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { wish, handler, concurrency, tasks } = self;
        Box::pin(async move {
            let messages = wish.messages().await?;
            let subscription = Subscription::new(messages.link().clone());
            let handle =
                Arc::new(move |message| -> Boxed<Result<(), HandlerError>> { Box::pin(handler(message)) });
            tasks.clone().spawn(consume(messages, handle, concurrency, tasks));
            Ok(subscription)
        })
    }
}

/// A handler that hides its type.
type Handler = Arc<dyn Fn(Message) -> Boxed<Result<(), HandlerError>> + Send + Sync>;

/// Handles messages, to the end of their subscription.
async fn consume(mut messages: Messages, handler: Handler, concurrency: usize, tasks: Tasks) {
    let permits = Permits::new(concurrency);
    loop {
        let permit = permits.acquire().await;
        let Some(message) = messages.next().await else { return };
        if concurrency == 1 {
            handle(&handler, message).await;
        } else {
            let handler = handler.clone();
            tasks.spawn(async move {
                handle(&handler, message).await;
                drop(permit);
            });
        }
    }
}

/// Handles one message, whatever the handler does.
async fn handle(handler: &Handler, message: Message) {
    let (ticket, topic) = (message.ticket(), message.topic_text());
    // A handler may panic before its future is made, too; and when it is dropped.
    let made = std::panic::catch_unwind(AssertUnwindSafe(|| handler(message)));
    let result = match made {
        Ok(future) => {
            let mut future = Box::pin(AssertUnwindSafe(future).catch_unwind());
            let result = future.as_mut().await;
            let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(future)));
            dropped.and(result)
        }
        Err(panic) => Err(panic),
    };
    let result = match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.into_error(&topic)),
        Err(panic) => Err(panicked(panic, &topic)),
    };
    if let Some(ticket) = ticket
        && let Err(error) = ticket.settle(result)
    {
        // Answered by the handler itself, or nobody waits for it.
        tracing::trace!(topic = &*topic, %error, "the handler's result answers no message");
    }
}

/// So many may run at once.
#[derive(Clone)]
struct Permits(Arc<Mutex<(usize, Option<Waker>)>>);

/// One that runs.
struct Permit(Permits);

impl Permits {
    fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new((count, None))))
    }

    fn lock(&self) -> MutexGuard<'_, (usize, Option<Waker>)> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Waits for one. Only one task does.
    async fn acquire(&self) -> Permit {
        poll_fn(|cx| {
            let _replaced;
            let mut state = self.lock();
            match state.0 {
                0 => {
                    _replaced = state.1.replace(cx.waker().clone());
                    Poll::Pending
                }
                _ => {
                    state.0 -= 1;
                    Poll::Ready(Permit(self.clone()))
                }
            }
        })
        .await
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.0 += 1;
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}
