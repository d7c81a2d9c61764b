//! Connections that come back: when to try again, where, and what the application sees of it.

mod backoff;
mod linker;
mod policy;
mod sites;
mod state;
mod verdict;

pub(crate) use self::backoff::Backoff;
pub(crate) use self::linker::{Linker, dial};
pub use self::policy::Reconnect;
pub(crate) use self::sites::{Site, Sites};
pub(crate) use self::state::Journal;
pub use self::state::{State, States};
