//! The built command, as its users meet it: with signals and Unix sockets.

#![cfg(unix)]

mod call;
mod decode;
mod hostile;
mod ping;
mod probe;
mod pubsub;
mod serve;
mod serve_streams;
mod sessions;
mod stream;
mod support;
mod usage;
