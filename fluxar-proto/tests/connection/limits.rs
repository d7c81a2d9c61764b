//! What a side takes, and what it does beyond that.

use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{CallError, Code, ConnectionError, Event, Limits, RespondError, UpdateError};

use crate::support::{
    A, B, Msg, Pair, Script, blob, capacities, cbor, config, is_close, ms, one, options, outcomes, requests,
    uint,
};

/// The smallest answer with one limit.
fn answer_with(limit: &str, value: u64) -> Vec<u8> {
    cbor(|out| out.map(2)?.str("version")?.u8(1)?.str("limits")?.map(1)?.str(limit)?.u64(value)?.ok())
}

/// The smallest offer with one limit.
fn offer_with(limit: &str, value: u64) -> Vec<u8> {
    cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?.str("limits")?.map(1)?.str(limit)?.u64(value)?.ok()
    })
}

// spec: §10.6
// spec: §15.1
#[test]
fn a_request_without_a_free_slot_is_refused_and_hurts_nothing_else() {
    let mut script = Script::responder(&config(|c| c.limits.max_calls = 2));
    let calls = [script.call("a"), script.call("b")];
    let refused = script.call("c");
    let answer = one(script.read());
    assert_eq!((answer.reference, answer.code()), (Some(refused), Code::RESOURCE_EXHAUSTED));
    assert_eq!(answer.error.unwrap().processed, Some(false));
    let running = requests(&script.events());
    assert_eq!(running.len(), 2);
    script.connection.respond(running[0].id, Ok(uint(1))).unwrap();
    assert_eq!(one(script.read()).reference, Some(calls[0]));
    script.call("d");
    assert_eq!(requests(&script.events()).len(), 1);
    let stats = script.connection.stats();
    assert_eq!((stats.requests_running, stats.calls_served, stats.refused), (2, 3, 1));
}

// spec: §10.6
#[test]
fn a_slot_is_held_until_the_handler_has_finished_however_the_call_ended() {
    let mut script = Script::responder(&config(|c| c.limits.max_calls = 2));
    let cancelled = script.call("a");
    let mut timed = Msg::opening(Kind::Call, script.id(), "b");
    timed = timed.meta_uint("timeout_ms", 10);
    script.send(timed).unwrap();
    let running = requests(&script.events());
    script.follow(cancelled, Some(verb::CANCEL)).unwrap();
    script.wait(ms(10)).unwrap();
    assert_eq!(one(script.read()).code(), Code::DEADLINE_EXCEEDED);
    for _ in 0..3 {
        script.call("c");
        assert_eq!(one(script.read()).code(), Code::RESOURCE_EXHAUSTED);
    }
    for request in running {
        assert_eq!(script.connection.respond(request.id, Ok(uint(1))), Err(RespondError::Gone));
        script.call("d");
        assert!(script.read().is_empty());
    }
    assert_eq!(script.connection.stats().requests_running, 2);
}

// spec: §10.6
#[test]
fn a_caller_keeps_to_the_callees_number_of_calls() {
    let mut script = Script::initiator_with(&config(|_| ()), answer_with("max_calls", 2));
    let now = script.now;
    let mut call = || script.connection.call(now, "m", uint(1), options());
    let first = call().unwrap();
    let second = call().unwrap();
    assert_eq!(call(), Err(CallError::Blocked));
    assert_eq!(script.read().len(), 2);
    script.follow(second.wire_id(), None).unwrap();
    assert_eq!(script.connection.call(now, "m", uint(1), options()), Err(CallError::Blocked));
    assert_eq!(script.connection.call_room(), 0);
    let events = script.events();
    assert_eq!(script.connection.call(now, "m", uint(1), options()), Err(CallError::Blocked));
    assert_eq!((capacities(&events), outcomes(&mut script.connection, &events).len()), (0, 1));
    assert_eq!(script.connection.call_room(), 1);
    assert_eq!(capacities(&script.events()), 1, "room once the outcome is taken, told once");
    script.connection.call(now, "m", uint(1), options()).unwrap();
    assert_eq!(script.connection.call(now, "m", uint(1), options()), Err(CallError::Blocked));
    script.connection.cancel(now, first).unwrap();
    assert_eq!(capacities(&script.events()), 1);
}

// spec: §6.7
#[test]
fn calls_wait_for_the_handshake() {
    let mut pair = Pair::new(&config(|_| ()), &config(|_| ()), 1);
    let now = pair.now;
    assert_eq!(pair.a().call(now, "m", uint(1), options()), Err(CallError::Blocked));
    pair.drive();
    let events = pair.events(A);
    assert!(matches!(events[0], Event::Established), "the first event");
    assert_eq!(capacities(&events), 1);
    pair.a().call(now, "m", uint(1), options()).unwrap();
}

// spec: §6.7
#[test]
fn a_peer_that_takes_no_calls_gets_none_and_nobody_waits_for_it() {
    let mut script = Script::offered_by(&config(|_| ()));
    assert_eq!(script.connection.call(script.now, "m", uint(1), options()), Err(CallError::Blocked));
    let offer = one(script.read());
    let answer = Msg::continuation(Kind::Hello, crate::support::id(0), offer.id);
    script.send(answer.payload(answer_with("max_calls", 0))).unwrap();
    assert_eq!(capacities(&script.events()), 1);
    assert_eq!(script.connection.call(script.now, "m", uint(1), options()), Err(CallError::NoCalls));
}

// spec: §10.6
#[test]
fn a_driver_may_ask_for_room_before_it_has_a_call() {
    let mut script = Script::initiator_with(&config(|_| ()), answer_with("max_calls", 1));
    assert_eq!(script.connection.ready_to_call(), Ok(()));
    let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
    assert_eq!(script.connection.ready_to_call(), Err(CallError::Blocked));
    script.connection.cancel(script.now, call).unwrap();
    assert_eq!(
        (capacities(&script.events()), script.connection.call_room()),
        (1, 1),
        "as a call would have been told"
    );

    let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
    script.connection.want_capacity();
    assert_eq!(capacities(&script.events()), 0);
    script.connection.cancel(script.now, call).unwrap();
    assert_eq!(capacities(&script.events()), 1);
    script.connection.close(script.now, None);
    assert_eq!(script.connection.ready_to_call(), Err(CallError::Closed));

    let mut script = Script::initiator_with(&config(|_| ()), answer_with("max_calls", 0));
    assert_eq!(script.connection.ready_to_call(), Err(CallError::NoCalls));
}

// spec: §15.3
// limit: calls and bytes waiting to be sent
#[test]
fn the_send_buffer_bounds_what_waits() {
    let mut script = Script::initiator(&config(|c| c.send_buffer = 2 * (9_800 + 128)));
    let now = script.now;
    let call = |script: &mut Script, len| script.connection.call(now, "m", blob(len), options());
    let first = call(&mut script, 9_800).unwrap();
    call(&mut script, 9_800).unwrap();
    assert_eq!(call(&mut script, 10), Err(CallError::Blocked));
    assert_eq!(script.connection.update(first, uint(1)), Err(UpdateError::Blocked));
    assert_eq!(capacities(&script.events()), 0);
    assert_eq!(script.read().len(), 2);
    assert_eq!(capacities(&script.events()), 1, "one for both that were turned away");
    call(&mut script, 10).unwrap();
    script.connection.update(first, uint(1)).unwrap();
    assert_eq!(script.read().len(), 2);
}

// spec: §15.3
#[test]
fn a_free_slot_is_no_room_while_too_much_waits() {
    let mut script = Script::initiator(&config(|c| c.send_buffer = 1000));
    let now = script.now;
    let sent = script.connection.call(now, "m", uint(1), options()).unwrap();
    script.read();
    script.connection.call(now, "m", blob(5_000), options()).unwrap();
    assert_eq!(script.connection.call(now, "m", uint(1), options()), Err(CallError::Blocked));
    script.connection.cancel(now, sent).unwrap();
    assert_eq!(capacities(&script.events()), 0);
    script.read();
    assert_eq!(capacities(&script.events()), 1);
}

// spec: §10.4
// spec: §15.3
#[test]
fn calls_that_are_made_and_given_up_in_a_loop_pile_up_nowhere() {
    let mut script = Script::initiator(&config(|_| ()));
    let now = script.now;
    let size = |script: &Script| format!("{:?}", script.connection).len();
    let kept = [(); 10].map(|()| script.connection.call(now, "kept", uint(1), options()).unwrap());
    let before = size(&script);
    for _ in 0..5_000 {
        let call = script.connection.call(now, "m", uint(1), options()).unwrap();
        script.connection.cancel(now, call).unwrap();
    }
    assert!(size(&script) < before + 10_000, "{}", size(&script));
    let sent = script.read().into_iter().map(|message| message.id);
    assert_eq!(sent.collect::<Vec<_>>(), kept.map(|call| call.wire_id()));
}

// spec: §15.3
#[test]
fn many_small_messages_are_bounded_too() {
    let mut script = Script::initiator(&config(|c| c.send_buffer = 10_000));
    let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
    let sent =
        std::iter::repeat_with(|| script.connection.update(call, uint(1))).take_while(Result::is_ok).count();
    assert!((50..100).contains(&sent), "{sent}");
}

// spec: §15.3
#[test]
fn who_waits_to_send_an_update_is_told_of_room_while_all_slots_are_taken() {
    let mut script = Script::initiator_with(&config(|c| c.send_buffer = 1000), answer_with("max_calls", 1));
    let now = script.now;
    let call = script.connection.call(now, "m", blob(1000), options()).unwrap();
    assert_eq!(script.connection.call(now, "m", uint(1), options()), Err(CallError::Blocked));
    assert_eq!(script.connection.update(call, uint(1)), Err(UpdateError::Blocked));
    script.read();
    assert_eq!(capacities(&script.events()), 1, "for the update");
    script.connection.update(call, uint(1)).unwrap();
    script.read();
    script.follow(call.wire_id(), None).unwrap();
    assert_eq!(script.outcomes().len(), 1);
    assert_eq!(capacities(&script.events()), 1, "for the call");
}

// spec: §10.4
#[test]
fn what_is_taken_back_gives_its_room_back() {
    let mut script = Script::initiator(&config(|c| c.send_buffer = 100_000));
    let now = script.now;
    for _ in 0..20 {
        let call = |script: &mut Script| script.connection.call(now, "m", blob(1000), options());
        let calls = std::iter::from_fn(|| call(&mut script).ok()).collect::<Vec<_>>();
        assert_eq!(calls.len(), 89, "1,000 bytes and 128 for each");
        for call in &calls {
            script.connection.cancel(now, *call).unwrap();
        }
        assert_eq!(capacities(&script.events()), 1);
    }
    script.connection.call(now, "last", uint(1), options()).unwrap();
    assert_eq!(one(script.read()).target.as_deref(), Some("last"));
}

// spec: §10.8
// spec: §15.3
// limit: payload bytes held for running calls and streams
#[test]
fn what_running_requests_hold_is_bounded_and_one_is_always_admitted() {
    let mut script = Script::responder(&config(|c| c.request_bytes = 10_000));
    let send = |script: &mut Script, len| {
        let call = Msg::opening(Kind::Call, script.id(), "m").payload(blob(len));
        script.send(call).unwrap();
    };
    send(&mut script, 20_000);
    let large = one(requests(&script.events())).id;
    send(&mut script, 10);
    let refusal = one(script.read());
    assert_eq!((refusal.code(), refusal.error.unwrap().processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    script.connection.respond(large, Ok(uint(1))).unwrap();
    script.read();

    send(&mut script, 4_000);
    let mut call = Msg::opening(Kind::Call, script.id(), "m");
    call.meta = cbor(|out| out.map(1)?.str("note")?.bytes(&[0; 2_500])?.ok());
    script.send(call.clone()).unwrap();
    assert_eq!(requests(&script.events()).len(), 2);
    let again = Msg { id: script.id(), ..call };
    script.send(again).unwrap();
    assert_eq!(one(script.read()).code(), Code::RESOURCE_EXHAUSTED, "metadata is held as well, and copied");
}

// spec: §10.8
#[test]
fn requests_are_held_up_to_the_bound_and_not_a_byte_more() {
    let call = |script: &mut Script, len| Msg::opening(Kind::Call, script.id(), "m").payload(blob(len));
    let mut script = Script::responder(&config(|c| c.request_bytes = 2 * (500 + 24)));
    for (len, admitted) in [(500, 1), (501, 0), (500, 1), (1, 0)] {
        let message = call(&mut script, len);
        script.send(message).unwrap();
        assert_eq!(requests(&script.events()).len(), admitted, "{len}");
    }
    assert_eq!(script.connection.stats().request_bytes, 2 * (500 + 24));
}

// spec: §10.8
#[test]
fn bytes_are_held_until_the_handler_has_finished() {
    let mut script = Script::responder(&config(|c| c.request_bytes = 10_000));
    for _ in 0..5 {
        let call = Msg::opening(Kind::Call, script.id(), "m").payload(blob(9_000));
        script.send(call.clone()).unwrap();
        let request = one(requests(&script.events())).id;
        script.follow(call.id, Some(verb::CANCEL)).unwrap();
        let again = Msg { id: script.id(), ..call };
        script.send(again).unwrap();
        assert_eq!(one(script.read()).code(), Code::RESOURCE_EXHAUSTED, "cancelled, but running");
        assert_eq!(script.connection.respond(request, Ok(uint(1))), Err(RespondError::Gone));
        script.events();
    }
}

// spec: §5.13
#[test]
fn a_result_that_is_too_large_becomes_an_error() {
    let mut script = Script::responder_with(&config(|_| ()), offer_with("max_message", 2000));
    for (len, fits) in [(1961, true), (1962, false), (100_000, false)] {
        let call = script.call("m");
        let request = one(requests(&script.events())).id;
        let outcome = script.connection.respond(request, Ok(blob(len)));
        let answer = one(script.read());
        assert_eq!(answer.reference, Some(call));
        if fits {
            assert_eq!((outcome, answer.body().len()), (Ok(()), 2000));
        } else {
            assert_eq!((outcome, answer.code()), (Err(RespondError::TooLarge), Code::MESSAGE_TOO_LARGE));
            assert_eq!(answer.error.unwrap().processed, Some(true));
        }
        assert_eq!(script.connection.stats().requests_running, 0);
    }
    let call = script.call("m");
    let request = one(requests(&script.events())).id;
    let error = fluxar_proto::Error::internal("x".repeat(3000));
    assert_eq!(script.connection.respond(request, Err(error)), Err(RespondError::TooLarge));
    let answer = one(script.read());
    assert_eq!((answer.reference, answer.code()), (Some(call), Code::INTERNAL), "an error keeps its code");
    assert_eq!((answer.payload, answer.error.unwrap().processed), (cbor(|e| e.null().map(drop)), None));

    let call = script.call("unknown");
    let request = one(requests(&script.events())).id;
    let now = script.now;
    let error = fluxar_proto::Error::unimplemented("y".repeat(3000));
    script.connection.refuse(now, request, error).unwrap();
    let answer = one(script.read());
    assert_eq!((answer.reference, answer.code()), (Some(call), Code::UNIMPLEMENTED));
    assert_eq!(answer.error.unwrap().processed, Some(false), "and whether a retry is safe");
}

// spec: §5.13
#[test]
fn a_call_or_an_update_that_is_too_large_fails_where_it_was_made() {
    let mut script = Script::initiator_with(&config(|_| ()), answer_with("max_message", 2000));
    let now = script.now;
    let call = script.connection.call(now, "m", blob(1976), options()).unwrap();
    let error = script.connection.call(now, "m", blob(1977), options()).unwrap_err();
    assert_eq!(error, CallError::TooLarge { len: 2001, limit: 2000 });
    script.connection.update(call, blob(1955)).unwrap();
    assert_eq!(script.connection.update(call, blob(1956)), Err(UpdateError::TooLarge));
    let sent = script.read();
    assert_eq!(sent.iter().map(|message| message.body().len()).collect::<Vec<_>>(), [2000, 2000]);

    let meta = cbor(|out| out.map(1)?.str("k")?.bytes(&[0; 100])?.ok());
    let with_meta = options().with_meta(meta.into());
    assert_eq!(
        script.connection.call(now, "m", blob(1976), with_meta),
        Err(CallError::TooLarge { len: 2104, limit: 2000 }),
    );
    let timed = options().with_timeout(ms(u64::from(u32::MAX)));
    let fitting =
        (1900..1977).rev().find(|len| script.connection.call(now, "m", blob(*len), timed.clone()).is_ok());
    assert_eq!(fitting, Some(1955));
    assert!(one(script.read()).body().len() <= 2000);
}

// spec: §5.13
// spec: §3.3
// limit: max_message
#[test]
fn a_message_above_the_limit_is_fatal_to_its_sender() {
    let message = |script: &mut Script, len: usize| {
        let call = Msg::opening(Kind::Call, script.id(), "m").payload(blob(len - 24));
        assert_eq!(call.body().len(), len);
        call
    };
    for start in [Script::responder, Script::initiator] {
        let limited = config(|c| c.limits.max_message = 2000);
        let mut script = start(&limited);
        let fits = message(&mut script, 2000);
        script.send(fits).unwrap();
        assert_eq!(requests(&script.events()).len(), 1);
        let too_long = message(&mut script, 2001);
        assert_eq!(script.send(too_long).unwrap_err().code(), Code::MESSAGE_TOO_LARGE);
        assert!(is_close(&one(script.read()), Some(Code::MESSAGE_TOO_LARGE)));

        let mut script = start(&limited);
        script.send_bytes(&2064u32.to_be_bytes()).unwrap();
        let mut script = start(&limited);
        let error = script.send_bytes(&2065u32.to_be_bytes()).unwrap_err();
        assert!(matches!(error, ConnectionError::Frame(_)), "from the length alone");
        assert!(is_close(&one(script.read()), Some(Code::MESSAGE_TOO_LARGE)));
    }
}

// spec: §3.1
#[test]
fn a_frame_of_no_bytes_is_malformed_and_what_came_before_it_counts() {
    let mut script = Script::responder(&config(|_| ()));
    let call = Msg::opening(Kind::Call, script.id(), "m");
    let bytes = [call.frame(), vec![0; 4], call.frame()].concat();
    assert_eq!(script.send_bytes(&bytes).unwrap_err().code(), Code::MALFORMED);
    assert_eq!(requests(&script.events()).len(), 1);
    assert!(is_close(&one(script.read()), Some(Code::MALFORMED)));
}

// spec: §10.6
#[test]
fn a_session_of_the_smallest_limits_works() {
    let config = config(|c| {
        c.limits = Limits { max_message: 1024, max_calls: 1, ..Limits::ABSENT };
        c.send_buffer = 0;
        c.request_bytes = 0;
    });
    let mut pair = Pair::established(&config);
    let now = pair.now;
    pair.a().call(now, "m", uint(1), options()).expect("one message always has room");
    assert_eq!(pair.a().call(now, "m", uint(1), options()), Err(CallError::Blocked));
    let config = crate::support::config(|c| {
        c.limits = Limits { max_message: 1024, max_calls: 1, ..Limits::ABSENT };
        c.send_buffer = 1;
        c.request_bytes = 0;
    });
    let mut pair = Pair::established(&config);
    for _ in 0..3 {
        let call = pair.a().call(now, "m", blob(1000), options()).unwrap();
        assert_eq!(pair.a().call(now, "m", uint(1), options()), Err(CallError::Blocked));
        pair.drive();
        let request = one(requests(&pair.events(B)));
        pair.b().respond(request.id, Ok(blob(985))).unwrap();
        pair.drive();
        assert_eq!(one(pair.outcomes(A)), (call, Ok(blob(985))));
        assert_eq!(capacities(&pair.events(A)), 1);
    }
}
