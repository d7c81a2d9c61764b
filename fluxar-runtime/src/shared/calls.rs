//! Calls, in what handles and driver share.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fluxar_proto::{CallError, CallEvent, CallId, Error, Payload, RequestId, Withdrawn};

use super::{Chores, Shared, State, register};
use crate::line::Line;
use crate::request::Request;

/// Somebody waits for a call.
pub(super) struct Waiter {
    call: CallId,
    waker: Option<Waker>,
    /// The outcome is there.
    done: bool,
}

/// A handler runs.
pub(super) struct Running {
    id: RequestId,
    handler: Option<Waker>,
    /// Those that wait for updates, or for room to send one: whoever has a reference to the request may.
    updates: Line,
    withdrawn: bool,
}

impl Shared {
    /// The outcome of a call.
    pub(crate) fn poll_response(&self, cx: &mut Context<'_>, call: CallId) -> Poll<Result<Payload, Error>> {
        let mut state = self.lock();
        match state.connection.take_response(call) {
            Ok(Some(result)) => {
                let waiter = state.calls.remove(call.slot());
                // A free slot is room for somebody who waits; the driver serves the queue.
                let driver = if state.queue.is_empty() { None } else { state.driver.take() };
                drop(state);
                drop(waiter);
                driver.into_iter().for_each(Waker::wake);
                Poll::Ready(result)
            }
            Ok(None) => {
                state.wait_for(call, cx);
                Poll::Pending
            }
            // Taken before: the future was polled after it was ready.
            Err(_) => Poll::Pending,
        }
    }

    /// The next update of a call; `None` once there is none and the outcome is there.
    pub(crate) fn poll_update(&self, cx: &mut Context<'_>, call: CallId) -> Poll<Option<Payload>> {
        let mut state = self.lock();
        match state.connection.poll_update(call) {
            Ok(Some(update)) => Poll::Ready(Some(update)),
            Err(_) => Poll::Ready(None),
            Ok(None) => {
                state.wait_for(call, cx);
                Poll::Pending
            }
        }
    }

    /// Gives a call up.
    pub(crate) fn cancel(&self, call: CallId) {
        let now = self.clock.now();
        let _waiter = self.operate(|state| {
            // `Gone` where the outcome came meanwhile: then there is nothing to tell the callee.
            state.connection.cancel(now, call).ok();
            state.calls.remove(call.slot())
        });
    }

    /// Answers a request.
    pub(crate) fn respond(&self, request: RequestId, result: Result<Payload, Error>) {
        let mut running = self.operate(|state| {
            if let Err(error) = state.connection.respond(request, result) {
                tracing::debug!(%request, %error, "a response was not sent");
            }
            state.running(request)?;
            state.requests.remove(request.slot())
        });
        // The request may live on in other tasks, which wait there for updates: none will come any more.
        let mut wakers = Vec::new();
        running.iter_mut().for_each(|running| running.updates.call_all(&mut wakers));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Answers a request on which nothing was done; a peer that causes too many of those loses the connection.
    pub(crate) fn refuse(&self, request: RequestId, error: Error) {
        let now = self.clock.now();
        let _running = self.operate(|state| {
            let running = state.requests.remove(request.slot());
            if let Err(error) = state.connection.refuse(now, request, error) {
                tracing::debug!(%request, %error, "a refusal was not sent");
            }
            running
        });
    }

    /// Whether the answer to a request is still wanted; registers to be woken when it is not any more.
    pub(crate) fn poll_wanted(&self, request: RequestId, cx: &mut Context<'_>) -> bool {
        let mut state = self.lock();
        let Some(running) = state.running(request) else { return false };
        if running.withdrawn {
            return false;
        }
        let replaced = register(&mut running.handler, cx);
        state.discard(replaced);
        true
    }

    pub(crate) fn is_wanted(&self, request: RequestId) -> bool {
        self.lock().connection.is_wanted(request)
    }

    /// The next update of a request; `None` once none will come. Several may wait for it, each with a ticket of its own.
    pub(crate) fn poll_request_update(
        &self,
        cx: &mut Context<'_>,
        request: RequestId,
        ticket: &mut Option<u64>,
    ) -> Poll<Option<Payload>> {
        let mut state = self.lock();
        match state.connection.poll_request_update(request) {
            Ok(Some(update)) => return Poll::Ready(Some(update)),
            Ok(None) => {}
            Err(_) => return Poll::Ready(None),
        }
        match state.wait_in(request, ticket, cx) {
            true => Poll::Pending,
            false => Poll::Ready(None),
        }
    }

    /// Waits no more for what happens to a request.
    pub(crate) fn leave_request(&self, request: RequestId, ticket: u64) {
        let mut state = self.lock();
        let left = state.running(request).and_then(|running| running.updates.leave(ticket));
        state.discard(left);
    }

    /// A request of the core, as its handler sees it.
    pub(crate) fn request(self: &Arc<Self>, request: fluxar_proto::Request) -> Request {
        Request::new(self.clone(), request)
    }
}

impl State {
    pub(super) fn handle_call_event(&mut self, event: CallEvent, chores: &mut Chores) {
        match event {
            CallEvent::Request(request) => {
                let running =
                    Running { id: request.id, handler: None, updates: Line::default(), withdrawn: false };
                // A slot is free only once its request was answered, and nobody waits for that one any more.
                if let Some(mut before) = self.requests.put(request.id.slot(), running) {
                    self.discard(before.handler);
                    before.updates.call_all(&mut self.discarded);
                }
                chores.requests.push(request);
            }
            CallEvent::Response(call) => {
                let waiter = self.waiter(call);
                chores.wakers.extend(waiter.and_then(|waiter| {
                    waiter.done = true;
                    waiter.waker.take()
                }));
            }
            CallEvent::Updated(call) => {
                chores.wakers.extend(self.waiter(call).and_then(|waiter| waiter.waker.take()));
            }
            CallEvent::RequestUpdated(request) => {
                if let Some(running) = self.running(request) {
                    running.updates.call_all(&mut chores.wakers);
                }
            }
            CallEvent::Withdrawn(request, why) => self.withdraw(request, why, chores),
            CallEvent::Capacity => {
                self.serve_calls(&mut chores.wakers);
                self.queue.serve_updates(&mut chores.wakers);
            }
            _ => {}
        }
    }

    /// Calls up as many of those who wait for a slot as have one.
    pub(crate) fn serve_calls(&mut self, wakers: &mut Vec<Waker>) {
        if self.moves_on() {
            return;
        }
        let room = self.connection.call_room();
        if self.queue.serve_calls(room, wakers) {
            // Where there is all the room that there can be, it is promised to those who were called up, and whoever of
            // them does not use it serves the next one.
            let most = self.connection.peer().map_or(0, |peer| peer.limits.max_calls as usize);
            if room < most {
                self.connection.want_capacity();
            }
        }
    }

    /// Wakes the task when something has happened to its call. A call keeps its slot until its outcome is taken, so that
    /// no other call can have the entry.
    pub(crate) fn wait_for(&mut self, call: CallId, cx: &mut Context<'_>) {
        let replaced = match self.calls.get_mut(call.slot()) {
            Some(waiter) if waiter.call == call => register(&mut waiter.waker, cx),
            _ => {
                let waiter = Waiter { call, waker: Some(cx.waker().clone()), done: false };
                self.calls.put(call.slot(), waiter).and_then(|before| before.waker)
            }
        };
        self.discard(replaced);
    }

    /// The same while the call has no outcome yet; `false` once it has.
    pub(crate) fn wait_while_open(&mut self, call: CallId, cx: &mut Context<'_>) -> bool {
        let open = self.waiter(call).is_some_and(|waiter| !waiter.done);
        if open {
            self.wait_for(call, cx);
        }
        open
    }

    fn waiter(&mut self, call: CallId) -> Option<&mut Waiter> {
        self.calls.get_mut(call.slot()).filter(|waiter| waiter.call == call)
    }

    fn withdraw(&mut self, request: RequestId, why: Withdrawn, chores: &mut Chores) {
        let Some(running) = self.running(request) else { return };
        running.withdrawn = true;
        chores.wakers.extend(running.handler.take());
        running.updates.call_all(&mut chores.wakers);
        tracing::trace!(%request, ?why, "a request was withdrawn");
    }

    /// Wakes the task when an update has come for a request, and when nobody waits for its answer any more. `false` where
    /// the request is over.
    pub(crate) fn wait_in(
        &mut self,
        request: RequestId,
        ticket: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(running) = self.running(request) else { return false };
        let replaced = running.updates.wait(ticket, cx);
        self.discard(replaced);
        true
    }

    fn running(&mut self, request: RequestId) -> Option<&mut Running> {
        self.requests.get_mut(request.slot()).filter(|running| running.id == request)
    }

    /// What a caller is told whose call could not be made.
    pub(crate) fn call_error(&self, error: CallError) -> Error {
        use fluxar_proto::Code;
        let code = match error {
            CallError::Closed => return self.closed_error(),
            CallError::Draining => Code::DRAINING,
            CallError::TooLarge { .. } => Code::MESSAGE_TOO_LARGE,
            // What the peer would answer (§10.6).
            CallError::NoCalls => Code::RESOURCE_EXHAUSTED,
            _ => Code::INVALID_ARGUMENT,
        };
        Error::new(code, error.to_string()).with_processed(false)
    }
}
