//! Against a peer in another language, `interop/peer.py`: both directions, and its probe of what SPEC.md says.

use std::time::{Duration, Instant};

use fluxar::{Client, Code, Error, HandlerError, Raw, Request, Server, ServerHandle};
use fluxar_tests::python::{PythonServer, has_python, peer};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    code: u32,
    message: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sleep {
    ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Count {
    n: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Callback<T> {
    method: String,
    payload: T,
}

/// A server with the methods of peer.py, and its port.
async fn rust_server() -> (ServerHandle, String) {
    let server = Server::bind("tcp://127.0.0.1:0").build().await.unwrap();
    server.handle("echo", |request: Request| async move { Ok(request.raw()) });
    server.handle("fail", |request: Request| async move {
        let Failure { code, message } = request.payload()?;
        Err::<(), _>(Error::new(Code(code), message).into())
    });
    server.handle("sleep", |request: Request| async move {
        let Sleep { ms } = request.payload()?;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(())
    });
    server.handle("count", |request: Request| async move {
        let Count { n } = request.payload()?;
        for number in 0..n {
            request.update(&number).await?;
        }
        Ok(n)
    });
    server.handle("collect", |request: Request| async move {
        let Count { n } = request.payload()?;
        let mut updates: Vec<i64> = Vec::new();
        while (updates.len() as u64) < n {
            let Some(update) = request.next_update().await else { break };
            updates.push(update?);
        }
        Ok(updates)
    });
    server.handle("callback", |request: Request| async move {
        let Callback::<Option<u64>> { method, payload } = request.payload()?;
        let answer: Raw = request.peer().call(&method, &payload).await?;
        Ok(answer)
    });
    let (handle, url) = (server.server_handle(), server.url());
    tokio::spawn(server.run());
    (handle, url.rsplit(':').next().unwrap().to_owned())
}

// spec: §2, §3.1, §3.3, §3.4, §5, §6, §8, §10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_what_the_specification_says_in_the_eyes_of_somebody_else() {
    if !has_python() {
        return;
    }
    let (server, port) = rust_server().await;
    let (code, report) = peer("probe", &port, &["--only", "core"]).await;
    println!("{report}");
    let lines = |word| report.lines().filter(move |line| line.starts_with(word)).count();
    assert!(code == 0 && lines("FAIL ") == 0 && lines("SKIP ") == 0, "{report}");
    assert!(lines("PASS ") >= 40, "{report}");
    server.stop();
}

// spec: §6.1, §10.1, §10.2, §10.3, §10.5, §5.16, §16.4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_calls_rust() {
    if !has_python() {
        return;
    }
    let (server, port) = rust_server().await;
    let fifth = r#"{"method": "echo", "payload": 5}"#;
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["echo", r#"{"a": [1, -2, 2.5, null, "ä"]}"#],
            0,
            r#"{"result": {"a": [1, -2, 2.5, null, "\u00e4"]}}"#,
        ),
        (&["echo"], 0, r#"{"result": null}"#),
        (
            &["fail", r#"{"code": 1000, "message": "out of stock"}"#],
            1,
            r#"{"error": {"code": 1000, "message": "out of stock"}}"#,
        ),
        (&["count", r#"{"n": 3}"#], 0, "{\"update\": 0}\n{\"update\": 1}\n{\"update\": 2}\n{\"result\": 3}"),
        (&["callback", fifth], 0, r#"{"result": 5}"#),
        (
            &["sleep", r#"{"ms": 10000}"#, "--timeout", "100"],
            1,
            r#"{"error": {"code": 4, "message": "no answer in time"}}"#,
        ),
    ];
    for (words, code, printed) in cases {
        assert_eq!(peer("call", &port, words).await, (*code, format!("{printed}\n")), "{words:?}");
    }
    let (code, printed) = peer("call", &port, &["no.such.method"]).await;
    assert!(
        code == 1 && printed.contains(r#""code": 12"#) && printed.contains(r#""processed": false"#),
        "{printed}"
    );
    server.stop();
}

// spec: §5.11, §5.16, §6.3, §8.3, §8.7, §10.1, §10.2, §10.3, §10.4, §10.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_calls_python() {
    if !has_python() {
        return;
    }
    let server = PythonServer::start();
    let double = |request: Request| async move { Ok(2 * request.payload::<u64>()?) };
    let refuse = |_| async { Err::<(), HandlerError>(Error::new(Code(1234), "not now").into()) };
    let client = Client::connect(server.url())
        .handle("double", double)
        .handle("refuse", refuse)
        .build()
        .await
        .unwrap();
    let info = client.info().unwrap();
    assert_eq!((info.version, info.agent.as_deref()), (1, Some("fluxar-interop/1")));

    let odd = Raw::new(&[0xbf, 0x01, 0xf7, 0x01, 0x62, 0xc3, 0x28, 0xff][..]).unwrap();
    assert_eq!(
        client.call::<Raw>("echo", &odd).await.unwrap().as_bytes(),
        odd.as_bytes(),
        "passes untouched"
    );
    let large = "x".repeat(3 << 20);
    assert_eq!(client.call::<String>("echo", &large).await.unwrap(), large);

    let error = client.call::<()>("fail", &Failure { code: 1000, message: "no".into() }).await.unwrap_err();
    assert_eq!((error.code, &*error.message, error.processed), (Code(1000), "no", None));
    let error = client.call::<()>("nobody.has.this", &()).await.unwrap_err();
    assert_eq!((error.code, error.is_retry_safe()), (Code::UNIMPLEMENTED, true));

    let mut call = client.call::<u64>("count", &Count { n: 5 }).start().await.unwrap();
    let mut updates = Vec::new();
    while let Some(update) = call.next_update::<u64>().await {
        updates.push(update.unwrap());
    }
    assert_eq!((updates, call.await.unwrap()), (vec![0, 1, 2, 3, 4], 5));
    let mut call = client.call::<Vec<u64>>("collect", &Count { n: 3 }).start().await.unwrap();
    for number in [7, 8, 9] {
        call.update(&number).await.unwrap();
    }
    assert_eq!(call.await.unwrap(), [7, 8, 9]);

    let there_and_back = |method: &str| Callback { method: method.into(), payload: 21 };
    assert_eq!(client.call::<u64>("callback", &there_and_back("double")).await.unwrap(), 42);
    let error = client.call::<u64>("callback", &there_and_back("refuse")).await.unwrap_err();
    assert_eq!((error.code, &*error.message, error.processed), (Code(1234), "not now", Some(true)));

    let begun = Instant::now();
    let sleep = async |ms| client.call::<()>("sleep", &Sleep { ms }).await.unwrap();
    tokio::join!(sleep(500), sleep(500), sleep(500), sleep(10));
    assert!(begun.elapsed() < Duration::from_millis(1_300), "they slept at the same time");
    let late = client.call::<()>("sleep", &Sleep { ms: 60_000 }).timeout(Duration::from_millis(50)).await;
    assert_eq!(late.unwrap_err().code, Code::DEADLINE_EXCEEDED);
    let given_up = client.call::<()>("sleep", &Sleep { ms: 60_000 }).start().await.unwrap();
    drop(given_up);

    client.ping().await.unwrap();
    assert_eq!(client.call::<u64>("echo", &1).await.unwrap(), 1);
    client.shut_down().await;
}

// spec: §8.4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_and_python_keep_each_other_alive() {
    if !has_python() {
        return;
    }
    let server = PythonServer::start();
    let beating = Client::connect(server.url()).configure(|config| config.limits.heartbeat_ms = 250);
    let client = beating.build().await.unwrap();
    client.call::<()>("sleep", &Sleep { ms: 1_200 }).await.unwrap();
    assert!(client.error().is_none());
}
