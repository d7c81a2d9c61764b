//! What went over the wire, read again when all is over.

use std::collections::{BTreeMap, BTreeSet};

use fluxar_proto::message::{Id, Item, Kind, Meta, key, verb};

use crate::path::Outcome;
use crate::support::{A, B, Msg};
use crate::world::World;

/// What one side has sent of one message.
#[derive(Debug, Default)]
struct Traces {
    sent: BTreeMap<Id, (u64, Vec<u8>)>,
    acked: BTreeSet<Id>,
    released: BTreeSet<Id>,
    completed: BTreeSet<Id>,
}

fn ids(message: &Msg) -> Vec<Id> {
    let payload = Item::new(&message.payload).unwrap();
    let more = if payload.is_null() { None } else { Some(payload.array().unwrap()) };
    let more = more.into_iter().flatten();
    let more = more.map(|id| Id::from_bytes(id.as_byte_str().unwrap().try_into().unwrap()));
    message.reference.into_iter().chain(more).collect()
}

impl Traces {
    fn of(bytes: &[u8]) -> Self {
        let mut traces = Self::default();
        for message in Msg::decode_all(bytes) {
            let several = message.target.as_deref().filter(|_| message.reference.is_some());
            match (message.kind, several) {
                (Kind::Message, Some(verb::ACK)) => traces.acked.extend(ids(&message)),
                (Kind::Message, Some(verb::COMPLETE)) => traces.completed.extend(ids(&message)),
                (Kind::Message, Some(verb::RELEASE)) => traces.released.extend(ids(&message)),
                (Kind::Message, Some(verb::NACK)) => {}
                (Kind::Message, _) => traces.note(message),
                _ => {}
            }
        }
        traces
    }

    fn note(&mut self, message: Msg) {
        let meta = if message.meta.is_empty() { Meta::EMPTY } else { Meta::decode(&message.meta).unwrap() };
        let (dup, attempt) = (meta.get_bool(key::DUP), meta.get_u64(key::ATTEMPT).unwrap_or(1));
        assert_eq!(dup == Some(true), attempt > 1, "{message:?}");
        if meta.get_u64(key::QOS).unwrap_or(0) == 0 {
            // §12.7: never again.
            assert!(self.sent.insert(message.id, (1, vec![])).is_none(), "{message:?}");
            return;
        }
        // §12.9: what was released will not come again.
        assert!(!self.released.contains(&message.id), "{message:?}");
        match self.sent.get_mut(&message.id) {
            // §12.8: the same message, with the next attempt.
            Some((last, payload)) => {
                assert_eq!((*last + 1, &*payload), (attempt, &message.payload));
                *last = attempt;
            }
            None => {
                self.sent.insert(message.id, (attempt, message.payload));
            }
        }
    }
}

impl World {
    /// What one session has sent.
    pub(crate) fn check_audit(&self) {
        let traces = [A, B].map(|end| Traces::of(&self.pair.ends[end].sent));
        for end in [A, B] {
            // §12.17: what waits for its application is not released.
            let app = &self.apps[end];
            let accepted =
                |id: &Id| self.routes[end].letters[&app.names[id]].outcome == Some(Outcome::Accepted);
            let early = app.unreleased.iter().filter(|id| accepted(id) && traces[end].released.contains(id));
            assert_eq!(early.count(), 0, "released before it was said");
        }
        for (ours, theirs) in [(&traces[A], &traces[B]), (&traces[B], &traces[A])] {
            // §12.12: what is settled was sent; and what is released, acknowledged.
            assert!(ours.acked.iter().all(|id| theirs.sent.contains_key(id)));
            let known = |id: &Id| theirs.acked.contains(id) || !ours.sent.contains_key(id);
            assert!(ours.released.iter().all(known));
            assert!(ours.completed.is_subset(&theirs.released));
        }
    }
}
