//! What is wrong with what the application asks for.

use core::fmt;

use crate::message::DecodeError;
use crate::topic::TopicError;

/// Why a message was not published. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// Too much is queued, or the handshake is not done; [`PubSubEvent::Capacity`](crate::PubSubEvent::Capacity)
    /// announces room.
    Blocked,
    /// The peer has no publish/subscribe.
    NotNegotiated,
    /// The connection is closed or closing.
    Closed,
    /// The peer is about to leave, and takes nothing new (§8.6).
    Draining,
    /// The peer takes no messages with acknowledgement at all.
    NoInflight,
    /// A message of an earlier session goes on already.
    Resumed,
    /// The message is larger than the peer takes.
    TooLarge {
        /// Bytes that the message has, at most.
        len: usize,
        /// Bytes that the peer takes.
        limit: usize,
    },
    /// The topic is none.
    BadTopic(TopicError),
    /// The metadata is not a map, or has a key (None) that the protocol sets itself.
    BadMeta(Option<DecodeError>),
}

/// Why a subscription was not made. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The handshake is not done; [`PubSubEvent::Capacity`](crate::PubSubEvent::Capacity) says when it is.
    Blocked,
    /// The peer has no publish/subscribe.
    NotNegotiated,
    /// The connection is closed or closing.
    Closed,
    /// The peer is about to leave, and takes nothing new (§8.6).
    Draining,
    /// We have as many subscriptions as the peer takes.
    TooMany {
        /// How many it takes.
        limit: usize,
    },
    /// The message is larger than the peer takes.
    TooLarge {
        /// Bytes that the message has, at most.
        len: usize,
        /// Bytes that the peer takes.
        limit: usize,
    },
    /// The filter is none.
    BadFilter(TopicError),
    /// The group has no character, or more than 255 bytes.
    BadGroup,
    /// The metadata is not a map, or has a key (None) that the protocol sets itself.
    BadMeta(Option<DecodeError>),
}

/// What is wrong with a message for subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// The topic is none.
    BadTopic(TopicError),
    /// The metadata is not a map, or has a key (None) that the protocol sets itself.
    BadMeta(Option<DecodeError>),
}

fn bad_meta(f: &mut fmt::Formatter<'_>, error: Option<&DecodeError>) -> fmt::Result {
    match error {
        Some(error) => write!(f, "bad metadata: {error}"),
        None => f.write_str("bad metadata: a key that the protocol sets itself"),
    }
}

fn too_large(f: &mut fmt::Formatter<'_>, len: usize, limit: usize) -> fmt::Result {
    write!(f, "a message of {len} bytes, where the peer takes {limit}")
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked => f.write_str("no room for another publication now"),
            Self::NotNegotiated => f.write_str("the peer has no publish/subscribe"),
            Self::Closed => f.write_str("the connection is closed"),
            Self::Draining => f.write_str("the peer is about to leave"),
            Self::NoInflight => f.write_str("the peer takes no messages with acknowledgement"),
            Self::Resumed => f.write_str("a publication with this id goes on already"),
            Self::TooLarge { len, limit } => too_large(f, *len, *limit),
            Self::BadTopic(error) => write!(f, "bad topic: {error}"),
            Self::BadMeta(error) => bad_meta(f, error.as_ref()),
        }
    }
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked => f.write_str("no room for another subscription now"),
            Self::NotNegotiated => f.write_str("the peer has no publish/subscribe"),
            Self::Closed => f.write_str("the connection is closed"),
            Self::Draining => f.write_str("the peer is about to leave"),
            Self::TooMany { limit } => write!(f, "the peer takes no more than {limit} subscriptions"),
            Self::TooLarge { len, limit } => too_large(f, *len, *limit),
            Self::BadFilter(error) => write!(f, "bad filter: {error}"),
            Self::BadGroup => f.write_str("a group is named by 1 to 255 bytes"),
            Self::BadMeta(error) => bad_meta(f, error.as_ref()),
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadTopic(error) => write!(f, "bad topic: {error}"),
            Self::BadMeta(error) => bad_meta(f, error.as_ref()),
        }
    }
}

impl core::error::Error for PublishError {}
impl core::error::Error for SubscribeError {}
impl core::error::Error for MessageError {}

impl From<MessageError> for PublishError {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::BadTopic(error) => Self::BadTopic(error),
            MessageError::BadMeta(error) => Self::BadMeta(error),
        }
    }
}
