//! What a client does to a server, and what came of it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::{Error, stats::percentile};

/// What a client and a server do with one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// So many calls are always on their way.
    Calls(usize),
    /// The server sends items, as many as it can.
    Download,
    /// The client sends items, as many as it can.
    Upload,
    /// One small call at a time, while the server sends items on the same connection, as many as it can.
    CallsBesideDownload,
    /// The client publishes to the server, whose application takes the messages.
    PublishDirect(Mode),
    /// The client publishes over one connection, and takes what the server relays over so many others.
    PublishRelayed(Mode, usize),
    /// One call at a time, each while the link is cut.
    CallsAcrossCuts,
    /// The client leaves sessions behind that wait for another link.
    Detached,
}

/// How often a message that is published arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the names that everyone knows them by")]
pub(crate) enum Mode {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

impl Mode {
    const ALL: [Self; 3] = [Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce];
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mode = text.parse().ok().and_then(|at: usize| Self::ALL.get(at).copied());
        mode.ok_or_else(|| format!("there is no mode {text}").into())
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls(in_flight) => write!(f, "calls:{in_flight}"),
            Self::Download => f.write_str("download"),
            Self::Upload => f.write_str("upload"),
            Self::CallsBesideDownload => f.write_str("calls-beside-download"),
            Self::PublishDirect(mode) => write!(f, "direct:{}", *mode as u8),
            Self::PublishRelayed(mode, subscribers) => write!(f, "relayed:{}:{subscribers}", *mode as u8),
            Self::CallsAcrossCuts => f.write_str("calls-across-cuts"),
            Self::Detached => f.write_str("detached"),
        }
    }
}

impl FromStr for Work {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split(':').collect::<Vec<_>>()[..] {
            ["calls", in_flight] => Ok(Self::Calls(in_flight.parse()?)),
            ["download"] => Ok(Self::Download),
            ["upload"] => Ok(Self::Upload),
            ["calls-beside-download"] => Ok(Self::CallsBesideDownload),
            ["calls-across-cuts"] => Ok(Self::CallsAcrossCuts),
            ["detached"] => Ok(Self::Detached),
            ["direct", mode] => Ok(Self::PublishDirect(mode.parse()?)),
            ["relayed", mode, subscribers] => Ok(Self::PublishRelayed(mode.parse()?, subscribers.parse()?)),
            _ => Err(format!("there is no work {text}").into()),
        }
    }
}

/// What is asked of a contender.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) work: Work,
    /// How many bytes a call carries there and back, or an item.
    pub(crate) payload: usize,
    /// How long the work goes on before anything counts.
    pub(crate) warm_up: Duration,
    /// How long it counts; longer where nothing has been done by then.
    pub(crate) measure: Duration,
}

/// What one contender did under one load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Answered calls per second; or items per second, or messages that arrived, where there are any.
    pub(crate) per_second: f64,
    /// The share of what was published that did not arrive, from 0 to 1.
    pub(crate) lost: f64,
    /// Round trips of calls in nanoseconds; zero where there are none, or more than one was in flight.
    pub(crate) p50: u64,
    /// As `p50`.
    pub(crate) p99: u64,
    /// What each session holds at the server, in bytes; zero where that was not the question.
    pub(crate) memory: f64,
}

impl Measured {
    /// A rate, without round trips.
    pub(crate) fn rate(per_second: f64) -> Self {
        Self { per_second, lost: 0.0, p50: 0, p99: 0, memory: 0.0 }
    }
}

/// What a small call beside a stream carries, in bytes.
pub(crate) const SMALL_CALL: usize = 64;

/// A connection that calls can be made on, many at a time.
pub(crate) trait Caller: Clone + Send + Sync + 'static {
    /// Sends `payload` there and back.
    fn call(&self, payload: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;
}

/// The bytes that go there and back.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| at as u8).collect()
}

/// What everyone checks what came with: cheap, and yet one of the wrong length is noticed.
pub(crate) fn check(sent: &[u8], received: &[u8]) -> Result<(), Error> {
    let same = sent.len() == received.len() && sent.last() == received.last();
    if same { Ok(()) } else { Err("what came is not what was sent".into()) }
}

/// Puts calls on a contender: one task for each of those in flight.
pub(crate) async fn drive<C: Caller>(caller: C, in_flight: usize, load: Load) -> Result<Measured, Error> {
    if in_flight == 1 {
        let payload = payload(load.payload);
        return one_at_a_time(load, async || caller.call(&payload).await).await;
    }
    many_at_a_time(caller, in_flight, load).await
}

/// Calls one after another, and times each of them.
pub(crate) async fn one_at_a_time(
    load: Load,
    mut call: impl AsyncFnMut() -> Result<(), Error>,
) -> Result<Measured, Error> {
    warm_up(load.warm_up, &mut call).await?;
    time_each(load.measure, &mut call).await
}

async fn warm_up(time: Duration, call: &mut impl AsyncFnMut() -> Result<(), Error>) -> Result<(), Error> {
    let began = Instant::now();
    while began.elapsed() < time {
        call().await?;
    }
    Ok(())
}

async fn time_each(
    time: Duration,
    call: &mut impl AsyncFnMut() -> Result<(), Error>,
) -> Result<Measured, Error> {
    let mut round_trips = Vec::with_capacity(1 << 20);
    let began = Instant::now();
    let mut last = began;
    while round_trips.is_empty() || last - began < time {
        call().await?;
        let now = Instant::now();
        round_trips.push((now - last).as_nanos() as u64);
        last = now;
    }
    let per_second = round_trips.len() as f64 / (last - began).as_secs_f64();
    round_trips.sort_unstable();
    let [p50, p99] = [50.0, 99.0].map(|percent| percentile(&round_trips, percent));
    Ok(Measured { p50, p99, ..Measured::rate(per_second) })
}

async fn many_at_a_time<C: Caller>(caller: C, in_flight: usize, load: Load) -> Result<Measured, Error> {
    let answered = Arc::new(AtomicU64::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (caller, answered, payload) = (caller.clone(), answered.clone(), payload(load.payload));
        callers.spawn(async move {
            loop {
                if let Err(error) = caller.call(&payload).await {
                    return error;
                }
                answered.fetch_add(1, Relaxed);
            }
        });
    }
    let counted = async {
        tokio::time::sleep(load.warm_up).await;
        let (began, before) = (Instant::now(), answered.load(Relaxed));
        tokio::time::sleep(load.measure).await;
        while answered.load(Relaxed) == before {
            tokio::task::yield_now().await; // a rate needs one answer at the least
        }
        (answered.load(Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
    };
    tokio::select! {
        per_second = counted => Ok(Measured::rate(per_second)),
        Some(ended) = callers.join_next() => Err(ended.unwrap_or_else(Into::into)),
    }
}

/// Small calls one after another, timed, while `stream` goes on in a task of its own and counts its items. The figures
/// are the calls' round trips, and the rate of the items beside them.
pub(crate) async fn beside<C: Caller>(
    caller: C,
    load: Load,
    stream: impl AsyncFnOnce(Arc<AtomicU64>) -> Result<tokio::task::JoinHandle<Error>, Error>,
) -> Result<Measured, Error> {
    let items = Arc::new(AtomicU64::new(0));
    let task = stream(items.clone()).await?;
    let payload = payload(SMALL_CALL);
    let mut call = async || caller.call(&payload).await;
    let counted = async {
        warm_up(load.warm_up, &mut call).await?;
        let (began, before) = (Instant::now(), items.load(Relaxed));
        let measured = time_each(load.measure, &mut call).await?;
        while items.load(Relaxed) == before {
            tokio::task::yield_now().await; // a rate needs one item at the least
        }
        let per_second = (items.load(Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
        Ok(Measured { per_second, ..measured })
    };
    tokio::select! {
        measured = counted => measured,
        ended = task => Err(ended.unwrap_or_else(Into::into)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_written_and_read() {
        let publishing = Mode::ALL.map(|mode| [Work::PublishDirect(mode), Work::PublishRelayed(mode, 64)]);
        let others = [
            Work::Calls(128),
            Work::Download,
            Work::Upload,
            Work::CallsBesideDownload,
            Work::CallsAcrossCuts,
            Work::Detached,
        ];
        for work in publishing.into_iter().flatten().chain(others) {
            assert_eq!(work.to_string().parse::<Work>().unwrap(), work);
        }
        for none in ["calls", "calls:x", "direct:3", "relayed:0"] {
            assert!(none.parse::<Work>().is_err(), "{none}");
        }
    }
}
