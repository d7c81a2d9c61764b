//! Openings of the peer that are refused (§5.16, §10.7).

use alloc::collections::VecDeque;

use super::{Outgoing, Target};
use crate::message::{Error, Id, Kind, verb};
use crate::session::{Budget, IdSource, Violation};
use crate::time::Instant;

/// The refusals that wait to be sent: as many as the peer may cause at once.
#[derive(Debug)]
pub(crate) struct Refusals {
    waiting: VecDeque<(Kind, Id, Error)>,
    capacity: usize,
    count: u64,
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
        error: Error,
        now: Instant,
        budget: &mut Budget,
    ) -> Result<(), Violation> {
        budget.charge(now)?;
        if self.waiting.len() >= self.capacity {
            return Err(Violation::Flood);
        }
        self.count += 1;
        self.waiting.push_back((kind, id, error.with_processed(false)));
        Ok(())
    }

    /// The next refusal, in the form that the type of its opening calls for.
    pub(crate) fn poll(&mut self, now: Instant, ids: &mut IdSource) -> Option<Outgoing> {
        let (kind, reference, error) = self.waiting.pop_front()?;
        let target = match kind {
            Kind::Stream => Target::Verb(verb::END),
            Kind::Message => Target::Verb(verb::NACK),
            _ => Target::Null,
        };
        Some(Outgoing::new(kind, ids.next(now), Some(reference), target).with_result(Err(error)))
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
