//! Who keeps the messages of one connection in a durable store (§12.17).
//!
//! What has to be there before something is sent is awaited before that: a message before it is published, that it was
//! acknowledged before it is released, that one of the peer's was accepted before the `ack`.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use chacha20::ChaCha12Rng;
use fluxar_proto::message::IdGenerator;
use fluxar_proto::{Error, Id, Payload, Publication, PublicationId, PublishOptions, Qos, Resumed};

use crate::hub::Hub;
use crate::line::Line;
use crate::publish::{Fate, PublishError, fate_of, poll_unsent};
use crate::queue::Purpose;
use crate::shared::{ForHub, Shared, register};
use crate::store::{Store, StoreError, Stored};
use crate::turn::Turn;

/// What a message that is only to be released is published on: it is not sent.
const NO_TOPIC: &str = "released";

pub(crate) struct Keeper {
    store: Arc<dyn Store>,
    /// Ids that are unique beyond the session (§5.6).
    ids: Mutex<(IdGenerator, ChaCha12Rng)>,
    state: Mutex<State>,
    order: Arc<Mutex<Order>>,
}

#[derive(Default)]
struct State {
    /// What the worker has to do, in order.
    work: VecDeque<Work>,
    worker: Option<Waker>,
    /// The connection has ended.
    closed: bool,
    /// What was left of earlier sessions goes on.
    resumed: bool,
    waiting: Line,
}

enum Work {
    Publication(Publication),
    Completed(Id),
    Released(Id),
}

impl Keeper {
    pub(crate) fn new(store: Arc<dyn Store>) -> Result<Arc<Self>, getrandom::Error> {
        let ids = Mutex::new((IdGenerator::new(), crate::random::generator()?));
        Ok(Arc::new(Self { store, ids, state: Mutex::default(), order: Arc::default() }))
    }

    /// Keeps what goes over a connection that is about to begin.
    pub(crate) fn start(self: Arc<Self>, shared: &Arc<Shared>, hub: Hub) {
        shared.keep(self.clone());
        let tasks = shared.tasks();
        tasks.spawn(self.clone().resume(shared.clone()));
        tasks.spawn(self.work(shared.clone(), hub));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    fn next_id(&self) -> Id {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut ids = self.ids.lock().unwrap_or_else(|error| error.into_inner());
        let (generator, rng) = &mut *ids;
        generator.next(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX), rng)
    }

    /// Takes what is the keeper's of what a turn of the driver has left to do.
    pub(crate) fn take(&self, shared: &Shared, todo: &mut Vec<ForHub>) {
        if todo.is_empty() {
            return;
        }
        let mut state = self.lock();
        let is_ours = |one: &mut ForHub| match one {
            ForHub::Publication(publication) => publication.qos == Qos::ExactlyOnce,
            ForHub::Completed(_) | ForHub::Released(_) => true,
            _ => false,
        };
        for one in todo.extract_if(.., is_ours) {
            state.work.extend(match one {
                ForHub::Publication(publication) => {
                    shared.stalled().fetch_add(publication.payload.len(), Ordering::Relaxed);
                    Some(Work::Publication(publication))
                }
                ForHub::Completed(id) => Some(Work::Completed(id)),
                ForHub::Released(id) => Some(Work::Released(id)),
                _ => None,
            });
        }
        state.closed |= todo.iter().any(|one| matches!(one, ForHub::Closed));
        let worker = state.worker.take();
        drop(state);
        worker.into_iter().for_each(Waker::wake);
    }

    /// Does what the driver has left to do, to the end of the connection.
    async fn work(self: Arc<Self>, shared: Arc<Shared>, hub: Hub) {
        loop {
            let work = poll_fn(|cx| {
                let _replaced;
                let mut state = self.lock();
                match state.work.pop_front() {
                    Some(work) => Poll::Ready(Some(work)),
                    None if state.closed => Poll::Ready(None),
                    None => {
                        _replaced = register(&mut state.worker, cx);
                        Poll::Pending
                    }
                }
            });
            match work.await {
                None => return,
                Some(Work::Completed(id)) => note(self.store.remove(id).await),
                Some(Work::Released(id)) => note(self.store.forget(id).await),
                Some(Work::Publication(publication)) => self.handle(&shared, &hub, publication).await,
            }
        }
    }

    /// Handles a publication of the peer's, unless that was done before.
    async fn handle(&self, shared: &Arc<Shared>, hub: &Hub, publication: Publication) {
        let id = publication.id.wire_id();
        // It may have come in an earlier session, where it is still being handled.
        let claim = hub.claims().claim(id).await;
        // Then it will come again.
        let result =
            if self.lock().closed { Err(stopped()) } else { self.accept(shared, hub, &publication).await };
        drop(claim);
        shared.stalled().fetch_sub(publication.payload.len(), Ordering::Relaxed);
        // `Gone` where the connection has ended.
        shared.settle(publication.id, result).ok();
    }

    async fn accept(&self, shared: &Arc<Shared>, hub: &Hub, publication: &Publication) -> Result<(), Error> {
        let id = publication.id.wire_id();
        if self.store.is_accepted(id).await.map_err(failed)? {
            return Ok(());
        }
        hub.publish_for(shared, publication).await?;
        self.store.accept(id).await.map_err(failed)
    }

    /// Goes on with what earlier sessions have left.
    async fn resume(self: Arc<Self>, shared: Arc<Shared>) {
        if shared.established().await.is_ok() {
            match self.store.load().await {
                Ok(messages) => self.publish_again(&shared, messages).await,
                Err(error) => note(Err(error)),
            }
        }
        let mut wakers = Vec::new();
        let mut state = self.lock();
        state.resumed = true;
        state.waiting.call_all(&mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn publish_again(self: &Arc<Self>, shared: &Arc<Shared>, messages: Vec<Stored>) {
        for message in messages {
            let Stored { id, topic, payload, meta, qos, retain, attempts, acknowledged } = message;
            let resumed = Resumed { id, attempt: attempts, released: acknowledged };
            let mut options =
                PublishOptions::new().with_qos(qos).with_meta(meta).with_resumed(resumed).with_durable();
            options.retain = retain;
            let topic = if acknowledged { NO_TOPIC } else { &topic };
            match begin(shared, topic, (payload, options), true).await {
                Ok(Some(publication)) if acknowledged => shared.forget_publication(publication),
                Ok(Some(publication)) => {
                    let (keeper, shared) = (self.clone(), shared.clone());
                    shared.tasks().clone().spawn(async move {
                        if let Err(error) = keeper.follow(&shared, id, publication, qos).await {
                            tracing::debug!(%id, %error, "a message of an earlier session was not accepted");
                        }
                    });
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%id, %error, "a message of an earlier session does not go on"),
            }
        }
    }

    /// Waits until what earlier sessions have left goes on: it goes first.
    async fn resumed(&self) {
        let mut ticket = None;
        poll_fn(|cx| {
            let _replaced;
            let mut state = self.lock();
            if state.resumed {
                return Poll::Ready(());
            }
            _replaced = state.waiting.wait(&mut ticket, cx);
            Poll::Pending
        })
        .await;
    }

    /// The next place in the order in which the application publishes.
    pub(crate) fn place(&self) -> Place {
        let mut order = lock(&self.order);
        order.next += 1;
        Place { number: order.next - 1, order: self.order.clone() }
    }

    /// Publishes a message, when its turn has come, and follows it to its end.
    pub(crate) async fn publish(
        self: Arc<Self>,
        shared: Arc<Shared>,
        place: Place,
        topic: String,
        prepared: (Payload, PublishOptions),
        waits: bool,
    ) -> Result<Fate, PublishError> {
        self.resumed().await;
        let (id, (payload, mut options)) = (self.next_id(), prepared);
        let (qos, retain, meta) = (options.qos, options.retain, options.meta.clone());
        // Who finds it there cannot know whether it was sent.
        let (attempts, acknowledged) = (1, false);
        let stored = Stored {
            id,
            topic: topic.clone(),
            payload: payload.clone(),
            meta,
            qos,
            retain,
            attempts,
            acknowledged,
        };
        self.store.save(stored).await.map_err(|error| PublishError::NotSent(failed(error).into_outcome()))?;
        options = options.with_resumed(Resumed { id, attempt: 0, released: false }).with_durable();
        place.come().await;
        let begun = begin(&shared, &topic, (payload, options), waits).await;
        drop(place);
        match begun {
            Ok(Some(publication)) => self.follow(&shared, id, publication, qos).await,
            Ok(None) => Ok(Fate::Queued),
            Err(error) => {
                note(self.store.remove(id).await);
                Err(error)
            }
        }
    }

    /// Notes what becomes of a publication.
    async fn follow(
        &self,
        shared: &Arc<Shared>,
        id: Id,
        publication: PublicationId,
        qos: Qos,
    ) -> Result<Fate, PublishError> {
        let fate = fate_of(poll_fn(|cx| shared.poll_fate(cx, publication)).await);
        match &fate {
            Ok(_) if qos == Qos::ExactlyOnce => match self.store.acknowledged(id).await {
                // `Gone` where the connection has ended: then the next session releases it.
                Ok(()) => drop(shared.operate(|state| state.connection.release_publication(id))),
                Err(error) => note(Err(error)),
            },
            Err(PublishError::Lost { attempts, .. }) => note(self.store.attempted(id, *attempts).await),
            _ => note(self.store.remove(id).await),
        }
        fate
    }
}

/// Publications that are not with the core yet, in the order in which the application made them: each has a task of its
/// own, and takes its time with the store, but none goes past another (§12.6).
#[derive(Default)]
struct Order {
    next: u64,
    /// Whose turn it is.
    first: u64,
    /// Those behind it that are gone already.
    gone: BTreeSet<u64>,
    waiting: BTreeMap<u64, Waker>,
}

/// A place in that order, until it is dropped.
pub(crate) struct Place {
    number: u64,
    order: Arc<Mutex<Order>>,
}

impl Place {
    /// Waits until those before are gone.
    async fn come(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let _replaced;
        let mut order = lock(&self.order);
        if order.first == self.number {
            return Poll::Ready(());
        }
        _replaced = order.waiting.insert(self.number, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut order = lock(&self.order);
        let _own = order.waiting.remove(&self.number);
        order.gone.insert(self.number);
        while let Some(first) = order.gone.first().copied().filter(|first| *first == order.first) {
            order.gone.remove(&first);
            order.first += 1;
        }
        let first = order.first;
        let next = order.waiting.remove(&first);
        drop(order);
        next.into_iter().for_each(Waker::wake);
    }
}

fn lock(order: &Mutex<Order>) -> MutexGuard<'_, Order> {
    order.lock().unwrap_or_else(|error| error.into_inner())
}

/// Hands a message to the core, once there is room for it.
async fn begin(
    shared: &Arc<Shared>,
    topic: &str,
    prepared: (Payload, PublishOptions),
    waits: bool,
) -> Result<Option<PublicationId>, PublishError> {
    let mut turn = Turn::new(shared.clone(), Purpose::Publish);
    let mut prepared = Some(prepared);
    poll_fn(|cx| poll_unsent(cx, topic, &mut prepared, &mut turn, waits)).await
}

/// What the peer, or the application, is told.
fn failed(error: StoreError) -> Error {
    tracing::error!(%error, "a store failed");
    Error::unavailable("the store failed").with_processed(false)
}

fn stopped() -> Error {
    Error::unavailable("the connection has ended")
}

/// A failure that nobody waits for.
fn note(result: Result<(), StoreError>) {
    if let Err(error) = result {
        failed(error);
    }
}

/// Messages that are being handled: the same may come in several sessions, but only one handles it at a time.
#[derive(Default)]
pub(crate) struct Claims(Mutex<Claimed>);

#[derive(Default)]
struct Claimed {
    ids: HashSet<Id>,
    waiting: Line,
}

/// The right to handle a message.
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    id: Id,
}

impl Claims {
    async fn claim(&self, id: Id) -> Claim<'_> {
        let mut ticket = None;
        poll_fn(|cx| {
            let _replaced;
            let mut claimed = self.0.lock().unwrap_or_else(|error| error.into_inner());
            if claimed.ids.insert(id) {
                return Poll::Ready(());
            }
            _replaced = claimed.waiting.wait(&mut ticket, cx);
            Poll::Pending
        })
        .await;
        Claim { claims: self, id }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut wakers = Vec::new();
        let mut claimed = self.claims.0.lock().unwrap_or_else(|error| error.into_inner());
        claimed.ids.remove(&self.id);
        claimed.waiting.call_all(&mut wakers);
        drop(claimed);
        wakers.into_iter().for_each(Waker::wake);
    }
}
