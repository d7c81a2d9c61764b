//! From CBOR to text: diagnostic notation, which is exact, or JSON, which says whether it is.
//!
//! The printer takes any bytes: what it cannot read ends the text with `...`.

use std::collections::HashSet;
use std::fmt::Write;

use super::head::{Head, Reader, Stop, Width, major};
use super::secrets::{Secrecy, Secrets};
use super::text::{base64url, hex, quote};
use super::{DEPTH_LIMIT, number};

/// An item as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Json {
    /// The text.
    pub(crate) text: String,
    /// Whether the text says all that the item says. Otherwise it is as RFC 8949 §6.1 advises: bytes in base64url,
    /// tags without their number, null for what has no value in JSON, other keys than text in diagnostic notation.
    pub(crate) is_exact: bool,
}

/// The item that `bytes` are in diagnostic notation. Where they are no item, as much of it as can be read.
pub(crate) fn diagnostic(bytes: &[u8]) -> String {
    print(bytes, Form::Diagnostic).text
}

/// As [`diagnostic`], without the secrets that handshakes hold: of those only the length is said.
pub(crate) fn discreet(bytes: &[u8], secrets: Secrets) -> String {
    print_hiding(bytes, Form::Diagnostic, Some(secrets)).text
}

/// The item that `bytes` are as JSON.
pub(crate) fn json(bytes: &[u8]) -> Json {
    print(bytes, Form::Json)
}

fn print(bytes: &[u8], form: Form) -> Json {
    print_hiding(bytes, form, None)
}

fn print_hiding(bytes: &[u8], form: Form, secrets: Option<Secrets>) -> Json {
    let mut printer = Printer { input: Reader(bytes), out: String::new(), form, is_exact: true, secrets };
    let printed = match secrets {
        Some(Secrets::OfAuth) => printer.credentials(0),
        _ => printer.item(0),
    };
    if printed.is_err() || !printer.input.0.is_empty() {
        printer.is_exact = false;
        let apart = printer.out.is_empty() || printer.out.ends_with([' ', '[', '{', '(']);
        printer.out.push_str(if apart { "..." } else { " ..." });
    }
    Json { text: printer.out, is_exact: printer.is_exact }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Diagnostic,
    Json,
}

struct Printer<'a> {
    input: Reader<'a>,
    out: String,
    form: Form,
    is_exact: bool,
    secrets: Option<Secrets>,
}

type Printed = Result<(), Stop>;

impl Printer<'_> {
    /// The next item, which lies in `depth` others.
    fn item(&mut self, depth: usize) -> Printed {
        let head = self.input.head()?;
        match head.major {
            major::UNSIGNED | major::NEGATIVE => self.integer(head),
            major::BYTES => self.bytes(head),
            major::TEXT => self.text(head),
            major::ARRAY => self.array(head, inside(depth)?),
            major::MAP => self.map(head, inside(depth)?),
            major::TAG => self.tag(head, inside(depth)?),
            _ => self.simple(head),
        }
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Prints what JSON can only say less well, in either form.
    fn lossy(&mut self, diagnostic: impl FnOnce(&mut String), json: impl FnOnce(&mut String)) {
        if self.is_json() {
            self.is_exact = false;
            json(&mut self.out);
        } else {
            diagnostic(&mut self.out);
        }
    }

    /// The indicator for a form that is longer than it had to be.
    fn indicator(&mut self, head: Head) {
        if head.width != Width::of(head.value) && !self.is_json() {
            self.push(head.width.indicator());
        }
    }

    fn integer(&mut self, head: Head) -> Printed {
        let value = i128::from(head.value);
        match (head.width, head.major) {
            (Width::Indefinite, _) => return Err(Stop),
            (_, major::UNSIGNED) => self.push(&value.to_string()),
            _ => self.push(&(-1 - value).to_string()),
        }
        self.indicator(head);
        Ok(())
    }

    fn bytes(&mut self, head: Head) -> Printed {
        if head.width == Width::Indefinite {
            return self.chunks(head.major);
        }
        let bytes = self.input.take(head.value)?;
        self.byte_string(bytes);
        self.indicator(head);
        Ok(())
    }

    fn byte_string(&mut self, bytes: &[u8]) {
        self.lossy(
            |out| {
                out.push_str("h'");
                hex(out, bytes);
                out.push('\'');
            },
            |out| {
                out.push('"');
                base64url(out, bytes);
                out.push('"');
            },
        );
    }

    fn text(&mut self, head: Head) -> Printed {
        if head.width == Width::Indefinite {
            return self.chunks(head.major);
        }
        let bytes = self.input.take(head.value)?;
        let remark = self.text_string(bytes);
        self.indicator(head);
        self.push(&remark);
        Ok(())
    }

    /// Prints a text string, and returns what is to be remarked on it.
    fn text_string(&mut self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        quote(&mut self.out, &text);
        let mut remark = String::new();
        if text.as_bytes() != bytes {
            self.is_exact = false;
            if !self.is_json() {
                remark.push_str(" / not UTF-8: ");
                hex(&mut remark, bytes);
                remark.push_str(" /");
            }
        }
        remark
    }

    /// A string of indefinite length: its chunks, or in JSON what they make together.
    fn chunks(&mut self, major: u8) -> Printed {
        if self.is_json() {
            let whole = self.joined_chunks(major)?;
            match major {
                major::TEXT => drop(self.text_string(&whole)),
                _ => self.byte_string(&whole),
            }
            return Ok(());
        }
        if self.input.eat_break() {
            self.push(if major == major::TEXT { "\"\"_" } else { "''_" });
            return Ok(());
        }
        self.push("(_ ");
        self.list(None, |printer| {
            let chunk = printer.input.head()?;
            match (chunk.width, chunk.major == major, major) {
                (Width::Indefinite, ..) | (_, false, _) => Err(Stop),
                (.., major::TEXT) => printer.text(chunk),
                _ => printer.bytes(chunk),
            }
        })?;
        self.push(")");
        Ok(())
    }

    fn joined_chunks(&mut self, major: u8) -> Result<Vec<u8>, Stop> {
        let mut whole = Vec::new();
        while !self.input.eat_break() {
            let chunk = self.input.head()?;
            if chunk.major != major || chunk.width == Width::Indefinite {
                return Err(Stop);
            }
            whole.extend_from_slice(self.input.take(chunk.value)?);
        }
        Ok(whole)
    }

    /// Prints `count` entries, or as many as there are before the break, with commas in between.
    fn list(&mut self, count: Option<u64>, mut entry: impl FnMut(&mut Self) -> Printed) -> Printed {
        let mut printed = 0;
        loop {
            let over = match count {
                Some(count) => printed == count,
                None => self.input.eat_break(),
            };
            if over {
                return Ok(());
            }
            if printed > 0 {
                self.push(", ");
            }
            entry(self)?;
            printed += 1;
        }
    }

    /// Opens an array or a map, and says how many entries it has.
    fn open(&mut self, head: Head, bracket: &str) -> Option<u64> {
        self.push(bracket);
        let before = self.out.len();
        self.indicator(head);
        if self.out.len() > before {
            self.push(" ");
        }
        (head.width != Width::Indefinite).then_some(head.value)
    }

    fn array(&mut self, head: Head, depth: usize) -> Printed {
        let count = self.open(head, "[");
        self.list(count, |printer| printer.item(depth))?;
        self.push("]");
        Ok(())
    }

    fn map(&mut self, head: Head, depth: usize) -> Printed {
        let count = self.open(head, "{");
        let mut keys = HashSet::new();
        self.list(count, |printer| {
            let before = printer.out.len();
            if printer.is_json() {
                let key = printer.json_key(depth)?;
                printer.is_exact &= keys.insert(key);
            } else {
                printer.item(depth)?;
            }
            let secrecy = printer.secrets.map(|secrets| secrets.of(&printer.out[before..]));
            printer.push(": ");
            match secrecy {
                None | Some(Secrecy::None) => printer.item(depth),
                Some(Secrecy::Auth) => printer.credentials(depth),
                Some(Secrecy::Secret) => printer.hidden(depth),
            }
        })?;
        self.push("}");
        Ok(())
    }

    /// Prints a structure `auth` without its secrets; what is no map, not at all.
    fn credentials(&mut self, depth: usize) -> Printed {
        if !matches!(self.input.0.first(), Some(first) if first >> 5 == major::MAP) {
            return self.hidden(depth);
        }
        let around = self.secrets.replace(Secrets::OfAuth);
        let printed = self.item(depth);
        self.secrets = around;
        printed
    }

    /// Says no more of the next item than how long it is.
    fn hidden(&mut self, depth: usize) -> Printed {
        let (before, rest) = (self.out.len(), self.input.0.len());
        let string = match self.input.clone().head() {
            Ok(head) if matches!(head.major, major::BYTES | major::TEXT) => {
                Some(head.value).filter(|_| head.width != Width::Indefinite)
            }
            _ => None,
        };
        let printed = self.item(depth);
        self.out.truncate(before);
        let len = string.unwrap_or((rest - self.input.0.len()) as u64);
        let bytes = if len == 1 { "byte" } else { "bytes" };
        self.push(&format!("<{len} {bytes}>"));
        printed
    }

    /// Prints a key for JSON, where all keys are text. Returns it.
    fn json_key(&mut self, depth: usize) -> Result<String, Stop> {
        let before = self.out.len();
        if matches!(self.input.0.first(), Some(first) if first >> 5 == major::TEXT) {
            self.item(depth)?;
        } else {
            self.is_exact = false;
            let (input, out) = (self.input.clone(), String::new());
            let mut key = Printer { input, out, form: Form::Diagnostic, is_exact: true, secrets: None };
            key.item(depth)?;
            self.input = key.input;
            quote(&mut self.out, &key.out);
        }
        Ok(self.out[before..].to_owned())
    }

    fn tag(&mut self, head: Head, depth: usize) -> Printed {
        if head.width == Width::Indefinite {
            return Err(Stop);
        }
        if self.is_json() {
            self.is_exact = false;
            return self.item(depth);
        }
        self.push(&head.value.to_string());
        self.indicator(head);
        self.push("(");
        self.item(depth)?;
        self.push(")");
        Ok(())
    }

    fn simple(&mut self, head: Head) -> Printed {
        if let Some(value) = number::widen(head.width, head.value) {
            self.float(head, value);
            return Ok(());
        }
        match (head.width, head.value) {
            (Width::Immediate, 20) => self.push("false"),
            (Width::Immediate, 21) => self.push("true"),
            (Width::Immediate, 22) => self.push("null"),
            (Width::Immediate, 23) => self.lossy(|out| out.push_str("undefined"), |out| out.push_str("null")),
            (Width::One, 0..=31) | (Width::Indefinite, _) => return Err(Stop),
            (_, value) => self
                .lossy(|out| write!(out, "simple({value})").unwrap_or_default(), |out| out.push_str("null")),
        }
        Ok(())
    }

    fn float(&mut self, head: Head, value: f64) {
        let name = match value {
            _ if value.is_nan() => "NaN",
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => "",
        };
        match name {
            "" => write!(self.out, "{value:?}").unwrap_or_default(),
            _ => self.lossy(|out| out.push_str(name), |out| out.push_str("null")),
        }
        if self.is_json() {
            return;
        }
        if head.width != number::shortest(value) {
            self.push(head.width.indicator());
        }
        if number::narrow(head.width, value) != Some(head.value) {
            let digits = if head.width == Width::Two { 4 } else { 8 };
            write!(self.out, " / {:0digits$x} /", head.value).unwrap_or_default();
        }
    }
}

/// The depth of what lies in an item at `depth`.
fn inside(depth: usize) -> Result<usize, Stop> {
    if depth < DEPTH_LIMIT { Ok(depth + 1) } else { Err(Stop) }
}
