//! Streams whose session is lost, where the connection gets a fresh one (§8.8, §9.9).

use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::{Code, SendError, StreamError, StreamId, StreamOptions, Withdrawn};

use crate::support::{Last, Msg, Note, Script, blob, failed, features, ms, notes, one, opened, take, uint};

const ALL: [&str; 2] = ["stream", "pubsub"];

fn open(script: &mut Script, method: &str) -> StreamId {
    script.connection.open_stream(script.now, method, uint(0), StreamOptions::new()).unwrap()
}

fn script(limits: &[(&str, u64)]) -> Script {
    Script::reconnecting(|_| {}, limits)
}

// spec: §8.8, §9.9
#[test]
fn streams_end_on_both_sides_and_those_never_opened_wait() {
    let mut script = script(&[]);
    let ours = open(&mut script, "ours");
    script.read();
    script.connection.send_item(ours, uint(1)).unwrap();
    let wire = script.id();
    script.send(Msg::opening(Kind::Stream, wire, "theirs")).unwrap();
    let theirs = one(opened(&script.events())).id;
    let item = Msg::continuation(Kind::Stream, script.id(), wire).payload(uint(5));
    script.send(item).unwrap();
    let late = open(&mut script, "late");
    for n in 2..4 {
        script.connection.send_item(late, uint(n)).unwrap();
    }
    let lost = script.lose_session();
    assert_eq!((lost.calls, lost.streams, lost.subscriptions), (0, 2, 0));
    let events = notes(&script.events());
    assert!(events.contains(&(Some(theirs), Note::Withdrawn(Withdrawn::ConnectionLost))));
    assert_eq!(take(&mut script.connection, ours), (vec![], failed(Code::UNAVAILABLE)));
    // What has come stays readable.
    assert_eq!(take(&mut script.connection, theirs), (vec![uint(5)], failed(Code::UNAVAILABLE)));
    for stream in [ours, theirs] {
        assert_eq!(script.connection.send_item(stream, uint(9)), Err(SendError::Gone));
        script.connection.release_stream(stream);
    }
    script.connection.send_item(late, uint(4)).unwrap();
    script.connection.end_stream(late, uint(5)).unwrap();
    script.renew(features(&ALL, &[]));
    let sent = script.read();
    let targets: Vec<_> = sent.iter().map(|message| message.target.as_deref()).collect();
    assert_eq!(targets, [Some("late"), Some(verb::ITEMS), Some(verb::END)]);
    assert_eq!(sent[0].id, late.wire_id());
    let end = Msg::continuation(Kind::Stream, script.id(), late.wire_id()).verb(verb::END);
    script.send(end).unwrap();
    assert!(matches!(take(&mut script.connection, late).1, Last::End(_)));
    script.connection.release_stream(late);
    let stats = script.connection.stats();
    assert_eq!((stats.streams_open, stats.streams_serving), (0, 0));
    assert_eq!((stats.stream_queued_bytes, stats.stream_held_bytes), (0, 0));
}

// spec: §11.5
#[test]
fn what_waited_gets_the_credit_of_the_fresh_session() {
    for (window, messages) in [(0, 1), (1, 2), (10_000, 3)] {
        let mut script = script(&[("stream_window", 5_000)]);
        let stream = open(&mut script, "m");
        for _ in 0..2 {
            script.connection.send_item(stream, blob(4_000)).unwrap();
        }
        script.lose_session();
        script.renew(features(&ALL, &[("stream_window", window)]));
        assert_eq!(script.read().len(), messages, "with a window of {window}");
    }
}

// spec: §9.9, §11.8, §5.13
#[test]
fn the_limits_of_the_fresh_session_hold_for_what_was_queued() {
    let mut script = script(&[]);
    let streams = ["one", "two", "three", "four"].map(|method| open(&mut script, method));
    script.connection.send_item(streams[1], blob(2_000)).unwrap();
    script.lose_session();
    script.renew(features(&ALL, &[("max_message", 1_024), ("max_streams", 2)]));
    let sent: Vec<_> = script.read().into_iter().map(|message| message.id).collect();
    assert_eq!(sent, [streams[0].wire_id(), streams[2].wire_id()]);
    let ended = [1, 3].map(|n| take(&mut script.connection, streams[n]).1);
    let refused = |code| Last::Failed(code, Some(false));
    assert_eq!(ended, [refused(Code::MESSAGE_TOO_LARGE), refused(Code::RESOURCE_EXHAUSTED)]);
    // What is queued from now on is cut as the fresh peer wants it.
    for n in 0..600 {
        script.connection.send_item(streams[0], uint(1_000_000 + n)).unwrap();
    }
    let sent = script.read();
    assert!(sent.len() > 2 && sent.iter().all(|message| message.body().len() <= 1_024));
    let error = script.connection.send_item(streams[0], blob(1_020)).unwrap_err();
    assert!(matches!(error, SendError::TooLarge { limit: 1_024, .. }), "{error:?}");
}

// spec: §9.9, §6.6
#[test]
fn a_fresh_session_without_streams_ends_those_that_waited() {
    let mut script = script(&[]);
    let stream = open(&mut script, "m");
    script.connection.send_item(stream, uint(1)).unwrap();
    script.lose_session();
    script.renew(features(&["pubsub"], &[]));
    assert_eq!(script.read(), []);
    let refused = Last::Failed(Code::UNIMPLEMENTED, Some(false));
    assert_eq!(take(&mut script.connection, stream), (vec![], refused));
    script.connection.release_stream(stream);
    let stats = script.connection.stats();
    assert_eq!((stats.streams_open, stats.stream_queued_bytes), (0, 0));
    let again = script.connection.open_stream(script.now, "m", uint(0), StreamOptions::new());
    assert_eq!(again, Err(StreamError::NotNegotiated));
}

// spec: §11.7
#[test]
fn deadlines_of_streams_that_wait_run_on() {
    let mut script = script(&[]);
    let timeout = |after| StreamOptions::new().with_timeout(ms(after));
    let [short, long] = [300, 900]
        .map(|after| script.connection.open_stream(script.now, "m", uint(0), timeout(after)).unwrap());
    script.lose_session();
    script.wait(ms(400)).unwrap();
    let exceeded = Last::Failed(Code::DEADLINE_EXCEEDED, Some(false));
    assert_eq!(take(&mut script.connection, short), (vec![], exceeded));
    script.renew(features(&ALL, &[]));
    let opening = one(script.read());
    assert_eq!((opening.id, opening.meta_u64(key::TIMEOUT_MS)), (long.wire_id(), Some(500)));
}

// spec: §11.8
#[test]
fn who_was_turned_away_learns_of_room_in_the_fresh_session() {
    let mut script = script(&[("max_streams", 1)]);
    let waiting = open(&mut script, "waits");
    let more = script.connection.open_stream(script.now, "more", uint(0), StreamOptions::new());
    assert_eq!(more, Err(StreamError::Blocked));
    script.lose_session();
    assert_eq!(notes(&script.events()), []);
    script.renew(features(&ALL, &[("max_streams", 2)]));
    assert_eq!(notes(&script.events()), [(None, Note::Capacity)]);
    assert_eq!(one(script.read()).id, waiting.wire_id());
    open(&mut script, "more");
}
