//! A client that follows all objects of a kind, over whichever replica lets it, and writes down what it is told.

use super::{
    caller::{Caller, Kind, object},
    recorder::Stream,
};
use api::meta::resource_version;
use bytes::BytesMut;
use checkers::history::{Change, Closed, ObjectEvent, Opened, Scope, WatchStep};
use client::{Body, ClientError};
use http_body_util::BodyExt as _;
use rand::{Rng as _, rngs::StdRng};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// After something went wrong.
const PAUSE: Duration = Duration::from_millis(200);
/// A watch that says nothing for so long is given up: over HTTP/1.1, nobody else tells of a replica that hangs.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(2);

/// One watch after another, for ever; the next goes on where the last one has ended, at another replica.
pub(crate) async fn follow(callers: Vec<Caller>, kind: Kind, mut chance: StdRng) {
    let mut place: Option<(u64, Option<u64>)> = None;
    let mut at = 0;
    loop {
        let Some(caller) = callers.get(at % callers.len().max(1)) else { return };
        at += 1;
        let (after, resumes) = match place {
            Some(place) => place,
            None => match caller.list(kind, "", false).await {
                Ok((revision, _)) => (revision, None),
                Err(_) => {
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let seconds = chance.random_range(5..120);
        let body = match caller.watch(kind, after, seconds).await {
            Ok(body) => body,
            Err(error) => {
                if is_gone(&error) {
                    place = None;
                }
                sleep(PAUSE).await;
                continue;
            }
        };
        let mut stream = caller.recorder.stream();
        let scope = Scope::Objects { kind: kind.name.to_owned(), namespace: String::new() };
        stream.note(WatchStep::Opened(Opened {
            client: caller.id,
            replica: caller.replica,
            scope,
            from: after + 1,
            resumes,
        }));
        let id = stream.stream;
        place = read(body, kind, after, &mut stream).await.map(|after| (after, Some(id)));
    }
}

fn is_gone(error: &ClientError) -> bool {
    matches!(error, ClientError::Api(status) if status.code == 410)
}

/// Until it ends: the last revision that it told of, `None` when the next one has to begin anew.
async fn read(mut body: Body, kind: Kind, after: u64, stream: &mut Stream) -> Option<u64> {
    let (mut after, mut buffer) = (after, BytesMut::new());
    loop {
        let more = match timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => frame.into_data().ok(),
            Ok(Some(Err(_)) | None) | Err(_) => {
                stream.note(WatchStep::Closed(Closed::Ended));
                return Some(after);
            }
        };
        buffer.extend_from_slice(&more.unwrap_or_default());
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(end + 1);
            match event(kind, &line) {
                Line::Event(event) => {
                    after = event.object.resource_version;
                    stream.note(WatchStep::Object(event));
                }
                Line::Bookmark(revision) => {
                    after = revision;
                    stream.note(WatchStep::Progress { revision });
                }
                Line::Gone => {
                    stream.note(WatchStep::Closed(Closed::Compacted { revision: 0 }));
                    return None;
                }
                Line::Unreadable => {
                    stream.note(WatchStep::Closed(Closed::Ended));
                    return Some(after);
                }
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Line {
    Event(ObjectEvent),
    Bookmark(u64),
    Gone,
    Unreadable,
}

fn event(kind: Kind, line: &[u8]) -> Line {
    let read = |line: &[u8]| -> Option<Line> {
        let mut event: Value = serde_json::from_slice(line).ok()?;
        let json = event.get_mut("object").map(Value::take)?;
        let change = match event.get("type")?.as_str()? {
            "ADDED" => Change::Added,
            "MODIFIED" => Change::Modified,
            "DELETED" => Change::Deleted,
            "BOOKMARK" => return Some(Line::Bookmark(resource_version(&json).parse().ok()?)),
            "ERROR" if json.get("code") == Some(&410.into()) => return Some(Line::Gone),
            _ => return None,
        };
        Some(Line::Event(ObjectEvent { change, object: object(kind, json)? }))
    };
    read(line).unwrap_or(Line::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::{super::caller::POD, *};

    #[test]
    fn lines_are_read_as_the_api_writes_them() {
        let object = r#"{"kind":"Pod","metadata":{"name":"p","namespace":"n","uid":"u","resourceVersion":"7"}}"#;
        let line = format!(r#"{{"type":"DELETED","object":{object}}}"#);
        let Line::Event(deleted) = event(POD, line.as_bytes()) else { panic!("{line}") };
        assert_eq!((deleted.change, deleted.object.resource_version), (Change::Deleted, 7));
        for (line, want) in [
            (
                r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#,
                Line::Bookmark(9),
            ),
            (r#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#, Line::Gone),
            (r#"{"type":"ERROR","object":{"kind":"Status","code":500}}"#, Line::Unreadable),
            ("{", Line::Unreadable),
        ] {
            assert_eq!(event(POD, line.as_bytes()), want, "{line}");
        }
    }
}
