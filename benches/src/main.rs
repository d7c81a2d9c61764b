//! The benchmark suite: FLUXAR and its neighbours, side by side.
//!
//! `cargo run --release -p fluxar-bench -- --help` says what can be chosen. All tables are Markdown.
//!
//! What is compared is always measured in the same run, round by round in turn, so that a neighbour on the same machine
//! disturbs everyone alike. Ratios are formed within a round; what is shown is the median over the rounds.

mod codec;
mod contender;
mod fairness;
mod load;
mod machine;
mod meter;
mod options;
mod process;
mod pubsub;
mod resume;
mod rounds;
mod rpc;
mod stats;
mod streams;
mod table;

use std::process::ExitCode;

use options::{Options, Part};

/// Anything that ends the run; shown to the user as it is.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let outcome = match arguments.first().map(String::as_str) {
        Some(process::CHILD) => process::child(&arguments[1..]),
        _ => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fluxar-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let Some(options) = Options::parse(arguments)? else {
        print!("{}", options::HELP);
        return Ok(());
    };
    if cfg!(debug_assertions) {
        eprintln!("fluxar-bench: this is a debug build, its figures mean nothing");
    }
    println!("# {}\n", machine::describe());
    if options.wants(Part::Codec) {
        println!("{}", codec::describe(options.rounds));
        println!("{}", codec::run(options.rounds));
    }
    let between_processes =
        [Part::Latency, Part::Throughput, Part::Streams, Part::Fairness, Part::PubSub, Part::Resume];
    let parts = between_processes.into_iter().filter(|&part| options.wants(part)).collect::<Vec<_>>();
    if !parts.is_empty() {
        println!("{}", rounds::describe(&options)?);
    }
    for part in parts {
        let shown = match part {
            Part::Streams => streams::run(&options)?,
            Part::Fairness => fairness::run(&options)?,
            Part::PubSub => pubsub::run(&options)?,
            Part::Resume => resume::run(&options)?,
            _ => rpc::run(part, &options)?,
        };
        println!("{shown}");
    }
    Ok(())
}
