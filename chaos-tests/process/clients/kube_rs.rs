//! The crate `kube`: its calls, its runtime, and its watchers as copies.

use super::{
    balancer::Balancer,
    churn::{self, MAPS, PODS},
    copies::Copy,
    stream::NUMBER,
};
use crate::cluster::{SOON, eventually, with_cluster_in};
use api::k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Pod},
    events::v1::Event as Reported,
};
use futures::{StreamExt as _, TryStreamExt as _, future::LocalBoxFuture};
use kube::{
    Api, Client, Config, Discovery, Error, Resource, ResourceExt as _,
    api::{
        AttachParams, DeleteParams, DynamicObject, EvictParams, ListParams, LogParams, Patch,
        PatchParams, PostParams, WatchEvent, WatchParams,
    },
    config::{KubeConfigOptions, Kubeconfig},
    core::{GroupVersionKind, PartialObjectMeta},
    discovery::{Scope, verbs},
    runtime::{
        Controller,
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
        finalizer::{self, finalizer},
        reflector,
        wait::{await_condition, conditions},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::Path,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const NS: &str = "kube-rs";
const WHOLE: Duration = Duration::from_secs(300);
/// Real Pods run.
const NODES: u32 = 1;

async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    Client::try_from(config.unwrap()).unwrap()
}

fn of<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn map(name: &str, data: Value) -> ConfigMap {
    of(json!({"metadata": {"name": name}, "data": data}))
}

/// The refusal that there should be.
fn refused<T: Debug>(result: Result<T, Error>, code: u16, reason: &str) -> kube::core::Status {
    match result {
        Err(Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (code, reason), "{status}");
            *status
        }
        other => panic!("not {code} {reason}: {other:?}"),
    }
}

/// Its watchers as copies of what is churned.
pub(super) async fn copies<'a>(
    kubeconfig: &Path,
    over: &'a CancellationToken,
) -> Vec<(Rc<Copy>, LocalBoxFuture<'a, ()>)> {
    let client = client(kubeconfig).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), churn::NAMESPACE);
    let metadata: Api<PartialObjectMeta<ConfigMap>> =
        Api::namespaced(client.clone(), churn::NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(client, churn::NAMESPACE);
    let new = |who: &str, path| Rc::new(Copy::new(who, path));
    let paged = new("kube-rs, listed in pages", MAPS);
    let streamed = new("kube-rs, listed as a stream", MAPS);
    let partial = new("kube-rs, metadata alone", MAPS);
    let reflected = new("kube-rs, reflected", PODS);
    let config = watcher::Config::default;
    let follow: [LocalBoxFuture<'a, ()>; 4] = [
        Box::pin(watched(Rc::clone(&paged), maps.clone(), config().page_size(3), over)),
        Box::pin(watched(Rc::clone(&streamed), maps, config().streaming_lists(), over)),
        Box::pin(watched(Rc::clone(&partial), metadata, config(), over)),
        Box::pin(watched(Rc::clone(&reflected), pods, config(), over)),
    ];
    [paged, streamed, partial, reflected].into_iter().zip(follow).collect()
}

/// Follows by a watcher that keeps a reflector's store, until `over`; what was told and what is in the store
/// must then be the same.
async fn watched<K>(copy: Rc<Copy>, api: Api<K>, config: watcher::Config, over: &CancellationToken)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let mut events = pin!(reflector::reflector(writer, watcher(api, config)));
    loop {
        let event = tokio::select! {
            event = events.next() => event.expect("a watcher has no end"),
            () = over.cancelled() => break,
        };
        let Ok(event) = event else {
            // It lists or watches again when it is asked the next time.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut ledger = copy.ledger.borrow_mut();
        match event {
            watcher::Event::Init => ledger.list(),
            watcher::Event::InitDone => ledger.end_of_list(0),
            watcher::Event::InitApply(object) => {
                if let Some((name, number, revision)) = seen(&object) {
                    ledger.listed(&name, number, revision);
                }
            }
            watcher::Event::Apply(object) => {
                if let Some((name, number, revision)) = seen(&object) {
                    ledger.applied(&name, number, revision);
                }
            }
            watcher::Event::Delete(object) => {
                if let Some((name, number, revision)) = seen(&object) {
                    ledger.deleted(&name, number, revision);
                }
            }
        }
    }
    let stored: BTreeMap<String, (u64, u64)> = store
        .state()
        .iter()
        .filter_map(|object| seen(&**object))
        .map(|(name, number, revision)| (name, (number, revision)))
        .collect();
    assert_eq!(stored, copy.ledger.borrow().objects);
}

fn seen<K: Resource>(object: &K) -> Option<(String, u64, u64)> {
    let number = object.annotations().get(NUMBER)?.parse().ok()?;
    Some((object.name_any(), number, object.resource_version()?.parse().ok()?))
}

#[test]
fn the_crate_kube_does_what_it_does_elsewhere() {
    // CC-1, CC-4, LST-2, PAT-1, PAT-3, SUB-5, WCH-1, WCH-6
    with_cluster_in(&std::env::temp_dir(), NODES, None, WHOLE, async |cluster| {
        let balancer = Balancer::start(cluster).await;
        let client = client(&balancer.kubeconfig(cluster)).await;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = of(json!({"metadata": {"name": NS}}));
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        Box::pin(typed(&client)).await;
        eprintln!("typed");
        Box::pin(patched(&client)).await;
        eprintln!("patched");
        Box::pin(applied(&client)).await;
        eprintln!("applied");
        Box::pin(listed(&client)).await;
        eprintln!("listed");
        Box::pin(watching(&client)).await;
        eprintln!("watched");
        Box::pin(discovered(&client)).await;
        eprintln!("discovered");
        Box::pin(parts(&client)).await;
        eprintln!("parts");
        Box::pin(reported(&client)).await;
        eprintln!("reported");
        Box::pin(controlled(&client)).await;
        eprintln!("controlled");
        Box::pin(running(&client)).await;
        eprintln!("ran");
    });
}

async fn typed(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NS);
    let post = PostParams::default();
    let made = maps.create(&post, &map("typed", json!({"a": "1"}))).await.unwrap();
    assert_eq!(maps.get("typed").await.unwrap(), made);
    refused(maps.create(&post, &made).await, 400, "BadRequest");
    refused(maps.create(&post, &map("typed", json!({}))).await, 409, "AlreadyExists");
    assert!(maps.get_opt("none").await.unwrap().is_none());
    let status = refused(maps.get("none").await, 404, "NotFound");
    assert_eq!(status.message, "configmaps \"none\" not found");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map("dry", json!({}))).await.unwrap();
    assert!(maps.get_opt("dry").await.unwrap().is_none());

    let mut newer = made.clone();
    newer.data.as_mut().unwrap().insert("a".to_owned(), "2".to_owned());
    let newer = maps.replace("typed", &post, &newer).await.unwrap();
    assert_ne!(newer.resource_version(), made.resource_version());
    refused(maps.replace("typed", &post, &made).await, 409, "Conflict");
    let same = maps.replace("typed", &post, &newer).await.unwrap();
    assert_eq!(same.resource_version(), newer.resource_version(), "nothing changed");

    // Read, changed and written back, or made.
    let mut entry =
        maps.entry("entry").await.unwrap().or_insert(|| map("entry", json!({"a": "1"})));
    entry.commit(&post).await.unwrap();
    let mut entry = maps.entry("entry").await.unwrap().and_modify(|found| {
        found.data.get_or_insert_default().insert("b".to_owned(), "2".to_owned());
    });
    let kube::api::entry::Entry::Occupied(entry) = &mut entry else { panic!("{entry:?}") };
    entry.commit(&post).await.unwrap();
    let data = maps.get("entry").await.unwrap().data.unwrap();
    assert_eq!(
        data.into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned()),]
    );

    let leases: Api<Lease> = Api::namespaced(client.clone(), NS);
    let lease: Lease = of(json!({"metadata": {"name": "held"}, "spec": {
        "holderIdentity": "me", "renewTime": "2026-11-28T12:00:00.123456Z"}}));
    let stored = leases.create(&post, &lease).await.unwrap();
    assert_eq!(stored.spec, lease.spec);

    let deleted = maps.delete("typed", &DeleteParams::default()).await.unwrap();
    assert!(deleted.right().unwrap().is_success());
    refused(maps.delete("typed", &DeleteParams::default()).await, 404, "NotFound");
}

async fn patched(client: &Client) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NS);
    let deployment: Deployment = of(json!({
        "metadata": {"name": "patched"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "p"}},
            "template": {
                "metadata": {"labels": {"app": "p"}},
                "spec": {"containers": [{"name": "main", "image": "toolbox"}]},
            },
        },
    }));
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let second = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "second", "image": "toolbox"}]}}}});
    let names = |found: Deployment| -> Vec<String> {
        let spec = found.spec.unwrap().template.spec.unwrap();
        spec.containers.into_iter().map(|container| container.name).collect()
    };
    let params = PatchParams::default();
    let found = deployments.patch("patched", &params, &Patch::Strategic(&second)).await.unwrap();
    assert_eq!(names(found), ["second", "main"]);
    let found = deployments.patch("patched", &params, &Patch::Merge(&second)).await.unwrap();
    assert_eq!(names(found), ["second"]);
    let operations = json!([
        {"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "third"},
    ]);
    let operations = Patch::Json::<()>(of(operations));
    let found = deployments.patch("patched", &params, &operations).await.unwrap();
    assert_eq!(names(found), ["third"]);
    let wrong = Patch::Json::<()>(of(json!([
        {"op": "test", "path": "/spec/replicas", "value": 9},
    ])));
    refused(deployments.patch("patched", &params, &wrong).await, 422, "Invalid");
    let strict = PatchParams::default().validation_strict();
    let unknown = Patch::Merge(json!({"spec": {"replica": 1}}));
    refused(deployments.patch("patched", &strict, &unknown).await, 400, "BadRequest");
    let meta = PartialObjectMeta::<Deployment> {
        metadata: of(json!({"labels": {"by": "metadata"}})),
        ..Default::default()
    };
    let found = deployments.patch_metadata("patched", &params, &Patch::Merge(&meta)).await.unwrap();
    assert_eq!(found.metadata.labels.unwrap()["by"], "metadata");
}

async fn applied(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NS);
    let apply = async |manager: &str, data: Value, force: bool| {
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data,
        });
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        maps.patch("applied", &params, &Patch::Apply(&body)).await
    };
    let made = apply("one", json!({"a": "1", "b": "1"}), false).await.unwrap();
    let managers = made.metadata.managed_fields.unwrap();
    assert_eq!(managers[0].manager.as_deref(), Some("one"));
    let status = refused(apply("two", json!({"a": "2"}), false).await, 409, "Conflict");
    let cause = status.details.unwrap().causes.remove(0);
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.a"));
    apply("two", json!({"a": "2"}), true).await.unwrap();
    let left = apply("one", json!({"c": "3"}), false).await.unwrap();
    assert_eq!(serde_json::to_value(left.data).unwrap(), json!({"a": "2", "c": "3"}));
}

async fn listed(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NS);
    for i in 0..7 {
        let mut one = map(&format!("listed-{i}"), json!({}));
        one.metadata.labels = of(json!({"listed": "yes"}));
        maps.create(&PostParams::default(), &one).await.unwrap();
    }
    let mut params = ListParams::default().labels("listed=yes").limit(3);
    let mut names = Vec::new();
    loop {
        let page = maps.list(&params).await.unwrap();
        names.extend(page.items.iter().map(kube::ResourceExt::name_any));
        let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) else { break };
        params = params.continue_token(&token);
    }
    assert_eq!(names, [0, 1, 2, 3, 4, 5, 6].map(|i| format!("listed-{i}")));
    let labels = ListParams::default().labels("listed=yes");
    let any = maps.list(&labels.clone().match_any()).await.unwrap();
    assert_eq!(any.items.len(), 7, "one replica is not that far behind another");
    let metadata = maps.list_metadata(&labels).await.unwrap();
    assert_eq!(metadata.items.len(), 7);
    assert!(maps.get_metadata("listed-0").await.unwrap().metadata.uid.is_some());
    let all: Api<ConfigMap> = Api::all(client.clone());
    assert_eq!(all.list(&labels).await.unwrap().items.len(), 7);
    let deleted = maps.delete_collection(&DeleteParams::default(), &labels).await.unwrap();
    assert_eq!(deleted.left().unwrap().items.len(), 7);
    assert_eq!(maps.list(&labels).await.unwrap().items.len(), 0);
}

async fn watching(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NS);
    let mut labelled = map("watched", json!({"a": "0"}));
    labelled.metadata.labels = of(json!({"watched": "yes"}));
    maps.create(&PostParams::default(), &labelled).await.unwrap();
    let mut params = WatchParams::streaming_lists().labels("watched=yes").timeout(20);
    let mut seen = Vec::new();
    let mut version = "0".to_owned();
    // The first as a list, the next from what the first has seen.
    for part in ["1", "2"] {
        let mut events = pin!(maps.watch(&params, &version).await.unwrap());
        let change = json!({"data": {"a": part}});
        maps.patch("watched", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
        loop {
            let event = timeout(SOON, events.try_next()).await.unwrap().unwrap().unwrap();
            let (kind, object) = match event {
                WatchEvent::Added(object) => ("added", object),
                WatchEvent::Modified(object) => ("modified", object),
                WatchEvent::Deleted(object) => ("deleted", object),
                WatchEvent::Bookmark(bookmark) => {
                    let marks = &bookmark.metadata.annotations;
                    assert_eq!(marks["k8s.io/initial-events-end"], "true");
                    continue;
                }
                WatchEvent::Error(status) => panic!("{status}"),
            };
            version = object.resource_version().unwrap();
            let data = object.data.unwrap();
            seen.push(format!("{kind} {}", data["a"]));
            if data["a"] == part {
                break;
            }
        }
        params = WatchParams { send_initial_events: false, ..params };
    }
    // The first change may have been part of the list.
    assert!(
        seen == ["added 0", "modified 1", "modified 2"] || seen == ["added 1", "modified 2"],
        "{seen:?}"
    );
    let params = WatchParams::default().timeout(1);
    let events = maps.watch(&params, &version).await.unwrap();
    let rest: Vec<_> = timeout(SOON, events.try_collect()).await.unwrap().unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

async fn discovered(client: &Client) {
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let plain = Discovery::new(client.clone()).run().await.unwrap();
    let at_once = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    let kinds = |found: &Discovery| -> Vec<String> {
        let groups = found.groups_alphabetical().into_iter();
        groups
            .flat_map(kube::discovery::ApiGroup::recommended_resources)
            .map(|(resource, can)| {
                format!("{} {:?} {:?}", resource.plural, can.scope, can.operations)
            })
            .collect()
    };
    assert_eq!(kinds(&plain), kinds(&at_once));
    let mut listed = 0;
    for group in plain.groups() {
        for (resource, can) in group.recommended_resources() {
            assert!(matches!(can.scope, Scope::Cluster | Scope::Namespaced));
            if can.supports_operation(verbs::LIST) {
                let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
                let list = all.list(&ListParams::default()).await;
                list.unwrap_or_else(|error| panic!("{}: {error}", resource.plural));
                listed += 1;
            }
        }
    }
    assert!(listed >= 30, "{listed}");
    let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
    let (resource, _) = plain.resolve_gvk(&kind).unwrap();
    let (pinned, _) = kube::discovery::pinned_kind(client, &kind).await.unwrap();
    assert_eq!(resource.plural, pinned.plural);
    let deployments: Api<DynamicObject> = Api::namespaced_with(client.clone(), NS, &resource);
    let found = deployments.get("patched").await.unwrap();
    assert_eq!(found.data["spec"]["replicas"], 0);
    assert_eq!(found.types.unwrap().kind, "Deployment");
}

async fn parts(client: &Client) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NS);
    let scale = deployments.get_scale("patched").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(0));
    let params = PatchParams::default();
    let change = Patch::Merge(json!({"spec": {"replicas": 2}}));
    deployments.patch_scale("patched", &params, &change).await.unwrap();
    let found = deployments.get("patched").await.unwrap();
    assert_eq!(found.spec.unwrap().replicas, Some(2));
    let change = Patch::Merge(json!({"spec": {"replicas": 0}}));
    deployments.patch_scale("patched", &params, &change).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), NS);
    let pod: Pod = of(json!({
        "metadata": {"name": "waits"},
        "spec": {
            "nodeSelector": {"nowhere": "at-all"},
            "containers": [{"name": "main", "image": "toolbox"}],
        },
    }));
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let change = Patch::Merge(json!({"status": {"message": "from outside"}}));
    let found = pods.patch_status("waits", &params, &change).await.unwrap();
    assert_eq!(found.status.unwrap().message.as_deref(), Some("from outside"));
    assert!(pods.evict("waits", &EvictParams::default()).await.unwrap().is_success());
    eventually("the Pod is gone", SOON, async || {
        let left = pods.get_opt("waits").await.map_err(|error| error.to_string())?;
        left.map_or(Ok(()), |left| Err(format!("{left:?}")))
    })
    .await;
}

async fn reported(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NS);
    let about = maps.get("applied").await.unwrap();
    let reporter = Reporter { controller: "example.com/tests".to_owned(), instance: None };
    let recorder = Recorder::new(client.clone(), reporter);
    let event = Event {
        type_: EventType::Normal,
        reason: "Looked".to_owned(),
        note: Some("all is well".to_owned()),
        action: "Looking".to_owned(),
        secondary: None,
    };
    for _ in 0..3 {
        recorder.publish(&event, &about.object_ref(&())).await.unwrap();
    }
    let newer: Api<Reported> = Api::namespaced(client.clone(), NS);
    let of_reason = ListParams::default().fields("reason=Looked");
    let found = newer.list(&of_reason).await.unwrap().items;
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(found.note.as_deref(), Some("all is well"));
    assert_eq!(found.regarding.as_ref().unwrap().name.as_deref(), Some("applied"));
    assert_eq!(found.series.as_ref().unwrap().count, 3);
    // And so for whoever knows the older form only.
    let older: Api<api::core::Event> = Api::namespaced(client.clone(), NS);
    let same = older.get(&found.name_any()).await.unwrap();
    assert_eq!(same.message.as_deref(), Some("all is well"));
    assert_eq!(same.involved_object.uid, about.metadata.uid);
    assert_eq!(same.reporting_component.as_deref(), Some("example.com/tests"));
}

/// What a controller works with.
struct Context {
    maps: Api<ConfigMap>,
    cleaned: AtomicU64,
}

/// Keeps a copy of each object, and counts those that it cleaned up behind.
async fn reconcile(
    object: Arc<ConfigMap>,
    context: Arc<Context>,
) -> Result<Action, finalizer::Error<Error>> {
    let maps = context.maps.clone();
    finalizer(&context.maps, "example.com/copied", object, async |event| match event {
        finalizer::Event::Apply(object) => {
            let name = format!("{}-copy", object.name_any());
            let owner = object.controller_owner_ref(&()).unwrap();
            let copy = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "ownerReferences": [owner]},
                "data": object.data,
            });
            maps.patch(&name, &PatchParams::apply("copier").force(), &Patch::Apply(&copy)).await?;
            Ok(Action::requeue(Duration::from_secs(300)))
        }
        finalizer::Event::Cleanup(_) => {
            context.cleaned.fetch_add(1, Ordering::SeqCst);
            Ok(Action::await_change())
        }
    })
    .await
}

async fn controlled(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NS);
    let context = Arc::new(Context { maps: maps.clone(), cleaned: AtomicU64::new(0) });
    let config = watcher::Config::default().labels("controlled=yes");
    let controller = Controller::new(maps.clone(), config)
        .owns(maps.clone(), watcher::Config::default())
        .run(
            |object, context| Box::pin(reconcile(object, context)),
            |_, _, _| Action::requeue(Duration::from_millis(50)),
            Arc::clone(&context),
        )
        .for_each(async |_| {});
    let test = async {
        let mut object = map("original", json!({"a": "1"}));
        object.metadata.labels = of(json!({"controlled": "yes"}));
        maps.create(&PostParams::default(), &object).await.unwrap();
        let copied = |value: &'static str| {
            move |found: Option<&ConfigMap>| {
                let data = found.and_then(|found| found.data.as_ref());
                data.is_some_and(|data| data["a"] == value)
            }
        };
        let waits = async |value: &'static str| {
            let waited = await_condition(maps.clone(), "original-copy", copied(value));
            timeout(SOON, waited).await.expect("it is copied").unwrap();
        };
        waits("1").await;
        let change = Patch::Merge(json!({"data": {"a": "2"}}));
        maps.patch("original", &PatchParams::default(), &change).await.unwrap();
        waits("2").await;
        // What it owns is put right.
        let change = Patch::Merge(json!({"data": {"a": "wrong"}}));
        maps.patch("original-copy", &PatchParams::default(), &change).await.unwrap();
        waits("2").await;
        let found = maps.get("original").await.unwrap();
        assert_eq!(found.finalizers(), ["example.com/copied"]);
        let uid = found.metadata.uid.unwrap();
        maps.delete("original", &DeleteParams::default()).await.unwrap();
        let gone = await_condition(maps.clone(), "original", conditions::is_deleted(&uid));
        timeout(SOON, gone).await.expect("it goes").unwrap();
        assert_eq!(context.cleaned.load(Ordering::SeqCst), 1);
    };
    tokio::select! {
        () = controller => panic!("the controller ends"),
        () = test => {}
    }
}

async fn running(client: &Client) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NS);
    let pod = |name: &str, command: Value, more: Value| -> Pod {
        let mut container = json!({"name": "main", "image": "toolbox", "command": command});
        for (key, value) in more.as_object().unwrap() {
            container[key] = value.clone();
        }
        of(json!({
            "metadata": {"name": name},
            "spec": {
                "containers": [container], "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
            },
        }))
    };
    let serves = json!(["run", "http 127.0.0.1:8080 /tmp", "sleep inf"]);
    let post = PostParams::default();
    pods.create(&post, &pod("runs", serves, json!({}))).await.unwrap();
    let once = json!({"stdin": true, "stdinOnce": true});
    pods.create(&post, &pod("repeats", json!(["cat"]), once)).await.unwrap();
    let lines = json!(["run", "print one", "sleep 0.5", "print two"]);
    pods.create(&post, &pod("talks", lines, json!({}))).await.unwrap();
    for name in ["runs", "repeats"] {
        let running = await_condition(pods.clone(), name, conditions::is_pod_running());
        timeout(SOON * 3, running).await.expect("it runs").unwrap();
    }

    let params = AttachParams::default();
    let mut process = pods.exec("runs", ["run", "print out", "exit 7"], &params).await.unwrap();
    let status = process.take_status().unwrap();
    let mut text = String::new();
    process.stdout().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "out\n");
    let status = timeout(SOON, status).await.unwrap().unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");
    process.join().await.unwrap();

    let large = vec![b'x'; 300_000];
    let params = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods.exec("runs", ["cat"], &params).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    let mut back = Vec::new();
    let write = async {
        stdin.write_all(&large).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let (_, read) = timeout(SOON, async { tokio::join!(write, stdout.read_to_end(&mut back)) })
        .await
        .expect("the end of what goes in is the end of what comes out");
    read.unwrap();
    assert!(back == large, "{} bytes", back.len());
    drop(process);

    let mut attached = pods.attach("repeats", &params).await.unwrap();
    let (mut stdin, mut stdout) = (attached.stdin().unwrap(), attached.stdout().unwrap());
    stdin.write_all(b"over here\n").await.unwrap();
    let mut line = [0; 10];
    timeout(SOON, stdout.read_exact(&mut line)).await.unwrap().unwrap();
    assert_eq!(&line, b"over here\n");
    stdin.shutdown().await.unwrap();
    let ended = |pod: Option<&Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref());
        status.is_some_and(|status| status.phase.as_deref() == Some("Succeeded"))
    };
    timeout(SOON, await_condition(pods.clone(), "repeats", ended)).await.unwrap().unwrap();

    let mut ports = pods.portforward("runs", &[8080, 8099]).await.unwrap();
    let mut open = ports.take_stream(8080).unwrap();
    open.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    timeout(SOON, open.read_exact(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.0 "), "{}", String::from_utf8_lossy(&answer));
    let why = timeout(SOON, ports.take_error(8099).unwrap()).await.unwrap().unwrap();
    assert!(why.contains("8099"), "{why}");
    drop((open, ports));

    use futures::AsyncBufReadExt as _;
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream("talks", &follow).await.unwrap().lines();
    let mut seen = Vec::new();
    while let Some(line) = timeout(SOON, lines.try_next()).await.unwrap().unwrap() {
        seen.push(line);
    }
    assert_eq!(seen, ["one", "two"]);
    let last = LogParams { tail_lines: Some(1), ..LogParams::default() };
    assert_eq!(pods.logs("talks", &last).await.unwrap(), "two\n");
    let previous = LogParams { previous: true, ..LogParams::default() };
    refused(pods.logs("talks", &previous).await, 400, "BadRequest");
    pods.delete("runs", &DeleteParams::default()).await.unwrap();
}
