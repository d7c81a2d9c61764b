//! Rounds in which the contenders take turns, and what is shown of them.

use crate::contender::Contender;
use crate::load::{Load, Measured};
use crate::machine::Cores;
use crate::options::Options;
use crate::stats::Spread;
use crate::{Error, process};

/// How it is measured, and who takes part.
pub(crate) fn describe(options: &Options) -> Result<String, Error> {
    let Cores { server, client } = Cores::pick()?;
    let mut text = format!(
        "Calls, streams and messages: server and client are processes on core {server} and core {client}, each with a \
         current-thread Tokio runtime, over loopback TCP with TCP_NODELAY. {} rounds of {:?} each, taking turns: median \
         (smallest to largest). Ratios are between figures of the same round.\n\n",
        options.rounds, options.measure
    );
    for contender in &options.contenders {
        text += &format!("- `{}`: {}\n", contender.name(), contender.about());
    }
    Ok(text)
}

/// The figures of every contender, round by round, under every load.
pub(crate) fn measure<const N: usize>(
    loads: [Load; N],
    contenders: &[Contender],
    options: &Options,
) -> Result<Vec<[Vec<Measured>; N]>, Error> {
    let turns = contenders.iter().flat_map(|&who| loads.map(|load| (who, load))).collect::<Vec<_>>();
    let mut figures = take_turns(&turns, options)?.into_iter();
    Ok(contenders.iter().map(|_| [(); N].map(|()| figures.next().unwrap_or_default())).collect())
}

/// The figures of everyone under a load of its own, round by round. Within a round they take turns, each round beginning
/// with another.
pub(crate) fn take_turns(
    turns: &[(Contender, Load)],
    options: &Options,
) -> Result<Vec<Vec<Measured>>, Error> {
    let cores = Cores::pick()?;
    let mut figures = vec![Vec::with_capacity(options.rounds); turns.len()];
    for round in 0..options.rounds {
        for turn in 0..turns.len() {
            let turn = (round + turn) % turns.len();
            let (contender, load) = &turns[turn];
            let measured = process::measure(*contender, load, cores);
            let failed = |error| format!("{} at {}: {error}", contender.name(), load.work);
            figures[turn].push(measured.map_err(failed)?);
        }
    }
    Ok(figures)
}

/// How fast something was done, in each round.
pub(crate) fn rates(rounds: &[Measured]) -> Vec<f64> {
    rounds.iter().map(|measured| measured.per_second).collect()
}

/// Round trips in microseconds, in each round.
pub(crate) fn micros(rounds: &[Measured], which: fn(&Measured) -> u64) -> Vec<f64> {
    rounds.iter().map(|measured| which(measured) as f64 / 1000.0).collect()
}

/// Median, smallest and largest.
pub(crate) fn spread(figures: &[f64], show: impl Fn(f64) -> String) -> String {
    let Spread { median, min, max } = Spread::of(figures);
    format!("{} ({} to {})", show(median), show(min), show(max))
}

/// The median of the ratios round by round.
pub(crate) fn ratio(figures: &[f64], base: &[f64]) -> String {
    format!("{:.3}", Spread::of_ratios(figures, base).median)
}

/// With one digit behind the point.
pub(crate) fn tenths(figure: f64) -> String {
    format!("{figure:.1}")
}
