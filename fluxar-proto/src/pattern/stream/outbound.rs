//! What goes out for streams.

use bytes::Bytes;

use super::sending::Data;
use super::{Last, Phase, StreamId, Streams};
use crate::message::{Kind, Payload, encode_uint, verb};
use crate::pattern::opening::{ceil_ms, deadline_exceeded};
use crate::pattern::{Context, Entity, Outgoing, Target, Text};

impl Streams {
    pub(crate) fn wants_transmit(&self) -> bool {
        !self.bulk.is_empty() || !self.urgent.is_empty()
    }

    /// The next message that lets the peer go on, or that ends a stream: these overtake data.
    pub(crate) fn poll_urgent(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        while let Some(id) = self.urgent.pop_front() {
            let Some(stream) = self.get_mut(id) else { continue };
            stream.in_urgent = false;
            let message = self.urgent_of(id, cx);
            // One may have several things to say.
            self.touch(id);
            self.free_if_over(id);
            if message.is_some() {
                return message;
            }
        }
        None
    }

    fn urgent_of(&mut self, id: StreamId, cx: &mut Context<'_>) -> Option<Outgoing> {
        let (limit, left) = (self.peer_max_message, self.limits.max_window.saturating_sub(self.grown));
        let max_window = self.limits.max_window;
        let stream = self.get_mut(id).filter(|stream| stream.is_urgent())?;
        let mut message =
            |verb| Outgoing::new(Kind::Stream, cx.ids.next(cx.now), Some(id.id), Target::Verb(verb));
        if let Some(last) = stream.due.last.take() {
            let (mut message, error) = match last {
                Last::Cancel(error) => (message(verb::CANCEL), error),
                Last::End(error) => (message(verb::END), Some(error)),
            };
            message.error = error.map(Into::into);
            return Some(message.with_error_within(limit));
        }
        let (wanted, told) = stream.due.pause;
        if wanted != told {
            stream.due.pause.1 = wanted;
            return Some(message(if wanted { verb::PAUSE } else { verb::RESUME }));
        }
        let before = stream.receiving.grown();
        let room = max_window.saturating_sub(stream.receiving.window()).min(left);
        let bytes = stream.receiving.grant(cx.now, room);
        let grown = stream.receiving.grown();
        let credit = (bytes > 0).then(|| message(verb::CREDIT).with_payload(encode_uint(bytes)));
        self.grown = self.grown - before + grown;
        credit
    }

    /// The next opening, data or end: the streams take turns.
    pub(crate) fn poll_bulk(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        while let Some(id) = self.bulk.pop_front() {
            let Some(stream) = self.get_mut(id) else { continue };
            stream.in_bulk = false;
            let message = match stream.phase {
                Phase::Idle { .. } => self.send_opening(id, cx),
                Phase::Active | Phase::Failing(_) => self.send_data(id, cx),
                Phase::Cancelling | Phase::Closed => None,
            };
            self.touch(id);
            if message.is_some() {
                return message;
            }
        }
        None
    }

    fn send_opening(&mut self, id: StreamId, cx: &mut Context<'_>) -> Option<Outgoing> {
        let stream = self.get_mut(id)?;
        if stream.deadline.is_some_and(|at| at <= cx.now) {
            stream.receiving.fail(deadline_exceeded().with_processed(false));
            self.close(id, cx.open);
            return None;
        }
        let Phase::Idle { method, meta, payload } = core::mem::replace(&mut stream.phase, Phase::Active)
        else {
            return None;
        };
        cx.open.insert(id.id, Entity::Stream(id.slot));
        let opening = opening(id, method, meta, payload);
        // What is left is counted now: waiting in our queue was part of it (§10.5).
        Some(Outgoing { timeout_ms: stream.deadline.map(|at| ceil_ms(at - cx.now)), ..opening })
    }

    fn send_data(&mut self, id: StreamId, cx: &mut Context<'_>) -> Option<Outgoing> {
        let stream = self.get_mut(id)?;
        let Some(data) = stream.sending.poll() else { return self.send_error(id, cx) };
        let (target, payload, costs) = match data {
            Data::Item(payload) => (Target::Null, payload, true),
            Data::Items(payload) => (Target::Verb(verb::ITEMS), payload, true),
            Data::End(payload) => {
                let costs = !payload.is_null();
                (Target::Verb(verb::END), payload, costs)
            }
        };
        let message =
            Outgoing::new(Kind::Stream, cx.ids.next(cx.now), Some(id.id), target).with_payload(payload);
        if costs {
            stream.sending.spend(message.encoded_len());
        }
        if stream.sending.has_ended() {
            self.cancel_if_ended(id, cx.open);
            self.close_if_ended(id, cx.open);
        }
        Some(message)
    }
}

impl Streams {
    /// Our error, once nothing of what was queued ahead of it may be sent.
    fn send_error(&mut self, id: StreamId, cx: &mut Context<'_>) -> Option<Outgoing> {
        let limit = self.peer_max_message;
        let stream = self.get_mut(id)?;
        if !matches!(stream.phase, Phase::Failing(_)) {
            return None;
        }
        let Phase::Failing(error) = core::mem::replace(&mut stream.phase, Phase::Active) else { return None };
        self.close(id, cx.open);
        let end = Outgoing::new(Kind::Stream, cx.ids.next(cx.now), Some(id.id), Target::Verb(verb::END));
        Some(end.with_result(Err(error)).with_error_within(limit))
    }
}

fn opening(id: StreamId, method: Text, meta: Bytes, payload: Payload) -> Outgoing {
    let mut opening = Outgoing::new(Kind::Stream, id.id, None, Target::Address(method)).with_payload(payload);
    opening.meta = meta;
    opening
}
