//! Messages and items made from arbitrary bytes: the same bytes, the same message.

use std::string::String;
use std::vec::Vec;

use crate::message::{
    Code, DEPTH_LIMIT, Envelope, ErrorRef, Id, Item, KEYS_LIMIT, Kind, MetaBuf, TARGET_LIMIT,
};

/// Bytes that decide what is made. When they have run out it yields zeros, which make the plainest things.
#[derive(Debug)]
pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    /// Decides by `data`.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    /// Any number; small ones and those at the edges of the CBOR forms as often as all others.
    pub fn u64(&mut self) -> u64 {
        match self.below(8) {
            0..3 => u64::from(self.byte()),
            3 => 1 << (8 << self.below(3)),
            4 => (1 << (8 << self.below(3))) - 1,
            5 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_be_bytes(self.array()),
        }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.byte())
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    /// Up to `most` bytes: from the source, or, now and then, many of them.
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = if self.below(16) == 15 { usize::from(self.byte()) * 4 } else { self.below(12).into() };
        let fill = self.byte();
        (0..len.min(most)).map(|i| if i < 8 { self.byte() } else { fill }).collect()
    }

    fn text(&mut self, most: usize) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes(most / 3)).into_owned();
        text.truncate(text.floor_char_boundary(most));
        text
    }
}

/// A message that owns its parts.
#[derive(Clone, Debug)]
pub struct Message {
    kind: Kind,
    id: Id,
    reference: Option<Id>,
    target: Option<String>,
    meta: MetaBuf<8192>,
    payload: Vec<u8>,
    error: Option<Failure>,
}

#[derive(Clone, Debug)]
struct Failure {
    code: Code,
    message: Option<String>,
    data: Option<Vec<u8>>,
    retry_after_ms: Option<u64>,
    processed: Option<bool>,
}

impl Message {
    /// A message that its receiver must accept.
    pub fn generate(source: &mut Source<'_>) -> Self {
        let kind = Kind::from_code(1 + source.below(7)).unwrap_or(Kind::Call);
        let id = Id::from_bytes(source.array());
        let reference = source.maybe(|source| Id::from_bytes(source.array()));
        let target = source.maybe(|source| source.text(TARGET_LIMIT));
        let mut meta = MetaBuf::new();
        if source.flag() {
            let len = if source.below(8) == 7 { KEYS_LIMIT as u8 } else { source.below(6) };
            for _ in 0..len {
                // A key twice or a full buffer: one entry fewer.
                let _ = meta.item(&source.text(40), generated(&item(source)));
            }
        }
        let error = source.maybe(Failure::generate);
        let payload = if error.is_some() { Item::NULL.as_bytes().to_vec() } else { item(source) };
        Self { kind, id, reference, target, meta, payload, error }
    }

    /// The message, borrowed.
    #[must_use]
    pub fn envelope(&self) -> Envelope<'_> {
        Envelope {
            kind: self.kind,
            id: self.id,
            reference: self.reference,
            target: self.target.as_deref(),
            meta: self.meta.as_meta(),
            payload: generated(&self.payload),
            error: self.error.as_ref().map(Failure::as_ref),
        }
    }
}

impl Failure {
    fn generate(source: &mut Source<'_>) -> Self {
        Self {
            code: Code((source.u64() as u32).max(1)),
            message: source.maybe(|source| source.text(300)),
            data: source.maybe(item),
            retry_after_ms: source.maybe(Source::u64),
            processed: source.maybe(Source::flag),
        }
    }

    fn as_ref(&self) -> ErrorRef<'_> {
        ErrorRef {
            code: self.code,
            message: self.message.as_deref(),
            data: self.data.as_deref().map(generated),
            retry_after_ms: self.retry_after_ms,
            processed: self.processed,
        }
    }
}

/// What is made here is well-formed, or the check or the making is wrong.
fn generated(bytes: &[u8]) -> Item<'_> {
    Item::new(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"))
}

/// One well-formed item of depth [`DEPTH_LIMIT`] at most, in any form that CBOR has for it.
#[must_use]
pub fn item(source: &mut Source<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let wrappers = if source.below(32) == 31 { source.below(DEPTH_LIMIT as u8 + 1).into() } else { 0 };
    (0..wrappers).for_each(|_| wrap(source, &mut out));
    put(source, &mut out, (DEPTH_LIMIT - wrappers).min(5));
    out
}

/// Opens something that one item completes.
fn wrap(source: &mut Source<'_>, out: &mut Vec<u8>) {
    match source.below(3) {
        0 => head(source, out, 4, 1),
        1 => {
            head(source, out, 5, 1);
            out.push(0);
        }
        _ => {
            let tag = source.u64();
            head(source, out, 6, tag);
        }
    }
}

/// Puts one item of at most this depth.
fn put(source: &mut Source<'_>, out: &mut Vec<u8>, depth: usize) {
    match source.below(if depth == 0 { 8 } else { 16 }) {
        0..4 => {
            let value = source.u64();
            let major = source.below(2);
            head(source, out, major, value);
        }
        4 | 5 => string(source, out),
        6 | 7 => simple(source, out),
        8..11 => put_many(source, out, 4, depth),
        11..14 => put_many(source, out, 5, depth),
        _ => {
            let tag = source.u64();
            head(source, out, 6, tag);
            put(source, out, depth - 1);
        }
    }
}

fn put_many(source: &mut Source<'_>, out: &mut Vec<u8>, major: u8, depth: usize) {
    let count = source.below(5);
    let indefinite = source.below(4) == 3;
    if indefinite {
        out.push(major << 5 | 31);
    } else {
        head(source, out, major, count.into());
    }
    let items = if major == 5 { count * 2 } else { count };
    (0..items).for_each(|_| put(source, out, depth - 1));
    if indefinite {
        out.push(0xff);
    }
}

fn string(source: &mut Source<'_>, out: &mut Vec<u8>) {
    let major = 2 + source.below(2);
    let chunk = |source: &mut Source<'_>, out: &mut Vec<u8>| {
        let bytes = source.bytes(2000);
        head(source, out, major, bytes.len() as u64);
        out.extend(bytes);
    };
    if source.below(4) < 3 {
        return chunk(source, out);
    }
    out.push(major << 5 | 31);
    (0..source.below(4)).for_each(|_| chunk(source, out));
    out.push(0xff);
}

fn simple(source: &mut Source<'_>, out: &mut Vec<u8>) {
    match source.below(8) {
        0..4 => out.push(0xf4 + source.below(4)),
        4 => out.push(0xe0 + source.below(20)),
        5 => out.extend([0xf8, 32 + source.below(224)]),
        6 => {
            out.push(0xf9);
            out.extend(source.array::<2>());
        }
        _ if source.flag() => {
            out.push(0xfa);
            out.extend(source.array::<4>());
        }
        _ => {
            out.push(0xfb);
            out.extend(source.array::<8>());
        }
    }
}

/// Puts a head in its shortest form, mostly, or in a longer one.
fn head(source: &mut Source<'_>, out: &mut Vec<u8>, major: u8, value: u64) {
    let shortest = match value {
        0..24 => 0,
        24..0x100 => 1,
        0x100..0x1_0000 => 2,
        0x1_0000..0x1_0000_0000 => 3,
        _ => 4,
    };
    let longer = if source.below(4) == 3 { source.below(5) } else { 0 };
    let form = (shortest + longer).min(4);
    let bytes = value.to_be_bytes();
    match form {
        0 => out.push(major << 5 | bytes[7]),
        form => {
            out.push(major << 5 | (23 + form));
            out.extend(&bytes[8 - (1 << (form - 1))..]);
        }
    }
}
