//! The last values of topics, within bounds.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use crate::pattern::{OutMessage, Text};
use crate::topic::{has_wildcard, matches};

/// How many last values a hub keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainLimits {
    /// Topics. Default 65,536.
    pub items: usize,
    /// Bytes of all of them. Default 64 MiB.
    pub bytes: usize,
}

impl Default for RetainLimits {
    fn default() -> Self {
        Self { items: 65_536, bytes: 64 << 20 }
    }
}

/// What became of a value that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retain {
    /// It is kept.
    Kept,
    /// The payload is null: the topic has no last value any more.
    Cleared,
    /// There is no room for it: what was kept is as it was, and the publication is to be refused (§12.16).
    Full,
}

#[derive(Debug)]
pub(super) struct Values {
    limits: RetainLimits,
    topics: BTreeMap<Topic, OutMessage>,
    bytes: usize,
}

/// Compared as text, so that what begins with the same tokens lies together.
#[derive(Debug, PartialEq, Eq)]
struct Topic(Text);

impl core::borrow::Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Ord for Topic {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (*self.0).cmp(&*other.0)
    }
}

impl PartialOrd for Topic {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Values {
    pub(super) fn new(limits: RetainLimits) -> Self {
        Self { limits, topics: BTreeMap::new(), bytes: 0 }
    }

    pub(super) fn retain(&mut self, message: OutMessage) -> Retain {
        let old = self.topics.get(&**message.topic()).map(OutMessage::held_bytes);
        if message.payload().is_null() {
            self.topics.remove(&**message.topic());
            self.bytes -= old.unwrap_or(0);
            return Retain::Cleared;
        }
        // Judged by what would be kept.
        let (held, old_bytes) = (message.held_bytes(), old.unwrap_or(0));
        let items = self.topics.len() + usize::from(old.is_none());
        if items > self.limits.items || self.bytes - old_bytes + held > self.limits.bytes {
            return Retain::Full;
        }
        self.bytes -= old_bytes;
        self.bytes += held;
        self.topics.insert(Topic(message.topic().clone()), message.into_retained());
        Retain::Kept
    }

    /// Those whose topics begin as `filter` does before its first wildcard, and match.
    pub(super) fn matching<'a>(&'a self, filter: &'a str) -> impl Iterator<Item = &'a OutMessage> {
        let known = filter.find(['*', '>']).and_then(|end| filter.get(..end)).unwrap_or(filter);
        let from = (Bound::Included(known), Bound::Unbounded);
        let below =
            self.topics.range::<str, _>(from).take_while(move |(topic, _)| topic.0.starts_with(known));
        // Without a wildcard there is one topic at most, and it is the first.
        let most = if has_wildcard(filter) { usize::MAX } else { 1 };
        below.take(most).filter(move |(topic, _)| matches(filter, &topic.0)).map(|(_, message)| message)
    }

    pub(super) fn size(&self) -> (usize, usize) {
        (self.topics.len(), self.bytes)
    }
}
