//! Subscriptions and messages whose session is lost, where the connection gets a fresh one (§9.9, §12).

use fluxar_proto::message::{Id, Kind, key, verb};
use fluxar_proto::{
    Code, Config, Error, Fate, Gone, PubSubEvent, PublicationId, PublishError, PublishOptions, Qos,
    QueueLimits, SubscribeError, SubscribeOptions, SubscriptionId,
};

use crate::support::pubsub::{V, fated, numbers, publication, requests};
use crate::support::{Msg, Script, blob, features, ms, one, uint};

const ALL: [&str; 2] = ["stream", "pubsub"];

fn script() -> Script {
    Script::reconnecting(|_| {}, &[])
}

fn publish(script: &mut Script, n: u64, qos: Qos) -> Option<PublicationId> {
    let options = PublishOptions::new().with_qos(qos);
    script.connection.publish(script.now, "a.b", uint(n), options).unwrap()
}

/// A message of type 6 as the peer sees it: its id, its number, whether it is marked as a repetition, and its attempt.
fn seen(message: &Msg) -> (Id, u64, bool, u64) {
    assert_eq!((message.kind, message.target.as_deref()), (Kind::Message, Some("a.b")), "{message:?}");
    let [n] = numbers(&[fluxar_proto::Payload::new(message.payload.clone().into()).unwrap()])[..] else {
        unreachable!("one number")
    };
    let dup = message.meta_bool(key::DUP).unwrap_or_default();
    (message.id, n, dup, message.meta_u64(key::ATTEMPT).unwrap_or(1))
}

fn fate(script: &mut Script, publication: Option<PublicationId>) -> Option<Fate> {
    script.connection.take_fate(publication.unwrap()).unwrap()
}

/// The peer sends a message with an id of its own.
fn say(script: &mut Script, message: impl FnOnce(Id) -> Msg) {
    let message = message(script.id());
    script.send(message).unwrap();
}

fn subscribe(script: &mut Script, filter: &str, qos: Qos) -> SubscriptionId {
    script.subscribed(filter, SubscribeOptions::new().with_qos(qos))
}

// spec: §12.8, §12.13
#[test]
fn publications_that_are_not_settled_come_again_ahead_of_those_never_sent() {
    let mut script = script();
    let first = publish(&mut script, 1, Qos::AtLeastOnce);
    publish(&mut script, 2, Qos::AtMostOnce);
    let second = publish(&mut script, 3, Qos::ExactlyOnce);
    let sent: Vec<_> = script.read().iter().map(seen).collect();
    assert_eq!(sent.len(), 3);
    let third = publish(&mut script, 4, Qos::AtLeastOnce);
    publish(&mut script, 5, Qos::AtMostOnce);
    script.lose_session();
    publish(&mut script, 6, Qos::AtMostOnce);
    script.renew(features(&ALL, &[]));
    let again: Vec<_> = script.read().iter().map(seen).collect();
    let [first, second, third] = [first, second, third].map(|publication| publication.unwrap());
    assert_eq!(
        again[..3],
        [(first.wire_id(), 1, true, 2), (second.wire_id(), 3, true, 2), (third.wire_id(), 4, false, 1)]
    );
    assert_eq!(
        again[3..].iter().map(|(_, n, dup, attempt)| (*n, *dup, *attempt)).collect::<Vec<_>>(),
        [(5, false, 1), (6, false, 1)]
    );
    for id in [first, second, third] {
        script.settle(verb::ACK, id.wire_id()).unwrap();
    }
    assert_eq!(fated(&script.pubsub_events()), [first, second, third]);
    let attempts = |n| Some(Fate::Accepted { attempts: n });
    assert_eq!([first, second, third].map(|id| fate(&mut script, Some(id))), [2, 2, 1].map(attempts));
    let release = one(script.read());
    assert_eq!((release.target.as_deref(), release.reference), (Some(verb::RELEASE), Some(second.wire_id())));
    script.settle(verb::COMPLETE, second.wire_id()).unwrap();
    assert_eq!(script.connection.stats().publish_bytes, 0);
}

// spec: §12.13, §12.9
#[test]
fn what_was_acknowledged_is_only_released() {
    let mut script = script();
    let [waits, left] = [1, 2].map(|n| publish(&mut script, n, Qos::ExactlyOnce).unwrap());
    script.read();
    script.settle(verb::ACK, left.wire_id()).unwrap();
    assert_eq!(one(script.read()).target.as_deref(), Some(verb::RELEASE));
    script.settle(verb::ACK, waits.wire_id()).unwrap();
    // Nobody has completed either; the one's release has left.
    script.lose_session();
    script.renew(features(&ALL, &[]));
    let release = one(script.read());
    assert_eq!(release.target.as_deref(), Some(verb::RELEASE));
    let mut ids = release.ids();
    ids.sort_unstable();
    assert_eq!(ids, [waits.wire_id(), left.wire_id()]);
    // It goes on once more in a third session, and is over then.
    script.lose_session();
    script.renew(features(&ALL, &[]));
    assert_eq!(one(script.read()).ids().len(), 2);
    for id in [waits, left] {
        script.settle(verb::COMPLETE, id.wire_id()).unwrap();
    }
    let completed = script.pubsub_events();
    let completed = completed.iter().filter(|event| matches!(event, PubSubEvent::Completed(_)));
    assert_eq!(completed.count(), 2);
    script.lose_session();
    script.renew(features(&ALL, &[]));
    assert_eq!(script.read(), []);
}

// spec: §12.17, §12.9
#[test]
fn what_is_durable_waits_for_its_application_in_the_fresh_session_too() {
    let mut script = script();
    let options = PublishOptions::new().with_qos(Qos::ExactlyOnce).with_durable();
    let id = script.connection.publish(script.now, "a.b", uint(1), options).unwrap().unwrap().wire_id();
    script.read();
    script.settle(verb::ACK, id).unwrap();
    script.lose_session();
    script.renew(features(&ALL, &[]));
    assert_eq!(script.read(), []);
    script.connection.release_publication(id).unwrap();
    assert_eq!(one(script.read()).target.as_deref(), Some(verb::RELEASE));
    script.settle(verb::COMPLETE, id).unwrap();
    assert_eq!(script.connection.release_publication(id), Err(Gone));
}

// spec: §12.8
#[test]
fn the_last_attempt_is_the_last_and_its_application_is_told() {
    let mut script = Script::reconnecting(|c| c.attempts = 2, &[]);
    let publication = publish(&mut script, 1, Qos::AtLeastOnce);
    script.read();
    script.lose_session();
    script.renew(features(&ALL, &[]));
    assert_eq!(seen(&one(script.read())).3, 2);
    assert_eq!(fate(&mut script, publication), None);
    script.lose_session();
    assert_eq!(fated(&script.pubsub_events()), [publication.unwrap()]);
    match fate(&mut script, publication) {
        Some(Fate::GivenUp { error, attempts: 2 }) => {
            assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None));
        }
        other => panic!("{other:?}"),
    }
    script.renew(features(&ALL, &[]));
    assert_eq!(script.read(), []);
    assert_eq!(script.connection.stats().publish_bytes, 0);
}

// spec: §12.11
#[test]
fn what_comes_again_keeps_to_what_the_fresh_peer_allows() {
    let mut script = script();
    let ids = [1, 2, 3].map(|n| publish(&mut script, n, Qos::AtLeastOnce).unwrap().wire_id());
    script.read();
    script.lose_session();
    script.renew(features(&ALL, &[("max_inflight", 2)]));
    let sent: Vec<_> = script.read().iter().map(|message| message.id).collect();
    assert_eq!(sent, ids[..2]);
    script.settle(verb::ACK, ids[0]).unwrap();
    assert_eq!(seen(&one(script.read())), (ids[2], 3, true, 2));
}

// spec: §12.8
#[test]
fn a_repetition_that_waits_for_its_time_is_not_forgotten() {
    let mut script = script();
    let id = publish(&mut script, 1, Qos::AtLeastOnce).unwrap().wire_id();
    script.read();
    let nack = Msg::continuation(Kind::Message, script.id(), id).verb(verb::NACK);
    script.send(nack.error(Error::unavailable("not now").with_retry_after_ms(60_000))).unwrap();
    script.lose_session();
    script.renew(features(&ALL, &[]));
    assert_eq!(seen(&one(script.read())), (id, 1, true, 2));
    // Of its timers in the session before none is left.
    script.settle(verb::ACK, id).unwrap();
    assert_eq!(script.connection.poll_timeout(), None);
}

// spec: §12.11, §12.8
#[test]
fn what_was_given_up_is_in_flight_no_longer() {
    let settings = |c: &mut Config| (c.attempts, c.ack_timeout) = (1, ms(100));
    let mut script = Script::reconnecting(settings, &[("max_inflight", 1)]);
    let first = publish(&mut script, 1, Qos::AtLeastOnce);
    script.read();
    script.wait(ms(100)).unwrap();
    assert!(matches!(fate(&mut script, first), Some(Fate::GivenUp { .. })));
    publish(&mut script, 2, Qos::AtLeastOnce);
    assert_eq!(script.read(), []);
    script.lose_session();
    script.renew(features(&ALL, &[("max_inflight", 1)]));
    assert_eq!(seen(&one(script.read())).1, 2);
}

// spec: §9.9, §5.13, §12.11
#[test]
fn the_limits_of_the_fresh_session_hold_for_what_was_published() {
    let published = |script: &mut Script| {
        let large = PublishOptions::new().with_qos(Qos::AtLeastOnce);
        let large = script.connection.publish(script.now, "a.b", blob(2_000), large).unwrap();
        script.read();
        script.connection.publish(script.now, "a.b", blob(2_000), PublishOptions::new()).unwrap();
        let small = publish(script, 1, Qos::AtLeastOnce);
        script.lose_session();
        [large, small]
    };
    let rejected = |script: &mut Script, publication| match fate(script, publication) {
        Some(Fate::Rejected { error, attempts }) => (error.code, error.processed, attempts),
        other => panic!("{other:?}"),
    };
    // Too large.
    let mut script = script();
    let [large, small] = published(&mut script);
    script.renew(features(&ALL, &[("max_message", 1_024)]));
    assert_eq!(rejected(&mut script, large), (Code::MESSAGE_TOO_LARGE, None, 1));
    assert_eq!(one(script.read()).id, small.unwrap().wire_id());
    // Nothing with acknowledgement.
    let mut script = self::script();
    let [large, small] = published(&mut script);
    script.renew(features(&ALL, &[("max_inflight", 0)]));
    assert_eq!(rejected(&mut script, large), (Code::RESOURCE_EXHAUSTED, None, 1));
    assert_eq!(rejected(&mut script, small), (Code::RESOURCE_EXHAUSTED, Some(false), 0));
    assert_eq!(one(script.read()).meta_u64(key::QOS), None);
    assert_eq!(script.connection.stats().publish_bytes, 0);
    // Nothing at all.
    let mut script = self::script();
    let released = publish(&mut script, 1, Qos::ExactlyOnce).unwrap().wire_id();
    script.read();
    script.settle(verb::ACK, released).unwrap();
    let accepted = one(fated(&script.pubsub_events()));
    script.connection.forget_publication(accepted).unwrap();
    let [large, small] = published(&mut script);
    script.renew(features(&["stream"], &[]));
    assert_eq!(rejected(&mut script, large), (Code::UNIMPLEMENTED, None, 1));
    assert_eq!(rejected(&mut script, small), (Code::UNIMPLEMENTED, Some(false), 0));
    assert_eq!(script.read(), []);
    assert_eq!(script.connection.stats().publish_bytes, 0);
    let again = script.connection.publish(script.now, "a.b", uint(0), PublishOptions::new());
    assert_eq!(again, Err(PublishError::NotNegotiated));
    // Its id is free: nothing is open by it.
    assert_eq!(script.send(publication(released, "a.b", 0)), Ok(()));
}

// spec: §9.9, §12.12, §12.6
#[test]
fn a_subscription_goes_on_under_its_name_and_its_application_learns_that_something_may_be_missing() {
    let mut script = script();
    let subscription = subscribe(&mut script, "a.*", Qos::AtLeastOnce);
    let marks = [(key::QOS, V::U(1)), (key::TOPIC, V::T("a.b")), (key::SEQ, V::U(5))];
    script.delivery(subscription, &marks).unwrap();
    let dropped = script.lose_session();
    assert_eq!((dropped.subscriptions, dropped.calls, dropped.streams), (1, 0, 0));
    assert!(!script.pubsub_events().iter().any(|event| matches!(event, PubSubEvent::Ended(..))));
    script.renew(features(&ALL, &[]));
    let opening = one(script.read());
    assert_eq!((opening.kind, opening.target.as_deref()), (Kind::Subscribe, Some("a.*")));
    assert_eq!(opening.meta_u64(key::QOS), Some(1));
    assert_ne!(opening.id, subscription.wire_id());
    let confirmation = Msg::continuation(Kind::Subscribe, script.id(), opening.id);
    script.send(confirmation.with(&[(key::QOS, V::U(1))])).unwrap();
    let events = script.pubsub_events();
    assert!(
        matches!(events[..], [PubSubEvent::Resubscribed { subscription: id, granted: Qos::AtLeastOnce }] if id == subscription),
        "{events:?}"
    );
    // What came before can still be read, but nobody waits for what is said to it.
    let held = script.connection.poll_delivery(subscription).unwrap().unwrap();
    assert_eq!(held.seq, Some(5));
    assert_eq!(script.connection.ack(held.id), Err(Gone));
    assert_eq!(script.connection.nack(held.id, Error::unavailable("no")), Err(Gone));
    assert_eq!(script.read(), []);
    // Its numbers begin again.
    let delivery = Msg::continuation(Kind::Message, script.id(), opening.id).payload(vec![0x07]);
    script.send(delivery.with(&[(key::QOS, V::U(1)), (key::TOPIC, V::T("a.c"))])).unwrap();
    let next = script.connection.poll_delivery(subscription).unwrap().unwrap();
    assert_eq!((next.seq, &*next.topic), (Some(1), "a.c"));
    script.connection.ack(next.id).unwrap();
    assert_eq!(one(script.read()).target.as_deref(), Some(verb::ACK));
    let stats = script.connection.subscription_stats(subscription).unwrap();
    assert_eq!((stats.received, stats.lost, stats.unsettled), (2, 4, 0));
    // It ends by the name that it has there.
    script.connection.unsubscribe(subscription).unwrap();
    let end = one(script.read());
    assert_eq!((end.kind, end.reference), (Kind::Unsubscribe, Some(opening.id)));
    say(&mut script, |id| Msg::continuation(Kind::Unsubscribe, id, opening.id));
    assert_eq!(script.connection.stats().subscriptions, 0);
}

// spec: §9.9, §12.3
#[test]
fn a_fresh_session_that_refuses_a_subscription_ends_it() {
    let mut script = script();
    let subscription = subscribe(&mut script, "a.b", Qos::AtMostOnce);
    script.delivery(subscription, &[]).unwrap();
    script.lose_session();
    script.renew(features(&ALL, &[]));
    let opening = one(script.read());
    let refusal = Msg::continuation(Kind::Subscribe, script.id(), opening.id);
    script.send(refusal.error(Error::new(Code::PERMISSION_DENIED, "not any more"))).unwrap();
    let events = script.pubsub_events();
    let ended = events.iter().filter_map(|event| match event {
        PubSubEvent::Ended(id, Some(error)) => Some((*id, error.code)),
        _ => None,
    });
    assert_eq!(one(ended.collect()), (subscription, Code::PERMISSION_DENIED));
    assert!(script.connection.poll_delivery(subscription).unwrap().is_some());
    assert!(matches!(script.connection.poll_delivery(subscription), Err(Gone)));
    assert_eq!(script.connection.stats().subscriptions, 0);
}

// spec: §9.9, §12.12
#[test]
fn subscriptions_in_every_state_end_or_go_on() {
    let mut script = script();
    let confirmed = subscribe(&mut script, "confirmed", Qos::AtMostOnce);
    let ended = subscribe(&mut script, "ended", Qos::AtMostOnce);
    let left = subscribe(&mut script, "left", Qos::AtMostOnce);
    say(&mut script, |id| Msg::continuation(Kind::Unsubscribe, id, ended.wire_id()));
    script.connection.unsubscribe(left).unwrap();
    let now = script.now;
    let mut ask = |filter| script.connection.subscribe(now, filter, SubscribeOptions::new()).unwrap();
    let requested = ask("requested");
    script.read();
    let mut ask = |filter| script.connection.subscribe(now, filter, SubscribeOptions::new()).unwrap();
    let [queued, dropped] = ["queued", "dropped"].map(&mut ask);
    assert_eq!(script.lose_session().subscriptions, 2, "those that the peer knew of");
    let late = script.connection.subscribe(now, "late", SubscribeOptions::new()).unwrap();
    script.connection.unsubscribe(dropped).unwrap();
    script.renew(features(&ALL, &[]));
    let openings = script.read();
    let filters: Vec<_> = openings.iter().map(|message| message.target.as_deref().unwrap()).collect();
    assert_eq!(filters, ["confirmed", "requested", "queued", "late"]);
    script.pubsub_events();
    for opening in &openings {
        let confirmation = Msg::continuation(Kind::Subscribe, script.id(), opening.id);
        script.send(confirmation).unwrap();
    }
    let events = script.pubsub_events();
    let told = events.iter().map(|event| match event {
        PubSubEvent::Resubscribed { subscription, .. } => (*subscription, true),
        PubSubEvent::Confirmed(subscription, _) => (*subscription, false),
        other => panic!("{other:?}"),
    });
    // Only who has had a confirmation before has missed something.
    let expected = [(confirmed, true), (requested, false), (queued, false), (late, false)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    // What is over is forgotten when its application has seen that.
    assert!(matches!(script.connection.poll_delivery(ended), Err(Gone)));
    assert_eq!(script.connection.stats().subscriptions, 4);
}

// spec: §9.9, §6.6, §5.13
#[test]
fn subscriptions_that_the_fresh_session_cannot_have_end() {
    let meta = crate::support::cbor(|out| out.map(1)?.str("k")?.str(&"x".repeat(2_000))?.ok());
    let why = |fresh: Vec<u8>| {
        let mut script = script();
        let small = subscribe(&mut script, "small", Qos::AtMostOnce);
        let options = SubscribeOptions::new().with_meta(meta.clone().into());
        let large = script.connection.subscribe(script.now, "large", options).unwrap();
        script.lose_session();
        script.renew(fresh);
        let events = script.pubsub_events();
        let ended = events.into_iter().filter_map(|event| match event {
            PubSubEvent::Ended(id, error) => error.map(|error| (id == large, error.code, error.processed)),
            _ => None,
        });
        let sent = script.read().len();
        let again = script.connection.subscribe(script.now, "a", SubscribeOptions::new());
        assert_eq!(again == Err(SubscribeError::NotNegotiated), sent == 0);
        script.connection.unsubscribe(small).unwrap();
        (ended.collect::<Vec<_>>(), sent)
    };
    let (ended, sent) = why(features(&ALL, &[("max_message", 1_024)]));
    assert_eq!((ended, sent), (vec![(true, Code::MESSAGE_TOO_LARGE, Some(false))], 1));
    let (ended, sent) = why(features(&["stream"], &[]));
    let off = |large| (large, Code::UNIMPLEMENTED, Some(false));
    assert_eq!((ended, sent), (vec![off(false), off(true)], 0));
}

// spec: §8.8, §12.4
#[test]
fn what_is_the_peers_ends_with_its_session() {
    let mut script = script();
    let (_, subscriber) = script.subscriber("s", 1, QueueLimits::default());
    let message = fluxar_proto::OutMessage::new("s", Qos::AtLeastOnce, uint(1), Default::default()).unwrap();
    script.connection.deliver(script.now, subscriber, &message).unwrap();
    script.read();
    script.connection.deliver(script.now, subscriber, &message).unwrap();
    let wire = script.id();
    script.send(publication(wire, "t", 1)).unwrap();
    say(&mut script, |id| publication(id, "t", 0));
    say(&mut script, |id| Msg::opening(Kind::Subscribe, id, "u"));
    let request = one(requests(&script.pubsub_events()));
    script.lose_session();
    let events = script.pubsub_events();
    let undelivered = events.iter().filter_map(|event| match event {
        PubSubEvent::Undelivered { attempts, ended: true, .. } => Some(*attempts),
        _ => None,
    });
    assert_eq!(undelivered.collect::<Vec<_>>(), [1, 0]);
    let over = events.iter().filter(|event| matches!(event, PubSubEvent::Unsubscribed(_)));
    assert_eq!(over.count(), 2);
    assert_eq!(script.connection.confirm(request.id, Qos::AtMostOnce, QueueLimits::default()), Err(Gone));
    assert_eq!(script.connection.poll_timeout(), None, "no delivery waits for its acknowledgement");
    script.renew(features(&ALL, &[]));
    assert_eq!(script.read(), []);
    // Of its publications only what nobody waits for is left.
    let left = script.publications();
    assert_eq!(left.iter().map(|publication| publication.qos).collect::<Vec<_>>(), [Qos::AtMostOnce]);
    // What comes again is a new one.
    script.send(crate::support::pubsub::again(wire, "t", 1, 2)).unwrap();
    let again = one(script.publications());
    script.connection.ack(again.id).unwrap();
    assert_eq!(one(script.read()).reference, Some(wire));
    let stats = script.connection.stats();
    assert_eq!((stats.subscribers, stats.held_publication_bytes), (0, 0));
}

// spec: §12.11
#[test]
fn what_a_receiver_remembers_ends_with_the_session() {
    let mut script = Script::reconnecting(|c| c.limits.max_inflight = 1, &[]);
    let wire = script.id();
    script.send(publication(wire, "t", 2)).unwrap();
    let held = one(script.publications());
    script.connection.ack(held.id).unwrap();
    script.lose_session();
    script.renew(features(&ALL, &[]));
    assert_eq!(script.read(), []);
    // There is room again, and the same id is a new message.
    script.send(crate::support::pubsub::again(wire, "t", 2, 2)).unwrap();
    let again = one(script.publications());
    assert!(again.dup && again.attempt == 2);
    script.connection.ack(again.id).unwrap();
    assert_eq!(one(script.read()).reference, Some(wire));
}

// spec: §9.9, §5.5
#[test]
fn ids_of_what_the_peer_had_open_mean_nothing_in_a_fresh_session() {
    let mut script = script();
    let mut ids = vec![script.call("m")];
    let mut opened = |script: &mut Script, message: fn(Id) -> Msg| {
        ids.push(script.id());
        script.send(message(ids[ids.len() - 1])).unwrap();
    };
    opened(&mut script, |id| Msg::opening(Kind::Stream, id, "s"));
    opened(&mut script, |id| publication(id, "t", 1));
    // Subscriptions that wait for a confirmation, that have it, and that are about to end.
    for _ in 0..3 {
        opened(&mut script, |id| Msg::opening(Kind::Subscribe, id, "t"));
    }
    let [_, active, ending] = &requests(&script.pubsub_events())[..] else { panic!("three subscriptions") };
    for subscriber in [active.id, ending.id] {
        script.connection.confirm(subscriber, Qos::AtLeastOnce, QueueLimits::default()).unwrap();
    }
    script.read();
    script.connection.end_subscription(ending.id, None).unwrap();
    script.read();
    script.lose_session();
    script.renew(features(&ALL, &[]));
    for id in ids {
        assert_eq!(script.send(Msg::opening(Kind::Call, id, "m")), Ok(()), "something is open by it");
    }
    assert_eq!(crate::support::requests(&script.events()).len(), 6);
}
