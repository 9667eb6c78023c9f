//! Why an object that is being deleted is still there, as a function of what the API shows.

use super::{
    facts::{at, condition, finalizer_manager, items, not_ready, remover, warnings},
    pending::counted,
    report::Report,
};
use api::{
    deletion::{FOREGROUND, ORPHAN},
    kinds::Kind,
    meta,
    pod::{is_bound, is_terminal},
    table::duration,
};
use serde_json::Value;

/// After the end of a grace, a node may need this long to end and report everything (DEL-20 and the way back).
const SLACK_SECONDS: i64 = 10;
/// Names in one line.
const NAMED: usize = 6;

/// What there is to know of an object on its way out.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) object: Value,
    /// Of a Pod: its node, unless there is none.
    pub(super) node: Value,
    /// Whether the node has a Lease, which it has as long as it is heard; `None` if nobody could look.
    pub(super) heard: Option<bool>,
    /// What names the object as its owner: kind and object.
    pub(super) dependents: Vec<(&'static Kind, Value)>,
    /// Of a namespace: what is in it.
    pub(super) content: Vec<(&'static Kind, Value)>,
    pub(super) events: Vec<Value>,
    pub(super) unknown: Vec<String>,
    /// In seconds since the Unix epoch.
    pub(super) now: i64,
}

pub(super) fn explain(kind: &Kind, facts: &Facts) -> Report {
    let object = &facts.object;
    let mut report = Report {
        object: format!("{}/{}", kind.singular, meta::name(object)),
        namespace: meta::namespace(object).to_owned(),
        events: warnings(&facts.events, facts.now),
        unknown: facts.unknown.clone(),
        ..Report::default()
    };
    let since = begun(object).map_or(0, |then| (facts.now - then).max(0));
    let since = format!("terminating for {}", duration(since));
    if kind.kind == "Pod" {
        pod(facts, &mut report, &since);
    }
    if kind.kind == "Namespace" {
        content(facts, &mut report, &since);
    }
    finalizers(kind, facts, &mut report, &since);
    if report.state.is_empty() {
        // Nothing that the API shows holds it.
        report.state = "Finishing";
        report.summary = format!("{since}, and nothing holds it: it is about to go");
    }
    report
}

/// When its deletion was asked for.
fn begun(object: &Value) -> Option<i64> {
    let grace = meta::deletion_grace_seconds(object).unwrap_or_default();
    Some(meta::deletion_time(object)?.saturating_sub(grace.max(0)))
}

fn name_it(report: &mut Report, state: &'static str, summary: String) {
    if report.state.is_empty() {
        report.state = state;
        report.summary = summary;
    }
}

/// For commands: in which namespace.
fn option(report: &Report) -> String {
    match report.namespace.as_str() {
        "default" | "" => String::new(),
        namespace => format!(" -n {namespace}"),
    }
}

fn pod(facts: &Facts, report: &mut Report, since: &str) {
    let (pod, now) = (&facts.object, facts.now);
    if !is_bound(pod) {
        // Only its finalizers can hold it.
        return;
    }
    let node = at(pod, "/spec/nodeName").to_owned();
    let force = format!("trireme delete pod {} --force{}", meta::name(pod), option(report));
    if facts.node.is_null() {
        let summary = format!("{since}, and its node {node} does not exist");
        name_it(report, "NodeGone", summary);
        report.because(format!("node {node}"), "the Pod is removed 40 s after its node has gone");
        report.advise("do not wait for that", [force]);
        return;
    }
    let silent = not_ready(&facts.node, now).or_else(|| {
        (facts.heard == Some(false)).then(|| "has no lease: its agent is not heard".to_owned())
    });
    let heard = silent.is_none();
    if let Some(silent) = silent {
        name_it(report, "NodeNotReady", format!("{since}, and its node {node} {silent}"));
        let text = "only its agent can say that the containers have ended";
        report.because(format!("node {node}"), text);
        report.advise(
            format!("bring {node} back: its agent goes on where it was"),
            [format!("trireme describe node {node}")],
        );
        report.advise(
            format!(
                "if {node} is off for certain: say so, and all of its Pods that wait are removed"
            ),
            [format!(
                "kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
            )],
        );
        let text = format!("remove only this one; what it runs on {node} may go on running");
        report.advise(text, [force.clone()]);
    }
    let deadline = meta::deletion_time(pod).unwrap_or(now);
    let grace = meta::deletion_grace_seconds(pod).unwrap_or_default();
    let left = deadline - now;
    let alive = alive(pod);
    if alive.is_empty() && (is_terminal(pod) || said_anything(pod)) {
        if meta::finalizers(pod).is_empty() {
            let summary = format!("{since}: its containers have ended, {node} is clearing up");
            name_it(report, "Clearing", summary);
            if -left > SLACK_SECONDS {
                let text = format!("should be over for {}", duration(-left));
                report.because(format!("node {node}"), text);
                report.advise(
                    "see what keeps the agent from clearing up (mounts, cgroups)",
                    [format!("trireme describe node {node}")],
                );
                report.advise("remove it from the API all the same", [force]);
            } else {
                let text = "takes volumes and network down and says so";
                report.because(format!("node {node}"), text);
            }
        }
        return;
    }
    let until = match left {
        0.. => format!("in {}", duration(left)),
        _ => format!("{} ago", duration(-left)),
    };
    if left >= 0 {
        let summary =
            format!("{since}: {} left of the {} that it has", duration(left), duration(grace));
        name_it(report, "Grace", summary);
    } else if -left <= SLACK_SECONDS {
        let summary = format!("{since}: its time is over, its containers are being killed");
        name_it(report, "Killing", summary);
    } else {
        let over = duration(-left);
        let summary =
            format!("{since}: its time has been over for {over}, and {node} has not ended it");
        name_it(report, "Overdue", summary);
        if heard {
            let text =
                "see what its agent says: a process that KILL does not end hangs in the kernel";
            report.advise(text, [format!("trireme describe node {node}")]);
            let text = format!("remove it from the API; what it runs on {node} may go on running");
            report.advise(text, [force]);
        }
    }
    for container in &alive {
        let about = format!("{} {}", container.role, container.name);
        let hooked = container.has_pre_stop && left > 0;
        let failed = facts.events.iter().any(|event| {
            at(event, "/reason") == "FailedPreStopHook"
                && at(event, "/involvedObject/fieldPath")
                    .contains(&format!("{{{}}}", container.name))
        });
        let text = match (hooked, failed, container.role) {
            _ if !heard => format!("ran when {node} was last heard"),
            (true, true, _) => {
                format!("its preStop hook has failed; it has TERM, and KILL {until}")
            }
            (true, false, _) => {
                format!("its preStop hook may run; TERM follows it, and KILL {until}")
            }
            (false, _, "sidecar") if left > 0 => {
                format!("gets TERM when all others have ended, and KILL {until}")
            }
            (false, ..) if left > 0 => format!("has TERM and has not ended yet; KILL {until}"),
            (false, ..) => format!("still runs, as far as {node} has said; KILL was due {until}"),
        };
        report.because(about, text);
    }
    if alive.is_empty() {
        report.because(format!("node {node}"), "has said nothing of its containers");
    }
    if heard && left > SLACK_SECONDS {
        let shorter = format!("trireme delete pod {} --now{}", meta::name(pod), option(report));
        report.advise("do not let it take its time", [shorter]);
    }
}

/// A container that runs, as far as its node has said.
struct Alive<'a> {
    name: &'a str,
    role: &'static str,
    has_pre_stop: bool,
}

fn said_anything(pod: &Value) -> bool {
    !items(pod, "/status/containerStatuses").is_empty()
}

fn alive(pod: &Value) -> Vec<Alive<'_>> {
    let lists = [
        ("initContainerStatuses", "/spec/initContainers", "init container"),
        ("containerStatuses", "/spec/containers", "container"),
    ];
    let mut alive = Vec::new();
    for (statuses, specs, role) in lists {
        for status in items(pod, &format!("/status/{statuses}")) {
            if status.pointer("/state/running").is_none_or(Value::is_null) {
                continue;
            }
            let name = at(status, "/name");
            let spec = items(pod, specs).iter().find(|spec| at(spec, "/name") == name);
            let spec = spec.unwrap_or(&Value::Null);
            let role = if at(spec, "/restartPolicy") == "Always" { "sidecar" } else { role };
            let hook = spec.pointer("/lifecycle/preStop");
            alive.push(Alive { name, role, has_pre_stop: hook.is_some_and(|h| !h.is_null()) });
        }
    }
    alive
}

fn content(facts: &Facts, report: &mut Report, since: &str) {
    let mut kinds: Vec<&'static Kind> = Vec::new();
    for (kind, _) in &facts.content {
        if !kinds.iter().any(|known| known.resource() == kind.resource()) {
            kinds.push(kind);
        }
    }
    let namespace = meta::name(&facts.object).to_owned();
    if !kinds.is_empty() {
        let objects = counted(facts.content.len(), "object");
        let summary = format!(
            "{since}, and {objects} in it {} left",
            if facts.content.len() == 1 { "is" } else { "are" }
        );
        name_it(report, "Content", summary);
    }
    for kind in kinds {
        let of = facts.content.iter().filter(|(own, _)| own.resource() == kind.resource());
        let objects: Vec<&Value> = of.map(|(_, object)| object).collect();
        let about = match objects.len() {
            1 => format!("1 {}", kind.singular),
            count => format!("{count} {}", kind.plural),
        };
        report.because(about, listed(kind, &objects, facts.now));
        let stuck = objects.iter().find(|object| meta::is_terminating(object));
        if let Some(stuck) = stuck {
            let name = meta::name(stuck);
            let command =
                format!("trireme why-terminating {}/{name} -n {namespace}", kind.singular);
            report.advise("see what holds what is in it", [command]);
        }
    }
    // What the namespace's own controller has said.
    for kind in [
        "NamespaceDeletionDiscoveryFailure",
        "NamespaceDeletionGroupVersionParsingFailure",
        "NamespaceDeletionContentFailure",
        "NamespaceContentRemaining",
    ] {
        if let Some(said) = condition(&facts.object, kind).filter(|c| at(c, "/status") == "True") {
            report.because("namespace controller", at(said, "/message"));
        }
    }
    let waits = items(&facts.object, "/spec/finalizers");
    // Kinds that a definition made are not looked at here; the controller does.
    let remains = condition(&facts.object, "NamespaceContentRemaining")
        .is_some_and(|said| at(said, "/status") == "True");
    if facts.content.is_empty() && !remains && waits.iter().any(|f| f == "kubernetes") {
        let summary = format!("{since}, and it is empty: its controller has to say so");
        name_it(report, "Empty", summary);
        let text = "takes the finalizer kubernetes off when it has looked again";
        report.because("namespace controller", text);
        report.advise("if this lasts: see whether a replica leads", ["trireme cluster status"]);
    }
    for other in waits.iter().filter_map(Value::as_str).filter(|f| *f != "kubernetes") {
        name_it(report, "Finalizers", format!("{since}: it waits for a finalizer"));
        report.because(
            format!("finalizer {other}"),
            "of its spec: who put it there has to take it off",
        );
    }
}

/// Objects with what holds them; what holds all of them is said once.
fn listed(kind: &Kind, objects: &[&Value], now: i64) -> String {
    let held: Vec<String> = objects.iter().map(|object| held(kind, object, now)).collect();
    let more = objects.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let same = held.first().filter(|first| held.iter().all(|other| other == *first));
    let shown = objects.iter().zip(&held).take(NAMED);
    let names: Vec<String> = match same {
        Some(_) => shown.map(|(object, _)| meta::name(object).to_owned()).collect(),
        None => shown.map(|(object, held)| format!("{} ({held})", meta::name(object))).collect(),
    };
    let same = same.map_or_else(String::new, |held| format!(" ({held})"));
    format!("{}{more}{same}", names.join(", "))
}

/// In short what holds an object that is to go.
fn held(kind: &Kind, object: &Value, now: i64) -> String {
    if !meta::is_terminating(object) {
        return "not asked to go yet".to_owned();
    }
    let finalizers = meta::finalizers(object);
    if !finalizers.is_empty() {
        return format!("finalizer {}", finalizers.join(", "));
    }
    let left = meta::deletion_time(object).unwrap_or(now) - now;
    match (kind.graceful, left) {
        (true, 0..) => format!("grace: {} left", duration(left)),
        (true, _) => format!("grace over for {}", duration(-left)),
        (false, _) => "going".to_owned(),
    }
}

fn finalizers(kind: &Kind, facts: &Facts, report: &mut Report, since: &str) {
    let object = &facts.object;
    let list = meta::finalizers(object);
    if list.is_empty() {
        return;
    }
    let uid = meta::uid(object);
    let blocks = |dependent: &Value| {
        let mut owners = meta::owner_references(dependent).iter();
        owners.any(|o| at(o, "/uid") == uid && o.get("blockOwnerDeletion") == Some(&true.into()))
    };
    for finalizer in &list {
        let about = format!("finalizer {finalizer}");
        if finalizer == FOREGROUND {
            let blocking: Vec<_> = facts.dependents.iter().filter(|(_, d)| blocks(d)).collect();
            let summary = match blocking.len() {
                0 => format!("{since}: it waits for the garbage collector"),
                count => format!("{since}: it waits for {}", counted(count, "dependent")),
            };
            name_it(report, "Dependents", summary);
            report.because(about, remover(finalizer));
            let many = blocking.len().saturating_sub(NAMED);
            for (kind, dependent) in blocking.into_iter().take(NAMED) {
                let about = format!("dependent {}/{}", kind.singular, meta::name(dependent));
                report.because(about, held(kind, dependent, facts.now));
                if meta::is_terminating(dependent) {
                    let name = meta::name(dependent);
                    let command = format!(
                        "trireme why-terminating {}/{name}{}",
                        kind.singular,
                        option(report)
                    );
                    report.advise("see what holds the dependents", [command]);
                }
            }
            if many > 0 {
                report.because("dependents", format!("and {many} more"));
            }
            let free = facts.dependents.iter().filter(|(_, d)| !blocks(d)).count();
            if free > 0 {
                let text = if free == 1 { "goes afterwards" } else { "go afterwards" };
                report.because(format!("{} more", counted(free, "dependent")), text);
            }
            continue;
        }
        if finalizer == ORPHAN {
            let count = facts.dependents.len();
            let summary = format!(
                "{since}: {} {} let go first",
                counted(count, "dependent"),
                if count == 1 { "is" } else { "are" }
            );
            name_it(report, "Orphaning", summary);
            report.because(about, remover(finalizer));
            continue;
        }
        name_it(
            report,
            "Finalizers",
            format!("{since}: it waits for {}", counted(list.len(), "finalizer")),
        );
        let known = remover(finalizer);
        let text = match (known, finalizer_manager(object, finalizer)) {
            ("", None) => {
                let owner = finalizer.split('/').next().unwrap_or_default();
                format!("whoever owns {owner} has to take it off; who put it there is not recorded")
            }
            ("", Some(manager)) => format!("{manager} put it there, and has to take it off"),
            (known, _) => known.to_owned(),
        };
        report.because(about, text);
        if known.is_empty() {
            report.advise(
                "see whether the program that owns the finalizer runs",
                Vec::<String>::new(),
            );
            let name = meta::name(object);
            let command = format!(
                "kubectl patch {} {name}{} --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'",
                kind.resource(),
                option(report),
            );
            let text = "if it never will again: take the finalizers off by hand, which skips what they are for";
            report.advise(text, [command]);
        }
    }
}
