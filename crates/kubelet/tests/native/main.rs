//! The native runtime is a runtime: the suite over real namespaces. Needs root.
//!
//! A program of its own, because the runtime starts it again as shim, init and container.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a panic in a test is its failure, and this one reports for itself"
)]

use async_trait::async_trait;
use kubelet::runtime::{
    ContainerConfig, ContainerState, PodRef, Resources, Runtime, SandboxConfig, Security,
    native::{NativeConfig, NativeRuntime},
    suite::{self, Program, Subject},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
};

mod program;

fn main() -> ExitCode {
    if let Some(code) = program::run().or_else(kubelet::toolbox::run).or_else(kubelet::reexec) {
        return code;
    }
    if std::env::args().any(|argument| argument == "--list") {
        println!("native_runtime_is_a_runtime: test");
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the native runtime cannot be tested without root: run this test as root");
        return ExitCode::FAILURE;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let native = Native {
        dir: dir.path().canonicalize().expect("the directory"),
        node: format!("suite-{}", std::process::id()),
    };
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    threads.expect("a runtime").block_on(async {
        suite::run(&native).await;
        a_pod_whose_shim_does_not_answer_can_be_removed(&native).await;
        an_added_container_lives_among_its_targets_processes(&native).await;
        // Only the node itself is left, which goes with its last Pod.
        native.open().await.remove_all().await.expect("nothing is left to remove");
    });
    assert_eq!(native.cgroups(&native.node), Vec::<String>::new());
    println!("native_runtime_is_a_runtime: ok");
    ExitCode::SUCCESS
}

async fn an_added_container_lives_among_its_targets_processes(native: &Native) {
    // SUB-4
    let runtime = native.open().await;
    let uid = format!("added-{}", std::process::id());
    let image = runtime.pull_image(&native.image()).await.expect("the image").id;
    runtime.run_sandbox(native.sandbox(&uid)).await.expect("a sandbox");
    let target = native.container("c", image.clone(), native.argv(Program::Listens));
    let target = runtime.start_container(&uid, target).await.expect("a container").id;
    let added = |name: &str, target: &str| ContainerConfig {
        target: (!target.is_empty()).then(|| target.to_owned()),
        ..native.container(name, image.clone(), program::counts_processes())
    };
    for (name, target, processes) in [("d", "c", 2), ("e", "", 1)] {
        let id = runtime.start_container(&uid, added(name, target)).await.expect("it starts").id;
        let ended = async {
            let mut tick = tokio::time::interval(std::time::Duration::from_millis(5));
            loop {
                tick.tick().await;
                let pod = runtime.pod(&uid).await.expect("records").expect("the Pod");
                let found = pod.containers.into_iter().find(|container| container.id == id);
                if let Some(ContainerState::Exited { exit_code, .. }) = found.map(|c| c.state) {
                    return exit_code;
                }
            }
        };
        let code = tokio::time::timeout(std::time::Duration::from_secs(60), ended).await;
        assert_eq!(code, Ok(processes), "{name} sees so many processes");
    }
    let none = runtime.start_container(&uid, added("f", "none")).await;
    assert!(none.is_err_and(|error| error.to_string().contains("\"none\" does not run")));
    let pod = runtime.pod(&uid).await.expect("records").expect("the Pod");
    let found = pod.containers.into_iter().find(|container| container.id == target);
    let state = found.expect("the target").state;
    assert!(matches!(state, ContainerState::Running { .. }), "it goes on: {state:?}");
    runtime.remove_pod(&uid).await.expect("it is removed");
    assert_eq!(native.leftovers(&uid), Vec::<String>::new());
}

async fn a_pod_whose_shim_does_not_answer_can_be_removed(native: &Native) {
    let runtime = native.open().await;
    let uid = format!("stopped-{}", std::process::id());
    let image = runtime.pull_image(&native.image()).await.expect("the image");
    runtime.run_sandbox(native.sandbox(&uid)).await.expect("a sandbox");
    let container = native.container("c", image.id, native.argv(Program::Tree));
    runtime.start_container(&uid, container).await.expect("a container");
    let dir = native.dir.join("pods").join(&uid);
    let record = fs::read_to_string(dir.join("sandbox.json")).expect("a record");
    let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
    let shim = i32::try_from(record["shim_pid"].as_i64().expect("a PID")).expect("a PID");
    let stop = nix::sys::signal::Signal::SIGSTOP;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), stop).expect("it is stopped");
    runtime.remove_pod(&uid).await.expect("it is removed");
    assert_eq!(native.leftovers(&uid), Vec::<String>::new());
    assert_eq!(native.processes(&uid), Some(0));
}

struct Native {
    dir: PathBuf,
    node: String,
}

fn directories(root: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            if depth > 0 {
                directories(&entry.path(), depth - 1, found);
            }
        }
    }
}

/// PIDs of this machine, and a file of each.
fn every_process(file: &str) -> impl Iterator<Item = (String, String)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(move |entry| {
        let text = fs::read_to_string(entry.path().join(file)).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), text))
    })
}

impl Native {
    fn sandbox(&self, uid: &str) -> SandboxConfig {
        SandboxConfig {
            pod: PodRef { namespace: "suite".into(), name: "pod".into(), uid: uid.to_owned() },
            attempt: 0,
            hostname: "pod".into(),
            host_network: false,
            resources: Resources::default(),
            annotations: BTreeMap::new(),
        }
    }

    fn container(&self, name: &str, image_id: String, argv: Vec<String>) -> ContainerConfig {
        ContainerConfig {
            name: name.to_owned(),
            attempt: 0,
            target: None,
            image: self.image(),
            image_id,
            argv,
            env: vec![("PATH".into(), "/bin".into())],
            working_dir: "/".into(),
            mounts: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            stdin: false,
            stdin_once: false,
            tty: false,
            log_path: self.dir.join(format!("{name}.log")),
            log_bytes_max: 1 << 20,
            termination_message_path: String::new(),
            hash: 0,
            annotations: BTreeMap::new(),
        }
    }

    /// Cgroups whose path has this in it.
    fn cgroups(&self, part: &str) -> Vec<String> {
        let mut all = Vec::new();
        for controller in ["memory", "cpu", "pids", "."] {
            let root = Path::new("/sys/fs/cgroup").join(controller).join("trireme");
            directories(&root, 3, &mut all);
        }
        all.retain(|dir| dir.to_string_lossy().contains(part));
        all.into_iter().map(|dir| format!("cgroup {}", dir.display())).collect()
    }
}

#[async_trait]
impl Subject for Native {
    async fn open(&self) -> Arc<dyn Runtime> {
        let config = NativeConfig {
            insecure_registries: Vec::new(),
            data_dir: self.dir.clone(),
            node: self.node.clone(),
            program: std::env::current_exe().expect("this program"),
        };
        NativeRuntime::open(config).expect("the runtime opens")
    }

    fn image(&self) -> String {
        "toolbox".to_owned()
    }

    fn argv(&self, program: Program) -> Vec<String> {
        program::argv(program)
    }

    fn processes(&self, uid: &str) -> Option<usize> {
        let inside = |(_, text): &(String, String)| text.contains(&format!("{uid}/"));
        Some(every_process("cgroup").filter(inside).count())
    }

    fn leftovers(&self, uid: &str) -> Vec<String> {
        let mut left = self.cgroups(uid);
        let mut state = |file: &'static str, part: &str| {
            let holds = every_process(file).filter(|(_, text)| text.contains(part));
            left.extend(holds.map(|(pid, _)| format!("{file} of process {pid}")));
        };
        state("cgroup", uid);
        state("mounts", uid);
        let of_pod = |entry: &fs::DirEntry| {
            fs::read_link(entry.path().join("cwd"))
                .is_ok_and(|cwd| cwd.to_string_lossy().contains(uid))
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        left.extend(all.filter(of_pod).map(|entry| format!("process {:?}", entry.file_name())));
        if self.dir.join("pods").join(uid).exists() {
            left.push("records".to_owned());
        }
        let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        // 10.127.239.x in hexadecimal.
        let own = links.filter(|link| link.file_name().to_string_lossy().starts_with("tri0a7fef"));
        left.extend(own.map(|link| format!("link {:?}", link.file_name())));
        left
    }
}
