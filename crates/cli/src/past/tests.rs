//! History, differences and undeletion over the real API server.

use super::*;
use crate::testing::Api;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn object(alias: &str, name: &str) -> Object {
    let (namespace, name) = ("default".to_owned(), name.to_owned());
    Object { kind: kinds::by_alias(alias).unwrap(), namespace, name }
}

fn map(data: Value) -> Value {
    json!({"metadata": {"name": "site"}, "data": data})
}

/// A ConfigMap that was created, changed twice and deleted, ten seconds apart.
async fn changed() -> (Api, Vec<u64>) {
    let api = Api::new().await;
    api.at(10);
    api.make(&format!("{MAPS}?fieldManager=alice"), map(json!({"title": "one"}))).await;
    let mut revisions = vec![api.revision()];
    api.at(20);
    let path = format!("{MAPS}/site?fieldManager=bob");
    api.put(&path, map(json!({"title": "two"}))).await;
    revisions.push(api.revision());
    api.at(30);
    api.put(&path, map(json!({"title": "two", "colour": "red"}))).await;
    revisions.push(api.revision());
    api.at(40);
    api.delete(&format!("{MAPS}/site"), json!({})).await;
    revisions.push(api.revision());
    api.at(50);
    (api, revisions)
}

async fn shown(api: &Api, limit: u32) -> (String, Value) {
    let target = api.target("default");
    let object = object("configmap", "site");
    let found = fetch_history(&target, &object, &(limit + 1).to_string()).await.unwrap();
    let shown = versions(&found, usize::try_from(limit).unwrap());
    (told(&object, &found, &shown, false), as_json(&object, &found, &shown))
}

#[tokio::test]
async fn a_history_tells_when_by_whom_and_what() {
    let (api, revisions) = changed().await;
    let (text, json) = shown(&api, 50).await;
    insta::assert_snapshot!(text);
    let told = json["versions"].as_array().unwrap().iter();
    let told: Vec<u64> = told.map(|v| v["revision"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(told, revisions);
    let (text, json) = shown(&api, 2).await;
    assert_eq!(json["leftOut"], 2, "{text}");
    assert!(text.contains("bob (update)"), "what was before the first is known: {text}");
    assert!(!text.contains("alice"), "who was overwritten has not written: {text}");
}

#[tokio::test]
async fn of_what_is_compacted_the_oldest_kept_moment_is_told() {
    let (api, revisions) = changed().await;
    api.make(MAPS, json!({"metadata": {"name": "other"}})).await;
    let target = api.target("default");
    let site = object("cm", "site");
    api.compact().await;
    api.make(MAPS, json!({"metadata": {"name": "another"}})).await;
    let failure = fetch_history(&target, &site, "").await.unwrap_err().lines().join("\n");
    let since = format!(
        "(NotFound) configmaps \"site\" not found, nor any trace of it since revision {}, made at \
         2023-11-14T22:14:10Z",
        revisions[3] + 1
    );
    assert_eq!(failure, since);
    for when in [revisions[0].to_string(), "2023-11-14T22:13:45Z".to_owned(), "1h".to_owned()] {
        let failure = at(&target, &site, &when).await.unwrap_err().lines().join("\n");
        assert!(failure.starts_with("(Expired) "), "{failure}");
        let oldest = format!(
            "is not kept any more: history begins with revision {}, made at 2023-11-14T22:14:10Z",
            revisions[3] + 1
        );
        assert!(failure.ends_with(&oldest), "{failure}");
    }
}

#[tokio::test]
async fn a_moment_is_a_revision_a_time_or_so_long_ago() {
    let (api, revisions) = changed().await;
    let target = api.target("default");
    let site = object("cm", "site");
    for (when, want) in [
        (revisions[0].to_string(), Some("one")),
        (revisions[2].to_string(), Some("two")),
        ("2023-11-14T22:13:39Z".to_owned(), Some("one")),
        ("2023-11-14T22:13:40Z".to_owned(), Some("two")),
        ("2023-11-14T23:13:41+01:00".to_owned(), Some("two")),
        ("35s".to_owned(), Some("one")),
        ("5s".to_owned(), None),
        (revisions[3].to_string(), None),
        ((revisions[0] - 1).to_string(), None),
    ] {
        let found = at(&target, &site, &when).await.unwrap();
        let title = found.as_ref().ok().map(|(o, _)| o["data"]["title"].as_str().unwrap());
        assert_eq!(title, want, "{when}");
    }
    let early = at(&target, &site, &(revisions[0] - 1).to_string()).await.unwrap().unwrap_err();
    let came = format!("it came with revision {}, made at 2023-11-14T22:13:30Z", revisions[0]);
    assert!(early.message.ends_with(&came), "{early}");
    for (when, want) in [
        (
            "2024-01-01T00:00:00Z",
            "2024-01-01T00:00:00Z has not come yet: it is 2023-11-14T22:14:10Z",
        ),
        ("999999", "revision 999999 has not come yet: the newest is revision"),
        ("never", "at: \"never\" is no revision"),
    ] {
        let failure = at(&target, &site, when).await.unwrap_err().lines().join("\n");
        assert!(failure.contains(want), "{failure}");
    }
}

#[tokio::test]
async fn a_difference_is_told_field_by_field() {
    let (api, revisions) = changed().await;
    let target = api.target("default");
    let site = object("cm", "site");
    let (from, to) = (revisions[0].to_string(), revisions[2].to_string());
    let (text, json) = compared(&target, &site, &from, Some(&to), false).await.unwrap();
    assert_eq!(
        text,
        format!(
            "configmap/site in default: revision {from} (2023-11-14T22:13:30Z) → revision {to} \
             (2023-11-14T22:13:50Z): 2 fields differ\n  data.colour: + \"red\"\n  data.title: \
             \"one\" → \"two\"\n"
        )
    );
    assert_eq!(json["changes"][1], json!({"path": "data.title", "old": "one", "new": "two"}));
    let (text, _) = compared(&target, &site, &from, None, false).await.unwrap();
    assert!(text.contains("it was deleted with revision"), "{text}");
    let gone = compared(&target, &site, &revisions[3].to_string(), None, false).await.unwrap_err();
    assert!(gone.lines().join("").contains("not found"), "{gone:?}");
}

#[tokio::test]
async fn what_is_secret_is_not_for_a_screen() {
    let api = Api::new().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |value: &str| json!({"metadata": {"name": "db"}, "data": {"password": value}});
    api.make(secrets, secret("aHVudGVyMg==")).await;
    let from = api.revision().to_string();
    api.put(&format!("{secrets}/db"), secret("aHVudGVyMw==")).await;
    let target = api.target("default");
    let (text, _) = compared(&target, &object("secret", "db"), &from, None, true).await.unwrap();
    assert!(text.contains("data.password: 7 bytes → 7 bytes, otherwise"), "{text}");
    assert!(!text.contains("aHVu"), "{text}");
}

#[tokio::test]
async fn what_was_deleted_is_made_again() {
    let (api, revisions) = changed().await;
    let target = api.target("default");
    let site = object("cm", "site");
    let old = at(&target, &site, &revisions[2].to_string()).await.unwrap().unwrap().0;
    let (text, _) = made_again(&target, &site, None, true).await.unwrap();
    assert!(text.starts_with("configmap/site would be made again as it was at revision"), "{text}");
    let (text, json) = made_again(&target, &site, None, false).await.unwrap();
    assert!(text.contains("what does not come back:\n  its uid"), "{text}");
    assert_eq!(json["from"]["revision"], revisions[2].to_string());
    let new = api.get(&format!("{MAPS}/site")).await;
    assert_eq!((&new["data"], meta::name(&new)), (&old["data"], "site"));
    assert_ne!(meta::uid(&new), meta::uid(&old));
    let again = made_again(&target, &site, None, false).await.unwrap_err().lines().join("");
    assert!(again.starts_with("configmap/site is there"), "{again}");

    api.delete(&format!("{MAPS}/site"), json!({})).await;
    let (_, json) =
        made_again(&target, &site, Some(&revisions[0].to_string()), false).await.unwrap();
    assert_eq!(json["created"]["data"], json!({"title": "one"}));
}

#[tokio::test]
async fn a_pod_comes_back_as_it_was_before_it_was_asked_to_go() {
    let api = Api::new().await;
    api.node("n", "2", json!({}), "True").await;
    let pods = "/api/v1/namespaces/default/pods";
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "gone"});
    let pod = json!({
        "metadata": {"name": "web", "ownerReferences": [owner]},
        "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "toolbox"}]},
    });
    api.make(pods, pod).await;
    api.delete(&format!("{pods}/web"), json!({})).await;
    api.delete(&format!("{pods}/web"), json!({"gracePeriodSeconds": 0})).await;
    let target = api.target("default");
    let (text, json) = made_again(&target, &object("pod", "web"), None, false).await.unwrap();
    let uid = meta::uid(&json["created"]).to_owned();
    let old = text.lines().find_map(|l| l.strip_prefix("  its uid ")?.split(':').next());
    let text = text.replace(old.unwrap(), "[old]").replace(&uid, "[new]");
    insta::assert_snapshot!(text);
    let created = &json["created"];
    assert_eq!(created.pointer("/metadata/deletionTimestamp"), None);
    assert_eq!(created.pointer("/spec/nodeName"), None);
    assert_eq!(created.pointer("/metadata/ownerReferences"), None);
}

#[tokio::test]
async fn a_service_whose_address_is_taken_gets_another() {
    let api = Api::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    api.make(services, service("web", "10.96.0.77")).await;
    api.delete(&format!("{services}/web"), json!({})).await;
    api.make(services, service("thief", "10.96.0.77")).await;
    let target = api.target("default");
    let (text, json) = made_again(&target, &object("svc", "web"), None, false).await.unwrap();
    assert!(text.contains("its address 10.96.0.77, which another Service has by now"), "{text}");
    assert_ne!(json["created"]["spec"]["clusterIP"], "10.96.0.77");
    // Free again, it comes back with its own.
    for name in ["web", "thief"] {
        api.delete(&format!("{services}/{name}"), json!({})).await;
    }
    let (_, json) = made_again(&target, &object("svc", "thief"), None, false).await.unwrap();
    assert_eq!(json["created"]["spec"]["clusterIP"], "10.96.0.77");
}
