//! What a peer may say per time (§15.4).

use std::time::Duration;

use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::{Code, Config, ConnectionError, Event, Rate, RateAction, Timeout};

use crate::support::pubsub::publication;
use crate::support::{A, B, Msg, Pair, Script, at, blob, cbor, config, id, ms, one, options, requests, uint};

fn refusing(change: impl FnOnce(&mut Config)) -> Script {
    let offer = cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?;
        out.str("caps")?.map(1)?.str("features")?.array(2)?.str("stream")?.str("pubsub")?.ok()
    });
    Script::responder_with(&config(change), offer)
}

fn waiting(change: impl FnOnce(&mut Config)) -> Script {
    refusing(|config| {
        config.rates.action = RateAction::Wait;
        change(config);
    })
}

/// The answer to the last opening refuses it, and says when to come again.
#[track_caller]
fn refused(script: &mut Script) -> (Msg, u64) {
    let answer = one(script.read());
    let error = answer.error.clone().unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    (answer, error.retry_after_ms.unwrap())
}

// spec: §15.4
// limit: what the other side may say per time
#[test]
fn calls_and_streams_beyond_their_rate_are_refused_until_there_is_room() {
    let mut script = refusing(|config| config.rates.calls = Some(Rate::new(3, 10)));
    script.call("m");
    script.call("m");
    script.send(Msg::opening(Kind::Stream, id(50), "s")).unwrap();
    assert!(script.read().is_empty());
    script.call("m");
    let (_, wait) = refused(&mut script);
    assert_eq!(wait, 100);
    script.send(Msg::opening(Kind::Stream, id(51), "s")).unwrap();
    let (answer, wait) = refused(&mut script);
    assert_eq!((answer.target.as_deref(), wait), (Some(verb::END), 100));
    assert_eq!(requests(&script.events()).len(), 2);
    // Other things go on, and what was refused has cost nothing.
    script.send(Msg::opening(Kind::Subscribe, id(52), "a")).unwrap();
    script.wait(ms(100)).unwrap();
    script.call("m");
    assert_eq!(requests(&script.events()).len(), 1);
    assert!(script.read().is_empty());
    assert_eq!(script.connection.stats().refused, 2);
    assert_eq!(script.connection.read_after(), None);
}

// spec: §15.4
#[test]
fn subscriptions_beyond_their_rate_are_refused() {
    let mut script = refusing(|config| config.rates.subscriptions = Some(Rate::new(1, 1)));
    script.send(Msg::opening(Kind::Subscribe, id(61), "a")).unwrap();
    assert!(script.read().is_empty());
    script.send(Msg::opening(Kind::Subscribe, id(62), "a")).unwrap();
    let (answer, wait) = refused(&mut script);
    assert_eq!((answer.kind, answer.reference, wait), (Kind::Subscribe, Some(id(62)), 1_000));
    script.call("m");
    assert_eq!(requests(&script.events()).len(), 1);
}

// spec: §15.4
#[test]
fn messages_and_bytes_beyond_their_rates_cost_openings_and_hold_up_the_rest() {
    for bytes in [false, true] {
        let mut script = refusing(|config| match bytes {
            false => config.rates.messages = Some(Rate::new(4, 10)),
            true => config.rates.bytes = Some(Rate::new(400, 1_000)),
        });
        let call = Msg::opening(Kind::Call, script.id(), "m").payload(blob(80));
        let size = call.body().len() as u64;
        let running = call.id;
        script.send(call).unwrap();
        let publish = |script: &mut Script, qos: u64| {
            let id = script.id();
            let padding = if bytes { blob(75) } else { uint(1) };
            script.send(publication(id, "a", qos).payload(padding)).unwrap();
        };
        publish(&mut script, 1);
        publish(&mut script, 0);
        publish(&mut script, 0);
        assert!(script.read().is_empty());
        if bytes {
            assert!(size * 4 > 400, "{size}");
        } else {
            publish(&mut script, 2);
            let (answer, wait) = refused(&mut script);
            assert_eq!((answer.target.as_deref(), wait), (Some(verb::NACK), 100));
            assert_eq!(script.connection.read_after(), None, "a refusal costs nothing");
        }
        // What nobody waits for, and what continues something, is taken, and what follows has to wait.
        publish(&mut script, 0);
        script.follow(running, Some(verb::UPDATE)).unwrap();
        let until = script.connection.read_after().expect("there is a debt");
        assert_eq!(script.connection.poll_timeout(), Some(until));
        assert_eq!(script.connection.stats().publications, 4);
        script.wait(until - script.now).unwrap();
        assert_eq!(script.connection.read_after(), None);
        let id = script.id();
        script.send(Msg::opening(Kind::Call, id, "m")).unwrap();
        let (_, wait) = refused(&mut script);
        assert!(wait <= 100, "{wait}");
    }
}

// spec: §15.4
// spec: §10.7
#[test]
fn refusals_for_a_rate_use_up_the_budget() {
    let mut script = refusing(|config| {
        config.rates.calls = Some(Rate::new(1, 0));
        (config.misuse_capacity, config.misuse_per_second) = (2, 0);
    });
    for n in 0..3 {
        script.send(Msg::opening(Kind::Call, id(n + 1), "m")).unwrap();
    }
    let error = script.send(Msg::opening(Kind::Call, id(9), "m")).unwrap_err();
    assert_eq!(error.code(), Code::RESOURCE_EXHAUSTED);
}

// spec: §15.4
// spec: §5.14
#[test]
fn a_rate_is_judged_behind_the_shape_and_ahead_of_the_content() {
    let mut script = refusing(|config| config.rates.calls = Some(Rate::new(1, 0)));
    script.call("m");
    script.send(Msg::opening(Kind::Call, id(40), "m").meta_uint(key::TIMEOUT_MS, 0)).unwrap();
    let (_, wait) = refused(&mut script);
    assert!(wait > 1_000_000_000, "never: {wait}");
    let error = script.send(Msg::bare(Kind::Call, id(41))).unwrap_err();
    assert_eq!(error.code(), Code::MALFORMED);
}

// spec: §15.4
#[test]
fn close_and_control_pass_beyond_every_rate() {
    let mut script = refusing(|config| {
        config.rates.messages = Some(Rate::new(1, 0));
        config.rates.bytes = Some(Rate::new(1, 0));
    });
    script.send(Msg::opening(Kind::Control, id(1), verb::PING)).unwrap();
    assert_eq!(one(script.read()).reference, Some(id(1)));
    let closed = script.send(Msg::opening(Kind::Control, id(2), verb::CLOSE)).unwrap_err();
    assert_eq!(closed, ConnectionError::ClosedByPeer(None));
}

// spec: §15.4
#[test]
fn where_it_waits_nothing_is_refused_and_what_is_read_stays_within_the_rate() {
    let mut script = waiting(|config| config.rates.messages = Some(Rate::new(5, 100)));
    let mut frames = Vec::new();
    for n in 0..25 {
        frames.extend_from_slice(&Msg::opening(Kind::Call, id(100 + n), "m").frame());
    }
    script.send_bytes(&frames).unwrap();
    assert_eq!(requests(&script.events()).len(), 5, "the burst");
    assert!(!script.input.is_empty(), "the rest stays");
    for n in 1..=20 {
        let until = script.connection.read_after().expect("more is there");
        assert_eq!(until, at(10 * n), "one each 10 ms");
        script.wait(until - script.now).unwrap();
        script.send_bytes(&[]).unwrap();
        assert_eq!(requests(&script.events()).len(), 1);
    }
    assert!(script.input.is_empty() && script.read().is_empty());
    assert_eq!(script.connection.stats().refused, 0);
}

// spec: §15.4
#[test]
fn bytes_calls_and_subscriptions_wait_too() {
    type Change = fn(&mut Config);
    let changes: [(Change, Kind); 3] = [
        (|config| config.rates.bytes = Some(Rate::new(1, 100)), Kind::Call),
        (|config| config.rates.calls = Some(Rate::new(1, 1)), Kind::Stream),
        (|config| config.rates.subscriptions = Some(Rate::new(1, 1)), Kind::Subscribe),
    ];
    for (change, kind) in changes {
        let mut script = waiting(change);
        script.send(Msg::opening(kind, id(1), "a")).unwrap();
        let until = script.connection.read_after().expect("it is used up");
        assert!(until > at(100));
        script.wait(until - script.now).unwrap();
        script.send(Msg::opening(kind, id(2), "a")).unwrap();
        assert_eq!(script.events().len(), 2, "both were taken");
        assert!(script.read().is_empty());
    }
}

// spec: §15.4
// spec: §8.4
#[test]
fn a_pause_is_no_silence_of_the_peer_and_no_longer_than_the_heartbeat() {
    let mut script = waiting(|config| {
        config.rates.bytes = Some(Rate::new(1, 1));
        config.limits.heartbeat_ms = 1_000;
    });
    // It would take hours.
    script.send(Msg::opening(Kind::Call, id(1), "m").payload(blob(10_000))).unwrap();
    for n in 1..=10 {
        assert_eq!(script.connection.read_after(), Some(at(1_000 * n)));
        script.wait(ms(1_000)).unwrap();
        assert_eq!(script.connection.read_after(), None, "something is read each time");
        script.read();
        script.send(Msg::opening(Kind::Call, id(1 + n), "m")).unwrap();
    }
    assert_eq!(requests(&script.events()).len(), 11);
    // Who says nothing once it is listened to is dead all the same.
    let dead = script.wait(Duration::from_secs(4)).unwrap_err();
    assert_eq!(dead, ConnectionError::TimedOut(Timeout::Heartbeat));
}

// spec: §15.4
#[test]
fn without_a_heartbeat_a_pause_is_bounded_too() {
    let mut script = waiting(|config| {
        config.rates.messages = Some(Rate::new(1, 0));
        config.limits.heartbeat_ms = 0;
    });
    script.call("m");
    assert_eq!(script.connection.read_after(), Some(at(15_000)));
}

// spec: §15.4
#[test]
fn an_honest_pair_with_a_rate_loses_nothing() {
    for action in [RateAction::Refuse, RateAction::Wait] {
        let mut pair = Pair::established(&config(|config| {
            config.rates.messages = Some(Rate::new(1_000, 1_000));
            config.rates.bytes = Some(Rate::new(1 << 20, 1 << 20));
            config.rates.calls = Some(Rate::new(300, 100));
            config.rates.action = action;
        }));
        let mut done = 0;
        for _ in 0..20 {
            let now = pair.now;
            for n in 0..20 {
                pair.a().call(now, "m", uint(n), options()).unwrap();
            }
            pair.drive();
            for request in requests(&pair.events(B)) {
                pair.b().respond(request.id, Ok(request.payload)).unwrap();
            }
            pair.drive();
            done += pair.outcomes(A).iter().filter(|(_, result)| result.is_ok()).count();
            pair.wait(ms(200));
        }
        assert_eq!(done, 400);
        assert!(pair.events(B).iter().all(|event| !matches!(event, Event::Closed(_))));
    }
}
