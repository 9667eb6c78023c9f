//! The formats of texts that are held against values; a format that is not known says nothing.

/// Whether a text is of this format.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == "2006-01-02".len(),
        "duration" => is_duration(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "byte" => is_base64(text),
        "hostname" => is_hostname(text),
        "email" => is_email(text),
        "uri" => is_uri(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
        }
        _ => true,
    }
}

/// As Go writes one, `1h30m` or `1.5s`, or in words, `3 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: &[&str] = &[
        "ns",
        "us",
        "µs",
        "ms",
        "s",
        "m",
        "h",
        "d",
        "w",
        "nano",
        "micro",
        "milli",
        "sec",
        "min",
        "hr",
        "hour",
        "day",
        "week",
        "second",
        "minute",
        "nanosecond",
        "microsecond",
        "millisecond",
    ];
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let known = |unit: &str| UNITS.contains(&unit);
        let fits = number.parse::<f64>().is_ok()
            && (known(unit) || unit.strip_suffix('s').is_some_and(known));
        if !fits {
            return false;
        }
        parts += 1;
        rest = after.trim_start();
    }
    parts > 0
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let bare: String = text.chars().filter(|c| *c != '-').collect();
    let dashes = text.char_indices().filter(|(_, c)| *c == '-').map(|(at, _)| at);
    let places: Vec<usize> = dashes.collect();
    bare.len() == 32
        && bare.bytes().all(|b| b.is_ascii_hexdigit())
        && (places.is_empty() || places == [8, 13, 18, 23])
        && version.is_none_or(|version| bare.chars().nth(12) == Some(version))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn is_mac(text: &str) -> bool {
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let parts = |sign: char, digits: usize| {
        let parts: Vec<&str> = text.split(sign).collect();
        let bytes = parts.len() * digits / 2;
        matches!(bytes, 6 | 8 | 20) && parts.iter().all(|part| hex(part, digits))
    };
    parts(':', 2) || parts('-', 2) || parts('.', 4)
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn is_hostname(text: &str) -> bool {
    let host = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=255).contains(&host.len()) && host.split('.').all(label)
}

fn is_email(text: &str) -> bool {
    let text = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(at), Some(inner)) => inner.get(at + 1..).unwrap_or_default(),
        _ => text,
    };
    let Some((user, host)) = text.rsplit_once('@') else { return false };
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"()<>[],;:\\\"@".contains(c);
    !user.is_empty() && user.chars().all(plain) && is_hostname(host)
}

/// A URI with a scheme, or a path from the root.
fn is_uri(text: &str) -> bool {
    let printable = !text.is_empty() && !text.chars().any(|c| c.is_control() || c == ' ');
    let scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && !rest.is_empty()
    });
    printable && (scheme || text.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_held_against_their_format() {
        for (format, good, bad) in [
            (
                "date-time",
                &["2006-01-02T15:04:05Z", "2006-01-02T15:04:05.5+01:00"][..],
                &["2006-01-02", "now", ""][..],
            ),
            ("date", &["2006-01-02"], &["2006-13-02", "2006-1-2", "2006-01-02T00:00:00Z"]),
            ("duration", &["1h30m", "0", "1.5s", "3 days", "-5m"], &["1", "h", "5 apples", ""]),
            (
                "uuid",
                &["123e4567-e89b-12d3-a456-426614174000"],
                &["123e4567", "123e4567-e89b-12d3-a456-42661417400z"],
            ),
            (
                "uuid4",
                &["123e4567-e89b-42d3-a456-426614174000"],
                &["123e4567-e89b-12d3-a456-426614174000"],
            ),
            ("ipv4", &["10.0.0.1"], &["10.0.0", "::1"]),
            ("ipv6", &["::1"], &["10.0.0.1"]),
            ("cidr", &["10.0.0.0/8", "fd00::/8"], &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8"]),
            ("mac", &["00:1a:2b:3c:4d:5e", "001a.2b3c.4d5e"], &["00:1a", "00:1a:2b:3c:4d:zz"]),
            ("byte", &["aGk=", ""], &["a", "$$$$"]),
            ("hostname", &["example.com", "a"], &["-a", "a..b", ""]),
            ("email", &["a@example.com", "A <a@b.c>"], &["a", "@b", "a b@c"]),
            ("uri", &["https://example.com/a?b", "/a", "urn:x"], &["a b", "", "example"]),
            ("colour", &["anything"], &[]),
        ] {
            for text in good {
                assert!(fits(format, text), "{format} {text:?}");
            }
            for text in bad {
                assert!(!fits(format, text), "{format} {text:?}");
            }
        }
    }
}
