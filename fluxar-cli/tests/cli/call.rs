//! `fluxar call`.

use std::net::TcpListener;
use std::sync::Arc;

use fluxar::{Raw, Request};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Conformance, Directory, LONG, NotifyOnDrop, Running, fluxar, fluxar_beside, serve};

#[test]
fn the_payload_may_be_json_or_diagnostic_notation() {
    let peer = Conformance::start();
    for (payload, answer) in [
        ("{\"a\": [1, 2.5, null, true]}", "{\"a\": [1, 2.5, null, true]}"),
        ("-5", "-5"),
        ("1e300", "1e300"),
        ("18446744073709551615", "18446744073709551615"),
        ("\"\\u00e4\\n\"", "\"\u{e4}\\n\""),
        // What JSON cannot say.
        ("h'0102'", "h'0102'"),
        ("[1(2), {3: undefined}, NaN]", "[1(2), {3: undefined}, NaN]"),
        ("{\"a\": 1, \"a\": 2}", "{\"a\": 1, \"a\": 2}"),
        ("18446744073709551616", "2(h'010000000000000000')"),
    ] {
        peer.call(&["test.echo", payload]).is(answer);
    }
    peer.call(&["test.echo"]).is("null");
}

#[test]
fn the_answer_is_printed_in_the_form_asked_for() {
    let peer = Conformance::start();
    let payload = "[_ h'ff', {1: \"a\"}, 1.5_3]";
    let echo = |output| peer.call(&["test.echo", payload, "--output", output]);
    echo("auto").is(payload);
    echo("json").is("[\"_w\", {\"1\": \"a\"}, 1.5]");
    echo("diag").is(payload);
    echo("hex").is("9f41ffa1016161fb3ff8000000000000ff");
    let raw = echo("raw");
    assert_eq!(raw.out, b"\x9f\x41\xff\xa1\x01\x61a\xfb\x3f\xf8\0\0\0\0\0\0\xff");
    peer.call(&["test.echo", "[_ 1]", "-o", "auto"]).is("[1]");
}

#[test]
fn the_payload_may_come_from_elsewhere() {
    let (peer, directory) = (Conformance::start(), Directory::new());
    let json = directory.file("payload.json", b" {\n  \"a\": 1\n}\n");
    let cbor = directory.file("payload.cbor", &[0x82, 0x01, 0x41, 0xff]);
    let digit = directory.file("digit", b"5");
    peer.call(&["test.echo", &json]).is("{\"a\": 1}");
    peer.call(&["test.echo", &cbor]).is("[1, h'ff']");
    peer.call(&["test.echo", &digit]).is("5");
    peer.call(&["test.echo", &digit, "--input", "cbor"]).is("-22");
    let call = ["call", &peer.url, "test.echo", "-"];
    Running::start(call).end_with_input(b"[1, 2]\n").is("[1, 2]");
    Running::start(call).end_with_input(&[0x81, 0xf7]).is("[undefined]");
}

#[test]
fn bad_payloads_are_refused_before_anybody_is_dialled() {
    let directory = Directory::new();
    let call = |arguments: &[&str]| fluxar(["call", "tcp://127.0.0.1:1", "m"].iter().chain(arguments));
    call(&["hello"])
        .failed(2, "bad payload: unknown word `hello` (text needs quotes: \"hello\") at column 1");
    call(&["[1, 2"]).failed(2, "bad payload: expected `,` or `]`, found the end at column 6");
    call(&["1", "--input", "cbor"]).failed(2, "bad payload: --input cbor needs @FILE or -");
    let missing = directory.path().join("missing");
    let line = format!("cannot read {}: ", missing.display());
    call(&[&format!("@{}", missing.display())]).failed_somehow(2, &line);
    let cut = directory.file("cut", &[0x82, 0x01]);
    call(&[&cut]).failed(2, "bad payload: no CBOR item: item cut short at offset 0");
    let deep = directory.file("deep", &[0x81; 1000]);
    call(&[&deep]).failed(2, "bad payload: no CBOR item: nested deeper than 64 at offset 64");
    let text = directory.file("text", &[0xff]);
    call(&[&text, "--input", "text"])
        .failed(2, "bad payload: invalid utf-8 sequence of 1 bytes from index 0");
}

#[test]
fn other_bad_arguments_are_refused_too() {
    let call = |arguments: &[&str]| fluxar(["call", "tcp://127.0.0.1:1"].iter().chain(arguments));
    call(&["m", "--meta", "a"]).failed(2, "bad metadata `a`: expected KEY=TEXT or KEY:=VALUE");
    call(&["m", "-m", "a=1", "-m", "a=2"]).failed(2, "bad metadata `a=2`: the key is there twice");
    call(&["m", "-m", "timeout_ms:=1"])
        .failed(2, "bad metadata `timeout_ms:=1`: that is what --timeout sets");
    call(&["m", "-m", "a:=b"])
        .failed(2, "bad metadata `a:=b`: unknown word `b` (text needs quotes: \"b\") at column 1");
    call(&[&"m".repeat(256)]).failed(2, "the method's name is longer than 255 bytes");
    call(&["m", "-t", "0"]).failed(2, "a timeout of 0 would leave no time at all");
}

#[test]
fn metadata_and_timeout_reach_the_callee() {
    let peer = Conformance::start();
    let said = peer.call(&[
        "test.meta",
        "--meta",
        "a=1",
        "--meta",
        "b:=[1, h'00']",
        "--timeout",
        "1h",
        "-o",
        "diag",
    ]);
    let text = said.text();
    let rest = text.strip_prefix("{\"a\": \"1\", \"b\": [1, h'00'], \"timeout_ms\": ").unwrap();
    let millis = rest.strip_suffix("}\n").unwrap().parse::<u32>().unwrap();
    assert!((3_000_000..=3_600_000).contains(&millis), "{millis}");
}

#[test]
fn updates_go_to_standard_error() {
    let said = Conformance::start().call(&["test.update", "{\"n\": 3}"]);
    assert_eq!(
        (said.exit, said.text(), said.err.as_str()),
        (Some(0), "3\n", "update: 0\nupdate: 1\nupdate: 2\n")
    );
}

#[test]
fn errors_of_the_peer_take_one_line() {
    let peer = Conformance::start();
    for (payload, line) in [
        ("{\"code\": 5, \"message\": \"no such user\"}", "not_found (5): no such user"),
        ("{\"code\": 1234}", "application (1234)"),
        ("{\"code\": 50}", "unassigned (50)"),
        (
            "{\"code\": 3, \"message\": \"a\\nb\\u001b[0m\", \"data\": {\"at\": h'ff'}}",
            "invalid_argument (3): a\\nb\\u001b[0m data: {\"at\": h'ff'}",
        ),
    ] {
        peer.call(&["test.fail", payload]).failed(1, line);
    }
    peer.call(&["nope"]).failed(1, "unimplemented (12): no method `nope` [not processed: safe to retry]");
    peer.call(&["test.never", "--timeout", "50ms"]).failed(1, "deadline_exceeded (4): the deadline passed");
    // That the nested call was not processed says nothing of the one that made it.
    let callback = "unimplemented (12): no method `x`";
    peer.call(&["test.callback", "{\"method\": \"x\"}"]).failed(1, callback);
}

#[test]
fn an_answer_that_came_counts_although_the_link_broke_then() {
    Conformance::start().call(&["test.drop_link"]).is("null");
}

#[test]
fn where_nobody_listens_it_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("tcp://{free}");
    for arguments in [&["call", &url, "m"][..], &["ping", &url]] {
        fluxar(arguments).failed_somehow(3, &format!("cannot connect: {url}: "));
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_is_not_the_callees_error() {
    let url = serve(|server| {
        server.handle("cut", |request: Request| async move {
            request.peer().hang_up();
            std::future::pending::<Result<(), _>>().await
        });
        server.handle("close", |request: Request| async move {
            request.peer().close_with(fluxar::Error::unavailable("going home"));
            std::future::pending::<Result<(), _>>().await
        });
        // The same code, but the callee's own word.
        server.handle("unavailable", |_| async {
            Err::<(), _>(fluxar::Error::unavailable("not now").with_retry_after_ms(10).into())
        });
    })
    .await;
    fluxar_beside(["call", &url, "cut", "--no-reconnect"])
        .await
        .failed(3, "unavailable (14): connection lost");
    let line = "unavailable (14): connection closed by the peer: unavailable: going home";
    fluxar_beside(["call", &url, "close", "--no-reconnect"]).await.failed(3, line);
    fluxar_beside(["call", &url, "unavailable"])
        .await
        .failed(1, "unavailable (14): not now [retry after 10 ms]");
}

#[tokio::test]
async fn the_peer_is_left_in_order() {
    let (left, mut leavings) = tokio::sync::mpsc::unbounded_channel();
    let server = fluxar::Server::bind("tcp://127.0.0.1:0").on_connect(move |peer| {
        let left = left.clone();
        async move { left.send(peer.closed().await).unwrap() }
    });
    let server = server.build().await.unwrap();
    let url = server.url();
    tokio::spawn(server.run());
    for arguments in [&["call", &url, "nope"][..], &["ping", &url, "-n", "1"]] {
        fluxar_beside(arguments).await;
        let why = timeout(LONG, leavings.recv()).await.unwrap().unwrap();
        assert_eq!(why, fluxar::ConnectionError::ClosedByPeer(None), "{arguments:?}");
    }
}

#[tokio::test]
async fn an_interrupt_cancels_the_call() {
    let (calls, mut called) = tokio::sync::mpsc::unbounded_channel();
    let dropped = Arc::new(Notify::new());
    let url = serve(|server| {
        let dropped = dropped.clone();
        server.handle("wait", move |request: Request| {
            let (calls, guard) = (calls.clone(), NotifyOnDrop(dropped.clone()));
            async move {
                let _guard = guard;
                calls.send(request.peer()).unwrap();
                std::future::pending::<Result<Raw, _>>().await
            }
        });
    })
    .await;
    let call = Running::start(["call", &url, "wait"]);
    let caller = timeout(LONG, called.recv()).await.unwrap().unwrap();
    call.signal("INT");
    let said = tokio::task::spawn_blocking(|| call.end()).await.unwrap();
    assert_eq!((said.exit, said.text(), said.err.as_str()), (Some(130), "", ""));
    timeout(LONG, dropped.notified()).await.expect("the handler is stopped");
    assert_eq!(caller.closed().await, fluxar::ConnectionError::ClosedByPeer(None));
}

#[test]
fn a_reader_that_has_left_is_no_error() {
    let peer = Conformance::start();
    let mut call = Running::start(["call", &peer.url, "test.sleep", "{\"ms\": 100}"]);
    call.close_output();
    let said = call.end();
    assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
}

#[test]
fn messages_that_the_peer_would_not_take_are_not_sent() {
    let (peer, directory) = (Conformance::with(&["--max-message", "1024"]), Directory::new());
    let large = directory.file("large", &[&[0x59, 0x08, 0x00][..], &[0; 2048]].concat());
    let said = peer.call(&["test.echo", &large]);
    assert_eq!(said.exit, Some(1));
    assert!(said.err.starts_with("error: message_too_large (103): "), "{}", said.err);
}
