//! What it costs that sessions outlive their link, and what it is worth.

use crate::Error;
use crate::contender::Contender;
use crate::load::{Measured, Work};
use crate::options::Options;
use crate::rounds::{measure, micros, rates, ratio, spread, take_turns, tenths};
use crate::table::{Table, grouped};

const SMALL: usize = 64;
const LARGE: usize = 16 << 10;
const IN_FLIGHT: usize = 128;

/// Measures both, and shows them; where this project takes no part, nothing.
pub(crate) fn run(options: &Options) -> Result<String, Error> {
    if !options.contenders.contains(&Contender::Fluxar) {
        return Ok(String::new());
    }
    Ok(format!("{}\n{}", cost(options)?, worth(options)?))
}

/// The same work with sessions that can be resumed, and with such that cannot.
fn cost(options: &Options) -> Result<Table, Error> {
    let rows = [
        (format!("{IN_FLIGHT} calls of {SMALL} bytes in flight"), Work::Calls(IN_FLIGHT), SMALL),
        (format!("items of {SMALL} bytes from the server"), Work::Download, SMALL),
        (format!("items of {SMALL} bytes to the server"), Work::Upload, SMALL),
        (format!("items of {LARGE} bytes from the server"), Work::Download, LARGE),
        (format!("items of {LARGE} bytes to the server"), Work::Upload, LARGE),
    ];
    let loads = [0, 1, 2, 3, 4].map(|row: usize| options.load(rows[row].1, rows[row].2));
    let contenders = [Contender::Fleeting, Contender::Fluxar];
    let figures = measure(loads, &contenders, options)?;
    let columns = ["per second", "without resume", "with it", "with it, to without"];
    let mut table = Table::new("Resume: what it costs while nothing is lost", &columns);
    for (at, (name, ..)) in rows.into_iter().enumerate() {
        let [without, with] = [0, 1].map(|who: usize| rates(&figures[who][at]));
        let shown = [spread(&without, grouped), spread(&with, grouped), ratio(&with, &without)];
        table.row([vec![name], shown.to_vec()].concat());
    }
    Ok(table)
}

/// How long a cut holds a call up, and what a session holds that waits for its next link.
fn worth(options: &Options) -> Result<Table, Error> {
    let turns =
        [Work::CallsAcrossCuts, Work::Detached].map(|work| (Contender::Fluxar, options.load(work, SMALL)));
    let figures = take_turns(&turns, options)?;
    let mut table = Table::new("Resume: after a cut", &["", "median (smallest to largest)"]);
    let [across, detached] = [&figures[0], &figures[1]];
    type Percentile = fn(&Measured) -> u64;
    let percentiles: [(_, Percentile); 2] = [("p50", |m| m.p50), ("p99", |m| m.p99)];
    for (name, which) in percentiles {
        let micros = micros(across, which);
        let name = format!("from a cut to the answer of a call, {name} in us");
        table.row(vec![name, spread(&micros, tenths)]);
    }
    let memory: Vec<_> = detached.iter().map(|measured| measured.memory).collect();
    table.row(vec!["memory of a session without a link, in bytes".into(), spread(&memory, grouped)]);
    Ok(table)
}
