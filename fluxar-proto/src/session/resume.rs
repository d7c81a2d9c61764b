//! A session that outlives its link (§9).

use core::time::Duration;

use super::Ledger;
use crate::time::Instant;

/// What there is of a session beyond its link, where it is resumable.
#[derive(Debug)]
pub(crate) struct Session {
    /// How long it outlives a lost link (§9.1).
    pub(crate) resume_time: Duration,
    /// What is kept for the other side, and counted.
    pub(crate) ledger: Ledger,
    /// When it is over, without a link.
    pub(crate) expires: Option<Instant>,
}
