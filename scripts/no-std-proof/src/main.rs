//! Framing and messages on a machine that has neither std nor an allocator.
//!
//! Exit status 0: a message went through the encoder, through a frame that arrived in pieces, and through the decoder,
//! and came out as it went in. 1 to 5: the step that did not work.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use fluxar_proto::frame::{self, FrameBuffer, FrameError};
use fluxar_proto::message::{Envelope, Id, Item, Kind, MetaBuf};

// Only the C runtime that calls `main`, and this. No symbol of an allocator is named anywhere.
#[link(name = "c")]
unsafe extern "C" {
    safe fn abort() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    abort()
}

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    match round_trip() {
        Ok(()) => 0,
        Err(step) => step,
    }
}

fn round_trip() -> Result<(), i32> {
    let mut meta = MetaBuf::<32>::new();
    meta.text("trace_id", "abc123").map_err(|_| 1)?;
    let request = Envelope {
        target: Some("user.getProfile"),
        meta: meta.as_meta(),
        payload: Item::new(&[0xa1, 0x62, b'i', b'd', 0x18, 42]).map_err(|_| 1)?,
        ..Envelope::new(Kind::Call, Id::from_bytes([7; 16]))
    };

    let mut sent = [0; frame::PREFIX_LEN + 60];
    let (prefix, body) = sent.split_at_mut(frame::PREFIX_LEN);
    request.encode(&mut &mut *body).map_err(|_| 2)?;
    prefix.copy_from_slice(&frame::prefix(60));

    let mut frames = FrameBuffer::<64>::new(64);
    for piece in sent.chunks(7) {
        let mut input = core::hint::black_box(piece);
        if let Some(body) = frames.feed(&mut input).map_err(|_| 3)? {
            return if Envelope::decode(body) == Ok(request) { refuses_what_is_wrong() } else { Err(4) };
        }
    }
    Err(3)
}

fn refuses_what_is_wrong() -> Result<(), i32> {
    let mut frames = FrameBuffer::<64>::new(64);
    let mut input = core::hint::black_box(&[0_u8, 0, 0, 65][..]);
    let too_long = frames.feed(&mut input) == Err(FrameError::TooLong { len: 65, limit: 64 });
    let malformed = Envelope::decode(core::hint::black_box(&[0x87, 2])).is_err();
    if too_long && malformed { Ok(()) } else { Err(5) }
}
