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
    pub(super) id: Id,
    state: State,
    deadline: Option<Instant>,
    updates: Updates,
}

#[derive(Debug)]
enum State {
    Queued {
        method: Text,
        meta: Bytes,
        payload: Payload,
    },
    Sent,
    /// The outcome waits for the application: the slot stays taken, so that the peer's limit on calls also bounds the
    /// outcomes that nobody has taken.
    Done(Result<Payload, Error>),
    /// Nothing more is to come.
    Over,
}

impl Outbound {
    /// Whether the call, which has no outcome yet, was sent; `None` where it has one.
    pub(super) fn in_flight(&self) -> Option<bool> {
        match self.state {
            State::Queued { .. } => Some(false),
            State::Sent => Some(true),
            State::Done(_) | State::Over => None,
        }
    }

    pub(super) fn is_queued(&self, call: CallId) -> bool {
        self.id == call.id && matches!(self.state, State::Queued { .. })
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
        let len = queued_len(&options.meta, &payload);
        let state = State::Queued { method: Text::from(method), meta: options.meta, payload };
        let slot = self.outbound.insert(Outbound { id, state, deadline, updates: Updates::default() });
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
        let State::Queued { method, meta, payload } = core::mem::replace(&mut out.state, State::Sent) else {
            return None;
        };
        self.queued_bytes -= cost(queued_len(&meta, &payload));
        if out.deadline.is_some_and(|at| at <= cx.now) {
            let error = deadline_exceeded().with_processed(false);
            self.finish_call(call, Err(error), cx.open);
            return None;
        }
        cx.open.insert(call.id, Entity::CallOut(call.slot));
        let mut outgoing =
            Outgoing::new(Kind::Call, call.id, None, Target::Address(method)).with_payload(payload);
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
        let Some(sent) = self.give_up(call, open) else { return };
        let error = if sent { deadline_exceeded() } else { deadline_exceeded().with_processed(false) };
        self.finish_call(call, Err(error), open);
    }

    /// Tells the callee where it knows of the call; takes the call back where it does not. Whether it was sent, or
    /// `None` where it has its outcome.
    fn give_up(&mut self, call: CallId, open: &mut OpenIds) -> Option<bool> {
        let sent = self.end_call(call, open)?;
        if sent {
            self.cancels.push_back(call.id);
        }
        Some(sent)
    }

    /// The connection is over, and with it the call. `errors` is what it fails with: if it was not sent, and if it was.
    pub(super) fn lose_call(&mut self, call: CallId, errors: &[Error; 2], open: &mut OpenIds) {
        if let Some(sent) = self.end_call(call, open) {
            let [unsent_error, sent_error] = errors;
            let error = if sent { sent_error } else { unsent_error };
            self.finish_call(call, Err(error.clone()), open);
        }
    }

    /// Nothing more is sent for the call. Whether it was sent itself, or `None` where it has its outcome.
    pub(super) fn end_call(&mut self, call: CallId, open: &mut OpenIds) -> Option<bool> {
        let out = self.outbound.get_mut(call.slot).filter(|out| out.id == call.id)?;
        let sent = out.in_flight()?;
        open.remove(call.id, Entity::CallOut(call.slot));
        if let State::Queued { meta, payload, .. } = core::mem::replace(&mut out.state, State::Over) {
            self.take_back(queued_len(&meta, &payload));
        }
        Some(sent)
    }

    /// The call has its outcome. The slot stays taken until the application has taken that.
    pub(super) fn finish_call(&mut self, call: CallId, result: Result<Payload, Error>, open: &mut OpenIds) {
        let Some(out) = self.outbound.get_mut(call.slot).filter(|out| out.id == call.id) else { return };
        out.state = State::Done(result);
        if let Some(at) = out.deadline.take() {
            self.deadlines.remove(&(at, Timer::Out(call)));
        }
        open.remove(call.id, Entity::CallOut(call.slot));
        self.events.push_back(CallEvent::Response(call));
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
        self.queue_update(call.id, payload)
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

/// The bytes of a queued call that do not lie in its slot.
fn queued_len(meta: &Bytes, payload: &Payload) -> usize {
    meta.len() + payload.len()
}

/// What a peer gets that is sent a response larger than it takes.
pub(super) fn too_large(len: usize, limit: usize) -> Error {
    let message = alloc::format!("a response of {len} bytes, where the caller takes {limit}");
    Error::new(Code::MESSAGE_TOO_LARGE, message).with_processed(true)
}
