//! A session that outlives its link (§9).

use alloc::collections::VecDeque;
use core::time::Duration;

use super::hello::{ResumeOffer, SessionGrant, SessionId};
use super::ids::IdSource;
use super::psk::{is_resume_proof, next_secret, resume_proof};
use super::secret::Secret;
use super::{Ledger, StoreLimits};
use crate::message::Id;
use crate::time::Instant;

/// So many offers are remembered that have proven a secret: an initiator makes another one only after the link of the last
/// was lost, and the first that is confirmed changes the secret.
const SPENT: usize = 64;

/// What there is of a session beyond its link, where it is resumable.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    /// By which the initiator shows that it had the session.
    secret: Secret<32>,
    /// What an answer said that leads to the next one, and that one: as long as its link was not confirmed, the initiator may
    /// have the one secret or the other (§9.6).
    next: Option<(Secret<32>, Secret<32>)>,
    /// The offers that have proven one of these, the latest of them: none is good for a second time (§9.6).
    spent: VecDeque<Id>,
    /// How long it outlives a lost link (§9.1).
    resume_time: Duration,
    /// What is kept for the other side, and counted.
    pub(crate) ledger: Ledger,
    /// When it is over, without a link.
    pub(crate) expires: Option<Instant>,
}

impl Session {
    pub(crate) fn new(id: SessionId, secret: Secret<32>, resume_time: Duration, limits: StoreLimits) -> Self {
        Self {
            id,
            secret,
            next: None,
            spent: VecDeque::new(),
            resume_time,
            ledger: Ledger::new(limits),
            expires: None,
        }
    }

    /// A fresh one, as the responder makes it.
    pub(crate) fn fresh(resume_time: Duration, limits: StoreLimits, ids: &mut IdSource) -> Self {
        Self::new(SessionId::from_bytes(ids.bytes()), Secret::new(ids.bytes()), resume_time, limits)
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// The link is gone, since now or since before.
    pub(crate) fn detach(&mut self, now: Instant) {
        self.expires.get_or_insert(now + self.resume_time);
        self.ledger.hush();
    }

    /// What the initiator says in an offer, to go on.
    pub(crate) fn offer(&self, offer: Id) -> ResumeOffer {
        let proof = resume_proof(&self.secret, self.id, offer);
        ResumeOffer::new(self.id, self.ledger.handled(), proof)
    }

    /// Whether an offer comes from who had the session, and for the first time. A wrong proof takes the same time in any case
    /// (§9.6).
    pub(crate) fn verify(&mut self, offer: &ResumeOffer, offer_id: Id) -> bool {
        let next = self.next.as_ref().map_or(&self.secret, |(_, next)| next);
        let has_next = is_resume_proof(next, self.id, offer_id, &offer.proof);
        let has_old = is_resume_proof(&self.secret, self.id, offer_id, &offer.proof);
        let is_same = (offer.session == self.id) & (has_next | has_old);
        // Who only repeats what was seen could end the session by a count, or confirm in the place of its owner.
        if !is_same || self.spent.contains(&offer_id) {
            return false;
        }
        if has_next {
            self.confirm();
        }
        if self.spent.len() >= SPENT {
            self.spent.pop_front();
        }
        self.spent.push_back(offer_id);
        true
    }

    /// What the responder grants for a link: for a resumed session with what leads to a fresh secret, which is the same until
    /// it is known that the initiator has it.
    pub(crate) fn grant(&mut self, resumed: bool, ids: &mut IdSource) -> SessionGrant {
        let secret = match resumed {
            true => {
                let now = &self.secret;
                let (salt, _) = self.next.get_or_insert_with(|| {
                    let salt = Secret::new(ids.bytes());
                    let next = next_secret(now, &salt);
                    (salt, next)
                });
                salt
            }
            false => &self.secret,
        };
        let resume_ms = u64::try_from(self.resume_time.as_millis()).unwrap_or(u64::MAX);
        SessionGrant { id: self.id, resume_ms, secret: Some(secret.clone()), auth_expires_ms: None }
    }

    /// The responder knows that the initiator has the newest secret.
    pub(crate) fn confirm(&mut self) {
        if let Some((_, next)) = self.next.take() {
            self.secret = next;
            // Proofs of the one before are wrong from now on.
            self.spent = VecDeque::new();
        }
    }

    /// The initiator got an answer that leads to a fresh secret.
    pub(crate) fn renew(&mut self, salt: &Secret<32>, resume_time: Duration) {
        (self.secret, self.resume_time) = (next_secret(&self.secret, salt), resume_time);
    }
}

/// Verifies a proof against a secret that nobody has: so that a session that is not known takes as long as a wrong proof
/// (§9.9).
pub(crate) fn verify_in_vain(offer: &ResumeOffer, offer_id: Id, ids: &mut IdSource) {
    let secret = Secret::new(ids.bytes());
    let mut session = Session::new(offer.session, secret, Duration::ZERO, StoreLimits::new(0, 0));
    let _never: bool = session.verify(offer, offer_id);
}
