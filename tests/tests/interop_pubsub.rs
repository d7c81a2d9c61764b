//! Publish and subscribe against a peer in another language, `interop/peer.py`, in both directions.

use fluxar::{Client, Error, Fate, Hub, Qos, Request, Server, ServerHandle};
use fluxar_tests::net::eventually;
use fluxar_tests::python::{PythonServer, has_python, peer};

const MODES: [(Qos, &str); 3] = [(Qos::AtMostOnce, "0"), (Qos::AtLeastOnce, "1"), (Qos::ExactlyOnce, "2")];

/// A server, which is a hub, and its port.
async fn rust_hub() -> (ServerHandle, Hub, String) {
    let server = Server::bind("tcp://127.0.0.1:0");
    let server = server.handle("echo", |request: Request| async move { Ok(request.raw()) });
    let server = server.build().await.unwrap();
    let (handle, hub, url) = (server.server_handle(), server.hub().clone(), server.url());
    tokio::spawn(server.run());
    (handle, hub, url.rsplit(':').next().unwrap().to_owned())
}

// spec: §12, §18.6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_does_what_the_specification_says_in_the_eyes_of_somebody_else() {
    if !has_python() {
        return;
    }
    let (server, _, port) = rust_hub().await;
    let (code, report) = peer("probe", &port, &["--only", "pubsub"]).await;
    println!("{report}");
    let lines = |word| report.lines().filter(move |line| line.starts_with(word)).count();
    assert!(code == 0 && lines("FAIL ") == 0 && lines("SKIP ") == 0, "{report}");
    assert!(lines("PASS ") >= 15, "{report}");
    server.stop();
}

/// What peer.py prints of a message.
fn printed(qos: &str, attempt: u32, payload: &str) -> String {
    let dup = attempt > 1;
    format!(
        "{{\"message\": {{\"topic\": \"t.a\", \"qos\": {qos}, \"dup\": {dup}, \"attempt\": {attempt}, \"retained\": false, \"payload\": {payload}}}}}\n"
    )
}

// spec: §12.3, §12.6, §12.7, §12.8, §12.9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_subscribes_at_rust() {
    if !has_python() {
        return;
    }
    let (server, hub, port) = rust_hub().await;
    for (qos, number) in MODES {
        let words = ["t.*", "--qos", number, "--count", "300", "--inflight", "10"];
        let publish = async {
            eventually("it has subscribed", || hub.stats().subscriptions == 1).await;
            for payload in 0..300 {
                hub.publish("t.a", &payload).qos(qos).await.unwrap();
            }
        };
        let (said, ()) = tokio::join!(peer("sub", &port, &words), publish);
        let messages = (0..300).map(|payload| printed(number, 1, &payload.to_string())).collect::<String>();
        assert_eq!(said, (0, format!("{{\"confirmed\": {number}}}\n{messages}")));
        eventually("it has left", || hub.stats().subscriptions == 0).await;
    }
    assert_eq!(hub.stats().undelivered, 0);
    server.stop();
}

// spec: §12.8, §12.9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_python_does_not_accept_comes_again() {
    if !has_python() {
        return;
    }
    let (server, hub, port) = rust_hub().await;
    for (qos, number) in &MODES[1..] {
        let words = ["t.*", "--qos", number, "--count", "3", "--nack", "2"];
        let publish = async {
            eventually("it has subscribed", || hub.stats().subscriptions == 1).await;
            hub.publish("t.a", "x").qos(*qos).await.unwrap();
        };
        let (said, ()) = tokio::join!(peer("sub", &port, &words), publish);
        assert_eq!(said, (0, format!("{{\"confirmed\": {number}}}\n{}", printed(number, 3, "\"x\""))));
        eventually("it has left", || hub.stats().subscriptions == 0).await;
    }
    server.stop();
}

// spec: §12.5, §12.8, §12.9, §12.16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_publishes_at_rust() {
    if !has_python() {
        return;
    }
    let (server, hub, port) = rust_hub().await;
    let mut messages = hub.messages("t.>").await.unwrap();
    for (qos, number) in MODES {
        let (code, said) = peer("pub", &port, &["t.b", "1", "[2, null]", "--qos", number]).await;
        let accepted = if qos == Qos::AtMostOnce { "" } else { "{\"accepted\": 1}\n{\"accepted\": 1}\n" };
        assert_eq!((code, said.as_str()), (0, accepted));
        let (first, second) = (messages.next().await.unwrap(), messages.next().await.unwrap());
        assert_eq!((first.topic(), first.qos(), first.payload::<u8>()), ("t.b", qos, Ok(1)));
        assert_eq!(second.payload::<(u8, ())>(), Ok((2, ())));
        for message in [first, second] {
            message.ack().await.unwrap();
        }
    }
    let kept = peer("pub", &port, &["t.c", "5", "--qos", "2", "--retain"]).await;
    assert_eq!(kept, (0, "{\"accepted\": 1}\n".into()));
    let (code, said) = peer("sub", &port, &["t.c", "--qos", "1"]).await;
    assert!(code == 0 && said.contains("\"retained\": true, \"payload\": 5"), "{said}");
    let (code, said) = peer("pub", &port, &["t..c", "5", "--qos", "1"]).await;
    assert!(code == 1 && said.contains("\"code\": 3") && said.contains("\"processed\": false"), "{said}");
    server.stop();
}

// spec: §12.3, §12.4, §12.5, §12.6, §12.8, §12.9, §12.15, §12.16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_publishes_and_subscribes_at_python() {
    if !has_python() {
        return;
    }
    let hub = PythonServer::with(&["--limits", "{\"max_inflight\": 5}"]);
    let publisher = Client::connect(hub.url()).build().await.unwrap();
    let subscriber = Client::connect(hub.url()).build().await.unwrap();
    for (qos, _) in MODES {
        let mut all = subscriber.messages("t.>").inflight(7).await.unwrap();
        let member = async || subscriber.messages("t.a").group("g").await.unwrap();
        let (mut one, mut other) = (member().await, member().await);
        for payload in 0..100_u32 {
            let fate = publisher.publish("t.a", &payload).qos(qos).meta("own", &payload).await.unwrap();
            let expected = if qos == Qos::AtMostOnce { Fate::Queued } else { Fate::Accepted { attempts: 1 } };
            assert_eq!(fate, expected);
            let message = all.next().await.unwrap();
            assert_eq!((message.topic(), message.qos(), message.payload::<u32>()), ("t.a", qos, Ok(payload)));
            assert!(message.meta().get("own").is_some() && !message.is_duplicate());
            message.ack().await.unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let message = tokio::select! {
                message = one.next() => message.unwrap(),
                message = other.next() => message.unwrap(),
            };
            seen.push(message.payload::<u32>().unwrap());
            message.ack().await.unwrap();
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
    refusals_and_last_values(&publisher, &subscriber).await;
    publisher.shut_down().await;
    subscriber.shut_down().await;
}

async fn refusals_and_last_values(publisher: &Client, subscriber: &Client) {
    publisher.publish("kept.a", "x").qos(Qos::ExactlyOnce).retain().await.unwrap();
    let mut kept = subscriber.messages("kept.*").qos(Qos::AtLeastOnce).await.unwrap();
    let message = kept.next().await.unwrap();
    assert_eq!((message.is_retained(), message.qos()), (true, Qos::AtLeastOnce));
    message.ack().await.unwrap();
    publisher.publish("kept.a", &()).qos(Qos::AtLeastOnce).retain().await.unwrap();
    assert!(!kept.next().await.unwrap().is_retained(), "the one that clears it");
    let refused = subscriber.messages("fluxar.x").await.unwrap_err();
    assert!(refused.is_retry_safe(), "{refused}");

    publisher.publish("again.a", &7).qos(Qos::AtLeastOnce).await.unwrap();
    let mut again = subscriber.messages("again.a").await.unwrap();
    publisher.publish("again.a", &8).qos(Qos::ExactlyOnce).await.unwrap();
    for attempt in 1..=3 {
        let message = again.next().await.unwrap();
        assert_eq!((message.attempt(), message.is_duplicate()), (attempt, attempt > 1));
        match attempt {
            3 => message.ack().await,
            _ => message.nack(Error::unavailable("not yet").with_retry_after_ms(1)).await,
        }
        .unwrap();
    }
}
