//! Credentials within a session: how long they last, and how they are renewed (§8.5).

use core::fmt;
use core::time::Duration;

use super::{Connection, Event, State};
use crate::frame;
use crate::message::{Code, Envelope, Error, Id, Kind, key, verb};
use crate::pattern::{Entity, Gone, Outgoing, Target, ceil_ms};
use crate::session::{Auth, ConnectionError, Violation, decode_auth_reply, encode_auth_reply};
use crate::time::Instant;

/// Why credentials cannot be renewed now. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// The connection has ended.
    Closed,
    /// It is the other side that has credentials to renew.
    NotInitiator,
    /// There is no session over a link at the moment. The next link brings credentials of its own.
    NotEstablished,
    /// The credentials may not be sent in clear over this transport (§6.11).
    InClear,
    /// The peer takes no message of that size.
    TooLarge,
    /// Four renewals wait for their answer.
    Busy,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection has ended",
            Self::NotInitiator => "the initiator's credentials are not this side's to renew",
            Self::NotEstablished => "there is no link at the moment",
            Self::InClear => "credentials do not travel in clear over such a transport",
            Self::TooLarge => "credentials larger than the peer takes",
            Self::Busy => "enough renewals wait for their answer",
        })
    }
}

impl core::error::Error for AuthError {}

impl Connection {
    /// When the initiator's credentials run out: at the responder those that the peer has been let in with, at the
    /// initiator its own (§8.5). None: never.
    ///
    /// An initiator [renews](Self::authenticate) them in time: of what it opens later the responder takes nothing, nor
    /// does it let the session go on over a new link without fresh ones.
    pub fn auth_expires(&self) -> Option<Instant> {
        self.auth_expires
    }

    /// Sends fresh credentials, as initiator. Their fate comes as [`Event::Authenticated`] with the id that this returns; until
    /// then, and where they are refused, the former ones count.
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    pub fn authenticate(&mut self, now: Instant, auth: Auth) -> Result<Id, AuthError> {
        if self.error.is_some() {
            return Err(AuthError::Closed);
        }
        if !self.initiates {
            return Err(AuthError::NotInitiator);
        }
        if !matches!(self.state, State::Established) {
            return Err(AuthError::NotEstablished);
        }
        if !self.may_carry_auth {
            return Err(AuthError::InClear);
        }
        let id = self.ids.next(now);
        if opening(id, &auth).encoded_len() > self.peer_limit() as usize {
            return Err(AuthError::TooLarge);
        }
        if !self.renewals.has_room() {
            return Err(AuthError::Busy);
        }
        self.open.insert(id, Entity::Renewal);
        self.renewals.ask(id, auth);
        Ok(id)
    }

    /// Answers an [`Event::AuthOffered`]: how long the new credentials last, without end where that is none, or why they are
    /// refused. Those of another identity are to be refused with `permission_denied` (§8.5). What is granted counts from
    /// the moment at which the answer is sent.
    ///
    /// # Errors
    ///
    /// [`Gone`] where nobody waits for it any more: the link was lost, or the connection has ended.
    pub fn answer_auth(&mut self, id: Id, verdict: Result<Option<Duration>, Error>) -> Result<(), Gone> {
        if self.renewals.judge(id, verdict) { Ok(()) } else { Err(Gone) }
    }

    /// The peer sends fresh credentials.
    pub(super) fn handle_auth(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
    ) -> Result<(), ConnectionError> {
        let id = envelope.id;
        if self.initiates || !self.config.authenticates {
            return self.refuse_opening(now, envelope, "no credentials are asked for here");
        }
        let auth = Auth::decode(envelope.payload).map_err(|_| Violation::BadPayload(id))?;
        if !self.renewals.note(id) {
            let error = Error::resource_exhausted("enough renewals wait for their answer");
            let Self { budget, refusals, .. } = self;
            return Ok(refusals.refuse(Kind::Control, id, None, error, now, budget)?);
        }
        self.open.insert(id, Entity::Renewal);
        self.events.push_back(Event::AuthOffered { id, auth });
        Ok(())
    }

    /// The peer answers with `envelope` what may be a renewal of ours; whether it was one.
    pub(super) fn handle_auth_reply(
        &mut self,
        now: Instant,
        reference: Id,
        envelope: &Envelope<'_>,
    ) -> Result<bool, ConnectionError> {
        if !self.renewals.take_asked(reference) {
            return Ok(false);
        }
        self.open.remove(reference, Entity::Renewal);
        let result = match &envelope.error {
            Some(error) => Err(Error::from(*error)),
            None => {
                let lasts = decode_auth_reply(envelope.payload);
                let lasts = lasts.map_err(|_| Violation::BadPayload(envelope.id))?;
                self.auth_expires = lasts.map(|lasts| now + lasts);
                Ok(lasts)
            }
        };
        self.events.push_back(Event::Authenticated { id: reference, result });
        Ok(true)
    }

    /// Whether there are fresh credentials of ours, or verdicts on the peer's, to be sent; and the first.
    pub(super) fn next_renewal(&mut self, now: Instant) -> Option<Outgoing> {
        if let Some((reference, verdict)) = self.renewals.poll_verdict() {
            self.open.remove(reference, Entity::Renewal);
            let lasts = verdict.map(|lasts| {
                // Until the answer is sent, the former ones count.
                self.auth_expires = lasts.map(|lasts| now + lasts);
                encode_auth_reply(lasts.map(ceil_ms))
            });
            let reply = Outgoing::new(Kind::Control, self.ids.next(now), Some(reference), Target::Null);
            return Some(reply.with_result(lasts).with_error_within(self.peer_limit()));
        }
        let (id, auth) = self.renewals.poll_queued()?;
        Some(opening(id, &auth))
    }

    /// Renewals end with their link (§9.7): nobody waits for them any more, and ours have failed.
    pub(super) fn forget_renewals(&mut self) {
        let (asked, judged) = self.renewals.forget();
        for id in asked.iter().chain(&judged) {
            self.open.remove(*id, Entity::Renewal);
        }
        for id in asked {
            let result = Err(Error::unavailable("the link was lost before there was an answer"));
            self.events.push_back(Event::Authenticated { id, result });
        }
    }

    /// Refuses an opening of an initiator whose credentials have run out (§8.5). `None` where there is nothing to refuse:
    /// also where what is opened is not there at all (§5.14).
    pub(super) fn refuse_expired(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
    ) -> Option<Result<(), ConnectionError>> {
        if self.initiates || self.auth_expires.is_none_or(|at| now < at) {
            return None;
        }
        let is_unanswered = envelope.kind == Kind::Message
            && !matches!(envelope.meta.get_u64(key::QOS), Some(1 | 2))
            && self.pubsub.is_on();
        if is_unanswered {
            return Some(self.drop_message());
        }
        let error = || Error::new(Code::UNAUTHENTICATED, "the credentials have run out");
        self.refuse_new(now, envelope, error)
    }

    /// How long a message may be for the peer, in bytes.
    fn peer_limit(&self) -> u32 {
        self.peer.as_ref().map_or(frame::HANDSHAKE_LIMIT, |peer| peer.limits.max_message)
    }
}

fn opening(id: Id, auth: &Auth) -> Outgoing {
    Outgoing::new(Kind::Control, id, None, Target::Verb(verb::AUTH)).with_payload(auth.to_payload())
}
