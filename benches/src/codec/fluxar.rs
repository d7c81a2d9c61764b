//! The envelope of this project.

use std::hint::black_box;

use fluxar_proto::message::{Envelope, Id, Item, Kind, MetaBuf};

use super::{Codec, ID, META, TARGET};

const PAYLOAD: &[u8] = &[0xa1, 0x62, b'i', b'd', 0x18, 42];

pub(super) fn codec() -> Codec {
    let mut meta = MetaBuf::<32>::new();
    meta.text(META.0, META.1).expect("the example's meta fits");
    let payload = Item::new(PAYLOAD).expect("the example's payload is CBOR");
    let encode = move |buffer: &mut Vec<u8>| {
        let envelope = Envelope {
            target: Some(TARGET),
            meta: meta.as_meta(),
            payload,
            ..Envelope::new(Kind::Call, Id::from_bytes(ID))
        };
        let Ok(()) = black_box(&envelope).encode(buffer);
    };
    let decode = |bytes: &[u8]| {
        let envelope = Envelope::decode(bytes).expect("what was encoded is decoded");
        assert_eq!(envelope.payload.as_bytes(), PAYLOAD);
        black_box(&envelope);
    };
    Codec::new("fluxar", "validated whole; text and payload are borrowed", encode, decode)
}
