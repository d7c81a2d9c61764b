//! Credentials that are known from the start.

use std::fmt;

use fluxar_proto::{Auth, AuthKind, Error};

use super::authenticator::{AuthFuture, AuthRequest, Authenticator, Granted};

/// An [`Authenticator`] for a few credentials that are known from the start, as from a configuration file: tokens, keys,
/// names with passwords.
///
/// It compares what comes with all that it knows, each time, in constant time: how long it takes says nothing about
/// which of them is close (§17.4), apart from lengths. It keeps the secrets themselves. For what people choose, or for many
/// accounts, write an authenticator of your own over a store that holds slow hashes of passwords (Argon2, scrypt).
///
/// ```
/// use fluxar_runtime::{Accounts, Identity, Runtime, Server, ServerBuilder};
///
/// fn doc<R: Runtime + Default>(token: String) -> ServerBuilder<R> {
///     let accounts = Accounts::new()
///         .bearer(token, Identity::new("ada").with_attribute("role", "admin"))
///         .password("bob", "correct horse battery staple", Identity::new("bob"));
///     Server::<R>::bind("tcp://127.0.0.1:7777").authenticator(accounts)
/// }
/// ```
#[derive(Clone, Default)]
pub struct Accounts {
    known: Vec<(Auth, Granted)>,
}

impl Accounts {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets in whoever has a token. [`Granted`] in the place of an [`Identity`](crate::Identity) says for how long.
    #[must_use]
    pub fn bearer(self, token: impl Into<String>, granted: impl Into<Granted>) -> Self {
        self.with(Auth::bearer(token), granted.into())
    }

    /// Lets in whoever has an API key.
    #[must_use]
    pub fn api_key(self, key: impl Into<String>, granted: impl Into<Granted>) -> Self {
        self.with(Auth::api_key(key), granted.into())
    }

    /// Lets in whoever has a name's password.
    #[must_use]
    pub fn password(
        self,
        username: impl Into<String>,
        password: impl Into<String>,
        granted: impl Into<Granted>,
    ) -> Self {
        self.with(Auth::credentials(username, password), granted.into())
    }

    fn with(mut self, auth: Auth, granted: Granted) -> Self {
        self.known.push((auth, granted));
        self
    }

    fn find(&self, auth: &Auth) -> Option<&Granted> {
        let mut found = None;
        for (known, granted) in &self.known {
            // Never stops early.
            if known == auth {
                found = Some(granted);
            }
        }
        found
    }
}

impl Authenticator for Accounts {
    fn authenticate(&self, request: AuthRequest) -> AuthFuture<'_> {
        let granted = request.auth().and_then(|auth| self.find(auth)).cloned();
        let error = || match request.auth().map(Auth::kind) {
            None => Error::unauthenticated("credentials are needed"),
            Some(AuthKind::Custom { .. } | AuthKind::Other { .. }) => {
                Error::unauthenticated("the scheme is not known")
            }
            Some(_) => Error::unauthenticated("the credentials are not valid"),
        };
        let verdict = granted.map_or_else(|| Err(error().into()), |granted| Ok(granted.into()));
        Box::pin(std::future::ready(verdict))
    }
}

/// Without secrets.
impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Accounts").field(&self.known.len()).finish()
    }
}
