//! The README's table of what was seen, and the test that makes it.

#[cfg(feature = "etcd-client")]
use crate::calls;
use crate::{
    commands,
    group::{Group, System, all_installed},
    readme,
};
use std::fmt::Write as _;

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

fn table(title: &str, etcd: &[Seen], ours: &[Seen]) -> (String, String) {
    let (mut table, mut differences) = (String::new(), String::new());
    let _ = writeln!(table, "| {title} | etcd 3.4.23 | Trireme |\n|---|---|---|");
    for (theirs, here) in etcd.iter().zip(ours) {
        assert_eq!(theirs.row, here.row);
        let supported = |text: &str| {
            let unknown = ["Unimplemented", "unknown service", "unknown method"];
            !unknown.iter().any(|word| text.contains(word))
        };
        let seen = match (supported(&theirs.text), supported(&here.text), here.note) {
            _ if here.text == theirs.text => "equal".to_owned(),
            (true, false, _) => "not supported".to_owned(),
            (false, true, note) => format!("works; {note}"),
            (_, _, "") => "differs".to_owned(),
            (_, _, note) => format!("differs: {note}"),
        };
        if here.text != theirs.text {
            let _ = writeln!(
                differences,
                "== {}: {seen}\n-- etcd\n{}\n-- Trireme\n{}",
                here.row, theirs.text, here.text
            );
        }
        let was = if supported(&theirs.text) {
            answers(&theirs.text)
        } else {
            "not supported".to_owned()
        };
        let _ = writeln!(table, "| `{}` | {was} | {seen} |", here.row);
    }
    (table, differences)
}

/// How many of a row's requests were carried out, and how many refused, as most rows ask for.
fn answers(text: &str) -> String {
    let commands = text.lines().filter(|line| line.starts_with("$ ")).count();
    let all = if commands == 0 { text.lines().count() } else { commands };
    match text.lines().filter(|line| line.contains("Error: ")).count().min(all) {
        0 => format!("{all} done"),
        refused => format!("{} done, {refused} refused", all - refused),
    }
}

/// Holds one table of the README against what was seen, or writes it.
fn hold(name: &str, title: &str, etcd: &[Seen], ours: &[Seen]) {
    let (table, differences) = table(title, etcd, ours);
    println!("{differences}");
    readme::hold(name, &table, &differences);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_sees_here_what_it_sees_of_etcd() {
    if !all_installed(&["etcd", "etcdctl"]) {
        return;
    }
    // One after the other: a client that gives up in time is no difference.
    let mut seen = Vec::new();
    for system in [System::Etcd, System::Trireme] {
        seen.push(commands::run(&mut Group::start(system, 3, &[]).await).await);
    }
    hold("etcdctl", "etcdctl 3.4.23", &seen[0], &seen[1]);
}

#[cfg(feature = "etcd-client")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_client_sees_here_what_it_sees_of_etcd() {
    if !all_installed(&["etcd", "etcdctl"]) {
        return;
    }
    let mut seen = Vec::new();
    for system in [System::Etcd, System::Trireme] {
        seen.push(calls::run(&Group::start(system, 3, &[]).await).await);
    }
    hold("etcd-client", "etcd-client 0.21", &seen[0], &seen[1]);
}
