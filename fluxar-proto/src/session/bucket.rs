//! A token bucket.

use core::time::Duration;

use crate::time::Instant;

/// Tokens that return at a rate, up to a capacity. It may be overdrawn: then the debt is worked off first.
#[derive(Debug)]
pub(crate) struct Bucket {
    capacity: i64,
    per_second: u64,
    level: i64,
    /// Millionths of a token that came to it beyond that.
    rest: u32,
    counted_to: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(capacity: u64, per_second: u64, now: Instant) -> Self {
        let capacity = i64::try_from(capacity).unwrap_or(i64::MAX);
        Self { capacity, per_second, level: capacity, rest: 0, counted_to: now }
    }

    /// How many tokens there are now; below zero: how many are owed.
    pub(crate) fn level(&mut self, now: Instant) -> i64 {
        let micros = (now - self.counted_to).as_micros();
        self.counted_to = self.counted_to.max(now);
        let earned = micros.saturating_mul(u128::from(self.per_second)).saturating_add(u128::from(self.rest));
        // What is left of the time stays on the account, so that frequent small calls earn as much as rare ones.
        self.rest = (earned % 1_000_000) as u32;
        let tokens = i64::try_from(earned / 1_000_000).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(tokens).min(self.capacity);
        if self.level == self.capacity {
            self.rest = 0;
        }
        self.level
    }

    /// Takes one token, where there is one.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let has = self.level(now) > 0;
        self.level -= i64::from(has);
        has
    }

    /// Takes so many tokens, whether they are there or not.
    pub(crate) fn draw(&mut self, tokens: u64, now: Instant) {
        let left = self.level(now).saturating_sub(i64::try_from(tokens).unwrap_or(i64::MAX));
        self.level = left;
    }

    /// When there will be `tokens` of them; `None` where there are. What never comes comes at the end of time.
    pub(crate) fn ready_at(&mut self, tokens: i64, now: Instant) -> Option<Instant> {
        let missing = tokens.saturating_sub(self.level(now));
        let missing = u128::try_from(missing).ok().filter(|missing| *missing > 0)?;
        let missing = missing * 1_000_000 - u128::from(self.rest);
        let micros = match self.per_second {
            0 => u64::MAX,
            per_second => u64::try_from(missing.div_ceil(u128::from(per_second))).unwrap_or(u64::MAX),
        };
        Some(self.counted_to + Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn tokens_return_at_the_rate_and_never_exceed_the_capacity() {
        let mut bucket = Bucket::new(3, 10, at(0));
        assert_eq!([(); 4].map(|()| bucket.spend(at(0))), [true, true, true, false]);
        assert!(!bucket.spend(at(99)));
        assert!(bucket.spend(at(100)), "a token each 100 ms");
        assert!(!bucket.spend(at(150)));
        assert!(bucket.spend(at(200)), "the half earned at 150 was not lost");
        assert_eq!([(); 4].map(|()| bucket.spend(at(1_000_000))), [true, true, true, false]);
    }

    #[test]
    fn debt_is_worked_off_first() {
        let mut bucket = Bucket::new(100, 1_000, at(0));
        assert_eq!(bucket.ready_at(1, at(0)), None);
        bucket.draw(350, at(0));
        assert_eq!(bucket.level(at(0)), -250);
        assert_eq!(bucket.ready_at(0, at(0)), Some(at(250)));
        assert_eq!(bucket.ready_at(1, at(100)), Some(at(251)));
        assert!(!bucket.spend(at(250)) && bucket.spend(at(251)));
    }

    #[test]
    fn large_rates_and_long_times_are_exact() {
        let mut bucket = Bucket::new(u64::MAX, 300_000_000, at(0));
        bucket.draw(u64::MAX, at(0));
        bucket.draw(300_000, at(0));
        assert_eq!(bucket.ready_at(0, at(0)), Some(at(1)), "far more than one token each microsecond");
        assert!(bucket.level(Instant::from_micros(u64::MAX)) > i64::MAX / 2);
        let mut never = Bucket::new(0, 0, at(0));
        assert_eq!(never.ready_at(1, at(5)), Some(Instant::from_micros(u64::MAX)));
        assert!(!never.spend(at(1_000_000)));
    }

    #[test]
    fn a_clock_that_stands_still_or_runs_back_earns_nothing() {
        let mut bucket = Bucket::new(1, 1_000, at(50));
        assert!(bucket.spend(at(50)) && !bucket.spend(at(50)) && !bucket.spend(at(10)));
        assert!(bucket.spend(at(51)));
    }
}
