//! Sessions that outlive their links, at a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fluxar::{Code, ConnectionError, IntoPayload, Overflow, Peer, Qos, QueueLimits, Raw, Request};
use fluxar_proto::{CallOptions, Event, SubscribeOptions};
use fluxar_tests::dialler::Dialler;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::wire::Wire;
use fluxar_tests::{matrix, schedulers};
use futures_util::future::join_all;
use tokio::sync::Notify;

matrix! {
    a_call_is_answered_over_the_next_link
    a_new_link_takes_over_from_one_that_nobody_knows_to_be_dead
    what_a_server_says_to_who_is_away_is_heard_later
}

schedulers! {
    handles_hooks_and_remote_live_on
    deadlines_run_on_without_a_link
    a_session_that_is_away_for_too_long_is_lost
    a_session_that_is_away_can_be_closed
    a_server_that_stops_takes_those_along_who_are_away
    the_oldest_goes_where_too_many_are_away
    the_oldest_goes_where_those_who_are_away_hold_too_much
    deliveries_to_who_is_away_keep_within_bounds
    the_old_link_goes_on_where_a_new_one_comes_to_nothing
    a_session_of_no_time_ends_with_its_link
    pings_on_a_link_that_is_lost_fail
    a_link_may_be_lost_again_and_again
}

/// A server whose `later` answers once it is told to.
async fn patient(net: Net) -> (Site, Arc<Notify>, Counter) {
    let (answer, begun) = (Arc::new(Notify::new()), Counter::new());
    let site = Site::with(net, |builder| {
        let (answer, begun) = (answer.clone(), begun.clone());
        builder.handle("later", move |request: Request| {
            let (answer, begun) = (answer.clone(), begun.clone());
            async move {
                begun.add();
                answer.notified().await;
                Ok(request.raw())
            }
        })
    })
    .await;
    (site, answer, begun)
}

async fn resumed(site: &Site, times: u64) {
    eventually("it goes on", || site.handle().stats().resumed == times).await;
}

async fn away(site: &Site, count: usize) {
    eventually("so many are away", || site.handle().stats().detached == count).await;
}

// spec: §8.8, §9.1, §9.7
async fn a_call_is_answered_over_the_next_link(net: Net) {
    let (site, answer, begun) = patient(net).await;
    let mut client = Dialler::connect(site.url()).await;
    let call = client.call("later", &"now or then").await;
    begun.reached(1).await;
    client.cut();
    away(&site, 1).await;
    answer.notify_one();
    assert!(client.connection.is_detached());
    client.resume().await;
    let payload = client.outcome(call).await.unwrap();
    assert_eq!(Raw::from(payload).decode::<String>().unwrap(), "now or then");
    assert_eq!(begun.get(), 1, "once, and not again");
    let stats = site.handle().stats();
    assert_eq!((stats.connections, stats.detached, stats.detached_bytes, stats.resumed), (1, 0, 0, 1));
    assert_eq!((stats.evicted, stats.expired, stats.resumes_refused), (0, 0, 0));
}

// spec: §9.8
async fn a_new_link_takes_over_from_one_that_nobody_knows_to_be_dead(net: Net) {
    let (site, answer, begun) = patient(net).await;
    let mut client = Dialler::connect(site.url()).await;
    let call = client.call("later", &1).await;
    begun.reached(1).await;
    let old = client.leave();
    client.resume().await;
    resumed(&site, 1).await;
    assert_eq!(site.handle().stats().detached, 0, "it never was without a link");
    // Closed, and without a word.
    assert!(!Wire::over(old).ended().await);
    answer.notify_one();
    client.outcome(call).await.unwrap();
    let call = client.call("echo", &2).await;
    client.outcome(call).await.unwrap();
}

// spec: §9.4, §9.7
async fn what_a_server_says_to_who_is_away_is_heard_later(net: Net) {
    let site = Site::open(net).await;
    let mut client = Dialler::connect(site.url()).await;
    let peer = site.peer().await;
    client.cut();
    away(&site, 1).await;
    let called = tokio::spawn({
        let peer = peer.clone();
        async move { peer.call::<u8>("double", &4).await }
    });
    eventually("the call waits", || peer.stats().calls_in_flight == 1).await;
    client.resume().await;
    let request = client
        .until("a request", |event| match event {
            Event::Call(fluxar_proto::CallEvent::Request(request)) => Some(request.clone()),
            _ => None,
        })
        .await;
    assert_eq!(&*request.method, "double");
    client.connection.respond(request.id, Ok(8.to_payload().unwrap())).unwrap();
    client.flush().await;
    assert_eq!(called.await.unwrap(), Ok(8));
}

// spec: §9.1
async fn handles_hooks_and_remote_live_on(net: Net) {
    let (peers, mut met) = tokio::sync::mpsc::unbounded_channel::<Peer>();
    let site = Site::with(net, |builder| {
        builder.on_connect(move |peer| {
            peers.send(peer).unwrap();
            async {}
        })
    })
    .await;
    let mut client = Dialler::connect(site.url()).await;
    let peer = met.recv().await.unwrap();
    let before = peer.remote();
    client.cut();
    away(&site, 1).await;
    assert_eq!((site.handle().peers(), peer.error()), (vec![peer.clone()], None));
    client.resume().await;
    resumed(&site, 1).await;
    assert_eq!(site.handle().peers(), std::slice::from_ref(&peer));
    assert_ne!(peer.remote(), before, "at another port");
    assert_eq!(peer.stats().resumed, 1);
    let call = client.call("echo", &1).await;
    client.outcome(call).await.unwrap();
    assert!(met.try_recv().is_err(), "it did not connect again");
}

// spec: §9.7, §10.5
async fn deadlines_run_on_without_a_link(net: Net) {
    let ended = Counter::new();
    let site = Site::with(net, |builder| {
        let ended = ended.clone();
        builder.handle("stay", move |request: Request| {
            let guard = ended.guard();
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
                Ok(request.raw())
            }
        })
    })
    .await;
    let mut client = Dialler::connect(site.url()).await;
    let peer = site.peer().await;
    let within = CallOptions::new().with_timeout(Duration::from_millis(250));
    let call = client.call_within("stay", &(), within).await;
    eventually("it runs", || peer.stats().requests_running == 1).await;
    client.cut();
    away(&site, 1).await;
    let late = peer.call::<Raw>("never", &()).timeout(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((late.code, late.processed), (Code::DEADLINE_EXCEEDED, Some(false)));
    // The handler of the other side's call is told too.
    ended.reached(1).await;
    assert_eq!(site.handle().stats().detached, 1);
    client.resume().await;
    assert_eq!(client.outcome(call).await.unwrap_err().code, Code::DEADLINE_EXCEEDED);
}

// spec: §9.1, §9.9
async fn a_session_that_is_away_for_too_long_is_lost(net: Net) {
    let ended = Counter::new();
    let site = Site::with(net, |builder| {
        let ended = ended.clone();
        builder.resume_for(Duration::from_millis(500)).handle("stay", move |request: Request| {
            let guard = ended.guard();
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
                Ok(request.raw())
            }
        })
    })
    .await;
    let mut client = Dialler::connect(site.url()).await;
    let peer = site.peer().await;
    client.call("stay", &()).await;
    eventually("it runs", || peer.stats().requests_running == 1).await;
    client.cut();
    let since = Instant::now();
    away(&site, 1).await;
    let waiting = peer.call::<Raw>("never", &()).await.unwrap_err();
    assert_eq!((waiting.code, waiting.processed), (Code::UNAVAILABLE, Some(false)));
    assert_eq!(peer.closed().await, ConnectionError::SessionLost);
    assert!(since.elapsed() >= Duration::from_millis(500));
    ended.reached(1).await;
    eventually("it is forgotten", || site.handle().peers().is_empty()).await;
    let stats = site.handle().stats();
    assert_eq!((stats.detached, stats.expired, stats.evicted, stats.connections), (0, 1, 0, 0));
    client.dial().await;
    let lost = client
        .until("it is lost", |event| match event {
            Event::Lost(lost) => Some(lost.clone()),
            _ => None,
        })
        .await;
    assert_eq!((lost.calls, lost.why), (1, ConnectionError::SessionLost));
    assert_eq!(site.handle().stats().resumes_refused, 1);
}

// spec: §8.1, §9.1
async fn a_session_that_is_away_can_be_closed(net: Net) {
    let site = Site::open(net).await;
    let mut client = Dialler::connect(site.url()).await;
    let peer = site.peer().await;
    client.cut();
    away(&site, 1).await;
    assert_eq!(peer.shut_down().await, ConnectionError::ClosedLocally(None));
    eventually("it is forgotten", || site.handle().stats() == fluxar::ServerStats::default()).await;
    client.dial().await;
    client.until("it is lost", |event| matches!(event, Event::Lost(_)).then_some(())).await;
}

// spec: §8.7
async fn a_server_that_stops_takes_those_along_who_are_away(net: Net) {
    let site = Site::open(net).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Dialler::connect(site.url()).await);
    }
    clients.iter_mut().for_each(Dialler::cut);
    away(&site, 3).await;
    let peers = site.handle().peers();
    site.close().await;
    for peer in peers {
        assert_eq!(peer.error(), Some(ConnectionError::ClosedLocally(None)));
    }
}

// spec: §17.2
// limit: sessions without a link, at a responder, and bytes that they hold
async fn the_oldest_goes_where_too_many_are_away(net: Net) {
    let site = Site::with(net, |builder| builder.max_detached(2)).await;
    let mut clients = Vec::new();
    for number in 1..=3 {
        clients.push(Dialler::connect(site.url()).await);
        eventually("it is there", || site.handle().peers().len() == number).await;
    }
    let peers = site.handle().peers();
    for (number, client) in clients.iter_mut().enumerate() {
        client.cut();
        away(&site, (number + 1).min(2)).await;
    }
    assert_eq!(peers[0].closed().await, ConnectionError::SessionLost);
    let stats = site.handle().stats();
    assert_eq!((stats.detached, stats.evicted, stats.expired), (2, 1, 0));
    for client in &mut clients[1..] {
        client.resume().await;
    }
    clients[0].dial().await;
    clients[0].until("it is lost", |event| matches!(event, Event::Lost(_)).then_some(())).await;
    resumed(&site, 2).await;
    assert_eq!((peers[1].error(), peers[2].error()), (None, None));
}

// spec: §17.2
// limit: sessions without a link, at a responder, and bytes that they hold
async fn the_oldest_goes_where_those_who_are_away_hold_too_much(net: Net) {
    let site = Site::with(net, |builder| builder.max_detached_bytes(300_000)).await;
    let mut clients = [Dialler::connect(site.url()).await, Dialler::connect(site.url()).await];
    eventually("both are there", || site.handle().peers().len() == 2).await;
    let peers = site.handle().peers();
    for (number, client) in clients.iter_mut().enumerate() {
        client.cut();
        away(&site, number + 1).await;
    }
    let text = "x".repeat(200_000);
    let first = peers[0].call::<Raw>("never", &text).start().await.unwrap();
    eventually("it is counted", || site.handle().stats().detached_bytes > 200_000).await;
    assert_eq!(site.handle().stats().evicted, 0);
    let second = peers[1].call::<Raw>("never", &text).start().await.unwrap();
    assert_eq!(peers[0].closed().await, ConnectionError::SessionLost);
    assert_eq!(first.await.unwrap_err().code, Code::UNAVAILABLE);
    eventually("its bytes are not counted any more", || site.handle().stats().detached_bytes < 300_000).await;
    assert_eq!((peers[1].error(), site.handle().stats().evicted), (None, 1));
    // And alone it may not hold more either.
    let third = peers[1].call::<Raw>("never", &text).start().await.unwrap();
    assert_eq!(peers[1].closed().await, ConnectionError::SessionLost);
    for call in [second, third] {
        assert_eq!(call.await.unwrap_err().code, Code::UNAVAILABLE);
    }
    let stats = site.handle().stats();
    assert_eq!((stats.detached, stats.detached_bytes, stats.evicted), (0, 0, 2));
}

// spec: §9.7, §12.6, §12.7
async fn deliveries_to_who_is_away_keep_within_bounds(net: Net) {
    let queue = QueueLimits { items: 4, overflow: Overflow::DropOldest, ..QueueLimits::default() };
    let site = Site::with(net, |builder| {
        let hub = fluxar::Hub::builder(fluxar::Tokio).queue(queue).build();
        builder.hub(hub)
    })
    .await;
    let mut client = Dialler::connect(site.url()).await;
    let now = client.now();
    let options = SubscribeOptions::new().with_qos(Qos::AtLeastOnce);
    client.connection.subscribe(now, "news.>", options).unwrap();
    client.flush().await;
    eventually("it has subscribed", || site.handle().hub().stats().subscriptions == 1).await;
    client.cut();
    away(&site, 1).await;
    for number in 0..10_u32 {
        let publish = site.handle().hub().publish("news.local", &number);
        publish.qos(Qos::AtLeastOnce).await.unwrap();
    }
    let hub = site.handle().hub().stats();
    assert_eq!((hub.subscriptions, hub.dropped), (1, 6));
    eventually("the hub knows", || site.handle().hub().stats().undelivered == 6).await;
    client.resume().await;
    assert_eq!(client.deliveries::<u32>(4).await, [6, 7, 8, 9]);
    eventually("all is settled", || site.handle().peers()[0].stats().delivery_bytes == 0).await;
    site.handle().hub().publish("news.local", &10_u32).await.unwrap();
    assert_eq!(client.deliveries::<u32>(1).await, [10]);
}

// spec: §9.6, §9.8
async fn the_old_link_goes_on_where_a_new_one_comes_to_nothing(net: Net) {
    let site = Site::open(net).await;
    let mut client = Dialler::connect(site.url()).await;
    let peer = site.peer().await;
    let mut old = Wire::over(client.leave());
    let mut new = Wire::over(client.offer().await);
    assert!(new.receive().await.error.is_none());
    let called = tokio::spawn({
        let peer = peer.clone();
        async move { peer.call::<u8>("double", &4).timeout(Duration::from_secs(30)).await }
    });
    eventually("the call waits", || peer.stats().calls_in_flight == 1).await;
    // The server is as silent there as it is here: the next that comes is what follows when the new link is gone.
    let bytes_out = peer.stats().bytes_out;
    drop(new);
    let request = old.receive().await;
    assert_eq!(request.target.as_deref(), Some("double"));
    assert!(peer.stats().bytes_out > bytes_out);
    old.send(&fluxar_tests::wire::Message::response(request.id).payload(&8)).await;
    assert_eq!(called.await.unwrap(), Ok(8));
    assert_eq!((site.handle().stats().resumed, site.handle().stats().detached), (0, 0));
}

// spec: §8.8, §9.1
async fn a_session_of_no_time_ends_with_its_link(net: Net) {
    let site = Site::with(net, |builder| builder.resume_for(Duration::ZERO)).await;
    let mut client = Dialler::connect(site.url()).await;
    let peer = site.peer().await;
    client.cut();
    assert!(matches!(peer.closed().await, ConnectionError::LinkLost { .. } | ConnectionError::Transport(_)));
    assert!(!client.connection.is_detached(), "nor does the client wait");
    eventually("it is forgotten", || site.handle().stats() == fluxar::ServerStats::default()).await;
}

// spec: §8.3, §9.7
async fn pings_on_a_link_that_is_lost_fail(net: Net) {
    let site = Site::open(net).await;
    let mut client = Dialler::connect(site.url()).await;
    let peer = site.peer().await;
    for taken_over in [false, true] {
        let (before, pinging) = (peer.stats(), peer.clone());
        // As many as may be on the way, to a client that does not read.
        let pinged = tokio::spawn(async move { join_all((0..8).map(|_| pinging.ping())).await });
        eventually("they are sent", || peer.stats().messages_out == before.messages_out + 8).await;
        let old = client.leave();
        if !taken_over {
            drop(old);
            away(&site, 1).await;
            let error = peer.ping().await.unwrap_err();
            assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, Some(false)));
        }
        client.resume().await;
        for ping in pinged.await.unwrap() {
            assert_eq!(ping.unwrap_err().code, Code::UNAVAILABLE);
        }
        resumed(&site, before.resumed + 1).await;
        let ping = client.meanwhile(peer.ping()).await;
        assert!(ping.is_ok(), "{ping:?}");
    }
}

// spec: §9.6, §9.7
async fn a_link_may_be_lost_again_and_again(net: Net) {
    let (site, answer, begun) = patient(net).await;
    let mut client = Dialler::connect(site.url()).await;
    let call = client.call("later", &"patience").await;
    begun.reached(1).await;
    for number in 1..=20 {
        let old = client.leave();
        if number % 2 == 0 {
            drop(old);
            away(&site, 1).await;
            client.resume().await;
        } else {
            client.resume().await;
            drop(old);
        }
        resumed(&site, number).await;
    }
    answer.notify_one();
    client.outcome(call).await.unwrap();
    assert_eq!((begun.get(), site.handle().stats().resumed), (1, 20));
}
