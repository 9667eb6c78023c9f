//! Header blocks: one compressed stream a connection and direction, a piece of it a block.
//!
//! What comes in is inflated. What goes out is put into the same form as blocks that are stored as they
//! are: it is a few bytes a stream, and needs no compressor.

use super::{
    SpdyError,
    dictionary::{DICTIONARY, ID},
};
use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_HAS_MORE_INPUT},
};
use std::collections::BTreeMap;

/// Of one block, inflated.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// As far back as a compressed stream may refer; a power of two.
const WINDOW: usize = 32 << 10;
/// Method, window and the flag that a dictionary is used; a multiple of 31, as RFC 1950 wants.
const ZLIB_HEAD: [u8; 2] = [0x78, 0x20];
const DICTIONARY_FLAG: u8 = 0x20;

/// Names, in lower case, and values; of several values of a name, the first.
pub(crate) type Headers = BTreeMap<String, String>;

/// Takes blocks in.
pub(super) struct Inflate {
    state: Box<DecompressorOxide>,
    window: Vec<u8>,
    at: usize,
    begun: bool,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self { state: Box::default(), window: vec![0; WINDOW], at: 0, begun: false }
    }

    /// The headers of the next block. Blocks must be given in order, all of them.
    ///
    /// # Errors
    /// It is not one; the stream cannot go on.
    pub(super) fn block(&mut self, compressed: &[u8]) -> Result<Headers, SpdyError> {
        parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, SpdyError> {
        if !self.begun {
            input = self.begin(input)?;
        }
        let mut out = Vec::new();
        loop {
            let flags = TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, wrote) =
                decompress(&mut self.state, input, &mut self.window, self.at, flags);
            out.extend_from_slice(self.window.get(self.at..self.at + wrote).unwrap_or_default());
            if out.len() > BLOCK_BYTES_MAX {
                return Err(SpdyError::Malformed("a header block too long"));
            }
            input = input.get(read..).unwrap_or_default();
            self.at = (self.at + wrote) % WINDOW;
            let moved = read + wrote > 0;
            if status == TINFLStatus::NeedsMoreInput && input.is_empty() {
                return Ok(out);
            }
            if status != TINFLStatus::HasMoreOutput || !moved {
                return Err(SpdyError::Malformed("a header block that cannot be inflated"));
            }
        }
    }

    /// Reads the stream's own head, and puts the dictionary where it is referred to.
    fn begin<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], SpdyError> {
        let malformed = SpdyError::Malformed("a compressed stream of another kind");
        let Some(([method, flags], rest)) = input.split_first_chunk() else {
            return Err(malformed);
        };
        if method & 0xf != 8 || u16::from_be_bytes([*method, *flags]) % 31 != 0 {
            return Err(malformed);
        }
        self.begun = true;
        if flags & DICTIONARY_FLAG == 0 {
            return Ok(rest);
        }
        let Some((id, rest)) = rest.split_first_chunk() else { return Err(malformed) };
        if u32::from_be_bytes(*id) != ID {
            return Err(malformed);
        }
        if let Some(place) = self.window.get_mut(..DICTIONARY.len()) {
            place.copy_from_slice(&DICTIONARY);
        }
        self.at = DICTIONARY.len();
        Ok(rest)
    }
}

fn parse(block: &[u8]) -> Result<Headers, SpdyError> {
    let short = || SpdyError::Malformed("a header block that ends early");
    let mut rest = block;
    let number = |rest: &mut &[u8]| -> Result<usize, SpdyError> {
        let (bytes, behind) = rest.split_first_chunk().ok_or_else(short)?;
        *rest = behind;
        usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| short())
    };
    let count = number(&mut rest)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let mut text = || {
            let len = number(&mut rest)?;
            let (text, behind) = rest.split_at_checked(len).ok_or_else(short)?;
            rest = behind;
            Ok::<_, SpdyError>(String::from_utf8_lossy(text).into_owned())
        };
        let (name, value) = (text()?.to_lowercase(), text()?);
        let first = value.split('\0').next().unwrap_or_default().to_owned();
        if name.is_empty() || headers.insert(name, first).is_some() {
            return Err(SpdyError::Malformed("a header without a name, or twice"));
        }
    }
    Ok(headers)
}

/// Puts blocks out.
pub(super) struct Deflate {
    begun: bool,
}

impl Deflate {
    pub(super) fn new() -> Self {
        Self { begun: false }
    }

    /// The next block. Blocks must be sent in this order.
    pub(super) fn block(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = Vec::new();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
        plain.extend(number(headers.len()));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(number(text.len()));
            plain.extend(text.as_bytes());
        }
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            out.extend(ZLIB_HEAD);
            out.extend(ID.to_be_bytes());
        }
        let pieces = plain.chunks(usize::from(u16::MAX));
        // The empty one is what tells an inflater that the block is whole.
        for piece in pieces.chain([&[][..]]) {
            let len = u16::try_from(piece.len()).expect("as long as it was cut");
            out.push(0);
            out.extend(len.to_le_bytes());
            out.extend((!len).to_le_bytes());
            out.extend(piece);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(all: &[(&str, &str)]) -> Headers {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            hex.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// Two blocks as zlib makes them with the dictionary; the second refers to the first.
    const FIRST: &str = "78f9e3c6a7c202253a48f95b044eea16061606409ab308125f99a074cc68004e892545a989b9d0c2863515141500000000ffff";
    const SECOND: &str = "225333a8a44a04000000ffff";

    #[test]
    fn blocks_of_a_compressor_are_read_one_after_the_other() {
        let mut inflate = Inflate::new();
        for (block, kind) in [(FIRST, "error"), (SECOND, "data")] {
            let want = headers(&[("port", "8080"), ("requestid", "0"), ("streamtype", kind)]);
            assert_eq!(inflate.block(&bytes(block)).unwrap(), want);
        }
        // Without what came before it, the second is nothing.
        assert!(Inflate::new().block(&bytes(SECOND)).is_err());
    }

    #[test]
    fn a_block_that_grows_without_bound_is_refused() {
        let mut plain = Deflate::new().block(&headers(&[("a", "b")]));
        plain.truncate(6);
        // A stored block of zeros, then one byte repeated 258 times, again and again: fixed codes.
        let mut bits = String::from("010");
        bits.push_str("00110000");
        for _ in 0..400 {
            bits.push_str("11000101");
            bits.push_str("00000");
        }
        let pack = |chunk: &[u8]| chunk.iter().rev().fold(0, |byte, bit| byte << 1 | (bit - b'0'));
        plain.extend(bits.as_bytes().chunks(8).map(pack));
        let refused = Inflate::new().block(&plain);
        assert!(matches!(refused, Err(SpdyError::Malformed("a header block too long"))));
    }

    proptest! {
        #[test]
        fn what_is_put_out_is_what_is_taken_in(
            blocks in prop::collection::vec(prop::collection::btree_map("[a-z]{1,9}", "[ -~]{0,40}", 0..5), 1..5)
        ) {
            let (mut deflate, mut inflate) = (Deflate::new(), Inflate::new());
            for block in blocks {
                let sent = deflate.block(&block);
                prop_assert_eq!(inflate.block(&sent).unwrap(), block);
            }
        }

        #[test]
        fn nothing_that_comes_in_makes_it_fail_otherwise(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4)
        ) {
            let mut inflate = Inflate::new();
            for block in blocks {
                let _ = inflate.block(&block);
            }
        }
    }
}
