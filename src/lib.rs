//! FLUXAR
#[cfg(feature = "tokio")]
pub use fluxar_tokio::*;
