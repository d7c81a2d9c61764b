//! What has been sent and handled, and what is kept until the other side has it (§9.2 to §9.4, §9.7).

use alloc::collections::VecDeque;
use core::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::error::Violation;
use crate::time::Instant;

/// So many messages, or bytes of messages, may be handled before the other side is told (§9.3).
const TELL_MESSAGES: u64 = 256;
const TELL_BYTES: usize = 256 << 10;

/// The other side is told after so long at the latest (§9.3).
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Memory of the log beyond this, in bytes, goes back once nothing is kept.
const LOG_SPARE: usize = 64 << 10;

/// How much a side keeps for resending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreLimits {
    /// Messages, at least 512.
    pub(crate) messages: usize,
    /// Bytes, at least 1 MiB; the message that goes beyond is kept too.
    pub(crate) bytes: usize,
}

impl StoreLimits {
    /// No less than the protocol asks for (§9.4).
    pub(crate) fn new(messages: usize, bytes: usize) -> Self {
        Self { messages: messages.max(512), bytes: bytes.max(1 << 20) }
    }
}

/// One side's account of one lane of a session.
///
/// ```text
///   ours:    1 .. acknowledged | kept: .. resend from here .. | next to be sent
///   theirs:  1 .. told | handled, not told yet
/// ```
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: StoreLimits,
    /// So many of our messages the other side has handled, as it told.
    acknowledged: u64,
    /// Our messages behind those, in order.
    kept: VecDeque<Kept>,
    /// What was copied of them, one behind the other.
    log: BytesMut,
    /// Bytes of `kept` in all, copied or shared.
    bytes: usize,
    /// Of `kept`, the first that is still to be sent again; its length where there is none.
    again: usize,
    /// Where that one begins in `log`.
    again_at: usize,
    /// So many of the other side's messages we have handled.
    handled: u64,
    /// So many it was told of.
    told: u64,
    /// Bytes handled since then.
    untold_bytes: usize,
    /// When it is to be told at the latest.
    tell_at: Option<Instant>,
    /// It is to be told as soon as the transport takes something.
    is_due: bool,
}

/// A message that was sent, byte for byte: `head` bytes of the log, then what is shared, then `tail` bytes of the log.
#[derive(Debug)]
struct Kept {
    head: u32,
    tail: u32,
    shared: Bytes,
}

impl Kept {
    fn copied(&self) -> usize {
        self.head as usize + self.tail as usize
    }

    fn len(&self) -> usize {
        self.copied() + self.shared.len()
    }
}

/// A message to be sent again.
pub(crate) struct Again<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) shared: &'a Bytes,
    pub(crate) tail: &'a [u8],
}

impl Ledger {
    pub(crate) fn new(limits: StoreLimits) -> Self {
        Self {
            limits,
            acknowledged: 0,
            kept: VecDeque::new(),
            log: BytesMut::new(),
            bytes: 0,
            again: 0,
            again_at: 0,
            handled: 0,
            told: 0,
            untold_bytes: 0,
            tell_at: None,
            is_due: false,
        }
    }

    /// Whether nothing more may be sent that has to be kept (§9.4).
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() >= self.limits.messages || self.bytes >= self.limits.bytes
    }

    /// Bytes kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages kept.
    pub(crate) fn messages(&self) -> usize {
        self.kept.len()
    }

    /// A message goes out, for the first time.
    pub(crate) fn keep(&mut self, head: &[u8], shared: Option<&Bytes>, tail: &[u8]) {
        let is_current = self.again == self.kept.len();
        self.log.extend_from_slice(head);
        self.log.extend_from_slice(tail);
        // A message is shorter than 2^32 (§6.7).
        let kept = Kept {
            head: head.len() as u32,
            tail: tail.len() as u32,
            shared: shared.cloned().unwrap_or_default(),
        };
        self.bytes += kept.len();
        if is_current {
            self.again += 1;
            self.again_at += kept.copied();
        }
        self.kept.push_back(kept);
    }

    /// The other side has handled so many of our messages: they are forgotten (§9.3).
    ///
    /// # Errors
    ///
    /// It cannot have: there are not so many, or it told of more before.
    pub(crate) fn acknowledge(&mut self, handled: u64) -> Result<(), Violation> {
        let count = handled.checked_sub(self.acknowledged).ok_or(Violation::WrongCount)?;
        let count = usize::try_from(count).map_err(|_| Violation::WrongCount)?;
        if count > self.kept.len() {
            return Err(Violation::WrongCount);
        }
        self.acknowledged = handled;
        let mut copied = 0;
        for kept in self.kept.drain(..count) {
            copied += kept.copied();
            self.bytes -= kept.len();
        }
        self.log.advance(copied);
        self.again = self.again.saturating_sub(count);
        self.again_at = self.again_at.saturating_sub(copied);
        if self.log.is_empty() && self.log.capacity() > LOG_SPARE {
            self.log = BytesMut::new();
        }
        Ok(())
    }

    /// A new link is there: all that is kept goes again. How many messages that is.
    pub(crate) fn rewind(&mut self) -> usize {
        (self.again, self.again_at) = (0, 0);
        self.kept.len()
    }

    /// Whether something is still to be sent again, ahead of what is new.
    pub(crate) fn has_again(&self) -> bool {
        self.again < self.kept.len()
    }

    /// The next message to be sent again.
    pub(crate) fn next_again(&mut self) -> Option<Again<'_>> {
        let kept = self.kept.get(self.again)?;
        let copied = self.log.get(self.again_at..)?.get(..kept.copied())?;
        let (head, tail) = copied.split_at_checked(kept.head as usize)?;
        self.again += 1;
        self.again_at += kept.copied();
        Some(Again { head, shared: &kept.shared, tail })
    }

    /// A counted message of the other side, of so many bytes, was handled.
    pub(crate) fn note_handled(&mut self, len: usize, now: Instant) {
        self.handled += 1;
        self.untold_bytes += len;
        if self.handled - self.told >= TELL_MESSAGES || self.untold_bytes >= TELL_BYTES {
            self.tell_at_once();
        } else if !self.is_due && self.tell_at.is_none() {
            self.tell_at = Some(now + TELL_AFTER);
        }
    }

    /// How many of our messages there have been.
    pub(crate) fn sent(&self) -> u64 {
        self.acknowledged + self.kept.len() as u64
    }

    /// How many of them the other side has handled, as it told.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How many messages of the other side were handled.
    pub(crate) fn handled(&self) -> u64 {
        self.handled
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called. What is due then waits for the transport, and for
    /// no other moment.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.tell_at
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at_once();
        }
    }

    /// Whether the other side is to be told now.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due
    }

    /// What the other side is to be told now, if anything.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<u64> {
        self.handle_timeout(now);
        core::mem::take(&mut self.is_due).then(|| {
            (self.told, self.untold_bytes) = (self.handled, 0);
            self.handled
        })
    }

    /// The other side is to be told as soon as that can be, whatever was handled since.
    pub(crate) fn tell_at_once(&mut self) {
        (self.is_due, self.tell_at) = (true, None);
    }

    /// The link is gone: until there is another one nobody can be told.
    pub(crate) fn hush(&mut self) {
        (self.is_due, self.tell_at) = (false, None);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(StoreLimits::new(0, 0))
    }

    fn all_again(ledger: &mut Ledger) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(Again { head, shared, tail }) = ledger.next_again() {
            all.push([head, shared, tail].concat());
        }
        all
    }

    // spec: §9.3, §9.7
    #[test]
    fn what_is_not_acknowledged_comes_again_byte_for_byte() {
        let mut ledger = ledger();
        ledger.keep(b"one", None, b"");
        ledger.keep(b"<", Some(&Bytes::from_static(b"two")), b">");
        ledger.keep(b"three", None, b"");
        assert!(!ledger.has_again() && ledger.next_again().is_none());
        assert_eq!((ledger.messages(), ledger.bytes()), (3, 13));
        assert_eq!(ledger.rewind(), 3);
        assert_eq!(all_again(&mut ledger), [&b"one"[..], b"<two>", b"three"]);
        ledger.acknowledge(1).unwrap();
        ledger.rewind();
        assert_eq!(ledger.next_again().unwrap().shared, "two");
        // What is new comes behind what is to be sent again, and is not sent twice.
        ledger.keep(b"four", None, b"");
        assert_eq!(all_again(&mut ledger), [&b"three"[..], b"four"]);
        // What was acknowledged meanwhile is not sent again.
        ledger.rewind();
        ledger.acknowledge(3).unwrap();
        assert_eq!(all_again(&mut ledger), [b"four"]);
        ledger.acknowledge(4).unwrap();
        assert_eq!((ledger.rewind(), ledger.bytes()), (0, 0));
    }

    // spec: §9.3
    #[test]
    fn nobody_can_have_handled_more_than_was_sent_or_less_than_before() {
        let mut ledger = ledger();
        assert_eq!(ledger.acknowledge(1), Err(Violation::WrongCount));
        ledger.keep(b"one", None, b"");
        ledger.keep(b"two", None, b"");
        assert_eq!(ledger.acknowledge(u64::MAX), Err(Violation::WrongCount));
        assert_eq!(ledger.acknowledge(3), Err(Violation::WrongCount));
        ledger.acknowledge(2).unwrap();
        ledger.acknowledge(2).unwrap();
        assert_eq!(ledger.acknowledge(1), Err(Violation::WrongCount));
    }

    // spec: §9.3
    #[test]
    fn the_other_side_is_told_after_256_messages_or_256_kib_or_a_second() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut ledger = ledger();
        assert_eq!(ledger.next_timeout(), None);
        for n in 1..=256 {
            assert_eq!(ledger.tell(at(0)), None);
            ledger.note_handled(10, at(0));
            assert_eq!(ledger.handled(), n);
        }
        assert_eq!((ledger.tell(at(0)), ledger.tell(at(5000))), (Some(256), None));
        ledger.note_handled((256 << 10) - 1, at(5000));
        assert_eq!((ledger.tell(at(5000)), ledger.next_timeout()), (None, Some(at(6000))));
        ledger.note_handled(1, at(5500));
        // What is due waits for the transport, however long that takes, and not for a moment that is past.
        assert_eq!((ledger.is_due(), ledger.next_timeout()), (true, None));
        ledger.note_handled(1, at(5600));
        assert_eq!(ledger.next_timeout(), None);
        assert_eq!((ledger.tell(at(5700)), ledger.is_due()), (Some(259), false));
        ledger.note_handled(1, at(7000));
        assert_eq!((ledger.tell(at(7999)), ledger.tell(at(8000))), (None, Some(260)));
        ledger.note_handled(1, at(8000));
        ledger.handle_timeout(at(8999));
        assert!(!ledger.is_due());
        ledger.handle_timeout(at(9000));
        assert_eq!((ledger.is_due(), ledger.next_timeout()), (true, None));
    }

    // spec: §9.4
    // limit: store of counted messages
    #[test]
    fn a_store_holds_512_messages_and_a_mebibyte_at_least() {
        let mut ledger = ledger();
        for _ in 0..512 {
            assert!(!ledger.is_full());
            ledger.keep(b"x", None, b"");
        }
        assert!(ledger.is_full());
        ledger.acknowledge(512).unwrap();
        ledger.keep(b"", Some(&Bytes::from(alloc::vec![0; (1 << 20) - 1])), b"");
        assert!(!ledger.is_full());
        ledger.keep(b"x", None, b"");
        assert!(ledger.is_full());
    }
}
