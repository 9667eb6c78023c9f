//! How etcd writes times, addresses and members in its flags.

use anyhow::{Context as _, bail, ensure};
use sha1::{Digest as _, Sha1};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Go's `time.ParseDuration`, without signs: `1h30m`, `1.5s`, `0`.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let unit = match unit {
            "ns" => 1f64,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanoseconds += number * unit;
        rest = after;
    }
    Duration::try_from_secs_f64(nanoseconds / 1e9).ok()
}

/// A URL to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListenUrl {
    pub(super) url: String,
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
}

/// The URLs of a flag, separated by commas, none of them twice.
///
/// # Errors
/// One is not `http(s)://HOST:PORT` and nothing more.
pub(super) fn urls(flag: &str, text: &str) -> anyhow::Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut urls = Vec::new();
    for url in text.split(',').map(str::trim).filter(|url| !url.is_empty()) {
        check_url(url).with_context(|| format!("--{flag}"))?;
        if seen.insert(url) {
            urls.push(url.trim_end_matches('/').to_owned());
        }
    }
    Ok(urls)
}

fn check_url(url: &str) -> anyhow::Result<()> {
    ensure!(
        !url.starts_with("unix://") && !url.starts_with("unixs://"),
        "sockets of this machine are not supported, only TCP: {url}"
    );
    let uri: http::Uri = url.parse().with_context(|| format!("parse {url:?}"))?;
    ensure!(
        matches!(uri.scheme_str(), Some("http" | "https")),
        "URL scheme must be http or https: {url}"
    );
    ensure!(uri.port_u16().is_some(), "URL address does not have the form \"host:port\": {url}");
    ensure!(
        matches!(uri.path(), "" | "/") && uri.query().is_none(),
        "URL must not contain a path: {url}"
    );
    Ok(())
}

/// Where the URLs of a flag say to listen.
///
/// # Errors
/// As [`urls`]; also for a host that is neither an IP address nor `localhost`, as in etcd.
pub(super) fn listeners(flag: &str, text: &str) -> anyhow::Result<Vec<ListenUrl>> {
    let place = |url: String| -> anyhow::Result<ListenUrl> {
        let uri: http::Uri = url.parse().with_context(|| format!("parse {url:?}"))?;
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let ip = match host {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host
                .parse()
                .ok()
                .with_context(|| format!("--{flag}: expected IP in URL for binding ({url})"))?,
        };
        let address = SocketAddr::new(ip, uri.port_u16().unwrap_or_default());
        Ok(ListenUrl { address, tls: uri.scheme_str() == Some("https"), url })
    };
    urls(flag, text)?.into_iter().map(place).collect()
}

/// `name=url,name=url`; a name that comes twice has two URLs.
///
/// # Errors
/// An entry has no name or no URL.
pub(super) fn initial_cluster(text: &str) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, url) = entry.split_once('=').unwrap_or(("", entry));
        ensure!(
            !name.is_empty() && !url.is_empty(),
            "--initial-cluster: {entry:?} must read NAME=URL"
        );
        let url = urls("initial-cluster", url)?;
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.extend(url),
            None => members.push((name.to_owned(), url)),
        }
    }
    for (_, urls) in &mut members {
        urls.sort();
    }
    let all: Vec<&String> = members.iter().flat_map(|(_, urls)| urls).collect();
    if all.iter().collect::<BTreeSet<_>>().len() != all.len() {
        bail!("--initial-cluster: two members have the same peer URL");
    }
    Ok(members)
}

/// As etcd works it out, so that every member does without asking: over its peer URLs, in order, and
/// the token.
pub(super) fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let digest = Sha1::digest(urls.concat() + token);
    let first = digest.first_chunk().expect("a digest of 20 bytes");
    u64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_gos_are() {
        for (text, want) in [
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("100ms", Some(100)),
            ("10m", Some(600_000)),
            ("0", Some(0)),
            ("5000000ns", Some(5)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
        ] {
            assert_eq!(go_duration(text), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_listener_is_an_address_and_nothing_more() {
        let places = listeners(
            "listen-client-urls",
            "http://localhost:2379,https://[::1]:1/,http://localhost:2379",
        );
        let places: Vec<_> =
            places.unwrap().into_iter().map(|l| (l.address.to_string(), l.tls)).collect();
        assert_eq!(places, [("127.0.0.1:2379".to_owned(), false), ("[::1]:1".to_owned(), true)]);
        for (text, want) in [
            ("http://example.com:2379", "expected IP in URL for binding"),
            ("localhost:2379", "URL scheme must be"),
            ("http://127.0.0.1", "does not have the form \"host:port\""),
            ("unix:///run/etcd", "not supported"),
            ("http://127.0.0.1:1/x", "must not contain a path"),
        ] {
            let error = format!("{:#}", listeners("listen-client-urls", text).unwrap_err());
            assert!(error.starts_with("--listen-client-urls") && error.contains(want), "{error}");
        }
    }

    #[test]
    fn members_are_read_from_one_line() {
        let members = initial_cluster("a=http://h:1,b=http://h:2,a=http://h:0").unwrap();
        assert_eq!(
            members,
            [
                ("a".to_owned(), vec!["http://h:0".to_owned(), "http://h:1".to_owned()]),
                ("b".to_owned(), vec!["http://h:2".to_owned()])
            ]
        );
        for wrong in ["http://h:1", "a=", "=http://h:1", "a=http://h:1,b=http://h:1"] {
            assert!(initial_cluster(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_member_has_the_id_that_etcd_gives_it() {
        // `etcd --name default` with nothing else, as etcd 3.4 to 3.6 log it.
        let urls = ["http://localhost:2380".to_owned()];
        assert_eq!(member_id(&urls, "etcd-cluster"), 0x8e9e_05c5_2164_694d);
    }
}
