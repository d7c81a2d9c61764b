//! What a hub does for subscribers that do not keep up.

use std::sync::{Arc, Mutex};

use fluxar::{
    Client, Code, Fate, Hub, Message, Messages, Overflow, Publishing, Qos, QueueLimits, Tokio, Undelivered,
};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::site::Site;
use futures_util::FutureExt;

matrix! {
    a_full_queue_holds_its_publishers_up
    what_is_sent_at_most_once_never_waits
    one_full_subscriber_holds_up_no_other_topic
    the_oldest_goes
    the_newest_goes
    a_full_queue_may_end_the_subscription
    bytes_count_too
    what_is_larger_than_the_subscriber_takes_is_dropped
    a_publisher_that_is_gone_waits_no_more
    a_subscriber_that_goes_lets_its_publishers_go_on
    memory_stays_bounded_however_much_is_published
}

/// What a hub could not deliver.
type Lost = Arc<Mutex<Vec<Undelivered>>>;

/// A site whose hub has such queues, and two subscribers that are full: one remote, one local. Each holds a message that it
/// has not answered, and has room for one more.
struct Full {
    site: Site,
    publisher: Client,
    _subscriber: Client,
    remote: Messages,
    local: Messages,
    held: [Message; 2],
    lost: Lost,
}

fn limits(overflow: Overflow) -> QueueLimits {
    QueueLimits { items: 2, overflow, ..QueueLimits::default() }
}

async fn full(net: Net, overflow: Overflow) -> Full {
    let lost = Lost::default();
    let note = lost.clone();
    let hub = Hub::builder(Tokio).queue(limits(overflow));
    let hub = hub.on_undelivered(move |undelivered| note.lock().unwrap().push(undelivered)).build();
    let site = Site::with(net, |builder| builder.hub(hub)).await;
    let (publisher, subscriber) = (site.client().await, site.client().await);
    let mut remote = subscriber.messages("x").inflight(1).await.unwrap();
    let hub = site.handle().hub();
    let local = hub.messages("x").inflight(1).buffer(2, 4 << 20).when_full(overflow);
    let mut local = local.await.unwrap();
    publisher.publish("x", &0).qos(Qos::AtLeastOnce).await.unwrap();
    let held = [remote.next().await.unwrap(), local.next().await.unwrap()];
    Full { site, publisher, _subscriber: subscriber, remote, local, held, lost }
}

impl Full {
    fn publish(&self, number: u32, qos: Qos) -> Publishing<'_> {
        self.publisher.publish("x", &number).qos(qos).into_future()
    }

    /// Answers what is held, and reads what there is, until `last` has come.
    async fn read(&mut self, last: u32) -> [Vec<u32>; 2] {
        for message in &self.held {
            message.ack().await.unwrap();
        }
        let read = async |messages: &mut Messages| {
            let mut read = Vec::new();
            while read.last() != Some(&last) {
                let message = messages.next().await.unwrap();
                message.ack().await.unwrap();
                read.push(message.payload().unwrap());
            }
            assert!(messages.next().now_or_never().is_none());
            read
        };
        tokio::join!(read(&mut self.remote), read(&mut self.local)).into()
    }

    fn waiting(&self) -> usize {
        self.site.handle().hub().stats().waiting
    }
}

// spec: §12.5, §12.7
async fn a_full_queue_holds_its_publishers_up(net: Net) {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut full = full(net, Overflow::Wait).await;
        assert_eq!(full.publish(1, qos).await, Ok(Fate::Accepted { attempts: 1 }));
        let client = full.publisher.peer();
        let waiting = tokio::spawn(async move {
            for number in 2..20 {
                client.publish("x", &number).qos(qos).await.unwrap();
            }
        });
        eventually("it waits in both queues", || full.waiting() == 2).await;
        // Nothing of this side's goes past it either.
        let hub = full.site.handle().hub().clone();
        let here = tokio::spawn(async move { hub.publish("x", &20).qos(qos).await });
        eventually("both wait", || full.waiting() == 4).await;
        assert!(!waiting.is_finished() && !here.is_finished());
        let read = full.read(19).await.map(|read| {
            let own = read.iter().position(|number| *number == 20).expect("it came, too");
            let mut read = read;
            read.remove(own);
            read
        });
        assert_eq!(read, [(1..20).collect::<Vec<_>>(), (1..20).collect()]);
        waiting.await.unwrap();
        assert_eq!(here.await.unwrap(), Ok(Fate::Accepted { attempts: 1 }));
        assert_eq!((full.waiting(), full.site.handle().hub().stats().dropped), (0, 0));
    }
}

// spec: §12.7
async fn what_is_sent_at_most_once_never_waits(net: Net) {
    let mut full = full(net, Overflow::Wait).await;
    full.publish(1, Qos::AtLeastOnce).await.unwrap();
    let mut waiting = full.publish(2, Qos::AtLeastOnce);
    assert!((&mut waiting).now_or_never().is_none());
    eventually("it waits", || full.waiting() == 2).await;
    for number in 3..10 {
        assert_eq!(full.publish(number, Qos::AtMostOnce).await, Ok(Fate::Queued));
    }
    eventually("they are dropped", || full.site.handle().hub().stats().dropped == 14).await;
    assert_eq!(full.waiting(), 2);
    drop(waiting);
    assert_eq!(full.read(2).await, [[1, 2], [1, 2]]);
    // There was no gap that nobody told of.
    full.publish(10, Qos::AtMostOnce).await.unwrap();
    assert_eq!(full.remote.next().await.unwrap().payload::<u32>().unwrap(), 10);
    assert_eq!(full.remote.stats().lost, 7);
    assert_eq!(full.local.next().await.unwrap().payload::<u32>().unwrap(), 10);
    assert_eq!(full.local.stats().dropped, 7);
}

// spec: §12.7
async fn one_full_subscriber_holds_up_no_other_topic(net: Net) {
    let full = full(net, Overflow::Wait).await;
    full.publish(1, Qos::AtLeastOnce).await.unwrap();
    let mut waiting = full.publish(2, Qos::AtLeastOnce);
    assert!((&mut waiting).now_or_never().is_none());
    eventually("it waits", || full.waiting() == 2).await;
    let mut other = full.publisher.messages("y").await.unwrap();
    for number in 0..50_u32 {
        full.publisher.publish("y", &number).qos(Qos::AtLeastOnce).await.unwrap();
        let message = other.next().await.unwrap();
        assert_eq!(message.payload::<u32>().unwrap(), number);
        message.ack().await.unwrap();
    }
    assert!((&mut waiting).now_or_never().is_none());
}

// spec: §12.7
async fn the_oldest_goes(net: Net) {
    let mut full = full(net, Overflow::DropOldest).await;
    for number in 1..10 {
        full.publish(number, Qos::AtLeastOnce).await.unwrap();
    }
    assert_eq!(full.read(9).await, [[9], [9]]);
    assert_eq!(full.site.handle().hub().stats().dropped, 16);
    eventually("it is told", || full.lost.lock().unwrap().len() == 16).await;
    for undelivered in &*full.lost.lock().unwrap() {
        let (code, attempts) = (undelivered.error().code, undelivered.attempts());
        assert_eq!((code, attempts), (Code::RESOURCE_EXHAUSTED, 0));
    }
    full.publish(10, Qos::AtMostOnce).await.unwrap();
    assert_eq!(full.remote.next().await.unwrap().seq(), Some(11));
    assert_eq!(full.local.next().await.unwrap().seq(), Some(11));
}

// spec: §12.7
async fn the_newest_goes(net: Net) {
    let mut full = full(net, Overflow::DropNewest).await;
    for number in 1..10 {
        full.publish(number, Qos::AtLeastOnce).await.unwrap();
    }
    assert_eq!(full.read(1).await, [[1], [1]]);
    let stats = full.site.handle().hub().stats();
    assert_eq!((stats.dropped, stats.undelivered), (16, 16));
    let lost = std::mem::take(&mut *full.lost.lock().unwrap());
    let here = lost.iter().filter(|undelivered| undelivered.subscriber().is_none());
    let here: Vec<u32> = here.map(|undelivered| undelivered.raw().decode().unwrap()).collect();
    assert_eq!(here, (2..10).collect::<Vec<_>>());
}

// spec: §12.4, §12.7
async fn a_full_queue_may_end_the_subscription(net: Net) {
    let mut full = full(net, Overflow::Close).await;
    for number in 1..4 {
        assert_eq!(full.publish(number, Qos::AtLeastOnce).await, Ok(Fate::Accepted { attempts: 1 }));
    }
    for messages in [&mut full.remote, &mut full.local] {
        while messages.next().await.is_some() {}
        assert_eq!(messages.error().unwrap().code, Code::RESOURCE_EXHAUSTED);
    }
    eventually("they are gone", || full.site.handle().hub().stats().subscriptions == 0).await;
    for message in &full.held {
        assert!(message.ack().await.is_err());
    }
    // What was held, what waited, and what was too much.
    eventually("all is told", || full.lost.lock().unwrap().len() == 6).await;
}

// spec: §12.7
async fn bytes_count_too(net: Net) {
    let limits = QueueLimits { items: 100, bytes: 1000, overflow: Overflow::DropNewest };
    let site = Site::with(net, |builder| builder.hub(Hub::builder(Tokio).queue(limits).build())).await;
    let client = site.client().await;
    let mut remote = client.messages("x").inflight(1).await.unwrap();
    let mut local = site.handle().hub().messages("x").buffer(100, 1000).when_full(Overflow::DropNewest).await;
    let local = local.as_mut().unwrap();
    for _ in 0..10 {
        client.publish("x", &"x".repeat(200)).qos(Qos::AtLeastOnce).await.unwrap();
    }
    let stats = site.handle().hub().stats();
    assert_eq!((stats.published, stats.dropped + stats.delivered), (10, 20));
    for messages in [&mut remote, local] {
        for _ in 0..stats.delivered / 2 {
            messages.next().await.unwrap().ack().await.unwrap();
        }
        assert!(messages.next().now_or_never().is_none());
    }
    assert!((4..=6).contains(&stats.delivered), "{stats:?}");
}

// spec: §12.5
async fn what_is_larger_than_the_subscriber_takes_is_dropped(net: Net) {
    let site = Site::open(net).await;
    let publisher = site.client().await;
    let small = |config: &mut fluxar::Config| config.limits.max_message = 2000;
    let subscriber = site.connect().configure(small).build().await.unwrap();
    let mut messages = subscriber.messages("x").await.unwrap();
    publisher.publish("x", &"x".repeat(3000)).qos(Qos::AtLeastOnce).await.unwrap();
    publisher.publish("x", "y").qos(Qos::AtLeastOnce).await.unwrap();
    let message = messages.next().await.unwrap();
    assert_eq!(message.payload::<String>().unwrap(), "y");
    assert_eq!((message.seq(), messages.stats().lost), (Some(2), 1));
    let stats = site.handle().hub().stats();
    assert_eq!((stats.dropped, stats.undelivered), (1, 1));
}

// spec: §12.5
async fn a_publisher_that_is_gone_waits_no_more(net: Net) {
    let mut full = full(net, Overflow::Wait).await;
    full.publish(1, Qos::AtLeastOnce).await.unwrap();
    for round in 0..5 {
        let client = full.site.fleeting().await;
        let waiting =
            (2..20_u32).map(|number| client.publish("x", &number).qos(Qos::AtLeastOnce).into_future());
        let mut waiting = futures_util::future::join_all(waiting);
        assert!((&mut waiting).now_or_never().is_none());
        eventually("they wait", || full.waiting() == 36).await;
        if round % 2 == 0 {
            client.hang_up();
        } else {
            client.close();
        }
        assert!(waiting.await.iter().all(Result::is_err));
        eventually("nobody waits any more", || full.waiting() == 0).await;
    }
    assert_eq!(full.read(1).await, [[1], [1]]);
}

// spec: §12.4, §12.5
async fn a_subscriber_that_goes_lets_its_publishers_go_on(net: Net) {
    let full = full(net, Overflow::Wait).await;
    full.publish(1, Qos::AtLeastOnce).await.unwrap();
    let mut waiting =
        Box::pin(futures_util::future::join_all((2..5).map(|n| full.publish(n, Qos::AtLeastOnce))));
    assert!(waiting.as_mut().now_or_never().is_none());
    eventually("they wait", || full.waiting() == 6).await;
    drop(waiting);
    let Full { site, publisher, remote, local, .. } = full;
    let waiting = publisher.publish("x", &5).qos(Qos::AtLeastOnce).into_future();
    drop(remote);
    drop(local);
    assert_eq!(waiting.await, Ok(Fate::Accepted { attempts: 1 }));
    assert_eq!(site.handle().hub().stats().waiting, 0);
}

// spec: §12.7, §17.2
async fn memory_stays_bounded_however_much_is_published(net: Net) {
    let full = full(net, Overflow::Wait).await;
    full.publish(1, Qos::AtLeastOnce).await.unwrap();
    let large = "x".repeat(256 << 10);
    let client =
        full.site.connect().configure(|config| config.publish_buffer = 64 << 20).build().await.unwrap();
    let publish = (0..128).map(|_| client.publish("x", &large).qos(Qos::AtLeastOnce).into_future());
    let mut waiting = futures_util::future::join_all(publish);
    assert!((&mut waiting).now_or_never().is_none());
    // Beyond 4 MiB the hub takes no more from this publisher, and what the connection holds besides is bounded too.
    eventually("they wait", || full.waiting() > 30).await;
    client.call::<u32>("count", &0).await.unwrap();
    assert!(full.waiting() <= 2 * 18, "{}", full.waiting());
    let own = full.site.client().await;
    assert_eq!(own.publish("y", &1).qos(Qos::AtLeastOnce).await, Ok(Fate::Accepted { attempts: 1 }));
}
