//! From the bytes of a frame body to a message that borrows them.

use core::fmt;

use super::token::{NULL, Reader, major};
use super::{Code, Envelope, ErrorRef, Id, Item, Kind, Meta, map};

/// The first byte of every envelope: the head of an array of seven (§5.2).
pub const ENVELOPE: u8 = 0x87;

/// The longest `target`, in bytes (§5.8).
pub const TARGET_LIMIT: usize = 255;

/// What stood where something else should, and where. To its sender such a message is [`Code::MALFORMED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where it went wrong: the offset of the first byte of what is at fault. Where bytes are missing, that
    /// is the item that lacks them. At most the length of the input.
    pub offset: usize,
    /// What is wrong.
    pub kind: DecodeErrorKind,
}

impl DecodeError {
    pub(super) const fn new(offset: usize, kind: DecodeErrorKind) -> Self {
        Self { offset, kind }
    }
}

/// What is wrong with some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// An item is cut short.
    Truncated,
    /// Bytes follow what should have been the end.
    TrailingBytes,
    /// The first byte is not 0x87.
    NotAnEnvelope,
    /// Another kind of item belongs here.
    Unexpected(Expected),
    /// The message type is not one of 1 to 7.
    UnknownType,
    /// The target is longer than [`TARGET_LIMIT`].
    TargetTooLong,
    /// A string or map that must have a definite length has an indefinite one.
    Indefinite,
    /// Text that is no UTF-8.
    InvalidUtf8,
    /// A map has more than [`KEYS_LIMIT`](super::KEYS_LIMIT) keys.
    TooManyKeys,
    /// A map has a key twice.
    DuplicateKey,
    /// The error has no code.
    MissingCode,
    /// The code of the error is not between 1 and 2^32 - 1.
    InvalidCode,
    /// The message has both a payload and an error.
    PayloadBesideError,
    /// Arrays, maps and tags nest deeper than [`DEPTH_LIMIT`](super::DEPTH_LIMIT).
    TooDeep,
    /// An encoding that RFC 8949 reserves: additional information 28 to 30, or 31 where nothing can be
    /// indefinite, or a simple value below 32 in two bytes.
    Reserved,
    /// A break where there is nothing to end, or inside a pair of a map.
    UnexpectedBreak,
    /// A string of indefinite length holds something else than strings of definite length of its own kind.
    InvalidChunk,
}

/// What should have stood in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// A message type: an unsigned integer.
    Type,
    /// An id: a byte string of 16 bytes.
    Id,
    /// An id or null.
    IdOrNull,
    /// Text or null.
    TextOrNull,
    /// A map or null.
    MapOrNull,
    /// Text.
    Text,
    /// A byte string.
    Bytes,
    /// An unsigned integer.
    Unsigned,
    /// `true` or `false`.
    Bool,
    /// A map.
    Map,
    /// An array.
    Array,
}

impl Expected {
    const fn name(self) -> &'static str {
        match self {
            Self::Type => "a message type",
            Self::Id => "an id of 16 bytes",
            Self::IdOrNull => "an id of 16 bytes or null",
            Self::TextOrNull => "text or null",
            Self::MapOrNull => "a map or null",
            Self::Text => "text",
            Self::Bytes => "a byte string",
            Self::Unsigned => "an unsigned integer",
            Self::Bool => "a boolean",
            Self::Map => "a map",
            Self::Array => "an array",
        }
    }
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "item cut short",
            Self::TrailingBytes => "trailing bytes",
            Self::NotAnEnvelope => "first byte is not 0x87",
            Self::Unexpected(expected) => return write!(f, "expected {}", expected.name()),
            Self::UnknownType => "unknown message type",
            Self::TargetTooLong => "target longer than 255 bytes",
            Self::Indefinite => "indefinite length where a definite one is due",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::TooManyKeys => "more than 64 keys",
            Self::DuplicateKey => "duplicate key",
            Self::MissingCode => "error without code",
            Self::InvalidCode => "error code out of range",
            Self::PayloadBesideError => "payload beside an error",
            Self::TooDeep => "nested deeper than 64",
            Self::Reserved => "reserved encoding",
            Self::UnexpectedBreak => "break out of place",
            Self::InvalidChunk => "invalid chunk of a string",
        })
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.kind, self.offset)
    }
}

impl core::error::Error for DecodeError {}

impl<'a> Envelope<'a> {
    /// Decodes the body of one frame, as it is after decryption and decompression.
    ///
    /// # Errors
    ///
    /// Anything that is not exactly one envelope of §5.1. What a message may mean where (§5.14, §5.15) is not
    /// judged here.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        if !reader.eat(ENVELOPE) {
            return Err(no_envelope(body));
        }
        let kind = read_kind(&mut reader)?;
        let id = read_id(&mut reader, Expected::Id)?;
        let reference = if reader.eat(NULL) { None } else { Some(read_id(&mut reader, Expected::IdOrNull)?) };
        let target = read_target(&mut reader)?;
        let meta = Meta::read(&mut reader)?;
        let payload_at = reader.pos();
        let payload = Item::read(&mut reader)?;
        let error = if reader.eat(NULL) { None } else { Some(read_error(&mut reader)?) };
        reader.end()?;
        if error.is_some() && !payload.is_null() {
            return Err(DecodeError::new(payload_at, DecodeErrorKind::PayloadBesideError));
        }
        Ok(Self { kind, id, reference, target, meta, payload, error })
    }
}

#[cold]
fn no_envelope(body: &[u8]) -> DecodeError {
    DecodeError::new(
        0,
        if body.is_empty() { DecodeErrorKind::Truncated } else { DecodeErrorKind::NotAnEnvelope },
    )
}

#[inline]
fn read_kind(reader: &mut Reader<'_>) -> Result<Kind, DecodeError> {
    let at = reader.pos();
    let code = reader.unsigned(Expected::Type)?;
    let kind = u8::try_from(code).ok().and_then(Kind::from_code);
    kind.ok_or(DecodeError::new(at, DecodeErrorKind::UnknownType))
}

#[inline]
fn read_id(reader: &mut Reader<'_>, expected: Expected) -> Result<Id, DecodeError> {
    let at = reader.pos();
    let len = reader.definite(major::BYTES, expected)?;
    if len != Id::LEN as u64 {
        return Err(DecodeError::new(at, DecodeErrorKind::Unexpected(expected)));
    }
    let bytes = reader.chunk().ok_or(DecodeError::new(at, DecodeErrorKind::Truncated))?;
    Ok(Id::from_bytes(*bytes))
}

#[inline]
fn read_target<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a str>, DecodeError> {
    if reader.eat(NULL) {
        return Ok(None);
    }
    let at = reader.pos();
    let target = reader.text(Expected::TextOrNull)?;
    if target.len() > TARGET_LIMIT {
        return Err(DecodeError::new(at, DecodeErrorKind::TargetTooLong));
    }
    Ok(Some(target))
}

#[cold]
fn read_error<'a>(reader: &mut Reader<'a>) -> Result<ErrorRef<'a>, DecodeError> {
    let at = reader.pos();
    let end = {
        // The whole map first: keys that are not text, or twice (§5.12), are found wherever they are.
        let mut whole = reader.clone();
        map::read(&mut whole, Expected::MapOrNull)?;
        whole.pos()
    };
    reader.definite(major::MAP, Expected::MapOrNull)?;
    let mut code = None;
    let mut error = ErrorRef::new(Code::UNKNOWN);
    while reader.pos() < end {
        match reader.text(Expected::Text)? {
            "code" => {
                let at = reader.pos();
                let wire = reader.unsigned(Expected::Unsigned)?;
                code = Some(Code::from_wire(wire).ok_or(DecodeError::new(at, DecodeErrorKind::InvalidCode))?);
            }
            "message" => error.message = Some(reader.text(Expected::Text)?),
            "data" => error.data = Some(Item::read(reader)?),
            "retry_after_ms" => error.retry_after_ms = Some(reader.unsigned(Expected::Unsigned)?),
            "processed" => error.processed = Some(reader.boolean()?),
            // §5.12: other keys are ignored.
            _ => {
                Item::read(reader)?;
            }
        }
    }
    error.code = code.ok_or(DecodeError::new(at, DecodeErrorKind::MissingCode))?;
    Ok(error)
}
