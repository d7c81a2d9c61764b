//! Where a session's message ids and its other randomness come from.

use alloc::boxed::Box;
use core::fmt;

use rand_core::{CryptoRng, Rng};

use crate::message::{Id, IdGenerator};
use crate::time::Instant;

/// The wall clock and the randomness that ids are made from, both handed in: the core has neither of its own.
///
/// Ids are UUIDs of version 7, strictly increasing over the life of the source.
pub struct IdSource {
    unix_ms_at_zero: u64,
    generator: IdGenerator,
    rng: Box<dyn CryptoRng + Send>,
}

impl IdSource {
    /// `unix_ms_at_zero` is the wall clock, in milliseconds since 1970, at [`Instant::ZERO`]; `rng` must be
    /// seeded unpredictably in production and may be seeded with a constant in simulations.
    pub fn new(unix_ms_at_zero: u64, rng: impl CryptoRng + Send + 'static) -> Self {
        Self { unix_ms_at_zero, generator: IdGenerator::new(), rng: Box::new(rng) }
    }

    pub(crate) fn next(&mut self, now: Instant) -> Id {
        let unix_ms = self.unix_ms_at_zero.saturating_add(now.as_micros() / 1000);
        self.generator.next(unix_ms, &mut *self.rng)
    }

    /// Random bytes, for what nobody may guess.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Two random words, to key a hash table whose keys the peer chooses.
    pub(crate) fn hash_key(&mut self) -> (u64, u64) {
        (self.rng.next_u64(), self.rng.next_u64())
    }
}

impl fmt::Debug for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdSource").finish_non_exhaustive()
    }
}
