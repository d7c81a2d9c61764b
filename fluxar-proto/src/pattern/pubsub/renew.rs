//! What becomes of subscriptions and messages while there is no link (§12.8), and whose session is lost, where the
//! connection gets a fresh one (§9.9, §12.17).

use alloc::vec::Vec;

use super::desk::Notice;
use super::{Owner, PubSub, Qos};
use crate::message::{Code, Error};
use crate::pattern::{Context, OpenIds};
use crate::session::ConnectionError;
use crate::time::Instant;

impl PubSub {
    /// There is no link: no answer can come, and what was sent is kept to be sent again with the session. So no time counts
    /// for acknowledgements until it [goes on](Self::go_on).
    pub(crate) fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    /// There is a link again.
    pub(crate) fn go_on(&mut self, now: Instant) {
        let Some(since) = self.paused.take() else { return };
        let Self { publications, subscribers, desk, .. } = self;
        for (at, owner, slot) in core::mem::take(&mut desk.timers) {
            let until = at + (now - since);
            match owner {
                Owner::Publications => publications.sender.postpone(slot, until),
                Owner::Subscriber(subscriber) => {
                    let Some(subscriber) = subscribers.get_mut(subscriber) else { continue };
                    subscriber.sender.postpone(slot, until);
                }
            }
            desk.timers.insert((until, owner, slot));
        }
    }

    /// The session is lost, and a fresh one is to come. Publications that are not settled are sent again there, and
    /// subscriptions of ours are subscribed again. What is the peer's ends. How many subscriptions may miss something.
    pub(crate) fn renew(&mut self, why: &ConnectionError, cx: &mut Context<'_>) -> usize {
        self.paused = None;
        self.desk.holds_back = false;
        let Self { publications, receiver, inbox, subscriptions, subscribers, desk, .. } = self;
        if !subscribers.is_empty() {
            let error = why.call_error(true);
            for (_, subscriber) in subscribers.iter_mut() {
                if subscriber.is_open() {
                    subscriber.over(&error, desk, cx.open);
                }
                subscriber.forget(cx.open);
            }
            subscribers.clear();
        }
        receiver.clear(cx.open);
        inbox.retain(|publication| publication.qos == Qos::AtMostOnce);
        desk.renew();
        publications.renew(why, desk, cx.open);
        let mut again = Vec::new();
        let mut lost = 0;
        for (_, subscription) in subscriptions.iter_mut() {
            let unsent = subscription.is_unsent();
            if subscription.renew(cx) {
                lost += usize::from(!unsent);
                again.push(subscription.subscription());
            }
        }
        subscriptions.retain(|_, subscription| !subscription.is_done());
        again.sort_unstable_by_key(|subscription| subscription.id);
        desk.notices.extend(again.into_iter().map(Notice::Subscribe));
        lost
    }

    /// A session may have other limits than the one before: subscriptions that it cannot have end.
    pub(super) fn check_queued(&mut self, open: &mut OpenIds) {
        let Self { on, peer_max_message, subscriptions, desk, .. } = self;
        for (_, subscription) in subscriptions.iter_mut().filter(|(_, subscription)| subscription.is_unsent())
        {
            let off = || {
                let error = Error::new(Code::UNIMPLEMENTED, "subscriptions are not negotiated any more");
                error.with_processed(false)
            };
            let problem = if *on { subscription.check_queued(*peer_max_message) } else { Some(off()) };
            if problem.is_some() {
                subscription.over(problem, desk, open);
            }
        }
    }
}
