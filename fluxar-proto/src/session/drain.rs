//! Leaving in order: what both sides say of it, and how far it has come (§8.6).
//!
//! ```text
//!            drain                 sent              reply               nothing is open: `close`
//!  (none) ---------> ANNOUNCING ---------> WAITING ---------> ANSWERED -----------------------> (connection over)
//!                       ^  |                  |                  |                                  ^
//!      again, resumed   |  |                  |                  |                                  |
//!      -----------------+  +------------------+------------------+--- deadline: what is left is cut +
//! ```

use alloc::collections::VecDeque;
use alloc::string::String;
use core::time::Duration;

use super::error::Violation;
use crate::message::{Id, Item, Payload};
use crate::time::Instant;

/// So much of a reason is sent, and kept, in bytes.
const MAX_REASON: usize = 1024;

/// Longer than this no redirection is, in bytes: what is, is none.
const MAX_REDIRECT: usize = 2048;

/// So many replies to `drain` may wait: a side that repeats it without reading gets the latest only.
const REPLIES: usize = 8;

/// What a side says that is about to leave (§8.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drain {
    /// How long what is open may still go on; then it is cut. None: as long as the side that leaves likes.
    pub deadline: Option<Duration>,
    /// Why, for people. Of more than 1,024 bytes the first are told.
    pub reason: Option<String>,
    /// A URL where the other side may go on. One of more than 2,048 bytes is not told.
    pub redirect: Option<String>,
}

impl Drain {
    /// No deadline, no reason, no redirection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`deadline`](Self::deadline).
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets [`reason`](Self::reason).
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Sets [`redirect`](Self::redirect).
    #[must_use]
    pub fn with_redirect(mut self, url: impl Into<String>) -> Self {
        self.redirect = Some(url.into());
        self
    }

    fn within_bounds(mut self) -> Self {
        if let Some(reason) = &mut self.reason {
            reason.truncate(reason.floor_char_boundary(MAX_REASON));
            reason.shrink_to_fit();
        }
        self.redirect = self.redirect.filter(|url| url.len() <= MAX_REDIRECT);
        self
    }

    fn encode(&self) -> Payload {
        let texts = [("reason", &self.reason), ("redirect", &self.redirect)];
        let told = texts.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?)));
        Payload::build(|out| {
            out.map(u64::from(self.deadline.is_some()) + told.clone().count() as u64)?;
            if let Some(deadline) = self.deadline {
                out.str("deadline_ms")?.u64(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX))?;
            }
            for (key, text) in told {
                out.str(key)?.str(text)?;
            }
            Ok(())
        })
    }

    /// Reads what the opening `id` says. Its map is as strict as those of the handshake (§6.2).
    fn decode(id: Id, item: Item<'_>) -> Result<Self, Violation> {
        let bad = Violation::BadPayload(id);
        let mut drain = Self::default();
        for (key, value) in item.map().map_err(|_| bad)? {
            match key {
                "deadline_ms" => drain.deadline = Some(Duration::from_millis(value.as_u64().ok_or(bad)?)),
                "reason" => {
                    let reason = value.as_str().ok_or(bad)?;
                    let kept = reason.get(..reason.floor_char_boundary(MAX_REASON));
                    drain.reason = kept.map(String::from);
                }
                "redirect" => {
                    let url = Some(value.as_str().ok_or(bad)?);
                    drain.redirect = url.filter(|url| url.len() <= MAX_REDIRECT).map(String::from);
                }
                _ => {}
            }
        }
        Ok(drain)
    }
}

/// Both directions of it.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    ours: Option<Leaving>,
    theirs: Option<Drain>,
    replies: VecDeque<Id>,
}

#[derive(Debug)]
struct Leaving {
    drain: Drain,
    stage: Stage,
    until: Until,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Announcing,
    Waiting(Id),
    Answered,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// What is open may go on.
    Deadline(Instant),
    /// It was cut; what is to be said of that may still be sent.
    Gone(Instant),
}

/// What the time asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainDue {
    Nothing,
    /// What is open is to be cut.
    Cut,
    /// The connection is to be closed.
    Close,
}

impl Drains {
    /// This side is about to leave, or leaves under other circumstances now.
    pub(crate) fn begin(&mut self, now: Instant, drain: Drain, patience: Duration) {
        let until = Until::Deadline(now + drain.deadline.unwrap_or(patience));
        let drain = drain.within_bounds();
        match &mut self.ours {
            // It is too late for another deadline.
            Some(Leaving { until: Until::Gone(_), .. }) => {}
            ours => *ours = Some(Leaving { drain, stage: Stage::Announcing, until }),
        }
    }

    /// Whether this side is about to leave.
    pub(crate) fn ours(&self) -> bool {
        self.ours.is_some()
    }

    /// What the other side says that is about to leave.
    pub(crate) fn theirs(&self) -> Option<&Drain> {
        self.theirs.as_ref()
    }

    /// `drain` came. What it says.
    pub(crate) fn note(&mut self, id: Id, payload: Item<'_>) -> Result<Drain, Violation> {
        let drain = Drain::decode(id, payload)?;
        self.theirs = Some(drain.clone());
        if self.replies.len() >= REPLIES {
            self.replies.pop_front();
        }
        self.replies.push_back(id);
        Ok(drain)
    }

    /// A reply came: whether it was to our latest `drain`. An error in it makes no difference.
    pub(crate) fn note_reply(&mut self, reference: Id) -> bool {
        let stage = self.ours.as_mut().map(|ours| &mut ours.stage);
        let Some(stage) = stage.filter(|stage| **stage == Stage::Waiting(reference)) else { return false };
        *stage = Stage::Answered;
        true
    }

    pub(crate) fn wants_transmit(&self) -> bool {
        !self.replies.is_empty() || self.ours.as_ref().is_some_and(|ours| ours.stage == Stage::Announcing)
    }

    /// The next `drain` of the other side that is to be answered.
    pub(crate) fn poll_reply(&mut self) -> Option<Id> {
        self.replies.pop_front()
    }

    /// What our `drain` is to say, where it has not left yet; it leaves with the id that `next` makes.
    pub(crate) fn poll_announcement(
        &mut self,
        now: Instant,
        next: impl FnOnce() -> Id,
    ) -> Option<(Id, Drain)> {
        let ours = self.ours.as_mut().filter(|ours| ours.stage == Stage::Announcing)?;
        let id = next();
        ours.stage = Stage::Waiting(id);
        let mut drain = ours.drain.clone();
        if let (Some(deadline), Until::Deadline(at)) = (&mut drain.deadline, ours.until) {
            *deadline = at - now;
        }
        Some((id, drain))
    }

    /// Whether this side may go once nothing is open any more.
    pub(crate) fn may_go(&self) -> bool {
        let answered = |ours: &Leaving| ours.stage == Stage::Answered || matches!(ours.until, Until::Gone(_));
        self.ours.as_ref().is_some_and(answered)
    }

    /// Whether what was open has been cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.ours.as_ref().is_some_and(|ours| matches!(ours.until, Until::Gone(_)))
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.ours.as_ref().map(|ours| match ours.until {
            Until::Deadline(at) | Until::Gone(at) => at,
        })
    }

    /// What is due; after a cut there is so much time to say so.
    pub(crate) fn due(&mut self, now: Instant, farewell: Duration) -> DrainDue {
        let Some(ours) = &mut self.ours else { return DrainDue::Nothing };
        match ours.until {
            Until::Deadline(at) if now >= at => {
                ours.until = Until::Gone(now + farewell);
                DrainDue::Cut
            }
            Until::Gone(at) if now >= at => DrainDue::Close,
            _ => DrainDue::Nothing,
        }
    }

    /// The link is gone: what was asked over it is forgotten, and what was said may not have been heard (§9.7).
    pub(crate) fn unlinked(&mut self) {
        self.replies.clear();
        if let Some(ours) = &mut self.ours {
            ours.stage = Stage::Announcing;
        }
    }

    /// The session with the other side is over, and with the next one it begins anew.
    pub(crate) fn forget_theirs(&mut self) {
        self.theirs = None;
    }
}

/// The message that says it: as much of it as the other side takes, since the deadline matters more than the rest.
pub(crate) fn fit(drain: Drain, limit: usize, len: impl Fn(&Payload) -> usize) -> Payload {
    let shorter = [
        drain.clone(),
        Drain { reason: None, ..drain.clone() },
        Drain { reason: None, redirect: None, ..drain },
    ];
    let [.., last] = &shorter;
    let fitting = shorter.iter().map(Drain::encode).find(|payload| len(payload) <= limit);
    fitting.unwrap_or_else(|| last.encode())
}
