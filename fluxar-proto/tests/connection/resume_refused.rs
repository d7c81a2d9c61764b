//! Offers to go on that are wrong, stolen, repeated or too late (§9.5, §9.6, §9.9).

use bytes::BytesMut;
use fluxar_proto::message::Kind;
use fluxar_proto::{
    Code, ConnectionError, Error, Event, Id, Incoming, Progress, ResumeOffer, ResumeRefused, SessionId,
    TransmitBuf, Violation,
};

use crate::support::{A, B, Duo, Msg, config, ids, ms, one, options, requests, resumes, survivors, uint};

fn duo() -> Duo {
    let [a, b] = survivors(|_| {});
    Duo::established(&a, &b)
}

/// A session whose link is lost on both sides.
fn detached() -> Duo {
    let mut duo = duo();
    duo.break_link();
    duo.events_of_a();
    duo.events_of_b();
    duo
}

/// What the initiator offers on a link that leads nowhere.
fn offer(duo: &mut Duo) -> (ResumeOffer, Id, Vec<u8>) {
    let link = duo.connect();
    duo.hold_back(link, 0);
    let len = duo.offer_len();
    let bytes = duo.link().sent[A][..len].to_vec();
    duo.cut(link, [0, 0]);
    duo.notice(link, A);
    duo.drive();
    let incoming = Incoming::new(config(|_| {}), duo.now, ids(1));
    let mut input = BytesMut::from(&bytes[..]);
    let Ok(Progress::Offered(offered)) = incoming.handle_input(duo.now, &mut input, &mut TransmitBuf::new())
    else {
        panic!("an offer")
    };
    (offered.offer().resume.clone().expect("a session to go on with"), offered.id(), bytes)
}

/// The rightful initiator comes, and finds everything as it was.
#[track_caller]
fn goes_on(duo: &mut Duo) {
    let now = duo.now;
    if !duo.a.is_detached() {
        duo.break_link();
    }
    duo.a.call(now, "m", uint(1), options()).unwrap();
    duo.connect();
    duo.drive();
    assert_eq!(resumes(&duo.events_of_a()).len(), 1);
    let events = duo.numbered_events_of_b().into_iter();
    let served = events.filter_map(|(session, event)| requests(&[event]).pop().map(|_| session));
    assert_eq!(one(served.collect()), 0, "the session that was there");
}

// spec: §9.6, §9.9
#[test]
fn a_proof_that_is_wrong_in_any_bit_is_refused_and_costs_the_session_nothing() {
    let mut duo = detached();
    let (right, id, _) = offer(&mut duo);
    let now = duo.now;
    let mut wrong = vec![];
    for bit in [0, 7, 100, 255] {
        let mut offer = right.clone();
        offer.proof[bit / 8] ^= 1 << (bit % 8);
        wrong.push((offer, id));
    }
    // For another session, and of another offer.
    let mut other = right.clone();
    other.session = SessionId::from_bytes([7; 16]);
    wrong.push((other, id));
    wrong.push((right.clone(), crate::support::id(3)));
    for (offer, id) in wrong {
        let refused = duo.b().take_up(now, &offer, id).unwrap_err();
        assert_eq!(refused, ResumeRefused::Unknown);
        assert!(!duo.b().is_frozen() && duo.b().is_detached());
    }
    let attempt = duo.b().take_up(now, &right, id).unwrap().attempt();
    assert!(duo.b().is_frozen());
    duo.b().abandon(now, attempt);
    goes_on(&mut duo);
}

// spec: §9.9, §9.6
#[test]
fn a_wrong_proof_and_an_unknown_session_look_the_same_and_lead_to_a_fresh_session() {
    let mut answers = vec![];
    for known in [true, false] {
        let mut duo = detached();
        let (offer, _, mut bytes) = offer(&mut duo);
        let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|at| at == what).unwrap();
        let at = if known { find(&bytes, &offer.proof) } else { find(&bytes, offer.session.as_bytes()) };
        bytes[at] ^= 1;
        let link = duo.rogue(&bytes);
        duo.drive();
        let answer = one(Msg::decode_all(&duo.links[link].sent[B]));
        assert_eq!((answer.kind, &answer.error), (Kind::Hello, &None));
        answers.push((answer.payload.len(), answer.meta));
        assert_eq!(duo.b.len(), 2, "another session");
        goes_on(&mut duo);
    }
    assert_eq!(answers[0], answers[1]);
}

// spec: §9.6, §9.8, §17.5
#[test]
fn who_repeats_an_offer_delays_a_link_for_ten_seconds_and_learns_nothing() {
    let mut duo = detached();
    let (_, _, bytes) = offer(&mut duo);
    duo.connect();
    let honest = duo.links.len() - 1;
    // The honest answer is lost, so that the recorded offer holds still.
    duo.cut(honest, [0, usize::MAX]);
    duo.drive();
    duo.cut(honest, [0, 0]);
    duo.notice(honest, A);
    duo.notice(honest, B);
    duo.drive();
    let now = duo.now;
    duo.b().call(now, "secret", uint(7), options()).unwrap();
    let rogue = duo.rogue(&bytes);
    duo.drive();
    assert!(duo.b().is_frozen());
    duo.wait(ms(10_000));
    assert!(!duo.b().is_frozen() && duo.links[rogue].is_dropped());
    let said = Msg::decode_all(&duo.links[rogue].sent[B]);
    assert_eq!(said.len(), 1, "the answer, and nothing of the session");
    assert_eq!(duo.b.len(), 1);
    duo.connect();
    duo.drive();
    assert_eq!(one(requests(&duo.events_of_a())).payload, uint(7));
}

// spec: §9.6, §17.5
#[test]
fn an_offer_is_good_once_whatever_is_changed_about_it() {
    let mut duo = detached();
    let (first, first_id, _) = offer(&mut duo);
    let (second, second_id, _) = offer(&mut duo);
    let now = duo.now;
    for (offer, id) in [(&first, first_id), (&second, second_id)] {
        let attempt = duo.b().take_up(now, offer, id).unwrap().attempt();
        duo.b().abandon(now, attempt);
    }
    // It is not the owner who comes with one of them again: the proof is not about the number.
    for (offer, id) in [(&first, first_id), (&second, second_id)] {
        for handled in [0, offer.handled, u64::MAX] {
            let mut offer = offer.clone();
            offer.handled = handled;
            assert_eq!(duo.b().take_up(now, &offer, id).unwrap_err(), ResumeRefused::Unknown);
            assert!(!duo.b().is_frozen() && duo.b().is_detached());
        }
    }
    goes_on(&mut duo);
}

// spec: §9.6, §9.8, §17.5
#[test]
fn who_repeats_the_offer_of_an_attempt_that_is_under_way_does_not_get_in_between() {
    let mut duo = detached();
    let now = duo.now;
    duo.b().call(now, "secret", uint(7), options()).unwrap();
    let honest = duo.connect();
    let len = duo.offer_len();
    let bytes = duo.link().sent[A][..len].to_vec();
    // The confirmation is under way.
    duo.hold_back(honest, len);
    duo.drive();
    let rogue = duo.rogue(&bytes);
    duo.drive();
    assert!(duo.b[0].is_frozen());
    assert_eq!(duo.b.len(), 2, "a fresh session, as for anybody");
    duo.let_go(honest);
    duo.drive();
    assert!(!duo.b[0].is_frozen() && !duo.links[honest].is_dropped());
    assert_eq!(one(requests(&duo.events_of_a())).payload, uint(7));
    assert_eq!(Msg::decode_all(&duo.links[rogue].sent[B]).len(), 1);
}

// spec: §9.6
#[test]
fn once_a_link_is_confirmed_offers_with_the_secret_before_are_wrong() {
    let mut duo = detached();
    let (_, _, bytes) = offer(&mut duo);
    goes_on(&mut duo);
    let rogue = duo.rogue(&bytes);
    duo.drive();
    assert!(!duo.b[0].is_frozen());
    assert_eq!((duo.b.len(), Msg::decode_all(&duo.links[rogue].sent[B]).len()), (2, 1));
    duo.break_link_of(rogue - 1);
    goes_on(&mut duo);
}

// spec: §9.6
#[test]
fn until_a_link_is_confirmed_the_secret_before_counts_as_well() {
    let mut duo = detached();
    let now = duo.now;
    // Three answers do not arrive: the initiator has the first secret still.
    for _ in 0..3 {
        let link = duo.connect();
        duo.cut(link, [0, usize::MAX]);
        duo.drive();
        duo.notice(link, A);
        duo.notice(link, B);
        duo.drive();
        assert!(duo.a.is_detached() && duo.b().is_detached());
    }
    // Then one does, and its confirmation does not: the initiator has the next one.
    for _ in 0..3 {
        let link = duo.connect();
        let offer = duo.offer_len();
        duo.cut(link, [usize::MAX, offer]);
        duo.drive();
        assert!(!duo.a.is_detached());
        duo.notice(link, A);
        duo.notice(link, B);
        duo.drive();
        assert!(duo.a.is_detached() && duo.b().is_detached());
    }
    duo.a.call(now, "m", uint(1), options()).unwrap();
    duo.connect();
    duo.drive();
    assert_eq!((duo.b.len(), requests(&duo.events_of_b()).len()), (1, 1));
}

// spec: §9.6, §9.3
#[test]
fn who_has_handled_more_than_was_sent_ends_the_session() {
    let mut duo = detached();
    let (mut offer, id, _) = offer(&mut duo);
    // The proof is not about the number: who has the secret may say what it likes.
    offer.handled += 1;
    let now = duo.now;
    let refused = duo.b().take_up(now, &offer, id).unwrap_err();
    let why = ConnectionError::from(Violation::WrongCount);
    assert_eq!(refused, ResumeRefused::Violation(why.clone()));
    assert_eq!(duo.b().error(), Some(&why));
    assert!(duo.b().is_closed(), "there is no link to tell it on");
    assert!(matches!(duo.events_of_b().last(), Some(Event::Closed(_))));
}

// spec: §9.6, §9.3
#[test]
fn who_has_handled_less_than_it_said_before_is_taken_for_a_repetition() {
    let mut duo = duo();
    let now = duo.now;
    duo.b().call(now, "m", uint(1), options()).unwrap();
    duo.drive();
    duo.wait(ms(1_000));
    assert_eq!(duo.kept(), [0, 0]);
    duo.break_link();
    duo.events_of_a();
    duo.events_of_b();
    let (mut offer, id, _) = offer(&mut duo);
    assert_eq!(offer.handled, 1);
    offer.handled = 0;
    assert_eq!(duo.b().take_up(now, &offer, id).unwrap_err(), ResumeRefused::Unknown);
    goes_on(&mut duo);
}

// spec: §9.6
#[test]
fn anything_but_the_confirmation_leaves_the_session_as_it_was() {
    for rest in [
        Msg::opening(Kind::Call, crate::support::id(9), "m").frame(),
        Msg::opening(Kind::Control, crate::support::id(9), "ping").frame(),
        Msg::opening(Kind::Control, crate::support::id(9), "close").frame(),
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 1, 0xff],
    ] {
        let mut duo = detached();
        let (_, _, bytes) = offer(&mut duo);
        let rogue = duo.rogue(&[bytes, rest].concat());
        duo.drive();
        assert!(duo.links[rogue].is_dropped());
        assert!(duo.b().is_detached() && !duo.b().is_frozen());
        assert_eq!(Msg::decode_all(&duo.links[rogue].sent[B]).len(), 1, "the answer alone");
        goes_on(&mut duo);
    }
}

// spec: §9.9, §9.10
#[test]
fn a_responder_that_does_not_know_the_session_leads_to_a_fresh_one() {
    for refuses in [false, true] {
        let mut duo = duo();
        let now = duo.now;
        duo.a.call(now, "plain", uint(1), options()).unwrap();
        duo.drive();
        duo.break_link();
        let late = duo.a.call(now, "late", uint(2), options()).unwrap();
        duo.events_of_a();
        duo.forget(refuses.then(|| Error::new(Code::SESSION_UNKNOWN, "who are you?")));
        duo.connect();
        duo.drive();
        if refuses {
            // It has to come again, without asking for what is gone.
            assert!(duo.a.is_detached() && duo.a.session_id().is_none());
            duo.forget(None);
            duo.connect();
            duo.drive();
        }
        let events = duo.events_of_a();
        let lost = events.iter().filter_map(|event| match event {
            Event::Lost(lost) => Some((lost.why.clone(), lost.calls)),
            _ => None,
        });
        assert_eq!(one(lost.collect()), (ConnectionError::SessionLost, 1));
        assert!(
            matches!(events.last(), Some(Event::Call(_)))
                || matches!(events.last(), Some(Event::Established))
        );
        let served = duo.numbered_events_of_b();
        let last = one(served
            .into_iter()
            .filter(|(session, _)| *session == 1)
            .filter_map(|(_, event)| requests(&[event]).pop())
            .collect());
        assert_eq!((&*last.method, last.id.wire_id()), ("late", late.wire_id()));
    }
}

// spec: §9.6
#[test]
fn an_answer_that_says_what_cannot_be_ends_the_session_at_the_initiator() {
    // The responder's number is above what was sent: that is told in its answer.
    let mut duo = duo();
    let now = duo.now;
    duo.a.call(now, "m", uint(1), options()).unwrap();
    duo.drive();
    duo.break_link();
    duo.connect();
    duo.tamper(|answer| {
        // `handled` is 1.
        let at = answer.windows(9).position(|at| at == b"\x67handled\x01").unwrap();
        answer[at + 8] = 2;
    });
    duo.drive();
    assert_eq!(duo.a.error(), Some(&Violation::WrongCount.into()));
    let [_offer, close] = &Msg::decode_all(&duo.link().sent[A])[..] else { panic!("an offer and a close") };
    assert_eq!(close.code(), Code::PROTOCOL_VIOLATION);
}
