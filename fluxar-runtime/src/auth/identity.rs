//! Who is at the other side.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Who a peer is, as an [`Authenticator`](crate::Authenticator) has found: [`Peer::identity`](crate::Peer::identity)
/// gives it to every handler and hook.
///
/// Two identities are the same where their names are: credentials are renewed for the same one only (§8.5).
///
/// ```
/// use fluxar_runtime::Identity;
///
/// struct Account {
///     number: u64,
/// }
///
/// let ada = Identity::new("ada").with_attribute("role", "admin").with_extension(Account { number: 7 });
/// assert_eq!((ada.name(), ada.attribute("role")), ("ada", Some("admin")));
/// assert_eq!(ada.extension::<Account>().map(|account| account.number), Some(7));
/// ```
#[derive(Clone)]
pub struct Identity {
    name: String,
    scheme: String,
    attributes: BTreeMap<String, String>,
    extension: Option<Arc<dyn Any + Send + Sync>>,
}

impl Identity {
    /// One of this name, which tells it from every other one that the same server knows.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), scheme: NO_SCHEME.into(), attributes: BTreeMap::new(), extension: None }
    }

    /// Says something about it: a role, a tenant.
    #[must_use]
    pub fn with_attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// Attaches a value of the application's, of which there is one: an account, a session.
    #[must_use]
    pub fn with_extension(mut self, value: impl Any + Send + Sync) -> Self {
        self.extension = Some(Arc::new(value));
        self
    }

    /// The same, known by this scheme.
    #[must_use]
    pub(crate) fn known_by(mut self, scheme: &str) -> Self {
        scheme.clone_into(&mut self.scheme);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it has shown who it is: `bearer`, `api-key`, `credentials`, `custom`; `psk` where a pre-shared key alone did,
    /// and then the name is that of the key; `none` where it was let in without anything.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What is said about it under `key`.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }

    /// All that is said about it, sorted by key.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value that is attached to it, where it is a `T`.
    pub fn extension<T: Any>(&self) -> Option<&T> {
        // Not the `Arc` itself, which is `Any` too.
        (**self.extension.as_ref()?).downcast_ref()
    }
}

/// The scheme of those that have shown nothing.
pub(crate) const NO_SCHEME: &str = "none";

/// The scheme of those that have shown to hold a key, and nothing else.
pub(crate) const PSK: &str = "psk";

/// Without the values of its attributes, which may not be for logs.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("scheme", &self.scheme)
            .field("attributes", &self.attributes.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
