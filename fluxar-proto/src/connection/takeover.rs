//! A session goes on over a new link, at the responder (§9.6 to §9.8).
//!
//! ```text
//!   offer with `resume`
//!          |  Connection::take_up          the old link rests
//!          v
//!      Tentative --> Offered::set_resumed, proofs --> accept_resumed
//!                                                          |
//!                            abandon                       v
//!   the old link goes on <------------ Resuming --`handled`--> Confirmed --> Connection::confirm_link
//! ```

use bytes::BytesMut;

use super::receive::is_close;
use super::{Connection, Event, State};
use crate::frame;
use crate::message::{Envelope, Error, Id, Kind, verb};
use crate::session::{
    ConnectionError, ResumeOffer, Resumed, SessionGrant, SessionId, Timeout, Violation, verify_in_vain,
};
use crate::time::Instant;

/// One attempt at taking up a session over a new link. Of several the latest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(u64);

/// A session that is about to go on over a new link: for [`Offered::set_resumed`](super::Offered::set_resumed).
#[derive(Debug)]
pub struct Tentative {
    pub(super) attempt: Attempt,
    pub(super) resumed: Resumed,
    pub(super) grant: SessionGrant,
    /// How many of our messages the initiator has, as its offer says.
    acknowledged: u64,
    /// When the initiator's credentials run out.
    pub(super) auth_expires: Option<Instant>,
}

impl Tentative {
    /// Which attempt it is: for [`Connection::abandon`].
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }
}

/// Why a session is not taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResumeRefused {
    /// It is not known, it is over, or the proof is wrong: nobody is told which of them (§9.9).
    Unknown,
    /// The offer has a proof, and says what cannot be: the session has ended with this (§9.6).
    Violation(ConnectionError),
}

impl Connection {
    /// The name of the session, where it is resumable: by which an offer asks for it (§9.5).
    pub fn session_id(&self) -> Option<SessionId> {
        self.session.as_ref().map(|session| session.id())
    }

    /// Somebody asks for this session over a new link. Where the proof is right, the old link rests, if there is one,
    /// until the attempt is [confirmed](Self::confirm_link) or [abandoned](Self::abandon): one of the two must follow (§9.8).
    ///
    /// # Errors
    ///
    /// Why the session is not taken up.
    pub fn take_up(
        &mut self,
        now: Instant,
        offer: &ResumeOffer,
        offer_id: Id,
    ) -> Result<Tentative, ResumeRefused> {
        let is_alive = !self.initiates && matches!(self.state, State::Established | State::Detached);
        let session = self.session.as_mut().filter(|_| is_alive);
        let Some(session) = session else {
            verify_in_vain(offer, offer_id, &mut self.ids);
            return Err(ResumeRefused::Unknown);
        };
        // One that says less than before may be the repetition of an older one, by somebody else.
        if !session.verify(offer, offer_id) || offer.handled < session.ledger.acknowledged() {
            return Err(ResumeRefused::Unknown);
        }
        if offer.handled > session.ledger.sent() {
            return Err(ResumeRefused::Violation(self.fail(now, Violation::WrongCount.into())));
        }
        self.attempts += 1;
        self.frozen = Some(Attempt(self.attempts));
        Ok(Tentative {
            attempt: Attempt(self.attempts),
            resumed: Resumed { handled: session.ledger.handled(), lanes: alloc::vec::Vec::new() },
            grant: session.grant(true, &mut self.ids),
            acknowledged: offer.handled,
            auth_expires: self.auth_expires,
        })
    }

    /// The initiator has confirmed: the session goes on over the new link, and the old one is no longer the connection's
    /// ([`link`](Self::link) has changed). `false` where a later attempt has come, or the session has ended: then the new link
    /// is to be closed.
    pub fn confirm_link(&mut self, now: Instant, confirmed: Confirmed) -> bool {
        if self.frozen != Some(confirmed.attempt) {
            return false;
        }
        self.unlink();
        self.frozen = None;
        self.auth_expires = confirmed.auth_expires;
        let Some(session) = &mut self.session else { return false };
        session.confirm();
        let counts = [confirmed.acknowledged, confirmed.handled];
        let agreed = counts.into_iter().try_for_each(|handled| session.ledger.acknowledge(handled));
        self.link += 1;
        self.attach(now, confirmed.heartbeat_ms);
        if let Err(violation) = agreed {
            self.fail(now, violation.into());
        }
        true
    }

    /// The attempt has failed: the old link goes on, if there is one.
    pub fn abandon(&mut self, now: Instant, attempt: Attempt) {
        if self.frozen == Some(attempt) {
            self.frozen = None;
            // Nothing was read meanwhile, which is no fault of the peer's.
            self.heartbeat.note_received(now);
        }
    }

    /// The link is the session's from now on, and what the other side has not is sent again.
    pub(super) fn attach(&mut self, now: Instant, heartbeat_ms: u32) {
        self.state = State::Established;
        if let Some(peer) = &mut self.peer {
            peer.limits.heartbeat_ms = heartbeat_ms;
        }
        let ours = self.config.limits();
        self.max_message = ours.max_message;
        self.heartbeat.start(ours.heartbeat_ms, heartbeat_ms, now);
        self.pubsub.go_on(now);
        if let Some(session) = &mut self.session {
            session.expires = None;
            let resent = session.ledger.rewind();
            self.events.push_back(Event::Resumed { resent });
        }
        self.stats.resumed += 1;
    }
}

/// A new link of a session, until the initiator confirms that it has the answer (§9.6).
#[derive(Debug)]
pub struct Resuming {
    deadline: Instant,
    attempt: Attempt,
    heartbeat_ms: u32,
    acknowledged: u64,
    auth_expires: Option<Instant>,
}

/// What the initiator of a new link has confirmed: for [`Connection::confirm_link`].
#[derive(Debug)]
pub struct Confirmed {
    attempt: Attempt,
    heartbeat_ms: u32,
    acknowledged: u64,
    handled: u64,
    auth_expires: Option<Instant>,
}

/// How far a resume has come.
#[derive(Debug)]
pub enum ResumeProgress {
    /// The confirmation is not whole yet.
    More(Resuming),
    /// It is there.
    Confirmed(Confirmed),
}

impl Resuming {
    pub(super) fn new(deadline: Instant, tentative: &Tentative, heartbeat_ms: u32) -> Self {
        let Tentative { attempt, acknowledged, auth_expires, .. } = *tentative;
        Self { deadline, attempt, heartbeat_ms, acknowledged, auth_expires }
    }

    /// When the handshake must be done, the confirmation included.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Which attempt it is: for [`Connection::abandon`].
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Takes the initiator's confirmation from `input`, once it is whole. What follows it stays there, for the
    /// connection.
    ///
    /// # Errors
    ///
    /// The link is over, and the attempt is to be [abandoned](Connection::abandon). The peer is told nothing: a `close` would
    /// end its session, which goes on here (§9.8).
    pub fn handle_input(self, input: &mut BytesMut) -> Result<ResumeProgress, ConnectionError> {
        let Some(len) = frame::split(input, frame::HANDSHAKE_LIMIT)? else {
            return Ok(ResumeProgress::More(self));
        };
        let frame = input.split_to(frame::PREFIX_LEN + len);
        let handled = confirmation(frame.get(frame::PREFIX_LEN..).unwrap_or_default())?;
        let Self { attempt, heartbeat_ms, acknowledged, auth_expires, .. } = self;
        let confirmed = Confirmed { attempt, heartbeat_ms, acknowledged, handled, auth_expires };
        Ok(ResumeProgress::Confirmed(confirmed))
    }

    /// The deadline has passed.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ConnectionError::TimedOut) once it has; as with [`handle_input`](Self::handle_input).
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if now < self.deadline { Ok(()) } else { Err(ConnectionError::TimedOut(Timeout::Handshake)) }
    }
}

/// The initiator's first message on a new link: how many of our messages it has (§9.6).
fn confirmation(body: &[u8]) -> Result<u64, ConnectionError> {
    let envelope = Envelope::decode(body)?;
    if is_close(&envelope) {
        return Err(ConnectionError::ClosedByPeer(envelope.error.map(Error::from)));
    }
    let is_handled = envelope.kind == Kind::Control
        && envelope.reference.is_none()
        && envelope.target == Some(verb::HANDLED);
    if !is_handled {
        return Err(Violation::HandledExpected.into());
    }
    Ok(envelope.payload.as_u64().ok_or(Violation::BadPayload(envelope.id))?)
}
