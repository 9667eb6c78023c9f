//! Watches: from any kept revision, in order, each event once, bounded.

use crate::types::{Event, KeyRange, Revision};
use std::sync::Arc;

/// What to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    /// The keys.
    pub range: KeyRange,
    /// First revision to see; [`Revision::ZERO`] is "from the next change on". May be in the future.
    pub start: Revision,
}

/// All matching events of one revision, in order within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// The revision they share.
    pub revision: Revision,
    /// At least one; shared by all watchers of the same change.
    pub events: Arc<[Event]>,
}

/// What a watcher receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchMessage {
    /// Something changed.
    Events(WatchBatch),
    /// The watch has ended; nothing follows. Resume from `resume` with a new one.
    Canceled {
        /// Why.
        reason: WatchError,
        /// First revision not delivered.
        resume: Revision,
    },
}

/// Why a watch could not start or has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The start is no longer kept, or a snapshot replaced the state.
    #[error("revision {requested} is compacted, oldest kept is {oldest}")]
    Compacted {
        /// By the watcher.
        requested: Revision,
        /// First revision that can be watched.
        oldest: Revision,
    },
    /// The watcher did not read as fast as the store changed.
    #[error("too slow: fell behind revision {last}")]
    TooSlow {
        /// Last revision delivered.
        last: Revision,
    },
    /// The store is gone.
    #[error("store stopped")]
    Stopped,
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watcher {
    // The store's helper fills this in.
}

impl Watcher {
    /// The next message; `None` after [`WatchMessage::Canceled`]. Safe to drop while waiting.
    pub async fn next(&mut self) -> Option<WatchMessage> {
        None
    }

    /// Every event of this watch at or below this revision has been returned by [`Watcher::next`].
    #[must_use]
    pub fn progress(&self) -> Revision {
        Revision::ZERO
    }
}
