//! `trireme drill`: clusters that are broken on purpose, what is said of them, and that nothing is left.

use crate::cluster::{SOON, WHOLE};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
};

const TRIREME: &str = env!("CARGO_BIN_EXE_trireme");

fn trireme(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(TRIREME);
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).current_dir(dir);
    command
}

fn run(dir: &Path, arguments: &str) -> Output {
    trireme(dir, arguments).output().unwrap()
}

/// Requests a second to each replica: few, since these are builds without optimisation.
const RATE: &str = "--rate 15";

/// The object that a command prints, and how it has ended.
fn object(output: &Output) -> (Value, bool) {
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let object =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {errors}"));
    (object, output.status.success())
}

/// What did not hold, with why.
fn broken(scenario: &Value) -> Vec<&Value> {
    scenario["checks"].as_array().unwrap().iter().filter(|check| check["held"] != true).collect()
}

/// What a checker found. Limits of time are not for builds without optimisation.
fn violated(scenario: &Value) -> Vec<&Value> {
    let of_checkers = |check: &&Value| !check["sources"].as_array().unwrap().is_empty();
    broken(scenario).into_iter().filter(of_checkers).collect()
}

fn assert_left_nothing(dir: &Path) {
    let name = dir.to_str().unwrap();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(name), "{:?} {line}", entry.path());
    }
    for device in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        assert!(!file.contains(name), "{device:?} {file}");
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(name), "{mounts}");
    let left: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().starts_with("trireme-drill-")),
        "{left:?}"
    );
}

#[test]
fn a_leader_that_is_killed_is_drilled_and_a_lost_write_would_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = format!(
        "drill run leader-kill --rounds 2 --work-dir . --json --html page.html --svg picture.svg --history kept \
         --seed 5 {RATE}"
    );
    let output = run(dir.path(), &arguments);
    let (report, held) = object(&output);
    let scenario = &report["scenarios"][0];
    assert!(held, "{:?}", broken(scenario));
    assert_eq!((&scenario["name"], &scenario["held"]), (&"leader-kill".into(), &true.into()));
    assert_left_nothing(dir.path());
    let number = |name: &str| scenario[name].as_f64().unwrap();
    assert_eq!(scenario["faults"].as_array().unwrap().len(), 2);
    assert!(number("write_gap_ms") > 10.0 && number("acknowledged") > 100.0, "{scenario}");
    assert!(number("events") > number("acknowledged"), "three watches see every write");
    assert!(scenario["pods"]["running"].as_u64().unwrap() > 3, "{}", scenario["pods"]);
    let properties = scenario["checks"].as_array().unwrap();
    assert!(properties.iter().any(|check| !check["sources"].as_array().unwrap().is_empty()));
    assert!(
        properties.iter().all(|check| check["examined"].as_u64().unwrap() > 0),
        "{properties:?}"
    );
    let page = fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("leader-kill"));
    assert!(fs::read_to_string(dir.path().join("picture.svg")).unwrap().starts_with("<svg"));

    // As it was kept, it holds; with one write gone from every replica, it does not.
    let history = dir.path().join("kept/leader-kill.history");
    let (report, held) = object(&run(dir.path(), "drill check kept/leader-kill.history --json"));
    assert!(held, "{:?}", broken(&report["scenarios"][0]));
    let mut taken = 0;
    let lines: Vec<String> = fs::read_to_string(&history)
        .unwrap()
        .lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            if let Some(kvs) = record.pointer_mut("/mark/finalKeys/kvs") {
                kvs.as_array_mut().unwrap().remove(0);
                taken += 1;
            }
            record.to_string()
        })
        .collect();
    assert_eq!(taken, 3, "a last look at each replica");
    fs::write(&history, lines.join("\n") + "\n").unwrap();
    let output = run(dir.path(), "drill check kept/leader-kill.history --json");
    let (report, held) = object(&output);
    assert!(!held && !broken(&report["scenarios"][0]).is_empty(), "{report}");
}

#[test]
fn a_partition_in_every_direction_is_drilled() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &format!("drill run partition --work-dir . --json {RATE}"));
    let (report, _) = object(&output);
    let scenario = &report["scenarios"][0];
    assert_eq!(violated(scenario), Vec::<&Value>::new());
    let faults: Vec<&str> = scenario["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["nemesis"].as_str().unwrap())
        .collect();
    assert_eq!(faults, ["cut-leader", "cut-between", "mute-leader", "deafen-leader"]);
    assert_left_nothing(dir.path());
}

#[test]
#[ignore = "takes minutes: for an idle machine, by hand"]
fn a_little_of_chaos_with_every_sort_of_fault_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let nemeses = "kill-leader,slow-disk,clock-ahead,cut-power";
    let output = run(
        dir.path(),
        &format!(
            "drill run chaos --minutes 0 --nemesis {nemeses} --work-dir . --json --seed 11 {RATE}"
        ),
    );
    let (report, _) = object(&output);
    let violated: Vec<&Value> =
        report["scenarios"].as_array().unwrap().iter().flat_map(violated).collect();
    assert_eq!(violated, Vec::<&Value>::new());
    let rows = report["chaos"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["nemesis"].as_str().unwrap()).collect();
    assert_eq!(names, ["kill-leader", "slow-disk", "clock-ahead", "cut-power", "mixed"]);
    assert!(rows.iter().all(|row| row["faults"].as_u64().unwrap() >= 2), "{rows:?}");
    assert_left_nothing(dir.path());
}

#[test]
fn a_drill_that_is_interrupted_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = format!("drill run leader-kill --rounds 1000 --work-dir . {RATE}");
    let mut command = trireme(dir.path(), &arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, killed) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if line.contains("SIGKILL to the leader") {
                let _ = sender.send(());
            }
        }
    });
    killed.recv_timeout(WHOLE).expect("a leader is killed");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let (sender, ended) = mpsc::channel();
    let waiter = thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    let output = ended.recv_timeout(SOON * 3).expect("it ends");
    waiter.join().unwrap().unwrap();
    reader.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("interrupted"), "{errors}");
    assert_left_nothing(dir.path());
}

#[test]
fn a_live_cluster_is_not_broken_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), "drill run leader-kill --data-dir somewhere");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("--i-know-this-breaks-things"), "{errors}");
    let list = run(dir.path(), "drill list");
    let text = String::from_utf8_lossy(&list.stdout);
    for name in ["leader-kill", "quorum-loss", "all ", "chaos ", "mute-leader"] {
        assert!(text.contains(name), "{text}");
    }
}
