//! The core as its driver sees it: sessions between two connections, and between one connection and a peer that sends
//! what it likes. In virtual time and without sockets.
#![cfg(feature = "alloc")]

mod calls;
mod closing;
mod deadlines;
mod drain;
mod drain_peer;
mod drain_resume;
mod examples;
mod flood;
mod handshake;
mod handshake_auth;
mod handshake_psk;
mod heartbeat;
mod hellos;
mod hostile;
mod limits;
mod openings;
mod order;
mod pubsub_any;
mod pubsub_deliver;
mod pubsub_hostile;
mod pubsub_publish;
mod pubsub_receive;
mod pubsub_subscribe;
mod renew_calls;
mod renew_pubsub;
mod renew_streams;
mod resume;
mod resume_cuts;
mod resume_links;
mod resume_model;
mod sessions;
mod stream_cancel;
mod stream_credit;
mod stream_hostile;
mod stream_items;
mod stream_limits;
mod stream_model;
mod stream_release;
mod stream_turns;
mod stream_window;
mod streams;
mod support;
mod transmit;
