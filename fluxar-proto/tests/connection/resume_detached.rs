//! What goes on while a session has no link, and how it ends without one (§8.4, §8.8, §9.1).

use fluxar_proto::message::verb;
use fluxar_proto::{
    CallError, Code, Config, ConnectionError, Dial, Event, PublishOptions, Qos, StreamOptions,
    SubscribeOptions, Timeout,
};

use crate::support::{
    A, B, Duo, Msg, closed, failed_with, ms, one, opened, options, outcomes, requests, resumes, survivors,
    uint, withdrawn,
};

fn duo(change: impl Fn(&mut Config)) -> Duo {
    let [a, b] = survivors(change);
    Duo::established(&a, &b)
}

/// Why there was no link any more, as often as that happened.
fn detached(events: &[Event]) -> Vec<ConnectionError> {
    let detached = events.iter().filter_map(|event| match event {
        Event::Detached(why) => Some(why.clone()),
        _ => None,
    });
    detached.collect()
}

/// The verbs and methods on the latest link, of what is neither control nor hello.
fn said(duo: &mut Duo, side: usize) -> Vec<String> {
    let messages = Msg::decode_all(&duo.link().sent[side]);
    let messages = messages.into_iter().filter(|message| {
        !matches!(message.kind, fluxar_proto::message::Kind::Hello | fluxar_proto::message::Kind::Control)
    });
    messages.map(|message| message.target.unwrap_or_default()).collect()
}

// spec: §8.8, §9.1, §9.7
#[test]
fn everything_may_be_asked_for_while_there_is_no_link() {
    let mut duo = duo(|_| {});
    let now = duo.now;
    let running = duo.a.call(now, "running", uint(1), options()).unwrap();
    duo.drive();
    let request = one(requests(&duo.events_of_b())).id;
    duo.break_link();
    duo.b().respond(request, Ok(uint(2))).unwrap();
    duo.a.call(now, "m", uint(3), options()).unwrap();
    duo.a.update(running, uint(4)).unwrap();
    let stream = duo.a.open_stream(now, "s", uint(5), StreamOptions::new()).unwrap();
    duo.a.send_item(stream, uint(6)).unwrap();
    duo.a.publish(now, "t", uint(7), PublishOptions::new().with_qos(Qos::AtLeastOnce)).unwrap();
    duo.a.subscribe(now, "u", SubscribeOptions::new()).unwrap();
    duo.b().call(now, "back", uint(8), options()).unwrap();
    assert_eq!(duo.a.ping(now), None, "a ping asks for the link");
    duo.wait(ms(30_000));
    duo.connect();
    duo.drive();
    let mut asked = said(&mut duo, A);
    asked.sort_unstable();
    assert_eq!(asked, ["", "m", "s", "t", "u", verb::UPDATE]);
    assert_eq!(said(&mut duo, B), ["", "back"]);
    let events = duo.events_of_b();
    assert_eq!((requests(&events).len(), opened(&events).len()), (1, 1));
    let events = duo.events_of_a();
    assert_eq!(one(outcomes(&mut duo.a, &events)), (running, Ok(uint(2))));
}

// spec: §9.7, §10.5, §11.7
#[test]
fn deadlines_run_on_without_a_link_and_the_other_side_is_told_later() {
    let mut duo = duo(|_| {});
    let now = duo.now;
    let timeout = |after| options().with_timeout(ms(after));
    let sent = duo.a.call(now, "sent", uint(1), timeout(5_000)).unwrap();
    let served = duo.b().call(now, "served", uint(2), timeout(5_000)).unwrap();
    duo.drive();
    let (at_a, at_b) = (duo.events_of_a(), duo.events_of_b());
    let (at_a, at_b) = (one(requests(&at_a)).id, one(requests(&at_b)).id);
    duo.break_link();
    let queued = duo.a.call(now, "queued", uint(3), timeout(5_000)).unwrap();
    let late = duo.a.call(now, "late", uint(4), timeout(9_000)).unwrap();
    duo.wait(ms(5_000));
    let events = duo.events_of_a();
    assert_eq!(one(withdrawn(&events)).0, at_a);
    let mut ended = outcomes(&mut duo.a, &events);
    ended.sort_by_key(|(call, _)| *call);
    let ended: Vec<_> = ended.iter().map(|(call, result)| (*call, failed_with(result))).collect();
    let exceeded = Code::DEADLINE_EXCEEDED;
    assert_eq!(ended, [(sent, (exceeded, None)), (queued, (exceeded, Some(false)))]);
    let events = duo.events_of_b();
    assert_eq!(one(withdrawn(&events)).0, at_b);
    assert_eq!(one(outcomes(duo.b(), &events)).0, served);
    duo.connect();
    duo.drive();
    // What was queued and is over is never sent. What was sent is cancelled; the one answer crosses that, the other one
    // need not be sent any more.
    assert_eq!(said(&mut duo, A), [verb::CANCEL, "late", ""]);
    assert_eq!(said(&mut duo, B), [verb::CANCEL]);
    let request = one(requests(&duo.events_of_b()));
    assert_eq!(request.deadline, Some(duo.now + ms(4_000)), "of call {late}");
}

// spec: §12.8
#[test]
fn no_time_counts_for_acknowledgements_while_there_is_no_link() {
    let mut duo = duo(|_| {});
    let now = duo.now;
    let options = PublishOptions::new().with_qos(Qos::AtLeastOnce);
    duo.a.publish(now, "t", uint(1), options).unwrap();
    duo.drive();
    let held = duo.b().poll_publication().unwrap();
    duo.wait(ms(10_000));
    for _ in 0..3 {
        duo.break_link();
        assert_eq!(
            duo.a.poll_timeout(),
            Some(duo.now + ms(60_000)),
            "the end of the session, and nothing else"
        );
        duo.wait(ms(50_000));
        duo.connect();
        duo.drive();
        assert_eq!(said(&mut duo, A), [""; 0], "it is not sent again because of a resume");
        duo.wait(ms(5_000));
    }
    // It was without an answer for 25 seconds with a link; after 30 it comes again.
    duo.wait(ms(4_999));
    assert_eq!(said(&mut duo, A), [""; 0]);
    duo.wait(ms(1));
    assert_eq!(said(&mut duo, A), ["t"]);
    duo.b().ack(held.id).unwrap();
    duo.drive();
    assert_eq!(duo.a.stats().publish_bytes, 128, "its fate waits to be taken");
}

// spec: §9.1, §8.8
#[test]
fn a_session_ends_when_its_time_without_a_link_is_over_on_each_side_by_itself() {
    let mut duo = duo(|c| c.resume_time = ms(5_000));
    let now = duo.now;
    duo.a.call(now, "m", uint(1), options()).unwrap();
    duo.b().call(now, "m", uint(2), options()).unwrap();
    duo.drive();
    duo.events_of_a();
    duo.events_of_b();
    // The initiator notices at once, the responder later.
    duo.cut(0, [0, 0]);
    duo.notice(0, A);
    duo.wait(ms(2_000));
    duo.notice(0, B);
    duo.wait(ms(2_999));
    assert!(duo.a.session_id().is_some());
    duo.wait(ms(1));
    assert_eq!(duo.a.session_id(), None);
    let events = duo.events_of_a();
    let lost = events.iter().find_map(|event| match event {
        Event::Lost(lost) => Some(lost.clone()),
        _ => None,
    });
    let lost = lost.unwrap();
    assert_eq!((lost.why, lost.calls), (ConnectionError::SessionLost, 1));
    assert_eq!(failed_with(&one(outcomes(&mut duo.a, &events)).1), (Code::UNAVAILABLE, None));
    assert!(duo.a.is_detached(), "a fresh session may come");
    duo.wait(ms(1_999));
    assert_eq!(duo.b().error(), None);
    duo.wait(ms(1));
    assert_eq!(duo.b().error(), Some(&ConnectionError::SessionLost));
    assert!(duo.b().is_closed());
    let events = duo.events_of_b();
    assert_eq!(failed_with(&one(outcomes(duo.b(), &events)).1), (Code::UNAVAILABLE, None));
    assert!(matches!(events.last(), Some(Event::Closed(ConnectionError::SessionLost))));
    duo.connect();
    duo.drive();
    assert_eq!(duo.b.len(), 2);
    assert!(matches!(duo.events_of_a()[..], [Event::Established]));
}

// spec: §9.1, §9.10
#[test]
fn attempts_that_fail_give_a_session_no_more_time() {
    let mut duo = duo(|c| c.resume_time = ms(25_000));
    duo.break_link();
    for _ in 0..2 {
        // Nobody answers.
        let link = duo.connect();
        duo.cut(link, [0, 0]);
        duo.wait(ms(10_000));
        assert!(duo.a.is_detached());
        let why = detached(&duo.events_of_a());
        assert_eq!(why.last(), Some(&ConnectionError::TimedOut(Timeout::Handshake)));
    }
    assert!(duo.a.session_id().is_some());
    duo.wait(ms(5_000));
    assert_eq!(duo.a.session_id(), None);
    // Also where an attempt is under way then: it fails, and the session with it.
    let mut duo = self::duo(|c| c.resume_time = ms(5_000));
    duo.break_link();
    let link = duo.connect();
    duo.cut(link, [0, 0]);
    duo.wait(ms(10_000));
    assert!(duo.a.is_detached() && duo.a.session_id().is_none());
}

// spec: §9.1, §8.7
#[test]
fn closing_ends_a_session_without_a_link_at_once() {
    for side in [A, B] {
        let mut duo = duo(|_| {});
        let now = duo.now;
        duo.a.call(now, "m", uint(1), options()).unwrap();
        duo.b().call(now, "m", uint(1), options()).unwrap();
        duo.drive();
        duo.events_of_a();
        duo.events_of_b();
        duo.break_link();
        let connection = if side == A { &mut duo.a } else { duo.b() };
        connection.close(now, None);
        assert!(connection.is_closed() && !connection.is_detached());
        assert_eq!(connection.call(now, "m", uint(1), options()), Err(CallError::Closed));
        let events = if side == A { duo.events_of_a() } else { duo.events_of_b() };
        assert!(matches!(events.last(), Some(Event::Closed(ConnectionError::ClosedLocally(None)))));
        let connection = if side == A { &mut duo.a } else { duo.b() };
        let ended = one(outcomes(connection, &events)).1;
        assert_eq!(failed_with(&ended), (Code::UNAVAILABLE, None));
        if side == B {
            // It is not there any more for whoever comes.
            duo.connect();
            duo.drive();
            assert_eq!(duo.b.len(), 2);
            assert!(duo.events_of_a().iter().any(|event| matches!(event, Event::Lost(_))));
        } else {
            assert_eq!(duo.a.reconnect(now, Dial::default()), Ok(false));
        }
    }
}

// spec: §8.4, §8.8
#[test]
fn a_silent_link_is_given_up_within_three_intervals_without_a_word() {
    let mut duo = duo(|c| c.limits.heartbeat_ms = 1_000);
    let now = duo.now;
    duo.wait(ms(10_000));
    assert!(!duo.a.is_detached() && !duo.b().is_detached());
    duo.cut(0, [0, 0]);
    duo.wait(ms(3_100));
    let why = ConnectionError::TimedOut(Timeout::Heartbeat);
    for events in [duo.events_of_a(), duo.events_of_b()] {
        assert_eq!(one(detached(&events)), why);
    }
    assert_eq!([A, B].map(|side| closed(&duo.links[0].sent[side])), [None, None]);
    assert!(duo.a.poll_timeout().is_some_and(|at| at > now + ms(50_000)), "no heartbeat without a link");
    duo.connect();
    duo.wait(ms(10_000));
    assert_eq!((resumes(&duo.events_of_a()), resumes(&duo.events_of_b())), (vec![0], vec![0]));
    assert!(!duo.a.is_detached() && !duo.b().is_detached());
    assert!(duo.a.stats().rtt.is_some());
}

// spec: §8.4
#[test]
fn a_busy_resumable_link_sends_no_pings() {
    let mut duo = duo(|c| c.limits.heartbeat_ms = 1_000);
    for n in 0..100 {
        let now = duo.now;
        duo.a.call(now, "m", uint(n), options()).unwrap();
        duo.drive();
        for request in requests(&duo.events_of_b()) {
            duo.b().respond(request.id, Ok(request.payload)).unwrap();
        }
        duo.wait(ms(100));
    }
    for side in [A, B] {
        let messages = Msg::decode_all(&duo.links[0].sent[side]);
        assert!(messages.iter().all(|message| message.target.as_deref() != Some(verb::PING)));
    }
}

// spec: §9.7, §8.3
#[test]
fn pings_that_were_not_answered_are_forgotten_with_their_link() {
    let mut duo = duo(|_| {});
    let now = duo.now;
    duo.cut(0, [0, 0]);
    while duo.a.ping(now).is_some() {
        duo.drive();
    }
    duo.break_link();
    duo.connect();
    duo.drive();
    duo.events_of_a();
    // There is room for others, and none of the old ones is sent.
    let ping = duo.a.ping(now).unwrap();
    duo.drive();
    assert!(matches!(one(duo.events_of_a()), Event::Pong { ping: id, .. } if id == ping));
    let pings = Msg::decode_all(&duo.links[1].sent[A]).into_iter();
    assert_eq!(pings.filter(|message| message.target.as_deref() == Some(verb::PING)).count(), 1);
}

// spec: §9.5
#[test]
fn of_the_new_hellos_only_the_heartbeat_counts() {
    // What the initiator offers for the second link is more, or less, than its session has.
    let [a, b] = survivors(|c| (c.limits.heartbeat_ms, c.limits.max_calls) = (5_000, 3));
    let mut duo = Duo::established(&a, &b);
    duo.break_link();
    duo.configure(|c| (c.limits.heartbeat_ms, c.limits.max_calls, c.stream) = (700, 1, false));
    duo.connect();
    duo.drive();
    let now = duo.now;
    assert_eq!(duo.a.call_room(), 3);
    duo.a.open_stream(now, "s", uint(0), StreamOptions::new()).unwrap();
    duo.cut(1, [0, 0]);
    duo.wait(ms(2_100));
    assert!(duo.a.is_detached());
}
