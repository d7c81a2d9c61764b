//! What is woken runs at once, within the call that wakes it: nothing may be woken under a lock, nor before what it was woken
//! for is there.

use std::sync::Arc;
use std::time::Duration;

use fluxar::{
    Auth, AuthKind, AuthRequest, Code, Error, Fate, Granted, HandlerError, Identity, IntoPayload, Message,
    Payload, Psk, Qos, StreamRequest, Verdict, Wanted,
};
use fluxar_runtime::{Client, ClientBuilder, Server, ServerBuilder, ServerHandle};
use fluxar_tests::eager::Eager;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::signal::Counter;
use futures_util::FutureExt;

schedulers! {
    publications_that_waited_in_the_connection_are_taken_once_there_is_room
    nothing_is_woken_under_a_lock
    credentials_are_shown_and_renewed
}

struct Running {
    url: String,
    handle: ServerHandle,
    over: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn server(net: Net, change: impl FnOnce(ServerBuilder<Eager>) -> ServerBuilder<Eager>) -> Running {
    let server: Server<Eager> = change(ServerBuilder::new(Eager).listen(net.url())).build().await.unwrap();
    let (url, handle) = (server.url(), server.server_handle());
    Running { url, handle, over: tokio::spawn(server.run()) }
}

impl Running {
    async fn client(&self) -> Client<Eager> {
        let builder = ClientBuilder::new(Eager, &self.url);
        builder.configure(|config| config.publish_buffer = 64 << 20).build().await.unwrap()
    }

    async fn close(self) {
        self.handle.stop();
        self.over.await.unwrap().unwrap();
    }
}

// spec: §12.5, §12.7
async fn publications_that_waited_in_the_connection_are_taken_once_there_is_room(net: Net) {
    let server = server(net, |builder| builder).await;
    let hub = server.handle.hub().clone();
    let mut messages = hub.messages("x").buffer(1024, 16 << 20).inflight(1024).await.unwrap();
    let large = "x".repeat(256 << 10);
    for _ in 0..60 {
        hub.publish("x", &large).qos(Qos::AtLeastOnce).await.unwrap();
    }
    // The hub takes 4 MiB that wait for room; the rest waits in the connection.
    let client = server.client().await;
    let publish = (0..23).map(|_| client.publish("x", &large).qos(Qos::AtLeastOnce).into_future());
    let mut publish = futures_util::future::join_all(publish);
    assert!((&mut publish).now_or_never().is_none());
    eventually("the hub takes no more", || hub.stats().waiting >= 16).await;
    client.ping().await.unwrap();
    for _ in 0..83 {
        let message = tokio::time::timeout(Duration::from_secs(10), messages.next());
        message.await.expect("it comes, too").unwrap().ack().await.unwrap();
    }
    assert!(publish.await.iter().all(|fate| *fate == Ok(Fate::Accepted { attempts: 1 })));
    drop((client, messages));
    server.close().await;
}

// spec: §12.4, §12.15
async fn nothing_is_woken_under_a_lock(net: Net) {
    let server = server(net, |builder| {
        builder.handle("echo", async |request: fluxar::Request| Ok(request.payload::<u32>()?)).handle_stream(
            "echo",
            async |mut stream: StreamRequest| {
                while let Some(item) = stream.next::<u32>().await {
                    stream.send(&item?).await?;
                }
                Ok(7_u32)
            },
        )
    })
    .await;
    let (client, other) = (Arc::new(server.client().await), server.client().await);
    let handled = Counter::new();
    // Handlers that call, open streams, publish and subscribe in turn.
    let (count, peer) = (handled.clone(), client.peer());
    let handler = move |message: Message| {
        let (count, peer) = (count.clone(), peer.clone());
        async move {
            let number: u32 = message.payload()?;
            let echo: u32 = peer.call("echo", &number).await?;
            let mut stream = peer.stream::<u32>("echo", &()).await?;
            stream.send(&echo).await?;
            assert_eq!(stream.next().await.unwrap()?, number);
            assert_eq!(stream.finish::<u32>().await?, 7);
            let more = peer.messages("more").await?;
            peer.publish("done", &number).qos(Qos::ExactlyOnce).await?;
            drop(more);
            message.ack().await?;
            count.add();
            Ok(())
        }
    };
    let one = client.subscribe("work", handler.clone()).group("workers").inflight(1).await.unwrap();
    let two = other.subscribe("work", handler).group("workers").concurrency(4).await.unwrap();
    let mut done = server.handle.hub().messages("done").buffer(2, 1 << 20).await.unwrap();
    let publisher = client.clone();
    let publish = tokio::spawn(async move {
        for number in 0..50_u32 {
            publisher.publish("work", &number).qos(Qos::AtLeastOnce).await.unwrap();
        }
    });
    for round in 0..50 {
        done.next().await.unwrap().ack().await.unwrap();
        if round == 20 {
            one.unsubscribe().await;
        }
        if round == 40 {
            drop(two.ended());
        }
    }
    publish.await.unwrap();
    handled.reached(50).await;
    let waits = tokio::spawn(async move { two.ended().await });
    other.hang_up();
    assert!(waits.await.unwrap().is_some());
    drop((client, other, done));
    server.close().await;
}

/// Wants one round, in which everything is said that there is to say; renews what it knows.
async fn rounds(request: AuthRequest) -> Result<Verdict, HandlerError> {
    match (request.auth().map(Auth::kind), request.challenge(), request.identity()) {
        (Some(AuthKind::Custom { .. }), None, None) => Ok(Verdict::Challenge(Payload::null())),
        (Some(AuthKind::Custom { name: "answer", .. }), Some(_), None) | (_, None, Some(_)) => {
            Ok(Granted::new(Identity::new("ada")).expires_in(Duration::from_millis(200)).into())
        }
        _ => Err(Error::unauthenticated("no").into()),
    }
}

// spec: §6.10, §6.12, §8.5
async fn credentials_are_shown_and_renewed(net: Net) {
    let psk = || Psk::new("first", [7; 32]);
    let server = server(net, |builder| {
        builder
            .authenticator(rounds)
            .psk(psk())
            .max_failures(3, Duration::from_secs(3600))
            .authorize(|who, _| match who.identity().is_some_and(|id| id.name() == "ada") {
                true => Ok(()),
                false => Err(Error::permission_denied("not ada")),
            })
            .handle("echo", |request| async move { Ok(request.raw()) })
    })
    .await;
    let renewed = Counter::new();
    let counting = renewed.clone();
    let shown = move |wanted: Wanted| {
        let name = match wanted {
            Wanted::Challenge(_) => "answer",
            Wanted::Renewal => {
                counting.add();
                "again"
            }
            _ => "question",
        };
        async move { Ok::<_, HandlerError>(Auth::custom(name, ().to_payload()?)) }
    };
    let client = ClientBuilder::new(Eager, &server.url).psk(psk()).credentials(shown).build().await.unwrap();
    while renewed.get() < 3 {
        assert_eq!(client.call::<u8>("echo", &7).await, Ok(7));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client.authenticate(Auth::bearer("fresh")).await.unwrap();
    let guesses = (0..20).map(|_| {
        let wrong = Auth::custom("question", Payload::null());
        ClientBuilder::new(Eager, &server.url).psk(psk()).auth(wrong).build()
    });
    for guess in futures_util::future::join_all(guesses).await {
        match guess {
            Err(fluxar::ConnectError::Handshake(fluxar::ConnectionError::Refused(error))) => {
                assert!([Code::UNAUTHENTICATED, Code::RESOURCE_EXHAUSTED].contains(&error.code));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.call::<u8>("echo", &7).await, Ok(7));
    drop(client);
    server.close().await;
}
