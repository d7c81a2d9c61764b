//! What a `Peer` and a `Request` promise beyond calls, over a real socket.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fluxar_tokio::{Client, Raw, Request, Server};
use tokio::sync::{Notify, oneshot};
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
