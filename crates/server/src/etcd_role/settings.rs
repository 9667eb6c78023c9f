//! What the flags ask for, checked.

use super::{
    flags::Values,
    table::find,
    units::{ListenUrl, go_duration, initial_cluster, listeners, member_id, urls},
};
use crate::telemetry::{LogConfig, LogFormat};
use anyhow::{Context as _, bail, ensure};
use etcd::auth::TokenConfig;
use raft::Timers;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Longer elections are a mistake, says etcd.
const ELECTION_MS_MAX: u64 = 50_000;
/// As a replica of a control plane has it.
const SNAPSHOT_ENTRIES: u64 = 50_000;
const SNAPSHOT_ENTRIES_MIN: u64 = 100;
/// As etcd's default, when the flag says 0.
const QUOTA_BYTES: u64 = 2 << 30;

/// One member, as etcd's flags describe it.
#[derive(Debug, Clone, PartialEq)]
pub struct EtcdConfig {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
    pub(super) clients: Vec<ListenUrl>,
    pub(super) peers: ListenUrl,
    pub(super) advertise_clients: Vec<String>,
    pub(super) advertise_peers: Vec<String>,
    /// Names and peer URLs of the first members, this one's too.
    pub(super) members: Vec<(String, Vec<String>)>,
    pub(super) token: String,
    pub(super) join: bool,
    pub(super) timers: Timers,
    /// What leases are measured against.
    pub(super) election: Duration,
    pub(super) snapshot_entries: u64,
    pub(super) quota_bytes: u64,
    pub(super) max_request_bytes: usize,
    pub(super) max_txn_ops: usize,
    pub(super) watch_progress_interval: Duration,
    pub(super) tokens: TokenConfig,
    pub(super) bcrypt_cost: u32,
    pub(super) compaction: Option<Compaction>,
    pub(super) client_tls: Option<ClientTls>,
    pub(super) peer_tls: Option<PeerFiles>,
    /// What is logged.
    pub log: LogConfig,
    /// What is not as in etcd, one line each.
    pub warnings: Vec<String>,
}

/// What is kept of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compaction {
    Periodic(Duration),
    Revisions(u64),
}

/// TLS for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientTls {
    pub(super) certificate: CertificateSource,
    /// Clients must show a certificate of one of these.
    pub(super) authorities: Option<PathBuf>,
    pub(super) revoked: Option<PathBuf>,
    /// Names of suites of TLS 1.2; empty is all that there are.
    pub(super) suites: Vec<String>,
    pub(super) versions: Vec<TlsVersion>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CertificateSource {
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    /// Made at the first start, good for so many years.
    Own {
        years: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TlsVersion {
    V12,
    V13,
}

/// TLS between members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) authorities: PathBuf,
}

impl EtcdConfig {
    /// # Errors
    /// Names the flag, its value and what would be right.
    pub fn new(values: &Values) -> anyhow::Result<Self> {
        let mut warnings = values.warnings.clone();
        let name = values.get("name").to_owned();
        let clients = client_listeners(values)?;
        let peers = listeners("listen-peer-urls", values.get("listen-peer-urls"))?;
        let [peers] = <[ListenUrl; 1]>::try_from(peers).map_err(|peers| {
            anyhow::anyhow!("--listen-peer-urls: one URL is needed, not {}", peers.len())
        })?;
        let advertise_peers =
            urls("initial-advertise-peer-urls", values.get("initial-advertise-peer-urls"))?;
        ensure!(!advertise_peers.is_empty(), "--initial-advertise-peer-urls: one URL is needed");
        let members = members(values, &name, &advertise_peers)?;
        let (timers, election) = timers(values)?;
        let client_tls = client_tls(values, &clients, &mut warnings)?;
        let peer_tls = peer_tls(values, &peers, &members, &mut warnings)?;
        for client in clients.iter().filter(|client| !client.tls && !client.is_local()) {
            warnings.push(format!(
                "clients are served without TLS at {}, which is not loopback: whoever reaches it may \
                 read it all",
                client.url
            ));
        }
        let data_dir = match values.get("data-dir") {
            "" => PathBuf::from(format!("{name}.etcd")),
            dir => PathBuf::from(dir),
        };
        Ok(Self {
            data_dir,
            clients,
            peers,
            advertise_clients: advertise_clients(values)?,
            advertise_peers,
            members,
            token: values.get("initial-cluster-token").to_owned(),
            join: match values.get("initial-cluster-state") {
                "new" => false,
                "existing" => true,
                other => bail!("--initial-cluster-state: {other:?} is neither new nor existing"),
            },
            timers,
            election,
            snapshot_entries: match values.given("snapshot-count") {
                None => SNAPSHOT_ENTRIES,
                Some(_) => number::<u64>(values, "snapshot-count")?.max(SNAPSHOT_ENTRIES_MIN),
            },
            quota_bytes: match number::<i64>(values, "quota-backend-bytes")? {
                0 => QUOTA_BYTES,
                // etcd's word for none.
                bytes => u64::try_from(bytes).unwrap_or(u64::MAX / 2),
            },
            max_request_bytes: number::<u32>(values, "max-request-bytes")? as usize,
            max_txn_ops: number::<u32>(values, "max-txn-ops")? as usize,
            watch_progress_interval: watch_progress_interval(values)?,
            tokens: TokenConfig::from_flags(
                values.get("auth-token"),
                seconds(values, "auth-token-ttl")?,
            )
            .context("--auth-token")?,
            bcrypt_cost: bcrypt_cost(values)?,
            compaction: compaction(values)?,
            client_tls,
            peer_tls,
            log: log(values)?,
            name,
            warnings,
        })
    }

    /// Of this member.
    pub(super) fn id(&self) -> u64 {
        self.id_of(&self.name)
    }

    /// Of a first member; 0 for a stranger.
    pub(super) fn id_of(&self, name: &str) -> u64 {
        let member = self.members.iter().find(|(known, _)| known == name);
        member.map_or(0, |(_, urls)| member_id(urls, &self.token))
    }

    /// By which clients know this member.
    pub(super) fn hosts(&self) -> Vec<String> {
        let urls = self.clients.iter().map(|client| &client.url).chain(&self.advertise_clients);
        let hosts = urls.filter_map(|url| {
            let uri: http::Uri = url.parse().ok()?;
            Some(uri.host()?.trim_matches(['[', ']']).to_owned())
        });
        hosts.collect::<BTreeSet<String>>().into_iter().collect()
    }

    /// # Errors
    /// The directory is etcd's own.
    pub(super) fn check_data_dir(&self) -> anyhow::Result<()> {
        let member: &Path = &self.data_dir.join("member");
        ensure!(
            !member.exists(),
            "--data-dir: {} holds the data of etcd itself, which cannot be read; take another \
             directory, and bring the keys over with `etcdctl make-mirror`",
            self.data_dir.display()
        );
        Ok(())
    }
}

impl ListenUrl {
    fn is_local(&self) -> bool {
        self.address.ip().is_loopback()
    }
}

fn number<N: FromStr>(values: &Values, name: &str) -> anyhow::Result<N> {
    let text = values.get(name);
    text.parse().ok().with_context(|| format!("--{name}: {text:?} is not a number that it takes"))
}

fn duration(values: &Values, name: &str) -> anyhow::Result<Duration> {
    let text = values.get(name);
    go_duration(text)
        .with_context(|| format!("--{name}: {text:?} is not a duration such as 10m or 1.5s"))
}

fn seconds(values: &Values, name: &str) -> anyhow::Result<Duration> {
    number(values, name).map(Duration::from_secs)
}

fn bcrypt_cost(values: &Values) -> anyhow::Result<u32> {
    let cost = number(values, "bcrypt-cost")?;
    ensure!((4..=31).contains(&cost), "--bcrypt-cost: 4 to 31, not {cost}");
    Ok(cost)
}

fn client_listeners(values: &Values) -> anyhow::Result<Vec<ListenUrl>> {
    let mut clients = listeners("listen-client-urls", values.get("listen-client-urls"))?;
    ensure!(!clients.is_empty(), "--listen-client-urls: one URL is needed");
    let more = listeners("listen-client-http-urls", values.get("listen-client-http-urls"))?;
    let taken: BTreeSet<String> = clients.iter().map(|client| client.url.clone()).collect();
    clients.extend(more.into_iter().filter(|client| !taken.contains(&client.url)));
    Ok(clients)
}

fn advertise_clients(values: &Values) -> anyhow::Result<Vec<String>> {
    let given = values.given("advertise-client-urls");
    ensure!(
        values.given("listen-client-urls").is_none() || given.is_some(),
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
    urls("advertise-client-urls", values.get("advertise-client-urls"))
}

fn members(
    values: &Values,
    name: &str,
    advertised: &[String],
) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let text = values.get("initial-cluster");
    if text.is_empty() {
        let mut own = advertised.to_vec();
        own.sort();
        return Ok(vec![(name.to_owned(), own)]);
    }
    let members = initial_cluster(text)?;
    let own = members.iter().find(|(known, _)| known == name);
    let (_, own) = own.with_context(|| {
        format!("couldn't find local name {name:?} in the initial cluster configuration (--initial-cluster, --name)")
    })?;
    let own: BTreeSet<&String> = own.iter().collect();
    ensure!(
        own == advertised.iter().collect(),
        "--initial-cluster has {own:?} for {name:?}, --initial-advertise-peer-urls {advertised:?}: they must be the same"
    );
    Ok(members)
}

/// etcd's own times are taken to mean ours, which are shorter. Otherwise the silence after which a
/// leader is replaced lies between the election time-out and a third more; etcd's, between it and its
/// double.
fn timers(values: &Values) -> anyhow::Result<(Timers, Duration)> {
    let heartbeat: u64 = number(values, "heartbeat-interval")?;
    let election: u64 = number(values, "election-timeout")?;
    ensure!(heartbeat > 0, "--heartbeat-interval: must be above 0");
    ensure!(election > 0, "--election-timeout: must be above 0");
    ensure!(
        heartbeat.saturating_mul(5) <= election,
        "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
    );
    ensure!(
        election <= ELECTION_MS_MAX,
        "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
    );
    let etcds = |name: &str| find(name).is_some_and(|flag| values.get(name) == flag.default);
    let timers = if etcds("heartbeat-interval") && etcds("election-timeout") {
        Timers::lan()
    } else {
        Timers {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election / 3),
            election_max: Duration::from_millis(election * 2 / 3),
        }
    };
    Ok((timers, Duration::from_millis(election)))
}

fn watch_progress_interval(values: &Values) -> anyhow::Result<Duration> {
    let interval = duration(values, "watch-progress-notify-interval")?;
    ensure!(
        interval >= Duration::from_millis(100),
        "--watch-progress-notify-interval: must be at least 100ms, is {interval:?}"
    );
    Ok(interval)
}

fn compaction(values: &Values) -> anyhow::Result<Option<Compaction>> {
    let text = values.get("auto-compaction-retention");
    let wrong = |what| format!("--auto-compaction-retention: {text:?} is not {what}");
    match values.get("auto-compaction-mode") {
        "revision" => {
            let kept: u64 = text.parse().with_context(|| wrong("a number of revisions"))?;
            Ok((kept > 0).then_some(Compaction::Revisions(kept)))
        }
        "periodic" => {
            let hours: Option<u64> = text.parse().ok();
            let hours = hours.and_then(|hours| hours.checked_mul(3600)).map(Duration::from_secs);
            let kept = hours.or_else(|| go_duration(text));
            let kept = kept.with_context(|| wrong("a time such as 10m, or a number of hours"))?;
            ensure!(kept.is_zero() || kept >= Duration::from_millis(10), wrong("at least 10ms"));
            Ok((!kept.is_zero()).then_some(Compaction::Periodic(kept)))
        }
        other => bail!("--auto-compaction-mode: {other:?} is neither periodic nor revision"),
    }
}

fn client_tls(
    values: &Values,
    clients: &[ListenUrl],
    warnings: &mut Vec<String>,
) -> anyhow::Result<Option<ClientTls>> {
    let (certificate, key) = (values.get("cert-file"), values.get("key-file"));
    let certificate = match (certificate, key, values.is_set("auto-tls")) {
        ("", "", false) => {
            if let Some(client) = clients.iter().find(|client| client.tls) {
                bail!(
                    "--listen-client-urls: {} needs --cert-file and --key-file, or --auto-tls",
                    client.url
                );
            }
            for flag in ["trusted-ca-file", "client-crl-file"] {
                ensure!(values.get(flag).is_empty(), "--{flag}: needs --cert-file and --key-file");
            }
            ensure!(
                !values.is_set("client-cert-auth"),
                "--client-cert-auth: needs --cert-file and --key-file"
            );
            return Ok(None);
        }
        ("", "", true) => {
            let years = number(values, "self-signed-cert-validity")?;
            ensure!(
                (1..=100).contains(&years),
                "--self-signed-cert-validity: 1 to 100 years, not {years}"
            );
            CertificateSource::Own { years }
        }
        ("", _, _) => bail!("--key-file: needs --cert-file, too"),
        (_, "", _) => bail!("--cert-file: needs --key-file, too"),
        (certificate, key, auto) => {
            if auto {
                warnings.push("--auto-tls is not needed: --cert-file is given".to_owned());
            }
            CertificateSource::Files { certificate: certificate.into(), key: key.into() }
        }
    };
    for client in clients.iter().filter(|client| !client.tls) {
        warnings
            .push(format!("{} is served without TLS, though there is a certificate", client.url));
    }
    let path = |flag: &str| Some(values.get(flag)).filter(|p| !p.is_empty()).map(PathBuf::from);
    let authorities = path("trusted-ca-file");
    ensure!(
        authorities.is_some() || !values.is_set("client-cert-auth"),
        "--client-cert-auth: needs --trusted-ca-file"
    );
    ensure!(
        authorities.is_some() || path("client-crl-file").is_none(),
        "--client-crl-file: needs --trusted-ca-file"
    );
    Ok(Some(ClientTls {
        certificate,
        authorities,
        revoked: path("client-crl-file"),
        suites: values
            .get("cipher-suites")
            .split(',')
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect(),
        versions: tls_versions(values)?,
    }))
}

fn tls_versions(values: &Values) -> anyhow::Result<Vec<TlsVersion>> {
    let version = |flag: &str, open| match values.get(flag) {
        "" => Ok(open),
        "TLS1.2" => Ok(TlsVersion::V12),
        "TLS1.3" => Ok(TlsVersion::V13),
        other => bail!("--{flag}: {other:?} is neither TLS1.2 nor TLS1.3"),
    };
    let least = version("tls-min-version", TlsVersion::V12)?;
    let most = version("tls-max-version", TlsVersion::V13)?;
    ensure!(least <= most, "--tls-max-version: is below --tls-min-version");
    Ok([TlsVersion::V12, TlsVersion::V13]
        .into_iter()
        .filter(|v| (least..=most).contains(v))
        .collect())
}

fn peer_tls(
    values: &Values,
    peers: &ListenUrl,
    members: &[(String, Vec<String>)],
    warnings: &mut Vec<String>,
) -> anyhow::Result<Option<PeerFiles>> {
    let files = ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file"];
    let missing: Vec<&str> = files.into_iter().filter(|f| values.get(f).is_empty()).collect();
    if !peers.tls {
        if missing.len() < files.len() {
            warnings.push(format!(
                "--listen-peer-urls: {} is served without TLS, though there is a certificate",
                peers.url
            ));
        }
    } else if !missing.is_empty() {
        bail!("--listen-peer-urls: {} needs --{}", peers.url, missing.join(" and --"));
    }
    for url in members.iter().flat_map(|(_, urls)| urls) {
        ensure!(
            url.starts_with("https://") == peers.tls,
            "--initial-cluster: {url} and --listen-peer-urls {} must both be https or both http",
            peers.url
        );
    }
    Ok(peers.tls.then(|| {
        let [certificate, key, authorities] = files.map(|flag| PathBuf::from(values.get(flag)));
        PeerFiles { certificate, key, authorities }
    }))
}

fn log(values: &Values) -> anyhow::Result<LogConfig> {
    let filter = match values.get("log-level") {
        "debug" => "debug,openraft=warn,h2=info,hyper=info,tower=info",
        "info" => "info,openraft=error",
        "warn" => "warn,openraft=error",
        "error" | "dpanic" | "panic" | "fatal" => "error",
        other => bail!("--log-level: {other:?} is none of debug, info, warn, error, panic, fatal"),
    };
    let format = match values.get("log-format") {
        "console" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => bail!("--log-format: {other:?} is neither console nor json"),
    };
    Ok(LogConfig { filter: filter.to_owned(), format })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd_role::parse;

    fn read(line: &str) -> anyhow::Result<EtcdConfig> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        EtcdConfig::new(&parse(&words, []).unwrap())
    }

    #[test]
    fn without_flags_it_is_etcds_single_member() {
        let config = read("").unwrap();
        assert_eq!(config.id(), 0x8e9e_05c5_2164_694d);
        assert_eq!(config.data_dir, Path::new("default.etcd"));
        assert_eq!(config.timers, Timers::lan());
        assert_eq!(config.election, Duration::from_secs(1));
        assert_eq!(config.compaction, None);
        assert_eq!(config.warnings, [""; 0]);
    }

    #[test]
    fn every_member_gives_the_others_the_same_ids() {
        let line =
            "--initial-cluster a=http://127.0.0.1:1,b=http://127.0.0.1:2 --initial-cluster-token t";
        let a = read(&format!("{line} --name a --initial-advertise-peer-urls http://127.0.0.1:1"))
            .unwrap();
        let b = read(&format!("{line} --name b --initial-advertise-peer-urls http://127.0.0.1:2"))
            .unwrap();
        assert_ne!(a.id(), b.id());
        assert_eq!((a.id_of("b"), b.id_of("a")), (b.id(), a.id()));
    }

    #[test]
    fn times_are_etcds_once_they_are_not_its_defaults() {
        let timers = read("--heartbeat-interval 200 --election-timeout 3000").unwrap().timers;
        assert_eq!(timers.heartbeat, Duration::from_millis(200));
        assert_eq!(timers.election_max + timers.election_min, Duration::from_millis(3000));
    }

    #[test]
    fn compaction_is_by_hours_by_time_or_by_revisions() {
        for (line, want) in [
            (
                "--auto-compaction-retention 2",
                Some(Compaction::Periodic(Duration::from_secs(7200))),
            ),
            (
                "--auto-compaction-retention 5m",
                Some(Compaction::Periodic(Duration::from_secs(300))),
            ),
            ("--auto-compaction-retention 0s", None),
            (
                "--auto-compaction-mode revision --auto-compaction-retention 7",
                Some(Compaction::Revisions(7)),
            ),
            ("--auto-compaction-mode revision --auto-compaction-retention 0", None),
        ] {
            assert_eq!(read(line).unwrap().compaction, want, "{line}");
        }
    }

    #[test]
    fn an_impossible_value_is_refused_by_its_flag() {
        for (line, want) in [
            ("--election-timeout 499", "--election-timeout[499ms] should be at least as 5 times"),
            ("--election-timeout 60000", "--election-timeout[60000ms] is too long"),
            ("--snapshot-count many", "--snapshot-count: \"many\""),
            ("--max-request-bytes -1", "--max-request-bytes: \"-1\""),
            ("--initial-cluster-state old", "--initial-cluster-state: \"old\""),
            (
                "--name a --initial-cluster b=http://localhost:2380",
                "couldn't find local name \"a\"",
            ),
            ("--initial-cluster default=http://localhost:1", "--initial-cluster has"),
            ("--listen-client-urls http://127.0.0.1:1", "--advertise-client-urls is required"),
            (
                "--listen-client-urls https://127.0.0.1:1 --advertise-client-urls https://h:1",
                "--listen-client-urls: https://127.0.0.1:1 needs --cert-file",
            ),
            (
                "--listen-peer-urls http://127.0.0.1:1,http://127.0.0.1:2",
                "--listen-peer-urls: one URL",
            ),
            (
                "--listen-peer-urls https://127.0.0.1:1",
                "--listen-peer-urls: https://127.0.0.1:1 needs --peer-cert-file",
            ),
            ("--cert-file c", "--cert-file: needs --key-file"),
            ("--client-cert-auth", "--client-cert-auth: needs --cert-file"),
            (
                "--cert-file c --key-file k --client-cert-auth",
                "--client-cert-auth: needs --trusted-ca-file",
            ),
            (
                "--cert-file c --key-file k --client-crl-file r",
                "--client-crl-file: needs --trusted-ca-file",
            ),
            (
                "--watch-progress-notify-interval 10ms",
                "--watch-progress-notify-interval: must be at least 100ms",
            ),
            ("--auto-compaction-retention soon", "--auto-compaction-retention: \"soon\""),
            ("--auto-compaction-mode never", "--auto-compaction-mode: \"never\""),
            ("--auth-token jot", "--auth-token: unknown kind of token"),
            ("--bcrypt-cost 3", "--bcrypt-cost: 4 to 31"),
            ("--log-level loud", "--log-level: \"loud\""),
            (
                "--tls-min-version TLS1.3 --tls-max-version TLS1.2 --auto-tls",
                "--tls-max-version: is below",
            ),
        ] {
            let error = format!("{:#}", read(line).unwrap_err());
            assert!(error.starts_with(want), "{line}: {error}");
        }
    }
}
