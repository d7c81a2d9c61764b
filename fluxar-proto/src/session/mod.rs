//! L4, the session: handshake, limits, heartbeat, and what ends it (§6, §8).

mod budget;
mod error;
mod heartbeat;
mod hello;
mod ids;
mod ledger;
mod limits;
mod resume;

pub(crate) use budget::Budget;
pub use error::{ConnectionError, HelloError, Origin, Timeout, Violation};
pub(crate) use heartbeat::{Due, Heartbeat};
pub use hello::Offer;
pub(crate) use hello::{Answer, VERSIONS, cut_agent, feature, refused_version};
pub use ids::IdSource;
pub(crate) use ledger::{Again, Ledger, StoreLimits};
pub use limits::Limits;
pub(crate) use resume::Session;
