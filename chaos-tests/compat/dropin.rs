//! The command line, the environment and the files of a member in etcd's place.

use crate::group::{Group, System, all_installed};
use std::process::Command;

fn trireme(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trireme")).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn version_help_and_mistakes_are_as_of_etcd() {
    let (code, out, _) = trireme(&["etcd", "--version"]);
    assert_eq!((code, out.lines().next()), (Some(0), Some("etcd Version: 3.6.14")));
    let (code, out, _) = trireme(&["etcd", "-h"]);
    assert!(code == Some(0) && out.contains("--initial-cluster-token"), "{out}");
    for (words, code, want) in [
        (vec!["etcd", "--nome", "a"], 2, "flag provided but not defined: -nome"),
        (vec!["etcd", "--election-timeout=1"], 1, "--election-timeout[1ms] should be at least"),
        (vec!["etcd", "gateway", "start"], 2, "\"gateway\" is not a valid flag"),
        (vec!["etcd", "--force-new-cluster"], 2, "--force-new-cluster: not supported"),
    ] {
        let (found, _, err) = trireme(&words);
        assert_eq!(found, Some(code), "{words:?}: {err}");
        assert!(err.contains(want), "{words:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_starts_from_the_environment_and_another_joins() {
    if !all_installed(&["etcdctl"]) {
        return;
    }
    let mut group = Group::prepare(System::Trireme, 2);
    let own = |group: &Group, i: usize| {
        let mut flags = group.flags(i, "http");
        let at = flags.iter().position(|flag| flag == "--initial-cluster").unwrap();
        // Of the first start, which the second was not part of.
        if i == 0 {
            flags[at + 1] = format!("m1=http://127.0.0.1:{}", group.members[0].peer);
        }
        flags
    };
    let flags = own(&group, 0);
    let environment: Vec<(String, String)> = flags
        .chunks(2)
        .map(|pair| {
            let name = pair[0].trim_start_matches('-').replace('-', "_").to_uppercase();
            (format!("ETCD_{name}"), pair[1].clone())
        })
        .collect();
    let environment: Vec<(&str, String)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    group.spawn_with(0, &["-unsafe-no-fsync".to_owned()], &environment);
    group.ready(0).await;
    assert!(group.log(0).contains("--unsafe-no-fsync=true is not honoured"), "{}", group.log(0));
    let first = format!("127.0.0.1:{}", group.members[0].client);
    let peer = format!("http://127.0.0.1:{}", group.members[1].peer);
    let mut joining = own(&group, 1);
    joining.push("--initial-cluster-state=existing".to_owned());
    // Nobody has added it yet.
    group.spawn_with(1, &joining, &[]);
    let (code, log) = group.refusal(1).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("no member was added with the peer URLs"), "{log}");
    let etcdctl = async |group: &Group, endpoint: &str, words: &[&str]| {
        let mut command = group.etcdctl();
        let output = command.env("ETCDCTL_ENDPOINTS", endpoint).args(words).output().await.unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    etcdctl(&group, &first, &["put", "k", "v"]).await;
    etcdctl(&group, &first, &["member", "add", "m2", &format!("--peer-urls={peer}")]).await;
    group.spawn_with(1, &joining, &[]);
    group.ready(1).await;
    let second = format!("127.0.0.1:{}", group.members[1].client);
    assert_eq!(etcdctl(&group, &second, &["get", "k"]).await, "k\nv\n");
    // Once it is a member, the flags of its first start do not matter any more.
    assert!(group.end(1).await);
    group.spawn(1, "http", &[]);
    group.ready(1).await;
    assert_eq!(etcdctl(&group, &second, &["get", "k"]).await, "k\nv\n");
    let members = etcdctl(&group, &second, &["member", "list"]).await;
    assert!(members.contains(", started, m2, "), "{members}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_printed_as_etcds_requests() {
    if !all_installed(&["etcdctl"]) {
        return;
    }
    let mut group = Group::start(System::Trireme, 1, &[]).await;
    for words in [["put", "k", "v"].as_slice(), &["del", "k"]] {
        assert!(group.etcdctl().args(words).status().await.unwrap().success());
    }
    let (code, _, err) =
        trireme(&["debug", "dump-requests", &group.data_dir(0).display().to_string()]);
    assert!(code != Some(0) && err.contains("in use by another process"), "{err}");
    assert!(group.end(0).await);
    let (code, out, err) =
        trireme(&["debug", "dump-requests", &group.data_dir(0).display().to_string()]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("complete from its first entry"), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    // put = 4 {key = 1, value = 2}, delete_range = 5 {key = 1}; the header, with the index, follows.
    for (line, want) in lines.iter().zip(["IgYKAWsSAXai", "KgMKAWui"]) {
        assert!(line.starts_with(want), "{out}");
    }
    assert_eq!(lines.len(), 2, "{out}");
}
