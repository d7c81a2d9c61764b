//! What ties the layers together: one session with its link, its scheduler, events and timers (§8.1).
//!
//! ```text
//!  WAITING --new link--+                    +------- resumed -------- DETACHED
//!   ^  ^               v                    v   +--- link lost -----------^ |
//!   |  |  initiator:  OFFERING --answer--> ESTABLISHED --close--> CLOSING --|--close sent--> CLOSED
//!   |  |  responder:  (Incoming, Offered)      ^  | |                ^      |                  ^
//!   |  |                      +---- accept ----+  | +-- peer broke --+      |                  |
//!   |  |                                          |      a rule             |                  |
//!   |  +---- not resumable, but `reconnect` ------+--- close of the peer, link lost -----------+
//!   +---------------- lost, but `reconnect` --------------------------------+------ lost ------+
//! ```

mod auth;
mod config;
mod drain;
mod event;
mod handshake;
mod incoming;
mod link;
mod offered;
mod ops;
mod proving;
mod pubsub;
mod rates;
mod receive;
mod stats;
mod streams;
mod takeover;
mod transmit;
mod turns;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Buf;

pub use self::auth::AuthError;
pub use self::config::Config;
pub use self::event::{Event, Lost};
pub use self::handshake::Dial;
use self::handshake::Handshake;
pub use self::incoming::{Incoming, Progress};
use self::offered::Accepted;
pub use self::offered::{Ask, Grant, Offered};
pub use self::proving::{ProofProgress, Proving};
pub use self::stats::Stats;
pub use self::takeover::{Attempt, Confirmed, ResumeProgress, ResumeRefused, Resuming, Tentative};
pub use self::transmit::TransmitBuf;
use self::turns::Turns;
use crate::frame;
use crate::message::{Error, Id, Kind, Payload, verb};
use crate::pattern::{Calls, Context, OpenIds, Outgoing, PubSub, Refusals, Streams, Target};
use crate::session::{
    Budget, ConnectionError, Drains, Due, Heartbeat, IdSource, Limits, Meters, Renewals, Session, Timeout,
    feature,
};
use crate::time::Instant;

/// [`Connection::poll_transmit`] stops once this many bytes wait: what is not encoded yet can still be dropped, and
/// what is urgent still goes first.
const WATERMARK: usize = 64 << 10;

/// How many replies to pings may wait (§8.3): more than come in between two looks at what is to be sent.
const REPLIES: usize = 64;

/// How many pings may wait to be sent: as many as may be on the way.
const PINGS: usize = 8;

/// Who the peer is, as it told in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// What the peer calls itself.
    pub agent: Option<String>,
    /// The protocol version in force.
    pub version: u64,
    /// The features in force.
    pub features: Vec<String>,
    /// What the peer is ready to receive.
    pub limits: Limits,
}

#[derive(Debug)]
enum State {
    /// There is neither a link nor a session: with the next link comes a fresh one.
    Waiting,
    /// We offered and wait for the answer.
    Offering {
        handshake: Box<Handshake>,
        deadline: Instant,
    },
    Established,
    /// The session has no link at the moment.
    Detached,
    /// The end is still to be sent, after what is queued where `flush` is set.
    Closing {
        farewell: Farewell,
        flush: bool,
        deadline: Instant,
    },
    Closed,
}

/// The last that is said.
#[derive(Debug)]
enum Farewell {
    /// `close`, with or without a reason.
    Close(Option<Error>),
    /// Nothing: the transport ends, as when the network fails.
    Silence,
}

/// One session and its link, as a state machine: bytes, time and operations go in; bytes, a timeout and events come out.
///
/// Inputs are [`handle_input`](Self::handle_input), [`handle_eof`](Self::handle_eof),
/// [`handle_timeout`](Self::handle_timeout) and the operations; outputs are [`poll_transmit`](Self::poll_transmit),
/// [`poll_timeout`](Self::poll_timeout) and [`poll_event`](Self::poll_event). They may be called in any order and any
/// number of times. After any input, the outputs may have changed.
///
/// Every error from a `handle_*` method is fatal: the connection is over, further input gets the same error, and
/// where the peer can still hear it, a `close` that says why is queued. So keep transmitting until
/// [`is_closed`](Self::is_closed), then close the transport.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    state: State,
    /// Whether this side dials.
    initiates: bool,
    /// The number of the link, or of the gap between two.
    link: u64,
    /// The link rests while another one may take its place.
    frozen: Option<Attempt>,
    /// How often somebody has tried that.
    attempts: u64,
    /// The last word on a link that was given up, where its driver asks for it at once.
    farewell: Option<Outgoing>,
    /// What lives longer than a link, where the session is resumable.
    session: Option<Session>,
    /// Why the connection ended.
    error: Option<ConnectionError>,
    /// The largest message that we take, in bytes.
    max_message: u32,
    /// The driver's buffer was made for the large frame that it begins with, and has held nothing else.
    input_is_one_frame: bool,
    /// So many bytes were left in the driver's buffer the last time: only more than these are a sign of life.
    unread: usize,
    ids: IdSource,
    open: OpenIds,
    budget: Budget,
    heartbeat: Heartbeat,
    peer: Option<PeerInfo>,
    /// When the initiator's credentials run out (§8.5).
    auth_expires: Option<Instant>,
    /// Whether credentials may be sent over this link (§6.11).
    may_carry_auth: bool,
    renewals: Renewals,
    refusals: Refusals,
    calls: Calls,
    streams: Streams,
    pubsub: PubSub,
    turns: Turns,
    /// Offer or answer, still to be sent.
    hello: Option<Outgoing>,
    /// Pings to be answered: the latest ones.
    replies: VecDeque<Id>,
    /// Pings to be sent.
    pings: heapless::Deque<Id, PINGS>,
    /// Who is about to leave.
    drains: Drains,
    /// How much the peer says.
    meters: Meters,
    events: VecDeque<Event>,
    closed_event: bool,
    stats: Stats,
}

impl Connection {
    /// The initiator's side of a new link: its first message is the offer.
    pub fn initiate(config: Arc<Config>, now: Instant, ids: IdSource) -> Self {
        let mut connection = Self::waiting(config, now, ids);
        // Without credentials there is nothing that must not be sent.
        let _offered: Result<(), ConnectionError> = connection.offer(now, Dial::default());
        connection
    }

    /// The initiator's side without a link: what is to be done waits for the first [`reconnect`](Self::reconnect).
    pub fn waiting(config: Arc<Config>, now: Instant, ids: IdSource) -> Self {
        Self::new(config, now, ids, State::Waiting, None)
    }

    /// The responder's side, once the offer was accepted: its first message is the answer.
    fn respond_with(
        config: Arc<Config>,
        now: Instant,
        ids: IdSource,
        answer: Outgoing,
        accepted: Accepted,
    ) -> Self {
        let Accepted { offer, version, features, session, auth_expires } = accepted;
        let mut connection = Self::new(config, now, ids, State::Established, Some(answer));
        (connection.initiates, connection.link) = (false, 1);
        (connection.session, connection.auth_expires) = (session, auth_expires);
        connection.establish(now, offer.agent, version, features, offer.limits);
        connection
    }

    fn new(
        config: Arc<Config>,
        now: Instant,
        mut ids: IdSource,
        state: State,
        hello: Option<Outgoing>,
    ) -> Self {
        Self {
            state,
            initiates: true,
            link: 0,
            frozen: None,
            attempts: 0,
            farewell: None,
            session: None,
            error: None,
            max_message: frame::HANDSHAKE_LIMIT,
            input_is_one_frame: false,
            unread: 0,
            open: OpenIds::new(&mut ids),
            ids,
            budget: Budget::new(config.misuse_capacity, config.misuse_per_second, now),
            heartbeat: Heartbeat::new(now),
            peer: None,
            auth_expires: None,
            may_carry_auth: false,
            renewals: Renewals::default(),
            refusals: Refusals::new(config.misuse_capacity),
            calls: Calls::new(config.call_limits()),
            streams: Streams::new(config.stream_limits()),
            pubsub: PubSub::new(config.pubsub_limits()),
            turns: Turns::default(),
            hello,
            replies: VecDeque::new(),
            pings: heapless::Deque::new(),
            drains: Drains::default(),
            meters: Meters::new(&config.rates, now),
            events: VecDeque::new(),
            closed_event: false,
            stats: Stats::default(),
            config,
        }
    }

    fn establish(
        &mut self,
        now: Instant,
        agent: Option<String>,
        version: u64,
        features: Vec<String>,
        limits: Limits,
    ) {
        self.state = State::Established;
        let ours = self.config.limits();
        self.max_message = ours.max_message;
        self.heartbeat.start(ours.heartbeat_ms, limits.heartbeat_ms, now);
        let has = |feature: &str| features.iter().any(|name| name == feature);
        self.calls.start(limits.max_calls, limits.max_message);
        self.streams.start(has(feature::STREAM), &limits);
        self.pubsub.start(has(feature::PUBSUB), &limits, &mut self.open);
        self.pubsub.go_on(now);
        self.peer = Some(PeerInfo { agent, version, features, limits });
        self.events.push_back(Event::Established);
    }

    /// The transport has no more bytes; `unread` bytes of an unfinished frame are left.
    ///
    /// # Errors
    ///
    /// [`LinkLost`](ConnectionError::LinkLost), or why the connection was over before; none where it lives on without a
    /// link.
    pub fn handle_eof(&mut self, now: Instant, unread: usize) -> Result<(), ConnectionError> {
        self.abort(now, ConnectionError::LinkLost { unread });
        self.error.clone().map_or(Ok(()), Err)
    }

    /// The link is of no use any more, for a reason that its driver knows: nothing more is sent on it. Where the session
    /// is resumable, and `why` is a [loss of the link](ConnectionError::is_link_loss), it lives on without one; where there is
    /// no link, the connection is over.
    pub fn abort(&mut self, now: Instant, why: ConnectionError) {
        if why.is_link_loss() && self.lose_link(now, &why) {
            return;
        }
        let why = self.fail(now, why);
        self.cut(&why);
    }

    /// What a close in order has left to be sent is lost.
    fn cut(&mut self, why: &ConnectionError) {
        self.state = State::Closed;
        self.terminate(why);
    }

    fn terminate(&mut self, why: &ConnectionError) {
        // Nobody can come back to it, so that nothing of it is kept.
        self.session = None;
        self.forget_renewals();
        self.refusals.clear();
        self.calls.terminate(why, &mut self.open);
        self.streams.terminate(why, &mut self.open);
        self.pubsub.terminate(why, &mut self.open);
        self.open.clear();
    }

    /// Time has passed. Harmless when called early, late or twice.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ConnectionError::TimedOut) when something that had to come has not come.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        match self.state {
            State::Offering { deadline, .. } if now >= deadline => {
                let why = ConnectionError::TimedOut(Timeout::Handshake);
                if !self.lose_link(now, &why) {
                    return Err(self.fail(now, why));
                }
                self.farewell = Some(self.close_message(now, why.report()));
            }
            State::Closing { deadline, .. } if now >= deadline => {
                if let Some(why) = self.error.clone() {
                    self.cut(&why);
                }
            }
            _ => {}
        }
        // Also where the handshake has just failed.
        if self.session_expires().is_some_and(|at| now >= at) {
            self.expire(now)?;
        }
        let due = if self.frozen.is_some() { Due::Nothing } else { self.heartbeat.due(now) };
        match due {
            Due::Nothing => {}
            Due::Ping => self.queue_ping(now),
            Due::Dead => {
                let why = ConnectionError::TimedOut(Timeout::Heartbeat);
                if !self.lose_link(now, &why) {
                    return Err(self.fail(now, why));
                }
            }
        }
        if let Some(session) = &mut self.session {
            session.ledger.handle_timeout(now);
        }
        self.calls.handle_timeout(now, &mut self.open);
        self.streams.handle_timeout(now, &mut self.open);
        self.pubsub.handle_timeout(now);
        self.handle_drain_timeout(now);
        self.end_pause(now);
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let state = match self.state {
            State::Offering { deadline, .. } | State::Closing { deadline, .. } => Some(deadline),
            State::Detached => self.session_expires(),
            State::Waiting | State::Established | State::Closed => None,
        };
        let tell = self.session.as_ref().and_then(|session| session.ledger.next_timeout());
        let heartbeat = self.heartbeat.next_timeout();
        let patterns = [self.calls.next_timeout(), self.streams.next_timeout(), self.pubsub.next_timeout()];
        let link = [tell, heartbeat].into_iter().flatten().filter(|_| self.frozen.is_none()).min();
        let rest = [state, link, self.next_drain_timeout(), self.read_after()];
        patterns.into_iter().chain(rest).flatten().min()
    }

    /// Encodes what there is to send into `out`, until about 64 KiB wait there: control messages first, then what lets the
    /// peer go on (credit, acknowledgements), then calls, then streams and publications in turn.
    /// Returns how many bytes came to it.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut TransmitBuf) -> usize {
        let before = out.remaining();
        if let Some(farewell) = self.farewell.take() {
            self.encode(&farewell, out);
        }
        if !self.is_attached() {
            return out.remaining() - before;
        }
        while out.remaining() < WATERMARK {
            match self.next_outgoing(now) {
                Some(outgoing) => self.encode(&outgoing, out),
                None if self.send_again(out) => {}
                None => break,
            }
        }
        let added = out.remaining() - before;
        if added > 0 {
            self.heartbeat.note_sent(now);
            self.stats.bytes_out += added as u64;
        }
        added
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something to say.
    pub fn wants_transmit(&self) -> bool {
        if self.frozen.is_some() {
            return false;
        }
        match &self.state {
            State::Closed | State::Waiting | State::Detached => false,
            State::Offering { .. } => self.hello.is_some(),
            State::Closing { .. } => true,
            State::Established => {
                self.hello.is_some()
                    || self.session.as_ref().is_some_and(|session| session.ledger.is_due())
                    || !self.replies.is_empty()
                    || !self.pings.is_empty()
                    || self.drains.wants_transmit()
                    || self.renewals.wants_transmit()
                    || self.sends_again()
                    || !self.is_store_full()
                        && (!self.refusals.is_empty()
                            || self.calls.wants_transmit()
                            || self.streams.wants_transmit()
                            || self.pubsub.wants_transmit())
                    || self.is_drained()
            }
        }
    }

    fn next_outgoing(&mut self, now: Instant) -> Option<Outgoing> {
        match self.state {
            State::Closed | State::Waiting | State::Detached => None,
            State::Offering { .. } => self.hello.take(),
            State::Established => self.next_message(now).or_else(|| self.finish_drain(now)),
            State::Closing { flush, .. } => {
                let message = if flush { self.next_message(now) } else { None };
                // What goes again is of use as long as what is behind it.
                if message.is_none() && flush && self.sends_again() {
                    return None;
                }
                message.or_else(|| self.take_close(now))
            }
        }
    }

    /// Control and what others wait for overtake calls and bulk (§8.4), but do not starve bulk (§2.4).
    fn next_message(&mut self, now: Instant) -> Option<Outgoing> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        // It is not counted, so that it goes ahead of what is sent again, and where nothing more can be kept (§9.4, §9.7).
        if let Some(control) = self.next_control(now) {
            self.turns.note_urgent();
            return Some(control);
        }
        if self.sends_again() || self.is_store_full() {
            return None;
        }
        let Self { streams, pubsub, turns, ids, open, budget, refusals, .. } = self;
        let overdue = turns.overdue(streams, pubsub, &mut Context { now, ids, open, budget, refusals });
        if overdue.is_some() {
            return overdue;
        }
        if let Some(urgent) = self.next_urgent(now) {
            self.turns.note_urgent();
            return Some(urgent);
        }
        let Self { calls, streams, pubsub, turns, ids, open, budget, refusals, .. } = self;
        turns.next(calls, streams, pubsub, &mut Context { now, ids, open, budget, refusals })
    }

    /// What concerns the link and the session.
    fn next_control(&mut self, now: Instant) -> Option<Outgoing> {
        if let Some(handled) = self.session.as_mut().and_then(|session| session.ledger.tell(now)) {
            let handled = Payload::build(|out| out.u64(handled)?.ok());
            let id = self.ids.next(now);
            return Some(
                Outgoing::new(Kind::Control, id, None, Target::Verb(verb::HANDLED)).with_payload(handled),
            );
        }
        if let Some(message) = self.next_drain(now).or_else(|| self.next_renewal(now)) {
            return Some(message);
        }
        if let Some(ping) = self.replies.pop_front() {
            return Some(Outgoing::new(Kind::Control, self.ids.next(now), Some(ping), Target::Null));
        }
        if let Some(id) = self.pings.pop_front() {
            return Some(Outgoing::new(Kind::Control, id, None, Target::Verb(verb::PING)));
        }
        None
    }

    /// What others wait for.
    fn next_urgent(&mut self, now: Instant) -> Option<Outgoing> {
        let Self { streams, pubsub, ids, open, budget, refusals, peer, .. } = self;
        if let Some(refusal) = refusals.poll(now, ids) {
            let limit = peer.as_ref().map_or(frame::HANDSHAKE_LIMIT, |peer| peer.limits.max_message);
            return Some(refusal.with_error_within(limit));
        }
        let cx = &mut Context { now, ids, open, budget, refusals };
        streams.poll_urgent(cx).or_else(|| pubsub.poll_urgent(cx))
    }

    fn take_close(&mut self, now: Instant) -> Option<Outgoing> {
        let state = core::mem::replace(&mut self.state, State::Closed);
        if let Some(why) = self.error.clone() {
            // Nothing more can be sent of what was left for that.
            self.terminate(&why);
        }
        let State::Closing { farewell: Farewell::Close(error), .. } = state else { return None };
        Some(self.close_message(now, error))
    }

    fn close_message(&mut self, now: Instant, error: Option<Error>) -> Outgoing {
        let mut close = Outgoing::new(Kind::Control, self.ids.next(now), None, Target::Verb(verb::CLOSE));
        close.error = error.map(Into::into);
        let limit = self.peer.as_ref().map_or(frame::HANDSHAKE_LIMIT, |peer| peer.limits.max_message);
        close.with_error_within(limit)
    }

    fn encode(&mut self, outgoing: &Outgoing, out: &mut TransmitBuf) {
        let payload = outgoing.error.is_none().then(|| outgoing.payload().as_shared());
        let ledger = self.session.as_mut().map(|session| &mut session.ledger);
        let ledger = ledger.filter(|_| outgoing.is_counted());
        // Metadata was validated when it was handed in.
        if outgoing.with_envelope(|envelope| out.push(envelope, payload, ledger)).is_ok() {
            self.stats.messages_out += 1;
        }
    }

    /// Whether something is still to be sent again, over a new link (§9.7).
    fn sends_again(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.ledger.has_again())
    }

    /// Whether nothing more may be sent that has to be kept (§9.4). Behind the end nobody asks for it again.
    fn is_store_full(&self) -> bool {
        matches!(self.state, State::Established)
            && self.session.as_ref().is_some_and(|session| session.ledger.is_full())
    }

    /// Sends the next message again; whether there was one.
    fn send_again(&mut self, out: &mut TransmitBuf) -> bool {
        // An offer is followed by nothing (§6.1), also where the link before was lost in the midst of this.
        if !matches!(self.state, State::Established | State::Closing { flush: true, .. }) {
            return false;
        }
        let again = self.session.as_mut().and_then(|session| session.ledger.next_again());
        let Some(again) = again else { return false };
        out.push_again(&again);
        self.stats.messages_out += 1;
        true
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Some(event) = self.calls.poll_event() {
            return Some(Event::Call(event));
        }
        if let Some(event) = self.streams.poll_event() {
            return Some(Event::Stream(event));
        }
        if let Some(event) = self.pubsub.poll_event() {
            return Some(Event::PubSub(event));
        }
        let error = self.error.as_ref()?;
        let first = !core::mem::replace(&mut self.closed_event, true);
        first.then(|| Event::Closed(error.clone()))
    }

    /// Ends the connection for `error`, unless it has ended before; returns why it has ended.
    fn fail(&mut self, now: Instant, error: ConnectionError) -> ConnectionError {
        if let Some(first) = &self.error {
            return first.clone();
        }
        self.frozen = None;
        self.state = match error.report().filter(|_| !self.is_detached()) {
            Some(report) => self.closing(now, Farewell::Close(Some(report)), false),
            None => State::Closed,
        };
        self.finish(error.clone());
        error
    }

    fn closing(&self, now: Instant, farewell: Farewell, flush: bool) -> State {
        State::Closing { farewell, flush, deadline: now + self.config.close_timeout }
    }

    fn finish(&mut self, error: ConnectionError) {
        self.heartbeat.stop();
        self.terminate(&error);
        self.error = Some(error);
    }
}
