//! A runtime behind a pointer: for what has no type parameter, and needs tasks and timers all the same.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::runtime::{Runtime, Timer};

/// A future that hides its type.
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs tasks, and tells the time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tasks(Arc<dyn Environment>);

trait Environment: Send + Sync {
    fn spawn(&self, future: Boxed<()>);
    fn now(&self) -> Instant;
    fn timer(&self, at: Instant) -> Box<dyn Timer>;
}

impl<R: Runtime> Environment for R {
    fn spawn(&self, future: Boxed<()>) {
        Runtime::spawn(self, future);
    }

    fn now(&self) -> Instant {
        Runtime::now(self)
    }

    fn timer(&self, at: Instant) -> Box<dyn Timer> {
        Box::new(Runtime::timer(self, at))
    }
}

impl Tasks {
    pub(crate) fn new(runtime: &impl Runtime) -> Self {
        Self(Arc::new(runtime.clone()))
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(Box::pin(future));
    }

    pub(crate) fn now(&self) -> Instant {
        self.0.now()
    }

    /// `future`'s output; `None` once so much time has passed.
    pub(crate) async fn within<F: Future>(&self, time: Duration, future: F) -> Option<F::Output> {
        let (until, mut alarm) = (self.now() + time, self.alarm());
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => alarm.poll(cx, until).map(|()| None),
        })
        .await
    }

    pub(crate) fn alarm(&self) -> Alarm {
        Alarm { tasks: self.clone(), timer: None }
    }
}

/// A timer that is made once it is needed.
pub(crate) struct Alarm {
    tasks: Tasks,
    timer: Option<(Instant, Box<dyn Timer>)>,
}

impl Alarm {
    /// Ready once `at` has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if self.tasks.now() >= at {
            return Poll::Ready(());
        }
        let timer = match &mut self.timer {
            Some((set, timer)) => {
                if *set != at {
                    timer.reset(at);
                    *set = at;
                }
                timer
            }
            empty => &mut empty.insert((at, self.tasks.0.timer(at))).1,
        };
        timer.poll_expired(cx)
    }
}
