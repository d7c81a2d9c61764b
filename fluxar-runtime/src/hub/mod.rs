//! The hub: who gets what is published.

mod groups;
mod held;
mod local;
mod member;
mod port;
mod routing;

use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use fluxar_proto::hub::RetainLimits;
use fluxar_proto::topic::{TopicError, check_filter, is_reserved};
use fluxar_proto::{
    Error, HashKey, MessageId, OutMessage, Payload, Publication, PublishOptions, Qos, QueueLimits,
    SubscribeOptions,
};

use self::held::{Answer, Held, Offered, offered};
pub(crate) use self::local::LocalQueue;
use self::local::{Dropped, Shape};
use self::port::Place;
use self::routing::Routing;
use crate::auth;
use crate::handler::HandlerError;
use crate::keeper::Claims;
use crate::message::Message;
use crate::messages::{Link, Messages};
use crate::payload::{IntoPayload, Raw};
use crate::peer::Peer;
use crate::publish::{Fate, Publish, PublishError, Step, To};
use crate::runtime::Runtime;
use crate::shared::{ForHub, Shared};
use crate::subscribe::{Subscribe, SubscribeMessages};
use crate::tasks::Tasks;

/// How many messages a subscription of this side's takes unanswered, where it does not say.
const INFLIGHT: u32 = 256;

/// Routes what is published to whoever has subscribed: publications of all connected peers and of this side itself, to
/// subscriptions of all connected peers and of this side.
///
/// Every server and every client has one, with [`Server::hub`](crate::Server::hub) and
/// [`Client::hub`](crate::Client::hub); the `hub` of their builders gives several the same, which bridges them. Cheap to
/// clone; all clones mean the same hub.
///
/// It answers a publication with `ack` once it holds the message for every subscription that matches (§12.5), of which
/// there may be none. Subscriptions of peers have queues with [bounds](HubBuilder::queue) and a policy for what is beyond
/// these; those of this side say what they want themselves. A message is encoded once, and its bytes are shared by all
/// who get it.
///
/// It lives as long as a handle of it, its servers and the connections that use it. Then subscriptions of this side end; a
/// handler that holds the hub itself keeps it, and so itself, alive.
///
/// ```no_run
/// # async fn doc(hub: fluxar_runtime::Hub) -> Result<(), Box<dyn std::error::Error>> {
/// use fluxar_runtime::Message;
///
/// hub.subscribe("chat.>", |msg: Message| async move {
///     println!("{}: {}", msg.topic(), msg.payload::<String>()?);
///     Ok(())
/// })
/// .await?;
/// hub.publish("chat.lobby", "Hello").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

/// What all clones of a hub share. Its lock is taken before that of a connection, and never under one.
pub(crate) struct Inner {
    routing: Mutex<Routing>,
    tasks: Tasks,
    attempts: u32,
    on_undelivered: Option<OnUndelivered>,
    undelivered: AtomicU64,
    denied: AtomicU64,
    claims: Claims,
    own: Weak<Self>,
}

/// Called with each message that was not delivered after all.
type OnUndelivered = Box<dyn Fn(Undelivered) + Send + Sync>;

impl Hub {
    /// A hub with the default settings, on a runtime.
    pub fn new(runtime: impl Runtime) -> Self {
        Self::builder(runtime).build()
    }

    /// Begins a hub on a runtime.
    pub fn builder(runtime: impl Runtime) -> HubBuilder {
        HubBuilder {
            tasks: Tasks::new(&runtime),
            queue: QueueLimits::default(),
            retain: RetainLimits::default(),
            attempts: 5,
            on_undelivered: None,
        }
    }

    /// Publishes a message to all who have subscribed here. With acknowledgement it is ready once the hub holds the message
    /// for all of them.
    ///
    /// # Errors
    ///
    /// [`NotSent`](PublishError::NotSent) where the topic, the payload or the metadata is bad, or there is no room for
    /// another last value.
    pub fn publish<'a>(&'a self, topic: &'a str, payload: &(impl IntoPayload + ?Sized)) -> Publish<'a> {
        Publish::new(To::Hub(self), topic, payload.to_payload())
    }

    /// Subscribes this side itself to what is published here, with a handler. A handler that owns a clone of this hub keeps it
    /// alive, and so itself, until the subscription is ended.
    ///
    /// # Errors
    ///
    /// `invalid_argument` where the filter or the group is bad.
    pub fn subscribe<'a, F, Fut>(&'a self, filter: &'a str, handler: F) -> Subscribe<'a, F>
    where
        F: Fn(Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        Subscribe::new(To::Hub(self), filter, handler, self.inner.tasks.clone())
    }

    /// Subscribes this side itself to what is published here, as a stream of messages.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    pub fn messages<'a>(&'a self, filter: &'a str) -> SubscribeMessages<'a> {
        SubscribeMessages::new(To::Hub(self), filter)
    }

    /// How the hub is doing.
    pub fn stats(&self) -> HubStats {
        let routing = self.inner.lock();
        HubStats {
            undelivered: self.inner.undelivered.load(Ordering::Relaxed),
            denied: self.inner.denied.load(Ordering::Relaxed),
            ..routing.stats()
        }
    }

    /// Publishes what a peer has published, and waits until it is held for all who get it.
    pub(crate) async fn publish_for(
        &self,
        shared: &Arc<Shared>,
        publication: &Publication,
    ) -> Result<Fate, PublishError> {
        let outcome = Outcome::new();
        let answer = Answer::Local(outcome.clone());
        let offered = Offered { answer, ..offered(shared, publication) };
        self.inner.change(|routing, effects| routing.publish(vec![offered], effects));
        poll_fn(|cx| outcome.poll(cx)).await
    }

    /// The messages that are being handled, whatever session they came in.
    pub(crate) fn claims(&self) -> &Claims {
        &self.inner.claims
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// Refuses what the peer may not publish or subscribe to, and takes it out of what its driver has left to do.
    pub(crate) fn refuse(&self, shared: &Arc<Shared>, todo: &mut Vec<ForHub>) {
        let dropped = auth::refuse(shared, todo);
        self.inner.denied.fetch_add(dropped, Ordering::Relaxed);
    }

    /// Does what a turn of a connection's driver has left to do.
    pub(crate) fn run(&self, shared: &Arc<Shared>, todo: &mut Vec<ForHub>) {
        if todo.is_empty() {
            return;
        }
        self.inner.change(|routing, effects| routing.run(shared, todo.drain(..), effects));
    }

    /// Publishes, as far as that needs nobody to wait.
    pub(crate) fn begin_publish<'a>(
        &self,
        topic: &str,
        payload: Payload,
        options: PublishOptions,
        waits: bool,
    ) -> Step<'a> {
        let PublishOptions { qos, retain, meta, .. } = options;
        let message = match OutMessage::new(topic, qos, payload, meta) {
            Ok(message) => message,
            Err(error) => {
                let error = Error::invalid_argument(error.to_string()).with_processed(false);
                return Step::Done(Some(Err(PublishError::NotSent(error.into_outcome()))));
            }
        };
        let outcome = Outcome::new();
        let answer = match (qos, waits) {
            (Qos::AtMostOnce, _) => Answer::None,
            (_, true) => Answer::Local(outcome.clone()),
            (_, false) => Answer::AtOnce(outcome.clone()),
        };
        let (unanswered, offered) =
            (matches!(answer, Answer::None), Offered { message, retain, peer: None, answer });
        self.inner.change(|routing, effects| routing.publish(vec![offered], effects));
        match unanswered {
            true => Step::Done(Some(Ok(Fate::Queued))),
            false => Step::Passing(Passing::at(outcome, self.inner.own.clone())),
        }
    }

    pub(crate) fn subscribe_here(&self, filter: &str, options: SubscribeOptions) -> Result<Messages, Error> {
        let bad = |what: &dyn fmt::Display| Error::invalid_argument(what.to_string()).with_processed(false);
        check_filter(filter).map_err(|error| bad(&error))?;
        if is_reserved(filter) {
            return Err(bad(&TopicError::Reserved));
        }
        if options.group.as_ref().is_some_and(|group| group.is_empty() || group.len() > 255) {
            return Err(bad(&"a group is named by 1 to 255 bytes"));
        }
        let shape = Shape {
            limits: options.queue,
            qos: options.qos,
            inflight: options.inflight.unwrap_or(INFLIGHT) as usize,
            attempts: self.inner.attempts,
        };
        let queue = LocalQueue::new(self.inner.own.clone(), self.inner.tasks.clone(), shape);
        let group = options.group.as_deref();
        self.inner.change(|routing, effects| routing.subscribe_local(&queue, filter, group, effects));
        Ok(Messages::new(Link::Local(queue)))
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Routing> {
        self.routing.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Changes what is routed, and follows that up once the lock is released.
    fn change<T>(&self, change: impl FnOnce(&mut Routing, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let mut routing = self.lock();
        let result = change(&mut routing, &mut effects);
        // Under the lock, so that whoever sees the change sees the count.
        self.undelivered.fetch_add(effects.undelivered.len() as u64, Ordering::Relaxed);
        drop(routing);
        self.follow_up(effects);
        result
    }

    fn follow_up(&self, effects: Effects) {
        let Effects { wakers, answers, outcomes, undelivered, .. } = effects;
        // Ahead of the answers: who learns that its message is accepted may ask what has become of it.
        undelivered.into_iter().for_each(|undelivered| self.report(undelivered));
        for group in answers.chunk_by(|(a, ..), (b, ..)| Arc::ptr_eq(a, b)) {
            let [(shared, ..), ..] = group else { continue };
            shared.settle_all(group.iter().map(|(_, message, result)| (*message, result.clone())));
        }
        for (outcome, result) in outcomes {
            outcome.set(result);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A message is not delivered after all.
    fn report(&self, undelivered: Undelivered) {
        let Undelivered { message, attempts, error, .. } = &undelivered;
        tracing::warn!(topic = &**message.topic(), attempts, %error, "a message was not delivered");
        if let Some(hook) = &self.on_undelivered {
            hook(undelivered);
        }
    }

    /// There is room in the queue of a subscription.
    fn room(&self, target: usize) {
        self.change(|routing, effects| routing.room(target, effects));
    }

    /// A subscription of this side's is over.
    fn leave(&self, queue: &Arc<LocalQueue>) {
        self.change(|routing, effects| {
            let left = queue.end(None, &mut effects.wakers, &mut effects.dropped);
            routing.leave_local(queue, left, effects);
        });
    }
}

/// Nobody is left who could publish: subscriptions of this side end.
impl Drop for Inner {
    fn drop(&mut self) {
        let routing = self.routing.get_mut().unwrap_or_else(|error| error.into_inner());
        let mut wakers = Vec::new();
        for queue in routing.local_queues() {
            queue.orphan(&mut wakers);
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// What is to be done once no lock is held.
#[derive(Default)]
struct Effects {
    wakers: Vec<Waker>,
    answers: Vec<(Arc<Shared>, MessageId, Result<(), Error>)>,
    outcomes: Vec<(Arc<Outcome>, Result<Fate, PublishError>)>,
    undelivered: Vec<Undelivered>,
    /// What may hold the last reference to a connection, and so to wakers: it goes once no lock is held.
    held: Vec<Arc<Held>>,
    places: Vec<Place>,
    dropped: Vec<Dropped>,
}

/// What a publication of this side's has come to.
#[derive(Default)]
pub(crate) struct Outcome(Mutex<Told>);

#[derive(Default)]
struct Told {
    result: Option<Result<Fate, PublishError>>,
    waker: Option<Waker>,
}

impl Outcome {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn set(&self, result: Result<Fate, PublishError>) {
        let mut state = self.0.lock().unwrap_or_else(|error| error.into_inner());
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Fate, PublishError>> {
        let _replaced;
        let mut state = self.0.lock().unwrap_or_else(|error| error.into_inner());
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                _replaced = state.waker.replace(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A publication of this side's that waits for what becomes of it.
pub(crate) struct Passing {
    outcome: Arc<Outcome>,
    /// Where it may wait for room, until that is known.
    hub: Option<Weak<Inner>>,
}

impl Passing {
    pub(crate) fn new(outcome: Arc<Outcome>) -> Self {
        Self { outcome, hub: None }
    }

    fn at(outcome: Arc<Outcome>, hub: Weak<Inner>) -> Self {
        Self { outcome, hub: Some(hub) }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fate, PublishError>> {
        let told = self.outcome.poll(cx);
        self.hub.take_if(|_| told.is_ready());
        told
    }
}

/// Whoever gives it up must not fill the hub with what nobody waits for.
impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.as_ref().and_then(Weak::upgrade) {
            hub.change(|routing, effects| routing.forget_outcome(&self.outcome, effects));
        }
    }
}

/// A hub that is about to be made.
#[must_use = "a hub is made when it is built"]
pub struct HubBuilder {
    tasks: Tasks,
    queue: QueueLimits,
    retain: RetainLimits,
    attempts: u32,
    on_undelivered: Option<OnUndelivered>,
}

impl HubBuilder {
    /// The bounds of what is held for each subscription of a peer, and what happens beyond these. Default: 1,024 messages,
    /// 4 MiB, [`Overflow::Wait`](crate::Overflow::Wait).
    ///
    /// Waiting loses nothing, but lets a subscriber that never acknowledges hold up whoever publishes to it with
    /// acknowledgement, until its messages are given up. A hub that is open to strangers is better off with
    /// [`DropOldest`](crate::Overflow::DropOldest) or [`Close`](crate::Overflow::Close).
    pub fn queue(mut self, limits: QueueLimits) -> Self {
        self.queue = limits;
        self
    }

    /// The bounds of the last values that are kept (§12.16), in topics and in bytes. Default: 65,536 topics, 64 MiB.
    pub fn retain(mut self, topics: usize, bytes: usize) -> Self {
        self.retain = RetainLimits { items: topics, bytes };
        self
    }

    /// How often a message is delivered to a subscription of this side's, or again to another member of a group, before it
    /// is given up; at least 1. For those of peers, [`Config::attempts`](crate::Config::attempts) says it. Default 5.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Runs `hook` for each message with acknowledgement that was not delivered after all: refused for good, given up,
    /// dropped from a full queue, or left over when its subscription ended. It runs in the middle of things: it should be
    /// quick, and must not panic.
    pub fn on_undelivered(mut self, hook: impl Fn(Undelivered) + Send + Sync + 'static) -> Self {
        self.on_undelivered = Some(Box::new(hook));
        self
    }

    /// Makes the hub.
    pub fn build(self) -> Hub {
        let Self { tasks, queue, retain, attempts, on_undelivered } = self;
        // Keyed by the system's randomness, as tables of the standard library are.
        let words = RandomState::new();
        let key = HashKey::new(words.hash_one(0), words.hash_one(1));
        let inner = Arc::new_cyclic(|own| Inner {
            routing: Mutex::new(Routing::new(key, retain, queue, attempts)),
            tasks,
            attempts,
            on_undelivered,
            undelivered: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            claims: Claims::default(),
            own: own.clone(),
        });
        Hub { inner }
    }
}

impl fmt::Debug for HubBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// How a hub is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubStats {
    /// Subscriptions now.
    pub subscriptions: usize,
    /// Topics that have a last value now.
    pub retained: usize,
    /// Bytes of these.
    pub retained_bytes: usize,
    /// Messages that wait for room in the queue of a subscription now, counted for each.
    pub waiting: usize,
    /// Messages published.
    pub published: u64,
    /// Messages taken into queues, counted for each.
    pub delivered: u64,
    /// Messages dropped because a queue was full, or the subscriber takes none so large, counted for each.
    pub dropped: u64,
    /// Publications refused, because there was no room for another last value.
    pub refused: u64,
    /// Publications without acknowledgement that were dropped because the peer may not publish there: see
    /// [`authorize`](crate::ServerBuilder::authorize).
    pub denied: u64,
    /// Messages with acknowledgement that were not delivered after all: see [`HubBuilder::on_undelivered`].
    pub undelivered: u64,
}

/// A message with acknowledgement that was not delivered after all.
#[derive(Clone, Debug)]
pub struct Undelivered {
    message: OutMessage,
    subscriber: Option<Peer>,
    attempts: u32,
    error: Error,
}

impl Undelivered {
    fn new(message: &OutMessage, subscriber: Option<Peer>, attempts: u32, error: Error) -> Self {
        Self { message: message.clone(), subscriber, attempts, error }
    }

    /// What it was published on.
    pub fn topic(&self) -> &str {
        self.message.topic()
    }

    /// What it carries.
    pub fn raw(&self) -> Raw {
        self.message.payload().clone().into()
    }

    /// How it was published.
    pub fn qos(&self) -> Qos {
        self.message.qos()
    }

    /// Whose subscription it was for; `None` for one of this side's.
    pub fn subscriber(&self) -> Option<&Peer> {
        self.subscriber.as_ref()
    }

    /// How often it was sent.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Why it was not delivered.
    pub fn error(&self) -> &Error {
        &self.error
    }
}
