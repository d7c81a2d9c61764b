//! From text to CBOR: diagnostic notation, and so JSON.

use std::fmt;

use super::head::{self, BREAK, Width, major};
use super::number::{Natural, write_float};
use super::text::{from_base64, from_hex};
use super::{DEPTH_LIMIT, number};

/// The longest integer, in digits. Beyond 64 bits the work grows with their square.
const DIGITS_LIMIT: usize = 1000;

/// Encodes what `text` says as one CBOR item, in the shortest form where the text asks for no other.
///
/// # Errors
///
/// What is wrong with the text, and where.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, SyntaxError> {
    let mut parser = Parser { text, at: 0 };
    let mut out = Vec::new();
    parser.value(0, &mut out)?;
    parser.space()?;
    match parser.peek() {
        None => Ok(out),
        Some(_) => Err(parser.expected("the end")),
    }
}

/// What is wrong with a text, and where: lines and columns from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    what: String,
    line: usize,
    column: usize,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            1 => write!(f, "{} at column {}", self.what, self.column),
            line => write!(f, "{} at line {line}, column {}", self.what, self.column),
        }
    }
}

impl std::error::Error for SyntaxError {}

type Parsed<T = ()> = Result<T, SyntaxError>;

/// Reads `text` from the byte `at` on.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// The content of a string, and its major type.
struct Str {
    major: u8,
    bytes: Vec<u8>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += char.len_utf8();
        Some(char)
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// The characters from here on for which `belongs` holds.
    fn run(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|char| !belongs(char)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn error_at(&self, at: usize, what: impl Into<String>) -> SyntaxError {
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        SyntaxError {
            what: what.into(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn error(&self, what: impl Into<String>) -> SyntaxError {
        self.error_at(self.at, what)
    }

    fn expected(&self, what: &str) -> SyntaxError {
        match self.peek() {
            Some(found) => self.error(format!("expected {what}, found `{found}`")),
            None => self.error(format!("expected {what}, found the end")),
        }
    }

    fn expect(&mut self, token: &str) -> Parsed {
        if self.eat(token) { Ok(()) } else { Err(self.expected(&format!("`{token}`"))) }
    }

    /// Passes over white space and comments.
    fn space(&mut self) -> Parsed {
        loop {
            self.run(|char| matches!(char, ' ' | '\t' | '\r' | '\n'));
            let start = self.at;
            if self.eat("#") {
                self.run(|char| char != '\n');
            } else if self.eat("/") {
                self.run(|char| char != '/');
                if !self.eat("/") {
                    return Err(self.error_at(start, "comment without an end"));
                }
            } else {
                return Ok(());
            }
        }
    }

    /// An encoding indicator, if one stands here.
    fn indicator(&mut self) -> Parsed<Option<Width>> {
        if !self.eat("_") {
            return Ok(None);
        }
        match self.peek() {
            Some(digit) if digit.is_ascii_digit() => {
                let width = Width::from_indicator(digit);
                let width = width.ok_or_else(|| self.error("unknown encoding indicator"))?;
                self.bump();
                Ok(Some(width))
            }
            _ => Ok(Some(Width::Indefinite)),
        }
    }

    /// Writes a head in the form asked for.
    fn head(&self, out: &mut Vec<u8>, major: u8, width: Option<Width>, value: u64) -> Parsed {
        let shortest = Width::of(value);
        let width = width.unwrap_or(shortest);
        if width < shortest || width == Width::Indefinite {
            return Err(self.error("the encoding indicator does not fit"));
        }
        head::write(out, major, width, value);
        Ok(())
    }

    /// One value, which lies in `depth` others.
    fn value(&mut self, depth: usize, out: &mut Vec<u8>) -> Parsed {
        self.space()?;
        match self.peek() {
            Some('[') => self.array(self.inside(depth)?, out),
            Some('{') => self.map(self.inside(depth)?, out),
            Some('(') => self.chunks(depth, out),
            Some('-' | '0'..='9') => self.number(depth, out),
            Some('"' | '\'' | '<') => self.string_item(depth, out),
            Some(char) if char.is_alphabetic() => self.word(depth, out),
            _ => Err(self.expected("a value")),
        }
    }

    fn inside(&self, depth: usize) -> Parsed<usize> {
        if depth < DEPTH_LIMIT {
            Ok(depth + 1)
        } else {
            Err(self.error(format!("nested deeper than {DEPTH_LIMIT}")))
        }
    }

    fn array(&mut self, depth: usize, out: &mut Vec<u8>) -> Parsed {
        self.expect("[")?;
        let width = self.indicator()?;
        let mut elements = Vec::new();
        let count = self.list("]", |parser| parser.value(depth, &mut elements))?;
        self.container(major::ARRAY, width, count, &elements, out)
    }

    fn map(&mut self, depth: usize, out: &mut Vec<u8>) -> Parsed {
        self.expect("{")?;
        let width = self.indicator()?;
        let mut entries = Vec::new();
        let count = self.list("}", |parser| {
            parser.value(depth, &mut entries)?;
            parser.space()?;
            parser.expect(":")?;
            parser.value(depth, &mut entries)
        })?;
        self.container(major::MAP, width, count, &entries, out)
    }

    /// Entries with commas in between, up to `end`. How many there were.
    fn list(&mut self, end: &str, mut entry: impl FnMut(&mut Self) -> Parsed) -> Parsed<u64> {
        self.space()?;
        let mut count = 0;
        if self.eat(end) {
            return Ok(count);
        }
        loop {
            entry(self)?;
            count += 1;
            self.space()?;
            if self.eat(end) {
                return Ok(count);
            }
            if !self.eat(",") {
                return Err(self.expected(&format!("`,` or `{end}`")));
            }
        }
    }

    fn container(
        &self,
        major: u8,
        width: Option<Width>,
        count: u64,
        items: &[u8],
        out: &mut Vec<u8>,
    ) -> Parsed {
        if width == Some(Width::Indefinite) {
            head::write(out, major, Width::Indefinite, 0);
            out.extend_from_slice(items);
            out.push(BREAK);
            return Ok(());
        }
        self.head(out, major, width, count)?;
        out.extend_from_slice(items);
        Ok(())
    }

    /// `(_ "a", "b")`: a string of indefinite length.
    fn chunks(&mut self, depth: usize, out: &mut Vec<u8>) -> Parsed {
        let start = self.at;
        if !self.eat("(_") {
            return Err(self.expected("a value"));
        }
        let (mut kind, mut chunks) = (None, Vec::new());
        self.list(")", |parser| {
            parser.space()?;
            let at = parser.at;
            let Some(chunk) = parser.string(depth)? else { return Err(parser.expected("a string")) };
            if *kind.get_or_insert(chunk.major) != chunk.major {
                return Err(parser.error_at(at, "a chunk of another kind"));
            }
            let width = parser.indicator()?;
            parser.head(&mut chunks, chunk.major, width, chunk.bytes.len() as u64)?;
            chunks.extend_from_slice(&chunk.bytes);
            Ok(())
        })?;
        let Some(major) = kind else {
            return Err(self.error_at(start, "a string of no chunks is written ''_ or \"\"_"));
        };
        self.container(major, Some(Width::Indefinite), 0, &chunks, out)
    }

    fn string_item(&mut self, depth: usize, out: &mut Vec<u8>) -> Parsed {
        let Some(string) = self.string(depth)? else { return Err(self.expected("a value")) };
        let width = self.indicator()?;
        if width == Some(Width::Indefinite) && string.bytes.is_empty() {
            return self.container(string.major, width, 0, &[], out);
        }
        self.head(out, string.major, width, string.bytes.len() as u64)?;
        out.extend_from_slice(&string.bytes);
        Ok(())
    }

    /// A string in any of its forms, without an encoding indicator.
    fn string(&mut self, depth: usize) -> Parsed<Option<Str>> {
        let start = self.at;
        let decode: fn(&str) -> Option<Vec<u8>> = if self.eat("\"") {
            let text = self.quoted('"', start)?;
            return Ok(Some(Str { major: major::TEXT, bytes: text.into_bytes() }));
        } else if self.eat("<<") {
            let depth = self.inside(depth)?;
            let mut bytes = Vec::new();
            self.list(">>", |parser| parser.value(depth, &mut bytes))?;
            return Ok(Some(Str { major: major::BYTES, bytes }));
        } else if self.eat("h'") {
            from_hex
        } else if self.eat("b64'") {
            from_base64
        } else if self.eat("'") {
            |text| Some(text.into())
        } else {
            return Ok(None);
        };
        let content = self.quoted('\'', start)?;
        match decode(&content) {
            Some(bytes) => Ok(Some(Str { major: major::BYTES, bytes })),
            None => Err(self.error_at(start, "not the digits that belong here")),
        }
    }

    /// What stands before the closing quote, escapes resolved.
    fn quoted(&mut self, quote: char, start: usize) -> Parsed<String> {
        let mut text = String::new();
        // Long byte strings go over several lines; JSON's strings may not.
        let is_space = |char| quote == '\'' && matches!(char, '\t' | '\r' | '\n');
        loop {
            text.push_str(self.run(|char| char != quote && char != '\\' && (char >= ' ' || is_space(char))));
            match self.peek() {
                None => return Err(self.error_at(start, "string without an end")),
                Some('\\') => text.push(self.escape(quote)?),
                Some(char) if char == quote => {
                    self.bump();
                    return Ok(text);
                }
                Some(char) => {
                    return Err(self
                        .error(format!("control character in a string: write \\u{:04x}", u32::from(char))));
                }
            }
        }
    }

    fn escape(&mut self, quote: char) -> Parsed<char> {
        let start = self.at;
        self.bump();
        match self.bump() {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('u') => {
                let mut units = vec![self.unit(start)?];
                if (0xd800..0xdc00).contains(&units[0]) && self.eat("\\u") {
                    units.push(self.unit(start)?);
                }
                let decoded = char::decode_utf16(units).collect::<Result<String, _>>().ok();
                let char = decoded.and_then(|text| text.chars().next());
                char.ok_or_else(|| self.error_at(start, "half a surrogate pair"))
            }
            Some(char @ ('\\' | '/')) => Ok(char),
            Some(char) if char == quote => Ok(char),
            _ => Err(self.error_at(start, "unknown escape")),
        }
    }

    /// Four hex digits.
    fn unit(&mut self, start: usize) -> Parsed<u16> {
        let digits =
            self.rest().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.error_at(start, "\\u needs four hex digits"))?;
        self.at += 4;
        Ok(unit)
    }

    fn word(&mut self, depth: usize, out: &mut Vec<u8>) -> Parsed {
        let start = self.at;
        if self.string_prefix() {
            return self.string_item(depth, out);
        }
        let word = self.run(char::is_alphanumeric);
        let simple = match word {
            "false" => 20,
            "true" => 21,
            "null" => 22,
            "undefined" => 23,
            "simple" => return self.simple(out),
            "NaN" => return self.float(start, f64::NAN, out),
            "Infinity" => return self.float(start, f64::INFINITY, out),
            _ => {
                let what = format!("unknown word `{word}` (text needs quotes: \"{word}\")");
                return Err(self.error_at(start, what));
            }
        };
        self.head(out, major::SIMPLE, None, simple)
    }

    fn string_prefix(&self) -> bool {
        ["h'", "b64'"].iter().any(|prefix| self.rest().starts_with(prefix))
    }

    fn simple(&mut self, out: &mut Vec<u8>) -> Parsed {
        self.expect("(")?;
        let start = self.at;
        let digits = self.run(|char| char.is_ascii_digit());
        let value = digits.parse::<u8>().ok().filter(|value| !(24..32).contains(value));
        let value =
            value.ok_or_else(|| self.error_at(start, "no simple value: 0 to 23 and 32 to 255 are"))?;
        self.expect(")")?;
        self.head(out, major::SIMPLE, None, u64::from(value))
    }

    fn number(&mut self, depth: usize, out: &mut Vec<u8>) -> Parsed {
        let start = self.at;
        let negative = self.eat("-");
        if negative && self.eat("Infinity") {
            return self.float(start, f64::NEG_INFINITY, out);
        }
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
            if self.eat(prefix) {
                let digits = self.run(|char| char.is_digit(radix));
                return self.integer(start, negative, digits, radix, depth, out);
            }
        }
        let digits = self.run(|char| char.is_ascii_digit());
        if digits.is_empty() || digits.len() > 1 && digits.starts_with('0') {
            return Err(self.error_at(start, "no number"));
        }
        if !matches!(self.peek(), Some('.' | 'e' | 'E')) {
            return self.integer(start, negative, digits, 10, depth, out);
        }
        let point = self.eat(".");
        let no_fraction = point && self.run(|char| char.is_ascii_digit()).is_empty();
        let exponent = self.eat("e") || self.eat("E");
        let _sign = exponent && (self.eat("+") || self.eat("-"));
        let no_exponent = exponent && self.run(|char| char.is_ascii_digit()).is_empty();
        match self.text[start..self.at].parse::<f64>() {
            Ok(value) if !no_fraction && !no_exponent && value.is_finite() => self.float(start, value, out),
            Ok(value) if value.is_infinite() => {
                Err(self.error_at(start, "number beyond the range of floats"))
            }
            _ => Err(self.error_at(start, "no number")),
        }
    }

    fn float(&mut self, start: usize, value: f64, out: &mut Vec<u8>) -> Parsed {
        let width = self.indicator()?;
        if width == Some(Width::Indefinite) || !write_float(out, value, width) {
            let shortest = number::shortest(value).indicator();
            return Err(
                self.error_at(start, format!("the encoding indicator does not fit: {shortest} would"))
            );
        }
        Ok(())
    }

    fn integer(
        &mut self,
        start: usize,
        negative: bool,
        digits: &str,
        radix: u32,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Parsed {
        if digits.is_empty() {
            return Err(self.error_at(start, "no number"));
        }
        if digits.len() > DIGITS_LIMIT {
            return Err(self.error_at(start, format!("number of more than {DIGITS_LIMIT} digits")));
        }
        let Some(magnitude) = Natural::from_digits(digits, radix) else {
            return Err(self.error_at(start, "no number"));
        };
        let width = self.indicator()?;
        if !negative && self.peek() == Some('(') {
            return self.tag(start, width, &magnitude, depth, out);
        }
        let (major, magnitude) = match negative && !magnitude.is_zero() {
            true => (major::NEGATIVE, magnitude.pred()),
            false => (major::UNSIGNED, magnitude),
        };
        match magnitude.to_u64() {
            Some(value) => self.head(out, major, width, value),
            None if width.is_some() => Err(self.error_at(start, "the encoding indicator does not fit")),
            None => {
                // A bignum: tag 2 or 3.
                self.inside(depth)?;
                self.head(out, major::TAG, None, 2 + u64::from(major))?;
                self.head(out, major::BYTES, None, magnitude.as_bytes().len() as u64)?;
                out.extend_from_slice(magnitude.as_bytes());
                Ok(())
            }
        }
    }

    fn tag(
        &mut self,
        start: usize,
        width: Option<Width>,
        number: &Natural,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Parsed {
        let depth = self.inside(depth)?;
        let number = number.to_u64().ok_or_else(|| self.error_at(start, "tag beyond 64 bits"))?;
        self.head(out, major::TAG, width, number)?;
        self.expect("(")?;
        self.value(depth, out)?;
        self.space()?;
        self.expect(")")
    }
}
