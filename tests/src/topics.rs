//! What a scripted peer may say of publish and subscribe.

use fluxar::IntoPayload;
use fluxar_proto::message::{Id, Kind, Meta, verb};

use crate::verbs::Terms;
use crate::wire::{Message, Wire};

impl Terms {
    /// Publish and subscribe, and the limits that hold where nobody says anything.
    pub fn topics() -> Self {
        Self::default().feature("pubsub")
    }
}

impl Message {
    /// The same with one entry more in its metadata.
    ///
    /// # Panics
    ///
    /// Where there are more than 23, or `value` cannot be encoded.
    #[must_use]
    pub fn with(mut self, key: &str, value: &(impl IntoPayload + ?Sized)) -> Self {
        let (count, entries) = match self.meta.split_first() {
            Some((head, entries)) => (head & 0x1f, entries),
            None => (0, &[][..]),
        };
        assert!(count < 23, "a short map");
        let (key, value) = (key.to_payload().expect("a key"), value.to_payload().expect("a value"));
        let map = [&[0xa1 + count], entries, key.as_bytes(), value.as_bytes()].concat();
        self.meta = map.into();
        self
    }

    /// The same with a mode.
    #[must_use]
    pub fn qos(self, qos: u8) -> Self {
        self.with("qos", &qos)
    }

    /// The same as a retransmission.
    #[must_use]
    pub fn again(self, attempt: u32) -> Self {
        self.with("dup", &true).with("attempt", &attempt)
    }

    /// A subscription.
    pub fn subscribe(filter: &str) -> Self {
        Self::opening(Kind::Subscribe, filter)
    }

    /// The confirmation of a subscription.
    pub fn confirmation(subscription: Id) -> Self {
        Self::continuation(Kind::Subscribe, subscription)
    }

    /// The end of a subscription.
    pub fn unsubscribe(subscription: Id) -> Self {
        Self::continuation(Kind::Unsubscribe, subscription)
    }

    /// A publication.
    pub fn publication(topic: &str) -> Self {
        Self::opening(Kind::Message, topic)
    }

    /// A delivery on a subscription.
    pub fn delivery(subscription: Id) -> Self {
        Self::continuation(Kind::Message, subscription)
    }

    /// The receiver of a message has taken responsibility.
    pub fn ack(message: Id) -> Self {
        Self::continuation(Kind::Message, message).verb(verb::ACK)
    }

    /// The receiver of a message has not accepted it.
    pub fn nack(message: Id, error: fluxar::Error) -> Self {
        Self::continuation(Kind::Message, message).verb(verb::NACK).error(error)
    }

    /// The sender of a message will not send it again.
    pub fn release(message: Id) -> Self {
        Self::continuation(Kind::Message, message).verb(verb::RELEASE)
    }

    /// The receiver of a message has forgotten it.
    pub fn complete(message: Id) -> Self {
        Self::continuation(Kind::Message, message).verb(verb::COMPLETE)
    }

    /// The same for further ids.
    ///
    /// # Panics
    ///
    /// Never: ids can be encoded.
    #[must_use]
    pub fn and(mut self, ids: impl ExactSizeIterator<Item = Id>) -> Self {
        // An array with a head of nine bytes serves any length.
        let mut item = vec![0x9b];
        item.extend((ids.len() as u64).to_be_bytes());
        for id in ids {
            item.push(0x50);
            item.extend(id.as_bytes());
        }
        self = self.raw(item);
        self
    }

    /// A number in its metadata.
    pub fn says(&self, key: &str) -> Option<u64> {
        if self.meta.is_empty() { None } else { Meta::decode(&self.meta).ok()?.get_u64(key) }
    }
}

/// Subscribes, and takes the confirmation; gives the subscription's id.
///
/// # Panics
///
/// Where it is refused.
pub async fn subscribed(wire: &mut Wire, subscription: &Message) -> Id {
    wire.send(subscription).await;
    let confirmation = answer_to(wire, subscription.id).await;
    assert_eq!((confirmation.kind, &confirmation.error), (Kind::Subscribe, &None));
    subscription.id
}

/// The next message that continues `reference`; what else comes is passed over.
///
/// # Panics
///
/// Where the connection ends without.
pub async fn answer_to(wire: &mut Wire, reference: Id) -> Message {
    loop {
        let message = wire.receive().await;
        if message.reference == Some(reference) {
            return message;
        }
    }
}
