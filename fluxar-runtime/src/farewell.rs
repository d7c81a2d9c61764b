//! The end of a link.

use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use crate::runtime::Link;

/// How much is read at once, at most, in bytes.
const PIECE: usize = 64 << 10;

/// How often a poll reads.
const ROUNDS: usize = 16;

/// Reads and forgets what the peer still sends; ready when it has closed. Whoever closes a link with unread input
/// destroys what it has just sent (§8.7).
///
/// A peer that never stops sending does not keep the task from looking at the clock.
pub(crate) fn poll_discard(cx: &mut Context<'_>, link: &mut impl Link, buffer: &mut BytesMut) -> Poll<()> {
    for _ in 0..ROUNDS {
        *buffer = BytesMut::new();
        if ready!(link.poll_readable(cx)).is_err() {
            return Poll::Ready(());
        }
        buffer.reserve(PIECE);
        if !matches!(ready!(link.poll_read(cx, buffer)), Ok(1..)) {
            return Poll::Ready(());
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
