//! Which replicas to ask.

use crate::{
    TargetArguments,
    failure::Failure,
    kubeconfig::{self, Kubeconfig},
};
use api::kinds::{self, Kind};
use client::{
    Client,
    endpoints::Endpoints,
    transport::{Access, Tls},
};
use pki::tls::{Pem, Shown};
use std::path::Path;

pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) endpoints: Endpoints,
    pub(crate) namespace: String,
    /// Signs the servers' certificates.
    pub(crate) authority: Option<Pem>,
}

/// Where `trireme dev` keeps a cluster if it is told nothing.
const DATA_DIR: &str = "trireme-dev";

/// Which cluster is meant: as `--kubeconfig` says, as `--data-dir`, as `KUBECONFIG`, or the one in the usual
/// directory. Its URLs, if a directory names them all, and its kubeconfig.
fn chosen(arguments: &TargetArguments) -> Result<(Vec<String>, Kubeconfig), Failure> {
    if let Some(path) = &arguments.kubeconfig {
        return Ok((Vec::new(), kubeconfig::read(&path.to_string_lossy())?));
    }
    if arguments.data_dir.is_none()
        && let Some(paths) = arguments.kubeconfig_variable.as_deref().filter(|p| !p.is_empty())
    {
        return Ok((Vec::new(), kubeconfig::read(paths)?));
    }
    let dir = arguments.data_dir.clone().unwrap_or_else(|| DATA_DIR.into());
    let path = dir.join("endpoints");
    let urls = match std::fs::read_to_string(&path) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(_) if !arguments.server.is_empty() => Vec::new(),
        Err(error) => {
            return Err(Failure::Input(format!(
                "{}: {error}; name a cluster with --server, --kubeconfig or --data-dir",
                path.display()
            )));
        }
    };
    let file = dir.join("kubeconfig");
    let config = if file.exists() {
        kubeconfig::read(&file.to_string_lossy())?
    } else {
        Kubeconfig::default()
    };
    Ok((urls, config))
}

/// The server of a kubeconfig's current context, and who one is there.
///
/// # Errors
/// In words, what is wrong with the file.
pub fn endpoints(kubeconfig: &Path) -> Result<Endpoints, String> {
    let config = kubeconfig::read(&kubeconfig.to_string_lossy());
    let config = config.map_err(|failure| failure.lines().join("\n"))?;
    let tls = config.authority.map(|pem| pki::tls::client(pem, config.shown));
    let tls = tls.transpose().map_err(|error| chain(&error))?;
    let access = Access { tls: tls.map(Tls::new), token: config.token };
    Ok(Endpoints::new(vec![config.server.trim_end_matches('/').to_owned()], access))
}

impl Target {
    pub(crate) fn new(arguments: TargetArguments) -> Result<Self, Failure> {
        let (all, config) = chosen(&arguments)?;
        let urls = if !arguments.server.is_empty() {
            arguments.server.clone()
        } else if all.is_empty() {
            vec![config.server.trim_end_matches('/').to_owned()]
        } else {
            all
        };
        let authority = arguments.certificate_authority.clone().map(Pem::File);
        let shown = match (&arguments.client_certificate, &arguments.client_key) {
            (Some(chain), Some(key)) => {
                Some(Shown { chain: Pem::File(chain.clone()), key: Pem::File(key.clone()) })
            }
            _ => None,
        };
        // Who says who one is means that, and not also what the kubeconfig says.
        let named = shown.is_some() || arguments.token.is_some();
        let (shown, token) =
            if named { (shown, arguments.token.clone()) } else { (config.shown, config.token) };
        let authority = authority.or(config.authority);
        let tls = authority.clone().map(|pem| pki::tls::client(pem, shown));
        let tls = tls.transpose().map_err(|error| Failure::Input(chain(&error)))?;
        let access = Access { tls: tls.map(Tls::new), token };
        let endpoints = Endpoints::new(urls, access);
        let client = Client::connect(endpoints.clone())?;
        if arguments.verbose {
            eprintln!("endpoints: {}", endpoints.urls.join(" "));
        }
        let namespace = arguments.namespace.or(config.namespace);
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        Ok(Self { client, endpoints, namespace, authority })
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

/// An error with what it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
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

/// What `KIND/NAME` names.
pub(crate) fn object(target: &Target, word: &str) -> Result<Object, Failure> {
    match word.split_once('/') {
        Some((alias, name)) if !name.is_empty() && !name.contains('/') => {
            let (namespace, name) = (target.namespace.clone(), name.to_owned());
            Ok(Object { kind: kind(alias)?, namespace, name })
        }
        Some(_) | None => Err(Failure::Input(format!("{word:?} must read KIND/NAME"))),
    }
}

/// What `KIND/NAME` names, or `NAME` alone, of the kind that is meant then.
pub(crate) fn named_or<'a>(
    object: &'a str,
    alias: &str,
) -> Result<(&'static Kind, &'a str), Failure> {
    let (alias, name) = object.split_once('/').unwrap_or((alias, object));
    if name.is_empty() || name.contains('/') {
        return Err(Failure::Input(format!("{object:?} must read NAME or KIND/NAME")));
    }
    Ok((kind(alias)?, name))
}

pub(crate) fn kind(alias: &str) -> Result<&'static Kind, Failure> {
    kinds::by_alias(alias).ok_or_else(|| {
        let mut known: Vec<&str> = kinds::all().iter().map(|k| k.plural).collect();
        // Events are one kind in two forms.
        known.dedup();
        Failure::Input(format!("there is no kind {alias:?}; there are: {}", known.join(", ")))
    })
}
