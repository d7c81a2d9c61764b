//! What a client does to a server, and what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::{Error, stats::percentile};

/// What is asked of a contender.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// How many calls are always on their way.
    pub(crate) in_flight: usize,
    /// How many bytes a call carries there and back.
    pub(crate) payload: usize,
    /// How long calls run before anything counts.
    pub(crate) warm_up: Duration,
    /// How long calls are counted; longer where none has been answered by then.
    pub(crate) measure: Duration,
}

/// What one contender did under one load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Answered calls per second.
    pub(crate) per_second: f64,
    /// Round trips in nanoseconds; zero where more than one call was in flight.
    pub(crate) p50: u64,
    /// As `p50`.
    pub(crate) p99: u64,
}

/// A connection that calls can be made on, many at a time.
pub(crate) trait Caller: Clone + Send + Sync + 'static {
    /// Sends `payload` there and back.
    fn call(&self, payload: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;
}

/// The bytes that go there and back.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| at as u8).collect()
}

/// What everyone checks an answer with: cheap, and yet an answer of the wrong length is noticed.
pub(crate) fn check(sent: &[u8], received: &[u8]) -> Result<(), Error> {
    let same = sent.len() == received.len() && sent.last() == received.last();
    if same { Ok(()) } else { Err("the answer is not what was sent".into()) }
}

/// Puts the load on a contender that makes calls: one task for each call in flight.
pub(crate) async fn drive<C: Caller>(caller: C, load: Load) -> Result<Measured, Error> {
    if load.in_flight == 1 {
        let payload = payload(load.payload);
        return one_at_a_time(load, async || caller.call(&payload).await).await;
    }
    many_at_a_time(caller, load).await
}

/// Calls one after another, and times each of them.
pub(crate) async fn one_at_a_time(
    load: Load,
    mut call: impl AsyncFnMut() -> Result<(), Error>,
) -> Result<Measured, Error> {
    let began = Instant::now();
    while began.elapsed() < load.warm_up {
        call().await?;
    }
    let mut round_trips = Vec::with_capacity(1 << 20);
    let began = Instant::now();
    let mut last = began;
    while last - began < load.measure {
        call().await?;
        let now = Instant::now();
        round_trips.push((now - last).as_nanos() as u64);
        last = now;
    }
    let per_second = round_trips.len() as f64 / (last - began).as_secs_f64();
    round_trips.sort_unstable();
    Ok(Measured { per_second, p50: percentile(&round_trips, 50.0), p99: percentile(&round_trips, 99.0) })
}

async fn many_at_a_time<C: Caller>(caller: C, load: Load) -> Result<Measured, Error> {
    let answered = Arc::new(AtomicU64::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..load.in_flight {
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
        per_second = counted => Ok(Measured { per_second, p50: 0, p99: 0 }),
        Some(ended) = callers.join_next() => Err(ended.unwrap_or_else(Into::into)),
    }
}
