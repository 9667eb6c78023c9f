//! The rules by which messages become JSON, on bodies that are encoded here.

use protobuf::to_json;
use serde_json::{Value, json};

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn int(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(value.cast_unsigned())].concat()
}

fn double(number: u64, value: f64) -> Vec<u8> {
    [varint(number << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

fn bytes(number: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let len = varint(u64::try_from(value.len()).unwrap());
    [varint(number << 3 | 2), len, value.to_vec()].concat()
}

fn message<const N: usize>(number: u64, fields: [Vec<u8>; N]) -> Vec<u8> {
    bytes(number, fields.concat())
}

fn entry(number: u64, key: &str, value: Vec<u8>) -> Vec<u8> {
    message(number, [bytes(1, key), value])
}

fn body(api_version: &str, kind: &str, fields: &[Vec<u8>]) -> Vec<u8> {
    let type_meta = message(1, [bytes(1, api_version), bytes(2, kind)]);
    [b"k8s\0".to_vec(), type_meta, bytes(2, fields.concat()), bytes(3, ""), bytes(4, "")].concat()
}

/// Name, version, kind, fields, and the JSON that comes of them.
type Case = (&'static str, &'static str, &'static str, Vec<Vec<u8>>, Value);

fn cases() -> Vec<Case> {
    let time = |seconds, nanos| [int(1, seconds), int(2, nanos)];
    let number = |value| [int(1, 0), int(2, value), bytes(3, "")];
    let name = |text: &str| [int(1, 1), int(2, 0), bytes(3, text)];
    let schema = [
        bytes(5, "object"),
        bytes(6, ""),
        message(8, [bytes(1, r#"{"size":0}"#)]),
        double(9, 10.0),
        int(10, 0),
        double(11, 0.5),
        int(14, 0),
        message(20, [bytes(1, "0")]),
        message(20, [bytes(1, "null")]),
        message(20, [bytes(1, r#""a""#)]),
        message(24, [message(1, [bytes(5, "string")])]),
        entry(29, "on", message(2, [message(30, [int(1, 1)])])),
        entry(29, "off", message(2, [message(30, [int(1, 0)])])),
        entry(29, "any", message(2, [message(30, [int(1, 1), message(2, [bytes(5, "string")])])])),
        entry(29, "both", message(2, [message(24, [message(2, [bytes(5, "a")]), message(2, [])])])),
        entry(32, "a", message(2, [bytes(2, "b"), bytes(2, "c")])),
        entry(32, "d", message(2, [message(1, [int(37, 1)])])),
        int(38, 0),
        int(39, 0),
    ];
    vec![
        (
            "a zero with omitempty is left out, and so is a time that was never set",
            "v1",
            "ConfigMap",
            vec![message(
                1,
                [
                    bytes(1, "a"),
                    bytes(2, ""),
                    bytes(3, ""),
                    bytes(6, ""),
                    int(7, 0),
                    message(8, []),
                    entry(11, "key", bytes(2, "")),
                ],
            )],
            json!({"metadata": {"name": "a", "labels": {"key": ""}}}),
        ),
        (
            "a pointer's zero and a field without omitempty stay, and so do empty messages",
            "apps/v1",
            "Deployment",
            vec![
                message(1, []),
                message(
                    2,
                    [
                        int(1, 0),
                        message(
                            3,
                            [message(
                                2,
                                [message(2, [bytes(1, ""), bytes(2, ""), message(8, [])])],
                            )],
                        ),
                        message(4, [bytes(1, "")]),
                        int(5, 0),
                        int(7, 0),
                    ],
                ),
                message(3, [int(1, 0)]),
            ],
            json!({
                "metadata": {},
                "spec": {
                    "replicas": 0,
                    "template": {"spec": {"containers": [{"name": "", "resources": {}}]}},
                    "strategy": {},
                },
                "status": {},
            }),
        ),
        (
            "fields that Go takes in stand in their parent's place",
            "v1",
            "Pod",
            vec![message(
                2,
                [
                    message(1, [bytes(1, "tmp"), message(2, [message(2, [bytes(1, "")])])]),
                    message(
                        1,
                        [
                            bytes(1, "conf"),
                            message(
                                2,
                                [message(19, [message(1, [bytes(1, "settings")]), int(3, 0)])],
                            ),
                        ],
                    ),
                    message(
                        2,
                        [
                            bytes(1, "c"),
                            message(
                                10,
                                [
                                    message(
                                        1,
                                        [message(3, [message(1, number(80)), bytes(2, "")])],
                                    ),
                                    int(2, 0),
                                ],
                            ),
                        ],
                    ),
                ],
            )],
            json!({"spec": {
                "volumes": [
                    {"name": "tmp", "emptyDir": {}},
                    {"name": "conf", "configMap": {"name": "settings", "defaultMode": 0}},
                ],
                "containers": [{"name": "c", "livenessProbe": {"tcpSocket": {"port": 80}}}],
            }}),
        ),
        (
            "lists of numbers are packed or not, and both",
            "v1",
            "Pod",
            vec![message(
                2,
                [
                    int(4, 0),
                    int(11, 0),
                    message(
                        14,
                        [int(2, 0), int(4, 1), bytes(4, [2, 0xac, 2]), int(4, -1), int(3, 0)],
                    ),
                ],
            )],
            json!({"spec": {
                "terminationGracePeriodSeconds": 0,
                "securityContext": {
                    "runAsUser": 0, "supplementalGroups": [1, 2, 300, -1], "runAsNonRoot": false,
                },
            }}),
        ),
        (
            "numbers of 32 bits are below zero, too",
            "scheduling.k8s.io/v1",
            "PriorityClass",
            // As other encoders than Go's write -2.
            vec![int(2, 0xffff_fffe), int(3, 1)],
            json!({"value": -2, "globalDefault": true}),
        ),
        (
            "a number or a string",
            "v1",
            "Service",
            vec![message(
                2,
                [
                    message(1, [bytes(1, "a"), int(3, 80), message(4, number(0)), int(5, 0)]),
                    message(1, [int(3, 0), message(4, name("http"))]),
                    message(1, [message(4, [])]),
                ],
            )],
            json!({"spec": {"ports": [
                {"name": "a", "port": 80, "targetPort": 0},
                {"port": 0, "targetPort": "http"},
                {"targetPort": 0},
            ]}}),
        ),
        (
            "quantities are strings",
            "v1",
            "ResourceQuota",
            vec![message(
                2,
                [
                    entry(1, "cpu", message(2, [bytes(1, "1500m")])),
                    entry(1, "pods", message(2, [])),
                    message(1, [bytes(1, "memory")]),
                    bytes(2, "BestEffort"),
                ],
            )],
            json!({"spec": {
                "hard": {"cpu": "1500m", "pods": "0", "memory": "0"}, "scopes": ["BestEffort"],
            }}),
        ),
        (
            "bytes are base64",
            "v1",
            "Secret",
            vec![
                entry(2, "a", bytes(2, [0xff, 0, 1])),
                entry(2, "b", bytes(2, "")),
                message(2, [bytes(2, "c")]),
                bytes(3, "Opaque"),
                entry(4, "d", bytes(2, "text")),
                int(5, 0),
            ],
            json!({
                "data": {"a": "/wAB", "b": "", "": "Yw=="}, "type": "Opaque",
                "stringData": {"d": "text"}, "immutable": false,
            }),
        ),
        (
            "times are in seconds or in microseconds",
            "coordination.k8s.io/v1",
            "Lease",
            vec![
                message(1, [message(8, time(1_700_000_000, 999_999_999)), message(9, time(0, 0))]),
                message(
                    2,
                    [
                        bytes(1, "a"),
                        int(2, 15),
                        message(3, time(1_700_000_000, 123_456_789)),
                        message(4, time(-1, 0)),
                    ],
                ),
            ],
            json!({
                "metadata": {
                    "creationTimestamp": "2023-11-14T22:13:20Z",
                    "deletionTimestamp": "1970-01-01T00:00:00Z",
                },
                "spec": {
                    "holderIdentity": "a", "leaseDurationSeconds": 15,
                    "acquireTime": "2023-11-14T22:13:20.123456Z",
                    "renewTime": "1969-12-31T23:59:59.000000Z",
                },
            }),
        ),
        (
            "JSON within",
            "v1",
            "ConfigMap",
            vec![message(
                1,
                [message(
                    17,
                    [bytes(1, "m"), message(4, []), message(7, [bytes(1, r#"{"f:data":{}}"#)])],
                )],
            )],
            json!({"metadata": {"managedFields": [{"manager": "m", "fieldsV1": {"f:data": {}}}]}}),
        ),
        (
            "objects within, in JSON or in protobuf",
            "v1",
            "List",
            vec![
                message(1, [bytes(2, "7")]),
                message(2, [bytes(1, r#"{"kind":"A","apiVersion":"v1"}"#)]),
                message(2, [bytes(1, body("v1", "Namespace", &[message(1, [bytes(1, "a")])]))]),
                message(2, []),
            ],
            json!({"metadata": {"resourceVersion": "7"}, "items": [
                {"kind": "A", "apiVersion": "v1"},
                {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a"}},
                null,
            ]}),
        ),
        (
            "lists within maps",
            "authorization.k8s.io/v1",
            "SubjectAccessReview",
            vec![message(
                2,
                [
                    bytes(3, "alice"),
                    entry(5, "scopes", message(2, [bytes(1, "a"), bytes(1, "b")])),
                    entry(5, "none", message(2, [])),
                ],
            )],
            json!({"spec": {"user": "alice", "extra": {"scopes": ["a", "b"], "none": []}}}),
        ),
        (
            "schemas",
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            vec![message(
                2,
                [
                    bytes(1, "example.com"),
                    message(
                        7,
                        [
                            bytes(1, "v1"),
                            int(2, 1),
                            int(3, 0),
                            message(4, [message(1, schema)]),
                            message(5, [message(1, [])]),
                        ],
                    ),
                    int(10, 0),
                ],
            )],
            json!({"spec": {"group": "example.com", "versions": [{
                "name": "v1", "served": true, "storage": false,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "default": {"size": 0}, "maximum": 10, "minimum": 0.5,
                    "minLength": 0, "enum": [0, null, "a"], "items": {"type": "string"},
                    "properties": {
                        "on": {"additionalProperties": true},
                        "off": {"additionalProperties": false},
                        "any": {"additionalProperties": {"type": "string"}},
                        "both": {"items": [{"type": "a"}, {}]},
                    },
                    "dependencies": {"a": ["b", "c"], "d": {"nullable": true}},
                    "x-kubernetes-preserve-unknown-fields": false,
                }},
                "subresources": {"status": {}},
            }]}}),
        ),
        (
            "options of a deletion are of any version",
            "apps/v1",
            "DeleteOptions",
            vec![
                int(1, 0),
                message(2, [bytes(1, "u"), bytes(2, "")]),
                bytes(4, "Foreground"),
                bytes(5, "All"),
            ],
            json!({
                "gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "dryRun": ["All"],
                "preconditions": {"uid": "u", "resourceVersion": ""},
            }),
        ),
        (
            "fields of unknown numbers are passed over",
            "v1",
            "Namespace",
            vec![
                int(900, 1),
                message(1, [bytes(900, "x"), bytes(1, "a"), double(901, 1.0)]),
                [varint(902 << 3 | 5), vec![0; 4]].concat(),
                bytes(903, [0xff; 9]),
            ],
            json!({"metadata": {"name": "a"}}),
        ),
        (
            "what is said twice counts the second time, and messages are taken together",
            "v1",
            "Namespace",
            vec![
                message(1, [bytes(1, "a"), bytes(2, "b"), entry(11, "k", bytes(2, "1"))]),
                message(1, [bytes(1, "c"), bytes(2, ""), entry(11, "k", bytes(2, "2"))]),
            ],
            json!({"metadata": {"name": "c", "labels": {"k": "2"}}}),
        ),
    ]
    .into_iter()
    .map(|(name, api_version, kind, fields, mut json)| {
        json["apiVersion"] = api_version.into();
        json["kind"] = kind.into();
        (name, api_version, kind, fields, json)
    })
    .collect()
}

/// The bodies alone.
pub(crate) fn bodies() -> Vec<Vec<u8>> {
    let cases = cases().into_iter();
    cases.map(|(_, version, kind, fields, _)| body(version, kind, &fields)).collect()
}

#[test]
fn messages_become_the_json_that_go_would_write() {
    for (name, api_version, kind, fields, want) in cases() {
        assert_eq!(to_json(&body(api_version, kind, &fields)), Ok(want), "{name}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let pod = |fields: &[Vec<u8>]| body("v1", "Pod", fields);
    let deep = (0..200).fold(Vec::new(), |inner, _| message(29, [message(2, [inner])]));
    let crd = |schema: Vec<u8>| {
        let version = message(7, [message(4, [bytes(1, schema)])]);
        body("apiextensions.k8s.io/v1", "CustomResourceDefinition", &[message(2, [version])])
    };
    let list = |items: Vec<u8>| body("v1", "List", &[message(2, [bytes(1, items)])]);
    let nested = (0..60).fold(Vec::new(), |inner, _| list(inner));
    for (name, body, want) in [
        (
            "JSON",
            b"{}".to_vec(),
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        (
            "nothing",
            Vec::new(),
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        ("only the prefix", b"k8s\0".to_vec(), r#"no kind "" is registered for version """#),
        (
            "an envelope that ends early",
            b"k8s\0\x0a\x05".to_vec(),
            "the object provided is unrecognized: unexpected EOF",
        ),
        (
            "an envelope of another make",
            b"k8s\0\x08\x05".to_vec(),
            "the object provided is unrecognized: proto: wrong wireType = 0",
        ),
        (
            "an unknown kind",
            body("v1", "Wombat", &[]),
            r#"no kind "Wombat" is registered for version "v1""#,
        ),
        (
            "a kind of another group",
            body("batch/v1", "Pod", &[]),
            r#"no kind "Pod" is registered for version "batch/v1""#,
        ),
        (
            "a number for a string",
            pod(&[message(2, [message(2, []), message(2, [int(1, 7)])])]),
            r#"Pod in version "v1" cannot be handled as a Pod: spec.containers[1].name: proto: wrong wireType = 0"#,
        ),
        (
            "a string for a message",
            pod(&[int(2, 7)]),
            r#"Pod in version "v1" cannot be handled as a Pod: spec: proto: wrong wireType = 0"#,
        ),
        (
            "bytes for a number",
            body("apps/v1", "Deployment", &[message(2, [bytes(1, "7")])]),
            r#"Deployment in version "v1" cannot be handled as a Deployment: spec.replicas: proto: wrong wireType = 2"#,
        ),
        (
            "a packed list that ends early",
            pod(&[message(2, [message(14, [bytes(4, [1, 0x80])])])]),
            r#"Pod in version "v1" cannot be handled as a Pod: spec.securityContext.supplementalGroups: unexpected EOF"#,
        ),
        (
            "a string that is none",
            pod(&[message(1, [entry(11, "app", bytes(2, [0xff]))])]),
            r#"Pod in version "v1" cannot be handled as a Pod: metadata.labels["app"]: proto: invalid UTF-8 in a string"#,
        ),
        (
            "an object that ends early",
            pod(&[vec![0x0a]]),
            r#"Pod in version "v1" cannot be handled as a Pod: unexpected EOF"#,
        ),
        (
            "neither number nor string",
            body("v1", "Service", &[message(2, [message(1, [message(4, [int(1, 2)])])])]),
            r#"Service in version "v1" cannot be handled as a Service: spec.ports[0].targetPort: impossible IntOrString.Type"#,
        ),
        (
            "JSON that is none",
            body("apps/v1", "ControllerRevision", &[message(2, [bytes(1, "{")])]),
            r#"ControllerRevision in version "v1" cannot be handled as a ControllerRevision: data: no JSON: EOF while parsing an object at line 1 column 1"#,
        ),
        (
            "a year of five digits",
            pod(&[message(1, [message(8, [int(1, 253_402_300_800)])])]),
            r#"Pod in version "v1" cannot be handled as a Pod: metadata.creationTimestamp: no year of four digits is 253402300800 seconds from 1970"#,
        ),
        (
            "no number",
            crd(double(9, f64::NAN)),
            r#"CustomResourceDefinition in version "v1" cannot be handled as a CustomResourceDefinition: spec.versions[0].schema.openAPIV3Schema.maximum: json: unsupported value: NaN"#,
        ),
    ] {
        assert_eq!(to_json(&body).unwrap_err().to_string(), want, "{name}");
    }
    for (name, body) in [("schemas", crd(deep)), ("lists", nested)] {
        let error = to_json(&body).unwrap_err().to_string();
        assert!(error.ends_with("messages nested more than 100 deep"), "{name}: {error}");
    }
}

#[test]
fn a_small_body_does_not_become_a_large_object() {
    let containers = message(2, []).repeat(110_000);
    let groups = message(14, [bytes(4, vec![0; 2 << 20])]);
    let searches = message(26, [bytes(2, "").repeat(2 << 20)]);
    let entries: Vec<u8> =
        (0..600_000).flat_map(|i| message(7, [bytes(1, format!("{i:x}"))])).collect();
    let same = message(7, []).repeat(600_000);
    for (name, spec) in [
        ("messages", containers),
        ("numbers", groups),
        ("strings", searches),
        ("entries", entries),
        ("entries of one key", same),
    ] {
        let error =
            to_json(&body("v1", "Pod", &[bytes(2, spec)])).err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("{name} are read"));
        let want = "it would take more than 67108864 bytes of memory";
        assert!(error.ends_with(want), "{name}: {error}");
    }
}
