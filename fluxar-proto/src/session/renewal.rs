//! Credentials that are renewed while a session goes on (§8.5): what has been asked on both sides, and what is to be said.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::auth::Auth;
use super::error::HelloError;
use crate::message::{Error, Id, Item, Payload};

/// So many renewals may wait for their answer at once, on each side.
const WAITING: usize = 4;

/// How a renewal ends: how long the new credentials last, where that is limited, or why they are refused.
pub(crate) type Verdict = Result<Option<Duration>, Error>;

/// The renewals of one link.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    /// Ours that are still to be sent.
    queued: VecDeque<(Id, Auth)>,
    /// Ours without an answer, sent or not.
    asked: Vec<Id>,
    /// The peer's that wait for a verdict.
    judged: Vec<Id>,
    /// The verdicts on the peer's that are still to be sent.
    verdicts: VecDeque<(Id, Verdict)>,
}

impl Renewals {
    /// Whether there may be one more of ours.
    pub(crate) fn has_room(&self) -> bool {
        self.asked.len() < WAITING
    }

    /// We ask.
    pub(crate) fn ask(&mut self, id: Id, auth: Auth) {
        self.asked.push(id);
        self.queued.push_back((id, auth));
    }

    /// Whether the message answers one of ours. That one is over then.
    pub(crate) fn take_asked(&mut self, id: Id) -> bool {
        let before = self.asked.len();
        self.asked.retain(|asked| *asked != id);
        self.asked.len() < before
    }

    /// The peer asks. `false`: it has asked so often that this is one too many.
    pub(crate) fn note(&mut self, id: Id) -> bool {
        let room = self.judged.len() + self.verdicts.len() < WAITING;
        if room {
            self.judged.push(id);
        }
        room
    }

    /// There is a verdict. Whether the peer still waits for it.
    pub(crate) fn judge(&mut self, id: Id, verdict: Verdict) -> bool {
        let before = self.judged.len();
        self.judged.retain(|judged| *judged != id);
        let waits = self.judged.len() < before;
        if waits {
            self.verdicts.push_back((id, verdict));
        }
        waits
    }

    pub(crate) fn wants_transmit(&self) -> bool {
        !self.queued.is_empty() || !self.verdicts.is_empty()
    }

    /// The next verdict to be sent.
    pub(crate) fn poll_verdict(&mut self) -> Option<(Id, Verdict)> {
        self.verdicts.pop_front()
    }

    /// The next of ours to be sent.
    pub(crate) fn poll_queued(&mut self) -> Option<(Id, Auth)> {
        self.queued.pop_front()
    }

    /// The link is gone, and with it all of them: ours that got no answer, and the peer's.
    pub(crate) fn forget(&mut self) -> (Vec<Id>, Vec<Id>) {
        let Self { queued: _, asked, mut judged, verdicts } = core::mem::take(self);
        judged.extend(verdicts.into_iter().map(|(id, _)| id));
        (asked, judged)
    }
}

/// What is answered to credentials that are accepted.
pub(crate) fn encode_reply(lasts_ms: Option<u64>) -> Payload {
    let Some(ms) = lasts_ms else { return Payload::null() };
    Payload::build(|out| out.map(1)?.str("auth_expires_ms")?.u64(ms)?.ok())
}

/// How long credentials last that were accepted; none: without end.
pub(crate) fn decode_reply(item: Item<'_>) -> Result<Option<Duration>, HelloError> {
    if item.is_null() {
        return Ok(None);
    }
    let found = item.map()?.find(|(key, _)| *key == "auth_expires_ms");
    let Some((_, value)) = found else { return Ok(None) };
    let ms = value.as_u64().ok_or(HelloError::Invalid("auth_expires_ms"))?;
    Ok(Some(Duration::from_millis(ms)))
}
