//! What is printed, message by message; and every worked example of the specification.

use std::collections::BTreeMap;
use std::path::Path;

use fluxar_proto::Id;
use fluxar_proto::message::{Code, Envelope, ErrorRef, Kind};
use proptest::prelude::*;

use super::{SHOWN, frame, input, print};

/// What is printed, and how many places are malformed.
fn decode(input: &[u8], bare: bool) -> (String, usize) {
    let mut out = Vec::new();
    let malformed = print(input, bare, false, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), malformed)
}

fn body(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut body = vec![0; 256];
    let mut rest = &mut body[..];
    envelope.encode(&mut rest).unwrap();
    let left = rest.len();
    body.truncate(256 - left);
    body
}

fn framed(bodies: &[Vec<u8>]) -> Vec<u8> {
    bodies.iter().flat_map(|body| [&frame::prefix(body.len() as u32)[..], body].concat()).collect()
}

fn id(n: u8) -> Id {
    Id::from_bytes([n; 16])
}

/// An opening, or with a reference a continuation.
fn message(kind: Kind, n: u8, reference: Option<u8>, target: Option<&'static str>) -> Envelope<'static> {
    Envelope { reference: reference.map(id), target, ..Envelope::new(kind, id(n)) }
}

/// The titles of these messages, without number, offset and size.
fn meanings(messages: &[Envelope<'_>]) -> Vec<String> {
    let (text, _) = decode(&framed(&messages.iter().map(body).collect::<Vec<_>>()), false);
    let titles = text.lines().filter(|line| line.starts_with('#'));
    titles.map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
}

#[test]
fn one_rule_says_what_a_message_means() {
    use Kind::{Call, Control, Hello, Message, Stream, Subscribe, Unsubscribe};
    let expected = [
        (message(Hello, 1, None, None), "offer"),
        (message(Hello, 2, Some(1), None), "answer to the offer (#1)"),
        (message(Hello, 3, Some(2), Some("proof")), "proof for the answer (#2)"),
        (message(Call, 4, None, Some("users.get")), "request of users.get"),
        (message(Call, 5, Some(4), Some("update")), "update of users.get (#4)"),
        (message(Call, 6, Some(4), Some("cancel")), "cancel of users.get (#4)"),
        (message(Call, 7, Some(4), None), "response to users.get (#4)"),
        (message(Call, 8, Some(4), Some("dance")), "unknown verb `dance` on users.get (#4)"),
        (message(Call, 9, Some(99), None), "response to an earlier message"),
        (message(Stream, 10, None, Some("llm")), "opening of stream llm"),
        (message(Stream, 11, Some(10), None), "data of llm (#10)"),
        (message(Stream, 12, Some(10), Some("items")), "items of llm (#10)"),
        (message(Stream, 13, Some(10), Some("pause")), "pause of llm (#10)"),
        (message(Stream, 14, Some(10), Some("resume")), "resume of llm (#10)"),
        (message(Stream, 15, Some(10), Some("credit")), "credit for llm (#10)"),
        (message(Stream, 16, Some(10), Some("end")), "end of llm (#10)"),
        (
            message(Stream, 17, Some(4), Some("cancel")),
            "cancel of users.get (#4), which is a request of users.get: not allowed",
        ),
        (message(Subscribe, 18, None, Some("a.*")), "subscription to a.*"),
        (message(Subscribe, 19, Some(18), None), "confirmation of the subscription to a.* (#18)"),
        (message(Message, 20, Some(18), None), "delivery to the subscription to a.* (#18)"),
        (message(Message, 21, Some(20), Some("ack")), "ack of the delivery (#20)"),
        (message(Unsubscribe, 22, Some(18), None), "end of the subscription to a.* (#18)"),
        (message(Message, 23, None, Some("a.b")), "publication on a.b"),
        (message(Message, 24, Some(23), Some("nack")), "nack of a.b (#23)"),
        (message(Message, 25, Some(23), Some("release")), "release of a.b (#23)"),
        (message(Message, 26, Some(23), Some("complete")), "complete of a.b (#23)"),
        (message(Control, 27, None, Some("ping")), "ping"),
        (message(Control, 28, Some(27), None), "reply to the ping (#27)"),
        (message(Control, 29, None, Some("dance")), "unknown operation dance"),
        (message(Control, 30, None, Some("close")), "close"),
    ];
    let messages = expected.iter().map(|(message, _)| *message).collect::<Vec<_>>();
    let texts = expected.iter().map(|(_, text)| *text).collect::<Vec<_>>();
    assert_eq!(meanings(&messages), texts);
}

#[test]
fn what_cannot_be_meant_is_malformed() {
    use Kind::{Call, Control, Hello, Message, Stream, Unsubscribe};
    let error = Some(ErrorRef::new(Code::NOT_FOUND));
    for (message, why) in [
        (message(Hello, 1, None, Some("x")), "malformed: an offer has no target (offer)"),
        (
            message(Call, 1, None, None),
            "malformed: an opening of this type needs a target (request of nothing)",
        ),
        (
            message(Unsubscribe, 1, None, Some("a")),
            "malformed: unsubscribe needs a ref (end of no subscription)",
        ),
        (
            Envelope { error, ..message(Call, 1, None, Some("a")) },
            "malformed: this message cannot carry an error (request of a, an error)",
        ),
        (
            Envelope { error, ..message(Stream, 1, Some(2), None) },
            "malformed: this message cannot carry an error (data of an earlier message, an error)",
        ),
        (Envelope { error, ..message(Call, 1, Some(2), None) }, "response to an earlier message, an error"),
        (
            Envelope { error, ..message(Stream, 1, Some(2), Some("end")) },
            "end of an earlier message, an error",
        ),
        (
            Envelope { error, ..message(Message, 1, Some(2), Some("nack")) },
            "nack of an earlier message, an error",
        ),
        (Envelope { error, ..message(Control, 1, None, Some("close")) }, "close, an error"),
        (
            Envelope { error, ..message(Call, 1, Some(2), Some("dance")) },
            "unknown verb `dance` on an earlier message, an error",
        ),
    ] {
        assert_eq!(meanings(&[message]), [why]);
        let (_, malformed) = decode(&body(&message), true);
        assert_eq!(malformed, usize::from(why.starts_with("malformed")), "{why}");
    }
}

#[test]
fn a_misused_message_opens_nothing() {
    let nothing = message(Kind::Call, 1, None, None);
    let response = message(Kind::Call, 2, Some(1), None);
    assert_eq!(meanings(&[nothing, response])[1], "response to an earlier message");
}

#[test]
fn all_frames_are_printed_and_each_fault_with_its_place() {
    let ping = body(&message(Kind::Control, 1, None, Some("ping")));
    let mut unknown_type = ping.clone();
    unknown_type[1] = 9;
    let mut input = framed(&[ping.clone(), unknown_type, ping.clone()]);
    input.extend_from_slice(&framed(&[ping])[..10]);
    let (text, malformed) = decode(&input, false);
    assert_eq!(malformed, 2);
    let id = "01010101-0101-0101-0101-010101010101";
    let bytes = "01".repeat(16);
    let expected = format!(
        "#1 at offset 0, 32 bytes: ping
    type     control (7)
    id       {id}
    target   \"ping\"
    payload  null
#2 at offset 32, 32 bytes: malformed: unknown message type at offset 37
    read     [9, h'{bytes}', null, \"ping\", null, null, null]
    bytes    ... f6 f6 f6 00 00 00 1c 87 >09< 50 01 01 01 01 01 01 01 ...
#3 at offset 64, 32 bytes: ping
    type     control (7)
    id       {id}
    target   \"ping\"
    payload  null
#4 at offset 96, 10 bytes: truncated: 6 of 28 bytes are there
    read     [7, ...
    bytes    ... 00 1c 87 07 50 01 01 01 ><
"
    );
    assert_eq!(text, expected);
}

#[test]
fn what_is_no_frame_is_guessed_at() {
    for (input, title) in [
        (&b"GET / HTTP/1.1"[..], "malformed: frame of 1195725856 bytes, the limit is 33554431 (HTTP?)"),
        (
            &[0x16, 3, 1, 2, 0, 1],
            "malformed: frame of 369295618 bytes, the limit is 33554431 (the beginning of TLS?)",
        ),
        (
            &[0x87, 7, 0x50, 1, 2],
            "malformed: frame of 2265403393 bytes, the limit is 33554431 (a message without its length? try --bare)",
        ),
        (&[0, 0, 0, 0, 1], "malformed: frame of no bytes"),
        (&[0, 0], "truncated: 2 of the 4 bytes of its length are there"),
        (&[0, 0, 0, 5], "truncated: 0 of 5 bytes are there"),
        (
            &[0, 0, 0, 1, 0x28],
            "malformed: first byte is not 0x87 at offset 4 (Zstandard? compressed messages are not decoded)",
        ),
        (
            &[0, 0, 0, 1, 0x1f],
            "malformed: first byte is not 0x87 at offset 4 (gzip? compressed messages are not decoded)",
        ),
        (
            &[0, 0, 0, 1, 0xaa],
            "malformed: first byte is not 0x87 at offset 4 (encrypted? sealed messages cannot be decoded)",
        ),
        (&[0, 0, 0, 1, 0x87], "malformed: item cut short at offset 5"),
    ] {
        let (text, malformed) = decode(input, false);
        let expected = format!("#1 at offset 0, {} bytes: {title}", input.len());
        assert_eq!((text.lines().next().unwrap(), malformed), (expected.as_str(), 1));
    }
    assert_eq!(decode(&[], true).1, 1);
}

#[test]
fn long_values_are_cut_unless_asked_for() {
    let payload = [&[0x59, 0x10, 0x00][..], &[0xab; 0x1000]].concat();
    let mut long = body(&message(Kind::Call, 1, None, Some("m")));
    long.truncate(long.len() - 2);
    long.extend_from_slice(&payload);
    long.push(0xf6);
    let (text, malformed) = decode(&long, true);
    assert_eq!(malformed, 0);
    let line = text.lines().last().unwrap();
    assert!(line.ends_with("abab ... (4099 bytes; --full prints all)"), "{line}");
    assert!(line.len() < SHOWN + 100);
    let mut out = Vec::new();
    print(&long, true, true, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().ends_with(&format!("h'{}'\n", "ab".repeat(0x1000))));
}

#[test]
fn a_terminal_is_told_nothing() {
    let nasty = "\u{1b}[2J\n\u{202e}";
    let error = ErrorRef { message: Some(nasty), ..ErrorRef::new(Code::UNKNOWN) };
    let messages = [
        message(Kind::Call, 1, None, Some(nasty)),
        Envelope { error: Some(error), ..message(Kind::Call, 2, Some(1), None) },
    ];
    let (text, _) = decode(&framed(&messages.each_ref().map(body)), false);
    assert!(!text.replace('\n', "").contains(char::is_control));
    assert!(!text.contains('\u{202e}'));
    assert!(text.contains("response to \\u001b[2J\\n\\u202e (#1), an error"), "{text}");
}

/// The examples of §19: which word stands for what, the text says there.
#[test]
fn every_worked_example_of_the_specification() {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SPEC.md");
    let spec = std::fs::read_to_string(spec).unwrap();
    let mut seen = BTreeMap::<&str, usize>::new();
    for block in spec.split("\n```hex").skip(1) {
        let (head, rest) = block.split_once('\n').unwrap();
        let content = rest.split("\n```").next().unwrap();
        let mut words = head.split(' ');
        let kind = format!("hex{}", words.next().unwrap());
        let (name, refused) = (words.next().unwrap(), words.next().unwrap_or_default());
        let (bytes, bare) =
            (input::from_hex(content).unwrap(), kind != "hexframe" && !refused.starts_with("frame-"));
        let is_malformed = match kind.as_str() {
            "hex" | "hexok" | "hexframe" => false,
            "hexsealed" | "hexpacked" => true,
            // Only who knows more than the message can tell the others.
            "hexbad" => refused.starts_with("frame-") || matches!(refused, "malformed" | "malformed-use"),
            _ => panic!("{kind}"),
        };
        let (text, malformed) = decode(&bytes, bare);
        assert_eq!(malformed, usize::from(is_malformed), "{name}: {text}");
        *seen.entry(if is_malformed { "bad" } else { "good" }).or_default() += 1;
    }
    assert!(seen["good"] > 80 && seen["bad"] > 40, "{seen:?}");
}

proptest! {
    #[test]
    fn any_bytes_are_printed(bytes: Vec<u8>, bare: bool) {
        let (text, malformed) = decode(&bytes, bare);
        prop_assert!(malformed <= bytes.len().max(1));
        prop_assert!(!text.replace('\n', "").contains(char::is_control));
    }

    #[test]
    fn damaged_messages_are_printed(at: prop::sample::Index, byte: u8, len: prop::sample::Index) {
        let mut damaged = framed(&[
            body(&message(Kind::Call, 1, None, Some("users.get"))),
            body(&Envelope { error: Some(ErrorRef::new(Code::NOT_FOUND)), ..message(Kind::Call, 2, Some(1), None) }),
        ]);
        let at = at.index(damaged.len());
        damaged[at] = byte;
        damaged.truncate(len.index(damaged.len()) + 1);
        let (text, _) = decode(&damaged, false);
        prop_assert!(text.starts_with("#1 at offset 0, "));
    }
}
