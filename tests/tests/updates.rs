//! Updates of open calls, both ways.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fluxar::{Client, Code, Raw, Request};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::wire::Trap;
use fluxar_tests::{matrix, schedulers};
use futures_util::future::join_all;

matrix! {
    progress_comes_before_the_result
    feedback_reaches_the_handler
    updates_go_back_and_forth
    updates_of_many_calls_do_not_mix
    more_updates_than_the_send_buffer_holds_pass
    updates_do_not_wait_behind_calls_that_wait_for_their_slot
}

schedulers! {
    a_slow_caller_loses_the_oldest_updates
    a_slow_handler_loses_the_oldest_updates
    updates_that_cannot_be_sent_say_so
    an_update_of_another_type_is_an_error_of_its_own
    a_waiting_update_ends_with_its_call
    several_may_wait_for_updates_of_one_request
    an_update_that_waits_for_room_ends_with_its_call
}

// spec: §10.3
async fn progress_comes_before_the_result(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut call = client.call::<u32>("count", &50).start().await.unwrap();
    for number in 0..50 {
        assert_eq!(call.next_update::<u32>().await, Some(Ok(number)));
    }
    assert_eq!(call.next_update::<u32>().await, None);
    assert_eq!(call.await, Ok(50));
    // Who does not care need not take them.
    assert_eq!(client.call::<u32>("count", &10).await, Ok(10));
    let call = client.call::<u32>("count", &10).start().await.unwrap();
    assert_eq!(call.await, Ok(10));
}

/// Adds up what comes, until zero comes.
async fn sum(request: Request) -> Result<u64, fluxar::HandlerError> {
    let mut sum = request.payload::<u64>()?;
    while let Some(number) = request.next_update::<u64>().await {
        match number? {
            0 => return Ok(sum),
            number => sum += number,
        }
    }
    panic!("cancelled handlers are dropped");
}

// spec: §10.3
async fn feedback_reaches_the_handler(net: Net) {
    let site = Site::with(net, |builder| builder.handle("sum", sum)).await;
    let client = site.client().await;
    let mut call = client.call::<u64>("sum", &1000).start().await.unwrap();
    for number in [1u64, 2, 3, 0] {
        call.update(&number).await.unwrap();
    }
    assert_eq!(call.await, Ok(1006));
}

// spec: §10.3
async fn updates_go_back_and_forth(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("double", |request: Request| async move {
            while let Some(number) = request.next_update::<u64>().await {
                match number? {
                    0 => break,
                    number => request.update(&(number * 2)).await?,
                }
            }
            Ok(())
        })
    })
    .await;
    let client = site.client().await;
    let mut call = client.call::<()>("double", &()).start().await.unwrap();
    for number in 1..=300u64 {
        call.update(&number).await.unwrap();
        assert_eq!(call.next_update::<u64>().await, Some(Ok(number * 2)));
    }
    call.update(&0).await.unwrap();
    assert_eq!(call.next_update::<Raw>().await, None);
    assert_eq!(call.await, Ok(()));
}

// spec: §10.3
async fn updates_of_many_calls_do_not_mix(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("mark", |request: Request| async move {
            let mark: u32 = request.payload()?;
            for number in 0..30u32 {
                request.update(&(mark, number)).await?;
                tokio::task::yield_now().await;
            }
            Ok(mark)
        })
    })
    .await;
    let client = site.client().await;
    let calls = (0..100u32).map(|mark| {
        let client = &client;
        async move {
            let mut call = client.call::<u32>("mark", &mark).start().await.unwrap();
            let mut next = 0;
            while let Some(update) = call.next_update::<(u32, u32)>().await {
                assert_eq!(update, Ok((mark, next)));
                next += 1;
            }
            assert_eq!((next, call.await), (30, Ok(mark)));
        }
    });
    join_all(calls).await;
    assert_eq!(client.stats().updates_dropped, 0);
}

/// Waits for an update that is the number `last`; others may get lost on the way.
async fn until_last(request: Request) -> Result<u32, fluxar::HandlerError> {
    let last: u32 = request.payload()?;
    loop {
        let (number, _) = request.next_update::<(u32, String)>().await.expect("wanted until it is over")?;
        if number == last {
            return Ok(number);
        }
    }
}

// spec: §10.3, §15.3
async fn more_updates_than_the_send_buffer_holds_pass(net: Net) {
    let small = |config: &mut fluxar::Config| config.send_buffer = 4000;
    let site = Site::with(net, |builder| {
        builder.configure(small).handle("take", until_last).handle("give", |request: Request| async move {
            for number in 0..2000u32 {
                request.update(&(number, "x".repeat(500))).await?;
            }
            Ok(())
        })
    })
    .await;
    // It takes no calls: what it is sent needs no slot.
    let client = site
        .connect()
        .configure(|config| {
            small(config);
            config.limits.max_calls = 0;
        })
        .build()
        .await
        .unwrap();
    let mut call = client.call::<u32>("take", &2000).start().await.unwrap();
    for number in 0..=2000u32 {
        call.update(&(number, "x".repeat(500))).await.unwrap();
    }
    assert_eq!(call.await, Ok(2000));
    let mut call = client.call::<()>("give", &()).start().await.unwrap();
    let mut latest = None;
    while let Some(update) = call.next_update::<(u32, String)>().await {
        latest = Some(update.unwrap().0);
    }
    assert_eq!((latest, call.await), (Some(1999), Ok(())));
}

// spec: §10.3, §10.6
async fn updates_do_not_wait_behind_calls_that_wait_for_their_slot(net: Net) {
    let site = Site::with(net, |builder| {
        builder.configure(|config| config.limits.max_calls = 1).handle("take", until_last)
    })
    .await;
    let client = site.connect().configure(|config| config.send_buffer = 4000).build().await.unwrap();
    let mut call = client.call::<u32>("take", &1000).start().await.unwrap();
    // It waits for the only slot, until the updates have ended the call that has it.
    let waiting = client.call::<u32>("echo", &1).into_future();
    let updates = async {
        tokio::task::yield_now().await;
        for number in 0..=1000u32 {
            call.update(&(number, "x".repeat(500))).await.unwrap();
        }
        call.await
    };
    assert_eq!(tokio::join!(waiting, updates), (Ok(1), Ok(1000)));
}

// spec: §10.3, §15.3
async fn a_slow_caller_loses_the_oldest_updates(net: Net) {
    let site = Site::open(net).await;
    let client = site.connect().configure(|config| config.updates_per_call = 4).build().await.unwrap();
    let mut call = client.call::<u32>("count", &10).start().await.unwrap();
    eventually("answer and updates have come", || client.stats().messages_in == 12).await;
    assert_eq!(client.stats().updates_dropped, 6);
    for number in 6..10 {
        assert_eq!(call.next_update::<u32>().await, Some(Ok(number)));
    }
    assert_eq!(call.next_update::<u32>().await, None);
    assert_eq!(call.await, Ok(10));
}

// spec: §10.3, §15.3
async fn a_slow_handler_loses_the_oldest_updates(net: Net) {
    let go = Counter::new();
    let site = Site::with(net, |builder| {
        let go = go.clone();
        builder.configure(|config| config.updates_per_call = 4).handle("late", move |request: Request| {
            let go = go.clone();
            async move {
                go.reached(1).await;
                let mut taken = Vec::new();
                for _ in 0..4 {
                    taken.push(request.next_update::<u8>().await.unwrap()?);
                }
                Ok(taken)
            }
        })
    })
    .await;
    let client = site.client().await;
    let mut call = client.call::<Vec<u8>>("late", &()).start().await.unwrap();
    for number in 0..10u8 {
        call.update(&number).await.unwrap();
    }
    let peer = site.peer().await;
    eventually("all have come", || peer.stats().messages_in == 11).await;
    assert_eq!(peer.stats().updates_dropped, 6);
    go.add();
    assert_eq!(call.await.unwrap(), [6, 7, 8, 9]);
}

// spec: §5.13, §10.3
async fn updates_that_cannot_be_sent_say_so(net: Net) {
    let site = Site::with(net, |builder| {
        builder.configure(|config| config.limits.max_message = 2000).handle("sum", sum)
    })
    .await;
    let client = site.client().await;
    let mut call = client.call::<u64>("sum", &0).start().await.unwrap();
    let error = call.update(&"x".repeat(2000)).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::MESSAGE_TOO_LARGE, Some(false)));
    call.update(&1u64).await.unwrap();
    call.update(&0u64).await.unwrap();
    eventually("the answer has come", || client.stats().messages_in == 2).await;
    let error = call.update(&1u64).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::CANCELLED, Some(false)));
    assert_eq!(call.await, Ok(1));
}

async fn an_update_of_another_type_is_an_error_of_its_own(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("mixed", |request: Request| async move {
            request.update("text").await?;
            request.update(&7).await?;
            Ok(())
        })
    })
    .await;
    let client = site.client().await;
    let mut call = client.call::<()>("mixed", &()).start().await.unwrap();
    assert_eq!(call.next_update::<u8>().await.unwrap().unwrap_err().code, Code::INVALID_ARGUMENT);
    assert_eq!(call.next_update::<u8>().await, Some(Ok(7)));
    assert_eq!(call.await, Ok(()));
}

// spec: §10.3, §10.5
async fn a_waiting_update_ends_with_its_call(net: Net) {
    let dropped = Counter::new();
    let site = Site::with(net, |builder| {
        let dropped = dropped.clone();
        builder.handle("wait", move |request: Request| {
            let guard = dropped.guard();
            async move {
                let update = request.next_update::<Raw>().await;
                drop(guard);
                panic!("nobody sent {update:?}");
                #[expect(unreachable_code, reason = "says what type the handler has")]
                Ok(())
            }
        })
    })
    .await;
    let client = site.client().await;
    let mut call = client.call::<()>("wait", &()).timeout(Duration::from_millis(30)).start().await.unwrap();
    assert_eq!(call.next_update::<Raw>().await, None, "the deadline ends the wait");
    assert_eq!(call.await.unwrap_err().code, Code::DEADLINE_EXCEEDED);
    dropped.reached(1).await;
}

// spec: §10.3
async fn several_may_wait_for_updates_of_one_request(net: Net) {
    let waiting = Counter::new();
    let ends = Counter::new();
    let site = Site::with(net, |builder| {
        let (waiting, ends) = (waiting.clone(), ends.clone());
        builder.handle("share", move |request: Request| {
            let (waiting, ends) = (waiting.clone(), ends.clone());
            async move {
                let request = Arc::new(request);
                let (last, mut taken) = tokio::sync::mpsc::unbounded_channel();
                for _ in 0..3 {
                    let (request, waiting, ends, last) =
                        (request.clone(), waiting.clone(), ends.clone(), last.clone());
                    tokio::spawn(async move {
                        loop {
                            let mut next = pin!(request.next_update::<u32>());
                            let first = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
                            waiting.add();
                            let next = match first {
                                Poll::Ready(next) => next,
                                Poll::Pending => next.await,
                            };
                            match next {
                                Some(number) => last.send(number.unwrap()).unwrap(),
                                None => break,
                            }
                        }
                        ends.add();
                    });
                }
                let numbers = [taken.recv().await.unwrap(), taken.recv().await.unwrap()];
                Ok(numbers)
            }
        })
    })
    .await;
    let client = site.client().await;
    let mut call = client.call::<[u32; 2]>("share", &()).start().await.unwrap();
    waiting.reached(3).await;
    call.update(&7).await.unwrap();
    waiting.reached(4).await;
    call.update(&8).await.unwrap();
    assert_eq!(call.await, Ok([7, 8]));
    // The answer ends all of them, and so does a cancel.
    ends.reached(3).await;
    let call = client.call::<[u32; 2]>("share", &()).start().await.unwrap();
    waiting.reached(8).await;
    drop(call);
    ends.reached(6).await;
}

// spec: §10.3, §10.5
async fn an_update_that_waits_for_room_ends_with_its_call(_: Net) {
    let trap = Trap::open().await;
    let connecting = Client::connect(trap.url()).configure(|config| config.send_buffer = 4000).build();
    let (client, _wire) = tokio::join!(connecting, trap.established());
    let client = client.unwrap();
    // Nobody reads: one waits for room, and the other one for its turn.
    let until_error = async |number: u8| {
        let call = client.call::<()>("deaf", &number).timeout(Duration::from_millis(300));
        let mut call = call.start().await.unwrap();
        let text = "x".repeat(200_000);
        let error = loop {
            if let Err(error) = call.update(&text).await {
                break error;
            }
        };
        (error.code, error.processed, call.await.unwrap_err().code)
    };
    let both = async { tokio::join!(until_error(1), until_error(2)) };
    let both = tokio::time::timeout(Duration::from_secs(5), both).await.expect("the deadline ends them");
    let ended = (Code::CANCELLED, Some(false), Code::DEADLINE_EXCEEDED);
    assert_eq!(both, (ended, ended));
}
