//! `explain-pending` and `why-terminating`: why a Pod does not run, and why an object does not go.
//!
//! What is told is a function of objects and the time; only this file asks anybody for them, with what the
//! caller may read. Whether a node would take a Pod is asked of the scheduler's own filters.

mod absent;
mod facts;
mod pending;
mod report;
mod terminating;

use crate::{
    failure::Failure,
    target::{self, Target},
};
use api::{
    kinds::{self, Kind},
    meta,
};
use client::ClientError;
use facts::{at, items};
use http::Method;
use report::Report;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

/// Objects in one answer: a list comes in pages of this many.
const PAGE: &str = "500";

/// What makes Pods.
const WORKLOADS: &[&str] = &[
    "replicasets",
    "deployments",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
    "replicationcontrollers",
];

/// Asks the API, and keeps what it would not tell.
struct Asker<'a> {
    target: &'a Target,
    unknown: Vec<String>,
}

impl Asker<'_> {
    async fn call(&self, path: &str) -> Result<Value, ClientError> {
        self.target.client.call::<Value>(Method::GET, path, None).await
    }

    /// One object; `None` if it is not there.
    async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ClientError> {
        match self.call(&self.target.path(kind, namespace, name)).await {
            Ok(object) => Ok(Some(object)),
            Err(ClientError::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a kind, page by page.
    async fn list(
        &self,
        kind: &Kind,
        namespace: &str,
        fields: &str,
    ) -> Result<Vec<Value>, ClientError> {
        self.select(kind, namespace, fields, "").await
    }

    /// The same by labels, too.
    async fn select(
        &self,
        kind: &Kind,
        namespace: &str,
        fields: &str,
        labels: &str,
    ) -> Result<Vec<Value>, ClientError> {
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let query = client::encode(&[
                ("limit", PAGE),
                ("continue", &next),
                ("fieldSelector", fields),
                ("labelSelector", labels),
            ]);
            let path = format!("{}{query}", self.target.path(kind, namespace, ""));
            let page = self.call(&path).await?;
            all.extend_from_slice(items(&page, "/items"));
            at(&page, "/metadata/continue").clone_into(&mut next);
            if next.is_empty() {
                return Ok(all);
            }
        }
    }

    /// What is good to know, and can be done without: that it was refused is told.
    fn unless_refused<T: Default>(
        &mut self,
        what: &str,
        found: Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        match found {
            Err(ClientError::Api(status)) => {
                self.unknown.push(format!("{what}: {}", status.message));
                Ok(T::default())
            }
            found => found,
        }
    }

    /// Events about one incarnation of an object.
    async fn events(&mut self, kind: &Kind, object: &Value) -> Result<Vec<Value>, ClientError> {
        let namespace = if kind.namespaced { meta::namespace(object) } else { "default" };
        let (name, uid) = (meta::name(object), meta::uid(object));
        let about = format!("involvedObject.name={name},involvedObject.uid={uid}");
        let found = self.list(served("events"), namespace, &about).await;
        self.unless_refused("events", found)
    }
}

fn served(alias: &str) -> &'static Kind {
    kinds::by_alias(alias).expect("a built-in kind is served")
}

fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "a command line shows ages by its own clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Prints a report as it is asked for.
fn print(report: &Report, output: &str) -> Result<(), Failure> {
    match output {
        "" => print!("{}", report.text()),
        "json" => {
            let text = serde_json::to_string_pretty(&report.to_json());
            println!("{}", text.map_err(crate::get::unreadable)?);
        }
        other => return Err(Failure::Input(format!("-o {other}: there is json"))),
    }
    Ok(())
}

/// Several reports, a line each; as JSON, all of them.
fn print_all(reports: &[Report], none: &str, verb: &str, output: &str) -> Result<(), Failure> {
    match output {
        "" if reports.is_empty() => println!("{none}"),
        "" => print!("{}", report::overview(reports, verb)),
        "json" => {
            let all: Vec<Value> = reports.iter().map(Report::to_json).collect();
            println!("{}", serde_json::to_string_pretty(&all).map_err(crate::get::unreadable)?);
        }
        other => return Err(Failure::Input(format!("-o {other}: there is json"))),
    }
    Ok(())
}

/// `explain-pending` without a Pod: all that do not run.
pub(crate) async fn all_pending(target: &Target, all: bool, output: &str) -> Result<(), Failure> {
    let reports = reports_pending(target, all, now()).await?;
    print_all(&reports, "every Pod runs, has ended or is going", "explain-pending", output)
}

async fn reports_pending(target: &Target, all: bool, now: i64) -> Result<Vec<Report>, Failure> {
    let mut asker = Asker { target, unknown: Vec::new() };
    let pods = served("pods");
    let namespace = if all { "" } else { target.namespace.as_str() };
    let found = asker.list(pods, namespace, "").await?;
    reports_of(&mut asker, found, now).await
}

/// The Pods of something that makes Pods; if it has none, why.
async fn reports_of_workload(
    target: &Target,
    kind: &'static Kind,
    name: &str,
    now: i64,
) -> Result<Vec<Report>, Failure> {
    let mut asker = Asker { target, unknown: Vec::new() };
    let singular = kind.singular;
    let path = target.path(kind, &target.namespace, name);
    let workload = asker.call(&path).await?;
    let Some(labels) = selector(&workload) else {
        return Err(Failure::Input(format!("{singular}/{name} selects no Pods by their labels")));
    };
    let found = asker.select(served("pods"), &target.namespace, "", &labels).await?;
    if found.is_empty() {
        return Ok(vec![report_absent(asker, name, now).await?]);
    }
    reports_of(&mut asker, found, now).await
}

/// What an object's `spec.selector` says, as a query has it.
fn selector(workload: &Value) -> Option<String> {
    let selector = workload.pointer("/spec/selector")?;
    let plain = selector.get("matchLabels").or_else(|| {
        // A ReplicationController's is the labels themselves.
        selector.get("matchExpressions").is_none().then_some(selector)
    });
    let labels = plain.and_then(Value::as_object).into_iter().flatten();
    let mut parts: Vec<String> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in items(selector, "/matchExpressions") {
        let key = at(expression, "/key");
        let values: Vec<&str> =
            items(expression, "/values").iter().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match at(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

async fn reports_of(
    asker: &mut Asker<'_>,
    found: Vec<Value>,
    now: i64,
) -> Result<Vec<Report>, Failure> {
    let waiting: Vec<Value> = found.into_iter().filter(|pod| waits(pod, now)).collect();
    let surroundings = match waiting.iter().any(|pod| !api::pod::is_bound(pod)) {
        true => Some(Surroundings::of(asker).await?),
        false => None,
    };
    let mut reports = Vec::new();
    for pod in waiting {
        reports.push(report_of_pod(asker, pod, surroundings.as_ref(), now).await?);
    }
    Ok(reports)
}

/// Neither ready, nor ended well, nor on its way out.
fn waits(pod: &Value, now: i64) -> bool {
    let (ready, status, _) = api::pod::summary(pod, now);
    let all_ready = ready.split_once('/').is_some_and(|(ready, all)| ready == all);
    !meta::is_terminating(pod)
        && at(pod, "/status/phase") != "Succeeded"
        && !(all_ready && status == "Running")
}

/// `why-terminating` without an object: all that are on their way out.
pub(crate) async fn all_terminating(
    target: &Target,
    all: bool,
    output: &str,
) -> Result<(), Failure> {
    let reports = reports_terminating(target, all, now()).await?;
    print_all(&reports, "nothing is being deleted", "why-terminating", output)
}

async fn reports_terminating(target: &Target, all: bool, now: i64) -> Result<Vec<Report>, Failure> {
    let mut asker = Asker { target, unknown: Vec::new() };
    let namespace = if all { "" } else { target.namespace.as_str() };
    let mut found = everything(&mut asker, namespace, meta::is_terminating).await?;
    if !all {
        let home = asker.get(served("namespaces"), "", namespace).await;
        let home = asker.unless_refused("the namespace", home)?.filter(meta::is_terminating);
        found.extend(home.map(|home| (served("namespaces"), home)));
    }
    let mut reports = Vec::new();
    for (kind, object) in found {
        reports.push(report_of_object(&mut asker, kind, object, now).await?);
    }
    Ok(reports)
}

/// `explain-pending`
pub(crate) async fn pending(target: &Target, pod: &str, output: &str) -> Result<(), Failure> {
    let name = match pod.split_once('/') {
        None => pod,
        Some((kind, name)) if target::kind(kind)?.kind == "Pod" => name,
        Some((kind, name)) => {
            let kind = target::kind(kind)?;
            let reports = reports_of_workload(target, kind, name, now()).await?;
            let none = format!("every Pod of {pod} runs, has ended or is going");
            return print_all(&reports, &none, "explain-pending", output);
        }
    };
    print(&report_pending(target, name, now()).await?, output)
}

/// `why-terminating`
pub(crate) async fn terminating(
    target: &Target,
    object: &str,
    output: &str,
) -> Result<(), Failure> {
    let (kind, name) = target::named_or(object, "pods")?;
    print(&report_terminating(target, kind, name, now()).await?, output)
}

async fn report_pending(target: &Target, name: &str, now: i64) -> Result<Report, Failure> {
    let mut asker = Asker { target, unknown: Vec::new() };
    let pods = served("pods");
    let Some(pod) = asker.get(pods, &target.namespace, name).await? else {
        return report_absent(asker, name, now).await;
    };
    let surroundings = match api::pod::is_bound(&pod) {
        true => None,
        false => Some(Surroundings::of(&asker).await?),
    };
    report_of_pod(&mut asker, pod, surroundings.as_ref(), now).await
}

/// What decides where a Pod goes.
#[derive(Debug, Clone)]
struct Surroundings {
    nodes: Vec<Value>,
    pods: Vec<Value>,
}

impl Surroundings {
    async fn of(asker: &Asker<'_>) -> Result<Self, ClientError> {
        let nodes = asker.list(served("nodes"), "", "").await?;
        Ok(Self { nodes, pods: asker.list(served("pods"), "", "").await? })
    }
}

async fn report_of_pod(
    asker: &mut Asker<'_>,
    pod: Value,
    surroundings: Option<&Surroundings>,
    now: i64,
) -> Result<Report, Failure> {
    let mut facts = pending::Facts { now, ..pending::Facts::default() };
    facts.events = asker.events(served("pods"), &pod).await?;
    match (at(&pod, "/spec/nodeName"), surroundings) {
        ("", Some(Surroundings { nodes, pods })) => {
            facts.nodes.clone_from(nodes);
            facts.pods.clone_from(pods);
        }
        ("", None) => {}
        (node, _) => {
            let found = asker.get(served("nodes"), "", node).await;
            facts.node_refused = matches!(&found, Err(ClientError::Api(_)));
            facts.nodes = asker.unless_refused("its node", found)?.into_iter().collect();
        }
    }
    facts.missing = missing(asker, &pod).await?;
    facts.pod = pod;
    facts.unknown = std::mem::take(&mut asker.unknown);
    Ok(pending::explain(&facts))
}

async fn report_absent(mut asker: Asker<'_>, name: &str, now: i64) -> Result<Report, Failure> {
    let target = asker.target;
    let namespace = target.namespace.as_str();
    let path = format!("{}?history=true", target.path(served("pods"), namespace, name));
    let history = match asker.call(&path).await {
        Ok(history) => history,
        Err(ClientError::Api(status)) if status.is_not_found() => Value::Null,
        Err(error) => return Err(error.into()),
    };
    let mut workloads = Vec::new();
    for kind in WORKLOADS.iter().map(|alias| served(alias)) {
        let found = asker.list(kind, namespace, "").await;
        let found = asker.unless_refused(kind.plural, found)?;
        workloads.extend(found.into_iter().map(|object| (kind, object)));
    }
    let quotas = asker.list(served("resourcequotas"), namespace, "").await;
    let quotas = asker.unless_refused("quotas", quotas)?;
    let events = asker.list(served("events"), namespace, "").await;
    let events = asker.unless_refused("events", events)?;
    let home = asker.get(served("namespaces"), "", namespace).await;
    let home = asker.unless_refused("the namespace", home)?.unwrap_or_default();
    Ok(absent::explain(&absent::Facts {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        history,
        workloads,
        quotas,
        events,
        home,
        unknown: asker.unknown,
        now,
    }))
}

/// Something in another object that a Pod cannot do without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Need {
    alias: &'static str,
    name: String,
    /// One key of it.
    key: String,
    /// What of the Pod needs it.
    by: String,
}

/// What the Pod refers to and does not call optional.
fn needs(pod: &Value) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut need = |alias, source: &Value, name: &str, key: &str, by: String| {
        let optional = source.get("optional") == Some(&Value::Bool(true));
        if !optional && !name.is_empty() {
            needs.push(Need { alias, name: name.to_owned(), key: key.to_owned(), by });
        }
    };
    for volume in items(pod, "/spec/volumes") {
        let by = format!("volume {}", at(volume, "/name"));
        let projected = items(volume, "/projected/sources").iter();
        for source in std::iter::once(volume).chain(projected) {
            for (alias, field, name) in [
                ("configmaps", "configMap", "/name"),
                ("secrets", "secret", "/secretName"),
                ("secrets", "secret", "/name"),
                ("persistentvolumeclaims", "persistentVolumeClaim", "/claimName"),
            ] {
                let Some(found) = source.get(field) else { continue };
                need(alias, found, at(found, name), "", by.clone());
                for item in items(found, "/items") {
                    need(alias, found, at(found, name), at(item, "/key"), by.clone());
                }
            }
        }
    }
    let containers =
        items(pod, "/spec/initContainers").iter().chain(items(pod, "/spec/containers"));
    for container in containers {
        let by = format!("container {}", at(container, "/name"));
        for source in items(container, "/envFrom") {
            for (alias, field) in [("configmaps", "configMapRef"), ("secrets", "secretRef")] {
                if let Some(found) = source.get(field) {
                    need(alias, found, at(found, "/name"), "", by.clone());
                }
            }
        }
        for variable in items(container, "/env") {
            for (alias, field) in [("configmaps", "configMapKeyRef"), ("secrets", "secretKeyRef")] {
                if let Some(found) = variable.get("valueFrom").and_then(|from| from.get(field)) {
                    let by = format!("{by}, variable {}", at(variable, "/name"));
                    need(alias, found, at(found, "/name"), at(found, "/key"), by);
                }
            }
        }
    }
    for secret in items(pod, "/spec/imagePullSecrets") {
        need("secrets", secret, at(secret, "/name"), "", "pulling images".to_owned());
    }
    needs.sort();
    needs.dedup();
    needs
}

/// A line for each that is not there.
async fn missing(asker: &mut Asker<'_>, pod: &Value) -> Result<Vec<String>, ClientError> {
    let mut seen: BTreeMap<(&str, String), Option<Value>> = BTreeMap::new();
    let mut lines = Vec::new();
    for Need { alias, name, key, by } in needs(pod) {
        let Some(kind) = kinds::by_alias(alias) else {
            lines.push(format!(
                "PersistentVolumeClaim {name}, which {by} needs: there is no such kind here"
            ));
            continue;
        };
        let about = format!("{} {name}", kind.kind);
        let known = (alias, name.clone());
        if !seen.contains_key(&known) {
            let found = asker.get(kind, meta::namespace(pod), &name).await;
            let refused = matches!(&found, Err(ClientError::Api(_)));
            let found = asker.unless_refused(&about, found)?;
            // What may not be looked at is not said to be missing.
            seen.insert(known.clone(), if refused { Some(Value::Null) } else { found });
        }
        let there = |key: &str, object: &Value| {
            let mut lists = ["data", "binaryData"].into_iter();
            object.is_null()
                || key.is_empty()
                || lists.any(|list| object.get(list).is_some_and(|data| data.get(key).is_some()))
        };
        match seen.get(&known) {
            Some(Some(object)) if there(&key, object) => {}
            Some(Some(_)) => lines.push(format!("{about} has no key {key}, which {by} needs")),
            Some(None) | None => lines.push(format!("{about} is not there, which {by} needs")),
        }
    }
    // That a whole object is missing says that its keys are.
    lines.dedup();
    Ok(lines)
}

async fn report_terminating(
    target: &Target,
    kind: &'static Kind,
    name: &str,
    now: i64,
) -> Result<Report, Failure> {
    let mut asker = Asker { target, unknown: Vec::new() };
    let namespace = if kind.namespaced { target.namespace.as_str() } else { "" };
    let Some(object) = asker.get(kind, namespace, name).await? else {
        return Err(Failure::Refused(gone(&asker, kind, name).await));
    };
    if !meta::is_terminating(&object) {
        let mut text = format!("{}/{name} is not being deleted", kind.singular);
        if kind.kind == "Pod" && api::pod::summary(&object, now).1 != "Running" {
            text.push_str(&format!("; if it does not run: trireme explain-pending {name}"));
        }
        return Err(Failure::Refused(text));
    }
    report_of_object(&mut asker, kind, object, now).await
}

async fn report_of_object(
    asker: &mut Asker<'_>,
    kind: &'static Kind,
    object: Value,
    now: i64,
) -> Result<Report, Failure> {
    let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
    let mut facts = terminating::Facts { now, ..terminating::Facts::default() };
    facts.events = asker.events(kind, &object).await?;
    let node = at(&object, "/spec/nodeName");
    if kind.kind == "Pod" && !node.is_empty() {
        let found = asker.get(served("nodes"), "", node).await;
        let refused = matches!(&found, Err(ClientError::Api(_)));
        let found = asker.unless_refused("its node", found)?;
        // Not known is not the same as not there.
        facts.node =
            found.unwrap_or(if refused { Value::Object(Default::default()) } else { Value::Null });
        let lease = asker.get(served("leases"), "kube-node-lease", node).await;
        facts.heard = match lease {
            Ok(lease) => Some(lease.is_some()),
            refused => {
                asker.unless_refused("its node's lease", refused)?;
                None
            }
        };
    }
    let finalizers = meta::finalizers(&object);
    let waits = [api::deletion::FOREGROUND, api::deletion::ORPHAN];
    if finalizers.iter().any(|finalizer| waits.contains(&finalizer.as_str())) {
        let uid = meta::uid(&object).to_owned();
        let owned = move |dependent: &Value| {
            meta::owner_references(dependent).iter().any(|owner| at(owner, "/uid") == uid)
        };
        facts.dependents = everything(asker, &namespace, owned).await?;
    }
    if kind.kind == "Namespace" {
        // Events go with the namespace and hold nothing.
        facts.content = everything(asker, &name, |_| true).await?;
    }
    facts.object = object;
    facts.unknown = std::mem::take(&mut asker.unknown);
    Ok(terminating::explain(kind, &facts))
}

/// Objects of all kinds in a namespace, or everywhere.
async fn everything(
    asker: &mut Asker<'_>,
    namespace: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Vec<(&'static Kind, Value)>, ClientError> {
    let mut all = Vec::new();
    for kind in kinds::all().iter().filter(|kind| namespace.is_empty() || kind.namespaced) {
        if kind.kind == "Event" {
            continue;
        }
        let found = asker.list(kind, namespace, "").await;
        let found = asker.unless_refused(kind.plural, found)?;
        all.extend(found.into_iter().filter(&wanted).map(|object| (kind, object)));
    }
    Ok(all)
}

/// What is known of an object that is not there any more.
async fn gone(asker: &Asker<'_>, kind: &Kind, name: &str) -> String {
    let target = asker.target;
    let namespace = if kind.namespaced { target.namespace.as_str() } else { "" };
    let path = format!("{}?history=true&limit=1", target.path(kind, namespace, name));
    let object = format!("{}/{name}", kind.singular);
    match asker.call(&path).await {
        Ok(history) => match items(&history, "/versions").last() {
            Some(last) => {
                let when = at(last, "/time");
                let when = if when.is_empty() { String::new() } else { format!(" at {when}") };
                format!("{object} is gone: it went with revision {}{when}", at(last, "/revision"))
            }
            None => format!("{object} is not there"),
        },
        Err(ClientError::Api(status)) => status.message,
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
