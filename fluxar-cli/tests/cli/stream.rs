//! `fluxar stream`.

use std::sync::Arc;

use fluxar::{Error, Raw, StreamRequest};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{
    Conformance, Directory, LONG, NotifyOnDrop, Running, Said, fluxar, fluxar_beside, serve,
};

impl Conformance {
    fn stream(&self, arguments: &[&str], input: &[u8]) -> Said {
        self.streaming(arguments).end_with_input(input)
    }

    fn streaming(&self, arguments: &[&str]) -> Running {
        Running::start(["stream", &self.url].iter().chain(arguments))
    }
}

fn said(exit: i32, out: &str, err: &str) -> Said {
    Said { exit: Some(exit), out: out.into(), err: err.into() }
}

#[test]
fn items_come_one_per_line_and_the_final_value_apart() {
    let peer = Conformance::start();
    let count = ["test.count", "{\"n\": 3}"];
    assert_eq!(peer.stream(&count, b""), said(0, "0\n1\n2\n", "final: 3\n"));
    let count = ["test.count", "{\"n\": 2, \"size\": 2}", "--final"];
    assert_eq!(peer.stream(&count, b""), said(0, "h'0000'\nh'0101'\n2\n", ""));
    let hex = ["test.count", "{\"n\": 2}", "-o", "hex"];
    assert_eq!(peer.stream(&hex, b""), said(0, "00\n01\n", "final: 02\n"));
    let raw = ["test.count", "{\"n\": 2, \"size\": 1}", "-o", "raw", "--final"];
    assert_eq!(peer.stream(&raw, b"").out, b"\x41\0\x41\x01\x02");
    // There is none.
    assert_eq!(peer.stream(&["test.echo"], b"1\n"), said(0, "1\n", ""));
    assert_eq!(peer.stream(&["test.echo", "--final"], b""), said(0, "", ""));
}

#[test]
fn lines_are_items() {
    let peer = Conformance::start();
    let lines = b"1\n{\"a\": [2, null]}\r\n\n  \nh'ff'\n\"no newline\"";
    let items = "1\n{\"a\": [2, null]}\nh'ff'\n\"no newline\"\n";
    assert_eq!(peer.stream(&["test.echo"], lines), said(0, items, ""));
    let items = "\"[1\"\n\"\"\n\" a\\tb\"\n";
    assert_eq!(peer.stream(&["test.echo", "--raw-lines"], b"[1\r\n\n a\tb\n"), said(0, items, ""));
    assert_eq!(peer.stream(&["test.sum", "--final"], b"1\n-3\n1000000\n"), said(0, "999998\n", ""));
}

#[test]
fn many_items_go_and_come_in_order() {
    let peer = Conformance::start();
    let numbers = (0..50_000).map(|n| format!("{n}\n")).collect::<String>();
    let echo = peer.stream(&["test.echo", "--window", "1000"], numbers.as_bytes());
    assert_eq!((echo.exit, echo.err.as_str(), echo.text() == numbers), (Some(0), "", true));
}

#[test]
fn what_is_no_item_fails_the_stream() {
    let peer = Conformance::start();
    for (input, line) in [
        (&b"1\n\n[\n"[..], "bad line 3 of standard input: expected a value, found the end at column 2"),
        (b"\xff", "bad line 1 of standard input: invalid utf-8 sequence of 1 bytes from index 0"),
    ] {
        let failed = peer.stream(&["test.never"], input);
        failed.failed(2, line);
    }
    let peer = Conformance::with(&["--max-message", "1024"]);
    let large = peer.stream(&["test.sum", "--raw-lines"], "x".repeat(2000).as_bytes());
    assert_eq!((large.exit, large.text()), (Some(1), ""));
    assert!(large.err.starts_with("error: message_too_large (103): "), "{}", large.err);
}

#[test]
fn where_the_input_is_the_payload_it_holds_no_items() {
    let peer = Conformance::start();
    let stream = peer.stream(&["test.count", "-"], b"{\n\"n\": 2\n}\n");
    assert_eq!(stream, said(0, "0\n1\n", "final: 2\n"));
    let directory = Directory::new();
    let file = directory.file("payload", b"\xa1\x61n\x01");
    assert_eq!(peer.stream(&["test.count", &file], b"5\n"), said(0, "0\n", "final: 1\n"));
    let line = "standard input is the payload: it cannot hold items too";
    peer.stream(&["test.count", "-", "--raw-lines"], b"").failed(2, line);
    assert_eq!(peer.stream(&["test.echo", "--no-stdin"], b"5\n"), said(0, "", ""));
}

#[test]
fn an_input_that_stays_open_holds_nothing_up() {
    let peer = Conformance::start();
    let open = peer.streaming(&["test.count", "{\"n\": 2}"]);
    assert_eq!(open.end_with_open_input(), said(0, "0\n1\n", "final: 2\n"));
    // An endless one neither.
    let (peer_url, lines) = (peer.url.clone(), "1\n".repeat(1 << 20));
    let endless = Running::start(["stream", &peer_url, "test.count", "{\"n\": 2}"]);
    assert_eq!(endless.end_with_input(lines.as_bytes()), said(0, "0\n1\n", "final: 2\n"));
}

#[test]
fn items_are_printed_as_they_come() {
    let peer = Conformance::start();
    let mut echo = peer.streaming(&["test.echo"]);
    for line in ["1", "[2, 3]", "\"four\""] {
        echo.write_line(line);
        assert_eq!(echo.line(), line);
    }
    assert_eq!(echo.end(), said(0, "", ""));
}

#[test]
fn failures_come_behind_the_items_in_one_line() {
    let peer = Conformance::start();
    let rejected = "permission_denied (7): this is what test.reject is for [not processed: safe to retry]";
    peer.stream(&["test.reject"], b"1\n").failed(1, rejected);
    let unknown = "unimplemented (12): no method `nope` [not processed: safe to retry]";
    peer.stream(&["nope"], b"").failed(1, unknown);
    peer.stream(&["test.sum"], b"1\n\"x\"\n").failed(1, "invalid_argument (3): an item is no integer");
    let late = peer.streaming(&["test.never", "--timeout", "50ms"]).end_with_open_input();
    late.failed(1, "deadline_exceeded (4): the deadline passed");
}

#[tokio::test]
async fn items_before_an_error_are_printed_and_a_lost_connection_is_told_apart() {
    let url = serve(|server| {
        server.handle_stream("fail", |mut request: StreamRequest| async move {
            request.send("\u{1b}[2J").await?;
            request.send(&2).await?;
            Err::<(), _>(Error::unavailable("\u{7}later").with_retry_after_ms(10).into())
        });
        server.handle_stream("cut", |mut request: StreamRequest| async move {
            request.send(&1).await?;
            // Once it is there.
            request.next::<Raw>().await;
            request.peer().hang_up();
            std::future::pending::<Result<(), _>>().await
        });
    })
    .await;
    let failed = fluxar_beside(["stream", &url, "fail"]).await;
    let line = "error: unavailable (14): \\u0007later [retry after 10 ms]\n";
    assert_eq!(failed, said(1, "\"\\u001b[2J\"\n2\n", line));
    let mut cut = Running::start(["stream", &url, "cut", "--no-reconnect"]);
    let cut = tokio::task::spawn_blocking(move || {
        assert_eq!(cut.line(), "1");
        cut.end()
    });
    cut.await.unwrap().failed(3, "unavailable (14): connection lost");
}

#[tokio::test]
async fn metadata_window_and_timeout_reach_the_acceptor() {
    let url = serve(|server| {
        server.handle_stream("meta", |mut request: StreamRequest| async move {
            let keys = request.meta().iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>();
            request.send(&keys).await?;
            Ok(request.remaining().is_some_and(|left| left.as_secs() > 3000))
        });
    })
    .await;
    let options = ["--meta", "a=1", "-m", "b:=2", "--timeout", "1h", "--window", "5000", "--final"];
    let said = fluxar_beside(["stream", &url, "meta"].iter().copied().chain(options)).await;
    said.is("[\"a\", \"b\", \"window\", \"timeout_ms\"]\ntrue");
}

#[tokio::test]
async fn an_interrupt_cancels_the_stream() {
    let dropped = Arc::new(Notify::new());
    let told = dropped.clone();
    let url = serve(move |server| {
        server.handle_stream("wait", move |mut request: StreamRequest| {
            let guard = NotifyOnDrop(told.clone());
            async move {
                let _guard = guard;
                request.send(&1).await?;
                std::future::pending::<Result<(), _>>().await
            }
        });
    })
    .await;
    let mut stream = Running::start(["stream", &url, "wait"]);
    let stopped = tokio::task::spawn_blocking(move || {
        assert_eq!(stream.line(), "1");
        stream.signal("INT");
        stream.end_with_open_input()
    });
    assert_eq!(stopped.await.unwrap(), said(130, "", ""));
    timeout(LONG, dropped.notified()).await.expect("the handler is stopped");
}

#[test]
fn a_reader_that_has_left_ends_the_stream() {
    let peer = Conformance::start();
    let mut count = peer.streaming(&["test.count", "{\"n\": 18446744073709551615}"]);
    assert_eq!(count.line(), "0");
    count.close_output();
    assert_eq!(count.end(), said(0, "", ""));
}

#[test]
fn progress_is_shown_on_a_terminal_and_taken_back() {
    let peer = Conformance::start();
    let (mut echo, screen) = Running::start_on_terminal(["stream", &peer.url, "test.echo"]);
    for line in ["1", "[2, 3]"] {
        echo.write_line(line);
        assert_eq!(echo.line(), line);
    }
    screen.wait_for("2 items out, 4 B; 2 items in, 4 B; ");
    assert_eq!(echo.end(), said(0, "", ""));
    let shown = screen.to_end();
    assert!(shown.ends_with(" B/s\r\u{1b}[K"), "{shown:?}");
    assert!(!shown.contains('\n'), "one line: {shown:?}");
}

#[test]
fn bad_arguments_are_refused_before_anybody_is_dialled() {
    let stream = |arguments: &[&str]| fluxar(["stream", "tcp://127.0.0.1:1"].iter().chain(arguments));
    stream(&["m", "[1"]).failed(2, "bad payload: expected `,` or `]`, found the end at column 3");
    stream(&["m", "-t", "0"]).failed(2, "a timeout of 0 would leave no time at all");
    stream(&[&"m".repeat(256)]).failed(2, "the method's name is longer than 255 bytes");
    stream(&["m", "-m", "window:=1"]).failed(2, "bad metadata `window:=1`: that is what --window sets");
    stream(&["m"]).failed_somehow(3, "cannot connect: tcp://127.0.0.1:1: ");
}
