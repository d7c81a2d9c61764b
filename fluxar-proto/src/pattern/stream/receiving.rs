//! The half of a stream that receives (§11.10).
//!
//! What came waits here until the application takes it, within the window: credit is given back when half of the window
//! was taken. So what a stream holds that nobody reads is its window and one message (§11.5).

use alloc::collections::VecDeque;
use bytes::{Bytes, BytesMut};

use super::growth::{Growth, Step};
use super::types::{Items, Received};
use crate::message::{Error, Payload};
use crate::time::Instant;

/// Messages below this size, in bytes, are copied together: what waits must not pin the buffers that it came in. Frames
/// come in groups of up to 16 KiB, so that what shares a group's memory is half of it at least.
const SHARED: usize = 8 << 10;

/// So much is copied together, at most.
const CHUNK: usize = 16 << 10;

/// The credit that there may be at most, in bytes (§11.5).
const MAX_CREDIT: i64 = i32::MAX as i64;

#[derive(Debug)]
pub(super) struct Receiving {
    /// Items one behind the other, and what they cost.
    chunks: VecDeque<(Bytes, usize)>,
    /// Small ones that have come last, and what they cost.
    tail: BytesMut,
    tail_cost: usize,
    end: Option<End>,
    /// Why the stream is over, where it did not end in order.
    failed: Option<Error>,
    /// What the peer may still send, as both sides count it.
    credit: i64,
    /// How far credit is filled up.
    growth: Growth,
    /// What the application has taken since credit was given last.
    taken: usize,
    /// Credit that was given and is not to be given again, because the window was taken back.
    excess: i64,
    /// The application waits, and has not been told yet that something has come.
    waiting: bool,
}

#[derive(Debug)]
enum End {
    Ended(Payload),
    /// For the reason in `failed`.
    Failed,
}

impl Receiving {
    pub(super) fn new(window: u32) -> Self {
        Self {
            chunks: VecDeque::new(),
            tail: BytesMut::new(),
            tail_cost: 0,
            end: None,
            failed: None,
            credit: i64::from(window),
            growth: Growth::new(window),
            taken: 0,
            excess: 0,
            waiting: true,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn error(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Whether the peer may send data now, as a message that costs `cost`; it is paid for then.
    #[must_use]
    pub(super) fn spend(&mut self, cost: usize) -> bool {
        let allowed = self.credit > 0;
        self.credit -= cost as i64;
        allowed
    }

    /// Takes in items that came in one message of `cost` bytes.
    pub(super) fn push(&mut self, items: &[u8], frame: &Bytes, cost: usize) {
        if items.is_empty() {
            self.taken += cost;
            return;
        }
        if items.len() >= SHARED && items.len() * 2 >= frame.len() {
            self.seal();
            self.chunks.push_back((frame.slice_ref(items), cost));
            return;
        }
        if self.tail.len() + items.len() > CHUNK {
            self.seal();
        }
        self.tail.extend_from_slice(items);
        self.tail_cost += cost;
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back((self.tail.split().freeze(), core::mem::take(&mut self.tail_cost)));
        }
    }

    /// The peer has said all it had to say.
    pub(super) fn end(&mut self, last: Payload) {
        self.end.get_or_insert(End::Ended(last));
    }

    /// The stream is over, for this reason. Where the peer has said all it had to say, that stays as it is (§11.3).
    pub(super) fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
        self.end.get_or_insert(End::Failed);
    }

    /// The application gives the stream up, and with it what has not come in full.
    pub(super) fn give_up(&mut self, error: Error) {
        if !self.has_ended() {
            self.clear();
        }
        self.fail(error);
    }

    /// Nobody wants what has come.
    pub(super) fn clear(&mut self) {
        self.chunks = VecDeque::new();
        (self.tail, self.tail_cost) = (BytesMut::new(), 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Whether the application is to be told that there is something: once for each time that it found nothing.
    pub(super) fn announce(&mut self) -> bool {
        core::mem::replace(&mut self.waiting, false)
    }

    /// What the application gets next.
    pub(super) fn poll(&mut self) -> Option<Received> {
        if self.chunks.is_empty() {
            self.seal();
        }
        if let Some((items, cost)) = self.chunks.pop_front() {
            self.taken += cost;
            return Some(Received::Items(Items::new(items)));
        }
        match &self.end {
            Some(End::Ended(last)) => Some(Received::End(last.clone())),
            Some(End::Failed) => self.failed.clone().map(Received::Failed),
            None => {
                self.waiting = true;
                self.growth.starved = true;
                None
            }
        }
    }

    /// Whether the peer could not send anything that costs, not even its end.
    pub(super) fn is_stuck(&self) -> bool {
        self.end.is_none() && self.credit <= 0
    }

    /// Whether credit is due: for half of the window, or because the application waits and there is none left.
    pub(super) fn is_due(&self) -> bool {
        let half = (self.growth.window() / 2).max(1) as usize;
        self.end.is_none() && (self.taken >= half || (self.credit <= 0 && self.waiting && self.is_empty()))
    }

    /// The credit that is sent now, in bytes. The window may grow by `room`.
    pub(super) fn grant(&mut self, now: Instant, room: u32) -> u32 {
        let step = self.growth.note_grant(now, self.taken, room);
        let taken = i64::try_from(core::mem::take(&mut self.taken)).unwrap_or(i64::MAX);
        let mut bytes = match step {
            Step::Stay => taken,
            Step::Grow(more) => taken.saturating_add(i64::from(more)),
            Step::Shrink(less) => {
                self.excess += i64::from(less);
                taken
            }
        };
        let withheld = bytes.min(self.excess);
        self.excess -= withheld;
        bytes -= withheld;
        // Where nothing is left, as without any window, the application's waiting is what lets a message through. Where
        // something waits for the application, a debt is what that costs, and is paid when it is taken.
        if self.is_empty() && self.credit + bytes <= 0 {
            bytes = 1 - self.credit;
        }
        let bytes = bytes.min(MAX_CREDIT - self.credit.max(0));
        self.credit += bytes;
        u32::try_from(bytes).unwrap_or(0)
    }

    pub(super) fn window(&self) -> u32 {
        self.growth.window()
    }

    /// By how much the window has grown, in bytes.
    pub(super) fn grown(&self) -> u32 {
        self.growth.grown()
    }

    /// What waits here, in bytes.
    pub(super) fn held(&self) -> usize {
        self.chunks.iter().map(|(items, _)| items.len()).sum::<usize>() + self.tail.len()
    }
}
