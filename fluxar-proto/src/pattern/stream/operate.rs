//! What the application does with streams.

use super::receiving::Receiving;
use super::sending::{ENVELOPE, Sending};
use super::{
    Due, ItemBatch, Last, Phase, Received, SendError, Stream, StreamError, StreamId, StreamOptions, Streams,
};
use crate::message::{Code, Envelope, Error, Id, Item, Kind, Meta, Payload, build_bytes, key, verb};
use crate::pattern::opening::{BadOpening, Opening};
use crate::pattern::{Context, Gone, OpenIds, Text};

impl Streams {
    /// Opens a stream; the opening is sent when the transport has room.
    pub(crate) fn open_stream(
        &mut self,
        method: &str,
        payload: Payload,
        options: StreamOptions,
        cx: &mut Context<'_>,
    ) -> Result<StreamId, StreamError> {
        let opening = Opening { kind: Kind::Stream, target: method, meta: &options.meta, payload: &payload };
        let own = [(key::TIMEOUT_MS, options.timeout.is_some()), (key::WINDOW, options.window.is_some())];
        let len = opening.check(&own)?;
        self.ready_to_stream()?;
        if len > self.peer_max_message as usize {
            return Err(StreamError::TooLarge { len, limit: self.peer_max_message as usize });
        }
        let id = cx.ids.next(cx.now);
        let deadline = options.timeout.map(|timeout| cx.now + timeout);
        let window = options.window.map(|window| window.min(i32::MAX as u32));
        let meta = window.map_or(options.meta.clone(), |window| with_window(&options.meta, window));
        let entry = self.streams.vacant_entry();
        let id = StreamId { slot: entry.key(), id };
        entry.insert(Stream {
            id,
            phase: Phase::Idle { method: Text::from(method), meta, payload },
            ours: true,
            sending: Sending::new(self.peer_window, self.peer_max_message as usize),
            receiving: Receiving::new(window.unwrap_or(self.limits.window)),
            deadline,
            due: Due::default(),
            in_bulk: false,
            in_urgent: false,
            bytes: 0,
            released: (false, false),
            withdrawn: false,
        });
        if let Some(at) = deadline {
            self.deadlines.insert((at, id));
        }
        self.open.0 += 1;
        self.stats.opened += 1;
        self.touch(id);
        Ok(id)
    }

    /// Whether a stream could be opened now.
    pub(crate) fn ready_to_stream(&mut self) -> Result<(), StreamError> {
        if self.started && !self.on {
            Err(StreamError::NotNegotiated)
        } else if self.started && self.peer_max_streams == 0 {
            Err(StreamError::NoStreams)
        } else if self.room() == 0 {
            self.waiting = true;
            Err(StreamError::Blocked)
        } else {
            Ok(())
        }
    }

    /// Asks for a `Capacity` when there is more room for streams.
    pub(crate) fn want_capacity(&mut self) {
        self.waiting = true;
        // Where nothing is open, nothing will make room: what there is has to be announced now.
        if self.started && self.open.0 == 0 {
            self.relieve();
        }
    }

    /// Whether the stream is neither over nor given up.
    pub(crate) fn is_wanted(&self, id: StreamId) -> bool {
        self.get(id).is_some_and(Stream::is_live)
    }

    /// Why the stream is over, where it did not end in order.
    pub(crate) fn error(&self, id: StreamId) -> Option<Error> {
        self.get(id)?.receiving.error().cloned()
    }

    /// Whether the application has not let go of it.
    pub(crate) fn is_held(&self, id: StreamId) -> bool {
        self.get(id).is_some_and(|stream| stream.released != (true, true))
    }

    /// Queues an item, shared or copied.
    pub(crate) fn send_item(&mut self, id: StreamId, payload: Payload) -> Result<(), SendError> {
        let stream = self.may_send(id, payload.as_item())?;
        stream.sending.push(payload);
        if !stream.in_bulk {
            self.touch(id);
        }
        Ok(())
    }

    /// Queues an item, copied.
    pub(crate) fn send_item_from(&mut self, id: StreamId, item: Item<'_>) -> Result<(), SendError> {
        let stream = self.may_send(id, item)?;
        stream.sending.push_item(item);
        if !stream.in_bulk {
            self.touch(id);
        }
        Ok(())
    }

    /// Queues small items together. Where the application does not `wait`, they go beyond what may be queued.
    pub(crate) fn send_batch(
        &mut self,
        id: StreamId,
        batch: &mut ItemBatch,
        wait: bool,
    ) -> Result<(), SendError> {
        let limit = self.peer_max_message as usize;
        let stream = if wait { self.may_send(id, Item::NULL)? } else { self.sending(id)? };
        let mut batch = core::mem::take(batch);
        let last = batch.take_last();
        if batch.is_empty() {
            // Only a last one.
        } else if stream.sending.takes(&batch) {
            stream.sending.push_batch(batch);
        } else {
            // The peer takes only small messages.
            let mut items = batch.items();
            while !items.is_empty() {
                let (item, rest) = items.split_at(Item::first_len(items));
                stream.sending.push_item(Item::trusted(item));
                items = rest;
            }
        }
        let sent = last.map_or(Ok(()), |last| {
            check_len(None, last.as_item(), limit)?;
            stream.sending.push(last);
            Ok(())
        });
        self.touch(id);
        sent
    }

    fn may_send(&mut self, id: StreamId, item: Item<'_>) -> Result<&mut Stream, SendError> {
        let (limit, send_buffer) = (self.peer_max_message as usize, self.limits.send_buffer);
        let stream = self.sending(id)?;
        if item.as_bytes().len() + ENVELOPE > limit {
            check_len(None, item, limit)?;
        }
        if stream.sending.queued() >= send_buffer {
            stream.sending.wanted = true;
            return Err(SendError::Blocked);
        }
        Ok(stream)
    }

    /// The stream, if its sending half is open.
    fn sending(&mut self, id: StreamId) -> Result<&mut Stream, SendError> {
        let stream = self.get_mut(id).filter(|stream| stream.is_live()).ok_or(SendError::Gone)?;
        if stream.sending.is_open() { Ok(stream) } else { Err(SendError::Ended) }
    }

    /// Whether `send_item` would take an item now.
    pub(crate) fn ready_to_send(&mut self, id: StreamId) -> Result<(), SendError> {
        self.may_send(id, Item::NULL).map(drop)
    }

    /// Ends our direction behind what is queued.
    pub(crate) fn end_stream(&mut self, id: StreamId, last: Payload) -> Result<(), SendError> {
        let limit = self.peer_max_message as usize;
        let stream = self.sending(id)?;
        check_len(Some(verb::END), last.as_item(), limit)?;
        stream.sending.end(last);
        self.touch(id);
        Ok(())
    }

    /// Ends the whole stream with an error.
    pub(crate) fn fail_stream(&mut self, id: StreamId, error: Error, open: &mut OpenIds) {
        if let Some(stream) = self.get_mut(id).filter(|stream| stream.is_live()) {
            stream.receiving.give_up(Error::new(Code::CANCELLED, "the stream was ended here"));
            if matches!(stream.phase, Phase::Idle { .. }) {
                return self.close(id, open);
            }
            stream.phase = Phase::Failing(error);
            let deadline = stream.deadline.take();
            if let Some(at) = deadline {
                self.deadlines.remove(&(at, id));
            }
            self.announce(id);
            self.touch(id);
        }
    }

    /// The same at once: what is queued is dropped.
    pub(super) fn fail_with(&mut self, id: StreamId, error: Error, open: &mut OpenIds) {
        let Some(stream) = self.get_mut(id).filter(|stream| stream.is_live()) else { return };
        stream.receiving.fail(error.clone());
        if matches!(stream.phase, Phase::Active) {
            stream.due.last = Some(Last::End(error));
        }
        self.close(id, open);
    }

    /// Gives the whole stream up.
    pub(crate) fn cancel_stream(&mut self, id: StreamId, error: Option<Error>, open: &mut OpenIds) {
        if let Some(stream) = self.get_mut(id).filter(|stream| stream.is_live()) {
            stream.receiving.give_up(Error::new(Code::CANCELLED, "the stream was cancelled here"));
            self.cancel_with(id, error, open);
        }
    }

    pub(super) fn cancel_with(&mut self, id: StreamId, error: Option<Error>, open: &mut OpenIds) {
        let Some(stream) = self.get_mut(id).filter(|stream| stream.is_live()) else { return };
        if matches!(stream.phase, Phase::Idle { .. }) {
            // Nobody knows of it.
            return self.close(id, open);
        }
        stream.phase = Phase::Cancelling;
        stream.sending.shut();
        stream.due.last = Some(Last::Cancel(error));
        let deadline = stream.deadline.take();
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, id));
        }
        self.announce(id);
        self.touch(id);
    }

    /// Data comes that nobody wants: once our own direction has ended, the other side is told.
    pub(super) fn cancel_if_ended(&mut self, id: StreamId, open: &mut OpenIds) {
        let Some(stream) = self.get_mut(id) else { return };
        if stream.due.cancel_at_end && stream.sending.has_ended() && !stream.receiving.has_ended() {
            stream.due.cancel_at_end = false;
            self.cancel_stream(id, None, open);
        }
    }

    pub(crate) fn pause_stream(&mut self, id: StreamId, pause: bool) {
        if let Some(stream) = self.get_mut(id).filter(|stream| !stream.receiving.has_ended()) {
            stream.due.pause.0 = pause;
            self.touch(id);
        }
    }

    /// What the application takes next.
    pub(crate) fn poll_stream(&mut self, id: StreamId) -> Result<Option<Received>, Gone> {
        let stream = self.get_mut(id).ok_or(Gone)?;
        let received = stream.receiving.poll();
        self.touch(id);
        Ok(received)
    }

    /// The application has nothing more to send.
    pub(crate) fn release_sender(&mut self, id: StreamId, open: &mut OpenIds) {
        let Some(stream) = self.get_mut(id) else { return };
        stream.released.0 = true;
        if stream.is_live() && stream.sending.is_open() {
            if stream.ours && !stream.sending.used {
                // It never had anything to say, so that nobody misses anything.
                stream.sending.end(Payload::null());
                self.touch(id);
            } else {
                let error = Error::new(Code::CANCELLED, "the sender was dropped before its end");
                self.fail_stream(id, error, open);
            }
        }
        self.free_if_over(id);
    }

    /// The application wants nothing more of what comes.
    pub(crate) fn release_receiver(&mut self, id: StreamId, open: &mut OpenIds) {
        let Some(stream) = self.get_mut(id) else { return };
        stream.released.1 = true;
        // Nobody is there who could let the other side go on later.
        stream.due.pause.0 = false;
        let unread = !stream.receiving.is_empty();
        stream.receiving.clear();
        if stream.is_live() && !stream.receiving.has_ended() {
            if stream.ours {
                self.cancel_stream(id, None, open);
            } else if unread {
                stream.due.cancel_at_end = true;
                self.cancel_if_ended(id, open);
            }
        }
        self.touch(id);
        self.free_if_over(id);
    }

    /// The application lets go of the stream.
    pub(crate) fn release_stream(&mut self, id: StreamId, open: &mut OpenIds) {
        // Neither half hears of what letting go of the other does.
        if let Some(stream) = self.get_mut(id) {
            stream.released = (true, true);
        }
        self.release_receiver(id, open);
        self.release_sender(id, open);
    }
}

impl From<BadOpening> for StreamError {
    fn from(bad: BadOpening) -> Self {
        match bad {
            BadOpening::TargetTooLong => Self::MethodTooLong,
            BadOpening::Meta(error) => Self::BadMeta(error),
        }
    }
}

/// A message of data must not be larger than the peer takes.
fn check_len(target: Option<&str>, payload: Item<'_>, limit: usize) -> Result<(), SendError> {
    let id = Id::from_bytes([0; Id::LEN]);
    let len =
        Envelope { reference: Some(id), target, payload, ..Envelope::new(Kind::Stream, id) }.encoded_len();
    if len > limit { Err(SendError::TooLarge { len, limit }) } else { Ok(()) }
}

/// The application's metadata, which was checked, and the window.
fn with_window(meta: &bytes::Bytes, window: u32) -> bytes::Bytes {
    let meta = if meta.is_empty() { Meta::EMPTY } else { Meta::decode(meta).unwrap_or(Meta::EMPTY) };
    build_bytes(|out| {
        out.map(meta.len() as u64 + 1)?;
        out.writer_mut().extend_from_slice(meta.entries());
        out.str(key::WINDOW)?.u32(window)?;
        Ok(())
    })
}
