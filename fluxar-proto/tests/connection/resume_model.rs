//! Whatever two applications do, and wherever links are cut, however late anybody notices, and whether sessions go on or
//! are lost: every call has one outcome, items come once and in order or their streams fail, messages come as often as
//! was promised, and nothing is left in the end.

use std::collections::BTreeMap;

use fluxar_proto::{
    CallId, Code, Connection, Error, Event, Fate, Instant, Payload, PublicationId, PublishOptions, Qos,
    StreamId, SubscribeOptions, SubscriptionId,
};
use proptest::prelude::*;

use crate::support::{
    A, App, B, Came, Duo, Flow, TestRng, cases, ms, number, options, padded, survivors, uint,
};

const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// What one application has asked for.
#[derive(Debug, Default)]
struct Asked {
    calls: BTreeMap<CallId, Call>,
    /// Publications, with their names where they have some.
    published: Vec<(u64, Qos, Option<PublicationId>)>,
    /// Messages that were delivered to so many subscriptions.
    delivered: Vec<(u64, Qos, usize)>,
    streams: Vec<StreamId>,
    subscription: Option<SubscriptionId>,
    /// It has ended a subscription, and what was on its way for it.
    unsubscribed: bool,
    /// Payloads may be large.
    large: bool,
}

#[derive(Debug)]
struct Call {
    n: u64,
    idempotent: bool,
    has_deadline: bool,
    cancelled: bool,
}

/// An application, and what it has asked for: one at the initiator, and one for each session at the responder.
#[derive(Debug, Default)]
struct Actor {
    app: App,
    asked: Asked,
}

#[derive(Debug)]
struct Model {
    duo: Duo,
    a: Actor,
    b: Vec<Actor>,
    /// Which links were cut, and who has not noticed.
    cut: Vec<(usize, [bool; 2])>,
    rng: TestRng,
    last: u64,
    /// Sessions never end: neither does their time, nor does the responder forget them.
    lasting: bool,
}

/// One operation of an application.
fn operate(connection: &mut Connection, actor: &mut Actor, n: u64, now: Instant, rng: &mut TestRng) {
    let Actor { app, asked } = actor;
    match rng.below(13) {
        0..4 => {
            let idempotent = rng.below(3) == 0;
            let mut options = if idempotent { options().with_idempotent() } else { options() };
            options.timeout = [None, None, Some(ms(2_000)), Some(ms(30_000))][rng.below(4)];
            let has_deadline = options.timeout.is_some();
            // Some are so large that they do not all leave at once.
            let payload = if asked.large { padded(n, 40_000) } else { uint(n) };
            if let Ok(call) = connection.call(now, "m", payload, options) {
                asked.calls.insert(call, Call { n, idempotent, has_deadline, cancelled: false });
            }
        }
        4 => {
            let calls = asked.calls.len();
            if let Some((id, call)) = asked.calls.iter_mut().nth(rng.below(calls.max(1))) {
                call.cancelled |= connection.cancel(now, *id).is_ok();
            }
        }
        5 => {
            if connection.ready_to_stream().is_ok() {
                let items: Vec<_> = (0..rng.below(6) as u64).map(|more| n * 10 + more).collect();
                asked.streams.push(app.stream(connection, now, &items));
            }
        }
        6 | 7 => {
            let streams = asked.streams.len();
            if let Some(stream) = asked.streams.get(rng.below(streams.max(1))) {
                app.send(connection, *stream, &[n * 10 + 9]);
                if rng.below(2) == 0 {
                    app.end(connection, *stream);
                }
            }
        }
        // Of all streams, whoever has opened them.
        8 if rng.below(3) == 0 => {
            let streams = app.flows.len();
            if let Some(stream) = app.flows.keys().nth(rng.below(streams.max(1))).copied() {
                app.cancel(connection, stream);
            }
        }
        9 if rng.below(3) == 0 => {
            if let Some(subscription) = asked.subscription.take() {
                asked.unsubscribed |= connection.unsubscribe(subscription).is_ok();
                subscribe(connection, asked, now);
            }
        }
        8..11 => {
            let qos = QOS[rng.below(3)];
            let options = PublishOptions::new().with_qos(qos);
            if let Ok(publication) = connection.publish(now, "t.y", uint(n), options) {
                asked.published.push((n, qos, publication));
            }
        }
        _ => {
            let qos = QOS[rng.below(3)];
            let count = app.deliver(connection, now, n, qos);
            asked.delivered.push((n, qos, count));
        }
    }
}

fn subscribe(connection: &mut Connection, asked: &mut Asked, now: Instant) {
    let options = SubscribeOptions::new().with_qos(Qos::ExactlyOnce);
    asked.subscription = connection.subscribe(now, "t.>", options).ok();
}

impl Model {
    fn new(seed: u64, lasting: bool) -> Self {
        let mut rng = TestRng::new(seed);
        let (ack_timeout, heartbeat) = ([3_000, 30_000][rng.below(2)], [0, 2_000][rng.below(2)]);
        let [a, b] = survivors(|c| {
            c.resume_time = ms(if lasting { 100_000_000 } else { 20_000 });
            c.limits.stream_window = 100;
            c.limits.max_inflight = 8;
            // However often something has to come again.
            (c.ack_timeout, c.attempts) = (ms(ack_timeout), 1_000);
            c.limits.heartbeat_ms = heartbeat;
        });
        let mut duo = Duo::new(&a, &b, seed);
        let large = rng.below(3) == 0;
        duo.pieces = if large { [0, 5_000][rng.below(2)] } else { [0, 7, 100][rng.below(3)] };
        duo.takes = if large { 20_000 } else { 0 };
        duo.connect();
        let mut a = Actor::default();
        a.asked.large = large;
        let mut model = Self { duo, a, b: vec![], cut: vec![], rng, last: 0, lasting };
        model.run(usize::MAX);
        subscribe(&mut model.duo.a, &mut model.a.asked, model.duo.now);
        model
    }

    /// Hands what happened to the applications, which do so many things about it.
    fn note(&mut self, work: usize) -> bool {
        let mut worked = false;
        for event in self.duo.events_of_a() {
            self.a.app.note(&mut self.duo.a, event);
        }
        for (session, event) in self.duo.numbered_events_of_b() {
            if matches!(event, Event::Established) {
                assert_eq!(session, self.b.len());
                self.b.push(Actor::default());
                self.b[session].asked.large = self.a.asked.large;
                subscribe(&mut self.duo.b[session], &mut self.b[session].asked, self.duo.now);
            }
            self.b[session].app.note(&mut self.duo.b[session], event);
        }
        worked |= self.a.app.work(&mut self.duo.a, work);
        for (connection, actor) in self.duo.b.iter_mut().zip(&mut self.b) {
            worked |= actor.app.work(connection, work);
        }
        worked
    }

    /// Until nothing moves any more.
    fn run(&mut self, work: usize) {
        loop {
            self.duo.drive();
            if !self.note(work) {
                return;
            }
        }
    }

    /// One step of one of many kinds.
    fn step(&mut self) {
        self.last += 1;
        let (n, now) = (self.last, self.duo.now);
        match self.rng.below(32) {
            0..7 => operate(&mut self.duo.a, &mut self.a, n, now, &mut self.rng),
            7..12 => {
                if let (Some(connection), Some(actor)) = (self.duo.b.last_mut(), self.b.last_mut()) {
                    operate(connection, actor, n, now, &mut self.rng);
                }
            }
            12..22 => {
                for _ in 0..self.rng.below(8) {
                    self.duo.step();
                }
                let work = self.rng.below(4);
                self.note(work);
            }
            22..24 => self.run(usize::MAX),
            24 => {
                let most = [600, 100_000][self.rng.below(2)];
                let passes = [self.rng.below(most), self.rng.below(most)];
                let link = self.duo.links.len() - 1;
                self.duo.cut(link, passes);
                self.cut.push((link, [true; 2]));
            }
            25..28 => {
                let (cuts, side) = (self.cut.len(), self.rng.below(2));
                if let Some((link, blind)) = self.cut.get_mut(self.rng.below(cuts.max(1)))
                    && std::mem::take(&mut blind[side])
                {
                    self.duo.notice(*link, side);
                }
            }
            28..31 => self.reconnect(),
            _ => {
                let time = [10, 500, 1_500, 9_000, 25_000][self.rng.below(5)];
                self.duo.wait(ms(time));
                self.note(1);
            }
        }
    }

    fn reconnect(&mut self) {
        if self.duo.a.is_detached() {
            self.duo.connect();
            // Now and then the other side does not know the session any more.
            if self.rng.below(12) == 0 && !self.lasting {
                self.duo.forget(None);
            }
        }
    }

    /// Everybody notices everything, and all that was begun comes to its end.
    fn finish(&mut self) {
        for (link, _) in std::mem::take(&mut self.cut) {
            self.duo.notice(link, A);
            self.duo.notice(link, B);
        }
        self.run(usize::MAX);
        self.reconnect();
        for _ in 0..20 {
            self.run(usize::MAX);
            self.a.end_all(&mut self.duo.a);
            for (connection, actor) in self.duo.b.iter_mut().zip(&mut self.b) {
                actor.end_all(connection);
            }
            // Whatever waits for an acknowledgement comes again; sessions that nobody has any more expire.
            self.duo.wait(ms(10_000));
        }
        self.run(usize::MAX);
    }

    fn check(&self) {
        assert_eq!(self.duo.broken, [], "nobody has said what may not be said");
        let lost = self.a.app.lost.len();
        assert!(!self.lasting || lost == 0 && self.b.len() == 1, "a session was lost: {:?}", self.a.app.lost);
        let last = self.b.len() - 1;
        let peers: Vec<_> = self.b.iter().map(|actor| &actor.app).collect();
        let unsubscribed = self.b.iter().any(|actor| actor.asked.unsubscribed);
        self.a.check("a", lost, &peers, true, unsubscribed);
        for (session, actor) in self.b.iter().enumerate() {
            let lost = usize::from(session < last);
            assert_eq!(actor.app.closed, lost == 1, "session {session} of {last}");
            actor.check(
                &format!("session {session}"),
                lost,
                &[&self.a.app],
                false,
                self.a.asked.unsubscribed,
            );
        }
        for (name, connection) in [("a", &self.duo.a), ("b", &self.duo.b[last])] {
            let stats = connection.stats();
            assert_eq!(connection.error(), None, "{name}");
            assert_eq!((stats.kept_messages, stats.kept_bytes), (0, 0), "{name}");
            assert_eq!((stats.calls_in_flight, stats.requests_running), (0, 0), "{name}");
            assert_eq!((stats.streams_open, stats.streams_serving), (0, 0), "{name}");
            assert_eq!((stats.stream_queued_bytes, stats.stream_held_bytes), (0, 0), "{name}");
            assert_eq!((stats.queued_bytes, stats.request_bytes), (0, 0), "{name}");
            assert_eq!((stats.publish_bytes, stats.delivery_bytes), (0, 0), "{name}");
            assert_eq!((stats.held_publication_bytes, stats.update_bytes), (0, 0), "{name}");
            assert_eq!((stats.subscriptions, stats.subscribers), (1, 1), "{name}");
        }
    }
}

impl Actor {
    fn end_all(&mut self, connection: &mut Connection) {
        for stream in &self.asked.streams {
            self.app.end(connection, *stream);
        }
    }

    /// What was asked for was done as it was promised; `lost` sessions were lost, and `renews` says whether others followed.
    /// `unsubscribed`: a peer has ended a subscription.
    fn check(&self, name: &str, lost: usize, peers: &[&App], renews: bool, unsubscribed: bool) {
        self.check_calls(name, lost, peers, renews);
        for stream in self.app.flows.keys() {
            self.check_stream(name, lost, *stream, peers);
        }
        for (n, qos, publication) in &self.asked.published {
            let came = count(peers, |app| &app.publications, *n);
            let what = format!("{name}: publication {n} with {qos:?}");
            let fates = publication.map_or(&[][..], |id| self.app.fates.get(&id).map_or(&[], |fates| fates));
            assert_eq!(fates.len(), usize::from(*qos > Qos::AtMostOnce), "{what}: {fates:?}");
            match fates.first() {
                None => {}
                Some(Fate::Accepted { .. }) => assert!(came >= 1, "{what} was accepted by nobody"),
                Some(Fate::Lost { error, .. }) => {
                    assert!(lost > 0 && !renews, "{what}: {fates:?}");
                    assert!(error.processed != Some(false) || came == 0, "{what} came: {fates:?}");
                }
                Some(Fate::GivenUp { .. }) => assert!(lost > 0, "{what}: {fates:?}"),
                Some(Fate::Rejected { .. }) => panic!("{what}: {fates:?}"),
            }
            check_times(&what, *qos, 1, lost, came);
        }
        for (n, qos, count_) in &self.asked.delivered {
            let came = count(peers, |app| &app.deliveries, *n);
            let told = self.app.undelivered.iter().filter(|told| *told == n).count();
            let what = format!("{name}: delivery {n} with {qos:?} to {count_}");
            assert!(told == 0 || lost > 0 || unsubscribed, "{what} was not delivered");
            let enough = *qos == Qos::AtMostOnce || came + told >= *count_;
            assert!(enough, "{what} came {came} times, and {told} not");
            check_times(&what, *qos, *count_, lost, came);
        }
    }

    fn check_calls(&self, name: &str, lost: usize, peers: &[&App], renews: bool) {
        for (id, call) in &self.asked.calls {
            let what = format!("{name}: {call:?}");
            let outcomes = self.app.outcomes.get(id).map_or(&[][..], |outcomes| outcomes);
            let served: usize =
                peers.iter().map(|app| app.served.iter().filter(|n| **n == call.n).count()).sum();
            let most = if call.idempotent { 1 + lost } else { 1 };
            assert!(served <= most, "{what} was served {served} times");
            match outcomes {
                [] => assert!(call.cancelled, "{what} has no outcome"),
                [Ok(payload)] => {
                    assert!(number(payload) == call.n && served >= 1, "{what}: {payload:?}");
                }
                [Err(error)] if call.has_deadline && error.code == Code::DEADLINE_EXCEEDED => {
                    assert!(error.processed.is_none() || served == 0, "{what}: {error:?}, but was served");
                }
                [Err(error)] => {
                    assert_eq!(error.code, Code::UNAVAILABLE, "{what}: {error:?}");
                    assert!(lost > 0 && !(renews && call.idempotent), "{what}: {error:?}");
                    assert!(error.processed.is_none() || served == 0, "{what}: {error:?}, but was served");
                    assert!(error.processed.is_none() || !renews, "{what} could have waited");
                }
                more => panic!("{what} has more than one outcome: {more:?}"),
            }
        }
        assert!(self.app.outcomes.keys().all(|id| self.asked.calls.contains_key(id)), "{name}");
    }

    fn check_stream(&self, name: &str, lost: usize, stream: StreamId, peers: &[&App]) {
        let flow = &self.app.flows[&stream];
        let what = format!("{name}: {stream} {flow:?}");
        let same = |id: &StreamId| id.wire_id() == stream.wire_id();
        let mut others = peers.iter().flat_map(|app| app.flows.iter());
        let other: Option<&Flow> = others.find(|(id, _)| same(id)).map(|(_, flow)| flow);
        let cancelled = flow.cancelled || other.is_some_and(|other| other.cancelled);
        match &flow.last {
            _ if cancelled => {}
            None => panic!("{what} has no end"),
            Some(Ok(())) => {
                let other = other.expect("who would have ended it?");
                assert!(other.ended && other.sent == flow.got, "{what} {other:?}");
            }
            Some(Err(Error { code, .. })) => assert!(lost > 0 && *code == Code::UNAVAILABLE, "{what}"),
        }
        let sent: &[u64] = other.map_or(&[], |other| &other.sent);
        assert!(sent.starts_with(&flow.got), "{what} got what was not sent: {sent:?}");
    }
}

/// How often a number has come to some applications.
fn count(apps: &[&App], all: impl Fn(&App) -> &Vec<Came>, n: u64) -> usize {
    apps.iter().map(|app| all(app).iter().filter(|(_, came, ..)| *came == n).count()).sum()
}

/// A message came no more often than it may, after so many sessions were lost.
#[track_caller]
fn check_times(what: &str, qos: Qos, to: usize, lost: usize, came: usize) {
    match qos {
        Qos::AtMostOnce => assert!(came <= to, "{what} came {came} times"),
        Qos::AtLeastOnce => {}
        Qos::ExactlyOnce => assert!(came <= to * (1 + lost), "{what} came {came} times"),
    }
}

proptest! {
    #![proptest_config(cases(100))]

    // spec: §8.8, §9.1, §9.2, §9.6, §9.7, §9.8, §9.9, §10.9, §12.8, §12.9
    #[test]
    fn whatever_links_do_the_promises_are_kept(seed: u64, steps in 50..400_usize) {
        let mut model = Model::new(seed, false);
        for _ in 0..steps {
            model.step();
        }
        model.finish();
        model.check();
    }

    // spec: §9.1, §9.2, §9.3, §9.6, §9.7, §9.8
    #[test]
    fn while_a_session_lasts_nothing_is_lost_and_nothing_comes_twice(seed: u64, steps in 50..400_usize) {
        let mut model = Model::new(seed, true);
        for _ in 0..steps {
            model.step();
        }
        model.finish();
        model.check();
    }
}

/// Where everything is cut all the time, sessions go on all the same: otherwise the model would show nothing.
#[test]
fn the_model_meets_what_it_is_about() {
    let (mut resumed, mut lost, mut again) = (0, 0, 0);
    for seed in 0..40 {
        let mut model = Model::new(seed, false);
        for _ in 0..250 {
            model.step();
        }
        model.finish();
        model.check();
        resumed += model.a.app.resumed;
        lost += model.a.app.lost.len();
        again += model.a.app.resubscribed;
        assert!(model.a.app.outcomes.values().flatten().any(Result::<Payload, Error>::is_ok));
    }
    assert!(resumed > 20 && lost > 5 && again > 3, "{resumed} {lost} {again}");
}
