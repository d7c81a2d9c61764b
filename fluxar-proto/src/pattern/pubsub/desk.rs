//! What the machines of publish and subscribe share: what waits to be sent ahead of messages, whose turn it is, timers
//! and events.

use alloc::collections::{BTreeSet, VecDeque};

use super::journal::Journal;
use super::types::{MessageId, PubSubEvent, SubscriberId, SubscriptionId};
use crate::message::{Error, Id, Kind, Payload};
use crate::pattern::{Context, Outgoing, Owner, Target};
use crate::time::Instant;

/// So many ids go into one message: it fits the smallest `max_message`.
const BATCH: usize = 48;

/// A message of ours that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SentId {
    pub(super) owner: Owner,
    pub(super) slot: usize,
    pub(super) id: Id,
}

/// What concerns whole subscriptions. Each names its subscription, so that what is over by then is skipped; a slot stays
/// taken until its answers are sent, so that the limits on subscriptions bound these.
#[derive(Debug)]
pub(super) enum Notice {
    /// We subscribe.
    Subscribe(SubscriptionId),
    /// We end a subscription of ours, or answer that the publisher has.
    Unsubscribe(SubscriptionId),
    /// We confirm a subscription of the peer's.
    Confirm(SubscriberId),
    /// We end a subscription of the peer's, or answer that it has.
    End(SubscriberId),
}

/// When to try again, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) ack_timeout: core::time::Duration,
    pub(super) attempts: u32,
}

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) patience: Patience,
    /// The peer is about to leave: what would open something waits for the session with whoever is next (§8.6).
    pub(super) holds_back: bool,
    pub(super) notices: VecDeque<Notice>,
    /// Messages that the application has accepted, or that came again after that. Bounded by what is in flight: an id is
    /// here once at most, and keeps its slot until the acknowledgement is sent.
    pub(super) acks: VecDeque<MessageId>,
    /// Messages that the application has not accepted. Bounded as `acks`.
    pub(super) nacks: VecDeque<(MessageId, Error)>,
    /// Messages of ours that were acknowledged. Bounded by our own in flight, each once.
    pub(super) releases: VecDeque<SentId>,
    /// Messages that were released. Bounded as `acks`; those that are not known have no place, and are counted.
    pub(super) completes: VecDeque<MessageId>,
    /// How many of `completes` are not known: a peer can release what never was as often as it likes.
    strangers: usize,
    /// As many of those are borne at once, unless the peer reads their answers.
    max_strangers: usize,
    /// Who has messages that can be sent, each once.
    pub(super) round: VecDeque<Owner>,
    pub(super) timers: BTreeSet<(Instant, Owner, usize)>,
    pub(super) events: VecDeque<PubSubEvent>,
    /// Continuations of what is over, of what is not known, and publications that were dropped.
    pub(super) late: u64,
    pub(super) journal: Journal,
}

impl Desk {
    pub(super) fn new(patience: Patience, max_strangers: usize, journal: Journal) -> Self {
        Self {
            patience,
            holds_back: false,
            notices: VecDeque::new(),
            acks: VecDeque::new(),
            nacks: VecDeque::new(),
            releases: VecDeque::new(),
            completes: VecDeque::new(),
            strangers: 0,
            max_strangers,
            round: VecDeque::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            late: 0,
            journal,
        }
    }

    /// A `release` for an id that is not known is to be answered too (§12.9). Whether that is still borne.
    pub(super) fn complete_stranger(&mut self, id: Id) -> bool {
        if self.strangers >= self.max_strangers {
            return false;
        }
        self.strangers += 1;
        self.completes.push_back(MessageId { place: None, id });
        true
    }

    pub(super) fn pop_complete(&mut self) -> Option<MessageId> {
        let message = self.completes.pop_front()?;
        self.strangers -= usize::from(message.place.is_none());
        Some(message)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notices.is_empty()
            && self.acks.is_empty()
            && self.nacks.is_empty()
            && self.releases.is_empty()
            && self.completes.is_empty()
            && self.round.is_empty()
    }

    /// The session is lost, and a fresh one is to come: of what was to be said to the peer, publications are left, and what is
    /// to be released of them.
    pub(super) fn renew(&mut self) {
        self.notices.clear();
        self.acks.clear();
        self.nacks.clear();
        self.completes.clear();
        self.strangers = 0;
        self.releases.retain(|release| release.owner == Owner::Publications);
        self.round.retain(|owner| *owner == Owner::Publications);
        self.timers.clear();
    }

    /// Nothing more is said.
    pub(super) fn clear(&mut self) {
        let Self { patience, max_strangers, late, .. } = *self;
        let (events, journal) = (core::mem::take(&mut self.events), core::mem::take(&mut self.journal));
        *self = Self { events, late, ..Self::new(patience, max_strangers, journal) };
    }
}

/// One message that stands for several (§12.10): the ids that `next` still has.
pub(super) fn batch(
    verb: &'static str,
    cx: &mut Context<'_>,
    mut next: impl FnMut(&mut Context<'_>) -> Option<Id>,
) -> Option<Outgoing> {
    let first = next(cx)?;
    let mut more = heapless::Vec::<Id, { BATCH - 1 }>::new();
    while !more.is_full() {
        let Some(id) = next(cx) else { break };
        let Ok(()) = more.push(id) else { break };
    }
    let outgoing = Outgoing::new(Kind::Message, cx.ids.next(cx.now), Some(first), Target::Verb(verb));
    Some(if more.is_empty() {
        outgoing
    } else {
        outgoing.with_payload(Payload::build(|out| {
            out.array(more.len() as u64)?;
            for id in &more {
                out.bytes(id.as_bytes())?;
            }
            Ok(())
        }))
    })
}
