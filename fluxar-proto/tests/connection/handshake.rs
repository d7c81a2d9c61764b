//! Offer and answer, and what can go wrong before both sides are established.

use bytes::BytesMut;
use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{
    Code, Connection, ConnectionError, Error, Event, Incoming, Instant, Limits, Progress, Timeout,
    TransmitBuf, Violation,
};

use crate::support::{
    Msg, Pair, Script, answer, at, cbor, config, id, ids, incoming, is_close, ms, offer, one, sent,
};

// spec: §6.1
// spec: §6.3
// spec: §6.4
#[test]
fn both_sides_learn_each_others_agent_version_and_limits() {
    let a = config(|c| {
        c.agent = Some("a/1".into());
        c.limits.max_message = 5000;
    });
    let b = config(|c| {
        c.agent = None;
        c.limits = Limits { max_calls: 7, heartbeat_ms: 0, ..Limits::ABSENT };
    });
    let mut pair = Pair::new(&a, &b, 1);
    assert!(pair.a().is_handshaking());
    assert!(pair.a().peer().is_none());
    pair.drive();

    let peer = pair.a().peer().unwrap().clone();
    assert_eq!((peer.agent, peer.version, peer.limits), (None, 1, b.limits));
    let peer = pair.b().peer().unwrap().clone();
    assert_eq!((peer.agent.as_deref(), peer.version, peer.limits), (Some("a/1"), 1, a.limits));
    assert!(!pair.a().is_handshaking());
}

// spec: §6.8
#[test]
fn a_refusal_reaches_the_initiator_whole() {
    let mut script = Script::offered_by(&config(|_| ()));
    let offer = one(script.read());
    let refusal = Error::resource_exhausted("full").with_retry_after_ms(500).with_data(vec![0x18, 0x2a]);
    let answer = Msg::continuation(Kind::Hello, id(0), offer.id).error(refusal.clone());
    let error = script.send(answer).unwrap_err();
    assert_eq!(error, ConnectionError::Refused(refusal));
    assert!(script.read().is_empty(), "after a refusal nothing more is sent");
    assert!(script.connection.is_closed());
    assert!(matches!(script.events()[..], [Event::Closed(ConnectionError::Refused(_))]));
}

// spec: §6.8
#[test]
fn a_verdict_against_an_offer_is_sent_as_the_answer() {
    let offered = incoming(&offer().frame()).unwrap();
    assert_eq!(offered.offer().versions, [1]);
    let mut out = TransmitBuf::new();
    offered.refuse(at(5), Error::unauthenticated("who are you?"), &mut out);
    let refusal = one(sent(&out));
    assert_eq!((refusal.kind, refusal.reference), (Kind::Hello, Some(id(0))));
    assert_eq!(refusal.code(), Code::UNAUTHENTICATED);
}

// spec: §6.1
#[test]
fn what_follows_the_offer_waits_for_the_verdict() {
    let mut input = BytesMut::from(&offer().frame()[..]);
    input.extend_from_slice(&Msg::opening(Kind::Call, id(1), "early").frame());
    let mut out = TransmitBuf::new();
    let incoming = Incoming::new(config(|_| ()), Instant::ZERO, ids(2));
    let Ok(Progress::Offered(offered)) = incoming.handle_input(Instant::ZERO, &mut input, &mut out) else {
        panic!("no offer");
    };
    assert_eq!(input, &Msg::opening(Kind::Call, id(1), "early").frame()[..]);
    let mut connection = offered.accept(Instant::ZERO);
    connection.handle_input(Instant::ZERO, &mut input).unwrap();
    assert!(matches!(connection.poll_event(), Some(Event::Established)));
    assert!(matches!(connection.poll_event(), Some(Event::Call(_))));
    connection.poll_transmit(Instant::ZERO, &mut out);
    assert_eq!(sent(&out)[0].kind, Kind::Hello, "the answer goes first");
}

// spec: §6.1
// spec: §6.14
#[test]
fn a_responder_takes_nothing_but_an_offer_first() {
    let openings = [
        Msg::opening(Kind::Call, id(1), "m"),
        Msg::opening(Kind::Control, id(1), verb::PING),
        Msg::opening(Kind::Message, id(1), "topic"),
        Msg::continuation(Kind::Hello, id(1), id(0)).payload(offer().payload),
    ];
    for message in openings {
        let (error, told) = incoming(&message.frame()).unwrap_err();
        assert_eq!(error, ConnectionError::Violation(Violation::HelloExpected), "{message:?}");
        assert!(is_close(&one(told), Some(Code::PROTOCOL_VIOLATION)), "{message:?}");
    }
}

// spec: §6.1
// spec: §6.13
#[test]
fn an_initiator_takes_nothing_but_the_answer_first() {
    let other_answer = |script: &mut Script| Msg { reference: Some(id(99)), ..answer(script) };
    let messages: [fn(&mut Script) -> Msg; 4] = [
        |_| Msg::opening(Kind::Call, id(1), "m"),
        |_| Msg::opening(Kind::Control, id(1), verb::PING),
        |_| offer(),
        other_answer,
    ];
    for message in messages {
        let mut script = Script::offered_by(&config(|_| ()));
        let message = message(&mut script);
        script.read();
        let error = script.send(message).unwrap_err();
        assert!(matches!(error, ConnectionError::Violation(_)), "{error:?}");
        assert!(is_close(&one(script.read()), Some(Code::PROTOCOL_VIOLATION)));
        assert!(script.connection.is_closed());
    }
}

// spec: §6.1
#[test]
fn a_hello_after_the_handshake_is_fatal() {
    for start in [Script::responder, Script::initiator] {
        for hello in [offer(), Msg { reference: Some(id(5)), ..offer() }] {
            let mut script = start(&config(|_| ()));
            let error = script.send(Msg { id: id(7), ..hello }).unwrap_err();
            assert_eq!(error, ConnectionError::Violation(Violation::HelloRepeated));
            assert!(is_close(&one(script.read()), Some(Code::PROTOCOL_VIOLATION)));
        }
    }
}

// spec: §6.8
// spec: §8.7
#[test]
fn close_is_legal_during_the_handshake_on_both_sides() {
    let close = Msg::opening(Kind::Control, id(1), verb::CLOSE).error(Error::unavailable("going"));
    let (error, told) = incoming(&close.frame()).unwrap_err();
    assert_eq!(error, ConnectionError::ClosedByPeer(Some(Error::unavailable("going"))));
    assert!(told.is_empty(), "close is not answered");

    let mut script = Script::offered_by(&config(|_| ()));
    script.read();
    let error = script.send(Msg::opening(Kind::Control, id(1), verb::CLOSE)).unwrap_err();
    assert_eq!(error, ConnectionError::ClosedByPeer(None));
    assert!(script.read().is_empty());
    assert!(script.connection.is_closed());
}

// spec: §6.8
#[test]
fn an_initiator_may_close_while_it_waits_for_the_answer() {
    let mut script = Script::offered_by(&config(|_| ()));
    script.read();
    script.connection.close(script.now, Some(Error::cancelled("never mind")));
    assert!(is_close(&one(script.read()), Some(Code::CANCELLED)));
    assert!(script.connection.is_closed());
    assert!(matches!(script.events()[..], [Event::Closed(ConnectionError::ClosedLocally(Some(_)))]));
}

// spec: §8.7
#[test]
fn closing_before_the_offer_was_sent_sends_nothing() {
    let mut script = Script::offered_by(&config(|_| ()));
    script.connection.close(script.now, None);
    assert!(script.read_bytes().is_empty());
    assert!(script.connection.is_closed());
}

// spec: §6.9
#[test]
fn an_initiator_gives_the_answer_ten_seconds() {
    let mut script = Script::offered_by(&config(|_| ()));
    script.read();
    script.wait(ms(9_999)).unwrap();
    script.connection.handle_timeout(script.now).unwrap();
    let error = script.wait(ms(1)).unwrap_err();
    assert_eq!(error, ConnectionError::TimedOut(Timeout::Handshake));
    assert!(is_close(&one(script.read()), Some(Code::DEADLINE_EXCEEDED)));
    assert!(script.connection.is_closed());
    assert_eq!(script.connection.poll_timeout(), None);
}

// spec: §6.9
#[test]
fn a_responder_gives_the_offer_as_long_as_it_is_set_to() {
    let mut out = TransmitBuf::new();
    let mut incoming = Incoming::new(config(|c| c.handshake_timeout = ms(300)), at(50), ids(2));
    assert_eq!(incoming.deadline(), at(350));
    assert_eq!(incoming.handle_timeout(at(349), &mut out), Ok(()));
    assert!(out.is_empty());
    let error = incoming.handle_timeout(at(350), &mut out).unwrap_err();
    assert_eq!(error, ConnectionError::TimedOut(Timeout::Handshake));
    assert!(is_close(&one(sent(&out)), Some(Code::DEADLINE_EXCEEDED)));
}

// spec: §6.9
#[test]
fn the_time_for_the_handshake_includes_the_verdict() {
    let mut out = TransmitBuf::new();
    let mut offered = incoming(&offer().frame()).unwrap();
    assert_eq!(offered.handle_timeout(at(9_999), &mut out), Ok(()));
    assert!(out.is_empty());
    let error = offered.handle_timeout(at(10_000), &mut out).unwrap_err();
    assert_eq!(error, ConnectionError::TimedOut(Timeout::Handshake));
    assert!(is_close(&one(sent(&out)), Some(Code::DEADLINE_EXCEEDED)));
}

// spec: §3.3
// limit: frame, before its receiver is established
#[test]
fn a_long_frame_is_refused_from_its_length_during_the_handshake() {
    let (error, told) = incoming(&65_537u32.to_be_bytes()).unwrap_err();
    assert_eq!(error.code(), Code::MESSAGE_TOO_LARGE);
    assert!(is_close(&one(told), Some(Code::MESSAGE_TOO_LARGE)));

    let mut script = Script::offered_by(&config(|_| ()));
    script.read();
    assert_eq!(script.send_bytes(&65_536u32.to_be_bytes()), Ok(()));
    let mut script = Script::offered_by(&config(|_| ()));
    script.read();
    let error = script.send_bytes(&65_537u32.to_be_bytes()).unwrap_err();
    assert_eq!(error.code(), Code::MESSAGE_TOO_LARGE);
    assert!(is_close(&one(script.read()), Some(Code::MESSAGE_TOO_LARGE)));
}

// spec: §3.3
// spec: §6.13
#[test]
fn the_limit_changes_with_the_answer_within_one_read() {
    let mut script = Script::offered_by(&config(|c| c.limits.max_message = 100_000));
    let answer = answer(&mut script);
    let large = Msg::opening(Kind::Call, id(1), "m").payload(cbor(|out| out.bytes(&[1; 80_000])?.ok()));
    let bytes = [answer.frame(), large.frame()].concat();
    script.send_bytes(&bytes).unwrap();
    assert_eq!(script.events().len(), 2, "established, and a request larger than any frame before");

    let mut script = Script::offered_by(&config(|c| c.limits.max_message = 2000));
    let answer = self::answer(&mut script);
    let error = script.send_bytes(&[answer.frame(), 2065u32.to_be_bytes().to_vec()].concat()).unwrap_err();
    assert_eq!(error.code(), Code::MESSAGE_TOO_LARGE);
    assert!(matches!(script.events()[..], [Event::Established, Event::Closed(_)]));
}

// spec: §3.1
#[test]
fn frames_may_be_handled_a_few_at_a_time() {
    let mut script = Script::offered_by(&config(|c| c.limits.max_message = 100_000));
    let answer = answer(&mut script);
    let large = Msg::opening(Kind::Call, id(1), "m").payload(cbor(|out| out.bytes(&[1; 80_000])?.ok()));
    let small = |n| Msg::opening(Kind::Call, id(n), "m").frame();
    script.input.extend_from_slice(&[answer.frame(), small(2), large.frame(), small(3), vec![0, 0]].concat());
    let mut some = |count| {
        let more = script.connection.handle_some_input(script.now, &mut script.input, count).unwrap();
        (more, script.events().len())
    };
    assert_eq!(some(10), (true, 1), "the answer alone, since limits change with it");
    assert_eq!(some(1), (true, 1));
    assert_eq!(some(2), (true, 2), "the beginning of another frame");
    assert_eq!(some(2), (false, 0));
    assert_eq!(script.input.len(), 2);
}

// spec: §6.4
#[test]
fn an_answer_that_chooses_what_was_not_offered_is_fatal() {
    let answers = [
        cbor(|out| out.map(1)?.str("version")?.u8(2)?.ok()),
        cbor(|out| {
            out.map(2)?.str("version")?.u8(1)?;
            out.str("caps")?.map(1)?.str("features")?.array(1)?.str("stream")?.ok()
        }),
        cbor(|out| {
            out.map(2)?.str("version")?.u8(1)?;
            out.str("caps")?.map(1)?.str("compress")?.str("zstd")?.ok()
        }),
        cbor(|out| {
            out.map(2)?.str("version")?.u8(1)?;
            out.str("caps")?.map(1)?.str("encrypt")?.map(1)?.str("suite")?.str("x")?.ok()
        }),
        cbor(|out| {
            out.map(2)?.str("version")?.u8(1)?;
            out.str("psk")?.map(1)?.str("nonce")?.bytes(&[0; 32])?.ok()
        }),
        cbor(|out| {
            out.map(2)?.str("version")?.u8(1)?;
            out.str("caps")?.map(1)?.str("features")?.array(1)?.str("com.example.unknown")?.ok()
        }),
        cbor(|out| {
            out.map(2)?.str("version")?.u8(1)?;
            out.str("resumed")?.map(1)?.str("handled")?.u8(0)?.ok()
        }),
    ];
    for payload in answers {
        let mut script = Script::offered_by(&config(|c| (c.stream, c.pubsub) = (false, false)));
        let answer = answer(&mut script).payload(payload.clone());
        let error = script.send(answer).unwrap_err();
        assert_eq!(error, ConnectionError::Violation(Violation::WrongAnswer), "{payload:02x?}");
        assert!(is_close(&one(script.read()), Some(Code::PROTOCOL_VIOLATION)));
    }
}

// spec: §3.4
// spec: §6.13
#[test]
fn the_end_of_the_transport_during_the_handshake_is_a_failure() {
    let mut script = Script::offered_by(&config(|_| ()));
    script.read();
    script.send_bytes(&[0, 0, 0]).unwrap();
    let error = script.connection.handle_eof(script.now, script.input.len()).unwrap_err();
    assert_eq!(error, ConnectionError::LinkLost { unread: 3 });
    assert_eq!(error.code(), Code::UNAVAILABLE);
    assert!(script.read().is_empty());
}

// spec: §6.1
#[test]
fn a_verdict_may_come_late_and_the_handshake_works_in_single_bytes() {
    let config = config(|_| ());
    let mut pair = Pair::new(&config, &config, 4);
    pair.chunks = crate::support::Chunks::Of(1);
    pair.drive();
    assert!(!pair.a().is_handshaking());
    let offered = incoming(&offer().frame()).unwrap();
    assert_eq!(offered.deadline(), at(10_000));
    let connection: Connection = offered.accept(at(9_000));
    assert_eq!(connection.poll_timeout(), Some(at(24_000)), "the heartbeat counts from the verdict");
}
