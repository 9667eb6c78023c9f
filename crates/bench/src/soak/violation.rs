//! What did not hold.

use super::keys::{Change, Key, Revision, State, Write};

/// Precise enough to look for it in the logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("a key that nobody wrote: {name:?}")]
    ForeignKey { name: String },
    #[error("{key} of revision {mod_revision}: a value that nobody wrote there: {start:?}…")]
    ForeignValue { key: Key, mod_revision: Revision, start: String },
    #[error("{key} read at revision {at}: expected {expected}; got {found}")]
    Unexpected { key: Key, at: Revision, found: State, expected: String },
    #[error("{key} deleted at revision {at}: expected {expected}; got 1 deleted")]
    DeletedNothing { key: Key, at: Revision, expected: String },
    #[error(
        "{key}, transaction at revision {at}: it found {found}, and yet comparing with revision {compared} failed"
    )]
    Contradiction { key: Key, at: Revision, compared: Revision, found: State },
    #[error("{what} answered at revision {header}; {seen} had been seen before it was sent")]
    WentBack { what: &'static str, header: Revision, seen: Revision },
    #[error(
        "{what} of {key} acknowledged at revision {revision}; {before} had been acknowledged before it was sent"
    )]
    NotLater { what: &'static str, key: Key, revision: Revision, before: Revision },
    #[error("{key} answered at revision {header}: it has a later one, {mod_revision}")]
    Future { key: Key, header: Revision, mod_revision: Revision },
    #[error("{what}: the keys do not ascend, or lie outside what was asked for, at {key}")]
    Disorder { what: &'static str, key: Key },
    #[error("{key}: lease {lease:x} of {ttl_seconds} s is gone after {age_seconds} s")]
    LeaseGone { key: Key, lease: i64, ttl_seconds: i64, age_seconds: u64 },
    #[error(
        "revision {revision} acknowledged twice: {change} of {key}, and {other_change} of {other}"
    )]
    Shared { revision: Revision, key: Key, change: Change, other: Key, other_change: Change },
    #[error("{change} of {key} acknowledged at revision {revision}: watches have no such event")]
    Missing { key: Key, change: Change, revision: Revision },
    #[error("{write} of {key} acknowledged at revision {acknowledged}, watched at {delivered}")]
    Misplaced { key: Key, write: Write, acknowledged: Revision, delivered: Revision },
    #[error("{change} of {key} was refused, and yet watched at revision {delivered}")]
    Misled { key: Key, change: Change, delivered: Revision },
    #[error("{write} of {key} watched at revision {delivered}: never sent, or watched before")]
    Unsent { key: Key, write: Write, delivered: Revision },
    #[error("{key}: a deletion watched at revision {delivered} that nobody asked for")]
    UnaskedDelete { key: Key, delivered: Revision },
    #[error("{key} watched at revision {delivered}: expected {expected}; got {got}")]
    Gap { key: Key, delivered: Revision, expected: String, got: String },
    #[error("{key}: its lease was revoked by revision {revision}; watches still have {found}")]
    Outlived { key: Key, revision: Revision, found: State },
    #[error("watch {watch} went back: revision {revision} after {last}")]
    WatchWentBack { watch: usize, revision: Revision, last: Revision },
    #[error(
        "watch {watch} delivered revision {revision} ({key}); other watches have revision {expected} there"
    )]
    Parted { watch: usize, revision: Revision, key: Key, expected: Revision },
    #[error("watch {watch} is told that revision {from} is compacted; compacted is {compacted}")]
    NotCompacted { watch: usize, from: Revision, compacted: Revision },
    #[error("watch {watch} has delivered up to revision {last}; the last is {until}")]
    Behind { watch: usize, last: Revision, until: Revision },
    #[error("members do not reach the same revision: {revisions}")]
    Apart { revisions: String },
    #[error("members differ at revision {at}: {hashes}")]
    Hashes { at: Revision, hashes: String },
    #[error("{key} at revision {at}: watches have {watched}; got {found}")]
    NotAsWatched { key: Key, at: Revision, watched: String, found: String },
}
