//! Arbitrary bytes as a gRPC request.
#![no_main]

#[allow(dead_code, reason = "the other target's half")]
#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    harness::grpc(input);
});
