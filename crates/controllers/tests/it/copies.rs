//! What the copies of kinds hold.

use crate::Cluster;
use api::{core::ConfigMap, meta};
use client::{
    ListOptions,
    informer::{Informer, Key},
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// More than one page of a list, and no whole number of pages.
const OBJECTS: usize = 1_234;

#[tokio::test(start_paused = true)]
async fn a_copy_of_several_pages_is_whole_and_goes_on_from_their_revision() {
    // CTL-1, FEN-37
    let cluster = Cluster::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for number in 0..OBJECTS {
        let map = json!({"metadata": {"name": format!("m-{number:04}"), "labels": {"a": "b"}}});
        cluster.post(maps, map).await;
    }
    let keep = |map: ConfigMap| {
        let mut kept = map;
        kept.metadata.labels = None;
        kept
    };
    let ours = ListOptions { label_selector: "a=b".to_owned(), ..ListOptions::default() };
    let end = CancellationToken::new();
    let (copy, follow) =
        Informer::<ConfigMap>::keeping(keep, cluster.client(), None, ours, end.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(follow);
    copy.synced().await;
    let names = copy.list().iter().map(|map| Key::of(&**map).name).collect::<Vec<_>>();
    let want = (0..OBJECTS).map(|number| format!("m-{number:04}")).collect::<Vec<_>>();
    assert_eq!(names, want);
    assert!(copy.list().iter().all(|map| map.metadata.labels.is_none()), "as `keep` leaves them");

    let new = json!({"metadata": {"name": "new", "labels": {"a": "b"}}});
    let new = cluster.post(maps, new).await;
    copy.reached(meta::resource_version(&new).parse().unwrap()).await;
    assert_eq!(copy.lists(), 1, "nothing was missed behind the pages");
    assert_eq!(copy.list().len(), OBJECTS + 1);
    end.cancel();
    tasks.join_next().await.unwrap().unwrap();
}
