//! A message on its way out: owned, and encoded only when the transport has room.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use super::call::Text;
use super::pubsub::OutMessage;
use crate::message::{
    DecodeError, Envelope, Error, Id, Item, Kind, Marks, Meta, MetaBuf, Payload, build_bytes, key,
};

/// Metadata of so many bytes at most is put together without an allocation.
const SMALL_META: usize = 512;

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
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) kind: Kind,
    pub(crate) id: Id,
    pub(crate) reference: Option<Id>,
    pub(crate) target: Target,
    /// The application's metadata: an encoded map, validated when it was handed in; or empty.
    pub(crate) meta: Bytes,
    /// The time left, in milliseconds, to be added to the metadata.
    pub(crate) timeout_ms: Option<u64>,
    /// What is to be added to the metadata of publications and deliveries.
    pub(crate) marks: Marks,
    pub(crate) payload: Payload,
    /// A delivery: what it carries is shared with others, and takes the place of `meta` and `payload`.
    pub(crate) delivery: Option<OutMessage>,
    /// Rare, and large: messages without one are to be short.
    pub(crate) error: Option<Box<Error>>,
}

/// Without what it carries: in a hello there are secrets (§17.4).
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, id, reference, target, .. } = self;
        let mut outgoing = f.debug_struct("Outgoing");
        outgoing.field("kind", kind).field("id", id).field("reference", reference).field("target", target);
        outgoing.finish_non_exhaustive()
    }
}

impl Outgoing {
    pub(crate) fn new(kind: Kind, id: Id, reference: Option<Id>, target: Target) -> Self {
        let (meta, payload) = (Bytes::new(), Payload::null());
        let (timeout_ms, marks, delivery, error) = (None, Marks::default(), None, None);
        Self { kind, id, reference, target, meta, timeout_ms, marks, payload, delivery, error }
    }

    pub(crate) fn with_payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    pub(crate) fn with_result(mut self, result: Result<Payload, Error>) -> Self {
        match result {
            Ok(payload) => self.payload = payload,
            Err(error) => self.error = Some(error.into()),
        }
        self
    }

    /// Says which attempt of a message a `nack` answers (§12.8).
    pub(crate) fn of_attempt(mut self, attempt: u32) -> Self {
        self.meta = build_bytes(|out| out.map(1)?.str(key::ATTEMPT)?.u32(attempt)?.ok());
        self
    }

    /// Whether it is counted, and kept until the peer has handled it (§9.2).
    pub(crate) fn is_counted(&self) -> bool {
        match self.kind {
            Kind::Hello | Kind::Control => false,
            Kind::Message if self.reference.is_none() || matches!(self.target, Target::Null) => {
                self.marks.qos > 0
            }
            _ => true,
        }
    }

    /// How long the message is, in bytes (§5.13).
    pub(crate) fn encoded_len(&self) -> usize {
        self.with_envelope(|envelope| envelope.encoded_len()).unwrap_or(0)
    }

    /// Leaves of the error only what programs need, where the message would be larger than `limit` with all of it.
    pub(crate) fn with_error_within(mut self, limit: u32) -> Self {
        if self.encoded_len() > limit as usize {
            self.error = self.error.map(|error| error.without_details().into());
        }
        self
    }

    /// What it carries, where there is no error.
    pub(crate) fn payload(&self) -> &Payload {
        self.delivery.as_ref().map_or(&self.payload, OutMessage::payload)
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
            payload: if self.error.is_some() { Item::NULL } else { self.payload().as_item() },
            error: self.error.as_deref().map(Error::as_ref),
        };
        if let Some(delivery) = &self.delivery {
            let (topic, meta) = (delivery.topic(), delivery.content().meta.as_meta());
            return Ok(self.marked(topic, meta, |meta| then(&Envelope { meta, ..envelope })));
        }
        let meta = if self.meta.is_empty() { Meta::EMPTY } else { Meta::decode(&self.meta)? };
        if !self.marks.is_empty() {
            return Ok(self.marked("", meta, |meta| then(&Envelope { meta, ..envelope })));
        }
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

    /// Hands the application's metadata to `then`, and with it what the protocol says of the message.
    fn marked<R>(&self, topic: &str, meta: Meta<'_>, then: impl FnOnce(Meta<'_>) -> R) -> R {
        if self.marks.is_empty() {
            return then(meta);
        }
        if Marks::MOST + topic.len() + meta.entries().len() <= SMALL_META {
            let mut small = Small(heapless::Vec::new());
            let Ok(count) = self.marks.write(topic, &mut small);
            small.extend(meta.entries());
            return then(Meta::trusted(meta.len() + count, &small.0));
        }
        let mut entries = Vec::new();
        let Ok(count) = self.marks.write(topic, &mut entries);
        entries.extend_from_slice(meta.entries());
        then(Meta::trusted(meta.len() + count, &entries))
    }
}

/// Entries that are known to fit.
struct Small(heapless::Vec<u8, SMALL_META, usize>);

impl Small {
    fn extend(&mut self, bytes: &[u8]) {
        let fits = self.0.extend_from_slice(bytes);
        debug_assert!(fits.is_ok(), "more than was allowed for");
    }
}

impl minicbor::encode::Write for Small {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.extend(bytes);
        Ok(())
    }
}
