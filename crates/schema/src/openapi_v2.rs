//! As much of an OpenAPI v2 document as kubectl before 1.29 insists on.
//!
//! Those ask for it before all else, in protobuf only, and look in it for one thing: whether a kind's
//! PATCH takes `fieldValidation`. Everything else they read from OpenAPI v3, or have built in. So
//! there are paths here and no definitions.

use api::kinds::{self, Kind, KindRef};
use std::sync::LazyLock;

/// What `/openapi/v2` answers to a client that accepts
/// `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`: the message
/// `openapi.v2.Document`.
#[must_use]
pub fn document() -> &'static [u8] {
    static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| encode(kinds::served()));
    &DOCUMENT
}

/// The same with custom resources.
#[must_use]
pub fn document_with<'a>(custom: &'a [KindRef]) -> Vec<u8> {
    let rows = kinds::served().map(|kind| -> &'a Kind { kind });
    encode(rows.chain(custom.iter().map(|kind| &**kind)))
}

/// The content type of [`document`], as kube-apiserver writes it.
pub const CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

fn encode<'a>(kinds: impl Iterator<Item = &'a Kind>) -> Vec<u8> {
    let info = message(&[(1, b"Kubernetes"), (2, b"v1.36.0")]);
    let paths: Vec<u8> = kinds.flat_map(|kind| field(2, &path(kind))).collect();
    message(&[(1, b"2.0"), (2, &info), (8, &paths)])
}

/// `NamedPathItem`
fn path(kind: &Kind) -> Vec<u8> {
    let root = match kind.group {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    };
    let space = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let name = format!("{root}{space}/{}/{{name}}", kind.plural);
    let parameters = ["dryRun", "fieldManager", "fieldValidation"].map(|name| {
        // `QueryParameterSubSchema` in `NonBodyParameter` in `Parameter` in `ParametersItem`.
        let query = message(&[(2, b"query"), (4, name.as_bytes())]);
        message(&[(1, &message(&[(2, &message(&[(3, &query)]))]))])
    });
    let [dry_run, manager, validation] = &parameters;
    let gvk =
        format!("group: \"{}\"\nkind: {}\nversion: {}\n", kind.group, kind.kind, kind.version);
    // `Any` in `NamedAny`.
    let extension =
        message(&[(1, b"x-kubernetes-group-version-kind"), (2, &message(&[(2, gvk.as_bytes())]))]);
    let patch = message(&[(8, dry_run), (8, manager), (8, validation), (13, &extension)]);
    message(&[(1, name.as_bytes()), (2, &message(&[(8, &patch)]))])
}

fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    fields.iter().flat_map(|(number, bytes)| field(*number, bytes)).collect()
}

/// A length-delimited field; numbers below 16 take one byte.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u8 = 2;
    let mut encoded = vec![number << 3 | LENGTH_DELIMITED];
    let mut length = bytes.len();
    while length >= 0x80 {
        encoded.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    encoded.push(length.to_le_bytes()[0]);
    encoded.extend_from_slice(bytes);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_varints() {
        assert_eq!(field(1, b"ab"), [0x0a, 2, b'a', b'b']);
        assert_eq!(field(8, &[7; 300])[..3], [0x42, 0xac, 0x02]);
        assert_eq!(field(13, &[])[..], [0x6a, 0]);
    }
}
