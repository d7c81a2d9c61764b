//! Links of one session that come while another one is there, or seems to be (§9.6 to §9.8).

use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{Code, Config, ConnectionError, Event, Timeout};

use crate::support::{
    A, B, Duo, Msg, closed, ms, one, options, outcomes, requests, resumes, survivors, uint,
};

fn duo() -> Duo {
    duo_with(|_| {})
}

fn duo_with(change: impl Fn(&mut Config)) -> Duo {
    let [a, b] = survivors(change);
    Duo::established(&a, &b)
}

/// The initiator's network is gone, and only it knows.
fn half_open(duo: &mut Duo) {
    duo.cut(0, [0, 0]);
    duo.notice(0, A);
    duo.drive();
    assert!(duo.a.is_detached() && !duo.b().is_detached());
}

/// A call of each side is made and answered.
#[track_caller]
fn talk(duo: &mut Duo) {
    let now = duo.now;
    duo.a.call(now, "m", uint(1), options()).unwrap();
    duo.b().call(now, "m", uint(2), options()).unwrap();
    duo.drive();
    for request in requests(&duo.events_of_b()) {
        duo.b().respond(request.id, Ok(request.payload)).unwrap();
    }
    for request in requests(&duo.events_of_a()) {
        duo.a.respond(request.id, Ok(request.payload)).unwrap();
    }
    duo.drive();
    let events = duo.events_of_a();
    assert_eq!(one(outcomes(&mut duo.a, &events)).1, Ok(uint(1)));
    let events = duo.events_of_b();
    assert_eq!(one(outcomes(duo.b(), &events)).1, Ok(uint(2)));
}

// spec: §9.8, §9.6
#[test]
fn a_link_that_is_dead_to_one_side_only_gives_way_and_is_closed_without_a_word() {
    let mut duo = duo();
    half_open(&mut duo);
    let now = duo.now;
    // This one is written into the void.
    duo.b().call(now, "lost", uint(7), options()).unwrap();
    duo.drive();
    let before = duo.links[0].sent[B].len();
    let number = duo.b().link();
    duo.connect();
    duo.drive();
    assert_eq!((duo.b.len(), duo.b().link() == number), (1, false));
    assert!(duo.links[0].is_dropped() && !duo.links[1].is_dropped());
    assert_eq!(duo.links[0].sent[B].len(), before, "nothing more is said on the old link");
    assert_eq!(resumes(&duo.events_of_b()), [1]);
    let events = duo.events_of_a();
    assert_eq!(resumes(&events), [0]);
    assert_eq!(&*one(requests(&events)).method, "lost");
    calm(&mut duo);
    talk(&mut duo);
}

/// Until nothing moves, and what has happened is of no interest.
fn calm(duo: &mut Duo) {
    duo.drive();
    duo.events_of_a();
    duo.events_of_b();
}

// spec: §9.6, §9.8
#[test]
fn the_first_message_of_the_initiator_confirms_and_before_it_nothing_is_said_anywhere() {
    let mut duo = duo();
    half_open(&mut duo);
    let now = duo.now;
    duo.connect();
    // The offer comes, and the answer does not.
    duo.cut(1, [0, usize::MAX]);
    duo.drive();
    assert!(duo.b().is_frozen() && !duo.a.is_detached());
    let said = |duo: &Duo| [duo.links[0].sent[B].len(), duo.links[1].sent[B].len()];
    let before = said(&duo);
    duo.b().call(now, "m", uint(1), options()).unwrap();
    duo.wait(ms(9_000));
    assert_eq!(said(&duo), before);
    assert!(!duo.b().wants_transmit());
    assert_eq!(Msg::decode_all(&duo.links[1].sent[B]).len(), 1, "the answer alone");
}

// spec: §9.6
#[test]
fn the_number_of_handled_messages_goes_ahead_of_everything() {
    let mut duo = duo();
    let now = duo.now;
    duo.a.call(now, "lost", uint(1), options()).unwrap();
    duo.b().call(now, "m", uint(2), options()).unwrap();
    duo.cut(0, [usize::MAX, 0]);
    duo.drive();
    let request = one(requests(&duo.events_of_a())).id;
    duo.break_link();
    duo.a.respond(request, Ok(uint(3))).unwrap();
    duo.connect();
    duo.drive();
    let messages = Msg::decode_all(&duo.links[1].sent[A]);
    let kinds: Vec<_> = messages.iter().map(|message| message.kind).collect();
    assert_eq!(kinds, [Kind::Hello, Kind::Control, Kind::Call, Kind::Call]);
    assert_eq!(messages[1].target.as_deref(), Some(verb::HANDLED));
    assert_eq!(messages[1].payload, uint(1).as_bytes());
    assert_eq!((messages[2].target.as_deref(), messages[3].target.as_deref()), (Some("lost"), None));
}

// spec: §6.9, §9.6, §9.10
#[test]
fn an_offer_that_comes_too_slowly_costs_the_session_nothing() {
    let mut duo = duo();
    duo.break_link();
    duo.events_of_a();
    // The responder loses its patience before the initiator does.
    duo.configure(|c| c.handshake_timeout = ms(3_000));
    let link = duo.connect();
    duo.hold_back(link, 30);
    duo.wait(ms(3_000));
    assert_eq!(closed(&duo.links[link].sent[B]), Some(Some(Code::DEADLINE_EXCEEDED)));
    assert!(duo.a.is_detached() && duo.a.session_id().is_some());
    duo.connect();
    duo.drive();
    assert_eq!(resumes(&duo.events_of_a()), [0]);
    calm(&mut duo);
    talk(&mut duo);
}

// spec: §9.8, §6.9, §8.7
#[test]
fn without_a_confirmation_the_old_link_goes_on_and_the_new_one_ends_without_a_close() {
    let mut duo = duo();
    // The initiator believes that its link is dead; it is only slow.
    duo.notice(0, A);
    duo.links[0].hold();
    duo.drive();
    duo.connect();
    // The answer comes, and its confirmation does not.
    let offer = duo.offer_len();
    duo.cut(1, [usize::MAX, offer]);
    duo.drive();
    assert!(duo.b().is_frozen());
    assert_eq!(resumes(&duo.events_of_a()), [0], "to the initiator it is done");
    duo.wait(ms(9_999));
    assert!(duo.b().is_frozen());
    duo.wait(ms(1));
    assert!(!duo.b().is_frozen() && duo.links[1].is_dropped());
    assert_eq!(closed(&duo.links[1].sent[B]), None);
    assert!(duo.a.is_detached(), "the end of the link is all that the initiator sees");
    duo.connect();
    duo.drive();
    assert_eq!((resumes(&duo.events_of_a()), resumes(&duo.events_of_b())), (vec![0], vec![0]));
    talk(&mut duo);
}

// spec: §9.8
#[test]
fn a_new_link_that_is_lost_before_it_is_confirmed_leaves_everything_as_it_was() {
    for answered in [false, true] {
        let mut duo = duo();
        let now = duo.now;
        half_open(&mut duo);
        duo.b().call(now, "kept", uint(7), options()).unwrap();
        duo.drive();
        for _ in 0..3 {
            duo.connect();
            let link = duo.links.len() - 1;
            let offer = duo.offer_len();
            duo.cut(link, [if answered { usize::MAX } else { 0 }, offer]);
            duo.drive();
            assert!(duo.b().is_frozen());
            duo.notice(link, A);
            duo.notice(link, B);
            duo.drive();
            assert!(!duo.b().is_frozen() && !duo.b().is_detached() && duo.a.is_detached());
        }
        duo.connect();
        duo.drive();
        assert_eq!(one(requests(&duo.events_of_a())).payload, uint(7));
        assert_eq!(duo.b.len(), 1);
    }
}

// spec: §9.8
#[test]
fn the_old_link_may_end_while_a_new_one_is_tried() {
    for confirmed in [false, true] {
        let mut duo = duo();
        half_open(&mut duo);
        duo.connect();
        let offer = duo.offer_len();
        duo.hold_back(1, offer);
        duo.drive();
        assert!(duo.b().is_frozen());
        let now = duo.now;
        duo.b().abort(now, ConnectionError::LinkLost { unread: 0 });
        assert!(duo.b().is_detached());
        if confirmed {
            duo.let_go(1);
            duo.drive();
            calm(&mut duo);
            talk(&mut duo);
        } else {
            duo.cut(1, [0, 0]);
            duo.let_go(1);
            duo.notice(1, A);
            duo.notice(1, B);
            duo.drive();
            // It has been without a link since the old one was lost.
            assert!(duo.b().is_detached() && !duo.b().is_frozen());
            duo.wait(ms(60_000));
            assert_eq!(duo.b().error(), Some(&ConnectionError::SessionLost));
        }
    }
}

// spec: §9.8
#[test]
fn of_several_new_links_the_latest_valid_one_wins() {
    let mut duo = duo();
    half_open(&mut duo);
    duo.connect();
    let offer = duo.offer_len();
    duo.hold_back(1, offer);
    duo.drive();
    duo.events_of_a();
    // The initiator gives this link up, whose confirmation is still on its way.
    duo.notice(1, A);
    duo.drive();
    assert!(duo.a.is_detached() && duo.b().is_frozen());
    duo.connect();
    let offer = duo.offer_len();
    duo.hold_back(2, offer);
    duo.drive();
    // The confirmation of the first comes too late.
    duo.let_go(1);
    duo.drive();
    assert!(duo.links[1].is_dropped() && duo.b().is_frozen());
    assert_eq!(closed(&duo.links[1].sent[B]), None);
    duo.let_go(2);
    duo.drive();
    assert!(!duo.b().is_frozen() && !duo.links[2].is_dropped());
    assert_eq!(duo.b().stats().resumed, 1);
    calm(&mut duo);
    talk(&mut duo);
}

// spec: §9.6, §9.8
#[test]
fn a_resumed_link_may_be_lost_at_once_again_and_again() {
    let mut duo = duo();
    let now = duo.now;
    duo.a.call(now, "m", uint(1), options()).unwrap();
    duo.cut(0, [0, 0]);
    duo.drive();
    duo.break_link();
    for n in 1..6 {
        duo.connect();
        // The confirmation comes, and nothing behind it.
        let confirmation = duo.offer_len() + confirmation_len();
        let link = duo.links.len() - 1;
        duo.cut(link, [usize::MAX, confirmation]);
        duo.drive();
        assert_eq!(duo.b().stats().resumed, n);
        duo.break_link();
        assert!(duo.a.is_detached() && duo.b().is_detached());
    }
    duo.connect();
    duo.drive();
    assert_eq!(one(requests(&duo.events_of_b())).payload, uint(1));
}

/// How long `control handled` is with a small number, its frame included.
fn confirmation_len() -> usize {
    let message = Msg::opening(Kind::Control, crate::support::id(1), verb::HANDLED);
    message.payload(uint(0)).frame().len()
}

// spec: §8.4, §9.1
#[test]
fn while_a_new_link_is_tried_the_silence_of_the_old_one_means_nothing() {
    let mut duo = duo_with(|c| c.limits.heartbeat_ms = 1_000);
    half_open(&mut duo);
    duo.wait(ms(2_500));
    duo.connect();
    let offer = duo.offer_len();
    duo.hold_back(1, offer);
    duo.drive();
    duo.wait(ms(2_000));
    assert!(duo.b().is_frozen() && !duo.b().is_detached());
    // Abandoned, the old link has its time again: it could not be read meanwhile.
    duo.cut(1, [0, 0]);
    duo.let_go(1);
    duo.notice(1, A);
    duo.notice(1, B);
    duo.drive();
    duo.wait(ms(2_900));
    assert!(!duo.b().is_detached());
    duo.wait(ms(200));
    let detached = duo.events_of_b().into_iter().find_map(|event| match event {
        Event::Detached(why) => Some(why),
        _ => None,
    });
    assert_eq!(detached, Some(ConnectionError::TimedOut(Timeout::Heartbeat)));
}
