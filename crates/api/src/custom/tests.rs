//! Definitions read, and objects held against them.

use super::*;
use crate::status::Status;

fn definition(schema: Value) -> Value {
    json!({
        "metadata": {"name": "widgets.example.com", "uid": "u", "generation": 1},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": {
                        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector"}},
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "additionalPrinterColumns": [
                        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1, "description": "Its color."},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                },
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                 "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            ],
        },
        "status": {
            "conditions": [{"type": "Established", "status": "True"}],
            "acceptedNames": {"plural": "widgets", "singular": "widget", "kind": "Widget",
                              "listKind": "WidgetList", "shortNames": ["wd"], "categories": ["all"]},
        },
    })
}

fn kind(spec: Value) -> Arc<Kind> {
    let schema = json!({"type": "object", "properties": {
        "spec": spec, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let read = Definition::read(&definition(schema));
    assert_eq!(read.broken, []);
    Arc::clone(&read.kinds[0])
}

fn widget(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget",
           "metadata": {"name": "w", "namespace": "d"}, "spec": spec})
}

fn said(kind: &Kind, spec: Value) -> Vec<String> {
    let mut object = widget(spec);
    kind.set_defaults(&mut object);
    kind.check_create(&object).iter().map(ToString::to_string).collect()
}

#[test]
fn a_definition_makes_a_kind_of_each_version() {
    let read = Definition::read(&definition(json!({"type": "object"})));
    assert!(read.established);
    let kinds: Vec<_> = read.kinds.iter().map(|kind| format!("{kind:?}")).collect();
    assert_eq!(kinds, ["example.com/v1/Widget", "example.com/v1beta1/Widget"]);
    let kind = &read.kinds[0];
    assert_eq!((kind.subresources, kind.all_short_names()), (&["status", "scale"][..], vec!["wd"]));
    assert_eq!(kind.resource(), "widgets.example.com");
    assert_eq!(kind.custom.as_ref().unwrap().deprecation(), None);
    let old = &read.kinds[1];
    let said = old.custom.as_ref().unwrap().deprecation();
    assert_eq!(said, Some("example.com/v1beta1 Widget is deprecated"));
}

#[test]
fn versions_are_in_the_order_of_their_priority() {
    let mut versions = ["v1alpha1", "foo", "v10", "v1", "v2beta1", "v2", "v1beta2", "v1beta1"];
    versions.sort_by(|a, b| compare_versions(a, b));
    let want = ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1beta1", "v1alpha1", "foo"];
    assert_eq!(versions, want);
}

#[test]
fn wrong_objects_are_refused_in_upstreams_words() {
    // VAL-5
    let text = |more: Value| {
        let mut schema = json!({"type": "string"});
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    };
    let of = |schema: Value| json!({"type": "object", "properties": {"x": schema}});
    for (schema, x, want) in [
        (
            json!({"type": "integer"}),
            json!("many"),
            vec![
                "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"",
            ],
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            vec![
                "spec.x: Invalid value: \"number\": spec.x in body must be of type integer: \"number\"",
            ],
        ),
        (json!({"type": "integer"}), json!(2.0), vec![]),
        (json!({"type": "number"}), json!(1), vec![]),
        (
            json!({"type": "boolean"}),
            json!("true"),
            vec![
                "spec.x: Invalid value: \"string\": spec.x in body must be of type boolean: \"string\"",
            ],
        ),
        (
            json!({"type": "string"}),
            json!({}),
            vec![
                "spec.x: Invalid value: \"object\": spec.x in body must be of type string: \"object\"",
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!("a"),
            vec![
                "spec.x: Invalid value: \"string\": spec.x in body must be of type array: \"string\"",
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", null]),
            vec![
                "spec.x[1]: Invalid value: \"null\": spec.x[1] in body must be of type string: \"null\"",
            ],
        ),
        (json!({"type": "string", "nullable": true}), Value::Null, vec![]),
        (json!({"x-kubernetes-int-or-string": true}), json!(5), vec![]),
        (json!({"x-kubernetes-int-or-string": true}), json!("5%"), vec![]),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            vec![
                "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
            ],
        ),
        (
            text(json!({"enum": ["a", "b"]})),
            json!("c"),
            vec!["spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        ),
        (
            text(json!({"pattern": "^[a-z]+$"})),
            json!("A1"),
            vec!["spec.x: Invalid value: \"A1\": spec.x in body should match '^[a-z]+$'"],
        ),
        (
            text(json!({"minLength": 2})),
            json!("a"),
            vec!["spec.x: Invalid value: \"a\": spec.x in body should be at least 2 chars long"],
        ),
        (
            text(json!({"maxLength": 2})),
            json!("abc"),
            vec!["spec.x: Too long: may not be more than 2 bytes"],
        ),
        (text(json!({"maxLength": 2})), json!("äö"), vec![]),
        (
            text(json!({"format": "date-time"})),
            json!("now"),
            vec![
                "spec.x: Invalid value: \"now\": spec.x in body must be of type date-time: \"now\"",
            ],
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            vec!["spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1"],
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            vec!["spec.x: Invalid value: 1: spec.x in body should be greater than 1"],
        ),
        (
            json!({"type": "integer", "maximum": 9}),
            json!(10),
            vec!["spec.x: Invalid value: 10: spec.x in body should be less than or equal to 9"],
        ),
        (
            json!({"type": "number", "maximum": 0.5, "exclusiveMaximum": true}),
            json!(0.5),
            vec!["spec.x: Invalid value: 0.5: spec.x in body should be less than 0.5"],
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            vec!["spec.x: Invalid value: 7: spec.x in body should be a multiple of 5"],
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 1}),
            json!([]),
            vec!["spec.x: Invalid value: 0: spec.x in body should have at least 1 items"],
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "maxItems": 1}),
            json!([1, 2]),
            vec!["spec.x: Too many: 2: must have at most 1 items"],
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1}),
            json!({"a": 1, "b": 2}),
            vec!["spec.x: Too many: 2: must have at most 1 items"],
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}),
            json!({}),
            vec!["spec.x: Invalid value: 0: spec.x in body should have at least 1 properties"],
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"k": "v"}),
            vec![
                "spec.x.k: Invalid value: \"string\": spec.x.k in body must be of type integer: \"string\"",
            ],
        ),
        (
            json!({"type": "object", "required": ["y"], "properties": {"y": {"type": "string"}}}),
            json!({}),
            vec!["spec.x.y: Required value"],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a"]),
            vec!["spec.x[2]: Duplicate value: \"a\""],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                   "items": {"type": "object", "required": ["n"], "properties": {"n": {"type": "string"}}}}),
            json!([{"n": "a"}, {"n": "a"}]),
            vec!["spec.x[1]: Duplicate value: {\"n\":\"a\"}"],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                   "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": "1", "b": "2"}),
            vec![
                "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                   "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({}),
            vec![
                "<nil>: Invalid value: \"\": \"spec.x\" must validate at least one schema (anyOf)",
                "spec.x.a: Required value",
            ],
        ),
        (
            json!({"type": "integer", "allOf": [{"minimum": 3}, {"maximum": 5}]}),
            json!(7),
            vec![
                "spec.x: Invalid value: 7: spec.x in body should be less than or equal to 5",
                "<nil>: Invalid value: \"\": \"spec.x\" must validate all the schemas (allOf)",
            ],
        ),
        (
            json!({"type": "string", "not": {"enum": ["root"]}}),
            json!("root"),
            vec!["<nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)"],
        ),
        (
            json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self % 2 == 1", "message": "must be odd"}]}),
            json!(4),
            vec!["spec.x: Invalid value: \"integer\": must be odd"],
        ),
        (
            json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self < 3", "messageExpression": "'not ' + string(self)", "reason": "FieldValueForbidden"}]}),
            json!(4),
            vec!["spec.x: Forbidden: not 4"],
        ),
        (
            json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self < 3"}, {"rule": "1 / (self - 4) > 0"}]}),
            json!(4),
            vec![
                "spec.x: Invalid value: \"integer\": failed rule: self < 3",
                "spec.x: Invalid value: \"integer\": division by zero evaluating rule: failed rule: 1 / (self - 4) > 0",
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"kind": "No Kind"}),
            vec![
                "spec.x.apiVersion: Required value: must not be empty",
                "spec.x.kind: Invalid value: \"No Kind\": may have mixed case, but should otherwise match: ",
            ],
        ),
    ] {
        let found = said(&kind(of(schema.clone())), json!({"x": x}));
        let fits =
            found.len() == want.len() && found.iter().zip(&want).all(|(f, w)| f.starts_with(w));
        assert!(fits, "{schema} {x}\nfound {found:#?}\nwant {want:#?}");
    }
}

#[test]
fn causes_carry_reason_and_field() {
    let kind =
        kind(json!({"type": "object", "properties": {"x": {"type": "integer", "minimum": 1}}}));
    let status = Status::invalid(&kind, "w", &kind.check_create(&widget(json!({"x": 0}))));
    assert_eq!(status.code, 422);
    assert_eq!(
        status.message,
        "Widget.example.com \"w\" is invalid: spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1"
    );
    assert_eq!(status.details["group"], "example.com");
    assert_eq!(status.details["causes"][0]["reason"], "FieldValueInvalid");
    assert_eq!(status.details["causes"][0]["field"], "spec.x");
}

#[test]
fn what_was_wrong_before_is_nobodys_mistake_now() {
    let kind = kind(json!({"type": "object", "properties": {
        "x": {"type": "integer", "maximum": 5}, "y": {"type": "integer", "maximum": 5},
        "final": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
    }}));
    let old = widget(json!({"x": 9, "final": "a"}));
    let errors = |new: Value| -> Vec<String> {
        kind.check_update(&new, &old).iter().map(ToString::to_string).collect()
    };
    assert_eq!(errors(widget(json!({"x": 9, "y": 1, "final": "a"}))), [""; 0]);
    let worse = errors(widget(json!({"x": 10, "final": "a"})));
    assert_eq!(
        worse,
        ["spec.x: Invalid value: 10: spec.x in body should be less than or equal to 5"]
    );
    let changed = errors(widget(json!({"x": 9, "final": "b"})));
    assert_eq!(changed, ["spec.final: Invalid value: \"string\": is immutable"]);
}

#[test]
fn rows_show_what_the_columns_say() {
    let kind = kind(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let mut object = widget(json!({"replicas": 3, "color": "red"}));
    object["metadata"]["creationTimestamp"] = json!(meta::time(1_700_000_000));
    object["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let row = kind.row(&object, 1_700_000_300);
    assert_eq!(row, [json!("w"), json!(3), json!("True"), json!("red"), json!("5m")]);
    let row = kind.row(&widget(json!({})), 0);
    assert_eq!(row, [json!("w"), Value::Null, Value::Null, Value::Null, Value::Null]);
    let columns = kind.column_definitions();
    assert_eq!(
        (&columns[3]["priority"], &columns[3]["description"]),
        (&json!(1), &json!("Its color."))
    );
    assert!(kind.is_field_label("spec.color") && !kind.is_field_label("spec.size"));
    assert_eq!(kind.field_value(&object, "spec.color"), "red");
}

#[test]
fn the_status_has_a_door_of_its_own() {
    let kind = kind(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let mut new = widget(json!({"a": 1}));
    new["status"] = json!({"phase": "mine"});
    kind.before_create(&mut new);
    assert_eq!(new.get("status"), None);
    let mut old = widget(json!({"a": 1}));
    old["status"] = json!({"phase": "old"});
    let mut update = widget(json!({"a": 2}));
    update["status"] = json!({"phase": "new"});
    let mut status = update.clone();
    kind.before_update(&mut update, &old);
    assert_eq!((&update["spec"], &update["status"]), (&json!({"a": 2}), &json!({"phase": "old"})));
    assert!((kind.generation_counts)(&update, &old));
    kind.before_status(&mut status, &old);
    assert_eq!((&status["spec"], &status["status"]), (&json!({"a": 1}), &json!({"phase": "new"})));
    let mut relabelled = old.clone();
    relabelled["metadata"]["labels"] = json!({"a": "b"});
    assert!(!(kind.generation_counts)(&relabelled, &old));
}

#[test]
fn a_scale_is_found_where_the_definition_says() {
    let kind = kind(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let mut object = widget(json!({"replicas": 3}));
    object["status"] = json!({"replicas": 2, "selector": "app=w"});
    let mut scale = crate::scale::get(&kind, &object).unwrap();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(3), &json!({"replicas": 2, "selector": "app=w"}))
    );
    scale["spec"]["replicas"] = json!(7);
    assert_eq!(crate::scale::set(&kind, &object, &scale).unwrap()["spec"]["replicas"], 7);
}

#[test]
fn wrong_schemas_are_refused_when_the_definition_is_written() {
    let of = |schema: Value| json!({"type": "object", "properties": {"x": schema}});
    for (schema, want) in [
        (
            json!({"type": "string", "pattern": "("}),
            "s.properties[x].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: ",
        ),
        (
            json!({"type": "integer", "default": "a"}),
            "s.properties[x].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "object", "properties": {}, "default": {"y": 1}}),
            "s.properties[x].default: Invalid value: {\"y\":1}: must not have unknown fields: y",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self.size("}]}),
            "s.properties[x].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.size(\"}: compilation failed: ERROR: <input>: ",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self.frob()"}]}),
            "s.properties[x].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.frob()\"}: compilation failed: ERROR: <input>: undeclared reference to 'frob' (in container '')",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-validations": [{"rule": "self.b == ''"}]}),
            "s.properties[x].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.b == ''\"}: compilation failed: ERROR: <input>: undefined field 'b'",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "true", "reason": "Because"}]}),
            "s.properties[x].x-kubernetes-validations[0].reason: Unsupported value: \"Because\": supported values: ",
        ),
    ] {
        let errors = check_definition(&of(schema.clone()), &Path::new("s"));
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].starts_with(want), "{schema}\n{errors:#?}");
    }
    assert_eq!(
        check_definition(&of(json!({"type": "integer", "default": 3})), &Path::new("s")),
        []
    );
}

#[test]
fn the_first_delete_makes_a_definition_wait_for_its_objects() {
    let mut object = definition(json!({"type": "object"}));
    begin_removal(&mut object, 0);
    assert_eq!(meta::finalizers(&object), [CLEANUP]);
    assert_eq!(condition_status(&object, "Terminating"), "True");
    let once = object.clone();
    object["metadata"]["deletionTimestamp"] = json!(meta::time(0));
    object["metadata"]["finalizers"] = json!([]);
    let marked = object.clone();
    begin_removal(&mut object, 5);
    assert_eq!(object, marked, "only the first");
    assert_ne!(once, marked);
}
