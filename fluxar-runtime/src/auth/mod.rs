//! Who is at the other side, and what it may do (§6.11, §17.4).

mod access;
mod accounts;
mod authenticator;
mod budget;
mod door;
mod identity;
mod keys;
mod renewal;
mod wallet;

use std::sync::{Arc, Mutex, OnceLock};

use fluxar_proto::{Auth, Error, Id};

pub use self::access::Access;
pub(crate) use self::access::Gate;
pub use self::accounts::Accounts;
pub use self::authenticator::{AuthFuture, AuthRequest, Authenticator, Granted, Verdict};
pub(crate) use self::budget::Budget;
pub(crate) use self::door::{Admitted, Door, Present};
pub use self::identity::Identity;
pub(crate) use self::renewal::Renewer;
pub(crate) use self::wallet::Wallet;
pub use self::wallet::{Credentials, CredentialsFuture, Wanted};
use crate::shared::{ForHub, Shared};

/// What is known of the peer of one session, and what it may do.
#[derive(Debug, Default)]
pub(crate) struct Known {
    identity: Mutex<Option<Arc<Identity>>>,
    /// The name of the pre-shared key that it has shown to hold when the session began, and has to on every link.
    psk: OnceLock<String>,
    /// Decides on fresh credentials, where some are asked for.
    renewer: Mutex<Option<Renewer>>,
    gate: OnceLock<Gate>,
}

impl Known {
    /// Has all that the peer does pass through `gate` from now on.
    pub(crate) fn guard(&self, gate: Gate) {
        self.gate.set(gate).ok();
    }

    /// The session begins with a peer that has shown to hold this key, if any.
    pub(crate) fn begin(&self, psk: Option<String>) {
        if let Some(psk) = psk {
            self.psk.set(psk).ok();
        }
    }

    /// With which key the session began.
    pub(crate) fn psk(&self) -> Option<String> {
        self.psk.get().cloned()
    }

    /// The peer was let in: on this link.
    pub(crate) fn admit(&self, granted: Option<Granted>, renewer: Option<Renewer>) {
        if let Some(granted) = granted {
            self.identify(granted.identity);
        }
        *self.renewer.lock().unwrap_or_else(|error| error.into_inner()) = renewer;
    }

    /// Who the peer is; `None` where nobody has asked.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.lock().unwrap_or_else(|error| error.into_inner()).clone()
    }

    /// The peer has shown who it is.
    fn identify(&self, identity: Identity) {
        let identity = Arc::new(identity);
        let before = self.identity.lock().unwrap_or_else(|error| error.into_inner()).replace(identity);
        // What it holds is the application's: it goes without the lock.
        drop(before);
    }
}

/// Has fresh credentials of the peer decided on.
pub(crate) fn renew(shared: &Arc<Shared>, id: Id, auth: Auth) {
    let renewer = shared.known().renewer.lock().unwrap_or_else(|error| error.into_inner()).clone();
    match renewer {
        Some(renewer) => renewer.renew(shared, id, auth),
        None => shared.answer_auth(id, Err(Error::unimplemented("no credentials are asked for here"))),
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
