//! Offer and answer, and what can go wrong before both sides are established.

use bytes::BytesMut;
use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{
    Code, Connection, ConnectionError, Error, Event, HelloError, Incoming, Instant, Limits, Offered,
    Progress, Timeout, TransmitBuf, Violation,
};

use crate::support::{Msg, Pair, Script, at, cbor, config, id, ids, is_close, ms, one};

/// What an incoming link makes of `input`: the offer, or the error and what the peer is told.
fn incoming(input: &[u8]) -> Result<Box<Offered>, (ConnectionError, Vec<Msg>)> {
    let mut out = TransmitBuf::new();
    let incoming = Incoming::new(config(|_| ()), Instant::ZERO, ids(2));
    match incoming.handle_input(Instant::ZERO, &mut BytesMut::from(input), &mut out) {
        Ok(Progress::Offered(offered)) => Ok(offered),
        Ok(Progress::More(_)) => panic!("the frame is not whole"),
        Err(error) => Err((error, sent(&out))),
    }
}

fn sent(out: &TransmitBuf) -> Vec<Msg> {
    Msg::decode_all(&out.segments().flatten().copied().collect::<Vec<u8>>())
}

fn offer() -> Msg {
    offer_with(cbor(|out| out.map(1)?.str("versions")?.array(1)?.u8(1)?.ok()))
}

fn offer_with(payload: Vec<u8>) -> Msg {
    Msg::bare(Kind::Hello, id(0)).payload(payload)
}

/// The answer of the script to the offer of the connection.
fn answer(script: &mut Script) -> Msg {
    let offer = one(script.read());
    Msg::continuation(Kind::Hello, id(0), offer.id)
        .payload(cbor(|out| out.map(1)?.str("version")?.u8(1)?.ok()))
}

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

// spec: §6.3
// spec: §6.7
// spec: §5.14
#[test]
fn an_offer_holds_what_differs_from_the_defaults() {
    let config = config(|c| {
        c.agent = None;
        c.limits = Limits { max_calls: 3, ..Limits::ABSENT };
    });
    let offer = one(Script::offered_by(&config).read());
    assert_eq!((offer.kind, offer.reference, &offer.target, offer.meta.len()), (Kind::Hello, None, &None, 0));
    let expected = cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?;
        out.str("limits")?.map(1)?.str("max_calls")?.u8(3)?.ok()
    });
    assert_eq!(offer.payload, expected);
}

// spec: §6.7
#[test]
fn limits_that_a_hello_leaves_out_have_their_defaults() {
    let script = Script::responder(&config(|_| ()));
    let peer = script.connection.peer().unwrap();
    let defaults = Limits {
        max_message: 1_048_576,
        max_calls: 1_024,
        max_streams: 256,
        stream_window: 262_144,
        max_subscriptions: 1_024,
        max_inflight: 256,
        heartbeat_ms: 15_000,
    };
    assert_eq!(peer.limits, defaults);
}

// spec: §6.2
// spec: §6.6
#[test]
fn unknown_keys_names_and_limits_are_ignored() {
    let offer = cbor(|out| {
        out.map(4)?.str("versions")?.array(3)?.u8(9)?.u8(1)?.u64(u64::MAX)?;
        out.str("colour")?.map(1)?.u8(1)?.array(0)?;
        out.str("caps")?.map(2)?.str("features")?.array(2)?.str("stream")?.str("teleport")?;
        out.str("flags")?.bool(true)?;
        out.str("limits")?.map(2)?.str("max_moons")?.str("two")?.str("max_calls")?.u8(5)?.ok()
    });
    let mut script = Script::responder_with(&config(|_| ()), offer);
    let peer = script.connection.peer().unwrap();
    assert_eq!((peer.version, peer.limits.max_calls), (1, 5));
    assert!(peer.features.is_empty(), "what is not built is not chosen");
    assert!(script.send(Msg::opening(Kind::Control, id(1), verb::PING)).is_ok());
}

// spec: §6.2
// spec: §17.2
#[test]
fn of_the_features_offered_those_that_exist_are_shown_once() {
    let offer = cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?;
        out.str("caps")?.map(1)?.str("features")?.array(1_000)?;
        for n in 0..250 {
            out.str("lanes")?.str("stream")?.str(&n.to_string())?.str("stream")?;
        }
        Ok(())
    });
    let offered = incoming(&offer_with(offer).frame()).unwrap();
    assert_eq!(offered.offer().features, ["lanes", "stream"]);
}

// spec: §6.5
// spec: §6.8
#[test]
fn an_offer_without_a_common_version_is_refused_with_the_versions_there_are() {
    let versions = cbor(|out| out.map(1)?.str("versions")?.array(2)?.u8(2)?.u8(3)?.ok());
    let (error, told) = incoming(&offer_with(versions).frame()).unwrap_err();
    assert_eq!(error, ConnectionError::NoCommonVersion);
    let refusal = one(told);
    assert_eq!((refusal.kind, refusal.reference, &refusal.target), (Kind::Hello, Some(id(0)), &None));
    assert_eq!(refusal.code(), Code::UNSUPPORTED_VERSION);
    assert_eq!(refusal.error.unwrap().data.unwrap(), cbor(|out| out.array(1)?.u8(1)?.ok()));
}

// spec: §6.5
#[test]
fn the_version_is_decided_before_other_keys_are_judged() {
    let offer = cbor(|out| {
        out.map(3)?.str("agent")?.u8(7)?.str("limits")?.str("many")?;
        out.str("versions")?.array(1)?.u8(2)?.ok()
    });
    let (error, told) = incoming(&offer_with(offer).frame()).unwrap_err();
    assert_eq!(error, ConnectionError::NoCommonVersion);
    assert_eq!(one(told).code(), Code::UNSUPPORTED_VERSION);
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
        let mut script = Script::offered_by(&config(|_| ()));
        let answer = answer(&mut script).payload(payload.clone());
        let error = script.send(answer).unwrap_err();
        assert_eq!(error, ConnectionError::Violation(Violation::WrongAnswer), "{payload:02x?}");
        assert!(is_close(&one(script.read()), Some(Code::PROTOCOL_VIOLATION)));
    }
}

// spec: §6.10
#[test]
fn an_initiator_without_proofs_leaves_a_responder_that_asks_for_one() {
    let mut script = Script::offered_by(&config(|_| ()));
    let payload = cbor(|out| out.map(2)?.str("version")?.u8(1)?.str("next")?.str("proof")?.ok());
    let answer = answer(&mut script).payload(payload);
    assert_eq!(script.send(answer), Err(ConnectionError::ProofRequired));
    assert!(is_close(&one(script.read()), Some(Code::UNAUTHENTICATED)));
}

// spec: §6.2
// spec: §6.7
// spec: §6.8
#[test]
fn hellos_of_the_wrong_shape_are_malformed() {
    let offers = [
        vec![0xf6],
        cbor(|out| out.map(0)?.ok()),
        cbor(|out| out.map(1)?.str("versions")?.array(0)?.ok()),
        cbor(|out| out.map(1)?.str("versions")?.u8(1)?.ok()),
        cbor(|out| out.map(1)?.str("versions")?.array(1)?.str("1")?.ok()),
        cbor(|out| out.map(2)?.str("versions")?.array(1)?.u8(1)?.str("versions")?.array(1)?.u8(1)?.ok()),
        cbor(|out| out.map(2)?.str("versions")?.array(1)?.u8(1)?.u8(7)?.u8(1)?.ok()),
        cbor(|out| out.map(2)?.str("versions")?.array(1)?.u8(1)?.str("agent")?.u8(1)?.ok()),
        cbor(|out| out.map(2)?.str("versions")?.array(1)?.u8(1)?.str("agent")?.str(&"x".repeat(256))?.ok()),
        cbor(|out| out.map(2)?.str("versions")?.array(1)?.u8(1)?.str("caps")?.array(0)?.ok()),
        cbor(|out| {
            out.map(2)?.str("versions")?.array(1)?.u8(1)?;
            out.str("caps")?.map(1)?.str("features")?.str("stream")?.ok()
        }),
        cbor(|out| {
            out.map(2)?.str("versions")?.array(1)?.u8(1)?;
            out.str("limits")?.map(1)?.str("max_calls")?.i8(-1)?.ok()
        }),
        cbor(|out| {
            out.map(2)?.str("versions")?.array(1)?.u8(1)?;
            out.str("limits")?.map(1)?.str("max_message")?.u16(1023)?.ok()
        }),
        cbor(|out| {
            out.map(2)?.str("versions")?.array(1)?.u8(1)?;
            out.str("limits")?.map(2)?.str("max_calls")?.u8(1)?.str("max_calls")?.u8(1)?.ok()
        }),
    ];
    for payload in offers {
        let (error, told) = incoming(&offer_with(payload.clone()).frame()).unwrap_err();
        assert!(matches!(error, ConnectionError::Hello(_)), "{payload:02x?}: {error:?}");
        assert!(is_close(&one(told), Some(Code::MALFORMED)), "{payload:02x?}");
    }
    let with_target = Msg { target: Some("x".into()), ..offer() };
    let with_error = Msg { error: Some(Error::unknown("")), payload: vec![0xf6], ..offer() };
    for hello in [with_target, with_error] {
        let (error, told) = incoming(&hello.frame()).unwrap_err();
        assert_eq!(error.code(), Code::MALFORMED);
        assert!(is_close(&one(told), Some(Code::MALFORMED)), "{hello:?}");
    }
}

// spec: §6.2
#[test]
fn maps_and_arrays_of_indefinite_length_are_taken_in_hellos_but_not_such_strings() {
    let offer = cbor(|out| {
        out.begin_map()?.str("versions")?.begin_array()?.u8(1)?.end()?;
        out.str("x")?.begin_str()?.str("y")?.end()?;
        out.str("limits")?.begin_map()?.str("max_calls")?.u8(3)?.end()?;
        out.str("caps")?.begin_map()?.str("features")?.begin_array()?.str("stream")?.end()?.end()?.end()?.ok()
    });
    let script = Script::responder_with(&config(|_| ()), offer);
    assert_eq!(script.connection.peer().unwrap().limits.max_calls, 3);
    let strings = [
        cbor(|out| out.map(1)?.begin_str()?.str("versions")?.end()?.array(1)?.u8(1)?.ok()),
        cbor(|out| {
            out.map(2)?.str("versions")?.array(1)?.u8(1)?;
            out.str("agent")?.begin_str()?.str("x")?.end()?.ok()
        }),
        cbor(|out| out.map(2)?.str("versions")?.array(1)?.u8(1)?.str("agent")?.null()?.ok()),
        cbor(|out| {
            out.begin_map()?;
            for n in 0..65 {
                out.str(&n.to_string())?.u8(0)?;
            }
            out.end()?.ok()
        }),
    ];
    for offer in strings {
        let (error, _) = incoming(&offer_with(offer.clone()).frame()).unwrap_err();
        assert_eq!(error.code(), Code::MALFORMED, "{offer:02x?}");
    }
}

// spec: §6.2
#[test]
fn an_answer_without_a_version_is_malformed() {
    let mut script = Script::offered_by(&config(|_| ()));
    let answer = answer(&mut script).payload(cbor(|out| out.map(0)?.ok()));
    assert_eq!(script.send(answer), Err(ConnectionError::Hello(HelloError::Missing("version"))));
    assert!(is_close(&one(script.read()), Some(Code::MALFORMED)));
}

// spec: §6.7
#[test]
fn every_limit_is_told_and_taken() {
    let limits = Limits {
        max_message: 2_001,
        max_calls: 2,
        max_streams: 3,
        stream_window: 4,
        max_subscriptions: 5,
        max_inflight: 6,
        heartbeat_ms: 7_000,
    };
    let config = config(|c| c.limits = limits);
    let mut pair = Pair::new(&config, &config, 3);
    pair.drive();
    assert_eq!([0, 1].map(|end| pair.side(end).peer().unwrap().limits), [limits; 2]);
}

// spec: §6.7
// spec: §1.4
#[test]
fn limits_beyond_what_can_be_are_cut_and_not_refused() {
    let offer = cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?;
        out.str("limits")?.map(4)?.str("max_message")?.u64(u64::MAX)?;
        out.str("stream_window")?.u64(1 << 31)?;
        out.str("max_calls")?.u64(u64::MAX)?.str("heartbeat_ms")?.u64(u64::MAX)?.ok()
    });
    let script = Script::responder_with(&config(|_| ()), offer);
    let limits = script.connection.peer().unwrap().limits;
    assert_eq!(limits.max_message, u32::MAX - 64);
    assert_eq!((limits.max_calls, limits.heartbeat_ms), (u32::MAX, u32::MAX));
    assert_eq!(limits.stream_window, (1 << 31) - 1);
}

// spec: §6.7
#[test]
fn own_settings_outside_the_range_are_announced_within_it() {
    let config = config(|c| {
        c.agent = Some("é".repeat(200));
        c.limits.max_message = 10;
        c.limits.heartbeat_ms = 1;
    });
    let mut pair = Pair::new(&config, &config, 3);
    pair.drive();
    for end in [0, 1] {
        let peer = pair.side(end).peer().unwrap();
        assert_eq!(peer.agent.as_deref(), Some(&*"é".repeat(127)), "255 bytes, cut at a character");
        assert_eq!((peer.limits.max_message, peer.limits.heartbeat_ms), (1024, 100));
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
