//! Who asks, and whether they may.
//!
//! A request comes with a token, or with a client certificate whose common name is a user. What that
//! user may do is looked up in the state of this replica, and for a write again when it is applied. A
//! replica that is behind may not know the user yet, or still think that it may not: before it says no
//! it catches up and looks again.

mod config;
mod jwt;
mod password;
mod service;
mod simple;

pub use config::{AuthConfig, AuthConfigError, Clock, JwtConfig, TokenConfig};
pub(crate) use service::{AuthService, permission_of};

use crate::{ClientCommonName, error};
use jwt::JwtTokens;
use password::Passwords;
use simple::SimpleTokens;
use std::sync::Arc;
use store::{Identity, state::View};
use tonic::{Request, Status, metadata::MetadataMap};

/// What a request shows of who sends it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    token: Option<String>,
    common_name: Option<Arc<str>>,
}

impl Credentials {
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let metadata = request.metadata();
        let name = request.extensions().get::<ClientCommonName>();
        // The gateway would lend its own certificate to everybody.
        let own = !metadata.contains_key("grpcgateway-accept");
        let common_name = name.filter(|_| own).map(|ClientCommonName(name)| Arc::clone(name));
        Self { token: token(metadata), common_name }
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

fn token(metadata: &MetadataMap) -> Option<String> {
    let value = metadata.get("token").or_else(|| metadata.get("authorization"))?;
    let text = value.to_str().unwrap_or_default();
    Some(text.strip_prefix("Bearer ").unwrap_or(text).to_owned())
}

/// Checks passwords, gives out tokens and knows them again.
#[derive(Debug)]
pub(crate) struct Authenticator {
    tokens: Tokens,
    pub(crate) passwords: Passwords,
    clock: Clock,
}

#[derive(Debug)]
enum Tokens {
    Simple(SimpleTokens),
    Jwt(JwtTokens),
}

impl Authenticator {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        let tokens = match &config.token {
            TokenConfig::Simple { ttl } => Tokens::Simple(SimpleTokens::new(*ttl)),
            TokenConfig::Jwt(config) => Tokens::Jwt(JwtTokens::new(config.clone())),
        };
        let passwords = Passwords::new(config.bcrypt_cost);
        Self { tokens, passwords, clock: config.clock.clone() }
    }

    /// Who shows these credentials, as far as this state knows; nobody while it does not matter.
    ///
    /// # Errors
    /// The token is none, or is over.
    pub(crate) fn identify(&self, who: &Credentials, view: &View) -> Result<Identity, Status> {
        let auth = view.auth();
        if !auth.is_enabled() {
            return Ok(Identity::default());
        }
        if let Some(token) = &who.token {
            let known = match &self.tokens {
                Tokens::Simple(tokens) => tokens.identify(token, auth, self.clock.now()),
                Tokens::Jwt(tokens) => tokens.identify(token, auth, self.clock.now()),
            };
            return known.ok_or_else(error::invalid_auth_token);
        }
        Ok(match &who.common_name {
            Some(user) => Identity { user: user.to_string(), auth_revision: auth.revision() },
            None => Identity::default(),
        })
    }

    /// A token for a user who has proven to be it.
    ///
    /// # Errors
    /// This replica has no key to sign with.
    fn issue(&self, user: &str, view: &View) -> Result<String, Status> {
        match &self.tokens {
            Tokens::Simple(tokens) => {
                tokens.issue(user, view.auth(), self.clock.now()).ok_or_else(error::auth_failed)
            }
            Tokens::Jwt(tokens) => tokens.issue(user, view.auth(), self.clock.now()),
        }
    }
}
