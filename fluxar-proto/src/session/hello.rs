//! The payloads of `hello`: offer and answer (§6.3, §6.4).

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use minicbor::{Encoder, encode};

use super::error::{ConnectionError, HelloError, Violation};
use super::limits::Limits;
use crate::message::{Code, Error, Item, Payload};

/// The protocol versions that this implementation speaks.
pub(crate) const VERSIONS: &[u64] = &[1];

/// The features that the protocol has (§6.6); other names mean nothing to us.
const FEATURES: [&str; 4] = [feature::STREAM, feature::PUBSUB, "resume", "lanes"];

/// The names of the features that there is code for.
pub(crate) mod feature {
    pub(crate) const STREAM: &str = "stream";
    pub(crate) const PUBSUB: &str = "pubsub";
}

/// The longest name that a side may give itself, in bytes.
const MAX_AGENT: usize = 255;

/// How many versions of an offer are kept to be looked at.
const VERSIONS_KEPT: usize = 16;

/// What an initiator offers in the first message of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// The protocol versions that the initiator speaks; the first 16 of them.
    pub versions: Vec<u64>,
    /// What the initiator calls itself, e.g. `fluxar-rs/0.1.0`.
    pub agent: Option<String>,
    /// Optional features that the initiator can use, by preference. None: FLUXAR Core, calls only.
    pub features: Vec<String>,
    /// What the initiator is ready to receive.
    pub limits: Limits,
}

impl Offer {
    pub(crate) fn new(agent: Option<String>, features: Vec<String>, limits: Limits) -> Self {
        Self { versions: VERSIONS.to_vec(), agent, features, limits }
    }

    pub(crate) fn encode(&self) -> Payload {
        encode_hello(&self.agent, &self.features, &self.limits, |out| {
            out.str("versions")?.array(self.versions.len() as u64)?;
            for version in &self.versions {
                out.u64(*version)?;
            }
            Ok(())
        })
    }

    /// The versions of an offer, and the one chosen of them. They are read before all else, since the meaning of the rest may have changed in a
    /// version that we do not know (§6.5).
    pub(crate) fn decode_versions(item: Item<'_>) -> Result<(Vec<u64>, Option<u64>), HelloError> {
        let versions = item.map()?.find(|(key, _)| *key == "versions");
        let (_, versions) = versions.ok_or(HelloError::Missing("versions"))?;
        let (mut kept, mut chosen) = (Vec::new(), None);
        for version in versions.array()? {
            let version = version.as_u64().ok_or(HelloError::Invalid("versions"))?;
            if VERSIONS.contains(&version) {
                chosen = chosen.max(Some(version));
            }
            // Who waits for a verdict must not hold more memory than it has sent.
            if kept.len() < VERSIONS_KEPT {
                kept.push(version);
            }
        }
        if kept.is_empty() { Err(HelloError::Invalid("versions")) } else { Ok((kept, chosen)) }
    }

    /// The rest of an offer. Unknown keys are ignored (§6.2): that is how later versions add to it.
    pub(crate) fn decode(versions: Vec<u64>, item: Item<'_>) -> Result<Self, HelloError> {
        let common = Common::decode(item, |_, _| Ok(()))?;
        Ok(Self { versions, agent: common.agent, features: common.caps.features, limits: common.limits })
    }
}

/// What a responder answers to an offer that it accepts.
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
}

impl Answer {
    pub(crate) fn encode(&self) -> Payload {
        encode_hello(&self.agent, &self.features, &self.limits, |out| {
            out.str("version")?.u64(self.version)?;
            Ok(())
        })
    }

    /// Our offer holds neither compression nor encryption, a key or a session, so that none can be chosen (§6.4).
    pub(crate) fn decode(item: Item<'_>) -> Result<Self, ConnectionError> {
        let mut version = None;
        let (mut unasked, mut proof) = (false, false);
        let common = Common::decode(item, |key, value| {
            match key {
                "version" => version = Some(value.as_u64().ok_or(HelloError::Invalid("version"))?),
                "next" => proof = true,
                "psk" | "resumed" => unasked = true,
                _ => {}
            }
            Ok(())
        })?;
        // A proof of identity is asked for, which we cannot give (§6.10).
        if proof {
            return Err(ConnectionError::ProofRequired);
        }
        if unasked || common.caps.others || common.caps.unknown {
            return Err(Violation::WrongAnswer.into());
        }
        let version = version.ok_or(HelloError::Missing("version"))?;
        Ok(Self { version, agent: common.agent, features: common.caps.features, limits: common.limits })
    }

    /// Whether every feature that was chosen had been offered (§6.6).
    pub(crate) fn fits(&self, offered: &[String]) -> bool {
        self.features.iter().all(|feature| offered.contains(feature))
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

/// Writes the map that offer and answer have in common; `first` writes the pair in which they differ.
fn encode_hello(
    agent: &Option<String>,
    features: &[String],
    limits: &Limits,
    first: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), encode::Error<Infallible>>,
) -> Payload {
    let pairs =
        1 + u64::from(agent.is_some()) + u64::from(!features.is_empty()) + u64::from(!limits.is_absent());
    Payload::build(|out| {
        out.map(pairs)?;
        first(out)?;
        if let Some(agent) = agent {
            out.str("agent")?.str(agent)?;
        }
        if !features.is_empty() {
            out.str("caps")?.map(1)?.str("features")?.array(features.len() as u64)?;
            for feature in features {
                out.str(feature)?;
            }
        }
        if !limits.is_absent() {
            out.str("limits")?;
            limits.encode(out)?;
        }
        Ok(())
    })
}

/// What offer and answer have in common.
struct Common {
    agent: Option<String>,
    caps: Caps,
    limits: Limits,
}

/// The capabilities in a hello.
#[derive(Default)]
struct Caps {
    /// The features that we know by name, each once.
    features: Vec<String>,
    /// There are other features too.
    unknown: bool,
    /// Compression or encryption is there too.
    others: bool,
}

impl Common {
    fn decode<'a>(
        item: Item<'a>,
        mut other: impl FnMut(&'a str, Item<'a>) -> Result<(), HelloError>,
    ) -> Result<Self, HelloError> {
        let mut common = Self { agent: None, caps: Caps::default(), limits: Limits::ABSENT };
        for (key, value) in item.map()? {
            match key {
                "agent" => common.agent = Some(agent(value)?),
                "caps" => common.caps = caps(value)?,
                "limits" => common.limits = Limits::decode(value)?,
                _ => other(key, value)?,
            }
        }
        Ok(common)
    }
}

fn caps(item: Item<'_>) -> Result<Caps, HelloError> {
    let mut caps = Caps::default();
    for (key, value) in item.map()? {
        match key {
            "features" => (caps.features, caps.unknown) = features(value)?,
            "compress" | "encrypt" => caps.others = true,
            _ => {}
        }
    }
    Ok(caps)
}

/// The features that we know by name, and whether there are others. However many there are, what is kept is bounded.
fn features(item: Item<'_>) -> Result<(Vec<String>, bool), HelloError> {
    let (mut features, mut unknown) = (Vec::<String>::new(), false);
    for name in item.array()? {
        let name = name.as_str().ok_or(HelloError::Invalid("features"))?;
        unknown |= !FEATURES.contains(&name);
        if FEATURES.contains(&name) && !features.iter().any(|known| known == name) {
            features.push(name.into());
        }
    }
    Ok((features, unknown))
}

fn agent(item: Item<'_>) -> Result<String, HelloError> {
    let agent = item.as_str().filter(|agent| agent.len() <= MAX_AGENT);
    agent.map(String::from).ok_or(HelloError::Invalid("agent"))
}

/// As much of our own name as a hello may hold.
pub(crate) fn cut_agent(agent: &str) -> &str {
    agent.get(..agent.floor_char_boundary(MAX_AGENT)).unwrap_or_default()
}
