//! Hubs against hostile publishers and subscribers: each hears what it did wrong, and nobody else notices.

use fluxar::{Code, Error, Overflow, Qos, ServerBuilder};
use fluxar_proto::message::{Id, Kind, verb};
use fluxar_tests::hubs::{Topics, few, hub_with, refused};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::topics::{answer_to, subscribed};
use fluxar_tests::wire::{Message, Wire, fresh_id};

schedulers! {
    subscriptions_beyond_the_limit_are_refused
    filters_that_are_none_are_refused
    topics_that_are_none_are_refused
    floods_of_what_is_refused_are_cut_off
    what_settles_nothing_is_dropped
    what_does_not_fit_its_exchange_is_a_violation
    what_settles_may_come_in_any_order
    a_release_of_the_unknown_is_answered_within_bounds
    what_was_released_and_comes_again_is_new
    publications_beyond_those_in_flight_are_refused
}

fn strict(builder: ServerBuilder) -> ServerBuilder {
    builder.configure(|config| {
        config.misuse_capacity = 200;
        config.misuse_per_second = 0;
        config.limits.max_subscriptions = 5;
        config.limits.max_inflight = 4;
    })
}

// spec: §12.3, §15.1
async fn subscriptions_beyond_the_limit_are_refused(net: Net) {
    let topics = Topics::open(net, strict).await;
    let mut wire = topics.wire().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(subscribed(&mut wire, &Message::subscribe("a.*")).await);
    }
    for _ in 0..3 {
        refused(&mut wire, &Message::subscribe("a.*"), Code::RESOURCE_EXHAUSTED).await;
    }
    assert_eq!(topics.hub().stats().subscriptions, 5);
    // Another connection has its own.
    let mut other = topics.wire().await;
    subscribed(&mut other, &Message::subscribe("a.b")).await;
    wire.send(&Message::unsubscribe(ids[2])).await;
    assert_eq!(answer_to(&mut wire, ids[2]).await.kind, Kind::Unsubscribe);
    subscribed(&mut wire, &Message::subscribe("a.b")).await;
    other.send(&Message::publication("a.b").payload("hello")).await;
    for _ in 0..5 {
        let delivery = wire.receive().await;
        assert_eq!((delivery.kind, delivery.decode::<String>()), (Kind::Message, "hello".into()));
    }
    drop((wire, other));
    topics.unharmed().await;
}

// spec: §12.2, §12.3, §12.15, §14.1
async fn filters_that_are_none_are_refused(net: Net) {
    let topics = Topics::open(net, |builder| builder).await;
    let mut wire = topics.wire().await;
    let long = "x".repeat(255);
    for filter in [
        "", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "*a", "a*", "a.b>", "**", ">>", "a b", "a\u{7f}", "a\0b",
    ] {
        refused(&mut wire, &Message::subscribe(filter), Code::INVALID_ARGUMENT).await;
    }
    for filter in ["fluxar.x", "fluxar.>", "fluxar.*"] {
        refused(&mut wire, &Message::subscribe(filter), Code::UNIMPLEMENTED).await;
    }
    let good = || Message::subscribe("a.b");
    for bad in [
        good().qos(3),
        good().with("qos", "high"),
        good().with("inflight", &0),
        good().with("inflight", &-1),
        good().with("group", ""),
        good().with("group", &7),
        good().with("group", &"x".repeat(256)),
    ] {
        refused(&mut wire, &bad, Code::INVALID_ARGUMENT).await;
    }
    for filter in [&*long, "*", ">", "a.*.>", "Ä.🦀"] {
        subscribed(&mut wire, &Message::subscribe(filter)).await;
    }
    drop(wire);
    topics.unharmed().await;
}

// spec: §12.1, §12.5
async fn topics_that_are_none_are_refused(net: Net) {
    let topics = Topics::open(net, |builder| builder).await;
    let mut wire = topics.wire().await;
    let all = subscribed(&mut wire, &Message::subscribe(">")).await;
    let bad = ["", ".", "a.", ".a", "a..b", "*", ">", "a.*", "a.>", "a b", "a\tb"];
    for topic in bad {
        refused(&mut wire, &Message::publication(topic).qos(1), Code::INVALID_ARGUMENT).await;
        refused(&mut wire, &Message::publication(topic).qos(2), Code::INVALID_ARGUMENT).await;
        // Nobody waits for the fate of this one.
        wire.send(&Message::publication(topic)).await;
    }
    refused(&mut wire, &Message::publication("fluxar.x").qos(1), Code::UNIMPLEMENTED).await;
    refused(&mut wire, &Message::publication("a").qos(3), Code::INVALID_ARGUMENT).await;
    refused(&mut wire, &Message::publication("a").with("qos", "high"), Code::INVALID_ARGUMENT).await;
    let mut full = Message::publication("a").qos(1);
    // {"qos": 1} and 56 others.
    let others = (0..56).flat_map(|number: u8| [0x63, b'x', b'a' + number / 26, b'a' + number % 26, 0xf6]);
    full.meta = [0xb8, 57].into_iter().chain(*b"\x63qos\x01").chain(others).collect::<Vec<u8>>().into();
    refused(&mut wire, &full, Code::INVALID_ARGUMENT).await;
    assert_eq!(topics.peer().await.stats().dropped, bad.len() as u64);
    // None of them has reached anybody.
    wire.send(&Message::publication("a.b").payload("good")).await;
    let delivery = answer_to(&mut wire, all).await;
    assert_eq!(delivery.decode::<String>(), "good");
    drop(wire);
    topics.unharmed().await;
}

// spec: §10.7, §12.3, §12.4, §12.5
async fn floods_of_what_is_refused_are_cut_off(net: Net) {
    let topics = Topics::open(net, strict).await;
    let floods: [fn() -> Vec<Message>; 6] = [
        || vec![Message::subscribe("a..b")],
        || vec![Message::subscribe("fluxar.>")],
        || vec![Message::publication("a..b").qos(1)],
        || vec![Message::publication("a.b").qos(7)],
        // All but five are beyond the limit.
        || vec![Message::subscribe("a.b")],
        || {
            let subscription = Message::subscribe("a.b");
            let end = Message::unsubscribe(subscription.id);
            vec![subscription, end]
        },
    ];
    for flood in floods {
        let mut wire = topics.wire().await;
        let bytes = (0..250).flat_map(|_| flood()).flat_map(|message| message.frame()).collect::<Vec<u8>>();
        // It may be cut off before all is sent.
        wire.try_send_bytes(&bytes).await.ok();
        assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED, "{:?}", flood());
    }
    // What is dropped without an answer costs nothing.
    let mut wire = topics.wire().await;
    let free: [fn() -> Message; 4] = [
        || Message::publication("a..b"),
        || Message::unsubscribe(fresh_id()),
        || Message::ack(fresh_id()),
        || Message::delivery(fresh_id()).qos(1),
    ];
    for message in free {
        wire.send_bytes(&(0..500).flat_map(|_| message().frame()).collect::<Vec<u8>>()).await;
    }
    wire.ping().await;
    drop(wire);
    topics.unharmed().await;
}

/// A subscription on `a.b`, and a delivery on it with `qos`, of which nothing was said yet.
async fn delivered(topics: &Topics, wire: &mut Wire, qos: u8) -> (Id, Id) {
    let subscription = subscribed(wire, &Message::subscribe("a.b").qos(qos)).await;
    topics.hub().publish("a.b", "hello").qos(Qos::ExactlyOnce).await.unwrap();
    let delivery = answer_to(wire, subscription).await;
    assert_eq!((delivery.says("qos"), delivery.decode::<String>()), (Some(qos.into()), "hello".into()));
    (subscription, delivery.id)
}

// spec: §5.15, §12.8, §12.9, §12.13
async fn what_settles_nothing_is_dropped(net: Net) {
    let topics = Topics::open(net, |builder| builder).await;
    let mut wire = topics.wire().await;
    let no = || Error::aborted("no");
    let (once, message) = delivered(&topics, &mut wire, 1).await;
    wire.send(&Message::ack(message)).await;
    let late = [
        Message::ack(message),
        Message::nack(message, no()),
        Message::complete(message),
        Message::ack(fresh_id()),
        Message::nack(fresh_id(), no()),
        Message::complete(fresh_id()),
        // What does not fit is dropped along with what it is for.
        Message::ack(fresh_id()).payload("no ids"),
        Message::complete(fresh_id()).error(no()),
        Message::unsubscribe(fresh_id()),
        Message::confirmation(fresh_id()).qos(2),
        Message::delivery(fresh_id()).qos(2),
    ];
    for message in &late {
        wire.send(message).await;
    }
    wire.ping().await;
    let peer = topics.peer().await;
    assert_eq!(peer.stats().dropped, late.len() as u64);
    wire.send(&Message::unsubscribe(once)).await;
    assert_eq!(answer_to(&mut wire, once).await.kind, Kind::Unsubscribe);
    // The second `ack` of a message that is being released changes nothing, and brings no second `release`.
    let (_, message) = delivered(&topics, &mut wire, 2).await;
    wire.send(&Message::ack(message)).await;
    assert_eq!(answer_to(&mut wire, message).await.does(), Some(verb::RELEASE));
    for _ in 0..10 {
        wire.send(&Message::ack(message)).await;
    }
    let ping = Message::control(verb::PING);
    wire.send(&ping).await;
    assert_eq!(wire.receive().await.reference, Some(ping.id));
    wire.send(&Message::complete(message)).await;
    wire.send(&Message::complete(message)).await;
    wire.ping().await;
    assert_eq!(peer.stats().dropped, late.len() as u64 + 1);
    drop(wire);
    topics.unharmed().await;
}

// spec: §5.15, §12.3, §12.9, §12.10, §12.13, §12.14
async fn what_does_not_fit_its_exchange_is_a_violation(net: Net) {
    let topics = Topics::open(net, |builder| builder).await;
    let no = || Error::aborted("no");
    for (qos, wrong, code) in [
        (1, (|_, message| Message::complete(message)) as fn(Id, Id) -> Message, Code::PROTOCOL_VIOLATION),
        // It is not released yet.
        (2, |_, message| Message::complete(message), Code::PROTOCOL_VIOLATION),
        // Only who has sent it releases it, or delivers.
        (2, |_, message| Message::release(message), Code::PROTOCOL_VIOLATION),
        (1, |_, message| Message::delivery(message), Code::PROTOCOL_VIOLATION),
        (1, |_, message| Message::unsubscribe(message), Code::PROTOCOL_VIOLATION),
        (1, |subscription, _| Message::delivery(subscription), Code::PROTOCOL_VIOLATION),
        (1, |subscription, _| Message::confirmation(subscription), Code::PROTOCOL_VIOLATION),
        (1, |subscription, _| Message::ack(subscription), Code::PROTOCOL_VIOLATION),
        (1, |subscription, _| Message::response(subscription), Code::PROTOCOL_VIOLATION),
        (1, |subscription, _| Message::subscribe("x").id(subscription), Code::PROTOCOL_VIOLATION),
        (1, |_, message| Message::publication("x").qos(1).again(2).id(message), Code::PROTOCOL_VIOLATION),
        (1, |_, message| Message::ack(message).error(Error::aborted("no")), Code::MALFORMED),
        (1, |_, message| Message::ack(message).payload("no ids"), Code::MALFORMED),
        (1, |_, message| Message::ack(message).payload(&[1, 2]), Code::MALFORMED),
    ] {
        let mut wire = topics.wire().await;
        let (subscription, message) = delivered(&topics, &mut wire, qos).await;
        wire.send(&wrong(subscription, message)).await;
        let verdict = wire.closed_for().await;
        assert_eq!(verdict, code, "{:?}", wrong(subscription, message));
    }
    // A `nack` behind the `ack` with which the message was settled for good.
    let mut wire = topics.wire().await;
    let (_, message) = delivered(&topics, &mut wire, 2).await;
    wire.send_bytes(&[Message::ack(message).frame(), Message::nack(message, no()).frame()].concat()).await;
    assert_eq!(wire.closed_for().await, Code::PROTOCOL_VIOLATION);
    // The publisher's side of it.
    let published = Message::publication("a.b").qos(2);
    for wrong in [Message::ack(published.id), Message::nack(published.id, no()), published.clone()] {
        // Somebody holds it, so that it stays unsettled.
        let held = topics.hub().messages("a.b").qos(Qos::ExactlyOnce).buffer(1, 1000).await.unwrap();
        topics.hub().publish("a.b", "first").qos(Qos::ExactlyOnce).await.unwrap();
        assert_eq!(topics.verdict(&[published.clone(), wrong]).await, Code::PROTOCOL_VIOLATION);
        drop(held);
    }
    topics.unharmed().await;
}

// spec: §12.8, §12.10
async fn what_settles_may_come_in_any_order(net: Net) {
    let topics = Topics::open(net, |builder| builder).await;
    let mut wire = topics.wire().await;
    let subscription = subscribed(&mut wire, &Message::subscribe("a.b").qos(2).with("inflight", &20)).await;
    for number in 0..100_u32 {
        topics.hub().publish("a.b", &number).qos(Qos::ExactlyOnce).await.unwrap();
    }
    let (mut next, mut settled) = (0, 0);
    while settled < 100 {
        let mut messages = Vec::new();
        for _ in 0..20 {
            let delivery = answer_to(&mut wire, subscription).await;
            assert_eq!(delivery.decode::<u32>(), next);
            next += 1;
            messages.push(delivery.id);
        }
        // The last one first, with what was never sent among them, and all of them twice.
        messages.reverse();
        let mixed: Vec<Id> = messages.iter().flat_map(|id| [fresh_id(), *id, *id]).collect();
        wire.send(&Message::ack(fresh_id()).and(mixed.into_iter())).await;
        let mut released = Vec::new();
        while released.len() < 20 {
            let release = wire.receive().await;
            assert_eq!(release.does(), Some(verb::RELEASE));
            released.extend(release.reference);
            let more = release.payload.as_item().array().into_iter().flatten();
            released.extend(more.map(|id| Id::from_bytes(id.as_byte_str().unwrap().try_into().unwrap())));
        }
        assert_eq!(released, messages);
        messages.swap(3, 11);
        wire.send(&Message::complete(messages[0]).and(messages[1..].iter().copied())).await;
        settled += 20;
    }
    wire.ping().await;
    assert_eq!(topics.peer().await.error(), None);
    drop(wire);
    topics.unharmed().await;
}

// spec: §12.9, §10.7
async fn a_release_of_the_unknown_is_answered_within_bounds(net: Net) {
    let topics = Topics::open(net, strict).await;
    let mut wire = topics.wire().await;
    for count in [0, 1, 47, 100] {
        let ids: Vec<Id> = (0..count).map(|_| fresh_id()).collect();
        let release = Message::release(fresh_id()).and(ids.iter().copied());
        wire.send(&release).await;
        let mut completed = 0;
        while completed < 1 + count {
            let complete = wire.receive().await;
            assert_eq!(complete.does(), Some(verb::COMPLETE));
            completed += 1 + complete.payload.as_item().array().into_iter().flatten().count();
        }
    }
    // Each id costs, in whatever message it comes.
    wire.send(&Message::release(fresh_id()).and((0..100).map(|_| fresh_id()))).await;
    assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
    let flood: Vec<Message> = (0..250).map(|_| Message::release(fresh_id())).collect();
    assert_eq!(topics.verdict(&flood).await, Code::RESOURCE_EXHAUSTED);
    topics.unharmed().await;
}

// spec: §12.9, §12.14
async fn what_was_released_and_comes_again_is_new(net: Net) {
    let topics = Topics::open(net, |builder| builder).await;
    let mut messages = topics.hub().messages("a.b").qos(Qos::ExactlyOnce).await.unwrap();
    let mut wire = topics.wire().await;
    let publication = Message::publication("a.b").qos(2).payload("hello");
    for _ in 0..3 {
        wire.send(&publication).await;
        assert_eq!(answer_to(&mut wire, publication.id).await.does(), Some(verb::ACK));
        // Remembered, it is acknowledged again, and handed on to nobody.
        for attempt in 2..10 {
            wire.send(&publication.clone().again(attempt)).await;
            assert_eq!(answer_to(&mut wire, publication.id).await.does(), Some(verb::ACK));
        }
        wire.send(&Message::release(publication.id)).await;
        assert_eq!(answer_to(&mut wire, publication.id).await.does(), Some(verb::COMPLETE));
        // Forgotten, it is new to all, whatever its publisher says.
        assert_eq!(messages.next().await.unwrap().payload::<String>().unwrap(), "hello");
    }
    wire.send(&publication.clone().again(10)).await;
    assert_eq!(answer_to(&mut wire, publication.id).await.does(), Some(verb::ACK));
    assert_eq!(messages.next().await.unwrap().payload::<String>().unwrap(), "hello");
    assert_eq!(topics.hub().stats().published, 4);
    drop((messages, wire));
    topics.unharmed().await;
}

// spec: §12.11, §10.7
async fn publications_beyond_those_in_flight_are_refused(net: Net) {
    let waiting = hub_with(few(1, Overflow::Wait));
    let topics = Topics::open(net, |builder| strict(builder).hub(waiting.clone())).await;
    let mut deaf = topics.wire().await;
    let subscription = subscribed(&mut deaf, &Message::subscribe("a.b").qos(1)).await;
    topics.hub().publish("a.b", "first").qos(Qos::AtLeastOnce).await.unwrap();
    let first = answer_to(&mut deaf, subscription).await;
    // It is full now, and the hub answers nobody before it has room.
    let mut wire = topics.wire().await;
    let publications: Vec<_> = (0..20).map(|_| Message::publication("a.b").qos(1)).collect();
    for publication in &publications {
        wire.send(publication).await;
    }
    for publication in &publications[4..] {
        let nack = wire.receive().await;
        assert_eq!((nack.reference, nack.does()), (Some(publication.id), Some(verb::NACK)));
        let error = nack.error.unwrap();
        assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    }
    assert_eq!(topics.hub().stats().waiting, 4);
    // What comes again of those that are held is dropped.
    wire.send(&publications[0].clone().again(2)).await;
    wire.ping().await;
    deaf.send(&Message::ack(first.id)).await;
    for publication in &publications[..4] {
        let delivery = answer_to(&mut deaf, subscription).await;
        deaf.send(&Message::ack(delivery.id)).await;
        assert_eq!(answer_to(&mut wire, publication.id).await.does(), Some(verb::ACK));
    }
    // Who takes no notice loses the connection.
    topics.hub().publish("a.b", "last").qos(Qos::AtLeastOnce).await.unwrap();
    let flood: Vec<u8> = (0..300).flat_map(|_| Message::publication("a.b").qos(2).frame()).collect();
    wire.try_send_bytes(&flood).await.ok();
    assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
    // What it had in flight is gone with it.
    eventually("nothing waits", || topics.hub().stats().waiting == 0).await;
    drop((wire, deaf));
    topics.unharmed().await;
}
