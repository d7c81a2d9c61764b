//! Credentials that are renewed within a session (§8.5): when a client does so, and what a server says.

use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::{Auth, Error, Id, Instant};

use super::authenticator::{Arrival, AuthRequest, Granted, Verdict};
use super::door::{Door, is_failure_code, too_many};
use crate::shared::Shared;

/// So long before the end fresh credentials are fetched, where there is that much time.
const AHEAD: Duration = Duration::from_secs(30);

/// Renewals are no closer together than that.
const PAUSE: Duration = Duration::from_millis(100);

/// Once the credentials have run out, they are this far apart.
const LATE: Duration = Duration::from_secs(5);

/// When a client renews its credentials.
#[derive(Debug, Default)]
pub(super) struct Plan {
    expires: Option<Instant>,
    due: Option<Instant>,
}

impl Plan {
    /// When it is time to renew credentials that run out at `expires`.
    pub(super) fn due(&mut self, now: Instant, expires: Option<Instant>) -> Option<Instant> {
        if self.expires != expires {
            self.expires = expires;
            self.due = expires.map(|expires| now + patience(expires - now));
        }
        self.due
    }

    /// It is done: those that hold from now on have a time of their own.
    pub(super) fn done(&mut self) {
        *self = Self::default();
    }

    /// There is nothing to renew them with.
    pub(super) fn give_up(&mut self) {
        self.due = None;
    }

    /// It did not work, and is tried again while there is time; and then on, since it may work later. Whether there is
    /// time left.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let left = self.expires.map_or(Duration::ZERO, |expires| expires - now);
        let wait = if left.is_zero() { LATE } else { (left / 2).clamp(PAUSE, AHEAD) };
        self.due = Some(now + wait);
        !left.is_zero()
    }
}

/// How long credentials are used that last for `lifetime`, before fresh ones are fetched: four fifths of that, and no
/// longer than until 30 s before the end; but where that would be at once, half of it.
fn patience(lifetime: Duration) -> Duration {
    let latest = lifetime.saturating_sub(AHEAD).max(lifetime / 2);
    latest.min(lifetime / 5 * 4).max(PAUSE)
}

/// Decides on the fresh credentials of one session.
#[derive(Clone, Debug)]
pub(crate) struct Renewer {
    door: Door,
    from: Arc<Arrival>,
    psk: Option<String>,
}

impl Renewer {
    pub(super) fn new(door: Door, from: Arc<Arrival>, psk: Option<String>) -> Self {
        Self { door, from, psk }
    }

    /// Decides, and answers, in a task of its own.
    pub(crate) fn renew(self, shared: &Arc<Shared>, id: Id, auth: Auth) {
        let shared = shared.clone();
        shared.tasks().clone().spawn(async move {
            let Some(verdict) = shared.while_open(self.decide(&shared, auth)).await else { return };
            let verdict = verdict.map(|Granted { identity, lifetime }| {
                shared.known().identify(identity);
                lifetime
            });
            if let Err(error) = &verdict {
                tracing::info!(remote = shared.remote(), %error, "credentials are not renewed");
            }
            shared.answer_auth(id, verdict);
        });
    }

    async fn decide(&self, shared: &Shared, auth: Auth) -> Result<Granted, Error> {
        let tasks = shared.tasks();
        let admitted = self.door.budget().admit(self.from.source.as_deref(), || tasks.now());
        let mut trial = admitted.await.map_err(too_many)?;
        let request = AuthRequest {
            auth: Some(auth),
            challenge: None,
            identity: shared.known().identity(),
            psk: self.psk.clone(),
            from: self.from.clone(),
        };
        let verdict = tasks.within(self.door.time(), self.door.ask(request)).await;
        let late = || Err(Error::unavailable("the credentials could not be checked in time"));
        match verdict.unwrap_or_else(late) {
            Ok(Verdict::Granted(granted)) => Ok(granted),
            Ok(Verdict::Challenge(_)) => {
                Err(Error::unauthenticated("a scheme with rounds cannot be renewed within a session"))
            }
            Err(error) => {
                if is_failure_code(error.code) {
                    trial.fail(tasks.now());
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(1_000_000);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    // spec: §8.5
    #[test]
    fn credentials_are_renewed_in_time() {
        for (lifetime, wait) in [
            (3_600_000, 2_880_000),
            (150_000, 120_000),
            (100_000, 70_000),
            (60_000, 30_000),
            (40_000, 20_000),
            (1_000, 500),
            (100, 100),
            (0, 100),
        ] {
            let mut plan = Plan::default();
            let due = plan.due(NOW, Some(NOW + ms(lifetime)));
            assert_eq!(due, Some(NOW + ms(wait)), "{lifetime}");
            assert_eq!(plan.due(NOW + ms(50), Some(NOW + ms(lifetime))), due, "it stands");
        }
        assert_eq!(Plan::default().due(NOW, None), None);
    }

    // spec: §8.5
    #[test]
    fn a_renewal_that_fails_is_tried_again_before_the_end_and_after_it() {
        let mut plan = Plan::default();
        let expires = Some(NOW + ms(1000));
        assert_eq!(plan.due(NOW, expires), Some(NOW + ms(500)));
        assert!(plan.failed(NOW + ms(500)));
        assert_eq!(plan.due(NOW + ms(500), expires), Some(NOW + ms(750)));
        assert!(plan.failed(NOW + ms(950)));
        assert_eq!(plan.due(NOW + ms(950), expires), Some(NOW + ms(1050)));
        assert!(!plan.failed(NOW + ms(1050)));
        assert_eq!(plan.due(NOW + ms(1050), expires), Some(NOW + ms(6050)));
        let fresh = Some(NOW + ms(61_050));
        assert_eq!(
            plan.due(NOW + ms(1050), fresh),
            Some(NOW + ms(31_050)),
            "a new link has brought new ones"
        );
    }

    #[test]
    fn what_lasts_no_longer_than_before_is_not_renewed_all_the_time() {
        let mut plan = Plan::default();
        let expires = Some(NOW + ms(1000));
        plan.due(NOW, expires);
        plan.done();
        assert_eq!(plan.due(NOW + ms(900), expires), Some(NOW + ms(1000)));
        plan.give_up();
        assert_eq!(plan.due(NOW + ms(950), expires), None);
    }
}
