//! The notation beside the examples of RFC 8949, another reader of JSON, and the decoder of the core.

use fluxar_proto::message::Item;
use proptest::prelude::*;

use super::head::{self, BREAK, Width, major};
use super::number::{narrow, shortest, widen, write_float};
use super::{diagnostic, json, map_entries, one_line, parse, text};

/// RFC 8949, appendix A: what is written there is what is printed here.
const EXAMPLES: &[(&str, &str)] = &[
    ("00", "0"),
    ("01", "1"),
    ("0a", "10"),
    ("17", "23"),
    ("1818", "24"),
    ("1819", "25"),
    ("1864", "100"),
    ("1903e8", "1000"),
    ("1a000f4240", "1000000"),
    ("1b000000e8d4a51000", "1000000000000"),
    ("1bffffffffffffffff", "18446744073709551615"),
    ("3bffffffffffffffff", "-18446744073709551616"),
    ("20", "-1"),
    ("29", "-10"),
    ("3863", "-100"),
    ("3903e7", "-1000"),
    ("f90000", "0.0"),
    ("f98000", "-0.0"),
    ("f93c00", "1.0"),
    ("fb3ff199999999999a", "1.1"),
    ("f93e00", "1.5"),
    ("f97bff", "65504.0"),
    ("fa47c35000", "100000.0"),
    ("fa7f7fffff", "3.4028234663852886e38"),
    ("fb7e37e43c8800759c", "1e300"),
    ("f90001", "5.960464477539063e-8"),
    ("f90400", "6.103515625e-5"),
    ("f9c400", "-4.0"),
    ("fbc010666666666666", "-4.1"),
    ("f97c00", "Infinity"),
    ("f97e00", "NaN"),
    ("f9fc00", "-Infinity"),
    ("f4", "false"),
    ("f5", "true"),
    ("f6", "null"),
    ("f7", "undefined"),
    ("f0", "simple(16)"),
    ("f8ff", "simple(255)"),
    ("c074323031332d30332d32315432303a30343a30305a", "0(\"2013-03-21T20:04:00Z\")"),
    ("c11a514b67b0", "1(1363896240)"),
    ("c1fb41d452d9ec200000", "1(1363896240.5)"),
    ("d74401020304", "23(h'01020304')"),
    ("d818456449455446", "24(h'6449455446')"),
    ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", "32(\"http://www.example.com\")"),
    ("40", "h''"),
    ("4401020304", "h'01020304'"),
    ("60", "\"\""),
    ("6161", "\"a\""),
    ("6449455446", "\"IETF\""),
    ("62225c", "\"\\\"\\\\\""),
    ("62c3bc", "\"\u{fc}\""),
    ("63e6b0b4", "\"\u{6c34}\""),
    ("64f0908591", "\"\u{10151}\""),
    ("80", "[]"),
    ("83010203", "[1, 2, 3]"),
    ("8301820203820405", "[1, [2, 3], [4, 5]]"),
    ("a0", "{}"),
    ("a201020304", "{1: 2, 3: 4}"),
    ("a26161016162820203", "{\"a\": 1, \"b\": [2, 3]}"),
    ("826161a161626163", "[\"a\", {\"b\": \"c\"}]"),
    ("5f42010243030405ff", "(_ h'0102', h'030405')"),
    ("7f657374726561646d696e67ff", "(_ \"strea\", \"ming\")"),
    ("9fff", "[_ ]"),
    ("9f018202039f0405ffff", "[_ 1, [2, 3], [_ 4, 5]]"),
    ("83018202039f0405ff", "[1, [2, 3], [_ 4, 5]]"),
    ("83019f0203ff820405", "[1, [_ 2, 3], [4, 5]]"),
    ("bf61610161629f0203ffff", "{_ \"a\": 1, \"b\": [_ 2, 3]}"),
    ("826161bf61626163ff", "[\"a\", {_ \"b\": \"c\"}]"),
    ("bf6346756ef563416d7421ff", "{_ \"Fun\": true, \"Amt\": -2}"),
    // Forms that are longer than they had to be.
    ("1800", "0_0"),
    ("1b0000000000000001", "1_3"),
    ("390000", "-1_1"),
    ("fa7f800000", "Infinity_2"),
    ("fb7ff8000000000000", "NaN_3"),
    ("fb3ff8000000000000", "1.5_3"),
    ("5800", "h''_0"),
    ("79000161", "\"a\"_1"),
    ("980101", "[_0 1]"),
    ("ba0000000161610a", "{_2 \"a\": 10}"),
    ("d80101", "1_0(1)"),
    ("5fff", "''_"),
    ("7fff", "\"\"_"),
];

fn bytes(hex: &str) -> Vec<u8> {
    text::from_hex(hex).unwrap()
}

#[test]
fn the_examples_of_the_standard() {
    for (hex, text) in EXAMPLES {
        assert_eq!(diagnostic(&bytes(hex)), *text);
        assert_eq!(parse(text).unwrap(), bytes(hex), "{text}");
    }
}

#[test]
fn what_people_write_is_understood() {
    for (text, hex) in [
        (" { \"a\" : 1 } ", "a1616101"),
        ("[1, / one / 2] # two\n", "820102"),
        ("0x1f", "181f"),
        ("-0x10", "2f"),
        ("0b101", "05"),
        ("0o17", "0f"),
        ("-0", "00"),
        ("1e2", "f95640"),
        ("1E+2", "f95640"),
        ("3.4028234663852886e+38", "fa7f7fffff"),
        ("18446744073709551616", "c249010000000000000000"),
        ("-18446744073709551617", "c349010000000000000000"),
        ("-18446744073709551616", "3bffffffffffffffff"),
        ("h'01 02\n03'", "43010203"),
        ("'ab'", "426162"),
        ("'it\\'s'", "4469742773"),
        ("b64'AQID'", "43010203"),
        ("b64'-_8='", "42fbff"),
        ("<<1, [2]>>", "43018102"),
        ("24(<<\"a\">>)", "d818426161"),
        ("\"\\ud83d\\ude00\"", "64f09f9880"),
        ("\"\\/\\b\\f\\n\\r\\t\"", "662f080c0a0d09"),
        ("simple(20)", "f4"),
        ("[]", "80"),
        ("{}", "a0"),
    ] {
        assert_eq!(parse(text).map(|cbor| diagnostic(&cbor)), Ok(diagnostic(&bytes(hex))), "{text}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    let number = "9".repeat(1001);
    for (text, message) in [
        ("", "expected a value, found the end at column 1"),
        ("[1, 2", "expected `,` or `]`, found the end at column 6"),
        ("[1 2]", "expected `,` or `]`, found `2` at column 4"),
        ("[1,]", "expected a value, found `]` at column 4"),
        ("{\"a\" 1}", "expected `:`, found `1` at column 6"),
        ("{\"a\": 1}}", "expected the end, found `}` at column 9"),
        ("{\n  \"a\": nil\n}", "unknown word `nil` (text needs quotes: \"nil\") at line 2, column 8"),
        ("hello", "unknown word `hello` (text needs quotes: \"hello\") at column 1"),
        ("\"abc", "string without an end at column 1"),
        ("\"a\nb\"", "control character in a string: write \\u000a at column 3"),
        ("\"\\x\"", "unknown escape at column 2"),
        ("\"\\ud800\"", "half a surrogate pair at column 2"),
        ("\"\\u12\"", "\\u needs four hex digits at column 2"),
        ("h'abc'", "not the digits that belong here at column 1"),
        ("b64'A'", "not the digits that belong here at column 1"),
        ("01", "no number at column 1"),
        ("-", "no number at column 1"),
        ("1.", "no number at column 1"),
        ("1e", "no number at column 1"),
        ("0x", "no number at column 1"),
        ("1e999", "number beyond the range of floats at column 1"),
        ("1.1_1", "the encoding indicator does not fit: _3 would at column 1"),
        ("256_0", "the encoding indicator does not fit at column 6"),
        ("1_7", "unknown encoding indicator at column 3"),
        ("\"a\"_", "the encoding indicator does not fit at column 5"),
        ("(_ )", "a string of no chunks is written ''_ or \"\"_ at column 1"),
        ("(_ \"a\", h'00')", "a chunk of another kind at column 9"),
        ("(1)", "expected a value, found `(` at column 1"),
        ("simple(24)", "no simple value: 0 to 23 and 32 to 255 are at column 8"),
        ("1(2", "expected `)`, found the end at column 4"),
        ("18446744073709551616(1)", "tag beyond 64 bits at column 1"),
        ("/ never", "comment without an end at column 1"),
        (&number, "number of more than 1000 digits at column 1"),
    ] {
        assert_eq!(parse(text).map_err(|error| error.to_string()), Err(message.into()), "{text}");
    }
}

#[test]
fn depth_is_limited_in_both_directions() {
    for (open, close) in [("[", "]"), ("{1: ", "}"), ("1(", ")"), ("<<", ">>")] {
        let nested = |depth: usize| format!("{}0{}", open.repeat(depth), close.repeat(depth));
        let cbor = parse(&nested(64)).unwrap();
        Item::new(&cbor).unwrap();
        assert!(parse(&nested(65)).unwrap_err().to_string().starts_with("nested deeper than 64"));
        assert!(parse(&open.repeat(100_000)).is_err());
    }
    for head in [0x81, 0x9f, 0xc1] {
        let bomb = [head; 100_000];
        assert!(diagnostic(&bomb).ends_with("..."));
        assert!(!json(&bomb).is_exact);
    }
    let deepest = [&[0x81; 64][..], &[0]].concat();
    assert!(json(&deepest).is_exact);
}

#[test]
fn a_bignum_at_the_greatest_depth_would_be_too_deep() {
    let nested = |depth| format!("{}{}{}", "[".repeat(depth), u128::MAX, "]".repeat(depth));
    Item::new(&parse(&nested(63)).unwrap()).unwrap();
    parse(&nested(64)).unwrap_err();
}

#[test]
fn every_half_survives_the_way_through_a_double() {
    for half in 0..=u16::MAX {
        let value = widen(Width::Two, u64::from(half)).unwrap();
        if value.is_nan() {
            assert_eq!(narrow(Width::Two, value), Some(0x7e00));
        } else {
            assert_eq!(narrow(Width::Two, value), Some(u64::from(half)), "{half:04x}");
            assert_eq!(shortest(value), Width::Two);
        }
    }
}

#[test]
fn what_has_no_notation_is_remarked() {
    for (hex, text) in [
        ("62c328", "\"\u{fffd}(\" / not UTF-8: c328 /"),
        ("8262c32800", "[\"\u{fffd}(\" / not UTF-8: c328 /, 0]"),
        ("f97e01", "NaN / 7e01 /"),
        ("f9fe00", "NaN / fe00 /"),
        ("fa7fc00001", "NaN_2 / 7fc00001 /"),
        ("fb7ff8000000000001", "NaN_3 / 7ff8000000000001 /"),
        ("c249010000000000000000", "2(h'010000000000000000')"),
    ] {
        assert_eq!(diagnostic(&bytes(hex)), text);
        parse(text).unwrap();
    }
}

#[test]
fn what_cannot_be_read_ends_in_dots() {
    for (hex, text) in [
        ("", "..."),
        ("83010", "[1, ..."),
        ("8301", "[1, ..."),
        ("a16161", "{\"a\": ..."),
        ("4401", "..."),
        ("1c", "..."),
        ("0000", "0 ..."),
        ("820102ff", "[1, 2] ..."),
        ("f818", "..."),
        ("ff", "..."),
        ("7f4100ff", "(_ ..."),
        ("7f7f6161ffff", "(_ ..."),
        ("df01", "..."),
        ("1f", "..."),
    ] {
        let even = hex.len() / 2 * 2;
        assert_eq!(diagnostic(&bytes(&hex[..even])), text, "{hex}");
    }
}

#[test]
fn json_says_whether_it_is_exact() {
    for (text, json_text, is_exact) in [
        ("{\"a\": [1, -2, 1.5_3, true, null, \"x\"]}", "{\"a\": [1, -2, 1.5, true, null, \"x\"]}", true),
        ("18446744073709551615", "18446744073709551615", true),
        ("[_ (_ \"a\", \"b\"), {_ \"c\": 1_3}]", "[\"ab\", {\"c\": 1}]", true),
        ("h'fbff00'", "\"-_8A\"", false),
        ("(_ h'01', h'02')", "\"AQI\"", false),
        ("[NaN, Infinity, -Infinity, undefined, simple(99)]", "[null, null, null, null, null]", false),
        ("0(\"2013-03-21\")", "\"2013-03-21\"", false),
        ("{1: 2, [h'']: 3}", "{\"1\": 2, \"[h'']\": 3}", false),
        ("{\"a\": 1, \"a\": 2}", "{\"a\": 1, \"a\": 2}", false),
        ("{\"1\": 1, 1: 2}", "{\"1\": 1, \"1\": 2}", false),
        ("18446744073709551616", "\"AQAAAAAAAAAA\"", false),
    ] {
        let printed = json(&parse(text).unwrap());
        assert_eq!((printed.text.as_str(), printed.is_exact), (json_text, is_exact), "{text}");
        serde_json::from_str::<serde_json::Value>(&printed.text).unwrap();
    }
    assert!(!json(&bytes("62c328")).is_exact);
}

#[test]
fn a_terminal_is_told_nothing() {
    let nasty = "\u{1b}[2J\u{7}\u{9b}31m\u{202e}\u{200b}\u{7f}\r\n\t\u{feff}\u{e0041}\0";
    let shown = diagnostic(&parse(&serde_json::to_string(nasty).unwrap()).unwrap());
    assert_eq!(
        shown,
        "\"\\u001b[2J\\u0007\\u009b31m\\u202e\\u200b\\u007f\\r\\n\\t\\ufeff\\udb40\\udc41\\u0000\""
    );
    assert_eq!(parse(&shown).unwrap()[2..], *nasty.as_bytes());
    assert_eq!(one_line("a\nb\u{1b}c \"d\" \u{e4}\\"), "a\\nb\\u001bc \"d\" \u{e4}\\");
}

#[test]
fn maps_are_taken_apart_in_every_form() {
    let shown = |text: &str| {
        let entries = map_entries(&parse(text).unwrap())?;
        Some(entries.iter().map(|(key, value)| (diagnostic(key), diagnostic(value))).collect::<Vec<_>>())
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    for text in ["{\"a\": [1], 2: {}}", "{_ \"a\": [1], 2: {}}", "{_3 \"a\": [1], 2: {}}"] {
        assert_eq!(shown(text), Some(vec![pair("\"a\"", "[1]"), pair("2", "{}")]));
    }
    assert_eq!(shown("{}"), Some(vec![]));
    assert_eq!(shown("[1, 2]"), None);
    assert_eq!(map_entries(&[0xa1, 0x01]), None);
    assert_eq!(map_entries(&[0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0]), None);
    assert_eq!(map_entries(&[]), None);
}

/// One head whose argument is written in any width that holds it.
fn with_head(major: u8, value: u64, longer: u8, out: &mut Vec<u8>) {
    let widths = [Width::Immediate, Width::One, Width::Two, Width::Four, Width::Eight];
    let possible = widths.into_iter().filter(|width| *width >= Width::of(value)).collect::<Vec<_>>();
    head::write(out, major, possible[usize::from(longer) % possible.len()], value);
}

fn string(major: u8, content: &[u8], longer: u8) -> Vec<u8> {
    let mut out = Vec::new();
    with_head(major, content.len() as u64, longer, &mut out);
    out.extend_from_slice(content);
    out
}

fn any_string() -> impl Strategy<Value = (u8, Vec<u8>)> {
    prop_oneof![
        any::<String>().prop_map(|text| (major::TEXT, text.into_bytes())),
        any::<Vec<u8>>().prop_map(|bytes| (major::BYTES, bytes)),
    ]
}

/// Any item that has a notation of its own, in any form.
fn any_item() -> impl Strategy<Value = Vec<u8>> {
    let integer =
        (0..2u8, prop_oneof![0..300u64, any::<u64>()], any::<u8>()).prop_map(|(major, value, longer)| {
            let mut out = Vec::new();
            with_head(major, value, longer, &mut out);
            out
        });
    let float =
        (any::<f64>(), any::<f32>(), any::<u16>(), 0..6u8).prop_map(|(double, single, half, which)| {
            let mut out = Vec::new();
            let (value, width) = match which {
                0 => (double, Width::Eight),
                1 => (f64::from(single), Width::Eight),
                2 => (f64::from(single), Width::Four),
                3 => (widen(Width::Two, u64::from(half)).unwrap(), Width::Eight),
                4 => (widen(Width::Two, u64::from(half)).unwrap(), Width::Four),
                _ => (widen(Width::Two, u64::from(half)).unwrap(), Width::Two),
            };
            assert!(write_float(&mut out, value, Some(width)));
            out
        });
    let simple = (0..=255u8).prop_filter("reserved", |value| !(24..32).contains(value)).prop_map(|value| {
        let mut out = Vec::new();
        head::write(&mut out, major::SIMPLE, Width::of(u64::from(value)), u64::from(value));
        out
    });
    let definite =
        (any_string(), any::<u8>()).prop_map(|((major, content), longer)| string(major, &content, longer));
    let chunked = (any_string(), 0..4usize, any::<u8>()).prop_map(|((major, content), count, longer)| {
        let mut out = vec![major << 5 | 31];
        (0..count).for_each(|_| out.extend(string(major, &content, longer)));
        out.push(BREAK);
        out
    });
    prop_oneof![integer, float, simple, definite, chunked].prop_recursive(8, 64, 8, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..8);
        let container = (items, any::<bool>(), any::<Option<u8>>()).prop_map(|(items, is_map, longer)| {
            let (major, count) =
                if is_map { (major::MAP, items.len() / 2) } else { (major::ARRAY, items.len()) };
            let mut out = Vec::new();
            match longer {
                Some(longer) => with_head(major, count as u64, longer, &mut out),
                None => out.push(major << 5 | 31),
            }
            items.iter().take(if is_map { count * 2 } else { count }).for_each(|item| out.extend(item));
            out.extend(longer.is_none().then_some(BREAK));
            out
        });
        let tag = (any::<u64>(), any::<u8>(), inner).prop_map(|(number, longer, item)| {
            let mut out = Vec::new();
            with_head(major::TAG, number, longer, &mut out);
            out.extend(item);
            out
        });
        prop_oneof![container, tag]
    })
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_can_be_parsed_byte_for_byte(item in any_item()) {
        Item::new(&item).unwrap();
        let text = diagnostic(&item);
        prop_assert_eq!(parse(&text), Ok(item), "{}", text);
    }

    #[test]
    fn what_is_printed_as_json_is_json(item in any_item()) {
        let printed = json(&item);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&printed.text).is_ok(), "{}", printed.text);
    }

    #[test]
    fn printing_and_the_core_agree_on_what_an_item_is(
        bytes in prop_oneof![
            any::<Vec<u8>>(),
            (any_item(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut item, at, byte)| {
                let at = at.index(item.len());
                item[at] = byte;
                item
            }),
            (any_item(), any::<prop::sample::Index>()).prop_map(|(mut item, at)| {
                item.truncate(at.index(item.len()));
                item
            }),
        ],
    ) {
        let text = diagnostic(&bytes);
        prop_assert_eq!(text.ends_with("..."), Item::new(&bytes).is_err(), "{}", text);
        prop_assert!(!text.contains(char::is_control));
        let as_json = json(&bytes).text;
        prop_assert_eq!(as_json.ends_with("..."), Item::new(&bytes).is_err(), "{}", as_json);
    }

    #[test]
    fn all_json_is_understood_and_comes_back(value in any_json()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let printed = json(&parse(&text).unwrap());
            prop_assert!(printed.is_exact);
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&printed.text).unwrap(), &value);
        }
    }

    #[test]
    fn what_another_reader_takes_for_json_is_taken(text in "([\\[\\]{}:, \n\"]|[0-9]{1,3}|-|\\.|e|true|null|\"a\"|\\\\n){0,12}") {
        if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
            prop_assert!(parse(&text).is_ok());
        }
    }

    #[test]
    fn no_text_is_too_odd(text in "([\\[\\]{}(),:_<>/#'\"]|h'|b64'|\\\\u|[0-9a-f]|-|simple|NaN|\\PC){0,40}") {
        if let Ok(cbor) = parse(&text) {
            prop_assert!(Item::new(&cbor).is_ok());
        }
    }
}
