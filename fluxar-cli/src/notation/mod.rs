//! CBOR for people: diagnostic notation (RFC 8949 §8, with the parts of RFC 8610 appendix G that people write), and
//! JSON.
//!
//! What is printed is exact: parsed again, it gives the same bytes, as far as there is a notation for them. (There is
//! none for text that is not UTF-8, nor for the odd kinds of NaN; a comment says what those are.) A form that is longer
//! than it had to be is marked by an encoding indicator (`1.5_3`: eight bytes where two would do), an indefinite length
//! by `_`.
//!
//! What is parsed may be JSON: the notation contains all of it. Numbers keep their kind: `1` is an integer and `1.0` a
//! float, and an integer beyond 64 bits a bignum.

mod head;
mod number;
mod parse;
mod print;
mod secrets;
mod text;

pub(crate) use head::{byte_string, map_entries};
pub(crate) use parse::parse;
pub(crate) use print::{diagnostic, discreet, json};
pub(crate) use secrets::{Secrets, may_hold_secrets};
pub(crate) use text::{hex, one_line, quoted};

/// How deep arrays, maps and tags may nest, as in every message.
const DEPTH_LIMIT: usize = fluxar_proto::message::DEPTH_LIMIT;

#[cfg(test)]
mod tests;
