//! How items share messages (§11.2), and pausing them (§11.6).

use fluxar_proto::message::verb;
use fluxar_proto::{Code, Payload, SendError, StreamOptions};

use crate::support::{
    A, B, Last, Note, Pair, Talk, blob, config, failed, is_close, item, notes, one, opened, take, uint,
};

/// An array of so many arrays of one element around a zero.
fn nested(depth: usize) -> Payload {
    let mut bytes = vec![0x81; depth];
    bytes.push(0);
    Payload::new(bytes.into()).unwrap()
}

fn items(payload: &Payload) -> Vec<Payload> {
    payload.as_item().array().unwrap().map(Payload::from).collect()
}

// spec: §11.2
#[test]
fn items_that_wait_together_share_a_message_of_at_most_16_kib() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        for n in 0..10_000 {
            talk.connection().send_item(stream, uint(n % 200)).unwrap();
        }
        let heard = talk.heard();
        let all = heard.iter().flat_map(|(verb, payload)| {
            assert_eq!(verb, verb::ITEMS);
            assert!(payload.len() <= (16 << 10) + 3, "{}", payload.len());
            items(payload)
        });
        assert_eq!(all.collect::<Vec<_>>(), (0..10_000).map(|n| uint(n % 200)).collect::<Vec<_>>());
        assert_eq!(heard.len(), 2, "19 KiB");
    }
}

// spec: §11.2
#[test]
fn a_lone_item_goes_at_once_and_as_plain_data() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        for n in 0..5 {
            if n % 2 == 0 {
                talk.connection().send_item(stream, uint(n)).unwrap();
            } else {
                talk.connection().send_item_from(stream, uint(n).as_item()).unwrap();
            }
            assert_eq!(talk.heard(), [(String::new(), uint(n))]);
        }
    }
}

// spec: §11.2
#[test]
fn long_items_go_alone_and_all_keep_their_order() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        let sent = [uint(1), uint(2), blob(1_024), blob(1_025), uint(3), blob(30_000), uint(4), uint(5)];
        for item in &sent {
            talk.connection().send_item(stream, item.clone()).unwrap();
        }
        let heard = talk.heard();
        let shape = heard.iter().map(|(verb, payload)| (&verb[..], payload.len())).collect::<Vec<_>>();
        assert_eq!(shape, [("items", 1_027), ("", 1_025), ("", 1), ("", 30_000), ("items", 3)]);
        let all = heard.iter().flat_map(
            |(verb, payload)| {
                if verb.is_empty() { vec![payload.clone()] } else { items(payload) }
            },
        );
        assert_eq!(all.collect::<Vec<_>>(), sent);
    }
}

// spec: §11.2, §5.13
#[test]
fn what_shares_a_message_fits_into_what_the_peer_takes() {
    let (config, limits) = (config(|c| c.stream_buffer = 1 << 20), [("max_message", 1_024)]);
    for mut talk in [Talk::opened(&config, &limits), Talk::accepted(&config, &limits)] {
        let stream = talk.stream;
        for n in 0..3_000 {
            talk.connection().send_item(stream, if n % 50 == 0 { blob(985) } else { uint(n % 300) }).unwrap();
        }
        let sent = talk.messages();
        assert!(sent.iter().all(|message| message.body().len() <= 1_024));
        assert!(sent.len() < 150, "{}: items share messages all the same", sent.len());
    }
}

// spec: §11.2, §5.3
#[test]
fn an_item_that_nests_as_deep_as_it_may_goes_alone() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let stream = pair.a().open_stream(now, "m", uint(0), StreamOptions::new()).unwrap();
    let sent = [nested(62), nested(63), nested(64), uint(1), nested(64), nested(63), nested(2)];
    for item in &sent {
        pair.a().send_item(stream, item.clone()).unwrap();
        pair.a().send_item_from(stream, item.as_item()).unwrap();
    }
    pair.drive();
    let accepted = one(opened(&pair.events(B))).id;
    let expected = sent.iter().flat_map(|item| [item.clone(), item.clone()]).collect::<Vec<_>>();
    assert_eq!(take(pair.b(), accepted).0, expected);
    assert_eq!(pair.b().stats().messages_in, 1 + 7, "the opening, and seven with items");
}

// spec: §11.2, §5.3
#[test]
fn elements_are_handed_on_however_the_array_is_written() {
    let arrays: [(&[u8], &[&[u8]]); 6] = [
        (&[0x80], &[]),
        (&[0x9f, 0xff], &[]),
        (&[0x81, 0xf6], &[&[0xf6]]),
        (&[0x9f, 1, 0x9f, 2, 0xff, 0xff], &[&[1], &[0x9f, 2, 0xff]]),
        (&[0x98, 2, 1, 0xa1, 1, 2], &[&[1], &[0xa1, 1, 2]]),
        (&[0x9a, 0, 0, 0, 1, 0x5f, 0x41, 7, 0xff], &[&[0x5f, 0x41, 7, 0xff]]),
    ];
    for (array, elements) in arrays {
        for mut talk in Talk::both(&config(|_| ())) {
            talk.say_with(verb::ITEMS, array.to_vec()).unwrap();
            let noted = if elements.is_empty() { vec![] } else { vec![Note::Readable] };
            assert_eq!(talk.notes(), noted);
            let (items, last) = talk.take();
            assert_eq!((items.len(), last), (elements.len(), Last::Open), "{array:?}");
            for (item, element) in items.iter().zip(elements) {
                assert_eq!(item.as_bytes(), *element);
            }
        }
    }
    // One level deeper than a payload may be is not reached: the elements are one level deep themselves.
    for mut talk in Talk::both(&config(|_| ())) {
        talk.say_with(verb::ITEMS, nested(64).into_bytes()).unwrap();
        assert_eq!(talk.take().0, [nested(63)]);
    }
}

// spec: §11.2, §5.11
#[test]
fn items_that_are_no_array_are_malformed() {
    for payload in [vec![0xf6], vec![0], vec![0x40], vec![0xa0], vec![0xa1, 1, 2], vec![0xc1, 0x80]] {
        for mut talk in Talk::both(&config(|_| ())) {
            let error = talk.say_with(verb::ITEMS, payload.clone()).unwrap_err();
            assert_eq!(error.code(), Code::MALFORMED, "{payload:?}");
            assert!(is_close(&one(talk.messages()), Some(Code::MALFORMED)));
            assert_eq!(talk.take().1, failed(Code::UNAVAILABLE));
        }
    }
}

// spec: §11.6
#[test]
fn a_sender_that_was_asked_to_pause_sends_no_data_until_resume() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.say(verb::PAUSE).unwrap();
        talk.say(verb::PAUSE).unwrap();
        talk.connection().send_item(stream, uint(1)).unwrap();
        talk.connection().send_item(stream, uint(2)).unwrap();
        assert!(talk.heard().is_empty());
        talk.say(verb::RESUME).unwrap();
        assert_eq!(talk.heard(), [(verb::ITEMS.into(), item(|out| out.array(2)?.u8(1)?.u8(2)?.ok()))]);
        talk.say(verb::RESUME).unwrap();
        talk.connection().send_item(stream, uint(3)).unwrap();
        assert_eq!(talk.heard(), [(String::new(), uint(3))]);
    }
}

// spec: §11.6
#[test]
fn a_pause_holds_up_neither_end_nor_cancel_nor_what_else_there_is_to_say() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.say(verb::PAUSE).unwrap();
        talk.connection().pause_stream(stream);
        assert_eq!(talk.heard(), [(verb::PAUSE.into(), Payload::null())]);
        talk.connection().end_stream(stream, uint(5)).unwrap();
        assert_eq!(talk.heard(), [(verb::END.into(), uint(5))]);
    }
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.say(verb::PAUSE).unwrap();
        talk.connection().send_item(stream, uint(1)).unwrap();
        talk.connection().cancel_stream(stream, None);
        assert_eq!(talk.heard(), [(verb::CANCEL.into(), Payload::null())]);
    }
}

// spec: §11.6
#[test]
fn only_what_changes_is_said_of_a_pause() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.connection().resume_stream(stream);
        assert!(talk.heard().is_empty(), "it was not paused");
        talk.connection().pause_stream(stream);
        talk.connection().resume_stream(stream);
        assert!(talk.heard().is_empty(), "both in one");
        for _ in 0..3 {
            talk.connection().pause_stream(stream);
        }
        assert_eq!(talk.heard(), [(verb::PAUSE.into(), Payload::null())]);
        talk.connection().resume_stream(stream);
        talk.connection().pause_stream(stream);
        assert!(talk.heard().is_empty());
        talk.connection().resume_stream(stream);
        assert_eq!(talk.heard(), [(verb::RESUME.into(), Payload::null())]);
        talk.say(verb::END).unwrap();
        talk.connection().pause_stream(stream);
        assert!(talk.heard().is_empty(), "nothing comes any more");
    }
}

// spec: §11.6, §11.5
#[test]
fn data_that_was_under_way_comes_all_the_same() {
    for mut talk in Talk::both(&config(|_| ())) {
        let stream = talk.stream;
        talk.connection().pause_stream(stream);
        talk.messages();
        talk.data(uint(1)).unwrap();
        assert_eq!(talk.take(), (vec![uint(1)], Last::Open));
    }
}

// spec: §11.6
#[test]
fn both_sides_may_pause_each_other_and_go_on() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let stream = pair.a().open_stream(now, "m", uint(0), StreamOptions::new()).unwrap();
    pair.a().pause_stream(stream);
    pair.drive();
    let accepted = one(opened(&pair.events(B))).id;
    pair.b().pause_stream(accepted);
    pair.drive();
    for (end, id) in [(A, stream), (B, accepted)] {
        pair.side(end).send_item(id, uint(end as u64)).unwrap();
    }
    pair.drive();
    for (end, id) in [(A, stream), (B, accepted)] {
        assert_eq!(take(pair.side(end), id), (vec![], Last::Open));
        pair.side(end).resume_stream(id);
    }
    pair.drive();
    for (end, id) in [(A, stream), (B, accepted)] {
        assert_eq!(take(pair.side(end), id), (vec![uint(1 - end as u64)], Last::Open));
    }
}

// spec: §11.5
#[test]
fn who_sends_faster_than_it_leaves_is_turned_away_and_told_of_room() {
    for mut talk in Talk::both(&config(|c| c.stream_buffer = 10_000)) {
        let stream = talk.stream;
        talk.say(verb::PAUSE).unwrap();
        let mut queued = 0;
        while talk.connection().ready_to_send(stream).is_ok() {
            talk.connection().send_item(stream, uint(queued)).unwrap();
            queued += 1;
            assert!(queued < 20_000, "never turned away");
        }
        assert_eq!(talk.connection().send_item(stream, uint(0)), Err(SendError::Blocked));
        assert!(talk.connection().stats().stream_queued_bytes <= 10_000 + 64);
        talk.connection().end_stream(stream, Payload::null()).unwrap();
        talk.messages();
        assert_eq!(talk.notes(), []);
        talk.say(verb::RESUME).unwrap();
        assert!(talk.heard().len() > 1);
        assert_eq!(talk.notes(), [Note::Writable], "once");
        assert_eq!(talk.connection().stats().stream_queued_bytes, 0);
    }
    // Who waits is told as well where there is nothing more to wait for.
    for mut talk in Talk::both(&config(|c| c.stream_buffer = 100)) {
        let stream = talk.stream;
        talk.say(verb::PAUSE).unwrap();
        talk.connection().send_item(stream, blob(200)).unwrap();
        assert_eq!(talk.connection().ready_to_send(stream), Err(SendError::Blocked));
        talk.say_error(verb::END, Code(77)).unwrap();
        let told = talk.notes();
        assert_eq!(told.iter().filter(|note| **note == Note::Writable).count(), 1, "{told:?}");
        assert_eq!(talk.connection().ready_to_send(stream), Err(SendError::Gone));
    }
}

// spec: §11.2, §11.10
#[test]
fn something_to_take_is_announced_once_for_each_time_there_was_nothing() {
    let mut pair = Pair::established(&config(|_| ()));
    let now = pair.now;
    let stream = pair.a().open_stream(now, "m", uint(0), StreamOptions::new()).unwrap();
    pair.a().send_item(stream, uint(1)).unwrap();
    pair.drive();
    let events = pair.events(B);
    let accepted = one(opened(&events)).id;
    assert_eq!(notes(&events), [(Some(accepted), Note::Opened), (Some(accepted), Note::Readable)]);
    let send = |pair: &mut Pair, takes: bool| {
        pair.a().send_item(stream, uint(2)).unwrap();
        pair.drive();
        let told = notes(&pair.events(B));
        if takes {
            take(pair.b(), accepted);
        }
        told
    };
    assert_eq!(send(&mut pair, false), [], "nobody has looked yet");
    assert_eq!(send(&mut pair, true), []);
    assert_eq!(send(&mut pair, false), [(Some(accepted), Note::Readable)]);
    assert!(pair.b().poll_stream(accepted).unwrap().is_some());
    assert_eq!(send(&mut pair, false), [], "it has not found nothing");
    pair.a().end_stream(stream, Payload::null()).unwrap();
    pair.drive();
    assert_eq!(notes(&pair.events(B)), []);
    assert_eq!(take(pair.b(), accepted).0.len(), 1);
}
