use core::convert::Infallible;
use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;
use rand_core::{TryCryptoRng, TryRng};
use uuid::{Uuid, Variant};

use super::*;

/// Counts how often it is asked, and yields one byte over and over, or a sequence of bytes that differ.
struct TestRng {
    calls: usize,
    next: u8,
    step: u8,
}

impl TestRng {
    fn varied() -> Self {
        Self { calls: 0, next: 1, step: 29 }
    }

    fn constant(byte: u8) -> Self {
        Self { calls: 0, next: byte, step: 0 }
    }
}

impl TryRng for TestRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.calls += 1;
        for byte in bytes {
            *byte = self.next;
            self.next = self.next.wrapping_add(self.step);
        }
        Ok(())
    }
}

impl TryCryptoRng for TestRng {}

const LAST_MS: u64 = (1 << 48) - 1;

fn ms(id: Id) -> u64 {
    let [a, b, c, d, e, f, ..] = id.to_bytes();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

// spec: §5.6
#[test]
fn ids_are_uuids_of_version_7_that_name_their_millisecond() {
    let mut generator = IdGenerator::new();
    for fill in [0, 0xff] {
        let mut rng = TestRng::constant(fill);
        let now = 1_700_000_000_000 + u64::from(fill);
        for _ in 0..3 {
            let id = generator.next(now, &mut rng);
            let uuid = Uuid::from(id);
            assert_eq!((uuid.get_version_num(), uuid.get_variant(), ms(id)), (7, Variant::RFC4122, now));
        }
    }
}

// spec: §5.6
#[test]
fn randomness_is_drawn_once_in_a_millisecond() {
    let (mut generator, mut rng) = (IdGenerator::new(), TestRng::varied());
    for now in [0, 0, 0, 5, 5, 4, 0, 6, 6] {
        generator.next(now, &mut rng);
    }
    assert_eq!(rng.calls, 3);
}

// spec: §5.6
#[test]
fn ids_grow_while_the_clock_stands_still() {
    let (mut generator, mut rng) = (IdGenerator::new(), TestRng::varied());
    let ids: Vec<_> = (0..10_000).map(|_| generator.next(1000, &mut rng)).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert!(ids.iter().all(|&id| ms(id) == 1000));
    let steps: std::collections::BTreeSet<_> =
        ids.windows(2).map(|pair| Uuid::from(pair[1]).as_u128() - Uuid::from(pair[0]).as_u128()).collect();
    assert!(steps.len() > 9_900, "{} different steps can be guessed", steps.len());
}

// spec: §5.6
#[test]
fn ids_grow_when_the_clock_goes_back() {
    let (mut generator, mut rng) = (IdGenerator::new(), TestRng::varied());
    let ids = [5000, 10, 0, 4999, 5000, 5001].map(|now| generator.next(now, &mut rng));
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(ids.map(ms), [5000, 5000, 5000, 5000, 5000, 5001]);
}

// spec: §5.6
#[test]
fn a_clock_far_in_the_future_counts_as_the_last_millisecond() {
    let (mut generator, mut rng) = (IdGenerator::new(), TestRng::constant(0xff));
    let ids = [LAST_MS - 1, LAST_MS, LAST_MS + 1, u64::MAX, 0].map(|now| generator.next(now, &mut rng));
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(ids.map(ms), [LAST_MS - 1, LAST_MS, LAST_MS, LAST_MS, LAST_MS]);
}

// spec: §5.6
#[test]
fn the_tail_of_the_first_id_of_a_millisecond_is_all_random_but_for_its_top_bit() {
    for (fill, expected) in
        [(0x00, "000000000001 7000 8000000000000000"), (0xff, "000000000001 77ff bfffffffffffffff")]
    {
        let id = IdGenerator::new().next(1, &mut TestRng::constant(fill));
        assert_eq!(id.to_bytes()[..], hex(expected));
    }
}

#[test]
fn an_id_shows_as_a_uuid() {
    let id = Id::from_bytes(hex(ID).try_into().expect("16 bytes"));
    assert_eq!(id.to_string(), "0190163d-8694-739b-aea5-966c26f8ad91");
    assert_eq!(std::format!("{id:?}"), "Id(0190163d-8694-739b-aea5-966c26f8ad91)");
    assert_eq!(Id::from(Uuid::from(id)), id);
    assert_eq!(id.as_bytes()[..], hex(ID));
}

#[test]
fn a_generator_shows_nothing_of_the_ids_to_come() {
    let mut generator = IdGenerator::new();
    generator.next(42, &mut TestRng::varied());
    assert_eq!(std::format!("{generator:?}"), "IdGenerator { ms: 42, .. }");
}

proptest! {
    // spec: §5.5 §5.6
    #[test]
    fn ids_grow_whatever_the_clock_does(times in proptest::collection::vec(any::<u64>(), 1..60), start: u8) {
        let (mut generator, mut rng) = (IdGenerator::new(), TestRng { calls: 0, next: start, step: 77 });
        let ids: Vec<_> = times.iter().map(|&now| generator.next(now >> 14, &mut rng)).collect();
        prop_assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
