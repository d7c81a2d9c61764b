//! Handshakes with proofs, and somebody in between, or at the other end, who sends what he likes.

use bytes::BytesMut;
use fluxar_proto::frame::PREFIX_LEN;
use fluxar_proto::message::Kind;
use fluxar_proto::{
    Ask, Auth, Code, ConnectionError, Dial, Event, Incoming, Instant, Offered, Progress, ProofProgress,
    Proving, Psk, PskKey, TransmitBuf,
};

use crate::support::rounds::{asked, asking, challenge, drained, offered_to, plain_offer, proof};
use crate::support::{Msg, Script, TestRng, cbor, config, id, ids, is_close, one};

const KEY: [u8; 32] = [7; 32];

fn with_key() -> Dial {
    Dial { psk: Some(Psk::new("site-7", KEY)), ..Dial::default() }
}

/// A handshake with a key over a wire on which one bit of the offer or of the first answer is turned over: whether the
/// responder, and the initiator, believe in it.
fn tampered(of_offer: bool, byte: usize, bit: u8) -> Option<(bool, bool)> {
    let mut client = Script::dialled(&config(|c| c.agent = None), with_key());
    let turn = |frame: &mut Vec<u8>| frame.get_mut(PREFIX_LEN + byte).map(|byte| *byte ^= 1 << bit);
    let mut offer = client.read_bytes();
    if of_offer {
        turn(&mut offer)?;
    }
    let incoming = Incoming::new(config(|_| ()), Instant::ZERO, ids(2));
    let (mut input, mut out) = (BytesMut::from(&offer[..]), TransmitBuf::new());
    let Ok(Progress::Offered(offered)) = incoming.handle_input(Instant::ZERO, &mut input, &mut out) else {
        return Some((false, false));
    };
    let ask = Ask { psk: Some(PskKey::new(KEY)), ..Ask::default() };
    let Ok(proving) = offered.ask(Instant::ZERO, ask, &mut out) else { return Some((false, false)) };
    let mut answer = drained(&mut out);
    if !of_offer {
        turn(&mut answer)?;
    }
    client.send_bytes(&answer).ok();
    let mut proof = BytesMut::from(&client.read_bytes()[..]);
    match proving.handle_input(Instant::ZERO, &mut proof, &mut out) {
        Ok(ProofProgress::Offered(offered)) => {
            let mut server = Script::over(offered.accept(Instant::ZERO));
            client.send_bytes(&server.read_bytes()).ok();
        }
        Ok(ProofProgress::More(_)) => {
            return Some((false, client.connection.peer().is_some()));
        }
        Err(_) => {
            client.send_bytes(&drained(&mut out)).ok();
            return Some((false, client.connection.peer().is_some()));
        }
    }
    Some((true, client.connection.peer().is_some()))
}

// spec: §6.12
// spec: §7.3
#[test]
fn no_bit_of_offer_or_first_answer_can_be_changed_where_a_key_is_held() {
    let mut turned = 0;
    for of_offer in [true, false] {
        for byte in 0.. {
            let Some(verdict) = tampered(of_offer, byte, (byte % 8) as u8) else { break };
            assert_eq!(verdict, (false, false), "byte {byte} of the offer: {of_offer}");
            turned += 1;
        }
    }
    assert!(turned > 200, "{turned}");
    assert_eq!(tampered(true, usize::MAX - PREFIX_LEN, 0), None);
}

/// A responder that has asked, for all that there is.
fn demanding() -> (Proving, Msg) {
    let value = cbor(|out| out.map(2)?.str("id")?.str("a")?.str("nonce")?.bytes(&[1; 32])?.ok());
    let payload = crate::support::rounds::offer_payload("psk", &value);
    let offered = offered_to(&config(|_| ()), &crate::support::offer_with(payload).frame());
    asked(*offered, Ask { psk: Some(PskKey::new(KEY)), ..challenge(1) })
}

fn mutated(frame: &mut Vec<u8>, rng: &mut TestRng) {
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(frame.len());
        match rng.below(4) {
            0 => frame[at] ^= 1 << rng.below(8),
            1 => frame[at] = rng.word() as u8,
            2 => drop(frame.remove(at)),
            _ => frame.insert(at, rng.word() as u8),
        }
    }
}

/// What the peer is told has to fit the error.
fn check_told(error: &ConnectionError, told: &[u8]) {
    let told = Msg::decode_all(told);
    match error {
        ConnectionError::ClosedByPeer(_) => assert!(told.is_empty()),
        ConnectionError::Psk(_) => {
            let refusal = one(told);
            assert_eq!((refusal.kind, refusal.code()), (Kind::Hello, Code::UNAUTHENTICATED));
        }
        error => assert!(is_close(&one(told), Some(error.code())), "{error:?}"),
    }
}

// spec: §6.10
// spec: §6.14
// spec: §17.2
#[test]
fn a_responder_survives_whatever_comes_instead_of_a_proof() {
    let mut rng = TestRng::new(11);
    let payload = cbor(|out| {
        out.map(2)?.str("psk")?.map(1)?.str("proof")?.bytes(&[3; 32])?;
        out.str("auth")?
            .map(3)?
            .str("scheme")?
            .str("custom")?
            .str("name")?
            .str("x")?
            .str("data")?
            .null()?
            .ok()
    });
    let (mut proofs, mut errors) = (0, 0);
    for round in 0..3_000 {
        // Without a demand, some of them are as good as any.
        let (proving, answer) =
            if round % 2 == 0 { demanding() } else { asked(*plain_offer(), Ask::default()) };
        let mut frame = proof(&answer, id(1), payload.clone()).frame();
        mutated(&mut frame, &mut rng);
        let (mut input, mut out) = (BytesMut::from(&frame[..]), TransmitBuf::new());
        match proving.handle_input(Instant::ZERO, &mut input, &mut out) {
            Ok(ProofProgress::More(mut waiting)) => {
                assert!(waiting.handle_timeout(Instant::ZERO, &mut out).is_ok() && out.is_empty());
            }
            Ok(ProofProgress::Offered(offered)) => {
                assert_eq!(round % 2, 1, "nobody has the key");
                proofs += 1;
                check_accepted(*offered);
            }
            Err(error) => {
                errors += 1;
                check_told(&error, &drained(&mut out));
            }
        }
    }
    assert!(proofs > 100 && errors > 1_000, "{proofs}, {errors}");
}

fn check_accepted(offered: Offered) {
    let mut server = Script::over(offered.accept(Instant::ZERO));
    assert!(matches!(server.events()[..], [Event::Established]));
    assert_eq!(one(server.read()).kind, Kind::Hello);
}

// spec: §6.10
// spec: §6.13
// spec: §17.2
#[test]
fn an_initiator_survives_whatever_comes_instead_of_an_answer() {
    let mut rng = TestRng::new(12);
    let first = |psk: bool| {
        cbor(|out| {
            out.map(3 + u64::from(psk))?.str("version")?.u8(1)?.str("next")?.str("proof")?;
            if psk {
                out.str("psk")?.map(1)?.str("nonce")?.bytes(&[5; 32])?;
            }
            out.str("challenge")?.array(1)?.u8(1)?.ok()
        })
    };
    let (mut lived, mut ended) = (0, 0);
    for round in 0..3_000 {
        let psk = round % 2 == 0;
        let mut dial = if psk { with_key() } else { Dial::default() };
        (dial.confidential, dial.auth) = (true, Some(Auth::custom("x", crate::support::uint(1))));
        let mut client = Script::dialled(&config(|_| ()), dial);
        let mut hello = one(client.read());
        for step in 0..3 {
            let payload = match step {
                0 => first(psk),
                1 => asking(false, Some(2)),
                _ => vec![0xa0],
            };
            let mut frame = Msg::continuation(Kind::Hello, client.id(), hello.id).payload(payload).frame();
            if rng.below(3) == 0 {
                mutated(&mut frame, &mut rng);
            }
            if let Err(error) = client.send_bytes(&frame) {
                assert_eq!(client.connection.error(), Some(&error));
                match error {
                    ConnectionError::ClosedByPeer(_) | ConnectionError::Refused(_) => {}
                    error => assert!(is_close(&one(client.read()), Some(error.code())), "{error:?}"),
                }
                assert!(client.connection.is_closed());
                break;
            }
            client.connection.prove(Instant::ZERO, Some(Auth::custom("x", crate::support::uint(2)))).unwrap();
            match client.read().pop() {
                Some(proof) => hello = proof,
                None => break,
            }
        }
        let established = client.events().iter().any(|event| matches!(event, Event::Established));
        assert!(!(established && psk), "the responder has never proven the key");
        if established { lived += 1 } else { ended += 1 }
    }
    assert!(lived > 300 && ended > 1_500, "{lived}, {ended}");
}
