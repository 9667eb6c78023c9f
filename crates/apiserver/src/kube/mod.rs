//! The Kubernetes REST API: paths to verbs, for any kind that has a row.

mod answer;
mod discovered;
mod documents;
mod gzip;
mod list;
mod past;
mod proxy;
mod texts;
mod watch;

pub(crate) use answer::{Format, body_json, failure, json, written};
pub(crate) use gzip::Length;
pub(crate) use proxy::over_tls;
pub(crate) use texts::Texts;

use crate::{
    flow::{Asker, Flow, Verb},
    guard::{self, Guard},
    node::Calls,
    patch,
    registry::{
        Admission, Apply, Caller, DeleteOutcome, ListQuery, Manager, Registry, Witness, Written,
        not_decodable,
    },
};
use answer::{Sent, object_answer, stored_answer};
use api::{
    caller::ControllerOrigin,
    deletion::DeleteOptions,
    discovery,
    field::FieldError,
    kinds::{self, Kind, KindRef},
    meta,
    selector::{FieldSelector, LabelSelector},
    status::Status,
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    middleware::Next,
    response::Response,
    routing::{any, get},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio_rustls::TlsConnector;

/// Bytes of a field manager's name at most.
const MANAGER_BYTES_MAX: usize = 128;
/// Characters of one warning, and bytes of all of them: clients bound the heads of answers.
const WARNING_CHARS_MAX: usize = 256;
const WARNING_BYTES_MAX: usize = 4096;
/// Bytes of a request's body at most.
pub(crate) const BODY_BYTES_MAX: usize = 3 << 20;

/// What the routes share.
pub(crate) struct Kube {
    pub(crate) registry: Registry,
    pub(crate) flow: Arc<Flow>,
    pub(crate) guard: Arc<Guard>,
    /// How nodes are asked; without it, in plaintext.
    pub(crate) kubelets: Option<TlsConnector>,
    /// Where they can be called.
    pub(crate) calls: Arc<Calls>,
    /// Long lists that several clients have asked for.
    pub(crate) texts: Texts,
}

pub(crate) fn router(kube: Arc<Kube>) -> Router {
    let reviews = guard::routes(Arc::clone(&kube.guard));
    Router::new()
        .route("/version", get(version))
        .route("/version/", get(version))
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/api", get(discovered::core))
        .route("/api/", get(discovered::core))
        .route("/apis", get(discovered::groups))
        .route("/apis/", get(discovered::groups))
        .route(
            "/metrics",
            get(async |State(kube): State<Arc<Kube>>| kube.flow.render() + &kube.texts.render()),
        )
        .route("/openapi/v2", get(documents::second))
        .route("/openapi/v3", get(documents::index))
        .route(
            "/openapi/v3/{*path}",
            get(documents::document).layer(axum::middleware::from_fn(gzip::layer)),
        )
        .route("/api/{*path}", any(resource))
        .route("/apis/{*path}", any(resource))
        .fallback(async || answer::failure(&Status::no_such_path()))
        .with_state(Arc::clone(&kube))
        .merge(reviews.layer(axum::middleware::from_fn_with_state(kube, small)))
}

/// Bounds what is a small request of its own, as those of objects are.
async fn small(State(kube): State<Arc<Kube>>, request: Request, next: Next) -> Response {
    let asker = Asker::of(&request);
    let entered = async {
        let (request, room) = kube.flow.body(&asker, request, BODY_BYTES_MAX).await?;
        Ok((request, room, kube.flow.small(&asker).await?))
    };
    match entered.await {
        Ok((request, _room, _seat)) => next.run(request).await,
        Err(status) => answer::failure(&status),
    }
}

async fn version() -> Response {
    answer::json(
        StatusCode::OK,
        &json!({
            "major": "1", "minor": "36", "gitVersion": concat!("v1.36.0+trireme-", env!("CARGO_PKG_VERSION")),
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
        }),
    )
}

/// Ready is who can serve a linearizable read.
async fn ready(State(kube): State<Arc<Kube>>) -> Response {
    match kube.registry.store().barrier(std::time::Duration::from_secs(1)).await {
        Ok(_) => Response::new(Body::from("ok")),
        Err(error) => answer::failure(&Status::unavailable(error.to_string())),
    }
}

/// Where a path leads.
#[derive(Debug)]
struct Target {
    kind: KindRef,
    namespace: String,
    name: String,
    subresource: String,
}

/// What a path means.
enum Path {
    /// The discovery document of a group.
    Discovery(Value),
    /// Something that a node serves itself.
    Node {
        name: String,
        path: String,
    },
    Target(Target),
}

/// As of what this replica has applied. `unserved` also finds versions that clients do not.
fn parse(registry: &Registry, path: &str, unserved: bool) -> Result<Path, Status> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        ["apis", group] => {
            let custom = registry.custom_kinds();
            let document = discovery::api_group_with(group, &custom);
            let document = document.ok_or_else(Status::no_such_path)?;
            return Ok(Path::Discovery(document));
        }
        _ => return Err(Status::no_such_path()),
    };
    let target = |plural: &str, namespace: &str, name: &str, subresource: &str| {
        let kind = registry.find_kind((group, version, plural), unserved);
        let kind = kind.ok_or_else(Status::no_such_path)?;
        if !namespace.is_empty() && !kind.namespaced {
            return Err(Status::no_such_path());
        }
        Ok(Path::Target(Target {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        }))
    };
    match rest {
        [] => discovery::resources_with(group, version, &registry.custom_kinds())
            .map(Path::Discovery)
            .ok_or_else(Status::no_such_path),
        ["namespaces", namespace, sub @ ("status" | "finalize")] => {
            target("namespaces", "", namespace, sub)
        }
        ["namespaces", namespace, plural] => target(plural, namespace, "", ""),
        ["namespaces", namespace, plural, name] => target(plural, namespace, name, ""),
        ["namespaces", namespace, plural, name, sub] => target(plural, namespace, name, sub),
        ["nodes", name, "proxy", path @ ..] if group.is_empty() => {
            Ok(Path::Node { name: (*name).to_owned(), path: format!("/{}", path.join("/")) })
        }
        [plural] => target(plural, "", "", ""),
        [plural, name] => target(plural, "", name, ""),
        [plural, name, sub] => target(plural, "", name, sub),
        _ => Err(Status::no_such_path()),
    }
}

/// Where a path leads. What this replica does not know may be a definition that it has not applied yet: it
/// says so only after it has caught up.
async fn find(registry: &Registry, path: &str, unserved: bool) -> Result<Path, Status> {
    match parse(registry, path, unserved) {
        Err(status) if status.is_not_found() && path.starts_with("/apis/") => {
            registry.linearize().await?;
            parse(registry, path, unserved)
        }
        found => found,
    }
}

pub(crate) type Query = BTreeMap<String, String>;

pub(crate) fn query(request: &Request) -> Result<Query, Status> {
    axum::extract::Query::<Vec<(String, String)>>::try_from_uri(request.uri())
        .map(|query| query.0.into_iter().collect())
        .map_err(|e| Status::bad_request(e.to_string()))
}

/// Whether a parameter means yes. As upstream reads them, only one that is absent, `false` or 0 means no.
pub(crate) fn flag(query: &Query, name: &str) -> bool {
    query.get(name).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
}

async fn resource(State(kube): State<Arc<Kube>>, request: Request) -> Response {
    let zipped = gzip::is_asked(request.headers());
    match handle(&kube, request).await {
        Ok(response) => gzip::compress(zipped, response),
        Err(status) => answer::failure(&status),
    }
}

/// Whoever uses a version that is deprecated is told, whatever comes of it.
async fn handle(kube: &Kube, request: Request) -> Result<Response, Status> {
    let path = request.uri().path().to_owned();
    // Controllers empty what is served to nobody any more.
    let unserved = request.extensions().get::<ControllerOrigin>().is_some();
    let target = match find(&kube.registry, &path, unserved).await? {
        Path::Discovery(document) => return Ok(answer::json(StatusCode::OK, &document)),
        Path::Node { name, path } => return proxy::to_node(kube, &name, &path, request).await,
        Path::Target(target) => target,
    };
    let kind = target.kind.clone();
    let answered = at_target(kube, target, request).await;
    let Some(warning) = kind.custom.as_ref().and_then(|custom| custom.deprecation()) else {
        return answered;
    };
    let mut response = answered.unwrap_or_else(|status| answer::failure(&status));
    if let Ok(value) = warning_text(warning).parse() {
        response.headers_mut().append(header::WARNING, value);
    }
    Ok(response)
}

async fn at_target(kube: &Kube, target: Target, request: Request) -> Result<Response, Status> {
    let begun = tokio::time::Instant::now();
    if !target.subresource.is_empty()
        && !target.kind.subresources.contains(&target.subresource.as_str())
    {
        return Err(Status::no_such_path());
    }
    let query = query(&request)?;
    let connects = matches!(target.subresource.as_str(), "log" | "exec" | "attach" | "portforward");
    let verb = Verb::of(request.method(), &target.name, flag(&query, "watch"), connects);
    let answer = act(kube, &target, &query, verb, request).await;
    let code = answer.as_ref().map_or_else(|status| status.code, |answer| answer.status().as_u16());
    kube.flow.answered(verb, code, begun.elapsed());
    answer
}

async fn act(
    kube: &Kube,
    target: &Target,
    query: &Query,
    verb: Verb,
    request: Request,
) -> Result<Response, Status> {
    let asker = Asker::of(&request);
    let caller = caller(&request, query)?;
    let format = Format::of(&request, query)?;
    let past = request.method() == Method::GET && past::is_asked(query);
    if verb == Verb::Connect && !past {
        return connect(kube, target, query, &asker, request).await;
    }
    let (request, _room) = kube.flow.body(&asker, request, BODY_BYTES_MAX).await?;
    // Long answers have seats of their own, until they have been sent.
    let long = matches!(verb, Verb::List | Verb::Watch);
    let _hurry = (!long).then(|| kube.flow.in_a_hurry());
    let _seat = if long { None } else { kube.flow.small(&asker).await? };
    let method = request.method().clone();
    if past {
        return past::answer(kube, target, query, format, &asker).await;
    }
    match (method, target.name.is_empty(), target.subresource.as_str()) {
        (Method::GET, true, "") if verb == Verb::Watch => {
            let selection = selection(target, query)?;
            watch::answer(kube, target, selection, query, format, &asker).await
        }
        (Method::GET, true, "") => list::answer(kube, target, query, format, &asker).await,
        (Method::GET, false, "" | "status" | kinds::EPHEMERAL_CONTAINERS) => {
            let version = query.get("resourceVersion").map_or("", String::as_str);
            let registry = &kube.registry;
            let Target { kind, namespace, name, .. } = target;
            let object = registry.get_stored(kind.stored(), namespace, name, version).await?;
            stored_answer(kind, &object, format, registry.now())
        }
        (Method::POST, true, "") => create(kube, target, request, query, &caller, format).await,
        (Method::POST, false, "binding") => {
            let binding = body_json(request).await?;
            kube.registry.bind(&target.namespace, &target.name, &binding, &caller).await?;
            Ok(created())
        }
        (Method::POST, false, "token") => {
            guard::token_request(&kube.guard, (&target.namespace, &target.name), request).await
        }
        (Method::POST, false, "eviction") => {
            let eviction = body_json(request).await?;
            kube.registry.evict(&target.namespace, &target.name, &eviction, &caller).await?;
            Ok(created())
        }
        (Method::PUT, false, "" | "status" | "finalize" | kinds::EPHEMERAL_CONTAINERS) => {
            let sent = answer::sent(request).await?;
            let warnings = check_fields(&target.kind, &sent, query)?;
            let Target { kind, namespace, name, subresource } = target;
            let object = accepted(kind, sent.value)?;
            let (registry, stored) = (&kube.registry, kind.stored());
            let written =
                registry.update(stored, namespace, name, object, subresource, &caller).await?;
            Ok(written_answer(kind, &written, format, registry.now(), &warnings))
        }
        (Method::PATCH, false, "" | "status" | "scale" | kinds::EPHEMERAL_CONTAINERS) => {
            patch_object(kube, target, request, query, &caller, format).await
        }
        (Method::GET, false, "scale") => {
            let version = query.get("resourceVersion").map_or("", String::as_str);
            let Target { kind, namespace, name, .. } = target;
            let object = kube.registry.get(kind, namespace, name, version).await?;
            scale_answer(kind, &object, format)
        }
        (Method::PUT, false, "scale") => {
            let scale = body_json(request).await?;
            let Target { kind, namespace, name, .. } = target;
            let change = |_| Ok(scale.clone());
            let written = kube.registry.scale(kind, namespace, name, &caller, change).await?;
            scale_answer(kind, &written.object, format)
        }
        (Method::DELETE, false, "") => delete(kube, target, request, query, &caller).await,
        (Method::DELETE, true, "") => delete_all(kube, target, request, query, &caller).await,
        (method, _, _) => {
            Err(Status::method_not_allowed(&target.kind, &method.as_str().to_lowercase()))
        }
    }
}

/// A log, or a connection into a Pod.
async fn connect(
    kube: &Kube,
    target: &Target,
    query: &Query,
    asker: &Asker,
    mut request: Request,
) -> Result<Response, Status> {
    let is_log = target.subresource == "log";
    let method = request.method();
    if target.name.is_empty() || (method != Method::GET && (is_log || method != Method::POST)) {
        let action = method.as_str().to_lowercase();
        return Err(Status::method_not_allowed(&target.kind, &action));
    }
    let follows = query.get("follow").is_some_and(|follow| follow == "true");
    let seat = match is_log && !follows {
        true => kube.flow.small(asker).await?,
        false => kube.flow.long_running(asker).await?,
    };
    if let Some(seat) = seat {
        request.extensions_mut().insert(Arc::new(seat));
    }
    proxy::to_kubelet(kube, target, query, request).await
}

/// What a write answers that leaves no object of its own.
fn created() -> Response {
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    answer::json(StatusCode::CREATED, &success)
}

/// Who writes: a controller, or a manager of fields by its name.
fn caller(request: &Request, query: &Query) -> Result<Caller, Status> {
    let origin = request.extensions().get::<ControllerOrigin>().cloned();
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let agent = agent.and_then(|agent| agent.split('/').next()).filter(|name| !name.is_empty());
    let named = query.get("fieldManager").filter(|name| !name.is_empty());
    let name = named.map_or_else(|| agent.unwrap_or("unknown"), String::as_str);
    let path = api::field::Path::new("fieldManager");
    let error = if named.is_some() && name.len() > MANAGER_BYTES_MAX {
        Some(FieldError::too_long(&path, MANAGER_BYTES_MAX))
    } else if named.is_some() && name.chars().any(char::is_control) {
        Some(FieldError::invalid(&path, name, "should only contain printable characters"))
    } else {
        None
    };
    if let Some(error) = error {
        return Err(Status::invalid_options(options(request.method()), &[error]));
    }
    let name = name.chars().take(MANAGER_BYTES_MAX).collect();
    let manager = if origin.is_some() { Manager::Nobody } else { Manager::Updates(name) };
    let dry_run = dry_run(query, options(request.method()))?;
    let admission = request.extensions().get::<Admission>().cloned();
    let witness = request.extensions().get::<Arc<dyn Witness>>().cloned();
    Ok(Caller { origin, dry_run, manager, admission, witness, fence: None })
}

/// Whether everything is to be done but the write; anything but the one word for it is a mistake.
fn dry_run(query: &Query, options: &str) -> Result<bool, Status> {
    match query.get("dryRun").map(String::as_str) {
        None => Ok(false),
        Some("All") => Ok(true),
        Some(other) => {
            let path = api::field::Path::new("dryRun");
            let error = FieldError::not_supported(&path, other, &["All"]);
            Err(Status::invalid_options(options, &[error]))
        }
    }
}

/// What upstream calls the parameters of a write.
fn options(method: &Method) -> &'static str {
    match *method {
        Method::POST => "CreateOptions",
        Method::PATCH => "PatchOptions",
        _ => "UpdateOptions",
    }
}

fn scale_answer(kind: &Kind, object: &Value, format: Format) -> Result<Response, Status> {
    let scale = api::scale::get(kind, object).ok_or_else(Status::no_such_path)?;
    Ok(answer::written(StatusCode::OK, &scale, format))
}

fn selection(target: &Target, query: &Query) -> Result<ListQuery, Status> {
    let text = |name: &str| query.get(name).cloned().unwrap_or_default();
    let limit = text("limit");
    let mut fields = text("fieldSelector");
    if !target.name.is_empty() {
        fields = format!("metadata.name={}", target.name);
    }
    Ok(ListQuery {
        labels: LabelSelector::parse(&text("labelSelector"))?,
        fields: FieldSelector::parse(&target.kind, &fields)?,
        resource_version: text("resourceVersion"),
        resource_version_match: text("resourceVersionMatch"),
        limit: if limit.is_empty() {
            0
        } else {
            limit
                .parse()
                .map_err(|_| Status::bad_request(format!("limit: {limit:?} is not a number")))?
        },
        continue_token: text("continue"),
    })
}

/// Stored objects as a version has them.
fn shown(kind: &Kind, mut objects: Vec<Value>) -> Vec<Value> {
    if kind.hub.is_some() {
        objects.iter_mut().for_each(|object| *object = kind.show(object).into_owned());
    }
    objects
}

/// What an object of any version is stored as.
fn accepted(kind: &Kind, object: Value) -> Result<Value, Status> {
    let version = object.get("apiVersion").and_then(Value::as_str);
    if let Some(version) = version.filter(|v| kind.hub.is_some() && *v != kind.api_version()) {
        let (found, want) = (version, kind.api_version());
        let text = format!("apiVersion is {found:?}, but the URL is for {want:?}");
        return Err(Status::bad_request(text));
    }
    kind.to_stored(object).map_err(|error| not_decodable(kind, &error))
}

/// Refuses or reports fields that are there twice or that the kind does not have (HTTP-2).
fn check_fields(kind: &Kind, sent: &Sent, query: &Query) -> Result<Vec<String>, Status> {
    check_fields_since(kind, &sent.value, &Value::Null, &sent.duplicates, query)
}

/// The same for what is new in an object: what was stored before is nobody's mistake now.
fn check_fields_since(
    kind: &Kind,
    object: &Value,
    old: &Value,
    duplicates: &[String],
    query: &Query,
) -> Result<Vec<String>, Status> {
    // Not a matter of the client's wish (§1.1).
    let unenforced = kind.warnings(object);
    let mode = query.get("fieldValidation").map_or("Warn", String::as_str);
    if !matches!(mode, "" | "Strict" | "Warn" | "Ignore") {
        let path = api::field::Path::new("fieldValidation");
        let error = FieldError::not_supported(&path, mode, &["", "Ignore", "Strict", "Warn"]);
        return Err(Status::invalid_options("UpdateOptions", &[error]));
    }
    if mode == "Ignore" {
        return Ok(unenforced);
    }
    let before: BTreeSet<String> = schema::fields::unknown_fields(kind, old).into_iter().collect();
    let mut unknown: Vec<String> =
        duplicates.iter().map(|path| format!("duplicate field \"{path}\"")).collect();
    unknown.extend(
        schema::fields::unknown_fields(kind, object)
            .into_iter()
            .filter(|path| !before.contains(path))
            .map(|path| format!("unknown field \"{path}\"")),
    );
    if mode == "Strict" && !unknown.is_empty() {
        let list = unknown.join(", ");
        return Err(Status::bad_request(format!("strict decoding error: {list}")));
    }
    unknown.extend(unenforced);
    Ok(unknown)
}

fn written_answer(
    kind: &Kind,
    written: &Written,
    format: Format,
    now: i64,
    warnings: &[String],
) -> Response {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = object_answer(code, kind, &written.object, format, now);
    let mut bytes = 0;
    for warning in warnings {
        let text = warning_text(warning);
        bytes += text.len();
        if bytes > WARNING_BYTES_MAX {
            break;
        }
        if let Ok(value) = text.parse() {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// A warning as a header has it.
fn warning_text(warning: &str) -> String {
    let mut text = "299 - \"".to_owned();
    for c in warning.chars().take(WARNING_CHARS_MAX) {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' => text.push(c),
            _ => text.push('?'),
        }
    }
    text.push('"');
    text
}

async fn create(
    kube: &Kube,
    target: &Target,
    request: Request,
    query: &Query,
    caller: &Caller,
    format: Format,
) -> Result<Response, Status> {
    let sent = answer::sent(request).await?;
    if target.kind.namespaced && target.namespace.is_empty() {
        return Err(Status::method_not_allowed(&target.kind, "create"));
    }
    let kind: &Kind = &target.kind;
    let warnings = check_fields(kind, &sent, query)?;
    let registry = &kube.registry;
    let object = accepted(kind, sent.value)?;
    let written = registry.create(kind.stored(), &target.namespace, object, caller).await?;
    Ok(written_answer(kind, &written, format, registry.now(), &warnings))
}

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// What is made of an object by a patch that is not applied on the server.
fn patched(kind: &Kind, content_type: &str, base: Value, patch: &Value) -> Result<Value, Status> {
    match content_type {
        JSON_PATCH => patch::apply(&base, patch),
        MERGE_PATCH => {
            let mut base = base;
            patch::merge(&mut base, patch);
            Ok(base)
        }
        _ => schema::strategic::strategic_merge(kind, &base, patch).map_err(|e| e.status()),
    }
}

async fn patch_object(
    kube: &Kube,
    target: &Target,
    request: Request,
    query: &Query,
    caller: &Caller,
    format: Format,
) -> Result<Response, Status> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let is_scale = target.subresource == "scale";
    let mut types = vec![JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH];
    // A scale is no object that could be applied, and only built-in kinds say how their lists merge (PAT-1).
    types.retain(|kind| !(is_scale && *kind == APPLY_PATCH));
    types.retain(|kind| is_scale || target.kind.custom.is_none() || *kind != STRATEGIC_PATCH);
    if !types.contains(&content_type.as_str()) {
        return Err(Status::unsupported_media_type(&types.join(", ")));
    }
    let forced = query.contains_key("force").then(|| flag(query, "force"));
    let Target { kind, namespace, name, subresource } = target;
    let (kind, registry): (&Kind, _) = (kind, &kube.registry);
    let sent = answer::patch_body(request).await?;
    if content_type == APPLY_PATCH {
        let Some(manager) = query.get("fieldManager").filter(|name| !name.is_empty()) else {
            let path = api::field::Path::new("fieldManager");
            let error = FieldError::required(&path, "is required for apply patch");
            return Err(Status::invalid_options("PatchOptions", &[error]));
        };
        let apply = Apply { manager: manager.clone(), force: forced.unwrap_or_default() };
        let warnings = check_fields(kind, &sent, query)?;
        let at = (namespace.as_str(), name.as_str());
        let body = accepted(kind, sent.value)?;
        let written = registry.apply(kind.stored(), at, body, subresource, &apply, caller).await?;
        return Ok(written_answer(kind, &written, format, registry.now(), &warnings));
    }
    if forced.is_some() {
        let path = api::field::Path::new("force");
        let error = FieldError::forbidden(&path, "may not be specified for non-apply patch");
        return Err(Status::invalid_options("PatchOptions", &[error]));
    }
    let Sent { value: body, duplicates } = sent;
    if subresource == "scale" {
        let change = |scale| patched(kind, &content_type, scale, &body);
        let written = registry.scale(kind, namespace, name, caller, change).await?;
        return scale_answer(kind, &written.object, format);
    }
    let warnings = Mutex::new(Vec::new());
    let change = |old: &Value| {
        let old = kind.show(old);
        // A JSON patch may ask which version there is.
        let json_patch = content_type == JSON_PATCH;
        let base = if json_patch { old.clone().into_owned() } else { meta::without_version(&old) };
        let mut new = patched(kind, &content_type, base, &body)?;
        same_object(kind, &new, &old)?;
        // Without a version in the patch it is for whatever version there is (CC-5).
        if json_patch && !sets_version(&body) {
            meta::metadata_mut(&mut new).remove("resourceVersion");
        }
        let told = check_fields_since(kind, &new, &old, &duplicates, query)?;
        *warnings.lock().unwrap_or_else(PoisonError::into_inner) = told;
        accepted(kind, new)
    };
    let written =
        registry.change(kind.stored(), namespace, name, subresource, caller, change).await?;
    let warnings = warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(written_answer(kind, &written, format, registry.now(), &warnings))
}

/// Whether a JSON patch writes the version, and does not only ask for it.
fn sets_version(operations: &Value) -> bool {
    let text = |operation: &Value, key: &str| {
        operation.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    operations.as_array().into_iter().flatten().any(|operation| {
        text(operation, "path") == "/metadata/resourceVersion" && text(operation, "op") != "test"
    })
}

/// A patch changes an object and makes no other one of it (MET-3).
fn same_object(kind: &Kind, new: &Value, old: &Value) -> Result<(), Status> {
    if !new.is_object() {
        return Err(Status::bad_request("the patch leaves no object"));
    }
    for pointer in ["/kind", "/apiVersion", "/metadata/name", "/metadata/namespace"] {
        let (was, is) = (old.pointer(pointer), new.pointer(pointer));
        if is.is_some_and(|is| !is.is_null()) && was != is {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            let (was, is) = (was.unwrap_or(&Value::Null), is.unwrap_or(&Value::Null));
            let text = format!("{field} of a {} is {was} and cannot become {is}", kind.kind);
            return Err(Status::bad_request(text));
        }
    }
    Ok(())
}

async fn delete_options(request: Request, query: &Query) -> Result<DeleteOptions, Status> {
    let body = body_json(request).await?;
    let asked = DeleteOptions::from_query(query.iter().map(|(k, v)| (k.as_str(), v.as_str())))?;
    if body.is_null() {
        return Ok(asked);
    }
    // What the body says comes first.
    let mut options = DeleteOptions::from_json(&body)?;
    options.grace_period_seconds = options.grace_period_seconds.or(asked.grace_period_seconds);
    options.propagation = options.propagation.or(asked.propagation);
    options.dry_run |= asked.dry_run;
    Ok(options)
}

async fn delete(
    kube: &Kube,
    target: &Target,
    request: Request,
    query: &Query,
    caller: &Caller,
) -> Result<Response, Status> {
    let options = delete_options(request, query).await?;
    let Target { kind, namespace, name, .. } = target;
    let outcome = kube.registry.delete(kind.stored(), namespace, name, &options, caller).await?;
    let body = match outcome {
        DeleteOutcome::Removed(object) if !kind.tells_deleted() => {
            Status::success(kind, name, meta::uid(&object))
        }
        DeleteOutcome::Removed(object) | DeleteOutcome::Terminating(object) => {
            kind.show(&object).into_owned()
        }
    };
    Ok(answer::json(StatusCode::OK, &body))
}

async fn delete_all(
    kube: &Kube,
    target: &Target,
    request: Request,
    query: &Query,
    caller: &Caller,
) -> Result<Response, Status> {
    let selection = selection(target, query)?;
    let options = delete_options(request, query).await?;
    let kind: &Kind = &target.kind;
    let found = kube.registry.list(kind.stored(), &target.namespace, &selection).await?;
    let mut items = Vec::new();
    for object in found.items {
        let (namespace, name) = (meta::namespace(&object), meta::name(&object));
        match kube.registry.delete(kind.stored(), namespace, name, &options, caller).await {
            Ok(DeleteOutcome::Removed(object) | DeleteOutcome::Terminating(object)) => {
                items.push(object);
            }
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
    }
    let body = json!({
        "kind": kind.list_kind(), "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": found.revision.to_string()},
        "items": shown(kind, items),
    });
    Ok(answer::json(StatusCode::OK, &body))
}
