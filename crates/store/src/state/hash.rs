//! The rolling state hash: equal on every member at an equal index (INV-10).

/// FNV-1a over explicit bytes, 64 bits: stable across builds and machines, and cheap enough to run
/// over every command. It finds divergence, it does not defend against an attacker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hasher(u64);

impl Hasher {
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    /// Goes on from an earlier hash; 0 begins.
    pub(crate) fn from(seed: u64) -> Self {
        Self(seed ^ 0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        // Eight bytes a step: an eighth of the multiplications, the same spread for long values.
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.0 = (self.0 ^ u64::from_le_bytes(*word)).wrapping_mul(Self::PRIME);
            self.0 ^= self.0 >> 29;
        }
        for byte in rest {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
        self.number(bytes.len() as u64)
    }

    pub(crate) fn number(mut self, value: u64) -> Self {
        self.0 = (self.0 ^ value).wrapping_mul(Self::PRIME);
        self.0 ^= self.0 >> 32;
        self
    }

    pub(crate) fn finish(self) -> u64 {
        self.0
    }
}
