#![no_std]
//! The FLUXAR protocol as state machines: bytes, time and operations go in; bytes, a timeout and events come out.
//!
//! There is no I/O here, no clock and no randomness: whoever drives a [`Connection`] passes the current [`Instant`] and
//! hands in a generator. So the same code runs in production, in a deterministic simulation and under a fuzzer.
//! `SPEC.md` in the repository is the specification; comments cite its sections, as in `§5.1`.
//!
//! The modules are the layers of the protocol, and each knows only those below it: [`frame`] (L1), [`message`] (L3), the
//! session (L4), the patterns (L5), and the [`Connection`] that ties them together.
//!
//! # Features
//!
//! - `std` (default): nothing but `std` implementations in the dependencies.
//! - `alloc`: sessions, patterns and [`Connection`]. Without it there are framing and messages, which need no allocator.
//!
//! # Driving a connection
//!
//! 1. Hand what was read to [`Connection::handle_input`].
//! 2. Take what happened with [`Connection::poll_event`], and do what the application wants.
//! 3. Let [`Connection::poll_transmit`] fill a [`TransmitBuf`], and write that.
//! 4. Call [`Connection::handle_timeout`] when [`Connection::poll_timeout`] says so.
//!
//! The order does not matter, and neither does how often each is done. Here are two sides in one thread, with time that
//! stands still:
//!
//! ```
//! # #[cfg(feature = "alloc")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use bytes::{Buf, BytesMut};
//! use chacha20::ChaCha12Rng;
//! use fluxar_proto::*;
//! use rand_core::SeedableRng;
//!
//! let now = Instant::ZERO;
//! let config = Arc::new(Config::default());
//! // In production: the wall clock, and a seed that nobody can guess.
//! let ids = |seed| IdSource::new(1_750_000_000_000, ChaCha12Rng::from_seed([seed; 32]));
//!
//! /// What a transport would do.
//! fn carry(from: &mut Connection, to: &mut Connection, now: Instant) -> Result<(), ConnectionError> {
//!     let (mut out, mut input) = (TransmitBuf::new(), BytesMut::new());
//!     from.poll_transmit(now, &mut out);
//!     while out.has_remaining() {
//!         input.extend_from_slice(out.chunk());
//!         out.advance(out.chunk().len());
//!     }
//!     to.handle_input(now, &mut input)
//! }
//!
//! // The initiator's offer reaches the responder, who decides on it.
//! let mut client = Connection::initiate(config.clone(), now, ids(1));
//! let (mut out, mut input) = (TransmitBuf::new(), BytesMut::new());
//! client.poll_transmit(now, &mut out);
//! input.extend_from_slice(out.chunk());
//! let incoming = Incoming::new(config, now, ids(2));
//! let Progress::Offered(offered) = incoming.handle_input(now, &mut input, &mut TransmitBuf::new())? else {
//!     panic!("the offer is whole");
//! };
//! let mut server = offered.accept(now);
//! carry(&mut server, &mut client, now)?;
//!
//! // A call there ...
//! let question = Payload::new(vec![0x18, 42].into())?; // 42
//! let call = client.call(now, "answer", question, CallOptions::new())?;
//! carry(&mut client, &mut server, now)?;
//! while let Some(event) = server.poll_event() {
//!     if let Event::Call(CallEvent::Request(request)) = event {
//!         assert_eq!(&*request.method, "answer");
//!         server.respond(request.id, Ok(request.payload))?;
//!     }
//! }
//! // ... and the response back.
//! carry(&mut server, &mut client, now)?;
//! let response = client.take_response(call)?.expect("it has come")?;
//! assert_eq!(response.as_bytes(), [0x18, 42]);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "alloc"))]
//! # fn main() {}
//! ```
//!
//! # Errors
//!
//! What a peer does wrong ends the connection with a [`ConnectionError`] that says what, and whose fault; the peer is
//! told in `close`. What the application does wrong is refused where it does it, and costs nothing else. Nothing that a
//! peer sends makes this crate panic, loop or hold more than its limits allow.
//!
//! # Limits
//!
//! [`Limits`] are what this side announces; [`Config`] holds them and the local ones. A count that is reached costs the
//! opening that reaches it; a size that is passed costs the connection (SPEC.md §15).
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
pub mod hub;
#[cfg(feature = "alloc")]
mod pattern;
#[cfg(feature = "alloc")]
mod session;
#[cfg(feature = "alloc")]
mod time;
#[cfg(feature = "alloc")]
pub mod topic;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

pub use message::{Code, DecodeError, Id};
#[cfg(feature = "alloc")]
pub use {
    connection::{
        Ask, Attempt, AuthError, Config, Confirmed, Connection, Dial, Event, Grant, Incoming, Lost, Offered,
        PeerInfo, Progress, ProofProgress, Proving, ResumeProgress, ResumeRefused, Resuming, Stats,
        Tentative, TransmitBuf,
    },
    message::{Error, Payload},
    pattern::{
        CallError, CallEvent, CallId, CallOptions, Delivered, Delivery, DeliveryRecord, Fate, Gone, HashKey,
        ItemBatch, Items, MessageError, MessageId, OutMessage, Overflow, PubSubEvent, Publication,
        PublicationId, PublishError, PublishOptions, Qos, QueueLimits, QueueStats, Received, Request,
        RequestId, RespondError, Resumed, SendError, StreamError, StreamEvent, StreamId, StreamOpening,
        StreamOptions, SubscribeError, SubscribeOptions, SubscribeRequest, SubscriberId, SubscriptionId,
        Text, UpdateError, Withdrawn, retry_wait,
    },
    session::{
        Auth, AuthKind, ConnectionError, Drain, HelloError, IdSource, LaneCount, Limits, Offer, Origin, Psk,
        PskError, PskKey, Rate, RateAction, Rates, ResumeOffer, Secret, SessionId, Timeout, Violation,
    },
    time::Instant,
};
