//! From a message to bytes (§5.2): always the shortest form, in one pass, of a length known beforehand.

use minicbor::encode::Write;

use super::token::{NULL, major};
use super::{ENVELOPE, Envelope, ErrorRef, Id, TARGET_LIMIT};

/// A head of one to nine bytes, in its shortest form.
#[derive(Clone, Copy)]
pub(super) struct Head {
    bytes: [u8; 9],
    len: u8,
}

impl Head {
    /// A head of major type `major` with the argument `value`.
    #[inline]
    pub(super) const fn new(major: u8, value: u64) -> Self {
        let first = major << 5;
        let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
        match value {
            0..24 => Self { bytes: [first | h, 0, 0, 0, 0, 0, 0, 0, 0], len: 1 },
            24..0x100 => Self { bytes: [first | 24, h, 0, 0, 0, 0, 0, 0, 0], len: 2 },
            0x100..0x1_0000 => Self { bytes: [first | 25, g, h, 0, 0, 0, 0, 0, 0], len: 3 },
            0x1_0000..0x1_0000_0000 => Self { bytes: [first | 26, e, f, g, h, 0, 0, 0, 0], len: 5 },
            _ => Self { bytes: [first | 27, a, b, c, d, e, f, g, h], len: 9 },
        }
    }

    /// One byte that is a whole item.
    pub(super) const fn simple(byte: u8) -> Self {
        Self { bytes: [byte, 0, 0, 0, 0, 0, 0, 0, 0], len: 1 }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    const fn len(self) -> usize {
        self.len as usize
    }
}

/// The item `true` or `false`.
pub(super) const fn boolean(value: bool) -> u8 {
    0xf4 + value as u8
}

const fn text_len(text: &str) -> usize {
    Head::new(major::TEXT, text.len() as u64).len() + text.len()
}

fn write_text<W: Write + ?Sized>(text: &str, out: &mut W) -> Result<(), W::Error> {
    out.write_all(Head::new(major::TEXT, text.len() as u64).as_bytes())?;
    out.write_all(text.as_bytes())
}

fn write_uint<W: Write + ?Sized>(value: u64, out: &mut W) -> Result<(), W::Error> {
    out.write_all(Head::new(major::UNSIGNED, value).as_bytes())
}

impl Envelope<'_> {
    /// Writes the whole message: the body of a frame before compression and encryption.
    ///
    /// What is written is a message only where the caller keeps the rules that types do not: a target of at
    /// most [`TARGET_LIMIT`] bytes (§5.8), and a null payload beside an error (§5.11).
    ///
    /// # Errors
    ///
    /// Only those of `out`; a `Vec` has none.
    ///
    /// # Panics
    ///
    /// With debug assertions, where those rules are broken.
    #[inline]
    pub fn encode<W: Write + ?Sized>(&self, out: &mut W) -> Result<(), W::Error> {
        debug_assert!(self.error.is_none() || self.payload.is_null(), "payload beside an error");
        self.encode_head(out)?;
        out.write_all(self.payload.as_bytes())?;
        self.encode_tail(out)
    }

    /// Writes everything before the payload: array head, type, id, ref, target and meta.
    ///
    /// # Errors
    ///
    /// As [`Envelope::encode`].
    #[inline]
    pub fn encode_head<W: Write + ?Sized>(&self, out: &mut W) -> Result<(), W::Error> {
        debug_assert!(self.target.is_none_or(|target| target.len() <= TARGET_LIMIT), "target too long");
        const ID: u8 = major::BYTES << 5 | Id::LEN as u8;
        let [kind, id] = [self.kind.code(), ID];
        match self.reference {
            None => {
                let mut fixed = [NULL; 20];
                let [a, b, c, bytes @ .., _] = &mut fixed;
                [*a, *b, *c] = [ENVELOPE, kind, id];
                *bytes = self.id.to_bytes();
                out.write_all(&fixed)?;
            }
            Some(reference) => {
                let mut fixed = [id; 36];
                if let ([a, b, _, bytes @ ..], [_, reference_bytes @ ..]) = fixed.split_at_mut(19) {
                    [*a, *b] = [ENVELOPE, kind];
                    bytes.copy_from_slice(self.id.as_bytes());
                    reference_bytes.copy_from_slice(reference.as_bytes());
                }
                out.write_all(&fixed)?;
            }
        }
        match self.target {
            None => out.write_all(&[NULL])?,
            Some(target) => write_text(target, out)?,
        }
        out.write_all(self.meta.head().as_bytes())?;
        if self.meta.is_empty() { Ok(()) } else { out.write_all(self.meta.entries()) }
    }

    /// Writes everything after the payload: the error, or null.
    ///
    /// # Errors
    ///
    /// As [`Envelope::encode`].
    #[inline]
    pub fn encode_tail<W: Write + ?Sized>(&self, out: &mut W) -> Result<(), W::Error> {
        match &self.error {
            None => out.write_all(&[NULL]),
            Some(error) => error.encode(out),
        }
    }

    /// How many bytes [`Envelope::encode`] writes, exactly.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let reference = if self.reference.is_some() { 1 + Id::LEN } else { 1 };
        let meta = self.meta.head().len() + self.meta.entries().len();
        let error = self.error.as_ref().map_or(1, ErrorRef::encoded_len);
        3 + Id::LEN
            + reference
            + self.target.map_or(1, text_len)
            + meta
            + self.payload.as_bytes().len()
            + error
    }
}

impl ErrorRef<'_> {
    fn pairs(&self) -> u64 {
        let optional = [
            self.message.is_some(),
            self.data.is_some(),
            self.retry_after_ms.is_some(),
            self.processed.is_some(),
        ];
        1 + optional.into_iter().map(u64::from).sum::<u64>()
    }

    fn encode<W: Write + ?Sized>(&self, out: &mut W) -> Result<(), W::Error> {
        out.write_all(Head::new(major::MAP, self.pairs()).as_bytes())?;
        write_text("code", out)?;
        write_uint(u64::from(self.code.to_wire()), out)?;
        if let Some(message) = self.message {
            write_text("message", out)?;
            write_text(message, out)?;
        }
        if let Some(data) = self.data {
            write_text("data", out)?;
            out.write_all(data.as_bytes())?;
        }
        if let Some(retry_after_ms) = self.retry_after_ms {
            write_text("retry_after_ms", out)?;
            write_uint(retry_after_ms, out)?;
        }
        if let Some(processed) = self.processed {
            write_text("processed", out)?;
            out.write_all(&[boolean(processed)])?;
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        let uint = |value| Head::new(major::UNSIGNED, value).len();
        let code = text_len("code") + uint(u64::from(self.code.to_wire()));
        let message = self.message.map_or(0, |message| text_len("message") + text_len(message));
        let data = self.data.map_or(0, |data| text_len("data") + data.as_bytes().len());
        let retry_after_ms = self.retry_after_ms.map_or(0, |ms| text_len("retry_after_ms") + uint(ms));
        let processed = self.processed.map_or(0, |_| text_len("processed") + 1);
        1 + code + message + data + retry_after_ms + processed
    }
}
