//! Arbitrary bytes as a request of the JSON gateway.
#![no_main]

#[allow(dead_code, reason = "the other target's half")]
#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    harness::json(input);
});
