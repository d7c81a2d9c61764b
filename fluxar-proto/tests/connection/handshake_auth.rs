//! Credentials, and the rounds in which they are asked for.

use std::time::Duration;

use bytes::BytesMut;
use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{
    Ask, Auth, AuthKind, Code, Connection, ConnectionError, Dial, Error, Event, Grant, Instant, Payload,
    ProofProgress, Timeout, TransmitBuf, Violation,
};

use crate::support::rounds::{
    asked, asking, challenge, drained, empty_map, offer_payload, offered_to, plain_offer, proof, proven,
};
use crate::support::{
    Msg, Script, at, cbor, config, id, ids, incoming, is_close, ms, offer, offer_with, one, uint,
};

fn bearer(token: &str) -> Vec<u8> {
    cbor(|out| out.map(2)?.str("scheme")?.str("bearer")?.str("token")?.str(token)?.ok())
}

fn auth_only(auth: &[u8]) -> Vec<u8> {
    cbor(|out| {
        out.map(1)?.str("auth")?;
        out.writer_mut().extend_from_slice(auth);
        Ok(())
    })
}

fn dial(auth: Auth) -> Dial {
    Dial { auth: Some(auth), ..Dial::confidential() }
}

fn custom(n: u64) -> Auth {
    Auth::custom("steps", uint(n))
}

// spec: §6.10
#[test]
fn an_initiator_that_has_nothing_to_prove_sends_an_empty_proof() {
    let mut script = Script::offered_by(&config(|_| ()));
    let offer = one(script.read());
    let (answer, result) = script.answer(&offer, asking(true, None));
    assert_eq!(result, Ok(()));
    let proof = one(script.read());
    assert_eq!(
        (proof.kind, proof.reference, proof.target.as_deref()),
        (Kind::Hello, Some(answer.id), Some("proof"))
    );
    assert_eq!(proof.payload, empty_map());
    assert!(script.connection.is_handshaking() && script.events().is_empty());
    assert_eq!(script.answer(&proof, empty_map()).1, Ok(()));
    assert!(matches!(script.events()[..], [Event::Established]));
}

// spec: §6.10
#[test]
fn an_initiator_whose_proof_does_not_suffice_is_told_so() {
    let mut script = Script::offered_by(&config(|_| ()));
    let offer = one(script.read());
    script.answer(&offer, asking(true, None)).1.unwrap();
    let proof = one(script.read());
    let why = Error::unauthenticated("who are you?");
    let refusal = Msg::continuation(Kind::Hello, id(9), proof.id).error(why.clone());
    assert_eq!(script.send(refusal), Err(ConnectionError::Refused(why)));
    assert!(script.read().is_empty());
}

// spec: §6.11
#[test]
fn credentials_ride_in_the_offer_where_the_transport_is_confidential() {
    for auth in [Auth::bearer("t"), Auth::api_key("k"), Auth::credentials("ada", "lovelace"), custom(7)] {
        let mut script = Script::dialled(&config(|_| ()), dial(auth.clone()));
        let offered = offered_to(&config(|_| ()), &one(script.read()).frame());
        assert_eq!(offered.auth(), Some(&auth));
        let mut server = Script::over(offered.accept(Instant::ZERO));
        script.send_bytes(&server.read_bytes()).unwrap();
        assert!(matches!(script.events()[..], [Event::Established]));
    }
}

// spec: §6.11
// spec: §17.4
#[test]
fn credentials_do_not_travel_in_clear_unless_that_is_allowed() {
    let open = || Dial { auth: Some(Auth::bearer("secret")), ..Dial::default() };
    let refused = Connection::initiate_with(config(|_| ()), Instant::ZERO, ids(1), open());
    assert_eq!(refused.unwrap_err(), ConnectionError::AuthInClear);

    let mut waiting = Connection::waiting(config(|_| ()), Instant::ZERO, ids(1));
    assert_eq!(waiting.reconnect(Instant::ZERO, open()), Err(ConnectionError::AuthInClear));
    assert!(waiting.is_detached() && !waiting.wants_transmit());
    assert_eq!(waiting.reconnect(Instant::ZERO, dial(Auth::bearer("secret"))), Ok(true));
    assert!(waiting.wants_transmit());

    let mut script = Script::dialled(&config(|c| c.clear_auth = true), open());
    let offered = offered_to(&config(|_| ()), &one(script.read()).frame());
    assert_eq!(offered.auth(), Some(&Auth::bearer("secret")));
}

// spec: §6.11
#[test]
fn what_was_sent_in_the_offer_is_not_sent_again_when_a_proof_is_asked_for() {
    let mut script = Script::dialled(&config(|_| ()), dial(Auth::bearer("t")));
    let offer = one(script.read());
    script.answer(&offer, asking(true, None)).1.unwrap();
    assert_eq!(one(script.read()).payload, empty_map());
}

// spec: §6.11
#[test]
fn a_scheme_that_nobody_knows_is_shown_and_not_malformed() {
    let auth = cbor(|out| out.map(2)?.str("scheme")?.str("smoke")?.str("token")?.u8(1)?.ok());
    let offered = offered_to(&config(|_| ()), &offer_with(offer_payload("auth", &auth)).frame());
    assert!(matches!(offered.auth().unwrap().kind(), AuthKind::Other { scheme: "smoke" }));
}

// spec: §6.2
// spec: §6.11
#[test]
fn credentials_of_the_wrong_shape_end_the_handshake() {
    let bad = cbor(|out| out.map(2)?.str("scheme")?.str("bearer")?.str("token")?.u8(1)?.ok());
    for auth in [&bad[..], b"\xa0", b"\xf6", b"\x66bearer"] {
        let (error, told) = incoming(&offer_with(offer_payload("auth", auth)).frame()).unwrap_err();
        assert!(matches!(error, ConnectionError::Hello(_)), "{error:?}");
        assert!(is_close(&one(told), Some(Code::MALFORMED)));
        let (proving, answer) = asked(*plain_offer(), Ask::default());
        let (error, told) = proven(proving, &proof(&answer, id(1), auth_only(auth)).frame()).unwrap_err();
        assert!(matches!(error, ConnectionError::Hello(_)), "{error:?}");
        assert!(is_close(&one(told), Some(Code::MALFORMED)));
    }
}

// spec: §6.10
// spec: §6.14
#[test]
fn a_responder_asks_for_credentials_and_gets_them() {
    let (proving, answer) = asked(*plain_offer(), Ask::default());
    assert_eq!((answer.kind, answer.reference, &answer.target), (Kind::Hello, Some(id(0)), &None));
    let offered = proven(proving, &proof(&answer, id(1), auth_only(&bearer("t"))).frame()).unwrap();
    assert_eq!(offered.auth(), Some(&Auth::bearer("t")));
    assert_eq!((offered.id(), offered.proofs_left()), (id(0), 3));
    let mut server = Script::over(offered.accept(Instant::ZERO));
    let last = one(server.read());
    assert_eq!((last.kind, last.reference, last.payload), (Kind::Hello, Some(id(1)), empty_map()));
    assert!(matches!(server.events()[..], [Event::Established]));
}

// spec: §6.10
#[test]
fn a_refusal_after_a_proof_names_the_proof() {
    let (proving, answer) = asked(*plain_offer(), Ask::default());
    let offered = proven(proving, &proof(&answer, id(1), empty_map()).frame()).unwrap();
    assert_eq!(offered.auth(), None);
    let mut out = TransmitBuf::new();
    offered.refuse(at(5), Error::unauthenticated("who are you?"), &mut out);
    let refusal = one(Msg::decode_all(&drained(&mut out)));
    assert_eq!((refusal.reference, refusal.code()), (Some(id(1)), Code::UNAUTHENTICATED));
}

/// Runs rounds of challenges between two connections: whether the responder let the initiator in after `rounds`.
fn challenged(rounds: u8) -> (Script, Script) {
    let mut client = Script::dialled(&config(|_| ()), dial(custom(100)));
    let mut offered = offered_to(&config(|_| ()), &one(client.read()).frame());
    for round in 0..rounds {
        let (proving, answer) = asked(*offered, challenge(round));
        client.send(answer).unwrap();
        let [Event::Challenge { challenge }] = &client.events()[..] else { panic!("no challenge") };
        assert_eq!(*challenge, uint(u64::from(round)));
        assert!(client.read().is_empty(), "the application is asked first");
        assert_eq!(client.connection.prove(Instant::ZERO, Some(custom(u64::from(round)))), Ok(true));
        offered = proven(proving, &one(client.read()).frame()).unwrap();
        assert_eq!(offered.auth(), Some(&custom(u64::from(round))));
    }
    (client, Script::over(offered.accept(Instant::ZERO)))
}

// spec: §6.10
// spec: §6.11
// spec: §6.13
#[test]
fn custom_credentials_may_take_four_rounds() {
    for rounds in 0..=4 {
        let (mut client, mut server) = challenged(rounds);
        client.send_bytes(&server.read_bytes()).unwrap();
        assert!(matches!(client.events()[..], [Event::Established]), "{rounds}");
        client.connection.ping(client.now).unwrap();
        server.send_bytes(&client.read_bytes()).unwrap();
        assert_eq!(server.read().len(), 1, "both are established");
    }
}

// spec: §6.10
// spec: §6.13
// limit: proofs in a handshake
#[test]
fn a_fifth_proof_is_a_violation_of_who_asks_for_it() {
    let mut script = Script::offered_by(&config(|_| ()));
    let mut hello = one(script.read());
    for round in 0..4 {
        script.answer(&hello, asking(round == 0, None)).1.unwrap();
        hello = one(script.read());
    }
    let error = script.answer(&hello, asking(false, None)).1.unwrap_err();
    assert_eq!(error, ConnectionError::Violation(Violation::TooManyProofs));
    assert!(is_close(&one(script.read()), Some(Code::PROTOCOL_VIOLATION)));
}

// spec: §6.10
#[test]
fn a_responder_refuses_instead_of_asking_for_a_fifth_proof() {
    let mut offered = plain_offer();
    for round in 0..4 {
        assert_eq!(offered.proofs_left(), 4 - round);
        let (proving, answer) = asked(*offered, Ask::default());
        offered = proven(proving, &proof(&answer, id(1 + u64::from(round)), empty_map()).frame()).unwrap();
    }
    assert_eq!(offered.proofs_left(), 0);
    let mut out = TransmitBuf::new();
    let error = offered.ask(Instant::ZERO, Ask::default(), &mut out).unwrap_err();
    assert_eq!(error.code(), Code::UNAUTHENTICATED);
    let refusal = one(Msg::decode_all(&drained(&mut out)));
    assert_eq!((refusal.kind, refusal.reference), (Kind::Hello, Some(id(4))));
    assert_eq!(refusal.code(), Code::UNAUTHENTICATED);
}

// spec: §6.10
#[test]
fn next_is_a_proof_or_a_violation() {
    for (first, value, code) in [
        (true, &b"\x66proofs"[..], Code::PROTOCOL_VIOLATION),
        (false, b"\x60", Code::PROTOCOL_VIOLATION),
        (true, b"\xf6", Code::MALFORMED),
        (false, b"\x45proof", Code::MALFORMED),
    ] {
        let mut script = Script::offered_by(&config(|_| ()));
        let mut hello = one(script.read());
        if !first {
            script.answer(&hello, asking(true, None)).1.unwrap();
            hello = one(script.read());
        }
        let payload = cbor(|out| {
            out.map(2)?.str("version")?.u8(1)?.str("next")?;
            out.writer_mut().extend_from_slice(value);
            Ok(())
        });
        assert_eq!(script.answer(&hello, payload).1.unwrap_err().code(), code);
        assert!(is_close(&one(script.read()), Some(code)));
    }
}

// spec: §6.10
#[test]
fn a_later_answer_decides_nothing_again() {
    let mut script = Script::offered_by(&config(|_| ()));
    let offer = one(script.read());
    let first = cbor(|out| {
        out.map(3)?.str("version")?.u8(1)?.str("next")?.str("proof")?;
        out.str("limits")?.map(1)?.str("max_calls")?.u8(7)?.ok()
    });
    script.answer(&offer, first).1.unwrap();
    let proof = one(script.read());
    let later = cbor(|out| {
        out.map(4)?.str("version")?.u8(9)?.str("limits")?.map(1)?.str("max_calls")?.u8(8)?;
        out.str("caps")?.map(1)?.str("compress")?.str("zstd")?.str("resumed")?.null()?.ok()
    });
    script.answer(&proof, later).1.unwrap();
    let peer = script.connection.peer().unwrap();
    assert_eq!((peer.version, peer.limits.max_calls), (1, 7));
}

// spec: §6.11
#[test]
fn who_leaves_a_challenge_unanswered_has_no_credentials() {
    let auth = cbor(|out| {
        out.map(3)?.str("scheme")?.str("custom")?.str("name")?.str("steps")?.str("data")?.u8(7)?.ok()
    });
    let offered = || offered_to(&config(|_| ()), &offer_with(offer_payload("auth", &auth)).frame());
    assert_eq!(offered().auth(), Some(&custom(7)));
    let (proving, answer) = asked(*offered(), challenge(1));
    let challenged = proven(proving, &proof(&answer, id(1), empty_map()).frame()).unwrap();
    assert_eq!(challenged.auth(), None, "what was said before is no answer to it");
    let (proving, answer) = asked(*offered(), Ask::default());
    let asked = proven(proving, &proof(&answer, id(1), empty_map()).frame()).unwrap();
    assert_eq!(asked.auth(), Some(&custom(7)), "nothing has taken its place");
}

// spec: §6.13
#[test]
fn nobody_answers_what_was_not_sent() {
    // Its ids can be guessed in a test.
    let offer = one(Script::offered_by(&config(|_| ())).read());
    let mut script = Script::offered_by(&config(|_| ()));
    assert_eq!(script.answer(&offer, asking(true, None)).1, Err(Violation::WrongAnswer.into()));
    let twins = || {
        let mut script = Script::offered_by(&config(|_| ()));
        let offer = one(script.read());
        script.answer(&offer, asking(true, None)).1.unwrap();
        script
    };
    let proof = one(twins().read());
    assert_eq!(twins().answer(&proof, empty_map()).1, Err(Violation::WrongAnswer.into()));
}

// spec: §6.1
// spec: §6.13
#[test]
fn an_answer_must_name_the_latest_proof_and_only_that() {
    let mut script = Script::offered_by(&config(|_| ()));
    let offer = one(script.read());
    script.answer(&offer, asking(true, None)).1.unwrap();
    script.read();
    assert_eq!(script.answer(&offer, empty_map()).1, Err(Violation::WrongAnswer.into()));

    // While nothing was sent, there is nothing to be answered.
    let mut script = Script::dialled(&config(|_| ()), dial(custom(1)));
    let offer = one(script.read());
    script.answer(&offer, asking(true, Some(1))).1.unwrap();
    assert_eq!(script.answer(&offer, empty_map()).1, Err(Violation::WrongAnswer.into()));
    assert!(is_close(&one(script.read()), Some(Code::PROTOCOL_VIOLATION)));
}

// spec: §6.10
#[test]
fn a_challenge_is_for_applications_with_custom_credentials() {
    for dial in [Dial::default(), dial(Auth::bearer("t"))] {
        let mut script = Script::dialled(&config(|_| ()), dial);
        let offer = one(script.read());
        script.answer(&offer, asking(true, Some(1))).1.unwrap();
        assert_eq!(one(script.read()).payload, empty_map());
        assert!(script.events().is_empty());
        assert_eq!(script.connection.prove(script.now, Some(custom(1))), Ok(false), "nobody asked");
    }
    let mut script = Script::dialled(&config(|_| ()), dial(custom(1)));
    let offer = one(script.read());
    script.answer(&offer, asking(true, Some(1))).1.unwrap();
    assert_eq!(script.connection.prove(script.now, None), Ok(true));
    assert_eq!(script.connection.prove(script.now, None), Ok(false), "it is answered");
    let proof = one(script.read());
    assert_eq!(proof.payload, empty_map());
    assert_eq!(script.answer(&proof, empty_map()).1, Ok(()));
    assert_eq!(script.connection.prove(script.now, Some(custom(2))), Ok(false), "the handshake is done");
    assert!(script.read().is_empty());
}

// spec: §6.10
// spec: §6.14
#[test]
fn a_responder_that_awaits_a_proof_takes_nothing_else() {
    let (proving, answer) = asked(*plain_offer(), Ask::default());
    drop(proving);
    let others = [
        Msg::opening(Kind::Call, id(1), "early"),
        Msg::opening(Kind::Control, id(1), verb::PING),
        Msg { id: id(1), ..offer() },
        Msg { reference: Some(id(99)), ..proof(&answer, id(1), empty_map()) },
        Msg { target: None, ..proof(&answer, id(1), empty_map()) },
        proof(&answer, id(1), empty_map()).verb("proofs"),
        Msg { kind: Kind::Call, ..proof(&answer, id(1), empty_map()) },
    ];
    for message in others {
        let (proving, _) = asked(*plain_offer(), Ask::default());
        let (error, told) = proven(proving, &message.frame()).unwrap_err();
        assert_eq!(error, ConnectionError::Violation(Violation::ProofExpected), "{message:?}");
        assert!(is_close(&one(told), Some(Code::PROTOCOL_VIOLATION)));
    }
    let with_error = Msg { payload: vec![0xf6], ..proof(&answer, id(1), vec![]) }.error(Error::unknown(""));
    let none = proof(&answer, id(1), vec![0xf6]);
    for message in [with_error, none] {
        let (proving, _) = asked(*plain_offer(), Ask::default());
        let (error, told) = proven(proving, &message.frame()).unwrap_err();
        assert_eq!(error.code(), Code::MALFORMED, "{message:?}");
        assert!(is_close(&one(told), Some(Code::MALFORMED)));
    }
    let (proving, _) = asked(*plain_offer(), Ask::default());
    let close = Msg::opening(Kind::Control, id(1), verb::CLOSE).error(Error::cancelled("never mind"));
    let (error, told) = proven(proving, &close.frame()).unwrap_err();
    assert_eq!(error, ConnectionError::ClosedByPeer(Some(Error::cancelled("never mind"))));
    assert!(told.is_empty());
    for (bytes, code) in [(65_537u32.to_be_bytes(), Code::MESSAGE_TOO_LARGE), ([0; 4], Code::MALFORMED)] {
        let (proving, _) = asked(*plain_offer(), Ask::default());
        let (error, told) = proven(proving, &bytes).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(is_close(&one(told), Some(code)));
    }
}

// spec: §6.10
#[test]
fn a_proof_that_nobody_asked_for_is_a_violation() {
    let mut server = Script::over(plain_offer().accept(Instant::ZERO));
    let answer = one(server.read());
    let error = server.send(proof(&answer, id(1), empty_map())).unwrap_err();
    assert_eq!(error.code(), Code::PROTOCOL_VIOLATION);
    assert!(is_close(&one(server.read()), Some(Code::PROTOCOL_VIOLATION)));
}

// spec: §6.1
// spec: §6.14
#[test]
fn a_proof_may_come_in_pieces_and_what_follows_it_waits() {
    let (mut proving, answer) = asked(*plain_offer(), Ask::default());
    let call = Msg::opening(Kind::Call, id(2), "m").frame();
    let bytes = [proof(&answer, id(1), empty_map()).frame(), call.clone()].concat();
    let (mut input, mut out) = (BytesMut::new(), TransmitBuf::new());
    let mut pieces = bytes.iter();
    let offered = loop {
        input.extend_from_slice(&[*pieces.next().unwrap()]);
        match proving.handle_input(Instant::ZERO, &mut input, &mut out).unwrap() {
            ProofProgress::More(more) => proving = more,
            ProofProgress::Offered(offered) => break offered,
        }
    };
    input.extend_from_slice(pieces.as_slice());
    assert_eq!(input, &call[..]);
    let mut server = Script::over(offered.accept(Instant::ZERO));
    server.send_bytes(&input).unwrap();
    assert!(matches!(server.events()[..], [Event::Established, Event::Call(_)]));
}

// spec: §6.9
#[test]
fn all_rounds_share_the_time_of_one_handshake() {
    let (mut proving, answer) = asked(*plain_offer(), Ask::default());
    let mut out = TransmitBuf::new();
    assert_eq!((proving.deadline(), proving.handle_timeout(at(9_999), &mut out)), (at(10_000), Ok(())));
    let mut offered = proven(proving, &proof(&answer, id(1), empty_map()).frame()).unwrap();
    assert_eq!((offered.deadline(), offered.handle_timeout(at(9_999), &mut out)), (at(10_000), Ok(())));
    let (mut proving, _) = asked(*offered, Ask::default());
    let late = proving.handle_timeout(at(10_000), &mut out);
    assert_eq!(late, Err(ConnectionError::TimedOut(Timeout::Handshake)));
    assert!(is_close(&one(Msg::decode_all(&drained(&mut out))), Some(Code::DEADLINE_EXCEEDED)));

    let mut script = Script::dialled(&config(|_| ()), dial(custom(1)));
    let offer = one(script.read());
    script.wait(ms(6_000)).unwrap();
    script.answer(&offer, asking(true, Some(1))).1.unwrap();
    assert_eq!(script.wait(ms(4_000)), Err(ConnectionError::TimedOut(Timeout::Handshake)));
    assert!(is_close(&one(script.read()), Some(Code::DEADLINE_EXCEEDED)));
}

// spec: §6.8
#[test]
fn an_initiator_may_close_instead_of_proving() {
    for sent in [false, true] {
        let mut script = Script::offered_by(&config(|_| ()));
        let offer = one(script.read());
        script.answer(&offer, asking(true, None)).1.unwrap();
        if sent {
            script.read();
        }
        script.connection.close(script.now, Some(Error::cancelled("never mind")));
        assert!(is_close(&one(script.read()), Some(Code::CANCELLED)), "and no proof: {sent}");
        assert!(script.connection.is_closed());
    }
}

// spec: §3.3
#[test]
fn what_no_handshake_holds_is_not_sent() {
    let large = "x".repeat(66_000);
    let refused =
        Connection::initiate_with(config(|_| ()), Instant::ZERO, ids(1), dial(Auth::bearer(&*large)));
    assert_eq!(refused.unwrap_err(), ConnectionError::HelloTooLarge);

    let mut script = Script::dialled(&config(|_| ()), dial(custom(1)));
    let offer = one(script.read());
    script.answer(&offer, asking(true, Some(1))).1.unwrap();
    let data = Payload::new(cbor(|out| out.str(&large)?.ok()).into()).unwrap();
    let refused = script.connection.prove(script.now, Some(Auth::custom("steps", data.clone())));
    assert_eq!(refused, Err(ConnectionError::HelloTooLarge));
    assert!(script.read().is_empty());
    assert_eq!(
        script.connection.prove(script.now, Some(custom(2))),
        Ok(true),
        "the challenge is still there"
    );

    let mut out = TransmitBuf::new();
    let ask = Ask { challenge: Some(data), psk: None };
    assert!(plain_offer().ask(Instant::ZERO, ask, &mut out).is_err());
    assert_eq!(one(Msg::decode_all(&drained(&mut out))).code(), Code::INTERNAL);
}

// spec: §6.4
// spec: §6.11
// spec: §8.5
#[test]
fn the_last_answer_says_how_long_credentials_last() {
    let mut script = Script::dialled(&config(|_| ()), dial(Auth::bearer("t")));
    let offered = offered_to(&config(|_| ()), &one(script.read()).frame());
    let grant = Grant { auth_expires: Some(Duration::from_micros(59_999_001)) };
    let mut server = Script::over(offered.accept_with(at(1_000), grant));
    assert_eq!(server.connection.auth_expires(), Some(Instant::from_micros(60_999_001)));
    let answer = server.read_bytes();
    script.wait(ms(3_000)).unwrap();
    script.send_bytes(&answer).unwrap();
    assert_eq!(script.connection.auth_expires(), Some(at(63_000)), "from its arrival, in whole milliseconds");

    let (proving, answer) = asked(*plain_offer(), Ask::default());
    let offered = proven(proving, &proof(&answer, id(1), empty_map()).frame()).unwrap();
    let mut server = Script::over(offered.accept_with(Instant::ZERO, Grant { auth_expires: Some(ms(5)) }));
    assert_eq!(server.connection.auth_expires(), Some(at(5)));
    let last = one(server.read());
    let mut found = minicbor::Decoder::new(&last.payload);
    assert_eq!((found.map().unwrap(), found.str().unwrap()), (Some(1), "session"));

    let mut server = Script::over(plain_offer().accept(Instant::ZERO));
    assert_eq!(server.connection.auth_expires(), None);
    assert_eq!(one(server.read()).reference, Some(id(0)));
}

// spec: §17.4
#[test]
fn credentials_are_kept_out_of_what_is_shown_of_a_connection_and_of_its_buffers() {
    let secret = "sesame-sesame-sesame";
    // As text, and as the bytes that a payload shows the first of.
    let hidden = ["sesam".to_owned(), "sesam".bytes().map(|byte| format!("{byte:02x}")).collect()];
    let check = |shown: &str| assert!(hidden.iter().all(|hidden| !shown.contains(hidden)), "{shown}");
    let mut script = Script::dialled(&config(|_| ()), dial(custom(1)));
    let offer = one(script.read());
    script.answer(&offer, asking(true, Some(1))).1.unwrap();
    assert_eq!(script.connection.prove(script.now, Some(Auth::api_key(secret))), Ok(true));
    check(&format!("{:?}", script.connection));
    let mut out = TransmitBuf::new();
    assert!(script.connection.poll_transmit(script.now, &mut out) > secret.len());
    check(&format!("{out:?}"));
    assert!(drained(&mut out).windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
}
