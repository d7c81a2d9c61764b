//! What the application may do with a connection.

use super::{Connection, Farewell, PeerInfo, State, Stats};
use crate::message::{Error, Id, Payload};
use crate::pattern::{CallError, CallId, CallOptions, Context, Gone, RequestId, RespondError, UpdateError};
use crate::session::{ConnectionError, Ledger};
use crate::time::Instant;

impl Connection {
    /// Calls `method` of the peer. The outcome comes as
    /// [`CallEvent::Response`](crate::CallEvent::Response), exactly once, unless the call is cancelled before (§10.1).
    ///
    /// # Errors
    ///
    /// Nothing was sent. After [`Blocked`](CallError::Blocked), try again when
    /// [`CallEvent::Capacity`](crate::CallEvent::Capacity) says so.
    pub fn call(
        &mut self,
        now: Instant,
        method: &str,
        payload: Payload,
        options: CallOptions,
    ) -> Result<CallId, CallError> {
        if self.error.is_some() {
            return Err(CallError::Closed);
        }
        if self.peer_draining().is_some() {
            return Err(CallError::Draining);
        }
        let Self { calls, ids, open, budget, refusals, .. } = self;
        calls.open(method, payload, options, &mut Context { now, ids, open, budget, refusals })
    }

    /// Whether a call could be made now: to be asked by whoever does not want to hand over a payload in vain.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call); [`Blocked`](CallError::Blocked) announces room too.
    pub fn ready_to_call(&mut self) -> Result<(), CallError> {
        if self.error.is_some() {
            Err(CallError::Closed)
        } else if self.peer_draining().is_some() {
            Err(CallError::Draining)
        } else {
            self.calls.ready_to_call()
        }
    }

    /// How many calls may be made now before one is [`Blocked`](CallError::Blocked).
    pub fn call_room(&self) -> usize {
        self.calls.room()
    }

    /// Asks for a [`CallEvent::Capacity`](crate::CallEvent::Capacity) when room comes up next, as a `Blocked` does: for
    /// drivers that keep a queue of their own and have served only its head.
    pub fn want_capacity(&mut self) {
        if self.error.is_none() {
            self.calls.want_capacity();
        }
    }

    /// Gives a call up: tells the callee, if it knows of the call, and keeps no outcome (§10.4).
    ///
    /// # Errors
    ///
    /// [`Gone`] where the call has its outcome already.
    pub fn cancel(&mut self, now: Instant, call: CallId) -> Result<(), Gone> {
        let Self { calls, ids, open, budget, refusals, .. } = self;
        calls.cancel(call, &mut Context { now, ids, open, budget, refusals })
    }

    /// Answers a request. Each request must be answered in the end, even when nobody waits for the answer any more:
    /// only that frees its slot (§10.6).
    ///
    /// # Errors
    ///
    /// The answer was not sent; the request is done all the same.
    pub fn respond(
        &mut self,
        request: RequestId,
        result: Result<Payload, Error>,
    ) -> Result<(), RespondError> {
        self.calls.respond(request, result, &mut self.open)
    }

    /// Answers a request on which nothing was done, such as that of a method which does not exist, with `error` and
    /// `processed: false`. It counts as a rejected opening (§10.7).
    ///
    /// # Errors
    ///
    /// The peer has caused more of those than are borne, or the connection was over before.
    pub fn refuse(&mut self, now: Instant, request: RequestId, error: Error) -> Result<(), ConnectionError> {
        let wanted = self.is_wanted(request);
        self.respond(request, Err(error.with_processed(false))).ok();
        match &self.error {
            Some(over) => Err(over.clone()),
            None if wanted => self.budget.charge(now).map_err(|flood| self.fail(now, flood.into())),
            None => Ok(()),
        }
    }

    /// Whether somebody still waits for the answer to a request.
    pub fn is_wanted(&self, request: RequestId) -> bool {
        self.calls.is_wanted(request)
    }

    /// Sends an update to the callee of a call that is open (§10.3).
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    pub fn update(&mut self, call: CallId, payload: Payload) -> Result<(), UpdateError> {
        self.calls.update_call(call, payload)
    }

    /// Sends an update to the caller of a request that is running (§10.3).
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    pub fn update_request(&mut self, request: RequestId, payload: Payload) -> Result<(), UpdateError> {
        self.calls.update_request(request, payload)
    }

    /// The outcome of a call, once it is there: what the callee answered, or why there is no answer. Taking it frees the
    /// call's slot.
    ///
    /// # Errors
    ///
    /// [`Gone`] where the call was cancelled, or its outcome taken before.
    pub fn take_response(&mut self, call: CallId) -> Result<Option<Result<Payload, Error>>, Gone> {
        self.calls.take_response(call)
    }

    /// The oldest update that came for a call and was not taken yet.
    ///
    /// # Errors
    ///
    /// [`Gone`] where there is none and none will come.
    pub fn poll_update(&mut self, call: CallId) -> Result<Option<Payload>, Gone> {
        self.calls.poll_update(call)
    }

    /// The oldest update that came for a request and was not taken yet.
    ///
    /// # Errors
    ///
    /// [`Gone`] where there is none and none will come.
    pub fn poll_request_update(&mut self, request: RequestId) -> Result<Option<Payload>, Gone> {
        self.calls.poll_request_update(request)
    }

    /// Sends a ping; its answer comes as [`Event::Pong`](crate::Event::Pong). `None` where the connection is not
    /// established, or eight pings are on the way (§8.3).
    pub fn ping(&mut self, now: Instant) -> Option<Id> {
        if !matches!(self.state, State::Established) || !self.heartbeat.can_ping() || self.pings.is_full() {
            return None;
        }
        let id = self.ids.next(now);
        let noted = self.heartbeat.note_ping(id, now) && self.pings.push_back(id).is_ok();
        noted.then_some(id)
    }

    /// A ping of the heartbeat.
    pub(super) fn queue_ping(&mut self, now: Instant) {
        let id = self.ids.next(now);
        // Where the transport takes nothing, one ping that waits is as good as two.
        if self.heartbeat.note_ping(id, now) && self.pings.is_full() {
            self.pings.pop_front();
        }
        let Ok(()) = self.pings.push_back(id) else { return };
    }

    /// Closes the connection (§8.7): calls of ours and requests that are running end at once, and so do streams and
    /// subscriptions. Still sent are responses that were given before, what is queued on streams that were ended before, as
    /// far as there is credit, and acknowledgements; then `close` with `error`. Does nothing where the connection has ended
    /// before.
    pub fn close(&mut self, now: Instant, error: Option<Error>) {
        self.end(now, ConnectionError::ClosedLocally(error.clone()), Farewell::Close(error));
    }

    /// Ends the connection as [`close`](Self::close) does, but without a `close`: to the peer it looks as if the
    /// network had failed behind the last response. For tests of what peers do then.
    pub fn hang_up(&mut self, now: Instant) {
        self.end(now, ConnectionError::ClosedLocally(None), Farewell::Silence);
    }

    fn end(&mut self, now: Instant, why: ConnectionError, farewell: Farewell) {
        if self.error.is_some() {
            return;
        }
        self.frozen = None;
        // Before the answer has come nothing of a session may be sent, also of one that was to go on (§6.1).
        let flush = !self.is_handshaking();
        let hears = match &self.state {
            State::Offering { handshake, .. } => {
                // A proof that was not sent is of no use any more.
                let unsent = self.hello.take().is_some();
                !(unsent && handshake.is_first())
            }
            _ => !self.is_detached(),
        };
        if hears {
            self.heartbeat.stop();
            self.forget_renewals();
            self.calls.wind_up(&why, &mut self.open);
            self.streams.wind_up(&why, &mut self.open);
            self.pubsub.wind_up(&why, &mut self.open);
            self.state = self.closing(now, farewell, flush);
            self.error = Some(why);
        } else {
            self.finish(why);
            self.state = State::Closed;
        }
    }

    /// How many calls are under way, in both directions: what a driver decides by whether it pays to wait for more
    /// before it writes.
    pub fn in_flight(&self) -> usize {
        self.calls.in_flight() + self.calls.running()
    }

    /// Whether the handshake is not done yet.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Offering { .. })
    }

    /// Whether there is nothing more to send or to receive: the transport can be closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Why the connection ended, if it has.
    pub fn error(&self) -> Option<&ConnectionError> {
        self.error.as_ref()
    }

    /// Who the peer is, once the handshake is done.
    pub fn peer(&self) -> Option<&PeerInfo> {
        self.peer.as_ref()
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let (calls, streams) = (self.calls.stats(), self.streams.stats());
        let (streams_open, streams_serving) = self.streams.open();
        let pubsub = self.pubsub.stats();
        let ledger = self.session.as_ref().map(|session| &session.ledger);
        Stats {
            calls_made: calls.made,
            calls_served: calls.served,
            cancelled: calls.cancelled,
            refused: self.refusals.count(),
            dropped: self.stats.dropped + calls.late + streams.late + pubsub.late,
            updates_dropped: calls.updates_dropped,
            streams_opened: streams.opened,
            streams_served: streams.served,
            streams_cancelled: streams.cancelled,
            published: pubsub.published,
            publications: pubsub.publications,
            publications_dropped: pubsub.publications_dropped,
            deliveries_sent: pubsub.deliveries_sent,
            deliveries: pubsub.deliveries,
            subscriptions: pubsub.subscriptions,
            subscribers: pubsub.subscribers,
            publish_bytes: pubsub.publish_bytes,
            delivery_bytes: pubsub.delivery_bytes,
            held_publication_bytes: pubsub.held_publication_bytes,
            streams_open,
            streams_serving,
            stream_queued_bytes: self.streams.queued_bytes(),
            stream_held_bytes: self.streams.held_bytes(),
            calls_in_flight: self.calls.in_flight(),
            requests_running: self.calls.running(),
            queued_bytes: self.calls.queued_bytes(),
            request_bytes: self.calls.request_bytes(),
            update_bytes: self.calls.update_bytes(),
            kept_messages: ledger.map_or(0, Ledger::messages),
            kept_bytes: ledger.map_or(0, Ledger::bytes),
            rtt: self.heartbeat.rtt(),
            ..self.stats
        }
    }
}
