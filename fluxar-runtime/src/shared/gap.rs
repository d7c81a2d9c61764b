//! Links that come and go, in what handles and driver share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fluxar_proto::{ConnectionError, Dial, Drain, Lost};

use super::{Chores, ForHub, Shared, State};
use crate::reconnect::{Journal, State as Told};

/// What is known of the links of a connection.
#[derive(Default)]
pub(super) struct Gaps {
    /// Where the application learns of it, where there is one that wants to.
    journal: Option<Arc<Journal>>,
    /// Whether somebody brings another link when one is lost.
    comes_back: bool,
    /// Why there is no link.
    why: Option<ConnectionError>,
    /// The link has got beyond the handshake.
    stood: bool,
    /// Where the peer has said that one may go on.
    redirect: Option<String>,
}

/// Between two links.
#[derive(Debug)]
pub(crate) struct Gap {
    /// Why the last one is gone.
    pub(crate) why: ConnectionError,
    /// It had got beyond the handshake.
    pub(crate) stood: bool,
    /// Where the peer has said that one may go on.
    pub(crate) redirect: Option<String>,
}

impl Gaps {
    pub(super) fn report(&self, told: Told, chores: &mut Chores) {
        if let Some(journal) = &self.journal {
            journal.note(told, &mut chores.wakers);
        }
    }
}

impl Shared {
    /// Has what becomes of the connection noted; `comes_back` says whether somebody brings another link when one is lost.
    pub(crate) fn report_to(&self, journal: Arc<Journal>, comes_back: bool) {
        let mut state = self.lock();
        state.gaps.journal = Some(journal);
        state.gaps.comes_back = comes_back;
        self.comes_back.store(comes_back, Ordering::Relaxed);
    }

    /// Whether what the peer has refused only because it is about to leave waits for whoever is next.
    pub(crate) fn moves_on(&self) -> bool {
        self.guard().moves_on()
    }

    /// Whether somebody brings another link when one is lost.
    pub(crate) fn comes_back(&self) -> bool {
        self.comes_back.load(Ordering::Relaxed)
    }

    /// Notes what becomes of the connection, where the connection itself does not know.
    pub(crate) fn report(&self, told: Told) {
        let mut chores = Chores::default();
        self.lock().gaps.report(told, &mut chores);
        chores.wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// Why there is no link; `None` where there is one, or that was asked before.
    pub(crate) fn take_gap(&self) -> Option<Gap> {
        let mut state = self.lock();
        let Gaps { why, stood, redirect, .. } = &mut state.gaps;
        Some(Gap { why: why.take()?, stood: std::mem::take(stood), redirect: redirect.take() })
    }

    /// There is a link again, to the peer at `remote`, which the application has named or not. Whether the connection has use
    /// for it.
    ///
    /// # Errors
    ///
    /// Where what is to be shown must not be sent over it.
    pub(crate) fn attach(&self, remote: String, is_own: bool, dial: Dial) -> Result<bool, ConnectionError> {
        let now = self.clock().now();
        let mut state = self.lock();
        let wanted = state.connection.reconnect(now, dial)?;
        if wanted {
            state.remote = remote;
            state.meet(!is_own);
        }
        Ok(wanted)
    }

    /// Waits until there is a session over a link.
    ///
    /// # Errors
    ///
    /// Where the connection has ended.
    pub(crate) async fn attached(&self) -> Result<(), ConnectionError> {
        self.watch(|state| match state.connection.error() {
            Some(error) => Some(Err(error.clone())),
            None if state.connection.is_detached() || state.connection.is_handshaking() => None,
            None => Some(Ok(())),
        })
        .await
    }
}

impl State {
    /// There is a session, which may not be the first.
    pub(super) fn handle_established(&mut self, chores: &mut Chores) {
        self.gaps.stood = true;
        self.gaps.redirect = None;
        self.gaps.report(Told::Connected, chores);
        self.call_servant(chores);
        self.watchers.call_all(&mut chores.wakers);
        // Those who were turned away in the session before, or between the two.
        self.serve_calls(&mut chores.wakers);
        self.serve_streams(&mut chores.wakers);
        self.queue.serve_updates(&mut chores.wakers);
        self.queue.serve_publications(&mut chores.wakers);
    }

    /// Whether what cannot be opened now, since the peer is about to leave, waits for the session with whoever is next.
    pub(crate) fn moves_on(&self) -> bool {
        self.gaps.comes_back && self.connection.peer_draining().is_some() && !self.connection.is_draining()
    }

    pub(super) fn handle_detached(&mut self, why: ConnectionError, chores: &mut Chores) {
        self.fail_pings(&why, chores);
        self.gaps.why = Some(why);
        self.watchers.call_all(&mut chores.wakers);
    }

    /// Nobody will answer what was asked on the link that is gone (§9.7).
    fn fail_pings(&mut self, why: &ConnectionError, chores: &mut Chores) {
        for pinging in &mut self.pings {
            pinging.end(Err(why.call_error(true).into_outcome()), chores);
        }
    }

    pub(super) fn handle_resumed(&mut self, resent: usize, chores: &mut Chores) {
        // There need not have been a gap: the new link may have taken over (§9.8).
        self.fail_pings(&ConnectionError::LinkLost { unread: 0 }, chores);
        self.gaps.stood = true;
        self.gaps.report(Told::Resumed { resent: resent as u64 }, chores);
        self.call_servant(chores);
        self.watchers.call_all(&mut chores.wakers);
    }

    /// The peer is about to leave.
    pub(super) fn handle_draining(&mut self, drain: Drain, chores: &mut Chores) {
        self.gaps.redirect = drain.redirect;
        self.watchers.call_all(&mut chores.wakers);
    }

    /// The session is over, but not the connection.
    pub(super) fn handle_lost(&mut self, lost: &Lost, chores: &mut Chores) {
        let Lost { calls, streams, subscriptions, .. } = *lost;
        self.gaps.report(Told::Lost { calls, streams, subscriptions }, chores);
        self.withdraw_streams(&mut chores.wakers);
        chores.for_hub.push(ForHub::Lost);
    }
}
