//! `fluxar decode`: frames, message by message.

mod details;
mod input;
mod meaning;

use std::io::{self, BufWriter, Write};

use fluxar_proto::frame::{self, FrameError};
use fluxar_proto::message::{DecodeError, DecodeErrorKind, Envelope, Kind, verb};

use self::meaning::Opened;
use crate::args::DecodeArgs;
use crate::describe;
use crate::failure::{Exit, Failure};
use crate::notation::{Secrets, diagnostic, discreet, hex, may_hold_secrets, one_line, quoted};

/// A frame that announces as much as this, and is not there, is no frame but something else (§3.5).
const UNLIKELY: u32 = 32 << 20;

/// Characters of a value that are printed, where not all of it is asked for.
const SHOWN: usize = 1000;

/// Bytes before and behind the place of an error that are printed.
const EXCERPT: usize = 8;

/// Bytes before a message that are searched for secrets, before any of them is printed.
const NEIGHBOUR: usize = 64 << 10;

pub(crate) fn run(args: &DecodeArgs) -> Result<(), Failure> {
    let input = input::read(&args.input)?;
    if input.is_empty() {
        return Err(Failure::usage("bad input: there is nothing to decode"));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let printed =
        print(&input, args.bare, args.full, &mut out).and_then(|broken| out.flush().map(|()| broken));
    match printed.map_err(|error| Failure::output(&error))? {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Malformed, "the input is malformed in one place")),
        count => Err(Failure::new(Exit::Malformed, format_args!("the input is malformed in {count} places"))),
    }
}

/// Prints all of `input`; how much of it is malformed.
fn print(input: &[u8], bare: bool, full: bool, out: &mut impl Write) -> io::Result<usize> {
    let mut printer = Printer { input, full, out, opened: Opened::default(), number: 1, malformed: 0 };
    if bare {
        printer.message(0, 0..input.len())?;
    } else {
        printer.frames()?;
    }
    Ok(printer.malformed)
}

struct Printer<'a, W> {
    input: &'a [u8],
    full: bool,
    out: &'a mut W,
    opened: Opened,
    /// The number of the next frame, from 1.
    number: usize,
    malformed: usize,
}

impl<W: Write> Printer<'_, W> {
    fn frames(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.input.len() {
            let rest = &self.input[at..];
            match frame::split(rest, u32::MAX) {
                Ok(Some(len)) => {
                    let end = at + frame::PREFIX_LEN + len;
                    self.message(at, at + frame::PREFIX_LEN..end)?;
                    at = end;
                }
                Ok(None) => return self.incomplete(at),
                Err(error) => return self.no_frame(at, &error),
            }
        }
        Ok(())
    }

    /// One message; what comes before `body` in its frame begins at `start`.
    fn message(&mut self, start: usize, body: std::ops::Range<usize>) -> io::Result<()> {
        let bytes = &self.input[body.clone()];
        match Envelope::decode(bytes) {
            Ok(envelope) => {
                self.envelope(start, body.end, &envelope)?;
            }
            Err(error) => {
                let at = body.start + error.offset;
                let hint = form_hint(bytes, &error);
                self.title(
                    start,
                    body.end,
                    &format!("malformed: {}{hint}", DecodeError { offset: at, ..error }),
                )?;
                self.field("read", &self.cut(unread(bytes), bytes.len()))?;
                self.excerpt(at, body)?;
                self.malformed += 1;
            }
        }
        self.number += 1;
        Ok(())
    }

    fn envelope(&mut self, start: usize, end: usize, envelope: &Envelope<'_>) -> io::Result<()> {
        let meaning = self.opened.meaning(self.number, envelope);
        match meaning.misuse {
            Some(why) => {
                self.malformed += 1;
                self.title(start, end, &format!("malformed: {why} ({})", meaning.text))?;
            }
            None => {
                let details = details::of(envelope);
                self.title(start, end, &format!("{}{details}", meaning.text))?;
            }
        }
        self.field("type", &format!("{} ({})", envelope.kind, envelope.kind.code()))?;
        self.field("id", &envelope.id.to_string())?;
        if let Some(reference) = envelope.reference {
            self.field("ref", &reference.to_string())?;
        }
        if let Some(target) = envelope.target {
            self.field("target", &quoted(target))?;
        }
        if !envelope.meta.is_empty() {
            let pairs = envelope.meta.iter();
            let pairs =
                pairs.map(|(key, value)| format!("{}: {}", quoted(key), diagnostic(value.as_bytes())));
            let map = format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "));
            self.field("meta", &self.cut(map, envelope.meta.entries().len()))?;
        }
        match &envelope.error {
            Some(error) => self.field("error", &self.cut(one_line(&describe::error(error)), 0)),
            None => {
                let payload = envelope.payload.as_bytes();
                let text = match (envelope.kind, envelope.target) {
                    (Kind::Hello, _) => discreet(payload, Secrets::OfHello),
                    (Kind::Control, Some(verb::AUTH)) => discreet(payload, Secrets::OfAuth),
                    _ => diagnostic(payload),
                };
                self.field("payload", &self.cut(text, payload.len()))
            }
        }
    }

    /// The input ends within a frame.
    fn incomplete(&mut self, at: usize) -> io::Result<()> {
        let rest = &self.input[at..];
        self.malformed += 1;
        let Some((prefix, body)) = rest.split_first_chunk() else {
            let text = format!("truncated: {} of the 4 bytes of its length are there", rest.len());
            self.title(at, self.input.len(), &text)?;
            return self.excerpt(self.input.len(), at..self.input.len());
        };
        let len = u32::from_be_bytes(*prefix);
        if len >= UNLIKELY {
            self.malformed -= 1;
            return self.no_frame(at, &FrameError::TooLong { len, limit: UNLIKELY - 1 });
        }
        let text = format!("truncated: {} of {len} bytes are there", body.len());
        self.title(at, self.input.len(), &text)?;
        if !body.is_empty() {
            self.field("read", &self.cut(unread(body), body.len()))?;
        }
        self.excerpt(self.input.len(), at..self.input.len())
    }

    /// What stands at `at` is no frame; so nobody can say where the next one begins.
    fn no_frame(&mut self, at: usize, error: &FrameError) -> io::Result<()> {
        self.malformed += 1;
        let hint = match self.input[at..] {
            [0x87, ..] if at == 0 => " (a message without its length? try --bare)",
            [0x16, 0x03, ..] => " (the beginning of TLS?)",
            [b'G', b'E', b'T', b' ', ..] | [b'H', b'T', b'T', b'P', ..] => " (HTTP?)",
            _ => "",
        };
        self.title(at, self.input.len(), &format!("malformed: {error}{hint}"))?;
        self.excerpt(at, at..self.input.len())
    }

    fn title(&mut self, start: usize, end: usize, text: &str) -> io::Result<()> {
        let len = end - start;
        let bytes = if len == 1 { "byte" } else { "bytes" };
        writeln!(self.out, "#{} at offset {start}, {len} {bytes}: {text}", self.number)
    }

    fn field(&mut self, name: &str, value: &str) -> io::Result<()> {
        writeln!(self.out, "    {name:<8} {value}")
    }

    /// The bytes around `at`, which lies in what stands at `range`; none where there may be secrets among them.
    fn excerpt(&mut self, at: usize, range: std::ops::Range<usize>) -> io::Result<()> {
        let whole = &self.input[range.clone()];
        let message = whole.split_at_checked(frame::PREFIX_LEN).map_or(whole, |(_, message)| message);
        if may_hold_secrets(whole) && may_hold_secrets(message) {
            return self.field("bytes", "not shown, since there may be secrets among them");
        }
        let before = &self.input[range.start.saturating_sub(NEIGHBOUR)..range.start];
        let first = if may_hold_secrets(before) { range.start } else { 0 };
        let (from, to) = (at.saturating_sub(EXCERPT).max(first), self.input.len().min(at + 1 + EXCERPT));
        let shown = |range: &[u8]| {
            let mut text = String::new();
            for byte in range {
                hex(&mut text, &[*byte]);
                text.push(' ');
            }
            text
        };
        let mut line = if from > 0 { "... ".to_owned() } else { String::new() };
        line += &shown(&self.input[from..at]);
        match self.input.get(at) {
            Some(byte) => line += &format!(">{byte:02x}< {}", shown(&self.input[at + 1..to])),
            None => line += "><",
        }
        line += if to < self.input.len() { "..." } else { "" };
        self.field("bytes", line.trim_end())
    }

    /// `text`, or the beginning of it where it is long; `len` is the length of what it says, in bytes.
    fn cut(&self, mut text: String, len: usize) -> String {
        if !self.full
            && let Some((end, _)) = text.char_indices().nth(SHOWN)
        {
            let of = if len > 0 { format!("{len} bytes; ") } else { String::new() };
            text.truncate(end);
            text += &format!(" ... ({of}--full prints all)");
        }
        text
    }
}

/// As much as can be read of what is no message.
fn unread(bytes: &[u8]) -> String {
    if may_hold_secrets(bytes) { discreet(bytes, Secrets::Anywhere) } else { diagnostic(bytes) }
}

/// What bytes that are no plain envelope may be.
fn form_hint(body: &[u8], error: &DecodeError) -> &'static str {
    match (error.kind, body) {
        (DecodeErrorKind::NotAnEnvelope, [0x28, ..]) => " (Zstandard? compressed messages are not decoded)",
        (DecodeErrorKind::NotAnEnvelope, [0x1f, ..]) => " (gzip? compressed messages are not decoded)",
        (DecodeErrorKind::NotAnEnvelope, _) => " (encrypted? sealed messages cannot be decoded)",
        _ => "",
    }
}

#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod tests;
