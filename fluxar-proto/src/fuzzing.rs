//! The bodies of the fuzz targets, and what they make messages from.
//!
//! Each takes arbitrary bytes and panics where a promise does not hold. Ordinary tests run them too.

pub mod generate;

use std::vec::Vec;

use self::generate::{Message, Source};
use crate::frame::{self, FrameBuffer, FrameError};
use crate::message::{DecodeError, Envelope, Item};

/// The capacity of the frame buffers that [`decode_chunked`] feeds: above every limit that it chooses.
const CAPACITY: usize = 512;

/// Any bytes are a message or an error that points into them, and a message encodes to what decodes to it.
///
/// # Panics
///
/// Where that does not hold.
pub fn decode(data: &[u8]) {
    let envelope = match Envelope::decode(data) {
        Ok(envelope) => envelope,
        Err(error) => return check_offset(data, error),
    };
    walk(&envelope);
    let encoded = encode(&envelope);
    assert!(encoded.len() <= data.len(), "the shortest form is longer than another");
    assert_eq!(Envelope::decode(&encoded).as_ref(), Ok(&envelope));
}

/// However a byte stream is cut into pieces, its frames and its error are the same.
///
/// The first byte chooses the limit, the following ones, up to a zero, the lengths of the pieces.
///
/// # Panics
///
/// Where that does not hold.
pub fn decode_chunked(data: &[u8]) {
    let Some((&limit, rest)) = data.split_first() else {
        return;
    };
    let limit = u32::from(limit) * 2;
    let cut = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    let (pieces, stream) = rest.split_at(cut);
    let whole = frames_at_once(stream, limit);
    assert_eq!(frames_in_pieces(stream, limit, pieces), whole, "FrameBuffer differs");
    assert_eq!(frames_while_growing(stream, limit, pieces), whole, "split differs");
    for body in whole.0 {
        decode(&body);
    }
}

/// A message made from the bytes encodes to as many bytes as it says, and decodes to itself; with one byte
/// changed or its end cut off it is a message or an error, never more.
///
/// # Panics
///
/// Where that does not hold.
pub fn roundtrip(data: &[u8]) {
    let mut source = Source::new(data);
    let message = Message::generate(&mut source);
    let envelope = message.envelope();
    let mut encoded = encode(&envelope);
    assert_eq!(encoded.len(), envelope.encoded_len());
    assert_eq!(Envelope::decode(&encoded).as_ref(), Ok(&envelope));
    let parts = encode_in_parts(&envelope);
    assert_eq!(parts, encoded);

    let at = source.u64() as usize % encoded.len();
    let cut = Envelope::decode(&encoded[..at]).expect_err("part of a message is no message");
    check_offset(&encoded[..at], cut);
    encoded[at] ^= source.byte().max(1);
    decode(&encoded);
}

/// Encodes into a fresh buffer.
pub(crate) fn encode(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut encoded = Vec::new();
    let Ok(()) = envelope.encode(&mut encoded);
    encoded
}

fn encode_in_parts(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut parts = Vec::new();
    let Ok(()) = envelope.encode_head(&mut parts);
    parts.extend_from_slice(envelope.payload.as_bytes());
    let Ok(()) = envelope.encode_tail(&mut parts);
    parts
}

fn check_offset(data: &[u8], error: DecodeError) {
    assert!(error.offset <= data.len(), "{error} of {} bytes", data.len());
}

/// Whatever a message hands out can be used: iterators reach the end, and items are items.
fn walk(envelope: &Envelope<'_>) {
    assert_eq!(envelope.meta.iter().count(), envelope.meta.len());
    for (key, value) in envelope.meta {
        assert_eq!(envelope.meta.get(key), Some(value));
        look_into(value);
    }
    look_into(envelope.payload);
    if let Some(data) = envelope.error.and_then(|error| error.data) {
        look_into(data);
    }
}

fn look_into(item: Item<'_>) {
    assert_eq!(Item::new(item.as_bytes()), Ok(item));
    if let Ok(elements) = item.array() {
        let bytes: usize = elements.clone().map(|element| element.as_bytes().len()).sum();
        assert!(bytes < item.as_bytes().len());
        elements.for_each(|element| assert_eq!(Item::new(element.as_bytes()), Ok(element)));
    }
    if let Ok(entries) = item.map() {
        entries.for_each(|(_, value)| assert_eq!(Item::new(value.as_bytes()), Ok(value)));
    }
}

/// The frames of a stream, and the error or the number of missing bytes that it ends with.
type Frames = (Vec<Vec<u8>>, Result<usize, FrameError>);

fn frames_at_once(mut stream: &[u8], limit: u32) -> Frames {
    let mut frames = Vec::new();
    let end = loop {
        match frame::split(stream, limit) {
            Ok(Some(len)) => {
                assert_eq!(frame::missing(stream), 0);
                let (body, rest) = stream[frame::PREFIX_LEN..].split_at(len);
                frames.push(body.to_vec());
                stream = rest;
            }
            Ok(None) => break Ok(frame::missing(stream)),
            Err(error) => break Err(error),
        }
    };
    (frames, end)
}

/// The lengths of the pieces, over and over; 1 where there are none.
fn lengths(pieces: &[u8]) -> impl Iterator<Item = usize> {
    let pieces = if pieces.is_empty() { &[1] } else { pieces };
    pieces.iter().cycle().map(|&len| usize::from(len))
}

fn frames_in_pieces(mut stream: &[u8], limit: u32, pieces: &[u8]) -> Frames {
    let mut frames = Vec::new();
    let mut buffer = FrameBuffer::<CAPACITY>::new(limit);
    for len in lengths(pieces) {
        if stream.is_empty() {
            break;
        }
        let (mut piece, rest) = stream.split_at(len.min(stream.len()));
        stream = rest;
        loop {
            match buffer.feed(&mut piece) {
                Ok(Some(body)) => frames.push(body.to_vec()),
                Ok(None) => break assert!(piece.is_empty()),
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(buffer.missing()))
}

fn frames_while_growing(stream: &[u8], limit: u32, pieces: &[u8]) -> Frames {
    let mut frames = Vec::new();
    let mut received = Vec::new();
    let mut left = stream;
    let mut lengths = lengths(pieces);
    loop {
        match frame::split(&received, limit) {
            Ok(Some(len)) => {
                let rest = received.split_off(frame::PREFIX_LEN + len);
                frames.push(received.split_off(frame::PREFIX_LEN));
                received = rest;
            }
            Ok(None) if left.is_empty() => return (frames, Ok(frame::missing(&received))),
            Ok(None) => {
                let (piece, rest) = left.split_at(lengths.next().unwrap_or(1).min(left.len()));
                received.extend_from_slice(piece);
                left = rest;
            }
            Err(error) => return (frames, Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_holds(data in vec(any::<u8>(), 0..300)) {
            decode(&data);
        }

        #[test]
        fn decode_chunked_holds(limit: u8, pieces in vec(1..40u8, 0..8), stream in stream()) {
            let mut data = std::vec![limit];
            data.extend(pieces);
            data.push(0);
            data.extend(stream);
            decode_chunked(&data);
        }

        #[test]
        fn roundtrip_holds(data in vec(any::<u8>(), 0..600)) {
            roundtrip(&data);
        }
    }

    /// Frames of which most have a sensible length.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let len = prop_oneof![20 => Just(None), 1 => any::<u32>().prop_map(Some)];
        let one = (vec(any::<u8>(), 0..200), len).prop_map(|(body, len)| {
            let mut bytes = frame::prefix(len.unwrap_or(body.len() as u32)).to_vec();
            bytes.extend(body);
            bytes
        });
        vec(one, 0..6).prop_map(|frames| frames.concat())
    }
}
