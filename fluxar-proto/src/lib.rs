//! FLUXAR.
