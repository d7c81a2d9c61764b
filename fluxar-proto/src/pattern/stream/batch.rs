//! Small items that share a message (§11.2).

use bytes::{BufMut, BytesMut};

use super::sending::Data;
use crate::message::{Item, Payload};

/// Items up to this size, in bytes, are copied and share messages; longer ones are shared, not copied, and go alone.
const SMALL: usize = 1024;

/// So many bytes of small items share one message.
pub(super) const BATCH: usize = 16 << 10;

/// Room in front of the items for the head of the array.
const HEAD: usize = 3;

/// Small items of a stream that are to be sent together, and one of any size behind them: for whoever has many at once and
/// wants to hand them over in one step, with [`send_batch`](crate::Connection::send_batch).
#[derive(Debug, Default)]
pub struct ItemBatch {
    /// The items, one behind the other, behind room for a head; or nothing at all.
    items: BytesMut,
    count: u16,
    last: Option<Payload>,
}

impl ItemBatch {
    /// No items.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { items: BytesMut::with_capacity(HEAD + bytes), count: 0, last: None }
    }

    /// Copies one more item. `false` where it has to go another way: it is longer than 1,024 bytes, nests as deep as an item
    /// may, or there is no room for it.
    #[must_use]
    pub fn push(&mut self, item: Item<'_>) -> bool {
        let bytes = item.as_bytes();
        if bytes.len() > SMALL
            || self.bytes() + bytes.len() > BATCH
            || self.count == u16::MAX
            || self.last.is_some()
            || !item.fits_in_array()
        {
            return false;
        }
        if self.items.is_empty() {
            self.items.put_bytes(0, HEAD);
        }
        self.items.put_slice(bytes);
        self.count += 1;
        true
    }

    /// Adds the last item, which may be of any size, and shares it. One that is there is replaced.
    pub fn push_last(&mut self, item: Payload) {
        self.last = Some(item);
    }

    /// Whether every small item has room.
    pub fn has_room(&self) -> bool {
        self.bytes() + SMALL <= BATCH && self.count < u16::MAX && self.last.is_none()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.last.is_none()
    }

    pub(super) fn take_last(&mut self) -> Option<Payload> {
        self.last.take()
    }

    /// The length of the small items, in bytes.
    pub fn bytes(&self) -> usize {
        self.items.len().saturating_sub(HEAD)
    }

    /// The items, one behind the other.
    pub(super) fn items(&self) -> &[u8] {
        self.items.get(HEAD..).unwrap_or_default()
    }

    /// One item as it is, several as an array.
    pub(super) fn into_data(self) -> Data {
        let Self { mut items, count, last: _ } = self;
        if count == 1 {
            return Data::Item(Payload::trusted(items.split_off(HEAD).freeze()));
        }
        let [high, low] = count.to_be_bytes();
        // The head of an array in its shortest form (§5.2).
        let (head, len) = match count {
            0..24 => ([0, 0, 0x80 | low], 1),
            24..0x100 => ([0, 0x98, low], 2),
            _ => ([0x99, high, low], 3),
        };
        if let Some(room) = items.get_mut(..HEAD) {
            room.copy_from_slice(&head);
        }
        Data::Items(Payload::trusted(items.freeze().slice(HEAD - len..)))
    }
}
