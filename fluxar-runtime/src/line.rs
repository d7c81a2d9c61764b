//! Those who wait for something, in the order in which they came.

use std::collections::BTreeMap;
use std::task::{Context, Waker};

/// Wakers, each under a ticket. Tickets rise, so that whoever comes back with his has his old place.
#[derive(Default)]
pub(crate) struct Line {
    next: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl Line {
    /// Waits at the place that `ticket` names, or at the end, with a new ticket. Gives the waker back whose place the new
    /// one takes, to be dropped without a lock.
    #[must_use]
    pub(crate) fn wait(&mut self, ticket: &mut Option<u64>, cx: &mut Context<'_>) -> Option<Waker> {
        let ticket = *ticket.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        match self.waiting.get_mut(&ticket) {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => self.waiting.insert(ticket, cx.waker().clone()),
        }
    }

    /// Whether `ticket` has not been called up yet.
    pub(crate) fn holds(&self, ticket: u64) -> bool {
        self.waiting.contains_key(&ticket)
    }

    /// Gives a place up; `None` where the ticket was called up before. The waker is to be dropped without a lock.
    #[must_use]
    pub(crate) fn leave(&mut self, ticket: u64) -> Option<Waker> {
        self.waiting.remove(&ticket)
    }

    /// Calls the first one up.
    pub(crate) fn pop(&mut self) -> Option<(u64, Waker)> {
        self.waiting.pop_first()
    }

    /// Calls the first `count` up.
    pub(crate) fn call_up(&mut self, count: usize, wakers: &mut Vec<Waker>) {
        wakers.extend((0..count).map_while(|_| self.pop()).map(|(_, waker)| waker));
    }

    /// Calls everybody up.
    pub(crate) fn call_all(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(std::mem::take(&mut self.waiting).into_values());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
