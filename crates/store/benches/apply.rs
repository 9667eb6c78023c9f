//! What applying one command costs, as a replica does it: in batches.
//!
//! `cargo bench -p store`
#![allow(clippy::unwrap_used, reason = "a panic in a benchmark is its failure")]

use bytes::Bytes;
use divan::{Bencher, counter::ItemsCount};
use store::{
    Command, LeaseId, Op, Origin, Put, RequestId, Timestamp, Txn, TxnOp,
    state::{State, View},
};

/// Commands in a batch.
const BATCH: u64 = 32;

fn put(sequence: u64, key: u64) -> Command {
    let put = Put {
        key: Bytes::from(format!("key-{key:012}")),
        value: Bytes::from(vec![7; 256]),
        lease: LeaseId::NONE,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    Command {
        at: Timestamp(sequence),
        request: RequestId { client: sequence % 24, sequence: sequence / 24 + 1 },
        origin: Origin::Client,
        op: Op::Txn(Txn { success: vec![TxnOp::Put(put)], ..Txn::default() }),
    }
}

/// No two batches write near each other.
fn scatter(i: u64, keys: u64) -> u64 {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys
}

fn filled(keys: u64) -> State {
    let mut state = State::default();
    for key in 0..keys {
        state.apply(&put(key, key));
    }
    state
}

/// What else looks at the state.
#[derive(Debug, Clone, Copy)]
enum Readers {
    None,
    /// One that holds a view while the next batch is applied: it is applied to a copy.
    Each,
}

#[divan::bench(args = [
    (10_000, Readers::None),
    (10_000, Readers::Each),
    (1_000_000, Readers::None),
    (1_000_000, Readers::Each),
])]
fn puts(bencher: Bencher<'_, '_>, (keys, readers): (u64, Readers)) {
    let mut state = filled(keys);
    let mut held: Option<View> = None;
    let mut sequence = keys;
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            sequence += BATCH;
            (sequence..sequence + BATCH).map(|i| put(i, scatter(i, keys))).collect::<Vec<Command>>()
        })
        .bench_local_values(|commands| {
            if let Readers::Each = readers {
                held = Some(state.view());
            }
            for command in &commands {
                state.apply(command);
            }
        });
    drop(held);
    assert!(state.revision().get() > keys);
}

fn main() {
    divan::main();
}
