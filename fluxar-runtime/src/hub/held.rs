//! Messages on their way through a hub, and who waits for what becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fluxar_proto::{Error, MessageId, OutMessage, Publication};

use super::{Effects, Outcome};
use crate::peer::Peer;
use crate::publish::{Fate, PublishError};
use crate::shared::Shared;

/// Who waits for what becomes of a publication.
pub(super) enum Answer {
    None,
    Peer(Arc<Shared>, MessageId),
    Local(Arc<Outcome>),
    /// As `Local`, but who has no room does not get it.
    AtOnce(Arc<Outcome>),
}

/// A message that is to be published.
pub(super) struct Offered {
    pub(super) message: OutMessage,
    pub(super) retain: bool,
    /// Who has published it.
    pub(super) peer: Option<Peer>,
    pub(super) answer: Answer,
}

/// A message that waits for room somewhere.
pub(super) struct Held {
    pub(super) message: OutMessage,
    pub(super) peer: Option<Peer>,
    pub(super) answer: Answer,
    /// In how many queues it waits. Changed under the hub's lock.
    pub(super) waits: AtomicUsize,
    /// Somebody has got it.
    pub(super) delivered: AtomicBool,
}

impl Held {
    /// A message for which the hub is responsible already.
    pub(super) fn of(message: OutMessage) -> Arc<Self> {
        Self::new(&mut Offered { message, retain: false, peer: None, answer: Answer::None })
    }

    pub(super) fn new(offered: &mut Offered) -> Arc<Self> {
        let message = offered.message.clone();
        let answer = std::mem::replace(&mut offered.answer, Answer::None);
        if let Answer::Peer(shared, _) = &answer {
            shared.stalled().fetch_add(message.held_bytes(), Ordering::Relaxed);
        }
        let peer = offered.peer.clone();
        Arc::new(Self {
            message,
            peer,
            answer,
            waits: AtomicUsize::new(0),
            delivered: AtomicBool::new(false),
        })
    }
}

/// A message waits in one queue less. In the last one its publisher is answered.
pub(super) fn waits_no_more(held: Arc<Held>, effects: &mut Effects) {
    if held.waits.fetch_sub(1, Ordering::Relaxed) == 1 {
        match &held.answer {
            Answer::None => {}
            Answer::Peer(shared, message) => {
                // Before it is answered: the answer has the driver look whether it may take more.
                shared.stalled().fetch_sub(held.message.held_bytes(), Ordering::Relaxed);
                effects.answers.push((shared.clone(), *message, Ok(())));
            }
            Answer::Local(outcome) | Answer::AtOnce(outcome) => {
                effects.outcomes.push((outcome.clone(), Ok(Fate::Accepted { attempts: 1 })));
            }
        }
    }
    effects.held.push(held);
}

/// Tells whoever waits for it what became of a publication.
pub(super) fn answer(to: Answer, result: Result<(), Error>, effects: &mut Effects) {
    match to {
        Answer::None => {}
        Answer::Peer(shared, message) => effects.answers.push((shared, message, result)),
        Answer::Local(outcome) => {
            let result = result.map_err(|error| PublishError::NotSent(error.into_outcome()));
            effects.outcomes.push((outcome, result.map(|()| Fate::Accepted { attempts: 1 })));
        }
        Answer::AtOnce(outcome) => {
            let result = result.map_err(|_| PublishError::Dropped);
            effects.outcomes.push((outcome, result.map(|()| Fate::Accepted { attempts: 1 })));
        }
    }
}

/// A publication of a peer.
pub(super) fn offered(shared: &Arc<Shared>, publication: &Publication) -> Offered {
    let answer = match publication.id.wants_ack() {
        true => Answer::Peer(shared.clone(), publication.id),
        false => Answer::None,
    };
    let peer = Some(Peer::new(shared.clone()));
    Offered { message: OutMessage::from(publication), retain: publication.retain, peer, answer }
}
