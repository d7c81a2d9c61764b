//! Credentials (§6.11).

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::fmt;

use minicbor::{Encoder, encode};
use zeroize::Zeroizing;

use super::error::HelloError;
use super::secret::is_same;
use crate::message::{Item, Payload};

/// The names of the schemes.
mod scheme {
    pub(super) const BEARER: &str = "bearer";
    pub(super) const API_KEY: &str = "api-key";
    pub(super) const CREDENTIALS: &str = "credentials";
    pub(super) const CUSTOM: &str = "custom";
}

/// Credentials: by what an initiator wants to be let in (§6.11).
///
/// They are wiped from memory when they are dropped, compared in constant time, and shown by their scheme alone.
#[derive(Clone)]
pub struct Auth(Kind);

#[derive(Clone)]
enum Kind {
    Bearer(Zeroizing<String>),
    ApiKey(Zeroizing<String>),
    Credentials { username: Zeroizing<String>, password: Zeroizing<String> },
    Custom { name: String, data: Zeroizing<Vec<u8>> },
    Other { scheme: String },
}

/// What some credentials are.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum AuthKind<'a> {
    /// A token that lets in whoever has it, such as one of OAuth 2.
    Bearer(&'a str),
    /// The key of an application.
    ApiKey(&'a str),
    /// Name and password.
    Credentials {
        /// Whom they name.
        username: &'a str,
        /// What only that one knows.
        password: &'a str,
    },
    /// A scheme of the application's own.
    Custom {
        /// What the scheme is called.
        name: &'a str,
        /// What the scheme calls for.
        data: Item<'a>,
    },
    /// A scheme that this version does not know. Whoever needs credentials refuses it (§6.11).
    Other {
        /// What the scheme is called.
        scheme: &'a str,
    },
}

impl Auth {
    /// A token that lets in whoever has it.
    #[must_use]
    pub fn bearer(token: impl Into<String>) -> Self {
        Self(Kind::Bearer(Zeroizing::new(token.into())))
    }

    /// The key of an application.
    #[must_use]
    pub fn api_key(key: impl Into<String>) -> Self {
        Self(Kind::ApiKey(Zeroizing::new(key.into())))
    }

    /// Name and password.
    #[must_use]
    pub fn credentials(username: impl Into<String>, password: impl Into<String>) -> Self {
        let (username, password) = (Zeroizing::new(username.into()), Zeroizing::new(password.into()));
        Self(Kind::Credentials { username, password })
    }

    /// A scheme of the application's own. Where the responder wants more than one round of it, the next one is asked for
    /// with a challenge (§6.10).
    #[must_use]
    pub fn custom(name: impl Into<String>, data: Payload) -> Self {
        Self(Kind::Custom { name: name.into(), data: Zeroizing::new(data.as_bytes().into()) })
    }

    /// What they are.
    #[must_use]
    pub fn kind(&self) -> AuthKind<'_> {
        match &self.0 {
            Kind::Bearer(token) => AuthKind::Bearer(token),
            Kind::ApiKey(key) => AuthKind::ApiKey(key),
            Kind::Credentials { username, password } => AuthKind::Credentials { username, password },
            Kind::Custom { name, data } => AuthKind::Custom { name, data: Item::trusted(data) },
            Kind::Other { scheme } => AuthKind::Other { scheme },
        }
    }

    /// The name of their scheme.
    #[must_use]
    pub fn scheme(&self) -> &str {
        match &self.0 {
            Kind::Bearer(_) => scheme::BEARER,
            Kind::ApiKey(_) => scheme::API_KEY,
            Kind::Credentials { .. } => scheme::CREDENTIALS,
            Kind::Custom { .. } => scheme::CUSTOM,
            Kind::Other { scheme } => scheme,
        }
    }

    /// As a payload of its own, for `control auth` (§8.5).
    pub(crate) fn to_payload(&self) -> Payload {
        Payload::build(|out| self.encode(out))
    }

    pub(super) fn encode(&self, out: &mut Encoder<&mut Vec<u8>>) -> Result<(), encode::Error<Infallible>> {
        let pairs = match &self.0 {
            Kind::Other { .. } => 1,
            Kind::Bearer(_) | Kind::ApiKey(_) => 2,
            Kind::Credentials { .. } | Kind::Custom { .. } => 3,
        };
        out.map(pairs)?.str("scheme")?.str(self.scheme())?;
        match &self.0 {
            Kind::Bearer(token) => out.str("token")?.str(token)?.ok(),
            Kind::ApiKey(key) => out.str("key")?.str(key)?.ok(),
            Kind::Credentials { username, password } => {
                out.str("username")?.str(username)?.str("password")?.str(password)?.ok()
            }
            Kind::Custom { name, data } => {
                out.str("name")?.str(name)?.str("data")?;
                out.writer_mut().extend_from_slice(data);
                Ok(())
            }
            Kind::Other { .. } => Ok(()),
        }
    }

    /// Reads an `auth` map. Of a scheme that is not known whatever else it holds is its own affair (§6.11).
    pub(crate) fn decode(item: Item<'_>) -> Result<Self, HelloError> {
        let find = |name: &'static str| {
            let value = item.map()?.find(|(key, _)| *key == name);
            value.map(|(_, value)| value).ok_or(HelloError::Missing(name))
        };
        let text = |name: &'static str| find(name)?.as_str().ok_or(HelloError::Invalid(name));
        Ok(match text("scheme")? {
            scheme::BEARER => Self::bearer(text("token")?),
            scheme::API_KEY => Self::api_key(text("key")?),
            scheme::CREDENTIALS => Self::credentials(text("username")?, text("password")?),
            scheme::CUSTOM => {
                let data = Zeroizing::new(find("data")?.as_bytes().into());
                Self(Kind::Custom { name: text("name")?.into(), data })
            }
            scheme => Self(Kind::Other { scheme: scheme.into() }),
        })
    }

    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.0, Kind::Custom { .. })
    }
}

/// In constant time, as far as secrets are concerned.
impl PartialEq for Auth {
    fn eq(&self, other: &Self) -> bool {
        match (self.kind(), other.kind()) {
            (AuthKind::Bearer(a), AuthKind::Bearer(b)) | (AuthKind::ApiKey(a), AuthKind::ApiKey(b)) => {
                is_same(a.as_bytes(), b.as_bytes())
            }
            (
                AuthKind::Credentials { username: a, password },
                AuthKind::Credentials { username: b, password: other },
            ) => is_same(a.as_bytes(), b.as_bytes()) & is_same(password.as_bytes(), other.as_bytes()),
            (AuthKind::Custom { name: a, data }, AuthKind::Custom { name: b, data: other }) => {
                a == b && is_same(data.as_bytes(), other.as_bytes())
            }
            (AuthKind::Other { scheme: a }, AuthKind::Other { scheme: b }) => a == b,
            _ => false,
        }
    }
}

impl Eq for Auth {}

/// Shows the scheme alone.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth({:?})", self.scheme())
    }
}

/// Shows the scheme alone.
impl fmt::Debug for AuthKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer",
            Self::ApiKey(_) => "ApiKey",
            Self::Credentials { .. } => "Credentials",
            Self::Custom { .. } => "Custom",
            Self::Other { .. } => "Other",
        })
    }
}
