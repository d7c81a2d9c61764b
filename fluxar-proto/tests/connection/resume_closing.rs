//! The end of a connection while its session is about to go on over a new link (§6.1, §8.7, §9.7).

use fluxar_proto::message::{Kind, verb};

use crate::support::{A, B, Duo, Msg, blob, closed, one, options, requests, survivors, uint};

/// A session whose initiator has an answer to give, and no link.
fn with_an_answer() -> Duo {
    let [a, b] = survivors(|_| {});
    let mut duo = Duo::established(&a, &b);
    let now = duo.now;
    duo.b().call(now, "m", uint(1), options()).unwrap();
    duo.drive();
    let request = one(requests(&duo.events_of_a()));
    duo.break_link();
    duo.a.respond(request.id, Ok(uint(2))).unwrap();
    duo
}

// spec: §6.1, §8.7
#[test]
fn who_closes_before_the_answer_has_come_sends_nothing_of_the_session() {
    let mut duo = with_an_answer();
    let now = duo.now;
    let link = duo.connect();
    duo.hold_back(link, 0);
    duo.offer_len();
    duo.a.close(now, None);
    duo.drive();
    let sent = Msg::decode_all(&duo.links[link].sent[A]);
    let sent = sent.iter().map(|message| (message.kind, message.target.as_deref())).collect::<Vec<_>>();
    assert_eq!(sent, [(Kind::Hello, None), (Kind::Control, Some(verb::CLOSE))]);
    assert!(duo.a.is_closed());
    duo.let_go(link);
    duo.drive();
    assert_eq!(closed(&duo.links[link].sent[B]), None, "a close is not answered");
}

// spec: §8.7, §9.1
#[test]
fn what_was_kept_goes_with_the_session() {
    let [a, b] = survivors(|_| {});
    let mut duo = Duo::established(&a, &b);
    let now = duo.now;
    let link = duo.links.len() - 1;
    duo.hold_back(link, 0);
    duo.a.call(now, "m", blob(100_000), options()).unwrap();
    duo.b().call(now, "m", blob(100_000), options()).unwrap();
    duo.drive();
    assert_eq!(duo.kept(), [1, 1]);
    // Whoever still holds a connection that has ended holds nothing of its session.
    duo.a.close(now, None);
    duo.drive();
    duo.let_go(link);
    duo.drive();
    assert!(duo.a.is_closed() && duo.b().is_closed());
    assert_eq!(duo.kept(), [0, 0]);
}
