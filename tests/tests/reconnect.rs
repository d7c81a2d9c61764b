//! Clients that come back: when, where, and what they say of it.

use std::time::Duration;

use fluxar::{
    Client, ClientBuilder, Code, ConnectError, ConnectionError, Error, Raw, Reconnect, State, States,
};
use fluxar_proto::message::{Kind, verb};
use fluxar_tests::mortal::Mortal;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::site::Site;
use fluxar_tests::wire::{Message, Trap, Wire};
use fluxar_tests::{matrix, schedulers};

matrix! {
    a_server_that_comes_back_is_found_again
    a_client_that_is_dropped_while_it_reconnects_leaves_nothing
    a_close_in_order_is_the_end
    a_server_that_is_unavailable_for_now_is_tried_again
    another_url_is_tried_when_the_server_dies
}

schedulers! {
    a_url_where_nobody_answers_is_passed_over
    where_no_url_is_of_use_the_last_one_says_why
    after_so_many_attempts_it_gives_up
    without_reconnecting_the_first_loss_is_the_end
    a_refusal_says_when_to_come_again
    a_refusal_for_good_is_the_end
    calls_that_wait_for_a_link_have_their_time
    what_waits_for_a_link_is_given_up_with_the_client
    a_server_that_says_nothing_is_told_and_tried_again
    what_the_peer_says_of_itself_is_what_the_latest_said
    a_ping_over_a_lost_link_fails_and_the_next_one_works
}

/// Tries again soon, and for ever.
fn soon() -> Reconnect {
    Reconnect::default().first(Duration::from_millis(1)).max(Duration::from_millis(20))
}

fn connect(url: &str) -> ClientBuilder {
    Client::connect(url).reconnect(soon())
}

/// What `wanted` has to say to the first state that it has something to say to.
async fn until<T>(states: &mut States, mut wanted: impl FnMut(State) -> Option<T>) -> T {
    loop {
        let state = states.next().await.expect("the connection lives");
        if let Some(found) = wanted(state) {
            return found;
        }
    }
}

fn connected(state: State) -> Option<()> {
    (state == State::Connected).then_some(())
}

fn attempt(state: State) -> Option<(u32, Duration)> {
    if let State::Reconnecting { attempt, next } = state { Some((attempt, next)) } else { None }
}

fn closed(state: State) -> Option<ConnectionError> {
    if let State::Closed { why } = state { Some(why) } else { None }
}

/// A client of a scripted server, and the server's side of its first link.
async fn trapped(trap: &Trap, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> (Client, Wire) {
    let (client, wire) = tokio::join!(change(connect(&trap.url())).build(), trap.established());
    (client.unwrap(), wire)
}

// spec: §8.8, §9.9
async fn a_server_that_comes_back_is_found_again(net: Net) {
    let mut server = Mortal::birth(net, |builder| builder).await;
    let client = connect(server.url()).build().await.unwrap();
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    for number in 0..3_u32 {
        let url = server.die();
        assert_eq!(until(&mut states, attempt).await.0, 1);
        // It waits for the server.
        let call = tokio::spawn({
            let peer = client.peer();
            async move { peer.call::<u32>("echo", &number).await }
        });
        server = Mortal::at(&url, |builder| builder).await;
        until(&mut states, connected).await;
        assert_eq!(call.await.unwrap(), Ok(number));
        assert_eq!((client.state(), client.error()), (State::Connected, None));
    }
}

// spec: §8.8
async fn a_client_that_is_dropped_while_it_reconnects_leaves_nothing(net: Net) {
    let server = Mortal::birth(net, |builder| builder).await;
    let client = connect(server.url()).build().await.unwrap();
    let (mut states, peer) = (client.states(), client.peer());
    server.die();
    until(&mut states, attempt).await;
    let call = tokio::spawn(async move { peer.call::<Raw>("echo", &1).await });
    // That no task is left is checked for every test.
    drop(client);
    assert_eq!(until(&mut states, closed).await, ConnectionError::ClosedLocally(None));
    assert_eq!(states.next().await, None);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.is_retry_safe()), (Code::UNAVAILABLE, true), "{error}");
}

// spec: §8.7
async fn a_close_in_order_is_the_end(net: Net) {
    let site = Site::open(net).await;
    let client = connect(site.url()).build().await.unwrap();
    let mut states = client.states();
    site.peer().await.close();
    assert_eq!(until(&mut states, closed).await, ConnectionError::ClosedByPeer(None));
    assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
    let reason = Error::new(Code(1234), "go away");
    let client = connect(site.url()).build().await.unwrap();
    let mut states = client.states();
    eventually("it is there", || site.handle().peers().len() == 1).await;
    site.peer().await.close_with(reason.clone());
    assert_eq!(until(&mut states, closed).await, ConnectionError::ClosedByPeer(Some(reason)));
}

// spec: §8.7, §16.4
async fn a_server_that_is_unavailable_for_now_is_tried_again(net: Net) {
    let site = Site::open(net).await;
    let client = connect(site.url()).build().await.unwrap();
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    for code in [Code::UNAVAILABLE, Code::RESOURCE_EXHAUSTED, Code::DRAINING] {
        site.peer().await.close_with(Error::new(code, "not now"));
        until(&mut states, connected).await;
        assert_eq!(client.call::<u32>("echo", &5).await, Ok(5));
    }
}

async fn another_url_is_tried_when_the_server_dies(net: Net) {
    let (one, other) = (Mortal::birth(net, |builder| builder).await, Site::open(net).await);
    let client = connect(one.url()).url(other.url()).build().await.unwrap();
    let mut states = client.states();
    assert_eq!((states.next().await, client.remote()), (Some(State::Connected), one.url().to_owned()));
    one.die();
    until(&mut states, connected).await;
    assert_eq!(client.remote(), other.url());
    assert_eq!(client.call::<u32>("echo", &5).await, Ok(5));
}

async fn a_url_where_nobody_answers_is_passed_over(net: Net) {
    let dead = Mortal::birth(net, |builder| builder).await.die();
    let site = Site::open(net).await;
    let client = connect(&dead).url(&dead).url(site.url()).build().await.unwrap();
    assert_eq!(client.remote(), site.url());
    assert_eq!(client.call::<u32>("echo", &5).await, Ok(5));
}

async fn where_no_url_is_of_use_the_last_one_says_why(net: Net) {
    let dead = Mortal::birth(net, |builder| builder).await.die();
    let trap = Trap::open().await;
    let connecting = connect(&dead).url(trap.url()).build();
    let (client, ()) = tokio::join!(connecting, async {
        let mut wire = trap.accept().await;
        let offer = wire.receive().await;
        let refusal = Error::unavailable("closed today");
        wire.send(&Message::continuation(Kind::Hello, offer.id).error(refusal)).await;
    });
    match client.unwrap_err() {
        ConnectError::Handshake(ConnectionError::Refused(error)) => assert_eq!(error.message, "closed today"),
        other => panic!("{other:?}"),
    }
    let error = connect(&trap.url()).url("no url").build().await.unwrap_err();
    assert!(matches!(error, ConnectError::Address(_)), "{error}");
}

async fn after_so_many_attempts_it_gives_up(net: Net) {
    let server = Mortal::birth(net, |builder| builder).await;
    let client = Client::connect(server.url()).reconnect(soon().attempts(3)).build().await.unwrap();
    let mut states = client.states();
    let url = server.die();
    for number in 1..=3 {
        let (attempt, next) = until(&mut states, attempt).await;
        assert_eq!(attempt, number);
        assert!(next <= Duration::from_millis(20), "{next:?}");
    }
    let why = until(&mut states, closed).await;
    assert!(matches!(&why, ConnectionError::Transport(text) if text.contains(&url)), "{why}");
    assert_eq!((client.closed().await, client.state()), (why.clone(), State::Closed { why }));
    assert!(client.call::<Raw>("echo", &1).await.unwrap_err().is_retry_safe());
}

async fn without_reconnecting_the_first_loss_is_the_end(net: Net) {
    let server = Mortal::birth(net, |builder| builder).await;
    let client = Client::connect(server.url()).reconnect(Reconnect::off()).build().await.unwrap();
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    server.die();
    let Some(State::Closed { why }) = states.next().await else { panic!("it is over") };
    assert!(why.is_link_loss(), "{why}");
    assert_eq!((states.next().await, client.error()), (None, Some(why)));
}

// spec: §6.8, §16.4
async fn a_refusal_says_when_to_come_again(_: Net) {
    let trap = Trap::open().await;
    let (client, wire) = trapped(&trap, |connect| connect).await;
    let mut states = client.states();
    drop(wire);
    let mut wire = trap.accept().await;
    let offer = wire.receive().await;
    let full = Error::resource_exhausted("full house").with_retry_after_ms(150);
    wire.send(&Message::continuation(Kind::Hello, offer.id).error(full)).await;
    let (first, next) = until(&mut states, attempt).await;
    assert!(first == 1 && next <= Duration::from_millis(20), "{first}, {next:?}");
    let (second, next) = until(&mut states, attempt).await;
    assert!(second == 2 && next >= Duration::from_millis(100), "{second}, {next:?}");
    let _wire = trap.established().await;
    until(&mut states, connected).await;
}

// spec: §6.8
async fn a_refusal_for_good_is_the_end(_: Net) {
    let trap = Trap::open().await;
    let (client, wire) = trapped(&trap, |connect| connect).await;
    let mut states = client.states();
    drop(wire);
    let mut wire = trap.accept().await;
    let offer = wire.receive().await;
    let refusal = Error::new(Code::UNAUTHENTICATED, "who are you?");
    wire.send(&Message::continuation(Kind::Hello, offer.id).error(refusal.clone())).await;
    assert_eq!(until(&mut states, closed).await, ConnectionError::Refused(refusal.clone()));
    assert_eq!(client.closed().await, ConnectionError::Refused(refusal));
}

// spec: §10.5
async fn calls_that_wait_for_a_link_have_their_time(net: Net) {
    let server = Mortal::birth(net, |builder| builder).await;
    let client = connect(server.url()).build().await.unwrap();
    let mut states = client.states();
    let url = server.die();
    until(&mut states, attempt).await;
    let error = client.call::<Raw>("echo", &1).timeout(Duration::from_millis(30)).await.unwrap_err();
    assert_eq!((error.code, error.is_retry_safe()), (Code::DEADLINE_EXCEEDED, true), "{error}");
    let _server = Mortal::at(&url, |builder| builder).await;
    assert_eq!(client.call::<u32>("echo", &2).await, Ok(2));
}

async fn what_waits_for_a_link_is_given_up_with_the_client(net: Net) {
    let server = Mortal::birth(net, |builder| builder).await;
    let client = connect(server.url()).build().await.unwrap();
    let (mut states, peer) = (client.states(), client.peer());
    server.die();
    until(&mut states, attempt).await;
    let (stream, subscription) = tokio::join!(
        async {
            let mut stream = peer.stream::<Raw>("echo", &()).await?;
            client.close();
            stream.next().await.unwrap_or_else(|| panic!("it has failed"))
        },
        async { peer.messages("a.b").await }
    );
    for error in [stream.unwrap_err(), subscription.unwrap_err()] {
        assert_eq!((error.code, error.is_retry_safe()), (Code::UNAVAILABLE, true), "{error}");
    }
    assert_eq!(client.shut_down().await, ConnectionError::ClosedLocally(None));
}

// spec: §6.9
async fn a_server_that_says_nothing_is_told_and_tried_again(_: Net) {
    let trap = Trap::open().await;
    let short = |connect: ClientBuilder| {
        connect.configure(|config| config.handshake_timeout = Duration::from_millis(200))
    };
    let (client, wire) = trapped(&trap, short).await;
    let mut states = client.states();
    drop(wire);
    let mut wire = trap.accept().await;
    assert_eq!(wire.receive().await.kind, Kind::Hello);
    assert_eq!(wire.closed_for().await, Code::DEADLINE_EXCEEDED);
    let _wire = trap.established().await;
    assert_eq!(until(&mut states, attempt).await.0, 1);
    until(&mut states, connected).await;
}

// spec: §6.4
async fn what_the_peer_says_of_itself_is_what_the_latest_said(net: Net) {
    let named = |name: &'static str, calls: u32| {
        move |builder: fluxar::ServerBuilder| {
            builder.configure(move |config| {
                config.agent = Some(name.into());
                config.limits.max_calls = calls;
            })
        }
    };
    let server = Mortal::birth(net, named("one", 3)).await;
    let client = connect(server.url()).build().await.unwrap();
    let mut states = client.states();
    let said = || client.info().map(|info| (info.agent.unwrap(), info.limits.max_calls));
    assert_eq!((states.next().await, said()), (Some(State::Connected), Some(("one".into(), 3))));
    let _server = Mortal::at(&server.die(), named("two", 5)).await;
    until(&mut states, connected).await;
    assert_eq!(said(), Some(("two".into(), 5)));
}

// spec: §9.7
async fn a_ping_over_a_lost_link_fails_and_the_next_one_works(_: Net) {
    let trap = Trap::open().await;
    let (client, mut wire) = trapped(&trap, |connect| connect).await;
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    let (lost, ()) = tokio::join!(client.ping(), async {
        while wire.receive().await.target.as_deref() != Some(verb::PING) {}
        drop(wire);
    });
    assert_eq!(lost.unwrap_err().code, Code::UNAVAILABLE);
    let mut wire = trap.established().await;
    until(&mut states, connected).await;
    let (answered, ()) = tokio::join!(client.ping(), async {
        let ping = wire.receive().await;
        wire.send(&Message::continuation(Kind::Control, ping.id)).await;
    });
    assert!(answered.is_ok());
}
