//! What applications may observe of messages: a model of publish and subscribe beside two connections that do it, in
//! virtual time, with everything at random that the protocol leaves open. And the routing of a hub beside a naive one.
#![cfg(feature = "alloc")]

mod applications;
mod audit;
mod hub;
mod path;
mod properties;
mod regressions;
mod sessions;
mod settle;
mod subscriptions;
#[allow(dead_code, unused_imports, reason = "shared with the tests of single rules, which use all of it")]
#[path = "../connection/support/mod.rs"]
mod support;
mod world;
