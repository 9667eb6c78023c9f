//! Questions about who may do what and who somebody is, and tokens for service accounts: objects that are
//! answered and not kept.

use super::{
    Guard,
    tokens::{self, Bound, Claims, ISSUER},
};
use crate::kube::{Format, body_json, failure, query, written};
use access::{
    Attributes, Resource,
    node::{self, DEFAULT_ACCOUNT},
};
use api::{
    caller::Identity,
    field::{FieldError, Path},
    kinds, meta,
    status::Status,
};
use axum::{
    Router,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::Response,
    routing::any,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Seconds that a token holds if nobody says otherwise, at least, and at most.
const TOKEN_SECONDS: i64 = 3600;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";

#[derive(Debug, Clone, Copy)]
enum Review {
    SelfAccess,
    Access,
    LocalAccess,
    SelfRules,
    SelfSubject,
    Token,
}

/// Where they are asked for.
pub(crate) fn routes(guard: Arc<Guard>) -> Router {
    let review = |review: Review| {
        any(async move |State(guard): State<Arc<Guard>>, request: Request| {
            answer(&guard, review, request).await.unwrap_or_else(|status| failure(&status))
        })
    };
    let mut router = Router::new();
    for (group, version, plural, what) in [
        (AUTHZ, "v1", "selfsubjectaccessreviews", Review::SelfAccess),
        (AUTHZ, "v1", "subjectaccessreviews", Review::Access),
        (AUTHZ, "v1", "namespaces/{namespace}/localsubjectaccessreviews", Review::LocalAccess),
        (AUTHZ, "v1", "selfsubjectrulesreviews", Review::SelfRules),
        (AUTHN, "v1", "selfsubjectreviews", Review::SelfSubject),
        // What kubectl 1.27 asks for.
        (AUTHN, "v1beta1", "selfsubjectreviews", Review::SelfSubject),
        (AUTHN, "v1", "tokenreviews", Review::Token),
    ] {
        router = router.route(&format!("/apis/{group}/{version}/{plural}"), review(what));
    }
    let public = |document: fn(&Guard) -> Option<Value>| {
        any(async move |State(guard): State<Arc<Guard>>, request: Request| match document(&guard) {
            Some(document) if matches!(*request.method(), Method::GET | Method::HEAD) => {
                crate::kube::json(StatusCode::OK, &document)
            }
            Some(_) => failure(&not_allowed()),
            None => failure(&Status::no_such_path()),
        })
    };
    router
        .route(
            "/.well-known/openid-configuration",
            public(|guard| guard.key.as_ref().map(|_| tokens::discovery())),
        )
        .route("/openid/v1/jwks", public(|guard| guard.key.as_ref().map(|key| key.jwks())))
        .with_state(guard)
}

fn not_allowed() -> Status {
    let message = "the server does not allow this method on the requested resource";
    Status::new(405, "MethodNotAllowed", message)
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Who has made a request; the guard has said so.
fn caller(request: &Request) -> Result<Identity, Status> {
    request.extensions().get::<Identity>().cloned().ok_or_else(Status::unauthorized)
}

async fn answer(guard: &Guard, review: Review, request: Request) -> Result<Response, Status> {
    if request.method() != Method::POST {
        return Err(not_allowed());
    }
    let query = query(&request)?;
    let format = Format::of(&request, &query)?;
    let who = caller(&request)?;
    let path = request.uri().path().to_owned();
    let api_version = path.split('/').filter(|part| !part.is_empty()).skip(1).take(2);
    let api_version = api_version.collect::<Vec<_>>().join("/");
    let asked = body_json(request).await?;
    let (kind, group) = match review {
        Review::SelfAccess => ("SelfSubjectAccessReview", AUTHZ),
        Review::Access => ("SubjectAccessReview", AUTHZ),
        Review::LocalAccess => ("LocalSubjectAccessReview", AUTHZ),
        Review::SelfRules => ("SelfSubjectRulesReview", AUTHZ),
        Review::SelfSubject => ("SelfSubjectReview", AUTHN),
        Review::Token => ("TokenReview", AUTHN),
    };
    is_of(&asked, kind, &api_version)?;
    let spec = asked.get("spec").cloned().unwrap_or_else(|| json!({}));
    let status = match review {
        Review::SelfAccess => decided(guard, &who, &attributes(&spec, kind)?).await,
        Review::Access => {
            let of = subject(&spec, kind)?;
            decided(guard, &of, &attributes(&spec, kind)?).await
        }
        Review::LocalAccess => {
            let asked = attributes(&spec, kind)?;
            let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(1);
            let namespace = parts.next().unwrap_or_default();
            if text(&spec, "/resourceAttributes/namespace") != namespace {
                let path = Path::new("spec").child("resourceAttributes").child("namespace");
                let found = text(&spec, "/resourceAttributes/namespace");
                let error = FieldError::invalid(&path, found, "must match metadata.namespace");
                return Err(Status::invalid_named(AUTHZ, kind, "", &[error]));
            }
            decided(guard, &subject(&spec, kind)?, &asked).await
        }
        Review::SelfRules => rules(guard, &who, &spec)?,
        Review::SelfSubject => json!({"userInfo": user_info(&who)}),
        Review::Token => token_review(guard, &spec).await?,
    };
    let mut answer = json!({
        "kind": kind, "apiVersion": api_version,
        "metadata": asked.get("metadata").cloned().unwrap_or_else(|| json!({})),
        "status": status,
    });
    if let Some(fields) = answer.as_object_mut() {
        if matches!(review, Review::SelfSubject) {
            let now = meta::time(guard.registry.now());
            fields.insert("metadata".to_owned(), json!({"creationTimestamp": now}));
        } else {
            fields.insert("spec".to_owned(), spec);
        }
    }
    debug_assert!(api_version.starts_with(group));
    Ok(written(StatusCode::CREATED, &answer, format))
}

/// Whether an object says nothing else of itself than the URL does (MET-3).
fn is_of(object: &Value, kind: &str, api_version: &str) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the body is not an object"));
    }
    for (field, want) in [("kind", kind), ("apiVersion", api_version)] {
        let found = text(object, &format!("/{field}"));
        if !found.is_empty() && found != want {
            let message = format!("{field} is {found:?}, but the URL is for {want:?}");
            return Err(Status::bad_request(message));
        }
    }
    Ok(())
}

fn attributes(spec: &Value, kind: &str) -> Result<Attributes, Status> {
    let of = |key: &str| spec.get(key).filter(|value| value.is_object());
    let refuse = |field: &str, why: &str| {
        let path = Path::new("spec").child(field);
        let error = FieldError::invalid(&path, Value::Null, why);
        Err(Status::invalid_named(AUTHZ, kind, "", &[error]))
    };
    match (of("resourceAttributes"), of("nonResourceAttributes")) {
        (Some(of), None) => {
            let part = |key: &str| text(of, &format!("/{key}"));
            let resource = Resource {
                group: part("group"),
                resource: part("resource"),
                subresource: part("subresource"),
                namespace: part("namespace"),
                name: part("name"),
                on_node: String::new(),
            };
            Ok(Attributes::resource(&part("verb"), resource))
        }
        (None, Some(of)) => Ok(Attributes::path(&text(of, "/verb"), &text(of, "/path"))),
        (Some(_), Some(_)) => refuse(
            "nonResourceAttributes",
            "cannot be specified in combination with resourceAttributes",
        ),
        (None, None) => refuse(
            "resourceAttributes",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
    }
}

/// Whom a review is about.
fn subject(spec: &Value, kind: &str) -> Result<Identity, Status> {
    let extra = spec.get("extra").and_then(Value::as_object);
    let extra: BTreeMap<String, Vec<String>> = extra
        .into_iter()
        .flatten()
        .map(|(key, values)| {
            let values = values.as_array().into_iter().flatten().filter_map(Value::as_str);
            (key.clone(), values.map(str::to_owned).collect())
        })
        .collect();
    let who = Identity {
        user: text(spec, "/user"),
        uid: text(spec, "/uid"),
        groups: texts(spec, "/groups"),
        extra,
    };
    if who.user.is_empty() && who.groups.is_empty() {
        let path = Path::new("spec").child("user");
        let error =
            FieldError::invalid(&path, "", "at least one of user or group must be specified");
        return Err(Status::invalid_named(AUTHZ, kind, "", &[error]));
    }
    Ok(who)
}

async fn decided(guard: &Guard, who: &Identity, asked: &Attributes) -> Value {
    let decision = guard.authorize(who, asked).await;
    let mut status = json!({"allowed": decision.is_allowed()});
    if let (Some(fields), false) = (status.as_object_mut(), decision.reason().is_empty()) {
        fields.insert("reason".to_owned(), decision.reason().into());
    }
    status
}

fn rules(guard: &Guard, who: &Identity, spec: &Value) -> Result<Value, Status> {
    let namespace = text(spec, "/namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, errors) = guard.rules(who, &namespace);
    let (paths, resources): (Vec<_>, Vec<_>) =
        rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let mut status = json!({
        "resourceRules": resources, "nonResourceRules": paths, "incomplete": !errors.is_empty(),
    });
    if let (Some(fields), false) = (status.as_object_mut(), errors.is_empty()) {
        fields.insert("evaluationError".to_owned(), errors.join(", ").into());
    }
    Ok(status)
}

/// As reviews and the audit log show who somebody is.
pub(super) fn user_info(who: &Identity) -> Value {
    let mut info = Map::from_iter([("username".to_owned(), Value::from(who.user.as_str()))]);
    if !who.uid.is_empty() {
        info.insert("uid".to_owned(), who.uid.as_str().into());
    }
    if !who.groups.is_empty() {
        info.insert("groups".to_owned(), json!(who.groups));
    }
    if !who.extra.is_empty() {
        info.insert("extra".to_owned(), json!(who.extra));
    }
    info.into()
}

async fn token_review(guard: &Guard, spec: &Value) -> Result<Value, Status> {
    let token = text(spec, "/token");
    if token.is_empty() {
        let message = "token is required for TokenReview in authentication";
        return Err(Status::bad_request(message));
    }
    let mut audiences = texts(spec, "/audiences");
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    Ok(match guard.by_token(&token, &audiences).await {
        Ok((mut who, audiences)) => {
            who.groups.push(access::AUTHENTICATED.to_owned());
            json!({"authenticated": true, "user": user_info(&who), "audiences": audiences})
        }
        Err(why) => json!({"authenticated": false, "user": {}, "error": why.0}),
    })
}

/// A token for a service account (SA-2).
///
/// # Errors
/// As [`token`]; 400 for a body that cannot be read.
pub(crate) async fn token_request(
    guard: &Guard,
    account: (&str, &str),
    request: Request,
) -> Result<Response, Status> {
    let query = query(&request)?;
    let format = Format::of(&request, &query)?;
    let who = caller(&request)?;
    let asked = body_json(request).await?;
    let answer = token(guard, &who, account, &asked).await?;
    Ok(written(StatusCode::CREATED, &answer, format))
}

/// The answered `TokenRequest` of somebody who may make one for this account, by namespace and name.
///
/// # Errors
/// 404 for what is not there, 400 and 422 for what cannot be asked, 403 for what is not for a node, 409 for
/// a namesake of what the token is to be bound to.
pub(crate) async fn token(
    guard: &Guard,
    who: &Identity,
    (namespace, name): (&str, &str),
    asked: &Value,
) -> Result<Value, Status> {
    let registry = &guard.registry;
    is_of(asked, "TokenRequest", "authentication.k8s.io/v1")?;
    let own = meta::name(asked);
    if !own.is_empty() && own != name {
        return Err(Status::other_name(own, name));
    }
    let Some(key) = &guard.key else {
        return Err(Status::internal("there is no key for service accounts"));
    };
    let mut spec = asked.get("spec").cloned().unwrap_or_else(|| json!({}));
    let seconds = spec.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(TOKEN_SECONDS);
    let why = if seconds < TOKEN_SECONDS_MIN {
        Some("may not specify a duration less than 10 minutes")
    } else if seconds > TOKEN_SECONDS_MAX {
        Some("may not specify a duration larger than 2^32 seconds")
    } else {
        None
    };
    if let Some(why) = why {
        let path = Path::new("spec").child("expirationSeconds");
        let error = FieldError::invalid(&path, seconds, why);
        return Err(Status::invalid_named(AUTHN, "TokenRequest", "", &[error]));
    }
    let mut audiences = texts(&spec, "/audiences");
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let accounts = kinds::by_alias("serviceaccounts").expect("ServiceAccount is served");
    let account = registry.get(accounts, namespace, name, "").await?;
    let bound = bind(guard, (namespace, name), &spec).await?;
    if let Some(node) = node::name(who) {
        let why = match bound.first() {
            Some(Bound { what: "pod", name: pod, .. })
                if guard.facts.is_on(node, namespace, pod) =>
            {
                None
            }
            Some(Bound { what: "pod", .. }) => {
                Some("node requested token bound to a pod scheduled on a different node")
            }
            _ => Some("node requested token not bound to a pod"),
        };
        if let Some(why) = why {
            return Err(Status::forbidden(accounts, name, why));
        }
    }
    let now = registry.now();
    let expires = now.saturating_add(seconds);
    let claims = Claims {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: meta::uid(&account).to_owned(),
        audiences: audiences.clone(),
        id: uuid::Uuid::new_v4().to_string(),
        bound,
        not_before: now,
        expires,
    };
    let token = key.sign(&claims).ok_or_else(|| Status::internal("no randomness to sign with"))?;
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("audiences".to_owned(), json!(audiences));
        spec.insert("expirationSeconds".to_owned(), seconds.into());
    }
    Ok(json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": meta::time(now)},
        "spec": spec,
        "status": {"token": token, "expirationTimestamp": meta::time(expires)},
    }))
}

/// What a token is to be bound to, and with a Pod its node.
async fn bind(
    guard: &Guard,
    (namespace, account): (&str, &str),
    spec: &Value,
) -> Result<Vec<Bound>, Status> {
    let Some(wanted) = spec.get("boundObjectRef").filter(|wanted| !wanted.is_null()) else {
        return Ok(Vec::new());
    };
    let (kind, version) = (text(wanted, "/kind"), text(wanted, "/apiVersion"));
    let (name, uid) = (text(wanted, "/name"), text(wanted, "/uid"));
    let what = match (kind.as_str(), version.as_str()) {
        ("Pod", "v1") => "pod",
        ("Secret", "v1") => "secret",
        ("Node", "v1") => "node",
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to object of kind {kind:?} in version \
                 {version:?}"
            )));
        }
    };
    if name.is_empty() {
        let path = Path::new("spec").child("boundObjectRef").child("name");
        let error = FieldError::required(&path, "");
        return Err(Status::invalid_named(AUTHN, "TokenRequest", "", &[error]));
    }
    let of = kinds::by_alias(what).expect("what tokens are bound to is served");
    let place = if of.namespaced { namespace } else { "" };
    let found = guard.registry.get(of, place, &name, "").await?;
    if !uid.is_empty() && uid != meta::uid(&found) {
        let detail = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object \
             might have been deleted and then recreated"
        );
        return Err(Status::conflict(of, &name, &detail));
    }
    let mut bound = vec![Bound { what, name, uid: meta::uid(&found).to_owned() }];
    if what == "pod" {
        // The field is filled in where there is an admission for it; without, it is the default account.
        let own = text(&found, "/spec/serviceAccountName");
        let own = if own.is_empty() { DEFAULT_ACCOUNT } else { &own };
        if own != account {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different \
                 serviceaccount name."
            )));
        }
        let node = text(&found, "/spec/nodeName");
        let nodes = kinds::by_alias("nodes").expect("Node is served");
        // One that is not there cannot be looked for later, either.
        if let (false, Ok(found)) =
            (node.is_empty(), guard.registry.get(nodes, "", &node, "0").await)
        {
            bound.push(Bound { what: "node", name: node, uid: meta::uid(&found).to_owned() });
        }
    }
    Ok(bound)
}
