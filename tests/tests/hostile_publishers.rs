//! Clients against hostile servers that publish: whoever has subscribed or published is told what went wrong.

use std::time::Duration;

use fluxar::{Client, ClientBuilder, Code, Error, Fate, Messages, Overflow, PublishError, Qos};
use fluxar_proto::message::{Id, Kind, verb};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::topics::answer_to;
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{Message, Trap, Wire, fresh_id};

schedulers! {
    what_comes_before_the_confirmation_is_a_violation
    what_was_not_granted_is_a_violation
    a_delivery_needs_a_topic_where_the_filter_says_none
    deliveries_on_nothing_are_dropped
    deliveries_beyond_those_in_flight_are_refused
    deliveries_that_nobody_takes_are_bounded
    what_comes_again_is_handed_on_as_often_as_its_mode_says
    a_subscription_ends_as_the_publisher_says
    what_does_not_fit_a_publication_is_a_violation
    a_server_that_answers_no_publication_is_given_up
    a_server_that_allows_nothing_gets_nothing
}

async fn met(terms: Terms, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> (Client, Wire) {
    let trap = Trap::open().await;
    let (client, wire) = tokio::join!(change(Client::connect(trap.url())).build(), trap.with(terms));
    (client.unwrap(), wire)
}

/// A client that has subscribed to `filter`, and the id of that.
async fn subscribed(client: &Client, wire: &mut Wire, filter: &str, qos: Qos) -> (Messages, Id) {
    let confirming = async {
        let subscription = wire.receive().await;
        assert_eq!(subscription.kind, Kind::Subscribe);
        let wanted = subscription.says("qos").unwrap_or(0) as u8;
        wire.send(&Message::confirmation(subscription.id).qos(wanted)).await;
        subscription.id
    };
    let (messages, id) = tokio::join!(client.messages(filter).qos(qos).into_future(), confirming);
    (messages.unwrap(), id)
}

/// Something that must not be said of what has this id.
type Wrong = fn(Id) -> Message;

/// Whoever waits for a message is told that the connection is over.
async fn ends_for(client: &Client, wire: &mut Wire, mut messages: Messages, code: Code) {
    assert_eq!(wire.closed_for().await, code);
    assert_eq!(client.closed().await.code(), code);
    while messages.next().await.is_some() {}
    assert_eq!(messages.error().unwrap().code, Code::UNAVAILABLE);
}

// spec: §12.3, §12.12
async fn what_comes_before_the_confirmation_is_a_violation(_: Net) {
    let early: [fn(Id) -> Message; 3] = [
        |id| Message::delivery(id).payload("early"),
        |id| Message::delivery(id).qos(1).payload("early"),
        // More than was wanted.
        |id| Message::confirmation(id).qos(2),
    ];
    for early in early {
        let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
        let hostile = async {
            let subscription = wire.receive().await;
            wire.send(&early(subscription.id)).await;
            wire.closed_for().await
        };
        let (result, code) =
            tokio::join!(client.messages("a.b").qos(Qos::AtLeastOnce).into_future(), hostile);
        assert_eq!(code, Code::PROTOCOL_VIOLATION, "{:?}", early(fresh_id()));
        assert_eq!(result.unwrap_err().code, Code::UNAVAILABLE);
    }
    // A refusal is none.
    let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
    let refusing = async {
        let subscription = wire.receive().await;
        let error = Error::permission_denied("not for you").with_processed(false);
        wire.send(&Message::confirmation(subscription.id).error(error)).await;
        // There is no subscription, so that this concerns nobody.
        wire.send(&Message::delivery(subscription.id).payload("late")).await;
        wire.ping().await;
    };
    let (result, ()) = tokio::join!(client.messages("a.b").into_future(), refusing);
    let error = result.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::PERMISSION_DENIED, Some(false)));
    assert_eq!((client.stats().dropped, client.stats().subscriptions), (1, 0));
}

// spec: §12.3, §12.6
async fn what_was_not_granted_is_a_violation(_: Net) {
    let wrong: [fn(Id) -> Message; 6] = [
        |id| Message::delivery(id).qos(2),
        |id| Message::confirmation(id).qos(1),
        |id| Message::confirmation(id).error(Error::aborted("again")),
        |id| Message::response(id),
        |id| Message::subscribe("x").id(id),
        |id| Message::ack(id),
    ];
    for wrong in wrong {
        let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
        let (messages, id) = subscribed(&client, &mut wire, "a.b", Qos::AtLeastOnce).await;
        wire.send(&Message::delivery(id).qos(1).payload("good")).await;
        wire.send(&wrong(id)).await;
        ends_for(&client, &mut wire, messages, Code::PROTOCOL_VIOLATION).await;
    }
}

// spec: §12.6
async fn a_delivery_needs_a_topic_where_the_filter_says_none(_: Net) {
    for filter in ["a.*", ">"] {
        for bad in [None, Some("a.*"), Some(""), Some("a b")] {
            let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
            let (mut messages, id) = subscribed(&client, &mut wire, filter, Qos::AtMostOnce).await;
            wire.send(&Message::delivery(id).with("topic", "a.b").payload("good")).await;
            assert_eq!(messages.next().await.unwrap().topic(), "a.b");
            let wrong = Message::delivery(id).payload("bad");
            wire.send(&bad.map_or(wrong.clone(), |topic| wrong.with("topic", topic))).await;
            ends_for(&client, &mut wire, messages, Code::PROTOCOL_VIOLATION).await;
        }
    }
    let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
    let (mut messages, id) = subscribed(&client, &mut wire, "a.b", Qos::AtMostOnce).await;
    wire.send(&Message::delivery(id).payload("good")).await;
    assert_eq!(messages.next().await.unwrap().topic(), "a.b");
}

// spec: §5.15, §12.4
async fn deliveries_on_nothing_are_dropped(_: Net) {
    let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
    let (messages, id) = subscribed(&client, &mut wire, "a.b", Qos::ExactlyOnce).await;
    drop(messages);
    assert_eq!(answer_to(&mut wire, id).await.kind, Kind::Unsubscribe);
    let late = [
        Message::delivery(id).qos(2).payload("late"),
        Message::delivery(id).payload("late"),
        Message::delivery(fresh_id()).qos(1).payload("nobody's"),
    ];
    for message in &late {
        wire.send(message).await;
    }
    wire.send(&Message::unsubscribe(id)).await;
    wire.send(&Message::delivery(id).qos(2).payload("later still")).await;
    wire.send(&Message::unsubscribe(id)).await;
    wire.ping().await;
    assert_eq!((client.stats().dropped, client.stats().subscriptions), (late.len() as u64 + 2, 0));
    assert_eq!(client.error(), None);
}

// spec: §12.11, §10.7
async fn deliveries_beyond_those_in_flight_are_refused(_: Net) {
    let (client, mut wire) = met(Terms::topics(), |builder| {
        builder.configure(|config| {
            config.limits.max_inflight = 4;
            config.misuse_capacity = 100;
            config.misuse_per_second = 0;
        })
    })
    .await;
    let (mut messages, id) = subscribed(&client, &mut wire, "a.b", Qos::ExactlyOnce).await;
    let deliveries: Vec<_> = (0..10_u32).map(|n| Message::delivery(id).qos(2).payload(&n)).collect();
    for delivery in &deliveries {
        wire.send(delivery).await;
    }
    for delivery in &deliveries[4..] {
        let nack = answer_to(&mut wire, delivery.id).await;
        let error = nack.error.unwrap();
        assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    }
    for (number, delivery) in deliveries[..4].iter().enumerate() {
        let message = messages.next().await.unwrap();
        assert_eq!(message.payload::<usize>(), Ok(number));
        message.ack().await.unwrap();
        assert_eq!(answer_to(&mut wire, delivery.id).await.does(), Some(verb::ACK));
    }
    // Remembered, they are in flight until they are released.
    wire.send(&Message::delivery(id).qos(2).payload("one more")).await;
    let nack = wire.receive().await;
    assert_eq!(nack.does(), Some(verb::NACK));
    wire.send(&Message::release(deliveries[0].id)).await;
    assert_eq!(answer_to(&mut wire, deliveries[0].id).await.does(), Some(verb::COMPLETE));
    let flood = (0..200).flat_map(|_| Message::delivery(id).qos(2).payload("flood").frame());
    wire.try_send_bytes(&flood.collect::<Vec<u8>>()).await.ok();
    ends_for(&client, &mut wire, messages, Code::RESOURCE_EXHAUSTED).await;
}

// spec: §12.7, §15.3
async fn deliveries_that_nobody_takes_are_bounded(_: Net) {
    let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
    for overflow in [Overflow::Wait, Overflow::DropOldest, Overflow::DropNewest] {
        let confirming = async {
            let subscription = wire.receive().await;
            wire.send(&Message::confirmation(subscription.id)).await;
            subscription.id
        };
        let subscribing = client.messages("a.b").qos(Qos::AtMostOnce).buffer(50, 100_000).when_full(overflow);
        let (messages, id) = tokio::join!(subscribing.into_future(), confirming);
        let mut messages = messages.unwrap();
        for number in 0..2000_u32 {
            wire.send(&Message::delivery(id).payload(&(number, "x".repeat(1000)))).await;
        }
        wire.ping().await;
        let stats = messages.stats();
        assert!(stats.items <= 50 && stats.bytes <= 100_000, "{stats:?}");
        assert_eq!(stats.dropped, 2000 - stats.items as u64, "{stats:?}");
        let first = messages.next().await.unwrap().payload::<(u32, String)>().unwrap().0;
        let oldest = if overflow == Overflow::DropNewest { 0 } else { 2000 - stats.items as u32 };
        assert_eq!(first, oldest);
        drop(messages);
        assert_eq!(answer_to(&mut wire, id).await.kind, Kind::Unsubscribe);
        wire.send(&Message::unsubscribe(id)).await;
    }
}

// spec: §12.8, §12.9, §12.14
async fn what_comes_again_is_handed_on_as_often_as_its_mode_says(_: Net) {
    let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
    let (mut messages, id) = subscribed(&client, &mut wire, "a.b", Qos::ExactlyOnce).await;
    for (qos, handed_on) in [(1, 2), (2, 1)] {
        let delivery = Message::delivery(id).qos(qos).payload("hello");
        wire.send(&delivery).await;
        // Held, it is handed on once however often it comes.
        for attempt in 2..50 {
            wire.send(&delivery.clone().again(attempt)).await;
        }
        wire.ping().await;
        messages.next().await.unwrap().ack().await.unwrap();
        assert_eq!(answer_to(&mut wire, delivery.id).await.does(), Some(verb::ACK));
        wire.send(&delivery.clone().again(50)).await;
        for _ in 1..handed_on {
            let message = messages.next().await.unwrap();
            assert!(message.is_duplicate());
            message.ack().await.unwrap();
        }
        assert_eq!(answer_to(&mut wire, delivery.id).await.does(), Some(verb::ACK));
        wire.ping().await;
        assert_eq!(messages.stats().items, 0);
    }
    // A new message with the id of one that is remembered is none.
    let delivery = Message::delivery(id).qos(2).payload("hello");
    wire.send(&delivery).await;
    messages.next().await.unwrap().ack().await.unwrap();
    assert_eq!(answer_to(&mut wire, delivery.id).await.does(), Some(verb::ACK));
    wire.send(&delivery).await;
    ends_for(&client, &mut wire, messages, Code::PROTOCOL_VIOLATION).await;
}

// spec: §12.4
async fn a_subscription_ends_as_the_publisher_says(_: Net) {
    let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
    let (mut messages, id) = subscribed(&client, &mut wire, "a.b", Qos::AtLeastOnce).await;
    let delivery = Message::delivery(id).qos(1).payload("last");
    wire.send(&delivery).await;
    wire.send(&Message::unsubscribe(id).error(Error::permission_denied("no longer"))).await;
    let answer = answer_to(&mut wire, id).await;
    assert_eq!((answer.kind, answer.error), (Kind::Unsubscribe, None));
    // What came before it is handed on, but nobody waits for an answer.
    let message = messages.next().await.unwrap();
    assert_eq!(message.payload::<String>().unwrap(), "last");
    assert!(message.ack().await.is_err());
    assert!(messages.next().await.is_none());
    assert_eq!(messages.error().unwrap().code, Code::PERMISSION_DENIED);
    wire.ping().await;
    assert_eq!(client.error(), None);
}

// spec: §12.8, §12.9, §12.13
async fn what_does_not_fit_a_publication_is_a_violation(_: Net) {
    let wrong: [(Qos, Vec<Wrong>); 6] = [
        (Qos::AtLeastOnce, vec![|id| Message::complete(id)]),
        (Qos::ExactlyOnce, vec![|id| Message::complete(id)]),
        (Qos::ExactlyOnce, vec![|id| Message::ack(id), |id| Message::nack(id, Error::aborted("no"))]),
        (Qos::AtLeastOnce, vec![|id| Message::release(id)]),
        (Qos::AtLeastOnce, vec![|id| Message::delivery(id)]),
        (Qos::AtLeastOnce, vec![|id| Message::publication("a").qos(1).again(2).id(id)]),
    ];
    for (qos, wrong) in wrong {
        let (client, mut wire) = met(Terms::topics(), |builder| builder).await;
        let hostile = async {
            let publication = wire.receive().await;
            for wrong in &wrong {
                wire.send(&wrong(publication.id)).await;
            }
            wire.closed_for().await
        };
        let (fate, code) = tokio::join!(client.publish("a.b", "hello").qos(qos).into_future(), hostile);
        assert_eq!(code, Code::PROTOCOL_VIOLATION);
        // With the `ack` its fate was known.
        match (wrong.len(), fate) {
            (2, fate) => assert_eq!(fate, Ok(Fate::Accepted { attempts: 1 })),
            (_, Err(PublishError::Lost { attempts: 1, .. })) => {}
            (_, fate) => panic!("{fate:?}"),
        }
    }
}

// spec: §12.8
async fn a_server_that_answers_no_publication_is_given_up(_: Net) {
    let (client, mut wire) = met(Terms::topics().limit("max_inflight", 1), |builder| {
        builder.configure(|config| {
            config.attempts = 3;
            config.ack_timeout = Duration::from_millis(50);
        })
    })
    .await;
    let silent = async {
        let first = wire.receive().await;
        for attempt in 2..=3 {
            let again = wire.receive().await;
            assert_eq!((again.id, again.says("attempt")), (first.id, Some(attempt)));
        }
        first.id
    };
    let (fate, id) = tokio::join!(client.publish("a.b", &1).qos(Qos::ExactlyOnce).into_future(), silent);
    assert!(matches!(fate, Err(PublishError::GivenUp { attempts: 3, .. })), "{fate:?}");
    // It is in flight for as long as nobody answers: the next one waits.
    let next = tokio::spawn({
        let peer = client.peer();
        async move { peer.publish("a.b", &2).qos(Qos::AtLeastOnce).await }
    });
    wire.ping().await;
    wire.send(&Message::ack(id)).await;
    assert_eq!(answer_to(&mut wire, id).await.does(), Some(verb::RELEASE));
    wire.send(&Message::complete(id)).await;
    let second = wire.receive().await;
    assert_eq!(second.decode::<u8>(), 2);
    wire.send(&Message::nack(second.id, Error::permission_denied("no"))).await;
    assert!(matches!(next.await.unwrap(), Err(PublishError::Rejected { attempts: 1, .. })));
    eventually("nothing is held", || client.stats().publish_bytes == 0).await;
}

// spec: §6.6, §12.3, §12.11
async fn a_server_that_allows_nothing_gets_nothing(_: Net) {
    let (client, mut wire) = met(Terms::streams(), |builder| builder).await;
    let error = client.publish("a.b", &1).await.unwrap_err();
    assert_eq!(error.error().code, Code::UNIMPLEMENTED);
    assert_eq!(client.messages("a.b").await.unwrap_err().code, Code::UNIMPLEMENTED);
    wire.ping().await;
    let nothing = Terms::topics().limit("max_inflight", 0).limit("max_subscriptions", 0);
    let (client, mut wire) = met(nothing, |builder| builder).await;
    let error = client.publish("a.b", &1).qos(Qos::AtLeastOnce).await.unwrap_err();
    assert_eq!(error.error().code, Code::RESOURCE_EXHAUSTED);
    assert_eq!(client.messages("a.b").await.unwrap_err().code, Code::RESOURCE_EXHAUSTED);
    assert_eq!(client.publish("a.b", &1).await, Ok(Fate::Queued));
    assert_eq!(wire.receive().await.decode::<u8>(), 1);
}
