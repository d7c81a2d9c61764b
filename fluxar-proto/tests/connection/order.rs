//! What depends on nothing but the bytes and the operations: not on how bytes are cut, nor on when what is polled.

use std::collections::BTreeMap;

use fluxar_proto::{CallEvent, CallId, Error, Event, Payload, RequestId};
use proptest::prelude::*;

use crate::support::{A, B, Chunks, Order, Pair, TestRng, blob, cases, config, ms, options, uint};

/// What came of a call: its updates and its result.
type Story = (Vec<Payload>, Result<Payload, Error>);

/// Calls that a plan makes, answered by a policy that looks at nothing but the argument.
struct Planned {
    pair: Pair,
    numbers: [BTreeMap<CallId, u64>; 2],
    stories: BTreeMap<(usize, u64), Story>,
    late: Vec<(usize, RequestId, Payload)>,
}

impl Planned {
    fn new(prepare: impl FnOnce(&mut Pair)) -> Self {
        let config = config(|c| {
            c.limits.heartbeat_ms = 0;
            c.limits.max_message = 100_000;
        });
        let mut pair = Pair::new(&config, &config, 5);
        prepare(&mut pair);
        Self { pair, numbers: Default::default(), stories: BTreeMap::new(), late: vec![] }
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

    // spec: §3.1, §10.2
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
