//! How many streams, how large their openings, and for how long (§11.7, §11.8).

use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::{Code, Error, Payload, SendError, StreamError, StreamId, StreamOptions, Withdrawn};

use crate::support::{
    A, B, ENDED, Last, Msg, Note, Pair, Script, Talk, at, blob, config, failed, hello, ms, notes, one,
    opened, streaming, take, uint,
};

/// The code and `processed` of a refusal of this opening.
#[track_caller]
fn refusal(script: &mut Script, opening: &Msg) -> (Code, Option<bool>) {
    let told = one(script.read());
    assert_eq!((told.kind, told.target.as_deref()), (Kind::Stream, Some(verb::END)));
    assert_eq!(told.reference, Some(opening.id));
    (told.code(), told.error.unwrap().processed)
}

fn open(script: &mut Script) -> Msg {
    let opening = Msg::opening(Kind::Stream, script.id(), "m");
    script.send(opening.clone()).unwrap();
    opening
}

fn told(script: &mut Script) -> Vec<Note> {
    notes(&script.events()).into_iter().map(|(_, note)| note).collect()
}

// spec: §11.8
#[test]
fn a_slot_is_free_when_the_stream_is_closed_and_its_handler_done() {
    type Act = fn(&mut Script, StreamId);
    let close: Act = |script, stream| {
        let end = Msg::continuation(Kind::Stream, script.id(), stream.wire_id()).verb(verb::END);
        script.send(end.error(Error::aborted("no"))).unwrap();
    };
    let release: Act = |script, stream| {
        script.connection.end_stream(stream, Payload::null()).ok();
        script.connection.release_stream(stream);
    };
    for acts in [[close, release], [release, close]] {
        let mut script = streaming(&config(|c| c.limits.max_streams = 2), &[]);
        for _ in 0..2 {
            open(&mut script);
        }
        let streams = opened(&script.events());
        for act in acts {
            let opening = open(&mut script);
            let told = script.read();
            let refused = told.iter().find(|message| message.reference == Some(opening.id)).unwrap();
            assert_eq!(
                (refused.target.as_deref(), refused.code()),
                (Some(verb::END), Code::RESOURCE_EXHAUSTED)
            );
            assert_eq!(refused.error.as_ref().unwrap().processed, Some(false));
            act(&mut script, streams[1].id);
        }
        open(&mut script);
        assert_eq!(opened(&script.events()).len(), 1);
        assert_eq!(script.connection.stats().refused, 2);
        assert_eq!(script.connection.stats().streams_serving, 2);
    }
}

// spec: §11.8, §5.14
#[test]
fn what_is_wrong_with_an_opening_is_judged_in_order() {
    let config = config(|c| c.limits.max_streams = 0);
    let mut script = streaming(&config, &[]);
    let cases = [
        (None, Code::RESOURCE_EXHAUSTED),
        (Some((key::TIMEOUT_MS, 0)), Code::DEADLINE_EXCEEDED),
        (Some((key::TIMEOUT_MS, 1)), Code::RESOURCE_EXHAUSTED),
    ];
    for (meta, code) in cases {
        let mut opening = Msg::opening(Kind::Stream, script.id(), "m");
        if let Some((key, value)) = meta {
            opening = opening.meta_uint(key, value);
        }
        script.send(opening.clone()).unwrap();
        assert_eq!(refusal(&mut script, &opening), (code, Some(false)));
    }
    for key in [key::TIMEOUT_MS, key::WINDOW] {
        let mut opening = Msg::opening(Kind::Stream, script.id(), "m").meta_uint(key, 1);
        *opening.meta.last_mut().unwrap() = 0x20;
        script.send(opening.clone()).unwrap();
        assert_eq!(refusal(&mut script, &opening), (Code::INVALID_ARGUMENT, Some(false)));
    }
    assert!(script.events().is_empty());
    let opening = Msg::opening(Kind::Stream, script.id(), "m").error(Error::aborted("no"));
    assert_eq!(script.send(opening).unwrap_err().code(), Code::MALFORMED);
}

// spec: §11.8, §10.8
#[test]
fn openings_that_hold_too_much_are_refused_but_never_the_only_one() {
    let mut script = streaming(&config(|c| c.request_bytes = 3_000), &[]);
    let open = |script: &mut Script, len| {
        let opening = Msg::opening(Kind::Stream, script.id(), "m").payload(blob(len));
        script.send(opening.clone()).unwrap();
        (opened(&script.events()).pop(), opening)
    };
    let (large, _) = open(&mut script, 10_000);
    let (none, opening) = open(&mut script, 30);
    assert!(none.is_none());
    assert_eq!(refusal(&mut script, &opening), (Code::RESOURCE_EXHAUSTED, Some(false)));
    let large = large.unwrap().id;
    script.connection.fail_stream(large, Error::aborted("no"));
    script.connection.release_stream(large);
    script.read();
    assert!(open(&mut script, 1_400).0.is_some());
    assert!(open(&mut script, 1_400).0.is_some());
    assert!(open(&mut script, 1_400).0.is_none());
}

// spec: §11.8
#[test]
fn who_finds_no_room_for_a_stream_is_told_once_when_there_is() {
    let mut script = Script::initiator_with(&config(|_| ()), hello(true, &[("max_streams", 2)]));
    let now = script.now;
    let open = |script: &mut Script| script.connection.open_stream(now, "m", uint(0), StreamOptions::new());
    let streams = [open(&mut script).unwrap(), open(&mut script).unwrap()];
    script.read();
    for _ in 0..3 {
        assert_eq!(open(&mut script), Err(StreamError::Blocked));
        assert_eq!(script.connection.ready_to_stream(), Err(StreamError::Blocked));
    }
    assert_eq!((script.connection.stream_room(), told(&mut script)), (0, vec![]));
    script.connection.cancel_stream(streams[0], None);
    script.read();
    assert_eq!(open(&mut script), Err(StreamError::Blocked), "open until the other side has answered");
    assert_eq!(told(&mut script), [Note::Readable]);
    for stream in streams {
        let end = Msg::continuation(Kind::Stream, script.id(), stream.wire_id()).verb(verb::END);
        script.send(end.error(Error::cancelled(""))).unwrap();
    }
    let noted = told(&mut script);
    assert_eq!(noted.iter().filter(|note| **note == Note::Capacity).count(), 1, "{noted:?}");
    assert_eq!(script.connection.stream_room(), 2);
    script.connection.want_stream_capacity();
    assert_eq!(told(&mut script), [Note::Capacity], "there is room already");
    assert!(open(&mut script).is_ok());
    script.connection.want_stream_capacity();
    assert_eq!(told(&mut script), [], "there is no more than there was");
    open(&mut script).unwrap();
    script.connection.want_stream_capacity();
    assert_eq!(told(&mut script), [], "there is none");
}

// spec: §11.8
#[test]
fn an_opener_that_is_refused_learns_why_and_that_nothing_was_done() {
    let mut pair = Pair::established(&config(|c| c.limits.max_streams = 1));
    let now = pair.now;
    let open = |pair: &mut Pair| pair.a().open_stream(now, "m", uint(0), StreamOptions::new());
    let first = open(&mut pair).unwrap();
    pair.drive();
    let accepted = one(opened(&pair.events(B))).id;
    pair.a().cancel_stream(first, None);
    pair.drive();
    // Closed at both sides, but its handler still runs.
    assert_eq!(pair.b().stats().streams_serving, 1);
    let second = open(&mut pair).unwrap();
    pair.a().send_item(second, uint(1)).unwrap();
    pair.drive();
    assert_eq!(take(pair.a(), second).1, Last::Failed(Code::RESOURCE_EXHAUSTED, Some(false)));
    pair.b().release_stream(accepted);
    let third = open(&mut pair).unwrap();
    pair.drive();
    assert_eq!(opened(&pair.events(B)).len(), 1);
    assert!(pair.a().is_streaming(third));
    assert_eq!([A, B].map(|end| pair.ends[end].error.clone()), [None, None]);
}

// spec: §11.7, §10.5
#[test]
fn the_time_left_is_told_as_it_stands_when_the_opening_leaves() {
    let mut script = Script::initiator_with(&config(|_| ()), hello(true, &[]));
    let options = StreamOptions::new().with_timeout(ms(100)).with_window(5);
    let stream = script.connection.open_stream(script.now, "m", uint(0), options).unwrap();
    script.now = at(29);
    let opening = one(script.read());
    let expected =
        crate::support::cbor(|out| out.map(2)?.str(key::WINDOW)?.u8(5)?.str(key::TIMEOUT_MS)?.u8(71)?.ok());
    assert_eq!(opening.meta, expected);
    assert_eq!(script.connection.poll_timeout(), Some(at(100)));
    script.wait(ms(71)).unwrap();
    let mut talk = Talk::over(script, stream);
    assert_eq!(talk.heard_error(), (verb::CANCEL.into(), Code::DEADLINE_EXCEEDED));
    assert_eq!(talk.take(), (vec![], failed(Code::DEADLINE_EXCEEDED)), "without waiting for the answer");
    let stream = talk.stream;
    assert_eq!(talk.connection().send_item(stream, uint(1)), Err(SendError::Gone));
    talk.say_error(verb::END, Code::DEADLINE_EXCEEDED).unwrap();
    assert!(!talk.still_open());
}

// spec: §11.7, §10.5
#[test]
fn a_stream_whose_time_is_up_before_it_is_sent_is_not_sent() {
    for fires in [true, false] {
        for timeout in [0, 10] {
            let mut script = Script::initiator_with(&config(|_| ()), hello(true, &[]));
            let options = StreamOptions::new().with_timeout(ms(timeout));
            let stream = script.connection.open_stream(script.now, "m", uint(0), options).unwrap();
            script.connection.send_item(stream, uint(1)).unwrap();
            if fires {
                script.wait(ms(timeout)).unwrap();
            } else {
                script.now = at(timeout);
            }
            assert!(script.read().is_empty());
            let last = Last::Failed(Code::DEADLINE_EXCEEDED, Some(false));
            assert_eq!(take(&mut script.connection, stream), (vec![], last));
            assert_eq!(script.connection.stats().streams_open, 0);
            assert_eq!(script.connection.stats().stream_queued_bytes, 0);
        }
    }
}

/// A stream that the script has opened for 50 ms.
fn for_50_ms(change: impl FnOnce(&mut fluxar_proto::Config)) -> Talk {
    let mut script = streaming(&config(change), &[]);
    let opening = Msg::opening(Kind::Stream, script.id(), "m").meta_uint(key::TIMEOUT_MS, 50);
    script.send(opening).unwrap();
    let opening = one(opened(&script.events()));
    assert!(opening.deadline.is_some());
    Talk::over(script, opening.id)
}

// spec: §11.7
#[test]
fn at_the_deadline_the_acceptor_ends_the_stream_whatever_it_has_ended_itself() {
    for ended in [false, true] {
        let mut talk = for_50_ms(|_| ());
        let stream = talk.stream;
        talk.data(uint(1)).unwrap();
        if ended {
            talk.connection().end_stream(stream, Payload::null()).unwrap();
            talk.messages();
        }
        talk.script.wait(ms(49)).unwrap();
        assert!(talk.messages().is_empty());
        talk.script.wait(ms(1)).unwrap();
        assert_eq!(talk.heard_error(), (verb::END.into(), Code::DEADLINE_EXCEEDED));
        assert_eq!(talk.notes(), [Note::Readable, Note::Withdrawn(Withdrawn::DeadlineExceeded)]);
        assert_eq!(talk.take(), (vec![uint(1)], failed(Code::DEADLINE_EXCEEDED)));
        // What the handler does now has no effect, and it keeps its slot until it has finished.
        assert_eq!(talk.connection().send_item(stream, uint(2)), Err(SendError::Gone));
        talk.connection().fail_stream(stream, Error::aborted("late"));
        assert_eq!(talk.connection().stats().streams_serving, 1);
        talk.connection().release_stream(stream);
        assert_eq!(talk.connection().stats().streams_serving, 0);
        assert!(talk.messages().is_empty());
        assert!(!talk.still_open());
    }
}

// spec: §11.7
#[test]
fn a_deadline_concerns_neither_what_is_closed_nor_what_is_cancelled() {
    let mut talk = for_50_ms(|_| ());
    let stream = talk.stream;
    talk.connection().cancel_stream(stream, None);
    talk.messages();
    talk.script.wait(ms(100)).unwrap();
    assert!(talk.messages().is_empty());
    assert!(talk.still_open(), "the other side has not answered");

    let mut talk = for_50_ms(|_| ());
    let stream = talk.stream;
    talk.connection().end_stream(stream, Payload::null()).unwrap();
    talk.say(verb::END).unwrap();
    talk.messages();
    talk.script.wait(ms(100)).unwrap();
    assert!(talk.messages().is_empty());
    assert_eq!((talk.take(), talk.notes()), ((vec![], ENDED), vec![Note::Readable]));
}

// spec: §11.7
#[test]
fn the_opener_gives_up_at_its_deadline_also_after_its_own_end() {
    for ended in [None, Some(true), Some(false)] {
        let mut script = Script::initiator_with(&config(|_| ()), hello(true, &[]));
        let options = StreamOptions::new().with_timeout(ms(50));
        let stream = script.connection.open_stream(script.now, "m", uint(0), options).unwrap();
        script.read();
        let mut talk = Talk::over(script, stream);
        match ended {
            Some(true) => talk.connection().end_stream(stream, Payload::null()).unwrap(),
            Some(false) => talk.say_with(verb::END, uint(1)).unwrap(),
            None => {}
        }
        talk.messages();
        talk.script.wait(ms(50)).unwrap();
        assert_eq!(talk.heard_error(), (verb::CANCEL.into(), Code::DEADLINE_EXCEEDED));
        let last = if ended == Some(false) { Last::End(uint(1)) } else { failed(Code::DEADLINE_EXCEEDED) };
        assert_eq!(talk.take(), (vec![], last));
        assert!(talk.still_open(), "until the answer comes");
    }
}

// spec: §11.7, §10.5
#[test]
fn the_acceptor_may_have_a_maximum_of_its_own() {
    let mut talk = for_50_ms(|c| c.max_deadline = Some(ms(20)));
    assert_eq!(talk.script.connection.poll_timeout(), Some(at(20)));
    talk.script.wait(ms(20)).unwrap();
    assert_eq!(talk.heard_error(), (verb::END.into(), Code::DEADLINE_EXCEEDED));

    let mut talk = Talk::accepted(&config(|c| c.max_deadline = Some(ms(20))), &[]);
    talk.script.wait(ms(20)).unwrap();
    assert_eq!(talk.heard_error(), (verb::END.into(), Code::DEADLINE_EXCEEDED));
    // It does not concern what this side opens.
    let mut talk = Talk::opened(&config(|c| c.max_deadline = Some(ms(20))), &[]);
    talk.script.wait(ms(1_000)).unwrap();
    assert!(talk.messages().is_empty());
}

// spec: §11.7
#[test]
fn both_sides_give_up_and_nothing_is_left() {
    for latency in [0, 1, 30, 49, 50, 51, 200] {
        let mut pair = Pair::established(&config(|_| ()));
        pair.latency = ms(latency);
        let (now, options) = (pair.now, StreamOptions::new().with_timeout(ms(50)));
        let stream = pair.a().open_stream(now, "m", uint(0), options).unwrap();
        pair.wait(ms(1_000));
        for opening in opened(&pair.events(B)) {
            assert_eq!(take(pair.b(), opening.id).1, failed(Code::DEADLINE_EXCEEDED));
            pair.b().release_stream(opening.id);
        }
        assert_eq!(take(pair.a(), stream).1, failed(Code::DEADLINE_EXCEEDED));
        pair.a().release_stream(stream);
        for end in [A, B] {
            let stats = pair.side(end).stats();
            assert_eq!((stats.streams_open, stats.streams_serving), (0, 0));
            assert_eq!(pair.ends[end].error, None);
        }
    }
}

// spec: §15.3
#[test]
fn one_item_is_queued_also_where_the_buffer_is_nothing() {
    for mut talk in Talk::both(&config(|c| c.stream_buffer = 0)) {
        let stream = talk.stream;
        for n in 0..3 {
            assert_eq!(talk.connection().send_item(stream, uint(n)), Ok(()));
            assert_eq!(talk.connection().send_item(stream, uint(n)), Err(SendError::Blocked));
            assert_eq!(talk.heard(), [(String::new(), uint(n))]);
            assert_eq!(talk.notes(), [Note::Writable]);
        }
    }
}
