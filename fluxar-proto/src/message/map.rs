//! The strict maps of the protocol: definite, unique text keys, and not many of them.

use heapless::Vec;

use super::item::{Item, skip};
use super::token::{Reader, major};
use super::{DecodeError, DecodeErrorKind, Expected};

/// How many keys `meta` (§5.9), `error` (§5.12) and the maps of the handshake (§6.2) may have.
pub const KEYS_LIMIT: usize = 64;

/// Above this many keys sorting them beats comparing each with each.
const PAIRWISE: usize = 8;

/// A map that has passed the check.
pub(super) struct Map<'a> {
    /// How many pairs there are.
    pub(super) len: usize,
    /// The encoded pairs, without the head of the map.
    pub(super) entries: &'a [u8],
}

/// Where a key lies, and what it is.
type Key<'a> = (&'a str, usize);

/// Reads a whole map and checks all of it.
pub(super) fn read<'a>(reader: &mut Reader<'a>, expected: Expected) -> Result<Map<'a>, DecodeError> {
    let at = reader.pos();
    let count = reader.definite(major::MAP, expected)?;
    let len = usize::try_from(count).unwrap_or(usize::MAX);
    if len > KEYS_LIMIT {
        return Err(DecodeError::new(at, DecodeErrorKind::TooManyKeys));
    }
    let start = reader.pos();
    if len == 1 {
        reader.text(Expected::Text)?;
        skip(reader)?;
    } else {
        many(reader, len)?;
    }
    Ok(Map { len, entries: reader.since(start) })
}

fn many(reader: &mut Reader<'_>, len: usize) -> Result<(), DecodeError> {
    let mut keys = Vec::<Key<'_>, KEYS_LIMIT>::new();
    for _ in 0..len {
        let at = reader.pos();
        let key = reader.text(Expected::Text)?;
        keys.push((key, at)).map_err(|_| DecodeError::new(at, DecodeErrorKind::TooManyKeys))?;
        skip(reader)?;
    }
    match duplicate(&mut keys) {
        Some(at) => Err(DecodeError::new(at, DecodeErrorKind::DuplicateKey)),
        None => Ok(()),
    }
}

/// The offset of the first key that has stood before.
fn duplicate(keys: &mut [Key<'_>]) -> Option<usize> {
    if keys.len() <= PAIRWISE {
        let repeats =
            |&(i, (key, _)): &(usize, &Key<'_>)| keys.iter().take(i).any(|(before, _)| before == key);
        return keys.iter().enumerate().find(repeats).map(|(_, &(_, at))| at);
    }
    // Comparing each with each would let 64 long keys cost 32 times their bytes.
    keys.sort_unstable();
    let repeats = keys.windows(2).filter_map(|pair| match pair {
        [(a, _), (b, at)] if a == b => Some(*at),
        _ => None,
    });
    repeats.min()
}

/// The value of `key` among checked pairs.
pub(super) fn get<'a>(entries: &'a [u8], key: &str) -> Option<Item<'a>> {
    let mut reader = Reader::new(entries);
    while reader.left() > 0 {
        let len = reader.definite(major::TEXT, Expected::Text).ok()?;
        let found = reader.advance(0, len).ok()? == key.as_bytes();
        let value = Item::read(&mut reader).ok()?;
        if found {
            return Some(value);
        }
    }
    None
}
