//! A responder that has asked for a proof (§6.10, §6.14).

use alloc::boxed::Box;

use bytes::BytesMut;

use super::TransmitBuf;
use super::incoming::tell;
use super::offered::Offered;
use super::receive::is_close;
use crate::frame;
use crate::message::{Envelope, Error, Id, Kind, verb};
use crate::session::{ConnectionError, Proof, Violation};
use crate::time::Instant;

/// The responder's side of a link, between an answer that asks for a proof and the proof.
///
/// ```text
///                ask                      proof
///  Offered -------------> Proving ---------------------> Offered
///                            | bad input, a wrong proof of
///                            | a key, time-out
///                            +----> error; what the peer is told of it, in a TransmitBuf
/// ```
#[derive(Debug)]
pub struct Proving {
    offered: Box<Offered>,
    /// The answer that asks.
    answer: Id,
    /// With a challenge.
    challenged: bool,
}

/// How far a round of proving has come.
#[derive(Debug)]
pub enum ProofProgress {
    /// The proof is not whole yet.
    More(Proving),
    /// The proof is there, and the offer waits for a verdict again.
    Offered(Box<Offered>),
}

impl Proving {
    pub(super) fn new(offered: Offered, answer: Id, challenged: bool) -> Self {
        Self { offered: Box::new(offered), answer, challenged }
    }

    /// When the handshake must be done, all verdicts included.
    pub fn deadline(&self) -> Instant {
        self.offered.deadline()
    }

    /// The deadline has passed.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ConnectionError::TimedOut) once it has; the link is over then, as with
    /// [`handle_input`](Self::handle_input).
    pub fn handle_timeout(&mut self, now: Instant, out: &mut TransmitBuf) -> Result<(), ConnectionError> {
        self.offered.handle_timeout(now, out)
    }

    /// Takes the proof from `input`, once it is whole; what follows it stays there. A pre-shared key that was asked for is
    /// verified here, credentials are for the application to judge.
    ///
    /// # Errors
    ///
    /// The link is over; `out` then holds what the peer is to be told before the transport is closed.
    pub fn handle_input(
        self,
        now: Instant,
        input: &mut BytesMut,
        out: &mut TransmitBuf,
    ) -> Result<ProofProgress, ConnectionError> {
        let len = match frame::split(input, frame::HANDSHAKE_LIMIT) {
            Ok(None) => return Ok(ProofProgress::More(self)),
            Ok(Some(len)) => len,
            Err(error) => return Err(self.fail(error.into(), now, out)),
        };
        let frame = input.split_to(frame::PREFIX_LEN + len);
        let (id, proof) = match self.read(frame.get(frame::PREFIX_LEN..).unwrap_or_default()) {
            Ok(proof) => proof,
            Err(error) => return Err(self.fail(error, now, out)),
        };
        let Self { mut offered, challenged, .. } = self;
        offered.note_proof(id, proof.auth, challenged);
        if let Err(error) = offered.verify(proof.psk) {
            // The same words for a wrong proof and for a key that nobody knows (§6.12).
            offered.refuse(now, Error::unauthenticated("no proof of the pre-shared key"), out);
            return Err(error.into());
        }
        Ok(ProofProgress::Offered(offered))
    }

    /// The proof in a frame, and its id.
    fn read(&self, body: &[u8]) -> Result<(Id, Proof), ConnectionError> {
        let envelope = Envelope::decode(body)?;
        if is_close(&envelope) {
            return Err(ConnectionError::ClosedByPeer(envelope.error.map(Error::from)));
        }
        let is_proof = envelope.kind == Kind::Hello
            && envelope.reference == Some(self.answer)
            && envelope.target == Some(verb::PROOF);
        if !is_proof {
            return Err(Violation::ProofExpected.into());
        }
        if envelope.error.is_some() {
            return Err(Violation::MisplacedError.into());
        }
        Ok((envelope.id, Proof::decode(envelope.payload)?))
    }

    fn fail(mut self, error: ConnectionError, now: Instant, out: &mut TransmitBuf) -> ConnectionError {
        tell(&error, self.offered.next_id(now), out);
        error
    }
}
