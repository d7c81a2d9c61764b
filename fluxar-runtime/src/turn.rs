//! Waiting in line for room: for a call slot of the peer's, or in the send buffer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fluxar_proto::{CallError, CallId, CallOptions, Connection, Error, Payload, UpdateError};

use crate::shared::Shared;

/// Those who wait, in the order they came.
#[derive(Default)]
pub(crate) struct Queue {
    next_ticket: u64,
    waiting: VecDeque<(u64, Waker)>,
}

impl Queue {
    fn join(&mut self, cx: &mut Context<'_>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push_back((ticket, cx.waker().clone()));
        ticket
    }

    /// Tickets rise along the queue.
    fn position(&self, ticket: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    /// Lets the first `count` try again.
    pub(crate) fn pop(&mut self, count: usize, wakers: &mut Vec<Waker>) {
        let count = count.min(self.waiting.len());
        wakers.extend(self.waiting.drain(..count).map(|(_, waker)| waker));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// One attempt that may have to wait its turn.
pub(crate) struct Turn {
    shared: Arc<Shared>,
    ticket: Option<u64>,
}

impl Turn {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, ticket: None }
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
        let ticket = &mut self.ticket;
        self.shared.operate(|state| {
            if still_waiting(&mut state.queue, *ticket, cx) {
                return Poll::Pending;
            }
            *ticket = None;
            let ready = state.connection.ready_to_call();
            if ready == Err(CallError::Blocked) {
                *ticket = Some(state.queue.join(cx));
                return Poll::Pending;
            }
            let Some((payload, options)) = prepared.take() else { return Poll::Pending };
            match ready.and_then(|()| state.connection.call(now, method, payload, options)) {
                Ok(call) => {
                    state.wait_for(call, cx);
                    Poll::Ready(Ok(call))
                }
                Err(error) => Poll::Ready(Err(state.call_error(error))),
            }
        })
    }

    /// Sends an update, or waits until there is room for it.
    pub(crate) fn poll_update(
        &mut self,
        cx: &mut Context<'_>,
        send: impl FnOnce(&mut Connection) -> Result<(), UpdateError>,
    ) -> Poll<Result<(), UpdateError>> {
        let ticket = &mut self.ticket;
        self.shared.operate(|state| {
            if still_waiting(&mut state.queue, *ticket, cx) {
                return Poll::Pending;
            }
            *ticket = None;
            match send(&mut state.connection) {
                Err(UpdateError::Blocked) => {
                    *ticket = Some(state.queue.join(cx));
                    Poll::Pending
                }
                result => Poll::Ready(result),
            }
        })
    }
}

fn still_waiting(queue: &mut Queue, ticket: Option<u64>, cx: &mut Context<'_>) -> bool {
    let Some(position) = ticket.and_then(|ticket| queue.position(ticket)) else { return false };
    queue.waiting[position].1.clone_from(cx.waker());
    true
}

/// Who gives up leaves the queue; who was called up and did not use it lets the next one try.
impl Drop for Turn {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut next = Vec::new();
        let mut state = self.shared.lock();
        match state.queue.position(ticket) {
            Some(position) => drop(state.queue.waiting.remove(position)),
            None => state.queue.pop(1, &mut next),
        }
        drop(state);
        next.into_iter().for_each(Waker::wake);
    }
}
