//! The limits that hold for everybody (§15.2): the last that is within one passes, and the first beyond it does not.

use fluxar_proto::frame;
use fluxar_proto::message::Kind;
use fluxar_proto::{Code, ConnectionError, Overflow, PubSubEvent, QueueLimits, Timeout};

use crate::support::pubsub::{publication, requests as subscriptions};
use crate::support::{Msg, Script, cbor, config, id, ms, one, requests};

/// The encoded null.
const NULL: &[u8] = &[0xf6];

/// The body of a call, of parts that are encoded already.
fn call(n: u64, target: &str, meta: &[u8], payload: &[u8], error: &[u8]) -> Vec<u8> {
    let mut body = cbor(|out| out.array(7)?.u8(2)?.bytes(id(n).as_bytes())?.null()?.str(target)?.ok());
    for part in [meta, payload, error] {
        body.extend_from_slice(part);
    }
    body
}

/// A map of so many keys.
fn map(keys: usize) -> Vec<u8> {
    cbor(|out| {
        out.map(keys as u64)?;
        (0..keys).try_for_each(|key| out.str(&format!("k{key:02}"))?.null()?.ok())
    })
}

/// An array in an array, so deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut item = vec![0x81; depth - 1];
    item.push(0x80);
    item
}

fn start() -> Script {
    Script::responder(&config(|config| config.limits.max_message = 4_096))
}

/// The first body is taken, and the second one ends the connection so.
#[track_caller]
fn check(within: &[u8], beyond: &[u8], code: Code) {
    let mut script = start();
    script.send_body(within).unwrap();
    assert!(script.connection.error().is_none());
    let error = start().send_body(beyond).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
}

// spec: §15.2, §3.3
// limit: frame, afterwards
#[test]
fn a_frame_may_be_64_bytes_longer_than_a_message_as_far_as_its_length_tells() {
    for (len, refused) in [(4_096 + 64, false), (4_096 + 65, true)] {
        let taken = start().send_bytes(&frame::prefix(len));
        assert_eq!(taken.map_err(|error| error.code()).err(), refused.then_some(Code::MESSAGE_TOO_LARGE));
    }
    // A message that long is too long all the same, where nothing is sealed.
    let error = start().send_body(&vec![0; 4_097]).unwrap_err();
    assert_eq!(error.code(), Code::MESSAGE_TOO_LARGE);
}

// spec: §15.2, §3.1
// limit: length of a frame, at least
#[test]
fn a_frame_of_nothing_is_malformed() {
    let error = start().send_bytes(&[0, 0, 0, 0]).unwrap_err();
    assert_eq!(error.code(), Code::MALFORMED);
}

// spec: §15.2, §5.8
// limit: target
#[test]
fn a_target_has_255_bytes_at_the_most() {
    let target = |len| call(1, &"x".repeat(len), NULL, NULL, NULL);
    check(&target(255), &target(256), Code::MALFORMED);
}

// spec: §15.2, §5.9, §5.12, §6.2
// limit: keys of meta, error and of each map of a hello
#[test]
fn maps_of_the_protocol_have_64_keys_at_the_most() {
    let meta = |keys| call(1, "m", &map(keys), NULL, NULL);
    check(&meta(64), &meta(65), Code::MALFORMED);
    let error = |keys| {
        let mut body =
            cbor(|out| out.array(7)?.u8(2)?.bytes(id(1).as_bytes())?.bytes(id(2).as_bytes())?.ok());
        body.extend_from_slice(&[0xf6; 3]);
        body.extend_from_slice(&cbor(|out| {
            out.map(keys)?.str("code")?.u8(1)?;
            (1..keys).try_for_each(|key| out.str(&format!("k{key}"))?.null()?.ok())
        }));
        body
    };
    check(&error(64), &error(65), Code::MALFORMED);
}

// spec: §15.2, §5.3
// limit: depth of payload, meta values, error.data
#[test]
fn items_nest_64_levels_deep_at_the_most() {
    let payload = |depth| call(1, "m", NULL, &nested(depth), NULL);
    check(&payload(64), &payload(65), Code::MALFORMED);
    let meta = |depth| {
        let mut meta = vec![0xa1, 0x61, b'k'];
        meta.extend_from_slice(&nested(depth));
        call(1, "m", &meta, NULL, NULL)
    };
    check(&meta(64), &meta(65), Code::MALFORMED);
}

// spec: §15.2, §5.12
// limit: error.code
#[test]
fn codes_lie_between_1_and_2_to_the_32_minus_1() {
    let code = |code: u64| {
        let mut body =
            cbor(|out| out.array(7)?.u8(2)?.bytes(id(1).as_bytes())?.bytes(id(2).as_bytes())?.ok());
        body.extend_from_slice(&[0xf6; 3]);
        body.extend_from_slice(&cbor(|out| out.map(1)?.str("code")?.u64(code)?.ok()));
        body
    };
    check(&code(1), &code(0), Code::MALFORMED);
    check(&code(u32::MAX.into()), &code(1 << 32), Code::MALFORMED);
}

// spec: §15.2, §6.7
// limit: max_message, at least
// limit: agent, PSK id
#[test]
fn a_hello_names_itself_in_255_bytes_and_takes_messages_of_1024() {
    let answer = |agent: usize, max_message: u32| {
        cbor(|out| {
            out.map(3)?.str("version")?.u8(1)?.str("agent")?.str(&"a".repeat(agent))?;
            out.str("limits")?.map(1)?.str("max_message")?.u32(max_message)?.ok()
        })
    };
    for (agent, max_message, refused) in [(255, 1_024, false), (256, 1_024, true), (255, 1_023, true)] {
        let mut script = Script::offered_by(&config(|_| ()));
        let offer = one(script.read());
        let answer = Msg::continuation(Kind::Hello, id(0), offer.id).payload(answer(agent, max_message));
        let code = script.send(answer).err().map(|error| error.code());
        assert_eq!(code, refused.then_some(Code::MALFORMED), "{agent}, {max_message}");
    }
}

// spec: §15.2, §8.4
// limit: heartbeat_ms other than 0, at least
#[test]
fn a_heartbeat_is_never_faster_than_100_ms() {
    let offer = cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?;
        out.str("limits")?.map(1)?.str("heartbeat_ms")?.u8(1)?.ok()
    });
    let mut script = Script::responder_with(&config(|_| ()), offer);
    script.wait(ms(99)).unwrap();
    assert!(script.read().is_empty());
    script.wait(ms(1)).unwrap();
    assert_eq!(one(script.read()).target.as_deref(), Some("ping"));
    let dead = script.wait(ms(200)).unwrap_err();
    assert_eq!(dead, ConnectionError::TimedOut(Timeout::Heartbeat));
}

// spec: §15.3, §10.5
// limit: greatest deadline of a callee
#[test]
fn a_callee_has_a_patience_of_its_own() {
    let mut script = Script::responder(&config(|config| config.max_deadline = Some(ms(500))));
    for timeout in [None, Some(10_000), Some(100)] {
        let request = Msg::opening(Kind::Call, script.id(), "m");
        let request = timeout.map_or(request.clone(), |ms| request.meta_uint("timeout_ms", ms));
        script.send(request).unwrap();
    }
    let began = script.now;
    let deadlines = requests(&script.events()).into_iter().map(|request| request.deadline);
    assert_eq!(deadlines.collect::<Vec<_>>(), [500, 500, 100].map(|wait| Some(began + ms(wait))));
    script.wait(ms(500)).unwrap();
    let answers = script.read();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| answer.code() == Code::DEADLINE_EXCEEDED));
}

// spec: §15.3, §12.7
// limit: publications held for the application
#[test]
fn publications_are_held_within_bounds() {
    let mut script = Script::pubsub(|config| {
        config.held_publications =
            QueueLimits { items: 2, overflow: Overflow::DropOldest, ..QueueLimits::default() };
    });
    for n in 1..=3 {
        script.send(publication(id(n), "a", 0)).unwrap();
    }
    script.send(publication(id(4), "a", 1)).unwrap();
    let nack = one(script.read());
    assert_eq!((nack.reference, nack.code()), (Some(id(4)), Code::RESOURCE_EXHAUSTED));
    assert!(nack.error.unwrap().retry_after_ms.is_some(), "it may come again");
    let held = script.publications().into_iter().map(|publication| publication.id.wire_id());
    assert_eq!(held.collect::<Vec<_>>(), [id(2), id(3)], "the oldest was dropped");
    assert_eq!(script.connection.stats().publications_dropped, 2);
    let events = script.pubsub_events();
    assert!(events.iter().any(|event| matches!(event, PubSubEvent::Publication)));
    assert!(subscriptions(&events).is_empty());
}
