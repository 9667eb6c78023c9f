//! The end of a soak: no load, no faults, and everything the same everywhere.

use super::{
    Shared,
    checker::Checker,
    keys::{PREFIX, PREFIX_END, Revision},
    violation::Violation,
};
use crate::{
    cluster::Cluster,
    wire::{Connection, path},
};
use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use etcd::proto::{
    etcdserverpb::{HashKvRequest, HashKvResponse, RangeRequest, RangeResponse},
    mvccpb::KeyValue,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// For members to agree, and for watches to deliver the rest.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);
/// Keys read back in one request.
const PAGE: i64 = 1000;

/// How it all ended.
pub(super) struct Settled {
    pub(super) revision: Revision,
    /// Keys that there were.
    pub(super) keys: usize,
    /// Of each member, by name.
    pub(super) hashes: BTreeMap<String, u32>,
}

/// Waits until nothing moves any more and checks all that can be checked then.
///
/// # Errors
/// A member does not answer.
pub(super) async fn settle(shared: &Shared, cluster: &mut Cluster) -> anyhow::Result<Settled> {
    cluster.wait_ready().await?;
    let mut connections = Vec::new();
    for endpoint in cluster.endpoints() {
        connections.push(Connection::open(&endpoint).await?);
    }
    let names = cluster.names();
    let wrong = |violation| shared.checker.borrow_mut().violated(violation);
    let revision = match same_revision(&connections).await? {
        Ok(revision) => revision,
        Err(revisions) => {
            wrong(Violation::Apart { revisions: list(&names, &revisions) });
            revisions.into_iter().max().unwrap_or_default()
        }
    };
    let deadline = Instant::now() + PATIENCE;
    while !all_delivered(&shared.checker.borrow(), revision) && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    shared.checker.borrow_mut().watched_until(revision);
    let hashes = hashes(&connections, revision).await?;
    if hashes.windows(2).any(|pair| pair.first() != pair.last()) {
        let hashes = hashes.iter().map(|(hash, compacted)| format!("{hash:08x} from {compacted}"));
        let hashes = list(&names, &hashes.collect::<Vec<_>>());
        wrong(Violation::Hashes { at: revision, hashes });
    }
    let kvs = read_all(connections.first().context("no member")?, revision).await?;
    shared.checker.borrow_mut().read_back(&kvs, revision);
    let hashes = names.into_iter().zip(hashes.into_iter().map(|(hash, _)| hash)).collect();
    Ok(Settled { revision, keys: kvs.len(), hashes })
}

fn list(names: &[String], values: &[impl ToString]) -> String {
    let each =
        names.iter().zip(values).map(|(name, value)| format!("{name} {}", value.to_string()));
    each.collect::<Vec<_>>().join(", ")
}

fn all_delivered(checker: &Checker, revision: Revision) -> bool {
    checker.sequence.watches().iter().all(|watch| watch.last >= revision)
}

/// The revision of all members, the same twice: what was sent long ago may come late. Of each if they stay
/// apart.
async fn same_revision(
    connections: &[Connection],
) -> anyhow::Result<Result<Revision, Vec<Revision>>> {
    let deadline = Instant::now() + PATIENCE;
    let mut before = None;
    loop {
        let mut revisions = Vec::new();
        for connection in connections {
            let one = RangeRequest { key: PREFIX.into(), ..RangeRequest::default() };
            let answer: RangeResponse =
                connection.unary(path::RANGE, &one).await.context("read a revision")?;
            revisions.push(Revision(answer.header.map_or(0, |header| header.revision)));
        }
        let first = revisions.first().copied().context("no member")?;
        let same = revisions.iter().all(|revision| *revision == first);
        if same && before == Some(first) {
            return Ok(Ok(first));
        }
        if Instant::now() > deadline {
            return Ok(Err(revisions));
        }
        before = same.then_some(first);
        sleep(LOOK).await;
    }
}

/// Of each member the hash at a revision, and from which revision on; members forget in their own time.
async fn hashes(connections: &[Connection], revision: Revision) -> anyhow::Result<Vec<(u32, i64)>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut hashes = Vec::new();
        for connection in connections {
            let at = HashKvRequest { revision: revision.0 };
            let answer: HashKvResponse =
                connection.unary(path::HASH_KV, &at).await.context("ask for a hash")?;
            hashes.push((answer.hash, answer.compact_revision));
        }
        let same = hashes.windows(2).all(|pair| pair.first() == pair.last());
        if same || Instant::now() > deadline {
            return Ok(hashes);
        }
        sleep(LOOK).await;
    }
}

async fn read_all(connection: &Connection, revision: Revision) -> anyhow::Result<Vec<KeyValue>> {
    let mut from = Bytes::from(PREFIX);
    let mut all = Vec::new();
    loop {
        let page = RangeRequest {
            key: from,
            range_end: PREFIX_END.into(),
            revision: revision.0,
            limit: PAGE,
            ..RangeRequest::default()
        };
        let page: RangeResponse =
            connection.unary(path::RANGE, &page).await.context("read keys back")?;
        let Some(last) = page.kvs.last() else { return Ok(all) };
        let mut next = BytesMut::from(&*last.key);
        next.extend_from_slice(b"\0");
        from = next.freeze();
        all.extend(page.kvs);
    }
}
