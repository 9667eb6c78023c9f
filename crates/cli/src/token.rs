//! `token`: how further machines are invited.

use crate::{failure::Failure, get::unreadable, target::Target};
use api::{
    bootstrap::{self, Token},
    core::Secret,
    meta,
};
use client::{DeleteOptions, ListOptions, WriteOptions};
use serde::Serialize;
use serde_json::Value;

/// What a new token is for.
pub(crate) struct Wanted {
    pub(crate) for_replicas: bool,
    /// From now on; 0 is for ever.
    pub(crate) ttl_seconds: u64,
    pub(crate) description: String,
}

pub(crate) async fn create(target: &Target, wanted: &Wanted) -> Result<(), Failure> {
    let random = pki::random().map_err(|error| Failure::Refused(error.to_string()))?;
    let token = Token::of(&random);
    let end = || crate::certs::now().0.saturating_add_unsigned(wanted.ttl_seconds);
    let expiration = (wanted.ttl_seconds > 0).then(end);
    let object = token.object(wanted.for_replicas, expiration, &wanted.description);
    let object: Secret = serde_json::from_value(object).map_err(unreadable)?;
    target.client.create(&object, &WriteOptions::default()).await?;
    println!("{}", token.text());
    // Whom to trust is known to who could create it; for plaintext there is nothing to join with.
    if let Some(authority) = &target.authority {
        let pem = authority.read().map_err(|error| Failure::Input(error.to_string()))?;
        let hash = pki::pin_of_pem(&pem, "the authority");
        let hash = hash.map_err(|error| Failure::Input(error.to_string()))?;
        let server = target.endpoints.urls.first().map(String::as_str).unwrap_or_default();
        let role = if wanted.for_replicas { "--replica --advertise ADDRESS" } else { "--node" };
        eprintln!(
            "trireme join --data-dir /var/lib/trireme --server {server} --token {} --ca-hash {hash} {role}",
            token.text()
        );
    }
    Ok(())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    /// Never without it.
    expires: Option<String>,
    expired: bool,
    for_replicas: bool,
    description: String,
}

impl Row {
    fn of(secret: &Value, now: i64) -> Self {
        let text = |key: &str| bootstrap::value(secret, key);
        let groups = text("auth-extra-groups");
        Self {
            id: text("token-id"),
            expires: Some(text("expiration")).filter(|end| !end.is_empty()),
            expired: bootstrap::has_expired(secret, now),
            for_replicas: groups.split(',').any(|group| group == bootstrap::REPLICAS),
            description: text("description"),
        }
    }
}

pub(crate) async fn list(target: &Target, json: bool) -> Result<(), Failure> {
    let options = ListOptions {
        field_selector: format!("type={}", bootstrap::TYPE),
        ..ListOptions::default()
    };
    let secrets = target.client.list::<Secret>(Some(bootstrap::NAMESPACE), &options).await?;
    let now = crate::certs::now().0;
    let mut rows = Vec::new();
    for secret in secrets.items {
        rows.push(Row::of(&serde_json::to_value(secret).map_err(unreadable)?, now));
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&rows).map_err(unreadable)?);
        return Ok(());
    }
    println!("{:<8} {:<22} {:<10} DESCRIPTION", "ID", "EXPIRES", "FOR");
    for Row { id, expires, expired, for_replicas, description } in rows {
        let expires = match expires {
            None => "never".to_owned(),
            Some(_) if expired => "has expired".to_owned(),
            Some(end) => meta::parse_time(&end).map_or(end, meta::time),
        };
        let role = if for_replicas { "replicas" } else { "nodes" };
        println!("{id:<8} {expires:<22} {role:<10} {description}");
    }
    Ok(())
}

/// By its id, or by the whole token.
pub(crate) async fn delete(target: &Target, token: &str) -> Result<(), Failure> {
    let id = token.split('.').next().unwrap_or_default();
    if !bootstrap::is_id(id) {
        return Err(Failure::Input(format!("{token:?}: a token's id is six of a to z and 0 to 9")));
    }
    let (name, options) = (bootstrap::secret_name(id), DeleteOptions::default());
    target.client.delete::<Secret>(Some(bootstrap::NAMESPACE), &name, &options).await?;
    println!("token {id} was deleted");
    Ok(())
}

/// Seconds of `30s`, `15m`, `24h`, `7d`; `0` is for ever.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} must read like 30s, 15m, 24h or 7d, or 0");
    if text == "0" {
        return Ok(0);
    }
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_has_a_unit() {
        for (text, want) in [
            ("30s", Some(30)),
            ("15m", Some(900)),
            ("24h", Some(86_400)),
            ("7d", Some(604_800)),
            ("0", Some(0)),
        ] {
            assert_eq!(seconds(text).ok(), want, "{text}");
        }
        for text in ["", "5", "h", "-1h", "0h", "1.5h", "99999999999999999d", "1w"] {
            assert!(seconds(text).unwrap_err().contains("must read like"), "{text}");
        }
    }
}
