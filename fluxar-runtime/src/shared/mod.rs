//! What handles and driver of one connection share.

mod auth;
mod calls;
mod gap;
mod pubsub;
mod streams;

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fluxar_proto::message::Id;
use fluxar_proto::{
    Auth, Connection, ConnectionError, DeliveryRecord, Drain, Error, Event, Instant, PeerInfo, Stats,
    StreamOpening,
};

use self::auth::Asked;
use self::calls::{Running, Waiter};
pub(crate) use self::gap::Gap;
use self::gap::Gaps;
pub(crate) use self::pubsub::ForHub;
use self::pubsub::PubSubState;
use self::streams::Streaming;
use crate::auth::Known;
use crate::clock::Clock;
use crate::keeper::Keeper;
use crate::line::Line;
use crate::queue::Queue;
use crate::reconnect::State as Told;
use crate::tasks::Tasks;

/// One connection: the core behind a lock, and who waits for what.
///
/// Nobody holds the lock over a system call, a wake-up or a handler.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Unlike that of every other connection.
    number: u64,
    clock: Clock,
    call_timeout: Option<Duration>,
    tasks: Tasks,
    keeper: OnceLock<Arc<Keeper>>,
    known: Known,
    /// Bytes of publications of the peer that wait for room in the queues of subscribers.
    stalled: Arc<AtomicUsize>,
    /// Whether somebody brings another link when one is lost.
    comes_back: AtomicBool,
}

/// What is behind the lock.
pub(crate) struct State {
    pub(crate) connection: Connection,
    /// Where the peer is: at the other end of the latest link.
    remote: String,
    /// Taken by whoever gives the driver something to do, so that many operations make one wake-up.
    driver: Option<Waker>,
    /// The driver is to drop its link.
    pub(crate) drops_link: bool,
    calls: Table<Waiter>,
    requests: Table<Running>,
    streams: Table<Streaming>,
    pubsub: PubSubState,
    pings: Vec<Pinging>,
    /// Those turned away with `Blocked`.
    pub(crate) queue: Queue,
    /// Those that wait for the handshake or for the end.
    watchers: Line,
    /// What becomes of links.
    gaps: Gaps,
    asked: Asked,
    /// The driver is gone, and the transport with it.
    unlinked: bool,
    /// Wakers that nobody needs any more. They may hold the last reference to a task, and so to what uses this very
    /// connection when it is dropped: they go once the lock is released.
    discarded: Vec<Waker>,
}

/// Somebody waits for the reply to a ping.
struct Pinging {
    ping: Id,
    waker: Option<Waker>,
    answer: Option<Result<Duration, Error>>,
}

/// The lock on a connection's state.
pub(crate) struct Locked<'a> {
    // Before the wakers, so that it is released when they are dropped.
    state: MutexGuard<'a, State>,
    discarded: Vec<Waker>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.discarded = std::mem::take(&mut self.state.discarded);
    }
}

/// Somebody waits for the handshake or for the end. Whoever gives that up is forgotten at once, and not only when the
/// connection ends: a handler may watch for as long as it runs, and there are many handlers in the life of a connection.
struct Watch<'a> {
    shared: &'a Shared,
    ticket: Option<u64>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.shared.lock();
        let left = state.watchers.leave(ticket);
        state.discard(left);
    }
}

/// What the driver does once the lock is released.
#[derive(Default)]
pub(crate) struct Chores {
    pub(crate) wakers: Vec<Waker>,
    pub(crate) requests: Vec<fluxar_proto::Request>,
    pub(crate) streams: Vec<StreamOpening>,
    pub(crate) for_hub: Vec<ForHub>,
    /// Fresh credentials of the peer.
    pub(crate) renewals: Vec<(Id, Auth)>,
}

impl Shared {
    pub(crate) fn new(
        connection: Connection,
        clock: Clock,
        remote: String,
        call_timeout: Option<Duration>,
        tasks: Tasks,
    ) -> Arc<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let stalled = Arc::<AtomicUsize>::default();
        let state = State {
            connection,
            remote,
            driver: None,
            drops_link: false,
            calls: Table::default(),
            requests: Table::default(),
            streams: Table::default(),
            pubsub: PubSubState::new(stalled.clone()),
            pings: Vec::new(),
            queue: Queue::default(),
            watchers: Line::default(),
            gaps: Gaps::default(),
            asked: Asked::default(),
            unlinked: false,
            discarded: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            number,
            clock,
            call_timeout,
            tasks,
            keeper: OnceLock::new(),
            known: Known::default(),
            stalled,
            comes_back: AtomicBool::new(false),
        })
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { state: self.guard(), discarded: Vec::new() }
    }

    /// The lock for what registers no waker, and so discards none.
    fn guard(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock is the application's, so that a panic there is a bug of ours; even then the
        // state is better than none.
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The time that a call has where it does not say.
    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        self.call_timeout
    }

    /// Where the peer is, for people to read.
    pub(crate) fn remote(&self) -> String {
        self.guard().remote.clone()
    }

    /// The number of the connection's link.
    pub(crate) fn link(&self) -> u64 {
        self.guard().connection.link()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of publications of the peer that wait for room in the queues of subscribers.
    pub(crate) fn stalled(&self) -> &AtomicUsize {
        &self.stalled
    }

    /// Keeps messages in a durable store from now on.
    pub(crate) fn keep(&self, keeper: Arc<Keeper>) {
        self.lock().pubsub.is_kept = true;
        self.keeper.set(keeper).ok();
    }

    /// Who keeps messages in a durable store, where there is one.
    pub(crate) fn keeper(&self) -> Option<&Arc<Keeper>> {
        self.keeper.get()
    }

    /// Who the peer is, and what it may do.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// Runs tasks, where no runtime is at hand.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Does something with the connection that the driver has to follow up.
    pub(crate) fn operate<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = operation(&mut state);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Sends a ping; `None` where too many are on the way.
    pub(crate) fn ping(&self) -> Result<Option<Id>, Error> {
        let now = self.clock.now();
        self.operate(|state| {
            if let Some(error) = state.connection.error() {
                return Err(error.call_error(false));
            }
            if state.connection.is_detached() || state.connection.is_handshaking() {
                return Err(Error::unavailable("there is no link at the moment").with_processed(false));
            }
            let ping = state.connection.ping(now);
            state.pings.extend(ping.map(|ping| Pinging { ping, waker: None, answer: None }));
            Ok(ping)
        })
    }

    pub(crate) fn poll_pong(&self, cx: &mut Context<'_>, ping: Id) -> Poll<Result<Duration, Error>> {
        let mut state = self.lock();
        if let Some(error) = state.connection.error() {
            return Poll::Ready(Err(error.call_error(true)));
        }
        let Some(pinging) = state.pings.iter_mut().find(|pinging| pinging.ping == ping) else {
            return Poll::Pending;
        };
        if let Some(answer) = &pinging.answer {
            return Poll::Ready(answer.clone());
        }
        let replaced = register(&mut pinging.waker, cx);
        state.discard(replaced);
        Poll::Pending
    }

    pub(crate) fn forget_ping(&self, ping: Id) {
        let mut state = self.lock();
        if let Some(at) = state.pings.iter().position(|pinging| pinging.ping == ping) {
            let pinging = state.pings.remove(at);
            state.discard(pinging.waker);
        }
    }

    /// Waits until the handshake is done, or has failed. One that was done is done, even where the connection has ended
    /// since.
    pub(crate) async fn established(&self) -> Result<(), ConnectionError> {
        self.watch(|state| match state.connection.peer() {
            Some(_) => Some(Ok(())),
            None => state.connection.error().cloned().map(Err),
        })
        .await
    }

    /// Waits until the connection has ended, and says why.
    pub(crate) async fn ended(&self) -> ConnectionError {
        self.watch(|state| state.connection.error().cloned()).await
    }

    /// Waits until the connection has ended and its transport is closed too, and says why it has ended.
    pub(crate) async fn unlinked(&self) -> ConnectionError {
        self.watch(|state| state.connection.error().filter(|_| state.unlinked).cloned()).await
    }

    /// Waits until a connection that drains is gone. One that loses its link meanwhile ends then: who leaves is not there
    /// for another one.
    pub(crate) async fn leave(&self) {
        let unlinked = self.watch(|state| match state.unlinked {
            true => Some(true),
            false => state.connection.is_detached().then_some(false),
        });
        if !unlinked.await {
            self.close(None);
            self.unlinked().await;
        }
    }

    async fn watch<T>(&self, mut seen: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut watch = Watch { shared: self, ticket: None };
        poll_fn(|cx| {
            let mut state = self.lock();
            if let Some(seen) = seen(&mut state) {
                return Poll::Ready(seen);
            }
            let replaced = state.watchers.wait(&mut watch.ticket, cx);
            state.discard(replaced);
            Poll::Pending
        })
        .await
    }

    pub(crate) fn close(&self, error: Option<Error>) {
        let now = self.clock.now();
        self.operate(|state| state.connection.close(now, error));
    }

    /// Announces that this side is about to leave.
    pub(crate) fn drain(&self, drain: Drain) {
        let now = self.clock.now();
        self.operate(|state| state.connection.drain(now, drain));
    }

    pub(crate) fn peer_draining(&self) -> Option<Drain> {
        self.lock().connection.peer_draining().cloned()
    }

    pub(crate) fn hang_up(&self) {
        let now = self.clock.now();
        self.operate(|state| state.connection.hang_up(now));
    }

    pub(crate) fn drop_link(&self) {
        // Its driver has to be the one that loses it: it takes the session to where the next link is awaited.
        self.operate(|state| state.drops_link = !state.connection.is_detached());
    }

    pub(crate) fn error(&self) -> Option<ConnectionError> {
        self.lock().connection.error().cloned()
    }

    pub(crate) fn peer_info(&self) -> Option<PeerInfo> {
        self.lock().connection.peer().cloned()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().connection.stats()
    }

    /// How much the connection holds, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.guard().connection.stats().held_bytes()
    }

    pub(crate) fn delivery_journal(&self) -> Vec<DeliveryRecord> {
        self.lock().connection.delivery_journal().cloned().collect()
    }
}

impl Pinging {
    /// What has become of it, unless that is known already.
    fn end(&mut self, answer: Result<Duration, Error>, chores: &mut Chores) {
        self.answer.get_or_insert(answer);
        chores.wakers.extend(self.waker.take());
    }
}

impl State {
    /// The driver is about to rest: whoever operates from now on wakes it.
    pub(crate) fn arm(&mut self, cx: &mut Context<'_>) {
        let replaced = register(&mut self.driver, cx);
        self.discard(replaced);
    }

    /// The peer is at the other end of another link now.
    pub(crate) fn set_remote(&mut self, remote: String) {
        self.remote = remote;
    }

    /// Drops a waker once the lock is released.
    pub(crate) fn discard(&mut self, waker: Option<Waker>) {
        self.discarded.extend(waker);
    }

    /// Whom to wake so that the driver follows up what was done.
    pub(crate) fn take_driver(&mut self) -> Option<Waker> {
        self.driver.take()
    }

    /// What an operation fails with that came after the end of the connection.
    pub(crate) fn closed_error(&self) -> Error {
        let gone =
            || Error::new(fluxar_proto::Code::UNAVAILABLE, "the connection is closed").with_processed(false);
        self.connection.error().map_or_else(gone, |error| error.call_error(false))
    }

    /// Calls those up who have waited in line for too long; when the next one will have.
    pub(crate) fn expire_queue(&mut self, now: Instant, chores: &mut Chores) -> Option<Instant> {
        self.queue.expire(now, &mut chores.wakers);
        self.queue.next_deadline()
    }

    /// The driver goes, and the transport with it.
    pub(crate) fn unlink(&mut self, chores: &mut Chores) {
        self.unlinked = true;
        self.watchers.call_all(&mut chores.wakers);
    }

    /// Sorts what has happened into what has to be done outside the lock.
    pub(crate) fn drain_events(&mut self, chores: &mut Chores) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Call(event) => self.handle_call_event(event, chores),
                Event::Stream(event) => self.handle_stream_event(event, chores),
                Event::PubSub(event) => self.handle_pubsub_event(event, chores),
                Event::Pong { ping, rtt } => {
                    // A peer answers in order, and may leave some out (§8.3): those before get no answer of their own.
                    for pinging in self.pings.iter_mut().filter(|pinging| pinging.ping <= ping) {
                        pinging.end(Ok(rtt), chores);
                    }
                }
                Event::Challenge { challenge } => self.handle_challenge(challenge, chores),
                Event::AuthOffered { id, auth } => chores.renewals.push((id, auth)),
                Event::Authenticated { id, result } => self.handle_authenticated(id, result, chores),
                Event::Established => self.handle_established(chores),
                Event::Detached(why) => self.handle_detached(why, chores),
                Event::Resumed { resent } => self.handle_resumed(resent, chores),
                Event::Lost(lost) => self.handle_lost(&lost, chores),
                Event::Draining(drain) => self.handle_draining(drain, chores),
                Event::Closed(why) => {
                    self.gaps.report(Told::Closed { why }, chores);
                    self.handle_end(chores);
                }
                _ => {}
            }
        }
        self.take_publications(chores);
    }

    /// Nothing more will happen.
    fn handle_end(&mut self, chores: &mut Chores) {
        self.watchers.call_all(&mut chores.wakers);
        self.call_servant(chores);
        self.queue.dissolve(&mut chores.wakers);
        self.withdraw_streams(&mut chores.wakers);
        chores.wakers.extend(self.pings.iter_mut().filter_map(|pinging| pinging.waker.take()));
        chores.for_hub.push(ForHub::Closed);
    }
}

/// Something for each of the core's slots: small numbers, bounded by the limits on what is open.
struct Table<T>(Vec<Option<T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Table<T> {
    fn put(&mut self, slot: usize, value: T) -> Option<T> {
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot].replace(value)
    }

    fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.0.get_mut(slot)?.as_mut()
    }

    fn remove(&mut self, slot: usize) -> Option<T> {
        self.0.get_mut(slot)?.take()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }
}

/// Gives the waker back whose place the new one takes, to be dropped without a lock.
#[must_use]
pub(crate) fn register(slot: &mut Option<Waker>, cx: &mut Context<'_>) -> Option<Waker> {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => slot.replace(cx.waker().clone()),
    }
}
