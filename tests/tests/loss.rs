//! How connections end, and what everybody who waits learns.

use std::time::Duration;

use fluxar::{Client, Code, ConnectionError, Error, Raw, Reconnect, Request};
use fluxar_proto::Timeout;
use fluxar_proto::message::verb;
use fluxar_tests::net::{Flavor, Net, eventually, runtime};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::wire::{Message, Trap};
use fluxar_tests::{matrix, schedulers};
use futures_util::future::join_all;

matrix! {
    a_close_with_a_reason_reaches_whoever_waits
    a_close_is_heard_in_the_midst_of_a_large_message
    answers_given_before_a_close_arrive
    dropping_the_client_closes_the_connection
    both_sides_may_close_at_once
    closing_to_a_peer_that_does_not_read_takes_the_close_timeout
    a_runtime_that_ends_tells_nobody_but_loses_nobody
    a_heartbeat_keeps_quiet_connections
}

schedulers! {
    a_transport_cut_within_a_frame_reaches_whoever_waits
    calls_that_were_not_sent_say_so
    everything_fails_at_once_after_the_end
    a_peer_that_falls_silent_is_given_up
    pings_measure_round_trips
    a_ninth_ping_is_too_many
    statistics_count_what_happens
}

// spec: §8.7, §8.8, §10.9
async fn a_close_with_a_reason_reaches_whoever_waits(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let peer = site.peer().await;
    let calls = tokio::spawn({
        let client = client.peer();
        async move { join_all((0..20).map(|_| client.call::<Raw>("never", &()).into_future())).await }
    });
    let watchers: Vec<_> = (0..5)
        .map(|_| {
            let client = client.peer();
            tokio::spawn(async move { client.closed().await })
        })
        .collect();
    eventually("all calls run", || peer.stats().requests_running == 20).await;
    let reason =
        Error::new(Code(1234), "moved").with_data(&[0x63, b'n', b'e', b'w'][..]).with_retry_after_ms(9);
    peer.close_with(reason.clone());
    for result in calls.await.unwrap() {
        let error = result.unwrap_err();
        assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None), "they were sent");
        assert!(error.message.contains("moved"), "{error}");
    }
    let why = ConnectionError::ClosedByPeer(Some(reason.clone()));
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), why);
    }
    assert_eq!((client.error(), client.closed().await), (Some(why.clone()), why));
    assert_eq!(peer.closed().await, ConnectionError::ClosedLocally(Some(reason)));
    eventually("its handlers have ended", || peer.stats().requests_running == 0).await;
}

// spec: §8.7
async fn a_close_is_heard_in_the_midst_of_a_large_message(net: Net) {
    let reason = Error::unavailable("too much at once");
    let site = Site::with(net, |builder| {
        let reason = reason.clone();
        builder.handle("leave", move |request: Request| {
            request.peer().close_with(reason.clone());
            async { Ok(()) }
        })
    })
    .await;
    let client = site.fleeting().await;
    let large = Raw::encode(&"x".repeat(15 << 20)).unwrap();
    let leave = client.call::<()>("leave", &()).into_future();
    let uploads = join_all((0..3).map(|_| client.call::<Raw>("echo", &large).into_future()));
    let (left, uploaded) = tokio::join!(leave, uploads);
    assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(Some(reason)));
    for error in uploaded.into_iter().chain([left.map(|()| Raw::default())]).map(Result::unwrap_err) {
        assert!(error.message.contains("too much at once"), "{error}");
    }
}

// spec: §8.7
async fn answers_given_before_a_close_arrive(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("last", |request: Request| async move {
            tokio::spawn(async move {
                while request.next_update::<Raw>().await.is_some() {}
                request.peer().close();
            });
            Ok("x".repeat(300_000))
        })
    })
    .await;
    for _ in 0..5 {
        let client = site.client().await;
        let last = client.call::<String>("last", &()).await.unwrap();
        assert_eq!(last.len(), 300_000);
        assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
    }
}

// spec: §8.7
async fn dropping_the_client_closes_the_connection(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let (peer, kept) = (site.peer().await, client.peer());
    let waiting = tokio::spawn({
        let kept = kept.clone();
        async move { kept.call::<Raw>("never", &()).await }
    });
    eventually("the call runs", || peer.stats().requests_running == 1).await;
    drop(client);
    assert_eq!(peer.closed().await, ConnectionError::ClosedByPeer(None));
    assert_eq!(kept.closed().await, ConnectionError::ClosedLocally(None));
    assert_eq!(waiting.await.unwrap().unwrap_err().code, Code::UNAVAILABLE);
    eventually("its handler has ended", || peer.stats().requests_running == 0).await;
}

// spec: §8.7
async fn both_sides_may_close_at_once(net: Net) {
    let site = Site::open(net).await;
    for _ in 0..20 {
        let client = site.client().await;
        let peer = site.peer().await;
        peer.close();
        client.close();
        let (here, there) = (client.shut_down().await, peer.shut_down().await);
        for why in [here, there] {
            assert!(matches!(
                why,
                ConnectionError::ClosedByPeer(None) | ConnectionError::ClosedLocally(None)
            ));
        }
        eventually("it is forgotten", || site.handle().peers().is_empty()).await;
    }
}

// spec: §8.8
async fn a_runtime_that_ends_tells_nobody_but_loses_nobody(net: Net) {
    let site = Site::open(net).await;
    let url = site.url().to_owned();
    let (peer, peers) = tokio::sync::oneshot::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let client = std::thread::spawn(move || {
        let runtime = runtime(Flavor::Multi);
        let connecting = Client::connect(url).reconnect(Reconnect::off()).build();
        let client = runtime.block_on(connecting).unwrap();
        peer.send(client.peer()).unwrap();
        stopped.recv().unwrap();
        std::mem::forget(client);
        drop(runtime);
    });
    let orphan = peers.await.unwrap();
    // Whoever waits on another runtime must not wait for ever.
    let call = orphan.call::<Raw>("never", &()).start().await.unwrap();
    let peer = site.peer().await;
    eventually("the call runs", || peer.stats().requests_running == 1).await;
    stop.send(()).unwrap();
    assert_eq!(call.await.unwrap_err().code, Code::UNAVAILABLE);
    assert!(matches!(orphan.closed().await, ConnectionError::Transport(_)));
    assert!(matches!(peer.closed().await, ConnectionError::LinkLost { .. } | ConnectionError::Transport(_)));
    client.join().unwrap();
}

// spec: §8.4
async fn a_heartbeat_keeps_quiet_connections(net: Net) {
    let site = Site::open(net).await;
    // The smaller of both intervals holds.
    let client = site.connect().configure(|config| config.limits.heartbeat_ms = 100).build().await.unwrap();
    let since = std::time::Instant::now();
    eventually("a dozen pings and replies have passed", || client.stats().messages_in > 12).await;
    assert!(since.elapsed() >= Duration::from_millis(300));
    assert_eq!((client.error(), client.call::<u8>("echo", &1).await), (None, Ok(1)));
}

// spec: §3.4, §8.8, §10.9
async fn a_transport_cut_within_a_frame_reaches_whoever_waits(_: Net) {
    for cut in [1usize, 3, 4, 5, 40] {
        let trap = Trap::open().await;
        let (client, mut wire) =
            tokio::join!(Client::connect(trap.url()).reconnect(Reconnect::off()).build(), trap.established());
        let client = client.unwrap();
        let calls = tokio::spawn({
            let peer = client.peer();
            async move {
                tokio::join!(
                    peer.call::<u8>("a", &()).into_future(),
                    peer.call::<u8>("b", &()).into_future(),
                    peer.closed(),
                )
            }
        });
        let first = wire.receive().await;
        wire.receive().await;
        let response = Message::response(first.id).payload(&1u8).frame();
        wire.send_bytes(&response[..cut]).await;
        drop(wire);
        let (a, b, why) = calls.await.unwrap();
        for error in [a.unwrap_err(), b.unwrap_err()] {
            assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None));
        }
        assert_eq!(why, ConnectionError::LinkLost { unread: cut });
    }
}

// spec: §10.9, §16.4
async fn calls_that_were_not_sent_say_so(_: Net) {
    let trap = Trap::open().await;
    let (client, wire) =
        tokio::join!(Client::connect(trap.url()).reconnect(Reconnect::off()).build(), async {
            let mut wire = trap.accept().await;
            let offer = wire.receive().await;
            // {"version": 1, "limits": {"max_message": 16777216}}
            let answer = b"\xa2\x67version\x01\x66limits\xa1\x6bmax_message\x1a\x01\x00\x00\x00";
            wire.send(&Message::answer(offer.id).raw(&answer[..])).await;
            wire
        });
    let client = client.unwrap();
    let (begun, ended) = (Counter::new(), Counter::new());
    let large = Raw::encode(&"x".repeat(4 << 20)).unwrap();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (peer, large, begun, guard) = (client.peer(), large.clone(), begun.clone(), ended.guard());
            tokio::spawn(async move {
                begun.add();
                let result = peer.call::<Raw>("sink", &large).await;
                drop(guard);
                result.unwrap_err()
            })
        })
        .collect();
    begun.reached(20).await;
    // Nobody reads: the transport takes a part, then no more.
    let mut before = 0;
    eventually("the transport takes no more", || {
        let out = client.stats().bytes_out;
        std::mem::replace(&mut before, out) == out && out > 0
    })
    .await;
    assert_eq!(ended.get(), 0);
    drop(wire);
    let errors: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert!(errors.iter().all(|error| error.code == Code::UNAVAILABLE));
    let unsent = errors.iter().filter(|error| error.processed == Some(false)).count();
    let sent = errors.iter().filter(|error| error.processed.is_none()).count();
    assert!(sent > 0 && unsent > 0 && sent + unsent == 20, "{sent} sent, {unsent} not");
    assert_eq!(client.stats().messages_out, sent as u64 + 1, "as many as went out, and the offer");
}

// spec: §8.1
async fn everything_fails_at_once_after_the_end(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut open = client.call::<Raw>("never", &()).start().await.unwrap();
    client.close_with(Error::aborted("enough"));
    assert_eq!(client.closed().await, ConnectionError::ClosedLocally(Some(Error::aborted("enough"))));
    // The first reason stays.
    client.close();
    for _ in 0..3 {
        let error = client.call::<Raw>("echo", &()).await.unwrap_err();
        assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, Some(false)));
        assert!(error.message.contains("enough"), "{error}");
    }
    assert_eq!(client.ping().await.unwrap_err().code, Code::UNAVAILABLE);
    assert!(client.call::<Raw>("echo", &()).start().await.is_err());
    assert_eq!(open.update(&1).await.unwrap_err().code, Code::CANCELLED);
    assert_eq!(open.next_update::<Raw>().await, None);
    assert_eq!(open.await.unwrap_err().code, Code::UNAVAILABLE);
    assert_eq!(client.error(), Some(ConnectionError::ClosedLocally(Some(Error::aborted("enough")))));
}

// spec: §8.4, §5.17
async fn a_peer_that_falls_silent_is_given_up(_: Net) {
    let trap = Trap::open().await;
    let since = std::time::Instant::now();
    let connect = Client::connect(trap.url())
        .reconnect(Reconnect::off())
        .configure(|config| config.limits.heartbeat_ms = 100);
    let (client, mut wire) = tokio::join!(connect.build(), trap.established());
    let client = client.unwrap();
    let call = client.call::<Raw>("never", &()).into_future();
    let (error, why) = tokio::join!(call, client.closed());
    assert_eq!(why, ConnectionError::TimedOut(Timeout::Heartbeat));
    assert_eq!(error.unwrap_err().code, Code::UNAVAILABLE);
    assert!(since.elapsed() >= Duration::from_millis(300), "three intervals");
    let mut pings = 0;
    let close = loop {
        let message = wire.receive().await;
        match message.target.as_deref() {
            Some(verb::PING) => pings += 1,
            Some(verb::CLOSE) => break message,
            _ => {}
        }
    };
    assert!((2..=3).contains(&pings), "{pings} pings in three intervals");
    assert_eq!(close.error.unwrap().code, Code::HEARTBEAT_TIMEOUT);
    assert_eq!(wire.next().await, None);
}

// spec: §8.3
async fn pings_measure_round_trips(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    assert_eq!(client.stats().rtt, None);
    for _ in 0..20 {
        let rtt = client.ping().await.unwrap();
        assert_eq!(client.stats().rtt, Some(rtt));
    }
    let peer = site.peer().await;
    let pings = join_all((0..8).map(|_| peer.ping())).await;
    assert!(pings.into_iter().all(|ping| ping.is_ok()));
    site.close().await;
    client.closed().await;
    assert_eq!(client.ping().await.unwrap_err().code, Code::UNAVAILABLE);
}

// spec: §8.3
async fn a_ninth_ping_is_too_many(_: Net) {
    let trap = Trap::open().await;
    let (client, mut wire) = tokio::join!(Client::connect(trap.url()).build(), trap.established());
    let client = client.unwrap();
    let eight = tokio::spawn({
        let peer = client.peer();
        async move { join_all((0..8).map(|_| peer.ping())).await }
    });
    let mut pings = Vec::new();
    for _ in 0..8 {
        pings.push(wire.receive().await);
    }
    let error = client.ping().await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    for ping in pings {
        wire.send(&Message::continuation(ping.kind, ping.id)).await;
    }
    assert!(eight.await.unwrap().into_iter().all(|ping| ping.is_ok()));
    let (ninth, reply) = tokio::join!(client.ping(), async {
        let ping = wire.receive().await;
        wire.send(&Message::continuation(ping.kind, ping.id)).await;
    });
    assert!(ninth.is_ok());
    let () = reply;
}

async fn statistics_count_what_happens(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let peer = site.peer().await;
    for number in 0..10u8 {
        assert_eq!(client.call::<u8>("echo", &number).await, Ok(number));
    }
    let open = client.call::<Raw>("never", &()).start().await.unwrap();
    eventually("it runs", || peer.stats().requests_running == 1).await;
    let (here, there) = (client.stats(), peer.stats());
    assert_eq!((here.calls_made, here.calls_in_flight, here.calls_served), (11, 1, 0));
    assert_eq!((there.calls_served, there.requests_running, there.calls_made), (11, 1, 0));
    // The offer went to whoever accepted, before there was a connection.
    assert_eq!((here.messages_out, here.messages_in), (there.messages_in + 1, there.messages_out));
    assert!(here.bytes_out > there.bytes_in && here.bytes_in == there.bytes_out, "{here:?} {there:?}");
    drop(open);
    eventually("it is over", || peer.stats().requests_running == 0).await;
    assert_eq!(client.stats().calls_in_flight, 0);
    let info = client.info().unwrap();
    assert!(info.agent.unwrap().starts_with("fluxar-rs/"));
    assert_eq!((info.version, info.limits), (1, fluxar::Limits::default()));
    assert!(peer.info().is_some());
}

// spec: §8.7
async fn closing_to_a_peer_that_does_not_read_takes_the_close_timeout(_: Net) {
    let trap = Trap::open().await;
    let connecting = Client::connect(trap.url())
        .configure(|config| {
            config.send_buffer = 4000;
            config.close_timeout = Duration::from_millis(200);
        })
        .build();
    let (client, _wire) = tokio::join!(connecting, trap.established());
    let client = client.unwrap();
    let mut call = client.call::<Raw>("deaf", &()).start().await.unwrap();
    let text = "x".repeat(200_000);
    while tokio::time::timeout(Duration::from_millis(200), call.update(&text)).await.is_ok() {}
    let since = std::time::Instant::now();
    assert_eq!(client.shut_down().await, ConnectionError::ClosedLocally(None));
    // Neither a second for the rest nor one for the peer comes on top.
    assert!(since.elapsed() < Duration::from_millis(1000), "{:?}", since.elapsed());
}
