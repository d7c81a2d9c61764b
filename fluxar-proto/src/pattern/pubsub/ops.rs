//! What the application does with publish and subscribe.

use super::desk::Notice;
use super::message::AppMeta;
use super::subscriber::Subscriber;
use super::subscription::{Subscription, Wish, subscribe_meta};
use super::{
    Delivered, Delivery, DeliveryRecord, Fate, MessageId, OutMessage, PubSub, Publication, PublicationId,
    PublishError, PublishOptions, Qos, QueueLimits, QueueStats, SubscribeError, SubscribeOptions,
    SubscribeRequest, SubscriberId, SubscriptionId,
};
use crate::message::{Envelope, Error, Id, KEYS_LIMIT, Kind, Meta, Payload};
use crate::pattern::{Context, Entity, Gone, Home, OpenIds, Owner, Text};
use crate::session::ConnectionError;
use crate::topic::{TopicError, check_filter, is_reserved};

/// How many keys the protocol itself sets in the metadata of a subscription: `qos`, `inflight`, `group`.
const SET: usize = 3;

/// The longest name of a group, in bytes.
pub(super) const MAX_GROUP: usize = 255;

impl PubSub {
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        payload: Payload,
        mut options: PublishOptions,
        cx: &mut Context<'_>,
    ) -> Result<Option<PublicationId>, PublishError> {
        if options.resumed.is_some() {
            // Without an answer it would never end.
            options.qos = options.qos.max(Qos::AtLeastOnce);
        }
        self.check_started(options.qos)?;
        self.publications.publish(topic, payload, options, &mut self.desk, cx)
    }

    pub(crate) fn ready_to_publish(&mut self) -> Result<(), PublishError> {
        self.check_started(Qos::AtMostOnce)?;
        self.publications.ready()
    }

    fn check_started(&mut self, qos: Qos) -> Result<(), PublishError> {
        if !self.started {
            self.publications.wait();
            return Err(PublishError::Blocked);
        }
        if !self.on {
            return Err(PublishError::NotNegotiated);
        }
        if qos > Qos::AtMostOnce && self.peer_max_inflight == 0 {
            return Err(PublishError::NoInflight);
        }
        Ok(())
    }

    pub(crate) fn take_fate(&mut self, publication: PublicationId) -> Result<Option<Fate>, Gone> {
        self.publications.take_fate(publication, &mut self.desk)
    }

    pub(crate) fn forget_publication(&mut self, publication: PublicationId) -> Result<(), Gone> {
        self.publications.forget(publication, &mut self.desk)
    }

    pub(crate) fn release_publication(&mut self, id: Id, open: &OpenIds) -> Result<(), Gone> {
        let Some(Entity::Sent(Owner::Publications, slot)) = open.get(id) else { return Err(Gone) };
        if self.publications.sender.release(slot, &mut self.desk) { Ok(()) } else { Err(Gone) }
    }

    /// The next publication that came before a subscription.
    pub(crate) fn poll_publication_before(&mut self, request: &SubscribeRequest) -> Option<Publication> {
        self.inbox.poll_before(request.mark)
    }

    pub(crate) fn poll_publication(&mut self) -> Option<Publication> {
        self.inbox.poll()
    }

    pub(crate) fn ack(&mut self, message: MessageId) -> Result<(), Gone> {
        self.settle(message, |receiver, desk| receiver.ack(message, desk))
    }

    pub(crate) fn nack(&mut self, message: MessageId, error: Error) -> Result<(), Gone> {
        self.settle(message, |receiver, desk| receiver.nack(message, error, desk))
    }

    fn settle(
        &mut self,
        message: MessageId,
        settle: impl FnOnce(&mut super::Receiver, &mut super::Desk) -> Result<(), Gone>,
    ) -> Result<(), Gone> {
        let Self { receiver, subscriptions, desk, .. } = self;
        match message.place {
            None => Ok(()),
            Some((Home::Publications, _)) => settle(receiver, desk),
            Some((Home::Subscription(slot), _)) => {
                settle(&mut subscriptions.get_mut(slot).ok_or(Gone)?.receiver, desk)
            }
        }
    }

    pub(crate) fn subscribe(
        &mut self,
        filter: &str,
        options: SubscribeOptions,
        cx: &mut Context<'_>,
    ) -> Result<SubscriptionId, SubscribeError> {
        let wish = self.check_subscription(filter, options)?;
        let id = cx.ids.next(cx.now);
        let entry = self.subscriptions.vacant_entry();
        let subscription = SubscriptionId { slot: entry.key(), id };
        entry.insert(Subscription::new(id, subscription.slot, wish));
        // With a fresh session every subscription comes up that was not sent.
        if !self.desk.holds_back {
            self.desk.notices.push_back(Notice::Subscribe(subscription));
        }
        Ok(subscription)
    }

    fn check_subscription(
        &mut self,
        filter: &str,
        options: SubscribeOptions,
    ) -> Result<Wish, SubscribeError> {
        let SubscribeOptions { qos, inflight, group, meta, queue } = options;
        check_filter(filter).map_err(SubscribeError::BadFilter)?;
        if is_reserved(filter) {
            return Err(SubscribeError::BadFilter(TopicError::Reserved));
        }
        if group.as_ref().is_some_and(|group| !(1..=MAX_GROUP).contains(&group.len())) {
            return Err(SubscribeError::BadGroup);
        }
        let app = AppMeta::new(meta, KEYS_LIMIT - SET).map_err(SubscribeError::BadMeta)?;
        if !self.started {
            self.publications.wait();
            return Err(SubscribeError::Blocked);
        }
        if !self.on {
            return Err(SubscribeError::NotNegotiated);
        }
        let most = self.limits.max_inflight.max(1);
        let items = u32::try_from(queue.items).unwrap_or(u32::MAX);
        // More than the queue holds would come in vain.
        let inflight = inflight.unwrap_or(most).min(most).min(items).max(1);
        let told = Some(inflight).filter(|told| qos > Qos::AtMostOnce && *told != self.limits.max_inflight);
        let meta = subscribe_meta(qos, told, group.as_deref(), &app);
        let envelope = Envelope {
            target: Some(filter),
            meta: Meta::decode(&meta).unwrap_or_default(),
            ..Envelope::new(Kind::Subscribe, Id::from_bytes([0; Id::LEN]))
        };
        let (len, limit) = (envelope.encoded_len(), self.peer_max_message);
        if !meta.is_empty() && len > limit {
            return Err(SubscribeError::TooLarge { len, limit });
        }
        let limit = self.peer_max_subscriptions;
        if self.subscriptions.iter().filter(|(_, subscription)| subscription.is_open()).count() >= limit {
            return Err(SubscribeError::TooMany { limit });
        }
        Ok(Wish { filter: Text::from(filter), qos, inflight, meta, queue })
    }

    pub(crate) fn unsubscribe(&mut self, id: SubscriptionId, open: &mut OpenIds) -> Result<(), Gone> {
        let Self { subscriptions, desk, .. } = self;
        let subscription = subscriptions.get_mut(id.slot).filter(|subscription| subscription.id == id.id);
        let subscription = subscription.filter(|subscription| !subscription.is_released()).ok_or(Gone)?;
        subscription.release(desk, open);
        self.sweep_subscription(id.slot);
        Ok(())
    }

    pub(crate) fn poll_delivery(&mut self, id: SubscriptionId) -> Result<Option<Delivery>, Gone> {
        let polled = self.subscription(id).ok_or(Gone)?.poll();
        if polled.is_err() {
            self.sweep_subscription(id.slot);
        }
        polled
    }

    pub(crate) fn subscription_stats(&self, id: SubscriptionId) -> Result<QueueStats, Gone> {
        let subscription = self.subscriptions.get(id.slot).filter(|subscription| subscription.id == id.id);
        subscription.filter(|subscription| !subscription.is_released()).map(Subscription::stats).ok_or(Gone)
    }

    pub(crate) fn confirm(&mut self, id: SubscriberId, qos: Qos, limits: QueueLimits) -> Result<(), Gone> {
        let Self { subscribers, desk, .. } = self;
        let subscriber = subscribers.get_mut(id.slot).filter(|subscriber| subscriber.id == id.id);
        subscriber.ok_or(Gone)?.confirm(qos, limits, desk)
    }

    pub(crate) fn refuse_subscription(
        &mut self,
        id: SubscriberId,
        error: Error,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let subscriber = self.subscribers.get(id.slot).filter(|subscriber| subscriber.id == id.id);
        if !subscriber.is_some_and(Subscriber::is_requested) {
            return Ok(());
        }
        self.subscribers.remove(id.slot);
        cx.open.remove(id.id, Entity::Subscriber(id.slot));
        cx.refuse(Kind::Subscribe, id.id, error)
    }

    pub(crate) fn end_subscription(
        &mut self,
        id: SubscriberId,
        error: Option<Error>,
        open: &mut OpenIds,
    ) -> Result<(), Gone> {
        let Self { subscribers, desk, .. } = self;
        let subscriber = subscribers.get_mut(id.slot).filter(|subscriber| subscriber.id == id.id);
        subscriber.filter(|subscriber| subscriber.is_open()).ok_or(Gone)?.end(error, desk, open);
        Ok(())
    }

    pub(crate) fn deliver(
        &mut self,
        id: SubscriberId,
        message: &OutMessage,
        open: &mut OpenIds,
    ) -> Result<Delivered, Gone> {
        let Self { subscribers, desk, peer_max_message, .. } = self;
        let subscriber = subscribers.get_mut(id.slot).filter(|subscriber| subscriber.id == id.id);
        subscriber.ok_or(Gone)?.deliver(message, *peer_max_message, desk, open)
    }

    pub(crate) fn delivery_journal(&self) -> impl DoubleEndedIterator<Item = &DeliveryRecord> {
        self.desk.journal.records()
    }

    pub(crate) fn subscriber_stats(&self, id: SubscriberId) -> Result<QueueStats, Gone> {
        let subscriber = self.subscribers.get(id.slot).filter(|subscriber| subscriber.id == id.id);
        subscriber.filter(|subscriber| subscriber.is_open()).map(Subscriber::stats).ok_or(Gone)
    }
}
