//! Latency and throughput of calls between two processes.

use crate::contender::Contender;
use crate::load::{Load, Measured};
use crate::machine::Cores;
use crate::options::{Options, Part};
use crate::stats::Spread;
use crate::table::{Table, grouped};
use crate::{Error, process};

const IN_FLIGHT: usize = 128;
const PAYLOADS: [usize; 2] = [64, 1024];

/// How calls are measured, and who takes part.
pub(crate) fn describe(options: &Options) -> Result<String, Error> {
    let Cores { server, client } = Cores::pick()?;
    let mut text = format!(
        "Calls: server and client are processes on core {server} and core {client}, each with a current-thread Tokio \
         runtime, over loopback TCP with TCP_NODELAY. {} rounds of {:?} each, taking turns: median (smallest to largest). \
         Ratios are to `raw` in the same round.\n\n",
        options.rounds, options.measure
    );
    for contender in &options.contenders {
        text += &format!("- `{}`: {}\n", contender.name(), contender.about());
    }
    Ok(text)
}

/// Measures one part, and shows it.
pub(crate) fn run(part: Part, options: &Options) -> Result<String, Error> {
    let cores = Cores::pick()?;
    let in_flight = if part == Part::Latency { 1 } else { IN_FLIGHT };
    let mut tables = Vec::new();
    for payload in PAYLOADS {
        let load =
            Load { in_flight, payload, warm_up: options.measure.mul_f64(0.3), measure: options.measure };
        let rounds = measure(&load, options, cores)?;
        let show = if part == Part::Latency { latency } else { throughput };
        tables.push(show(payload, &options.contenders, &rounds).to_string());
    }
    Ok(tables.join("\n"))
}

/// The figures of every contender, round by round. Within a round they take turns, each round beginning with another.
fn measure(load: &Load, options: &Options, cores: Cores) -> Result<Vec<Vec<Measured>>, Error> {
    let contenders = &options.contenders;
    let mut figures = vec![Vec::with_capacity(options.rounds); contenders.len()];
    for round in 0..options.rounds {
        for turn in 0..contenders.len() {
            let who = (round + turn) % contenders.len();
            let measured = process::measure(contenders[who], load, cores);
            figures[who].push(measured.map_err(|error| format!("{}: {error}", contenders[who].name()))?);
        }
    }
    Ok(figures)
}

fn latency(payload: usize, contenders: &[Contender], rounds: &[Vec<Measured>]) -> Table {
    let heading = format!("Latency: one call in flight, {payload} bytes there and back");
    let columns = ["", "p50 in us", "p50 to raw", "p99 in us", "p99 to raw"];
    let mut table = Table::new(heading, &columns);
    let of = |rounds: &[Measured], which: fn(&Measured) -> u64| {
        rounds.iter().map(|measured| which(measured) as f64 / 1000.0).collect::<Vec<_>>()
    };
    let [raw50, raw99] = [of(&rounds[0], |m| m.p50), of(&rounds[0], |m| m.p99)];
    for (contender, rounds) in contenders.iter().zip(rounds) {
        let [p50, p99] = [of(rounds, |m| m.p50), of(rounds, |m| m.p99)];
        table.row(vec![
            contender.name().to_owned(),
            spread(&p50, |micros| format!("{micros:.1}")),
            ratio(&p50, &raw50),
            spread(&p99, |micros| format!("{micros:.1}")),
            ratio(&p99, &raw99),
        ]);
    }
    table
}

fn throughput(payload: usize, contenders: &[Contender], rounds: &[Vec<Measured>]) -> Table {
    let heading = format!("Throughput: {IN_FLIGHT} calls in flight, {payload} bytes there and back");
    let mut table = Table::new(heading, &["", "calls per second", "to raw"]);
    let of = |rounds: &[Measured]| rounds.iter().map(|measured| measured.per_second).collect::<Vec<_>>();
    let raw = of(&rounds[0]);
    for (contender, rounds) in contenders.iter().zip(rounds) {
        let rates = of(rounds);
        table.row(vec![contender.name().to_owned(), spread(&rates, grouped), ratio(&rates, &raw)]);
    }
    table
}

fn spread(figures: &[f64], show: impl Fn(f64) -> String) -> String {
    let Spread { median, min, max } = Spread::of(figures);
    format!("{} ({} to {})", show(median), show(min), show(max))
}

fn ratio(figures: &[f64], base: &[f64]) -> String {
    format!("{:.3}", Spread::of_ratios(figures, base).median)
}
