//! The first message of a link (§6.3).

use alloc::string::String;
use alloc::vec::Vec;

use super::{Common, Pairs, ResumeOffer, VERSIONS, bytes, name, need, put_common};
use crate::message::{Item, Payload};
use crate::session::auth::Auth;
use crate::session::error::HelloError;
use crate::session::limits::Limits;
use crate::session::psk::Bytes32;

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
    /// The initiator's credentials (§6.11).
    pub auth: Option<Auth>,
    /// The name of the pre-shared key that the initiator holds (§6.12).
    pub psk: Option<String>,
    /// The session that is to go on (§9.5).
    pub resume: Option<ResumeOffer>,
    /// What the initiator adds to the proofs of this handshake.
    nonce: Bytes32,
}

impl Offer {
    pub(crate) fn new(agent: Option<String>, features: Vec<String>, limits: Limits) -> Self {
        let (auth, psk, resume, nonce) = (None, None, None, Bytes32::default());
        Self { versions: VERSIONS.to_vec(), agent, features, limits, auth, psk, resume, nonce }
    }

    /// Names a pre-shared key. The nonce is random and serves for nothing else (§6.12).
    pub(crate) fn with_psk(mut self, id: String, nonce: Bytes32) -> Self {
        (self.psk, self.nonce) = (Some(id), nonce);
        self
    }

    pub(crate) fn encode(&self) -> Payload {
        let mut pairs = Pairs::new();
        pairs.put("versions", |out| {
            out.array(self.versions.len() as u64)?;
            for version in &self.versions {
                out.u64(*version)?;
            }
            Ok(())
        });
        put_common(&mut pairs, &self.agent, &self.features, &self.limits);
        if let Some(auth) = &self.auth {
            pairs.put("auth", |out| auth.encode(out));
        }
        if let Some(id) = &self.psk {
            let mut psk = Pairs::new();
            psk.put("id", |out| out.str(id)?.ok());
            psk.put_bytes("nonce", &self.nonce);
            pairs.put_map("psk", psk);
        }
        if let Some(resume) = &self.resume {
            pairs.put_map("resume", resume.pairs());
        }
        pairs.build()
    }

    /// The versions of an offer, and the one chosen of them. They are read before all else, since the meaning of the rest may have changed in a
    /// version that we do not know (§6.5).
    pub(crate) fn decode_versions(item: Item<'_>) -> Result<(Vec<u64>, Option<u64>), HelloError> {
        let versions = item.map()?.find(|(key, _)| *key == "versions");
        let (_, versions) = need(versions, "versions")?;
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
        let (mut auth, mut psk, mut resume) = (None, None, None);
        let common = Common::decode(item, |key, value| {
            match key {
                "auth" => auth = Some(Auth::decode(value)?),
                "psk" => psk = Some(decode_psk(value)?),
                "resume" => resume = Some(ResumeOffer::decode(value)?),
                _ => {}
            }
            Ok::<_, HelloError>(())
        })?;
        let (psk, nonce) = psk.map_or((None, Bytes32::default()), |(id, nonce)| (Some(id), nonce));
        let (agent, features, limits) = (common.agent, common.caps.features, common.limits);
        Ok(Self { versions, agent, features, limits, auth, psk, resume, nonce })
    }
}

/// The name of a key, and the nonce.
fn decode_psk(item: Item<'_>) -> Result<(String, Bytes32), HelloError> {
    let (mut id, mut nonce) = (None, None);
    for (key, value) in item.map()? {
        match key {
            "id" => id = Some(name(value, "id")?),
            "nonce" => nonce = Some(bytes(value, "nonce")?),
            _ => {}
        }
    }
    Ok((need(id, "id")?, need(nonce, "nonce")?))
}
