//! Message ids: 16 bytes (§5.5), UUID version 7 where they are ours (§5.6).

use core::fmt;

use rand_core::CryptoRng;
use uuid::Uuid;

/// The id of a message. Its sender never uses it again.
///
/// Any 16 bytes will do. Ours are UUIDs of version 7, so that ids of one sender sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; Self::LEN]);

impl Id {
    /// The length of an id, in bytes.
    pub const LEN: usize = 16;

    /// The id that these bytes are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }
}

/// As a UUID is written.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from(*self).hyphenated().fmt(f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl From<Uuid> for Id {
    fn from(uuid: Uuid) -> Self {
        Self(uuid.into_bytes())
    }
}

impl From<Id> for Uuid {
    fn from(id: Id) -> Self {
        Self::from_bytes(id.0)
    }
}

/// The last millisecond that a UUID of version 7 can name.
const LAST_MS: u64 = (1 << 48) - 1;
/// The bits of a UUID of version 7 that neither time, version nor variant take.
const TAIL_BITS: u32 = 74;
const TAIL_MASK: u128 = (1 << TAIL_BITS) - 1;
/// The bits of the tail behind the variant.
const LOW_BITS: u32 = 62;

/// Makes ids: UUIDs of version 7, each greater than the one before, whatever the clock does (§5.6).
///
/// The first id of a millisecond has a tail of 73 random bits; the following ones add a random step of up to
/// 2^32 to it. Whoever has seen no id of that millisecond cannot guess one. Whoever has seen several may
/// guess the next: ids are names, not secrets.
#[derive(Clone)]
pub struct IdGenerator {
    ms: u64,
    tail: u128,
    /// The state of the generator of steps, seeded afresh with every tail.
    steps: u64,
    started: bool,
}

impl IdGenerator {
    /// A generator that has made no id.
    #[must_use]
    pub const fn new() -> Self {
        Self { ms: 0, tail: 0, steps: 0, started: false }
    }

    /// The next id.
    ///
    /// `unix_ms` is the time now, in milliseconds since 1970. Where it stands still or goes back, ids go on
    /// from the latest time seen; a time beyond 2^48 - 1 counts as that. `rng` is used at most once per
    /// millisecond.
    pub fn next<R: CryptoRng + ?Sized>(&mut self, unix_ms: u64, rng: &mut R) -> Id {
        let unix_ms = unix_ms.min(LAST_MS);
        if unix_ms > self.ms || !self.started {
            self.started = true;
            self.ms = unix_ms;
            self.reseed(rng);
        } else {
            self.tail += u128::from(self.step());
            if self.tail > TAIL_MASK {
                // Some 2^41 ids in one millisecond at the least: borrow from the next one.
                self.ms = (self.ms + 1).min(LAST_MS);
                self.reseed(rng);
            }
        }
        self.current()
    }

    fn reseed<R: CryptoRng + ?Sized>(&mut self, rng: &mut R) {
        let mut seed = [0; 24];
        rng.fill_bytes(&mut seed);
        let [tail @ .., a, b, c, d, e, f, g, h] = seed;
        // The topmost bit stays clear, so that the steps of one millisecond have room.
        self.tail = u128::from_be_bytes(tail) & (TAIL_MASK >> 1);
        self.steps = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    }

    /// A number from 1 to 2^32, by SplitMix64.
    fn step(&mut self) -> u64 {
        self.steps = self.steps.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.steps;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) + 1
    }

    fn current(&self) -> Id {
        let [a, b] = ((self.tail >> LOW_BITS) as u16).to_be_bytes();
        let [c, d, e, f, g, h, i, j] = (self.tail as u64).to_be_bytes();
        // Version and variant overwrite the bits that do not belong to the tail.
        uuid::Builder::from_unix_timestamp_millis(self.ms, &[a, b, c, d, e, f, g, h, i, j]).into_uuid().into()
    }
}

impl Default for IdGenerator {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows nothing of what the coming ids depend on.
impl fmt::Debug for IdGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdGenerator").field("ms", &self.ms).finish_non_exhaustive()
    }
}
