//! Watches, each with what it delivered in order.

use crate::history::{
    Change, Closed, Event, History, ObjectEvent, Opened, Record, Scope, Watch, WatchStep,
};
use std::collections::BTreeMap;

/// One watch.
#[derive(Debug)]
pub struct Stream<'h> {
    /// Its number.
    pub id: u64,
    /// How it began; none if that was not recorded.
    pub opened: Option<&'h Opened>,
    /// What it did, in order, without the opening.
    pub steps: Vec<&'h Watch>,
}

impl<'h> Stream<'h> {
    /// The first revision that it must deliver.
    #[must_use]
    pub fn from(&self) -> Option<u64> {
        self.opened.map(|opened| opened.from)
    }

    /// Whether every change of a key is delivered by it.
    #[must_use]
    pub fn covers_key(&self, key: &str) -> bool {
        match self.opened.map(|opened| &opened.scope) {
            Some(Scope::Keys(range)) => range.contains(key),
            Some(Scope::Objects { .. } | Scope::Selected { .. }) | None => false,
        }
    }

    /// Whether every change of such an object is delivered by it.
    #[must_use]
    pub fn covers_object(&self, kind: &str, namespace: &str) -> bool {
        match self.opened.map(|opened| &opened.scope) {
            Some(Scope::Objects { kind: of, namespace: within }) => {
                of == kind && (within.is_empty() || within == namespace)
            }
            Some(Scope::Keys(_) | Scope::Selected { .. }) | None => false,
        }
    }

    /// Up to which revision everything has been delivered: the last event or progress.
    #[must_use]
    pub fn delivered(&self) -> Option<u64> {
        self.steps.iter().filter_map(|step| revision(&step.step)).max()
    }

    /// Events of keys, with when they came.
    pub fn events(&self) -> impl Iterator<Item = (u64, &'h Event)> {
        self.steps.iter().flat_map(|watch| {
            let events: &'h [Event] = match &watch.step {
                WatchStep::Events { events } => events,
                WatchStep::Opened(_)
                | WatchStep::Object(_)
                | WatchStep::Progress { .. }
                | WatchStep::Closed(_) => &[],
            };
            events.iter().map(|event| (watch.at_ns, event))
        })
    }

    /// Events of objects, with when they came.
    pub fn object_events(&self) -> impl Iterator<Item = (u64, &'h ObjectEvent)> {
        self.steps.iter().filter_map(|watch| match &watch.step {
            WatchStep::Object(event) => Some((watch.at_ns, event)),
            WatchStep::Opened(_)
            | WatchStep::Events { .. }
            | WatchStep::Progress { .. }
            | WatchStep::Closed(_) => None,
        })
    }

    /// What it was told of forgotten revisions, with when.
    #[must_use]
    pub fn compacted(&self) -> Option<(u64, u64)> {
        self.steps.iter().find_map(|watch| match &watch.step {
            WatchStep::Closed(Closed::Compacted { revision }) => Some((watch.at_ns, *revision)),
            WatchStep::Closed(Closed::Ended)
            | WatchStep::Opened(_)
            | WatchStep::Events { .. }
            | WatchStep::Object(_)
            | WatchStep::Progress { .. } => None,
        })
    }
}

/// Up to which revision a step says that everything was delivered.
pub(crate) fn revision(step: &WatchStep) -> Option<u64> {
    match step {
        WatchStep::Events { events } => events.iter().map(|event| event.mod_revision).max(),
        WatchStep::Object(ObjectEvent { change, object }) => match change {
            Change::Added | Change::Modified | Change::Deleted => Some(object.resource_version),
        },
        WatchStep::Progress { revision } => Some(*revision),
        WatchStep::Opened(_) | WatchStep::Closed(_) => None,
    }
}

pub(super) fn streams(history: &History) -> Vec<Stream<'_>> {
    let mut streams: BTreeMap<u64, Stream<'_>> = BTreeMap::new();
    for record in &history.records {
        let Record::Watch(watch) = record else { continue };
        let stream = streams.entry(watch.stream).or_insert_with(|| Stream {
            id: watch.stream,
            opened: None,
            steps: Vec::new(),
        });
        match &watch.step {
            WatchStep::Opened(opened) => stream.opened = Some(opened),
            WatchStep::Events { .. }
            | WatchStep::Object(_)
            | WatchStep::Progress { .. }
            | WatchStep::Closed(_) => stream.steps.push(watch),
        }
    }
    for stream in streams.values_mut() {
        stream.steps.sort_by_key(|step| step.sequence);
    }
    streams.into_values().collect()
}
