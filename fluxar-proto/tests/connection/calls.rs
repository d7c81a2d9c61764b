//! Calls between two connections, and what a peer may and may not do with them.

use bytes::BytesMut;
use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::{
    CallError, CallEvent, Code, ConnectionError, Error, Event, Payload, Request, RespondError, UpdateError,
    Violation,
};

use crate::support::{
    A, B, Msg, Pair, Script, blob, cbor, config, id, one, options, outcomes, requests, uint,
};

// spec: §10.1
// spec: §10.2
#[test]
fn a_call_is_answered_with_its_result() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let call = pair.a().call(now, "users.get", uint(42), options()).unwrap();
    pair.drive();
    let request = one(requests(&pair.events(B)));
    assert_eq!((&*request.method, &request.payload, request.deadline), ("users.get", &uint(42), None));
    assert!(request.meta.is_empty());
    assert_eq!(request.id.wire_id(), call.wire_id());
    pair.b().respond(request.id, Ok(uint(7))).unwrap();
    pair.drive();
    assert_eq!(one(pair.outcomes(A)), (call, Ok(uint(7))));
    assert_eq!((pair.a().stats().calls_in_flight, pair.b().stats().requests_running), (0, 0));
    assert_eq!((pair.a().stats().calls_made, pair.b().stats().calls_served), (1, 1));
}

// spec: §10.2
// spec: §5.12
#[test]
fn a_call_is_answered_with_an_error_and_all_of_it_arrives() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let call = pair.a().call(now, "m", uint(1), options()).unwrap();
    pair.drive();
    let request = one(requests(&pair.events(B)));
    let error = Error::new(Code(4711), "no luck")
        .with_data(vec![0x83, 1, 2, 3])
        .with_retry_after_ms(99)
        .with_processed(true);
    pair.b().respond(request.id, Err(error.clone())).unwrap();
    pair.drive();
    assert_eq!(one(pair.outcomes(A)), (call, Err(error)));
}

// spec: §10.1
// spec: §10.2
#[test]
fn both_sides_call_and_responses_come_in_any_order() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let calls = [0, 1, 2].map(|n| pair.a().call(now, "m", uint(n), options()).unwrap());
    let back = pair.b().call(now, "back", uint(9), options()).unwrap();
    pair.drive();
    let asked = requests(&pair.events(B));
    for n in [2, 0, 1] {
        pair.b().respond(asked[n].id, Ok(asked[n].payload.clone())).unwrap();
    }
    let called_back = one(requests(&pair.events(A)));
    pair.a().respond(called_back.id, Ok(Payload::null())).unwrap();
    pair.drive();
    let got = pair.outcomes(A);
    assert_eq!(got, [2, 0, 1].map(|n| (calls[n], Ok(uint(n as u64)))));
    assert_eq!(one(pair.outcomes(B)), (back, Ok(Payload::null())));
}

// spec: §10.3
#[test]
fn updates_go_both_ways_while_the_call_is_open() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let call = pair.a().call(now, "m", uint(0), options()).unwrap();
    pair.a().update(call, uint(1)).unwrap();
    pair.drive();
    let events = pair.events(B);
    let request = one(requests(&events)).id;
    assert!(matches!(events[1], Event::Call(CallEvent::RequestUpdated(r)) if r == request));
    assert_eq!(pair.b().poll_request_update(request), Ok(Some(uint(1))));
    assert_eq!(pair.b().poll_request_update(request), Ok(None));
    for _ in 0..2 {
        pair.a().update(call, uint(7)).unwrap();
        pair.drive();
        let events = pair.events(B);
        assert!(
            matches!(events[..], [Event::Call(CallEvent::RequestUpdated(_))]),
            "each time anew: {events:?}"
        );
    }
    assert_eq!(pair.b().poll_request_update(request), Ok(Some(uint(7))));

    pair.b().update_request(request, uint(2)).unwrap();
    pair.b().update_request(request, uint(3)).unwrap();
    pair.drive();
    assert!(matches!(pair.events(A)[..], [Event::Call(CallEvent::Updated(c))] if c == call));
    assert_eq!(pair.a().poll_update(call), Ok(Some(uint(2))));
    pair.b().update_request(request, uint(8)).unwrap();
    pair.drive();
    assert!(matches!(pair.events(A)[..], [Event::Call(CallEvent::Updated(_))]), "again");
    pair.b().update_request(request, uint(4)).unwrap();
    pair.b().respond(request, Ok(uint(5))).unwrap();
    pair.drive();
    let events = pair.events(A);
    assert!(matches!(events.last(), Some(Event::Call(CallEvent::Response(c))) if *c == call));
    assert_eq!(pair.a().update(call, uint(6)), Err(UpdateError::Gone), "the call is over");
    assert_eq!(pair.a().poll_update(call), Ok(Some(uint(3))), "but not what came before its end");
    assert_eq!(pair.a().poll_update(call), Ok(Some(uint(8))));
    assert_eq!(pair.a().poll_update(call), Ok(Some(uint(4))));
    assert!(pair.a().poll_update(call).is_err());
    assert_eq!(one(outcomes(pair.a(), &events)), (call, Ok(uint(5))));
    assert!(pair.a().take_response(call).is_err(), "once");
    assert_eq!(pair.b().update_request(request, uint(6)), Err(UpdateError::Gone));
    assert!(pair.b().poll_request_update(request).is_err());
}

// spec: §2.4
#[test]
fn what_is_sent_on_a_call_arrives_in_order_and_calls_begin_in_order() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let calls = [0, 1, 2, 3].map(|n| pair.a().call(now, "m", uint(n), options()).unwrap());
    (10..20).for_each(|n| pair.a().update(calls[3], uint(n)).unwrap());
    pair.drive();
    let asked = requests(&pair.events(B));
    assert_eq!(
        asked.iter().map(|request| &request.payload).collect::<Vec<_>>(),
        [0, 1, 2, 3].map(uint).each_ref()
    );
    let updates = std::iter::from_fn(|| pair.b().poll_request_update(asked[3].id).unwrap());
    assert_eq!(updates.collect::<Vec<_>>(), (10..20).map(uint).collect::<Vec<_>>());

    for n in 0..10 {
        pair.b().update_request(asked[n % 3].id, uint(n as u64)).unwrap();
    }
    asked.iter().take(3).for_each(|request| pair.b().respond(request.id, Ok(uint(99))).unwrap());
    let before = pair.ends[B].sent.len();
    pair.drive();
    let sent = Msg::decode_all(&pair.ends[B].sent[before..]);
    for (n, call) in calls.iter().take(3).enumerate() {
        let on_call = sent.iter().filter(|message| message.reference == Some(call.wire_id()));
        let payloads = on_call.map(|message| message.payload.clone()).collect::<Vec<_>>();
        let expected = (n..10).step_by(3).map(|n| n as u64).chain([99]).map(|n| uint(n).as_bytes().to_vec());
        assert_eq!(payloads, expected.collect::<Vec<_>>());
    }
}

// spec: §10.3
// limit: updates held for the application
#[test]
fn beyond_its_bounds_a_receiver_drops_the_oldest_update_and_counts_it() {
    let mut script = Script::responder(&config(|c| {
        c.updates_per_call = 3;
        c.update_bytes = 2000;
    }));
    let call = script.call("m");
    let other = script.call("m");
    let requests = requests(&script.events());
    let update = |script: &mut Script, call, payload: Payload| {
        let message = Msg::continuation(Kind::Call, script.id(), call).verb(verb::UPDATE).payload(payload);
        script.send(message).unwrap();
    };
    for n in 0..5 {
        update(&mut script, call, uint(n));
    }
    assert_eq!(script.events().len(), 1, "one event tells of all");
    assert_eq!(script.connection.stats().updates_dropped, 2);
    update(&mut script, other, blob(1500));
    update(&mut script, call, blob(600));
    let dropped = |script: &Script| script.connection.stats().updates_dropped;
    assert_eq!(dropped(&script), 6, "it pushes out the updates of its own call and no others");
    let held = |script: &mut Script, n: usize| {
        std::iter::from_fn(|| script.connection.poll_request_update(requests[n].id).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(held(&mut script, 0), []);
    assert_eq!(held(&mut script, 1), [blob(1500)]);
    update(&mut script, call, blob(1800));
    update(&mut script, call, blob(1700));
    assert_eq!(held(&mut script, 0), [blob(1700)], "the older one went");
    assert_eq!(dropped(&script), 7);
}

// spec: §10.3
#[test]
fn a_caller_bounds_the_updates_that_it_holds_too() {
    let mut script = Script::initiator(&config(|c| c.updates_per_call = 3));
    let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
    script.read();
    assert_eq!(script.connection.poll_update(call), Ok(None), "none so far");
    for n in 0..5 {
        let update = Msg::continuation(Kind::Call, script.id(), call.wire_id()).verb(verb::UPDATE);
        script.send(update.payload(uint(n))).unwrap();
    }
    assert_eq!((script.events().len(), script.connection.stats().updates_dropped), (1, 2));
    let held = std::iter::from_fn(|| script.connection.poll_update(call).unwrap());
    assert_eq!(held.collect::<Vec<_>>(), [2, 3, 4].map(uint));
}

// spec: §10.3
// spec: §17.2
#[test]
fn an_update_that_is_held_keeps_no_more_memory_than_it_counts_for() {
    let mut script = Script::responder(&config(|_| ()));
    let call = script.call("m");
    let request = one(requests(&script.events())).id;
    let update = Msg::continuation(Kind::Call, script.id(), call).verb(verb::UPDATE);
    let mut with_meta = update.clone().payload(uint(1));
    with_meta.meta = cbor(|out| out.map(1)?.str("ballast")?.bytes(&[0; 50_000])?.ok());
    let unknown = Msg { target: Some("ballast".into()), ..update.clone().payload(blob(7_000)) };
    let together = [update.payload(uint(2)).frame(), unknown.frame(), unknown.frame()].concat();
    script.send(with_meta).unwrap();
    script.send_bytes(&together).unwrap();
    for n in [1, 2] {
        let held = script.connection.poll_request_update(request).unwrap().unwrap();
        assert_eq!(held, uint(n));
        let memory = held.into_bytes().try_into_mut().expect("memory of its own").capacity();
        assert!(memory < 100, "{memory}");
    }
}

// spec: §10.8
// spec: §17.2
#[test]
fn a_payload_that_is_held_keeps_no_buffer_that_grew_for_another_message() {
    const LATE: usize = 900_000;
    const KEPT: usize = 20_000;
    let mut script = Script::responder(&config(|_| ()));
    let late =
        Msg::continuation(Kind::Call, script.id(), id(999)).verb(verb::UPDATE).payload(blob(LATE)).frame();
    for request_first in [false, true] {
        let request = Msg::opening(Kind::Call, script.id(), "m").payload(blob(KEPT)).frame();
        let bytes = if request_first { [request, late.clone()] } else { [late.clone(), request] }.concat();
        // As a driver reads: into a buffer that grows with the frame, and has more room than that needs.
        let (first, second) = bytes.split_at(40_000);
        script.input = BytesMut::with_capacity(2_000_000);
        for bytes in [first, second] {
            script.input.reserve(2 * LATE);
            script.send_bytes(bytes).unwrap();
        }
        let Request { payload, .. } = one(requests(&script.events()));
        assert_eq!(payload, blob(KEPT));
        let memory = payload.into_bytes().try_into_mut().expect("memory of its own").capacity();
        assert!(memory < KEPT + 1000, "{memory}");
    }
}

// spec: §17.2
#[test]
fn a_large_payload_is_not_copied() {
    let mut script = Script::responder(&config(|_| ()));
    let bytes = Msg::opening(Kind::Call, script.id(), "m").payload(blob(900_000)).frame();
    let (first, second) = bytes.split_at(40_000);
    script.send_bytes(first).unwrap();
    script.input.reserve(second.len());
    let buffer = script.input.as_ptr_range().start;
    script.send_bytes(second).unwrap();
    let payload = one(requests(&script.events())).payload;
    assert!((0..100).any(|head| payload.as_bytes().as_ptr() == buffer.wrapping_add(head)));
}

// spec: §17.2
#[test]
fn a_small_result_in_a_large_message_does_not_keep_all_of_it() {
    for (ballast, len, shared) in [(50_000, 10, false), (10, 50_000, true)] {
        let mut script = Script::initiator(&config(|_| ()));
        let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
        script.read();
        let mut response = Msg::continuation(Kind::Call, script.id(), call.wire_id()).payload(blob(len));
        response.meta = cbor(|out| out.map(1)?.str("ballast")?.bytes(&vec![0; ballast])?.ok());
        script.send(response).unwrap();
        let (_, result) = one(script.outcomes());
        let payload = result.unwrap();
        assert_eq!(payload, blob(len));
        let memory = payload.into_bytes().try_into_mut().expect("memory of its own");
        assert_eq!(memory.capacity() > memory.len(), shared, "{}", memory.capacity());
    }
}

// spec: §10.4
// spec: §10.10
#[test]
fn a_call_cancelled_before_it_was_sent_leaves_no_trace() {
    let mut script = Script::initiator(&config(|_| ()));
    let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
    let kept = script.connection.call(script.now, "kept", uint(2), options()).unwrap();
    script.connection.update(call, uint(3)).unwrap();
    script.connection.cancel(script.now, call).unwrap();
    assert!(script.connection.cancel(script.now, call).is_err());
    let sent = one(script.read());
    assert_eq!(sent.id, kept.wire_id());
    assert!(script.events().is_empty());
    assert_eq!(script.connection.stats().calls_in_flight, 1);
}

// spec: §10.4
#[test]
fn a_call_cancelled_after_it_was_sent_tells_the_callee_and_drops_what_still_comes() {
    let mut script = Script::initiator(&config(|_| ()));
    let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
    script.read();
    script.connection.update(call, uint(3)).unwrap();
    script.connection.cancel(script.now, call).unwrap();
    let cancel = one(script.read());
    assert_eq!((cancel.kind, cancel.reference), (Kind::Call, Some(call.wire_id())));
    assert_eq!(cancel.target.as_deref(), Some(verb::CANCEL));
    assert_eq!((&cancel.payload[..], cancel.error), (&[0xf6][..], None));
    assert_ne!(cancel.id, call.wire_id());

    script.follow(call.wire_id(), Some(verb::UPDATE)).unwrap();
    script.follow(call.wire_id(), None).unwrap();
    assert!(script.events().is_empty());
    assert_eq!(script.connection.stats().dropped, 2);
    assert_eq!(script.connection.stats().calls_in_flight, 0);
}

// spec: §10.4
// spec: §10.11
#[test]
fn a_cancelled_request_is_not_answered() {
    let mut script = Script::responder(&config(|_| ()));
    let call = script.call("m");
    let request = one(requests(&script.events())).id;
    assert!(script.connection.is_wanted(request));
    script.follow(call, Some(verb::CANCEL)).unwrap();
    let withdrawn = fluxar_proto::Withdrawn::Cancelled;
    assert!(
        matches!(script.events()[..], [Event::Call(CallEvent::Withdrawn(r, why))] if r == request && why == withdrawn)
    );
    assert!(!script.connection.is_wanted(request));
    assert_eq!(script.connection.respond(request, Ok(uint(1))), Err(RespondError::Gone));
    assert!(script.read().is_empty());
    script.follow(call, Some(verb::CANCEL)).unwrap();
    let stats = script.connection.stats();
    assert_eq!((stats.cancelled, stats.dropped), (1, 1), "the second one is late");
}

// spec: §10.4
#[test]
fn a_cancel_takes_back_an_answer_that_is_not_sent_yet() {
    let mut script = Script::responder(&config(|_| ()));
    let call = script.call("m");
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(uint(1))).unwrap();
    assert_eq!(script.connection.stats().requests_running, 1);
    script.follow(call, Some(verb::CANCEL)).unwrap();
    assert!(script.read().is_empty());
    assert!(script.events().is_empty(), "its handler is done: there is nobody to tell");
    assert_eq!(script.connection.stats().requests_running, 0);
}

// spec: §10.4
#[test]
fn what_was_taken_back_touches_nothing_that_has_its_place() {
    let mut script = Script::responder(&config(|_| ()));
    let cancelled = script.call("m");
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(uint(1))).unwrap();
    script.follow(cancelled, Some(verb::CANCEL)).unwrap();
    let later = script.call("m");
    let request = one(requests(&script.events())).id;
    assert!(script.read().is_empty());
    assert!(script.connection.is_wanted(request));
    script.connection.respond(request, Ok(uint(2))).unwrap();
    assert_eq!(one(script.read()).reference, Some(later));

    let first = script.connection.call(script.now, "first", uint(1), options()).unwrap();
    script.connection.cancel(script.now, first).unwrap();
    let second = script.connection.call(script.now, "second", uint(1), options()).unwrap();
    assert_eq!((first.slot(), one(script.read()).id), (second.slot(), second.wire_id()));
}

// spec: §10.4
#[test]
fn a_cancel_that_crosses_the_response_harms_nobody() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let call = pair.a().call(now, "m", uint(1), options()).unwrap();
    pair.drive();
    let request = one(requests(&pair.events(B)));
    pair.b().respond(request.id, Ok(uint(2))).unwrap();
    pair.a().cancel(now, call).unwrap();
    pair.drive();
    assert!(pair.events(A).is_empty() && pair.events(B).is_empty());
    assert_eq!((pair.a().stats().dropped, pair.b().stats().dropped), (1, 1));
    assert_eq!((pair.a().stats().calls_in_flight, pair.b().stats().requests_running), (0, 0));
}

// spec: §5.15
// spec: §10.2
#[test]
fn continuations_of_the_wrong_role_are_fatal() {
    let to_callee = |verb: Option<&str>| {
        let mut script = Script::responder(&config(|_| ()));
        let call = script.call("m");
        script.follow(call, verb)
    };
    let to_caller = |verb: Option<&str>| {
        let mut script = Script::initiator(&config(|_| ()));
        let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
        script.read();
        script.follow(call.wire_id(), verb)
    };
    assert!(matches!(to_callee(None), Err(ConnectionError::Violation(Violation::WrongRole(_)))));
    assert!(matches!(
        to_caller(Some(verb::CANCEL)),
        Err(ConnectionError::Violation(Violation::WrongRole(_)))
    ));
    assert_eq!(to_callee(Some("sing")), Ok(()));
    assert_eq!(to_caller(Some("sing")), Ok(()));
}

// spec: §5.15
#[test]
fn a_continuation_of_another_type_is_fatal() {
    for kind in [Kind::Stream, Kind::Subscribe, Kind::Unsubscribe, Kind::Message, Kind::Control] {
        let mut script = Script::responder(&config(|_| ()));
        let call = script.call("m");
        let message = Msg::continuation(kind, script.id(), call);
        assert_eq!(
            script.send(message),
            Err(ConnectionError::Violation(Violation::WrongRole(call))),
            "{kind}"
        );
        let closing = script.read();
        assert_eq!(one(closing).code(), Code::PROTOCOL_VIOLATION);
    }
}

// spec: §5.15
#[test]
fn continuations_of_nothing_and_unknown_verbs_are_dropped_and_counted() {
    let mut script = Script::responder(&config(|_| ()));
    let call = script.call("m");
    for kind in [Kind::Call, Kind::Stream, Kind::Subscribe, Kind::Unsubscribe, Kind::Message, Kind::Control] {
        let message = Msg::continuation(kind, script.id(), id(1000));
        script.send(message.clone()).unwrap();
        script.send(message.verb("frobnicate")).unwrap();
    }
    assert_eq!(script.connection.stats().dropped, 12);
    script.follow(call, Some("frobnicate")).unwrap();
    assert_eq!(script.connection.stats().dropped, 13);
    assert_eq!(script.events().len(), 1);
    assert!(script.read().is_empty());
}

// spec: §5.5
#[test]
fn an_opening_with_the_id_of_something_open_is_fatal() {
    let mut script = Script::responder(&config(|_| ()));
    let call = script.call("m");
    let error = script.send(Msg::opening(Kind::Call, call, "m")).unwrap_err();
    assert_eq!(error, ConnectionError::Violation(Violation::DuplicateId(call)));

    // Whichever side opened it, and whatever opens.
    for kind in [Kind::Call, Kind::Stream, Kind::Subscribe, Kind::Message] {
        let mut script = Script::initiator(&config(|_| ()));
        let call = script.connection.call(script.now, "m", uint(1), options()).unwrap().wire_id();
        script.read();
        let error = script.send(Msg::opening(kind, call, "m")).unwrap_err();
        assert_eq!(error, ConnectionError::Violation(Violation::DuplicateId(call)), "{kind}");
    }
    let mut script = Script::responder(&config(|_| ()));
    let call = script.call("m");
    let error = script.send(Msg::opening(Kind::Control, call, verb::PING)).unwrap_err();
    assert_eq!(error, ConnectionError::Violation(Violation::DuplicateId(call)));
}

// spec: §5.9
// spec: §5.10
// spec: §10.5
#[test]
fn metadata_passes_and_is_merged_with_the_time_left() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let meta = cbor(|out| out.map(2)?.str("trace_id")?.str("abc123")?.str("n")?.array(1)?.u8(1)?.ok());
    let with_meta = options().with_meta(meta.clone().into());
    pair.a().call(now, "m", uint(1), with_meta.clone()).unwrap();
    pair.a()
        .call(now, "m", uint(2), with_meta.with_timeout(std::time::Duration::from_micros(2_400)))
        .unwrap();
    pair.drive();
    let requests = requests(&pair.events(B));
    assert_eq!(requests[0].meta, meta);
    let merged = cbor(|out| {
        out.map(3)?.str("trace_id")?.str("abc123")?.str("n")?.array(1)?.u8(1)?;
        out.str(key::TIMEOUT_MS)?.u8(3)?.ok()
    });
    assert_eq!(requests[1].meta, merged, "rounded up");
    assert!(requests[1].deadline.is_some());
}

// spec: §5.9
#[test]
fn metadata_that_cannot_be_sent_is_refused_where_it_was_made() {
    let mut script = Script::initiator(&config(|_| ()));
    let mut call = |meta: Vec<u8>, timeout: bool| {
        let options = options().with_meta(meta.into());
        let options = if timeout { options.with_timeout(crate::support::ms(5)) } else { options };
        script.connection.call(script.now, "m", uint(1), options)
    };
    let keys = |n: u32| {
        cbor(|out| {
            out.map(u64::from(n))?;
            for n in 0..n {
                out.str(&n.to_string())?.u8(0)?;
            }
            Ok(())
        })
    };
    assert!(matches!(call(vec![0x81, 1], false), Err(CallError::BadMeta(Some(_)))), "no map");
    assert!(
        matches!(call(vec![0xa1, 1, 1], false), Err(CallError::BadMeta(Some(_)))),
        "a key that is no text"
    );
    let timeout = cbor(|out| out.map(1)?.str(key::TIMEOUT_MS)?.u8(1)?.ok());
    assert_eq!(call(timeout, false), Err(CallError::BadMeta(None)));
    assert!(call(keys(64), false).is_ok());
    assert!(matches!(call(keys(65), false), Err(CallError::BadMeta(Some(_)))));
    assert!(matches!(call(keys(64), true), Err(CallError::BadMeta(Some(_)))), "no room for the time left");
    assert!(call(keys(63), true).is_ok());
    assert_eq!(script.read().len(), 2);
}

// spec: §5.8
#[test]
fn methods_have_at_most_255_bytes_and_may_be_empty() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    assert_eq!(pair.a().call(now, &"m".repeat(256), uint(1), options()), Err(CallError::MethodTooLong));
    pair.a().call(now, &"m".repeat(255), uint(1), options()).unwrap();
    pair.a().call(now, "", uint(1), options()).unwrap();
    pair.drive();
    let requests = requests(&pair.events(B));
    assert_eq!((requests[0].method.len(), &*requests[1].method), (255, ""));
}

// spec: §5.3
// spec: §5.9
#[test]
fn metadata_may_nest_as_deep_as_there_is() {
    let mut script = Script::responder(&config(|_| ()));
    let mut call = Msg::opening(Kind::Call, script.id(), "m");
    let mut meta = vec![0xa1, 0x61, b'd'];
    meta.extend([0x81; 64]);
    meta.push(0xf6);
    call.meta = meta.clone();
    script.send(call).unwrap();
    assert_eq!(one(requests(&script.events())).meta, meta);

    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let options = options().with_meta(meta.into()).with_timeout(std::time::Duration::from_millis(5));
    pair.a().call(now, "m", uint(1), options).unwrap();
    pair.drive();
    assert_eq!(one(requests(&pair.events(B))).meta[0], 0xa2, "with the time left beside it");
}
