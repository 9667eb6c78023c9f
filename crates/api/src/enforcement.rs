//! Fields of a Pod that are stored and that no node acts upon: said aloud, or refused (§1.1).
//!
//! What a node finds it cannot do for a container, such as a kind of volume, it says in the Pod's
//! status; that is not repeated here.

use crate::field::{FieldError, Path};
use serde_json::Value;

/// Where, and what happens instead. `*` stands for every item of a list; `=` for a value.
const STORED: &[(&str, &str)] = &[
    ("containers/*/livenessProbe", "not run: a container that hangs is not restarted"),
    ("containers/*/readinessProbe", "not run: a container is ready when it runs"),
    ("containers/*/startupProbe", "not run: a container has started when it runs"),
    ("containers/*/lifecycle/preStop/httpGet/scheme=HTTPS", "not supported: the hook fails"),
    ("containers/*/lifecycle/postStart/httpGet/scheme=HTTPS", "not supported: the hook fails"),
    ("containers/*/resizePolicy", "not acted upon: resources do not change in place"),
    ("containers/*/terminationMessagePolicy=FallbackToLogsOnError", "taken as File"),
    ("containers/*/volumeDevices", "not supported: the device is not there"),
    ("containers/*/securityContext/procMount", "taken as Default"),
    ("dnsConfig", "not acted upon: containers have the image's resolv.conf"),
    ("hostAliases", "not acted upon: containers have the image's hosts file"),
    ("hostIPC=true", "not granted: the Pod has an IPC namespace of its own"),
    ("hostPID=true", "not granted: each container has a PID namespace of its own"),
    ("shareProcessNamespace=true", "not granted: each container has a PID namespace of its own"),
    ("runtimeClassName", "not acted upon: there is one runtime"),
    ("setHostnameAsFQDN=true", "not acted upon"),
    ("subdomain", "not acted upon"),
    ("volumes/*/emptyDir/sizeLimit", "not enforced"),
    ("volumes/*/emptyDir/medium=Memory", "not acted upon: the volume is on disk"),
];

/// What guards the node or the container, and would not.
const REFUSED: &[(&str, &str)] = &[
    ("containers/*/securityContext/appArmorProfile/type=Localhost", "AppArmor profiles"),
    ("containers/*/securityContext/seLinuxOptions", "SELinux options"),
    ("containers/*/securityContext/seccompProfile/type=Localhost", "seccomp profiles of the node"),
    ("hostUsers=false", "user namespaces"),
    ("securityContext/appArmorProfile/type=Localhost", "AppArmor profiles"),
    ("securityContext/seLinuxOptions", "SELinux options"),
    ("securityContext/seccompProfile/type=Localhost", "seccomp profiles of the node"),
];

/// What to tell who writes a Pod or a template for Pods, whose spec is at `path`.
#[must_use]
pub fn warnings(spec: &Value, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (place, why) in STORED {
        for path in places(spec, path, place) {
            found.push(format!("{path}: {why}"));
        }
    }
    found
}

/// What is refused in the spec of a new Pod or of a template for Pods, which is at `path`.
#[must_use]
pub fn refusals(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut found = Vec::new();
    for (place, what) in REFUSED {
        for path in places(spec, path, place) {
            found
                .push(FieldError::forbidden(&path, format!("{what} are not enforced by any node")));
        }
    }
    found
}

/// Every place in the spec that a row means; of containers, init containers and added ones too.
fn places(spec: &Value, path: &Path, place: &str) -> Vec<Path> {
    let (place, wanted) = place.split_once('=').map_or((place, None), |(p, v)| (p, Some(v)));
    let (first, rest) = place.split_once('/').map_or((place, None), |(f, r)| (f, Some(r)));
    let mut found = Vec::new();
    let others: &[&str] =
        if first == "containers" { &["initContainers", "ephemeralContainers"] } else { &[] };
    for field in [first].iter().chain(others) {
        if let Some(value) = spec.get(field) {
            walk(value, rest, wanted, &mut vec![Step::Field(field)], &mut |way| {
                found.push(way.iter().fold(path.clone(), |path, step| match step {
                    Step::Field(name) => path.child(name),
                    Step::Item(at) => path.index(*at),
                }));
            });
        }
    }
    found
}

/// A step on the way to a place; a path is written only where something is found.
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

fn walk<'a>(
    value: &Value,
    rest: Option<&'a str>,
    wanted: Option<&str>,
    way: &mut Vec<Step<'a>>,
    found: &mut impl FnMut(&[Step<'a>]),
) {
    let Some(rest) = rest else {
        let is = match (wanted, value) {
            (None, value) => !matches!(value, Value::Null) && *value != serde_json::json!([]),
            (Some(wanted), Value::Bool(value)) => value.to_string() == wanted,
            (Some(wanted), value) => value == wanted,
        };
        if is {
            found(way);
        }
        return;
    };
    let (step, rest) = rest.split_once('/').map_or((rest, None), |(s, r)| (s, Some(r)));
    if step == "*" {
        for (at, item) in value.as_array().into_iter().flatten().enumerate() {
            way.push(Step::Item(at));
            walk(item, rest, wanted, way, found);
            way.pop();
        }
    } else if let Some(field) = value.get(step) {
        way.push(Step::Field(step));
        walk(field, rest, wanted, way, found);
        way.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_no_node_acts_upon_is_said() {
        // §1.1
        let probe = "not run: a container is ready when it runs";
        for (spec, want) in [
            (json!({"containers": [{"name": "a", "tty": false}], "hostPID": false}), vec![]),
            (
                json!({"containers": [{}, {"readinessProbe": {"tcpSocket": {"port": 1}}}]}),
                vec![format!("spec.containers[1].readinessProbe: {probe}")],
            ),
            (
                json!({"initContainers": [{"readinessProbe": {}}], "containers": [{}]}),
                vec![format!("spec.initContainers[0].readinessProbe: {probe}")],
            ),
            (
                json!({"containers": [{"lifecycle": {"preStop": {"httpGet": {"scheme": "HTTP"}}}}]}),
                vec![],
            ),
            (
                json!({"containers": [{"lifecycle": {"preStop": {"httpGet": {"scheme": "HTTPS"}}}}]}),
                vec![
                    "spec.containers[0].lifecycle.preStop.httpGet.scheme: not supported: the hook \
                      fails"
                        .to_owned(),
                ],
            ),
            (
                json!({"containers": [{}], "volumes": [{"emptyDir": {"sizeLimit": "1Mi"}}]}),
                vec!["spec.volumes[0].emptyDir.sizeLimit: not enforced".to_owned()],
            ),
        ] {
            assert_eq!(warnings(&spec, &Path::new("spec")), want, "{spec}");
        }
    }

    #[test]
    fn what_guards_and_would_not_is_refused() {
        // §1.1: "security-relevant fields MUST be rejected"
        for (spec, want) in [
            (json!({"hostUsers": true}), vec![]),
            (json!({"hostUsers": false}), vec!["spec.hostUsers"]),
            (json!({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}), vec![]),
            (
                json!({"containers": [{"securityContext": {"seLinuxOptions": {"level": "x"}}}]}),
                vec!["spec.containers[0].securityContext.seLinuxOptions"],
            ),
            (
                json!({"ephemeralContainers": [{"securityContext": {"seLinuxOptions": {"level": "x"}}}]}),
                vec!["spec.ephemeralContainers[0].securityContext.seLinuxOptions"],
            ),
        ] {
            let errors = refusals(&spec, &Path::new("spec"));
            let found: Vec<String> = errors.iter().map(|error| error.field.clone()).collect();
            assert_eq!(found, want, "{spec}");
        }
    }
}
