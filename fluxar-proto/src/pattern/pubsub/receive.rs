//! What the peer says of publish and subscribe.

use bytes::Bytes;

use super::inbox::Taken;
use super::message::{AppMeta, PUBLICATION_KEYS, Said};
use super::ops::MAX_GROUP;
use super::subscriber::Subscriber;
use super::{MessageId, PubSub, PubSubEvent, Publication, Qos, SubscribeRequest, SubscriberId};
use crate::message::{ArrayIter, Code, Envelope, Error, Id, Item, Kind, Meta, key, verb};
use crate::pattern::received::{payload_of, text_of};
use crate::pattern::{Context, Entity, Home, OpenIds, Owner, Text};
use crate::session::{ConnectionError, Violation};
use crate::topic::{check_filter, check_topic, is_reserved};

/// When a publication may come again that our queue has no room for.
const RETRY_AFTER_MS: u64 = 1_000;

/// What settles messages, several at once (§12.10).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Ack,
    Release,
    Complete,
}

impl PubSub {
    /// Whether an opening with the id of what is open is a retransmission of that (§12.14).
    pub(crate) fn is_again(&self, envelope: &Envelope<'_>, open: &OpenIds) -> bool {
        envelope.kind == Kind::Message
            && matches!(open.get(envelope.id), Some(Entity::Held(Home::Publications, _)))
            && envelope.meta.get_bool(key::DUP) == Some(true)
            && matches!(envelope.meta.get_u64(key::QOS), Some(1 | 2))
    }

    /// Which attempt of a publication comes.
    pub(crate) fn attempt_of(&self, envelope: &Envelope<'_>) -> u32 {
        Said::read(envelope.meta).0.attempt
    }

    /// A message of type subscribe, unsubscribe or message came.
    pub(crate) fn handle(
        &mut self,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let Some(reference) = envelope.reference else {
            return match envelope.kind {
                Kind::Subscribe => self.handle_subscribe(envelope, cx),
                _ => self.handle_publication(envelope, frame, cx),
            };
        };
        let several = match envelope.target {
            Some(verb::ACK) => Some(Verb::Ack),
            Some(verb::RELEASE) => Some(Verb::Release),
            Some(verb::COMPLETE) => Some(Verb::Complete),
            _ => None,
        };
        match (envelope.kind, several) {
            (Kind::Message, Some(verb)) => self.handle_several(verb, reference, envelope, cx),
            _ => self.handle_continuation(reference, envelope, frame, cx),
        }
    }

    fn handle_continuation(
        &mut self,
        reference: Id,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let Some(entity) = cx.open.get(reference) else {
            self.desk.late += 1;
            return Ok(());
        };
        let fits = match entity {
            Entity::Subscription(_) | Entity::Subscriber(_) => true,
            Entity::Sent(..) | Entity::Held(..) => envelope.kind == Kind::Message,
            _ => false,
        };
        if !fits {
            return Err(Violation::WrongRole(reference).into());
        }
        match (envelope.kind, envelope.target, entity) {
            (Kind::Message, None, Entity::Subscription(slot)) => {
                let Self { subscriptions, desk, group, .. } = self;
                let Some(subscription) = subscriptions.get_mut(slot) else { return Ok(()) };
                self.deliveries += 1;
                subscription.handle_delivery(envelope, frame, *group, desk, cx)
            }
            (Kind::Message, Some(verb::NACK), Entity::Sent(owner, slot)) => {
                self.handle_nack(reference, owner, slot, envelope, cx)
            }
            (Kind::Subscribe, None, Entity::Subscription(slot)) => {
                let Self { subscriptions, desk, .. } = self;
                let Some(subscription) = subscriptions.get_mut(slot) else { return Ok(()) };
                let waited = subscription.handle_confirmation(envelope, desk, cx.open)?;
                self.desk.late += u64::from(!waited);
                self.sweep_subscription(slot);
                Ok(())
            }
            (Kind::Unsubscribe, None, Entity::Subscription(slot)) => {
                let Self { subscriptions, desk, .. } = self;
                let Some(subscription) = subscriptions.get_mut(slot) else { return Ok(()) };
                subscription.handle_end(envelope.error.map(Error::from), desk, cx.open);
                self.sweep_subscription(slot);
                Ok(())
            }
            (Kind::Unsubscribe, None, Entity::Subscriber(slot)) => self.handle_unsubscribe(slot, cx),
            (_, None, _) | (Kind::Message, Some(verb::NACK), _) => {
                Err(Violation::WrongRole(reference).into())
            }
            (_, Some(_), _) => {
                self.desk.late += 1;
                Ok(())
            }
        }
    }

    /// A peer that subscribes and unsubscribes in a loop causes work that no count of subscriptions limits (§10.7).
    fn handle_unsubscribe(&mut self, slot: usize, cx: &mut Context<'_>) -> Result<(), ConnectionError> {
        let Self { subscribers, desk, .. } = self;
        let Some(subscriber) = subscribers.get_mut(slot) else { return Ok(()) };
        if subscriber.is_open() {
            cx.budget.charge(cx.now)?;
        }
        if subscriber.handle_end(desk, cx.open) {
            subscribers.remove(slot);
        }
        Ok(())
    }

    fn handle_nack(
        &mut self,
        reference: Id,
        owner: Owner,
        slot: usize,
        envelope: &Envelope<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let unknown = || Error::unknown("the receiver did not accept the message");
        let error = envelope.error.map_or_else(unknown, Error::from);
        let attempt = envelope.meta.get_u64(key::ATTEMPT).filter(|attempt| *attempt > 0);
        let Self { publications, subscribers, desk, .. } = self;
        let wrong = |_| Violation::WrongRole(reference);
        match owner {
            Owner::Publications => {
                let report = publications.sender.handle_nack(slot, attempt, error, cx.now, desk, cx.open);
                publications.report(report.map_err(wrong)?, desk);
            }
            Owner::Subscriber(subscriber) => {
                let Some(subscriber) = subscribers.get_mut(subscriber) else { return Ok(()) };
                let report = subscriber.sender.handle_nack(slot, attempt, error, cx.now, desk, cx.open);
                subscriber.report(report.map_err(wrong)?, desk);
            }
        }
        Ok(())
    }

    /// What settles one message or several: each id is judged by itself (§12.10).
    fn handle_several(
        &mut self,
        verb: Verb,
        reference: Id,
        envelope: &Envelope<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let known = cx.open.get(reference);
        let judged = known.is_some() || verb == Verb::Release;
        if let Some(entity) = known {
            check_role(verb, reference, entity)?;
        }
        if judged && envelope.error.is_some() {
            return Err(Violation::MisplacedError.into());
        }
        let more = match more_ids(envelope.payload) {
            Err(NoIds) if judged => return Err(Violation::BadPayload(reference).into()),
            more => more.unwrap_or(None),
        };
        self.settle_one(verb, reference, cx)?;
        more.into_iter().flatten().filter_map(id_of).try_for_each(|id| self.settle_one(verb, id, cx))
    }

    fn settle_one(&mut self, verb: Verb, id: Id, cx: &mut Context<'_>) -> Result<(), ConnectionError> {
        let Some(entity) = cx.open.get(id) else { return self.settle_unknown(verb, id, cx) };
        check_role(verb, id, entity)?;
        match (verb, entity) {
            (Verb::Ack, Entity::Sent(owner, slot)) => self.handle_ack(id, owner, slot, cx),
            (Verb::Complete, Entity::Sent(owner, slot)) => self.handle_complete(id, owner, slot, cx)?,
            (Verb::Release, Entity::Held(home, slot)) => {
                let Self { receiver, subscriptions, desk, .. } = self;
                let receiver = match home {
                    Home::Publications => Some(receiver),
                    Home::Subscription(slot) => subscriptions.get_mut(slot).map(|one| &mut one.receiver),
                };
                let released = receiver.map_or(Ok(()), |receiver| receiver.handle_release(slot, desk));
                released.map_err(|_| Violation::WrongRole(id))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A `release` is answered also where its message is not known, so that its sender can forget it; all else is late. A
    /// peer that does not read has so many answers waiting at the most.
    fn settle_unknown(&mut self, verb: Verb, id: Id, cx: &mut Context<'_>) -> Result<(), ConnectionError> {
        self.desk.late += 1;
        if verb == Verb::Release {
            cx.budget.charge(cx.now)?;
            if !self.desk.complete_stranger(id) {
                return Err(Violation::Flood.into());
            }
            self.desk.events.push_back(PubSubEvent::Released(id));
        }
        Ok(())
    }

    fn handle_ack(&mut self, id: Id, owner: Owner, slot: usize, cx: &mut Context<'_>) {
        let Self { publications, subscribers, desk, .. } = self;
        match owner {
            Owner::Publications => {
                let (report, releases) = publications.sender.handle_ack(slot, desk, cx.open);
                if releases {
                    // Also of one that was given up: its release, too, outlives the session (§12.17).
                    desk.events.push_back(PubSubEvent::Acknowledged(id));
                }
                publications.report(report, desk);
            }
            Owner::Subscriber(subscriber) => {
                let Some(subscriber) = subscribers.get_mut(subscriber) else { return };
                let (report, _) = subscriber.sender.handle_ack(slot, desk, cx.open);
                desk.journal.acked(id);
                subscriber.report(report, desk);
            }
        }
    }

    fn handle_complete(
        &mut self,
        id: Id,
        owner: Owner,
        slot: usize,
        cx: &mut Context<'_>,
    ) -> Result<(), Violation> {
        let Self { publications, subscribers, desk, .. } = self;
        match owner {
            Owner::Publications => {
                publications.sender.handle_complete(slot, cx.open).map_err(|_| Violation::WrongRole(id))?;
                desk.events.push_back(PubSubEvent::Completed(id));
                publications.report(None, desk);
            }
            Owner::Subscriber(subscriber) => {
                let Some(subscriber) = subscribers.get_mut(subscriber) else { return Ok(()) };
                subscriber.sender.handle_complete(slot, cx.open).map_err(|_| Violation::WrongRole(id))?;
                subscriber.report(None, desk);
            }
        }
        Ok(())
    }

    fn handle_publication(
        &mut self,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let topic = envelope.target.unwrap_or_default();
        let (said, bad) = Said::read(envelope.meta);
        if let Some(key) = bad {
            let error = Error::invalid_argument(alloc::format!("`{key}` is not what it must be"));
            return cx.refuse(Kind::Message, envelope.id, error);
        }
        if let Err(error) = check_publication(topic, envelope.meta) {
            if said.qos > Qos::AtMostOnce {
                return cx.refuse_attempt(envelope.id, said.attempt, error);
            }
            self.desk.late += 1;
            return Ok(());
        }
        let publication = |id| Publication {
            id,
            topic: text_of(topic, frame),
            qos: said.qos,
            retain: said.retain,
            dup: said.dup,
            attempt: said.attempt,
            meta: said.rest(envelope.meta),
            payload: payload_of(envelope, frame),
        };
        if said.qos == Qos::AtMostOnce {
            let publication = publication(MessageId { place: None, id: envelope.id });
            let lossy = |oldest: &Publication| oldest.qos == Qos::AtMostOnce;
            let taken = self.inbox.push_or_drop(publication, self.group, lossy, drop);
            self.announce(taken == Taken::Held { announce: true });
            return Ok(());
        }
        if let Some(Entity::Held(Home::Publications, slot)) = cx.open.get(envelope.id) {
            self.desk.late += 1;
            self.receiver.repeated(slot, said.attempt, &mut self.desk);
            return Ok(());
        }
        if !self.receiver.has_room() {
            let error = Error::resource_exhausted("more publications are unsettled than there may be");
            return cx.refuse_attempt(envelope.id, said.attempt, error);
        }
        let message = self.receiver.admit(envelope.id, said.qos, said.attempt, cx.open);
        if self.inbox.is_full(self.group) {
            self.inbox.note_dropped();
            let error = Error::resource_exhausted("too much is held of what was published");
            let error = error.with_processed(false).with_retry_after_ms(RETRY_AFTER_MS);
            self.receiver.nack(message, error, &mut self.desk).ok();
            return Ok(());
        }
        let announce = self.inbox.push(publication(message), self.group);
        self.announce(announce);
        Ok(())
    }

    fn announce(&mut self, announce: bool) {
        if announce {
            self.desk.events.push_back(PubSubEvent::Publication);
        }
    }

    fn handle_subscribe(
        &mut self,
        envelope: &Envelope<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let (id, filter) = (envelope.id, envelope.target.unwrap_or_default());
        let wanted = match self.admit_subscriber(filter, envelope.meta) {
            Ok(wanted) => wanted,
            Err(error) => return cx.refuse(Kind::Subscribe, id, error),
        };
        let (qos, inflight, group) = wanted;
        let filter = Text::from(filter);
        let entry = self.subscribers.vacant_entry();
        let slot = entry.key();
        entry.insert(Subscriber::new(id, slot, &filter, qos, inflight));
        cx.open.insert(id, Entity::Subscriber(slot));
        self.desk.events.push_back(PubSubEvent::Subscribe(SubscribeRequest {
            id: SubscriberId { slot, id },
            filter,
            qos,
            inflight,
            group: group.map(Text::from),
            meta: AppMeta::of(envelope.meta),
            mark: self.inbox.mark(),
        }));
        Ok(())
    }

    /// What a subscription asks for, or why it cannot be taken (§5.14).
    fn admit_subscriber<'a>(
        &self,
        filter: &str,
        meta: Meta<'a>,
    ) -> Result<(Qos, u32, Option<&'a str>), Error> {
        let qos = match meta.get(key::QOS) {
            None => Qos::AtMostOnce,
            Some(qos) => qos.as_u64().and_then(Qos::from_wire).ok_or_else(|| bad_key(key::QOS))?,
        };
        let inflight = match meta.get(key::INFLIGHT) {
            None => self.peer_max_inflight,
            Some(inflight) => {
                let inflight = inflight.as_u64().filter(|inflight| *inflight > 0);
                u32::try_from(inflight.ok_or_else(|| bad_key(key::INFLIGHT))?).unwrap_or(u32::MAX)
            }
        };
        let group = match meta.get(key::GROUP) {
            None => None,
            Some(group) => {
                let group = group.as_str().filter(|group| (1..=MAX_GROUP).contains(&group.len()));
                Some(group.ok_or_else(|| bad_key(key::GROUP))?)
            }
        };
        check_filter(filter)
            .map_err(|error| Error::invalid_argument(alloc::format!("bad filter: {error}")))?;
        if self.subscribers.len() >= self.limits.max_subscriptions {
            return Err(Error::resource_exhausted("too many subscriptions"));
        }
        if is_reserved(filter) {
            return Err(Error::unimplemented("no such topics here"));
        }
        Ok((qos, inflight, group))
    }
}

/// Whether a publication may be one (§12.1, §12.5).
fn check_publication(topic: &str, meta: Meta<'_>) -> Result<(), Error> {
    check_topic(topic).map_err(|error| Error::invalid_argument(alloc::format!("bad topic: {error}")))?;
    if meta.len() > PUBLICATION_KEYS {
        return Err(Error::invalid_argument("a publication has no more than 56 keys in its metadata"));
    }
    if is_reserved(topic) { Err(Error::new(Code::UNIMPLEMENTED, "no such topic here")) } else { Ok(()) }
}

/// Only who sends a message releases it, and only who gets it settles it.
fn check_role(verb: Verb, id: Id, entity: Entity) -> Result<(), Violation> {
    match (verb, entity) {
        (Verb::Ack | Verb::Complete, Entity::Sent(..)) | (Verb::Release, Entity::Held(..)) => Ok(()),
        _ => Err(Violation::WrongRole(id)),
    }
}

fn bad_key(key: &str) -> Error {
    Error::invalid_argument(alloc::format!("`{key}` is not what it must be"))
}

/// A payload that is not what it must be.
struct NoIds;

/// The further ids that a payload holds, all of which are looked at before the first is taken.
fn more_ids(payload: Item<'_>) -> Result<Option<ArrayIter<'_>>, NoIds> {
    if payload.is_null() {
        return Ok(None);
    }
    let ids = payload.array().map_err(|_| NoIds)?;
    if ids.clone().all(|id| id_of(id).is_some()) { Ok(Some(ids)) } else { Err(NoIds) }
}

fn id_of(item: Item<'_>) -> Option<Id> {
    item.as_byte_str()?.try_into().ok().map(Id::from_bytes)
}
