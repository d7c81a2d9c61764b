//! What a side announces that it is ready to receive (§6.7).

use alloc::vec::Vec;
use core::convert::Infallible;

use minicbor::{Encoder, encode};

use super::error::HelloError;
use crate::frame;
use crate::message::Item;

/// The smallest `max_message` that there is, in bytes: room for every message of the protocol itself.
const MIN_MESSAGE: u32 = 1024;
/// The largest: with the allowance of a frame it still fits the length of one.
const MAX_MESSAGE: u32 = u32::MAX - frame::ALLOWANCE;
/// The shortest heartbeat, in milliseconds.
const MIN_HEARTBEAT: u32 = 100;
/// The largest credit of a stream, in bytes.
const MAX_WINDOW: u32 = i32::MAX as u32;

/// The limits that a side announces in its hello: what the *other* side may send to it.
///
/// The default is what this implementation announces; [`Limits::ABSENT`] is what a hello means that leaves them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, in bytes of its encoded envelope, at least 1,024. A longer one is fatal. Default 16 MiB.
    pub max_message: u32,
    /// Calls of the other side that may be open at once. One more gets `resource_exhausted`. Default 1,024.
    pub max_calls: u32,
    /// Streams that the other side may have open at once. Default 256.
    pub max_streams: u32,
    /// Bytes of stream data that the other side may send on one stream before it gets credit. Default 128 KiB: enough for a
    /// local network, and where it is not, it grows (§11.5).
    pub stream_window: u32,
    /// Subscriptions of the other side at once. Default 1,024.
    pub max_subscriptions: u32,
    /// Unreleased messages with acknowledgement at once. Default 256.
    pub max_inflight: u32,
    /// The heartbeat wanted, in milliseconds; 0 for none, otherwise at least 100. The smaller non-zero one of both
    /// sides holds. Default 15,000.
    pub heartbeat_ms: u32,
}

impl Limits {
    /// What a hello means that leaves every limit out (§6.7).
    pub const ABSENT: Self = Self {
        max_message: 1 << 20,
        max_calls: 1024,
        max_streams: 256,
        stream_window: 256 << 10,
        max_subscriptions: 1024,
        max_inflight: 256,
        heartbeat_ms: 15_000,
    };

    fn fields(&self) -> [(&'static str, u32, u32); 7] {
        let absent = Self::ABSENT;
        [
            ("max_message", self.max_message, absent.max_message),
            ("max_calls", self.max_calls, absent.max_calls),
            ("max_streams", self.max_streams, absent.max_streams),
            ("stream_window", self.stream_window, absent.stream_window),
            ("max_subscriptions", self.max_subscriptions, absent.max_subscriptions),
            ("max_inflight", self.max_inflight, absent.max_inflight),
            ("heartbeat_ms", self.heartbeat_ms, absent.heartbeat_ms),
        ]
    }

    /// The same limits within their ranges.
    pub(crate) fn clamped(self) -> Self {
        let heartbeat_ms = if self.heartbeat_ms == 0 { 0 } else { self.heartbeat_ms.max(MIN_HEARTBEAT) };
        Self {
            max_message: self.max_message.clamp(MIN_MESSAGE, MAX_MESSAGE),
            stream_window: self.stream_window.min(MAX_WINDOW),
            heartbeat_ms,
            ..self
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        *self == Self::ABSENT
    }

    /// Writes only what differs from the meaning of absence.
    pub(super) fn encode(&self, out: &mut Encoder<&mut Vec<u8>>) -> Result<(), encode::Error<Infallible>> {
        let told = self.fields().into_iter().filter(|(_, value, absent)| value != absent);
        out.map(told.clone().count() as u64)?;
        for (key, value, _) in told {
            out.str(key)?.u32(value)?;
        }
        Ok(())
    }

    /// Reads a `limits` map. What lies above a range is cut to it: it means "more than we could ever send".
    pub(super) fn decode(item: Item<'_>) -> Result<Self, HelloError> {
        let mut limits = Self::ABSENT;
        for (key, value) in item.map()? {
            let slot = match key {
                "max_message" => &mut limits.max_message,
                "max_calls" => &mut limits.max_calls,
                "max_streams" => &mut limits.max_streams,
                "stream_window" => &mut limits.stream_window,
                "max_subscriptions" => &mut limits.max_subscriptions,
                "max_inflight" => &mut limits.max_inflight,
                "heartbeat_ms" => &mut limits.heartbeat_ms,
                _ => continue,
            };
            let value = value.as_u64().ok_or(HelloError::Invalid("limits"))?;
            *slot = u32::try_from(value).unwrap_or(u32::MAX);
        }
        if limits.max_message < MIN_MESSAGE {
            return Err(HelloError::Invalid("max_message"));
        }
        Ok(limits.clamped())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message: 16 << 20, stream_window: 128 << 10, ..Self::ABSENT }
    }
}
