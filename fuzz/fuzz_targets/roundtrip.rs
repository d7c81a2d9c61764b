//! See `fluxar_proto::fuzzing::roundtrip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxar_proto::fuzzing::roundtrip(data));
