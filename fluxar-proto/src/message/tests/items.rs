use std::vec;
use std::vec::Vec;

use super::DecodeErrorKind::*;
use super::*;

fn check(digits: &str, expected: Result<(), (DecodeErrorKind, usize)>) {
    let bytes = hex(digits);
    let expected = expected.map_err(|(kind, offset)| DecodeError { offset, kind });
    assert_eq!(Item::new(&bytes).map(|_| ()), expected, "{digits}");
}

// spec: §5.3
#[test]
fn the_examples_of_rfc_8949_are_well_formed() {
    // Appendix A.
    let examples = "00 | 17 | 1818 | 1903e8 | 1a000f4240 | 1b000000e8d4a51000 | 1bffffffffffffffff |
        c249010000000000000000
        | 3bffffffffffffffff | 20 | 3863 | f90000 | f97bff | fa47c35000 | fb7e37e43c8800759c | f97e00 |
        fa7f800000 | f4
        | f5 | f6 | f7 | f0 | f8ff | c074323031332d30332d32315432303a30343a30305a | c11a514b67b0 |
        d74401020304
        | d818456449455446 | 40 | 4401020304 | 60 | 6449455446 | 62225c | 80 | 83010203 | 8301820203820405
        | 98190102030405060708090a0b0c0d0e0f101112131415161718181819 | a0 | a201020304 | a26161016162820203
        | 826161a161626163 | 5f42010243030405ff | 7f657374726561646d696e67ff | 9fff | 9f018202039f0405ffff
        | 83018202039f0405ff | bf61610161629f0203ffff | bf6346756ef563416d7421ff | d9d9f780 |
        db123456789abcdef0f6";
    examples.split('|').for_each(|example| check(example, Ok(())));
}

// spec: §5.3
#[test]
fn the_ill_formed_examples_of_rfc_8949_are_refused() {
    // Appendix F.1.
    let truncated = "18 | 19 | 1a | 1b | 1901 | 1a0102 | 1b01020304050607 | 38 | 58 | 78 | 98 | 9a01ff00 |
        b8 | d8 | f8 |
        f900 | fa0000 | fb000000 | 41 | 61 | 5affffffff00 | 5bffffffffffffffff010203 | 7affffffff00 |
        7b7fffffffffffffff010203 | 81 | 818181818181818181 | 8200 | a1 | a20102 | a100 | a2000000 | 5f4100 |
        7f6100 | 9f |
        9f0102 | bf | bf01020102 | 819f | 9f8000 | 9f9f9f9f9fffffffff | 9f819f819f9fffffff | c0";
    for example in truncated.split('|').map(str::trim) {
        let bytes = hex(example);
        assert_eq!(Item::new(&bytes).map_err(|error| error.kind), Err(Truncated), "{example}");
    }
    let reserved = "1c | 1d | 1e | 3c | 3d | 3e | 5c | 5d | 5e | 7c | 7d | 7e | 9c | 9d | 9e | bc | bd |
        be | dc | dd | de |
        fc | fd | fe | f800 | f801 | f818 | f81f | 1f | 3f | df";
    reserved.split('|').for_each(|example| check(example, Err((Reserved, 0))));
    for (example, kind, offset) in [
        ("5f00ff", InvalidChunk, 1),
        ("5f21ff", InvalidChunk, 1),
        ("5f6100ff", InvalidChunk, 1),
        ("5f80ff", InvalidChunk, 1),
        ("5fa0ff", InvalidChunk, 1),
        ("5fc000ff", InvalidChunk, 1),
        ("5fe0ff", InvalidChunk, 1),
        ("7f4100ff", InvalidChunk, 1),
        ("5f5f4100ffff", InvalidChunk, 1),
        ("7f7f6100ffff", InvalidChunk, 1),
        ("ff", UnexpectedBreak, 0),
        ("81ff", UnexpectedBreak, 1),
        ("8200ff", UnexpectedBreak, 2),
        ("a1ff", Truncated, 0),
        ("a1ff00", UnexpectedBreak, 1),
        ("a100ff", UnexpectedBreak, 2),
        ("a2000000ff", UnexpectedBreak, 4),
        ("9f81ff", UnexpectedBreak, 2),
        ("9f829f819f9fffffffff", UnexpectedBreak, 9),
        ("bf00ff", UnexpectedBreak, 2),
        ("bf000000ff", UnexpectedBreak, 4),
        ("9fc0ffff", UnexpectedBreak, 2),
        ("c0ff", UnexpectedBreak, 1),
    ] {
        check(example, Err((kind, offset)));
    }
}

// spec: §5.3
#[test]
fn lengths_and_counts_near_the_largest_number_neither_overflow_nor_allocate() {
    for head in ["5b", "7b", "9b", "bb"] {
        for value in ["ffffffffffffffff", "8000000000000000", "7fffffffffffffff", "0000000100000000"] {
            check(&std::format!("{head} {value}"), Err((Truncated, 0)));
            check(&std::format!("82 00 {head} {value} 00"), Err((Truncated, 2)));
        }
    }
    check("5f 5b ffffffffffffffff", Err((Truncated, 1)));
}

// spec: §5.3
#[test]
fn arrays_maps_and_tags_nest_64_deep_and_no_deeper() {
    for (wrapper, innermost) in
        [("81", "80"), ("a1 00", "a0"), ("c1", "80"), ("9f", "9f ff"), ("bf 00", "bf ff")]
    {
        let close = if wrapper.starts_with('9') || wrapper.starts_with('b') { "ff" } else { "" };
        let nested = |depth: usize| wrapper.repeat(depth - 1) + innermost + &close.repeat(depth - 1);
        check(&nested(64), Ok(()));
        check(&nested(65), Err((TooDeep, 64 * hex(wrapper).len())));
    }
    check(&("c1".repeat(64) + "00"), Ok(()));
    check(&("c1".repeat(65) + "00"), Err((TooDeep, 64)));
}

// spec: §5.3
#[test]
fn strings_in_chunks_add_no_depth() {
    check(&("81".repeat(64) + "7f 61 61 ff"), Ok(()));
}

// spec: §5.3
#[test]
fn depth_falls_again_where_an_item_ends() {
    let deep = "81".repeat(63) + "80";
    check(&std::format!("83 {0} {0} {0}", &deep[2..]), Ok(()));
    check(&std::format!("9f {0} bf {0} 00 ff ff", &deep[4..]), Ok(()));
}

#[test]
fn a_nesting_bomb_is_refused_where_it_becomes_too_deep() {
    for byte in [0x81, 0x9f, 0xa1, 0xbf, 0xc6] {
        let bomb = vec![byte; 1 << 20];
        let depth = if byte == 0xa1 { 65 } else { 64 };
        let at = Item::new(&bomb).expect_err("it is too deep");
        assert_eq!(at.kind, TooDeep);
        assert!(at.offset <= depth, "{at}");
    }
}

#[test]
fn an_item_is_exactly_one() {
    check("", Err((Truncated, 0)));
    check("00 00", Err((TrailingBytes, 1)));
    check("80 80", Err((TrailingBytes, 1)));
}

#[test]
fn peeks_read_what_is_there_and_nothing_else() {
    for (digits, uint, boolean) in [
        ("00", Some(0), None),
        ("1b 0000000000000007", Some(7), None),
        ("1b ffffffffffffffff", Some(u64::MAX), None),
        ("20", None, None),
        ("c2 41 01", None, None),
        ("f9 3c00", None, None),
        ("f4", None, Some(false)),
        ("f5", None, Some(true)),
        ("f6", None, None),
    ] {
        let bytes = hex(digits);
        let item = Item::new(&bytes).expect("an item");
        assert_eq!((item.as_u64(), item.as_bool()), (uint, boolean), "{digits}");
        assert_eq!(item.is_null(), digits == "f6");
    }
    let text = hex("63 616263");
    let text = Item::new(&text).expect("an item");
    assert_eq!((text.as_str(), text.as_byte_str()), (Some("abc"), None));
    let bytes = hex("58 03 616263");
    let bytes = Item::new(&bytes).expect("an item");
    assert_eq!((bytes.as_str(), bytes.as_byte_str()), (None, Some(&b"abc"[..])));
    for chunked in ["7f 61 61 ff", "5f 41 61 ff", "61 ff"] {
        let chunked = hex(chunked);
        let item = Item::new(&chunked).expect("an item");
        assert_eq!((item.as_str(), item.as_byte_str()), (None, None));
    }
}

#[test]
fn the_elements_of_an_array_are_items_whatever_its_form() {
    for digits in
        ["83 01 82 02 03 5f 41 01 ff", "98 03 01 82 02 03 5f 41 01 ff", "9f 01 82 02 03 5f 41 01 ff ff"]
    {
        let bytes = hex(digits);
        let array = Item::new(&bytes).expect("an item").array().expect("an array");
        let elements: Vec<_> = array.map(|element| element.as_bytes().to_vec()).collect();
        assert_eq!(elements, [hex("01"), hex("82 02 03"), hex("5f 41 01 ff")], "{digits}");
    }
    for empty in ["80", "9f ff"] {
        let bytes = hex(empty);
        assert_eq!(Item::new(&bytes).expect("an item").array().expect("an array").count(), 0);
    }
    for other in ["a0", "00", "f6", "c1 80"] {
        let bytes = hex(other);
        let error = Item::new(&bytes).expect("an item").array().map(|_| ());
        assert_eq!(error, Err(DecodeError { offset: 0, kind: Unexpected(Expected::Array) }), "{other}");
    }
}

// spec: §6.2
#[test]
fn the_maps_of_the_handshake_are_checked_before_the_first_entry() {
    let bytes = hex("a2 61 61 01 61 62 81 02");
    let map = Item::new(&bytes).expect("an item").map().expect("a map");
    let entries: Vec<_> = map.map(|(key, value)| (key, value.as_bytes())).collect();
    assert_eq!(entries, [("a", &[1][..]), ("b", &[0x81, 2])]);
    let bytes = hex("bf 61 61 01 61 62 81 02 ff");
    let indefinite = Item::new(&bytes).expect("an item").map().expect("a map");
    assert!(indefinite.map(|(key, value)| (key, value.as_bytes())).eq(entries));
    assert_eq!(Item::new(&hex("bf ff")).expect("an item").map().expect("a map").count(), 0);
    for (digits, kind, offset) in [
        ("80", Unexpected(Expected::Map), 0),
        ("f6", Unexpected(Expected::Map), 0),
        ("bf 7f 61 61 ff 01 ff", Indefinite, 1),
        ("a2 61 61 01 61 61 02", DuplicateKey, 4),
        ("bf 61 61 01 61 61 02 ff", DuplicateKey, 4),
        ("a1 01 01", Unexpected(Expected::Text), 1),
        ("a1 61 ff 01", InvalidUtf8, 2),
    ] {
        let bytes = hex(digits);
        let error = Item::new(&bytes).expect("an item").map().map(|_| ());
        assert_eq!(error, Err(DecodeError { offset, kind }), "{digits}");
    }
    let many: Vec<u8> = [hex("b8 41"), (0..65).flat_map(|i| [0x61, i, 0]).collect()].concat();
    let error = Item::new(&many).expect("an item").map().map(|_| ());
    assert_eq!(error, Err(DecodeError { offset: 0, kind: TooManyKeys }));
}

#[test]
fn debug_shows_the_bytes_and_no_more_than_a_line() {
    let bytes = hex("83 01 02 03");
    let item = Item::new(&bytes).expect("an item");
    assert_eq!(std::format!("{item:?}"), "Item(83010203)");
    let mut long = hex("59 0400");
    long.extend([0xab; 1024]);
    let shown = std::format!("{:?}", Item::new(&long).expect("an item"));
    assert!(shown.len() < 100 && shown.ends_with("... 1027 bytes)"), "{shown}");
}

#[cfg(feature = "alloc")]
#[test]
fn a_payload_is_one_item() {
    use std::string::ToString;

    use bytes::Bytes;

    let payload = Payload::new(Bytes::from_static(&[0x81, 0x01])).expect("an item");
    assert_eq!((payload.len(), payload.as_bytes()), (2, &[0x81, 0x01][..]));
    assert_eq!(payload, Payload::trusted(Bytes::from_static(&[0x81, 0x01])));
    assert_eq!(payload, Payload::from(payload.as_item()));
    assert!(Payload::null().is_null() && !payload.is_null());
    assert_eq!(Payload::default().into_bytes(), hex("f6"));
    let error = Payload::new(Bytes::from_static(&[0x81])).expect_err("no item");
    assert_eq!(error.to_string(), "item cut short at offset 0");
}

#[cfg(feature = "alloc")]
#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "no CBOR item"))]
fn a_payload_that_is_no_item_is_the_callers_bug() {
    let payload = Payload::trusted(bytes::Bytes::from_static(&[0x81]));
    assert_eq!(payload.len(), 1);
}
