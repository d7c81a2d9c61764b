//! What peers may do.

use std::sync::{Arc, Mutex};

use fluxar::{Access, Code, Error, Fate, Message, Peer, PublishError, Qos, Raw, Request, StreamRequest};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::wire::{self, Wire};

matrix! {
    what_a_peer_may_not_do_is_refused_unprocessed
    what_a_peer_may_do_goes_on_beside_that
    a_publication_without_acknowledgement_is_dropped_and_counted
    a_filter_may_not_reach_further_than_allowed
    what_this_side_does_itself_needs_no_leave
    a_hook_that_panics_refuses
    the_other_direction_is_guarded_too
    refusals_for_want_of_leave_are_limited_like_all
}

/// Who comes may do what is within `open.>`.
fn only_open(_: &Peer, access: Access<'_>) -> Result<(), Error> {
    match access.is_within("open.>") {
        true => Ok(()),
        false => Err(Error::permission_denied("only what is open")),
    }
}

/// A server that lets those who come do what is within `open.>`, and counts the handlers that it runs.
async fn guarded(net: Net) -> (Site, Counter) {
    let ran = Counter::new();
    let site = Site::with(net, |mut builder| {
        for name in ["open.echo", "shut.echo"] {
            let (calls, streams) = (ran.clone(), ran.clone());
            builder = builder
                .handle(name, move |request: Request| {
                    calls.add();
                    async move { Ok(request.raw()) }
                })
                .handle_stream(name, move |request: StreamRequest| {
                    streams.add();
                    async move { Ok(request.raw()) }
                });
        }
        builder.authorize(only_open)
    });
    (site.await, ran)
}

fn assert_denied(error: &Error) {
    assert_eq!(error.code, Code::PERMISSION_DENIED, "{error:?}");
    assert_eq!(error.message, "only what is open");
    assert_eq!(error.processed, Some(false), "{error:?}");
}

// spec: §16.4
async fn what_a_peer_may_not_do_is_refused_unprocessed(net: Net) {
    let (site, ran) = guarded(net).await;
    let client = site.client().await;
    for method in ["shut.echo", "nowhere"] {
        assert_denied(&client.call::<Raw>(method, &1).await.unwrap_err());
        let mut stream = client.stream::<u32>(method, &1).await.unwrap();
        assert_denied(&stream.next().await.unwrap().unwrap_err());
    }
    assert_denied(&client.messages("shut.news").await.unwrap_err());
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        match client.publish("shut.news", &1).qos(qos).await {
            Err(PublishError::Rejected { error, attempts: 1 }) => assert_denied(&error),
            other => panic!("{qos:?}: {other:?}"),
        }
    }
    assert_eq!(ran.get(), 0);
    assert_eq!(site.handle().hub().stats().published, 0);
}

async fn what_a_peer_may_do_goes_on_beside_that(net: Net) {
    let (site, _) = guarded(net).await;
    let client = site.client().await;
    let mut all = client.messages("open.>").qos(Qos::ExactlyOnce).await.unwrap();
    for number in 0..3u32 {
        let shut = client.publish("shut.news", &number).qos(Qos::AtLeastOnce).await;
        assert!(matches!(shut, Err(PublishError::Rejected { .. })), "{shut:?}");
        assert_eq!(client.call::<u32>("open.echo", &number).await, Ok(number));
        let stream = client.stream::<u32>("open.echo", &number).await.unwrap();
        assert_eq!(stream.finish::<u32>().await, Ok(number));
        let fate = client.publish("open.news", &number).qos(Qos::ExactlyOnce).await;
        assert_eq!(fate, Ok(Fate::Accepted { attempts: 1 }));
        let message = all.next().await.unwrap();
        message.ack().await.unwrap();
        assert_eq!((message.topic(), message.payload::<u32>()), ("open.news", Ok(number)));
    }
}

async fn a_publication_without_acknowledgement_is_dropped_and_counted(net: Net) {
    let (site, _) = guarded(net).await;
    let client = site.client().await;
    let mut inside = site.handle().hub().messages(">").await.unwrap();
    for number in 0..5 {
        client.publish("shut.news", &number).await.unwrap();
    }
    client.publish("open.news", &5).await.unwrap();
    assert_eq!(inside.next().await.unwrap().payload::<u32>(), Ok(5), "the others came before it");
    let stats = site.handle().hub().stats();
    assert_eq!((stats.denied, stats.published), (5, 1));
}

async fn a_filter_may_not_reach_further_than_allowed(net: Net) {
    let (site, _) = guarded(net).await;
    let client = site.client().await;
    for filter in ["open.*", "open.>", "open.a.>", "open.*.b"] {
        client.messages(filter).await.unwrap();
    }
    for filter in [">", "*", "*.>", "*.news", "open", "opening.>"] {
        assert_denied(&client.messages(filter).await.unwrap_err());
    }
    eventually("the subscriptions are gone", || site.handle().hub().stats().subscriptions == 0).await;
}

async fn what_this_side_does_itself_needs_no_leave(net: Net) {
    let (site, _) = guarded(net).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    let client = site
        .connect()
        .handle("shut.ask", |_| async { Ok("answer") })
        .handle_stream("shut.ask", |_| async { Ok("end") })
        .build()
        .await
        .unwrap();
    let peer = site.peer().await;
    assert_eq!(peer.call::<String>("shut.ask", &()).await.as_deref(), Ok("answer"));
    let stream = peer.stream::<u8>("shut.ask", &()).await.unwrap();
    assert_eq!(stream.finish::<String>().await.as_deref(), Ok("end"));
    client
        .hub()
        .subscribe("shut.>", move |message: Message| {
            heard.lock().unwrap().push(message.topic().to_owned());
            async { Ok(()) }
        })
        .await
        .unwrap();
    peer.publish("shut.news", &1).qos(Qos::AtLeastOnce).await.unwrap();
    let hub = site.handle().hub();
    let mut own = hub.messages("shut.news").await.unwrap();
    hub.publish("shut.news", &2).await.unwrap();
    assert_eq!(own.next().await.unwrap().payload::<u32>(), Ok(2));
    eventually("the client's hub has it", || *asked.lock().unwrap() == ["shut.news"]).await;
}

async fn a_hook_that_panics_refuses(net: Net) {
    let site = Site::with(net, |builder| {
        builder.authorize(|_, access| match access {
            Access::Call("echo") => Ok(()),
            access => panic!("{access:?}"),
        })
    })
    .await;
    let client = site.client().await;
    let error = client.call::<Raw>("count", &1).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::INTERNAL, Some(false)));
    let refused = client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap_err();
    assert_eq!(refused.error().code, Code::INTERNAL);
    assert_eq!(client.messages("x").await.unwrap_err().code, Code::INTERNAL);
    assert_eq!(client.call::<u32>("echo", &7).await, Ok(7), "the connection lives on");
}

async fn the_other_direction_is_guarded_too(net: Net) {
    let site = Site::open(net).await;
    let handler = |_| async { Ok("answer") };
    let client = site.connect().handle("open.ask", handler).handle("shut.ask", handler).authorize(only_open);
    let _client = client.build().await.unwrap();
    let peer = site.peer().await;
    assert_eq!(peer.call::<String>("open.ask", &()).await.as_deref(), Ok("answer"));
    assert_denied(&peer.call::<String>("shut.ask", &()).await.unwrap_err());
}

// spec: §10.7
async fn refusals_for_want_of_leave_are_limited_like_all(net: Net) {
    let site = Site::with(net, |builder| {
        builder.authorize(only_open).configure(|config| {
            config.misuse_capacity = 10;
            config.misuse_per_second = 0;
        })
    });
    let site = site.await;
    let mut wire = Wire::established(site.url()).await;
    for _ in 0..11 {
        wire.send(&wire::Message::call("shut.echo")).await;
    }
    assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
}
