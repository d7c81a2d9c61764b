//! What the applications do with subscriptions, at both ends.

use fluxar_proto::{
    Delivered, Error, OutMessage, Overflow, PubSubEvent, Qos, QueueLimits, SubscribeError, SubscribeOptions,
    SubscribeRequest, SubscriberId, SubscriptionId,
};

use crate::path::{Letter, Path, Seen};
use crate::support::{A, B};
use crate::world::{COST, From, World, qos, queue};

/// What one end knows of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Asked for: by the taker, or of the giver.
    Asked,
    Active,
    /// The other end, or the session, has ended it.
    Ended,
    /// This end has ended it.
    LetGo,
}

/// One subscription: who takes, and who gives.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) taker: usize,
    pub(crate) subscription: SubscriptionId,
    pub(crate) takes: Stand,
    filter: &'static str,
    wanted: Qos,
    inflight: u32,
    /// What the taker holds of it, and what the giver does.
    queue: QueueLimits,
    pub(crate) limits: QueueLimits,
    pub(crate) subscriber: Option<SubscriberId>,
    pub(crate) gives: Stand,
    granted: Qos,
    pub(crate) path: Path,
    /// There is something to be polled.
    readable: bool,
    /// The slot at the taker is free.
    gone: bool,
    /// Something was `Full`, and no room was announced since.
    pub(crate) full: bool,
    /// Deliveries that were taken or dropped; and whether some came from another member of a group.
    pub(crate) counted: u64,
    pub(crate) repeats: bool,
    /// Those that were dropped at once, when they were to be delivered.
    pub(crate) dropped: usize,
    /// The number of the last delivery that came.
    seq: u64,
}

impl Sub {
    /// Whether deliveries may be answered.
    pub(crate) fn is_active(&self) -> bool {
        self.takes == Stand::Active
    }

    /// Whether the taker may still look at it.
    pub(crate) fn is_kept(&self) -> bool {
        !self.gone
    }

    /// Deliveries that may be in flight; those sent at most once are none.
    pub(crate) fn inflight(&self) -> usize {
        self.inflight as usize
    }

    /// The number of the last delivery that came.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    pub(crate) fn gives(&self) -> Option<SubscriberId> {
        self.subscriber.filter(|_| self.gives == Stand::Active)
    }
}

impl World {
    pub(crate) fn subscribe(&mut self, end: usize) {
        let filter = ["t.a", "t.*", ">"][self.rng.below(3)];
        let wanted = qos(&mut self.rng).max(qos(&mut self.rng));
        let queue = queue(&mut self.rng);
        let asked = [None, Some(0), Some(1), Some(2), Some(70)][self.rng.below(5)];
        let mut options = SubscribeOptions::new().with_qos(wanted).with_queue(queue);
        options.inflight = asked;
        let now = self.pair.now;
        let subscription = match self.pair.side(end).subscribe(now, filter, options) {
            Ok(subscription) => subscription,
            Err(SubscribeError::TooMany { limit }) => {
                // §12.3: not before there are as many as the peer allows.
                assert_eq!(limit, self.settings[1 - end].limits.max_subscriptions as usize);
                assert!(self.pair.side(end).stats().subscriptions >= limit);
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let most = self.settings[end].limits.max_inflight.max(1);
        let inflight = asked.unwrap_or(most).max(1).min(most).min((queue.items as u32).max(1));
        self.subs.push(Sub {
            taker: end,
            subscription,
            takes: Stand::Asked,
            filter,
            wanted,
            inflight,
            queue,
            limits: QueueLimits::default(),
            subscriber: None,
            gives: Stand::Asked,
            granted: Qos::AtMostOnce,
            path: Path::new(&self.settings[1 - end]),
            readable: false,
            gone: false,
            full: false,
            counted: 0,
            repeats: false,
            dropped: 0,
            seq: 0,
        });
    }

    /// Answers one that was asked for.
    pub(crate) fn reply(&mut self, end: usize) {
        let asked = |sub: &Sub| sub.taker != end && sub.subscriber.is_some() && sub.gives == Stand::Asked;
        let Some(index) = self.subs.iter().position(asked) else { return };
        let grant = qos(&mut self.rng).max(qos(&mut self.rng));
        let (limits, now) = (queue(&mut self.rng), self.pair.now);
        let refused = self.rng.below(6) == 0;
        let sub = &mut self.subs[index];
        let id = sub.subscriber.unwrap();
        if refused {
            sub.gives = Stand::LetGo;
            self.pair.side(end).refuse_subscription(now, id, Error::permission_denied("no")).unwrap();
            return;
        }
        match self.pair.side(end).confirm(id, grant, limits) {
            Ok(()) => {
                (sub.gives, sub.granted) = (Stand::Active, grant.min(sub.wanted));
                sub.limits = QueueLimits { items: limits.items.max(1), ..limits };
                assert!(self.pair.side(end).confirm(id, grant, limits).is_err(), "confirmed twice");
            }
            // The taker has changed its mind.
            Err(_) => assert_ne!(sub.takes, Stand::Active),
        }
    }

    /// Delivers a few messages to one subscription.
    pub(crate) fn deliver(&mut self, end: usize) {
        let active = |(_, sub): &(usize, &Sub)| sub.taker != end && sub.gives == Stand::Active;
        let active = self.subs.iter().enumerate().filter(active).map(|(index, _)| index).collect::<Vec<_>>();
        if active.is_empty() {
            // There is somebody who wants something.
            if !self.subs.iter().any(|sub| sub.taker != end && sub.gives == Stand::Asked) {
                self.subscribe(1 - end);
            }
            self.pair.drive();
            self.collect(end);
            self.reply(end);
            return;
        }
        let index = active[self.rng.below(active.len())];
        for _ in 0..1 + self.rng.below(8) {
            let (mode, len, before) = (qos(&mut self.rng), self.len(), self.rng.below(40) == 0);
            self.deliver_one(index, mode, len, u32::from(before));
        }
    }

    /// What became of a delivery; none where the subscription is over.
    pub(crate) fn deliver_one(
        &mut self,
        index: usize,
        mode: Qos,
        len: usize,
        before: u32,
    ) -> Option<Delivered> {
        let number = self.next_number();
        let sub = &mut self.subs[index];
        let (giver, id) = (1 - sub.taker, sub.gives()?);
        let topic = if sub.filter == "t.a" { "t.a" } else { ["t.a", "t.b"][self.rng.below(2)] };
        let mut letter = Letter::new(mode, mode.min(sub.granted), topic, len, self.rng.below(5) == 0);
        (letter.before, letter.since) = (before, self.pair.now);
        let message = OutMessage::new(topic, mode, letter.payload(number), letter.meta(number)).unwrap();
        let message = if letter.marked { message.into_retained() } else { message };
        let lossy = letter.qos == Qos::AtMostOnce;
        let now = self.pair.now;
        let Ok(delivered) = self.pair.side(giver).deliver(now, id, &message.with_attempts(before)) else {
            // It has ended, and the application has not looked.
            self.collect(giver);
            assert_eq!(self.subs[index].gives(), None, "there is nobody to deliver to");
            return None;
        };
        let sub = &mut self.subs[index];
        match delivered {
            Delivered::Queued | Delivered::DroppedOldest => {
                sub.path.letters.insert(number, letter);
                sub.counted += 1;
                sub.repeats |= before > 0;
            }
            Delivered::DroppedNewest => {
                sub.counted += 1;
                sub.dropped += 1;
            }
            Delivered::TooLarge => {
                let limit = self.settings[sub.taker].limits.max_message as usize;
                assert!(len + 300 > limit);
                sub.counted += 1;
                sub.dropped += 1;
            }
            // §12.7: what is sent at most once does not wait.
            Delivered::Full => {
                assert!(!lossy && sub.limits.overflow == Overflow::Wait);
                // What was announced before does not count.
                self.collect(giver);
                self.subs[index].full = true;
            }
            Delivered::Closed => assert_eq!(sub.limits.overflow, Overflow::Close),
            other => panic!("{other:?}"),
        }
        Some(delivered)
    }

    /// Ends a subscription, from either side.
    pub(crate) fn end_one(&mut self, end: usize) {
        if self.subs.is_empty() || self.rng.below(2) == 0 {
            return;
        }
        let index = self.rng.below(self.subs.len());
        if self.subs[index].taker == end {
            self.unsubscribe(index);
            // What was held may still be answered, in vain.
            (0..self.rng.below(6)).for_each(|_| self.answer(end));
        } else if let Some(id) = self.subs[index].subscriber {
            let error = (self.rng.below(2) == 0).then(|| Error::unavailable("that was it"));
            // Its application is told as of any other end.
            if self.pair.side(end).end_subscription(id, error).is_err() {
                self.collect(end);
                let gives = self.subs[index].gives;
                assert!(matches!(gives, Stand::Ended | Stand::LetGo), "{gives:?}, and nothing to end");
            }
        }
    }

    pub(crate) fn unsubscribe(&mut self, index: usize) {
        let sub = &mut self.subs[index];
        let done = self.pair.side(sub.taker).unsubscribe(sub.subscription).is_ok();
        assert_eq!(done, !sub.gone, "{:?} {:?}", sub.subscription, sub.takes);
        (sub.takes, sub.gone, sub.readable) = (Stand::LetGo, true, false);
        let (taker, id) = (sub.taker, sub.subscription);
        // §12.4: nothing of it is seen any more.
        assert!(self.pair.side(taker).poll_delivery(id).is_err());
        assert!(self.pair.side(taker).subscription_stats(id).is_err());
    }

    /// Whether there was a delivery, with which the application does what it likes.
    pub(crate) fn read_delivery(&mut self, index: usize) -> bool {
        let Some((seen, number)) = self.poll_delivery(index) else { return false };
        self.receive(self.subs[index].taker, seen, From::Sub(index), number);
        true
    }

    /// The next delivery. An application that was not told looks for none.
    pub(crate) fn poll_delivery(&mut self, index: usize) -> Option<(Seen, u64)> {
        let sub = &mut self.subs[index];
        let over = matches!(sub.takes, Stand::Ended);
        if sub.gone || !(sub.readable || over) {
            return None;
        }
        let (taker, id) = (sub.taker, sub.subscription);
        match self.pair.side(taker).poll_delivery(id) {
            Err(_) => {
                self.collect(taker);
                let sub = &mut self.subs[index];
                assert_eq!(sub.takes, Stand::Ended, "gone before it was over");
                (sub.gone, sub.readable) = (true, false);
                None
            }
            Ok(None) => {
                sub.readable = false;
                None
            }
            Ok(Some(delivery)) => {
                assert_ne!(sub.takes, Stand::Asked, "a delivery before the confirmation");
                // §12.6: numbers rise, but for what comes again, which has none.
                let (dup, seq) = (delivery.dup, delivery.seq);
                assert_eq!(seq.is_none(), dup);
                assert!(seq.is_none_or(|seq| sub.seq < seq), "{seq:?} behind {}", sub.seq);
                sub.seq = seq.unwrap_or(sub.seq);
                let seen = Seen::from(delivery);
                let number = sub.path.hand(&seen, self.pair.now);
                Some((seen, number))
            }
        }
    }

    fn sub_of_taker(&mut self, end: usize, id: SubscriptionId) -> &mut Sub {
        let found = self.subs.iter_mut().find(|sub| sub.taker == end && sub.subscription == id);
        found.expect("a subscription of ours")
    }

    fn sub_of_giver(&mut self, end: usize, id: SubscriberId) -> &mut Sub {
        let found = self.subs.iter_mut().find(|sub| sub.taker != end && sub.subscriber == Some(id));
        found.expect("a subscription of the peer's")
    }

    pub(crate) fn note_subscription(&mut self, end: usize, event: PubSubEvent) {
        match event {
            PubSubEvent::Subscribe(request) => self.note_request(end, &request),
            PubSubEvent::Unsubscribed(id) => {
                let sub = self.sub_of_giver(end, id);
                assert_ne!(sub.gives, Stand::Ended, "it has ended twice");
                sub.gives = Stand::Ended;
                sub.full = false;
                // §12.4: who delivers can learn what was not acknowledged; that was told before.
                sub.path.check_told();
            }
            PubSubEvent::Room(id) => {
                let sub = self.sub_of_giver(end, id);
                assert!(std::mem::replace(&mut sub.full, false), "nobody waits for room");
            }
            PubSubEvent::Confirmed(id, granted) => {
                let sub = self.sub_of_taker(end, id);
                assert!(granted == sub.granted, "it was granted {:?}", sub.granted);
                if sub.takes == Stand::Asked {
                    sub.takes = Stand::Active;
                }
            }
            PubSubEvent::Ended(id, _) => {
                let sub = self.sub_of_taker(end, id);
                assert_ne!(sub.takes, Stand::Ended, "it has ended twice");
                if sub.takes != Stand::LetGo {
                    sub.takes = Stand::Ended;
                }
            }
            PubSubEvent::Delivered(id) => {
                let sub = self.sub_of_taker(end, id);
                let before = std::mem::replace(&mut sub.readable, !sub.gone);
                assert!(!before, "announced again before all was polled");
            }
            PubSubEvent::Undelivered { subscriber, message, attempts, error, ended, .. } => {
                let now = self.pair.now;
                let sub = self.sub_of_giver(end, subscriber);
                assert!(sub.gives != Stand::Ended, "told behind the end");
                sub.path.undelivered(crate::path::number(message.payload()), attempts, error, ended, now);
            }
            other => panic!("{other:?}"),
        }
    }

    fn note_request(&mut self, end: usize, request: &SubscribeRequest) {
        let wire = request.id.wire_id();
        let found = self.subs.iter_mut().find(|sub| sub.taker != end && sub.subscription.wire_id() == wire);
        let sub = found.expect("somebody has subscribed");
        assert_eq!((&*request.filter, request.qos), (sub.filter, sub.wanted));
        if sub.wanted > Qos::AtMostOnce {
            // §12.11: so many may be in flight.
            assert_eq!(request.inflight, sub.inflight);
        }
        assert_eq!(sub.subscriber.replace(request.id), None, "asked twice");
    }

    /// What queues promise of themselves, at any moment.
    pub(crate) fn check_queues(&mut self) {
        for sub in &self.subs {
            if let Ok(stats) = self.pair.side(sub.taker).subscription_stats(sub.subscription) {
                // §12.7, §12.11: what is held is bounded, and what is not settled.
                let QueueLimits { items, bytes, .. } = sub.queue;
                assert!(stats.items <= items.max(1), "{stats:?}");
                assert!(stats.bytes <= bytes || stats.items <= 1, "{stats:?}");
                assert!(stats.unsettled <= sub.inflight as usize, "{stats:?}");
            }
            let Some(id) = sub.subscriber else { continue };
            if let Ok(stats) = self.pair.side(1 - sub.taker).subscriber_stats(id) {
                let QueueLimits { items, bytes, .. } = sub.limits;
                assert!(stats.items <= items, "{stats:?}");
                assert!(stats.bytes <= bytes.max(5_000 + COST), "{stats:?}");
                assert!(stats.unsettled <= items.min(sub.inflight as usize), "{stats:?}");
            }
        }
    }

    /// Everybody takes and answers what there is of subscriptions. Whether there was something.
    pub(crate) fn serve_subscriptions(&mut self) -> bool {
        let mut busy = false;
        for end in [A, B] {
            while self
                .subs
                .iter()
                .any(|s| s.taker != end && s.subscriber.is_some() && s.gives == Stand::Asked)
            {
                let before = self.subs.iter().filter(|sub| sub.gives == Stand::Asked).count();
                self.reply(end);
                self.collect(end);
                busy = true;
                if self.subs.iter().filter(|sub| sub.gives == Stand::Asked).count() == before {
                    break;
                }
            }
        }
        for index in 0..self.subs.len() {
            while self.read_delivery(index) {
                busy = true;
            }
        }
        busy
    }
}
