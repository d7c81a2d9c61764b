//! `fluxar serve`: the conformance peer beside the library's client, and how it ends.

use std::time::{Duration, Instant};

use fluxar::{Client, Code, ConnectionError, Error, HandlerError, Raw, Reconnect, Request};
use tokio::time::timeout;

use crate::support::{Conformance, Directory, LONG, Running, fluxar};

async fn client(url: &str) -> Client {
    Client::connect(url).reconnect(Reconnect::off()).build().await.unwrap()
}

fn cbor(bytes: &[u8]) -> Raw {
    Raw::new(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn echo_answers_byte_for_byte() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    for payload in [
        &[0xf6][..],
        &[0x18, 0x01],
        &[0xbf, 0x01, 0x9f, 0xff, 0x01, 0x7f, 0x61, 0x61, 0xff, 0xff],
        &[0x62, 0xc3, 0x28],
        &[0xf9, 0x7e, 0x01],
    ] {
        assert_eq!(client.call::<Raw>("test.echo", &cbor(payload)).await, Ok(cbor(payload)));
    }
    let large = Raw::encode(&"x".repeat(5_000_000)).unwrap();
    assert_eq!(client.call::<Raw>("test.echo", &large).await, Ok(large));
}

#[tokio::test]
async fn meta_is_what_the_request_carried() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    assert_eq!(client.call::<Raw>("test.meta", &()).await, Ok(cbor(&[0xf6])));
    let call = client.call::<Raw>("test.meta", &()).meta("a", &1).meta("b", "c");
    assert_eq!(call.await, Ok(cbor(b"\xa2\x61a\x01\x61b\x61c")));
}

#[tokio::test]
async fn fail_fails_as_it_is_told() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    let fail = async |payload: &[u8]| client.call::<Raw>("test.fail", &cbor(payload)).await.unwrap_err();
    assert_eq!(fail(b"\xa1\x64code\x05").await, Error::not_found(""));
    // In any form: an indefinite map, a text in chunks, keys that mean nothing.
    let error =
        fail(b"\xbf\x64code\x19\x03\xe8\x67message\x7f\x61a\x61b\xff\x64data\x81\xf7\x01\x02\xff").await;
    assert_eq!(error, Error::new(Code(1000), "ab").with_data(vec![0x81, 0xf7]));
    assert_eq!(fail(b"\xa1\x64code\x1a\xff\xff\xff\xff").await.code, Code(u32::MAX));
    for bad in [
        &b"\xf6"[..],
        b"\xa0",
        b"\xa1\x64code\x00",
        b"\xa1\x64code\x1b\0\0\0\x01\0\0\0\0",
        b"\xa1\x64code\x20",
    ] {
        let error = fail(bad).await;
        assert_eq!((error.code, error.processed), (Code::INVALID_ARGUMENT, Some(false)), "{error}");
    }
}

#[tokio::test]
async fn sleep_takes_its_time_and_others_do_not_wait_for_it() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    let began = Instant::now();
    let sleep = client.call::<Raw>("test.sleep", &cbor(b"\xa1\x62ms\x18\x96")).start().await.unwrap();
    client.call::<Raw>("test.echo", &()).await.unwrap();
    assert_eq!(sleep.await, Ok(cbor(&[0xf6])));
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn never_meets_its_deadline() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    let call = client.call::<Raw>("test.never", &()).timeout(Duration::from_millis(50));
    assert_eq!(call.await.unwrap_err().code, Code::DEADLINE_EXCEEDED);
}

#[tokio::test]
async fn cancelled_counts_the_calls_of_this_connection() {
    let peer = Conformance::start();
    let (one, other) = (client(&peer.url).await, client(&peer.url).await);
    for _ in 0..3 {
        let call = one.call::<Raw>("test.never", &()).start().await.unwrap();
        // Behind it: so the peer has it.
        one.call::<Raw>("test.echo", &()).await.unwrap();
        drop(call);
    }
    assert_eq!(one.call::<u64>("test.cancelled", &()).await, Ok(3));
    assert_eq!(other.call::<u64>("test.cancelled", &()).await, Ok(0));
}

#[tokio::test]
async fn update_sends_updates_in_order() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    let mut call = client.call::<u64>("test.update", &cbor(b"\xa1\x61n\x14")).start().await.unwrap();
    for n in 0..20 {
        assert_eq!(call.next_update::<u64>().await, Some(Ok(n)));
    }
    assert_eq!(call.next_update::<u64>().await, None);
    assert_eq!(call.await, Ok(20));
}

#[tokio::test]
async fn callback_calls_back() {
    let peer = Conformance::start();
    let client = Client::connect(&peer.url)
        .handle("double", |request: Request| async move { Ok(request.payload::<u64>()? * 2) })
        .handle("refuse", |_| async {
            Err::<(), HandlerError>(Error::permission_denied("not you").with_data(vec![1]).into())
        });
    let client = client.build().await.unwrap();
    let call = |payload: &'static [u8]| client.call::<Raw>("test.callback", &cbor(payload));
    assert_eq!(call(b"\xa2\x66method\x66double\x67payload\x15").await, Ok(cbor(&[0x18, 0x2a])));
    let refused = Error::permission_denied("not you").with_data(vec![1]);
    assert_eq!(call(b"\xa1\x66method\x66refuse").await, Err(refused));
    assert_eq!(call(b"\xa1\x66method\x61x").await.unwrap_err().code, Code::UNIMPLEMENTED);
    assert_eq!(call(b"\xa0").await.unwrap_err().code, Code::INVALID_ARGUMENT);
}

#[tokio::test]
async fn drop_link_answers_and_says_no_goodbye() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    assert_eq!(client.call::<()>("test.drop_link", &()).await, Ok(()));
    let why = timeout(LONG, client.closed()).await.unwrap();
    assert_eq!(why, ConnectionError::LinkLost { unread: 0 });
}

#[test]
fn whoami_knows_nobody() {
    let whoami = "{\"scheme\": null, \"identity\": null, \"encrypted\": false, \"resumed\": false}";
    Conformance::start().call(&["test.whoami"]).is(whoami);
}

#[tokio::test]
async fn switches_change_what_is_announced() {
    let peer = Conformance::with(&["--heartbeat-ms", "2500", "--max-message", "4096"]);
    let client = client(&peer.url).await;
    let info = client.info().unwrap();
    assert_eq!((info.limits.heartbeat_ms, info.limits.max_message), (2500, 4096));
    assert_eq!(info.agent.unwrap(), concat!("fluxar-cli/", env!("CARGO_PKG_VERSION")));
    let error = client.call::<Raw>("test.echo", &"x".repeat(5000)).await.unwrap_err();
    assert_eq!(error.code, Code::MESSAGE_TOO_LARGE);
    client.call::<Raw>("test.echo", &"x".repeat(3000)).await.unwrap();
}

#[tokio::test]
async fn without_conformance_only_pings_are_answered() {
    let mut serve = Running::start(["serve", "--listen", "tcp://127.0.0.1:0"]);
    let line = serve.line();
    let client = client(line.strip_prefix("listening on ").unwrap()).await;
    client.ping().await.unwrap();
    assert_eq!(client.call::<Raw>("test.echo", &()).await.unwrap_err().code, Code::UNIMPLEMENTED);
}

#[test]
fn every_listener_is_announced_and_serves() {
    let directory = Directory::new();
    let socket = directory.path().join("socket");
    let unix = format!("unix://{}", socket.display());
    let mut serve =
        Running::start(["serve", "--conformance", "--listen", "tcp://127.0.0.1:0", "--listen", &unix]);
    let first = serve.line();
    let tcp = first.strip_prefix("listening on ").unwrap();
    assert!(tcp.starts_with("tcp://127.0.0.1:") && !tcp.ends_with(":0"), "{tcp}");
    assert_eq!(serve.line(), format!("listening on {unix}"));
    for url in [tcp, &unix] {
        fluxar(["call", url, "test.echo", "1"]).is("1");
    }
    serve.signal("TERM");
    let said = serve.end();
    assert_eq!((said.exit, said.text(), said.err.as_str()), (Some(0), "", ""));
    assert!(!socket.exists());
}

#[tokio::test]
async fn signals_end_it_and_clients_are_told() {
    for signal in ["INT", "TERM"] {
        let peer = Conformance::with(&["--drain-ms", "50"]);
        let client = client(&peer.url).await;
        let call = client.call::<Raw>("test.never", &()).start().await.unwrap();
        // It runs.
        client.call::<()>("test.echo", &()).await.unwrap();
        peer.running.signal(signal);
        assert_eq!(call.await.unwrap_err().code, Code::UNAVAILABLE);
        assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
        let said = tokio::task::spawn_blocking(|| peer.running.end()).await.unwrap();
        assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
    }
}

#[tokio::test]
async fn what_is_open_when_a_signal_comes_goes_on_to_its_end() {
    for signal in ["INT", "TERM"] {
        let peer = Conformance::with(&["--drain-ms", "60000"]);
        let client = client(&peer.url).await;
        let call = client.call::<Raw>("test.sleep", &cbor(b"\xa1\x62ms\x19\x02\x58")).start().await.unwrap();
        let mut echo = client.stream::<u64>("test.echo", &()).await.unwrap();
        echo.send(&1).await.unwrap();
        assert_eq!(echo.next().await.unwrap(), Ok(1));
        peer.running.signal(signal);
        while client.draining().is_none() {
            tokio::task::yield_now().await;
        }
        let refused = client.call::<Raw>("test.echo", &()).await.unwrap_err();
        assert_eq!((refused.code, refused.is_retry_safe()), (Code::DRAINING, true));
        assert_eq!(call.await, Ok(cbor(&[0xf6])));
        echo.send(&2).await.unwrap();
        assert_eq!(echo.next().await.unwrap(), Ok(2));
        echo.end().await.unwrap();
        assert_eq!(echo.next().await, None);
        assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
        let said = tokio::task::spawn_blocking(|| peer.running.end()).await.unwrap();
        assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let peer = Conformance::with(&["--drain-ms", "600000"]);
    let client = client(&peer.url).await;
    let call = client.call::<Raw>("test.never", &()).start().await.unwrap();
    client.call::<()>("test.echo", &()).await.unwrap();
    peer.running.signal("TERM");
    while client.draining().is_none() {
        tokio::task::yield_now().await;
    }
    peer.running.signal("INT");
    let said = tokio::task::spawn_blocking(|| peer.running.end()).await.unwrap();
    assert_eq!((said.exit, said.err.as_str()), (Some(130), ""));
    assert_eq!(call.await.unwrap_err().code, Code::UNAVAILABLE);
}

#[tokio::test]
async fn drain_drains_the_connection_and_no_other() {
    let peer = Conformance::start();
    let (client, other) = (client(&peer.url).await, client(&peer.url).await);
    let call = client.call::<Raw>("test.never", &()).start().await.unwrap();
    let deadline = cbor(b"\xa1\x6bdeadline_ms\x19\x01\x2c");
    let began = Instant::now();
    assert_eq!(client.call::<()>("test.drain", &deadline).await, Ok(()));
    while client.draining().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(client.draining().unwrap().deadline.unwrap() <= Duration::from_millis(300));
    let cut = call.await.unwrap_err();
    assert_eq!((cut.code, cut.processed), (Code::UNAVAILABLE, None));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
    assert_eq!(other.call::<Raw>("test.echo", &1).await, Ok(cbor(&[1])));
    assert_eq!(other.call::<()>("test.drain", &cbor(&[0xa0])).await, Ok(()));
    assert_eq!(other.closed().await, ConnectionError::ClosedByPeer(None));
    assert_eq!(other.draining().unwrap().deadline, None);
}

#[test]
fn where_nobody_can_listen_it_says_so() {
    let peer = Conformance::start();
    let said = fluxar(["serve", "--listen", &peer.url]);
    said.failed_somehow(3, &format!("cannot listen: {}: ", peer.url));
    let said = fluxar(["serve", "--listen", "unix:///does/not/exist/socket"]);
    said.failed_somehow(3, "cannot listen: unix:///does/not/exist/socket: ");
}

#[test]
fn it_serves_although_nobody_reads_what_it_says() {
    let directory = Directory::new();
    let unix = format!("unix://{}", directory.path().join("socket").display());
    let mut serve =
        Running::start(["serve", "--conformance", "--listen", "tcp://127.0.0.1:0", "--listen", &unix]);
    let line = serve.line();
    serve.close_output();
    fluxar(["call", line.strip_prefix("listening on ").unwrap(), "test.echo", "1"]).is("1");
    serve.signal("INT");
    assert_eq!(serve.end().exit, Some(0));
}
