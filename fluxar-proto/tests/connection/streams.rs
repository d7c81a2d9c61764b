//! Streams: openings, data, ends, and the machine of §11.9.

use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::{Code, Error, Payload, SendError, StreamOptions};

use crate::support::{
    A, B, ENDED, Last, Msg, Note, Pair, Talk, at, blob, cbor, config, failed, is_close, item, notes, one,
    opened, streaming, take, uint,
};

fn null() -> Payload {
    Payload::null()
}

fn array(items: &[u64]) -> Payload {
    item(|out| {
        out.array(items.len() as u64)?;
        for item in items {
            out.u64(*item)?;
        }
        Ok(())
    })
}

// spec: §11.1, §11.2, §11.3, §11.10
#[test]
fn items_go_both_ways_and_each_side_ends_its_own_direction() {
    let mut pair = Pair::established(&config(|_| ()));
    let stream = pair.side(A).open_stream(at(0), "sum", uint(0), StreamOptions::new()).unwrap();
    for n in 0..1000 {
        pair.side(A).send_item(stream, uint(n)).unwrap();
    }
    pair.drive();
    let opening = one(opened(&pair.events(B)));
    assert_eq!((&*opening.method, &opening.payload), ("sum", &uint(0)));
    let (items, end) = take(pair.side(B), opening.id);
    assert_eq!(items, (0..1000).map(uint).collect::<Vec<_>>());
    assert_eq!(end, Last::Open);
    pair.side(B).send_item(opening.id, uint(7)).unwrap();
    pair.side(B).end_stream(opening.id, uint(499_500)).unwrap();
    pair.side(A).end_stream(stream, null()).unwrap();
    pair.drive();
    assert_eq!(take(pair.side(A), stream), (vec![uint(7)], Last::End(uint(499_500))));
    assert_eq!(take(pair.side(B), opening.id), (vec![], ENDED));
    pair.side(A).release_stream(stream);
    pair.side(B).release_stream(opening.id);
    assert_eq!(pair.side(A).stats().streams_open, 0);
    assert_eq!(pair.side(B).stats().streams_serving, 0);
}

// spec: §11.1, §5.14
#[test]
fn the_opening_has_method_argument_and_metadata_and_data_follows_at_once() {
    let mut script = streaming(&config(|_| ()), &[]);
    let meta = cbor(|out| out.map(1)?.str("k")?.u8(5)?.ok());
    let options = StreamOptions::new().with_meta(meta.clone().into()).with_window(77);
    let stream = script.connection.open_stream(script.now, "tail.log", uint(9), options).unwrap();
    script.connection.send_item(stream, uint(1)).unwrap();
    script.connection.end_stream(stream, uint(2)).unwrap();
    let messages = script.read();
    let [opening, data, end] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((opening.kind, opening.id, opening.reference), (Kind::Stream, stream.wire_id(), None));
    assert_eq!(opening.target.as_deref(), Some("tail.log"));
    assert_eq!(opening.payload, uint(9).as_bytes());
    assert_eq!(opening.meta, cbor(|out| out.map(2)?.str("k")?.u8(5)?.str(key::WINDOW)?.u8(77)?.ok()));
    assert_eq!((data.reference, data.target.as_deref()), (Some(stream.wire_id()), None));
    assert_eq!(data.payload, uint(1).as_bytes());
    assert_eq!((end.target.as_deref(), &end.payload[..]), (Some(verb::END), uint(2).as_bytes()));
    assert!(opening.id != data.id && data.id != end.id);

    let opening = Msg::opening(Kind::Stream, script.id(), "m").payload(blob(100));
    script.send(Msg { meta: meta.clone(), ..opening.clone() }).unwrap();
    let accepted = one(opened(&script.events()));
    assert_eq!((accepted.id.wire_id(), &*accepted.method), (opening.id, "m"));
    assert_eq!((&accepted.meta[..], &accepted.payload), (&meta[..], &blob(100)));
    assert_eq!(accepted.deadline, None);
}

/// The state of a stream at the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Open both ways.
    Active,
    /// Our own end was sent.
    Ended,
    /// Our own end waits behind an item that has no credit.
    Ending,
    /// The other side's end has come.
    PeerEnded,
    /// We have cancelled it, and said so.
    Cancelling,
    /// Both directions have ended.
    Closed,
}

const STATES: [State; 6] =
    [State::Active, State::Ended, State::Ending, State::PeerEnded, State::Cancelling, State::Closed];

/// What comes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The stream goes on.
    Taken,
    Dropped,
    Closes,
    /// Closes with the answer `end` and `cancelled`.
    Answered,
    Fatal(Code),
}

fn talk_in(state: State, ours: bool) -> Talk {
    let limits: &[_] = if state == State::Ending { &[("stream_window", 0)] } else { &[] };
    let config = config(|_| ());
    let mut talk = if ours { Talk::opened(&config, limits) } else { Talk::accepted(&config, limits) };
    let stream = talk.stream;
    match state {
        State::Active => {}
        State::Ended => talk.connection().end_stream(stream, null()).unwrap(),
        State::Ending => {
            talk.connection().send_item(stream, uint(1)).unwrap();
            talk.connection().end_stream(stream, null()).unwrap();
        }
        State::PeerEnded => talk.say(verb::END).unwrap(),
        State::Cancelling => talk.connection().cancel_stream(stream, None),
        State::Closed => {
            talk.connection().end_stream(stream, null()).unwrap();
            talk.say(verb::END).unwrap();
        }
    }
    talk.messages();
    talk
}

fn fate_of(mut talk: Talk, change: impl Fn(Msg) -> Msg) -> Fate {
    let message = change(talk.message(None));
    let dropped = talk.dropped();
    if let Err(error) = talk.script.send(message) {
        assert!(is_close(&one(talk.messages()), Some(error.code())));
        return Fate::Fatal(error.code());
    }
    let told = talk.messages();
    let answered = told.iter().any(|message| {
        message.target.as_deref() == Some(verb::END)
            && message.error.as_ref().map(|error| error.code) == Some(Code::CANCELLED)
    });
    assert!(told.len() <= 1, "{told:?}");
    match (talk.dropped() - dropped, answered, talk.still_open()) {
        (1, false, _) => Fate::Dropped,
        (0, true, false) => Fate::Answered,
        (0, false, true) => Fate::Taken,
        (0, false, false) => Fate::Closes,
        other => panic!("{other:?}"),
    }
}

/// What comes of a kind of message in the states in their order.
type Row = (&'static str, fn(Msg) -> Msg, [Fate; 6]);

// spec: §11.9, §11.3, §11.4, §5.15
#[test]
fn every_message_has_its_fate_in_every_state() {
    use Fate::{Answered, Closes, Dropped, Fatal, Taken};
    const VIOLATION: Fate = Fatal(Code::PROTOCOL_VIOLATION);
    const MALFORMED: Fate = Fatal(Code::MALFORMED);
    let rows: [Row; 17] = [
        ("data", |m| m.payload(uint(1)), [Taken, Taken, Taken, VIOLATION, Dropped, Dropped]),
        ("null data", |m| m, [Taken, Taken, Taken, VIOLATION, Dropped, Dropped]),
        (
            "items",
            |m| m.verb(verb::ITEMS).payload(array(&[1, 2])),
            [Taken, Taken, Taken, VIOLATION, Dropped, Dropped],
        ),
        (
            "items that are none",
            |m| m.verb(verb::ITEMS).payload(uint(1)),
            [MALFORMED, MALFORMED, MALFORMED, VIOLATION, Dropped, Dropped],
        ),
        (
            "data with an error",
            |m| m.error(Error::new(Code(77), "why")),
            [MALFORMED, MALFORMED, MALFORMED, VIOLATION, Dropped, Dropped],
        ),
        ("end", |m| m.verb(verb::END), [Taken, Closes, Taken, VIOLATION, Closes, Dropped]),
        (
            "end with a value",
            |m| m.verb(verb::END).payload(uint(1)),
            [Taken, Closes, Taken, VIOLATION, Closes, Dropped],
        ),
        (
            "end with an error",
            |m| m.verb(verb::END).error(Error::new(Code(77), "why")),
            [Closes, Closes, Closes, Closes, Closes, Dropped],
        ),
        ("cancel", |m| m.verb(verb::CANCEL), [Answered, Answered, Answered, Answered, Closes, Dropped]),
        (
            "cancel with an error",
            |m| m.verb(verb::CANCEL).error(Error::new(Code(77), "why")),
            [Answered, Answered, Answered, Answered, Closes, Dropped],
        ),
        (
            "credit of nothing",
            |m| m.verb(verb::CREDIT).payload(uint(0)),
            [Taken, Taken, Taken, Taken, Dropped, Dropped],
        ),
        (
            "credit that is no number",
            |m| m.verb(verb::CREDIT),
            [MALFORMED, MALFORMED, MALFORMED, MALFORMED, Dropped, Dropped],
        ),
        ("pause", |m| m.verb(verb::PAUSE), [Taken, Taken, Taken, Taken, Dropped, Dropped]),
        ("resume", |m| m.verb(verb::RESUME), [Taken, Taken, Taken, Taken, Dropped, Dropped]),
        (
            "pause with an error",
            |m| m.verb(verb::PAUSE).error(Error::new(Code(77), "why")),
            [MALFORMED, MALFORMED, MALFORMED, MALFORMED, Dropped, Dropped],
        ),
        ("a verb of another type", |m| m.verb(verb::UPDATE).error(Error::new(Code(77), "why")), [Dropped; 6]),
        (
            "another type",
            |m| Msg { kind: Kind::Call, ..m },
            [VIOLATION, VIOLATION, VIOLATION, VIOLATION, VIOLATION, Dropped],
        ),
    ];
    for (name, change, fates) in rows {
        for (state, fate) in STATES.into_iter().zip(fates) {
            for ours in [true, false] {
                let found = fate_of(talk_in(state, ours), change);
                assert_eq!(found, fate, "{name}, {state:?}, ours: {ours}");
            }
        }
    }
}

/// Something that ends a stream.
type Act = fn(&mut Talk);

// spec: §11.3
#[test]
fn what_came_before_an_end_or_a_cancel_is_handed_on_first() {
    let ends: [(Act, Last); 5] = [
        (|talk| talk.say(verb::END).unwrap(), ENDED),
        (|talk| talk.say_with(verb::END, uint(5)).unwrap(), Last::End(uint(5))),
        (|talk| talk.say_error(verb::END, Code(77)).unwrap(), failed(Code(77))),
        (|talk| talk.say_error(verb::CANCEL, Code(78)).unwrap(), failed(Code(78))),
        (|talk| talk.say(verb::CANCEL).unwrap(), failed(Code::CANCELLED)),
    ];
    for (end, last) in ends {
        for mut talk in Talk::both(&config(|_| ())) {
            talk.data(uint(1)).unwrap();
            talk.say_with(verb::ITEMS, array(&[2, 3])).unwrap();
            talk.data(blob(20_000)).unwrap();
            end(&mut talk);
            assert_eq!(talk.take(), (vec![uint(1), uint(2), uint(3), blob(20_000)], last.clone()));
            assert_eq!(talk.take(), (vec![], last.clone()), "it stays");
        }
    }
}

// spec: §11.3
#[test]
fn a_direction_that_ended_in_order_stays_so_whatever_ends_the_other() {
    let ends: [Act; 4] = [
        |talk| talk.say_error(verb::END, Code(77)).unwrap(),
        |talk| talk.say(verb::CANCEL).unwrap(),
        |talk| talk.script.connection.fail_stream(talk.stream, Error::aborted("no")),
        |talk| talk.script.connection.hang_up(talk.script.now),
    ];
    for end in ends {
        for mut talk in Talk::both(&config(|_| ())) {
            talk.say_with(verb::END, uint(5)).unwrap();
            let stream = talk.stream;
            talk.connection().send_item(stream, uint(1)).unwrap();
            end(&mut talk);
            assert_eq!(talk.connection().send_item(stream, uint(2)), Err(SendError::Gone));
            assert_eq!(talk.take(), (vec![], Last::End(uint(5))));
            assert!(!talk.connection().is_streaming(stream));
        }
    }
}

// spec: §11.3, §11.10
#[test]
fn nothing_can_be_sent_behind_the_own_end() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.connection().end_stream(stream, uint(1)).unwrap();
        for _ in 0..2 {
            assert_eq!(talk.connection().send_item(stream, uint(2)), Err(SendError::Ended));
            assert_eq!(talk.connection().send_item_from(stream, uint(2).as_item()), Err(SendError::Ended));
            assert_eq!(talk.connection().end_stream(stream, null()), Err(SendError::Ended));
            assert_eq!(talk.connection().ready_to_send(stream), Err(SendError::Ended));
            talk.messages();
        }
        assert!(talk.connection().is_streaming(stream));
        talk.data(uint(3)).unwrap();
        assert_eq!(talk.take(), (vec![uint(3)], Last::Open));
        talk.say(verb::END).unwrap();
        assert_eq!(talk.connection().send_item(stream, uint(2)), Err(SendError::Gone));
        assert_eq!(talk.take(), (vec![], ENDED));
    }
}

// spec: §11.3
#[test]
fn an_end_with_an_error_may_follow_the_own_end_and_closes_the_stream() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.connection().end_stream(stream, null()).unwrap();
        talk.messages();
        talk.connection().fail_stream(stream, Error::new(Code(77), "after all"));
        assert_eq!(talk.heard_error(), (verb::END.into(), Code(77)));
        talk.data(uint(1)).unwrap();
        assert_eq!(talk.dropped(), 1, "what crosses is dropped");
        talk.connection().fail_stream(stream, Error::new(Code(78), "twice"));
        assert!(talk.messages().is_empty());
        assert!(!talk.still_open());
    }
}

// spec: §11.3, §5.13
#[test]
fn what_is_larger_than_the_peer_takes_fails_here_and_the_stream_goes_on() {
    let config = config(|_| ());
    let limits = [("max_message", 2_000)];
    for mut talk in [Talk::opened(&config, &limits), Talk::accepted(&config, &limits)] {
        let stream = talk.stream;
        let too_large = |error| matches!(error, Err(SendError::TooLarge { len: 2_001.., limit: 2_000 }));
        assert!(too_large(talk.connection().send_item(stream, blob(2_000))));
        assert!(too_large(talk.connection().send_item_from(stream, blob(1_962).as_item())));
        assert!(too_large(talk.connection().end_stream(stream, blob(1_959))));
        talk.connection().send_item(stream, blob(1_961)).unwrap();
        talk.connection().end_stream(stream, blob(1_958)).unwrap();
        let sizes = talk.messages().iter().map(|message| message.body().len()).collect::<Vec<_>>();
        assert_eq!(sizes, [2_000, 2_000], "as large as may be");
    }
}

// spec: §11.1, §5.16, §10.7
#[test]
fn an_acceptor_that_does_not_want_a_stream_refuses_it() {
    let config = config(|c| (c.misuse_capacity, c.misuse_per_second) = (2, 0));
    let mut talk = Talk::accepted(&config, &[]);
    for left in [true, true, false] {
        let (stream, now) = (talk.stream, talk.script.now);
        let refused = talk.connection().refuse_stream(now, stream, Error::not_found("no such method"));
        assert_eq!(refused.is_ok(), left);
        let told = one(talk.messages());
        if !left {
            assert!(is_close(&told, Some(Code::RESOURCE_EXHAUSTED)));
            break;
        }
        assert_eq!((told.target.as_deref(), told.reference), (Some(verb::END), Some(talk.wire)));
        assert_eq!((told.code(), told.error.unwrap().processed), (Code::NOT_FOUND, Some(false)));
        assert_eq!(talk.connection().stats().streams_serving, 0, "it was let go");
        let opening = Msg::opening(Kind::Stream, talk.script.id(), "m");
        talk.wire = opening.id;
        talk.script.send(opening).unwrap();
        talk.stream = one(opened(&talk.script.events())).id;
    }
    let over = talk.connection().error().unwrap().clone();
    let (stream, now) = (talk.stream, talk.script.now);
    assert_eq!(talk.connection().refuse_stream(now, stream, Error::not_found("")), Err(over));
}

// spec: §11.1, §6.6
#[test]
fn there_are_no_streams_where_one_side_has_none() {
    use fluxar_proto::StreamError;
    let (with, without) = (config(|_| ()), config(|c| c.stream = false));
    for (a, b) in [(&with, &without), (&without, &with), (&without, &without)] {
        let mut pair = Pair::new(a, b, 3);
        let early = pair.a().open_stream(at(0), "m", null(), StreamOptions::new());
        assert_eq!(early, Err(StreamError::Blocked), "nobody knows yet");
        pair.drive();
        assert_eq!(notes(&pair.events(A)), [(None, Note::Capacity)], "who waits is told all the same");
        for end in [A, B] {
            let opened = pair.side(end).open_stream(at(0), "m", null(), StreamOptions::new());
            assert_eq!(opened, Err(StreamError::NotNegotiated));
        }
    }
    let mut script = streaming(&with, &[("max_streams", 0)]);
    assert_eq!(script.connection.ready_to_stream(), Err(StreamError::NoStreams));
}

// spec: §5.13, §5.14, §5.9
#[test]
fn an_opening_that_cannot_be_sent_fails_here() {
    use fluxar_proto::StreamError;
    let mut script = streaming(&config(|_| ()), &[("max_message", 2_000)]);
    let mut open = |method: &str, payload, options: StreamOptions| {
        script.connection.open_stream(script.now, method, payload, options).unwrap_err()
    };
    let none = StreamOptions::new;
    let with = |name: &str| none().with_meta(cbor(|out| out.map(1)?.str(name)?.u8(1)?.ok()).into());
    assert!(matches!(open("m", blob(2_000), none()), StreamError::TooLarge { limit: 2_000, .. }));
    assert_eq!(open(&"m".repeat(256), null(), none()), StreamError::MethodTooLong);
    assert_eq!(open("m", null(), with(key::WINDOW)), StreamError::BadMeta(None));
    assert_eq!(open("m", null(), with(key::TIMEOUT_MS)), StreamError::BadMeta(None));
    assert!(matches!(open("m", null(), none().with_meta(vec![1].into())), StreamError::BadMeta(Some(_))));
    let too_large = open("m", blob(2_000 - 23), none());
    assert_eq!(too_large, StreamError::TooLarge { len: 2_001, limit: 2_000 });
    assert!(script.read().is_empty());
    assert_eq!(script.connection.stats().streams_open, 0);
    script.connection.open_stream(script.now, "m", blob(2_000 - 24), none()).unwrap();
    assert_eq!(one(script.read()).body().len(), 2_000, "as large as may be");
    let stats = script.connection.stats();
    assert_eq!((stats.streams_open, stats.streams_opened, stats.streams_served), (1, 1, 0));
}

/// The stream has failed, and what was queued on it has not left.
fn failing(mut talk: Talk) -> Talk {
    let stream = talk.stream;
    talk.connection().send_item(stream, uint(1)).unwrap();
    talk.connection().send_item(stream, blob(2_000)).unwrap();
    talk.connection().fail_stream(stream, Error::new(Code(77), "no"));
    talk
}

/// Verbs, and whether each comes with an error.
type Said = Vec<(String, bool)>;

/// What is said, in short.
fn said(talk: &mut Talk) -> Said {
    let said = talk.messages().into_iter();
    said.map(|message| (message.target.unwrap_or_default(), message.error.is_some())).collect()
}

// spec: §11.3
#[test]
fn what_was_sent_before_an_error_goes_out_ahead_of_it_as_far_as_there_is_credit() {
    let (config, data, error) = (config(|_| ()), || (String::new(), false), || (verb::END.to_string(), true));
    for (credit, expected) in [
        (0, vec![error()]),
        (1, vec![data(), error()]),
        (40, vec![data(), error()]),
        (41, vec![data(), data(), error()]),
        (9_000, vec![data(), data(), error()]),
    ] {
        let limits = [("stream_window", credit)];
        for talk in [Talk::opened(&config, &limits), Talk::accepted(&config, &limits)] {
            let mut talk = failing(talk);
            let stream = talk.stream;
            assert_eq!(talk.connection().send_item(stream, uint(3)), Err(SendError::Gone));
            assert_eq!(talk.take(), (vec![], failed(Code::CANCELLED)));
            assert_eq!(said(&mut talk), expected, "{credit}");
            assert_eq!(talk.connection().stats().stream_queued_bytes, 0);
            assert!(!talk.still_open());
        }
    }
    // Nor where the other side has asked for a pause.
    for mut talk in Talk::both(&config) {
        talk.say(verb::PAUSE).unwrap();
        assert_eq!(said(&mut failing(talk)), [error()]);
    }
    // An end that waits behind the items stays where it is.
    for mut talk in Talk::both(&config) {
        let stream = talk.stream;
        talk.connection().send_item(stream, uint(1)).unwrap();
        talk.connection().end_stream(stream, uint(2)).unwrap();
        talk.connection().fail_stream(stream, Error::new(Code(77), "after all"));
        assert_eq!(said(&mut talk), [data(), (verb::END.into(), false), error()]);
    }
}

// spec: §11.3, §11.4, §11.9
#[test]
fn what_comes_while_an_error_waits_to_leave_changes_only_whether_it_does() {
    let (data, error) = (|| (String::new(), false), || (verb::END.to_string(), true));
    let all = || vec![data(), data(), error()];
    type Change = fn(Msg) -> Msg;
    let cases: [(Change, u64, Said); 7] = [
        (|m| m.payload(uint(1)), 1, all()),
        (|m| m.verb(verb::ITEMS).payload(uint(1)), 1, all()),
        (|m| m.verb(verb::END), 1, all()),
        (|m| m.verb(verb::PAUSE), 1, all()),
        (|m| m.verb(verb::CREDIT).payload(uint(1)), 0, all()),
        (|m| m.verb(verb::END).error(Error::aborted("so do I")), 0, vec![]),
        (|m| m.verb(verb::CANCEL), 0, vec![error()]),
    ];
    for (change, dropped, expected) in cases {
        for talk in Talk::both(&config(|_| ())) {
            let mut talk = failing(talk);
            let message = change(talk.message(None));
            talk.script.send(message.clone()).unwrap();
            assert_eq!((talk.dropped(), said(&mut talk)), (dropped, expected.clone()), "{message:?}");
            let stream = talk.stream;
            talk.connection().release_stream(stream);
            assert!(talk.connection().poll_stream(stream).is_err());
            assert!(!talk.still_open());
        }
    }
    for talk in Talk::both(&config(|_| ())) {
        let mut talk = failing(talk);
        let stream = talk.stream;
        talk.connection().cancel_stream(stream, None);
        talk.connection().fail_stream(stream, Error::aborted("again"));
        talk.connection().release_stream(stream);
        assert_eq!(said(&mut talk), all(), "it goes its way");
        assert!(talk.connection().poll_stream(stream).is_err());
    }
}

// spec: §8.7, §11.3
#[test]
fn a_close_in_order_comes_behind_what_was_ended_before() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let [ended, broken, open] =
        [(); 3].map(|()| pair.a().open_stream(now, "m", uint(0), StreamOptions::new()).unwrap());
    pair.drive();
    let accepted = opened(&pair.events(B));
    for stream in [ended, broken, open] {
        pair.a().send_item(stream, uint(1)).unwrap();
    }
    pair.a().end_stream(ended, uint(2)).unwrap();
    pair.a().fail_stream(broken, Error::not_found("three"));
    pair.a().close(now, None);
    assert_eq!(take(pair.a(), ended), (vec![], failed(Code::UNAVAILABLE)));
    pair.drive();
    let taken = accepted.iter().map(|stream| take(pair.b(), stream.id)).collect::<Vec<_>>();
    let lost = (vec![], failed(Code::UNAVAILABLE));
    let expected = [(vec![uint(1)], Last::End(uint(2))), (vec![uint(1)], failed(Code::NOT_FOUND)), lost];
    assert_eq!(taken, expected);
    assert_eq!(pair.a().stats().streams_open, 0);
}
