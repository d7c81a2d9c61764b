//! L3, messages (§5): the envelope of seven fields, its ids, `meta`, payload and error.
//!
//! A message is an array of exactly seven CBOR items. Encoding and decoding borrow and do not allocate; what
//! is decoded points into the bytes it came from. Everything a peer can send is checked here once, in time
//! proportional to its length: a value of a type of this module is what its type says.
//!
//! The announced example takes 60 bytes:
//!
//! ```
//! use fluxar_proto::message::{Envelope, Id, Item, Kind, MetaBuf};
//!
//! let mut meta = MetaBuf::<32>::new();
//! meta.text("trace_id", "abc123")?;
//! let request = Envelope {
//!     target: Some("user.getProfile"),
//!     meta: meta.as_meta(),
//!     payload: Item::new(&[0xa1, 0x62, b'i', b'd', 0x18, 42])?,
//!     ..Envelope::new(Kind::Call, Id::from_bytes([7; 16]))
//! };
//! let mut body = [0; 60];
//! request.encode(&mut &mut body[..])?;
//! assert_eq!(Envelope::decode(&body)?, request);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod decode;
mod encode;
mod error;
mod id;
mod item;
mod map;
#[cfg(feature = "alloc")]
mod marks;
mod meta;
mod names;
#[cfg(feature = "alloc")]
mod payload;
mod token;

pub use decode::{DecodeError, DecodeErrorKind, ENVELOPE, Expected, TARGET_LIMIT};
#[cfg(feature = "alloc")]
pub use error::Error;
pub use error::{Code, ErrorRef};
pub use id::{Id, IdGenerator};
pub use item::{ArrayIter, DEPTH_LIMIT, Item, MapIter};
pub use map::KEYS_LIMIT;
#[cfg(feature = "alloc")]
pub(crate) use marks::Marks;
pub use meta::{Meta, MetaBuf, MetaError};
pub use names::{key, verb};
#[cfg(feature = "alloc")]
pub use payload::{Payload, encode_meta};
#[cfg(feature = "alloc")]
pub(crate) use payload::{build_bytes, encode_uint};

/// The type of a message (§5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The handshake.
    Hello = 1,
    /// A call: request, response, updates.
    Call = 2,
    /// A stream.
    Stream = 3,
    /// A subscription and its confirmation.
    Subscribe = 4,
    /// The end of a subscription.
    Unsubscribe = 5,
    /// A publication, a delivery, and what acknowledges them.
    Message = 6,
    /// What concerns the link itself.
    Control = 7,
}

impl Kind {
    /// The kind with this code, for 1 to 7.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Hello),
            2 => Some(Self::Call),
            3 => Some(Self::Stream),
            4 => Some(Self::Subscribe),
            5 => Some(Self::Unsubscribe),
            6 => Some(Self::Message),
            7 => Some(Self::Control),
            _ => None,
        }
    }

    /// The code on the wire: 1 to 7.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Call => "call",
            Self::Stream => "stream",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Message => "message",
            Self::Control => "control",
        }
    }
}

impl core::fmt::Display for Kind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// One message, borrowed (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Its type.
    pub kind: Kind,
    /// Its own id.
    pub id: Id,
    /// `ref`: the id of the message that opened what this one continues. None: this message opens something.
    pub reference: Option<Id>,
    /// Without `ref` an address: a method, a topic (§5.14). With `ref` a verb (§5.15). At most
    /// [`TARGET_LIMIT`] bytes.
    pub target: Option<&'a str>,
    /// What the message says about itself.
    pub meta: Meta<'a>,
    /// What the message carries; null where there is an error.
    pub payload: Item<'a>,
    /// What went wrong.
    pub error: Option<ErrorRef<'a>>,
}

impl Envelope<'_> {
    /// A message with nothing but its kind and its id.
    #[must_use]
    pub const fn new(kind: Kind, id: Id) -> Self {
        Self { kind, id, reference: None, target: None, meta: Meta::EMPTY, payload: Item::NULL, error: None }
    }
}

#[cfg(test)]
mod tests;
