//! The half of a stream that sends (§11.10).
//!
//! ```text
//!  OPEN <---> BLOCKED     credit used up, or the peer has asked for a pause
//!    |            |
//!    | end        | end   by the application
//!    v            v
//!       ENDING ---------> ENDED    all that was queued has left, and `end` behind it
//! ```

use alloc::collections::VecDeque;

use super::batch::{BATCH, ItemBatch};
use crate::message::{Item, Payload};

/// What the message around `items` needs at most, in bytes: envelope, verb, and the head of the array.
pub(super) const ENVELOPE: usize = 64;

/// The smallest memory for a batch, in bytes.
const MIN_BATCH: usize = 64;

/// What a queued item counts for beyond its bytes where it goes alone.
const ITEM_COST: usize = 64;

#[derive(Debug)]
pub(super) struct Sending {
    state: State,
    queue: VecDeque<Piece>,
    /// What `queue` counts for, in bytes.
    queued: usize,
    /// What the peer lets us send, in bytes; below zero by one message at most (§11.5).
    credit: i64,
    /// The peer has asked for a pause (§11.6).
    pub(super) paused: bool,
    /// The application was turned away, and is to be told of room.
    pub(super) wanted: bool,
    /// Something was sent, or is to be.
    pub(super) used: bool,
    /// How long the last batch became.
    hint: usize,
    /// The longest batch that the peer takes.
    batch: usize,
}

#[derive(Debug)]
enum State {
    Open,
    Ending(Payload),
    Ended,
}

/// Something queued: a message, in the end.
#[derive(Debug)]
enum Piece {
    /// Small items.
    Batch(ItemBatch),
    Item(Payload),
}

/// What a message of data carries.
#[derive(Debug)]
pub(super) enum Data {
    Item(Payload),
    Items(Payload),
    End(Payload),
}

impl Sending {
    pub(super) fn new(credit: u32, peer_max_message: usize) -> Self {
        Self {
            state: State::Open,
            queue: VecDeque::new(),
            queued: 0,
            credit: i64::from(credit),
            paused: false,
            wanted: false,
            used: false,
            hint: MIN_BATCH,
            batch: BATCH.min(peer_max_message.saturating_sub(ENVELOPE)),
        }
    }

    /// What is queued and was not sent goes over another session, where the credit and the peer's messages are others.
    pub(super) fn restart(&mut self, credit: u32, peer_max_message: usize) {
        self.credit = i64::from(credit);
        self.batch = BATCH.min(peer_max_message.saturating_sub(ENVELOPE));
    }

    /// Whether what is queued certainly fits messages of this size.
    pub(super) fn fits(&self, peer_max_message: usize) -> bool {
        let last = match &self.state {
            State::Ending(last) => last.len(),
            State::Open | State::Ended => 0,
        };
        let pieces = self.queue.iter().map(|piece| match piece {
            Piece::Batch(batch) => batch.bytes(),
            Piece::Item(payload) => payload.len(),
        });
        pieces.chain([last]).all(|len| len + ENVELOPE <= peer_max_message)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The application has ended it, and that has not left.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending(_))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Queues an item that is to be copied.
    pub(super) fn push_item(&mut self, item: Item<'_>) {
        if !self.push_small(item) {
            self.push_alone(Payload::from(item));
        }
    }

    /// Queues an item.
    pub(super) fn push(&mut self, payload: Payload) {
        if !self.push_small(payload.as_item()) {
            self.push_alone(payload);
        }
    }

    fn push_alone(&mut self, payload: Payload) {
        self.used = true;
        self.queued += payload.len() + ITEM_COST;
        self.queue.push_back(Piece::Item(payload));
    }

    /// Puts the item to others that wait, or begins with it. Whether it is small enough for that.
    fn push_small(&mut self, item: Item<'_>) -> bool {
        let len = item.as_bytes().len();
        if let Some(Piece::Batch(batch)) = self.queue.back_mut()
            && batch.bytes() + len <= self.batch
            && batch.push(item)
        {
            self.queued += len;
            return true;
        }
        let mut batch = ItemBatch::with_capacity(self.hint.max(len));
        if len > self.batch || !batch.push(item) {
            return false;
        }
        self.push_batch(batch);
        true
    }

    /// Queues small items together.
    pub(super) fn push_batch(&mut self, batch: ItemBatch) {
        self.used = true;
        self.queued += batch.bytes() + ITEM_COST;
        self.queue.push_back(Piece::Batch(batch));
    }

    /// Whether a message of the peer's size takes a batch.
    pub(super) fn takes(&self, batch: &ItemBatch) -> bool {
        batch.bytes() <= self.batch
    }

    /// The application has no more to say than `last`.
    pub(super) fn end(&mut self, last: Payload) {
        self.state = State::Ending(last);
    }

    /// Nothing more is sent; what was queued is dropped.
    pub(super) fn shut(&mut self) {
        self.state = State::Ended;
        self.queue = VecDeque::new();
        self.queued = 0;
    }

    /// More credit; `false` where that is more than there may be.
    #[must_use]
    pub(super) fn grant(&mut self, bytes: u64) -> bool {
        let credit = i64::try_from(bytes).ok().and_then(|bytes| self.credit.checked_add(bytes));
        match credit.filter(|credit| *credit <= i64::from(i32::MAX)) {
            Some(credit) => {
                self.credit = credit;
                true
            }
            None => false,
        }
    }

    /// Whether a message could leave now.
    pub(super) fn is_ready(&self) -> bool {
        match &self.state {
            _ if !self.queue.is_empty() => self.credit > 0 && !self.paused,
            State::Ending(last) => last.is_null() || self.credit > 0,
            State::Open | State::Ended => false,
        }
    }

    /// What is sent next, if it may be.
    pub(super) fn poll(&mut self) -> Option<Data> {
        if !self.is_ready() {
            return None;
        }
        match self.queue.pop_front() {
            Some(Piece::Item(payload)) => {
                self.queued -= payload.len() + ITEM_COST;
                Some(Data::Item(payload))
            }
            Some(Piece::Batch(batch)) => {
                self.queued -= batch.bytes() + ITEM_COST;
                self.hint = batch.bytes().clamp(MIN_BATCH, BATCH);
                Some(batch.into_data())
            }
            None => match core::mem::replace(&mut self.state, State::Ended) {
                State::Ending(last) => Some(Data::End(last)),
                State::Open | State::Ended => None,
            },
        }
    }

    /// A message of so many bytes has left.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.credit -= bytes as i64;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn sending(credit: u32, max_message: usize) -> Sending {
        Sending::new(credit, max_message)
    }

    fn number(n: u8) -> Payload {
        Payload::new(vec![0x18, n].into()).unwrap()
    }

    // spec: §11.2
    #[test]
    fn items_that_wait_together_share_an_array_with_the_shortest_head() {
        for count in [1_usize, 2, 23, 24, 255, 256, 3000] {
            let mut sending = sending(1 << 20, 1 << 20);
            (0..count).for_each(|n| sending.push(number(24 + (n % 200) as u8)));
            match (count, sending.poll().unwrap()) {
                (1, Data::Item(item)) => assert_eq!(item, number(24)),
                (_, Data::Items(items)) => {
                    let elements = items.as_item().array().unwrap().count();
                    assert_eq!(elements, count);
                    let mut shortest = Vec::new();
                    minicbor::Encoder::new(&mut shortest).array(count as u64).unwrap();
                    assert_eq!(items.as_bytes()[..shortest.len()], shortest);
                }
                other => panic!("{other:?}"),
            }
            assert_eq!((sending.queued(), sending.is_ready()), (0, false));
        }
    }

    // spec: §11.2, §5.3
    #[test]
    fn what_nests_as_deep_as_an_item_may_goes_alone() {
        let nested = |depth: usize| {
            let mut bytes = vec![0x81; depth];
            bytes.push(0);
            Payload::new(bytes.into()).unwrap()
        };
        let mut sending = sending(1 << 20, 1 << 20);
        for payload in [nested(63), nested(64), nested(1)] {
            sending.push_item(payload.as_item());
            sending.push(payload);
        }
        let mut sent = Vec::new();
        while let Some(data) = sending.poll() {
            sent.push(match data {
                Data::Item(item) => (1, item.len()),
                Data::Items(items) => (items.as_item().array().unwrap().count(), items.len()),
                Data::End(_) => unreachable!("nobody has ended it"),
            });
        }
        assert_eq!(sent, [(2, 129), (1, 65), (1, 65), (2, 5)]);
    }

    // spec: §11.2, §5.13
    #[test]
    fn a_batch_is_no_longer_than_the_peer_takes() {
        let mut sending = sending(1 << 20, 1024);
        (0..2000).for_each(|n| sending.push(number(24 + (n % 200) as u8)));
        while let Some(data) = sending.poll() {
            let (Data::Item(payload) | Data::Items(payload)) = data else {
                unreachable!("nobody has ended it")
            };
            assert!(payload.len() + ENVELOPE - 3 <= 1024, "{}", payload.len());
        }
    }
}
