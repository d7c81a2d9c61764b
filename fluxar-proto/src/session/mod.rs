//! L4, the session: handshake, limits, heartbeat, and what ends it (§6, §8).

#[allow(dead_code, reason = "proof rounds use the rest")]
mod auth;
mod budget;
mod drain;
mod error;
mod heartbeat;
#[allow(dead_code, reason = "proof rounds and resume use the rest")]
mod hello;
mod ids;
mod ledger;
mod limits;
#[allow(dead_code, reason = "proof rounds and resume use the rest")]
mod psk;
mod resume;
mod secret;

pub use auth::{Auth, AuthKind};
pub(crate) use budget::Budget;
pub use drain::Drain;
pub(crate) use drain::{DrainDue, Drains, fit as fit_drain};
pub use error::{ConnectionError, HelloError, Origin, Timeout, Violation};
pub(crate) use heartbeat::{Due, Heartbeat};
#[allow(unused_imports, reason = "proof rounds and resume use the rest")]
pub(crate) use hello::{
    Answer, Asked, LastOrNext, LaterAnswer, Proof, Resumed, SessionGrant, cut_agent, feature, refused_version,
};
pub use hello::{LaneCount, Offer, ResumeOffer, SessionId};
pub use ids::IdSource;
pub(crate) use ledger::{Again, Ledger, StoreLimits};
pub use limits::Limits;
#[allow(unused_imports, reason = "proof rounds and resume use them")]
pub(crate) use psk::{Bytes32, Prover, Transcript, is_psk_proof, is_resume_proof, psk_proof, resume_proof};
pub use psk::{Psk, PskKey};
pub(crate) use resume::{Session, verify_in_vain};
pub use secret::Secret;
