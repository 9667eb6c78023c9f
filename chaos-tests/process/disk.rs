//! Disks that fail under real replicas: what their clients see.

use crate::cluster::{Cluster, SOON, WHOLE, eventually, with_cluster_in};
use api::core::ConfigMap;
use client::WriteOptions;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};
use server::workload::{Verdict, Workload};
use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tokio::time::{Instant, timeout};

const WRITERS: usize = 8;
const SEGMENT: u64 = 4 << 20;

fn with_faults(test: impl AsyncFnOnce(&Cluster)) {
    with_cluster_in(&std::env::temp_dir(), 0, Some(SEGMENT), WHOLE, test);
}

fn set_faults(cluster: &Cluster, id: u64, plan: &str) {
    let path = cluster.dir().join(format!("replica-{id}")).join("faults");
    // At once, so that no half of it is ever read.
    let new = path.with_extension("new");
    fs::write(&new, plan).unwrap();
    fs::rename(&new, &path).unwrap();
}

async fn member(cluster: &Cluster, id: u64) -> Result<Value, String> {
    let status = cluster.status().await;
    let members = status["members"].as_array().cloned().unwrap_or_default();
    members.into_iter().find(|m| m["id"] == id && m["reachable"] == true).ok_or(status.to_string())
}

async fn disk_is(cluster: &Cluster, id: u64, want: &str) {
    eventually(format!("the disk of {id} is {want}"), SOON, async || {
        let member = member(cluster, id).await?;
        if member["disk"] == want { Ok(()) } else { Err(member.to_string()) }
    })
    .await;
}

async fn other_leads(cluster: &Cluster, than: u64) {
    eventually(format!("another than {than} leads"), SOON, async || {
        let leader = cluster.status().await["leader"].as_u64().unwrap_or(0);
        if leader != 0 && leader != than { Ok(()) } else { Err(leader.to_string()) }
    })
    .await;
}

fn nothing_lost(verdict: &Verdict) {
    assert_eq!((verdict.lost, &verdict.violations), (0, &vec![]), "{verdict:?}");
}

fn workload(cluster: &Cluster) -> Workload {
    Workload::start(&cluster.endpoints, WRITERS).unwrap()
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_and_clients_hardly_see_it() {
    with_faults(async |cluster| {
        let workload = workload(cluster);
        timeout(SOON, workload.more(200)).await.expect("writes before the stall");
        let leader = cluster.leader().await;
        let at = Instant::now();
        set_faults(cluster, leader, "stallSyncs = true\n");
        other_leads(cluster, leader).await;
        let took = at.elapsed();
        disk_is(cluster, leader, "stalled").await;
        timeout(SOON, workload.more(200)).await.expect("writes during the stall");
        let gap = workload.longest_gap(at);
        set_faults(cluster, leader, "");
        disk_is(cluster, leader, "ok").await;
        let verdict = workload.finish(&cluster.client).await.unwrap();
        nothing_lost(&verdict);
        assert!(took < Duration::from_millis(1500), "handed over after {took:?}");
        assert!(gap < Duration::from_millis(1500), "no write for {gap:?}");
        cluster.state().await;
        println!(
            "stalled disk: handed over after {took:?}, no write for {gap:?}, {} acknowledged, 0 \
             lost, {} of unknown outcome",
            verdict.acknowledged, verdict.unknown
        );
    });
}

#[test]
fn a_replica_whose_sync_fails_ends_and_clients_go_on_with_the_others() {
    with_faults(async |cluster| {
        let workload = workload(cluster);
        timeout(SOON, workload.more(200)).await.expect("writes before the failure");
        let leader = cluster.leader().await;
        let pid = cluster.processes().await.replica_pid(leader).unwrap();
        let at = Instant::now();
        set_faults(cluster, leader, "failSync = 2\n");
        eventually("the process has ended", SOON, async || {
            // A zombie until it is waited for.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let ended = stat.is_empty() || stat.contains(") Z ");
            if ended { Ok(()) } else { Err(stat) }
        })
        .await;
        let took = at.elapsed();
        timeout(SOON, workload.more(200)).await.expect("writes through the others");
        let gap = workload.longest_gap(at);
        let log = cluster.dir().join(format!("replica-{leader}")).join("log");
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("the log has failed") && log.contains("Input/output error"), "{log}");
        set_faults(cluster, leader, "");
        let mut dev = cluster.processes().await;
        dev.kill_replica(leader).await.unwrap();
        drop(dev);
        cluster.start_replica(leader).await;
        let verdict = workload.finish(&cluster.client).await.unwrap();
        nothing_lost(&verdict);
        cluster.state().await;
        println!(
            "failing sync: ended after {took:?}, no write for {gap:?}, {} acknowledged, 0 lost, {} \
             of unknown outcome",
            verdict.acknowledged, verdict.unknown
        );
    });
}

#[test]
fn a_full_disk_refuses_what_needs_room_and_nothing_else_until_there_is_room() {
    with_faults(async |cluster| {
        let map = |name: &str| -> ConfigMap {
            serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": "default"}, "data": {"a": "b"},
            }))
            .unwrap()
        };
        let create =
            async |name: String| cluster.client.create(&map(&name), &WriteOptions::default()).await;
        create("kept".into()).await.unwrap();
        create("gone".into()).await.unwrap();
        let leader = cluster.leader().await;
        set_faults(cluster, leader, &format!("fullAfterBytes = {SEGMENT}\n"));
        disk_is(cluster, leader, "full").await;
        let mut tried = 0;
        let refused = eventually("writes are refused", SOON, async || {
            tried += 1;
            create(format!("more-{tried}")).await.err().ok_or("taken".to_owned())
        })
        .await;
        other_leads(cluster, leader).await;
        // Through the full one too.
        let client = cluster.only(leader);
        let kept = client.get::<ConfigMap>(Some("default"), "kept").await.unwrap();
        assert_eq!(kept.data.unwrap()["a"], "b");
        client
            .call::<Value>(http::Method::DELETE, "/api/v1/namespaces/default/configmaps/gone", None)
            .await
            .unwrap();
        set_faults(cluster, leader, "");
        let at = Instant::now();
        eventually("writes are taken again", SOON, async || {
            tried += 1;
            create(format!("more-{tried}")).await.map(|_| ()).map_err(|e| e.to_string())
        })
        .await;
        println!(
            "full disk: refused with {refused}; taken again {:?} after there was room",
            at.elapsed()
        );
        cluster.state().await;
    });
}

/// For a power cut, on a busy machine.
const EACH_CUT: Duration = Duration::from_secs(10);

/// How many power cuts: `TRIREME_CUTS`, or a few.
fn cuts() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long to test is not configuration")]
    let asked = std::env::var("TRIREME_CUTS").ok();
    asked.map_or(3, |cuts| cuts.parse().expect("TRIREME_CUTS is a number"))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A file system of its own on a loop device, seen by this thread and what it starts only.
struct Disk {
    device: String,
    at: PathBuf,
    _files: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let files = tempfile::tempdir().unwrap();
        let image = files.path().join("image");
        File::create(&image).unwrap().set_len(1 << 30).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        let device = run("losetup", &["-f", "--show", image.to_str().unwrap()]);
        let at = files.path().join("mounted");
        fs::create_dir(&at).unwrap();
        let disk = Self { device, at, _files: files };
        disk.mount();
        disk
    }

    fn mount(&self) {
        let none: Option<&str> = None;
        let device = Path::new(&self.device);
        mount(Some(device), &self.at, Some("ext4"), MsFlags::empty(), none).unwrap();
    }

    /// Ends the file system where it stands: what has not been written to the device never will be.
    fn cut(&self) {
        nix::ioctl_read!(shutdown, b'X', 125, u32);
        let dir = File::open(&self.at).unwrap();
        // 2: the journal is not flushed either.
        let mut how = 2;
        #[expect(unsafe_code, reason = "no safe wrapper: reads the number that it is given")]
        unsafe { shutdown(dir.as_raw_fd(), &raw mut how) }.unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        let _ = Command::new("losetup").args(["-d", &self.device]).output();
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_file_system_loses_its_power() {
    let disk = Disk::new();
    let time = WHOLE + EACH_CUT * u32::try_from(cuts()).unwrap();
    with_cluster_in(&disk.at, 0, Some(SEGMENT), time, async |cluster| {
        // The configuration is nobody's promise.
        run("sync", &["-f", disk.at.to_str().unwrap()]);
        let (mut acknowledged, mut unknown) = (0, 0);
        for cut in 0..cuts() {
            let workload = workload(cluster);
            let writes = usize::try_from(30 + cut * 37 % 200).unwrap();
            timeout(SOON, workload.more(writes)).await.expect("writes before the cut");
            disk.cut();
            let mut dev = cluster.processes().await;
            for id in 1..=3 {
                dev.kill_replica(id).await.unwrap();
            }
            eventually("nobody holds the dead file system", SOON, async || {
                umount2(&disk.at, MntFlags::empty()).map_err(|e| e.to_string())
            })
            .await;
            disk.mount();
            for id in 1..=3 {
                dev.start_replica(id).unwrap();
            }
            dev.wait_replicas(SOON).await.unwrap();
            drop(dev);
            let verdict = workload.finish(&cluster.client).await.unwrap();
            assert_eq!(verdict.violations, [""; 0], "cut {cut}");
            assert_eq!(verdict.lost, 0, "cut {cut}: {verdict:?}");
            cluster.state().await;
            acknowledged += verdict.acknowledged;
            unknown += verdict.unknown;
        }
        println!(
            "{} cuts of a real file system, {acknowledged} writes acknowledged, 0 lost, {unknown} of \
             unknown outcome",
            cuts()
        );
    });
}

#[test]
fn a_damaged_disk_is_refused_by_file_and_offset_with_the_way_out() {
    with_faults(async |cluster| {
        let workload = workload(cluster);
        timeout(SOON, workload.more(300)).await.expect("writes before the damage");
        let mut dev = cluster.processes().await;
        dev.kill_replica(1).await.unwrap();
        let dir = cluster.dir().join("replica-1");
        let log = dir.join("data").join("log").join("0000000000000001.wal");
        let whole = fs::read(&log).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        let at = used / 2;
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(&log, damaged).unwrap();
        let config = dir.join("config.toml");
        let out = Command::new(env!("CARGO_BIN_EXE_trireme"))
            .args(["server", "--config", config.to_str().unwrap()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "{said}");
        for part in
            ["0000000000000001.wal is corrupt at offset", "trireme cluster replace-member 1"]
        {
            assert!(said.contains(part), "{said}");
        }
        // The others go on, and the right bytes are as good as ever.
        timeout(SOON, workload.more(100)).await.expect("writes without the damaged one");
        fs::write(&log, whole).unwrap();
        dev.start_replica(1).unwrap();
        dev.wait_replicas(SOON).await.unwrap();
        drop(dev);
        let verdict = workload.finish(&cluster.client).await.unwrap();
        nothing_lost(&verdict);
        cluster.state().await;
        let line = said.lines().find(|line| line.contains("corrupt")).unwrap_or_default();
        println!("bit flip: {} acknowledged, 0 lost; {line}", verdict.acknowledged);
    });
}
