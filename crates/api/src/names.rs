//! Name grammars and their messages (§1.6, VAL-6).

use crate::field::{FieldError, Path};
use std::collections::BTreeMap;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%'";
const CONFIG_KEY: &str =
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";

fn regex_error(sentence: &str, regex: &str, examples: &[&str]) -> String {
    let list: Vec<String> = examples.iter().map(|e| format!("'{e}'")).collect();
    // The comma, two blanks and "or" are upstream's; clients compare the text.
    format!("{sentence} (e.g. {}, regex used for validation is '{regex}')", list.join(",  or "))
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn is_label(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_name_part(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// What is wrong with a DNS-1123 label; empty when nothing is.
#[must_use]
pub fn label(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 63 {
        errors.push(too_long(63));
    }
    if !is_label(name) {
        if subdomain(name).is_empty() {
            errors.push("must not contain dots".to_owned());
        } else {
            let regex = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
            errors.push(regex_error(LABEL, regex, &["my-name", "123-abc"]));
        }
    }
    errors
}

/// What is wrong with a DNS-1035 label, such as a plural or a version; empty when nothing is.
#[must_use]
pub fn label_1035(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 63 {
        errors.push(too_long(63));
    }
    if !is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        let regex = "[a-z]([-a-z0-9]*[a-z0-9])?";
        errors.push(regex_error(LABEL_1035, regex, &["my-name", "abc-123"]));
    }
    errors
}

/// What is wrong with a name of which only a URL is made, such as a role's; empty when nothing is.
#[must_use]
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    let forbidden = ["/", "%"].into_iter().filter(|part| name.contains(part));
    forbidden.map(|part| format!("may not contain '{part}'")).collect()
}

/// What is wrong with a percentage such as `25%`; empty when nothing is.
#[must_use]
pub fn percent(text: &str) -> Vec<String> {
    let number = text.strip_suffix('%').unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return vec![regex_error(PERCENT, "[0-9]+%", &["1%", "93%"])];
    }
    Vec::new()
}

/// What is wrong with a DNS-1123 subdomain; empty when nothing is.
#[must_use]
pub fn subdomain(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 253 {
        errors.push(too_long(253));
    }
    if !name.split('.').all(is_label) {
        let regex = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
        errors.push(regex_error(SUBDOMAIN, regex, &["example.com"]));
    }
    errors
}

/// What is wrong with a label key, finalizer and the like; empty when nothing is.
#[must_use]
pub fn qualified(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let part = match name.split_once('/') {
        None => name,
        Some((prefix, part)) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            part
        }
    };
    let regex = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    if part.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if part.len() > 63 {
        errors.push(format!("name part {}", too_long(63)));
    }
    if !is_name_part(part) {
        errors.push(regex_error(QUALIFIED, regex, &["MyName", "my.name", "123-abc"]));
    }
    errors
}

/// What is wrong with a label's value; empty when nothing is.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !value.is_empty() && !is_name_part(value) {
        let regex = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
        errors.push(regex_error(LABEL_VALUE, regex, &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// What is wrong with a key of a ConfigMap or Secret; empty when nothing is.
#[must_use]
pub fn config_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > 253 {
        errors.push(too_long(253));
    }
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        let regex = "[-._a-zA-Z0-9]+";
        errors.push(regex_error(CONFIG_KEY, regex, &["key.name", "KEY_NAME", "key-name"]));
    }
    errors
}

/// What is wrong with a port's name; empty when nothing is.
#[must_use]
pub fn port_name(name: &str) -> Vec<String> {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    [
        (name.len() > 15, "must be no more than 15 characters"),
        (
            !name.chars().all(lower),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!name.chars().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
    ]
    .into_iter()
    .filter(|(wrong, _)| *wrong)
    .map(|(_, text)| text.to_owned())
    .collect()
}

/// One error for each thing that `check` finds wrong with `value`.
pub fn check(path: &Path, value: &str, check: fn(&str) -> Vec<String>) -> Vec<FieldError> {
    check(value).into_iter().map(|detail| FieldError::invalid(path, value, detail)).collect()
}

/// What is wrong with labels.
#[must_use]
pub fn labels(path: &Path, labels: &BTreeMap<String, String>) -> Vec<FieldError> {
    labels
        .iter()
        .flat_map(|(key, value)| {
            let mut errors = check(path, key, qualified);
            errors.extend(check(path, value, label_value));
            errors
        })
        .collect()
}

/// The same for a text on every replica of every version (FNV-1a): for ids that follow from names.
#[must_use]
pub fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The end of a generated name: five letters and digits without vowels, from given randomness.
#[must_use]
pub fn generated_suffix(random: u64) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = random;
    (0..5)
        .map(|_| {
            let at = usize::try_from(rest % 27).unwrap_or_default();
            rest /= 27;
            ALPHABET.get(at).copied().map_or('b', char::from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_as_upstream_does() {
        assert!(label("web-1").is_empty());
        assert_eq!(label("a.b"), ["must not contain dots"]);
        assert_eq!(label("A").len(), 1);
        assert!(subdomain("a.b-c.d1").is_empty());
        assert!(!subdomain("a..b").is_empty());
        assert!(qualified("example.com/My_name").is_empty());
        assert!(label_value("").is_empty());
        assert_eq!(
            port_name("a-very-long-name-"),
            ["must be no more than 15 characters", "must not begin or end with a hyphen",]
        );
        assert!(label_1035("widgets").is_empty());
        assert_eq!(label_1035("1a").len(), 1);
        assert!(path_segment("system:node:a_b").is_empty());
        assert_eq!(path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
        assert_eq!(path_segment(".."), ["may not be '..'"]);
        assert!(percent("025%").is_empty());
        for wrong in ["", "%", "25", "-1%", "x%", "1.5%"] {
            assert_eq!(percent(wrong).len(), 1, "{wrong}");
        }
        assert_eq!(
            subdomain("Bad"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
    }
}
