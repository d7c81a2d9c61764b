//! How everything comes to its end, and what must be left then: nothing.

use std::time::Duration;

use fluxar_proto::{Delivered, Qos};

use crate::path::Outcome;
use crate::subscriptions::Stand;
use crate::support::{A, B};
use crate::world::{From, World};

/// Longer than any wait before a repetition that the applications ask for, or that a full queue does.
const LONGEST_WAIT: Duration = Duration::from_millis(1_500);

impl World {
    /// The applications answer everything, and the link does not stall: until nothing is left to be waited for.
    pub(crate) fn settle(&mut self) {
        let messages =
            self.routes.iter().chain(self.subs.iter().map(|sub| &sub.path)).map(|path| path.letters.len());
        let messages = messages.sum::<usize>() as u32 + 1;
        let patience = self.ack_timeout(A).max(self.ack_timeout(B)) + LONGEST_WAIT;
        // §12.8, §12.11: with honest applications every message is settled, in the time that its attempts may take.
        let until = self.pair.now + patience * 6 * messages;
        loop {
            self.pair.drive();
            self.check_bounds();
            if self.serve() {
                continue;
            }
            let timers = [A, B].map(|end| self.pair.side(end).poll_timeout());
            let Some(next) = timers.into_iter().flatten().min() else {
                if self.pair.step() {
                    continue;
                }
                return;
            };
            assert!(next <= until, "something is waited for without an end");
            self.pair.now = self.pair.now.max(next);
        }
    }

    /// Nothing is left of what was done.
    pub(crate) fn check_empty(&mut self) {
        for end in [A, B] {
            self.routes[end].check_fates();
            let app = &self.apps[end];
            assert!(
                app.open.is_empty()
                    && app.releasing.is_empty()
                    && app.backlog.is_empty()
                    && app.held.is_empty()
            );
            // §12.17: what was acknowledged was released.
            assert_eq!(app.acknowledged, Default::default(), "never released");
            // Who was turned away was told of room.
            assert!(!app.waits, "never told of room");
            for number in app.remembered.values() {
                let outcome = self.routes[1 - end].letters[number].outcome;
                let known = matches!(outcome, Some(Outcome::GivenUp | Outcome::Forgotten));
                assert!(known, "{number} is remembered: {outcome:?}");
            }
            let side = self.pair.side(end);
            let stats = side.stats();
            assert_eq!((stats.publish_bytes, stats.held_publication_bytes), (0, 0), "{stats:?}");
            assert_eq!((side.wants_transmit(), side.poll_timeout()), (false, None));
        }
        for index in 0..self.subs.len() {
            let sub = &self.subs[index];
            sub.path.check_told();
            assert!(!sub.full, "never told of room");
            let (taker, takes, gives) = (sub.taker, sub.takes, sub.gives);
            // §12.3: an honest subscriber is never refused for want of room.
            assert!(sub.subscriber.is_some() || takes == Stand::LetGo, "{sub:?}");
            assert_eq!(takes == Stand::Active, gives == Stand::Active, "{sub:?}");
            if let Some(id) = sub.gives() {
                let sent = self.pair.side(1 - taker).subscriber_stats(id).unwrap();
                assert_eq!((sent.items, sent.bytes, sent.unsettled), (0, 0, 0), "{sent:?}");
                let got = self.pair.side(taker).subscription_stats(sub.subscription).unwrap();
                assert_eq!((got.items, got.bytes, got.unsettled), (0, 0, 0), "{got:?}");
            }
        }
    }

    /// Each path takes as many messages unanswered as it was allowed to: nothing that is over still counts.
    pub(crate) fn check_windows(&mut self) {
        let refused = [A, B].map(|end| self.pair.side(end).stats().refused);
        for end in [A, B] {
            let most = self.settings[1 - end].limits.max_inflight.min(20);
            let mut sent = 0;
            while sent < most && self.publish_one(end, Qos::ExactlyOnce, 3) {
                sent += 1;
                assert!(self.arrives(1 - end, From::Publications), "a place in flight is lost");
            }
            assert!(sent > 0 || most == 0);
        }
        for index in 0..self.subs.len() {
            let sub = &self.subs[index];
            let (taker, most) = (sub.taker, sub.limits.items.min(20));
            for sent in 0..most {
                // What a letter goes by when the subscription grants less than is wanted here, needs no answer.
                match self.deliver_one(index, Qos::ExactlyOnce, 3, 0) {
                    Some(Delivered::Queued) if sent < self.subs[index].inflight() => {
                        assert!(self.arrives(taker, From::Sub(index)), "a place in flight is lost");
                    }
                    _ => break,
                }
            }
        }
        assert_eq!([A, B].map(|end| self.pair.side(end).stats().refused), refused, "too many were sent");
    }

    /// Whether something new has come, which is kept without an answer.
    fn arrives(&mut self, end: usize, from: From) -> bool {
        self.pair.drive();
        self.collect(end);
        let polled = match from {
            From::Publications => self.poll_publication(end),
            From::Sub(index) => self.poll_delivery(index),
        };
        let Some((seen, number)) = polled else { return false };
        self.keep(end, seen, from, number);
        true
    }

    /// The last message of each subscription shows all that was lost before it.
    pub(crate) fn check_losses(&mut self) {
        for index in 0..self.subs.len() {
            let sub = &self.subs[index];
            let (Some(id), taker) = (sub.gives(), sub.taker) else { continue };
            let subscription = sub.subscription;
            if self.deliver_one(index, Qos::AtMostOnce, 0, 0) != Some(Delivered::Queued) {
                panic!("a message that nothing hinders");
            }
            self.settle();
            let sub = &self.subs[index];
            let sent = self.pair.side(1 - taker).subscriber_stats(id).unwrap();
            let got = self.pair.side(taker).subscription_stats(subscription).unwrap();
            // §12.6: what the publisher has dropped, the subscriber knows of, and nothing else.
            assert_eq!(got.lost, sent.dropped, "{sent:?} {got:?}");
            sub.path.check_drops(sent.dropped as usize - sub.dropped + got.dropped as usize);
            assert!(sub.repeats || sub.seq() == sub.counted, "{sent:?} {got:?} {}", sub.counted);
        }
    }

    /// Of what was published at most once in this one session, nothing is lost that nobody has counted.
    pub(crate) fn check_drops(&mut self) {
        for end in [A, B] {
            let stats = self.pair.side(1 - end).stats();
            self.routes[end].check_drops(stats.publications_dropped as usize);
        }
    }

    /// Ends all subscriptions; then there is nothing.
    pub(crate) fn end_all(&mut self) {
        for index in 0..self.subs.len() {
            if self.subs[index].is_kept() {
                self.unsubscribe(index);
            }
        }
        self.settle();
        for end in [A, B] {
            let stats = self.pair.side(end).stats();
            assert_eq!((stats.subscriptions, stats.subscribers), (0, 0), "{stats:?}");
        }
        for sub in &self.subs {
            assert!(sub.subscriber.is_none() || matches!(sub.gives, Stand::Ended | Stand::LetGo), "{sub:?}");
        }
    }

    /// Everything comes to its end.
    pub(crate) fn finish(&mut self) {
        self.settle();
        self.check_empty();
        self.check_windows();
        self.settle();
        self.check_empty();
        self.check_losses();
        self.end_all();
        self.check_empty();
        self.check_audit();
    }
}
