//! How long what came keeps memory: frames come in groups that share a buffer.

use bytes::Bytes;

use super::call::Text;
use crate::message::{Envelope, Payload};

/// From this size on, in bytes, a payload that is held shares the memory of its frame.
const SHARED: usize = 8 << 10;

/// What came as the payload of `frame`. It shares the frame's memory, unless it is a small part of a large frame: an
/// application that keeps it must not keep much else, which nobody has counted.
pub(crate) fn payload_of(envelope: &Envelope<'_>, frame: &Bytes) -> Payload {
    let payload = envelope.payload;
    if frame.len() > 2 * payload.as_bytes().len() + 4096 {
        Payload::from(payload)
    } else {
        Payload::trusted(frame.slice_ref(payload.as_bytes()))
    }
}

/// A text that came in `frame`, under the same rule.
pub(crate) fn text_of(text: &str, frame: &Bytes) -> Text {
    if frame.len() > 2 * text.len() + 4096 {
        Text::from(text)
    } else {
        Text::trusted(frame.slice_ref(text.as_bytes()))
    }
}

/// A payload of which nobody can say how long it is held: its memory is shared only where it is most of it.
pub(crate) fn held_payload_of(envelope: &Envelope<'_>, frame: &Bytes) -> Payload {
    let payload = envelope.payload;
    if payload.as_bytes().len() < SHARED { Payload::from(payload) } else { payload_of(envelope, frame) }
}
