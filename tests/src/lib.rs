//! What the tests of whole peers share: runtimes and transports to run on, scripted peers, and a place to meet.
//!
//! Every test waits for what it expects; where that does not come, the watchdog of [`run`](net::run) ends it.

pub mod chaos;
pub mod dialler;
pub mod eager;
pub mod garbage;
pub mod guests;
pub mod honest;
pub mod hubs;
pub mod memory;
pub mod mortal;
pub mod net;
pub mod open;
pub mod plan;
pub mod process;
pub mod proxy;
pub mod python;
pub mod random;
pub mod resume;
pub mod signal;
pub mod site;
pub mod streaming;
pub mod topics;
pub mod traffic;
pub mod verbs;
pub mod whoami;
pub mod wire;
