//! One well-formed CBOR item: the check, the borrowed item, and looking into it.

use core::fmt;

use heapless::Vec;

use super::token::{BREAK, NULL, Reader, major};
use super::{DecodeError, DecodeErrorKind, Expected, map};

/// How deep arrays, maps and tags may nest in one item (§5.3). A scalar has depth 0, `[]` depth 1.
pub const DEPTH_LIMIT: usize = 64;

/// Exactly one well-formed CBOR item, nested no deeper than [`DEPTH_LIMIT`], as it stands in a message.
///
/// Well-formed (§5.3) is all that is promised: text inside may be no UTF-8, and maps may repeat keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Item<'a>(&'a [u8]);

impl<'a> Item<'a> {
    /// Null.
    pub const NULL: Self = Self(&[NULL]);

    /// Checks that `bytes` is one item and nothing else.
    ///
    /// # Errors
    ///
    /// Whatever is ill-formed, too deep, missing or too much, with its offset in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        skip(&mut reader)?;
        reader.end()?;
        Ok(Self(bytes))
    }

    /// The item that `reader` stands before.
    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let start = reader.pos();
        skip(reader)?;
        Ok(Self(reader.since(start)))
    }

    /// `bytes` that have passed the check before.
    #[cfg(feature = "alloc")]
    pub(crate) const fn trusted(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The encoded elements of an array, one behind the other, without its head and its break.
    #[cfg(feature = "alloc")]
    pub(crate) fn elements(self) -> Option<&'a [u8]> {
        let mut reader = Reader::new(self.0);
        let head = reader.head().ok().filter(|head| head.major == major::ARRAY)?;
        let behind = self.0.get(reader.pos()..)?;
        if head.is_indefinite() { Some(behind.split_last()?.1) } else { Some(behind) }
    }

    /// The length of the first of several items that lie one behind the other, all of which have been checked before.
    #[cfg(feature = "alloc")]
    pub(crate) fn first_len(items: &[u8]) -> usize {
        let mut reader = Reader::new(items);
        match skip(&mut reader) {
            Ok(()) => reader.pos(),
            Err(_) => items.len(),
        }
    }

    /// Whether the item may be an element of an array: that takes one of the levels of nesting.
    #[cfg(feature = "alloc")]
    pub(crate) fn fits_in_array(self) -> bool {
        let nests = self.0.first().is_some_and(|first| (major::ARRAY..=major::TAG).contains(&(first >> 5)));
        // Each level takes a byte.
        !nests
            || self.0.len() < DEPTH_LIMIT
            || skip_within::<{ DEPTH_LIMIT - 1 }>(&mut Reader::new(self.0)).is_ok()
    }

    /// The encoded item.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether this is null.
    #[must_use]
    pub const fn is_null(self) -> bool {
        matches!(self.0, [NULL])
    }

    /// The value of an unsigned integer, in whatever form it is written.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        Reader::new(self.0).unsigned(Expected::Unsigned).ok()
    }

    /// The value of a text string of definite length and valid UTF-8.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        Reader::new(self.0).text(Expected::Text).ok()
    }

    /// The value of `true` or `false`.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        Reader::new(self.0).boolean().ok()
    }

    /// The content of a byte string of definite length.
    #[must_use]
    pub fn as_byte_str(self) -> Option<&'a [u8]> {
        let mut reader = Reader::new(self.0);
        let len = reader.definite(major::BYTES, Expected::Bytes).ok()?;
        reader.advance(0, len).ok()
    }

    /// The entries of a map whose keys are unique text, as the maps of the handshake are (§6.2).
    ///
    /// # Errors
    ///
    /// Where this is no map, of definite or indefinite length, has more than
    /// [`KEYS_LIMIT`](super::KEYS_LIMIT) keys, a key that is no text of definite length and valid UTF-8, or a
    /// key twice. All of it is checked here, before the first entry.
    pub fn map(self) -> Result<MapIter<'a>, DecodeError> {
        let mut reader = Reader::new(self.0);
        Ok(MapIter::trusted(map::read_any(&mut reader, Expected::Map)?.entries))
    }

    /// The elements of an array of definite or indefinite length.
    ///
    /// # Errors
    ///
    /// Where this is no array.
    pub fn array(self) -> Result<ArrayIter<'a>, DecodeError> {
        let mut reader = Reader::new(self.0);
        match reader.head() {
            Ok(head) if head.major == major::ARRAY => Ok(ArrayIter { reader }),
            _ => Err(DecodeError::new(0, DecodeErrorKind::Unexpected(Expected::Array))),
        }
    }
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Item(")?;
        debug_bytes(self.0, f)?;
        f.write_str(")")
    }
}

/// The first bytes in hex, and how many there are if those are not all.
pub(super) fn debug_bytes(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SHOWN: usize = 32;
    for byte in bytes.iter().take(SHOWN) {
        write!(f, "{byte:02x}")?;
    }
    if bytes.len() > SHOWN { write!(f, "... {} bytes", bytes.len()) } else { Ok(()) }
}

/// The entries of a map with text keys. Made by [`Item::map`] and [`Meta::iter`](super::Meta::iter).
#[derive(Clone)]
pub struct MapIter<'a> {
    reader: Reader<'a>,
}

impl<'a> MapIter<'a> {
    /// Goes over pairs that have been checked before, without their map head.
    pub(super) const fn trusted(entries: &'a [u8]) -> Self {
        Self { reader: Reader::new(entries) }
    }
}

impl<'a> Iterator for MapIter<'a> {
    type Item = (&'a str, Item<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.left() == 0 {
            return None;
        }
        let key = self.reader.text(Expected::Text).ok()?;
        Some((key, Item::read(&mut self.reader).ok()?))
    }
}

impl fmt::Debug for MapIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.clone()).finish()
    }
}

/// The elements of an array. Made by [`Item::array`].
#[derive(Clone)]
pub struct ArrayIter<'a> {
    /// Stands behind the head. The array is the whole input, so the end of the one is the end of the other.
    reader: Reader<'a>,
}

impl<'a> Iterator for ArrayIter<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.peek() {
            None | Some(BREAK) => None,
            Some(_) => Item::read(&mut self.reader).ok(),
        }
    }
}

impl fmt::Debug for ArrayIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// An array, a map or a tag whose end has not been reached.
#[derive(Clone, Copy)]
enum Open {
    /// This many items are still to come: elements, keys and values alike, or the one behind a tag.
    Counted(u64),
    /// An array that ends with a break.
    Array,
    /// A map that ends with a break; whether a value must come first.
    Map { value_due: bool },
}

/// Passes over one well-formed item. Takes time in proportion to its bytes, and no memory but its stack
/// frame.
pub(super) fn skip(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    // Most items hold no others: for these nothing has to be remembered.
    let mut ahead = reader.clone();
    match ahead.head() {
        Ok(head) if head.major <= major::TEXT && !head.is_indefinite() => {
            if head.major >= major::BYTES {
                ahead.advance(reader.pos(), head.value)?;
            }
            *reader = ahead;
            Ok(())
        }
        _ => skip_within::<DEPTH_LIMIT>(reader),
    }
}

fn skip_within<const DEPTH: usize>(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let mut open = Vec::<Open, DEPTH>::new();
    loop {
        let at = reader.pos();
        let head = reader.head()?;
        let opened = match head.major {
            major::UNSIGNED | major::NEGATIVE if head.is_indefinite() => {
                return Err(DecodeError::new(at, DecodeErrorKind::Reserved));
            }
            major::UNSIGNED | major::NEGATIVE => None,
            major::BYTES | major::TEXT if head.is_indefinite() => {
                chunks(reader, head.major)?;
                None
            }
            major::BYTES | major::TEXT => {
                reader.advance(at, head.value)?;
                None
            }
            major::ARRAY if head.is_indefinite() => Some(Open::Array),
            major::ARRAY => Some(counted(reader, at, head.value, 1)?),
            major::MAP if head.is_indefinite() => Some(Open::Map { value_due: false }),
            major::MAP => Some(counted(reader, at, head.value, 2)?),
            major::TAG if head.is_indefinite() => {
                return Err(DecodeError::new(at, DecodeErrorKind::Reserved));
            }
            major::TAG => Some(Open::Counted(1)),
            _ if head.is_indefinite() => {
                close(&mut open, at)?;
                None
            }
            _ if head.info == 24 && head.value < 32 => {
                return Err(DecodeError::new(at, DecodeErrorKind::Reserved));
            }
            _ => None,
        };
        if let Some(opened) = opened {
            open.push(opened).map_err(|_| DecodeError::new(at, DecodeErrorKind::TooDeep))?;
            if !matches!(opened, Open::Counted(0)) {
                continue;
            }
            open.pop();
        }
        if is_complete(&mut open) {
            return Ok(());
        }
    }
}

/// An array or map of `count` elements of `size` items each. Every item takes a byte at least, so a count
/// that cannot be is refused here, and a count that can is far from overflowing.
#[inline]
fn counted(reader: &Reader<'_>, at: usize, count: u64, size: u64) -> Result<Open, DecodeError> {
    match count.checked_mul(size) {
        Some(items) if items <= reader.left() as u64 => Ok(Open::Counted(items)),
        _ => Err(DecodeError::new(at, DecodeErrorKind::Truncated)),
    }
}

/// Passes over the chunks of a string of indefinite length, and its break.
fn chunks(reader: &mut Reader<'_>, major: u8) -> Result<(), DecodeError> {
    while !reader.eat(BREAK) {
        let at = reader.pos();
        let head = reader.head()?;
        if head.major != major || head.is_indefinite() {
            return Err(DecodeError::new(at, DecodeErrorKind::InvalidChunk));
        }
        reader.advance(at, head.value)?;
    }
    Ok(())
}

/// Takes the break at `at`: it ends the innermost open item, if that is one that a break ends.
fn close<const DEPTH: usize>(open: &mut Vec<Open, DEPTH>, at: usize) -> Result<(), DecodeError> {
    match open.last() {
        Some(Open::Array | Open::Map { value_due: false }) => {
            open.pop();
            Ok(())
        }
        _ => Err(DecodeError::new(at, DecodeErrorKind::UnexpectedBreak)),
    }
}

/// An item is complete: counts it in what it lies in, closes what that completes, and says whether nothing is
/// open.
#[inline]
fn is_complete<const DEPTH: usize>(open: &mut Vec<Open, DEPTH>) -> bool {
    loop {
        match open.last_mut() {
            None => return true,
            Some(Open::Counted(left)) if *left > 1 => {
                *left -= 1;
                return false;
            }
            Some(Open::Counted(_)) => {
                open.pop();
            }
            Some(Open::Array) => return false,
            Some(Open::Map { value_due }) => {
                *value_due = !*value_due;
                return false;
            }
        }
    }
}
