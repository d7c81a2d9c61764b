use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::fuzzing::encode;

fn id() -> Id {
    Id::from_bytes(hex(ID).try_into().expect("16 bytes"))
}

fn reference() -> Id {
    Id::from_bytes(hex(REF).try_into().expect("16 bytes"))
}

/// A message, and nothing else, is these bytes.
fn assert_vector(envelope: Envelope<'_>, bytes: &[u8]) {
    assert_eq!(encode(&envelope), bytes);
    assert_eq!(envelope.encoded_len(), bytes.len());
    assert_eq!(Envelope::decode(bytes), Ok(envelope));
}

// spec: §5.1
#[test]
fn the_announced_example_takes_60_bytes() {
    let mut meta = MetaBuf::<32>::new();
    meta.text("trace_id", "abc123").expect("room");
    let payload = hex("a1 62 6964 18 2a");
    let request = Envelope {
        target: Some("user.getProfile"),
        meta: meta.as_meta(),
        payload: Item::new(&payload).expect("an item"),
        ..Envelope::new(Kind::Call, id())
    };
    let bytes = after_id(
        "f6 6f 757365722e67657450726f66696c65
         a1 68 74726163655f6964 66 616263313233
         a1 62 6964 18 2a
         f6",
    );
    assert_eq!(bytes.len(), 60);
    assert_vector(request, &bytes);
}

// spec: §5.1
#[test]
fn a_continuation_carries_the_id_it_refers_to() {
    let bytes = after_id(&std::format!("50 {REF} f6 f6 01 f6"));
    let payload = hex("01");
    let response = Envelope {
        reference: Some(reference()),
        payload: Item::new(&payload).expect("an item"),
        ..Envelope::new(Kind::Call, id())
    };
    assert_vector(response, &bytes);
}

// spec: §5.12
#[test]
fn an_error_carries_all_that_it_says() {
    let data = hex("81 01");
    let error = ErrorRef {
        code: Code::UNAVAILABLE,
        message: Some("busy"),
        data: Some(Item::new(&data).expect("an item")),
        retry_after_ms: Some(1000),
        processed: Some(false),
    };
    let failed =
        Envelope { reference: Some(reference()), error: Some(error), ..Envelope::new(Kind::Call, id()) };
    let bytes = after_id(&std::format!(
        "50 {REF} f6 f6 f6
         a5 64 636f6465 0e
            67 6d657373616765 64 62757379
            64 64617461 81 01
            6e 72657472795f61667465725f6d73 19 03e8
            69 70726f636573736564 f4"
    ));
    assert_vector(failed, &bytes);
}

// spec: §5.4
#[test]
fn the_types_are_1_to_7() {
    for code in 1..=7 {
        let kind = Kind::from_code(code).expect("a type");
        assert_eq!(kind.code(), code);
        let bytes = encode(&Envelope::new(kind, id()));
        assert_eq!((bytes[1], bytes.len()), (code, 24));
        assert_eq!(Envelope::decode(&bytes).map(|envelope| envelope.kind), Ok(kind));
    }
    assert_eq!((Kind::from_code(0), Kind::from_code(8)), (None, None));
    assert_eq!(Kind::Unsubscribe.to_string(), "unsubscribe");
}

// spec: §5.2
#[test]
fn longer_forms_are_accepted_and_never_sent() {
    let mut bytes = hex("87 19 0002 58 10");
    bytes.extend(hex(ID));
    bytes.extend(hex("59 0010"));
    bytes.extend(hex(REF));
    bytes.extend(hex("5a 00000000"));
    bytes.truncate(bytes.len() - 5);
    bytes.extend(hex("78 01 61 b8 01 7b 0000000000000001 62 1b 0000000000000003 f6"));
    bytes.extend(hex("ba 00000001 79 0004 636f6465 1a 00000005"));
    let envelope = Envelope::decode(&bytes).expect("longer forms are legal");
    assert_eq!(envelope.kind, Kind::Call);
    assert_eq!((envelope.id, envelope.reference), (id(), Some(reference())));
    assert_eq!(envelope.target, Some("a"));
    assert_eq!(envelope.meta.get_u64("b"), Some(3));
    assert_eq!(envelope.error, Some(ErrorRef::new(Code::NOT_FOUND)));
    // The entries of a received `meta` are passed on as they are; all around them is in its shortest form.
    let sent = after_id(&std::format!(
        "50 {REF} 61 61 a1 7b 0000000000000001 62 1b 0000000000000003 f6 a1 64 636f6465 05"
    ));
    assert_eq!(encode(&envelope), sent);
}

// spec: §5.9
#[test]
fn an_empty_meta_means_null_and_null_is_sent() {
    for empty in ["a0", "b8 00", "f6"] {
        let bytes = after_id(&std::format!("f6 f6 {empty} f6 f6"));
        let envelope = Envelope::decode(&bytes).expect("legal");
        assert_eq!(envelope.meta, Meta::EMPTY);
        assert_eq!(encode(&envelope), after_id("f6 f6 f6 f6 f6"));
    }
}

// spec: §5.8
#[test]
fn a_target_of_255_bytes_is_the_longest() {
    for len in [0, 1, 23, 24, 254, 255] {
        let target = "x".repeat(len);
        let envelope = Envelope { target: Some(&target), ..Envelope::new(Kind::Call, id()) };
        let bytes = encode(&envelope);
        assert_eq!(bytes.len(), envelope.encoded_len());
        assert_eq!(Envelope::decode(&bytes), Ok(envelope));
    }
}

// spec: §5.3
#[test]
fn indefinite_lengths_are_accepted_inside_payload_meta_values_and_data() {
    let item = "9f 7f 61 61 61 62 ff bf 01 5f ff ff ff";
    let in_payload = after_id(&std::format!("f6 f6 a1 61 6d {item} {item} f6"));
    let envelope = Envelope::decode(&in_payload).expect("legal");
    assert_eq!(envelope.payload.as_bytes(), hex(item));
    assert_eq!(envelope.meta.get("m"), Some(envelope.payload));
    let in_data = after_id(&std::format!("f6 f6 f6 f6 a2 64 636f6465 01 64 64617461 {item}"));
    let error = Envelope::decode(&in_data).expect("legal").error.expect("an error");
    assert_eq!(error.data, Some(envelope.payload));
}

// spec: §5.3
#[test]
fn text_inside_the_payload_is_not_looked_at() {
    let bytes = after_id("f6 f6 a1 61 6d 62 c328 82 61 ff a2 01 02 01 02 f6");
    let envelope = Envelope::decode(&bytes).expect("legal");
    assert_eq!(envelope.meta.get_str("m"), None);
    assert_eq!(envelope.payload.as_bytes(), hex("82 61 ff a2 01 02 01 02"));
}

// spec: §5.3
#[test]
fn depth_is_counted_for_each_item_on_its_own() {
    let deepest = "81".repeat(63) + "80";
    let bytes = after_id(&std::format!("f6 f6 a1 61 6d {deepest} {deepest} f6"));
    let envelope = Envelope::decode(&bytes).expect("64 deep is legal");
    assert_eq!(envelope.meta.get("m"), Some(envelope.payload));
}

// spec: §5.12
#[test]
fn unknown_keys_of_an_error_and_codes_without_a_name_are_accepted() {
    let bytes = after_id("f6 f6 f6 f6 a3 61 78 9f 01 ff 64 636f6465 1a ffffffff 62 7979 f7");
    let error = Envelope::decode(&bytes).expect("legal").error;
    assert_eq!(error, Some(ErrorRef::new(Code(u32::MAX))));
}

// spec: §5.12
#[test]
fn the_code_zero_is_never_sent() {
    let envelope = Envelope { error: Some(ErrorRef::new(Code(0))), ..Envelope::new(Kind::Control, id()) };
    let bytes = encode(&envelope);
    assert_eq!(bytes.len(), envelope.encoded_len());
    let decoded = Envelope::decode(&bytes).expect("legal");
    assert_eq!(decoded.error, Some(ErrorRef::new(Code::UNKNOWN)));
}

#[test]
fn encoding_needs_no_allocator_and_says_where_room_is_missing() {
    let envelope = Envelope { target: Some("a"), ..Envelope::new(Kind::Call, id()) };
    let expected = encode(&envelope);
    let mut room = [0; 25];
    envelope.encode(&mut &mut room[..]).expect("25 bytes suffice");
    assert_eq!(room, *expected);
    for len in 0..25 {
        assert!(envelope.encode(&mut &mut room[..len]).is_err(), "{len} bytes do not suffice");
    }
}

#[test]
fn head_payload_and_tail_make_the_message() {
    let payload = hex("43 010203");
    let envelope = Envelope {
        reference: Some(reference()),
        target: Some("items"),
        payload: Item::new(&payload).expect("an item"),
        ..Envelope::new(Kind::Stream, id())
    };
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    let (Ok(()), Ok(())) = (envelope.encode_head(&mut head), envelope.encode_tail(&mut tail));
    assert_eq!([head, payload.clone(), tail].concat(), encode(&envelope));
}
