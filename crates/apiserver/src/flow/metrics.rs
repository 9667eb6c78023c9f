//! What is counted of requests, under the names that kube-apiserver gives to the same things.

use super::queue::Seats;
use axum::http::Method;
use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// What a request does; all that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    Connect,
}

const VERBS: [(Verb, &str); 9] = [
    (Verb::Get, "GET"),
    (Verb::List, "LIST"),
    (Verb::Watch, "WATCH"),
    (Verb::Create, "POST"),
    (Verb::Update, "PUT"),
    (Verb::Patch, "PATCH"),
    (Verb::Delete, "DELETE"),
    (Verb::DeleteCollection, "DELETECOLLECTION"),
    (Verb::Connect, "CONNECT"),
];

impl Verb {
    /// Of a request for the object `name`, or for a collection without one.
    pub(crate) fn of(method: &Method, name: &str, watches: bool, connects: bool) -> Self {
        match (method.as_str(), name.is_empty()) {
            _ if connects => Self::Connect,
            ("GET" | "HEAD", true) if watches => Self::Watch,
            ("GET" | "HEAD", true) => Self::List,
            ("GET" | "HEAD", false) => Self::Get,
            ("PUT", _) => Self::Update,
            ("PATCH", _) => Self::Patch,
            ("DELETE", true) => Self::DeleteCollection,
            ("DELETE", false) => Self::Delete,
            _ => Self::Create,
        }
    }
}

/// Upper ends of buckets, in milliseconds.
const BUCKETS: [u64; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000];

#[derive(Debug, Default)]
struct Durations {
    /// Each counts what is not in those before it.
    buckets: [AtomicU64; BUCKETS.len()],
    all: AtomicU64,
    micros: AtomicU64,
}

/// All that is counted beside the classes.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    durations: [Durations; VERBS.len()],
    codes: Mutex<BTreeMap<(Verb, u16), u64>>,
}

impl Metrics {
    /// Watches and connections have no duration that says anything; what counts is until they begin.
    pub(super) fn answered(&self, verb: Verb, code: u16, took: Duration) {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        *codes.entry((verb, code)).or_default() += 1;
        drop(codes);
        let index = VERBS.iter().position(|(is, _)| *is == verb);
        let Some(durations) = index.and_then(|index| self.durations.get(index)) else { return };
        let millis = took.as_micros().div_ceil(1000);
        let bucket = BUCKETS.iter().position(|end| millis <= u128::from(*end));
        if let Some(bucket) = bucket.and_then(|bucket| durations.buckets.get(bucket)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        durations.all.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        durations.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn render(
        &self,
        classes: &[(&str, &Arc<Seats>)],
        (body_bytes, body_bytes_max): (u64, u64),
        bodies_refused: u64,
    ) -> String {
        let mut page = String::new();
        let mut by_class =
            |name: &str, kind: &str, help: &str, of: &dyn Fn(&Seats) -> Box<dyn Display>| {
                head(&mut page, name, kind, help);
                for (class, seats) in classes {
                    let value = of(seats);
                    let _ = writeln!(page, "{name}{{priority_level=\"{class}\"}} {value}");
                }
            };
        by_class(
            "apiserver_flowcontrol_nominal_limit_seats",
            "gauge",
            "Seats of each class of requests.",
            &|seats| Box::new(seats.size().seats),
        );
        by_class(
            "apiserver_flowcontrol_current_executing_seats",
            "gauge",
            "Seats that are taken.",
            &|seats| Box::new(seats.now().0),
        );
        by_class(
            "apiserver_flowcontrol_current_inqueue_requests",
            "gauge",
            "Requests that wait for a seat.",
            &|seats| Box::new(seats.now().1),
        );
        let count = |counter: &AtomicU64| Box::new(counter.load(Ordering::Relaxed));
        by_class(
            "apiserver_flowcontrol_dispatched_requests_total",
            "counter",
            "Requests that got a seat.",
            &|seats| count(&seats.served),
        );
        by_class(
            "apiserver_flowcontrol_rejected_requests_total",
            "counter",
            "Requests that were refused since no seat became free in time.",
            &|seats| count(&seats.refused),
        );
        for (name, kind, help, value) in [
            ("trireme_request_body_bytes", "gauge", "Bytes of bodies in memory.", body_bytes),
            (
                "trireme_request_body_bytes_max",
                "gauge",
                "Bytes that all bodies may take together.",
                body_bytes_max,
            ),
            (
                "trireme_request_bodies_refused_total",
                "counter",
                "Requests that were refused since all bodies took too much.",
                bodies_refused,
            ),
        ] {
            head(&mut page, name, kind, help);
            let _ = writeln!(page, "{name} {value}");
        }
        self.requests(&mut page);
        page
    }

    fn requests(&self, page: &mut String) {
        let word = |verb| VERBS.iter().find(|(is, _)| *is == verb).map_or("", |(_, word)| *word);
        let name = "apiserver_request_total";
        head(page, name, "counter", "Answers, by verb and code.");
        for ((verb, code), count) in &*self.codes.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(page, "{name}{{verb=\"{}\",code=\"{code}\"}} {count}", word(*verb));
        }
        let name = "apiserver_request_duration_seconds";
        head(page, name, "histogram", "Until the answer began, waiting included.");
        for ((_, word), durations) in VERBS.iter().zip(&self.durations) {
            let mut sum = 0;
            for (end, bucket) in BUCKETS.iter().zip(&durations.buckets) {
                sum += bucket.load(Ordering::Relaxed);
                let (whole, rest) = (end / 1000, end % 1000);
                let _ = writeln!(
                    page,
                    "{name}_bucket{{verb=\"{word}\",le=\"{whole}.{rest:03}\"}} {sum}"
                );
            }
            let all = durations.all.load(Ordering::Relaxed);
            let micros = durations.micros.load(Ordering::Relaxed);
            let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
            let _ = writeln!(page, "{name}_bucket{{verb=\"{word}\",le=\"+Inf\"}} {all}");
            let _ = writeln!(page, "{name}_sum{{verb=\"{word}\"}} {whole}.{rest:06}");
            let _ = writeln!(page, "{name}_count{{verb=\"{word}\"}} {all}");
        }
    }
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}
