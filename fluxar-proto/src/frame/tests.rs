use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// The frames of `bytes`, and what is left.
fn all(mut bytes: &[u8], limit: u32) -> Result<(Vec<&[u8]>, &[u8]), FrameError> {
    let mut frames = Vec::new();
    while let Some(len) = split(bytes, limit)? {
        let (body, rest) = bytes[PREFIX_LEN..].split_at(len);
        frames.push(body);
        bytes = rest;
    }
    Ok((frames, bytes))
}

// spec: §3.1
#[test]
fn a_frame_is_its_length_and_its_body() {
    assert_eq!(prefix(60), [0, 0, 0, 60]);
    assert_eq!(prefix(0x0102_0304), [1, 2, 3, 4]);
    assert_eq!(split(&[0, 0, 0, 2, 0xaa, 0xbb], 10), Ok(Some(2)));
}

// spec: §3.1
#[test]
fn frames_follow_each_other() {
    let bytes = [0, 0, 0, 1, 0xaa, 0, 0, 0, 2, 0xbb, 0xcc, 0, 0, 0];
    assert_eq!(all(&bytes, 10), Ok((vec![&[0xaa][..], &[0xbb, 0xcc]], &[0, 0, 0][..])));
}

// spec: §3.1
#[test]
fn a_frame_of_no_bytes_is_refused() {
    assert_eq!(split(&[0, 0, 0, 0], 10), Err(FrameError::Empty));
    assert_eq!(split(&[0, 0, 0, 0, 1, 2, 3], 10), Err(FrameError::Empty));
}

// spec: §3.3
#[test]
fn a_frame_of_the_limit_is_taken_and_one_byte_more_refused() {
    assert_eq!(split(&[0, 1, 0, 0], HANDSHAKE_LIMIT), Ok(None));
    let error = FrameError::TooLong { len: 65_537, limit: 65_536 };
    assert_eq!(split(&[0, 1, 0, 1], HANDSHAKE_LIMIT), Err(error));
}

// spec: §3.3
#[test]
fn a_frame_over_the_limit_is_refused_from_its_length_alone() {
    let bytes = [0xff, 0xff, 0xff, 0xff];
    for len in 0..4 {
        assert_eq!(split(&bytes[..len], u32::MAX - 1), Ok(None));
    }
    let error = FrameError::TooLong { len: u32::MAX, limit: u32::MAX - 1 };
    assert_eq!(split(&bytes, u32::MAX - 1), Err(error));
    assert_eq!(split(&bytes, u32::MAX), Ok(None));

    let mut buffer = FrameBuffer::<8>::new(u32::MAX);
    let mut input = &[0, 0, 0, 9, 1, 2, 3][..];
    assert_eq!(buffer.feed(&mut input), Err(FrameError::TooLong { len: 9, limit: 8 }));
    assert_eq!(input, [1, 2, 3], "bytes of the body were taken");
}

// spec: §3.5
#[test]
fn what_other_protocols_send_first_is_over_the_limit() {
    for first in [&b"GET / HTTP/1.1\r\n"[..], &[0x16, 3, 1, 2, 0], b"PRI * HTTP/2.0", b"SSH-2.0-x"] {
        assert!(matches!(split(first, HANDSHAKE_LIMIT), Err(FrameError::TooLong { .. })));
    }
}

#[test]
fn missing_says_what_a_frame_needs_at_least() {
    for (bytes, expected) in [
        (&[][..], 4),
        (&[0, 0, 0], 1),
        (&[0, 0, 0, 3], 3),
        (&[0, 0, 0, 3, 1], 2),
        (&[0, 0, 0, 3, 1, 2, 3], 0),
        (&[0, 0, 0, 3, 1, 2, 3, 0], 0),
        (&[0xff, 0xff, 0xff, 0xff, 0], u32::MAX as usize - 1),
    ] {
        assert_eq!(missing(bytes), expected, "{bytes:?}");
    }
}

#[test]
fn the_error_of_a_frame_buffer_stays() {
    let mut buffer = FrameBuffer::<8>::new(8);
    assert_eq!(buffer.feed(&mut &[0, 0, 0, 0][..]), Err(FrameError::Empty));
    let mut input = &[0, 0, 0, 1, 0xaa][..];
    assert_eq!(buffer.feed(&mut input), Err(FrameError::Empty));
    assert_eq!(input.len(), 5);
    assert_eq!(buffer.missing(), 0);
}

// spec: §3.3
#[test]
fn a_new_limit_holds_from_the_next_frame_on() {
    let mut buffer = FrameBuffer::<8>::new(2);
    let mut input = &[0, 0, 0, 2, 1, 2, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 9][..];
    assert_eq!(buffer.feed(&mut input), Ok(Some(&[1, 2][..])));
    buffer.set_limit(100);
    assert_eq!(buffer.limit(), 8, "never above the capacity");
    assert_eq!(buffer.feed(&mut input), Ok(Some(&[1, 2, 3, 4, 5][..])));
    assert_eq!(buffer.feed(&mut input), Err(FrameError::TooLong { len: 9, limit: 8 }));
}

#[test]
fn a_frame_buffer_says_what_it_needs() {
    let mut buffer = FrameBuffer::<8>::new(8);
    let mut needs = vec![buffer.missing()];
    for byte in [0, 0, 0, 2, 7, 8] {
        let whole = buffer.feed(&mut &[byte][..]).expect("within the limit").map(<[u8]>::to_vec);
        assert_eq!(whole.is_some(), byte == 8);
        needs.push(buffer.missing());
    }
    assert_eq!(needs, [4, 3, 2, 1, 2, 1, 4]);
}

#[test]
fn errors_name_the_numbers() {
    use std::string::ToString;
    let error = FrameError::TooLong { len: 70_000, limit: 65_536 };
    assert_eq!(error.to_string(), "frame of 70000 bytes, the limit is 65536");
    assert_eq!(FrameError::Empty.to_string(), "frame of no bytes");
}

proptest! {
    // spec: §3.1
    #[test]
    fn any_cut_of_the_bytes_gives_the_same_frames(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..6),
        tail in proptest::collection::vec(any::<u8>(), 0..3),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut bytes = Vec::new();
        for body in &bodies {
            bytes.extend(prefix(body.len() as u32));
            bytes.extend(body);
        }
        bytes.extend(&tail);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();

        let mut buffer = FrameBuffer::<32>::new(32);
        let mut frames = Vec::new();
        for cut in cuts.windows(2) {
            let mut piece = &bytes[cut[0]..cut[1]];
            while let Some(body) = buffer.feed(&mut piece).expect("within the limit") {
                frames.push(body.to_vec());
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert_eq!(&frames, &bodies);
        prop_assert_eq!(buffer.missing(), PREFIX_LEN - tail.len());
    }
}
