//! Kubernetes objects in protobuf, as JSON: clients may send them, and nothing else here knows of it.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown`, which names version and kind and holds the
//! object. `schema` has the messages of the kinds that are served, `wire` takes bytes apart, and
//! `decode` puts the two together. The JSON is what Go's encoder would write for the same object:
//!
//! * Go sends scalars even if they are zero. One that is no pointer in Go and has `omitempty` is left out
//!   when it is zero; one that is a pointer, such as `replicas`, or that Go always writes, such as a
//!   container's `name`, stays.
//! * A message that was sent is there, even if it is empty: Go has no empty structs to leave out, and
//!   `emptyDir: {}` says something.
//! * What would be null, such as a time that was never set, is left out: Kubernetes takes both alike.
//! * What was not sent is not there: no defaults are filled in.

mod decode;
mod schema;
mod wire;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is its failure")]
mod tests;

use serde_json::{Map, Value};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body is no object, in upstream's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is something else than Kubernetes' protobuf.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Prefix,
    /// What is around the object is broken.
    #[error("the object provided is unrecognized: {0}")]
    Envelope(String),
    /// No kind, or a kind that is not served.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    /// The object is broken; `path` is empty or where, such as `spec.containers[0].name`.
    #[error("{}", malformed(.api_version, .kind, .path, .reason))]
    Malformed { api_version: String, kind: String, path: String, reason: String },
}

fn malformed(api_version: &str, kind: &str, path: &str, reason: &str) -> String {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let colon = if path.is_empty() { "" } else { ": " };
    format!("{kind} in version {version:?} cannot be handled as a {kind}: {path}{colon}{reason}")
}

/// The object in a body of `application/vnd.kubernetes.protobuf`, with its `apiVersion` and `kind`.
///
/// Takes any bytes. Messages are nested 100 deep at most, and what they hold beside strings takes 64 MiB of
/// memory at most; strings, and JSON in them, are bounded by the body's size, which the caller bounds.
///
/// # Errors
/// [`DecodeError`]: the request's fault, each of them.
pub fn to_json(body: &[u8]) -> Result<Value, DecodeError> {
    decode::Decoder::default().object(body).map(Value::Object)
}

/// An object as `runtime.Unknown` carries it.
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Content encoding and type (fields 3 and 4) are passed over, as upstream does: the object is in
    /// protobuf in any case.
    fn parse(body: &'a [u8]) -> Result<Self, DecodeError> {
        let body = body.strip_prefix(MAGIC).ok_or(DecodeError::Prefix)?;
        let mut envelope = Self { api_version: "", kind: "", raw: &[] };
        for field in wire::Fields::of(body) {
            match field.map_err(DecodeError::Envelope)? {
                (1, value) => {
                    let type_meta = value.bytes().map_err(DecodeError::Envelope)?;
                    for field in wire::Fields::of(type_meta) {
                        match field.map_err(DecodeError::Envelope)? {
                            (1, value) => envelope.api_version = text(value)?,
                            (2, value) => envelope.kind = text(value)?,
                            _ => {}
                        }
                    }
                }
                (2, value) => envelope.raw = value.bytes().map_err(DecodeError::Envelope)?,
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn unknown_kind(&self) -> DecodeError {
        DecodeError::UnknownKind {
            api_version: self.api_version.to_owned(),
            kind: self.kind.to_owned(),
        }
    }

    fn type_meta(&self) -> Map<String, Value> {
        [("apiVersion", self.api_version), ("kind", self.kind)]
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into_iter()
            .collect()
    }
}

fn text(value: wire::Wire<'_>) -> Result<&str, DecodeError> {
    value.text().map_err(DecodeError::Envelope)
}
