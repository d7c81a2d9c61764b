//! Publications that wait for room go one after the other, in the order in which they were made.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use fluxar::{Client, Messages, PublishError, Publishing, Qos};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::site::Site;
use futures_util::FutureExt;

schedulers! {
    nobody_overtakes_who_was_called_up
    who_was_called_up_and_leaves_lets_the_next_one_go
}

/// Notes that it was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn publish(client: &Client, number: u32) -> Publishing<'_> {
    client.publish("x", &(number, "x".repeat(1000))).qos(Qos::AtLeastOnce).into_future()
}

async fn number(messages: &mut Messages) -> u32 {
    let message = messages.next().await.unwrap();
    message.ack().await.unwrap();
    message.payload::<(u32, String)>().unwrap().0
}

/// A client without room for another publication, as long as `Messages` are not taken, and those that it has published.
async fn full(site: &Site) -> (Client, Messages, u32) {
    let messages = site.handle().hub().messages("x").buffer(1, 1 << 20).await.unwrap();
    let client = site.connect().configure(|config| config.publish_buffer = 4000).build().await.unwrap();
    let mut published = 0;
    loop {
        let before = published;
        while is_taken(&client, published) {
            published += 1;
        }
        if published == before {
            return (client, messages, published);
        }
        // One has a place in the queue of the subscription: what that gives room for is filled too.
        let unsettled = || client.stats().publish_bytes / 1000;
        eventually("only the first is accepted", || unsettled() + 1 == published as usize).await;
    }
}

/// Publishes a message, where there is room.
fn is_taken(client: &Client, number: u32) -> bool {
    let publish = client.publish("x", &(number, "x".repeat(1000))).qos(Qos::AtLeastOnce).no_wait();
    match publish.into_future().now_or_never() {
        Some(Err(PublishError::Dropped)) => false,
        Some(other) => panic!("{other:?}"),
        None => true,
    }
}

// spec: §12.6
async fn nobody_overtakes_who_was_called_up(net: Net) {
    let site = Site::open(net).await;
    let (client, mut messages, published) = full(&site).await;
    let called = Arc::new(Flag::default());
    let mut first = pin!(publish(&client, 100));
    assert!(first.as_mut().poll(&mut Context::from_waker(&Waker::from(called.clone()))).is_pending());
    for expected in 0..published {
        assert_eq!(number(&mut messages).await, expected);
    }
    eventually("it is called up", || called.0.load(Ordering::Relaxed)).await;
    let mut second = pin!(publish(&client, 101));
    assert!(second.as_mut().now_or_never().is_none());
    assert!(first.as_mut().now_or_never().is_none());
    let read = async { [number(&mut messages).await, number(&mut messages).await] };
    let (first, second, read) = tokio::join!(first, second, read);
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(read, [100, 101]);
}

// spec: §12.6
async fn who_was_called_up_and_leaves_lets_the_next_one_go(net: Net) {
    let site = Site::open(net).await;
    let (client, mut messages, published) = full(&site).await;
    let called = Arc::new(Flag::default());
    let mut first = Box::pin(publish(&client, 100));
    assert!(first.as_mut().poll(&mut Context::from_waker(&Waker::from(called.clone()))).is_pending());
    let peer = client.peer();
    let next = tokio::spawn(async move {
        let publish = (101..110_u32)
            .map(|number| peer.publish("x", &(number, "x".repeat(1000))).qos(Qos::AtLeastOnce).into_future());
        futures_util::future::join_all(publish).await
    });
    tokio::task::yield_now().await;
    for expected in 0..published {
        assert_eq!(number(&mut messages).await, expected);
    }
    eventually("it is called up", || called.0.load(Ordering::Relaxed)).await;
    drop(first);
    for expected in 101..110 {
        assert_eq!(number(&mut messages).await, expected);
    }
    assert!(next.await.unwrap().iter().all(Result::is_ok));
}
