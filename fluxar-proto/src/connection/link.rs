//! Links come and go; the session stays, for a while (§8.8, §9).

use super::{Connection, Event, Lost, State};
use crate::frame;
use crate::message::{Code, Envelope, Kind};
use crate::pattern::{Outgoing, Target};
use crate::session::{ConnectionError, Offer, Violation};
use crate::time::Instant;

impl Connection {
    /// The number of the link in use. It changes whenever a link comes or goes: a driver whose link had another number
    /// closes its transport and has nothing more to do here.
    pub fn link(&self) -> u64 {
        self.link
    }

    /// Whether there is no link, and the connection is not over: it waits for one.
    pub fn is_detached(&self) -> bool {
        matches!(self.state, State::Waiting | State::Detached)
    }

    /// Whether the link rests while another one may take its place: its driver does not read, and there is nothing to
    /// write (§9.8).
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// A new link is there, for a connection that is [detached](Self::is_detached): offers to go on where the session can,
    /// and a fresh one otherwise. Whether there was need of one; where there was not, the link is not taken.
    pub fn reconnect(&mut self, now: Instant) -> bool {
        let wanted = self.initiates && self.is_detached();
        if wanted {
            self.offer(now);
        }
        wanted
    }

    /// Begins the handshake of a link.
    pub(super) fn offer(&mut self, now: Instant) {
        let id = self.ids.next(now);
        let offer = Offer::new(self.config.agent(), self.config.features(), self.config.limits());
        self.hello = Some(Outgoing::new(Kind::Hello, id, None, Target::Null).with_payload(offer.encode()));
        self.state = State::Offering { offer: id, deadline: now + self.config.handshake_timeout };
        self.max_message = frame::HANDSHAKE_LIMIT;
        self.link += 1;
    }

    /// Whether bytes come and go now.
    pub(super) fn is_attached(&self) -> bool {
        !self.frozen
            && matches!(self.state, State::Offering { .. } | State::Established | State::Closing { .. })
    }

    /// The link is of no use any more. Whether the connection lives on without it.
    pub(super) fn lose_link(&mut self, now: Instant, why: &ConnectionError) -> bool {
        let again = self.reconnects();
        match (&self.state, &mut self.session) {
            (State::Established | State::Offering { .. }, Some(session)) => {
                session.expires.get_or_insert(now + session.resume_time);
                session.ledger.hush();
                self.state = State::Detached;
            }
            (State::Established, None) if again => self.lose_session(why),
            (State::Offering { .. }, None) if again => self.state = State::Waiting,
            _ => return false,
        }
        self.unlink();
        self.events.push_back(Event::Detached(why.clone()));
        true
    }

    /// The peer ended the link, or does not want it, and another one may follow. Whether it may.
    pub(super) fn give_up_link(&mut self, now: Instant, why: &ConnectionError) -> bool {
        if matches!(self.state, State::Established) {
            // It said so in `close`: the session is over for both.
            self.lose_session(why);
            self.unlink();
            self.events.push_back(Event::Detached(why.clone()));
            return true;
        }
        self.lose_link(now, why)
    }

    /// The peer has handled so many of our messages (§9.3).
    pub(super) fn handle_handled(&mut self, envelope: &Envelope<'_>) -> Result<(), ConnectionError> {
        let Some(session) = &mut self.session else { return self.drop_message() };
        Ok(session.ledger.acknowledge(handled(envelope)?)?)
    }

    /// What belongs to a link alone is forgotten.
    fn unlink(&mut self) {
        self.link += 1;
        self.frozen = false;
        self.heartbeat.stop();
        self.hello = None;
        self.replies.clear();
        self.pings.clear();
        (self.unread, self.input_is_one_frame) = (0, false);
    }

    /// The session is over, and a fresh one is to come.
    pub(super) fn lose_session(&mut self, why: &ConnectionError) {
        self.session = None;
        let stats = self.stats();
        let lost = Lost {
            why: why.clone(),
            calls: stats.calls_in_flight,
            streams: stats.streams_open + stats.streams_serving,
            subscriptions: stats.subscriptions,
        };
        self.terminate(why);
        self.state = State::Waiting;
        self.events.push_back(Event::Lost(lost));
    }

    /// The time of a session without a link is over.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), ConnectionError> {
        let why = ConnectionError::SessionLost;
        if !self.reconnects() {
            return Err(self.fail(now, why));
        }
        self.lose_session(&why);
        Ok(())
    }

    /// Whether a fresh session may follow one that is lost.
    fn reconnects(&self) -> bool {
        self.initiates && self.config.reconnect
    }

    /// Whether a fresh session may follow one that has ended so.
    pub(super) fn goes_on_after(&self, why: &ConnectionError) -> bool {
        let again = match why {
            ConnectionError::Refused(_) => true,
            ConnectionError::ClosedByPeer(Some(error)) => {
                matches!(error.code, Code::UNAVAILABLE | Code::DRAINING | Code::RESOURCE_EXHAUSTED)
            }
            why => why.is_link_loss(),
        };
        again && self.reconnects()
    }

    pub(super) fn session_expires(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        session.expires.filter(|_| matches!(self.state, State::Detached) && !self.frozen)
    }
}

/// What `handled` says of lane 0. Another lane has sent nothing here, so that nothing of it can have been handled.
fn handled(envelope: &Envelope<'_>) -> Result<u64, Violation> {
    envelope.payload.as_u64().ok_or(Violation::BadPayload(envelope.id))
}
