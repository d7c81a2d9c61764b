//! A peer that is about to leave: nothing is opened there any more (§8.6).

use fluxar_proto::message::{Id, Kind, verb};
use fluxar_proto::{
    CallError, Code, ConnectionError, Drain, Event, Fate, PubSubEvent, PublishError, PublishOptions, Qos,
    StreamError, StreamOptions, SubscribeError, SubscribeOptions,
};

use crate::support::pubsub::{fates, pubsub_events};
use crate::support::{
    Last, Msg, Note, Script, at, capacities, cbor, config, id, is_close, ms, notes, one, options, outcomes,
    take, uint,
};

/// A connection with calls, streams and pub/sub, opposite of a script.
fn everything(change: impl FnOnce(&mut fluxar_proto::Config)) -> Script {
    let offer = cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?;
        out.str("caps")?.map(1)?.str("features")?.array(2)?.str("stream")?.str("pubsub")?.ok()
    });
    Script::responder_with(&config(change), offer)
}

fn drain(script: &mut Script, payload: Vec<u8>) -> Result<Id, ConnectionError> {
    let id = script.id();
    script.send(Msg::opening(Kind::Control, id, verb::DRAIN).payload(payload)).map(|()| id)
}

fn nothing() -> Vec<u8> {
    cbor(|out| out.map(0)?.ok())
}

/// The reply to `drain`, and nothing else.
#[track_caller]
fn check_reply(script: &mut Script, drain: Id) {
    let reply = one(script.read());
    assert_eq!((reply.kind, reply.reference, reply.target.as_deref()), (Kind::Control, Some(drain), None));
    assert!(reply.error.is_none() && reply.payload == [0xf6], "null: {reply:?}");
}

/// What the application is told.
fn told(events: &[Event]) -> Vec<Drain> {
    let told = events.iter().filter_map(|event| match event {
        Event::Draining(drain) => Some(drain.clone()),
        _ => None,
    });
    told.collect()
}

// spec: §8.6
// spec: §8.2
#[test]
fn drain_is_answered_and_told() {
    let mut script = everything(|_| ());
    let payload = cbor(|out| {
        out.map(4)?.str("deadline_ms")?.u32(10_000)?.str("reason")?.str("restart")?;
        out.str("more")?.array(1)?.u8(1)?.str("redirect")?.str("tcp://10.0.0.7:9000")?.ok()
    });
    let drain = drain(&mut script, payload).unwrap();
    let expected =
        Drain::new().with_deadline(ms(10_000)).with_reason("restart").with_redirect("tcp://10.0.0.7:9000");
    assert_eq!(script.connection.peer_draining(), Some(&expected));
    assert!(!script.connection.is_draining());
    assert_eq!(told(&script.events()), [expected]);
    check_reply(&mut script, drain);
    // It is the other side that goes.
    script.wait(ms(60_000)).unwrap_err();
    assert!(!script.connection.is_draining());
}

// spec: §8.6
#[test]
fn nothing_can_be_opened_any_more() {
    let mut script = everything(|_| ());
    drain(&mut script, nothing()).unwrap();
    script.read();
    let now = script.now;
    let connection = &mut script.connection;
    assert_eq!(connection.call(now, "m", uint(1), options()), Err(CallError::Draining));
    assert_eq!(connection.ready_to_call(), Err(CallError::Draining));
    let stream = connection.open_stream(now, "s", uint(1), StreamOptions::new());
    assert_eq!(stream, Err(StreamError::Draining));
    assert_eq!(connection.ready_to_stream(), Err(StreamError::Draining));
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let published = connection.publish(now, "a", uint(1), PublishOptions::new().with_qos(qos));
        assert_eq!(published, Err(PublishError::Draining));
    }
    assert_eq!(connection.ready_to_publish(), Err(PublishError::Draining));
    let subscribed = connection.subscribe(now, "a", SubscribeOptions::new());
    assert_eq!(subscribed, Err(SubscribeError::Draining));
    assert!(script.read().is_empty());
}

// spec: §8.6
#[test]
fn what_was_queued_and_not_sent_fails_and_no_opening_follows_the_reply() {
    let mut script = everything(|_| ());
    let now = script.now;
    let sent = script.connection.call(now, "sent", uint(1), options()).unwrap();
    script.read();
    let connection = &mut script.connection;
    let call = connection.call(now, "queued", uint(1), options()).unwrap();
    connection.update(call, uint(9)).unwrap();
    let stream = connection.open_stream(now, "queued", uint(1), StreamOptions::new()).unwrap();
    connection.send_item(stream, uint(2)).unwrap();
    let subscription = connection.subscribe(now, "queued", SubscribeOptions::new()).unwrap();
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        connection.publish(now, "queued", uint(1), PublishOptions::new().with_qos(qos)).unwrap();
    }
    let drain = drain(&mut script, nothing()).unwrap();

    check_reply(&mut script, drain);
    let events = script.events();
    let (failed, outcome) = one(outcomes(&mut script.connection, &events));
    let error = outcome.unwrap_err();
    assert_eq!((failed, error.code, error.processed), (call, Code::DRAINING, Some(false)));
    let (_, last) = take(&mut script.connection, stream);
    assert_eq!(last, Last::Failed(Code::DRAINING, Some(false)));
    let ended = pubsub_events(&events).into_iter().find_map(|event| match event {
        PubSubEvent::Ended(id, error) => Some((id, error.unwrap())),
        _ => None,
    });
    let (ended, error) = ended.unwrap();
    assert_eq!((ended, error.code, error.processed), (subscription, Code::DRAINING, Some(false)));
    let fates = fates(&mut script.connection, &events);
    assert_eq!(fates.len(), 2);
    for fate in fates {
        let Fate::Lost { error, attempts: 0 } = fate else { panic!("{fate:?}") };
        assert_eq!((error.code, error.processed), (Code::DRAINING, Some(false)));
    }
    assert_eq!(script.connection.stats().publish_bytes, 0);
    // The call that was sent goes on.
    let response = Msg::continuation(Kind::Call, script.id(), sent.wire_id()).payload(uint(3));
    script.send(response).unwrap();
    assert_eq!(script.outcomes(), [(sent, Ok(uint(3)))]);
}

// spec: §8.6
#[test]
fn an_earlier_attempt_is_not_forgotten_when_the_next_one_cannot_be_made() {
    let mut script = Script::pubsub(|_| ());
    let resumed = fluxar_proto::Resumed { id: id(40), attempt: 2, released: false };
    let options = PublishOptions::new().with_qos(Qos::AtLeastOnce).with_resumed(resumed);
    script.connection.publish(script.now, "a", uint(1), options).unwrap();
    drain(&mut script, nothing()).unwrap();
    let events = script.events();
    let fate = one(fates(&mut script.connection, &events));
    let Fate::Lost { error, attempts: 2 } = fate else { panic!("{fate:?}") };
    assert_eq!((error.code, error.processed), (Code::DRAINING, None), "nobody knows what became of it");
}

// spec: §8.6
#[test]
fn what_is_open_goes_on() {
    let mut script = everything(|_| ());
    let now = script.now;
    let stream = script.connection.open_stream(now, "s", uint(1), StreamOptions::new()).unwrap();
    let (publication, sent) = {
        script.read();
        script.publish(Qos::ExactlyOnce)
    };
    let call = script.call("m");
    let request = one(crate::support::requests(&script.events()));
    drain(&mut script, nothing()).unwrap();
    script.read();
    script.connection.respond(request.id, Ok(uint(5))).unwrap();
    script.connection.send_item(stream, uint(6)).unwrap();
    script.settle(verb::ACK, sent.id).unwrap();
    let kinds = script.read().into_iter().map(|message| (message.kind, message.reference, message.target));
    let expected = [
        (Kind::Message, Some(sent.id), Some(verb::RELEASE.into())),
        (Kind::Call, Some(call), None),
        (Kind::Stream, Some(stream.wire_id()), None),
    ];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    assert_eq!(script.connection.take_fate(publication), Ok(Some(Fate::Accepted { attempts: 1 })));
}

// spec: §8.6
// spec: §12.8
#[test]
fn another_attempt_of_a_publication_opens_nothing_and_may_be_made() {
    let mut script = Script::pubsub(|config| config.ack_timeout = ms(100));
    let (_, sent) = script.publish(Qos::AtLeastOnce);
    drain(&mut script, nothing()).unwrap();
    script.read();
    script.wait(ms(100)).unwrap();
    let repeated = one(script.read());
    assert_eq!((repeated.id, repeated.meta_bool("dup")), (sent.id, Some(true)));
}

// spec: §8.6
#[test]
fn who_waits_for_room_learns_that_there_will_be_none() {
    let mut script = Script::responder_with(
        &config(|config| config.publish_buffer = 1),
        cbor(|out| {
            out.map(3)?.str("versions")?.array(1)?.u8(1)?;
            out.str("caps")?.map(1)?.str("features")?.array(2)?.str("stream")?.str("pubsub")?;
            out.str("limits")?.map(2)?.str("max_calls")?.u8(1)?.str("max_streams")?.u8(1)?.ok()
        }),
    );
    let now = script.now;
    let connection = &mut script.connection;
    connection.call(now, "m", uint(1), options()).unwrap();
    connection.open_stream(now, "s", uint(1), StreamOptions::new()).unwrap();
    connection.publish(now, "a", uint(1), PublishOptions::new().with_qos(Qos::AtLeastOnce)).unwrap();
    script.read();
    let connection = &mut script.connection;
    assert_eq!(connection.ready_to_call(), Err(CallError::Blocked));
    assert_eq!(connection.ready_to_stream(), Err(StreamError::Blocked));
    assert_eq!(connection.ready_to_publish(), Err(PublishError::Blocked));
    script.events();
    drain(&mut script, nothing()).unwrap();
    let events = script.events();
    assert_eq!(capacities(&events), 1);
    assert_eq!(notes(&events), [(None, Note::Capacity)]);
    assert!(pubsub_events(&events).iter().any(|event| matches!(event, PubSubEvent::Capacity)));
}

// spec: §8.6
// spec: §6.2
#[test]
fn a_payload_of_the_wrong_shape_is_malformed() {
    let payloads = [
        vec![0xf6],
        cbor(|out| out.array(0)?.ok()),
        cbor(|out| out.map(1)?.str("deadline_ms")?.i8(-1)?.ok()),
        cbor(|out| out.map(1)?.str("deadline_ms")?.str("1")?.ok()),
        cbor(|out| out.map(1)?.str("reason")?.bytes(b"x")?.ok()),
        cbor(|out| out.map(1)?.str("redirect")?.u8(1)?.ok()),
        cbor(|out| out.map(1)?.u8(1)?.u8(1)?.ok()),
        cbor(|out| out.map(2)?.str("reason")?.str("a")?.str("reason")?.str("b")?.ok()),
        cbor(|out| {
            out.map(65)?;
            (0..65).try_for_each(|n| out.str(&n.to_string())?.null()?.ok())
        }),
    ];
    for payload in payloads {
        let mut script = everything(|_| ());
        let error = drain(&mut script, payload.clone()).unwrap_err();
        assert_eq!(error.code(), Code::MALFORMED, "{payload:x?}");
        assert!(is_close(&one(script.read()), Some(Code::MALFORMED)));
    }
}

// spec: §8.6
// spec: §15.3
// limit: texts of drain that are kept
#[test]
fn what_a_peer_says_of_it_is_kept_within_bounds() {
    let mut script = everything(|_| ());
    let long = "é".repeat(400_000);
    let payload = cbor(|out| {
        out.map(3)?.str("deadline_ms")?.u64(u64::MAX)?.str("reason")?.str(&long)?;
        out.str("redirect")?.str(&long)?.ok()
    });
    let first = drain(&mut script, payload).unwrap();
    let drain = one(told(&script.events()));
    assert_eq!((drain.reason.unwrap(), drain.redirect), ("é".repeat(512), None));
    check_reply(&mut script, first);
}

// spec: §8.6
// spec: §15.3
// limit: replies to drain that wait
#[test]
fn a_further_drain_replaces_the_one_before_however_often_it_comes() {
    let mut script = everything(|_| ());
    let mut drains = Vec::new();
    for n in 0..10_000 {
        let payload = cbor(|out| out.map(1)?.str("deadline_ms")?.u64(n)?.ok());
        drains.push(drain(&mut script, payload).unwrap());
    }
    let last = Drain::new().with_deadline(ms(9_999));
    assert_eq!(told(&script.events()), [last], "only what holds is told");
    let answered = script.read().into_iter().map(|reply| reply.reference.unwrap()).collect::<Vec<_>>();
    assert_eq!(answered, drains[drains.len() - 8..], "the latest");
    let again = drain(&mut script, nothing()).unwrap();
    assert_eq!(told(&script.events()), [Drain::new()]);
    check_reply(&mut script, again);
}

// spec: §8.2
#[test]
fn control_goes_on_while_the_peer_drains() {
    let mut script = everything(|_| ());
    drain(&mut script, nothing()).unwrap();
    script.read();
    script.now = at(5);
    let ping = script.connection.ping(script.now).unwrap();
    assert_eq!(one(script.read()).id, ping);
    script.send(Msg::continuation(Kind::Control, id(60), ping)).unwrap();
    assert!(script.events().iter().any(|event| matches!(event, Event::Pong { .. })));
}

// spec: §8.6
#[test]
fn who_can_go_elsewhere_does_so_after_a_close_that_drain_has_announced() {
    for announced in [false, true] {
        let mut script = Script::initiator(&config(|config| config.reconnect = true));
        let redirect = cbor(|out| out.map(1)?.str("redirect")?.str("tcp://b:1")?.ok());
        if announced {
            drain(&mut script, redirect).unwrap();
        }
        let close = Msg::opening(Kind::Control, id(90), verb::CLOSE);
        let (closed, events) = (script.send(close), script.events());
        if !announced {
            assert_eq!(closed, Err(ConnectionError::ClosedByPeer(None)), "it wants no more of us");
            continue;
        }
        closed.unwrap();
        assert_eq!(one(told(&events)).redirect.as_deref(), Some("tcp://b:1"));
        assert!(script.connection.is_detached());
        assert!(script.connection.peer_draining().is_none(), "that was another session");
        assert_ne!(script.connection.ready_to_call(), Err(CallError::Draining));
    }
}
