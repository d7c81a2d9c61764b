//! Randomness for the core: a generator of its own for each connection, seeded by the system.

use chacha20::ChaCha12Rng;
use rand_core::SeedableRng;

/// A generator that nobody can predict.
///
/// # Errors
///
/// Where the system has no randomness to give.
pub(crate) fn generator() -> Result<ChaCha12Rng, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(ChaCha12Rng::from_seed(seed))
}
