//! Those who wait for room, and who of them goes next.

use std::collections::BTreeSet;
use std::task::{Context, Waker};

use fluxar_proto::Instant;

use crate::line::Line;

/// What somebody waits for room for. Each has a line of its own: an update needs no slot, and the very call whose slot
/// others wait for may wait for an update.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Call,
    Update,
}

/// Those who were turned away with `Blocked`, and those who came after them.
///
/// As long as anybody waits, somebody will be called up: the core announces room to those whom it has turned away, and
/// who was called up and does not use the room passes it on.
///
/// ```text
///            no room, or others were first               room                      made, failed
///  (nobody) ------------------------------> WAITING --------------> CALLED UP --------------------> (nobody)
///                                             ^  |                     |
///                                             |  | given up, late      | no room after all
///                                             |  +------> (nobody)     |
///                                             +------------------------+  at its old place
/// ```
#[derive(Default)]
pub(crate) struct Queue {
    calls: Line,
    updates: Line,
    /// The callers who were called up and have not come yet: the room is theirs, so that nobody can overtake them.
    called: BTreeSet<u64>,
    /// Until when callers wait (§10.5).
    deadlines: BTreeSet<(Instant, u64)>,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.updates.is_empty()
    }

    /// Whether somebody else has to go first, where there is room for so many calls.
    pub(crate) fn has_others_first(&self, purpose: Purpose, ticket: Option<u64>, room: usize) -> bool {
        let line = self.line(purpose);
        match (ticket, purpose) {
            (Some(ticket), _) => line.holds(ticket),
            (None, Purpose::Update) => !line.is_empty(),
            (None, Purpose::Call) => {
                !line.is_empty() || (!self.called.is_empty() && self.called.len() >= room)
            }
        }
    }

    /// Waits at the place that `ticket` names, or at the end, with a new ticket. Gives a waker back that is to be dropped
    /// without the lock.
    #[must_use]
    pub(crate) fn wait(
        &mut self,
        purpose: Purpose,
        ticket: &mut Option<u64>,
        until: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Option<Waker> {
        let replaced = self.line_mut(purpose).wait(ticket, cx);
        if let (Purpose::Call, Some(ticket)) = (purpose, *ticket) {
            self.called.remove(&ticket);
            self.deadlines.extend(until.map(|until| (until, ticket)));
        }
        replaced
    }

    /// Gives up a place, or what its owner was called up for. Gives a waker back that is to be dropped without the lock.
    #[must_use]
    pub(crate) fn leave(
        &mut self,
        purpose: Purpose,
        ticket: u64,
        until: Option<Instant>,
        wakers: &mut Vec<Waker>,
    ) -> Option<Waker> {
        let left = self.line_mut(purpose).leave(ticket);
        match purpose {
            Purpose::Call => {
                self.called.remove(&ticket);
                if let Some(until) = until {
                    self.deadlines.remove(&(until, ticket));
                }
            }
            // How many updates fit nobody knows: each that has been called up calls the next one up.
            Purpose::Update if left.is_none() => self.updates.call_up(1, wakers),
            Purpose::Update => {}
        }
        left
    }

    /// There is room for so many calls: as many are called up. Whether others are left who wait for more.
    pub(crate) fn serve_calls(&mut self, room: usize, wakers: &mut Vec<Waker>) -> bool {
        for _ in self.called.len()..room {
            let Some((ticket, waker)) = self.calls.pop() else { break };
            self.called.insert(ticket);
            wakers.push(waker);
        }
        !self.calls.is_empty()
    }

    /// There is room for an update.
    pub(crate) fn serve_updates(&mut self, wakers: &mut Vec<Waker>) {
        self.updates.call_up(1, wakers);
    }

    /// Nobody needs to wait any more: the connection has ended.
    pub(crate) fn dissolve(&mut self, wakers: &mut Vec<Waker>) {
        self.calls.call_all(wakers);
        self.updates.call_all(wakers);
        self.called.clear();
    }

    /// When [`expire`](Self::expire) wants to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Wakes those who have waited for too long.
    pub(crate) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        while let Some((_, ticket)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            wakers.extend(self.calls.leave(ticket));
        }
    }

    fn line(&self, purpose: Purpose) -> &Line {
        match purpose {
            Purpose::Call => &self.calls,
            Purpose::Update => &self.updates,
        }
    }

    fn line_mut(&mut self, purpose: Purpose) -> &mut Line {
        match purpose {
            Purpose::Call => &mut self.calls,
            Purpose::Update => &mut self.updates,
        }
    }
}
