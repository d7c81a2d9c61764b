//! Bytes that nobody should send.

use fluxar::Code;
use fluxar_proto::frame;

use crate::wire::{Message, framed};

/// Bytes that are no message, and what they are told to be.
pub fn garbage() -> Vec<(Vec<u8>, Code)> {
    let call = Message::call("echo").frame();
    let body = &call[frame::PREFIX_LEN..];
    let with = |at: usize, byte: u8| {
        let mut changed = body.to_vec();
        changed[at] = byte;
        framed(&changed)
    };
    vec![
        (vec![0, 0, 0, 0], Code::MALFORMED),
        (framed(&[0]), Code::MALFORMED),
        (framed(b"hello, world"), Code::MALFORMED),
        (framed(&[0x55; 1000]), Code::MALFORMED),
        // Reserved for compressed messages, which nobody asked for.
        (framed(&[0x28, 0xb5, 0x2f, 0xfd]), Code::MALFORMED),
        (framed(&[0x1f, 0x8b, 0x08]), Code::MALFORMED),
        // Six fields, eight fields, a map, an array of another form, one byte too few and one too many.
        (with(0, 0x86), Code::MALFORMED),
        (with(0, 0x88), Code::MALFORMED),
        (with(0, 0xa7), Code::MALFORMED),
        (framed(&[&[0x98, 0x07][..], &body[1..]].concat()), Code::MALFORMED),
        (framed(&[&[0x9f][..], &body[1..], &[0xff]].concat()), Code::MALFORMED),
        (framed(&body[..body.len() - 1]), Code::MALFORMED),
        (framed(&[body, &[0xf6]].concat()), Code::MALFORMED),
        // Types that do not exist, and an id of another length.
        (with(1, 0x00), Code::MALFORMED),
        (with(1, 0x08), Code::MALFORMED),
        (with(1, 0x20), Code::MALFORMED),
        (with(2, 0x4f), Code::MALFORMED),
    ]
}
