//! A link whose initiator has still to say what it wants.

use alloc::boxed::Box;
use alloc::sync::Arc;

use bytes::BytesMut;

use super::offered::Offered;
use super::receive::is_close;
use super::{Config, TransmitBuf};
use crate::frame;
use crate::message::{Envelope, Error, Id, Kind, verb};
use crate::pattern::{Outgoing, Target};
use crate::session::{ConnectionError, IdSource, Offer, Timeout, Violation, refused_version};
use crate::time::Instant;

/// The responder's side of a new link, until the initiator's offer has come.
///
/// ```text
///                offer                        accept
///  Incoming -------------------> Offered --------------------> Connection (established)
///     |                           ^   | refuse
///     | bad input, time-out,      |   +----------------------> the refusal, in a TransmitBuf
///     | end of input              +---- ask, proof (at most 4)
///     +-------------------> error; what the peer is told of it, in a TransmitBuf
/// ```
///
/// Whoever listens decides on an [`Offered`] in its own time: that is where authentication belongs.
#[derive(Debug)]
pub struct Incoming {
    config: Arc<Config>,
    ids: IdSource,
    deadline: Instant,
}

impl Incoming {
    /// A link that was accepted at `now`.
    pub fn new(config: Arc<Config>, now: Instant, ids: IdSource) -> Self {
        let deadline = now + config.handshake_timeout;
        Self { config, ids, deadline }
    }

    /// When the handshake must be done, the verdict on the offer included.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes the initiator's first frame from `input`, once it is whole. What follows it stays in `input`, for the
    /// connection.
    ///
    /// # Errors
    ///
    /// The link is over; `out` then holds what the peer is to be told before the transport is closed.
    pub fn handle_input(
        self,
        now: Instant,
        input: &mut BytesMut,
        out: &mut TransmitBuf,
    ) -> Result<Progress, ConnectionError> {
        match frame::split(input, frame::HANDSHAKE_LIMIT) {
            Ok(None) => Ok(Progress::More(self)),
            Ok(Some(len)) => {
                let frame = input.split_to(frame::PREFIX_LEN + len);
                let body = frame.get(frame::PREFIX_LEN..).unwrap_or_default();
                self.handle_offer(now, body, out).map(|offered| Progress::Offered(Box::new(offered)))
            }
            Err(error) => Err(self.fail(error.into(), now, out)),
        }
    }

    fn handle_offer(
        mut self,
        now: Instant,
        body: &[u8],
        out: &mut TransmitBuf,
    ) -> Result<Offered, ConnectionError> {
        let envelope = match Envelope::decode(body) {
            Ok(envelope) => envelope,
            Err(error) => return Err(self.fail(error.into(), now, out)),
        };
        if is_close(&envelope) {
            return Err(ConnectionError::ClosedByPeer(envelope.error.map(Error::from)));
        }
        if let Some(violation) = violation_of(&envelope) {
            return Err(self.fail(violation.into(), now, out));
        }
        let id = envelope.id;
        let (versions, version) = match Offer::decode_versions(envelope.payload) {
            Ok(versions) => versions,
            Err(error) => return Err(self.fail(error.into(), now, out)),
        };
        let Some(version) = version else {
            refuse(id, self.ids.next(now), refused_version(), out);
            return Err(ConnectionError::NoCommonVersion);
        };
        let offer = match Offer::decode(versions, envelope.payload) {
            Ok(offer) => offer,
            Err(error) => return Err(self.fail(error.into(), now, out)),
        };
        let Self { config, ids, deadline } = self;
        Ok(Offered::new(config, ids, deadline, id, offer, version, body))
    }

    /// The deadline has passed.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ConnectionError::TimedOut) once it has; the link is over then, as with
    /// [`handle_input`](Self::handle_input).
    pub fn handle_timeout(&mut self, now: Instant, out: &mut TransmitBuf) -> Result<(), ConnectionError> {
        handshake_timeout(now, self.deadline, &mut self.ids, out)
    }

    fn fail(mut self, error: ConnectionError, now: Instant, out: &mut TransmitBuf) -> ConnectionError {
        tell(&error, self.ids.next(now), out);
        error
    }
}

/// What keeps a message that is no `close` from being an offer.
fn violation_of(envelope: &Envelope<'_>) -> Option<Violation> {
    if envelope.kind != Kind::Hello || envelope.reference.is_some() {
        Some(Violation::HelloExpected)
    } else if envelope.target.is_some() {
        Some(Violation::MisplacedTarget)
    } else if envelope.error.is_some() {
        Some(Violation::MisplacedError)
    } else {
        None
    }
}

pub(super) fn handshake_timeout(
    now: Instant,
    deadline: Instant,
    ids: &mut IdSource,
    out: &mut TransmitBuf,
) -> Result<(), ConnectionError> {
    if now < deadline {
        return Ok(());
    }
    let error = ConnectionError::TimedOut(Timeout::Handshake);
    tell(&error, ids.next(now), out);
    Err(error)
}

/// How far a handshake has come.
#[derive(Debug)]
pub enum Progress {
    /// The offer is not whole yet.
    More(Incoming),
    /// The offer is there and waits for a verdict.
    Offered(Box<Offered>),
}

pub(super) fn refuse(offer: Id, id: Id, error: Error, out: &mut TransmitBuf) {
    let refusal = Outgoing::new(Kind::Hello, id, Some(offer), Target::Null).with_result(Err(error));
    let refusal = refusal.with_error_within(frame::HANDSHAKE_LIMIT);
    let Ok(()) = refusal.with_envelope(|envelope| out.push(envelope, None, None)) else { return };
}

/// Tells the peer why the link ends, where there is something to tell.
pub(super) fn tell(error: &ConnectionError, id: Id, out: &mut TransmitBuf) {
    if let Some(report) = error.report() {
        let close =
            Outgoing::new(Kind::Control, id, None, Target::Verb(verb::CLOSE)).with_result(Err(report));
        let Ok(()) = close.with_envelope(|envelope| out.push(envelope, None, None)) else { return };
    }
}
