//! What stands in offers and answers.

use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{Code, ConnectionError, Error, HelloError, Limits};

use crate::support::{
    Msg, Pair, Script, answer, cbor, config, id, incoming, is_close, offer, offer_with, one,
};

// spec: §6.3
// spec: §6.7
// spec: §5.14
#[test]
fn an_offer_holds_what_differs_from_the_defaults() {
    let config = config(|c| {
        c.agent = None;
        (c.stream, c.pubsub) = (true, false);
        c.limits = Limits { max_calls: 3, ..Limits::ABSENT };
    });
    let offer = one(Script::offered_by(&config).read());
    assert_eq!((offer.kind, offer.reference, &offer.target, offer.meta.len()), (Kind::Hello, None, &None, 0));
    let expected = cbor(|out| {
        out.map(3)?.str("versions")?.array(1)?.u8(1)?;
        out.str("caps")?.map(1)?.str("features")?.array(1)?.str("stream")?;
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
    assert_eq!(peer.features, ["stream"], "what is not known is not chosen");
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
