//! L5, the patterns: what applications do over a session (§10, §11, §12).

mod call;
mod context;
mod open;
mod opening;
mod outgoing;
mod pubsub;
mod received;
mod refusals;
mod slots;
mod stream;

pub use call::{
    CallError, CallEvent, CallId, CallOptions, Gone, Request, RequestId, RespondError, Text, UpdateError,
    Withdrawn,
};
pub(crate) use call::{CallLimits, Calls};
pub(crate) use context::Context;
pub use open::HashKey;
pub(crate) use open::{Entity, Home, OpenIds, Owner};
pub(crate) use opening::ceil_ms;
pub(crate) use outgoing::{Outgoing, Target};
pub use pubsub::{
    Delivered, Delivery, DeliveryRecord, Fate, MessageError, MessageId, OutMessage, Overflow, PubSubEvent,
    Publication, PublicationId, PublishError, PublishOptions, Qos, QueueLimits, QueueStats, Resumed,
    SubscribeError, SubscribeOptions, SubscribeRequest, SubscriberId, SubscriptionId, retry_wait,
};
pub(crate) use pubsub::{PubSub, PubSubLimits};
pub(crate) use refusals::Refusals;
pub use stream::{
    ItemBatch, Items, Received, SendError, StreamError, StreamEvent, StreamId, StreamOpening, StreamOptions,
};
pub(crate) use stream::{StreamLimits, Streams};
