//! Simple tokens: etcd's are known only to the member that gave them out; these to every replica.
//!
//! A token says whose it is and when it was given out, signed with a key that is part of the replicated
//! state. That key is drawn anew whenever authentication is turned on, and a token is void once its user
//! is deleted or gets another password. When it was last used is known only where it was used: a token
//! older than its time to live is good at the replicas that have seen it since, and elsewhere its owner
//! has to show the password again, as with etcd after every change of member.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use store::{Identity, Timestamp, TokenKey, state::Auth};

/// Bytes of the signature that are kept.
const MAC: usize = 16;
/// Of what comes before the name: since when the user's password is valid, when it was given out, and
/// something random, so that no two are equal.
const FIXED: usize = 24;

#[derive(Debug)]
pub(super) struct SimpleTokens {
    ttl: Duration,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Until when each is good that was used here, by its signature.
    good_until: HashMap<[u8; MAC], Timestamp>,
    /// When those that are over are to be forgotten.
    clean_at: Timestamp,
}

struct Token {
    since: u64,
    issued: Timestamp,
    user: String,
    mac: [u8; MAC],
}

impl SimpleTokens {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, used: Mutex::default() }
    }

    /// `None` if there is no such user (any more).
    pub(super) fn issue(&self, user: &str, auth: &Auth, now: Timestamp) -> Option<String> {
        let since = auth.user(user)?.since;
        let mut bytes = Vec::with_capacity(FIXED + user.len() + MAC);
        bytes.extend(since.to_le_bytes());
        bytes.extend(now.0.to_le_bytes());
        bytes.extend(rand::random::<u64>().to_le_bytes());
        bytes.extend(user.as_bytes());
        let mac = hmac::sign(&key(auth.token_key()), &bytes);
        bytes.extend(mac.as_ref().iter().take(MAC));
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Whose it is; from now on it is good for another time to live here.
    pub(super) fn identify(&self, token: &str, auth: &Auth, now: Timestamp) -> Option<Identity> {
        let Token { since, issued, user, mac } = parse(token, auth.token_key())?;
        auth.user(&user).filter(|user| user.since == since)?;
        let ttl = u64::try_from(self.ttl.as_micros()).unwrap_or(u64::MAX);
        let after = |start: Timestamp| Timestamp(start.0.saturating_add(ttl));
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.clean_at <= now {
            used.good_until.retain(|_, until| *until > now);
            used.clean_at = after(now);
        }
        let until = used.good_until.get(&mac).copied().unwrap_or_else(|| after(issued));
        if until <= now {
            return None;
        }
        used.good_until.insert(mac, after(now));
        Some(Identity { user, auth_revision: auth.revision() })
    }
}

fn key(TokenKey(key): TokenKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

fn parse(token: &str, signed_with: TokenKey) -> Option<Token> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (signed, mac) = bytes.split_last_chunk::<MAC>()?;
    let expected = hmac::sign(&key(signed_with), signed);
    // In constant time, or the signature could be guessed byte by byte.
    let equal = expected.as_ref().iter().zip(mac).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0;
    if !equal {
        return None;
    }
    let (fixed, user) = signed.split_first_chunk::<FIXED>()?;
    let ([since, issued, _], []) = fixed.as_chunks::<8>() else { return None };
    Some(Token {
        since: u64::from_le_bytes(*since),
        issued: Timestamp(u64::from_le_bytes(*issued)),
        user: String::from_utf8(user.to_vec()).ok()?,
        mac: *mac,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{
        AuthOp, Command, Op, Origin, PasswordHash, RequestId,
        state::{State, View},
    };

    const TTL: u64 = 300;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn apply(state: &mut State, op: AuthOp) {
        let sequence =
            state.view().auth().revision() * 10 + u64::from(state.view().auth().is_enabled());
        state
            .apply(&Command {
                at: Timestamp(0),
                request: RequestId { client: 1, sequence },
                origin: Origin::Client,
                op: Op::Auth(op),
            })
            .applied
            .outcome
            .unwrap();
    }

    fn state() -> State {
        let mut state = State::default();
        for user in ["root", "u"] {
            let password = Some(PasswordHash("hash".to_owned()));
            apply(&mut state, AuthOp::UserAdd { user: user.to_owned(), password });
        }
        let root = || "root".to_owned();
        apply(&mut state, AuthOp::UserGrantRole { user: root(), role: root() });
        apply(&mut state, AuthOp::Enable { token_key: TokenKey([3; 32]) });
        state
    }

    fn tokens() -> SimpleTokens {
        SimpleTokens::new(Duration::from_secs(TTL))
    }

    fn user_of(tokens: &SimpleTokens, token: &str, view: &View, now: u64) -> Option<String> {
        tokens.identify(token, view.auth(), at(now)).map(|identity| identity.user)
    }

    #[test]
    fn a_token_is_good_at_every_replica_and_longer_where_it_is_used() {
        let view = state().view();
        let (here, there) = (tokens(), tokens());
        let token = here.issue("u", view.auth(), at(1000)).unwrap();
        for used in [1000, 1299, 1598, 1897] {
            assert_eq!(user_of(&here, &token, &view, used), Some("u".to_owned()), "at {used}");
        }
        assert_eq!(user_of(&here, &token, &view, 2198), None, "idle for too long");
        assert_eq!(user_of(&there, &token, &view, 1299), Some("u".to_owned()));
        assert_eq!(user_of(&tokens(), &token, &view, 1300), None);
    }

    #[test]
    fn a_token_ends_with_what_it_was_given_for() {
        for (name, change) in [
            ("deleted", vec![AuthOp::UserDelete { user: "u".to_owned() }]),
            (
                "another password",
                vec![AuthOp::UserChangePassword {
                    user: "u".to_owned(),
                    password: PasswordHash("other".to_owned()),
                }],
            ),
            (
                "somebody else of that name",
                vec![
                    AuthOp::UserDelete { user: "u".to_owned() },
                    AuthOp::UserAdd { user: "u".to_owned(), password: None },
                ],
            ),
            (
                "turned off and on",
                vec![AuthOp::Disable, AuthOp::Enable { token_key: TokenKey([4; 32]) }],
            ),
        ] {
            let (mut state, tokens) = (state(), tokens());
            let token = tokens.issue("u", state.view().auth(), at(1)).unwrap();
            apply(&mut state, AuthOp::RoleAdd { role: "other".to_owned() });
            assert!(user_of(&tokens, &token, &state.view(), 2).is_some(), "before it was {name}");
            change.into_iter().for_each(|op| apply(&mut state, op));
            assert_eq!(user_of(&tokens, &token, &state.view(), 2), None, "{name}");
        }
    }

    #[test]
    fn a_token_that_was_tampered_with_is_none() {
        let (view, tokens) = (state().view(), tokens());
        let token = tokens.issue("u", view.auth(), at(1)).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for i in 0..bytes.len() {
            let mut other = bytes.clone();
            other[i] ^= 1;
            assert_eq!(user_of(&tokens, &URL_SAFE_NO_PAD.encode(other), &view, 1), None, "{i}");
        }
        for other in ["", ".", "AAAA", &token[1..], &token[..token.len() - 1], "\u{7f}"] {
            assert_eq!(user_of(&tokens, other, &view, 1), None, "{other:?}");
        }
    }

    #[test]
    fn tokens_that_are_over_are_forgotten() {
        let (view, tokens) = (state().view(), tokens());
        for i in 0..100 {
            let token = tokens.issue("u", view.auth(), at(i)).unwrap();
            user_of(&tokens, &token, &view, i).unwrap();
        }
        let last = tokens.issue("u", view.auth(), at(2000)).unwrap();
        user_of(&tokens, &last, &view, 2000).unwrap();
        assert_eq!(tokens.used.lock().unwrap().good_until.len(), 1);
    }
}
