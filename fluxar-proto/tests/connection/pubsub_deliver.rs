//! Deliveries, on both sides: their order and marks, and what happens to a subscriber that does not keep up.

use fluxar_proto::message::{Kind, Meta, key, verb};
use fluxar_proto::{
    Code, Delivered, Delivery, Error, Gone, OutMessage, Overflow, PubSubEvent, PublishOptions, Qos,
    QueueLimits, SubscribeOptions, SubscriberId, SubscriptionId, Violation,
};

use crate::support::pubsub::{V, numbers, pubsub_events, subscribed};
use crate::support::{A, B, Msg, Pair, Script, blob, cbor, config, ms, one, uint};

fn options(qos: Qos) -> SubscribeOptions {
    SubscribeOptions::new().with_qos(qos)
}

fn message(topic: &str, qos: Qos, n: u64) -> OutMessage {
    OutMessage::new(topic, qos, uint(n), Default::default()).unwrap()
}

fn limits(items: usize, overflow: Overflow) -> QueueLimits {
    QueueLimits { items, overflow, ..QueueLimits::default() }
}

/// What can be polled on a subscription of A.
fn polled(pair: &mut Pair, subscription: SubscriptionId) -> Vec<Delivery> {
    std::iter::from_fn(|| pair.a().poll_delivery(subscription).unwrap()).collect()
}

fn payloads(deliveries: &[Delivery]) -> Vec<u64> {
    numbers(deliveries.iter().map(|delivery| &delivery.payload))
}

fn deliver(script: &mut Script, subscriber: SubscriberId, qos: Qos, n: u64) -> Delivered {
    script.connection.deliver(script.now, subscriber, &message("a", qos, n)).unwrap()
}

// spec: §12.5, §12.6
#[test]
fn deliveries_come_in_order_with_the_lower_qos() {
    for granted in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let config = config(|c| c.limits.max_inflight = 4);
            let (mut pair, subscription, subscriber) =
                subscribed(&config, "orders.*", options(granted), QueueLimits::default());
            let now = pair.now;
            for n in 0..20 {
                let topic = if n % 2 == 0 { "orders.even" } else { "orders.odd" };
                let done = pair.b().deliver(now, subscriber, &message(topic, qos, n)).unwrap();
                assert_eq!(done, Delivered::Queued);
            }
            let mut got = Vec::new();
            loop {
                pair.drive();
                let Some(delivery) = pair.a().poll_delivery(subscription).unwrap() else { break };
                pair.a().ack(delivery.id).unwrap();
                got.push(delivery);
            }
            assert_eq!(payloads(&got), (0..20).collect::<Vec<_>>());
            assert!(got.iter().all(|delivery| delivery.qos == qos.min(granted) && !delivery.retained));
            assert_eq!((&*got[0].topic, &*got[1].topic), ("orders.even", "orders.odd"));
            assert!(
                got.iter().map(|delivery| delivery.seq).eq((1..=20).map(Some)),
                "counted, though not said"
            );
            let stats = pair.b().subscriber_stats(subscriber).unwrap();
            assert_eq!((stats.items, stats.bytes, stats.unsettled, stats.received), (0, 0, 0, 20));
            assert_eq!(pair.a().subscription_stats(subscription).unwrap().unsettled, 0);
        }
    }
}

// spec: §12.6
#[test]
fn the_topic_is_said_where_the_filter_does_not() {
    let mut script = Script::pubsub(|_| ());
    let (exact, first) = script.subscriber("a.b", 0, QueueLimits::default());
    let (wild, second) = script.subscriber("a.*", 0, QueueLimits::default());
    let meta = cbor(|out| out.map(1)?.str("trace_id")?.str("abc")?.ok());
    let message = OutMessage::new("a.b", Qos::AtLeastOnce, uint(7), meta.into()).unwrap();
    for subscriber in [first, second] {
        script.connection.deliver(script.now, subscriber, &message).unwrap();
    }
    let sent = script.read();
    assert_eq!([sent[0].reference, sent[1].reference], [Some(exact), Some(wild)]);
    assert_eq!([sent[0].meta_str(key::TOPIC), sent[1].meta_str(key::TOPIC)], [None, Some("a.b".into())]);
    for sent in &sent {
        assert_eq!((sent.kind, &sent.target, &sent.payload[..]), (Kind::Message, &None, &[7][..]));
        assert_eq!(sent.meta_str("trace_id").as_deref(), Some("abc"));
        assert_eq!((sent.meta_u64(key::QOS), sent.meta_u64(key::SEQ)), (None, None));
    }
}

// spec: §12.6, §12.3, §5.12
#[test]
fn deliveries_that_may_not_be_are_fatal() {
    let of = |filter: &str, granted: Qos, meta: &[(&str, V<'_>)]| {
        let mut script = Script::pubsub(|_| ());
        let subscription = script.subscribed(filter, options(granted));
        let done = script.delivery(subscription, meta);
        (done.map(drop), subscription.wire_id())
    };
    let (error, id) = of("a", Qos::AtLeastOnce, &[(key::QOS, V::U(2))]);
    assert_eq!(error, Err(Violation::WrongQos(id).into()));
    for topic in [None, Some(V::U(1)), Some(V::T("a..b")), Some(V::T("a.*"))] {
        let meta = topic.map(|topic| (key::TOPIC, topic));
        let (error, id) = of("a.>", Qos::AtMostOnce, meta.as_slice());
        assert_eq!(error, Err(Violation::MissingTopic(id).into()), "{topic:?}");
    }
    assert_eq!(of("a", Qos::AtMostOnce, &[(key::QOS, V::U(3))]).0, Ok(()), "a bad value is ignored");
    assert_eq!(of("a.*", Qos::AtMostOnce, &[(key::TOPIC, V::T("x.y"))]).0, Ok(()), "it need not be checked");

    let mut script = Script::pubsub(|_| ());
    let subscription = script.connection.subscribe(script.now, "a", options(Qos::AtMostOnce)).unwrap();
    script.read();
    let early = script.delivery(subscription, &[]).unwrap_err();
    assert_eq!(early, Violation::WrongRole(subscription.wire_id()).into(), "before the confirmation");

    let mut script = Script::pubsub(|_| ());
    let subscription = script.subscribed("a", options(Qos::AtMostOnce));
    let delivery = Msg::continuation(Kind::Message, script.id(), subscription.wire_id());
    let error = script.send(delivery.error(Error::internal(""))).unwrap_err();
    assert_eq!(error, Violation::MisplacedError.into());
}

// spec: §5.5, §12.14
#[test]
fn a_delivery_with_an_open_id_is_fatal_unless_it_comes_again() {
    let qos = (key::QOS, V::U(1));
    let dup = (key::DUP, V::B(true));
    let mut script = Script::pubsub(|_| ());
    let subscription = script.subscribed("a", options(Qos::AtLeastOnce));
    let other = script.subscribed("a", options(Qos::AtLeastOnce));
    let first = script.delivery(subscription, &[qos]).unwrap();
    let again = Msg::continuation(Kind::Message, first, subscription.wire_id());
    script.send(again.clone().with(&[qos, dup])).unwrap();
    let delivery = script.connection.poll_delivery(subscription).unwrap().unwrap();
    assert_eq!(script.connection.poll_delivery(subscription).unwrap().map(drop), None);
    script.connection.ack(delivery.id).unwrap();
    script.read();
    script.send(again.clone().with(&[qos, dup])).unwrap();
    let delivery = script.connection.poll_delivery(subscription).unwrap().unwrap();
    assert!(delivery.dup && delivery.seq.is_none(), "it was settled, and is handled again");
    let elsewhere = Msg { reference: Some(other.wire_id()), ..again.with(&[qos, dup]) };
    assert_eq!(script.send(elsewhere).unwrap_err(), Violation::DuplicateId(first).into());

    let mut script = Script::pubsub(|_| ());
    let subscription = script.subscribed("a", options(Qos::AtLeastOnce));
    let first = script.delivery(subscription, &[qos]).unwrap();
    let again = Msg::continuation(Kind::Message, first, subscription.wire_id()).with(&[qos]);
    assert_eq!(script.send(again).unwrap_err(), Violation::DuplicateId(first).into());
}

// spec: §12.11
#[test]
fn deliveries_in_flight_are_bounded_by_what_was_asked_for() {
    let mut script = Script::pubsub(|_| ());
    let meta = [(key::QOS, V::U(2)), (key::INFLIGHT, V::U(2))];
    let (_, subscriber) = script.subscriber_with("a", &meta, QueueLimits::default());
    for n in 0..3 {
        deliver(&mut script, subscriber, Qos::ExactlyOnce, n);
    }
    let sent = script.read();
    assert_eq!(sent.len(), 2);
    assert_eq!(script.connection.subscriber_stats(subscriber).unwrap().unsettled, 2);
    script.settle(verb::ACK, sent[0].id).unwrap();
    assert!(one(script.read()).is_verb(verb::RELEASE));
    script.settle(verb::COMPLETE, sent[0].id).unwrap();
    assert_eq!(one(script.read()).payload, [2]);
    // Absent: what the subscriber announced.
    let mut script = Script::pubsub_with(|_| (), &[("max_inflight", 1)]);
    let (_, subscriber) = script.subscriber("a", 1, QueueLimits::default());
    (0..2).for_each(|n| _ = deliver(&mut script, subscriber, Qos::AtLeastOnce, n));
    assert_eq!(script.read().len(), 1);
}

// spec: §12.11
#[test]
fn a_delivery_beyond_what_was_asked_for_is_answered_nack() {
    let mut script = Script::pubsub(|_| ());
    let subscription = script.subscribed("a", options(Qos::AtLeastOnce).with_inflight(1));
    script.delivery(subscription, &[(key::QOS, V::U(1))]).unwrap();
    let second = script.delivery(subscription, &[(key::QOS, V::U(1))]).unwrap();
    let nack = one(script.read());
    assert!(nack.is_verb(verb::NACK) && nack.reference == Some(second));
    assert_eq!((nack.code(), nack.error.unwrap().processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    assert_eq!(script.connection.stats().refused, 1);
}

// spec: §12.8
#[test]
fn a_delivery_is_sent_again_and_given_up() {
    let mut script = Script::pubsub(|c| c.attempts = 2);
    let (opening, subscriber) = script.subscriber("a.*", 1, QueueLimits::default());
    let message = message("a.b", Qos::AtLeastOnce, 7).into_retained();
    script.connection.deliver(script.now, subscriber, &message).unwrap();
    let sent = one(script.read());
    for attempt in 1..3 {
        let nack = Msg::continuation(Kind::Message, script.id(), sent.id).verb(verb::NACK);
        script.send(nack.error(Error::unavailable("busy").with_retry_after_ms(5))).unwrap();
        script.wait(ms(5)).unwrap();
        if attempt == 1 {
            let again = one(script.read());
            assert_eq!((again.id, again.reference), (sent.id, Some(opening)));
            assert_eq!((again.meta_bool(key::DUP), again.meta_u64(key::ATTEMPT)), (Some(true), Some(2)));
            assert_eq!(again.meta_str(key::TOPIC).as_deref(), Some("a.b"));
            assert_eq!(again.meta_bool(key::RETAINED), Some(true));
        }
    }
    let events = script.pubsub_events();
    let [PubSubEvent::Undelivered { subscriber: id, message, attempts: 2, error, ended: false }] =
        &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((*id, &**message.topic(), &*error.message), (subscriber, "a.b", "busy"));
}

// spec: §12.6
#[test]
fn what_was_dropped_shows_as_a_gap() {
    let mut script = Script::pubsub(|_| ());
    let (_, subscriber) = script.subscriber("a", 0, limits(2, Overflow::DropOldest));
    let done = (0..5).map(|n| deliver(&mut script, subscriber, Qos::AtMostOnce, n)).collect::<Vec<_>>();
    assert_eq!(done[1..3], [Delivered::Queued, Delivered::DroppedOldest]);
    let sent = script.read();
    assert_eq!(sent.iter().map(|sent| sent.payload[0]).collect::<Vec<_>>(), [3, 4]);
    assert_eq!([sent[0].meta_u64(key::SEQ), sent[1].meta_u64(key::SEQ)], [Some(4), None]);
    let stats = script.connection.subscriber_stats(subscriber).unwrap();
    assert_eq!((stats.received, stats.dropped), (5, 3));
    // And so does the subscriber see it.
    let mut script = Script::pubsub(|_| ());
    let subscription = script.subscribed("a", options(Qos::AtMostOnce));
    for seq in [None, Some(5), None, Some(2), Some(8)] {
        let meta = seq.map(|seq| (key::SEQ, V::U(seq)));
        script.delivery(subscription, meta.as_slice()).unwrap();
    }
    let polled = std::iter::from_fn(|| script.connection.poll_delivery(subscription).unwrap());
    assert!(polled.map(|delivery| delivery.seq).eq([1, 5, 6, 7, 8].map(Some)));
    assert_eq!(script.connection.subscription_stats(subscription).unwrap().lost, 3);
}

// spec: §12.7
// limit: messages held for a subscription, by its publisher and by its subscriber
#[test]
fn a_full_queue_of_a_subscriber_does_what_it_was_told() {
    let mut script = Script::pubsub(|_| ());
    let (_, waits) = script.subscriber("a", 1, limits(2, Overflow::Wait));
    (0..2).for_each(|n| assert_eq!(deliver(&mut script, waits, Qos::AtLeastOnce, n), Delivered::Queued));
    assert_eq!(deliver(&mut script, waits, Qos::AtLeastOnce, 2), Delivered::Full);
    assert_eq!(deliver(&mut script, waits, Qos::AtMostOnce, 2), Delivered::DroppedNewest, "it does not wait");
    let sent = script.read();
    assert!(script.pubsub_events().is_empty(), "what is not acknowledged takes room too");
    script.settle(verb::ACK, sent[0].id).unwrap();
    let events = script.pubsub_events();
    assert!(matches!(events[..], [PubSubEvent::Room(id)] if id == waits), "{events:?}");
    assert_eq!(deliver(&mut script, waits, Qos::AtLeastOnce, 2), Delivered::Queued);

    script.read();
    let (_, newest) = script.subscriber("a", 1, limits(1, Overflow::DropNewest));
    assert_eq!(deliver(&mut script, newest, Qos::AtLeastOnce, 0), Delivered::Queued);
    assert_eq!(deliver(&mut script, newest, Qos::AtLeastOnce, 1), Delivered::DroppedNewest);

    script.read();
    let (_, oldest) = script.subscriber("a", 1, limits(1, Overflow::DropOldest));
    assert_eq!(deliver(&mut script, oldest, Qos::AtLeastOnce, 0), Delivered::Queued);
    assert_eq!(deliver(&mut script, oldest, Qos::AtLeastOnce, 1), Delivered::DroppedOldest);
    let events = script.pubsub_events();
    assert!(
        matches!(&events[..], [PubSubEvent::Undelivered { attempts: 0, error, .. }] if error.is_retry_safe()),
        "{events:?}"
    );

    script.read();
    let (opening, closes) = script.subscriber("a", 0, limits(1, Overflow::Close));
    assert_eq!(deliver(&mut script, closes, Qos::AtMostOnce, 0), Delivered::Queued);
    assert_eq!(deliver(&mut script, closes, Qos::AtMostOnce, 1), Delivered::Closed);
    let late = script.connection.deliver(script.now, closes, &message("a", Qos::AtMostOnce, 1));
    assert_eq!(late, Err(Gone));
    let end = script.read().into_iter().find(|sent| sent.reference == Some(opening)).unwrap();
    assert_eq!((end.kind, end.code()), (Kind::Unsubscribe, Code::RESOURCE_EXHAUSTED));
}

// spec: §12.7, §15.3
#[test]
fn a_queue_of_a_subscriber_is_bounded_in_bytes() {
    let mut script = Script::pubsub(|_| ());
    let queue = QueueLimits { bytes: 100_000, ..QueueLimits::default() };
    let (_, subscriber) = script.subscriber("a", 0, queue);
    let large = OutMessage::new("a", Qos::AtMostOnce, blob(30_000), Default::default()).unwrap();
    for _ in 0..10 {
        script.connection.deliver(script.now, subscriber, &large).unwrap();
    }
    let stats = script.connection.subscriber_stats(subscriber).unwrap();
    assert_eq!(stats.items, 3);
    assert!(stats.bytes <= 100_000);
    let huge = OutMessage::new("a", Qos::AtMostOnce, blob(200_000), Default::default()).unwrap();
    let done = script.connection.deliver(script.now, subscriber, &huge).unwrap();
    assert_eq!(done, Delivered::DroppedOldest, "one is always taken");
    assert_eq!(script.connection.subscriber_stats(subscriber).unwrap().items, 1);
    let too_large = OutMessage::new("a", Qos::AtMostOnce, blob(1 << 20), Default::default()).unwrap();
    let done = script.connection.deliver(script.now, subscriber, &too_large).unwrap();
    assert_eq!(done, Delivered::TooLarge);
    assert_eq!(one(script.read()).meta_u64(key::SEQ), Some(12), "it shows as a gap");
}

// spec: §12.7
#[test]
fn nothing_is_dropped_for_what_has_no_room_all_the_same() {
    for overflow in [Overflow::DropOldest, Overflow::Wait] {
        let mut script = Script::pubsub_with(|_| (), &[("max_inflight", 1)]);
        let queue = QueueLimits { items: 10, bytes: 10_000, overflow };
        let (_, subscriber) = script.subscriber("a", 1, queue);
        let large = |qos| OutMessage::new("a", qos, blob(6_000), Default::default()).unwrap();
        let mut deliver = |message| script.connection.deliver(script.now, subscriber, &message).unwrap();
        assert_eq!(deliver(large(Qos::AtLeastOnce)), Delivered::Queued);
        assert_eq!(script.read().len(), 1, "it is kept until it is acknowledged");
        let mut deliver = |message| script.connection.deliver(script.now, subscriber, &message).unwrap();
        (0..3).for_each(|n| assert_eq!(deliver(message("a", Qos::AtMostOnce, n)), Delivered::Queued));
        assert_eq!(deliver(large(Qos::AtMostOnce)), Delivered::DroppedNewest, "{overflow:?}");
        assert_eq!(script.read().len(), 3, "{overflow:?}");
    }
}

// spec: §12.7
#[test]
fn a_subscription_that_nobody_reads_is_bounded() {
    let payload = |n: u8| vec![n];
    let send = |script: &mut Script, subscription: SubscriptionId, n: u8, qos: u64| {
        let delivery = Msg::continuation(Kind::Message, script.id(), subscription.wire_id());
        let delivery = delivery.payload(payload(n)).with(&[(key::QOS, V::U(qos))]);
        script.send(delivery.clone()).unwrap();
        delivery.id
    };
    let held = |script: &mut Script, subscription| {
        let polled = std::iter::from_fn(|| script.connection.poll_delivery(subscription).ok().flatten());
        numbers(polled.map(|delivery| delivery.payload).collect::<Vec<_>>().iter())
    };
    for (overflow, kept) in
        [(Overflow::Wait, [2, 3]), (Overflow::DropOldest, [2, 3]), (Overflow::DropNewest, [0, 1])]
    {
        let mut script = Script::pubsub(|_| ());
        let options = options(Qos::AtMostOnce).with_queue(limits(2, overflow));
        let subscription = script.subscribed("a", options);
        (0..4).for_each(|n| _ = send(&mut script, subscription, n, 0));
        assert_eq!(held(&mut script, subscription), kept, "{overflow:?}");
        let stats = script.connection.subscription_stats(subscription).unwrap();
        assert_eq!((stats.received, stats.dropped), (4, 2));
        assert!(script.read().is_empty());
    }
    for (overflow, refused) in [(Overflow::Wait, 1), (Overflow::DropNewest, 1), (Overflow::DropOldest, 0)] {
        let mut script = Script::pubsub(|_| ());
        let queue = QueueLimits { bytes: 100, overflow, ..QueueLimits::default() };
        let subscription = script.subscribed("a", options(Qos::AtLeastOnce).with_queue(queue));
        let sent = [0, 1].map(|n| send(&mut script, subscription, n, 1));
        let nack = one(script.read());
        assert!(nack.is_verb(verb::NACK) && nack.reference == Some(sent[refused]), "{overflow:?}");
        let error = nack.error.unwrap();
        assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
        assert!(error.retry_after_ms.is_some());
        assert_eq!(held(&mut script, subscription), [1 - refused as u64]);
        assert_eq!(script.connection.stats().refused, 0);
    }
    let mut script = Script::pubsub(|_| ());
    let options = options(Qos::AtMostOnce).with_queue(limits(1, Overflow::Close));
    let subscription = script.subscribed("a", options);
    (0..2).for_each(|n| _ = send(&mut script, subscription, n, 0));
    let events = script.pubsub_events();
    let [PubSubEvent::Delivered(_), PubSubEvent::Ended(_, Some(error))] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(error.code, Code::RESOURCE_EXHAUSTED);
    assert_eq!(one(script.read()).kind, Kind::Unsubscribe);
    assert_eq!(held(&mut script, subscription), [0], "what it holds can still be polled");
    assert_eq!(script.connection.poll_delivery(subscription).unwrap_err(), Gone);
}

// spec: §12.4
#[test]
fn unsettled_deliveries_are_over_with_their_subscription() {
    let (mut pair, subscription, subscriber) =
        subscribed(&config(|_| ()), "a", options(Qos::ExactlyOnce).with_inflight(2), QueueLimits::default());
    let now = pair.now;
    for n in 0..3 {
        pair.b().deliver(now, subscriber, &message("a", Qos::AtLeastOnce, n)).unwrap();
    }
    pair.b().deliver(now, subscriber, &message("a", Qos::AtMostOnce, 3)).unwrap();
    pair.drive();
    let delivery = pair.a().poll_delivery(subscription).unwrap().unwrap();
    pair.a().unsubscribe(subscription).unwrap();
    assert_eq!(pair.a().ack(delivery.id), Err(Gone));
    pair.drive();
    let events = pubsub_events(&pair.events(B));
    let told = events.iter().map(|event| match event {
        PubSubEvent::Undelivered { message, attempts, ended: true, .. } => {
            Some((message.payload().as_item().as_u64().unwrap(), *attempts))
        }
        PubSubEvent::Unsubscribed(_) => None,
        other => panic!("{other:?}"),
    });
    assert!(told.eq([Some((0, 1)), Some((1, 1)), Some((2, 0)), None]), "what was sent, and what was not");
    pair.wait(ms(100_000));
    assert!(pubsub_events(&pair.events(B)).is_empty(), "nothing is repeated");
}

// spec: §12.4, §12.8
#[test]
fn what_was_settled_before_the_end_of_a_subscription_is_told_before_it() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let (mut pair, subscription, subscriber) =
            subscribed(&config(|_| ()), "a", options(qos), QueueLimits::default());
        let now = pair.now;
        for n in 0..4 {
            pair.b().deliver(now, subscriber, &message("a", qos, n)).unwrap();
        }
        pair.drive();
        let deliveries = polled(&mut pair, subscription);
        pair.a().ack(deliveries[0].id).unwrap();
        pair.a().nack(deliveries[1].id, Error::not_found("no such order")).unwrap();
        pair.a().ack(deliveries[2].id).unwrap();
        pair.a().unsubscribe(subscription).unwrap();
        assert_eq!(pair.a().ack(deliveries[3].id), Err(Gone), "that is too late");
        pair.drive();
        let events = pubsub_events(&pair.events(B));
        let told = events.iter().map(|event| match event {
            PubSubEvent::Undelivered { message, error, ended, .. } => {
                Some((message.payload().as_item().as_u64().unwrap(), error.code, *ended))
            }
            PubSubEvent::Unsubscribed(_) => None,
            other => panic!("{other:?}"),
        });
        let expected = [Some((1, Code::NOT_FOUND, false)), Some((3, Code::UNAVAILABLE, true)), None];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!((pair.a().stats().subscriptions, pair.b().stats().subscribers), (0, 0));
    }
}

// spec: §12.15
#[test]
fn what_another_member_may_have_handled_is_marked() {
    let mut script = Script::pubsub(|_| ());
    let (_, subscriber) = script.subscriber("a", 1, QueueLimits::default());
    let moved = message("a", Qos::AtLeastOnce, 1).with_attempts(2);
    script.connection.deliver(script.now, subscriber, &moved).unwrap();
    deliver(&mut script, subscriber, Qos::AtMostOnce, 2);
    let sent = script.read();
    assert_eq!((sent[0].meta_bool(key::DUP), sent[0].meta_u64(key::ATTEMPT)), (Some(true), Some(3)));
    assert_eq!(sent[1].meta_bool(key::DUP), None);
}

// spec: §2.4
#[test]
fn subscriptions_and_publications_take_turns() {
    let mut script = Script::pubsub(|_| ());
    let (first, busy) = script.subscriber("a", 0, QueueLimits::default());
    let (second, calm) = script.subscriber("a", 0, QueueLimits::default());
    (0..50).for_each(|n| _ = deliver(&mut script, busy, Qos::AtMostOnce, n));
    script.connection.publish(script.now, "p", uint(0), PublishOptions::new()).unwrap();
    (0..2).for_each(|n| _ = deliver(&mut script, calm, Qos::AtMostOnce, n));
    let sent = script.read();
    let order = sent.iter().map(|sent| sent.reference).collect::<Vec<_>>();
    assert_eq!(order[..5], [Some(first), None, Some(second), Some(first), Some(second)]);
    assert_eq!(order.len(), 53);
}

// spec: §12.3
#[test]
fn what_is_delivered_before_the_confirmation_has_left_follows_it() {
    let mut script = Script::pubsub(|_| ());
    let opening = script.id();
    script.send(Msg::opening(Kind::Subscribe, opening, "a")).unwrap();
    let events = script.pubsub_events();
    let [PubSubEvent::Subscribe(request)] = &events[..] else { panic!("{events:?}") };
    let early = script.connection.deliver(script.now, request.id, &message("a", Qos::AtMostOnce, 1));
    assert_eq!(early, Err(Gone), "not before it is confirmed");
    script.connection.confirm(request.id, Qos::AtMostOnce, QueueLimits::default()).unwrap();
    deliver(&mut script, request.id, Qos::AtMostOnce, 1);
    let kinds = script.read().iter().map(|sent| sent.kind).collect::<Vec<_>>();
    assert_eq!(kinds, [Kind::Subscribe, Kind::Message]);
}

// spec: §12.5
#[test]
fn what_a_hub_passes_on_keeps_payload_and_metadata() {
    let mut script = Script::pubsub(|_| ());
    let meta = [
        (key::QOS, V::U(1)),
        ("x", V::T("y")),
        (key::RETAIN, V::B(true)),
        (key::TRACEPARENT, V::T("00")),
        (key::INFLIGHT, V::U(7)),
    ];
    let publication = Msg::opening(Kind::Message, script.id(), "a.b").payload(vec![0x18, 0x2a]).with(&meta);
    script.send(publication).unwrap();
    let publication = script.connection.poll_publication().unwrap();
    let passed = OutMessage::from(&publication);
    assert_eq!(
        (&**passed.topic(), passed.qos(), passed.payload()),
        ("a.b", Qos::AtLeastOnce, &publication.payload)
    );
    let meta = Meta::decode(passed.meta()).unwrap();
    assert_eq!((meta.len(), meta.get_str("x"), meta.get_str(key::TRACEPARENT)), (2, Some("y"), Some("00")));
}

// spec: §12.8
#[test]
fn readiness_is_told_once_until_there_is_nothing_left() {
    let (mut pair, subscription, subscriber) =
        subscribed(&config(|_| ()), "a", options(Qos::AtMostOnce), QueueLimits::default());
    let now = pair.now;
    for round in 0..3 {
        for n in 0..5 {
            pair.b().deliver(now, subscriber, &message("a", Qos::AtMostOnce, n)).unwrap();
            pair.drive();
        }
        let events = pubsub_events(&pair.events(A));
        assert!(
            matches!(events[..], [PubSubEvent::Delivered(id)] if id == subscription),
            "{round} {events:?}"
        );
        assert_eq!(polled(&mut pair, subscription).len(), 5);
    }
}
