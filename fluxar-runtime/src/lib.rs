//! The async half of FLUXAR that every runtime shares: the driver of a connection, and the API that applications see.
//!
//! An adapter fills in [`Runtime`], [`Link`] and [`Timer`] for its runtime; applications use the adapter, or the
//! `fluxar` crate, and meet the types of this crate there: [`Server`], [`Client`], [`Peer`], [`Request`], [`Call`].
//!
//! One task drives each connection. Handles lock the core, operate on it, and wake that task; system calls, wake-ups
//! and handlers run outside the lock.

mod accept;
mod address;
mod auth;
mod call;
mod client;
mod clock;
mod connections;
mod drain;
mod driver;
mod farewell;
mod floats;
mod handler;
mod hub;
mod keeper;
mod line;
mod message;
mod messages;
mod nulls;
mod payload;
mod peer;
mod publish;
mod queue;
mod random;
mod reconnect;
mod request;
mod runtime;
mod server;
mod serving;
mod sessions;
mod settings;
mod shared;
mod standing;
mod store;
mod stream;
mod stream_request;
mod stream_sender;
mod subscribe;
mod tasks;
mod turn;
mod upkeep;

pub use address::{Address, AddressError, Transport};
pub use auth::{
    Access, Accounts, AuthFuture, AuthRequest, Authenticator, Credentials, CredentialsFuture, Granted,
    Identity, Verdict, Wanted,
};
pub use call::{Call, Calling, OpenCall};
pub use client::{Client, ClientBuilder, ConnectError};
pub use connections::WhenFull;
pub use drain::DrainReport;
pub use fluxar_proto::message::{Item, Meta};
pub use fluxar_proto::{
    Auth, AuthKind, Code, Config, ConnectionError, DeliveryRecord, Drain, Error, Id, Items, Limits, Origin,
    Overflow, Payload, PeerInfo, Psk, PskError, Qos, QueueLimits, QueueStats, Rate, RateAction, Rates, Stats,
};
pub use handler::HandlerError;
pub use hub::{Hub, HubBuilder, HubStats, Undelivered};
pub use message::Message;
pub use messages::{Messages, Subscription};
pub use payload::{Encoded, FromPayload, IntoPayload, Raw};
pub use peer::Peer;
pub use publish::{Fate, Publish, PublishError, Publishing};
pub use reconnect::{Reconnect, State, States};
pub use request::Request;
pub use runtime::{Link, Listener, Runtime, Timer};
pub use server::{BindError, Server, ServerBuilder, ServerHandle};
pub use sessions::ServerStats;
pub use store::{MemoryStore, Store, StoreError, StoreFuture, Stored};
pub use stream::{OpenStream, Opening, Stream, StreamReceiver};
pub use stream_request::StreamRequest;
pub use stream_sender::StreamSender;
pub use subscribe::{Subscribe, SubscribeMessages};
