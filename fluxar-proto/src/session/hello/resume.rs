//! What hellos say of sessions that outlive their link (§9).

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::{Pairs, bytes, need};
use crate::message::Item;
use crate::session::error::HelloError;
use crate::session::psk::Bytes32;
use crate::session::secret::Secret;
use crate::time::Instant;

/// How many counts of lanes are kept of a hello: who waits for a verdict must not hold more memory than it has sent.
const LANES_KEPT: usize = 256;

/// The name of a session: 16 random bytes that stay the same for its whole life (§9.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The name that these bytes are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the name.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The first four bytes in hex: enough to tell sessions apart in a log.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// How many counted messages of a lane other than 0 have been handled (§13.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCount {
    /// The lane.
    pub stream: u64,
    /// How many.
    pub handled: u64,
}

/// An initiator asks for a session to go on (§9.5).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResumeOffer {
    /// Which session.
    pub session: SessionId,
    /// How many counted messages of lane 0 the initiator has handled.
    pub handled: u64,
    /// The proof that the initiator has had the session. To be compared in constant time.
    pub proof: [u8; 32],
    /// The same number of other lanes.
    pub lanes: Vec<LaneCount>,
}

impl ResumeOffer {
    pub(crate) fn new(session: SessionId, handled: u64, proof: Bytes32) -> Self {
        Self { session, handled, proof, lanes: Vec::new() }
    }

    pub(super) fn pairs(&self) -> Pairs {
        let mut pairs = Pairs::new();
        pairs.put_bytes("session", self.session.as_bytes());
        pairs.put("handled", |out| out.u64(self.handled)?.ok());
        pairs.put_bytes("proof", &self.proof);
        put_lanes(&mut pairs, &self.lanes);
        pairs
    }

    pub(super) fn decode(item: Item<'_>) -> Result<Self, HelloError> {
        let (mut session, mut proof) = (None, None);
        let mut counts = Counts::default();
        for (key, value) in item.map()? {
            match key {
                "session" => session = Some(SessionId(bytes(value, "session")?)),
                "proof" => proof = Some(bytes(value, "proof")?),
                _ => counts.take(key, value)?,
            }
        }
        let handled = need(counts.handled, "handled")?;
        let (session, proof) = (need(session, "session")?, need(proof, "proof")?);
        Ok(Self { session, handled, proof, lanes: counts.lanes })
    }
}

/// Without the proof, which is good for as long as the resume is not confirmed.
impl fmt::Debug for ResumeOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut offer = f.debug_struct("ResumeOffer");
        offer.field("session", &self.session).field("handled", &self.handled).finish_non_exhaustive()
    }
}

/// What the responder has handled of a session that goes on (§9.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// On lane 0.
    pub(crate) handled: u64,
    /// On other lanes.
    pub(crate) lanes: Vec<LaneCount>,
}

impl Resumed {
    pub(super) fn pairs(&self) -> Pairs {
        let mut pairs = Pairs::new();
        pairs.put("handled", |out| out.u64(self.handled)?.ok());
        put_lanes(&mut pairs, &self.lanes);
        pairs
    }

    pub(super) fn decode(item: Item<'_>) -> Result<Self, HelloError> {
        let mut counts = Counts::default();
        for (key, value) in item.map()? {
            counts.take(key, value)?;
        }
        Ok(Self { handled: need(counts.handled, "handled")?, lanes: counts.lanes })
    }
}

/// The counts of a map, as far as they have been read.
#[derive(Default)]
struct Counts {
    handled: Option<u64>,
    lanes: Vec<LaneCount>,
}

impl Counts {
    fn take(&mut self, key: &str, value: Item<'_>) -> Result<(), HelloError> {
        match key {
            "handled" => self.handled = Some(value.as_u64().ok_or(HelloError::Invalid("handled"))?),
            "lanes" => self.lanes = lanes(value)?,
            _ => {}
        }
        Ok(())
    }
}

fn put_lanes(pairs: &mut Pairs, lanes: &[LaneCount]) {
    if lanes.is_empty() {
        return;
    }
    pairs.put("lanes", |out| {
        out.array(lanes.len() as u64)?;
        for lane in lanes {
            out.array(2)?.u64(lane.stream)?.u64(lane.handled)?;
        }
        Ok(())
    });
}

fn lanes(item: Item<'_>) -> Result<Vec<LaneCount>, HelloError> {
    let mut lanes = Vec::new();
    for lane in item.array().map_err(|_| HelloError::Invalid("lanes"))? {
        let mut numbers = lane.array().map_err(|_| HelloError::Invalid("lanes"))?.map(Item::as_u64);
        let (Some(Some(stream)), Some(Some(handled)), None) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(HelloError::Invalid("lanes"));
        };
        if lanes.len() < LANES_KEPT {
            lanes.push(LaneCount { stream, handled });
        }
    }
    Ok(lanes)
}

/// What the last answer says of the session (§9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionGrant {
    /// Its name.
    pub(crate) id: SessionId,
    /// How long it outlives its link, in milliseconds; 0: not at all.
    pub(crate) resume_ms: u64,
    /// What the next resume is proven with.
    pub(crate) secret: Option<Secret<32>>,
    /// How long the initiator's credentials last, in milliseconds (§8.5). None: without end.
    pub(crate) auth_expires_ms: Option<u64>,
}

impl SessionGrant {
    /// When the credentials run out, for an initiator that has got the answer `now`.
    pub(crate) fn auth_expires(&self, now: Instant) -> Option<Instant> {
        Some(now + Duration::from_millis(self.auth_expires_ms?))
    }

    pub(super) fn pairs(&self) -> Pairs {
        let mut pairs = Pairs::new();
        pairs.put_bytes("id", self.id.as_bytes());
        pairs.put("resume_ms", |out| out.u64(self.resume_ms)?.ok());
        if let Some(secret) = &self.secret {
            pairs.put_bytes("secret", secret.as_bytes());
        }
        if let Some(ms) = self.auth_expires_ms {
            pairs.put("auth_expires_ms", |out| out.u64(ms)?.ok());
        }
        pairs
    }

    pub(super) fn decode(item: Item<'_>) -> Result<Self, HelloError> {
        let (mut id, mut resume_ms, mut secret, mut auth_expires_ms) = (None, None, None, None);
        let uint = |value: Item<'_>, key| value.as_u64().ok_or(HelloError::Invalid(key));
        for (key, value) in item.map()? {
            match key {
                "id" => id = Some(SessionId(bytes(value, "id")?)),
                "resume_ms" => resume_ms = Some(uint(value, "resume_ms")?),
                "secret" => secret = Some(Secret::new(bytes(value, "secret")?)),
                "auth_expires_ms" => auth_expires_ms = Some(uint(value, "auth_expires_ms")?),
                _ => {}
            }
        }
        Ok(Self { id: need(id, "id")?, resume_ms: need(resume_ms, "resume_ms")?, secret, auth_expires_ms })
    }
}
