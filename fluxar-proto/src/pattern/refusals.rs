//! Openings of the peer that are refused (§5.16, §10.7).

use alloc::collections::VecDeque;

use super::{Outgoing, Target};
use crate::message::{Error, Id, Kind, verb};
use crate::session::{Budget, IdSource, Violation};
use crate::time::Instant;

/// The refusals that wait to be sent: as many as the peer may cause at once.
#[derive(Debug)]
pub(crate) struct Refusals {
    waiting: VecDeque<Refusal>,
    capacity: usize,
    count: u64,
}

#[derive(Debug)]
struct Refusal {
    kind: Kind,
    id: Id,
    /// Of a message with acknowledgement: which one is refused.
    attempt: Option<u32>,
    error: Error,
}

impl Refusals {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { waiting: VecDeque::new(), capacity: capacity as usize, count: 0 }
    }

    /// Answers an opening of the peer with an error, without having acted on it.
    ///
    /// # Errors
    ///
    /// Where the peer has caused more of those than are borne.
    pub(crate) fn refuse(
        &mut self,
        kind: Kind,
        id: Id,
        attempt: Option<u32>,
        error: Error,
        now: Instant,
        budget: &mut Budget,
    ) -> Result<(), Violation> {
        budget.charge(now)?;
        if self.waiting.len() >= self.capacity {
            return Err(Violation::Flood);
        }
        self.count += 1;
        self.waiting.push_back(Refusal { kind, id, attempt, error: error.with_processed(false) });
        Ok(())
    }

    /// The next refusal, in the form that the type of its opening calls for.
    pub(crate) fn poll(&mut self, now: Instant, ids: &mut IdSource) -> Option<Outgoing> {
        let Refusal { kind, id, attempt, error } = self.waiting.pop_front()?;
        let target = match kind {
            Kind::Stream => Target::Verb(verb::END),
            Kind::Message => Target::Verb(verb::NACK),
            _ => Target::Null,
        };
        let refusal = Outgoing::new(kind, ids.next(now), Some(id), target).with_result(Err(error));
        Some(match attempt {
            Some(attempt) => refusal.of_attempt(attempt),
            None => refusal,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// How many there have been.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
