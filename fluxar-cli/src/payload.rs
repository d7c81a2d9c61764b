//! Payloads: from what a user writes, and to what a user reads.

use std::io::{Read, Write};

use fluxar::Raw;
use fluxar_proto::message::{Item, KEYS_LIMIT};

use crate::args::{Input, Output};
use crate::failure::Failure;
use crate::notation::{self, diagnostic, json};

/// The payload that the command line gives: text, `@FILE`, or `-` for standard input.
pub(crate) fn read(argument: &str, input: Input) -> Result<Raw, Failure> {
    let bytes = match source(argument) {
        Some(source) => from_bytes(source?, input),
        None if input == Input::Cbor => Err("--input cbor needs @FILE or -".into()),
        None => from_text(argument),
    };
    raw(bytes.map_err(|error| Failure::usage(format_args!("bad payload: {error}")))?)
}

/// The bytes of `@FILE` or `-`; none where `argument` speaks for itself.
pub(crate) fn source(argument: &str) -> Option<Result<Vec<u8>, Failure>> {
    let mut bytes = Vec::new();
    let read = match argument.strip_prefix('@') {
        Some(path) => std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}")),
        None if argument == "-" => match std::io::stdin().lock().read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(format!("cannot read standard input: {error}")),
        },
        None => return None,
    };
    Some(read.map_err(Failure::usage))
}

fn from_text(text: &str) -> Result<Vec<u8>, String> {
    notation::parse(text).map_err(|error| error.to_string())
}

fn from_bytes(bytes: Vec<u8>, input: Input) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(&bytes);
    match (input, text) {
        (Input::Text, Err(error)) => Err(error.to_string()),
        (Input::Text, Ok(text)) => from_text(text),
        (Input::Auto, Ok(text)) => match from_text(text) {
            Err(_) if Item::new(&bytes).is_ok() => Ok(bytes),
            parsed => parsed,
        },
        (Input::Auto | Input::Cbor, _) => Ok(bytes),
    }
}

fn raw(cbor: Vec<u8>) -> Result<Raw, Failure> {
    Raw::new(cbor).map_err(|error| Failure::usage(format_args!("bad payload: no CBOR item: {error}")))
}

/// A key of the metadata that an option sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    pub(crate) key: &'static str,
    pub(crate) option: &'static str,
    pub(crate) is_set: bool,
}

/// Metadata as `KEY=TEXT` or `KEY:=VALUE`.
pub(crate) fn read_meta(arguments: &[String], reserved: &[Reserved]) -> Result<Vec<(String, Raw)>, Failure> {
    let mut pairs: Vec<(String, Raw)> = Vec::new();
    for argument in arguments {
        let bad =
            |why: &dyn std::fmt::Display| Failure::usage(format_args!("bad metadata `{argument}`: {why}"));
        let Some((key, value)) = argument.split_once('=') else {
            return Err(bad(&"expected KEY=TEXT or KEY:=VALUE"));
        };
        let (key, value) = match key.strip_suffix(':') {
            Some(key) => (key, raw(notation::parse(value).map_err(|error| bad(&error))?)?),
            None => (key, Raw::encode(value).map_err(|error| bad(&error))?),
        };
        if let Some(Reserved { option, .. }) = reserved.iter().find(|reserved| reserved.key == key) {
            return Err(bad(&format_args!("that is what {option} sets")));
        }
        if pairs.iter().any(|(before, _)| before == key) {
            return Err(bad(&"the key is there twice"));
        }
        pairs.push((key.to_owned(), value));
    }
    let most = KEYS_LIMIT - reserved.iter().filter(|reserved| reserved.is_set).count();
    if pairs.len() > most {
        return Err(Failure::usage(format_args!("bad metadata: at most {most} keys are possible")));
    }
    Ok(pairs)
}

/// A payload as one line.
pub(crate) fn show(payload: &Raw, output: Output) -> String {
    let bytes = payload.as_bytes();
    match output {
        Output::Auto => match json(bytes) {
            exact if exact.is_exact => exact.text,
            _ => diagnostic(bytes),
        },
        Output::Json => json(bytes).text,
        Output::Diag | Output::Raw => diagnostic(bytes),
        Output::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// A payload as it is printed: a line, or with `raw` nothing but its bytes.
pub(crate) fn append(out: &mut Vec<u8>, payload: &Raw, output: Output) {
    if output == Output::Raw {
        out.extend_from_slice(payload.as_bytes());
    } else {
        out.extend_from_slice(show(payload, output).as_bytes());
        out.push(b'\n');
    }
}

/// Prints an answer.
pub(crate) fn print(payload: &Raw, output: Output) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    append(&mut bytes, payload, output);
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_is_recognized() {
        for (bytes, input, cbor) in [
            (&b" {\"a\": 1}\n"[..], Input::Auto, &[0xa1, 0x61, b'a', 1][..]),
            (&[0xa1, 0x61, b'a', 1], Input::Auto, &[0xa1, 0x61, b'a', 1]),
            // Text, and one item as well.
            (b"5", Input::Auto, &[5]),
            (b"5", Input::Text, &[5]),
            (b"5", Input::Cbor, b"5"),
            // No notation, but an item of ASCII.
            (b"cabc", Input::Auto, b"cabc"),
        ] {
            assert_eq!(from_bytes(bytes.to_vec(), input).as_deref(), Ok(cbor));
        }
        assert_eq!(
            from_bytes(vec![], Input::Auto).unwrap_err(),
            "expected a value, found the end at column 1"
        );
        assert!(from_bytes(vec![0xff], Input::Text).unwrap_err().starts_with("invalid utf-8"));
        raw(from_bytes(vec![0xff], Input::Auto).unwrap()).unwrap_err();
    }

    #[test]
    fn metadata() {
        let timeout = |is_set| [Reserved { key: "timeout_ms", option: "--timeout", is_set }];
        let read = |arguments: &[&str]| {
            read_meta(&arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), &timeout(true))
        };
        let pairs = read(&["a=1", "b:=1", "c=", "d=x=y", ":=1"]).unwrap();
        let shown = pairs.iter().map(|(key, value)| format!("{key} {}", diagnostic(value.as_bytes())));
        assert_eq!(shown.collect::<Vec<_>>(), ["a \"1\"", "b 1", "c \"\"", "d \"x=y\"", " 1"]);
        for bad in [&["a"][..], &["a:=x"], &["a=1", "a=2"], &["timeout_ms:=5"]] {
            read(bad).unwrap_err();
        }
        let many = (0..64).map(|i| format!("k{i}=")).collect::<Vec<_>>();
        read_meta(&many, &timeout(false)).unwrap();
        read_meta(&many, &timeout(true)).unwrap_err();
    }
}
