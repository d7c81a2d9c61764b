//! Streams that are given up: cancels from either side, crossing, late, and too many (§11.4).

use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{
    Code, ConnectionError, Error, Payload, SendError, StreamId, StreamOptions, Violation, Withdrawn,
};

use crate::support::{
    A, B, ENDED, Msg, Note, Pair, Script, Talk, config, failed, hello, is_close, ms, notes, one, opened,
    streaming, take, uint,
};

fn pair() -> (Pair, StreamId, StreamId) {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let stream = pair.a().open_stream(now, "m", uint(0), StreamOptions::new()).unwrap();
    pair.drive();
    let accepted = one(opened(&pair.events(B))).id;
    (pair, stream, accepted)
}

/// Nobody holds anything any more.
fn check_over(pair: &mut Pair, streams: [StreamId; 2]) {
    pair.drive();
    for (end, stream) in [A, B].into_iter().zip(streams) {
        assert_eq!(pair.ends[end].error, None);
        pair.side(end).release_stream(stream);
        assert!(pair.side(end).poll_stream(stream).is_err());
        let stats = pair.side(end).stats();
        assert_eq!((stats.streams_open, stats.streams_serving), (0, 0), "{stats:?}");
        assert_eq!((stats.stream_held_bytes, stats.stream_queued_bytes), (0, 0), "{stats:?}");
    }
}

// spec: §11.4
#[test]
fn a_cancel_gives_the_whole_stream_up_from_either_side() {
    for (error, code) in [(None, Code::CANCELLED), (Some(Error::new(Code(77), "enough")), Code(77))] {
        for ended in [false, true] {
            for mut talk in Talk::both(&config(|_| ())) {
                let stream = talk.stream;
                if ended {
                    talk.connection().end_stream(stream, uint(1)).unwrap();
                    talk.messages();
                } else {
                    talk.connection().send_item(stream, uint(2)).unwrap();
                }
                talk.data(uint(3)).unwrap();
                talk.connection().cancel_stream(stream, error.clone());
                let told = one(talk.messages());
                assert_eq!((told.target.as_deref(), &told.payload[..]), (Some(verb::CANCEL), &[0xf6][..]));
                assert_eq!(told.error, error, "and what was queued is dropped");
                assert_eq!(talk.take(), (vec![], failed(Code::CANCELLED)));
                assert_eq!(talk.connection().send_item(stream, uint(4)), Err(SendError::Gone));

                talk.data(uint(5)).unwrap();
                talk.say_with(verb::ITEMS, uint(6)).unwrap();
                talk.say(verb::PAUSE).unwrap();
                assert_eq!(talk.dropped(), 3);
                talk.say_error(verb::END, Code::CANCELLED).unwrap();
                assert_eq!((talk.dropped(), talk.messages()), (3, vec![]));
                assert!(!talk.still_open());
            }
        }
        // The other side of it.
        for ended in [false, true] {
            for mut talk in Talk::both(&config(|_| ())) {
                let stream = talk.stream;
                if ended {
                    talk.connection().end_stream(stream, Payload::null()).unwrap();
                    talk.messages();
                }
                talk.connection().send_item(stream, uint(2)).ok();
                let cancel = talk.message(Some(verb::CANCEL));
                let cancel = error.clone().map_or(cancel.clone(), |error| cancel.error(error));
                talk.script.send(cancel).unwrap();
                assert_eq!(talk.heard_error(), (verb::END.into(), Code::CANCELLED), "and nothing else");
                assert_eq!(talk.take(), (vec![], failed(code)));
                assert!(!talk.still_open());
            }
        }
    }
}

// spec: §11.4
#[test]
fn only_the_handler_is_told_that_nobody_waits() {
    let config = config(|_| ());
    let mut talk = Talk::opened(&config, &[]);
    talk.say(verb::CANCEL).unwrap();
    assert_eq!(talk.notes(), [Note::Readable]);
    let mut talk = Talk::accepted(&config, &[]);
    talk.say(verb::CANCEL).unwrap();
    assert_eq!(talk.notes(), [Note::Readable, Note::Withdrawn(Withdrawn::Cancelled)]);
}

// spec: §11.4, §11.3
#[test]
fn cancels_that_cross_need_no_answer() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.connection().cancel_stream(stream, None);
        assert_eq!(talk.messages().len(), 1);
        talk.say(verb::CANCEL).unwrap();
        assert!(talk.messages().is_empty());
        assert!(!talk.still_open());
    }
    // Where ours has not left yet, the other side still waits for it.
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.connection().cancel_stream(stream, None);
        talk.say(verb::CANCEL).unwrap();
        assert_eq!(talk.heard(), [(verb::CANCEL.into(), Payload::null())]);
        assert!(!talk.still_open());
    }
}

// spec: §11.4, §11.3
#[test]
fn a_cancel_that_crosses_an_end_closes_on_both_sides() {
    // What each side does before it hears of the other.
    let acts: [fn(&mut Pair, usize, StreamId); 5] = [
        |pair, end, stream| pair.side(end).cancel_stream(stream, None),
        |pair, end, stream| pair.side(end).end_stream(stream, uint(1)).unwrap(),
        |pair, end, stream| pair.side(end).fail_stream(stream, Error::aborted("no")),
        |pair, end, stream| pair.side(end).send_item(stream, uint(1)).unwrap(),
        |pair, end, stream| pair.side(end).release_stream(stream),
    ];
    for (n, first) in acts.into_iter().enumerate() {
        for second in acts {
            for cancels in [false, true] {
                let (mut pair, stream, accepted) = pair();
                pair.latency = ms(10);
                first(&mut pair, A, stream);
                pair.step();
                second(&mut pair, B, accepted);
                pair.step();
                if cancels {
                    pair.a().cancel_stream(stream, None);
                    pair.step();
                    pair.b().cancel_stream(accepted, None);
                } else if n != 0 {
                    pair.b().fail_stream(accepted, Error::aborted("no"));
                }
                check_over(&mut pair, [stream, accepted]);
            }
        }
    }
}

// spec: §11.4, §11.9
#[test]
fn a_stream_that_was_not_sent_is_given_up_without_a_message() {
    let ends: [fn(&mut Script, StreamId); 4] = [
        |script, stream| script.connection.cancel_stream(stream, None),
        |script, stream| script.connection.fail_stream(stream, Error::aborted("no")),
        |script, stream| script.connection.release_stream(stream),
        |script, stream| {
            script.connection.send_item(stream, uint(1)).unwrap();
            script.connection.release_sender(stream);
        },
    ];
    for end in ends {
        let mut script = Script::initiator_with(&config(|_| ()), hello(true, &[("max_streams", 1)]));
        let now = script.now;
        let stream = script.connection.open_stream(now, "m", uint(0), StreamOptions::new()).unwrap();
        assert_eq!(script.connection.stream_room(), 0);
        end(&mut script, stream);
        assert!(script.read().is_empty());
        assert_eq!((script.connection.stream_room(), script.connection.stats().streams_open), (1, 0));
        script.connection.release_stream(stream);
        assert!(script.connection.poll_stream(stream).is_err());
        assert!(!script.connection.wants_transmit());
    }
}

// spec: §11.4, §5.15, §10.7
#[test]
fn late_and_unknown_cancels_are_dropped_and_counted_and_cost_as_much_as_others() {
    let config = config(|c| (c.misuse_capacity, c.misuse_per_second) = (3, 0));
    for mut talk in Talk::both(&config) {
        let stream = talk.stream;
        talk.connection().end_stream(stream, Payload::null()).unwrap();
        talk.say(verb::END).unwrap();
        assert_eq!(talk.heard(), [(verb::END.into(), Payload::null())]);
        talk.say(verb::CANCEL).unwrap();
        assert_eq!(talk.take(), (vec![], ENDED), "both directions had ended");
        talk.wire = talk.script.id();
        talk.say(verb::CANCEL).unwrap();
        talk.say(verb::END).unwrap();
        talk.data(uint(1)).unwrap();
        assert_eq!((talk.dropped(), talk.messages()), (4, vec![]));
        talk.say(verb::CANCEL).unwrap();
        let flood = talk.say(verb::CANCEL).unwrap_err();
        assert_eq!(flood, ConnectionError::Violation(Violation::Flood));
        assert!(is_close(&one(talk.messages()), Some(Code::RESOURCE_EXHAUSTED)));
    }
    for mut talk in Talk::both(&config) {
        // Those that cross our own cancel cost as much.
        for _ in 0..2 {
            let wire = std::mem::replace(&mut talk.wire, crate::support::id(999));
            talk.say(verb::CANCEL).unwrap();
            talk.wire = wire;
        }
        let stream = talk.stream;
        talk.connection().cancel_stream(stream, None);
        talk.say(verb::CANCEL).unwrap();
        assert_eq!(talk.say(verb::CANCEL).unwrap_err().code(), Code::RESOURCE_EXHAUSTED);
    }
}

// spec: §10.7, §11.8
#[test]
fn a_peer_that_opens_and_cancels_for_ever_loses_the_connection() {
    let mut script = streaming(&config(|c| (c.misuse_capacity, c.misuse_per_second) = (100, 0)), &[]);
    for n in 0..=100 {
        let opening = Msg::opening(Kind::Stream, script.id(), "m");
        script.send(opening.clone()).unwrap();
        let cancel = Msg::continuation(Kind::Stream, script.id(), opening.id).verb(verb::CANCEL);
        let outcome = script.send(cancel);
        assert_eq!(outcome.is_ok(), n < 100, "{n}");
        for opening in opened(&script.events()) {
            script.connection.release_stream(opening.id);
        }
    }
    assert!(is_close(&script.read().pop().unwrap(), Some(Code::RESOURCE_EXHAUSTED)));
    assert_eq!(script.connection.stats().streams_serving, 0);
}

// spec: §11.4, §5.13
#[test]
fn a_cancel_whose_error_does_not_fit_keeps_its_code() {
    let limits = [("max_message", 1_024)];
    for mut talk in [Talk::opened(&config(|_| ()), &limits), Talk::accepted(&config(|_| ()), &limits)] {
        let stream = talk.stream;
        talk.connection().cancel_stream(stream, Some(Error::new(Code(77), "x".repeat(1_000))));
        let told = one(talk.messages());
        assert_eq!((told.target.as_deref(), told.code()), (Some(verb::CANCEL), Code(77)));
        assert_eq!(told.error.unwrap().message, "");
    }
}

// spec: §11.4
#[test]
fn cancelling_twice_or_what_is_over_changes_nothing() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.connection().cancel_stream(stream, None);
        talk.connection().cancel_stream(stream, Some(Error::aborted("again")));
        talk.connection().fail_stream(stream, Error::aborted("again"));
        talk.connection().pause_stream(stream);
        talk.connection().release_stream(stream);
        assert_eq!(talk.heard(), [(verb::CANCEL.into(), Payload::null())]);
        assert!(talk.connection().poll_stream(stream).is_ok(), "not over before the answer");
        talk.say(verb::END).unwrap();
        assert!(talk.connection().poll_stream(stream).is_err());
        talk.connection().cancel_stream(stream, None);
        talk.connection().release_stream(stream);
        assert!(talk.messages().is_empty());
    }
}

// spec: §11.4
#[test]
fn items_that_came_before_a_cancel_are_there_and_then_its_error() {
    let (mut pair, stream, accepted) = pair();
    (0..100).for_each(|n| pair.a().send_item(stream, uint(n)).unwrap());
    pair.drive();
    pair.a().cancel_stream(stream, Some(Error::new(Code(77), "enough")));
    pair.drive();
    let (items, last) = take(pair.b(), accepted);
    assert_eq!((items.len(), last), (100, failed(Code(77))));
    assert_eq!(take(pair.a(), stream).1, failed(Code::CANCELLED));
    let told = notes(&pair.events(B));
    assert_eq!(told.iter().filter(|(_, note)| *note == Note::Readable).count(), 1);
    check_over(&mut pair, [stream, accepted]);
}
