//! A cluster as on machines of one's own: made by `init`, joined by replicas and a node, and one replica lost.

use crate::{
    cluster::{SOON, Said, eventually, program},
    kubectl::installed,
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use server::config::{NodeConfig, ReplicaConfig, read};
use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::TcpStream,
    process::{Child, Command},
    runtime::Handle,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Of replicas; all of them are on this machine.
const HOST: &str = "127.0.0.1";
/// Of the node: no replica is there.
const NODE_HOST: &str = "127.0.0.2";
const WHOLE: Duration = Duration::from_secs(300);

/// The commands that `init` has printed, without what a test puts in.
struct Invitations {
    server: String,
    hash: String,
    for_replicas: String,
    for_nodes: String,
}

impl Invitations {
    fn read(said: &str) -> Self {
        let commands: Vec<&str> =
            said.lines().map(str::trim).filter(|line| line.starts_with("trireme join")).collect();
        let after = |line: &str, flag: &str| {
            line.split(&format!("{flag} ")).nth(1).unwrap().split(' ').next().unwrap().to_owned()
        };
        let of = |flag: &str| *commands.iter().find(|line| line.contains(flag)).unwrap();
        let (replica, node) = (of("--replica"), of("--node"));
        Self {
            server: after(node, "--server"),
            hash: after(node, "--ca-hash"),
            for_replicas: after(replica, "--token"),
            for_nodes: after(node, "--token"),
        }
    }
}

struct Machines {
    dir: PathBuf,
    running: BTreeMap<String, Child>,
}

fn ports<const N: usize>() -> [String; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((HOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port().to_string())
}

impl Machines {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, role: &str, name: &str) -> Command {
        let log = fs::File::create(self.dir.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trireme"));
        command
            .args([role, "--config", &format!("{}/config.toml", self.path(name))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    fn start(&mut self, role: &str, name: &str) {
        let child = self.command(role, name).spawn().unwrap();
        self.running.insert(name.to_owned(), child);
    }

    /// Starts the agent of a node that can connect to these replicas while nobody can connect to it, as behind NAT:
    /// in a network of its own, from which only connections to the replicas' ports lead out.
    fn start_behind_nat(&mut self, name: &str, replicas: &[&str], ways: &mut JoinSet<()>) {
        let mut command = self.command("kubelet", name);
        let ports: Vec<u16> = replicas
            .iter()
            .map(|replica| {
                let config = self.dir.join(replica).join("config.toml");
                read::<ReplicaConfig>(&config).unwrap().api.listen.port()
            })
            .collect();
        let runtime = Handle::current();
        // Of this thread alone, and of what it starts.
        let inside = std::thread::spawn(move || {
            let _runtime = runtime.enter();
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.unwrap().success());
            let listening = ports.iter().map(|port| TcpListener::bind((HOST, *port)).unwrap());
            (listening.collect::<Vec<_>>(), command.spawn().unwrap())
        });
        let (listening, child) = inside.join().unwrap();
        self.running.insert(name.to_owned(), child);
        for listener in listening {
            ways.spawn(lead_out(listener));
        }
    }

    async fn join(&self, name: &str, token: &str, hash: &str, server: &str, role: &[&str]) -> Said {
        let dir = self.path(name);
        let ports: [String; 4] = ports();
        let [api, raft, etcd, kubelet] = ports.each_ref().map(String::as_str);
        let mut all = vec![
            "join",
            "--data-dir",
            &dir,
            "--server",
            server,
            "--token",
            token,
            "--ca-hash",
            hash,
            "--name",
            name,
            "--api-port",
            api,
            "--raft-port",
            raft,
            "--etcd-port",
            etcd,
            "--kubelet-port",
            kubelet,
        ];
        all.extend(role);
        let said = program(&all).await;
        assert_eq!(said.code == 0, Path::new(&dir).exists(), "all or nothing: {said:?}");
        assert!(!self.dir.join(format!("{name}.new")).exists(), "{said:?}");
        said
    }

    async fn cli(&self, at: &str, arguments: &[&str]) -> Said {
        let dir = self.path(at);
        let end = arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len());
        let (verb, rest) = arguments.split_at(end);
        program(&[verb, &["--data-dir", dir.as_str()], rest].concat()).await
    }

    /// How many members are where in the group, as the replica of this directory says.
    async fn roles(&self, at: &str) -> Result<BTreeMap<String, usize>, String> {
        let said = self.cli(at, &["cluster", "status", "--json"]).await;
        let status: Value = serde_json::from_str(&said.out).map_err(|_| said.err)?;
        let mut roles = BTreeMap::new();
        for member in status["members"].as_array().into_iter().flatten() {
            let reachable = member["reachable"] == true;
            let role = if reachable { member["role"].as_str().unwrap_or_default() } else { "gone" };
            *roles.entry(role.to_owned()).or_default() += 1;
        }
        Ok(roles)
    }

    async fn roles_are(&self, at: &str, want: &[(&str, usize)]) {
        let want: BTreeMap<String, usize> =
            want.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect();
        eventually(format!("{want:?}"), SOON * 2, async || {
            let found = self.roles(at).await?;
            if found == want { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    async fn terminate(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        timeout(SOON, child.wait()).await.expect("it ends").unwrap();
    }
}

/// Whoever connects to `listener` is connected to the same port of this machine.
async fn lead_out(listener: TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let there = listener.local_addr().unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let Ok(mut far) = TcpStream::connect(there).await else { return };
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

fn done(said: Said) -> String {
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    said.out
}

async fn story(machines: &mut Machines) {
    let [api, raft, etcd] = ports();
    let first = machines.path("r1");
    let init = [
        "init",
        "--data-dir",
        &first,
        "--advertise",
        HOST,
        "--name",
        "r1",
        "--api-port",
        &api,
        "--raft-port",
        &raft,
        "--etcd-port",
        &etcd,
    ];
    let invited = Invitations::read(&done(program(&init).await));
    let again = program(&init).await;
    assert!(again.code != 0 && again.err.contains("holds something already"), "{again:?}");
    let Invitations { server, hash, for_replicas, for_nodes } = &invited;
    let node = ["--node", "--advertise", NODE_HOST];
    let replica = ["--replica", "--advertise", HOST];
    // Nobody is there yet.
    let said = machines.join("n1", for_nodes, hash, server, &node).await;
    assert!(said.err.contains("Connection refused"), "{said:?}");
    machines.start("server", "r1");
    machines.roles_are("r1", &[("leader", 1)]).await;
    eventually("the first tokens are there", SOON, async || {
        let found = machines.cli("r1", &["token", "list"]).await;
        if found.out.lines().count() == 3 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert!(!machines.dir.join("r1/first-objects.json").exists());
    refusals(machines, &invited).await;
    for name in ["r2", "r3"] {
        done(machines.join(name, for_replicas, hash, server, &replica).await);
        machines.start("server", name);
        let followers = if name == "r2" { 1 } else { 2 };
        machines.roles_are("r1", &[("leader", 1), ("follower", followers)]).await;
    }
    let said = machines.join("r2-again", for_replicas, hash, server, &replica).await;
    // Another name, and a place of its own: that would be a fourth. It is taken back.
    done(said);
    let listed = done(machines.cli("r1", &["cluster", "members", "--json"]).await);
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let fourth = listed.iter().find(|member| member["name"] == "").unwrap();
    let fourth = fourth["id"].to_string();
    done(machines.cli("r1", &["cluster", "remove-member", &fourth]).await);
    done(machines.join("n1", for_nodes, hash, server, &node).await);
    let config = machines.dir.join("n1/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let ends = text.replace("removePodsOnExit = false", "removePodsOnExit = true");
    assert_ne!(text, ends);
    fs::write(&config, ends).unwrap();
    let mut ways = JoinSet::new();
    machines.start_behind_nat("n1", &["r1", "r2", "r3"], &mut ways);
    eventually("the node is there", SOON * 2, async || {
        let said = machines.cli("r2", &["wait", "node/n1", "--for", "condition=Ready"]).await;
        if said.code == 0 { Ok(()) } else { Err(said.err) }
    })
    .await;
    // Names are taken, wherever the files would be.
    fs::create_dir(machines.dir.join("other")).unwrap();
    let other = Machines { dir: machines.dir.join("other"), running: BTreeMap::new() };
    let said = other.join("n1", for_nodes, hash, server, &node).await;
    assert!(said.err.contains("there is a node \"n1\""), "{said:?}");
    let said = other.join("r3", for_replicas, hash, server, &replica).await;
    assert!(said.err.contains("there is a replica \"r3\""), "{said:?}");
    if let Some(kubectl) = installed().first() {
        let output = Command::new(kubectl)
            .env("HOME", &machines.dir)
            .args(["--kubeconfig", &format!("{first}/kubeconfig"), "get", "nodes"])
            .output()
            .await
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("n1"), "{output:?}");
    }
    for replica in ["r1", "r2"] {
        let dir = machines.dir.join(replica);
        let config: ReplicaConfig = read(&dir.join("config.toml")).unwrap();
        let renews = config.authority.unwrap().renews;
        assert_eq!(renews, [dir.join("pki/admin.pem"), dir.join("kubeconfig")]);
        assert!(renews.iter().all(|file| file.exists()), "{renews:?}");
    }
    // The one that everything began with is lost.
    machines.running.remove("r1").unwrap().kill().await.unwrap();
    machines.roles_are("r2", &[("leader", 1), ("follower", 1), ("gone", 1)]).await;
    let pod = machines.dir.join("pod.yaml");
    fs::write(
        &pod,
        "{apiVersion: v1, kind: Pod, metadata: {name: lives}, spec: {terminationGracePeriodSeconds: 1, \
         containers: [{name: main, image: toolbox, command: [sleep, inf]}]}}",
    )
    .unwrap();
    done(machines.cli("r3", &["apply", "-f", pod.to_str().unwrap()]).await);
    done(machines.cli("r3", &["wait", "pod/lives", "--for", "condition=Ready"]).await);
    // SUB-5: nobody can connect to the node, so either replica calls it.
    let config: NodeConfig = read(&config).unwrap();
    let refused = TcpStream::connect(config.api.listen).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    for replica in ["r2", "r3"] {
        let said = machines.cli(replica, &["exec", "lives", "--", "run", "print here"]).await;
        assert_eq!((said.code, said.out.trim()), (0, "here"), "{said:?}");
    }
    done(machines.cli("r2", &["delete", "pod", "lives"]).await);
}

/// Nothing is left of what is refused, here or there.
async fn refusals(machines: &Machines, invited: &Invitations) {
    let Invitations { server, hash, for_replicas, for_nodes } = invited;
    let node = ["--node", "--advertise", NODE_HOST];
    let replica = ["--replica", "--advertise", HOST];
    let create = async |more: &[&str]| {
        let said = machines.cli("r1", &[&["token", "create"][..], more].concat()).await;
        assert!(said.err.contains("trireme join") && said.err.contains(hash.as_str()), "{said:?}");
        done(said).trim().to_owned()
    };
    let short = create(&["--ttl", "1s"]).await;
    let deleted = create(&["--description", "for nobody"]).await;
    done(machines.cli("r1", &["token", "delete", &deleted]).await);
    sleep(Duration::from_secs(2)).await;
    let other_secret = format!("{}.0123456789abcdef", for_nodes.split('.').next().unwrap());
    let other_hash = format!("sha256:{}", "0".repeat(64));
    let (elsewhere, at_replica) =
        ("https://127.0.0.1:1".to_owned(), ["--node", "--advertise", HOST]);
    for (token, hash, server, role, want) in [
        (for_nodes, &other_hash, server, &node, "shows no authority with the hash"),
        (for_nodes, hash, &elsewhere, &node, "Connection refused"),
        (&short, hash, server, &node, "the token is not taken"),
        (&deleted, hash, server, &node, "the token is not taken"),
        (&other_secret, hash, server, &node, "the token is not taken"),
        (for_nodes, hash, server, &replica, "the token is for something else"),
        (for_replicas, hash, server, &at_replica, "is where a replica is"),
    ] {
        let said = machines.join("refused", token, hash, server, role).await;
        assert!(said.code != 0 && said.err.contains(want), "{want}: {said:?}");
    }
    machines.roles_are("r1", &[("leader", 1)]).await;
}

#[test]
fn machines_join_with_a_token_and_one_may_be_lost() {
    assert!(nix::unistd::geteuid().is_root(), "this test runs real containers: it needs root");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::Builder::new().prefix("trireme-machines-").tempdir().unwrap();
        let mut machines = Machines { dir: dir.path().to_owned(), running: BTreeMap::new() };
        let told = std::panic::AssertUnwindSafe(timeout(WHOLE, story(&mut machines)));
        let told = futures::FutureExt::catch_unwind(told).await;
        if machines.running.contains_key("n1") {
            machines.terminate("n1").await;
        }
        for (name, mut child) in std::mem::take(&mut machines.running) {
            child.kill().await.unwrap();
            if told.is_err() {
                let log = fs::read_to_string(dir.path().join(format!("{name}.log"))).unwrap();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {name}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
            }
        }
        match told {
            Ok(in_time) => in_time.expect("in time"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
}
