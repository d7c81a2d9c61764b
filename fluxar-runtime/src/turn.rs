//! Waiting in line for room: for a call slot of the peer's, or in the send buffer.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fluxar_proto::{CallError, CallId, CallOptions, Connection, Error, Instant, Payload, UpdateError};

use crate::queue::Purpose;
use crate::shared::{Shared, State};

/// One attempt that may have to wait its turn.
pub(crate) struct Turn {
    shared: Arc<Shared>,
    purpose: Purpose,
    /// The place in the line; it is kept while its owner is called up.
    ticket: Option<u64>,
    /// Until when to wait.
    until: Option<Instant>,
}

impl Turn {
    pub(crate) fn new(shared: Arc<Shared>, purpose: Purpose) -> Self {
        Self { shared, purpose, ticket: None, until: None }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Makes the call that is `prepared`, or waits until there is room for it.
    pub(crate) fn poll_call(
        &mut self,
        cx: &mut Context<'_>,
        method: &str,
        prepared: &mut Option<(Payload, CallOptions)>,
    ) -> Poll<Result<CallId, Error>> {
        let now = self.shared.clock().now();
        let Some((_, options)) = prepared else { return Poll::Pending };
        if self.until.is_none() {
            // Waiting in line is part of the time that a call has.
            self.until = options.timeout.map(|timeout| now + timeout);
        }
        let until = self.until;
        self.attempt(cx, |cx, state, behind| {
            if until.is_some_and(|until| until <= now) {
                return Poll::Ready(Err(
                    Error::deadline_exceeded("the deadline passed").with_processed(false)
                ));
            }
            if behind {
                return Poll::Pending;
            }
            let ready = state.connection.ready_to_call();
            if ready == Err(CallError::Blocked) {
                return Poll::Pending;
            }
            let Some((payload, mut options)) = prepared.take() else { return Poll::Pending };
            options.timeout = until.map(|until| until - now);
            let made = ready.and_then(|()| state.connection.call(now, method, payload, options));
            Poll::Ready(match made {
                Ok(call) => {
                    state.wait_for(call, cx);
                    Ok(call)
                }
                Err(error) => Err(state.call_error(error)),
            })
        })
    }

    /// Sends an update, or waits until there is room for it, for as long as `is_open` says. That one sees to it, too,
    /// that the task is woken once it would say otherwise.
    pub(crate) fn poll_update(
        &mut self,
        cx: &mut Context<'_>,
        is_open: impl FnOnce(&mut State, &mut Context<'_>) -> bool,
        send: impl FnOnce(&mut Connection) -> Result<(), UpdateError>,
    ) -> Poll<Result<(), UpdateError>> {
        self.attempt(cx, |cx, state, behind| {
            match if behind { Err(UpdateError::Blocked) } else { send(&mut state.connection) } {
                Err(UpdateError::Blocked) if is_open(state, cx) => Poll::Pending,
                Err(UpdateError::Blocked) => Poll::Ready(Err(UpdateError::Gone)),
                result => Poll::Ready(result),
            }
        })
    }

    /// Makes the attempt, which is told whether others come before it, and waits in line where it comes to nothing: at
    /// the end, or at the place that this one was called up from.
    fn attempt<T, E>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: impl FnOnce(&mut Context<'_>, &mut State, bool) -> Poll<Result<T, E>>,
    ) -> Poll<Result<T, E>> {
        let mut wakers = Vec::new();
        let mut state = self.shared.lock();
        let room = state.connection.call_room();
        let behind = state.queue.has_others_first(self.purpose, self.ticket, room);
        let result = attempt(cx, &mut state, behind);
        let for_driver = match &result {
            Poll::Pending => {
                let replaced = state.queue.wait(self.purpose, &mut self.ticket, self.until, cx);
                state.discard(replaced);
                // The driver keeps the time.
                self.until.is_some() && state.queue.next_deadline() == self.until
            }
            Poll::Ready(result) => {
                if let Some(ticket) = self.ticket.take() {
                    let left = state.queue.leave(self.purpose, ticket, self.until, &mut wakers);
                    state.discard(left);
                }
                result.is_ok()
            }
        };
        state.serve_calls(&mut wakers);
        wakers.extend(if for_driver { state.take_driver() } else { None });
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

/// Who gives up leaves the line; who was called up and did not use it lets the next one try.
impl Drop for Turn {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut wakers = Vec::new();
        let mut state = self.shared.lock();
        let left = state.queue.leave(self.purpose, ticket, self.until, &mut wakers);
        state.discard(left);
        state.serve_calls(&mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}
