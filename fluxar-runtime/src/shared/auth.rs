//! Credentials, in what handles and driver of a connection share.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fluxar_proto::{Auth, AuthError, Code, ConnectionError, Error, Id, Instant, Payload};

use super::{Chores, Shared, State, register};

/// What becomes of fresh credentials.
type Renewed = Result<Option<Duration>, Error>;

/// What the peer asks this side to show, and what this side shows.
#[derive(Default)]
pub(super) struct Asked {
    /// On which link, and what it calls for.
    challenge: Option<(u64, Payload)>,
    /// The link goes to where a server has sent us, and not the application: nothing is shown there (§8.6).
    is_stranger: bool,
    /// Whoever serves all that.
    servant: Option<Waker>,
    /// Renewals that are under way, and what became of them.
    renewals: Vec<(Id, Option<Renewed>)>,
}

/// What a client may have to do about its credentials.
pub(crate) struct WantedAuth {
    /// On which link it was asked for, and what it calls for.
    pub(crate) challenge: Option<(u64, Payload)>,
    /// Whether the one who asks may be shown anything.
    pub(crate) may_show: bool,
    /// When the credentials run out.
    pub(crate) expires: Option<Instant>,
    /// Whether there is a session over a link, in which they can be renewed.
    pub(crate) stands: bool,
}

impl Shared {
    /// What there is to do now; the task is woken when that may have changed. `None` once the connection has ended.
    pub(crate) fn poll_wanted_auth(&self, cx: &mut Context<'_>) -> Option<WantedAuth> {
        let mut state = self.lock();
        if state.connection.error().is_some() {
            return None;
        }
        let replaced = register(&mut state.asked.servant, cx);
        state.discard(replaced);
        Some(WantedAuth {
            challenge: state.asked.challenge.take(),
            may_show: !state.asked.is_stranger,
            expires: state.connection.auth_expires(),
            stands: !state.connection.is_detached() && !state.connection.is_handshaking(),
        })
    }

    /// Answers the challenge that came on a link, which may be gone.
    pub(crate) fn prove(&self, link: u64, auth: Option<Auth>) -> Result<(), ConnectionError> {
        let now = self.clock().now();
        self.operate(|state| match state.connection.link() == link {
            true => state.connection.prove(now, auth).map(drop),
            false => Ok(()),
        })
    }

    /// Renews this side's credentials; how long the new ones last.
    pub(crate) async fn authenticate(&self, auth: Auth) -> Renewed {
        /// Nobody waits for it any more.
        struct Forget<'a>(&'a Shared, Id);
        impl Drop for Forget<'_> {
            fn drop(&mut self) {
                self.0.lock().asked.renewals.retain(|(id, _)| *id != self.1);
            }
        }
        let now = self.clock().now();
        let id = self.operate(|state| {
            // Looked at here: whoever has fetched them may have done so for the link before.
            if state.asked.is_stranger && state.connection.error().is_none() {
                let error = Error::new(Code::FAILED_PRECONDITION, "credentials do not follow a redirection");
                return Err(error.with_processed(false));
            }
            let id = state.connection.authenticate(now, auth).map_err(|error| state.auth_error(error))?;
            state.asked.renewals.push((id, None));
            Ok(id)
        });
        let id = id.map_err(Error::into_outcome)?;
        let _forget = Forget(self, id);
        self.watch(|state| {
            let renewal = state.asked.renewals.iter_mut().find(|(renewal, _)| *renewal == id);
            let ended = state.connection.error().map(|error| Err(error.call_error(true)));
            renewal.and_then(|(_, renewed)| renewed.take()).or(ended)
        })
        .await
        .map_err(Error::into_outcome)
    }

    /// Says what becomes of the peer's fresh credentials.
    pub(crate) fn answer_auth(&self, id: Id, verdict: Renewed) {
        // `Gone` where its link is.
        self.operate(|state| state.connection.answer_auth(id, verdict)).ok();
    }

    /// `future`'s output; `None` where the connection has ended before.
    pub(crate) async fn while_open<F: Future>(&self, future: F) -> Option<F::Output> {
        let (mut future, mut ended) = (pin!(future), pin!(self.ended()));
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => ended.as_mut().poll(cx).map(|_| None),
        })
        .await
    }
}

impl State {
    /// Whether the next link goes to where a server has sent us, and not the application.
    pub(super) fn meet(&mut self, is_stranger: bool) {
        self.asked.is_stranger = is_stranger;
    }

    pub(super) fn handle_challenge(&mut self, challenge: Payload, chores: &mut Chores) {
        self.asked.challenge = Some((self.connection.link(), challenge));
        self.call_servant(chores);
    }

    /// What became of fresh credentials of this side's.
    pub(super) fn handle_authenticated(&mut self, id: Id, result: Renewed, chores: &mut Chores) {
        if let Some((_, renewed)) = self.asked.renewals.iter_mut().find(|(renewal, _)| *renewal == id) {
            *renewed = Some(result);
        }
        self.watchers.call_all(&mut chores.wakers);
        self.call_servant(chores);
    }

    /// Something has changed that matters to credentials: what they are worth, or whether they can be shown.
    pub(super) fn call_servant(&mut self, chores: &mut Chores) {
        chores.wakers.extend(self.asked.servant.take());
    }

    fn auth_error(&self, error: AuthError) -> Error {
        let code = match error {
            AuthError::Closed => return self.closed_error(),
            AuthError::NotEstablished => Code::UNAVAILABLE,
            AuthError::TooLarge => Code::MESSAGE_TOO_LARGE,
            AuthError::Busy => Code::RESOURCE_EXHAUSTED,
            _ => Code::FAILED_PRECONDITION,
        };
        Error::new(code, error.to_string()).with_processed(false)
    }
}
