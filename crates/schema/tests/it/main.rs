//! What every kubectl that is installed makes of our documents.
//!
//! They talk to a server that knows discovery, the documents, and to answer a write with what was
//! written; `kubectl.1.27` and so on are looked for in the path.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a panic in a test is its failure, and one that shows nothing says so"
)]

mod server;

use serde_json::json;
use server::Server;
use std::{
    fmt::Write as _,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

const NAMES: &[&str] = &[
    "kubectl",
    "kubectl.1.27",
    "kubectl.1.28",
    "kubectl.1.29",
    "kubectl.1.30",
    "kubectl.1.31",
    "kubectl.1.32",
    "kubectl.1.33",
];

/// What a command printed, and on which paths it asked for what.
struct Run {
    ok: bool,
    out: String,
    error: String,
    asked: Vec<String>,
}

struct Kubectl {
    name: &'static str,
    /// Of its version, 1.MINOR.
    minor: u32,
    home: PathBuf,
}

impl Kubectl {
    fn run(&self, arguments: &[&str], input: &str) -> Run {
        let server = Server::start();
        let mut command = Command::new(self.name)
            .args(["--server", &server.url(), "--cache-dir"])
            .arg(self.home.join("cache"))
            .args(arguments)
            .env("HOME", &self.home)
            .env("KUBECONFIG", self.home.join("none"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        command.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = command.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Run {
            ok: output.status.success(),
            out: text(output.stdout),
            error: text(output.stderr),
            asked: server.asked(),
        }
    }
}

static HOMES: AtomicUsize = AtomicUsize::new(0);

/// Runs a test with each version from 1.27 that is there, each with an empty cache.
fn with_each(test: impl Fn(&Kubectl)) {
    let mut found = 0;
    for name in NAMES {
        let version = Command::new(name).args(["version", "--client", "-o", "json"]).output();
        let Ok(version) = version else { continue };
        let version: serde_json::Value =
            serde_json::from_slice(&version.stdout).unwrap_or_default();
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
        let minor: u32 = minor.trim_end_matches('+').parse().unwrap_or_default();
        if minor >= 27 {
            let number = HOMES.fetch_add(1, Ordering::Relaxed);
            let home = format!("schema-{}-{number}", std::process::id());
            let home = std::env::temp_dir().join(home);
            std::fs::create_dir_all(&home).unwrap();
            test(&Kubectl { name, minor, home: home.clone() });
            std::fs::remove_dir_all(home).unwrap();
            found += 1;
        }
    }
    if found == 0 {
        eprintln!("no kubectl is installed: nothing was shown");
    }
}

#[test]
fn explain_prints_what_it_prints_of_a_real_server() {
    // Recording 95.
    let want = "\
KIND:       Pod
VERSION:    v1

FIELD: resources <ResourceRequirements>

DESCRIPTION:
    Compute Resources required by this container. Cannot be updated. More info:
    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
    ResourceRequirements describes the compute resource requirements.

FIELDS:
  claims\t<[]ResourceClaim>
    Claims lists the names of resources, defined in spec.resourceClaims, that
    are used by this container.

    This field depends on the DynamicResourceAllocation feature gate.

    This field is immutable. It can only be set for containers.

  limits\t<map[string]Quantity>
    Limits describes the maximum amount of compute resources allowed. More info:
    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/

  requests\t<map[string]Quantity>
    Requests describes the minimum amount of compute resources required. If
    Requests is omitted for a container, it defaults to Limits if that is
    explicitly specified, otherwise to an implementation-defined value. Requests
    cannot exceed Limits. More info:
    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
";
    with_each(|kubectl| {
        let run = kubectl.run(&["explain", "pod.spec.containers.resources"], "");
        assert!(run.ok, "{}: {}", kubectl.name, run.error);
        assert_eq!(tidy(&run.out), tidy(want), "{}", kubectl.name);
    });
}

#[test]
fn explain_goes_down_as_in_a_real_server() {
    // Recording 96.
    let want = "\
KIND:       ConfigMap
VERSION:    v1

DESCRIPTION:
    ConfigMap holds configuration data for pods to consume.

FIELDS:
  apiVersion\t<string>
  binaryData\t<map[string]string>
  data\t<map[string]string>
  immutable\t<boolean>
  kind\t<string>
  metadata\t<ObjectMeta>
    annotations\t<map[string]string>
    creationTimestamp\t<string>
    deletionGracePeriodSeconds\t<integer>
    deletionTimestamp\t<string>
    finalizers\t<[]string>
    generateName\t<string>
    generation\t<integer>
    labels\t<map[string]string>
    managedFields\t<[]ManagedFieldsEntry>
      apiVersion\t<string>
      fieldsType\t<string>
      fieldsV1\t<FieldsV1>
      manager\t<string>
      operation\t<string>
      subresource\t<string>
      time\t<string>
    name\t<string>
    namespace\t<string>
    ownerReferences\t<[]OwnerReference>
      apiVersion\t<string> -required-
      blockOwnerDeletion\t<boolean>
      controller\t<boolean>
      kind\t<string> -required-
      name\t<string> -required-
      uid\t<string> -required-
    resourceVersion\t<string>
    selfLink\t<string>
    uid\t<string>
";
    with_each(|kubectl| {
        let run = kubectl.run(&["explain", "configmap", "--recursive"], "");
        assert!(run.ok, "{}: {}", kubectl.name, run.error);
        assert_eq!(tidy(&run.out), tidy(want), "{}", kubectl.name);
    });
}

/// Empty lines, and spaces at ends, differ between versions.
fn tidy(text: &str) -> String {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).fold(
        String::new(),
        |mut tidy, line| {
            let _ = writeln!(tidy, "{line}");
            tidy
        },
    )
}

#[test]
fn every_kind_that_is_served_is_explained() {
    with_each(|kubectl| {
        for kind in api::kinds::all() {
            let api_version = kind.api_version();
            let run = kubectl.run(&["explain", kind.plural, "--api-version", &api_version], "");
            assert!(run.ok, "{} {kind:?}: {}", kubectl.name, run.error);
            assert!(run.out.contains(kind.kind) && run.out.contains("metadata"), "{}", run.out);
        }
    });
}

#[test]
fn validation_is_left_to_the_server() {
    // HTTP-2: no kubectl from 1.29 falls back to the OpenAPI v2 document.
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}, "other": 1,
                        "metadata": {"name": "c", "namespace": "default"}});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"other": 1},
                       "metadata": {"name": "l", "namespace": "default"}});
    with_each(|kubectl| {
        for (arguments, object) in [
            (&["create", "--dry-run=server", "-f", "-"][..], &object),
            (&["create", "-f", "-"], &lease),
            (&["apply", "-f", "-"], &object),
            (&["apply", "--server-side", "-f", "-"], &object),
            (&["apply", "--dry-run=server", "-f", "-"], &object),
        ] {
            let run = kubectl.run(arguments, &object.to_string());
            let told = format!("{} {arguments:?}: {} {:?}", kubectl.name, run.error, run.asked);
            assert!(run.ok, "{told}");
            let asks_v2 = run.asked.iter().any(|asked| asked.contains("/openapi/v2"));
            assert!(!asks_v2 || kubectl.minor < 29, "{told}");
            let write = run.asked.iter().find(|asked| !asked.starts_with("GET")).expect(&told);
            assert!(write.contains("fieldValidation=Strict"), "{told}");
        }
    });
}

#[test]
fn a_client_dry_run_needs_no_more_than_the_documents() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                     "spec": {"containers": [{"name": "a", "image": "b"}]}});
    with_each(|kubectl| {
        for verb in ["create", "apply"] {
            let arguments = [verb, "--dry-run=client", "-f", "-"];
            let run = kubectl.run(&arguments, &pod.to_string());
            assert!(run.ok, "{} {verb}: {} {:?}", kubectl.name, run.error, run.asked);
        }
    });
}
