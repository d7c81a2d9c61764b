//! What becomes of calls whose session is lost, where the connection gets a fresh one (§9.9, §10.9).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::outbound::{Known, State};
use super::{CallId, Calls, Context, Ready, cost};
use crate::message::{Code, Error};
use crate::pattern::Entity;
use crate::session::ConnectionError;

impl Calls {
    /// The session is lost, and a fresh one is to come. Calls that were never sent wait for that; those that may be made
    /// again are queued ahead of them, in the order in which they were made; others fail. The peer's requests are
    /// withdrawn. How many calls have failed.
    pub(crate) fn renew(&mut self, why: &ConnectionError, cx: &mut Context<'_>) -> usize {
        self.withdraw_all(cx.open, |_| true);
        self.cancels.clear();
        let unsent = self.outbound.iter().filter(|(_, out)| matches!(out.state, State::Queued(_)));
        let unsent = unsent.map(|(_, out)| out.wire).collect::<BTreeSet<_>>();
        let sent = self.outbound.iter().filter(|(_, out)| matches!(out.state, State::Sent(_)));
        let mut sent = sent.map(|(slot, out)| CallId { slot, id: out.id }).collect::<Vec<_>>();
        sent.sort_unstable_by_key(|call| call.id);
        let queue = core::mem::take(&mut self.ready);
        self.over = 0;
        let mut lost = 0;
        // Once for all of them: the peer chooses how long it takes to put the cause into words.
        let mut errors = None;
        for call in sent {
            if !self.queue_again(call, cx) {
                let errors = errors.get_or_insert_with(|| [why.call_error(false), why.call_error(true)]);
                self.lose_call(call, errors, cx.open);
                lost += 1;
            }
        }
        for ready in queue {
            match ready {
                // What is to be said of a call goes with it.
                Ready::Update { reference, payload } if !unsent.contains(&reference) => {
                    self.queued_bytes -= cost(payload.len());
                }
                Ready::Call(call) if !self.is_queued(call) => {}
                // Withdrawn.
                Ready::Answer(_) => {}
                ready => self.ready.push_back(ready),
            }
        }
        self.relieve();
        lost
    }

    pub(super) fn is_queued(&self, call: CallId) -> bool {
        self.outbound.get(call.slot).is_some_and(|out| out.is_queued(call))
    }

    /// Queues a call that may be made again, by a new id: to the peer it is another one. False for other calls.
    fn queue_again(&mut self, call: CallId, cx: &mut Context<'_>) -> bool {
        let Some(out) = self.outbound.get_mut(call.slot) else { return false };
        let State::Sent(message) = &mut out.state else { return false };
        let Some(message) = message.take() else { return false };
        cx.open.remove(out.wire, Entity::CallOut(call.slot));
        out.wire = cx.ids.next(cx.now);
        out.repeated = true;
        // What it counts for in the queue was never given back.
        out.state = State::Queued(message);
        self.ready.push_back(Ready::Call(call));
        true
    }

    /// A session may have other limits than the one before, for which calls were queued. What is beyond them fails as it
    /// would if the peer refused it.
    pub(super) fn check_queued(&mut self) {
        let mut left = self.peer_max_calls;
        let mut failed = Vec::new();
        for ready in &self.ready {
            let Ready::Call(call) = ready else { continue };
            let Some(out) = self.outbound.get(call.slot).filter(|out| out.is_queued(*call)) else { continue };
            let State::Queued(message) = &out.state else { continue };
            let (len, limit) = (message.encoded_len(out.deadline.is_some()), self.peer_max_message);
            if len > limit {
                let message = alloc::format!("a call of {len} bytes, where the peer takes {limit}");
                failed.push((*call, Error::new(Code::MESSAGE_TOO_LARGE, message)));
            } else if left == 0 {
                failed.push((*call, Error::resource_exhausted("the peer takes fewer calls than before")));
            } else {
                left -= 1;
            }
        }
        for (call, error) in failed {
            let Some(out) = self.outbound.get(call.slot) else { continue };
            let State::Queued(message) = &out.state else { continue };
            let (len, known) = (message.queued_len(), out.in_flight());
            let error = if known == Some(Known::Never) { error.with_processed(false) } else { error };
            self.settle_call(call, Err(error));
            self.take_back(len);
        }
    }
}
