//! Admission: accounts, priorities, limits and quotas, over the real registry.

use crate::{Api, PODS, pod};
use api::kinds;
use apiserver::registry::Caller;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Store as _;
use tokio::task::JoinSet;

const NAMESPACES: &str = "/api/v1/namespaces";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const LIMITS: &str = "/api/v1/namespaces/default/limitranges";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

impl Api {
    async fn quota(&self, spec: Value) {
        let quota = json!({"metadata": {"name": "q"}, "spec": spec});
        let (code, answer) = self.json(Method::POST, QUOTAS, quota).await;
        assert_eq!(code, 201, "{answer}");
    }

    async fn used(&self) -> Value {
        let (_, quota) = self.json(Method::GET, &format!("{QUOTAS}/q"), Value::Null).await;
        quota["status"]["used"].clone()
    }

    async fn refused(&self, path: &str, body: Value) -> String {
        let (code, answer) = self.json(Method::POST, path, body).await;
        assert_eq!((code, &answer["reason"]), (403, &json!("Forbidden")), "{answer}");
        answer["message"].as_str().unwrap().to_owned()
    }
}

fn asking(name: &str, resources: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

#[tokio::test]
async fn a_namespace_is_never_without_an_account_for_its_pods() {
    // SA-1
    let api = Api::new().await;
    let (code, _) = api.json(Method::POST, NAMESPACES, json!({"metadata": {"name": "x"}})).await;
    assert_eq!(code, 201);
    let (code, created) = api.json(Method::POST, &format!("{NAMESPACES}/x/pods"), pod("p")).await;
    assert_eq!(code, 201, "{created}");
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    let path = format!("{NAMESPACES}/x/serviceaccounts/default");
    let (_, account) = api.json(Method::GET, &path, Value::Null).await;
    assert_eq!(account["metadata"]["namespace"], "x");
    assert!(account["metadata"]["uid"].is_string());
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let path = format!("{NAMESPACES}/{name}/serviceaccounts/default");
        assert_eq!(api.json(Method::GET, &path, Value::Null).await.0, 200, "{name}");
    }
}

#[tokio::test]
async fn pods_get_a_token_where_somebody_signs_and_the_api_can_be_told_by_it() {
    // SA-1
    let moment = pki::Moment(1_577_836_800);
    let lifetime = std::time::Duration::from_secs(3600);
    let authority = Arc::new(pki::Authority::create("kubernetes", moment, lifetime).unwrap());
    let with = |key: bool, signs: bool| {
        let access = if key { crate::access::config() } else { apiserver::AccessConfig::default() };
        let authority = signs.then(|| Arc::clone(&authority));
        Api::with(access, apiserver::Pki { authority, ..apiserver::Pki::default() })
    };
    let map = |namespace: &str| format!("{NAMESPACES}/{namespace}/configmaps/kube-root-ca.crt");
    for (key, signs) in [(false, false), (true, false), (false, true)] {
        let api = with(key, signs).await;
        let (code, made) = api.json(Method::POST, PODS, pod("p")).await;
        assert_eq!((code, &made["spec"]["volumes"]), (201, &Value::Null), "{key} {signs}");
        assert_eq!(api.json(Method::GET, &map("default"), Value::Null).await.0, 404);
    }
    let api = with(true, true).await;
    let (code, _) = api.json(Method::POST, NAMESPACES, json!({"metadata": {"name": "x"}})).await;
    assert_eq!(code, 201);
    for namespace in ["x", "default", "kube-system"] {
        let (_, found) = api.json(Method::GET, &map(namespace), Value::Null).await;
        assert_eq!(found["data"]["ca.crt"], authority.pem(), "{namespace}");
        let (_, made) = {
            let pods = format!("{NAMESPACES}/{namespace}/pods");
            api.json(Method::POST, &pods, pod("p")).await
        };
        let volume = &made["spec"]["volumes"][0];
        let name = volume["name"].as_str().unwrap();
        assert!(name.starts_with("kube-api-access-"), "{made}");
        assert_eq!(made["spec"]["containers"][0]["volumeMounts"][0]["name"], name);
    }
    // Whoever says no for the account says it for its Pods.
    let path = format!("{NAMESPACES}/x/serviceaccounts/default");
    let (_, mut account) = api.json(Method::GET, &path, Value::Null).await;
    account["automountServiceAccountToken"] = json!(false);
    assert_eq!(api.json(Method::PUT, &path, account).await.0, 200);
    let (_, made) = api.json(Method::POST, &format!("{NAMESPACES}/x/pods"), pod("q")).await;
    assert_eq!(made["spec"]["volumes"], Value::Null);
}

#[tokio::test]
async fn a_pod_has_the_account_that_it_names_and_its_secrets() {
    // DEF-2, SA-1
    let api = Api::new().await;
    let mut named = pod("p");
    named["spec"]["serviceAccountName"] = json!("robot");
    assert_eq!(
        api.refused(PODS, named.clone()).await,
        "pods \"p\" is forbidden: error looking up service account default/robot: serviceaccount \
         \"robot\" not found"
    );
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let robot = json!({"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "s"}]});
    assert_eq!(api.json(Method::POST, accounts, robot).await.0, 201);
    let (code, created) = api.json(Method::POST, PODS, named).await;
    assert_eq!((code, &created["spec"]["imagePullSecrets"]), (201, &json!([{"name": "s"}])));
    let (code, answer) = api.json(Method::POST, &format!("{NAMESPACES}/none/pods"), pod("p")).await;
    assert_eq!((code, &answer["message"]), (404, &json!("namespaces \"none\" not found")));
}

#[tokio::test]
async fn a_pod_has_the_priority_of_its_class_and_keeps_it() {
    // DEF-2
    let api = Api::new().await;
    let (_, plain) = api.json(Method::POST, PODS, pod("plain")).await;
    assert_eq!(
        (&plain["spec"]["priority"], &plain["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    let mut critical = pod("critical");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    let (code, mut created) = api.json(Method::POST, PODS, critical).await;
    assert_eq!((code, &created["spec"]["priority"]), (201, &json!(2_000_001_000)));
    created["spec"].as_object_mut().unwrap().remove("priority");
    let (code, kept) = api.json(Method::PUT, &format!("{PODS}/critical"), created).await;
    assert_eq!((code, &kept["spec"]["priority"]), (200, &json!(2_000_001_000)));

    let mut unknown = pod("u");
    unknown["spec"]["priorityClassName"] = json!("x");
    let want = "pods \"u\" is forbidden: no PriorityClass with name x was found";
    assert_eq!(api.refused(PODS, unknown).await, want);
    let mut own = pod("o");
    own["spec"]["priority"] = json!(5);
    let want = "pods \"o\" is forbidden: the integer value of priority (5) must not be provided in pod \
                spec; priority admission controller computed 0 from the given PriorityClass name";
    assert_eq!(api.refused(PODS, own).await, want);
}

#[tokio::test]
async fn of_many_classes_that_would_be_the_default_one_is() {
    // DEF-2
    let api = Api::new().await;
    let class = |i: usize| json!({"metadata": {"name": format!("c{i}")}, "value": i, "globalDefault": true});
    let tries = join_all((0..8).map(|i| api.json(Method::POST, CLASSES, class(i)))).await;
    let made: Vec<usize> = (0..8).filter(|i| tries[*i].0 == 201).collect();
    assert_eq!(made.len(), 1, "{tries:?}");
    let (_, created) = api.json(Method::POST, PODS, pod("p")).await;
    assert_eq!(created["spec"]["priority"], made[0]);
    let other = (made[0] + 1) % 8;
    let plain = json!({"metadata": {"name": "later"}, "value": other});
    assert_eq!(api.json(Method::POST, CLASSES, plain).await.0, 201);
    let merge = "application/merge-patch+json";
    let path = format!("{CLASSES}/later");
    let (code, answer) = api.send(Method::PATCH, &path, merge, r#"{"globalDefault": true}"#).await;
    let want = format!(
        "priorityclasses.scheduling.k8s.io \"later\" is forbidden: PriorityClass c{} is already marked as \
         default. Only one default can exist",
        made[0]
    );
    assert_eq!((code, answer["message"].as_str()), (403, Some(want.as_str())));
}

#[tokio::test]
async fn limits_complete_a_pod_and_bound_it() {
    // DEF-2
    let api = Api::new().await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container",
        "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "500m"}, "max": {"cpu": "2"}}]}});
    assert_eq!(api.json(Method::POST, LIMITS, range).await.0, 201);
    let (code, created) = api.json(Method::POST, PODS, pod("p")).await;
    let want = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
    assert_eq!((code, &created["spec"]["containers"][0]["resources"]), (201, &want));
    assert_eq!(created["status"]["qosClass"], "Burstable", "of what it is now");
    let large = asking("l", json!({"limits": {"cpu": "3"}}));
    let want = "pods \"l\" is forbidden: maximum cpu usage per Container is 2, but limit is 3";
    assert_eq!(api.refused(PODS, large).await, want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_create_through_many_replicas_as_many_go_on_as_the_quota_has_room_for() {
    let api = Api::new().await;
    api.quota(json!({"hard": {"pods": "20", "requests.cpu": "10"}})).await;
    let ask = |i: usize| asking(&format!("p{i}"), json!({"requests": {"cpu": "150m"}}));
    let mut tasks = JoinSet::new();
    let kind = kinds::by_alias("pods").unwrap();
    for replica in 0..4 {
        let other = api.beside();
        for i in 0..25 {
            let (registry, pod) = (other.server.registry().clone(), ask(replica * 25 + i));
            tasks.spawn(
                async move { registry.create(kind, "default", pod, &Caller::default()).await },
            );
        }
    }
    let tries = tasks.join_all().await;
    let made = tries.iter().filter(|tried| tried.is_ok()).count();
    assert_eq!(made, 20);
    for status in tries.into_iter().filter_map(Result::err) {
        let want =
            "is forbidden: exceeded quota: q, requested: pods=1, used: pods=20, limited: pods=20";
        assert!(status.code == 403 && status.message.ends_with(want), "{status}");
    }
    assert_eq!(api.used().await, json!({"pods": "20", "requests.cpu": "3"}));
}

#[tokio::test]
async fn room_that_was_made_is_found_although_nobody_has_counted_yet() {
    let api = Api::new().await;
    api.quota(json!({"hard": {"pods": "1", "secrets": "1"}})).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for path in [PODS, secrets] {
        let object =
            |name: &str| if path == PODS { pod(name) } else { json!({"metadata": {"name": name}}) };
        assert_eq!(api.json(Method::POST, path, object("a")).await.0, 201);
        api.refused(path, object("b")).await;
        assert_eq!(api.json(Method::DELETE, &format!("{path}/a"), Value::Null).await.0, 200);
        assert_eq!(api.json(Method::POST, path, object("b")).await.0, 201, "{path}");
    }
    let ended = json!({"metadata": {"name": "b"}, "status": {"phase": "Failed"}});
    let merge = "application/merge-patch+json";
    let path = format!("{PODS}/b/status");
    assert_eq!(api.send(Method::PATCH, &path, merge, &ended.to_string()).await.0, 200);
    assert_eq!(api.json(Method::POST, PODS, pod("c")).await.0, 201, "what has ended takes nothing");
}

#[tokio::test]
async fn quotas_are_charged_together_and_each_under_a_revision_of_its_own() {
    // FEN-38
    let api = Api::new().await;
    for (name, hard) in [("a", json!({"pods": "9"})), ("b", json!({"count/pods": "1"}))] {
        let quota = json!({"metadata": {"name": name}, "spec": {"hard": hard}});
        assert_eq!(api.json(Method::POST, QUOTAS, quota).await.0, 201);
    }
    let (code, created) = api.json(Method::POST, PODS, pod("p")).await;
    assert_eq!(code, 201, "{created}");
    let (_, read) = api.json(Method::GET, &format!("{PODS}/p"), Value::Null).await;
    assert_eq!(read["metadata"], created["metadata"], "the revision is the object's own");
    let (_, list) = api.json(Method::GET, QUOTAS, Value::Null).await;
    let version = |i: usize| list["items"][i]["metadata"]["resourceVersion"].clone();
    assert_ne!(version(0), version(1));
    assert!([0, 1].iter().all(|i| version(*i) != read["metadata"]["resourceVersion"]));
    let before = api.store.view().revision();
    api.refused(PODS, pod("q")).await;
    assert_eq!(api.store.view().revision(), before, "all or nothing");
    let (_, list) = api.json(Method::GET, QUOTAS, Value::Null).await;
    assert_eq!(list["items"][0]["status"]["used"], json!({"pods": "1"}));
}

#[tokio::test]
async fn an_update_that_takes_more_is_charged() {
    let api = Api::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(api.json(Method::POST, services, service).await.0, 201);
    api.quota(json!({"hard": {"services.loadbalancers": "0"}})).await;
    let merge = "application/merge-patch+json";
    let patch = r#"{"spec": {"type": "LoadBalancer"}}"#;
    let (code, answer) = api.send(Method::PATCH, &format!("{services}/s"), merge, patch).await;
    let want = "services \"s\" is forbidden: exceeded quota: q, requested: services.loadbalancers=1, used: \
                services.loadbalancers=0, limited: services.loadbalancers=0";
    assert_eq!((code, answer["message"].as_str()), (403, Some(want)));
}

#[tokio::test]
async fn a_quota_says_what_is_used_and_not_what_it_is_told() {
    let api = Api::new().await;
    assert_eq!(api.json(Method::POST, PODS, pod("p")).await.0, 201);
    api.quota(json!({"hard": {"pods": "5", "count/serviceaccounts": "9"}})).await;
    let merge = "application/merge-patch+json";
    let path = format!("{QUOTAS}/q/status");
    let (code, quota) =
        api.send(Method::PATCH, &path, merge, r#"{"status": {"used": {"pods": "0"}}}"#).await;
    let want = json!({
        "hard": {"pods": "5", "count/serviceaccounts": "9"},
        "used": {"pods": "1", "count/serviceaccounts": "1"},
    });
    assert_eq!((code, &quota["status"]), (200, &want));
    let before = api.store.view().revision();
    assert_eq!(api.send(Method::PATCH, &path, merge, "{}").await.0, 200);
    assert_eq!(api.store.view().revision(), before, "nothing new, nothing written");
}

#[tokio::test]
async fn what_a_quota_needs_to_know_must_be_said_and_a_dry_run_costs_nothing() {
    let api = Api::new().await;
    api.quota(json!({"hard": {"limits.cpu": "1"}})).await;
    let want = "pods \"p\" is forbidden: failed quota: q: must specify limits.cpu for: a";
    assert_eq!(api.refused(PODS, pod("p")).await, want);
    let fits = asking("p", json!({"limits": {"cpu": "1"}}));
    for _ in 0..2 {
        let path = format!("{PODS}?dryRun=All");
        assert_eq!(api.json(Method::POST, &path, fits.clone()).await.0, 201);
    }
    assert_eq!(api.json(Method::POST, PODS, fits.clone()).await.0, 201);
    let path = format!("{PODS}?dryRun=All");
    let mut more = fits;
    more["metadata"]["name"] = json!("q");
    assert!(api.refused(&path, more).await.contains("exceeded quota"));
}
