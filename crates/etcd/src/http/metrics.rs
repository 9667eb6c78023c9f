//! Metrics in Prometheus' text form, under the names that etcd gives to the same things; what has no
//! counterpart here is left out, and what has none there is called `trireme_`.

use super::process::Usage;
use crate::{
    ETCD_VERSION,
    core::Core,
    counters::{CODES, read},
};
use bytes::Bytes;
use std::{
    fmt::{Display, Write as _},
    time::Duration,
};
use store::{KeyRange, MemberRole, ProposalTimes};

/// All of them, as of now.
pub(super) fn render(core: &Core) -> String {
    let mut page = Page::default();
    member(&mut page, core);
    state(&mut page, core);
    disk(&mut page, core);
    calls(&mut page, core);
    times(&mut page, core);
    health(&mut page, core);
    if let Some(usage) = Usage::read() {
        process(&mut page, usage);
    }
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text += name;
        for (place, (label, of)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"{of}\"", if place == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.line(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.line(name, &[], value);
    }
}

fn member(page: &mut Page, core: &Core) {
    let local = core.cluster.local();
    let counters = &core.counters;
    counters.saw_leader(local.leader);
    let minor = ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(minor, _)| minor);
    let named = [
        (
            "etcd_cluster_version",
            "The version of etcd's API that all members serve.",
            "cluster_version",
            minor.to_owned(),
        ),
        (
            "etcd_server_version",
            "The version of etcd's API that this member serves.",
            "server_version",
            ETCD_VERSION.to_owned(),
        ),
        (
            "etcd_server_id",
            "This member's id, in hexadecimal.",
            "server_id",
            format!("{:x}", local.member_id),
        ),
    ];
    for (name, help, label, value) in named {
        page.head(name, "gauge", help);
        page.line(name, &[(label, &value)], 1);
    }
    let gauge = |is: bool| u8::from(is);
    page.gauge(
        "etcd_server_has_leader",
        "Whether this member knows of a leader.",
        gauge(local.leader.is_some()),
    );
    page.gauge(
        "etcd_server_is_leader",
        "Whether this member leads.",
        gauge(local.role == MemberRole::Leader),
    );
    page.gauge(
        "etcd_server_is_learner",
        "Whether this member has no vote.",
        gauge(local.role == MemberRole::Learner),
    );
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "New leaders that this member has seen when it answered.",
        read(&counters.leader_changes),
    );
    // What is committed is applied at once, and known here when it is.
    page.gauge(
        "etcd_server_proposals_committed_total",
        "Index of the last entry that is known to be committed.",
        local.applied_index,
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "Index of the last entry that is applied.",
        local.applied_index,
    );
    page.gauge(
        "etcd_server_proposals_pending",
        "Proposals of this member's clients under way.",
        read(&counters.proposals_pending),
    );
    page.counter(
        "etcd_server_proposals_failed_total",
        "Proposals of this member's clients that failed or whose outcome is unknown.",
        read(&counters.proposals_failed),
    );
}

fn state(page: &mut Page, core: &Core) {
    let view = core.store.view();
    let everything = KeyRange::From(Bytes::new());
    page.gauge(
        "etcd_server_quota_backend_bytes",
        "Bytes of keys and values at which nothing new may come.",
        view.quota_bytes(),
    );
    page.gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of keys and values.", view.live_bytes());
    page.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of keys and values.",
        view.live_bytes(),
    );
    page.gauge("etcd_debugging_mvcc_keys_total", "Keys.", view.count(&everything));
    page.gauge(
        "etcd_debugging_mvcc_current_revision",
        "Revision of the last change.",
        view.revision().get(),
    );
    page.gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The last compacted revision.",
        view.compacted().get(),
    );
    page.gauge("etcd_debugging_mvcc_watcher_total", "Watches.", read(&core.counters.watchers));
    let streams = core.counters.methods.get("/etcdserverpb.Watch/Watch").map_or(0, |method| {
        let ended: u64 = method.handled.iter().map(read).sum();
        read(&method.started).saturating_sub(ended)
    });
    page.gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watches.", streams);
}

fn disk(page: &mut Page, core: &Core) {
    let Some(syncs) = core.cluster.syncs() else { return };
    let name = "etcd_disk_wal_fsync_duration_seconds";
    page.head(name, "histogram", "Seconds that a sync of the log took.");
    let bucket = format!("{name}_bucket");
    let mut below = 0;
    for (count, bound_us) in syncs.counts.iter().zip(store::SyncTimes::BOUNDS_US) {
        below += count;
        let bound = Duration::from_micros(bound_us).as_secs_f64();
        page.line(&bucket, &[("le", &bound.to_string())], below);
    }
    let all: u64 = syncs.counts.iter().sum();
    page.line(&bucket, &[("le", "+Inf")], all);
    page.line(&format!("{name}_sum"), &[], Duration::from_micros(syncs.sum_us).as_secs_f64());
    page.line(&format!("{name}_count"), &[], all);
    page.gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", syncs.bytes);
}

fn calls(page: &mut Page, core: &Core) {
    let counters = &core.counters;
    page.counter(
        "etcd_network_client_grpc_received_bytes_total",
        "Bytes of gRPC clients' messages.",
        read(&counters.received_bytes),
    );
    page.counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "Bytes of messages to gRPC clients.",
        read(&counters.sent_bytes),
    );
    let name = "grpc_server_started_total";
    page.head(name, "counter", "Calls that have begun.");
    for method in counters.methods.values() {
        let labels = [
            ("grpc_method", &*method.name),
            ("grpc_service", &method.service),
            ("grpc_type", method.kind),
        ];
        page.line(name, &labels, read(&method.started));
    }
    let name = "grpc_server_handled_total";
    page.head(name, "counter", "Calls that have ended, by code.");
    for method in counters.methods.values() {
        for (code, handled) in CODES.into_iter().zip(&method.handled) {
            let handled = read(handled);
            // Most pairs never happen.
            if handled > 0 || code == "OK" {
                let labels = [
                    ("grpc_code", code),
                    ("grpc_method", &method.name),
                    ("grpc_service", &method.service),
                    ("grpc_type", method.kind),
                ];
                page.line(name, &labels, handled);
            }
        }
    }
}

/// Where the time goes, each as seconds and count, without quantiles.
fn times(page: &mut Page, core: &Core) {
    let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
    let name = "trireme_grpc_handling_seconds";
    page.head(name, "summary", "Seconds from the head of a call to the end of its answer.");
    let (sum, count) = (format!("{name}_sum"), format!("{name}_count"));
    for method in core.counters.methods.values().filter(|method| method.kind == "unary") {
        let labels = [("grpc_method", &*method.name), ("grpc_service", &method.service)];
        let ended: u64 = method.handled.iter().map(read).sum();
        page.line(&sum, &labels, seconds(read(&method.handling_ns)));
        page.line(&count, &labels, ended);
    }
    let Some(times) = core.cluster.proposal_times() else { return };
    let name = "trireme_proposal_stage_seconds";
    page.head(name, "summary", "Seconds of a log entry in each stage while this member led.");
    let (sum, count) = (format!("{name}_sum"), format!("{name}_count"));
    for (stage, ns) in ProposalTimes::STAGES.into_iter().zip(times.sums_ns) {
        page.line(&sum, &[("stage", stage)], seconds(ns));
        page.line(&count, &[("stage", stage)], times.entries);
    }
}

fn health(page: &mut Page, core: &Core) {
    let counters = &core.counters;
    page.counter(
        "etcd_server_health_success",
        "Answers of /health that this member is well.",
        read(&counters.health_successes),
    );
    page.counter(
        "etcd_server_health_failures",
        "Answers of /health that it is not.",
        read(&counters.health_failures),
    );
    let checks = counters.checks();
    if checks.is_empty() {
        return;
    }
    let name = "etcd_server_healthcheck";
    page.head(name, "gauge", "Whether the last check went well.");
    for ((door, check), count) in &checks {
        page.line(name, &[("name", check), ("type", door)], u8::from(count.last_succeeded));
    }
    let name = "etcd_server_healthchecks_total";
    page.head(name, "counter", "Checks, by how they went.");
    for ((door, check), count) in &checks {
        for (status, n) in [("success", count.successes), ("error", count.failures)] {
            page.line(name, &[("name", check), ("status", status), ("type", door)], n);
        }
    }
}

fn process(page: &mut Page, usage: Usage) {
    page.counter(
        "process_cpu_seconds_total",
        "Seconds of CPU, user and system.",
        usage.cpu_seconds,
    );
    page.gauge("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes);
    page.gauge("process_virtual_memory_bytes", "Address space.", usage.virtual_bytes);
    page.gauge(
        "process_start_time_seconds",
        "When it started, in seconds since 1970.",
        usage.started_at,
    );
    page.gauge("process_open_fds", "Open file descriptors.", usage.open_fds);
    page.gauge("process_max_fds", "File descriptors that may be open.", usage.max_fds);
    page.gauge("os_fd_used", "Open file descriptors.", usage.open_fds);
    page.gauge("os_fd_limit", "File descriptors that may be open.", usage.max_fds);
}
