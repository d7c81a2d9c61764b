//! What comes for streams.

use bytes::Bytes;

use super::receiving::Receiving;
use super::sending::Sending;
use super::{Due, Last, Phase, Stream, StreamEvent, StreamId, StreamOpening, Streams};
use crate::message::{Code, Envelope, Error, Kind, key, verb};
use crate::pattern::opening::{held_bytes, meta_bytes, target_of, timeout_of};
use crate::pattern::received::held_payload_of;
use crate::pattern::{Context, Entity, OpenIds, Withdrawn};
use crate::session::{ConnectionError, Violation};

impl Streams {
    /// A message of type stream came.
    pub(crate) fn handle(
        &mut self,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let Some(reference) = envelope.reference else { return self.handle_opening(envelope, frame, cx) };
        let slot = match cx.open.get(reference) {
            Some(Entity::Stream(slot)) => slot,
            Some(_) => return Err(Violation::WrongRole(reference).into()),
            None => {
                // Late cancels cost as much work as those in time (§10.7).
                if envelope.target == Some(verb::CANCEL) {
                    cx.budget.charge(cx.now)?;
                }
                self.stats.late += 1;
                return Ok(());
            }
        };
        let id = StreamId { slot, id: reference };
        let Some(stream) = self.get(id) else { return Ok(()) };
        if stream.is_ending() {
            return self.handle_late(id, envelope, cx);
        }
        match envelope.target {
            None | Some(verb::ITEMS) => self.handle_data(id, envelope, frame, cx.open)?,
            Some(verb::END) => self.handle_end(id, envelope, frame, cx.open)?,
            Some(verb::CANCEL) => {
                cx.budget.charge(cx.now)?;
                self.handle_cancel(id, envelope, cx.open);
            }
            Some(verb::PAUSE) => self.handle_pause(id, envelope, true)?,
            Some(verb::RESUME) => self.handle_pause(id, envelope, false)?,
            Some(verb::CREDIT) => self.handle_credit(id, envelope)?,
            Some(_) => self.stats.late += 1,
        }
        Ok(())
    }

    fn handle_opening(
        &mut self,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let (timeout, credit) = match self.admit(envelope, frame) {
            Ok(admitted) => admitted,
            Err(error) => return cx.refuse(Kind::Stream, envelope.id, error),
        };
        let deadline =
            timeout.into_iter().chain(self.limits.max_deadline).min().map(|timeout| cx.now + timeout);
        let bytes = held_bytes(envelope, frame);
        let entry = self.streams.vacant_entry();
        let id = StreamId { slot: entry.key(), id: envelope.id };
        entry.insert(Stream {
            id,
            phase: Phase::Active,
            ours: false,
            sending: Sending::new(credit, self.peer_max_message as usize),
            receiving: Receiving::new(self.limits.window),
            deadline,
            due: Due::default(),
            in_bulk: false,
            in_urgent: false,
            bytes,
            released: (false, false),
            withdrawn: false,
        });
        cx.open.insert(id.id, Entity::Stream(id.slot));
        self.open.1 += 1;
        self.opening_bytes += bytes;
        self.stats.served += 1;
        if let Some(at) = deadline {
            self.deadlines.insert((at, id));
        }
        self.events.push_back(StreamEvent::Opened(StreamOpening {
            id,
            method: target_of(envelope, frame),
            meta: meta_bytes(envelope.meta),
            payload: crate::message::Payload::trusted(frame.slice_ref(envelope.payload.as_bytes())),
            deadline,
        }));
        Ok(())
    }

    /// How long the opener waits, and what it takes at the beginning; or why the stream cannot be taken.
    fn admit(
        &self,
        envelope: &Envelope<'_>,
        frame: &Bytes,
    ) -> Result<(Option<core::time::Duration>, u32), Error> {
        let window = match envelope.meta.get(key::WINDOW).map(|item| item.as_u64()) {
            None => self.peer_window,
            Some(None) => return Err(Error::invalid_argument("`window` is not an unsigned integer")),
            Some(Some(bytes)) => u32::try_from(bytes.min(i32::MAX as u64)).unwrap_or(self.peer_window),
        };
        let timeout = timeout_of(envelope.meta)?;
        if self.open.1 >= self.limits.max_streams {
            return Err(Error::resource_exhausted("too many streams are open"));
        }
        if self.opening_bytes > 0
            && self.opening_bytes + held_bytes(envelope, frame) > self.limits.opening_bytes
        {
            return Err(Error::resource_exhausted("the open streams hold too many bytes"));
        }
        Ok((timeout, window))
    }

    fn handle_data(
        &mut self,
        id: StreamId,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        open: &mut OpenIds,
    ) -> Result<(), Violation> {
        let Some(stream) = self.get_mut(id) else { return Ok(()) };
        if stream.receiving.has_ended() {
            return Err(Violation::WrongRole(id.id));
        }
        if envelope.error.is_some() {
            return Err(Violation::MisplacedError);
        }
        let items = match envelope.target {
            None => envelope.payload.as_bytes(),
            Some(_) => envelope.payload.elements().ok_or(Violation::BadPayload(id.id))?,
        };
        // A stream's data costs the size of its message, which the frame holds and nothing else (§5.13).
        if !stream.receiving.spend(frame.len()) {
            return Err(Violation::NoCredit(id.id));
        }
        if stream.released.1 {
            // Nobody reads: the peer has to learn that, or it would wait for credit for ever.
            stream.due.cancel_at_end = true;
            self.cancel_if_ended(id, open);
            return Ok(());
        }
        stream.receiving.push(items, frame, frame.len());
        if !stream.receiving.is_empty() {
            self.announce(id);
        }
        self.touch(id);
        Ok(())
    }

    fn handle_end(
        &mut self,
        id: StreamId,
        envelope: &Envelope<'_>,
        frame: &Bytes,
        open: &mut OpenIds,
    ) -> Result<(), Violation> {
        let Some(stream) = self.get_mut(id) else { return Ok(()) };
        if let Some(error) = &envelope.error {
            stream.receiving.fail(Error::from(*error));
            let ours = stream.ours;
            self.close(id, open);
            if !ours {
                self.withdraw(id, Withdrawn::Cancelled);
            }
            return Ok(());
        }
        if stream.receiving.has_ended() {
            return Err(Violation::WrongRole(id.id));
        }
        if !envelope.payload.is_null() && !stream.receiving.spend(frame.len()) {
            return Err(Violation::NoCredit(id.id));
        }
        stream.receiving.end(held_payload_of(envelope, frame));
        self.announce(id);
        self.close_if_ended(id, open);
        Ok(())
    }

    fn handle_cancel(&mut self, id: StreamId, envelope: &Envelope<'_>, open: &mut OpenIds) {
        let Some(stream) = self.get_mut(id) else { return };
        let cancelled = || Error::new(Code::CANCELLED, "the stream was cancelled");
        stream.receiving.fail(envelope.error.map_or_else(cancelled, Error::from));
        stream.due.last = Some(Last::End(Error::new(Code::CANCELLED, "")));
        let ours = stream.ours;
        self.close(id, open);
        if !ours {
            self.stats.cancelled += 1;
            self.withdraw(id, Withdrawn::Cancelled);
        }
    }

    /// We have given the stream up: all is late but what closes it (§11.3, §11.4).
    fn handle_late(
        &mut self,
        id: StreamId,
        envelope: &Envelope<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        match envelope.target {
            Some(verb::CANCEL) => {
                cx.budget.charge(cx.now)?;
                if let Some(stream) = self.get_mut(id)
                    && let Phase::Failing(error) = &stream.phase
                {
                    // That answers the `cancel` too.
                    stream.due.last = Some(Last::End(error.clone()));
                }
                self.close(id, cx.open);
            }
            Some(verb::END) if envelope.error.is_some() => {
                // The other side has closed too: nobody waits for our last word.
                if let Some(stream) = self.get_mut(id) {
                    stream.due.last = None;
                }
                self.close(id, cx.open);
            }
            // Unless we still have something to say ourselves.
            Some(verb::END) if !self.is_failing(id) => self.close(id, cx.open),
            Some(verb::CREDIT) if self.is_failing(id) => self.handle_late_credit(id, envelope),
            _ => self.stats.late += 1,
        }
        Ok(())
    }

    /// What is queued ahead of our error still needs credit.
    fn handle_late_credit(&mut self, id: StreamId, envelope: &Envelope<'_>) {
        let granted = self.get_mut(id).zip(envelope.payload.as_u64());
        if !granted.is_some_and(|(stream, bytes)| stream.sending.grant(bytes)) {
            self.stats.late += 1;
        }
    }

    fn is_failing(&self, id: StreamId) -> bool {
        self.get(id).is_some_and(|stream| matches!(stream.phase, Phase::Failing(_)))
    }

    fn handle_pause(&mut self, id: StreamId, envelope: &Envelope<'_>, pause: bool) -> Result<(), Violation> {
        if envelope.error.is_some() {
            return Err(Violation::MisplacedError);
        }
        if let Some(stream) = self.get_mut(id) {
            stream.sending.paused = pause;
        }
        self.touch(id);
        Ok(())
    }

    fn handle_credit(&mut self, id: StreamId, envelope: &Envelope<'_>) -> Result<(), Violation> {
        if envelope.error.is_some() {
            return Err(Violation::MisplacedError);
        }
        let bytes = envelope.payload.as_u64().ok_or(Violation::BadPayload(id.id))?;
        let Some(stream) = self.get_mut(id) else { return Ok(()) };
        if !stream.sending.has_ended() && !stream.sending.grant(bytes) {
            return Err(Violation::CreditOverflow(id.id));
        }
        self.touch(id);
        Ok(())
    }
}
