//! Objects without who manages which field, as text.

use std::borrow::Cow;

/// An event without its object's `managedFields`: made into values, they cost more than all the rest.
pub(crate) fn unmanaged(line: &[u8]) -> Cow<'_, [u8]> {
    const KEY: &str = "\"managedFields\":[";
    let places = std::str::from_utf8(line).unwrap_or_default().match_indices(KEY);
    // Behind a backslash it would be the end of another name.
    let is_name = |at: usize| at.checked_sub(1).and_then(|at| line.get(at)) != Some(&b'\\');
    let Some(from) = places.map(|(at, _)| at).find(|at| is_name(*at)) else { return line.into() };
    let list = from + KEY.len() - 1;
    let Some(length) = line.get(list..).and_then(list_length) else { return line.into() };
    let (before, behind) = (line.get(..list), line.get(list + length..));
    [before.unwrap_or_default(), b"null", behind.unwrap_or_default()].concat().into()
}

/// Bytes of the list that a valid JSON text begins with.
fn list_length(text: &[u8]) -> Option<usize> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn managed_fields_go_and_nothing_else_does() {
        let managed = json!([{"fieldsV1": {"f:a": {"k:{\"x\":\"]}\\\\\"}": {}}}}, {}]);
        for (name, metadata, want) in [
            ("there", json!({"a": "b", "managedFields": managed, "name": "n"}), true),
            ("not there", json!({"name": "n"}), false),
            ("a text", json!({"name": "\"managedFields\":[1]"}), false),
            ("the end of another name", json!({"x\"managedFields": [1], "name": "n"}), false),
            ("no list", json!({"managedFields": null}), false),
        ] {
            let line = json!({"type": "ADDED", "object": {"metadata": metadata}}).to_string();
            let bare = unmanaged(line.as_bytes());
            assert_eq!(matches!(bare, Cow::Owned(_)), want, "{name}");
            let mut wanted: Value = serde_json::from_str(&line).unwrap();
            if want {
                wanted["object"]["metadata"]["managedFields"] = Value::Null;
            }
            assert_eq!(serde_json::from_slice::<Value>(&bare).unwrap(), wanted, "{name}");
        }
        assert!(matches!(unmanaged(b"\"managedFields\":[\"cut"), Cow::Borrowed(_)));
    }
}
