//! What kubectl sends in protobuf, against what Go writes as JSON for the same command.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use protobuf::to_json;
use serde_json::Value;

/// One request each, with an empty line between them: the command (in namespace `shop`), the versions of kubectl that sent these
/// bytes for it, the bytes in base64, and the JSON that kubectl 1.31, the last that did, sent instead; of
/// `autoscale` from 1.33 on, which takes another version of the kind, what `--dry-run=client -o json` says.
const RECORDED: &str = include_str!("../recorded.txt");

struct Recorded {
    command: &'static str,
    body: Vec<u8>,
    json: Value,
}

fn recorded() -> Vec<Recorded> {
    let field = |record: &'static str, name: &str| {
        let line = record.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} is missing in {record}"))
    };
    RECORDED
        .trim()
        .split("\n\n")
        .map(|record| Recorded {
            command: field(record, "$ "),
            body: BASE64_STANDARD.decode(field(record, "protobuf ")).unwrap(),
            json: serde_json::from_str(field(record, "json ")).unwrap(),
        })
        .collect()
}

/// The bodies alone.
pub(crate) fn bodies() -> Vec<Vec<u8>> {
    recorded().into_iter().map(|recorded| recorded.body).collect()
}

/// Leaves out what is null, as Kubernetes' readers do.
fn without_nulls(value: Value) -> Value {
    if let Value::Object(fields) = value {
        let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
        Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
    } else if let Value::Array(items) = value {
        items.into_iter().map(without_nulls).collect()
    } else {
        value
    }
}

#[test]
fn kubectl_says_the_same_in_protobuf_as_in_json() {
    let recorded = recorded();
    assert!(recorded.len() >= 50, "{} records", recorded.len());
    for Recorded { command, body, json } in recorded {
        assert_eq!(to_json(&body), Ok(without_nulls(json)), "{command}");
    }
}
