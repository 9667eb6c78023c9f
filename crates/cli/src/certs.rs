//! `cluster certs`: what every replica and node shows, and for how long it is valid.

use crate::{failure::Failure, get::unreadable, target::Target};
use api::{core::Node, meta};
use bytes::Bytes;
use client::{ListOptions, admin, certificates};
use futures::future::join_all;
use http_body_util::BodyExt as _;
use pki::{Certificate, Moment};
use serde::Serialize;
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::timeout;

/// For one replica or node to say what it shows.
const DEADLINE: Duration = Duration::from_secs(3);

/// A certificate, or why it cannot be seen.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// Replica or node.
    of: String,
    /// Where it is shown; empty if whose they are does not answer.
    name: String,
    #[serde(flatten)]
    seen: Seen,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", untagged)]
enum Seen {
    #[serde(rename_all = "camelCase")]
    Certificate {
        subject: String,
        organizations: Vec<String>,
        hosts: Vec<String>,
        usage: String,
        issuer: String,
        not_before: String,
        not_after: String,
        /// Whole ones; negative when it has expired.
        days_left: i64,
        /// `None` for an authority, which nobody renews.
        next_renewal: Option<String>,
        sha256: String,
    },
    Error {
        error: String,
    },
}

impl Seen {
    fn new(pem: Result<&str, String>, now: Moment) -> Self {
        let read = |pem: &str| {
            Certificate::from_pem(pem.as_bytes(), "it").map_err(|error| error.to_string())
        };
        match pem.and_then(read) {
            Err(error) => Self::Error { error },
            Ok(found) => Self::Certificate {
                usage: if found.is_authority {
                    "signs".to_owned()
                } else {
                    found.profile.usage.to_string()
                },
                not_before: meta::time(found.not_before.0),
                not_after: meta::time(found.not_after.0),
                days_left: found.not_after.0.saturating_sub(now.0).div_euclid(24 * 3600),
                next_renewal: (!found.is_authority).then(|| meta::time(found.renewal().0)),
                subject: found.profile.common_name,
                organizations: found.profile.organizations,
                hosts: found.profile.hosts,
                issuer: found.issuer,
                sha256: found.sha256,
            },
        }
    }
}

pub(crate) async fn list(target: &Target, json: bool) -> Result<(), Failure> {
    let cluster = admin::status(&target.endpoints).await?;
    let options = ListOptions::default();
    let (replicas, nodes) = tokio::join!(
        join_all(cluster.members.iter().map(|member| of_replica(target, member))),
        of_nodes(target, &options),
    );
    let rows: Vec<Row> = replicas.into_iter().flatten().chain(nodes).collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&rows).map_err(unreadable)?);
    } else {
        print(&rows);
    }
    Ok(())
}

/// Now, to say how many days are left of a certificate.
pub(crate) fn now() -> Moment {
    #[expect(
        clippy::disallowed_methods,
        reason = "said to who has asked, and nothing depends on it"
    )]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn silent(of: &str, error: String) -> Vec<Row> {
    vec![Row { of: of.to_owned(), name: String::new(), seen: Seen::Error { error } }]
}

async fn of_replica(target: &Target, member: &admin::MemberStatus) -> Vec<Row> {
    let asked = certificates::list(&target.endpoints, &member.client_url);
    match timeout(DEADLINE, asked).await {
        Ok(Ok(found)) => found
            .into_iter()
            .map(|found| Row {
                of: member.name.clone(),
                name: found.name,
                seen: Seen::new(found.certificate.as_deref().map_err(Clone::clone), now()),
            })
            .collect(),
        Ok(Err(error)) => silent(&member.name, error.to_string()),
        Err(_) => silent(&member.name, format!("no answer within {DEADLINE:?}")),
    }
}

async fn of_nodes(target: &Target, options: &ListOptions) -> Vec<Row> {
    match timeout(DEADLINE, target.client.list::<Node>(None, options)).await {
        Ok(Ok(list)) => {
            let names = list.items.into_iter().filter_map(|node| node.metadata.name);
            let rows = join_all(names.map(|name| of_node(target, name))).await;
            rows.into_iter().flatten().collect()
        }
        Ok(Err(error)) => silent("nodes", error.to_string()),
        Err(_) => silent("nodes", format!("no answer within {DEADLINE:?}")),
    }
}

async fn of_node(target: &Target, node: String) -> Vec<Row> {
    let asked = async {
        let path = format!("/api/v1/nodes/{node}/proxy/certificates");
        let request = http::Request::get(path).body(Bytes::new()).map_err(|e| e.to_string())?;
        let answer = target.client.request(request).await.map_err(|e| e.to_string())?;
        let answer = client::refuse(answer).await.map_err(|e| e.to_string())?;
        let body = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        serde_json::from_slice::<Vec<Value>>(&body).map_err(|e| e.to_string())
    };
    let answer = timeout(DEADLINE, asked).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")));
    let text = |found: &Value, key: &str| found.get(key)?.as_str().map(str::to_owned);
    match answer {
        Err(error) => silent(&node, error),
        Ok(all) => all
            .iter()
            .map(|found| {
                let pem = text(found, "certificate");
                let pem = pem.ok_or_else(|| text(found, "error").unwrap_or_default());
                let name = text(found, "name").unwrap_or_default();
                let seen = Seen::new(pem.as_deref().map_err(Clone::clone), now());
                Row { of: node.clone(), name, seen }
            })
            .collect(),
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<12} {:<10} {:<14} {:<30} {:<12} {:<20} {:>5}  NEXT RENEWAL",
        "OF", "SHOWN", "USAGE", "SUBJECT", "ISSUER", "EXPIRES", "DAYS"
    );
    for Row { of, name, seen } in rows {
        match seen {
            Seen::Error { error } => println!("{of:<12} {name:<10} {error}"),
            Seen::Certificate {
                usage,
                subject,
                issuer,
                not_after,
                days_left,
                next_renewal,
                ..
            } => println!(
                "{of:<12} {name:<10} {usage:<14} {subject:<30} {issuer:<12} {not_after:<20} \
                 {days_left:>5}  {}",
                next_renewal.as_deref().unwrap_or("-")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::{Authority, Profile};

    #[test]
    fn a_certificate_is_told_with_its_days() {
        let now = Moment(1_795_000_000);
        let day = Duration::from_secs(24 * 3600);
        let authority = Authority::create("kubernetes", now, day * 100).unwrap();
        let pem = authority.issue(&Profile::client("alice", &["dev"]), now, day * 3).unwrap();
        for (at, days, left) in [(now, 2, true), (now.after(day * 4), -2, false)] {
            let seen = serde_json::to_value(Seen::new(Ok(&pem), at)).unwrap();
            assert_eq!(seen["daysLeft"], days, "{left}");
            assert_eq!(seen["issuer"], "kubernetes");
            assert_eq!(seen["usage"], "client");
            assert_eq!(seen["nextRenewal"], meta::time(now.after(day * 2).0 - 300), "{seen}");
        }
        let seen = serde_json::to_value(Seen::new(Ok(authority.pem()), now)).unwrap();
        assert_eq!((&seen["usage"], &seen["nextRenewal"]), (&"signs".into(), &Value::Null));
        let seen = serde_json::to_value(Seen::new(Ok("x"), now)).unwrap();
        assert!(seen["error"].as_str().unwrap().contains("no certificate"), "{seen}");
    }
}
