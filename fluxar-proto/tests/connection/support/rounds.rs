//! Both sides of a handshake with proofs, step by step.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use fluxar_proto::message::{Id, Kind, verb};
use fluxar_proto::{
    Ask, Config, Connection, ConnectionError, Dial, Incoming, Instant, Offered, Payload, Progress,
    ProofProgress, Proving, TransmitBuf,
};

use super::{Msg, Script, cbor, config, ids, offer_with};

/// The payload of an offer with one more key.
pub(crate) fn offer_payload(key: &str, value: &[u8]) -> Vec<u8> {
    cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?.str(key)?;
        out.writer_mut().extend_from_slice(value);
        Ok(())
    })
}

/// What an incoming link with these settings makes of one frame.
pub(crate) fn offered_to(config: &Arc<Config>, frame: &[u8]) -> Box<Offered> {
    let incoming = Incoming::new(config.clone(), Instant::ZERO, ids(2));
    let mut input = BytesMut::from(frame);
    match incoming.handle_input(Instant::ZERO, &mut input, &mut TransmitBuf::new()) {
        Ok(Progress::Offered(offered)) => offered,
        other => panic!("no offer: {other:?}"),
    }
}

/// An offer of a script that holds nothing but its version.
pub(crate) fn plain_offer() -> Box<Offered> {
    let payload = cbor(|out| out.map(1)?.str("versions")?.array(1)?.u8(1)?.ok());
    offered_to(&config(|_| ()), &offer_with(payload).frame())
}

/// The bytes in a buffer, which is empty then.
pub(crate) fn drained(out: &mut TransmitBuf) -> Vec<u8> {
    let bytes = out.segments().flatten().copied().collect();
    out.advance(out.remaining());
    bytes
}

/// A responder that has asked, and the answer that does so.
pub(crate) fn asked(offered: Offered, ask: Ask) -> (Proving, Msg) {
    let mut out = TransmitBuf::new();
    let proving = offered.ask(Instant::ZERO, ask, &mut out).unwrap();
    let answer = super::one(Msg::decode_all(&drained(&mut out)));
    (proving, answer)
}

/// A proof in answer to `answer`.
pub(crate) fn proof(answer: &Msg, id: Id, payload: Vec<u8>) -> Msg {
    Msg::continuation(Kind::Hello, id, answer.id).verb(verb::PROOF).payload(payload)
}

pub(crate) fn empty_map() -> Vec<u8> {
    vec![0xa0]
}

pub(crate) fn challenge(n: u8) -> Ask {
    Ask { challenge: Some(Payload::new(vec![n].into()).unwrap()), psk: None }
}

/// What a responder makes of a proof: the offer again, or the error and what the peer is told.
pub(crate) fn proven(proving: Proving, frame: &[u8]) -> Result<Box<Offered>, (ConnectionError, Vec<Msg>)> {
    let (mut input, mut out) = (BytesMut::from(frame), TransmitBuf::new());
    match proving.handle_input(Instant::ZERO, &mut input, &mut out) {
        Ok(ProofProgress::Offered(offered)) => {
            assert!(input.is_empty() && out.is_empty());
            Ok(offered)
        }
        Ok(ProofProgress::More(_)) => panic!("the proof is not whole"),
        Err(error) => Err((error, Msg::decode_all(&drained(&mut out)))),
    }
}

impl Script {
    /// The connection initiates with what the dial holds.
    pub(crate) fn dialled(config: &Arc<Config>, dial: Dial) -> Self {
        Self::over(Connection::initiate_with(config.clone(), Instant::ZERO, ids(1), dial).unwrap())
    }

    /// Answers `hello` of the connection with such a payload; the answer.
    pub(crate) fn answer(&mut self, hello: &Msg, payload: Vec<u8>) -> (Msg, Result<(), ConnectionError>) {
        let answer = Msg::continuation(Kind::Hello, self.id(), hello.id).payload(payload);
        (answer.clone(), self.send(answer))
    }
}

/// The payload of an answer that asks for a proof; `first` says whether it is the first one.
pub(crate) fn asking(first: bool, challenge: Option<u8>) -> Vec<u8> {
    cbor(|out| {
        out.map(1 + u64::from(first) + u64::from(challenge.is_some()))?;
        if first {
            out.str("version")?.u8(1)?;
        }
        if let Some(challenge) = challenge {
            out.str("challenge")?.u8(challenge)?;
        }
        out.str("next")?.str("proof")?.ok()
    })
}
