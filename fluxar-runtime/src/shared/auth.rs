//! Credentials, in what handles and driver of a connection share.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use fluxar_proto::{Auth, ConnectionError, Payload};

use super::{Chores, Shared, State};

/// What the peer asks this side to show.
#[derive(Default)]
pub(super) struct Asked {
    /// On which link, and what it calls for.
    challenge: Option<(u64, Payload)>,
}

impl Shared {
    /// The next challenge, and the number of the link that it came on; `None` once the connection has ended.
    pub(crate) async fn challenged(&self) -> Option<(u64, Payload)> {
        self.watch(|state| {
            let over = state.connection.error().is_some();
            let challenge = state.asked.challenge.take();
            (over || challenge.is_some()).then_some(challenge)
        })
        .await
    }

    /// Answers the challenge that came on a link, which may be gone.
    pub(crate) fn prove(&self, link: u64, auth: Option<Auth>) -> Result<(), ConnectionError> {
        let now = self.clock().now();
        self.operate(|state| match state.connection.link() == link {
            true => state.connection.prove(now, auth).map(drop),
            false => Ok(()),
        })
    }

    /// `future`'s output; `None` where the connection has ended before.
    pub(crate) async fn while_open<F: Future>(&self, future: F) -> Option<F::Output> {
        let (mut future, mut ended) = (pin!(future), pin!(self.ended()));
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => ended.as_mut().poll(cx).map(|_| None),
        })
        .await
    }
}

impl State {
    pub(super) fn handle_challenge(&mut self, challenge: Payload, chores: &mut Chores) {
        self.asked.challenge = Some((self.connection.link(), challenge));
        self.watchers.call_all(&mut chores.wakers);
    }
}
