//! The heads of CBOR items (RFC 8949 §3): initial byte and argument, read and written in every form.

use fluxar_proto::message::Item;

/// Major types.
pub(super) mod major {
    pub(crate) const UNSIGNED: u8 = 0;
    pub(crate) const NEGATIVE: u8 = 1;
    pub(crate) const BYTES: u8 = 2;
    pub(crate) const TEXT: u8 = 3;
    pub(crate) const ARRAY: u8 = 4;
    pub(crate) const MAP: u8 = 5;
    pub(crate) const TAG: u8 = 6;
    pub(crate) const SIMPLE: u8 = 7;
}

/// The byte that ends an item of indefinite length.
pub(super) const BREAK: u8 = 0xff;

/// How an argument is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Width {
    /// In the initial byte.
    Immediate,
    One,
    Two,
    Four,
    Eight,
    Indefinite,
}

impl Width {
    /// The shortest one for `value`.
    pub(super) fn of(value: u64) -> Self {
        match value {
            0..=23 => Self::Immediate,
            24..=0xff => Self::One,
            0x100..=0xffff => Self::Two,
            0x1_0000..=0xffff_ffff => Self::Four,
            _ => Self::Eight,
        }
    }

    /// The one that an encoding indicator names (RFC 8949 §8.1).
    pub(super) fn from_indicator(digit: char) -> Option<Self> {
        match digit {
            '0' => Some(Self::One),
            '1' => Some(Self::Two),
            '2' => Some(Self::Four),
            '3' => Some(Self::Eight),
            _ => None,
        }
    }

    /// The encoding indicator that names it; none for the initial byte, where there is nothing to be said.
    pub(super) fn indicator(self) -> &'static str {
        match self {
            Self::Immediate => "",
            Self::One => "_0",
            Self::Two => "_1",
            Self::Four => "_2",
            Self::Eight => "_3",
            Self::Indefinite => "_",
        }
    }

    fn info(self, value: u64) -> u8 {
        match self {
            Self::Immediate => value as u8 & 31,
            Self::One => 24,
            Self::Two => 25,
            Self::Four => 26,
            Self::Eight => 27,
            Self::Indefinite => 31,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Immediate | Self::Indefinite => 0,
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// Initial byte and argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) major: u8,
    pub(super) width: Width,
    /// The argument; 0 where the length is indefinite.
    pub(super) value: u64,
}

/// Writes a head. The width must hold the value.
pub(super) fn write(out: &mut Vec<u8>, major: u8, width: Width, value: u64) {
    out.push(major << 5 | width.info(value));
    let bytes = value.to_be_bytes();
    out.extend_from_slice(&bytes[bytes.len() - width.len()..]);
}

/// Reads heads and strings from the front of some bytes, whatever they are.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

/// The bytes end too early, or are no CBOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop;

impl<'a> Reader<'a> {
    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], Stop> {
        let len = usize::try_from(len).map_err(|_| Stop)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Stop)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Passes over a break, if one stands here.
    pub(super) fn eat_break(&mut self) -> bool {
        match self.0 {
            [BREAK, rest @ ..] => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    pub(super) fn head(&mut self) -> Result<Head, Stop> {
        let (&first, rest) = self.0.split_first().ok_or(Stop)?;
        let (major, info) = (first >> 5, first & 31);
        let width = match info {
            0..=23 => Width::Immediate,
            24 => Width::One,
            25 => Width::Two,
            26 => Width::Four,
            27 => Width::Eight,
            31 => Width::Indefinite,
            _ => return Err(Stop),
        };
        self.0 = rest;
        let argument = self.take(width.len() as u64)?;
        let value = argument.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        let value = if width == Width::Immediate { u64::from(info) } else { value };
        Ok(Head { major, width, value })
    }
}

/// `bytes` as an encoded byte string.
pub(crate) fn byte_string(bytes: &[u8]) -> Vec<u8> {
    let mut item = Vec::with_capacity(bytes.len() + 9);
    let len = bytes.len() as u64;
    write(&mut item, major::BYTES, Width::of(len), len);
    item.extend_from_slice(bytes);
    item
}

/// The encoded entries of a map of any form; `None` where `bytes` are none.
pub(crate) fn map_entries(bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut reader = Reader(bytes);
    let head = reader.head().ok().filter(|head| head.major == major::MAP)?;
    // Keys and values in turn are an array of twice the length, and that the core knows to take apart.
    let mut array = Vec::with_capacity(bytes.len() + 8);
    match head.width {
        Width::Indefinite => write(&mut array, major::ARRAY, Width::Indefinite, 0),
        _ => write(&mut array, major::ARRAY, Width::Eight, head.value.checked_mul(2)?),
    }
    array.extend_from_slice(reader.0);
    let mut items = Item::new(&array).ok()?.array().ok()?.map(|item| item.as_bytes().to_vec());
    Some(std::iter::from_fn(|| items.next().zip(items.next())).collect())
}
