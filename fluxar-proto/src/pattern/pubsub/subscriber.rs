//! The subscriptions that the peer has here (§12.12), and what is delivered on them.
//!
//! ```text
//!              confirm                        sent              end: `unsubscribe` sent       `unsubscribe` received
//!  REQUESTED ----------> CONFIRMING {queued} -----> {sent} ---------------------------> ENDING ---> (slot free)
//!    |    |                  |                        |
//!    |    | refused: confirmation with error          | `unsubscribe` received
//!    |    +-----------------------------------------> | ---------------> ANSWERING --- answer sent ---> (slot free)
//!    |      (slot free)                               |                      ^
//!    +---- `unsubscribe` received --------------------+----------------------+
//! ```
//!
//! CONFIRMING is ACTIVE of the specification. A slot stays taken until the last word on it is sent: so what is to be said
//! is bounded by `max_subscriptions`, however fast a peer subscribes and unsubscribes without reading.

use alloc::collections::VecDeque;

use super::desk::{Desk, Notice};
use super::message::OutMessage;
use super::sender::{First, Outcome, Report, Sender, Untold, Weigh};
use super::types::{Delivered, Overflow, PubSubEvent, Qos, QueueLimits, QueueStats, SubscriberId};
use crate::message::{Error, Id, Kind, Marks, build_bytes, key};
use crate::pattern::{Context, Entity, Gone, OpenIds, Outgoing, Owner, Target, Text};
use crate::topic::has_wildcard;

impl Weigh for OutMessage {
    fn weight(&self) -> usize {
        self.held_bytes()
    }
}

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) id: Id,
    slot: usize,
    /// Deliveries must name their topics.
    wildcard: bool,
    wanted: Qos,
    /// How many deliveries the peer takes unsettled.
    inflight: usize,
    state: State,
    limits: QueueLimits,
    queue: VecDeque<OutMessage>,
    /// What the messages in `queue` hold in memory; most of it is shared.
    bytes: usize,
    pub(super) sender: Sender<OutMessage>,
    in_round: bool,
    /// A message was turned away as `Full`.
    wants_room: bool,
    /// How many deliveries were sent or dropped (§12.6), and whether the peer has to be told the number.
    count: u64,
    gap: bool,
    /// How many messages with acknowledgement were sent: they have numbers in that order.
    sent: u64,
    received: u64,
    dropped: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Requested,
    Active {
        granted: Qos,
        /// The confirmation has left.
        sent: bool,
    },
    Ending {
        error: Option<Error>,
        sent: bool,
    },
    Answering,
    /// The confirmation with this error has to be sent.
    Refused(Error),
}

impl Subscriber {
    pub(super) fn new(id: Id, slot: usize, filter: &Text, wanted: Qos, inflight: u32) -> Self {
        let owner = Owner::Subscriber(slot);
        Self {
            id,
            slot,
            wildcard: has_wildcard(filter),
            wanted,
            inflight: inflight as usize,
            state: State::Requested,
            limits: QueueLimits::default(),
            queue: VecDeque::new(),
            bytes: 0,
            sender: Sender::new(owner, 0),
            in_round: false,
            wants_room: false,
            count: 0,
            gap: false,
            sent: 0,
            received: 0,
            dropped: 0,
        }
    }

    fn subscriber(&self) -> SubscriberId {
        SubscriberId { slot: self.slot, id: self.id }
    }

    /// Whether the application may still do something with it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Requested | State::Active { .. })
    }

    pub(super) fn is_requested(&self) -> bool {
        self.state == State::Requested
    }

    /// The application grants what is wanted, or less.
    pub(super) fn confirm(&mut self, qos: Qos, limits: QueueLimits, desk: &mut Desk) -> Result<(), Gone> {
        if self.state != State::Requested {
            return Err(Gone);
        }
        self.limits = QueueLimits { items: limits.items.max(1), ..limits };
        self.sender.set_limit(self.inflight.min(self.limits.items));
        // What the peer has no place for can never be sent.
        let most = if self.inflight == 0 { Qos::AtMostOnce } else { self.wanted };
        self.state = State::Active { granted: qos.min(most), sent: false };
        desk.notices.push_back(Notice::Confirm(self.subscriber()));
        Ok(())
    }

    /// The confirmation leaves; what was delivered since may follow it. Where it is a refusal, the slot is free then.
    pub(super) fn send_confirmation(&mut self, desk: &mut Desk, cx: &mut Context<'_>) -> Option<Outgoing> {
        let confirmation = |cx: &mut Context<'_>| {
            Outgoing::new(Kind::Subscribe, cx.ids.next(cx.now), Some(self.id), Target::Null)
        };
        match &mut self.state {
            State::Active { granted, sent } if !*sent => {
                *sent = true;
                let granted = *granted;
                let mut outgoing = confirmation(cx);
                if granted > Qos::AtMostOnce {
                    outgoing.meta = build_bytes(|out| out.map(1)?.str(key::QOS)?.u8(granted.to_wire())?.ok());
                }
                self.wake(desk);
                Some(outgoing)
            }
            State::Refused(error) => Some(confirmation(cx).with_result(Err(error.clone()))),
            _ => None,
        }
    }

    /// An `unsubscribe` leaves: ours, or the answer to the peer's. With the second, the slot is free.
    pub(super) fn send_end(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        let error = match &mut self.state {
            State::Ending { error, sent } if !*sent => {
                *sent = true;
                error.take()
            }
            State::Answering => None,
            _ => return None,
        };
        let mut outgoing = Outgoing::new(Kind::Unsubscribe, cx.ids.next(cx.now), Some(self.id), Target::Null);
        outgoing.error = error.map(Into::into);
        Some(outgoing)
    }

    /// Whether nothing is left to be said, or to be waited for.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Answering | State::Refused(_))
    }

    /// The peer unsubscribes, or answers that we have. Whether its slot is free now.
    pub(super) fn handle_end(&mut self, desk: &mut Desk, open: &mut OpenIds) -> bool {
        self.forget(open);
        let answered = match self.state {
            State::Ending { sent, .. } => {
                if !sent {
                    // What we have not said yet is the answer.
                    self.state = State::Answering;
                }
                return sent;
            }
            State::Answering | State::Refused(_) => true,
            State::Requested | State::Active { .. } => false,
        };
        if !answered {
            let error = Error::unavailable("the subscriber has unsubscribed");
            self.over(&error, desk, open);
            self.state = State::Answering;
            desk.notices.push_back(Notice::End(self.subscriber()));
        }
        false
    }

    /// We end it. Where the peer does not know of a confirmation, it is refused instead (§12.12).
    pub(super) fn end(&mut self, error: Option<Error>, desk: &mut Desk, open: &mut OpenIds) {
        let why = error.clone().unwrap_or_else(|| Error::unavailable("the subscription was ended"));
        let requested = self.is_requested();
        let confirmed = matches!(self.state, State::Active { sent: true, .. });
        self.over(&why, desk, open);
        if confirmed {
            self.state = State::Ending { error, sent: false };
            desk.notices.push_back(Notice::End(self.subscriber()));
            return;
        }
        self.forget(open);
        self.state = State::Refused(why);
        // Otherwise the confirmation is queued, and becomes the refusal.
        if requested {
            desk.notices.push_back(Notice::Confirm(self.subscriber()));
        }
    }

    /// Whether something is to be delivered, or was and is not settled.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.queue.is_empty() || self.sender.len() > 0
    }

    /// Nothing more is delivered. The application is told of what was to be, and that it is over.
    pub(super) fn over(&mut self, why: &Error, desk: &mut Desk, open: &mut OpenIds) {
        let granted = self.granted().unwrap_or_default();
        let tell = |desk: &mut Desk, message: OutMessage, attempts: u32| {
            let (subscriber, error) = (SubscriberId { slot: self.slot, id: self.id }, why.clone());
            desk.events.push_back(PubSubEvent::Undelivered {
                subscriber,
                message,
                attempts,
                error,
                ended: true,
            });
        };
        let mut untold = self.sender.clear(desk, open);
        untold.sort_unstable_by_key(|untold| untold.tag);
        for Untold { message, attempts, .. } in untold {
            tell(desk, message, attempts);
        }
        for message in core::mem::take(&mut self.queue) {
            if message.qos().min(granted) > Qos::AtMostOnce {
                let attempts = message.attempts();
                tell(desk, message, attempts);
            }
        }
        self.bytes = 0;
        self.wants_room = false;
        if core::mem::take(&mut self.in_round) {
            desk.round.retain(|owner| *owner != Owner::Subscriber(self.slot));
        }
        desk.events.push_back(PubSubEvent::Unsubscribed(self.subscriber()));
    }

    /// Its id means nothing any more.
    pub(super) fn forget(&self, open: &mut OpenIds) {
        open.remove(self.id, Entity::Subscriber(self.slot));
    }

    fn granted(&self) -> Option<Qos> {
        match self.state {
            State::Active { granted, .. } => Some(granted),
            _ => None,
        }
    }

    /// What waits, and what may still have to be sent again, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes + self.sender.kept().1
    }

    /// Whether a message is beyond the bounds: of what waits, and of what may still have to be sent again.
    fn is_full(&self, message: &OutMessage) -> bool {
        let (kept, kept_bytes) = self.sender.kept();
        self.is_filled(message, (self.queue.len() + kept, self.bytes + kept_bytes))
    }

    /// Whether a message is beyond the bounds where so many are held, of so many bytes.
    fn is_filled(&self, message: &OutMessage, (items, bytes): (usize, usize)) -> bool {
        items > 0 && (items >= self.limits.items || bytes + message.held_bytes() > self.limits.bytes)
    }

    /// A message is to be delivered.
    pub(super) fn deliver(
        &mut self,
        message: &OutMessage,
        max_message: usize,
        desk: &mut Desk,
        open: &mut OpenIds,
    ) -> Result<Delivered, Gone> {
        let granted = self.granted().ok_or(Gone)?;
        let qos = message.qos().min(granted);
        if message.content().size() > max_message {
            self.drop_one();
            return Ok(Delivered::TooLarge);
        }
        let mut done = Delivered::Queued;
        while self.is_full(message) {
            let lossy = qos == Qos::AtMostOnce;
            let oldest_goes = match self.limits.overflow {
                Overflow::Wait if !lossy => {
                    self.wants_room = true;
                    return Ok(Delivered::Full);
                }
                Overflow::Close => {
                    let error = Error::resource_exhausted("the subscriber does not keep up");
                    self.end(Some(error), desk, open);
                    return Ok(Delivered::Closed);
                }
                Overflow::Wait => {
                    self.queue.front().is_some_and(|oldest| oldest.qos().min(granted) == Qos::AtMostOnce)
                }
                Overflow::DropOldest => true,
                Overflow::DropNewest => false,
            };
            // What is on its way cannot make room, and nothing has to go for what has no room all the same.
            let oldest_goes = oldest_goes && !self.is_filled(message, self.sender.kept());
            if !(oldest_goes && self.drop_oldest(granted, desk)) {
                self.drop_one();
                return Ok(Delivered::DroppedNewest);
            }
            done = Delivered::DroppedOldest;
        }
        self.received += 1;
        self.bytes += message.held_bytes();
        self.queue.push_back(message.clone());
        self.wake(desk);
        Ok(done)
    }

    /// Makes room. False where everything is on its way.
    fn drop_oldest(&mut self, granted: Qos, desk: &mut Desk) -> bool {
        let Some(message) = self.queue.pop_front() else { return false };
        self.bytes -= message.held_bytes();
        self.drop_one();
        if message.qos().min(granted) > Qos::AtMostOnce {
            let (subscriber, attempts) = (self.subscriber(), message.attempts());
            let error = Error::resource_exhausted("the subscriber does not keep up").with_processed(false);
            desk.events.push_back(PubSubEvent::Undelivered {
                subscriber,
                message,
                attempts,
                error,
                ended: false,
            });
        }
        true
    }

    /// A message is dropped instead of delivered.
    fn drop_one(&mut self) {
        self.dropped += 1;
        self.count += 1;
        self.gap = true;
    }

    /// Joins the round, if there is something that can be sent.
    pub(super) fn wake(&mut self, desk: &mut Desk) {
        if !self.in_round && self.is_ready() {
            self.in_round = true;
            desk.round.push_back(Owner::Subscriber(self.slot));
        }
    }

    fn is_ready(&self) -> bool {
        let State::Active { granted, sent: true } = self.state else { return false };
        let first =
            |message: &OutMessage| message.qos().min(granted) == Qos::AtMostOnce || self.sender.has_room();
        self.sender.has_again() || self.queue.front().is_some_and(first)
    }

    /// The next delivery, where it is its turn.
    pub(super) fn send(&mut self, desk: &mut Desk, cx: &mut Context<'_>) -> Option<Outgoing> {
        self.in_round = false;
        let outgoing = self.send_again(desk, cx).or_else(|| self.send_first(desk, cx));
        self.wake(desk);
        self.relieve(desk);
        outgoing
    }

    fn send_again(&mut self, desk: &mut Desk, cx: &mut Context<'_>) -> Option<Outgoing> {
        let repeat = self.sender.repeat(cx.now, desk)?;
        let marks = Marks {
            qos: repeat.qos.to_wire(),
            attempt: repeat.attempt,
            seq: None,
            retain: false,
            retained: repeat.message.is_retained(),
            topic: self.wildcard,
        };
        let outgoing = delivery(repeat.id, self.id, repeat.message.clone(), marks);
        desk.journal.sent_again(outgoing.id);
        Some(outgoing)
    }

    fn send_first(&mut self, desk: &mut Desk, cx: &mut Context<'_>) -> Option<Outgoing> {
        let granted = self.granted()?;
        if !self.is_ready() {
            return None;
        }
        let message = self.queue.pop_front()?;
        self.bytes -= message.held_bytes();
        let (id, qos) = (cx.ids.next(cx.now), message.qos().min(granted));
        let attempt = message.attempts().saturating_add(1);
        // What was sent to somebody else before is not counted (§12.6).
        let counted = attempt == 1;
        self.count += u64::from(counted);
        let seq = (counted && core::mem::take(&mut self.gap)).then_some(self.count);
        let marks = Marks {
            qos: qos.to_wire(),
            attempt,
            seq,
            retain: false,
            retained: message.is_retained(),
            topic: self.wildcard,
        };
        if qos > Qos::AtMostOnce {
            self.sent += 1;
            let first = First { id, tag: self.sent, qos, attempt, message: message.clone() };
            self.sender.begin(first, cx.now, desk, cx.open);
        }
        desk.journal.sent(id, message.topic());
        Some(delivery(id, self.id, message, marks))
    }

    /// The sender has something to tell of a delivery.
    pub(super) fn report(&mut self, report: Option<Report<OutMessage>>, desk: &mut Desk) {
        if let Some(Report { message, attempts, outcome, .. }) = report
            && let Outcome::Rejected(error) | Outcome::GivenUp(error) = outcome
        {
            let subscriber = self.subscriber();
            desk.events.push_back(PubSubEvent::Undelivered {
                subscriber,
                message,
                attempts,
                error,
                ended: false,
            });
        }
        self.wake(desk);
        self.relieve(desk);
    }

    /// Tells whoever was turned away that there is room again: for some messages at once, where there were some.
    fn relieve(&mut self, desk: &mut Desk) {
        if !self.wants_room {
            return;
        }
        let (kept, kept_bytes) = self.sender.kept();
        let (items, bytes) = (self.queue.len() + kept, self.bytes + kept_bytes);
        if items <= self.limits.items / 2 && bytes <= self.limits.bytes / 2 {
            self.wants_room = false;
            desk.events.push_back(PubSubEvent::Room(self.subscriber()));
        }
    }

    pub(super) fn stats(&self) -> QueueStats {
        let (items, bytes) = (self.queue.len(), self.bytes);
        let (unsettled, received, dropped) = (self.sender.len(), self.received, self.dropped);
        QueueStats { items, bytes, unsettled, received, dropped, lost: 0 }
    }
}

/// A delivery on its way out.
fn delivery(id: Id, subscription: Id, message: OutMessage, marks: Marks) -> Outgoing {
    let mut outgoing = Outgoing::new(Kind::Message, id, Some(subscription), Target::Null);
    outgoing.marks = marks;
    outgoing.delivery = Some(message);
    outgoing
}
