//! What waits for one reader of one or many watches: bounded, and woken without a lost or a double wake.

use super::{WatchBatch, WatchError};
use crate::types::Revision;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Events that may wait for one reader. One revision is always taken whole if nothing else waits,
/// however many events it has: it would never fit otherwise.
const EVENTS_MAX: usize = 4096;
/// And so many more for each of its watches.
const EVENTS_MORE: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    arrival: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    /// Each for the watch of an id, which is the reader's.
    queue: VecDeque<(i64, Mailed)>,
    events: usize,
    watches: usize,
}

/// What was found in a mailbox.
#[derive(Debug)]
pub(super) enum Mailed {
    Batch(WatchBatch),
    /// Nothing follows for this watch; the revision is the first not delivered.
    End(WatchError, Revision),
}

/// The batch did not fit: nothing may follow, or it would be missing.
#[derive(Debug)]
pub(super) struct Full;

impl Mailbox {
    pub(super) fn put(&self, watch: i64, batch: WatchBatch) -> Result<(), Full> {
        let mut mail = self.lock();
        let events_max = EVENTS_MAX + EVENTS_MORE * mail.watches;
        if !mail.queue.is_empty() && mail.events + batch.events.len() > events_max {
            return Err(Full);
        }
        mail.events += batch.events.len();
        mail.queue.push_back((watch, Mailed::Batch(batch)));
        let first = mail.queue.len() == 1;
        drop(mail);
        if first {
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Behind what is waiting already.
    pub(super) fn end(&self, watch: i64, reason: WatchError, resume: Revision) {
        self.lock().queue.push_back((watch, Mailed::End(reason, resume)));
        self.arrival.notify_one();
    }

    pub(super) fn take(&self) -> Option<(i64, Mailed)> {
        let mut mail = self.lock();
        let (watch, mailed) = mail.queue.pop_front()?;
        if let Mailed::Batch(batch) = &mailed {
            mail.events -= batch.events.len();
        }
        Some((watch, mailed))
    }

    /// Drops what waits for a watch that has ended.
    pub(super) fn forget(&self, watch: i64) {
        let mut mail = self.lock();
        mail.queue.retain(|(id, _)| *id != watch);
        let waiting = mail.queue.iter().map(|(_, mailed)| match mailed {
            Mailed::Batch(batch) => batch.events.len(),
            Mailed::End(..) => 0,
        });
        mail.events = waiting.sum();
    }

    /// How many watches share it, beside the first.
    pub(super) fn set_watches(&self, watches: usize) {
        self.lock().watches = watches;
    }

    /// Whether everything has been taken and more may come.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// Returns when something may have come since the last call. Safe to drop while waiting.
    pub(super) async fn arrival(&self) {
        // A wake without a waiter is kept for the next one: none is lost between take and wait.
        self.arrival.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
