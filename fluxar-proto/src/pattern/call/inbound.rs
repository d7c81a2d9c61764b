//! The calls that the peer makes (§10.11).
//!
//! ```text
//!            respond              answer sent
//!  RUNNING ---------> ANSWERING ------------------------------> (slot free)
//!    |    \              | cancel: the answer is not sent
//!    |     \             +------------------------------------> (slot free)
//!    |      \ deadline, cut               respond
//!    |       +--------> EXPIRED -------------------------------> (slot free, once the caller was told so)
//!    | cancel, connection lost            respond
//!    +----------------> WITHDRAWN -----------------------------> (slot free)
//! ```
//!
//! A slot is free only when the application has responded, wanted or not: so the limit on calls bounds the handlers
//! that run, and a peer gains nothing by cancelling what it called (§10.6).

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::outbound::too_large;
use super::updates::Updates;
use super::{
    CallEvent, Calls, Context, Gone, Ready, Request, RequestId, RespondError, Timer, UpdateError, Withdrawn,
    continuation_len, cost, deadline_exceeded,
};
use crate::message::{Envelope, Error, Id, Kind, Payload};
use crate::pattern::opening::{held_bytes, meta_bytes, target_of, timeout_of};
use crate::pattern::received::held_payload_of;
use crate::pattern::{Entity, OpenIds, Outgoing, Target};
use crate::session::ConnectionError;
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) id: Id,
    state: State,
    deadline: Option<Instant>,
    /// What the request counts for in `request_bytes`.
    bytes: usize,
    updates: Updates,
}

#[derive(Debug)]
enum State {
    Running,
    /// The application has responded; the answer waits for room.
    Answering {
        result: Result<Payload, Error>,
        /// What the answer counts for in the queue.
        len: usize,
    },
    /// The call has ended before the application responded: the deadline passed, or it was cut.
    Expired {
        /// What the caller is told.
        verdict: Verdict,
        /// It has left.
        told: bool,
        /// The application has responded meanwhile.
        responded: bool,
    },
    /// Nobody waits any more.
    Withdrawn,
}

/// How a call ends that the application has not responded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    DeadlineExceeded,
    /// This side leaves, and cannot wait any more (§8.6).
    Cut,
}

impl Verdict {
    fn error(self) -> Error {
        match self {
            Self::DeadlineExceeded => deadline_exceeded(),
            Self::Cut => Error::unavailable("cut: the callee leaves"),
        }
    }
}

impl Inbound {
    /// Whether somebody waits for the application to respond.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Whether an answer waits for room.
    pub(super) fn is_queued(&self, request: RequestId) -> bool {
        self.id == request.id
            && matches!(self.state, State::Answering { .. } | State::Expired { told: false, .. })
    }
}

impl Calls {
    pub(super) fn handle_request(
        &mut self,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let id = envelope.id;
        let timeout = match self.admit(envelope, frame) {
            Ok(timeout) => timeout,
            Err(error) => return cx.refuse(Kind::Call, id, error),
        };
        let timeout = timeout.into_iter().chain(self.limits.max_deadline).min();
        let deadline = timeout.map(|timeout| cx.now + timeout);
        let bytes = held_bytes(envelope, frame);
        let request = Inbound { id, state: State::Running, deadline, bytes, updates: Updates::default() };
        let slot = self.inbound.insert(request);
        let request = RequestId { slot, id };
        cx.open.insert(id, Entity::CallIn(slot));
        if let Some(at) = deadline {
            self.deadlines.insert((at, Timer::In(request)));
        }
        self.request_bytes += bytes;
        self.stats.served += 1;
        self.events.push_back(CallEvent::Request(Request {
            id: request,
            method: target_of(envelope, frame),
            meta: meta_bytes(envelope.meta),
            payload: Payload::trusted(frame.slice_ref(envelope.payload.as_bytes())),
            deadline,
        }));
        Ok(())
    }

    /// How long the caller waits for a request, or why the request cannot be taken. Nothing was done for it then, so a
    /// retry is safe.
    fn admit(&self, envelope: &Envelope<'_>, frame: &Bytes) -> Result<Option<Duration>, Error> {
        let limits = &self.limits;
        let timeout = timeout_of(envelope.meta)?;
        if self.inbound.len() >= limits.max_calls {
            Err(Error::resource_exhausted("too many calls are open"))
        } else if self.request_bytes > 0
            && self.request_bytes + held_bytes(envelope, frame) > limits.request_bytes
        {
            Err(Error::resource_exhausted("the open calls hold too many bytes"))
        } else {
            Ok(timeout)
        }
    }

    /// Answers a request. Also frees the slot of one that was withdrawn.
    pub(crate) fn respond(
        &mut self,
        request: RequestId,
        result: Result<Payload, Error>,
        open: &mut OpenIds,
    ) -> Result<(), RespondError> {
        let inbound = self.inbound.get_mut(request.slot).filter(|inbound| inbound.id == request.id);
        let inbound = inbound.ok_or(RespondError::Gone)?;
        match inbound.state {
            State::Running => {}
            State::Answering { .. } | State::Expired { responded: true, .. } => {
                return Err(RespondError::Gone);
            }
            State::Expired { told: false, verdict, .. } => {
                inbound.state = State::Expired { verdict, told: false, responded: true };
                return Err(RespondError::Gone);
            }
            State::Expired { told: true, .. } | State::Withdrawn => {
                self.free_request(request, open);
                return Err(RespondError::Gone);
            }
        }
        let len = continuation_len(None, result.as_ref().map(Payload::as_item));
        let (result, len, outcome) = if len > self.peer_max_message {
            let error = match result {
                // Its code, and whether anything was done, matter more than that it is long.
                Err(error) => error.without_details(),
                Ok(_) => too_large(len, self.peer_max_message),
            };
            let len = continuation_len(None, Err(&error));
            (Err(error), len, Err(RespondError::TooLarge))
        } else {
            (result, len, Ok(()))
        };
        if let Some(at) = inbound.deadline.take() {
            self.deadlines.remove(&(at, Timer::In(request)));
        }
        inbound.updates.clear(&mut self.update_bytes);
        inbound.state = State::Answering { result, len };
        self.enqueue(len, Ready::Answer(request));
        outcome
    }

    pub(super) fn send_answer(&mut self, request: RequestId, cx: &mut Context<'_>) -> Option<Outgoing> {
        let Some(inbound) = self.inbound.get_mut(request.slot).filter(|inbound| inbound.is_queued(request))
        else {
            self.over -= 1;
            return None;
        };
        let (result, len, free) = match core::mem::replace(&mut inbound.state, State::Withdrawn) {
            State::Answering { result, len } => (result, len, true),
            State::Expired { verdict, responded, .. } => {
                inbound.state = State::Expired { verdict, told: true, responded };
                (Err(verdict.error()), 0, responded)
            }
            State::Running | State::Withdrawn => return None,
        };
        self.queued_bytes -= cost(len);
        if free {
            self.free_request(request, cx.open);
        } else {
            cx.open.remove(request.id, Entity::CallIn(request.slot));
        }
        let id = cx.ids.next(cx.now);
        Some(Outgoing::new(Kind::Call, id, Some(request.id), Target::Null).with_result(result))
    }

    pub(super) fn handle_cancel(&mut self, slot: usize, cx: &mut Context<'_>) {
        let Some(inbound) = self.inbound.get(slot) else { return };
        self.stats.cancelled += 1;
        self.withdraw(RequestId { slot, id: inbound.id }, Withdrawn::Cancelled, cx.open);
    }

    /// Nobody waits for the answer any more.
    pub(super) fn withdraw(&mut self, request: RequestId, why: Withdrawn, open: &mut OpenIds) {
        let Some(inbound) = self.inbound.get_mut(request.slot).filter(|inbound| inbound.id == request.id)
        else {
            return;
        };
        open.remove(request.id, Entity::CallIn(request.slot));
        if let Some(at) = inbound.deadline.take() {
            self.deadlines.remove(&(at, Timer::In(request)));
        }
        let previous = core::mem::replace(&mut inbound.state, State::Withdrawn);
        match previous {
            State::Running => self.events.push_back(CallEvent::Withdrawn(request, why)),
            State::Answering { len, .. } => {
                self.free_request(request, open);
                self.take_back(len);
            }
            State::Expired { told: false, responded, .. } => {
                if responded {
                    self.free_request(request, open);
                }
                self.take_back(0);
            }
            State::Expired { told: true, .. } | State::Withdrawn => {}
        }
    }

    pub(super) fn expire_request(&mut self, request: RequestId) {
        let Some(inbound) = self.inbound.get_mut(request.slot).filter(|inbound| inbound.id == request.id)
        else {
            return;
        };
        inbound.deadline = None;
        self.end_request(request, Verdict::DeadlineExceeded, Withdrawn::DeadlineExceeded);
    }

    /// Ends a running request for the caller; its slot stays taken until the application has responded.
    fn end_request(&mut self, request: RequestId, verdict: Verdict, why: Withdrawn) {
        let inbound = self.inbound.get_mut(request.slot).filter(|inbound| inbound.id == request.id);
        let Some(inbound) = inbound.filter(|inbound| inbound.is_wanted()) else { return };
        inbound.state = State::Expired { verdict, told: false, responded: false };
        if let Some(at) = inbound.deadline.take() {
            self.deadlines.remove(&(at, Timer::In(request)));
        }
        self.enqueue(0, Ready::Answer(request));
        self.events.push_back(CallEvent::Withdrawn(request, why));
    }

    /// Cuts the requests that are running: this side leaves (§8.6).
    pub(crate) fn cut(&mut self) {
        let running = self.inbound.iter().filter(|(_, inbound)| inbound.is_wanted());
        let running = running.map(|(slot, inbound)| RequestId { slot, id: inbound.id });
        for request in running.collect::<Vec<_>>() {
            self.end_request(request, Verdict::Cut, Withdrawn::ConnectionLost);
        }
    }

    fn free_request(&mut self, request: RequestId, open: &mut OpenIds) {
        let mut inbound = self.inbound.remove(request.slot);
        open.remove(request.id, Entity::CallIn(request.slot));
        self.request_bytes -= inbound.bytes;
        inbound.updates.clear(&mut self.update_bytes);
        if let Some(at) = inbound.deadline {
            self.deadlines.remove(&(at, Timer::In(request)));
        }
    }

    pub(super) fn handle_inbound_update(&mut self, slot: usize, envelope: &Envelope<'_>, frame: &Bytes) {
        let Some(inbound) = self.inbound.get_mut(slot) else { return };
        if !matches!(inbound.state, State::Running) {
            self.stats.late += 1;
            return;
        }
        let payload = held_payload_of(envelope, frame);
        let limits = &self.limits;
        let held = &mut self.update_bytes;
        let admitted = inbound.updates.admit(payload, held, limits.updates_per_call, limits.update_bytes);
        self.stats.updates_dropped += admitted.dropped;
        if admitted.announce {
            self.events.push_back(CallEvent::RequestUpdated(RequestId { slot, id: inbound.id }));
        }
    }

    /// Sends an update to the caller of a running request.
    pub(crate) fn update_request(&mut self, request: RequestId, payload: Payload) -> Result<(), UpdateError> {
        if !self.is_wanted(request) {
            return Err(UpdateError::Gone);
        }
        self.queue_update(request.id, payload)
    }

    /// Whether somebody still waits for the answer.
    pub(crate) fn is_wanted(&self, request: RequestId) -> bool {
        let inbound = self.inbound.get(request.slot).filter(|inbound| inbound.id == request.id);
        inbound.is_some_and(Inbound::is_wanted)
    }

    /// The oldest update from the caller that the application has not taken.
    pub(crate) fn poll_request_update(&mut self, request: RequestId) -> Result<Option<Payload>, Gone> {
        let inbound =
            self.inbound.get_mut(request.slot).filter(|inbound| inbound.id == request.id).ok_or(Gone)?;
        match (inbound.updates.take(&mut self.update_bytes), &inbound.state) {
            (Some(payload), _) => Ok(Some(payload)),
            (None, State::Running) => Ok(None),
            (None, _) => Err(Gone),
        }
    }

    pub(super) fn request_announced(&mut self, request: RequestId) {
        if let Some(inbound) = self.inbound.get_mut(request.slot).filter(|inbound| inbound.id == request.id) {
            inbound.updates.delivered();
        }
    }
}
