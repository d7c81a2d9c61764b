//! Keys that both sides hold, and the proofs that are made with them (§6.12, §7.3, §9.5).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::hello::SessionId;
use super::ids::IdSource;
use super::secret::Secret;
use crate::message::Id;

/// The length of a proof, of a nonce and of a hash, in bytes.
pub(crate) const PROOF_LEN: usize = 32;

/// A proof, a nonce, or a hash.
pub(crate) type Bytes32 = [u8; PROOF_LEN];

/// A pre-shared key of an initiator: what the responder must hold too, or it is left (§6.12).
#[derive(Clone)]
pub struct Psk {
    id: String,
    key: PskKey,
}

impl Psk {
    /// The key whose name is `id`, at most 255 bytes. It should be at least 16 random bytes; it is not a password.
    #[must_use]
    pub fn new(id: impl Into<String>, key: impl Into<Vec<u8>>) -> Self {
        Self { id: id.into(), key: PskKey::new(key) }
    }

    /// The name of the key. It is sent in clear.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key itself.
    #[must_use]
    pub fn key(&self) -> &PskKey {
        &self.key
    }
}

/// Shows the name of the key alone.
impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Psk").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a responder holds for the name of a pre-shared key that an offer names: the key, or none (§6.12).
#[derive(Clone)]
pub struct PskKey(Option<Zeroizing<Vec<u8>>>);

impl PskKey {
    /// The key.
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self(Some(Zeroizing::new(key.into())))
    }

    /// There is no key of that name. The handshake goes on as if there were one, and fails at the proof: from outside an
    /// unknown name looks like a wrong key.
    #[must_use]
    pub const fn unknown() -> Self {
        Self(None)
    }

    /// A key in any case: a random one where there is none.
    pub(crate) fn or_random(self, ids: &mut IdSource) -> (Self, bool) {
        // It is made where there is a key too, so that both take the same time.
        let random = Self::new(ids.bytes::<PROOF_LEN>());
        let known = self.0.is_some();
        (if known { self } else { random }, known)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

/// Shows nothing of it.
impl fmt::Debug for PskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PskKey")
    }
}

/// The transcript hash in the making: over the frame bodies of the offer and of the first answer, as they were sent (§7.3).
#[derive(Clone)]
pub(crate) struct Transcript(Sha256);

impl Transcript {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds one frame body.
    pub(crate) fn add(&mut self, body: &[u8]) {
        self.0.update(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.update(body);
    }

    pub(crate) fn hash(&self) -> Bytes32 {
        self.0.clone().finalize().into()
    }
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transcript")
    }
}

/// Whose proof it is, as it enters the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prover {
    Initiator,
    Responder,
}

impl Prover {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Initiator => b"fluxar psk initiator",
            Self::Responder => b"fluxar psk responder",
        }
    }
}

/// The proof that `prover` holds the key (§6.12).
pub(crate) fn psk_proof(key: &[u8], prover: Prover, transcript: &Bytes32) -> Bytes32 {
    mac(key, &[prover.label(), transcript]).finalize().into_bytes().into()
}

/// Whether it is that proof, in constant time.
pub(crate) fn is_psk_proof(key: &[u8], prover: Prover, transcript: &Bytes32, proof: &Bytes32) -> bool {
    mac(key, &[prover.label(), transcript]).verify_slice(proof).is_ok()
}

/// The proof of an offer that it comes from who had the session (§9.5).
pub(crate) fn resume_proof(secret: &Secret<32>, session: SessionId, offer: Id) -> Bytes32 {
    resume_mac(secret, session, offer).finalize().into_bytes().into()
}

/// Whether it is that proof, in constant time.
pub(crate) fn is_resume_proof(secret: &Secret<32>, session: SessionId, offer: Id, proof: &Bytes32) -> bool {
    resume_mac(secret, session, offer).verify_slice(proof).is_ok()
}

/// The secret of a session that goes on, from the one before and what the answer says (§9.6).
pub(crate) fn next_secret(secret: &Secret<32>, salt: &Secret<32>) -> Secret<32> {
    Secret::new(mac(secret.as_bytes(), &[b"fluxar resumed", salt.as_bytes()]).finalize().into_bytes().into())
}

fn resume_mac(secret: &Secret<32>, session: SessionId, offer: Id) -> Hmac<Sha256> {
    mac(secret.as_bytes(), &[b"fluxar resume", session.as_bytes(), offer.as_bytes()])
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of every length")
    };
    for part in parts {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::super::hello::tests::example;
    use super::*;

    fn hex<const N: usize>(digits: &str) -> [u8; N] {
        assert_eq!(digits.len(), 2 * N);
        core::array::from_fn(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).unwrap())
    }

    /// A value of the vectors of the specification.
    fn vector<const N: usize>(block: &str, name: &str) -> [u8; N] {
        let text = include_str!("../../../SPEC.md");
        let mut lines = text.lines().skip_while(|line| line.strip_prefix("```vector ") != Some(block));
        let line =
            lines.find(|line| line.strip_prefix(name).is_some_and(|rest| rest.trim().starts_with('=')));
        hex(line.unwrap().split('=').nth(1).unwrap().trim())
    }

    // spec: §6.12
    // spec: §19.7
    #[test]
    fn the_proofs_of_a_pre_shared_key_are_those_of_the_specification() {
        let (key, transcript) = (vector::<32>("psk", "psk"), vector("psk", "T"));
        for (prover, name) in [(Prover::Initiator, "initiator proof"), (Prover::Responder, "responder proof")]
        {
            let proof = vector("psk", name);
            assert_eq!(psk_proof(&key, prover, &transcript), proof);
            assert!(is_psk_proof(&key, prover, &transcript, &proof));
            let other = if prover == Prover::Initiator { Prover::Responder } else { Prover::Initiator };
            assert!(
                !is_psk_proof(&key, other, &transcript, &proof),
                "a proof that is sent back proves nothing"
            );
            for byte in 0..PROOF_LEN {
                let mut wrong = proof;
                wrong[byte] ^= 1;
                assert!(!is_psk_proof(&key, prover, &transcript, &wrong));
            }
        }
    }

    // spec: §7.3
    // spec: §19.7
    #[test]
    fn the_transcript_is_over_the_bodies_of_offer_and_answer() {
        let mut transcript = Transcript::new();
        transcript.add(&example("offer-psk"));
        transcript.add(&example("answer-psk"));
        assert_eq!(transcript.hash(), vector("psk", "T"));
    }

    // spec: §9.5
    // spec: §19.7
    #[test]
    fn the_proof_of_a_resume_is_that_of_the_specification() {
        let secret = Secret::new(vector("resume-proof", "session secret"));
        let session = SessionId::from_bytes(vector("resume-proof", "session id"));
        let offer = Id::from_bytes(vector("resume-proof", "offer id"));
        let proof = vector("resume-proof", "proof");
        assert_eq!(resume_proof(&secret, session, offer), proof);
        assert!(is_resume_proof(&secret, session, offer, &proof));
        let mut other = *session.as_bytes();
        other[15] ^= 1;
        assert!(!is_resume_proof(&secret, SessionId::from_bytes(other), offer, &proof));
    }

    // spec: §9.6
    // spec: §19.7
    #[test]
    fn the_next_secret_of_a_session_is_that_of_the_specification() {
        let [secret, salt, next] =
            ["session secret", "secret", "next"].map(|name| Secret::new(vector("resume-next", name)));
        assert_eq!(next_secret(&secret, &salt), next);
    }

    // spec: §6.12
    #[test]
    fn where_there_is_no_key_a_fresh_one_takes_its_place() {
        use chacha20::ChaCha12Rng;
        use rand_core::SeedableRng;

        let mut ids = IdSource::new(0, ChaCha12Rng::from_seed([1; 32]));
        let (first, known) = PskKey::unknown().or_random(&mut ids);
        let (second, _) = PskKey::unknown().or_random(&mut ids);
        assert!(!known && first.as_bytes().len() == 32 && first.as_bytes() != second.as_bytes());
        let (key, known) = PskKey::new([7; 16]).or_random(&mut ids);
        assert!(known && key.as_bytes() == [7; 16]);
    }
}
