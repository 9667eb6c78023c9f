//! The protobuf wire format: a message is its fields, one after another, each behind its number.
//!
//! Errors are said in the words of the Go library that upstream is generated with.

/// Numbers of fields end here (2^29 - 1).
const NUMBER_MAX: u64 = (1 << 29) - 1;
/// Bytes of a varint of 64 bits at most.
const VARINT_BYTES_MAX: u32 = 10;

/// A field's value before anybody knows its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

impl<'a> Wire<'a> {
    pub(crate) fn varint(self) -> Result<u64, String> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(self.unexpected()) }
    }

    pub(crate) fn double(self) -> Result<f64, String> {
        if let Self::Fixed64(value) = self {
            Ok(f64::from_le_bytes(value))
        } else {
            Err(self.unexpected())
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], String> {
        if let Self::Bytes(value) = self { Ok(value) } else { Err(self.unexpected()) }
    }

    pub(crate) fn text(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?)
            .map_err(|_| "proto: invalid UTF-8 in a string".to_owned())
    }

    fn unexpected(self) -> String {
        let number = match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32(_) => 5,
        };
        format!("proto: wrong wireType = {number}")
    }
}

/// The fields of a message, up to its end or its first fault.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>), String> {
        let tag = varint(&mut self.rest)?;
        let (number, wire_type) = (tag >> 3, tag & 7);
        let number = u32::try_from(number)
            .ok()
            .filter(|n| (1..=NUMBER_MAX).contains(&u64::from(*n)))
            .ok_or_else(|| format!("proto: illegal tag {number} (wire type {wire_type})"))?;
        let value = match wire_type {
            0 => Wire::Varint(varint(&mut self.rest)?),
            1 => Wire::Fixed64(*chunk(&mut self.rest)?),
            2 => {
                let len = i64::try_from(varint(&mut self.rest)?)
                    .map_err(|_| "proto: negative length found during unmarshaling".to_owned())?;
                let split =
                    usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
                let (bytes, rest) = split.ok_or_else(ends_early)?;
                self.rest = rest;
                Wire::Bytes(bytes)
            }
            // No Kubernetes type has ever had a group.
            3 | 4 => return Err(format!("proto: field {number} is a group")),
            5 => Wire::Fixed32(*chunk(&mut self.rest)?),
            _ => return Err(format!("proto: illegal wireType {wire_type}")),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// The numbers of a packed field, up to its end or its first fault.
pub(crate) fn packed(mut bytes: &[u8]) -> impl Iterator<Item = Result<u64, String>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let number = varint(&mut bytes);
        if number.is_err() {
            bytes = &[];
        }
        Some(number)
    })
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for place in 0..VARINT_BYTES_MAX {
        let [byte] = *chunk(rest)?;
        let (bits, shift) = (u64::from(byte & 0x7f), place * 7);
        if (bits << shift) >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("proto: integer overflow".to_owned())
}

fn chunk<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], String> {
    let (chunk, behind) = rest.split_first_chunk().ok_or_else(ends_early)?;
    *rest = behind;
    Ok(chunk)
}

fn ends_early() -> String {
    "unexpected EOF".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    }

    #[test]
    fn a_broken_message_is_refused_for_what_is_wrong() {
        for (name, message, want) in [
            ("a tag that ends early", &[0x80][..], "unexpected EOF"),
            ("a varint that ends early", &[0x08, 0xff], "unexpected EOF"),
            (
                "a varint of 65 bits",
                &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
                "proto: integer overflow",
            ),
            (
                "a varint of 11 bytes",
                &[8, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 0],
                "proto: integer overflow",
            ),
            ("fewer bytes than the length", &[0x0a, 2, 1], "unexpected EOF"),
            (
                "a length beyond any memory",
                &[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 127],
                "unexpected EOF",
            ),
            (
                "a length below zero",
                &[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
                "proto: negative length found during unmarshaling",
            ),
            ("seven bytes of eight", &[0x09, 1, 2, 3, 4, 5, 6, 7], "unexpected EOF"),
            ("three bytes of four", &[0x0d, 1, 2, 3], "unexpected EOF"),
            ("field 0", &[0x02, 0], "proto: illegal tag 0 (wire type 2)"),
            (
                "field 2^29",
                &[0x80, 0x80, 0x80, 0x80, 0x10, 0],
                "proto: illegal tag 536870912 (wire type 0)",
            ),
            ("the start of a group", &[0x0b], "proto: field 1 is a group"),
            ("the end of a group", &[0x0c], "proto: field 1 is a group"),
            ("wire type 6", &[0x0e], "proto: illegal wireType 6"),
            ("wire type 7", &[0x0f], "proto: illegal wireType 7"),
        ] {
            let last = Fields::of(message).last().unwrap();
            assert_eq!(last, Err(want.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_value_of_another_wire_type_is_refused() {
        assert_eq!(Wire::Varint(1).bytes().unwrap_err(), "proto: wrong wireType = 0");
        assert_eq!(Wire::Fixed64([0; 8]).varint().unwrap_err(), "proto: wrong wireType = 1");
        assert_eq!(Wire::Bytes(&[]).double().unwrap_err(), "proto: wrong wireType = 2");
        assert_eq!(Wire::Fixed32([0; 4]).text().unwrap_err(), "proto: wrong wireType = 5");
        assert_eq!(Wire::Bytes(&[255]).text().unwrap_err(), "proto: invalid UTF-8 in a string");
    }

    proptest! {
        #[test]
        fn every_field_is_read_as_it_was_written(
            fields in proptest::collection::vec(
                (1u32..1 << 29, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..200), 0..4),
                0..20,
            ),
        ) {
            let mut message = Vec::new();
            let mut want = Vec::new();
            for (number, value, bytes, form) in &fields {
                let tag = u64::from(*number) << 3;
                let (wire_type, wire, body) = match form {
                    0 => (0, Wire::Varint(*value), encode(*value)),
                    1 => (1, Wire::Fixed64(value.to_le_bytes()), value.to_le_bytes().to_vec()),
                    2 => {
                        let len = encode(u64::try_from(bytes.len()).unwrap());
                        (2, Wire::Bytes(bytes), [len, bytes.clone()].concat())
                    }
                    _ => {
                        let [a, b, c, d, ..] = value.to_le_bytes();
                        (5, Wire::Fixed32([a, b, c, d]), vec![a, b, c, d])
                    }
                };
                message.extend(encode(tag | wire_type));
                message.extend(body);
                want.push(Ok((*number, wire)));
            }
            prop_assert_eq!(Fields::of(&message).collect::<Vec<_>>(), want);
        }

        #[test]
        fn any_bytes_end_and_only_the_last_is_a_fault(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let fields: Vec<_> = Fields::of(&bytes).collect();
            prop_assert!(fields.len() <= bytes.len());
            let before_last = fields.len().saturating_sub(1);
            prop_assert!(fields[..before_last].iter().all(Result::is_ok));
        }

        #[test]
        fn packed_numbers_are_read_as_they_were_written(
            numbers in proptest::collection::vec(any::<u64>(), 0..20),
        ) {
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| encode(*n)).collect();
            prop_assert_eq!(packed(&bytes).collect::<Result<Vec<_>, _>>(), Ok(numbers));
        }
    }
}
