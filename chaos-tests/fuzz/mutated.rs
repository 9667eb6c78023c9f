//! Inputs of fuzz tests, changed a little. The tests of several crates take this file in by its path: what only
//! tests need is in no crate that others could use.

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::ops::Range;

/// How inputs of one sort are changed.
pub(crate) struct Mutations<'a> {
    /// What decoders of such inputs trip over: it is put in the place of something.
    pub(crate) words: &'a [&'a [u8]],
    /// Bytes that are put in one at a time.
    pub(crate) bytes: Range<u16>,
    /// The beginning that is never cut off.
    pub(crate) head: usize,
    /// Bytes of an input at most.
    pub(crate) length_max: usize,
}

impl Mutations<'_> {
    /// One of the inputs with none to four changes.
    pub(crate) fn of(&self, inputs: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
        let mut bytes = inputs.choose(random).unwrap().clone();
        for _ in 0..random.random_range(0..5) {
            self.change(&mut bytes, inputs, random);
            bytes.truncate(self.length_max);
        }
        bytes
    }

    fn change(&self, bytes: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut StdRng) {
        let at = random.random_range(0..=bytes.len());
        let span = at..bytes.len().min(at + random.random_range(0..9));
        match random.random_range(0..10) {
            0 => bytes.truncate(at.max(self.head)),
            1 => {
                let byte = random.random_range(self.bytes.clone());
                bytes.insert(at, u8::try_from(byte).unwrap());
            }
            2 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            3 => drop(bytes.drain(span)),
            4 | 5 => {
                let word = self.words.choose(random).unwrap();
                // In the place of as much, or of something else.
                let span =
                    if random.random() { at..bytes.len().min(at + word.len()) } else { span };
                drop(bytes.splice(span, word.iter().copied()));
            }
            6 => {
                let other = inputs.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                drop(bytes.splice(at..at, other[from..].iter().copied()));
            }
            7 => {
                let part = bytes[at..].to_vec();
                bytes.extend(part.iter().cycle().take(part.len() * random.random_range(1..20)));
            }
            8 => {
                let part = bytes[span].to_vec();
                drop(bytes.splice(at..at, part));
            }
            _ if !bytes.is_empty() => bytes[0] = random.random(),
            _ => {}
        }
    }
}
