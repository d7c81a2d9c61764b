//! The messages that we send with acknowledgement (§12.13): publications, and the deliveries of one subscription. What is
//! queued and was never sent is not here yet.
//!
//! ```text
//!            first attempt         ack, at least once
//!  (queue) ---------------> SENT ------------------------------------------------> (slot free)  Accepted
//!                           ^ |  |                                                     ^
//!      sent again:          | |  | ack, exactly once: Accepted          complete       |
//!      dup, attempt + 1     | |  +---------------------------> RELEASING -------------+|
//!                           | |                                    ^                  ||
//!   AGAIN ------------------+ | nack, time-out                     | ack              ||
//!     ^  ^                    v                                    |                  ||
//!     |  +---- time-out ------+---- last time-out: GivenUp ----> FAILED --------------+|  nack, or ack at least once
//!     |                       +---- nack                           |                   |
//!     | its time has come     v      last, or pointless: GivenUp, Rejected            |
//!   WAITING <----------- (retry_after) ----------------------------------------------->+
//! ```
//!
//! In WAITING and AGAIN the message keeps its place in flight, and an `ack` that comes late settles it as in SENT. In
//! FAILED nothing is sent any more, but the receiver may still hold the message: it counts as in flight until the answer
//! comes (§12.11).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::desk::{Desk, SentId};
use super::retry::retry_wait;
use super::types::Qos;
use crate::message::{Code, Error, Id};
use crate::pattern::{Entity, OpenIds, Owner};
use crate::time::Instant;

/// What a message holds in memory.
pub(super) trait Weigh {
    fn weight(&self) -> usize;

    /// Whether the application says when it is released.
    fn is_durable(&self) -> bool {
        false
    }
}

#[derive(Debug)]
pub(super) struct Sender<M> {
    owner: Owner,
    slots: slab::Slab<Sending<M>>,
    /// Those whose time has come; what was settled since is skipped.
    again: VecDeque<(usize, Id)>,
    /// So many may be in flight.
    limit: usize,
    /// Bytes of the messages that may still have to be sent again, and how many these are.
    bytes: usize,
    kept: usize,
}

#[derive(Debug)]
struct Sending<M> {
    id: Id,
    /// What the owner wants to know again.
    tag: u64,
    qos: Qos,
    attempt: u32,
    timer: Option<Instant>,
    state: State<M>,
}

#[derive(Debug)]
enum State<M> {
    Sent(M),
    Waiting(M),
    Again(M),
    Failed,
    Releasing {
        /// The `release` has left.
        sent: bool,
    },
}

/// A message that is to be sent for the first time here.
pub(super) struct First<M> {
    pub(super) id: Id,
    pub(super) tag: u64,
    pub(super) qos: Qos,
    /// Which attempt it is: more than 1 where it goes on from an earlier session.
    pub(super) attempt: u32,
    pub(super) message: M,
}

/// What goes out once more.
pub(super) struct Repeat<'a, M> {
    pub(super) id: Id,
    pub(super) qos: Qos,
    pub(super) attempt: u32,
    pub(super) message: &'a M,
}

/// What the application is to be told of a message, once.
pub(super) struct Report<M> {
    pub(super) id: Id,
    pub(super) tag: u64,
    pub(super) attempts: u32,
    pub(super) message: M,
    pub(super) outcome: Outcome,
}

/// What was sent and has no outcome when all ends.
pub(super) struct Untold<M> {
    pub(super) id: Id,
    pub(super) tag: u64,
    pub(super) attempts: u32,
    pub(super) message: M,
}

pub(super) enum Outcome {
    Accepted,
    Rejected(Error),
    GivenUp(Error),
}

/// What the peer sent does not fit the state of the message.
pub(super) struct WrongState;

impl<M: Weigh> Sender<M> {
    pub(super) fn new(owner: Owner, limit: usize) -> Self {
        Self { owner, slots: slab::Slab::new(), again: VecDeque::new(), limit, bytes: 0, kept: 0 }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether one message more may be in flight.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.limit
    }

    /// Whether something is to be sent again now.
    pub(super) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Messages in flight.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Messages that are kept to be sent again, and the bytes that they hold.
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.kept, self.bytes)
    }

    fn entity(&self, slot: usize) -> Entity {
        Entity::Sent(self.owner, slot)
    }

    /// A message goes out.
    pub(super) fn begin(&mut self, first: First<M>, now: Instant, desk: &mut Desk, open: &mut OpenIds) {
        let First { id, tag, qos, attempt, message } = first;
        let due = now + desk.patience.ack_timeout;
        self.bytes += message.weight();
        self.kept += 1;
        let state = State::Sent(message);
        let slot = self.slots.insert(Sending { id, tag, qos, attempt, timer: Some(due), state });
        desk.timers.insert((due, self.owner, slot));
        open.insert(id, self.entity(slot));
    }

    /// A message that was acknowledged in an earlier session is to be released.
    pub(super) fn begin_release(&mut self, id: Id, open: &mut OpenIds) {
        let (tag, qos, attempt) = (0, Qos::ExactlyOnce, 0);
        let state = State::Releasing { sent: true };
        let slot = self.slots.insert(Sending { id, tag, qos, attempt, timer: None, state });
        open.insert(id, self.entity(slot));
    }

    /// The next message that is to go out again, which it does with this.
    pub(super) fn repeat(&mut self, now: Instant, desk: &mut Desk) -> Option<Repeat<'_, M>> {
        let slot = loop {
            let (slot, id) = self.again.pop_front()?;
            let sending = self.slots.get(slot).filter(|sending| sending.id == id);
            if sending.is_some_and(|sending| matches!(sending.state, State::Again(_))) {
                break slot;
            }
        };
        let due = now + desk.patience.ack_timeout;
        let sending = self.slots.get_mut(slot)?;
        if let State::Again(message) = core::mem::replace(&mut sending.state, State::Failed) {
            sending.state = State::Sent(message);
        }
        sending.attempt = sending.attempt.saturating_add(1);
        sending.timer = Some(due);
        desk.timers.insert((due, self.owner, slot));
        let State::Sent(message) = &sending.state else { return None };
        let Sending { id, qos, attempt, .. } = *sending;
        Some(Repeat { id, qos, attempt, message })
    }

    /// The receiver has taken responsibility. Whether it is to be told now that the message will not come again.
    pub(super) fn handle_ack(
        &mut self,
        slot: usize,
        desk: &mut Desk,
        open: &mut OpenIds,
    ) -> (Option<Report<M>>, bool) {
        let Some(sending) = self.slots.get_mut(slot) else { return (None, false) };
        if matches!(sending.state, State::Releasing { .. }) {
            return (None, false);
        }
        let (id, qos) = (sending.id, sending.qos);
        if qos != Qos::ExactlyOnce {
            return (self.remove(slot, Outcome::Accepted, desk, open), false);
        }
        self.stop_timer(slot, desk);
        let report = self.take_message(slot, State::Releasing { sent: false }, Outcome::Accepted);
        // Where it was given up before, the application does not follow it any more.
        if !report.as_ref().is_some_and(|report| report.message.is_durable()) {
            desk.releases.push_back(SentId { owner: self.owner, slot, id });
        }
        (report, true)
    }

    /// The application has noted that a message was acknowledged, and lets it be released. Whether there is such a one.
    pub(super) fn release(&mut self, slot: usize, desk: &mut Desk) -> bool {
        let sending = self.slots.get(slot);
        let Some(Sending { id, state: State::Releasing { sent: false }, .. }) = sending else { return false };
        desk.releases.push_back(SentId { owner: self.owner, slot, id: *id });
        true
    }

    /// The receiver has not accepted the message: the attempt that it names, or the last one.
    pub(super) fn handle_nack(
        &mut self,
        slot: usize,
        attempt: Option<u64>,
        error: Error,
        now: Instant,
        desk: &mut Desk,
        open: &mut OpenIds,
    ) -> Result<Option<Report<M>>, WrongState> {
        let Some(sending) = self.slots.get(slot) else { return Ok(None) };
        let last = sending.attempt >= desk.patience.attempts;
        // A later one is on its way, and will be answered for itself: who receives it does not know the message any more.
        let crossed = attempt.is_some_and(|attempt| attempt < u64::from(sending.attempt));
        match &sending.state {
            State::Releasing { .. } => Err(WrongState),
            State::Sent(_) | State::Failed if crossed => Ok(None),
            State::Failed => Ok(self.remove(slot, Outcome::GivenUp(error), desk, open)),
            // Another answer to an attempt that has failed already.
            State::Waiting(_) | State::Again(_) => Ok(None),
            State::Sent(_) => {
                let [.., random] = sending.id.to_bytes();
                let most = desk.patience.ack_timeout;
                let wait = retry_wait(&error, sending.attempt, random, most);
                // It has crossed the announcement that the peer leaves: whoever is next takes it.
                match wait.or((desk.holds_back && error.code == Code::DRAINING).then_some(most)) {
                    None => Ok(self.remove(slot, Outcome::Rejected(error), desk, open)),
                    Some(_) if last => Ok(self.remove(slot, Outcome::GivenUp(error), desk, open)),
                    Some(wait) => {
                        self.stop_timer(slot, desk);
                        self.wait(slot, now + wait, desk);
                        Ok(None)
                    }
                }
            }
        }
    }

    fn wait(&mut self, slot: usize, until: Instant, desk: &mut Desk) {
        let Some(sending) = self.slots.get_mut(slot) else { return };
        if let State::Sent(message) = core::mem::replace(&mut sending.state, State::Failed) {
            sending.state = State::Waiting(message);
            sending.timer = Some(until);
            desk.timers.insert((until, self.owner, slot));
        }
    }

    /// The receiver has forgotten the message.
    pub(super) fn handle_complete(&mut self, slot: usize, open: &mut OpenIds) -> Result<Id, WrongState> {
        let sending = self.slots.get(slot).ok_or(WrongState)?;
        if !matches!(sending.state, State::Releasing { sent: true }) {
            return Err(WrongState);
        }
        let id = sending.id;
        self.slots.remove(slot);
        open.remove(id, self.entity(slot));
        Ok(id)
    }

    /// The `release` of a message leaves; false where it need not.
    pub(super) fn send_release(&mut self, release: SentId) -> bool {
        let sending = self.slots.get_mut(release.slot).filter(|sending| sending.id == release.id);
        match sending.map(|sending| &mut sending.state) {
            Some(State::Releasing { sent }) => !core::mem::replace(sent, true),
            _ => false,
        }
    }

    /// A timer has run out: no acknowledgement, or the wait before a repetition is over.
    pub(super) fn expire(&mut self, slot: usize, desk: &mut Desk) -> Option<Report<M>> {
        let sending = self.slots.get_mut(slot)?;
        sending.timer = None;
        let last = sending.attempt >= desk.patience.attempts;
        match core::mem::replace(&mut sending.state, State::Failed) {
            State::Sent(message) if last => {
                sending.state = State::Sent(message);
                let error = Error::deadline_exceeded("no acknowledgement has come");
                self.take_message(slot, State::Failed, Outcome::GivenUp(error))
            }
            State::Sent(message) | State::Waiting(message) => {
                sending.state = State::Again(message);
                self.again.push_back((slot, sending.id));
                None
            }
            other => {
                sending.state = other;
                None
            }
        }
    }

    fn stop_timer(&mut self, slot: usize, desk: &mut Desk) {
        if let Some(at) = self.slots.get_mut(slot).and_then(|sending| sending.timer.take()) {
            desk.timers.remove(&(at, self.owner, slot));
        }
    }

    /// The message is not kept any more, but its place in flight is.
    fn take_message(&mut self, slot: usize, state: State<M>, outcome: Outcome) -> Option<Report<M>> {
        let sending = self.slots.get_mut(slot)?;
        let Sending { id, tag, attempt: attempts, .. } = *sending;
        match core::mem::replace(&mut sending.state, state) {
            State::Sent(message) | State::Waiting(message) | State::Again(message) => {
                self.bytes -= message.weight();
                self.kept -= 1;
                Some(Report { id, tag, attempts, message, outcome })
            }
            State::Failed | State::Releasing { .. } => None,
        }
    }

    fn remove(
        &mut self,
        slot: usize,
        outcome: Outcome,
        desk: &mut Desk,
        open: &mut OpenIds,
    ) -> Option<Report<M>> {
        self.stop_timer(slot, desk);
        let report = self.take_message(slot, State::Failed, outcome);
        let sending = self.slots.remove(slot);
        open.remove(sending.id, self.entity(slot));
        report
    }

    /// The session is lost, and a fresh one is to come. What is acknowledged is released there; what is not is handed back,
    /// in the order of the ids.
    pub(super) fn renew(&mut self, desk: &mut Desk, open: &mut OpenIds) -> Vec<Untold<M>> {
        let Self { owner, slots, .. } = self;
        let owner = *owner;
        let mut unsettled = Vec::new();
        slots.retain(|slot, sending| {
            let id = sending.id;
            if let Some(at) = sending.timer.take() {
                desk.timers.remove(&(at, owner, slot));
            }
            if let State::Releasing { sent } = &mut sending.state {
                if core::mem::take(sent) {
                    desk.releases.push_back(SentId { owner, slot, id });
                }
                return true;
            }
            open.remove(id, Entity::Sent(owner, slot));
            let Sending { tag, attempt: attempts, .. } = *sending;
            let state = core::mem::replace(&mut sending.state, State::Failed);
            if let State::Sent(message) | State::Waiting(message) | State::Again(message) = state {
                unsettled.push(Untold { id, tag, attempts, message });
            }
            false
        });
        self.again.clear();
        (self.bytes, self.kept) = (0, 0);
        unsettled.sort_unstable_by_key(|message| message.id);
        unsettled
    }

    /// Forgets what was to be released: there is nobody for it.
    pub(super) fn forget_releases(&mut self, open: &mut OpenIds) {
        let Self { owner, slots, .. } = self;
        slots.retain(|slot, sending| {
            let forgotten = matches!(sending.state, State::Releasing { .. });
            if forgotten {
                open.remove(sending.id, Entity::Sent(*owner, slot));
            }
            !forgotten
        });
    }

    /// The timer of a message runs out at another time.
    pub(super) fn postpone(&mut self, slot: usize, until: Instant) {
        if let Some(sending) = self.slots.get_mut(slot) {
            sending.timer = Some(until);
        }
    }

    /// The end of all: what nobody was told of.
    pub(super) fn clear(&mut self, desk: &mut Desk, open: &mut OpenIds) -> Vec<Untold<M>> {
        let mut untold = Vec::new();
        for (slot, sending) in core::mem::take(&mut self.slots) {
            open.remove(sending.id, self.entity(slot));
            if let Some(at) = sending.timer {
                desk.timers.remove(&(at, self.owner, slot));
            }
            let Sending { id, tag, attempt: attempts, .. } = sending;
            if let State::Sent(message) | State::Waiting(message) | State::Again(message) = sending.state {
                untold.push(Untold { id, tag, attempts, message });
            }
        }
        self.again.clear();
        (self.bytes, self.kept) = (0, 0);
        untold
    }
}
