//! A watch as it comes over the wire: HTTP, a JSON object a line.

use bytes::{Bytes, BytesMut};
use client::{Body, Client, ClientError};
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::Value;

/// What an API server says of its events' type.
const JSON: &str = "application/json";
/// What to accept to be shown metadata alone.
pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// An answer that goes on. Dropped, it is cut wherever it is.
pub(super) struct Stream {
    body: Body,
    left: BytesMut,
}

impl Stream {
    /// # Errors
    /// There is no answer, or a refusal.
    pub(super) async fn open(client: &Client, path: &str) -> Result<Self, ClientError> {
        Self::accepting(client, path, JSON).await
    }

    pub(super) async fn accepting(
        client: &Client,
        path: &str,
        accept: &str,
    ) -> Result<Self, ClientError> {
        let request = Request::get(path).header(header::ACCEPT, accept).body(Bytes::new());
        let answer = client::refuse(client.request(request.unwrap()).await?).await?;
        assert_eq!(answer.headers()[header::CONTENT_TYPE], JSON, "{path}");
        Ok(Self { body: answer.into_body(), left: BytesMut::new() })
    }

    /// `None` at the end, or where it breaks.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.left.iter().position(|byte| *byte == b'\n') {
                let line = self.left.split_to(end + 1);
                return Some(Event::of(serde_json::from_slice(&line).unwrap()));
            }
            let more = self.body.frame().await?.ok()?;
            self.left.extend_from_slice(&more.into_data().ok()?);
        }
    }
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`
    pub(super) kind: String,
    pub(super) object: Value,
}

impl Event {
    fn of(mut line: Value) -> Self {
        let kind = line["type"].as_str().unwrap().to_owned();
        Self { kind, object: line["object"].take() }
    }

    /// 0 where there is none.
    pub(super) fn revision(&self) -> u64 {
        revision(&self.object)
    }
}

/// An object's version, or a list's.
pub(super) fn revision(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Where a test's objects keep the number that only their writer knows: metadata is always shown.
pub(super) const NUMBER: &str = "example.com/number";

/// `None` for an object that is not a test's.
pub(super) fn number(object: &Value) -> Option<u64> {
    object["metadata"]["annotations"][NUMBER].as_str()?.parse().ok()
}
