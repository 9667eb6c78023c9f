//! When a replica writes a snapshot: every so many entries, and never when the others do.

use crate::{core::Core, types::LogId};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Between two looks: to be woken by each entry would cost more.
const LOOK: Duration = Duration::from_millis(50);
/// Before a snapshot that did not come is asked for again: one that began earlier is still being written, or
/// the disk is full.
const RETRY: Duration = Duration::from_secs(1);

/// Has a snapshot written each time that `entries` more are applied than the newest one has, until `stop`.
///
/// A snapshot takes disk and processor away from the log. Members write theirs at different places of
/// the log, so that a majority is at its best at any time.
pub(crate) async fn take_snapshots(core: Arc<Core>, entries: u64, stop: CancellationToken) {
    let work = async {
        loop {
            let due = {
                let now = core.metrics();
                let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
                let due = |id| due(index(id), entries, place(&core));
                due(now.last_applied) > due(now.snapshot)
            };
            // It does nothing while another one is being written: whether one came is seen later.
            if due && core.raft.trigger().snapshot().await.is_err() {
                return;
            }
            sleep(if due { RETRY } else { LOOK }).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Which of the members this one is in the order of ids, and how many there are.
fn place(core: &Core) -> (u64, u64) {
    let group = core.group.borrow();
    let ids = group.nodes().map(|(id, _)| *id);
    let (before, all) =
        ids.fold((0, 0), |(before, all), id| (before + u64::from(id < core.id), all + 1));
    (before, all.max(1))
}

/// How many snapshots are due up to `index`.
fn due(index: u64, entries: u64, (before, members): (u64, u64)) -> u64 {
    let entries = entries.max(1);
    let ahead = u128::from(entries) * u128::from(before) / u128::from(members);
    index.saturating_add(u64::try_from(ahead).unwrap_or_default()) / entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_take_turns() {
        let places = |members, before| -> Vec<u64> {
            let due = |index| due(index, 90, (before, members));
            (1..=270).filter(|index| due(*index) > due(index - 1)).collect()
        };
        assert_eq!(places(3, 0), [90, 180, 270]);
        assert_eq!(places(3, 1), [60, 150, 240]);
        assert_eq!(places(3, 2), [30, 120, 210]);
        assert_eq!(places(1, 0), [90, 180, 270]);
        assert_eq!(due(u64::MAX, 1, (2, 3)), u64::MAX);
    }
}
