//! Why a Pod does not run, as a function of what the API shows.

use super::{
    facts::{ago, at, condition, exit_code, items, not_ready, time_at, warnings},
    report::{NodeWhy, Report},
};
use api::{
    core::{Node, Pod, Taint},
    meta,
    pod::{is_bound, is_terminal, is_terminating},
    quantity::{Format, Quantity},
    table::duration,
};
use scheduler::explain::{Change, Refusal, Remedy, World, written};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// After this long a Pod that fits somewhere should have been given to a node.
const SCHEDULED_SECONDS: i64 = 15;
/// After this long the node should have said something about a Pod that was given to it.
const SAID_SECONDS: i64 = 30;

/// What there is to know of a Pod and its surroundings.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) pod: Value,
    /// All, for a Pod that is on none; else its own, if it is there.
    pub(super) nodes: Vec<Value>,
    /// All of the cluster, for a Pod on no node.
    pub(super) pods: Vec<Value>,
    /// Its node could not be looked at, so that it is not known to be gone.
    pub(super) node_refused: bool,
    pub(super) events: Vec<Value>,
    /// What the Pod refers to that is not there.
    pub(super) missing: Vec<String>,
    pub(super) unknown: Vec<String>,
    /// In seconds since the Unix epoch.
    pub(super) now: i64,
}

pub(super) fn explain(facts: &Facts) -> Report {
    let pod = &facts.pod;
    let mut report = Report {
        object: format!("pod/{}", meta::name(pod)),
        namespace: meta::namespace(pod).to_owned(),
        events: warnings(&facts.events, facts.now),
        unknown: facts.unknown.clone(),
        ..Report::default()
    };
    if is_terminating(pod) {
        report.state = "Terminating";
        "it is being deleted".clone_into(&mut report.summary);
        let command = format!("trireme why-terminating {}{}", meta::name(pod), option(&report));
        report.advise("see what its end waits for", [command]);
    } else if is_terminal(pod) {
        ended(facts, &mut report);
    } else if is_bound(pod) {
        bound(facts, &mut report);
    } else {
        unbound(facts, &mut report);
    }
    report
}

/// For commands: in which namespace.
fn option(report: &Report) -> String {
    match report.namespace.as_str() {
        "default" | "" => String::new(),
        namespace => format!(" -n {namespace}"),
    }
}

fn ended(facts: &Facts, report: &mut Report) {
    let pod = &facts.pod;
    if at(pod, "/status/phase") == "Succeeded" {
        report.state = "Succeeded";
        "it has ended well, and is not started again".clone_into(&mut report.summary);
    } else {
        report.state = "Failed";
        let reason = match (at(pod, "/status/reason"), at(pod, "/status/message")) {
            ("", "") => "it has failed".to_owned(),
            (reason, "") => format!("it has failed: {reason}"),
            ("", message) => format!("it has failed: {message}"),
            (reason, message) => format!("it has failed: {reason}: {message}"),
        };
        report.summary = format!("{reason}. A Pod that has failed is not started again");
        if at(pod, "/status/reason").starts_with("OutOf") {
            let node = at(pod, "/spec/nodeName");
            let text =
                format!("leave the choice of the node to the scheduler: {node} has no room for it");
            report.advise(text, Vec::<String>::new());
        }
    }
    for container in containers(pod) {
        if let Some(end) = container.status.pointer("/state/terminated") {
            report.because(container.about(), end_of(end, facts.now));
        }
    }
    if meta::controller(pod).is_none() {
        let name = meta::name(pod);
        let command = format!("trireme delete pod {name}{}", option(report));
        report.advise("make room for a new one of that name", [command]);
    }
}

fn typed<T: DeserializeOwned + Default>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap_or_default()
}

fn world(facts: &Facts) -> World {
    let nodes = facts.nodes.iter().map(typed::<Node>);
    World::new(nodes, facts.pods.iter().map(typed::<Pod>))
}

fn unbound(facts: &Facts, report: &mut Report) {
    let pod = &facts.pod;
    let age = meta::creation_time(pod).map_or(0, |then| facts.now - then);
    let waits = format!("Pending for {}", duration(age.max(0)));
    let scheduler = at(pod, "/spec/schedulerName");
    let gates = items(pod, "/spec/schedulingGates");
    let asked: Pod = typed(pod);
    if !gates.is_empty() {
        report.state = "Gated";
        report.summary =
            format!("{waits}: held back by {}", counted(gates.len(), "scheduling gate"));
        for gate in gates {
            let name = at(gate, "/name");
            report.because(format!("gate {name}"), "whoever set it has to take it off");
        }
        let mut open = asked;
        if let Some(spec) = &mut open.spec {
            spec.scheduling_gates = None;
        }
        let text = match scheduler::schedule(&world(facts).cache(), &open) {
            Ok(node) => format!("it would go to {node} at once"),
            Err(error) => error.message(),
        };
        report.because("without the gates", text);
        missing(facts, report);
        return;
    }
    if !scheduler::is_mine(&asked) {
        report.state = "OtherScheduler";
        report.summary =
            format!("{waits}: it asks for the scheduler {scheduler}, which is no part of Trireme");
        report.because(
            format!("scheduler {scheduler}"),
            "has to be run by somebody, and gives it a node",
        );
        let text = "make it again without spec.schedulerName, for Trireme's own scheduler";
        report.advise(text, Vec::<String>::new());
        return;
    }
    if facts.nodes.is_empty() {
        report.state = "NoNodes";
        report.summary = format!("{waits}: there is no node in the cluster");
        report.advise("start one", ["trireme kubelet --config FILE"]);
        return;
    }
    let world = world(facts);
    match scheduler::schedule(&world.cache(), &asked) {
        Ok(node) => {
            report.state = "Schedulable";
            report.summary = format!("{waits}: {node} would take it");
            let said = condition(pod, "PodScheduled").map_or("", |c| at(c, "/message"));
            if !said.is_empty() {
                report.because("when last tried", said);
            }
            let text = "tries again within 10 s of a change of a node or a Pod, and every 5 min";
            report.because("scheduler", text);
            if age > SCHEDULED_SECONDS {
                let text =
                    "if this lasts: see whether a replica leads, for only that one schedules";
                report.advise(text, ["trireme cluster status"]);
            }
        }
        Err(_) => refused(facts, &world, &asked, report, &waits),
    }
    missing(facts, report);
}

fn refused(facts: &Facts, world: &World, asked: &Pod, report: &mut Report, waits: &str) {
    let verdicts = world.verdicts(asked);
    report.state = "Unschedulable";
    report.summary = match verdicts.len() {
        1 => format!("{waits}: the only node does not take it"),
        nodes => format!("{waits}: none of {nodes} nodes takes it"),
    };
    let object = |name: &str| facts.nodes.iter().find(|node| meta::name(node) == name);
    for verdict in &verdicts {
        let node = object(&verdict.node).unwrap_or(&Value::Null);
        let silent = not_ready(node, facts.now);
        let mut reasons: Vec<String> =
            verdict.refusals.iter().map(|refusal| against(refusal, world)).collect();
        if let Some(silent) = silent {
            reasons.insert(0, silent);
        }
        report.nodes.push(NodeWhy { node: verdict.node.clone(), reasons });
    }
    for Remedy { changes, nodes, alike } in world.remedies(asked, &verdicts) {
        let texts: Vec<String> = changes.iter().map(|change| to_do(change, world)).collect();
        let mut then = match nodes.as_slice() {
            [] => String::new(),
            [node] => format!(" → {node} takes it"),
            nodes => format!(" → {} take it", several(nodes)),
        };
        if !alike.is_empty() {
            then.push_str(&format!("; the same would do on {}", several(&alike)));
        }
        let commands = changes.iter().filter_map(|change| command(change, world));
        report.advise(format!("{}{then}", texts.join(", and ")), commands);
    }
    if report.help.is_empty() {
        let text = "nothing that changes one node or a few fields of the Pod";
        report.advise(text, Vec::<String>::new());
    }
}

/// Names, or how many there are from where to where.
fn several(names: &[String]) -> String {
    match names {
        [first, .., last] if names.len() > 3 => {
            format!("{} nodes ({first} to {last})", names.len())
        }
        names => names.join(", "),
    }
}

fn missing(facts: &Facts, report: &mut Report) {
    for text in &facts.missing {
        report.because("once on a node", text.clone());
    }
}

/// An amount for people: `500m`, `1.5Gi`.
fn amount(resource: &str, amount: i64) -> String {
    const MEBI: i64 = 1 << 20;
    const GIBI: i64 = 1 << 30;
    let exact = written(resource, amount);
    if resource == "cpu" || exact.len() <= 6 || amount < MEBI {
        return exact;
    }
    // Down, so that nobody is promised more than there is.
    if amount >= 10 * GIBI {
        let tenths = amount / (GIBI / 10);
        return format!("{}.{}Gi", tenths / 10, tenths % 10);
    }
    Quantity::units(amount / MEBI * MEBI, Format::Binary).to_string()
}

fn taint_text(taint: &Taint) -> String {
    let value = taint.value.as_deref().filter(|value| !value.is_empty());
    let value = value.map_or_else(String::new, |value| format!("={value}"));
    format!("{}{value}:{}", taint.key, taint.effect)
}

fn pod_text(world: &World, uid: &str) -> String {
    let name = |pod: &Pod| {
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        format!(
            "{}/{}",
            namespace.as_deref().unwrap_or_default(),
            name.as_deref().unwrap_or_default()
        )
    };
    world.pod(uid).map_or_else(|| uid.to_owned(), name)
}

fn against(refusal: &Refusal, world: &World) -> String {
    match refusal {
        Refusal::Cordoned => "cordoned: it takes no new Pods".to_owned(),
        Refusal::OtherNode(name) => format!("the Pod asks for node {name}"),
        Refusal::Taint(taint) => format!("taint {} is not tolerated", taint_text(taint)),
        Refusal::Selector { key, wanted, found: Some(found) } => {
            format!("nodeSelector wants {key}={wanted}, the node has {key}={found}")
        }
        Refusal::Selector { key, wanted, found: None } => {
            format!("nodeSelector wants {key}={wanted}, the node has no such label")
        }
        Refusal::Affinity(terms) if terms.is_empty() => {
            "node affinity asks for one of no terms, which no node is".to_owned()
        }
        Refusal::Affinity(terms) => format!("node affinity asks for {}", terms.join(", or ")),
        Refusal::Port { protocol, number, holders } => {
            let names: Vec<String> = holders.iter().map(|uid| pod_text(world, uid)).collect();
            format!("host port {protocol}/{number} is held by {}", names.join(", "))
        }
        Refusal::Pods { now, most } => format!("pods: it has {now}, and takes {most} at most"),
        Refusal::Room { resource, asked, left: _, total } if total == &0 => {
            format!("{resource}: asks for {}, the node has none", amount(resource, *asked))
        }
        Refusal::Room { resource, asked, left, total } => {
            let too_small = if asked > total { ": more than the whole node" } else { "" };
            let of = |value: i64| amount(resource, value);
            let free = (*left).max(0);
            format!(
                "{resource}: asks for {}, {} of {} free{too_small}",
                of(*asked),
                of(free),
                of(*total)
            )
        }
    }
}

fn to_do(change: &Change, world: &World) -> String {
    match change {
        Change::Lower { container, resource, from, to } => {
            let whose = match container.as_str() {
                "" => "the Pod".to_owned(),
                name => format!("container {name}"),
            };
            let by = amount(resource, from - to);
            let (from, to) = (amount(resource, *from), written(resource, *to));
            format!("lower the {resource} request of {whose} by {by}, from {from} to {to}")
        }
        Change::Tolerate(taint) => format!("tolerate {}", taint_text(taint)),
        Change::Unselect(key) => format!("take {key} out of the Pod's nodeSelector"),
        Change::DropAffinity => "take the required node affinity out of the Pod".to_owned(),
        Change::Uncordon(node) => format!("uncordon {node}"),
        Change::Untaint(node, taint) => format!("take the taint {} off {node}", taint_text(taint)),
        Change::Heal(node, taint) => {
            let what = taint.key.rsplit('/').next().unwrap_or_default();
            match what {
                "unreachable" | "not-ready" => format!("bring {node} back, which is {what}"),
                pressure => format!("relieve {node} of its {pressure}"),
            }
        }
        Change::Label { node, key, value } => format!("label {node} with {key}={value}"),
        Change::Remove(uid) => {
            let asks = world.pod(uid).map(api::resources::pod_requests).unwrap_or_default();
            let asks = asks.iter().filter(|(_, value)| **value > 0);
            let asks: Vec<String> =
                asks.map(|(name, value)| format!("{} {name}", amount(name, *value))).collect();
            let asks =
                if asks.is_empty() { String::new() } else { format!(" ({})", asks.join(", ")) };
            format!("make room by deleting {}{asks}", pod_text(world, uid))
        }
        Change::Add(node) => {
            let amounts = world.node(node).and_then(|n| n.status.as_ref());
            let amounts = api::resources::amounts(amounts.and_then(|s| s.allocatable.as_ref()));
            let of = |name: &str| amounts.get(name).map(|value| amount(name, *value));
            let size: Vec<String> = ["cpu", "memory"]
                .into_iter()
                .filter_map(|name| Some(format!("{} {name}", of(name)?)))
                .collect();
            format!("add a node like {node} ({})", size.join(", "))
        }
    }
}

/// What to type, where one command does it.
fn command(change: &Change, world: &World) -> Option<String> {
    match change {
        Change::Uncordon(node) => Some(format!("kubectl uncordon {node}")),
        Change::Untaint(node, taint) => {
            Some(format!("kubectl taint node {node} {}:{}-", taint.key, taint.effect))
        }
        Change::Label { node, key, value } => {
            Some(format!("kubectl label node {node} {key}={value} --overwrite"))
        }
        Change::Remove(uid) => {
            let pod = world.pod(uid)?;
            let (namespace, name) =
                (pod.metadata.namespace.as_deref()?, pod.metadata.name.as_deref()?);
            Some(format!("trireme delete pod {name} -n {namespace}"))
        }
        Change::Heal(node, _) => Some(format!("trireme describe node {node}")),
        Change::Lower { .. }
        | Change::Tolerate(_)
        | Change::Unselect(_)
        | Change::DropAffinity
        | Change::Add(_) => None,
    }
}

pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A container with what its node says of it.
struct Container<'a> {
    /// Its number among the init containers, from 1, and how many there are.
    init: Option<(usize, usize)>,
    sidecar: bool,
    spec: &'a Value,
    status: &'a Value,
}

impl Container<'_> {
    fn name(&self) -> &str {
        at(self.spec, "/name")
    }

    fn about(&self) -> String {
        match self.init {
            Some(_) if self.sidecar => format!("sidecar {}", self.name()),
            Some((number, all)) => format!("init container {} ({number} of {all})", self.name()),
            None => format!("container {}", self.name()),
        }
    }

    fn is_done(&self) -> bool {
        let exit = self.status.pointer("/state/terminated/exitCode").and_then(Value::as_i64);
        self.init.is_some() && !self.sidecar && exit == Some(0)
    }
}

fn containers(pod: &Value) -> Vec<Container<'_>> {
    let statuses = |list: &str| items(pod, &format!("/status/{list}"));
    let find = |list: &str, spec: &Value| {
        let mut all = statuses(list).iter();
        all.find(|status| at(status, "/name") == at(spec, "/name")).unwrap_or(&Value::Null)
    };
    let inits = items(pod, "/spec/initContainers");
    let first = (1..).zip(inits).map(|(number, spec)| Container {
        init: Some((number, inits.len())),
        sidecar: at(spec, "/restartPolicy") == "Always",
        spec,
        status: find("initContainerStatuses", spec),
    });
    let mains = items(pod, "/spec/containers").iter().map(|spec| Container {
        init: None,
        sidecar: false,
        spec,
        status: find("containerStatuses", spec),
    });
    first.chain(mains).collect()
}

fn bound(facts: &Facts, report: &mut Report) {
    let pod = &facts.pod;
    let name = at(pod, "/spec/nodeName").to_owned();
    let found = facts.nodes.first();
    if found.is_none() && !facts.node_refused {
        report.state = "NodeGone";
        report.summary = format!("its node {name} does not exist");
        report.because(format!("node {name}"), "the Pod is removed 40 s after its node has gone");
        return;
    }
    let node = found.unwrap_or(&Value::Null);
    if let Some(silent) = not_ready(node, facts.now) {
        report.state = "NodeNotReady";
        report.summary = format!("its node {name} {silent}");
        report.because(format!("node {name}"), evicted_at(pod, node, facts.now));
        let text = format!("bring {name} back, and see what it says of itself");
        report.advise(text, [format!("trireme describe node {name}")]);
    }
    let all = containers(pod);
    let said = all.iter().any(|container| !container.status.is_null());
    if !said {
        let since = condition(pod, "PodScheduled").and_then(|c| time_at(c, "/lastTransitionTime"));
        let since = since.or_else(|| meta::creation_time(pod)).map_or(0, |then| facts.now - then);
        if report.state.is_empty() {
            report.state = "NotStarted";
            report.summary =
                format!("given to {name}, which has said nothing of it for {}", duration(since));
            if since > SAID_SECONDS {
                let text = format!("see whether the agent of {name} runs and reaches a replica");
                report.advise(text, [format!("trireme describe node {name}")]);
            }
        }
        missing(facts, report);
        return;
    }
    // What does not get its turn before another is done has nothing to say for itself.
    let mut held = None;
    for container in &all {
        if container.is_done() {
            continue;
        }
        if held.is_none() {
            judge(container, facts, report, &name);
        }
        if container.init.is_some() && !container.sidecar {
            held = Some(container.about());
            break;
        }
    }
    if let Some(held) = held {
        let waiting = all.iter().filter(|c| c.init.is_none()).count();
        let text = format!("{} do not start before it is done", counted(waiting, "container"));
        let text = if waiting == 1 { text.replace("do not", "does not") } else { text };
        report.because(held, text);
    }
    gates(pod, report);
    missing_now(facts, report);
    if report.state.is_empty() {
        report.state = "Running";
        report.summary = match at(pod, "/status/phase") {
            "Running" => format!("it runs on {name}, and every container is ready"),
            phase => format!("it is on {name}, in phase {phase}, and nothing is in its way"),
        };
    }
}

/// Says what the report is about, unless something more important has been found.
fn name_it(report: &mut Report, state: &'static str, summary: String) {
    if report.state.is_empty() {
        report.state = state;
        report.summary = summary;
    }
}

fn missing_now(facts: &Facts, report: &mut Report) {
    for text in &facts.missing {
        report.because("refers to", text.clone());
    }
}

/// When the Pod is taken off a node that is not heard.
fn evicted_at(pod: &Value, node: &Value, now: i64) -> String {
    let typed_node: Node = typed(node);
    let asked: Pod = typed(pod);
    let taints = api::scheduling::taints(&typed_node);
    let evicts: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == "NoExecute").collect();
    let tolerations = asked.spec.as_ref().map(api::scheduling::tolerations).unwrap_or_default();
    let began = items(node, "/spec/taints")
        .iter()
        .filter(|taint| at(taint, "/effect") == "NoExecute")
        .filter_map(|taint| time_at(taint, "/timeAdded"))
        .min();
    if evicts.is_empty() {
        return "its Pods stay for now: they are not being evicted".to_owned();
    }
    match (api::scheduling::stay(taints, tolerations), began) {
        (api::scheduling::Stay::None, _) => "the Pod is being evicted from it".to_owned(),
        (api::scheduling::Stay::Forever, _) => {
            "the Pod tolerates that for good: nobody takes it elsewhere".to_owned()
        }
        (api::scheduling::Stay::Seconds(seconds), None) => {
            format!("the Pod is evicted after {}", duration(seconds))
        }
        (api::scheduling::Stay::Seconds(seconds), Some(began)) => {
            let left = began.saturating_add(seconds) - now;
            format!("the Pod is evicted in {}", duration(left.max(0)))
        }
    }
}

fn end_of(end: &Value, now: i64) -> String {
    let code = end.get("exitCode").and_then(Value::as_i64).unwrap_or_default();
    let reason = at(end, "/reason");
    let when = ago(time_at(end, "/finishedAt"), now);
    let meaning = exit_code(code, reason);
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason}: {meaning})") };
    let message = match at(end, "/message").trim() {
        "" => String::new(),
        message => format!(", saying: {message}"),
    };
    format!("ended with exit code {code}{reason}{when}{message}")
}

/// What one container is waiting for, and what that makes of the Pod.
fn judge(container: &Container<'_>, facts: &Facts, report: &mut Report, node: &str) {
    let (about, status) = (container.about(), container.status);
    let option = option(report);
    let logs = |previous: &str| {
        let pod = meta::name(&facts.pod);
        format!("trireme logs {pod} -c {}{previous}{option}", container.name())
    };
    let last = status.pointer("/lastState/terminated").filter(|end| !end.is_null());
    let restarts = status.get("restartCount").and_then(Value::as_u64).unwrap_or_default();
    if let Some(waiting) = status.pointer("/state/waiting").filter(|s| !s.is_null()) {
        let (reason, message) = (at(waiting, "/reason"), at(waiting, "/message"));
        let said = if message.is_empty() { reason.to_owned() } else { message.to_owned() };
        match reason {
            "CrashLoopBackOff" => {
                name_it(report, "CrashLoop", format!("{about} ends again and again on {node}"));
                if let Some(last) = last {
                    report.because(
                        &about,
                        format!(
                            "{}; {} so far",
                            end_of(last, facts.now),
                            counted(usize::try_from(restarts).unwrap_or(usize::MAX), "restart")
                        ),
                    );
                }
                report.because(&about, next_start(message, last, facts.now));
                report.advise("read what it said before it ended", [logs(" --previous")]);
            }
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull"
            | "ImageInspectError" => {
                let image = at(container.spec, "/image");
                name_it(report, "ImagePull", format!("{node} has not the image {image}"));
                report.because(&about, said);
                let text = match reason {
                    "ErrImageNeverPull" => {
                        "bring the image to the node, or set imagePullPolicy to IfNotPresent"
                    }
                    "InvalidImageName" => "correct the image's name",
                    _ => "check the image's name and tag, and that the node reaches the registry",
                };
                report.advise(text, Vec::<String>::new());
            }
            "CreateContainerConfigError" => {
                name_it(report, "ConfigError", format!("{about} cannot be made from its spec"));
                report.because(&about, said);
            }
            "CreateContainerError" | "RunContainerError" | "StartError" => {
                name_it(report, "CreateError", format!("{about} could not be started on {node}"));
                report.because(&about, said);
            }
            "ContainerCreating" | "PodInitializing" | "" => {
                name_it(report, "Creating", format!("{node} is preparing it"));
                report.because(&about, "is being made: its image, its volumes, its network");
            }
            _ => {
                name_it(report, "Waiting", format!("{about} waits on {node}: {reason}"));
                report.because(&about, said);
            }
        }
    } else if let Some(end) = status.pointer("/state/terminated").filter(|s| !s.is_null()) {
        let policy = match at(&facts.pod, "/spec/restartPolicy") {
            "" => "Always",
            policy => policy,
        };
        name_it(report, "Ended", format!("{about} has ended"));
        let again = match policy {
            "Never" => "; restartPolicy Never: it is not started again",
            "OnFailure" if end.get("exitCode") == Some(&0.into()) => {
                "; restartPolicy OnFailure: it is not started again"
            }
            _ => "; it is about to be started again",
        };
        report.because(&about, format!("{}{again}", end_of(end, facts.now)));
        report.advise("read what it said", [logs("")]);
    } else if status.pointer("/state/running").is_some_and(|s| !s.is_null()) {
        running(container, facts, report, &logs(""));
        if let (Some(last), true) = (last, restarts > 0) {
            let ready = status.get("ready") == Some(&Value::Bool(true));
            if !ready {
                report.because(&about, format!("before that it {}", end_of(last, facts.now)));
            }
        }
    } else {
        name_it(report, "Creating", format!("{node} is preparing it"));
        report.because(&about, "nothing is said of it yet");
    }
}

fn running(container: &Container<'_>, facts: &Facts, report: &mut Report, logs: &str) {
    let about = container.about();
    let status = container.status;
    let is = |field: &str| status.get(field) == Some(&Value::Bool(true));
    let probe = |field: &str| container.spec.get(field).is_some_and(|p| !p.is_null());
    let since = time_at(status, "/state/running/startedAt");
    let since =
        since.map_or_else(String::new, |then| format!(" for {}", duration(facts.now - then)));
    let field = format!("{{{}}}", container.name());
    let failed = facts.events.iter().rfind(|event| {
        at(event, "/reason") == "Unhealthy"
            && at(event, "/involvedObject/fieldPath").ends_with(&field)
    });
    let failed = failed.map_or_else(String::new, |event| format!(": {}", at(event, "/message")));
    if container.init.is_some() && !container.sidecar {
        name_it(report, "Initializing", format!("{about} is still at work"));
        report.because(&about, format!("runs{since}, and has to end with exit code 0"));
        report.advise("read what it does", [logs.to_owned()]);
    } else if !is("started") {
        name_it(report, "Starting", format!("{about} runs and does not count as started"));
        let what = if probe("startupProbe") {
            format!("runs{since}; its startup probe has not succeeded{failed}")
        } else {
            format!("runs{since}; its postStart hook has not ended")
        };
        report.because(&about, what);
        report.advise("read what it says", [logs.to_owned()]);
    } else if !is("ready") {
        name_it(report, "NotReady", format!("{about} runs and is not ready"));
        let what = if probe("readinessProbe") {
            format!("runs{since}; its readiness probe does not succeed{failed}")
        } else {
            format!("runs{since}, and is not said to be ready{failed}")
        };
        report.because(&about, what);
        report.advise("read what it says", [logs.to_owned()]);
    }
}

/// When a container that keeps ending is started again.
fn next_start(message: &str, last: Option<&Value>, now: i64) -> String {
    let back_off = message.strip_prefix("back-off ").and_then(|rest| rest.split(' ').next());
    let seconds = back_off.and_then(|text| match meta_ago(text) {
        Some(seconds) if seconds > 0 => Some(seconds),
        Some(_) | None => None,
    });
    let ended = last.and_then(|end| time_at(end, "/finishedAt"));
    match (seconds, ended) {
        (Some(seconds), Some(ended)) => {
            let left = ended + seconds - now;
            let when = if left > 0 { format!("in {}", duration(left)) } else { "now".to_owned() };
            format!("next start {when} (back-off {})", duration(seconds))
        }
        (Some(seconds), None) => format!("next start within {}", duration(seconds)),
        (None, _) => "its next start is held back, longer each time, up to 5 min".to_owned(),
    }
}

/// Seconds of a duration as the node writes it, such as `1m20s`.
fn meta_ago(text: &str) -> Option<i64> {
    match api::past::When::parse(text) {
        Ok(api::past::When::Ago(seconds)) => Some(seconds),
        Ok(api::past::When::Revision(_) | api::past::When::Time(_)) | Err(_) => None,
    }
}

fn gates(pod: &Value, report: &mut Report) {
    for gate in items(pod, "/spec/readinessGates") {
        let kind = at(gate, "/conditionType");
        let status = condition(pod, kind).map_or("", |c| at(c, "/status"));
        if status != "True" {
            name_it(report, "ReadinessGate", format!("the readiness gate {kind} is not open"));
            let is = if status.is_empty() { "is not there" } else { "is not True" };
            report.because(
                format!("readiness gate {kind}"),
                format!("the condition {kind} {is}: who owns it has to set it"),
            );
        }
    }
}
