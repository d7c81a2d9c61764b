//! Waiting in line for room: for a call slot of the peer's, or in the send buffer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fluxar_proto::{CallError, CallId, CallOptions, Connection, Error, Instant, Payload, UpdateError};

use crate::line::Line;
use crate::shared::{Shared, State};

/// What somebody waits for room for. Each has a line of its own: an update needs no slot, and the very call whose slot
/// others wait for may wait for an update.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Call,
    Update,
}

/// Those who were turned away with `Blocked`, and those who came after them.
///
/// As long as anybody waits, somebody will be called up: the core announces room to those whom it has turned away, and
/// who was called up and does not use the room passes it on.
#[derive(Default)]
pub(crate) struct Queue {
    calls: Line,
    updates: Line,
    /// Until when callers wait (§10.5).
    deadlines: BTreeSet<(Instant, u64)>,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.updates.is_empty()
    }

    /// There is room again, for so many calls. Whether callers are left who wait for more.
    pub(crate) fn serve(&mut self, room: usize, wakers: &mut Vec<Waker>) -> bool {
        self.calls.call_up(room, wakers);
        // How many updates fit nobody knows: each calls the next one up.
        self.updates.call_up(1, wakers);
        !self.calls.is_empty()
    }

    /// Nobody needs to wait any more: the connection has ended.
    pub(crate) fn dissolve(&mut self, wakers: &mut Vec<Waker>) {
        self.calls.call_all(wakers);
        self.updates.call_all(wakers);
    }

    /// When [`expire`](Self::expire) wants to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Calls those up who have waited for too long.
    pub(crate) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        while let Some((_, ticket)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            wakers.extend(self.calls.leave(ticket));
        }
    }

    fn line(&mut self, purpose: Purpose) -> &mut Line {
        match purpose {
            Purpose::Call => &mut self.calls,
            Purpose::Update => &mut self.updates,
        }
    }

    /// Gives a place up, or the room that its owner was called up for and does not use. The waker of the place is to be
    /// dropped without the lock.
    #[must_use]
    fn leave(&mut self, purpose: Purpose, ticket: u64, wakers: &mut Vec<Waker>) -> Option<Waker> {
        let line = self.line(purpose);
        let left = line.leave(ticket);
        if left.is_none() {
            line.call_up(1, wakers);
        }
        left
    }
}

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
        let mut next = Vec::new();
        let mut state = self.shared.lock();
        let line = state.queue.line(self.purpose);
        let behind = self.ticket.map_or(!line.is_empty(), |ticket| line.holds(ticket));
        let result = attempt(cx, &mut state, behind);
        let for_driver = match &result {
            Poll::Pending => {
                let replaced = state.queue.line(self.purpose).wait(&mut self.ticket, cx);
                state.discard(replaced);
                let entry = self.until.zip(self.ticket);
                state.queue.deadlines.extend(entry);
                // The driver keeps the time.
                entry.is_some() && state.queue.deadlines.first().copied() == entry
            }
            Poll::Ready(result) => {
                let ticket = self.ticket.take();
                if let Some(entry) = self.until.zip(ticket) {
                    state.queue.deadlines.remove(&entry);
                }
                // Whoever made a call has used the room that he was called up for. How much an update takes nobody knew.
                let passed_on = result.is_err() || self.purpose == Purpose::Update;
                if let Some(ticket) = ticket.filter(|_| passed_on) {
                    let left = state.queue.leave(self.purpose, ticket, &mut next);
                    state.discard(left);
                }
                result.is_ok()
            }
        };
        next.extend(if for_driver { state.take_driver() } else { None });
        drop(state);
        next.into_iter().for_each(Waker::wake);
        result
    }
}

/// Who gives up leaves the line; who was called up and did not use it lets the next one try.
impl Drop for Turn {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut next = Vec::new();
        let mut state = self.shared.lock();
        if let Some(until) = self.until {
            state.queue.deadlines.remove(&(until, ticket));
        }
        let left = state.queue.leave(self.purpose, ticket, &mut next);
        state.discard(left);
        drop(state);
        next.into_iter().for_each(Waker::wake);
    }
}
