#![no_std]
//! LIB DOC
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod frame;
pub mod message;

#[cfg(feature = "alloc")]
mod connection;
#[cfg(feature = "alloc")]
mod pattern;
#[cfg(feature = "alloc")]
mod session;
#[cfg(feature = "alloc")]
mod time;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

pub use message::{Code, DecodeError, Id};
#[cfg(feature = "alloc")]
pub use {
    connection::{Config, Connection, Event, Incoming, Offered, PeerInfo, Progress, Stats, TransmitBuf},
    message::{Error, Payload},
    pattern::{
        CallError, CallEvent, CallId, CallOptions, Gone, Request, RequestId, RespondError, Text, UpdateError,
        Withdrawn,
    },
    session::{ConnectionError, HelloError, IdSource, Initiator, Limits, Offer, Timeout, Violation},
    time::Instant,
};
