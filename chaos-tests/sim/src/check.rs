//! What clients must have seen, held against every version that is still kept in the end. Package `checkers` sees
//! less of the state and more of the clients.

use crate::history::{Call, Ended, History, Kv, Operation, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use store::state::View;

/// A property, and what was seen instead.
pub type Broken = (&'static str, String);

/// What clients saw against the state of a healed cluster, in which nothing is under way.
///
/// # Errors
/// The first property that does not hold.
pub fn after(history: &History, view: &View) -> Result<(), Broken> {
    acknowledged_writes_survive(history, view)?;
    watches_tell_everything_once_in_order(history, view)
}

fn ok(operation: &Operation) -> Option<&crate::history::Answer> {
    match &operation.outcome {
        Outcome::Ok(answer) => Some(answer),
        Outcome::Failed(_) | Outcome::Unknown(_) => None,
    }
}

/// A key and what was acknowledged to have been written there.
fn written(operation: &Operation) -> Option<(&str, Option<&str>, i64)> {
    let answer = ok(operation)?;
    match &operation.call {
        Call::Put { key, value, .. } => Some((key, Some(value), answer.revision)),
        Call::Swap { key, value, .. } if answer.done => Some((key, Some(value), answer.revision)),
        Call::Delete { key } if answer.done => Some((key, None, answer.revision)),
        Call::Swap { .. }
        | Call::Delete { .. }
        | Call::Get { .. }
        | Call::Range { .. }
        | Call::Grant { .. }
        | Call::KeepAlive { .. }
        | Call::Revoke { .. }
        | Call::Compact { .. } => None,
    }
}

fn acknowledged_writes_survive(history: &History, view: &View) -> Result<(), Broken> {
    const PROPERTY: &str = "every acknowledged write survives";
    let compacted = i64::try_from(view.compacted().get()).unwrap_or(i64::MAX);
    let (mut by_revision, mut kept) = (BTreeMap::new(), BTreeMap::new());
    for operation in &history.operations {
        let Some((key, value, revision)) = written(operation) else { continue };
        if let Some(other) = by_revision.insert(revision, operation) {
            let detail =
                format!("two writes were given revision {revision}: {other:?}, {operation:?}");
            return Err((PROPERTY, detail));
        }
        let versions = kept.entry(key).or_insert_with(|| view.versions(key.as_bytes()));
        // In the order of their revisions.
        let at = versions
            .binary_search_by_key(&u64::try_from(revision).unwrap_or_default(), |(at, _)| at.get())
            .ok()
            .and_then(|at| versions.get(at));
        match at {
            Some((_, kept)) => {
                let kept = kept.as_ref().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
                if kept.as_deref() != value {
                    let detail = format!("{operation:?}, but {kept:?} is there");
                    return Err((PROPERTY, detail));
                }
            }
            // Forgotten, unless nothing newer is there in its place.
            None if revision <= compacted => {
                let newer = versions
                    .iter()
                    .any(|(at, _)| i64::try_from(at.get()).is_ok_and(|at| at > revision));
                let gone = versions.is_empty() && value.is_none();
                if !newer && !gone && !deleted_later(history, key, revision) {
                    return Err((PROPERTY, format!("{operation:?}, and the key has {versions:?}")));
                }
            }
            None => {
                return Err((PROPERTY, format!("{operation:?}, and the key has {versions:?}")));
            }
        }
    }
    Ok(())
}

/// Whether a deletion of the key may have come after a revision: of known or unknown outcome, or by a lease.
fn deleted_later(history: &History, key: &str, revision: i64) -> bool {
    history.operations.iter().any(|operation| match (&operation.call, &operation.outcome) {
        (Call::Delete { key: gone }, Outcome::Ok(answer)) => {
            gone == key && answer.revision > revision
        }
        (Call::Delete { key: gone }, Outcome::Unknown(_)) => gone == key,
        (Call::Put { key: leased, lease, .. }, _) => leased == key && *lease != 0,
        _ => false,
    })
}

/// The key that may have been written, if watches are told of it.
fn written_key(operation: &Operation) -> Option<&str> {
    match &operation.call {
        Call::Put { key, .. } | Call::Delete { key } | Call::Swap { key, .. } => {
            key.starts_with("key-").then_some(key.as_str())
        }
        Call::Get { .. }
        | Call::Range { .. }
        | Call::Grant { .. }
        | Call::KeepAlive { .. }
        | Call::Revoke { .. }
        | Call::Compact { .. } => None,
    }
}

fn watches_tell_everything_once_in_order(history: &History, view: &View) -> Result<(), Broken> {
    const PROPERTY: &str = "watches tell everything, once and in order";
    // All changes that are kept.
    let compacted = i64::try_from(view.compacted().get()).unwrap_or(i64::MAX);
    let keys: BTreeSet<&str> = history.operations.iter().filter_map(written_key).collect();
    let mut kept: BTreeMap<i64, (String, Option<Kv>)> = BTreeMap::new();
    for key in keys {
        for (revision, pair) in view.versions(key.as_bytes()) {
            let revision = i64::try_from(revision.get()).unwrap_or(i64::MAX);
            let pair = pair.map(|kv| Kv {
                key: key.to_owned(),
                value: String::from_utf8_lossy(&kv.value).into_owned(),
                create_revision: i64::try_from(kv.create_revision.get()).unwrap_or(i64::MAX),
                mod_revision: revision,
                version: i64::try_from(kv.version).unwrap_or(i64::MAX),
                lease: kv.lease.0,
            });
            if revision > compacted {
                kept.insert(revision, (key.to_owned(), pair));
            }
        }
    }
    for (place, watched) in history.watches.iter().enumerate() {
        let told: Vec<_> = watched.answers.iter().flat_map(|(_, changes)| changes).collect();
        let broken = |what: String| {
            let replica = watched.replica + 1;
            Err((
                PROPERTY,
                format!("stream {place} at replica {replica} from {}: {what}", watched.from),
            ))
        };
        if let Some(first) = told.first()
            && first.kv.mod_revision < watched.from
        {
            return broken(format!("told of {first:?}"));
        }
        for pair in told.windows(2) {
            if let [one, next] = pair
                && next.kv.mod_revision < one.kv.mod_revision
            {
                return broken(format!("{next:?} came after {one:?}"));
            }
        }
        let Some(last) = told.last().map(|change| change.kv.mod_revision) else { continue };
        let mut at = watched.from.max(compacted + 1);
        for change in &told {
            let revision = change.kv.mod_revision;
            if revision <= compacted {
                continue;
            }
            // Several keys that one lease took share a revision.
            if let Some((missed, what)) = kept.range(at.min(revision)..revision).next() {
                return broken(format!("{missed} was left out before {revision}: {what:?}"));
            }
            match kept.get(&revision) {
                Some((key, _)) if *key != change.kv.key && change.deleted => {}
                Some((key, None)) if *key == change.kv.key && change.deleted => {}
                Some((_, Some(pair))) if *pair == change.kv && !change.deleted => {}
                other => return broken(format!("told {change:?}, but there is {other:?}")),
            }
            at = revision + 1;
        }
        if matches!(watched.ended, Some((_, Ended::Compacted(upto))) if upto > compacted) {
            return broken(format!("told that more than {compacted} is forgotten after {last}"));
        }
    }
    Ok(())
}
