//! What processes log and where they panic, as part of the trace.

use crate::{Millis, client::Shared, patience::Progress, trace::Detail};
use std::{
    cell::{Cell, RefCell},
    fmt::{self, Write as _},
    panic,
    sync::{Arc, Once, OnceLock},
};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::DefaultGuard,
};

thread_local! {
    static PROGRESS: RefCell<Arc<Progress>> = RefCell::default();
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static SIMULATES: Cell<bool> = const { Cell::new(false) };
}

/// Tells of the run on this thread how far it is.
pub(crate) fn follow(progress: Arc<Progress>) {
    PROGRESS.set(progress);
}

/// Whose process this thread steps from now on.
pub(crate) fn step_of(name: &Arc<str>) {
    PROGRESS.with_borrow(|progress| progress.step_of(name));
}

/// The world's time on this thread; false if nobody waits for the end of the run any more.
pub(crate) fn goes_on(now: Millis) -> bool {
    PROGRESS.with_borrow(|progress| progress.goes_on(now))
}

fn who() -> Arc<str> {
    PROGRESS.with_borrow(|progress| progress.who())
}

/// Where code of this simulation has panicked since this was asked last.
pub(crate) fn take_panics() -> Vec<String> {
    PANICS.take()
}

/// Has panics of this thread noted instead of printed.
pub(crate) fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if SIMULATES.get() {
                let who = who();
                PANICS.with_borrow_mut(|panics| panics.push(format!("{who}: {info}")));
            } else {
                before(info);
            }
        }));
    });
    SIMULATES.set(true);
}

/// Has what is logged on this thread written into the trace, if anybody will read it.
pub(crate) fn trace_logs(shared: &Shared) -> Option<DefaultGuard> {
    // Whether anybody wants to know of a place in the code is remembered for the whole process, and as long as there
    // has been but one subscriber, it is the thread that comes there first that is asked: it may be another
    // simulation, of which nobody reads the trace. So there are always two.
    static ANOTHER: OnceLock<Dispatch> = OnceLock::new();
    ANOTHER.get_or_init(|| Dispatch::new(Logs { shared: None }));
    let read = shared.trace.keeps(Detail::Timeline);
    read.then(|| tracing::subscriber::set_default(Logs { shared: Some(shared.clone()) }))
}

struct Logs {
    /// `None`: nobody reads it.
    shared: Option<Shared>,
}

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most =
            if metadata.target().starts_with("openraft") { Level::WARN } else { Level::INFO };
        metadata.is_event() && *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(shared) = &self.shared else { return };
        let mut line = Line(String::new());
        event.record(&mut line);
        let who = who();
        let level = event.metadata().level();
        let what = format_args!("{level}{}", line.0);
        shared.trace.event(shared.now(), &who, what);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
