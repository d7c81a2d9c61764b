//! A stream, as its handler sees it.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::message::Meta;
use fluxar_proto::{Error, StreamId, StreamOpening, Text};

use crate::auth::Identity;
use crate::payload::{FromPayload, IntoPayload, Raw};
use crate::peer::Peer;
use crate::shared::Shared;
use crate::stream::{Side, Stream, StreamReceiver};
use crate::stream_sender::StreamSender;

/// A stream that the other peer has opened, handed to the handler of its method.
///
/// The handler's return ends the stream: its value is the final value behind all that was sent, `()` for none, its error
/// ends the stream at once. The handler's future is dropped where it stands when the opener gives the stream up or ends it
/// with an error, when the deadline passes and when the connection is lost: nobody waits for it then.
pub struct StreamRequest {
    shared: Arc<Shared>,
    opening: StreamOpening,
    /// Unless its halves were taken out.
    stream: Option<Stream<Raw>>,
}

impl StreamRequest {
    pub(crate) fn new(shared: Arc<Shared>, opening: StreamOpening) -> Self {
        let stream = Some(Stream::new(shared.clone(), opening.id, Side::Acceptor));
        Self { shared, opening, stream }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn id(&self) -> StreamId {
        self.opening.id
    }

    pub(crate) fn method_text(&self) -> Text {
        self.opening.method.clone()
    }

    /// The method that the stream was opened for.
    pub fn method(&self) -> &str {
        &self.opening.method
    }

    /// The argument of the opening.
    ///
    /// # Errors
    ///
    /// `invalid_argument` where it is not a `T`; handed on with `?`, that is what the opener gets.
    pub fn payload<T: FromPayload>(&self) -> Result<T, Error> {
        T::from_payload(&self.opening.payload).map_err(|error| error.with_processed(false))
    }

    /// The argument, as it came.
    pub fn raw(&self) -> Raw {
        self.opening.payload.clone().into()
    }

    /// What the opener says about the stream, as `traceparent`.
    pub fn meta(&self) -> Meta<'_> {
        // Checked when it came.
        Meta::decode(&self.opening.meta).unwrap_or(Meta::EMPTY)
    }

    /// How long the stream may still take; `None` where there is no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.opening.deadline.map(|at| at - self.shared.clock().now())
    }

    /// Who opened the stream: for calling back, for instance.
    pub fn peer(&self) -> Peer {
        Peer::new(self.shared.clone())
    }

    /// Who opened the stream, as [`Peer::identity`].
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.shared.known().identity()
    }

    /// Whether the stream is neither over nor given up.
    pub fn is_wanted(&self) -> bool {
        self.shared.is_streaming(self.opening.id)
    }

    /// As [`StreamSender::send`].
    ///
    /// # Errors
    ///
    /// As [`StreamSender::send`]; `failed_precondition` after [`split`](Self::split).
    ///
    /// # Cancel safety
    ///
    /// As [`StreamSender::send`].
    pub async fn send(&mut self, item: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        match &mut self.stream {
            Some(stream) => stream.send(item).await,
            None => Err(was_split()),
        }
    }

    /// As [`StreamSender::feed`]. The handler's return flushes too.
    ///
    /// # Errors
    ///
    /// As [`StreamSender::feed`]; `failed_precondition` after [`split`](Self::split).
    ///
    /// # Cancel safety
    ///
    /// As [`StreamSender::feed`].
    pub async fn feed(&mut self, item: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        match &mut self.stream {
            Some(stream) => stream.feed(item).await,
            None => Err(was_split()),
        }
    }

    /// As [`StreamSender::flush`].
    ///
    /// # Errors
    ///
    /// As [`StreamSender::flush`]; `failed_precondition` after [`split`](Self::split).
    ///
    /// # Cancel safety
    ///
    /// As [`StreamSender::flush`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        match &mut self.stream {
            Some(stream) => stream.flush().await,
            None => Err(was_split()),
        }
    }

    /// The next item from the opener; `None` once it has ended its direction, and after [`split`](Self::split).
    ///
    /// # Errors
    ///
    /// As [`StreamReceiver::next`].
    ///
    /// # Cancel safety
    ///
    /// As [`StreamReceiver::next`].
    pub async fn next<T: FromPayload>(&mut self) -> Option<Result<T, Error>> {
        let stream = self.stream.as_mut()?;
        poll_fn(|cx| stream.poll_item_as(cx)).await
    }

    /// As [`StreamReceiver::pause`].
    pub fn pause(&mut self) {
        self.stream.iter_mut().for_each(Stream::pause);
    }

    /// As [`StreamReceiver::resume`].
    pub fn resume(&mut self) {
        self.stream.iter_mut().for_each(Stream::resume);
    }

    /// Takes the halves out, for use in different tasks, or as `Sink` and `Stream`. The handler's return still ends the
    /// stream.
    ///
    /// # Errors
    ///
    /// `failed_precondition` where they were taken before.
    pub fn split<T>(&mut self) -> Result<(StreamSender, StreamReceiver<T>), Error> {
        let (sender, receiver) = self.stream.take().ok_or_else(was_split)?.split();
        Ok((sender, receiver.with_items_of()))
    }
}

fn was_split() -> Error {
    Error::new(fluxar_proto::Code::FAILED_PRECONDITION, "the halves of the stream were taken out")
        .into_outcome()
}

impl fmt::Debug for StreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamRequest")
            .field("method", &self.method())
            .field("id", &self.opening.id)
            .finish_non_exhaustive()
    }
}
