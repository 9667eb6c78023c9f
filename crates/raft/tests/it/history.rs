//! Times of revisions and versions of keys, the same on every member however it came by them.

use crate::cluster::Cluster;
use std::{sync::atomic::Ordering, time::Duration};
use store::{Op, Origin, Revision, Store as _, Timestamp, state::View};

/// What a member can tell of the past.
#[derive(Debug, PartialEq)]
struct Told {
    /// Of each kept revision.
    times: Vec<Option<Timestamp>>,
    /// Of one key, and whether it was there.
    versions: Vec<(Revision, bool)>,
    /// At each of the last seconds.
    newest: Vec<Option<Revision>>,
}

fn told(view: &View) -> Told {
    let oldest = view.compacted().get().max(1);
    let revisions = oldest..=view.revision().get();
    let times = revisions.map(|r| view.time_of(Revision::new(r))).collect();
    let versions = view.versions(b"key").into_iter().map(|(at, kv)| (at, kv.is_some())).collect();
    let last = view.time().0 / 1_000_000;
    let newest = (last - 9..=last).map(|s| view.revision_at(Timestamp(s * 1_000_000))).collect();
    Told { times, versions, newest }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_tells_the_same_of_the_past() {
    let mut cluster = Cluster::with_snapshots(3, 100).await;
    let (leader, _) = cluster.leader().await;
    for i in 0..250 {
        let key = if i % 10 == 0 { "key".to_owned() } else { format!("other-{i}") };
        cluster.now.fetch_add(300_000, Ordering::Relaxed);
        cluster.put(leader, &key, &i.to_string()).await.unwrap();
    }
    let compact = Op::Compact { revision: Revision::new(60) };
    let proposal = cluster.proposal(Origin::Client, compact);
    let done = cluster.store(leader).propose(proposal, Duration::from_secs(5)).await;
    done.unwrap().outcome.unwrap();
    // One that gets everything as a snapshot, and one that starts again from its own.
    let joined = cluster.grow(leader, false).await;
    let restarted = cluster.ids().into_iter().find(|id| *id != leader && *id != joined).unwrap();
    cluster.kill(restarted).await;
    cluster.restart(restarted).await;
    let (leader, _) = cluster.leader().await;
    cluster.put(leader, "key", "last").await.unwrap();
    cluster.settle().await;
    let first = told(&cluster.store(leader).view());
    assert!(first.times.iter().all(Option::is_some), "{first:?}");
    assert!(first.times.is_sorted() && first.times.first() < first.times.last(), "time goes on");
    assert_eq!(first.versions.len(), 21, "what is read at the compacted revision, and all since");
    for id in cluster.ids() {
        assert_eq!(told(&cluster.store(id).view()), first, "member {id}");
    }
}
