//! Streams whose connection ends under them: what each side is told, and what is still handed on.

use std::time::Duration;

use fluxar::{Client, Code, ConnectionError, Error, HandlerError, Reconnect, Server, StreamRequest};
use fluxar_proto::message::Kind;
use fluxar_tests::net::{Flavor, Net, eventually, runtime};
use fluxar_tests::schedulers;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{Message, Trap};
use tokio::sync::mpsc;

schedulers! {
    a_lost_connection_is_told_on_both_sides
    a_handler_that_has_ended_its_stream_ends_with_the_connection
    a_runtime_that_ends_tells_who_waits_for_items
    items_that_came_before_the_end_of_a_connection_are_handed_on
    streams_after_the_end_of_a_connection_fail_at_once
}

/// Neither reads nor sends.
async fn idle(_request: StreamRequest) -> Result<(), HandlerError> {
    std::future::pending().await
}

async fn site(net: Net) -> Site {
    Site::with(net, |builder| builder.handle_stream("idle", idle)).await
}

// spec: §8.8, §11.9
async fn a_lost_connection_is_told_on_both_sides(net: Net) {
    let (told, mut tell) = mpsc::unbounded_channel();
    let dropped = Counter::new();
    let site = Site::with(net, |builder| {
        let dropped = dropped.clone();
        builder.handle_stream("idle", idle).handle_stream("wait", move |mut request: StreamRequest| {
            let (told, guard) = (told.clone(), dropped.guard());
            async move {
                let _guard = guard;
                let (_sender, mut receiver) = request.split::<u64>()?;
                tokio::spawn(async move { told.send(receiver.next().await).unwrap() });
                std::future::pending::<Result<(), HandlerError>>().await
            }
        })
    })
    .await;
    let client = site.client().await;
    let peer = site.peer().await;
    let (mut sender, mut receiver) = client.stream::<u64>("wait", &()).await.unwrap().split();
    let (mut full, mut other) = client.stream::<u64>("idle", &()).await.unwrap().split();
    let text = "x".repeat(30_000);
    while tokio::time::timeout(Duration::from_millis(100), full.send(&text)).await.is_ok() {}
    eventually("both run", || peer.stats().streams_serving == 2).await;
    let ending = async {
        eventually("both wait", || client.stats().stream_queued_bytes > 60_000).await;
        peer.close_with(Error::unavailable("moved"));
    };
    let (next, sent, ()) = tokio::join!(receiver.next(), full.send(&text), ending);
    let errors = [next.unwrap().unwrap_err(), sent.unwrap_err(), sender.send(&1).await.unwrap_err()];
    for error in errors.into_iter().chain([other.next().await.unwrap().unwrap_err()]) {
        // Something was sent, so that nobody can say what became of it.
        assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None));
        assert!(error.message.contains("moved"), "{error}");
    }
    assert_eq!((receiver.next().await, other.next().await), (None, None));
    assert_eq!(tell.recv().await.unwrap().unwrap().unwrap_err().code, Code::UNAVAILABLE);
    dropped.reached(1).await;
    eventually("no handler is left", || peer.stats().streams_serving == 0).await;
}

// spec: §8.8
async fn a_handler_that_has_ended_its_stream_ends_with_the_connection(net: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let site = Site::with(net, |builder| {
        let (started, dropped) = (started.clone(), dropped.clone());
        builder.handle_stream("linger", move |mut request: StreamRequest| {
            let (started, guard) = (started.clone(), dropped.guard());
            async move {
                let _guard = guard;
                let (mut sender, mut receiver) = request.split::<u64>()?;
                match request.payload::<u8>()? {
                    0 => sender.end().await?,
                    1 => sender.fail(Error::aborted("early")),
                    _ => receiver.cancel(),
                }
                assert!(receiver.next().await.is_none_or(|item| item.is_err()));
                started.add();
                std::future::pending::<Result<(), HandlerError>>().await
            }
        })
    })
    .await;
    let client = site.client().await;
    let peer = site.peer().await;
    for how in 0..3_u8 {
        client.stream::<u64>("linger", &how).await.unwrap().finish::<Option<u8>>().await.ok();
    }
    started.reached(3).await;
    assert_eq!((peer.stats().streams_serving, dropped.get()), (3, 0));
    drop(client);
    dropped.reached(3).await;
    eventually("no handler is left", || peer.stats().streams_serving == 0).await;
}

// spec: §8.8
async fn a_runtime_that_ends_tells_who_waits_for_items(net: Net) {
    let site = site(net).await;
    let url = site.url().to_owned();
    let (stream, streams) = tokio::sync::oneshot::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let elsewhere = std::thread::spawn(move || {
        let runtime = runtime(Flavor::Multi);
        let client = runtime.block_on(Client::connect(url).build()).unwrap();
        let open = runtime.block_on(async { client.stream::<u64>("idle", &()).await }).unwrap();
        stream.send(open).unwrap();
        stopped.recv().unwrap();
        std::mem::forget(client);
        drop(runtime);
    });
    let mut orphan = streams.await.unwrap();
    let ending = async {
        eventually("the stream runs", || site.handle().peers()[0].stats().streams_serving == 1).await;
        stop.send(()).unwrap();
    };
    let (next, ()) = tokio::join!(orphan.next(), ending);
    assert_eq!(next.unwrap().unwrap_err().code, Code::UNAVAILABLE);
    assert_eq!(orphan.send(&1).await.unwrap_err().code, Code::UNAVAILABLE);
    elsewhere.join().unwrap();
}

// spec: §11.3, §8.7
async fn items_that_came_before_the_end_of_a_connection_are_handed_on(_: Net) {
    let trap = Trap::open().await;
    let (client, mut wire) = tokio::join!(
        Client::connect(trap.url()).reconnect(Reconnect::off()).build(),
        trap.with(Terms::streams())
    );
    let client = client.unwrap();
    let mut stream = client.stream::<u64>("log", &()).await.unwrap();
    let opening = wire.receive().await;
    assert_eq!((opening.kind, opening.target.as_deref()), (Kind::Stream, Some("log")));
    let mut bytes = Vec::new();
    for number in 0..100_u64 {
        bytes.extend(Message::item(opening.id).payload(&number).frame());
    }
    // And a half of one, behind which the transport ends.
    let half = Message::item(opening.id).payload(&100_u64).frame();
    bytes.extend(&half[..half.len() / 2]);
    wire.send_bytes(&bytes).await;
    drop(wire);
    assert_eq!(client.closed().await, ConnectionError::LinkLost { unread: half.len() / 2 });
    for number in 0..100 {
        assert_eq!(stream.next().await, Some(Ok(number)));
    }
    assert_eq!(stream.next().await.unwrap().unwrap_err().code, Code::UNAVAILABLE);
    assert_eq!(stream.next().await, None);
}

// spec: §8.1
async fn streams_after_the_end_of_a_connection_fail_at_once(net: Net) {
    let server = Server::bind(net.url()).handle_stream("idle", idle).build().await.unwrap();
    let site = Site::of(server);
    let client = site.client().await;
    let mut open = client.stream::<u64>("idle", &()).await.unwrap();
    client.close_with(Error::aborted("enough"));
    let error = client.stream::<u64>("idle", &()).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, Some(false)));
    assert!(error.message.contains("enough"), "{error}");
    assert_eq!(open.send(&1).await.unwrap_err().code, Code::UNAVAILABLE);
    assert_eq!(open.end().await.unwrap_err().code, Code::UNAVAILABLE);
    assert_eq!(open.next().await.unwrap().unwrap_err().code, Code::UNAVAILABLE);
    assert_eq!(open.next().await, None);
    open.cancel();
    open.fail(Error::aborted("too late"));
    assert!(open.finish::<u64>().await.is_err());
}
