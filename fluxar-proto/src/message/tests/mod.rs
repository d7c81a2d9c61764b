//! The rules of §5, each as a test that is named after it.

mod differential;
mod error;
mod ids;
mod items;
mod malformed;
mod meta;
mod vectors;

use std::vec::Vec;

use super::*;

/// Bytes from hex digits; spaces are for the eye.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let (pairs, []) = digits.as_chunks::<2>() else { panic!("half a byte") };
    pairs
        .iter()
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect()
}

const ID: &str = "0190163d 8694 739b aea5 966c26f8ad91";
const REF: &str = "0190163d 8694 739b aea5 966c26f8ad92";

/// The bytes of a call with everything behind the id as given.
fn after_id(rest: &str) -> Vec<u8> {
    let mut bytes = hex("87 02 50");
    bytes.extend(hex(ID));
    bytes.extend(hex(rest));
    bytes
}

/// Where what [`after_id`] is given begins.
const AFTER_ID: usize = 19;
