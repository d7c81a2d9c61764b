//! A peer that makes work, or that does not read.

use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{Code, ConnectionError, Error, Violation};

use crate::support::{Msg, Script, config, id, is_close, ms, one, requests};

const FLOOD: ConnectionError = ConnectionError::Violation(Violation::Flood);

/// Opens and cancels a call; the handler finishes at once.
fn reset(script: &mut Script) -> Result<(), ConnectionError> {
    let call = Msg::opening(Kind::Call, script.id(), "m");
    script.send(call.clone())?;
    let request = one(requests(&script.events())).id;
    script.follow(call.id, Some(verb::CANCEL))?;
    script.connection.respond(request, Err(Error::cancelled(""))).unwrap_err();
    script.events();
    Ok(())
}

// spec: §10.7
// spec: §5.17
// limit: cancels and rejected openings
#[test]
fn cancels_are_borne_up_to_the_budget_and_then_fatal() {
    let mut script = Script::responder(&config(|_| ()));
    for _ in 0..10_000 {
        reset(&mut script).unwrap();
    }
    assert_eq!(reset(&mut script), Err(FLOOD));
    let close = one(script.read());
    assert!(is_close(&close, Some(Code::RESOURCE_EXHAUSTED)));
    assert!(close.error.unwrap().message.contains("too many cancelled or rejected openings"));
    script.events();
    assert!(script.connection.is_closed());
}

// spec: §10.7
#[test]
fn the_budget_refills_with_time() {
    let mut script = Script::responder(&config(|c| {
        c.misuse_capacity = 1000;
        c.misuse_per_second = 200;
    }));
    for _ in 0..1000 {
        reset(&mut script).unwrap();
    }
    // For as long as one likes, at the rate that is borne.
    for _ in 0..3000 {
        script.wait(ms(5)).unwrap();
        reset(&mut script).unwrap();
    }
    script.wait(ms(4)).unwrap();
    assert_eq!(reset(&mut script), Err(FLOOD));
}

// spec: §10.7
#[test]
fn late_cancels_and_refused_openings_of_all_kinds_take_from_the_same_budget() {
    let messages: [fn(u64) -> Msg; 6] = [
        |n| Msg::continuation(Kind::Call, id(2 * n), id(2 * n + 1)).verb(verb::CANCEL),
        |n| Msg::continuation(Kind::Stream, id(2 * n), id(2 * n + 1)).verb(verb::CANCEL),
        |n| Msg::opening(Kind::Stream, id(n), "s"),
        |n| Msg::opening(Kind::Subscribe, id(n), "s"),
        |n| Msg::opening(Kind::Message, id(n), "s").meta_uint("qos", 1),
        |n| Msg::opening(Kind::Call, id(n), "s").meta_uint("timeout_ms", 0),
    ];
    for message in messages {
        let mut script = Script::responder(&config(|c| c.misuse_capacity = 10));
        for n in 1..=10 {
            script.send(message(n)).unwrap();
        }
        assert_eq!(script.send(message(11)), Err(FLOOD), "{:?}", message(11));
        assert!(is_close(&one(script.read()), Some(Code::RESOURCE_EXHAUSTED)));
    }
}

// spec: §10.7
#[test]
fn requests_over_the_limit_take_from_the_budget() {
    let mut script = Script::responder(&config(|c| {
        c.misuse_capacity = 10;
        c.limits.max_calls = 0;
    }));
    for _ in 0..10 {
        script.call("m");
        assert_eq!(one(script.read()).code(), Code::RESOURCE_EXHAUSTED);
    }
    let call = Msg::opening(Kind::Call, script.id(), "m");
    assert_eq!(script.send(call), Err(FLOOD));
}

// spec: §10.7
// spec: §5.16
#[test]
fn what_the_application_refuses_takes_from_the_budget_too() {
    let mut script = Script::responder(&config(|c| c.misuse_capacity = 10));
    let unknown = || Error::unimplemented("no such method");
    for n in 1..=11 {
        let call = script.call("nothing");
        let request = one(requests(&script.events())).id;
        let refused = script.connection.refuse(script.now, request, unknown());
        if n <= 10 {
            assert_eq!(refused, Ok(()));
            let answer = one(script.read());
            assert_eq!((answer.reference, answer.code()), (Some(call), Code::UNIMPLEMENTED));
            assert_eq!(answer.error.unwrap().processed, Some(false));
        } else {
            assert_eq!(refused, Err(FLOOD));
            assert!(is_close(&one(script.read()), Some(Code::RESOURCE_EXHAUSTED)));
        }
        assert_eq!(script.connection.stats().requests_running, 0);
    }
    let mut script = Script::responder(&config(|c| c.misuse_capacity = 1));
    let call = script.call("nothing");
    let request = one(requests(&script.events())).id;
    script.follow(call, Some(verb::CANCEL)).unwrap();
    assert_eq!(script.connection.refuse(script.now, request, unknown()), Ok(()), "the cancel was charged");
    assert_eq!(script.connection.stats().requests_running, 0);
}

// spec: §17.2
// spec: §15.3
#[test]
fn refusals_for_a_peer_that_never_reads_are_bounded_however_slowly_it_asks() {
    let mut script = Script::responder(&config(|c| c.misuse_capacity = 10));
    for n in 1..=10 {
        script.wait(ms(10_000)).unwrap();
        script.send(Msg::opening(Kind::Stream, id(n), "s")).unwrap();
    }
    script.wait(ms(10_000)).unwrap();
    assert_eq!(script.send(Msg::opening(Kind::Stream, id(11), "s")), Err(FLOOD));
}

// spec: §10.6
// spec: §17.2
#[test]
fn responses_for_a_peer_that_never_reads_keep_their_slots() {
    let mut script = Script::responder(&config(|c| c.limits.max_calls = 3));
    for _ in 0..3 {
        script.call("m");
    }
    for request in requests(&script.events()) {
        script.connection.respond(request.id, Err(Error::internal("x"))).unwrap();
    }
    assert_eq!(script.connection.stats().requests_running, 3);
    script.call("m");
    assert!(script.events().is_empty(), "there is no slot before an answer has left");
    assert_eq!(script.read().len(), 4);
    assert_eq!(script.connection.stats().requests_running, 0);
}

// spec: §8.3
// spec: §15.3
// limit: unanswered pings kept
#[test]
fn of_the_pings_of_a_peer_that_never_reads_the_latest_are_answered() {
    let mut script = Script::responder(&config(|_| ()));
    for n in 1..=1000 {
        script.send(Msg::opening(Kind::Control, id(n), verb::PING)).unwrap();
    }
    let answers = script.read();
    let expected = (937..=1000).map(|n| Some(id(n))).collect::<Vec<_>>();
    assert_eq!(answers.iter().map(|answer| answer.reference).collect::<Vec<_>>(), expected);
    assert!(answers.iter().all(|answer| answer.kind == Kind::Control && answer.target.is_none()));
}

// spec: §17.2
#[test]
fn what_costs_nothing_that_lasts_is_borne_without_end() {
    let mut script = Script::responder(&config(|_| ()));
    let call = script.call("m");
    let request = one(requests(&script.events())).id;
    for n in 0..24_000u64 {
        let fresh = id(1_000_000 + n);
        let message = match n % 6 {
            5 => Msg::continuation(Kind::Subscribe, fresh, id(7)).verb(verb::CANCEL),
            0 => Msg::opening(Kind::Control, fresh, verb::PING),
            1 => Msg::continuation(Kind::Call, fresh, call).verb(verb::UPDATE),
            2 => Msg::continuation(Kind::Call, fresh, call).verb("sing"),
            3 => Msg::continuation(Kind::Call, fresh, id(7)),
            _ => Msg::opening(Kind::Message, fresh, "topic"),
        };
        script.send(message).unwrap();
    }
    let stats = script.connection.stats();
    assert_eq!((stats.dropped, stats.updates_dropped, stats.refused), (16_000, 4_000 - 64, 0));
    assert_eq!(script.events().len(), 1);
    let held = std::iter::from_fn(|| script.connection.poll_request_update(request).unwrap()).count();
    assert_eq!(held, 64);
}

// spec: §10.6
#[test]
fn a_peer_that_cancels_what_runs_gets_no_more_work_done_than_it_has_slots() {
    let mut script = Script::responder(&config(|c| c.limits.max_calls = 5));
    let mut started = 0;
    for _ in 0..100 {
        let call = script.call("slow");
        started += requests(&script.events()).len();
        script.follow(call, Some(verb::CANCEL)).unwrap();
        script.read();
    }
    assert_eq!((started, script.connection.stats().requests_running), (5, 5));
}
