//! What waits in a hub, in front of the queues of subscriptions, is bounded, and is not forgotten.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{Client, Code, Fate, Hub, Messages, Qos, QueueLimits, Tokio, Undelivered};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::site::Site;
use fluxar_tests::{matrix, schedulers};
use futures_util::FutureExt;

matrix! {
    a_message_that_nobody_waits_for_any_more_waits_nowhere
    what_waited_for_a_subscription_that_has_ended_is_told
    members_that_come_and_go_leave_no_more_behind_than_a_queue_holds
    what_many_members_leave_behind_at_once_is_bounded
    a_last_value_comes_before_what_is_published_later
}

schedulers! {
    last_values_that_nobody_takes_are_bounded
}

/// What a hub could not deliver.
type Lost = Arc<Mutex<Vec<Undelivered>>>;

/// A site whose hub holds `items` messages for each subscription of a peer.
async fn site(net: Net, items: usize) -> (Site, Lost) {
    let lost = Lost::default();
    let note = lost.clone();
    let hub = Hub::builder(Tokio).queue(QueueLimits { items, ..QueueLimits::default() });
    let hub = hub.on_undelivered(move |undelivered| note.lock().unwrap().push(undelivered)).build();
    (Site::with(net, |builder| builder.hub(hub)).await, lost)
}

async fn number(messages: &mut Messages) -> u32 {
    let message = messages.next().await.unwrap();
    message.ack().await.unwrap();
    message.payload().unwrap()
}

// spec: §12.7
async fn a_message_that_nobody_waits_for_any_more_waits_nowhere(net: Net) {
    let (site, _) = site(net, 1).await;
    let hub = site.handle().hub();
    let mut full = hub.messages("x").buffer(1, 1 << 20).await.unwrap();
    hub.publish("x", &0).qos(Qos::AtLeastOnce).await.unwrap();
    for number in 1..1000 {
        let publish = hub.publish("x", &number).qos(Qos::AtLeastOnce);
        assert!(tokio::time::timeout(Duration::ZERO, publish.into_future()).await.is_err());
    }
    assert_eq!(hub.stats().waiting, 0);
    // What others have got it gets too, within bounds.
    let mut other = hub.messages("x").await.unwrap();
    for number in 1000..2000 {
        let publish = hub.publish("x", &number).qos(Qos::AtLeastOnce).into_future();
        assert!(publish.now_or_never().is_none());
    }
    let waiting = hub.stats().waiting;
    assert!((1..=256).contains(&waiting), "{waiting}");
    for expected in 1000..2000 {
        assert_eq!(number(&mut other).await, expected);
    }
    assert_eq!(number(&mut full).await, 0);
    for expected in (1000..2000).take(waiting) {
        assert_eq!(number(&mut full).await, expected);
    }
    assert_eq!(hub.publish("x", &2000).qos(Qos::AtLeastOnce).await, Ok(Fate::Accepted { attempts: 1 }));
    assert_eq!(number(&mut full).await, 2000);
}

// spec: §12.4
async fn what_waited_for_a_subscription_that_has_ended_is_told(net: Net) {
    let (site, lost) = site(net, 1).await;
    let (publisher, subscriber) = (site.client().await, site.client().await);
    let remote = subscriber.messages("x").await.unwrap();
    let publish = |number: u32| publisher.publish("x", &number).qos(Qos::AtLeastOnce).into_future();
    let mut all = Box::pin(futures_util::future::join_all((0..3).map(publish)));
    assert!(all.as_mut().now_or_never().is_none());
    eventually("two wait", || site.handle().hub().stats().waiting == 2).await;
    drop(remote);
    assert!(all.await.iter().all(Result::is_ok));
    let told: Vec<u32> = lost.lock().unwrap().iter().map(|lost| lost.raw().decode().unwrap()).collect();
    assert_eq!(told, [0, 1, 2]);
    assert_eq!(site.handle().hub().stats().undelivered, 3);
}

// spec: §12.15, §17.2
async fn members_that_come_and_go_leave_no_more_behind_than_a_queue_holds(net: Net) {
    let (site, lost) = site(net, 8).await;
    let hub = site.handle().hub();
    let (stuck, fickle) = (site.client().await, site.client().await);
    let mut held = stuck.messages("x").group("g").inflight(1).await.unwrap();
    let mut accepted = 0;
    let mut publish = async || {
        let fate = hub.publish("x", &accepted).qos(Qos::AtLeastOnce).no_wait().await;
        accepted += u32::from(fate.is_ok());
        fate.is_ok()
    };
    while publish().await {}
    for _ in 0..20 {
        // It takes over what the one before has left.
        let member = fickle.messages("x").group("g").inflight(1).await.unwrap();
        while publish().await {}
        drop(member);
        eventually("it has left", || hub.stats().subscriptions == 1).await;
        assert!(hub.stats().waiting <= 8, "{} wait", hub.stats().waiting);
    }
    // Nothing is lost but what was sent to five of them in vain.
    let told = hub.stats().undelivered as usize;
    eventually("all is told", || lost.lock().unwrap().len() == told).await;
    assert!(lost.lock().unwrap().iter().all(|lost| lost.attempts() == 5));
    let mut came = Vec::new();
    for _ in 0..accepted as usize - told {
        came.push(number(&mut held).await);
    }
    assert!(held.next().now_or_never().is_none());
    came.extend(lost.lock().unwrap().iter().map(|lost| lost.raw().decode::<u32>().unwrap()));
    came.sort_unstable();
    assert_eq!(came, (0..accepted).collect::<Vec<_>>());
}

// spec: §12.15, §17.2
async fn what_many_members_leave_behind_at_once_is_bounded(net: Net) {
    let (site, lost) = site(net, 8).await;
    let hub = site.handle().hub();
    let (stuck, many) = (site.client().await, site.client().await);
    let mut held = stuck.messages("x").group("g").inflight(1).await.unwrap();
    let mut members = Vec::new();
    for _ in 0..20 {
        members.push(many.messages("x").group("g").inflight(1).await.unwrap());
    }
    for number in 0..21 * 8 {
        hub.publish("x", &number).qos(Qos::AtLeastOnce).no_wait().await.unwrap();
    }
    drop(many);
    eventually("they have left", || hub.stats().subscriptions == 1).await;
    assert_eq!(hub.stats().waiting, 16 * 8);
    assert_eq!(hub.stats().undelivered, 4 * 8);
    eventually("all is told", || lost.lock().unwrap().len() == 4 * 8).await;
    assert!(lost.lock().unwrap().iter().all(|lost| lost.error().code == Code::RESOURCE_EXHAUSTED));
    for _ in 0..17 * 8 {
        number(&mut held).await;
    }
    assert!(held.next().now_or_never().is_none());
}

// spec: §12.16
async fn a_last_value_comes_before_what_is_published_later(net: Net) {
    let (site, _) = site(net, 16).await;
    let client: Client = site.client().await;
    let hub = site.handle().hub();
    for topic in 0..60 {
        hub.publish(&format!("x.{topic}"), &0).qos(Qos::AtLeastOnce).retain().await.unwrap();
    }
    let mut messages = client.messages("x.*").inflight(1).await.unwrap();
    let mut seen = BTreeMap::new();
    let mut next = async |seen: &mut BTreeMap<String, u32>| {
        let message = messages.next().await.unwrap();
        message.ack().await.unwrap();
        let (topic, number): (_, u32) = (message.topic().to_owned(), message.payload().unwrap());
        assert_eq!(message.is_retained(), number == 0, "{topic}");
        let before = seen.insert(topic.clone(), number);
        assert_eq!(before, (number == 1).then_some(0), "{topic}: the last value comes first");
    };
    for _ in 0..4 {
        next(&mut seen).await;
    }
    client.ping().await.unwrap();
    // There is some room in the queue, but it is not for these.
    assert!(hub.stats().waiting > 40);
    for topic in 0..60 {
        hub.publish(&format!("x.{topic}"), &1).await.unwrap();
    }
    while seen.len() < 60 || hub.stats().waiting > 0 {
        next(&mut seen).await;
    }
    while seen.values().all(|number| *number == 0) {
        next(&mut seen).await;
    }
    assert!(hub.stats().dropped > 0, "what waits is bounded");
}

// spec: §12.16, §17.2
async fn last_values_that_nobody_takes_are_bounded(net: Net) {
    let (site, _) = site(net, 16).await;
    let hub = site.handle().hub();
    let value = "x".repeat(4000);
    for topic in 0..4096 {
        hub.publish(&format!("x.{topic}"), &value).qos(Qos::AtLeastOnce).retain().await.unwrap();
    }
    let client = site.client().await;
    let mut held = Vec::new();
    let refused = loop {
        // 16 MiB each.
        match client.messages("x.*").inflight(1).await {
            Ok(messages) => held.push(messages),
            Err(error) => break error,
        }
        assert!(held.len() < 10);
    };
    assert_eq!(refused.code, Code::RESOURCE_EXHAUSTED);
    assert!(held.len() > 2, "{}", held.len());
    // It costs nobody else anything, and is free again.
    let other = site.client().await;
    let mut messages = other.messages("x.*").await.unwrap();
    held.clear();
    for _ in 0..4096 {
        let message = messages.next().await.unwrap();
        assert!(message.is_retained());
        message.ack().await.unwrap();
    }
    eventually("the others are gone", || hub.stats().subscriptions == 1).await;
    client.messages("x.*").inflight(1).await.unwrap();
}
