//! What a server asks of those who come (§6.11, §17.4).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::{Auth, Code, ConnectionError, Error, Offered, Timeout};
use futures_util::FutureExt;

use super::authenticator::{Arrival, AuthRequest, Authenticator, Granted, Verdict};
use super::budget::{Budget, Trial};
use super::identity::{Identity, NO_SCHEME};
use crate::accept::Shaking;
use crate::handler::panicked;
use crate::runtime::Runtime;

/// What a server asks of those who come. All clones ask the same.
#[derive(Clone, Default)]
pub(crate) struct Door {
    authenticator: Option<Arc<dyn Authenticator>>,
    budget: Budget,
}

/// An offer that may be accepted, and from whom it is.
pub(crate) struct Admitted {
    pub(crate) offered: Box<Offered>,
    /// As whom; `None` where nobody was asked.
    pub(crate) granted: Option<Granted>,
}

impl Door {
    pub(crate) fn set_authenticator(&mut self, authenticator: impl Authenticator) {
        self.authenticator = Some(Arc::new(authenticator));
    }

    pub(crate) fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Whether somebody has to show something.
    fn is_guarded(&self) -> bool {
        self.authenticator.is_some()
    }

    /// Decides on an offer, which may be for a session that is known already. On an error the initiator was told why.
    pub(crate) async fn admit<R: Runtime>(
        &self,
        shaking: &mut Shaking<R>,
        offered: Box<Offered>,
        present: Option<Arc<Identity>>,
    ) -> Result<Admitted, ConnectionError> {
        // Whoever has proven that a session is his need not say again who he is (§8.5).
        if !self.is_guarded() || (present.is_some() && offered.offer().auth.is_none()) {
            return Ok(Admitted { offered, granted: None });
        }
        let judged = self.judge(shaking, offered, present).await;
        if judged.is_err() {
            shaking.farewell().await;
        }
        judged
    }

    async fn judge<R: Runtime>(
        &self,
        shaking: &mut Shaking<R>,
        mut offered: Box<Offered>,
        present: Option<Arc<Identity>>,
    ) -> Result<Admitted, ConnectionError> {
        let from = Arrival::of(shaking.link(), offered.offer().agent.clone());
        let deadline = offered.deadline();
        let clock = shaking.clock().clone();
        let now = || clock.to_runtime(clock.now());
        let mut trial = match shaking.within(deadline, self.budget.admit(from.source.as_deref(), now)).await {
            Some(Ok(trial)) => trial,
            Some(Err(wait)) => return Err(refuse(shaking, offered, too_many(wait))),
            None => return Err(timed_out(shaking, &mut offered)),
        };
        let request = AuthRequest {
            auth: offered.offer().auth.clone(),
            challenge: None,
            identity: present,
            psk: None,
            from,
        };
        match shaking.within(deadline, self.ask(request)).await {
            None => Err(timed_out(shaking, &mut offered)),
            Some(Ok(Verdict::Granted(granted))) => Ok(Admitted { offered, granted: Some(granted) }),
            Some(Ok(Verdict::Challenge(_))) => {
                Err(refuse(shaking, offered, Error::unauthenticated("one more round is needed")))
            }
            Some(Err(error)) => {
                charge(&mut trial, &error, now());
                Err(refuse(shaking, offered, error))
            }
        }
    }

    /// What the authenticator says. It is the application's: it may panic, and it may take another one for the same.
    async fn ask(&self, request: AuthRequest) -> Result<Verdict, Error> {
        let Some(authenticator) = &self.authenticator else {
            return Err(Error::unauthenticated("nobody here can tell"));
        };
        let (scheme, present) = (scheme_of(&request), request.identity.clone());
        let unable = |panic| {
            panicked(panic, "authenticator");
            Err(Error::unavailable("the credentials cannot be checked"))
        };
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| authenticator.authenticate(request)));
        let verdict = match asked {
            Ok(verdict) => AssertUnwindSafe(verdict).catch_unwind().await,
            Err(panic) => Err(panic),
        };
        let verdict = match verdict {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => return Err(error.into_refusal("the credentials cannot be checked")),
            Err(panic) => return unable(panic),
        };
        match verdict {
            Verdict::Granted(Granted { identity, .. })
                if present.is_some_and(|present| present.name() != identity.name()) =>
            {
                Err(Error::permission_denied("the credentials are another one's"))
            }
            Verdict::Granted(Granted { identity, lifetime }) => {
                Ok(Granted { identity: identity.known_by(&scheme), lifetime }.into())
            }
            challenge => Ok(challenge),
        }
    }
}

fn scheme_of(request: &AuthRequest) -> String {
    request.auth().map_or(NO_SCHEME, Auth::scheme).to_owned()
}

/// Who could not show who he is has one try less. That the authenticator does not work is not his fault.
fn charge(trial: &mut Trial, error: &Error, now: std::time::Instant) {
    if matches!(error.code, Code::UNAUTHENTICATED | Code::PERMISSION_DENIED) {
        trial.fail(now);
    }
}

fn too_many(wait: Duration) -> Error {
    // Rounded up: who comes at that time is welcome.
    let ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    Error::resource_exhausted("too many handshakes have failed").with_retry_after_ms(ms)
}

fn refuse<R: Runtime>(shaking: &mut Shaking<R>, offered: Box<Offered>, error: Error) -> ConnectionError {
    let now = shaking.clock().now();
    offered.refuse(now, error.clone(), &mut shaking.out);
    ConnectionError::ClosedLocally(Some(error))
}

fn timed_out<R: Runtime>(shaking: &mut Shaking<R>, offered: &mut Offered) -> ConnectionError {
    let now = shaking.clock().now();
    let timed_out = offered.handle_timeout(now, &mut shaking.out);
    timed_out.err().unwrap_or(ConnectionError::TimedOut(Timeout::Handshake))
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("authenticator", &self.authenticator).finish_non_exhaustive()
    }
}
