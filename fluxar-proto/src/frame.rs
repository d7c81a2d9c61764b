//! L1, framing (§3): a 4-byte big-endian length, then that many bytes.
//!
//! [`split`] serves whoever keeps the received bytes in a buffer of his own: nothing is copied, a frame is a
//! slice of that buffer. [`FrameBuffer`] serves a peer without an allocator: it collects one frame at a time
//! in a fixed array. Both judge a frame by its length alone, before anything of its body is taken, and both
//! give the same frames and the same error however the bytes are cut into pieces.

use core::fmt;

use heapless::Vec;

/// Bytes of the length in front of every frame body (§3.1).
pub const PREFIX_LEN: usize = 4;

/// The longest frame body, in bytes, that is taken until the handshake completes (§3.3).
pub const HANDSHAKE_LIMIT: u32 = 65_536;

/// What a frame body may exceed the receiver's `max_message` by, in bytes, once the handshake is complete
/// (§3.3).
pub const ALLOWANCE: u32 = 64;

/// Why a byte stream holds no further frame. After it the stream has lost its boundaries: it cannot go on
/// (§5.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A frame announces a body of no bytes: `malformed`.
    Empty,
    /// A frame announces a body longer than this receiver takes: `message_too_large`.
    TooLong {
        /// The announced length of the body, in bytes.
        len: u32,
        /// The longest body that is taken, in bytes.
        limit: u32,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("frame of no bytes"),
            Self::TooLong { len, limit } => write!(f, "frame of {len} bytes, the limit is {limit}"),
        }
    }
}

impl core::error::Error for FrameError {}

/// The four bytes that go in front of a body of `body_len` bytes.
#[must_use]
pub const fn prefix(body_len: u32) -> [u8; PREFIX_LEN] {
    body_len.to_be_bytes()
}

/// Finds the first frame of `input`.
///
/// `Ok(Some(n))`: `input[4..4 + n]` is a whole frame body. `Ok(None)`: bytes are missing; [`missing`] says
/// how many at least.
///
/// # Errors
///
/// As soon as the four bytes of the length are there: [`FrameError::Empty`] for a length of zero,
/// [`FrameError::TooLong`] for one above `limit`.
#[inline]
pub fn split(input: &[u8], limit: u32) -> Result<Option<usize>, FrameError> {
    let Some((prefix, rest)) = input.split_first_chunk() else {
        return Ok(None);
    };
    let len = checked_len(*prefix, limit)?;
    Ok((rest.len() >= len).then_some(len))
}

/// How many bytes the frame at the start of `input` still needs, at least; 0 where it is whole.
///
/// Until its length is known that is what the length lacks. The length is taken at its word: size no buffer
/// by this before [`split`] has accepted it.
#[must_use]
pub fn missing(input: &[u8]) -> usize {
    match input.split_first_chunk() {
        Some((prefix, rest)) => to_usize(u32::from_be_bytes(*prefix)).saturating_sub(rest.len()),
        None => PREFIX_LEN - input.len(),
    }
}

fn checked_len(prefix: [u8; PREFIX_LEN], limit: u32) -> Result<usize, FrameError> {
    match u32::from_be_bytes(prefix) {
        0 => Err(FrameError::Empty),
        len if len > limit => Err(FrameError::TooLong { len, limit }),
        len => Ok(to_usize(len)),
    }
}

/// Where `usize` is narrower than 32 bits no buffer can hold such a frame anyway: it stays incomplete.
fn to_usize(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Collects frames out of a byte stream, one at a time, without an allocator.
///
/// `N` is the longest body it can hold, in bytes. Feed it what arrives, in any pieces:
///
/// ```
/// use fluxar_proto::frame::FrameBuffer;
///
/// let mut frames = FrameBuffer::<16>::new(16);
/// let mut input: &[u8] = &[0, 0, 0, 2, 0xa1, 0xa2, 0, 0, 0, 1, 0xb1, 0, 0];
/// assert_eq!(frames.feed(&mut input), Ok(Some(&[0xa1, 0xa2][..])));
/// assert_eq!(frames.feed(&mut input), Ok(Some(&[0xb1][..])));
/// assert_eq!(frames.feed(&mut input), Ok(None));
/// assert!(input.is_empty());
/// assert_eq!(frames.missing(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct FrameBuffer<const N: usize> {
    prefix: Vec<u8, PREFIX_LEN, u8>,
    body: Vec<u8, N, usize>,
    limit: u32,
    state: State,
}

/// ```text
///            prefix whole               body whole
///   Prefix ---------------> Body(len) -------------> Whole
///     |  ^                                             |
///     |  +---------------------------------------------+  next feed
///     v
///   Failed (stays)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Prefix,
    /// The length of the body is known, accepted and at most `N`.
    Body(usize),
    Whole,
    Failed(FrameError),
}

impl<const N: usize> FrameBuffer<N> {
    /// A buffer that takes bodies of up to `limit` bytes, and never more than `N`.
    #[must_use]
    pub const fn new(limit: u32) -> Self {
        Self { prefix: Vec::new(), body: Vec::new(), limit: Self::clamp(limit), state: State::Prefix }
    }

    /// The longest body that is taken, in bytes.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Changes the longest body that is taken; never above `N`. It holds for every frame whose length has not
    /// been judged yet, so the bytes behind the last frame of a handshake fall under it.
    pub const fn set_limit(&mut self, limit: u32) {
        self.limit = Self::clamp(limit);
    }

    /// Takes bytes from the front of `input`, up to the end of a frame, and returns the body if that frame is
    /// whole.
    ///
    /// Call it until it returns `Ok(None)`: only then is `input` empty. The body stays readable until the
    /// next call.
    ///
    /// # Errors
    ///
    /// As [`split`]. The error stays: every further call returns it and takes nothing.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<&[u8]>, FrameError> {
        if self.state == State::Whole {
            self.prefix.clear();
            self.body.clear();
            self.state = State::Prefix;
        }
        if self.state == State::Prefix {
            fill(&mut self.prefix, PREFIX_LEN, input);
            let Some(prefix) = self.prefix.first_chunk() else {
                return Ok(None);
            };
            self.state = match checked_len(*prefix, self.limit) {
                Ok(len) => State::Body(len),
                Err(error) => State::Failed(error),
            };
        }
        match self.state {
            State::Failed(error) => Err(error),
            State::Body(len) if fill(&mut self.body, len, input) => {
                self.state = State::Whole;
                Ok(Some(&self.body))
            }
            _ => Ok(None),
        }
    }

    /// How many bytes are needed, at least, until the next frame is whole: always more than 0, but for a
    /// buffer that has failed.
    #[must_use]
    pub fn missing(&self) -> usize {
        match self.state {
            State::Prefix => PREFIX_LEN - self.prefix.len(),
            State::Body(len) => len - self.body.len(),
            State::Whole => PREFIX_LEN,
            State::Failed(_) => 0,
        }
    }

    const fn clamp(limit: u32) -> u32 {
        let most = if N > u32::MAX as usize { u32::MAX } else { N as u32 };
        if limit < most { limit } else { most }
    }
}

/// Moves bytes from `input` until `buffer` holds `len`; whether it does.
fn fill<const N: usize, L: heapless::LenType>(
    buffer: &mut Vec<u8, N, L>,
    len: usize,
    input: &mut &[u8],
) -> bool {
    let (taken, rest) = input.split_at(input.len().min(len.saturating_sub(buffer.len())));
    // `len` never exceeds the capacity: it is `PREFIX_LEN`, or was checked against a limit of at most `N`.
    if buffer.extend_from_slice(taken).is_ok() {
        *input = rest;
    }
    buffer.len() == len
}

#[cfg(test)]
mod tests;
