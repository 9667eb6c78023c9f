//! What every [`Runtime`] must do, as a suite that each implementation runs in its tests.
//!
//! Every property keeps to Pods of its own, and takes them down. What a container does is said twice,
//! as a program and as a script of the fake runtime; each implementation looks at one of them.

use super::{
    Container, ContainerConfig, ContainerId, ContainerState, ExecConfig, PodRef, Resources,
    Runtime, RuntimeError, RuntimePod, SandboxConfig, Security,
};
use async_trait::async_trait;
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    time::{interval, timeout},
};

/// Longer than anything here takes on a busy machine; a property that waits so long has failed.
const DEADLINE: Duration = Duration::from_secs(20);
/// Where [`Program::Serves`] listens.
pub const PORT: u16 = 8007;
/// Where nobody does.
const CLOSED_PORT: u16 = 1;
/// Where the Pods' addresses come from.
const CIDR: &str = "10.127.239.0/24";

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Runs until TERM, and ends with 7.
    Listens,
    /// Runs, and takes no notice of TERM.
    Deaf,
    /// Runs with two more processes, that take no notice of TERM either.
    Tree,
    /// Ends with this code.
    Ends(i32),
    /// Repeats its standard input until that ends.
    Repeats,
    /// Prints the size of its terminal, as `80x24`, whenever it is another, until its input ends.
    Sizes,
    /// Listens at [`PORT`] of its own loopback address, and repeats what comes.
    Serves,
    /// There is no such program.
    Missing,
}

impl Program {
    fn script(self) -> String {
        match self {
            Self::Listens | Self::Repeats | Self::Sizes | Self::Serves => "term=7".to_owned(),
            Self::Deaf | Self::Tree => "term=ignore".to_owned(),
            Self::Ends(code) => format!("exit={code}@20ms"),
            Self::Missing => "start=fail".to_owned(),
        }
    }
}

/// An implementation, and what the host shows of it.
#[async_trait]
pub trait Subject: Sync {
    /// Opens the runtime; later calls, when nobody has the last one any more, open it again.
    async fn open(&self) -> Arc<dyn Runtime>;
    /// The image that the programs are in.
    fn image(&self) -> String;
    /// A program and its arguments.
    fn argv(&self, program: Program) -> Vec<String>;
    /// Processes of the Pod; `None` where there are none by nature.
    fn processes(&self, uid: &str) -> Option<usize>;
    /// Whatever the host still holds of a Pod, by name.
    fn leftovers(&self, uid: &str) -> Vec<String>;
}

/// Runs all properties one after the other.
///
/// # Panics
/// At the first property that does not hold.
pub async fn run(subject: &dyn Subject) {
    let runtime = subject.open().await;
    runtime.set_pod_cidr(CIDR);
    let case = async |name, programs: &[Program]| {
        tracing::info!(name, "property");
        Case::new(subject, Arc::clone(&runtime), name, programs).await
    };
    a_sandbox_is_made_once(case("sandbox", &[]).await).await;
    one_instance_exists_of_an_attempt(case("once", &[Program::Listens]).await).await;
    let ends = [0, 1, 77, 255].map(Program::Ends);
    an_end_is_told_with_its_code(case("codes", &ends).await).await;
    let programs = [Program::Listens, Program::Deaf, Program::Deaf];
    a_signal_ends_what_listens_and_kill_the_rest(case("signals", &programs).await).await;
    kill_takes_every_process_of_the_container(case("tree", &[Program::Tree]).await).await;
    let programs = [Program::Deaf, Program::Ends(0), Program::Tree];
    a_removed_pod_leaves_nothing(case("remove", &programs).await).await;
    a_program_runs_beside_the_container(case("exec", &[Program::Deaf]).await).await;
    a_program_has_a_terminal_of_its_own(case("terminal", &[Program::Deaf]).await).await;
    a_program_that_nobody_wants_is_ended(case("unwanted", &[Program::Deaf]).await).await;
    let programs = [Program::Repeats, Program::Repeats];
    who_is_attached_hears_and_is_heard(case("attach", &programs).await).await;
    a_container_has_a_terminal(case("console", &[Program::Sizes]).await).await;
    a_port_is_the_pods_own(case("port", &[Program::Serves]).await).await;
    what_cannot_be_started_has_ended_with_128(case("missing", &[Program::Missing]).await).await;
    what_is_not_there_is_not_found(case("unknown", &[]).await).await;
    an_ended_instance_is_forgotten(case("forget", &[Program::Deaf]).await).await;
    an_image_is_there_after_its_pull(case("image", &[]).await).await;
    let case = case("reopen", &[Program::Listens, Program::Ends(5)]).await;
    drop(runtime);
    what_exists_is_found_again(case).await;
}

/// One property's Pod.
struct Case<'a> {
    subject: &'a dyn Subject,
    runtime: Arc<dyn Runtime>,
    programs: Vec<Program>,
    uid: String,
}

impl<'a> Case<'a> {
    async fn new(
        subject: &'a dyn Subject,
        runtime: Arc<dyn Runtime>,
        name: &str,
        programs: &[Program],
    ) -> Self {
        let uid = format!("{name}-{}", uuid::Uuid::new_v4());
        let case = Self { subject, runtime, programs: programs.to_vec(), uid };
        case.sandbox().await;
        case
    }

    async fn sandbox(&self) -> super::Sandbox {
        let scripts = self.programs.iter().enumerate().map(|(i, program)| {
            // Programs that are run inside: see `exec`.
            let script = format!("{} exec:ends=9", program.script());
            (format!("fake.trireme.local/c{i}"), script)
        });
        let config = SandboxConfig {
            pod: PodRef {
                namespace: "suite".to_owned(),
                name: "pod".to_owned(),
                uid: self.uid.clone(),
            },
            attempt: 0,
            hostname: "pod".to_owned(),
            host_network: false,
            resources: Resources::default(),
            annotations: scripts.collect(),
        };
        self.runtime.run_sandbox(config).await.expect("a sandbox")
    }

    fn config(&self, at: usize, attempt: u32) -> ContainerConfig {
        let program = self.programs.get(at).copied().unwrap_or(Program::Listens);
        ContainerConfig {
            name: format!("c{at}"),
            attempt,
            target: None,
            image: self.subject.image(),
            image_id: String::new(),
            argv: self.subject.argv(program),
            env: vec![("PATH".to_owned(), "/bin".to_owned())],
            working_dir: "/".to_owned(),
            mounts: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            stdin: false,
            stdin_once: false,
            tty: false,
            log_path: PathBuf::from("/dev/null"),
            log_bytes_max: u64::MAX,
            termination_message_path: "/message".to_owned(),
            hash: 0,
            annotations: BTreeMap::from([("kept".to_owned(), at.to_string())]),
        }
    }

    async fn start(&self, at: usize, attempt: u32) -> Result<Container, RuntimeError> {
        self.start_as(self.config(at, attempt)).await
    }

    async fn start_as(&self, config: ContainerConfig) -> Result<Container, RuntimeError> {
        let image = self.runtime.pull_image(&config.image).await?;
        let config = ContainerConfig { image_id: image.id, ..config };
        self.runtime.start_container(&self.uid, config).await
    }

    async fn running(&self, at: usize) -> ContainerId {
        let container = self.start(at, 0).await.expect("a container");
        assert!(matches!(container.state, ContainerState::Running { .. }), "{container:?}");
        container.id
    }

    async fn pod(&self) -> RuntimePod {
        self.runtime.pod(&self.uid).await.expect("records").expect("the Pod")
    }

    async fn state(&self, id: &ContainerId) -> ContainerState {
        let pod = self.pod().await;
        let found = pod.containers.into_iter().find(|container| container.id == *id);
        found.expect("the instance").state
    }

    /// Waits for the end: exit code and signal.
    async fn ended(&self, id: &ContainerId) -> (i32, Option<i32>) {
        let wait = async {
            let mut tick = interval(Duration::from_millis(5));
            loop {
                tick.tick().await;
                let state = self.state(id).await;
                if let ContainerState::Exited {
                    exit_code, signal, started_at, finished_at, ..
                } = state
                {
                    assert!(started_at <= finished_at, "it ended before it began");
                    return (exit_code, signal);
                }
            }
        };
        timeout(DEADLINE, wait).await.expect("the container ends")
    }

    /// Asks it to end, and waits: a program that has only just begun does not listen yet.
    async fn terminated(&self, id: &ContainerId) -> (i32, Option<i32>) {
        let ask = async {
            let mut tick = interval(Duration::from_millis(50));
            loop {
                tick.tick().await;
                self.runtime.signal(id, libc::SIGTERM).await.expect("TERM");
            }
        };
        tokio::select! {
            ended = self.ended(id) => ended,
            () = ask => unreachable!("it asks for ever"),
        }
    }

    async fn count_processes(&self, right: impl Fn(usize) -> bool) {
        let wait = async {
            let mut tick = interval(Duration::from_millis(5));
            while self.subject.processes(&self.uid).is_some_and(|n| !right(n)) {
                tick.tick().await;
            }
        };
        let found = || self.subject.processes(&self.uid);
        assert!(timeout(DEADLINE, wait).await.is_ok(), "processes: {:?}", found());
    }

    /// A program beside a container's: its code and its output.
    async fn exec(
        &self,
        id: &ContainerId,
        argv: Vec<String>,
        input: Option<&str>,
    ) -> Result<(i32, String), RuntimeError> {
        let config = ExecConfig { argv, stdin: input.is_some(), tty: false };
        let mut session = self.runtime.exec(id, config).await?;
        if let Some(input) = input {
            let mut stdin = session.stdin.take().expect("standard input was asked for");
            stdin.write_all(input.as_bytes()).await.expect("it reads");
            stdin.shutdown().await.expect("it reads to the end");
        }
        let mut output = String::new();
        let read = session.stdout.read_to_string(&mut output);
        timeout(DEADLINE, read).await.expect("the output ends").expect("it is text");
        let code = timeout(DEADLINE, session.exit).await.expect("the program ends");
        Ok((code.expect("an exit code"), output))
    }

    async fn end(self) {
        self.runtime.remove_pod(&self.uid).await.expect("the Pod is removed");
        assert_eq!(self.subject.leftovers(&self.uid), Vec::<String>::new(), "{}", self.uid);
    }
}

/// FEN-35: whatever is repeated after a crash finds what is there.
async fn a_sandbox_is_made_once(case: Case<'_>) {
    let (first, second) = (case.sandbox().await, case.sandbox().await);
    assert_eq!(first, second);
    assert!(first.ready);
    let in_range = |ip: IpAddr| ip.to_string().starts_with("10.127.239.");
    assert!(first.ip.is_some_and(in_range), "{first:?}");
    let all = case.runtime.pods().await.expect("records");
    let own = all.iter().filter(|pod| pod.sandbox.config.pod.uid == case.uid);
    assert_eq!(own.count(), 1);
    case.end().await;
}

/// FEN-35
async fn one_instance_exists_of_an_attempt(case: Case<'_>) {
    let (first, second) = tokio::join!(case.start(0, 0), case.start(0, 0));
    assert_eq!(first.expect("a container"), second.expect("the same"));
    assert_eq!(case.pod().await.containers.len(), 1);
    let again = case.start(0, 1).await.expect("the next instance");
    let pod = case.pod().await;
    let attempts: Vec<u32> = pod.containers.iter().map(|c| c.config.attempt).collect();
    assert_eq!(attempts, [0, 1]);
    assert_eq!(pod.containers.last().map(|c| &c.id), Some(&again.id));
    assert_eq!(again.config.annotations.get("kept").map(String::as_str), Some("0"));
    case.end().await;
}

/// CST-2, NOD-21
async fn an_end_is_told_with_its_code(case: Case<'_>) {
    for (at, program) in case.programs.iter().enumerate() {
        let Program::Ends(code) = *program else { continue };
        let mut events = case.runtime.events();
        let container = case.start(at, 0).await.expect("a container");
        let told = async {
            while let ContainerState::Running { .. } = case.state(&container.id).await {
                let event = events.recv().await.expect("events go on");
                assert_eq!(event.pod_uid, case.uid, "of another Pod");
            }
        };
        timeout(DEADLINE, told).await.expect("its end is told");
        assert_eq!(case.ended(&container.id).await, (code, None));
    }
    case.end().await;
}

/// DEL-23, DEL-25, CST-2
async fn a_signal_ends_what_listens_and_kill_the_rest(case: Case<'_>) {
    let (listens, deaf, other) =
        (case.running(0).await, case.running(1).await, case.running(2).await);
    assert_eq!(case.terminated(&listens).await, (7, None));
    case.runtime.signal(&deaf, libc::SIGTERM).await.expect("TERM");
    assert!(matches!(case.state(&deaf).await, ContainerState::Running { .. }));
    case.runtime.kill(&deaf).await.expect("KILL");
    assert_eq!(case.ended(&deaf).await, (137, Some(9)));
    case.runtime.signal(&other, libc::SIGKILL).await.expect("signal 9");
    assert_eq!(case.ended(&other).await, (137, Some(9)));
    // What has ended may be asked again.
    case.runtime.signal(&listens, libc::SIGTERM).await.expect("TERM after the end");
    case.runtime.kill(&listens).await.expect("KILL after the end");
    assert_eq!(case.ended(&listens).await, (7, None));
    case.end().await;
}

/// DEL-23
async fn kill_takes_every_process_of_the_container(case: Case<'_>) {
    case.count_processes(|n| n == 0).await;
    let id = case.running(0).await;
    case.count_processes(|n| n == 3).await;
    case.runtime.kill(&id).await.expect("KILL");
    assert_eq!(case.ended(&id).await, (137, Some(9)));
    case.count_processes(|n| n == 0).await;
    case.end().await;
}

async fn a_removed_pod_leaves_nothing(case: Case<'_>) {
    for at in 0..case.programs.len() {
        case.running(at).await;
    }
    for _ in 0..2 {
        case.runtime.remove_pod(&case.uid).await.expect("it is removed");
        assert_eq!(case.runtime.pod(&case.uid).await.expect("records"), None);
        assert_eq!(case.subject.leftovers(&case.uid), Vec::<String>::new());
    }
    // The same Pod may come back.
    case.sandbox().await;
    assert!(case.pod().await.containers.is_empty());
    case.end().await;
}

/// NOD-25
async fn what_exists_is_found_again(case: Case<'_>) {
    let (listens, ended) = (case.running(0).await, case.running(1).await);
    assert_eq!(case.ended(&ended).await, (5, None));
    let before = case.pod().await;
    let Case { subject, runtime, programs, uid } = case;
    drop(runtime);
    let case = Case { subject, runtime: subject.open().await, programs, uid };
    assert_eq!(case.pod().await, before);
    assert!(case.runtime.pods().await.expect("records").contains(&before));
    assert_eq!(case.sandbox().await, before.sandbox);
    let mut events = case.runtime.events();
    assert_eq!(case.terminated(&listens).await, (7, None));
    timeout(DEADLINE, events.recv()).await.expect("its end is told").expect("events go on");
    case.end().await;
}

async fn a_program_runs_beside_the_container(case: Case<'_>) {
    let id = case.running(0).await;
    let (ends, repeats) =
        (case.subject.argv(Program::Ends(9)), case.subject.argv(Program::Repeats));
    assert_eq!(case.exec(&id, ends.clone(), None).await.expect("it runs").0, 9);
    let repeated = case.exec(&id, repeats, Some("one\ntwo\n")).await.expect("it runs");
    assert_eq!(repeated, (0, "one\ntwo\n".to_owned()));
    if case.subject.processes(&case.uid).is_some() {
        let missing = case.exec(&id, case.subject.argv(Program::Missing), None).await;
        let Err(RuntimeError::Start { detail }) = missing else { panic!("{missing:?}") };
        assert!(detail.contains("no such file or directory"), "{detail}");
    }
    case.runtime.kill(&id).await.expect("KILL");
    case.ended(&id).await;
    let late = case.exec(&id, ends, None).await;
    assert!(matches!(late, Err(RuntimeError::NotFound { .. })), "{late:?}");
    case.end().await;
}

/// Reads until this has come.
async fn read_until(from: &mut (impl AsyncRead + Unpin), wanted: &str) {
    let mut seen = Vec::new();
    let read = async {
        let mut piece = [0; 256];
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let read = from.read(&mut piece).await.expect("the output can be read");
            assert!(read > 0, "the output ends before {wanted:?}");
            seen.extend_from_slice(piece.get(..read).unwrap_or_default());
        }
    };
    let done = timeout(DEADLINE, read).await;
    assert!(done.is_ok(), "{wanted:?} does not come: {:?}", String::from_utf8_lossy(&seen));
}

async fn a_program_has_a_terminal_of_its_own(case: Case<'_>) {
    let id = case.running(0).await;
    let argv = case.subject.argv(Program::Sizes);
    let config = ExecConfig { argv, stdin: true, tty: true };
    let mut session = case.runtime.exec(&id, config).await.expect("it runs");
    assert!(session.stderr.is_none(), "a terminal has one output");
    for (columns, rows) in [(100, 40), (81, 25)] {
        session.resize.send((columns, rows)).await.expect("it takes sizes");
        read_until(&mut session.stdout, &format!("{columns}x{rows}")).await;
    }
    let mut stdin = session.stdin.take().expect("standard input was asked for");
    // What a terminal's user types at the end.
    stdin.write_all(b"\x04").await.expect("it reads");
    drop(stdin);
    let code = timeout(DEADLINE, session.exit).await.expect("the program ends");
    assert_eq!(code.expect("an exit code"), 0);
    case.end().await;
}

async fn a_program_that_nobody_wants_is_ended(case: Case<'_>) {
    let id = case.running(0).await;
    case.count_processes(|n| n == 1).await;
    for tty in [false, true] {
        let argv = case.subject.argv(Program::Deaf);
        let config = ExecConfig { argv, stdin: true, tty };
        let session = case.runtime.exec(&id, config).await.expect("it runs");
        case.count_processes(|n| n > 1).await;
        drop(session);
        case.count_processes(|n| n == 1).await;
    }
    // The container's own goes on without whoever was attached.
    drop(case.runtime.attach(&id, false).await.expect("it runs"));
    assert!(matches!(case.state(&id).await, ContainerState::Running { .. }));
    case.end().await;
}

async fn who_is_attached_hears_and_is_heard(case: Case<'_>) {
    for (at, once) in [(0, true), (1, false)] {
        let config = ContainerConfig { stdin: true, stdin_once: once, ..case.config(at, 0) };
        let id = case.start_as(config).await.expect("a container").id;
        let mut silent = case.runtime.attach(&id, false).await.expect("it runs");
        assert!(silent.stdin.is_none());
        let mut one = case.runtime.attach(&id, true).await.expect("it runs");
        let mut stdin = one.stdin.take().expect("standard input was asked for");
        stdin.write_all(b"first\n").await.expect("it is taken");
        read_until(&mut one.stdout, "first\n").await;
        read_until(&mut silent.stdout, "first\n").await;
        drop((stdin, one));
        if once {
            // Its input ends with the first who was attached to it.
            assert_eq!(case.ended(&id).await, (0, None));
            let code = timeout(DEADLINE, silent.exit).await.expect("it is told");
            assert_eq!(code, Ok(0));
            let late = case.runtime.attach(&id, true).await;
            assert!(matches!(late, Err(RuntimeError::NotFound { .. })), "{late:?}");
        } else {
            let mut two = case.runtime.attach(&id, true).await.expect("it still runs");
            let mut stdin = two.stdin.take().expect("standard input was asked for");
            stdin.write_all(b"second\n").await.expect("it is taken");
            read_until(&mut two.stdout, "second\n").await;
        }
    }
    case.end().await;
}

async fn a_container_has_a_terminal(case: Case<'_>) {
    if case.subject.processes(&case.uid).is_none() {
        // There is no terminal where there is no process.
        return case.end().await;
    }
    let config = ContainerConfig { stdin: true, tty: true, ..case.config(0, 0) };
    let id = case.start_as(config).await.expect("a container").id;
    let mut session = case.runtime.attach(&id, true).await.expect("it runs");
    assert!(session.stderr.is_none(), "a terminal has one output");
    session.resize.send((99, 33)).await.expect("it takes sizes");
    read_until(&mut session.stdout, "99x33").await;
    let mut stdin = session.stdin.take().expect("standard input was asked for");
    stdin.write_all(b"\x04").await.expect("it is taken");
    assert_eq!(timeout(DEADLINE, session.exit).await.expect("it is told"), Ok(0));
    assert_eq!(case.ended(&id).await, (0, None));
    case.end().await;
}

async fn a_port_is_the_pods_own(case: Case<'_>) {
    case.running(0).await;
    let connect = async {
        let mut tick = interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Ok(connection) = case.runtime.connect(&case.uid, PORT).await {
                return connection;
            }
        }
    };
    let mut connection = timeout(DEADLINE, connect).await.expect("somebody listens");
    connection.write_all(b"over there").await.expect("it is taken");
    connection.shutdown().await.expect("it can end");
    let mut text = String::new();
    let read = connection.read_to_string(&mut text);
    timeout(DEADLINE, read).await.expect("the other side ends").expect("it is text");
    assert_eq!(text, "over there");
    let closed = case.runtime.connect(&case.uid, CLOSED_PORT).await;
    assert!(matches!(closed.map(drop), Err(RuntimeError::Io { .. })));
    case.end().await;
}

/// CST-2
async fn what_cannot_be_started_has_ended_with_128(case: Case<'_>) {
    for _ in 0..2 {
        let refused = case.start(0, 0).await;
        assert!(matches!(refused, Err(RuntimeError::Start { .. })), "{refused:?}");
    }
    let pod = case.pod().await;
    assert_eq!(pod.containers.len(), 1);
    for container in pod.containers {
        assert_eq!(case.ended(&container.id).await, (128, None));
    }
    case.end().await;
}

async fn what_is_not_there_is_not_found(case: Case<'_>) {
    let id = ContainerId("nobody-0".to_owned());
    let runtime = &case.runtime;
    let argv = case.subject.argv(Program::Ends(9));
    let exec = ExecConfig { argv, stdin: false, tty: false };
    let answers = [
        ("signal", runtime.signal(&id, libc::SIGTERM).await),
        ("kill", runtime.kill(&id).await),
        ("remove_container", runtime.remove_container(&id).await),
        ("exec", runtime.exec(&id, exec).await.map(drop)),
        ("attach", runtime.attach(&id, true).await.map(drop)),
        ("connect", runtime.connect("nobody", PORT).await.map(drop)),
        ("start_container", runtime.start_container("nobody", case.config(0, 0)).await.map(drop)),
    ];
    for (call, answer) in answers {
        assert!(matches!(answer, Err(RuntimeError::NotFound { .. })), "{call}: {answer:?}");
    }
    runtime.remove_pod("nobody").await.expect("it is gone already");
    assert_eq!(runtime.pod("nobody").await.expect("records"), None);
    case.end().await;
}

async fn an_ended_instance_is_forgotten(case: Case<'_>) {
    let id = case.running(0).await;
    let early = case.runtime.remove_container(&id).await;
    assert!(matches!(early, Err(RuntimeError::Io { .. })), "{early:?}");
    assert!(matches!(case.state(&id).await, ContainerState::Running { .. }));
    case.runtime.kill(&id).await.expect("KILL");
    case.ended(&id).await;
    case.runtime.remove_container(&id).await.expect("it has ended");
    assert!(case.pod().await.containers.is_empty());
    case.end().await;
}

async fn an_image_is_there_after_its_pull(case: Case<'_>) {
    let reference = case.subject.image();
    let pulled = case.runtime.pull_image(&reference).await.expect("the image");
    assert!(pulled.id.contains("@sha256:"), "{pulled:?}");
    assert_eq!(case.runtime.image(&reference).await.expect("a name"), Some(pulled));
    case.end().await;
}
