//! When to try again, as numbers alone: no clock, no timer.

use std::time::Duration;

use rand_core::Rng;

use super::Reconnect;

/// Beyond so many doublings every bound is at its end.
const DOUBLINGS: u32 = 63;

/// How far a client is with its attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: Reconnect,
    /// How many URLs one round has.
    round: u32,
    /// Attempts in a row that came to nothing.
    failed: u32,
    /// What the bound has grown by: unlike `failed`, a link that breaks at once does not set it back.
    grown: u32,
}

impl Backoff {
    pub(crate) fn new(policy: Reconnect, urls: usize) -> Self {
        let round = u32::try_from(urls).unwrap_or(u32::MAX).max(1);
        Self { policy, round, failed: 0, grown: 0 }
    }

    /// How long to wait before the next attempt, and which one it is, from 1; `None` where it is not worth another.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Option<(u32, Duration)> {
        if self.policy.attempts.is_some_and(|attempts| self.failed >= attempts) {
            return None;
        }
        let wait = up_to(self.bound(), rng);
        self.failed = self.failed.saturating_add(1);
        self.grown = self.grown.saturating_add(1);
        Some((self.failed, wait))
    }

    /// The longest that the wait before the next attempt can be.
    fn bound(&self) -> Duration {
        let doublings = (self.grown / self.round).min(DOUBLINGS);
        let grown = self.policy.first.as_nanos().saturating_mul(1 << doublings);
        let bound = grown.min(self.policy.max.as_nanos());
        Duration::from_nanos(u64::try_from(bound).unwrap_or(u64::MAX))
    }

    /// An attempt has succeeded, and the link has stood for that long. Where that was no longer than the wait for it could
    /// be, the next wait is longer all the same: a server that breaks down whenever somebody connects is not to be run over.
    pub(crate) fn stood(&mut self, time: Duration) {
        if time >= self.bound() {
            self.grown = 0;
        }
        self.failed = 0;
    }
}

/// A random time between nothing and `bound`.
fn up_to(bound: Duration, rng: &mut impl Rng) -> Duration {
    // 53 bits are what a fraction holds; nobody can tell the difference.
    let fraction = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    bound.mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(policy: Reconnect, urls: usize) -> (Backoff, chacha20::ChaCha12Rng) {
        (Backoff::new(policy, urls), rand_core::SeedableRng::seed_from_u64(7))
    }

    fn bounds(backoff: &mut Backoff, rng: &mut impl Rng, count: usize) -> Vec<u128> {
        let mut bounds = Vec::new();
        for _ in 0..count {
            bounds.push(backoff.bound().as_millis());
            backoff.next(rng);
        }
        bounds
    }

    // spec: §16.4
    #[test]
    fn the_bound_doubles_up_to_its_end() {
        let (mut backoff, mut rng) = backoff(Reconnect::default(), 1);
        let bounds = bounds(&mut backoff, &mut rng, 11);
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn the_bound_doubles_once_all_urls_were_tried() {
        let (mut backoff, mut rng) = backoff(Reconnect::default(), 3);
        assert_eq!(bounds(&mut backoff, &mut rng, 7), [100, 100, 100, 200, 200, 200, 400]);
    }

    #[test]
    fn no_number_of_attempts_and_no_bound_overflows() {
        let policy = Reconnect::default().first(Duration::MAX).max(Duration::MAX);
        let (mut backoff, mut rng) = backoff(policy, 1);
        for attempt in 1..200 {
            assert_eq!(backoff.next(&mut rng).map(|(attempt, _)| attempt), Some(attempt));
        }
    }

    // spec: §16.4
    #[test]
    fn a_wait_is_anywhere_between_nothing_and_its_bound() {
        let policy = Reconnect::default().first(Duration::from_secs(1)).max(Duration::from_secs(1));
        let (mut backoff, mut rng) = backoff(policy, 1);
        let waits: Vec<_> = (0..1000).filter_map(|_| backoff.next(&mut rng)).map(|(_, wait)| wait).collect();
        assert!(waits.iter().all(|wait| *wait < Duration::from_secs(1)));
        for tenth in 0..10 {
            let (from, to) = (Duration::from_millis(tenth * 100), Duration::from_millis(tenth * 100 + 100));
            let count = waits.iter().filter(|wait| (from..to).contains(wait)).count();
            assert!((50..150).contains(&count), "{count} of 1000 waits in the tenth from {from:?}");
        }
    }

    #[test]
    fn it_gives_up_after_so_many_attempts_in_a_row() {
        let (mut backoff, mut rng) = backoff(Reconnect::default().attempts(2), 1);
        assert!(backoff.next(&mut rng).is_some() && backoff.next(&mut rng).is_some());
        assert_eq!(backoff.next(&mut rng), None);
        backoff.stood(Duration::ZERO);
        assert_eq!(backoff.next(&mut rng).map(|(attempt, _)| attempt), Some(1));
    }

    #[test]
    fn off_never_tries() {
        let (mut backoff, mut rng) = backoff(Reconnect::off(), 1);
        assert!(!Reconnect::off().is_on() && Reconnect::default().is_on());
        assert_eq!(backoff.next(&mut rng), None);
    }

    #[test]
    fn a_link_that_stood_for_long_enough_sets_the_wait_back() {
        let (mut backoff, mut rng) = backoff(Reconnect::default(), 1);
        assert_eq!(bounds(&mut backoff, &mut rng, 3), [100, 200, 400]);
        backoff.stood(Duration::from_millis(800));
        assert_eq!(backoff.bound(), Duration::from_millis(100));
    }

    #[test]
    fn a_link_that_breaks_at_once_does_not() {
        let (mut backoff, mut rng) = backoff(Reconnect::default(), 1);
        assert_eq!(bounds(&mut backoff, &mut rng, 3), [100, 200, 400]);
        backoff.stood(Duration::from_millis(799));
        assert_eq!(backoff.bound(), Duration::from_millis(800));
    }
}
