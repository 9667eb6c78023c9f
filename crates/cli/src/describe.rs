//! `describe`: everything about one object on one screen, in the layout that kubectl's users know.
//!
//! What is shown is a function of objects and the time; only [`describe`] asks anybody for them.

mod generic;
mod node;
mod pod;
mod service;
mod text;

use crate::{failure::Failure, target::Target};
use api::{
    kinds::{self, Kind},
    meta,
};
use client::ClientError;
use http::Method;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use text::Text;

/// An object and what else is told of it.
#[derive(Debug, Clone, Default)]
struct Described {
    object: Value,
    /// About the object.
    events: Vec<Value>,
    /// Of a Node: the Pods on it. Of a Service: its EndpointSlices.
    related: Vec<Value>,
    /// Of a Node: its Lease.
    lease: Value,
}

fn render(kind: &Kind, described: &Described, now: i64) -> String {
    let mut text = Text::default();
    match kind.kind {
        "Pod" => pod::describe(&mut text, &described.object),
        "Node" => node::describe(&mut text, described, now),
        "Service" => service::describe(&mut text, &described.object, &described.related),
        _ => generic::describe(&mut text, &described.object),
    }
    events(&mut text, &described.events, now);
    text.aligned()
}

/// Those that were seen last come last.
fn events(text: &mut Text, events: &[Value], now: i64) {
    if events.is_empty() {
        text.field("Events", "<none>");
        return;
    }
    let mut events: Vec<&Value> = events.iter().collect();
    let last =
        |event: &Value| event.get("lastTimestamp").and_then(Value::as_str).map(str::to_owned);
    events.sort_by_key(|event| last(event));
    text.heading("Events");
    text.row(1, ["Type", "Reason", "Age", "From", "Message"]);
    text.row(1, ["----", "------", "----", "----", "-------"]);
    for event in events {
        let age = |field: &str| api::table::since(event.get(field), now);
        let count = event.get("count").and_then(Value::as_u64).unwrap_or(1);
        let age = if count > 1 {
            format!("{} (x{count} over {})", age("lastTimestamp"), age("firstTimestamp"))
        } else {
            age("firstTimestamp")
        };
        let part = |pointer: &str| text::at(event, pointer);
        let message = part("/message");
        text.row(
            1,
            [
                part("/type").as_str(),
                &part("/reason"),
                &age,
                &part("/source/component"),
                message.trim(),
            ],
        );
    }
}

/// Fetches what there is to tell and prints it.
pub(crate) async fn describe(
    target: &Target,
    kind: &'static Kind,
    name: &str,
) -> Result<(), Failure> {
    let get = async |path: String| target.client.call::<Value>(Method::GET, &path, None).await;
    let object = get(target.path(kind, &target.namespace, name)).await?;
    let list = async |kind: &str, namespace: &str, query: &[(&str, &str)]| {
        let kind = kinds::by_alias(kind).expect("it is served");
        let path = target.path(kind, namespace, "");
        let found = get(format!("{path}{}", client::encode(query))).await?;
        let items = found.get("items").and_then(Value::as_array).cloned();
        Ok::<_, ClientError>(items.unwrap_or_default())
    };
    // Of a namesake that was there before, nothing is told.
    let about = format!("involvedObject.name={name},involvedObject.uid={}", meta::uid(&object));
    let namespace = if kind.namespaced { target.namespace.as_str() } else { "default" };
    let events = list("events", namespace, &[("fieldSelector", &about)]).await?;
    let mut described = Described { object, events, ..Described::default() };
    match kind.kind {
        "Node" => {
            let here = format!("spec.nodeName={name}");
            described.related = list("pods", "", &[("fieldSelector", &here)]).await?;
            let leases = kinds::by_alias("leases").expect("it is served");
            let lease = get(target.path(leases, "kube-node-lease", name)).await;
            described.lease = lease.unwrap_or_default();
        }
        "Service" => {
            let its = format!("kubernetes.io/service-name={name}");
            let query = [("labelSelector", its.as_str())];
            described.related = list("endpointslices", &target.namespace, &query).await?;
        }
        _ => {}
    }
    #[expect(clippy::disallowed_methods, reason = "a command line shows ages by its own clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    print!("{}", render(kind, &described, i64::try_from(now.as_secs()).unwrap_or(i64::MAX)));
    Ok(())
}

#[cfg(test)]
mod tests;
