//! Pings, and noticing that the other side is gone.

use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{Code, ConnectionError, Event, Timeout};

use crate::support::{A, B, Msg, Pair, Script, at, cbor, config, id, is_close, ms, one, options, uint};

fn is_ping(message: &Msg) -> bool {
    (message.kind, message.reference, message.target.as_deref()) == (Kind::Control, None, Some(verb::PING))
        && message.payload == [0xf6]
}

fn pong(script: &mut Script, ping: &Msg) {
    let reply = Msg::continuation(Kind::Control, script.id(), ping.id);
    script.send(reply).unwrap();
}

// spec: §8.4
#[test]
fn the_interval_is_the_smaller_one_that_is_not_zero() {
    let cases =
        [(0, 0, None), (0, 700, Some(700)), (700, 0, Some(700)), (900, 700, Some(700)), (1, 700, Some(100))];
    for (ours, theirs, interval) in cases {
        let answer = cbor(|out| {
            out.map(2)?.str("version")?.u8(1)?.str("limits")?.map(1)?.str("heartbeat_ms")?.u32(theirs)?.ok()
        });
        let script = Script::initiator_with(&config(|c| c.limits.heartbeat_ms = ours), answer);
        assert_eq!(script.connection.poll_timeout(), interval.map(at), "{ours} {theirs}");
    }
}

// spec: §8.4
#[test]
fn an_idle_link_is_pinged_once_in_an_interval_and_lives_on() {
    let mut script = Script::responder(&config(|c| c.limits.heartbeat_ms = 1000));
    for n in 1..=50 {
        script.wait(ms(999)).unwrap();
        assert!(!script.connection.wants_transmit());
        script.wait(ms(1)).unwrap();
        let ping = one(script.read());
        assert!(is_ping(&ping), "{n}");
        pong(&mut script, &ping);
        assert!(matches!(script.events()[..], [Event::Pong { ping: id, .. }] if id == ping.id));
    }
}

// spec: §8.4
#[test]
fn two_idle_peers_keep_each_other_alive_and_an_idle_second_side_need_not_ping() {
    let mut pair = Pair::established(&config(|c| c.limits.heartbeat_ms = 100));
    pair.wait(ms(10_050));
    assert!(pair.ends.iter().all(|end| end.error.is_none()));
    let sent = [0, 1].map(|end| Msg::decode_all(&pair.ends[end].sent).len());
    assert!(sent.iter().sum::<usize>() <= 2 + 4 * 100, "{sent:?}");
    assert!(pair.a().stats().rtt.is_some());
}

// spec: §8.4
#[test]
fn a_busy_link_sends_no_pings() {
    let mut pair = Pair::established(&config(|c| c.limits.heartbeat_ms = 100));
    for _ in 0..100 {
        let now = pair.now;
        let call = pair.a().call(now, "m", uint(1), options()).unwrap();
        pair.drive();
        let request = one(crate::support::requests(&pair.events(1)));
        pair.b().respond(request.id, Ok(uint(2))).unwrap();
        pair.drive();
        assert_eq!(one(pair.outcomes(0)).0, call);
        pair.wait(ms(90));
    }
    for end in [0, 1] {
        assert!(!Msg::decode_all(&pair.ends[end].sent).iter().any(is_ping), "{end}");
    }
}

// spec: §8.4
#[test]
fn a_busy_sender_that_hears_nothing_pings_too() {
    let mut script = Script::initiator(&config(|c| c.limits.heartbeat_ms = 1000));
    let call = script.connection.call(script.now, "m", uint(1), options()).unwrap();
    let mut pings = vec![];
    for tenth in 1..=25 {
        script.wait(ms(100)).unwrap();
        script.connection.update(call, uint(1)).unwrap();
        if script.read().iter().any(is_ping) {
            pings.push(tenth);
        }
    }
    assert_eq!(pings, [10, 20]);
}

// spec: §8.4
// spec: §19.6
#[test]
fn the_worked_example_of_a_failing_network_comes_out_to_the_millisecond() {
    let config = config(|c| c.limits.heartbeat_ms = 5000);
    let mut pair = Pair::new(&config, &config, 1);
    pair.latency = ms(15);
    pair.drive();
    assert_eq!(pair.now, at(30), "the example counts from the answer, 15 ms before");
    pair.latency = ms(10);
    let mut pings = [vec![], vec![]];
    let mut ends = [None, None];
    for now in 16..20_100 {
        pair.wait(ms(1));
        for end in [A, B] {
            let sent = std::mem::take(&mut pair.ends[end].sent);
            if Msg::decode_all(&sent).iter().any(is_ping) {
                pings[end].push(now);
            }
            if pair.ends[end].error.is_some() {
                ends[end].get_or_insert(now);
            }
        }
        if now == 7_000 {
            pair.lose();
        }
    }
    assert_eq!(pings, [vec![10_010, 15_010], vec![5_000, 10_000, 15_000, 20_000]]);
    assert_eq!(ends, [Some(20_010), Some(20_020)]);
}

// spec: §8.4
// spec: §8.3
#[test]
fn the_applications_pings_do_not_put_off_those_of_the_heartbeat() {
    let mut script = Script::responder(&config(|c| c.limits.heartbeat_ms = 1000));
    let mut sent = 0;
    for _ in 0..10 {
        script.wait(ms(200)).unwrap();
        script.connection.ping(script.now);
        sent += script.read().len();
    }
    assert_eq!(
        sent,
        7 + 2,
        "one of the heartbeat each second, and the rest of the eight that may be on the way"
    );
}

// spec: §8.4
// spec: §5.17
// limit: heartbeat_ms
#[test]
fn three_silent_intervals_are_the_end() {
    let mut script = Script::responder(&config(|c| c.limits.heartbeat_ms = 1000));
    script.wait(ms(500)).unwrap();
    script.send_bytes(&[0]).unwrap();
    script.wait(ms(2999)).unwrap();
    assert_eq!(script.read().iter().filter(|message| is_ping(message)).count(), 3);
    let error = script.wait(ms(1)).unwrap_err();
    assert_eq!(error, ConnectionError::TimedOut(Timeout::Heartbeat));
    assert!(is_close(&one(script.read()), Some(Code::HEARTBEAT_TIMEOUT)));
    assert!(script.connection.is_closed());
    assert_eq!(script.connection.poll_timeout(), None);
}

// spec: §8.4
// spec: §8.3
#[test]
fn any_byte_is_a_sign_of_life_and_pings_go_on_though_none_is_answered() {
    let mut script = Script::responder(&config(|c| c.limits.heartbeat_ms = 1000));
    script.send_bytes(&1000u32.to_be_bytes()).unwrap();
    let mut pings = 0;
    for _ in 0..40 {
        script.wait(ms(1000)).unwrap();
        pings += script.read().iter().filter(|message| is_ping(message)).count();
        script.send_bytes(&[0x87]).unwrap();
    }
    assert_eq!(pings, 40);
}

// spec: §8.4
#[test]
fn a_link_that_takes_nothing_queues_no_more_than_eight_pings() {
    let mut script = Script::responder(&config(|c| c.limits.heartbeat_ms = 1000));
    script.send_bytes(&1000u32.to_be_bytes()).unwrap();
    for _ in 0..100 {
        script.wait(ms(1000)).unwrap();
        script.send_bytes(&[0x87]).unwrap();
    }
    assert_eq!(script.read().len(), 8);
}

// spec: §8.3
#[test]
fn a_ping_is_answered_ahead_of_what_is_queued() {
    let mut script = Script::responder(&config(|_| ()));
    script.call("m");
    let request = one(crate::support::requests(&script.events())).id;
    script.connection.respond(request, Ok(uint(1))).unwrap();
    script.connection.call(script.now, "m", uint(1), options()).unwrap();
    script.send(Msg::opening(Kind::Control, id(70), verb::PING).payload(uint(3))).unwrap();
    let sent = script.read();
    assert_eq!(sent.len(), 3);
    assert_eq!(
        (sent[0].kind, sent[0].reference, &sent[0].payload[..]),
        (Kind::Control, Some(id(70)), &[0xf6][..])
    );
}

// spec: §8.3
#[test]
fn the_application_pings_and_learns_how_long_it_took() {
    let mut script = Script::initiator(&config(|_| ()));
    let ping = script.connection.ping(script.now).unwrap();
    let sent = one(script.read());
    assert!(is_ping(&sent) && sent.id == ping);
    script.wait(ms(30)).unwrap();
    pong(&mut script, &sent);
    assert!(matches!(script.events()[..], [Event::Pong { ping: id, rtt }] if id == ping && rtt == ms(30)));
    assert_eq!(script.connection.stats().rtt, Some(ms(30)));
    pong(&mut script, &sent);
    assert!(script.events().is_empty());
    assert_eq!(script.connection.stats().dropped, 1, "a second answer continues nothing");
}

// spec: §8.3
#[test]
fn eight_pings_may_be_on_the_way_and_an_answer_settles_those_before_it() {
    let mut script = Script::initiator(&config(|c| c.limits.heartbeat_ms = 0));
    let pings = [(); 8].map(|()| script.connection.ping(script.now).unwrap());
    assert_eq!(script.connection.ping(script.now), None);
    let sent = script.read();
    assert_eq!(sent.iter().map(|ping| ping.id).collect::<Vec<_>>(), pings);
    assert_eq!(script.connection.ping(script.now), None);
    pong(&mut script, &sent[6]);
    assert!(matches!(script.events()[..], [Event::Pong { ping, .. }] if ping == pings[6]));
    pong(&mut script, &sent[0]);
    assert!(script.events().is_empty(), "the peer has skipped it");
    for _ in 0..7 {
        assert!(script.connection.ping(script.now).is_some());
    }
    assert_eq!(script.connection.ping(script.now), None);
}

// spec: §8.3
#[test]
fn there_are_no_pings_before_the_handshake_or_after_the_end() {
    let mut script = Script::offered_by(&config(|_| ()));
    assert_eq!(script.connection.ping(script.now), None);
    let mut script = Script::initiator(&config(|_| ()));
    script.connection.close(script.now, None);
    assert_eq!(script.connection.ping(script.now), None);
    script.read();
    script.wait(ms(60_000)).unwrap();
    assert!(script.read().is_empty());
}

// spec: §8.4
#[test]
fn early_spurious_and_late_timers_are_harmless() {
    let mut script = Script::responder(&config(|c| c.limits.heartbeat_ms = 1000));
    for tenth in 0..10 {
        script.now = at(tenth * 100);
        for _ in 0..3 {
            script.connection.handle_timeout(script.now).unwrap();
        }
        assert!(script.read().is_empty());
    }
    script.now = at(2400);
    for _ in 0..3 {
        script.connection.handle_timeout(script.now).unwrap();
    }
    assert!(is_ping(&one(script.read())), "one, however late and often");
    assert_eq!(script.connection.poll_timeout(), Some(at(3000)));
}

// spec: §8.4
#[test]
fn input_that_brings_no_new_bytes_is_no_sign_of_life() {
    let mut script = Script::initiator(&config(|c| c.limits.heartbeat_ms = 1000));
    for left in [0, 3] {
        script.input.extend_from_slice(&[0; 3][..left]);
        for _ in 0..2 {
            script.send_bytes(&[]).unwrap();
            script.wait(ms(1200)).unwrap();
        }
        let Script { connection, input, now, .. } = &mut script;
        connection.handle_input(*now, input).unwrap();
        if left > 0 {
            let error = script.wait(ms(600)).unwrap_err();
            assert_eq!(error, ConnectionError::TimedOut(Timeout::Heartbeat));
        } else {
            script.send_bytes(&[]).unwrap();
            // A whole message is one, and leaves nothing.
            let ping = Msg::opening(Kind::Control, script.id(), verb::PING);
            script.send(ping).unwrap();
        }
    }
}
