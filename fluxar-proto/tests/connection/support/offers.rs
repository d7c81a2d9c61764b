//! Offers and answers of scripts, and what an incoming link makes of them.

use bytes::BytesMut;
use fluxar_proto::message::Kind;
use fluxar_proto::{ConnectionError, Incoming, Instant, Offered, Progress, TransmitBuf};

use super::{Msg, Script, cbor, config, id, ids, one};

/// What an incoming link makes of `input`: the offer, or the error and what the peer is told.
pub(crate) fn incoming(input: &[u8]) -> Result<Box<Offered>, (ConnectionError, Vec<Msg>)> {
    let mut out = TransmitBuf::new();
    let incoming = Incoming::new(config(|_| ()), Instant::ZERO, ids(2));
    match incoming.handle_input(Instant::ZERO, &mut BytesMut::from(input), &mut out) {
        Ok(Progress::Offered(offered)) => Ok(offered),
        Ok(Progress::More(_)) => panic!("the frame is not whole"),
        Err(error) => Err((error, sent(&out))),
    }
}

pub(crate) fn sent(out: &TransmitBuf) -> Vec<Msg> {
    Msg::decode_all(&out.segments().flatten().copied().collect::<Vec<u8>>())
}

pub(crate) fn offer() -> Msg {
    offer_with(cbor(|out| out.map(1)?.str("versions")?.array(1)?.u8(1)?.ok()))
}

pub(crate) fn offer_with(payload: Vec<u8>) -> Msg {
    Msg::bare(Kind::Hello, id(0)).payload(payload)
}

/// The answer of the script to the offer of the connection.
pub(crate) fn answer(script: &mut Script) -> Msg {
    let offer = one(script.read());
    Msg::continuation(Kind::Hello, id(0), offer.id)
        .payload(cbor(|out| out.map(1)?.str("version")?.u8(1)?.ok()))
}
