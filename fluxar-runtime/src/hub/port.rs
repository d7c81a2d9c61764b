//! Where a hub delivers to: subscriptions of peers, behind the lock of their connections, and those of this side.

use std::sync::Arc;
use std::task::Waker;

use fluxar_proto::{Code, Delivered, Error, Gone, Instant, OutMessage, Qos, SubscriberId};

use super::LocalQueue;
use super::local::Dropped;
use crate::peer::Peer;
use crate::shared::{Locked, Shared};

/// Where a subscription is.
pub(super) enum Place {
    Remote { shared: Arc<Shared>, subscriber: SubscriberId },
    Local(Arc<LocalQueue>),
}

/// A subscription that is ready to take messages: its connection is locked.
pub(super) enum Port<'a> {
    Remote { state: Locked<'a>, now: Instant, subscriber: SubscriberId },
    Local(&'a LocalQueue),
}

impl Place {
    pub(super) fn open(&self) -> Port<'_> {
        match self {
            Self::Remote { shared, subscriber } => {
                let now = shared.clock().now();
                Port::Remote { state: shared.lock(), now, subscriber: *subscriber }
            }
            Self::Local(queue) => Port::Local(queue),
        }
    }

    pub(super) fn peer(&self) -> Option<Peer> {
        match self {
            Self::Remote { shared, .. } => Some(Peer::new(shared.clone())),
            Self::Local(_) => None,
        }
    }
}

impl Port<'_> {
    pub(super) fn deliver(
        &mut self,
        message: &OutMessage,
        peer: Option<&Peer>,
        wakers: &mut Vec<Waker>,
        dropped: &mut Vec<Dropped>,
    ) -> Result<Delivered, Gone> {
        match self {
            Self::Remote { state, now, subscriber } => state.connection.deliver(*now, *subscriber, message),
            Self::Local(queue) => queue.deliver(message, peer.cloned(), wakers, dropped),
        }
    }

    pub(super) fn close(self, wakers: &mut Vec<Waker>) {
        if let Self::Remote { mut state, .. } = self {
            wakers.extend(state.take_driver());
        }
    }
}

/// What was tried at one subscription.
#[derive(Default)]
pub(super) struct Tried {
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    pub(super) closed: bool,
    pub(super) lost: Vec<(OutMessage, Error)>,
    /// What a local queue has let go.
    pub(super) gone: Vec<Dropped>,
}

impl Tried {
    /// Tries to deliver a message. Whether it is settled here; `Err` where the subscription is over.
    pub(super) fn deliver(
        &mut self,
        port: &mut Port<'_>,
        message: &OutMessage,
        qos: Qos,
        peer: Option<&Peer>,
        wakers: &mut Vec<Waker>,
    ) -> Result<bool, Gone> {
        let done = port.deliver(message, peer, wakers, &mut self.gone)?;
        let acknowledged = message.qos().min(qos) > Qos::AtMostOnce;
        match done {
            Delivered::Full => return Ok(false),
            Delivered::Queued => self.delivered += 1,
            Delivered::DroppedOldest => {
                self.delivered += 1;
                self.dropped += 1;
            }
            done => {
                self.dropped += 1;
                self.closed |= done == Delivered::Closed;
                let why = match done {
                    Delivered::TooLarge => {
                        Error::new(Code::MESSAGE_TOO_LARGE, "the message is larger than the subscriber takes")
                    }
                    _ => no_room(),
                };
                self.lost.extend(acknowledged.then(|| (message.clone(), why.with_processed(false))));
            }
        }
        Ok(true)
    }
}

pub(super) fn no_room() -> Error {
    Error::resource_exhausted("the subscriber does not keep up").with_processed(false)
}
