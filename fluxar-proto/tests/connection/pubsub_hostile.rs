//! Peers that mean no good: what they can cause is bounded, whether they read or not.

use fluxar_proto::message::{Id, Kind, key, verb};
use fluxar_proto::{Code, OutMessage, PublishOptions, Qos, QueueLimits, Stats, SubscribeOptions, Violation};

use crate::support::pubsub::{V, again, publication, requests, several};
use crate::support::{Msg, Script, cbor, id, uint};

/// Sends until the connection ends, or `most` times; how often it went well.
fn until_fatal(script: &mut Script, most: u64, mut message: impl FnMut(u64) -> Msg) -> (u64, Option<Code>) {
    for n in 0..most {
        if let Err(error) = script.send(message(n)) {
            return (n, Some(error.code()));
        }
    }
    (most, None)
}

fn flood(c: &mut fluxar_proto::Config) {
    (c.misuse_capacity, c.misuse_per_second) = (100, 1);
    c.limits.max_inflight = 10;
    c.limits.max_subscriptions = 10;
}

// spec: §10.7, §12.11
#[test]
fn publishing_beyond_the_number_in_flight_uses_up_the_budget() {
    let mut script = Script::pubsub(flood);
    let (sent, code) = until_fatal(&mut script, 1_000, |n| publication(id(n), "a", 1));
    assert_eq!((sent, code), (110, Some(Code::RESOURCE_EXHAUSTED)));
}

// spec: §10.7, §12.3, §12.4
#[test]
fn subscribing_and_unsubscribing_in_a_loop_uses_up_the_budget() {
    for reads in [false, true] {
        let mut script = Script::pubsub(flood);
        let mut rounds = 0;
        let error = loop {
            let opening = script.id();
            if let Err(error) = script.send(Msg::opening(Kind::Subscribe, opening, "a")) {
                break error;
            }
            for request in requests(&script.pubsub_events()) {
                script.connection.confirm(request.id, Qos::AtMostOnce, QueueLimits::default()).unwrap();
            }
            let end = Msg::continuation(Kind::Unsubscribe, script.id(), opening);
            if let Err(error) = script.send(end) {
                break error;
            }
            if reads {
                script.read();
            }
            assert!(script.connection.stats().subscribers <= 10);
            rounds += 1;
        };
        assert_eq!((error, rounds), (Violation::Flood.into(), 100), "{reads}");
    }
}

// spec: §10.7, §12.9
#[test]
fn releasing_what_never_was_uses_up_the_budget() {
    let mut script = Script::pubsub(flood);
    let release = |n| Msg::continuation(Kind::Message, id(1_000 + n), id(n)).verb(verb::RELEASE);
    assert_eq!(until_fatal(&mut script, 1_000, release), (100, Some(Code::RESOURCE_EXHAUSTED)));
    let mut script = Script::pubsub(flood);
    let ids = (0..100_000).map(id).collect::<Vec<Id>>();
    let error = script.send(release(0).payload(several(&ids))).unwrap_err();
    assert_eq!(error, Violation::Flood.into(), "also in one message");
}

// spec: §12.9, §17.2
#[test]
fn answers_that_nobody_reads_are_bounded() {
    // The budget would bear it: time passes.
    let mut script = Script::pubsub_with(
        |c| {
            flood(c);
            c.misuse_per_second = 1_000;
            c.limits.heartbeat_ms = 0;
        },
        &[("heartbeat_ms", 0)],
    );
    let mut sent = 0;
    let error = loop {
        script.wait(std::time::Duration::from_secs(1)).unwrap();
        let release = Msg::continuation(Kind::Message, script.id(), id(sent)).verb(verb::RELEASE);
        match script.send(release) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error, sent), (Violation::Flood.into(), 100));
}

// spec: §12.8, §12.9, §12.11
#[test]
fn resending_and_releasing_without_reading_makes_nothing_grow() {
    let mut script = Script::pubsub(flood);
    let mut messages = Vec::new();
    for n in 0..10 {
        script.send(publication(id(n), "a", 2)).unwrap();
        messages.push(script.connection.poll_publication().unwrap().id);
    }
    messages.iter().for_each(|message| script.connection.ack(*message).unwrap());
    script.read();
    for attempt in 2..1_000 {
        for n in 0..10 {
            script.send(again(id(n), "a", 2, attempt)).unwrap();
        }
    }
    let acks = script.read().iter().map(|ack| ack.ids().len()).sum::<usize>();
    assert_eq!(acks, 10, "each once, however often it came");
    for _ in 0..1_000 {
        for n in 0..10 {
            let release = Msg::continuation(Kind::Message, script.id(), id(n)).verb(verb::RELEASE);
            script.send(release).unwrap();
        }
    }
    let completes = script.read().iter().map(|complete| complete.ids().len()).sum::<usize>();
    assert_eq!(completes, 10);
}

// spec: §12.8, §12.9
#[test]
fn a_publisher_that_resends_what_was_released_is_handled_like_any_other() {
    let mut script = Script::pubsub(flood);
    for _ in 0..200 {
        script.send(again(id(1), "a", 2, 2)).unwrap();
        let publication = script.connection.poll_publication().unwrap();
        script.connection.ack(publication.id).unwrap();
        script.read();
        script.settle(verb::RELEASE, id(1)).unwrap();
        script.read();
    }
    assert_eq!(script.connection.stats().dropped, 0);
}

// spec: §5.15, §12.10
#[test]
fn acks_for_what_was_not_sent_are_dropped() {
    let mut script = Script::pubsub(flood);
    let (_, sent) = script.publish(Qos::AtLeastOnce);
    script.settle(verb::ACK, sent.id).unwrap();
    for verb in [verb::ACK, verb::NACK, verb::COMPLETE] {
        for n in 0..1_000 {
            script.settle(verb, id(n + 70_000)).unwrap();
            script.settle(verb, sent.id).unwrap();
        }
    }
    assert_eq!(script.connection.stats().dropped, 6_000);
    assert!(script.read().is_empty());
}

// spec: §12.11, §17.2
#[test]
fn a_peer_that_allows_everything_and_settles_nothing_holds_no_more_than_the_buffer() {
    let all = [("max_inflight", u32::MAX)];
    let mut script = Script::pubsub_with(|c| c.publish_buffer = 100_000, &all);
    let options = PublishOptions::new().with_qos(Qos::ExactlyOnce);
    let mut published = 0;
    while script.connection.publish(script.now, "a", uint(1), options.clone()).is_ok() {
        script.read();
        published += 1;
    }
    assert!((100..1_000).contains(&published), "{published}");
    assert!(script.connection.stats().publish_bytes < 101_000);
    // The same for what is delivered.
    let meta = [(key::QOS, V::U(2)), (key::INFLIGHT, V::U(u64::MAX))];
    let queue = QueueLimits { items: 50, ..QueueLimits::default() };
    let (_, subscriber) = script.subscriber_with("a", &meta, queue);
    let message = OutMessage::new("a", Qos::ExactlyOnce, uint(1), Default::default()).unwrap();
    for _ in 0..1_000 {
        script.connection.deliver(script.now, subscriber, &message).unwrap();
        script.read();
    }
    assert_eq!(script.connection.subscriber_stats(subscriber).unwrap().unsettled, 50);
}

// spec: §12.7, §12.11
#[test]
fn a_subscriber_that_never_acknowledges_blocks_itself_alone() {
    let mut script = Script::pubsub(|_| ());
    let meta = [(key::QOS, V::U(1)), (key::INFLIGHT, V::U(3))];
    let (silent, first) = script.subscriber_with("a", &meta, QueueLimits::default());
    let (_, second) = script.subscriber("a", 0, QueueLimits::default());
    let message = OutMessage::new("a", Qos::AtLeastOnce, uint(1), Default::default()).unwrap();
    let mut sent = Vec::new();
    for _ in 0..100 {
        script.connection.deliver(script.now, first, &message).unwrap();
        script.connection.deliver(script.now, second, &message).unwrap();
        sent.extend(script.read());
    }
    assert_eq!(sent.iter().filter(|sent| sent.reference == Some(silent)).count(), 3);
    assert_eq!(sent.len(), 103);
}

// spec: §5.16, §6.6
#[test]
fn without_the_feature_only_what_waits_is_answered() {
    let mut script = Script::responder(&crate::support::config(|_| ()));
    script.send(publication(id(1), "a", 0)).unwrap();
    script.send(publication(id(2), "a", 1)).unwrap();
    script.send(Msg::opening(Kind::Subscribe, id(3), "a")).unwrap();
    script.settle(verb::RELEASE, id(4)).unwrap();
    let answers = script.read();
    assert_eq!(answers.iter().map(|answer| answer.reference).collect::<Vec<_>>(), [Some(id(2)), Some(id(3))]);
    assert!(answers.iter().all(|answer| answer.code() == Code::UNIMPLEMENTED));
}

// spec: §17.2
#[test]
fn the_end_leaves_nothing_behind() {
    let mut script = Script::pubsub(|_| ());
    let subscription = script.subscribed("a", SubscribeOptions::new().with_qos(Qos::ExactlyOnce));
    let (_, subscriber) = script.subscriber("a", 2, QueueLimits::default());
    let message = OutMessage::new("a", Qos::ExactlyOnce, uint(1), Default::default()).unwrap();
    script.connection.deliver(script.now, subscriber, &message).unwrap();
    script.delivery(subscription, &[(key::QOS, V::U(2))]).unwrap();
    script.send(publication(id(900), "a", 2)).unwrap();
    script.read();
    let (fate, _) = script.publish(Qos::ExactlyOnce);
    script.connection.forget_publication(fate).unwrap();
    let broken = Msg::opening(Kind::Call, id(901), "m").payload(cbor(|out| out.null()?.ok()));
    script.send(Msg { error: Some(fluxar_proto::Error::internal("")), ..broken }).unwrap_err();
    while script.connection.poll_publication().is_some() {}
    while script.connection.poll_delivery(subscription).is_ok() {}
    assert_eq!(script.connection.poll_timeout().map(|at| at > script.now), Some(true), "that of the close");
    let stats = script.connection.stats();
    let Stats { subscriptions, subscribers, publish_bytes, held_publication_bytes, .. } = stats;
    assert_eq!((subscriptions, subscribers, publish_bytes, held_publication_bytes), (0, 0, 0, 0));
}
