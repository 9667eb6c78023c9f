//! JSON Web Tokens, as etcd makes them: whoever has the public key can check them.

use super::config::{AuthConfigError, JwtConfig};
use crate::error;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};
use store::{Identity, Timestamp, state::Auth};
use tonic::Status;

/// A key as a file has it.
pub(super) struct Key {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// With what tokens are signed and verified.
pub(super) struct Signing {
    algorithm: Algorithm,
    /// Without it this replica only verifies.
    sign: Option<EncodingKey>,
    verify: DecodingKey,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    username: String,
    /// Of users and roles when it was given out.
    revision: u64,
    /// Seconds since the Unix epoch.
    exp: u64,
}

/// How the keys of an algorithm are written down.
#[derive(Clone, Copy)]
enum Family {
    Rsa,
    Ec,
    Ed,
    /// One secret for both, as it is.
    Hmac,
}

impl Signing {
    pub(super) fn new(
        method: &str,
        public: Option<Key>,
        private: Option<Key>,
    ) -> Result<Self, AuthConfigError> {
        let algorithm: Algorithm =
            method.parse().map_err(|_| AuthConfigError::Method(method.to_owned()))?;
        let family = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Family::Hmac,
            Algorithm::ES256 | Algorithm::ES384 => Family::Ec,
            Algorithm::EdDSA => Family::Ed,
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => Family::Rsa,
        };
        let unfit = |key: &Key| {
            let (path, method) = (key.path.clone(), method.to_owned());
            |source| AuthConfigError::Key { path, method, source }
        };
        let sign = private.as_ref().map(|key| {
            match family {
                Family::Rsa => EncodingKey::from_rsa_pem(&key.bytes),
                Family::Ec => EncodingKey::from_ec_pem(&key.bytes),
                Family::Ed => EncodingKey::from_ed_pem(&key.bytes),
                Family::Hmac => Ok(EncodingKey::from_secret(&key.bytes)),
            }
            .map_err(unfit(key))
        });
        let verify = match (family, &public, &private) {
            (Family::Hmac, _, Some(secret)) => DecodingKey::from_secret(&secret.bytes),
            (Family::Rsa, Some(key), _) => {
                DecodingKey::from_rsa_pem(&key.bytes).map_err(unfit(key))?
            }
            (Family::Ec, Some(key), _) => {
                DecodingKey::from_ec_pem(&key.bytes).map_err(unfit(key))?
            }
            (Family::Ed, Some(key), _) => {
                DecodingKey::from_ed_pem(&key.bytes).map_err(unfit(key))?
            }
            (_, _, _) => return Err(AuthConfigError::NoKey(method.to_owned())),
        };
        let signing = Self { algorithm, sign: sign.transpose()?, verify };
        // Found out now, and not by every client.
        let probe = Claims { username: String::new(), revision: 0, exp: 0 };
        match signing.sign(&probe) {
            None => Ok(signing),
            Some(Ok(token)) if signing.verify(&token).is_some() => Ok(signing),
            Some(Ok(_)) => Err(AuthConfigError::Mismatch),
            Some(Err(source)) => {
                let path = private.map(|key| key.path).unwrap_or_default();
                Err(AuthConfigError::Key { path, method: method.to_owned(), source })
            }
        }
    }

    fn sign(&self, claims: &Claims) -> Option<Result<String, jsonwebtoken::errors::Error>> {
        let key = self.sign.as_ref()?;
        Some(jsonwebtoken::encode(&Header::new(self.algorithm), claims, key))
    }

    /// Of the configured algorithm only: a token must not choose by what it is judged.
    fn verify(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(self.algorithm);
        // By the replica's clock instead.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.verify, &validation);
        decoded.ok().map(|token| token.claims)
    }
}

#[derive(Debug)]
pub(super) struct JwtTokens {
    config: JwtConfig,
}

impl JwtTokens {
    pub(super) fn new(config: JwtConfig) -> Self {
        Self { config }
    }

    pub(super) fn issue(&self, user: &str, auth: &Auth, now: Timestamp) -> Result<String, Status> {
        let claims = Claims {
            username: user.to_owned(),
            revision: auth.revision(),
            exp: (now.0 / 1_000_000).saturating_add(self.config.ttl.as_secs()),
        };
        let signed = self.config.signing.sign(&claims).ok_or_else(error::unknown::verify_only)?;
        signed.map_err(|error| {
            tracing::error!(%error, "token not signed");
            error::auth_failed()
        })
    }

    /// Whose it is, as of when it was given out: who asks with an old one has to get another.
    pub(super) fn identify(&self, token: &str, _: &Auth, now: Timestamp) -> Option<Identity> {
        let claims = self.config.signing.verify(token)?;
        let good = claims.exp > now.0 / 1_000_000;
        // 0 would be nobody, whom the name does not matter of.
        (good && claims.revision > 0)
            .then_some(Identity { user: claims.username, auth_revision: claims.revision })
    }
}
