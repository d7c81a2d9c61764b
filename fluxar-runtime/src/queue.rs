//! Those who wait for room, and who of them goes next.

use std::collections::BTreeSet;
use std::task::{Context, Waker};

use fluxar_proto::Instant;

use crate::line::Line;

/// What somebody waits for room for. Each has a line of its own: an update needs no slot, and the very call whose slot
/// others wait for may wait for an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Call,
    Stream,
    Update,
    Publish,
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
    calls: Slots,
    streams: Slots,
    updates: Line,
    publications: File,
}

/// Those who go one after the other. As long as who was called up has not come, nobody goes: neither who comes later, nor who
/// comes for the first time.
#[derive(Default)]
struct File {
    line: Line,
    called: Option<u64>,
}

impl File {
    fn has_others_first(&self, ticket: Option<u64>) -> bool {
        match ticket {
            Some(ticket) => self.line.holds(ticket),
            None => !self.line.is_empty() || self.called.is_some(),
        }
    }

    fn wait(&mut self, ticket: &mut Option<u64>, cx: &mut Context<'_>) -> Option<Waker> {
        let replaced = self.line.wait(ticket, cx);
        self.called.take_if(|called| Some(*called) == *ticket);
        replaced
    }

    fn leave(&mut self, ticket: u64, wakers: &mut Vec<Waker>) -> Option<Waker> {
        let left = self.line.leave(ticket);
        if self.called.take_if(|called| *called == ticket).is_some() {
            self.serve(wakers);
        }
        left
    }

    fn serve(&mut self, wakers: &mut Vec<Waker>) {
        if self.called.is_none()
            && let Some((ticket, waker)) = self.line.pop()
        {
            self.called = Some(ticket);
            wakers.push(waker);
        }
    }

    fn dissolve(&mut self, wakers: &mut Vec<Waker>) {
        self.line.call_all(wakers);
        self.called = None;
    }
}

/// Those who wait for one of the slots that the peer has.
#[derive(Default)]
struct Slots {
    line: Line,
    /// Those who were called up and have not come yet: the room is theirs, so that nobody can overtake them.
    called: BTreeSet<u64>,
    /// Until when they wait (§10.5).
    deadlines: BTreeSet<(Instant, u64)>,
}

impl Slots {
    fn has_others_first(&self, ticket: Option<u64>, room: usize) -> bool {
        match ticket {
            Some(ticket) => self.line.holds(ticket),
            None => !self.line.is_empty() || (!self.called.is_empty() && self.called.len() >= room),
        }
    }

    fn wait(
        &mut self,
        ticket: &mut Option<u64>,
        until: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Option<Waker> {
        let replaced = self.line.wait(ticket, cx);
        if let Some(ticket) = *ticket {
            self.called.remove(&ticket);
            self.deadlines.extend(until.map(|until| (until, ticket)));
        }
        replaced
    }

    fn leave(&mut self, ticket: u64, until: Option<Instant>) -> Option<Waker> {
        self.called.remove(&ticket);
        if let Some(until) = until {
            self.deadlines.remove(&(until, ticket));
        }
        self.line.leave(ticket)
    }

    fn serve(&mut self, room: usize, wakers: &mut Vec<Waker>) -> bool {
        for _ in self.called.len()..room {
            let Some((ticket, waker)) = self.line.pop() else { break };
            self.called.insert(ticket);
            wakers.push(waker);
        }
        !self.line.is_empty()
    }

    fn dissolve(&mut self, wakers: &mut Vec<Waker>) {
        self.line.call_all(wakers);
        self.called.clear();
    }

    fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        while let Some((_, ticket)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            wakers.extend(self.line.leave(ticket));
        }
    }
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.line.is_empty() && self.streams.line.is_empty() && self.updates.is_empty()
    }

    /// Whether somebody else has to go first, where there is room for so many.
    pub(crate) fn has_others_first(&self, purpose: Purpose, ticket: Option<u64>, room: usize) -> bool {
        match (purpose, ticket) {
            (Purpose::Call, ticket) => self.calls.has_others_first(ticket, room),
            (Purpose::Stream, ticket) => self.streams.has_others_first(ticket, room),
            (Purpose::Update, ticket) => is_behind(&self.updates, ticket),
            (Purpose::Publish, ticket) => self.publications.has_others_first(ticket),
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
        match purpose {
            Purpose::Call => self.calls.wait(ticket, until, cx),
            Purpose::Stream => self.streams.wait(ticket, until, cx),
            Purpose::Update => self.updates.wait(ticket, cx),
            Purpose::Publish => self.publications.wait(ticket, cx),
        }
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
        match purpose {
            Purpose::Call => self.calls.leave(ticket, until),
            Purpose::Stream => self.streams.leave(ticket, until),
            Purpose::Update => leave(&mut self.updates, ticket, wakers),
            Purpose::Publish => self.publications.leave(ticket, wakers),
        }
    }

    /// There is room for so many calls: as many are called up. Whether others are left who wait for more.
    pub(crate) fn serve_calls(&mut self, room: usize, wakers: &mut Vec<Waker>) -> bool {
        self.calls.serve(room, wakers)
    }

    /// The same for streams.
    pub(crate) fn serve_streams(&mut self, room: usize, wakers: &mut Vec<Waker>) -> bool {
        self.streams.serve(room, wakers)
    }

    /// There is room for an update.
    pub(crate) fn serve_updates(&mut self, wakers: &mut Vec<Waker>) {
        self.updates.call_up(1, wakers);
    }

    /// There is room for a publication.
    pub(crate) fn serve_publications(&mut self, wakers: &mut Vec<Waker>) {
        self.publications.serve(wakers);
    }

    /// Nobody needs to wait any more: the connection has ended.
    pub(crate) fn dissolve(&mut self, wakers: &mut Vec<Waker>) {
        self.calls.dissolve(wakers);
        self.streams.dissolve(wakers);
        self.updates.call_all(wakers);
        self.publications.dissolve(wakers);
    }

    /// When [`expire`](Self::expire) wants to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let first = |slots: &Slots| slots.deadlines.first().map(|(at, _)| *at);
        [first(&self.calls), first(&self.streams)].into_iter().flatten().min()
    }

    /// Wakes those who have waited for too long.
    pub(crate) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        self.calls.expire(now, wakers);
        self.streams.expire(now, wakers);
    }
}

fn is_behind(line: &Line, ticket: Option<u64>) -> bool {
    ticket.map_or(!line.is_empty(), |ticket| line.holds(ticket))
}

/// How many of them fit nobody knows: each that has been called up calls the next one up.
fn leave(line: &mut Line, ticket: u64, wakers: &mut Vec<Waker>) -> Option<Waker> {
    let left = line.leave(ticket);
    if left.is_none() {
        line.call_up(1, wakers);
    }
    left
}
