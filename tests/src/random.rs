//! Randomness that can be repeated.

use std::hash::{BuildHasher, RandomState};

/// A small generator (SplitMix64); clones go the same way.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// One that has never been before, unless `FLUXAR_SEED` says which. Prints the seed, so that a failure can be
    /// repeated.
    ///
    /// # Panics
    ///
    /// Where `FLUXAR_SEED` is no number.
    pub fn new() -> Self {
        let seed = match std::env::var("FLUXAR_SEED") {
            Ok(seed) => seed.parse().expect("FLUXAR_SEED is a number"),
            Err(_) => RandomState::new().hash_one(0),
        };
        println!("FLUXAR_SEED={seed}");
        Self(seed)
    }

    /// One that always goes the same way.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// Another generator, which goes its own way.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
