//! What becomes of a small call when the same connection carries as many large items as it can.

use crate::Error;
use crate::contender::Contender;
use crate::load::{SMALL_CALL, Work};
use crate::options::Options;
use crate::rounds::{measure, micros, rates, ratio, spread, tenths};
use crate::table::{Table, grouped};

/// What an item of the stream carries, in bytes.
const ITEM: usize = 16 << 10;

/// Measures calls alone and beside a stream, and shows both. A bare socket has nothing that one thing could overtake
/// another by, and takes no part.
pub(crate) fn run(options: &Options) -> Result<String, Error> {
    let takes_part = |contender: &&Contender| **contender != Contender::Raw;
    let contenders = options.contenders.iter().filter(takes_part).copied().collect::<Vec<_>>();
    let heading = format!(
        "Fairness: one call of {SMALL_CALL} bytes in flight, alone and beside a stream of items of {ITEM} bytes from the \
         server"
    );
    let columns = [
        "",
        "alone, p50 in us",
        "p99 in us",
        "beside, p50 in us",
        "p99 in us",
        "p99, to alone",
        "p99, to the last",
        "stream, MB per second",
    ];
    let mut table = Table::new(heading, &columns);
    let loads = [options.load(Work::Calls(1), SMALL_CALL), options.load(Work::CallsBesideDownload, ITEM)];
    let rounds = measure(loads, &contenders, options)?;
    let Some([_, last]) = rounds.last() else { return Ok(String::new()) };
    let last = micros(last, |m| m.p99);
    for (contender, [alone, beside]) in contenders.iter().zip(&rounds) {
        let [alone50, alone99] = [micros(alone, |m| m.p50), micros(alone, |m| m.p99)];
        let [beside50, beside99] = [micros(beside, |m| m.p50), micros(beside, |m| m.p99)];
        table.row(vec![
            contender.name().to_owned(),
            spread(&alone50, tenths),
            spread(&alone99, tenths),
            spread(&beside50, tenths),
            spread(&beside99, tenths),
            ratio(&beside99, &alone99),
            ratio(&beside99, &last),
            spread(&rates(beside), |rate| grouped(rate * ITEM as f64 / 1e6)),
        ]);
    }
    Ok(table.to_string())
}
