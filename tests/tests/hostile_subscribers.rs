//! Hubs against subscribers that take nothing, refuse everything or come and go, and against publishers that want too much
//! kept.

use std::time::Duration;

use fluxar::{Code, Error, Fate, Hub, Overflow, Qos, QueueLimits, Tokio};
use fluxar_proto::message::{Id, Kind};
use fluxar_tests::hubs::{Topics, few, hub_with, refused};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::signal::Counter;
use fluxar_tests::topics::{answer_to, subscribed};
use fluxar_tests::wire::{Message, fresh_id};

schedulers! {
    a_subscriber_that_never_acknowledges_holds_up_itself
    a_subscriber_that_refuses_everything_is_given_up
    a_subscriber_that_never_reads_loses_what_it_has_no_room_for
    a_flood_of_last_values_is_bounded
    members_that_never_acknowledge_or_leave_keep_nothing_from_others
}

// spec: §12.7, §12.8, §12.11
async fn a_subscriber_that_never_acknowledges_holds_up_itself(net: Net) {
    let closing = hub_with(few(50, Overflow::Close));
    let topics = Topics::open(net, |builder| builder.hub(closing.clone())).await;
    let mut deaf = topics.wire().await;
    let subscription = subscribed(&mut deaf, &Message::subscribe("a.b").qos(2).with("inflight", &7)).await;
    let honest = topics.0.site.client().await;
    let mut messages = honest.messages("a.b").qos(Qos::ExactlyOnce).await.unwrap();
    let mut ended = None;
    for number in 0..200_u32 {
        honest.publish("a.b", &number).qos(Qos::ExactlyOnce).await.unwrap();
        let message = messages.next().await.unwrap();
        assert_eq!(message.payload::<u32>(), Ok(number));
        message.ack().await.unwrap();
    }
    let mut got = 0;
    while ended.is_none() {
        let message = answer_to(&mut deaf, subscription).await;
        match message.kind {
            Kind::Message => got += 1,
            _ => ended = message.error,
        }
    }
    // As many as it allows, and then the end, for which it has to answer itself.
    assert_eq!((got, ended.unwrap().code), (7, Code::RESOURCE_EXHAUSTED));
    deaf.ping().await;
    deaf.send(&Message::unsubscribe(subscription)).await;
    deaf.send(&Message::ack(fresh_id())).await;
    deaf.ping().await;
    // What it was to get: as many as its queue holds, and the one that was too many.
    assert_eq!(topics.hub().stats().undelivered, 51);
    drop((messages, honest, deaf));
    topics.unharmed().await;
}

// spec: §12.8, §12.13
async fn a_subscriber_that_refuses_everything_is_given_up(net: Net) {
    let gone = Counter::new();
    let told = gone.clone();
    let hub = Hub::builder(Tokio).on_undelivered(move |_| told.add()).build();
    let topics = Topics::open(net, |builder| {
        builder.hub(hub).configure(|config| {
            config.attempts = 3;
            config.ack_timeout = Duration::from_millis(100);
        })
    })
    .await;
    let mut wire = topics.wire().await;
    let subscription = subscribed(&mut wire, &Message::subscribe("a.b").qos(1)).await;
    // Refused each time; refused for good; not answered at all.
    let answers: [fn(Id) -> Option<Message>; 3] = [
        |id| Some(Message::nack(id, Error::unavailable("later").with_retry_after_ms(1))),
        |id| Some(Message::nack(id, Error::permission_denied("never"))),
        |_| None,
    ];
    for (round, (answer, attempts)) in answers.into_iter().zip([3_u32, 1, 3]).enumerate() {
        topics.hub().publish("a.b", "hello").qos(Qos::AtLeastOnce).await.unwrap();
        for attempt in 1..=attempts {
            let delivery = answer_to(&mut wire, subscription).await;
            let said = delivery.says("attempt").unwrap_or(1);
            assert_eq!((said, delivery.decode::<String>()), (attempt.into(), "hello".into()));
            if let Some(answer) = answer(delivery.id) {
                wire.send(&answer).await;
            }
        }
        gone.reached(round + 1).await;
    }
    // One that asks for eternity holds up its own message only.
    topics.hub().publish("a.b", "hello").qos(Qos::AtLeastOnce).await.unwrap();
    let delivery = answer_to(&mut wire, subscription).await;
    let never = Error::unavailable("never").with_retry_after_ms(u64::MAX);
    wire.send(&Message::nack(delivery.id, never)).await;
    topics.hub().publish("a.b", "next").qos(Qos::AtLeastOnce).await.unwrap();
    let delivery = answer_to(&mut wire, subscription).await;
    assert_eq!(delivery.decode::<String>(), "next");
    assert_eq!(topics.hub().stats().undelivered, 3);
    drop(wire);
    // It ends with the subscription, as what was not answered.
    gone.reached(5).await;
    topics.unharmed().await;
}

// spec: §12.7, §8.4
async fn a_subscriber_that_never_reads_loses_what_it_has_no_room_for(net: Net) {
    let dropping = hub_with(QueueLimits { items: 100, bytes: 1 << 20, overflow: Overflow::DropOldest });
    let topics =
        Topics::open(net, |builder| builder.hub(dropping.clone()).write_timeout(Duration::from_millis(300)))
            .await;
    let mut deaf = topics.wire().await;
    subscribed(&mut deaf, &Message::subscribe("a.>")).await;
    let peer = topics.peer().await;
    let honest = topics.0.site.client().await;
    let mut messages = honest.messages("a.b").qos(Qos::AtMostOnce).await.unwrap();
    let text = "x".repeat(50_000);
    let mut number = 0_u32;
    // Until the transport takes no more, and then the connection is given up.
    while peer.error().is_none() {
        honest.publish("a.b", &(number, &text)).qos(Qos::AtLeastOnce).await.unwrap();
        let message = messages.next().await.unwrap();
        assert_eq!(message.payload::<(u32, String)>().unwrap().0, number);
        number += 1;
    }
    let stats = topics.hub().stats();
    assert!(stats.dropped > 0 && stats.delivered >= 2 * u64::from(number) - stats.dropped, "{stats:?}");
    drop((deaf, messages, honest));
    topics.unharmed().await;
}

// spec: §12.16, §15.3
async fn a_flood_of_last_values_is_bounded(net: Net) {
    let keeping = Hub::builder(Tokio).retain(100, 64 << 10).build();
    let topics = Topics::open(net, |builder| builder.hub(keeping.clone())).await;
    let mut wire = topics.wire().await;
    let value = |number: u32| Message::publication(&format!("a.{number}")).with("retain", &true);
    let mut refusals = 0;
    for number in 0..500 {
        let publication = value(number).qos(1).payload(&number);
        wire.send(&publication).await;
        let answer = answer_to(&mut wire, publication.id).await;
        if let Some(error) = answer.error {
            assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
            refusals += 1;
        }
    }
    assert_eq!((refusals, topics.hub().stats().retained), (400, 100));
    // Nor are those taken for which nobody waits, or those that grow.
    wire.send(&value(1000).payload("one more")).await;
    let large = value(1).qos(1).payload(&"x".repeat(100 << 10));
    refused(&mut wire, &large, Code::RESOURCE_EXHAUSTED).await;
    assert_eq!(topics.hub().stats().retained, 100);
    assert!(topics.hub().stats().retained_bytes <= 64 << 10);
    // A late subscriber gets what there is, once.
    let all = subscribed(&mut wire, &Message::subscribe("a.*")).await;
    for _ in 0..100 {
        let delivery = answer_to(&mut wire, all).await;
        assert!(delivery.decode::<u32>() < 100);
    }
    for number in 0..100 {
        wire.send(&value(number)).await;
    }
    wire.ping().await;
    eventually("all are cleared", || topics.hub().stats().retained == 0).await;
    assert_eq!(topics.hub().stats().retained_bytes, 0);
    drop(wire);
    topics.unharmed().await;
}

// spec: §12.15
async fn members_that_never_acknowledge_or_leave_keep_nothing_from_others(net: Net) {
    let small = hub_with(few(4, Overflow::Wait));
    let topics = Topics::open(net, |builder| builder.hub(small.clone())).await;
    let honest = topics.0.site.client().await;
    let mut messages = honest.messages("work").group("g").qos(Qos::AtLeastOnce).await.unwrap();
    let member = || Message::subscribe("work").qos(1).with("group", "g").with("inflight", &2);
    let mut deaf = topics.wire().await;
    for _ in 0..3 {
        subscribed(&mut deaf, &member()).await;
    }
    let publishing = async {
        for number in 0..200_u32 {
            let fate = honest.publish("work", &number).qos(Qos::AtLeastOnce).await;
            assert!(matches!(fate, Ok(Fate::Accepted { .. })), "{fate:?}");
        }
    };
    let mut seen = [false; 200];
    let receiving = async {
        // What the others hold comes when they leave, and not before.
        let mut deaf = Some(deaf);
        for count in 0..200 {
            if count == 150 {
                deaf = None;
            }
            let message = messages.next().await.unwrap();
            let number = message.payload::<u32>().unwrap() as usize;
            assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
            message.ack().await.unwrap();
        }
        drop(deaf);
    };
    tokio::join!(publishing, receiving);
    assert!(seen.iter().all(|seen| *seen));
    // Who comes and goes with each message takes none along.
    for number in 0..50_u32 {
        let mut visitor = topics.wire().await;
        let subscription = subscribed(&mut visitor, &member()).await;
        honest.publish("work", &number).qos(Qos::AtLeastOnce).await.unwrap();
        if number % 2 == 0 {
            visitor.send(&Message::unsubscribe(subscription)).await;
            visitor.ping().await;
        }
        drop(visitor);
        let message = messages.next().await.unwrap();
        assert_eq!(message.payload::<u32>(), Ok(number));
        message.ack().await.unwrap();
    }
    drop((messages, honest));
    topics.unharmed().await;
}
