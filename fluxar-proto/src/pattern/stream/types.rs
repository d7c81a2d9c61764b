//! The vocabulary of streams.

use core::fmt;
use core::iter::FusedIterator;
use core::time::Duration;

use bytes::{Buf, Bytes};

use crate::message::{DecodeError, Error, Item, Payload};
use crate::pattern::slots::wire_ids;
use crate::pattern::{Text, Withdrawn};
use crate::time::Instant;

wire_ids! {
    /// A stream, whoever opened it.
    StreamId
}

/// The local limits on streams (§15.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamLimits {
    /// Streams that the peer may have open at once; announced as `max_streams`.
    pub(crate) max_streams: usize,
    /// Credit that the peer has at the beginning, in bytes; announced as `stream_window`.
    pub(crate) window: u32,
    /// How far a window may grow, in bytes.
    pub(crate) max_window: u32,
    /// The longest that a stream of the peer may take.
    pub(crate) max_deadline: Option<Duration>,
    /// Bytes queued for sending on one stream beyond which more is `Blocked`.
    pub(crate) send_buffer: usize,
    /// Bytes of the openings of running streams beyond which further ones are refused.
    pub(crate) opening_bytes: usize,
}

/// How a stream is to be opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StreamOptions {
    /// Gives the stream up after this time, on both sides, even if it is under way. None: it may take for ever.
    pub timeout: Option<Duration>,
    /// Metadata for the acceptor: one encoded CBOR map with text keys, or empty.
    pub meta: Bytes,
    /// What the acceptor may send before it gets credit, in bytes. None: what this side announced as `stream_window`.
    pub window: Option<u32>,
}

impl StreamOptions {
    /// No deadline, no metadata, the window that was announced.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets [`meta`](Self::meta).
    #[must_use]
    pub fn with_meta(mut self, meta: Bytes) -> Self {
        self.meta = meta;
        self
    }

    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn with_window(mut self, bytes: u32) -> Self {
        self.window = Some(bytes);
        self
    }
}

/// A stream that the peer opens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamOpening {
    /// Names the stream from now on.
    pub id: StreamId,
    /// The method it is opened for.
    pub method: Text,
    /// The opener's metadata: one encoded CBOR map, or empty.
    pub meta: Bytes,
    /// The argument: one CBOR item.
    pub payload: Payload,
    /// When the stream ends at the latest.
    pub deadline: Option<Instant>,
}

/// What happens to streams. Events announce; what has come is taken with [`poll_stream`](crate::Connection::poll_stream).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StreamEvent {
    /// The peer opens a stream. Its slot is taken until it is closed and was
    /// [let go](crate::Connection::release_stream).
    Opened(StreamOpening),
    /// There is something to take: items, the end, or an error. Comes once after each time that there was nothing.
    Readable(StreamId),
    /// After a `Blocked` of [`send_item`](crate::Connection::send_item): there is room again, or it is over.
    Writable(StreamId),
    /// Nobody waits any more for what the acceptor of this stream does: its handler may stop.
    Withdrawn(StreamId, Withdrawn),
    /// After a `Blocked` of [`open_stream`](crate::Connection::open_stream): there is room again.
    Capacity,
}

/// What an application takes from a stream.
#[derive(Clone, Debug)]
pub enum Received {
    /// Items, in order.
    Items(Items),
    /// The other side has ended its direction, with this final value; null: none. Stays.
    End(Payload),
    /// The stream is over, for this reason. Stays.
    Failed(Error),
}

/// Items of a stream that have come together, at least one.
#[derive(Clone, Default)]
pub struct Items(Bytes);

impl Items {
    /// Of items that lie one behind the other and have been checked.
    pub(super) fn new(items: Bytes) -> Self {
        Self(items)
    }

    /// Hands the next item to `then`, where it lies: for whoever keeps nothing of it.
    pub fn next_with<R>(&mut self, then: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let len = Item::first_len(&self.0);
        let item = self.0.get(..len).filter(|item| !item.is_empty())?;
        let result = then(Item::trusted(item));
        self.0.advance(len);
        Some(result)
    }

    /// What is left of them, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl Iterator for Items {
    type Item = Payload;

    fn next(&mut self) -> Option<Payload> {
        let len = Item::first_len(&self.0);
        match self.0.len() {
            0 => None,
            // The last one takes the memory over.
            all if len >= all => Some(Payload::trusted(core::mem::take(&mut self.0))),
            _ => Some(Payload::trusted(self.0.split_to(len))),
        }
    }
}

impl FusedIterator for Items {}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// Why a stream could not be opened. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// As many streams as the peer allows are open, or the handshake is not done; [`StreamEvent::Capacity`] announces
    /// room.
    Blocked,
    /// The peer takes no streams at all.
    NoStreams,
    /// Streams are not among the features of this connection.
    NotNegotiated,
    /// The connection is closed or closing.
    Closed,
    /// The peer is about to leave, and takes nothing new (§8.6).
    Draining,
    /// The message is larger than the peer takes.
    TooLarge {
        /// Bytes that the message has.
        len: usize,
        /// Bytes that the peer takes.
        limit: usize,
    },
    /// The method's name is longer than 255 bytes.
    MethodTooLong,
    /// The metadata is not a map, or has a key that the protocol sets itself.
    BadMeta(Option<DecodeError>),
}

/// Why data could not be sent on a stream. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// Too much is queued on this stream; [`StreamEvent::Writable`] announces room.
    Blocked,
    /// This direction was ended before.
    Ended,
    /// The stream is over.
    Gone,
    /// The message is larger than the peer takes.
    TooLarge {
        /// Bytes that the message has.
        len: usize,
        /// Bytes that the peer takes.
        limit: usize,
    },
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked => f.write_str("no room for another stream now"),
            Self::NoStreams => f.write_str("the peer takes no streams"),
            Self::NotNegotiated => f.write_str("the peer has no streams"),
            Self::Closed => f.write_str("the connection is closed"),
            Self::Draining => f.write_str("the peer is about to leave"),
            Self::TooLarge { len, limit } => {
                write!(f, "a message of {len} bytes, where the peer takes {limit}")
            }
            Self::MethodTooLong => f.write_str("a method name of more than 255 bytes"),
            Self::BadMeta(Some(error)) => write!(f, "bad metadata: {error}"),
            Self::BadMeta(None) => {
                f.write_str("bad metadata: `timeout_ms` and `window` are set by the stream's options")
            }
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked => f.write_str("no room for another item now"),
            Self::Ended => f.write_str("this direction of the stream was ended"),
            Self::Gone => f.write_str("the stream is over"),
            Self::TooLarge { len, limit } => {
                write!(f, "a message of {len} bytes, where the peer takes {limit}")
            }
        }
    }
}

impl core::error::Error for StreamError {}
impl core::error::Error for SendError {}
