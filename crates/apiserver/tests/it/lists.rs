//! Long lists and shared watches: what is spliced and cut into pieces reads as what is stored.

use super::*;
use http::{HeaderMap, Response, StatusCode};
use std::io::Read as _;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// As many as make a list of several pieces.
const COUNT: usize = 300;

impl Api {
    async fn answer(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let body: Body = Full::new(Bytes::new()).map_err(|n| match n {}).boxed_unsync();
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.server.door().oneshot(request.body(body).unwrap()).await.unwrap()
    }

    async fn whole(&self, path: &str, headers: &[(&str, &str)]) -> (HeaderMap, Bytes) {
        let answer = self.answer(path, headers).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let head = answer.headers().clone();
        (head, answer.into_body().collect().await.unwrap().to_bytes())
    }

    pub(crate) async fn put_raw(&self, key: &str, value: impl Into<Bytes>) {
        let put = store::Put {
            key: key.to_owned().into(),
            value: value.into(),
            lease: store::LeaseId::NONE,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        };
        let proposal = Proposal {
            request: RequestId { client: 2, sequence: self.store.view().revision().get() },
            origin: Origin::Client,
            op: Op::Txn(store::Txn {
                compare: Vec::new(),
                success: vec![store::TxnOp::Put(put)],
                failure: Vec::new(),
            }),
        };
        self.store.propose(proposal, Duration::from_secs(1)).await.unwrap().outcome.unwrap();
    }
}

async fn with_config_maps() -> Api {
    let api = Api::new().await;
    for n in 0..COUNT {
        let map = json!({
            "metadata": {"name": format!("c-{n:03}"), "labels": {"odd": (n % 2 == 1).to_string()}},
            "data": {"text": "\"}{\\ é".repeat(60), "n": n.to_string()},
        });
        assert_eq!(api.json(Method::POST, CONFIG_MAPS, map).await.0, 201);
    }
    api
}

#[tokio::test]
async fn a_list_of_many_pieces_holds_what_each_get_shows() {
    // LST-1
    let api = with_config_maps().await;
    let (head, text) = api.whole(CONFIG_MAPS, &[]).await;
    assert!(text.len() > 2 * (64 << 10), "{}", text.len());
    assert!(head.get("content-length").is_none(), "it is not known before it is written");
    let list: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    let revision = api.store.view().revision().to_string();
    assert_eq!(list["metadata"], json!({"resourceVersion": revision}));
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), COUNT);
    for item in items {
        let name = item["metadata"]["name"].as_str().unwrap();
        let (_, one) = api.json(Method::GET, &format!("{CONFIG_MAPS}/{name}"), Value::Null).await;
        assert_eq!(item, &one, "{name}");
    }
}

#[tokio::test]
async fn every_form_of_a_long_list_has_every_object() {
    // TAB-1, LST-2
    let api = with_config_maps().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let (_, text) = api.whole(CONFIG_MAPS, &[("accept", table)]).await;
    let rows: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(rows["rows"].as_array().unwrap().len(), COUNT);
    assert_eq!(rows["columnDefinitions"][0]["name"], "Name");
    assert_eq!(rows["rows"][299]["cells"][0], "c-299");
    assert_eq!(rows["rows"][299]["object"]["kind"], "PartialObjectMetadata");
    let (_, text) = api.whole(CONFIG_MAPS, &[("accept", metadata)]).await;
    let list: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), COUNT);
    assert!(items.iter().all(|item| item.get("data").is_none()));
    let (_, plain) = api.whole(CONFIG_MAPS, &[]).await;
    let plain: Value = serde_json::from_slice(&plain).unwrap();
    for (item, whole) in items.iter().zip(plain["items"].as_array().unwrap()) {
        assert_eq!(item["metadata"], whole["metadata"]);
    }
    let (head, text) = api.whole(CONFIG_MAPS, &[("accept", "application/yaml")]).await;
    assert_eq!(head["content-type"], "application/yaml");
    let yaml: Value = serde_yaml_ng::from_slice(&text).unwrap();
    assert_eq!(yaml, plain);
    let path = format!("{CONFIG_MAPS}?limit=100&continue=");
    let mut next = String::new();
    let mut found = Vec::new();
    for remaining in [Some(200), Some(100), None] {
        let (_, text) = api.whole(&format!("{path}{next}"), &[]).await;
        let page: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(page["metadata"]["remainingItemCount"].as_u64(), remaining);
        next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        found.extend(page["items"].as_array().unwrap().clone());
    }
    assert_eq!(Value::from(found), plain["items"]);
}

#[tokio::test]
async fn long_lists_are_compressed_for_who_asks_and_watches_never() {
    let api = with_config_maps().await;
    let (_, plain) = api.whole(CONFIG_MAPS, &[]).await;
    let gzip = [("accept-encoding", "gzip")];
    let (head, zipped) = api.whole(CONFIG_MAPS, &gzip).await;
    assert_eq!(
        (&head["content-encoding"], &head["vary"]),
        (&"gzip".parse().unwrap(), &"Accept-Encoding".parse().unwrap())
    );
    let mut back = Vec::new();
    flate2::read::GzDecoder::new(zipped.as_ref()).read_to_end(&mut back).unwrap();
    assert!(back == plain);
    let (head, _) = api.whole(&format!("{CONFIG_MAPS}?limit=10"), &gzip).await;
    assert!(head.get("content-encoding").is_none(), "short");
    let watch = api.answer(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), &gzip).await;
    assert!(watch.headers().get("content-encoding").is_none(), "a watch");
}

#[tokio::test]
async fn selectors_select_stored_objects_as_they_select_read_ones() {
    // SEL-1, SEL-2
    let api = with_config_maps().await;
    for (selector, want) in [
        ("labelSelector=odd%3Dtrue", COUNT / 2),
        ("labelSelector=odd%3Dtrue&limit=20", 20),
        ("labelSelector=odd%3Dother", 0),
        ("fieldSelector=metadata.name%3Dc-007", 1),
        ("fieldSelector=metadata.name%3Dc-007&labelSelector=odd%3Dfalse", 0),
        ("fieldSelector=metadata.name!%3Dc-007", COUNT - 1),
        ("fieldSelector=metadata.name%3Dnone", 0),
        ("fieldSelector=metadata.name%3Da/c-007", 0),
        ("fieldSelector=metadata.namespace%3Ddefault", COUNT),
    ] {
        let (_, text) = api.whole(&format!("{CONFIG_MAPS}?{selector}"), &[]).await;
        let list: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), want, "{selector}");
    }
    let everywhere = "/api/v1/configmaps?fieldSelector=metadata.name%3Dc-007";
    let (_, text) = api.whole(everywhere, &[]).await;
    let list: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_another_client_of_the_store_wrote_is_shown_as_it_was() {
    let api = Api::new().await;
    let text = r#"{ "metadata": {"name":"raw","name":"raw2","resourceVersion":"1"}, "data":{"a":"\u00e9"} }"#;
    api.put_raw("/registry/configmaps/default/raw", text).await;
    let (_, text) = api.whole(&format!("{CONFIG_MAPS}/raw"), &[]).await;
    let one: Value = serde_json::from_slice(&text).unwrap();
    let revision = api.store.view().revision().to_string();
    assert_eq!(
        one,
        json!({
            "kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "é"},
            "metadata": {"name": "raw2", "resourceVersion": revision},
        })
    );
    let (_, list) = api.whole(CONFIG_MAPS, &[]).await;
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list["items"], json!([one]));
    // One that cannot be read is said before an answer has begun.
    api.put_raw("/registry/configmaps/default/worse", "{").await;
    for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/worse")] {
        let answer = api.answer(&path, &[]).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
}

/// The next events of a watch, as type and object.
async fn events(body: &mut Body, count: usize) -> Vec<(String, Value)> {
    let (mut text, mut found) = (Vec::new(), Vec::new());
    while found.len() < count {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap();
        text.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
        if text.ends_with(b"\n") {
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let event: Value = serde_json::from_slice(line).unwrap();
                found.push((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
            }
            text.clear();
        }
    }
    found
}

#[tokio::test]
async fn watches_that_share_a_batch_each_see_what_they_select_in_their_form() {
    // WCH-3
    let api = Api::new().await;
    let metadata = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let since = api.store.view().revision();
    let watch = |query: &str, accept: &'static str| {
        let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={since}&{query}");
        let api = &api;
        async move { api.answer(&path, &[("accept", accept)]).await.into_body() }
    };
    let mut plain = [watch("", "*/*").await, watch("", "*/*").await];
    let mut blue = watch("labelSelector=color%3Dblue", "*/*").await;
    let mut red = watch("labelSelector=color%3Dred", "*/*").await;
    let mut named = watch("fieldSelector=metadata.name%3Da", metadata).await;
    let mut other = watch("fieldSelector=metadata.name%3Dz", metadata).await;
    let map = |name: &str, color: &str| json!({"metadata": {"name": name, "labels": {"color": color}}, "data": {"k": "v"}});
    api.json(Method::POST, CONFIG_MAPS, map("a", "red")).await;
    let path = format!("{CONFIG_MAPS}/a");
    let merge = "application/merge-patch+json";
    let to_blue = r#"{"metadata":{"labels":{"color":"blue"}}}"#;
    let (_, changed) = api.send(Method::PATCH, &path, merge, to_blue).await;
    api.json(Method::DELETE, &path, Value::Null).await;
    let gone = api.store.view().revision().to_string();
    api.json(Method::POST, CONFIG_MAPS, map("z", "green")).await;
    let kinds = |events: &[(String, Value)]| -> Vec<String> {
        events.iter().map(|(kind, _)| kind.clone()).collect()
    };
    for body in &mut plain {
        let seen = events(body, 4).await;
        assert_eq!(kinds(&seen), ["ADDED", "MODIFIED", "DELETED", "ADDED"]);
        assert_eq!(seen[1].1, changed);
        let mut last = changed.clone();
        last["metadata"]["resourceVersion"] = gone.clone().into();
        assert_eq!(seen[2].1, last, "the last form, at the revision of the end");
    }
    let seen = events(&mut blue, 2).await;
    assert_eq!(kinds(&seen), ["ADDED", "DELETED"], "entered by the change");
    assert_eq!(seen[0].1, changed);
    let seen = events(&mut red, 2).await;
    assert_eq!(kinds(&seen), ["ADDED", "DELETED"], "left by the change");
    assert_eq!(seen[1].1["metadata"]["labels"]["color"], "red", "what was before");
    assert_eq!(seen[1].1["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]);
    let seen = events(&mut named, 3).await;
    assert_eq!(kinds(&seen), ["ADDED", "MODIFIED", "DELETED"]);
    assert_eq!(seen[1].1["metadata"], changed["metadata"]);
    assert!(seen.iter().all(|(_, object)| object.get("data").is_none()));
    assert_eq!(kinds(&events(&mut other, 1).await), ["ADDED"]);
}

#[tokio::test]
async fn what_is_not_shown_as_it_is_stored_is_the_same_in_gets_lists_and_watches() {
    // WCH-3, EVT-1
    let api = Api::new().await;
    let since = api.store.view().revision();
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let scaler = json!({
        "metadata": {"name": "o"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50},
    });
    let event = json!({
        "metadata": {"name": "o"}, "eventTime": "2026-11-28T12:00:00.000000Z",
        "reportingController": "example.com/c", "reportingInstance": "c-1", "action": "Looking",
        "reason": "Looked", "note": "all is well", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    let [one, two, newer, older] = [
        "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
        "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
        "/apis/events.k8s.io/v1/namespaces/default/events",
        "/api/v1/namespaces/default/events",
    ];
    for (written, other, object, own) in
        [(one, two, scaler, "/spec/targetCPUUtilizationPercentage"), (newer, older, event, "/note")]
    {
        // Whichever comes first makes what all of them share of a batch.
        for paths in [[written, other, written, other], [other, written, other, written]] {
            let mut watches = Vec::new();
            for path in paths {
                let watch = format!("{path}?watch=1&resourceVersion={since}");
                watches.push((path, api.answer(&watch, &[]).await.into_body()));
            }
            let (code, made) = api.json(Method::POST, written, object.clone()).await;
            assert!(code == 201 || code == 409, "{made}");
            for (path, mut body) in watches {
                let (_, got) = api.json(Method::GET, &format!("{path}/o"), Value::Null).await;
                assert_eq!(got.pointer(own).is_some(), path == written, "{got}");
                let seen = events(&mut body, 1).await;
                assert_eq!(seen, [("ADDED".to_owned(), got.clone())], "{path}");
                let (_, text) = api.whole(path, &[]).await;
                let list: Value = serde_json::from_slice(&text).unwrap();
                assert_eq!(list["items"], json!([got]), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_long_list_of_an_earlier_moment_says_which_and_is_compressed() {
    let api = with_config_maps().await;
    let then = api.store.view().revision();
    api.json(Method::DELETE, &format!("{CONFIG_MAPS}/c-007"), Value::Null).await;
    let path = format!("{CONFIG_MAPS}?at={then}");
    let (head, zipped) = api.whole(&path, &[("accept-encoding", "gzip")]).await;
    assert_eq!(head["content-encoding"], "gzip");
    assert_eq!(head[api::past::REVISION_HEADER], then.to_string());
    assert!(head.get(api::past::TIME_HEADER).is_some());
    let list: Value =
        serde_json::from_reader(flate2::read::GzDecoder::new(zipped.as_ref())).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), COUNT);
}

#[tokio::test]
async fn a_watch_from_nowhere_begins_with_everything_in_pieces() {
    // WCH-1
    let api = with_config_maps().await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut body = api.answer(&path, &[]).await.into_body();
    let mut seen = Vec::new();
    while seen.len() < COUNT + 1 {
        // Each piece ends with a line.
        seen.extend(events(&mut body, 1).await);
    }
    let (last, first) = seen.split_last().unwrap();
    assert!(first.iter().all(|(kind, _)| kind == "ADDED"));
    assert_eq!(last.0, "BOOKMARK");
    let (_, list) = api.whole(CONFIG_MAPS, &[]).await;
    let list: Value = serde_json::from_slice(&list).unwrap();
    let objects: Vec<Value> = first.iter().map(|(_, object)| object.clone()).collect();
    assert_eq!(Value::from(objects), list["items"]);
}
