//! The bytes that wait for the transport.

use alloc::collections::VecDeque;
use core::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame;
use crate::message::Envelope;
use crate::session::{Again, Ledger};

/// Payloads from this size on, in bytes, become segments of their own instead of being copied.
const SEGMENT: usize = 4096;

/// Encoded frames on their way to the transport: owned by the driver, filled by
/// [`poll_transmit`](super::Connection::poll_transmit).
///
/// Small messages lie one behind the other in one buffer; large payloads are shared, not copied, and make segments of
/// their own, for a vectored write. It is a [`Buf`]: write [`chunk`](Buf::chunk) or [`segments`](Self::segments), then
/// [`advance`](Buf::advance) by what the transport took.
#[derive(Default)]
pub struct TransmitBuf {
    segments: VecDeque<Bytes>,
    tail: BytesMut,
    /// Bytes in `segments`.
    sealed: usize,
}

/// Shows how much it is and nothing of it: in a hello there are secrets (§17.4).
impl fmt::Debug for TransmitBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransmitBuf").field("remaining", &self.remaining()).finish_non_exhaustive()
    }
}

/// Encodes into the tail.
struct Tail<'a>(&'a mut BytesMut);

impl minicbor::encode::Write for Tail<'_> {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.put_slice(bytes);
        Ok(())
    }
}

impl TransmitBuf {
    /// An empty buffer that holds no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pieces to write, in order.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        self.segments.iter().map(|segment| &segment[..]).chain(tail)
    }

    /// Gives unused memory back; worth doing when a connection falls idle.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.tail.is_empty()
    }

    /// Appends one frame. `payload` owns the bytes of the envelope's payload, where they may be shared.
    /// What `ledger` is to keep it keeps.
    pub(super) fn push(
        &mut self,
        envelope: &Envelope<'_>,
        payload: Option<&Bytes>,
        ledger: Option<&mut Ledger>,
    ) {
        let len = envelope.encoded_len();
        let shared = payload.filter(|payload| payload.len() >= SEGMENT);
        self.tail.reserve(frame::PREFIX_LEN + len - shared.map_or(0, Bytes::len));
        self.tail.put_slice(&frame::prefix(u32::try_from(len).unwrap_or(u32::MAX)));
        let start = self.tail.len();
        let Some(payload) = shared else {
            let Ok(()) = envelope.encode(&mut Tail(&mut self.tail));
            if let Some(ledger) = ledger {
                ledger.keep(self.tail.get(start..).unwrap_or_default(), None, &[]);
            }
            return;
        };
        let Ok(()) = envelope.encode_head(&mut Tail(&mut self.tail));
        let head = self.seal_tail();
        self.push_shared(payload.clone());
        let Ok(()) = envelope.encode_tail(&mut Tail(&mut self.tail));
        if let Some(ledger) = ledger {
            ledger.keep(head.get(start..).unwrap_or_default(), Some(payload), &self.tail);
        }
    }

    /// Appends a frame that was sent before (§9.7).
    pub(super) fn push_again(&mut self, again: &Again<'_>) {
        let Again { head, shared, tail } = again;
        let len = head.len() + shared.len() + tail.len();
        self.tail.put_slice(&frame::prefix(u32::try_from(len).unwrap_or(u32::MAX)));
        self.tail.put_slice(head);
        if !shared.is_empty() {
            self.seal_tail();
            self.push_shared((*shared).clone());
        }
        self.tail.put_slice(tail);
    }

    /// What was copied becomes a segment of its own.
    fn seal_tail(&mut self) -> Bytes {
        let head = self.tail.split().freeze();
        self.push_shared(head.clone());
        head
    }

    fn push_shared(&mut self, segment: Bytes) {
        self.sealed += segment.len();
        self.segments.push_back(segment);
    }
}

impl Buf for TransmitBuf {
    fn remaining(&self) -> usize {
        self.sealed + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.segments.front().map_or(&self.tail[..], |segment| &segment[..])
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.segments.front_mut() {
            let step = count.min(front.len());
            front.advance(step);
            self.sealed -= step;
            count -= step;
            if !front.is_empty() {
                return;
            }
            self.segments.pop_front();
        }
        self.tail.advance(count);
        if self.tail.is_empty() {
            // Begin again at the start of the buffer instead of walking through it.
            self.tail.clear();
        }
    }
}
