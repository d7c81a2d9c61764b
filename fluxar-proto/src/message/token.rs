//! The tokens of CBOR: one head after another, strictly, without recursion and without allocation.

use super::{DecodeError, DecodeErrorKind, Expected};

/// Major types of RFC 8949, section 3.1.
pub(super) mod major {
    pub(crate) const UNSIGNED: u8 = 0;
    pub(crate) const NEGATIVE: u8 = 1;
    pub(crate) const BYTES: u8 = 2;
    pub(crate) const TEXT: u8 = 3;
    pub(crate) const ARRAY: u8 = 4;
    pub(crate) const MAP: u8 = 5;
    pub(crate) const TAG: u8 = 6;
}

/// The initial byte of null.
pub(super) const NULL: u8 = 0xf6;
/// The byte that ends an item of indefinite length.
pub(super) const BREAK: u8 = 0xff;
/// The additional information that means an indefinite length, or a break.
const INDEFINITE: u8 = 31;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

/// An initial byte and the argument behind it.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) major: u8,
    /// The five low bits of the initial byte.
    pub(super) info: u8,
    /// The argument; 0 where the length is indefinite.
    pub(super) value: u64,
}

impl Head {
    pub(super) const fn is_indefinite(self) -> bool {
        self.info == INDEFINITE
    }
}

/// Reads tokens from the front of `input`, and knows where it is.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    input: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(input: &'a [u8]) -> Self {
        Self { input, pos: 0 }
    }

    /// The offset of the next byte.
    pub(super) const fn pos(&self) -> usize {
        self.pos
    }

    pub(super) const fn left(&self) -> usize {
        self.input.len() - self.pos
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.input.get(self.pos).copied()
    }

    /// The bytes read since `start`.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.input.get(start..self.pos).unwrap_or_default()
    }

    /// Passes over the next byte if it is `byte`.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    /// The next `N` bytes, if there are as many.
    #[inline]
    pub(super) fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let chunk = self.input.get(self.pos..)?.first_chunk()?;
        self.pos += N;
        Some(chunk)
    }

    /// Reads one head. What major type 7 holds, and whether an indefinite length may stand here, is the
    /// caller's business.
    #[inline(always)]
    pub(super) fn head(&mut self) -> Result<Head, DecodeError> {
        let at = self.pos;
        let Some(first) = self.peek() else {
            return Err(DecodeError::new(at, DecodeErrorKind::Truncated));
        };
        self.pos = at + 1;
        let (major, info) = (first >> 5, first & 31);
        let value = if info < 24 { u64::from(info) } else { self.argument(at, info)? };
        Ok(Head { major, info, value })
    }

    #[inline]
    fn argument(&mut self, at: usize, info: u8) -> Result<u64, DecodeError> {
        let value = match info {
            24 => self.chunk().map(|&[byte]| u64::from(byte)),
            25 => self.chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes))),
            26 => self.chunk().map(|bytes| u64::from(u32::from_be_bytes(*bytes))),
            27 => self.chunk().map(|bytes| u64::from_be_bytes(*bytes)),
            INDEFINITE => Some(0),
            _ => return Err(DecodeError::new(at, DecodeErrorKind::Reserved)),
        };
        value.ok_or(DecodeError::new(at, DecodeErrorKind::Truncated))
    }

    /// Passes over `len` bytes that belong to the token at `at`.
    #[inline]
    pub(super) fn advance(&mut self, at: usize, len: u64) -> Result<&'a [u8], DecodeError> {
        let bytes = usize::try_from(len).ok().and_then(|len| self.input.get(self.pos..)?.get(..len));
        let bytes = bytes.ok_or(DecodeError::new(at, DecodeErrorKind::Truncated))?;
        self.pos += bytes.len();
        Ok(bytes)
    }

    /// Reads the head of an item that must have major type `major` and a definite length.
    #[inline]
    pub(super) fn definite(&mut self, major: u8, expected: Expected) -> Result<u64, DecodeError> {
        let at = self.pos;
        let head = self.head()?;
        if head.major != major {
            return Err(DecodeError::new(at, DecodeErrorKind::Unexpected(expected)));
        }
        if head.is_indefinite() {
            return Err(DecodeError::new(at, indefinite(major)));
        }
        Ok(head.value)
    }

    /// Reads an unsigned integer in any of its forms.
    pub(super) fn unsigned(&mut self, expected: Expected) -> Result<u64, DecodeError> {
        self.definite(major::UNSIGNED, expected)
    }

    /// Reads a text string of definite length and valid UTF-8.
    #[inline]
    pub(super) fn text(&mut self, expected: Expected) -> Result<&'a str, DecodeError> {
        let at = self.pos;
        let len = self.definite(major::TEXT, expected)?;
        let bytes = self.advance(at, len)?;
        core::str::from_utf8(bytes).map_err(|error| {
            let start = self.pos - bytes.len();
            DecodeError::new(start + error.valid_up_to(), DecodeErrorKind::InvalidUtf8)
        })
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool, DecodeError> {
        if self.eat(TRUE) {
            return Ok(true);
        }
        if self.eat(FALSE) {
            return Ok(false);
        }
        Err(self.unexpected(Expected::Bool))
    }

    /// The error for what stands next, where `expected` should.
    #[cold]
    pub(super) fn unexpected(&self, expected: Expected) -> DecodeError {
        let kind =
            if self.left() == 0 { DecodeErrorKind::Truncated } else { DecodeErrorKind::Unexpected(expected) };
        DecodeError::new(self.pos, kind)
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.left() == 0 {
            Ok(())
        } else {
            Err(DecodeError::new(self.pos, DecodeErrorKind::TrailingBytes))
        }
    }
}

/// What an indefinite length is called where none may stand: for strings, arrays and maps it would be
/// well-formed elsewhere, for the other major types nowhere.
const fn indefinite(major: u8) -> DecodeErrorKind {
    match major {
        major::BYTES | major::TEXT | major::ARRAY | major::MAP => DecodeErrorKind::Indefinite,
        _ => DecodeErrorKind::Reserved,
    }
}
