//! How far the window of a stream is open (§11.5).
//!
//! A window limits a stream where it is smaller than what the path holds: bandwidth times delay. Neither can be measured on
//! its own, since data that waits on the way makes every round trip longer. What can be measured is whether a larger window
//! pays: it is doubled on trial, and stays so where more has come in the same time.
//!
//! ```text
//!            the application waited for data                 faster by a quarter
//!  MEASURING -------------------------------> ON TRIAL --------------------------> MEASURING, the window stays
//!      ^                                         |                                  (and the next trial may begin)
//!      |      a pause, longer each time          | no faster
//!      +-----------------------------------------+  the window is taken back
//! ```

use core::time::Duration;

use crate::time::Instant;

/// So many grants, each for half a window, make one measurement.
const SPAN: u8 = 4;

/// After a change so many grants are not measured: what they are for was on its way before.
const SETTLE: u8 = 2;

/// How long no trial is made after one that did not pay; it doubles each time.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(16);

#[derive(Debug)]
pub(super) struct Growth {
    window: u32,
    /// How much of it has grown.
    grown: u32,
    /// When the measurement began, the bytes taken since, and the grants.
    since: Option<Instant>,
    bytes: u64,
    grants: u8,
    settle: u8,
    /// The application waited for data meanwhile: a larger window could help.
    pub(super) starved: bool,
    /// What is on trial: by how much the window was grown, and the rate before, in bytes per second.
    trial: Option<(u32, u64)>,
    /// No trial before that.
    rest: Option<Instant>,
    pause: Duration,
}

/// What becomes of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Grow(u32),
    Shrink(u32),
}

impl Growth {
    pub(super) fn new(window: u32) -> Self {
        Self {
            window,
            grown: 0,
            since: None,
            bytes: 0,
            grants: 0,
            settle: 0,
            starved: false,
            trial: None,
            rest: None,
            pause: PAUSE,
        }
    }

    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// By how much the window has grown, in bytes.
    pub(super) fn grown(&self) -> u32 {
        self.grown
    }

    /// Credit is given for `taken` bytes. The window may grow by `room` more.
    pub(super) fn note_grant(&mut self, now: Instant, taken: usize, room: u32) -> Step {
        if self.settle > 0 {
            self.settle -= 1;
            self.since = None;
        }
        let Some(since) = self.since else {
            (self.since, self.bytes, self.grants, self.starved) = (Some(now), 0, 0, false);
            return Step::Stay;
        };
        self.bytes += taken as u64;
        self.grants = self.grants.saturating_add(1);
        // Nobody can say how much that is per time where no time has passed.
        if self.grants < SPAN || now <= since {
            return Step::Stay;
        }
        let rate = self.bytes.saturating_mul(1_000_000) / ((now - since).as_micros() as u64).max(1);
        let starved = core::mem::take(&mut self.starved);
        (self.since, self.bytes, self.grants) = (Some(now), 0, 0);
        match self.trial.take() {
            Some((step, before)) if rate < before.saturating_add(before / 4) => self.take_back(step, now),
            _ if starved && self.rest.is_none_or(|rest| rest <= now) => self.try_more(rate, room),
            _ => Step::Stay,
        }
    }

    fn try_more(&mut self, rate: u64, room: u32) -> Step {
        let step = self.window.min(room);
        if step == 0 {
            return Step::Stay;
        }
        self.window += step;
        self.grown += step;
        self.trial = Some((step, rate));
        self.settle = SETTLE;
        Step::Grow(step)
    }

    fn take_back(&mut self, step: u32, now: Instant) -> Step {
        self.window -= step;
        self.grown -= step;
        self.settle = SETTLE;
        self.rest = Some(now + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Step::Shrink(step)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Runs a stream of so many bytes per millisecond over a path that takes so many milliseconds there and back, and
    /// gives its window after `ms`.
    fn run(growth: &mut Growth, from: u64, ms: u64, bytes_per_ms: u64, round_trip: u64, room: u32) {
        let mut now = from * 1000;
        while now < (from + ms) * 1000 {
            let half = u64::from(growth.window() / 2);
            // Half a window comes as fast as the path is, or each half round trip.
            let limited = half / bytes_per_ms < round_trip / 2;
            now += if limited { round_trip * 500 } else { half * 1000 / bytes_per_ms };
            growth.starved |= limited;
            growth.note_grant(Instant::from_micros(now), half as usize, room - growth.grown());
        }
    }

    // spec: §11.5
    #[test]
    fn a_window_grows_to_what_the_path_holds_and_no_further() {
        // 10 MB/s over 40 ms: 400 kB.
        let mut growth = Growth::new(16 << 10);
        run(&mut growth, 0, 2_000, 10_000, 40, 16 << 20);
        assert_eq!(growth.window(), 512 << 10);
        assert_eq!(growth.grown(), (512 - 16) << 10);
        run(&mut growth, 2_000, 60_000, 10_000, 40, 16 << 20);
        assert!(growth.window() <= 1 << 20, "now and then it is tried, and taken back: {}", growth.window());
    }

    // spec: §11.5
    #[test]
    fn a_window_grows_by_no_more_than_there_is_room_for() {
        let mut growth = Growth::new(16 << 10);
        run(&mut growth, 0, 5_000, 10_000, 40, 100_000);
        assert_eq!(growth.window(), (16 << 10) + 100_000);
    }

    // spec: §11.5
    #[test]
    fn what_does_not_pay_is_taken_back_and_not_tried_again_at_once() {
        let mut growth = Growth::new(64 << 10);
        let (mut now, mut grown) = (0, Vec::new());
        // The application waits, but what it waits for is the sender: each half a window takes as long as it is.
        while now < 10_000_000 {
            let half = growth.window() / 2;
            now += u64::from(half);
            growth.starved = true;
            if let Step::Grow(_) = growth.note_grant(Instant::from_micros(now), half as usize, 1 << 20) {
                grown.push(now / 1_000_000);
            }
            assert!(growth.window() <= 128 << 10);
        }
        assert!((3..=5).contains(&grown.len()), "after 1, 2, 4 s: {grown:?}");
    }

    // spec: §11.5
    #[test]
    fn a_window_does_not_grow_where_the_application_is_what_is_slow() {
        let mut growth = Growth::new(64 << 10);
        for n in 1..1000 {
            let step = growth.note_grant(Instant::from_micros(n * 1000), 32 << 10, 1 << 20);
            assert_eq!(step, Step::Stay);
        }
    }
}
