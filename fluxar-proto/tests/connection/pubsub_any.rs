//! A peer that sends any messages of publish/subscribe, while the application uses its own: no panic, one error that stays,
//! queues within their bounds, everything told once, and nothing left behind.

use std::collections::BTreeMap;

use fluxar_proto::message::{Id, Kind, key, verb};
use fluxar_proto::{
    ConnectionError, Error, Event, Gone, MessageId, OutMessage, Overflow, PubSubEvent, PublicationId,
    PublishError, PublishOptions, Qos, QueueLimits, SubscribeOptions, SubscriberId, SubscriptionId,
};
use proptest::prelude::*;

use crate::support::pubsub::{V, pubsub_events, several};
use crate::support::{Msg, Script, TestRng, blob, cases, ms, uint};

const INFLIGHT: usize = 4;
const BUFFER: usize = 2_000;
const LARGE: usize = 1_500;
/// What a message may count for beyond its payload.
const COST: usize = 500;
/// What is referred to is one of so many that came last.
const RECENT: usize = 6;

/// What the script may refer to.
#[derive(Default)]
struct Known {
    /// Messages that the connection has sent, those of them that were acknowledged, and those that it wants to be forgotten.
    sent: Vec<Id>,
    accepted: Vec<Id>,
    releases: Vec<Id>,
    /// Subscriptions of the connection: those that wait, with what is wanted, and those that are confirmed, with what was
    /// granted.
    asked: Vec<(Id, u64)>,
    granted: Vec<(Id, u64)>,
    /// Subscriptions, publications and deliveries of the script, and what of these was acknowledged.
    subscribed: Vec<Id>,
    published: Vec<Id>,
    delivered: Vec<Id>,
    acks: Vec<Id>,
}

struct Attack {
    script: Script,
    rng: TestRng,
    known: Known,
    /// Publications whose fate nobody has taken, and whether it was told.
    fates: BTreeMap<PublicationId, bool>,
    /// Subscriptions that were not let go of, and whether it was told that they ended.
    subscriptions: BTreeMap<SubscriptionId, (QueueLimits, bool)>,
    /// Subscriptions of the script that are not over, and whether they were confirmed, with these bounds.
    subscribers: BTreeMap<SubscriberId, Option<QueueLimits>>,
    held: Vec<MessageId>,
    /// It was turned away, and has not been told of room.
    blocked: bool,
}

fn queue(rng: &mut TestRng) -> QueueLimits {
    let overflow =
        [Overflow::Wait, Overflow::DropOldest, Overflow::DropNewest, Overflow::Close][rng.below(4)];
    QueueLimits { items: rng.below(4), bytes: [0, 1_000, 10_000][rng.below(3)], overflow }
}

fn qos(rng: &mut TestRng) -> Qos {
    [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][rng.below(3)]
}

/// One of the late ones.
fn any<T: Copy>(rng: &mut TestRng, of: &[T]) -> Option<T> {
    let recent = &of[of.len().saturating_sub(RECENT)..];
    (!recent.is_empty()).then(|| recent[rng.below(recent.len())])
}

impl Attack {
    fn new(seed: u64) -> Self {
        let mut rng = TestRng::new(seed);
        let (allowed, bounds) = ([0, 1, 3, 1 << 20][rng.below(4)], queue(&mut rng));
        let script = Script::pubsub_with(
            |c| {
                (c.limits.max_inflight, c.limits.max_subscriptions) = (INFLIGHT as u32, 4);
                (c.publish_buffer, c.held_publications) = (BUFFER, bounds);
                (c.ack_timeout, c.attempts, c.misuse_capacity) = (ms(100), 3, 100);
            },
            &[("max_inflight", allowed), ("max_subscriptions", 4), ("max_message", 4_000)],
        );
        Self {
            script,
            rng,
            known: Known::default(),
            fates: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            held: vec![],
            blocked: false,
        }
    }

    /// A message that fits what was said before, if there is one of its kind.
    fn message(&mut self) -> Option<Msg> {
        let new = self.script.id();
        let Self { rng, known, .. } = self;
        let again = rng.below(5) == 0;
        let payload = if rng.below(4) == 0 { blob(LARGE) } else { uint(7) };
        let marked = |message: Msg, qos: u64, rng: &mut TestRng| {
            let (dup, seq) = ((key::DUP, V::B(again)), (key::SEQ, V::U(rng.word() >> rng.below(64))));
            let marks = [(key::QOS, V::U(qos)), (key::TOPIC, V::T("a.b")), dup, seq];
            message.with(&marks[..2 + 2 * usize::from(again)]).payload(payload.clone())
        };
        let settle = |rng: &mut TestRng, verb, ids: &[Id]| {
            let (first, second) = (any(rng, ids)?, any(rng, ids)?);
            let message = Msg::continuation(Kind::Message, new, first).verb(verb);
            Some(if rng.below(3) == 0 { message.payload(several(&[second])) } else { message })
        };
        Some(match rng.below(30) {
            0..7 => {
                let id = if again { any(rng, &known.published)? } else { new };
                known.published.push(id);
                let topic = ["a", "a.b", "a.b", "fluxar.x", "a..b"][rng.below(5)];
                let qos = rng.below(3) as u64;
                marked(Msg::opening(Kind::Message, id, topic), if again { qos.max(1) } else { qos }, rng)
            }
            7..12 => {
                let (subscription, granted) = any(rng, &known.granted)?;
                let id = if again { any(rng, &known.delivered)? } else { new };
                known.delivered.push(id);
                let qos = rng.below(granted as usize + 1) as u64;
                marked(Msg::continuation(Kind::Message, id, subscription), qos, rng)
            }
            12 | 13 => {
                known.subscribed.push(new);
                let inflight = (key::INFLIGHT, V::U(1 + rng.below(3) as u64));
                let meta = [(key::QOS, V::U(rng.below(3) as u64)), inflight];
                Msg::opening(Kind::Subscribe, new, ["a", "a.*", ">"][rng.below(3)]).with(&meta)
            }
            14 => Msg::continuation(Kind::Unsubscribe, new, any(rng, &known.subscribed)?),
            15 if rng.below(3) == 0 => Msg::continuation(Kind::Unsubscribe, new, any(rng, &known.granted)?.0)
                .error(Error::aborted("no")),
            15..19 => {
                let (subscription, wanted) = known.asked.pop()?;
                let confirmation = Msg::continuation(Kind::Subscribe, new, subscription);
                if rng.below(6) == 0 {
                    return Some(confirmation.error(Error::permission_denied("no")));
                }
                let granted = wanted - rng.below(wanted as usize + 1) as u64 / 2;
                known.granted.push((subscription, granted));
                confirmation.with(&[(key::QOS, V::U(granted))])
            }
            19..22 => {
                let message = settle(rng, verb::ACK, &known.sent)?;
                let ids = message.ids();
                known.sent.retain(|id| !ids.contains(id));
                known.accepted.extend(ids);
                message
            }
            22 => settle(rng, verb::ACK, &known.accepted)?,
            23 => {
                let error = [Error::unavailable("no"), Error::not_found("no")][rng.below(2)].clone();
                let error = if rng.below(2) == 0 { error } else { error.with_retry_after_ms(10) };
                Msg::continuation(Kind::Message, new, any(rng, &known.sent)?).verb(verb::NACK).error(error)
            }
            24 | 25 => settle(rng, verb::COMPLETE, &known.releases)?,
            26 | 27 => settle(rng, verb::RELEASE, &known.acks)?,
            28 => settle(rng, verb::RELEASE, &[new])?,
            _ => settle(rng, "dance", &known.published)?,
        })
    }

    /// Any message, which hardly fits.
    fn strange(&mut self) -> Option<Msg> {
        let new = self.script.id();
        let Self { rng, known, .. } = self;
        let asked = known.asked.iter().map(|(id, _)| *id).collect();
        let lists =
            [&known.sent, &known.releases, &asked, &known.subscribed, &known.published, &known.delivered];
        let list = lists[rng.below(lists.len())];
        let reference = any(rng, list)?;
        let kind =
            [Kind::Message, Kind::Message, Kind::Subscribe, Kind::Unsubscribe, Kind::Call][rng.below(5)];
        let verbs = [verb::ACK, verb::NACK, verb::RELEASE, verb::COMPLETE, "dance"];
        let message = Msg::continuation(kind, new, reference).with(&[(key::QOS, V::U(rng.below(3) as u64))]);
        Some(if rng.below(3) == 0 { message } else { message.verb(verbs[rng.below(5)]) })
    }

    /// What the connection has sent tells what may be referred to.
    fn read(&mut self) {
        for message in self.script.read() {
            assert!(message.body().len() <= 4_000);
            let known = &mut self.known;
            match (message.kind, message.target.as_deref(), message.reference) {
                (Kind::Subscribe, _, None) => {
                    known.asked.push((message.id, message.meta_u64(key::QOS).unwrap_or(0)))
                }
                (Kind::Message, Some(verb::ACK), _) => known.acks.extend(message.ids()),
                (Kind::Message, Some(verb::RELEASE), _) => {
                    known.releases.extend(message.ids());
                }
                (Kind::Message, None, Some(_)) | (Kind::Message, Some(_), None) => {
                    known.sent.push(message.id)
                }
                _ => {}
            }
        }
    }

    /// The application does something.
    fn act(&mut self) {
        let now = self.script.now;
        let Self { script: Script { connection, .. }, rng, held, .. } = self;
        let payload = if rng.below(4) == 0 { blob(LARGE) } else { uint(7) };
        match rng.below(16) {
            0..3 => {
                let options = PublishOptions::new().with_qos(qos(rng));
                match connection.publish(now, "a.b", payload, options) {
                    Ok(Some(publication)) => drop(self.fates.insert(publication, false)),
                    Ok(None) | Err(PublishError::NoInflight) => {}
                    Err(error) => {
                        assert_eq!(error, PublishError::Blocked);
                        self.blocked = true;
                    }
                }
            }
            3 => {
                if let Some((publication, _)) = self.fates.pop_first() {
                    connection.forget_publication(publication).unwrap();
                }
            }
            4 => {
                let (queue, qos) = (queue(rng), qos(rng));
                let options = SubscribeOptions::new().with_qos(qos).with_queue(queue);
                if let Ok(subscription) = connection.subscribe(now, "a.*", options) {
                    self.subscriptions.insert(subscription, (queue, false));
                }
            }
            5 => {
                let ids = self.subscriptions.keys().copied().collect::<Vec<_>>();
                if let Some(subscription) = any(rng, &ids) {
                    connection.unsubscribe(subscription).unwrap();
                    self.subscriptions.remove(&subscription);
                }
            }
            6 | 7 => held.extend(connection.poll_publication().map(|publication| publication.id)),
            8 | 9 => {
                let ids = self.subscriptions.keys().copied().collect::<Vec<_>>();
                let Some(subscription) = any(rng, &ids) else { return };
                match connection.poll_delivery(subscription) {
                    Ok(delivery) => held.extend(delivery.map(|delivery| delivery.id)),
                    Err(Gone) => {
                        assert_eq!(
                            self.subscriptions.remove(&subscription).map(|(_, told)| told),
                            Some(true)
                        );
                    }
                }
            }
            10..13 => {
                if let Some(message) = held.pop() {
                    let settled = match rng.below(4) {
                        0 => connection.nack(message, Error::aborted("no")),
                        _ => connection.ack(message),
                    };
                    assert!(settled.is_ok() || connection.ack(message) == Err(Gone), "twice");
                }
            }
            13..16 => self.serve(),
            _ => {}
        }
    }

    /// The application does something with a subscription of the script.
    fn serve(&mut self) {
        let now = self.script.now;
        let Self { script: Script { connection, .. }, rng, .. } = self;
        let ids = self.subscribers.keys().copied().collect::<Vec<_>>();
        let Some(subscriber) = any(rng, &ids) else { return };
        let bounds = self.subscribers[&subscriber];
        match (rng.below(12), bounds) {
            (0, None) => {
                connection.refuse_subscription(now, subscriber, Error::not_found("no")).ok();
                self.subscribers.remove(&subscriber);
            }
            (_, None) => {
                let queue = queue(rng);
                connection.confirm(subscriber, qos(rng), queue).unwrap();
                self.subscribers.insert(subscriber, Some(queue));
            }
            (0, Some(_)) => connection.end_subscription(subscriber, None).unwrap(),
            (_, Some(_)) => {
                let payload = [uint(7), blob(LARGE), blob(3_999)][rng.below(8) / 3].clone();
                let message = OutMessage::new("a", qos(rng), payload, Default::default()).unwrap();
                connection.deliver(now, subscriber, &message).unwrap();
            }
        }
    }

    fn collect(&mut self) -> Vec<Event> {
        let events = self.script.events();
        for event in pubsub_events(&events) {
            match event {
                PubSubEvent::Subscribe(request) => {
                    assert!(self.subscribers.insert(request.id, None).is_none());
                }
                PubSubEvent::Unsubscribed(id) => {
                    assert!(self.subscribers.remove(&id).is_some(), "told twice")
                }
                PubSubEvent::Undelivered { subscriber, .. } => {
                    assert!(self.subscribers.contains_key(&subscriber), "behind its end");
                }
                PubSubEvent::Ended(id, _) => {
                    if let Some((_, told)) = self.subscriptions.get_mut(&id) {
                        assert!(!std::mem::replace(told, true), "told twice");
                    }
                }
                PubSubEvent::Fate(id) => {
                    if let Some(told) = self.fates.get_mut(&id) {
                        assert!(!std::mem::replace(told, true), "told twice");
                        if self.rng.below(2) == 0 {
                            self.script.connection.take_fate(id).unwrap().expect("a fate");
                            self.fates.remove(&id);
                        }
                    }
                }
                PubSubEvent::Capacity => assert!(std::mem::take(&mut self.blocked), "nobody waits"),
                _ => {}
            }
        }
        events
    }

    fn check_bounds(&self) {
        let connection = &self.script.connection;
        let stats = connection.stats();
        assert!(stats.subscribers <= 4 && stats.subscriptions <= self.subscriptions.len() + 4, "{stats:?}");
        assert!(stats.publish_bytes <= BUFFER + LARGE + COST, "{stats:?}");
        assert!(stats.held_publication_bytes <= 10_000 + LARGE + COST, "{stats:?}");
        assert!(self.blocked || self.fates.len() * 128 <= BUFFER + 128, "more than fits");
        for (subscription, (queue, _)) in &self.subscriptions {
            let stats = connection.subscription_stats(*subscription).unwrap();
            assert!(stats.items <= queue.items.max(1) && stats.unsettled <= INFLIGHT, "{stats:?}");
            assert!(stats.items <= 1 || stats.bytes <= queue.bytes, "{stats:?}");
        }
        for (subscriber, queue) in &self.subscribers {
            let stats = connection.subscriber_stats(*subscriber).unwrap();
            let Some(queue) = queue else { continue };
            assert!(stats.items <= queue.items.max(1) && stats.unsettled <= 3, "{stats:?}");
            assert!(stats.items <= 1 || stats.bytes <= queue.bytes, "{stats:?}");
        }
    }

    /// Something, of one side or the other.
    fn step(&mut self) -> Result<(), ConnectionError> {
        match self.rng.below(20) {
            0..9 => {
                let message = if self.rng.below(100) == 0 { self.strange() } else { self.message() };
                if let Some(message) = message {
                    self.script.send(message)?;
                }
            }
            9..16 => self.act(),
            16..19 => self.read(),
            _ => {
                let time = ms(self.rng.below(50) as u64);
                self.script.wait(time)?;
            }
        }
        if let Some(error) = self.script.connection.error() {
            return Err(error.clone());
        }
        self.collect();
        self.check_bounds();
        Ok(())
    }

    /// The connection has ended.
    fn check_end(mut self) {
        self.read();
        let events = self.collect();
        assert!(matches!(events.last(), Some(Event::Closed(_))), "{events:?}");
        assert!(self.subscribers.is_empty(), "nobody was told: {:?}", self.subscribers);
        assert!(self.fates.values().all(|told| *told), "nobody was told: {:?}", self.fates);
        assert!(self.subscriptions.values().all(|(_, told)| *told), "nobody was told");
        let connection = &mut self.script.connection;
        for message in self.held {
            assert_eq!(connection.ack(message).is_ok(), !message.wants_ack());
        }
        for publication in self.fates.keys() {
            assert!(connection.take_fate(*publication).unwrap().is_some());
        }
        for subscription in self.subscriptions.keys() {
            while connection.poll_delivery(*subscription).is_ok() {}
        }
        while connection.poll_publication().is_some() {}
        let stats = connection.stats();
        assert_eq!((stats.subscriptions, stats.subscribers), (0, 0));
        assert_eq!((stats.publish_bytes, stats.held_publication_bytes), (0, 0));
        assert_eq!((connection.poll_timeout(), connection.wants_transmit()), (None, false));
        assert!(connection.poll_event().is_none());
    }
}

proptest! {
    #![proptest_config(cases(500))]

    // spec: §5.15, §5.17, §12.7, §12.11, §12.12, §12.13, §12.14, §17.2
    #[test]
    fn any_messages_of_publish_and_subscribe_are_borne(seed: u64, count in 1usize..400, orderly: bool) {
        let mut attack = Attack::new(seed);
        for _ in 0..count {
            if attack.step().is_err() {
                attack.check_end();
                return Ok(());
            }
        }
        if orderly {
            let now = attack.script.now;
            attack.script.connection.close(now, None);
        } else {
            attack.script.send_bytes(&[0, 0, 0, 0]).unwrap_err();
        }
        attack.check_end();
    }
}
