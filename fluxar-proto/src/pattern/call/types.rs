//! The vocabulary of calls.

use core::fmt;
use core::ops::Deref;
use core::time::Duration;

use bytes::Bytes;

use crate::message::{DecodeError, Payload};
use crate::pattern::slots::wire_ids;
use crate::time::Instant;

wire_ids! {
    /// A call that we made.
    CallId
    /// A call that the peer made.
    RequestId
}

/// A piece of text that shares the buffer it came in.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// Wraps `bytes`, or nothing where they are not UTF-8.
    pub(crate) fn new(bytes: Bytes) -> Option<Self> {
        core::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// Wraps `bytes` that are known to be UTF-8.
    pub(crate) fn trusted(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // Checked when it was made; without `unsafe` the type cannot remember that.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The local limits on calls: what this side holds, beyond what it announces (§15.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallLimits {
    /// Calls of the peer that may run at once; announced as `max_calls`.
    pub(crate) max_calls: usize,
    /// The longest that a request may take.
    pub(crate) max_deadline: Option<Duration>,
    /// Bytes of payload queued for sending beyond which new calls and updates are `Blocked`.
    pub(crate) send_buffer: usize,
    /// Bytes held for running requests beyond which further ones are refused.
    pub(crate) request_bytes: usize,
    /// Updates held for the application, per call; beyond it the oldest goes.
    pub(crate) updates_per_call: usize,
    /// Whether idempotent calls are made again in a fresh session, so that they are kept until they are answered.
    pub(crate) repeats: bool,
    /// Bytes of updates held for the application, per connection.
    pub(crate) update_bytes: usize,
}

/// How a call is to be made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// Gives the call up after this time, on both sides. None: it may take for ever.
    pub timeout: Option<Duration>,
    /// Metadata for the callee: one encoded CBOR map with text keys, or empty.
    pub meta: Bytes,
    /// The call may be acted upon more than once (§16.4). Where its session is lost and a
    /// [fresh one](crate::Config::reconnect) comes, it is made again there, by another id on the wire, instead of failing with
    /// `unavailable`; its deadline runs on. For that it is kept until it is answered, and counts against
    /// [`send_buffer`](crate::Config::send_buffer) for so long. Updates are not repeated.
    pub idempotent: bool,
}

impl CallOptions {
    /// No deadline, no metadata, not idempotent.
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

    /// Sets [`idempotent`](Self::idempotent).
    #[must_use]
    pub fn with_idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}

/// A call that the peer makes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Names the request in [`respond`](crate::Connection::respond) and elsewhere.
    pub id: RequestId,
    /// The method called.
    pub method: Text,
    /// The caller's metadata: one encoded CBOR map, or empty.
    pub meta: Bytes,
    /// The argument: one CBOR item.
    pub payload: Payload,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// What happens to calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallEvent {
    /// The peer calls. Each must be answered by [`respond`](crate::Connection::respond) in the end, also when it
    /// was withdrawn meanwhile: only that frees its slot.
    Request(Request),
    /// A call of ours has its outcome, for [`take_response`](crate::Connection::take_response). Each call gets exactly
    /// one, unless it was cancelled. The call keeps its slot until the outcome is taken.
    Response(CallId),
    /// There are updates from the callee, for [`poll_update`](crate::Connection::poll_update).
    Updated(CallId),
    /// There are updates from the caller, for [`poll_request_update`](crate::Connection::poll_request_update).
    RequestUpdated(RequestId),
    /// Nobody waits for the answer to this request any more: its handler may stop.
    Withdrawn(RequestId, Withdrawn),
    /// After a `Blocked`: there is room again.
    Capacity,
}

/// Why a request's answer is no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Withdrawn {
    /// The caller cancelled the call.
    Cancelled,
    /// Its deadline passed; the caller was told so.
    DeadlineExceeded,
    /// The connection ended.
    ConnectionLost,
}

/// Why a call could not be made. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// As many calls as the peer allows are open, too much is queued, or the handshake is not done;
    /// [`CallEvent::Capacity`] announces room.
    Blocked,
    /// The peer takes no calls at all.
    NoCalls,
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

/// Why an update could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateError {
    /// Too much is queued; [`CallEvent::Capacity`] announces room.
    Blocked,
    /// The call is over.
    Gone,
    /// The message is larger than the peer takes.
    TooLarge,
}

/// Why a response was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RespondError {
    /// Nobody waits for it: the call was cancelled, its deadline passed, or it was answered before.
    Gone,
    /// It is larger than the peer takes; the caller got `message_too_large` in its place.
    TooLarge,
}

/// The call is over, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked => f.write_str("no room for another call now"),
            Self::NoCalls => f.write_str("the peer takes no calls"),
            Self::Closed => f.write_str("the connection is closed"),
            Self::Draining => f.write_str("the peer is about to leave"),
            Self::TooLarge { len, limit } => {
                write!(f, "a message of {len} bytes, where the peer takes {limit}")
            }
            Self::MethodTooLong => f.write_str("a method name of more than 255 bytes"),
            Self::BadMeta(Some(error)) => write!(f, "bad metadata: {error}"),
            Self::BadMeta(None) => f.write_str("bad metadata: `timeout_ms` is set by the call's timeout"),
        }
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocked => "no room for an update now",
            Self::Gone => "the call is over",
            Self::TooLarge => "the update is larger than the peer takes",
        })
    }
}

impl fmt::Display for RespondError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "nobody waits for the response",
            Self::TooLarge => "the response is larger than the caller takes",
        })
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call is over")
    }
}

impl core::error::Error for CallError {}
impl core::error::Error for UpdateError {}
impl core::error::Error for RespondError {}
impl core::error::Error for Gone {}
