//! Publications of ours, from queue to fate.

use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::topic::TopicError;
use fluxar_proto::{Code, Error, Event, Fate, Id, PubSubEvent, PublishError, PublishOptions, Qos, Resumed};

use crate::support::pubsub::{fates, numbers, pubsub_events, several, verbs};
use crate::support::{A, B, Msg, Pair, Script, blob, config, ms, one, uint};

fn options(qos: Qos) -> PublishOptions {
    PublishOptions::new().with_qos(qos)
}

/// The fates among everything that has happened.
fn fates_of(script: &mut Script) -> Vec<Fate> {
    let events = script.events();
    fates(&mut script.connection, &events)
}

fn nack(script: &mut Script, reference: Id, error: Error) {
    let nack = Msg::continuation(Kind::Message, script.id(), reference).verb(verb::NACK).error(error);
    script.send(nack).unwrap();
}

// spec: §12.5, §12.7, §12.8, §12.9
#[test]
fn each_mode_brings_its_messages_over_in_order() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut pair = Pair::established(&config(|c| c.limits.max_inflight = 4));
        let now = pair.now;
        for n in 0..20 {
            let id = pair.a().publish(now, "orders.new", uint(n), options(qos)).unwrap();
            assert_eq!(id.is_some(), qos > Qos::AtMostOnce, "at most once nobody learns what became of it");
        }
        let mut got = Vec::new();
        loop {
            pair.drive();
            let Some(publication) = pair.b().poll_publication() else { break };
            assert_eq!((&*publication.topic, publication.qos), ("orders.new", qos));
            assert_eq!((publication.dup, publication.attempt, publication.retain), (false, 1, false));
            pair.b().ack(publication.id).unwrap();
            got.push(publication.payload);
        }
        assert_eq!(numbers(&got), (0..20).collect::<Vec<_>>());
        let events = pair.events(A);
        let fates = fates(pair.a(), &events);
        let expected = if qos == Qos::AtMostOnce { 0 } else { 20 };
        assert_eq!(fates, vec![Fate::Accepted { attempts: 1 }; expected]);
        let both = qos == Qos::ExactlyOnce;
        let count = |events: &[Event], which: fn(&PubSubEvent) -> bool| {
            pubsub_events(events).iter().filter(|event| which(event)).count()
        };
        assert_eq!(
            count(&events, |event| matches!(event, PubSubEvent::Acknowledged(_))),
            usize::from(both) * 20
        );
        assert_eq!(
            count(&events, |event| matches!(event, PubSubEvent::Completed(_))),
            usize::from(both) * 20
        );
        let released = count(&pair.events(B), |event| matches!(event, PubSubEvent::Released(_)));
        assert_eq!(released, usize::from(both) * 20);
        assert_eq!(pair.a().stats().publish_bytes, 0, "nothing is left behind");
    }
}

// spec: §12.5, §12.7
#[test]
fn what_is_sent_at_most_once_says_nothing_of_it() {
    let mut script = Script::pubsub(|_| ());
    assert_eq!(script.connection.publish(script.now, "m.cpu", uint(93), PublishOptions::new()), Ok(None));
    let sent = one(script.read());
    assert_eq!((sent.kind, sent.reference, sent.target.as_deref()), (Kind::Message, None, Some("m.cpu")));
    assert!(sent.meta.is_empty());
    assert_eq!(script.connection.stats().publish_bytes, 0);
}

// spec: §12.11
#[test]
fn no_more_are_in_flight_than_the_peer_allows() {
    let mut script = Script::pubsub_with(|_| (), &[("max_inflight", 2)]);
    for _ in 0..3 {
        script.connection.publish(script.now, "a", uint(1), options(Qos::AtLeastOnce)).unwrap();
    }
    script.connection.publish(script.now, "a", uint(2), options(Qos::AtMostOnce)).unwrap();
    let sent = script.read();
    assert_eq!(sent.len(), 2, "the third waits");
    script.settle(verb::ACK, sent[0].id).unwrap();
    let sent = script.read();
    assert_eq!(sent.len(), 2, "the third, and what was published behind it");
    assert_eq!((sent[0].meta_u64(key::QOS), sent[1].meta_u64(key::QOS)), (Some(1), None));
}

// spec: §12.9, §12.11
#[test]
fn exactly_once_keeps_its_place_until_complete() {
    let mut script = Script::pubsub_with(|_| (), &[("max_inflight", 1)]);
    let (publication, sent) = script.publish(Qos::ExactlyOnce);
    script.connection.publish(script.now, "a", uint(1), options(Qos::ExactlyOnce)).unwrap();
    script.settle(verb::ACK, sent.id).unwrap();
    assert_eq!(script.connection.take_fate(publication).unwrap(), Some(Fate::Accepted { attempts: 1 }));
    let release = one(script.read());
    assert!(release.is_verb(verb::RELEASE) && release.ids() == [sent.id], "{release:?}");
    script.settle(verb::ACK, sent.id).unwrap();
    assert!(script.read().is_empty(), "a further ack changes nothing");
    script.settle(verb::COMPLETE, sent.id).unwrap();
    assert_eq!(one(script.read()).meta_u64(key::QOS), Some(2), "now there is room");
}

// spec: §12.9, §12.17
#[test]
fn what_is_durable_is_released_when_the_application_says_so() {
    let mut script = Script::pubsub(|_| ());
    let durable = options(Qos::ExactlyOnce).with_durable();
    script.connection.publish(script.now, "a", uint(1), durable).unwrap();
    let sent = one(script.read());
    assert!(script.connection.release_publication(sent.id).is_err(), "it was not acknowledged");
    script.settle(verb::ACK, sent.id).unwrap();
    assert_eq!(fates_of(&mut script), [Fate::Accepted { attempts: 1 }]);
    script.settle(verb::ACK, sent.id).unwrap();
    assert!(script.read().is_empty(), "nothing is released yet");
    script.connection.release_publication(sent.id).unwrap();
    script.connection.release_publication(sent.id).unwrap();
    let release = one(script.read());
    assert!(release.is_verb(verb::RELEASE) && release.ids() == [sent.id], "{release:?}");
    assert!(script.connection.release_publication(sent.id).is_err(), "once is enough");
    script.settle(verb::COMPLETE, sent.id).unwrap();
}

// spec: §12.10
#[test]
fn several_are_settled_by_one_message() {
    let mut script = Script::pubsub(|_| ());
    let sent = (0..5).map(|_| script.publish(Qos::ExactlyOnce).1.id).collect::<Vec<_>>();
    let unknown = script.id();
    let ack = Msg::continuation(Kind::Message, script.id(), unknown).verb(verb::ACK);
    script.send(ack.payload(several(&sent[..3]))).unwrap();
    assert_eq!(fates_of(&mut script).len(), 3, "each id is judged by itself, also where `ref` is unknown");
    script.settle(verb::ACK, sent[3]).unwrap();
    let release = one(script.read());
    assert_eq!(release.ids(), sent[..4], "what waits goes out together");
    let complete = Msg::continuation(Kind::Message, script.id(), sent[0]).verb(verb::COMPLETE);
    script.send(complete.payload(several(&[unknown, sent[1], sent[2], sent[3]]))).unwrap();
    let events = script.pubsub_events();
    let completed = events.iter().filter(|event| matches!(event, PubSubEvent::Completed(_)));
    assert_eq!(completed.count(), 4);
    assert_eq!(script.connection.stats().dropped, 2, "the unknown ones");
}

// spec: §12.8
#[test]
fn a_nack_is_followed_by_a_repetition_not_before_its_time() {
    let mut script = Script::pubsub(|_| ());
    let (publication, sent) = script.publish(Qos::AtLeastOnce);
    nack(&mut script, sent.id, Error::unavailable("").with_retry_after_ms(1_000).with_processed(false));
    script.wait(ms(999)).unwrap();
    assert!(script.read().is_empty(), "not yet");
    script.wait(ms(1)).unwrap();
    let again = one(script.read());
    assert_eq!((again.id, again.target.as_deref(), &again.payload), (sent.id, Some("a.b"), &sent.payload));
    let marks = (again.meta_u64(key::QOS), again.meta_bool(key::DUP), again.meta_u64(key::ATTEMPT));
    assert_eq!(marks, (Some(1), Some(true), Some(2)));
    script.settle(verb::ACK, sent.id).unwrap();
    assert_eq!(script.connection.take_fate(publication).unwrap(), Some(Fate::Accepted { attempts: 2 }));
}

// spec: §12.8
// limit: acknowledgement timeout, attempts
#[test]
fn the_waits_between_repetitions_grow_and_the_last_attempt_is_told() {
    let quiet = [("heartbeat_ms", 0)];
    let mut script = Script::pubsub_with(|c| (c.attempts, c.limits.heartbeat_ms) = (4, 0), &quiet);
    let (publication, sent) = script.publish(Qos::AtLeastOnce);
    let mut waits = Vec::new();
    for attempt in 1..4 {
        nack(&mut script, sent.id, Error::aborted("not now"));
        assert!(script.read().is_empty(), "not at once");
        let before = script.now;
        let due = script.connection.poll_timeout().unwrap();
        script.wait(due - before).unwrap();
        waits.push((script.now - before).as_millis());
        assert_eq!(one(script.read()).meta_u64(key::ATTEMPT), Some(attempt + 1));
    }
    assert!(waits.iter().zip([100, 200, 400]).all(|(wait, least)| (least..=least * 5 / 4).contains(wait)));
    nack(&mut script, sent.id, Error::aborted("never"));
    let fate = script.connection.take_fate(publication).unwrap().unwrap();
    assert!(matches!(&fate, Fate::GivenUp { error, attempts: 4 } if error.message == "never"), "{fate:?}");
    script.wait(ms(100_000)).unwrap();
    assert!(script.read().is_empty(), "it is over");
}

// spec: §12.8, §16.4
#[test]
fn a_code_that_makes_it_pointless_ends_the_attempts() {
    let pointless = [
        Code::INVALID_ARGUMENT,
        Code::NOT_FOUND,
        Code::ALREADY_EXISTS,
        Code::PERMISSION_DENIED,
        Code::OUT_OF_RANGE,
        Code::UNIMPLEMENTED,
        Code::MESSAGE_TOO_LARGE,
        Code::DRAINING,
    ];
    for code in Code::ALL.iter().copied().chain([Code(1_000)]) {
        let mut script = Script::pubsub(|_| ());
        let (publication, sent) = script.publish(Qos::ExactlyOnce);
        nack(&mut script, sent.id, Error::new(code, "no"));
        let fate = script.connection.take_fate(publication).unwrap();
        if pointless.contains(&code) {
            assert_eq!(fate, Some(Fate::Rejected { error: Error::new(code, "no"), attempts: 1 }));
        } else {
            assert_eq!(fate, None, "{code}");
        }
    }
}

// spec: §12.8, §12.11
#[test]
fn without_an_answer_it_is_sent_again_and_given_up_but_stays_in_flight() {
    let mut script = Script::pubsub_with(
        |c| {
            c.attempts = 2;
            c.ack_timeout = ms(1_000);
            c.limits.heartbeat_ms = 0;
        },
        &[("max_inflight", 1), ("heartbeat_ms", 0)],
    );
    let (publication, sent) = script.publish(Qos::ExactlyOnce);
    let (second, qos) = (script.now, options(Qos::AtLeastOnce));
    script.connection.publish(second, "a", uint(1), qos).unwrap();
    script.wait(ms(999)).unwrap();
    assert!(script.read().is_empty());
    script.wait(ms(1)).unwrap();
    assert_eq!(one(script.read()).meta_u64(key::ATTEMPT), Some(2));
    script.wait(ms(1_000)).unwrap();
    let fate = script.connection.take_fate(publication).unwrap().unwrap();
    assert!(matches!(fate, Fate::GivenUp { error, attempts: 2 } if error.code == Code::DEADLINE_EXCEEDED));
    script.wait(ms(5_000)).unwrap();
    assert!(script.read().is_empty(), "the receiver may hold it still, so that the next one waits");
    script.settle(verb::ACK, sent.id).unwrap();
    assert!(one(script.read()).is_verb(verb::RELEASE), "it is released all the same");
    script.settle(verb::COMPLETE, sent.id).unwrap();
    assert_eq!(one(script.read()).meta_u64(key::QOS), Some(1));
    assert_eq!(script.connection.take_fate(publication), Err(fluxar_proto::Gone), "nobody is told twice");
}

// spec: §12.8, §12.13
#[test]
fn a_late_ack_settles_what_waits_to_be_sent_again() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut script = Script::pubsub(|c| c.ack_timeout = ms(1_000));
        let (publication, sent) = script.publish(qos);
        nack(&mut script, sent.id, Error::unavailable("").with_retry_after_ms(10));
        nack(&mut script, sent.id, Error::not_found("changes nothing"));
        script.wait(ms(10)).unwrap();
        script.settle(verb::ACK, sent.id).unwrap();
        assert_eq!(script.connection.take_fate(publication).unwrap(), Some(Fate::Accepted { attempts: 1 }));
        let expected: &[&str] = if qos == Qos::ExactlyOnce { &[verb::RELEASE] } else { &[] };
        assert_eq!(verbs(&script.read()), expected, "it is not sent again");
    }
}

// spec: §12.13
#[test]
fn answers_that_do_not_fit_the_state_are_fatal() {
    let wrong: [(Qos, &[&str]); 4] = [
        (Qos::AtLeastOnce, &[verb::COMPLETE]),
        (Qos::ExactlyOnce, &[verb::COMPLETE]),
        (Qos::ExactlyOnce, &[verb::ACK, verb::NACK]),
        (Qos::ExactlyOnce, &[verb::RELEASE]),
    ];
    for (qos, said) in wrong {
        let mut script = Script::pubsub(|_| ());
        let (_, sent) = script.publish(qos);
        let (last, before) = said.split_last().unwrap();
        before.iter().for_each(|verb| script.settle(verb, sent.id).unwrap());
        let error = script.settle(last, sent.id).unwrap_err();
        assert_eq!(error.code(), Code::PROTOCOL_VIOLATION, "{qos:?} {said:?}");
    }
}

// spec: §12.9, §12.17
#[test]
fn a_message_of_an_earlier_session_goes_on_where_it_was() {
    let mut script = Script::pubsub(|_| ());
    let resumed = |attempt, released| Resumed { id: crate::support::id(99), attempt, released };
    let options = options(Qos::ExactlyOnce);
    let go_on = |script: &mut Script, resumed| {
        let options = options.clone().with_resumed(resumed);
        script.connection.publish(script.now, "a", uint(7), options)
    };
    let publication = go_on(&mut script, resumed(2, false)).unwrap().unwrap();
    assert_eq!(publication.wire_id(), crate::support::id(99));
    let sent = one(script.read());
    assert_eq!(
        (sent.id, sent.meta_u64(key::ATTEMPT), sent.meta_bool(key::DUP)),
        (crate::support::id(99), Some(3), Some(true))
    );
    assert_eq!(go_on(&mut script, resumed(1, false)), Err(PublishError::Resumed));
    script.settle(verb::ACK, sent.id).unwrap();
    script.read();
    script.settle(verb::COMPLETE, sent.id).unwrap();
    assert_eq!(fates_of(&mut script), [Fate::Accepted { attempts: 3 }]);

    go_on(&mut script, resumed(3, true)).unwrap();
    let release = one(script.read());
    assert!(release.is_verb(verb::RELEASE) && release.ids() == [sent.id], "only released");
    assert_eq!(fates_of(&mut script), [Fate::Accepted { attempts: 3 }]);
    script.settle(verb::COMPLETE, sent.id).unwrap();
    assert!(matches!(script.pubsub_events()[..], [PubSubEvent::Completed(id)] if id == sent.id));
}

// spec: §12.11, §12.17
#[test]
fn what_goes_on_from_an_earlier_session_waits_for_an_answer() {
    let resumed = Resumed { id: crate::support::id(99), attempt: 1, released: false };
    let options = PublishOptions::new().with_resumed(resumed);
    let mut script = Script::pubsub(|_| ());
    script.connection.publish(script.now, "a", uint(7), options.clone()).unwrap();
    assert_eq!(one(script.read()).meta_u64(key::QOS), Some(1));
    let mut script = Script::pubsub_with(|_| (), &[("max_inflight", 0)]);
    for released in [false, true] {
        let options = options.clone().with_resumed(Resumed { released, ..resumed });
        let published = script.connection.publish(script.now, "a", uint(7), options);
        assert_eq!(published, Err(PublishError::NoInflight), "it would hold up all others");
    }
}

// spec: §5.13, §12.1, §14.1
#[test]
fn what_cannot_be_published_fails_where_it_was_made() {
    let mut script = Script::pubsub_with(|_| (), &[("max_message", 1024), ("max_inflight", 0)]);
    let mut publish = |topic: &str, len: usize, options: PublishOptions| {
        script.connection.publish(script.now, topic, blob(len), options).unwrap_err()
    };
    let plain = PublishOptions::new;
    assert_eq!(publish("a..b", 9, plain()), PublishError::BadTopic(TopicError::EmptyToken));
    assert_eq!(publish("a.*", 9, plain()), PublishError::BadTopic(TopicError::Wildcard));
    assert_eq!(publish("fluxar.a", 9, plain()), PublishError::BadTopic(TopicError::Reserved));
    assert!(matches!(publish("a", 1100, plain()), PublishError::TooLarge { limit: 1024, .. }));
    assert_eq!(publish("a", 9, options(Qos::AtLeastOnce)), PublishError::NoInflight);
    let own = crate::support::cbor(|out| out.map(1)?.str("qos")?.u8(1)?.ok());
    assert_eq!(publish("a", 9, plain().with_meta(own.into())), PublishError::BadMeta(None));
    let none = plain().with_meta(vec![0x01].into());
    assert!(matches!(publish("a", 9, none), PublishError::BadMeta(Some(_))));
    assert!(script.read().is_empty());

    let mut other = Script::responder(&config(|_| ()));
    let publish = other.connection.publish(other.now, "a", uint(1), plain());
    assert_eq!(publish, Err(PublishError::NotNegotiated));
}

// spec: §15.3
#[test]
fn publications_wait_beyond_the_buffer_until_there_is_room() {
    let mut script = Script::pubsub_with(|c| c.publish_buffer = 10_000, &[("max_inflight", 1_000)]);
    let mut published = Vec::new();
    let blocked = loop {
        let options = options(Qos::AtLeastOnce);
        match script.connection.publish(script.now, "a", blob(900), options) {
            Ok(publication) => published.push(publication.unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!((blocked, published.len()), (PublishError::Blocked, 9));
    let sent = script.read();
    assert_eq!(sent.len(), 9, "what is not acknowledged is held too");
    assert!(script.pubsub_events().is_empty());
    sent.iter().for_each(|sent| script.settle(verb::ACK, sent.id).unwrap());
    let events = script.pubsub_events();
    let capacity = events.iter().filter(|event| matches!(event, PubSubEvent::Capacity)).count();
    assert_eq!((events.len(), capacity), (10, 1));
    assert!(script.connection.stats().publish_bytes > 0, "fates that nobody has taken count a little");
    for publication in published {
        script.connection.take_fate(publication).unwrap().unwrap();
    }
    assert_eq!(script.connection.stats().publish_bytes, 0);
}

// spec: §12.8
#[test]
fn a_fate_that_nobody_wants_does_not_stop_the_message() {
    let mut script = Script::pubsub(|_| ());
    let (publication, sent) = script.publish(Qos::AtLeastOnce);
    script.connection.forget_publication(publication).unwrap();
    assert_eq!(script.connection.take_fate(publication), Err(fluxar_proto::Gone));
    nack(&mut script, sent.id, Error::unavailable("").with_retry_after_ms(1));
    script.wait(ms(1)).unwrap();
    assert_eq!(one(script.read()).id, sent.id);
    script.settle(verb::ACK, sent.id).unwrap();
    assert!(script.pubsub_events().is_empty());
    assert_eq!(script.connection.stats().publish_bytes, 0);
}

// spec: §8.8, §12.8
#[test]
fn what_has_no_fate_when_the_connection_ends_is_lost() {
    let mut script = Script::pubsub_with(|_| (), &[("max_inflight", 1)]);
    let (sent, _) = script.publish(Qos::AtLeastOnce);
    let waiting = script.connection.publish(script.now, "a", uint(1), options(Qos::AtLeastOnce));
    let waiting = waiting.unwrap().unwrap();
    script.connection.handle_eof(script.now, 0).unwrap_err();
    script.events();
    let lost = script.connection.take_fate(sent).unwrap().unwrap();
    assert!(matches!(lost, Fate::Lost { error, attempts: 1 } if error.processed.is_none()));
    let lost = script.connection.take_fate(waiting).unwrap().unwrap();
    assert!(matches!(lost, Fate::Lost { error, attempts: 0 } if error.is_retry_safe()));
    assert_eq!(script.connection.stats().publish_bytes, 0);
    let late = script.connection.publish(script.now, "a", uint(1), PublishOptions::new());
    assert_eq!(late, Err(PublishError::Closed));
}

// spec: §8.7
#[test]
fn nothing_is_announced_behind_the_end_of_the_connection() {
    let mut script = Script::pubsub(|c| c.publish_buffer = 1);
    let (publication, sent) = script.publish(Qos::AtLeastOnce);
    script.settle(verb::ACK, sent.id).unwrap();
    assert_eq!(script.connection.ready_to_publish(), Err(PublishError::Blocked), "nobody took its fate");
    script.connection.close(script.now, None);
    assert!(matches!(script.events().last(), Some(Event::Closed(_))));
    assert_eq!(script.connection.take_fate(publication), Ok(Some(Fate::Accepted { attempts: 1 })));
    assert!(script.events().is_empty());
}

// spec: §8.7
#[test]
fn a_close_in_order_still_sends_what_was_published_at_most_once() {
    let mut script = Script::pubsub(|_| ());
    script.connection.publish(script.now, "a", uint(1), options(Qos::AtLeastOnce)).unwrap();
    script.connection.publish(script.now, "a", uint(2), PublishOptions::new()).unwrap();
    script.connection.close(script.now, None);
    let sent = script.read();
    assert_eq!(verbs(&sent), ["a", verb::CLOSE]);
    assert_eq!(sent[0].payload, [2]);
}
