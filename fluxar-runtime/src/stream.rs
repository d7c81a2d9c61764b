//! Streams, as their opener sees them; and the halves that both sides have.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fluxar_proto::{Connection, Error, Items, Payload, Received, StreamId, StreamOptions};
use futures_util::{Sink, stream::FusedStream};

use crate::call::encode_pairs;
use crate::payload::{FromPayload, IntoPayload, Raw};
use crate::queue::Purpose;
use crate::shared::Shared;
use crate::stream_sender::StreamSender;
use crate::turn::Turn;

/// A stream that is about to be opened; `.await` opens it.
///
/// ```no_run
/// # async fn doc(peer: fluxar_runtime::Peer) -> Result<(), fluxar_runtime::Error> {
/// let mut tokens = peer.stream::<String>("llm.complete", "Once upon a time").await?;
/// while let Some(token) = tokens.next().await {
///     print!("{}", token?);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// Dropped before it is ready, no stream was opened.
#[must_use = "a stream is opened when it is awaited"]
pub struct OpenStream<'a, T> {
    shared: &'a Arc<Shared>,
    method: &'a str,
    payload: Result<Payload, Error>,
    options: StreamOptions,
    meta: Vec<(String, Result<Payload, Error>)>,
    output: PhantomData<fn() -> T>,
}

impl<'a, T: FromPayload> OpenStream<'a, T> {
    pub(crate) fn new(shared: &'a Arc<Shared>, method: &'a str, payload: Result<Payload, Error>) -> Self {
        Self { shared, method, payload, options: StreamOptions::new(), meta: Vec::new(), output: PhantomData }
    }

    /// Gives the stream up after `timeout`, on both sides, however far it has come (§11.7).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// What the other side may send before this one has taken any of it, in bytes (§11.5). It grows where that would
    /// slow the stream down. Default: the [`stream_window`](crate::Limits::stream_window) of the connection.
    pub fn window(mut self, bytes: u32) -> Self {
        self.options.window = Some(bytes);
        self
    }

    /// Adds metadata that the other side can read, as `traceparent`.
    pub fn meta(mut self, key: impl Into<String>, value: &(impl IntoPayload + ?Sized)) -> Self {
        self.meta.push((key.into(), value.to_payload()));
        self
    }
}

impl<'a, T: FromPayload> IntoFuture for OpenStream<'a, T> {
    type Output = Result<Stream<T>, Error>;
    type IntoFuture = Opening<'a, T>;

    fn into_future(self) -> Opening<'a, T> {
        let Self { shared, method, payload, mut options, meta, output } = self;
        let prepared = payload.and_then(|payload| {
            options.meta = encode_pairs(meta)?;
            Ok((payload, options))
        });
        let (prepared, failed) = match prepared {
            Ok(prepared) => (Some(prepared), None),
            Err(error) => (None, Some(error)),
        };
        Opening { method, prepared, failed, turn: Turn::new(shared.clone(), Purpose::Stream), output }
    }
}

/// The future of an [`OpenStream`].
#[must_use = "futures do nothing unless polled"]
pub struct Opening<'a, T> {
    method: &'a str,
    prepared: Option<(Payload, StreamOptions)>,
    /// Why it could not be prepared.
    failed: Option<Error>,
    turn: Turn,
    output: PhantomData<fn() -> T>,
}

impl<T> Future for Opening<'_, T> {
    type Output = Result<Stream<T>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Err(error.into_outcome()));
        }
        let opened = ready!(this.turn.poll_stream(cx, this.method, &mut this.prepared));
        let stream = opened.map(|id| Stream::new(this.turn.shared().clone(), id, Side::Opener));
        Poll::Ready(stream.map_err(Error::into_outcome))
    }
}

/// Who opened a stream: what dropping a half means depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Opener,
    /// The handler's return ends the stream.
    Acceptor,
}

/// A stream that this side has opened, with both its halves: what is sent, and the items of type `T` that come.
///
/// It is a [`futures` stream](futures_util::Stream) of `Result<T, Error>` and a [`Sink`] of anything that can be sent;
/// [`next`](Self::next) and [`send`](Self::send) need no extension trait. What comes is held only within the window, and
/// the other side waits when that is full; in the same way [`send`](Self::send) waits when the other side does not keep
/// up (§11.5).
///
/// # Dropping
///
/// Dropped before the other side has ended its direction, the stream is cancelled: the handler at the other side stops.
/// Dropped after that, but with items sent and no [`end`](Self::end), it ends with an error there.
pub struct Stream<T> {
    // In this order they are let go of.
    receiver: StreamReceiver<T>,
    sender: StreamSender,
}

impl<T> Stream<T> {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId, side: Side) -> Self {
        let sender = StreamSender::new(shared.clone(), id, side);
        let half = ReceivingHalf { shared, id };
        let receiver =
            StreamReceiver { half, items: Items::default(), last: None, over: false, output: PhantomData };
        Self { receiver, sender }
    }

    pub(crate) fn poll_item_as<U: FromPayload>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<U, Error>>> {
        self.receiver.poll_item_as(cx)
    }

    /// Its halves, which may live in different tasks.
    pub fn split(self) -> (StreamSender, StreamReceiver<T>) {
        (self.sender, self.receiver)
    }

    /// As [`StreamSender::send`].
    ///
    /// # Errors
    ///
    /// As [`StreamSender::send`].
    pub async fn send(&mut self, item: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        self.sender.send(item).await
    }

    /// As [`StreamSender::feed`].
    ///
    /// # Errors
    ///
    /// As [`StreamSender::feed`].
    pub async fn feed(&mut self, item: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        self.sender.feed(item).await
    }

    /// As [`StreamSender::flush`].
    ///
    /// # Errors
    ///
    /// As [`StreamSender::flush`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.sender.flush().await
    }

    /// As [`StreamSender::end`].
    ///
    /// # Errors
    ///
    /// As [`StreamSender::end`].
    pub async fn end(&mut self) -> Result<(), Error> {
        self.sender.end().await
    }

    /// As [`StreamSender::end_with`].
    ///
    /// # Errors
    ///
    /// As [`StreamSender::end_with`].
    pub async fn end_with(&mut self, last: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        self.sender.end_with(last).await
    }

    /// As [`StreamSender::fail`].
    pub fn fail(&mut self, error: Error) {
        self.sender.fail(error);
    }

    /// As [`StreamReceiver::cancel`].
    pub fn cancel(&mut self) {
        self.receiver.cancel();
    }

    /// As [`StreamReceiver::pause`].
    pub fn pause(&mut self) {
        self.receiver.pause();
    }

    /// As [`StreamReceiver::resume`].
    pub fn resume(&mut self) {
        self.receiver.resume();
    }
}

impl<T: FromPayload> Stream<T> {
    /// As [`StreamReceiver::next`].
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        self.receiver.next().await
    }

    /// Ends this side's direction, if it was not ended, and waits for the final value of the other side, past all items
    /// that still come: how an upload learns its outcome.
    ///
    /// ```no_run
    /// # async fn doc(peer: fluxar_runtime::Peer) -> Result<(), fluxar_runtime::Error> {
    /// let mut numbers = peer.stream::<()>("sum", &()).await?;
    /// for n in 0..100 {
    ///     numbers.send(&n).await?;
    /// }
    /// let sum: u64 = numbers.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What the stream failed with, or where its final value is not an `R`.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the stream is cancelled.
    pub async fn finish<R: FromPayload>(mut self) -> Result<R, Error> {
        self.sender.end_for_outcome().await?;
        self.receiver.finish().await
    }
}

impl<T> Unpin for Stream<T> {}

impl<T: FromPayload> futures_util::Stream for Stream<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_item(cx)
    }
}

impl<T: FromPayload> FusedStream for Stream<T> {
    fn is_terminated(&self) -> bool {
        self.receiver.over
    }
}

impl<T, U: IntoPayload> Sink<U> for Stream<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sender.poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: U) -> Result<(), Error> {
        self.sender.start_send(&item)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sender.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sender.poll_close(cx)
    }
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.receiver.half.id).finish()
    }
}

/// The half of a stream that receives: a [`futures` stream](futures_util::Stream) of `Result<T, Error>`.
///
/// # Dropping
///
/// Dropped before the other side has ended its direction, it cancels the whole stream. In a handler that holds only from
/// the moment on in which the handler has returned, and where there is data that nobody wants.
pub struct StreamReceiver<T> {
    half: ReceivingHalf,
    /// Items that were taken together.
    items: Items,
    /// The final value, once the other side has ended in order.
    last: Option<Payload>,
    /// There is nothing more to come.
    over: bool,
    output: PhantomData<fn() -> T>,
}

impl<T> StreamReceiver<T> {
    /// Gives the whole stream up (§11.4): what still comes is dropped, and the other side learns of it.
    pub fn cancel(&mut self) {
        self.on_stream(|connection, id| connection.cancel_stream(id, None));
        self.items = Items::default();
    }

    /// Gives the whole stream up, and says why.
    pub fn cancel_with(&mut self, error: Error) {
        self.on_stream(|connection, id| connection.cancel_stream(id, Some(error)));
        self.items = Items::default();
    }

    /// Asks the other side to stop sending for now. Advice: what is under way still comes, and memory is bounded without
    /// it (§11.6).
    pub fn pause(&mut self) {
        self.on_stream(|connection, id| connection.pause_stream(id));
    }

    /// Asks the other side to go on.
    pub fn resume(&mut self) {
        self.on_stream(|connection, id| connection.resume_stream(id));
    }

    fn on_stream(&self, operation: impl FnOnce(&mut Connection, StreamId)) {
        self.half.shared.on_stream(|connection| operation(connection, self.half.id));
    }

    /// The same half, for items of another type.
    pub(crate) fn with_items_of<U>(self) -> StreamReceiver<U> {
        let Self { half, items, last, over, output: _ } = self;
        StreamReceiver { half, items, last, over, output: PhantomData }
    }

    fn poll_item_as<U: FromPayload>(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<U, Error>>> {
        loop {
            if let Some(item) = U::from_next(&mut self.items) {
                return Poll::Ready(Some(item));
            }
            if self.over {
                return Poll::Ready(None);
            }
            match ready!(self.half.shared.poll_stream(cx, self.half.id)) {
                Received::Items(items) => self.items = items,
                Received::End(last) => (self.last, self.over) = (Some(last), true),
                Received::Failed(error) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error.into_outcome())));
                }
            }
        }
    }

    /// The final value, past all items.
    async fn finish<R: FromPayload>(&mut self) -> Result<R, Error> {
        while let Some(item) = poll_fn(|cx| self.poll_item_as::<Raw>(cx)).await {
            item?;
        }
        let gone = || Error::cancelled("the stream has failed before").into_outcome();
        R::from_payload(&self.last.take().ok_or_else(gone)?).map_err(|error| {
            // The other side did its part; that we cannot read it makes no retry safe.
            let text = format!("bad final value: {}", error.message);
            Error::new(fluxar_proto::Code::INTERNAL, text).with_processed(true).into_outcome()
        })
    }
}

impl<T: FromPayload> StreamReceiver<T> {
    /// The next item; `None` once the other side has ended its direction. After an error there is nothing more.
    ///
    /// # Errors
    ///
    /// Why the stream has failed; or `invalid_argument` where the item is not a `T`, after which the stream goes on.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no item is lost.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    /// The final value that the other side ended its direction with; `None` before it has, and where there is none.
    ///
    /// # Errors
    ///
    /// Where it is not an `R`.
    pub fn last<R: FromPayload>(&self) -> Option<Result<R, Error>> {
        self.last.as_ref().filter(|last| !last.is_null()).map(R::from_payload)
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        self.poll_item_as(cx)
    }
}

impl<T> Unpin for StreamReceiver<T> {}

impl<T: FromPayload> futures_util::Stream for StreamReceiver<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(cx)
    }
}

impl<T: FromPayload> FusedStream for StreamReceiver<T> {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

/// The claim to what comes on a stream.
struct ReceivingHalf {
    shared: Arc<Shared>,
    id: StreamId,
}

impl Drop for ReceivingHalf {
    fn drop(&mut self) {
        self.shared.release_receiver(self.id);
    }
}

impl<T> fmt::Debug for StreamReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamReceiver").field(&self.half.id).finish()
    }
}
