//! Topics and filters (§12.1, §12.2): what they may be, which filter matches which topic, and a [`Trie`] that finds the
//! filters which match among many that do not.

mod trie;

use core::fmt;

pub use self::trie::Trie;
use crate::message::TARGET_LIMIT;

/// What separates tokens.
const SEPARATOR: char = '.';
/// Stands for exactly one token.
const ONE: &str = "*";
/// Stands for one token or more, at the end of a filter.
const REST: &str = ">";
/// The first token of what is reserved.
const RESERVED: &str = "fluxar";

/// What is wrong with a topic or a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// It has no character.
    Empty,
    /// It is longer than 255 bytes.
    TooLong,
    /// Two separators follow each other, or one stands at the beginning or the end.
    EmptyToken,
    /// A space or a control character.
    BadCharacter,
    /// A `*` or `>` in a topic, or in a filter beside other characters of a token.
    Wildcard,
    /// A `>` that is not the last token of its filter.
    RestInside,
    /// It begins with `fluxar.`, which is reserved (§14.1).
    Reserved,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::TooLong => "it has more than 255 bytes",
            Self::EmptyToken => "a token is empty",
            Self::BadCharacter => "a space or a control character",
            Self::Wildcard => "a wildcard that is not a whole token of a filter",
            Self::RestInside => "`>` must be the last token",
            Self::Reserved => "`fluxar.` is reserved",
        })
    }
}

impl core::error::Error for TopicError {}

/// Checks that `topic` is one (§12.1). It may still be [reserved](is_reserved).
///
/// # Errors
///
/// What is wrong with it.
pub fn check_topic(topic: &str) -> Result<(), TopicError> {
    check_size(topic)?;
    topic.split(SEPARATOR).try_for_each(check_token)
}

/// Checks that `filter` is one (§12.2). It may still be [reserved](is_reserved).
///
/// # Errors
///
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    check_size(filter)?;
    let mut ended = false;
    for token in filter.split(SEPARATOR) {
        if ended {
            return Err(TopicError::RestInside);
        }
        ended = token == REST;
        if !ended && token != ONE {
            check_token(token)?;
        }
    }
    Ok(())
}

/// Whether a topic or a filter begins with `fluxar.`, and so belongs to the protocol (§14.1).
pub fn is_reserved(topic: &str) -> bool {
    topic.strip_prefix(RESERVED).is_some_and(|rest| rest.starts_with(SEPARATOR))
}

/// Whether a filter has a wildcard, so that it may match several topics.
pub fn has_wildcard(filter: &str) -> bool {
    filter.split(SEPARATOR).any(|token| token == ONE || token == REST)
}

/// Whether `filter` matches `topic`. Both must be what they are called: otherwise the answer means nothing.
///
/// ```
/// use fluxar_proto::topic::matches;
///
/// assert!(matches("orders.*", "orders.created"));
/// assert!(!matches("orders.*", "orders.created.eu"));
/// assert!(matches("orders.>", "orders.created.eu"));
/// assert!(!matches(">", "fluxar.anything"), "a wildcard does not reach what is reserved");
/// ```
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut topics = topic.split(SEPARATOR).peekable();
    if topics.peek() == Some(&RESERVED) && (filter.starts_with(ONE) || filter.starts_with(REST)) {
        return false;
    }
    for token in filter.split(SEPARATOR) {
        match topics.next() {
            Some(_) if token == REST => return true,
            Some(topic) if token == ONE || token == topic => {}
            _ => return false,
        }
    }
    topics.next().is_none()
}

/// Whether `filter` matches all that `narrower` matches, a filter too. Both must be filters: otherwise the answer means
/// nothing.
///
/// ```
/// use fluxar_proto::topic::covers;
///
/// assert!(covers("orders.>", "orders.*"));
/// assert!(covers("orders.*", "orders.created"));
/// assert!(!covers("orders.*", "orders.>"));
/// assert!(!covers("orders.>", ">"));
/// ```
pub fn covers(filter: &str, narrower: &str) -> bool {
    let mut others = narrower.split(SEPARATOR).peekable();
    if others.peek() == Some(&RESERVED) && (filter.starts_with(ONE) || filter.starts_with(REST)) {
        return false;
    }
    for token in filter.split(SEPARATOR) {
        match others.next() {
            Some(_) if token == REST => return true,
            // What stands for several tokens is more than what stands for one.
            Some(REST) => return false,
            Some(other) if token == ONE || token == other => {}
            _ => return false,
        }
    }
    others.next().is_none()
}

fn check_size(text: &str) -> Result<(), TopicError> {
    match text.len() {
        0 => Err(TopicError::Empty),
        len if len > TARGET_LIMIT => Err(TopicError::TooLong),
        _ => Ok(()),
    }
}

fn check_token(token: &str) -> Result<(), TopicError> {
    if token.is_empty() {
        return Err(TopicError::EmptyToken);
    }
    // Every byte of a character outside ASCII is above 0x7f.
    match token.bytes().find(|byte| matches!(byte, 0..=b' ' | 0x7f | b'*' | b'>')) {
        None => Ok(()),
        Some(b'*' | b'>') => Err(TopicError::Wildcard),
        Some(_) => Err(TopicError::BadCharacter),
    }
}

#[cfg(test)]
mod tests;
