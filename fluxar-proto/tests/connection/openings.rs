//! Openings and continuations of types that are not built or not negotiated, and messages of the wrong shape.

use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::{CallEvent, Code, ConnectionError, Error, Event, Violation};

use crate::support::{Msg, Script, cbor, config, id, is_close, one, options, requests, uint};

const TYPES: [Kind; 4] = [Kind::Stream, Kind::Subscribe, Kind::Message, Kind::Control];

// spec: §5.16
// spec: §6.6
#[test]
fn openings_of_what_is_not_negotiated_are_answered_in_the_form_of_their_type() {
    let cases = [
        (Msg::opening(Kind::Stream, id(1), "s"), Some(verb::END)),
        (Msg::opening(Kind::Subscribe, id(1), "s"), None),
        (Msg::opening(Kind::Message, id(1), "s").meta_uint(key::QOS, 1), Some(verb::NACK)),
        (Msg::opening(Kind::Message, id(1), "s").meta_uint(key::QOS, 2), Some(verb::NACK)),
        (Msg::opening(Kind::Control, id(1), verb::AUTH), None),
        (Msg::opening(Kind::Control, id(1), "dance"), None),
    ];
    for (opening, target) in cases {
        let mut script = Script::responder(&config(|_| ()));
        script.send(opening.clone()).unwrap();
        let answer = one(script.read());
        assert_eq!((answer.kind, answer.reference), (opening.kind, Some(id(1))), "{opening:?}");
        assert_eq!((answer.target.as_deref(), answer.code()), (target, Code::UNIMPLEMENTED), "{opening:?}");
        assert_eq!((answer.error.unwrap().processed, &answer.payload[..]), (Some(false), &[0xf6][..]));
        assert_eq!(script.connection.stats().refused, 1);
        assert!(script.events().is_empty());
    }
}

// spec: §5.16
#[test]
fn a_publication_without_an_answer_is_dropped() {
    let mut script = Script::responder(&config(|_| ()));
    script.send(Msg::opening(Kind::Message, id(1), "topic")).unwrap();
    script.send(Msg::opening(Kind::Message, id(2), "topic").meta_uint(key::QOS, 0)).unwrap();
    assert!(script.read().is_empty());
    assert_eq!(script.connection.stats().dropped, 2);
}

// spec: §8.2
#[test]
fn control_messages_without_an_answer_get_none() {
    let mut script = Script::responder(&config(|_| ()));
    script.send(Msg::opening(Kind::Control, id(1), verb::HANDLED).payload(uint(5))).unwrap();
    script.send(Msg::opening(Kind::Control, id(2), verb::REKEY)).unwrap();
    assert!(script.read().is_empty());
    assert_eq!(script.connection.stats().dropped, 2);
}

#[track_caller]
fn fatal(mut script: Script, message: Msg, violation: Violation, code: Code) {
    let error = script.send(message).unwrap_err();
    assert_eq!((error.code(), error), (code, ConnectionError::Violation(violation)));
    assert!(is_close(&one(script.read()), Some(code)));
    assert!(script.connection.is_closed());
}

// spec: §5.14
#[test]
fn openings_of_the_wrong_shape_are_malformed() {
    let start = || Script::responder(&config(|_| ()));
    for kind in TYPES.into_iter().chain([Kind::Call]) {
        fatal(start(), Msg::bare(kind, id(1)), Violation::MissingTarget, Code::MALFORMED);
    }
    let unsubscribe = Msg::opening(Kind::Unsubscribe, id(1), "x");
    fatal(start(), unsubscribe, Violation::MissingRef, Code::MALFORMED);
    fatal(start(), Msg::bare(Kind::Unsubscribe, id(1)), Violation::MissingRef, Code::MALFORMED);
}

// spec: §5.12
#[test]
fn an_error_where_none_belongs_is_malformed() {
    let start = || Script::responder(&config(|_| ()));
    for kind in TYPES.into_iter().chain([Kind::Call]) {
        let opening = Msg::opening(kind, id(1), "x").error(Error::unknown(""));
        fatal(start(), opening, Violation::MisplacedError, Code::MALFORMED);
    }
    let ping = Msg::opening(Kind::Control, id(1), verb::PING).error(Error::unknown(""));
    fatal(start(), ping, Violation::MisplacedError, Code::MALFORMED);
    for verb in [verb::UPDATE, verb::CANCEL] {
        let mut script = start();
        let call = script.call("m");
        let message = Msg::continuation(Kind::Call, id(50), call).verb(verb).error(Error::unknown(""));
        fatal(script, message, Violation::MisplacedError, Code::MALFORMED);
    }
    let mut script = Script::initiator(&config(|_| ()));
    let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
    script.read();
    let update = Msg::continuation(Kind::Call, id(50), call.wire_id()).verb(verb::UPDATE);
    fatal(script, update.error(Error::unknown("")), Violation::MisplacedError, Code::MALFORMED);
}

// spec: §5.15
#[test]
fn an_error_on_what_is_dropped_anyway_hurts_nobody() {
    let mut script = Script::responder(&config(|_| ()));
    let message = Msg::continuation(Kind::Call, id(1), id(2)).verb(verb::UPDATE).error(Error::unknown(""));
    script.send(message).unwrap();
    assert_eq!(script.connection.stats().dropped, 1);
}

// spec: §5.1
// spec: §5.17
#[test]
fn bytes_that_are_no_message_are_malformed_on_both_sides() {
    let call = Msg::opening(Kind::Call, id(1), "m").body();
    let with = |at: usize, byte: u8| {
        let mut body = call.clone();
        body[at] = byte;
        body
    };
    let bodies = [
        vec![0],
        vec![0x87],
        with(0, 0x86),
        with(1, 0),
        with(1, 8),
        with(2, 0x4f),
        with(19, 0xf7),
        call[..call.len() - 1].to_vec(),
        [&call[..], &[0]].concat(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for body in bodies {
        for start in [Script::responder, Script::initiator] {
            let mut script = start(&config(|_| ()));
            let error = script.send_body(&body).unwrap_err();
            assert!(matches!(error, ConnectionError::Malformed(_)), "{body:02x?}: {error:?}");
            assert!(is_close(&one(script.read()), Some(Code::MALFORMED)));
        }
    }
}

// spec: §4.2
#[test]
fn a_form_that_was_not_agreed_upon_is_malformed() {
    for first in [0x28, 0x1f, 0x00, 0x86, 0x88, 0x98, 0xff] {
        let mut body = Msg::opening(Kind::Call, id(1), "m").body();
        body[0] = first;
        let mut script = Script::initiator(&config(|_| ()));
        assert_eq!(script.send_body(&body).unwrap_err().code(), Code::MALFORMED, "{first:#x}");
        assert!(is_close(&one(script.read()), Some(Code::MALFORMED)));
    }
}

// spec: §5.9
// spec: §5.2
#[test]
fn unknown_metadata_is_ignored_and_long_forms_are_taken() {
    let mut script = Script::responder(&config(|_| ()));
    let mut call = Msg::opening(Kind::Call, script.id(), "m");
    call.meta = cbor(|out| out.map(2)?.str("qos")?.str("best")?.str("zzz")?.map(0)?.ok());
    script.send(call.clone()).unwrap();
    assert_eq!(script.events().len(), 1);

    // type 2 as a 16-bit integer, the id's length in a byte of its own
    let mut body = vec![0x87, 0x19, 0, 2, 0x58, 16];
    body.extend_from_slice(id(9).as_bytes());
    body.extend_from_slice(&[0xf6, 0x78, 1, b'm', 0xa0, 0x9f, 0xff, 0xf6]);
    script.send_body(&body).unwrap();
    let request = one(requests(&script.events()));
    assert_eq!((&*request.method, request.payload.as_bytes()), ("m", &[0x9f, 0xff][..]));
}

// spec: §5.5
// spec: §10.4
#[test]
fn the_end_of_a_cancelled_request_does_not_touch_a_later_one_with_its_id() {
    let mut script = Script::responder(&config(|_| ()));
    let first = script.call("m");
    let running = one(requests(&script.events())).id;
    script.follow(first, Some(verb::CANCEL)).unwrap();
    script.events();
    script.send(Msg::opening(Kind::Call, first, "m")).unwrap();
    let second = one(requests(&script.events())).id;
    assert!(script.connection.respond(running, Ok(uint(1))).is_err(), "nobody waits for it");

    script.follow(first, Some(verb::CANCEL)).unwrap();
    let events = script.events();
    assert!(
        matches!(&events[..], [Event::Call(CallEvent::Withdrawn(request, _))] if *request == second),
        "{events:?}"
    );
}

// spec: §9.3
#[test]
fn of_a_lane_that_there_is_not_nothing_was_handled() {
    let resumable = || {
        let offer = cbor(|out| {
            out.map(2)?.str("versions")?.array(1)?.u8(1)?;
            out.str("caps")?.map(1)?.str("features")?.array(1)?.str("resume")?.ok()
        });
        Script::responder_with(&config(|config| config.resume = true), offer)
    };
    let handled = |numbers: &[u64]| {
        let payload = cbor(|out| {
            out.array(numbers.len() as u64)?;
            for number in numbers {
                out.u64(*number)?;
            }
            out.ok()
        });
        Msg::opening(Kind::Control, id(1), verb::HANDLED).payload(payload)
    };
    let mut script = resumable();
    script.send(handled(&[4, 0])).unwrap();
    assert!(script.read().is_empty());
    for numbers in [&[4, 1][..], &[0, 0]] {
        fatal(resumable(), handled(numbers), Violation::WrongCount, Code::PROTOCOL_VIOLATION);
    }
    for numbers in [&[][..], &[4], &[4, 0, 0]] {
        fatal(resumable(), handled(numbers), Violation::BadPayload(id(1)), Code::MALFORMED);
    }
}
