//! Routing of publications to whoever wants them (§12.5): who has subscribed to what, and the last values of topics.
//!
//! It knows nothing of connections: subscriptions are named by keys of the caller's.

mod retained;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use self::retained::Values;
pub use self::retained::{Retain, RetainLimits};
use crate::pattern::{HashKey, OutMessage};
use crate::topic::Trie;

/// Who gets what is published.
///
/// ```
/// use fluxar_proto::{HashKey, hub::Hub};
///
/// let mut hub = Hub::new(HashKey::new(7, 8), Default::default()); // two words that nobody can guess
/// hub.subscribe(1, "orders.*", None);
/// hub.subscribe(2, "orders.created", Some("workers"));
/// hub.subscribe(3, "orders.created", Some("workers"));
/// let mut receivers = Vec::new();
/// hub.route("orders.created", &mut receivers);
/// receivers.sort();
/// assert_eq!(receivers, [1, 2]);
/// receivers.clear();
/// hub.route("orders.created", &mut receivers);
/// receivers.sort();
/// assert_eq!(receivers, [1, 3], "the members of a group take turns");
/// ```
#[derive(Debug)]
pub struct Hub<K> {
    filters: Trie<Subscribed<K>>,
    /// What each key has subscribed to.
    keys: BTreeMap<K, (String, Option<String>)>,
    values: Values,
}

/// Who has subscribed to one filter.
#[derive(Debug)]
struct Subscribed<K> {
    alone: BTreeSet<K>,
    groups: BTreeMap<String, Group<K>>,
}

/// Subscriptions of which one gets each message.
#[derive(Debug)]
struct Group<K> {
    members: BTreeSet<K>,
    /// Who got the last one.
    last: Option<K>,
}

impl<K> Default for Subscribed<K> {
    fn default() -> Self {
        Self { alone: BTreeSet::new(), groups: BTreeMap::new() }
    }
}

impl<K: Clone + Ord> Group<K> {
    /// Whose turn it is, of those that are ready; or of all, where none is.
    fn choose(&mut self, mut ready: impl FnMut(&K) -> bool) -> Option<K> {
        let from = match &self.last {
            Some(last) => Bound::Excluded(last),
            None => Bound::Unbounded,
        };
        let behind = self.members.range((from, Bound::Unbounded));
        let mut turns = behind.chain(&self.members);
        // The second time round, those behind come once more: so many are all.
        let next = turns.clone().take(self.members.len()).find(|key| ready(key)).or_else(|| turns.next());
        let next = next.cloned();
        self.last.clone_from(&next);
        next
    }
}

impl<K: Clone + Ord> Hub<K> {
    /// A hub without subscriptions. `key` should be random: it keeps peers from choosing topics whose hashes collide
    /// (§17.2).
    pub fn new(key: HashKey, limits: RetainLimits) -> Self {
        Self { filters: Trie::new(key), keys: BTreeMap::new(), values: Values::new(limits) }
    }

    /// `key` gets what is published on topics that match `filter`, which must be valid. With a `group`, one of those gets
    /// it that have subscribed to the same filter in the same group. What `key` had subscribed to before is over.
    pub fn subscribe(&mut self, key: K, filter: &str, group: Option<&str>) {
        self.unsubscribe(&key);
        let subscribed = self.filters.entry(filter);
        match group {
            None => subscribed.alone.insert(key.clone()),
            Some(name) => {
                let new = || Group { members: BTreeSet::new(), last: None };
                let group = match subscribed.groups.get_mut(name) {
                    Some(group) => group,
                    None => subscribed.groups.entry(name.into()).or_insert_with(new),
                };
                group.members.insert(key.clone())
            }
        };
        self.keys.insert(key, (filter.into(), group.map(Into::into)));
    }

    /// `key` gets nothing more. Whether it had subscribed.
    pub fn unsubscribe(&mut self, key: &K) -> bool {
        let Some((filter, group)) = self.keys.remove(key) else { return false };
        let Some(subscribed) = self.filters.get_mut(&filter) else { return false };
        match group {
            None => {
                subscribed.alone.remove(key);
            }
            Some(name) => {
                if let Some(group) = subscribed.groups.get_mut(&name) {
                    group.members.remove(key);
                    if group.members.is_empty() {
                        subscribed.groups.remove(&name);
                    }
                }
            }
        }
        if subscribed.alone.is_empty() && subscribed.groups.is_empty() {
            self.filters.remove(&filter);
        }
        true
    }

    /// Adds to `receivers` who gets a message on `topic`: every subscription that matches, and of each group one member,
    /// in turn.
    pub fn route(&mut self, topic: &str, receivers: &mut Vec<K>) {
        self.route_by(topic, receivers, |_| true);
    }

    /// As [`route`](Self::route), but passes over members of groups that are not `ready`, unless none is (§12.15).
    pub fn route_by(&mut self, topic: &str, receivers: &mut Vec<K>, mut ready: impl FnMut(&K) -> bool) {
        self.filters.find_mut(topic, |subscribed| {
            receivers.extend(subscribed.alone.iter().cloned());
            receivers.extend(subscribed.groups.values_mut().filter_map(|group| group.choose(&mut ready)));
        });
    }

    /// Whose turn it is in a group, among those that are `ready`, unless none is: for what was meant for a member that has
    /// left.
    pub fn member(&mut self, filter: &str, group: &str, ready: impl FnMut(&K) -> bool) -> Option<K> {
        self.filters.get_mut(filter)?.groups.get_mut(group)?.choose(ready)
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no subscription.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keeps a message as the last value of its topic, in place of the one before; a null payload clears that.
    pub fn retain(&mut self, message: OutMessage) -> Retain {
        self.values.retain(message)
    }

    /// The last values of the topics that match `filter`, in the order of their topics: what a new subscription without a
    /// group gets first.
    pub fn retained<'a>(&'a self, filter: &'a str) -> impl Iterator<Item = &'a OutMessage> {
        self.values.matching(filter)
    }

    /// How many last values are kept, and how many bytes they hold.
    pub fn retained_size(&self) -> (usize, usize) {
        self.values.size()
    }
}

#[cfg(test)]
mod tests;
