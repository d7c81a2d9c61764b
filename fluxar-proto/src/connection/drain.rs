//! Leaving in order (§8.6): this side, the other one, or both.

use super::{Connection, Event, State};
use crate::frame;
use crate::message::{Code, Envelope, Error, Kind, key, verb};
use crate::pattern::{Context, Outgoing, Target};
use crate::session::{ConnectionError, Drain, DrainDue, fit_drain};
use crate::time::Instant;

impl Connection {
    /// Announces that this side is about to leave (§8.6): the peer opens nothing more, and what it opens all the same is
    /// refused. What is open goes on to its end; then the connection closes by itself, without an error. What is still
    /// open at the deadline, or where `drain` has none after
    /// [`drain_timeout`](crate::Config::drain_timeout), is cut.
    ///
    /// Openings of this side remain allowed. A further call replaces deadline, reason and redirection. Does nothing where
    /// the connection has ended.
    pub fn drain(&mut self, now: Instant, drain: Drain) {
        if self.error.is_none() {
            self.drains.begin(now, drain, self.config.drain_timeout);
        }
    }

    /// Whether this side is about to leave.
    pub fn is_draining(&self) -> bool {
        self.drains.ours()
    }

    /// Whether the deadline of that passed before all had ended, so that what was left was cut.
    pub fn was_cut(&self) -> bool {
        self.drains.is_cut()
    }

    /// What the peer said when it announced that it is about to leave, if it has: nothing can be opened any more, and what
    /// was not sent by then has failed with `draining` and `processed: false`. Where a [fresh
    /// session](crate::Config::reconnect) is to come, publications and subscriptions wait for that instead.
    pub fn peer_draining(&self) -> Option<&Drain> {
        self.drains.theirs()
    }

    /// `drain` came: nothing more is opened from now on.
    pub(super) fn handle_drain(&mut self, envelope: &Envelope<'_>) -> Result<(), ConnectionError> {
        let drain = self.drains.note(envelope.id, envelope.payload)?;
        match self.events.back_mut() {
            // However often it says something else.
            Some(Event::Draining(last)) => *last = drain,
            _ => self.events.push_back(Event::Draining(drain)),
        }
        let error = draining();
        self.calls.refuse_queued(&error, &mut self.open);
        self.streams.refuse_queued(&error, &mut self.open);
        if self.reconnects() {
            self.pubsub.hold_back();
        } else {
            self.pubsub.refuse_queued(&error, &mut self.open);
        }
        Ok(())
    }

    /// Whether nothing can be published or subscribed to any more. Where a fresh session is to come, both wait for that.
    pub(super) fn is_left_for_good(&self) -> bool {
        self.peer_draining().is_some() && !self.reconnects()
    }

    /// Refuses an opening that has crossed our `drain`. `None` where there is nothing to refuse: also where what is opened
    /// is not there at all (§5.14), and for publications that are sent at most once, which are taken as before.
    pub(super) fn refuse_drained(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
    ) -> Option<Result<(), ConnectionError>> {
        if self.drains.ours() { self.refuse_new(now, envelope, draining) } else { None }
    }

    /// Refuses an opening with `error`, unless what is opened is not there at all (§5.14), or nobody waits for the fate of
    /// it.
    pub(super) fn refuse_new(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        error: impl FnOnce() -> Error,
    ) -> Option<Result<(), ConnectionError>> {
        let Self { streams, pubsub, ids, open, budget, refusals, .. } = self;
        let cx = &mut Context { now, ids, open, budget, refusals };
        let id = envelope.id;
        match envelope.kind {
            Kind::Call => {}
            Kind::Stream if streams.is_on() => {}
            Kind::Subscribe if pubsub.is_on() => {}
            Kind::Message if pubsub.is_on() => {
                let wants_ack = matches!(envelope.meta.get_u64(key::QOS), Some(1 | 2));
                // Another attempt of what is held opens nothing.
                if !wants_ack || pubsub.is_again(envelope, cx.open) {
                    return None;
                }
                return Some(cx.refuse_attempt(id, pubsub.attempt_of(envelope), error()));
            }
            _ => return None,
        }
        Some(cx.refuse(envelope.kind, id, error()))
    }

    /// What is to be said of it.
    pub(super) fn next_drain(&mut self, now: Instant) -> Option<Outgoing> {
        if let Some(reference) = self.drains.poll_reply() {
            return Some(Outgoing::new(Kind::Control, self.ids.next(now), Some(reference), Target::Null));
        }
        let Self { drains, ids, peer, .. } = self;
        let (id, drain) = drains.poll_announcement(now, || ids.next(now))?;
        let limit = peer.as_ref().map_or(frame::HANDSHAKE_LIMIT, |peer| peer.limits.max_message);
        let opening = Outgoing::new(Kind::Control, id, None, Target::Verb(verb::DRAIN));
        let payload = fit_drain(drain, limit as usize, |payload| {
            opening.clone().with_payload(payload.clone()).encoded_len()
        });
        Some(opening.with_payload(payload))
    }

    /// Whether all has ended that this side waits for. Where the reply has come, every opening has too that has crossed
    /// our `drain`.
    pub(super) fn is_drained(&self) -> bool {
        self.drains.may_go()
            && !self.sends_again()
            && !self.is_store_full()
            && (self.drains.is_cut()
                || !(self.calls.is_open() || self.streams.is_open() || self.pubsub.is_unsettled()))
    }

    /// There is nothing to send: then this side may go, if all has ended. What it says then.
    pub(super) fn finish_drain(&mut self, now: Instant) -> Option<Outgoing> {
        if !self.is_drained() {
            return None;
        }
        self.close(now, None);
        self.next_outgoing(now)
    }

    /// At the deadline what is left is cut. The end must come, also where the transport takes nothing of what is to be said
    /// of that, and where there is none.
    pub(super) fn handle_drain_timeout(&mut self, now: Instant) {
        if self.error.is_some() {
            return;
        }
        let mut due = self.drains.due(now, self.config.close_timeout);
        if due == DrainDue::Cut {
            let error = Error::unavailable("the time to finish is over");
            self.calls.cut();
            self.streams.cut(&error, &mut self.open);
            if !matches!(self.state, State::Established) {
                due = DrainDue::Close;
            }
        }
        if due == DrainDue::Close {
            self.close(now, None);
        }
    }

    /// When `handle_drain_timeout` has something to do.
    pub(super) fn next_drain_timeout(&self) -> Option<Instant> {
        if self.error.is_some() { None } else { self.drains.next_timeout() }
    }
}

fn draining() -> Error {
    Error::new(Code::DRAINING, "the peer is about to leave").with_processed(false)
}
