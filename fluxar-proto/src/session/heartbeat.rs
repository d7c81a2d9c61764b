//! Heartbeat: noticing a dead link (§8.4).

use core::time::Duration;

use crate::message::Id;
use crate::time::Instant;

/// How many pings may be on the way at once; an application's ping beyond that is refused.
const PINGS: usize = 8;

/// What the heartbeat asks for at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    Dead,
}

/// Both directions are watched: silence of ours (the peer wants to see life) and of the peer's (so that a busy
/// sender too learns whether the other side lives).
///
/// ```text
///        one interval without sending, or without receiving
///  QUIET ---------------------------------------------------> PING, again each interval
///    ^                                                          |
///    |  any byte received                                       | three intervals without a byte
///    +----------------------------------------------------------+-----> DEAD
/// ```
#[derive(Debug)]
pub(crate) struct Heartbeat {
    interval: Option<Duration>,
    sent: Instant,
    received: Instant,
    /// When the heartbeat pinged last; the application's pings are its own affair.
    asked: Instant,
    flying: heapless::Deque<(Id, Instant), PINGS>,
    rtt: Option<Duration>,
}

impl Heartbeat {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            interval: None,
            sent: now,
            received: now,
            asked: now,
            flying: heapless::Deque::new(),
            rtt: None,
        }
    }

    /// Begins with the smaller non-zero interval of both sides; none where both are zero.
    pub(crate) fn start(&mut self, ours_ms: u32, theirs_ms: u32, now: Instant) {
        let shortest = [ours_ms, theirs_ms].into_iter().filter(|ms| *ms > 0).min();
        self.interval = shortest.map(|ms| Duration::from_millis(u64::from(ms)));
        (self.sent, self.received, self.asked) = (now, now, now);
        // Over another link nobody answers what was asked over this one.
        self.flying.clear();
    }

    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    pub(crate) fn stop(&mut self) {
        self.interval = None;
    }

    pub(crate) fn note_sent(&mut self, now: Instant) {
        self.sent = now;
    }

    pub(crate) fn note_received(&mut self, now: Instant) {
        self.received = now;
    }

    /// A ping left with this id; `false` where too many are on the way.
    #[must_use]
    pub(crate) fn note_ping(&mut self, id: Id, now: Instant) -> bool {
        self.flying.push_back((id, now)).is_ok()
    }

    pub(crate) fn can_ping(&self) -> bool {
        !self.flying.is_full()
    }

    /// A reply to the ping `id`: how long it took, or `None` where no such ping is on the way. Replies come in
    /// order, and a peer may skip some (§8.3), so earlier pings are forgotten.
    pub(crate) fn note_reply(&mut self, id: Id, now: Instant) -> Option<Duration> {
        self.flying.iter().find(|(flying, _)| *flying == id)?;
        while let Some((flying, since)) = self.flying.pop_front() {
            if flying == id {
                self.rtt = Some(now - since);
                return self.rtt;
            }
        }
        None
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    pub(crate) fn due(&mut self, now: Instant) -> Due {
        let Some(interval) = self.interval else { return Due::Nothing };
        if now - self.received >= interval * 3 {
            Due::Dead
        } else if now >= self.ping_at(interval) {
            self.asked = now;
            // Unanswered pings of ours must not keep the next one from going out.
            if self.flying.is_full() {
                self.flying.pop_front();
            }
            Due::Ping
        } else {
            Due::Nothing
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let interval = self.interval?;
        Some(self.ping_at(interval).min(self.received + interval * 3))
    }

    fn ping_at(&self, interval: Duration) -> Instant {
        self.sent.max(self.asked).min(self.received.max(self.asked)) + interval
    }
}
