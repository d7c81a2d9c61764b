//! A side that is about to leave: what it still takes, what it refuses, and how it goes (§8.6).

use std::time::Duration;

use bytes::Bytes;
use fluxar_proto::message::{Id, Item, Kind, key, verb};
use fluxar_proto::{
    Code, ConnectionError, Drain, Event, OutMessage, PublishOptions, Qos, QueueLimits, StreamOptions,
    SubscribeOptions, Withdrawn,
};

use crate::support::pubsub::{again, fates, publication};
use crate::support::{
    A, B, Msg, Order, Pair, Script, Talk, TestRng, at, cbor, config, hello, id, is_close, ms, one, opened,
    options, outcomes, requests, uint, withdrawn,
};

/// The connection drains, and says so; the id of the opening.
#[track_caller]
fn drain(script: &mut Script, drain: Drain) -> Id {
    script.connection.drain(script.now, drain);
    let opening = one(script.read());
    assert_eq!(
        (opening.kind, opening.target.as_deref(), opening.reference),
        (Kind::Control, Some(verb::DRAIN), None)
    );
    assert!(opening.error.is_none());
    opening.id
}

fn reply(script: &mut Script, reference: Id) {
    let reply = Msg::continuation(Kind::Control, script.id(), reference);
    script.send(reply).unwrap();
}

/// The connection has said `close` without an error, and nothing else.
#[track_caller]
fn check_closed(script: &mut Script) {
    let close = one(script.read());
    assert!(is_close(&close, None), "{close:?}");
    assert!(script.connection.is_closed());
    assert_eq!(script.connection.error(), Some(&ConnectionError::ClosedLocally(None)));
}

/// The values of the map that `drain` carries.
fn said(message: &Msg) -> (Option<u64>, Option<String>, Option<String>) {
    let entries = || Item::new(&message.payload).unwrap().map().unwrap();
    let text = |wanted: &str| entries().find(|(key, _)| *key == wanted)?.1.as_str().map(String::from);
    let deadline = entries().find(|(key, _)| *key == "deadline_ms").map(|(_, ms)| ms.as_u64().unwrap());
    (deadline, text("reason"), text("redirect"))
}

fn message(qos: Qos) -> OutMessage {
    OutMessage::new("a", qos, uint(1), Bytes::new()).unwrap()
}

/// The offer of a script that has everything.
fn everything() -> Vec<u8> {
    cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?;
        out.str("caps")?.map(1)?.str("features")?.array(2)?.str("stream")?.str("pubsub")?.ok()
    })
}

// spec: §8.6
#[test]
fn who_drains_says_until_when_and_why_and_goes_once_that_is_answered() {
    let mut script = Script::responder(&config(|_| ()));
    script.now = at(1_000);
    let leave =
        Drain::new().with_deadline(ms(10_000)).with_reason("restart").with_redirect("tcp://10.0.0.7:9000");
    script.connection.drain(script.now, leave);
    assert!(script.connection.is_draining() && script.connection.peer_draining().is_none());
    script.now = at(1_250);
    let opening = one(script.read());
    let expected = (Some(9_750), Some("restart".into()), Some("tcp://10.0.0.7:9000".into()));
    assert_eq!(said(&opening), expected, "what is left when it leaves");
    // Nothing is open, but openings may be on their way.
    assert!(!script.connection.wants_transmit());
    reply(&mut script, opening.id);
    check_closed(&mut script);
    assert!(matches!(script.events()[..], [Event::Closed(ConnectionError::ClosedLocally(None))]));
}

// spec: §8.6
#[test]
fn an_answer_that_the_other_side_does_not_know_it_will_do() {
    let mut script = Script::responder(&config(|_| ()));
    let opening = drain(&mut script, Drain::new());
    let answer = Msg::continuation(Kind::Control, id(70), opening);
    script.send(answer.error(fluxar_proto::Error::unimplemented("what?").with_processed(false))).unwrap();
    check_closed(&mut script);
}

// spec: §8.6
// spec: §5.14
// spec: §10.7
#[test]
fn what_crosses_drain_is_refused_in_the_form_of_its_type() {
    let mut script = Script::responder_with(&config(|_| ()), everything());
    let opening = drain(&mut script, Drain::new());
    let cases = [
        (Msg::opening(Kind::Call, id(1), "m"), None),
        (Msg::opening(Kind::Stream, id(2), "s"), Some(verb::END)),
        (Msg::opening(Kind::Subscribe, id(3), "a.*"), None),
        (publication(id(4), "a", 1), Some(verb::NACK)),
        (again(id(5), "a", 2, 3), Some(verb::NACK)),
        // What is wrong with it comes after that (§5.14).
        (Msg::opening(Kind::Call, id(6), "m").meta_uint(key::TIMEOUT_MS, 0), None),
        (Msg::opening(Kind::Subscribe, id(7), "no..filter"), None),
    ];
    for (message, target) in &cases {
        script.send(message.clone()).unwrap();
        let answer = one(script.read());
        assert_eq!((answer.kind, answer.reference), (message.kind, Some(message.id)), "{message:?}");
        assert_eq!((answer.target.as_deref(), answer.code()), (*target, Code::DRAINING), "{message:?}");
        assert_eq!(answer.error.as_ref().unwrap().processed, Some(false));
        let attempt = message.meta_u64(key::ATTEMPT).unwrap_or(1);
        assert_eq!(answer.meta_u64(key::ATTEMPT), (message.kind == Kind::Message).then_some(attempt));
    }
    assert_eq!(script.connection.stats().refused, cases.len() as u64);
    assert!(script.events().is_empty(), "the application sees none of it");
    reply(&mut script, opening);
    check_closed(&mut script);
}

// spec: §8.6
#[test]
fn what_is_opened_all_the_same_behind_the_reply_is_refused_too() {
    let mut script = Script::responder(&config(|_| ()));
    let running = script.call("m");
    let request = one(requests(&script.events()));
    let opening = drain(&mut script, Drain::new());
    reply(&mut script, opening);
    for n in 10..14 {
        script.send(Msg::opening(Kind::Call, id(n), "m")).unwrap();
        assert_eq!(one(script.read()).code(), Code::DRAINING);
    }
    script.connection.respond(request.id, Ok(uint(1))).unwrap();
    let sent = script.read();
    assert_eq!(sent[0].reference, Some(running));
    assert!(sent[0].error.is_none() && is_close(&sent[1], None) && sent.len() == 2);
}

// spec: §8.6
#[test]
fn refusals_use_up_the_budget_for_openings_that_are_refused() {
    let mut script = Script::responder(&config(|config| {
        (config.misuse_capacity, config.misuse_per_second) = (3, 0);
    }));
    drain(&mut script, Drain::new());
    for _ in 0..3 {
        script.call("m");
    }
    let error = script.send(Msg::opening(Kind::Call, id(50), "m")).unwrap_err();
    assert_eq!(error.code(), Code::RESOURCE_EXHAUSTED);
}

// spec: §8.6
// spec: §5.14
#[test]
fn what_is_wrong_in_its_shape_or_not_there_at_all_is_judged_before_that() {
    let mut script = Script::responder(&config(|_| ()));
    drain(&mut script, Drain::new());
    for opening in [Msg::opening(Kind::Stream, id(1), "s"), Msg::opening(Kind::Control, id(2), "dance")] {
        script.send(opening).unwrap();
        assert_eq!(one(script.read()).code(), Code::UNIMPLEMENTED);
    }
    let error = script.send(Msg::bare(Kind::Call, id(3))).unwrap_err();
    assert_eq!(error.code(), Code::MALFORMED);
}

// spec: §8.6
#[test]
fn publications_that_are_sent_at_most_once_are_still_taken() {
    let mut script = Script::pubsub(|_| ());
    let (_, held) = (drain(&mut script, Drain::new()), script.id());
    script.send(publication(held, "a", 0)).unwrap();
    assert_eq!(&*one(script.publications()).topic, "a");
    assert!(script.read().is_empty());
}

// spec: §8.6
#[test]
fn another_attempt_of_what_is_held_is_no_opening() {
    let mut script = Script::pubsub(|_| ());
    script.send(publication(id(1), "a", 1)).unwrap();
    let held = one(script.publications());
    let opening = drain(&mut script, Drain::new());
    reply(&mut script, opening);
    script.send(again(id(1), "a", 1, 2)).unwrap();
    assert!(script.read().is_empty(), "it is unsettled, and goes on");
    script.connection.ack(held.id).unwrap();
    let sent = script.read();
    assert!(sent[0].is_verb(verb::ACK) && sent[0].reference == Some(id(1)));
    assert!(is_close(&sent[1], None));
}

// spec: §8.6
#[test]
fn calls_of_both_sides_go_on_to_their_end() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let ours = pair.a().call(now, "to b", uint(1), options()).unwrap();
    let theirs = pair.b().call(now, "to a", uint(2), options()).unwrap();
    pair.drive();
    let (at_b, at_a) = (one(requests(&pair.events(B))), one(requests(&pair.events(A))));
    pair.b().drain(now, Drain::new().with_deadline(ms(60_000)));
    pair.drive();
    pair.wait(ms(30_000));
    pair.a().update(ours, uint(5)).unwrap();
    pair.b().respond(at_b.id, Ok(uint(3))).unwrap();
    pair.drive();
    let events = pair.events(A);
    assert!(events.iter().any(|event| matches!(event, Event::Draining(_))));
    assert_eq!(outcomes(pair.a(), &events), [(ours, Ok(uint(3)))]);
    assert!(!pair.b().is_closed(), "a call of its own is open");
    pair.a().respond(at_a.id, Ok(uint(4))).unwrap();
    pair.drive();
    let events = pair.events(B);
    assert_eq!(outcomes(pair.b(), &events), [(theirs, Ok(uint(4)))]);
    assert!(pair.a().is_closed() && pair.b().is_closed());
    assert_eq!(pair.a().error(), Some(&ConnectionError::ClosedByPeer(None)));
}

// spec: §8.6
#[test]
fn the_own_openings_of_who_drains_remain_allowed() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    pair.b().drain(now, Drain::new());
    let call = pair.b().call(now, "last words", uint(1), options()).unwrap();
    pair.drive();
    let request = one(requests(&pair.events(A)));
    pair.a().respond(request.id, Ok(uint(2))).unwrap();
    pair.drive();
    assert_eq!(pair.outcomes(B), [(call, Ok(uint(2)))]);
    assert!(pair.b().is_closed());
}

// spec: §8.6
#[test]
fn streams_of_both_sides_go_on_to_their_end() {
    for mut talk in Talk::both(&config(|_| ())) {
        let opening = drain(&mut talk.script, Drain::new().with_deadline(ms(60_000)));
        reply(&mut talk.script, opening);
        talk.script.wait(ms(20_000)).unwrap();
        talk.script.read();
        let stream = talk.stream;
        talk.data(uint(1).into_bytes()).unwrap();
        talk.connection().send_item(stream, uint(7)).unwrap();
        talk.connection().end_stream(stream, uint(8)).unwrap();
        let heard = talk.script.read();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(!talk.connection().is_closed());
        talk.say(verb::END).unwrap();
        let sent = talk.script.read();
        assert!(is_close(sent.last().unwrap(), None), "{sent:?}");
        // What came can still be taken.
        assert_eq!(talk.take().0, [uint(1)]);
    }
}

// spec: §8.6
#[test]
fn messages_with_acknowledgement_are_waited_for_in_both_directions() {
    let settle = [(verb::ACK, Qos::AtLeastOnce), (verb::COMPLETE, Qos::ExactlyOnce)];
    for (last, qos) in settle {
        let mut script = Script::pubsub(|_| ());
        let (publication, sent) = script.publish(qos);
        let opening = drain(&mut script, Drain::new());
        reply(&mut script, opening);
        assert!(script.read().is_empty());
        script.settle(verb::ACK, sent.id).unwrap();
        if qos == Qos::ExactlyOnce {
            assert!(one(script.read()).is_verb(verb::RELEASE));
            assert!(script.read().is_empty(), "it is not settled yet");
            script.settle(last, sent.id).unwrap();
        }
        assert!(script.connection.take_fate(publication).unwrap().is_some());
        check_closed(&mut script);
    }
    // A delivery that came.
    let mut script = Script::pubsub(|_| ());
    let subscription = script.subscribed("a", SubscribeOptions::new().with_qos(Qos::AtLeastOnce));
    script.delivery(subscription, &[(key::QOS, crate::support::pubsub::V::U(1))]).unwrap();
    let delivery = script.connection.poll_delivery(subscription).unwrap().unwrap();
    let opening = drain(&mut script, Drain::new());
    reply(&mut script, opening);
    assert!(script.read().is_empty());
    script.connection.ack(delivery.id).unwrap();
    let sent = script.read();
    assert!(sent[0].is_verb(verb::ACK) && is_close(&sent[1], None));
    // A delivery of ours.
    let mut script = Script::pubsub(|_| ());
    let (_, subscriber) = script.subscriber("a", 1, QueueLimits::default());
    let opening = drain(&mut script, Drain::new());
    reply(&mut script, opening);
    script.connection.deliver(script.now, subscriber, &message(Qos::AtLeastOnce)).unwrap();
    let delivery = one(script.read());
    script.settle(verb::ACK, delivery.id).unwrap();
    check_closed(&mut script);
}

// spec: §8.6
#[test]
fn subscriptions_alone_hold_nobody_up_and_end_with_the_close() {
    let mut script = Script::pubsub(|_| ());
    let (_, subscriber) = script.subscriber("a", 0, QueueLimits::default());
    let subscription = script.subscribed("b", SubscribeOptions::new());
    let opening = drain(&mut script, Drain::new());
    script.connection.deliver(script.now, subscriber, &message(Qos::AtMostOnce)).unwrap();
    reply(&mut script, opening);
    let sent = script.read();
    assert_eq!(sent[0].kind, Kind::Message, "what was delivered before still goes out");
    assert!(is_close(&sent[1], None) && sent.len() == 2);
    let ended = script.pubsub_events();
    assert!(
        ended.iter().any(
            |event| matches!(event, fluxar_proto::PubSubEvent::Ended(id, Some(_)) if *id == subscription)
        )
    );
}

// spec: §8.6
#[test]
fn at_the_deadline_what_is_left_is_cut() {
    let mut script = Script::responder_with(&config(|_| ()), hello(false, &[]));
    let call = script.call("m");
    script.send(Msg::opening(Kind::Stream, id(80), "s")).unwrap();
    let events = script.events();
    let (request, stream) = (one(requests(&events)), one(opened(&events)).id);
    let ours = script.connection.call(script.now, "back", uint(1), options()).unwrap();
    let back = script.connection.open_stream(script.now, "back", uint(1), StreamOptions::new()).unwrap();
    script.read();
    let opening = drain(&mut script, Drain::new().with_deadline(ms(500)));
    reply(&mut script, opening);
    script.wait(ms(499)).unwrap();
    assert!(script.read().is_empty());
    script.wait(ms(1)).unwrap();

    let sent = script.read();
    let ends = sent.iter().map(|message| (message.kind, message.reference, message.target.as_deref()));
    let mut ends = ends.collect::<Vec<_>>();
    assert_eq!(ends.pop(), Some((Kind::Control, None, Some(verb::CLOSE))));
    ends.sort_by_key(|(kind, reference, _)| (*kind as u8, *reference));
    let mut expected = [
        (Kind::Call, Some(call), None),
        (Kind::Stream, Some(id(80)), Some(verb::END)),
        (Kind::Stream, Some(back.wire_id()), Some(verb::END)),
    ];
    expected.sort_by_key(|(kind, reference, _)| (*kind as u8, *reference));
    assert_eq!(ends, expected);
    let (close, cut) = sent.split_last().unwrap();
    assert!(is_close(close, None));
    for message in cut {
        let error = message.error.clone().unwrap();
        assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None), "it may have been acted upon");
    }
    let events = script.events();
    assert_eq!(one(withdrawn(&events)), (request.id, Withdrawn::ConnectionLost));
    let (lost, outcome) = one(outcomes(&mut script.connection, &events));
    assert_eq!((lost, outcome.unwrap_err().code), (ours, Code::UNAVAILABLE));
    assert_eq!(script.connection.stream_error(stream).unwrap().code, Code::UNAVAILABLE);
    // The handler comes too late, and harms nobody.
    assert!(script.connection.respond(request.id, Ok(uint(1))).is_err());
    script.connection.release_stream(stream);
    script.connection.release_stream(back);
    let stats = script.connection.stats();
    assert_eq!((stats.requests_running, stats.streams_serving, stats.streams_open), (0, 0, 0));
}

// spec: §8.6
// limit: patience of a side that drains without deadline_ms
#[test]
fn without_a_deadline_the_own_patience_ends_it() {
    let mut script = Script::responder(&config(|config| config.drain_timeout = ms(2_000)));
    script.call("m");
    script.connection.drain(script.now, Drain::new());
    assert_eq!(said(&one(script.read())).0, None);
    script.wait(ms(1_999)).unwrap();
    assert!(script.read().is_empty() && !script.connection.is_closed());
    script.wait(ms(1)).unwrap();
    let sent = script.read();
    assert!(sent[0].code() == Code::UNAVAILABLE && is_close(&sent[1], None));
}

// spec: §8.6
#[test]
fn a_peer_that_never_answers_and_never_reads_is_left_all_the_same() {
    let mut script = Script::responder(&config(|config| config.close_timeout = ms(300)));
    script.call("m");
    script.connection.drain(script.now, Drain::new().with_deadline(ms(1_000)));
    // The transport takes nothing at all: nobody asks for what there is to send.
    script.wait(ms(1_000)).unwrap();
    assert!(!script.connection.is_closed());
    script.wait(ms(600)).unwrap();
    assert!(script.connection.is_closed());
    assert_eq!(script.connection.error(), Some(&ConnectionError::ClosedLocally(None)));
}

// spec: §8.6
#[test]
fn a_deadline_of_nothing_cuts_at_once() {
    let mut script = Script::responder(&config(|config| config.close_timeout = Duration::ZERO));
    script.call("m");
    script.connection.drain(script.now, Drain::new().with_deadline(Duration::ZERO));
    script.wait(Duration::ZERO).unwrap();
    script.read();
    assert!(script.connection.is_closed());
}

// spec: §8.6
#[test]
fn a_further_drain_replaces_the_one_before() {
    let mut script = Script::responder(&config(|_| ()));
    let request = script.call("m");
    let first =
        drain(&mut script, Drain::new().with_deadline(ms(100)).with_reason("a").with_redirect("tcp://b:1"));
    script.connection.drain(script.now, Drain::new().with_deadline(ms(5_000)).with_reason("c"));
    let second = one(script.read());
    assert_eq!(said(&second), (Some(5_000), Some("c".into()), None));
    script.wait(ms(1_000)).unwrap();
    assert!(!script.connection.wants_transmit(), "the first deadline does not hold any more");
    let running = one(requests(&script.events()));
    assert_eq!(running.id.wire_id(), request);
    script.connection.respond(running.id, Ok(uint(1))).unwrap();
    script.read();
    reply(&mut script, first);
    assert!(script.read().is_empty(), "that was the answer to the other one");
    reply(&mut script, second.id);
    check_closed(&mut script);
}

// spec: §8.6
#[test]
fn both_sides_may_drain_at_once() {
    for seed in 0..40 {
        let mut pair = Pair::new(&config(|_| ()), &config(|_| ()), seed);
        pair.drive();
        pair.order = Order::Shuffled(TestRng::new(seed));
        let now = pair.now;
        let calls = [A, B].map(|end| pair.side(end).call(now, "m", uint(1), options()).unwrap());
        pair.drive();
        let running = [B, A].map(|end| one(requests(&pair.events(end))));
        let crossing = [A, B].map(|end| pair.side(end).call(now, "m", uint(1), options()).unwrap());
        for end in [A, B] {
            pair.side(end).drain(now, Drain::new());
        }
        pair.drive();
        for (end, request) in [B, A].into_iter().zip(running) {
            assert!(requests(&pair.events(end)).is_empty());
            pair.side(end).respond(request.id, Ok(uint(2))).unwrap();
        }
        pair.drive();
        assert!(pair.a().is_closed() && pair.b().is_closed(), "seed {seed}");
        for (end, ours) in [A, B].into_iter().zip(calls.iter().zip(crossing)) {
            let response = pair.side(end).take_response(*ours.0).unwrap().unwrap();
            assert_eq!(response, Ok(uint(2)), "seed {seed}");
            let error = pair.side(end).take_response(ours.1).unwrap().unwrap().unwrap_err();
            assert_eq!((error.code, error.processed), (Code::DRAINING, Some(false)), "seed {seed}");
        }
        assert!(
            [A, B].iter().all(|end| pair.ends[*end].error != Some(ConnectionError::LinkLost { unread: 0 }))
        );
    }
}

// spec: §8.6
#[test]
fn a_publication_that_crosses_is_nacked_and_not_tried_again() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let options = PublishOptions::new().with_qos(Qos::AtLeastOnce);
    pair.a().publish(now, "a", uint(1), options).unwrap();
    pair.latency = ms(10);
    pair.b().drain(now, Drain::new().with_deadline(ms(60_000)));
    pair.drive();
    let events = pair.events(A);
    let fate = one(fates(pair.a(), &events));
    let fluxar_proto::Fate::Rejected { error, attempts: 1 } = fate else { panic!("{fate:?}") };
    assert_eq!((error.code, error.processed), (Code::DRAINING, Some(false)));
    assert!(pair.b().is_closed());
}

// spec: §8.6
#[test]
fn drain_waits_for_the_handshake_and_gives_up_with_it() {
    let mut script = Script::offered_by(&config(|config| config.handshake_timeout = ms(10_000)));
    script.connection.drain(script.now, Drain::new().with_deadline(ms(1_000)));
    let offer = one(script.read());
    assert_eq!(offer.kind, Kind::Hello);
    let answer = cbor(|out| out.map(1)?.str("version")?.u8(1)?.ok());
    script.send(Msg::continuation(Kind::Hello, id(0), offer.id).payload(answer)).unwrap();
    assert_eq!(one(script.read()).target.as_deref(), Some(verb::DRAIN));

    let mut script = Script::offered_by(&config(|config| config.handshake_timeout = ms(10_000)));
    script.read();
    script.connection.drain(script.now, Drain::new().with_deadline(ms(1_000)));
    script.wait(ms(1_000)).unwrap();
    assert_eq!(script.connection.error(), Some(&ConnectionError::ClosedLocally(None)));
}

// spec: §8.6
#[test]
fn what_has_ended_does_not_drain() {
    let mut script = Script::responder(&config(|_| ()));
    script.connection.close(script.now, None);
    script.read();
    script.connection.drain(script.now, Drain::new());
    assert!(script.read().is_empty() && !script.connection.is_draining());
    assert_eq!(script.connection.poll_timeout(), None);
}

// spec: §15.3
#[test]
fn long_reasons_are_cut_and_long_urls_left_out() {
    let mut script = Script::responder(&config(|_| ()));
    let leave =
        Drain::new().with_reason("é".repeat(5_000)).with_redirect(format!("tcp://{}:1", "h".repeat(3_000)));
    script.connection.drain(script.now, leave);
    let (_, reason, redirect) = said(&one(script.read()));
    assert_eq!((reason.unwrap(), redirect), ("é".repeat(512), None));
}

// spec: §5.13
// spec: §8.6
#[test]
fn a_peer_that_takes_only_small_messages_is_told_the_deadline_at_least() {
    let mut script = Script::responder_with(&config(|_| ()), hello(false, &[("max_message", 1024)]));
    let redirect = format!("tcp://{}:1", "h".repeat(900));
    let leave =
        Drain::new().with_deadline(ms(7)).with_reason("r".repeat(1_000)).with_redirect(redirect.clone());
    script.connection.drain(script.now, leave);
    assert_eq!(said(&one(script.read())), (Some(7), None, Some(redirect)));
    let redirect = format!("tcp://{}:1", "h".repeat(1_500));
    script.connection.drain(script.now, Drain::new().with_deadline(ms(7)).with_redirect(redirect));
    assert_eq!(said(&one(script.read())), (Some(7), None, None));
}

// spec: §8.6
#[test]
fn who_leaves_looks_for_no_other_session() {
    let mut script = Script::initiator(&config(|config| config.reconnect = true));
    drain(&mut script, Drain::new());
    script.call("m");
    assert!(script.connection.handle_eof(script.now, 0).is_err());
    assert!(!script.connection.is_detached());
}
