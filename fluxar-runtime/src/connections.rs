//! The connections of a server, and those that are about to become some.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use fluxar_proto::Drain;

use crate::line::Line;
use crate::shared::{Shared, register};

/// What a server and its handle share.
pub(crate) struct Connections {
    state: Mutex<State>,
    bounds: Bounds,
}

/// How many there may be at once (§15.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Links in the handshake.
    pub(crate) max_handshakes: usize,
    /// Connections, those without a link included.
    pub(crate) max_connections: usize,
    pub(crate) when_full: WhenFull,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_handshakes: 1024, max_connections: usize::MAX, when_full: WhenFull::default() }
    }
}

/// What a server does that has as many connections as it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// Who connects is refused with `resource_exhausted`, and may come again in a second.
    #[default]
    Refuse,
    /// Who connects waits, until there is room or its patience is at an end: the server accepts nobody meanwhile. Only while
    /// connections have lost their links it does, so that they can go on; who is none of them is refused then.
    Wait,
}

struct State {
    stopped: bool,
    /// The server is about to leave: who is in the handshake is told so.
    leaving: Option<Drain>,
    listeners: usize,
    next: u64,
    /// Links in the handshake, the oldest first, and who is woken when one has to go.
    shaking: BTreeMap<u64, Option<Waker>>,
    /// Those of them that have a place among the connections.
    admitted: BTreeSet<u64>,
    /// In the order they came.
    open: BTreeMap<u64, Weak<Shared>>,
    /// Those of them that wait for another link.
    unlinked: BTreeSet<u64>,
    /// The listeners, which wait for the server to be stopped.
    accepting: Line,
    /// The listeners, which wait for room.
    full: Line,
    /// Those who wait until all is over.
    ending: Line,
}

impl Connections {
    pub(crate) fn new(listeners: usize, bounds: Bounds) -> Arc<Self> {
        let state = State {
            stopped: false,
            leaving: None,
            listeners,
            next: 0,
            shaking: BTreeMap::new(),
            admitted: BTreeSet::new(),
            open: BTreeMap::new(),
            unlinked: BTreeSet::new(),
            accepting: Line::default(),
            full: Line::default(),
            ending: Line::default(),
        };
        Arc::new(Self { state: Mutex::new(state), bounds })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Changes the state, and wakes whom that concerns once the lock is released.
    fn change<T>(&self, change: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let result = change(&mut state, &mut wakers);
        if state.is_empty() {
            state.ending.call_all(&mut wakers);
        }
        if self.has_room(&state) {
            state.full.call_all(&mut wakers);
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Whether one link more may be accepted: also where it could only be that of a connection which has none, since
    /// otherwise nobody could come back.
    fn has_room(&self, state: &State) -> bool {
        let linked = state.open.len().saturating_sub(state.unlinked.len());
        linked + state.shaking.len() < self.bounds.max_connections
    }

    /// Waits until one link more may be accepted, if that is to be waited for.
    pub(crate) async fn room(&self) {
        let mut ticket = None;
        poll_fn(|cx| {
            let _replaced;
            let mut state = self.lock();
            if self.bounds.when_full == WhenFull::Refuse || self.has_room(&state) {
                return Poll::Ready(());
            }
            _replaced = state.full.wait(&mut ticket, cx);
            Poll::Pending
        })
        .await
    }

    /// How many links are in the handshake, and how many connections are open.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.shaking.len(), state.open.len())
    }

    /// Those that are open now.
    pub(crate) fn open(&self) -> Vec<Arc<Shared>> {
        self.lock().open.values().filter_map(Weak::upgrade).collect()
    }

    /// Stops listening, cuts the handshakes, and closes what is open.
    pub(crate) fn stop(&self) {
        self.stop_listening();
        for shared in self.open() {
            shared.close(None);
        }
    }

    pub(crate) fn stop_listening(&self) {
        self.change(|state, wakers| {
            state.stopped = true;
            state.accepting.call_all(wakers);
            wakers.extend(std::mem::take(&mut state.shaking).into_values().flatten());
        });
    }

    /// Stops listening; who is in the handshake is refused.
    pub(crate) fn leave(&self, drain: &Drain) {
        self.change(|state, wakers| {
            state.stopped = true;
            state.leaving = Some(drain.clone());
            state.accepting.call_all(wakers);
        });
    }

    /// What is said while the server leaves.
    pub(crate) fn leaving(&self) -> Option<Drain> {
        self.lock().leaving.clone()
    }

    /// A listener is gone.
    fn forget_listener(&self) {
        self.change(|state, _| state.listeners -= 1);
    }

    /// Waits until the server is stopped and its last connection is gone.
    pub(crate) async fn over(&self) {
        self.until(|state| state.is_empty() && state.listeners == 0).await;
    }

    /// Waits until the server is stopped and nobody is connected.
    pub(crate) async fn emptied(&self) {
        self.until(State::is_empty).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        let mut ticket = None;
        poll_fn(|cx| {
            let _replaced;
            let mut state = self.lock();
            if reached(&state) {
                return Poll::Ready(());
            }
            _replaced = state.ending.wait(&mut ticket, cx);
            Poll::Pending
        })
        .await
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.stopped && self.open.is_empty()
    }
}

/// A listener that runs.
pub(crate) struct Listening(pub(crate) Arc<Connections>);

impl Listening {
    /// `future`'s output, or `None` once the server is stopped.
    pub(crate) async fn until_stopped<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        // A listener waits for one thing at a time: there is one ticket of its at most.
        let mut ticket = None;
        let output = poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.stopped {
                return Poll::Ready(None);
            }
            let replaced = state.accepting.wait(&mut ticket, cx);
            drop(state);
            drop(replaced);
            future.as_mut().poll(cx).map(Some)
        })
        .await;
        let _left = ticket.and_then(|ticket| self.0.lock().accepting.leave(ticket));
        output
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.forget_listener();
    }
}

/// A link in the handshake. Where there are too many, the oldest has to go: whoever only opens links and says nothing
/// gets in the way of nobody else.
pub(crate) struct Handshake {
    connections: Arc<Connections>,
    key: u64,
}

impl Handshake {
    pub(crate) fn new(connections: Arc<Connections>) -> Self {
        let key = connections.change(|state, wakers| {
            let key = state.next;
            state.next += 1;
            if !state.stopped || state.leaving.is_some() {
                state.shaking.insert(key, None);
            }
            if state.shaking.len() > connections.bounds.max_handshakes {
                wakers.extend(state.shaking.pop_first().and_then(|(_, waker)| waker));
            }
            key
        });
        Self { connections, key }
    }

    /// `future`'s output, or `None` once this link has to go.
    pub(crate) async fn while_welcome<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match self.is_welcome(cx) {
            true => future.as_mut().poll(cx).map(Some),
            false => Poll::Ready(None),
        })
        .await
    }

    fn is_welcome(&self, cx: &mut Context<'_>) -> bool {
        let _replaced;
        let mut state = self.connections.lock();
        let Some(waker) = state.shaking.get_mut(&self.key) else { return false };
        _replaced = register(waker, cx);
        true
    }

    /// A new connection is about to begin. Whether there is a place for it, which is kept then.
    pub(crate) fn take_place(&self) -> bool {
        let mut state = self.connections.lock();
        let room = state.open.len() + state.admitted.len() < self.connections.bounds.max_connections;
        room && state.admitted.insert(self.key)
    }

    /// The handshake is done. `None` where the link had to go meanwhile.
    pub(crate) fn done(self, shared: &Arc<Shared>) -> Option<Registered> {
        let (connections, key) = (self.connections.clone(), self.key);
        connections.change(|state, _| {
            state.shaking.remove(&key)?;
            state.admitted.remove(&key);
            state.open.insert(key, Arc::downgrade(shared));
            Some(())
        })?;
        Some(Registered { connections, key })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let _waker = self.connections.change(|state, _| {
            state.admitted.remove(&self.key);
            state.shaking.remove(&self.key)
        });
    }
}

/// A connection in the server's list, for as long as it lives.
pub(crate) struct Registered {
    connections: Arc<Connections>,
    key: u64,
}

impl Registered {
    /// The connection has no link, for as long as this is kept.
    pub(crate) fn without_link(&self) -> Unlinked {
        self.connections.change(|state, _| state.unlinked.insert(self.key));
        Unlinked { connections: self.connections.clone(), key: self.key }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.change(|state, _| state.open.remove(&self.key));
    }
}

/// A connection that waits for another link.
pub(crate) struct Unlinked {
    connections: Arc<Connections>,
    key: u64,
}

impl Drop for Unlinked {
    fn drop(&mut self) {
        self.connections.change(|state, _| state.unlinked.remove(&self.key));
    }
}
