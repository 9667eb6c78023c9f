//! Every command of `etcdctl` that talks to a server.

use crate::{
    group::{Group, SOON},
    normal::{Mask, normal},
    table::Seen,
};
use std::{fmt::Write as _, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    time::{Instant, sleep, timeout},
};

/// One line of a row.
enum Step {
    /// Words; `{L}` is the last lease, `{0}` the first endpoint, `{id}` that of the member added last,
    /// `{other}` a member that does not lead.
    Say(&'static str),
    /// With standard input.
    Tell(&'static str, &'static str),
    /// Goes on until it has said so.
    Until(&'static str, &'static str, &'static str),
    /// Goes on until another command says so, whose words count.
    While(&'static str, &'static str, &'static str),
}

use Step::{Say, Tell, Until, While};

struct Row {
    name: &'static str,
    mask: Mask,
    note: &'static str,
    steps: &'static [Step],
}

/// For one that loads a group with ten thousand keys, on a machine that does other things as well.
const LONG: Duration = Duration::from_secs(300);
const EXACT: Mask = Mask { numbers: false, order: false };
const ANY_NUMBERS: Mask = Mask { numbers: true, order: false };
const ANY_ORDER: Mask = Mask { numbers: true, order: true };

const fn row(name: &'static str, mask: Mask, note: &'static str, steps: &'static [Step]) -> Row {
    Row { name, mask, note, steps }
}

const ROWS: &[Row] = &[
    row(
        "put",
        EXACT,
        "",
        &[
            Say("put a 1"),
            Say("put a 2 -w json"),
            Tell("put fromstdin", "x"),
            Say("put \"\" x"),
            Say("put a"),
        ],
    ),
    row(
        "put --prev-kv",
        EXACT,
        "",
        &[Say("put a 3 --prev-kv"), Say("put new 1 --prev-kv -w fields")],
    ),
    row(
        "put --ignore-value",
        EXACT,
        "",
        &[Say("put a --ignore-value"), Say("put none --ignore-value"), Say("get a -w json")],
    ),
    row(
        "put --lease, --ignore-lease",
        EXACT,
        "",
        &[
            Say("lease grant 600"),
            Say("put leased 1 --lease={L}"),
            Say("put leased 2 --ignore-lease"),
            Say("get leased -w fields"),
            Say("put leased 3"),
            Say("put none x --ignore-lease"),
            Say("put a 4 --lease=1234"),
            Say("lease revoke {L}"),
        ],
    ),
    row(
        "get",
        EXACT,
        "",
        &[
            Say("get a"),
            Say("get a -w json"),
            Say("get a -w fields"),
            Say("get none"),
            Say("get \"\""),
        ],
    ),
    row(
        "get RANGE",
        EXACT,
        "",
        &[
            Say("put b/1 1"),
            Say("put b/2 2"),
            Say("put b/3 3"),
            Say("put c 9"),
            Say("get b/1 b/3"),
            Say("get b/ --prefix"),
            Say("get b/2 --from-key"),
            Say("get \"\" --prefix --keys-only"),
            Say("get z a"),
        ],
    ),
    row(
        "get --limit, --count-only, --keys-only",
        EXACT,
        "",
        &[
            Say("get b/ --prefix --limit=2 -w json"),
            Say("get b/ --prefix --count-only -w fields"),
            Say("get b/ --prefix --keys-only"),
            Say("get b/ --prefix --print-value-only"),
        ],
    ),
    row(
        "get --sort-by --order",
        EXACT,
        "",
        &[
            Say("put b/1 zz"),
            Say("get b/ --prefix --sort-by=MODIFY --order=DESCEND"),
            Say("get b/ --prefix --sort-by=VALUE --order=ASCEND"),
            Say("get b/ --prefix --sort-by=CREATE --order=DESCEND --limit=1"),
            Say("get b/ --prefix --sort-by=VERSION"),
            Say("get b/ --prefix --sort-by=KEY --order=DESCEND"),
            Say("get b/ --prefix --sort-by=NONE"),
        ],
    ),
    row(
        "get --rev",
        EXACT,
        "",
        &[Say("get a --rev=2"), Say("get a --rev=3 -w json"), Say("get a --rev=100000")],
    ),
    row(
        "get --consistency",
        EXACT,
        "",
        &[Say("get a --consistency=s"), Say("get a --consistency=l"), Say("get a --consistency=x")],
    ),
    row(
        "del",
        EXACT,
        "",
        &[
            Say("del new"),
            Say("del none"),
            Say("del b/1 --prev-kv"),
            Say("del b/ --prefix"),
            Say("del \"\""),
            Say("put d/1 1"),
            Say("put d/2 1"),
            Say("del d/1 d/2"),
            Say("del d --from-key -w json"),
        ],
    ),
    row(
        "txn",
        EXACT,
        "",
        &[
            Tell("txn", "value(\"a\") = \"4\"\n\nput t 1\nget a\n\nput t 2\n\n"),
            Tell("txn", "version(\"a\") > \"100\"\n\nput t 3\n\nget t\ndel t --prev-kv\n\n"),
            Tell(
                "txn -w json",
                "create(\"none\") = \"0\"\nmod(\"a\") < \"100000\"\n\nput t 5 --prev-kv\nget t\n\n\n",
            ),
            Tell("txn", "\nput t 1\nput t 2\n\n\n"),
            Tell("txn", "\nget \"\"\n\n\n"),
            Tell("txn -w fields", "\nget a\n\n\n"),
        ],
    ),
    row(
        "compaction",
        EXACT,
        "",
        &[
            Say("put k 1"),
            Say("put k 2"),
            Say("put k 3"),
            Say("get k -w fields"),
            Say("compaction 5"),
            Say("compaction 5"),
            Say("compaction 100000"),
            Say("get a --rev=3"),
            Say("compaction 8 --physical"),
            Say("get a --rev=8"),
        ],
    ),
    row(
        "watch",
        EXACT,
        "",
        &[
            Say("put w/end 1"),
            Until("watch w/end --rev=20", "", "1"),
            Say("put w/1 1"),
            Say("put w/1 2"),
            Say("del w/1"),
            Say("put zzz 1"),
            Until("watch \"\" --prefix --rev=20", "", "zzz"),
        ],
    ),
    row(
        "watch -w json, fields",
        EXACT,
        "each revision that has passed comes in an answer of its own",
        &[
            Until("watch \"\" --prefix --rev=20 -w json", "", "enp6"),
            Until("watch w/ w0 --rev=20 -w fields", "", "DELETE"),
        ],
    ),
    row("watch --prev-kv", EXACT, "", &[Until("watch w/1 --rev=20 --prev-kv", "", "DELETE")]),
    row("watch a compacted revision", EXACT, "", &[Say("watch a --rev=2")]),
    row("watch -i", EXACT, "", &[Until("watch -i", "watch zzz --rev=20\n", "zzz")]),
    row(
        "watch COMMAND",
        EXACT,
        "",
        &[Until(
            "watch zzz --rev=20 -- sh -c \"echo $ETCD_WATCH_KEY at $ETCD_WATCH_REVISION\"",
            "",
            "at",
        )],
    ),
    row(
        "lease grant",
        EXACT,
        "",
        &[
            Say("lease grant 600"),
            Say("lease grant 0"),
            Say("lease grant 9000000001"),
            Say("lease grant 1 -w fields"),
        ],
    ),
    row(
        "lease timetolive",
        EXACT,
        "",
        &[
            Say("lease grant 600"),
            Say("put leased 1 --lease={L}"),
            Say("lease timetolive {L}"),
            Say("lease timetolive {L} --keys"),
            Say("lease timetolive 1234"),
        ],
    ),
    row("lease list", ANY_ORDER, "", &[Say("lease list"), Say("lease list -w json")]),
    row(
        "lease keep-alive",
        EXACT,
        "",
        &[
            Say("lease keep-alive {L} --once"),
            Until("lease keep-alive {L}", "", "keepalived"),
            Say("lease keep-alive 1234 --once"),
        ],
    ),
    row(
        "lease revoke",
        EXACT,
        "",
        &[Say("lease revoke {L}"), Say("lease revoke {L}"), Say("get leased -w fields")],
    ),
    row(
        "lock",
        EXACT,
        "",
        &[Say("lock l echo held"), Until("lock l", "", "l/"), Say("lock l --ttl=5 false")],
    ),
    row(
        "elect",
        EXACT,
        "",
        &[Until("elect e me", "", "me"), While("elect e you", "elect e --listen", "you")],
    ),
    row("member list", ANY_ORDER, "", &[Say("member list"), Say("member list -w fields")]),
    row(
        "member add, update, remove",
        EXACT,
        "",
        &[
            Say("member add late --peer-urls=http://127.0.0.1:1"),
            Say("member update {id} --peer-urls=http://127.0.0.1:2"),
            Say("member remove {id}"),
            Say("member remove 1234"),
            Say("member update 1234 --peer-urls=http://127.0.0.1:2"),
            Say("member add late --peer-urls=127.0.0.1:1"),
        ],
    ),
    row(
        "member add --learner, promote",
        EXACT,
        "",
        &[
            Say("member add slow --learner --peer-urls=http://127.0.0.1:3"),
            Say("member promote {id}"),
            Say("member add slow2 --learner --peer-urls=http://127.0.0.1:4"),
            Say("member remove {id}"),
            Say("member promote 1234"),
        ],
    ),
    row(
        "endpoint health",
        ANY_ORDER,
        "",
        &[Say("endpoint health"), Say("endpoint health --cluster"), Say("endpoint health -w json")],
    ),
    row(
        "endpoint status",
        ANY_ORDER,
        "",
        &[Say("endpoint status"), Say("endpoint status --cluster")],
    ),
    row("endpoint status -w fields", ANY_ORDER, "", &[Say("endpoint status -w fields")]),
    row(
        "endpoint hashkv",
        ANY_ORDER,
        "",
        &[Say("endpoint hashkv"), Say("endpoint hashkv --rev=20"), Say("endpoint hashkv --rev=1")],
    ),
    row("move-leader", EXACT, "", &[Say("move-leader {other}"), Say("move-leader 1234")]),
    row("alarm list, disarm", EXACT, "", &[Say("alarm list"), Say("alarm disarm")]),
    row("defrag", ANY_ORDER, "", &[Say("defrag"), Say("defrag --cluster")]),
    row("snapshot save", EXACT, "", &[Say("snapshot save saved.db --endpoints={0}")]),
    row(
        "snapshot status",
        ANY_NUMBERS,
        "a snapshot is not a bbolt file; `trireme` restores it",
        &[Say("snapshot status saved.db")],
    ),
    row(
        "make-mirror",
        EXACT,
        "",
        &[While("make-mirror --prefix=w/ --dest-prefix=mirror/ {0}", "get mirror/end", "1")],
    ),
    row(
        "role add, get, list, delete",
        EXACT,
        "",
        &[
            Say("role add r"),
            Say("role add r"),
            Say("role get r"),
            Say("role list"),
            Say("role delete none"),
            Say("role add gone"),
            Say("role delete gone"),
        ],
    ),
    row(
        "role grant-permission, revoke-permission",
        EXACT,
        "",
        &[
            Say("role grant-permission r readwrite x/ --prefix"),
            Say("role grant-permission r read one"),
            Say("role grant-permission r write k --from-key"),
            Say("role get r"),
            Say("role revoke-permission r one"),
            Say("role revoke-permission r none"),
            Say("role get r"),
        ],
    ),
    row(
        "user add, get, list, delete",
        EXACT,
        "",
        &[
            Say("user add root:pw"),
            Say("user add u:pw"),
            Say("user add u:pw"),
            Say("user add nopw --no-password"),
            Say("user list"),
            Say("user get u"),
            Say("user delete nopw"),
            Say("user delete none"),
        ],
    ),
    row(
        "user grant-role, revoke-role, passwd",
        EXACT,
        "",
        &[
            Say("user grant-role u r"),
            Say("user grant-role u none"),
            Say("user get u --detail"),
            Say("user revoke-role u none"),
            Tell("user passwd u --interactive=false", "pw2\n"),
            Say("user grant-role root root"),
        ],
    ),
    row(
        "auth enable, disable",
        EXACT,
        "",
        &[
            Say("auth enable"),
            Say("get a"),
            Say("get a --user=root:pw"),
            Say("get a --user=root:wrong"),
            Say("get x/1 --user=u:pw2"),
            Say("put x/1 1 --user=u:pw2"),
            Say("get a --user=u:pw2"),
            Say("get x/ --prefix --user=u:pw2"),
            Say("get w x --user=u:pw2"),
            Say("user list --user=u:pw2"),
            Say("auth disable --user=u:pw2"),
            Say("auth disable --user=root:pw"),
            Say("get a"),
        ],
    ),
    row(
        "check datascale",
        ANY_NUMBERS,
        "",
        &[Say("check datascale --load=s --auto-compact --auto-defrag --command-timeout=300s")],
    ),
];

/// Runs every row, in order.
pub(crate) async fn run(group: &mut Group) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut names = Names::default();
    for row in ROWS {
        let mut text = String::new();
        for step in row.steps {
            names.step(group, step, &mut text).await;
        }
        let text = normal(&text, &group.addresses(), row.mask);
        seen.push(Seen { row: row.name.to_owned(), note: row.note, text });
    }
    seen
}

/// What earlier commands have named.
#[derive(Default)]
struct Names {
    lease: String,
    member: String,
}

impl Names {
    async fn step(&mut self, group: &Group, step: &Step, text: &mut String) {
        let (line, output) = match step {
            Say(line) => (line, self.say_in_time(group, line).await),
            Tell(line, input) => (line, self.say(group, line, input).await),
            Until(line, input, end) => (line, self.until(group, line, input, end).await),
            While(line, other, end) => {
                let mut command = self.command(group, line).await;
                let running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                let output = self.poll(group, other, end).await;
                drop(running);
                (line, output)
            }
        };
        // The client names what it does not find by the words that were given.
        let _ = writeln!(text, "$ {line}\n{output}");
    }

    /// etcd changes no members in the first seconds.
    async fn say_in_time(&mut self, group: &Group, line: &str) -> String {
        let until = Instant::now() + SOON;
        loop {
            let said = self.say(group, line, "").await;
            if !said.contains("unhealthy cluster") || Instant::now() > until {
                return said;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn command(&self, group: &Group, line: &str) -> Command {
        let line = line
            .replace("{L}", &self.lease)
            .replace("{id}", &self.member)
            .replace("{0}", &group.endpoints()[0]);
        let line = if line.contains("{other}") {
            line.replace("{other}", &follower(group).await)
        } else {
            line
        };
        let mut command = group.etcdctl();
        if line.starts_with("move-leader") {
            command.env("ETCDCTL_ENDPOINTS", leader(group).await);
        }
        if line.contains("--endpoints=") {
            command.env_remove("ETCDCTL_ENDPOINTS");
        }
        // Instead of 5 s: a busy machine is no difference between systems. It refuses to have both.
        if !line.contains("--command-timeout") {
            command.env("ETCDCTL_COMMAND_TIMEOUT", "30s");
        }
        command.args(split(&line));
        command
    }

    async fn say(&mut self, group: &Group, line: &str, input: &str) -> String {
        let mut command = self.command(group, line).await;
        let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever refuses before it has read everything closes it.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let Ok(output) = timeout(LONG, child.wait_with_output()).await else {
            return format!("not done after {LONG:?}");
        };
        let output = output.unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        for (before, name) in [("lease ", &mut self.lease), ("Member ", &mut self.member)] {
            let id = out.strip_prefix(before).and_then(|rest| rest.split_whitespace().next());
            let made = out.contains(" granted with TTL") || out.contains(" added to cluster");
            if let Some(id) = id.filter(|_| made) {
                id.clone_into(name);
            }
        }
        let err = String::from_utf8_lossy(&output.stderr);
        format!("{out}{err}exit {}", output.status.code().unwrap_or(-1))
    }

    async fn until(&self, group: &Group, line: &str, input: &str, end: &str) -> String {
        let mut command = self.command(group, line).await;
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = String::new();
        let read = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let _ = writeln!(text, "{line}");
                if line.contains(end) {
                    return true;
                }
            }
            false
        };
        let whole = timeout(Duration::from_secs(10), read).await;
        if whole != Ok(true) {
            let _ = writeln!(text, "and never {end:?}");
        }
        // As Ctrl-C: what it holds is let go, before the next row begins.
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        }
        let _ = timeout(Duration::from_secs(5), child.wait()).await;
        text
    }

    async fn poll(&mut self, group: &Group, line: &str, end: &str) -> String {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let mut command = self.command(group, line).await;
            let output = timeout(Duration::from_secs(2), command.output()).await;
            let text = match output {
                Ok(output) => String::from_utf8_lossy(&output.unwrap().stdout).into_owned(),
                // It goes on by itself: what it says counts.
                Err(_) => self.until(group, line, "", end).await,
            };
            if text.contains(end) || Instant::now() > until {
                return text;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// As a shell would, for the few quotes that are used here.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Endpoint, id in hexadecimal and whether it leads, of each member.
async fn statuses(group: &Group) -> Vec<(String, String, bool)> {
    let output = group.etcdctl().args(["endpoint", "status"]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(", ").collect();
        (fields[0].to_owned(), fields[1].to_owned(), fields[4] == "true")
    };
    text.lines().map(line).collect()
}

async fn leader(group: &Group) -> String {
    let found = statuses(group).await.into_iter().find(|(_, _, leads)| *leads);
    found.expect("a member leads").0
}

async fn follower(group: &Group) -> String {
    let found = statuses(group).await.into_iter().find(|(_, _, leads)| !*leads);
    found.expect("a member does not lead").1
}
