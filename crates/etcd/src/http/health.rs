//! Whether this member is well: `/health` in the words of etcd up to 3.5, `/livez` and `/readyz` check by
//! check as from 3.6 on.

use crate::{
    core::Core,
    counters::{Check, add},
    error,
};
use axum::{
    Router,
    extract::{RawQuery, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::StatusCode;
use std::{sync::Arc, time::Duration};
use store::{AlarmKind, MemberRole};

/// For a check to find out.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be checked, in order.
const LIVEZ: [Check; 1] = [("livez", "serializable_read")];
const READYZ: [Check; 4] = [
    ("readyz", "data_corruption"),
    ("readyz", "serializable_read"),
    ("readyz", "linearizable_read"),
    ("readyz", "non_learner"),
];

pub(super) fn router() -> Router<Arc<Core>> {
    let mut router = Router::new().route("/health", get(health));
    for checks in [&LIVEZ[..], &READYZ[..]] {
        let Some((door, _)) = checks.first() else { continue };
        router = router.route(
            &format!("/{door}"),
            get(move |State(core): State<Arc<Core>>, RawQuery(query): RawQuery| async move {
                let query = Query(query.unwrap_or_default());
                let left_out = |check: &&Check| !query.has("exclude", check.1);
                let checks: Vec<Check> = checks.iter().filter(left_out).copied().collect();
                run(&core, &checks, &query).await
            }),
        );
        for check in checks {
            router = router.route(
                &format!("/{door}/{}", check.1),
                get(move |State(core): State<Arc<Core>>, RawQuery(query): RawQuery| async move {
                    run(&core, &[*check], &Query(query.unwrap_or_default())).await
                }),
            );
        }
    }
    router
}

/// `?a=b&c`.
struct Query(String);

impl Query {
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    fn has(&self, key: &str, value: &str) -> bool {
        self.pairs().any(|pair| pair == (key, value))
    }
}

async fn health(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    let query = Query(query.unwrap_or_default());
    let reason = sickness(&core, &query).await;
    let counters = &core.counters;
    add(if reason.is_none() { &counters.health_successes } else { &counters.health_failures }, 1);
    let health = if reason.is_none() { "true" } else { "false" };
    let body = format!(
        r#"{{"health":"{health}","reason":{}}}"#,
        serde_json::Value::from(reason.clone().unwrap_or_default())
    );
    match reason {
        None => body.into_response(),
        Some(_) => super::text(StatusCode::SERVICE_UNAVAILABLE, body),
    }
}

/// Why this member does not count as healthy.
async fn sickness(core: &Core, query: &Query) -> Option<String> {
    for alarm in core.store.view().alarms() {
        let name = alarm_name(alarm.kind);
        if !query.has("exclude", name) {
            return Some(format!("ALARM {name}"));
        }
    }
    let serializable = query.has("serializable", "true");
    if !serializable && core.cluster.local().leader.is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = core.view(serializable, PATIENCE).await;
    read.err().map(|status| format!("RANGE ERROR:{}", status.message()))
}

pub(super) fn alarm_name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    }
}

async fn run(core: &Core, checks: &[Check], query: &Query) -> Response {
    let mut lines = String::new();
    let mut well = true;
    for check in checks {
        let result = carry_out(core, check.1).await;
        core.counters.checked(*check, result.is_ok());
        match result {
            Ok(()) => lines += &format!("[+]{} ok\n", check.1),
            Err(reason) => {
                well = false;
                lines += &format!("[-]{} failed: {reason}\n", check.1);
            }
        }
    }
    if !well {
        return super::text(StatusCode::SERVICE_UNAVAILABLE, lines);
    }
    let verbose = query.pairs().any(|(key, _)| key == "verbose");
    super::text(StatusCode::OK, if verbose { lines + "ok" } else { "ok".to_owned() })
}

async fn carry_out(core: &Core, check: &str) -> Result<(), String> {
    let read = async |serializable| {
        let read = core.view(serializable, PATIENCE).await;
        read.map(drop).map_err(|status| format!("range error: {}", status.message()))
    };
    match check {
        "data_corruption" => {
            let alarms = core.store.view().alarms();
            match alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
                true => Err("alarm activated: CORRUPT".to_owned()),
                false => Ok(()),
            }
        }
        "non_learner" => match core.cluster.local().role {
            MemberRole::Learner => Err("this member is a learner".to_owned()),
            MemberRole::Leader
            | MemberRole::Follower
            | MemberRole::Candidate
            | MemberRole::Unknown => Ok(()),
        },
        "linearizable_read" if core.cluster.local().leader.is_none() => {
            Err(format!("range error: {}", error::no_leader().message()))
        }
        "linearizable_read" => read(false).await,
        _ => read(true).await,
    }
}
