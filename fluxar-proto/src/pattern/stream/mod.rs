//! Streams: items in both directions, with credit (§11).
//!
//! ```text
//!            sent                                     both halves ended;
//!    IDLE ---------> ACTIVE ---------------------------------------------------> CLOSED ----> (slot free)
//!      |                |     `end` with an error, sent (behind what is queued) or received;      ^            let go by the application,
//!      |                |     `cancel` received: `end`, cancelled;        |            and all that is due was sent
//!      |                |     connection lost                             |
//!      |                | cancel sent               `end` or              |
//!      |                +------------> CANCELLING --------- `cancel` -----+
//!      |                                                received          |
//!      +------------------------------------------------------------------+
//!        given up before it was sent: nothing is sent
//! ```
//!
//! A stream of the peer is ACTIVE from the moment on in which it came. The halves are in `sending` and `receiving`,
//! what the application does in `operate`, what comes in `inbound`, what goes out in `outbound`.

mod batch;
mod growth;
mod inbound;
mod operate;
mod outbound;
mod receiving;
mod renew;
mod sending;
mod types;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

pub use self::batch::ItemBatch;
use self::receiving::Receiving;
use self::sending::Sending;
pub(crate) use self::types::StreamLimits;
pub use self::types::{
    Items, Received, SendError, StreamError, StreamEvent, StreamId, StreamOpening, StreamOptions,
};
use super::opening::deadline_exceeded;
use super::{Entity, OpenIds, Text, Withdrawn};
use crate::message::{Error, Payload};
use crate::session::{ConnectionError, Limits};
use crate::time::Instant;

/// So many entries of what is over may lie in the queue before it is swept.
const SWEEP: usize = 32;

/// Counters of the streams of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamStats {
    pub(crate) opened: u64,
    pub(crate) served: u64,
    pub(crate) cancelled: u64,
    pub(crate) late: u64,
}

/// One stream, at either end.
#[derive(Debug)]
struct Stream {
    id: StreamId,
    phase: Phase,
    /// Whether this side has opened it.
    ours: bool,
    sending: Sending,
    receiving: Receiving,
    deadline: Option<Instant>,
    /// What is to be sent ahead of data.
    due: Due,
    /// It lies in the queue of those that have data to send.
    in_bulk: bool,
    /// It lies in the queue of those that have something urgent to say.
    in_urgent: bool,
    /// What its opening counts for in `opening_bytes`.
    bytes: usize,
    /// The application has let go of its sending half, and of its receiving half.
    released: (bool, bool),
    /// The application was told that nobody waits for what it does.
    withdrawn: bool,
}

#[derive(Debug)]
enum Phase {
    /// Ours, and not sent yet.
    Idle {
        method: Text,
        meta: Bytes,
        payload: Payload,
    },
    Active,
    /// `end` with this error follows what is queued, as far as there is credit for it (§11.3).
    Failing(Error),
    Cancelling,
    Closed,
}

/// What is to be said of a stream, ahead of what is queued on it.
#[derive(Debug, Default)]
struct Due {
    /// The last word.
    last: Option<Last>,
    /// `cancel`, as soon as our own direction has ended: data comes that nobody wants.
    cancel_at_end: bool,
    /// Whether the application wants the peer to pause, and whether the peer was told so.
    pause: (bool, bool),
}

/// The last word on a stream.
#[derive(Debug)]
enum Last {
    Cancel(Option<Error>),
    /// `end` with an error.
    End(Error),
}

impl Stream {
    fn is_live(&self) -> bool {
        self.is_idle() || matches!(self.phase, Phase::Active)
    }

    /// Whether it is ours and was never sent.
    fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle { .. })
    }

    /// Whether our last word is spoken, or about to be: what still comes is late.
    fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Failing(_) | Phase::Cancelling)
    }

    fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    fn is_let_go(&self) -> bool {
        self.released == (true, true)
    }

    fn is_over(&self) -> bool {
        self.is_closed() && self.due.last.is_none() && self.is_let_go()
    }

    fn has_data(&self) -> bool {
        match self.phase {
            Phase::Idle { .. } | Phase::Failing(_) => true,
            Phase::Active => self.sending.is_ready(),
            Phase::Cancelling | Phase::Closed => false,
        }
    }

    /// Whether credit is due. Where nobody reads any more the peer still needs some: for its end, or for the data upon which
    /// it is told (§11.11).
    fn owes_credit(&self) -> bool {
        if self.released.1 {
            self.receiving.is_stuck() && !self.due.cancel_at_end
        } else {
            self.receiving.is_due()
        }
    }

    /// Whether something is to be said ahead of data.
    fn is_urgent(&self) -> bool {
        match self.phase {
            Phase::Idle { .. } | Phase::Failing(_) => false,
            Phase::Active => {
                self.due.last.is_some() || self.due.pause.0 != self.due.pause.1 || self.owes_credit()
            }
            Phase::Cancelling | Phase::Closed => self.due.last.is_some(),
        }
    }
}

/// All streams of one connection, in both directions.
#[derive(Debug)]
pub(crate) struct Streams {
    on: bool,
    limits: StreamLimits,
    /// The handshake is done.
    started: bool,
    /// What the peer lets us have open at once.
    peer_max_streams: usize,
    /// What the peer lets us send at the beginning, in bytes.
    peer_window: u32,
    /// The largest message that the peer takes, in bytes.
    peer_max_message: u32,
    streams: slab::Slab<Stream>,
    /// How many of `streams` are ours and not closed, and how many are the peer's.
    open: (usize, usize),
    deadlines: BTreeSet<(Instant, StreamId)>,
    /// Those that have something to send, in the order of their turns; among them some that have nothing any more.
    bulk: VecDeque<StreamId>,
    /// Those that have something urgent to say, each once.
    urgent: VecDeque<StreamId>,
    /// Bytes held for the openings of running streams.
    opening_bytes: usize,
    /// Somebody waits for `StreamEvent::Capacity`.
    waiting: bool,
    /// By how much the windows have grown, all together.
    grown: u32,
    events: VecDeque<StreamEvent>,
    stats: StreamStats,
}

impl Streams {
    pub(crate) fn new(limits: StreamLimits) -> Self {
        Self {
            on: false,
            limits,
            started: false,
            peer_max_streams: 0,
            peer_window: 0,
            peer_max_message: 0,
            streams: slab::Slab::new(),
            open: (0, 0),
            deadlines: BTreeSet::new(),
            bulk: VecDeque::new(),
            urgent: VecDeque::new(),
            opening_bytes: 0,
            waiting: false,
            grown: 0,
            events: VecDeque::new(),
            stats: StreamStats::default(),
        }
    }

    /// The handshake is done: from now on there are streams, within the peer's limits, or there are none.
    pub(crate) fn start(&mut self, on: bool, peer: &Limits) {
        (self.on, self.started) = (on, true);
        self.peer_max_streams = peer.max_streams as usize;
        self.peer_window = peer.stream_window;
        let former_max_message = core::mem::replace(&mut self.peer_max_message, peer.max_message);
        self.check_queued(former_max_message);
        if core::mem::take(&mut self.waiting) {
            self.events.push_back(StreamEvent::Capacity);
        }
    }

    /// Whether there are streams on this connection.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, open: &mut OpenIds) {
        while let Some((_, stream)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            self.expire(stream, open);
        }
    }

    /// The deadline passed on our own clock (§11.7).
    fn expire(&mut self, id: StreamId, open: &mut OpenIds) {
        let Some(stream) = self.get_mut(id) else { return };
        stream.deadline = None;
        if stream.ours {
            let sent = !matches!(stream.phase, Phase::Idle { .. });
            let error = if sent { deadline_exceeded() } else { deadline_exceeded().with_processed(false) };
            stream.receiving.fail(error.clone());
            self.cancel_with(id, Some(error), open);
        } else if stream.is_live() {
            self.fail_with(id, deadline_exceeded(), open);
            self.withdraw(id, Withdrawn::DeadlineExceeded);
        }
    }

    /// The peer takes nothing new any more: streams of ours that were not sent fail with `error`, and whoever waits for room
    /// learns of it.
    pub(crate) fn refuse_queued(&mut self, error: &Error, open: &mut OpenIds) {
        self.end_where(error, open, |stream| matches!(stream.phase, Phase::Idle { .. }));
        if core::mem::take(&mut self.waiting) {
            self.events.push_back(StreamEvent::Capacity);
        }
    }

    /// Cuts the streams that are open: this side leaves (§8.6).
    pub(crate) fn cut(&mut self, error: &Error, open: &mut OpenIds) {
        self.end_where(error, open, Stream::is_live);
    }

    fn end_where(&mut self, error: &Error, open: &mut OpenIds, which: impl Fn(&Stream) -> bool) {
        let ended = self.streams.iter().filter(|(_, stream)| which(stream));
        let ended = ended.map(|(_, stream)| (stream.id, stream.ours));
        for (id, ours) in ended.collect::<Vec<_>>() {
            self.fail_with(id, error.clone(), open);
            if !ours {
                self.withdraw(id, Withdrawn::ConnectionLost);
            }
        }
    }

    /// Whether a stream is open, whoever has opened it.
    pub(crate) fn is_open(&self) -> bool {
        self.streams.iter().any(|(_, stream)| !stream.is_closed())
    }

    /// The connection ends: so do its streams.
    pub(crate) fn terminate(&mut self, why: &ConnectionError, open: &mut OpenIds) {
        // There will be no room any more.
        self.waiting = false;
        self.lose(why, open, |_| true);
        self.bulk.clear();
        self.urgent.clear();
    }

    /// The connection is about to close in order: of the streams that the application has ended, what is queued still goes,
    /// as far as there is credit.
    pub(crate) fn wind_up(&mut self, why: &ConnectionError, open: &mut OpenIds) {
        let goes = |stream: &Stream| {
            stream.sending.is_ending() && matches!(stream.phase, Phase::Active)
                || matches!(stream.phase, Phase::Failing(_))
        };
        // There will be no room any more.
        self.waiting = false;
        self.lose(why, open, |stream| !goes(stream));
        let left = self.streams.iter().filter(|(_, stream)| goes(stream)).map(|(_, stream)| stream.id);
        for id in left.collect::<Vec<_>>() {
            let Some(stream) = self.get_mut(id) else { continue };
            let (ours, live) = (stream.ours, stream.is_live());
            stream.receiving.fail(why.call_error(true));
            // Whoever waits learns now that it is over: there is no event behind the end of the connection.
            let wanted = core::mem::take(&mut stream.sending.wanted) && !stream.released.0;
            self.events.extend(wanted.then_some(StreamEvent::Writable(id)));
            self.announce(id);
            if live && !ours {
                self.withdraw(id, Withdrawn::ConnectionLost);
            }
        }
    }

    /// Ends those streams that are lost with the session.
    fn lose(&mut self, why: &ConnectionError, open: &mut OpenIds, which: impl Fn(&Stream) -> bool) {
        let ids = self.streams.iter().filter(|(_, stream)| which(stream)).map(|(_, stream)| stream.id);
        let ids = ids.collect::<Vec<_>>();
        let errors = [why.call_error(false), why.call_error(true)];
        for id in ids {
            let Some(stream) = self.get_mut(id) else { continue };
            stream.due.last = None;
            if !stream.is_closed() {
                let [unsent, sent] = &errors;
                let error = if matches!(stream.phase, Phase::Idle { .. }) { unsent } else { sent };
                let (ours, live) = (stream.ours, stream.is_live());
                stream.receiving.fail(error.clone());
                self.close(id, open);
                if live && !ours {
                    self.withdraw(id, Withdrawn::ConnectionLost);
                }
            }
            self.free_if_over(id);
        }
    }

    fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(id.slot).filter(|stream| stream.id == id)
    }

    fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(id.slot).filter(|stream| stream.id == id)
    }

    /// What changed may have to be sent, or to be told.
    fn touch(&mut self, id: StreamId) {
        let send_buffer = self.limits.send_buffer;
        let Some(stream) = self.get_mut(id) else { return };
        let bulk = stream.has_data() && !core::mem::replace(&mut stream.in_bulk, true);
        let urgent = stream.is_urgent() && !core::mem::replace(&mut stream.in_urgent, true);
        let writable =
            stream.sending.wanted && (!stream.is_live() || stream.sending.queued() <= send_buffer / 2);
        if writable {
            stream.sending.wanted = false;
        }
        let writable = writable && !stream.released.0;
        if bulk {
            self.bulk.push_back(id);
        }
        if urgent {
            self.urgent.push_back(id);
        }
        if writable {
            self.events.push_back(StreamEvent::Writable(id));
        }
    }

    fn announce(&mut self, id: StreamId) {
        if self.get_mut(id).is_some_and(|stream| stream.receiving.announce() && !stream.released.1) {
            self.events.push_back(StreamEvent::Readable(id));
        }
    }

    /// Tells the handler that nobody waits for it, if there is still one.
    fn withdraw(&mut self, id: StreamId, why: Withdrawn) {
        let Some(stream) = self.get_mut(id).filter(|stream| !stream.is_let_go()) else { return };
        if !core::mem::replace(&mut stream.withdrawn, true) {
            self.events.push_back(StreamEvent::Withdrawn(id, why));
        }
    }

    /// Nothing more will be sent or received, but for the last word that may be due.
    fn close(&mut self, id: StreamId, open: &mut OpenIds) {
        if self.get(id).is_some_and(|stream| !stream.is_closed()) {
            open.remove(id.id, Entity::Stream(id.slot));
            self.shut(id);
        }
    }

    /// The same for a stream by whose id nothing is open.
    fn shut(&mut self, id: StreamId) {
        let Some(stream) = self.get_mut(id) else { return };
        stream.phase = Phase::Closed;
        stream.sending.shut();
        let (ours, deadline) = (stream.ours, stream.deadline.take());
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, id));
        }
        if ours {
            self.open.0 -= 1;
            self.relieve();
        }
        self.sweep();
        self.announce(id);
        self.touch(id);
        self.free_if_over(id);
    }

    /// Where the transport takes nothing, streams that are over may lie in the queues still, but never more of them than of
    /// others, and a few.
    fn sweep(&mut self) {
        let Self { bulk, urgent, streams, .. } = self;
        for queue in [bulk, urgent] {
            if queue.len() > 2 * streams.len() + SWEEP {
                queue.retain(|id| streams.get(id.slot).is_some_and(|stream| stream.id == *id));
            }
        }
    }

    /// Both directions may have ended: then the stream has.
    fn close_if_ended(&mut self, id: StreamId, open: &mut OpenIds) {
        let ended = |stream: &Stream| stream.sending.has_ended() && stream.receiving.has_ended();
        if self.get(id).is_some_and(|stream| matches!(stream.phase, Phase::Active) && ended(stream)) {
            self.close(id, open);
        }
    }

    fn free_if_over(&mut self, id: StreamId) {
        if !self.get(id).is_some_and(Stream::is_over) {
            return;
        }
        let stream = self.streams.remove(id.slot);
        self.grown -= stream.receiving.grown();
        if !stream.ours {
            self.open.1 -= 1;
            self.opening_bytes -= stream.bytes;
        }
    }

    fn relieve(&mut self) {
        if self.waiting && self.room() > 0 {
            self.waiting = false;
            self.events.push_back(StreamEvent::Capacity);
        }
    }

    /// How many more streams the peer lets us open.
    pub(crate) fn room(&self) -> usize {
        self.peer_max_streams.saturating_sub(self.open.0)
    }

    pub(crate) fn stats(&self) -> StreamStats {
        self.stats
    }

    /// Streams that are open: ours, and the peer's.
    pub(crate) fn open(&self) -> (usize, usize) {
        self.open
    }

    /// What waits for the application, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.streams.iter().map(|(_, stream)| stream.receiving.held()).sum()
    }

    /// What waits for the transport, in bytes.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.streams.iter().map(|(_, stream)| stream.sending.queued()).sum()
    }
}
