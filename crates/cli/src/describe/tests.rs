//! Screens as golden text, over fixed objects at a fixed time.

use super::*;
use serde_json::json;

const NOW: &str = "2026-01-01T01:00:00Z";

fn shown(kind: &str, described: &Described) -> String {
    let kind = kinds::by_alias(kind).unwrap();
    render(kind, described, meta::parse_time(NOW).unwrap())
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web", "namespace": "default", "uid": "u1",
            "creationTimestamp": "2026-01-01T00:50:00Z", "labels": {"tier": "front", "app": "web"},
        },
        "spec": {
            "nodeName": "n1", "priority": 0, "serviceAccountName": "default",
            "initContainers": [{"name": "init", "image": "toolbox", "command": ["true"]}],
            "containers": [{
                "name": "main", "image": "toolbox", "command": ["sh", "-c"], "args": ["sleep 9"],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1", "memory": "128Mi"}, "requests": {"cpu": "100m"}},
                "livenessProbe": {"exec": {"command": ["cat", "/ok"]}, "periodSeconds": 5},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}},
                "env": [
                    {"name": "MODE", "value": "fast"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
                "volumeMounts": [
                    {"name": "scratch", "mountPath": "/tmp"},
                    {"name": "config", "mountPath": "/etc/c", "readOnly": true},
                ],
            }],
            "volumes": [
                {"name": "scratch", "emptyDir": {}}, {"name": "config", "configMap": {"name": "c"}},
            ],
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
                 "tolerationSeconds": 300},
                {"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"},
            ],
        },
        "status": {
            "phase": "Running", "hostIP": "192.0.2.1", "podIP": "10.244.1.2",
            "podIPs": [{"ip": "10.244.1.2"}], "startTime": "2026-01-01T00:50:01Z",
            "qosClass": "Burstable",
            "conditions": [
                {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"},
            ],
            "initContainerStatuses": [{
                "name": "init", "image": "toolbox", "imageID": "", "containerID": "native://1",
                "ready": true, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "reason": "Completed",
                    "startedAt": "2026-01-01T00:50:01Z", "finishedAt": "2026-01-01T00:50:02Z"}},
            }],
            "containerStatuses": [{
                "name": "main", "image": "toolbox", "imageID": "", "containerID": "native://3",
                "ready": false, "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"exitCode": 137, "signal": 9, "reason": "Error",
                    "startedAt": "2026-01-01T00:55:00Z", "finishedAt": "2026-01-01T00:56:00Z"}},
            }],
        },
    })
}

fn event(reason: &str, minute: u32, count: u32) -> Value {
    json!({
        "type": if count > 1 { "Warning" } else { "Normal" }, "reason": reason, "count": count,
        "firstTimestamp": format!("2026-01-01T00:{minute}:00Z"),
        "lastTimestamp": "2026-01-01T00:59:30Z".replace("59:30", &format!("{}:30", minute)),
        "source": {"component": "kubelet"}, "message": format!("about {reason}"),
    })
}

#[test]
fn a_pod() {
    let events = vec![event("BackOff", 57, 4), event("Scheduled", 50, 1)];
    let described = Described { object: pod(), events, ..Described::default() };
    insta::assert_snapshot!(shown("pod", &described));
}

#[test]
fn a_pod_on_its_way_out_says_until_when() {
    let mut object = pod();
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T01:00:30Z");
    object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    let text = shown("pod", &Described { object, ..Described::default() });
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("Terminat")).collect();
    let want = "Status:                    Terminating (until Thu, 01 Jan 2026 01:00:30 +0000)";
    assert_eq!(lines.first(), Some(&want));
    assert_eq!(lines.get(1), Some(&"Termination Grace Period:  30s"));
}

#[test]
fn a_node() {
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": "n1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/hostname": "n1", "node-role.kubernetes.io/worker": ""},
        },
        "spec": {
            "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"],
            "taints": [
                {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
                {"key": "a", "value": "b", "effect": "NoExecute"},
            ],
        },
        "status": {
            "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "nodeInfo": {"kernelVersion": "6.1", "kubeletVersion": "v0.1.0"},
            "conditions": [{
                "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastTransitionTime": "2026-01-01T00:10:00Z",
            }],
        },
    });
    let mut ended = pod();
    ended["status"]["phase"] = json!("Succeeded");
    let lease =
        json!({"spec": {"holderIdentity": "n1", "renewTime": "2026-01-01T00:09:00.000000Z"}});
    let events = vec![event("NodeNotReady", 10, 1)];
    let described = Described { object, events, related: vec![pod(), ended], lease };
    insta::assert_snapshot!(shown("node", &described));
}

#[test]
fn a_service() {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "type": "ClusterIP", "selector": {"app": "web"}, "clusterIP": "10.96.0.20",
            "clusterIPs": ["10.96.0.20"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
            ],
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        },
    });
    let endpoint = |i: u32| {
        json!({"addresses": [format!("10.244.1.{i}")],
               "conditions": {"ready": i != 2, "serving": true, "terminating": i == 2}})
    };
    let slice = json!({
        "addressType": "IPv4", "endpoints": (1..=6).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 8080}],
    });
    let described = Described { object, related: vec![slice], ..Described::default() };
    insta::assert_snapshot!(shown("service", &described));
}

#[test]
fn any_other_object() {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "c", "namespace": "default", "uid": "u1", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "data": {"some.key": "one", "text": "a\nb"},
    });
    insta::assert_snapshot!(shown("configmap", &Described { object, ..Described::default() }));
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"},
        "data": {"password": "c2VjcmV0IQ=="}, "type": "Opaque",
    });
    let text = shown("secret", &Described { object: secret, ..Described::default() });
    assert!(text.contains("password:  7 bytes") && !text.contains("c2Vj"), "{text}");
}
