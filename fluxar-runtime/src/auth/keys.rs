//! The pre-shared keys of a server (§6.12).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use fluxar_proto::{Psk, PskKey};

/// Looks a key up by its name.
type Find = dyn Fn(&str) -> Option<Psk> + Send + Sync;

/// Which keys there are, and whether everybody has to hold one.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    known: Vec<Psk>,
    find: Option<Arc<Find>>,
    optional: bool,
}

impl Keys {
    pub(crate) fn add(&mut self, psk: Psk) {
        self.known.push(psk);
    }

    pub(crate) fn find_by(&mut self, find: impl Fn(&str) -> Option<Psk> + Send + Sync + 'static) {
        self.find = Some(Arc::new(find));
    }

    pub(crate) fn set_optional(&mut self) {
        self.optional = true;
    }

    /// Whether there are none, so that nobody is asked for one.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.find.is_none()
    }

    /// Whether nobody is let in without one.
    pub(super) fn are_required(&self) -> bool {
        !self.is_empty() && !self.optional
    }

    /// The key of this name. Where there is none, it goes on as if there were one (§6.12).
    pub(super) fn find(&self, name: &str) -> PskKey {
        let known = self.known.iter().find(|psk| psk.id() == name);
        let found = || {
            let find = self.find.as_ref()?;
            // The application's: where it panics, there is none.
            std::panic::catch_unwind(AssertUnwindSafe(|| find(name))).unwrap_or_else(|panic| {
                crate::handler::panicked(panic, "the lookup of a pre-shared key");
                None
            })
        };
        match known {
            Some(psk) => psk.key().clone(),
            None => found().map_or_else(PskKey::unknown, |psk| psk.key().clone()),
        }
    }
}

/// Without the keys.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("known", &self.known.len())
            .field("optional", &self.optional)
            .finish_non_exhaustive()
    }
}
