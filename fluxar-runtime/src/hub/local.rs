//! Subscriptions of this side at its own hub: a queue each, with the delivery machine of §12.13, but for timeouts. Who
//! takes a message holds it in the same process, and answers it at the latest when it drops it.
//!
//! ```text
//!             taken, with acknowledgement         ack; nack that makes a retry pointless, or the last one
//!  QUEUED --------------------------------> HELD -------------------------------------------------------> (gone)
//!    ^                                       |
//!    |         its time has come             | nack
//!    +----------------------------- PAUSED <-+
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use fluxar_proto::{Delivered, Error, Gone, OutMessage, Overflow, Qos, QueueLimits, QueueStats, retry_wait};

use super::{Inner, Undelivered};
use crate::message::{Local, Message};
use crate::peer::Peer;
use crate::shared::register;
use crate::standing::Standing;
use crate::tasks::{Alarm, Tasks};

/// The longest wait before a repetition, where the `nack` names none.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest wait at all: what `nack` names may be more than a clock can add.
const A_DAY: Duration = Duration::from_secs(86_400);

/// The queue of one subscription.
pub(crate) struct LocalQueue {
    state: Mutex<State>,
    standing: Arc<Standing>,
    hub: Weak<Inner>,
    tasks: Tasks,
    limits: QueueLimits,
    qos: Qos,
    /// So many messages may be held.
    inflight: usize,
    attempts: u32,
}

struct State {
    /// Which of the hub's subscriptions it is.
    target: usize,
    queue: VecDeque<Entry>,
    paused: BTreeMap<(Instant, u64), Entry>,
    held: BTreeMap<u64, Entry>,
    next: u64,
    /// What all of these hold in memory.
    bytes: usize,
    consumer: Option<Waker>,
    /// A message was turned away as `Full`.
    wants_room: bool,
    over: bool,
    /// How many were taken for the first time, or dropped (§12.6).
    seq: u64,
    received: u64,
    dropped: u64,
}

struct Entry {
    id: u64,
    message: OutMessage,
    qos: Qos,
    /// The attempt that comes next, or is under way.
    attempt: u32,
    peer: Option<Peer>,
}

impl Entry {
    /// The message for somebody else, where it was `taken` here or not.
    fn message_for_others(&self, taken: bool) -> OutMessage {
        let attempts = if taken { self.attempt } else { self.attempt - 1 };
        self.message.clone().with_attempts(attempts)
    }
}

/// A message that had to go: it may hold the last reference to a connection, and is dropped without a lock.
pub(super) struct Dropped(Entry);

impl Dropped {
    /// The message, where somebody relies on it.
    pub(super) fn message(&self) -> Option<OutMessage> {
        (self.0.qos > Qos::AtMostOnce).then(|| self.0.message.clone())
    }
}

/// How a local queue is to be.
pub(super) struct Shape {
    pub(super) limits: QueueLimits,
    pub(super) qos: Qos,
    pub(super) inflight: usize,
    pub(super) attempts: u32,
}

impl LocalQueue {
    pub(super) fn new(hub: Weak<Inner>, tasks: Tasks, shape: Shape) -> Arc<Self> {
        let Shape { limits, qos, inflight, attempts } = shape;
        let limits = QueueLimits { items: limits.items.max(1), ..limits };
        let standing = Standing::new();
        standing.confirm(qos, &mut Vec::new());
        let state = State {
            target: usize::MAX,
            queue: VecDeque::new(),
            paused: BTreeMap::new(),
            held: BTreeMap::new(),
            next: 0,
            bytes: 0,
            consumer: None,
            wants_room: false,
            over: false,
            seq: 0,
            received: 0,
            dropped: 0,
        };
        let inflight = inflight.max(1);
        Arc::new(Self { state: Mutex::new(state), standing, hub, tasks, limits, qos, inflight, attempts })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn qos(&self) -> Qos {
        self.qos
    }

    pub(super) fn set_target(&self, target: usize) {
        self.lock().target = target;
    }

    pub(crate) fn stats(&self) -> QueueStats {
        self.lock().stats()
    }

    /// Takes a message in, as [`Connection::deliver`](fluxar_proto::Connection::deliver) does. What has to go for it goes to
    /// `dropped`.
    pub(super) fn deliver(
        &self,
        message: &OutMessage,
        peer: Option<Peer>,
        wakers: &mut Vec<Waker>,
        dropped: &mut Vec<Dropped>,
    ) -> Result<Delivered, Gone> {
        let mut state = self.lock();
        if state.over {
            return Err(Gone);
        }
        let qos = message.qos().min(self.qos);
        let mut done = Delivered::Queued;
        while state.is_full(self.limits, message) {
            let oldest_goes = match self.limits.overflow {
                Overflow::Wait if qos > Qos::AtMostOnce => {
                    state.wants_room = true;
                    return Ok(Delivered::Full);
                }
                Overflow::Close => return Ok(Delivered::Closed),
                Overflow::Wait => state.queue.front().is_some_and(|oldest| oldest.qos == Qos::AtMostOnce),
                Overflow::DropOldest => !state.queue.is_empty(),
                Overflow::DropNewest => false,
            };
            state.dropped += 1;
            state.seq += 1;
            if !oldest_goes {
                return Ok(Delivered::DroppedNewest);
            }
            if let Some(oldest) = state.queue.pop_front() {
                state.bytes -= oldest.message.held_bytes();
                dropped.push(Dropped(oldest));
            }
            done = Delivered::DroppedOldest;
        }
        state.next += 1;
        let attempt = message.attempts().saturating_add(1);
        let entry = Entry { id: state.next, message: message.clone(), qos, attempt, peer };
        state.received += 1;
        state.bytes += message.held_bytes();
        state.queue.push_back(entry);
        wakers.extend(state.consumer.take());
        Ok(done)
    }

    /// The next message, for whoever consumes them.
    pub(crate) fn poll_next(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        alarm: &mut Option<Alarm>,
    ) -> Poll<Option<Message>> {
        loop {
            let _replaced;
            let mut state = self.lock();
            // Nobody looks at the clock for every message.
            if !state.paused.is_empty() {
                state.resume(self.tasks.now());
            }
            match state.take(self.inflight) {
                Some(local) => {
                    let room = state.relieve(self.limits);
                    drop(state);
                    self.tell_room(room);
                    return Poll::Ready(Some(Message::local(self, local)));
                }
                None if state.over => return Poll::Ready(None),
                None => _replaced = register(&mut state.consumer, cx),
            }
            let Some((at, _)) = state.paused.keys().next().copied() else { return Poll::Pending };
            drop(state);
            let alarm = alarm.get_or_insert_with(|| self.tasks.alarm());
            if alarm.poll(cx, at).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Answers a message that was taken.
    pub(crate) fn settle(&self, id: u64, result: Result<(), Error>) -> Result<(), Gone> {
        let mut state = self.lock();
        if state.over {
            return Err(Gone);
        }
        let entry = state.held.remove(&id).ok_or(Gone)?;
        // Here nobody else's messages come again at the same moment, so that no chance is needed.
        let wait = result.as_ref().err().and_then(|error| retry_wait(error, entry.attempt, 0, LONGEST));
        let settled = match wait.filter(|_| entry.attempt < self.attempts) {
            Some(wait) => {
                let at = self.tasks.now() + wait.min(A_DAY);
                state.paused.insert((at, id), Entry { attempt: entry.attempt.saturating_add(1), ..entry });
                None
            }
            None => {
                state.bytes -= entry.message.held_bytes();
                Some((entry, result))
            }
        };
        // It may have waited for a place in flight, or has to set its alarm.
        let consumer = state.consumer.take();
        let room = state.relieve(self.limits);
        drop(state);
        consumer.into_iter().for_each(Waker::wake);
        self.tell_room(room);
        if let Some((entry, Err(error))) = settled
            && let Some(hub) = self.hub.upgrade()
        {
            let attempts = entry.attempt;
            hub.undelivered.fetch_add(1, Ordering::Relaxed);
            hub.report(Undelivered::new(&entry.message, None, attempts, error));
        }
        Ok(())
    }

    /// Whoever waits for room here may go on.
    fn tell_room(&self, room: Option<usize>) {
        if let Some(target) = room
            && let Some(hub) = self.hub.upgrade()
        {
            hub.room(target);
        }
    }

    /// Ends the subscription.
    pub(crate) fn unsubscribe(self: &Arc<Self>) {
        match self.hub.upgrade() {
            Some(hub) => hub.leave(self),
            // It has ended with the hub.
            None => {
                let _queue = std::mem::take(&mut self.lock().queue);
            }
        }
    }

    /// It is over. What it holds that was published with acknowledgement, for somebody else.
    pub(super) fn end(
        &self,
        error: Option<Error>,
        wakers: &mut Vec<Waker>,
        dropped: &mut Vec<Dropped>,
    ) -> Vec<OutMessage> {
        let mut state = self.lock();
        if std::mem::replace(&mut state.over, true) {
            return Vec::new();
        }
        let last = state.stats();
        wakers.extend(state.consumer.take());
        let held = std::mem::take(&mut state.held).into_values();
        let paused = std::mem::take(&mut state.paused).into_values();
        let waiting = paused.chain(std::mem::take(&mut state.queue));
        state.bytes = 0;
        drop(state);
        let mut left = Vec::new();
        for (taken, entry) in held.map(|entry| (true, entry)).chain(waiting.map(|entry| (false, entry))) {
            left.extend((entry.qos > Qos::AtMostOnce).then(|| entry.message_for_others(taken)));
            dropped.push(Dropped(entry));
        }
        self.standing.end(error, last, wakers);
        left
    }

    /// The hub is gone. What waits can still be taken: nobody else would get it.
    pub(super) fn orphan(&self, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.over, true) {
            return;
        }
        let paused = std::mem::take(&mut state.paused);
        state.queue.extend(paused.into_values());
        wakers.extend(state.consumer.take());
        let last = state.stats();
        drop(state);
        self.standing.end(Some(Error::unavailable("the hub is gone")), last, wakers);
    }

    /// Which of the hub's subscriptions it is.
    pub(super) fn target(&self) -> usize {
        self.lock().target
    }
}

impl State {
    fn items(&self) -> usize {
        self.queue.len() + self.paused.len() + self.held.len()
    }

    fn is_full(&self, limits: QueueLimits, message: &OutMessage) -> bool {
        let items = self.items();
        items > 0 && (items >= limits.items || self.bytes + message.held_bytes() > limits.bytes)
    }

    /// Those whose time has come go first.
    fn resume(&mut self, now: Instant) {
        while let Some(entry) = self.paused.first_entry().filter(|entry| entry.key().0 <= now) {
            self.queue.push_front(entry.remove());
        }
    }

    /// Takes the first message, unless too many are held.
    fn take(&mut self, inflight: usize) -> Option<Local> {
        let first = self.queue.front()?;
        if first.qos > Qos::AtMostOnce && self.held.len() >= inflight && !self.over {
            return None;
        }
        let entry = self.queue.pop_front()?;
        // What comes again has had its number.
        let counted = entry.attempt == 1;
        self.seq += u64::from(counted);
        let message = &entry.message;
        let local = Local {
            topic: message.topic().clone(),
            payload: message.payload().clone(),
            meta: message.meta().clone(),
            qos: entry.qos,
            attempt: entry.attempt,
            retained: message.is_retained(),
            seq: counted.then_some(self.seq),
            peer: entry.peer.clone(),
            id: entry.id,
        };
        if entry.qos > Qos::AtMostOnce {
            self.held.insert(entry.id, entry);
        } else {
            self.bytes -= entry.message.held_bytes();
        }
        Some(local)
    }

    /// Whether whoever was turned away is to be told of room: for some messages at once, where there were some.
    fn relieve(&mut self, limits: QueueLimits) -> Option<usize> {
        let has_room = self.items() <= limits.items / 2 && self.bytes <= limits.bytes / 2;
        let tell = self.wants_room && has_room;
        self.wants_room &= !tell;
        tell.then_some(self.target)
    }

    fn stats(&self) -> QueueStats {
        let mut stats = QueueStats::default();
        stats.items = self.queue.len() + self.paused.len();
        stats.bytes = self.bytes;
        stats.unsettled = self.held.len();
        (stats.received, stats.dropped) = (self.received, self.dropped);
        stats
    }
}
