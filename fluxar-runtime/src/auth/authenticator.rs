//! Who decides who is let in.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::{Auth, Payload};

use super::Identity;
use crate::handler::HandlerError;
use crate::runtime::Link;

/// What an [`Authenticator`] gives.
pub type AuthFuture<'a> = Pin<Box<dyn Future<Output = Result<Verdict, HandlerError>> + Send + 'a>>;

/// Decides who is let in, and as whom: for [`ServerBuilder::authenticator`](crate::ServerBuilder::authenticator).
///
/// It is asked for each handshake before anything is done for the peer, and its verdict must come within the
/// [time of the handshake](crate::Config::handshake_timeout) (§6.9). It is asked again when credentials are renewed (§8.5):
/// then [`AuthRequest::identity`] says who the peer is by now, and a verdict for another one is not accepted. Secrets
/// must be compared in constant time, as `==` of [`Auth`] does (§17.4); [`Accounts`](crate::Accounts) is an authenticator
/// for a few that are known from the start.
///
/// An error refuses: [`Error::unauthenticated`](crate::Error::unauthenticated) where the credentials are missing or wrong,
/// without saying what is wrong about them, [`Error::permission_denied`](crate::Error::permission_denied) where the peer
/// is known and not allowed in. The peer gets it as it is. Of any other error it learns no more than `unavailable`.
///
/// Closures that take an [`AuthRequest`] are authenticators:
///
/// ```
/// use fluxar_runtime::{Auth, AuthRequest, Error, Granted, HandlerError, Identity, Runtime, Server, ServerBuilder};
/// use std::time::Duration;
///
/// /// Asks whoever has issued the tokens.
/// async fn introspect(token: &Auth) -> Result<Option<String>, std::io::Error> {
///     # let _ = token;
///     Ok(Some("ada".into()))
/// }
///
/// fn doc<R: Runtime + Default>() -> ServerBuilder<R> {
///     Server::<R>::bind("tcp://127.0.0.1:7777").authenticator(|request: AuthRequest| async move {
///         let Some(token) = request.auth() else {
///             return Err(HandlerError::from(Error::unauthenticated("a token is needed")));
///         };
///         match introspect(token).await? {
///             Some(name) => Ok(Granted::new(Identity::new(name)).expires_in(Duration::from_secs(3600))),
///             None => Err(Error::unauthenticated("the token is not valid").into()),
///         }
///     })
/// }
/// ```
pub trait Authenticator: Send + Sync + 'static {
    /// Decides. The future is dropped where it stands when the time of the handshake is over, or the server stops.
    fn authenticate(&self, request: AuthRequest) -> AuthFuture<'_>;
}

impl<F, Fut, V> Authenticator for F
where
    F: Fn(AuthRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<V, HandlerError>> + Send + 'static,
    V: Into<Verdict>,
{
    fn authenticate(&self, request: AuthRequest) -> AuthFuture<'_> {
        let verdict = self(request);
        Box::pin(async move { verdict.await.map(V::into) })
    }
}

/// What an [`Authenticator`] says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The peer is let in.
    Granted(Granted),
    /// A custom scheme wants one more round: the peer gets this, and answers it with credentials of scheme `custom`
    /// (§6.11). There are 4 rounds at most, and none when credentials are renewed.
    Challenge(Payload),
}

/// A peer is let in.
#[derive(Clone, Debug)]
pub struct Granted {
    pub(crate) identity: Identity,
    pub(crate) lifetime: Option<Duration>,
}

impl Granted {
    /// As this one, without end.
    pub fn new(identity: Identity) -> Self {
        Self { identity, lifetime: None }
    }

    /// For so long: then the credentials must be renewed (§8.5), or what the peer opens is refused.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// As whom.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl From<Identity> for Granted {
    fn from(identity: Identity) -> Self {
        Self::new(identity)
    }
}

impl From<Granted> for Verdict {
    fn from(granted: Granted) -> Self {
        Self::Granted(granted)
    }
}

impl From<Identity> for Verdict {
    fn from(identity: Identity) -> Self {
        Granted::new(identity).into()
    }
}

/// A peer that wants to be let in, or to stay.
#[derive(Clone, Debug)]
pub struct AuthRequest {
    pub(crate) auth: Option<Auth>,
    pub(crate) challenge: Option<Payload>,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) psk: Option<String>,
    pub(crate) from: Arc<Arrival>,
}

/// Where a link comes from.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) remote: String,
    pub(crate) source: Option<String>,
    pub(crate) confidential: bool,
    pub(crate) agent: Option<String>,
}

impl Arrival {
    pub(crate) fn of(link: &impl Link, agent: Option<String>) -> Arc<Self> {
        let (remote, source, confidential) = (link.remote(), link.source(), link.is_confidential());
        Arc::new(Self { remote, source, confidential, agent })
    }
}

impl AuthRequest {
    /// The credentials, where it has sent some.
    pub fn auth(&self) -> Option<&Auth> {
        self.auth.as_ref()
    }

    /// What this authenticator has asked for in the round before, where there was one.
    pub fn challenge(&self) -> Option<&Payload> {
        self.challenge.as_ref()
    }

    /// Who it is by now, where it wants to stay: credentials are renewed, or brought along when the session goes on over a
    /// new link.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    /// The name of the pre-shared key that it has shown to hold.
    pub fn psk(&self) -> Option<&str> {
        self.psk.as_deref()
    }

    /// Where it is, for people to read.
    pub fn remote(&self) -> &str {
        &self.from.remote
    }

    /// By what its failures are counted: see [`Link::source`](crate::Link::source).
    pub fn source(&self) -> Option<&str> {
        self.from.source.as_deref()
    }

    /// Whether nobody else can read what is sent: see [`Link::is_confidential`](crate::Link::is_confidential).
    pub fn is_confidential(&self) -> bool {
        self.from.confidential
    }

    /// What it calls itself; nothing should depend on it.
    pub fn agent(&self) -> Option<&str> {
        self.from.agent.as_deref()
    }
}

/// Says nothing of what it lets in.
impl fmt::Debug for dyn Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}
