//! What was delivered to the peer, and what it has said to that: for tests of other implementations, and off unless it is
//! asked for.

use alloc::collections::VecDeque;

use crate::message::Id;
use crate::pattern::Text;

/// A delivery that was sent on a subscription of the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryRecord {
    /// What it was published on.
    pub topic: Text,
    /// How often it was sent on this subscription.
    pub attempts: u32,
    /// `ack` has come.
    pub acked: bool,
}

/// The latest deliveries, in the order in which they were first sent.
#[derive(Debug, Default)]
pub(super) struct Journal {
    limit: usize,
    records: VecDeque<(Id, DeliveryRecord)>,
}

impl Journal {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, records: VecDeque::new() }
    }

    /// A delivery goes out for the first time.
    pub(super) fn sent(&mut self, id: Id, topic: &Text) {
        if self.limit == 0 {
            return;
        }
        if self.records.len() >= self.limit {
            self.records.pop_front();
        }
        let record = DeliveryRecord { topic: topic.clone(), attempts: 1, acked: false };
        self.records.push_back((id, record));
    }

    /// It goes out once more.
    pub(super) fn sent_again(&mut self, id: Id) {
        if let Some(record) = self.find(id) {
            record.attempts = record.attempts.saturating_add(1);
        }
    }

    /// The peer has taken responsibility for it.
    pub(super) fn acked(&mut self, id: Id) {
        if let Some(record) = self.find(id) {
            record.acked = true;
        }
    }

    /// What is looked for is among the latest.
    fn find(&mut self, id: Id) -> Option<&mut DeliveryRecord> {
        self.records.iter_mut().rev().find(|(of, _)| *of == id).map(|(_, record)| record)
    }

    pub(super) fn records(&self) -> impl DoubleEndedIterator<Item = &DeliveryRecord> {
        self.records.iter().map(|(_, record)| record)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn told(journal: &Journal) -> Vec<(u32, bool)> {
        journal.records().map(|record| (record.attempts, record.acked)).collect()
    }

    // spec: §21
    #[test]
    fn the_latest_deliveries_are_remembered_and_what_became_of_them() {
        let mut journal = Journal::new(3);
        let (ids, topic) = ([1, 2, 3, 4].map(|n| Id::from_bytes([n; 16])), Text::from("t"));
        for id in ids {
            journal.sent(id, &topic);
        }
        journal.sent_again(ids[2]);
        for id in [ids[2], ids[3], ids[0]] {
            journal.acked(id);
        }
        assert_eq!(told(&journal), [(1, false), (2, true), (1, true)]);
        let mut off = Journal::default();
        off.sent(ids[0], &topic);
        off.acked(ids[0]);
        assert_eq!(told(&off), []);
    }
}
