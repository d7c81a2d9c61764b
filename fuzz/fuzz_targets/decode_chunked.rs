//! See `fluxar_proto::fuzzing::decode_chunked`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxar_proto::fuzzing::decode_chunked(data));
