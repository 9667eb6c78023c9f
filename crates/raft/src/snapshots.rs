//! When a replica writes a snapshot: every so many entries, and never when the others do.

use crate::{core::Core, types::StoredMembership};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Triggers a snapshot each time that `entries` more are applied, until `stop`.
///
/// A snapshot takes disk and processor away from the log. Members write theirs at different places of
/// the log, so that a majority is at its best at any time.
pub(crate) async fn take_snapshots(core: Arc<Core>, entries: u64, stop: CancellationToken) {
    let mut applied = core.applied.clone();
    // What is applied from a snapshot at the start needs none.
    let mut round = None;
    loop {
        let index = *applied.borrow_and_update();
        let now = due(index, entries, place(&core));
        if round.is_some_and(|before| before < now) && core.raft.trigger().snapshot().await.is_err()
        {
            return;
        }
        round = Some(now);
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Which of the members this one is in the order of ids, and how many there are.
fn place(core: &Core) -> (u64, u64) {
    let group: StoredMembership = core.group.borrow().clone();
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
