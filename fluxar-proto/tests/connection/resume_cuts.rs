//! A link is cut at any byte, and the session goes on over another one: nothing is missing, nothing comes twice.

use fluxar_proto::{Config, PublishOptions, Qos, StreamId, SubscribeOptions};

use crate::support::{A, App, B, Duo, ms, options, survivors, uint};

/// Two hosts and their applications.
struct World {
    duo: Duo,
    apps: [App; 2],
    /// Which side has delivered what it had to.
    delivered: [bool; 2],
}

impl World {
    fn new(change: impl Fn(&mut Config)) -> Self {
        let [a, b] = survivors(change);
        let mut world = Self { duo: Duo::new(&a, &b, 3), apps: Default::default(), delivered: [false; 2] };
        world.duo.connect();
        world.run();
        world
    }

    /// Until nothing moves any more, the applications included.
    fn run(&mut self) {
        loop {
            self.duo.drive();
            for event in self.duo.events_of_a() {
                self.apps[A].note(&mut self.duo.a, event);
            }
            for (session, event) in self.duo.numbered_events_of_b() {
                assert_eq!(session, 0, "the session goes on");
                self.apps[B].note(&mut self.duo.b[0], event);
            }
            let worked = self.apps[A].work(&mut self.duo.a, usize::MAX)
                | self.apps[B].work(&mut self.duo.b[0], usize::MAX);
            if !worked {
                return;
            }
        }
    }

    /// The work of which nothing may be lost: calls, streams, publications and deliveries, both ways.
    fn work(&mut self) -> [StreamId; 2] {
        let now = self.duo.now;
        let Self { duo, apps: [app_a, app_b], .. } = self;
        let subscribe = SubscribeOptions::new().with_qos(Qos::ExactlyOnce);
        duo.a.subscribe(now, "t.>", subscribe.clone()).unwrap();
        duo.b().subscribe(now, "t.>", subscribe).unwrap();
        for n in [1, 2] {
            duo.a.call(now, "m", uint(n), options()).unwrap();
            duo.b().call(now, "m", uint(10 + n), options()).unwrap();
        }
        let streams = [
            app_a.stream(&mut duo.a, now, &[20, 21, 22]),
            app_b.stream(duo.b.last_mut().unwrap(), now, &[30, 31, 32]),
        ];
        for (n, qos) in [(40, Qos::AtLeastOnce), (41, Qos::ExactlyOnce)] {
            let options = PublishOptions::new().with_qos(qos);
            duo.a.publish(now, "t.a", uint(n), options.clone()).unwrap();
            duo.b().publish(now, "t.b", uint(10 + n), options).unwrap();
        }
        streams
    }

    /// What is done in the middle of it: deliveries, where there are subscriptions by now.
    fn deliver(&mut self) {
        let Self { duo, apps, delivered } = self;
        let connections = [&mut duo.a, &mut duo.b[0]];
        for (end, connection) in connections.into_iter().enumerate() {
            if !delivered[end] && !apps[end].subscribers.is_empty() {
                delivered[end] = true;
                for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
                    let n = 60 + 10 * end as u64 + u64::from(qos.to_wire());
                    assert_eq!(apps[end].deliver(connection, duo.now, n, qos), 1);
                }
            }
        }
    }

    /// The ends of the streams.
    fn end(&mut self, streams: [StreamId; 2]) {
        let Self { duo, apps: [app_a, app_b], .. } = self;
        app_a.send(&mut duo.a, streams[A], &[23]);
        assert!(app_a.end(&mut duo.a, streams[A]));
        assert!(app_b.end(&mut duo.b[0], streams[B]));
    }

    /// Everything was done once, and nothing is left.
    #[track_caller]
    fn check(&mut self, what: &str) {
        for (end, app) in self.apps.iter().enumerate() {
            let tens = |n: u64| n + 10 * (1 - end as u64);
            let answers: Vec<_> = app.outcomes.values().map(|all| &all[..]).collect();
            let own = if end == A { [1, 2] } else { [11, 12] };
            assert_eq!(answers, own.map(|n| [Ok(uint(n))]), "{what}: calls of {end}");
            assert_eq!(app.served, [tens(1), tens(2)], "{what}: requests of {end}");
            for flow in app.flows.values() {
                let items: &[u64] = if flow.ours == (end == A) { &[20, 21, 22, 23] } else { &[30, 31, 32] };
                assert_eq!((&flow.sent[..], &flow.got[..]), (items, items), "{what}: stream of {end}");
                assert_eq!(flow.last, Some(Ok(())), "{what}: stream of {end}");
            }
            let came = |all: &[crate::support::Came]| {
                let mut came: Vec<_> = all.iter().map(|(_, n, _, dup)| (*n, *dup)).collect();
                came.sort_unstable();
                came
            };
            let twice = |n: u64| [(tens(n), false), (tens(n + 1), false)];
            assert_eq!(came(&app.publications), twice(40), "{what}: publications at {end}");
            assert_eq!(came(&app.deliveries), twice(61), "{what}: deliveries at {end}");
            assert!(app.fates.values().all(|fates| fates.len() == 1) && app.fates.len() == 2, "{what}");
            assert!(app.lost.is_empty() && app.ended.is_empty() && app.undelivered.is_empty(), "{what}");
        }
        // The last is told within a second.
        self.duo.wait(ms(1_000));
        for connection in [&self.duo.a, &self.duo.b[0]] {
            let stats = connection.stats();
            assert_eq!((stats.kept_messages, stats.kept_bytes), (0, 0), "{what}");
            assert_eq!((stats.calls_in_flight, stats.requests_running), (0, 0), "{what}");
            assert_eq!((stats.streams_open, stats.streams_serving), (0, 0), "{what}");
            assert_eq!((stats.publish_bytes, stats.queued_bytes, stats.dropped), (0, 0, 0), "{what}");
        }
    }
}

/// The whole work, with a cut after so many bytes to one side; whether the link was still needed then.
fn cut_after(bytes: usize, side: usize, pieces: usize) -> bool {
    let mut world = World::new(|_| {});
    world.duo.pieces = pieces;
    let before = world.duo.links[0].sent[1 - side].len();
    let mut passes = [usize::MAX; 2];
    passes[side] = bytes;
    world.duo.cut(0, passes);
    let streams = world.work();
    world.run();
    world.deliver();
    world.end(streams);
    world.run();
    let written = world.duo.links[0].sent[1 - side].len() - before;
    world.duo.notice(0, A);
    world.duo.notice(0, B);
    world.run();
    world.duo.connect();
    world.run();
    // What the first link did not bring the second one has.
    world.deliver();
    world.run();
    world.check(&format!("a cut after {bytes} bytes to {side}"));
    assert_eq!((world.apps[A].resumed, world.apps[B].resumed), (1, 1));
    bytes < written
}

// spec: §9.2, §9.3, §9.6, §9.7, §8.8
#[test]
fn a_cut_at_any_byte_loses_nothing_and_repeats_nothing() {
    for side in [A, B] {
        let mut bytes = 0;
        while cut_after(bytes, side, 0) {
            bytes += 1;
        }
        assert!(bytes > 1_000, "{bytes}");
    }
}

// spec: §9.7, §3.4
#[test]
fn how_a_link_cuts_what_it_carries_changes_nothing() {
    for pieces in [1, 3, 50] {
        for side in [A, B] {
            for bytes in (0..1_500).step_by(97) {
                cut_after(bytes, side, pieces);
            }
        }
    }
}
