//! The time a call may take, as both sides count it.

use std::time::Duration;

use fluxar_proto::message::{Kind, Meta, key, verb};
use fluxar_proto::{Code, Payload, RespondError, Withdrawn};

use crate::support::{
    A, B, Msg, Pair, Script, at, cbor, config, ms, one, options, requests, uint, withdrawn,
};

/// Calls the connection with a `timeout_ms`.
fn call_with_timeout(script: &mut Script, timeout_ms: u64) -> Msg {
    let call = Msg::opening(Kind::Call, script.id(), "m").meta_uint(key::TIMEOUT_MS, timeout_ms);
    script.send(call.clone()).unwrap();
    call
}

fn timeout_of(message: &Msg) -> Option<u64> {
    Meta::decode(&message.meta).unwrap().get_u64(key::TIMEOUT_MS)
}

// spec: §10.5
// spec: §10.11
#[test]
fn at_the_deadline_the_callee_answers_for_its_handler() {
    let mut script = Script::responder(&config(|_| ()));
    script.wait(ms(1000)).unwrap();
    let call = call_with_timeout(&mut script, 250);
    let request = one(requests(&script.events()));
    assert_eq!(request.deadline, Some(at(1250)));
    assert_eq!(script.connection.poll_timeout(), Some(at(1250)));
    script.wait(ms(249)).unwrap();
    assert!(script.read().is_empty() && script.connection.is_wanted(request.id));

    script.wait(ms(1)).unwrap();
    assert_eq!(one(withdrawn(&script.events())), (request.id, Withdrawn::DeadlineExceeded));
    assert!(!script.connection.is_wanted(request.id));
    let answer = one(script.read());
    assert_eq!((answer.kind, answer.reference, &answer.target), (Kind::Call, Some(call.id), &None));
    assert_eq!((answer.code(), answer.error.unwrap().processed), (Code::DEADLINE_EXCEEDED, None));

    assert_eq!(script.connection.stats().requests_running, 1, "the handler has not finished");
    assert_eq!(script.connection.respond(request.id, Ok(uint(1))), Err(RespondError::Gone));
    assert_eq!(script.connection.stats().requests_running, 0);
    assert!(script.read().is_empty(), "there is one response only");
}

// spec: §10.5
#[test]
fn a_handler_that_finishes_after_the_deadline_but_before_the_answer_left_changes_nothing() {
    let mut script = Script::responder(&config(|_| ()));
    call_with_timeout(&mut script, 10);
    let request = one(requests(&script.events())).id;
    script.wait(ms(10)).unwrap();
    script.follow(request.wire_id(), Some(verb::UPDATE)).unwrap();
    assert_eq!(script.connection.stats().dropped, 1, "nobody takes it any more");
    assert_eq!(script.connection.respond(request, Ok(uint(1))), Err(RespondError::Gone));
    assert_eq!(script.connection.respond(request, Ok(uint(1))), Err(RespondError::Gone));
    assert_eq!(one(script.read()).code(), Code::DEADLINE_EXCEEDED);
    assert_eq!(script.connection.stats().requests_running, 0);
}

// spec: §10.5
// spec: §10.2
#[test]
fn a_response_before_the_deadline_stands_even_if_it_waits_beyond_it() {
    let mut script = Script::responder(&config(|_| ()));
    call_with_timeout(&mut script, 10);
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(uint(5))).unwrap();
    script.wait(ms(20)).unwrap();
    let answer = one(script.read());
    assert_eq!((answer.error, &answer.payload[..]), (None, uint(5).as_bytes()));
    assert!(script.events().is_empty());
}

// spec: §10.5
#[test]
fn no_time_left_is_answered_at_once_and_reaches_no_handler() {
    let mut script = Script::responder(&config(|_| ()));
    let call = call_with_timeout(&mut script, 0);
    let answer = one(script.read());
    assert_eq!((answer.reference, answer.code()), (Some(call.id), Code::DEADLINE_EXCEEDED));
    assert_eq!(answer.error.unwrap().processed, Some(false));
    assert!(script.events().is_empty());
    let stats = script.connection.stats();
    assert_eq!((stats.requests_running, stats.calls_served, stats.refused), (0, 0, 1));
}

// spec: §10.5
#[test]
fn a_longer_time_than_the_callees_own_is_cut_to_it() {
    for timeout_ms in [u64::MAX, u64::MAX / 1000, 24 * 3600 * 1000 + 1] {
        let mut script = Script::responder(&config(|c| c.max_deadline = Some(ms(24 * 3600 * 1000))));
        call_with_timeout(&mut script, timeout_ms);
        let request = one(requests(&script.events()));
        assert_eq!(request.deadline, Some(at(24 * 3600 * 1000)), "{timeout_ms}");
    }
    let mut script = Script::responder(&config(|c| c.max_deadline = Some(ms(70))));
    call_with_timeout(&mut script, 71);
    call_with_timeout(&mut script, 69);
    let deadlines = requests(&script.events()).iter().map(|r| r.deadline.unwrap()).collect::<Vec<_>>();
    assert_eq!(deadlines, [at(70), at(69)]);
    script.call("m");
    let request = one(requests(&script.events()));
    assert_eq!(request.deadline, Some(script.now + ms(70)), "also where the caller sets none");
}

// spec: §5.10
#[test]
fn a_time_that_is_no_number_is_an_invalid_argument() {
    let values =
        [cbor(|out| out.i8(-1)?.ok()), cbor(|out| out.str("1")?.ok()), cbor(|out| out.f64(1.0)?.ok())];
    for value in values {
        let mut script = Script::responder(&config(|_| ()));
        let mut call = Msg::opening(Kind::Call, script.id(), "m");
        call.meta = cbor(|out| out.map(1)?.str(key::TIMEOUT_MS)?.ok());
        call.meta.extend_from_slice(&value);
        script.send(call).unwrap();
        let answer = one(script.read());
        assert_eq!((answer.code(), answer.error.unwrap().processed), (Code::INVALID_ARGUMENT, Some(false)));
        assert!(script.events().is_empty());
    }
}

// spec: §10.5
// spec: §10.10
#[test]
fn at_the_deadline_the_caller_ends_the_call_and_cancels() {
    let mut script = Script::initiator(&config(|_| ()));
    let call = script.connection.call(script.now, "m", uint(1), options().with_timeout(ms(40))).unwrap();
    let request = one(script.read());
    assert_eq!(timeout_of(&request), Some(40));
    script.wait(ms(39)).unwrap();
    assert!(script.events().is_empty());
    script.wait(ms(1)).unwrap();
    let (ended, result) = one(script.outcomes());
    let error = result.unwrap_err();
    assert_eq!((ended, error.code, error.processed), (call, Code::DEADLINE_EXCEEDED, None));
    let cancel = one(script.read());
    assert_eq!((cancel.reference, cancel.target.as_deref()), (Some(request.id), Some(verb::CANCEL)));

    script.follow(request.id, None).unwrap();
    assert!(script.events().is_empty(), "the callee's answer comes too late");
    assert_eq!(script.connection.stats().dropped, 1);
}

// spec: §10.5
// spec: §1.4
#[test]
fn time_spent_in_the_queue_counts() {
    let mut script = Script::initiator(&config(|_| ()));
    script.connection.call(script.now, "m", uint(1), options().with_timeout(ms(100))).unwrap();
    script.wait(Duration::from_micros(30_500)).unwrap();
    let sent = one(script.read());
    assert_eq!(timeout_of(&sent), Some(70), "69.5 ms, rounded up");
    script.follow(sent.id, None).unwrap();
    assert_eq!(script.outcomes().len(), 1);

    let call = script.connection.call(script.now, "m", uint(1), options().with_timeout(ms(100))).unwrap();
    script.wait(ms(100)).unwrap();
    let (ended, result) = one(script.outcomes());
    let error = result.unwrap_err();
    assert_eq!((ended, error.code, error.processed), (call, Code::DEADLINE_EXCEEDED, Some(false)));
    assert!(!script.connection.wants_transmit() || script.read().is_empty(), "nothing is sent");
    assert_eq!(script.connection.stats().calls_in_flight, 0);
}

// spec: §10.5
#[test]
fn a_call_whose_time_is_up_is_not_sent_even_if_the_timer_is_late() {
    let mut script = Script::initiator(&config(|_| ()));
    let late = script.connection.call(script.now, "late", uint(1), options().with_timeout(ms(5))).unwrap();
    script.connection.call(script.now, "m", uint(1), options()).unwrap();
    let none = script.connection.call(script.now, "none", uint(1), options().with_timeout(ms(0))).unwrap();
    script.now = at(5);
    assert_eq!(one(script.read()).target.as_deref(), Some("m"));
    let ended = script.outcomes();
    assert_eq!(ended.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [late, none]);
    assert!(
        ended.iter().all(|(_, result)| result.as_ref().is_err_and(|error| error.processed == Some(false)))
    );
    script.connection.handle_timeout(script.now).unwrap();
    assert!(script.events().is_empty() && script.read().is_empty());
}

// spec: §10.5
#[test]
fn the_longest_time_there_is_overflows_nothing() {
    let mut pair = Pair::established(&config(|c| c.limits.heartbeat_ms = 0));
    let now = pair.now;
    let call = pair.a().call(now, "m", uint(1), options().with_timeout(Duration::MAX)).unwrap();
    pair.drive();
    let request = one(requests(&pair.events(B)));
    assert!(request.deadline > Some(pair.now + Duration::from_secs(500_000 * 365 * 24 * 3600)));
    pair.b().respond(request.id, Ok(Payload::null())).unwrap();
    pair.drive();
    assert_eq!(one(pair.outcomes(A)), (call, Ok(Payload::null())));
    assert_eq!(pair.a().poll_timeout(), None, "a call that is over has no timer");
    assert_eq!(pair.b().poll_timeout(), None);
}

// spec: §10.5
#[test]
fn both_sides_give_up_at_their_own_time_and_what_crosses_is_dropped() {
    let mut pair = Pair::established(&config(|_| ()));
    pair.delay = ms(5);
    let now = pair.now;
    let call = pair.a().call(now, "m", uint(1), options().with_timeout(ms(50))).unwrap();
    pair.wait(ms(200));
    let (ended, result) = one(pair.outcomes(A));
    assert_eq!((ended, result.unwrap_err().code), (call, Code::DEADLINE_EXCEEDED));
    let events = pair.events(B);
    let request = one(requests(&events)).id;
    let (gone, why) = one(withdrawn(&events));
    assert_eq!(gone, request);
    assert!(matches!(why, Withdrawn::DeadlineExceeded | Withdrawn::Cancelled));
    assert_eq!(pair.b().respond(request, Ok(uint(1))), Err(RespondError::Gone));
    pair.drive();
    assert_eq!((pair.a().stats().calls_in_flight, pair.b().stats().requests_running), (0, 0));
    assert!(pair.ends.iter().all(|end| end.error.is_none()));
}
