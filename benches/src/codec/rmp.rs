//! The same message as MessagePack, by rmp-serde.

use std::collections::BTreeMap;
use std::hint::black_box;

use serde::{Deserialize, Serialize};

use super::{Codec, ID, META, TARGET};

/// The map {id: 42}.
const PAYLOAD: &[u8] = &[0x81, 0xa2, b'i', b'd', 42];

/// Written as an array, as the envelope is.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    kind: u8,
    #[serde(with = "serde_bytes")]
    id: &'a [u8],
    #[serde(with = "serde_bytes")]
    reference: Option<&'a [u8]>,
    target: Option<&'a str>,
    #[serde(borrow)]
    meta: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(with = "serde_bytes")]
    payload: &'a [u8],
    #[serde(borrow)]
    error: Option<Error<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Error<'a> {
    code: u32,
    message: &'a str,
}

pub(super) fn codec() -> Codec {
    let envelope = Envelope {
        kind: 2,
        id: &ID,
        reference: None,
        target: Some(TARGET),
        meta: Some(BTreeMap::from([META])),
        payload: PAYLOAD,
        error: None,
    };
    let encode = move |buffer: &mut Vec<u8>| {
        rmp_serde::encode::write(buffer, black_box(&envelope)).expect("the example can be encoded");
    };
    let decode = |bytes: &[u8]| {
        let envelope = rmp_serde::from_slice::<Envelope<'_>>(bytes).expect("what was encoded is decoded");
        assert_eq!(envelope.payload, PAYLOAD);
        black_box(&envelope);
    };
    Codec::new("rmp-serde", "MessagePack; text and payload are borrowed", encode, decode)
}
