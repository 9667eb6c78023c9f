//! Every verb of the real `kubectl`, every version of it that is on this machine, and the README's table of
//! which do what they should.

use crate::{
    cluster::{SOON, Said, with_cluster_in},
    kubectl::{Kubectl, installed},
    readme,
};
use std::{fmt::Write as _, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::timeout,
};

/// For all versions.
const WHOLE: Duration = Duration::from_secs(1200);

/// The versions of the README's table; on a machine with others, no row may fail either.
const README_HEAD: &str = "| verb | 1.27 | 1.28 | 1.29 | 1.30 | 1.31 | 1.32 | 1.33 | 1.36 | 1.37 |";

/// One command of a row. `{ns}` is this version's namespace, `{t}` its tag; words are split at spaces, but not
/// between single quotes.
enum Step {
    /// Ends well, and says all of this.
    Says(&'static str, &'static [&'static str]),
    /// The same, with standard input.
    Told(&'static str, &'static str, &'static [&'static str]),
    /// Ends with 1, and says this.
    Fails(&'static str, &'static str),
    /// The same, with standard input.
    FailsTold(&'static str, &'static str, &'static str),
    /// Ends well with this editor, and says this.
    Edits(&'static str, &'static str, &'static str),
    /// Goes on until it has said the first, then another command is run, and then until it says the last.
    Watches(&'static str, &'static str, &'static str, &'static str),
}

use Step::{Edits, Fails, FailsTold, Says, Told, Watches};

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: toolbox, command: [run, print ready, sleep inf], ports: [{containerPort: 80}]}
";
const POD_RELABELED: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web, more: 'yes'}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: toolbox, command: [run, print ready, sleep inf], ports: [{containerPort: 80}]}
";
const WRONG: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: wrong, lables: {}}
dat: {a: b}
";
const CONFIG: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: applied}
data: {a: one}
";
const CONFIG_TWO: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: applied}
data: {a: two}
";
const DRAINED: &str = "apiVersion: v1
kind: Pod
metadata: {name: drained, labels: {app: drained}}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: toolbox, command: [sleep, inf]}
";
const DEPLOYED: &str = "{\"status\":{\"observedGeneration\":9,\"replicas\":2,\"updatedReplicas\":2,\
                        \"readyReplicas\":2,\"availableReplicas\":2}}";

const ROWS: &[(&str, &[Step])] = &[
    (
        "create",
        &[
            Says("create namespace {ns}", &["namespace/{ns} created"]),
            Says("create configmap cm --from-literal=a=edit-me", &["configmap/cm created"]),
            Says("create secret generic se --from-literal=p=s", &["secret/se created"]),
            Says("create serviceaccount robot", &["serviceaccount/robot created"]),
            Says(
                "create deployment web --image=toolbox --replicas=2",
                &["deployment.apps/web created"],
            ),
            Says("create service clusterip svc --tcp=80:8080", &["service/svc created"]),
            Says("create job once --image=toolbox -- true", &["job.batch/once created"]),
            Says(
                "create cronjob tick --image=toolbox --schedule='*/5 * * * *' -- true",
                &["cronjob.batch/tick created"],
            ),
            Says("create role r --verb=get --resource=pods", &["/r created"]),
            Says("create rolebinding rb --role=r --user=u", &["/rb created"]),
            Says("create clusterrole {ns} --verb=get --resource=pods", &["/{ns} created"]),
            Says("create clusterrolebinding {ns} --clusterrole={ns} --user=u", &["/{ns} created"]),
            Says("create quota q --hard=pods=99", &["resourcequota/q created"]),
            Says(
                "wait --for=jsonpath={.status.hard.pods}=99 quota/q --timeout=20s",
                &["condition met"],
            ),
            Says("create priorityclass {ns} --value=7", &["/{ns} created"]),
            Says("create pdb pdb --selector=app=none --min-available=1", &["/pdb created"]),
            Told("create -f -", POD, &["pod/web created"]),
            Fails("create configmap cm", "configmaps \"cm\" already exists"),
            FailsTold("create -f -", WRONG, "unknown field \"metadata.lables\""),
            Says("create configmap dry --dry-run=server -o name", &["configmap/dry"]),
            Fails("get configmap dry", "configmaps \"dry\" not found"),
        ],
    ),
    (
        "wait",
        &[
            Says("wait --for=condition=Ready pod/web --timeout=60s", &["pod/web condition met"]),
            Says(
                "wait --for=jsonpath={.status.phase}=Running pod/web --timeout=20s",
                &["pod/web condition met"],
            ),
        ],
    ),
    (
        "apply",
        &[
            Told("apply -f -", CONFIG, &["configmap/applied created"]),
            Told("apply -f -", CONFIG, &["configmap/applied unchanged"]),
            Told("apply -f -", CONFIG_TWO, &["configmap/applied configured"]),
            Told("apply -f -", POD_RELABELED, &["pod/web configured"]),
            FailsTold("apply -f -", WRONG, "unknown field \"dat\""),
            Told("apply -f - --validate=false", WRONG, &["configmap/wrong created"]),
        ],
    ),
    (
        "apply --server-side",
        &[
            Told(
                "apply --server-side -f - --field-manager=one --force-conflicts",
                CONFIG,
                &["configmap/applied serverside-applied"],
            ),
            FailsTold(
                "apply --server-side -f - --field-manager=two",
                CONFIG_TWO,
                "conflict with \"one\": .data.a",
            ),
            Told(
                "apply --server-side -f - --field-manager=two --force-conflicts",
                CONFIG_TWO,
                &["configmap/applied serverside-applied"],
            ),
        ],
    ),
    ("diff", &[FailsTold("diff -f -", CONFIG, "+  a: one"), Told("diff -f -", CONFIG_TWO, &[])]),
    (
        "get",
        &[
            Says("get pods", &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "web", "1/1"]),
            Says("get pods -o wide", &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]),
            Says("get pod web -o yaml", &["apiVersion: v1", "kind: Pod", "phase: Running"]),
            Says("get pods -o json", &["\"kind\": \"List\"", "\"image\": \"toolbox\""]),
            Says("get pods -o name", &["pod/web"]),
            Says("get pod web -o jsonpath={.spec.containers[0].image}", &["toolbox"]),
            Says("get pods -o custom-columns=N:.metadata.name,I:.spec.nodeName", &["N", "web"]),
            Says("get pods -o go-template={{range.items}}{{.metadata.name}}{{end}}", &["web"]),
            Says("get pods -A", &["NAMESPACE", "{ns}"]),
            Says("get pods -l app=web --show-labels", &["app=web"]),
            Says("get pods --field-selector=status.phase=Running", &["web"]),
            Says("get pods --sort-by=.metadata.name", &["web"]),
            Says("get all", &["pod/web", "service/svc", "deployment.apps/web", "job.batch/once"]),
            Says("get deploy,cm,secret", &["deployment.apps/web", "configmap/cm", "secret/se"]),
            Says("get nodes", &["node-1", "Ready"]),
            Fails("get pod none", "pods \"none\" not found"),
            Fails("get nothing", "the server doesn't have a resource type \"nothing\""),
        ],
    ),
    (
        "get --watch",
        &[
            Watches("get cm cm -w -o name", "configmap/cm", "label cm cm seen=1", "configmap/cm"),
            Watches("get pods -w", "web", "annotate pod web seen=1", "web"),
        ],
    ),
    (
        "describe",
        &[
            Says("describe pod web", &["Name:", "Status:", "Running", "Containers:", "Events:"]),
            Says("describe node node-1", &["Name:", "node-1", "Capacity:", "Non-terminated Pods:"]),
            Says("describe deployment web", &["Replicas:", "2 desired", "StrategyType:"]),
            Says("describe service svc", &["Type:", "ClusterIP", "Port:"]),
            Says("describe namespace {ns}", &["Status:", "Active", "Resource Quotas"]),
            Says("describe job once", &["Parallelism:"]),
            Says("describe secret se", &["Type:", "Opaque", "p:", "1 bytes"]),
        ],
    ),
    ("events", &[Says("events --for pod/web", &["Scheduled", "Started"])]),
    (
        "label",
        &[
            Says("label pod web tier=front", &["pod/web labeled"]),
            Fails("label pod web tier=back", "already has a value"),
            Says("label pod web tier=back --overwrite", &["pod/web labeled"]),
            Says("label pod web tier-", &["pod/web unlabeled"]),
            Fails("label pod web 'bad key=1'", "Invalid"),
        ],
    ),
    (
        "annotate",
        &[
            Says("annotate pod web note='two words'", &["pod/web annotate"]),
            Says("annotate pod web note-", &["pod/web annotate"]),
        ],
    ),
    (
        "edit",
        &[
            Edits("edit configmap cm", "sed -i s/edit-me/edited/", "configmap/cm edited"),
            Says("get cm cm -o jsonpath={.data.a}", &["edited"]),
            Edits("edit configmap cm", "true", "Edit cancelled"),
        ],
    ),
    (
        "patch --type=strategic",
        &[
            Says(
                "patch deployment web -p {\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"toolbox\",\"env\":[{\"name\":\"A\",\"value\":\"b\"}]}]}}}}",
                &["deployment.apps/web patched"],
            ),
            Says(
                "get deploy web -o jsonpath={.spec.template.spec.containers[*].image}",
                &["toolbox"],
            ),
        ],
    ),
    (
        "patch --type=merge",
        &[
            Says("patch cm cm --type=merge -p {\"data\":{\"b\":\"2\"}}", &["configmap/cm patched"]),
            Says("patch cm cm --type=merge -p {\"data\":{\"b\":\"2\"}}", &["patched (no change)"]),
        ],
    ),
    (
        "patch --type=json",
        &[
            Says(
                "patch cm cm --type=json -p [{\"op\":\"add\",\"path\":\"/data/c\",\"value\":\"3\"}]",
                &["configmap/cm patched"],
            ),
            Fails(
                "patch cm cm --type=json -p [{\"op\":\"remove\",\"path\":\"/data/none\"}]",
                "rejected our request",
            ),
        ],
    ),
    (
        "replace",
        &[
            Told("replace -f -", CONFIG, &["configmap/applied replaced"]),
            Told(
                "replace --force --grace-period=1 -f -",
                POD,
                &["\"web\" deleted", "pod/web replaced"],
            ),
            Says("wait --for=condition=Ready pod/web --timeout=60s", &["condition met"]),
            FailsTold(
                "replace -f -",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none}\n",
                "not found",
            ),
        ],
    ),
    (
        "scale",
        &[
            Says("scale deployment web --replicas=5", &["deployment.apps/web scaled"]),
            Fails(
                "scale deployment web --current-replicas=2 --replicas=1",
                "Expected replicas to be 2, was 5",
            ),
            Says("get deploy web -o jsonpath={.spec.replicas}", &["5"]),
            Says("scale deployment web --replicas=2", &["deployment.apps/web scaled"]),
        ],
    ),
    (
        "set image",
        &[Says(
            "set image deployment/web toolbox=toolbox:2",
            &["deployment.apps/web image updated"],
        )],
    ),
    (
        "rollout",
        &[
            Says("rollout restart deployment/web", &["deployment.apps/web restarted"]),
            Says("rollout pause deployment/web", &["deployment.apps/web paused"]),
            Says("rollout resume deployment/web", &["deployment.apps/web resumed"]),
            Says("rollout history deployment/web", &["deployment.apps/web"]),
        ],
    ),
    (
        "rollout status",
        &[
            Says(
                "patch deployment web --subresource=status --type=merge -p {status}",
                &["patched"],
            ),
            Says("rollout status deployment/web --timeout=20s", &["successfully rolled out"]),
        ],
    ),
    (
        "autoscale",
        &[
            Says("autoscale deployment web --min=1 --max=3", &["web autoscaled"]),
            Says(
                "get horizontalpodautoscalers.v1.autoscaling web -o jsonpath={.apiVersion}",
                &["autoscaling/v1"],
            ),
            Says(
                "get horizontalpodautoscalers.v2.autoscaling web -o jsonpath={.apiVersion}",
                &["autoscaling/v2"],
            ),
        ],
    ),
    (
        "run",
        &[
            Says("run one --image=toolbox --restart=Never -- true", &["pod/one created"]),
            Says(
                "wait --for=jsonpath={.status.phase}=Succeeded pod/one --timeout=60s",
                &["condition met"],
            ),
        ],
    ),
    (
        "debug",
        &[
            Says("debug web --image=toolbox --target=main -c dbg -- true", &["container \"main\""]),
            Says(
                "wait --for=jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0 \
                 pod/web --timeout=60s",
                &["condition met"],
            ),
        ],
    ),
    (
        "cordon, uncordon",
        &[
            Says("cordon node-2", &["node/node-2 cordoned"]),
            Says("get node node-2", &["SchedulingDisabled"]),
            Says("uncordon node-2", &["node/node-2 uncordoned"]),
        ],
    ),
    (
        "drain",
        &[
            Told("create -f -", DRAINED, &["created"]),
            Says("wait --for=condition=Ready pod/drained --timeout=60s", &["condition met"]),
            Says(
                "drain node-2 --force --delete-emptydir-data --pod-selector=app=drained --timeout=60s",
                &["evicting pod {ns}/drained", "node/node-2 drained"],
            ),
            Fails("get pod drained", "not found"),
            Says("uncordon node-2", &["node/node-2 uncordoned"]),
        ],
    ),
    (
        "taint",
        &[
            Says("taint node node-2 {ns}=v:PreferNoSchedule", &["node/node-2 tainted"]),
            Says("taint node node-2 {ns}-", &["node/node-2 untainted"]),
        ],
    ),
    (
        "explain",
        &[
            Says("explain pod.spec.containers", &["containers", "name", "image"]),
            Says("explain deployment --recursive", &["maxSurge"]),
            Fails("explain pod.nothing", "field \"nothing\" does not exist"),
        ],
    ),
    (
        "api-resources",
        &[
            Says(
                "api-resources -o wide",
                &["pods", "po", "deployments", "deploy", "delete,deletecollection"],
            ),
            Says("api-resources --namespaced=false -o name", &["nodes", "namespaces"]),
            Says("api-versions", &["apps/v1", "batch/v1", "v1"]),
        ],
    ),
    ("version", &[Says("version -o json", &["\"gitVersion\": \"v1.36.0+trireme"])]),
    ("cluster-info", &[Says("cluster-info", &["Kubernetes control plane", "is running at"])]),
    (
        "auth",
        &[
            Says("auth can-i create pods", &["yes"]),
            Says("auth can-i --list", &["*.*", "selfsubjectaccessreviews.authorization.k8s.io"]),
            Says("auth whoami", &["system:masters", "system:authenticated"]),
        ],
    ),
    (
        "create token",
        &[
            Says("create serviceaccount bot", &["serviceaccount/bot created"]),
            Says("create token bot --duration=10m", &["eyJ"]),
            Fails("create token bot --duration=1m", "less than 10 minutes"),
            Fails("create token none", "serviceaccounts \"none\" not found"),
        ],
    ),
    (
        "get --raw",
        &[
            Says("get --raw /healthz", &["ok"]),
            Says("get --raw /readyz", &["ok"]),
            Says("get --raw /version", &["gitVersion"]),
            Says("get --raw /openapi/v3", &["apis/apps/v1"]),
            Says("get --raw /api/v1/namespaces/{ns}/pods/web", &["\"kind\":\"Pod\""]),
            Fails("get --raw /nothing", "could not find the requested resource"),
        ],
    ),
    (
        "delete",
        &[
            Says("delete configmap cm", &["configmap \"cm\" deleted"]),
            Told("delete -f -", CONFIG, &["configmap \"applied\" deleted"]),
            Says("delete pod one --now", &["pod \"one\" deleted"]),
            Says("delete pod web --force", &["pod \"web\" force deleted"]),
            Fails("get pod web", "not found"),
            Says("delete deployment web --cascade=background", &["deleted"]),
            Says("delete secret -l none=1", &["No resources found"]),
            Says("delete secret --all", &["secret \"se\" deleted"]),
            Says("delete secret none --ignore-not-found", &[]),
            Fails("delete secret none", "secrets \"none\" not found"),
            Says("delete clusterrole,clusterrolebinding,priorityclass {ns}", &["deleted"]),
            Says("delete namespace {ns} --timeout=60s", &["namespace \"{ns}\" deleted"]),
            Fails("get namespace {ns}", "not found"),
        ],
    ),
];

/// Words, which single quotes keep together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted, mut open) = (vec![String::new()], false, false);
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => open = true,
            c => {
                if std::mem::take(&mut open) {
                    words.push(String::new());
                }
                words.last_mut().unwrap().push(c);
            }
        }
    }
    words
}

struct Run<'a> {
    kubectl: &'a Kubectl<'a>,
    namespace: String,
}

impl Run<'_> {
    fn fill(&self, text: &str) -> String {
        text.replace("{ns}", &self.namespace).replace("{status}", DEPLOYED)
    }

    fn command(&self, line: &str) -> tokio::process::Command {
        let words: Vec<String> = words(line).iter().map(|word| self.fill(word)).collect();
        let mut all = vec!["-n", self.namespace.as_str()];
        // `kubectl create namespace` in a namespace is the same as without one.
        all.extend(words.iter().map(String::as_str));
        self.kubectl.command(&all)
    }

    async fn step(&self, step: &Step) -> Result<(), String> {
        let (said, line, code, wants): (Said, &str, i32, Vec<&str>) = match step {
            Says(line, wants) => {
                (self.kubectl.said(&mut self.command(line), b"").await, line, 0, wants.to_vec())
            }
            Told(line, input, wants) => {
                let said = self.kubectl.said(&mut self.command(line), input.as_bytes()).await;
                (said, line, 0, wants.to_vec())
            }
            Fails(line, want) => {
                (self.kubectl.said(&mut self.command(line), b"").await, line, 1, vec![want])
            }
            FailsTold(line, input, want) => {
                let said = self.kubectl.said(&mut self.command(line), input.as_bytes()).await;
                (said, line, 1, vec![want])
            }
            Edits(line, editor, want) => {
                let mut command = self.command(line);
                command.env("KUBE_EDITOR", editor);
                (self.kubectl.said(&mut command, b"").await, line, 0, vec![want])
            }
            Watches(line, first, change, last) => {
                return self.watch(line, first, change, last).await;
            }
        };
        let text = format!("{}{}", said.out, said.err);
        let missing = wants.iter().map(|want| self.fill(want)).find(|want| !text.contains(want));
        match missing {
            None if said.code == code => Ok(()),
            Some(want) if said.code == code => {
                Err(format!("`{}` does not say {want:?}: {text}", self.fill(line)))
            }
            Some(_) | None => Err(format!("`{}` ends with {}: {text}", self.fill(line), said.code)),
        }
    }

    async fn watch(&self, line: &str, first: &str, change: &str, last: &str) -> Result<(), String> {
        let mut command = self.command(line);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut until = async |want: &str| {
            let found = async {
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.contains(want) {
                        return Ok(());
                    }
                }
                Err(format!("`{line}` ended before it said {want:?}"))
            };
            let late = Err(format!("`{line}` does not say {want:?}"));
            timeout(SOON, found).await.unwrap_or(late)
        };
        until(first).await?;
        let said = self.kubectl.said(&mut self.command(change), b"").await;
        if said.code != 0 {
            return Err(format!("`{change}`: {}", said.err));
        }
        until(last).await
    }
}

#[test]
fn every_kubectl_does_what_it_does_elsewhere() {
    // §2.9, PAT-1, PAT-3, TAB-1, SUB-3
    let programs: Vec<_> = installed()
        .into_iter()
        // The one without a number is one of the others.
        .filter(|program| program.to_string_lossy().contains("kubectl."))
        .collect();
    if programs.is_empty() {
        eprintln!("skipped: no kubectl of a known version is installed");
        return;
    }
    with_cluster_in(&std::env::temp_dir(), 2, None, WHOLE, async |cluster| {
        let mut failures = String::new();
        let mut cells = vec![String::new(); ROWS.len()];
        let mut head = "| verb |".to_owned();
        for program in &programs {
            let kubectl = Kubectl::new(cluster, program);
            eprintln!("{}", program.display());
            let version = kubectl.tag.replace('-', ".");
            let _ = write!(head, " {version} |");
            let run = Run { namespace: format!("verbs-{}", kubectl.tag), kubectl: &kubectl };
            for ((verb, steps), cells) in ROWS.iter().zip(&mut cells) {
                let mut done = Ok(());
                for step in *steps {
                    done = done.and(run.step(step).await);
                }
                if let Err(why) = &done {
                    let _ = writeln!(failures, "{version} {verb}: {why}");
                }
                cells.push_str(if done.is_ok() { " yes |" } else { " no |" });
            }
        }
        let mut table = format!("{head}\n|{}\n", "---|".repeat(programs.len() + 1));
        for ((verb, _), cells) in ROWS.iter().zip(&cells) {
            let _ = writeln!(table, "| `{verb}` |{cells}");
        }
        eprintln!("{failures}");
        if head == README_HEAD {
            readme::hold("kubectl", &table, &failures);
        } else {
            assert!(failures.is_empty(), "{failures}");
        }
    });
}
