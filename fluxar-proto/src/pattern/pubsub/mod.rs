//! Publish and subscribe: subscriptions and publications both ways, deliveries, and what settles them (§12).
//!
//! Who sends a message, as a publication or as a delivery, has one machine for it (`sender`), and who gets it another one
//! (`receiver`). What is queued and was never sent is a matter of `publish` and `subscriber`, what waits for the
//! application one of `inbox`. `subscription` and `subscriber` are the two ends of a subscription. All of them put what
//! they have to say on one desk, which the scheduler empties when the transport has room: what settles and confirms goes
//! ahead, messages take turns.

mod desk;
mod errors;
mod inbox;
mod journal;
mod message;
mod ops;
mod publish;
mod receive;
mod receiver;
mod renew;
mod retry;
mod sender;
mod subscriber;
mod subscription;
mod types;

use alloc::vec::Vec;
use core::time::Duration;

use self::desk::{Desk, Notice, Patience, batch};
pub use self::errors::{MessageError, PublishError, SubscribeError};
use self::inbox::{Group, Inbox};
pub use self::journal::DeliveryRecord;
use self::journal::Journal;
use self::publish::Publications;
use self::receiver::Receiver;
pub use self::retry::retry_wait;
use self::subscriber::Subscriber;
use self::subscription::Subscription;
pub use self::types::*;
use super::{Context, Home, OpenIds, Outgoing, Owner, Target};
use crate::message::{Error, Kind, verb};
use crate::session::{ConnectionError, Limits};
use crate::time::Instant;

/// The local limits on publish and subscribe: what this side holds, beyond what it announces (§15.3).
#[derive(Clone, Debug)]
pub(crate) struct PubSubLimits {
    /// Subscriptions of the peer at once; announced.
    pub(crate) max_subscriptions: usize,
    /// Publications of the peer, and deliveries of one subscription, that may be unsettled; announced.
    pub(crate) max_inflight: u32,
    /// Bytes held for publications of ours beyond which new ones are `Blocked`.
    pub(crate) publish_buffer: usize,
    /// Publications held for the application.
    pub(crate) held_publications: QueueLimits,
    pub(crate) ack_timeout: Duration,
    pub(crate) attempts: u32,
    /// Answers to releases of what is not known that wait to be sent.
    pub(crate) misuse_capacity: u32,
    /// Deliveries to the peer that are remembered.
    pub(crate) delivery_journal: usize,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PubSubStats {
    /// Publications of ours.
    pub(crate) published: u64,
    /// Publications of the peer.
    pub(crate) publications: u64,
    /// Publications of the peer that were dropped for want of room.
    pub(crate) publications_dropped: u64,
    /// Deliveries and retransmissions of them that were sent.
    pub(crate) deliveries_sent: u64,
    /// Deliveries that came.
    pub(crate) deliveries: u64,
    /// What continued nothing, and publications with qos 0 that are none.
    pub(crate) late: u64,
    pub(crate) subscriptions: usize,
    pub(crate) subscribers: usize,
    pub(crate) publish_bytes: usize,
    pub(crate) held_publication_bytes: usize,
    pub(crate) delivery_bytes: usize,
}

/// All subscriptions, publications and deliveries of one connection, in both directions.
#[derive(Debug)]
pub(crate) struct PubSub {
    limits: PubSubLimits,
    /// The handshake is done.
    started: bool,
    /// Both sides have the feature.
    on: bool,
    peer_max_message: usize,
    peer_max_inflight: u32,
    peer_max_subscriptions: usize,
    publications: Publications,
    /// Publications of the peer that are not settled, and those that wait for the application.
    receiver: Receiver,
    inbox: Inbox<Publication>,
    subscriptions: slab::Slab<Subscription>,
    subscribers: slab::Slab<Subscriber>,
    /// What the frames that are handled now came in.
    group: Group,
    desk: Desk,
    deliveries_sent: u64,
    deliveries: u64,
    /// Since when there is no link, where none of the peer's answers can come.
    paused: Option<Instant>,
}

impl PubSub {
    pub(crate) fn new(limits: PubSubLimits) -> Self {
        let patience = Patience { ack_timeout: limits.ack_timeout, attempts: limits.attempts.max(1) };
        // There is no subscription to close.
        let held = match limits.held_publications {
            QueueLimits { overflow: Overflow::Close, .. } => {
                QueueLimits { overflow: Overflow::Wait, ..limits.held_publications }
            }
            held => held,
        };
        Self {
            started: false,
            on: false,
            peer_max_message: 0,
            peer_max_inflight: 0,
            peer_max_subscriptions: 0,
            publications: Publications::new(limits.publish_buffer),
            receiver: Receiver::new(Home::Publications, limits.max_inflight as usize),
            inbox: Inbox::new(held),
            subscriptions: slab::Slab::new(),
            subscribers: slab::Slab::new(),
            group: Group::default(),
            desk: Desk::new(patience, limits.misuse_capacity as usize, Journal::new(limits.delivery_journal)),
            deliveries_sent: 0,
            deliveries: 0,
            paused: None,
            limits,
        }
    }

    /// The handshake is done: from now on there is publish and subscribe within the peer's limits, or none.
    pub(crate) fn start(&mut self, on: bool, peer: &Limits, open: &mut OpenIds) {
        (self.started, self.on) = (true, on);
        self.peer_max_message = peer.max_message as usize;
        self.peer_max_inflight = peer.max_inflight;
        self.peer_max_subscriptions = peer.max_subscriptions as usize;
        self.publications.start(on, peer, &mut self.desk, open);
        self.check_queued(open);
        // Also where there is none: who waits must learn that.
        self.publications.relieve(&mut self.desk);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// The frames that come now lie in one buffer, of so many bytes.
    pub(crate) fn note_group(&mut self, len: usize) {
        self.group.advance(len);
    }

    /// The next of what others wait for: whether messages are accepted, which would be late behind the end of their
    /// subscription (§12.4); then what concerns subscriptions, and what else settles messages.
    pub(crate) fn poll_urgent(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        if let Some(answer) = self.send_acks(cx).or_else(|| self.send_nack(cx)) {
            return Some(answer);
        }
        while let Some(notice) = self.desk.notices.pop_front() {
            if let Some(outgoing) = self.send_notice(notice, cx) {
                return Some(outgoing);
            }
        }
        self.send_releases(cx).or_else(|| self.send_completes(cx))
    }

    fn send_notice(&mut self, notice: Notice, cx: &mut Context<'_>) -> Option<Outgoing> {
        match notice {
            Notice::Subscribe(id) => self.subscription(id)?.send(cx),
            Notice::Unsubscribe(id) => {
                let outgoing = self.subscription(id)?.send_end(cx);
                self.sweep_subscription(id.slot);
                outgoing
            }
            Notice::Confirm(id) | Notice::End(id) => {
                let Self { subscribers, desk, .. } = self;
                let subscriber = subscribers.get_mut(id.slot).filter(|subscriber| subscriber.id == id.id)?;
                let outgoing = match notice {
                    Notice::Confirm(_) => subscriber.send_confirmation(desk, cx),
                    _ => subscriber.send_end(cx),
                };
                if outgoing.is_some() && subscriber.is_done() {
                    subscribers.remove(id.slot);
                }
                let limit = u32::try_from(self.peer_max_message).unwrap_or(u32::MAX);
                outgoing.map(|outgoing| outgoing.with_error_within(limit))
            }
        }
    }

    /// Who keeps what came.
    fn receiver_of(&mut self, home: Home) -> Option<&mut Receiver> {
        match home {
            Home::Publications => Some(&mut self.receiver),
            Home::Subscription(slot) => Some(&mut self.subscriptions.get_mut(slot)?.receiver),
        }
    }

    fn send_acks(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        batch(verb::ACK, cx, |cx| {
            loop {
                let MessageId { place, id } = self.desk.acks.pop_front()?;
                let (home, slot) = place?;
                if self.receiver_of(home).is_some_and(|receiver| receiver.send_ack(slot, id, cx.open)) {
                    return Some(id);
                }
            }
        })
    }

    fn send_nack(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        loop {
            let (MessageId { place, id }, error) = self.desk.nacks.pop_front()?;
            let (home, slot) = place?;
            let Some(receiver) = self.receiver_of(home) else { continue };
            if let Some(attempt) = receiver.send_last(slot, id, cx.open) {
                let nack =
                    Outgoing::new(Kind::Message, cx.ids.next(cx.now), Some(id), Target::Verb(verb::NACK));
                let nack = nack.with_result(Err(error)).of_attempt(attempt);
                let limit = u32::try_from(self.peer_max_message).unwrap_or(u32::MAX);
                return Some(nack.with_error_within(limit));
            }
        }
    }

    fn send_releases(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        batch(verb::RELEASE, cx, |_| {
            loop {
                let release = self.desk.releases.pop_front()?;
                let leaves = match release.owner {
                    Owner::Publications => self.publications.sender.send_release(release),
                    Owner::Subscriber(slot) => self
                        .subscribers
                        .get_mut(slot)
                        .is_some_and(|subscriber| subscriber.sender.send_release(release)),
                };
                if leaves {
                    return Some(release.id);
                }
            }
        })
    }

    fn send_completes(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        batch(verb::COMPLETE, cx, |cx| {
            loop {
                let MessageId { place, id } = self.desk.pop_complete()?;
                let Some((home, slot)) = place else { return Some(id) };
                let Some(receiver) = self.receiver_of(home) else { continue };
                if receiver.send_last(slot, id, cx.open).is_some() {
                    return Some(id);
                }
            }
        })
    }

    /// The next message: of publications and of all subscriptions in turn.
    pub(crate) fn poll_bulk(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        loop {
            let outgoing = match self.desk.round.pop_front()? {
                Owner::Publications => self.publications.send(&mut self.desk, cx),
                Owner::Subscriber(slot) => {
                    let subscriber = self.subscribers.get_mut(slot);
                    let sent = subscriber.and_then(|subscriber| subscriber.send(&mut self.desk, cx));
                    self.deliveries_sent += u64::from(sent.is_some());
                    sent
                }
            };
            if outgoing.is_some() {
                return outgoing;
            }
        }
    }

    pub(crate) fn wants_transmit(&self) -> bool {
        !self.desk.is_empty()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.desk.timers.first().map(|(at, ..)| *at).filter(|_| self.paused.is_none())
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.paused.is_some() {
            return;
        }
        let Self { publications, subscribers, desk, .. } = self;
        while let Some((at, owner, slot)) = desk.timers.first().copied() {
            if at > now {
                break;
            }
            desk.timers.pop_first();
            match owner {
                Owner::Publications => {
                    let report = publications.sender.expire(slot, desk);
                    publications.report(report, desk);
                }
                Owner::Subscriber(subscriber) => {
                    let Some(subscriber) = subscribers.get_mut(subscriber) else { continue };
                    let report = subscriber.sender.expire(slot, desk);
                    subscriber.report(report, desk);
                }
            }
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<PubSubEvent> {
        self.desk.events.pop_front()
    }

    /// The peer takes nothing new any more: subscriptions of ours that were not sent end with `error`, publications that were
    /// not sent are lost, and whoever waits for room learns of it.
    pub(crate) fn refuse_queued(&mut self, error: &Error, open: &mut OpenIds) {
        let Self { publications, subscriptions, desk, .. } = self;
        let fresh = subscriptions.iter().filter(|(_, subscription)| subscription.is_unsent());
        for slot in fresh.map(|(slot, _)| slot).collect::<Vec<_>>() {
            let Some(subscription) = subscriptions.get_mut(slot) else { continue };
            subscription.over(Some(error.clone()), desk, open);
        }
        desk.notices.retain(|notice| !matches!(notice, Notice::Subscribe(_)));
        publications.refuse_queued(error, desk);
    }

    /// The same where a fresh session is to come: what was not sent waits for that.
    pub(crate) fn hold_back(&mut self) {
        let Self { publications, desk, .. } = self;
        desk.holds_back = true;
        desk.notices.retain(|notice| !matches!(notice, Notice::Subscribe(_)));
        publications.hold_back(desk);
    }

    /// Whether a message with acknowledgement is not settled, or a delivery not sent, in either direction.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.publications.unsettled() > 0
            || self.receiver.len() > 0
            || self.subscriptions.iter().any(|(_, subscription)| subscription.receiver.len() > 0)
            || self.subscribers.iter().any(|(_, subscriber)| subscriber.is_unsettled())
    }

    /// The connection ends in order: what waits for an answer is lost and all subscriptions are over, but what was published
    /// at most once and what the peer is owed may still be sent.
    pub(crate) fn wind_up(&mut self, why: &ConnectionError, open: &mut OpenIds) {
        let Self { publications, subscriptions, subscribers, desk, .. } = self;
        publications.wind_up(why, desk, open);
        if !subscriptions.is_empty() || !subscribers.is_empty() {
            let error = why.call_error(true);
            subscriptions.iter_mut().for_each(|(_, subscription)| subscription.wind_up(error.clone(), desk));
            // Nobody will answer that they have ended.
            subscriptions.retain(|_, subscription| !subscription.is_done());
            for (_, subscriber) in subscribers.iter_mut().filter(|(_, subscriber)| subscriber.is_open()) {
                subscriber.over(&error, desk, open);
            }
            subscribers.clear();
        }
        desk.notices.clear();
    }

    /// The connection is over: nothing more can be sent. What was delivered can still be polled, and of what was published
    /// that which will not be sent again.
    pub(crate) fn terminate(&mut self, why: &ConnectionError, open: &mut OpenIds) {
        self.wind_up(why, open);
        self.publications.terminate();
        self.receiver.clear(open);
        self.inbox.retain(|publication| publication.qos == Qos::AtMostOnce);
        self.subscriptions.iter_mut().for_each(|(_, subscription)| subscription.receiver.clear(open));
        self.subscriptions.retain(|_, subscription| !subscription.is_done());
        self.desk.clear();
        self.desk.timers.clear();
        self.paused = None;
    }

    /// A subscription of ours.
    fn subscription(&mut self, id: SubscriptionId) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(id.slot).filter(|subscription| subscription.id == id.id)
    }

    /// Frees the slot of a subscription of ours, if it is over and nothing of it is wanted.
    fn sweep_subscription(&mut self, slot: usize) {
        if self.subscriptions.get(slot).is_some_and(Subscription::is_done) {
            self.subscriptions.remove(slot);
        }
    }

    pub(crate) fn stats(&self) -> PubSubStats {
        let (publications, publications_dropped) = self.inbox.counts();
        PubSubStats {
            published: self.publications.published(),
            publications,
            publications_dropped,
            deliveries_sent: self.deliveries_sent,
            deliveries: self.deliveries,
            late: self.desk.late,
            subscriptions: self.subscriptions.len(),
            subscribers: self.subscribers.len(),
            publish_bytes: self.publications.held(),
            held_publication_bytes: self.inbox.size().1,
            delivery_bytes: self.subscribers.iter().map(|(_, subscriber)| subscriber.held_bytes()).sum(),
        }
    }
}
