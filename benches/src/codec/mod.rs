//! One message to bytes and back: the announced example, as FLUXAR and as two neighbours write it.

mod fluxar;
mod protobuf;
mod rmp;

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::stats::Spread;
use crate::table::Table;

/// The id of the example.
const ID: [u8; 16] = *b"\x01\x93\x5a\x2b\x7c\x4d\x7e\x8f\x9a\x1b\x2c\x3d\x4e\x5f\x60\x71";
const TARGET: &str = "user.getProfile";
const META: (&str, &str) = ("trace_id", "abc123");

/// How often a batch encodes or decodes, and how many batches a round has.
const BATCH: u32 = 10_000;
const BATCHES: usize = 10;

/// One way to write the example down.
struct Codec {
    name: &'static str,
    about: &'static str,
    /// The example, encoded.
    bytes: Vec<u8>,
    /// Encodes the example into a buffer that is reused, as often as told.
    encode: Box<dyn FnMut(u32) -> Duration>,
    /// Decodes it, as often as told.
    decode: Box<dyn FnMut(u32) -> Duration>,
}

impl Codec {
    /// `encode` appends the example to a buffer; `decode` reads it back.
    fn new(
        name: &'static str,
        about: &'static str,
        mut encode: impl FnMut(&mut Vec<u8>) + 'static,
        mut decode: impl FnMut(&[u8]) + 'static,
    ) -> Self {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        decode(&bytes);
        let (encoded, mut buffer) = (bytes.clone(), Vec::with_capacity(bytes.len()));
        Self {
            name,
            about,
            bytes,
            encode: Box::new(move |times| {
                timed(times, || {
                    buffer.clear();
                    encode(black_box(&mut buffer));
                    black_box(&buffer);
                })
            }),
            decode: Box::new(move |times| timed(times, || decode(black_box(&encoded)))),
        }
    }
}

fn timed(times: u32, mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        work();
    }
    began.elapsed()
}

fn codecs() -> [Codec; 3] {
    [fluxar::codec(), protobuf::codec(), rmp::codec()]
}

/// Measures `rounds` rounds, and shows them.
pub(crate) fn run(rounds: usize) -> String {
    let mut codecs = codecs();
    let mut figures = codecs.each_ref().map(|_| [Vec::new(), Vec::new(), Vec::new()]);
    for _ in 0..rounds * BATCHES {
        for (codec, [encode, decode, both]) in codecs.iter_mut().zip(&mut figures) {
            let [to, from] = [(codec.encode)(BATCH), (codec.decode)(BATCH)].map(|time| nanos(time, BATCH));
            encode.push(to);
            decode.push(from);
            both.push(to + from);
        }
    }
    table(&codecs, &figures).to_string()
}

fn nanos(time: Duration, times: u32) -> f64 {
    time.as_nanos() as f64 / f64::from(times)
}

/// How the codecs are measured, and which they are.
pub(crate) fn describe(rounds: usize) -> String {
    let mut text = format!(
        "Codec: one message, of type call, with an id of 16 bytes, target {TARGET:?}, meta {{{}: {:?}}}, payload {{id: 42}} \
         and no error. The payload is bytes to all of them, encoded beforehand in the format's own way. Encoding writes \
         into a reused buffer. Nanoseconds: median (smallest to largest) of {} batches of {BATCH} in turns. The last \
         column is the median of both, divided by FLUXAR's in the same turn.\n\n",
        META.0,
        META.1,
        rounds * BATCHES,
    );
    for codec in codecs() {
        text += &format!("- `{}`: {}\n", codec.name, codec.about);
    }
    text
}

fn table(codecs: &[Codec; 3], figures: &[[Vec<f64>; 3]; 3]) -> Table {
    let columns = ["", "bytes", "encode", "decode", "both", "both to fluxar"];
    let mut table = Table::new("Codec: bytes, and nanoseconds", &columns);
    for (codec, [encode, decode, both]) in codecs.iter().zip(figures) {
        let show = |figures: &[f64]| {
            let Spread { median, min, max } = Spread::of(figures);
            format!("{median:.0} ({min:.0} to {max:.0})")
        };
        table.row(vec![
            codec.name.to_owned(),
            codec.bytes.len().to_string(),
            show(encode),
            show(decode),
            show(both),
            format!("{:.2}", Spread::of_ratios(both, &figures[0][2]).median),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each codec has checked its own round trip; all of them carry the same text.
    #[test]
    fn all_carry_the_example() {
        for codec in codecs() {
            for part in [&ID[..], TARGET.as_bytes(), META.0.as_bytes(), META.1.as_bytes()] {
                assert!(codec.bytes.windows(part.len()).any(|window| window == part), "{}", codec.name);
            }
        }
        assert_eq!(codecs()[0].bytes.len(), 60, "the announced example");
    }

    #[test]
    fn prints_a_row_for_each() {
        let shown = run(1);
        assert!(codecs().iter().all(|codec| shown.contains(&format!("| {} ", codec.name))), "{shown}");
    }
}
