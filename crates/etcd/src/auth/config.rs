//! How tokens are made and passwords hashed.

use super::jwt::{Key, Signing};
use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};
use store::Timestamp;

/// etcd's default, for either kind of token.
const TTL: Duration = Duration::from_secs(300);
/// etcd's default: about 50 ms of one core.
const BCRYPT_COST: u32 = 10;

/// The wall clock that tokens are held against.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// Reads a clock of the caller's.
    #[must_use]
    pub fn new(read: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        Self(read)
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl PartialEq for Clock {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Clock {}

/// Tokens and passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// Which tokens are given out, and known.
    pub token: TokenConfig,
    /// 4 to 31; each step doubles the work.
    pub bcrypt_cost: u32,
    /// For what tokens say of time.
    pub clock: Clock,
}

impl AuthConfig {
    /// etcd's defaults: simple tokens of five minutes.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { token: TokenConfig::Simple { ttl: TTL }, bcrypt_cost: BCRYPT_COST, clock }
    }
}

/// Which tokens are given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenConfig {
    /// Signed with a key in the replicated state, so that every replica knows them: for so long after
    /// they were given out, and at a replica that they are used at, for so long after the last use.
    Simple {
        /// See above.
        ttl: Duration,
    },
    /// JSON Web Tokens, signed with a key that every replica is given. They are void as soon as any
    /// user or role changes.
    Jwt(JwtConfig),
}

/// How JSON Web Tokens are signed.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    pub(super) signing: Arc<Signing>,
    pub(super) ttl: Duration,
}

impl PartialEq for JwtConfig {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.signing, &other.signing) && self.ttl == other.ttl
    }
}

impl Eq for JwtConfig {}

/// Why `--auth-token` is refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// Neither simple nor jwt.
    #[error("unknown kind of token {0:?}: simple and jwt are known")]
    UnknownKind(String),
    /// Not `name=value`, unknown, or there twice.
    #[error("option {0:?} of the token is not known, not NAME=VALUE, or there twice")]
    Option(String),
    /// There is no default for it.
    #[error("tokens of kind jwt need the option sign-method")]
    NoMethod,
    /// Not one of those that are known.
    #[error(
        "unknown sign-method {0:?}: RS, PS, ES and HS with 256, 384 or 512, and EdDSA are known"
    )]
    Method(String),
    /// Nothing to sign or to verify with.
    #[error("sign-method {0} needs pub-key or priv-key; HS needs priv-key")]
    NoKey(String),
    /// The file cannot be read.
    #[error("read key {}", path.display())]
    ReadKey {
        /// Which.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Not of the kind that the method needs.
    #[error("key {} does not fit sign-method {method}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// As given.
        method: String,
        /// What is wrong with it.
        source: jsonwebtoken::errors::Error,
    },
    /// What the one signs, the other does not verify.
    #[error("public and private key of the token do not belong together")]
    Mismatch,
    /// Not a time.
    #[error("ttl {0:?} of the token: a number and ms, s, m or h, such as 5m")]
    Ttl(String),
}

impl TokenConfig {
    /// From etcd's flags `--auth-token`, as `simple` or
    /// `jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,ttl=10m`, and `--auth-token-ttl`, which is of
    /// simple tokens. Reads the key files.
    ///
    /// # Errors
    /// See [`AuthConfigError`].
    pub fn from_flags(token: &str, simple_ttl: Duration) -> Result<Self, AuthConfigError> {
        let mut parts = token.split(',');
        match parts.next().unwrap_or_default() {
            "simple" => match parts.next() {
                None => Ok(Self::Simple { ttl: simple_ttl }),
                Some(option) => Err(AuthConfigError::Option(option.to_owned())),
            },
            "jwt" => Ok(Self::Jwt(jwt(parts)?)),
            other => Err(AuthConfigError::UnknownKind(other.to_owned())),
        }
    }
}

fn jwt<'a>(options: impl Iterator<Item = &'a str>) -> Result<JwtConfig, AuthConfigError> {
    let (mut method, mut public, mut private, mut ttl) = (None, None, None, None);
    for option in options {
        let bad = || AuthConfigError::Option(option.to_owned());
        let (name, value) = option.split_once('=').ok_or_else(bad)?;
        let place = match name {
            "sign-method" => &mut method,
            "pub-key" => &mut public,
            "priv-key" => &mut private,
            "ttl" => &mut ttl,
            _ => return Err(bad()),
        };
        if place.replace(value).is_some() {
            return Err(bad());
        }
    }
    let method = method.ok_or(AuthConfigError::NoMethod)?;
    let ttl = ttl.map_or(Ok(TTL), |text| {
        parse_duration(text).ok_or_else(|| AuthConfigError::Ttl(text.to_owned()))
    })?;
    let signing =
        Signing::new(method, public.map(read).transpose()?, private.map(read).transpose()?)?;
    Ok(JwtConfig { signing: Arc::new(signing), ttl })
}

fn read(path: &str) -> Result<Key, AuthConfigError> {
    let path = PathBuf::from(path);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Key { path, bytes }),
        Err(source) => Err(AuthConfigError::ReadKey { path, source }),
    }
}

/// As Go writes them, whole and of one unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (value, unit) = text.split_at(digits);
    let value: u64 = value.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(value)),
        "s" => Some(Duration::from_secs(value)),
        "m" => value.checked_mul(60).map(Duration::from_secs),
        "h" => value.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}
