//! A container's log.

use super::{Query, find, flag, refuse};
use crate::{agent::Shared, log_file::LogReader, runtime::ContainerState, worker::instance};
use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::stream;
use serde_json::Value;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::sleep;

/// Between two looks at a log that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What of a log is wanted.
#[derive(Debug, Default)]
struct Selection {
    follow: bool,
    timestamps: bool,
    tail: Option<usize>,
    /// Microseconds since the Unix epoch.
    since: Option<i64>,
    /// Bytes at most, as they are shown.
    limit: Option<usize>,
}

impl Selection {
    /// What makes no sense is taken as not said: the API server has refused it.
    fn of(query: &Query, now_micros: u64) -> Self {
        let text = |name: &str| {
            let found = query.0.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let now = i64::try_from(now_micros).unwrap_or(i64::MAX);
        let seconds: Option<i64> = text("sinceSeconds").and_then(|text| text.parse().ok());
        let before = seconds.map(|s| now.saturating_sub(s.saturating_mul(1_000_000)));
        Self {
            follow: flag(query, &["follow"], false),
            timestamps: flag(query, &["timestamps"], false),
            tail: text("tailLines").and_then(|text| text.parse().ok()),
            since: before.or_else(|| api::meta::parse_micro_time(text("sinceTime")?)),
            limit: text("limitBytes").and_then(|text| text.parse().ok()),
        }
    }
}

pub(super) async fn logs(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    query: Query,
) -> Response {
    let previous = flag(&query, &["previous"], false);
    let (uid, attempt) = match shared.statuses.find(&namespace, &name) {
        Some((uid, status)) => match which(&status, &name, &container, previous) {
            Ok(attempt) => (uid, attempt),
            Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
        },
        // One that ended before this agent began.
        None => match find(&shared, &namespace, &name).await {
            Ok(pod) => {
                let newest = instance(&pod, &container).map(|newest| newest.config.attempt);
                let wanted = if previous { newest.and_then(|n| n.checked_sub(1)) } else { newest };
                let Some(attempt) = wanted else {
                    let text = missing(&name, &container, previous);
                    return refuse(StatusCode::BAD_REQUEST, text);
                };
                (pod.sandbox.config.pod.uid, attempt)
            }
            Err(response) => return response,
        },
    };
    let selection = Selection::of(&query, (shared.clock)());
    let dir = shared.logs(&namespace, &name, &uid).join(&container);
    let log = LogReader::new(dir.join(format!("{attempt}.log")));
    let follower = Follower { shared, uid, container, attempt };
    let mut response = Body::from_stream(lines(follower, log, selection)).into_response();
    let text = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

fn missing(pod: &str, container: &str, previous: bool) -> String {
    if previous {
        format!("previous terminated container {container:?} in pod {pod:?} not found")
    } else {
        format!("container {container:?} in pod {pod:?} is not available")
    }
}

/// Which instance's log it is, by the Pod's status.
///
/// # Errors
/// There is none: in words.
fn which(status: &Value, pod: &str, container: &str, previous: bool) -> Result<u32, String> {
    let all = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let of = all.iter().filter_map(|list| status.get(list)?.as_array()).flatten();
    let of = of.into_iter().find(|of| of.get("name").and_then(Value::as_str) == Some(container));
    let of = of.ok_or_else(|| missing(pod, container, false))?;
    let attempt = |pointer: &str| -> Option<u32> {
        of.pointer(pointer)?.as_str()?.rsplit('-').next()?.parse().ok()
    };
    let last = attempt("/lastState/terminated/containerID");
    if previous {
        return last.ok_or_else(|| missing(pod, container, true));
    }
    let is = |state: &str| of.pointer(&format!("/state/{state}")).is_some();
    let this = attempt("/state/terminated/containerID");
    let found = if is("running") { attempt("/containerID") } else { this.or(last) };
    found.ok_or_else(|| {
        let reason = of.pointer("/state/waiting/reason").and_then(Value::as_str);
        let why = match reason {
            _ if is("terminated") => {
                return format!("container {container:?} in pod {pod:?} is terminated");
            }
            Some("ErrImagePull") => ": image can't be pulled".to_owned(),
            Some("ImagePullBackOff") => ": trying and failing to pull image".to_owned(),
            Some(reason) => format!(": {reason}"),
            None => " - no logs yet".to_owned(),
        };
        format!("container {container:?} in pod {pod:?} is waiting to start{why}")
    })
}

/// The instance whose log it is.
struct Follower {
    shared: Arc<Shared>,
    uid: String,
    container: String,
    attempt: u32,
}

impl Follower {
    async fn runs(&self) -> bool {
        let pod = self.shared.runtime.pod(&self.uid).await.ok().flatten();
        pod.is_some_and(|pod| {
            pod.containers.iter().any(|c| {
                c.config.name == self.container
                    && c.config.attempt == self.attempt
                    && matches!(c.state, ContainerState::Running { .. })
            })
        })
    }
}

/// The log's lines; with `follow` until the instance has ended.
fn lines(
    follower: Follower,
    log: LogReader,
    selection: Selection,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let follow = selection.follow;
    let state = (follower, log, Shown::new(selection), false);
    stream::unfold(state, move |(follower, mut log, mut shown, done)| async move {
        if done {
            return None;
        }
        loop {
            // Asked before the file is read: what was written until the end is in it.
            let runs = follow && follower.runs().await;
            let read = world::blocking(move || (log.read(), log)).await;
            let Ok((fresh, reader)) = read else { return None };
            log = reader;
            let bytes = shown.take(&fresh.unwrap_or_default());
            let end = !runs || shown.is_full();
            if !bytes.is_empty() || end {
                return Some((Ok(Bytes::from(bytes)), (follower, log, shown, end)));
            }
            sleep(LOOK_EVERY).await;
        }
    })
}

/// A log as its reader wants it (SUB-5).
struct Shown {
    selection: Selection,
    /// Of a line that is not whole yet.
    held: Vec<u8>,
    /// The next entry begins a line of the container's.
    begins: bool,
}

impl Shown {
    fn new(selection: Selection) -> Self {
        Self { selection, held: Vec::new(), begins: true }
    }

    fn is_full(&self) -> bool {
        self.selection.limit == Some(0)
    }

    /// What is to be shown of what was read next. The first call has all that there is so far.
    fn take(&mut self, fresh: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(fresh);
        let whole = self.held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.held.drain(..whole).collect();
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        let tail = self.selection.tail.take().unwrap_or(lines.len());
        let mut out = Vec::new();
        for line in lines.get(lines.len().saturating_sub(tail)..).unwrap_or_default() {
            self.line(line.strip_suffix(b"\n").unwrap_or(line), &mut out);
        }
        if let Some(limit) = &mut self.selection.limit {
            out.truncate(*limit);
            *limit -= out.len();
        }
        out
    }

    /// An entry: time, stream, whether it ends a line, and text.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(_), Some(tag)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        let text = parts.next().unwrap_or_default();
        let begins = std::mem::replace(&mut self.begins, tag != b"P");
        if let Some(since) = self.selection.since {
            let at = std::str::from_utf8(time).ok().and_then(api::meta::parse_micro_time);
            if at.is_none_or(|at| at < since) {
                return;
            }
        }
        if self.selection.timestamps && begins {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        if self.begins {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LOG: &str = "2026-11-28T12:00:00.000001Z stdout F one\n\
                       2026-11-28T12:00:01.000000Z stderr F two  words\n\
                       2026-11-28T12:00:02.000000Z stdout P thr\n\
                       2026-11-28T12:00:03.000000Z stdout F ee\n\
                       2026-11-28T12:00:04.000000Z stdout F \n";

    #[test]
    fn a_selection_shows_what_it_says() {
        // SUB-5
        let plain = Selection::default;
        let at = |text: &str| api::meta::parse_micro_time(text);
        for (name, selection, want) in [
            ("all", plain(), "one\ntwo  words\nthree\n\n"),
            ("tail", Selection { tail: Some(2), ..plain() }, "ee\n\n"),
            ("none", Selection { tail: Some(0), ..plain() }, ""),
            (
                "since",
                Selection { since: at("2026-11-28T12:00:01Z"), ..plain() },
                "two  words\nthree\n\n",
            ),
            (
                "timestamps",
                Selection { timestamps: true, tail: Some(3), ..plain() },
                "2026-11-28T12:00:02.000000Z three\n2026-11-28T12:00:04.000000Z \n",
            ),
            ("bytes", Selection { limit: Some(6), ..plain() }, "one\ntw"),
        ] {
            let mut shown = Shown::new(selection);
            let text = String::from_utf8(shown.take(LOG.as_bytes())).unwrap();
            assert_eq!(text, want, "{name}");
            assert_eq!(shown.is_full(), name == "bytes", "{name}");
        }
    }

    #[test]
    fn an_entry_that_is_read_in_pieces_is_shown_whole_and_as_it_is() {
        let log = [b"2026-11-28T12:00:00Z stdout F \xff\xfe\n".as_slice(), LOG.as_bytes()].concat();
        for piece in [1, 3, 50] {
            let mut shown = Shown::new(Selection::default());
            let all: Vec<u8> = log.chunks(piece).flat_map(|bytes| shown.take(bytes)).collect();
            assert_eq!(all, b"\xff\xfe\none\ntwo  words\nthree\n\n", "{piece}");
        }
    }

    #[test]
    fn the_status_says_which_instance_it_is() {
        // SUB-5, in the words of upstream's kubelet
        let of = |attempt: u32| json!({"containerID": format!("trireme://u-i-d-a-{attempt}")});
        let waits = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
        let crashed = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}},
                             "lastState": {"terminated": of(3)}});
        let again = json!({"state": {"running": {}}, "containerID": "trireme://u-a-4",
                           "lastState": {"terminated": of(3)}});
        let once = json!({"state": {"terminated": of(0)}, "containerID": "trireme://u-a-0"});
        for (status, previous, want) in [
            (&again, false, Ok(4)),
            (&again, true, Ok(3)),
            (&crashed, false, Ok(3)),
            (&crashed, true, Ok(3)),
            (&once, false, Ok(0)),
            (&once, true, Err("previous terminated container \"a\" in pod \"p\" not found")),
            (
                &waits("ContainerCreating"),
                false,
                Err("container \"a\" in pod \"p\" is waiting to start: ContainerCreating"),
            ),
            (
                &waits("ImagePullBackOff"),
                false,
                Err(
                    "container \"a\" in pod \"p\" is waiting to start: trying and failing to pull \
                     image",
                ),
            ),
            (
                &waits("ErrImagePull"),
                false,
                Err("container \"a\" in pod \"p\" is waiting to start: image can't be pulled"),
            ),
            (
                &json!({"state": {"terminated": {}}}),
                false,
                Err("container \"a\" in pod \"p\" is terminated"),
            ),
        ] {
            let mut status = status.clone();
            status["name"] = "a".into();
            let pod =
                json!({"initContainerStatuses": [{"name": "i"}], "containerStatuses": [status]});
            let found = which(&pod, "p", "a", previous);
            assert_eq!(found.as_ref().map_err(String::as_str).copied(), want, "{pod} {previous}");
        }
        let none = which(&json!({}), "p", "a", false).unwrap_err();
        assert_eq!(none, "container \"a\" in pod \"p\" is not available");
    }
}
