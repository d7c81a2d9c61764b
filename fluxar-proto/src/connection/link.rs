//! Links come and go; the session stays, for a while (§8.8, §9).

use alloc::boxed::Box;
use core::time::Duration;

use super::handshake::{Dial, Handshake};
use super::{Connection, Event, Lost, State};
use crate::frame;
use crate::message::{Code, Envelope, Item};
use crate::pattern::Context;
use crate::session::{
    Answer, ConnectionError, HelloError, Resumed, Session, SessionGrant, Violation, feature,
};
use crate::time::Instant;

impl Connection {
    /// The number of the link in use. It changes whenever a link comes or goes: a driver whose link had another number
    /// closes its transport and has nothing more to do here.
    pub fn link(&self) -> u64 {
        self.link
    }

    /// As [`abort`](Self::abort), for the link of this number alone: where the connection has another one, or none, it does
    /// nothing. For drivers, to which several reasons may come up at once: a link is lost once.
    pub fn abort_link(&mut self, now: Instant, link: u64, why: ConnectionError) {
        if self.link == link {
            self.abort(now, why);
        }
    }

    /// Whether there is no link, and the connection is not over: it waits for one.
    pub fn is_detached(&self) -> bool {
        matches!(self.state, State::Waiting | State::Detached)
    }

    /// Whether the link rests while another one may take its place: its driver does not read, and there is nothing to
    /// write (§9.8).
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// A new link is there, for a connection that is [detached](Self::is_detached): offers to go on where the session can,
    /// and a fresh one otherwise. Whether there was need of one; where there was not, the link is not taken.
    ///
    /// # Errors
    ///
    /// What the dial holds must not be sent over such a transport, or cannot: the link is not taken, nothing was sent.
    pub fn reconnect(&mut self, now: Instant, dial: Dial) -> Result<bool, ConnectionError> {
        let wanted = self.initiates && self.is_detached();
        if wanted {
            self.offer(now, dial)?;
        }
        Ok(wanted)
    }

    /// Begins the handshake of a link.
    pub(super) fn offer(&mut self, now: Instant, dial: Dial) -> Result<(), ConnectionError> {
        let Self { config, ids, session, .. } = self;
        // The proof of the session stands for the credentials, unless these have run out (§9.5).
        let hold = session.is_some() && self.auth_expires.is_none_or(|at| at > now);
        let resume = |id| session.as_ref().map(|session| session.offer(id));
        let may_carry_auth = dial.confidential || config.clear_auth;
        let (handshake, offer) = Handshake::start(config, ids, now, dial, hold, resume)?;
        (self.hello, self.may_carry_auth) = (Some(offer), may_carry_auth);
        let deadline = now + self.config.handshake_timeout;
        self.state = State::Offering { handshake: Box::new(handshake), deadline };
        (self.max_message, self.farewell) = (frame::HANDSHAKE_LIMIT, None);
        self.link += 1;
        Ok(())
    }

    /// Whether bytes come and go now.
    pub(super) fn is_attached(&self) -> bool {
        self.frozen.is_none()
            && matches!(self.state, State::Offering { .. } | State::Established | State::Closing { .. })
    }

    /// The link is of no use any more. Whether the connection lives on without it.
    pub(super) fn lose_link(&mut self, now: Instant, why: &ConnectionError) -> bool {
        let again = self.reconnects();
        match (&self.state, &mut self.session) {
            (State::Established | State::Offering { .. }, Some(session)) => {
                session.detach(now);
                self.pubsub.pause(now);
                self.state = State::Detached;
            }
            (State::Established, None) if again => self.lose_session(now, why),
            (State::Offering { .. }, None) if again => self.state = State::Waiting,
            _ => return false,
        }
        self.unlink();
        self.events.push_back(Event::Detached(why.clone()));
        true
    }

    /// What the last answer says of the session: that it goes on, or a fresh one begins.
    pub(super) fn begin_session(
        &mut self,
        now: Instant,
        answer: Answer,
        grant: Option<SessionGrant>,
    ) -> Result<(), ConnectionError> {
        self.auth_expires = grant.as_ref().and_then(|grant| grant.auth_expires(now));
        if let Some(resumed) = answer.resumed {
            return self.go_on(now, &resumed, grant, answer.limits.heartbeat_ms);
        }
        if self.session.is_some() {
            self.lose_session(now, &ConnectionError::SessionLost);
        }
        let resumes = answer.features.iter().any(|name| name == feature::RESUME);
        if let Some(grant) = grant.filter(|grant| resumes && grant.resume_ms > 0) {
            let (id, time) = (grant.id, Duration::from_millis(grant.resume_ms));
            let secret = grant.secret.ok_or(HelloError::Missing("secret"))?;
            self.session = Some(Session::new(id, secret, time, self.config.store_limits()));
        }
        self.establish(now, answer.agent, answer.version, answer.features, answer.limits);
        Ok(())
    }

    /// The responder has taken the session up (§9.6).
    fn go_on(
        &mut self,
        now: Instant,
        resumed: &Resumed,
        grant: Option<SessionGrant>,
        heartbeat_ms: u32,
    ) -> Result<(), ConnectionError> {
        let grant = grant.ok_or(HelloError::Missing("session"))?;
        let session = self.session.as_mut().filter(|session| session.id() == grant.id);
        let session = session.ok_or(Violation::WrongAnswer)?;
        let secret = grant.secret.ok_or(HelloError::Missing("secret"))?;
        session.renew(&secret, Duration::from_millis(grant.resume_ms));
        // With it the responder knows that we have the answer: it goes first.
        session.ledger.tell_at_once();
        session.ledger.acknowledge(resumed.handled)?;
        self.attach(now, heartbeat_ms);
        Ok(())
    }

    /// The peer ended the link, or does not want it, and another one may follow. Whether it may.
    pub(super) fn give_up_link(&mut self, now: Instant, why: &ConnectionError) -> bool {
        let is_unknown =
            matches!(why, ConnectionError::Refused(error) if error.code == Code::SESSION_UNKNOWN);
        if is_unknown && self.session.is_some() {
            self.lose_session(now, &ConnectionError::SessionLost);
        } else if matches!(self.state, State::Established) {
            // It said so in `close`: the session is over for both.
            self.lose_session(now, why);
        } else {
            return self.lose_link(now, why);
        }
        self.unlink();
        self.events.push_back(Event::Detached(why.clone()));
        true
    }

    /// The peer has handled so many of our messages (§9.3).
    pub(super) fn handle_handled(&mut self, envelope: &Envelope<'_>) -> Result<(), ConnectionError> {
        let Some(session) = &mut self.session else { return self.drop_message() };
        match handled(envelope)? {
            Some(count) => Ok(session.ledger.acknowledge(count)?),
            None => Ok(()),
        }
    }

    /// What belongs to a link alone is forgotten.
    pub(super) fn unlink(&mut self) {
        self.link += 1;
        self.heartbeat.stop();
        self.hello = None;
        self.replies.clear();
        self.pings.clear();
        self.drains.unlinked();
        self.meters.pause = None;
        self.forget_renewals();
        (self.unread, self.input_is_one_frame) = (0, false);
    }

    /// The session is over, and a fresh one is to come.
    pub(super) fn lose_session(&mut self, now: Instant, why: &ConnectionError) {
        self.session = None;
        self.drains.forget_theirs();
        self.refusals.clear();
        let Self { calls, streams, pubsub, ids, open, budget, refusals, .. } = self;
        let cx = &mut Context { now, ids, open, budget, refusals };
        let lost = Lost {
            why: why.clone(),
            calls: calls.renew(why, cx),
            streams: streams.renew(why, cx.open),
            subscriptions: pubsub.renew(why, cx),
        };
        self.state = State::Waiting;
        self.events.push_back(Event::Lost(lost));
    }

    /// The time of a session without a link is over.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), ConnectionError> {
        let why = ConnectionError::SessionLost;
        if !self.reconnects() {
            return Err(self.fail(now, why));
        }
        self.lose_session(now, &why);
        Ok(())
    }

    /// Whether a fresh session may follow one that is lost.
    pub(super) fn reconnects(&self) -> bool {
        self.initiates && self.config.reconnect && !self.drains.ours()
    }

    /// Whether a fresh session may follow one that has ended so.
    pub(super) fn goes_on_after(&self, why: &ConnectionError) -> bool {
        let again = match why {
            ConnectionError::Refused(_) => true,
            ConnectionError::ClosedByPeer(Some(error)) => match error.code {
                Code::UNAVAILABLE | Code::DRAINING | Code::RESOURCE_EXHAUSTED => true,
                // The handshake took too long there (§6.9), of which the session knows nothing.
                Code::DEADLINE_EXCEEDED => self.is_handshaking(),
                _ => false,
            },
            // It said before that it would (§8.6).
            ConnectionError::ClosedByPeer(None) => self.drains.theirs().is_some(),
            why => why.is_link_loss(),
        };
        again && self.reconnects()
    }

    pub(super) fn session_expires(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        session.expires.filter(|_| matches!(self.state, State::Detached) && self.frozen.is_none())
    }
}

/// What `handled` says of lane 0; `None` where it is about another one, of which there is none here: so nothing of it can
/// have been handled (§9.3).
fn handled(envelope: &Envelope<'_>) -> Result<Option<u64>, Violation> {
    let bad = || Violation::BadPayload(envelope.id);
    if let Some(count) = envelope.payload.as_u64() {
        return Ok(Some(count));
    }
    let mut numbers = envelope.payload.array().map_err(|_| bad())?.map(Item::as_u64);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(1..)), Some(Some(0)), None) => Ok(None),
        (Some(Some(_)), Some(Some(_)), None) => Err(Violation::WrongCount),
        _ => Err(bad()),
    }
}
