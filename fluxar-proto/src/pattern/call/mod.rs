//! Calls: request, response, updates both ways, cancel and deadline (§10).
//!
//! `outbound` is the machine of the calls that we make, `inbound` that of the calls that the peer makes. Both put
//! what they have to say into one queue, which the scheduler empties when the transport has room: so what was
//! cancelled before that was never sent.

mod inbound;
mod outbound;
mod renew;
mod types;
mod updates;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use self::inbound::Inbound;
use self::outbound::{Known, Outbound};
pub(crate) use self::types::CallLimits;
pub use self::types::{
    CallError, CallEvent, CallId, CallOptions, Gone, Request, RequestId, RespondError, Text, UpdateError,
    Withdrawn,
};
use super::opening::{ceil_ms, deadline_exceeded};
use super::{Context, Entity, OpenIds, Outgoing, Target};
use crate::message::{Envelope, Error, Id, Item, Kind, Payload, verb};
use crate::session::{ConnectionError, Violation};
use crate::time::Instant;

/// Counters of the calls of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallStats {
    pub(crate) made: u64,
    pub(crate) served: u64,
    pub(crate) cancelled: u64,
    pub(crate) late: u64,
    pub(crate) updates_dropped: u64,
}

/// What waits for room in the transport. Entries name their call, so that what is over by then is skipped.
#[derive(Debug)]
enum Ready {
    Call(CallId),
    Answer(RequestId),
    Update { reference: Id, payload: Payload },
}

/// What a queued message counts for beyond its payload, in bytes: so that many small ones are bounded too.
const MESSAGE_COST: usize = 128;

/// So many entries of what is over may lie in the queue before it is swept.
const SWEEP: usize = 32;

/// A deadline belongs to one of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Out(CallId),
    In(RequestId),
}

/// All calls of one connection, in both directions.
#[derive(Debug)]
pub(crate) struct Calls {
    limits: CallLimits,
    /// What the peer lets us have open at once.
    peer_max_calls: usize,
    /// The largest message that the peer takes, in bytes.
    peer_max_message: usize,
    outbound: slab::Slab<Outbound>,
    inbound: slab::Slab<Inbound>,
    deadlines: BTreeSet<(Instant, Timer)>,
    /// What waits, and among it entries of what is over: their number is bounded by that of the others.
    ready: VecDeque<Ready>,
    /// How many calls and answers in `ready` are over.
    over: usize,
    /// What waits in `ready` counts for so many bytes; what is over counts for none.
    queued_bytes: usize,
    /// Calls of ours that were sent and then given up. Bounded: they are sent ahead of new calls.
    cancels: VecDeque<Id>,
    /// Bytes held for running requests.
    request_bytes: usize,
    /// Bytes of updates held for the application.
    update_bytes: usize,
    /// A call was turned away with `Blocked`, so that somebody waits for `CallEvent::Capacity`.
    call_waits: bool,
    /// The same for an update, which needs no free slot.
    update_waits: bool,
    /// The handshake is done.
    started: bool,
    events: VecDeque<CallEvent>,
    stats: CallStats,
}

impl Calls {
    pub(crate) fn new(limits: CallLimits) -> Self {
        Self {
            limits,
            peer_max_calls: 0,
            peer_max_message: 0,
            outbound: slab::Slab::new(),
            inbound: slab::Slab::new(),
            deadlines: BTreeSet::new(),
            ready: VecDeque::new(),
            over: 0,
            queued_bytes: 0,
            cancels: VecDeque::new(),
            request_bytes: 0,
            update_bytes: 0,
            call_waits: false,
            update_waits: false,
            started: false,
            events: VecDeque::new(),
            stats: CallStats::default(),
        }
    }

    /// The handshake is done: from now on calls may be made, within the peer's limits.
    pub(crate) fn start(&mut self, peer_max_calls: u32, peer_max_message: u32) {
        self.peer_max_calls = peer_max_calls as usize;
        self.peer_max_message = peer_max_message as usize;
        self.started = true;
        self.check_queued();
        // Also where the peer takes no calls at all: who waits must learn that.
        if core::mem::take(&mut self.call_waits) {
            self.events.push_back(CallEvent::Capacity);
        }
    }

    /// A message of type call came.
    pub(crate) fn handle(
        &mut self,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let Some(reference) = envelope.reference else { return self.handle_request(envelope, frame, cx) };
        let content = || if envelope.error.is_some() { Err(Violation::MisplacedError) } else { Ok(()) };
        let call = cx.open.get(reference);
        if !matches!(call, None | Some(Entity::CallOut(_) | Entity::CallIn(_))) {
            return Err(Violation::WrongRole(reference).into());
        }
        match (call, envelope.target) {
            (None, target) => {
                // Late cancels cost as much work as those in time (§10.7).
                if target == Some(verb::CANCEL) {
                    cx.budget.charge(cx.now)?;
                }
                self.stats.late += 1;
            }
            (Some(Entity::CallOut(slot)), None) => self.handle_response(slot, envelope, frame, cx),
            (Some(Entity::CallOut(slot)), Some(verb::UPDATE)) => {
                content()?;
                self.handle_outbound_update(slot, envelope, frame)
            }
            (Some(Entity::CallIn(slot)), Some(verb::UPDATE)) => {
                content()?;
                self.handle_inbound_update(slot, envelope, frame)
            }
            (Some(Entity::CallIn(slot)), Some(verb::CANCEL)) => {
                content()?;
                cx.budget.charge(cx.now)?;
                self.handle_cancel(slot, cx);
            }
            (Some(_), None | Some(verb::CANCEL)) => return Err(Violation::WrongRole(reference).into()),
            (Some(_), Some(_)) => self.stats.late += 1,
        }
        Ok(())
    }

    /// The next message to encode: cancels, then calls, answers and updates in the order they came.
    pub(crate) fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        if let Some(reference) = self.cancels.pop_front() {
            let id = cx.ids.next(cx.now);
            return Some(Outgoing::new(Kind::Call, id, Some(reference), Target::Verb(verb::CANCEL)));
        }
        loop {
            let outgoing = match self.ready.pop_front()? {
                Ready::Call(call) => self.send_call(call, cx),
                Ready::Answer(request) => self.send_answer(request, cx),
                Ready::Update { reference, payload } => {
                    self.queued_bytes -= cost(payload.len());
                    send_update(reference, payload, cx)
                }
            };
            self.relieve();
            if outgoing.is_some() {
                return outgoing;
            }
        }
    }

    pub(crate) fn wants_transmit(&self) -> bool {
        !self.ready.is_empty() || !self.cancels.is_empty()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, open: &mut OpenIds) {
        while let Some((at, timer)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            match timer {
                Timer::Out(call) => self.expire_call(call, open),
                Timer::In(request) => self.expire_request(request),
            }
        }
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<CallEvent> {
        let event = self.events.pop_front()?;
        match &event {
            CallEvent::Updated(call) => self.announced(*call),
            CallEvent::RequestUpdated(request) => self.request_announced(*request),
            _ => {}
        }
        Some(event)
    }

    /// The peer takes nothing new any more: calls of ours that were not sent fail with `error`, and whoever waits for room
    /// learns of it.
    pub(crate) fn refuse_queued(&mut self, error: &Error, open: &mut OpenIds) {
        let queued = self.outbound.iter().map(|(slot, out)| CallId { slot, id: out.id });
        let queued = queued.filter(|call| self.is_queued(*call));
        for call in queued.collect::<Vec<_>>() {
            let known = self.end_call(call, open);
            let mut error = error.clone();
            // Of what became of it in an earlier session nobody knows.
            error.processed = error.processed.filter(|_| known == Some(Known::Never));
            self.finish_call(call, Err(error), open);
        }
        if core::mem::take(&mut self.call_waits) {
            self.events.push_back(CallEvent::Capacity);
        }
    }

    /// Whether a call waits for its response, in either direction.
    pub(crate) fn is_open(&self) -> bool {
        self.outbound.iter().any(|(_, out)| out.in_flight().is_some())
            || self.inbound.iter().any(|(_, request)| request.is_wanted())
    }

    /// The connection ends in order: every call of ours fails and every running request of the peer is withdrawn,
    /// but what the peer is owed, its answers, may still be sent.
    pub(crate) fn wind_up(&mut self, why: &ConnectionError, open: &mut OpenIds) {
        let calls = self.outbound.iter().map(|(slot, out)| CallId { slot, id: out.id });
        let calls = calls.collect::<Vec<_>>();
        if !calls.is_empty() {
            // Once for all of them: the peer chooses how long it takes to put the cause into words.
            let errors = [why.call_error(false), why.call_error(true)];
            calls.into_iter().for_each(|call| self.lose_call(call, &errors, open));
        }
        self.withdraw_all(open, |request| request.is_wanted());
        self.cancels.clear();
        (self.call_waits, self.update_waits) = (false, false);
    }

    /// The connection is over: nothing more can be sent.
    pub(crate) fn terminate(&mut self, why: &ConnectionError, open: &mut OpenIds) {
        self.wind_up(why, open);
        self.withdraw_all(open, |_| true);
        self.ready.clear();
        (self.over, self.queued_bytes) = (0, 0);
    }

    fn withdraw_all(&mut self, open: &mut OpenIds, which: impl Fn(&Inbound) -> bool) {
        let requests = self.inbound.iter().filter(|(_, request)| which(request));
        let requests = requests.map(|(slot, request)| RequestId { slot, id: request.id });
        for request in requests.collect::<Vec<_>>() {
            self.withdraw(request, Withdrawn::ConnectionLost, open);
        }
    }

    pub(crate) fn stats(&self) -> CallStats {
        self.stats
    }

    /// Calls of ours whose slots are taken: without an outcome, or with one that nobody has taken.
    pub(crate) fn in_flight(&self) -> usize {
        self.outbound.len()
    }

    /// Calls of the peer whose slots are taken.
    pub(crate) fn running(&self) -> usize {
        self.inbound.len()
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(crate) fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    pub(crate) fn update_bytes(&self) -> usize {
        self.update_bytes
    }

    pub(crate) fn room(&self) -> usize {
        if self.has_room() { self.peer_max_calls.saturating_sub(self.outbound.len()) } else { 0 }
    }

    pub(crate) fn want_capacity(&mut self) {
        self.call_waits = true;
        // Where nothing is under way, nothing will make room: what there is has to be announced now.
        if self.ready.is_empty() && self.outbound.is_empty() {
            self.relieve();
        }
    }

    /// Tells whoever was turned away that there is room again.
    fn relieve(&mut self) {
        if !self.call_waits && !self.update_waits || !self.has_room() {
            return;
        }
        let call_fits = self.call_waits && self.outbound.len() < self.peer_max_calls;
        if call_fits || self.update_waits {
            self.call_waits &= !call_fits;
            self.update_waits = false;
            self.events.push_back(CallEvent::Capacity);
        }
    }

    fn has_room(&self) -> bool {
        self.queued_bytes == 0 || self.queued_bytes < self.limits.send_buffer
    }

    fn enqueue(&mut self, bytes: usize, ready: Ready) {
        self.queued_bytes += cost(bytes);
        self.ready.push_back(ready);
    }

    /// A queued call or answer of `bytes` is over. Its entry stays for the time being: sweeping the queue only when
    /// half of it is over costs a constant for each, however many are given up at once.
    fn take_back(&mut self, bytes: usize) {
        self.queued_bytes -= cost(bytes);
        self.over += 1;
        if self.over > SWEEP && self.over * 2 > self.ready.len() {
            let Self { ready, outbound, inbound, .. } = self;
            ready.retain(|ready| match ready {
                Ready::Call(call) => outbound.get(call.slot).is_some_and(|out| out.is_queued(*call)),
                Ready::Answer(request) => {
                    inbound.get(request.slot).is_some_and(|inb| inb.is_queued(*request))
                }
                Ready::Update { .. } => true,
            });
            self.over = 0;
        }
        self.relieve();
    }
}

/// What a queued message of so many bytes counts for.
fn cost(bytes: usize) -> usize {
    bytes + MESSAGE_COST
}

/// An update on its way out, unless its call is over by now.
fn send_update(reference: Id, payload: Payload, cx: &mut Context<'_>) -> Option<Outgoing> {
    if !cx.open.contains(reference) {
        return None;
    }
    let id = cx.ids.next(cx.now);
    Some(Outgoing::new(Kind::Call, id, Some(reference), Target::Verb(verb::UPDATE)).with_payload(payload))
}

/// The size of a message that continues a call.
fn continuation_len(target: Option<&str>, result: Result<Item<'_>, &Error>) -> usize {
    // What the ids are makes no difference.
    let id = Id::from_bytes([0; Id::LEN]);
    let envelope = Envelope { reference: Some(id), target, ..Envelope::new(Kind::Call, id) };
    match result {
        Ok(payload) => Envelope { payload, ..envelope }.encoded_len(),
        Err(error) => Envelope { error: Some(error.as_ref()), ..envelope }.encoded_len(),
    }
}
