//! Publish and subscribe through the public API, over real sockets.

use fluxar::{
    Client, Code, Error, Fate, HandlerError, Hub, Message, Overflow, PublishError, Qos, QueueLimits, Tokio,
};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use futures_util::{FutureExt, StreamExt};

matrix! {
    the_announced_form_works
    what_is_published_reaches_who_has_subscribed
    a_publisher_gets_its_own_messages
    filters_choose
    order_is_kept_in_every_mode
    a_subscription_that_is_dropped_is_over
    a_handler_outlives_its_handle_until_it_unsubscribes
    the_end_of_the_connection_ends_subscriptions
    bad_topics_and_filters_are_refused
    nobody_to_deliver_to_is_acceptance
    metadata_reaches_the_subscribers
    a_server_publishes_and_subscribes_itself
    handlers_may_publish_and_call_back
    handlers_run_at_once_where_they_may
}

const MODES: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Order {
    number: u32,
}

/// Waits until as many subscriptions are there.
async fn subscribed(site: &Site, count: usize) {
    eventually("the subscriptions are there", || site.handle().hub().stats().subscriptions == count).await;
}

// spec: §12.3, §12.5, §12.6
async fn the_announced_form_works(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let seen = Counter::new();
    let count = seen.clone();
    client
        .subscribe("orders.created", move |msg: Message| {
            let count = count.clone();
            async move {
                let order: Order = msg.payload()?;
                assert_eq!(order, Order { number: 7 });
                count.add();
                msg.ack().await
            }
        })
        .await
        .unwrap();
    client
        .subscribe("orders.created", |msg: Message| async move {
            let order: Order = msg.payload()?;
            assert_eq!(order, Order { number: 7 });
            msg.ack().await
        })
        .await
        .unwrap();
    let other = site.client().await;
    let fate = other.publish("orders.created", &Order { number: 7 }).qos(Qos::ExactlyOnce).await;
    assert_eq!(fate, Ok(Fate::Accepted { attempts: 1 }));
    seen.reached(1).await;
}

// spec: §12.6, §12.8, §12.9
async fn what_is_published_reaches_who_has_subscribed(net: Net) {
    let site = Site::open(net).await;
    let (publisher, subscriber) = (site.client().await, site.client().await);
    let mut messages = subscriber.messages("a.b").await.unwrap();
    for qos in MODES {
        let fate = publisher.publish("a.b", "hello").qos(qos).await.unwrap();
        let expected = if qos == Qos::AtMostOnce { Fate::Queued } else { Fate::Accepted { attempts: 1 } };
        assert_eq!(fate, expected);
        let message = messages.next().await.unwrap();
        assert_eq!((message.topic(), message.qos(), message.attempt()), ("a.b", qos, 1));
        assert_eq!(message.payload::<String>().unwrap(), "hello");
        assert!(!message.is_duplicate() && !message.is_retained());
        message.ack().await.unwrap();
        let again = message.ack().await.map_err(Error::from);
        match qos {
            Qos::AtMostOnce => assert_eq!(again, Ok(())),
            _ => assert_eq!(again.unwrap_err().code, Code::FAILED_PRECONDITION),
        }
    }
    drop(messages);
    subscribed(&site, 0).await;
}

// spec: §12.3
async fn a_publisher_gets_its_own_messages(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut both = [client.messages("x").await.unwrap(), client.messages(">").await.unwrap()];
    client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap();
    for messages in &mut both {
        let message = messages.next().await.unwrap();
        assert_eq!((message.topic(), message.payload::<u32>().unwrap()), ("x", 1));
    }
}

// spec: §12.2
async fn filters_choose(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut messages = client.messages("orders.*").await.unwrap();
    for topic in ["orders", "orders.created.eu", "people.created", "orders.created", "orders.paid"] {
        client.publish(topic, topic).qos(Qos::AtLeastOnce).await.unwrap();
    }
    for topic in ["orders.created", "orders.paid"] {
        assert_eq!(messages.next().await.unwrap().topic(), topic);
    }
}

// spec: §12.6
async fn order_is_kept_in_every_mode(net: Net) {
    // Room for all, so that nothing that is sent at most once is dropped.
    let room = QueueLimits { items: 5_000, bytes: 64 << 20, ..QueueLimits::default() };
    let hub = Hub::builder(Tokio).queue(room).build();
    let held = |config: &mut fluxar::Config| config.held_publications = room;
    let site = Site::with(net, |builder| builder.hub(hub).configure(held)).await;
    let (publisher, subscriber) = (site.client().await, site.client().await);
    for qos in MODES {
        let messages = subscriber.messages("count").buffer(5_000, 64 << 20).await.unwrap();
        let publishing = async {
            let mut fates = futures_util::stream::FuturesOrdered::new();
            for number in 0..2_000_u32 {
                fates.push_back(publisher.publish("count", &number).qos(qos).into_future());
                if fates.len() >= 64 {
                    fates.next().await.unwrap().unwrap();
                }
            }
            while let Some(fate) = fates.next().await {
                fate.unwrap();
            }
        };
        let receiving = async {
            let numbers = messages.take(2_000).then(async |message| {
                message.ack().await.unwrap();
                message.payload::<u32>().unwrap()
            });
            numbers.collect::<Vec<_>>().await
        };
        let ((), received) = tokio::join!(publishing, receiving);
        assert_eq!(received, (0..2_000).collect::<Vec<_>>(), "{qos:?}");
    }
}

// spec: §12.4
async fn a_subscription_that_is_dropped_is_over(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let messages = client.messages("x").await.unwrap();
    subscribed(&site, 1).await;
    drop(messages);
    subscribed(&site, 0).await;
    // The same where nobody waits for the confirmation.
    drop(client.messages("x").into_future().now_or_never());
    client.call::<u32>("count", &0).await.unwrap();
    subscribed(&site, 0).await;
}

// spec: §12.4, §12.12
async fn a_handler_outlives_its_handle_until_it_unsubscribes(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let seen = Counter::new();
    let count = seen.clone();
    let handler = move |_: Message| {
        count.add();
        async { Ok(()) }
    };
    let handle = client.subscribe("x", handler).await.unwrap();
    drop(handle.clone());
    client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap();
    seen.reached(1).await;
    assert_eq!((handle.qos(), handle.stats().received), (Qos::ExactlyOnce, 1));
    handle.unsubscribe().await;
    assert_eq!(handle.ended().await, None);
    assert_eq!(handle.stats().received, 1);
    subscribed(&site, 0).await;
    client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap();
    assert_eq!(seen.get(), 1);
}

// spec: §12.12
async fn the_end_of_the_connection_ends_subscriptions(net: Net) {
    let site = Site::open(net).await;
    let client = site.fleeting().await;
    let mut messages = client.messages("x").await.unwrap();
    let handle = client.subscribe("x", |_| async { Ok(()) }).await.unwrap();
    site.peer().await.hang_up();
    assert!(messages.next().await.is_none());
    assert_eq!(messages.error().unwrap().code, Code::UNAVAILABLE);
    assert_eq!(handle.ended().await.unwrap().code, Code::UNAVAILABLE);
    subscribed(&site, 0).await;
    let error = client.publish("x", &1).await.unwrap_err();
    assert!(matches!(error, PublishError::NotSent(_)) && error.error().is_retry_safe(), "{error}");
    assert_eq!(client.messages("x").await.unwrap_err().code, Code::UNAVAILABLE);
}

// spec: §12.1, §12.2
async fn bad_topics_and_filters_are_refused(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    for topic in ["", "a..b", "a b", "a.*", ">", "fluxar.x"] {
        let error = client.publish(topic, &1).await.unwrap_err();
        assert!(matches!(error, PublishError::NotSent(_)), "{error}");
        assert_eq!(error.error().code, Code::INVALID_ARGUMENT);
        let local = client.hub().publish(topic, &1).await.unwrap_err();
        assert_eq!(local.error().code, Code::INVALID_ARGUMENT);
    }
    for filter in ["", "a..b", "a b", "a.*b", ">.a"] {
        assert_eq!(client.messages(filter).await.unwrap_err().code, Code::INVALID_ARGUMENT);
        assert_eq!(client.hub().messages(filter).await.unwrap_err().code, Code::INVALID_ARGUMENT);
    }
    let group = "x".repeat(256);
    assert_eq!(client.messages("x").group(&group).await.unwrap_err().code, Code::INVALID_ARGUMENT);
    assert_eq!(client.hub().messages("x").group(&group).await.unwrap_err().code, Code::INVALID_ARGUMENT);
    // Reserved (§14.1).
    assert!(client.messages("fluxar.x").await.is_err());
    assert_eq!(client.hub().messages("fluxar.x").await.unwrap_err().code, Code::INVALID_ARGUMENT);
}

// spec: §12.5
async fn nobody_to_deliver_to_is_acceptance(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        assert_eq!(client.publish("x", &1).qos(qos).await, Ok(Fate::Accepted { attempts: 1 }));
        // In the other direction too.
        let peer = site.peer().await;
        assert_eq!(peer.publish("x", &1).qos(qos).await, Ok(Fate::Accepted { attempts: 1 }));
    }
}

// spec: §12.5
async fn metadata_reaches_the_subscribers(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut remote = client.messages("x").await.unwrap();
    let mut local = site.handle().hub().messages("x").await.unwrap();
    client.publish("x", &1).qos(Qos::AtLeastOnce).meta("tenant", "acme").await.unwrap();
    for messages in [&mut remote, &mut local] {
        let message = messages.next().await.unwrap();
        assert_eq!(message.meta().get_str("tenant"), Some("acme"));
        assert_eq!(message.meta().len(), 1);
    }
    let error = client.publish("x", &1).meta("seq", &1).await.unwrap_err();
    assert_eq!(error.error().code, Code::INVALID_ARGUMENT);
}

// spec: §12.5
async fn a_server_publishes_and_subscribes_itself(net: Net) {
    let server = fluxar::Server::bind(net.url()).build().await.unwrap();
    let mut here = server.messages("x").await.unwrap();
    let seen = Counter::new();
    let count = seen.clone();
    let handler = move |message: Message| {
        let count = count.clone();
        async move {
            message.payload::<u32>()?;
            count.add();
            Ok(())
        }
    };
    server.subscribe("x", handler).await.unwrap();
    assert_eq!(server.publish("x", &1).qos(Qos::ExactlyOnce).await, Ok(Fate::Accepted { attempts: 1 }));
    let message = here.next().await.unwrap();
    assert_eq!((message.qos(), message.peer()), (Qos::ExactlyOnce, None));
    let site = Site::of(server);
    let client = site.client().await;
    let mut there = client.messages("x").await.unwrap();
    client.publish("x", &2).qos(Qos::AtLeastOnce).await.unwrap();
    let message = here.next().await.unwrap();
    assert_eq!(message.payload::<u32>().unwrap(), 2);
    assert_eq!(message.peer().unwrap(), site.peer().await);
    assert_eq!(there.next().await.unwrap().payload::<u32>().unwrap(), 2);
    seen.reached(2).await;
}

/// Asks the publisher for the name that goes with a number, and publishes it.
async fn introduce(message: Message) -> Result<(), HandlerError> {
    let number: u32 = message.payload()?;
    let peer = message.peer().ok_or_else(|| Error::internal("nobody has published it"))?;
    let name: String = peer.call("name.of", &number).await?;
    peer.publish("names", &name).qos(Qos::ExactlyOnce).await?;
    Ok(())
}

// spec: §12.5
async fn handlers_may_publish_and_call_back(net: Net) {
    let site = Site::open(net).await;
    let hub = site.handle().hub();
    hub.subscribe("numbers", introduce).await.unwrap();
    let client = site
        .connect()
        .handle("name.of", |request: fluxar::Request| async move {
            let number: u32 = request.payload()?;
            Ok(format!("number {number}"))
        })
        .build()
        .await
        .unwrap();
    // What the server publishes to its client arrives at the client's hub.
    let mut names = client.hub().messages("names").await.unwrap();
    for number in 0..50 {
        client.publish("numbers", &number).qos(Qos::ExactlyOnce).await.unwrap();
    }
    for number in 0..50 {
        let name = names.next().await.unwrap();
        assert_eq!(name.payload::<String>().unwrap(), format!("number {number}"));
        name.ack().await.unwrap();
    }
    // A handler at the client, too, that asks the server, which delivers to it.
    let server: Client = site.client().await;
    let done = Counter::new();
    let (count, peer) = (done.clone(), server.peer());
    let asks = move |message: Message| {
        let (count, peer) = (count.clone(), peer.clone());
        async move {
            let number: u32 = peer.call("count", &message.payload::<u32>()?).await?;
            peer.publish("answers", &number).qos(Qos::ExactlyOnce).await?;
            count.add();
            message.ack().await
        }
    };
    server.subscribe("questions", asks).when_full(Overflow::Wait).await.unwrap();
    for number in 0..50 {
        hub.publish("questions", &number).qos(Qos::ExactlyOnce).await.unwrap();
    }
    done.reached(50).await;
}

// spec: §12.12
async fn handlers_run_at_once_where_they_may(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let (started, finished) = (Counter::new(), Counter::new());
    let (began, ended) = (started.clone(), finished.clone());
    let handler = move |_: Message| {
        let (began, ended) = (began.clone(), ended.clone());
        async move {
            began.add();
            // Only where four run at once there is an end.
            began.reached(4).await;
            ended.add();
            Ok(())
        }
    };
    let handle = client.subscribe("x", handler).concurrency(4).await.unwrap();
    for number in 0..8 {
        client.publish("x", &number).qos(Qos::AtLeastOnce).await.unwrap();
    }
    finished.reached(8).await;
    handle.unsubscribe().await;
}
