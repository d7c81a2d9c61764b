use std::vec::Vec;

use super::*;

fn item(bytes: &[u8]) -> Item<'_> {
    Item::new(bytes).expect("an item")
}

#[test]
fn what_goes_in_comes_out() {
    let mut buf = MetaBuf::<128>::new();
    buf.uint("n", 300).expect("room");
    buf.text("t", "über").expect("room");
    buf.bool("b", true).expect("room");
    buf.item("i", item(&[0x81, 0x05])).expect("room");
    let meta = buf.as_meta();
    assert_eq!((meta.len(), meta.is_empty()), (4, false));
    assert_eq!(
        (meta.get_u64("n"), meta.get_str("t"), meta.get_bool("b")),
        (Some(300), Some("über"), Some(true))
    );
    assert_eq!(meta.get("i"), Some(item(&[0x81, 0x05])));
    assert_eq!(
        (meta.get("x"), meta.get_u64("t"), meta.get_str("n"), meta.get_bool("n")),
        (None, None, None, None)
    );
    let keys: Vec<_> = meta.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["n", "t", "b", "i"]);
    let encoded = [&hex("a4")[..], meta.entries()].concat();
    assert_eq!(Meta::decode(&encoded), Ok(meta));
}

// spec: §5.2
#[test]
fn what_is_added_is_written_in_its_shortest_form() {
    let mut buf = MetaBuf::<512>::new();
    for (i, value) in
        [23, 24, 255, 256, 65_535, 65_536, u32::MAX.into(), 1 << 32, u64::MAX].into_iter().enumerate()
    {
        buf.uint(["a", "b", "c", "d", "e", "f", "g", "h", "i"][i], value).expect("room");
    }
    let expected = hex("6161 17 6162 1818 6163 18ff 6164 190100 6165 19ffff 6166 1a00010000 6167 1affffffff
         6168 1b0000000100000000 6169 1bffffffffffffffff");
    assert_eq!(buf.as_meta().entries(), expected);
}

// spec: §5.9
#[test]
fn a_key_is_added_once() {
    let mut buf = MetaBuf::<64>::new();
    buf.uint("a", 1).expect("room");
    assert_eq!(buf.uint("a", 2), Err(MetaError::DuplicateKey));
    assert_eq!(buf.as_meta().get_u64("a"), Some(1));
}

// spec: §5.9
#[test]
fn no_more_than_64_keys_are_added() {
    let mut buf = MetaBuf::<1024>::new();
    for key in 0..64u8 {
        buf.bool(str::from_utf8(&[key]).expect("ASCII"), true).expect("room");
    }
    assert_eq!(buf.bool("too many", true), Err(MetaError::TooManyKeys));
    assert_eq!(buf.as_meta().len(), 64);
    buf.clear();
    assert_eq!(buf.as_meta(), Meta::EMPTY);
    assert_eq!(buf.bool("too many", true), Ok(()));
}

#[test]
fn a_full_buffer_stays_as_it_was() {
    let mut buf = MetaBuf::<6>::new();
    buf.uint("abc", 1).expect("room");
    assert_eq!(buf.uint("d", 1), Err(MetaError::Full));
    assert_eq!(buf.text("", "abc"), Err(MetaError::Full));
    assert_eq!(buf.as_meta().entries(), hex("63 616263 01"));
}

#[test]
fn extending_adds_everything_or_nothing() {
    let mut base = MetaBuf::<64>::new();
    base.uint("a", 1).expect("room");
    base.uint("b", 2).expect("room");
    let mut other = MetaBuf::<64>::new();
    other.uint("c", 3).expect("room");
    assert_eq!(other.extend(base.as_meta()), Ok(()));
    assert_eq!(other.as_meta().len(), 3);
    assert_eq!(base.extend(other.as_meta()), Err(MetaError::DuplicateKey));
    assert_eq!(base.as_meta().entries(), hex("6161 01 6162 02"), "`c` was added, then `a` failed");
}

// spec: §5.9
#[test]
fn meta_is_decoded_on_its_own() {
    assert_eq!(Meta::decode(&hex("f6")), Ok(Meta::EMPTY));
    assert_eq!(Meta::decode(&hex("a0")), Ok(Meta::EMPTY));
    assert_eq!(Meta::decode(&hex("a1 61 61 01")).map(|meta| meta.get_u64("a")), Ok(Some(1)));
    for (digits, kind, offset) in [
        ("", DecodeErrorKind::Truncated, 0),
        ("80", DecodeErrorKind::Unexpected(Expected::MapOrNull), 0),
        ("a0 00", DecodeErrorKind::TrailingBytes, 1),
        ("a2 61 61 01 61 61 01", DecodeErrorKind::DuplicateKey, 4),
    ] {
        assert_eq!(Meta::decode(&hex(digits)), Err(DecodeError { offset, kind }), "{digits}");
    }
}

#[test]
fn a_key_matches_as_a_whole() {
    let meta = hex("a3 62 6161 01 61 61 02 60 03");
    let meta = Meta::decode(&meta).expect("a map");
    assert_eq!((meta.get_u64("aa"), meta.get_u64("a"), meta.get_u64("")), (Some(1), Some(2), Some(3)));
    assert_eq!(meta.get("aaa"), None);
}
