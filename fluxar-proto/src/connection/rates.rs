//! A peer says more than it may per time (§15.4).

use core::time::Duration;

use super::Connection;
use crate::message::{Envelope, Error, Kind};
use crate::session::ConnectionError;
use crate::time::Instant;

/// A pause is no longer than this, nor than the interval of the heartbeat: the other side must see that something is
/// taken, or it would take the link for dead (§8.4).
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

impl Connection {
    /// Nothing is to be read before this moment, nor is what was read to be handed in: the peer says more than
    /// [`Config::rates`](crate::Config::rates) let it. [`poll_timeout`](Self::poll_timeout) announces the moment, and with
    /// [`handle_timeout`](Self::handle_timeout) it is over.
    pub fn read_after(&self) -> Option<Instant> {
        self.meters.pause
    }

    /// Counts what came. An opening beyond a rate may be refused; then it costs nothing else.
    pub(super) fn measure(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        len: usize,
    ) -> Option<Result<(), ConnectionError>> {
        let opens = envelope.reference.is_none() && envelope.kind != Kind::Control;
        if opens && let Some(until) = self.meters.refused_until(envelope.kind, now) {
            let refused = self.refuse_new(now, envelope, || too_much(until - now));
            if refused.is_some() {
                return refused;
            }
        }
        self.meters.take(envelope.kind, opens, len as u64, now);
        None
    }

    /// How many messages may be handled at once, of `count`.
    pub(super) fn within_rates(&mut self, now: Instant, count: usize) -> usize {
        count.min(self.meters.room(now))
    }

    /// Whether what comes next has to wait. Its silence is of our making then, and says nothing of the peer (§8.4).
    pub(super) fn pause(&mut self, now: Instant) {
        let longest = self.heartbeat.interval().unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
        self.meters.pause = self.meters.paused_until(now).map(|at| at.min(now + longest));
        if let Some(at) = self.meters.pause {
            self.heartbeat.note_received(at);
        }
    }

    pub(super) fn end_pause(&mut self, now: Instant) {
        if self.meters.pause.is_some_and(|at| at <= now) {
            self.meters.pause = None;
        }
    }
}

fn too_much(wait: Duration) -> Error {
    let ms = u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
    Error::resource_exhausted("more than there may be per time").with_retry_after_ms(ms)
}
