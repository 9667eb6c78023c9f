//! Reading verbs, deletion, and waiting.

use crate::{
    failure::Failure,
    past,
    target::{Object, Target},
};
use api::{
    deletion::DeleteOptions,
    kinds::{self, Kind},
    meta,
};
use bytes::Bytes;
use client::{ClientError, refuse};
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::{io::Write as _, time::Duration};
use tokio::time::{Instant, sleep};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub(crate) struct Wanted {
    pub(crate) kind: &'static Kind,
    pub(crate) name: String,
    pub(crate) output: String,
    pub(crate) all_namespaces: bool,
    pub(crate) selector: String,
    pub(crate) field_selector: String,
    pub(crate) watch: bool,
    /// An earlier moment; empty for now.
    pub(crate) at: String,
}

pub(crate) fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::Client(ClientError::Decode {
        endpoint: "the API".to_owned(),
        error: error.to_string(),
    })
}

pub(crate) async fn get(target: &Target, wanted: &Wanted) -> Result<(), Failure> {
    let namespace = if wanted.all_namespaces { "" } else { target.namespace.as_str() };
    let path = target.path(wanted.kind, namespace, &wanted.name);
    let query = client::encode(&[
        ("labelSelector", &wanted.selector),
        ("fieldSelector", &wanted.field_selector),
        ("at", &wanted.at),
    ]);
    if !wanted.at.is_empty() {
        past::checked("--at", &wanted.at)?;
        if wanted.watch {
            return Err(Failure::Input(
                "--at is of the past, which --watch cannot follow".to_owned(),
            ));
        }
    }
    let path = format!("{path}{query}");
    let table = matches!(wanted.output.as_str(), "" | "wide");
    let accept = if table { TABLE } else { "application/json" };
    let (found, moment) = past::read(target, &path, accept).await?;
    if !wanted.at.is_empty() {
        // Not among the objects, which may go on into a file.
        eprintln!("as of {moment}");
    }
    let mut printer = Printer::new(wanted);
    printer.print(&found)?;
    if !wanted.watch {
        return Ok(());
    }
    let revision = found.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    let all = target.path(wanted.kind, namespace, "");
    let mut fields = wanted.field_selector.clone();
    if !wanted.name.is_empty() {
        fields = format!("metadata.name={}", wanted.name);
    }
    let query = client::encode(&[
        ("watch", "true"),
        ("labelSelector", &wanted.selector),
        ("fieldSelector", &fields),
        ("resourceVersion", revision.unwrap_or_default()),
    ]);
    let mut request = Request::new(Bytes::new());
    let path = format!("{all}{query}");
    *request.uri_mut() = path.parse().map_err(|e| Failure::Input(format!("{path}: {e}")))?;
    let accept = if table { TABLE } else { "application/json" };
    request.headers_mut().insert(header::ACCEPT, http::HeaderValue::from_static(accept));
    let answer = refuse(target.client.request(request).await?).await?;
    let mut body = answer.into_body();
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(unreadable)?;
        buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d));
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).map_err(unreadable)?;
            let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind != "BOOKMARK" {
                printer.print(event.get("object").unwrap_or(&Value::Null))?;
            }
        }
    }
    Ok(())
}

/// Prints tables with one heading, and objects as they are.
struct Printer {
    output: String,
    kind: &'static Kind,
    namespaces: bool,
    headed: bool,
    widths: Vec<usize>,
}

impl Printer {
    fn new(wanted: &Wanted) -> Self {
        Self {
            output: wanted.output.clone(),
            kind: wanted.kind,
            namespaces: wanted.all_namespaces && wanted.kind.namespaced,
            headed: false,
            widths: Vec::new(),
        }
    }

    fn print(&mut self, found: &Value) -> Result<(), Failure> {
        match self.output.as_str() {
            "json" => {
                println!("{}", serde_json::to_string_pretty(found).map_err(unreadable)?);
            }
            "yaml" => print!("{}", serde_yaml_ng::to_string(found).map_err(unreadable)?),
            "name" => {
                let items = found.get("items").and_then(Value::as_array).cloned();
                for object in items.unwrap_or_else(|| vec![found.clone()]) {
                    println!("{}/{}", self.kind.singular, meta::name(&object));
                }
            }
            "" | "wide" => self.table(found),
            other => {
                let text = format!("-o {other}: there are wide, json, yaml and name");
                return Err(Failure::Input(text));
            }
        }
        Ok(())
    }

    fn table(&mut self, table: &Value) {
        let list = |value: &Value, key: &str| {
            value.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let columns = list(table, "columnDefinitions");
        let shown: Vec<usize> = columns
            .iter()
            .enumerate()
            .filter(|(_, c)| self.output == "wide" || c.get("priority") == Some(&Value::from(0)))
            .map(|(i, _)| i)
            .collect();
        let mut lines: Vec<Vec<String>> = Vec::new();
        if !self.headed && !columns.is_empty() {
            let mut heads: Vec<String> = shown
                .iter()
                .filter_map(|i| columns.get(*i)?.get("name")?.as_str().map(str::to_uppercase))
                .collect();
            if self.namespaces {
                heads.insert(0, "NAMESPACE".to_owned());
            }
            lines.push(heads);
        }
        for row in list(table, "rows") {
            let cells = list(&row, "cells");
            let mut line: Vec<String> = shown
                .iter()
                .map(|i| match cells.get(*i) {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => String::new(),
                })
                .collect();
            if self.namespaces {
                let namespace = row.get("object").map_or("", meta::namespace);
                line.insert(0, namespace.to_owned());
            }
            lines.push(line);
        }
        if lines.len() <= 1 && !self.headed && list(table, "rows").is_empty() {
            println!("No resources found");
            return;
        }
        self.headed = true;
        for line in &lines {
            for (i, cell) in line.iter().enumerate() {
                match self.widths.get_mut(i) {
                    Some(width) => *width = (*width).max(cell.chars().count()),
                    None => self.widths.push(cell.chars().count()),
                }
            }
        }
        for line in lines {
            let padded: Vec<String> = line
                .iter()
                .zip(&self.widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            println!("{}", padded.join("   ").trim_end());
        }
    }
}

/// Begins every deletion before it waits for the first.
pub(crate) async fn delete(
    target: &Target,
    objects: &[Object],
    grace: Option<i64>,
    wait: bool,
) -> Result<(), Failure> {
    let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
    let body = options.to_json().to_string().into_bytes();
    let mut begun = Vec::new();
    for Object { kind, namespace, name } in objects {
        let path = target.path(kind, namespace, name);
        let object: Value = target.client.call(Method::DELETE, &path, Some(body.clone())).await?;
        println!("{} \"{name}\" deleted", kind.singular);
        // Some kinds' deletions are answered with a Status about the object.
        let told = object.pointer("/details/uid").and_then(Value::as_str);
        begun.push((path, told.unwrap_or_else(|| meta::uid(&object)).to_owned()));
    }
    for (path, uid) in begun.iter().filter(|_| wait) {
        loop {
            match target.client.call::<Value>(Method::GET, path, None).await {
                // A namesake made since is not the one that was deleted.
                Ok(now) if uid.is_empty() || meta::uid(&now) == uid => {
                    sleep(Duration::from_millis(50)).await;
                }
                Ok(_) => break,
                Err(ClientError::Api(status)) if status.is_not_found() => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

pub(crate) async fn logs(target: &Target, pod: &str, query: &str) -> Result<(), Failure> {
    let kind = kinds::by_alias("pods").expect("Pod is served");
    let path = format!("{}/log{query}", target.path(kind, &target.namespace, pod));
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = path.parse().map_err(|e| Failure::Input(format!("{path}: {e}")))?;
    let answer = refuse(target.client.request(request).await?).await?;
    let mut body = answer.into_body();
    let mut out = std::io::stdout().lock();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(unreadable)?;
        if let Some(data) = frame.data_ref() {
            out.write_all(data).and_then(|()| out.flush()).map_err(unreadable)?;
        }
    }
    Ok(())
}

pub(crate) async fn wait(
    target: &Target,
    object: &str,
    wanted: &str,
    seconds: u64,
) -> Result<(), Failure> {
    let usage = || Failure::Input(format!("{object:?} must read KIND/NAME"));
    let (kind, name) = object.split_once('/').ok_or_else(usage)?;
    let path = target.path(crate::target::kind(kind)?, &target.namespace, name);
    let condition = match wanted {
        "delete" => None,
        other => Some(other.strip_prefix("condition=").ok_or_else(|| {
            Failure::Input(format!("--for: condition=TYPE or delete, not {other:?}"))
        })?),
    };
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        match target.client.call::<Value>(Method::GET, &path, None).await {
            Ok(found) => {
                let conditions = found.pointer("/status/conditions").and_then(Value::as_array);
                let holds = conditions.into_iter().flatten().any(|c| {
                    c.get("type").and_then(Value::as_str) == condition
                        && c.get("status").and_then(Value::as_str) == Some("True")
                });
                if holds && condition.is_some() {
                    println!("{object} condition met");
                    return Ok(());
                }
            }
            Err(ClientError::Api(status)) if status.is_not_found() && condition.is_none() => {
                println!("{object} deleted");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(Failure::Late(format!("{object}: not {wanted} within {seconds} s")))
}
