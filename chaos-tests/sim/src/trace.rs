//! What happened, in order: one line an event, the same for the same seed to the last byte.

use crate::Millis;
use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
};

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Detail {
    /// Nothing.
    #[default]
    Nothing,
    /// What people read: faults, what processes log, what clients ask and are answered.
    Timeline,
    /// Also each message, sync and applied entry.
    Everything,
}

/// Lines; clones are the same trace.
#[derive(Clone, Default)]
pub struct Trace {
    detail: Detail,
    /// Also written to the standard error as they come, so that they are there after a panic.
    live: bool,
    text: Arc<Mutex<String>>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("detail", &self.detail).finish_non_exhaustive()
    }
}

impl Trace {
    /// Without a line.
    #[must_use]
    pub fn new(detail: Detail, live: bool) -> Self {
        Self { detail, live, text: Arc::default() }
    }

    /// Whether lines of this kind are kept.
    #[must_use]
    pub fn keeps(&self, detail: Detail) -> bool {
        self.detail >= detail
    }

    /// One for people.
    pub fn event(&self, now: Millis, who: &str, what: fmt::Arguments<'_>) {
        self.line(Detail::Timeline, now, who, what);
    }

    /// One of the many.
    pub fn small(&self, now: Millis, who: &str, what: fmt::Arguments<'_>) {
        self.line(Detail::Everything, now, who, what);
    }

    fn line(&self, detail: Detail, now: Millis, who: &str, what: fmt::Arguments<'_>) {
        if !self.keeps(detail) {
            return;
        }
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = text.len();
        let (seconds, millis) = (now / 1000, now % 1000);
        let _ = writeln!(text, "{seconds:>5}.{millis:03}  {who:<10}  {what}");
        if self.live {
            #[expect(clippy::print_stderr, reason = "asked for")]
            {
                eprint!("{}", text.get(begun..).unwrap_or_default());
            }
        }
    }

    /// All lines so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
