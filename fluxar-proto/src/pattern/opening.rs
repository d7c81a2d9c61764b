//! What openings with a deadline have in common: those of calls and of streams (§10.5, §11.7).

use core::time::Duration;

use bytes::Bytes;

use super::call::Text;
use crate::message::{
    Code, DecodeError, DecodeErrorKind, Envelope, Error, Id, KEYS_LIMIT, Kind, Meta, Payload, TARGET_LIMIT,
    build_bytes, key,
};

/// What an unsigned integer of the protocol's own adds to the metadata at most, in bytes: a key of eleven, and both heads.
const ENTRY_COST: usize = 21;

/// An opening that the application wants to make.
pub(crate) struct Opening<'a> {
    pub(crate) kind: Kind,
    pub(crate) target: &'a str,
    /// The application's metadata: one encoded map, or empty.
    pub(crate) meta: &'a Bytes,
    pub(crate) payload: &'a Payload,
}

/// What is wrong with an opening.
pub(crate) enum BadOpening {
    TargetTooLong,
    /// The metadata is not a map, or has a key (None) that the protocol sets itself.
    Meta(Option<DecodeError>),
}

impl Opening<'_> {
    /// The size of the message, in bytes at most. The protocol itself sets the keys in `own`, whose values are unsigned
    /// integers: those that are marked now, the others never.
    pub(crate) fn check(&self, own: &[(&str, bool)]) -> Result<usize, BadOpening> {
        if self.target.len() > TARGET_LIMIT {
            return Err(BadOpening::TargetTooLong);
        }
        let mut meta = Meta::EMPTY;
        if !self.meta.is_empty() {
            meta = Meta::decode(self.meta).map_err(|error| BadOpening::Meta(Some(error)))?;
        }
        if own.iter().any(|(key, _)| meta.get(key).is_some()) {
            return Err(BadOpening::Meta(None));
        }
        let added = own.iter().filter(|(_, set)| *set).count();
        if meta.len() + added > KEYS_LIMIT {
            let error = DecodeError { offset: 0, kind: DecodeErrorKind::TooManyKeys };
            return Err(BadOpening::Meta(Some(error)));
        }
        let envelope = Envelope::new(self.kind, Id::from_bytes([0; Id::LEN]));
        let envelope =
            Envelope { target: Some(self.target), meta, payload: self.payload.as_item(), ..envelope };
        Ok(envelope.encoded_len() + added * ENTRY_COST)
    }
}

/// How long the peer waits for what it opens, or why it cannot be taken.
pub(crate) fn timeout_of(meta: Meta<'_>) -> Result<Option<Duration>, Error> {
    match meta.get(key::TIMEOUT_MS).map(|item| item.as_u64()) {
        None => Ok(None),
        Some(None) => Err(Error::invalid_argument("`timeout_ms` is not an unsigned integer")),
        Some(Some(0)) => Err(deadline_exceeded()),
        Some(Some(ms)) => Ok(Some(Duration::from_millis(ms))),
    }
}

/// What an opening of the peer holds in memory: the application's parts share the frame, and so keep all of it; metadata
/// is copied.
pub(crate) fn held_bytes(envelope: &Envelope<'_>, frame: &Bytes) -> usize {
    frame.len() + envelope.meta.entries().len()
}

/// The address of an opening.
pub(crate) fn target_of(envelope: &Envelope<'_>, frame: &Bytes) -> Text {
    Text::new(frame.slice_ref(envelope.target.unwrap_or_default().as_bytes())).unwrap_or("".into())
}

/// The metadata of a message as a map of its own; it is rare, so that a copy does no harm.
pub(crate) fn meta_bytes(meta: Meta<'_>) -> Bytes {
    if meta.is_empty() {
        return Bytes::new();
    }
    build_bytes(|out| {
        out.map(meta.len() as u64)?;
        out.writer_mut().extend_from_slice(meta.entries());
        Ok(())
    })
}

/// Whole milliseconds, rounded up: a deadline is never announced earlier than it is.
pub(crate) fn ceil_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// The error of a deadline that passed.
pub(crate) fn deadline_exceeded() -> Error {
    Error::new(Code::DEADLINE_EXCEEDED, "the deadline passed")
}
