//! A message with all its fields open: what a scripted peer sends and reads.

use bytes::Bytes;
use fluxar_proto::frame;
use fluxar_proto::message::{Envelope, Id, Item, Kind, Meta};
use fluxar_proto::{Code, Error};

use super::cbor;

/// One message, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Msg {
    pub(crate) kind: Kind,
    pub(crate) id: Id,
    pub(crate) reference: Option<Id>,
    pub(crate) target: Option<String>,
    /// An encoded map, or empty for null.
    pub(crate) meta: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) error: Option<Error>,
}

impl Msg {
    pub(crate) fn opening(kind: Kind, id: Id, target: &str) -> Self {
        Self { target: Some(target.into()), ..Self::bare(kind, id) }
    }

    pub(crate) fn continuation(kind: Kind, id: Id, reference: Id) -> Self {
        Self { reference: Some(reference), ..Self::bare(kind, id) }
    }

    /// Nothing but kind and id.
    pub(crate) fn bare(kind: Kind, id: Id) -> Self {
        Self { kind, id, reference: None, target: None, meta: vec![], payload: vec![0xf6], error: None }
    }

    pub(crate) fn verb(mut self, verb: &str) -> Self {
        self.target = Some(verb.into());
        self
    }

    pub(crate) fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into().into();
        self
    }

    /// Sets a `meta` of one key with an unsigned value.
    pub(crate) fn meta_uint(mut self, key: &str, value: u64) -> Self {
        self.meta = cbor(|out| out.map(1)?.str(key)?.u64(value)?.ok());
        self
    }

    pub(crate) fn error(mut self, error: Error) -> Self {
        self.error = Some(error);
        self
    }

    /// The code of the error; there must be one.
    #[track_caller]
    pub(crate) fn code(&self) -> Code {
        self.error.as_ref().unwrap_or_else(|| panic!("no error: {self:?}")).code
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let envelope = Envelope {
            kind: self.kind,
            id: self.id,
            reference: self.reference,
            target: self.target.as_deref(),
            meta: if self.meta.is_empty() { Meta::EMPTY } else { Meta::decode(&self.meta).unwrap() },
            payload: Item::new(&self.payload).unwrap(),
            error: self.error.as_ref().map(Error::as_ref),
        };
        let mut body = Vec::new();
        envelope.encode(&mut body).unwrap();
        body
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        framed(&self.body())
    }

    pub(crate) fn decode(body: &[u8]) -> Self {
        let envelope = Envelope::decode(body).unwrap();
        let meta = if envelope.meta.is_empty() {
            vec![]
        } else {
            let mut meta = cbor(|out| out.map(envelope.meta.len() as u64)?.ok());
            meta.extend_from_slice(envelope.meta.entries());
            meta
        };
        Self {
            kind: envelope.kind,
            id: envelope.id,
            reference: envelope.reference,
            target: envelope.target.map(Into::into),
            meta,
            payload: envelope.payload.as_bytes().into(),
            error: envelope.error.map(Error::from),
        }
    }

    /// The messages of whole frames, one behind the other.
    pub(crate) fn decode_all(mut bytes: &[u8]) -> Vec<Self> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let len = frame::split(bytes, u32::MAX).unwrap().expect("a whole frame");
            messages.push(Self::decode(&bytes[4..4 + len]));
            bytes = &bytes[4 + len..];
        }
        messages
    }
}

/// A body with its length in front.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = frame::prefix(body.len() as u32).to_vec();
    frame.extend_from_slice(body);
    frame
}
