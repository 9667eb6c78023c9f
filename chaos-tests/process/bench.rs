//! `trireme bench` over the etcd v3 API: a second of each workload, against the etcd of this machine if there
//! is one, otherwise against ours; and nothing that it started is left.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

const TRIREME: &str = env!("CARGO_BIN_EXE_trireme");

fn system() -> &'static str {
    let there = Command::new("etcd").arg("--version").output().is_ok();
    if there { "etcd" } else { "trireme" }
}

fn bench(dir: &Path, arguments: &str) -> Output {
    Command::new(TRIREME)
        .arg("bench")
        .args(arguments.split_whitespace())
        .arg("--data-dir")
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What a bench prints with `--json`, having ended well and left nothing in its directory.
fn object(arguments: &str) -> Value {
    object_of(system(), arguments)
}

fn object_of(system: &str, arguments: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path(), &format!("{arguments} --json --systems {system}"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments}: {errors}");
    assert_left_nothing(dir.path());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_left_nothing(dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let name = dir.to_str().unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(name), "{:?} {line}", entry.path());
    }
}

#[test]
fn the_api_is_measured_under_creates_and_under_a_crowd_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = "bench api --connections 1,4 --seconds 1 --warm-up 0.2 --lists 3 --watches 5 \
                     --pods 64 --churn 20 --small 50 --json";
    let output = Command::new(TRIREME)
        .args(arguments.split_whitespace())
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).expect(&errors);
    assert!(output.status.success(), "{report} {errors}");
    assert_left_nothing(dir.path());
    let number = |value: &Value| value.as_f64().unwrap();
    for (run, connections) in report["creates"].as_array().unwrap().iter().zip([1, 4]) {
        assert_eq!(run["connections"], connections);
        let p99 = number(&run["latency"]["p99_ms"]);
        assert!(number(&run["created_per_s"]) > 1.0 && p99 > 0.0, "{run}");
        assert_eq!(run["processes"].as_object().unwrap().len(), 3, "{run}");
    }
    let crowd = &report["crowd"];
    for what in ["small_alone", "small", "list"] {
        assert!(number(&crowd[what]["count"]) > 1.0, "{what}: {crowd}");
    }
    assert!(number(&crowd["events_per_s"]) > 5.0 && crowd["events_missing"] == 0, "{crowd}");
}

#[test]
fn every_workload_measures_something_and_leaves_nothing() {
    for (workload, more) in [
        ("put", "--clients 16 --rate 200"),
        ("get", "--key-space 500 --conns 2 --threads 2"),
        ("range", "--keys 1000 --limit 10"),
        ("txn", "--key-space 500 --clients 8"),
        ("watch", "--watchers 20 --streams 3 --clients 4"),
        ("lease", "--leases 20 --clients 4"),
        ("mixed", "--key-space 500 --mix put=1,get=1,serializable=1,range=1,txn=1"),
    ] {
        let arguments = format!("{workload} {more} --seconds 1 --warm-up 0.2");
        let report = object(&arguments);
        assert_eq!(report["workload"], workload);
        let [run] = report["runs"].as_array().unwrap().as_slice() else {
            panic!("{arguments}: one run, not {report}");
        };
        assert_eq!((&run["system"], &run["errors"]), (&system().into(), &0.into()), "{run}");
        for figure in ["ops_per_s", "p50_ms", "p99_ms", "server_cpu_s_per_10k", "rss_bytes"] {
            assert!(run[figure].as_f64().unwrap() > 0.0, "{arguments}: {figure} of {run}");
        }
        assert!(run["p50_ms"].as_f64() <= run["p99_ms"].as_f64(), "{run}");
        assert!(report.get("ratio").is_none(), "{report}");
    }
}

#[test]
fn two_systems_are_measured_in_turn_and_compared_pair_by_pair() {
    let systems = format!("--systems {}", system());
    let report = object(&format!("put --runs 2 --seconds 0.5 --warm-up 0.2 {systems}"));
    let runs = report["runs"].as_array().unwrap();
    let order: Vec<&str> = runs.iter().map(|run| run["system"].as_str().unwrap()).collect();
    let second = format!("{}-2", system());
    assert_eq!(order, [system(), &second, &second, system()]);
    for (figure, of) in
        [("ops_per_s", "ops_per_s"), ("p99_ms", "p99_ms"), ("cpu", "server_cpu_s_per_10k")]
    {
        let run = |index: usize| runs[index][of].as_f64().unwrap();
        let mut quotients = [run(0) / run(1), run(3) / run(2)];
        quotients.sort_by(f64::total_cmp);
        let ratio = &report["ratio"][figure];
        let middle = (quotients[0] + quotients[1]) / 2.0;
        for (name, want) in [("min", quotients[0]), ("median", middle), ("max", quotients[1])] {
            // Numbers lose their last bit on the way through JSON.
            let found = ratio[name].as_f64().unwrap();
            assert!((found / want - 1.0).abs() < 1e-9, "{figure}.{name}: {found}, not {want}");
        }
    }
}

#[test]
fn filled_members_come_back_with_every_key() {
    let report = object("fill --keys 2000");
    let run = &report["runs"][0];
    assert_eq!(report["keys"], 2000);
    for figure in ["rss_bytes", "disk_bytes", "rss_after_restart_bytes"] {
        let members: Vec<u64> = serde_json::from_value(run[figure].clone()).unwrap();
        assert!(members.len() == 3 && members.iter().all(|bytes| *bytes > 1 << 19), "{run}");
    }
    assert!(run["restart_ms"].as_f64().unwrap() > 0.0, "{run}");
}

#[test]
fn a_leader_that_goes_shows_a_gap_and_loses_nothing() {
    for fault in ["kill", "cut", "transfer"] {
        let report = object(&format!("failover --kills 1 --fault {fault}"));
        assert_eq!((&report["fault"], &report["lost"]), (&fault.into(), &0.into()), "{report}");
        assert!(report["acknowledged"].as_u64().unwrap() >= 400, "{report}");
        let gap = &report["gap_ms"];
        assert_eq!(gap["all"].as_array().unwrap().len(), 1);
        assert!(gap["median"].as_f64().unwrap() > 0.0, "{report}");
        assert_eq!((&gap["median"], &gap["max"]), (&gap["p99"], &gap["p99"]));
        let by_leader = report["told_by_leader_ms"]["max"].as_f64().unwrap();
        if fault == "cut" {
            assert!(by_leader > gap["max"].as_f64().unwrap(), "it could not answer: {report}");
        }
    }
}

#[test]
fn a_short_soak_of_our_own_members_finds_nothing_wrong_and_says_what_it_did() {
    // A seed whose first faults are of every kind.
    let report = object_of("trireme", "soak --minutes 0.3 --fault-every 2 --rate 200 --seed 1769");
    assert_eq!((&report["workload"], &report["seed"]), (&"soak".into(), &1769.into()));
    assert_eq!(report["violations"], serde_json::json!([]), "{report}");
    let faults = report["faults"].as_object().unwrap();
    for (name, kinds) in [
        ("killed", ["kill", "kill_leader"]),
        ("stopped", ["pause", "pause_leader"]),
        ("added", ["add", "add"]),
        ("removed", ["remove", "remove_leader"]),
    ] {
        assert!(kinds.iter().any(|kind| faults.contains_key(*kind)), "{name}: {report}");
    }
    for kind in ["put", "delete", "txn", "get", "serializable", "page", "grant", "revoke"] {
        assert!(report["requests"][kind]["done"].as_u64().unwrap() > 0, "{kind}: {report}");
    }
    let last = report["revisions"]["last"].as_u64().unwrap();
    assert!(report["acknowledged"].as_u64().unwrap() <= last, "{report}");
    assert!(report["revisions"]["compacted"].as_u64().unwrap() > 0, "{report}");
    let watches = report["watches"].as_array().unwrap();
    assert!(watches.len() == 4 && watches.iter().all(|w| w["hash"] == watches[0]["hash"]));
    let hashes: Vec<_> = report["hashes"].as_object().unwrap().values().collect();
    assert!(hashes.len() >= 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{report}");
    assert!(report["memory"]["max_bytes"].as_u64().unwrap() > 1 << 20, "{report}");
    assert!(!report["memory"]["sparkline"].as_str().unwrap().is_empty());
}

#[test]
fn an_interrupted_bench_ends_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(TRIREME)
        .args(["bench", "put", "--seconds", "0.2", "--warm-up", "0", "--runs", "100000"])
        .args(["--systems", system(), "--data-dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A line for each run: the members are there.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("put 1/100000"));
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_some());
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("interrupted"), "{errors}");
    assert_left_nothing(dir.path());
}

#[test]
fn what_cannot_be_measured_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, want) in [
        ("put --endpoints http://127.0.0.1:1", "connect to http://127.0.0.1:1"),
        ("put --endpoints nowhere", "\"nowhere\" is not http://HOST:PORT"),
        ("put --pids 1", "--endpoints"),
        ("mixed --mix put=0", "the weights"),
        ("mixed --mix read=1", "\"read\" is not put, get"),
        ("put --rate 0", "--rate"),
        ("soak --rate 9", "--rate"),
        ("soak --minutes 0", "from 0.1 to 100,000 minutes"),
        ("soak --systems trireme,etcd", "one system a run"),
        ("watch --value-bytes 5 --systems etcd --compare-etcd", "cannot be used with"),
    ] {
        let output = bench(dir.path(), arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(want), "{arguments}: {errors}");
    }
    assert_left_nothing(dir.path());
}
