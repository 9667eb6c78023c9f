//! Arbitrary bodies: whatever comes, it is an object or a reason, and soon.

use crate::{recorded, rules};
use protobuf::{DecodeError, to_json};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::collections::BTreeSet;

const ROUNDS: usize = 50_000;

/// One small change, of those that break or move what lengths and tags say.
fn change(body: &mut Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) {
    let place = random.random_range(0..=body.len());
    let span = place..body.len().min(place + random.random_range(0..9));
    match random.random_range(0..10) {
        0 => body.truncate(place),
        1 => drop(body.drain(span)),
        2 => {
            let piece = body.get(span).unwrap_or_default().repeat(random.random_range(1..9));
            body.splice(place..place, piece);
        }
        3 => {
            let other = others.choose(random).map(Vec::as_slice).unwrap_or_default();
            let from = random.random_range(0..=other.len());
            body.splice(span, other.iter().skip(from).take(random.random_range(0..64)).copied());
        }
        4 => {
            drop(body.splice(place..place, [0xff; 10].into_iter().take(random.random_range(1..11))))
        }
        kind => {
            if let Some(byte) = body.get_mut(place) {
                *byte = if kind % 2 == 1 {
                    *byte ^ (1 << random.random_range(0..8))
                } else {
                    random.random()
                };
            }
        }
    }
}

#[test]
fn any_body_is_an_object_or_a_reason() {
    let seeds: Vec<Vec<u8>> = recorded::bodies().into_iter().chain(rules::bodies()).collect();
    let mut random = StdRng::seed_from_u64(1);
    let (mut objects, mut reasons) = (0, BTreeSet::new());
    for round in 0..ROUNDS {
        let mut body = seeds.choose(&mut random).cloned().unwrap_or_default();
        for _ in 0..random.random_range(1..3) {
            change(&mut body, &seeds, &mut random);
        }
        match to_json(&body) {
            Ok(object) => {
                objects += 1;
                let text = object.to_string();
                assert!(object["kind"].is_string(), "round {round}: {text}");
                // Whatever numbers and strings are in it, it can be stored and read again.
                assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), object);
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                reasons.insert(match error {
                    DecodeError::Malformed { reason, .. } => {
                        reason.split(&[':', '0'][..]).take(2).collect::<String>()
                    }
                    DecodeError::Prefix => "prefix".to_owned(),
                    DecodeError::Envelope(_) => "envelope".to_owned(),
                    DecodeError::UnknownKind { .. } => "kind".to_owned(),
                });
            }
        }
    }
    // The changes reach beyond the outermost layer.
    assert!(objects > ROUNDS / 10, "{objects} objects");
    assert!(reasons.len() > 8, "{reasons:?}");
}

#[test]
fn every_beginning_of_a_body_is_an_object_or_a_reason() {
    for body in recorded::bodies().into_iter().chain(rules::bodies()) {
        for len in 0..body.len() {
            let _ = to_json(&body[..len]);
        }
    }
}
