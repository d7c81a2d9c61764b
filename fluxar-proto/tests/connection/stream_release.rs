//! Streams that the application lets go of, and streams of a connection that ends.

use fluxar_proto::message::verb;
use fluxar_proto::{Code, ConnectionError, Error, Payload, SendError, StreamError, StreamOptions, Withdrawn};

use crate::support::{
    A, B, Last, Note, Pair, Script, Talk, at, config, failed, hello, ms, notes, one, opened, take, uint,
};

/// Nothing more is said, and the stream is gone at the connection.
#[track_caller]
fn check_gone(talk: &mut Talk) {
    let stream = talk.stream;
    assert!(talk.messages().is_empty());
    assert!(talk.connection().poll_stream(stream).is_err());
    let stats = talk.connection().stats();
    assert_eq!((stats.streams_open, stats.streams_serving), (0, 0));
    assert_eq!((stats.stream_held_bytes, stats.stream_queued_bytes), (0, 0));
}

// spec: §11.3
#[test]
fn an_opener_that_never_sent_anything_just_ends_its_direction() {
    let mut talk = Talk::opened(&config(|_| ()), &[]);
    let stream = talk.stream;
    talk.connection().release_sender(stream);
    assert_eq!(talk.heard(), [(verb::END.into(), Payload::null())]);
    talk.data(uint(1)).unwrap();
    talk.say_with(verb::END, uint(2)).unwrap();
    assert_eq!(talk.take(), (vec![uint(1)], Last::End(uint(2))));
    talk.connection().release_receiver(stream);
    check_gone(&mut talk);
}

// spec: §11.3
#[test]
fn a_sender_that_is_let_go_before_its_end_fails_the_stream() {
    let [mut opener, acceptor] = Talk::both(&config(|_| ()));
    let stream = opener.stream;
    opener.connection().send_item(stream, uint(1)).unwrap();
    opener.messages();
    for mut talk in [opener, acceptor] {
        let stream = talk.stream;
        talk.connection().release_sender(stream);
        assert_eq!(talk.heard_error(), (verb::END.into(), Code::CANCELLED));
        assert_eq!(talk.take(), (vec![], failed(Code::CANCELLED)));
        talk.connection().release_receiver(stream);
        check_gone(&mut talk);
        assert!(!talk.still_open());
    }
}

// spec: §11.3
#[test]
fn a_sender_that_has_ended_is_let_go_without_a_word() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.connection().send_item(stream, uint(1)).unwrap();
        talk.connection().end_stream(stream, uint(2)).unwrap();
        talk.connection().release_sender(stream);
        assert_eq!(talk.heard(), [(String::new(), uint(1)), (verb::END.into(), uint(2))], "it goes out");
        talk.data(uint(3)).unwrap();
        assert_eq!(talk.take(), (vec![uint(3)], Last::Open));
        assert!(talk.still_open());
    }
}

// spec: §11.4
#[test]
fn an_opener_that_wants_nothing_more_cancels_unless_the_end_has_come() {
    let mut talk = Talk::opened(&config(|_| ()), &[]);
    let stream = talk.stream;
    talk.data(uint(1)).unwrap();
    talk.connection().release_receiver(stream);
    assert_eq!(talk.heard(), [(verb::CANCEL.into(), Payload::null())]);
    assert_eq!(talk.connection().send_item(stream, uint(2)), Err(SendError::Gone));
    talk.connection().release_sender(stream);
    assert!(talk.connection().poll_stream(stream).is_ok(), "the answer is still to come");
    talk.say(verb::END).unwrap();
    check_gone(&mut talk);

    let mut talk = Talk::opened(&config(|_| ()), &[]);
    talk.say(verb::END).unwrap();
    let stream = talk.stream;
    talk.connection().release_receiver(stream);
    assert!(talk.messages().is_empty());
    talk.connection().send_item(stream, uint(2)).unwrap();
    assert_eq!(talk.heard(), [(String::new(), uint(2))]);
}

// spec: §11.11, §11.4
#[test]
fn an_acceptor_that_is_done_cancels_only_when_data_comes_that_nobody_takes() {
    // Nothing comes but the end: in order.
    let mut talk = Talk::accepted(&config(|_| ()), &[]);
    let stream = talk.stream;
    talk.connection().end_stream(stream, uint(1)).unwrap();
    talk.connection().release_stream(stream);
    assert_eq!(talk.heard(), [(verb::END.into(), uint(1))]);
    talk.say(verb::END).unwrap();
    check_gone(&mut talk);

    // Data comes later.
    let mut talk = Talk::accepted(&config(|_| ()), &[]);
    let stream = talk.stream;
    talk.connection().end_stream(stream, uint(1)).unwrap();
    talk.connection().release_stream(stream);
    talk.messages();
    talk.data(uint(2)).unwrap();
    assert_eq!(talk.heard(), [(verb::CANCEL.into(), Payload::null())]);
    talk.data(uint(2)).unwrap();
    assert!(talk.heard().is_empty(), "once");
    talk.say(verb::END).unwrap();
    check_gone(&mut talk);

    // Data has come before, or comes between the last word and its leaving.
    for before in [true, false] {
        let mut talk = Talk::accepted(&config(|_| ()), &[]);
        let stream = talk.stream;
        if before {
            talk.data(uint(2)).unwrap();
        }
        talk.connection().end_stream(stream, uint(1)).unwrap();
        talk.connection().release_stream(stream);
        if !before {
            talk.data(uint(2)).unwrap();
        }
        assert_eq!(talk.heard(), [(verb::END.into(), uint(1)), (verb::CANCEL.into(), Payload::null())]);
        talk.say_error(verb::END, Code::CANCELLED).unwrap();
        check_gone(&mut talk);
    }

    // Its own direction goes on, although it reads nothing more: it says so when that has ended.
    let mut talk = Talk::accepted(&config(|_| ()), &[]);
    let stream = talk.stream;
    talk.connection().release_receiver(stream);
    talk.data(uint(2)).unwrap();
    talk.connection().send_item(stream, uint(3)).unwrap();
    assert_eq!(talk.heard(), [(String::new(), uint(3))]);
    talk.connection().end_stream(stream, Payload::null()).unwrap();
    assert_eq!(talk.heard(), [(verb::END.into(), Payload::null()), (verb::CANCEL.into(), Payload::null())]);
}

// spec: §11.11, §11.3
#[test]
fn the_final_value_stands_although_the_acceptor_cancels_what_it_does_not_take() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let stream = pair.a().open_stream(now, "m", uint(0), StreamOptions::new()).unwrap();
    pair.a().send_item(stream, uint(1)).unwrap();
    pair.drive();
    let accepted = one(opened(&pair.events(B))).id;
    pair.b().end_stream(accepted, uint(9)).unwrap();
    pair.b().release_stream(accepted);
    pair.drive();
    assert_eq!(take(pair.a(), stream), (vec![], Last::End(uint(9))));
    assert_eq!(pair.a().send_item(stream, uint(2)), Err(SendError::Gone));
    assert_eq!(pair.a().stats().streams_open, 0);
    assert_eq!(pair.b().stats().streams_serving, 0);
}

// spec: §11.11
#[test]
fn nothing_is_told_of_what_the_application_has_let_go() {
    let acts: [fn(&mut Talk); 5] = [
        |talk| talk.say(verb::END).unwrap(),
        |talk| talk.say_error(verb::END, Code(77)).unwrap(),
        |talk| talk.say(verb::CANCEL).unwrap(),
        |talk| talk.data(uint(1)).unwrap(),
        |talk| talk.script.connection.hang_up(talk.script.now),
    ];
    for act in acts {
        for mut talk in Talk::both(&config(|c| c.stream_buffer = 1)) {
            let stream = talk.stream;
            talk.say(verb::PAUSE).unwrap();
            talk.connection().send_item(stream, uint(1)).unwrap();
            assert_eq!(talk.connection().ready_to_send(stream), Err(SendError::Blocked));
            talk.connection().end_stream(stream, Payload::null()).unwrap();
            talk.connection().release_stream(stream);
            talk.messages();
            act(&mut talk);
            talk.messages();
            assert_eq!(talk.notes(), []);
        }
    }
}

/// How a connection ends.
type End = fn(&mut Script) -> ConnectionError;

const ENDS: [End; 6] = [
    |script| {
        script.connection.close(script.now, Some(Error::unavailable("bye")));
        script.connection.error().unwrap().clone()
    },
    |script| {
        script.connection.hang_up(script.now);
        script.connection.error().unwrap().clone()
    },
    |script| script.connection.handle_eof(script.now, 0).unwrap_err(),
    |script| script.wait(ms(60_000)).unwrap_err(),
    |script| script.send_bytes(&[0, 0, 0, 1, 0]).unwrap_err(),
    |script| {
        let close =
            crate::support::Msg::opening(fluxar_proto::message::Kind::Control, script.id(), verb::CLOSE);
        script.send(close).unwrap_err()
    },
];

// spec: §11.9, §10.9, §8.7, §8.8
#[test]
fn every_stream_ends_with_its_connection_once_and_nothing_is_left() {
    for end in ENDS {
        for mut talk in Talk::both(&config(|_| ())) {
            let (stream, now, ours) = (talk.stream, talk.script.now, talk.script.connection.stream_room());
            assert!(ours > 0);
            talk.data(uint(1)).unwrap();
            talk.connection().send_item(stream, uint(2)).unwrap();
            let unsent = talk.connection().open_stream(now, "m", uint(0), StreamOptions::new()).unwrap();
            let serving = talk.connection().stats().streams_serving;
            end(&mut talk.script);

            assert_eq!(talk.take(), (vec![uint(1)], failed(Code::UNAVAILABLE)));
            let last = take(talk.connection(), unsent).1;
            assert_eq!(last, Last::Failed(Code::UNAVAILABLE, Some(false)), "it was never sent");
            let told = talk.notes();
            let withdrawn = told.iter().filter(|note| **note == Note::Withdrawn(Withdrawn::ConnectionLost));
            assert_eq!(withdrawn.count(), serving, "{told:?}");
            assert_eq!(told.iter().filter(|note| **note == Note::Readable).count(), 1, "{told:?}");
            assert_eq!(talk.connection().send_item(stream, uint(3)), Err(SendError::Gone));
            let opened = talk.connection().open_stream(now, "m", uint(0), StreamOptions::new());
            assert_eq!(opened, Err(StreamError::Closed));
            assert_eq!(talk.connection().ready_to_stream(), Err(StreamError::Closed));
            for stream in [stream, unsent] {
                talk.connection().cancel_stream(stream, None);
                talk.connection().release_stream(stream);
                assert!(talk.connection().poll_stream(stream).is_err());
            }
            let sent = talk.messages();
            assert!(sent.iter().all(|message| message.target.as_deref() == Some(verb::CLOSE)), "{sent:?}");
            check_gone(&mut talk);
            assert_eq!(talk.connection().poll_timeout(), None);
        }
    }
}

// spec: §11.9
#[test]
fn streams_in_any_state_are_gone_when_the_connection_is() {
    let states: [fn(&mut Talk); 6] = [
        |talk| talk.script.connection.cancel_stream(talk.stream, None),
        |talk| talk.script.connection.fail_stream(talk.stream, Error::aborted("no")),
        |talk| talk.script.connection.release_stream(talk.stream),
        |talk| talk.say(verb::CANCEL).unwrap(),
        |talk| talk.script.connection.end_stream(talk.stream, uint(1)).unwrap(),
        |talk| talk.say_with(verb::END, uint(1)).unwrap(),
    ];
    for end in ENDS {
        for (n, state) in states.into_iter().enumerate() {
            for read in [false, true] {
                for mut talk in Talk::both(&config(|_| ())) {
                    let stream = talk.stream;
                    state(&mut talk);
                    if read {
                        talk.messages();
                    }
                    end(&mut talk.script);
                    if n == 5 {
                        assert_eq!(talk.take(), (vec![], Last::End(uint(1))));
                    }
                    talk.connection().release_stream(stream);
                    talk.messages();
                    check_gone(&mut talk);
                }
            }
        }
    }
}

// spec: §10.9
#[test]
fn nobody_is_promised_room_on_a_connection_that_has_ended() {
    for end in ENDS {
        let mut script = Script::initiator_with(&config(|_| ()), hello(true, &[("max_streams", 1)]));
        let now = script.now;
        script.connection.open_stream(now, "m", uint(0), StreamOptions::new()).unwrap();
        assert_eq!(script.connection.ready_to_stream(), Err(StreamError::Blocked));
        script.read();
        end(&mut script);
        assert!(notes(&script.events()).iter().all(|(_, note)| *note != Note::Capacity));
    }
}

// spec: §8.8
#[test]
fn a_link_that_breaks_ends_streams_on_both_sides() {
    let mut pair = Pair::established(&config(|_| ()));
    let stream = pair.a().open_stream(at(0), "m", uint(0), StreamOptions::new()).unwrap();
    pair.drive();
    let accepted = one(opened(&pair.events(B))).id;
    pair.cut();
    pair.drive();
    for (end, stream) in [(A, stream), (B, accepted)] {
        assert_eq!(take(pair.side(end), stream), (vec![], failed(Code::UNAVAILABLE)));
    }
}

// spec: §11.3, §11.4
#[test]
fn a_handler_is_told_that_nobody_waits_however_the_opener_gives_up() {
    let acts: [fn(&mut Talk); 3] = [
        |talk| talk.say(verb::CANCEL).unwrap(),
        |talk| talk.say_error(verb::CANCEL, Code(77)).unwrap(),
        |talk| talk.say_error(verb::END, Code(77)).unwrap(),
    ];
    for act in acts {
        for ended in [false, true] {
            let mut talk = Talk::accepted(&config(|_| ()), &[]);
            let stream = talk.stream;
            if ended {
                talk.say(verb::END).unwrap();
                talk.notes();
                talk.take();
            } else {
                talk.connection().end_stream(stream, Payload::null()).unwrap();
            }
            act(&mut talk);
            assert_eq!(talk.notes().last(), Some(&Note::Withdrawn(Withdrawn::Cancelled)));
        }
    }
}

/// How a stream may come to its end for its sender, and what it is told.
type Cause = (fn(&mut Talk), Code);

// spec: §11.3, §11.4
#[test]
fn a_sender_learns_why_the_stream_is_over_although_the_other_direction_has_ended() {
    let causes: [Cause; 5] = [
        (|talk| talk.say_error(verb::END, Code(77)).unwrap(), Code(77)),
        (|talk| talk.say_error(verb::CANCEL, Code(78)).unwrap(), Code(78)),
        (|talk| talk.say(verb::CANCEL).unwrap(), Code::CANCELLED),
        (|talk| talk.script.connection.cancel_stream(talk.stream, None), Code::CANCELLED),
        (|talk| talk.script.connection.hang_up(talk.script.now), Code::UNAVAILABLE),
    ];
    for (cause, code) in causes {
        for ended in [false, true] {
            for mut talk in Talk::both(&config(|_| ())) {
                let stream = talk.stream;
                if ended {
                    talk.say(verb::END).unwrap();
                }
                assert_eq!(talk.connection().stream_error(stream), None);
                cause(&mut talk);
                assert_eq!(talk.connection().send_item(stream, uint(1)), Err(SendError::Gone));
                assert_eq!(talk.connection().stream_error(stream).map(|error| error.code), Some(code));
            }
        }
    }
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.say(verb::END).unwrap();
        talk.connection().end_stream(stream, Payload::null()).unwrap();
        talk.messages();
        talk.connection().hang_up(at(0));
        assert_eq!(talk.connection().stream_error(stream), None, "it has ended in order");
    }
}

// spec: §11.3
#[test]
fn a_sender_that_is_let_go_takes_nothing_of_what_has_come_in_full() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.connection().send_item(stream, uint(1)).unwrap();
        talk.data(uint(2)).unwrap();
        talk.say_with(verb::END, uint(3)).unwrap();
        talk.connection().release_sender(stream);
        assert_eq!(talk.take(), (vec![uint(2)], Last::End(uint(3))));
    }
}

// spec: §11.11, §11.5
#[test]
fn an_opener_without_credit_is_not_left_waiting_by_an_acceptor_that_is_done() {
    for (window, cost) in [(0, 0), (40, 40), (100, 2_000)] {
        for value in [false, true] {
            for read in [false, true] {
                let mut talk = Talk::accepted(&config(|c| c.limits.stream_window = window), &[]);
                let stream = talk.stream;
                if cost > 0 {
                    talk.data(crate::support::blob(cost - 39)).unwrap();
                }
                assert_eq!(talk.take().0.len(), usize::from(cost > 0));
                if read {
                    talk.messages();
                }
                talk.connection().end_stream(stream, Payload::null()).unwrap();
                talk.connection().release_stream(stream);
                let verbs = talk.heard().into_iter().map(|(verb, _)| verb).collect::<Vec<_>>();
                let credit = if read { vec![] } else { vec![verb::CREDIT] };
                assert_eq!(verbs, [credit, vec![verb::END]].concat());
                if value {
                    talk.say_with(verb::END, uint(1)).unwrap();
                } else {
                    talk.data(uint(1)).unwrap();
                    assert_eq!(talk.heard(), [(verb::CANCEL.into(), Payload::null())]);
                    talk.say_error(verb::END, Code::CANCELLED).unwrap();
                }
                check_gone(&mut talk);
            }
        }
    }
}

// spec: §11.11, §11.6
#[test]
fn an_opener_that_was_asked_to_pause_may_go_on_when_the_acceptor_is_done() {
    for told in [false, true] {
        let mut talk = Talk::accepted(&config(|_| ()), &[]);
        let stream = talk.stream;
        talk.connection().pause_stream(stream);
        if told {
            assert_eq!(talk.heard(), [(verb::PAUSE.into(), Payload::null())]);
        }
        talk.connection().release_receiver(stream);
        let resume = if told { vec![(verb::RESUME.into(), Payload::null())] } else { vec![] };
        assert_eq!(talk.heard(), resume);
    }
}
