//! JSON Web Tokens in place of simple ones.

use crate::served::{Served, Token, auth, kv, log_in};
use etcd::{
    auth::{AuthConfigError, TokenConfig},
    proto::etcdserverpb::*,
};
use std::{path::Path, time::Duration};
use tempfile::TempDir;
use tonic::{Code, Status, transport::Channel};

const SIMPLE_TTL: Duration = Duration::from_secs(300);

/// Keys of every kind, in files.
fn keys() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    for name in ["ec", "other"] {
        let key = rcgen::KeyPair::generate().unwrap();
        write(&format!("{name}.key"), &key.serialize_pem());
        write(&format!("{name}.pub"), &key.public_key_pem());
    }
    let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    write("ed.key", &ed.serialize_pem());
    write("ed.pub", &ed.public_key_pem());
    write("rsa.key", include_str!("keys/rsa.key"));
    write("rsa.pub", include_str!("keys/rsa.pub"));
    write("secret", "thirty-two bytes that nobody knows");
    dir
}

fn config(dir: &Path, flag: &str) -> Result<TokenConfig, AuthConfigError> {
    TokenConfig::from_flags(&flag.replace('@', &format!("{}/", dir.display())), SIMPLE_TTL)
}

async fn served_with(token: TokenConfig) -> (Served, Channel) {
    let mut served = Served::new();
    let mut config = served.config();
    config.auth.token = token;
    let channel = served.replica_with(config, None).await;
    let mut open = auth(&channel, &Token(None));
    let user = AuthUserAddRequest {
        name: "root".to_owned(),
        password: "pw".to_owned(),
        ..Default::default()
    };
    open.user_add(user).await.unwrap();
    let grant = AuthUserGrantRoleRequest { user: "root".to_owned(), role: "root".to_owned() };
    open.user_grant_role(grant).await.unwrap();
    open.auth_enable(AuthEnableRequest {}).await.unwrap();
    (served, channel)
}

async fn put(channel: &Channel, token: &Token) -> Result<(), Status> {
    let request = PutRequest { key: "k".into(), ..Default::default() };
    kv(channel, token).put(request).await.map(drop)
}

fn text(result: Result<(), Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn tokens_of_every_method_are_good_until_they_end_or_a_user_changes() {
    let dir = keys();
    let invalid = (Code::Unauthenticated, "etcdserver: invalid auth token".to_owned());
    for flag in [
        "jwt,pub-key=@rsa.pub,priv-key=@rsa.key,sign-method=RS256,ttl=10m",
        "jwt,pub-key=@rsa.pub,priv-key=@rsa.key,sign-method=PS512,ttl=10m",
        "jwt,pub-key=@ec.pub,priv-key=@ec.key,sign-method=ES256,ttl=10m",
        "jwt,pub-key=@ed.pub,priv-key=@ed.key,sign-method=EdDSA,ttl=600s",
        "jwt,priv-key=@secret,sign-method=HS256,ttl=10m",
    ] {
        let (served, channel) = served_with(config(dir.path(), flag).unwrap()).await;
        let root = log_in(&channel, "root", "pw").await.unwrap();
        assert_eq!(root.0.as_ref().unwrap().split('.').count(), 3, "{flag}");
        put(&channel, &root).await.unwrap();
        let cut = root.0.as_ref().unwrap().rsplit_once('.').unwrap().0.to_owned();
        assert_eq!(text(put(&channel, &Token(Some(cut + "."))).await), invalid, "{flag}");
        auth(&channel, &root).role_add(AuthRoleAddRequest { name: "r".to_owned() }).await.unwrap();
        let old = (Code::InvalidArgument, "etcdserver: revision of auth store is old".to_owned());
        assert_eq!(text(put(&channel, &root).await), old, "{flag}");
        let root = log_in(&channel, "root", "pw").await.unwrap();
        served.pass_seconds(599);
        put(&channel, &root).await.unwrap();
        served.pass_seconds(1);
        assert_eq!(text(put(&channel, &root).await), invalid, "{flag}");
    }
}

#[tokio::test]
async fn a_token_does_not_choose_how_it_is_judged() {
    let dir = keys();
    let flag = "jwt,pub-key=@rsa.pub,priv-key=@rsa.key,sign-method=RS256";
    let (_served, channel) = served_with(config(dir.path(), flag).unwrap()).await;
    let claims = serde_json::json!({ "username": "root", "revision": 99, "exp": 9_999_999_999u64 });
    let public = std::fs::read(dir.path().join("rsa.pub")).unwrap();
    // Signed with what everybody knows.
    let forged = jsonwebtoken::encode(
        &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256),
        &claims,
        &jsonwebtoken::EncodingKey::from_secret(&public),
    );
    // {"alg":"none"}, and the same claims.
    let middle = forged.as_ref().unwrap().split('.').nth(1).unwrap().to_owned();
    let none = format!("eyJhbGciOiJub25lIn0.{middle}.");
    for token in [forged.unwrap(), none] {
        let refused = put(&channel, &Token(Some(token))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_replica_that_only_verifies_gives_out_none() {
    let dir = keys();
    let flag = "jwt,pub-key=@ec.pub,sign-method=ES256";
    let (_served, channel) = served_with(config(dir.path(), flag).unwrap()).await;
    let refused = log_in(&channel, "root", "pw").await.unwrap_err();
    assert_eq!(refused.message(), "auth: token signing attempted with verify-only key");
}

#[test]
fn a_flag_that_cannot_work_is_refused_at_the_start() {
    let dir = keys();
    let good = "jwt,pub-key=@ec.pub,priv-key=@ec.key,sign-method=ES256,ttl=5m";
    assert!(config(dir.path(), good).is_ok());
    assert_eq!(config(dir.path(), "simple").unwrap(), TokenConfig::Simple { ttl: SIMPLE_TTL });
    for (flag, part) in [
        ("paper", "unknown kind"),
        ("simple,x", "option"),
        ("jwt", "sign-method"),
        ("jwt,sign-method=ES256", "needs pub-key"),
        ("jwt,pub-key=@ec.pub,sign-method=HS256", "needs priv-key"),
        ("jwt,sign-method=XX1,pub-key=@ec.pub", "unknown sign-method"),
        ("jwt,sign-method=ES256,pub-key=@missing", "read key"),
        ("jwt,sign-method=RS256,pub-key=@ec.pub", "does not fit"),
        ("jwt,sign-method=ES256,pub-key=@other.pub,priv-key=@ec.key", "do not belong together"),
        ("jwt,sign-method=ES256,pub-key=@ec.pub,pub-key=@ec.pub", "there twice"),
        ("jwt,sign-method=ES256,pub-key=@ec.pub,colour=red", "option"),
        ("jwt,sign-method=ES256,pub-key=@ec.pub,ttl=soon", "ttl"),
    ] {
        let error = config(dir.path(), flag).expect_err(flag).to_string();
        assert!(error.contains(part), "{flag}: {error}");
    }
}
