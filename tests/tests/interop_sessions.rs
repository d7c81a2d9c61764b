//! Sessions that go on, credentials, pre-shared keys and drain against a peer in another language, `interop/peer.py`, in
//! both directions.

use std::time::Duration;

use fluxar::{
    Accounts, Auth, Client, Granted, HandlerError, Identity, Psk, Qos, Raw, Reconnect, Request, Server,
    ServerBuilder, ServerHandle, State, StreamRequest,
};
use fluxar_tests::net::eventually;
use fluxar_tests::plan::Mishap;
use fluxar_tests::proxy::Proxy;
use fluxar_tests::python::{PythonServer, has_python, peer};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Count {
    n: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sleep {
    ms: u64,
}

async fn count(mut request: StreamRequest) -> Result<u64, HandlerError> {
    let Count { n } = request.payload()?;
    for number in 0..n {
        request.send(&number).await?;
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(n)
}

/// A server, and its port.
async fn rust_server(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> (ServerHandle, String) {
    let server = Server::bind("tcp://127.0.0.1:0")
        .handle("echo", |request: Request| async move { Ok(request.raw()) })
        .handle("sleep", |request: Request| async move {
            let Sleep { ms } = request.payload()?;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok("slept")
        })
        .handle("whoami", |request: Request| async move {
            let identity = request.peer().identity();
            Ok(identity.map(|identity| format!("{} by {}", identity.name(), identity.scheme())))
        })
        .handle_stream("test.count", count);
    let server = change(server).build().await.unwrap();
    let (handle, url) = (server.server_handle(), server.url());
    tokio::spawn(server.run());
    (handle, url.rsplit(':').next().unwrap().to_owned())
}

fn port(url: &str) -> &str {
    url.rsplit(':').next().unwrap()
}

/// Cuts every link through `proxy` again and again, as long as this is polled; each of them lives for a while.
async fn cut(proxy: &Proxy) {
    loop {
        tokio::time::sleep(Duration::from_millis(120)).await;
        proxy.strike(Mishap::Reset);
    }
}

/// What a command of peer.py says behind a proxy that cuts links; without its last line, which says how often its session
/// went on.
async fn behind_cuts(port_behind: &str, name: &str, words: &[&str]) -> String {
    let proxy = Proxy::clear(&format!("tcp://127.0.0.1:{port_behind}")).await;
    let (code, said) = tokio::select! {
        said = peer(name, port(proxy.url()), words) => said,
        () = cut(&proxy) => unreachable!("it goes on for ever"),
    };
    let (said, last) = said.trim_end().rsplit_once('\n').unwrap_or_default();
    assert!(code == 0 && last.starts_with("{\"resumed\": {\"times\": "), "{said}\n{last}");
    format!("{said}\n")
}

// spec: §9.1, §9.2, §9.3, §9.4, §9.5, §9.6, §9.7, §9.8, §9.10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_keeps_sessions_in_the_eyes_of_somebody_else() {
    if !has_python() {
        return;
    }
    let (server, port) = rust_server(|builder| {
        builder
            .handle("test.cancelled", |request: Request| async move { Ok(request.peer().stats().cancelled) })
            .handle_stream("test.count", |mut request: StreamRequest| async move {
                for number in 0..200_u8 {
                    request.send(&serde_bytes(number)).await?;
                }
                Ok(200)
            })
    })
    .await;
    let (code, report) = peer("probe", &port, &["--only", "sessions"]).await;
    println!("{report}");
    let lines = |word| report.lines().filter(move |line| line.starts_with(word)).count();
    assert!(code == 0 && lines("FAIL ") == 0 && lines("SKIP ") == 0, "{report}");
    assert!(lines("PASS ") >= 15, "{report}");
    server.stop();
}

/// An item of the probe's: 100 equal bytes.
fn serde_bytes(byte: u8) -> Raw {
    Raw::new([&[0x58, 100][..], &[byte; 100]].concat()).unwrap()
}

// spec: §9.7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_goes_on_at_rust_over_cut_links() {
    if !has_python() {
        return;
    }
    let (server, port) = rust_server(|builder| builder).await;
    let said = behind_cuts(&port, "call", &["sleep", r#"{"ms": 400}"#]).await;
    assert_eq!(said, "{\"result\": \"slept\"}\n");
    let said = behind_cuts(&port, "stream", &["test.count", r#"{"n": 2000}"#]).await;
    let items = (0..2_000).map(|number| format!("{{\"item\": {number}}}\n")).collect::<String>();
    assert_eq!(said, format!("{items}{{\"final\": 2000}}\n"));

    let hub = server.hub().clone();
    let publish = async {
        eventually("it has subscribed", || hub.stats().subscriptions == 1).await;
        for payload in 0..200 {
            hub.publish("t.a", &payload).qos(Qos::ExactlyOnce).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let words = ["t.*", "--qos", "2", "--count", "200"];
    let (said, ()) = tokio::join!(behind_cuts(&port, "sub", &words), publish);
    let once = |payload: u32| {
        format!(
            "{{\"message\": {{\"topic\": \"t.a\", \"qos\": 2, \"dup\": false, \"attempt\": 1, \"retained\": false, \"payload\": {payload}}}}}\n"
        )
    };
    assert_eq!(said, format!("{{\"confirmed\": 2}}\n{}", (0..200).map(once).collect::<String>()));
    assert!(server.stats().resumed >= 3);
    server.stop();
}

// spec: §9.7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_goes_on_at_python_over_cut_links() {
    if !has_python() {
        return;
    }
    let server = PythonServer::start();
    let proxy = Proxy::clear(server.url()).await;
    // Links are cut in the handshake, too: it is to come back at once all the same.
    let at_once = Reconnect::default().first(Duration::from_millis(10)).max(Duration::from_millis(50));
    let client = Client::connect(proxy.url()).reconnect(at_once).build().await.unwrap();
    let mut messages = client.messages("t.>").await.unwrap();
    let work = async {
        let calls = async {
            for number in 0..200_u64 {
                assert_eq!(client.call::<u64>("echo", &number).await, Ok(number));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let stream = async {
            let mut stream =
                client.stream::<u64>("test.count", &Count { n: 3_000 }).window(4_000).await.unwrap();
            for number in 0..3_000 {
                assert_eq!(stream.next().await, Some(Ok(number)));
            }
            assert_eq!(stream.finish::<u64>().await, Ok(3_000));
        };
        let publish = async {
            for number in 0..100_u64 {
                client.publish("t.a", &number).qos(Qos::ExactlyOnce).await.unwrap();
            }
        };
        let take = async {
            for number in 0..100_u64 {
                let message = messages.next().await.unwrap();
                assert_eq!((message.payload(), message.is_duplicate()), (Ok(number), false));
                message.ack().await.unwrap();
            }
        };
        tokio::join!(calls, stream, publish, take)
    };
    tokio::select! {
        _ = work => {}
        () = cut(&proxy) => unreachable!("it goes on for ever"),
    }
    eventually("there is a link again", || client.state().is_connected()).await;
    assert!(client.stats().resumed >= 3 && client.error().is_none());
    client.shut_down().await;
}

/// What the peer in Python is told where it is refused.
async fn refused(port: &str, words: &[&str]) -> String {
    let (code, said) = peer("call", port, &[&["echo"], words].concat()).await;
    assert!(code == 1 && said.contains("\"code\": 16"), "{said}");
    said
}

// spec: §6.11, §6.12, §8.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_shows_rust_who_it_is() {
    if !has_python() {
        return;
    }
    let brief = Granted::new(Identity::new("ada")).expires_in(Duration::from_millis(600));
    let accounts = Accounts::new().bearer("t0ken", brief).api_key("k3y", Identity::new("ci")).password(
        "bob",
        "pass",
        Identity::new("bob"),
    );
    let (server, port) = rust_server(|builder| {
        let builder = builder.unlimited_failures().authenticator(accounts);
        builder.psk(Psk::new("site-7", [7; 16])).psk(Psk::new("site-8", [8; 16]))
    })
    .await;
    let key = format!("site-7={}", "07".repeat(16));
    for (auth, name) in [
        ("bearer=t0ken", "ada by bearer"),
        ("api-key=k3y", "ci by api-key"),
        ("credentials=bob:pass", "bob by credentials"),
    ] {
        let said = peer("call", &port, &["whoami", "--auth", auth, "--psk", &key]).await;
        assert_eq!(said, (0, format!("{{\"result\": \"{name}\"}}\n")));
    }
    refused(&port, &["--auth", "bearer=wrong", "--psk", &key]).await;
    refused(&port, &["--psk", &key]).await;
    refused(&port, &["--auth", "bearer=t0ken"]).await;
    let wrong = refused(&port, &["--auth", "bearer=t0ken", "--psk", "site-7=0707"]).await;
    let unknown = refused(&port, &["--auth", "bearer=t0ken", "--psk", "site-9=0707"]).await;
    assert_eq!(wrong, unknown);
    // It renews them by itself.
    let words = ["t", "1", "2", "--qos", "1", "--auth", "bearer=t0ken", "--psk", &key];
    assert_eq!(peer("pub", &port, &words).await, (0, "{\"accepted\": 1}\n".repeat(2)));
    let words = ["sleep", r#"{"ms": 1500}"#, "--auth", "bearer=t0ken", "--psk", &key];
    assert_eq!(peer("call", &port, &words).await, (0, "{\"result\": \"slept\"}\n".into()));
    server.stop();
}

#[derive(Debug, PartialEq, Deserialize)]
struct Whoami {
    scheme: Option<String>,
    identity: Option<String>,
    resumed: bool,
}

// spec: §6.10, §6.11, §6.12, §8.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_shows_python_who_it_is() {
    if !has_python() {
        return;
    }
    let key = format!("site-7={}", "07".repeat(16));
    let words =
        ["--auth", "bearer=t0ken:ada", "--auth", "credentials=bob:pa:ss", "--auth-ms", "600", "--psk", &key];
    let server = PythonServer::with(&words);
    let psk = |byte| Psk::new("site-7", [byte; 16]);
    for (auth, scheme, name) in
        [(Auth::bearer("t0ken"), "bearer", "ada"), (Auth::credentials("bob", "pa:ss"), "credentials", "bob")]
    {
        let client = Client::connect(server.url()).auth(auth).psk(psk(7)).build().await.unwrap();
        let known = Whoami { scheme: Some(scheme.into()), identity: Some(name.into()), resumed: false };
        assert_eq!(client.call::<Whoami>("test.whoami", &()).await.unwrap(), known);
        // Longer than they last: they are renewed.
        client.call::<()>("sleep", &Sleep { ms: 1_500 }).await.unwrap();
        assert_eq!(client.call::<Whoami>("test.whoami", &()).await.unwrap(), known);
        client.shut_down().await;
    }
    for client in [
        Client::connect(server.url()).auth(Auth::bearer("wrong")).psk(psk(7)),
        Client::connect(server.url()).auth(Auth::bearer("t0ken")).psk(psk(8)),
        Client::connect(server.url()).auth(Auth::bearer("t0ken")).psk(Psk::new("site-9", [7; 16])),
        Client::connect(server.url()).auth(Auth::bearer("t0ken")),
        Client::connect(server.url()).psk(psk(7)),
    ] {
        let error = client.build().await.unwrap_err().to_string();
        assert!(error.contains("unauthenticated"), "{error}");
    }
    let plain = PythonServer::start();
    let error = Client::connect(plain.url()).psk(psk(7)).build().await.unwrap_err().to_string();
    assert!(error.contains("pre-shared key"), "{error}");
}

// spec: §8.6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_and_python_leave_each_other_in_order() {
    if !has_python() {
        return;
    }
    let (server, port) = rust_server(|builder| builder).await;
    let drain = async {
        eventually("it has called", || server.peers().iter().any(|peer| peer.stats().requests_running == 1))
            .await;
        server.drain(Duration::from_secs(20)).await
    };
    let (said, report) = tokio::join!(peer("call", &port, &["sleep", r#"{"ms": 500}"#]), drain);
    assert_eq!(said, (0, "{\"result\": \"slept\"}\n".into()));
    assert_eq!((report.finished, report.cut), (1, 0));

    let python = PythonServer::start();
    let client = Client::connect(python.url()).build().await.unwrap();
    let open = client.call::<()>("sleep", &Sleep { ms: 500 }).start().await.unwrap();
    client.call::<()>("test.drain", &Deadline { deadline_ms: 20_000 }).await.unwrap();
    eventually("it is told", || client.draining().is_some()).await;
    // What is open comes to its end, and what is new goes to the next session.
    open.await.unwrap();
    assert_eq!(client.call::<u64>("echo", &5).await, Ok(5));
    assert_eq!(client.state(), State::Connected);
    client.shut_down().await;
}

#[derive(Debug, Serialize)]
struct Deadline {
    deadline_ms: u64,
}
