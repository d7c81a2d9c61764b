//! Text of a peer on somebody's terminal.

use std::fmt::Write;

/// Whether a character would do something else on a terminal than to show itself: control characters, and those that
/// are invisible or turn the direction of what follows.
fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Appends a JSON string. What a terminal would not simply show is escaped.
pub(super) fn quote(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            _ => push(out, char),
        }
    }
    out.push('"');
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(&mut out, text);
    out
}

fn push(out: &mut String, char: char) {
    match char {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ if is_unsafe(char) => {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // A string takes all that is written.
                write!(out, "\\u{unit:04x}").unwrap_or_default();
            }
        }
        _ => out.push(char),
    }
}

/// `text` as one line that a terminal simply shows.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|char| push(&mut out, char));
    out
}

/// Appends bytes in hex.
pub(crate) fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(out, "{byte:02x}").unwrap_or_default();
    }
}

/// Appends bytes in base64url without padding, as RFC 8949 §6.1 wants them in JSON.
pub(super) fn base64url(out: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (24 - 8 * chunk.len());
        for place in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
}

/// The bytes that hex digits stand for, white space aside.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().filter(|char| !char.is_ascii_whitespace()).map(|char| char.to_digit(16));
    let digits = digits.collect::<Option<Vec<u32>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high << 4 | low) as u8).collect())
}

/// The bytes that base64 of either alphabet stands for, white space aside, padded or not.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let kept = text.chars().filter(|char| !char.is_ascii_whitespace()).collect::<String>();
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0u32);
    for char in kept.trim_end_matches('=').bytes() {
        let value = match char {
            b'A'..=b'Z' => char - b'A',
            b'a'..=b'z' => char - b'a' + 26,
            b'0'..=b'9' => char - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    // Six bits that are left are half a byte too few; fewer must be zero.
    (count < 6 && bits & ((1 << count) - 1) == 0).then_some(out)
}
