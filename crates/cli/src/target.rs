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

/// One object of a cluster.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What `KIND NAME…` or `KIND/NAME…` names.
pub(crate) fn objects(target: &Target, words: &[String]) -> Result<Vec<Object>, Failure> {
    let object = |alias: &str, name: &str| {
        let (namespace, name) = (target.namespace.clone(), name.to_owned());
        Ok(Object { kind: kind(alias)?, namespace, name })
    };
    if words.iter().all(|word| word.contains('/')) {
        let parts = words.iter().filter_map(|word| word.split_once('/'));
        return parts.map(|(alias, name)| object(alias, name)).collect();
    }
    match words {
        [alias, names @ ..] if !names.is_empty() && !alias.contains('/') => {
            names.iter().map(|name| object(alias, name)).collect()
        }
        _ => Err(Failure::Input("name what to delete: KIND NAME… or KIND/NAME…".to_owned())),
    }
}

pub(crate) fn kind(alias: &str) -> Result<&'static Kind, Failure> {
    kinds::by_alias(alias).ok_or_else(|| {
        let mut known: Vec<&str> = kinds::all().iter().map(|k| k.plural).collect();
        // Events are one kind in two forms.
        known.dedup();
        Failure::Input(format!("there is no kind {alias:?}; there are: {}", known.join(", ")))
    })
}
