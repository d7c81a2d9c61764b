//! Credit of streams: who may send how much, and when there is more of it (§11.5).

use std::sync::Arc;

use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::{Code, Config, Payload, StreamOptions};

use crate::support::{
    ENDED, Last, Msg, Note, Script, Talk, blob, config, hello, is_close, one, opened, streaming, uint,
};

/// What a message of data costs beyond its payload.
const DATA: usize = 39;
/// What `end` costs beyond its payload.
const END: usize = 42;

fn window(bytes: u32) -> Arc<Config> {
    config(|c| c.limits.stream_window = bytes)
}

/// The stream as its opener has it, and as its acceptor, where the script gives this credit at the beginning.
fn granted(bytes: u64) -> [Talk; 2] {
    let (config, limits) = (config(|_| ()), [("stream_window", bytes)]);
    [Talk::opened(&config, &limits), Talk::accepted(&config, &limits)]
}

/// Credit that the connection gives; nothing else may have been said.
#[track_caller]
fn credits(talk: &mut Talk) -> Vec<u64> {
    let heard = talk.heard().into_iter().map(|(verb, payload)| {
        assert_eq!(verb, "credit");
        payload.as_item().as_u64().unwrap()
    });
    heard.collect()
}

#[track_caller]
fn fatal(mut talk: Talk, message: Msg, code: Code) {
    let error = talk.script.send(message).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(is_close(&one(talk.messages()), Some(code)));
}

// spec: §11.5, §19.8
#[test]
fn the_worked_example_of_an_opener_that_gives_a_window_of_100() {
    let mut script = streaming(&config(|_| ()), &[]);
    let opening = Msg::opening(Kind::Stream, script.id(), "llm.complete").meta_uint(key::WINDOW, 100);
    script.send(opening.clone()).unwrap();
    let stream = one(opened(&script.events())).id;
    let mut talk = Talk::over(script, stream);

    talk.connection().send_item(stream, blob(50 - DATA)).unwrap();
    assert_eq!(talk.heard(), [(String::new(), blob(50 - DATA))], "leaves 50");
    // An array's head and the verb in place of null make eight bytes more than one item has.
    talk.connection().send_item(stream, blob(9)).unwrap();
    talk.connection().send_item(stream, blob(10)).unwrap();
    let items = one(talk.messages());
    assert_eq!((items.target.as_deref(), items.body().len()), (Some(verb::ITEMS), 64));
    talk.connection().end_stream(stream, blob(51 - END)).unwrap();
    assert!(talk.heard().is_empty(), "the credit is -14");
    talk.say_with(verb::CREDIT, uint(14)).unwrap();
    assert!(talk.heard().is_empty(), "the credit is 0");
    talk.say_with(verb::CREDIT, uint(32_768 - 14)).unwrap();
    assert_eq!(talk.heard(), [(verb::END.into(), blob(51 - END))]);
}

// spec: §11.5
#[test]
fn data_goes_while_credit_is_above_zero_and_takes_it_below_by_one_message() {
    for mut talk in granted(1) {
        let stream = talk.stream;
        talk.connection().send_item(stream, blob(5_000)).unwrap();
        talk.connection().send_item(stream, uint(2)).unwrap();
        assert_eq!(talk.heard(), [(String::new(), blob(5_000))], "larger than the window");
        let debt = 5_000 + DATA as u64 - 1;
        for (credit, sent) in [(debt - 1, 0), (0, 0), (1, 0), (1, 1)] {
            talk.say_with(verb::CREDIT, uint(credit)).unwrap();
            assert_eq!(talk.heard().len(), sent, "{credit} more");
        }
    }
}

// spec: §11.5
#[test]
fn only_data_and_ends_with_a_value_cost_credit() {
    for mut talk in granted(0) {
        let stream = talk.stream;
        talk.connection().pause_stream(stream);
        talk.connection().send_item(stream, uint(1)).unwrap();
        assert_eq!(talk.heard(), [(verb::PAUSE.into(), Payload::null())]);
        talk.connection().resume_stream(stream);
        talk.connection().end_stream(stream, Payload::null()).unwrap();
        assert_eq!(talk.heard(), [(verb::RESUME.into(), Payload::null())], "the end stays behind the item");
        talk.say_with(verb::CREDIT, uint(1)).unwrap();
        assert_eq!(talk.heard(), [(String::new(), uint(1)), (verb::END.into(), Payload::null())]);
    }
    for mut talk in granted(0) {
        let stream = talk.stream;
        talk.connection().end_stream(stream, uint(1)).unwrap();
        assert!(talk.heard().is_empty());
        talk.say_with(verb::CREDIT, uint(1)).unwrap();
        assert_eq!(talk.heard(), [(verb::END.into(), uint(1))]);
    }
    for mut talk in granted(0) {
        let stream = talk.stream;
        talk.connection().end_stream(stream, Payload::null()).unwrap();
        assert_eq!(talk.heard(), [(verb::END.into(), Payload::null())]);
    }
}

// spec: §11.5, §11.1
#[test]
fn credit_begins_with_the_window_of_the_opening_or_with_the_one_announced() {
    // Towards the acceptor: what the acceptor has announced.
    let mut talk = Talk::opened(&config(|_| ()), &[("stream_window", 41)]);
    let stream = talk.stream;
    let options = StreamOptions::new().with_window(1 << 20);
    let now = talk.script.now;
    let other = talk.connection().open_stream(now, "m", uint(0), options).unwrap();
    talk.messages();
    for stream in [stream, other] {
        talk.connection().send_item(stream, blob(2)).unwrap();
        assert_eq!(talk.messages().len(), 1);
        talk.connection().send_item(stream, blob(3)).unwrap();
        assert!(talk.messages().is_empty());
    }
    // Towards the opener: its `window`, or what it has announced.
    for (meta, first) in [(None, 1_000), (Some(0), 0), (Some(50), 50), (Some(u64::MAX), i32::MAX as u64)] {
        let mut script = streaming(&config(|c| c.limits.max_message = u32::MAX), &[("stream_window", 1_000)]);
        let mut opening = Msg::opening(Kind::Stream, script.id(), "m");
        if let Some(window) = meta {
            opening = opening.meta_uint(key::WINDOW, window);
        }
        script.send(opening.clone()).unwrap();
        let stream = one(opened(&script.events())).id;
        let mut talk = Talk::over(script, stream);
        // The most that may come to it.
        talk.say_with(verb::CREDIT, uint(i32::MAX as u64 - first)).unwrap();
        let more = talk.message(Some(verb::CREDIT)).payload(uint(1));
        fatal(talk, more, Code::FLOW_CONTROL);
    }
}

// spec: §11.5, §5.10
#[test]
fn a_window_that_is_no_number_refuses_the_opening() {
    let mut script = streaming(&config(|_| ()), &[]);
    let mut opening = Msg::opening(Kind::Stream, script.id(), "m").meta_uint(key::WINDOW, 1);
    *opening.meta.last_mut().unwrap() = 0xf5;
    script.send(opening.clone()).unwrap();
    let told = one(script.read());
    assert_eq!((told.target.as_deref(), told.reference), (Some(verb::END), Some(opening.id)));
    assert_eq!((told.code(), told.error.unwrap().processed), (Code::INVALID_ARGUMENT, Some(false)));
    assert!(script.events().is_empty());
}

// spec: §11.5
// limit: stream_window
#[test]
fn data_without_credit_is_fatal() {
    for credit in [1, 41, 42] {
        for mut talk in Talk::both(&window(credit)) {
            // The application has been told, and takes nothing: no credit comes.
            talk.data(blob(2)).unwrap();
            if credit == 42 {
                talk.data(blob(9_000)).unwrap();
            }
            assert!(talk.messages().is_empty());
            let data = talk.message(None).payload(uint(1));
            fatal(talk, data, Code::FLOW_CONTROL);
        }
    }
    for message in [
        |talk: &mut Talk| talk.message(Some(verb::ITEMS)).payload(vec![0x80]),
        |talk: &mut Talk| talk.message(Some(verb::END)).payload(uint(1)),
    ] {
        for mut talk in Talk::both(&window(41)) {
            talk.data(blob(2)).unwrap();
            let message = message(&mut talk);
            fatal(talk, message, Code::FLOW_CONTROL);
        }
    }
    for mut talk in Talk::both(&window(41)) {
        talk.data(blob(2)).unwrap();
        talk.say(verb::END).unwrap();
        assert_eq!(talk.take(), (vec![blob(2)], ENDED), "an end without a value needs no credit");
    }
}

// spec: §11.5
#[test]
fn credit_beyond_2_to_the_31_is_fatal_and_counts_what_was_spent() {
    let most = i32::MAX as u64;
    for mut talk in granted(1_000) {
        let stream = talk.stream;
        talk.connection().send_item(stream, blob(1_001 - DATA)).unwrap();
        talk.messages();
        talk.say_with(verb::CREDIT, uint(most)).unwrap();
        talk.say_with(verb::CREDIT, uint(1)).unwrap();
        talk.say_with(verb::CREDIT, uint(0)).unwrap();
        let more = talk.message(Some(verb::CREDIT)).payload(uint(1));
        fatal(talk, more, Code::FLOW_CONTROL);
    }
    for credit in [most - 999, most, u64::MAX] {
        for mut talk in granted(1_000) {
            let more = talk.message(Some(verb::CREDIT)).payload(uint(credit));
            fatal(talk, more, Code::FLOW_CONTROL);
        }
    }
}

// spec: §11.5
#[test]
fn credit_for_a_direction_that_has_ended_is_ignored() {
    for mut talk in granted(1_000) {
        let stream = talk.stream;
        talk.connection().end_stream(stream, Payload::null()).unwrap();
        talk.messages();
        (0..3).for_each(|_| talk.say_with(verb::CREDIT, uint(u64::MAX)).unwrap());
        talk.connection().cancel_stream(stream, None);
        (0..3).for_each(|_| talk.say_with(verb::CREDIT, uint(u64::MAX)).unwrap());
        talk.say(verb::END).unwrap();
        assert!(!talk.still_open());
    }
}

// spec: §11.5
#[test]
fn credit_comes_back_as_one_sum_when_half_of_the_window_was_taken() {
    for mut talk in Talk::both(&window(1_000)) {
        for n in [2, 1] {
            (0..n).for_each(|_| talk.data(blob(200 - DATA)).unwrap());
            assert!(credits(&mut talk).is_empty(), "nothing was taken");
            talk.take();
            if n == 2 {
                assert!(credits(&mut talk).is_empty(), "less than half");
            }
        }
        assert_eq!(credits(&mut talk), [600]);
        // Taken in two steps before anything could be sent: one message.
        for _ in 0..2 {
            talk.data(blob(500 - DATA)).unwrap();
            talk.take();
        }
        assert_eq!(credits(&mut talk), [1_000]);
        assert!(credits(&mut talk).is_empty());
    }
}

// spec: §11.5
#[test]
fn what_was_taken_is_measured_by_what_the_messages_cost() {
    for mut talk in Talk::both(&window(1_000)) {
        // Items of one byte, one in a message each.
        (0..13).for_each(|n| talk.data(uint(n)).unwrap());
        assert_eq!(talk.take().0.len(), 13);
        assert_eq!(credits(&mut talk), [13 * (DATA as u64 + 1)]);
        // An empty array is nothing to take, and costs what it costs.
        talk.notes();
        (0..10).for_each(|_| talk.say_with(verb::ITEMS, vec![0x80]).unwrap());
        assert_eq!(talk.notes(), [], "nothing to announce");
        assert_eq!(talk.take(), (vec![], Last::Open));
        (0..3).for_each(|_| talk.say_with(verb::ITEMS, vec![0x9f, 0xff]).unwrap());
        assert_eq!(credits(&mut talk), [10 * 45 + 3 * 46]);
    }
}

// spec: §11.5
#[test]
fn an_application_that_waits_gives_credit_also_where_the_window_is_nothing() {
    for bytes in [0, 1] {
        for mut talk in Talk::both(&window(bytes)) {
            for n in 0..5 {
                assert_eq!(talk.take(), (vec![], Last::Open));
                let told = credits(&mut talk);
                assert!(told.len() <= 1, "{told:?}");
                let size = 3 + 100 * n as usize;
                talk.data(blob(size)).unwrap();
                assert!(credits(&mut talk).is_empty(), "there is something to take");
                assert_eq!(talk.take().0, [blob(size)]);
                assert_eq!(credits(&mut talk), [(size + DATA) as u64], "up to 1 again");
            }
            talk.data(uint(1)).unwrap();
            let data = talk.message(None).payload(uint(2));
            fatal(talk, data, Code::FLOW_CONTROL);
        }
    }
}

// spec: §11.5, §11.10
#[test]
fn no_credit_is_given_for_a_direction_that_has_ended() {
    for mut talk in Talk::both(&window(1_000)) {
        talk.data(blob(900)).unwrap();
        talk.say(verb::END).unwrap();
        assert_eq!(talk.take(), (vec![blob(900)], ENDED));
        assert!(talk.heard().is_empty());
    }
}

// spec: §11.5
#[test]
fn all_credit_that_a_connection_gives_is_what_it_checks() {
    // A peer that uses up exactly what it has, to the last byte, for ever.
    for bytes in [0_u32, 1, 2, 39, 40, 41, 100, 1_000] {
        for mut talk in Talk::both(&window(bytes)) {
            let mut credit = i64::from(bytes);
            for n in 0..200 {
                credit += credits(&mut talk).into_iter().sum::<u64>() as i64;
                while credit > 0 {
                    talk.data(blob(1 + n % 20)).unwrap();
                    credit -= (1 + n % 20 + DATA) as i64;
                }
                talk.take();
            }
            let data = talk.message(None).payload(uint(1));
            assert!(talk.script.connection.stats().messages_in > 190);
            credit += credits(&mut talk).into_iter().sum::<u64>() as i64;
            while credit > 0 {
                talk.data(uint(1)).unwrap();
                credit -= DATA as i64 + 1;
            }
            fatal(talk, data, Code::FLOW_CONTROL);
        }
    }
}

// spec: §11.5, §6.7
#[test]
fn the_opener_checks_the_window_that_it_gave() {
    let mut script = Script::initiator_with(&window(5_000), hello(true, &[]));
    let options = StreamOptions::new().with_window(10);
    let stream = script.connection.open_stream(script.now, "m", uint(0), options).unwrap();
    let opening = one(script.read());
    assert_eq!(opening.meta, Msg::bare(Kind::Stream, opening.id).meta_uint(key::WINDOW, 10).meta);
    let mut talk = Talk::over(script, stream);
    talk.data(uint(1)).unwrap();
    assert_eq!(talk.notes(), [Note::Readable]);
    let data = talk.message(None).payload(uint(1));
    fatal(talk, data, Code::FLOW_CONTROL);
}
