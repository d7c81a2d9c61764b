//! What a scripted peer may say of streams, and the hellos that make them possible.

use std::collections::BTreeMap;

use fluxar::Error;
use fluxar_proto::message::{Id, Kind, verb};
use serde::Serialize;

use crate::guests::Shown;
use crate::resume::Session;
use crate::wire::Message;

/// What a scripted peer has and takes: the parts of its hello that tests choose.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Terms {
    caps: Caps,
    limits: BTreeMap<&'static str, u32>,
    #[serde(flatten)]
    session: Session,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Caps {
    features: Vec<&'static str>,
}

#[derive(Serialize)]
struct Hello<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<[u8; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<&'a Shown<'a>>,
    #[serde(flatten)]
    terms: &'a Terms,
}

impl Terms {
    /// Streams, and the limits that hold where nobody says anything.
    pub fn streams() -> Self {
        Self::default().feature("stream")
    }

    /// The same with another feature.
    #[must_use]
    pub fn feature(mut self, name: &'static str) -> Self {
        self.caps.features.push(name);
        self
    }

    /// The same with a limit.
    #[must_use]
    pub fn limit(mut self, name: &'static str, value: u32) -> Self {
        self.limits.insert(name, value);
        self
    }

    /// The same with what an offer or an answer says of sessions.
    #[must_use]
    pub fn session(mut self, session: Session) -> Self {
        self.session = session;
        self
    }

    /// An offer of them.
    pub fn offer(&self) -> Message {
        Message::offer().payload(&Hello { versions: Some([1]), version: None, auth: None, terms: self })
    }

    /// The same with credentials.
    pub fn offer_of(&self, auth: &Shown<'_>) -> Message {
        Message::offer().payload(&Hello { versions: Some([1]), version: None, auth: Some(auth), terms: self })
    }

    /// The answer to an offer.
    pub fn answer(&self, offer: Id) -> Message {
        Message::answer(offer).payload(&Hello { versions: None, version: Some(1), auth: None, terms: self })
    }
}

impl Message {
    /// Opens a stream.
    pub fn stream(method: &str) -> Self {
        Self::opening(Kind::Stream, method)
    }

    /// One item of a stream; null, until it gets a payload.
    pub fn item(stream: Id) -> Self {
        Self::continuation(Kind::Stream, stream)
    }

    /// Several items of a stream, once it gets an array as payload.
    pub fn items(stream: Id) -> Self {
        Self::item(stream).verb(verb::ITEMS)
    }

    /// The end of the sender's direction.
    pub fn end(stream: Id) -> Self {
        Self::item(stream).verb(verb::END)
    }

    /// The end of a whole stream, with an error.
    pub fn failure(stream: Id, error: Error) -> Self {
        Self::end(stream).error(error)
    }

    /// Gives a stream up.
    pub fn abandon(stream: Id) -> Self {
        Self::item(stream).verb(verb::CANCEL)
    }

    /// Lets the other side send so many bytes more.
    pub fn credit(stream: Id, bytes: u64) -> Self {
        Self::item(stream).verb(verb::CREDIT).payload(&bytes)
    }

    /// Asks the other side to stop sending for now.
    pub fn pause(stream: Id) -> Self {
        Self::item(stream).verb(verb::PAUSE)
    }

    /// Asks the other side to go on.
    pub fn resume(stream: Id) -> Self {
        Self::item(stream).verb(verb::RESUME)
    }

    /// What a message does on a stream: its verb, or none for an item.
    pub fn does(&self) -> Option<&str> {
        self.target.as_deref()
    }
}
