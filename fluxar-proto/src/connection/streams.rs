//! What the application may do with streams (§11).

use super::Connection;
use crate::message::{Error, Item, Payload};
use crate::pattern::{Context, Gone, ItemBatch, Received, SendError, StreamError, StreamId, StreamOptions};
use crate::session::ConnectionError;
use crate::time::Instant;

impl Connection {
    /// Opens a stream for `method` of the peer. Both directions are open from then on: data may be sent at once, and what
    /// comes is announced by [`Readable`](crate::StreamEvent::Readable) (§11.1).
    ///
    /// # Errors
    ///
    /// Nothing was sent. After [`Blocked`](StreamError::Blocked), try again when
    /// [`StreamEvent::Capacity`](crate::StreamEvent::Capacity) says so.
    pub fn open_stream(
        &mut self,
        now: Instant,
        method: &str,
        payload: Payload,
        options: StreamOptions,
    ) -> Result<StreamId, StreamError> {
        if self.error.is_some() {
            return Err(StreamError::Closed);
        }
        if self.peer_draining().is_some() {
            return Err(StreamError::Draining);
        }
        let Self { streams, ids, open, budget, refusals, .. } = self;
        streams.open_stream(method, payload, options, &mut Context { now, ids, open, budget, refusals })
    }

    /// Whether a stream could be opened now: to be asked by whoever does not want to hand over a payload in vain.
    ///
    /// # Errors
    ///
    /// As [`open_stream`](Self::open_stream); [`Blocked`](StreamError::Blocked) announces room too.
    pub fn ready_to_stream(&mut self) -> Result<(), StreamError> {
        if self.error.is_some() {
            Err(StreamError::Closed)
        } else if self.peer_draining().is_some() {
            Err(StreamError::Draining)
        } else {
            self.streams.ready_to_stream()
        }
    }

    /// How many streams may be opened now before one is [`Blocked`](StreamError::Blocked).
    pub fn stream_room(&self) -> usize {
        self.streams.room()
    }

    /// Asks for a [`StreamEvent::Capacity`](crate::StreamEvent::Capacity) as soon as there is more room than now, as a
    /// `Blocked` does; at once where no stream of ours is open, so that nothing will make room.
    pub fn want_stream_capacity(&mut self) {
        if self.error.is_none() {
            self.streams.want_capacity();
        }
    }

    /// Queues one item on a stream. Small items that wait together share a message (§11.2).
    ///
    /// # Errors
    ///
    /// Nothing was queued.
    pub fn send_item(&mut self, stream: StreamId, payload: Payload) -> Result<(), SendError> {
        self.streams.send_item(stream, payload)
    }

    /// As [`send_item`](Self::send_item), but copies the item, which pays for small ones.
    ///
    /// # Errors
    ///
    /// Nothing was queued.
    pub fn send_item_from(&mut self, stream: StreamId, item: Item<'_>) -> Result<(), SendError> {
        self.streams.send_item_from(stream, item)
    }

    /// Queues the items of `batch`, and leaves it empty. Where the application does not `wait`, as because it is about
    /// to let go of the stream, they go beyond what may be queued.
    ///
    /// # Errors
    ///
    /// Nothing was queued, and `batch` is as it was; but with [`TooLarge`](SendError::TooLarge) it is empty, and all were
    /// queued but the last one.
    pub fn send_batch(
        &mut self,
        stream: StreamId,
        batch: &mut ItemBatch,
        wait: bool,
    ) -> Result<(), SendError> {
        self.streams.send_batch(stream, batch, wait)
    }

    /// Whether an item could be queued now.
    ///
    /// # Errors
    ///
    /// As [`send_item`](Self::send_item); [`Blocked`](SendError::Blocked) announces room too.
    pub fn ready_to_send(&mut self, stream: StreamId) -> Result<(), SendError> {
        self.streams.ready_to_send(stream)
    }

    /// Ends this side's direction behind what is queued, with a final value; null: none (§11.3).
    ///
    /// # Errors
    ///
    /// Where it was ended before, or the stream is over, or the value is larger than the peer takes.
    pub fn end_stream(&mut self, stream: StreamId, last: Payload) -> Result<(), SendError> {
        self.streams.end_stream(stream, last)
    }

    /// Ends the whole stream with an error, which the other side is told behind what is queued, as far as there is credit
    /// for that (§11.3).
    pub fn fail_stream(&mut self, stream: StreamId, error: Error) {
        self.streams.fail_stream(stream, error, &mut self.open);
    }

    /// Refuses a stream of the peer on which nothing was done, with `error` and `processed: false`. It counts as a
    /// rejected opening (§10.7).
    ///
    /// # Errors
    ///
    /// The peer has caused more of those than are borne, or the connection was over before.
    pub fn refuse_stream(
        &mut self,
        now: Instant,
        stream: StreamId,
        error: Error,
    ) -> Result<(), ConnectionError> {
        let wanted = self.streams.is_wanted(stream);
        self.fail_stream(stream, error.with_processed(false));
        self.release_stream(stream);
        match &self.error {
            Some(over) => Err(over.clone()),
            None if wanted => self.budget.charge(now).map_err(|flood| self.fail(now, flood.into())),
            None => Ok(()),
        }
    }

    /// Gives a stream up, with an error or without: nothing more is sent, and what comes is dropped (§11.4).
    pub fn cancel_stream(&mut self, stream: StreamId, error: Option<Error>) {
        self.streams.cancel_stream(stream, error, &mut self.open);
    }

    /// Asks the other side to stop sending data on this stream for now. Advice: what is under way still comes (§11.6).
    pub fn pause_stream(&mut self, stream: StreamId) {
        self.streams.pause_stream(stream, true);
    }

    /// Asks the other side to go on (§11.6).
    pub fn resume_stream(&mut self, stream: StreamId) {
        self.streams.pause_stream(stream, false);
    }

    /// The next thing that came on a stream. Taking items gives the other side credit (§11.5). `None`: nothing yet;
    /// [`Readable`](crate::StreamEvent::Readable) will tell.
    ///
    /// # Errors
    ///
    /// [`Gone`] where the stream was let go.
    pub fn poll_stream(&mut self, stream: StreamId) -> Result<Option<Received>, Gone> {
        self.streams.poll_stream(stream)
    }

    /// Whether a stream is neither over nor given up.
    pub fn is_streaming(&self, stream: StreamId) -> bool {
        self.streams.is_wanted(stream)
    }

    /// Why a stream is over, where it did not end in order.
    pub fn stream_error(&self, stream: StreamId) -> Option<Error> {
        self.streams.error(stream)
    }

    /// Whether the application has not let go of a stream yet.
    pub fn holds_stream(&self, stream: StreamId) -> bool {
        self.streams.is_held(stream)
    }

    /// The application sends nothing more on a stream. Where it has not ended its direction, the whole stream ends with an
    /// error, so that nobody takes what was sent for all; an opener that never sent anything just ends its direction.
    pub fn release_sender(&mut self, stream: StreamId) {
        self.streams.release_sender(stream, &mut self.open);
    }

    /// The application wants nothing more of what comes on a stream. The opener cancels the stream, if its end has not
    /// come. The acceptor, which may still have to say something, does so only when data comes that nobody wants, and
    /// its own direction has ended.
    pub fn release_receiver(&mut self, stream: StreamId) {
        self.streams.release_receiver(stream, &mut self.open);
    }

    /// Lets go of a stream, as both [`release_receiver`](Self::release_receiver) and
    /// [`release_sender`](Self::release_sender). Each stream must be let go in the end: only that frees its slot.
    pub fn release_stream(&mut self, stream: StreamId) {
        self.streams.release_stream(stream, &mut self.open);
    }
}
