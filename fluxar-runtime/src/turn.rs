//! Waiting in line for room: for a slot of the peer's, or in the send buffer.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fluxar_proto::{
    CallError, CallId, CallOptions, Connection, Error, Instant, Payload, PublicationId, PublishError,
    PublishOptions, StreamError, StreamId, StreamOptions, UpdateError,
};

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
        let Some((_, options)) = prepared else { return Poll::Pending };
        self.poll_slot(cx, options.timeout, |cx, state, now, left| {
            let ready = state.connection.ready_to_call();
            if ready == Err(CallError::Blocked) || (ready == Err(CallError::Draining) && state.moves_on()) {
                return Poll::Pending;
            }
            let Some((payload, mut options)) = prepared.take() else { return Poll::Pending };
            options.timeout = left;
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

    /// Opens the stream that is `prepared`, or waits until there is room for it.
    pub(crate) fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
        method: &str,
        prepared: &mut Option<(Payload, StreamOptions)>,
    ) -> Poll<Result<StreamId, Error>> {
        let Some((_, options)) = prepared else { return Poll::Pending };
        self.poll_slot(cx, options.timeout, |_, state, now, left| {
            let ready = state.connection.ready_to_stream();
            if ready == Err(StreamError::Blocked) || (ready == Err(StreamError::Draining) && state.moves_on())
            {
                return Poll::Pending;
            }
            let Some((payload, mut options)) = prepared.take() else { return Poll::Pending };
            options.timeout = left;
            let opened = ready.and_then(|()| state.connection.open_stream(now, method, payload, options));
            Poll::Ready(match opened {
                Ok(stream) => {
                    state.hold_stream(stream);
                    Ok(stream)
                }
                Err(error) => Err(state.stream_error(error)),
            })
        })
    }

    /// Opens something within the time that it has: `open` is told the moment, and how much of that time is left.
    fn poll_slot<T>(
        &mut self,
        cx: &mut Context<'_>,
        timeout: Option<Duration>,
        open: impl FnOnce(&mut Context<'_>, &mut State, Instant, Option<Duration>) -> Poll<Result<T, Error>>,
    ) -> Poll<Result<T, Error>> {
        let now = self.shared.clock().now();
        if self.until.is_none() {
            // Waiting in line is part of the time that it has.
            self.until = timeout.map(|timeout| now + timeout);
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
            open(cx, state, now, until.map(|until| until - now))
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

    /// Publishes what is `prepared`, or waits until there is room for it.
    pub(crate) fn poll_publish(
        &mut self,
        cx: &mut Context<'_>,
        topic: &str,
        prepared: &mut Option<(Payload, PublishOptions)>,
    ) -> Poll<Result<Option<PublicationId>, PublishError>> {
        let now = self.shared.clock().now();
        self.attempt(cx, |cx, state, behind| {
            let ready = if behind { Err(PublishError::Blocked) } else { state.connection.ready_to_publish() };
            if ready == Err(PublishError::Blocked) {
                return Poll::Pending;
            }
            let Some((payload, options)) = prepared.take() else { return Poll::Pending };
            Poll::Ready(ready.and_then(|()| state.publish(now, topic, payload, options, cx)))
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
        let room = match self.purpose {
            Purpose::Stream => state.connection.stream_room(),
            Purpose::Call | Purpose::Update | Purpose::Publish => state.connection.call_room(),
        };
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
        state.serve_streams(&mut wakers);
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
        state.serve_streams(&mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}
