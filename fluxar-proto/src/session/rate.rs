//! How much a peer may say per time (§15.4).

use super::bucket::Bucket;
use crate::message::Kind;
use crate::time::Instant;

/// What a message is taken to have in bytes before it is looked at: so that a burst of them does not go far beyond a rate.
const MESSAGE: i64 = 16 << 10;

/// So much per time, as a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How much may come at once, after a while of silence. 0 counts as 1.
    pub burst: u64,
    /// How much may come each second in the long run. 0: nothing more, once the burst is used up.
    pub per_second: u64,
}

impl Rate {
    /// A rate of `per_second`, of which `burst` may come at once.
    pub const fn new(burst: u64, per_second: u64) -> Self {
        Self { burst, per_second }
    }
}

/// What happens where a peer goes beyond a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateAction {
    /// What it opens then is refused with `resource_exhausted`, `processed: false` and `retry_after_ms`. What cannot be
    /// refused, as what continues something, waits.
    #[default]
    Refuse,
    /// Nothing is read from it for as long as it takes.
    Wait,
}

/// How much the peer of a connection may say per time (§15.4). Default: as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rates {
    /// Messages of all kinds.
    pub messages: Option<Rate>,
    /// Bytes of messages.
    pub bytes: Option<Rate>,
    /// Calls and streams that it opens, together.
    pub calls: Option<Rate>,
    /// Subscriptions that it opens.
    pub subscriptions: Option<Rate>,
    /// What happens beyond these.
    pub action: RateAction,
}

impl Rates {
    /// No rates.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Measures what one peer says.
#[derive(Debug)]
pub(crate) struct Meters {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    calls: Option<Bucket>,
    subscriptions: Option<Bucket>,
    action: RateAction,
    /// It has said enough until then.
    pub(crate) pause: Option<Instant>,
}

impl Meters {
    pub(crate) fn new(rates: &Rates, now: Instant) -> Self {
        let bucket =
            |rate: Option<Rate>| rate.map(|rate| Bucket::new(rate.burst.max(1), rate.per_second, now));
        Self {
            messages: bucket(rates.messages),
            bytes: bucket(rates.bytes),
            calls: bucket(rates.calls),
            subscriptions: bucket(rates.subscriptions),
            action: rates.action,
            pause: None,
        }
    }

    /// What an opening of this kind counts for beyond a message and its bytes.
    fn opening(&mut self, kind: Kind) -> &mut Option<Bucket> {
        match kind {
            Kind::Call | Kind::Stream => &mut self.calls,
            _ => &mut self.subscriptions,
        }
    }

    /// Until when an opening is to be refused; `None` where it may be taken, or has to wait.
    pub(crate) fn refused_until(&mut self, kind: Kind, now: Instant) -> Option<Instant> {
        if self.action != RateAction::Refuse {
            return None;
        }
        let until = |bucket: &mut Option<Bucket>| bucket.as_mut()?.ready_at(1, now);
        let [messages, bytes] = [until(&mut self.messages), until(&mut self.bytes)];
        let own = match kind {
            Kind::Call | Kind::Stream | Kind::Subscribe => until(self.opening(kind)),
            _ => None,
        };
        [messages, bytes, own].into_iter().flatten().max()
    }

    /// A message of so many bytes is taken.
    pub(crate) fn take(&mut self, kind: Kind, opens: bool, len: u64, now: Instant) {
        if let Some(messages) = &mut self.messages {
            messages.draw(1, now);
        }
        if let Some(bytes) = &mut self.bytes {
            bytes.draw(len, now);
        }
        if opens
            && matches!(kind, Kind::Call | Kind::Stream | Kind::Subscribe)
            && let Some(bucket) = self.opening(kind)
        {
            bucket.draw(1, now);
        }
    }

    /// How many messages may be taken before anybody asks again, and at least one.
    pub(crate) fn room(&mut self, now: Instant) -> usize {
        let least = self.least();
        let Self { messages, bytes, calls, subscriptions, .. } = self;
        let each = [(messages, 1), (bytes, MESSAGE), (calls, 1), (subscriptions, 1)];
        let room = each
            .into_iter()
            .filter_map(|(bucket, cost)| Some(bucket.as_mut()?.level(now).saturating_sub(least) / cost));
        room.min().map_or(usize::MAX, |room| usize::try_from(room).unwrap_or(0).saturating_add(1))
    }

    /// Until when nothing is to be read.
    pub(crate) fn paused_until(&mut self, now: Instant) -> Option<Instant> {
        let least = self.least();
        self.buckets().filter_map(|bucket| bucket.ready_at(least, now)).max()
    }

    /// With so many tokens there may be more. What is refused costs none, so that beyond a rate it is told so.
    fn least(&self) -> i64 {
        match self.action {
            RateAction::Refuse => 0,
            RateAction::Wait => 1,
        }
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        let Self { messages, bytes, calls, subscriptions, .. } = self;
        [messages, bytes, calls, subscriptions].into_iter().flatten()
    }
}
