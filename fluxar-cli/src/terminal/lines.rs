//! Standard input, line by line.

use std::io::{self, BufRead};

use fluxar::Raw;
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::notation;

/// Lines that are read ahead.
const AHEAD: usize = 256;

/// The lines of standard input. Its thread ends with the input, or with the program.
pub(crate) struct Lines {
    lines: mpsc::Receiver<io::Result<Vec<u8>>>,
    number: u64,
}

/// A line, without its end.
pub(crate) struct Line {
    number: u64,
    bytes: Vec<u8>,
}

impl Lines {
    pub(crate) fn read() -> Result<Self, Failure> {
        let (sender, lines) = mpsc::channel(AHEAD);
        let reading = std::thread::Builder::new().name("input".into()).spawn(move || {
            let mut input = io::stdin().lock();
            // Nobody receives any more: the command is about to end.
            while let Some(line) = next_line(&mut input)
                && sender.blocking_send(line).is_ok()
            {}
        });
        reading.map_err(|error| Failure::usage(format_args!("cannot start: {error}")))?;
        Ok(Self { lines, number: 0 })
    }

    /// The next line; `None` at the end of the input.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, Failure> {
        let Some(line) = self.lines.recv().await else { return Ok(None) };
        let bytes =
            line.map_err(|error| Failure::usage(format_args!("cannot read standard input: {error}")))?;
        self.number += 1;
        Ok(Some(Line { number: self.number, bytes }))
    }
}

fn next_line(input: &mut impl BufRead) -> Option<io::Result<Vec<u8>>> {
    let mut line = Vec::new();
    match input.read_until(b'\n', &mut line) {
        Ok(0) => return None,
        Ok(_) => {}
        Err(error) => return Some(Err(error)),
    }
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    Some(Ok(line))
}

impl Line {
    /// The value that the line holds: in notation, where none is on a line without one; or with `as_text` the line
    /// itself.
    pub(crate) fn value(&self, as_text: bool) -> Result<Option<Raw>, Failure> {
        let bad = |why: &dyn std::fmt::Display| {
            Failure::usage(format_args!("bad line {} of standard input: {why}", self.number))
        };
        let text = std::str::from_utf8(&self.bytes).map_err(|error| bad(&error))?;
        if as_text {
            return Raw::encode(text).map(Some).map_err(|error| bad(&error));
        }
        if text.trim().is_empty() {
            return Ok(None);
        }
        let cbor = notation::parse(text).map_err(|error| bad(&error))?;
        Raw::new(cbor).map(Some).map_err(|error| bad(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut input: &[u8]) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| next_line(&mut input)).map(Result::unwrap).collect()
    }

    #[test]
    fn lines_end_as_anybody_ends_them() {
        assert_eq!(lines(b"a\nb\r\n\n\r\nc\r"), [&b"a"[..], b"b", b"", b"", b"c\r"]);
        assert_eq!(lines(b"a\n"), [b"a"]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_line_is_a_value_or_a_text() {
        let line = |text: &str| Line { number: 7, bytes: text.into() };
        let value = |text: &str, as_text| line(text).value(as_text).unwrap().map(Raw::into_bytes);
        assert_eq!(value(" [1, h'02'] ", false).unwrap(), [0x82, 1, 0x41, 2][..]);
        assert_eq!(value("  ", false), None);
        assert_eq!(value("  ", true).unwrap(), b"\x62  "[..]);
        assert_eq!(value("[1", true).unwrap(), b"\x62[1"[..]);
        for (bytes, as_text) in [(&b"[1"[..], false), (b"\xff", false), (b"\xff", true)] {
            let line = Line { number: 7, bytes: bytes.into() };
            let failure = format!("{:?}", line.value(as_text).unwrap_err());
            assert!(failure.contains("bad line 7 of standard input: "), "{failure}");
        }
    }
}
