//! The async half of FLUXAR that every runtime shares: the driver of a connection, and the API that applications see.
//!
//! An adapter fills in [`Runtime`], [`Link`] and [`Timer`] for its runtime; applications use the adapter, or the
//! `fluxar` crate, and meet the types of this crate there: [`Server`], [`Client`], [`Peer`], [`Request`], [`Call`].
//!
//! One task drives each connection. Handles lock the core, operate on it, and wake that task; system calls, wake-ups
//! and handlers run outside the lock.

mod accept;
mod address;
mod call;
mod client;
mod clock;
mod connections;
mod driver;
mod farewell;
mod floats;
mod handler;
mod line;
mod nulls;
mod payload;
mod peer;
mod queue;
mod random;
mod request;
mod runtime;
mod server;
mod settings;
mod shared;
mod stream;
mod stream_request;
mod turn;

pub use address::{Address, AddressError, Transport};
pub use call::{Call, Calling, OpenCall};
pub use client::{Client, ClientBuilder, ConnectError};
pub use fluxar_proto::message::{Item, Meta};
pub use fluxar_proto::{
    Code, Config, ConnectionError, Error, Items, Limits, Origin, Payload, PeerInfo, Stats,
};
pub use handler::HandlerError;
pub use payload::{Encoded, FromPayload, IntoPayload, Raw};
pub use peer::Peer;
pub use request::Request;
pub use runtime::{Link, Listener, Runtime, Timer};
pub use server::{BindError, Server, ServerBuilder, ServerHandle};
pub use stream::{OpenStream, Opening, Stream, StreamReceiver, StreamSender};
pub use stream_request::StreamRequest;
