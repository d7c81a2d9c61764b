//! The payloads of `hello`: offer and answer (§6.3, §6.4).

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use minicbor::{Encoder, encode};

use super::error::HelloError;
use super::limits::Limits;
use crate::message::{Code, Error, Item, Payload};

/// The protocol versions that this implementation speaks.
pub(crate) const VERSIONS: &[u64] = &[1];

/// What an initiator offers in the first message of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// The protocol versions that the initiator speaks.
    pub versions: Vec<u64>,
    /// What the initiator calls itself, e.g. `fluxar-rs/0.1.0`.
    pub agent: Option<String>,
    /// Optional features that the initiator can use, by preference. None: FLUXAR Core, calls only.
    pub features: Vec<String>,
    /// What the initiator is ready to receive.
    pub limits: Limits,
}

impl Offer {
    pub(crate) fn new(agent: Option<String>, limits: Limits) -> Self {
        Self { versions: VERSIONS.to_vec(), agent, features: Vec::new(), limits }
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

    /// Unknown keys are ignored (§6.2): that is how later versions add to the offer.
    pub(crate) fn decode(item: Item<'_>) -> Result<Self, HelloError> {
        let mut versions = None;
        let common = Common::decode(item, |key, value| {
            if key == "versions" {
                let list = value.array()?.map(|v| v.as_u64().ok_or(HelloError::Invalid("versions")));
                versions = Some(list.collect::<Result<Vec<u64>, _>>()?);
            }
            Ok(())
        })?;
        match versions {
            Some(versions) if !versions.is_empty() => {
                let features = common.features.unwrap_or_default();
                Ok(Self { versions, agent: common.agent, features, limits: common.limits })
            }
            Some(_) => Err(HelloError::Invalid("versions")),
            None => Err(HelloError::Missing("versions")),
        }
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

    pub(crate) fn decode(item: Item<'_>) -> Result<Self, HelloError> {
        let mut version = None;
        let mut demands = None;
        let common = Common::decode(item, |key, value| {
            match key {
                "version" => version = Some(value.as_u64().ok_or(HelloError::Invalid("version"))?),
                // Each of these would answer something that our offer did not contain.
                "next" | "psk" | "resumed" | "challenge" => demands = Some(key),
                _ => {}
            }
            Ok(())
        })?;
        if demands.is_some() {
            return Err(HelloError::Invalid("answer to what was not offered"));
        }
        let version = version.ok_or(HelloError::Missing("version"))?;
        let features = common.features.unwrap_or_default();
        Ok(Self { version, agent: common.agent, features, limits: common.limits })
    }
}

/// The highest version that both sides speak.
pub(crate) fn choose_version(offered: &[u64]) -> Option<u64> {
    VERSIONS.iter().copied().filter(|version| offered.contains(version)).max()
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
    features: Option<Vec<String>>,
    limits: Limits,
}

impl Common {
    fn decode<'a>(
        item: Item<'a>,
        mut other: impl FnMut(&'a str, Item<'a>) -> Result<(), HelloError>,
    ) -> Result<Self, HelloError> {
        let mut common = Self { agent: None, features: None, limits: Limits::ABSENT };
        for (key, value) in item.map()? {
            match key {
                "agent" => common.agent = Some(text(value, "agent")?),
                "caps" => common.features = features(value)?,
                "limits" => common.limits = Limits::decode(value)?,
                _ => other(key, value)?,
            }
        }
        Ok(common)
    }
}

fn features(caps: Item<'_>) -> Result<Option<Vec<String>>, HelloError> {
    for (key, value) in caps.map()? {
        if key == "features" {
            return value
                .array()?
                .map(|feature| text(feature, "features"))
                .collect::<Result<_, _>>()
                .map(Some);
        }
    }
    Ok(None)
}

fn text(item: Item<'_>, what: &'static str) -> Result<String, HelloError> {
    item.as_str().map(String::from).ok_or(HelloError::Invalid(what))
}
