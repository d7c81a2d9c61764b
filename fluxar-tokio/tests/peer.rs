//! What a `Peer` and a `Request` promise beyond calls, over a real socket.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fluxar_tokio::{Client, ConnectionError, Error, Raw, Reconnect, Request, Server};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

/// Far longer than anything here takes; a test that needs it has failed.
const LONG: Duration = Duration::from_secs(20);

/// A server that runs, and its URL.
async fn serve(register: impl FnOnce(&Server)) -> String {
    let server = Server::bind("tcp://127.0.0.1:0").build().await.unwrap();
    register(&server);
    let url = server.url();
    tokio::spawn(server.run());
    url
}

#[tokio::test]
async fn a_request_that_was_answered_gets_no_more_updates() {
    let over = Arc::new(Notify::new());
    let url = serve(|server| {
        let over = over.clone();
        server.handle("hand-over", move |request: Request| {
            let over = over.clone();
            async move {
                let (polled, is_polled) = oneshot::channel();
                tokio::spawn(async move {
                    let mut update = pin!(request.next_update::<Raw>());
                    let first = poll_fn(|cx| Poll::Ready(update.as_mut().poll(cx))).await;
                    assert!(first.is_pending());
                    polled.send(()).unwrap();
                    assert!(update.await.is_none());
                    over.notify_one();
                });
                // The answer goes out while that task waits.
                Ok(is_polled.await?)
            }
        });
    })
    .await;
    let client = Client::connect(url).build().await.unwrap();
    client.call::<()>("hand-over", &()).await.unwrap();
    timeout(LONG, over.notified()).await.expect("who holds the request learns that it is over");
}

#[tokio::test]
async fn whoever_shuts_down_has_told_the_peer() {
    let (ended, mut endings) = mpsc::unbounded_channel();
    let server = Server::bind("tcp://127.0.0.1:0").on_connect(move |peer| {
        let ended = ended.clone();
        async move { ended.send(peer.closed().await).unwrap() }
    });
    let server = server.build().await.unwrap();
    let url = server.url();
    tokio::spawn(server.run());
    for _ in 0..20 {
        let url = url.clone();
        let client = std::thread::spawn(move || {
            // The runtime goes down as soon as the future is ready.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { Client::connect(url).build().await.unwrap().shut_down().await })
        });
        let heard = timeout(LONG, endings.recv()).await.unwrap().unwrap();
        assert_eq!(heard, ConnectionError::ClosedByPeer(None));
        assert_eq!(client.join().unwrap(), ConnectionError::ClosedLocally(None));
    }
}

#[tokio::test]
async fn shutting_down_what_has_ended_says_why_it_ended() {
    let url = serve(|server| {
        server.handle("leave", |request: Request| async move {
            request.peer().close_with(Error::unavailable("that was all"));
            Ok(())
        });
    })
    .await;
    let client = Client::connect(url).reconnect(Reconnect::off()).build().await.unwrap();
    client.call::<()>("leave", &()).await.unwrap_err();
    let why = timeout(LONG, client.shut_down()).await.unwrap();
    assert_eq!(why, ConnectionError::ClosedByPeer(Some(Error::unavailable("that was all"))));
}

#[tokio::test]
async fn whoever_hangs_up_has_answered_but_says_no_goodbye() {
    let url = serve(|server| {
        server.handle("drop", |request: Request| async move {
            tokio::spawn(async move {
                // None: the answer is on its way.
                while request.next_update::<Raw>().await.is_some() {}
                request.peer().hang_up();
            });
            Ok(7)
        });
    })
    .await;
    let client = Client::connect(url).reconnect(Reconnect::off()).build().await.unwrap();
    assert_eq!(client.call::<u8>("drop", &()).await, Ok(7));
    let why = timeout(LONG, client.closed()).await.unwrap();
    assert_eq!(why, ConnectionError::LinkLost { unread: 0 });
}
