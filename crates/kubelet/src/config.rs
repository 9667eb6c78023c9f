//! From a Pod's spec to what the runtime is told.

use crate::{
    ending::{STOP_SIGNAL, signal},
    env,
    runtime::{ContainerConfig, Image, Mount, PodRef, Resources, SandboxConfig, Security},
    volumes::{self, Found, Need},
};
use api::{
    core::{Container, Pod, VolumeMount},
    resources::amount,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

/// Rotated at this size.
const LOG_BYTES_MAX: u64 = 10 << 20;

/// Why a container cannot be made from its spec: `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Where a Pod's own things are on the node.
#[derive(Debug, Clone)]
pub struct PodDirs {
    /// Volumes and files.
    pub data: PathBuf,
    /// Logs, kept for a while after the Pod.
    pub logs: PathBuf,
}

impl PodDirs {
    /// A volume's directory.
    #[must_use]
    pub fn volume(&self, name: &str) -> PathBuf {
        self.data.join("volumes").join(name)
    }

    /// A container's log.
    #[must_use]
    pub fn log(&self, container: &str, attempt: u32) -> PathBuf {
        self.logs.join(container).join(format!("{attempt}.log"))
    }
}

/// Bounds of one container.
#[must_use]
pub fn resources(container: &Container) -> Resources {
    let list = container.resources.clone().unwrap_or_default();
    let of = |map: &Option<BTreeMap<String, api::core::QuantityText>>, name: &str| {
        let text = map.as_ref()?.get(name)?;
        u64::try_from(amount(name, text)).ok().filter(|amount| *amount > 0)
    };
    Resources {
        cpu_limit_millis: of(&list.limits, "cpu"),
        cpu_request_millis: of(&list.requests, "cpu"),
        memory_limit_bytes: of(&list.limits, "memory"),
        pids_limit: None,
    }
}

/// What a `fieldRef` means; `None` for what there is not.
pub(crate) fn field(pod: &Pod, path: &str, pod_ip: &str, host_ip: &str) -> Option<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    Some(match path {
        "metadata.name" => metadata.name.clone()?,
        "metadata.namespace" => metadata.namespace.clone()?,
        "metadata.uid" => metadata.uid.clone()?,
        "spec.nodeName" => spec?.node_name.clone()?,
        "spec.serviceAccountName" => spec?.service_account_name.clone().unwrap_or_default(),
        "status.podIP" | "status.podIPs" => pod_ip.to_owned(),
        "status.hostIP" | "status.hostIPs" => host_ip.to_owned(),
        path => {
            let (map, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = match map {
                "metadata.labels" => metadata.labels.as_ref()?,
                "metadata.annotations" => metadata.annotations.as_ref()?,
                _ => return None,
            };
            map.get(key).cloned().unwrap_or_default()
        }
    })
}

/// The container among whose processes one that was added to the Pod lives (SUB-4).
fn target(pod: &Pod, name: &str) -> Option<String> {
    let added = pod.spec.as_ref()?.ephemeral_containers.as_ref()?;
    let target = added.iter().find(|added| added.name == name)?.target_container_name.clone();
    target.filter(|target| !target.is_empty())
}

/// What a container finds around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) dirs: &'a PodDirs,
    pub(crate) pod_ip: &'a str,
    pub(crate) host_ip: &'a str,
    /// Host and port of an API that its Pod can reach.
    pub(crate) api: Option<(&'a str, &'a str)>,
    /// What its variables are made of.
    pub(crate) found: &'a BTreeMap<Need, Found>,
}

/// One container, resolved.
///
/// # Errors
/// [`ConfigError`] for what the spec asks for and this node cannot give.
pub(crate) fn container(
    pod: &Pod,
    spec: &Container,
    attempt: u32,
    image: &Image,
    around: &Around<'_>,
) -> Result<ContainerConfig, ConfigError> {
    let env = env::variables(pod, spec, &image.env, around)?;
    let dirs = around.dirs;
    let list = |own: &Option<Vec<String>>| own.clone().filter(|l| !l.is_empty());
    // ENV-2
    let (command, arguments) = match (list(&spec.command), list(&spec.args)) {
        (Some(command), arguments) => (command, arguments.unwrap_or_default()),
        (None, Some(arguments)) => (image.entrypoint.clone(), arguments),
        (None, None) => (image.entrypoint.clone(), image.cmd.clone()),
    };
    let all = command.iter().chain(&arguments);
    let argv: Vec<String> = all.map(|argument| env::expand(argument, &env)).collect();
    if argv.is_empty() {
        return Err(ConfigError("no command specified".to_owned()));
    }
    let context = spec.security_context.clone().unwrap_or_default();
    let pod_context =
        pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let id = |own: Option<i64>, of_pod: Option<i64>| {
        own.or(of_pod).and_then(|id| u32::try_from(id).ok())
    };
    let capabilities = context.capabilities.clone().unwrap_or_default();
    let user = id(context.run_as_user, pod_context.run_as_user);
    let non_root = context.run_as_non_root.or(pod_context.run_as_non_root).unwrap_or_default();
    if non_root && is_root(user, &image.user) {
        let text = "container has runAsNonRoot and image will run as root";
        return Err(ConfigError(text.to_owned()));
    }
    Ok(ContainerConfig {
        name: spec.name.clone(),
        attempt,
        target: target(pod, &spec.name),
        image: spec.image.clone().unwrap_or_default(),
        image_id: image.id.clone(),
        argv,
        working_dir: spec
            .working_dir
            .clone()
            .filter(|dir| !dir.is_empty())
            .unwrap_or_else(|| image.working_dir.clone()),
        mounts: mounts(pod, spec, &env, dirs)?,
        env,
        resources: resources(spec),
        security: Security {
            run_as_user: user,
            run_as_group: id(context.run_as_group, pod_context.run_as_group),
            supplemental_groups: pod_context
                .supplemental_groups
                .iter()
                .chain(&pod_context.fs_group.map(|group| vec![group]))
                .flatten()
                .filter_map(|group| u32::try_from(*group).ok())
                .collect(),
            privileged: context.privileged.unwrap_or_default(),
            read_only_root: context.read_only_root_filesystem.unwrap_or_default(),
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            no_new_privileges: true,
        },
        stdin: spec.stdin.unwrap_or_default(),
        stdin_once: spec.stdin_once.unwrap_or_default(),
        tty: spec.tty.unwrap_or_default(),
        log_path: dirs.log(&spec.name, attempt),
        log_bytes_max: LOG_BYTES_MAX,
        termination_message_path: spec
            .termination_message_path
            .clone()
            .unwrap_or_else(|| "/dev/termination-log".to_owned()),
        hash: 0,
        annotations: stop_signal(spec, image)?,
    })
}

/// Whether a container's program would be root: by the Pod, else by the image's `USER`. A name in it
/// is not known to be another user.
fn is_root(user: Option<u32>, image_user: &str) -> bool {
    let of_image = image_user.split(':').next().unwrap_or_default();
    user.unwrap_or_else(|| of_image.parse().unwrap_or(0)) == 0
}

/// DEL-22: kept with the container, so that a kubelet that starts anew knows it without the image.
fn stop_signal(spec: &Container, image: &Image) -> Result<BTreeMap<String, String>, ConfigError> {
    let asked = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    let number = match asked {
        Some(text) => Some(
            signal(text)
                .ok_or_else(|| ConfigError(format!("stop signal {text:?} is not known")))?,
        ),
        None => image.stop_signal,
    };
    Ok(number.map(|number| (STOP_SIGNAL.to_owned(), number.to_string())).into_iter().collect())
}

/// Where a sandbox keeps the Pod that it was made for.
const POD: &str = "trireme.io/pod";

/// A Pod's sandbox (NET-1).
#[must_use]
pub fn sandbox(pod: &Pod, attempt: u32) -> SandboxConfig {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let hostname: String =
        spec.hostname.clone().unwrap_or_else(|| name.clone()).chars().take(63).collect();
    let kept = Pod {
        metadata: api::core::ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            ..Default::default()
        },
        ..pod.clone()
    };
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    annotations.insert(POD.to_owned(), serde_json::to_string(&kept).unwrap_or_default());
    SandboxConfig {
        pod: PodRef {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name,
            uid: metadata.uid.clone().unwrap_or_default(),
        },
        attempt,
        hostname: hostname.trim_end_matches(['-', '.']).to_owned(),
        host_network: spec.host_network.unwrap_or_default(),
        resources: Resources::default(),
        annotations,
    }
}

/// The Pod that a sandbox was made for: what a kubelet knows of it when nobody else does (DEL-31).
#[must_use]
pub fn pod_of(sandbox: &SandboxConfig) -> Option<Pod> {
    serde_json::from_str(sandbox.annotations.get(POD)?).ok()
}

fn mounts(
    pod: &Pod,
    spec: &Container,
    env: &[(String, String)],
    dirs: &PodDirs,
) -> Result<Vec<Mount>, ConfigError> {
    let all = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let by_name: BTreeMap<&str, _> = all.map(|v| (v.name.as_str(), v)).collect();
    spec.volume_mounts
        .iter()
        .flatten()
        .map(|mount| {
            let volume = by_name.get(mount.name.as_str());
            let host = volume.and_then(|v| v.host_path.as_ref()).map(|h| PathBuf::from(&h.path));
            let made = volume.is_some_and(|volume| volumes::is_made(volume));
            let source = match (volume.and_then(|v| v.empty_dir.as_ref()), host) {
                (Some(_), _) => dirs.volume(&mount.name),
                (None, Some(path)) => path,
                (None, None) if made => dirs.volume(&mount.name),
                (None, None) => {
                    let name = &mount.name;
                    let text =
                        format!("volume {name}: this source is not supported by this node yet");
                    return Err(ConfigError(text));
                }
            };
            Ok(Mount {
                host_path: source,
                sub_path: sub_path(mount, env)?,
                container_path: Path::new(&mount.mount_path).to_owned(),
                // What is made from objects is theirs to change.
                read_only: made || mount.read_only.unwrap_or_default(),
            })
        })
        .collect()
}

/// What of its volume a mount shows. Whether that is in the volume is for who mounts it to see; that it does not
/// say otherwise has been seen by the API, but not of what variables put into it.
fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<PathBuf, ConfigError> {
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    let text = if expression.is_empty() {
        mount.sub_path.clone().unwrap_or_default()
    } else {
        env::expand_known(expression, env)
            .map_err(|name| ConfigError(format!("missing value for {name:?}")))?
    };
    let path = Path::new(&text);
    if path.is_absolute() {
        return Err(ConfigError(format!("subPath {text:?} must not be an absolute path")));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(ConfigError(format!("subPath {text:?} must not contain '..'")));
    }
    Ok(path.to_owned())
}

/// Volumes that live and die with the Pod.
#[must_use]
pub fn empty_dirs(pod: &Pod) -> BTreeSet<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter(|v| v.empty_dir.is_some()).map(|v| v.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(user: &str) -> Image {
        Image {
            id: "i".into(),
            size_bytes: 0,
            entrypoint: vec!["run".into()],
            cmd: vec!["it".into()],
            env: vec![],
            working_dir: "/".into(),
            user: user.into(),
            stop_signal: Some(3),
        }
    }

    fn resolve(spec: serde_json::Value, user: &str) -> Result<ContainerConfig, ConfigError> {
        let pod = crate::testing::pod(spec);
        let own = pod.spec.as_ref().unwrap().containers[0].clone();
        let dirs = PodDirs { data: "/data".into(), logs: "/logs".into() };
        let (pod_ip, host_ip, found) = ("10.0.0.7", "127.0.0.1", &BTreeMap::new());
        let around = Around { dirs: &dirs, pod_ip, host_ip, api: None, found };
        container(&pod, &own, 0, &image(user), &around)
    }

    #[test]
    fn a_command_replaces_what_the_image_says() {
        // ENV-2
        for (command, args, want) in [
            (json!(null), json!(null), vec!["run", "it"]),
            (json!(null), json!(["x"]), vec!["run", "x"]),
            (json!(["c"]), json!(null), vec!["c"]),
            (json!(["c"]), json!(["x"]), vec!["c", "x"]),
        ] {
            let spec = json!({"containers": [{"name": "a", "command": command, "args": args}]});
            assert_eq!(resolve(spec, "").unwrap().argv, want, "{command} {args}");
        }
    }

    #[test]
    fn a_sub_path_is_relative_and_never_upwards_whatever_variables_say() {
        let mounted = |mount: serde_json::Value| {
            let mut all = json!({"name": "v", "mountPath": "/v"});
            all.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
            let env = json!([{"name": "A", "value": "a/b"}, {"name": "UP", "value": ".."},
                             {"name": "ROOT", "value": "/"}]);
            let container = json!({"name": "a", "env": env, "volumeMounts": [all]});
            let volumes = json!([{"name": "v", "emptyDir": {}}]);
            let config = resolve(json!({"containers": [container], "volumes": volumes}), "");
            let mount = |config: ContainerConfig| {
                let [Mount { host_path, sub_path, .. }] = config.mounts.as_slice() else {
                    panic!("{:?}", config.mounts)
                };
                assert_eq!(host_path, Path::new("/data/volumes/v"));
                sub_path.display().to_string()
            };
            config.map(mount).map_err(|ConfigError(text)| text)
        };
        let text = |text: &str| text.to_owned();
        for (mount, want) in [
            (json!({}), Ok(text(""))),
            (json!({"subPath": "x/y"}), Ok(text("x/y"))),
            (json!({"subPath": "$(A)"}), Ok(text("$(A)"))),
            (json!({"subPathExpr": "x/$(A)"}), Ok(text("x/a/b"))),
            (json!({"subPathExpr": "$$(A)"}), Ok(text("$(A)"))),
            (json!({"subPathExpr": "$(B)"}), Err(text("missing value for \"B\""))),
            (
                json!({"subPath": "/etc"}),
                Err(text("subPath \"/etc\" must not be an absolute path")),
            ),
            (json!({"subPath": "a/../.."}), Err(text("subPath \"a/../..\" must not contain '..'"))),
            (
                json!({"subPathExpr": "x/$(UP)/y"}),
                Err(text("subPath \"x/../y\" must not contain '..'")),
            ),
            (
                json!({"subPathExpr": "$(ROOT)etc"}),
                Err(text("subPath \"/etc\" must not be an absolute path")),
            ),
        ] {
            assert_eq!(mounted(mount.clone()), want, "{mount}");
        }
    }

    #[test]
    fn a_container_that_must_not_be_root_is_not() {
        // §1.1: what guards is not ignored
        for (own, of_pod, user, good) in [
            (json!({"runAsNonRoot": true}), json!({}), "", false),
            (json!({"runAsNonRoot": true}), json!({}), "0:0", false),
            (json!({"runAsNonRoot": true}), json!({}), "nobody", false),
            (json!({"runAsNonRoot": true}), json!({}), "65534", true),
            (json!({"runAsNonRoot": true, "runAsUser": 7}), json!({}), "", true),
            (json!({}), json!({"runAsNonRoot": true}), "", false),
            (json!({"runAsNonRoot": false}), json!({"runAsNonRoot": true}), "", true),
        ] {
            let spec = json!({
                "securityContext": of_pod,
                "containers": [{"name": "a", "securityContext": own}],
            });
            assert_eq!(resolve(spec, user).is_ok(), good, "{own} {of_pod} {user:?}");
        }
        let context = json!({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}});
        let spec = json!({
            "securityContext": {"supplementalGroups": [5], "fsGroup": 6},
            "containers": [{"name": "a", "securityContext": context}],
        });
        let security = resolve(spec, "").unwrap().security;
        assert_eq!(security.drop_capabilities, ["ALL"]);
        assert_eq!(security.add_capabilities, ["CHOWN"]);
        assert_eq!(security.supplemental_groups, [5, 6]);
    }

    #[test]
    fn the_stop_signal_of_the_pod_counts_before_that_of_the_image() {
        // DEL-22
        let of =
            |lifecycle| resolve(json!({"containers": [{"name": "a", "lifecycle": lifecycle}]}), "");
        assert_eq!(of(json!({})).unwrap().annotations[STOP_SIGNAL], "3");
        assert_eq!(of(json!({"stopSignal": "SIGUSR2"})).unwrap().annotations[STOP_SIGNAL], "12");
        assert!(of(json!({"stopSignal": "SIGNONE"})).is_err());
    }

    #[test]
    fn a_sandbox_remembers_its_pod() {
        // DEL-31, NET-1
        let mut pod = crate::testing::pod(json!({"containers": [{"name": "a"}]}));
        pod.metadata.name = Some(format!("{}-{}", "x".repeat(62), "y".repeat(9)));
        pod.metadata.annotations = Some([("own".to_owned(), "1".to_owned())].into());
        let config = sandbox(&pod, 2);
        assert_eq!((config.attempt, config.hostname), (2, "x".repeat(62)));
        assert_eq!(config.annotations["own"], "1");
        let kept = pod_of(&sandbox(&pod, 2)).unwrap();
        assert_eq!((kept.metadata.uid, kept.spec), (pod.metadata.uid, pod.spec));
    }
}
