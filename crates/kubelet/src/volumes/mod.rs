//! Volumes that are made from objects: what ConfigMaps, Secrets and the Pod itself say, and tokens of its
//! account, kept as these are for as long as the Pod is here (VOL-1, SA-2).
//!
//! What is in a volume is a function ([`content`]); how it gets there is [`files`]; this asks the control
//! plane and says when a Pod's containers may start. Without a control plane, what is there stays.

mod content;
mod files;

pub(crate) use content::{Found, Need, is_made, resource};

use crate::{agent::Shared, worker::Told};
use api::core::Pod;
use client::node::{Fetch, TOKENS};
use content::{Volume, volumes};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Between two looks at the objects (VOL-1).
const REFRESH: Duration = Duration::from_secs(60);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the next try, twice as long after each.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A token is replaced after this, however long it holds (SA-2).
const TOKEN_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A Pod's volumes, kept until this is dropped.
pub(crate) struct Volumes {
    ready: watch::Receiver<bool>,
    task: JoinSet<()>,
}

impl Volumes {
    /// `None` for a Pod that has none.
    pub(crate) fn keep(shared: Arc<Shared>, told: watch::Receiver<Told>) -> Option<Self> {
        let of_pod = volumes(&told.borrow().pod);
        if of_pod.is_empty() {
            return None;
        }
        let (is_ready, ready) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(async move { Keeper::new(shared, of_pod).run(told, is_ready).await });
        Some(Self { ready, task })
    }

    /// All of them have been there.
    pub(crate) fn are_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Returns when they are.
    pub(crate) fn made(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ready = self.ready.clone();
        async move {
            if ready.wait_for(|ready| *ready).await.is_err() {
                // Stopped: the Pod ends.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Writes nothing any more once this returns.
    pub(crate) async fn stop(&mut self) {
        self.task.shutdown().await;
    }
}

struct Token {
    asked: Instant,
    lifetime: Duration,
}

impl Token {
    /// SA-2
    fn renewal(&self) -> Instant {
        self.asked + (self.lifetime * 4 / 5).min(TOKEN_AGE_MAX)
    }
}

struct Keeper {
    shared: Arc<Shared>,
    volumes: Vec<Volume>,
    found: BTreeMap<Need, Found>,
    tokens: BTreeMap<Need, Token>,
}

/// What of a Pod that changes is in volumes: labels and annotations.
fn shown(pod: &Pod) -> [Option<BTreeMap<String, String>>; 2] {
    [pod.metadata.labels.clone(), pod.metadata.annotations.clone()]
}

impl Keeper {
    fn new(shared: Arc<Shared>, volumes: Vec<Volume>) -> Self {
        Self { shared, volumes, found: BTreeMap::new(), tokens: BTreeMap::new() }
    }

    async fn run(mut self, mut told: watch::Receiver<Told>, ready: watch::Sender<bool>) {
        let (mut retry, mut said) = (RETRY_MIN, BTreeSet::new());
        loop {
            let pod = told.borrow_and_update().pod.clone();
            let mut failures = self.ask(&pod).await;
            for (volume, why) in self.write(&pod) {
                failures.entry(volume).or_insert(why);
            }
            let next = if failures.is_empty() {
                ready.send_replace(true);
                (retry, said) = (RETRY_MIN, BTreeSet::new());
                let renewals = self.tokens.values().map(Token::renewal);
                renewals.fold(Instant::now() + REFRESH, Instant::min)
            } else {
                for (volume, why) in failures {
                    let message =
                        format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}");
                    // Each is said once; a Pod that runs has what was there before.
                    if said.insert(message.clone()) {
                        self.shared.event(&pod, "Warning", "FailedMount", &message, "");
                    }
                }
                let now = Instant::now();
                let next = now + retry;
                retry = (retry * 2).min(RETRY_MAX);
                next
            };
            self.wait(&pod, next, &mut told).await;
        }
    }

    /// Until it is time to ask again. What changes of the Pod itself is written at once.
    async fn wait(&mut self, pod: &Pod, until: Instant, told: &mut watch::Receiver<Told>) {
        let mut before = shown(pod);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = told.changed() => if changed.is_err() {
                    // The agent is stopping; the Pod goes on.
                    return sleep(Duration::MAX).await;
                },
            }
            let pod = told.borrow_and_update().pod.clone();
            let now = shown(&pod);
            if now != before {
                before = now;
                for (volume, why) in self.write(&pod) {
                    tracing::warn!(volume, why, "a volume is not brought up to date");
                }
            }
        }
    }

    /// Asks for everything that the volumes need; why not, by volume. What was found before stays until
    /// there is an answer.
    async fn ask(&mut self, pod: &Pod) -> BTreeMap<String, String> {
        let needs: BTreeSet<Need> = self.volumes.iter().flat_map(Volume::needs).collect();
        let now = Instant::now();
        let due = needs
            .into_iter()
            .filter(|need| self.tokens.get(need).is_none_or(|token| token.renewal() <= now));
        let shared = &self.shared;
        let asked = due.map(|need| async move {
            let answer = shared.fetch(pod, &need).await;
            (need, answer)
        });
        let answers = futures::future::join_all(asked).await;
        let mut failures = BTreeMap::new();
        for (need, answer) in answers {
            let answer = answer.and_then(|answer| self.take(&need, answer, now));
            let Err(why) = answer else { continue };
            for volume in self.volumes.iter().filter(|volume| volume.needs().contains(&need)) {
                failures.insert(volume.name.clone(), why.clone());
            }
        }
        failures
    }

    fn take(&mut self, need: &Need, answer: Option<Value>, asked: Instant) -> Result<(), String> {
        let found = match (need, answer) {
            (Need::Token { .. }, Some(answer)) => {
                let token = answer.pointer("/status/token").and_then(Value::as_str);
                let seconds = answer.pointer("/spec/expirationSeconds").and_then(Value::as_u64);
                let (Some(token), Some(seconds)) = (token, seconds) else {
                    return Err("failed to fetch token: the answer has none".to_owned());
                };
                let token_asked = Token { asked, lifetime: Duration::from_secs(seconds) };
                self.tokens.insert(need.clone(), token_asked);
                Found::Token(token.to_owned())
            }
            (Need::Token { .. }, None) => {
                return Err("failed to fetch token: the account or the Pod is not there".to_owned());
            }
            (Need::ConfigMap(_) | Need::Secret(_), Some(object)) => Found::Object(object),
            (Need::ConfigMap(_) | Need::Secret(_), None) => Found::Missing,
        };
        self.found.insert(need.clone(), found);
        Ok(())
    }

    /// Writes what is known; what is not, by volume.
    fn write(&self, pod: &Pod) -> BTreeMap<String, String> {
        let dirs = self.shared.dirs(pod);
        let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let group = context.and_then(|context| context.fs_group);
        let group = group.and_then(|group| u32::try_from(group).ok());
        let write = |volume: &Volume| {
            let files = volume.files(pod, &self.found)?;
            let stamp = (self.shared.clock)();
            private(&dirs.data)
                .and_then(|()| files::write(&dirs.volume(&volume.name), &files, group, stamp))
                .map(drop)
                .map_err(|error| error.to_string())
        };
        let all = self.volumes.iter();
        let failed = all.filter_map(|volume| Some((volume.name.clone(), write(volume).err()?)));
        failed.collect()
    }
}

/// A directory that nobody else on the node can look into: Secrets are below it.
fn private(directory: &Path) -> io::Result<()> {
    const OWN: u32 = 0o700;
    DirBuilder::new().recursive(true).mode(OWN).create(directory)?;
    std::fs::set_permissions(directory, Permissions::from_mode(OWN))
}

impl Shared {
    /// All of several ConfigMaps and Secrets that a Pod needs.
    ///
    /// # Errors
    /// The first that could not be asked for.
    pub(crate) async fn fetch_all(
        &self,
        pod: &Pod,
        needs: BTreeSet<Need>,
    ) -> Result<BTreeMap<Need, Found>, String> {
        let asked = needs.into_iter().map(|need| async move {
            let found = self.fetch(pod, &need).await?.map_or(Found::Missing, Found::Object);
            Ok((need, found))
        });
        futures::future::try_join_all(asked).await.map(BTreeMap::from_iter)
    }

    /// What a Pod needs, as the control plane has it; `None` for what is not there.
    async fn fetch(&self, pod: &Pod, need: &Need) -> Result<Option<Value>, String> {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let (resource, name, body) = match need {
            Need::ConfigMap(name) => ("configmaps", name.clone(), None),
            Need::Secret(name) => ("secrets", name.clone(), None),
            Need::Token { audience, seconds } => {
                let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
                let account = account.filter(|name| !name.is_empty());
                (
                    TOKENS,
                    account.unwrap_or_else(|| api::service_account::DEFAULT.to_owned()),
                    Some(token_request(pod, audience, *seconds)),
                )
            }
        };
        let (answer, answered) = oneshot::channel();
        let namespace = of(&pod.metadata.namespace);
        let fetch = Fetch { resource, namespace, name, body, answer };
        let asked = async {
            let gone = || "the session with the control plane has ended".to_owned();
            self.fetches.send(fetch).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        };
        let late = |_| "timed out waiting for the control plane".to_owned();
        timeout(PATIENCE, asked).await.map_err(late)?
    }
}

/// For a token that ends with the Pod.
fn token_request(pod: &Pod, audience: &str, seconds: i64) -> Value {
    let audiences: Vec<&str> =
        Some(audience).filter(|audience| !audience.is_empty()).into_iter().collect();
    json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "spec": {
            "audiences": audiences, "expirationSeconds": seconds,
            "boundObjectRef": {
                "kind": "Pod", "apiVersion": "v1", "name": pod.metadata.name, "uid": pod.metadata.uid,
            },
        },
    })
}
