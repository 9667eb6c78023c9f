//! Reads of what was: `?at=` a moment, and `?history=true` of one object.
//!
//! They are reads of the kind like any other, so that whoever may see an object may see what it was.

use super::{Kube, Query, Target, answer, selection, shown};
use crate::{
    flow::Asker,
    registry::{ListQuery, Moment},
};
use answer::{Form, Format, metadata_only, object_answer};
use api::{
    kinds::Kind,
    meta,
    past::{AT, HISTORY, REVISION_HEADER, TIME_HEADER, When},
    status::Status,
    table::table,
};
use axum::{
    http::{HeaderValue, StatusCode},
    response::Response,
};
use serde_json::{Value, json};

/// Whether a read asks for what was.
pub(super) fn is_asked(query: &Query) -> bool {
    query.contains_key(AT) || query.get(HISTORY).is_some_and(|value| is_true(value))
}

fn is_true(value: &str) -> bool {
    value == "true" || value == "1"
}

pub(super) async fn answer(
    kube: &Kube,
    target: &Target,
    query: &Query,
    format: Format,
    asker: &Asker,
) -> Result<Response, Status> {
    let excluded = ["watch", "resourceVersion", "resourceVersionMatch"];
    let found = excluded.iter().find(|name| query.get(**name).is_some_and(|v| !v.is_empty()));
    if let Some(other) = found {
        return Err(Status::bad_request(format!(
            "{AT} or {HISTORY} and {other} exclude each other"
        )));
    }
    if !matches!(target.subresource.as_str(), "" | "status") {
        let text = format!("{AT} and {HISTORY} are for objects, not for {}", target.subresource);
        return Err(Status::bad_request(text));
    }
    match query.get(AT) {
        None => history(kube, target, query, format).await,
        Some(_) if query.get(HISTORY).is_some_and(|value| is_true(value)) => {
            Err(Status::bad_request(format!("{AT} and {HISTORY} exclude each other")))
        }
        Some(written) => {
            let when = When::parse(written)
                .map_err(|wrong| Status::bad_request(format!("{AT}: {wrong}")))?;
            if target.name.is_empty() {
                list(kube, target, query, (when, format), asker).await
            } else {
                get(kube, target, when, format).await
            }
        }
    }
}

/// Says which moment an answer shows.
fn stamped(mut response: Response, moment: Moment) -> Response {
    let headers = response.headers_mut();
    headers.insert(REVISION_HEADER, HeaderValue::from(moment.revision.get()));
    let time = moment.seconds.map(meta::time);
    if let Some(time) = time.and_then(|time| HeaderValue::from_str(&time).ok()) {
        headers.insert(TIME_HEADER, time);
    }
    response
}

async fn get(kube: &Kube, target: &Target, when: When, format: Format) -> Result<Response, Status> {
    let Target { kind, namespace, name, .. } = target;
    let (object, moment) = kube.registry.get_at(kind.stored(), namespace, name, when).await?;
    // Ages are those of then.
    let then = moment.seconds.unwrap_or_else(|| kube.registry.now());
    Ok(stamped(object_answer(StatusCode::OK, kind, &object, format, then), moment))
}

async fn list(
    kube: &Kube,
    target: &Target,
    query: &Query,
    (when, format): (When, Format),
    asker: &Asker,
) -> Result<Response, Status> {
    let (_, moment) = kube.registry.moment(when).await?;
    let mut wanted = selection(target, query)?;
    // The token of a next page names the revision of the first.
    if wanted.continue_token.is_empty() {
        wanted = ListQuery {
            resource_version: moment.revision.to_string(),
            resource_version_match: "Exact".to_owned(),
            ..wanted
        };
    }
    let kind: &Kind = &target.kind;
    let cost = kube.registry.cost(kind, &target.namespace, &wanted);
    let _seat = kube.flow.list(asker, cost).await?;
    let found = kube.registry.list(kind.stored(), &target.namespace, &wanted).await?;
    let mut list_meta = json!({"resourceVersion": found.revision.to_string()});
    if let Some(fields) = list_meta.as_object_mut() {
        if !found.continue_token.is_empty() {
            fields.insert("continue".to_owned(), found.continue_token.into());
        }
        if let Some(remaining) = found.remaining {
            fields.insert("remainingItemCount".to_owned(), remaining.into());
        }
    }
    let then = moment.seconds.unwrap_or_else(|| kube.registry.now());
    let body = match format.form {
        Form::Table(include) => table(kind.stored(), &found.items, include, list_meta, then),
        Form::Metadata => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": list_meta,
            "items": found.items.iter().map(|i| metadata_only(&kind.show(i))).collect::<Vec<_>>(),
        }),
        Form::Object => json!({
            "kind": kind.list_kind(), "apiVersion": kind.api_version(),
            "metadata": list_meta, "items": shown(kind, found.items),
        }),
    };
    Ok(stamped(answer::written(StatusCode::OK, &body, format), moment))
}

/// Versions in one answer, unless more or fewer are asked for.
const VERSIONS: usize = 500;

async fn history(
    kube: &Kube,
    target: &Target,
    query: &Query,
    format: Format,
) -> Result<Response, Status> {
    let Target { kind, namespace, name, .. } = target;
    if name.is_empty() {
        return Err(Status::bad_request(format!("{HISTORY} is of one object: name it")));
    }
    let limit = match query.get("limit").filter(|limit| !limit.is_empty()) {
        None => VERSIONS,
        Some(text) => text
            .parse()
            .map_err(|_| Status::bad_request(format!("limit: {text:?} is not a number")))?,
    };
    let history = kube.registry.history(kind.stored(), namespace, name, limit).await?;
    let versions = history.versions.into_iter().map(|version| {
        let mut shown = version.at.to_json();
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("created".to_owned(), version.created.into());
            fields.insert("deleted".to_owned(), version.object.is_none().into());
            let object = version.object.map(|object| kind.show(&object).into_owned());
            fields.insert("object".to_owned(), object.unwrap_or(Value::Null));
        }
        shown
    });
    let body = json!({
        "kind": "ObjectHistory", "apiVersion": "trireme.dev/v1",
        "metadata": {"resourceVersion": history.newest.revision.to_string()},
        "oldest": history.oldest.to_json(), "newest": history.newest.to_json(),
        "leftOut": history.left_out, "versions": versions.collect::<Vec<_>>(),
    });
    Ok(answer::written(StatusCode::OK, &body, format))
}
