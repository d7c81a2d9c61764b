//! Servers against hostile clients that have streams: each hears what it did wrong, and nobody else notices.

use fluxar::{Code, Error, ServerBuilder};
use fluxar_proto::message::{Id, Kind, verb};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::streaming::{Streams, end_of, next_on};
use fluxar_tests::wire::{Message, fresh_id};

schedulers! {
    what_follows_the_own_end_is_a_violation
    what_follows_the_end_of_all_is_dropped
    what_comes_before_the_opening_is_dropped
    what_belongs_to_other_exchanges_is_a_violation
    what_belongs_to_another_connection_is_dropped
    what_does_not_fit_its_verb_is_malformed
    a_sender_over_its_credit_is_cut_off
    more_credit_than_there_may_be_is_cut_off
    a_flood_of_credit_is_borne
    a_flood_of_pauses_is_borne
    empty_arrays_bring_nothing
    items_are_bounded_as_messages_are
}

// spec: §5.15, §11.2, §11.3
async fn what_follows_the_own_end_is_a_violation(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    for again in [
        |id| Message::item(id).payload(&1),
        |id| Message::items(id).payload(&[1, 2]),
        |id| Message::items(id).raw(&[0x80][..]),
        |id| Message::end(id),
        |id| Message::end(id).payload("another end"),
    ] {
        for end in [|id| Message::end(id), |id| Message::end(id).payload(&1)] {
            let code = streams.verdict("idle", |id| vec![end(id), again(id)]).await;
            assert_eq!(code, Code::PROTOCOL_VIOLATION, "{:?}", again(fresh_id()));
        }
    }
    streams.unharmed().await;
}

// spec: §5.15, §11.3, §11.4
async fn what_follows_the_end_of_all_is_dropped(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let mut wire = streams.wire().await;
    let peer = streams.peer().await;
    let enough = || Error::aborted("enough");
    let ends: [fn(Id) -> Message; 3] = [
        |id| Message::abandon(id),
        |id| Message::abandon(id).error(Error::aborted("enough")),
        |id| Message::failure(id, Error::aborted("enough")),
    ];
    let mut dropped = 0;
    for end in ends {
        let opening = Message::stream("idle");
        let id = opening.id;
        let late = [
            Message::item(id).payload(&1),
            Message::items(id).payload(&[1, 2]),
            // Nobody looks into what comes too late.
            Message::items(id).payload("no array"),
            Message::credit(id, u64::MAX),
            Message::pause(id).error(enough()),
            Message::end(id),
            Message::failure(id, enough()),
            Message::abandon(id),
        ];
        let all = [opening, end(id)].into_iter().chain(late.clone());
        wire.send_bytes(&all.flat_map(|message| message.frame()).collect::<Vec<u8>>()).await;
        wire.ping().await;
        dropped += late.len() as u64;
        eventually("all is dropped", || peer.stats().dropped == dropped).await;
        eventually("the handler has ended", || peer.stats().streams_serving == 0).await;
    }
    drop(wire);
    streams.unharmed().await;
}

// spec: §5.15
async fn what_comes_before_the_opening_is_dropped(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let mut wire = streams.wire().await;
    let opening = Message::stream("echo");
    let early = [
        Message::item(opening.id).payload(&1),
        Message::items(opening.id).payload(&[2, 3]),
        Message::end(opening.id),
        Message::credit(opening.id, 1000),
        Message::pause(opening.id),
        Message::abandon(opening.id),
    ];
    for message in &early {
        wire.send(message).await;
    }
    wire.send(&opening).await;
    wire.send(&Message::item(opening.id).payload(&4)).await;
    assert_eq!(next_on(&mut wire, opening.id).await.decode::<u8>(), 4);
    assert_eq!(streams.peer().await.stats().dropped, early.len() as u64);
    drop(wire);
    streams.unharmed().await;
}

// spec: §5.5, §5.15
async fn what_belongs_to_other_exchanges_is_a_violation(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let strangers: [fn(Id) -> Message; 9] = [
        // Verbs of other exchanges.
        |id| Message::response(id),
        |id| Message::update(id),
        |id| Message::cancel(id),
        |id| Message::continuation(Kind::Subscribe, id),
        |id| Message::continuation(Kind::Message, id).verb(verb::ACK),
        |id| Message::continuation(Kind::Control, id),
        // Openings with the id of a stream.
        |id| Message::stream("idle").id(id),
        |id| Message::call("echo").id(id),
        |id| Message::control(verb::PING).id(id),
    ];
    for stranger in strangers {
        let code = streams.verdict("idle", |id| vec![stranger(id)]).await;
        assert_eq!(code, Code::PROTOCOL_VIOLATION, "{:?}", stranger(fresh_id()));
    }
    // Data for a call.
    let call = Message::call("never");
    for message in [Message::item(call.id), Message::end(call.id), Message::credit(call.id, 1)] {
        let mut wire = streams.wire().await;
        wire.send_bytes(&[call.frame(), message.frame()].concat()).await;
        assert_eq!(wire.closed_for().await, Code::PROTOCOL_VIOLATION, "{message:?}");
    }
    streams.unharmed().await;
}

// spec: §5.15
async fn what_belongs_to_another_connection_is_dropped(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let mut victim = streams.wire().await;
    let opening = Message::stream("echo");
    victim.send(&opening).await;
    victim.send(&Message::item(opening.id).payload("mine")).await;
    assert_eq!(next_on(&mut victim, opening.id).await.decode::<String>(), "mine");
    let mut thief = streams.wire().await;
    let stolen = [
        Message::item(opening.id).payload("theirs"),
        Message::end(opening.id),
        Message::abandon(opening.id),
        Message::credit(opening.id, i32::MAX as u64),
    ];
    for message in &stolen {
        thief.send(message).await;
    }
    thief.ping().await;
    assert_eq!(streams.0.site.handle().peers()[2].stats().dropped, stolen.len() as u64);
    victim.send(&Message::item(opening.id).payload("still mine")).await;
    assert_eq!(next_on(&mut victim, opening.id).await.decode::<String>(), "still mine");
    // The id is free on the other connection.
    thief.send(&opening).await;
    thief.send(&Message::end(opening.id)).await;
    assert_eq!(end_of(&mut thief, opening.id).await, None);
    drop((victim, thief));
    streams.unharmed().await;
}

// spec: §5.15, §11.2, §11.5
async fn what_does_not_fit_its_verb_is_malformed(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let wrong: [fn(Id) -> Message; 11] = [
        |id| Message::items(id),
        |id| Message::items(id).payload(&1),
        |id| Message::items(id).payload("text"),
        |id| Message::items(id).raw(&[0xa0][..]),
        |id| Message::items(id).raw(&[0xc1, 0x80][..]),
        |id| Message::item(id).error(Error::unknown("misplaced")),
        |id| Message::items(id).error(Error::unknown("misplaced")),
        |id| Message::item(id).verb(verb::CREDIT),
        |id| Message::item(id).verb(verb::CREDIT).payload(&-1),
        |id| Message::item(id).verb(verb::CREDIT).error(Error::unknown("misplaced")),
        |id| Message::pause(id).error(Error::unknown("misplaced")),
    ];
    for wrong in wrong {
        // Data is judged before the credit that it would need.
        let code = streams.verdict("idle", |id| vec![wrong(id)]).await;
        assert_eq!(code, Code::MALFORMED, "{:?}", wrong(fresh_id()));
    }
    // A verb that nobody knows is none of that.
    let mut wire = streams.wire().await;
    let opening = Message::stream("idle");
    wire.send(&opening).await;
    wire.send(&Message::item(opening.id).verb("no such verb").error(Error::unknown("misplaced"))).await;
    wire.ping().await;
    assert_eq!(streams.peer().await.stats().dropped, 1);
    drop(wire);
    streams.unharmed().await;
}

// spec: §11.5, §5.17
async fn a_sender_over_its_credit_is_cut_off(net: Net) {
    let window = |builder: ServerBuilder| builder.configure(|config| config.limits.stream_window = 1000);
    let streams = Streams::open(net, window).await;
    let item = |id| Message::item(id).payload(&"x".repeat(100));
    let cost = item(fresh_id()).frame().len() - 4;
    // The last one may take the credit below zero, as far as a message is long; none follows it.
    let fits = 1000usize.div_ceil(cost);
    let over: [fn(Id) -> Message; 4] = [
        |id| Message::item(id),
        |id| Message::items(id).payload(&[1]),
        |id| Message::items(id).raw(&[0x80][..]),
        |id| Message::end(id).payload(&1),
    ];
    for over in over {
        let too_much = |id| (0..fits).map(|_| item(id)).chain([over(id)]).collect();
        assert_eq!(streams.verdict("idle", too_much).await, Code::FLOW_CONTROL);
    }
    // What costs nothing needs none, and an item may be longer than the window.
    let mut wire = streams.wire().await;
    let opening = Message::stream("idle");
    let long = Message::item(opening.id).payload(&"x".repeat(50_000));
    for message in [&opening, &long, &Message::pause(opening.id), &Message::end(opening.id)] {
        wire.send(message).await;
    }
    wire.ping().await;
    assert_eq!(streams.peer().await.stats().stream_held_bytes, 50_003);
    // Nor does anything come back for what nobody takes.
    let other = Message::stream("idle");
    let items = (0..fits).flat_map(|_| item(other.id).frame()).collect::<Vec<u8>>();
    wire.send_bytes(&[other.frame(), items].concat()).await;
    wire.send(&Message::call("echo")).await;
    let next = wire.receive().await;
    assert_eq!((next.kind, next.error), (Kind::Call, None));
    drop(wire);
    streams.unharmed().await;
}

// spec: §11.5
// limit: credit of a stream's direction
async fn more_credit_than_there_may_be_is_cut_off(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let floods: [fn(Id) -> Vec<Message>; 4] = [
        |id| vec![Message::credit(id, u64::MAX)],
        |id| vec![Message::credit(id, 1 << 31)],
        |id| vec![Message::credit(id, i32::MAX as u64)],
        |id| (0..40).map(|_| Message::credit(id, 1 << 26)).collect(),
    ];
    for flood in floods {
        // The window of the offer is there already.
        assert_eq!(streams.verdict("idle", flood).await, Code::FLOW_CONTROL);
    }
    let mut wire = streams.wire().await;
    let opening = Message::stream("idle");
    let all = Message::credit(opening.id, i32::MAX as u64 - (256 << 10));
    wire.send_bytes(&[opening.frame(), all.frame()].concat()).await;
    wire.ping().await;
    wire.send(&Message::credit(opening.id, 0)).await;
    wire.ping().await;
    wire.send(&Message::credit(opening.id, 1)).await;
    assert_eq!(wire.closed_for().await, Code::FLOW_CONTROL);
    drop(wire);
    streams.unharmed().await;
}

// spec: §11.5
async fn a_flood_of_credit_is_borne(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let mut wire = streams.wire().await;
    let opening = Message::stream("echo");
    wire.send(&opening).await;
    let some = Message::credit(opening.id, 1).frame().repeat(1000);
    for _ in 0..100 {
        wire.send_bytes(&some).await;
    }
    // It went nowhere but into a number.
    wire.send(&Message::item(opening.id).payload("hello")).await;
    assert_eq!(next_on(&mut wire, opening.id).await.decode::<String>(), "hello");
    let stats = streams.peer().await.stats();
    assert_eq!((stats.dropped, stats.stream_held_bytes, stats.stream_queued_bytes), (0, 0, 0));
    drop(wire);
    streams.unharmed().await;
}

// spec: §11.6
async fn a_flood_of_pauses_is_borne(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let mut wire = streams.wire().await;
    let opening = Message::stream("echo");
    wire.send(&opening).await;
    let some = [Message::pause(opening.id).frame(), Message::resume(opening.id).frame()].concat();
    for _ in 0..50 {
        wire.send_bytes(&some.repeat(1000)).await;
    }
    wire.send(&Message::pause(opening.id)).await;
    wire.send(&Message::item(opening.id).payload("hello")).await;
    let peer = streams.peer().await;
    eventually("it is held back", || peer.stats().stream_queued_bytes > 0).await;
    wire.ping().await;
    wire.send(&Message::resume(opening.id)).await;
    assert_eq!(next_on(&mut wire, opening.id).await.decode::<String>(), "hello");
    drop(wire);
    streams.unharmed().await;
}

// spec: §11.2
async fn empty_arrays_bring_nothing(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let mut wire = streams.wire().await;
    let opening = Message::stream("sink");
    wire.send(&opening).await;
    let empty = Message::items(opening.id).raw(&[0x80][..]).frame();
    // Well within the credit, which nobody waits for meanwhile.
    for _ in 0..50 {
        wire.send_bytes(&empty.repeat(100)).await;
    }
    wire.send(&Message::items(opening.id).payload(&[1, 2, 3])).await;
    wire.send(&Message::end(opening.id)).await;
    let end = loop {
        let message = next_on(&mut wire, opening.id).await;
        if message.does() == Some(verb::END) {
            break message;
        }
        assert_eq!(message.does(), Some(verb::CREDIT));
    };
    assert_eq!(end.decode::<u64>(), 3);
    drop(wire);
    streams.unharmed().await;
}

// spec: §5.13, §3.3
async fn items_are_bounded_as_messages_are(net: Net) {
    let small = |builder: ServerBuilder| builder.configure(|config| config.limits.max_message = 4000);
    let streams = Streams::open(net, small).await;
    let mut wire = streams.wire().await;
    let opening = Message::stream("sink");
    let empty = Message::item(opening.id).payload("").frame().len() - 4;
    let fits = Message::item(opening.id).payload(&"x".repeat(4000 - empty - 2));
    wire.send(&opening).await;
    wire.send(&fits).await;
    wire.send(&Message::end(opening.id)).await;
    assert_eq!(end_of(&mut wire, opening.id).await, None);
    drop(wire);
    let too_long: [fn(Id) -> Message; 4] = [
        |id| Message::item(id).payload(&"x".repeat(4000)),
        |id| Message::items(id).payload(&vec![7; 4000]),
        |id| Message::end(id).payload(&"x".repeat(4000)),
        |id| Message::abandon(id).error(Error::unknown("x".repeat(4000))),
    ];
    for message in too_long {
        assert_eq!(streams.verdict("sink", |id| vec![message(id)]).await, Code::MESSAGE_TOO_LARGE);
    }
    streams.unharmed().await;
}
