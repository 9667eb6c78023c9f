//! Streams of changes: how they begin, what bookmarks say, when they end.

use super::{Api, PODS, pod};
use apiserver::Body;
use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use std::time::Duration;
use store::Store as _;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;

/// An answer, line by line.
struct Lines {
    code: u16,
    body: Body,
    left: BytesMut,
}

impl Lines {
    async fn of(api: &Api, path: &str) -> Self {
        let body: Body = Full::new(Bytes::new()).map_err(|n| match n {}).boxed_unsync();
        let request = Request::get(path).body(body).unwrap();
        let answer = api.server.door().oneshot(request).await.unwrap();
        let code = answer.status().as_u16();
        Self { code, body: answer.into_body(), left: BytesMut::new() }
    }

    /// `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.left.iter().position(|byte| *byte == b'\n') {
                return serde_json::from_slice(&self.left.split_to(end + 1)).ok();
            }
            match self.body.frame().await {
                Some(frame) => self.left.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                None if self.left.is_empty() => return None,
                None => return serde_json::from_slice(&self.left.split()).ok(),
            }
        }
    }
}

fn version(event: &Value) -> u64 {
    event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_shown_nothing_of_much_has_its_bookmarks_and_its_end() {
    // WCH-5, WCH-7
    let api = Api::new().await;
    let begin = Instant::now();
    let path =
        format!("{PODS}?watch=1&allowWatchBookmarks=1&labelSelector=none&timeoutSeconds=200");
    let mut lines = Lines::of(&api, &path).await;
    let read = async {
        let mut seen = Vec::new();
        while let Some(event) = lines.next().await {
            assert_eq!(event["type"], "BOOKMARK");
            assert_eq!(version(&event), api.store.view().revision().get(), "nothing is missing");
            seen.push(begin.elapsed().as_secs());
        }
        seen
    };
    let write = async {
        for i in 0.. {
            assert_eq!(api.json(Method::POST, PODS, pod(&format!("p{i}"))).await.0, 201);
            sleep(Duration::from_millis(700)).await;
        }
    };
    let seen = tokio::select! {
        seen = read => seen,
        () = write => unreachable!("it writes without end"),
    };
    assert_eq!((seen, begin.elapsed().as_secs()), (vec![60, 120, 180, 198], 200));
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_is_not_behind_where_the_watch_began() {
    // FEN-37: another replica was further
    let api = Api::new().await;
    let ahead = api.store.view().revision().get() + 50;
    let path =
        format!("{PODS}?watch=1&allowWatchBookmarks=1&resourceVersion={ahead}&timeoutSeconds=3");
    let mut lines = Lines::of(&api, &path).await;
    let event = lines.next().await.unwrap();
    assert_eq!((&event["type"], version(&event)), (&json!("BOOKMARK"), ahead));
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_watch_begins_with_what_it_asks_for() {
    // WCH-1, WCH-6
    const END: &str = "k8s.io/initial-events-end";
    const STREAMED: &str = "watch=true&resourceVersionMatch=NotOlderThan&sendInitialEvents";
    let api = Api::new().await;
    api.json(Method::POST, PODS, pod("a")).await;
    let name = |event: &Value| match event["object"]["metadata"]["annotations"].get(END) {
        Some(end) => format!("{} {}", event["type"].as_str().unwrap(), end.as_str().unwrap()),
        None => {
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            format!("{} {name}", event["type"].as_str().unwrap())
        }
    };
    for (at, (query, want)) in [
        ("watch=true".to_owned(), &["ADDED a"][..]),
        ("watch=True&resourceVersion=0".to_owned(), &["ADDED a"]),
        ("watch".to_owned(), &["ADDED a"]),
        ("watch=1&timeoutSeconds=18446744073709551615".to_owned(), &["ADDED a"]),
        (format!("{STREAMED}=true&allowWatchBookmarks=true"), &["ADDED a", "BOOKMARK true"]),
        (format!("{STREAMED}=true&resourceVersion=0"), &["ADDED a"]),
        (format!("{STREAMED}=false"), &[]),
        (format!("{STREAMED}=false&resourceVersion=0&allowWatchBookmarks=true"), &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut lines = Lines::of(&api, &format!("{PODS}?{query}")).await;
        assert_eq!(lines.code, 200, "{query}");
        let new = format!("n{at}");
        api.json(Method::POST, PODS, pod(&new)).await;
        let mut seen = Vec::new();
        let last = format!("ADDED {new}");
        while seen.last() != Some(&last) {
            let event = timeout(Duration::from_secs(5), lines.next()).await;
            seen.push(name(&event.expect("an event").expect("a stream goes on")));
        }
        seen.pop();
        assert_eq!(seen, want, "{query}");
        api.json(Method::DELETE, &format!("{PODS}/{new}"), Value::Null).await;
    }
    for query in ["", "watch=false", "watch=False", "watch=0"] {
        let (code, list) = api.json(Method::GET, &format!("{PODS}?{query}"), Value::Null).await;
        assert_eq!((code, &list["kind"]), (200, &json!("PodList")), "{query}");
    }
    for (query, message) in [
        (
            "watch=true&sendInitialEvents=true",
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
             sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "watch=true&resourceVersion=1&resourceVersionMatch=NotOlderThan",
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
             resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (
            "sendInitialEvents=true",
            "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: \
             sendInitialEvents is forbidden for list",
        ),
    ] {
        let (code, status) = api.json(Method::GET, &format!("{PODS}?{query}"), Value::Null).await;
        assert_eq!((code, status["message"].as_str()), (422, Some(message)), "{query}");
    }
}
