//! The end of a connection: its own, the peer's, a broken rule, a lost link.

use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{
    CallError, Code, ConnectionError, Error, Event, Origin, RespondError, UpdateError, Withdrawn,
};

use crate::support::{
    A, B, Msg, Pair, Script, blob, config, id, is_close, ms, one, options, outcomes, requests, uint,
    withdrawn,
};

/// A script whose connection has a call that was sent, and one that was not.
fn with_calls(start: fn(&std::sync::Arc<fluxar_proto::Config>) -> Script) -> Script {
    let mut script = start(&config(|_| ()));
    script.connection.call(script.now, "sent", uint(1), options()).unwrap();
    script.read();
    script.connection.call(script.now, "queued", uint(1), options()).unwrap();
    script
}

/// Checks that both calls of `with_calls` have ended as they should, and that the end itself came last.
#[track_caller]
fn check_outcomes(script: &mut Script, events: &[Event]) {
    let cause = script.connection.error().unwrap().to_string();
    let results = outcomes(&mut script.connection, events);
    let processed = results.iter().map(|(_, result)| {
        let error = result.as_ref().unwrap_err();
        assert_eq!((error.code, &error.message), (Code::UNAVAILABLE, &cause));
        error.processed
    });
    assert_eq!(processed.collect::<Vec<_>>(), [None, Some(false)]);
    assert!(matches!(events.last(), Some(Event::Closed(_))));
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Closed(_))).count(), 1);
}

// spec: §8.7
// spec: §10.9
#[test]
fn closing_sends_the_answers_that_were_given_and_then_close() {
    let mut script = with_calls(Script::responder);
    let calls = [script.call("done"), script.call("running"), script.call("failed")];
    script.send(Msg::opening(Kind::Stream, id(80), "s")).unwrap();
    let asked = requests(&script.events());
    script.connection.update_request(asked[0].id, uint(8)).unwrap();
    script.connection.respond(asked[0].id, Ok(uint(9))).unwrap();
    script.connection.respond(asked[2].id, Err(Error::not_found("x"))).unwrap();
    script.connection.close(script.now, Some(Error::new(Code(2000), "bye").with_retry_after_ms(5)));

    assert_eq!(script.connection.call(script.now, "m", uint(1), options()), Err(CallError::Closed));
    let events = script.events();
    check_outcomes(&mut script, &events);
    assert_eq!(one(withdrawn(&events)), (asked[1].id, Withdrawn::ConnectionLost));
    let sent = script.read();
    let told = sent.iter().map(|message| (message.kind, message.reference, message.target.as_deref()));
    let expected = [
        (Kind::Stream, Some(id(80)), Some(verb::END)),
        (Kind::Call, Some(calls[0]), Some(verb::UPDATE)),
        (Kind::Call, Some(calls[0]), None),
        (Kind::Call, Some(calls[2]), None),
        (Kind::Control, None, Some(verb::CLOSE)),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let error = sent[4].error.clone().unwrap();
    assert_eq!((error.code, &*error.message, error.retry_after_ms), (Code(2000), "bye", Some(5)));
    assert!(script.connection.is_closed());
    assert_eq!(script.connection.respond(asked[1].id, Ok(uint(1))), Err(RespondError::Gone));
    assert_eq!(script.connection.stats().requests_running, 0);
    assert_eq!(script.connection.stats().calls_in_flight, 0);
}

// spec: §8.7
#[test]
fn an_orderly_close_reaches_the_other_side_behind_its_answer() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let call = pair.a().call(now, "m", uint(1), options()).unwrap();
    pair.drive();
    let request = one(requests(&pair.events(B)));
    pair.b().respond(request.id, Ok(uint(2))).unwrap();
    pair.b().close(now, None);
    pair.drive();
    let events = pair.events(A);
    assert_eq!(one(outcomes(pair.a(), &events)), (call, Ok(uint(2))));
    assert!(matches!(events.last(), Some(Event::Closed(ConnectionError::ClosedByPeer(None)))));
    assert!(matches!(pair.events(B)[..], [Event::Closed(ConnectionError::ClosedLocally(None))]));
    assert!(pair.a().is_closed() && pair.b().is_closed());
    let close = Msg::decode_all(&pair.ends[A].sent);
    assert!(!close.iter().any(|message| is_close(message, None)), "close is not answered");
}

// spec: §8.7
#[test]
fn close_crossing_close_needs_no_rule() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    pair.a().close(now, None);
    pair.b().close(now, Some(Error::unavailable("too")));
    pair.drive();
    assert!(matches!(pair.events(A)[..], [Event::Closed(ConnectionError::ClosedLocally(None))]));
    assert!(matches!(pair.events(B)[..], [Event::Closed(ConnectionError::ClosedLocally(Some(_)))]));
}

// spec: §8.7
// spec: §8.8
// spec: §10.9
#[test]
fn the_peers_close_ends_everything_and_is_not_answered() {
    let mut script = with_calls(Script::responder);
    script.call("m");
    let request = one(requests(&script.events())).id;
    let why = Error::new(Code(1234), "enough").with_data(vec![0x01]);
    let error = script.send(Msg::opening(Kind::Control, id(90), verb::CLOSE).error(why.clone())).unwrap_err();
    assert_eq!(error, ConnectionError::ClosedByPeer(Some(why)));
    assert_eq!((error.code(), error.origin()), (Code(1234), Origin::Peer));
    let events = script.events();
    check_outcomes(&mut script, &events);
    assert_eq!(one(withdrawn(&events)), (request, Withdrawn::ConnectionLost));
    assert!(script.read().is_empty());
    assert!(script.connection.is_closed());
}

// spec: §8.7
#[test]
fn what_arrives_after_close_is_ignored() {
    for fatal in [false, true] {
        let mut script = Script::responder(&config(|_| ()));
        if fatal {
            script.send_body(&[0]).unwrap_err();
        } else {
            script.connection.close(script.now, None);
        }
        let why = script.connection.error().cloned().unwrap();
        script.events();
        let call = Msg::opening(Kind::Call, id(1), "m").frame();
        let ping = Msg::opening(Kind::Control, id(2), verb::PING).frame();
        assert_eq!(script.send_bytes(&[call, ping].concat()), Err(why.clone()));
        assert_eq!(script.send_body(&[0]), Err(why.clone()));
        assert!(script.events().is_empty());
        assert_eq!(script.read().len(), 1, "close, and nothing else");
        assert_eq!(script.send_bytes(&[0; 100]), Err(why));
        assert!(script.read().is_empty());
    }
}

// spec: §5.17
#[test]
fn a_fatal_error_is_told_ahead_of_what_is_queued_and_stays() {
    let mut script = with_calls(Script::initiator);
    script.call("m");
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(uint(1))).unwrap();
    script.connection.ping(script.now).unwrap();
    let error = script.send_body(&[1]).unwrap_err();
    assert_eq!((error.code(), error.origin()), (Code::MALFORMED, Origin::Peer));
    let events = script.events();
    check_outcomes(&mut script, &events);
    let close = one(script.read());
    assert!(is_close(&close, Some(Code::MALFORMED)));
    assert_eq!(close.error.unwrap().message, error.to_string());
    assert_eq!(script.connection.error(), Some(&error));
    script.connection.close(script.now, None);
    assert_eq!(script.connection.handle_eof(script.now, 3), Err(error.clone()));
    script.connection.abort(script.now, ConnectionError::Transport("reset".into()));
    assert_eq!(script.connection.error(), Some(&error));
    assert!(script.read().is_empty() && script.events().is_empty());
    assert_eq!(script.connection.stats().requests_running, 0);
}

// spec: §5.17
#[test]
fn what_follows_a_fatal_message_is_not_handled() {
    let mut script = Script::responder(&config(|_| ()));
    let frames = [
        Msg::opening(Kind::Call, id(1), "before").frame(),
        Msg::continuation(Kind::Call, id(2), id(1)).frame(),
        Msg::opening(Kind::Call, id(3), "after").frame(),
    ];
    assert_eq!(script.send_bytes(&frames.concat()).unwrap_err().code(), Code::PROTOCOL_VIOLATION);
    assert_eq!(&*one(requests(&script.events())).method, "before");
}

// spec: §8.7
#[test]
fn a_close_that_nobody_takes_is_given_up() {
    let mut script = Script::responder(&config(|c| c.close_timeout = ms(700)));
    script.call("m");
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(blob(1000))).unwrap();
    script.connection.close(script.now, None);
    assert_eq!(script.connection.stats().requests_running, 1);
    script.wait(ms(699)).unwrap();
    script.connection.handle_timeout(script.now).unwrap();
    assert!(!script.connection.is_closed() && script.connection.wants_transmit());
    script.wait(ms(1)).unwrap();
    assert!(script.connection.is_closed() && !script.connection.wants_transmit());
    assert!(script.read().is_empty());
    assert_eq!(script.connection.stats().requests_running, 0, "the answer is lost");
    assert_eq!(script.connection.poll_timeout(), None);
}

// spec: §8.7
#[test]
fn requests_that_have_expired_are_still_answered_while_closing() {
    let mut script = Script::responder(&config(|_| ()));
    script.send(Msg::opening(Kind::Call, id(1), "m").meta_uint("timeout_ms", 5)).unwrap();
    let request = one(requests(&script.events())).id;
    script.wait(ms(5)).unwrap();
    script.connection.close(script.now, None);
    let sent = script.read();
    assert_eq!((sent.len(), sent[0].code(), sent[0].reference), (2, Code::DEADLINE_EXCEEDED, Some(id(1))));
    assert_eq!(one(withdrawn(&script.events())), (request, Withdrawn::DeadlineExceeded));
    assert_eq!(script.connection.respond(request, Ok(uint(1))), Err(RespondError::Gone));
    assert_eq!(script.connection.stats().requests_running, 0);
}

// spec: §3.4
// spec: §8.8
#[test]
fn the_end_of_the_transport_is_a_lost_link() {
    for unread in [0, 5] {
        let mut script = with_calls(Script::initiator);
        script.send_bytes(&[0, 0, 0, 9, 0x87][..unread]).unwrap();
        let error = script.connection.handle_eof(script.now, script.input.len()).unwrap_err();
        assert_eq!(error, ConnectionError::LinkLost { unread });
        assert_eq!((error.code(), error.origin()), (Code::UNAVAILABLE, Origin::Link));
        let events = script.events();
        check_outcomes(&mut script, &events);
        assert!(script.read().is_empty(), "nobody is there to be told");
        assert!(script.connection.is_closed());
        assert_eq!(script.connection.handle_eof(script.now, 0), Err(error));
    }
}

// spec: §8.8
#[test]
fn a_driver_may_give_the_link_up() {
    let mut script = with_calls(Script::responder);
    let why = ConnectionError::Transport("connection reset".into());
    script.connection.abort(script.now, why.clone());
    assert_eq!(script.connection.error(), Some(&why));
    let events = script.events();
    check_outcomes(&mut script, &events);
    assert!(script.read().is_empty() && script.connection.is_closed());
    assert_eq!(script.connection.poll_timeout(), None);
}

// spec: §8.7
#[test]
fn the_end_of_the_transport_while_closing_ends_the_wait() {
    let mut script = Script::responder(&config(|_| ()));
    script.call("m");
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(uint(1))).unwrap();
    script.connection.close(script.now, None);
    let error = script.connection.handle_eof(script.now, 0).unwrap_err();
    assert_eq!(error, ConnectionError::ClosedLocally(None));
    assert!(script.connection.is_closed() && script.read().is_empty());
    assert_eq!(script.connection.stats().requests_running, 0);
}

// spec: §10.9
#[test]
fn handlers_that_run_when_the_link_is_cut_learn_it_and_nothing_is_left() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let calls = [0, 1, 2].map(|n| pair.a().call(now, "m", uint(n), options()).unwrap());
    pair.drive();
    let asked = requests(&pair.events(B));
    pair.cut();
    pair.drive();
    let ended = pair.outcomes(A);
    assert_eq!(ended.iter().map(|(call, _)| *call).collect::<Vec<_>>(), calls);
    assert!(ended.iter().all(|(_, result)| result.as_ref().is_err_and(|e| e.code == Code::UNAVAILABLE)));
    let events = pair.events(B);
    assert_eq!(withdrawn(&events).len(), 3);
    for request in &asked {
        assert!(!pair.b().is_wanted(request.id));
        assert_eq!(pair.b().update_request(request.id, uint(1)), Err(UpdateError::Gone));
        assert_eq!(pair.b().respond(request.id, Ok(uint(1))), Err(RespondError::Gone));
    }
    assert_eq!(pair.b().stats().requests_running, 0);
    assert!(pair.a().cancel(now, calls[0]).is_err());
}

// spec: §5.13
#[test]
fn a_close_fits_what_the_peer_takes_whatever_the_error() {
    let mut script = Script::responder_with(
        &config(|_| ()),
        crate::support::cbor(|out| {
            out.map(2)?.str("versions")?.array(1)?.u8(1)?;
            out.str("limits")?.map(1)?.str("max_message")?.u16(1024)?.ok()
        }),
    );
    let error = Error::new(Code(5000), "x".repeat(2000)).with_data(vec![0x01]).with_retry_after_ms(7);
    script.connection.close(script.now, Some(error));
    let close = one(script.read());
    assert!(close.body().len() <= 1024);
    let error = close.error.unwrap();
    assert_eq!((error.code, error.retry_after_ms), (Code(5000), Some(7)));
}

// spec: §8.8
#[test]
fn hanging_up_sends_the_answers_and_then_nothing() {
    let mut script = with_calls(Script::responder);
    let call = script.call("done");
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(uint(9))).unwrap();
    script.connection.hang_up(script.now);
    let events = script.events();
    check_outcomes(&mut script, &events);
    assert!(script.connection.wants_transmit());
    assert_eq!(one(script.read()).reference, Some(call), "and no close");
    assert!(script.connection.is_closed() && !script.connection.wants_transmit());
    assert_eq!(script.connection.poll_timeout(), None);
}

// spec: §8.7
#[test]
fn closing_twice_is_closing_once() {
    let mut script = Script::initiator(&config(|_| ()));
    script.connection.close(script.now, Some(Error::unavailable("first")));
    script.connection.close(script.now, Some(Error::unavailable("second")));
    assert_eq!(one(script.read()).error.unwrap().message, "first");
    assert_eq!(script.events().len(), 1);
}

// spec: §10.9
// spec: §17.2
#[test]
fn what_the_peer_says_in_close_is_not_kept_once_for_each_call() {
    let mut script = Script::initiator(&config(|_| ()));
    for _ in 0..100 {
        script.connection.call(script.now, "m", uint(0), options()).unwrap();
    }
    script.read();
    let close = Msg::opening(Kind::Control, script.id(), verb::CLOSE);
    let said = Error::internal("\u{e9}".repeat(100_000));
    let error = script.send(close.error(said.clone())).unwrap_err();
    assert_eq!(error, ConnectionError::ClosedByPeer(Some(said)), "the connection itself says all of it");
    let outcomes = script.outcomes();
    assert_eq!(outcomes.len(), 100);
    for (_, outcome) in outcomes {
        let message = outcome.unwrap_err().message;
        assert!(message.starts_with("connection closed by the peer: internal: \u{e9}"), "{message}");
        assert!(message.capacity() <= 1024, "{}", message.capacity());
    }
}
