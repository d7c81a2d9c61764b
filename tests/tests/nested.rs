//! Both sides are peers: handlers that call their callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fluxar::{Code, Error, Peer, Raw, Request};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use futures_util::future::join_all;
use tokio::sync::mpsc;

matrix! {
    a_handler_calls_its_caller_while_that_waits
    calls_nest_as_deep_as_there_are_slots
    one_slot_on_each_side_is_enough_for_one_nested_call
    many_nested_calls_at_once_get_their_own_answers
    errors_pass_through_nested_calls
    that_a_nested_call_was_not_processed_says_nothing_of_the_other
    on_connect_calls_the_client_first
    a_hook_that_panics_costs_nobody_his_connection
    a_handler_may_close_its_own_connection
    a_handler_may_drop_what_uses_its_own_connection
}

// spec: §10.1
async fn a_handler_calls_its_caller_while_that_waits(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("greet", |request: Request| async move {
            let name: String = request.peer().call("who", &()).await?;
            Ok(format!("Hello, {name}!"))
        })
    })
    .await;
    let client = site.connect().handle("who", |_| async { Ok("Ada") }).build().await.unwrap();
    assert_eq!(client.call::<String>("greet", &()).await.unwrap(), "Hello, Ada!");
}

/// Counts down by calling the other side.
async fn down(request: Request) -> Result<u32, fluxar::HandlerError> {
    match request.payload::<u32>()? {
        0 => Ok(0),
        number => Ok(request.peer().call::<u32>("down", &(number - 1)).await? + 1),
    }
}

// spec: §10.1, §10.6
async fn calls_nest_as_deep_as_there_are_slots(net: Net) {
    let site = Site::with(net, |builder| builder.handle("down", down)).await;
    let client = site.connect().handle("down", down).build().await.unwrap();
    assert_eq!(client.call::<u32>("down", &500).await, Ok(500));
    let stats = client.stats();
    assert_eq!((stats.calls_in_flight, stats.requests_running), (0, 0));
}

// spec: §10.6
async fn one_slot_on_each_side_is_enough_for_one_nested_call(net: Net) {
    let one = |config: &mut fluxar::Config| config.limits.max_calls = 1;
    let site = Site::with(net, |builder| builder.configure(one).handle("down", down)).await;
    let client = site.connect().configure(one).handle("down", down).build().await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.call::<u32>("down", &1).await, Ok(1));
    }
    // Several at once have to take turns, on both sides.
    let calls = (0..20).map(|_| client.call::<u32>("down", &1).into_future());
    assert!(join_all(calls).await.into_iter().all(|answer| answer == Ok(1)));
    // What would need a second slot ends with its deadline, and does not stay in the way.
    let deep = client.call::<u32>("down", &2).timeout(std::time::Duration::from_millis(100));
    assert_eq!(deep.await.unwrap_err().code, Code::DEADLINE_EXCEEDED);
    let peer = site.peer().await;
    eventually("all handlers have ended", || {
        peer.stats().requests_running == 0 && client.stats().requests_running == 0
    })
    .await;
    assert_eq!(client.call::<u32>("down", &1).await, Ok(1));
}

async fn many_nested_calls_at_once_get_their_own_answers(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("twice", |request: Request| async move {
            let number: u64 = request.payload()?;
            let peer = request.peer();
            let (a, b) = tokio::join!(
                peer.call::<u64>("square", &number).into_future(),
                peer.call::<u64>("square", &(number + 1)).into_future()
            );
            Ok((a?, b?))
        })
    })
    .await;
    let square = |request: Request| async move {
        let number: u64 = request.payload()?;
        tokio::task::yield_now().await;
        Ok(number * number)
    };
    let client = site.connect().handle("square", square).build().await.unwrap();
    let calls = (0..300u64).map(|number| client.call::<(u64, u64)>("twice", &number).into_future());
    for (number, answer) in (0u64..).zip(join_all(calls).await) {
        assert_eq!(answer, Ok((number * number, (number + 1) * (number + 1))));
    }
}

async fn errors_pass_through_nested_calls(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("ask", |request: Request| async move {
            Ok(request.peer().call::<Raw>("refuse", &()).await?)
        })
    })
    .await;
    let refusal = Error::new(Code(2000), "not today").with_data(&[0x01][..]).with_retry_after_ms(5);
    let refuse = {
        let refusal = refusal.clone();
        move |_| {
            let refusal = refusal.clone();
            async move { Err::<Raw, _>(refusal.into()) }
        }
    };
    let client = site.connect().handle("refuse", refuse).build().await.unwrap();
    assert_eq!(client.call::<Raw>("ask", &()).await, Err(refusal));
}

// spec: §16.4
async fn that_a_nested_call_was_not_processed_says_nothing_of_the_other(net: Net) {
    let site = Site::with(net, |builder| {
        builder
            .handle("ask", |request: Request| async move {
                // Whatever it does before, it has acted.
                Ok(request.peer().call::<Raw>("nothing", &()).await?)
            })
            .handle("tell", |request: Request| async move { Ok(request.update(&vec![0u8; 100_000]).await?) })
            .handle("decline", |request: Request| async move {
                let error = request.peer().call::<Raw>("nothing", &()).await.unwrap_err();
                Err::<Raw, _>(error.with_processed(false).into())
            })
    })
    .await;
    let client =
        site.connect().configure(|config| config.limits.max_message = 64 << 10).build().await.unwrap();
    for (method, code, processed) in [
        ("ask", Code::UNIMPLEMENTED, None),
        ("tell", Code::MESSAGE_TOO_LARGE, None),
        ("decline", Code::UNIMPLEMENTED, Some(false)),
    ] {
        let error = client.call::<Raw>(method, &()).await.unwrap_err();
        assert_eq!((error.code, error.processed), (code, processed), "{method}");
    }
    assert!(client.call::<Raw>("nothing", &()).await.unwrap_err().is_retry_safe());
}

async fn on_connect_calls_the_client_first(net: Net) {
    let (names, mut heard) = mpsc::unbounded_channel();
    let site = Site::with(net, |builder| {
        builder.on_connect(move |peer: Peer| {
            let names = names.clone();
            async move {
                let name: String = peer.call("who", &()).await.unwrap();
                names.send(name).unwrap();
            }
        })
    })
    .await;
    let mut clients = Vec::new();
    for name in ["Ada", "Grace", "Edsger"] {
        clients.push(site.connect().handle("who", move |_| async move { Ok(name) }).build().await.unwrap());
        assert_eq!(heard.recv().await.as_deref(), Some(name));
    }
    assert_eq!(site.handle().peers().len(), 3);
}

async fn a_hook_that_panics_costs_nobody_his_connection(net: Net) {
    let met = Arc::new(AtomicU32::new(0));
    let site = Site::with(net, |builder| {
        builder.on_connect(move |_| {
            let number = met.fetch_add(1, Ordering::Relaxed);
            assert_ne!(number, 0, "before there is a future");
            async move { assert_ne!(number, 1, "later") }
        })
    })
    .await;
    for number in 0..3u8 {
        let client = site.client().await;
        assert_eq!(client.call::<u8>("echo", &number).await, Ok(number));
    }
}

// spec: §8.7, §10.9
async fn a_handler_may_close_its_own_connection(net: Net) {
    let closed = Counter::new();
    let site = Site::with(net, |builder| {
        let closed = closed.clone();
        builder.handle("leave", move |request: Request| {
            let guard = closed.guard();
            async move {
                request.peer().close_with(Error::unavailable("enough"));
                let _guard = guard;
                Ok(())
            }
        })
    })
    .await;
    let client = site.client().await;
    let error = client.call::<Raw>("leave", &()).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None));
    assert!(error.message.contains("enough"), "{error}");
    closed.reached(1).await;
}

/// What it drops cancels calls over the very connection whose driver drops it.
async fn a_handler_may_drop_what_uses_its_own_connection(net: Net) {
    let started = Counter::new();
    let site = Site::with(net, |builder| {
        let started = started.clone();
        builder.handle("ask", move |request: Request| {
            let started = started.clone();
            async move {
                let peer = request.peer();
                let _call = peer.call::<Raw>("never", &()).start().await?;
                started.add();
                Ok(peer.call::<Raw>("never", &()).await?)
            }
        })
    })
    .await;
    let stopped = Counter::new();
    let asked = Counter::new();
    let never = {
        let (stopped, asked) = (stopped.clone(), asked.clone());
        move |_| {
            asked.add();
            let guard = stopped.guard();
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                Ok(())
            }
        }
    };
    let client = site.connect().handle("never", never).build().await.unwrap();
    let call = client.call::<Raw>("ask", &()).start().await.unwrap();
    started.reached(1).await;
    asked.reached(2).await;
    drop(call);
    stopped.reached(2).await;
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
}
