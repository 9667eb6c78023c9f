//! Pods and their containers for the tables of tests.

use crate::runtime::{
    Container, ContainerConfig, ContainerId, ContainerState, PodRef, Resources, RuntimePod,
    Sandbox, SandboxConfig, Security,
};
use api::core::Pod;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A Pod with this spec.
pub(crate) fn pod(spec: Value) -> Pod {
    let metadata = json!({"name": "p", "namespace": "d", "uid": "u", "generation": 3});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// A sandbox that is ready, with these containers: name, restart count, state.
pub(crate) fn runtime<'a>(
    containers: impl IntoIterator<Item = (&'a str, u32, ContainerState)>,
) -> RuntimePod {
    let pod = PodRef { namespace: "d".into(), name: "p".into(), uid: "u".into() };
    let config = SandboxConfig {
        pod,
        attempt: 0,
        hostname: "p".into(),
        host_network: false,
        resources: Resources::default(),
        annotations: BTreeMap::new(),
    };
    let ip = Some("10.244.0.2".parse().unwrap());
    RuntimePod {
        sandbox: Sandbox { config, ip, created_at: 0, ready: true },
        containers: containers
            .into_iter()
            .map(|(name, attempt, state)| container(name, attempt, state))
            .collect(),
    }
}

/// One instance; its id is `name-attempt`.
pub(crate) fn container(name: &str, attempt: u32, state: ContainerState) -> Container {
    let config = ContainerConfig {
        name: name.to_owned(),
        attempt,
        target: None,
        image: "toolbox".into(),
        image_id: "toolbox@sha256:0".into(),
        argv: vec![],
        env: vec![],
        working_dir: "/".into(),
        mounts: vec![],
        resources: Resources::default(),
        security: Security::default(),
        stdin: false,
        stdin_once: false,
        tty: false,
        log_path: "/".into(),
        log_bytes_max: 0,
        termination_message_path: String::new(),
        hash: 0,
        annotations: BTreeMap::new(),
    };
    Container { id: id(name, attempt), pod_uid: "u".into(), config, state }
}

/// Of [`container`].
pub(crate) fn id(name: &str, attempt: u32) -> ContainerId {
    ContainerId(format!("{name}-{attempt}"))
}

/// It runs.
pub(crate) fn running() -> ContainerState {
    ContainerState::Running { started_at: 1_000_000 }
}

/// It ended by itself.
pub(crate) fn exited(exit_code: i32) -> ContainerState {
    ContainerState::Exited {
        started_at: 1_000_000,
        finished_at: 2_000_000,
        exit_code,
        signal: None,
        oom_killed: false,
        message: String::new(),
    }
}
