//! Who gets what, and what is kept.

use std::vec::Vec;

use super::*;
use crate::message::Payload;
use crate::pattern::Qos;

fn hub(limits: RetainLimits) -> Hub<u32> {
    Hub::new(HashKey::new(1, 2), limits)
}

fn routed(hub: &mut Hub<u32>, topic: &str) -> Vec<u32> {
    let mut receivers = Vec::new();
    hub.route(topic, &mut receivers);
    receivers.sort_unstable();
    receivers
}

fn message(topic: &str, len: usize) -> OutMessage {
    let payload = Payload::build(|out| out.bytes(&std::vec![7; len])?.ok());
    OutMessage::new(topic, Qos::AtMostOnce, payload, Default::default()).unwrap()
}

fn topics<'a>(hub: &'a Hub<u32>, filter: &'a str) -> Vec<&'a str> {
    hub.retained(filter).map(|message| &**message.topic()).collect()
}

// spec: §12.5
#[test]
fn each_matching_subscription_gets_a_message_once() {
    let mut hub = hub(RetainLimits::default());
    for (key, filter) in [(1, "a.b"), (2, "a.*"), (3, "a.>"), (4, ">"), (5, "b.>"), (6, "a.b")] {
        hub.subscribe(key, filter, None);
    }
    assert_eq!(routed(&mut hub, "a.b"), [1, 2, 3, 4, 6]);
    assert_eq!(routed(&mut hub, "b"), [4]);
    assert!(hub.unsubscribe(&1) && !hub.unsubscribe(&1));
    assert_eq!(routed(&mut hub, "a.b"), [2, 3, 4, 6]);
    hub.subscribe(2, "c", None);
    assert_eq!(routed(&mut hub, "a.b"), [3, 4, 6], "a key has one filter");
    assert_eq!(routed(&mut hub, "c"), [2, 4]);
    (2..=6).for_each(|key| assert!(hub.unsubscribe(&key)));
    assert!(hub.is_empty() && hub.filters.is_empty());
}

// spec: §12.15
#[test]
fn the_members_of_a_group_take_turns_and_share_nothing_with_other_groups() {
    let mut hub = hub(RetainLimits::default());
    (1..=3).for_each(|key| hub.subscribe(key, "jobs", Some("a")));
    hub.subscribe(4, "jobs", Some("b"));
    hub.subscribe(5, "jobs", None);
    let mut turns = Vec::new();
    for _ in 0..6 {
        let got = routed(&mut hub, "jobs");
        assert_eq!(got[1..], [4, 5]);
        turns.push(got[0]);
    }
    assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
    assert!(hub.unsubscribe(&1));
    assert_eq!(routed(&mut hub, "jobs"), [2, 4, 5], "who has gone is passed over");
    assert!(hub.unsubscribe(&2) && hub.unsubscribe(&3));
    assert_eq!(routed(&mut hub, "jobs"), [4, 5], "an empty group gets nothing");
    assert!(hub.unsubscribe(&4) && hub.unsubscribe(&5));
    assert!(hub.filters.is_empty());
}

// spec: §12.15
#[test]
fn members_that_are_not_ready_are_passed_over() {
    let mut hub = hub(RetainLimits::default());
    (1..=4).for_each(|key| hub.subscribe(key, "jobs", Some("a")));
    let mut chosen = |ready: &[u32]| {
        let mut receivers = Vec::new();
        hub.route_by("jobs", &mut receivers, |key| ready.contains(key));
        assert_eq!(receivers.len(), 1);
        receivers[0]
    };
    let turns = [&[1, 3][..], &[1, 3], &[1, 3], &[2], &[2], &[], &[], &[1, 2, 3, 4]].map(&mut chosen);
    assert_eq!(turns, [1, 3, 1, 2, 2, 3, 4, 1]);
    assert_eq!(hub.member("jobs", "a", |key| *key == 4), Some(4));
    assert_eq!(hub.member("jobs", "a", |_| true), Some(1));
    assert_eq!(hub.member("jobs", "b", |_| true), None);
    assert_eq!(hub.member("other", "a", |_| true), None);
}

// spec: §12.16
#[test]
fn the_last_value_of_each_topic_is_kept_until_it_is_cleared() {
    let mut hub = hub(RetainLimits::default());
    for topic in ["a.b", "a", "a.c.d", "ab", "b"] {
        assert_eq!(hub.retain(message(topic, 1)), Retain::Kept);
    }
    assert_eq!(hub.retain(message("a.b", 20)), Retain::Kept);
    assert_eq!(topics(&hub, "a.>"), ["a.b", "a.c.d"]);
    assert_eq!(topics(&hub, "a.*"), ["a.b"]);
    assert_eq!(topics(&hub, "*"), ["a", "ab", "b"]);
    assert_eq!(topics(&hub, "a"), ["a"]);
    assert_eq!(topics(&hub, "c"), [""; 0]);
    let kept = hub.retained("a.b").next().unwrap();
    assert!(kept.is_retained() && kept.payload().len() == 21, "the later one");
    let null = OutMessage::new("a.b", Qos::AtMostOnce, Payload::null(), Default::default()).unwrap();
    assert_eq!(hub.retain(null), Retain::Cleared);
    assert_eq!(topics(&hub, "a.*"), [""; 0]);
    assert_eq!(hub.retained_size().0, 4);
}

// spec: §12.16
// limit: values that a hub keeps
#[test]
fn last_values_are_bounded_in_number_and_bytes() {
    let each = message("a", 100).held_bytes();
    let mut hub = hub(RetainLimits { items: 3, bytes: 3 * each });
    for topic in ["a", "b", "c"] {
        assert_eq!(hub.retain(message(topic, 100)), Retain::Kept);
    }
    assert_eq!(hub.retained_size(), (3, 3 * each));
    assert_eq!(hub.retain(message("d", 1)), Retain::Full, "one topic more");
    assert_eq!(hub.retain(message("a", 101)), Retain::Full, "one byte more");
    assert_eq!(topics(&hub, "*"), ["a", "b", "c"], "what was kept is as it was");
    assert_eq!(hub.retain(message("a", 99)), Retain::Kept);
    assert_eq!(hub.retain(message("a", 100)), Retain::Kept, "judged by what is kept after it");
    assert_eq!(hub.retained_size(), (3, 3 * each));
}
