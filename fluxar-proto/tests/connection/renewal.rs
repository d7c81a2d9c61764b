//! Credentials that run out, and fresh ones in their place.

use std::time::Duration;

use fluxar_proto::message::{Id, Kind, verb};
use fluxar_proto::{
    Auth, AuthError, CallEvent, Code, Config, Connection, ConnectionError, Dial, Error, Event, Gone, Grant,
    Instant, Violation,
};

use crate::support::pubsub::{again, publication, pubsub_events};
use crate::support::rounds::offered_to;
use crate::support::{
    Msg, Script, at, cbor, config, id, ids, is_close, ms, offer_with, one, opened, options, requests, uint,
};

/// The payload of an offer with these features.
fn features(features: &[&str]) -> Vec<u8> {
    cbor(|out| {
        out.map(2)?.str("versions")?.array(1)?.u8(1)?;
        out.str("caps")?.map(1)?.str("features")?.array(features.len() as u64)?;
        for feature in features {
            out.str(feature)?;
        }
        Ok(())
    })
}

/// A responder that has let the script in, for so long.
fn responder(lasts: Option<Duration>) -> Script {
    let config = config(|c| c.authenticates = true);
    let offer = offer_with(features(&["stream", "pubsub"]));
    let offered = offered_to(&config, &offer.frame());
    let mut script = Script::over(offered.accept_with(Instant::ZERO, Grant { auth_expires: lasts }));
    assert!(matches!(script.events()[..], [Event::Established]));
    script.read();
    script
}

/// An initiator that the script has let in, for so many milliseconds.
fn initiator_with(change: impl FnOnce(&mut Config), lasts: Option<u64>) -> Script {
    let mut script = Script::dialled(&config(change), Dial::confidential());
    let offer = one(script.read());
    let answer = cbor(|out| {
        out.map(1 + u64::from(lasts.is_some()))?.str("version")?.u8(1)?;
        if let Some(lasts) = lasts {
            out.str("session")?.map(3)?.str("id")?.bytes(&[1; 16])?.str("resume_ms")?.u8(0)?;
            out.str("auth_expires_ms")?.u64(lasts)?;
        }
        Ok(())
    });
    script.answer(&offer, answer).1.unwrap();
    assert!(matches!(script.events()[..], [Event::Established]));
    script
}

fn initiator(lasts: Option<u64>) -> Script {
    initiator_with(|_| (), lasts)
}

fn bearer(token: &str) -> Vec<u8> {
    cbor(|out| out.map(2)?.str("scheme")?.str("bearer")?.str("token")?.str(token)?.ok())
}

fn renewal(id: Id, token: &str) -> Msg {
    Msg::opening(Kind::Control, id, verb::AUTH).payload(bearer(token))
}

/// The renewal that the responder's application is asked about.
fn offered(script: &mut Script) -> (Id, Auth) {
    match one(script.events()) {
        Event::AuthOffered { id, auth } => (id, auth),
        event => panic!("{event:?}"),
    }
}

/// What became of the initiator's renewal.
fn authenticated(script: &mut Script) -> (Id, Result<Option<Duration>, Error>) {
    match one(script.events()) {
        Event::Authenticated { id, result } => (id, result),
        event => panic!("{event:?}"),
    }
}

fn lasts(ms: u64) -> Vec<u8> {
    cbor(|out| out.map(1)?.str("auth_expires_ms")?.u64(ms)?.ok())
}

fn reply(script: &mut Script, opening: &Msg) -> Msg {
    Msg::continuation(Kind::Control, script.id(), opening.id)
}

// spec: §8.5
#[test]
fn an_initiator_renews_its_credentials() {
    let mut script = initiator(Some(60_000));
    assert_eq!(script.connection.auth_expires(), Some(at(60_000)));
    script.wait(ms(5_000)).unwrap();
    let renewal = script.connection.authenticate(script.now, Auth::bearer("fresh")).unwrap();
    let opening = one(script.read());
    assert_eq!((opening.id, opening.target.as_deref()), (renewal, Some("auth")));
    assert_eq!((opening.kind, &opening.payload), (Kind::Control, &bearer("fresh")));
    assert_eq!(script.connection.auth_expires(), Some(at(60_000)), "until there is an answer");
    script.wait(ms(1_000)).unwrap();
    let answer = reply(&mut script, &opening).payload(lasts(30_000));
    script.send(answer).unwrap();
    assert_eq!(authenticated(&mut script), (renewal, Ok(Some(ms(30_000)))));
    assert_eq!(script.connection.auth_expires(), Some(at(36_000)), "from the arrival of the answer");

    for endless in [vec![0xf6], vec![0xa0], cbor(|out| out.map(1)?.str("colour")?.u8(1)?.ok())] {
        script.connection.authenticate(script.now, Auth::bearer("fresh")).unwrap();
        let opening = one(script.read());
        let answer = reply(&mut script, &opening).payload(endless);
        script.send(answer).unwrap();
        assert_eq!(authenticated(&mut script).1, Ok(None));
        assert_eq!(script.connection.auth_expires(), None);
    }
}

// spec: §8.5
#[test]
fn credentials_that_are_refused_change_nothing() {
    let mut script = initiator(Some(60_000));
    script.connection.authenticate(script.now, Auth::bearer("stale")).unwrap();
    let opening = one(script.read());
    let why = Error::unauthenticated("who are you?");
    let answer = reply(&mut script, &opening).error(why.clone());
    script.send(answer).unwrap();
    assert_eq!(authenticated(&mut script), (opening.id, Err(why.clone())));
    assert_eq!(script.connection.auth_expires(), Some(at(60_000)));

    let mut script = responder(Some(ms(60_000)));
    script.send(renewal(id(1), "stale")).unwrap();
    let (renewal, _) = offered(&mut script);
    script.connection.answer_auth(renewal, Err(why.clone())).unwrap();
    let refusal = one(script.read());
    assert_eq!((refusal.reference, refusal.error), (Some(id(1)), Some(why)));
    assert_eq!(script.connection.auth_expires(), Some(at(60_000)));
}

// spec: §8.5
#[test]
fn a_responder_counts_from_when_it_sends_the_answer() {
    let mut script = responder(Some(ms(1_000)));
    script.send(renewal(id(1), "fresh")).unwrap();
    assert_eq!(offered(&mut script), (id(1), Auth::bearer("fresh")));
    script.wait(ms(400)).unwrap();
    script.connection.answer_auth(id(1), Ok(Some(Duration::from_micros(100_001)))).unwrap();
    assert_eq!(script.connection.auth_expires(), Some(at(1_000)), "the new ones last less");
    script.wait(ms(200)).unwrap();
    let answer = one(script.read());
    assert_eq!((answer.kind, answer.reference, answer.target.is_none()), (Kind::Control, Some(id(1)), true));
    assert_eq!(answer.payload, lasts(101), "in whole milliseconds, rounded up");
    assert_eq!(script.connection.auth_expires(), Some(Instant::from_micros(700_001)));

    script.send(renewal(id(2), "endless")).unwrap();
    offered(&mut script);
    script.connection.answer_auth(id(2), Ok(None)).unwrap();
    assert_eq!(one(script.read()).payload, [0xf6]);
    assert_eq!(script.connection.auth_expires(), None);
    assert_eq!(script.connection.answer_auth(id(2), Ok(None)), Err(Gone), "it is answered");
}

/// The openings of every kind that an initiator has, and the type and verb in which they are refused.
fn openings() -> [(Msg, Kind, Option<&'static str>); 4] {
    [
        (Msg::opening(Kind::Call, id(11), "m"), Kind::Call, None),
        (Msg::opening(Kind::Stream, id(12), "m"), Kind::Stream, Some("end")),
        (Msg::opening(Kind::Subscribe, id(13), "a/b"), Kind::Subscribe, None),
        (publication(id(14), "a/b", 1), Kind::Message, Some("nack")),
    ]
}

// spec: §8.5
// spec: §16.4
#[test]
fn without_credentials_nothing_is_opened_any_more() {
    let mut script = responder(Some(ms(1_000)));
    script.wait(ms(999)).unwrap();
    script.call("m");
    assert_eq!(requests(&script.events()).len(), 1, "not yet");
    script.wait(ms(1)).unwrap();
    for (opening, kind, verb) in openings() {
        script.send(opening.clone()).unwrap();
        let refusal = one(script.read());
        assert_eq!(
            (refusal.kind, refusal.reference, refusal.target.as_deref()),
            (kind, Some(opening.id), verb)
        );
        let error = refusal.error.unwrap();
        assert_eq!((error.code, error.processed), (Code::UNAUTHENTICATED, Some(false)));
        assert!(script.events().is_empty(), "{opening:?}");
    }
    let dropped = script.connection.stats().dropped;
    script.send(publication(id(20), "a/b", 0)).unwrap();
    assert!(script.read().is_empty() && script.events().is_empty());
    assert_eq!(script.connection.stats().dropped, dropped + 1);

    // A second attempt says which one it is.
    script.send(again(id(21), "a/b", 2, 2)).unwrap();
    assert_eq!(one(script.read()).meta_u64("attempt"), Some(2));

    // Control is always allowed, fresh credentials above all; then all goes on.
    script.send(Msg::opening(Kind::Control, id(22), verb::PING)).unwrap();
    assert_eq!(one(script.read()).reference, Some(id(22)));
    script.send(renewal(id(23), "fresh")).unwrap();
    offered(&mut script);
    script.connection.answer_auth(id(23), Ok(Some(ms(1_000)))).unwrap();
    script.read();
    for (opening, ..) in openings() {
        script.send(opening).unwrap();
    }
    let events = script.events();
    assert_eq!((requests(&events).len(), opened(&events).len(), pubsub_events(&events).len()), (1, 1, 2));
}

// spec: §8.5
// spec: §5.14
#[test]
fn what_is_not_there_at_all_is_not_there_without_credentials_either() {
    let offer = offer_with(features(&[]));
    let offered = offered_to(&config(|c| c.authenticates = true), &offer.frame());
    let grant = Grant { auth_expires: Some(ms(1)) };
    let mut script = Script::over(offered.accept_with(Instant::ZERO, grant));
    script.read();
    script.wait(ms(2)).unwrap();
    for (opening, kind, _) in openings() {
        script.send(opening).unwrap();
        let code = if kind == Kind::Call { Code::UNAUTHENTICATED } else { Code::UNIMPLEMENTED };
        assert_eq!(one(script.read()).code(), code, "{kind:?}");
    }
    let error = script.send(Msg::opening(Kind::Call, id(30), "m").error(Error::unknown(""))).unwrap_err();
    assert_eq!(error.code(), Code::MALFORMED, "the shape comes first");
}

// spec: §8.5
#[test]
fn what_is_open_goes_on_without_credentials() {
    let mut script = responder(Some(ms(1_000)));
    let call = script.call("m");
    let request = one(requests(&script.events())).id;
    script.send(Msg::opening(Kind::Stream, id(31), "m")).unwrap();
    let stream = one(opened(&script.events())).id;
    script.send(publication(id(32), "a/b", 1)).unwrap();
    script.events();
    script.wait(ms(2_000)).unwrap();

    script.send(Msg::continuation(Kind::Call, id(33), call).verb(verb::UPDATE)).unwrap();
    assert!(matches!(script.events()[..], [Event::Call(CallEvent::RequestUpdated(_))]));
    script.send(Msg::continuation(Kind::Stream, id(34), id(31))).unwrap();
    script.send(again(id(32), "a/b", 1, 2)).unwrap();
    script.events();
    assert!(script.read().is_empty(), "nothing is refused");
    script.connection.respond(request, Ok(uint(1))).unwrap();
    script.connection.send_item(stream, uint(2)).unwrap();
    let kinds: Vec<_> = script.read().iter().map(|message| (message.kind, message.error.is_none())).collect();
    assert_eq!(kinds, [(Kind::Call, true), (Kind::Stream, true)]);
    // This side opens what it likes: it is not the one that has credentials.
    script.connection.call(script.now, "m", uint(3), options()).unwrap();
    assert_eq!(one(script.read()).kind, Kind::Call);
}

// spec: §8.5
#[test]
fn an_initiator_takes_what_the_responder_opens_whatever_its_own_credentials_are() {
    let mut script = initiator(Some(10));
    script.wait(ms(20)).unwrap();
    script.call("m");
    assert_eq!(requests(&script.events()).len(), 1);
}

// spec: §8.5
#[test]
fn renewals_are_the_initiators_and_for_those_who_judge_them() {
    let silent = Script::responder(&config(|_| ()));
    for mut script in [initiator_with(|c| c.authenticates = true, None), silent] {
        for payload in [bearer("t"), vec![0xf6]] {
            let opening = Msg { id: script.id(), ..renewal(id(0), "") }.payload(payload);
            script.send(opening.clone()).unwrap();
            let refusal = one(script.read());
            assert_eq!((refusal.kind, refusal.reference), (Kind::Control, Some(opening.id)));
            let error = refusal.error.unwrap();
            assert_eq!((error.code, error.processed), (Code::UNIMPLEMENTED, Some(false)));
            assert!(script.events().is_empty());
        }
    }
    let mut script = responder(None);
    let refused = script.connection.authenticate(script.now, Auth::bearer("t"));
    assert_eq!(refused, Err(AuthError::NotInitiator));
}

// spec: §6.2
// spec: §8.5
#[test]
fn credentials_and_answers_of_the_wrong_shape_are_malformed() {
    for payload in [vec![0xf6], vec![0xa0], cbor(|out| out.map(1)?.str("scheme")?.str("bearer")?.ok())] {
        let mut script = responder(None);
        let error = script.send(renewal(id(1), "").payload(payload)).unwrap_err();
        assert_eq!(error, Violation::BadPayload(id(1)).into());
        assert!(is_close(&one(script.read()), Some(Code::MALFORMED)));
    }
    let other = cbor(|out| out.map(2)?.str("scheme")?.str("smoke")?.str("x")?.u8(1)?.ok());
    let mut script = responder(None);
    script.send(renewal(id(1), "").payload(other)).unwrap();
    assert_eq!(offered(&mut script).1.scheme(), "smoke", "for the application to refuse");

    let answers = [vec![0x00], vec![0x80], cbor(|out| out.map(1)?.str("auth_expires_ms")?.i8(-1)?.ok())];
    for payload in answers {
        let mut script = initiator(None);
        script.connection.authenticate(script.now, Auth::bearer("t")).unwrap();
        let opening = one(script.read());
        let answer = reply(&mut script, &opening).payload(payload);
        assert_eq!(script.send(answer).unwrap_err().code(), Code::MALFORMED);
        assert!(is_close(&one(script.read()), Some(Code::MALFORMED)));
    }
}

// spec: §8.5
// spec: §15.3
// limit: renewals of credentials that wait for a verdict
#[test]
fn no_more_than_four_renewals_wait() {
    let mut script = responder(None);
    for n in 1..=4 {
        script.send(renewal(id(n), "t")).unwrap();
        offered(&mut script);
    }
    // Those that are judged count until the peer has read of it.
    script.connection.answer_auth(id(1), Ok(None)).unwrap();
    script.send(renewal(id(5), "t")).unwrap();
    assert!(script.events().is_empty());
    let sent = script.read();
    assert_eq!(sent.iter().map(|message| message.reference).collect::<Vec<_>>(), [Some(id(1)), Some(id(5))]);
    assert_eq!(sent[1].code(), Code::RESOURCE_EXHAUSTED);
    script.send(renewal(id(6), "t")).unwrap();
    assert_eq!(offered(&mut script).0, id(6));

    let mut script = initiator(None);
    for _ in 0..4 {
        script.connection.authenticate(script.now, Auth::bearer("t")).unwrap();
    }
    let refused = script.connection.authenticate(script.now, Auth::bearer("t"));
    assert_eq!(refused, Err(AuthError::Busy));
    let opening = script.read().remove(0);
    let answer = reply(&mut script, &opening);
    script.send(answer).unwrap();
    script.connection.authenticate(script.now, Auth::bearer("t")).unwrap();
}

// spec: §5.5
// spec: §5.15
#[test]
fn a_renewal_is_an_exchange_like_any_other() {
    let mut script = responder(None);
    script.send(renewal(id(1), "t")).unwrap();
    let error = script.send(renewal(id(1), "t")).unwrap_err();
    assert_eq!(error, Violation::DuplicateId(id(1)).into());

    let mut script = responder(None);
    script.send(renewal(id(1), "t")).unwrap();
    let error = script.send(Msg::continuation(Kind::Control, id(2), id(1))).unwrap_err();
    assert_eq!(error, Violation::WrongRole(id(1)).into(), "who asks does not answer");

    let mut script = initiator(None);
    script.connection.authenticate(script.now, Auth::bearer("t")).unwrap();
    let opening = one(script.read());
    let dropped = script.connection.stats().dropped;
    let verb = reply(&mut script, &opening).verb("later");
    script.send(verb).unwrap();
    assert_eq!(script.connection.stats().dropped, dropped + 1);
    let other = Msg { kind: Kind::Call, ..reply(&mut script, &opening) };
    assert_eq!(script.send(other).unwrap_err().code(), Code::PROTOCOL_VIOLATION);

    // An answer that comes twice answers nothing the second time.
    let mut script = initiator(None);
    script.connection.authenticate(script.now, Auth::bearer("t")).unwrap();
    let opening = one(script.read());
    for dropped in [0, 1] {
        let answer = reply(&mut script, &opening);
        script.send(answer).unwrap();
        assert_eq!(script.connection.stats().dropped, dropped);
    }
    assert_eq!(script.events().len(), 1);
}

// spec: §6.11
#[test]
fn what_may_not_be_sent_is_not_renewed() {
    let open = config(|_| ());
    let mut script = Script::initiator(&open);
    let renew = |script: &mut Script, auth| script.connection.authenticate(script.now, auth);
    assert_eq!(renew(&mut script, Auth::bearer("t")), Err(AuthError::InClear));
    let mut script = Script::initiator(&config(|c| c.clear_auth = true));
    assert!(renew(&mut script, Auth::bearer("t")).is_ok());

    let mut script = Script::dialled(&open, Dial::confidential());
    assert_eq!(renew(&mut script, Auth::bearer("t")), Err(AuthError::NotEstablished));
    let mut waiting = Connection::waiting(open, Instant::ZERO, ids(1));
    assert_eq!(waiting.authenticate(Instant::ZERO, Auth::bearer("t")), Err(AuthError::NotEstablished));

    let mut script = initiator(None);
    let large = "x".repeat(1 << 20);
    assert_eq!(renew(&mut script, Auth::bearer(large)), Err(AuthError::TooLarge));
    assert!(script.read().is_empty());
    script.connection.close(script.now, None);
    assert_eq!(renew(&mut script, Auth::bearer("t")), Err(AuthError::Closed));
}

// spec: §8.8
#[test]
fn a_renewal_without_an_answer_ends_with_its_link() {
    let mut script = initiator(None);
    let renewal = script.connection.authenticate(script.now, Auth::bearer("t")).unwrap();
    script.connection.handle_eof(script.now, 0).unwrap_err();
    let [Event::Authenticated { id: ended, result: Err(error) }, Event::Closed(_)] = &script.events()[..]
    else {
        panic!("no end of the renewal")
    };
    assert_eq!((*ended, error.code), (renewal, Code::UNAVAILABLE));

    let mut script = responder(None);
    script.send(self::renewal(id(1), "t")).unwrap();
    script.events();
    let lost = script.connection.handle_eof(script.now, 0).unwrap_err();
    assert!(matches!(lost, ConnectionError::LinkLost { .. }));
    assert_eq!(script.connection.answer_auth(id(1), Ok(None)), Err(Gone));
}
