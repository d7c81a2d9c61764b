//! What the tests have in common: a generator, encoded items, settings, and the two ways to drive a connection.

mod app;
mod duo;
mod msg;
mod offers;
mod pair;
pub(crate) mod pubsub;
pub(crate) mod rounds;
mod script;
mod streams;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use fluxar_proto::message::{Kind, verb};
use fluxar_proto::{
    CallEvent, CallId, CallOptions, Code, Config, Connection, Error, Event, Id, IdSource, Instant, Payload,
    Request, RequestId, Withdrawn,
};
use minicbor::Encoder;
use proptest::prelude::ProptestConfig;
use rand_core::{TryCryptoRng, TryRng};

pub(crate) use self::app::{App, Came, Flow, number, padded};
pub(crate) use self::duo::{Duo, closed, resumes, survivors};
pub(crate) use self::msg::Msg;
pub(crate) use self::offers::{answer, incoming, offer, offer_with, sent};
pub(crate) use self::pair::{A, B, Chunks, Order, Pair};
pub(crate) use self::script::{Script, features};
pub(crate) use self::streams::{ENDED, Last, Note, Talk, failed, hello, notes, opened, streaming, take};

/// SplitMix64: small, and the same sequence everywhere. Unpredictable it is not, and need not be here.
#[derive(Clone, Debug)]
pub(crate) struct TestRng(u64);

impl TestRng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is above 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound as u64) as usize
    }
}

impl TryRng for TestRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.word() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.word())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.word().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for TestRng {}

/// The source of ids of one side; the wall clock stands at a moment in 2025 when the virtual clock is zero.
pub(crate) fn ids(seed: u64) -> IdSource {
    IdSource::new(1_750_000_000_000, TestRng::new(seed))
}

/// An id that no generator makes: for scripted peers.
pub(crate) fn id(n: u64) -> Id {
    let mut bytes = [0xee; Id::LEN];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    Id::from_bytes(bytes)
}

/// Settings of a connection whose session ends with its link, unless `change` says otherwise.
pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let mut config = Config::default();
    config.resume = false;
    change(&mut config);
    Arc::new(config)
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The moment `ms` milliseconds after the zero of the virtual clock.
pub(crate) fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

/// An encoded item.
pub(crate) fn cbor(
    write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), minicbor::encode::Error<Infallible>>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

pub(crate) fn item(
    write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), minicbor::encode::Error<Infallible>>,
) -> Payload {
    Payload::new(cbor(write).into()).unwrap()
}

pub(crate) fn uint(n: u64) -> Payload {
    item(|out| out.u64(n)?.ok())
}

/// A byte string whose item is `len` bytes long in all; `len` is one that a byte string can have.
pub(crate) fn blob(len: usize) -> Payload {
    let head = match len {
        0..25 => 1,
        25..0x102 => 2,
        0x102..0x1_0003 => 3,
        _ => 5,
    };
    let payload = item(|out| out.bytes(&vec![0xab; len - head])?.ok());
    assert_eq!(payload.len(), len, "no byte string is that long");
    payload
}

pub(crate) fn options() -> CallOptions {
    CallOptions::new()
}

/// A call, and what came of it.
pub(crate) type Outcome = (CallId, Result<Payload, Error>);

/// The requests among some events.
pub(crate) fn requests(events: &[Event]) -> Vec<Request> {
    let requests = events.iter().filter_map(|event| match event {
        Event::Call(CallEvent::Request(request)) => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}

/// Takes the outcomes that some events announce.
pub(crate) fn outcomes(connection: &mut Connection, events: &[Event]) -> Vec<Outcome> {
    let ended = events.iter().filter_map(|event| match event {
        Event::Call(CallEvent::Response(call)) => Some(*call),
        _ => None,
    });
    let mut take = |call| connection.take_response(call).unwrap().expect("an outcome that was announced");
    ended.map(|call| (call, take(call))).collect()
}

/// The code that a call failed with, and what is said of whether it was processed.
#[track_caller]
pub(crate) fn failed_with(result: &Result<Payload, Error>) -> (Code, Option<bool>) {
    let error = result.as_ref().unwrap_err();
    (error.code, error.processed)
}

/// The requests that were withdrawn, among some events.
pub(crate) fn withdrawn(events: &[Event]) -> Vec<(RequestId, Withdrawn)> {
    let withdrawn = events.iter().filter_map(|event| match event {
        Event::Call(CallEvent::Withdrawn(request, why)) => Some((*request, *why)),
        _ => None,
    });
    withdrawn.collect()
}

/// How often some events announce room.
pub(crate) fn capacities(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Call(CallEvent::Capacity))).count()
}

/// The message is a `close` with this error, or without.
pub(crate) fn is_close(message: &Msg, code: Option<Code>) -> bool {
    message.kind == Kind::Control
        && message.target.as_deref() == Some(verb::CLOSE)
        && message.reference.is_none()
        && message.error.as_ref().map(|error| error.code) == code
}

/// So many cases of a property, or as many as `PROPTEST_CASES` says. A failure prints the input, and with it the seed that
/// the session was made from.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        config
    } else {
        ProptestConfig { cases: count, ..config }
    }
}

/// The only element.
#[track_caller]
pub(crate) fn one<T: std::fmt::Debug>(items: Vec<T>) -> T {
    match <[T; 1]>::try_from(items) {
        Ok([item]) => item,
        Err(items) => panic!("expected exactly one, got {items:?}"),
    }
}
