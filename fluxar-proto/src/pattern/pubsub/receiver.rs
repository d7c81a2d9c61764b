//! The messages that came with acknowledgement (§12.14): publications of the peer, and the deliveries of one subscription.
//!
//! ```text
//!          new id              ack, at least once               sent
//!  (none) --------> HELD --------------------------> ACKING ------------------------------------> (none)
//!                   |  |                                                                           ^
//!                   |  | ack, exactly once                release                       sent       |
//!                   |  +----------------------> ACKED ------------------> COMPLETING -------------+|
//!                   |                           ^  | same id, dup: acknowledged again              |
//!                   | nack                      +--+                                    sent       |
//!                   +------------------------> NACKING --------------------------------------------+
//! ```
//!
//! HELD is DELIVERED of the specification. A slot stays taken until the answer that frees it is *sent*: so what waits to be
//! sent is bounded by what may be in flight, however often a peer sends, resends or releases without reading.

use super::desk::Desk;
use super::types::{MessageId, PubSubEvent, Qos};
use crate::message::{Error, Id};
use crate::pattern::{Entity, Gone, Home, OpenIds};

#[derive(Debug)]
pub(super) struct Receiver {
    home: Home,
    slots: slab::Slab<Receiving>,
    /// So many may be unsettled.
    limit: usize,
}

#[derive(Debug)]
struct Receiving {
    id: Id,
    qos: Qos,
    /// The last one that came: what a `nack` answers.
    attempt: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Held,
    Acking,
    Acked {
        /// An acknowledgement has left.
        sent: bool,
        /// One waits to be sent.
        waits: bool,
    },
    Nacking,
    Completing,
}

/// A `release` for what was not acknowledged.
pub(super) struct NotAcknowledged;

impl Receiver {
    pub(super) fn new(home: Home, limit: usize) -> Self {
        Self { home, slots: slab::Slab::new(), limit }
    }

    /// Whether one message more may be unsettled.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.limit
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn entity(&self, slot: usize) -> Entity {
        Entity::Held(self.home, slot)
    }

    /// A new message came.
    pub(super) fn admit(&mut self, id: Id, qos: Qos, attempt: u32, open: &mut OpenIds) -> MessageId {
        let slot = self.slots.insert(Receiving { id, qos, attempt, state: State::Held });
        open.insert(id, self.entity(slot));
        MessageId { place: Some((self.home, slot)), id }
    }

    /// A message came again that is not settled. Only where it was acknowledged before there is something to say.
    pub(super) fn repeated(&mut self, slot: usize, attempt: u32, desk: &mut Desk) {
        let Some(receiving) = self.slots.get_mut(slot) else { return };
        receiving.attempt = receiving.attempt.max(attempt);
        if let State::Acked { waits, .. } = &mut receiving.state
            && !core::mem::replace(waits, true)
        {
            desk.acks.push_back(MessageId { place: Some((self.home, slot)), id: receiving.id });
        }
    }

    fn held(&mut self, message: MessageId) -> Result<&mut Receiving, Gone> {
        let slot = message.place.map(|(_, slot)| slot).ok_or(Gone)?;
        let receiving = self.slots.get_mut(slot).filter(|receiving| receiving.id == message.id);
        receiving.filter(|receiving| receiving.state == State::Held).ok_or(Gone)
    }

    /// The application accepts a message.
    pub(super) fn ack(&mut self, message: MessageId, desk: &mut Desk) -> Result<(), Gone> {
        let receiving = self.held(message)?;
        receiving.state = match receiving.qos {
            Qos::ExactlyOnce => State::Acked { sent: false, waits: true },
            _ => State::Acking,
        };
        desk.acks.push_back(message);
        Ok(())
    }

    /// The application does not accept a message.
    pub(super) fn nack(&mut self, message: MessageId, error: Error, desk: &mut Desk) -> Result<(), Gone> {
        self.held(message)?.state = State::Nacking;
        desk.nacks.push_back((message, error));
        Ok(())
    }

    /// The sender will not send the message again.
    pub(super) fn handle_release(&mut self, slot: usize, desk: &mut Desk) -> Result<(), NotAcknowledged> {
        let Some(receiving) = self.slots.get_mut(slot) else { return Ok(()) };
        match receiving.state {
            State::Acked { sent: true, .. } => {
                receiving.state = State::Completing;
                desk.completes.push_back(MessageId { place: Some((self.home, slot)), id: receiving.id });
                desk.events.push_back(PubSubEvent::Released(receiving.id));
                Ok(())
            }
            // Its answer is on its way.
            State::Completing => Ok(()),
            _ => Err(NotAcknowledged),
        }
    }

    /// An acknowledgement leaves; false where it need not.
    pub(super) fn send_ack(&mut self, slot: usize, id: Id, open: &mut OpenIds) -> bool {
        let Some(receiving) = self.slots.get_mut(slot).filter(|receiving| receiving.id == id) else {
            return false;
        };
        match &mut receiving.state {
            State::Acking => {
                self.remove(slot, open);
                true
            }
            State::Acked { sent, waits } => {
                *sent = true;
                core::mem::replace(waits, false)
            }
            _ => false,
        }
    }

    /// A `nack` or a `complete` leaves, and ends what there is of the message. The attempt that it answers; none where it
    /// need not leave.
    pub(super) fn send_last(&mut self, slot: usize, id: Id, open: &mut OpenIds) -> Option<u32> {
        let receiving = self.slots.get(slot).filter(|receiving| receiving.id == id)?;
        let attempt = receiving.attempt;
        matches!(receiving.state, State::Nacking | State::Completing).then(|| {
            self.remove(slot, open);
            attempt
        })
    }

    fn remove(&mut self, slot: usize, open: &mut OpenIds) {
        let receiving = self.slots.remove(slot);
        open.remove(receiving.id, self.entity(slot));
    }

    /// Nobody settles anything any more; but what was settled is still told.
    pub(super) fn forget_unsettled(&mut self, open: &mut OpenIds) {
        let Self { home, slots, .. } = self;
        slots.retain(|slot, receiving| {
            let tells = match receiving.state {
                State::Acking | State::Nacking | State::Acked { waits: true, .. } => true,
                State::Held | State::Acked { waits: false, .. } | State::Completing => false,
            };
            if !tells {
                open.remove(receiving.id, Entity::Held(*home, slot));
            }
            tells
        });
    }

    /// The end of all: nobody acknowledges anything any more.
    pub(super) fn clear(&mut self, open: &mut OpenIds) {
        for (slot, receiving) in core::mem::take(&mut self.slots) {
            open.remove(receiving.id, self.entity(slot));
        }
    }
}
