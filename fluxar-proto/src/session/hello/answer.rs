//! What a responder answers, and what an initiator proves when it is asked to (§6.4, §6.10).

use alloc::string::String;
use alloc::vec::Vec;

use super::{Common, Pairs, Resumed, SessionGrant, VERSIONS, need, psk_bytes, put_common};
use crate::message::{Code, Error, Item, Payload};
use crate::session::auth::Auth;
use crate::session::error::{ConnectionError, HelloError, Violation};
use crate::session::limits::Limits;
use crate::session::psk::Bytes32;

/// The only value of `next` (§6.10).
const PROOF: &str = "proof";

/// What a responder answers to an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The version chosen: the highest common one.
    pub(crate) version: u64,
    /// What the responder calls itself.
    pub(crate) agent: Option<String>,
    /// The features chosen; one that is absent is off.
    pub(crate) features: Vec<String>,
    /// What the responder is ready to receive.
    pub(crate) limits: Limits,
    /// The responder takes part in the pre-shared key: its nonce.
    pub(crate) psk: Option<Bytes32>,
    /// The session of the offer goes on.
    pub(crate) resumed: Option<Resumed>,
    pub(crate) last: LastOrNext,
}

/// What a responder answers to a proof.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaterAnswer {
    /// The responder's own proof of the pre-shared key.
    pub(crate) psk: Option<Bytes32>,
    pub(crate) last: LastOrNext,
}

/// Whether an answer is the last one, and what belongs to that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastOrNext {
    /// One more proof is asked for.
    pub(crate) next: bool,
    /// For the scheme of custom credentials.
    pub(crate) challenge: Option<Payload>,
    /// The session, in the last answer.
    pub(crate) session: Option<SessionGrant>,
}

/// What an initiator has offered that an answer may take up (§6.4).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// A pre-shared key.
    pub(crate) psk: bool,
    /// That a session goes on.
    pub(crate) resume: bool,
}

impl Answer {
    pub(crate) fn encode(&self) -> Payload {
        let mut pairs = Pairs::new();
        pairs.put("version", |out| out.u64(self.version)?.ok());
        put_common(&mut pairs, &self.agent, &self.features, &self.limits);
        if let Some(nonce) = &self.psk {
            let mut psk = Pairs::new();
            psk.put_bytes("nonce", nonce);
            pairs.put_map("psk", psk);
        }
        if let Some(resumed) = &self.resumed {
            pairs.put_map("resumed", resumed.pairs());
        }
        self.last.put(&mut pairs);
        pairs.build()
    }

    /// Our offer holds neither compression nor encryption, so that none can be chosen; nor can what was not `asked` for
    /// (§6.4), whatever it looks like.
    pub(crate) fn decode(item: Item<'_>, asked: Asked) -> Result<Self, ConnectionError> {
        let (mut version, mut psk, mut resumed) = (None, None, None);
        let mut last = LastOrNext::default();
        let common = Common::decode(item, |key, value| {
            match key {
                "version" => version = Some(value.as_u64().ok_or(HelloError::Invalid("version"))?),
                "psk" if asked.psk => psk = Some(need(psk_bytes(value, "nonce")?, "nonce")?),
                "resumed" if asked.resume => resumed = Some(Resumed::decode(value)?),
                "psk" | "resumed" => return Err(Violation::WrongAnswer.into()),
                _ => last.decode(key, value)?,
            }
            Ok::<_, ConnectionError>(())
        })?;
        if common.caps.others || common.caps.unknown {
            return Err(Violation::WrongAnswer.into());
        }
        let version = need(version, "version")?;
        let (agent, features, limits) = (common.agent, common.caps.features, common.limits);
        Ok(Self { version, agent, features, limits, psk, resumed, last })
    }

    /// Whether every feature that was chosen had been offered (§6.6), and the version is one of ours.
    pub(crate) fn fits(&self, offered: &[String]) -> bool {
        VERSIONS.contains(&self.version) && self.features.iter().all(|feature| offered.contains(feature))
    }
}

impl LaterAnswer {
    pub(crate) fn encode(&self) -> Payload {
        let mut pairs = Pairs::new();
        if let Some(proof) = &self.psk {
            let mut psk = Pairs::new();
            psk.put_bytes("proof", proof);
            pairs.put_map("psk", psk);
        }
        self.last.put(&mut pairs);
        pairs.build()
    }

    /// What the first answer has decided is ignored where it is repeated, the nonce of the pre-shared key included (§6.10).
    pub(crate) fn decode(item: Item<'_>) -> Result<Self, ConnectionError> {
        let mut answer = Self::default();
        for (key, value) in item.map().map_err(HelloError::from)? {
            match key {
                "psk" => answer.psk = psk_bytes(value, "proof")?,
                _ => answer.last.decode(key, value)?,
            }
        }
        Ok(answer)
    }
}

impl LastOrNext {
    /// One more proof is asked for.
    pub(crate) fn ask(challenge: Option<Payload>) -> Self {
        Self { next: true, challenge, session: None }
    }

    /// That is all.
    pub(crate) fn last(session: Option<SessionGrant>) -> Self {
        Self { next: false, challenge: None, session }
    }

    fn put(&self, pairs: &mut Pairs) {
        if self.next {
            pairs.put("next", |out| out.str(PROOF)?.ok());
        }
        if let Some(challenge) = &self.challenge {
            pairs.put("challenge", |out| {
                out.writer_mut().extend_from_slice(challenge.as_bytes());
                Ok(())
            });
        }
        if let Some(session) = &self.session {
            pairs.put_map("session", session.pairs());
        }
    }

    /// Takes up one key of an answer.
    fn decode(&mut self, key: &str, value: Item<'_>) -> Result<(), ConnectionError> {
        match key {
            "next" => match value.as_str() {
                Some(PROOF) => self.next = true,
                Some(_) => return Err(Violation::WrongAnswer.into()),
                None => return Err(HelloError::Invalid("next").into()),
            },
            "challenge" => self.challenge = Some(value.into()),
            "session" => self.session = Some(SessionGrant::decode(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// What an initiator proves (§6.10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) auth: Option<Auth>,
    /// That it holds the pre-shared key.
    pub(crate) psk: Option<Bytes32>,
}

impl Proof {
    pub(crate) fn encode(&self) -> Payload {
        let mut pairs = Pairs::new();
        if let Some(auth) = &self.auth {
            pairs.put("auth", |out| auth.encode(out));
        }
        if let Some(proof) = &self.psk {
            let mut psk = Pairs::new();
            psk.put_bytes("proof", proof);
            pairs.put_map("psk", psk);
        }
        pairs.build()
    }

    pub(crate) fn decode(item: Item<'_>) -> Result<Self, HelloError> {
        let mut proof = Self::default();
        for (key, value) in item.map()? {
            match key {
                "auth" => proof.auth = Some(Auth::decode(value)?),
                "psk" => proof.psk = Some(need(psk_bytes(value, "proof")?, "proof")?),
                _ => {}
            }
        }
        Ok(proof)
    }
}

/// The refusal of an offer without a common version: its `data` says what we speak (§6.5).
pub(crate) fn refused_version() -> Error {
    let data = Payload::build(|out| {
        out.array(VERSIONS.len() as u64)?;
        for version in VERSIONS {
            out.u64(*version)?;
        }
        Ok(())
    });
    Error::new(Code::UNSUPPORTED_VERSION, "no common protocol version").with_data(data).with_processed(false)
}
