//! See `fluxar_proto::fuzzing::decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxar_proto::fuzzing::decode(data));
