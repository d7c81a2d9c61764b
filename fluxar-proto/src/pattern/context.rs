//! What the patterns need from the connection that they live in.

use super::{OpenIds, Refusals};
use crate::message::{Error, Id, Kind};
use crate::session::{Budget, ConnectionError, IdSource};
use crate::time::Instant;

/// The moment, and the parts of a connection that all its patterns share.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) ids: &'a mut IdSource,
    pub(crate) open: &'a mut OpenIds,
    pub(crate) budget: &'a mut Budget,
    pub(crate) refusals: &'a mut Refusals,
}

impl Context<'_> {
    /// Answers an opening of the peer with an error, without having acted on it (§5.16).
    pub(crate) fn refuse(&mut self, kind: Kind, id: Id, error: Error) -> Result<(), ConnectionError> {
        Ok(self.refusals.refuse(kind, id, None, error, self.now, self.budget)?)
    }

    /// The same for a message with acknowledgement, of which this is one attempt (§12.8).
    pub(crate) fn refuse_attempt(
        &mut self,
        id: Id,
        attempt: u32,
        error: Error,
    ) -> Result<(), ConnectionError> {
        Ok(self.refusals.refuse(Kind::Message, id, Some(attempt), error, self.now, self.budget)?)
    }
}
