//! The strict maps of the protocol: definite, unique text keys, and not many of them.

use heapless::Vec;

use super::item::{Item, skip};
use super::token::{BREAK, Reader, major};
use super::{DecodeError, DecodeErrorKind, Expected};

/// How many keys `meta` (§5.9), `error` (§5.12) and the maps of the handshake (§6.2) may have.
pub const KEYS_LIMIT: usize = 64;

/// The head of a map of indefinite length.
const INDEFINITE: u8 = 0xbf;

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
        pairs(reader, |_, read| read < len)?;
    }
    Ok(Map { len, entries: reader.since(start) })
}

/// As [`read`], for a map that may have an indefinite length too.
pub(super) fn read_any<'a>(reader: &mut Reader<'a>, expected: Expected) -> Result<Map<'a>, DecodeError> {
    if !reader.eat(INDEFINITE) {
        return read(reader, expected);
    }
    let start = reader.pos();
    let len = pairs(reader, |reader, _| reader.peek() != Some(BREAK))?;
    let entries = reader.since(start);
    reader.eat(BREAK);
    Ok(Map { len, entries })
}

/// Reads pairs for as long as there is another one, by what lies ahead and how many there were. How many there are.
fn pairs<'a>(
    reader: &mut Reader<'a>,
    another: impl Fn(&Reader<'a>, usize) -> bool,
) -> Result<usize, DecodeError> {
    let mut keys = Vec::<Key<'_>, KEYS_LIMIT>::new();
    while another(reader, keys.len()) {
        let at = reader.pos();
        let key = reader.text(Expected::Text)?;
        keys.push((key, at)).map_err(|_| DecodeError::new(at, DecodeErrorKind::TooManyKeys))?;
        skip(reader)?;
    }
    match duplicate(&mut keys) {
        Some(at) => Err(DecodeError::new(at, DecodeErrorKind::DuplicateKey)),
        None => Ok(keys.len()),
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
