//! Bootstrap tokens: Secrets with which machines that have no certificate yet come to a cluster, in kubeadm's
//! form.

use crate::{caller::Identity, meta};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

/// Where the Secrets are.
pub const NAMESPACE: &str = "kube-system";
/// Their type.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Whoever shows one is of this group.
pub const GROUP: &str = "system:bootstrappers";
/// And of this one, if the token is for replicas: it gives what replicas share, the authority's key among it.
pub const REPLICAS: &str = "system:bootstrappers:trireme:replicas";

const PREFIX: &str = "bootstrap-token-";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;

/// A token: `ID.SECRET`. The id is no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Six characters.
    pub id: String,
    /// Sixteen.
    pub secret: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Whether it is an id of a token.
#[must_use]
pub fn is_id(text: &str) -> bool {
    is_word(text, ID_CHARS)
}

fn is_word(text: &str, chars: usize) -> bool {
    text.len() == chars && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

impl Token {
    /// `None` if it does not read `[a-z0-9]{6}.[a-z0-9]{16}`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        (is_id(id) && is_word(secret, SECRET_CHARS))
            .then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// Out of random bytes.
    #[must_use]
    pub fn of(random: &[u8; ID_CHARS + SECRET_CHARS]) -> Self {
        const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        // 256 is no multiple of 36: some letters are a seventh likelier, which costs a bit of a hundred.
        let letter = |byte: &u8| {
            let at = usize::from(*byte) % LETTERS.len();
            char::from(LETTERS.get(at).copied().unwrap_or(b'a'))
        };
        let (id, secret) = random.split_at(ID_CHARS);
        Self { id: id.iter().map(letter).collect(), secret: secret.iter().map(letter).collect() }
    }

    /// As it is shown.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// The Secret that makes it valid, until `expiration` (seconds since the Unix epoch) if there is one.
    #[must_use]
    pub fn object(&self, for_replicas: bool, expiration: Option<i64>, description: &str) -> Value {
        let mut data = Map::new();
        let mut put = |key: &str, value: &str| {
            data.insert(key.to_owned(), json!(BASE64_STANDARD.encode(value)));
        };
        put("token-id", &self.id);
        put("token-secret", &self.secret);
        put("usage-bootstrap-authentication", "true");
        if for_replicas {
            put("auth-extra-groups", REPLICAS);
        }
        if let Some(expiration) = expiration {
            put("expiration", &meta::time(expiration));
        }
        if !description.is_empty() {
            put("description", description);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": TYPE,
            "metadata": {"name": secret_name(&self.id), "namespace": NAMESPACE},
            "data": data,
        })
    }
}

/// Of a token's Secret.
#[must_use]
pub fn secret_name(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// One value of a token's Secret; empty if there is none.
#[must_use]
pub fn value(secret: &Value, key: &str) -> String {
    let encoded = secret.get("data").and_then(|data| data.get(key)).and_then(Value::as_str);
    let bytes = encoded.and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Whether a token's Secret is over.
#[must_use]
pub fn has_expired(secret: &Value, now_seconds: i64) -> bool {
    let expiration = value(secret, "expiration");
    // A time that cannot be read is none that is still to come.
    !expiration.is_empty() && meta::parse_time(&expiration).is_none_or(|end| end <= now_seconds)
}

/// Who shows this token, as its Secret says.
///
/// # Errors
/// Why the token does not count, in words.
pub fn identity(secret: &Value, token: &Token, now_seconds: i64) -> Result<Identity, &'static str> {
    if secret.get("type").and_then(Value::as_str) != Some(TYPE)
        || value(secret, "token-id") != token.id
    {
        return Err("is none");
    }
    // All of it is looked at, wherever the first difference is.
    let stored = value(secret, "token-secret");
    let differs = stored.bytes().zip(token.secret.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    if stored.len() != token.secret.len() || differs != 0 {
        return Err("has another secret");
    }
    if has_expired(secret, now_seconds) {
        return Err("has expired");
    }
    if value(secret, "usage-bootstrap-authentication") != "true" {
        return Err("is not for authentication");
    }
    let extra = value(secret, "auth-extra-groups");
    // A group of another kind would be a way to any rights.
    let extra = extra.split(',').filter(|group| group.starts_with("system:bootstrappers:"));
    let groups = std::iter::once(GROUP).chain(extra).map(str::to_owned).collect();
    Ok(Identity { user: format!("system:bootstrap:{}", token.id), groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000;

    fn token() -> Token {
        Token::parse("abcdef.0123456789abcdef").unwrap()
    }

    #[test]
    fn a_token_reads_as_kubeadm_s() {
        for (text, valid) in [
            ("abcdef.0123456789abcdef", true),
            ("abcdef0123456789abcdef", false),
            ("ABCDEF.0123456789abcdef", false),
            ("abcdef.0123456789abcde", false),
            ("abcde.0123456789abcdef", false),
            ("", false),
        ] {
            assert_eq!(Token::parse(text).is_some(), valid, "{text:?}");
        }
        let drawn = Token::of(&std::array::from_fn(|i| u8::try_from(i * 11).unwrap()));
        assert_eq!(Token::parse(&drawn.text()), Some(drawn.clone()));
        assert!(!format!("{drawn:?}").contains(&drawn.secret));
    }

    #[test]
    fn a_token_counts_while_its_secret_says_so() {
        let whole = token().object(true, Some(NOW + 1), "mine");
        let with = |key: &str, text: &str| {
            let mut secret = whole.clone();
            secret["data"][key] = json!(BASE64_STANDARD.encode(text));
            secret
        };
        let other = Token::parse("abcdef.0123456789abcdeg").unwrap();
        for (name, secret, token, now, want) in [
            ("valid", whole.clone(), token(), NOW, Ok(vec![GROUP, REPLICAS])),
            ("for nodes", token().object(false, None, ""), token(), NOW, Ok(vec![GROUP])),
            ("late", whole.clone(), token(), NOW + 1, Err("has expired")),
            ("no time", with("expiration", "soon"), token(), NOW, Err("has expired")),
            ("another", whole.clone(), other, NOW, Err("has another secret")),
            ("no secret", with("token-secret", ""), token(), NOW, Err("has another secret")),
            ("another id", with("token-id", "uvwxyz"), token(), NOW, Err("is none")),
            (
                "a password",
                json!({"type": "Opaque", "data": whole["data"]}),
                token(),
                NOW,
                Err("is none"),
            ),
            (
                "for signing",
                with("usage-bootstrap-authentication", "false"),
                token(),
                NOW,
                Err("is not for authentication"),
            ),
            (
                "for more",
                with("auth-extra-groups", "system:masters,system:bootstrappers:a"),
                token(),
                NOW,
                Ok(vec![GROUP, "system:bootstrappers:a"]),
            ),
        ] {
            let found = identity(&secret, &token, now);
            let groups = found.map(|who| {
                assert_eq!(who.user, "system:bootstrap:abcdef");
                who.groups
            });
            let want =
                want.map(|groups: Vec<&str>| groups.into_iter().map(str::to_owned).collect());
            assert_eq!(groups, want, "{name}");
        }
    }
}
