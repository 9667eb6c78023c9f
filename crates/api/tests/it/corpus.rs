//! Wrong manifests of each kind and golden answers: code, reason, message and every cause, as upstream
//! words them (VAL-1…VAL-5).

use crate::manifests::{created, kind, updated};
use api::{field::FieldError, kinds::Kind, meta, status::Status};
use schema::fields::unknown_fields;
use serde_json::{Value, json};

/// The reason of a cause by the first words of its message (VAL-4).
fn reason(body: &str) -> &'static str {
    [
        ("Required value", "FieldValueRequired"),
        ("Invalid value", "FieldValueInvalid"),
        ("Unsupported value", "FieldValueNotSupported"),
        ("Duplicate value", "FieldValueDuplicate"),
        ("Forbidden", "FieldValueForbidden"),
        ("Not found", "FieldValueNotFound"),
        ("Too long", "FieldValueTooLong"),
        ("Too many", "FieldValueTooMany"),
    ]
    .into_iter()
    .find_map(|(words, reason)| body.starts_with(words).then_some(reason))
    .unwrap()
}

/// Holds the whole answer against what the errors, as `FIELD: BODY`, make of it.
fn expect(kind: &Kind, object: &Value, errors: &[FieldError], want: &[&str]) {
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(found, want, "{kind:?}");
    let status = Status::invalid(kind, meta::name(object), errors);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let title = if kind.group.is_empty() {
        kind.kind.to_owned()
    } else {
        format!("{}.{}", kind.kind, kind.group)
    };
    let mut distinct: Vec<&str> = Vec::new();
    for text in want {
        if !distinct.contains(text) {
            distinct.push(text);
        }
    }
    let list = match distinct.as_slice() {
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    };
    assert_eq!(status.message, format!("{title} \"{}\" is invalid: {list}", meta::name(object)));
    let causes: Vec<Value> = want
        .iter()
        .map(|text| {
            let (field, body) = text.split_once(": ").unwrap();
            json!({"field": field, "reason": reason(body), "message": body})
        })
        .collect();
    assert_eq!(status.details["causes"], json!(causes));
    assert_eq!(status.details["kind"], kind.kind);
}

type Edits<'a> = Vec<(&'a str, Value)>;

fn refused(plural: &str, rows: Vec<(Edits<'_>, Vec<&str>)>) {
    let kind = kind(plural);
    for (edits, want) in rows {
        let object = created(kind, &edits);
        expect(kind, &object, &(kind.validate_create)(&object), &want);
    }
}

fn update_refused(plural: &str, rows: Vec<(Edits<'_>, Vec<&str>)>) {
    let kind = kind(plural);
    let old = created(kind, &[]);
    for (edits, want) in rows {
        let new = updated(kind, &old, &edits);
        expect(kind, &new, &(kind.validate_update)(&new, &old), &want);
    }
}

fn one(pointer: &str, value: Value) -> Edits<'_> {
    vec![(pointer, value)]
}

const NO_MATCH: &str = "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`";

#[test]
fn what_all_replica_sets_and_deployments_must_have() {
    // RS-6
    for plural in ["replicasets", "deployments"] {
        refused(
            plural,
            vec![
                (
                    one("/spec/replicas", json!(-1)),
                    vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
                ),
                (
                    one("/spec/selector", Value::Null),
                    vec!["spec.selector: Required value", NO_MATCH],
                ),
                (
                    one("/spec/selector", json!({})),
                    vec![
                        "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
                    ],
                ),
                (one("/spec/selector/matchLabels", json!({"app": "db"})), vec![NO_MATCH]),
                (
                    one(
                        "/spec/selector",
                        json!({"matchExpressions": [{"key": "app", "operator": "Near"}]}),
                    ),
                    vec![
                        "spec.selector.matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator",
                        "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Near\"}]}: invalid label selector",
                    ],
                ),
                (
                    one("/spec/template/metadata", Value::Null),
                    vec![
                        "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                    ],
                ),
                (
                    one("/spec/template/metadata/labels", json!({"app": "web", "x": "-"})),
                    vec![
                        "spec.template.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                    ],
                ),
                (
                    one("/spec/template/spec/restartPolicy", json!("Never")),
                    vec![
                        "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                    ],
                ),
                (
                    one("/spec/template/spec/activeDeadlineSeconds", json!(5)),
                    vec![
                        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
                    ],
                ),
                (
                    one("/spec/template/spec/containers", json!([])),
                    vec!["spec.template.spec.containers: Required value"],
                ),
                (
                    one("/spec/template/spec/containers/0/image", json!("")),
                    vec!["spec.template.spec.containers[0].image: Required value"],
                ),
                (
                    one("/spec/template/spec/containers/1/name", json!("a")),
                    vec!["spec.template.spec.containers[1].name: Duplicate value: \"a\""],
                ),
                (
                    one(
                        "/spec/template/spec/containers/0/volumeMounts",
                        json!([{"name": "v", "mountPath": "/v"}]),
                    ),
                    vec!["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
                ),
                (
                    one("/spec/template/spec/containers/0/resources/requests", json!({"cpu": "2"})),
                    vec![
                        "spec.template.spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                    ],
                ),
                (
                    one("/spec/template/spec/hostUsers", json!(false)),
                    vec![
                        "spec.template.spec.hostUsers: Forbidden: user namespaces are not enforced by any node",
                    ],
                ),
                (
                    one("/spec/template/spec/ephemeralContainers", json!([{"name": "e"}])),
                    vec![
                        "spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
                    ],
                ),
                (
                    one("/metadata/name", json!("Web")),
                    vec![
                        "metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                    ],
                ),
                (
                    one("/spec/minReadySeconds", json!(-2)),
                    vec![
                        "spec.minReadySeconds: Invalid value: -2: must be greater than or equal to 0",
                    ],
                ),
            ],
        );
        update_refused(
            plural,
            vec![(
                vec![
                    ("/spec/selector/matchLabels", json!({"app": "db"})),
                    ("/spec/template/metadata/labels", json!({"app": "db"})),
                ],
                vec![
                    "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable",
                ],
            )],
        );
    }
    // A template may have blanks around an image, for who completes it.
    let kind = kind("deployments");
    let object = created(kind, &[("/spec/template/spec/containers/0/image", json!(" x"))]);
    assert_eq!((kind.validate_create)(&object), []);
}

#[test]
fn what_a_deployment_must_have() {
    // DEP-1
    let zero =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}});
    let rolling = |key: &str, value: Value| {
        let mut strategy = json!({"type": "RollingUpdate", "rollingUpdate": {}});
        strategy["rollingUpdate"][key] = value;
        strategy
    };
    refused(
        "deployments",
        vec![
            (
                one("/spec/strategy", zero),
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                one("/spec/strategy", rolling("maxUnavailable", json!("101%"))),
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                ],
            ),
            (
                one("/spec/strategy", rolling("maxUnavailable", json!(-1))),
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                one("/spec/strategy", rolling("maxSurge", json!("many"))),
                vec![
                    "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"many\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                ],
            ),
            (
                one("/spec/strategy", json!({"type": "Recreate", "rollingUpdate": {}})),
                vec![
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                one("/spec/strategy", json!({"type": "Blue"})),
                vec![
                    "spec.strategy: Unsupported value: {\"type\":\"Blue\"}: supported values: \"Recreate\", \"RollingUpdate\"",
                ],
            ),
            (
                one("/spec/revisionHistoryLimit", json!(-1)),
                vec![
                    "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                vec![("/spec/minReadySeconds", json!(600))],
                vec![
                    "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
                ],
            ),
            // All at once (VAL-5).
            (
                vec![
                    ("/spec/replicas", json!(-1)),
                    ("/spec/template/spec/containers/1/image", json!("")),
                    ("/spec/template/spec/restartPolicy", json!("OnFailure")),
                    ("/spec/revisionHistoryLimit", json!(-3)),
                ],
                vec![
                    "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                    "spec.template.spec.containers[1].image: Required value",
                    "spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\"",
                    "spec.revisionHistoryLimit: Invalid value: -3: must be greater than or equal to 0",
                ],
            ),
        ],
    );
}

#[test]
fn what_a_daemon_set_must_have() {
    let rolling = |unavailable: Value, surge: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
    refused(
        "daemonsets",
        vec![
            (one("/spec/selector", Value::Null), vec![NO_MATCH]),
            (
                one("/spec/selector", json!({})),
                vec!["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
            ),
            (
                one("/spec/updateStrategy", rolling(json!(1), json!(1))),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                ],
            ),
            (
                one("/spec/updateStrategy", rolling(json!(0), json!(0))),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                ],
            ),
            (
                one("/spec/updateStrategy", json!({"type": "Recreate"})),
                vec![
                    "spec.updateStrategy: Unsupported value: {\"type\":\"Recreate\"}: supported values: \"RollingUpdate\", \"OnDelete\"",
                ],
            ),
            (
                one("/spec/template/spec/activeDeadlineSeconds", json!(1)),
                vec![
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
                ],
            ),
        ],
    );
    update_refused(
        "daemonsets",
        vec![(
            vec![
                ("/spec/selector/matchLabels", json!({"a": "b"})),
                ("/spec/template/metadata/labels", json!({"a": "b"})),
            ],
            vec![
                "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable",
            ],
        )],
    );
}

#[test]
fn what_a_stateful_set_must_have() {
    let claim = "/spec/volumeClaimTemplates/0/spec";
    let with_claim = |part: &str| format!("{claim}/{part}");
    let (modes, storage) = (with_claim("accessModes"), with_claim("resources/requests/storage"));
    refused(
        "statefulsets",
        vec![
            (
                one("/metadata/name", json!("a.b")),
                vec!["metadata.name: Invalid value: \"a.b\": must not contain dots"],
            ),
            (
                one("/spec/podManagementPolicy", json!("Random")),
                vec![
                    "spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'",
                ],
            ),
            (
                one(
                    "/spec/updateStrategy",
                    json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                ),
                vec![
                    "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
                ],
            ),
            (
                one("/spec/updateStrategy", json!({"type": "Blue"})),
                vec![
                    "spec.updateStrategy: Invalid value: {\"type\":\"Blue\"}: must be 'RollingUpdate' or 'OnDelete'",
                ],
            ),
            (
                one(
                    "/spec/updateStrategy",
                    json!({"type": "RollingUpdate", "rollingUpdate": {"partition": -1, "maxUnavailable": 0}}),
                ),
                vec![
                    "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
                ],
            ),
            (
                one("/spec/persistentVolumeClaimRetentionPolicy", json!({"whenScaled": "Shred"})),
                vec![
                    "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Shred\": supported values: \"Retain\", \"Delete\"",
                ],
            ),
            (
                one("/spec/ordinals", json!({"start": -1})),
                vec!["spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                one("/spec/serviceName", json!("a.b")),
                vec!["spec.serviceName: Invalid value: \"a.b\": must not contain dots"],
            ),
            (one("/spec/selector", Value::Null), vec!["spec.selector: Required value", NO_MATCH]),
            (
                one("/spec/selector", json!({})),
                vec!["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
            ),
            (
                one(&modes, json!([])),
                vec![
                    "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                ],
            ),
            (
                one(&modes, json!(["ReadWriteOnce", "ReadWriteOncePod"])),
                vec![
                    "spec.volumeClaimTemplates[0].spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                ],
            ),
            (
                one(&modes, json!(["Any"])),
                vec![
                    "spec.volumeClaimTemplates[0].spec.accessModes: Unsupported value: \"Any\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                ],
            ),
            (
                one(&storage, json!("0")),
                vec![
                    "spec.volumeClaimTemplates[0].spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
                ],
            ),
            (
                one(&storage, Value::Null),
                vec!["spec.volumeClaimTemplates[0].spec.resources[storage]: Required value"],
            ),
            (
                one("/spec/template/spec/restartPolicy", json!("Never")),
                vec![
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
        ],
    );
    // A claim is a volume that containers may mount.
    let sts = kind("statefulsets");
    let mounts = (
        "/spec/template/spec/containers/0/volumeMounts",
        json!([{"name": "data", "mountPath": "/d"}]),
    );
    let object = created(sts, &[mounts]);
    assert_eq!((sts.validate_create)(&object), []);
    let fixed = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    update_refused(
        "statefulsets",
        vec![
            (one("/spec/serviceName", json!("db")), vec![fixed]),
            (one("/spec/podManagementPolicy", json!("Parallel")), vec![fixed]),
            (one(&storage, json!("2Gi")), vec![fixed]),
        ],
    );
    let old = created(sts, &[]);
    let new = updated(sts, &old, &[("/spec/replicas", json!(3)), (&storage, json!("1024Mi"))]);
    assert_eq!((sts.validate_update)(&new, &old), [], "spelt differently");
}

#[test]
fn what_a_replication_controller_and_kept_templates_must_have() {
    refused(
        "replicationcontrollers",
        vec![
            (
                one("/spec/template", Value::Null),
                vec!["spec.selector: Required value", "spec.template: Required value"],
            ),
            (one("/spec/selector", json!({"app": "db"})), vec![NO_MATCH]),
            (
                one("/spec/template/spec/restartPolicy", json!("Never")),
                vec![
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                one("/spec/template/spec/activeDeadlineSeconds", json!(1)),
                vec![
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported",
                ],
            ),
        ],
    );
    refused(
        "podtemplates",
        vec![(
            one("/template/spec/containers", json!([])),
            vec!["template.spec.containers: Required value"],
        )],
    );
    refused(
        "controllerrevisions",
        vec![
            (one("/data", Value::Null), vec!["data: Required value: data is mandatory"]),
            (
                one("/revision", json!(-1)),
                vec!["revision: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    update_refused(
        "controllerrevisions",
        vec![(one("/data", json!({})), vec!["data: Invalid value: {}: field is immutable"])],
    );
}

#[test]
fn what_a_job_must_have() {
    // JOB-1
    let failing = |rule: Value| json!({"rules": [rule]});
    let codes = |codes: Value| failing(json!({"action": "FailJob", "onExitCodes": codes}));
    let rule = "spec.podFailurePolicy.rules[0]";
    let text = |rest: &str| format!("{rule}{rest}");
    let (bad_action, no_cause, both, dup, order, zero, empty, container, operator, index) = (
        text(
            ".action: Unsupported value: \"Cry\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
        ),
        text(": Invalid value: specifying one of OnExitCodes and OnPodConditions is required"),
        text(": Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"),
        text(".onExitCodes.values[1]: Duplicate value: 1"),
        text(".onExitCodes.values: Invalid value: [2,1]: must be ordered"),
        text(".onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"),
        text(".onExitCodes.values: Invalid value: []: at least one value is required"),
        text(
            ".onExitCodes.containerName: Invalid value: \"z\": must be one of the container or initContainer names in the pod template",
        ),
        text(
            ".onExitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"",
        ),
        text(".action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"),
    );
    let policy = "/spec/podFailurePolicy";
    let condition = json!([{"type": "DisruptionTarget"}]);
    let indexed = |more: Edits<'static>| {
        [vec![("/spec/completionMode", json!("Indexed")), ("/spec/completions", json!(3))], more]
            .concat()
    };
    let negative = "Invalid value: -1: must be greater than or equal to 0";
    let [parallelism, completions, backoff, deadline, ttl] = [
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ]
    .map(|field| format!("spec.{field}: {negative}"));
    refused(
        "jobs",
        vec![
            (
                one("/spec/template/spec/restartPolicy", json!("Always")),
                vec![
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
            (
                one("/spec/template/spec/restartPolicy", Value::Null),
                vec![
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
            (one("/spec/parallelism", json!(-1)), vec![parallelism.as_str()]),
            (one("/spec/completions", json!(-1)), vec![completions.as_str()]),
            (one("/spec/backoffLimit", json!(-1)), vec![backoff.as_str()]),
            (one("/spec/activeDeadlineSeconds", json!(-1)), vec![deadline.as_str()]),
            (one("/spec/ttlSecondsAfterFinished", json!(-1)), vec![ttl.as_str()]),
            (
                one("/spec/completionMode", json!("Sorted")),
                vec![
                    "spec.completionMode: Unsupported value: \"Sorted\": supported values: \"NonIndexed\", \"Indexed\"",
                ],
            ),
            (
                vec![("/spec/completionMode", json!("Indexed")), ("/spec/parallelism", json!(2))],
                vec!["spec.completions: Required value: when completion mode is Indexed"],
            ),
            (
                one("/spec/backoffLimitPerIndex", json!(1)),
                vec![
                    "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
                ],
            ),
            (
                indexed(vec![("/spec/maxFailedIndexes", json!(1))]),
                vec![
                    "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                ],
            ),
            (
                indexed(vec![
                    ("/spec/backoffLimitPerIndex", json!(1)),
                    ("/spec/maxFailedIndexes", json!(4)),
                ]),
                vec![
                    "spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions",
                ],
            ),
            (
                indexed(vec![("/spec/parallelism", json!(100_001))]),
                vec![
                    "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
                ],
            ),
            (
                one("/spec/podReplacementPolicy", json!("Soon")),
                vec![
                    "spec.podReplacementPolicy: Unsupported value: \"Soon\": supported values: \"Failed\", \"TerminatingOrFailed\"",
                ],
            ),
            (
                one("/spec/managedBy", json!("a.b/c d")),
                vec![
                    "spec.managedBy: Invalid value: \"c d\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
                ],
            ),
            (
                one("/spec/managedBy", json!("me")),
                vec![
                    "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ],
            ),
            (
                one("/spec/successPolicy", json!({"rules": []})),
                vec![
                    "spec.successPolicy: Invalid value: {\"rules\":[]}: requires indexed completion mode",
                ],
            ),
            (
                indexed(vec![(
                    "/spec/successPolicy",
                    json!({"rules": [{"succeededIndexes": "0-1", "succeededCount": 3}, {}]}),
                )]),
                vec![
                    "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
                    "spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be specified",
                ],
            ),
            (
                one(policy, failing(json!({"action": "Cry", "onPodConditions": condition}))),
                vec![bad_action.as_str()],
            ),
            (one(policy, failing(json!({"action": "Count"}))), vec![no_cause.as_str()]),
            (
                one(policy, failing(json!({"action": "FailIndex", "onPodConditions": condition}))),
                vec![index.as_str()],
            ),
            (
                one(
                    policy,
                    failing(
                        json!({"action": "Count", "onPodConditions": condition, "onExitCodes": {"operator": "In", "values": [1]}}),
                    ),
                ),
                vec![both.as_str()],
            ),
            (one(policy, codes(json!({"operator": "In", "values": [1, 1]}))), vec![dup.as_str()]),
            (one(policy, codes(json!({"operator": "In", "values": [2, 1]}))), vec![order.as_str()]),
            (one(policy, codes(json!({"operator": "In", "values": [0]}))), vec![zero.as_str()]),
            (one(policy, codes(json!({"operator": "In", "values": []}))), vec![empty.as_str()]),
            (
                one(policy, codes(json!({"operator": "In", "values": [1], "containerName": "z"}))),
                vec![container.as_str()],
            ),
            (one(policy, codes(json!({"operator": "Is", "values": [1]}))), vec![operator.as_str()]),
            (
                vec![
                    ("/spec/template/spec/restartPolicy", json!("OnFailure")),
                    (policy, codes(json!({"operator": "In", "values": [1]}))),
                ],
                vec![
                    "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified",
                ],
            ),
            (
                vec![
                    (policy, codes(json!({"operator": "In", "values": [1]}))),
                    ("/spec/podReplacementPolicy", json!("TerminatingOrFailed")),
                ],
                vec![
                    "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\"",
                ],
            ),
            (
                one("/spec/selector", json!({"matchLabels": {"app": "db"}})),
                vec![
                    "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\",\"batch.kubernetes.io/controller-uid\":\"u1\"}}: `selector` not auto-generated",
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"web\",\"batch.kubernetes.io/controller-uid\":\"u1\",\"batch.kubernetes.io/job-name\":\"web\",\"controller-uid\":\"u1\",\"job-name\":\"web\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                one("/spec/template/metadata/labels", json!({"job-name": "other"})),
                vec![
                    "spec.template.metadata.labels[job-name]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u1\",\"batch.kubernetes.io/job-name\":\"web\",\"controller-uid\":\"u1\",\"job-name\":\"other\"}: must be 'web'",
                ],
            ),
            (
                one("/spec/manualSelector", json!(true)),
                vec!["spec.selector: Required value", NO_MATCH],
            ),
        ],
    );
    update_refused(
        "jobs",
        vec![
            (
                one("/spec/completions", json!(2)),
                vec!["spec.completions: Invalid value: 2: field is immutable"],
            ),
            (
                one("/spec/completionMode", json!("Indexed")),
                vec!["spec.completionMode: Invalid value: \"Indexed\": field is immutable"],
            ),
        ],
    );
    let jobs = kind("jobs");
    let old = created(jobs, &[]);
    let new =
        updated(jobs, &old, &[("/spec/parallelism", json!(4)), ("/spec/suspend", json!(true))]);
    assert_eq!((jobs.validate_update)(&new, &old), []);
}

#[test]
fn what_a_cron_job_must_have() {
    // CJ-1
    let long = "a".repeat(53);
    let too_long =
        format!("metadata.name: Invalid value: \"{long}\": must be no more than 52 characters");
    refused(
        "cronjobs",
        vec![
            (one("/spec/schedule", json!("")), vec!["spec.schedule: Required value"]),
            (
                one("/spec/schedule", json!("* * * *")),
                vec![
                    "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]",
                ],
            ),
            (
                one("/spec/schedule", json!("61 * * * *")),
                vec![
                    "spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61",
                ],
            ),
            (
                one("/spec/schedule", json!("TZ=UTC * * * * *")),
                vec![
                    "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ],
            ),
            (
                one("/spec/timeZone", json!("Mars/Base")),
                vec!["spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base"],
            ),
            (
                one("/spec/timeZone", json!("")),
                vec![
                    "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string",
                ],
            ),
            (
                one("/spec/timeZone", json!("Local")),
                vec![
                    "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                ],
            ),
            (
                one("/spec/concurrencyPolicy", json!("Queue")),
                vec![
                    "spec.concurrencyPolicy: Unsupported value: \"Queue\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ],
            ),
            (
                one("/spec/startingDeadlineSeconds", json!(-1)),
                vec![
                    "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                one("/spec/successfulJobsHistoryLimit", json!(-1)),
                vec![
                    "spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (one("/metadata/name", json!(long)), vec![too_long.as_str()]),
            (
                one("/spec/jobTemplate/spec/selector", json!({"matchLabels": {"a": "b"}})),
                vec![
                    "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
                ],
            ),
            (
                one("/spec/jobTemplate/spec/manualSelector", json!(true)),
                vec![
                    "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
                ],
            ),
            (
                one("/spec/jobTemplate/spec/template/spec/restartPolicy", json!("Always")),
                vec![
                    "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
        ],
    );
}

#[test]
fn what_a_pod_autoscaler_must_have() {
    let metric = |metric: Value| one("/spec/metrics", json!([metric]));
    let resource = |target: Value| {
        metric(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}))
    };
    let m = "spec.metrics[0]";
    let text = |rest: &str| format!("{m}{rest}");
    let supported =
        "supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"";
    let (no_type, bad_type, missing, other, both, neither, low, target_type, pods, name) = (
        text(".type: Required value: must specify a metric source type"),
        text(&format!(".type: Unsupported value: \"\": {supported}")),
        text(".pods: Required value: must populate information for the given metric source"),
        text(".resource: Forbidden: must populate the given metric source only"),
        text(
            ".resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
        ),
        text(
            ".resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
        ),
        text(".resource.target.averageUtilization: Invalid value: 0: must be greater than 0"),
        text(
            ".resource.target.type: Invalid value: \"Most\": must be either Utilization, Value, or AverageValue",
        ),
        text(
            ".pods.target.averageValue: Required value: must specify a positive target averageValue",
        ),
        text(".pods.metric.name: Required value: must specify a metric name"),
    );
    let utilization = json!({"type": "Utilization", "averageUtilization": 50});
    let up = |rules: Value| one("/spec/behavior", json!({"scaleUp": rules}));
    refused(
        "horizontalpodautoscalers",
        vec![
            (
                one("/spec/minReplicas", json!(0)),
                vec!["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"],
            ),
            (
                one("/spec/maxReplicas", json!(0)),
                vec![
                    "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                    "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                ],
            ),
            (
                one("/spec/minReplicas", json!(9)),
                vec![
                    "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
                ],
            ),
            (
                one("/spec/scaleTargetRef", json!({"kind": "", "name": "a/b"})),
                vec![
                    "spec.scaleTargetRef.kind: Required value",
                    "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
                ],
            ),
            (
                metric(json!({"type": ""})),
                vec![no_type.as_str(), bad_type.as_str(), bad_type.as_str()],
            ),
            (
                metric(json!({"type": "Pods", "resource": {"name": "cpu", "target": utilization}})),
                vec![missing.as_str(), other.as_str()],
            ),
            (
                resource(
                    json!({"type": "Utilization", "averageUtilization": 5, "averageValue": "1"}),
                ),
                vec![both.as_str()],
            ),
            (resource(json!({"type": "Utilization"})), vec![neither.as_str()]),
            (resource(json!({"type": "Utilization", "averageUtilization": 0})), vec![low.as_str()]),
            (
                resource(json!({"type": "Most", "averageUtilization": 5})),
                vec![target_type.as_str()],
            ),
            (
                metric(
                    json!({"type": "Pods", "pods": {"metric": {"name": ""}, "target": {"type": "Value", "value": "1"}}}),
                ),
                vec![name.as_str(), pods.as_str()],
            ),
            (
                up(json!({"policies": []})),
                vec![
                    "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy",
                ],
            ),
            (
                up(json!({"selectPolicy": "Any"})),
                vec![
                    "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Any\": supported values: \"Disabled\", \"Max\", \"Min\"",
                ],
            ),
            (
                up(
                    json!({"stabilizationWindowSeconds": 3601, "policies": [{"type": "Share", "value": 0, "periodSeconds": 1801}]}),
                ),
                vec![
                    "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                    "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"Share\": supported values: \"Percent\", \"Pods\"",
                    "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                    "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
                ],
            ),
        ],
    );
}

#[test]
fn what_a_disruption_budget_and_a_priority_class_must_have() {
    refused(
        "poddisruptionbudgets",
        vec![
            (
                one("/spec/maxUnavailable", json!(1)),
                vec![
                    "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":\"50%\",\"selector\":{\"matchLabels\":{\"app\":\"web\"}}}: minAvailable and maxUnavailable cannot be both set",
                ],
            ),
            (
                one("/spec/minAvailable", json!("200%")),
                vec!["spec.minAvailable: Invalid value: \"200%\": must not be greater than 100%"],
            ),
            (
                one("/spec/minAvailable", json!(-1)),
                vec!["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                one("/spec/unhealthyPodEvictionPolicy", json!("Never")),
                vec![
                    "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
                ],
            ),
            (
                one(
                    "/spec/selector",
                    json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                ),
                vec![
                    "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
        ],
    );
    refused(
        "priorityclasses",
        vec![
            (
                one("/value", json!(1_000_000_001)),
                vec![
                    "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
                ],
            ),
            (
                one("/metadata/name", json!("system-mine")),
                vec![
                    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class",
                ],
            ),
            (
                one("/metadata/name", json!("system-node-critical")),
                vec![
                    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000",
                ],
            ),
            (
                one("/preemptionPolicy", json!("Ask")),
                vec![
                    "preemptionPolicy: Unsupported value: \"Ask\": supported values: \"PreemptLowerPriority\", \"Never\"",
                ],
            ),
            (
                one("/metadata/namespace", json!("default")),
                vec!["metadata.namespace: Forbidden: not allowed on this type"],
            ),
        ],
    );
    update_refused(
        "priorityclasses",
        vec![
            (one("/value", json!(7)), vec!["value: Forbidden: may not be changed in an update."]),
            (
                one("/preemptionPolicy", json!("Never")),
                vec!["preemptionPolicy: Invalid value: \"Never\": field is immutable"],
            ),
        ],
    );
}

#[test]
fn what_roles_and_bindings_must_have() {
    let rule = |rule: Value| one("/rules", json!([rule]));
    let url = json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]});
    for plural in ["roles", "clusterroles"] {
        refused(
            plural,
            vec![
                (
                    rule(json!({"apiGroups": [""], "resources": ["pods"], "verbs": []})),
                    vec!["rules[0].verbs: Required value: verbs must contain at least one value"],
                ),
                (
                    rule(json!({"verbs": ["get"]})),
                    vec![
                        "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                        "rules[0].resources: Required value: resource rules must supply at least one resource",
                    ],
                ),
                (
                    one("/metadata/name", json!("a/b")),
                    vec!["metadata.name: Invalid value: \"a/b\": may not contain '/'"],
                ),
            ],
        );
    }
    refused(
        "roles",
        vec![(
            rule(url.clone()),
            vec![
                "rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource URLs",
            ],
        )],
    );
    let cluster = kind("clusterroles");
    assert_eq!((cluster.validate_create)(&created(cluster, &rule(url))), []);
    refused(
        "clusterroles",
        vec![
            (
                rule(json!({"nonResourceURLs": ["/x"], "resources": ["pods"], "verbs": ["get"]})),
                vec![
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs",
                ],
            ),
            (
                one("/aggregationRule", json!({"clusterRoleSelectors": []})),
                vec![
                    "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
                ],
            ),
        ],
    );
    refused(
        "rolebindings",
        vec![
            (
                one("/roleRef/kind", json!("Group")),
                vec![
                    "roleRef.kind: Unsupported value: \"Group\": supported values: \"Role\", \"ClusterRole\"",
                ],
            ),
            (
                one("/roleRef/apiGroup", json!("x")),
                vec![
                    "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                ],
            ),
            (one("/roleRef/name", json!("")), vec!["roleRef.name: Required value"]),
            (
                one("/subjects", json!([{"kind": "Robot", "name": "x"}])),
                vec![
                    "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                ],
            ),
            (
                one("/subjects", json!([{"kind": "User", "name": ""}])),
                vec![
                    "subjects[0].name: Required value",
                    "subjects[0].name: Invalid value: \"\": user name cannot be empty",
                ],
            ),
            (
                one("/subjects", json!([{"kind": "ServiceAccount", "name": "a", "apiGroup": "x"}])),
                vec!["subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"\""],
            ),
        ],
    );
    refused(
        "clusterrolebindings",
        vec![
            (
                one("/roleRef/kind", json!("Role")),
                vec![
                    "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                ],
            ),
            (
                one("/subjects", json!([{"kind": "ServiceAccount", "name": "a"}])),
                vec!["subjects[0].namespace: Required value"],
            ),
        ],
    );
    for plural in ["rolebindings", "clusterrolebindings"] {
        update_refused(
            plural,
            vec![(
                one("/roleRef/name", json!("edit")),
                vec![
                    "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"edit\"}: cannot change roleRef",
                ],
            )],
        );
    }
}

#[test]
fn what_a_quota_and_limits_must_have() {
    refused(
        "resourcequotas",
        vec![
            (
                one("/spec/hard", json!({"cpu": "-1"})),
                vec!["spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                one("/spec/hard", json!({"pods": "1500m"})),
                vec!["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
            ),
            (
                one("/spec/hard", json!({"tpu": "1"})),
                vec![
                    "spec.hard[tpu]: Invalid value: \"tpu\": must be a standard resource type or fully qualified",
                    "spec.hard[tpu]: Invalid value: \"tpu\": must be a standard resource for quota",
                ],
            ),
            (
                one("/spec/scopes", json!(["Idle"])),
                vec!["spec.scopes: Invalid value: [\"Idle\"]: unsupported scope"],
            ),
            (
                vec![("/spec/scopes", json!(["Terminating", "NotTerminating"]))],
                vec![
                    "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes",
                ],
            ),
            (
                one("/spec/scopes", json!(["BestEffort"])),
                vec![
                    "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
                ],
            ),
            (
                one(
                    "/spec/scopeSelector",
                    json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}),
                ),
                vec![
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
        ],
    );
    update_refused(
        "resourcequotas",
        vec![(
            one("/spec/scopes", json!(["Terminating"])),
            vec!["spec.scopes: Invalid value: [\"Terminating\"]: field is immutable"],
        )],
    );
    let item = |key: &str, amounts: Value| {
        let mut item = json!({"type": "Container"});
        item[key] = amounts;
        item
    };
    let items = |item: Value| one("/spec/limits", json!([item]));
    let both = |a: &str, low: &str, b: &str, high: &str| {
        let mut item = item(a, json!({"memory": low}));
        item[b] = json!({"memory": high});
        items(item)
    };
    refused(
        "limitranges",
        vec![
            (
                items(json!({"type": "Node"})),
                vec![
                    "spec.limits[0].type: Invalid value: \"Node\": must be a standard limit type or fully qualified",
                ],
            ),
            (
                one("/spec/limits/-", json!({"type": "Container"})),
                vec!["spec.limits[1].type: Duplicate value: \"Container\""],
            ),
            (
                items(
                    json!({"type": "Pod", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}}),
                ),
                vec![
                    "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                    "spec.limits[0].defaultRequest: Forbidden: may not be specified when `type` is 'Pod'",
                ],
            ),
            (
                items(json!({"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}})),
                vec![
                    "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                ],
            ),
            (
                both("default", "2Gi", "max", "1Gi"),
                vec![
                    "spec.limits[0].defaultRequest[memory]: Invalid value: \"2Gi\": default request value 2Gi is greater than max value 1Gi",
                    "spec.limits[0].default[memory]: Invalid value: \"1Gi\": default value 2Gi is greater than max value 1Gi",
                ],
            ),
            (
                both("defaultRequest", "2Gi", "default", "1Gi"),
                vec![
                    "spec.limits[0].defaultRequest[memory]: Invalid value: \"2Gi\": default request value 2Gi is greater than default limit value 1Gi",
                ],
            ),
            (
                both("defaultRequest", "1Gi", "min", "2Gi"),
                vec![
                    "spec.limits[0].defaultRequest[memory]: Invalid value: \"1Gi\": min value 2Gi is greater than default request value 1Gi",
                ],
            ),
            (
                items(json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}})),
                vec![
                    "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
                ],
            ),
            (
                items(
                    json!({"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}),
                ),
                vec![
                    "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
                ],
            ),
            (
                items(json!({"type": "PersistentVolumeClaim"})),
                vec![
                    "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (
                items(json!({"type": "Pod", "max": {"tpu": "1"}})),
                vec![
                    "spec.limits[0].max[tpu]: Invalid value: \"tpu\": must be a standard resource type or fully qualified",
                    "spec.limits[0].max[tpu]: Invalid value: \"tpu\": must be a standard resource for containers",
                ],
            ),
        ],
    );
}

#[test]
fn what_a_definition_of_a_custom_resource_must_have() {
    let label = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
    let version = format!("spec.versions[0].name: Invalid value: \"1\": {label}");
    let kind_name = format!(
        "spec.names.kind: Invalid value: \"My_Widget\": may have mixed case, but should otherwise match: {label}"
    );
    let list_name = format!(
        "spec.names.listKind: Invalid value: \"My_WidgetList\": may have mixed case, but should otherwise match: {label}"
    );
    let singular = format!("spec.names.singular: Invalid value: \"my_widget\": {label}");
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let property = format!("{schema}/properties/spec/properties");
    let columns = "/spec/versions/0/additionalPrinterColumns";
    refused(
        "customresourcedefinitions",
        vec![
            (
                one("/metadata/name", json!("gadgets.example.com")),
                vec![
                    "metadata.name: Invalid value: \"gadgets.example.com\": must be spec.names.plural+\".\"+spec.group",
                ],
            ),
            (
                vec![
                    ("/spec/group", json!("example")),
                    ("/metadata/name", json!("widgets.example")),
                ],
                vec![
                    "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
                ],
            ),
            (
                one("/spec/scope", json!("World")),
                vec![
                    "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
                ],
            ),
            (one("/spec/scope", json!("")), vec!["spec.scope: Required value"]),
            (
                one("/spec/names/kind", json!("My_Widget")),
                vec![singular.as_str(), kind_name.as_str(), list_name.as_str()],
            ),
            (
                one("/spec/names/listKind", json!("Widget")),
                vec![
                    "spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same",
                ],
            ),
            (one("/spec/versions/0/name", json!("1")), vec![version.as_str()]),
            (
                one("/spec/versions", json!([])),
                vec![
                    "spec.versions: Invalid value: []: must have exactly one version marked as storage version",
                ],
            ),
            (
                one("/spec/versions/0/schema", Value::Null),
                vec![
                    "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
                ],
            ),
            (
                one(&property, json!({"size": {}})),
                vec![
                    "spec.validation.openAPIV3Schema.properties[spec].properties[size].type: Required value: must not be empty for specified object fields",
                ],
            ),
            (
                one(schema, json!({"type": "string"})),
                vec![
                    "spec.validation.openAPIV3Schema.type: Invalid value: \"string\": must be object at the root",
                ],
            ),
            (
                one(columns, json!([{"name": "Size", "type": "size", "jsonPath": ""}])),
                vec![
                    "spec.additionalPrinterColumns[0].type: Invalid value: \"size\": must be one of boolean,date,integer,number,string",
                    "spec.additionalPrinterColumns[0].JSONPath: Required value",
                ],
            ),
            (
                one(
                    "/spec/versions/0/subresources",
                    json!({"scale": {"specReplicasPath": ".status.replicas", "statusReplicasPath": ""}}),
                ),
                vec![
                    "spec.subresources.scale.specReplicasPath: Invalid value: \".status.replicas\": should be a json path under .spec",
                    "spec.subresources.scale.statusReplicasPath: Required value",
                ],
            ),
            (
                one("/spec/conversion", json!({"strategy": "Magic"})),
                vec![
                    "spec.conversion.strategy: Unsupported value: \"Magic\": supported values: \"None\", \"Webhook\"",
                ],
            ),
            (
                one("/spec/conversion", json!({"strategy": "Webhook"})),
                vec![
                    "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                    "spec.conversion.conversionReviewVersions: Required value",
                ],
            ),
            (
                one("/spec/preserveUnknownFields", json!(true)),
                vec![
                    "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
                ],
            ),
        ],
    );
    update_refused(
        "customresourcedefinitions",
        vec![(
            vec![("/spec/group", json!("other.org"))],
            vec![
                "metadata.name: Invalid value: \"widgets.example.com\": must be spec.names.plural+\".\"+spec.group",
                "spec.group: Invalid value: \"other.org\": field is immutable",
            ],
        )],
    );
    // Schemas that differ are each looked at where they are.
    let crd = kind("customresourcedefinitions");
    let mut second = created(crd, &[])["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    second["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({});
    let object = created(crd, &[("/spec/versions/-", second)]);
    let want = [
        "spec.versions[1].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
    ];
    expect(crd, &object, &(crd.validate_create)(&object), &want);
}

#[test]
fn statuses_that_cannot_be_are_refused() {
    for (plural, status, want) in [
        (
            "replicasets",
            json!({"replicas": 1, "readyReplicas": 2}),
            vec!["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"],
        ),
        (
            "replicasets",
            json!({"observedGeneration": -1}),
            vec![
                "status.observedGeneration: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            "replicationcontrollers",
            json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 2}),
            vec![
                "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
            ],
        ),
        (
            "deployments",
            json!({"replicas": 1, "updatedReplicas": 2}),
            vec![
                "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
            ],
        ),
        (
            "statefulsets",
            json!({"replicas": 1, "currentReplicas": 2}),
            vec![
                "status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas",
            ],
        ),
        (
            "daemonsets",
            json!({"numberReady": -1}),
            vec!["status.numberReady: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            "jobs",
            json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}}),
            vec!["status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\""],
        ),
        (
            "horizontalpodautoscalers",
            json!({"currentReplicas": -1}),
            vec!["status.currentReplicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            "poddisruptionbudgets",
            json!({"expectedPods": -1}),
            vec!["status.expectedPods: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            "resourcequotas",
            json!({"used": {"cpu": "-1"}}),
            vec!["status.used[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
        ),
        (
            "customresourcedefinitions",
            json!({"storedVersions": []}),
            vec!["status.storedVersions: Invalid value: []: must have at least one stored version"],
        ),
    ] {
        let kind = kind(plural);
        let old = created(kind, &[]);
        let mut new = old.clone();
        new["status"] = status;
        (kind.prepare_status)(&mut new, &old);
        expect(kind, &new, &(kind.validate_status)(&new, &old), &want);
    }
    let kind = kind("deployments");
    let mut old = created(kind, &[]);
    old["status"]["collisionCount"] = json!(2);
    let new = created(kind, &[]);
    let want = ["status.collisionCount: Invalid value: 0: cannot be decremented"];
    expect(kind, &new, &(kind.validate_status)(&new, &old), &want);
}

#[test]
fn what_is_of_another_type_is_not_understood_rather_than_invalid() {
    // HTTP-2, QTY-2
    for (plural, pointer, value, unknown) in [
        ("deployments", "/spec/replicas", json!("three"), None),
        (
            "deployments",
            "/spec/template/spec/containers/0/resources/limits/cpu",
            json!("many"),
            None,
        ),
        ("deployments", "/spec/strategi", json!({}), Some("spec.strategi")),
        (
            "jobs",
            "/spec/template/spec/containers/0/imag",
            json!("x"),
            Some("spec.template.spec.containers[0].imag"),
        ),
        (
            "cronjobs",
            "/spec/jobTemplate/spec/paralelism",
            json!(1),
            Some("spec.jobTemplate.spec.paralelism"),
        ),
        ("resourcequotas", "/spec/hard/cpu", json!("much"), None),
        (
            "statefulsets",
            "/spec/volumeClaimTemplates/0/spec/resources/requests/storage",
            json!("x"),
            None,
        ),
        ("horizontalpodautoscalers", "/spec/scaleTarget", json!({}), Some("spec.scaleTarget")),
        ("roles", "/rules/0/verb", json!([]), Some("rules[0].verb")),
        (
            "customresourcedefinitions",
            "/spec/versions/0/store",
            json!(true),
            Some("spec.versions[0].store"),
        ),
    ] {
        let kind = kind(plural);
        let mut object = crate::manifests::right(kind);
        crate::manifests::edit(&mut object, pointer, &value);
        assert_eq!((kind.decode)(&object).is_err(), unknown.is_none(), "{plural} {pointer}");
        if let Some(unknown) = unknown {
            assert_eq!(unknown_fields(kind, &object), [unknown]);
        }
    }
}
