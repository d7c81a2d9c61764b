//! How much a peer may say per time, and how many peers there may be (§15.3, §15.4).

use std::time::{Duration, Instant};

use fluxar::{
    Client, Code, ConnectError, ConnectionError, Error, Rate, RateAction, Reconnect, State, StreamRequest,
    WhenFull,
};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::plan::Mishap;
use fluxar_tests::proxy::Proxy;
use fluxar_tests::site::Site;
use fluxar_tests::wire::Wire;
use futures_util::future::join_all;

matrix! {
    calls_beyond_the_rate_are_refused_until_there_is_room
    subscriptions_beyond_the_rate_are_refused
    calls_that_wait_are_all_answered_within_the_rate
    a_pause_does_not_look_like_a_dead_link
    what_is_beyond_the_connections_is_refused_until_one_goes
    what_is_beyond_the_connections_waits_until_one_goes
    who_has_lost_its_link_comes_back_to_a_server_that_accepts_nobody_else
    links_in_the_handshake_take_no_place_where_they_are_refused
}

#[track_caller]
fn check_refused(error: &Error) -> u64 {
    assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)), "{error}");
    error.retry_after_ms.expect("when to come again")
}

// spec: §15.4
async fn calls_beyond_the_rate_are_refused_until_there_is_room(net: Net) {
    let site =
        Site::with(net, |builder| builder.configure(|config| config.rates.calls = Some(Rate::new(3, 2))))
            .await;
    let (client, other) = (site.client().await, site.client().await);
    for number in 0..3_u8 {
        assert_eq!(client.call::<u8>("echo", &number).await, Ok(number));
    }
    let began = Instant::now();
    let wait = check_refused(&client.call::<u8>("echo", &3).await.unwrap_err());
    assert!(wait <= 500, "{wait}");
    assert_eq!(other.call::<u8>("echo", &4).await, Ok(4), "each has its own");
    client.ping().await.unwrap();
    // Who comes when he is told finds room.
    tokio::time::sleep(
        Duration::from_millis(wait).saturating_sub(began.elapsed()) + Duration::from_millis(20),
    )
    .await;
    assert_eq!(client.call::<u8>("echo", &5).await, Ok(5));
}

// spec: §15.4
async fn subscriptions_beyond_the_rate_are_refused(net: Net) {
    let site = Site::with(net, |builder| {
        builder.configure(|config| config.rates.subscriptions = Some(Rate::new(2, 0)))
    })
    .await;
    let client = site.client().await;
    let first = client.messages("a").await.unwrap();
    drop(client.messages("b").await.unwrap());
    check_refused(&client.messages("c").await.unwrap_err());
    drop(first);
    check_refused(&client.messages("a").await.unwrap_err());
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
}

// spec: §15.4
async fn calls_that_wait_are_all_answered_within_the_rate(net: Net) {
    let site = Site::with(net, |builder| {
        builder.configure(|config| {
            config.rates.messages = Some(Rate::new(20, 200));
            config.rates.action = RateAction::Wait;
        })
    })
    .await;
    let client = site.client().await;
    let began = Instant::now();
    let calls = (0..120_u32).map(|number| client.call::<u32>("echo", &number).into_future());
    let answers = join_all(calls).await;
    assert_eq!(answers, (0..120).map(Ok).collect::<Vec<_>>());
    assert!(began.elapsed() >= Duration::from_millis(490), "100 beyond the burst, 200 each second");
    let peer = site.peer().await;
    assert_eq!(peer.stats().refused, 0);
}

// spec: §15.4, §8.4
async fn a_pause_does_not_look_like_a_dead_link(net: Net) {
    let site = Site::with(net, |builder| {
        let builder = builder.configure(|config| {
            config.rates.bytes = Some(Rate::new(16 << 10, 32 << 10));
            config.rates.action = RateAction::Wait;
            config.limits.heartbeat_ms = 300;
        });
        builder.handle_stream("count", |mut request: StreamRequest| async move {
            let mut bytes = 0;
            while let Some(piece) = request.next::<String>().await {
                bytes += piece?.len();
            }
            Ok(bytes as u64)
        })
    })
    .await;
    let client = site.connect().reconnect(Reconnect::off()).build().await.unwrap();
    let began = Instant::now();
    let mut upload = client.stream::<String>("count", &()).await.unwrap();
    for _ in 0..10 {
        upload.send(&"x".repeat(8 << 10)).await.unwrap();
    }
    assert_eq!(upload.finish::<u64>().await, Ok(80 << 10));
    assert!(began.elapsed() >= Duration::from_millis(1_500), "many times the heartbeat");
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
}

/// Why a client is not let in.
async fn turned_away(site: &Site) -> Error {
    match Client::connect(site.url()).reconnect(Reconnect::off()).build().await {
        Err(ConnectError::Handshake(ConnectionError::Refused(error))) => error,
        other => panic!("{other:?}"),
    }
}

// spec: §15.3, §6.8
// limit: connections of a server at once
async fn what_is_beyond_the_connections_is_refused_until_one_goes(net: Net) {
    let site = Site::with(net, |builder| builder.max_connections(2)).await;
    let (first, second) = (site.client().await, site.client().await);
    for _ in 0..3 {
        assert_eq!(check_refused(&turned_away(&site).await), 1_000);
    }
    assert_eq!(second.call::<u8>("echo", &1).await, Ok(1));
    drop(first);
    eventually("there is room", || site.handle().peers().len() == 1).await;
    let third = site.client().await;
    assert_eq!(third.call::<u8>("echo", &1).await, Ok(1));
    check_refused(&turned_away(&site).await);
}

// spec: §15.3
async fn what_is_beyond_the_connections_waits_until_one_goes(net: Net) {
    let site = Site::with(net, |builder| builder.max_connections(1).when_full(WhenFull::Wait)).await;
    let first = site.client().await;
    assert_eq!(first.call::<u8>("echo", &1).await, Ok(1));
    let url = site.url().to_owned();
    let second = tokio::spawn(async move { Client::connect(url).build().await });
    for _ in 0..20 {
        first.ping().await.unwrap();
    }
    assert!(!second.is_finished() && site.handle().peers().len() == 1);
    drop(first);
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.call::<u8>("echo", &2).await, Ok(2));
    // A full server can be stopped all the same.
    site.close().await;
}

// spec: §15.3, §9.8
async fn who_has_lost_its_link_comes_back_to_a_server_that_accepts_nobody_else(net: Net) {
    let site = Site::with(net, |builder| builder.max_connections(1).when_full(WhenFull::Wait)).await;
    let proxy = Proxy::clear(site.url()).await;
    let client = Client::connect(proxy.url()).build().await.unwrap();
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    for _ in 0..3 {
        proxy.strike(Mishap::Close);
        assert!(matches!(states.next().await, Some(State::Reconnecting { attempt: 1, .. })));
        assert!(matches!(states.next().await, Some(State::Resumed { .. })));
        assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    }
}

// spec: §15.3
async fn links_in_the_handshake_take_no_place_where_they_are_refused(net: Net) {
    let site = Site::with(net, |builder| builder.max_connections(1)).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(Wire::connect(site.url()).await);
    }
    let client = site.client().await;
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    check_refused(&turned_away(&site).await);
    drop(client);
    eventually("there is room", || site.handle().peers().is_empty()).await;
    assert_eq!(site.client().await.call::<u8>("echo", &1).await, Ok(1));
}
