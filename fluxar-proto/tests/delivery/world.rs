//! Two connections, and two applications that do something at random.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::{
    Code, Config, Error, Event, Id, MessageId, Overflow, PublicationId, Qos, QueueLimits, Resumed,
};

use crate::path::Path;
use crate::subscriptions::Sub;
use crate::support::{A, B, Chunks, Order, Pair, TestRng, config, ms, uint};

/// What a message counts for in memory beyond its bytes, at most, with all that travels beside its payload.
pub(crate) const COST: usize = 1_024;

/// Where a message came from that an application has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Publications,
    /// A subscription, by its place in the list.
    Sub(usize),
}

/// A message that an application has and has not answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) id: MessageId,
    pub(crate) from: From,
    pub(crate) number: u64,
    /// Nothing is answered before the end.
    pub(crate) ignored: bool,
}

/// The application of one side.
#[derive(Debug, Default)]
pub(crate) struct App {
    /// Publications whose fate is wanted, and those of which it was announced.
    pub(crate) open: BTreeMap<PublicationId, u64>,
    /// All publications with acknowledgement, by their ids.
    pub(crate) names: BTreeMap<Id, u64>,
    pub(crate) announced: Vec<PublicationId>,
    pub(crate) forgotten: BTreeSet<PublicationId>,
    /// Those that were acknowledged in an earlier session and are to be released.
    pub(crate) releasing: BTreeMap<PublicationId, u32>,
    /// What has to go on in this session, before anything new.
    pub(crate) backlog: VecDeque<(u64, Resumed)>,
    /// Something was `Blocked`, and no room was announced since.
    pub(crate) waits: bool,
    /// There are publications to be polled.
    pub(crate) readable: bool,
    pub(crate) held: Vec<Held>,
    /// Its durable stores (§12.17): ids that it has accepted exactly once and that were not released,
    pub(crate) remembered: BTreeMap<Id, u64>,
    /// and ids of its own publications that are to be released.
    pub(crate) acknowledged: BTreeMap<Id, u64>,
    /// Those of them that wait until it says so.
    pub(crate) unreleased: BTreeSet<Id>,
}

pub(crate) struct World {
    pub(crate) pair: Pair,
    pub(crate) settings: [Arc<Config>; 2],
    pub(crate) rng: TestRng,
    pub(crate) apps: [App; 2],
    /// `routes[n]` leads from side n.
    pub(crate) routes: [Path; 2],
    pub(crate) subs: Vec<Sub>,
    pub(crate) number: u64,
    /// How many of four messages are deliveries.
    taste: usize,
}

pub(crate) fn overflow(rng: &mut TestRng) -> Overflow {
    match rng.below(9) {
        0..4 => Overflow::Wait,
        4 | 5 => Overflow::DropOldest,
        6 | 7 => Overflow::DropNewest,
        _ => Overflow::Close,
    }
}

pub(crate) fn queue(rng: &mut TestRng) -> QueueLimits {
    QueueLimits {
        items: [0, 1, 2, 5, 20, 1_000, 1_000][rng.below(7)],
        bytes: [0, 2_000, 1 << 20, 1 << 20][rng.below(4)],
        overflow: overflow(rng),
    }
}

pub(crate) fn qos(rng: &mut TestRng) -> Qos {
    [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce][rng.below(4)]
}

/// Small bounds, so that all of them are met.
fn settings(rng: &mut TestRng) -> Arc<Config> {
    config(|c| {
        c.limits.heartbeat_ms = 0;
        c.limits.max_message = [2_000, 200_000][rng.below(2)];
        c.limits.max_inflight = [0, 1, 1, 2, 2, 3, 3, 8, 1_000][rng.below(9)];
        c.limits.max_subscriptions = 1 + rng.below(3) as u32;
        c.publish_buffer = [1, 3_000, 1 << 20][rng.below(3)];
        c.held_publications = queue(rng);
        c.ack_timeout = ms([15, 60, 400, 3_000][rng.below(4)]);
        c.attempts = rng.below(6) as u32;
    })
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = TestRng::new(seed);
        let settings = [settings(&mut rng), settings(&mut rng)];
        let pair = Self::link(&settings, &mut rng);
        let routes = [A, B].map(|end| Path::new(&settings[end]));
        let taste = rng.below(5);
        Self { pair, settings, rng, apps: Default::default(), routes, subs: vec![], number: 0, taste }
    }

    /// A new session, over a link with habits of its own.
    pub(crate) fn link(settings: &[Arc<Config>; 2], rng: &mut TestRng) -> Pair {
        let mut pair = Pair::new(&settings[A], &settings[B], rng.word());
        pair.drive();
        for end in [A, B] {
            assert!(matches!(pair.events(end)[..], [Event::Established]));
        }
        pair.chunks = [Chunks::Whole, Chunks::Of(11), Chunks::UpTo(300), Chunks::UpTo(5_000)][rng.below(4)];
        pair.reads = [Chunks::Whole, Chunks::UpTo(50), Chunks::UpTo(900)][rng.below(3)];
        if rng.below(3) > 0 {
            pair.order = Order::Shuffled(TestRng::new(rng.word()));
        }
        pair.latency = ms([0, 3, 40][rng.below(3)]);
        pair.delay = ms(rng.below(30) as u64);
        pair
    }

    pub(crate) fn ack_timeout(&self, end: usize) -> Duration {
        self.settings[end].ack_timeout
    }

    /// A size of a payload: seldom more than the peer takes.
    pub(crate) fn len(&mut self) -> usize {
        match self.rng.below(20) {
            0 => 5_000,
            1 => 1_400,
            2..5 => 300,
            _ => self.rng.below(20),
        }
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Some worlds have more of subscriptions, some more of publications.
    fn delivers(&mut self) -> bool {
        self.rng.below(4) < self.taste
    }

    /// One operation of one side, or of the world.
    pub(crate) fn operate(&mut self) {
        let end = self.rng.below(2);
        match self.rng.below(28) {
            0..6 if self.delivers() => self.deliver(end),
            0..4 => self.publish(end),
            4..6 => (0..2 + self.rng.below(10)).for_each(|_| self.publish(end)),
            6..9 => self.read(end),
            9..11 => self.answer(end),
            11..14 => self.collect(end),
            14 => {
                self.forget(end);
                self.release(end);
            }
            15 => self.subscribe(end),
            16 => self.reply(end),
            17 => self.deliver(end),
            18 => self.end_one(end),
            _ => self.pass(end),
        }
    }

    /// Time passes.
    fn pass(&mut self, end: usize) {
        let timeout = self.ack_timeout(end);
        let time = match self.rng.below(4) {
            0 => timeout.mul_f64(0.2 + 0.3 * self.rng.below(6) as f64),
            1 => ms(self.rng.below(3_000) as u64),
            _ => ms(self.rng.below(20) as u64),
        };
        match self.rng.below(6) {
            // The link stalls.
            0 => {
                self.pair.ends[end].blocked = true;
                self.pair.wait(time);
                self.pair.ends[end].blocked = false;
            }
            // Nobody looks at the clock.
            1 => self.pair.now = self.pair.now + time,
            2 | 3 => self.pair.wait(time),
            4 => self.pair.drive(),
            _ => (0..1 + self.rng.below(8)).for_each(|_| {
                self.pair.step();
            }),
        }
    }

    /// Some error that an application may answer with.
    pub(crate) fn refusal(&mut self) -> Error {
        let error = match self.rng.below(6) {
            0 => Error::permission_denied("never"),
            1 => Error::new([Code::NOT_FOUND, Code::OUT_OF_RANGE, Code::DRAINING][self.rng.below(3)], "no"),
            2 => Error::resource_exhausted("busy").with_retry_after_ms(self.rng.below(500) as u64),
            3 => Error::aborted("again").with_processed(self.rng.below(2) == 0),
            4 => Error::unavailable("not now").with_retry_after_ms(0),
            _ => Error::internal("oops"),
        };
        // So that one can be told from another.
        error.with_data(uint(self.rng.below(1_000) as u64).as_bytes().to_vec())
    }

    /// What connections promise of themselves, at any moment.
    pub(crate) fn check_bounds(&mut self) {
        for end in [A, B] {
            let settings = self.settings[end].clone();
            let side = self.pair.side(end);
            assert_eq!(side.error(), None, "nobody has done anything wrong");
            let stats = side.stats();
            // §15.3: what is held is bounded; one message is always admitted.
            let most = settings.publish_buffer + 5_000 + 2 * COST;
            assert!(stats.publish_bytes <= most, "{stats:?}");
            let subscriptions = self.settings[1 - end].limits.max_subscriptions as usize;
            assert!(stats.subscribers <= settings.limits.max_subscriptions as usize, "{stats:?}");
            let open = self.subs.iter().filter(|sub| sub.taker == end && sub.is_kept()).count();
            assert!(stats.subscriptions <= open + subscriptions, "{stats:?}");
        }
        self.check_queues();
    }
}
