//! What a peer may do.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use fluxar_proto::Error;
use fluxar_proto::topic::{covers, matches};

use crate::peer::Peer;
use crate::shared::{ForHub, Shared};

/// What a peer is about to do: see [`authorize`](crate::ServerBuilder::authorize).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access<'a> {
    /// To call a method.
    Call(&'a str),
    /// To open a stream for a method.
    Stream(&'a str),
    /// To subscribe with a filter, which may have wildcards.
    Subscribe(&'a str),
    /// To publish on a topic.
    Publish(&'a str),
}

impl<'a> Access<'a> {
    /// The method, filter or topic.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Call(name) | Self::Stream(name) | Self::Subscribe(name) | Self::Publish(name) => name,
        }
    }

    /// Whether it goes no further than `filter` (§12.2): the method or topic matches it, or the filter to subscribe with
    /// matches nothing that `filter` does not. That is the question to ask, rather than how the name begins: who
    /// subscribes to `>` gets `secrets.keys` too.
    ///
    /// ```
    /// use fluxar_runtime::Access;
    ///
    /// assert!(Access::Call("users.get").is_within("users.*"));
    /// assert!(Access::Subscribe("orders.*").is_within("orders.>"));
    /// assert!(!Access::Subscribe(">").is_within("orders.>"));
    /// ```
    pub fn is_within(&self, filter: &str) -> bool {
        match self {
            Self::Subscribe(narrower) => covers(filter, narrower),
            Self::Call(name) | Self::Stream(name) | Self::Publish(name) => matches(filter, name),
        }
    }
}

/// What says whether a peer may do something.
type Hook = dyn Fn(&Peer, Access<'_>) -> Result<(), Error> + Send + Sync;

/// The hook, where there is one.
#[derive(Clone, Default)]
pub(crate) struct Gate(Option<Arc<Hook>>);

impl Gate {
    pub(crate) fn new(hook: impl Fn(&Peer, Access<'_>) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    /// What the peer is told where it may not.
    pub(crate) fn check(&self, shared: &Arc<Shared>, access: Access<'_>) -> Result<(), Error> {
        let Some(hook) = &self.0 else { return Ok(()) };
        let peer = Peer::new(shared.clone());
        // It runs in the driver's task, which must not go down with it.
        let verdict = std::panic::catch_unwind(AssertUnwindSafe(|| hook(&peer, access)));
        let verdict = verdict.unwrap_or_else(|panic| Err(crate::handler::panicked(panic, access.name())));
        // Whoever may not, has done nothing.
        verdict.map_err(|error| error.with_processed(false))
    }

    /// Takes what the peer may not do out of what its driver has left to do, and refuses it. How many publications of
    /// those nobody is told about, since they go without acknowledgement.
    pub(crate) fn refuse(&self, shared: &Arc<Shared>, todo: &mut Vec<ForHub>) -> u64 {
        let mut dropped = 0;
        if self.0.is_none() {
            return dropped;
        }
        todo.retain(|one| {
            let access = match one {
                ForHub::Publication(publication) => Access::Publish(&publication.topic),
                ForHub::Subscribe(request) => Access::Subscribe(&request.filter),
                _ => return true,
            };
            let Err(error) = self.check(shared, access) else { return true };
            match one {
                ForHub::Publication(publication) if publication.id.wants_ack() => {
                    // `Gone` where the connection has ended.
                    shared.settle(publication.id, Err(error)).ok();
                }
                ForHub::Subscribe(request) => shared.refuse_subscription(request.id, error),
                _ => dropped += 1,
            }
            false
        });
        dropped
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.0.is_some()).finish()
    }
}
