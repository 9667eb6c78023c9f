//! Who asks, and whether they may: in front of everything that a port serves, REST and gRPC alike.
//!
//! A request is authenticated (`authenticate`), perhaps acts as somebody else (`impersonate`), is read as
//! attributes (`request`), and is decided on by what this replica knows (`facts`) with the functions of the
//! crate `access`. What is behind finds the [`Identity`] among the request's extensions. What only a write
//! itself shows is decided where it is written, by an [`Admission`]. `audit` writes down what came of it.

mod authenticate;
mod facts;
mod impersonate;
mod reconcile;
mod request;
mod reviews;
mod tokens;

pub(crate) mod audit;

pub use audit::{AuditConfig, AuditLevel};
pub use tokens::{KeyError, ServiceAccountKey};

pub(crate) use reviews::{routes, token, token_request};

use crate::{
    flow::Flow,
    kube,
    registry::{Admission, Registry},
};
use access::{
    ANONYMOUS, AUTHENTICATED, Attributes, Decision, MASTERS, Rule, Target, UNAUTHENTICATED,
    defaults, node,
    node::Write,
    rbac::{GROUP, own_rules},
};
use api::{bootstrap, caller::Identity, kinds::Kind, meta, status::Status};
use audit::{Audit, Record};
use authenticate::{Certificates, Unauthenticated, take_token};
use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{self, header},
    response::Response,
};
use facts::Facts;
use futures::future::BoxFuture;
use listen::PeerCertificates;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};
use tokens::ISSUER;
use tower::{Service, ServiceExt as _};

/// Who may do what, as an API server is told.
#[derive(Debug, Clone, Default)]
pub struct AccessConfig {
    /// Who comes without TLS must show credentials, too. Otherwise everybody is of `system:masters` there and
    /// may do anything, but for whoever shows a token that is good, and so wants to be somebody else: for
    /// development, on loopback. Over TLS everybody must in any case.
    pub enforce_without_tls: bool,
    /// Signs and verifies service accounts' tokens, the same on every replica; without it there are none.
    pub service_account_key: Option<ServiceAccountKey>,
    /// Where requests are written down; nowhere without it.
    pub audit: Option<AuditConfig>,
}

/// Whoever shows nothing where that is enough.
pub(crate) const UNSECURED: &str = "system:unsecured";

/// Marks a request that came where whoever shows nothing may do anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsecured;

/// How a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// From this process, whose code says who it is and may do anything.
    InProcess,
    /// Over TCP, as it is.
    Plain,
    /// Over TLS.
    Tls,
}

/// What all requests of a replica are held against.
pub(crate) struct Guard {
    registry: Registry,
    enforce_without_tls: bool,
    key: Option<ServiceAccountKey>,
    certificates: Certificates,
    facts: Facts,
    /// What concerns no single node.
    node_rules: Vec<Rule>,
    audit: Option<Audit>,
    flow: Arc<Flow>,
}

/// The routes behind the guard.
#[derive(Clone)]
pub(crate) struct Guarded {
    guard: Arc<Guard>,
    routes: Router,
    door: Door,
}

impl Guarded {
    pub(crate) fn new(guard: Arc<Guard>, routes: Router, door: Door) -> Self {
        Self { guard, routes, door }
    }
}

impl<B> Service<http::Request<B>> for Guarded
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Self { guard, routes, door } = self.clone();
        let request = request.map(Body::new);
        Box::pin(async move { Ok(guard.serve(door, routes, request).await) })
    }
}

/// What is found out about a request on its way.
#[derive(Debug, Default)]
struct Verdict {
    /// Who has sent it.
    user: Identity,
    /// Whom it acts as.
    impersonated: Option<Identity>,
    allowed: bool,
    reason: String,
}

impl Verdict {
    fn acting(&self) -> &Identity {
        self.impersonated.as_ref().unwrap_or(&self.user)
    }
}

fn is_master(who: &Identity) -> bool {
    who.groups.iter().any(|group| group == MASTERS)
}

/// Whether the API is well is for everybody to know, before there are any roles, too.
fn is_health(asked: &Attributes) -> bool {
    let Target::Path(path) = &asked.target else { return false };
    matches!(asked.verb.as_str(), "get" | "head")
        && ["/healthz", "/livez", "/readyz"].iter().any(|health| {
            path.strip_prefix(health).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

/// Whether a write leaves a bootstrap token with which a replica may come.
fn brings_replicas(write: Write<'_>) -> bool {
    let (Write::Create(new) | Write::Update { new, .. }) = write else { return false };
    bootstrap::value(new, "auth-extra-groups").contains(bootstrap::REPLICAS)
}

impl Guard {
    pub(crate) fn new(registry: Registry, config: AccessConfig, flow: Arc<Flow>) -> Self {
        let AccessConfig { enforce_without_tls, service_account_key, audit } = config;
        Self {
            facts: Facts::new(registry.clone()),
            registry,
            enforce_without_tls,
            key: service_account_key,
            certificates: Certificates::default(),
            node_rules: defaults::rules_of("system:node"),
            audit: audit.and_then(Audit::start),
            flow,
        }
    }

    /// Lines of the audit log that were not written.
    pub(crate) fn audit_lost(&self) -> u64 {
        self.audit.as_ref().map_or(0, Audit::lost)
    }

    async fn serve(self: Arc<Self>, door: Door, routes: Router, mut request: Request) -> Response {
        let asked = request::attributes(request.method(), request.uri());
        let audit = self.audit.as_ref();
        let mut record =
            audit.and_then(|audit| Record::begin(audit, &self.registry, &asked, &request));
        let is_grpc = is_grpc(&request);
        let mut verdict = Verdict::default();
        let passed = self.pass(door, &asked, &mut request, &mut verdict).await;
        if let Some(record) = &mut record {
            record.decided(&verdict);
        }
        request.extensions_mut().insert(verdict.acting().clone());
        let ready = match (passed, &mut record) {
            (Ok(()), Some(record)) => record.follow(request, &self.flow).await,
            (Ok(()), None) => Ok(request),
            (Err(status), _) => Err(status),
        };
        let response = match ready {
            Ok(mut request) => {
                if let Some(admission) = self.admission(verdict.acting(), &asked) {
                    request.extensions_mut().insert(admission);
                }
                match routes.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(status) if is_grpc => {
                let code = if status.code == 401 {
                    tonic::Code::Unauthenticated
                } else if status.code == 403 {
                    tonic::Code::PermissionDenied
                } else {
                    tonic::Code::InvalidArgument
                };
                tonic::Status::new(code, status.message).into_http()
            }
            Err(status) => kube::failure(&status),
        };
        match record {
            Some(record) => record.answered(response).await,
            None => response,
        }
    }

    /// Finds out who asks and whether they may.
    async fn pass(
        &self,
        door: Door,
        asked: &Attributes,
        request: &mut Request,
        verdict: &mut Verdict,
    ) -> Result<(), Status> {
        if door == Door::InProcess {
            let own = request.extensions().get::<Identity>();
            verdict.user = own.cloned().unwrap_or_else(|| Identity::new(UNSECURED, &[MASTERS]));
            verdict.allowed = true;
            return Ok(());
        }
        let unsecured = door == Door::Plain && !self.enforce_without_tls;
        if unsecured {
            request.extensions_mut().insert(Unsecured);
        }
        let found = self.authenticate(request, unsecured).await;
        verdict.user = found.map_err(|Unauthenticated(why)| {
            tracing::debug!(why, "credentials refused");
            Status::unauthorized()
        })?;
        if let Some(wanted) = impersonate::take(request.headers_mut())? {
            for need in &wanted.needs {
                self.demand(need, verdict).await?;
            }
            verdict.impersonated = Some(wanted.who);
        }
        self.demand(asked, verdict).await?;
        match request::beside(asked, request.headers().contains_key(header::UPGRADE)) {
            Some(more) => self.demand(&more, verdict).await,
            None => Ok(()),
        }
    }

    async fn authenticate(
        &self,
        request: &mut Request,
        unsecured: bool,
    ) -> Result<Identity, Unauthenticated> {
        let token = take_token(request.headers_mut())?;
        let shown = request.extensions().get::<PeerCertificates>();
        let now = self.registry.now();
        let certified = shown.map(|shown| self.certificates.certified(shown, now)).transpose()?;
        let mut who = match (certified.flatten(), token) {
            (Some(who), _) => who,
            (None, Some(token)) => match self.by_token(&token, &[ISSUER.to_owned()]).await {
                Ok((who, _)) => who,
                Err(_) if unsecured => Identity::new(UNSECURED, &[MASTERS]),
                Err(error) => return Err(error),
            },
            (None, None) if unsecured => Identity::new(UNSECURED, &[MASTERS]),
            (None, None) => return Ok(Identity::new(ANONYMOUS, &[UNAUTHENTICATED])),
        };
        if !who.groups.iter().any(|group| group == AUTHENTICATED) {
            who.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(who)
    }

    async fn demand(&self, asked: &Attributes, verdict: &mut Verdict) -> Result<(), Status> {
        let decision = self.authorize(verdict.acting(), asked).await;
        verdict.allowed = decision.is_allowed();
        decision.reason().clone_into(&mut verdict.reason);
        if verdict.allowed {
            Ok(())
        } else {
            Err(asked.refusal(&verdict.acting().user, decision.reason()))
        }
    }

    /// Whether somebody may. Before it says no it catches up: what allows it may have been written through
    /// another replica a moment ago.
    pub(crate) async fn authorize(&self, who: &Identity, asked: &Attributes) -> Decision {
        let decision = self.decide(who, asked);
        let hopeless = decision.is_allowed() || who.user == ANONYMOUS;
        if hopeless || self.registry.linearize().await.is_err() {
            return decision;
        }
        self.decide(who, asked)
    }

    /// The same, by what this replica knows already.
    pub(crate) fn decide(&self, who: &Identity, asked: &Attributes) -> Decision {
        if is_master(who) || is_health(asked) {
            return Decision::Allowed(String::new());
        }
        let Some(node) = node::name(who) else {
            return self.facts.policies().decide(who, asked);
        };
        let own = self.node_may(node, asked);
        if own.is_allowed() {
            return own;
        }
        match self.facts.policies().decide(who, asked) {
            Decision::NoOpinion(reason) => {
                let reasons = [own.reason(), &reason].map(str::to_owned);
                let said: Vec<String> =
                    reasons.into_iter().filter(|reason| !reason.is_empty()).collect();
                Decision::NoOpinion(said.join("\n"))
            }
            allowed @ Decision::Allowed(_) => allowed,
        }
    }

    /// Whether a node may, by what it has.
    pub(crate) fn node_may(&self, node: &str, asked: &Attributes) -> Decision {
        self.facts.pods(|pods| node::authorize(node, asked, pods, &self.node_rules))
    }

    /// What of a request is to be decided where it is written.
    fn admission(self: &Arc<Self>, who: &Identity, asked: &Attributes) -> Option<Admission> {
        let Target::Resource(of) = &asked.target else { return None };
        let verb = asked.verb.as_str();
        let writes = matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection");
        let may_create = matches!(verb, "update" | "patch") && of.subresource.is_empty();
        let is_node = node::name(who).is_some();
        let secrets = of.group.is_empty() && of.resource == "secrets";
        if is_master(who) || !writes || !(is_node || may_create || secrets || of.group == GROUP) {
            return None;
        }
        let (guard, who, of) = (Arc::clone(self), who.clone(), of.clone());
        Some(Admission::new(move |kind, subresource, write| {
            if let Some(node) = node::name(&who) {
                let object = match write {
                    Write::Create(object) | Write::Delete(object) => object,
                    Write::Update { old, .. } => old,
                };
                node::admit(node, (kind.group, kind.plural, subresource), write)
                    .map_err(|why| Status::forbidden(kind, meta::name(object), &why))?;
            }
            if may_create && matches!(write, Write::Create(_)) {
                // Who may change what is there may not therefore make what is not (CC-6).
                let create = Attributes::resource("create", of.clone());
                let decision = guard.decide(&who, &create);
                if !decision.is_allowed() {
                    return Err(create.refusal(&who.user, decision.reason()));
                }
            }
            if kind.is("Secret") && brings_replicas(write) {
                // Such a token is worth the authority's key: nobody makes one who may not use it.
                let join = Attributes::path("post", access::defaults::JOIN_REPLICA);
                let decision = guard.decide(&who, &join);
                if !decision.is_allowed() {
                    return Err(join.refusal(&who.user, decision.reason()));
                }
            }
            if kind.group == GROUP { guard.may_grant(&who, kind, write) } else { Ok(()) }
        }))
    }

    /// Nobody gives by roles and bindings what they do not have, unless they may `escalate` or `bind`.
    fn may_grant(&self, who: &Identity, kind: &Kind, write: Write<'_>) -> Result<(), Status> {
        let new = match write {
            Write::Create(new) => new,
            Write::Update { old, new } if is_only_bookkeeping(old, new) => return Ok(()),
            Write::Update { new, .. } => new,
            Write::Delete(_) => return Ok(()),
        };
        let (namespace, name) = (meta::namespace(new), meta::name(new));
        let special = |verb: &str, resource: &str, name: &str| {
            let of = access::Resource {
                group: GROUP.to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..access::Resource::default()
            };
            self.decide(who, &Attributes::resource(verb, of)).is_allowed()
        };
        let (wanted, may_all) = if matches!(kind.plural, "roles" | "clusterroles") {
            let aggregates =
                |object: &Value| object.get("aggregationRule").is_some_and(|rule| !rule.is_null());
            let before = match write {
                Write::Update { old, .. } => aggregates(old),
                Write::Create(_) | Write::Delete(_) => false,
            };
            let mut wanted = own_rules(new);
            if before || aggregates(new) {
                // It can gather anything.
                wanted.extend(
                    [
                        json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
                        json!({"verbs": ["*"], "nonResourceURLs": ["*"]}),
                    ]
                    .iter()
                    .map(Rule::parse),
                );
            }
            (wanted, special("escalate", kind.plural, name))
        } else {
            let role = |key: &str| {
                new.pointer(&format!("/roleRef/{key}")).and_then(Value::as_str).unwrap_or_default()
            };
            let (resource, singular, of) = match role("kind") {
                "ClusterRole" => ("clusterroles", "clusterrole", ""),
                _ => ("roles", "role", namespace),
            };
            if special("bind", resource, role("name")) {
                return Ok(());
            }
            let rules = self.facts.objects(|objects| objects.rules(of, role("name")));
            let Some(rules) = rules else {
                let message = format!("{singular}.{GROUP} {:?} not found", role("name"));
                return Err(Status::new(404, "NotFound", message));
            };
            (rules.to_vec(), false)
        };
        if may_all {
            return Ok(());
        }
        let (own, errors) = self.facts.policies().rules(who, namespace);
        match access::uncovered(&own, &wanted) {
            Ok(missing) if missing.is_empty() => Ok(()),
            Ok(missing) => {
                let why = access::grant_refusal(who, &missing, &errors);
                Err(Status::forbidden(kind, name, &why))
            }
            Err(permissions) => {
                let why = format!("{permissions} permissions are more than can be compared");
                Err(Status::forbidden(kind, name, &why))
            }
        }
    }

    /// What a user may in a namespace; whether anything could not be found out.
    pub(crate) fn rules(&self, who: &Identity, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (rules, mut errors) = self.facts.policies().rules(who, namespace);
        if node::name(who).is_some() {
            errors.push("node authorizer does not support user rule resolution".to_owned());
        }
        (rules, errors)
    }
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether an update changes no more than what the garbage collector and the server keep.
fn is_only_bookkeeping(old: &Value, new: &Value) -> bool {
    let [old, new] = [old, new].map(|object| {
        let mut object = meta::without_version(object);
        let metadata = meta::metadata_mut(&mut object);
        for field in ["finalizers", "generation", "managedFields", "ownerReferences"] {
            metadata.remove(field);
        }
        object
    });
    old == new
}
