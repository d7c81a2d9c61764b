//! Counting.

use std::time::{Duration, Instant};

use crate::Error;
use crate::load::{Load, Measured};

/// Counts items, and says at what rate they came once enough time has passed. It looks at the clock only now and then:
/// that would cost as much as an item does.
#[derive(Debug)]
pub(crate) struct Meter {
    warm_up: Duration,
    measure: Duration,
    items: u64,
    /// With how many items the clock is looked at next.
    next: u64,
    /// How many items go by between two looks.
    stride: u64,
    began: Instant,
    /// How many items had come when the warm-up was over.
    before: Option<u64>,
}

impl Meter {
    pub(crate) fn new(load: &Load) -> Self {
        // As often for every size of items: some ten microseconds apart.
        let stride = (32 << 10) / load.payload.max(64) as u64;
        Self {
            warm_up: load.warm_up,
            measure: load.measure,
            items: 0,
            next: 0,
            stride,
            began: Instant::now(),
            before: None,
        }
    }

    /// How many items have been counted, with those of the warm-up.
    pub(crate) fn items(&self) -> u64 {
        self.items
    }

    /// So many more items. Their rate per second, once it is known.
    pub(crate) fn count(&mut self, items: u64) -> Option<f64> {
        self.items += items;
        if self.items < self.next {
            return None;
        }
        self.next = self.items + self.stride;
        let now = Instant::now();
        let Some(before) = self.before else {
            if now - self.began >= self.warm_up {
                (self.began, self.before) = (now, Some(self.items));
            }
            return None;
        };
        let (items, time) = (self.items - before, now - self.began);
        (time >= self.measure && items > 0).then(|| items as f64 / time.as_secs_f64())
    }
}

/// How much was sent and how much has come, as somebody knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// When so much had come, by the clock of who receives.
    pub(crate) at: Duration,
}

/// At what rate messages come, and how many are lost, while others send and receive them; at least one comes.
pub(crate) async fn tallied(
    load: Load,
    mut tally: impl AsyncFnMut() -> Result<Tally, Error>,
) -> Result<Measured, Error> {
    tokio::time::sleep(load.warm_up).await;
    let before = tally().await?;
    tokio::time::sleep(load.measure).await;
    loop {
        let after = tally().await?;
        let time = after.at - before.at;
        let [sent, received] = [after.sent - before.sent, after.received - before.received];
        if received > 0 && time > Duration::ZERO {
            // What was under way at the beginning may be more than what is at the end.
            let lost = (1.0 - received as f64 / sent.max(1) as f64).max(0.0);
            return Ok(Measured { lost, ..Measured::rate(received as f64 / time.as_secs_f64()) });
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Work;

    #[test]
    fn a_meter_leaves_the_warm_up_out() {
        let load = Load {
            work: Work::Download,
            payload: 32 << 10,
            warm_up: Duration::from_millis(5),
            measure: Duration::from_millis(5),
        };
        let mut meter = Meter::new(&load);
        assert_eq!(meter.count(1_000_000_000), None, "all this is warm-up");
        let began = Instant::now();
        let rate = loop {
            if let Some(rate) = meter.count(1) {
                break rate;
            }
        };
        let most = meter.items() - 1_000_000_000;
        assert!(began.elapsed() >= load.measure);
        assert!(rate > 0.0 && rate <= most as f64 / load.measure.as_secs_f64(), "{rate} {most}");
    }
}
