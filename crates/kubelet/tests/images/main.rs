//! Containers of real images, with a root file system of several layers. The test is its own shim:
//! like `trireme` it is started again for it, and therefore has a `main` of its own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "all of it is a test"
)]

mod kit;

use kit::{Content, Made, file};
use kubelet::runtime::{
    Container, ContainerConfig, ContainerState, Image, Mount, PodRef, Resources, Runtime as _,
    RuntimeError, SandboxConfig, Security,
    native::{NativeConfig, NativeRuntime},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if let Some(code) = kubelet::reexec() {
        return code;
    }
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = wanted.unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    macro_rules! run {
        ($($test:ident),*) => {$(
            if stringify!($test).contains(&wanted) {
                runtime.block_on($test());
                println!("test {} ... ok", stringify!($test));
            }
        )*};
    }
    run!(
        layers_are_one_root,
        users_are_the_image_s_unless_the_pod_says_otherwise,
        capabilities_are_what_the_pod_leaves,
        last_words_are_found_wherever_they_are_said,
        a_hundred_layers_are_one_root,
        links_of_an_image_lead_nowhere_on_the_node,
        links_of_a_container_lead_out_of_no_volume,
        a_log_is_rotated_and_no_line_of_it_is_lost
    );
    ExitCode::SUCCESS
}

/// A node and a Pod on it.
struct Bench {
    dir: TempDir,
    runtime: Arc<NativeRuntime>,
    uid: String,
}

impl Bench {
    async fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let uid = format!("{name}-{}", std::process::id());
        let runtime = NativeRuntime::open(NativeConfig {
            data_dir: dir.path().join("data"),
            node: uid.clone(),
            program: std::env::current_exe().unwrap(),
            insecure_registries: Vec::new(),
        })
        .unwrap();
        let pod = PodRef { namespace: "default".into(), name: name.into(), uid: uid.clone() };
        let config = SandboxConfig {
            pod,
            attempt: 0,
            hostname: name.into(),
            host_network: true,
            resources: Resources::default(),
            annotations: BTreeMap::new(),
        };
        runtime.run_sandbox(config).await.unwrap();
        Self { dir, runtime, uid }
    }

    async fn pull(&self, made: &Made, name: &str) -> Image {
        let path = self.dir.path().join(name);
        made.archive(&path, &["v1"]);
        self.runtime.pull_image(&format!("oci-archive:{}", path.display())).await.unwrap()
    }

    fn config(&self, name: &str, image: &Image, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: name.to_owned(),
            attempt: 0,
            target: None,
            image: "as written".to_owned(),
            image_id: image.id.clone(),
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: image.env.clone(),
            working_dir: image.working_dir.clone(),
            mounts: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            stdin: false,
            stdin_once: false,
            tty: false,
            log_path: self.log(name),
            log_bytes_max: 1 << 20,
            termination_message_path: "/dev/termination-log".to_owned(),
            hash: 0,
            annotations: BTreeMap::new(),
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join("logs").join(name).join("0.log")
    }

    /// Runs it to its end: exit code and output.
    async fn run(&self, config: ContainerConfig) -> (i32, Vec<String>) {
        let (mut events, name) = (self.runtime.events(), config.name.clone());
        self.runtime.start_container(&self.uid, config).await.unwrap();
        let ended = async {
            loop {
                let pod = self.runtime.pod(&self.uid).await.unwrap().unwrap();
                let found: Option<Container> =
                    pod.containers.into_iter().find(|c| c.config.name == name);
                if let Some(ContainerState::Exited { exit_code, .. }) = found.map(|c| c.state) {
                    return exit_code;
                }
                events.recv().await.unwrap();
            }
        };
        let code = timeout(PATIENCE, ended).await.unwrap();
        (code, lines(&self.log(&name)))
    }

    async fn end(self) {
        self.runtime.remove_all().await.unwrap();
    }
}

/// What a container has written, without the log's own marks.
fn lines(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()).collect()
}

/// The host's shell with what it is linked to.
fn shell() -> Vec<u8> {
    let listed = Command::new("ldd").arg("/bin/sh").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries: BTreeSet<&str> =
        listed.split_whitespace().filter(|word| word.starts_with('/')).collect();
    let entries: Vec<(&str, Content)> = ["/bin/sh"]
        .into_iter()
        .chain(libraries)
        .map(|path| (&path[1..], Content::File(fs::read(path).unwrap(), 0o755)))
        .collect();
    kit::tar(&entries)
}

fn two_layers(run: &serde_json::Value) -> Made {
    let lower = kit::tar(&[
        ("etc/passwd", file("root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n")),
        ("etc/group", file("root:x:0:\nlog:x:4:web\n")),
        ("etc/gone", file("")),
        ("opt/old", file("")),
        ("srv/page", file("from below")),
    ]);
    let upper = kit::tar(&[
        ("etc/.wh.gone", file("")),
        ("opt/.wh..wh..opq", file("")),
        ("opt/new", file("")),
    ]);
    Made::new(&[shell(), lower, upper], run)
}

/// The overlay shows what the image says, `image_id` decides which image it is, and one container's
/// changes are its own.
async fn layers_are_one_root() {
    let bench = Bench::new("layers").await;
    let image = bench.pull(&two_layers(&json!({"WorkingDir": "/srv"})), "image.tar").await;
    let script = "read text < page; echo $text; pwd; \
        for f in /etc/passwd /etc/gone /opt/old /opt/new; do test -e $f && echo $f; done; \
        echo changed > page; echo anew > /dev/stdout; exit 7";
    for name in ["first", "second"] {
        let (code, output) = bench.run(bench.config(name, &image, script)).await;
        assert_eq!(output, ["from below", "/srv", "/etc/passwd", "/opt/new", "anew"]);
        assert_eq!(code, 7);
    }
    let mut other = bench.config("other", &image, "true");
    other.image_id = format!("trireme.local/image@{}", kit::digest(b"never pulled"));
    let error = bench.runtime.start_container(&bench.uid, other).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::NotFound { what } if what.contains("image")), "{error}");
    bench.end().await;
}

async fn users_are_the_image_s_unless_the_pod_says_otherwise() {
    let bench = Bench::new("users").await;
    let image = bench.pull(&two_layers(&json!({"User": "web"})), "image.tar").await;
    let script = "while read key one two rest; do case $key in \
        Uid:|Gid:) echo $key $one $two;; Groups:) echo $key $one $two $rest;; esac; \
        done < /proc/self/status; echo $HOME; pwd; echo anew > /dev/stdout";
    let own = bench.config("own", &image, script);
    let mut chosen = bench.config("chosen", &image, script);
    chosen.security.run_as_user = Some(1000);
    chosen.security.supplemental_groups = vec![5];
    chosen.env.push(("HOME".into(), "/mine".into()));
    let mut group = bench.config("group", &image, script);
    group.security.run_as_group = Some(6);
    for (config, want) in [
        (own, ["Uid: 33 33", "Gid: 34 34", "Groups: 4", "/srv", "/", "anew"]),
        (chosen, ["Uid: 1000 1000", "Gid: 0 0", "Groups: 5", "/mine", "/", "anew"]),
        (group, ["Uid: 33 33", "Gid: 6 6", "Groups: 4", "/srv", "/", "anew"]),
    ] {
        assert_eq!(bench.run(config).await, (0, want.map(str::to_owned).to_vec()));
    }
    let nobody = bench.pull(&two_layers(&json!({"User": "nobody-here"})), "nobody.tar").await;
    let config = bench.config("nobody", &nobody, "true");
    let error = bench.runtime.start_container(&bench.uid, config).await.unwrap_err();
    assert!(error.to_string().contains("unable to find user nobody-here"), "{error}");
    bench.end().await;
}

async fn capabilities_are_what_the_pod_leaves() {
    let bench = Bench::new("powers").await;
    let image = bench.pull(&two_layers(&json!({})), "image.tar").await;
    let script = "while read key set; do case $key in CapEff:|CapBnd:) echo $key $set;; esac; \
        done < /proc/self/status";
    let with = |name: &str, user, add: &[&str], drop: &[&str]| {
        let mut config = bench.config(name, &image, script);
        config.security.run_as_user = user;
        config.security.add_capabilities = add.iter().map(|n| (*n).to_owned()).collect();
        config.security.drop_capabilities = drop.iter().map(|n| (*n).to_owned()).collect();
        config
    };
    // What this machine holds back from root is no reason to refuse a Pod.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap().trim().to_owned();
    let own = u64::from_str_radix(&own, 16).unwrap();
    for (config, effective, bound) in [
        (with("all", None, &["ALL"], &[]), own, own),
        (with("usual", None, &[], &[]), 0xa804_25fb_u64, 0xa804_25fb_u64),
        (with("none", None, &[], &["ALL"]), 0, 0),
        (with("one", None, &["CHOWN"], &["ALL"]), 1, 1),
        (with("more", None, &["NET_ADMIN"], &["MKNOD"]), 0xa004_35fb, 0xa004_35fb),
        (with("user", Some(1000), &[], &[]), 0, 0xa804_25fb),
    ] {
        let name = config.name.clone();
        let want = vec![format!("CapEff: {effective:016x}"), format!("CapBnd: {bound:016x}")];
        assert_eq!(bench.run(config).await, (0, want), "{name}");
    }
    let error = bench.runtime.start_container(&bench.uid, with("wrong", None, &["FLY"], &[])).await;
    assert!(error.unwrap_err().to_string().contains("unknown capability \"FLY\""));
    bench.end().await;
}

async fn last_words_are_found_wherever_they_are_said() {
    // CST-8
    let bench = Bench::new("words").await;
    let image = bench.pull(&two_layers(&json!({"User": "web"})), "image.tar").await;
    for (name, path) in [("usual", "/dev/termination-log"), ("own", "/last/words"), ("none", "")] {
        let script =
            format!("echo why > {}; exit 3", if path.is_empty() { "/dev/null" } else { path });
        let mut config = bench.config(name, &image, &script);
        config.termination_message_path = path.to_owned();
        assert_eq!(bench.run(config).await.0, 3, "{name}");
        let pod = bench.runtime.pod(&bench.uid).await.unwrap().unwrap();
        let ended = pod.containers.into_iter().find(|c| c.config.name == name).unwrap();
        let ContainerState::Exited { message, .. } = ended.state else { panic!("{name} runs") };
        assert_eq!(message, if path.is_empty() { "" } else { "why\n" }, "{name}");
    }
    bench.end().await;
}

async fn a_hundred_layers_are_one_root() {
    let bench = Bench::new("hundred").await;
    let mut layers = vec![shell()];
    layers.extend((0..100).map(|n| {
        let text = n.to_string();
        kit::tar(&[(format!("n{n}").as_str(), file(&text)), ("last", file(&text))])
    }));
    let image = bench.pull(&Made::new(&layers, &json!({})), "image.tar").await;
    let script = "n=0; while test -e /n$n; do n=$((n+1)); done; echo $n; \
        read last < /last || echo $last";
    let (code, output) = bench.run(bench.config("main", &image, script)).await;
    assert_eq!((code, output), (0, vec!["100".to_owned(), "99".to_owned()]));
    bench.end().await;
}

/// Links of the image's where the runtime itself puts things: all of them stay inside.
async fn links_of_an_image_lead_nowhere_on_the_node() {
    let bench = Bench::new("links").await;
    let victim = bench.dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let target = victim.to_str().unwrap();
    let below = target.trim_start_matches('/').to_owned();
    let links = kit::tar(&[
        ("data", Content::Link(target.to_owned())),
        ("dev", Content::Link(target.to_owned())),
        ("up", Content::Link(format!("../../../../..{target}"))),
        (below.as_str(), Content::Dir),
    ]);
    let image = bench.pull(&Made::new(&[shell(), links], &json!({})), "image.tar").await;
    let volume = bench.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "shared\n").unwrap();
    let mut config = bench.config(
        "main",
        &image,
        "read a < /data/v/file; echo $a; \
        read b < /up/f; echo $b; echo x > /dev/null; test -e /dev/zero && echo zero",
    );
    let mount = |host_path: &Path, inside: &str| Mount {
        host_path: host_path.to_owned(),
        sub_path: PathBuf::new(),
        container_path: inside.into(),
        read_only: true,
    };
    config.mounts = vec![mount(&volume, "/data/v"), mount(&volume.join("file"), "/up/f")];
    let (code, output) = bench.run(config).await;
    assert_eq!((code, output), (0, ["shared", "shared", "zero"].map(str::to_owned).to_vec()));
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "nothing is made on the node");
    bench.end().await;
}

/// What a container leaves in a volume, and another is to be shown a part of.
async fn links_of_a_container_lead_out_of_no_volume() {
    let bench = Bench::new("subpaths").await;
    let victim = bench.dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret"), "secret\n").unwrap();
    let volume = bench.dir.path().join("volume");
    fs::create_dir_all(volume.join("own")).unwrap();
    fs::write(volume.join("own/file"), "own\n").unwrap();
    std::os::unix::fs::symlink(&victim, volume.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../victim", volume.join("upwards")).unwrap();
    std::os::unix::fs::symlink("own", volume.join("inside")).unwrap();
    let image = bench.pull(&Made::new(&[shell()], &json!({})), "image.tar").await;
    let mount = |sub_path: &str, inside: &str| Mount {
        host_path: volume.clone(),
        sub_path: sub_path.into(),
        container_path: inside.into(),
        read_only: false,
    };
    let script = "read a < /v/file; echo $a; read b < /f; echo $b; echo new > /made/new";
    let mut config = bench.config("main", &image, script);
    config.mounts = vec![mount("inside", "/v"), mount("own/file", "/f"), mount("a/b", "/made")];
    let (code, output) = bench.run(config).await;
    assert_eq!((code, output), (0, ["own", "own"].map(str::to_owned).to_vec()));
    assert_eq!(fs::read_to_string(volume.join("a/b/new")).unwrap(), "new\n");

    for (name, sub_path) in
        [("one", "absolute"), ("two", "upwards"), ("three", "absolute/secret"), ("four", "..")]
    {
        let mut config = bench.config(name, &image, "read a < /v/secret; echo $a");
        config.mounts = vec![mount(sub_path, "/v")];
        let started = bench.runtime.start_container(&bench.uid, config).await;
        let error = started.unwrap_err().to_string();
        assert!(error.contains("leads out of its volume"), "{sub_path}: {error}");
    }
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1, "nothing is made on the node");
    bench.end().await;
}

async fn a_log_is_rotated_and_no_line_of_it_is_lost() {
    let bench = Bench::new("logs").await;
    let image = bench.pull(&Made::new(&[shell()], &json!({})), "image.tar").await;
    let script = "n=0; while test $n -lt 1000; do echo line $n; n=$((n+1)); done";
    let mut config = bench.config("main", &image, script);
    // Some 50 bytes a line: once rotated, not twice.
    config.log_bytes_max = 30_000;
    let (code, newer) = bench.run(config).await;
    assert_eq!(code, 0);
    let log = bench.log("main");
    let older = lines(Path::new(&format!("{}.1", log.display())));
    assert!(!older.is_empty() && !newer.is_empty());
    let want: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
    assert_eq!([older, newer].concat(), want);
    assert!(fs::metadata(log).unwrap().size() <= 30_000);
    bench.end().await;
}
