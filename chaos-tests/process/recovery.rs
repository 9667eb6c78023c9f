//! Backups, new clusters from them, and the loss of a majority: the commands of the README, on a cluster
//! that serves.

use crate::cluster::{Cluster, SOON, Said, eventually, program, with_cluster};
use api::core::ConfigMap;
use client::{ClientError, ListOptions, WatchOptions};
use futures::StreamExt as _;
use server::{
    config::{ReplicaConfig, read},
    workload::Workload,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tokio::time::timeout;

const WRITERS: usize = 4;

/// The commands of the README's section, each once; a line that goes on is one.
fn commands() -> Vec<String> {
    let text = include_str!("../../README.md").replace("\\\n", " ");
    let section = text.split("## Backup, restore, recovery").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).filter(|line| line.starts_with("trireme "));
    lines.map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

/// Runs the only command of the README that begins so, with what it names put in.
async fn readme(start: &str, names: &[(&str, &str)], more: &[&str]) -> Said {
    let found = commands().into_iter().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "{start}: {found:?}");
    let words = found[0].split_whitespace().skip(1).map(|word| {
        names.iter().fold(word.to_owned(), |word, (name, value)| word.replace(name, value))
    });
    let words: Vec<String> = words.chain(more.iter().map(|word| (*word).to_owned())).collect();
    program(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
}

fn done(said: Said) -> String {
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    said.out
}

/// What a line of an answer says behind its first word.
fn told(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("{name}: {text}"));
    line.trim_start().trim_start_matches(name).trim().to_owned()
}

/// Every ConfigMap and what it holds.
async fn stored(cluster: &Cluster) -> BTreeMap<String, u64> {
    let list = eventually("a list", SOON, async || {
        let options = ListOptions::default();
        let list = cluster.client.list::<ConfigMap>(Some("default"), &options).await;
        list.map_err(|error| error.to_string())
    })
    .await;
    let maps = list.items.into_iter();
    // The cluster's own has none.
    let written = maps.filter_map(|map| Some((map.metadata.name?, map.data?.remove("sequence")?)));
    written.map(|(name, sequence)| (name, sequence.parse().unwrap())).collect()
}

async fn kill_all(cluster: &Cluster) {
    let mut dev = cluster.processes().await;
    for id in 1..=3 {
        dev.kill_replica(id).await.unwrap();
    }
}

fn data(cluster: &Cluster, id: u64) -> PathBuf {
    cluster.dir().join(format!("replica-{id}")).join("data")
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Nothing that was there before may be missing or older.
fn holds(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) {
    for (key, value) in before {
        assert!(now.get(key) >= Some(value), "{key}: {value}, now {:?}", now.get(key));
    }
}

/// A watch that knows an old revision is told to begin anew.
async fn old_watch_is_refused(cluster: &Cluster, revision: u64) {
    let options =
        WatchOptions { resource_version: revision.to_string(), ..WatchOptions::default() };
    let refused = match cluster.client.watch::<ConfigMap>(Some("default"), &options).await {
        Err(error) => Err(error),
        Ok(mut events) => timeout(SOON, events.next()).await.unwrap().expect("an answer"),
    };
    match refused {
        Err(ClientError::Api(status)) => assert_eq!(status.code, 410, "{status:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backup_under_load_makes_a_new_cluster_with_everything_acknowledged_before() {
    with_cluster(0, async |cluster| {
        let workload = Workload::start(&cluster.endpoints, WRITERS).unwrap();
        timeout(SOON, workload.more(200)).await.expect("writes");
        let before = stored(cluster).await;
        let (revision, _) = revision(cluster).await;
        let file = text(&cluster.dir().join("backup"));
        let dir = text(cluster.dir());
        let names = [("trireme-dev", dir.as_str()), ("before-upgrade.backup", file.as_str())];
        let taken = done(
            readme("trireme cluster backup before-upgrade.backup --data-dir", &names, &[]).await,
        );
        timeout(SOON, workload.more(50)).await.expect("writes after the backup");
        drop(workload);
        let at: u64 = told(&taken, "revision").parse().unwrap();
        assert!(at >= revision, "{taken}");
        assert_eq!(done(readme("trireme cluster backup --verify", &names, &[]).await), taken);
        let again = program(&["cluster", "backup", &file, "--data-dir", &dir]).await;
        assert_eq!(again.code, 1, "does not write over one: {again:?}");
        damaged_backups_are_refused(Path::new(&file)).await;
        kill_all(cluster).await;
        let refused = readme("trireme cluster restore", &names, &[]).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("is not empty"), "{refused:?}");
        let old = cluster.dir().join("old-1");
        fs::rename(data(cluster, 1), &old).unwrap();
        for id in 2..=3 {
            fs::remove_dir_all(data(cluster, id)).unwrap();
        }
        done(readme("trireme cluster restore", &names, &[]).await);
        let mut dev = cluster.processes().await;
        for id in 1..=3 {
            dev.start_replica(id).unwrap();
        }
        dev.wait_replicas(SOON).await.unwrap();
        drop(dev);
        holds(&stored(cluster).await, &before);
        let (now, _) = cluster.state().await;
        assert!(now >= at + 1_000_000_000, "{now} after {at}");
        old_watch_is_refused(cluster, at).await;
        let workload = Workload::start(&cluster.endpoints, WRITERS).unwrap();
        timeout(SOON, workload.more(50)).await.expect("the new cluster takes writes");
        let verdict = workload.finish(&cluster.client).await.unwrap();
        assert_eq!((verdict.lost, &verdict.violations), (0, &vec![]), "{verdict:?}");
        cluster.state().await;
        the_old_disk_is_refused(cluster, &old).await;
    });
}

async fn revision(cluster: &Cluster) -> (u64, u64) {
    let status = cluster.status().await;
    let members = status["members"].as_array().unwrap();
    let of = |key: &str| members.iter().filter_map(|m| m[key].as_u64()).max().unwrap();
    (of("revision"), of("appliedIndex"))
}

async fn damaged_backups_are_refused(file: &Path) {
    let whole = fs::read(file).unwrap();
    let broken = file.with_extension("broken");
    for at in [3, 700, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&broken, bytes).unwrap();
        let said = program(&["cluster", "backup", "--verify", broken.to_str().unwrap()]).await;
        assert_eq!(said.code, 1, "byte {at}: {said:?}");
        assert!(said.err.contains("is not whole"), "byte {at}: {said:?}");
    }
    fs::write(&broken, &whole[..whole.len() - 1]).unwrap();
    let said = program(&["cluster", "backup", "--verify", broken.to_str().unwrap()]).await;
    assert_eq!(said.code, 1, "{said:?}");
}

/// A replica of the old cluster, where the new one's members expect their own.
async fn the_old_disk_is_refused(cluster: &Cluster, old: &Path) {
    let mut dev = cluster.processes().await;
    dev.kill_replica(1).await.unwrap();
    let new = cluster.dir().join("new-1");
    fs::rename(data(cluster, 1), &new).unwrap();
    fs::rename(old, data(cluster, 1)).unwrap();
    dev.start_replica(1).unwrap();
    let pid = dev.replica_pid(1).unwrap();
    drop(dev);
    eventually("the old replica ends", SOON, async || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
    })
    .await;
    let log = fs::read_to_string(cluster.dir().join("replica-1").join("log")).unwrap();
    assert!(log.contains("another cluster") || log.contains("of cluster"), "{log}");
    let mut dev = cluster.processes().await;
    dev.kill_replica(1).await.unwrap();
    fs::remove_dir_all(data(cluster, 1)).unwrap();
    fs::rename(&new, data(cluster, 1)).unwrap();
    drop(dev);
    cluster.start_replica(1).await;
    cluster.state().await;
}

#[test]
fn one_disk_of_three_is_enough_to_go_on_with_what_was_committed_on_it() {
    with_cluster(0, async |cluster| {
        let workload = Workload::start(&cluster.endpoints, WRITERS).unwrap();
        timeout(SOON, workload.more(200)).await.expect("writes");
        // Not dropped: what is under way would be written behind the look at what is there.
        let verdict = workload.finish(&cluster.client).await.unwrap();
        assert_eq!((verdict.lost, &verdict.violations), (0, &vec![]), "{verdict:?}");
        let before = stored(cluster).await;
        // All of them hold all of it.
        let (revision, _) = cluster.state().await;
        kill_all(cluster).await;
        let dir = text(cluster.dir());
        let names = [("trireme-dev", dir.as_str())];
        let left = [2, 3].map(|id| text(&data(cluster, id)));
        let both = done(program(&["recover", "plan", &left[0], &left[1]]).await);
        assert!(both.contains("that is a majority. Start them"), "{both}");
        for id in 1..=2 {
            fs::remove_dir_all(data(cluster, id)).unwrap();
        }
        let files = listing(&data(cluster, 3));
        let plan = done(readme("trireme recover plan", &names, &[]).await);
        assert_eq!(listing(&data(cluster, 3)), files, "a plan changes nothing");
        assert!(plan.contains("damage     none") && plan.contains("may be lost"), "{plan}");
        let wrong = readme("trireme recover run", &[names[0], ("TERM-INDEX", "1-1")], &[]).await;
        assert_eq!(wrong.code, 1, "{wrong:?}");
        assert_eq!(listing(&data(cluster, 3)), files, "refused: {wrong:?}");
        let command = plan.lines().last().unwrap();
        let accepted = command.split("--i-accept ").nth(1).unwrap().trim();
        let names = [names[0], ("TERM-INDEX", accepted)];
        let run = done(readme("trireme recover run", &names, &[]).await);
        assert!(run.contains("trireme cluster add-member --peer-url"), "{run}");
        cluster.start_replica(3).await;
        assert_eq!(stored(cluster).await, before);
        old_watch_is_refused(cluster, revision).await;
        for id in 1..=2 {
            grow(cluster, id).await;
        }
        assert_eq!(stored(cluster).await, before);
        let workload = Workload::start(&cluster.endpoints, WRITERS).unwrap();
        timeout(SOON, workload.more(50)).await.expect("writes");
        let verdict = workload.finish(&cluster.client).await.unwrap();
        assert_eq!((verdict.lost, &verdict.violations), (0, &vec![]), "{verdict:?}");
        let (now, _) = cluster.state().await;
        assert!(now > revision + 1_000_000_000, "{now} after {revision}");
    });
}

/// Every file below a directory, and its bytes.
fn listing(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Adds a member where one was, and waits until it votes.
async fn grow(cluster: &Cluster, id: u64) {
    let path = cluster.dir().join(format!("replica-{id}")).join("config.toml");
    let mut config: ReplicaConfig = read(&path).unwrap();
    let me = config.members.iter().position(|m| m.id == id).unwrap();
    let url = config.members[me].peer_url.clone();
    let names = [("trireme-dev", text(cluster.dir())), ("https://10.0.0.2:7003", url.clone())];
    let names = names.each_ref().map(|(name, value)| (*name, value.as_str()));
    done(readme("trireme cluster add-member", &names, &[]).await);
    let listed = done(cluster.cli(&["cluster", "members", "--json"]).await);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let members = listed.as_array().unwrap();
    let added = members.iter().find(|m| m["peerUrls"][0] == url.as_str()).unwrap();
    let drawn = added["id"].as_u64().unwrap();
    config.members[me].id = drawn;
    let keep = [3, drawn];
    config.members.retain(|m| keep.contains(&m.id));
    (config.id, config.join) = (drawn, true);
    let dir = cluster.dir().join(format!("replica-{drawn}"));
    config.data_dir = dir.join("data");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config.toml"), toml::to_string(&config).unwrap()).unwrap();
    cluster.processes().await.start_replica(drawn).unwrap();
    eventually("the new member votes", SOON, async || {
        let status = cluster.status().await;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let member = members.into_iter().find(|m| m["id"] == drawn).ok_or(status.to_string())?;
        if member["role"] == "follower" { Ok(()) } else { Err(member.to_string()) }
    })
    .await;
}
