//! The README's table of what was seen, and the test that makes it.

use crate::{
    calls, commands,
    group::{Group, System, installed},
};
use std::{fmt::Write as _, path::Path};

/// What one row came to on one system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// A command or a call.
    pub(crate) row: String,
    /// Why a difference is meant, if it is.
    pub(crate) note: &'static str,
    /// Without ids and times.
    pub(crate) text: String,
}

const BEGIN: &str = "<!-- compatibility: written by the test -->";
const END: &str = "<!-- end of compatibility -->";
/// Set to `always`, as for other snapshots, it writes the README.
const UPDATE: &str = "INSTA_UPDATE";

fn table(title: &str, etcd: &[Seen], ours: &[Seen]) -> (String, String) {
    let (mut table, mut differences) = (String::new(), String::new());
    let _ = writeln!(table, "| {title} | etcd 3.4.23 | Trireme |\n|---|---|---|");
    for (theirs, here) in etcd.iter().zip(ours) {
        assert_eq!(theirs.row, here.row);
        let result = |text: &str| {
            let unknown = ["Unimplemented", "unimplemented", "unknown service", "unknown method"];
            if unknown.iter().any(|word| text.contains(word)) {
                "not supported"
            } else if text.contains("Error: ") {
                "refused"
            } else {
                "done"
            }
        };
        let seen = match (result(&here.text), here.note) {
            ("not supported", _) if result(&theirs.text) != "not supported" => {
                "not supported".to_owned()
            }
            _ if here.text == theirs.text => "equal".to_owned(),
            (_, "") => "differs".to_owned(),
            (_, note) => format!("differs: {note}"),
        };
        if here.text != theirs.text {
            let _ = writeln!(
                differences,
                "== {}: {seen}\n-- etcd\n{}\n-- Trireme\n{}",
                here.row, theirs.text, here.text
            );
        }
        let _ = writeln!(table, "| `{}` | {} | {seen} |", here.row, result(&theirs.text));
    }
    (table, differences)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_etcd_see_here_what_they_see_of_etcd() {
    if installed("etcdctl").is_none() || installed("etcd").is_none() {
        eprintln!("SKIPPED: no etcd or etcdctl here; apt-get install etcd-server etcd-client");
        return;
    }
    // One after the other: a client that gives up in time is no difference.
    let of = async |system| {
        let mut group = Group::start(system, 3, &[]).await;
        let calls = calls::run(&group).await;
        (calls, commands::run(&mut group).await)
    };
    let (etcd_calls, etcd_commands) = of(System::Etcd).await;
    let (our_calls, our_commands) = of(System::Trireme).await;
    let (commands, mut differences) = table("etcdctl 3.4.23", &etcd_commands, &our_commands);
    let (calls, more) = table("etcd-client 0.21", &etcd_calls, &our_calls);
    differences.push_str(&more);
    println!("{differences}");
    let made = format!("{BEGIN}\n{commands}\n{calls}{END}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let begin = readme.find(BEGIN).expect("the README has a place for the table");
    let end = readme.find(END).expect("the README's table ends") + END.len();
    if readme[begin..end] == made {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "how snapshots are updated")]
    let update = std::env::var(UPDATE).is_ok_and(|value| value == "always");
    assert!(
        update,
        "the README's table is not what was seen; {UPDATE}=always writes it. Seen:\n{made}\n{differences}"
    );
    std::fs::write(&path, format!("{}{made}{}", &readme[..begin], &readme[end..])).unwrap();
}
