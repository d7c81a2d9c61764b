//! How a subscription stands: what its handles want to know, also when it is over.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use fluxar_proto::{Error, Qos, QueueStats};

use crate::line::Line;

/// How one subscription stands. Nothing of the application's runs under its lock, and no other lock is taken under it.
#[derive(Default)]
pub(crate) struct Standing(Mutex<State>);

#[derive(Default)]
struct State {
    granted: Option<Qos>,
    /// It is over, and why, where it was not this side that ended it.
    over: Option<Option<Error>>,
    /// What its queue had counted when it ended.
    last: QueueStats,
    watchers: Line,
}

/// Somebody waits for a change.
struct Watch<'a> {
    standing: &'a Standing,
    ticket: Option<u64>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let _left = self.ticket.and_then(|ticket| self.standing.lock().watchers.leave(ticket));
    }
}

impl Standing {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// The publisher has confirmed.
    pub(crate) fn confirm(&self, granted: Qos, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        state.granted = Some(granted);
        state.watchers.call_all(wakers);
    }

    /// It is over. What was said first is the reason.
    pub(crate) fn end(&self, error: Option<Error>, last: QueueStats, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        if state.over.is_none() {
            state.over = Some(error);
            state.last = last;
        }
        state.watchers.call_all(wakers);
    }

    /// What was granted, once it is confirmed.
    pub(crate) fn granted(&self) -> Option<Qos> {
        self.lock().granted
    }

    /// What its queue had counted, once it is over.
    pub(crate) fn last(&self) -> Option<QueueStats> {
        let state = self.lock();
        state.over.is_some().then_some(state.last)
    }

    /// Why it is over, where it is, and somebody else has ended it.
    pub(crate) fn error(&self) -> Option<Error> {
        self.lock().over.clone().flatten()
    }

    /// Waits for the confirmation.
    pub(crate) async fn confirmed(&self) -> Result<(), Error> {
        self.watch(|state| match (&state.over, state.granted) {
            (Some(error), _) => {
                Some(Err(error.clone().unwrap_or_else(|| Error::cancelled("the subscription was ended"))))
            }
            (None, granted) => granted.map(|_| Ok(())),
        })
        .await
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Option<Error> {
        self.watch(|state| state.over.clone()).await
    }

    async fn watch<T>(&self, mut seen: impl FnMut(&State) -> Option<T>) -> T {
        let mut watch = Watch { standing: self, ticket: None };
        poll_fn(|cx| {
            let _replaced;
            let mut state = self.lock();
            if let Some(seen) = seen(&state) {
                return Poll::Ready(seen);
            }
            _replaced = state.watchers.wait(&mut watch.ticket, cx);
            Poll::Pending
        })
        .await
    }
}
