//! The built command, as its users meet it.

mod call;
mod decode;
mod hostile;
mod ping;
mod serve;
mod support;
mod usage;
