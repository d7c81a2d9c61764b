//! Servers against hostile clients that have shaken hands: each hears what it did wrong, where it still can, and nobody else notices.

use std::time::Duration;

use fluxar::{Code, ConnectionError, Raw, Request};
use fluxar_proto::frame;
use fluxar_proto::message::{Kind, verb};
use fluxar_tests::garbage::garbage;
use fluxar_tests::honest::Field;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::signal::Counter;
use fluxar_tests::wire::{Message, Wire, framed, fresh_id, rude_connection};
use futures_util::future::join_all;

schedulers! {
    what_is_no_message_is_refused_by_its_bytes
    messages_are_bounded_by_what_was_announced
    nesting_is_bounded
    shapes_that_cannot_be_are_malformed
    what_a_peer_may_not_send_is_a_violation
    an_id_twice_is_a_violation
    a_reference_to_nothing_is_dropped
    a_response_to_the_call_of_another_connection_is_dropped
    openings_that_are_not_known_are_answered
    too_many_calls_are_refused_and_no_more
    too_many_bytes_are_refused_and_no_more
    a_flood_of_cancels_is_cut_off
    a_flood_of_refused_openings_is_cut_off
    a_flood_of_updates_costs_its_own_call_only
    a_flood_of_pings_is_answered_as_far_as_one_reads
    a_message_cut_short_ends_with_its_link
    a_call_may_come_byte_by_byte
    whoever_never_reads_is_cut_off
    all_of_them_at_once
}

async fn field(net: Net) -> Field {
    Field::open(net, |builder| builder).await
}

/// A request with a payload that nobody has checked.
fn with_payload(item: &[u8]) -> Vec<u8> {
    let frame = Message::call("echo").frame();
    let Some((rest, [0xf6, 0xf6])) = frame.split_last_chunk() else { panic!("payload and error are null") };
    framed(&[&rest[frame::PREFIX_LEN..], item, &[0xf6]].concat())
}

// spec: §3.1, §3.3, §4.2, §5.1, §5.2, §5.4, §5.5, §5.17
async fn what_is_no_message_is_refused_by_its_bytes(net: Net) {
    let field = field(net).await;
    for (bytes, code) in garbage() {
        assert_eq!(field.verdict(true, &bytes).await, code, "{bytes:02x?}");
    }
    field.unharmed().await;
}

// spec: §3.3, §5.13, §5.17
async fn messages_are_bounded_by_what_was_announced(net: Net) {
    let field =
        Field::open(net, |builder| builder.configure(|config| config.limits.max_message = 4000)).await;
    let empty = Message::call("echo").payload("").frame().len() - frame::PREFIX_LEN;
    // A text of 3,000 bytes and more has a head of three bytes instead of one.
    let fits = Message::call("echo").payload(&"x".repeat(4000 - empty - 2));
    let mut wire = field.site.wire().await;
    assert_eq!(fits.frame().len(), 4000 + frame::PREFIX_LEN);
    wire.send(&fits).await;
    assert_eq!(wire.response_to(fits.id).await.error, None);
    drop(wire);
    let too_long = Message::call("echo").payload(&"x".repeat(4000 - empty - 1)).frame();
    assert_eq!(field.verdict(true, &too_long).await, Code::MESSAGE_TOO_LARGE);
    assert_eq!(field.verdict(true, &frame::prefix(4065)).await, Code::MESSAGE_TOO_LARGE);
    assert_eq!(field.verdict(true, &frame::prefix(u32::MAX)).await, Code::MESSAGE_TOO_LARGE);
    field.unharmed().await;
}

// spec: §5.3
async fn nesting_is_bounded(net: Net) {
    let field = field(net).await;
    let mut wire = field.site.wire().await;
    let deep = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
    let call = Message::call("echo").raw(deep(64));
    wire.send(&call).await;
    assert_eq!(wire.response_to(call.id).await.payload, call.payload);
    drop(wire);
    for bomb in [
        deep(65),
        deep(1_000_000),
        [vec![0xa1; 65], vec![0x00; 66]].concat(),
        [vec![0xc1; 65], vec![0x00]].concat(),
        vec![0x9f; 100_000],
        vec![0x5f; 100_000],
        // More elements, pairs and bytes than there are.
        vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        let name = &bomb[..bomb.len().min(4)];
        assert_eq!(field.verdict(true, &with_payload(&bomb)).await, Code::MALFORMED, "{name:02x?}");
    }
    field.unharmed().await;
}

// spec: §5.11, §5.12, §5.14, §5.17
async fn shapes_that_cannot_be_are_malformed(net: Net) {
    let field = field(net).await;
    let error = || fluxar::Error::unknown("misplaced");
    for message in [
        Message { target: None, ..Message::call("") },
        Message { target: None, ..Message::control("") },
        Message::opening(Kind::Unsubscribe, "x"),
        Message { target: None, ..Message::opening(Kind::Unsubscribe, "") },
        Message::call("echo").error(error()),
        Message::control(verb::PING).error(error()),
    ] {
        assert_eq!(field.verdict(true, &message.frame()).await, Code::MALFORMED, "{message:?}");
    }
    field.unharmed().await;
}

// spec: §5.15, §6.1, §10.2
async fn what_a_peer_may_not_send_is_a_violation(net: Net) {
    let field = field(net).await;
    let call = Message::call("never");
    for message in [
        Message::offer(),
        Message::answer(call.id),
        Message::offer().id(call.id),
        // Its own call cannot be answered by the caller, nor continued as something else.
        Message::response(call.id),
        Message::response(call.id).error(fluxar::Error::unknown("mine")),
        Message::continuation(Kind::Stream, call.id),
        Message::continuation(Kind::Message, call.id).verb(verb::ACK),
        Message::continuation(Kind::Control, call.id),
    ] {
        let both = [call.frame(), message.frame()].concat();
        assert_eq!(field.verdict(true, &both).await, Code::PROTOCOL_VIOLATION, "{message:?}");
    }
    field.unharmed().await;
}

// spec: §5.5
async fn an_id_twice_is_a_violation(net: Net) {
    let field = field(net).await;
    let call = Message::call("never");
    for again in [
        call.clone(),
        Message::call("echo").id(call.id),
        Message::opening(Kind::Stream, "echo").id(call.id),
        Message::control(verb::PING).id(call.id),
    ] {
        let both = [call.frame(), again.frame()].concat();
        assert_eq!(field.verdict(true, &both).await, Code::PROTOCOL_VIOLATION, "{again:?}");
    }
    // What has ended is forgotten: the id of an answered call may come again.
    let mut wire = field.site.wire().await;
    let call = Message::call("echo").payload(&1);
    for _ in 0..3 {
        wire.send(&call).await;
        assert_eq!(wire.response_to(call.id).await.error, None);
    }
    drop(wire);
    field.unharmed().await;
}

// spec: §5.15
async fn a_reference_to_nothing_is_dropped(net: Net) {
    let field = field(net).await;
    let mut wire = field.site.wire().await;
    let messages = [
        Message::response(fresh_id()).payload(&1),
        Message::response(fresh_id()).error(fluxar::Error::unknown("lost")),
        Message::update(fresh_id()),
        Message::cancel(fresh_id()),
        Message::continuation(Kind::Call, fresh_id()).verb("no such verb"),
        Message::continuation(Kind::Stream, fresh_id()).verb(verb::END),
        Message::continuation(Kind::Message, fresh_id()).verb(verb::ACK),
        Message::continuation(Kind::Control, fresh_id()),
    ];
    for message in &messages {
        wire.send(message).await;
    }
    // A verb that nobody knows, of a call that is open.
    let call = Message::call("never");
    wire.send(&call).await;
    wire.send(&Message::continuation(Kind::Call, call.id).verb("no such verb")).await;
    wire.ping().await;
    let peers = field.site.handle().peers();
    assert_eq!(peers[1].stats().dropped, messages.len() as u64 + 1);
    drop(wire);
    field.unharmed().await;
}

// spec: §5.15
async fn a_response_to_the_call_of_another_connection_is_dropped(net: Net) {
    let field = Field::open(net, |builder| {
        builder.handle("ask", |request: Request| async move {
            Ok(request.peer().call::<String>("secret", &()).await?)
        })
    })
    .await;
    let (mut victim, mut thief) = (field.site.wire().await, field.site.wire().await);
    let ask = Message::call("ask");
    victim.send(&ask).await;
    let asked = victim.receive().await;
    assert_eq!(asked.target.as_deref(), Some("secret"));
    thief.send(&Message::response(asked.id).payload("forged")).await;
    thief.ping().await;
    victim.send(&Message::response(asked.id).payload("true")).await;
    assert_eq!(victim.response_to(ask.id).await.decode::<String>(), "true");
    assert_eq!(field.site.handle().peers()[2].stats().dropped, 1);
    drop((victim, thief));
    field.unharmed().await;
}

// spec: §5.16, §6.6
async fn openings_that_are_not_known_are_answered(net: Net) {
    let field = field(net).await;
    let mut wire = field.site.wire().await;
    for (opening, kind, target) in [
        (Message::call("no such method"), Kind::Call, None),
        (Message::opening(Kind::Stream, "echo"), Kind::Stream, Some(verb::END)),
        (Message::opening(Kind::Subscribe, "a.*"), Kind::Subscribe, None),
        (
            Message { meta: (&b"\xa1\x63qos\x01"[..]).into(), ..Message::opening(Kind::Message, "a") },
            Kind::Message,
            Some(verb::NACK),
        ),
        (Message::control("no such operation"), Kind::Control, None),
    ] {
        wire.send(&opening).await;
        let answer = wire.receive().await;
        assert_eq!(
            (answer.kind, answer.reference, answer.target.as_deref()),
            (kind, Some(opening.id), target)
        );
        let error = answer.error.unwrap();
        assert_eq!((error.code, error.processed), (Code::UNIMPLEMENTED, Some(false)));
    }
    // Nobody waits for the fate of this one.
    wire.send(&Message::opening(Kind::Message, "a")).await;
    wire.ping().await;
    drop(wire);
    field.unharmed().await;
}

// spec: §10.6, §15.1
// limit: max_calls
async fn too_many_calls_are_refused_and_no_more(net: Net) {
    let field = Field::open(net, |builder| builder.configure(|config| config.limits.max_calls = 5)).await;
    let mut wire = field.site.wire().await;
    let calls: Vec<_> = (0..8).map(|_| Message::call("never")).collect();
    for call in &calls {
        wire.send(call).await;
    }
    for call in &calls[5..] {
        let error = wire.response_to(call.id).await.error.unwrap();
        assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    }
    let peer = field.site.handle().peers().remove(1);
    assert_eq!((peer.stats().requests_running, peer.stats().refused), (5, 3));
    // Once they have ended there is room again.
    for call in &calls[..5] {
        wire.send(&Message::cancel(call.id)).await;
    }
    eventually("the slots are free", || peer.stats().requests_running == 0).await;
    let call = Message::call("echo");
    wire.send(&call).await;
    assert_eq!(wire.response_to(call.id).await.error, None);
    drop(wire);
    field.unharmed().await;
}

// spec: §10.8, §15.3
async fn too_many_bytes_are_refused_and_no_more(net: Net) {
    let field = Field::open(net, |builder| builder.configure(|config| config.request_bytes = 100_000)).await;
    let mut wire = field.site.wire().await;
    // One is always taken, however large.
    let first = Message::call("never").payload(&"x".repeat(200_000));
    let second = Message::call("never").payload(&"x".repeat(10));
    wire.send(&first).await;
    wire.send(&second).await;
    let error = wire.response_to(second.id).await.error.unwrap();
    assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    let peer = field.site.handle().peers().remove(1);
    wire.send(&Message::cancel(first.id)).await;
    eventually("the bytes are given back", || peer.stats().requests_running == 0).await;
    wire.send(&second).await;
    wire.send(&Message::update(second.id)).await;
    wire.ping().await;
    assert_eq!(peer.stats().requests_running, 1);
    drop(wire);
    field.unharmed().await;
}

// spec: §10.6, §10.7
async fn a_flood_of_cancels_is_cut_off(net: Net) {
    let (started, ended) = (Counter::new(), Counter::new());
    let field = Field::open(net, |builder| {
        let (started, ended) = (started.clone(), ended.clone());
        builder
            .configure(|config| {
                config.misuse_capacity = 200;
                config.misuse_per_second = 0;
                config.limits.max_calls = 10;
            })
            .handle("work", move |_| {
                started.add();
                let guard = ended.guard();
                async move {
                    std::future::pending::<()>().await;
                    drop(guard);
                    Ok(())
                }
            })
    })
    .await;
    let mut wire = field.site.wire().await;
    let flood: Vec<u8> = (0..250)
        .flat_map(|_| {
            let call = Message::call("work");
            [call.frame(), Message::cancel(call.id).frame()].concat()
        })
        .collect();
    wire.send_bytes(&flood).await;
    assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
    assert!(started.get() <= 200, "{} handlers were started", started.get());
    drop(wire);
    ended.reached(started.get()).await;
    // Cancels of nothing cost as much.
    let mut wire = field.site.wire().await;
    let flood: Vec<u8> = (0..250).flat_map(|_| Message::cancel(fresh_id()).frame()).collect();
    wire.send_bytes(&flood).await;
    assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
    drop(wire);
    field.unharmed().await;
}

// spec: §10.7, §15.1
async fn a_flood_of_refused_openings_is_cut_off(net: Net) {
    let field = Field::open(net, |builder| {
        builder.configure(|config| {
            config.misuse_capacity = 200;
            config.misuse_per_second = 0;
        })
    })
    .await;
    let floods: [fn() -> Message; 4] = [
        || Message::call("no such method"),
        || Message::opening(Kind::Stream, "echo"),
        || Message::opening(Kind::Subscribe, "a.*"),
        || Message::call("echo").timeout_ms(0),
    ];
    for opening in floods {
        let mut wire = field.site.wire().await;
        let flood: Vec<u8> = (0..250).flat_map(|_| opening().frame()).collect();
        wire.send_bytes(&flood).await;
        assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED, "{:?}", opening());
    }
    field.unharmed().await;
}

// spec: §10.3, §15.3
async fn a_flood_of_updates_costs_its_own_call_only(net: Net) {
    let field = field(net).await;
    let mut wire = field.site.wire().await;
    let call = Message::call("never");
    wire.send(&call).await;
    let update = Message::update(call.id).payload(&"x".repeat(1000)).frame();
    for _ in 0..50 {
        wire.send_bytes(&update.repeat(100)).await;
    }
    wire.ping().await;
    let peer = field.site.handle().peers().remove(1);
    assert_eq!(peer.stats().updates_dropped, 5000 - 64);
    assert_eq!(peer.error(), None);
    drop(wire);
    field.unharmed().await;
}

// spec: §8.3
async fn a_flood_of_pings_is_answered_as_far_as_one_reads(net: Net) {
    let field = field(net).await;
    let mut wire = field.site.wire().await;
    let flood: Vec<Vec<u8>> =
        (0..30).map(|_| (0..1000).flat_map(|_| Message::control(verb::PING).frame()).collect()).collect();
    // Nobody reads the replies meanwhile.
    for pings in flood {
        wire.send_bytes(&pings).await;
    }
    wire.ping().await;
    drop(wire);
    field.unharmed().await;
}

// spec: §3.4, §8.8
async fn a_message_cut_short_ends_with_its_link(net: Net) {
    let ended = Counter::new();
    let field = Field::open(net, |builder| {
        let ended = ended.clone();
        builder.on_connect(move |peer| {
            let ended = ended.clone();
            async move {
                if let ConnectionError::LinkLost { unread } = peer.closed().await {
                    assert!([1, 4, 5, 30].contains(&unread));
                    ended.add();
                }
            }
        })
    })
    .await;
    let call = Message::call("echo").frame();
    for cut in [1, 4, 5, 30] {
        let mut wire = field.site.wire().await;
        wire.send_bytes(&call[..cut]).await;
        wire.finish().await;
        assert_eq!(wire.next().await, None);
    }
    ended.reached(4).await;
    field.unharmed().await;
}

// spec: §3.1
async fn a_call_may_come_byte_by_byte(net: Net) {
    let field = field(net).await;
    let mut wire = field.site.wire().await;
    let call = Message::call("echo").payload("slowly");
    for byte in call.frame() {
        wire.send_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(wire.response_to(call.id).await.decode::<String>(), "slowly");
    drop(wire);
    field.unharmed().await;
}

// spec: §8.4, §15.3, §17.2
// limit: transport that takes no byte
async fn whoever_never_reads_is_cut_off(net: Net) {
    let why = Counter::new();
    let field = Field::open(net, |builder| {
        let why = why.clone();
        builder
            .write_timeout(Duration::from_millis(100))
            .configure(|config| config.limits.max_calls = 50)
            .handle("large", |_| async { Ok("x".repeat(1 << 20)) })
            .on_connect(move |peer| {
                let why = why.clone();
                async move {
                    if peer.closed().await == ConnectionError::TimedOut(fluxar_proto::Timeout::Write) {
                        why.add();
                    }
                }
            })
    })
    .await;
    let mut wire = Wire::connect(field.site.url()).await;
    // {"versions": [1], "limits": {"max_message": 16777216}}
    let offer = b"\xa2\x68versions\x81\x01\x66limits\xa1\x6bmax_message\x1a\x01\x00\x00\x00";
    wire.send(&Message::offer().raw(&offer[..])).await;
    for _ in 0..50 {
        wire.send(&Message::call("large")).await;
    }
    why.reached(1).await;
    drop(wire);
    field.unharmed().await;
}

/// Each of many does something else that it must not.
async fn all_of_them_at_once(net: Net) {
    let field = Field::open(net, |builder| {
        builder.configure(|config| config.handshake_timeout = Duration::from_millis(500))
    })
    .await;
    let url = field.site.url();
    let garbage = join_all((0..8usize).flat_map(|_| garbage()).map(|(bytes, code)| async move {
        let mut wire = Wire::established(url).await;
        wire.send_bytes(&bytes).await;
        assert_eq!(wire.closed_for().await, code);
    }));
    let silent = join_all((0..50).map(|_| async {
        assert_eq!(Wire::connect(url).await.closed_for().await, Code::DEADLINE_EXCEEDED);
    }));
    let rude = join_all((0..50).map(|_| async {
        drop(rude_connection(url).await);
    }));
    let floods = join_all((0..4).map(|_| async {
        let mut wire = Wire::established(url).await;
        let flood: Vec<u8> = (0..20_000).flat_map(|_| Message::call("no such method").frame()).collect();
        // It may be cut off before all is sent.
        wire.try_send_bytes(&flood).await.ok();
        assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
    }));
    let busy = join_all((0..10).map(|_| async {
        let client = fluxar::Client::connect(url).build().await.unwrap();
        for _ in 0..20 {
            assert!(client.call::<Raw>("never", &()).timeout(Duration::from_millis(2)).await.is_err());
        }
    }));
    tokio::join!(garbage, silent, rude, floods, busy);
    field.unharmed().await;
}
