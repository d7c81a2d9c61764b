//! An offer that waits for the responder's verdict, and the answers that it gets (§6.4, §6.8, §6.10).

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::handshake::{MAX_PROOFS, body_of, check_size};
use super::incoming::{handshake_timeout, refuse};
use super::proving::Proving;
use super::{Config, Connection, Resuming, Tentative, TransmitBuf};
use crate::message::{Error, Id, Kind, Payload};
use crate::pattern::{Outgoing, Target, ceil_ms};
use crate::session::{
    Answer, Auth, Bytes32, ConnectionError, IdSource, LastOrNext, LaterAnswer, Offer, Prover, PskError,
    PskKey, Session, SessionGrant, SessionId, Transcript, feature, is_psk_proof, psk_proof, verify_in_vain,
};
use crate::time::Instant;

/// What a responder asks for in one more round of the handshake (§6.10).
#[derive(Debug, Default)]
pub struct Ask {
    /// For the scheme of custom credentials (§6.11).
    pub challenge: Option<Payload>,
    /// The initiator has to hold this key: the one of the name in its offer (§6.12). To be asked for in the first round,
    /// and but once.
    pub psk: Option<PskKey>,
}

/// What an initiator is let in with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// How long its credentials last (§8.5). Default: without end.
    pub auth_expires: Option<Duration>,
}

/// An offer that waits for a verdict.
#[derive(Debug)]
pub struct Offered {
    config: Arc<Config>,
    ids: IdSource,
    deadline: Instant,
    /// The id of the offer.
    id: Id,
    /// What the next answer answers: the offer, or a proof.
    answers: Id,
    offer: Offer,
    version: u64,
    /// How many proofs have been asked for.
    asked: u8,
    /// Over the offer and the first answer, where the offer names a key.
    transcript: Option<Transcript>,
    psk: Option<Demand>,
    /// The session that goes on.
    tentative: Option<Tentative>,
}

/// What a responder has accepted.
pub(super) struct Accepted {
    pub(super) offer: Offer,
    pub(super) version: u64,
    pub(super) features: Vec<String>,
    /// Where it is resumable.
    pub(super) session: Option<Session>,
    /// When the initiator's credentials run out.
    pub(super) auth_expires: Option<Instant>,
}

/// The key that an initiator has to hold.
#[derive(Debug)]
struct Demand {
    key: PskKey,
    /// The key is one that this side knows. Where it is not, nothing proves it.
    known: bool,
    proven: bool,
}

impl Offered {
    /// The `offer` in the frame `body`.
    pub(super) fn new(
        config: Arc<Config>,
        ids: IdSource,
        deadline: Instant,
        id: Id,
        offer: Offer,
        version: u64,
        body: &[u8],
    ) -> Self {
        let transcript = offer.psk.is_some().then(|| {
            let mut transcript = Transcript::new();
            transcript.add(body);
            transcript
        });
        Self {
            config,
            ids,
            deadline,
            id,
            answers: id,
            offer,
            version,
            asked: 0,
            transcript,
            psk: None,
            tentative: None,
        }
    }

    /// What the initiator offers. Its credentials are the latest that it gave.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// The id of the offer, which enters the proof of a resume (§9.5).
    pub fn id(&self) -> Id {
        self.id
    }

    /// The session goes on that the offer asks for: what [`Connection::take_up`] gave. Then
    /// [`accept_resumed`](Self::accept_resumed) takes the place of [`accept`](Self::accept). It is told in the first answer, and
    /// so is to be set before anything is [asked](Self::ask).
    pub fn set_resumed(&mut self, tentative: Tentative) {
        self.tentative = Some(tentative);
    }

    /// The credentials that the initiator has given: in its offer, or in the proof that was asked for since. After a
    /// challenge: only those in the proof.
    pub fn auth(&self) -> Option<&Auth> {
        self.offer.auth.as_ref()
    }

    /// Whether the initiator has proven that it holds the key that was asked for.
    pub fn has_proven_psk(&self) -> bool {
        self.psk.as_ref().is_some_and(|psk| psk.proven)
    }

    /// How many more proofs may be asked for.
    pub fn proofs_left(&self) -> u8 {
        MAX_PROOFS - self.asked
    }

    /// Nobody knows the session that the offer asks for: that takes as long as a wrong proof (§9.9).
    pub fn verify_in_vain(&mut self) {
        if let Some(resume) = &self.offer.resume {
            verify_in_vain(resume, self.id, &mut self.ids);
        }
    }

    /// When the handshake must be done, the verdict included.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The deadline may have passed while the verdict was awaited (§6.9).
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ConnectionError::TimedOut) once it has; the link is over then, and `out` holds what the peer is
    /// to be told before the transport is closed.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut TransmitBuf) -> Result<(), ConnectionError> {
        handshake_timeout(now, self.deadline, &mut self.ids, out)
    }

    /// Accepts: the connection is established, and its first message is the answer.
    pub fn accept(self, now: Instant) -> Connection {
        self.accept_with(now, Grant::default())
    }

    /// Accepts an initiator whose credentials last as long as the grant says.
    pub fn accept_with(mut self, now: Instant, grant: Grant) -> Connection {
        let features = self.config.choose(&self.offer.features);
        let resumes = features.iter().any(|name| name == feature::RESUME);
        let time = self.config.resume_time;
        let mut session = (resumes && !time.is_zero())
            .then(|| Session::fresh(time, self.config.store_limits(), &mut self.ids));
        let auth_expires = grant.auth_expires.map(|duration| now + duration);
        let told = self.session_grant(session.as_mut(), grant);
        let answer = self.answer(now, None, LastOrNext::last(told));
        let Self { offer, version, .. } = self;
        let accepted = Accepted { offer, version, features, session, auth_expires };
        Connection::respond_with(self.config, now, self.ids, answer, accepted)
    }

    /// Accepts, and goes on with the session of [`set_resumed`](Self::set_resumed): puts the answer into `out`. Credentials
    /// last as long as the session has been granted. `None` where there is no such session, or where they have run out (§8.5):
    /// `out` then holds the refusal, and the attempt is to be [abandoned](Connection::abandon).
    pub fn accept_resumed(self, now: Instant, out: &mut TransmitBuf) -> Option<Resuming> {
        self.resume(now, None, out)
    }

    /// As [`accept_resumed`](Self::accept_resumed), for an initiator that has brought fresh credentials: they last as long as
    /// the grant says.
    pub fn accept_resumed_with(self, now: Instant, grant: Grant, out: &mut TransmitBuf) -> Option<Resuming> {
        self.resume(now, Some(grant), out)
    }

    fn resume(mut self, now: Instant, fresh: Option<Grant>, out: &mut TransmitBuf) -> Option<Resuming> {
        let tentative = self.tentative.as_ref()?;
        let expires = match fresh {
            Some(grant) => grant.auth_expires.map(|duration| now + duration),
            None => tentative.auth_expires,
        };
        if fresh.is_none() && expires.is_some_and(|at| at <= now) {
            self.refuse(now, Error::unauthenticated("the credentials have run out"), out);
            return None;
        }
        let mut told = tentative.grant.clone();
        told.auth_expires_ms = expires.map(|at| ceil_ms(at - now));
        let answer = self.answer(now, None, LastOrNext::last(Some(told)));
        push(&answer, out);
        let mut tentative = self.tentative?;
        tentative.auth_expires = expires;
        let heartbeat_ms = self.offer.limits.heartbeat_ms;
        Some(Resuming::new(self.deadline, &tentative, heartbeat_ms))
    }

    /// Refuses: puts the answer that says why into `out`; the transport is to be closed once that is written.
    pub fn refuse(mut self, now: Instant, error: Error, out: &mut TransmitBuf) {
        refuse(self.answers, self.ids.next(now), error, out);
    }

    /// Asks for one more proof: puts the answer that does so into `out`. There are at most four rounds of that.
    ///
    /// # Errors
    ///
    /// There have been four, or the challenge does not fit into an answer. The initiator is refused: `out` holds the answer
    /// that says so, and the transport is to be closed once that is written.
    pub fn ask(mut self, now: Instant, ask: Ask, out: &mut TransmitBuf) -> Result<Proving, ConnectionError> {
        if self.proofs_left() == 0 {
            let error = Error::unauthenticated("the proofs that there may be have not sufficed");
            return Err(self.give_up(now, error, out));
        }
        let challenged = ask.challenge.is_some();
        let nonce = ask.psk.filter(|_| self.psk.is_none()).and_then(|key| self.demand(key));
        let answer = self.answer(now, nonce, LastOrNext::ask(ask.challenge));
        if check_size(&answer).is_err() {
            return Err(self.give_up(now, Error::internal("a challenge that fits into no answer"), out));
        }
        if let Some(transcript) = self.transcript.as_mut().filter(|_| self.asked == 0) {
            transcript.add(&body_of(&answer));
        }
        push(&answer, out);
        self.asked += 1;
        Ok(Proving::new(self, answer.id, challenged))
    }

    fn give_up(self, now: Instant, error: Error, out: &mut TransmitBuf) -> ConnectionError {
        self.refuse(now, error.clone(), out);
        ConnectionError::ClosedLocally(Some(error))
    }

    /// From now on the initiator has to prove that it holds the key. The nonce of the answer, where it may have one: an
    /// offer that names no key gets none, and what it proves then does not suffice.
    fn demand(&mut self, key: PskKey) -> Option<Bytes32> {
        let (key, known) = key.or_random(&mut self.ids);
        self.psk = Some(Demand { key, known, proven: false });
        let takes_part = self.asked == 0 && self.offer.psk.is_some();
        takes_part.then(|| self.ids.bytes())
    }

    /// Takes the proof of the key, where one was asked for.
    ///
    /// # Errors
    ///
    /// It is missing, or wrong.
    pub(super) fn verify(&mut self, proof: Option<Bytes32>) -> Result<(), PskError> {
        let Some(demand) = self.psk.as_mut().filter(|demand| !demand.proven) else { return Ok(()) };
        let (Some(proof), Some(transcript)) = (proof, &self.transcript) else {
            return Err(PskError::Missing);
        };
        let right = is_psk_proof(demand.key.as_bytes(), Prover::Initiator, &transcript.hash(), &proof);
        demand.proven = right & demand.known;
        if demand.proven { Ok(()) } else { Err(PskError::Wrong) }
    }

    /// What a proof has brought. Credentials that answer a challenge take the place of the former ones in any case.
    pub(super) fn note_proof(&mut self, id: Id, auth: Option<Auth>, challenged: bool) {
        self.answers = id;
        if challenged || auth.is_some() {
            self.offer.auth = auth;
        }
    }

    pub(super) fn next_id(&mut self, now: Instant) -> Id {
        self.ids.next(now)
    }

    /// The session that the last answer tells of, where there is something to tell.
    fn session_grant(&mut self, session: Option<&mut Session>, grant: Grant) -> Option<SessionGrant> {
        let auth_expires_ms = grant.auth_expires.map(ceil_ms);
        if let Some(session) = session {
            return Some(SessionGrant { auth_expires_ms, ..session.grant(false, &mut self.ids) });
        }
        auth_expires_ms?;
        let id = SessionId::from_bytes(self.ids.bytes());
        Some(SessionGrant { id, resume_ms: 0, secret: None, auth_expires_ms })
    }

    /// The next answer: the first one decides, later ones do not repeat that (§6.10).
    fn answer(&mut self, now: Instant, nonce: Option<Bytes32>, last: LastOrNext) -> Outgoing {
        let payload = if self.asked == 0 {
            let answer = Answer {
                version: self.version,
                agent: self.config.agent(),
                features: self.config.choose(&self.offer.features),
                limits: self.config.limits(),
                psk: nonce,
                resumed: self.tentative.as_ref().map(|tentative| tentative.resumed.clone()),
                last,
            };
            answer.encode()
        } else {
            LaterAnswer { psk: if last.next { None } else { self.own_proof() }, last }.encode()
        };
        Outgoing::new(Kind::Hello, self.ids.next(now), Some(self.answers), Target::Null).with_payload(payload)
    }

    /// That this side holds the key too: said only to who has proven it (§6.12).
    fn own_proof(&self) -> Option<Bytes32> {
        let demand = self.psk.as_ref().filter(|demand| demand.proven)?;
        let transcript = self.transcript.as_ref()?;
        Some(psk_proof(demand.key.as_bytes(), Prover::Responder, &transcript.hash()))
    }
}

/// A hello has no metadata, so that nothing keeps it from being sent.
fn push(answer: &Outgoing, out: &mut TransmitBuf) {
    let sent = answer.with_envelope(|envelope| out.push(envelope, None, None));
    debug_assert!(sent.is_ok(), "{sent:?}");
}
