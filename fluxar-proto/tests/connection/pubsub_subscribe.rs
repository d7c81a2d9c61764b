//! Subscriptions: from request to end, on both sides.

use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::topic::TopicError;
use fluxar_proto::{
    Code, Error, Gone, PubSubEvent, Qos, QueueLimits, SubscribeError, SubscribeOptions, Violation,
};

use crate::support::pubsub::{V, pubsub_events, requests, subscribed};
use crate::support::{A, B, Msg, Pair, Script, cbor, config, id, one};

fn queue() -> QueueLimits {
    QueueLimits::default()
}

// spec: §12.3
#[test]
fn a_subscription_is_asked_for_and_confirmed_with_what_is_granted() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let options = SubscribeOptions::new().with_qos(Qos::ExactlyOnce).with_inflight(16).with_group("workers");
    let subscription = pair.a().subscribe(now, "orders.*", options).unwrap();
    pair.drive();
    let request = one(requests(&pubsub_events(&pair.events(B))));
    assert_eq!((&*request.filter, request.qos, request.inflight), ("orders.*", Qos::ExactlyOnce, 16));
    assert_eq!(request.group.as_deref(), Some("workers"));
    assert!(request.meta.is_empty());
    assert_eq!(request.id.wire_id(), subscription.wire_id());
    pair.b().confirm(request.id, Qos::AtLeastOnce, queue()).unwrap();
    assert_eq!(pair.b().confirm(request.id, Qos::AtLeastOnce, queue()), Err(Gone), "once");
    pair.drive();
    let events = pubsub_events(&pair.events(A));
    assert!(matches!(events[..], [PubSubEvent::Confirmed(id, Qos::AtLeastOnce)] if id == subscription));
    assert_eq!((pair.a().stats().subscriptions, pair.b().stats().subscribers), (1, 1));
}

// spec: §12.3
#[test]
fn no_more_is_granted_than_is_wanted() {
    let mut script = Script::pubsub(|_| ());
    let opening = script.id();
    script.send(Msg::opening(Kind::Subscribe, opening, "a").with(&[(key::QOS, V::U(1))])).unwrap();
    let request = one(requests(&script.pubsub_events()));
    script.connection.confirm(request.id, Qos::ExactlyOnce, queue()).unwrap();
    assert_eq!(one(script.read()).meta_u64(key::QOS), Some(1));
}

// spec: §12.3, §12.12
#[test]
fn confirmations_that_may_not_be_are_fatal() {
    let confirm = |script: &mut Script, reference, qos| {
        let confirmation = Msg::continuation(Kind::Subscribe, script.id(), reference);
        script.send(confirmation.with(&[(key::QOS, V::U(qos))]))
    };
    let mut script = Script::pubsub(|_| ());
    let wanted = SubscribeOptions::new().with_qos(Qos::AtLeastOnce);
    let subscription = script.connection.subscribe(script.now, "a", wanted.clone()).unwrap();
    script.read();
    let error = confirm(&mut script, subscription.wire_id(), 2).unwrap_err();
    assert_eq!(error, Violation::WrongQos(subscription.wire_id()).into(), "more than was wanted");

    let mut script = Script::pubsub(|_| ());
    let subscription = script.subscribed("a", wanted);
    let error = confirm(&mut script, subscription.wire_id(), 1).unwrap_err();
    assert_eq!(error.code(), Code::PROTOCOL_VIOLATION, "a second one");

    let mut script = Script::pubsub(|_| ());
    let (opening, _) = script.subscriber("a", 1, queue());
    let error = confirm(&mut script, opening, 1).unwrap_err();
    assert_eq!(error.code(), Code::PROTOCOL_VIOLATION, "of its own subscription");
}

// spec: §12.3
#[test]
fn a_refused_subscription_is_over() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let subscription = pair.a().subscribe(now, "secrets", SubscribeOptions::new()).unwrap();
    pair.drive();
    let request = one(requests(&pubsub_events(&pair.events(B))));
    pair.b().refuse_subscription(now, request.id, Error::permission_denied("not yours")).unwrap();
    pair.drive();
    let events = pubsub_events(&pair.events(A));
    let [PubSubEvent::Ended(id, Some(error))] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*id, error.code, error.processed), (subscription, Code::PERMISSION_DENIED, Some(false)));
    assert_eq!(pair.a().poll_delivery(subscription).unwrap_err(), Gone);
    assert_eq!((pair.a().stats().subscriptions, pair.b().stats().subscribers), (0, 0));
    assert_eq!(pair.b().stats().refused, 1);
}

// spec: §5.13
#[test]
fn a_refusal_is_no_larger_than_the_peer_takes() {
    let mut script = Script::pubsub_with(|_| (), &[("max_message", 1024)]);
    script.send(Msg::opening(Kind::Subscribe, id(1), "a")).unwrap();
    let request = one(requests(&script.pubsub_events()));
    let why = Error::permission_denied("no, ".repeat(500));
    script.connection.refuse_subscription(script.now, request.id, why).unwrap();
    let refusal = one(script.read());
    assert!(refusal.body().len() <= 1024, "{}", refusal.body().len());
    assert_eq!((refusal.code(), refusal.error.unwrap().processed), (Code::PERMISSION_DENIED, Some(false)));
}

// spec: §12.2, §12.3, §5.10, §14.1
#[test]
fn subscriptions_that_are_none_are_refused() {
    let group = "g".repeat(256);
    for (filter, meta, code) in [
        ("a.", vec![], Code::INVALID_ARGUMENT),
        ("a.>.b", vec![], Code::INVALID_ARGUMENT),
        ("", vec![], Code::INVALID_ARGUMENT),
        ("fluxar.*", vec![], Code::UNIMPLEMENTED),
        ("a", vec![(key::QOS, V::U(3))], Code::INVALID_ARGUMENT),
        ("a", vec![(key::QOS, V::T("1"))], Code::INVALID_ARGUMENT),
        ("a", vec![(key::INFLIGHT, V::U(0))], Code::INVALID_ARGUMENT),
        ("a", vec![(key::INFLIGHT, V::B(true))], Code::INVALID_ARGUMENT),
        ("a", vec![(key::GROUP, V::T(""))], Code::INVALID_ARGUMENT),
        ("a", vec![(key::GROUP, V::T(&group))], Code::INVALID_ARGUMENT),
        ("a", vec![(key::GROUP, V::U(1))], Code::INVALID_ARGUMENT),
    ] {
        let mut script = Script::pubsub(|_| ());
        script.send(Msg::opening(Kind::Subscribe, id(1), filter).with(&meta)).unwrap();
        let refusal = one(script.read());
        assert_eq!((refusal.kind, refusal.reference, &refusal.target), (Kind::Subscribe, Some(id(1)), &None));
        assert_eq!(
            (refusal.code(), refusal.error.unwrap().processed),
            (code, Some(false)),
            "{filter} {meta:?}"
        );
        assert!(script.pubsub_events().is_empty());
    }
}

// spec: §12.3, §15.1
// limit: max_subscriptions
#[test]
fn subscriptions_beyond_the_limit_are_refused() {
    let mut script = Script::pubsub(|c| c.limits.max_subscriptions = 2);
    let (first, _) = script.subscriber("a", 0, queue());
    script.subscriber("a", 0, queue());
    let third = script.id();
    script.send(Msg::opening(Kind::Subscribe, third, "a")).unwrap();
    let refusal = one(script.read());
    assert_eq!((refusal.reference, refusal.code()), (Some(third), Code::RESOURCE_EXHAUSTED));
    script.send(Msg::continuation(Kind::Unsubscribe, id(80), first)).unwrap();
    script.events();
    let early = script.id();
    script.send(Msg::opening(Kind::Subscribe, early, "a")).unwrap();
    let answers = script.read();
    assert!(answers.iter().any(|message| message.reference == Some(early) && message.error.is_some()));
    script.subscriber("a", 0, queue());
}

// spec: §12.4, §12.12
#[test]
fn the_subscriber_ends_it_and_is_answered() {
    let (mut pair, subscription, subscriber) =
        subscribed(&config(|_| ()), "a", SubscribeOptions::new(), queue());
    pair.a().unsubscribe(subscription).unwrap();
    assert_eq!(pair.a().unsubscribe(subscription), Err(Gone));
    assert_eq!(pair.a().poll_delivery(subscription).unwrap_err(), Gone);
    pair.drive();
    let events = pubsub_events(&pair.events(B));
    assert!(matches!(events[..], [PubSubEvent::Unsubscribed(id)] if id == subscriber), "{events:?}");
    assert!(pubsub_events(&pair.events(A)).is_empty(), "who has ended it knows");
    assert_eq!((pair.a().stats().subscriptions, pair.b().stats().subscribers), (0, 0));
    assert_eq!(pair.b().subscriber_stats(subscriber), Err(Gone));
}

// spec: §12.4, §12.12
#[test]
fn the_publisher_ends_it_and_says_why() {
    let (mut pair, subscription, subscriber) =
        subscribed(&config(|_| ()), "a", SubscribeOptions::new(), queue());
    pair.b().end_subscription(subscriber, Some(Error::unavailable("moved"))).unwrap();
    assert_eq!(pair.b().end_subscription(subscriber, None), Err(Gone));
    pair.drive();
    let events = pubsub_events(&pair.events(A));
    let [PubSubEvent::Ended(id, Some(error))] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*id, &*error.message), (subscription, "moved"));
    assert_eq!(pair.b().stats().subscribers, 0, "it was answered");
    assert_eq!(pair.a().stats().subscriptions, 1, "until the application has seen the end");
    assert_eq!(pair.a().poll_delivery(subscription).unwrap_err(), Gone);
    assert_eq!(pair.a().stats().subscriptions, 0);
}

// spec: §12.4, §12.12
#[test]
fn ends_that_cross_answer_each_other() {
    let (mut pair, subscription, subscriber) =
        subscribed(&config(|_| ()), "a", SubscribeOptions::new(), queue());
    let before = [A, B].map(|end| pair.ends[end].sent.len());
    pair.a().unsubscribe(subscription).unwrap();
    pair.b().end_subscription(subscriber, None).unwrap();
    pair.drive();
    for end in [A, B] {
        let sent = Msg::decode_all(&pair.ends[end].sent[before[end]..]);
        assert_eq!(one(sent).kind, Kind::Unsubscribe, "one each, and no answer to an answer");
    }
    assert_eq!((pair.a().stats().subscriptions, pair.b().stats().subscribers), (0, 0));
    assert_eq!(pair.a().stats().dropped + pair.b().stats().dropped, 0);
}

// spec: §12.4, §12.12, §2.4
#[test]
fn what_was_never_sent_is_not_ended_on_the_wire() {
    let mut script = Script::pubsub(|_| ());
    let subscription = script.connection.subscribe(script.now, "a", SubscribeOptions::new()).unwrap();
    script.connection.unsubscribe(subscription).unwrap();
    assert!(!script.connection.wants_transmit(), "nothing is left that would wait for the transport");
    assert!(script.read().is_empty());
    assert_eq!(script.connection.stats().subscriptions, 0);
}

// spec: §12.4, §12.12
#[test]
fn an_end_before_the_confirmation_is_answered_and_nothing_is_confirmed() {
    let mut script = Script::pubsub(|_| ());
    script.send(Msg::opening(Kind::Subscribe, id(1), "a")).unwrap();
    let request = one(requests(&script.pubsub_events()));
    script.send(Msg::continuation(Kind::Unsubscribe, id(2), id(1))).unwrap();
    assert_eq!(script.connection.confirm(request.id, Qos::AtMostOnce, queue()), Err(Gone));
    let answer = one(script.read());
    assert_eq!((answer.kind, answer.reference, answer.error), (Kind::Unsubscribe, Some(id(1)), None));
    assert_eq!(script.connection.stats().subscribers, 0);
    // The same where the confirmation waits to be sent.
    script.send(Msg::opening(Kind::Subscribe, id(3), "a")).unwrap();
    let request = one(requests(&script.pubsub_events()));
    script.connection.confirm(request.id, Qos::AtMostOnce, queue()).unwrap();
    script.send(Msg::continuation(Kind::Unsubscribe, id(4), id(3))).unwrap();
    assert_eq!(one(script.read()).kind, Kind::Unsubscribe);
}

// spec: §12.12
#[test]
fn what_the_peer_does_not_know_to_be_confirmed_is_refused_to_end_it() {
    for confirmed in [false, true] {
        let mut script = Script::pubsub(|_| ());
        script.send(Msg::opening(Kind::Subscribe, id(1), "a")).unwrap();
        let request = one(requests(&script.pubsub_events()));
        if confirmed {
            script.connection.confirm(request.id, Qos::AtMostOnce, queue()).unwrap();
        }
        script.connection.end_subscription(request.id, Some(Error::unavailable("going"))).unwrap();
        let refusal = one(script.read());
        assert_eq!((refusal.kind, refusal.code()), (Kind::Subscribe, Code::UNAVAILABLE));
        assert_eq!(script.connection.stats().subscribers, 0);
        assert!(matches!(script.pubsub_events()[..], [PubSubEvent::Unsubscribed(id)] if id == request.id));
    }
}

// spec: §12.4, §12.12
#[test]
fn in_ending_confirmations_and_deliveries_are_dropped_but_a_refusal_ends_it() {
    for refused in [false, true] {
        let mut script = Script::pubsub(|_| ());
        let subscription = script.connection.subscribe(script.now, "a", SubscribeOptions::new()).unwrap();
        script.read();
        script.connection.unsubscribe(subscription).unwrap();
        assert_eq!(one(script.read()).kind, Kind::Unsubscribe);
        let confirmation = Msg::continuation(Kind::Subscribe, script.id(), subscription.wire_id());
        if refused {
            script.send(confirmation.error(Error::unimplemented("none here"))).unwrap();
            assert_eq!(script.connection.stats().subscriptions, 0, "nobody will answer");
        } else {
            script.send(confirmation).unwrap();
            script.delivery(subscription, &[(key::QOS, V::U(2))]).unwrap();
            assert_eq!(script.connection.stats().dropped, 2);
            assert_eq!(script.connection.stats().subscriptions, 1);
            let answer = Msg::continuation(Kind::Unsubscribe, script.id(), subscription.wire_id());
            script.send(answer).unwrap();
            assert_eq!(script.connection.stats().subscriptions, 0);
        }
        assert!(script.pubsub_events().is_empty());
        assert!(script.read().is_empty());
    }
}

// spec: §5.15, §12.4
#[test]
fn what_comes_on_a_subscription_that_is_over_is_dropped() {
    let mut script = Script::pubsub(|_| ());
    let (opening, _) = script.subscriber("a", 0, queue());
    script.send(Msg::continuation(Kind::Unsubscribe, id(70), opening)).unwrap();
    script.read();
    script.send(Msg::continuation(Kind::Unsubscribe, id(71), opening)).unwrap();
    script.send(Msg::continuation(Kind::Subscribe, id(72), opening)).unwrap();
    script.send(Msg::continuation(Kind::Message, id(73), opening)).unwrap();
    assert!(script.read().is_empty());
    assert_eq!(script.connection.stats().dropped, 3);
}

// spec: §5.15
#[test]
fn types_and_verbs_that_do_not_belong_to_an_exchange_are_judged() {
    let mut script = Script::pubsub(|_| ());
    let (opening, _) = script.subscriber("a", 0, queue());
    script.send(Msg::continuation(Kind::Message, id(70), opening).verb("later")).unwrap();
    script.send(Msg::continuation(Kind::Subscribe, id(71), opening).verb("later")).unwrap();
    assert_eq!(script.connection.stats().dropped, 2, "unknown verbs");
    for message in [
        Msg::continuation(Kind::Message, id(72), opening),
        Msg::continuation(Kind::Message, id(72), opening).verb(verb::ACK),
        Msg::continuation(Kind::Message, id(72), opening).verb(verb::NACK),
        Msg::continuation(Kind::Call, id(72), opening),
        Msg::continuation(Kind::Stream, id(72), opening),
        Msg::continuation(Kind::Control, id(72), opening),
    ] {
        let mut script = Script::pubsub(|_| ());
        let (opening, _) = script.subscriber("a", 0, queue());
        let message = Msg { reference: Some(opening), ..message };
        let error = script.send(message.clone()).unwrap_err();
        assert_eq!(error.code(), Code::PROTOCOL_VIOLATION, "{message:?}");
    }
    for kind in [Kind::Message, Kind::Subscribe, Kind::Unsubscribe] {
        let mut script = Script::pubsub(|_| ());
        let call = script.call("m");
        let error = script.send(Msg::continuation(kind, id(72), call)).unwrap_err();
        assert_eq!(error.code(), Code::PROTOCOL_VIOLATION, "{kind}");
    }
}

// spec: §12.2, §12.3, §14.1
#[test]
fn what_cannot_be_subscribed_to_fails_where_it_was_made() {
    let limits = [("max_subscriptions", 1), ("max_message", 1024)];
    let mut script = Script::pubsub_with(|_| (), &limits);
    let new = SubscribeOptions::new;
    let mut subscribe =
        |filter: &str, options: SubscribeOptions| script.connection.subscribe(script.now, filter, options);
    assert_eq!(subscribe("a.>.b", new()), Err(SubscribeError::BadFilter(TopicError::RestInside)));
    assert_eq!(subscribe("fluxar.>", new()), Err(SubscribeError::BadFilter(TopicError::Reserved)));
    assert_eq!(subscribe("a", new().with_group("")), Err(SubscribeError::BadGroup));
    assert_eq!(subscribe("a", new().with_group("g".repeat(256))), Err(SubscribeError::BadGroup));
    let own = cbor(|out| out.map(1)?.str("inflight")?.u8(1)?.ok());
    assert_eq!(subscribe("a", new().with_meta(own.into())), Err(SubscribeError::BadMeta(None)));
    let large = cbor(|out| out.map(1)?.str("x")?.bytes(&[0; 1_100])?.ok());
    let large = subscribe("a", new().with_meta(large.into()));
    assert!(matches!(large, Err(SubscribeError::TooLarge { limit: 1024, .. })));
    subscribe("a", new()).unwrap();
    assert_eq!(subscribe("a", new()), Err(SubscribeError::TooMany { limit: 1 }));

    let mut other = Script::responder(&config(|_| ()));
    let subscribe = other.connection.subscribe(other.now, "a", new());
    assert_eq!(subscribe, Err(SubscribeError::NotNegotiated));
    let mut early = Script::offered_by(&config(|_| ()));
    assert_eq!(early.connection.subscribe(early.now, "a", new()), Err(SubscribeError::Blocked));
}

// spec: §12.11
#[test]
fn no_more_is_asked_for_than_is_held() {
    let mut script = Script::pubsub(|c| c.limits.max_inflight = 100);
    let mut asked = |inflight: Option<u32>, items| {
        let mut options = SubscribeOptions::new().with_qos(Qos::AtLeastOnce);
        options.inflight = inflight;
        options.queue.items = items;
        script.connection.subscribe(script.now, "a", options).unwrap();
        one(script.read()).meta_u64(key::INFLIGHT)
    };
    assert_eq!(asked(None, 1_024), None, "what goes without saying");
    assert_eq!(asked(Some(7), 1_024), Some(7));
    assert_eq!(asked(None, 5), Some(5));
    assert_eq!(asked(Some(1_000), 1_024), None);
    assert_eq!(asked(Some(0), 0), Some(1));
}

// spec: §8.8, §12.12
#[test]
fn the_end_of_the_session_ends_all_subscriptions() {
    let (mut pair, subscription, subscriber) =
        subscribed(&config(|_| ()), "a", SubscribeOptions::new(), queue());
    pair.cut();
    pair.drive();
    let events = pubsub_events(&pair.events(A));
    assert!(matches!(events[..], [PubSubEvent::Ended(id, Some(_))] if id == subscription), "{events:?}");
    let events = pubsub_events(&pair.events(B));
    assert!(matches!(events[..], [PubSubEvent::Unsubscribed(id)] if id == subscriber), "{events:?}");
    assert_eq!(pair.a().unsubscribe(subscription), Ok(()));
    assert_eq!(pair.a().stats().subscriptions, 0);
}

// spec: §8.7, §12.4
#[test]
fn a_close_in_order_still_acknowledges_what_was_accepted_and_leaves_nothing() {
    for unsubscribed_first in [false, true] {
        let mut script = Script::pubsub(|_| ());
        let subscription = script.subscribed("a", SubscribeOptions::new().with_qos(Qos::AtLeastOnce));
        let ids = [1, 2].map(|_| script.delivery(subscription, &[(key::QOS, V::U(1))]).unwrap());
        let [first, second] = ids.map(|_| script.connection.poll_delivery(subscription).unwrap().unwrap());
        script.connection.ack(first.id).unwrap();
        if unsubscribed_first {
            script.connection.unsubscribe(subscription).unwrap();
            script.connection.close(script.now, None);
        } else {
            script.connection.close(script.now, None);
            script.connection.unsubscribe(subscription).unwrap();
        }
        let said = script.read();
        assert!(said[0].is_verb(verb::ACK) && said[0].ids() == ids[..1], "{said:?}");
        assert_eq!((said.len(), said[1].kind), (2, Kind::Control));
        assert_eq!(script.connection.ack(second.id), Err(Gone), "nothing more can be said");
        assert_eq!(script.connection.stats().subscriptions, 0);
    }
}
