//! The time that calls have, and callers who wait no longer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use fluxar::{Client, Code, Raw, Request, ServerBuilder};
use fluxar_proto::message::verb;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::random::Random;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::wire::{Message, Trap, Wire};
use fluxar_tests::{matrix, schedulers};
use futures_util::future::join_all;
use tokio::runtime::{Handle, RuntimeFlavor};

matrix! {
    a_caller_gives_up_on_its_own_clock
    a_callee_ends_a_call_at_its_deadline
    a_handler_sees_how_much_time_is_left
    deadlines_of_many_calls_come_each_in_time
    dropping_a_call_drops_its_handler
}

schedulers! {
    a_callee_has_a_maximum_of_its_own
    a_request_without_time_is_refused_at_once
    a_default_can_be_set_and_overruled
    a_call_that_is_dropped_before_it_is_sent_is_not_sent
    a_call_that_is_never_polled_is_not_made
    a_call_that_is_dropped_in_line_is_not_sent
    a_call_that_is_dropped_after_its_answer_came_sends_no_cancel
    what_comes_for_a_call_that_was_given_up_is_dropped
}

/// Adds a handler that never answers, and counts in `started` and `dropped`.
fn hang(builder: ServerBuilder, started: &Counter, dropped: &Counter) -> ServerBuilder {
    let (started, dropped) = (started.clone(), dropped.clone());
    builder.handle("hang", move |_| {
        let guard = dropped.guard();
        started.add();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok(())
        }
    })
}

/// A client of a scripted server.
async fn trapped() -> (Client, Wire) {
    let trap = Trap::open().await;
    let url = trap.url();
    let (client, wire) = tokio::join!(Client::connect(url).build(), trap.established());
    (client.unwrap(), wire)
}

// spec: §10.5
async fn a_caller_gives_up_on_its_own_clock(_: Net) {
    let (client, mut wire) = trapped().await;
    let time = Duration::from_millis(40);
    let since = Instant::now();
    let call = async { client.call::<Raw>("slow", &()).timeout(time).await };
    let (result, request) = tokio::join!(call, wire.receive());
    assert!(since.elapsed() >= time);
    let error = result.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::DEADLINE_EXCEEDED, None), "it was sent");
    let meta = fluxar::Meta::decode(&request.meta).unwrap();
    let told = meta.get_u64("timeout_ms").unwrap();
    assert!((1..=40).contains(&told), "{told} ms of 40");
    let cancel = wire.receive().await;
    assert_eq!((cancel.reference, cancel.target.as_deref()), (Some(request.id), Some(verb::CANCEL)));
    assert_eq!(client.stats().calls_in_flight, 0);
}

// spec: §10.5, §10.11
async fn a_callee_ends_a_call_at_its_deadline(net: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let site = Site::with(net, |builder| hang(builder, &started, &dropped)).await;
    let mut wire = site.wire().await;
    let call = Message::call("hang").timeout_ms(30);
    let since = Instant::now();
    wire.send(&call).await;
    let response = wire.response_to(call.id).await;
    assert!(since.elapsed() >= Duration::from_millis(30));
    let error = response.error.unwrap();
    assert_eq!((error.code, error.processed), (Code::DEADLINE_EXCEEDED, None));
    dropped.reached(1).await;
    let peer = site.peer().await;
    eventually("the slot is free", || peer.stats().requests_running == 0).await;
    // Nothing more comes of it, and a late cancel does no harm.
    wire.send(&Message::cancel(call.id)).await;
    wire.ping().await;
    assert_eq!(peer.stats().calls_served, 1);
}

// spec: §10.5
async fn a_handler_sees_how_much_time_is_left(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("remaining", |request: Request| async move {
            let before = request.remaining();
            tokio::time::sleep(Duration::from_millis(5)).await;
            let after = request.remaining();
            assert_eq!(before.is_some(), after.is_some());
            assert!(
                before.zip(after).is_none_or(|(before, after)| after <= before - Duration::from_millis(5))
            );
            Ok(before.map(|left| left.as_millis() as u64))
        })
    })
    .await;
    let client = site.client().await;
    assert_eq!(client.call::<Option<u64>>("remaining", &()).await, Ok(None));
    let hour = Duration::from_secs(3600);
    let left = client.call::<Option<u64>>("remaining", &()).timeout(hour).await.unwrap().unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left} ms of an hour");
}

// spec: §10.5
async fn deadlines_of_many_calls_come_each_in_time(net: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let site = Site::with(net, |builder| hang(builder, &started, &dropped)).await;
    let client = site.client().await;
    let mut random = Random::new();
    // The timer is armed for a day when the others come.
    let patient = client.call::<()>("hang", &()).timeout(Duration::from_secs(86_400)).start().await.unwrap();
    let calls = (0..200).map(|_| {
        let (client, time) = (&client, Duration::from_micros(1000 + random.below(100_000)));
        async move {
            let since = Instant::now();
            let error = client.call::<()>("hang", &()).timeout(time).await.unwrap_err();
            assert_eq!(error.code, Code::DEADLINE_EXCEEDED);
            assert!(since.elapsed() >= time, "too early");
        }
    });
    join_all(calls).await;
    drop(patient);
    started.reached(1).await;
    let served = started.get();
    dropped.reached(served).await;
}

// spec: §10.4
async fn dropping_a_call_drops_its_handler(net: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let site = Site::with(net, |builder| hang(builder, &started, &dropped)).await;
    let client = site.client().await;
    let open = client.call::<()>("hang", &()).start().await.unwrap();
    started.reached(1).await;
    drop(open);
    dropped.reached(1).await;
    let awaited = client.call::<()>("hang", &()).into_future();
    tokio::select! {
        _ = awaited => panic!("it never answers"),
        () = started.reached(2) => {}
    }
    dropped.reached(2).await;
    let peer = site.peer().await;
    eventually("the slots are free", || peer.stats().requests_running == 0).await;
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
}

// spec: §10.5, §15.3
async fn a_callee_has_a_maximum_of_its_own(net: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let site = Site::with(net, |builder| {
        hang(builder, &started, &dropped)
            .configure(|config| config.max_deadline = Some(Duration::from_millis(20)))
    })
    .await;
    let client = site.client().await;
    let error = client.call::<()>("hang", &()).timeout(Duration::from_secs(3600)).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::DEADLINE_EXCEEDED, None));
    dropped.reached(1).await;
}

// spec: §10.5
async fn a_request_without_time_is_refused_at_once(net: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let site = Site::with(net, |builder| hang(builder, &started, &dropped)).await;
    let mut wire = site.wire().await;
    let call = Message::call("hang").timeout_ms(0);
    wire.send(&call).await;
    let error = wire.response_to(call.id).await.error.unwrap();
    assert_eq!((error.code, error.processed), (Code::DEADLINE_EXCEEDED, Some(false)));
    assert_eq!(started.get(), 0);
}

// spec: §10.5
async fn a_default_can_be_set_and_overruled(net: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let site =
        Site::with(net, |builder| hang(builder, &started, &dropped).call_timeout(Duration::from_millis(20)))
            .await;
    let never = |_| std::future::pending::<Result<(), fluxar::HandlerError>>();
    let client =
        site.connect().call_timeout(Duration::from_millis(20)).handle("never", never).build().await.unwrap();
    let error = client.call::<()>("hang", &()).await.unwrap_err();
    assert_eq!(error.code, Code::DEADLINE_EXCEEDED);
    let error = site.peer().await.call::<()>("never", &()).await.unwrap_err();
    assert_eq!(error.code, Code::DEADLINE_EXCEEDED);
    let patient = client.call::<()>("hang", &()).timeout(Duration::from_secs(3600)).start().await.unwrap();
    let hasty = client.call::<()>("hang", &()).await.unwrap_err();
    assert_eq!(hasty.code, Code::DEADLINE_EXCEEDED);
    assert_eq!(client.stats().calls_in_flight, 1, "the patient one");
    drop(patient);
    dropped.reached(started.get()).await;
}

fn poll_once<F: Future + Unpin>(future: &mut F) {
    assert!(Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

// spec: §2.4, §10.10
async fn a_call_that_is_dropped_before_it_is_sent_is_not_sent(_: Net) {
    let (client, mut wire) = trapped().await;
    let mut call = Box::pin(client.call::<Raw>("early", &()).into_future());
    poll_once(&mut call);
    drop(call);
    let after = tokio::spawn({
        let peer = client.peer();
        async move { peer.call::<u8>("after", &()).await }
    });
    let mut message = wire.receive().await;
    if message.target.as_deref() == Some("early") {
        // With several threads the driver may have been faster; then it was told, too.
        assert_ne!(Handle::current().runtime_flavor(), RuntimeFlavor::CurrentThread);
        assert_eq!(wire.receive().await.reference, Some(message.id));
        message = wire.receive().await;
    }
    assert_eq!(message.target.as_deref(), Some("after"));
    wire.send(&Message::response(message.id).payload(&7u8)).await;
    assert_eq!(after.await.unwrap(), Ok(7));
}

async fn a_call_that_is_never_polled_is_not_made(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    drop(client.call::<Raw>("echo", &()).into_future());
    drop(client.call::<Raw>("echo", &()).start());
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    assert_eq!(client.stats().calls_made, 1);
}

// spec: §2.4, §10.10
async fn a_call_that_is_dropped_in_line_is_not_sent(net: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let site = Site::with(net, |builder| {
        hang(builder, &started, &dropped).configure(|config| config.limits.max_calls = 1)
    })
    .await;
    let client = site.client().await;
    let held = client.call::<()>("hang", &()).start().await.unwrap();
    let mut waiting: Vec<_> =
        (0..10u8).map(|number| Box::pin(client.call::<u8>("echo", &number).into_future())).collect();
    waiting.iter_mut().for_each(poll_once);
    started.reached(1).await;
    drop(waiting);
    drop(held);
    dropped.reached(1).await;
    let peer = site.peer().await;
    eventually("the slot is free", || peer.stats().requests_running == 0).await;
    assert_eq!(client.call::<u8>("echo", &7).await, Ok(7));
    assert_eq!((peer.stats().calls_served, client.stats().calls_made), (2, 2));
}

// spec: §10.4
async fn a_call_that_is_dropped_after_its_answer_came_sends_no_cancel(_: Net) {
    let (client, mut wire) = trapped().await;
    let call = client.call::<u8>("quick", &()).start().await.unwrap();
    let request = wire.receive().await;
    wire.send(&Message::response(request.id).payload(&1u8)).await;
    eventually("the answer has come", || client.stats().messages_in == 2).await;
    drop(call);
    let after = tokio::spawn({
        let peer = client.peer();
        async move { peer.call::<u8>("after", &()).await }
    });
    let message = wire.receive().await;
    assert_eq!(message.target.as_deref(), Some("after"), "a cancel for what is over");
    wire.send(&Message::response(message.id).payload(&2u8)).await;
    assert_eq!(after.await.unwrap(), Ok(2));
}

// spec: §5.15, §10.4
async fn what_comes_for_a_call_that_was_given_up_is_dropped(_: Net) {
    let (client, mut wire) = trapped().await;
    let call = client.call::<u8>("quick", &()).start().await.unwrap();
    let request = wire.receive().await;
    drop(call);
    assert_eq!(wire.receive().await.target.as_deref(), Some(verb::CANCEL));
    wire.send(&Message::update(request.id).payload(&1u8)).await;
    wire.send(&Message::response(request.id).payload(&1u8)).await;
    wire.send(&Message::response(request.id).payload(&1u8)).await;
    wire.ping().await;
    assert_eq!((client.stats().dropped, client.error()), (3, None));
}
