//! Streams between two processes, in either direction.

use crate::Error;
use crate::load::Work;
use crate::options::Options;
use crate::rounds::{measure, rates, ratio, spread};
use crate::table::{Table, grouped};

/// Items that are small, and counted; and items that are large, and weighed.
const SMALL: usize = 64;
const LARGE: usize = 16 << 10;

/// Measures streams, and shows them.
pub(crate) fn run(options: &Options) -> Result<String, Error> {
    let small = one_size(SMALL, "items per second", 1.0, options)?;
    let large = one_size(LARGE, "MB per second", LARGE as f64 / 1e6, options)?;
    Ok(format!("{small}\n{large}"))
}

/// A table about items of one size; `each` is what one of them counts for.
fn one_size(payload: usize, unit: &str, each: f64, options: &Options) -> Result<Table, Error> {
    let [down, up] = ["server to client", "client to server"].map(|way| format!("{way}, {unit}"));
    let heading = format!("Streams: items of {payload} bytes");
    let mut table = Table::new(heading, &["", &down, "to raw", &up, "to raw"]);
    let loads = [Work::Download, Work::Upload].map(|work| options.load(work, payload));
    let rounds = measure(loads, &options.contenders, options)?;
    let raw = rounds[0].each_ref().map(|rounds| rates(rounds));
    for (contender, rounds) in options.contenders.iter().zip(&rounds) {
        let mut row = vec![contender.name().to_owned()];
        for (rounds, raw) in rounds.iter().zip(&raw) {
            let rates = rates(rounds);
            row.push(spread(&rates, |rate| grouped(rate * each)));
            row.push(ratio(&rates, raw));
        }
        table.row(row);
    }
    Ok(table)
}
