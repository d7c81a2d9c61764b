//! The half of a stream that sends.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use fluxar_proto::{Error, ItemBatch, Payload, SendError, StreamId};
use futures_util::Sink;

use crate::payload::{Encoded, IntoPayload};
use crate::shared::Shared;
use crate::stream::Side;

/// The half of a stream that sends. It is a [`Sink`] of anything that can be sent.
///
/// # Dropping
///
/// Dropped without [`end`](Self::end), the stream ends with an error at the other side, so that it takes nothing for
/// whole that is not; unless nothing was ever sent: then this direction just ends. In a handler it is the handler's
/// return that ends the stream: dropping this half there only sends what was [fed](Self::feed).
pub struct StreamSender {
    shared: Arc<Shared>,
    id: StreamId,
    side: Side,
    /// What was fed.
    batch: ItemBatch,
}

impl StreamSender {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId, side: Side) -> Self {
        Self { shared, id, side, batch: ItemBatch::new() }
    }

    /// Sends an item. Waits while the other side does not keep up: at most
    /// [`stream_buffer`](crate::Config::stream_buffer) bytes are queued. Items that are sent in a burst share messages.
    ///
    /// # Errors
    ///
    /// Why the stream is over, as the other side's `cancel` or its error; `failed_precondition` after an end of this
    /// side's; `message_too_large`; or the item's own serialization.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the item was not sent.
    pub async fn send(&mut self, item: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        if !self.batch.is_empty() {
            self.flush().await?;
        }
        loop {
            match item.encode_for(|item| self.shared.send_item(self.id, &item))? {
                Err(SendError::Blocked) => poll_fn(|cx| self.poll_room(cx)).await?,
                sent => return sent.map_err(|error| self.error(error)),
            }
        }
    }

    /// As [`send`](Self::send), but small items are gathered here until there are 16 KiB of them, or until
    /// [`flush`](Self::flush): for sending many at once, which costs less this way. What is fed is on its way only once it
    /// is flushed; [`send`](Self::send) and the ends flush too.
    ///
    /// ```no_run
    /// # async fn doc(mut stream: fluxar_runtime::Stream<()>, rows: Vec<u64>) -> Result<(), fluxar_runtime::Error> {
    /// for row in rows {
    ///     stream.feed(&row).await?;
    /// }
    /// stream.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); what is wrong with the stream may show only with a later item, or when it is flushed.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the item was not fed.
    pub async fn feed(&mut self, item: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        if !self.batch.has_room() {
            self.flush().await?;
        }
        self.start_send(item)
    }

    /// Sends what was [fed](Self::feed). Waits while the other side does not keep up.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, what was not sent is still fed.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends this direction, behind what was sent (§11.3).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, which takes time only where something was fed, the direction has not ended.
    pub async fn end(&mut self) -> Result<(), Error> {
        self.end_with(&()).await
    }

    /// Ends this direction with a final value, which is not one of its items.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`end`](Self::end).
    pub async fn end_with(&mut self, last: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        let last = last.to_payload()?;
        self.flush().await?;
        self.shared.end_stream(self.id, last).map_err(|error| self.error(error))
    }

    /// Ends the whole stream with an error, which the other side is told behind what was sent, as far as it has room for
    /// that (§11.3).
    pub fn fail(&mut self, error: Error) {
        self.send_rest();
        self.shared.on_stream(|connection| connection.fail_stream(self.id, error));
    }

    /// Ends this direction, unless it has ended. Where the stream has failed, the receiving half knows why.
    pub(crate) async fn end_for_outcome(&mut self) -> Result<(), Error> {
        if self.flush().await.is_err() {
            return Ok(());
        }
        match self.shared.end_stream(self.id, Payload::null()) {
            Ok(()) | Err(SendError::Ended | SendError::Gone) => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Waits for room in the connection.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.poll_send_ready(cx, self.id).map_err(|error| self.error(error))
    }

    /// Waits for room for an item here.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.batch.has_room() { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    pub(crate) fn start_send(&mut self, item: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        item.encode_for(|item| match item {
            Encoded::Small(item) if self.batch.push(item) => {}
            Encoded::Small(item) => self.batch.push_last(item.into()),
            Encoded::Shared(payload) => self.batch.push_last(payload),
        })
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.batch.is_empty() {
            match self.shared.send_batch(self.id, &mut self.batch, true) {
                Ok(()) => {}
                Err(SendError::Blocked) => ready!(self.poll_room(cx))?,
                Err(error) => {
                    self.batch = ItemBatch::new();
                    return Poll::Ready(Err(self.error(error)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Flushes and ends; for those that may close twice.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(match self.shared.end_stream(self.id, Payload::null()) {
            Err(SendError::Ended) => Ok(()),
            ended => ended.map_err(|error| self.error(error)),
        })
    }

    /// Sends what was fed, whether there is room or not: nobody can wait for it any more.
    fn send_rest(&mut self) {
        if !self.batch.is_empty() {
            self.shared.send_batch(self.id, &mut self.batch, false).ok();
        }
    }

    fn error(&self, error: SendError) -> Error {
        self.shared.send_error(self.id, error).into_outcome()
    }
}

impl<U: IntoPayload> Sink<U> for StreamSender {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Self::poll_ready(&mut self, cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: U) -> Result<(), Error> {
        Self::start_send(&mut self, &item)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Self::poll_flush(&mut self, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Self::poll_close(&mut self, cx)
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        if self.side == Side::Acceptor {
            self.send_rest();
        }
        self.shared.release_sender(self.id, self.side == Side::Opener);
    }
}

impl fmt::Debug for StreamSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamSender").field(&self.id).finish()
    }
}
