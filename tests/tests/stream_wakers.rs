//! Wakers that wait with the halves of streams, and may hold the last reference to what uses the very connection.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use fluxar::{Client, HandlerError, Raw, Stream, StreamRequest};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::signal::{Counter, Guard};
use fluxar_tests::site::Site;

schedulers! {
    a_waker_that_is_dropped_may_use_the_connection
    a_half_that_is_dropped_keeps_no_waker
    who_waits_last_is_woken
}

/// A task that owns a stream: dropping it gives that up.
struct Task {
    _stream: Mutex<Stream<Raw>>,
    _guard: Guard,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

async fn idle(_request: StreamRequest) -> Result<(), HandlerError> {
    std::future::pending().await
}

async fn site(net: Net) -> Site {
    Site::with(net, |builder| builder.handle_stream("idle", idle)).await
}

fn poll_with<F: Future>(waker: &Waker, future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(waker))
}

async fn task(client: &Client, dropped: &Counter) -> Waker {
    let stream = client.stream::<Raw>("idle", &()).await.unwrap();
    Waker::from(Arc::new(Task { _stream: Mutex::new(stream), _guard: dropped.guard() }))
}

/// Fills a stream until its sender has to wait.
async fn filled(client: &Client) -> Stream<Raw> {
    let mut stream = client.stream::<Raw>("idle", &()).await.unwrap();
    let text = "x".repeat(20_000);
    eventually("the sender has to wait", || poll_with(Waker::noop(), stream.send(&text)).is_pending()).await;
    // What there is credit for leaves meanwhile, and room with it.
    client.ping().await.unwrap();
    eventually("it has to wait again", || poll_with(Waker::noop(), stream.send(&text)).is_pending()).await;
    stream
}

async fn a_waker_that_is_dropped_may_use_the_connection(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let dropped = Counter::new();
    let mut stream = filled(&client).await;
    // Another waker takes its place.
    assert!(poll_with(&task(&client, &dropped).await, stream.next()).is_pending());
    assert!(poll_with(Waker::noop(), stream.next()).is_pending());
    assert_eq!(dropped.get(), 1);
    assert!(poll_with(&task(&client, &dropped).await, stream.send(&1)).is_pending());
    assert!(poll_with(Waker::noop(), stream.send(&1)).is_pending());
    assert_eq!(dropped.get(), 2);
    // Or the stream goes.
    assert!(poll_with(&task(&client, &dropped).await, stream.next()).is_pending());
    assert!(poll_with(&task(&client, &dropped).await, stream.send(&1)).is_pending());
    drop(stream);
    eventually("they are dropped", || dropped.get() == 4).await;
    // Or the connection.
    let mut stream = filled(&client).await;
    assert!(poll_with(&task(&client, &dropped).await, stream.next()).is_pending());
    assert!(poll_with(&task(&client, &dropped).await, stream.send(&1)).is_pending());
    client.close();
    eventually("they are woken and dropped", || dropped.get() == 6).await;
    assert!(poll_with(Waker::noop(), stream.next()).is_ready());
}

async fn a_half_that_is_dropped_keeps_no_waker(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let dropped = Counter::new();
    for number in 1..=2 {
        let (mut sender, mut receiver) = filled(&client).await.split();
        if number == 1 {
            assert!(poll_with(&task(&client, &dropped).await, receiver.next()).is_pending());
            drop(receiver);
            eventually("its waker is dropped", || dropped.get() == 1).await;
            assert!(poll_with(Waker::noop(), sender.send(&1)).is_ready());
        } else {
            assert!(poll_with(&task(&client, &dropped).await, sender.send(&1)).is_pending());
            drop(sender);
            eventually("its waker is dropped", || dropped.get() == 2).await;
            assert!(poll_with(Waker::noop(), receiver.next()).is_ready());
        }
    }
}

/// Knows whether it was woken.
struct Bell(Counter);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.add();
    }
}

async fn who_waits_last_is_woken(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle_stream("idle", idle).handle_stream("echo", |mut request: StreamRequest| async move {
            let item: Option<Result<u8, _>> = request.next().await;
            request.send(&item.transpose()?).await?;
            Ok(())
        })
    })
    .await;
    let client = site.client().await;
    let rung: [Counter; 3] = Default::default();
    let bell = |number: usize| Waker::from(Arc::new(Bell(rung[number].clone())));
    let mut stream = client.stream::<u8>("echo", &()).await.unwrap();
    for number in 0..3 {
        assert!(poll_with(&bell(number), stream.next()).is_pending());
    }
    stream.send(&7).await.unwrap();
    rung[2].reached(1).await;
    assert_eq!(poll_with(Waker::noop(), stream.next()), Poll::Ready(Some(Ok(7))));
    assert_eq!((rung[0].get(), rung[1].get()), (0, 0));
}
