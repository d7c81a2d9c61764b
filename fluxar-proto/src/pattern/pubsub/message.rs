//! What is published and delivered.

use alloc::sync::Arc;

use bytes::Bytes;

use super::errors::MessageError;
use super::types::{Publication, Qos};
use crate::message::{DecodeError, DecodeErrorKind, Item, Meta, Payload, key};
use crate::pattern::Text;
use crate::topic::{TopicError, check_topic, is_reserved};

/// What belongs to the protocol in metadata (§5.10): it is not the application's, and no hub passes it on (§12.5).
const OWN: [&str; 11] = [
    key::QOS,
    key::TOPIC,
    key::DUP,
    key::ATTEMPT,
    key::SEQ,
    key::RETAIN,
    key::RETAINED,
    key::TIMEOUT_MS,
    key::WINDOW,
    key::INFLIGHT,
    key::GROUP,
];

/// The most keys that a publication may have, so that a hub has room for its own (§12.5).
pub(super) const PUBLICATION_KEYS: usize = 56;

/// How many of these the protocol itself sets on one publication: `qos`, `retain`, `dup`, `attempt`.
const SET: usize = 4;

/// What an envelope and the protocol's own metadata take at most, but for the topic, in bytes.
const ENVELOPE_COST: usize = 128;

/// What a message counts for beyond its bytes: so that many small ones are bounded too.
pub(super) const MESSAGE_COST: usize = 128;

/// Payloads from this size on, in bytes, are shared with the frame that they came in.
const SHARED: usize = 8 << 10;

/// The application's metadata: one encoded map, or empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct AppMeta {
    map: Bytes,
    len: usize,
    /// Where in `map` the entries begin.
    entries_at: usize,
}

impl AppMeta {
    /// Checks metadata that must have no key of the protocol's, and `most` at the most.
    pub(super) fn new(map: Bytes, most: usize) -> Result<Self, Option<DecodeError>> {
        if map.is_empty() {
            return Ok(Self::default());
        }
        let meta = Meta::decode(&map)?;
        if OWN.iter().any(|key| meta.get(key).is_some()) {
            return Err(None);
        }
        if meta.len() > most {
            return Err(Some(DecodeError { offset: 0, kind: DecodeErrorKind::TooManyKeys }));
        }
        let (len, entries_at) = (meta.len(), map.len() - meta.entries().len());
        Ok(Self { map, len, entries_at })
    }

    /// What the application said in the metadata of a message that came; what the protocol said is left out.
    pub(super) fn of(meta: Meta<'_>) -> Bytes {
        let ours = |(key, _): &(&str, Item<'_>)| OWN.contains(key);
        let left = meta.len() - meta.iter().filter(ours).count();
        if left == 0 {
            return Bytes::new();
        }
        crate::message::build_bytes(|out| {
            out.map(left as u64)?;
            for (key, value) in meta.iter().filter(|pair| !ours(pair)) {
                out.str(key)?;
                out.writer_mut().extend_from_slice(value.as_bytes());
            }
            Ok(())
        })
    }

    /// The map as it is sent, or nothing.
    pub(super) fn into_map(self) -> Bytes {
        self.map
    }

    /// The entries, without the head of the map.
    pub(crate) fn as_meta(&self) -> Meta<'_> {
        Meta::trusted(self.len, self.map.get(self.entries_at..).unwrap_or_default())
    }
}

/// One message, wherever it goes.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) topic: Text,
    pub(crate) qos: Qos,
    /// Of a publication: it is to be kept.
    pub(crate) retain: bool,
    /// Of a publication: the application says when it is released.
    pub(crate) durable: bool,
    pub(crate) meta: AppMeta,
    pub(crate) payload: Payload,
}

impl Content {
    /// Bytes that it holds in memory.
    pub(super) fn held(&self) -> usize {
        self.topic.len() + self.meta.map.len() + self.payload.len()
    }

    /// The size of the message, in bytes at most, with whatever the protocol says in its metadata.
    pub(super) fn size(&self) -> usize {
        ENVELOPE_COST + self.held()
    }
}

/// A message for subscribers, built once for all of them: a clone shares its bytes.
///
/// ```
/// use fluxar_proto::{OutMessage, Payload, Qos};
///
/// let payload = Payload::new(vec![0x18, 42].into())?; // 42
/// let message = OutMessage::new("answers", Qos::AtLeastOnce, payload, Default::default())?;
/// assert_eq!(&**message.topic(), "answers");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct OutMessage {
    content: Arc<Content>,
    retained: bool,
    /// How often it was sent to somebody else, who may have handled it.
    attempts: u32,
}

impl OutMessage {
    /// A message on `topic`, with metadata of the application: one encoded CBOR map with text keys, or empty.
    ///
    /// # Errors
    ///
    /// The topic or the metadata is none, or belongs to the protocol.
    pub fn new(topic: &str, qos: Qos, payload: Payload, meta: Bytes) -> Result<Self, MessageError> {
        check_publishable(topic).map_err(MessageError::BadTopic)?;
        let meta = AppMeta::new(meta, PUBLICATION_KEYS - SET).map_err(MessageError::BadMeta)?;
        Ok(Self::of(Content { topic: Text::from(topic), qos, retain: false, durable: false, meta, payload }))
    }

    fn of(content: Content) -> Self {
        Self { content: Arc::new(content), retained: false, attempts: 0 }
    }

    /// The same message as the last value of its topic, for those who subscribe later.
    #[must_use]
    pub fn into_retained(mut self) -> Self {
        self.retained = true;
        self
    }

    /// The same message, which was sent `attempts` times to another member of a group: it is delivered as the next attempt
    /// (§12.15).
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// How often it was sent to somebody else.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What it is about.
    pub fn topic(&self) -> &Text {
        &self.content.topic
    }

    /// The highest mode in which it is delivered.
    pub fn qos(&self) -> Qos {
        self.content.qos
    }

    /// The application's metadata: one encoded CBOR map, or empty.
    pub fn meta(&self) -> &Bytes {
        &self.content.meta.map
    }

    /// What it carries.
    pub fn payload(&self) -> &Payload {
        &self.content.payload
    }

    /// Whether it is a last value from before the subscription that gets it.
    pub fn is_retained(&self) -> bool {
        self.retained
    }

    /// Bytes that it holds in memory, but for what is shared by all messages.
    pub fn held_bytes(&self) -> usize {
        self.content.held() + MESSAGE_COST
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }
}

/// What a hub passes on. A small message is copied once, out of the buffer that it came in with others: nobody can say
/// how long it will wait for its subscribers.
impl From<&Publication> for OutMessage {
    fn from(publication: &Publication) -> Self {
        let Publication { topic, qos, meta, payload, .. } = publication;
        let meta = AppMeta::new(meta.clone(), PUBLICATION_KEYS).unwrap_or_default();
        let (topic, payload) = if payload.len() < SHARED {
            let mut both = alloc::vec::Vec::with_capacity(topic.len() + payload.len());
            both.extend_from_slice(topic.as_bytes());
            both.extend_from_slice(payload.as_bytes());
            let mut both = Bytes::from(both);
            let topic = both.split_to(topic.len());
            (Text::trusted(topic), Payload::trusted(both))
        } else {
            (Text::from(&**topic), payload.clone())
        };
        Self::of(Content { topic, qos: *qos, retain: false, durable: false, meta, payload })
    }
}

/// What a publication or a delivery says of itself, from its metadata.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) qos: Qos,
    pub(super) dup: bool,
    /// From 1.
    pub(super) attempt: u32,
    pub(super) retain: bool,
    pub(super) retained: bool,
    pub(super) seq: Option<u64>,
    pub(super) topic: Option<&'a str>,
    /// There is something else, of the application's.
    pub(super) more: bool,
}

impl<'a> Said<'a> {
    /// Reads metadata; the first key whose value is not what a publication must have there, if there is one. Other keys with
    /// bad values say nothing (§5.10).
    pub(super) fn read(meta: Meta<'a>) -> (Self, Option<&'static str>) {
        let mut said = Self { attempt: 1, ..Self::default() };
        let mut bad = None;
        for (key, value) in meta {
            let (known, good) = match key {
                key::QOS => (key::QOS, value.as_u64().and_then(Qos::from_wire).map(|qos| said.qos = qos)),
                key::DUP => (key::DUP, value.as_bool().map(|dup| said.dup = dup)),
                key::ATTEMPT => {
                    (key::ATTEMPT, positive(value).map(|attempt| said.attempt = saturate(attempt)))
                }
                key::RETAIN => (key::RETAIN, value.as_bool().map(|retain| said.retain = retain)),
                // Of deliveries only, where a bad value is ignored.
                key::RETAINED => {
                    said.retained = value.as_bool() == Some(true);
                    continue;
                }
                key::SEQ => {
                    said.seq = positive(value);
                    continue;
                }
                key::TOPIC => {
                    said.topic = value.as_str();
                    continue;
                }
                _ => {
                    said.more = true;
                    continue;
                }
            };
            if good.is_none() {
                bad.get_or_insert(known);
            }
        }
        (said, bad)
    }

    /// What the application said besides.
    pub(super) fn rest(&self, meta: Meta<'_>) -> Bytes {
        if self.more { AppMeta::of(meta) } else { Bytes::new() }
    }
}

/// Checks the application's metadata of a publication.
pub(super) fn publication_meta(meta: Bytes) -> Result<AppMeta, Option<DecodeError>> {
    AppMeta::new(meta, PUBLICATION_KEYS - SET)
}

/// Checks that an application may publish on `topic`.
pub(super) fn check_publishable(topic: &str) -> Result<(), TopicError> {
    check_topic(topic)?;
    if is_reserved(topic) { Err(TopicError::Reserved) } else { Ok(()) }
}

fn positive(value: Item<'_>) -> Option<u64> {
    value.as_u64().filter(|value| *value > 0)
}

fn saturate(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
