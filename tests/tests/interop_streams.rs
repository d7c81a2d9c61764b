//! Streams against a peer in another language, `interop/peer.py`, in both directions.

use std::time::Duration;

use fluxar::{Client, Code, Error, HandlerError, Raw, Request, Server, ServerHandle, StreamRequest};
use fluxar_tests::net::eventually;
use fluxar_tests::python::{PythonServer, has_python, peer};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Count {
    n: u64,
}

async fn count(mut request: StreamRequest) -> Result<u64, HandlerError> {
    let Count { n } = request.payload()?;
    for number in 0..n {
        request.send(&number).await?;
    }
    Ok(n)
}

async fn sum(mut request: StreamRequest) -> Result<i64, HandlerError> {
    let mut sum = 0;
    while let Some(number) = request.next::<i64>().await {
        sum += number?;
    }
    Ok(sum)
}

async fn echo(mut request: StreamRequest) -> Result<Raw, HandlerError> {
    let (mut sender, mut receiver) = request.split::<Raw>()?;
    while let Some(item) = receiver.next().await {
        sender.send(&item?).await?;
    }
    Ok(receiver.last().transpose()?.unwrap_or_default())
}

/// A server with the streams of the conformance peer, and its port.
async fn rust_server(window: u32) -> (ServerHandle, String) {
    let server = Server::bind("tcp://127.0.0.1:0")
        .configure(|config| config.limits.stream_window = window)
        .handle("echo", |request: Request| async move { Ok(request.raw()) })
        .handle("test.cancelled", |request: Request| async move {
            let stats = request.peer().stats();
            Ok(stats.cancelled + stats.streams_cancelled)
        })
        .handle_stream("test.count", count)
        .handle_stream("test.sum", sum)
        .handle_stream("test.echo", echo)
        .handle_stream("test.never", |request: StreamRequest| async move {
            let _held = request;
            std::future::pending::<Result<(), HandlerError>>().await
        })
        .handle_stream("test.reject", |_| async {
            Err::<(), HandlerError>(Error::permission_denied("no").with_processed(false).into())
        });
    let server = server.build().await.unwrap();
    let (handle, url) = (server.server_handle(), server.url());
    tokio::spawn(server.run());
    (handle, url.rsplit(':').next().unwrap().to_owned())
}

// spec: §11, §18.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_streams_as_the_specification_says_in_the_eyes_of_somebody_else() {
    if !has_python() {
        return;
    }
    let (server, port) = rust_server(2_000).await;
    let (code, report) = peer("probe", &port, &["--only", "streams"]).await;
    println!("{report}");
    let lines = |word| report.lines().filter(move |line| line.starts_with(word)).count();
    assert!(code == 0 && lines("FAIL ") == 0 && lines("SKIP ") == 0, "{report}");
    assert!(lines("PASS ") >= 15, "{report}");
    server.stop();
}

// spec: §11.1, §11.2, §11.3, §11.5, §11.7, §5.16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_opens_streams_of_rust() {
    if !has_python() {
        return;
    }
    for window in [0, 100, 262_144] {
        let (server, port) = rust_server(window).await;
        let cases: &[(&[&str], i32, &str)] = &[
            (
                &["test.count", r#"{"n": 3}"#],
                0,
                "{\"item\": 0}\n{\"item\": 1}\n{\"item\": 2}\n{\"final\": 3}",
            ),
            (&["test.sum", "--items", "[1, -4, 1000000000000]"], 0, r#"{"final": 999999999997}"#),
            (
                &["test.echo", "--items", r#"[{"a": [1, null]}, "ä"]"#, "--window", "0"],
                0,
                "{\"item\": {\"a\": [1, null]}}\n{\"item\": \"\\u00e4\"}\n{\"final\": null}",
            ),
            (&["test.reject"], 1, r#"{"error": {"code": 7, "message": "no", "processed": false}}"#),
            (
                &["test.never", "--timeout", "100"],
                1,
                r#"{"error": {"code": 4, "message": "the deadline passed"}}"#,
            ),
            (
                &["test.count", r#"{"n": 1000000000}"#, "--take", "2", "--window", "50"],
                0,
                "{\"item\": 0}\n{\"item\": 1}\n{\"cancelled\": 1}",
            ),
        ];
        for (words, code, printed) in cases {
            assert_eq!(peer("stream", &port, words).await, (*code, format!("{printed}\n")), "{words:?}");
        }
        let (code, printed) = peer("stream", &port, &["nope"]).await;
        assert!(code == 1 && printed.contains(r#""code": 12"#), "{printed}");
        let numbers = format!("{:?}", (0..5_000).collect::<Vec<_>>());
        let echo = peer("stream", &port, &["test.echo", "--items", &numbers, "--window", "1000"]).await;
        let items = (0..5_000).map(|n| format!("{{\"item\": {n}}}\n")).collect::<String>();
        assert_eq!(echo, (0, items + "{\"final\": null}\n"));
        server.stop();
    }
}

// spec: §11.1, §11.2, §11.3, §11.4, §11.5, §11.6, §11.7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_opens_streams_of_python() {
    if !has_python() {
        return;
    }
    for window in ["0", "100", "262144"] {
        let server = PythonServer::with(&["--limits", &format!("{{\"stream_window\": {window}}}")]);
        let client = Client::connect(server.url()).build().await.unwrap();
        let mut numbers = client.stream::<u64>("test.count", &Count { n: 2_000 }).window(500).await.unwrap();
        for number in 0..2_000 {
            assert_eq!(numbers.next().await, Some(Ok(number)));
        }
        assert_eq!(numbers.finish::<u64>().await, Ok(2_000));

        let mut numbers = client.stream::<()>("test.sum", &()).await.unwrap();
        for number in 0..2_000 {
            numbers.send(&number).await.unwrap();
        }
        assert_eq!(numbers.finish::<i64>().await, Ok(1_999_000));

        let odd = Raw::new(&[0xbf, 0x01, 0xf7, 0x01, 0x62, 0xc3, 0x28, 0xff][..]).unwrap();
        let (mut sender, mut receiver) = client.stream::<Raw>("test.echo", &()).await.unwrap().split();
        for item in [&odd, &Raw::encode(&vec!["x"; 1_000]).unwrap()] {
            sender.send(item).await.unwrap();
            assert_eq!(receiver.next().await, Some(Ok(item.clone())), "passes untouched");
        }
        sender.end_with(&"last").await.unwrap();
        assert_eq!(receiver.next().await, None);
        assert_eq!(receiver.last::<String>(), Some(Ok("last".into())));

        ends_otherwise(&client).await;
        client.shut_down().await;
    }
}

/// Refusals, deadlines, cancel and pause.
async fn ends_otherwise(client: &Client) {
    for (method, code) in [("test.reject", Code::PERMISSION_DENIED), ("nope", Code::UNIMPLEMENTED)] {
        let mut stream = client.stream::<Raw>(method, &()).await.unwrap();
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!((error.code, error.is_retry_safe()), (code, true));
    }
    let late = client.stream::<Raw>("test.never", &()).timeout(Duration::from_millis(50));
    let error = late.await.unwrap().next().await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::DEADLINE_EXCEEDED);

    let mut endless = client.stream::<u64>("test.count", &Count { n: 1 << 40 }).window(500).await.unwrap();
    assert_eq!(endless.next().await, Some(Ok(0)));
    drop(endless);
    eventually("the cancel is answered", || client.stats().streams_open == 0).await;

    let mut paused = client.stream::<u64>("test.count", &Count { n: 5_000 }).await.unwrap();
    paused.pause();
    client.call::<Raw>("echo", &()).await.unwrap();
    paused.resume();
    for number in 0..5_000 {
        assert_eq!(paused.next().await, Some(Ok(number)));
    }
    assert_eq!(paused.finish::<u64>().await, Ok(5_000));
}
