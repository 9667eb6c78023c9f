//! An authority, what it signs, and a client that shows it over TLS.

use crate::{Api, json_body};
use axum::body::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};
use store::Store as _;
use tokio::{net::TcpListener, net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Who signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// What a client shows.
pub(crate) struct Credential {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) pem: (String, String),
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn pem(&self) -> String {
        let body = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            self.certificate.as_ref(),
        );
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    fn sign(&self, params: &CertificateParams) -> Credential {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pem = (certificate.pem(), key.serialize_pem());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Credential { certificate: certificate.der().clone(), key, pem }
    }

    /// For a user and their groups, valid in these years.
    pub(crate) fn client_in(&self, years: (i32, i32), user: &str, groups: &[&str]) -> Credential {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        // Of several, rcgen keeps one.
        if let [group] = groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        self.sign(&params)
    }

    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> Credential {
        self.client_in((2000, 4000), user, groups)
    }

    fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .unwrap();
        let own = self.sign(&CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![own.certificate], own.key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// An API server behind TLS.
pub(crate) struct Secured {
    pub(crate) api: Api,
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    /// End with it.
    tasks: JoinSet<()>,
    stop: tokio_util::sync::DropGuard,
}

impl Secured {
    pub(crate) async fn new(access: apiserver::AccessConfig) -> Self {
        let api = Api::with(access, apiserver::Pki::default()).await;
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let server = api.server.clone();
        tasks.spawn(server.serve(listener, Some(authority.server()), stop.clone()));
        let leader = api.server.clone();
        tasks.spawn(async move { leader.keep_access(store::Epoch(1)).await });
        let secured = Self { api, authority, address, tasks, stop: stop.drop_guard() };
        secured.until_roles().await;
        secured
    }

    /// Ends all of it, so that what it writes is written.
    pub(crate) async fn end(self) {
        let Self { api, mut tasks, stop, .. } = self;
        drop(stop);
        tasks.shutdown().await;
        drop(api);
    }

    /// The leader's roles are there, and gathered.
    async fn until_roles(&self) {
        loop {
            let mut watcher = self
                .api
                .store
                .watch(store::watch::WatchRequest {
                    range: store::KeyRange::prefix("/registry/rbac.authorization.k8s.io/"),
                    start: store::Revision::ZERO,
                })
                .unwrap();
            let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin";
            let (_, admin) = self.api.json(Method::GET, path, Value::Null).await;
            let bound = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/\
                         system:kube-controller-manager";
            let (code, _) = self.api.json(Method::GET, bound, Value::Null).await;
            if code == 200 && admin["rules"].as_array().is_some_and(|rules| !rules.is_empty()) {
                return;
            }
            watcher.next().await;
        }
    }

    /// A client that shows this, or nothing; `None` if it is not let in.
    pub(crate) async fn client(&self, shown: Option<&Credential>) -> Option<Client> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            Some(shown) => builder
                .with_client_auth_cert(vec![shown.certificate.clone()], shown.key.clone_key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .ok()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        let mut client = Client { sender, headers: Vec::new(), _tasks: tasks };
        // In TLS 1.3 a client hears only now that it is refused.
        client.ask(Method::GET, "/livez", &Value::Null).await.map(|_| client)
    }
}

/// One connection.
pub(crate) struct Client {
    sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    /// Of every request.
    pub(crate) headers: Vec<(String, String)>,
    _tasks: JoinSet<()>,
}

impl Client {
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Code and body.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Option<(StatusCode, Value)> {
        let kind = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"))
            .header("content-type", kind);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let answer = self.sender.send_request(request).await.ok()?;
        let code = answer.status();
        // A watch has no end; that it was begun is all that is asked here.
        let streams = path.contains("watch=true") && code.is_success();
        let bytes = if streams {
            Bytes::new()
        } else {
            answer.into_body().collect().await.ok()?.to_bytes()
        };
        Some((code, json_body(&bytes)))
    }

    pub(crate) async fn json(&mut self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let (code, body) = self.ask(method, path, &body).await.unwrap();
        (code.as_u16(), body)
    }

    pub(crate) async fn get(&mut self, path: &str) -> (u16, Value) {
        self.json(Method::GET, path, Value::Null).await
    }

    /// The code and the message that gRPC answers an empty request with.
    pub(crate) async fn rpc(&mut self, path: &str) -> (String, String) {
        let request = Request::post(format!("https://127.0.0.1{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(&[0; 5])))
            .unwrap();
        let answer = self.sender.send_request(request).await.unwrap();
        let mut headers = answer.headers().clone();
        if let Some(trailers) = answer.into_body().collect().await.unwrap().trailers() {
            headers.extend(trailers.clone());
        }
        let text = |name: &str| {
            headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        (text("grpc-status"), text("grpc-message"))
    }
}
