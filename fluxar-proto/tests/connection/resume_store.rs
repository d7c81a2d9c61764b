//! What is counted, told and kept, and what is sent again (§9.2 to §9.4, §9.7).

use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::{Code, Config, ConnectionError, PublishOptions, Qos, StreamOptions, Violation};

use crate::support::pubsub::{V, again, numbers, publication};
use crate::support::{
    A, B, Duo, Last, Msg, Script, blob, cbor, config, ms, one, opened, options, outcomes, requests,
    survivors, take, uint,
};

/// A connection opposite of a script, with a session that can go on.
fn resumable(change: impl FnOnce(&mut Config)) -> Script {
    let offer = cbor(|out| {
        out.map(3)?.str("versions")?.array(1)?.u8(1)?;
        out.str("caps")?.map(1)?.str("features")?.array(3)?.str("stream")?.str("pubsub")?.str("resume")?;
        out.str("limits")?.map(1)?.str("heartbeat_ms")?.u8(0)?.ok()
    });
    let config = config(|c| {
        c.resume = true;
        c.limits.heartbeat_ms = 0;
        change(c);
    });
    Script::responder_with(&config, offer)
}

fn is_handled(message: &Msg) -> bool {
    message.target.as_deref() == Some(verb::HANDLED)
}

/// The numbers that the connection tells.
fn told(script: &mut Script) -> Vec<u64> {
    let messages = script.read();
    let told = messages.iter().filter(|message| is_handled(message)).map(|message| {
        assert_eq!((message.kind, message.reference), (Kind::Control, None), "{message:?}");
        fluxar_proto::message::Item::new(&message.payload).unwrap().as_u64().unwrap()
    });
    told.collect()
}

fn tell(script: &mut Script, handled: u64) -> Result<(), ConnectionError> {
    let message = Msg::opening(Kind::Control, script.id(), verb::HANDLED).payload(uint(handled));
    script.send(message)
}

/// What the connection keeps.
fn kept(script: &Script) -> usize {
    script.connection.stats().kept_messages
}

// spec: §9.3
#[test]
fn the_other_side_is_told_after_256_messages() {
    let mut script = resumable(|_| {});
    for n in 1..=1_000_u64 {
        let id = script.id();
        script.send(publication(id, "t", 1)).unwrap();
        let held = one(script.publications());
        script.connection.ack(held.id).unwrap();
        assert_eq!(told(&mut script), if n % 256 == 0 { vec![n] } else { vec![] });
    }
}

// spec: §9.3, §5.13
#[test]
fn the_other_side_is_told_after_256_kib() {
    let mut script = resumable(|_| {});
    let message = |script: &mut Script| Msg::opening(Kind::Call, script.id(), "m").payload(blob(100_000));
    for expected in [vec![], vec![], vec![3], vec![], vec![], vec![6]] {
        let message = message(&mut script);
        script.send(message).unwrap();
        assert_eq!(told(&mut script), expected);
    }
}

// spec: §9.3
#[test]
fn the_other_side_is_told_a_second_after_the_first_message_since() {
    let mut script = resumable(|_| {});
    script.call("m");
    script.wait(ms(600)).unwrap();
    script.call("m");
    script.wait(ms(399)).unwrap();
    assert_eq!(told(&mut script), []);
    assert!(!script.connection.wants_transmit());
    script.wait(ms(1)).unwrap();
    assert!(script.connection.wants_transmit());
    assert_eq!(told(&mut script), [2]);
    script.wait(ms(10_000)).unwrap();
    assert_eq!(told(&mut script), [], "nothing was handled since");
}

// spec: §9.2
#[test]
fn what_is_counted_is_a_matter_of_type_and_qos_alone() {
    let call = |script: &mut Script| Msg::opening(Kind::Call, script.id(), "m");
    let mut counted = vec![];
    let mut uncounted = vec![];
    {
        let script = &mut resumable(|_| {});
        counted.push(call(script));
        // What continues nothing, what is refused, and what no type of ours has a verb for.
        counted.push(Msg::continuation(Kind::Call, script.id(), script.id()));
        counted.push(Msg::continuation(Kind::Stream, script.id(), script.id()).verb("unheard-of"));
        counted.push(Msg::opening(Kind::Subscribe, script.id(), "a..b"));
        counted.push(Msg::continuation(Kind::Unsubscribe, script.id(), script.id()));
        for verb in [verb::ACK, verb::NACK, verb::COMPLETE, verb::RELEASE] {
            counted.push(Msg::continuation(Kind::Message, script.id(), script.id()).verb(verb));
        }
        counted.extend([1, 2].map(|qos| publication(script.id(), "t", qos)));
        counted.push(again(script.id(), "t", 2, 2));
        counted.push(publication(script.id(), "a..b", 1));
        let delivery = Msg::continuation(Kind::Message, script.id(), script.id());
        counted.push(delivery.clone().with(&[(key::QOS, V::U(1))]));
        uncounted.push(delivery);
        uncounted.push(publication(script.id(), "t", 0));
        uncounted.push(publication(script.id(), "t", 0).with(&[(key::QOS, V::U(0))]));
        uncounted.push(publication(script.id(), "t", 0).with(&[(key::QOS, V::U(3))]));
        uncounted.push(publication(script.id(), "t", 0).with(&[(key::QOS, V::T("1"))]));
        uncounted.push(Msg::opening(Kind::Control, script.id(), verb::PING));
        uncounted.push(Msg::opening(Kind::Control, script.id(), "unheard-of"));
    }
    for (messages, each) in [(counted, 1), (uncounted, 0)] {
        let mut script = resumable(|_| {});
        let mut handled = 0;
        for message in messages {
            let what = format!("{message:?}");
            script.send(message).unwrap();
            script.read();
            script.wait(ms(1_000)).unwrap();
            handled += each;
            let expected = if each == 1 { vec![handled] } else { vec![] };
            assert_eq!(told(&mut script), expected, "{what}");
        }
    }
}

// spec: §9.3
#[test]
fn what_was_told_is_kept_no_longer() {
    let mut script = resumable(|_| {});
    for n in 0..3 {
        script.connection.call(script.now, "m", uint(n), options()).unwrap();
    }
    assert_eq!(kept(&script), 0, "what was not sent is not kept");
    let sent: usize = script.read().iter().map(|message| message.body().len()).sum();
    let stats = script.connection.stats();
    assert_eq!((stats.kept_messages, stats.kept_bytes), (3, sent));
    for (handled, left) in [(0, 3), (2, 1), (2, 1), (3, 0)] {
        tell(&mut script, handled).unwrap();
        assert_eq!(kept(&script), left);
    }
    assert_eq!(script.connection.stats().kept_bytes, 0);
    // What is not counted is not kept either.
    script.connection.publish(script.now, "t", uint(1), PublishOptions::new()).unwrap();
    script.connection.ping(script.now).unwrap();
    assert_eq!((script.read().len(), kept(&script)), (2, 0));
}

// spec: §9.3
#[test]
fn a_number_that_cannot_be_is_fatal() {
    for (first, then) in [(0, 3), (0, u64::MAX), (2, 1), (1, 0)] {
        let mut script = resumable(|_| {});
        for n in 0..2 {
            script.connection.call(script.now, "m", uint(n), options()).unwrap();
        }
        script.read();
        tell(&mut script, first).unwrap();
        let error = tell(&mut script, then).unwrap_err();
        assert_eq!(error, Violation::WrongCount.into(), "{first} {then}");
        assert_eq!(one(script.read()).code(), Code::PROTOCOL_VIOLATION);
    }
    for payload in
        [cbor(|out| out.str("1")?.ok()), cbor(|out| out.null()?.ok()), cbor(|out| out.i8(-1)?.ok())]
    {
        let mut script = resumable(|_| {});
        let message = Msg::opening(Kind::Control, script.id(), verb::HANDLED).payload(payload);
        script.send(message).unwrap_err();
    }
}

// spec: §9.3, §8.2
#[test]
fn without_resume_nothing_is_told_and_what_is_told_means_nothing() {
    let mut script = Script::responder(&config(|_| {}));
    for _ in 0..600 {
        script.call("m");
    }
    script.wait(ms(2_000)).unwrap();
    assert_eq!(told(&mut script), []);
    tell(&mut script, 1_000).unwrap();
    assert_eq!((kept(&script), script.connection.stats().dropped), (0, 1));
}

// spec: §9.4
#[test]
fn a_full_store_holds_back_what_is_counted_and_nothing_else() {
    let mut script = resumable(|c| (c.resume_messages, c.resume_bytes) = (512, 1 << 20));
    for n in 0..600 {
        script.connection.call(script.now, "m", uint(n), options()).unwrap();
    }
    let calls = script.read();
    assert_eq!((calls.len(), kept(&script)), (512, 512));
    assert!(!script.connection.wants_transmit());
    // It still reads, tells, and answers pings.
    for _ in 0..256 {
        script.call("m");
    }
    let ping = script.id();
    script.send(Msg::opening(Kind::Control, ping, verb::PING)).unwrap();
    let said = script.read();
    assert_eq!(said.len(), 2);
    assert!(is_handled(&said[0]) && said[1].reference == Some(ping));
    let requests = requests(&script.events());
    script.connection.respond(requests[0].id, Ok(uint(0))).unwrap();
    assert_eq!(script.read(), []);
    tell(&mut script, 88).unwrap();
    assert_eq!(script.read().len(), 88);
    tell(&mut script, 500).unwrap();
    let rest = script.read();
    assert_eq!((rest.len(), kept(&script)), (1, 101));
    assert_eq!(rest[0].reference, Some(requests[0].id.wire_id()));
}

// spec: §9.4
#[test]
fn a_store_is_full_of_bytes_too_and_takes_one_message_more() {
    let mut script = resumable(|c| {
        (c.resume_messages, c.resume_bytes) = (10_000, 1 << 20);
        c.send_buffer = 100 << 20;
    });
    for _ in 0..4 {
        script.connection.call(script.now, "m", blob(600_000), options()).unwrap();
    }
    assert_eq!(script.read().len(), 2);
    let stats = script.connection.stats();
    assert_eq!(stats.kept_messages, 2);
    assert!(stats.kept_bytes > 1_200_000, "{stats:?}");
    // The application learns that it has to wait, as with any other blocked link.
    while script.connection.call(script.now, "m", blob(60_000_000), options()).is_ok() {}
    assert!(script.connection.stats().queued_bytes < 200_000_000);
    tell(&mut script, 1).unwrap();
    assert_eq!(script.read().len(), 1);
}

// spec: §9.4
#[test]
fn two_full_stores_do_not_block_each_other() {
    let [a, b] = survivors(|c| {
        (c.resume_messages, c.resume_bytes) = (0, 0);
        (c.limits.max_calls, c.send_buffer) = (5_000, 100 << 20);
    });
    let mut duo = Duo::established(&a, &b);
    let now = duo.now;
    for n in 0..3_000 {
        duo.a.call(now, "m", uint(n), options()).unwrap();
        duo.b().call(now, "m", uint(n), options()).unwrap();
    }
    let mut answered = [0, 0];
    for _ in 0..20 {
        duo.drive();
        let events = [duo.events_of_a(), duo.events_of_b()];
        for (side, connection) in [(A, &mut duo.a), (B, duo.b.last_mut().unwrap())] {
            for request in requests(&events[side]) {
                connection.respond(request.id, Ok(request.payload)).unwrap();
            }
            answered[side] += outcomes(connection, &events[side]).len();
        }
    }
    assert_eq!(answered, [3_000, 3_000]);
    duo.wait(ms(1_000));
    assert_eq!(duo.kept(), [0, 0]);
}

/// The bodies of the messages that one side has written on a link, as they were, but for those that are not counted.
fn counted(bytes: &[u8]) -> Vec<Msg> {
    let mut messages = Msg::decode_all(bytes);
    messages.retain(|message| !matches!(message.kind, Kind::Hello | Kind::Control));
    messages
}

// spec: §9.7
#[test]
fn what_is_sent_again_is_the_same_byte_for_byte_and_goes_ahead_of_what_is_new() {
    let [a, b] = survivors(|_| {});
    let mut duo = Duo::established(&a, &b);
    let now = duo.now;
    let before = duo.links[0].sent[A].len();
    // Nothing of this comes: calls with a deadline, small and large, a stream, publications.
    duo.cut(0, [usize::MAX, 0]);
    duo.a.call(now, "m", blob(300_000), options().with_timeout(ms(5_000))).unwrap();
    duo.a.call(now, "m", uint(1), options().with_timeout(ms(6_000))).unwrap();
    let stream = duo.a.open_stream(now, "s", uint(0), StreamOptions::new()).unwrap();
    for _ in 0..10 {
        duo.a.send_item(stream, blob(10_000)).unwrap();
        duo.drive();
    }
    duo.a.end_stream(stream, uint(1)).unwrap();
    let qos = |qos| PublishOptions::new().with_qos(qos);
    duo.a.publish(now, "t", uint(2), qos(Qos::ExactlyOnce)).unwrap();
    duo.a.publish(now, "t", uint(3), qos(Qos::AtMostOnce)).unwrap();
    duo.drive();
    let first = duo.links[0].sent[A][before..].to_vec();
    duo.wait(ms(700));
    duo.break_link();
    duo.a.call(duo.now, "new", uint(9), options()).unwrap();
    duo.connect();
    duo.drive();
    let second = duo.links[1].sent[A].clone();
    let frames = |bytes: &[u8]| {
        let mut frames = vec![];
        let mut rest = bytes;
        while !rest.is_empty() {
            let (frame, more) = rest.split_at(4 + u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize);
            let message = Msg::decode(&frame[4..]);
            let lossy = message.kind == Kind::Message && message.meta_u64(key::QOS).is_none();
            if !matches!(message.kind, Kind::Hello | Kind::Control) && !lossy {
                frames.push(frame.to_vec());
            }
            rest = more;
        }
        frames
    };
    let (first, second) = (frames(&first), frames(&second));
    assert_eq!(first.len(), 2 + 1 + 10 + 1 + 1);
    assert_eq!(second[..first.len()], first, "the same bytes in the same order");
    let new = Msg::decode(&second[first.len()][4..]);
    assert_eq!((new.target.as_deref(), second.len()), (Some("new"), first.len() + 1));
    let timeouts = counted(&second.concat());
    assert_eq!(timeouts[0].meta_u64(key::TIMEOUT_MS), Some(5_000), "as it was said first");
}

// spec: §9.7, §8.3, §8.4
#[test]
fn pings_overtake_what_is_sent_again_and_what_is_new() {
    let [a, b] = survivors(|c| c.send_buffer = 10 << 20);
    let mut duo = Duo::established(&a, &b);
    let now = duo.now;
    duo.cut(0, [usize::MAX, 0]);
    for n in 0..10 {
        duo.a.call(now, "m", blob(50_000 + n), options()).unwrap();
    }
    duo.drive();
    duo.break_link();
    duo.a.call(now, "new", blob(50_000), options()).unwrap();
    duo.connect();
    // Offer, confirmation, and a part of what goes again.
    let offer = duo.offer_len();
    duo.hold_back(1, offer + 40);
    while duo.links[1].sent[A].len() < offer + 60_000 {
        assert!(duo.step());
    }
    let ping = duo.a.ping(now).unwrap();
    duo.let_go(1);
    duo.drive();
    let messages = Msg::decode_all(&duo.links[1].sent[A]);
    let at = |found: &dyn Fn(&Msg) -> bool| messages.iter().position(found).unwrap();
    let (pinged, new) =
        (at(&|message| message.id == ping), at(&|message| message.target.as_deref() == Some("new")));
    assert_eq!((messages.len(), new), (2 + 10 + 1 + 1, 13));
    assert!(pinged < 6, "at {pinged}");
}

// spec: §9.2, §9.7
#[test]
fn what_is_sent_again_is_not_counted_again() {
    let [a, b] = survivors(|_| {});
    let mut duo = Duo::established(&a, &b);
    let now = duo.now;
    for round in 0..5 {
        for n in 0..3 {
            duo.a.call(now, "m", uint(10 * round + n), options()).unwrap();
        }
        let link = duo.links.len() - 1;
        duo.cut(link, [usize::MAX, 40]);
        duo.drive();
        duo.break_link();
        duo.connect();
        duo.drive();
    }
    let served = requests(&duo.events_of_b());
    assert_eq!(numbers(served.iter().map(|request| &request.payload)).len(), 15);
    duo.wait(ms(1_000));
    let last = Msg::decode_all(&duo.links[5].sent[B]).into_iter().rfind(is_handled).unwrap();
    assert_eq!(last.payload, uint(15).as_bytes());
    assert_eq!(duo.kept(), [0, 0]);
}

// spec: §9.7, §11.5
#[test]
fn what_is_sent_again_is_not_charged_against_credit_twice() {
    let [a, b] = survivors(|c| {
        c.limits.stream_window = 1_000;
        c.max_stream_window = 1_000;
    });
    let mut duo = Duo::established(&a, &b);
    let now = duo.now;
    let stream = duo.a.open_stream(now, "s", uint(0), StreamOptions::new()).unwrap();
    duo.a.send_item(stream, blob(700)).unwrap();
    duo.cut(0, [0, 0]);
    duo.drive();
    for _ in 0..3 {
        duo.break_link();
        duo.connect();
        let offer = duo.offer_len();
        let link = duo.links.len() - 1;
        duo.cut(link, [usize::MAX, offer + 45]);
        duo.drive();
    }
    duo.break_link();
    duo.connect();
    duo.drive();
    // There is credit for one message more, and not for two.
    for _ in 0..2 {
        duo.a.send_item(stream, blob(700)).unwrap();
        duo.drive();
    }
    let opening = one(opened(&duo.events_of_b())).id;
    let first = duo.b().poll_stream(opening).unwrap();
    let Some(fluxar_proto::Received::Items(items)) = first else { panic!("{first:?}") };
    assert_eq!(items.count(), 2, "what fits the credit");
    duo.drive();
    assert_eq!(take(duo.b(), opening), (vec![blob(700)], Last::Open));
    assert_eq!((duo.a.error(), duo.b[0].error()), (None, None));
}
