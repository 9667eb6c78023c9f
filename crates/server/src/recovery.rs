//! Backups as files, new clusters from them, and what to do when a majority is lost: for people.

use crate::{
    config::{self, ReplicaConfig},
    replica,
};
use anyhow::{Context as _, bail, ensure};
pub use raft::{BackupWriter, REVISION_JUMP, verify_backup};
use raft::{Contents, Founded, Survivor};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// Makes the data directories of these replicas those of a new cluster; what it is, in words.
///
/// # Errors
/// The backup is damaged, a directory holds something, or a configuration cannot be read.
pub fn restore(file: &Path, configs: &[PathBuf], jump: u64) -> anyhow::Result<String> {
    let mut members = BTreeMap::new();
    for path in configs {
        let config: ReplicaConfig = config::read(path)?;
        let Some(member) = replica::members(&config).remove(&config.id) else {
            bail!("{}: replica {} is not among its members", path.display(), config.id);
        };
        let first = members.insert(config.id, (member, config.data_dir)).is_none();
        ensure!(first, "{}: there are two replicas {}", path.display(), config.id);
    }
    let (contents, founded) = raft::restore(file, &members, jump)?;
    let Contents { cluster, revision, keys, .. } = contents;
    let mut text = format!(
        "took {keys} keys at revision {} of cluster {cluster:016x}\n{}\n",
        revision.get(),
        described(&founded)
    );
    for (id, (member, dir)) in &members {
        let _ = writeln!(text, "replica {id} ({}) may be started: {}", member.name, dir.display());
    }
    text.push_str("The old cluster's replicas must not be started again for the same clients.");
    Ok(text)
}

fn described(founded: &Founded) -> String {
    format!(
        "new cluster {:016x} begins at revision {}; everything before counts as compacted",
        founded.cluster,
        founded.revision.get()
    )
}

/// A configuration names data, and a cluster of `trireme dev` has it there.
fn data_dir(dir: &Path) -> PathBuf {
    let inner = dir.join("data");
    if inner.join("log").is_dir() { inner } else { dir.to_owned() }
}

/// What is left on these disks, and how to go on; in words.
///
/// # Errors
/// One of them cannot be looked at, or they are of several clusters.
pub fn plan(dirs: &[PathBuf]) -> anyhow::Result<String> {
    let mut survivors = Vec::new();
    for dir in dirs {
        let dir = data_dir(dir);
        let look = raft::look(&dir).with_context(|| format!("look at {}", dir.display()))?;
        survivors.push(look);
    }
    let Some(first) = survivors.first() else { bail!("name the data directories that are left") };
    for other in &survivors {
        let (one, two) = (first.dir.display(), other.dir.display());
        ensure!(
            other.cluster == first.cluster,
            "{one} is of cluster {:016x}, and {two} of {:016x}: plan for one at a time",
            first.cluster,
            other.cluster
        );
        let twice = survivors.iter().filter(|s| s.member == other.member).count();
        ensure!(twice == 1, "member {} is given twice", other.member);
    }
    let mut text = String::new();
    for survivor in &survivors {
        text.push_str(&report(survivor));
    }
    let usable = survivors.iter().filter(|survivor| survivor.is_usable());
    let Some(best) = usable.max_by_key(|survivor| (survivor.last, survivor.committed)) else {
        text.push_str("None of these disks is of use: restore a backup (trireme cluster restore).");
        return Ok(text);
    };
    text.push_str(&advice(best, &survivors));
    Ok(text)
}

fn report(survivor: &Survivor) -> String {
    let Survivor { dir, cluster, member, vote_term, snapshot, committed, last, .. } = survivor;
    let log = survivor.log.map_or("no entries".to_owned(), |(a, b)| format!("{a} to {b}"));
    let mut text = format!(
        "{}\n  member     {member} of cluster {cluster:016x}\n  vote term  {vote_term}\n  \
         log        {log}\n  snapshot   {snapshot}\n  committed  {committed} (revision {})\n  \
         last       term {}, index {} (revision {})\n",
        dir.display(),
        survivor.committed_revision.get(),
        last.0,
        last.1,
        survivor.last_revision.get(),
    );
    if survivor.damage.is_empty() {
        text.push_str("  damage     none\n");
    }
    for damage in &survivor.damage {
        let _ = writeln!(text, "  damage     {damage}");
    }
    match survivor.unfit {
        Some(why) => {
            let _ = writeln!(text, "  no basis   {why}");
        }
        None if !survivor.whole => text.push_str("  no basis   it cannot be read to its end\n"),
        None => {}
    }
    text.push('\n');
    text
}

fn advice(best: &Survivor, survivors: &[Survivor]) -> String {
    let shown = best.dir.display();
    let mut text = format!("The best of them: member {}, {shown}\n", best.member);
    let voters = best.voters.len();
    let here = survivors.iter().filter(|s| s.is_usable() && best.voters.contains(&s.member));
    let (here, majority) = (here.count(), voters / 2 + 1);
    if here >= majority {
        let _ = write!(
            text,
            "{here} of {voters} voters are here and whole: that is a majority. Start them; nothing \
             needs to be recovered, and nothing would be lost."
        );
        return text;
    }
    let (term, last) = best.last;
    let _ = writeln!(
        text,
        "certain    everything up to index {} (revision {}): known to be committed, and on it",
        best.committed,
        best.committed_revision.get()
    );
    if last > best.committed {
        let _ = writeln!(
            text,
            "kept       entries {} to {last} (to revision {}): on it, and may have been acknowledged; \
             they are kept, so that a write that failed for its client may show",
            best.committed + 1,
            best.last_revision.get()
        );
    }
    if voters - here >= majority {
        let _ = writeln!(
            text,
            "may be lost  entries after {last}: {} of {voters} voters are not here, which are enough to \
             have acknowledged more. Look for their disks before going on.",
            voters - here
        );
    } else {
        let _ = writeln!(
            text,
            "may be lost  nothing: what was acknowledged needed {majority} of {voters} voters, and only {} \
             are not here",
            voters - here
        );
    }
    let _ = write!(
        text,
        "To go on with it alone, as a new cluster (nothing else may run of the old one):\n  \
         trireme recover run {shown} --i-accept {term}-{last}"
    );
    text
}

/// Makes the disk of a survivor the one of the only member of a new cluster; what it is, in words.
///
/// # Errors
/// See [`raft::recover`]; or `accepted` is not as the plan has it.
pub fn run(dir: &Path, accepted: &str, jump: u64) -> anyhow::Result<String> {
    let last = accepted
        .split_once('-')
        .and_then(|(term, index)| Some((term.parse::<u64>().ok()?, index.parse::<u64>().ok()?)));
    let last = last.context("--i-accept takes TERM-INDEX, as `trireme recover plan` prints it")?;
    let dir = data_dir(dir);
    let (survivor, founded, aside) = raft::recover(&dir, last, jump)?;
    let mut text = format!(
        "took everything up to term {}, index {}, revision {}\n{}\n\
         what was here before is in {}\n\
         Start member {} with its configuration; then, for each other replica:\n",
        last.0,
        last.1,
        survivor.last_revision.get(),
        described(&founded),
        aside.display(),
        survivor.member,
    );
    for (id, member) in survivor.members.iter().filter(|(id, _)| **id != survivor.member) {
        let url = member.peer_urls.join(",");
        let _ = writeln!(text, "  trireme cluster add-member --peer-url {url}   (was member {id})");
    }
    text.push_str(
        "and start it with an empty data directory, the id that this prints, and join = true.",
    );
    Ok(text)
}
