//! A group of members, etcd's or ours: the same flags for both.

use std::{
    fs::File,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// For something that takes well under a second when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Whose program the members run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Etcd,
    Trireme,
}

/// Where Debian has it.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/local/bin"].iter().map(|d| Path::new(d).join(program)).find(|p| p.exists())
}

/// Whether these programs are here. If not, the test that asks is to end, and this says so past the
/// capture of output, so that it shows although the test passes.
pub(crate) fn all_installed(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|name| installed(name).is_none()).collect();
    if !missing.is_empty() {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        // Not `eprintln`, which is captured.
        let mut stderr = std::io::stderr().lock();
        writeln!(
            stderr,
            "SKIPPED {test}: {missing:?} is missing; apt-get install etcd-client etcd-server"
        )
        .unwrap();
    }
    missing.is_empty()
}

impl System {
    /// A program by the name `etcd`: ours is a link to itself.
    fn program(self, dir: &Path) -> PathBuf {
        match self {
            Self::Etcd => installed("etcd").expect("etcd is installed"),
            Self::Trireme => {
                let link = dir.join("etcd");
                if !link.exists() {
                    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_trireme"), &link).unwrap();
                }
                link
            }
        }
    }
}

/// Members that run, until it is dropped.
pub(crate) struct Group {
    dir: TempDir,
    system: System,
    pub(crate) members: Vec<Member>,
}

pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) client: u16,
    pub(crate) peer: u16,
    process: Option<Child>,
}

/// That nobody listens on now.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Group {
    /// Members on loopback; `more` are flags for each.
    pub(crate) async fn start(system: System, members: usize, more: &[String]) -> Self {
        let mut group = Self::prepare(system, members);
        for i in 0..members {
            group.spawn(i, "http", more);
        }
        for i in 0..members {
            group.ready(i).await;
        }
        group
    }

    /// Nothing runs yet.
    pub(crate) fn prepare(system: System, members: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("trireme-compat-").tempdir().unwrap();
        let ports = free_ports(2 * members);
        let members = ports.chunks(2).zip(1..).map(|(ports, n)| Member {
            name: format!("m{n}"),
            client: ports[0],
            peer: ports[1],
            process: None,
        });
        Self { members: members.collect(), dir, system }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data_dir(&self, member: usize) -> PathBuf {
        self.dir().join(&self.members[member].name)
    }

    fn log_file(&self, member: usize) -> PathBuf {
        self.dir().join(format!("{}.log", self.members[member].name))
    }

    pub(crate) fn log(&self, member: usize) -> String {
        std::fs::read_to_string(self.log_file(member)).unwrap_or_default()
    }

    /// What every member is started with.
    pub(crate) fn flags(&self, member: usize, scheme: &str) -> Vec<String> {
        let Member { name, client, peer, .. } = &self.members[member];
        let peers = self.members.iter().map(|m| format!("{}=http://127.0.0.1:{}", m.name, m.peer));
        let peers: Vec<String> = peers.collect();
        [
            ("name", name.clone()),
            ("data-dir", self.data_dir(member).display().to_string()),
            ("listen-client-urls", format!("{scheme}://127.0.0.1:{client}")),
            ("advertise-client-urls", format!("{scheme}://127.0.0.1:{client}")),
            ("listen-peer-urls", format!("http://127.0.0.1:{peer}")),
            ("initial-advertise-peer-urls", format!("http://127.0.0.1:{peer}")),
            ("initial-cluster", peers.join(",")),
            ("initial-cluster-token", "compat".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [format!("--{flag}"), value])
        .collect()
    }

    pub(crate) fn spawn(&mut self, member: usize, scheme: &str, more: &[String]) {
        let mut flags = self.flags(member, scheme);
        flags.extend_from_slice(more);
        self.spawn_with(member, &flags, &[]);
    }

    pub(crate) fn spawn_with(
        &mut self,
        member: usize,
        flags: &[String],
        environment: &[(&str, String)],
    ) {
        let log = File::create(self.log_file(member)).unwrap();
        let mut command = Command::new(self.system.program(self.dir()));
        command
            .args(flags)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        self.members[member].process = Some(command.spawn().unwrap());
    }

    /// Waits for the line that says that clients are served.
    pub(crate) async fn ready(&mut self, member: usize) {
        let until = Instant::now() + SOON;
        while !self.log(member).contains("ready to serve client requests") {
            let process = self.members[member].process.as_mut().expect("it was started");
            let ended = process.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < until,
                "{:?} {member} is not ready, {ended:?}:\n{}",
                self.system,
                self.log(member)
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends a member that was started; whether it said that it ended well.
    pub(crate) async fn end(&mut self, member: usize) -> bool {
        let mut process = self.members[member].process.take().expect("it was started");
        let pid = i32::try_from(process.id().expect("it runs")).unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        process.wait().await.unwrap().success()
    }

    /// What a member said that refused to start, and its exit code.
    pub(crate) async fn refusal(&mut self, member: usize) -> (Option<i32>, String) {
        let mut process = self.members[member].process.take().expect("it was started");
        let ended = tokio::time::timeout(SOON, process.wait()).await.expect("it ends").unwrap();
        (ended.code(), self.log(member))
    }

    /// `host:port` of each.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("127.0.0.1:{}", member.client)).collect()
    }

    /// All that only this group has: where clients reach it, then where peers do.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let peers = self.members.iter().map(|member| format!("127.0.0.1:{}", member.peer));
        self.endpoints().into_iter().chain(peers).collect()
    }

    /// `etcdctl` with this group's endpoints.
    pub(crate) fn etcdctl(&self) -> Command {
        let mut command = Command::new(installed("etcdctl").expect("etcdctl is installed"));
        command
            .env("ETCDCTL_API", "3")
            .env("ETCDCTL_ENDPOINTS", self.endpoints().join(","))
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}
