use std::string::{String, ToString};

use super::DecodeErrorKind::*;
use super::Expected as E;
use super::*;

fn check(bytes: &[u8], kind: DecodeErrorKind, offset: usize) {
    assert_eq!(Envelope::decode(bytes), Err(DecodeError { offset, kind }), "{bytes:02x?}");
}

/// What stands behind the id of a call, what is wrong with it, and where that is, counted from the end of the
/// id.
type Case = (&'static str, DecodeErrorKind, usize);

fn check_all(cases: &[Case]) {
    for &(rest, kind, offset) in cases {
        check(&after_id(rest), kind, AFTER_ID + offset);
    }
}

// spec: §5.2
#[test]
fn the_first_byte_is_0x87() {
    check(&[], Truncated, 0);
    for first in (0..=255).filter(|&first| first != 0x87) {
        check(&[first], NotAnEnvelope, 0);
    }
    let message = after_id("f6 f6 f6 f6 f6");
    for array in ["98 07", "99 0007", "9f"] {
        let mut bytes = hex(array);
        bytes.extend(&message[1..]);
        check(&bytes, NotAnEnvelope, 0);
    }
}

// spec: §5.1
#[test]
fn a_message_that_is_cut_short_is_refused_wherever_it_is_cut() {
    let whole = after_id(&std::format!(
        "50 {REF} 61 61 a2 61 62 63 616263 61 63 19 0100 f6 a2 64 636f6465 05 67 6d657373616765 61 61"
    ));
    assert!(Envelope::decode(&whole).is_ok());
    for len in 0..whole.len() {
        let error = Envelope::decode(&whole[..len]).expect_err("it is cut short");
        assert_eq!(error.kind, Truncated, "at {len}");
        assert!(error.offset <= len);
    }
}

// spec: §5.1
#[test]
fn bytes_behind_the_message_are_refused() {
    check_all(&[
        ("f6 f6 f6 f6 f6 f6", TrailingBytes, 5),
        ("f6 f6 f6 f6 a1 64 636f6465 01 00", TrailingBytes, 11),
    ]);
    let mut long = after_id("f6 f6 f6 42 0102 f6");
    long.extend([0; 1000]);
    check(&long, TrailingBytes, AFTER_ID + 7);
}

// spec: §5.4
#[test]
fn a_type_outside_1_to_7_is_refused() {
    for (kind, expected) in [
        ("00", UnknownType),
        ("08", UnknownType),
        ("18 ff", UnknownType),
        ("19 0102", UnknownType),
        ("1b ffffffffffffffff", UnknownType),
        ("1b 0000000100000002", UnknownType),
        ("21", Unexpected(E::Type)),
        ("f6", Unexpected(E::Type)),
        ("61 32", Unexpected(E::Type)),
        ("f9 3c00", Unexpected(E::Type)),
        ("1c", Reserved),
        ("1f", Reserved),
    ] {
        let mut bytes = hex("87");
        bytes.extend(hex(kind));
        bytes.extend(&after_id("f6 f6 f6 f6 f6")[2..]);
        check(&bytes, expected, 1);
    }
}

// spec: §5.5
#[test]
fn an_id_is_a_byte_string_of_16_bytes() {
    for (id, expected) in [
        ("f6", Unexpected(E::Id)),
        ("40", Unexpected(E::Id)),
        ("4f 000102030405060708090a0b0c0d0e", Unexpected(E::Id)),
        ("51 000102030405060708090a0b0c0d0e0f10", Unexpected(E::Id)),
        ("70 30313233343536373839303132333435", Unexpected(E::Id)),
        ("d8 25 50 000102030405060708090a0b0c0d0e0f", Unexpected(E::Id)),
        ("5b 0000000100000010 00", Unexpected(E::Id)),
        ("5f 50 000102030405060708090a0b0c0d0e0f ff", Indefinite),
        ("5c", Reserved),
        ("50 00", Truncated),
    ] {
        let mut bytes = hex("87 02");
        bytes.extend(hex(id));
        check(&bytes, expected, 2);
    }
}

// spec: §5.7
#[test]
fn a_ref_is_an_id_or_null() {
    check_all(&[
        ("f7", Unexpected(E::IdOrNull), 0),
        ("00", Unexpected(E::IdOrNull), 0),
        ("40", Unexpected(E::IdOrNull), 0),
        ("5f ff", Indefinite, 0),
    ]);
}

// spec: §5.8
#[test]
fn a_target_is_text_of_at_most_255_bytes_or_null() {
    check_all(&[
        ("f6 f7", Unexpected(E::TextOrNull), 1),
        ("f6 41 61", Unexpected(E::TextOrNull), 1),
        ("f6 7f 61 61 ff", Indefinite, 1),
        ("f6 62 61", Truncated, 1),
        ("f6 7b ffffffffffffffff 61", Truncated, 1),
        ("f6 7e", Reserved, 1),
    ]);
    let long = after_id(&("f6 79 0100".to_string() + &"61".repeat(256) + "f6 f6 f6"));
    check(&long, TargetTooLong, AFTER_ID + 1);
}

// spec: §5.8 §5.9 §5.12
#[test]
fn target_keys_and_error_message_are_utf_8() {
    check_all(&[
        ("f6 63 61c328", InvalidUtf8, 3),
        ("f6 62 61c3", InvalidUtf8, 3),
        ("f6 63 eda080", InvalidUtf8, 2),
        ("f6 f6 a1 61 ff 00 f6 f6", InvalidUtf8, 4),
        ("f6 f6 f6 f6 a1 62 c080 00", InvalidUtf8, 6),
        ("f6 f6 f6 f6 a2 64 636f6465 01 67 6d657373616765 61 ff", InvalidUtf8, 20),
    ]);
}

// spec: §5.9
#[test]
fn meta_is_a_definite_map_with_text_keys_or_null() {
    check_all(&[
        ("f6 f6 f7", Unexpected(E::MapOrNull), 2),
        ("f6 f6 80", Unexpected(E::MapOrNull), 2),
        ("f6 f6 bf ff f6 f6", Indefinite, 2),
        ("f6 f6 a1 00 00 f6 f6", Unexpected(E::Text), 3),
        ("f6 f6 a1 41 61 00 f6 f6", Unexpected(E::Text), 3),
        ("f6 f6 a1 7f 61 61 ff 00 f6 f6", Indefinite, 3),
        ("f6 f6 a2 61 61 00 f6 00", Unexpected(E::Text), 6),
        ("f6 f6 a1 61 61 ff", UnexpectedBreak, 5),
        ("f6 f6 a2 61 61 00", Truncated, 6),
    ]);
}

// spec: §5.9
#[test]
fn a_key_twice_is_refused_at_its_second_place() {
    check_all(&[
        ("f6 f6 a2 61 61 00 61 61 00 f6 f6", DuplicateKey, 6),
        ("f6 f6 a3 61 61 00 61 62 00 61 61 01 f6 f6", DuplicateKey, 9),
        ("f6 f6 a2 60 00 60 00 f6 f6", DuplicateKey, 5),
        ("f6 f6 a2 61 61 00 78 01 61 00 f6 f6", DuplicateKey, 6),
        ("f6 f6 f6 f6 a2 64 636f6465 01 64 636f6465 01", DuplicateKey, 11),
        ("f6 f6 f6 f6 a3 64 636f6465 01 61 78 01 61 78 01", DuplicateKey, 14),
    ]);
}

/// `count` pairs of a key of two digits and 0, the key at `repeated` being that at 3.
fn pairs(count: usize, repeated: Option<usize>) -> String {
    let key = |i: usize| if repeated == Some(i) { 3 } else { i };
    (0..count).map(|i| std::format!("62 {:02x}{:02x} 00", 0x30 + key(i) / 10, 0x30 + key(i) % 10)).collect()
}

// spec: §5.9
#[test]
fn a_key_twice_is_found_among_any_number_of_keys() {
    for count in [4, 8, 9, 24, 64] {
        let map_head =
            if count < 24 { std::format!("{:02x}", 0xa0 + count) } else { std::format!("b8 {count:02x}") };
        let rest = |repeated| std::format!("f6 f6 {map_head} {} f6 f6", pairs(count, repeated));
        assert!(Envelope::decode(&after_id(&rest(None))).is_ok(), "{count} keys");
        let first = hex(&map_head).len() + 2;
        for repeated in [count / 2, count - 1].into_iter().filter(|&repeated| repeated != 3) {
            // The later of the two, which is not the one that sorts last.
            let later = repeated.max(3);
            check(&after_id(&rest(Some(repeated))), DuplicateKey, AFTER_ID + first + 4 * later);
        }
    }
}

// spec: §5.9
#[test]
fn of_several_keys_twice_the_first_to_repeat_is_named() {
    for count in [5, 20] {
        let fillers = pairs(count, None);
        // b, a, a, b, a: the second `a` is the first key that has stood before.
        let rest = std::format!(
            "f6 f6 b8 {:02x} {fillers} 6162 00 6161 00 6161 00 6162 00 6161 00 f6 f6",
            count + 5
        );
        check(&after_id(&rest), DuplicateKey, AFTER_ID + 4 + 4 * count + 6);
    }
}

// spec: §5.9 §5.12
#[test]
fn more_than_64_keys_are_refused_from_the_count() {
    check_all(&[
        ("f6 f6 b8 41", TooManyKeys, 2),
        ("f6 f6 bb ffffffffffffffff", TooManyKeys, 2),
        ("f6 f6 f6 f6 b8 41", TooManyKeys, 4),
    ]);
}

// spec: §5.3 §5.11
#[test]
fn the_payload_is_one_well_formed_item() {
    check_all(&[
        ("f6 f6 f6 ff f6", UnexpectedBreak, 3),
        ("f6 f6 f6 1c f6", Reserved, 3),
        ("f6 f6 f6 82 00", Truncated, 3),
        ("f6 f6 f6 82 00 42 01", Truncated, 5),
        ("f6 f6 f6 f8 1f f6", Reserved, 3),
        ("f6 f6 f6 9b ffffffffffffffff f6", Truncated, 3),
        ("f6 f6 f6 7f 41 61 ff f6", InvalidChunk, 4),
    ]);
    let deep = after_id(&("f6 f6 f6".to_string() + &"81".repeat(64) + "80 f6"));
    check(&deep, TooDeep, AFTER_ID + 3 + 64);
}

// spec: §5.12
#[test]
fn an_error_is_a_definite_map_or_null() {
    check_all(&[
        ("f6 f6 f6 f6 00", Unexpected(E::MapOrNull), 4),
        ("f6 f6 f6 f6 f7", Unexpected(E::MapOrNull), 4),
        ("f6 f6 f6 f6 bf 64 636f6465 01 ff", Indefinite, 4),
        ("f6 f6 f6 f6 a1 00 00", Unexpected(E::Text), 5),
    ]);
}

// spec: §5.12
#[test]
fn an_error_has_a_code_between_1_and_the_largest_of_32_bits() {
    check_all(&[
        ("f6 f6 f6 f6 a0", MissingCode, 4),
        ("f6 f6 f6 f6 a1 67 6d657373616765 60", MissingCode, 4),
        ("f6 f6 f6 f6 a1 64 636f6465 00", InvalidCode, 10),
        ("f6 f6 f6 f6 a1 64 636f6465 1b 0000000100000000", InvalidCode, 10),
        ("f6 f6 f6 f6 a1 64 636f6465 20", Unexpected(E::Unsigned), 10),
        ("f6 f6 f6 f6 a1 64 636f6465 f6", Unexpected(E::Unsigned), 10),
        ("f6 f6 f6 f6 a1 64 636f6465 c2 41 01", Unexpected(E::Unsigned), 10),
    ]);
}

// spec: §5.12
#[test]
fn the_other_parts_of_an_error_have_their_types() {
    check_all(&[
        ("f6 f6 f6 f6 a2 64 636f6465 01 67 6d657373616765 f6", Unexpected(E::Text), 19),
        ("f6 f6 f6 f6 a2 64 636f6465 01 67 6d657373616765 7f ff", Indefinite, 19),
        ("f6 f6 f6 f6 a2 64 636f6465 01 69 70726f636573736564 f6", Unexpected(E::Bool), 21),
        ("f6 f6 f6 f6 a2 64 636f6465 01 69 70726f636573736564 01", Unexpected(E::Bool), 21),
        (
            "f6 f6 f6 f6 a2 64 636f6465 01 6e 72657472795f61667465725f6d73 fb 3ff0000000000000",
            Unexpected(E::Unsigned),
            26,
        ),
        ("f6 f6 f6 f6 a2 64 636f6465 01 64 64617461 fc", Reserved, 16),
    ]);
}

// spec: §5.11
#[test]
fn a_payload_beside_an_error_is_refused() {
    check_all(&[
        ("f6 f6 f6 00 a1 64 636f6465 01", PayloadBesideError, 3),
        ("f6 f6 f6 f7 a1 64 636f6465 01", PayloadBesideError, 3),
        ("f6 f6 a1 61 61 00 80 a1 64 636f6465 01", PayloadBesideError, 6),
    ]);
}

#[test]
fn a_decode_error_says_what_and_where() {
    for (kind, expected) in [
        (TrailingBytes, "trailing bytes at offset 61"),
        (Unexpected(E::IdOrNull), "expected an id of 16 bytes or null at offset 61"),
        (TooDeep, "nested deeper than 64 at offset 61"),
    ] {
        assert_eq!(DecodeError { offset: 61, kind }.to_string(), expected);
    }
}
