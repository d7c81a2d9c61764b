//! What a server asks of those who come (§6.11, §17.4).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::{Ask, Auth, Code, Config, ConnectionError, Error, Grant, Offered, Timeout};
use futures_util::FutureExt;

use super::authenticator::{Arrival, AuthRequest, Authenticator, Granted, Verdict};
use super::budget::{Budget, Trial};
use super::identity::{Identity, NO_SCHEME, PSK};
use super::keys::Keys;
use super::renewal::Renewer;
use crate::accept::Shaking;
use crate::handler::panicked;
use crate::runtime::Runtime;

/// What a server asks of those who come. All clones ask the same.
#[derive(Clone, Default)]
pub(crate) struct Door {
    authenticator: Option<Arc<dyn Authenticator>>,
    pub(crate) keys: Keys,
    budget: Budget,
    /// How long a verdict may take within a session.
    time: Duration,
}

/// What is known of the session that is to go on.
pub(crate) struct Present {
    /// Whose it is.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The name of the key that it was begun with.
    pub(crate) psk: Option<String>,
    /// Its credentials have run out.
    pub(crate) has_run_out: bool,
}

/// An offer that may be accepted, and from whom it is.
pub(crate) struct Admitted {
    pub(crate) offered: Box<Offered>,
    /// As whom; `None` where nobody was asked.
    pub(crate) granted: Option<Granted>,
    /// The name of the key that it has shown to hold.
    pub(crate) psk: Option<String>,
    /// Decides on credentials that are renewed.
    pub(crate) renewer: Option<Renewer>,
}

impl Admitted {
    /// What the initiator is let in with.
    pub(crate) fn grant(&self) -> Option<Grant> {
        self.granted.as_ref().map(|granted| Grant { auth_expires: granted.lifetime })
    }
}

impl Door {
    pub(crate) fn set_authenticator(&mut self, authenticator: impl Authenticator) {
        self.authenticator = Some(Arc::new(authenticator));
    }

    pub(crate) fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn time(&self) -> Duration {
        self.time
    }

    /// Sees to it that connections have what is asked for here.
    pub(crate) fn configure(&mut self, config: &mut Config) {
        config.authenticates = self.authenticator.is_some();
        self.time = config.handshake_timeout;
    }

    fn renewer(&self, from: &Arc<Arrival>, psk: Option<String>) -> Option<Renewer> {
        self.authenticator.is_some().then(|| Renewer::new(self.clone(), from.clone(), psk))
    }

    /// Whether an offer may be of whom the session belongs to that it asks for: who comes with another key, or without the
    /// one that was there at the beginning, is another one (§6.12).
    pub(crate) fn may_be(&self, offered: &Offered, present: &Present) -> bool {
        let psk = offered.offer().psk.as_deref().filter(|_| !self.keys.is_empty());
        present.psk.as_deref() == psk
    }

    /// Decides on an offer, of a session that goes on where that is `present`. On an error the initiator was told why.
    pub(crate) async fn admit<R: Runtime>(
        &self,
        shaking: &mut Shaking<R>,
        offered: Box<Offered>,
        present: Option<Present>,
    ) -> Result<Admitted, ConnectionError> {
        let has_to_show = self.authenticator.is_some() && !stands_for_itself(&offered, present.as_ref());
        let from = Arrival::of(shaking.link(), offered.offer().agent.clone());
        if !has_to_show && self.keys.is_empty() {
            let renewer = self.renewer(&from, None);
            return Ok(Admitted { offered, granted: None, psk: None, renewer });
        }
        let clock = shaking.clock().clone();
        let now = || clock.to_runtime(clock.now());
        let admitted = self.budget.admit(from.source.as_deref(), now);
        let mut trial = match shaking.within(offered.deadline(), admitted).await {
            Some(Ok(trial)) => trial,
            Some(Err(wait)) => return Err(refuse(shaking, offered, too_many(wait)).await),
            None => return Err(timed_out(shaking, offered).await),
        };
        self.judge(shaking, offered, present, from, &mut trial).await
    }

    async fn judge<R: Runtime>(
        &self,
        shaking: &mut Shaking<R>,
        mut offered: Box<Offered>,
        present: Option<Present>,
        from: Arc<Arrival>,
        trial: &mut Trial,
    ) -> Result<Admitted, ConnectionError> {
        // Ahead of the credentials: who does not hold the key learns nothing of them.
        let psk = match offered.offer().psk.clone().filter(|_| !self.keys.is_empty()) {
            Some(name) => {
                let ask = Ask { psk: Some(self.keys.find(&name)), challenge: None };
                offered = round(shaking, offered, trial, ask).await?;
                Some(name)
            }
            None if self.keys.are_required() => {
                let error = Error::unauthenticated("a pre-shared key is needed");
                return Err(reject(shaking, offered, trial, error).await);
            }
            None => None,
        };
        let renewer = self.renewer(&from, psk.clone());
        if stands_for_itself(&offered, present.as_ref()) {
            return Ok(Admitted { offered, granted: None, psk, renewer });
        }
        if self.authenticator.is_none() {
            let by_key = |name| Granted::new(Identity::new(name).known_by(PSK));
            return Ok(Admitted { offered, granted: psk.clone().map(by_key), psk, renewer });
        }
        if offered.auth().is_none() && offered.offer().resume.is_some() {
            if present.is_none() {
                // It has held its credentials back for a session that there is not (§9.9).
                let error = Error::session_unknown("the session is not known");
                return Err(refuse(shaking, offered, error).await);
            }
            offered = round(shaking, offered, trial, Ask::default()).await?;
        }
        let identity = present.and_then(|present| present.identity);
        let mut challenge = None;
        loop {
            let auth = offered.auth().cloned();
            let (identity, from) = (identity.clone(), from.clone());
            let request = AuthRequest { auth, challenge: challenge.take(), identity, psk: psk.clone(), from };
            match shaking.within(offered.deadline(), self.ask(request)).await {
                None => return Err(timed_out(shaking, offered).await),
                Some(Ok(Verdict::Granted(granted))) => {
                    return Ok(Admitted { offered, granted: Some(granted), psk, renewer });
                }
                Some(Ok(Verdict::Challenge(payload))) => {
                    challenge = Some(payload.clone());
                    let ask = Ask { psk: None, challenge: Some(payload) };
                    offered = round(shaking, offered, trial, ask).await?;
                }
                Some(Err(error)) => return Err(reject(shaking, offered, trial, error).await),
            }
        }
    }

    /// What the authenticator says. It is the application's: it may panic, and it may take another one for the same.
    pub(super) async fn ask(&self, request: AuthRequest) -> Result<Verdict, Error> {
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
    // What it is called is the peer's word: that it holds a key is not for credentials to say.
    request.auth().map(Auth::scheme).filter(|scheme| *scheme != PSK).unwrap_or(NO_SCHEME).to_owned()
}

/// Whether an offer needs no credentials, since it has proven that a session is its own whose credentials last (§9.5).
fn stands_for_itself(offered: &Offered, present: Option<&Present>) -> bool {
    offered.auth().is_none() && present.is_some_and(|present| !present.has_run_out)
}

/// Whether somebody could not show who he is. That the authenticator does not work, or does not know in time, is not his
/// fault.
fn is_failure(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::Psk(_) => true,
        ConnectionError::ClosedLocally(Some(error)) => is_failure_code(error.code),
        _ => false,
    }
}

pub(super) fn is_failure_code(code: Code) -> bool {
    matches!(code, Code::UNAUTHENTICATED | Code::PERMISSION_DENIED)
}

pub(super) fn too_many(wait: Duration) -> Error {
    // Rounded up: who comes at that time is welcome.
    let ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    Error::resource_exhausted("too many handshakes have failed").with_retry_after_ms(ms)
}

/// Asks for one more proof, and waits for it.
async fn round<R: Runtime>(
    shaking: &mut Shaking<R>,
    offered: Box<Offered>,
    trial: &mut Trial,
    ask: Ask,
) -> Result<Box<Offered>, ConnectionError> {
    let now = shaking.clock().now();
    let heard = match offered.ask(now, ask, &mut shaking.out) {
        Ok(proving) => shaking.hear(proving).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &heard {
        note(shaking, trial, error);
        shaking.farewell().await;
    }
    heard
}

/// Counts what may be a failure. Before it is told: who is cut off while it hears of it, as for want of room, has failed all
/// the same.
fn note<R: Runtime>(shaking: &Shaking<R>, trial: &mut Trial, error: &ConnectionError) {
    if is_failure(error) {
        let clock = shaking.clock();
        trial.fail(clock.to_runtime(clock.now()));
    }
}

/// As [`refuse`], for what counts as a failure where its code says so.
async fn reject<R: Runtime>(
    shaking: &mut Shaking<R>,
    offered: Box<Offered>,
    trial: &mut Trial,
    error: Error,
) -> ConnectionError {
    note(shaking, trial, &ConnectionError::ClosedLocally(Some(error.clone())));
    refuse(shaking, offered, error).await
}

async fn refuse<R: Runtime>(
    shaking: &mut Shaking<R>,
    offered: Box<Offered>,
    error: Error,
) -> ConnectionError {
    let now = shaking.clock().now();
    offered.refuse(now, error.clone(), &mut shaking.out);
    shaking.farewell().await;
    ConnectionError::ClosedLocally(Some(error))
}

async fn timed_out<R: Runtime>(shaking: &mut Shaking<R>, mut offered: Box<Offered>) -> ConnectionError {
    let now = shaking.clock().now();
    let timed_out = offered.handle_timeout(now, &mut shaking.out);
    shaking.farewell().await;
    timed_out.err().unwrap_or(ConnectionError::TimedOut(Timeout::Handshake))
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("authenticator", &self.authenticator)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
