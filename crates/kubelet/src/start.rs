//! How a worker starts one container: its image, its configuration, the runtime, its postStart hook.

use crate::{
    config::{self, Around},
    env, hooks,
    pull::{Failure, Pull, decide},
    runtime::{ContainerId, Image, RuntimeError, RuntimePod},
    volumes::{Found, Need},
    worker::{Done, RETRY, Worker, go_duration, pod_ip, spec_of},
};
use api::core::{Container, Pod};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

impl Worker {
    /// Starts an instance, or says in the status why it has to wait.
    pub(crate) async fn start(
        &mut self,
        pod: &Pod,
        runtime: Option<&RuntimePod>,
        name: &str,
        attempt: u32,
    ) -> Result<(), RuntimeError> {
        self.memory.holds.remove(name);
        let Some(container) = spec_of(pod, name) else { return Ok(()) };
        let Some(image) = self.pulled.get(name).cloned() else {
            self.look_for_image(&container);
            return Ok(());
        };
        if !self.has_volumes(name) {
            return Ok(());
        }
        let Some(found) = self.what_variables_need(pod, &container) else { return Ok(()) };
        let ip = pod_ip(pod, runtime, &self.shared.host_ip);
        let (dirs, host_ip) = (self.shared.dirs(pod), &self.shared.host_ip);
        let api = self.shared.api_of(pod);
        let around = Around { dirs: &dirs, pod_ip: &ip, host_ip, api, found: &found };
        let config = match config::container(pod, &container, attempt, &image, &around) {
            Ok(config) => config,
            Err(error) => {
                self.fail(pod, name, "CreateContainerConfigError", &error.to_string());
                return Ok(());
            }
        };
        self.pulled.remove(name);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        match self.shared.runtime.start_container(uid, config).await {
            Ok(started) => {
                self.waiting.remove(name);
                self.container_event(pod, name, "Normal", "Created", "Container created");
                self.container_event(pod, name, "Normal", "Started", "Container started");
                self.start_post_start(pod, &container, started.id, &ip);
            }
            Err(RuntimeError::Start { detail }) => {
                // It is there as exited with 128; the restart policy decides.
                self.waiting.remove(name);
                self.container_event(pod, name, "Warning", "Failed", &format!("Error: {detail}"));
            }
            Err(error) => self.fail(pod, name, "CreateContainerError", &error.to_string()),
        }
        Ok(())
    }

    /// What a container's variables are made of; `None` while it is asked for (ENV-1).
    fn what_variables_need(
        &mut self,
        pod: &Pod,
        container: &Container,
    ) -> Option<BTreeMap<Need, Found>> {
        let needs = env::needs(container);
        if needs.is_empty() {
            return Some(BTreeMap::new());
        }
        let found = self.found.remove(&container.name);
        if found.is_none() {
            let (shared, pod, name) =
                (Arc::clone(&self.shared), pod.clone(), container.name.clone());
            self.memory.holds.insert(name.clone(), None);
            self.pulls.spawn(async move {
                Done::Found { result: shared.fetch_all(&pod, needs).await, name }
            });
        }
        found
    }

    pub(crate) fn found_done(
        &mut self,
        pod: &Pod,
        name: &str,
        result: Result<BTreeMap<Need, Found>, String>,
    ) {
        self.memory.holds.remove(name);
        match result {
            Ok(found) => drop(self.found.insert(name.to_owned(), found)),
            Err(why) => self.fail(pod, name, "CreateContainerConfigError", &why),
        }
    }

    /// Says why a container does not start; it is tried again.
    fn fail(&mut self, pod: &Pod, name: &str, reason: &str, message: &str) {
        tracing::info!(container = name, reason, message, "container not started");
        self.container_event(pod, name, "Warning", "Failed", &format!("Error: {message}"));
        self.wait_for(name, reason, message, Some(Instant::now() + RETRY));
    }

    fn wait_for(&mut self, name: &str, reason: &str, message: &str, until: Option<Instant>) {
        self.waiting.insert(name.to_owned(), (reason.to_owned(), message.to_owned()));
        self.memory.holds.insert(name.to_owned(), until);
    }

    /// Beside the worker, which may have a Pod to end meanwhile.
    fn look_for_image(&mut self, container: &Container) {
        let (shared, name) = (Arc::clone(&self.shared), container.name.clone());
        let reference = container.image.clone().unwrap_or_default();
        self.memory.holds.insert(name.clone(), None);
        self.pulls.spawn(async move {
            Done::Looked { result: shared.runtime.image(&reference).await, name }
        });
    }

    /// What is to be done about an image, now that it is known whether it is here (BKO-2).
    pub(crate) fn look_done(
        &mut self,
        pod: &Pod,
        name: &str,
        result: Result<Option<Image>, RuntimeError>,
    ) {
        self.memory.holds.remove(name);
        let Some(container) = spec_of(pod, name) else { return };
        let reference = container.image.clone().unwrap_or_default();
        let here = match result {
            Ok(here) => here,
            Err(error) => {
                let text = error.to_string();
                let (reason, failed) = if is_bad_name(&error) {
                    ("InvalidImageName", "apply default image tag")
                } else {
                    ("ImageInspectError", "inspect image")
                };
                let message = format!("Failed to {failed} \"{reference}\": {text}");
                self.image_event(pod, name, "InspectFailed", &message, reason);
                self.wait_for(name, reason, &message, Some(Instant::now() + RETRY * 10));
                return;
            }
        };
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let failure = self.pull_failures.get(&reference);
        match decide(policy, here.is_some(), failure, Instant::now()) {
            Pull::Use => {
                let message = format!("Container image \"{reference}\" already present on machine");
                self.container_event(pod, name, "Normal", "Pulled", &message);
                self.pulled.extend(here.map(|image| (name.to_owned(), image)));
            }
            Pull::Never => {
                let message = format!(
                    "Container image \"{reference}\" is not present with pull policy of Never"
                );
                let reason = "ErrImageNeverPull";
                self.image_event(pod, name, reason, &message, reason);
                self.wait_for(name, reason, &message, Some(Instant::now() + RETRY * 10));
            }
            Pull::Wait(until) => {
                let back_off = format!("Back-off pulling image \"{reference}\"");
                let error = failure.map(|failure| failure.error.clone()).unwrap_or_default();
                self.container_event(pod, name, "Normal", "BackOff", &back_off);
                self.container_event(pod, name, "Warning", "Failed", "Error: ImagePullBackOff");
                let message = format!("{back_off}: ErrImagePull: {error}");
                self.wait_for(name, "ImagePullBackOff", &message, Some(until));
            }
            Pull::Fetch => {
                let message = format!("Pulling image \"{reference}\"");
                self.container_event(pod, name, "Normal", "Pulling", &message);
                self.memory.holds.insert(name.to_owned(), None);
                let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
                self.pulls.spawn(async move {
                    let began = Instant::now();
                    let result = shared.runtime.pull_image(&reference).await;
                    Done::Pulled { name, reference, result, took: began.elapsed() }
                });
            }
        }
    }

    /// What went wrong with an image, and what the container's status now says.
    fn image_event(&self, pod: &Pod, name: &str, reason: &str, message: &str, state: &str) {
        self.container_event(pod, name, "Warning", reason, message);
        self.container_event(pod, name, "Warning", "Failed", &format!("Error: {state}"));
    }

    pub(crate) fn pull_done(
        &mut self,
        pod: &Pod,
        name: &str,
        reference: &str,
        result: Result<Image, RuntimeError>,
        took: Duration,
    ) {
        self.memory.holds.remove(name);
        match result {
            Ok(image) => {
                let took = go_duration(took);
                let size = image.size_bytes;
                let message = format!(
                    "Successfully pulled image \"{reference}\" in {took} ({took} including \
                     waiting). Image size: {size} bytes."
                );
                self.container_event(pod, name, "Normal", "Pulled", &message);
                self.pull_failures.remove(reference);
                self.waiting.remove(name);
                self.pulled.insert(name.to_owned(), image);
            }
            Err(error) => {
                let text = error.to_string();
                let message = format!("Failed to pull image \"{reference}\": {text}");
                let reason = if is_bad_name(&error) { "InvalidImageName" } else { "ErrImagePull" };
                self.image_event(pod, name, "Failed", &message, reason);
                // Shown for a moment, before the back-off is.
                self.wait_for(name, reason, &text, Some(Instant::now() + RETRY));
                let before = self.pull_failures.get(reference);
                let failure = Failure::after(before, text, Instant::now());
                self.pull_failures.insert(reference.to_owned(), failure);
            }
        }
    }

    fn start_post_start(&mut self, pod: &Pod, container: &Container, id: ContainerId, ip: &str) {
        let hook = container.lifecycle.clone().and_then(|lifecycle| lifecycle.post_start);
        let Some(hook) = hook else { return };
        self.memory.starting = Some(id.clone());
        let (shared, container, ip) = (Arc::clone(&self.shared), container.clone(), ip.to_owned());
        tracing::debug!(pod = pod.metadata.name, container = id.0, "postStart hook");
        self.hooks.spawn(async move {
            let result = hooks::run(shared.runtime.as_ref(), &id, &container, &hook, &ip).await;
            Done::PostStart { id, name: container.name, result }
        });
    }

    /// LIF-1
    pub(crate) async fn post_start_done(
        &mut self,
        pod: &Pod,
        id: ContainerId,
        name: &str,
        result: Result<(), String>,
    ) {
        if self.memory.starting.as_ref() == Some(&id) {
            self.memory.starting = None;
        }
        let Err(error) = result else { return };
        tracing::info!(error, container = id.0, "postStart hook failed");
        let reason = "FailedPostStartHook";
        self.container_event(pod, name, "Warning", reason, "PostStartHook failed");
        self.container_event(pod, name, "Normal", "Killing", reason);
        let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("Never") {
            let waiting = ("PostStartHookError".to_owned(), "PostStartHook failed".to_owned());
            self.waiting.insert(name.to_owned(), waiting);
        }
        if let Err(error) = self.shared.runtime.kill(&id).await {
            tracing::warn!(%error, container = id.0, "not killed after its postStart hook");
        }
    }
}

fn is_bad_name(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::InvalidImageName { .. })
}
