//! FLUXAR: RPC, streaming and publish/subscribe in one protocol, over one connection, between equal peers.
//!
//! This crate is the front door. It brings a runtime adapter (feature `tokio`, on by default), with [`Server`],
//! [`Client`] and what belongs to them. The protocol itself, without I/O, is the crate `fluxar-proto`, for those who
//! embed it in an event loop of their own; `SPEC.md` in the repository is the specification.
//!
//! # A server and a client
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use fluxar::{Client, Request, Server};
//!
//! let server = Server::bind("tcp://127.0.0.1:0").build().await?;
//! server.handle("users.name", |req: Request| async move {
//!     let id: u32 = req.payload()?;
//!     Ok(format!("user {id}"))
//! });
//! let url = server.url();
//! tokio::spawn(server.run());
//!
//! let client = Client::connect(url).build().await?;
//! let name: String = client.call("users.name", &42).await?;
//! assert_eq!(name, "user 42");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! ```
//!
//! # Calls
//!
//! [`Peer::call`] gives a [`Call`]; awaiting it makes the call and gives its outcome. Dropping the future cancels the
//! call at the callee too. [`Call::timeout`] sets a deadline that both sides enforce. [`Call::start`] keeps the call
//! open as an [`OpenCall`], for updates in both directions.
//!
//! Payloads are anything that serde can write and read; [`Raw`] passes CBOR through untouched.
//!
//! # Streams
//!
//! [`Peer::stream`] opens a [`Stream`], with items in both directions; a handler gets a [`StreamRequest`], and its return
//! ends the stream:
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use fluxar::{Client, Server, StreamRequest};
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Chunk {
//!     token: String,
//! }
//!
//! # let server = Server::bind("tcp://127.0.0.1:0").build().await?;
//! server.handle_stream("llm.complete", |mut req: StreamRequest| async move {
//!     let prompt: String = req.payload()?;
//!     for word in prompt.split(' ') {
//!         req.send(&Chunk { token: format!("{word}, ") }).await?; // waits while the opener does not keep up
//!     }
//!     Ok(())
//! });
//! # let url = server.url();
//! # tokio::spawn(server.run());
//! # let client = Client::connect(url).build().await?;
//! # let mut text = String::new();
//! let mut stream = client.stream::<Chunk>("llm.complete", "once upon a time").await?;
//! while let Some(chunk) = stream.next().await {
//!     # let chunk = chunk.inspect(|chunk| text.push_str(&chunk.token));
//!     print!("{}", chunk?.token);
//! }
//! # assert_eq!(text, "once, upon, a, time, ");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! ```
//!
//! [`Stream::send`] sends, [`Stream::end`] ends this side's direction, [`Stream::finish`] waits for the final value of the
//! other. [`Stream::split`] gives the halves to different tasks; they are `futures` streams and sinks. Dropping a stream
//! before its end cancels it at the other side too. Memory is bounded by the window, at both ends.
//!
//! # Publish and subscribe
//!
//! [`Peer::subscribe`] runs a handler for what is published on topics that match a filter (`orders.created`, `orders.*`,
//! `orders.>`); [`Peer::messages`] gives the same as a stream. [`Peer::publish`] publishes, at most once where nothing else
//! is said:
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use fluxar::{Message, Qos};
//! # use fluxar::{Client, Server};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Order {
//!     number: u32,
//! }
//!
//! # let server = Server::bind("tcp://127.0.0.1:0").build().await?;
//! # let url = server.url();
//! # tokio::spawn(server.run());
//! # let client = Client::connect(url).build().await?;
//! # let mut seen = client.messages("orders.created").await?;
//! client
//!     .subscribe("orders.created", |msg: Message| async move {
//!         let order: Order = msg.payload()?;
//!         println!("order {}", order.number);
//!         msg.ack().await
//!     })
//!     .await?;
//! client.publish("orders.created", &Order { number: 1 }).qos(Qos::ExactlyOnce).await?;
//! # assert_eq!(seen.next().await.map(|msg| msg.payload::<Order>().map(|order| order.number)), Some(Ok(1)));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! ```
//!
//! What is published at a server or a client goes through its [`Hub`], to the subscriptions of all connected peers and of
//! this side itself, with `publish`, `subscribe` and `messages` there. With [`Qos::AtLeastOnce`] and [`Qos::ExactlyOnce`]
//! a publication is ready once the hub has taken responsibility, or says why not ([`PublishError`]); a handler's `Ok`
//! accepts a message, `Err` has it come again. Subscriptions may form [groups](Subscribe::group), of which one member gets
//! each message; [`Publish::retain`] keeps the last value of a topic for later subscribers. Slow subscribers are bounded,
//! and [`Overflow`] says what happens to what is beyond that.
//!
//! # Both sides are peers
//!
//! A handler reaches its caller with [`Request::peer`], and a client registers handlers like a server does:
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use fluxar::{Client, Request, Server};
//! # let server = Server::bind("tcp://127.0.0.1:0").build().await?;
//! server.handle("greet", |req: Request| async move {
//!     let name: String = req.peer().call("who.are.you", &()).await?;
//!     Ok(format!("Hello, {name}!"))
//! });
//! # let url = server.url();
//! # tokio::spawn(server.run());
//! let client = Client::connect(url).handle("who.are.you", |_| async { Ok("Ada") }).build().await?;
//! let greeting: String = client.call("greet", &()).await?;
//! assert_eq!(greeting, "Hello, Ada!");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! ```
//!
//! # Coming back
//!
//! A [`Client`] that loses its link gets another one by itself, in growing intervals ([`Reconnect`]), and its session goes on
//! as if nothing had happened: calls get their outcomes, streams go on where they were, messages are acknowledged. Handles
//! stay as they are; what is begun meanwhile waits, and its time runs on.
//!
//! Where the server does not know the session any more, because it was restarted or has waited for too long, a fresh one
//! takes its place. Subscriptions go on in it, messages that were not acknowledged are published again, and so are calls made
//! that are marked as [`idempotent`](Call::idempotent). The rest fails with an honest error.
//!
//! A server that [leaves](ServerHandle::drain) finishes what is open. Its clients go on at another [`url`](ClientBuilder::url),
//! at the same one once somebody is there again, or, where they [agree](ClientBuilder::follow_redirects), wherever it sends
//! them. [`Client::states`] tells all of it:
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use fluxar::{Client, Error, Request, Server, State};
//! use std::time::Duration;
//!
//! use fluxar::Reconnect;
//!
//! # let server = Server::bind("tcp://127.0.0.1:0").build().await?;
//! # server.handle("add", |req: Request| async move {
//! #     let (a, b): (i64, i64) = req.payload()?;
//! #     Ok(a + b)
//! # });
//! # let (url, handle) = (server.url(), server.server_handle());
//! # tokio::spawn(server.run());
//! let policy = Reconnect::default().first(Duration::from_millis(10)).attempts(100);
//! let client = Client::connect(url).reconnect(policy).build().await?;
//! let mut states = client.states();
//! # while handle.peers().is_empty() {
//! #     tokio::task::yield_now().await;
//! # }
//! # handle.peers()[0].close_with(Error::unavailable("for now"));
//! # let mut lost = false;
//! while let Some(state) = states.next().await {
//! #   lost |= matches!(state, State::Lost { .. });
//! #   if lost && state.is_connected() {
//! #       break;
//! #   }
//!     match state {
//!         State::Reconnecting { attempt, next } => println!("attempt {attempt} in {next:?}"),
//!         State::Resumed { resent } => println!("{resent} messages were sent again"),
//!         State::Lost { calls, streams, .. } => println!("{calls} calls and {streams} streams have failed"),
//!         other => println!("{other:?}"),
//!     }
//! }
//! let sum: i64 = client.call("add", &(2, 40)).idempotent().await?;
//! # assert_eq!(sum, 42);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! ```
//!
//! # Who is there
//!
//! A server lets in whom its [`Authenticator`] lets in: a closure, or [`Accounts`] for a few credentials that are known from
//! the start. [`Peer::identity`] then says who is there, to every handler and hook, and `authorize` on the builders says
//! what he may do:
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use fluxar::{Access, Accounts, Auth, Code, Error, Identity, Request};
//! # use fluxar::{Client, Server};
//!
//! let accounts = Accounts::new()
//!     .bearer("ada's token", Identity::new("ada").with_attribute("role", "admin"))
//!     .bearer("bob's token", Identity::new("bob"));
//! let server = Server::bind("tcp://127.0.0.1:0")
//!     .authenticator(accounts)
//!     .authorize(|who, what: Access<'_>| {
//!         let is_admin = who.identity().is_some_and(|id| id.attribute("role") == Some("admin"));
//!         match is_admin || !what.is_within("admin.>") {
//!             true => Ok(()),
//!             false => Err(Error::permission_denied("for admins only")),
//!         }
//!     })
//!     .handle("whoami", |req: Request| async move { Ok(req.identity().map(|id| id.name().to_owned())) })
//!     .build()
//!     .await?;
//! # let url = server.url();
//! # tokio::spawn(server.run());
//!
//! let client = Client::connect(&url).auth(Auth::bearer("bob's token")).build().await?;
//! assert_eq!(client.call::<String>("whoami", &()).await?, "bob");
//! let refused = client.call::<()>("admin.stop", &()).await.unwrap_err();
//! assert_eq!((refused.code, refused.is_retry_safe()), (Code::PERMISSION_DENIED, true));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! ```
//!
//! Credentials travel over Unix sockets and loopback addresses; elsewhere a client does not connect with them, unless
//! `allow_plaintext_auth` says that it may. They can [run out](Granted::expires_in): a client fetches fresh ones from its
//! [`Credentials`] in time, and shows them within the session. Custom schemes may take [rounds](Verdict::Challenge). With
//! `psk` on both builders each side proves to the other that it holds a pre-shared key; a server finds keys by name, and
//! can exchange them while it runs. Who fails too often is turned away unheard for a while; others from elsewhere do not
//! notice.
//!
//! # Errors
//!
//! An [`Error`] has a code (those of gRPC, some of the protocol, and your own from 1,000), a message, data, and says
//! whether a retry is safe: [`Error::is_retry_safe`] holds where the call was certainly not acted upon. A handler
//! returns one, or lets `?` turn any other type that implements [`std::error::Error`] into a [`HandlerError`], of which
//! the caller learns nothing but that the handler failed; [`HandlerError::other`] does the same for boxed errors.
//!
//! # Limits
//!
//! Everything that a peer can make this side hold is bounded: see [`Config`] and [`Limits`], and `configure` on the
//! builders.

#[cfg(not(feature = "tokio"))]
#[doc(inline)]
pub use fluxar_runtime::*;
#[cfg(feature = "tokio")]
#[doc(inline)]
pub use fluxar_tokio::*;

/// Keeps the code in the README true.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
