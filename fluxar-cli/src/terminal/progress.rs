//! How far something has come, for people to look at.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Printer;

/// How often the line is drawn.
const INTERVAL: Duration = Duration::from_millis(250);

/// What has gone one way.
#[derive(Clone, Copy, Default)]
struct Tally {
    items: u64,
    bytes: u64,
}

/// Counts what goes and comes.
#[derive(Default)]
pub(crate) struct Progress {
    sent: Cell<Tally>,
    received: Cell<Tally>,
}

impl Progress {
    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.sent, bytes);
    }

    pub(crate) fn received(&self, bytes: usize) {
        add(&self.received, bytes);
    }

    /// Draws it again and again, as long as this is polled; where errors go to no terminal, nothing is drawn.
    pub(crate) async fn show(&self, printer: &Printer) {
        if !io::stderr().is_terminal() {
            std::future::pending::<()>().await;
        }
        let (mut last, mut before) = (Instant::now(), 0);
        loop {
            sleep_until(last + INTERVAL).await;
            let (now, bytes) = (Instant::now(), self.sent.get().bytes + self.received.get().bytes);
            printer.progress(self.line((bytes - before) as f64 / (now - last).as_secs_f64()));
            (last, before) = (now, bytes);
        }
    }

    /// What is drawn.
    fn line(&self, bytes_per_second: f64) -> String {
        let ways = [(self.sent.get(), "out"), (self.received.get(), "in")];
        let mut line = String::new();
        for (tally, way) in ways.into_iter().filter(|(tally, _)| tally.items > 0) {
            let items = if tally.items == 1 { "item" } else { "items" };
            line += &format!("{} {items} {way}, {}; ", tally.items, size(tally.bytes as f64));
        }
        line + &format!("{}/s", size(bytes_per_second))
    }
}

fn add(cell: &Cell<Tally>, bytes: usize) {
    let Tally { items, bytes: before } = cell.get();
    cell.set(Tally { items: items + 1, bytes: before + bytes as u64 });
}

/// A number of bytes, to three digits or so.
fn size(bytes: f64) -> String {
    let (value, unit) = match bytes {
        1e9.. => (bytes / 1e9, "GB"),
        1e6.. => (bytes / 1e6, "MB"),
        1e3.. => (bytes / 1e3, "kB"),
        _ => return format!("{bytes:.0} B"),
    };
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_went_which_way() {
        let progress = Progress::default();
        assert_eq!(progress.line(0.0), "0 B/s");
        progress.sent(900);
        assert_eq!(progress.line(900.0), "1 item out, 900 B; 900 B/s");
        progress.received(1_500);
        progress.received(2_000_000);
        assert_eq!(progress.line(3.2e9), "1 item out, 900 B; 2 items in, 2.0 MB; 3.2 GB/s");
    }
}
