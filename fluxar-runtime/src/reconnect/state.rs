//! What an application sees of its connection's coming and going.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fluxar_proto::ConnectionError;
use futures_util::stream::FusedStream;

use crate::line::Line;

/// How many changes are kept for those who are slow to take them.
const KEPT: usize = 256;

/// How a client's connection stands.
///
/// ```text
///  Connected --link lost--> Reconnecting --session resumed--> Resumed
///      ^                     |        |
///      +---- fresh session --+        +-- given up, refused --> Closed
///             (after Lost)
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// There is a link, and a session that is new.
    Connected,
    /// There is no link; one is awaited. What is called, opened and published meanwhile waits.
    Reconnecting {
        /// Which attempt since the link was lost it is, from 1.
        attempt: u32,
        /// How long it waits before that attempt.
        next: Duration,
    },
    /// There is a link again, and the session has gone on as if nothing had happened (§9).
    Resumed {
        /// How many messages were sent again.
        resent: u64,
    },
    /// The session is lost (§9.9); the client goes on with a fresh one, once it has one. Subscriptions and messages that
    /// were not acknowledged go on in it, and so do calls that are [idempotent](crate::Call::idempotent).
    Lost {
        /// How many calls have failed for it.
        calls: usize,
        /// How many streams have ended for it.
        streams: usize,
        /// How many subscriptions were interrupted: what was published meanwhile may be missing.
        subscriptions: usize,
    },
    /// It is over. The last state of all.
    Closed {
        /// Why.
        why: ConnectionError,
    },
}

impl State {
    /// Whether there is a link.
    ///
    /// ```
    /// # use fluxar_runtime::State;
    /// assert!(State::Connected.is_connected() && State::Resumed { resent: 0 }.is_connected());
    /// assert!(!State::Lost { calls: 1, streams: 0, subscriptions: 0 }.is_connected());
    /// ```
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected | Self::Resumed { .. })
    }
}

/// The changes of one connection's state, for all who look. Nothing of the application's runs under its lock, and no other
/// lock is taken under it.
pub(crate) struct Journal(Mutex<Entries>);

struct Entries {
    /// The latest changes.
    kept: VecDeque<State>,
    /// How many there were before them.
    gone: u64,
    now: State,
    watchers: Line,
}

impl Journal {
    /// Of a connection that has just come about.
    pub(crate) fn new() -> Arc<Self> {
        let (kept, watchers) = (VecDeque::new(), Line::default());
        Arc::new(Self(Mutex::new(Entries { kept, gone: 0, now: State::Connected, watchers })))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Notes a change, and who is to be woken for it. What comes after the end is not noted.
    pub(crate) fn note(&self, state: State, wakers: &mut Vec<Waker>) {
        let mut entries = self.lock();
        if matches!(entries.now, State::Closed { .. }) {
            return;
        }
        if entries.kept.len() == KEPT {
            entries.kept.pop_front();
            entries.gone += 1;
        }
        entries.kept.push_back(state.clone());
        entries.now = state;
        entries.watchers.call_all(wakers);
    }

    /// How it stands.
    pub(crate) fn now(&self) -> State {
        self.lock().now.clone()
    }

    /// What changes from now on.
    pub(crate) fn states(self: &Arc<Self>) -> States {
        let entries = self.lock();
        let next = entries.gone + entries.kept.len() as u64;
        let first = Some(entries.now.clone());
        drop(entries);
        States { journal: self.clone(), first, next, missed: 0, over: false, ticket: None }
    }
}

/// How a client's connection stands, and every change of it from then on, in order: a
/// [`futures` stream](futures_util::Stream) of [`State`]s. It begins with the state at the moment it was made, and ends
/// after [`State::Closed`].
///
/// The latest 256 changes are kept for whoever is slow; of those who are slower still, the oldest are dropped, and
/// [counted](Self::missed).
///
/// ```no_run
/// # async fn doc<R: fluxar_runtime::Runtime>(client: fluxar_runtime::Client<R>) {
/// use fluxar_runtime::State;
///
/// let mut states = client.states();
/// while let Some(state) = states.next().await {
///     match state {
///         State::Reconnecting { attempt, next } => eprintln!("attempt {attempt} in {next:?}"),
///         State::Lost { calls, .. } => eprintln!("{calls} calls have failed"),
///         state => eprintln!("{state:?}"),
///     }
/// }
/// # }
/// ```
pub struct States {
    journal: Arc<Journal>,
    /// The state at the beginning is still to be told.
    first: Option<State>,
    /// The number of the next change.
    next: u64,
    missed: u64,
    over: bool,
    ticket: Option<u64>,
}

impl States {
    /// The next state; `None` once [`State::Closed`] was taken.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no state is lost.
    pub async fn next(&mut self) -> Option<State> {
        poll_fn(|cx| self.poll_state(cx)).await
    }

    /// How many changes came too fast to be kept for this one.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    fn poll_state(&mut self, cx: &mut Context<'_>) -> Poll<Option<State>> {
        // Dropped after the lock.
        let _replaced;
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(self.tell(first)));
        }
        let mut entries = self.journal.lock();
        if self.next < entries.gone {
            self.missed += entries.gone - self.next;
            self.next = entries.gone;
        }
        let index = usize::try_from(self.next - entries.gone).unwrap_or(usize::MAX);
        let Some(state) = entries.kept.get(index).cloned() else {
            _replaced = entries.watchers.wait(&mut self.ticket, cx);
            return Poll::Pending;
        };
        drop(entries);
        self.next += 1;
        Poll::Ready(Some(self.tell(state)))
    }

    fn tell(&mut self, state: State) -> State {
        self.over = matches!(state, State::Closed { .. });
        state
    }
}

impl Drop for States {
    fn drop(&mut self) {
        let _left = self.ticket.and_then(|ticket| self.journal.lock().watchers.leave(ticket));
    }
}

impl futures_util::Stream for States {
    type Item = State;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<State>> {
        self.poll_state(cx)
    }
}

impl FusedStream for States {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States")
            .field("missed", &self.missed)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(journal: &Journal, state: State) {
        let mut wakers = Vec::new();
        journal.note(state, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll(states: &mut States) -> Poll<Option<State>> {
        states.poll_state(&mut Context::from_waker(Waker::noop()))
    }

    fn resumed(resent: u64) -> State {
        State::Resumed { resent }
    }

    fn closed() -> State {
        State::Closed { why: ConnectionError::ClosedLocally(None) }
    }

    // spec: §9.7
    #[test]
    fn who_looks_sees_the_state_as_it_is_and_then_every_change_in_order() {
        let journal = Journal::new();
        note(&journal, resumed(1));
        let mut states = journal.states();
        note(&journal, resumed(2));
        note(&journal, resumed(3));
        for resent in 1..=3 {
            assert_eq!(poll(&mut states), Poll::Ready(Some(resumed(resent))));
        }
        assert_eq!(poll(&mut states), Poll::Pending);
        assert_eq!(journal.now(), resumed(3));
    }

    #[test]
    fn whoever_waits_is_woken_and_whoever_gives_up_is_forgotten() {
        let journal = Journal::new();
        let (mut one, mut other) = (journal.states(), journal.states());
        for states in [&mut one, &mut other] {
            assert_eq!(poll(states), Poll::Ready(Some(State::Connected)));
            assert_eq!(poll(states), Poll::Pending);
        }
        drop(one);
        let mut wakers = Vec::new();
        journal.note(resumed(0), &mut wakers);
        assert_eq!(wakers.len(), 1);
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let journal = Journal::new();
        let mut states = journal.states();
        note(&journal, closed());
        note(&journal, State::Connected);
        assert_eq!(journal.now(), closed());
        assert_eq!(poll(&mut states), Poll::Ready(Some(State::Connected)));
        assert_eq!(poll(&mut states), Poll::Ready(Some(closed())));
        assert!(states.is_terminated());
        assert_eq!(poll(&mut states), Poll::Ready(None));
        let mut late = journal.states();
        assert_eq!(poll(&mut late), Poll::Ready(Some(closed())));
        assert_eq!(poll(&mut late), Poll::Ready(None));
    }

    #[test]
    fn of_those_that_come_too_fast_the_oldest_go_and_are_counted() {
        let journal = Journal::new();
        let mut states = journal.states();
        assert_eq!(poll(&mut states), Poll::Ready(Some(State::Connected)));
        let all = KEPT as u64 + 10;
        (0..all).for_each(|resent| note(&journal, resumed(resent)));
        for resent in 10..all {
            assert_eq!(poll(&mut states), Poll::Ready(Some(resumed(resent))));
        }
        assert_eq!((poll(&mut states), states.missed()), (Poll::Pending, 10));
    }
}
