//! What depends on nothing but the bytes and the operations: not on how bytes are cut, nor on when what is polled.

use std::collections::BTreeMap;

use fluxar_proto::{
    CallEvent, CallId, Error, Event, Payload, RequestId, StreamEvent, StreamId, StreamOptions,
};
use proptest::prelude::*;

use crate::support::{
    A, B, Chunks, Last, Order, Pair, TestRng, blob, cases, config, ms, options, take, uint,
};

/// What came of a call: its updates and its result. Or of a stream: its items and its final value.
type Story = (Vec<Payload>, Result<Payload, Error>);

/// What has come on a stream, and its number at the side that has opened it.
type Coming = (Vec<Payload>, Option<u64>);

/// Calls that a plan makes, answered by a policy that looks at nothing but the argument.
struct Planned {
    pair: Pair,
    numbers: [BTreeMap<CallId, u64>; 2],
    stories: BTreeMap<(usize, u64), Story>,
    late: Vec<(usize, RequestId, Payload)>,
    streams: [BTreeMap<StreamId, Coming>; 2],
}

impl Planned {
    fn new(prepare: impl FnOnce(&mut Pair)) -> Self {
        let config = config(|c| {
            c.limits.heartbeat_ms = 0;
            c.limits.max_message = 100_000;
        });
        let mut pair = Pair::new(&config, &config, 5);
        prepare(&mut pair);
        let (numbers, streams) = Default::default();
        Self { pair, numbers, stories: BTreeMap::new(), late: vec![], streams }
    }

    fn open(&mut self, end: usize, number: u64) {
        let now = self.pair.now;
        let side = self.pair.side(end);
        let stream = side.open_stream(now, "m", uint(number), StreamOptions::new()).unwrap();
        for n in 0..number % 8 {
            side.send_item(stream, if n == 5 { blob(6_000) } else { uint(n) }).unwrap();
        }
        side.end_stream(stream, Payload::null()).unwrap();
        self.streams[end].insert(stream, (vec![], Some(number)));
    }

    /// Items come back as they are, and their number as the final value.
    fn take(&mut self, end: usize, stream: StreamId) {
        let (items, last) = take(self.pair.side(end), stream);
        let (got, number) = self.streams[end].get_mut(&stream).expect("a stream that was not let go of");
        got.extend(items.iter().cloned());
        let side = self.pair.side(end);
        if number.is_none() {
            items.into_iter().for_each(|item| side.send_item(stream, item).unwrap());
        }
        let last = match last {
            Last::Open => return,
            Last::End(last) => last,
            last => panic!("{last:?}"),
        };
        let (got, number) = self.streams[end].remove(&stream).unwrap();
        match number {
            Some(number) => {
                let story = self.stories.insert((end, number), (got, Ok(last)));
                assert_eq!(story, None, "a second end");
            }
            None => side.end_stream(stream, uint(got.len() as u64)).unwrap(),
        }
        side.release_stream(stream);
    }

    fn call(&mut self, end: usize, number: u64) {
        let now = self.pair.now;
        let payload = if number.is_multiple_of(5) { blob(4_200 + number as usize) } else { uint(number) };
        let call = self.pair.side(end).call(now, "m", payload, options()).unwrap();
        self.numbers[end].insert(call, number);
        if number.is_multiple_of(7) {
            self.pair.side(end).cancel(now, call).unwrap();
        } else if number.is_multiple_of(3) {
            self.pair.side(end).update(call, uint(number)).unwrap();
        }
    }

    /// Answers what came, as its argument asks for.
    fn react(&mut self, end: usize) -> bool {
        let events = self.pair.events(end);
        let busy = !events.is_empty();
        for event in events {
            match event {
                Event::Call(CallEvent::Request(request)) => self.answer(end, request.id, request.payload),
                Event::Call(CallEvent::Response(call)) => {
                    let updates =
                        std::iter::from_fn(|| self.pair.side(end).poll_update(call).unwrap_or(None));
                    let updates = updates.collect();
                    let result = self.pair.side(end).take_response(call).unwrap().unwrap();
                    let story = self.stories.insert((end, self.numbers[end][&call]), (updates, result));
                    assert_eq!(story, None, "a second outcome");
                }
                Event::Stream(StreamEvent::Opened(opening)) => {
                    self.streams[end].insert(opening.id, (vec![], None));
                }
                Event::Stream(StreamEvent::Readable(stream)) => self.take(end, stream),
                Event::Closed(error) => panic!("{error}"),
                _ => {}
            }
        }
        busy
    }

    fn answer(&mut self, end: usize, request: RequestId, argument: Payload) {
        let side = self.pair.side(end);
        match argument.len() % 4 + usize::from(argument.as_bytes().last() == Some(&1)) {
            0 => side.respond(request, Err(Error::aborted("no"))).unwrap(),
            1 => side.respond(request, Ok(argument)).unwrap(),
            2 => {
                (0..3).for_each(|n| side.update_request(request, uint(n)).unwrap());
                side.respond(request, Ok(blob(8_300))).unwrap();
            }
            _ => self.late.push((end, request, argument)),
        }
    }

    fn settle(&mut self) {
        loop {
            self.pair.drive();
            let busy = [A, B].map(|end| self.react(end)).contains(&true);
            if !busy {
                let Some((end, request, argument)) = self.late.pop() else { return };
                self.pair.side(end).respond(request, Ok(argument)).unwrap();
            }
        }
    }
}

/// The session of a plan: which side calls when, and when everything comes to rest.
fn play(plan: &[u8], prepare: impl FnOnce(&mut Pair), steps: bool) -> Planned {
    let mut planned = Planned::new(prepare);
    planned.settle();
    for (number, what) in plan.iter().enumerate() {
        match what % 8 {
            0 => planned.settle(),
            1 if steps => drop(planned.pair.step()),
            1 => {}
            2 | 3 if number % 3 == 2 => planned.open(usize::from(what % 2 == 0), number as u64),
            what => planned.call(usize::from(what % 2 == 0), number as u64),
        }
    }
    planned.settle();
    planned
}

proptest! {
    #![proptest_config(cases(80))]

    // spec: §3.1
    #[test]
    fn bytes_may_be_read_in_any_pieces(
        plan in prop::collection::vec(any::<u8>(), 1..60),
        size in prop_oneof![1 => Just(1usize), 4 => 2usize..50, 6 => 50usize..9_000],
    ) {
        let whole = play(&plan, |_| (), true);
        for reads in [Chunks::Of(size), Chunks::UpTo(size)] {
            let cut = play(&plan, |pair| pair.reads = reads, true);
            for end in [A, B] {
                prop_assert!(cut.pair.ends[end].sent == whole.pair.ends[end].sent, "{:?}", reads);
            }
            prop_assert_eq!(&cut.stories, &whole.stories);
        }
    }

    // spec: §3.1, §10.2, §11.2
    #[test]
    fn outcomes_depend_neither_on_delays_nor_on_the_order_of_polls(
        plan in prop::collection::vec(any::<u8>(), 1..60),
        seed: u64,
        delay in 0u64..10,
    ) {
        let plain = play(&plan, |_| (), false);
        let shaken = play(&plan, |pair| {
            pair.order = Order::Shuffled(TestRng::new(seed));
            pair.chunks = Chunks::UpTo(3_000);
            pair.delay = ms(delay);
        }, true);
        prop_assert_eq!(&shaken.stories, &plain.stories);
        for end in [A, B] {
            prop_assert_eq!(shaken.pair.ends[end].error.as_ref(), None);
        }
    }
}
