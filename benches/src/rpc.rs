//! Latency and throughput of calls between two processes.

use crate::Error;
use crate::contender::Contender;
use crate::load::{Measured, Work};
use crate::options::{Options, Part};
use crate::rounds::{measure, micros, rates, ratio, spread, tenths};
use crate::table::{Table, grouped};

const IN_FLIGHT: usize = 128;
const PAYLOADS: [usize; 2] = [64, 1024];

/// Measures one part, and shows it.
pub(crate) fn run(part: Part, options: &Options) -> Result<String, Error> {
    let in_flight = if part == Part::Latency { 1 } else { IN_FLIGHT };
    let mut tables = Vec::new();
    for payload in PAYLOADS {
        let load = options.load(Work::Calls(in_flight), payload);
        let rounds = measure([load], &options.contenders, options)?;
        let show = if part == Part::Latency { latency } else { throughput };
        tables.push(show(payload, &options.contenders, &rounds).to_string());
    }
    Ok(tables.join("\n"))
}

fn latency(payload: usize, contenders: &[Contender], rounds: &[[Vec<Measured>; 1]]) -> Table {
    let heading = format!("Latency: one call in flight, {payload} bytes there and back");
    let columns = ["", "p50 in us", "p50 to raw", "p99 in us", "p99 to raw"];
    let mut table = Table::new(heading, &columns);
    let of = |[rounds]: &[Vec<Measured>; 1]| [micros(rounds, |m| m.p50), micros(rounds, |m| m.p99)];
    let [raw50, raw99] = of(&rounds[0]);
    for (contender, rounds) in contenders.iter().zip(rounds) {
        let [p50, p99] = of(rounds);
        table.row(vec![
            contender.name().to_owned(),
            spread(&p50, tenths),
            ratio(&p50, &raw50),
            spread(&p99, tenths),
            ratio(&p99, &raw99),
        ]);
    }
    table
}

fn throughput(payload: usize, contenders: &[Contender], rounds: &[[Vec<Measured>; 1]]) -> Table {
    let heading = format!("Throughput: {IN_FLIGHT} calls in flight, {payload} bytes there and back");
    let mut table = Table::new(heading, &["", "calls per second", "to raw"]);
    let raw = rates(&rounds[0][0]);
    for (contender, [rounds]) in contenders.iter().zip(rounds) {
        let rates = rates(rounds);
        table.row(vec![contender.name().to_owned(), spread(&rates, grouped), ratio(&rates, &raw)]);
    }
    table
}
