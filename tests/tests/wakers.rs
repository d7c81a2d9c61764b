//! Wakers that hold the last reference to a task, as those of small executors do.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use fluxar::{OpenCall, Raw};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::signal::{Counter, Guard};
use fluxar_tests::site::Site;

schedulers! {
    a_waker_that_is_dropped_may_use_the_connection
}

/// A task that owns a call: dropping it cancels that.
struct Task {
    _call: Mutex<OpenCall<Raw>>,
    _guard: Guard,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

fn poll_with<F: Future>(waker: &Waker, future: Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(waker)).is_pending());
}

async fn a_waker_that_is_dropped_may_use_the_connection(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let dropped = Counter::new();
    let task = async || {
        let call = Mutex::new(client.call::<Raw>("never", &()).start().await.unwrap());
        Waker::from(Arc::new(Task { _call: call, _guard: dropped.guard() }))
    };
    // Another waker takes its place, or who waits gives up.
    let mut call = client.call::<Raw>("never", &()).start().await.unwrap();
    poll_with(&task().await, Pin::new(&mut call));
    poll_with(Waker::noop(), Pin::new(&mut call));
    assert_eq!(dropped.get(), 1);
    poll_with(&task().await, Pin::new(&mut call));
    drop(call);
    assert_eq!(dropped.get(), 2);
    for waker in [task().await, task().await] {
        let mut closed = Box::pin(client.closed());
        poll_with(&waker, closed.as_mut());
        drop(waker);
        if dropped.get() == 2 {
            poll_with(Waker::noop(), closed.as_mut());
        }
        drop(closed);
    }
    assert_eq!(dropped.get(), 4);
    {
        let trap = fluxar_tests::wire::Trap::open().await;
        let url = trap.url();
        let (silent, _wire) = tokio::join!(fluxar::Client::connect(url).build(), trap.established());
        let silent = silent.unwrap();
        let held = silent.call::<Raw>("never", &()).start().await.unwrap();
        let waker = Waker::from(Arc::new(Task { _call: Mutex::new(held), _guard: dropped.guard() }));
        let mut ping = pin!(silent.ping());
        poll_with(&waker, ping.as_mut());
        drop(waker);
        poll_with(Waker::noop(), ping.as_mut());
        assert_eq!(dropped.get(), 5);
    }
    eventually("all calls are cancelled", || client.stats().calls_in_flight == 0).await;
}
