//! Clients whose server leaves in order: they finish there what is open, and go on elsewhere by themselves (§8.6).

use std::collections::BTreeMap;
use std::time::Duration;

use fluxar::{
    Client, ClientBuilder, Code, ConnectionError, Drain, Error, Fate, Qos, Reconnect, Request, State, States,
};
use fluxar_proto::message::{Kind, verb};
use fluxar_tests::mortal::Mortal;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::plan::Mishap;
use fluxar_tests::proxy::Proxy;
use fluxar_tests::site::Site;
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{Message, Trap, Wire};
use fluxar_tests::{matrix, schedulers};
use tokio::sync::watch;

matrix! {
    what_is_open_ends_there_and_the_rest_goes_on_elsewhere
    a_redirection_is_followed_where_the_application_agrees
}

schedulers! {
    a_redirection_to_a_url_of_its_own_needs_no_consent
    a_redirection_elsewhere_needs_consent
    a_link_that_is_lost_behind_a_redirection_is_missed_there_first
    a_link_that_is_lost_while_the_server_leaves_is_missed_there_first
    a_client_with_one_url_waits_for_whoever_is_next_there
    what_has_crossed_the_announcement_goes_to_whoever_is_next
    what_was_not_sent_goes_to_whoever_is_next
    a_server_that_refuses_and_stays_is_asked_twice_at_most
    a_client_that_leaves_itself_does_not_come_back
}

/// More than any test takes.
const LONG: Duration = Duration::from_secs(50);

/// Tries again soon, and for ever.
fn connect(url: &str) -> ClientBuilder {
    let soon = Reconnect::default().first(Duration::from_millis(1)).max(Duration::from_millis(20));
    Client::connect(url).reconnect(soon)
}

async fn until_connected(states: &mut States) {
    while states.next().await.expect("the connection lives") != State::Connected {}
}

/// A server that says who it is, and answers `wait` once it is told to.
async fn named(net: Net, name: &'static str) -> (Site, watch::Sender<bool>) {
    let gate = watch::Sender::new(false);
    let waiting = gate.clone();
    let site = Site::with(net, |builder| {
        builder.handle("name", move |_| async move { Ok(name) }).handle("wait", move |request: Request| {
            let gate = waiting.clone();
            async move {
                gate.subscribe().wait_for(|open| *open).await?;
                Ok(request.raw())
            }
        })
    });
    (site.await, gate)
}

/// Has a server leave, in a task of its own.
fn leave(site: &Site, drain: Drain) -> tokio::task::JoinHandle<fluxar::DrainReport> {
    let handle = site.handle().clone();
    tokio::spawn(async move { handle.drain_with(drain).await })
}

// spec: §8.6
async fn what_is_open_ends_there_and_the_rest_goes_on_elsewhere(net: Net) {
    let ((one, gate), (other, _)) = (named(net, "one").await, named(net, "other").await);
    let client = connect(one.url()).url(other.url()).build().await.unwrap();
    let mut messages = client.messages("news").await.unwrap();
    let open = client.call::<u32>("wait", &7).start().await.unwrap();
    eventually("it runs", || one.handle().peers()[0].stats().requests_running == 1).await;
    let left = leave(&one, Drain::new().with_deadline(LONG));
    eventually("the client knows", || client.draining().is_some()).await;

    // All of this waits for the other one, whose hub it reaches, and whose handlers.
    let mut heard = other.handle().hub().messages("orders").await.unwrap();
    let peer = client.peer();
    let later = tokio::spawn(async move {
        let stream = peer.stream::<u32>("none", &());
        let (name, fate, messages, stream) = tokio::join!(
            peer.call::<String>("name", &()).into_future(),
            peer.publish("orders", &5).qos(Qos::AtLeastOnce).into_future(),
            peer.messages("offers").into_future(),
            async { stream.await?.next().await.unwrap() },
        );
        (name, fate, messages.unwrap(), stream.unwrap_err())
    });
    let error = client.call::<String>("name", &()).timeout(Duration::from_millis(30)).await.unwrap_err();
    assert_eq!((error.code, error.is_retry_safe()), (Code::DEADLINE_EXCEEDED, true), "{error}");
    assert_eq!((other.handle().peers().len(), later.is_finished()), (0, false));

    gate.send_replace(true);
    assert_eq!(open.await, Ok(7));
    let report = left.await.unwrap();
    assert_eq!((report.finished, report.cut), (1, 0));
    let (name, fate, mut offers, stream) = later.await.unwrap();
    assert_eq!((name, fate), (Ok("other".into()), Ok(Fate::Accepted { attempts: 1 })));
    assert_eq!(stream.code, Code::UNIMPLEMENTED);
    assert_eq!(heard.next().await.unwrap().payload::<u32>(), Ok(5));
    eventually("both are subscribed", || other.handle().hub().stats().subscriptions == 3).await;
    for (topic, messages) in [("news", &mut messages), ("offers", &mut offers)] {
        other.handle().hub().publish(topic, &topic).await.unwrap();
        assert_eq!(messages.next().await.unwrap().payload::<String>(), Ok(topic.into()));
    }
    assert_eq!((client.remote(), client.draining()), (other.url().to_owned(), None));
    one.ended().await;
}

// spec: §8.6
async fn a_redirection_is_followed_where_the_application_agrees(net: Net) {
    let (one, other) = (Site::open(net).await, Site::open(net).await);
    let client = connect(one.url()).follow_redirects(true).build().await.unwrap();
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    leave(&one, Drain::new().with_redirect(other.url())).await.unwrap();
    until_connected(&mut states).await;
    assert_eq!(client.remote(), other.url());
    assert_eq!(client.call::<u32>("echo", &5).await, Ok(5));
}

// spec: §8.6
async fn a_redirection_to_a_url_of_its_own_needs_no_consent(net: Net) {
    let (one, two, three) = (Site::open(net).await, Site::open(net).await, Site::open(net).await);
    let client = connect(one.url()).url(two.url()).url(three.url()).build().await.unwrap();
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    leave(&one, Drain::new().with_redirect(three.url())).await.unwrap();
    until_connected(&mut states).await;
    assert_eq!(client.remote(), three.url());
}

// spec: §9.5
async fn a_link_that_is_lost_behind_a_redirection_is_missed_there_first(net: Net) {
    let (one, two, other) = (Site::open(net).await, Site::open(net).await, Site::open(net).await);
    let proxy = Proxy::clear(other.url()).await;
    let client = connect(one.url()).url(two.url()).follow_redirects(true).build().await.unwrap();
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    leave(&one, Drain::new().with_redirect(proxy.url())).await.unwrap();
    until_connected(&mut states).await;
    for _ in 0..3 {
        proxy.strike(Mishap::Close);
        assert!(matches!(states.next().await, Some(State::Reconnecting { .. })));
        assert!(matches!(states.next().await, Some(State::Resumed { .. })));
    }
    // There is nobody any more: it is no place of its own.
    proxy.shut(true);
    proxy.strike(Mishap::Close);
    until_connected(&mut states).await;
    assert_eq!(client.remote(), two.url());
}

// spec: §8.6
async fn a_redirection_elsewhere_needs_consent(net: Net) {
    let (one, two, foreign) = (Site::open(net).await, Site::open(net).await, Site::open(net).await);
    let client = connect(one.url()).url(two.url()).build().await.unwrap();
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    leave(&one, Drain::new().with_redirect(foreign.url())).await.unwrap();
    until_connected(&mut states).await;
    assert_eq!(client.remote(), two.url());
}

// spec: §8.6
async fn a_client_with_one_url_waits_for_whoever_is_next_there(net: Net) {
    let server = Mortal::birth(net, |builder| builder).await;
    let client = connect(server.url()).build().await.unwrap();
    let mut states = client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    server.handle().drain(LONG).await;
    eventually("it is noticed", || !client.state().is_connected()).await;
    let _next = Mortal::at(&server.die(), |builder| builder).await;
    until_connected(&mut states).await;
    assert_eq!(client.call::<u32>("echo", &5).await, Ok(5));
}

/// Announces that the server leaves.
async fn say_drain(wire: &mut Wire) {
    wire.send(&Message::control(verb::DRAIN).payload(&BTreeMap::<&str, u64>::new())).await;
}

// spec: §8.6, §16.4
async fn what_has_crossed_the_announcement_goes_to_whoever_is_next(_: Net) {
    let trap = Trap::open().await;
    let (client, mut wire) = tokio::join!(connect(&trap.url()).build(), trap.with(Terms::topics()));
    let client = client.unwrap();
    let peer = client.peer();
    let crossing = tokio::spawn(async move {
        tokio::join!(
            peer.call::<u32>("echo", &5).into_future(),
            peer.messages("a").into_future(),
            peer.publish("b", &6).qos(Qos::AtLeastOnce).into_future(),
        )
    });
    let mut seen = BTreeMap::new();
    while seen.len() < 3 {
        let message = wire.receive().await;
        seen.insert(message.kind as u8, message);
    }
    say_drain(&mut wire).await;
    let error = Error::new(Code::DRAINING, "leaving").with_processed(false);
    for message in seen.values() {
        let refusal = match message.kind {
            Kind::Message => Message::nack(message.id, error.clone()),
            kind => Message::continuation(kind, message.id).error(error.clone()),
        };
        wire.send(&refusal).await;
    }
    wire.send(&Message::control(verb::CLOSE)).await;
    wire.finish().await;

    let mut wire = trap.with(Terms::topics()).await;
    for _ in 0..3 {
        let message = wire.receive().await;
        let answer = match message.kind {
            Kind::Call => Message::response(message.id).payload(&5),
            Kind::Subscribe => Message::confirmation(message.id),
            _ => Message::ack(message.id),
        };
        wire.send(&answer).await;
    }
    let (call, messages, fate) = crossing.await.unwrap();
    assert_eq!((call, fate), (Ok(5), Ok(Fate::Accepted { attempts: 2 })));
    assert!(messages.is_ok());
}

// spec: §8.6
async fn what_was_not_sent_goes_to_whoever_is_next(_: Net) {
    let trap = Trap::open().await;
    let terms = Terms::topics().limit("max_calls", 1).limit("max_inflight", 1);
    let (client, mut wire) = tokio::join!(connect(&trap.url()).build(), trap.with(terms.clone()));
    let client = client.unwrap();
    let peer = client.peer();
    let asked = tokio::spawn(async move {
        let call = || peer.call::<u32>("echo", &5).into_future();
        let publish = || peer.publish("b", &6).qos(Qos::AtLeastOnce).into_future();
        tokio::join!(call(), call(), publish(), publish())
    });
    // The second one of each has to wait for the first one.
    let (mut call, mut message) = (None, None);
    while call.is_none() || message.is_none() {
        let opening = wire.receive().await;
        if opening.kind == Kind::Call { call = Some(opening) } else { message = Some(opening) }
    }
    say_drain(&mut wire).await;
    wire.send(&Message::response(call.unwrap().id).payload(&1)).await;
    wire.send(&Message::ack(message.unwrap().id)).await;
    // The reply is all that comes.
    let reply = wire.receive().await;
    assert_eq!((reply.kind, reply.error), (Kind::Control, None));
    wire.ping().await;
    wire.send(&Message::control(verb::CLOSE)).await;
    wire.finish().await;
    let mut wire = trap.with(terms).await;
    for _ in 0..2 {
        let message = wire.receive().await;
        let answer = match message.kind {
            Kind::Call => Message::response(message.id).payload(&2),
            _ => Message::ack(message.id),
        };
        wire.send(&answer).await;
    }
    let (first, second, one, other) = asked.await.unwrap();
    assert_eq!((first, second), (Ok(1), Ok(2)));
    let accepted = Ok(Fate::Accepted { attempts: 1 });
    assert_eq!((one, other), (accepted.clone(), accepted));
}

// spec: §8.6, §16.4
async fn a_server_that_refuses_and_stays_is_asked_twice_at_most(_: Net) {
    let trap = Trap::open().await;
    let (client, mut wire) = tokio::join!(connect(&trap.url()).build(), trap.with(Terms::topics()));
    let client = client.unwrap();
    let error = Error::new(Code::DRAINING, "never mind").with_processed(false);
    let (refused, ()) = tokio::join!(client.call::<u32>("echo", &5).into_future(), async {
        for _ in 0..2 {
            let call = wire.receive().await;
            wire.send(&Message::response(call.id).error(error.clone())).await;
        }
    });
    assert_eq!(refused.unwrap_err().code, Code::DRAINING);
    let (refused, ()) = tokio::join!(client.messages("a").into_future(), async {
        for _ in 0..2 {
            let subscription = wire.receive().await;
            wire.send(&Message::confirmation(subscription.id).error(error.clone())).await;
        }
    });
    assert_eq!(refused.unwrap_err().code, Code::DRAINING);
    wire.ping().await;
}

// spec: §8.6
async fn a_client_that_leaves_itself_does_not_come_back(net: Net) {
    let server = Mortal::birth(net, |builder| builder).await;
    let client = connect(server.url()).build().await.unwrap();
    let mut states = client.states();
    client.drain(Drain::new());
    while !matches!(states.next().await, Some(State::Closed { .. })) {}
    assert_eq!(client.closed().await, ConnectionError::ClosedLocally(None));
}

// spec: §8.6, §9
async fn a_link_that_is_lost_while_the_server_leaves_is_missed_there_first(_: Net) {
    let (one, other) = (Trap::open().await, Trap::open().await);
    let building = connect(&one.url()).follow_redirects(true).build();
    let (client, mut wire) = tokio::join!(building, one.established());
    let client = client.unwrap();
    wire.send(&Message::control(verb::DRAIN).payload(&BTreeMap::from([("redirect", other.url())]))).await;
    wire.ping().await;
    drop(wire);
    // What was open there may still come to its end.
    assert_eq!(one.accept().await.receive().await.kind, Kind::Hello);
    let _wire = other.established().await;
    eventually("it is there", || client.state() == State::Connected).await;
    assert_eq!(client.remote(), other.url());
}
