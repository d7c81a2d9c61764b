//! The subscriptions that we have at the peer (§12.12), and what it delivers on them.
//!
//! ```text
//!         sent                   confirmation            unsubscribe, closed by its queue: `unsubscribe` sent
//!  NEW ---------> REQUESTED ----------------> ACTIVE -----------------------------------------------> ENDING
//!   |                |    |                     |                                                       |
//!   |   confirmation |    | unsubscribe         | `unsubscribe` received: ANSWERING until the answer    | `unsubscribe` or a
//!   |     with error |    +--------> ENDING     | is sent                                               | confirmation with
//!   |                v                          v                                                       v error received
//!   |              OVER                       OVER                                                    OVER
//!   | unsubscribe
//!   +------> OVER: nothing is sent
//! ```
//!
//! A subscription that is over keeps its slot here until the application has polled what it holds, or has let it go. Where
//! the session is lost but not the connection, REQUESTED and ACTIVE go back to NEW.

use bytes::Bytes;

use super::desk::{Desk, Notice};
use super::inbox::{Group, Inbox, Taken};
use super::message::{AppMeta, Said};
use super::receiver::Receiver;
use super::types::{
    Delivery, MessageId, Overflow, PubSubEvent, Qos, QueueLimits, QueueStats, SubscriptionId,
};
use crate::message::{Code, Envelope, Error, Id, Kind, build_bytes, key};
use crate::pattern::received::{payload_of, text_of};
use crate::pattern::{Context, Entity, Gone, Home, OpenIds, Outgoing, Target, Text};
use crate::session::Violation;
use crate::topic::{check_topic, has_wildcard};

/// When a message may come again that our queue has no room for.
const RETRY_AFTER_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Subscription {
    /// What the application knows it by.
    pub(super) id: Id,
    /// What the peer knows it by: in each session another id.
    wire: Id,
    slot: usize,
    filter: Text,
    wildcard: bool,
    qos: Qos,
    /// What is said in its opening.
    meta: Bytes,
    pub(super) state: State,
    /// It was confirmed in an earlier session, and not yet in this one.
    renewed: bool,
    /// The application has let it go.
    released: bool,
    pub(super) receiver: Receiver,
    pub(super) inbox: Inbox<Delivery>,
    /// The number of the last delivery.
    seq: u64,
    lost: u64,
}

#[derive(Debug)]
pub(super) enum State {
    New,
    Requested,
    Active { granted: Qos },
    Ending { sent: bool },
    Answering,
    Over,
}

/// What is asked of the peer.
pub(super) struct Wish {
    pub(super) filter: Text,
    pub(super) qos: Qos,
    /// Deliveries that may be unsettled.
    pub(super) inflight: u32,
    pub(super) meta: Bytes,
    pub(super) queue: QueueLimits,
}

impl Subscription {
    pub(super) fn new(id: Id, slot: usize, wish: Wish) -> Self {
        let Wish { filter, qos, inflight, meta, queue } = wish;
        Self {
            id,
            wire: id,
            slot,
            wildcard: has_wildcard(&filter),
            filter,
            qos,
            meta,
            state: State::New,
            renewed: false,
            released: false,
            receiver: Receiver::new(Home::Subscription(slot), inflight as usize),
            inbox: Inbox::new(queue),
            seq: 0,
            lost: 0,
        }
    }

    pub(super) fn subscription(&self) -> SubscriptionId {
        SubscriptionId { slot: self.slot, id: self.id }
    }

    /// Whether the peer still counts it.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Over)
    }

    /// Whether its slot is free: it is over, nothing of it is wanted, and nothing is left to be acknowledged.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Over) && self.released && self.receiver.len() == 0
    }

    /// Whether the application has let it go.
    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    /// The subscribe message leaves.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        if !matches!(self.state, State::New) {
            return None;
        }
        self.state = State::Requested;
        cx.open.insert(self.wire, Entity::Subscription(self.slot));
        Some(self.opening())
    }

    fn opening(&self) -> Outgoing {
        let filter = Target::Address(self.filter.clone());
        Outgoing { meta: self.meta.clone(), ..Outgoing::new(Kind::Subscribe, self.wire, None, filter) }
    }

    /// The session is lost, and a fresh one is to come: there it is subscribed again, by another id. What came before can
    /// still be polled, but nobody waits for what the application says to it. Whether it goes on.
    pub(super) fn renew(&mut self, cx: &mut Context<'_>) -> bool {
        cx.open.remove(self.wire, Entity::Subscription(self.slot));
        self.receiver.clear(cx.open);
        match self.state {
            State::New => return true,
            State::Requested => {}
            State::Active { .. } => self.renewed = true,
            State::Ending { .. } | State::Answering | State::Over => {
                self.state = State::Over;
                return false;
            }
        }
        self.state = State::New;
        self.wire = cx.ids.next(cx.now);
        self.seq = 0;
        true
    }

    /// A session may have other limits than the one before: why it cannot be subscribed again.
    pub(super) fn check_queued(&self, limit: usize) -> Option<Error> {
        let len = self.opening().encoded_len();
        (matches!(self.state, State::New) && len > limit).then(|| {
            let message = alloc::format!("a subscription of {len} bytes, where the peer takes {limit}");
            Error::new(Code::MESSAGE_TOO_LARGE, message).with_processed(false)
        })
    }

    /// Whether it waits to be sent.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self.state, State::New)
    }

    /// An `unsubscribe` leaves: ours, or the answer to the peer's.
    pub(super) fn send_end(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        match &mut self.state {
            State::Ending { sent } if !*sent => {
                *sent = true;
                self.receiver.clear(cx.open);
            }
            State::Answering => self.state = State::Over,
            _ => return None,
        }
        Some(Outgoing::new(Kind::Unsubscribe, cx.ids.next(cx.now), Some(self.wire), Target::Null))
    }

    /// The peer confirms, or refuses. Whether that was still waited for.
    pub(super) fn handle_confirmation(
        &mut self,
        envelope: &Envelope<'_>,
        desk: &mut Desk,
        open: &mut OpenIds,
    ) -> Result<bool, Violation> {
        match (&self.state, &envelope.error) {
            // A refusal: the peer has no such subscription, and will not answer that we end it.
            (State::Requested | State::Ending { .. }, Some(error)) => {
                self.over(Some(Error::from(*error)), desk, open);
                Ok(true)
            }
            (State::Requested, None) => {
                let granted = envelope.meta.get_u64(key::QOS).and_then(Qos::from_wire).unwrap_or_default();
                if granted > self.qos {
                    return Err(Violation::WrongQos(self.wire));
                }
                self.state = State::Active { granted };
                let subscription = self.subscription();
                desk.events.push_back(match core::mem::take(&mut self.renewed) {
                    true => PubSubEvent::Resubscribed { subscription, granted },
                    false => PubSubEvent::Confirmed(subscription, granted),
                });
                Ok(true)
            }
            (State::Ending { .. }, None) => Ok(false),
            _ => Err(Violation::WrongRole(self.wire)),
        }
    }

    /// The peer ends it, or answers that we have.
    pub(super) fn handle_end(&mut self, error: Option<Error>, desk: &mut Desk, open: &mut OpenIds) {
        match self.state {
            State::Ending { sent: true } => self.over(None, desk, open),
            // What we have not said yet is the answer.
            State::Ending { sent: false } => {
                self.over(None, desk, open);
                self.state = State::Answering;
            }
            _ => {
                self.over(error, desk, open);
                self.state = State::Answering;
                desk.notices.push_back(Notice::Unsubscribe(self.subscription()));
            }
        }
    }

    /// It is over, and the application is told unless it has ended it.
    pub(super) fn over(&mut self, error: Option<Error>, desk: &mut Desk, open: &mut OpenIds) {
        let told = matches!(self.state, State::Ending { .. } | State::Answering | State::Over);
        open.remove(self.wire, Entity::Subscription(self.slot));
        self.receiver.clear(open);
        self.state = State::Over;
        if !told {
            desk.events.push_back(PubSubEvent::Ended(self.subscription(), error));
        }
    }

    /// The connection is closing: what was accepted may still be acknowledged.
    pub(super) fn wind_up(&mut self, error: Error, desk: &mut Desk) {
        let told = matches!(self.state, State::Ending { .. } | State::Answering | State::Over);
        self.state = State::Over;
        if !told {
            desk.events.push_back(PubSubEvent::Ended(self.subscription(), Some(error)));
        }
    }

    /// The application wants nothing more of it.
    pub(super) fn release(&mut self, desk: &mut Desk, open: &mut OpenIds) {
        self.released = true;
        self.inbox.retain(|_| false);
        match self.state {
            State::New => {
                self.state = State::Over;
                // Otherwise these would pile up where the transport takes nothing.
                let ours = self.subscription();
                desk.notices.retain(|notice| !matches!(notice, Notice::Subscribe(id) if *id == ours));
            }
            State::Requested | State::Active { .. } => self.begin_end(desk, open),
            State::Ending { .. } | State::Answering | State::Over => {}
        }
    }

    /// We end it. Unsettled deliveries are over with it; what was settled before is told first.
    fn begin_end(&mut self, desk: &mut Desk, open: &mut OpenIds) {
        self.receiver.forget_unsettled(open);
        self.state = State::Ending { sent: false };
        desk.notices.push_back(Notice::Unsubscribe(self.subscription()));
    }

    /// A delivery came.
    pub(super) fn handle_delivery(
        &mut self,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        group: Group,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) -> Result<(), crate::ConnectionError> {
        let granted = match self.state {
            State::Active { granted } => granted,
            State::Ending { .. } => {
                desk.late += 1;
                return Ok(());
            }
            _ => return Err(Violation::WrongRole(self.wire).into()),
        };
        if envelope.error.is_some() {
            return Err(Violation::MisplacedError.into());
        }
        // In a continuation a key with a bad value is ignored (§5.10).
        let (said, _) = Said::read(envelope.meta);
        if said.qos > granted {
            return Err(Violation::WrongQos(self.wire).into());
        }
        let topic = self.topic_of(&said, frame)?;
        if said.qos != Qos::AtMostOnce && !self.is_new(envelope.id, &said, desk, cx)? {
            return Ok(());
        }
        let seq = self.count(&said);
        let delivery = |id| Delivery {
            id,
            topic,
            qos: said.qos,
            dup: said.dup,
            attempt: said.attempt,
            seq,
            retained: said.retained,
            meta: said.rest(envelope.meta),
            payload: payload_of(envelope, frame),
        };
        if said.qos == Qos::AtMostOnce {
            let delivery = delivery(MessageId { place: None, id: envelope.id });
            self.take_lossy(delivery, group, desk, cx.open);
            return Ok(());
        }
        if !self.receiver.has_room() {
            self.inbox.note_dropped();
            let error = Error::resource_exhausted("more messages are unsettled than the subscription allows");
            return cx.refuse_attempt(envelope.id, said.attempt, error);
        }
        let delivery = delivery(self.receiver.admit(envelope.id, said.qos, said.attempt, cx.open));
        self.take(delivery, group, desk, cx.open);
        Ok(())
    }

    /// The topic of a delivery, which must be said where the filter does not say it.
    fn topic_of(&self, said: &Said<'_>, frame: &Bytes) -> Result<Text, Violation> {
        if !self.wildcard {
            return Ok(self.filter.clone());
        }
        let topic = said.topic.filter(|topic| check_topic(topic).is_ok());
        let topic = topic.ok_or(Violation::MissingTopic(self.wire))?;
        Ok(text_of(topic, frame))
    }

    /// Whether a delivery is not one that is still held, or remembered.
    fn is_new(
        &mut self,
        id: Id,
        said: &Said<'_>,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) -> Result<bool, Violation> {
        match cx.open.get(id) {
            None => Ok(true),
            Some(Entity::Held(Home::Subscription(home), slot)) if home == self.slot && said.dup => {
                desk.late += 1;
                self.receiver.repeated(slot, said.attempt, desk);
                Ok(false)
            }
            Some(_) => Err(Violation::DuplicateId(id)),
        }
    }

    /// The number of a delivery (§12.6). The publisher says it behind what it has dropped, and need not otherwise; those
    /// between are lost. What comes again has had its number.
    fn count(&mut self, said: &Said<'_>) -> Option<u64> {
        if said.dup {
            return None;
        }
        let next = self.seq.saturating_add(1);
        self.seq = next.max(said.seq.unwrap_or(next));
        self.lost = self.lost.saturating_add(self.seq - next);
        Some(self.seq)
    }

    /// Holds a message that nobody sends again.
    fn take_lossy(&mut self, delivery: Delivery, group: Group, desk: &mut Desk, open: &mut OpenIds) {
        let oldest_goes = self.inbox.overflow() == Overflow::DropOldest;
        let Self { inbox, receiver, .. } = self;
        let may_go = |oldest: &Delivery| oldest_goes || oldest.qos == Qos::AtMostOnce;
        let taken = inbox.push_or_drop(delivery, group, may_go, |oldest| decline(receiver, oldest, desk));
        self.taken(taken, desk, open);
    }

    /// Holds a message that is sent again if it is not accepted.
    fn take(&mut self, delivery: Delivery, group: Group, desk: &mut Desk, open: &mut OpenIds) {
        let Self { inbox, receiver, .. } = self;
        let oldest_goes = inbox.overflow() == Overflow::DropOldest;
        let message = delivery.id;
        let taken =
            inbox.push_or_drop(delivery, group, |_| oldest_goes, |oldest| decline(receiver, oldest, desk));
        if taken == Taken::Dropped {
            receiver.nack(message, no_room(), desk).ok();
        }
        self.taken(taken, desk, open);
    }

    fn taken(&mut self, taken: Taken, desk: &mut Desk, open: &mut OpenIds) {
        match taken {
            Taken::Held { announce: true } => {
                desk.events.push_back(PubSubEvent::Delivered(self.subscription()));
            }
            Taken::Held { announce: false } | Taken::Dropped => {}
            Taken::Close => {
                let error = Error::resource_exhausted("the subscription's queue is full");
                desk.events.push_back(PubSubEvent::Ended(self.subscription(), Some(error)));
                self.begin_end(desk, open);
            }
        }
    }

    /// The oldest message. None is left where it is gone.
    pub(super) fn poll(&mut self) -> Result<Option<Delivery>, Gone> {
        if self.released {
            return Err(Gone);
        }
        let delivery = self.inbox.poll();
        let more = matches!(self.state, State::New | State::Requested | State::Active { .. });
        if delivery.is_none() && !more {
            self.released = true;
            return Err(Gone);
        }
        Ok(delivery)
    }

    pub(super) fn stats(&self) -> QueueStats {
        let ((items, bytes), (received, dropped)) = (self.inbox.size(), self.inbox.counts());
        QueueStats { items, bytes, unsettled: self.receiver.len(), received, dropped, lost: self.lost }
    }
}

/// What had to go from the queue is not lost, if its sender has it still.
fn decline(receiver: &mut Receiver, delivery: Delivery, desk: &mut Desk) {
    if delivery.qos != Qos::AtMostOnce {
        receiver.nack(delivery.id, no_room(), desk).ok();
    }
}

fn no_room() -> Error {
    let error = Error::resource_exhausted("the subscriber's queue is full").with_processed(false);
    error.with_retry_after_ms(RETRY_AFTER_MS)
}

/// The metadata of a subscribe message.
pub(super) fn subscribe_meta(qos: Qos, inflight: Option<u32>, group: Option<&str>, app: &AppMeta) -> Bytes {
    let app = app.as_meta();
    let own =
        usize::from(qos > Qos::AtMostOnce) + usize::from(inflight.is_some()) + usize::from(group.is_some());
    if own + app.len() == 0 {
        return Bytes::new();
    }
    build_bytes(|out| {
        out.map((own + app.len()) as u64)?;
        if qos > Qos::AtMostOnce {
            out.str(key::QOS)?.u8(qos.to_wire())?;
        }
        if let Some(inflight) = inflight {
            out.str(key::INFLIGHT)?.u32(inflight)?;
        }
        if let Some(group) = group {
            out.str(key::GROUP)?.str(group)?;
        }
        out.writer_mut().extend_from_slice(app.entries());
        Ok(())
    })
}
