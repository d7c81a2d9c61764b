//! The sessions of a server that outlive their links (§9): which there are, and how much those without a link may hold.

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use fluxar_proto::{
    Attempt, Confirmed, ConnectionError, Id, Instant, Offered, ResumeOffer, ResumeRefused, SessionId,
    Tentative,
};

use crate::auth::Present;
use crate::connections::Registered;
use crate::handler::Router;
use crate::hub::Hub;
use crate::shared::Shared;
use crate::upkeep::{Detached, Hold, Upkeep};

/// How many sessions without a link a server keeps where nothing else is set.
pub(crate) const MAX_DETACHED: usize = 1024;

/// No key of a place.
const NO_PLACE: u64 = u64::MAX;

/// How many bytes these may hold in all where nothing else is set.
pub(crate) const MAX_DETACHED_BYTES: usize = 256 << 20;

/// The sessions of a server, by name.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    max_detached: usize,
    max_detached_bytes: usize,
}

/// Its hash is keyed at random, although the names are ours: offers ask for others too (§17.2).
#[derive(Default)]
struct Table {
    by_id: HashMap<SessionId, Weak<Session>>,
    next: u64,
    /// Those without a link, the one that has been so for the longest time first.
    detached: BTreeMap<u64, Waiting>,
    counts: SessionCounts,
}

struct Waiting {
    session: Weak<Session>,
    /// The gap between two links in which it is.
    number: u64,
    bytes: usize,
}

/// What is so at the moment, and what has happened.
#[derive(Clone, Copy, Default)]
pub(crate) struct SessionCounts {
    pub(crate) detached: usize,
    pub(crate) detached_bytes: usize,
    pub(crate) resumed: u64,
    pub(crate) refused: u64,
    pub(crate) evicted: u64,
    pub(crate) expired: u64,
}

/// How a server is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections that have a link now.
    pub connections: usize,
    /// Links in the handshake now.
    pub handshakes: usize,
    /// Sessions now whose link is lost, and which wait for another one (§9).
    pub detached: usize,
    /// What these hold, in bytes, as [`max_detached_bytes`](crate::ServerBuilder::max_detached_bytes) counts it.
    pub detached_bytes: usize,
    /// How often a session went on over another link.
    pub resumed: u64,
    /// Offers that asked for a session and did not get it: it was not known, or the proof was wrong.
    pub resumes_refused: u64,
    /// Sessions that ended because too many had no link, or because these held too much.
    pub evicted: u64,
    /// Sessions that ended because no link came within [their time](crate::ServerBuilder::resume_for).
    pub expired: u64,
}

impl ServerStats {
    pub(crate) fn new((handshakes, open): (usize, usize), sessions: SessionCounts) -> Self {
        let SessionCounts { detached, detached_bytes, resumed, refused, evicted, expired } = sessions;
        Self {
            connections: open.saturating_sub(detached),
            handshakes,
            detached,
            detached_bytes,
            resumed,
            resumes_refused: refused,
            evicted,
            expired,
        }
    }
}

/// Sessions that have to go.
type Evicted = Vec<(Arc<Session>, u64)>;

impl Sessions {
    pub(crate) fn new(max_detached: usize, max_detached_bytes: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), max_detached, max_detached_bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|error| error.into_inner())
    }

    pub(crate) fn counts(&self) -> SessionCounts {
        let table = self.lock();
        SessionCounts { detached: table.detached.len(), ..table.counts }
    }

    /// Looks for the session that an offer asks for, if it does. Where it may have it, the old link of that session rests until
    /// the attempt has succeeded or failed (§9.8). An unknown session costs as much time as a wrong proof (§9.9).
    pub(crate) fn take_up(
        &self,
        offered: &mut Offered,
    ) -> Option<Result<(Tentative, TakenUp), ResumeRefused>> {
        let offer = offered.offer().resume.clone()?;
        let session = self.lock().by_id.get(&offer.session).and_then(Weak::upgrade);
        let taken = match session {
            Some(session) => TakenUp::new(session, &offer, offered.id()),
            None => {
                offered.verify_in_vain();
                Err(ResumeRefused::Unknown)
            }
        };
        self.lock().counts.refused += u64::from(taken.is_err());
        Some(taken)
    }

    /// A session has no link any more.
    fn detach(&self, session: &Arc<Session>, number: u64) -> u64 {
        let mut table = self.lock();
        let key = table.next;
        table.next += 1;
        table.detached.insert(key, Waiting { session: Arc::downgrade(session), number, bytes: 0 });
        session.place.store(key, Ordering::Relaxed);
        let evicted = self.evict(&mut table);
        drop(table);
        end(evicted);
        key
    }

    /// A session without a link holds so much now.
    fn note_bytes(&self, key: u64, bytes: usize) {
        let mut table = self.lock();
        let Table { detached, counts, .. } = &mut *table;
        let Some(waiting) = detached.get_mut(&key) else { return };
        counts.detached_bytes = counts.detached_bytes - waiting.bytes + bytes;
        waiting.bytes = bytes;
        let evicted = self.evict(&mut table);
        drop(table);
        end(evicted);
    }

    /// A session has a link again, or is over: its time may be, and that of none that was evicted.
    fn attach(&self, key: u64, expired: bool) {
        let mut table = self.lock();
        if table.remove(key).is_some() {
            table.counts.expired += u64::from(expired);
        }
    }

    /// Takes those out which are beyond the limits.
    fn evict(&self, table: &mut Table) -> Evicted {
        let mut evicted = Vec::new();
        while table.detached.len() > self.max_detached
            || table.counts.detached_bytes > self.max_detached_bytes
        {
            let Some(oldest) = table.detached.keys().next().copied() else { break };
            table.counts.evicted += 1;
            let gone = table.remove(oldest);
            evicted.extend(gone.and_then(|gone| Some((gone.session.upgrade()?, gone.number))));
        }
        evicted
    }
}

impl Table {
    fn remove(&mut self, key: u64) -> Option<Waiting> {
        let waiting = self.detached.remove(&key)?;
        self.counts.detached_bytes -= waiting.bytes;
        Some(waiting)
    }
}

/// Ends sessions that have to go, unless they have got a link meanwhile.
fn end(evicted: Evicted) {
    for (session, number) in evicted {
        let shared = session.shared();
        let now = shared.clock().now();
        shared.operate(|state| {
            if state.connection.link() == number {
                state.connection.abort(now, ConnectionError::SessionLost);
            }
        });
    }
}

/// One session of a server: over one link after the other, and in between.
pub(crate) struct Session {
    /// Goes first: where nobody drives the session any more, it ends.
    hold: Hold,
    registered: Registered,
    sessions: Arc<Sessions>,
    id: Option<SessionId>,
    /// Its latest place among those without a link.
    place: AtomicU64,
    router: Router,
    hub: Hub,
}

impl Session {
    /// A session that has begun.
    pub(crate) fn begin(
        sessions: Arc<Sessions>,
        registered: Registered,
        shared: &Arc<Shared>,
        router: Router,
        hub: Hub,
    ) -> Arc<Self> {
        let hold = Hold::new(Upkeep::new(shared.clone(), router.clone(), hub.clone()));
        let id = shared.lock().connection.session_id();
        let place = AtomicU64::new(NO_PLACE);
        let session = Arc::new(Self { hold, registered, sessions, id, place, router, hub });
        if let Some(id) = id {
            session.sessions.lock().by_id.insert(id, Arc::downgrade(&session));
        }
        session
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.hold.shared()
    }

    pub(crate) fn upkeep(&self) -> Upkeep {
        Upkeep::new(self.shared().clone(), self.router.clone(), self.hub.clone())
    }

    /// Keeps the session while it has no link, in the gap that has this `number`.
    pub(crate) async fn wait(self: Arc<Self>, number: u64) {
        let _unlinked = self.registered.without_link();
        let key = self.sessions.detach(&self, number);
        let mut place = Place { sessions: &self.sessions, key, expired: false };
        let mut detached = pin!(Detached::new(self.upkeep(), number));
        poll_fn(|cx| self.poll_wait(cx, key, detached.as_mut())).await;
        place.expired = self.shared().error() == Some(ConnectionError::SessionLost);
    }

    fn poll_wait(
        &self,
        cx: &mut Context<'_>,
        key: u64,
        detached: std::pin::Pin<&mut Detached>,
    ) -> Poll<bool> {
        let polled = detached.poll(cx);
        if polled.is_pending() {
            self.sessions.note_bytes(key, self.shared().held_bytes());
        }
        polled
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.sessions.lock().by_id.remove(id);
        }
    }
}

/// A session's place among those without a link.
struct Place<'a> {
    sessions: &'a Sessions,
    key: u64,
    expired: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.sessions.attach(self.key, self.expired);
    }
}

/// A session that is about to go on over a new link; it goes on as before where that comes to nothing.
pub(crate) struct TakenUp {
    session: Arc<Session>,
    attempt: Option<Attempt>,
}

impl TakenUp {
    /// The time, by the session's clock.
    pub(crate) fn now(&self) -> Instant {
        self.session.shared().clock().now()
    }

    /// What is known of the session.
    pub(crate) fn present(&self) -> Present {
        let (shared, now) = (self.session.shared(), self.now());
        let (identity, psk) = (shared.known().identity(), shared.known().psk());
        let has_run_out = shared.lock().connection.auth_expires().is_some_and(|at| at <= now);
        Present { identity, psk, has_run_out }
    }

    fn new(
        session: Arc<Session>,
        offer: &ResumeOffer,
        offer_id: Id,
    ) -> Result<(Tentative, Self), ResumeRefused> {
        let shared = session.shared();
        let now = shared.clock().now();
        let mut state = shared.lock();
        let taken = state.connection.take_up(now, offer, offer_id);
        // Who has no right to it neither wakes anybody up nor learns from the time it takes that there is somebody (§9.9).
        let driver = match &taken {
            Err(ResumeRefused::Unknown) => None,
            _ => state.take_driver(),
        };
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        let tentative = taken?;
        let attempt = Some(tentative.attempt());
        Ok((tentative, Self { session, attempt }))
    }

    /// The initiator has confirmed: the session goes on over the new link, which gets this number. `None` where another
    /// link has come first, or the session has ended.
    pub(crate) fn confirm(mut self, confirmed: Confirmed, remote: String) -> Option<(Arc<Session>, u64)> {
        self.attempt = None;
        let session = self.session.clone();
        let shared = session.shared();
        let now = shared.clock().now();
        let number = shared.operate(|state| {
            let attached = state.connection.confirm_link(now, confirmed);
            attached.then(|| {
                state.set_remote(remote);
                state.connection.link()
            })
        })?;
        let mut table = session.sessions.lock();
        table.counts.resumed += 1;
        // Its task may take a while to learn that it need not wait any more.
        table.remove(session.place.load(Ordering::Relaxed));
        drop(table);
        Some((session, number))
    }
}

impl Drop for TakenUp {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            let shared = self.session.shared();
            let now = shared.clock().now();
            shared.operate(|state| state.connection.abandon(now, attempt));
        }
    }
}
