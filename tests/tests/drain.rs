//! Leaving in order: what is open comes to its end, and nothing new begins (§8.6).

use std::time::{Duration, Instant};

use fluxar::{
    Client, Code, ConnectionError, Drain, DrainReport, Error, Qos, Reconnect, Request, Server, ServerBuilder,
    StreamRequest,
};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::{Site, common};
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{Message, Wire};
use fluxar_tests::{matrix, schedulers};
use tokio::sync::watch;

matrix! {
    what_is_open_comes_to_its_end_and_nothing_new_begins
    an_idle_server_leaves_at_once
    at_the_deadline_what_is_left_is_cut
    who_is_connecting_is_refused
    a_peer_that_knows_of_nothing_is_refused_and_left
    a_client_drains_too
    stopping_ends_a_drain_at_once
}

schedulers! {
    nobody_listens_while_the_server_leaves
    a_drain_that_nobody_waits_for_goes_on
    a_server_that_does_not_run_drains_too
    a_further_drain_replaces_the_deadline
    subscribers_get_what_was_published_before
    messages_with_acknowledgement_are_waited_for
    sessions_without_a_link_end_at_once
    who_leaves_the_transport_open_is_waited_for_a_second
}

/// More than any test takes.
const LONG: Duration = Duration::from_secs(50);

/// A gate that handlers wait for.
#[derive(Clone)]
struct Gate(watch::Sender<bool>);

impl Gate {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }

    fn open(&self) {
        self.0.send_replace(true);
    }
}

/// A server with a call and a stream that end once the gate is open.
async fn gated(net: Net) -> (Site, Gate) {
    gated_with(net, |builder| builder).await
}

/// The same, after `change`.
async fn gated_with(net: Net, change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> (Site, Gate) {
    let gate = Gate::new();
    let (call, stream) = (gate.clone(), gate.clone());
    let site = Site::with(net, |builder| {
        change(builder)
            .handle("wait", move |request: Request| {
                let gate = call.clone();
                async move {
                    gate.pass().await;
                    Ok(request.raw())
                }
            })
            .handle_stream("wait", move |mut request: StreamRequest| {
                let gate = stream.clone();
                async move {
                    let mut sum = 0;
                    while let Some(number) = request.next::<u64>().await {
                        let number = number?;
                        sum += number;
                        request.send(&sum).await?;
                    }
                    gate.pass().await;
                    Ok(sum)
                }
            })
    })
    .await;
    (site, gate)
}

/// A client that does not look for another connection.
async fn steady(site: &Site) -> Client {
    site.connect().reconnect(Reconnect::off()).build().await.unwrap()
}

#[track_caller]
fn check_refused(error: &Error) {
    assert_eq!((error.code, error.is_retry_safe()), (Code::DRAINING, true), "{error}");
}

/// Waits until so many calls run.
async fn running(site: &Site, count: usize) {
    let all = || site.handle().peers().iter().map(|peer| peer.stats().requests_running).sum::<usize>();
    eventually("the calls run", || all() == count).await;
}

fn finished(report: DrainReport) -> (usize, usize) {
    (report.finished, report.cut)
}

// spec: §8.6
async fn what_is_open_comes_to_its_end_and_nothing_new_begins(net: Net) {
    let (site, gate) = gated(net).await;
    let client = steady(&site).await;
    let call = client.call::<u32>("wait", &7).start().await.unwrap();
    let mut stream = client.stream::<u64>("wait", &()).await.unwrap();
    stream.send(&1).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Ok(1));

    let leave = Drain::new().with_deadline(LONG).with_reason("restart").with_redirect("tcp://b:1");
    let handle = site.handle().clone();
    let draining = tokio::spawn(async move { handle.drain_with(leave).await });
    eventually("the client knows", || client.draining().is_some()).await;
    let told = client.draining().unwrap();
    assert_eq!((told.reason.as_deref(), told.redirect.as_deref()), (Some("restart"), Some("tcp://b:1")));
    assert!(told.deadline.unwrap() <= LONG);
    check_refused(&client.call::<u32>("echo", &1).await.unwrap_err());
    check_refused(&client.stream::<u64>("wait", &()).await.unwrap_err());
    check_refused(&client.messages("a").await.unwrap_err());
    check_refused(client.publish("a", &1).await.unwrap_err().error());
    check_refused(client.publish("a", &1).qos(Qos::AtLeastOnce).await.unwrap_err().error());
    // The stream goes on, in both directions.
    stream.send(&2).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Ok(3));
    stream.end().await.unwrap();
    assert!(!draining.is_finished());

    gate.open();
    assert_eq!(call.await, Ok(7));
    assert_eq!(stream.next().await, None);
    assert_eq!(finished(draining.await.unwrap()), (1, 0));
    assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
    site.ended().await;
}

// spec: §8.6
async fn an_idle_server_leaves_at_once(net: Net) {
    let site = Site::open(net).await;
    let clients = [steady(&site).await, steady(&site).await, steady(&site).await];
    for client in &clients {
        client.call::<u8>("echo", &1).await.unwrap();
    }
    let began = Instant::now();
    assert_eq!(finished(site.handle().drain(LONG).await), (3, 0));
    assert!(began.elapsed() < LONG / 2);
    for client in &clients {
        assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
        assert!(client.draining().is_some());
    }
    site.ended().await;
}

// spec: §8.6
async fn at_the_deadline_what_is_left_is_cut(net: Net) {
    let dropped = Counter::new();
    let site = Site::with(net, |builder| {
        let (call, stream) = (dropped.clone(), dropped.clone());
        builder
            .handle("hang", move |_| {
                let guard = call.guard();
                async move {
                    std::future::pending::<()>().await;
                    drop(guard);
                    Ok(())
                }
            })
            .handle_stream("hang", move |_| {
                let guard = stream.guard();
                async move {
                    std::future::pending::<()>().await;
                    drop(guard);
                    Ok(())
                }
            })
    })
    .await;
    let (client, idle) = (steady(&site).await, steady(&site).await);
    let call = client.call::<()>("hang", &()).start().await.unwrap();
    let mut stream = client.stream::<u64>("hang", &()).await.unwrap();
    let peers = || site.handle().peers();
    eventually("both run", || {
        let stats = peers()[0].stats();
        (stats.requests_running, stats.streams_serving) == (1, 1)
    })
    .await;
    let report = site.handle().drain(Duration::from_millis(150)).await;
    assert_eq!(finished(report), (1, 1));
    let error = call.await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None), "{error}");
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None), "{error}");
    assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
    assert_eq!(idle.closed().await, ConnectionError::ClosedByPeer(None));
    dropped.reached(2).await;
    site.ended().await;
}

// spec: §8.6, §6.8
async fn who_is_connecting_is_refused(net: Net) {
    let (site, gate) = gated(net).await;
    let mut late = Wire::connect(site.url()).await;
    let client = steady(&site).await;
    let call = client.call::<u32>("wait", &7).start().await.unwrap();
    running(&site, 1).await;
    let handle = site.handle().clone();
    let draining = tokio::spawn(async move { handle.drain(LONG).await });
    eventually("the client knows", || client.draining().is_some()).await;
    let offer = Message::offer();
    late.send(&offer).await;
    let answer = late.receive().await;
    assert_eq!(
        (answer.reference, answer.error.as_ref().map(|error| error.code)),
        (Some(offer.id), Some(Code::DRAINING))
    );
    check_refused(&answer.error.unwrap());
    assert!(!late.ended().await, "the refusal says it all");
    gate.open();
    assert_eq!(call.await, Ok(7));
    assert_eq!(finished(draining.await.unwrap()), (1, 0));
    site.ended().await;
}

// spec: §8.6
async fn a_peer_that_knows_of_nothing_is_refused_and_left(net: Net) {
    let (site, _gate) = gated(net).await;
    let mut wire = site.wire().await;
    let hanging = Message::call("wait").payload(&1);
    wire.send(&hanging).await;
    running(&site, 1).await;
    let handle = site.handle().clone();
    let draining = tokio::spawn(async move { handle.drain(Duration::from_millis(600)).await });
    let drain = wire.receive().await;
    assert_eq!(drain.target.as_deref(), Some("drain"));
    for _ in 0..20 {
        let call = Message::call("echo").payload(&1);
        wire.send(&call).await;
        check_refused(&wire.response_to(call.id).await.error.unwrap());
    }
    // It never answers, and never ends what it has open.
    let cut = wire.response_to(hanging.id).await.error.unwrap();
    assert_eq!((cut.code, cut.processed), (Code::UNAVAILABLE, None));
    assert_eq!(wire.closed().await, None);
    assert_eq!(finished(draining.await.unwrap()), (0, 1));
    drop(wire);
    site.ended().await;
}

// spec: §8.6
async fn a_client_drains_too(net: Net) {
    let (site, gate) = gated(net).await;
    let client = site
        .connect()
        .reconnect(Reconnect::off())
        .handle("echo", |request: Request| async move { Ok(request.raw()) });
    let client = client.build().await.unwrap();
    let call = client.call::<u32>("wait", &7).start().await.unwrap();
    running(&site, 1).await;
    let peer = site.peer().await;
    assert_eq!(peer.call::<u8>("echo", &1).await, Ok(1));
    client.drain(Drain::new().with_reason("enough"));
    eventually("the server knows", || peer.draining().is_some()).await;
    check_refused(&peer.call::<u8>("echo", &1).await.unwrap_err());
    gate.open();
    assert_eq!(call.await, Ok(7));
    assert_eq!(client.closed().await, ConnectionError::ClosedLocally(None));
    assert_eq!(peer.closed().await, ConnectionError::ClosedByPeer(None));
    // The server goes on.
    assert_eq!(steady(&site).await.call::<u8>("echo", &1).await, Ok(1));
    site.close().await;
}

// spec: §8.6
async fn stopping_ends_a_drain_at_once(net: Net) {
    let (site, _gate) = gated(net).await;
    let client = steady(&site).await;
    let call = client.call::<u32>("wait", &7).start().await.unwrap();
    running(&site, 1).await;
    let handle = site.handle().clone();
    let draining = tokio::spawn(async move { handle.drain(LONG).await });
    eventually("the client knows", || client.draining().is_some()).await;
    let began = Instant::now();
    site.close().await;
    draining.await.unwrap();
    assert!(began.elapsed() < LONG / 2);
    assert_eq!(call.await.unwrap_err().code, Code::UNAVAILABLE);
}

// spec: §8.6
async fn nobody_listens_while_the_server_leaves(net: Net) {
    let (site, gate) = gated(net).await;
    let client = steady(&site).await;
    let call = client.call::<u32>("wait", &7).start().await.unwrap();
    running(&site, 1).await;
    let handle = site.handle().clone();
    let draining = tokio::spawn(async move { handle.drain(LONG).await });
    eventually("the client knows", || client.draining().is_some()).await;
    let url = site.url().to_owned();
    while Client::connect(&url).build().await.is_ok() {
        // The listener's task has not run yet.
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(call.await, Ok(7));
    draining.await.unwrap();
    site.ended().await;
}

// spec: §8.6
async fn a_drain_that_nobody_waits_for_goes_on(net: Net) {
    let (site, gate) = gated(net).await;
    let client = steady(&site).await;
    let call = client.call::<u32>("wait", &7).start().await.unwrap();
    running(&site, 1).await;
    let given_up = tokio::time::timeout(Duration::from_millis(50), site.handle().drain(LONG)).await;
    assert!(given_up.is_err());
    gate.open();
    assert_eq!(call.await, Ok(7));
    assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
    site.ended().await;
}

// spec: §8.6
async fn a_server_that_does_not_run_drains_too(net: Net) {
    let server: Server = common(Server::bind(net.url())).build().await.unwrap();
    let handle = server.server_handle();
    assert_eq!(finished(handle.drain(LONG).await), (0, 0));
    server.run().await.unwrap();
}

// spec: §8.6
async fn a_further_drain_replaces_the_deadline(net: Net) {
    let (site, _gate) = gated(net).await;
    let client = steady(&site).await;
    let call = client.call::<u32>("wait", &7).start().await.unwrap();
    running(&site, 1).await;
    let handle = site.handle().clone();
    let draining = tokio::spawn(async move { handle.drain(LONG).await });
    eventually("the client knows", || client.draining().is_some()).await;
    let report = site.handle().drain(Duration::from_millis(20)).await;
    assert_eq!(finished(report), (0, 1));
    assert_eq!(finished(draining.await.unwrap()), (0, 1));
    assert_eq!(call.await.unwrap_err().code, Code::UNAVAILABLE);
    site.ended().await;
}

// spec: §8.6
async fn subscribers_get_what_was_published_before(net: Net) {
    let site = Site::open(net).await;
    let client = steady(&site).await;
    let mut messages = client.messages("n").await.unwrap();
    for number in 0..500_u32 {
        site.handle().hub().publish("n", &number).await.unwrap();
    }
    assert_eq!(finished(site.handle().drain(LONG).await), (1, 0));
    for number in 0..500_u32 {
        let message = messages.next().await.expect("all of them");
        assert_eq!(message.payload::<u32>(), Ok(number));
    }
    assert!(messages.next().await.is_none());
    site.ended().await;
}

// spec: §8.6
async fn messages_with_acknowledgement_are_waited_for(net: Net) {
    let gate = Gate::new();
    let site = Site::open(net).await;
    let client = steady(&site).await;
    let (held, passed) = (Counter::new(), Counter::new());
    let (holding, passing, handler_gate) = (held.clone(), passed.clone(), gate.clone());
    let _subscription = client
        .subscribe("n", move |_| {
            let (held, passed, gate) = (holding.clone(), passing.clone(), handler_gate.clone());
            async move {
                held.add();
                gate.pass().await;
                passed.add();
                Ok(())
            }
        })
        .qos(Qos::ExactlyOnce)
        .await
        .unwrap();
    site.handle().hub().publish("n", &1).qos(Qos::ExactlyOnce).await.unwrap();
    held.reached(1).await;
    let handle = site.handle().clone();
    let draining = tokio::spawn(async move { handle.drain(LONG).await });
    eventually("the client knows", || client.draining().is_some()).await;
    assert!(!draining.is_finished());
    gate.open();
    assert_eq!(finished(draining.await.unwrap()), (1, 0));
    assert_eq!(passed.get(), 1);
    site.ended().await;
}

// spec: §8.6
async fn sessions_without_a_link_end_at_once(net: Net) {
    let (site, _gate) = gated_with(net, |builder| builder.configure(|config| config.resume = true)).await;
    let mut gone = Wire::with(site.url(), Terms::default().feature("resume")).await;
    gone.send(&Message::call("wait").payload(&1)).await;
    running(&site, 1).await;
    drop(gone);
    eventually("the session waits", || site.handle().stats().detached == 1).await;
    let client = steady(&site).await;
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    let began = Instant::now();
    assert_eq!(finished(site.handle().drain(LONG).await), (2, 0));
    assert!(began.elapsed() < LONG / 2);
    assert_eq!(site.handle().stats().detached, 0);
    site.ended().await;
}

// spec: §8.7, §15.3
// limit: wait for the other side after close
async fn who_leaves_the_transport_open_is_waited_for_a_second(net: Net) {
    let site = Site::open(net).await;
    let mut wire = site.wire().await;
    let (peer, began) = (site.peer().await, Instant::now());
    let ending = tokio::spawn(async move { peer.shut_down().await });
    assert_eq!(wire.closed().await, None);
    // It has seen the end, and does not close its own direction.
    assert_eq!(ending.await.unwrap(), ConnectionError::ClosedLocally(None));
    let waited = began.elapsed();
    assert!((Duration::from_millis(900)..LONG / 2).contains(&waited), "{waited:?}");
    drop(wire);
}
