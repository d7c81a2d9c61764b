//! Waiting for a call slot of the peer's: in order, for as long as there is time, and without anybody being forgotten.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fluxar::{Client, Code, HandlerError, Raw, Request};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::random::Random;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::wire::{Message, Trap};
use fluxar_tests::{matrix, schedulers};
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Semaphore, mpsc};

matrix! {
    no_more_calls_run_than_the_peer_allows
    calls_wait_in_the_order_in_which_they_were_made
    ten_thousand_calls_share_sixty_four_slots
    whoever_waits_is_served_when_others_give_up
    outcomes_that_nobody_takes_keep_their_slots
}

schedulers! {
    who_was_called_up_and_leaves_lets_the_next_one_go
    waiting_in_line_is_part_of_the_time_of_a_call
    a_wait_in_line_ends_with_the_connection
    a_peer_that_takes_no_calls_says_so_at_once
    whoever_comes_later_does_not_overtake
    nobody_is_forgotten_when_callers_come_and_go
}

/// A handler that runs until it is let go, and counts how many run.
#[derive(Clone)]
struct Door {
    open: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    entered: Counter,
}

impl Door {
    fn new() -> Self {
        Self {
            open: Arc::new(Semaphore::new(0)),
            inside: Arc::default(),
            most: Arc::default(),
            entered: Counter::new(),
        }
    }

    fn handler(&self) -> impl Fn(Request) -> BoxFuture<'static, Result<Raw, HandlerError>> + use<> {
        let door = self.clone();
        move |request| {
            let door = door.clone();
            Box::pin(async move {
                let inside = door.inside.fetch_add(1, Ordering::SeqCst) + 1;
                door.most.fetch_max(inside, Ordering::SeqCst);
                door.entered.add();
                let let_go = door.open.acquire().await;
                door.inside.fetch_sub(1, Ordering::SeqCst);
                let_go?.forget();
                Ok(request.raw())
            })
        }
    }

    fn let_go(&self, count: usize) {
        self.open.add_permits(count);
    }

    async fn site(&self, net: Net, max_calls: u32) -> Site {
        Site::with(net, |builder| {
            builder.configure(|config| config.limits.max_calls = max_calls).handle("door", self.handler())
        })
        .await
    }
}

// spec: §10.6
async fn no_more_calls_run_than_the_peer_allows(net: Net) {
    let door = Door::new();
    let site = door.site(net, 3).await;
    let client = site.client().await;
    let calls = tokio::spawn({
        let peer = client.peer();
        async move { join_all((0..20u8).map(|number| peer.call::<u8>("door", &number).into_future())).await }
    });
    for number in 0..20 {
        door.entered.reached((number + 3).min(20)).await;
        door.let_go(1);
    }
    assert!(calls.await.unwrap().into_iter().zip(0..).all(|(answer, number)| answer == Ok(number)));
    assert_eq!(door.most.load(Ordering::SeqCst), 3);
    assert_eq!(site.peer().await.stats().refused, 0, "nobody had to be refused");
}

// spec: §10.6
async fn calls_wait_in_the_order_in_which_they_were_made(net: Net) {
    let (order, mut served) = mpsc::unbounded_channel();
    let site = Site::with(net, |builder| {
        builder.configure(|config| config.limits.max_calls = 1).handle("next", move |request: Request| {
            order.send(request.payload::<u32>().unwrap()).unwrap();
            async { Ok(()) }
        })
    })
    .await;
    let client = site.client().await;
    let calls = join_all((0..100u32).map(|number| client.call::<()>("next", &number).into_future())).await;
    assert!(calls.into_iter().all(|answer| answer == Ok(())));
    for number in 0..100 {
        assert_eq!(served.recv().await, Some(number));
    }
}

// spec: §10.6
async fn ten_thousand_calls_share_sixty_four_slots(net: Net) {
    let site = Site::with(net, |builder| builder.configure(|config| config.limits.max_calls = 64)).await;
    let client = site.client().await;
    let done = Counter::new();
    for number in 0..10_000u32 {
        let (peer, done) = (client.peer(), done.clone());
        tokio::spawn(async move {
            assert_eq!(peer.call::<u32>("echo", &number).await, Ok(number));
            done.add();
        });
    }
    done.reached(10_000).await;
    assert_eq!(site.peer().await.stats().refused, 0);
    assert_eq!(client.stats().calls_in_flight, 0);
}

// spec: §10.6
async fn whoever_waits_is_served_when_others_give_up(net: Net) {
    let door = Door::new();
    let site = door.site(net, 2).await;
    let client = site.client().await;
    let held = [client.call::<u8>("door", &0).start().await, client.call::<u8>("door", &1).start().await];
    let waiting = tokio::spawn({
        let peer = client.peer();
        async move { peer.call::<u8>("echo", &7).await }
    });
    door.entered.reached(2).await;
    // Its slot here is free at once; the peer may still refuse until its handler has ended there.
    drop(held);
    let answer = waiting.await.unwrap();
    if let Err(error) = answer {
        assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    }
}

// spec: §10.6
async fn outcomes_that_nobody_takes_keep_their_slots(net: Net) {
    let site = Site::with(net, |builder| builder.configure(|config| config.limits.max_calls = 4)).await;
    let client = site.client().await;
    let mut kept = Vec::new();
    for number in 0..4u8 {
        kept.push(client.call::<u8>("echo", &number).start().await.unwrap());
    }
    let late = tokio::spawn({
        let peer = client.peer();
        async move { peer.call::<u8>("echo", &99).await }
    });
    eventually("all answers have come", || client.stats().messages_in >= 5).await;
    for (number, call) in (0..).zip(kept) {
        assert_eq!(call.await, Ok(number));
    }
    assert_eq!(late.await.unwrap(), Ok(99));
}

/// Polls once, by hand, without being woken later.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

// spec: §10.6
async fn who_was_called_up_and_leaves_lets_the_next_one_go(net: Net) {
    let door = Door::new();
    let site = door.site(net, 1).await;
    let client = site.client().await;
    let first = client.call::<u8>("door", &0).start().await.unwrap();
    // Is called up, and does not come.
    let mut absent = Box::pin(client.call::<u8>("echo", &1).into_future());
    assert!(poll_once(absent.as_mut()).is_pending());
    let next = tokio::spawn({
        let peer = client.peer();
        async move { peer.call::<u8>("echo", &2).await }
    });
    eventually("the next one waits too", || next.is_finished() || door.entered.get() == 1).await;
    tokio::task::yield_now().await;
    door.let_go(1);
    assert_eq!(first.await, Ok(0));
    drop(absent);
    assert_eq!(next.await.unwrap(), Ok(2));
}

// spec: §10.5
async fn waiting_in_line_is_part_of_the_time_of_a_call(net: Net) {
    let door = Door::new();
    let site = door.site(net, 1).await;
    let client = site.client().await;
    let held = client.call::<u8>("door", &0).start().await.unwrap();
    let times = [50, 10, 30, 20, 40].map(Duration::from_millis);
    let waiting = times.map(|time| {
        let client = &client;
        async move {
            let since = tokio::time::Instant::now();
            let error = client.call::<u8>("echo", &1).timeout(time).await.unwrap_err();
            assert_eq!((error.code, error.processed), (Code::DEADLINE_EXCEEDED, Some(false)));
            assert!(since.elapsed() >= time, "too early");
        }
    });
    join_all(waiting).await;
    let sent = client.stats().messages_out;
    assert!(client.call::<u8>("echo", &1).timeout(Duration::ZERO).await.is_err());
    assert_eq!(client.stats().messages_out, sent, "nothing of it was sent");
    // Those who have time are served still.
    let patient = client.call::<u8>("echo", &9).timeout(Duration::from_secs(60)).into_future();
    door.let_go(1);
    assert_eq!(tokio::join!(held, patient), (Ok(0), Ok(9)));
}

// spec: §10.9
async fn a_wait_in_line_ends_with_the_connection(net: Net) {
    let door = Door::new();
    let site = door.site(net, 1).await;
    let client = site.client().await;
    let held = client.call::<u8>("door", &0).start().await.unwrap();
    let waiting: Vec<_> = (0..10u8)
        .map(|number| {
            let peer = client.peer();
            tokio::spawn(async move { peer.call::<u8>("echo", &number).await })
        })
        .collect();
    door.entered.reached(1).await;
    site.close().await;
    assert_eq!(held.await.unwrap_err().processed, None, "this one was sent");
    for call in waiting {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, Some(false)));
    }
}

// spec: §6.7, §10.6
async fn a_peer_that_takes_no_calls_says_so_at_once(net: Net) {
    let site = Site::with(net, |builder| builder.configure(|config| config.limits.max_calls = 0)).await;
    let client = site.client().await;
    let error = client.call::<Raw>("echo", &()).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
}

/// A scripted callee with one slot sees who comes when.
async fn whoever_comes_later_does_not_overtake(_: Net) {
    let trap = Trap::open().await;
    let url = trap.url();
    let (client, mut wire) = tokio::join!(Client::connect(url).build(), async {
        let mut wire = trap.accept().await;
        let offer = wire.receive().await;
        // {"version": 1, "limits": {"max_calls": 1}}
        let answer = b"\xa2\x67version\x01\x66limits\xa1\x69max_calls\x01";
        wire.send(&Message::answer(offer.id).raw(&answer[..])).await;
        wire
    });
    let client = client.unwrap();
    let peer = client.peer();
    // In one task, so that all stand in line when the first of them is answered.
    let calls = tokio::spawn(async move {
        join_all((0..20u32).map(async |number| {
            // As soon as one has its answer it makes another call, which must go to the end of the line.
            for round in 0..5u32 {
                peer.call::<()>("next", &(round, number)).await.unwrap();
            }
        }))
        .await;
    });
    let mut rounds = Vec::new();
    for _ in 0..100 {
        let call = wire.receive().await;
        rounds.push(call.decode::<(u32, u32)>());
        wire.send(&Message::response(call.id)).await;
    }
    assert!(rounds.is_sorted(), "somebody overtook others: {rounds:?}");
    calls.await.unwrap();
}

// spec: §10.6
async fn nobody_is_forgotten_when_callers_come_and_go(net: Net) {
    let site = Site::with(net, |builder| {
        builder.configure(|config| {
            config.limits.max_calls = 3;
            // Giving up is what this is about.
            config.misuse_capacity = 1_000_000;
        })
    })
    .await;
    let client = site.client().await;
    let mut random = Random::new();
    let (done, late) = (Counter::new(), Counter::new());
    for _ in 0..200 {
        let (peer, done, late, mut random) = (client.peer(), done.clone(), late.clone(), random.fork());
        tokio::spawn(async move {
            for number in 0..50u32 {
                let call = peer.call::<u32>("echo", &number);
                match random.below(4) {
                    0 => {
                        // Leaves at any point: in line, called up, open, or never.
                        let mut call = pin!(call.into_future());
                        for _ in 0..random.below(6) {
                            tokio::select! {
                                biased;
                                _ = &mut call => break,
                                () = tokio::task::yield_now() => {}
                            }
                        }
                    }
                    1 => match call.timeout(Duration::from_micros(random.below(3000))).await {
                        Ok(answer) => assert_eq!(answer, number),
                        Err(error) if error.code == Code::DEADLINE_EXCEEDED => late.add(),
                        Err(error) => assert_eq!(error.code, Code::RESOURCE_EXHAUSTED, "{error}"),
                    },
                    // What was given up may still run at the peer, which then refuses (§10.6).
                    _ => match call.await {
                        Ok(answer) => assert_eq!(answer, number),
                        Err(error) => assert_eq!(error.code, Code::RESOURCE_EXHAUSTED, "{error}"),
                    },
                }
            }
            done.add();
        });
    }
    done.reached(200).await;
    assert_eq!(client.stats().calls_in_flight, 0);
    let peer = site.peer().await;
    eventually("the peer's slots are free", || peer.stats().requests_running == 0).await;
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
}
