//! What a process holds, as its allocator counts it.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use peak_alloc::PeakAlloc;

use crate::net::{Flavor, WATCHDOG, eventually, no_tasks_left, runtime};

/// 2^20 bytes.
pub const MIB: usize = 1 << 20;

/// Runs a test while no other one does: they share the count.
///
/// # Panics
///
/// Where the test panics, where it hangs, and where a task lives on without anybody to use it.
pub fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    runtime(Flavor::Multi).block_on(async {
        tokio::time::timeout(WATCHDOG, test()).await.expect("the test hangs");
        no_tasks_left().await;
    });
}

/// Waits until a number stays what it is for a while.
pub async fn settled(number: impl Fn() -> usize) -> usize {
    let mut last = (number(), 0);
    while last.1 < 20 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = number();
        last = (now, if now == last.0 { last.1 + 1 } else { 0 });
    }
    last.0
}

/// An allocator that counts.
pub trait Meter {
    /// How many bytes more than before are held at most while `work` runs.
    fn peak_of<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = (usize, T)>;

    /// Waits until no more than `allowed` bytes are held beyond `before`.
    ///
    /// # Panics
    ///
    /// Where that never comes.
    fn back_to(&self, before: usize, allowed: usize) -> impl Future<Output = ()>;
}

impl Meter for PeakAlloc {
    async fn peak_of<T>(&self, work: impl Future<Output = T>) -> (usize, T) {
        let before = self.current_usage();
        self.reset_peak_usage();
        let result = work.await;
        (self.peak_usage().saturating_sub(before), result)
    }

    async fn back_to(&self, before: usize, allowed: usize) {
        eventually("the memory is given back", || self.current_usage() <= before + allowed).await;
    }
}
