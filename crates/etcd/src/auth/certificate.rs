//! The user that a client certificate names.

const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
/// The version, which may be left out.
const EXPLICIT_0: u8 = 0xa0;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Strings of the kinds that are bytes of UTF-8 or of a part of it: UTF8String, PrintableString,
/// IA5String, TeletexString.
const TEXT: [u8; 4] = [0x0c, 0x13, 0x16, 0x14];

/// The common name in a certificate's subject, the last if there are several; `None` if there is none,
/// or the certificate is none. Whether anybody trusts it is not looked at.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let (certificate, _) = expect(SEQUENCE, der)?;
    let (mut fields, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, rest)) = expect(EXPLICIT_0, fields) {
        fields = rest;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        (_, _, fields) = element(fields)?;
    }
    let (mut subject, _) = expect(SEQUENCE, fields)?;
    let mut found = None;
    while !subject.is_empty() {
        let (_, mut set, rest) = element(subject)?;
        subject = rest;
        while !set.is_empty() {
            let (attribute, rest) = expect(SEQUENCE, set)?;
            set = rest;
            let (name, value) = expect(OBJECT, attribute)?;
            let (kind, text, _) = element(value)?;
            if name == COMMON_NAME && TEXT.contains(&kind) {
                found = Some(String::from_utf8(text.to_vec()).ok()?);
            }
        }
    }
    found
}

/// What is in the first element if it is of that kind, and what follows it.
fn expect(kind: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == kind).then_some((content, rest))
}

/// Kind and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, length], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match *length {
        short if short < 0x80 => (usize::from(short), rest),
        long => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            // More than four bytes would be a certificate of gigabytes.
            let short_enough = (1..=4).contains(&bytes.len());
            let length = bytes.iter().fold(0usize, |all, byte| all << 8 | usize::from(*byte));
            (short_enough.then_some(length)?, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*kind, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_among_other_names() {
        let long = "n".repeat(300);
        for (names, want) in [
            (vec![(DnType::CommonName, "alice")], Some("alice")),
            (vec![(DnType::OrganizationName, "o"), (DnType::CommonName, "bøb")], Some("bøb")),
            (vec![(DnType::CommonName, long.as_str())], Some(long.as_str())),
            (vec![(DnType::OrganizationName, "o")], None),
        ] {
            assert_eq!(common_name(&certificate(&names)).as_deref(), want);
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_have_none() {
        let whole = certificate(&[(DnType::CommonName, "alice")]);
        for length in 0..whole.len() {
            assert_eq!(common_name(&whole[..length]), None, "the first {length} bytes");
        }
        // Whatever is broken, it does not bring the replica down.
        for i in 0..whole.len() {
            for bit in 0..8 {
                let mut broken = whole.clone();
                broken[i] ^= 1 << bit;
                let _ = common_name(&broken);
            }
        }
    }
}
