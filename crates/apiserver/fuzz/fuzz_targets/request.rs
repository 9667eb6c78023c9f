//! Arbitrary bytes as a request of the Kubernetes API.
#![no_main]

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    harness::request(input);
});
