//! What becomes of messages that are published with acknowledgement.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{Code, Error, Fate, Hub, Message, Overflow, PublishError, Qos, QueueLimits, Tokio, Undelivered};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use futures_util::FutureExt;
use tokio::sync::mpsc;

matrix! {
    the_lower_mode_counts
    what_a_handler_does_not_accept_comes_again
    what_is_dropped_without_an_answer_comes_again
    a_handler_that_panics_costs_an_attempt
    what_is_refused_for_good_does_not_come_again
    the_last_attempt_ends_it
    a_subscriber_that_never_answers_is_given_up
    an_answer_after_the_end_has_no_effect
    a_publication_that_is_refused_is_given_up_in_the_end
    a_publication_is_lost_with_its_connection
    publications_wait_for_room_in_order
    who_does_not_wait_loses_the_message
    a_publication_goes_on_when_nobody_waits_for_its_fate
}

const BOTH: [Qos; 2] = [Qos::AtLeastOnce, Qos::ExactlyOnce];

/// What a hub could not deliver.
type Lost = Arc<Mutex<Vec<Undelivered>>>;

/// A server whose hub notes what it could not deliver, after `change`.
async fn noting(net: Net, attempts: u32, queue: QueueLimits) -> (Site, Lost) {
    let lost = Lost::default();
    let note = lost.clone();
    let hub = Hub::builder(Tokio).attempts(attempts).queue(queue);
    let hub = hub.on_undelivered(move |undelivered| note.lock().unwrap().push(undelivered)).build();
    let change = |config: &mut fluxar::Config| {
        config.attempts = attempts;
        config.ack_timeout = Duration::from_millis(300);
    };
    (Site::with(net, |builder| builder.hub(hub).configure(change)).await, lost)
}

/// So small that the second message is too much.
fn one() -> QueueLimits {
    QueueLimits { items: 1, ..QueueLimits::default() }
}

// spec: §12.3, §12.5
async fn the_lower_mode_counts(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut remote = client.messages("x").qos(Qos::AtLeastOnce).await.unwrap();
    let mut local = site.handle().hub().messages("x").qos(Qos::AtLeastOnce).await.unwrap();
    assert_eq!((remote.qos(), local.qos()), (Qos::AtLeastOnce, Qos::AtLeastOnce));
    for (published, delivered) in [
        (Qos::AtMostOnce, Qos::AtMostOnce),
        (Qos::AtLeastOnce, Qos::AtLeastOnce),
        (Qos::ExactlyOnce, Qos::AtLeastOnce),
    ] {
        client.publish("x", &1).qos(published).await.unwrap();
        for messages in [&mut remote, &mut local] {
            let message = messages.next().await.unwrap();
            assert_eq!(message.qos(), delivered);
            message.ack().await.unwrap();
        }
    }
}

/// What a handler saw of each attempt.
type Attempts = mpsc::UnboundedReceiver<(u32, bool)>;

/// A handler that fails before it accepts.
fn failing_once(
    fail: impl Fn() -> Result<(), Error> + Clone + Send + Sync + 'static,
) -> (impl Fn(Message) -> futures_util::future::BoxFuture<'static, Result<(), fluxar::HandlerError>>, Attempts)
{
    let (saw, attempts) = mpsc::unbounded_channel();
    let handler = move |message: Message| {
        let (saw, fail) = (saw.clone(), fail.clone());
        async move {
            saw.send((message.attempt(), message.is_duplicate())).unwrap();
            if message.attempt() == 1 {
                fail()?;
            }
            Ok(())
        }
        .boxed()
    };
    (handler, attempts)
}

// spec: §12.8
async fn what_a_handler_does_not_accept_comes_again(net: Net) {
    for qos in BOTH {
        let site = Site::open(net).await;
        let client = site.client().await;
        let why = || Err(Error::unavailable("not now").with_retry_after_ms(1));
        let (remote, mut seen) = failing_once(why);
        client.subscribe("x", remote).await.unwrap();
        let (local, mut here) = failing_once(why);
        let handle = site.handle().hub().subscribe("x", local).await.unwrap();
        client.publish("x", &1).qos(qos).await.unwrap();
        for seen in [&mut seen, &mut here] {
            assert_eq!(seen.recv().await, Some((1, false)));
            assert_eq!(seen.recv().await, Some((2, true)));
        }
        eventually("all is answered", || handle.stats().unsettled == 0).await;
        assert_eq!(site.handle().hub().stats().undelivered, 0);
    }
}

// spec: §12.8, §12.14
async fn what_is_dropped_without_an_answer_comes_again(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut remote = client.messages("x").await.unwrap();
    let mut local = site.handle().hub().messages("x").await.unwrap();
    client.publish("x", &1).qos(Qos::ExactlyOnce).await.unwrap();
    for messages in [&mut remote, &mut local] {
        drop(messages.next().await.unwrap());
        let message = messages.next().await.unwrap();
        assert_eq!((message.attempt(), message.is_duplicate(), message.seq()), (2, true, None));
        message.ack().await.unwrap();
    }
}

// spec: §12.8
async fn a_handler_that_panics_costs_an_attempt(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let (remote, mut seen) = failing_once(|| panic!("on purpose"));
    client.subscribe("x", remote).await.unwrap();
    let (local, mut here) = failing_once(|| panic!("on purpose"));
    site.handle().hub().subscribe("x", local).await.unwrap();
    client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap();
    for seen in [&mut seen, &mut here] {
        assert_eq!(seen.recv().await, Some((1, false)));
        assert_eq!(seen.recv().await, Some((2, true)));
    }
}

// spec: §12.8
async fn what_is_refused_for_good_does_not_come_again(net: Net) {
    let (site, lost) = noting(net, 5, QueueLimits::default()).await;
    let client = site.client().await;
    let seen = Counter::new();
    for (at_hub, subscriber) in [(false, site.client().await), (true, site.client().await)] {
        let count = seen.clone();
        // What cannot be decoded is one of those.
        let handler = move |message: Message| {
            let count = count.clone();
            async move {
                count.add();
                message.payload::<String>()?;
                Ok(())
            }
        };
        match at_hub {
            true => site.handle().hub().subscribe("x", handler).await.unwrap(),
            false => subscriber.subscribe("x", handler).await.unwrap(),
        };
        // The publisher has done its part.
        assert!(client.publish("x", &1).qos(Qos::AtLeastOnce).await.is_ok());
        eventually("it is told", || !lost.lock().unwrap().is_empty()).await;
        if !at_hub {
            subscriber.close();
            eventually("it is gone", || site.handle().hub().stats().subscriptions == 0).await;
        }
        let undelivered = lost.lock().unwrap().remove(0);
        assert_eq!((undelivered.topic(), undelivered.attempts()), ("x", 1));
        assert_eq!(undelivered.error().code, Code::INVALID_ARGUMENT);
        assert_eq!(undelivered.subscriber().is_none(), at_hub);
        assert_eq!(undelivered.raw().decode::<u32>(), Ok(1));
    }
    assert_eq!((seen.get(), site.handle().hub().stats().undelivered), (2, 2));
}

// spec: §12.8
async fn the_last_attempt_ends_it(net: Net) {
    let (site, lost) = noting(net, 2, QueueLimits::default()).await;
    let client = site.client().await;
    let handler = |_| async { Err(Error::unavailable("never").with_retry_after_ms(1).into()) };
    client.subscribe("x", handler).await.unwrap();
    site.handle().hub().subscribe("x", handler).await.unwrap();
    client.publish("x", &1).qos(Qos::ExactlyOnce).await.unwrap();
    eventually("both are given up", || lost.lock().unwrap().len() == 2).await;
    for undelivered in &*lost.lock().unwrap() {
        assert_eq!((undelivered.attempts(), undelivered.error().code), (2, Code::UNAVAILABLE));
    }
}

// spec: §12.8, §12.11
async fn a_subscriber_that_never_answers_is_given_up(net: Net) {
    let (site, lost) = noting(net, 2, QueueLimits::default()).await;
    let client = site.client().await;
    let mut messages = client.messages("x").await.unwrap();
    client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap();
    let message = messages.next().await.unwrap();
    eventually("it is given up", || lost.lock().unwrap().len() == 1).await;
    let undelivered = lost.lock().unwrap().remove(0);
    assert_eq!((undelivered.attempts(), undelivered.error().code), (2, Code::DEADLINE_EXCEEDED));
    assert_eq!(undelivered.subscriber(), Some(&site.peer().await));
    // It was not handed out again meanwhile, and the answer still helps the sender to forget it.
    assert!(messages.next().now_or_never().is_none());
    message.ack().await.unwrap();
}

// spec: §12.4
async fn an_answer_after_the_end_has_no_effect(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut remote = client.messages("x").await.unwrap();
    let mut local = site.handle().hub().messages("x").await.unwrap();
    client.publish("x", &1).qos(Qos::ExactlyOnce).await.unwrap();
    let held = [remote.next().await.unwrap(), local.next().await.unwrap()];
    drop((remote, local));
    for message in held {
        let error = Error::from(message.ack().await.unwrap_err());
        assert_eq!(error.code, Code::CANCELLED);
    }
}

// spec: §12.8, §12.16
async fn a_publication_that_is_refused_is_given_up_in_the_end(net: Net) {
    let hub = Hub::builder(Tokio).retain(1, 1 << 20).build();
    let site = Site::with(net, |builder| builder.hub(hub)).await;
    let client = site.connect().configure(|config| config.attempts = 2).build().await.unwrap();
    client.publish("a", &1).qos(Qos::AtLeastOnce).retain().await.unwrap();
    let error = client.publish("b", &1).qos(Qos::AtLeastOnce).retain().await.unwrap_err();
    let PublishError::GivenUp { error, attempts } = error else { panic!("{error}") };
    assert_eq!((error.code, attempts), (Code::RESOURCE_EXHAUSTED, 2));
    assert_eq!(site.handle().hub().stats().refused, 2);
}

// spec: §12.13
async fn a_publication_is_lost_with_its_connection(net: Net) {
    let (site, _) = noting(net, 5, one()).await;
    let (client, subscriber) = (site.fleeting().await, site.client().await);
    let mut messages = subscriber.messages("x").await.unwrap();
    client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap();
    let held = messages.next().await.unwrap();
    // It waits for room.
    let mut second = std::pin::pin!(client.publish("x", &2).qos(Qos::AtLeastOnce).into_future());
    assert!((&mut second).now_or_never().is_none());
    eventually("it waits", || site.handle().hub().stats().waiting == 1).await;
    client.hang_up();
    let error = second.await.unwrap_err();
    let PublishError::Lost { error, attempts } = error else { panic!("{error}") };
    assert_eq!((error.code, attempts, error.is_retry_safe()), (Code::UNAVAILABLE, 1, false));
    eventually("it waits no more", || site.handle().hub().stats().waiting == 0).await;
    held.ack().await.unwrap();
}

// spec: §12.6, §12.11
async fn publications_wait_for_room_in_order(net: Net) {
    let (site, _) = noting(net, 5, one()).await;
    let client = site.connect().configure(|config| config.publish_buffer = 500).build().await.unwrap();
    let subscriber = site.client().await;
    let mut messages = subscriber.messages("x").await.unwrap();
    let client = Arc::new(client);
    let mut publishing = Vec::new();
    for number in 0..50 {
        let client = client.clone();
        publishing.push(async move { client.publish("x", &number).qos(Qos::AtLeastOnce).await });
    }
    let publishing = tokio::spawn(futures_util::future::join_all(publishing));
    for number in 0..50 {
        let message = messages.next().await.unwrap();
        assert_eq!(message.payload::<u32>().unwrap(), number);
        message.ack().await.unwrap();
    }
    for fate in publishing.await.unwrap() {
        assert_eq!(fate, Ok(Fate::Accepted { attempts: 1 }));
    }
}

// spec: §12.7
async fn who_does_not_wait_loses_the_message(net: Net) {
    let (site, _) = noting(net, 5, one()).await;
    let client = site.connect().configure(|config| config.publish_buffer = 300).build().await.unwrap();
    let subscriber = site.client().await;
    let mut messages = subscriber.messages("x").await.unwrap();
    client.publish("x", &0).qos(Qos::AtLeastOnce).await.unwrap();
    let held = messages.next().await.unwrap();
    let mut waiting = Vec::new();
    let dropped = loop {
        let mut publishing = Box::pin(client.publish("x", &1).qos(Qos::AtLeastOnce).no_wait().into_future());
        match (&mut publishing).now_or_never() {
            Some(result) => break result.unwrap_err(),
            None => waiting.push(publishing),
        }
        assert!(waiting.len() < 10);
    };
    assert_eq!(dropped, PublishError::Dropped);
    assert_eq!((dropped.error().code, dropped.attempts()), (Code::RESOURCE_EXHAUSTED, 0));
    assert!(Error::from(dropped).is_retry_safe());
    // The same at the hub itself: whoever is full does not get it.
    let hub = site.handle().hub();
    let here = hub.publish("x", &2).qos(Qos::AtLeastOnce).no_wait().await;
    assert_eq!(here, Err(PublishError::Dropped));
    held.ack().await.unwrap();
    for publishing in waiting {
        let message = messages.next().await.unwrap();
        assert_eq!(message.payload::<u32>().unwrap(), 1);
        message.ack().await.unwrap();
        publishing.await.unwrap();
    }
    assert!(messages.next().now_or_never().is_none());
}

// spec: §12.13
async fn a_publication_goes_on_when_nobody_waits_for_its_fate(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut messages = client.messages("x").when_full(Overflow::Wait).await.unwrap();
    drop(client.publish("x", &1).qos(Qos::ExactlyOnce).into_future().now_or_never());
    let message = messages.next().await.unwrap();
    assert_eq!(message.payload::<u32>().unwrap(), 1);
    message.ack().await.unwrap();
}
