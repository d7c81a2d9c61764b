//! How much misbehaviour of a peer is borne before its connection ends (§10.7).

use core::time::Duration;

use super::error::Violation;
use crate::time::Instant;

/// A token bucket: each cancel and each refused opening of the peer costs one token.
#[derive(Debug)]
pub(crate) struct Budget {
    capacity: u32,
    per_second: u32,
    tokens: u32,
    counted_to: Instant,
}

impl Budget {
    pub(crate) fn new(capacity: u32, per_second: u32, now: Instant) -> Self {
        Self { capacity, per_second, tokens: capacity, counted_to: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    ///
    /// When there is none left: that is more than is borne.
    pub(crate) fn charge(&mut self, now: Instant) -> Result<(), Violation> {
        if self.spend(now) { Ok(()) } else { Err(Violation::Flood) }
    }

    fn spend(&mut self, now: Instant) -> bool {
        self.refill(now);
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }

    fn refill(&mut self, now: Instant) {
        let Some(token_takes) = 1_000_000u64.checked_div(u64::from(self.per_second)) else { return };
        let token_takes = token_takes.max(1);
        let earned = (now - self.counted_to).as_micros() as u64 / token_takes;
        // What is left of the time stays on the account, so that frequent small calls earn as much as rare ones.
        self.counted_to = self.counted_to + Duration::from_micros(earned.saturating_mul(token_takes));
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(earned).min(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_return_at_the_rate_and_never_exceed_the_capacity() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut budget = Budget::new(3, 10, at(0));
        assert_eq!([(); 4].map(|()| budget.spend(at(0))), [true, true, true, false]);
        assert!(!budget.spend(at(99)));
        assert!(budget.spend(at(100)), "a token each 100 ms");
        assert!(!budget.spend(at(150)));
        assert!(budget.spend(at(200)), "the half earned at 150 was not lost");
        assert_eq!([(); 4].map(|()| budget.spend(at(1_000_000))), [true, true, true, false]);
    }
}
