//! Who goes first, of streams, calls and everything else (§2.4).

use std::sync::Arc;

use bytes::Buf;
use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{Config, Error, Payload, StreamId, StreamOptions, TransmitBuf};

use crate::support::{Msg, Script, Talk, blob, config, hello, options, uint};

fn roomy() -> Arc<Config> {
    config(|c| {
        c.stream_buffer = 8 << 20;
        c.send_buffer = 8 << 20;
    })
}

/// So many streams, whose openings were read, and which may send anything.
fn streams(count: usize) -> (Script, Vec<StreamId>) {
    let limits = [("stream_window", 1 << 30), ("max_calls", 10_000), ("max_streams", 100)];
    let mut script = Script::initiator_with(&roomy(), hello(true, &limits));
    let streams = (0..count).map(|_| open(&mut script)).collect();
    script.read();
    (script, streams)
}

fn open(script: &mut Script) -> StreamId {
    script.connection.open_stream(script.now, "m", uint(0), StreamOptions::new()).unwrap()
}

fn call(script: &mut Script, payload: Payload) {
    script.connection.call(script.now, "m", payload, options()).unwrap();
}

/// Whose turn each message of a stream was.
fn turns(messages: &[Msg], streams: &[StreamId]) -> Vec<usize> {
    let of = messages.iter().filter_map(|message| message.reference);
    of.map(|reference| streams.iter().position(|stream| stream.wire_id() == reference).unwrap()).collect()
}

// spec: §2.4
#[test]
fn control_goes_first_then_what_lets_others_go_on_then_calls_then_data() {
    let (mut script, streams) = streams(2);
    for stream in &streams {
        script.connection.send_item(*stream, uint(1)).unwrap();
    }
    call(&mut script, uint(2));
    script.connection.pause_stream(streams[0]);
    script.connection.ping(script.now).unwrap();
    let ping = Msg::opening(Kind::Control, script.id(), verb::PING);
    script.send(ping.clone()).unwrap();
    let refused = Msg::opening(Kind::Control, script.id(), "dance");
    script.send(refused.clone()).unwrap();
    let sent = script.read().into_iter().map(|message| (message.kind, message.target, message.reference));
    let wire = |n: usize| Some(streams[n].wire_id());
    let expected = [
        (Kind::Control, None, Some(ping.id)),
        (Kind::Control, Some(verb::PING), None),
        (Kind::Control, None, Some(refused.id)),
        (Kind::Stream, Some(verb::PAUSE), wire(0)),
        (Kind::Call, Some("m"), None),
        (Kind::Stream, None, wire(0)),
        (Kind::Stream, None, wire(1)),
    ];
    assert_eq!(
        sent.collect::<Vec<_>>(),
        expected.map(|(kind, target, reference)| (kind, target.map(String::from), reference))
    );
}

// spec: §2.4
#[test]
fn calls_overtake_streams_which_do_not_starve_beside_any_number_of_them() {
    for size in [1, 30_000] {
        let (mut script, streams) = streams(1);
        (0..20).for_each(|n| script.connection.send_item(streams[0], blob(1_100 + n)).unwrap());
        let calls = if size == 1 { 1_000 } else { 200 };
        (0..calls).for_each(|_| call(&mut script, blob(size)));
        let (mut since, mut bytes, mut data) = (0, 0, 0);
        let sent = script.read();
        assert_eq!(sent[0].kind, Kind::Call, "calls go first");
        for message in &sent {
            if message.kind == Kind::Stream {
                (since, bytes, data) = (0, 0, data + 1);
            } else {
                (since, bytes) = (since + 1, bytes + message.body().len());
            }
            let starves = since > 64 && bytes > 1 << 20;
            assert!(data == 20 || !starves, "{since} messages, {bytes} bytes ahead of item {data}");
        }
        assert_eq!(sent.len(), calls + 20);
        let ahead = sent.iter().take_while(|message| message.kind == Kind::Call).count();
        assert!(ahead >= 8, "{ahead}: calls are many, and each is waited for");
    }
}

// spec: §2.4
#[test]
fn calls_that_are_made_one_by_one_go_ahead_of_all_data() {
    let (mut script, streams) = streams(1);
    (0..400).for_each(|_| script.connection.send_item(streams[0], blob(2_000)).unwrap());
    let mut out = TransmitBuf::new();
    for _ in 0..10 {
        call(&mut script, uint(1));
        script.connection.poll_transmit(script.now, &mut out);
        let bytes = out.copy_to_bytes(out.remaining());
        assert!(bytes.len() < (64 << 10) + 3_000, "what is not encoded yet can be overtaken");
        let sent = Msg::decode_all(&bytes);
        assert_eq!(sent[0].kind, Kind::Call);
        assert!(sent[1..].iter().all(|message| message.kind == Kind::Stream) && sent.len() > 20);
    }
}

// spec: §2.4
#[test]
fn streams_take_turns() {
    let (mut script, streams) = streams(3);
    for stream in &streams {
        (0..50).for_each(|_| script.connection.send_item(*stream, blob(1_100)).unwrap());
        script.connection.end_stream(*stream, Payload::null()).unwrap();
    }
    let turns = turns(&script.read(), &streams);
    assert_eq!(turns, (0..3 * 51).map(|n| n % 3).collect::<Vec<_>>());
}

// spec: §2.4
#[test]
fn one_item_does_not_wait_for_the_many_of_another_stream() {
    let (mut script, streams) = streams(3);
    (0..400).for_each(|_| script.connection.send_item(streams[0], blob(9_000)).unwrap());
    (0..200_000).for_each(|_| script.connection.send_item(streams[1], uint(1)).unwrap());
    script.connection.send_item(streams[2], uint(1)).unwrap();
    let late = open(&mut script);
    script.connection.send_item(late, uint(2)).unwrap();
    let sent = script.read();
    let opening = sent.iter().position(|message| message.id == late.wire_id()).unwrap();
    assert_eq!(opening, 3, "an opening has its turn like data");
    let of = |stream: StreamId| sent.iter().position(|message| message.reference == Some(stream.wire_id()));
    assert_eq!((of(streams[2]), of(late)), (Some(2), Some(6)));
    // As long as both have something, both go on.
    let mut two = sent.iter().filter_map(|message| message.reference).filter(|id| *id != late.wire_id());
    let first = two.by_ref().take(20).filter(|id| *id == streams[0].wire_id()).count();
    assert!((9..=11).contains(&first), "{first} of 20");
}

// spec: §2.4, §11.5, §11.6
#[test]
fn who_may_not_send_takes_no_turn_from_others() {
    let (mut script, streams) = streams(3);
    let pause = Msg::continuation(Kind::Stream, script.id(), streams[1].wire_id()).verb(verb::PAUSE);
    script.send(pause).unwrap();
    for stream in &streams {
        (0..4).for_each(|_| script.connection.send_item(*stream, blob(1_100)).unwrap());
    }
    assert_eq!(turns(&script.read(), &streams), [0, 2, 0, 2, 0, 2, 0, 2]);
    assert!(!script.connection.wants_transmit());
    let resume = Msg::continuation(Kind::Stream, script.id(), streams[1].wire_id()).verb(verb::RESUME);
    script.send(resume).unwrap();
    assert!(script.connection.wants_transmit());
    assert_eq!(turns(&script.read(), &streams), [1, 1, 1, 1]);
}

// spec: §2.4, §11.4
#[test]
fn what_gives_a_stream_up_overtakes_the_data_of_others_and_its_own_is_not_sent() {
    let (mut script, streams) = streams(2);
    for stream in &streams {
        (0..4).for_each(|_| script.connection.send_item(*stream, blob(1_100)).unwrap());
    }
    script.connection.cancel_stream(streams[1], Some(Error::aborted("enough")));
    let sent = script.read();
    assert_eq!(sent[0].target.as_deref(), Some(verb::CANCEL));
    assert_eq!(turns(&sent, &streams), [1, 0, 0, 0, 0]);
}

// spec: §2.4, §11.5
#[test]
fn credit_overtakes_calls_and_data() {
    for mut talk in Talk::both(&config(|c| c.limits.stream_window = 1_000)) {
        let (stream, now) = (talk.stream, talk.script.now);
        talk.connection().send_item(stream, blob(5_000)).unwrap();
        talk.connection().call(now, "m", uint(1), options()).unwrap();
        talk.data(blob(900)).unwrap();
        assert_eq!(talk.take().0.len(), 1);
        let sent = talk.messages();
        let order = sent.iter().map(|message| message.target.as_deref()).collect::<Vec<_>>();
        assert_eq!(order, [Some(verb::CREDIT), Some("m"), None]);
    }
}

// spec: §2.4
#[test]
fn what_others_wait_for_does_not_starve_streams_however_much_of_it_there_is() {
    let (mut script, streams) = streams(1);
    (0..10).for_each(|n| script.connection.send_item(streams[0], blob(1_100 + n)).unwrap());
    (0..40).for_each(|_| call(&mut script, uint(1)));
    for _ in 0..1_000 {
        let refused = Msg::opening(Kind::Control, script.id(), "dance");
        script.send(refused).unwrap();
    }
    let (mut ahead, mut data) = (0, 0);
    for message in script.read() {
        let is_data = message.kind == Kind::Stream;
        (ahead, data) = if is_data { (0, data + 1) } else { (ahead + 1, data) };
        assert!(ahead <= 64 || data == 10, "{ahead} messages ahead of the {data}th of data");
    }
    assert_eq!(data, 10);
}
