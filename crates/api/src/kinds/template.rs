//! Templates for Pods, as every workload has one: defaults, validation, columns. And the two kinds
//! that only keep a template: PodTemplate and ControllerRevision.

use super::{
    Kind, column, decodes, decodes_amounts, list, normalize_amounts, number, or_none, plain::PLAIN,
    pod, rules, set_default, text, valid_metadata, wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    names,
    selector::LabelSelector,
    table::{Column, age},
    validation,
};
use serde_json::{Map, Value, json};

/// Where a template at `spec.template` has amounts.
pub(super) const AMOUNTS: &[&str] = &[
    "spec/template/spec/containers/*/resources/limits/*",
    "spec/template/spec/containers/*/resources/requests/*",
    "spec/template/spec/initContainers/*/resources/limits/*",
    "spec/template/spec/initContainers/*/resources/requests/*",
    "spec/template/spec/overhead/*",
];

/// Where a workload has the spec of its Pods.
pub(super) const POD_SPEC: &str = "/spec/template/spec";

/// Defaults the template in `holder`, the spec of a workload.
pub(super) fn default_in(holder: &mut Map<String, Value>) {
    let template = holder.entry("template").or_insert_with(|| json!({}));
    child_mut(template, "metadata");
    pod::default_spec(child_mut(template, "spec"));
}

/// Every error of a template that any template may have.
pub(super) fn validate(template: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = validate_metadata(template, path);
    let spec = template.get("spec").unwrap_or(&Value::Null);
    let at = path.child("spec");
    errors.extend(pod::validate_spec(spec, &at));
    if !list(spec, "ephemeralContainers").is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(&at.child("ephemeralContainers"), detail));
    }
    errors
}

/// At `labels` and `annotations` without `metadata`: so upstream has it.
fn validate_metadata(template: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = names::labels(&path.child("labels"), &meta::labels(template));
    let annotations = template.pointer("/metadata/annotations").and_then(Value::as_object);
    errors.extend(validation::annotations(annotations, &path.child("annotations")));
    errors
}

/// A template whose Pods go on for ever: what keeps a number of them must be able to count on it.
pub(super) fn validate_lasting(template: &Value, path: &Path, kind: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let policy = text(template, "/spec/restartPolicy");
    let spec = path.child("spec");
    pod::enumeration(&mut errors, &spec.child("restartPolicy"), &policy, &["Always"]);
    if template.pointer("/spec/activeDeadlineSeconds").is_some_and(|s| !s.is_null()) {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(&spec.child("activeDeadlineSeconds"), detail));
    }
    errors
}

/// What a workload's selector selects.
pub(super) enum Selected {
    /// Nobody can say: the selector is malformed, and that was said.
    Unclear,
    /// Nothing: there is no selector.
    Nothing,
    /// What this one selects.
    By(LabelSelector),
}

impl Selected {
    /// Without a word on what is wrong.
    pub(super) fn of(selector: Option<&Value>) -> Self {
        let Some(selector) = selector.filter(|s| !s.is_null()) else { return Self::Nothing };
        let wrong = rules::label_selector(Some(selector), &Path::new(""));
        let parsed = rules::parsed_selector(Some(selector)).filter(|_| wrong.is_empty());
        parsed.map_or(Self::Unclear, Self::By)
    }
}

/// A selector that does not find the Pods that the template makes.
pub(super) fn validate_match(
    selected: &Selected,
    template: &Value,
    path: &Path,
) -> Vec<FieldError> {
    match selected {
        Selected::Unclear => return Vec::new(),
        Selected::By(selector) if selector.matches_object(template) => return Vec::new(),
        Selected::By(_) | Selected::Nothing => {}
    }
    let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
    let at = path.child("metadata").child("labels");
    vec![FieldError::invalid(&at, labels, "`selector` does not match template `labels`")]
}

/// The rules on `spec.selector` that ReplicaSet, Deployment and StatefulSet share: there, well formed
/// and not empty. The texts are for one that is empty and one that is malformed.
pub(super) fn validate_selector(
    spec: &Value,
    path: &Path,
    (empty, malformed): (&str, &str),
    errors: &mut Vec<FieldError>,
) -> Selected {
    let at = path.child("selector");
    let Some(selector) = spec.get("selector").filter(|s| !s.is_null()) else {
        errors.push(FieldError::required(&at, ""));
        return Selected::Nothing;
    };
    errors.extend(rules::label_selector(Some(selector), &at));
    if rules::selects_all(selector) {
        errors.push(FieldError::invalid(&at, selector.clone(), empty));
    }
    let selected = Selected::of(Some(selector));
    if matches!(selected, Selected::Unclear) {
        errors.push(FieldError::invalid(&at, selector.clone(), malformed));
    }
    selected
}

/// Names and images of the template's containers, as `-o wide` shows them.
pub(super) fn container_cells(template: Option<&Value>) -> [Value; 2] {
    let containers =
        template.and_then(|t| t.get("spec")).map_or(&[][..], |s| list(s, "containers"));
    ["/name", "/image"].map(|field| {
        let all: Vec<String> = containers.iter().map(|c| text(c, field)).collect();
        all.join(",").into()
    })
}

/// Containers and Images.
pub(super) const CONTAINERS: [Column; 2] = [wide("Containers"), wide("Images")];

fn validate_kept(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    let template = object.get("template").unwrap_or(&Value::Null);
    errors.extend(validate(template, &Path::new("template")));
    errors
}

pub(super) const POD_TEMPLATE: Kind = Kind {
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    has_generation: true,
    pod_spec: Some("/template/spec"),
    generation_counts: |new, old| new.get("template") != old.get("template"),
    default: |object| {
        drop_nulls(object);
        if let Some(fields) = object.as_object_mut() {
            default_in(fields);
        }
        normalize_amounts(object, TEMPLATE_AMOUNTS);
    },
    validate_create: validate_kept,
    validate_update: |new, old| {
        let mut errors = validate_kept(new);
        errors.extend(validation::metadata_update(new, old));
        errors
    },
    columns: &[
        column("Name", "name"),
        column("Containers", ""),
        column("Images", ""),
        column("Pod Labels", ""),
    ],
    cells: |object, _| {
        let template = object.get("template");
        let [names, images] = container_cells(template);
        let labels = rules::labels_cell(object.pointer("/template/metadata/labels"));
        vec![meta::name(object).into(), names, images, labels]
    },
    decode: |object| decodes_amounts::<core::PodTemplate>(object, TEMPLATE_AMOUNTS),
    ..PLAIN
};

const TEMPLATE_AMOUNTS: &[&str] = &[
    "template/spec/containers/*/resources/limits/*",
    "template/spec/containers/*/resources/requests/*",
    "template/spec/initContainers/*/resources/limits/*",
    "template/spec/initContainers/*/resources/requests/*",
    "template/spec/overhead/*",
];

fn validate_revision(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    if object.get("data").is_none_or(Value::is_null) {
        errors.push(FieldError::required(&Path::new("data"), "data is mandatory"));
    }
    let revision = number(object, "/revision");
    if revision < 0 {
        errors.push(FieldError::invalid(&Path::new("revision"), revision, rules::NEGATIVE));
    }
    errors
}

pub(super) const CONTROLLER_REVISION: Kind = Kind {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    // The data is somebody's patch, in which a null means something.
    default: |object| {
        let Some(fields) = object.as_object_mut() else { return };
        let data = fields.remove("data").filter(|data| !data.is_null());
        drop_nulls(object);
        if let (Some(fields), Some(data)) = (object.as_object_mut(), data) {
            fields.insert("data".to_owned(), data);
        }
        if let Some(fields) = object.as_object_mut() {
            set_default(fields, "revision", 0);
        }
    },
    validate_create: validate_revision,
    validate_update: |new, old| {
        let mut errors = validation::metadata_update(new, old);
        errors.extend(validate_revision(new));
        if new.get("data") != old.get("data") {
            let data = new.get("data").cloned().unwrap_or_default();
            errors.push(FieldError::invalid(&Path::new("data"), data, "field is immutable"));
        }
        errors
    },
    columns: &[
        column("Name", "name"),
        column("Controller", ""),
        column("Revision", ""),
        column("Age", ""),
    ],
    cells: |object, now| {
        let controller = meta::controller(object).map(|owner| {
            let kind = text(owner, "/kind").to_lowercase();
            let version = text(owner, "/apiVersion");
            let group = version.split_once('/').map_or(String::new(), |(g, _)| format!(".{g}"));
            format!("{kind}{group}/{}", text(owner, "/name"))
        });
        vec![
            meta::name(object).into(),
            or_none(controller.unwrap_or_default()),
            number(object, "/revision").into(),
            age(object, now).into(),
        ]
    },
    decode: decodes::<core::ControllerRevision>,
    ..PLAIN
};
