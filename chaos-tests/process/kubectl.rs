//! Connections into Pods by the real `kubectl`, every version of it that is on this machine.

use crate::{
    cluster::{Cluster, SOON, Said, eventually, with_cluster_in},
    manifests::PodText,
};
use nix::pty::{Winsize, openpty};
use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
    time::timeout,
};

/// For all versions.
const WHOLE: Duration = Duration::from_secs(900);
const DIRS: &[&str] = &[
    "/usr/lib/google-cloud-sdk/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/snap/bin",
    "/opt/homebrew/bin",
];

/// Names one more directory.
const MORE: &str = "TRIREME_KUBECTLS";

/// Those that are here, each once: `kubectl`, and `kubectl.1.30` and the like.
pub(crate) fn installed() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let more = std::env::var_os(MORE).map(PathBuf::from);
    for dir in DIRS.iter().map(PathBuf::from).chain(more) {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries
            .filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let version = name.strip_prefix("kubectl");
                version.is_some_and(|v| v.is_empty() || v.starts_with(".1."))
            })
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        for path in paths {
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            if seen.insert((real, path.file_name().map(ToOwned::to_owned))) {
                found.push(path);
            }
        }
    }
    found
}

/// One version of it, and what it talks with.
pub(crate) struct Kubectl<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) program: &'a Path,
    /// Such as `1-30`.
    pub(crate) tag: String,
    pub(crate) dir: PathBuf,
}

impl<'a> Kubectl<'a> {
    pub(crate) fn new(cluster: &'a Cluster, program: &'a Path) -> Self {
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let tag = name.trim_start_matches("kubectl").trim_matches('.').replace('.', "-");
        let tag = if tag.is_empty() { "plain".to_owned() } else { tag };
        let dir = cluster.record_dir(&format!("kubectl-{tag}"));
        Self { cluster, program, tag, dir }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command
            .env("KUBECONFIG", self.cluster.dir().join("kubeconfig"))
            .env("HOME", &self.dir)
            .current_dir(&self.dir)
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn said(&self, command: &mut Command, input: &[u8]) -> Said {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let written = async {
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let both = async { tokio::join!(written, child.wait_with_output()).1 };
        let output = timeout(SOON, both).await;
        let output = output.unwrap_or_else(|_| panic!("{}: {command:?} does not end", self.tag));
        said(output.unwrap())
    }

    pub(crate) async fn run(&self, arguments: &[&str], input: &[u8]) -> Said {
        self.said(&mut self.command(arguments), input).await
    }

    /// With a terminal of this size; what came on it, and the exit code. Each text is typed when another
    /// one was seen so often.
    async fn terminal(&self, arguments: &[&str], typed: &[(&str, usize, &[u8])]) -> (i32, String) {
        let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let mut child = self
            .command(arguments)
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .stderr(end(&pty.slave))
            .spawn()
            .unwrap();
        drop(pty.slave);
        let master = tokio::fs::File::from_std(File::from(pty.master));
        let mut typing =
            tokio::fs::File::from_std(master.try_clone().await.unwrap().into_std().await);
        let mut master = master;
        let mut text = String::new();
        let mut typed = typed.iter().peekable();
        let talk = async {
            let mut piece = [0; 4096];
            // The end of a terminal is an error.
            while let Ok(read @ 1..) = master.read(&mut piece).await {
                text.push_str(&String::from_utf8_lossy(&piece[..read]));
                let seen =
                    |(seen, times, _): &&(&str, usize, &[u8])| text.matches(seen).count() >= *times;
                while let Some((.., bytes)) = typed.next_if(seen) {
                    typing.write_all(bytes).await.unwrap();
                    typing.flush().await.unwrap();
                }
            }
        };
        let done = timeout(SOON, talk).await;
        assert!(done.is_ok(), "{}: {arguments:?} does not end: {text:?}", self.tag);
        let code = timeout(SOON, child.wait()).await.unwrap().unwrap();
        (code.code().unwrap_or(-1), text)
    }

    pub(crate) async fn exec(&self) {
        let pod = "connected";
        let code = self.run(&["exec", pod, "--", "run", "print out", "exit 7"], b"").await;
        assert_eq!((code.code, code.out.as_str()), (7, "out\n"), "{code:?}");
        let large: Vec<u8> =
            (0..300_000u32).map(|i| b'a' + u8::try_from(i % 26).unwrap()).collect();
        let repeated = self.run(&["exec", "-i", pod, "-c", "main", "--", "cat"], &large).await;
        assert_eq!((repeated.code, repeated.err.as_str()), (0, ""), "{}", repeated.err);
        assert!(repeated.out.as_bytes() == large, "{} of {}", repeated.out.len(), large.len());
        let missing = self.run(&["exec", pod, "--", "nowhere", "x"], b"").await;
        assert_eq!(missing.code, 1, "{missing:?}");
        let text = "exec: \"nowhere\": executable file not found in $PATH";
        assert!(missing.err.contains(text), "{missing:?}");
        let wrong = self.run(&["exec", pod, "-c", "nobody", "--", "true"], b"").await;
        assert_eq!(wrong.code, 1, "{wrong:?}");
        assert!(wrong.err.contains("nobody"), "{wrong:?}");
        let (code, text) = self.terminal(&["exec", "-it", pod, "--", "tty"], &[]).await;
        assert!(code == 0 && text.contains("/dev/pts/"), "{code} {text:?}");
        // The size comes beside the program's start.
        eventually("the terminal has kubectl's size", SOON, async || {
            let steps = ["exec", "-it", pod, "--", "stty", "size"];
            let (code, text) = self.terminal(&steps, &[]).await;
            if code == 0 && text.contains("33 99") { Ok(()) } else { Err(format!("{code} {text}")) }
        })
        .await;
        let steps = ["exec", "-it", pod, "--", "run", "print ready", "sleep 20"];
        let (code, text) = self.terminal(&steps, &[("ready", 1, b"\x03")]).await;
        assert_eq!(code, 130, "typed interrupts arrive: {text:?}");
    }

    pub(crate) async fn attach(&self) {
        let name = format!("attached-{}", self.tag);
        let manifest = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, \
             containers: [{{name: main, image: toolbox, command: [cat], stdin: true, \
             stdinOnce: true}}]}}}}"
        );
        self.cluster.create(&manifest).await;
        self.cluster.ready(&name).await;
        let said = self.run(&["attach", "-i", &name], b"over here\n").await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("over here\n"), "{said:?}");
        self.cluster.phase(&name, "Succeeded").await;
        assert_eq!(self.cluster.log(&name, "main").await, "over here\n");
        let name = format!("run-{}", self.tag);
        let steps =
            ["run", &name, "-it", "--rm", "--restart=Never", "--image=toolbox", "--", "cat"];
        // What it says before somebody is attached is only in its log: so it has to wait.
        // Once by the terminal, once by the program; and once by this side, if that is not quiet yet. Only then
        // does an end of input reach the other side.
        let typed: [(&str, usize, &[u8]); 2] =
            [("press", 1, b"typed\n"), ("typed\r\n", 2, b"\x04")];
        let (code, text) = self.terminal(&steps, &typed).await;
        assert!(code == 0 && text.matches("typed\r\n").count() >= 2, "{code} {text:?}");
        assert!(text.contains("deleted"), "{text:?}");
        let name = format!("shell-{}", self.tag);
        let steps = ["run", &name, "-i", "--rm", "--restart=Never", "--image=toolbox", "--", "cat"];
        let said = self.run(&steps, b"one\ntwo\n").await;
        assert!(said.code == 0 && said.out.contains("two\n"), "{said:?}");
    }

    pub(crate) async fn copy(&self) {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251).to_le_bytes()[0]).collect();
        std::fs::write(self.dir.join("there"), &bytes).unwrap();
        let inside = format!("connected:/tmp/{}", self.tag);
        let to = self.run(&["cp", "there", &inside], b"").await;
        assert_eq!(to.code, 0, "{to:?}");
        let from = self.run(&["cp", &inside, "back"], b"").await;
        assert_eq!(from.code, 0, "{from:?}");
        assert!(std::fs::read(self.dir.join("back")).unwrap() == bytes, "{from:?}");
    }

    pub(crate) async fn ports(&self) {
        let mut child = self
            .command(&["port-forward", "pod/connected", ":8080", ":8099"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut port = async |pod_port: &str| loop {
            let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
            let rest = line.strip_prefix("Forwarding from 127.0.0.1:");
            if let Some((port, to)) = rest.and_then(|rest| rest.split_once(" -> "))
                && to == pod_port
            {
                return port.parse::<u16>().unwrap();
            }
        };
        let (open, closed) = (port("8080").await, port("8099").await);
        let get = async |port: u16| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
            assert!(read.is_ok(), "{}: no answer at {port}", self.tag);
            String::from_utf8_lossy(&answer).into_owned()
        };
        let beside = futures::future::join_all([open, open, open].map(&get)).await;
        for answer in beside {
            assert!(answer.starts_with("HTTP/1.0 200"), "{answer:.60}");
            // More than the windows that SPDY begins with.
            assert!(answer.ends_with("the end\n") && answer.len() > 400_000, "{}", answer.len());
        }
        // Nobody listens there, and kubectl says why.
        assert_eq!(get(closed).await, "");
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let why = async {
            while let Some(line) = stderr.next_line().await.unwrap() {
                if line.contains("8099") && line.contains("refused") {
                    return;
                }
            }
            panic!("kubectl does not say why");
        };
        timeout(SOON, why).await.unwrap();
        child.kill().await.unwrap();
    }

    pub(crate) async fn logs(&self) {
        let name = format!("talks-{}", self.tag);
        let text = PodText::new(&name).spec("restartPolicy: Never").container(
            "main",
            &["print one", "sleep 0.5", "print two", "sleep 0.5", "print three"],
        );
        self.cluster.create(&text.yaml()).await;
        self.cluster.line(&name, "main", "one").await;
        let followed = self.run(&["logs", "-f", &name], b"").await;
        assert_eq!(
            (followed.code, followed.out.as_str()),
            (0, "one\ntwo\nthree\n"),
            "{followed:?}"
        );
        for (options, want) in [
            (&["--tail=1"][..], "three\n"),
            (&["--limit-bytes=5"], "one\nt"),
            (&["--since=1h", "--tail=2"], "two\nthree\n"),
        ] {
            let said = self.run(&[&["logs", &name], options].concat(), b"").await;
            assert_eq!((said.code, said.out.as_str()), (0, want), "{options:?} {said:?}");
        }
        let stamped = self.run(&["logs", &name, "--timestamps", "--tail=1"], b"").await;
        let (time, rest) = stamped.out.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && rest == "three\n", "{stamped:?}");
        let previous = self.run(&["logs", &name, "--previous"], b"").await;
        let text = format!("previous terminated container \"main\" in pod \"{name}\" not found");
        assert!(previous.code == 1 && previous.err.contains(&text), "{previous:?}");
    }
}

fn said(output: Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// A program that is gone with its client leaves nothing in the container.
async fn the_client_goes(kubectl: &Kubectl<'_>) {
    let pod = kubectl.cluster.ready("connected").await;
    let own = || crate::machine::processes_of(crate::cluster::uid(&pod));
    let before = own();
    let mut child = kubectl
        .command(&["exec", "connected", "--", "run", "print ready", "on-term /tmp/x", "sleep inf"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    timeout(SOON, out.read_line(&mut line)).await.unwrap().unwrap();
    assert_eq!(line, "ready\n");
    assert!(own().len() > before.len());
    child.kill().await.unwrap();
    eventually("the program ends with its client", SOON, async || {
        let left: Vec<u32> = own().difference(&before).copied().collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// Nor does one whose client goes while the program does not read what it was sent: nothing is read then
/// that could tell of it.
async fn clients_that_wait_go(kubectls: &[Kubectl<'_>]) {
    let pod = kubectls[0].cluster.ready("connected").await;
    let own = || crate::machine::processes_of(crate::cluster::uid(&pod));
    let before = own();
    let start = async |kubectl: &Kubectl<'_>| {
        let mut child = kubectl
            .command(&["exec", "-i", "connected", "--", "sleep", "inf"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let piece = vec![0; 1 << 20];
        let mut sent = 0;
        // Until everything on the way is full.
        while timeout(Duration::from_secs(3), stdin.write_all(&piece)).await.is_ok() {
            sent += 1;
            assert!(sent < 64, "{}: nothing holds it back", kubectl.tag);
        }
        (child, stdin)
    };
    let mut children = futures::future::join_all(kubectls.iter().map(start)).await;
    assert!(own().len() >= before.len() + kubectls.len());
    for (child, _) in &mut children {
        child.kill().await.unwrap();
    }
    eventually("the programs end with their clients", SOON * 3, async || {
        let left: Vec<u32> = own().difference(&before).copied().collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[test]
fn every_kubectl_reaches_into_pods() {
    // SUB-5
    let programs = installed();
    if programs.is_empty() {
        eprintln!("skipped: no kubectl is installed");
        return;
    }
    with_cluster_in(&std::env::temp_dir(), 1, None, WHOLE, async |cluster| {
        let page = "x".repeat(99) + "\\n";
        let text = PodText::new("connected")
            .record(&cluster.record_dir("pages"))
            .container("main", &["http 127.0.0.1:8080 /record", "sleep inf"]);
        let page = page.replace("\\n", "\n").repeat(4100) + "the end\n";
        std::fs::write(cluster.record_dir("pages").join("page"), page).unwrap();
        cluster.create(&text.yaml()).await;
        cluster.ready("connected").await;
        let mut kubectls = Vec::new();
        for program in &programs {
            let kubectl = Kubectl::new(cluster, program);
            eprintln!("{}", program.display());
            kubectl.exec().await;
            kubectl.attach().await;
            kubectl.copy().await;
            kubectl.ports().await;
            kubectl.logs().await;
            the_client_goes(&kubectl).await;
            kubectls.push(kubectl);
        }
        clients_that_wait_go(&kubectls).await;
    });
}
