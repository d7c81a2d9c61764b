//! Streams, in what handles and driver share.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fluxar_proto::{
    Connection, Error, ItemBatch, Payload, Received, SendError, StreamError, StreamEvent, StreamId,
    StreamOpening,
};

use super::{Chores, Shared, State, register};
use crate::payload::Encoded;
use crate::stream_request::StreamRequest;

/// Those who wait for what happens to a stream. The halves may be with different tasks.
pub(super) struct Streaming {
    id: StreamId,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    handler: Option<Waker>,
    withdrawn: bool,
}

impl Streaming {
    fn new(id: StreamId) -> Self {
        Self { id, receiver: None, sender: None, handler: None, withdrawn: false }
    }

    fn into_wakers(self) -> impl Iterator<Item = Waker> {
        [self.receiver, self.sender, self.handler].into_iter().flatten()
    }

    /// Those who wait with the halves.
    fn into_halves(self) -> impl Iterator<Item = Waker> {
        [self.receiver, self.sender].into_iter().flatten()
    }
}

impl Shared {
    /// What comes next on a stream. Taking it may give the other side credit, which the driver has to send.
    pub(crate) fn poll_stream(&self, cx: &mut Context<'_>, id: StreamId) -> Poll<Received> {
        // A half that has outlived its handler must not take what came until then for all that there is (§11.3).
        let let_go = || Poll::Ready(Received::Failed(Error::cancelled("the stream was let go")));
        let mut state = self.lock();
        match state.connection.poll_stream(id) {
            Ok(Some(received)) => {
                let driver = if state.connection.wants_transmit() { state.take_driver() } else { None };
                drop(state);
                driver.into_iter().for_each(Waker::wake);
                Poll::Ready(received)
            }
            Ok(None) => {
                let Some(streaming) = state.streaming(id) else { return let_go() };
                let replaced = register(&mut streaming.receiver, cx);
                state.discard(replaced);
                // An application that waits may be what gives credit.
                let driver = if state.connection.wants_transmit() { state.take_driver() } else { None };
                drop(state);
                driver.into_iter().for_each(Waker::wake);
                Poll::Pending
            }
            Err(_) => let_go(),
        }
    }

    /// Queues an item; `Blocked` where there is no room for it now.
    pub(crate) fn send_item(&self, id: StreamId, item: &Encoded<'_>) -> Result<(), SendError> {
        self.operate_if_ok(|connection| match item {
            Encoded::Small(item) => connection.send_item_from(id, *item),
            Encoded::Shared(payload) => connection.send_item(id, payload.clone()),
        })
    }

    /// Queues small items together, and leaves `batch` empty where that succeeds.
    pub(crate) fn send_batch(
        &self,
        id: StreamId,
        batch: &mut ItemBatch,
        wait: bool,
    ) -> Result<(), SendError> {
        self.operate_if_ok(|connection| connection.send_batch(id, batch, wait))
    }

    /// Ends our direction.
    pub(crate) fn end_stream(&self, id: StreamId, last: Payload) -> Result<(), SendError> {
        self.operate_if_ok(|connection| connection.end_stream(id, last))
    }

    /// Does something with the connection, of which the driver hears only where it came to something.
    fn operate_if_ok<T, E>(&self, operation: impl FnOnce(&mut Connection) -> Result<T, E>) -> Result<T, E> {
        let mut state = self.guard();
        let result = operation(&mut state.connection);
        let driver = if result.is_ok() { state.take_driver() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Waits for room for an item; an error where there will be none.
    pub(crate) fn poll_send_ready(&self, cx: &mut Context<'_>, id: StreamId) -> Poll<Result<(), SendError>> {
        let mut state = self.lock();
        match state.connection.ready_to_send(id) {
            Err(SendError::Blocked) => {
                let Some(streaming) = state.streaming(id) else { return Poll::Ready(Err(SendError::Gone)) };
                let replaced = register(&mut streaming.sender, cx);
                state.discard(replaced);
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    /// What an application is told whose item was not sent: why the stream is over, where it is.
    pub(crate) fn send_error(&self, id: StreamId, error: SendError) -> Error {
        use fluxar_proto::Code;
        let code = match error {
            SendError::TooLarge { .. } => Code::MESSAGE_TOO_LARGE,
            SendError::Ended => Code::FAILED_PRECONDITION,
            _ => {
                let why = self.lock().connection.stream_error(id);
                return why.unwrap_or_else(|| Error::cancelled(error.to_string()));
            }
        };
        Error::new(code, error.to_string()).with_processed(false)
    }

    /// Something short with a stream, which the driver follows up.
    pub(crate) fn on_stream(&self, operation: impl FnOnce(&mut Connection)) {
        self.operate(|state| operation(&mut state.connection));
    }

    /// The application lets go of its sending half. In a handler that ends nothing, as `ends` says.
    pub(crate) fn release_sender(&self, id: StreamId, ends: bool) {
        self.release(id, |state| {
            // It need not wait for the other half to be dropped.
            let waker = state.streaming(id).and_then(|streaming| streaming.sender.take());
            state.discard(waker);
            if ends {
                state.connection.release_sender(id);
            }
        });
    }

    /// The application lets go of its receiving half.
    pub(crate) fn release_receiver(&self, id: StreamId) {
        self.release(id, |state| {
            let waker = state.streaming(id).and_then(|streaming| streaming.receiver.take());
            state.discard(waker);
            state.connection.release_receiver(id);
        });
    }

    /// The application lets go of a half, or of all of a stream.
    fn release(&self, id: StreamId, release: impl FnOnce(&mut State)) {
        let gone = self.operate(|state| {
            release(state);
            if state.connection.holds_stream(id) { None } else { state.forget_stream(id) }
        });
        // Halves that were taken out of a handler may outlive it: nobody else tells them that it has returned.
        gone.into_iter().flat_map(Streaming::into_halves).for_each(Waker::wake);
    }

    /// A handler is done: its result ends the stream.
    pub(crate) fn finish_stream(&self, id: StreamId, result: Result<Payload, Error>) {
        self.release(id, |State { connection, .. }| {
            let failed = match result {
                Ok(last) => match connection.end_stream(id, last) {
                    Err(error @ SendError::TooLarge { .. }) => {
                        let error = Error::new(fluxar_proto::Code::MESSAGE_TOO_LARGE, error.to_string());
                        Some(error.with_processed(true))
                    }
                    // Ended by the handler itself, or over.
                    _ => None,
                },
                Err(error) => Some(error),
            };
            if let Some(error) = failed {
                connection.fail_stream(id, error);
            }
            connection.release_stream(id);
        });
    }

    /// Refuses a stream on which nothing was done; a peer that causes too many of those loses the connection.
    pub(crate) fn refuse_stream(&self, id: StreamId, error: Error) {
        let now = self.clock().now();
        self.release(id, |State { connection, .. }| {
            if let Err(error) = connection.refuse_stream(now, id, error) {
                tracing::debug!(stream = %id, %error, "a refusal was not sent");
            }
        });
    }

    /// Whether somebody still waits for what a handler does; registers to be woken when nobody does any more.
    pub(crate) fn poll_streaming(&self, id: StreamId, cx: &mut Context<'_>) -> bool {
        let mut state = self.lock();
        let Some(streaming) = state.streaming(id).filter(|streaming| !streaming.withdrawn) else {
            return false;
        };
        let replaced = register(&mut streaming.handler, cx);
        state.discard(replaced);
        true
    }

    pub(crate) fn is_streaming(&self, id: StreamId) -> bool {
        self.lock().connection.is_streaming(id)
    }

    /// A stream of the peer, as its handler sees it.
    pub(crate) fn stream_request(self: &Arc<Self>, opening: StreamOpening) -> StreamRequest {
        StreamRequest::new(self.clone(), opening)
    }
}

impl State {
    pub(super) fn handle_stream_event(&mut self, event: StreamEvent, chores: &mut Chores) {
        match event {
            StreamEvent::Opened(opening) => {
                self.hold_stream(opening.id);
                chores.streams.push(opening);
            }
            StreamEvent::Readable(id) => {
                chores.wakers.extend(self.streaming(id).and_then(|streaming| streaming.receiver.take()));
            }
            StreamEvent::Writable(id) => {
                chores.wakers.extend(self.streaming(id).and_then(|streaming| streaming.sender.take()));
            }
            StreamEvent::Withdrawn(id, why) => {
                if let Some(streaming) = self.streaming(id) {
                    streaming.withdrawn = true;
                    chores.wakers.extend(streaming.handler.take());
                    tracing::trace!(stream = %id, ?why, "a stream was withdrawn");
                }
            }
            StreamEvent::Capacity => self.serve_streams(&mut chores.wakers),
            _ => {}
        }
    }

    /// The connection has ended: nobody waits for what a handler does, whatever had become of its stream before.
    pub(super) fn withdraw_streams(&mut self, wakers: &mut Vec<Waker>) {
        for streaming in self.streams.iter_mut() {
            streaming.withdrawn = true;
            wakers.extend(streaming.handler.take());
        }
    }

    /// Remembers who waits for what happens to a stream.
    pub(crate) fn hold_stream(&mut self, id: StreamId) {
        // A slot is free only once its stream was let go.
        if let Some(before) = self.streams.put(id.slot(), Streaming::new(id)) {
            self.discarded.extend(before.into_wakers());
        }
    }

    fn streaming(&mut self, id: StreamId) -> Option<&mut Streaming> {
        self.streams.get_mut(id.slot()).filter(|streaming| streaming.id == id)
    }

    fn forget_stream(&mut self, id: StreamId) -> Option<Streaming> {
        self.streaming(id)?;
        self.streams.remove(id.slot())
    }

    /// Calls up as many of those who wait to open a stream as may.
    pub(crate) fn serve_streams(&mut self, wakers: &mut Vec<Waker>) {
        if self.moves_on() {
            return;
        }
        let room = self.connection.stream_room();
        if self.queue.serve_streams(room, wakers) {
            let most = self.connection.peer().map_or(0, |peer| peer.limits.max_streams as usize);
            if room < most {
                self.connection.want_stream_capacity();
            }
        }
    }

    /// What an application is told whose stream could not be opened.
    pub(crate) fn stream_error(&self, error: StreamError) -> Error {
        use fluxar_proto::Code;
        let code = match error {
            StreamError::Closed => return self.closed_error(),
            StreamError::Draining => Code::DRAINING,
            StreamError::TooLarge { .. } => Code::MESSAGE_TOO_LARGE,
            StreamError::NoStreams => Code::RESOURCE_EXHAUSTED,
            StreamError::NotNegotiated => Code::UNIMPLEMENTED,
            _ => Code::INVALID_ARGUMENT,
        };
        Error::new(code, error.to_string()).with_processed(false)
    }
}
