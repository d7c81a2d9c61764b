//! What hellos hold comes out as it went in, and nothing else is taken.

use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::message::{Envelope, build_bytes};
use crate::session::auth::{Auth, AuthKind};
use crate::session::error::{ConnectionError, Violation};
use crate::session::secret::Secret;

fn cbor(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Written) -> Payload {
    Payload::new(build_bytes(write)).unwrap()
}

fn offer() -> Offer {
    Offer::new(Some("a/1".into()), vec!["stream".into()], Limits::ABSENT)
}

fn decoded(offer: &Payload) -> Result<Offer, HelloError> {
    let (versions, _) = Offer::decode_versions(offer.as_item())?;
    Offer::decode(versions, offer.as_item())
}

fn session() -> SessionId {
    SessionId::from_bytes(core::array::from_fn(|n| n as u8))
}

/// The frame body of an example of the specification.
pub(crate) fn example(name: &str) -> Vec<u8> {
    let text = include_str!("../../../../SPEC.md");
    let mut lines = text.lines().skip_while(|line| *line != format!("```hex {name}"));
    assert!(lines.next().is_some(), "no example {name}");
    let lines = lines.take_while(|line| !line.starts_with("```"));
    let digits = lines.filter_map(|line| line.split('#').next()).flat_map(str::split_whitespace);
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

// spec: §6.2
// spec: §6.3
#[test]
fn an_offer_comes_out_as_it_went_in() {
    let custom = Auth::custom("saml", cbor(|out| out.array(1)?.null()?.ok()));
    for auth in [Auth::bearer("t"), Auth::api_key("k"), Auth::credentials("u", "p"), custom] {
        let mut offer = offer().with_psk("site-7".into(), [7; 32]);
        offer.auth = Some(auth);
        let mut resume = ResumeOffer::new(session(), u64::MAX, [9; 32]);
        resume.lanes = vec![LaneCount { stream: 4, handled: 17 }];
        offer.resume = Some(resume);
        assert_eq!(decoded(&offer.encode()), Ok(offer));
    }
}

// spec: §6.4
// spec: §9.1
// spec: §9.6
#[test]
fn answers_and_proofs_come_out_as_they_went_in() {
    let grant = SessionGrant {
        id: session(),
        resume_ms: 30_000,
        secret: Some(Secret::new([5; 32])),
        auth_expires_ms: Some(1),
    };
    let lasts = [
        LastOrNext::last(None),
        LastOrNext::last(Some(grant)),
        LastOrNext::ask(None),
        LastOrNext::ask(Some(cbor(|out| out.bytes(&[1, 2])?.ok()))),
    ];
    for last in lasts {
        let answer = Answer {
            version: 1,
            agent: None,
            features: vec!["resume".into()],
            limits: Limits::default(),
            psk: Some([3; 32]),
            resumed: Some(Resumed { handled: 7, lanes: vec![LaneCount { stream: 0, handled: 1 }] }),
            last: last.clone(),
        };
        let asked = Asked { psk: true, resume: true };
        assert_eq!(Answer::decode(answer.encode().as_item(), asked).unwrap(), answer);
        let later = LaterAnswer { psk: Some([4; 32]), last };
        assert_eq!(LaterAnswer::decode(later.encode().as_item()).unwrap(), later);
    }
    for proof in [Proof::default(), Proof { auth: Some(Auth::bearer("x")), psk: Some([8; 32]) }] {
        assert_eq!(Proof::decode(proof.encode().as_item()).unwrap(), proof);
    }
}

// spec: §6.12
// spec: §9.5
// spec: §19.7
#[test]
fn the_examples_are_made_and_taken_byte_for_byte() {
    let payload = |name: &str| Payload::from(Envelope::decode(&example(name)).unwrap().payload);
    let psk: [u8; 32] = core::array::from_fn(|n| 0x80 + n as u8);
    let smallest = || Offer::new(None, vec![], Limits::ABSENT);
    assert_eq!(smallest().with_psk("site-7".into(), psk).encode(), payload("offer-psk"));

    let features = ["stream", "pubsub", "resume"].map(String::from).to_vec();
    let offered = decoded(&payload("offer-resume")).unwrap();
    assert_eq!(offered.encode(), payload("offer-resume"));
    assert_eq!((offered.features, offered.resume.map(|resume| resume.handled)), (features.clone(), Some(17)));

    let asked = Asked { psk: true, resume: true };
    for name in ["answer-psk", "answer-resumed"] {
        let answer = Answer::decode(payload(name).as_item(), asked).unwrap();
        assert_eq!(answer.encode(), payload(name), "{name}");
    }
    let later = LaterAnswer::decode(payload("answer-last").as_item()).unwrap();
    assert_eq!(later.encode(), payload("answer-last"));
    for name in ["proof-psk", "proof-credentials"] {
        assert_eq!(Proof::decode(payload(name).as_item()).unwrap().encode(), payload(name), "{name}");
    }
    // That one chooses a compression, which we never offer.
    let answer = Answer::decode(payload("answer-features").as_item(), asked);
    assert_eq!(answer, Err(Violation::WrongAnswer.into()));
}

/// An `auth` map of a scheme and some pairs.
fn auth(scheme: &str, pairs: &[(&str, &[u8])]) -> Payload {
    cbor(|out| {
        out.map(1 + pairs.len() as u64)?.str("scheme")?.str(scheme)?;
        for (key, value) in pairs {
            out.str(key)?;
            out.writer_mut().extend_from_slice(value);
        }
        Ok(())
    })
}

// spec: §6.2
// spec: §6.11
#[test]
fn credentials_of_the_wrong_shape_are_malformed() {
    let text = b"\x61x";
    let bad = [
        cbor(|out| out.null()?.ok()),
        cbor(|out| out.map(0)?.ok()),
        cbor(|out| out.map(1)?.str("scheme")?.u8(1)?.ok()),
        auth("bearer", &[]),
        auth("bearer", &[("token", b"\x41x")]),
        auth("bearer", &[("token", b"\x7f\x61x\xff")]),
        auth("api-key", &[("token", text)]),
        auth("credentials", &[("username", text)]),
        auth("credentials", &[("username", text), ("password", b"\xf6")]),
        auth("custom", &[("name", text)]),
        auth("custom", &[("name", b"\x01"), ("data", b"\xf6")]),
        auth("bearer", &[("token", text), ("token", text)]),
    ];
    for payload in bad {
        assert!(Auth::decode(payload.as_item()).is_err(), "{payload:?}");
    }
    let taken = auth("bearer", &[("token", text), ("colour", b"\x01")]);
    assert!(matches!(Auth::decode(taken.as_item()).unwrap().kind(), AuthKind::Bearer("x")));
    let other = Auth::decode(auth("smoke", &[("token", b"\x01")]).as_item()).unwrap();
    assert!(matches!(other.kind(), AuthKind::Other { scheme: "smoke" }));
}

/// The payload of an offer with one more key.
fn offer_with(key: &str, value: &[u8]) -> Payload {
    cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?.str(key)?;
        out.writer_mut().extend_from_slice(value);
        Ok(())
    })
}

// spec: §6.2
// spec: §6.12
// spec: §9.5
#[test]
fn keys_and_resumes_of_the_wrong_shape_are_malformed() {
    let psk = |id: Option<&str>, nonce: usize| {
        build_bytes(|out| {
            out.map(1 + u64::from(id.is_some()))?.str("nonce")?.bytes(&vec![0; nonce])?;
            if let Some(id) = id {
                out.str("id")?.str(id)?;
            }
            Ok(())
        })
    };
    let (long, longest) = ("x".repeat(256), "x".repeat(255));
    assert_eq!(decoded(&offer_with("psk", &psk(Some(&longest), 32))).unwrap().psk, Some(longest));
    for bad in
        [psk(None, 32), psk(Some("a"), 31), psk(Some("a"), 33), psk(Some("a"), 0), psk(Some(&long), 32)]
    {
        assert!(decoded(&offer_with("psk", &bad)).is_err(), "{bad:?}");
    }
    let resume = |session: usize, proof: usize, handled: &[u8], lanes: &[u8]| {
        build_bytes(|out| {
            out.map(4)?.str("session")?.bytes(&vec![0; session])?.str("proof")?.bytes(&vec![0; proof])?;
            out.str("handled")?.writer_mut().extend_from_slice(handled);
            out.str("lanes")?.writer_mut().extend_from_slice(lanes);
            Ok(())
        })
    };
    let good = decoded(&offer_with("resume", &resume(16, 32, b"\x07", b"\x81\x82\x04\x05"))).unwrap();
    let lanes = good.resume.map(|resume| (resume.handled, resume.lanes));
    assert_eq!(lanes, Some((7, vec![LaneCount { stream: 4, handled: 5 }])));
    let bad = [
        resume(15, 32, b"\x07", b"\x80"),
        resume(16, 31, b"\x07", b"\x80"),
        resume(16, 33, b"\x07", b"\x80"),
        resume(16, 32, b"\x20", b"\x80"),
        resume(16, 32, b"\x07", b"\xa0"),
        resume(16, 32, b"\x07", b"\x81\x81\x04"),
        resume(16, 32, b"\x07", b"\x81\x83\x04\x05\x06"),
        resume(16, 32, b"\x07", b"\x81\x82\x04\x20"),
        b"\xa0".to_vec().into(),
        b"\xa1\x67handled\x00".to_vec().into(),
    ];
    for bad in bad {
        assert!(decoded(&offer_with("resume", &bad)).is_err(), "{bad:?}");
    }
}

// spec: §6.4
// spec: §6.10
#[test]
fn what_was_not_asked_for_is_a_violation_whatever_it_looks_like() {
    let answer = |key: &str, value: &[u8]| {
        cbor(|out| {
            out.map(2)?.str("version")?.u8(1)?.str(key)?;
            out.writer_mut().extend_from_slice(value);
            Ok(())
        })
    };
    let decode = |payload: &Payload, asked| Answer::decode(payload.as_item(), asked).unwrap_err();
    let (none, all) = (Asked::default(), Asked { psk: true, resume: true });
    for (key, value) in [("psk", &b"\xa1\x65nonce\x40"[..]), ("resumed", b"\xa0")] {
        assert_eq!(decode(&answer(key, value), none), Violation::WrongAnswer.into());
        assert!(matches!(decode(&answer(key, value), all), ConnectionError::Hello(_)), "{key}");
    }
    assert_eq!(decode(&answer("next", b"\x65other"), all), Violation::WrongAnswer.into());
    assert!(matches!(decode(&answer("next", b"\xf5"), all), ConnectionError::Hello(_)));
    for value in [&b"\xa0"[..], b"\xa2\x62id\x40\x69resume_ms\x00", b"\xa1\x69resume_ms\x00", b"\xf6"] {
        assert!(matches!(decode(&answer("session", value), all), ConnectionError::Hello(_)));
    }
}

// spec: §6.10
#[test]
fn a_later_answer_may_repeat_what_the_first_one_decided() {
    let later = cbor(|out| {
        out.map(3)?.str("version")?.u8(9)?.str("resumed")?.u8(1)?;
        out.str("psk")?.map(1)?.str("nonce")?.bytes(&[1])?.ok()
    });
    assert_eq!(LaterAnswer::decode(later.as_item()), Ok(LaterAnswer::default()));
    let short = cbor(|out| out.map(1)?.str("psk")?.map(1)?.str("proof")?.bytes(&[1; 31])?.ok());
    assert!(LaterAnswer::decode(short.as_item()).is_err());
    assert!(Proof::decode(short.as_item()).is_err());
}

// spec: §17.4
// spec: §7.7
#[test]
fn secrets_are_not_shown() {
    let mut offer = offer().with_psk("site-7".into(), [0xab; 32]);
    offer.auth = Some(Auth::credentials("ada", "lovelace"));
    offer.resume = Some(ResumeOffer::new(session(), 3, [0xcd; 32]));
    let shown = format!("{offer:?} {:?}", Auth::bearer("lovelace").kind());
    assert!(!shown.contains("lovelace") && !shown.contains("ada"), "{shown}");
    assert!(!shown.contains("205"), "the proof: {shown}");
    assert!(shown.contains("SessionId(00010203)") && shown.contains("Auth(\"credentials\")"), "{shown}");
    assert_eq!(format!("{:?}", Secret::new([1; 32])), "Secret");
}
