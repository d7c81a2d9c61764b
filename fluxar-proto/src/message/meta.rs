//! `meta`: what a message says about itself (§5.9).

use core::fmt;

use heapless::Vec;

use super::encode::{self, Head};
use super::item::{Item, MapIter};
use super::token::{NULL, Reader, major};
use super::{DecodeError, Expected, KEYS_LIMIT, map};

/// The `meta` of a message: a map with unique text keys, checked. Null and the empty map mean the same.
#[derive(Clone, Copy, Default)]
pub struct Meta<'a> {
    len: u8,
    entries: &'a [u8],
}

impl<'a> Meta<'a> {
    /// No entries.
    pub const EMPTY: Self = Self { len: 0, entries: &[] };

    /// Checks that `bytes` is what `meta` may be, null or a map, and nothing else.
    ///
    /// # Errors
    ///
    /// As [`Item::map`], with the offset in `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let meta = Self::read(&mut reader)?;
        reader.end()?;
        Ok(meta)
    }

    /// `len` encoded pairs, whose keys are known to be text and unique.
    #[cfg(feature = "alloc")]
    pub(crate) const fn trusted(len: usize, entries: &'a [u8]) -> Self {
        Self { len: len as u8, entries }
    }

    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if reader.eat(NULL) {
            return Ok(Self::EMPTY);
        }
        let map = map::read(reader, Expected::MapOrNull)?;
        Ok(Self { len: map.len as u8, entries: map.entries })
    }

    /// How many entries there are; at most [`KEYS_LIMIT`].
    #[must_use]
    pub const fn len(self) -> usize {
        self.len as usize
    }

    /// Whether there are no entries.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Item<'a>> {
        map::get(self.entries, key)
    }

    /// The value of `key`, where it is an unsigned integer.
    #[must_use]
    pub fn get_u64(self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// The value of `key`, where it is a text string of definite length and valid UTF-8.
    #[must_use]
    pub fn get_str(self, key: &str) -> Option<&'a str> {
        self.get(key)?.as_str()
    }

    /// The value of `key`, where it is `true` or `false`.
    #[must_use]
    pub fn get_bool(self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// The entries, in the order in which they were sent.
    #[must_use]
    pub const fn iter(self) -> MapIter<'a> {
        MapIter::trusted(self.entries)
    }

    /// The encoded pairs, without the head of the map.
    #[must_use]
    pub const fn entries(self) -> &'a [u8] {
        self.entries
    }

    /// What goes in front of the entries: null instead of an empty map.
    pub(super) const fn head(self) -> Head {
        if self.len == 0 { Head::simple(NULL) } else { Head::new(major::MAP, self.len as u64) }
    }
}

/// Equal entries in the same order, written the same way.
impl PartialEq for Meta<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for Meta<'_> {}

impl fmt::Debug for Meta<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().fmt(f)
    }
}

impl<'a> IntoIterator for Meta<'a> {
    type Item = (&'a str, Item<'a>);
    type IntoIter = MapIter<'a>;

    fn into_iter(self) -> MapIter<'a> {
        self.iter()
    }
}

/// Why an entry was not added to a [`MetaBuf`]. The buffer is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaError {
    /// The bytes of the buffer do not suffice.
    Full,
    /// A map of the protocol has no more than [`KEYS_LIMIT`] keys.
    TooManyKeys,
    /// The key is there.
    DuplicateKey,
}

impl fmt::Display for MetaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no room for the meta entry",
            Self::TooManyKeys => "more than 64 meta keys",
            Self::DuplicateKey => "meta key twice",
        })
    }
}

impl core::error::Error for MetaError {}

/// Collects the entries of a `meta`, in at most `N` bytes and without an allocator.
///
/// ```
/// use fluxar_proto::message::{MetaBuf, key};
///
/// let mut meta = MetaBuf::<64>::new();
/// meta.uint(key::TIMEOUT_MS, 2_500)?;
/// meta.text("trace_id", "abc123")?;
/// assert_eq!(meta.as_meta().get_u64("timeout_ms"), Some(2_500));
/// # Ok::<(), fluxar_proto::message::MetaError>(())
/// ```
#[derive(Clone, Default)]
pub struct MetaBuf<const N: usize> {
    len: u8,
    entries: Vec<u8, N, usize>,
}

impl<const N: usize> MetaBuf<N> {
    /// No entries.
    #[must_use]
    pub const fn new() -> Self {
        Self { len: 0, entries: Vec::new() }
    }

    /// Adds an unsigned integer.
    ///
    /// # Errors
    ///
    /// Where there is no room for it, or `key` is there.
    pub fn uint(&mut self, key: &str, value: u64) -> Result<(), MetaError> {
        self.add(key, &[Head::new(major::UNSIGNED, value).as_bytes()])
    }

    /// Adds a text string.
    ///
    /// # Errors
    ///
    /// As [`MetaBuf::uint`].
    pub fn text(&mut self, key: &str, value: &str) -> Result<(), MetaError> {
        self.add(key, &[Head::new(major::TEXT, value.len() as u64).as_bytes(), value.as_bytes()])
    }

    /// Adds `true` or `false`.
    ///
    /// # Errors
    ///
    /// As [`MetaBuf::uint`].
    pub fn bool(&mut self, key: &str, value: bool) -> Result<(), MetaError> {
        self.add(key, &[&[encode::boolean(value)]])
    }

    /// Adds any item.
    ///
    /// # Errors
    ///
    /// As [`MetaBuf::uint`].
    pub fn item(&mut self, key: &str, value: Item<'_>) -> Result<(), MetaError> {
        self.add(key, &[value.as_bytes()])
    }

    /// Adds all entries of `meta`, or none.
    ///
    /// # Errors
    ///
    /// As [`MetaBuf::uint`], for whichever entry fails first.
    pub fn extend(&mut self, meta: Meta<'_>) -> Result<(), MetaError> {
        let (len, bytes) = (self.len, self.entries.len());
        let added = meta.iter().try_for_each(|(key, value)| self.item(key, value));
        if added.is_err() {
            self.len = len;
            self.entries.truncate(bytes);
        }
        added
    }

    /// The entries so far.
    #[must_use]
    pub fn as_meta(&self) -> Meta<'_> {
        Meta { len: self.len, entries: &self.entries }
    }

    /// Takes all entries out.
    pub fn clear(&mut self) {
        self.len = 0;
        self.entries.clear();
    }

    fn add(&mut self, key: &str, value: &[&[u8]]) -> Result<(), MetaError> {
        if self.as_meta().get(key).is_some() {
            return Err(MetaError::DuplicateKey);
        }
        if usize::from(self.len) == KEYS_LIMIT {
            return Err(MetaError::TooManyKeys);
        }
        let before = self.entries.len();
        let head = Head::new(major::TEXT, key.len() as u64);
        let mut parts = [head.as_bytes(), key.as_bytes()].into_iter().chain(value.iter().copied());
        if parts.try_for_each(|part| self.entries.extend_from_slice(part)).is_err() {
            self.entries.truncate(before);
            return Err(MetaError::Full);
        }
        self.len += 1;
        Ok(())
    }
}

impl<const N: usize> fmt::Debug for MetaBuf<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_meta().fmt(f)
    }
}
