//! Every flag that etcd 3.6 takes, its default there, and what it means here.

/// One flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// etcd's.
    pub(super) default: &'static str,
    pub(super) here: Here,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As Go's booleans: `--flag` alone is true, and a value needs `=`.
    Bool,
    /// Anything; the reader of the setting checks it.
    Text,
    /// As Go's durations. A number in a configuration file is nanoseconds.
    Duration,
}

/// What a flag means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    /// The same; what it does.
    Same(&'static str),
    /// Nothing that could be missed: no word about it. Why.
    Moot(&'static str),
    /// Not what etcd does: a warning, if it is not the default. What instead.
    Other(&'static str),
    /// Refused, if it is not the default: to go on without it would be dangerous. Why.
    Refused(&'static str),
    /// Another name of this flag.
    Alias(&'static str),
}

use Here::{Alias, Moot, Other, Refused, Same};
use Kind::{Bool, Duration, Text};

const fn flag(name: &'static str, kind: Kind, default: &'static str, here: Here) -> Flag {
    Flag { name, kind, default, here }
}

const NO_DISCOVERY: Here = Refused("members are named by --initial-cluster; there is no discovery");
const NO_TRACES: Here = Other("no traces are exported");
const NO_BACKEND: Here = Other("the state is in memory and has no bbolt file");
const NO_CHECK: Here = Other(
    "members compare the hash of their state by themselves; ask with `etcdctl endpoint hashkv`",
);
const NO_ALARMING: Here = Other("slow requests are not logged by a threshold");

/// Sections as `--help` shows them.
pub(super) const SECTIONS: &[(&str, &[Flag])] = &[
    (
        "Member",
        &[
            flag("name", Text, "default", Same("Name of this member, as in --initial-cluster.")),
            flag(
                "data-dir",
                Text,
                "",
                Same("Where everything is kept; ${name}.etcd unless given."),
            ),
            flag("wal-dir", Text, "", Other("the log is in the directory log of --data-dir")),
            flag(
                "snapshot-count",
                Text,
                "10000",
                Same("Log entries after which a snapshot is written; 50000 unless given."),
            ),
            flag(
                "heartbeat-interval",
                Text,
                "100",
                Same(
                    "Milliseconds between heartbeats; 30 while this and --election-timeout are etcd's defaults.",
                ),
            ),
            flag(
                "election-timeout",
                Text,
                "1000",
                Same(
                    "Milliseconds of silence after which a leader is replaced; 250 to 300 while this and --heartbeat-interval are etcd's defaults.",
                ),
            ),
            flag(
                "initial-election-tick-advance",
                Bool,
                "true",
                Moot("an election begins as soon as a majority is there"),
            ),
            flag(
                "listen-peer-urls",
                Text,
                "http://localhost:2380",
                Same("Where the other members reach this one: one URL."),
            ),
            flag(
                "listen-client-urls",
                Text,
                "http://localhost:2379",
                Same("Where clients are served, separated by commas."),
            ),
            flag(
                "listen-client-http-urls",
                Text,
                "",
                Same("More of them: HTTP and gRPC share every client URL."),
            ),
            flag("max-snapshots", Text, "5", Moot("two snapshots are kept")),
            flag("max-wals", Text, "5", Moot("the log goes when a snapshot holds it")),
            flag(
                "quota-backend-bytes",
                Text,
                "0",
                Same(
                    "Bytes of keys and values after which writes are refused; 0 is 2 GiB. The leader's counts.",
                ),
            ),
            flag("backend-batch-interval", Duration, "0s", NO_BACKEND),
            flag("backend-batch-limit", Text, "0", NO_BACKEND),
            flag("backend-bbolt-freelist-type", Text, "map", NO_BACKEND),
            flag("bootstrap-defrag-threshold-megabytes", Text, "0", NO_BACKEND),
            flag("max-txn-ops", Text, "128", Same("Operations in a transaction.")),
            flag("max-request-bytes", Text, "1572864", Same("Bytes of one request.")),
            flag(
                "max-concurrent-streams",
                Text,
                "4294967295",
                Other("1024 streams share a connection"),
            ),
            flag("grpc-keepalive-min-time", Duration, "5s", Other("pings are always answered")),
            flag("grpc-keepalive-interval", Duration, "2h", Other("clients are not pinged")),
            flag("grpc-keepalive-timeout", Duration, "20s", Other("clients are not pinged")),
            flag("socket-reuse-port", Bool, "false", Other("a port belongs to one process")),
            flag("socket-reuse-address", Bool, "false", Moot("addresses are always reused")),
            flag(
                "raft-read-timeout",
                Duration,
                "5s",
                Other("peers are given up after two seconds of silence"),
            ),
            flag(
                "raft-write-timeout",
                Duration,
                "5s",
                Other("peers are given up after two seconds of silence"),
            ),
            flag(
                "snapshot-catchup-entries",
                Text,
                "5000",
                Other("a tenth of --snapshot-count stays in the log for members that are behind"),
            ),
        ],
    ),
    (
        "Cluster",
        &[
            flag(
                "initial-advertise-peer-urls",
                Text,
                "http://localhost:2380",
                Same("This member's peer URLs, as in --initial-cluster."),
            ),
            flag(
                "initial-cluster",
                Text,
                "",
                Same("Every member of the first start: name=url, separated by commas."),
            ),
            flag(
                "initial-cluster-state",
                Text,
                "new",
                Same("new, or existing for a member that was added with `etcdctl member add`."),
            ),
            flag(
                "initial-cluster-token",
                Text,
                "etcd-cluster",
                Same("Keeps clusters apart that have the same peer URLs."),
            ),
            flag(
                "advertise-client-urls",
                Text,
                "http://localhost:2379",
                Same("Client URLs that the member list shows."),
            ),
            flag(
                "strict-reconfig-check",
                Bool,
                "true",
                Other("a change that would cost the quorum is always refused"),
            ),
            flag("pre-vote", Bool, "true", Other("there is always a pre-vote")),
            flag(
                "auto-compaction-mode",
                Text,
                "periodic",
                Same("How --auto-compaction-retention counts: periodic, by time, or revision."),
            ),
            flag(
                "auto-compaction-retention",
                Text,
                "0",
                Same(
                    "What is kept: a time (hours without a unit) or a number of revisions; 0 is everything.",
                ),
            ),
            flag("max-learners", Text, "1", Other("there is one learner at a time")),
            flag("discovery", Text, "", NO_DISCOVERY),
            flag("discovery-fallback", Text, "exit", NO_DISCOVERY),
            flag("discovery-proxy", Text, "", NO_DISCOVERY),
            flag("discovery-srv", Text, "", NO_DISCOVERY),
            flag("discovery-srv-name", Text, "", NO_DISCOVERY),
            flag("discovery-endpoints", Text, "", NO_DISCOVERY),
            flag("discovery-token", Text, "", NO_DISCOVERY),
            flag("discovery-dial-timeout", Duration, "2s", NO_DISCOVERY),
            flag("discovery-request-timeout", Duration, "5s", NO_DISCOVERY),
            flag("discovery-keepalive-time", Duration, "2s", NO_DISCOVERY),
            flag("discovery-keepalive-timeout", Duration, "6s", NO_DISCOVERY),
            flag("discovery-insecure-transport", Bool, "true", NO_DISCOVERY),
            flag("discovery-insecure-skip-tls-verify", Bool, "false", NO_DISCOVERY),
            flag("discovery-cert", Text, "", NO_DISCOVERY),
            flag("discovery-key", Text, "", NO_DISCOVERY),
            flag("discovery-cacert", Text, "", NO_DISCOVERY),
            flag("discovery-user", Text, "", NO_DISCOVERY),
            flag("discovery-password", Text, "", NO_DISCOVERY),
            flag("enable-v2", Bool, "false", Refused("only the v3 API is served")),
            flag("v2-deprecation", Text, "write-only", Moot("only the v3 API is served")),
        ],
    ),
    (
        "Security",
        &[
            flag(
                "cert-file",
                Text,
                "",
                Same("Certificate chain for clients, PEM; read again when it changes."),
            ),
            flag("key-file", Text, "", Same("Its private key, PEM.")),
            flag(
                "client-cert-file",
                Text,
                "",
                Moot("there is no gateway process that would need it"),
            ),
            flag(
                "client-key-file",
                Text,
                "",
                Moot("there is no gateway process that would need it"),
            ),
            flag("client-cert-auth", Bool, "false", Same("Clients must show a certificate.")),
            flag(
                "client-crl-file",
                Text,
                "",
                Same("Revoked client certificates, PEM or DER; holds for every listener."),
            ),
            flag(
                "client-cert-allowed-hostname",
                Text,
                "",
                Refused("names in client certificates are not compared"),
            ),
            flag(
                "trusted-ca-file",
                Text,
                "",
                Same(
                    "Authorities that sign clients' certificates, PEM; turns on --client-cert-auth.",
                ),
            ),
            flag("auto-tls", Bool, "false", Same("A certificate of its own making for clients.")),
            flag("self-signed-cert-validity", Text, "1", Same("Years that it is good for.")),
            flag("peer-cert-file", Text, "", Same("Certificate chain for the other members, PEM.")),
            flag("peer-key-file", Text, "", Same("Its private key, PEM.")),
            flag(
                "peer-client-cert-file",
                Text,
                "",
                Refused("a member has one certificate, --peer-cert-file, for both directions"),
            ),
            flag(
                "peer-client-key-file",
                Text,
                "",
                Refused("a member has one certificate, --peer-cert-file, for both directions"),
            ),
            flag(
                "peer-client-cert-auth",
                Bool,
                "false",
                Moot("with TLS, members always prove who they are"),
            ),
            flag(
                "peer-trusted-ca-file",
                Text,
                "",
                Same("Authorities that sign the members' certificates, PEM."),
            ),
            flag(
                "peer-auto-tls",
                Bool,
                "false",
                Refused(
                    "members that prove nothing to each other are no safer than without TLS; give --peer-cert-file, --peer-key-file and --peer-trusted-ca-file",
                ),
            ),
            flag("peer-crl-file", Text, "", Refused("revocation is checked for clients only")),
            flag(
                "peer-cert-allowed-cn",
                Text,
                "",
                Refused("names in members' certificates are not compared"),
            ),
            flag(
                "peer-cert-allowed-hostname",
                Text,
                "",
                Refused("names in members' certificates are not compared"),
            ),
            flag(
                "peer-skip-client-san-verification",
                Bool,
                "false",
                Moot("a member's address is not compared with its certificate when it calls"),
            ),
            flag(
                "cipher-suites",
                Text,
                "",
                Same("TLS 1.2 suites for clients, by name, separated by commas."),
            ),
            flag("tls-min-version", Text, "TLS1.2", Same("TLS1.2 or TLS1.3.")),
            flag("tls-max-version", Text, "", Same("TLS1.2 or TLS1.3.")),
            flag("cors", Text, "*", Other("answers carry no CORS headers")),
            flag("host-whitelist", Text, "*", Refused("hosts in requests are not compared")),
            flag(
                "auth-token",
                Text,
                "simple",
                Same("simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,ttl=10m."),
            ),
            flag(
                "bcrypt-cost",
                Text,
                "10",
                Same("Cost of hashing a password: 4 to 31, each step twice the last."),
            ),
            flag(
                "auth-token-ttl",
                Text,
                "300",
                Same("Seconds that a simple token is good for after its last use."),
            ),
        ],
    ),
    (
        "Watching and logging",
        &[
            flag(
                "watch-progress-notify-interval",
                Duration,
                "10m",
                Same(
                    "How often a watch that has no events is told of progress, if it wants to; at least 100ms.",
                ),
            ),
            flag("enable-grpc-gateway", Bool, "true", Other("the JSON gateway is always on")),
            flag(
                "enable-pprof",
                Bool,
                "false",
                Other("there is no profile of a Go program; use perf"),
            ),
            flag("metrics", Text, "basic", Other("there is one level of metrics")),
            flag(
                "listen-metrics-urls",
                Text,
                "",
                Refused("metrics and health are served at the client URLs"),
            ),
            flag("enable-distributed-tracing", Bool, "false", NO_TRACES),
            flag("distributed-tracing-address", Text, "localhost:4317", NO_TRACES),
            flag("distributed-tracing-service-name", Text, "etcd", NO_TRACES),
            flag("distributed-tracing-instance-id", Text, "", NO_TRACES),
            flag("distributed-tracing-sampling-rate", Text, "0", NO_TRACES),
            flag("logger", Text, "zap", Other("log lines are Trireme's own")),
            flag("log-outputs", Text, "default", Other("the log goes to standard error")),
            flag("log-level", Text, "info", Same("debug, info, warn, error, panic or fatal.")),
            flag("log-format", Text, "console", Same("console or json; console unless given.")),
            flag("enable-log-rotation", Bool, "false", Other("the log goes to standard error")),
            flag("log-rotation-config-json", Text, "", Other("the log goes to standard error")),
            flag("disable-log-sampling", Bool, "false", Moot("nothing is left out")),
            flag("warning-apply-duration", Duration, "100ms", NO_ALARMING),
            flag("warning-unary-request-duration", Duration, "300ms", NO_ALARMING),
        ],
    ),
    (
        "Checks and features",
        &[
            flag("initial-corrupt-check", Bool, "false", NO_CHECK),
            flag("corrupt-check-time", Duration, "0s", NO_CHECK),
            flag("compact-hash-check-enabled", Bool, "false", NO_CHECK),
            flag("compact-hash-check-time", Duration, "1m0s", NO_CHECK),
            flag(
                "compaction-batch-limit",
                Text,
                "1000",
                Other("compaction does not stop others and has no batches"),
            ),
            flag(
                "compaction-sleep-interval",
                Duration,
                "10ms",
                Other("compaction does not stop others and has no batches"),
            ),
            flag("downgrade-check-time", Duration, "5s", Moot("there are no downgrades")),
            flag(
                "enable-lease-checkpoint",
                Bool,
                "false",
                Other("a new leader begins every lease anew"),
            ),
            flag(
                "enable-lease-checkpoint-persist",
                Bool,
                "false",
                Other("a new leader begins every lease anew"),
            ),
            flag("memory-mlock", Bool, "false", Other("memory may be swapped out")),
            flag(
                "stop-grpc-service-on-defrag",
                Bool,
                "false",
                Moot("nothing stops at a defragmentation"),
            ),
            flag(
                "txn-mode-write-with-shared-buffer",
                Bool,
                "true",
                Moot("there is no such buffer"),
            ),
            flag("feature-gates", Text, "", Other("there are no features to turn on or off")),
        ],
    ),
    (
        "Unsafe",
        &[
            flag(
                "unsafe-no-fsync",
                Bool,
                "false",
                Other("every write is synced before it is acknowledged"),
            ),
            flag(
                "force-new-cluster",
                Bool,
                "false",
                Refused("a lost quorum is not recovered by a flag"),
            ),
        ],
    ),
    (
        "About",
        &[
            flag(
                "config-file",
                Text,
                "",
                Same(
                    "Read everything from a file, YAML as etcd's; other flags and variables are then ignored.",
                ),
            ),
            flag("version", Bool, "false", Same("Print the version and exit.")),
            flag("help", Bool, "false", Same("Print this and exit.")),
            flag("h", Bool, "false", Alias("help")),
        ],
    ),
];

/// What etcd called `--experimental-NAME` and calls `--NAME` now, or by a feature gate.
const FORMERLY_EXPERIMENTAL: &str = "experimental-";

/// Accepted by etcd and ignored there, too.
pub(super) const IGNORED: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
];

/// Every flag.
pub(super) fn flags() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|(_, flags)| flags.iter())
}

/// The flag that a name means, older names included.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    let find = |name: &str| flags().find(|flag| flag.name == name);
    let found = find(name).or_else(|| find(name.strip_prefix(FORMERLY_EXPERIMENTAL)?))?;
    match found.here {
        Alias(of) => find(of),
        Same(_) | Moot(_) | Other(_) | Refused(_) => Some(found),
    }
}

/// `ETCD_DATA_DIR` for `data-dir`.
pub(super) fn variable(name: &str) -> String {
    format!("ETCD_{}", name.replace('-', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_flag_means_one_thing() {
        let mut seen = BTreeMap::new();
        for flag in flags() {
            let before = seen.insert(flag.name, flag.here);
            assert!(before.is_none_or(|before| before == flag.here), "{}", flag.name);
        }
    }

    #[test]
    fn older_names_are_the_same_flags() {
        for (name, want) in [
            ("experimental-watch-progress-notify-interval", Some("watch-progress-notify-interval")),
            ("experimental-initial-corrupt-check", Some("initial-corrupt-check")),
            ("h", Some("help")),
            ("experimental-nothing", None),
        ] {
            assert_eq!(find(name).map(|flag| flag.name), want, "{name}");
        }
    }
}
