//! The payloads of `hello`: offers, answers and proofs (§6.2).

mod answer;
mod offer;
mod resume;

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use minicbor::{Encoder, encode};
use zeroize::Zeroize;

pub(crate) use self::answer::{Answer, Asked, LastOrNext, LaterAnswer, Proof, refused_version};
pub use self::offer::Offer;
pub use self::resume::{LaneCount, ResumeOffer, SessionId};
pub(crate) use self::resume::{Resumed, SessionGrant};
use super::error::HelloError;
use super::limits::Limits;
use super::psk::Bytes32;
use crate::message::{Item, Payload};

/// The protocol versions that this implementation speaks.
pub(crate) const VERSIONS: &[u64] = &[1];

/// The features that the protocol has (§6.6); other names mean nothing to us.
const FEATURES: [&str; 4] = [feature::STREAM, feature::PUBSUB, feature::RESUME, "lanes"];

/// The names of the features that there is code for.
pub(crate) mod feature {
    pub(crate) const STREAM: &str = "stream";
    pub(crate) const PUBSUB: &str = "pubsub";
    pub(crate) const RESUME: &str = "resume";
}

/// The longest name in a hello, in bytes: of a side, and of a pre-shared key.
pub(crate) const MAX_NAME: usize = 255;

/// What comes of writing.
type Written = Result<(), encode::Error<Infallible>>;

/// A map in the making, whose pairs are counted as they come.
struct Pairs {
    count: u64,
    encoded: Vec<u8>,
}

impl Pairs {
    const fn new() -> Self {
        Self { count: 0, encoded: Vec::new() }
    }

    fn put(&mut self, key: &str, write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Written) {
        let mut out = Encoder::new(&mut self.encoded);
        let written = out.str(key).map(|_| ()).and_then(|()| write(&mut out));
        debug_assert!(written.is_ok(), "a vector takes all that is written");
        self.count += 1;
    }

    fn put_bytes(&mut self, key: &str, bytes: &[u8]) {
        self.put(key, |out| out.bytes(bytes)?.ok());
    }

    /// A map within the map.
    fn put_map(&mut self, key: &str, inner: Self) {
        self.put(key, |out| inner.write(out));
    }

    fn write(self, out: &mut Encoder<&mut Vec<u8>>) -> Written {
        out.map(self.count)?;
        out.writer_mut().extend_from_slice(&self.encoded);
        Ok(())
    }

    fn build(self) -> Payload {
        Payload::build(|out| self.write(out))
    }
}

/// It may have held secrets.
impl Drop for Pairs {
    fn drop(&mut self) {
        self.encoded.zeroize();
    }
}

/// Writes what offer and answer have in common.
fn put_common(pairs: &mut Pairs, agent: &Option<String>, features: &[String], limits: &Limits) {
    if let Some(agent) = agent {
        pairs.put("agent", |out| out.str(agent)?.ok());
    }
    if !features.is_empty() {
        pairs.put("caps", |out| {
            out.map(1)?.str("features")?.array(features.len() as u64)?;
            for feature in features {
                out.str(feature)?;
            }
            Ok(())
        });
    }
    if !limits.is_absent() {
        pairs.put("limits", |out| limits.encode(out));
    }
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
    /// Reads a hello; what is peculiar to one of the two goes to `other`.
    fn decode<'a, E: From<HelloError>>(
        item: Item<'a>,
        mut other: impl FnMut(&'a str, Item<'a>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut common = Self { agent: None, caps: Caps::default(), limits: Limits::ABSENT };
        for (key, value) in item.map().map_err(HelloError::from)? {
            match key {
                "agent" => common.agent = Some(name(value, "agent")?),
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

/// A name, which is of a bounded length.
fn name(item: Item<'_>, key: &'static str) -> Result<String, HelloError> {
    let name = item.as_str().filter(|name| name.len() <= MAX_NAME);
    name.map(String::from).ok_or(HelloError::Invalid(key))
}

/// A byte string of exactly so many bytes.
fn bytes<const N: usize>(item: Item<'_>, key: &'static str) -> Result<[u8; N], HelloError> {
    item.as_byte_str().and_then(|bytes| bytes.try_into().ok()).ok_or(HelloError::Invalid(key))
}

/// What a map must hold under `key`.
fn need<T>(value: Option<T>, key: &'static str) -> Result<T, HelloError> {
    value.ok_or(HelloError::Missing(key))
}

/// The 32 bytes that a `psk` map holds under `key`, if it holds them.
fn psk_bytes(item: Item<'_>, key: &'static str) -> Result<Option<Bytes32>, HelloError> {
    let found = item.map()?.find(|(found, _)| *found == key);
    found.map(|(_, value)| bytes(value, key)).transpose()
}

/// As much of our own name as a hello may hold.
pub(crate) fn cut_agent(agent: &str) -> &str {
    agent.get(..agent.floor_char_boundary(MAX_NAME)).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
