//! L4, the session: handshake, limits, heartbeat, and what ends it (§6, §8).

mod auth;
mod bucket;
mod budget;
mod drain;
mod error;
mod heartbeat;
mod hello;
mod ids;
mod ledger;
mod limits;
mod psk;
mod rate;
mod renewal;
mod resume;
mod secret;

pub use auth::{Auth, AuthKind};
pub(crate) use budget::Budget;
pub use drain::Drain;
pub(crate) use drain::{DrainDue, Drains, fit as fit_drain};
pub use error::{ConnectionError, HelloError, Origin, PskError, Timeout, Violation};
pub(crate) use heartbeat::{Due, Heartbeat};
pub(crate) use hello::{
    Answer, Asked, LastOrNext, LaterAnswer, MAX_NAME, Proof, Resumed, SessionGrant, cut_agent, feature,
    refused_version,
};
pub use hello::{LaneCount, Offer, ResumeOffer, SessionId};
pub use ids::IdSource;
pub(crate) use ledger::{Again, Ledger, StoreLimits};
pub use limits::Limits;
pub(crate) use psk::{Bytes32, Prover, Transcript, is_psk_proof, psk_proof};
pub use psk::{Psk, PskKey};
pub(crate) use rate::Meters;
pub use rate::{Rate, RateAction, Rates};
pub(crate) use renewal::{Renewals, decode_reply as decode_auth_reply, encode_reply as encode_auth_reply};
pub(crate) use resume::{Session, verify_in_vain};
pub use secret::Secret;
