//! Messages that wait for the application: bounded in number and in the bytes that they hold.

use alloc::collections::VecDeque;

use super::message::MESSAGE_COST;
use super::types::{Overflow, QueueLimits};

/// The buffer that a frame came in, which it shares with those next to it: a message that is kept keeps all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    number: u64,
    len: usize,
}

impl Group {
    /// The next buffer, of so many bytes.
    pub(super) fn advance(&mut self, len: usize) {
        self.number = self.number.wrapping_add(1);
        self.len = len;
    }
}

/// What became of a message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is held.
    Held {
        /// The application must be told.
        announce: bool,
    },
    /// It was dropped.
    Dropped,
    /// It was dropped, and the queue is to be closed.
    Close,
}

#[derive(Debug)]
pub(super) struct Inbox<T> {
    limits: QueueLimits,
    queue: VecDeque<(T, usize)>,
    /// What the messages count for. One buffer counts once for all that lie in it and follow each other; so, when the
    /// first of these were taken, up to one buffer is held that does not count any more.
    bytes: usize,
    /// What the last message came in.
    group: Group,
    /// An event that tells of them is under way, or was delivered and not followed.
    announced: bool,
    received: u64,
    dropped: u64,
    /// How many have left the queue at its front.
    left: u64,
}

impl<T> Inbox<T> {
    pub(super) fn new(limits: QueueLimits) -> Self {
        let (queue, group) = (VecDeque::new(), Group::default());
        Self { limits, queue, bytes: 0, group, announced: false, received: 0, dropped: 0, left: 0 }
    }

    /// Whether a message that came in `group` is beyond the bounds. One is always within.
    pub(super) fn is_full(&self, group: Group) -> bool {
        !self.queue.is_empty()
            && (self.queue.len() >= self.limits.items || self.bytes + self.cost(group) > self.limits.bytes)
    }

    pub(super) fn overflow(&self) -> Overflow {
        self.limits.overflow
    }

    fn cost(&self, group: Group) -> usize {
        let counted = !self.queue.is_empty() && self.group == group;
        MESSAGE_COST + if counted { 0 } else { group.len }
    }

    /// Takes a message in. Whether the application must be told.
    pub(super) fn push(&mut self, message: T, group: Group) -> bool {
        let cost = self.cost(group);
        self.group = group;
        self.bytes += cost;
        self.received += 1;
        self.queue.push_back((message, cost));
        !core::mem::replace(&mut self.announced, true)
    }

    /// Takes a message in, if need be in the place of the oldest ones, as the overflow says: of those that `may_go`. Hands
    /// what goes to `gone`.
    pub(super) fn push_or_drop(
        &mut self,
        message: T,
        group: Group,
        may_go: impl Fn(&T) -> bool,
        mut gone: impl FnMut(T),
    ) -> Taken {
        while self.is_full(group) {
            self.dropped += 1;
            if self.limits.overflow == Overflow::Close {
                return Taken::Close;
            }
            let drops_oldest = self.limits.overflow != Overflow::DropNewest;
            match self.queue.front() {
                Some((oldest, _)) if drops_oldest && may_go(oldest) => {
                    self.pop().into_iter().for_each(&mut gone)
                }
                _ => {
                    self.received += 1;
                    return Taken::Dropped;
                }
            }
        }
        Taken::Held { announce: self.push(message, group) }
    }

    fn pop(&mut self) -> Option<T> {
        let (message, cost) = self.queue.pop_front()?;
        self.bytes -= cost;
        self.left += 1;
        Some(message)
    }

    /// The oldest message. With `None` the next one is announced.
    pub(super) fn poll(&mut self) -> Option<T> {
        let message = self.pop();
        self.announced = message.is_some();
        message
    }

    /// This moment, among the messages that come.
    pub(super) fn mark(&self) -> u64 {
        self.left + self.queue.len() as u64
    }

    /// The oldest message, if it came before `mark`. With `None` nothing is announced that was not before.
    pub(super) fn poll_before(&mut self, mark: u64) -> Option<T> {
        if self.left < mark { self.pop() } else { None }
    }

    /// A message was dropped that was never in the queue.
    pub(super) fn note_dropped(&mut self) {
        self.dropped += 1;
    }

    /// Messages and bytes that it holds.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.queue.len(), self.bytes)
    }

    /// Messages that came, and that were dropped.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.received, self.dropped)
    }

    /// Drops those that are not to be kept.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let bytes = &mut self.bytes;
        self.queue.retain(|(message, cost)| {
            let kept = keep(message);
            *bytes -= if kept { 0 } else { *cost };
            kept
        });
    }
}
