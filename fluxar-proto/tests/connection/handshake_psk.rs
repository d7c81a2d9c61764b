//! Pre-shared keys: each side proves to the other that it holds the same.

use fluxar_proto::message::Id;
use fluxar_proto::{
    Ask, Auth, Code, Connection, ConnectionError, Dial, Event, Instant, Offered, Proving, Psk, PskError,
    PskKey, Violation,
};
use hmac::{Hmac, KeyInit, Mac};
use minicbor::Decoder;
use sha2::{Digest, Sha256};

use crate::support::rounds::{
    asked, challenge, empty_map, offer_payload, offered_to, plain_offer, proof, proven,
};
use crate::support::{Msg, Script, TestRng, cbor, config, id, ids, incoming, is_close, offer_with, one};

const KEY: [u8; 16] = *b"sixteen bytes!!!";

fn dial() -> Dial {
    Dial { psk: Some(Psk::new("site-7", KEY)), ..Dial::default() }
}

fn key(key: PskKey) -> Ask {
    Ask { psk: Some(key), ..Ask::default() }
}

/// The transcript hash, and a proof, as a peer computes them that has nothing but the specification.
fn transcript(offer: &Msg, answer: &Msg) -> [u8; 32] {
    let mut hash = Sha256::new();
    for body in [offer.body(), answer.body()] {
        hash.update((body.len() as u32).to_be_bytes());
        hash.update(body);
    }
    hash.finalize().into()
}

fn mac(key: &[u8], whose: &str, offer: &Msg, answer: &Msg) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(b"fluxar psk ");
    mac.update(whose.as_bytes());
    mac.update(&transcript(offer, answer));
    mac.finalize().into_bytes().into()
}

/// A map of one `psk` with one byte string in it.
fn psk(name: &str, bytes: &[u8]) -> Vec<u8> {
    cbor(|out| out.map(1)?.str("psk")?.map(1)?.str(name)?.bytes(bytes)?.ok())
}

/// What a hello holds as `psk.NAME`, if anything.
fn psk_in(hello: &Msg, name: &str) -> Option<Vec<u8>> {
    let mut found = Decoder::new(&hello.payload);
    for _ in 0..found.map().unwrap().unwrap() {
        if found.str().unwrap() != "psk" {
            found.skip().unwrap();
            continue;
        }
        for _ in 0..found.map().unwrap().unwrap() {
            if found.str().unwrap() == name {
                return Some(found.bytes().unwrap().to_vec());
            }
            found.skip().unwrap();
        }
    }
    None
}

/// A script's offer that names a key, and the responder's answer to it.
fn offered(ask: Ask) -> (Msg, Proving, Msg) {
    let value = cbor(|out| out.map(2)?.str("id")?.str("site-7")?.str("nonce")?.bytes(&[7; 32])?.ok());
    let offer = offer_with(offer_payload("psk", &value));
    let offered = offered_to(&config(|_| ()), &offer.frame());
    assert_eq!(offered.offer().psk.as_deref(), Some("site-7"));
    let (proving, answer) = asked(*offered, ask);
    (offer, proving, answer)
}

// spec: §6.12
#[test]
fn both_sides_prove_that_they_hold_the_key() {
    let mut client = Script::dialled(&config(|_| ()), dial());
    let offer = one(client.read());
    let offered = offered_to(&config(|_| ()), &offer.frame());
    let (proving, answer) = asked(*offered, key(PskKey::new(KEY)));
    client.send(answer.clone()).unwrap();
    let proof = one(client.read());
    assert_eq!(psk_in(&proof, "proof").unwrap(), mac(&KEY, "initiator", &offer, &answer));
    let offered = proven(proving, &proof.frame()).unwrap();
    assert!(offered.has_proven_psk());
    let mut server = Script::over(offered.accept(Instant::ZERO));
    let last = one(server.read());
    assert_eq!(psk_in(&last, "proof").unwrap(), mac(&KEY, "responder", &offer, &answer));
    client.send(last).unwrap();
    assert!(matches!(client.events()[..], [Event::Established]));
}

// spec: §6.12
#[test]
fn nonces_are_fresh_and_32_bytes_long() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 1..4 {
        let connection = Connection::initiate_with(config(|_| ()), Instant::ZERO, ids(seed), dial()).unwrap();
        let offer = one(Script::over(connection).read());
        let (_, answer) = asked(*offered_to(&config(|_| ()), &offer.frame()), key(PskKey::new(KEY)));
        let nonces = [&offer, &answer].map(|hello| psk_in(hello, "nonce").unwrap());
        assert!(nonces.iter().all(|nonce| nonce.len() == 32));
        seen.insert(nonces[0].clone());
    }
    assert_eq!(seen.len(), 3);
    // The second link of one connection has another one than the first.
    let mut script = Script::over(Connection::waiting(config(|c| c.reconnect = true), Instant::ZERO, ids(1)));
    let mut offers = Vec::new();
    for _ in 0..2 {
        assert_eq!(script.connection.reconnect(script.now, dial()), Ok(true));
        offers.push(psk_in(&one(script.read()), "nonce").unwrap());
        script.connection.handle_eof(script.now, 0).unwrap();
    }
    assert_ne!(offers[0], offers[1]);
}

/// What the responder says to a proof, and how it ends; the refusal has lost what differs from one to the other.
fn refused(ask: Ask, payload: impl Fn(&Msg, &Msg) -> Vec<u8>) -> (ConnectionError, Msg) {
    let (offer, proving, answer) = offered(ask);
    let payload = payload(&offer, &answer);
    let (error, told) = proven(proving, &proof(&answer, id(1), payload).frame()).unwrap_err();
    let refusal = one(told);
    assert_eq!((refusal.reference, refusal.code()), (Some(id(1)), Code::UNAUTHENTICATED));
    (error, Msg { id: Id::from_bytes([0; 16]), ..refusal })
}

// spec: §6.12
#[test]
fn a_wrong_proof_is_refused() {
    let right = |offer: &Msg, answer: &Msg| mac(&KEY, "initiator", offer, answer);
    let (offer, proving, answer) = offered(key(PskKey::new(KEY)));
    let payload = psk("proof", &right(&offer, &answer));
    proven(proving, &proof(&answer, id(1), payload).frame()).unwrap();

    for byte in 0..32 {
        let (error, _) = refused(key(PskKey::new(KEY)), |offer, answer| {
            let mut wrong = right(offer, answer);
            wrong[byte] ^= 1;
            psk("proof", &wrong)
        });
        assert_eq!(error, ConnectionError::Psk(PskError::Wrong));
    }
    let wrong: [fn(&Msg, &Msg) -> Vec<u8>; 3] = [
        |offer, answer| psk("proof", &mac(b"sixteen bytes!!?", "initiator", offer, answer)),
        |offer, answer| psk("proof", &mac(&KEY, "responder", offer, answer)),
        |offer, answer| psk("proof", &mac(&KEY, "initiator", answer, offer)),
    ];
    for wrong in wrong {
        assert_eq!(refused(key(PskKey::new(KEY)), wrong).0, ConnectionError::Psk(PskError::Wrong));
    }
}

// spec: §6.12
#[test]
fn an_unknown_key_is_not_told_apart_from_a_wrong_one() {
    let wrong = |_: &Msg, _: &Msg| psk("proof", &[1; 32]);
    let (unknown, known) = (refused(key(PskKey::unknown()), wrong), refused(key(PskKey::new(KEY)), wrong));
    assert_eq!(unknown, known);
    let (_, _, unknown) = offered(key(PskKey::unknown()));
    let (_, _, known) = offered(key(PskKey::new(KEY)));
    assert_eq!((unknown.body().len(), unknown.payload), (known.body().len(), known.payload));
    // Whatever is proven.
    for guess in [&[][..], &[0; 32], &KEY] {
        let proof = |offer: &Msg, answer: &Msg| psk("proof", &mac(guess, "initiator", offer, answer));
        assert_eq!(refused(key(PskKey::unknown()), proof).0, ConnectionError::Psk(PskError::Wrong));
    }
}

// spec: §6.12
#[test]
fn nothing_proves_a_key_that_nobody_has_not_even_the_one_in_its_place() {
    let (offer, proving, answer) = offered(key(PskKey::unknown()));
    // The random numbers of a test are known, and so is the key that was drawn ahead of the nonce.
    let mut rng = TestRng::new(2);
    let drawn: Vec<u8> = (0..64).flat_map(|_| rng.word().to_le_bytes()).collect();
    let nonce = psk_in(&answer, "nonce").unwrap();
    let at = drawn.windows(32).position(|bytes| bytes == nonce).unwrap();
    let payload = psk("proof", &mac(&drawn[at - 32..at], "initiator", &offer, &answer));
    let (error, _) = proven(proving, &proof(&answer, id(1), payload).frame()).unwrap_err();
    assert_eq!(error, ConnectionError::Psk(PskError::Wrong));
}

// spec: §6.12
#[test]
fn a_missing_proof_is_refused_and_a_broken_one_malformed() {
    let bearer = cbor(|out| {
        out.map(1)?.str("auth")?.map(2)?.str("scheme")?.str("bearer")?.str("token")?.str("t")?.ok()
    });
    for payload in [empty_map(), bearer] {
        let (error, _) = refused(key(PskKey::new(KEY)), |_, _| payload.clone());
        assert_eq!(error, ConnectionError::Psk(PskError::Missing));
    }
    for payload in [psk("proof", &[0; 31]), psk("proof", &[0; 33]), psk("nonce", &[0; 32])] {
        let (_, proving, answer) = offered(key(PskKey::new(KEY)));
        let (error, told) = proven(proving, &proof(&answer, id(1), payload).frame()).unwrap_err();
        assert!(matches!(error, ConnectionError::Hello(_)));
        assert!(is_close(&one(told), Some(Code::MALFORMED)));
    }
}

// spec: §6.12
#[test]
fn who_names_no_key_cannot_prove_one() {
    for payload in [empty_map(), psk("proof", &[0; 32])] {
        let (proving, answer) = asked(*plain_offer(), key(PskKey::new(KEY)));
        assert_eq!(psk_in(&answer, "nonce"), None, "nothing is chosen that was not offered");
        let (error, _) = proven(proving, &proof(&answer, id(1), payload).frame()).unwrap_err();
        assert_eq!(error, ConnectionError::Psk(PskError::Missing));
    }
}

// spec: §6.2
// spec: §6.12
#[test]
fn a_nonce_of_the_wrong_size_is_malformed() {
    for len in [0, 31, 33] {
        let value = cbor(|out| out.map(2)?.str("id")?.str("a")?.str("nonce")?.bytes(&vec![0; len])?.ok());
        let (error, told) = incoming(&offer_with(offer_payload("psk", &value)).frame()).unwrap_err();
        assert!(matches!(error, ConnectionError::Hello(_)));
        assert!(is_close(&one(told), Some(Code::MALFORMED)));
        let error = answered(&first(Some(len), true)).unwrap_err();
        assert_eq!(error.code(), Code::MALFORMED);
    }
}

/// The payload of a first answer, with a nonce of such a length.
fn first(nonce: Option<usize>, next: bool) -> Vec<u8> {
    cbor(|out| {
        out.map(1 + u64::from(nonce.is_some()) + u64::from(next))?.str("version")?.u8(1)?;
        if let Some(len) = nonce {
            out.str("psk")?.map(1)?.str("nonce")?.bytes(&vec![9; len])?;
        }
        if next {
            out.str("next")?.str("proof")?;
        }
        Ok(())
    })
}

/// An initiator with a key gets this answer; where that fails, it says so.
fn answered(payload: &[u8]) -> Result<(Script, Msg, Msg), ConnectionError> {
    let mut script = Script::dialled(&config(|_| ()), dial());
    let offer = one(script.read());
    let (answer, result) = script.answer(&offer, payload.to_vec());
    match result {
        Ok(()) => Ok((script, offer, answer)),
        Err(error) => {
            assert!(is_close(&one(script.read()), Some(error.code())));
            assert!(script.connection.is_closed());
            Err(error)
        }
    }
}

// spec: §6.12
#[test]
fn an_initiator_leaves_a_responder_that_takes_no_part() {
    for next in [false, true] {
        let error = answered(&first(None, next)).unwrap_err();
        assert_eq!((&error, error.code()), (&PskError::Declined.into(), Code::UNAUTHENTICATED));
    }
    assert_eq!(answered(&first(Some(32), false)).unwrap_err(), PskError::Missing.into(), "no proof at all");
}

// spec: §6.4
// spec: §6.12
#[test]
fn a_key_that_was_not_offered_cannot_be_chosen() {
    let mut script = Script::offered_by(&config(|_| ()));
    let offer = one(script.read());
    let error = script.answer(&offer, first(Some(32), true)).1.unwrap_err();
    assert_eq!(error, Violation::WrongAnswer.into());
}

// spec: §6.12
#[test]
fn an_initiator_verifies_the_proof_of_the_responder() {
    let right = |offer: &Msg, answer: &Msg| mac(&KEY, "responder", offer, answer);
    let last = |payload: &dyn Fn(&Msg, &Msg, &Msg) -> Vec<u8>| {
        let (mut script, offer, answer) = answered(&first(Some(32), true)).unwrap();
        let proof = one(script.read());
        let result = script.answer(&proof, payload(&offer, &answer, &proof)).1;
        (result, script)
    };
    assert_eq!(last(&|offer, answer, _| psk("proof", &right(offer, answer))).0, Ok(()));

    let (result, mut script) = last(&|_, _, _| empty_map());
    assert_eq!(result, Err(PskError::Missing.into()));
    assert!(is_close(&one(script.read()), Some(Code::UNAUTHENTICATED)));
    assert!(matches!(script.events()[..], [Event::Closed(_)]), "it was never established");
    assert_eq!(last(&|_, _, _| psk("nonce", &[0; 32])).0, Err(PskError::Missing.into()));

    let (result, mut script) = last(&|_, _, proof| psk("proof", &psk_in(proof, "proof").unwrap()));
    assert_eq!(result, Err(PskError::Wrong.into()), "its own proof sent back");
    assert!(is_close(&one(script.read()), Some(Code::UNAUTHENTICATED)));
    for byte in 0..32 {
        let (result, _) = last(&|offer, answer, _| {
            let mut wrong = right(offer, answer);
            wrong[byte] ^= 0x80;
            psk("proof", &wrong)
        });
        assert_eq!(result, Err(PskError::Wrong.into()));
    }
    assert_eq!(last(&|_, _, _| psk("proof", &[0; 31])).0.unwrap_err().code(), Code::MALFORMED);
}

// spec: §6.12
// spec: §7.3
#[test]
fn whoever_changes_a_hello_on_its_way_is_found_out() {
    let tampered = |offer_too: bool| {
        let mut client = Script::dialled(&config(|c| c.agent = Some("a/1".into())), dial());
        let mut frame = one(client.read()).frame();
        if offer_too {
            let at = frame.windows(3).position(|bytes| bytes == b"a/1").unwrap();
            frame[at] = b'b';
        }
        let (proving, answer) = asked(*offered_to(&config(|_| ()), &frame), key(PskKey::new(KEY)));
        client.send(answer).unwrap();
        proven(proving, &one(client.read()).frame()).map(|_| ()).map_err(|(error, _)| error)
    };
    assert_eq!(tampered(false), Ok(()));
    assert_eq!(tampered(true), Err(PskError::Wrong.into()));
}

/// The responder that has verified the key in the first of two rounds.
fn two_rounds(second: Ask) -> (Script, Msg, Msg, Box<Offered>, Vec<Msg>) {
    let auth = Some(Auth::custom("steps", crate::support::uint(0)));
    let mut client = Script::dialled(&config(|_| ()), Dial { auth, ..Dial { confidential: true, ..dial() } });
    let offer = one(client.read());
    let first = Ask { psk: Some(PskKey::new(KEY)), ..challenge(1) };
    let (proving, answer) = asked(*offered_to(&config(|_| ()), &offer.frame()), first);
    let mut proofs = Vec::new();
    client.send(answer.clone()).unwrap();
    client.connection.prove(client.now, Some(Auth::custom("steps", crate::support::uint(1)))).unwrap();
    proofs.push(one(client.read()));
    let (proving, again) = asked(*proven(proving, &proofs[0].frame()).unwrap(), second);
    assert_eq!(psk_in(&again, "proof"), None, "the responder's proof is for the last answer");
    client.send(again).unwrap();
    client.connection.prove(client.now, Some(Auth::custom("steps", crate::support::uint(2)))).unwrap();
    proofs.push(one(client.read()));
    let offered = proven(proving, &proofs[1].frame()).unwrap();
    (client, offer, answer, offered, proofs)
}

// spec: §6.12
#[test]
fn the_key_is_proven_once_and_goes_together_with_credentials() {
    for second in [challenge(2), Ask { psk: Some(PskKey::new(KEY)), ..challenge(2) }] {
        let (mut client, offer, answer, offered, proofs) = two_rounds(second);
        assert!(psk_in(&proofs[0], "proof").is_some(), "in the first proof");
        assert_eq!(psk_in(&proofs[1], "proof"), None, "and only there");
        assert!(offered.has_proven_psk());
        assert_eq!(offered.auth(), Some(&Auth::custom("steps", crate::support::uint(2))));
        let mut server = Script::over(offered.accept(Instant::ZERO));
        let last = one(server.read());
        assert_eq!(psk_in(&last, "proof").unwrap(), mac(&KEY, "responder", &offer, &answer));
        client.send(last).unwrap();
        assert!(matches!(client.events()[..], [.., Event::Established]));
    }
}

// spec: §6.12
#[test]
fn a_responder_may_take_no_part_in_a_key_that_it_does_not_ask_for() {
    let (_, proving, answer) = offered(Ask::default());
    assert_eq!(psk_in(&answer, "nonce"), None);
    let offered = proven(proving, &proof(&answer, id(1), psk("proof", &[0; 32])).frame()).unwrap();
    assert!(!offered.has_proven_psk());
    let last = one(Script::over(offered.accept(Instant::ZERO)).read());
    assert_eq!(psk_in(&last, "proof"), None);
}

// spec: §6.2
#[test]
fn the_name_of_a_key_has_a_length_that_a_hello_holds() {
    let dial = |len: usize| Dial { psk: Some(Psk::new("x".repeat(len), KEY)), ..Dial::default() };
    let connect = |len| Connection::initiate_with(config(|_| ()), Instant::ZERO, ids(1), dial(len));
    assert_eq!(connect(256).unwrap_err(), ConnectionError::HelloTooLarge);
    let offer = one(Script::over(connect(255).unwrap()).read());
    let offered = offered_to(&config(|_| ()), &offer.frame());
    assert_eq!(offered.offer().psk.as_ref().map(String::len), Some(255));
}

// spec: §17.4
#[test]
fn keys_and_credentials_are_kept_out_of_what_is_shown() {
    let secret = "lovelace-lovelace";
    let auth = Some(Auth::credentials("ada", secret));
    let psk = Some(Psk::new("site-7", secret.as_bytes()));
    let dial = Dial { auth, psk, ..Dial::confidential() };
    let shown = format!("{dial:?} {:?}", PskKey::new(secret.as_bytes()));
    let mut client = Script::dialled(&config(|_| ()), dial);
    let offered = offered_to(&config(|_| ()), &one(client.read()).frame());
    let shown = format!("{shown} {offered:?}");
    let (proving, _) = asked(*offered, key(PskKey::new(secret.as_bytes())));
    let shown = format!("{shown} {proving:?}");
    let bytes = format!("{:?}", secret.as_bytes());
    assert!(!shown.contains(secret) && !shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}
