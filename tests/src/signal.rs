//! Events that a handler lets the test know, and the other way round.

use std::sync::Arc;

use tokio::sync::watch;

/// A count that can be waited for.
#[derive(Clone, Debug)]
pub struct Counter(Arc<watch::Sender<usize>>);

impl Counter {
    /// Zero.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Counts one more.
    pub fn add(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// The count now.
    pub fn get(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until the count has reached `count`.
    ///
    /// # Panics
    ///
    /// Never: the counter lives as long as this reference to it.
    pub async fn reached(&self, count: usize) {
        self.0.subscribe().wait_for(|now| *now >= count).await.expect("the sender is here");
    }

    /// Counts one when it is dropped.
    pub fn guard(&self) -> Guard {
        Guard(self.clone())
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts its own end: shows that a future that holds it was dropped.
#[derive(Debug)]
pub struct Guard(Counter);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.add();
    }
}
