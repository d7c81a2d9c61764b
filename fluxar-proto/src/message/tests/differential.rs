//! The well-formedness check beside two others: the pseudo-code of RFC 8949, and another crate's decoder.

use std::vec::Vec;

use cbor4ii::core::dec::{Decode, Read};
use cbor4ii::core::error::DecodeError as Theirs;
use cbor4ii::core::utils::SliceReader;
use cbor4ii::core::{Value, marker};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fuzzing::generate::{self, Source};

/// Appendix C of RFC 8949, word for word where Rust allows, with the depth of §5.3: the length of the item,
/// or none.
struct Textbook<'a> {
    bytes: &'a [u8],
}

impl Textbook<'_> {
    fn take(&mut self, n: u64) -> Option<u64> {
        let n = usize::try_from(n).ok()?;
        let (taken, rest) = self.bytes.split_at_checked(n)?;
        self.bytes = rest;
        Some(taken.iter().take(8).fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// The major type; `None` for ill-formed; a major type of 99 for a break.
    fn well_formed(&mut self, breakable: bool, depth: usize) -> Option<u8> {
        let ib = self.take(1)? as u8;
        let (mt, ai) = (ib >> 5, ib & 0x1f);
        let val = match ai {
            24 => self.take(1)?,
            25 => self.take(2)?,
            26 => self.take(4)?,
            27 => self.take(8)?,
            28..=30 => return None,
            31 => return self.well_formed_indefinite(mt, breakable, depth),
            _ => u64::from(ai),
        };
        if (4..=6).contains(&mt) && depth == 0 {
            return None;
        }
        match mt {
            2 | 3 => {
                self.take(val)?;
            }
            4 => self.items(val, depth)?,
            5 => self.items(val.checked_mul(2)?, depth)?,
            6 => self.items(1, depth)?,
            7 if ai == 24 && val < 32 => return None,
            _ => {}
        }
        Some(mt)
    }

    fn items(&mut self, count: u64, depth: usize) -> Option<()> {
        for _ in 0..count {
            self.well_formed(false, depth - 1)?;
        }
        Some(())
    }

    fn well_formed_indefinite(&mut self, mt: u8, breakable: bool, depth: usize) -> Option<u8> {
        if matches!(mt, 4 | 5) && depth == 0 {
            return None;
        }
        match mt {
            2 | 3 => loop {
                let at = self.bytes.first().copied()?;
                match self.well_formed(true, 0)? {
                    99 => break,
                    it if it == mt && at & 0x1f != 31 => {}
                    _ => return None,
                }
            },
            4 => while self.well_formed(true, depth - 1)? != 99 {},
            5 => {
                while self.well_formed(true, depth - 1)? != 99 {
                    self.well_formed(false, depth - 1)?;
                }
            }
            7 if breakable => return Some(99),
            _ => return None,
        }
        Some(mt)
    }
}

fn textbook(bytes: &[u8]) -> bool {
    let mut textbook = Textbook { bytes };
    textbook.well_formed(false, DEPTH_LIMIT).is_some() && textbook.bytes.is_empty()
}

/// What another crate makes of the bytes; `None` where it does not know this kind of item, or checks more
/// than we do.
fn another_crate(bytes: &[u8]) -> Option<bool> {
    let mut reader = SliceReader::new(bytes);
    match Value::decode(&mut reader) {
        Ok(_) => Some(reader.fill(1).expect("memory").as_ref().is_empty()),
        Err(Theirs::RequireUtf8 { .. }) => None,
        // Simple values but the four of JavaScript, and half floats.
        Err(Theirs::Unsupported { found, .. }) if found >> 5 == 7 && found != marker::BREAK => None,
        Err(_) => Some(false),
    }
}

fn compare(bytes: &[u8]) -> Result<(), TestCaseError> {
    let ours = Item::new(bytes);
    prop_assert_eq!(ours.is_ok(), textbook(bytes), "{:?} of {:02x?}", ours, bytes);
    let too_deep = ours.is_err_and(|error| error.kind == DecodeErrorKind::TooDeep);
    if let Some(theirs) = another_crate(bytes).filter(|_| !too_deep) {
        prop_assert_eq!(ours.is_ok(), theirs, "{:?} of {:02x?}", ours, bytes);
    }
    Ok(())
}

fn generated() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..200).prop_map(|bytes| generate::item(&mut Source::new(&bytes)))
}

proptest! {
    // spec: §5.3
    #[test]
    fn generated_items_are_well_formed_to_everybody(bytes in generated()) {
        prop_assert!(textbook(&bytes), "{:02x?}", bytes);
        compare(&bytes)?;
    }

    // spec: §5.3
    #[test]
    fn changed_items_are_judged_as_by_others(
        mut bytes in generated(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        compare(&bytes)?;
    }

    // spec: §5.3
    #[test]
    fn arbitrary_bytes_are_judged_as_by_others(bytes in vec(head(), 1..12)) {
        compare(&bytes)?;
    }
}

/// Bytes that open, close and end things more often than chance would.
fn head() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        prop::sample::select(
            &[
                0x00, 0x18, 0x40, 0x41, 0x5f, 0x61, 0x7f, 0x80, 0x81, 0x82, 0x9f, 0xa1, 0xbf, 0xc1, 0xf6,
                0xf8, 0xff, 0xff
            ][..]
        ),
    ]
}
