//! The same message as protocol buffers, by prost.

use std::collections::HashMap;
use std::hint::black_box;

use prost::Message;

use super::{Codec, ID, META, TARGET};

/// Field 1 of the message {id: 42}.
const PAYLOAD: &[u8] = &[0x08, 42];

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "3")]
    reference: Option<Vec<u8>>,
    #[prost(string, optional, tag = "4")]
    target: Option<String>,
    #[prost(map = "string, string", tag = "5")]
    meta: HashMap<String, String>,
    #[prost(bytes = "vec", tag = "6")]
    payload: Vec<u8>,
    #[prost(message, optional, tag = "7")]
    error: Option<Error>,
}

#[derive(Clone, PartialEq, Message)]
struct Error {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    message: String,
}

pub(super) fn codec() -> Codec {
    let envelope = Envelope {
        kind: 2,
        id: ID.to_vec(),
        target: Some(TARGET.to_owned()),
        meta: HashMap::from([(META.0.to_owned(), META.1.to_owned())]),
        payload: PAYLOAD.to_vec(),
        ..Envelope::default()
    };
    let encode = move |buffer: &mut Vec<u8>| black_box(&envelope).encode_raw(buffer);
    let decode = |bytes: &[u8]| {
        let envelope = Envelope::decode(bytes).expect("what was encoded is decoded");
        assert_eq!(envelope.payload, PAYLOAD);
        black_box(&envelope);
    };
    Codec::new("prost", "protocol buffers; text and payload are copied", encode, decode)
}
