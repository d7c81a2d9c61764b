//! Publications of the peer: what is accepted, remembered, refused and dropped.

use fluxar_proto::message::{Id, Kind, Meta, key, verb};
use fluxar_proto::{Code, Error, Gone, PubSubEvent, Qos, QueueLimits, Violation};

use crate::support::pubsub::{V, again, publication, several, verbs};
use crate::support::{Msg, Script, cbor, id, ms, one};

/// A publication of the script with qos `qos` that the application has got.
fn got(script: &mut Script, qos: u64) -> (Id, fluxar_proto::MessageId) {
    let id = script.id();
    script.send(publication(id, "a.b", qos)).unwrap();
    let publication = one(script.publications());
    assert_eq!((publication.id.wire_id(), u64::from(publication.qos.to_wire())), (id, qos));
    (id, publication.id)
}

fn is_nack(message: &Msg, reference: Id, code: Code) -> bool {
    message.is_verb(verb::NACK) && message.reference == Some(reference) && message.code() == code
}

// spec: §12.5, §12.8
#[test]
fn what_is_accepted_is_acknowledged() {
    let mut script = Script::pubsub(|_| ());
    let (sent, message) = got(&mut script, 1);
    assert!(script.read().is_empty(), "not before the application says so");
    script.connection.ack(message).unwrap();
    let ack = one(script.read());
    assert!(ack.is_verb(verb::ACK) && ack.ids() == [sent] && ack.meta.is_empty());
    assert_eq!(script.connection.ack(message), Err(Gone), "once");
    assert!(matches!(script.pubsub_events()[..], [PubSubEvent::Publication]));
}

// spec: §12.8
#[test]
fn what_is_not_accepted_is_answered_nack() {
    let mut script = Script::pubsub(|_| ());
    let (sent, message) = got(&mut script, 2);
    let error = Error::unavailable("the database is down").with_retry_after_ms(500);
    script.connection.nack(message, error.clone()).unwrap();
    let nack = one(script.read());
    assert!(is_nack(&nack, sent, Code::UNAVAILABLE));
    assert_eq!(nack.error, Some(error));
    script.send(again(sent, "a.b", 2, 2)).unwrap();
    let publication = one(script.publications());
    assert_eq!((publication.dup, publication.attempt), (true, 2), "handled like a new one");
}

// spec: §12.7
#[test]
fn at_most_once_is_never_answered() {
    let mut script = Script::pubsub(|_| ());
    let (_, message) = got(&mut script, 0);
    assert!(!message.wants_ack());
    script.connection.ack(message).unwrap();
    script.connection.nack(message, Error::internal("")).unwrap();
    assert!(script.read().is_empty());
}

// spec: §12.8, §12.14
#[test]
fn a_retransmission_of_what_is_held_is_dropped() {
    for qos in [1, 2] {
        let mut script = Script::pubsub(|_| ());
        let (sent, message) = got(&mut script, qos);
        script.send(again(sent, "a.b", qos, 2)).unwrap();
        assert!(script.publications().is_empty() && script.read().is_empty());
        script.connection.ack(message).unwrap();
        script.send(again(sent, "a.b", qos, 3)).unwrap();
        assert_eq!(one(script.read()).ids(), [sent], "one answer, while that waits to be sent");
        assert_eq!(script.connection.stats().dropped, 2);
    }
}

// spec: §12.8
#[test]
fn what_was_settled_at_least_once_is_handled_again() {
    let mut script = Script::pubsub(|_| ());
    let (sent, message) = got(&mut script, 1);
    script.connection.ack(message).unwrap();
    script.read();
    script.send(again(sent, "a.b", 1, 2)).unwrap();
    let publication = one(script.publications());
    assert!(publication.dup && publication.id.wire_id() == sent);
}

// spec: §12.9, §12.14
#[test]
fn exactly_once_is_remembered_until_it_is_released() {
    let mut script = Script::pubsub(|_| ());
    let (sent, message) = got(&mut script, 2);
    script.connection.ack(message).unwrap();
    script.read();
    for attempt in [2, 3] {
        script.send(again(sent, "a.b", 2, attempt)).unwrap();
        assert!(script.publications().is_empty(), "not handled again");
        assert_eq!(verbs(&script.read()), [verb::ACK], "only acknowledged again");
    }
    script.events();
    script.settle(verb::RELEASE, sent).unwrap();
    assert!(matches!(script.pubsub_events()[..], [PubSubEvent::Released(id)] if id == sent));
    let complete = one(script.read());
    assert!(complete.is_verb(verb::COMPLETE) && complete.ids() == [sent]);
    script.send(again(sent, "a.b", 2, 4)).unwrap();
    assert_eq!(script.publications().len(), 1, "forgotten");
}

// spec: §12.9, §12.10
#[test]
fn releases_of_what_is_not_known_are_answered_too() {
    let mut script = Script::pubsub(|_| ());
    let (sent, message) = got(&mut script, 2);
    script.connection.ack(message).unwrap();
    script.read();
    let strangers = [id(501), id(502)];
    let release = Msg::continuation(Kind::Message, script.id(), strangers[0]).verb(verb::RELEASE);
    script.send(release.payload(several(&[sent, strangers[1]]))).unwrap();
    let complete = one(script.read());
    assert_eq!(complete.ids(), [strangers[0], sent, strangers[1]]);
    let released = script.pubsub_events();
    let released = released.iter().filter(|event| matches!(event, PubSubEvent::Released(_)));
    assert_eq!(released.count(), 3, "a durable store may know what we do not");
}

// spec: §12.9, §12.14
#[test]
fn a_release_before_the_acknowledgement_is_fatal() {
    for (qos, accepted) in [(1, false), (1, true), (2, false), (2, true)] {
        let mut script = Script::pubsub(|_| ());
        let (sent, message) = got(&mut script, qos);
        if accepted {
            // It is accepted, but the peer cannot know yet.
            script.connection.ack(message).unwrap();
        }
        let error = script.settle(verb::RELEASE, sent).unwrap_err();
        assert_eq!(error, Violation::WrongRole(sent).into(), "{qos} {accepted}");
    }
}

// spec: §12.10, §5.15
#[test]
fn several_ids_are_an_array_of_ids() {
    for verb in [verb::ACK, verb::RELEASE, verb::COMPLETE] {
        for payload in [
            cbor(|out| out.u8(1)?.ok()),
            cbor(|out| out.array(1)?.u8(1)?.ok()),
            cbor(|out| out.array(1)?.bytes(&[7; 15])?.ok()),
            cbor(|out| out.array(2)?.bytes(&[7; 16])?.null()?.ok()),
        ] {
            let mut script = Script::pubsub(|_| ());
            let reference = if verb == verb::RELEASE {
                let (sent, message) = got(&mut script, 2);
                script.connection.ack(message).unwrap();
                script.read();
                sent
            } else {
                script.publish(Qos::ExactlyOnce).1.id
            };
            let message = Msg::continuation(Kind::Message, script.id(), reference).verb(verb);
            let error = script.send(message.payload(payload.clone())).unwrap_err();
            assert_eq!(error.code(), Code::MALFORMED, "{verb} {payload:02x?}");
            // Where `ref` is unknown, that comes first; but not for what is answered all the same.
            let mut script = Script::pubsub(|_| ());
            let message = Msg::continuation(Kind::Message, script.id(), id(77)).verb(verb).payload(payload);
            assert_eq!(script.send(message).is_ok(), verb != verb::RELEASE);
        }
    }
}

// spec: §12.11
// limit: max_inflight
#[test]
fn one_beyond_the_number_in_flight_is_answered_nack() {
    let mut script = Script::pubsub(|c| c.limits.max_inflight = 2);
    let (first, message) = got(&mut script, 2);
    got(&mut script, 1);
    let third = script.id();
    script.send(publication(third, "a", 1)).unwrap();
    let nack = one(script.read());
    assert!(is_nack(&nack, third, Code::RESOURCE_EXHAUSTED));
    assert_eq!(nack.error.unwrap().processed, Some(false));
    assert_eq!(script.connection.stats().refused, 1);
    script.connection.ack(message).unwrap();
    script.read();
    script.send(publication(id(91), "a", 1)).unwrap();
    assert!(is_nack(&one(script.read()), id(91), Code::RESOURCE_EXHAUSTED), "until it is complete");
    script.settle(verb::RELEASE, first).unwrap();
    script.read();
    got(&mut script, 0);
    got(&mut script, 1);
}

// spec: §12.11
#[test]
fn a_place_is_free_when_the_answer_has_left() {
    let mut script = Script::pubsub(|c| c.limits.max_inflight = 1);
    let (_, message) = got(&mut script, 1);
    script.connection.ack(message).unwrap();
    let early = script.id();
    script.send(publication(early, "a", 1)).unwrap();
    let answers = script.read();
    assert!(answers.iter().any(|answer| is_nack(answer, early, Code::RESOURCE_EXHAUSTED)));
    got(&mut script, 1);
}

// spec: §5.5, §12.14
#[test]
fn an_id_that_is_open_is_fatal_unless_it_is_the_same_message_again() {
    let cases: [fn(Id) -> Msg; 4] = [
        |id| publication(id, "a.b", 1),
        |id| publication(id, "a.b", 0),
        |id| publication(id, "a.b", 0).with(&[(key::DUP, V::B(true))]),
        |id| Msg::opening(Kind::Call, id, "m"),
    ];
    for message in cases {
        let mut script = Script::pubsub(|_| ());
        let (sent, _) = got(&mut script, 1);
        assert_eq!(script.send(message(sent)).unwrap_err(), Violation::DuplicateId(sent).into());
    }
    let mut script = Script::pubsub(|_| ());
    let call = script.call("m");
    assert_eq!(script.send(again(call, "a.b", 1, 2)).unwrap_err(), Violation::DuplicateId(call).into());
    let (_, ours) = Script::pubsub(|_| ()).publish(Qos::AtLeastOnce);
    let mut script = Script::pubsub(|_| ());
    script.publish(Qos::AtLeastOnce);
    let duplicate = script.send(again(ours.id, "a.b", 1, 2)).unwrap_err();
    assert_eq!(duplicate, Violation::DuplicateId(ours.id).into(), "not what we publish ourselves");
}

// spec: §5.10, §12.1, §12.5, §14.1
#[test]
fn publications_that_are_none_are_refused() {
    let qos = (key::QOS, V::U(1));
    let keys = |count: usize| {
        cbor(|out| {
            out.map(count as u64)?.str(key::QOS)?.u8(1)?;
            (1..count).try_for_each(|n| out.str(&format!("k{n}"))?.u8(1)?.ok())
        })
    };
    let with_keys = |count| Msg { meta: keys(count), ..publication(id(1), "a", 0) };
    for (message, code) in [
        (publication(id(1), "a..b", 1), Code::INVALID_ARGUMENT),
        (publication(id(1), "a.*", 2), Code::INVALID_ARGUMENT),
        (publication(id(1), "", 1), Code::INVALID_ARGUMENT),
        (publication(id(1), "a b", 1), Code::INVALID_ARGUMENT),
        (publication(id(1), "fluxar.a", 1), Code::UNIMPLEMENTED),
        (publication(id(1), "a", 3), Code::INVALID_ARGUMENT),
        (publication(id(1), "a", 0).with(&[(key::QOS, V::B(true))]), Code::INVALID_ARGUMENT),
        (publication(id(1), "a", 0).with(&[qos, (key::DUP, V::U(1))]), Code::INVALID_ARGUMENT),
        (publication(id(1), "a", 0).with(&[qos, (key::ATTEMPT, V::U(0))]), Code::INVALID_ARGUMENT),
        (publication(id(1), "a", 0).with(&[qos, (key::RETAIN, V::U(0))]), Code::INVALID_ARGUMENT),
        (publication(id(1), "a", 0).with(&[(key::RETAIN, V::T("yes"))]), Code::INVALID_ARGUMENT),
        (with_keys(57), Code::INVALID_ARGUMENT),
    ] {
        let mut script = Script::pubsub(|_| ());
        script.send(message.clone()).unwrap();
        let nack = one(script.read());
        assert!(is_nack(&nack, id(1), code), "{message:?}");
        assert_eq!(nack.error.unwrap().processed, Some(false));
        assert!(script.publications().is_empty());
        assert_eq!(script.connection.stats().refused, 1);
    }
    for message in [publication(id(1), "a.", 0), publication(id(1), "fluxar.a", 0)] {
        let mut script = Script::pubsub(|_| ());
        script.send(message).unwrap();
        assert!(script.read().is_empty() && script.publications().is_empty(), "nobody waits for an answer");
        assert_eq!(script.connection.stats().dropped, 1);
    }
    let mut script = Script::pubsub(|_| ());
    let of_deliveries = [(key::SEQ, V::U(0)), (key::RETAINED, V::U(1)), (key::TOPIC, V::B(true))];
    script.send(publication(id(1), "a", 0).with(&of_deliveries)).unwrap();
    assert!(one(script.publications()).meta.is_empty(), "keys that mean nothing here are ignored");
    script.send(with_keys(56)).unwrap();
    let publication = one(script.publications());
    assert_eq!(Meta::decode(&publication.meta).unwrap().len(), 55, "all but the protocol's own");
}

// spec: §5.9, §5.10
#[test]
fn the_application_sees_its_own_metadata() {
    let mut script = Script::pubsub(|_| ());
    let meta = [
        (key::QOS, V::U(1)),
        ("trace_id", V::T("abc")),
        (key::RETAIN, V::B(true)),
        (key::TIMEOUT_MS, V::U(7)),
        (key::TRACEPARENT, V::T("00-1")),
    ];
    script.send(publication(id(1), "a", 0).with(&meta)).unwrap();
    let publication = one(script.publications());
    assert!(publication.retain);
    let meta = Meta::decode(&publication.meta).unwrap();
    assert_eq!(
        (meta.len(), meta.get_str("trace_id"), meta.get_str(key::TRACEPARENT)),
        (2, Some("abc"), Some("00-1"))
    );
}

// spec: §12.7, §15.3
#[test]
fn publications_that_nobody_takes_are_bounded_in_number() {
    let queue = QueueLimits { items: 3, ..QueueLimits::default() };
    let mut script = Script::pubsub(|c| c.held_publications = queue);
    for n in 0..5u8 {
        let message = publication(id(n.into()), "a", 0).payload(vec![n]);
        script.send(message).unwrap();
    }
    let held = script.publications();
    let payloads = held.iter().map(|publication| publication.payload.as_bytes()[0]).collect::<Vec<_>>();
    assert_eq!(payloads, [2, 3, 4], "the oldest go");
    assert_eq!(script.connection.stats().publications_dropped, 2);
    for n in 10..14 {
        script.send(publication(id(n), "a", 1)).unwrap();
    }
    let nack = one(script.read());
    assert!(is_nack(&nack, id(13), Code::RESOURCE_EXHAUSTED), "what is acknowledged is not dropped");
    let error = nack.error.unwrap();
    assert!(error.processed == Some(false) && error.retry_after_ms.is_some());
    script.send(publication(id(20), "a", 0)).unwrap();
    assert_eq!(script.publications().len(), 3, "nor does it go for something else");
    assert_eq!(script.connection.stats().refused, 0, "that costs the peer nothing");
}

// spec: §12.7, §15.3
#[test]
fn publications_that_nobody_takes_are_bounded_in_bytes() {
    let queue = QueueLimits { bytes: 200_000, ..QueueLimits::default() };
    let mut script = Script::pubsub(|c| c.held_publications = queue);
    for n in 0..50 {
        let body = cbor(|out| out.bytes(&[7; 30_000])?.ok());
        script.send(publication(id(n), "a", 0).payload(body)).unwrap();
    }
    assert!(script.connection.stats().held_publication_bytes <= 200_000);
    assert_eq!(script.publications().len(), 6);
    assert_eq!(script.connection.stats().held_publication_bytes, 0);
    // Small ones that lie in one buffer hold that buffer, and count for it.
    let mut bytes = Vec::new();
    for n in 100..200 {
        bytes.extend(publication(id(n), "a", 0).frame());
    }
    script.send_bytes(&bytes).unwrap();
    let held = script.connection.stats().held_publication_bytes;
    assert!((bytes.len()..bytes.len() + 100 * 200).contains(&held), "{held} of {}", bytes.len());
    // A message that shares its buffer with what is not held counts for all of it.
    let mut script = Script::pubsub(|_| ());
    let mut bytes = publication(id(1), "a", 0).frame();
    while bytes.len() < 15_000 {
        bytes.extend(Msg::opening(Kind::Control, script.id(), "nothing").frame());
    }
    script.send_bytes(&bytes).unwrap();
    assert!(script.connection.stats().held_publication_bytes >= bytes.len());
}

// spec: §8.8, §12.8
#[test]
fn what_will_come_again_is_dropped_when_the_connection_ends() {
    let mut script = Script::pubsub(|_| ());
    let (_, message) = got(&mut script, 1);
    script.send(publication(id(50), "a", 1)).unwrap();
    script.send(publication(id(51), "a", 0)).unwrap();
    script.connection.handle_eof(script.now, 0).unwrap_err();
    assert_eq!(one(script.publications()).id.wire_id(), id(51));
    assert_eq!(script.connection.ack(message), Err(Gone));
}

// spec: §12.14
#[test]
fn acks_that_wait_are_sent_together() {
    let mut script = Script::pubsub(|c| c.limits.max_inflight = 1_000);
    let messages = (0..100).map(|_| got(&mut script, 1)).collect::<Vec<_>>();
    messages.iter().for_each(|(_, message)| script.connection.ack(*message).unwrap());
    let acks = script.read();
    assert!(acks.len() < 5, "{} messages", acks.len());
    let settled = acks.iter().flat_map(Msg::ids).collect::<Vec<_>>();
    assert!(settled.iter().eq(messages.iter().map(|(id, _)| id)));
    assert!(acks.iter().all(|ack| ack.body().len() <= 1_024), "any peer takes it");
    script.wait(ms(1)).unwrap();
}
