//! Hellos and control messages are explained, and keep their secrets to themselves.

use std::path::Path;

use super::input::from_hex;
use super::print;

fn decode(input: &[u8], bare: bool) -> String {
    let mut out = Vec::new();
    print(input, bare, true, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A worked example of §19.
fn example(name: &str) -> Vec<u8> {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SPEC.md");
    let spec = std::fs::read_to_string(spec).unwrap();
    let (_, rest) = spec.split_once(&format!("\n```hex {name}\n")).expect(name);
    from_hex(rest.split("\n```").next().unwrap()).unwrap()
}

// spec: §6.3, §6.4, §6.10, §6.11, §6.12, §9.3, §9.5, §9.6
#[test]
fn what_hellos_and_control_messages_say() {
    for (name, meaning) in [
        ("offer-psk", "offer, pre-shared key \"site-7\""),
        ("answer-psk", "answer to an earlier message, takes up the pre-shared key, asks for a proof"),
        ("proof-psk", "proof for an earlier message, proves the pre-shared key"),
        ("answer-psk-last", "answer to an earlier message, proves the pre-shared key"),
        ("proof-credentials", "proof for an earlier message, credentials: credentials \"ada\""),
        ("offer-resume", "offer, asks for a session to go on: 17 handled"),
        (
            "answer-resumed",
            "answer to an earlier message, the session goes on: 41 handled, outlives its link for 30000 ms",
        ),
        ("handled", "handled, 256 so far"),
        ("handled-lane", "handled, 31 so far on lane 8"),
    ] {
        let text = decode(&example(name), true);
        let title = text.lines().next().unwrap();
        assert_eq!(title.split_once(": ").unwrap().1, meaning, "{name}");
    }
}

#[test]
fn of_secrets_no_more_than_the_length_is_said() {
    for (name, shown) in [
        ("proof-psk", "{\"psk\": {\"proof\": <32 bytes>}}"),
        ("answer-psk-last", "{\"psk\": {\"proof\": <32 bytes>}}"),
        ("offer-resume", "\"handled\": 17, \"proof\": <32 bytes>}"),
        ("answer-resumed", "\"resume_ms\": 30000, \"secret\": <32 bytes>}"),
        ("proof-credentials", "\"username\": \"ada\", \"password\": <"),
    ] {
        let text = decode(&example(name), true);
        assert!(text.contains(shown), "{name}: {text}");
    }
}

const TOKEN: &str = "t0p-s3cr3t";

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(0x60 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// Messages that hold the token: in an offer as an item of an `auth` of this shape, and in a renewal.
fn messages() -> Vec<Vec<u8>> {
    let shapes: [&[&str]; 5] = [
        &["scheme", "bearer", "token", TOKEN],
        &["scheme", "api-key", "key", TOKEN],
        &["scheme", "custom", "name", "n", "data", TOKEN],
        &["scheme", "later", "unheard-of", TOKEN],
        &["unheard-of", TOKEN],
    ];
    let mut messages = Vec::new();
    for shape in shapes {
        let mut auth = vec![0xa0 | (shape.len() / 2) as u8];
        shape.iter().for_each(|word| text(&mut auth, word));
        let envelope = |kind: u8, target: &[u8], payload: &[u8]| {
            let id = [&[0x50][..], &[7; 16]].concat();
            [&[0x87, kind][..], &id, &[0xf6], target, &[0xf6], payload, &[0xf6]].concat()
        };
        let offer = [b"\xa2\x64auth", &auth[..], b"\x68versions\x81\x01"].concat();
        messages.push(envelope(1, &[0xf6], &offer));
        messages.push(envelope(7, b"\x64auth", &auth));
    }
    let bare = [b"\xa2\x64auth\x6a", TOKEN.as_bytes(), b"\x68versions\x81\x01"].concat();
    let id = [&[0x50][..], &[7; 16]].concat();
    messages.push([&[0x87, 1][..], &id, &[0xf6, 0xf6, 0xf6], &bare, &[0xf6]].concat());
    messages
}

/// Whether any piece of the token is to be seen, as text or in hex.
fn tells(printed: &str) -> bool {
    TOKEN.as_bytes().windows(4).any(|piece| {
        let hex = piece.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
        [std::str::from_utf8(piece).unwrap(), &hex.concat(), &hex.join(" ")]
            .iter()
            .any(|piece| printed.contains(piece))
    })
}

#[test]
fn no_token_is_told_by_what_is_whole_cut_off_or_damaged() {
    for message in messages() {
        let whole = decode(&message, true);
        assert!(!tells(&whole) && whole.contains("<10 bytes>"), "{whole}");
        for len in 1..message.len() {
            let part = decode(&message[..len], true);
            assert!(!tells(&part), "{len}: {part}");
            let framed = [&(message.len() as u32).to_be_bytes()[..], &message[..len]].concat();
            let part = decode(&framed, false);
            assert!(!tells(&part), "{len}: {part}");
        }
        for (at, byte) in [(0, 0x88), (1, 9), (message.len() - 1, 0xff), (18, 0x77)] {
            let mut damaged = message.clone();
            damaged[at] = byte;
            let printed = decode(&damaged, true);
            assert!(!tells(&printed), "{at}: {printed}");
        }
    }
}

#[test]
fn what_is_not_a_hello_is_told_whole() {
    let mut call = vec![0x87, 0x02, 0x50];
    call.extend_from_slice(&[7; 16]);
    call.extend_from_slice(b"\xf6\x61m\xf6\xa1\x65token");
    text(&mut call, TOKEN);
    call.push(0xf6);
    assert!(tells(&decode(&call, true)));
    call.pop();
    assert!(tells(&decode(&call, true)), "also where it is cut off");
}
