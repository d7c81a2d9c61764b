//! Hubs: who gets what is published.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use fluxar::{Hub, Message, Messages, Qos, QueueLimits, Server, Tokio, Undelivered};
use fluxar_proto::message::Kind;
use fluxar_tests::hubs::Topics;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::topics::answer_to;
use fluxar_tests::{matrix, wire};
use futures_util::FutureExt;

matrix! {
    a_message_reaches_many_subscribers
    what_a_peer_publishes_before_it_subscribes_it_does_not_get
    a_group_shares_the_work
    a_group_is_told_by_name_and_filter
    members_without_room_are_passed_over
    what_a_member_leaves_behind_goes_to_another
    what_a_local_member_leaves_behind_goes_to_another
    what_the_last_member_leaves_behind_is_told
    the_last_value_comes_first
    a_last_value_can_be_replaced_and_cleared
    last_values_are_bounded
    a_shared_hub_is_a_bridge
    a_hub_outlives_its_servers_and_ends_its_subscriptions
    messages_of_many_publishers_keep_their_order
    subscriptions_come_and_go_in_the_middle_of_it
}

async fn subscriptions(site: &Site, count: usize) {
    eventually("the subscriptions are there", || site.handle().hub().stats().subscriptions == count).await;
}

async fn number(messages: &mut Messages) -> u32 {
    let message = messages.next().await.unwrap();
    message.ack().await.unwrap();
    message.payload().unwrap()
}

// spec: §12.5
async fn a_message_reaches_many_subscribers(net: Net) {
    let site = Site::open(net).await;
    let publisher = site.client().await;
    let mut subscribers = Vec::new();
    for _ in 0..16 {
        let (client, mut all) = (site.client().await, Vec::new());
        for _ in 0..4 {
            all.push(client.messages("x").await.unwrap());
        }
        subscribers.push((client, all));
    }
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        publisher.publish("x", &7).qos(qos).await.unwrap();
        for messages in subscribers.iter_mut().flat_map(|(_, all)| all) {
            assert_eq!(number(messages).await, 7);
        }
    }
    let stats = site.handle().hub().stats();
    assert_eq!((stats.published, stats.delivered, stats.dropped), (3, 192, 0));
}

// spec: §12.15
async fn a_group_shares_the_work(net: Net) {
    let site = Site::open(net).await;
    let (client, other) = (site.client().await, site.client().await);
    let hub = site.handle().hub();
    let mut members = [
        client.messages("x").group("workers").await.unwrap(),
        hub.messages("x").group("workers").await.unwrap(),
        other.messages("x").group("workers").await.unwrap(),
    ];
    let mut alone = client.messages("x").await.unwrap();
    for n in 0..30 {
        client.publish("x", &n).qos(Qos::AtLeastOnce).await.unwrap();
        assert_eq!(number(&mut alone).await, n);
    }
    let mut all = BTreeSet::new();
    for member in &mut members {
        for _ in 0..10 {
            assert!(all.insert(number(member).await), "nobody else has got it");
        }
        assert!(member.next().now_or_never().is_none());
    }
    assert_eq!(all, (0..30).collect());
}

// spec: §12.15
async fn a_group_is_told_by_name_and_filter(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut others = [
        client.messages("x").group("a").await.unwrap(),
        client.messages("x").group("A").await.unwrap(),
        client.messages("*").group("a").await.unwrap(),
        client.messages(">").group("a").await.unwrap(),
    ];
    client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap();
    for messages in &mut others {
        assert_eq!(number(messages).await, 1);
    }
}

fn one() -> QueueLimits {
    QueueLimits { items: 1, ..QueueLimits::default() }
}

// spec: §12.15
async fn members_without_room_are_passed_over(net: Net) {
    let site = Site::with(net, |builder| builder.hub(Hub::builder(Tokio).queue(one()).build())).await;
    let client = site.client().await;
    let hub = site.handle().hub();
    // Two that never answer, and two that do.
    let mut idle = client.messages("x").group("g").await.unwrap();
    let mut asleep = hub.messages("x").group("g").buffer(1, 1 << 20).await.unwrap();
    for n in 0..2 {
        client.publish("x", &n).qos(Qos::AtLeastOnce).await.unwrap();
    }
    let held = [idle.next().await.unwrap(), asleep.next().await.unwrap()];
    let seen = Counter::new();
    let count = seen.clone();
    let handler = move |_: Message| {
        count.add();
        async { Ok(()) }
    };
    client.subscribe("x", handler.clone()).group("g").await.unwrap();
    hub.subscribe("x", handler).group("g").await.unwrap();
    for n in 0..100 {
        client.publish("x", &n).qos(Qos::AtLeastOnce).await.unwrap();
    }
    seen.reached(100).await;
    for message in held {
        message.ack().await.unwrap();
    }
}

// spec: §12.15
async fn what_a_member_leaves_behind_goes_to_another(net: Net) {
    for cut in [true, false] {
        let site = Site::open(net).await;
        let (leaving, staying, publisher) = (site.fleeting().await, site.client().await, site.client().await);
        // It takes one, so that the others wait at the hub.
        let mut first = leaving.messages("x").group("g").inflight(1).await.unwrap();
        for n in 0..3 {
            publisher.publish("x", &n).qos(Qos::ExactlyOnce).await.unwrap();
        }
        let held = first.next().await.unwrap();
        let mut second = staying.messages("x").group("g").await.unwrap();
        if cut {
            leaving.hang_up();
        } else {
            drop(first);
        }
        for n in 0..3 {
            let message = second.next().await.unwrap();
            assert_eq!(message.payload::<u32>().unwrap(), n);
            // What was sent to the other may have been handled.
            let expected = if n == 0 { (2, true) } else { (1, false) };
            assert_eq!((message.attempt(), message.is_duplicate()), expected);
            message.ack().await.unwrap();
        }
        // A connection that is being cut may still take an answer, and nobody gets it.
        assert!(held.ack().await.is_err() || cut);
        assert_eq!(site.handle().hub().stats().undelivered, 0);
    }
}

// spec: §12.15
async fn what_a_local_member_leaves_behind_goes_to_another(net: Net) {
    let site = Site::open(net).await;
    let publisher = site.client().await;
    let hub = site.handle().hub();
    let mut first = hub.messages("x").group("g").await.unwrap();
    for n in 0..3 {
        publisher.publish("x", &n).qos(Qos::ExactlyOnce).await.unwrap();
    }
    let _held = first.next().await.unwrap();
    let mut remote = publisher.messages("x").group("g").await.unwrap();
    drop(first);
    for n in 0..3 {
        let message = remote.next().await.unwrap();
        assert_eq!(message.payload::<u32>().unwrap(), n);
        let expected = if n == 0 { (2, true) } else { (1, false) };
        assert_eq!((message.attempt(), message.is_duplicate()), expected);
    }
    let mut third = hub.messages("x").group("g").await.unwrap();
    drop(remote);
    for n in 0..3 {
        let message = third.next().await.unwrap();
        assert_eq!((message.payload::<u32>().unwrap(), message.is_duplicate()), (n, true));
        assert_eq!(message.attempt(), if n == 0 { 3 } else { 2 });
        message.ack().await.unwrap();
    }
}

// spec: §12.4, §12.15
async fn what_the_last_member_leaves_behind_is_told(net: Net) {
    let lost = Arc::new(Mutex::new(Vec::<Undelivered>::new()));
    let note = lost.clone();
    let hub = Hub::builder(Tokio).on_undelivered(move |undelivered| note.lock().unwrap().push(undelivered));
    let site = Site::with(net, |builder| builder.hub(hub.build())).await;
    let client = site.client().await;
    let mut grouped = client.messages("x").group("g").inflight(1).await.unwrap();
    let mut alone = client.messages("x").inflight(1).await.unwrap();
    let mut local = site.handle().hub().messages("x").await.unwrap();
    for n in 0..2 {
        client.publish("x", &n).qos(Qos::AtLeastOnce).await.unwrap();
        client.publish("x", &n).await.unwrap();
    }
    let _held = (grouped.next().await, alone.next().await, local.next().await);
    eventually("all is there", || site.handle().hub().stats().delivered == 12).await;
    client.close();
    drop(local);
    eventually("it is told", || lost.lock().unwrap().len() == 6).await;
    let lost = std::mem::take(&mut *lost.lock().unwrap());
    let attempts: Vec<u32> = lost.iter().map(Undelivered::attempts).collect();
    assert_eq!(attempts.iter().sum::<u32>(), 3, "one of each two was sent: {attempts:?}");
    assert!(lost.iter().all(|undelivered| undelivered.qos() == Qos::AtLeastOnce));
}

// spec: §12.16
async fn the_last_value_comes_first(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut before = client.messages("t.*").await.unwrap();
    client.publish("t.a", &1).qos(Qos::ExactlyOnce).retain().await.unwrap();
    client.publish("t.b", &2).retain().await.unwrap();
    client.publish("t.c", &3).qos(Qos::AtLeastOnce).await.unwrap();
    for n in 1..=3 {
        let message = before.next().await.unwrap();
        assert_eq!((message.payload::<u32>().unwrap(), message.is_retained()), (n, false));
    }
    let mut remote = client.messages("t.*").await.unwrap();
    let mut local = site.handle().hub().messages("t.*").await.unwrap();
    let mut grouped = client.messages("t.*").group("g").await.unwrap();
    client.publish("t.a", &4).qos(Qos::ExactlyOnce).await.unwrap();
    for messages in [&mut remote, &mut local] {
        for (topic, n, qos, retained) in [
            ("t.a", 1, Qos::ExactlyOnce, true),
            ("t.b", 2, Qos::AtMostOnce, true),
            ("t.a", 4, Qos::ExactlyOnce, false),
        ] {
            let message = messages.next().await.unwrap();
            assert_eq!((message.topic(), message.payload::<u32>().unwrap()), (topic, n));
            assert_eq!((message.qos(), message.is_retained()), (qos, retained));
            message.ack().await.unwrap();
        }
    }
    assert_eq!(number(&mut grouped).await, 4, "a group gets no last values");
}

// spec: §12.16
async fn a_last_value_can_be_replaced_and_cleared(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let hub = site.handle().hub();
    client.publish("a", &1).qos(Qos::AtLeastOnce).retain().await.unwrap();
    client.publish("a", &2).qos(Qos::AtLeastOnce).retain().await.unwrap();
    hub.publish("b", &3).retain().await.unwrap();
    assert_eq!(hub.stats().retained, 2);
    assert_eq!(number(&mut client.messages("a").await.unwrap()).await, 2);
    assert_eq!(number(&mut client.messages("b").await.unwrap()).await, 3);
    let mut watching = client.messages("a").await.unwrap();
    assert_eq!(number(&mut watching).await, 2);
    client.publish("a", &()).qos(Qos::AtLeastOnce).retain().await.unwrap();
    let cleared = watching.next().await.unwrap();
    assert_eq!((cleared.payload::<Option<u32>>().unwrap(), cleared.is_retained()), (None, false));
    assert_eq!(hub.stats().retained, 1);
    let mut later = client.messages("a").await.unwrap();
    client.publish("a", &9).qos(Qos::AtLeastOnce).await.unwrap();
    assert_eq!(number(&mut later).await, 9);
    drop((watching, later));
}

// spec: §12.16, §15.3
async fn last_values_are_bounded(net: Net) {
    let site = Site::with(net, |builder| builder.hub(Hub::builder(Tokio).retain(2, 1000).build())).await;
    let client = site.client().await;
    let hub = site.handle().hub();
    let mut messages = client.messages(">").await.unwrap();
    for topic in ["a", "b"] {
        client.publish(topic, &0).retain().await.unwrap();
        assert_eq!(number(&mut messages).await, 0);
    }
    // One too many, and too many bytes: neither kept nor delivered.
    assert!(hub.publish("c", &1).qos(Qos::AtLeastOnce).retain().await.is_err());
    hub.publish("a", &vec![0_u64; 1000]).retain().await.unwrap();
    client.publish("a", &2).qos(Qos::AtLeastOnce).retain().await.unwrap();
    assert_eq!(number(&mut messages).await, 2);
    let stats = hub.stats();
    assert_eq!((stats.retained, stats.refused), (2, 2));
    assert!(stats.retained_bytes <= 1000, "{stats:?}");
}

// spec: §12.5
async fn a_shared_hub_is_a_bridge(net: Net) {
    let hub = Hub::new(Tokio);
    let first = Site::of(Server::bind(net.url()).hub(hub.clone()).build().await.unwrap());
    let second = Site::of(Server::bind(net.url()).hub(hub.clone()).build().await.unwrap());
    let (here, there) = (first.client().await, second.client().await);
    let mut messages = there.messages("x").await.unwrap();
    here.publish("x", &1).qos(Qos::ExactlyOnce).await.unwrap();
    assert_eq!(number(&mut messages).await, 1);
    // A client's hub serves its server too.
    let client = first.connect().hub(hub.clone()).build().await.unwrap();
    assert_eq!(client.hub().stats(), hub.stats());
    eventually("both clients are there", || first.handle().peers().len() == 2).await;
    let peer = first.handle().peers().remove(1);
    peer.publish("x", &2).qos(Qos::AtLeastOnce).await.unwrap();
    assert_eq!(number(&mut messages).await, 2);
}

// spec: §12.12
async fn a_hub_outlives_its_servers_and_ends_its_subscriptions(net: Net) {
    let hub = Hub::new(Tokio);
    let site = Site::with(net, |builder| builder.hub(hub.clone())).await;
    let client = site.client().await;
    let mut messages = hub.messages("x").await.unwrap();
    let handle = hub.subscribe("x", |_| async { Ok(()) }).await.unwrap();
    client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap();
    client.close();
    site.close().await;
    hub.publish("x", &2).qos(Qos::AtLeastOnce).await.unwrap();
    drop(hub);
    for n in 1..=2 {
        let message = messages.next().await.unwrap();
        assert_eq!(message.payload::<u32>().unwrap(), n);
    }
    assert!(messages.next().await.is_none());
    assert!(handle.ended().await.is_some());
}

// spec: §12.6
async fn messages_of_many_publishers_keep_their_order(net: Net) {
    let hub = Hub::builder(Tokio).queue(QueueLimits { items: 8, ..QueueLimits::default() }).build();
    let site = Site::with(net, |builder| builder.hub(hub)).await;
    let client = site.client().await;
    let remote = client.messages("x").await.unwrap();
    let local = site.handle().hub().messages("x").buffer(8, 1 << 20).await.unwrap();
    let publishing = futures_util::future::join_all((0..4_u32).map(async |publisher| {
        let client = site.client().await;
        let publish =
            async |n: u32| client.publish("x", &(publisher, n)).qos(Qos::AtLeastOnce).await.unwrap();
        futures_util::future::join_all((0..200).map(publish)).await;
    }));
    let reading = [remote, local].map(|mut messages| async move {
        let mut next = [0; 4];
        while next != [200; 4] {
            let message = messages.next().await.unwrap();
            let (publisher, n): (usize, u32) = message.payload().unwrap();
            assert_eq!(n, next[publisher]);
            next[publisher] += 1;
            message.ack().await.unwrap();
        }
    });
    tokio::join!(publishing, futures_util::future::join_all(reading));
}

// spec: §12.4, §12.5
async fn subscriptions_come_and_go_in_the_middle_of_it(net: Net) {
    let hub = Hub::builder(Tokio).queue(QueueLimits { items: 2, ..QueueLimits::default() }).build();
    let site = Site::with(net, |builder| builder.hub(hub)).await;
    let (publisher, subscriber) = (site.client().await, site.client().await);
    let publishing = async {
        for n in 0..300_u32 {
            publisher.publish("x", &n).qos(Qos::AtLeastOnce).await.unwrap();
        }
    };
    let coming_and_going = async {
        for round in 0..60 {
            let remote = subscriber.messages("x").inflight(1);
            let remote = if round % 2 == 0 { remote.group("g") } else { remote };
            let mut remote = remote.await.unwrap();
            let mut local = site.handle().hub().messages("x").group("g").buffer(2, 1 << 20).await.unwrap();
            for messages in [&mut remote, &mut local] {
                // Some are taken and never answered, some never taken: nobody may be held up by that for long.
                drop(messages.next().now_or_never());
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(publishing, coming_and_going);
    subscriptions(&site, 0).await;
    assert_eq!(site.handle().hub().stats().waiting, 0);
}

// spec: §2.4
async fn what_a_peer_publishes_before_it_subscribes_it_does_not_get(net: Net) {
    let topics = Topics::open(net, |builder| builder).await;
    let mut peer = topics.wire().await;
    for qos in [0, 1, 2] {
        for _ in 0..10 {
            let publish = |number: u32| wire::Message::publication("x").qos(qos).payload(&number);
            let subscription = wire::Message::subscribe("x").qos(qos);
            // All of it in one write, so that it is handled in one turn.
            let frames = [publish(1), publish(2), subscription.clone(), publish(3)];
            peer.send_bytes(&frames.each_ref().map(wire::Message::frame).concat()).await;
            assert_eq!(answer_to(&mut peer, subscription.id).await.kind, Kind::Subscribe);
            let delivery = answer_to(&mut peer, subscription.id).await;
            assert_eq!((delivery.kind, delivery.decode::<u32>()), (Kind::Message, 3));
            peer.send(&wire::Message::unsubscribe(subscription.id)).await;
        }
    }
}
