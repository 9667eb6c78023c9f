//! Which replicas to ask.

use crate::{TargetArguments, failure::Failure};
use api::kinds::{self, Kind};
use client::{Client, endpoints::Endpoints};
use std::time::Duration;

pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) endpoints: Vec<String>,
    pub(crate) namespace: String,
}

impl Target {
    pub(crate) fn new(arguments: TargetArguments) -> Result<Self, Failure> {
        let endpoints = if arguments.server.is_empty() {
            let path = arguments.data_dir.join("endpoints");
            let text = std::fs::read_to_string(&path).map_err(|e| {
                Failure::Input(format!(
                    "{}: {e}; name a cluster with --server or --data-dir",
                    path.display()
                ))
            })?;
            text.lines().map(str::to_owned).collect()
        } else {
            arguments.server
        };
        let client = Client::connect(Endpoints {
            urls: endpoints.clone(),
            connect_timeout: Duration::from_secs(1),
            deadline: Duration::from_secs(10),
        })?;
        if arguments.verbose {
            eprintln!("endpoints: {}", endpoints.join(" "));
        }
        Ok(Self { client, endpoints, namespace: arguments.namespace })
    }

    /// The URL path of a kind, in this namespace or in all.
    pub(crate) fn path(&self, kind: &Kind, namespace: &str, name: &str) -> String {
        let root = if kind.group.is_empty() { "/api" } else { "/apis" };
        let namespace = if kind.namespaced && !namespace.is_empty() {
            format!("/namespaces/{namespace}")
        } else {
            String::new()
        };
        let name = if name.is_empty() { String::new() } else { format!("/{name}") };
        format!("{root}/{}{namespace}/{}{name}", kind.api_version(), kind.plural)
    }
}

pub(crate) fn kind(alias: &str) -> Result<&'static Kind, Failure> {
    kinds::by_alias(alias).ok_or_else(|| {
        let known: Vec<&str> = kinds::all().iter().map(|k| k.plural).collect();
        Failure::Input(format!("there is no kind {alias:?}; there are: {}", known.join(", ")))
    })
}
