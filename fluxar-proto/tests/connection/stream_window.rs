//! Windows that grow with the path, and what streams hold in memory (§11.5).

use bytes::Bytes;
use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{Error, Payload, Received, SendError, StreamId, StreamOptions};

use crate::support::{A, B, Chunks, Msg, Pair, Talk, blob, config, ms, one, opened, streaming, take, uint};

/// Some milliseconds later the application, which waits, takes what costs so much and has come; the credit that is given
/// for it.
#[track_caller]
fn credit_for(talk: &mut Talk, cost: usize, after: u64) -> u64 {
    assert!(talk.take().0.is_empty(), "the application waits");
    talk.script.now = talk.script.now + ms(after);
    talk.data(blob(cost - 39)).unwrap();
    assert_eq!(talk.take().0.len(), 1);
    let credit = talk.messages().into_iter().map(|message| {
        assert_eq!(message.target.as_deref(), Some(verb::CREDIT));
        Payload::new(message.payload.into()).unwrap().as_item().as_u64().unwrap()
    });
    credit.sum()
}

// spec: §11.5
#[test]
fn a_window_that_is_doubled_on_trial_stays_so_only_where_more_comes() {
    let config = config(|c| (c.limits.stream_window, c.max_stream_window) = (1_000, 5_000));
    for mut talk in Talk::both(&config) {
        for _ in 0..4 {
            assert_eq!(credit_for(&mut talk, 500, 10), 500);
        }
        assert_eq!(credit_for(&mut talk, 500, 10), 500 + 1_000, "50 bytes per ms, and a trial");
        for _ in 0..5 {
            assert_eq!(credit_for(&mut talk, 1_000, 10), 1_000);
        }
        assert_eq!(
            credit_for(&mut talk, 1_000, 10),
            1_000 + 2_000,
            "100 bytes per ms: it stays, and is tried again"
        );
        for _ in 0..5 {
            assert_eq!(credit_for(&mut talk, 2_000, 20), 2_000);
        }
        assert_eq!(credit_for(&mut talk, 2_000, 20), 0, "no more than before: 2,000 are withheld");
        for _ in 0..40 {
            assert_eq!(credit_for(&mut talk, 1_000, 10), 1_000, "and there is no other trial for a while");
        }
    }
}

// spec: §11.5
#[test]
fn the_windows_of_all_streams_together_grow_within_one_bound() {
    let config = config(|c| (c.limits.stream_window, c.max_stream_window) = (20_000, 30_000));
    let mut pair = Pair::established(&config);
    let mut grown = 0;
    let ids = [(); 3].map(|()| {
        let now = pair.now;
        pair.a().open_stream(now, "m", uint(0), StreamOptions::new()).unwrap()
    });
    pair.latency = ms(25);
    pair.drive();
    let accepted = opened(&pair.events(B));
    for _ in 0..200 {
        for id in ids {
            while pair.a().send_item(id, blob(1_100)).is_ok() {}
        }
        pair.wait(ms(10));
        for stream in &accepted {
            take(pair.b(), stream.id);
        }
        assert_eq!(pair.ends[A].error.as_ref().or(pair.ends[B].error.as_ref()), None);
    }
    // Now nobody reads: what comes fills the windows.
    pair.wait(ms(1_000));
    for stream in &accepted {
        let items = take(pair.b(), stream.id).0;
        grown += items.iter().map(|item| item.len()).sum::<usize>().saturating_sub(20_000 + 1_150);
    }
    assert!(grown > 0, "there was something to be gained");
    assert!(grown <= 30_000, "{grown}");
}

/// What one stream carries from A to B.
struct Flow {
    pair: Pair,
    stream: StreamId,
    accepted: StreamId,
    taken: u64,
}

impl Flow {
    fn new(window: u32, most: u32, rate: u64) -> Self {
        let config = config(|c| {
            (c.limits.stream_window, c.max_stream_window) = (window, most);
            c.stream_buffer = 1 << 20;
        });
        let mut pair = Pair::established(&config);
        (pair.latency, pair.rate, pair.chunks) = (ms(25), rate, Chunks::Of(4_096));
        let now = pair.now;
        let stream = pair.a().open_stream(now, "m", uint(0), StreamOptions::new()).unwrap();
        pair.drive();
        let accepted = one(opened(&pair.events(B))).id;
        Self { pair, stream, accepted, taken: 0 }
    }

    /// Sends as much as goes; the other side takes all that comes, or nothing.
    fn run(&mut self, time: u64, takes: bool) -> u64 {
        let before = self.taken;
        for _ in 0..time / 5 {
            loop {
                match self.pair.a().send_item(self.stream, blob(8_000)) {
                    Ok(()) => {}
                    Err(SendError::Blocked) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            self.pair.wait(ms(5));
            if takes {
                let (items, _) = take(self.pair.b(), self.accepted);
                self.taken += items.iter().map(|item| item.len() as u64).sum::<u64>();
            }
            assert_eq!(self.pair.ends[A].error.as_ref().or(self.pair.ends[B].error.as_ref()), None);
        }
        self.taken - before
    }
}

// spec: §11.5
#[test]
fn a_long_path_does_not_limit_how_fast_a_stream_is() {
    // 4 MB/s with a round trip of 50 ms, so that 200 kB are under way.
    let mut flow = Flow::new(16 << 10, 16 << 20, 4_000);
    let first = flow.run(200, true);
    assert!(first < 4_000 * 200 / 2, "{first}: the window was the limit at first");
    flow.run(1_500, true);
    let rate = flow.run(1_000, true) / 1_000;
    assert!(rate >= 3_800, "{rate} bytes per ms of 4,000");

    let mut narrow = Flow::new(16 << 10, 16 << 10, 4_000);
    let rate = narrow.run(1_000, true) / 1_000;
    assert!(rate < 600, "{rate} bytes per ms: a window that must not grow");
}

// spec: §11.5
// limit: growth of a stream's window
#[test]
fn a_window_grows_no_further_than_its_bound_nor_where_nobody_reads() {
    let mut flow = Flow::new(16 << 10, 100_000, 4_000);
    flow.run(1_000, false);
    let held = |flow: &mut Flow| flow.pair.b().stats().stream_held_bytes;
    assert!(held(&mut flow) < (16 << 10) + 8_100, "{}", held(&mut flow));
    flow.run(3_000, true);
    flow.run(1_000, false);
    // Less than half of the window was taken since credit was given last.
    assert!(held(&mut flow) > 50_000, "{}: it has grown", held(&mut flow));
    assert!(held(&mut flow) < 100_000 + 8_100, "{}", held(&mut flow));
}

/// Makes a message of data.
type Make = fn(&mut Talk) -> Msg;

// spec: §11.5
// limit: unread input kept for the application
#[test]
fn a_stream_that_nobody_reads_holds_its_window_and_one_message() {
    // In items of one byte, many to a message or one; and in such that are longer than the window.
    let kinds: [(usize, Make); 4] = [
        (1, |talk| talk.message(None).payload(uint(1))),
        (5_000, |talk| talk.message(None).payload(blob(5_000))),
        (100_000, |talk| talk.message(None).payload(blob(100_000))),
        (9_000, |talk| {
            let mut array = vec![0x99, 0x23, 0x28];
            array.extend([1; 9_000]);
            talk.message(Some(verb::ITEMS)).payload(array)
        }),
    ];
    for (size, message) in kinds {
        for mut talk in Talk::both(&config(|c| c.limits.stream_window = 20_000)) {
            let mut credit = 20_000;
            while credit > 0 {
                let message = message(&mut talk);
                credit -= message.body().len() as i64;
                talk.script.send(message).unwrap();
            }
            let held = talk.connection().stats().stream_held_bytes;
            assert!(held <= 20_000 + size, "{held}");
            assert!(talk.messages().is_empty(), "no credit for it");
            let (items, _) = talk.take();
            assert_eq!(items.iter().map(Payload::len).sum::<usize>(), held, "no more and no less");
            assert_eq!(talk.connection().stats().stream_held_bytes, 0);
        }
    }
}

// spec: §11.5, §17.2
#[test]
fn what_is_taken_from_before_a_large_message_gives_no_credit_for_that() {
    for mut talk in Talk::both(&config(|c| c.limits.stream_window = 1_000)) {
        let mut rounds = Vec::new();
        for _ in 0..3 {
            talk.data(blob(500 - 39)).unwrap();
            talk.data(blob(20_000 - 39)).unwrap();
            let stream = talk.stream;
            for _ in 0..2 {
                let taken = talk.connection().poll_stream(stream);
                assert!(matches!(taken, Ok(Some(Received::Items(_)))), "{taken:?}");
                rounds.extend(talk.heard().into_iter().map(|(_, credit)| credit.as_item().as_u64().unwrap()));
            }
        }
        assert_eq!(rounds, [500, 20_000].repeat(3), "the large one still waits when the first credit comes");
    }
}

/// The memory that an item keeps, in bytes.
#[track_caller]
fn pinned(item: Payload) -> usize {
    let Ok(memory) = Bytes::from(item).try_into_mut() else { panic!("somebody else holds it too") };
    memory.capacity()
}

// spec: §11.5, §17.2
#[test]
fn what_waits_keeps_no_memory_but_its_own() {
    for size in [1, 100, 2_000, 4_100, 8_000, 8_300, 15_000, 16_000, 20_000, 70_000] {
        for pings in [0, 100, 400] {
            for mut talk in Talk::both(&config(|c| c.limits.stream_window = 1 << 20)) {
                // A frame of data, and frames of others behind it, all read at once.
                let mut bytes = talk.message(None).payload(blob(size)).frame();
                for _ in 0..pings {
                    bytes.extend(Msg::opening(Kind::Control, talk.script.id(), verb::PING).frame());
                }
                talk.script.send_bytes(&bytes).unwrap();
                let stream = talk.stream;
                let Some(Received::Items(items)) = talk.connection().poll_stream(stream).unwrap() else {
                    panic!("nothing has come")
                };
                talk.connection().release_stream(stream);
                let kept = pinned(one(items.collect()));
                assert!(kept <= 2 * size + 1_000, "{kept} bytes for {size} behind which {pings} pings came");
            }
        }
    }
}

// spec: §17.2
#[test]
fn streams_that_come_and_go_leave_nothing_behind_where_the_transport_takes_nothing() {
    let mut script = streaming(&config(|_| ()), &[]);
    let mut sizes = vec![];
    for n in 0..20_000 {
        let opening = Msg::opening(Kind::Stream, script.id(), "m");
        script.send(opening.clone()).unwrap();
        let stream = one(opened(&script.events())).id;
        // Something to send, and something urgent to say.
        script.connection.send_item(stream, uint(1)).unwrap();
        script.connection.pause_stream(stream);
        let end = Msg::continuation(Kind::Stream, script.id(), opening.id).verb(verb::END);
        script.send(end.error(Error::aborted("no"))).unwrap();
        script.connection.release_stream(stream);
        script.events();
        if n % 5_000 == 4_999 {
            // Whatever it holds shows there.
            sizes.push(format!("{:?}", script.connection).len());
        }
    }
    assert!(sizes.iter().all(|size| *size < 2 * sizes[0].min(30_000)), "{sizes:?}");
    assert!(script.read().is_empty());
}
