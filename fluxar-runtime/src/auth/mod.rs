//! Who is at the other side, and what it may do (§6.11, §17.4).

mod access;
mod accounts;
mod authenticator;
mod budget;
mod door;
mod identity;
mod keys;
mod wallet;

use std::sync::{Arc, Mutex, OnceLock};

use fluxar_proto::Error;

pub use self::access::Access;
pub(crate) use self::access::Gate;
pub use self::accounts::Accounts;
pub use self::authenticator::{AuthFuture, AuthRequest, Authenticator, Granted, Verdict};
pub(crate) use self::budget::Budget;
pub(crate) use self::door::{Admitted, Door, Present};
pub use self::identity::Identity;
pub(crate) use self::wallet::Wallet;
pub use self::wallet::{Credentials, CredentialsFuture, Wanted};
use crate::shared::{ForHub, Shared};

/// What is known of the peer of one session, and what it may do.
#[derive(Debug, Default)]
pub(crate) struct Known {
    identity: Mutex<Option<Arc<Identity>>>,
    gate: OnceLock<Gate>,
}

impl Known {
    /// Has all that the peer does pass through `gate` from now on.
    pub(crate) fn guard(&self, gate: Gate) {
        self.gate.set(gate).ok();
    }

    /// Who the peer is; `None` where nobody has asked.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.lock().unwrap_or_else(|error| error.into_inner()).clone()
    }

    /// The peer has shown who it is.
    pub(crate) fn identify(&self, identity: Identity) {
        let identity = Arc::new(identity);
        let before = self.identity.lock().unwrap_or_else(|error| error.into_inner()).replace(identity);
        // What it holds is the application's: it goes without the lock.
        drop(before);
    }
}

/// What the peer is told where it may not do something.
pub(crate) fn check(shared: &Arc<Shared>, access: Access<'_>) -> Result<(), Error> {
    shared.known().gate.get().map_or(Ok(()), |gate| gate.check(shared, access))
}

/// As [`Gate::refuse`].
pub(crate) fn refuse(shared: &Arc<Shared>, todo: &mut Vec<ForHub>) -> u64 {
    shared.known().gate.get().map_or(0, |gate| gate.refuse(shared, todo))
}
