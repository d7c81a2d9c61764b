//! What the applications do with publications, and with the messages that they get.

use fluxar_proto::{Error, Event, PubSubEvent, PublishError, PublishOptions, Qos, Resumed};

use crate::path::{Letter, Outcome, Path, Seen};
use crate::support::{A, B};
use crate::world::{From, Held, World, qos};

impl World {
    /// Publishes what waits from the session before, then something new.
    pub(crate) fn publish(&mut self, end: usize) {
        if self.resume(end) {
            let (mode, len) = (qos(&mut self.rng), self.len());
            self.publish_one(end, mode, len);
        }
    }

    /// Whether there was room.
    pub(crate) fn publish_one(&mut self, end: usize, qos: Qos, len: usize) -> bool {
        let topic = ["orders.new", "orders.old", "m"][self.rng.below(3)];
        let mut letter = Letter::new(qos, qos, topic, len, self.rng.below(4) == 0);
        letter.since = self.pair.now;
        letter.durable = self.rng.below(3) == 0;
        let number = self.next_number();
        let mut options = PublishOptions::new().with_qos(qos).with_meta(letter.meta(number));
        (options.retain, options.durable) = (letter.marked, letter.durable);
        let now = self.pair.now;
        match self.pair.side(end).publish(now, topic, letter.payload(number), options) {
            Ok(publication) => {
                assert_eq!(publication.is_some(), qos > Qos::AtMostOnce);
                if let Some(publication) = publication {
                    self.apps[end].open.insert(publication, number);
                    self.apps[end].names.insert(publication.wire_id(), number);
                }
                self.routes[end].letters.insert(number, letter);
                true
            }
            Err(PublishError::Blocked) => {
                self.apps[end].waits = true;
                false
            }
            Err(PublishError::NoInflight) => {
                // §12.11: the peer takes none at all.
                assert!(qos > Qos::AtMostOnce && self.settings[1 - end].limits.max_inflight == 0);
                false
            }
            Err(error) => {
                let limit = self.settings[1 - end].limits.max_message as usize;
                assert!(matches!(error, PublishError::TooLarge { .. }) && len + 300 > limit, "{error}");
                false
            }
        }
    }

    /// Goes on with what the session before has left. Whether that is done.
    pub(crate) fn resume(&mut self, end: usize) -> bool {
        while let Some((number, resumed)) = self.apps[end].backlog.front().copied() {
            let letter = self.routes[end].letters.get_mut(&number).unwrap();
            if !resumed.released {
                (letter.before, letter.since) = (resumed.attempt, self.pair.now);
            }
            let mut options = PublishOptions::new().with_qos(letter.qos).with_meta(letter.meta(number));
            options = options.with_resumed(resumed);
            (options.retain, options.durable) = (letter.marked, letter.durable);
            let (topic, payload, now) = (letter.topic.clone(), letter.payload(number), self.pair.now);
            match self.pair.side(end).publish(now, &topic, payload, options) {
                Ok(publication) => {
                    let publication = publication.expect("it has an id already");
                    assert_eq!(publication.wire_id(), resumed.id);
                    let app = &mut self.apps[end];
                    app.backlog.pop_front();
                    if resumed.released {
                        app.releasing.insert(publication, resumed.attempt);
                    } else {
                        app.open.insert(publication, number);
                    }
                }
                Err(PublishError::Blocked) => {
                    self.apps[end].waits = true;
                    return false;
                }
                Err(error) => panic!("{number}: {error}"),
            }
        }
        true
    }

    /// The fate of one publication is not wanted any more.
    pub(crate) fn forget(&mut self, end: usize) {
        let open = &self.apps[end].open;
        let count = open.len().max(1);
        let Some((publication, number)) = open.iter().nth(self.rng.below(count)).map(|(p, n)| (*p, *n))
        else {
            return;
        };
        self.pair.side(end).forget_publication(publication).unwrap();
        assert!(
            self.pair.side(end).take_fate(publication).is_err()
                && self.pair.side(end).forget_publication(publication).is_err()
        );
        let app = &mut self.apps[end];
        app.open.remove(&publication);
        app.announced.retain(|one| *one != publication);
        app.forgotten.insert(publication);
        self.routes[end].letters.get_mut(&number).unwrap().outcome = Some(Outcome::Forgotten);
    }

    /// Lets one publication be released that was stored as acknowledged. Whether there was one.
    pub(crate) fn release(&mut self, end: usize) -> bool {
        let app = &mut self.apps[end];
        let Some(id) = app.unreleased.pop_first() else { return false };
        let outcome = self.routes[end].letters[&app.names[&id]].outcome;
        let released = self.pair.side(end).release_publication(id).is_ok();
        // §12.17: it has waited for that, unless it was given up before.
        assert!(released || outcome != Some(Outcome::Accepted), "{id} cannot be released");
        true
    }

    /// Takes some of what the side has got.
    pub(crate) fn read(&mut self, end: usize) {
        for _ in 0..self.rng.below(12) {
            self.read_publication(end);
        }
        for index in 0..self.subs.len() {
            if self.subs[index].taker == end && self.rng.below(2) == 0 {
                (0..self.rng.below(8)).for_each(|_| {
                    self.read_delivery(index);
                });
            }
        }
    }

    /// Whether there was a publication, with which the application does what it likes.
    pub(crate) fn read_publication(&mut self, end: usize) -> bool {
        let Some((seen, number)) = self.poll_publication(end) else { return false };
        self.receive(end, seen, From::Publications, number);
        true
    }

    /// The next publication. An application that was not told looks for none: it must always be told.
    pub(crate) fn poll_publication(&mut self, end: usize) -> Option<(Seen, u64)> {
        if !self.apps[end].readable {
            return None;
        }
        let Some(publication) = self.pair.side(end).poll_publication() else {
            self.apps[end].readable = false;
            return None;
        };
        let seen = Seen::from(publication);
        let number = self.routes[1 - end].hand(&seen, self.pair.now);
        Some((seen, number))
    }

    /// The application has got a message, and does what it likes.
    pub(crate) fn receive(&mut self, end: usize, seen: Seen, from: From, number: u64) {
        assert_eq!(seen.id.wants_ack(), seen.qos > Qos::AtMostOnce);
        if !seen.id.wants_ack() {
            // §12.7: there is nothing to settle.
            assert_eq!(self.pair.side(end).ack(seen.id), Ok(()));
            return;
        }
        let held = Held { id: seen.id, from, number, ignored: self.rng.below(12) == 0 };
        let known = self.apps[end].remembered.contains_key(&held.id.wire_id());
        match self.rng.below(8) {
            _ if known => self.accept(end, held),
            0..4 => self.accept(end, held),
            4 => self.decline(end, held),
            _ => self.apps[end].held.push(held),
        }
    }

    /// The application has got a message, and does nothing.
    pub(crate) fn keep(&mut self, end: usize, seen: Seen, from: From, number: u64) {
        if seen.id.wants_ack() {
            self.apps[end].held.push(Held { id: seen.id, from, number, ignored: true });
        }
    }

    /// Answers one of the messages that the application has.
    pub(crate) fn answer(&mut self, end: usize) {
        let answerable = |(_, held): &(usize, &Held)| !held.ignored;
        let places = self.apps[end].held.iter().enumerate().filter(answerable).map(|(place, _)| place);
        let places = places.collect::<Vec<_>>();
        if places.is_empty() {
            return;
        }
        let held = self.apps[end].held.swap_remove(places[self.rng.below(places.len())]);
        if self.rng.below(3) == 0 { self.decline(end, held) } else { self.accept(end, held) }
    }

    /// Handles a message, keeps that where it is needed, and says so (§12.17).
    pub(crate) fn accept(&mut self, end: usize, held: Held) {
        let Held { id, from, number, .. } = held;
        let path = match from {
            From::Publications => &mut self.routes[1 - end],
            From::Sub(index) => &mut self.subs[index].path,
        };
        // §12.9, §12.17: what was handled in an earlier session is only acknowledged.
        if from != From::Publications || !self.apps[end].remembered.contains_key(&id.wire_id()) {
            path.handle(number);
        }
        if from == From::Publications && path.letters[&number].qos == Qos::ExactlyOnce {
            self.apps[end].remembered.insert(id.wire_id(), number);
        }
        let answered = self.pair.side(end).ack(id).is_ok();
        self.note_answer(end, held, answered, |path| path.ack(number));
    }

    pub(crate) fn decline(&mut self, end: usize, held: Held) {
        let error = self.refusal();
        let answered = self.pair.side(end).nack(held.id, error.clone()).is_ok();
        self.note_answer(end, held, answered, |path| path.nack(held.number, error));
    }

    fn note_answer(&mut self, end: usize, held: Held, answered: bool, note: impl FnOnce(&mut Path)) {
        let Held { id, from, number, .. } = held;
        // An answer is given once.
        assert!(self.pair.side(end).ack(id).is_err(), "{number}");
        assert!(self.pair.side(end).nack(id, Error::aborted("no")).is_err(), "{number}");
        let over = match from {
            From::Publications => {
                let over = self.pair.side(end).error().is_some();
                assert!(!over || !answered, "{number} was answered behind the end");
                over
            }
            From::Sub(index) => {
                // §12.4: an answer has no effect once the subscription is over.
                assert!(self.subs[index].is_active() || !answered, "{number} was answered behind the end");
                self.collect(end);
                !self.subs[index].is_active()
            }
        };
        // Nothing else makes an answer come too late.
        assert!(answered || over, "{number} cannot be answered");
        if answered {
            match from {
                From::Publications => note(&mut self.routes[1 - end]),
                From::Sub(index) => note(&mut self.subs[index].path),
            }
        }
    }

    /// Looks at what has happened on one side.
    pub(crate) fn collect(&mut self, end: usize) {
        for event in self.pair.events(end) {
            match event {
                Event::PubSub(event) => self.note(end, event),
                Event::Closed(error) => assert_eq!(self.pair.side(end).error(), Some(&error)),
                _ => {}
            }
        }
        for publication in std::mem::take(&mut self.apps[end].announced) {
            if self.rng.below(4) == 0 {
                self.apps[end].announced.push(publication);
            } else {
                self.take_fate(end, publication);
            }
        }
    }

    fn note(&mut self, end: usize, event: PubSubEvent) {
        let app = &mut self.apps[end];
        match event {
            PubSubEvent::Publication => {
                assert!(!std::mem::replace(&mut app.readable, true), "announced again before all was polled");
            }
            PubSubEvent::Fate(publication) if app.forgotten.contains(&publication) => {}
            PubSubEvent::Fate(publication) => {
                let known = app.open.contains_key(&publication) || app.releasing.contains_key(&publication);
                assert!(known && !app.announced.contains(&publication), "{publication} has a second fate");
                app.announced.push(publication);
            }
            PubSubEvent::Acknowledged(id) => {
                let number = app.names[&id];
                assert!(self.routes[end].letters[&number].was_handled(), "{number}");
                app.acknowledged.insert(id, number);
                if self.routes[end].letters[&number].durable {
                    app.unreleased.insert(id);
                }
            }
            PubSubEvent::Completed(id) => {
                // §12.17: what is released was to be stored before.
                assert!(app.acknowledged.remove(&id).is_some(), "{id} was released, and nobody knows of it");
            }
            PubSubEvent::Released(id) => {
                app.remembered.remove(&id);
            }
            PubSubEvent::Capacity => app.waits = false,
            event => self.note_subscription(end, event),
        }
    }

    pub(crate) fn take_fate(&mut self, end: usize, publication: fluxar_proto::PublicationId) {
        let fate = self.pair.side(end).take_fate(publication).unwrap().expect("it was announced");
        assert!(self.pair.side(end).take_fate(publication).is_err(), "a fate is told once");
        let app = &mut self.apps[end];
        if let Some(attempts) = app.releasing.remove(&publication) {
            assert_eq!(fate, fluxar_proto::Fate::Accepted { attempts });
            return;
        }
        let number = app.open.remove(&publication).expect("a publication of ours");
        if let Some(attempt) = self.routes[end].learn(number, fate, self.pair.now) {
            let id = publication.wire_id();
            self.apps[end].backlog.push_back((number, Resumed { id, attempt, released: false }));
        }
    }

    /// Everybody takes and answers what there is. Whether there was something.
    pub(crate) fn serve(&mut self) -> bool {
        let mut busy = false;
        for end in [A, B] {
            self.collect(end);
            for publication in std::mem::take(&mut self.apps[end].announced) {
                self.take_fate(end, publication);
                busy = true;
            }
            self.resume(end);
            while self.release(end) {
                busy = true;
            }
            while self.read_publication(end) {
                busy = true;
            }
            for held in std::mem::take(&mut self.apps[end].held) {
                self.accept(end, held);
                busy = true;
            }
        }
        busy | self.serve_subscriptions()
    }
}
