//! What a connection needs whether it has a link or not: what has happened is followed up, and its time is kept.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fluxar_proto::ConnectionError;

use crate::auth;
use crate::handler::Router;
use crate::hub::Hub;
use crate::shared::{Chores, Shared};
use crate::tasks::Alarm;

/// Why a connection has ended whose task did not.
pub(crate) const STOPPED: &str = "the connection's task was stopped";

/// Follows up what happens to a connection. Whoever drives it has one: the driver of its link or, while there is none,
/// [`Detached`].
pub(crate) struct Upkeep {
    pub(crate) shared: Arc<Shared>,
    router: Router,
    /// Where what the peer publishes goes, and what it subscribes to comes from. Whoever drives the connection alone keeps
    /// it, so that no handle does.
    hub: Hub,
    pub(crate) chores: Chores,
}

impl Upkeep {
    pub(crate) fn new(shared: Arc<Shared>, router: Router, hub: Hub) -> Self {
        Self { shared, router, hub, chores: Chores::default() }
    }

    /// Wakes and starts what has come up, without the lock. Whether there was anything.
    pub(crate) fn do_chores(&mut self) -> bool {
        let chores = &self.chores;
        let busy = !chores.wakers.is_empty()
            || !chores.requests.is_empty()
            || !chores.streams.is_empty()
            || !chores.for_hub.is_empty()
            || !chores.renewals.is_empty();
        self.chores.wakers.drain(..).for_each(Waker::wake);
        for request in self.chores.requests.drain(..) {
            self.router.dispatch(self.shared.request(request));
        }
        for opening in self.chores.streams.drain(..) {
            self.router.dispatch_stream(self.shared.stream_request(opening));
        }
        for (id, auth) in self.chores.renewals.drain(..) {
            auth::renew(&self.shared, id, auth);
        }
        self.run_hub();
        busy
    }

    /// Has what was published and subscribed to handled.
    fn run_hub(&mut self) {
        self.hub.refuse(&self.shared, &mut self.chores.for_hub);
        if let Some(keeper) = self.shared.keeper() {
            keeper.take(&self.shared, &mut self.chores.for_hub);
        }
        self.hub.run(&self.shared, &mut self.chores.for_hub);
    }

    /// Ends the connection, unless it has ended; there is no link any more, or none that will be driven.
    pub(crate) fn end(&mut self, why: &ConnectionError) {
        let now = self.shared.clock().now();
        let mut state = self.shared.lock();
        // Where there is a link it is lost first; without one it is the end.
        while state.connection.error().is_none() {
            state.connection.abort(now, why.clone());
        }
        state.drain_events(&mut self.chores);
        state.unlink(&mut self.chores);
        drop(state);
        self.wind_up();
    }

    /// What is left to do where the task goes down: wakes who waits, and starts nothing.
    pub(crate) fn wind_up(&mut self) {
        self.chores.wakers.drain(..).for_each(Waker::wake);
        self.run_hub();
    }
}

/// Whoever is to keep a connection over the end of its links has a share of one of these: once the last is dropped, as when
/// the runtime goes down, nobody drives the connection any more, and it ends.
pub(crate) struct Hold(Upkeep);

impl Hold {
    pub(crate) fn new(upkeep: Upkeep) -> Self {
        Self(upkeep)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.end(&ConnectionError::Transport(STOPPED.into()));
    }
}

/// How the task of a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The connection is over.
    Over,
    /// Another link has taken its place.
    Replaced,
    /// The link is lost, and the session waits for another one: under this number, until one is there.
    Lost(u64),
}

/// Keeps a connection that has no link: its deadlines go on running (§9.7), and what its application does is followed up.
///
/// Ready with `true` once there is a link again, and with `false` once the connection is over.
pub(crate) struct Detached {
    upkeep: Upkeep,
    /// The number under which it waits.
    number: u64,
    alarm: Alarm,
}

impl Detached {
    pub(crate) fn new(upkeep: Upkeep, number: u64) -> Self {
        let alarm = upkeep.shared.tasks().alarm();
        Self { upkeep, number, alarm }
    }
}

impl Future for Detached {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let Self { upkeep, number, alarm } = &mut *self;
        let now = upkeep.shared.clock().now();
        let mut state = upkeep.shared.lock();
        if state.connection.link() != *number {
            return Poll::Ready(true);
        }
        if state.connection.poll_timeout().is_some_and(|at| at <= now) {
            // Sticky: the end is noticed below.
            state.connection.handle_timeout(now).ok();
        }
        state.drain_events(&mut upkeep.chores);
        let in_line = state.expire_queue(now, &mut upkeep.chores);
        let over = state.connection.error().is_some();
        if over {
            state.unlink(&mut upkeep.chores);
        }
        state.arm(cx);
        let deadline = [state.connection.poll_timeout(), in_line].into_iter().flatten().min();
        drop(state);
        upkeep.do_chores();
        if over {
            return Poll::Ready(false);
        }
        if deadline.is_some_and(|at| alarm.poll(cx, upkeep.shared.clock().to_runtime(at)).is_ready()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
