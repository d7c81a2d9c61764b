//! L5, the patterns: what applications do over a session (§10).

mod call;
mod open;
mod outgoing;

pub use call::{
    CallError, CallEvent, CallId, CallOptions, Gone, Request, RequestId, RespondError, Text, UpdateError,
    Withdrawn,
};
pub(crate) use call::{CallLimits, Calls, Context};
pub(crate) use open::{Entity, OpenIds};
pub(crate) use outgoing::{Outgoing, Target};
