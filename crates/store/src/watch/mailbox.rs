//! What waits for one watcher: bounded, and woken without a lost or a double wake.

use super::{WatchBatch, WatchError};
use crate::types::Revision;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Events that may wait for one watcher. One revision is always taken whole if nothing else waits,
/// however many events it has: it would never fit otherwise.
const EVENTS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    arrival: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    batches: VecDeque<WatchBatch>,
    events: usize,
    end: Option<(WatchError, Revision)>,
}

/// What was found in a mailbox.
#[derive(Debug)]
pub(super) enum Mailed {
    Batch(WatchBatch),
    /// Nothing follows; the revision is the first not delivered.
    End(WatchError, Revision),
    Nothing,
}

/// The batch did not fit: nothing may follow, or it would be missing.
#[derive(Debug)]
pub(super) struct Full;

impl Mailbox {
    pub(super) fn put(&self, batch: WatchBatch) -> Result<(), Full> {
        let mut mail = self.lock();
        if !mail.batches.is_empty() && mail.events + batch.events.len() > EVENTS_MAX {
            return Err(Full);
        }
        mail.events += batch.events.len();
        mail.batches.push_back(batch);
        drop(mail);
        self.arrival.notify_one();
        Ok(())
    }

    /// Behind what is waiting already. The first end counts.
    pub(super) fn end(&self, reason: WatchError, resume: Revision) {
        self.lock().end.get_or_insert((reason, resume));
        self.arrival.notify_one();
    }

    pub(super) fn take(&self) -> Mailed {
        let mut mail = self.lock();
        if let Some(batch) = mail.batches.pop_front() {
            mail.events -= batch.events.len();
            return Mailed::Batch(batch);
        }
        match mail.end.clone() {
            Some((reason, resume)) => Mailed::End(reason, resume),
            None => Mailed::Nothing,
        }
    }

    /// Whether everything has been taken and more may come.
    pub(super) fn is_idle(&self) -> bool {
        let mail = self.lock();
        mail.batches.is_empty() && mail.end.is_none()
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
