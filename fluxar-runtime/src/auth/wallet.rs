//! What a client shows of itself (§6.11, §6.12, §8.5).

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fluxar_proto::{Auth, Dial, Error, Payload, Psk};
use futures_util::FutureExt;

use super::renewal::Plan;
use crate::address::Address;
use crate::handler::{HandlerError, panicked};
use crate::shared::Shared;
use crate::tasks::{Alarm, Tasks};

/// What [`Credentials`] give.
pub type CredentialsFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Auth>, HandlerError>> + Send + 'a>>;

/// Gives a client its credentials when they are needed: for
/// [`ClientBuilder::credentials`](crate::ClientBuilder::credentials).
///
/// It is asked before each attempt to connect, for an answer to each challenge of a custom scheme, and in time before
/// credentials run out; each time it has as long as a [handshake](crate::Config::handshake_timeout). An answer of `None` means that there are none. An error fails the attempt; a renewal is tried
/// again until it succeeds. Closures that take a [`Wanted`] will do, and so does an [`Auth`], which is always the same.
///
/// ```
/// use fluxar_runtime::{Auth, Client, ClientBuilder, HandlerError, Runtime, Wanted};
///
/// /// Asks whoever issues tokens.
/// async fn fresh_token() -> Result<String, std::io::Error> {
///     Ok("t0ken".into())
/// }
///
/// fn doc<R: Runtime + Default>() -> ClientBuilder<R> {
///     Client::<R>::connect("tcp://127.0.0.1:7777")
///         .credentials(|_: Wanted| async { Ok::<_, HandlerError>(Auth::bearer(fresh_token().await?)) })
/// }
/// ```
pub trait Credentials: Send + Sync + 'static {
    /// Gives the credentials. The future is dropped where it stands when they are of no use any more.
    fn credentials(&self, wanted: Wanted) -> CredentialsFuture<'_>;
}

impl<F, Fut, A> Credentials for F
where
    F: Fn(Wanted) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<A, HandlerError>> + Send + 'static,
    A: Into<Option<Auth>>,
{
    fn credentials(&self, wanted: Wanted) -> CredentialsFuture<'_> {
        let credentials = self(wanted);
        Box::pin(async move { credentials.await.map(A::into) })
    }
}

/// The same each time. It has no answer to a challenge.
impl Credentials for Auth {
    fn credentials(&self, wanted: Wanted) -> CredentialsFuture<'_> {
        let auth = (!matches!(wanted, Wanted::Challenge(_))).then(|| self.clone());
        Box::pin(std::future::ready(Ok(auth)))
    }
}

/// What credentials are wanted for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Wanted {
    /// To connect to this address, which is one of those that the application has named.
    Connect(Address),
    /// To answer this challenge of a custom scheme (§6.11), in the middle of a handshake.
    Challenge(Payload),
    /// To stay connected: those that are in use run out soon, or have run out.
    Renewal,
}

/// What a client shows of itself. All clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Wallet {
    credentials: Option<Arc<dyn Credentials>>,
    psk: Option<Psk>,
    /// How long the application may take.
    time: Duration,
}

impl Wallet {
    pub(crate) fn set_credentials(&mut self, credentials: impl Credentials) {
        self.credentials = Some(Arc::new(credentials));
    }

    pub(crate) fn set_psk(&mut self, psk: Psk) {
        self.psk = Some(psk);
    }

    pub(crate) fn set_time(&mut self, time: Duration) {
        self.time = time;
    }

    /// What to go by at `address`, on a link that is not confidential until somebody says so. Where the application has not
    /// named the address there are no credentials for it (§17.4); a pre-shared key is not given away by its proof.
    pub(crate) async fn dial(&self, tasks: &Tasks, address: &Address, is_own: bool) -> Result<Dial, Error> {
        let mut dial = Dial { psk: self.psk.clone(), ..Dial::default() };
        if !is_own {
            return Ok(dial);
        }
        dial.auth = self.ask(tasks, Wanted::Connect(address.clone())).await?;
        Ok(dial)
    }

    /// Asks the application, which may panic, and may take for ever.
    async fn ask(&self, tasks: &Tasks, wanted: Wanted) -> Result<Option<Auth>, Error> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| credentials.credentials(wanted)));
        let given = match asked {
            Ok(given) => tasks.within(self.time, AssertUnwindSafe(given).catch_unwind()).await,
            Err(panic) => Some(Err(panic)),
        };
        match given.ok_or_else(|| Error::deadline_exceeded("the credentials were not there in time"))? {
            Ok(given) => given.map_err(|error| error.into_refusal("there are no credentials")),
            Err(panic) => Err(panicked(panic, "the credentials")),
        }
    }

    /// Sees to it that what a server asks for is answered, to the end of the connection.
    pub(crate) fn attend(&self, shared: &Arc<Shared>) {
        if self.credentials.is_none() {
            return;
        }
        let (wallet, shared) = (self.clone(), shared.clone());
        shared.tasks().clone().spawn(async move { wallet.serve(&shared).await });
    }

    async fn serve(&self, shared: &Shared) {
        let mut plan = Plan::default();
        let mut alarm = shared.tasks().alarm();
        while let Some(need) = poll_fn(|cx| poll_need(cx, shared, &mut plan, &mut alarm)).await {
            let served = async {
                match need {
                    Need::Challenge { link, challenge } => self.answer(shared, link, challenge).await,
                    Need::Renewal => self.renew(shared, &mut plan).await,
                }
            };
            if shared.while_open(served).await.is_none() {
                return;
            }
        }
    }

    /// Answers a challenge, in any case: the server decides what no answer is worth.
    async fn answer(&self, shared: &Shared, link: u64, challenge: Option<Payload>) {
        let auth = match challenge {
            Some(challenge) => self.ask(shared.tasks(), Wanted::Challenge(challenge)).await,
            None => Ok(None),
        };
        let auth = auth.unwrap_or_else(|error| {
            tracing::warn!(%error, "there is no answer to a challenge");
            None
        });
        if let Err(error) = shared.prove(link, auth) {
            tracing::warn!(%error, "the answer to a challenge was not sent");
        }
    }

    /// Renews the credentials, or sees when to try again.
    async fn renew(&self, shared: &Shared, plan: &mut Plan) {
        let renewed = match self.ask(shared.tasks(), Wanted::Renewal).await {
            Ok(Some(auth)) => shared.authenticate(auth).await,
            Ok(None) => {
                tracing::warn!("there are no fresh credentials");
                return plan.give_up();
            }
            Err(error) => Err(error),
        };
        match renewed {
            Ok(lifetime) => {
                tracing::debug!(?lifetime, "the credentials are renewed");
                plan.done();
            }
            Err(error) if plan.failed(shared.clock().now()) => {
                tracing::warn!(%error, "the credentials are not renewed");
            }
            Err(error) => tracing::error!(%error, "the credentials have run out"),
        }
    }
}

/// What a server asks for.
enum Need {
    /// An answer to what it calls for; where that is none, nothing is shown to the one who asks.
    Challenge {
        link: u64,
        challenge: Option<Payload>,
    },
    Renewal,
}

/// The next that is asked for; `None` once the connection has ended.
fn poll_need(
    cx: &mut Context<'_>,
    shared: &Shared,
    plan: &mut Plan,
    alarm: &mut Alarm,
) -> Poll<Option<Need>> {
    // Registered before anybody looks, so that nothing is missed.
    let Some(wanted) = shared.poll_wanted_auth(cx) else { return Poll::Ready(None) };
    if let Some((link, challenge)) = wanted.challenge {
        let challenge = Some(challenge).filter(|_| wanted.may_show);
        return Poll::Ready(Some(Need::Challenge { link, challenge }));
    }
    let due = plan.due(shared.clock().now(), wanted.expires).filter(|_| wanted.stands && wanted.may_show);
    match due {
        Some(at) => alarm.poll(cx, shared.clock().to_runtime(at)).map(|()| Some(Need::Renewal)),
        None => Poll::Pending,
    }
}

/// Without secrets.
impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("psk", &self.psk).finish_non_exhaustive()
    }
}
