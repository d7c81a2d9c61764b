//! The vocabulary of publish and subscribe.

use alloc::string::String;
use core::fmt;

use bytes::Bytes;

use crate::message::{Error, Id, Payload};
use crate::pattern::slots::wire_ids;
use crate::pattern::{Home, Text};

pub use super::message::OutMessage;

wire_ids! {
    /// A message that we publish with acknowledgement.
    PublicationId
    /// A subscription of ours.
    SubscriptionId
    /// A subscription of the peer's.
    SubscriberId
}

/// A message that came, as a publication or as a delivery: for [`ack`](crate::Connection::ack) and
/// [`nack`](crate::Connection::nack).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Where the receiver keeps what it knows of it; nowhere, where it is delivered at most once.
    pub(crate) place: Option<(Home, usize)>,
    pub(crate) id: Id,
}

impl MessageId {
    /// The id that the message has on the wire. A retransmission has the same.
    pub fn wire_id(self) -> Id {
        self.id
    }

    /// Whether the sender waits for an acknowledgement.
    pub fn wants_ack(self) -> bool {
        self.place.is_some()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({})", self.id)
    }
}

/// How often a message arrives (§12.7 to §12.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// Sent once, and perhaps lost.
    #[default]
    AtMostOnce = 0,
    /// Sent until it is acknowledged, and so perhaps handled more than once.
    AtLeastOnce = 1,
    /// Sent until it is acknowledged, and remembered by its receiver until it will not come again.
    ExactlyOnce = 2,
}

impl Qos {
    /// The mode with this number, for 0 to 2.
    pub const fn from_wire(qos: u64) -> Option<Self> {
        match qos {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// The number on the wire: 0 to 2.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }
}

/// What a full queue does with one message more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// Whoever brings it waits. What is sent at most once never waits: then the oldest goes, if that is of this kind too,
    /// otherwise the new one.
    #[default]
    Wait,
    /// The oldest message goes.
    DropOldest,
    /// The new message goes.
    DropNewest,
    /// The subscription ends.
    Close,
}

/// The bounds of a queue of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages that it holds; 0 counts as 1. Default 1,024.
    pub items: usize,
    /// Bytes that they hold in memory; one message is always admitted. Default 4 MiB.
    pub bytes: usize,
    /// What happens beyond that.
    pub overflow: Overflow,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { items: 1024, bytes: 4 << 20, overflow: Overflow::Wait }
    }
}

/// How a queue is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Messages in it now.
    pub items: usize,
    /// Bytes that they hold in memory now.
    pub bytes: usize,
    /// Messages with acknowledgement that are not settled now.
    pub unsettled: usize,
    /// Messages that came to it.
    pub received: u64,
    /// Messages dropped because it was full.
    pub dropped: u64,
    /// Messages that the publisher dropped before they came to it, as far as it has said so.
    pub lost: u64,
}

/// What became of a publication with acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The receiver has taken responsibility for it.
    Accepted {
        /// How often it was sent.
        attempts: u32,
    },
    /// The receiver refused it, in a way that makes a repetition pointless.
    Rejected {
        /// Why.
        error: Error,
        /// How often it was sent.
        attempts: u32,
    },
    /// The last attempt failed too. It is not known whether the message was handled.
    GivenUp {
        /// Why the last attempt failed.
        error: Error,
        /// How often it was sent.
        attempts: u32,
    },
    /// The connection ended before, or the peer is about to leave and takes nothing new.
    Lost {
        /// Why; with `processed: false` where it was never sent.
        error: Error,
        /// How often it was sent.
        attempts: u32,
    },
}

/// Goes on with a publication of an earlier session (§12.9), which had an acknowledgement: [`Qos::AtMostOnce`] counts as
/// [`Qos::AtLeastOnce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The id that it had.
    pub id: Id,
    /// How often it was sent; 0 where it never was.
    pub attempt: u32,
    /// It was acknowledged, with [`Qos::ExactlyOnce`], and is only to be released: neither its topic nor its payload is sent.
    pub released: bool,
}

/// How a message is to be published.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PublishOptions {
    /// How often it arrives on its way to the peer.
    pub qos: Qos,
    /// The peer is to keep it as the last value of its topic, for those who subscribe later; a null payload clears that.
    pub retain: bool,
    /// Metadata for the receivers: one encoded CBOR map with text keys, or empty.
    pub meta: Bytes,
    /// It was published in an earlier session.
    pub resumed: Option<Resumed>,
    /// With [`Qos::ExactlyOnce`]: once it is acknowledged, it is released only when the application says so, with
    /// [`release_publication`](crate::Connection::release_publication). For durable stores (§12.17).
    pub durable: bool,
}

impl PublishOptions {
    /// At most once, not retained, no metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`qos`](Self::qos).
    #[must_use]
    pub fn with_qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// Sets [`retain`](Self::retain).
    #[must_use]
    pub fn with_retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Sets [`meta`](Self::meta).
    #[must_use]
    pub fn with_meta(mut self, meta: Bytes) -> Self {
        self.meta = meta;
        self
    }

    /// Sets [`durable`](Self::durable).
    #[must_use]
    pub fn with_durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Sets [`resumed`](Self::resumed).
    #[must_use]
    pub fn with_resumed(mut self, resumed: Resumed) -> Self {
        self.resumed = Some(resumed);
        self
    }
}

/// How to subscribe.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SubscribeOptions {
    /// The highest that is wanted; the publisher may grant less.
    pub qos: Qos,
    /// Most deliveries with acknowledgement that may be unsettled at once; 0 counts as 1. Default: `max_inflight` of our
    /// [`Limits`](crate::Limits), which is also the most.
    pub inflight: Option<u32>,
    /// Each message goes to one subscription of the group only: text of 1 to 255 bytes.
    pub group: Option<String>,
    /// Metadata for the publisher: one encoded CBOR map with text keys, or empty.
    pub meta: Bytes,
    /// What is held here until it is polled.
    pub queue: QueueLimits,
}

impl SubscribeOptions {
    /// At most once, no group, no metadata, the default bounds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`qos`](Self::qos).
    #[must_use]
    pub fn with_qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// Sets [`inflight`](Self::inflight).
    #[must_use]
    pub fn with_inflight(mut self, inflight: u32) -> Self {
        self.inflight = Some(inflight);
        self
    }

    /// Sets [`group`](Self::group).
    #[must_use]
    pub fn with_group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Sets [`meta`](Self::meta).
    #[must_use]
    pub fn with_meta(mut self, meta: Bytes) -> Self {
        self.meta = meta;
        self
    }

    /// Sets [`queue`](Self::queue).
    #[must_use]
    pub fn with_queue(mut self, queue: QueueLimits) -> Self {
        self.queue = queue;
        self
    }
}

/// What the peer publishes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Publication {
    /// For [`ack`](crate::Connection::ack) and [`nack`](crate::Connection::nack).
    pub id: MessageId,
    /// What it is about.
    pub topic: Text,
    /// How often it arrives.
    pub qos: Qos,
    /// It is to be kept as the last value of its topic; a null payload clears that.
    pub retain: bool,
    /// It may have come before.
    pub dup: bool,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The publisher's metadata, without what the protocol itself says there: one encoded CBOR map, or empty.
    pub meta: Bytes,
    /// One CBOR item.
    pub payload: Payload,
}

/// What came on a subscription of ours.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// For [`ack`](crate::Connection::ack) and [`nack`](crate::Connection::nack).
    pub id: MessageId,
    /// What it is about.
    pub topic: Text,
    /// How often it arrives.
    pub qos: Qos,
    /// It may have come before.
    pub dup: bool,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Its number among what there was to be delivered; a gap is what the publisher dropped. None for what is delivered
    /// again without its number.
    pub seq: Option<u64>,
    /// It is the last value of its topic, from before the subscription.
    pub retained: bool,
    /// The publisher's metadata, without what the protocol itself says there: one encoded CBOR map, or empty.
    pub meta: Bytes,
    /// One CBOR item.
    pub payload: Payload,
}

/// The peer wants to subscribe.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscribeRequest {
    /// For [`confirm`](crate::Connection::confirm) and [`refuse_subscription`](crate::Connection::refuse_subscription).
    pub id: SubscriberId,
    /// What it wants; a valid filter that is not reserved.
    pub filter: Text,
    /// The highest that it wants.
    pub qos: Qos,
    /// How many deliveries it takes unsettled.
    pub inflight: u32,
    /// Of which only one subscription gets each message.
    pub group: Option<Text>,
    /// The subscriber's metadata, without what the protocol itself says there: one encoded CBOR map, or empty.
    pub meta: Bytes,
    /// When it came, among the publications of the peer.
    pub(crate) mark: u64,
}

/// What became of a message that was to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivered {
    /// It will be sent.
    Queued,
    /// It will be sent; the oldest message was dropped in its favour.
    DroppedOldest,
    /// It was dropped.
    DroppedNewest,
    /// It was not taken: [`PubSubEvent::Room`] says when there is room again.
    Full,
    /// It was dropped, and the subscription ended, as its overflow says.
    Closed,
    /// It was dropped: it is larger than the subscriber takes.
    TooLarge,
}

/// What happens to subscriptions, publications and deliveries.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PubSubEvent {
    /// The peer wants to subscribe: [`confirm`](crate::Connection::confirm) it or
    /// [`refuse`](crate::Connection::refuse_subscription).
    Subscribe(SubscribeRequest),
    /// A subscription of the peer's is over: it unsubscribed, or we have ended it, or the connection ended.
    Unsubscribed(SubscriberId),
    /// After [`Delivered::Full`]: there is room again.
    Room(SubscriberId),
    /// The peer has confirmed a subscription of ours, with what it grants.
    Confirmed(SubscriptionId, Qos),
    /// A subscription of ours goes on: it was confirmed in a fresh session, after the one before was lost. Messages from in
    /// between may be missing; of those that came before, none can be acknowledged any more.
    Resubscribed {
        /// Which one; it has kept its name.
        subscription: SubscriptionId,
        /// What is granted now.
        granted: Qos,
    },
    /// A subscription of ours is over, and not because we have ended it: it was refused, or the publisher has ended it, or
    /// its queue was full, or the connection ended. What it holds can still be polled.
    Ended(SubscriptionId, Option<Error>),
    /// There are messages for [`poll_delivery`](crate::Connection::poll_delivery). Not repeated before that has returned
    /// `None`.
    Delivered(SubscriptionId),
    /// There are messages for [`poll_publication`](crate::Connection::poll_publication). Not repeated before that has
    /// returned `None`.
    Publication,
    /// A publication has its [`Fate`], for [`take_fate`](crate::Connection::take_fate).
    Fate(PublicationId),
    /// A publication of ours with [`Qos::ExactlyOnce`] was acknowledged, perhaps after it was given up: it need not be sent
    /// again, only released. For durable stores.
    Acknowledged(Id),
    /// A publication of ours with [`Qos::ExactlyOnce`] is forgotten by its receiver: the end of it. For durable stores.
    Completed(Id),
    /// A message with [`Qos::ExactlyOnce`] that came will not come again: its id can be forgotten. For durable stores.
    Released(Id),
    /// A message with acknowledgement is not delivered after all: it was given up, refused for good or dropped from a full
    /// queue, or its subscription has ended. In the last case these come before
    /// [`Unsubscribed`](Self::Unsubscribed), in the order in which the messages were sent or would have been.
    Undelivered {
        /// To whom.
        subscriber: SubscriberId,
        /// What was to be delivered.
        message: OutMessage,
        /// How often it was sent, also to others before.
        attempts: u32,
        /// Why it was not delivered.
        error: Error,
        /// The subscription has ended: the message may go to somebody else (§12.15).
        ended: bool,
    },
    /// After a `Blocked`: there is room for publications again.
    Capacity,
}
