//! The initiator's side of a handshake: its offer, the answers, and the proofs that they ask for (§6.10 to §6.13).

use alloc::boxed::Box;
use alloc::sync::Arc;

use zeroize::Zeroizing;

use super::{Config, Connection, Event, State};
use crate::frame;
use crate::message::{Envelope, Error, Id, Kind, Payload, verb};
use crate::pattern::{Outgoing, Target};
use crate::session::{
    Answer, Asked, Auth, Bytes32, ConnectionError, IdSource, LastOrNext, LaterAnswer, MAX_NAME, Offer, Proof,
    Prover, Psk, PskError, ResumeOffer, SessionGrant, Transcript, Violation, is_psk_proof, psk_proof,
};
use crate::time::Instant;

/// So many proofs are there in a handshake, at most (§6.10).
pub(super) const MAX_PROOFS: u8 = 4;

/// What an initiator goes by in the handshake of one link.
#[derive(Clone, Debug, Default)]
pub struct Dial {
    /// Whether nobody can listen on the transport: TLS, a Unix socket, a loopback address. Elsewhere credentials stay here,
    /// unless [`Config::clear_auth`] says otherwise (§6.11).
    pub confidential: bool,
    /// The credentials to be let in with.
    pub auth: Option<Auth>,
    /// The key that the responder has to hold too (§6.12).
    pub psk: Option<Psk>,
}

impl Dial {
    /// On a transport that is confidential, without credentials so far.
    pub fn confidential() -> Self {
        Self { confidential: true, ..Self::default() }
    }

    fn check(&self, config: &Config) -> Result<(), ConnectionError> {
        if self.auth.is_some() && !self.confidential && !config.clear_auth {
            return Err(ConnectionError::AuthInClear);
        }
        if self.psk.as_ref().is_some_and(|psk| psk.id().len() > MAX_NAME) {
            return Err(ConnectionError::HelloTooLarge);
        }
        Ok(())
    }
}

/// What an initiator remembers from its offer until it is established.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The message that the next answer must name; none while the application is asked for a proof.
    awaited: Option<Id>,
    /// The answer that asks for the next proof.
    asks: Option<Id>,
    asked: Asked,
    /// How many proofs there have been.
    proofs: u8,
    /// Credentials that were not sent so far.
    auth: Option<Auth>,
    /// Whether challenges are for the application.
    is_custom: bool,
    psk: Option<PskSide>,
    /// What the first answer has decided.
    agreed: Option<Answer>,
}

/// The pre-shared key of a handshake. With encryption it would enter the keys as well, which are derived from the same
/// transcript (§7.4).
#[derive(Debug)]
struct PskSide {
    psk: Psk,
    transcript: Transcript,
}

/// What an answer leads to.
enum Step {
    /// One more proof is asked for.
    Prove { challenge: Option<Payload> },
    /// That was the last one.
    Done { agreed: Box<Answer>, session: Option<SessionGrant> },
}

impl Handshake {
    /// The beginning, and the offer to be sent. `resume` adds to it what is to go on; `hold` keeps the credentials back
    /// until they are asked for.
    ///
    /// # Errors
    ///
    /// What must not be sent, or cannot.
    pub(super) fn start(
        config: &Config,
        ids: &mut IdSource,
        now: Instant,
        dial: Dial,
        hold: bool,
        resume: impl FnOnce(Id) -> Option<ResumeOffer>,
    ) -> Result<(Self, Outgoing), ConnectionError> {
        dial.check(config)?;
        let id = ids.next(now);
        let mut offer = Offer::new(config.agent(), config.features(), config.limits());
        offer.resume = resume(id);
        let Dial { mut auth, psk, .. } = dial;
        let is_custom = auth.as_ref().is_some_and(Auth::is_custom);
        if !hold {
            offer.auth = auth.take();
        }
        if let Some(psk) = &psk {
            offer = offer.with_psk(psk.id().into(), ids.bytes());
        }
        let asked = Asked { psk: psk.is_some(), resume: offer.resume.is_some() };
        let message = Outgoing::new(Kind::Hello, id, None, Target::Null).with_payload(offer.encode());
        check_size(&message)?;
        let psk = psk.map(|psk| {
            let mut transcript = Transcript::new();
            transcript.add(&body_of(&message));
            PskSide { psk, transcript }
        });
        let handshake =
            Self { awaited: Some(id), asks: None, asked, proofs: 0, auth, is_custom, psk, agreed: None };
        Ok((handshake, message))
    }

    /// Whether nothing but the offer was to be sent so far.
    pub(super) fn is_first(&self) -> bool {
        self.proofs == 0
    }

    /// Takes an answer, which is the frame `body`.
    fn take(
        &mut self,
        envelope: &Envelope<'_>,
        body: &[u8],
        config: &Config,
    ) -> Result<Step, ConnectionError> {
        if self.awaited.is_none() || envelope.reference != self.awaited || envelope.target.is_some() {
            return Err(Violation::WrongAnswer.into());
        }
        if let Some(error) = &envelope.error {
            return Err(ConnectionError::Refused(Error::from(*error)));
        }
        let (last, proof) = match self.agreed {
            None => (self.take_first(envelope, body, config)?, None),
            Some(_) => {
                let later = LaterAnswer::decode(envelope.payload)?;
                (later.last, later.psk)
            }
        };
        if last.next {
            if self.proofs >= MAX_PROOFS {
                return Err(Violation::TooManyProofs.into());
            }
            (self.awaited, self.asks) = (None, Some(envelope.id));
            return Ok(Step::Prove { challenge: last.challenge });
        }
        if let Some(side) = &self.psk {
            side.verify(proof)?;
        }
        let agreed = self.agreed.take().ok_or(Violation::WrongAnswer)?;
        Ok(Step::Done { agreed: Box::new(agreed), session: last.session })
    }

    fn take_first(
        &mut self,
        envelope: &Envelope<'_>,
        body: &[u8],
        config: &Config,
    ) -> Result<LastOrNext, ConnectionError> {
        let mut answer = Answer::decode(envelope.payload, self.asked)?;
        if !answer.fits(&config.features()) {
            return Err(Violation::WrongAnswer.into());
        }
        if let Some(side) = &mut self.psk {
            if answer.psk.is_none() {
                return Err(PskError::Declined.into());
            }
            side.transcript.add(body);
        }
        let last = core::mem::take(&mut answer.last);
        self.agreed = Some(answer);
        Ok(last)
    }

    /// The proof that was asked for, with these credentials, or with those that were held back. None where none was.
    fn prove(&mut self, now: Instant, ids: &mut IdSource, auth: Option<Auth>) -> Option<Outgoing> {
        let asks = self.asks?;
        // The key is proven once, at the first opportunity (§6.12).
        let psk = self.psk.as_ref().filter(|_| self.proofs == 0).map(PskSide::prove);
        let proof = Proof { auth: auth.or_else(|| self.auth.take()), psk };
        let id = ids.next(now);
        let target = Target::Verb(verb::PROOF);
        let message = Outgoing::new(Kind::Hello, id, Some(asks), target).with_payload(proof.encode());
        (self.awaited, self.asks) = (Some(id), None);
        self.proofs += 1;
        Some(message)
    }
}

impl PskSide {
    fn prove(&self) -> Bytes32 {
        psk_proof(self.psk.key().as_bytes(), Prover::Initiator, &self.transcript.hash())
    }

    /// The responder has to hold the key too.
    fn verify(&self, proof: Option<Bytes32>) -> Result<(), PskError> {
        let proof = proof.ok_or(PskError::Missing)?;
        let key = self.psk.key().as_bytes();
        let right = is_psk_proof(key, Prover::Responder, &self.transcript.hash(), &proof);
        if right { Ok(()) } else { Err(PskError::Wrong) }
    }
}

impl Connection {
    /// The initiator's side of a new link, with what that link goes by: its first message is the offer.
    ///
    /// # Errors
    ///
    /// What the dial holds must not be sent over such a transport, or cannot; nothing was sent.
    pub fn initiate_with(
        config: Arc<Config>,
        now: Instant,
        ids: IdSource,
        dial: Dial,
    ) -> Result<Self, ConnectionError> {
        let mut connection = Self::waiting(config, now, ids);
        connection.offer(now, dial)?;
        Ok(connection)
    }

    /// Answers a [`Challenge`](Event::Challenge): with credentials, or with none, so that the responder has to do
    /// with what it has. Whether there was one to answer.
    ///
    /// # Errors
    ///
    /// The credentials are too large for a proof. The challenge still waits for its answer.
    pub fn prove(&mut self, now: Instant, auth: Option<Auth>) -> Result<bool, ConnectionError> {
        let State::Offering { handshake, .. } = &mut self.state else { return Ok(false) };
        if let Some(auth) = &auth {
            // Checked ahead: a proof is made but once.
            let probe = Outgoing::new(Kind::Hello, Id::from_bytes([0; Id::LEN]), None, Target::Null);
            check_size(&probe.with_payload(Proof { auth: Some(auth.clone()), psk: Some([0; 32]) }.encode()))?;
        }
        let proof = handshake.prove(now, &mut self.ids, auth);
        let proves = proof.is_some();
        self.hello = proof.or_else(|| self.hello.take());
        Ok(proves)
    }

    /// Handles an answer, which is the frame `body`.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        body: &[u8],
    ) -> Result<(), ConnectionError> {
        let State::Offering { handshake, .. } = &mut self.state else {
            return Err(Violation::HelloRepeated.into());
        };
        // Nobody can answer what was not sent.
        if self.hello.is_some() {
            return Err(Violation::WrongAnswer.into());
        }
        match handshake.take(envelope, body, &self.config)? {
            Step::Prove { challenge: Some(challenge) } if handshake.is_custom => {
                self.events.push_back(Event::Challenge { challenge });
            }
            Step::Prove { .. } => self.hello = handshake.prove(now, &mut self.ids, None),
            Step::Done { agreed, session } => return self.begin_session(now, *agreed, session),
        }
        Ok(())
    }
}

/// Until it is established a side takes no more than this (§3.3).
pub(super) fn check_size(hello: &Outgoing) -> Result<(), ConnectionError> {
    if hello.encoded_len() > frame::HANDSHAKE_LIMIT as usize {
        return Err(ConnectionError::HelloTooLarge);
    }
    Ok(())
}

/// The frame body that a message makes. It may hold secrets.
pub(super) fn body_of(message: &Outgoing) -> Zeroizing<alloc::vec::Vec<u8>> {
    let mut body = Zeroizing::new(alloc::vec::Vec::with_capacity(message.encoded_len()));
    let encoded = message.with_envelope(|envelope| envelope.encode(&mut *body));
    debug_assert!(matches!(encoded, Ok(Ok(()))), "a hello has no metadata, and a vector takes all");
    body
}
