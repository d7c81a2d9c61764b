//! What is open in a session, by the id that opened it (§5.5).

use core::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher13;

use crate::message::Id;
use crate::session::IdSource;

/// What an id refers to. Both sides' openings share one name space: no id may be open twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entity {
    /// A call that we made, by its slot.
    CallOut(usize),
    /// A call that the peer made, by its slot.
    CallIn(usize),
    /// A stream, whoever opened it, by its slot.
    Stream(usize),
    /// A subscription of ours, by its slot.
    Subscription(usize),
    /// A subscription of the peer's, by its slot.
    Subscriber(usize),
    /// A message that we send, by its owner and its slot there.
    Sent(Owner, usize),
    /// Fresh credentials that are not answered yet, of either side.
    Renewal,
    /// A message that came and is not settled, by its home and its slot there.
    Held(Home, usize),
}

/// Whose message it is that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// A publication of ours.
    Publications,
    /// A delivery to a subscription of the peer's, by its slot.
    Subscriber(usize),
}

/// Where a message belongs that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Home {
    /// The publications of the peer.
    Publications,
    /// The deliveries of a subscription of ours, by its slot.
    Subscription(usize),
}

/// The key of a hash (SipHash-1-3) in whose table peers choose the keys: two random words keep them from choosing those
/// that collide (§17.2).
#[derive(Clone)]
pub struct HashKey(u64, u64);

impl HashKey {
    /// A key of two words, which nobody should be able to guess.
    pub const fn new(k0: u64, k1: u64) -> Self {
        Self(k0, k1)
    }
}

/// Shows nothing of the key.
impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey")
    }
}

impl BuildHasher for HashKey {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Finds what a `ref` refers to.
#[derive(Debug)]
pub(crate) struct OpenIds {
    entities: hashbrown::HashMap<IdKey, Entity, HashKey>,
}

/// An id, hashed in one step.
#[derive(Debug, PartialEq, Eq)]
struct IdKey(Id);

impl core::hash::Hash for IdKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

impl OpenIds {
    pub(crate) fn new(ids: &mut IdSource) -> Self {
        let (k0, k1) = ids.hash_key();
        Self { entities: hashbrown::HashMap::with_hasher(HashKey(k0, k1)) }
    }

    pub(crate) fn get(&self, id: Id) -> Option<Entity> {
        self.entities.get(&IdKey(id)).copied()
    }

    pub(crate) fn contains(&self, id: Id) -> bool {
        self.entities.contains_key(&IdKey(id))
    }

    pub(crate) fn insert(&mut self, id: Id, entity: Entity) {
        self.entities.insert(IdKey(id), entity);
    }

    /// Forgets `id`, if it still means `entity`: a peer may have used the id again since.
    pub(crate) fn remove(&mut self, id: Id, entity: Entity) {
        if self.get(id) == Some(entity) {
            self.entities.remove(&IdKey(id));
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entities.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: §17.2
    #[test]
    fn hashes_depend_on_the_id_and_on_keys_of_the_connection() {
        let hash = |keys: HashKey, last| {
            let mut bytes = [7; Id::LEN];
            bytes[Id::LEN - 1] = last;
            keys.hash_one(IdKey(Id::from_bytes(bytes)))
        };
        let hashes =
            [hash(HashKey(1, 2), 0), hash(HashKey(1, 2), 1), hash(HashKey(1, 3), 0), hash(HashKey(2, 2), 0)];
        for (n, one) in hashes.iter().enumerate() {
            assert!(hashes.iter().skip(n + 1).all(|other| other != one));
        }
        assert_eq!(hash(HashKey(1, 2), 0), hashes[0]);
    }
}
