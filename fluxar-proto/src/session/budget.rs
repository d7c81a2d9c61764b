//! How much misbehaviour of a peer is borne before its connection ends (§10.7).

use super::bucket::Bucket;
use super::error::Violation;
use crate::time::Instant;

/// Each cancel and each refused opening of the peer costs one token.
#[derive(Debug)]
pub(crate) struct Budget(Bucket);

impl Budget {
    pub(crate) fn new(capacity: u32, per_second: u32, now: Instant) -> Self {
        Self(Bucket::new(capacity.into(), per_second.into(), now))
    }

    /// Takes one token.
    ///
    /// # Errors
    ///
    /// When there is none left: that is more than is borne.
    pub(crate) fn charge(&mut self, now: Instant) -> Result<(), Violation> {
        if self.0.spend(now) { Ok(()) } else { Err(Violation::Flood) }
    }
}
