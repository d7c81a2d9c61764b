//! The command line.

use std::time::Duration;

use crate::Error;
use crate::contender::Contender;
use crate::load::{Load, Work};

pub(crate) const HELP: &str = "\
Measures FLUXAR and its neighbours side by side and prints Markdown tables.

Usage: cargo run --release -p fluxar-bench -- [OPTIONS]

  --only PARTS         codec, latency, throughput, streams, fairness, pubsub, resume; separated by
                       commas (default: all)
  --contenders NAMES   who takes part in all but codec, separated by commas (default: all);
                       `raw`, which everyone is compared to, always does
  --rounds N           rounds in which the contenders take turns (default: 5)
  --seconds S          how long each of them is measured per round (default: 1)
  --help               this text
";

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Encoding and decoding one message.
    Codec,
    /// One call at a time.
    Latency,
    /// Many calls at a time.
    Throughput,
    /// Items in one direction.
    Streams,
    /// One call at a time beside a stream.
    Fairness,
    /// Messages on topics.
    PubSub,
    /// What it costs that sessions outlive their link.
    Resume,
}

impl Part {
    const ALL: [Self; 7] = [
        Self::Codec,
        Self::Latency,
        Self::Throughput,
        Self::Streams,
        Self::Fairness,
        Self::PubSub,
        Self::Resume,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Codec => "codec",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Streams => "streams",
            Self::Fairness => "fairness",
            Self::PubSub => "pubsub",
            Self::Resume => "resume",
        }
    }
}

/// What the user asked for.
#[derive(Debug)]
pub(crate) struct Options {
    only: Vec<Part>,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) rounds: usize,
    pub(crate) measure: Duration,
}

impl Options {
    /// None: the user wants the help text.
    pub(crate) fn parse(arguments: &[String]) -> Result<Option<Self>, Error> {
        let mut options = Self {
            only: Part::ALL.to_vec(),
            contenders: Contender::ALL.to_vec(),
            rounds: 5,
            measure: Duration::from_secs(1),
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                return Ok(None);
            }
            let value =
                arguments.next().ok_or_else(|| format!("{name}: unknown, or its value is missing"))?;
            match name.as_str() {
                "--only" => options.only = value.split(',').map(part).collect::<Result<_, _>>()?,
                "--contenders" => options.contenders = contenders(value)?,
                "--rounds" => {
                    options.rounds =
                        value.parse().ok().filter(|&n| n > 0).ok_or("--rounds: not a number above 0")?
                }
                "--seconds" => {
                    options.measure = seconds(value).ok_or("--seconds: not a number from 0.01 to 3600")?
                }
                _ => return Err(format!("{name}: unknown option").into()),
            }
        }
        Ok(Some(options))
    }

    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.contains(&part)
    }

    /// What a contender is asked to do with payloads of so many bytes, for as long as the user wants.
    pub(crate) fn load(&self, work: Work, payload: usize) -> Load {
        Load { work, payload, warm_up: self.measure.mul_f64(0.3), measure: self.measure }
    }
}

fn part(name: &str) -> Result<Part, Error> {
    let found = Part::ALL.into_iter().find(|part| part.name() == name);
    found.ok_or_else(|| format!("--only: there is no part {name}").into())
}

fn contenders(names: &str) -> Result<Vec<Contender>, Error> {
    let wanted = names.split(',').map(Contender::from_name).collect::<Result<Vec<_>, _>>()?;
    let takes_part = |contender: &Contender| *contender == Contender::Raw || wanted.contains(contender);
    Ok(Contender::ALL.into_iter().filter(takes_part).collect())
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.01..=3600.0).contains(seconds))?;
    Some(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, Error> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn takes_what_it_offers() {
        let options =
            parse("--only codec,streams --contenders tonic --rounds 3 --seconds 0.5").unwrap().unwrap();
        assert_eq!(options.only, [Part::Codec, Part::Streams]);
        assert_eq!(options.contenders, [Contender::Raw, Contender::Tonic]);
        assert_eq!((options.rounds, options.measure), (3, Duration::from_millis(500)));
        assert!(parse("--rounds 3 --help").unwrap().is_none());
    }

    #[test]
    fn refuses_the_rest() {
        for line in [
            "--only all",
            "--contenders x",
            "--rounds 0",
            "--rounds",
            "--seconds -1",
            "--seconds nan",
            "--fast 1",
            "raw",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
