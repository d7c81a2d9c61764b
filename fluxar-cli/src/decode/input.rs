//! What is to be decoded: hex, files, standard input.

use crate::failure::Failure;
use crate::payload::source;

/// The bytes that the arguments give, one behind the other; of standard input where there are none.
pub(super) fn read(arguments: &[String]) -> Result<Vec<u8>, Failure> {
    let standard_input = ["-".to_owned()];
    let arguments = if arguments.is_empty() { &standard_input } else { arguments };
    let mut bytes = Vec::new();
    for argument in arguments {
        let part = match source(argument) {
            Some(content) => from_content(content?),
            None => from_hex(argument),
        };
        bytes.extend(part.map_err(|error| Failure::usage(format_args!("bad input: {error}")))?);
    }
    Ok(bytes)
}

/// A file holds either hex or the bytes themselves. No frame is text: its first byte is 0x00 or 0x01, and that of a
/// message 0x87 (§3.5).
fn from_content(content: Vec<u8>) -> Result<Vec<u8>, String> {
    match std::str::from_utf8(&content) {
        Ok(text) if !text.contains(|char: char| char.is_control() && !char.is_ascii_whitespace()) => {
            from_hex(text)
        }
        _ => Ok(content),
    }
}

/// Hex as people write it and as tools print it: in groups, with `0x` in front, with comments.
pub(super) fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let mut digits = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        for group in line.split(|char: char| char.is_ascii_whitespace() || matches!(char, ':' | ',')) {
            let group = group.strip_prefix("0x").unwrap_or(group);
            for char in group.chars() {
                digits.push(char.to_digit(16).ok_or_else(|| format!("`{char}` is no hex digit"))?);
            }
        }
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|[high, low]| (high << 4 | low) as u8).collect())
    } else {
        Err("an odd number of hex digits".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_in_all_its_dresses() {
        for text in [
            "0001a2",
            "00 01 a2",
            "00:01:A2",
            "0x00, 0x01, 0xa2",
            "# a comment\n00 01  # two\na2\n",
            "0x0001a2",
        ] {
            assert_eq!(from_hex(text), Ok(vec![0, 1, 0xa2]), "{text}");
        }
        assert_eq!(from_hex(""), Ok(vec![]));
        assert_eq!(from_hex("001"), Err("an odd number of hex digits".into()));
        assert_eq!(from_hex("0g"), Err("`g` is no hex digit".into()));
    }

    #[test]
    fn files_hold_hex_or_bytes() {
        assert_eq!(from_content(b"0001\n".to_vec()), Ok(vec![0, 1]));
        assert_eq!(from_content(vec![0, 0, 0, 1, b'0']), Ok(vec![0, 0, 0, 1, b'0']));
        assert_eq!(from_content(vec![0x87, 0x01]), Ok(vec![0x87, 0x01]));
        assert!(from_content(b"GET / HTTP/1.1\r\n".to_vec()).is_err());
    }
}
