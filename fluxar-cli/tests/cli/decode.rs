//! `fluxar decode`.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Conformance, Directory, Running, fluxar};

const PING: &str = "0000001c 8707500192f2a04c017a109b3c5d7e2f112007f66470696e67f6f6f6";

const PING_SHOWN: &str = "#1 at offset 0, 32 bytes: ping
    type     control (7)
    id       0192f2a0-4c01-7a10-9b3c-5d7e2f112007
    target   \"ping\"
    payload  null";

fn bytes(hex: &str) -> Vec<u8> {
    let digits =
        hex.bytes().filter(u8::is_ascii_hexdigit).map(|digit| char::from(digit).to_digit(16).unwrap() as u8);
    digits.collect::<Vec<_>>().chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn hex_is_taken_quoted_and_unquoted() {
    fluxar(["decode", PING]).is(PING_SHOWN);
    fluxar(["decode"].into_iter().chain(PING.split(' '))).is(PING_SHOWN);
}

#[test]
fn files_and_standard_input_hold_hex_or_bytes() {
    let directory = Directory::new();
    fluxar(["decode", &directory.file("hex", PING.as_bytes())]).is(PING_SHOWN);
    fluxar(["decode", &directory.file("binary", &bytes(PING))]).is(PING_SHOWN);
    Running::start(["decode"]).end_with_input(&bytes(PING)).is(PING_SHOWN);
    Running::start(["decode", "-"])
        .end_with_input(format!("# a ping\n{PING} # that was it\n").as_bytes())
        .is(PING_SHOWN);
}

#[test]
fn bare_messages_have_no_length() {
    let (_, bare) = PING.split_once(' ').unwrap();
    fluxar(["decode", "--bare", bare]).is(&PING_SHOWN.replace("32 bytes", "28 bytes"));
    let said = fluxar(["decode", bare]);
    assert_eq!(said.exit, Some(4));
    assert!(said.text().contains("(a message without its length? try --bare)"), "{}", said.text());
}

#[test]
fn malformed_input_has_its_own_exit_code_and_what_is_good_is_shown() {
    let said = fluxar(["decode", PING, "00000002", "8709", "00000003", "87"]);
    assert_eq!((said.exit, said.err.as_str()), (Some(4), "error: the input is malformed in 2 places\n"));
    let expected = format!(
        "{PING_SHOWN}
#2 at offset 32, 6 bytes: malformed: unknown message type at offset 37
    read     [9, ...
    bytes    ... f6 f6 f6 00 00 00 02 87 >09< 00 00 00 03 87
#3 at offset 38, 5 bytes: truncated: 1 of 3 bytes are there
    read     [...
    bytes    ... 02 87 09 00 00 00 03 87 ><
"
    );
    assert_eq!(said.text(), expected);
}

#[test]
fn what_cannot_be_read_is_a_usage_error() {
    fluxar(["decode", "xyz"]).failed(2, "bad input: `x` is no hex digit");
    fluxar(["decode", "012"]).failed(2, "bad input: an odd number of hex digits");
    fluxar(["decode"]).failed(2, "bad input: there is nothing to decode");
    fluxar(["decode", "@/does/not/exist"]).failed_somehow(2, "cannot read /does/not/exist: ");
}

#[test]
fn a_reader_that_has_left_is_no_error() {
    let mut decode = Running::start(["decode", "--full"]);
    decode.close_output();
    let said = decode.end_with_input(&bytes(PING).repeat(5000));
    assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
}

/// A whole conversation as it went over TCP, both directions one after the other.
#[test]
fn a_real_conversation_can_be_read() {
    let peer = Conformance::start();
    let asked = bytes(
        "00000023 8701500192f2a04c017a109b3c5d7e2f112000f6f6f6a16876657273696f6e738101f6
         00000022 8702500192f2a04c017a109b3c5d7e2f112001f669746573742e6563686ff6182af6
         00000020 8702500192f2a04c017a109b3c5d7e2f112002f6646e6f7065a1616101 6162f6
         0000001d 8707500192f2a04c017a109b3c5d7e2f112008f665636c6f7365f6f6f6",
    );
    let mut stream = TcpStream::connect(peer.url.strip_prefix("tcp://").unwrap()).unwrap();
    let (before, close) = asked.split_at(asked.len() - 33);
    stream.write_all(before).unwrap();
    // The answers to the offer and to both calls; each tells its length.
    let mut heard = Vec::new();
    for _ in 0..3 {
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).unwrap();
        let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
        stream.read_exact(&mut body).unwrap();
        heard.extend_from_slice(&prefix);
        heard.extend_from_slice(&body);
    }
    stream.write_all(close).unwrap();
    stream.read_to_end(&mut heard).unwrap();

    let said = Running::start(["decode"]).end_with_input(&[asked, heard].concat());
    assert_eq!((said.exit, said.err.as_str()), (Some(0), ""), "{}", said.text());
    let titles = said.text().lines().filter(|line| line.starts_with('#'));
    let mut meanings = titles.map(|line| line.split_once(": ").unwrap().1).collect::<Vec<_>>();
    // Answers come in any order.
    meanings[5..].sort_unstable();
    let expected = [
        "offer",
        "request of test.echo",
        "request of nope",
        "close",
        "answer to the offer (#1)",
        "response to nope (#3), an error",
        "response to test.echo (#2)",
    ];
    assert_eq!(meanings, expected);
    assert!(
        said.text().contains("error    unimplemented (12): no method `nope` [not processed: safe to retry]")
    );
    assert!(said.text().contains("    meta     {\"a\": 1}\n    payload  \"b\"\n"), "{}", said.text());
}
