//! Whatever two honest applications do with streams, and whatever the link between them does to the bytes: items come
//! once and in order, nobody errs, memory stays within the windows, and nothing is left when everybody has let go.

use std::collections::BTreeMap;
use std::sync::Arc;

use fluxar_proto::{
    Code, Config, Error, Event, Id, Payload, Received, SendError, StreamError, StreamEvent, StreamId,
    StreamOptions,
};
use proptest::prelude::*;

use crate::support::{A, B, Chunks, Order, Pair, TestRng, blob, cases, config, ms, uint};

/// The longest item, in bytes, and what a message around it needs.
const MOST: usize = 9_000;

/// What is known of one direction, at the side that sends.
#[derive(Debug, Default)]
struct Sent {
    items: Vec<Payload>,
    end: Option<Payload>,
}

/// What both sides together know of a stream.
#[derive(Debug, Default)]
struct Story {
    /// What each side has sent.
    sent: [Sent; 2],
    /// Somebody gave it up, or it has a deadline: it may end with an error.
    troubled: bool,
}

/// A stream at one side.
#[derive(Debug, Default)]
struct View {
    ours: bool,
    /// So many items have come.
    got: usize,
    /// There is something to take, as far as was told.
    readable: bool,
    /// It was turned away, and has not been told of room.
    blocked: bool,
    withdrawn: bool,
    /// How it ended: in order, or with a code.
    last: Option<Result<Payload, Code>>,
    /// The application has let go of its sender, and of its receiver.
    released: (bool, bool),
}

struct Model {
    pair: Pair,
    settings: [Arc<Config>; 2],
    stories: BTreeMap<Id, Story>,
    views: [BTreeMap<StreamId, View>; 2],
    /// It was told that there is no room for a stream, and not of room since.
    waits: [bool; 2],
    rng: TestRng,
}

fn settings(rng: &mut TestRng) -> Arc<Config> {
    config(|c| {
        c.limits.heartbeat_ms = 0;
        c.limits.max_message = if rng.below(2) == 0 { 200_000 } else { 10_000 };
        c.limits.max_streams = 1 + rng.below(6) as u32;
        c.limits.stream_window = [0, 1, 100, 3_000, 30_000][rng.below(5)];
        c.max_stream_window = [0, 10_000, 50_000][rng.below(3)];
        c.stream_buffer = [1, 500, 20_000][rng.below(3)];
        c.request_bytes = if rng.below(4) == 0 { 1_000 } else { 1 << 20 };
        c.misuse_capacity = 1_000_000;
    })
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = TestRng::new(seed);
        let settings = [settings(&mut rng), settings(&mut rng)];
        let mut pair = Pair::new(&settings[A], &settings[B], seed);
        pair.chunks = [Chunks::Whole, Chunks::Of(11), Chunks::UpTo(300), Chunks::UpTo(5_000)][rng.below(4)];
        pair.delay = ms(rng.below(8) as u64);
        if rng.below(2) == 0 {
            pair.order = Order::Shuffled(TestRng::new(seed));
        }
        pair.drive();
        let (stories, views) = (BTreeMap::new(), Default::default());
        let mut model = Self { pair, settings, stories, views, waits: [false; 2], rng };
        model.collect(A);
        model.collect(B);
        model
    }

    /// One operation of one side.
    fn operate(&mut self) {
        let end = self.rng.below(2);
        self.collect(end);
        match self.rng.below(40) {
            0..4 => self.open(end),
            4..14 => self.send(end),
            14..20 => {
                let count = 1 + self.rng.below(5);
                self.take(end, count);
            }
            20..22 => self.end(end),
            22 => self.give_up(end),
            23 => self.let_go(end),
            24..26 => self.pause(end),
            26 => {
                let now = self.pair.now;
                self.pair.side(end).ping(now);
            }
            27 => {
                self.pair.ends[end].blocked = true;
                let time = ms(self.rng.below(20) as u64);
                self.pair.wait(time);
                self.pair.ends[end].blocked = false;
            }
            28..32 => {
                let time = ms(self.rng.below(15) as u64);
                self.pair.wait(time);
            }
            _ => (0..self.rng.below(6)).for_each(|_| {
                self.pair.step();
            }),
        }
    }

    /// One of the streams that a side has not let go of.
    fn any(&mut self, end: usize) -> Option<StreamId> {
        let count = self.views[end].len();
        let nth = self.rng.below(count.max(1));
        self.views[end].keys().nth(nth).copied()
    }

    fn view(&mut self, end: usize, stream: StreamId) -> &mut View {
        self.views[end].get_mut(&stream).expect("a stream that was not let go of")
    }

    fn story(&mut self, stream: StreamId) -> &mut Story {
        self.stories.entry(stream.wire_id()).or_default()
    }

    fn open(&mut self, end: usize) {
        let mut options = StreamOptions::new();
        let mut troubled = false;
        if self.rng.below(3) == 0 {
            options = options.with_window([0, 1, 50, 4_000][self.rng.below(4)]);
        }
        if self.rng.below(6) == 0 {
            options = options.with_timeout(ms(self.rng.below(60) as u64));
            troubled = true;
        }
        let (payload, now) = (self.item(), self.pair.now);
        match self.pair.side(end).open_stream(now, "m", payload, options) {
            Ok(stream) => {
                let view = View { ours: true, ..View::default() };
                assert!(self.views[end].insert(stream, view).is_none(), "an id twice");
                // The other side may refuse it: slots of cancelled streams are taken until their handlers are done.
                *self.story(stream) = Story { troubled, ..Story::default() };
            }
            Err(error) => {
                assert_eq!(error, StreamError::Blocked);
                self.waits[end] = true;
            }
        }
    }

    fn item(&mut self) -> Payload {
        match self.rng.below(12) {
            0 => blob(MOST),
            1 => blob(4_500),
            2 | 3 => blob(900 + self.rng.below(200)),
            _ => uint(self.rng.word() >> self.rng.below(64)),
        }
    }

    fn send(&mut self, end: usize) {
        let Some(stream) = self.any(end) else { return };
        for _ in 0..1 + self.rng.below(20) {
            let item = self.item();
            let side = self.pair.side(end);
            let sent = if self.rng.below(2) == 0 {
                side.send_item(stream, item.clone())
            } else {
                side.send_item_from(stream, item.as_item())
            };
            match sent {
                Ok(()) => self.story(stream).sent[end].items.push(item),
                Err(SendError::Blocked) => {
                    let view = self.view(end, stream);
                    // Nobody is told of a sender that was let go of.
                    view.blocked = !view.released.0;
                    return;
                }
                Err(SendError::Ended) => {
                    assert!(self.story(stream).sent[end].end.is_some() || self.view(end, stream).released.0);
                    return;
                }
                Err(SendError::Gone) => {
                    assert!(!self.pair.side(end).is_streaming(stream));
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn end(&mut self, end: usize) {
        let Some(stream) = self.any(end) else { return };
        let last = if self.rng.below(2) == 0 { Payload::null() } else { self.item() };
        if self.pair.side(end).end_stream(stream, last.clone()).is_ok() {
            let before = self.story(stream).sent[end].end.replace(last);
            assert_eq!(before, None, "ended twice");
        }
    }

    /// Fails, cancels or refuses.
    fn give_up(&mut self, end: usize) {
        let Some(stream) = self.any(end) else { return };
        self.story(stream).troubled = true;
        let (how, now) = (self.rng.below(4), self.pair.now);
        let side = self.pair.side(end);
        match how {
            0 => side.fail_stream(stream, Error::aborted("no")),
            1 => side.cancel_stream(stream, None),
            2 => side.cancel_stream(stream, Some(Error::new(Code(77), "enough"))),
            _ if self.view(end, stream).ours => {}
            _ => {
                self.pair.side(end).refuse_stream(now, stream, Error::not_found("no")).unwrap();
                self.views[end].remove(&stream);
            }
        }
    }

    fn let_go(&mut self, end: usize) {
        let Some(stream) = self.any(end) else { return };
        self.story(stream).troubled = true;
        let how = self.rng.below(3);
        let view = self.view(end, stream);
        match how {
            0 => view.released = (true, true),
            1 => view.released.0 = true,
            _ => view.released.1 = true,
        }
        view.blocked &= !view.released.0;
        let over = view.released == (true, true);
        let side = self.pair.side(end);
        match how {
            0 => side.release_stream(stream),
            1 => side.release_sender(stream),
            _ => side.release_receiver(stream),
        }
        self.note_end(end, stream);
        if over {
            self.views[end].remove(&stream);
        }
    }

    /// A sender that is let go of may have ended its direction by that.
    fn note_end(&mut self, end: usize, stream: StreamId) {
        if self.view(end, stream).released.0 {
            self.story(stream).sent[end].end.get_or_insert(Payload::null());
        }
    }

    fn pause(&mut self, end: usize) {
        let Some(stream) = self.any(end) else { return };
        match self.rng.below(3) {
            0 => self.pair.side(end).pause_stream(stream),
            _ => self.pair.side(end).resume_stream(stream),
        }
    }

    /// Takes up to so many things from a stream.
    fn take(&mut self, end: usize, count: usize) {
        let Some(stream) = self.any(end) else { return };
        self.take_from(end, stream, count);
    }

    fn take_from(&mut self, end: usize, stream: StreamId, count: usize) {
        for _ in 0..count {
            // What has come since events were taken is not told yet.
            self.collect(end);
            let received = self.pair.side(end).poll_stream(stream).unwrap();
            let view = self.views[end].get_mut(&stream).unwrap();
            assert!(view.readable || received.is_none() || view.released.1, "it was not told");
            let sent = &self.stories[&stream.wire_id()].sent[1 - end];
            match received {
                Some(Received::Items(items)) => {
                    assert!(view.last.is_none(), "items behind the end");
                    assert!(!view.released.1, "items for nobody");
                    for item in items {
                        assert_eq!(Some(&item), sent.items.get(view.got), "item {}", view.got);
                        view.got += 1;
                    }
                }
                Some(Received::End(last)) => {
                    assert!(view.released.1 || view.got == sent.items.len(), "not all has come");
                    assert_eq!(Some(&last), sent.end.as_ref());
                    assert!(view.last.replace(Ok(last.clone())).is_none_or(|before| before == Ok(last)));
                    return;
                }
                Some(Received::Failed(error)) => {
                    let refused = error.code == Code::RESOURCE_EXHAUSTED && error.processed == Some(false);
                    assert!(self.stories[&stream.wire_id()].troubled || refused, "{error:?}");
                    let last = Err(error.code);
                    assert!(view.last.replace(last.clone()).is_none_or(|before| before == last));
                    return;
                }
                None => {
                    view.readable = false;
                    return;
                }
            }
        }
    }

    /// Takes the events of one side, and checks that they belong there.
    fn collect(&mut self, end: usize) {
        for event in self.pair.events(end) {
            match event {
                Event::Stream(StreamEvent::Opened(opening)) => {
                    let view = View::default();
                    assert!(self.views[end].insert(opening.id, view).is_none());
                }
                Event::Stream(StreamEvent::Readable(id)) => {
                    if let Some(view) = self.views[end].get_mut(&id) {
                        assert!(!std::mem::replace(&mut view.readable, true), "told twice");
                    }
                }
                Event::Stream(StreamEvent::Writable(id)) => {
                    if let Some(view) = self.views[end].get_mut(&id) {
                        assert!(std::mem::take(&mut view.blocked), "nobody waits for room");
                    }
                }
                Event::Stream(StreamEvent::Withdrawn(id, _)) => {
                    if let Some(view) = self.views[end].get_mut(&id) {
                        assert!(!view.ours && !std::mem::replace(&mut view.withdrawn, true));
                    }
                }
                Event::Stream(StreamEvent::Capacity) => {
                    assert!(std::mem::take(&mut self.waits[end]), "nobody waits for a stream");
                }
                Event::Closed(error) => panic!("{error}"),
                _ => {}
            }
        }
    }

    /// What a connection promises about its memory, at any moment.
    fn check_bounds(&mut self) {
        for end in [A, B] {
            let (ours, theirs) = (&self.settings[end], &self.settings[1 - end]);
            let stats = self.pair.side(end).stats();
            assert!(stats.streams_open <= theirs.limits.max_streams as usize, "{stats:?}");
            assert!(stats.streams_serving <= ours.limits.max_streams as usize, "{stats:?}");
            let window = ours.limits.stream_window.max(ours.max_stream_window).max(4_000) as usize;
            let streams = self.views[end].len() + stats.streams_open + stats.streams_serving;
            assert!(stats.stream_held_bytes <= streams * (window + MOST), "{stats:?}");
            assert!(stats.stream_queued_bytes <= streams * (ours.stream_buffer + MOST + 128), "{stats:?}");
        }
    }

    /// Ends what is open, in order, takes everything, and lets go of it.
    fn finish(&mut self) {
        for round in 0.. {
            assert!(round < 1_000, "it never comes to its end: {:?}", self.views);
            let before = self.progress();
            for end in [A, B] {
                for stream in self.views[end].keys().copied().collect::<Vec<_>>() {
                    let last = uint(round);
                    if self.pair.side(end).end_stream(stream, last.clone()).is_ok() {
                        self.story(stream).sent[end].end = Some(last);
                    }
                    self.pair.side(end).resume_stream(stream);
                    self.take_from(end, stream, 100);
                }
            }
            self.pair.drive();
            self.pair.wait(ms(70));
            self.collect(A);
            self.collect(B);
            let told = self.views.iter().flat_map(|views| views.values());
            let told = told.filter(|view| view.readable && view.last.is_none()).count();
            if round > 0 && told == 0 && self.progress() == before {
                break;
            }
        }
        for end in [A, B] {
            for (stream, view) in std::mem::take(&mut self.views[end]) {
                let over = view.last.is_some() || view.released.1;
                assert!(
                    over,
                    "{end}: {stream:?} never ended: {view:?}\n{:?}",
                    self.stories[&stream.wire_id()]
                );
                assert!(!view.blocked, "who was turned away was never told of room: {view:?}");
                self.pair.side(end).release_stream(stream);
            }
        }
        self.pair.drive();
        self.check_nothing_left();
    }

    /// What changes as long as something happens.
    fn progress(&self) -> Vec<(usize, bool)> {
        self.views
            .iter()
            .flat_map(|views| views.values())
            .map(|view| (view.got, view.last.is_some()))
            .collect()
    }

    fn check_nothing_left(&mut self) {
        for end in [A, B] {
            self.collect(end);
            assert_eq!(self.pair.ends[end].error, None);
            let stats = self.pair.side(end).stats();
            assert_eq!((stats.streams_open, stats.streams_serving), (0, 0), "{stats:?}");
            assert_eq!((stats.stream_held_bytes, stats.stream_queued_bytes), (0, 0), "{stats:?}");
            assert!(!self.pair.side(end).wants_transmit());
            assert_eq!(self.pair.side(end).poll_timeout(), None);
            assert!(!self.waits[end], "who was turned away was never told of room");
        }
    }
}

fn run(seed: u64, operations: usize) -> Model {
    let mut model = Model::new(seed);
    for _ in 0..operations {
        model.operate();
        model.check_bounds();
    }
    model
}

proptest! {
    #![proptest_config(cases(200))]

    // spec: §11.2, §11.3, §11.4, §11.5, §11.6, §11.7, §11.9, §11.10, §17.2
    #[test]
    fn items_come_once_and_in_order_and_nothing_is_left(seed: u64, operations in 1usize..400) {
        run(seed, operations).finish();
    }

    // spec: §8.7, §8.8, §11.9
    #[test]
    fn an_end_at_any_moment_ends_every_stream(seed: u64, operations in 1usize..150, how in 0usize..4) {
        let mut model = run(seed, operations);
        model.collect(A);
        model.collect(B);
        let now = model.pair.now;
        match how {
            0 => model.pair.cut(),
            1 => model.pair.a().close(now, None),
            2 => model.pair.b().close(now, Some(Error::unavailable("bye"))),
            _ => model.pair.a().hang_up(now),
        }
        model.pair.wait(std::time::Duration::from_secs(6));
        for end in [A, B] {
            let events = model.pair.events(end);
            prop_assert!(matches!(events.last(), Some(Event::Closed(_))), "{:?}", events);
            for event in events {
                if let Event::Stream(StreamEvent::Opened(opening)) = event {
                    model.views[end].insert(opening.id, View::default());
                }
            }
            for (stream, view) in std::mem::take(&mut model.views[end]) {
                let side = model.pair.side(end);
                if !view.released.1 {
                    let mut received = std::iter::from_fn(|| side.poll_stream(stream).unwrap());
                    let last = received.find(|received| !matches!(received, Received::Items(_)));
                    prop_assert!(last.is_some(), "it never ended");
                }
                prop_assert_eq!(side.send_item(stream, uint(1)), Err(SendError::Gone));
                side.release_stream(stream);
                prop_assert!(side.poll_stream(stream).is_err());
            }
            let stats = model.pair.side(end).stats();
            prop_assert_eq!((stats.streams_open, stats.streams_serving), (0, 0));
            prop_assert_eq!((stats.stream_held_bytes, stats.stream_queued_bytes), (0, 0));
            prop_assert_eq!(model.pair.side(end).poll_timeout(), None);
        }
    }

    // spec: §5.6
    #[test]
    fn the_same_seed_gives_the_same_bytes(seed: u64, operations in 1usize..100) {
        let [one, two] = [(); 2].map(|()| run(seed, operations));
        for end in [A, B] {
            prop_assert!(one.pair.ends[end].sent == two.pair.ends[end].sent);
        }
    }
}
