//! An owned payload.

use alloc::vec::Vec;
use core::convert::Infallible;
use core::fmt;

use bytes::Bytes;
use minicbor::{Encoder, encode};

use super::item::debug_bytes;
use super::token::NULL;
use super::{DecodeError, Item};

/// What a message carries: one well-formed CBOR item, owned (§5.11). Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// Checks that `bytes` is one item and nothing else.
    ///
    /// # Errors
    ///
    /// As [`Item::new`].
    pub fn new(bytes: Bytes) -> Result<Self, DecodeError> {
        Item::new(&bytes)?;
        Ok(Self(bytes))
    }

    /// Takes the caller's word that `bytes` is one item and nothing else. What is not costs the connection
    /// that it is sent over.
    ///
    /// # Panics
    ///
    /// With debug assertions, where the word does not hold.
    #[must_use]
    pub fn trusted(bytes: Bytes) -> Self {
        debug_assert!(Item::new(&bytes).is_ok(), "no CBOR item: {:?}", Item::new(&bytes));
        Self(bytes)
    }

    /// Builds an item with minicbor's encoder.
    ///
    /// # Panics
    ///
    /// With debug assertions, where `write` does not write exactly one item.
    #[must_use]
    pub(crate) fn build(
        write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), encode::Error<Infallible>>,
    ) -> Self {
        Self::trusted(build_bytes(write))
    }

    /// Null.
    #[must_use]
    pub const fn null() -> Self {
        Self(Bytes::from_static(&[NULL]))
    }

    /// The item, borrowed.
    #[must_use]
    pub fn as_item(&self) -> Item<'_> {
        Item::trusted(&self.0)
    }

    /// The encoded item.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The encoded item, to be shared.
    pub(crate) fn as_shared(&self) -> &Bytes {
        &self.0
    }

    /// The encoded item.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The length of the encoded item, in bytes; at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an item has a byte at least")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.as_item().is_null()
    }
}

/// An unsigned integer.
pub(crate) fn encode_uint(value: u32) -> Payload {
    Payload::build(|out| out.u32(value)?.ok())
}

/// Encodes into a buffer of its own.
pub(crate) fn build_bytes(
    write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), encode::Error<Infallible>>,
) -> Bytes {
    let mut bytes = Vec::new();
    match write(&mut Encoder::new(&mut bytes)) {
        Ok(()) => bytes.into(),
        Err(_) => unreachable!("a vector takes all that is written"),
    }
}

/// Encodes metadata: one map of pairs whose keys the caller keeps unique. It is not a payload: with the map around them,
/// its values may lie one level deeper than in those (§5.3).
#[must_use]
pub fn encode_meta<'a>(pairs: impl ExactSizeIterator<Item = (&'a str, Item<'a>)>) -> Bytes {
    build_bytes(|out| {
        out.map(pairs.len() as u64)?;
        for (key, value) in pairs {
            out.str(key)?;
            out.writer_mut().extend_from_slice(value.as_bytes());
        }
        Ok(())
    })
}

/// Null.
impl Default for Payload {
    fn default() -> Self {
        Self::null()
    }
}

impl From<Item<'_>> for Payload {
    fn from(item: Item<'_>) -> Self {
        Self(Bytes::copy_from_slice(item.as_bytes()))
    }
}

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        payload.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payload(")?;
        debug_bytes(&self.0, f)?;
        f.write_str(")")
    }
}
