//! The API over TLS, by its own client: who is trusted, who is let in, and what a refusal leaves undone.

use crate::Api;
use client::{
    Client, ClientError, admin, certificates,
    endpoints::Endpoints,
    transport::{Access, Tls},
};
use http::Method;
use pki::{
    Authority, Moment, Profile,
    tls::{Clients, Pem, Shown},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// The year 2020, and long enough for any clock that runs this.
const THEN: Moment = Moment(1_577_836_800);
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const NODE: &str = "system:node:a";

fn authority() -> Authority {
    Authority::create("kubernetes", THEN, CENTURY).unwrap()
}

fn bytes(pem: &str) -> Pem {
    Pem::Bytes(pem.as_bytes().to_vec())
}

fn shown(pem: &str) -> Shown {
    Shown { chain: bytes(pem), key: bytes(pem) }
}

/// An administrator who trusts `trusted` and shows what `signer` has signed.
fn access(trusted: &Authority, signer: Option<&Authority>) -> Access {
    access_of(&Profile::client("root", &["system:masters"]), trusted, signer)
}

/// The same of anybody.
fn access_of(profile: &Profile, trusted: &Authority, signer: Option<&Authority>) -> Access {
    let pem = signer.map(|signer| signer.issue(profile, THEN, CENTURY).unwrap());
    let tls = pki::tls::client(bytes(trusted.pem()), pem.as_deref().map(shown)).unwrap();
    Access { tls: Some(Tls::new(tls)), token: None }
}

/// Serves with the authority's key.
async fn serve(authority: &Arc<Authority>, tasks: &mut JoinSet<()>) -> (Api, String) {
    let pki = apiserver::Pki {
        authority: Some(Arc::clone(authority)),
        certificates: vec![("nowhere".to_owned(), "/nowhere".into())],
        ..apiserver::Pki::default()
    };
    let api = Api::with(apiserver::AccessConfig::default(), pki).await;
    let profile = Profile::server("kube-apiserver", vec!["127.0.0.1".to_owned()]);
    let pem = authority.issue(&profile, THEN, CENTURY).unwrap();
    let clients = Clients::Offered { authorities: bytes(authority.pem()) };
    let tls = pki::tls::server(shown(&pem), clients).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tasks.spawn(api.server.clone().serve(listener, Some(tls), CancellationToken::new()));
    (api, url)
}

fn endpoints(url: &str, access: Access) -> Endpoints {
    Endpoints { deadline: Duration::from_secs(2), ..Endpoints::new(vec![url.to_owned()], access) }
}

async fn create(endpoints: Endpoints, name: &str) -> Result<Value, ClientError> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let body = Some(map.to_string().into_bytes());
    Client::connect(endpoints).unwrap().call(Method::POST, MAPS, body).await
}

#[tokio::test]
async fn who_trusts_the_authority_is_served_and_who_is_not_trusted_has_done_nothing() {
    let mut tasks = JoinSet::new();
    let (own, other) = (Arc::new(authority()), authority());
    let (api, url) = serve(&own, &mut tasks).await;
    let named = endpoints(&url, access(&own, Some(&own)));
    create(named.clone(), "named").await.unwrap();
    admin::status(&named).await.unwrap();
    match create(endpoints(&url, access(&own, None)), "anonymous").await {
        Err(ClientError::Api(status)) => assert_eq!(status.code, 403, "{status}"),
        found => panic!("{found:?}"),
    }
    for (name, access, want) in [
        // An alert, or a connection that is closed before anything was sent.
        ("foreign-client", access(&own, Some(&other)), ""),
        ("foreign-server", access(&other, Some(&own)), "BadSignature"),
    ] {
        let endpoints = endpoints(&url, access);
        match create(endpoints, name).await {
            Err(ClientError::Unreachable { attempts }) => {
                assert!(attempts[0].error.contains(want), "{name}: {attempts:?}");
            }
            // Where the socket was closed under the request, its client cannot know.
            Err(ClientError::Unknown { .. }) if name == "foreign-client" => {}
            found => panic!("{name}: {found:?}"),
        }
        let (code, _) = api.json(Method::GET, &format!("{MAPS}/{name}"), Value::Null).await;
        assert_eq!(code, 404, "{name}");
    }
}

#[tokio::test]
async fn a_replica_that_never_shakes_hands_is_passed_over() {
    let mut tasks = JoinSet::new();
    let own = Arc::new(authority());
    let (_api, url) = serve(&own, &mut tasks).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = format!("https://{}", silent.local_addr().unwrap());
    let endpoints = Endpoints {
        urls: vec![hangs, url],
        connect_timeout: Duration::from_millis(100),
        ..endpoints("", access(&own, Some(&own)))
    };
    let start = Instant::now();
    create(endpoints, "written").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_certificate_is_renewed_for_who_shows_it() {
    let mut tasks = JoinSet::new();
    let own = Arc::new(authority());
    let (_api, url) = serve(&own, &mut tasks).await;
    let node = Profile::client(NODE, &["system:nodes"]);
    let (named, anonymous) = (access_of(&node, &own, Some(&own)), access(&own, None));
    let issue = |name: &str| {
        let pem = own.issue(&Profile::client(name, &["system:nodes"]), THEN, CENTURY).unwrap();
        pki::certificate_pem(pem.as_bytes(), "it").unwrap()
    };
    let request = pki::request(&pki::new_key().unwrap(), "any").unwrap();
    let ask = async |access: &Access, name: &str| {
        certificates::renew(&endpoints(&url, access.clone()), &issue(name), &request).await
    };
    let new = ask(&named, NODE).await.unwrap();
    assert_eq!(own.of_own(new.as_bytes()).unwrap().profile.common_name, NODE);
    for (access, name, want) in [
        (&named, "system:node:b", "cannot renew the certificate of \"system:node:b\""),
        (&anonymous, NODE, "User \"system:anonymous\" cannot post path"),
    ] {
        match ask(access, name).await {
            Err(ClientError::Unreachable { attempts }) => {
                assert!(attempts[0].error.contains(want), "{attempts:?}");
            }
            found => panic!("{found:?}"),
        }
    }
    let listed =
        certificates::list(&endpoints(&url, access(&own, Some(&own))), &url).await.unwrap();
    assert!(listed[0].certificate.as_ref().unwrap_err().contains("/nowhere"), "{listed:?}");
}

/// What a client says first that knows nothing newer than `version`, such as 0x0302 for TLS 1.1.
fn hello(version: u16) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    // No session; ECDHE with AES in the suites of each time; no compression.
    body.extend([0, 0, 6, 0xc0, 0x13, 0xc0, 0x2f, 0xc0, 0x2b, 1, 0]);
    // Groups: x25519, secp256r1. Signatures: ECDSA, PSS and PKCS #1 with SHA-256.
    body.extend([0, 22, 0, 10, 0, 6, 0, 4, 0, 29, 0, 23, 0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1]);
    let length = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let mut handshake = vec![1, 0];
    handshake.extend(length(body.len()));
    handshake.extend(body);
    let mut record = vec![0x16, 3, 1];
    record.extend(length(handshake.len()));
    record.extend(handshake);
    record
}

#[tokio::test]
async fn tls_before_1_2_is_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let authority = Arc::new(authority());
    let mut tasks = JoinSet::new();
    let (_api, url) = serve(&authority, &mut tasks).await;
    let at = url.strip_prefix("https://").unwrap();
    let answer = async |version: u16| {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        stream.write_all(&hello(version)).await.unwrap();
        let mut answer = [0; 7];
        let read = stream.read_exact(&mut answer);
        tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap();
        answer
    };
    for (version, name) in [(0x0300, "SSL 3"), (0x0301, "TLS 1.0"), (0x0302, "TLS 1.1")] {
        // A fatal alert: protocol_version (RFC 5246, 7.2).
        assert_eq!(answer(version).await, [0x15, 3, 3, 0, 2, 2, 70], "{name}");
    }
    let [kind, ..] = answer(0x0303).await;
    assert_eq!(kind, 0x16, "the same in TLS 1.2 is answered with a handshake");
    let mut trusted = rustls::RootCertStore::empty();
    let pem = pki::certificate_pem(authority.pem().as_bytes(), "the authority").unwrap();
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
    trusted.add(der).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(trusted.clone())
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
}
