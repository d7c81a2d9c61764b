//! Whatever two honest peers do, and whatever the link between them does to the bytes: nobody errs, every call has one
//! outcome, nothing is left.

use std::collections::BTreeMap;
use std::sync::Arc;

use fluxar_proto::{CallError, CallEvent, CallId, Config, Error, Event, Payload, RequestId, UpdateError};
use proptest::prelude::*;

use crate::support::{A, B, Chunks, Pair, TestRng, blob, cases, cbor, config, ms, options, uint};

/// What has become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    /// Announced, and not taken.
    Announced,
    Ended,
    Cancelled,
}

/// The application of one side.
#[derive(Debug, Default)]
struct App {
    calls: BTreeMap<CallId, Fate>,
    running: Vec<RequestId>,
    /// Something was `Blocked`, and no room has been announced since.
    waits: bool,
}

/// Two applications that do something at random.
struct Session {
    pair: Pair,
    apps: [App; 2],
    settings: [Arc<Config>; 2],
    rng: TestRng,
}

/// Small bounds, so that all of them are met; but as much misuse as the random operations may look like.
fn settings(rng: &mut TestRng) -> Arc<Config> {
    config(|c| {
        c.limits.max_message = if rng.below(2) == 0 { 200_000 } else { 2_000 };
        c.limits.max_calls = 1 + rng.below(12) as u32;
        c.limits.heartbeat_ms = [0, 100, 400][rng.below(3)];
        c.send_buffer = [1, 5_000, 1 << 20][rng.below(3)];
        c.request_bytes = [0, 3_000, 1 << 20][rng.below(3)];
        c.updates_per_call = 1 + rng.below(4);
        c.update_bytes = 2_000;
        c.max_deadline = Some(ms(1 + rng.below(40) as u64));
        c.misuse_capacity = 1_000_000;
    })
}

impl Session {
    fn new(seed: u64) -> Self {
        let mut rng = TestRng::new(seed);
        let settings = [settings(&mut rng), settings(&mut rng)];
        let mut pair = Pair::new(&settings[A], &settings[B], seed);
        pair.chunks = [Chunks::Whole, Chunks::Of(11), Chunks::UpTo(300), Chunks::UpTo(5_000)][rng.below(4)];
        pair.delay = ms(rng.below(8) as u64);
        pair.drive();
        Self { pair, apps: Default::default(), settings, rng }
    }

    fn payload(&mut self) -> Payload {
        match self.rng.below(12) {
            0 => blob(5_000),
            1 => blob(8_300),
            2 if self.pair.chunks == Chunks::Whole => blob(70_000),
            3 => blob(1_800),
            _ => uint(self.rng.word()),
        }
    }

    /// One operation of one side.
    fn operate(&mut self) {
        let end = self.rng.below(2);
        match self.rng.below(20) {
            0..5 => self.call(end),
            5 => self.cancel(end),
            6..10 => self.respond(end),
            10 | 11 => self.update(end),
            12 => {
                let now = self.pair.now;
                self.pair.side(end).ping(now);
            }
            13 => self.take_updates(end),
            14 => {
                self.pair.ends[end].blocked = true;
                let time = ms(self.rng.below(20) as u64);
                self.pair.wait(time);
                self.pair.ends[end].blocked = false;
            }
            15 | 16 => {
                let time = ms(self.rng.below(15) as u64);
                self.pair.wait(time);
            }
            17 => self.collect(end),
            _ => (0..self.rng.below(6)).for_each(|_| {
                self.pair.step();
            }),
        }
    }

    fn call(&mut self, end: usize) {
        let mut options = options();
        if self.rng.below(3) == 0 {
            options = options.with_timeout(ms(self.rng.below(30) as u64));
        }
        if self.rng.below(4) == 0 {
            options = options.with_meta(cbor(|out| out.map(1)?.str("k")?.bytes(&[7; 90])?.ok()).into());
        }
        let (payload, now) = (self.payload(), self.pair.now);
        match self.pair.side(end).call(now, "method", payload, options) {
            Ok(call) => assert_eq!(self.apps[end].calls.insert(call, Fate::Open), None, "an id twice"),
            Err(error) => self.apps[end].waits |= error == CallError::Blocked,
        }
    }

    fn cancel(&mut self, end: usize) {
        let now = self.pair.now;
        let open =
            self.apps[end].calls.iter().filter(|(_, fate)| matches!(fate, Fate::Open | Fate::Announced));
        let open = open.map(|(call, _)| *call).collect::<Vec<_>>();
        if !open.is_empty() {
            let call = open[self.rng.below(open.len())];
            let _gone_if_it_has_its_outcome = self.pair.side(end).cancel(now, call);
            self.apps[end].calls.insert(call, Fate::Cancelled);
        }
    }

    fn respond(&mut self, end: usize) {
        if self.apps[end].running.is_empty() {
            return;
        }
        let nth = self.rng.below(self.apps[end].running.len());
        let request = self.apps[end].running.swap_remove(nth);
        let result =
            if self.rng.below(4) == 0 { Err(Error::not_found("nothing")) } else { Ok(self.payload()) };
        let wanted = self.pair.side(end).is_wanted(request);
        let outcome = self.pair.side(end).respond(request, result);
        assert!(wanted || outcome.is_err());
        assert!(self.pair.side(end).respond(request, Ok(uint(0))).is_err(), "twice");
    }

    fn update(&mut self, end: usize) {
        let payload = self.payload();
        let calls = self.apps[end].calls.iter().rev().filter(|(_, fate)| **fate == Fate::Open);
        let call = calls.map(|(call, _)| *call).nth(self.rng.below(4));
        let requests = &self.apps[end].running;
        let request = requests.get(self.rng.below(requests.len().max(1))).copied();
        let sent = match (call, request, self.rng.below(2)) {
            (Some(call), _, 0) => self.pair.side(end).update(call, payload),
            (_, Some(request), _) => self.pair.side(end).update_request(request, payload),
            _ => Ok(()),
        };
        self.apps[end].waits |= sent == Err(UpdateError::Blocked);
    }

    fn take_updates(&mut self, end: usize) {
        for request in self.apps[end].running.clone() {
            while let Ok(Some(_)) = self.pair.side(end).poll_request_update(request) {}
        }
        for (call, _) in self.apps[end].calls.iter().filter(|(_, fate)| **fate == Fate::Open) {
            while let Ok(Some(_)) = self.pair.side(end).poll_update(*call) {}
        }
    }

    /// Takes events, and some of the outcomes that they announce.
    fn collect(&mut self, end: usize) {
        for event in self.pair.events(end) {
            match event {
                Event::Call(CallEvent::Request(request)) => self.apps[end].running.push(request.id),
                Event::Call(CallEvent::Response(call)) => {
                    let before = self.apps[end].calls.insert(call, Fate::Announced).expect("a call of ours");
                    assert!(matches!(before, Fate::Open | Fate::Cancelled), "a second outcome");
                    if before == Fate::Cancelled {
                        assert!(
                            self.pair.side(end).take_response(call).is_err(),
                            "cancelled when it was there"
                        );
                        self.apps[end].calls.insert(call, Fate::Cancelled);
                    }
                }
                Event::Call(CallEvent::Capacity) => self.apps[end].waits = false,
                Event::Closed(error) => panic!("{error}"),
                _ => {}
            }
        }
        let announced = self.apps[end].calls.iter().filter(|(_, fate)| **fate == Fate::Announced);
        for call in announced.map(|(call, _)| *call).collect::<Vec<_>>() {
            if self.rng.below(3) > 0 {
                self.take(end, call);
            }
        }
    }

    fn take(&mut self, end: usize, call: CallId) {
        let side = self.pair.side(end);
        side.take_response(call).unwrap().expect("it was announced").ok();
        assert!(side.take_response(call).is_err(), "twice");
        self.apps[end].calls.insert(call, Fate::Ended);
    }

    /// What a connection promises about its memory, at any moment.
    fn check_bounds(&mut self) {
        for end in [A, B] {
            let (ours, theirs) = (&self.settings[end], self.settings[1 - end].limits.max_calls);
            let stats = self.pair.side(end).stats();
            assert!(stats.calls_in_flight <= theirs as usize, "{stats:?}");
            assert!(stats.requests_running <= ours.limits.max_calls as usize, "{stats:?}");
            assert!(stats.update_bytes <= ours.update_bytes, "{stats:?}");
            let one = stats.requests_running <= 1;
            assert!(one || stats.request_bytes <= ours.request_bytes, "{stats:?}");
        }
    }

    /// Lets everything come to its end, and checks that nothing is left.
    fn finish(&mut self) {
        for _ in 0..3 {
            for end in [A, B] {
                while !self.apps[end].running.is_empty() {
                    self.respond(end);
                }
                self.collect(end);
            }
            self.pair.drive();
            self.pair.wait(ms(60));
        }
        for end in [A, B] {
            self.collect(end);
            for call in self.apps[end].calls.clone().into_keys() {
                if self.apps[end].calls[&call] == Fate::Announced {
                    self.take(end, call);
                }
            }
            let open = self.apps[end].calls.values().filter(|fate| **fate == Fate::Open).count();
            assert_eq!(open, 0, "calls without an outcome");
            assert_eq!(self.pair.ends[end].error, None);
            let stats = self.pair.side(end).stats();
            assert_eq!((stats.calls_in_flight, stats.requests_running), (0, 0), "{stats:?}");
            assert_eq!((stats.queued_bytes, stats.request_bytes, stats.update_bytes), (0, 0, 0), "{stats:?}");
            assert_eq!(self.pair.side(end).in_flight(), 0);
            assert!(!self.pair.side(end).wants_transmit());
            self.collect(end);
            assert!(!self.apps[end].waits, "who was turned away was never told of room");
        }
        let heartbeat = self.pair.a().peer().unwrap().limits.heartbeat_ms;
        if heartbeat == 0 && self.pair.b().peer().unwrap().limits.heartbeat_ms == 0 {
            assert_eq!((self.pair.a().poll_timeout(), self.pair.b().poll_timeout()), (None, None));
        }
    }
}

fn run(seed: u64, operations: usize) -> Session {
    let mut session = Session::new(seed);
    for _ in 0..operations {
        session.operate();
        session.check_bounds();
    }
    session.finish();
    session
}

proptest! {
    #![proptest_config(cases(200))]

    // spec: §5.15, §10.4, §10.5, §10.6, §10.9, §17.2
    #[test]
    fn two_honest_peers_never_err_and_leave_nothing_behind(seed: u64, operations in 1usize..300) {
        run(seed, operations);
    }

    // spec: §10.9, §8.7, §8.8
    #[test]
    fn an_end_at_any_moment_ends_every_call_once(seed: u64, operations in 1usize..120, how in 0usize..5) {
        let mut session = Session::new(seed);
        for _ in 0..operations {
            session.operate();
        }
        session.collect(A);
        session.collect(B);
        let pair = &mut session.pair;
        let now = pair.now;
        match how {
            0 => pair.cut(),
            1 => pair.a().close(now, None),
            2 => pair.b().close(now, Some(Error::unavailable("bye"))),
            3 => {
                pair.a().close(now, None);
                pair.b().close(now, None);
            }
            _ => {
                pair.ends[A].blocked = true;
                pair.a().close(now, None);
            }
        }
        pair.wait(std::time::Duration::from_secs(6));
        if how == 4 {
            pair.ends[A].blocked = false;
        }
        pair.drive();
        for end in [A, B] {
            let events = session.pair.events(end);
            if how != 4 || end == A {
                prop_assert!(session.pair.side(end).is_closed());
                prop_assert!(matches!(events.last(), Some(Event::Closed(_))), "{:?}", events);
            }
            for event in &events {
                if let Event::Call(CallEvent::Response(call)) = event {
                    let fate = session.apps[end].calls.insert(*call, Fate::Announced).unwrap();
                    prop_assert!(matches!(fate, Fate::Open | Fate::Cancelled));
                    if fate == Fate::Cancelled {
                        session.apps[end].calls.insert(*call, fate);
                    }
                }
                if let Event::Call(CallEvent::Request(request)) = event {
                    session.apps[end].running.push(request.id);
                }
            }
        }
        for end in [A, B].into_iter().filter(|end| how != 4 || *end == A) {
            for call in session.apps[end].calls.clone().into_keys() {
                if session.apps[end].calls[&call] == Fate::Announced {
                    session.take(end, call);
                }
            }
            prop_assert!(!session.apps[end].calls.values().any(|fate| *fate == Fate::Open));
            for request in std::mem::take(&mut session.apps[end].running) {
                prop_assert!(session.pair.side(end).respond(request, Ok(uint(1))).is_err());
            }
            let stats = session.pair.side(end).stats();
            prop_assert_eq!((stats.calls_in_flight, stats.requests_running), (0, 0));
            prop_assert_eq!((stats.queued_bytes, stats.request_bytes, stats.update_bytes), (0, 0, 0));
            prop_assert_eq!(session.pair.side(end).poll_timeout(), None);
            prop_assert!(session.pair.side(end).poll_event().is_none());
        }
    }

    // spec: §5.6
    #[test]
    fn the_same_seed_gives_the_same_bytes_and_events(seed: u64, operations in 1usize..100) {
        let [one, two] = [(); 2].map(|()| run(seed, operations));
        for end in [A, B] {
            prop_assert!(one.pair.ends[end].sent == two.pair.ends[end].sent);
        }
        prop_assert_eq!(format!("{:?}", one.apps), format!("{:?}", two.apps));
    }
}
