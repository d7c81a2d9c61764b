//! What outlives a session: messages that are not settled, on both sides (§12.17).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error as StdError;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use fluxar_proto::{Id, Payload, Qos};

/// Why a store could not do what it should.
pub type StoreError = Box<dyn StdError + Send + Sync>;

/// What a store's operation gives.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps what two peers need so that messages are delivered over the end of a connection, or of a process: those that one
/// has published with acknowledgement and that are not settled, and the ids of those that came with
/// [`Qos::ExactlyOnce`] and were accepted (§12.17).
///
/// A store belongs to one other peer: ids are looked up among those of the same peer, and of no other. What is done with
/// it is awaited before the message goes out that relies on it, so that each operation must have come to the disk, say,
/// when its future is ready. Operations on one id follow each other; those on several may overlap.
pub trait Store: Send + Sync + 'static {
    /// Keeps a message, before it is sent for the first time.
    fn save(&self, message: Stored) -> StoreFuture<'_, ()>;

    /// Notes how often a message was sent by now. Does nothing where it was removed.
    fn attempted(&self, id: Id, attempts: u32) -> StoreFuture<'_, ()>;

    /// A message with [`Qos::ExactlyOnce`] was acknowledged: from now on its id alone is needed, to release it. Does nothing
    /// where it was removed.
    fn acknowledged(&self, id: Id) -> StoreFuture<'_, ()>;

    /// A message is settled, or given up. Does nothing where it was removed before.
    fn remove(&self, id: Id) -> StoreFuture<'_, ()>;

    /// What is not settled, in the order in which it was saved.
    fn load(&self) -> StoreFuture<'_, Vec<Stored>>;

    /// Remembers that a message of the peer was accepted.
    fn accept(&self, id: Id) -> StoreFuture<'_, ()>;

    /// Whether a message of the peer was accepted before.
    fn is_accepted(&self, id: Id) -> StoreFuture<'_, bool>;

    /// A message of the peer will not come again. Does nothing where it is not known.
    fn forget(&self, id: Id) -> StoreFuture<'_, ()>;
}

/// A message that was published, and is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its id, unique beyond the session.
    pub id: Id,
    /// What it was published on.
    pub topic: String,
    /// One CBOR item.
    pub payload: Payload,
    /// The publisher's metadata: one encoded CBOR map, or empty.
    pub meta: Bytes,
    /// How it is delivered.
    pub qos: Qos,
    /// Whether it is to be kept as the last value of its topic.
    pub retain: bool,
    /// How often it was sent, at least.
    pub attempts: u32,
    /// It was acknowledged, and is only to be released: topic, payload and metadata need not be kept.
    pub acknowledged: bool,
}

/// A store in memory: for messages that are to outlive a connection, but not the process.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In the order in which they were saved.
    messages: BTreeMap<u64, Stored>,
    /// Where they are there.
    places: HashMap<Id, u64>,
    accepted: HashSet<Id>,
}

impl MemoryStore {
    /// A store that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Messages that are not settled.
    pub fn unsettled(&self) -> usize {
        self.lock().messages.len()
    }

    /// Ids of messages of the peer that are remembered.
    pub fn accepted(&self) -> usize {
        self.lock().accepted.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    fn with<T: Send + 'static>(&self, operation: impl FnOnce(&mut State) -> T) -> StoreFuture<'_, T> {
        Box::pin(ready(Ok(operation(&mut self.lock()))))
    }

    fn update(&self, id: Id, update: impl FnOnce(&mut Stored)) -> StoreFuture<'_, ()> {
        self.with(|state| {
            let place = state.places.get(&id);
            place.and_then(|place| state.messages.get_mut(place)).map_or((), update)
        })
    }
}

impl Store for MemoryStore {
    fn save(&self, message: Stored) -> StoreFuture<'_, ()> {
        self.with(|state| {
            if let Some(before) = state.places.insert(message.id, state.next) {
                state.messages.remove(&before);
            }
            state.messages.insert(state.next, message);
            state.next += 1;
        })
    }

    fn attempted(&self, id: Id, attempts: u32) -> StoreFuture<'_, ()> {
        self.update(id, |message| message.attempts = message.attempts.max(attempts))
    }

    fn acknowledged(&self, id: Id) -> StoreFuture<'_, ()> {
        self.update(id, |message| {
            (message.topic, message.payload, message.meta) = (String::new(), Payload::null(), Bytes::new());
            message.acknowledged = true;
        })
    }

    fn remove(&self, id: Id) -> StoreFuture<'_, ()> {
        self.with(|state| {
            if let Some(place) = state.places.remove(&id) {
                state.messages.remove(&place);
            }
        })
    }

    fn load(&self) -> StoreFuture<'_, Vec<Stored>> {
        self.with(|state| state.messages.values().cloned().collect())
    }

    fn accept(&self, id: Id) -> StoreFuture<'_, ()> {
        self.with(|state| {
            state.accepted.insert(id);
        })
    }

    fn is_accepted(&self, id: Id) -> StoreFuture<'_, bool> {
        self.with(|state| state.accepted.contains(&id))
    }

    fn forget(&self, id: Id) -> StoreFuture<'_, ()> {
        self.with(|state| {
            state.accepted.remove(&id);
        })
    }
}
