//! The calls that we make (§10.10).
//!
//! ```text
//!            sent                 response, error, deadline, connection lost
//!  QUEUED ---------> SENT ----------------------------------------------> DONE ----> (slot free)
//!    |                 |                                                        outcome taken
//!    |                 | cancel: `cancel` is sent, what still comes is late
//!    +--------+--------+---------------------------------------------------------> (slot free)
//!      cancel: nothing is sent;
//!      deadline, connection lost: DONE, certainly not processed
//! ```
//!
//! Where the session is lost but not the connection, QUEUED stays, and what is idempotent goes from SENT to QUEUED again
//! ([`renew`](super::renew)).

use bytes::Bytes;

use super::updates::Updates;
use super::{
    CallError, CallEvent, CallId, CallOptions, Calls, Context, Gone, Ready, Text, Timer, UpdateError,
    ceil_ms, continuation_len, cost, deadline_exceeded,
};
use crate::message::{Code, Envelope, Error, Id, Kind, Payload, key, verb};
use crate::pattern::opening::{BadOpening, Opening};
use crate::pattern::received::{held_payload_of, payload_of};
use crate::pattern::{Entity, OpenIds, Outgoing, Target};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Outbound {
    /// What the application knows it by.
    pub(super) id: Id,
    /// What the peer knows it by: in each session another id.
    pub(super) wire: Id,
    pub(super) state: State,
    /// It is kept when it is sent, and made again in a fresh session.
    idempotent: bool,
    /// It was sent in an earlier session.
    pub(super) repeated: bool,
    pub(super) deadline: Option<Instant>,
    updates: Updates,
}

/// A call as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Message {
    method: Text,
    meta: Bytes,
    payload: Payload,
}

impl Message {
    /// The bytes of a queued call that do not lie in its slot.
    pub(super) fn queued_len(&self) -> usize {
        self.meta.len() + self.payload.len()
    }

    /// How long it is on the wire at most, in bytes.
    pub(super) fn encoded_len(&self, has_deadline: bool) -> usize {
        let Self { method, meta, payload } = self;
        let opening = Opening { kind: Kind::Call, target: method, meta, payload };
        // It was checked when it was handed in.
        opening.check(&[(key::TIMEOUT_MS, has_deadline)]).unwrap_or(usize::MAX)
    }
}

/// What the callee may know of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was never sent.
    Never,
    /// It was sent in an earlier session only.
    Before,
    /// It was sent in this one.
    Now,
}

impl Known {
    /// Whether the call may have been acted upon.
    pub(super) fn was_sent(self) -> bool {
        self != Self::Never
    }
}

#[derive(Debug)]
pub(super) enum State {
    Queued(Message),
    /// With what it takes to make the call again, where that may be done.
    Sent(Option<Message>),
    /// The outcome waits for the application: the slot stays taken, so that the peer's limit on calls also bounds the
    /// outcomes that nobody has taken.
    Done(Result<Payload, Error>),
    /// Nothing more is to come.
    Over,
}

impl Outbound {
    /// What the callee may know of the call, which has no outcome yet; `None` where it has one.
    pub(super) fn in_flight(&self) -> Option<Known> {
        match self.state {
            State::Queued(_) if self.repeated => Some(Known::Before),
            State::Queued(_) => Some(Known::Never),
            State::Sent(_) => Some(Known::Now),
            State::Done(_) | State::Over => None,
        }
    }

    pub(super) fn is_queued(&self, call: CallId) -> bool {
        self.id == call.id && matches!(self.state, State::Queued(_))
    }
}

impl Calls {
    /// Makes a call; it is sent when the transport has room.
    pub(crate) fn open(
        &mut self,
        method: &str,
        payload: Payload,
        options: CallOptions,
        cx: &mut Context<'_>,
    ) -> Result<CallId, CallError> {
        self.check(method, &payload, &options)?;
        self.ready_to_call()?;
        let id = cx.ids.next(cx.now);
        let deadline = options.timeout.map(|timeout| cx.now + timeout);
        let message = Message { method: Text::from(method), meta: options.meta, payload };
        let len = message.queued_len();
        let slot = self.outbound.insert(Outbound {
            id,
            wire: id,
            state: State::Queued(message),
            idempotent: options.idempotent && self.limits.repeats,
            repeated: false,
            deadline,
            updates: Updates::default(),
        });
        let call = CallId { slot, id };
        self.enqueue(len, Ready::Call(call));
        if let Some(at) = deadline {
            self.deadlines.insert((at, Timer::Out(call)));
        }
        self.stats.made += 1;
        Ok(call)
    }

    /// Whether there is room for one more call.
    pub(crate) fn ready_to_call(&mut self) -> Result<(), CallError> {
        if self.started && self.peer_max_calls == 0 {
            return Err(CallError::NoCalls);
        }
        if self.room() == 0 {
            self.call_waits = true;
            return Err(CallError::Blocked);
        }
        Ok(())
    }

    fn check(&self, method: &str, payload: &Payload, options: &CallOptions) -> Result<(), CallError> {
        let opening = Opening { kind: Kind::Call, target: method, meta: &options.meta, payload };
        let len = opening.check(&[(key::TIMEOUT_MS, options.timeout.is_some())])?;
        // Before the handshake nobody knows; then the call is `Blocked` anyway.
        if self.started && len > self.peer_max_message {
            return Err(CallError::TooLarge { len, limit: self.peer_max_message });
        }
        Ok(())
    }

    pub(super) fn send_call(&mut self, call: CallId, cx: &mut Context<'_>) -> Option<Outgoing> {
        let Some(out) = self.outbound.get_mut(call.slot).filter(|out| out.is_queued(call)) else {
            self.over -= 1;
            return None;
        };
        let sent_before = out.in_flight().is_some_and(Known::was_sent);
        let State::Queued(message) = core::mem::replace(&mut out.state, State::Sent(None)) else {
            return None;
        };
        if out.deadline.is_some_and(|at| at <= cx.now) {
            self.queued_bytes -= cost(message.queued_len());
            self.finish_call(call, Err(out_of_time(sent_before)), cx.open);
            return None;
        }
        if out.idempotent {
            out.state = State::Sent(Some(message.clone()));
        } else {
            self.queued_bytes -= cost(message.queued_len());
        }
        let Message { method, meta, payload } = message;
        cx.open.insert(out.wire, Entity::CallOut(call.slot));
        let mut outgoing =
            Outgoing::new(Kind::Call, out.wire, None, Target::Address(method)).with_payload(payload);
        outgoing.meta = meta;
        // What is left is counted now and not when the call was made: waiting in our queue was part of it (§10.5).
        outgoing.timeout_ms = out.deadline.map(|at| ceil_ms(at - cx.now));
        Some(outgoing)
    }

    pub(super) fn handle_response(
        &mut self,
        slot: usize,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        cx: &mut Context<'_>,
    ) {
        let Some(out) = self.outbound.get(slot) else { return };
        let call = CallId { slot, id: out.id };
        let result = match &envelope.error {
            Some(error) => Err(Error::from(*error)),
            None => Ok(payload_of(envelope, frame)),
        };
        self.finish_call(call, result, cx.open);
    }

    pub(super) fn handle_outbound_update(&mut self, slot: usize, envelope: &Envelope<'_>, frame: &Bytes) {
        let Some(out) = self.outbound.get_mut(slot) else { return };
        let payload = held_payload_of(envelope, frame);
        let limits = &self.limits;
        let held = &mut self.update_bytes;
        let admitted = out.updates.admit(payload, held, limits.updates_per_call, limits.update_bytes);
        self.stats.updates_dropped += admitted.dropped;
        if admitted.announce {
            self.events.push_back(CallEvent::Updated(CallId { slot, id: out.id }));
        }
    }

    /// Gives a call up: its outcome is no longer wanted, even where it is there already.
    pub(crate) fn cancel(&mut self, call: CallId, cx: &mut Context<'_>) -> Result<(), Gone> {
        let given_up = self.give_up(call, cx.open);
        self.free_call(call)?;
        given_up.map(drop).ok_or(Gone)
    }

    /// The outcome of a call, if it is there; with it the call's slot is free.
    pub(crate) fn take_response(&mut self, call: CallId) -> Result<Option<Result<Payload, Error>>, Gone> {
        let out = self.outbound.get_mut(call.slot).filter(|out| out.id == call.id).ok_or(Gone)?;
        if out.in_flight().is_some() {
            return Ok(None);
        }
        let State::Done(result) = core::mem::replace(&mut out.state, State::Over) else { return Err(Gone) };
        self.free_call(call)?;
        Ok(Some(result))
    }

    /// The deadline passed on our own clock (§10.5).
    pub(super) fn expire_call(&mut self, call: CallId, open: &mut OpenIds) {
        let Some(known) = self.give_up(call, open) else { return };
        self.finish_call(call, Err(out_of_time(known.was_sent())), open);
    }

    /// Tells the callee where it knows of the call; takes the call back where it does not. What it may know of it, or
    /// `None` where the call has its outcome.
    fn give_up(&mut self, call: CallId, open: &mut OpenIds) -> Option<Known> {
        let wire = self.outbound.get(call.slot)?.wire;
        let known = self.end_call(call, open)?;
        if known == Known::Now {
            self.cancels.push_back(wire);
        }
        Some(known)
    }

    /// The connection is over, and with it the call. `errors` is what it fails with: if it was not sent, and if it was.
    pub(super) fn lose_call(&mut self, call: CallId, errors: &[Error; 2], open: &mut OpenIds) {
        if let Some(known) = self.end_call(call, open) {
            let [unsent_error, sent_error] = errors;
            let error = if known.was_sent() { sent_error } else { unsent_error };
            self.finish_call(call, Err(error.clone()), open);
        }
    }

    /// Nothing more is sent for the call. What the callee may know of it, or `None` where it has its outcome.
    pub(super) fn end_call(&mut self, call: CallId, open: &mut OpenIds) -> Option<Known> {
        let out = self.outbound.get_mut(call.slot).filter(|out| out.id == call.id)?;
        let known = out.in_flight()?;
        open.remove(out.wire, Entity::CallOut(call.slot));
        match core::mem::replace(&mut out.state, State::Over) {
            State::Queued(message) => self.take_back(message.queued_len()),
            sent => self.let_go(&sent),
        }
        Some(known)
    }

    /// The call has its outcome. The slot stays taken until the application has taken that.
    pub(super) fn finish_call(&mut self, call: CallId, result: Result<Payload, Error>, open: &mut OpenIds) {
        if let Some(out) = self.outbound.get(call.slot).filter(|out| out.id == call.id) {
            open.remove(out.wire, Entity::CallOut(call.slot));
            self.settle_call(call, result);
        }
    }

    /// The same for a call of which the peer does not know.
    pub(super) fn settle_call(&mut self, call: CallId, result: Result<Payload, Error>) {
        let Some(out) = self.outbound.get_mut(call.slot).filter(|out| out.id == call.id) else { return };
        let sent = core::mem::replace(&mut out.state, State::Done(result));
        if let Some(at) = out.deadline.take() {
            self.deadlines.remove(&(at, Timer::Out(call)));
        }
        self.let_go(&sent);
        self.events.push_back(CallEvent::Response(call));
    }

    /// A call that was kept will not be made again.
    fn let_go(&mut self, state: &State) {
        if let State::Sent(Some(message)) = state {
            self.queued_bytes -= cost(message.queued_len());
            self.relieve();
        }
    }

    fn free_call(&mut self, call: CallId) -> Result<(), Gone> {
        self.outbound.get(call.slot).filter(|out| out.id == call.id).ok_or(Gone)?;
        let mut out = self.outbound.remove(call.slot);
        if let Some(at) = out.deadline {
            self.deadlines.remove(&(at, Timer::Out(call)));
        }
        out.updates.clear(&mut self.update_bytes);
        self.relieve();
        Ok(())
    }

    /// Sends an update to the callee of an open call.
    pub(crate) fn update_call(&mut self, call: CallId, payload: Payload) -> Result<(), UpdateError> {
        let out = self.outbound.get(call.slot).filter(|out| out.id == call.id).ok_or(UpdateError::Gone)?;
        out.in_flight().ok_or(UpdateError::Gone)?;
        self.queue_update(out.wire, payload)
    }

    pub(super) fn queue_update(&mut self, reference: Id, payload: Payload) -> Result<(), UpdateError> {
        if continuation_len(Some(verb::UPDATE), Ok(payload.as_item())) > self.peer_max_message {
            return Err(UpdateError::TooLarge);
        }
        if !self.has_room() {
            self.update_waits = true;
            return Err(UpdateError::Blocked);
        }
        self.enqueue(payload.len(), Ready::Update { reference, payload });
        Ok(())
    }

    /// The oldest update from the callee that the application has not taken.
    pub(crate) fn poll_update(&mut self, call: CallId) -> Result<Option<Payload>, Gone> {
        let out = self.outbound.get_mut(call.slot).filter(|out| out.id == call.id).ok_or(Gone)?;
        match out.updates.take(&mut self.update_bytes) {
            None if out.in_flight().is_none() => Err(Gone),
            update => Ok(update),
        }
    }

    pub(super) fn announced(&mut self, call: CallId) {
        if let Some(out) = self.outbound.get_mut(call.slot).filter(|out| out.id == call.id) {
            out.updates.delivered();
        }
    }
}

impl From<BadOpening> for CallError {
    fn from(bad: BadOpening) -> Self {
        match bad {
            BadOpening::TargetTooLong => Self::MethodTooLong,
            BadOpening::Meta(error) => Self::BadMeta(error),
        }
    }
}

/// What a call fails with whose time is up, according to whether it may have been acted upon.
fn out_of_time(was_sent: bool) -> Error {
    if was_sent { deadline_exceeded() } else { deadline_exceeded().with_processed(false) }
}

/// What a peer gets that is sent a response larger than it takes.
pub(super) fn too_large(len: usize, limit: usize) -> Error {
    let message = alloc::format!("a response of {len} bytes, where the caller takes {limit}");
    Error::new(Code::MESSAGE_TOO_LARGE, message).with_processed(true)
}
