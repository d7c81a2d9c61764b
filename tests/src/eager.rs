//! An executor that runs a task as soon as it is woken, within the very call that wakes it, as some do.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use fluxar::{Address, Tokio};
use fluxar_runtime::Runtime;

/// Tokio's sockets and timers, but tasks of its own: whoever wakes one runs it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Eager;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    future: Mutex<Option<Boxed>>,
    /// How often it was woken that nobody has followed up.
    woken: AtomicUsize,
}

impl Task {
    /// Runs it, unless it runs already: then whoever runs it does so once more.
    fn run(self: &Arc<Self>) {
        if self.woken.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let waker = Waker::from(self.clone());
        loop {
            let seen = self.woken.load(Ordering::Acquire);
            let mut future = self.future();
            if let Some(running) = future.as_mut()
                && running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
            {
                *future = None;
            }
            drop(future);
            if self.woken.fetch_sub(seen, Ordering::AcqRel) == seen {
                return;
            }
        }
    }

    fn future(&self) -> MutexGuard<'_, Option<Boxed>> {
        match self.future.try_lock() {
            Ok(future) => future,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => unreachable!("one runs it at a time"),
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.run();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.run();
    }
}

impl Runtime for Eager {
    type Timer = <Tokio as Runtime>::Timer;
    type Link = <Tokio as Runtime>::Link;
    type Listener = <Tokio as Runtime>::Listener;

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let task = Arc::new(Task { future: Mutex::new(Some(Box::pin(future))), woken: AtomicUsize::new(0) });
        task.run();
    }

    fn now(&self) -> Instant {
        Tokio.now()
    }

    fn timer(&self, at: Instant) -> Self::Timer {
        Tokio.timer(at)
    }

    fn connect(&self, address: &Address) -> impl Future<Output = io::Result<Self::Link>> + Send {
        Tokio.connect(address)
    }

    fn bind(&self, address: &Address) -> impl Future<Output = io::Result<Self::Listener>> + Send {
        Tokio.bind(address)
    }
}
