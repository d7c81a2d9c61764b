//! Updates that wait for the application to take them: bounded, the oldest goes first (§10.3).

use alloc::collections::VecDeque;

use crate::message::Payload;

/// The updates of one call.
#[derive(Debug, Default)]
pub(super) struct Updates {
    held: VecDeque<Payload>,
    bytes: usize,
    /// An event that tells of them is under way.
    announced: bool,
}

/// What became of an update that came.
pub(super) struct Admitted {
    /// How many were dropped to make room: of the older ones, or the new one itself.
    pub(super) dropped: u64,
    /// Whether the application must be told: no event tells of them yet.
    pub(super) announce: bool,
}

impl Updates {
    /// Takes an update in; `total` counts the bytes held over all calls of the connection.
    pub(super) fn admit(
        &mut self,
        payload: Payload,
        total: &mut usize,
        max_count: usize,
        max_bytes: usize,
    ) -> Admitted {
        let mut dropped = 0;
        // What cannot be held at all takes the place of nothing.
        if payload.len() > max_bytes {
            return Admitted { dropped: 1, announce: false };
        }
        while self.held.len() >= max_count || *total + payload.len() > max_bytes {
            let Some(oldest) = self.held.pop_front() else {
                return Admitted { dropped: dropped + 1, announce: false };
            };
            self.account_less(oldest.len(), total);
            dropped += 1;
        }
        let announce = !self.announced;
        self.announced = true;
        self.bytes += payload.len();
        *total += payload.len();
        self.held.push_back(payload);
        Admitted { dropped, announce }
    }

    /// The event that tells of them was delivered.
    pub(super) fn delivered(&mut self) {
        self.announced = false;
    }

    pub(super) fn take(&mut self, total: &mut usize) -> Option<Payload> {
        let payload = self.held.pop_front()?;
        self.account_less(payload.len(), total);
        Some(payload)
    }

    pub(super) fn clear(&mut self, total: &mut usize) {
        self.held.clear();
        self.account_less(self.bytes, total);
    }

    fn account_less(&mut self, bytes: usize, total: &mut usize) {
        self.bytes -= bytes;
        *total -= bytes;
    }
}
