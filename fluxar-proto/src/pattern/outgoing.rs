//! A message on its way out: owned, and encoded only when the transport has room.

use bytes::Bytes;

use super::call::Text;
use crate::message::{
    DecodeError, Envelope, Error, Id, Item, Kind, Meta, MetaBuf, Payload, build_bytes, key,
};

/// The target of an outgoing message.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The plain continuation.
    Null,
    /// A verb of the protocol.
    Verb(&'static str),
    /// An address: a method.
    Address(Text),
}

/// What the encoder needs to know of a message.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) kind: Kind,
    pub(crate) id: Id,
    pub(crate) reference: Option<Id>,
    pub(crate) target: Target,
    /// The application's metadata: an encoded map, validated when it was handed in; or empty.
    pub(crate) meta: Bytes,
    /// The time left, in milliseconds, to be added to the metadata.
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) payload: Payload,
    pub(crate) error: Option<Error>,
}

impl Outgoing {
    pub(crate) fn new(kind: Kind, id: Id, reference: Option<Id>, target: Target) -> Self {
        let (meta, payload) = (Bytes::new(), Payload::null());
        Self { kind, id, reference, target, meta, timeout_ms: None, payload, error: None }
    }

    pub(crate) fn with_payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    pub(crate) fn with_result(mut self, result: Result<Payload, Error>) -> Self {
        match result {
            Ok(payload) => self.payload = payload,
            Err(error) => self.error = Some(error),
        }
        self
    }

    /// How long the message is, in bytes (§5.13).
    pub(crate) fn encoded_len(&self) -> usize {
        self.with_envelope(|envelope| envelope.encoded_len()).unwrap_or(0)
    }

    /// Leaves of the error only what programs need, where the message would be larger than `limit` with all of it.
    pub(crate) fn with_error_within(mut self, limit: u32) -> Self {
        if self.encoded_len() > limit as usize {
            self.error = self.error.map(Error::without_details);
        }
        self
    }

    /// Hands the envelope of this message to `then`.
    pub(crate) fn with_envelope<R>(&self, then: impl FnOnce(&Envelope<'_>) -> R) -> Result<R, DecodeError> {
        let target = match &self.target {
            Target::Null => None,
            Target::Verb(verb) => Some(*verb),
            Target::Address(address) => Some(&**address),
        };
        let envelope = Envelope {
            kind: self.kind,
            id: self.id,
            reference: self.reference,
            target,
            meta: Meta::EMPTY,
            payload: if self.error.is_some() { Item::NULL } else { self.payload.as_item() },
            error: self.error.as_ref().map(Error::as_ref),
        };
        let meta = if self.meta.is_empty() { Meta::EMPTY } else { Meta::decode(&self.meta)? };
        let Some(timeout_ms) = self.timeout_ms else { return Ok(then(&Envelope { meta, ..envelope })) };
        let mut small = MetaBuf::<24>::new();
        if meta.is_empty() && small.uint(key::TIMEOUT_MS, timeout_ms).is_ok() {
            return Ok(then(&Envelope { meta: small.as_meta(), ..envelope }));
        }
        let merged = build_bytes(|out| {
            out.map(meta.len() as u64 + 1)?;
            out.writer_mut().extend_from_slice(meta.entries());
            out.str(key::TIMEOUT_MS)?.u64(timeout_ms)?;
            Ok(())
        });
        Meta::decode(&merged).map(|meta| then(&Envelope { meta, ..envelope }))
    }
}
