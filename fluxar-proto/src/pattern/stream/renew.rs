//! What becomes of streams whose session is lost, where the connection gets a fresh one (§8.8, §9.9).

use alloc::vec::Vec;

use super::{Phase, Stream, StreamId, Streams};
use crate::message::{Code, Error, Kind, key};
use crate::pattern::OpenIds;
use crate::pattern::opening::Opening;
use crate::session::ConnectionError;

impl Streams {
    /// The session is lost, and a fresh one is to come. Streams that were never opened to the peer wait for that, with what
    /// was queued on them; all others end. How many of these neither side had given up.
    pub(crate) fn renew(&mut self, why: &ConnectionError, open: &mut OpenIds) -> usize {
        let active = |stream: &Stream| matches!(stream.phase, Phase::Active);
        let lost = self.streams.iter().filter(|(_, stream)| active(stream)).count();
        self.lose(why, open, |stream| !stream.is_idle());
        self.urgent.clear();
        let Self { bulk, streams, .. } = self;
        bulk.retain(|id| streams.get(id.slot).is_some_and(|stream| stream.id == *id && stream.is_idle()));
        lost
    }

    /// A session may have other limits than the one before, for which streams were queued. What is beyond them ends as it
    /// would if the peer refused it.
    pub(super) fn check_queued(&mut self, former_max_message: u32) {
        let mut left = self.peer_max_streams;
        let queued = self.bulk.iter().copied().filter(|id| self.get(*id).is_some_and(Stream::is_idle));
        for id in queued.collect::<Vec<_>>() {
            match self.check_one(id, left, former_max_message) {
                Some(error) => self.end_unsent(id, error.with_processed(false)),
                None => left = left.saturating_sub(1),
            }
        }
    }

    /// Sets a queued stream up for the session, or says why it cannot be opened.
    fn check_one(&mut self, id: StreamId, left: usize, former_max_message: u32) -> Option<Error> {
        let (on, window, limit) = (self.on, self.peer_window, self.peer_max_message);
        let stream = self.get_mut(id)?;
        let Phase::Idle { method, meta, payload } = &stream.phase else { return None };
        if !on {
            return Some(Error::new(Code::UNIMPLEMENTED, "streams are not negotiated any more"));
        }
        if left == 0 {
            return Some(Error::resource_exhausted("the peer takes fewer streams than before"));
        }
        let opening = Opening { kind: Kind::Stream, target: method, meta, payload };
        // It was checked when it was handed in; its window is in its metadata by now.
        let len = opening.check(&[(key::TIMEOUT_MS, stream.deadline.is_some())]).unwrap_or(usize::MAX);
        let limit = limit as usize;
        let fits = limit >= former_max_message as usize || len <= limit && stream.sending.fits(limit);
        if !fits {
            let message =
                alloc::format!("queued for messages of more than {limit} bytes, which the peer takes");
            return Some(Error::new(Code::MESSAGE_TOO_LARGE, message));
        }
        stream.sending.restart(window, limit);
        None
    }

    /// A stream ends that the peer does not know of.
    fn end_unsent(&mut self, id: StreamId, error: Error) {
        let Some(stream) = self.get_mut(id) else { return };
        stream.receiving.fail(error);
        self.shut(id);
    }
}
