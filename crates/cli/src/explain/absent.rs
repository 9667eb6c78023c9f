//! Why a Pod is not there at all, as a function of what the API shows of those who might make it.

use super::{
    facts::{ago, at, condition, items, time_at},
    report::Report,
};
use api::{kinds::Kind, meta, resources};
use serde_json::Value;
use std::collections::BTreeMap;

/// What there is to know of a Pod that is not there.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The history that the API keeps of that name, if any.
    pub(super) history: Value,
    /// What makes Pods in the namespace.
    pub(super) workloads: Vec<(&'static Kind, Value)>,
    pub(super) quotas: Vec<Value>,
    /// Of the namespace.
    pub(super) events: Vec<Value>,
    /// The namespace itself, unless it is not there.
    pub(super) home: Value,
    pub(super) unknown: Vec<String>,
    pub(super) now: i64,
}

pub(super) fn explain(facts: &Facts) -> Report {
    let mut report = Report {
        object: format!("pod/{}", facts.name),
        namespace: facts.namespace.clone(),
        state: "NotFound",
        summary: "there is no such Pod".to_owned(),
        unknown: facts.unknown.clone(),
        ..Report::default()
    };
    let option = match facts.namespace.as_str() {
        "default" | "" => String::new(),
        namespace => format!(" -n {namespace}"),
    };
    if facts.home.is_null() {
        report.summary = format!("there is no namespace {}", facts.namespace);
        return report;
    }
    if meta::is_terminating(&facts.home) {
        let text = "is being deleted: nothing can be created in it";
        report.because(format!("namespace {}", facts.namespace), text);
        let command = format!("trireme why-terminating namespace/{}", facts.namespace);
        report.advise("see what it waits for", [command]);
    }
    let gone =
        items(&facts.history, "/versions").iter().rfind(|v| v.get("deleted") == Some(&true.into()));
    if let Some(gone) = gone {
        let when = ago(time_at(gone, "/time"), facts.now);
        report.state = "Deleted";
        report.summary = format!("it was deleted{when}, with revision {}", at(gone, "/revision"));
        let history = format!("trireme history pod/{}{option}", facts.name);
        report.advise("see what happened to it", [history]);
        let undelete = format!("trireme undelete pod/{}{option}", facts.name);
        report.advise("make it again as it was", [undelete]);
    }
    for (kind, workload) in &facts.workloads {
        let name = meta::name(workload);
        // A Pod's name begins with that of what made it.
        let related = facts.name == name || facts.name.starts_with(&format!("{name}-"));
        if !related {
            continue;
        }
        let about = format!("{}/{name}", kind.singular);
        let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_i64);
        let wants = number("/spec/replicas").or_else(|| number("/status/desiredNumberScheduled"));
        let has = number("/status/replicas").or_else(|| number("/status/currentNumberScheduled"));
        if let Some(wants) = wants {
            let has = has.unwrap_or_default();
            report.because(&about, format!("wants {wants} Pods and has {has}"));
        }
        for bad in ["ReplicaFailure", "Failed", "FailureTarget", "Suspended"] {
            if let Some(said) = condition(workload, bad).filter(|c| at(c, "/status") == "True") {
                let text = format!("{bad}: {}", at(said, "/message"));
                report.because(&about, text);
                report.state = "NotCreated";
                report.summary = format!("there is no such Pod: {about} could not make it");
            }
        }
        let of_it = facts.events.iter().filter(|event| {
            at(event, "/involvedObject/name") == name
                && at(event, "/involvedObject/kind") == kind.kind
                && at(event, "/type") == "Warning"
        });
        if let Some(last) = of_it.max_by_key(|event| time_at(event, "/lastTimestamp")) {
            let when = ago(time_at(last, "/lastTimestamp"), facts.now);
            report.because(
                &about,
                format!("{}{when}: {}", at(last, "/reason"), at(last, "/message")),
            );
        }
    }
    for quota in &facts.quotas {
        for text in used_up(quota) {
            report.because(format!("resourcequota/{}", meta::name(quota)), text);
        }
    }
    if report.why.is_empty() && gone.is_none() {
        let text = "nothing in it makes a Pod of that name, and none was there lately";
        report.because(format!("namespace {}", facts.namespace), text);
        report.advise("look for it", ["trireme get pods -A"]);
    }
    report
}

/// What of a quota nothing is left of.
fn used_up(quota: &Value) -> Vec<String> {
    let amounts = |pointer: &str| {
        let list: BTreeMap<String, api::core::QuantityText> = quota
            .pointer(pointer)
            .and_then(|value| serde_json::from_value(value.clone()).ok())
            .unwrap_or_default();
        list
    };
    let (hard, used) = (amounts("/status/hard"), amounts("/status/used"));
    let full = hard.iter().filter_map(|(name, most)| {
        let now = used.get(name)?;
        let of = |text| resources::amount(name.rsplit('.').next().unwrap_or(name), text);
        (of(now) >= of(most)).then(|| format!("{name} is used up: {} of {}", now.0, most.0))
    });
    full.collect()
}
