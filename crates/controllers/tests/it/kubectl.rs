//! Custom resources as every kubectl that is installed sees them: against the API and all controllers, over a
//! socket, with a definition as operators have it.

use crate::Cluster;
use serde_json::{Value, json};
use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

const NAMES: &[&str] = &["kubectl.1.27", "kubectl.1.30", "kubectl.1.33", "kubectl"];
const DEFINITION: &str = include_str!("databases.yaml");

struct Kubectl {
    name: &'static str,
    home: PathBuf,
    url: String,
}

#[derive(Debug)]
struct Run {
    ok: bool,
    out: String,
    error: String,
}

impl Kubectl {
    async fn run(&self, line: &str, input: &str) -> Run {
        let mut command = Command::new(self.name);
        command
            .args(["--server", &self.url, "--cache-dir"])
            .arg(self.home.join("cache"))
            .args(line.split_whitespace().map(|word| word.replace('~', " ")))
            .env("HOME", &self.home)
            .env("KUBECONFIG", self.home.join("none"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).unwrap();
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            Run {
                ok: output.status.success(),
                out: text(output.stdout),
                error: text(output.stderr),
            }
        })
        .await
        .unwrap()
    }

    async fn done(&self, line: &str, input: &str) -> String {
        let run = self.run(line, input).await;
        assert!(run.ok, "{} {line}: {run:?}", self.name);
        run.out
    }

    async fn refused(&self, line: &str, input: &str) -> String {
        let run = self.run(line, input).await;
        assert!(!run.ok, "{} {line}: {run:?}", self.name);
        run.error
    }
}

fn database(name: &str) -> Value {
    json!({
        "apiVersion": "data.example.com/v1", "kind": "Database",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "version": "16.2", "replicas": 3, "storage": {"size": "10Gi"},
            "listeners": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "podTemplate": {"spec": {"anything": ["goes"]}},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works_with_custom_resources_as_with_any_other() {
    let installed = |name: &&&'static str| {
        Command::new(**name)
            .args(["version", "--client"])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    let found: Vec<&'static str> = NAMES.iter().filter(installed).copied().collect();
    if found.is_empty() {
        println!("no kubectl is installed: nothing was shown");
    }
    for name in found {
        let cluster = Cluster::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(cluster.server.clone().serve(listener, None, shutdown.child_token()));
        let home = std::env::temp_dir().join(format!("crd-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let kubectl = Kubectl { name, home: home.clone(), url };
        works(&kubectl).await;
        std::fs::remove_dir_all(home).unwrap();
        shutdown.cancel();
        serving.shutdown().await;
    }
}

async fn works(kubectl: &Kubectl) {
    let created = kubectl.done("apply -f -", DEFINITION).await;
    assert_eq!(
        created.trim(),
        "customresourcedefinition.apiextensions.k8s.io/databases.data.example.com created"
    );
    kubectl
        .done("wait --for=condition=Established --timeout=20s crd/databases.data.example.com", "")
        .await;
    let object = database("orders").to_string();
    assert_eq!(
        kubectl.done("apply -f -", &object).await.trim(),
        "database.data.example.com/orders created"
    );
    assert_eq!(
        kubectl.done("apply -f -", &object).await.trim(),
        "database.data.example.com/orders unchanged"
    );

    let table = kubectl.done("get db", "").await;
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "VERSION", "REPLICAS", "READY", "AGE"]);
    assert_eq!(lines[1][..3], ["orders", "16.2", "3"]);
    let wide = kubectl.done("get databases -o wide", "").await;
    assert!(wide.lines().next().unwrap().contains("PRIMARY"), "{wide}");
    assert!(kubectl.done("get all", "").await.contains("database.data.example.com/orders"));
    assert!(kubectl.done("get data", "").await.contains("orders"), "by category");
    let selected = kubectl.done("get db --field-selector spec.version=15 -o name", "").await;
    assert_eq!(selected, "");
    assert!(
        kubectl.done("api-resources --api-group=data.example.com", "").await.contains("Database")
    );

    let explained = kubectl.done("explain database.spec.listeners.protocol", "").await;
    assert!(explained.contains("Its protocol."), "{explained}");
    let explained = kubectl.done("explain database.spec --recursive", "").await;
    assert!(explained.contains("storageClassName"), "{explained}");
    let explained = kubectl.done("explain database.metadata.labels", "").await;
    assert!(explained.contains("Map of string keys and values"), "{explained}");

    // Wrong ones are refused with all that is wrong.
    let mut wrong = database("wrong");
    wrong["spec"]["replicas"] = json!(10);
    wrong["spec"]["mode"] = json!("Never");
    wrong["spec"].as_object_mut().unwrap().remove("storage");
    let said = kubectl.refused("apply -f -", &wrong.to_string()).await;
    for part in [
        "The Database \"wrong\" is invalid",
        "spec.storage: Required value",
        "spec.mode: Unsupported value: \"Never\": supported values: \"Asynchronous\", \"Synchronous\"",
        "spec.replicas: Invalid value: 10: spec.replicas in body should be less than or equal to 9",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let mut rules = database("rules");
    rules["spec"]["quorum"] = json!(4);
    let said = kubectl.refused("apply -f -", &rules.to_string()).await;
    assert!(
        said.contains(
            "spec.quorum: Invalid value: \"object\": quorum of 4 is more than 3 replicas"
        ),
        "{said}"
    );
    let mut typo = database("typo");
    typo["spec"]["storag"] = json!({});
    let said = kubectl.refused("apply -f -", &typo.to_string()).await;
    assert!(said.contains("unknown field \"spec.storag\""), "{said}");
    kubectl.done("apply --validate=false -f -", &typo.to_string()).await;
    let kept = kubectl.done("get db typo -o jsonpath={.spec.storag}", "").await;
    assert_eq!(kept, "", "pruned");

    // Changes in every way.
    assert!(
        kubectl
            .done("patch db orders --type=merge -p {\"spec\":{\"replicas\":4}}", "")
            .await
            .contains("patched")
    );
    let generation = "get db orders -o jsonpath={.metadata.generation}";
    assert_eq!(kubectl.done(generation, "").await, "2");
    let json_patch = "patch db orders --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":5}]";
    kubectl.done(json_patch, "").await;
    let strategic = kubectl.refused("patch db orders -p {\"spec\":{\"replicas\":6}}", "").await;
    assert!(
        strategic.contains("strategic-merge-patch+json is not supported")
            || strategic.contains("application/strategic-merge-patch+json")
            || strategic.contains("accepted media types"),
        "PAT-1: {strategic}"
    );
    kubectl.done("scale db orders --replicas=7", "").await;
    assert_eq!(kubectl.done("get db orders -o jsonpath={.spec.replicas}", "").await, "7");
    kubectl.done("label db orders team=a", "").await;
    assert_eq!(
        kubectl.done("get db -l team=a -o name", "").await.trim(),
        "database.data.example.com/orders"
    );
    let status = "patch db orders --subresource=status --type=merge -p {\"status\":{\"replicas\":7,\"primary\":\"orders-0\",\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}";
    kubectl.done(status, "").await;
    kubectl.done("wait --for=condition=Ready --timeout=10s db/orders", "").await;
    kubectl
        .done("wait --for=jsonpath={.status.primary}=orders-0 --timeout=10s db/orders", "")
        .await;
    assert_eq!(kubectl.done(generation, "").await, "4", "a status is no change of the spec");

    // Two managers of one list.
    kubectl.done("create -f -", &database("ledger").to_string()).await;
    let applied = |manager: &str, name: &str, port: u64| {
        let object = json!({
            "apiVersion": "data.example.com/v1", "kind": "Database",
            "metadata": {"name": "ledger", "namespace": "default"},
            "spec": {"listeners": [{"name": name, "port": port}]},
        });
        (format!("apply --server-side --field-manager={manager} -f -"), object.to_string())
    };
    let (line, object) = applied("two", "admin", 5433);
    let run = kubectl.run(&line, &object).await;
    assert!(run.ok, "{run:?}");
    let ports = kubectl.done("get db ledger -o jsonpath={.spec.listeners[*].name}", "").await;
    assert_eq!(ports, "sql admin");
    let (line, object) = applied("two", "sql", 1);
    let said = kubectl.refused(&line, &object).await;
    assert!(
        said.contains("conflict") && said.contains(".spec.listeners[name=\"sql\"].port"),
        "{said}"
    );

    // In another version, with a warning.
    let beta = kubectl
        .run("get databases.v1beta1.data.example.com orders -o jsonpath={.apiVersion}", "")
        .await;
    assert_eq!(beta.out, "data.example.com/v1beta1", "{beta:?}");
    // An editor is a program that changes a file.
    let mut edit = Command::new(kubectl.name);
    edit.args(["--server", &kubectl.url, "--cache-dir"])
        .arg(kubectl.home.join("cache"))
        .args(["edit", "db", "orders"])
        .env("HOME", &kubectl.home)
        .env("KUBECONFIG", kubectl.home.join("none"))
        .env("KUBE_EDITOR", "sed -i -e s/16.2/17.0/");
    let edited = tokio::task::spawn_blocking(move || edit.output().unwrap()).await.unwrap();
    assert!(String::from_utf8_lossy(&edited.stdout).contains("edited"), "{edited:?}");
    assert_eq!(kubectl.done("get db orders -o jsonpath={.spec.version}", "").await, "17.0");
    let back = kubectl
        .refused("patch db orders --type=merge -p {\"spec\":{\"version\":\"16\"}}", "")
        .await;
    assert!(back.contains("version cannot go back"), "{back}");
    assert!(
        kubectl.done("describe db orders", "").await.contains("Podtemplate")
            || kubectl.done("describe db orders", "").await.contains("Pod Template")
    );

    kubectl.done("delete db typo", "").await;
    assert!(kubectl.refused("get db typo", "").await.contains("NotFound"));
    let deleted = kubectl.done("delete crd databases.data.example.com --timeout=30s", "").await;
    assert!(deleted.contains("deleted"), "{deleted}");
    let gone = kubectl.refused("get databases.data.example.com orders", "").await;
    assert!(
        gone.contains("doesn't have a resource type")
            || gone.contains("could not find the requested resource")
            || gone.contains("NotFound"),
        "{gone}"
    );
}
