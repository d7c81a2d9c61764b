//! What random sessions have found, each as one short story.

use fluxar_proto::{
    Error, Event, Fate, MessageId, OutMessage, PubSubEvent, PublishOptions, Qos, QueueLimits,
    SubscribeOptions,
};

use crate::support::pubsub::{fates, numbers, pubsub_events, subscribed};
use crate::support::{A, B, Pair, config, ms, uint};

/// A pair with one message in flight at a time, which takes 20 ms over the link and is sent again after 50 ms.
fn slow_pair() -> Pair {
    let mut pair = Pair::established(&config(|c| {
        c.limits.max_inflight = 1;
        c.limits.heartbeat_ms = 0;
        c.ack_timeout = ms(50);
    }));
    pair.latency = ms(20);
    let now = pair.now;
    let options = PublishOptions::new().with_qos(Qos::ExactlyOnce);
    pair.a().publish(now, "orders", uint(1), options).unwrap();
    pair
}

fn next(pair: &mut Pair) -> (MessageId, u32) {
    let publication = pair.b().poll_publication().expect("a publication");
    (publication.id, publication.attempt)
}

fn fates_of_a(pair: &mut Pair) -> Vec<Fate> {
    let events = pair.events(A);
    fates(pair.a(), &events)
}

// spec: §12.8, §12.9, §12.11
#[test]
fn a_nack_that_crosses_a_retransmission_leaves_it_to_be_answered() {
    let mut pair = slow_pair();
    // The second attempt is under way when the first one is refused.
    pair.wait(ms(60));
    let (first, attempt) = next(&mut pair);
    assert_eq!(attempt, 1);
    pair.b().nack(first, Error::permission_denied("not yet")).unwrap();
    pair.wait(ms(15));
    let (second, attempt) = next(&mut pair);
    assert_eq!((second.wire_id(), attempt), (first.wire_id(), 2));
    pair.b().ack(second).unwrap();
    pair.wait(ms(30));
    assert_eq!(fates_of_a(&mut pair), [Fate::Accepted { attempts: 2 }]);
    // Its id is forgotten, and its place free again.
    pair.drive();
    let released = |event: &PubSubEvent| matches!(event, PubSubEvent::Released(_));
    assert!(pubsub_events(&pair.events(B)).iter().any(released));
    let now = pair.now;
    pair.a().publish(now, "orders", uint(2), PublishOptions::new().with_qos(Qos::AtLeastOnce)).unwrap();
    pair.drive();
    assert_eq!(next(&mut pair).1, 1);
    assert_eq!(pair.b().stats().refused, 0);
}

// spec: §12.8, §12.14
#[test]
fn a_nack_answers_the_retransmission_that_came_before_it() {
    let mut pair = slow_pair();
    pair.wait(ms(75));
    let (message, _) = next(&mut pair);
    assert!(pair.b().poll_publication().is_none(), "it is held");
    pair.b().nack(message, Error::permission_denied("no")).unwrap();
    pair.drive();
    assert!(matches!(fates_of_a(&mut pair)[..], [Fate::Rejected { attempts: 2, .. }]));
    assert_eq!((pair.a().poll_timeout(), pair.b().poll_timeout()), (None, None));
}

// spec: §12.9, §12.17
#[test]
fn who_stores_messages_learns_of_an_ack_that_comes_after_they_were_given_up() {
    let mut pair = Pair::established(&config(|c| {
        c.limits.heartbeat_ms = 0;
        (c.ack_timeout, c.attempts) = (ms(50), 1);
    }));
    let now = pair.now;
    let options = PublishOptions::new().with_qos(Qos::ExactlyOnce);
    let id = pair.a().publish(now, "orders", uint(1), options).unwrap().unwrap().wire_id();
    pair.wait(ms(60));
    assert!(matches!(fates_of_a(&mut pair)[..], [Fate::GivenUp { attempts: 1, .. }]));
    let (message, _) = next(&mut pair);
    pair.b().ack(message).unwrap();
    pair.drive();
    let events = pubsub_events(&pair.events(A));
    let [PubSubEvent::Acknowledged(one), PubSubEvent::Completed(other)] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((one, other), (id, id));
}

// spec: §12.4, §12.15
#[test]
fn what_an_ended_subscription_leaves_is_told_in_the_order_in_which_it_was_sent() {
    let options = SubscribeOptions::new().with_qos(Qos::AtLeastOnce).with_inflight(2);
    let (mut pair, subscription, subscriber) =
        subscribed(&config(|_| ()), "jobs", options, QueueLimits::default());
    let now = pair.now;
    for number in 1..=4 {
        let message = OutMessage::new("jobs", Qos::AtLeastOnce, uint(number), Default::default()).unwrap();
        pair.b().deliver(now, subscriber, &message).unwrap();
    }
    pair.drive();
    // The third takes the place of the first, the fourth waits.
    let first = pair.a().poll_delivery(subscription).unwrap().unwrap();
    pair.a().ack(first.id).unwrap();
    pair.drive();
    pair.events(B);
    pair.a().unsubscribe(subscription).unwrap();
    pair.drive();
    let events = pair.events(B);
    let left = events.iter().filter_map(|event| match event {
        Event::PubSub(PubSubEvent::Undelivered { message, ended: true, .. }) => Some(message.payload()),
        _ => None,
    });
    assert_eq!(numbers(left), [2, 3, 4]);
    assert!(matches!(events.last(), Some(Event::PubSub(PubSubEvent::Unsubscribed(id))) if *id == subscriber));
}

// spec: §8.7, §12.4
#[test]
fn nothing_is_answered_behind_the_end_of_the_session() {
    let mut pair = slow_pair();
    pair.wait(ms(30));
    let (message, _) = next(&mut pair);
    let now = pair.now;
    pair.b().close(now, None);
    assert!(pair.b().ack(message).is_err());
    pair.drive();
    assert!(pair.b().nack(message, Error::aborted("no")).is_err());
}

// spec: §12.12
#[test]
fn a_subscription_that_is_ending_when_its_session_is_closed_leaves_nothing() {
    let options = SubscribeOptions::new();
    let (mut pair, subscription, _) = subscribed(&config(|_| ()), "jobs", options, QueueLimits::default());
    let now = pair.now;
    pair.a().unsubscribe(subscription).unwrap();
    pair.a().close(now, None);
    pair.drive();
    assert_eq!((pair.a().stats().subscriptions, pair.b().stats().subscribers), (0, 0));
}
