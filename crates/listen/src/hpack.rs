//! HPACK (RFC 7541): a decoder with the connection's table, and an encoder that needs none.

use std::collections::VecDeque;

/// Bytes of the dynamic table that a client may fill: the default, which the server here never changes.
const TABLE_BYTES_MAX: usize = 4096;
/// What an entry counts beyond its name and value.
const ENTRY_OVERHEAD: usize = 32;

/// A block that no encoder makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A header as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// No proxy on the way may put it into a table.
    pub(crate) never_indexed: bool,
}

/// What one side of a connection has sent so far.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The newest first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    table_bytes: usize,
    table_bytes_max: usize,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { table: VecDeque::new(), table_bytes: 0, table_bytes_max: TABLE_BYTES_MAX }
    }

    /// One whole header block. What it decodes to counts at most `bytes_max`.
    ///
    /// # Errors
    /// It is malformed, or too large; the table is then of no use any more.
    pub(crate) fn decode(
        &mut self,
        mut block: &[u8],
        bytes_max: usize,
    ) -> Result<Vec<Field>, Malformed> {
        let mut fields = Vec::new();
        let mut bytes_left = bytes_max;
        while let Some(&first) = block.first() {
            let field = if first & 0x80 != 0 {
                let (name, value) = self.entry(integer(&mut block, 7)?)?;
                Field { name, value, never_indexed: false }
            } else if first & 0xc0 == 0x40 {
                let field = self.literal(&mut block, 6)?;
                self.insert(field.name.clone(), field.value.clone());
                field
            } else if first & 0xe0 == 0x20 {
                let bytes_max = integer(&mut block, 5)?;
                if bytes_max > TABLE_BYTES_MAX || !fields.is_empty() {
                    return Err(Malformed);
                }
                self.table_bytes_max = bytes_max;
                self.evict(0);
                continue;
            } else {
                Field { never_indexed: first & 0x10 != 0, ..self.literal(&mut block, 4)? }
            };
            let bytes = field.name.len() + field.value.len() + ENTRY_OVERHEAD;
            bytes_left = bytes_left.checked_sub(bytes).ok_or(Malformed)?;
            fields.push(field);
        }
        Ok(fields)
    }

    fn literal(&self, block: &mut &[u8], prefix_bits: u32) -> Result<Field, Malformed> {
        let name = match integer(block, prefix_bits)? {
            0 => string(block)?,
            index => self.entry(index)?.0,
        };
        Ok(Field { name, value: string(block)?, never_indexed: false })
    }

    fn entry(&self, index: usize) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let index = index.checked_sub(1).ok_or(Malformed)?;
        if let Some((name, value)) = STATIC_TABLE.get(index) {
            return Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        self.table.get(index - STATIC_TABLE.len()).cloned().ok_or(Malformed)
    }

    /// An entry that is larger than the table empties it; that is no error.
    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let bytes = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(bytes);
        if bytes <= self.table_bytes_max {
            self.table_bytes += bytes;
            self.table.push_front((name, value));
        }
    }

    fn evict(&mut self, bytes_needed: usize) {
        while self.table_bytes + bytes_needed > self.table_bytes_max {
            let Some((name, value)) = self.table.pop_back() else { return };
            self.table_bytes -= name.len() + value.len() + ENTRY_OVERHEAD;
        }
    }
}

/// As literals, so that the other side's table stays empty.
pub(crate) fn encode(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for Field { name, value, never_indexed } in fields {
        block.push(if *never_indexed { 0x10 } else { 0 });
        put_string(&mut block, name);
        put_string(&mut block, value);
    }
    block
}

fn put_string(block: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text.len();
    if rest < 0x7f {
        block.push(u8::try_from(rest).expect("below 127"));
    } else {
        block.push(0x7f);
        rest -= 0x7f;
        while rest >= 0x80 {
            block.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
            rest >>= 7;
        }
        block.push(u8::try_from(rest).expect("below 128"));
    }
    block.extend_from_slice(text);
}

fn byte(block: &mut &[u8]) -> Result<u8, Malformed> {
    let (first, rest) = block.split_first().ok_or(Malformed)?;
    *block = rest;
    Ok(*first)
}

/// At most 28 bits and what the prefix holds: more is no length of anything here.
fn integer(block: &mut &[u8], prefix_bits: u32) -> Result<usize, Malformed> {
    let mask = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(byte(block)?) & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let next = usize::from(byte(block)?);
        value += (next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn string(block: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    let coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(len).ok_or(Malformed)?;
    *block = rest;
    if coded { huffman(text) } else { Ok(text.to_vec()) }
}

/// The code is canonical: among the codes of one length the symbols are in order, and the first code of
/// a length follows the last of the one before.
fn huffman(coded: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut text = Vec::with_capacity(coded.len() * 2);
    let mut code: u32 = 0;
    let mut len: usize = 0;
    for byte in coded {
        for shift in (0..8).rev() {
            code = (code << 1) | u32::from((byte >> shift) & 1);
            len += 1;
            let (first, symbols) = HUFFMAN.get(len).ok_or(Malformed)?;
            let place = usize::try_from(code.wrapping_sub(*first)).map_err(|_| Malformed)?;
            if let Some(symbol) = symbols.get(place) {
                text.push(*symbol);
                (code, len) = (0, 0);
            }
        }
    }
    // Padding: less than a byte of ones.
    if len < 8 && code == (1 << len) - 1 { Ok(text) } else { Err(Malformed) }
}

/// For each length in bits: the first code of it, and the symbols in order. Longer is only the end of
/// a string, which no string holds.
static HUFFMAN: std::sync::LazyLock<Vec<(u32, Vec<u8>)>> = std::sync::LazyLock::new(|| {
    let mut code = 0;
    (0..=30)
        .map(|len| {
            let symbols: Vec<u8> = (0..=u8::MAX)
                .zip(CODE_BITS)
                .filter(|(_, bits)| *bits == len)
                .map(|(symbol, _)| symbol)
                .collect();
            code <<= 1;
            let first = code;
            code += u32::try_from(symbols.len()).expect("at most 256");
            (first, symbols)
        })
        .collect()
});

/// Appendix B: bits of each symbol's code.
const CODE_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Appendix A.
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    fn decoded(decoder: &mut Decoder, block: &str) -> Vec<(String, String)> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let fields = decoder.decode(&hex(block), 1 << 16).unwrap();
        fields.into_iter().map(|f| (text(f.name), text(f.value))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    /// Appendix C.4: three requests of one connection, with Huffman coding.
    #[test]
    fn the_examples_of_the_rfc_decode() {
        let mut decoder = Decoder::new();
        let start = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
        ];
        assert_eq!(
            decoded(&mut decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"),
            pairs(&start)
        );
        assert_eq!(
            decoded(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf"),
            pairs(&[&start[..], &[("cache-control", "no-cache")]].concat())
        );
        assert_eq!(
            decoded(&mut decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf"),
            pairs(&[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/index.html"),
                (":authority", "www.example.com"),
                ("custom-key", "custom-value"),
            ])
        );
        assert_eq!(decoder.table_bytes, 164);
    }

    #[test]
    fn what_no_encoder_makes_is_refused() {
        for block in [
            "80",                   // entry 0
            "be",                   // an entry that is not there
            "00 05 61",             // a string beyond the block
            "00 8a ff",             // the same, coded
            "00 81 00 00",          // padding of zeros
            "00 82 ffff 00",        // more than a byte of padding
            "7f ff ff ff ff ff 0f", // an index beyond all measure
            "82 20",                // a new size behind a field
            "3f e2 1f",             // a table larger than was offered
        ] {
            assert_eq!(Decoder::new().decode(&hex(block), 1 << 16), Err(Malformed), "{block}");
        }
    }

    #[test]
    fn a_block_does_not_grow_beyond_its_limit() {
        // One entry of 3,000 bytes, and then a thousand times its index.
        let long = Field { name: b"n".to_vec(), value: vec![b'v'; 3000], never_indexed: false };
        let mut block = encode(&[long]);
        block[0] = 0x40;
        block.extend([0xbe; 1000]);
        assert_eq!(Decoder::new().decode(&block, 1 << 16), Err(Malformed));
        assert_eq!(Decoder::new().decode(&block, 1 << 22).unwrap().len(), 1001);
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            fields in proptest::collection::vec(
                (any::<Vec<u8>>(), any::<Vec<u8>>(), any::<bool>()), 0..8)
        ) {
            let fields: Vec<Field> = fields
                .into_iter()
                .map(|(name, value, never_indexed)| Field { name, value, never_indexed })
                .collect();
            let mut decoder = Decoder::new();
            prop_assert_eq!(decoder.decode(&encode(&fields), 1 << 20), Ok(fields));
            prop_assert_eq!(decoder.table_bytes, 0);
        }

        #[test]
        fn arbitrary_blocks_are_decoded_or_refused(
            blocks in proptest::collection::vec(any::<Vec<u8>>(), 1..4)
        ) {
            let mut decoder = Decoder::new();
            for block in blocks {
                let _ = decoder.decode(&block, 1 << 16);
                prop_assert!(decoder.table_bytes <= TABLE_BYTES_MAX);
                let entries = decoder.table.iter();
                let bytes: usize = entries.map(|(n, v)| n.len() + v.len() + ENTRY_OVERHEAD).sum();
                prop_assert_eq!(bytes, decoder.table_bytes);
            }
        }
    }
}
