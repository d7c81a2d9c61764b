//! Payloads: any serde type, or raw CBOR.
//!
//! cbor4ii is fast and covers what two programs in Rust say to each other. Where it falls short of what other languages
//! write, ciborium takes over: floats in their shortest form or as integers, byte strings for lists of numbers, null for
//! nothing.

use std::cell::Cell;

use bytes::Bytes;
use fluxar_proto::message::Item;
use fluxar_proto::{Code, DecodeError, Error, Items, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::floats::Floats;
use crate::nulls::Nulls;

/// What can be sent: every [`Serialize`] type, and [`Raw`]. `()` is sent as null (§5.11), also within other values.
pub trait IntoPayload {
    /// Encodes the value as one CBOR item.
    ///
    /// # Errors
    ///
    /// `invalid_argument` where the value's own serialization fails.
    fn to_payload(&self) -> Result<Payload, Error>;

    /// Hands the encoded item to `then`: in memory of its own, or, where it is small, in memory that is used again.
    ///
    /// # Errors
    ///
    /// As [`to_payload`](Self::to_payload).
    fn encode_for<R>(&self, then: impl FnOnce(Encoded<'_>) -> R) -> Result<R, Error> {
        Ok(then(Encoded::Shared(self.to_payload()?)))
    }
}

/// An encoded value.
#[derive(Clone, Debug)]
pub enum Encoded<'a> {
    /// To be copied.
    Small(Item<'a>),
    /// To be shared.
    Shared(Payload),
}

/// What can be received: every [`DeserializeOwned`] type, and [`Raw`]. Null is a `()`.
pub trait FromPayload: Sized {
    /// Decodes one CBOR item.
    ///
    /// # Errors
    ///
    /// `invalid_argument` where the item is not of this type.
    fn from_payload(payload: &Payload) -> Result<Self, Error>;

    /// Decodes the next of several items; `None` where there are none left.
    ///
    /// # Errors
    ///
    /// As [`from_payload`](Self::from_payload); the item is taken all the same.
    fn from_next(items: &mut Items) -> Option<Result<Self, Error>> {
        items.next().map(|payload| Self::from_payload(&payload))
    }
}

/// Ends a list of unknown length.
const BREAK: u8 = 0xff;

/// Up to this size, in bytes, the buffer that values are encoded in is kept.
const KEEP: usize = 4096;

thread_local! {
    /// Values are encoded here, and copied out once it is known how long they are: one allocation, of the right size.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl<T: Serialize + ?Sized> IntoPayload for T {
    fn to_payload(&self) -> Result<Payload, Error> {
        self.encode_for(|encoded| match encoded {
            Encoded::Small(item) => item.into(),
            Encoded::Shared(payload) => payload,
        })
    }

    fn encode_for<R>(&self, then: impl FnOnce(Encoded<'_>) -> R) -> Result<R, Error> {
        let scratch = SCRATCH.take();
        let mut encoded = cbor4ii::serde::to_vec(scratch, &Nulls(self)).map_err(|error| unfit(&error))?;
        // A type may serialize to what is not one item (nothing at all, or nested too deeply).
        if encoded.capacity() > KEEP {
            return Payload::new(encoded.into())
                .map(|payload| then(Encoded::Shared(payload)))
                .map_err(|error| unfit(&error));
        }
        let result =
            Item::new(&encoded).map(|item| then(Encoded::Small(item))).map_err(|error| unfit(&error));
        encoded.clear();
        SCRATCH.set(encoded);
        result
    }
}

impl<T: DeserializeOwned> FromPayload for T {
    fn from_payload(payload: &Payload) -> Result<Self, Error> {
        decode(payload.as_bytes())
    }

    fn from_next(items: &mut Items) -> Option<Result<Self, Error>> {
        items.next_with(|item| decode(item.as_bytes()))
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    cbor4ii::serde::from_slice(bytes).or_else(|_| decode_leniently(bytes)).map_err(|why| {
        let name = std::any::type_name::<T>();
        Error::new(Code::INVALID_ARGUMENT, format!("the payload is not a {name}: {why}"))
    })
}

/// Ciborium takes a list for a tuple that is shorter, and what is left of the list for what follows it: then something
/// is left in the end.
fn decode_leniently<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut rest = bytes;
    let Floats(value) = ciborium::from_reader(&mut rest).map_err(|error| error.to_string())?;
    // A tuple ends before the end of a list of unknown length.
    match rest.iter().all(|byte| *byte == BREAK) {
        true => Ok(value),
        false => Err("there is more than expected".into()),
    }
}

fn unfit(error: &dyn std::fmt::Display) -> Error {
    Error::new(Code::INVALID_ARGUMENT, format!("the payload cannot be encoded: {error}"))
        .with_processed(false)
        .into_outcome()
}

/// One CBOR item that passes untouched: sent as it is, received as it came.
///
/// ```
/// use fluxar_runtime::Raw;
///
/// let raw = Raw::new(&[0x82, 0x01, 0x02][..])?;
/// assert_eq!(raw.decode::<Vec<u8>>()?, [1, 2]);
/// assert!(Raw::new(&[0x82, 0x01][..]).is_err(), "an array of two with one element");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(Payload);

impl Raw {
    /// Checks that `bytes` is one well-formed CBOR item.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, DecodeError> {
        Payload::new(bytes.into()).map(Self)
    }

    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// As [`IntoPayload::to_payload`].
    pub fn encode(value: &(impl IntoPayload + ?Sized)) -> Result<Self, Error> {
        value.to_payload().map(Self)
    }

    /// Decodes it.
    ///
    /// # Errors
    ///
    /// As [`FromPayload::from_payload`].
    pub fn decode<T: FromPayload>(&self) -> Result<T, Error> {
        T::from_payload(&self.0)
    }

    /// The encoded item.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The encoded item.
    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
    }
}

impl From<Payload> for Raw {
    fn from(payload: Payload) -> Self {
        Self(payload)
    }
}

impl IntoPayload for Raw {
    fn to_payload(&self) -> Result<Payload, Error> {
        Ok(self.0.clone())
    }
}

impl FromPayload for Raw {
    fn from_payload(payload: &Payload) -> Result<Self, Error> {
        Ok(Self(payload.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &(impl IntoPayload + ?Sized)) -> Vec<u8> {
        value.to_payload().unwrap().as_bytes().to_vec()
    }

    fn decoded<T: FromPayload>(bytes: &[u8]) -> Result<T, Error> {
        T::from_payload(&Payload::new(Bytes::copy_from_slice(bytes)).unwrap())
    }

    // spec: §5.11
    #[test]
    fn nothing_is_null_and_an_empty_list_is_a_list() {
        assert_eq!(encoded(&()), [0xf6]);
        assert_eq!(encoded(&None::<u8>), [0xf6]);
        assert_eq!(encoded(&Vec::<u8>::new()), [0x80]);
        assert_eq!(decoded::<()>(&[0xf6]), Ok(()));
        assert_eq!(decoded::<()>(&[0x80]), Ok(()));
        assert_eq!(decoded::<Vec<u8>>(&[0x80]), Ok(vec![]));
    }

    // spec: §5.11
    #[test]
    fn nothing_is_null_within_other_values_too() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Unit;
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        enum Choice {
            Nothing(()),
            Fields { a: (), b: Option<Unit> },
        }

        assert_eq!(encoded(&(1, ())), [0x82, 1, 0xf6]);
        assert_eq!(encoded(&vec![(), ()]), [0x82, 0xf6, 0xf6]);
        assert_eq!(encoded(&std::collections::BTreeMap::from([("a", ((), Unit))])), b"\xa1\x61a\x82\xf6\xf6");
        assert_eq!(encoded(&Choice::Nothing(())), b"\xa1\x67Nothing\xf6");
        let fields = Choice::Fields { a: (), b: None };
        assert_eq!(encoded(&fields), b"\xa1\x66Fields\xa2\x61a\xf6\x61b\xf6");
        for choice in [Choice::Nothing(()), fields] {
            assert_eq!(decoded::<Choice>(&encoded(&choice)), Ok(choice));
        }
        assert_eq!(decoded::<(u8, ())>(&encoded(&(1, ()))), Ok((1, ())));
        assert_eq!(encoded(&(Vec::<u8>::new(), [0u8; 0])), [0x82, 0x80, 0x80], "a list is none");
    }

    #[test]
    fn what_other_languages_write_is_read() {
        assert_eq!(decoded::<f64>(&[0xf9, 0x3e, 0x00]), Ok(1.5), "a float in its shortest form");
        assert_eq!(decoded::<Vec<u8>>(&[0x42, 1, 2]), Ok(vec![1, 2]), "a byte string");
        assert_eq!(
            decoded::<String>(&[0x7f, 0x61, b'a', 0x61, b'b', 0xff]),
            Ok("ab".into()),
            "text in pieces"
        );
        assert_eq!(decoded::<u8>(&[0xd8, 0x40, 0x05]), Ok(5), "a tagged number");
    }

    #[test]
    fn an_integer_is_a_float() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Point {
            x: f64,
            y: Option<f32>,
        }
        #[derive(Debug, PartialEq, serde::Deserialize)]
        enum Shape {
            Circle(f64),
            Line(f64, Vec<f64>),
            Dot { at: Point },
        }

        assert_eq!(decoded::<f64>(&[0x05]), Ok(5.0));
        assert_eq!(decoded::<f32>(&[0x24]), Ok(-5.0));
        let least = [0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(decoded::<f64>(&least), Ok(-18446744073709551616.0));
        assert_eq!(decoded::<Vec<f64>>(&[0x83, 1, 0xf9, 0x3e, 0, 0x20]), Ok(vec![1.0, 1.5, -1.0]));
        assert_eq!(decoded::<Point>(b"\xa2\x61x\x05\x61y\x06"), Ok(Point { x: 5.0, y: Some(6.0) }));
        assert_eq!(decoded::<Point>(b"\xa2\x61x\x05\x61y\xf6"), Ok(Point { x: 5.0, y: None }));
        assert_eq!(decoded::<Shape>(b"\xa1\x66Circle\x02"), Ok(Shape::Circle(2.0)));
        assert_eq!(decoded::<Shape>(b"\xa1\x64Line\x82\x02\x81\x03"), Ok(Shape::Line(2.0, vec![3.0])));
        let at = Point { x: 1.0, y: None };
        assert_eq!(decoded::<Shape>(b"\xa1\x63Dot\xa1\x62at\xa1\x61x\x01"), Ok(Shape::Dot { at }));
        let table = std::collections::BTreeMap::from([("a".to_string(), (1u8, 2.0))]);
        assert_eq!(
            decoded::<std::collections::BTreeMap<String, (u8, f64)>>(b"\xa1\x61a\x82\x01\x02"),
            Ok(table)
        );
        // A tag means nothing to who asks for a number, as elsewhere.
        assert_eq!(decoded::<f64>(&[0xc1, 0x05]), Ok(5.0));
        assert_eq!(decoded::<f64>(&[0xc1, 0xd8, 0x40, 0xf9, 0x3e, 0]), Ok(1.5));
        // The other way round nothing is lost either.
        assert!(decoded::<u8>(&[0xf9, 0x3e, 0]).is_err());
        assert!(decoded::<f64>(&[0x61, b'5']).is_err());
        assert!(decoded::<f64>(&[0xf6]).is_err());
    }

    #[test]
    fn what_does_not_fit_says_what_it_should_be() {
        let error = decoded::<u8>(&[0x61, b'a']).unwrap_err();
        assert_eq!(error.code, Code::INVALID_ARGUMENT);
        assert!(error.message.starts_with("the payload is not a u8: "), "{error}");
    }

    #[test]
    fn nothing_is_taken_for_what_it_is_not() {
        assert!(decoded::<((u8, u8), u8)>(&[0x82, 0x83, 1, 2, 3, 4]).is_err(), "3 is not the second");
        assert!(decoded::<Vec<(u8, u8)>>(&[0x82, 0x83, 1, 2, 0x82, 9, 9, 0x82, 4, 5]).is_err());
        assert!(decoded::<(u8, u8)>(&[0x83, 1, 2, 3]).is_err());
        assert!(decoded::<(std::net::IpAddr, u16)>(b"\x82\xa1\x62V4\x85\x01\x02\x03\x04\x05\x06").is_err());
        assert_eq!(decoded::<(u8, u8)>(&[0x9f, 1, 2, 0xff]), Ok((1, 2)), "a list of unknown length");
        assert!(decoded::<(u8, u8)>(&[0x9f, 1, 2, 3, 0xff]).is_err());
    }

    #[test]
    fn large_values_are_encoded_once_and_small_ones_copied() {
        for len in [0, 1, KEEP, 3 * KEEP] {
            let text = "x".repeat(len);
            assert_eq!(decoded::<String>(&encoded(&text)), Ok(text));
        }
    }
}
