//! What comes in: bytes to frames, frames to messages, and each message to whoever is concerned.

use bytes::{Buf, Bytes, BytesMut};

use super::{Connection, Event, REPLIES, State};
use crate::frame::{self, FrameError};
use crate::message::{Code, Envelope, Error, Kind, key, verb};
use crate::pattern::{Context, Entity};
use crate::session::{ConnectionError, Violation};
use crate::time::Instant;

/// Frames below this size, in bytes, are copied out of the read buffer. Larger ones take the buffer with them, where it
/// holds little else.
const LARGE: usize = 64 << 10;

/// So many bytes of small frames are copied out at once, at most, unless the first of them is longer.
const GROUP: usize = 16 << 10;

impl Connection {
    /// Takes every whole frame from `input`; what is left there is the beginning of the next one, or, until
    /// [`read_after`](Self::read_after), has to wait.
    ///
    /// # Errors
    ///
    /// Why the connection is over. `input` is of no use any more then.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) -> Result<(), ConnectionError> {
        while self.handle_some_input(now, input, usize::MAX)? && self.read_after().is_none() {}
        Ok(())
    }

    /// As [`handle_input`](Self::handle_input), but handles `count` frames at the most, and at least one, for drivers that have other
    /// things to do in between. Whether there may be more.
    ///
    /// # Errors
    ///
    /// As [`handle_input`](Self::handle_input).
    pub fn handle_some_input(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
        count: usize,
    ) -> Result<bool, ConnectionError> {
        if input.len() > self.unread {
            self.heartbeat.note_received(now);
        }
        if let Some(error) = &self.error {
            input.clear();
            return Err(error.clone());
        }
        if !self.is_attached() {
            return Ok(false);
        }
        // What follows the answer is under another limit, so that the answer is handled first.
        let count = if self.is_handshaking() { 1 } else { self.within_rates(now, count.max(1)) };
        let (frames, whole, broken) = whole_frames(input, self.frame_limit(), count);
        if whole > 0 {
            let link = self.link;
            self.stats.bytes_in += whole as u64;
            self.handle_frames(now, input, whole)?;
            if self.link != link {
                // Behind the end of a link nothing counts (§8.7), also where the connection lives on.
                input.clear();
                return Ok(false);
            }
        }
        if broken.is_none() && !self.input_is_one_frame && begins_large(input) {
            // Its buffer will grow with it, and is to be its own.
            *input = BytesMut::from(&input[..]);
            self.input_is_one_frame = true;
        }
        self.unread = input.len();
        self.pause(now);
        match broken {
            Some(error) => Err(self.fail(now, error.into())),
            None => Ok(frames == count && !input.is_empty()),
        }
    }

    /// Handles the frames that are the first `whole` bytes of `input`.
    ///
    /// Small ones are copied out together, at the price of one allocation for many messages; a large one is shared where
    /// the driver's buffer has held nothing else. So a payload that somebody keeps holds in memory what its frame
    /// counts for, or [`GROUP`] bytes, and never a buffer that has grown for another frame.
    fn handle_frames(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
        mut whole: usize,
    ) -> Result<(), ConnectionError> {
        let link = self.link;
        while whole > 0 && self.link == link {
            let len = next_group(input.get(..whole).unwrap_or_default());
            if len == 0 {
                break;
            }
            let rest = input.get(len..).unwrap_or_default();
            let mut group = if self.input_is_one_frame && rest.len() <= len {
                let rest = BytesMut::from(rest);
                let mut frame = core::mem::replace(input, rest);
                frame.truncate(len);
                frame.freeze()
            } else {
                let group = Bytes::copy_from_slice(input.get(..len).unwrap_or_default());
                input.advance(len);
                group
            };
            self.input_is_one_frame = false;
            whole -= len;
            self.pubsub.note_group(group.len());
            while self.link == link
                && let Ok(Some(len)) = frame::split(&group, u32::MAX)
            {
                group.advance(frame::PREFIX_LEN);
                self.handle_body(now, &group.split_to(len))?;
            }
        }
        Ok(())
    }

    fn handle_body(&mut self, now: Instant, body: &Bytes) -> Result<(), ConnectionError> {
        // Nothing is sealed here, so that a frame is no longer than its message (§5.13).
        let (len, limit) = (u32::try_from(body.len()).unwrap_or(u32::MAX), self.max_message);
        if len > limit {
            return Err(self.fail(now, FrameError::TooLong { len, limit }.into()));
        }
        self.stats.messages_in += 1;
        let handled = match Envelope::decode(body) {
            Ok(envelope) => self.handle_message(now, &envelope, body).map(|()| {
                if let Some(session) = self.session.as_mut().filter(|_| is_counted(&envelope)) {
                    session.ledger.note_handled(body.len(), now);
                }
            }),
            Err(error) => Err(error.into()),
        };
        handled.or_else(|error| self.end_with(now, error))
    }

    /// The session cannot go on as it was; a fresh one may follow.
    fn end_with(&mut self, now: Instant, why: ConnectionError) -> Result<(), ConnectionError> {
        if self.goes_on_after(&why) && self.give_up_link(now, &why) {
            Ok(())
        } else {
            Err(self.fail(now, why))
        }
    }

    fn frame_limit(&self) -> u32 {
        match self.state {
            State::Offering { .. } => self.max_message,
            _ => self.max_message.saturating_add(frame::ALLOWANCE),
        }
    }

    fn handle_message(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        frame: &Bytes,
    ) -> Result<(), ConnectionError> {
        if is_close(envelope) {
            return Err(ConnectionError::ClosedByPeer(envelope.error.map(Error::from)));
        }
        match (envelope.kind, &self.state) {
            (Kind::Hello, State::Offering { .. }) => return self.handle_answer(now, envelope, frame),
            (_, State::Offering { .. }) => return Err(Violation::HelloExpected.into()),
            (Kind::Hello, _) => return Err(Violation::HelloRepeated.into()),
            _ => {}
        }
        if envelope.reference.is_none() {
            self.check_opening(envelope)?;
            let refused = self.refuse_drained(now, envelope).or_else(|| self.refuse_expired(now, envelope));
            if let Some(refused) = refused {
                return refused;
            }
        }
        if let Some(refused) = self.measure(now, envelope, frame.len()) {
            return refused;
        }
        let Self { calls, streams, pubsub, ids, open, budget, refusals, .. } = self;
        let cx = &mut Context { now, ids, open, budget, refusals };
        match envelope.kind {
            Kind::Call => calls.handle(envelope, frame, cx),
            Kind::Stream if streams.is_on() => streams.handle(envelope, frame, cx),
            Kind::Subscribe | Kind::Unsubscribe | Kind::Message if pubsub.is_on() => {
                pubsub.handle(envelope, frame, cx)
            }
            Kind::Control => self.handle_control(now, envelope),
            _ => self.handle_unsupported(now, envelope),
        }
    }

    /// What every opening has to keep to (§5.5, §5.12, §5.14).
    fn check_opening(&self, envelope: &Envelope<'_>) -> Result<(), Violation> {
        if envelope.kind == Kind::Unsubscribe {
            Err(Violation::MissingRef)
        } else if envelope.target.is_none() {
            Err(Violation::MissingTarget)
        } else if envelope.error.is_some() {
            Err(Violation::MisplacedError)
        } else if self.open.contains(envelope.id) && !self.pubsub.is_again(envelope, &self.open) {
            Err(Violation::DuplicateId(envelope.id))
        } else {
            Ok(())
        }
    }

    /// A feature that was not negotiated: an opening is refused, a continuation continues nothing (§5.16).
    fn handle_unsupported(&mut self, now: Instant, envelope: &Envelope<'_>) -> Result<(), ConnectionError> {
        match (envelope.reference, envelope.target) {
            (Some(reference), _) if self.open.contains(reference) => {
                Err(Violation::WrongRole(reference).into())
            }
            (Some(_), Some(verb::CANCEL)) if envelope.kind == Kind::Stream => {
                self.budget.charge(now)?;
                self.drop_message()
            }
            (Some(_), _) => self.drop_message(),
            // Nobody waits for the fate of a publication that is delivered at most once.
            (None, _)
                if envelope.kind == Kind::Message
                    && !matches!(envelope.meta.get_u64(key::QOS), Some(1 | 2)) =>
            {
                self.drop_message()
            }
            (None, _) => self.refuse_opening(now, envelope, "not negotiated on this connection"),
        }
    }

    pub(super) fn refuse_opening(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        why: &str,
    ) -> Result<(), ConnectionError> {
        let error = Error::new(Code::UNIMPLEMENTED, why);
        let Self { budget, refusals, .. } = self;
        Ok(refusals.refuse(envelope.kind, envelope.id, None, error, now, budget)?)
    }

    pub(super) fn drop_message(&mut self) -> Result<(), ConnectionError> {
        self.stats.dropped += 1;
        Ok(())
    }

    fn handle_control(&mut self, now: Instant, envelope: &Envelope<'_>) -> Result<(), ConnectionError> {
        match (envelope.reference, envelope.target) {
            (None, Some(verb::PING)) => {
                // A peer that pings without reading gets the latest answers only (§8.3).
                if self.replies.len() >= REPLIES {
                    self.replies.pop_front();
                }
                self.replies.push_back(envelope.id);
                Ok(())
            }
            (None, Some(verb::DRAIN)) => self.handle_drain(envelope),
            (None, Some(verb::AUTH)) => self.handle_auth(now, envelope),
            // Neither is ever answered.
            (None, Some(verb::HANDLED)) => self.handle_handled(envelope),
            (None, Some(verb::REKEY)) => self.drop_message(),
            (None, _) => self.refuse_opening(now, envelope, "no such operation here"),
            (Some(reference), None) if self.handle_auth_reply(now, reference, envelope)? => Ok(()),
            (Some(reference), target) if self.open.contains(reference) => {
                // To fresh credentials there is no verb but that of later versions (§5.15).
                let is_renewal = self.open.get(reference) == Some(Entity::Renewal);
                if is_renewal && target.is_some() {
                    self.drop_message()
                } else {
                    Err(Violation::WrongRole(reference).into())
                }
            }
            (Some(reference), None) if self.drains.note_reply(reference) => Ok(()),
            (Some(ping), None) => match self.heartbeat.note_reply(ping, now) {
                Some(rtt) => {
                    self.events.push_back(Event::Pong { ping, rtt });
                    Ok(())
                }
                None => self.drop_message(),
            },
            (Some(_), Some(_)) => self.drop_message(),
        }
    }
}

/// Whether a message is counted, and so kept by its sender until it is handled (§9.2).
fn is_counted(envelope: &Envelope<'_>) -> bool {
    match envelope.kind {
        Kind::Hello | Kind::Control => false,
        Kind::Message if envelope.reference.is_none() || envelope.target.is_none() => {
            matches!(envelope.meta.get_u64(key::QOS), Some(1 | 2))
        }
        _ => true,
    }
}

/// A `close`, which is valid at any time (§8.7).
pub(super) fn is_close(envelope: &Envelope<'_>) -> bool {
    envelope.kind == Kind::Control && envelope.reference.is_none() && envelope.target == Some(verb::CLOSE)
}

/// How many whole frames are at the start of `input`, at most `count`; how many bytes they are; and what is wrong behind
/// them.
fn whole_frames(input: &[u8], limit: u32, count: usize) -> (usize, usize, Option<FrameError>) {
    let (mut frames, mut whole) = (0, 0);
    while frames < count {
        match frame::split(input.get(whole..).unwrap_or_default(), limit) {
            Ok(Some(len)) => whole += frame::PREFIX_LEN + len,
            Ok(None) => break,
            Err(error) => return (frames, whole, Some(error)),
        }
        frames += 1;
    }
    (frames, whole, None)
}

/// How many bytes at the start of `frames`, which are whole, to handle together: as many frames as have [`GROUP`] bytes,
/// or a longer one alone.
fn next_group(frames: &[u8]) -> usize {
    let mut len = 0;
    while let Ok(Some(body)) = frame::split(frames.get(len..).unwrap_or_default(), u32::MAX) {
        let frame = frame::PREFIX_LEN + body;
        if len > 0 && len + frame > GROUP {
            break;
        }
        len += frame;
    }
    len
}

/// Whether `input` begins with a large frame, of which something is missing.
fn begins_large(input: &[u8]) -> bool {
    let missing = frame::missing(input);
    input.len() >= frame::PREFIX_LEN && missing > 0 && input.len().saturating_add(missing) >= LARGE
}
