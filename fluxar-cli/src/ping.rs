//! `fluxar ping`.

use std::fmt;
use std::time::Duration;

use fluxar::Code;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::args::PingArgs;
use crate::connect::{Connected, Destination, unless_interrupted};
use crate::failure::{Exit, Failure, print};
use crate::notation::one_line;

/// How many of the latest round trips the percentiles are made of.
const SAMPLES: usize = 1 << 20;

pub(crate) async fn run(args: &PingArgs) -> Result<(), Failure> {
    // It measures one connection: its loss is what is to be told.
    let destination = Destination::new(&args.url, &args.access, false)?;
    let began = Instant::now();
    let Some(client) = unless_interrupted(destination.connect()).await else {
        return Err(Failure::silent(Exit::Interrupted));
    };
    let client = client?;
    let agent = client.info().and_then(|info| info.agent).unwrap_or_else(|| "no agent".into());
    let took = Millis(began.elapsed());
    print(one_line(&format!("connected to {} ({agent}) in {took}", client.remote())))?;
    let mut tally = Tally::default();
    let ended = unless_interrupted(ping(&client, args, &mut tally)).await.unwrap_or(Ok(()));
    let summed_up = print(format_args!("--- {}\n{tally}", one_line(&client.remote())));
    client.shut_down().await;
    ended.and(summed_up)?;
    if tally.answered == 0 { Err(Failure::silent(Exit::Failed)) } else { Ok(()) }
}

async fn ping(client: &Connected, args: &PingArgs, tally: &mut Tally) -> Result<(), Failure> {
    for number in 1..=args.count.unwrap_or(u64::MAX) {
        let began = Instant::now();
        tally.sent = number;
        match answer(client, args.timeout).await? {
            Some(rtt) => {
                tally.add(rtt);
                print(format_args!("ping {number}: {}", Millis(rtt)))?;
            }
            None => print(format_args!("ping {number}: no answer within {}", Millis(args.timeout)))?,
        }
        if Some(number) != args.count {
            tokio::select! {
                () = sleep_until(began + args.interval) => {}
                why = client.closed() => return Err(Failure::connection(why)),
            }
        }
    }
    Ok(())
}

/// How long a round trip takes; `None` where it takes too long.
async fn answer(client: &Connected, limit: Duration) -> Result<Option<Duration>, Failure> {
    match timeout(limit, client.ping()).await {
        Ok(Ok(rtt)) => Ok(Some(rtt)),
        // Those before it are unanswered too.
        Ok(Err(error)) if error.code == Code::RESOURCE_EXHAUSTED && client.error().is_none() => {
            sleep(limit).await;
            Ok(None)
        }
        Ok(Err(error)) => Err(match client.error() {
            Some(why) => Failure::connection(why),
            None => Failure::connection(error),
        }),
        Err(_) => Ok(None),
    }
}

/// A time in milliseconds, to the microsecond.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ms", self.0.as_secs_f64() * 1e3)
    }
}

/// What has come of the pings so far.
#[derive(Default)]
struct Tally {
    sent: u64,
    answered: u64,
    extremes: Option<(Duration, Duration)>,
    /// The latest round trips, in no order.
    samples: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, rtt: Duration) {
        let (min, max) = self.extremes.unwrap_or((rtt, rtt));
        self.extremes = Some((min.min(rtt), max.max(rtt)));
        if self.samples.len() < SAMPLES {
            self.samples.push(rtt);
        } else {
            self.samples[self.answered as usize % SAMPLES] = rtt;
        }
        self.answered += 1;
    }
}

/// The smallest value that `percent` of the sorted values do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pings = if self.sent == 1 { "ping" } else { "pings" };
        write!(f, "{} {pings}, {} answered", self.sent, self.answered)?;
        let Some((min, max)) = self.extremes else { return Ok(()) };
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let times = [min, percentile(&sorted, 50), percentile(&sorted, 99), max];
        let [min, p50, p99, max] = times.map(|time| format!("{:.3}", time.as_secs_f64() * 1e3));
        write!(f, ", min/p50/p99/max {min}/{p50}/{p99}/{max} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values = (1..=100).map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(percentile(&values, 50), Duration::from_millis(50));
        assert_eq!(percentile(&values, 99), Duration::from_millis(99));
        assert_eq!(percentile(&values[..1], 50), Duration::from_millis(1));
        assert_eq!(percentile(&values[..2], 99), Duration::from_millis(2));
        assert_eq!(percentile(&values[..3], 50), Duration::from_millis(2));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn the_summary() {
        let mut tally = Tally { sent: 1, ..Tally::default() };
        assert_eq!(tally.to_string(), "1 ping, 0 answered");
        tally.sent = 4;
        [3, 1, 2].into_iter().for_each(|millis| tally.add(Duration::from_millis(millis)));
        assert_eq!(tally.to_string(), "4 pings, 3 answered, min/p50/p99/max 1.000/2.000/3.000/3.000 ms");
    }
}
