//! Regular expressions as Go's RE2 reads them, for the engine that is here: matching in linear time is the same,
//! the syntax differs in a few places.

use regex::{Regex, RegexBuilder};
use std::fmt::Write as _;

/// Bytes that one compiled pattern may take.
const BYTES_MAX: usize = 2 << 20;

/// # Errors
/// What is wrong with the pattern, for people.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(&translated(pattern)).size_limit(BYTES_MAX).build();
    built.map_err(|error| error.to_string())
}

/// Classes of letters are those of ASCII, and signs that mean nothing where they stand are themselves.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut letters = pattern.char_indices().peekable();
    let mut in_class = false;
    while let Some((at, c)) = letters.next() {
        let rest = pattern.get(at..).unwrap_or_default();
        match c {
            '\\' => {
                let Some((_, escaped)) = letters.next() else {
                    out.push('\\');
                    break;
                };
                let members = match escaped.to_ascii_lowercase() {
                    'd' => "0-9",
                    'w' => "0-9A-Za-z_",
                    's' => r"\t\n\f\r ",
                    _ => "",
                };
                let _ = match (members, escaped) {
                    ("", 'b' | 'B') if !in_class => write!(out, r"(?-u:\{escaped})"),
                    ("", _) => write!(out, r"\{escaped}"),
                    (members, 'd' | 'w' | 's') if in_class => write!(out, "{members}"),
                    (members, 'd' | 'w' | 's') => write!(out, "[{members}]"),
                    (members, _) => write!(out, "[^{members}]"),
                };
                // `\p{Greek}`, `\x{10FFFF}`
                if matches!(escaped, 'p' | 'P' | 'x')
                    && letters.next_if(|(_, next)| *next == '{').is_some()
                {
                    out.push('{');
                }
            }
            '[' if in_class && rest.starts_with("[:") => {
                // `[:alpha:]`
                out.push('[');
            }
            '[' if in_class => out.push_str(r"\["),
            '[' => {
                in_class = true;
                out.push('[');
                for sign in ['^', ']'] {
                    // A bracket that comes first is itself.
                    if letters.next_if(|(_, next)| *next == sign).is_some() {
                        out.push_str(if sign == ']' { r"\]" } else { "^" });
                    }
                }
            }
            ']' if in_class => {
                in_class = pattern.get(..at).is_some_and(is_inside_name);
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '{' if !in_class && !is_repetition(rest) => out.push_str(r"\{"),
            c => out.push(c),
        }
    }
    out
}

/// Whether what stands before a closing bracket is the name of a class that is not closed yet: `[:alpha:`.
fn is_inside_name(before: &str) -> bool {
    let Some(at) = before.rfind("[:") else { return false };
    let name = before.get(at + 2..).and_then(|name| name.strip_suffix(':')).unwrap_or_default();
    let name = name.strip_prefix('^').unwrap_or(name);
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase())
}

/// `{3}`, `{3,}` or `{3,5}`.
fn is_repetition(rest: &str) -> bool {
    let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (least, most) = inside.0.split_once(',').unwrap_or((inside.0, ""));
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_what_go_matches() {
        for (pattern, good, bad) in [
            (r"^\d+$", &["12"][..], &["x", "\u{0663}"][..]),
            (r"^\w+$", &["a_1"], &["ä", "a-b"]),
            (r"^[\w.-]+$", &["a.b-c"], &["ä"]),
            (r"^[^\d]$", &["a", "ä"], &["1"]),
            (r"^[\D]$", &["a", "ä"], &["1"]),
            (r"^\S+\s\S+$", &["a b"], &["ab", "a\u{a0}b"]),
            (r"^{.+}$", &["{a}"], &["a"]),
            (r"^\${[a-z]{1,3}}$", &["${abc}"], &["${abcd}"]),
            (r"^[[a]$", &["[", "a"], &["b"]),
            (r"^[]a]$", &["]", "a"], &["b"]),
            (r"^[^]a]$", &["b"], &["]", "a"]),
            (r"^[[:alpha:]_]+$", &["a_b"], &["1"]),
            (r"^[a&&b]$", &["&", "a"], &["c"]),
            (r"^a{2,3}$", &["aa", "aaa"], &["a"]),
            (r"^\/a\-b$", &["/a-b"], &["a"]),
            (r"\bfoo\b", &["a foo b"], &["afoo"]),
            (r"^\p{L}$", &["ä"], &["1"]),
            (r"^[\P{L}]\x{41}$", &["1A"], &["aA", "1B"]),
            (r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)(\.[a-z]+)*$", &["a-b.c"], &["-a"]),
        ] {
            let regex = compile(pattern).unwrap();
            for text in good {
                assert!(regex.is_match(text), "{pattern} {text:?}");
            }
            for text in bad {
                assert!(!regex.is_match(text), "{pattern} {text:?}");
            }
        }
        for wrong in ["(", "[a", "*", r"a\", "(?=a)", r"(a)\1"] {
            assert!(compile(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_an_error(text in r"[\[\]{}()^$*+?.,:&~\\a-dwsbB0-9-]{0,24}") {
            let _ = compile(&text);
        }
    }
}
