//! Calls whose session is lost, where the connection gets a fresh one (§9.9, §10.9).

use fluxar_proto::message::{Id, Kind, key, verb};
use fluxar_proto::{CallError, CallId, Code, Config, ConnectionError, Error, Event, RespondError, Withdrawn};

use crate::support::{
    Msg, Script, blob, capacities, failed_with, features, ms, one, options, outcomes, requests, uint,
    withdrawn,
};

const ALL: [&str; 2] = ["stream", "pubsub"];

fn script() -> Script {
    Script::reconnecting(|_| {}, &[])
}

fn call(script: &mut Script, method: &str, options: fluxar_proto::CallOptions) -> CallId {
    script.connection.call(script.now, method, uint(7), options).unwrap()
}

fn respond(script: &mut Script, wire: Id) {
    let response = Msg::continuation(Kind::Call, script.id(), wire).payload(uint(8));
    script.send(response).unwrap();
}

fn methods(messages: &[Msg]) -> Vec<&str> {
    messages.iter().map(|message| message.target.as_deref().unwrap_or_default()).collect()
}

// spec: §9.9, §10.9, §16.4
#[test]
fn what_was_never_sent_waits_what_is_idempotent_is_made_again_and_the_rest_fails() {
    let mut script = script();
    let plain = call(&mut script, "plain", options());
    let safe = call(&mut script, "safe", options().with_idempotent());
    let first = script.read();
    assert_eq!(methods(&first), ["plain", "safe"]);
    let late = call(&mut script, "late", options());
    let lost = script.lose_session();
    assert_eq!((lost.calls, lost.streams, lost.subscriptions), (1, 0, 0));
    assert_eq!(lost.why, ConnectionError::LinkLost { unread: 0 });
    let (id, result) = one(script.outcomes());
    assert_eq!((id, failed_with(&result)), (plain, (Code::UNAVAILABLE, None)));
    // While there is no link calls are accepted too.
    let meanwhile = call(&mut script, "meanwhile", options());
    script.renew(features(&ALL, &[]));
    let sent = script.read();
    assert_eq!(methods(&sent), ["safe", "late", "meanwhile"]);
    // To the peer it is another call, to the application the same.
    assert_ne!(sent[0].id, first[1].id);
    assert_eq!(sent[0].payload, first[1].payload);
    assert_eq!(sent[1].id, late.wire_id());
    for message in &sent {
        respond(&mut script, message.id);
    }
    let done: Vec<_> = script.outcomes().into_iter().map(|(id, result)| (id, result.unwrap())).collect();
    assert_eq!(done, [safe, late, meanwhile].map(|id| (id, uint(8))));
    let stats = script.connection.stats();
    assert_eq!((stats.calls_in_flight, stats.queued_bytes, stats.calls_made), (0, 0, 4));
}

// spec: §10.9, §16.4
#[test]
fn without_the_options_leave_nothing_is_made_again() {
    // An idempotent call whose connection does not come back ends as any other.
    let mut script = Script::initiator(&crate::support::config(|_| {}));
    call(&mut script, "safe", options().with_idempotent());
    assert_eq!(script.connection.stats().queued_bytes, 128 + 1);
    script.read();
    assert_eq!(script.connection.stats().queued_bytes, 0);
    script.connection.handle_eof(script.now, 0).unwrap_err();
    assert_eq!(failed_with(&one(script.outcomes()).1), (Code::UNAVAILABLE, None));
}

// spec: §9.9
#[test]
fn an_idempotent_call_survives_any_number_of_sessions_and_its_late_answers_mean_nothing() {
    let mut script = script();
    let safe = call(&mut script, "safe", options().with_idempotent());
    let mut wires = vec![one(script.read()).id];
    for _ in 0..3 {
        assert_eq!(script.lose_session().calls, 0);
        script.renew(features(&ALL, &[]));
        wires.push(one(script.read()).id);
    }
    // The answer to what was sent in another session is none.
    let dropped = script.connection.stats().dropped;
    respond(&mut script, wires[1]);
    assert_eq!(script.connection.stats().dropped, dropped + 1);
    assert_eq!(script.outcomes(), []);
    respond(&mut script, wires[3]);
    let (id, result) = one(script.outcomes());
    assert_eq!((id, result.unwrap()), (safe, uint(8)));
    wires.sort();
    wires.dedup();
    assert_eq!(wires.len(), 4, "each time another id");
}

// spec: §10.5, §10.9
#[test]
fn deadlines_run_on_and_only_what_was_never_sent_was_certainly_not_processed() {
    let mut script = script();
    let safe = call(&mut script, "safe", options().with_idempotent().with_timeout(ms(500)));
    assert_eq!(one(script.read()).meta_u64(key::TIMEOUT_MS), Some(500));
    script.wait(ms(100)).unwrap();
    script.lose_session();
    let late = call(&mut script, "late", options().with_timeout(ms(400)));
    script.wait(ms(399)).unwrap();
    assert_eq!(script.outcomes(), []);
    script.wait(ms(1)).unwrap();
    let mut ended = script.outcomes();
    ended.sort_by_key(|(id, _)| *id);
    let ended: Vec<_> = ended.iter().map(|(id, result)| (*id, failed_with(result))).collect();
    let exceeded = Code::DEADLINE_EXCEEDED;
    assert_eq!(ended, [(safe, (exceeded, None)), (late, (exceeded, Some(false)))]);
    // Nobody there knows of them, so that nobody is told.
    script.renew(features(&ALL, &[]));
    assert_eq!(script.read(), []);
    assert_eq!(script.connection.stats().queued_bytes, 0);
}

// spec: §10.5
#[test]
fn what_is_made_again_says_the_time_that_is_left() {
    let mut script = script();
    call(&mut script, "safe", options().with_idempotent().with_timeout(ms(500)));
    script.read();
    script.lose_session();
    script.wait(ms(200)).unwrap();
    script.renew(features(&ALL, &[]));
    let again = one(script.read());
    assert_eq!(again.meta_u64(key::TIMEOUT_MS), Some(300));
    // It is known there, so that its end is told, by the id that it has there.
    script.wait(ms(300)).unwrap();
    let cancel = one(script.read());
    assert_eq!((cancel.target.as_deref(), cancel.reference), (Some(verb::CANCEL), Some(again.id)));
    assert_eq!(failed_with(&one(script.outcomes()).1), (Code::DEADLINE_EXCEEDED, None));
}

// spec: §10.4, §9.9
#[test]
fn a_call_that_is_cancelled_in_between_is_not_made_again() {
    let mut script = script();
    let sent = call(&mut script, "sent", options().with_idempotent());
    // What was to be said of this one belongs to its session.
    let gone = call(&mut script, "gone", options());
    script.read();
    script.connection.cancel(script.now, gone).unwrap();
    let queued = call(&mut script, "queued", options());
    script.lose_session();
    script.connection.cancel(script.now, sent).unwrap();
    script.connection.cancel(script.now, queued).unwrap();
    script.renew(features(&ALL, &[]));
    assert_eq!(script.read(), []);
    assert_eq!(script.outcomes(), []);
    assert_eq!(script.connection.stats().calls_in_flight, 0);
    assert_eq!(script.connection.stats().queued_bytes, 0);
}

// spec: §10.3
#[test]
fn updates_go_with_their_call_and_are_not_repeated() {
    let mut script = script();
    let sent = call(&mut script, "sent", options().with_idempotent());
    script.connection.update(sent, uint(1)).unwrap();
    script.read();
    script.connection.update(sent, uint(2)).unwrap();
    let queued = call(&mut script, "queued", options());
    script.connection.update(queued, uint(3)).unwrap();
    script.lose_session();
    script.connection.update(sent, uint(4)).unwrap();
    script.renew(features(&ALL, &[]));
    let messages = script.read();
    assert_eq!(methods(&messages), ["sent", "queued", "update", "update"]);
    let told = |at: usize| (messages[at].reference, messages[at].payload.clone());
    assert_eq!(told(2), (Some(messages[1].id), uint(3).as_bytes().to_vec()));
    assert_eq!(told(3), (Some(messages[0].id), uint(4).as_bytes().to_vec()));
    assert_eq!(script.connection.stats().queued_bytes, 128 + 1, "the idempotent call is kept");
}

// spec: §10.9, §10.6
#[test]
fn requests_of_the_peer_are_withdrawn_and_keep_their_slots_until_they_are_answered() {
    let mut script = Script::reconnecting(|c| c.limits.max_calls = 1, &[]);
    let wire = script.call("m");
    let request = one(requests(&script.events())).id;
    let lost = script.lose_session();
    assert_eq!(lost.calls, 0, "only our own are counted");
    assert_eq!(withdrawn(&script.events()), [(request, Withdrawn::ConnectionLost)]);
    script.renew(features(&ALL, &[]));
    // The same id is another request, for which there is no room yet.
    script.send(Msg::opening(Kind::Call, wire, "m")).unwrap();
    assert_eq!(one(script.read()).code(), Code::RESOURCE_EXHAUSTED);
    assert_eq!(script.connection.respond(request, Ok(uint(1))), Err(RespondError::Gone));
    assert_eq!(script.read(), []);
    script.send(Msg::opening(Kind::Call, wire, "m")).unwrap();
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(uint(1))).unwrap();
    assert_eq!(one(script.read()).reference, Some(wire));
    let stats = script.connection.stats();
    assert_eq!((stats.requests_running, stats.request_bytes, stats.queued_bytes), (0, 0, 0));
}

// spec: §10.9
#[test]
fn answers_that_waited_to_be_sent_are_lost_with_their_session() {
    let mut script = script();
    script.call("m");
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(uint(1))).unwrap();
    script.call("refused");
    let request = one(requests(&script.events())).id;
    let error = Error::unimplemented("no");
    script.connection.refuse(script.now, request, error).unwrap();
    script.lose_session();
    script.renew(features(&ALL, &[]));
    assert_eq!(script.read(), []);
    let stats = script.connection.stats();
    assert_eq!((stats.requests_running, stats.request_bytes, stats.queued_bytes), (0, 0, 0));
}

// spec: §9.9, §10.6, §5.13
#[test]
fn the_limits_of_the_fresh_session_hold_for_what_was_queued() {
    let mut script = script();
    let mut calls = Vec::new();
    calls.push(call(&mut script, "one", options()));
    let large = script.connection.call(script.now, "large", blob(2_000), options()).unwrap();
    calls.extend(["two", "three"].map(|method| call(&mut script, method, options())));
    script.lose_session();
    script.renew(features(&ALL, &[("max_message", 1_024), ("max_calls", 2)]));
    assert_eq!(methods(&script.read()), ["one", "two"]);
    let ended: Vec<_> = script.outcomes().iter().map(|(id, result)| (*id, failed_with(result))).collect();
    let (size, number) = (Code::MESSAGE_TOO_LARGE, Code::RESOURCE_EXHAUSTED);
    assert_eq!(ended, [(large, (size, Some(false))), (calls[2], (number, Some(false)))]);
    assert_eq!(script.connection.stats().queued_bytes, 0);
    let refused = script.connection.call(script.now, "more", uint(0), options());
    assert!(matches!(refused, Err(CallError::Blocked)));
}

// spec: §10.6
#[test]
fn who_was_turned_away_learns_of_room_in_the_fresh_session() {
    let mut script = Script::reconnecting(|_| {}, &[("max_calls", 1)]);
    let sent = call(&mut script, "sent", options());
    script.read();
    assert!(matches!(
        script.connection.call(script.now, "more", uint(0), options()),
        Err(CallError::Blocked)
    ));
    script.lose_session();
    let events = script.events();
    assert_eq!(one(outcomes(&mut script.connection, &events)).0, sent);
    let again = script.events();
    assert_eq!(capacities(&events) + capacities(&again), 1);
    call(&mut script, "more", options());
    script.renew(features(&ALL, &[("max_calls", 5)]));
    assert_eq!(script.connection.call_room(), 4);
}

// spec: §10.9
#[test]
fn what_is_kept_for_a_fresh_session_counts_against_the_send_buffer() {
    let small = |c: &mut Config| c.send_buffer = 1_000;
    let mut script = Script::reconnecting(small, &[]);
    let safe = options().with_idempotent();
    script.connection.call(script.now, "m", blob(900), safe.clone()).unwrap();
    let wire = one(script.read()).id;
    assert_eq!(script.connection.stats().queued_bytes, 1_028);
    assert!(matches!(script.connection.call(script.now, "m", uint(0), safe), Err(CallError::Blocked)));
    respond(&mut script, wire);
    let events = script.events();
    assert_eq!((capacities(&events), script.connection.stats().queued_bytes), (1, 0));
}

// spec: §8.7, §9.9
#[test]
fn what_comes_behind_a_close_is_ignored_where_the_connection_lives_on() {
    let mut script = script();
    let call = call(&mut script, "plain", options());
    let wire = one(script.read()).id;
    let close = Msg::opening(Kind::Control, script.id(), verb::CLOSE).error(Error::unavailable("bye"));
    let response = Msg::continuation(Kind::Call, script.id(), wire).payload(uint(8));
    let request = Msg::opening(Kind::Call, script.id(), "late");
    let bytes = [close.frame(), response.frame(), request.frame(), vec![0, 0, 0, 9]].concat();
    script.send_bytes(&bytes).unwrap();
    assert!(script.connection.is_detached() && script.input.is_empty());
    let events = script.events();
    assert_eq!(requests(&events).len(), 0);
    let ended = one(outcomes(&mut script.connection, &events));
    assert_eq!((ended.0, failed_with(&ended.1)), (call, (Code::UNAVAILABLE, None)));
    script.renew(features(&ALL, &[]));
    assert_eq!(script.read(), []);
    assert_eq!(script.connection.stats().requests_running, 0);
}

// spec: §8.8, §9.9
#[test]
fn a_connection_that_is_closed_without_a_session_ends_what_waits_for_one() {
    let mut script = script();
    call(&mut script, "safe", options().with_idempotent());
    script.read();
    let late = call(&mut script, "late", options());
    script.lose_session();
    script.connection.close(script.now, None);
    let events = script.events();
    assert!(matches!(events.last(), Some(Event::Closed(ConnectionError::ClosedLocally(None)))));
    let ended = outcomes(&mut script.connection, &events);
    let ended: Vec<_> = ended.iter().map(|(id, result)| (*id == late, failed_with(result))).collect();
    assert_eq!(ended, [(false, (Code::UNAVAILABLE, None)), (true, (Code::UNAVAILABLE, Some(false)))]);
    assert!(script.connection.is_closed());
    assert_eq!(script.connection.stats().queued_bytes, 0);
}
