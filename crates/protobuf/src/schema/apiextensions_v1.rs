//! `apiextensions.k8s.io/v1`.

use super::{
    Message,
    machinery::Time,
    meta_v1::{ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[&CustomResourceDefinition, &CustomResourceDefinitionList];

messages! {
    CustomResourceColumnDefinition {
        1 opt "name" string,
        2 opt "type" string,
        3 "format" string,
        4 "description" string,
        5 "priority" int32,
        6 opt "jsonPath" string,
    }
    CustomResourceConversion {
        1 opt "strategy" string,
        2 "webhook" WebhookConversion,
    }
    CustomResourceDefinition {
        1 "metadata" ObjectMeta,
        2 "spec" CustomResourceDefinitionSpec,
        3 "status" CustomResourceDefinitionStatus,
    }
    CustomResourceDefinitionCondition {
        1 opt "type" string,
        2 opt "status" string,
        3 "lastTransitionTime" Time,
        4 "reason" string,
        5 "message" string,
        6 "observedGeneration" int64,
    }
    CustomResourceDefinitionList {
        1 "metadata" ListMeta,
        2 "items" [CustomResourceDefinition],
    }
    CustomResourceDefinitionNames {
        1 opt "plural" string,
        2 "singular" string,
        3 "shortNames" [string],
        4 opt "kind" string,
        5 "listKind" string,
        6 "categories" [string],
    }
    CustomResourceDefinitionSpec {
        1 opt "group" string,
        3 "names" CustomResourceDefinitionNames,
        4 opt "scope" string,
        7 "versions" [CustomResourceDefinitionVersion],
        9 "conversion" CustomResourceConversion,
        10 "preserveUnknownFields" bool,
    }
    CustomResourceDefinitionStatus {
        1 "conditions" [CustomResourceDefinitionCondition],
        2 "acceptedNames" CustomResourceDefinitionNames,
        3 "storedVersions" [string],
        4 "observedGeneration" int64,
    }
    CustomResourceDefinitionVersion {
        1 opt "name" string,
        2 opt "served" bool,
        3 opt "storage" bool,
        4 "schema" CustomResourceValidation,
        5 "subresources" CustomResourceSubresources,
        6 "additionalPrinterColumns" [CustomResourceColumnDefinition],
        7 "deprecated" bool,
        8 opt "deprecationWarning" string,
        9 "selectableFields" [SelectableField],
    }
    CustomResourceSubresourceScale {
        1 opt "specReplicasPath" string,
        2 opt "statusReplicasPath" string,
        3 opt "labelSelectorPath" string,
    }
    CustomResourceSubresourceStatus {}
    CustomResourceSubresources {
        1 "status" CustomResourceSubresourceStatus,
        2 "scale" CustomResourceSubresourceScale,
    }
    CustomResourceValidation { 1 "openAPIV3Schema" JSONSchemaProps }
    ExternalDocumentation {
        1 "description" string,
        2 "url" string,
    }
    JSON as OneOf { 1 "raw" json }
    JSONSchemaProps {
        1 "id" string,
        2 "$schema" string,
        3 opt "$ref" string,
        4 "description" string,
        5 "type" string,
        6 "format" string,
        7 "title" string,
        8 "default" JSON,
        9 opt "maximum" double,
        10 "exclusiveMaximum" bool,
        11 opt "minimum" double,
        12 "exclusiveMinimum" bool,
        13 opt "maxLength" int64,
        14 opt "minLength" int64,
        15 "pattern" string,
        16 opt "maxItems" int64,
        17 opt "minItems" int64,
        18 "uniqueItems" bool,
        19 opt "multipleOf" double,
        20 "enum" [JSON],
        21 opt "maxProperties" int64,
        22 opt "minProperties" int64,
        23 "required" [string],
        24 "items" JSONSchemaPropsOrArray,
        25 "allOf" [JSONSchemaProps],
        26 "oneOf" [JSONSchemaProps],
        27 "anyOf" [JSONSchemaProps],
        28 "not" JSONSchemaProps,
        29 "properties" {JSONSchemaProps},
        30 "additionalProperties" JSONSchemaPropsOrBool,
        31 "patternProperties" {JSONSchemaProps},
        32 "dependencies" {JSONSchemaPropsOrStringArray},
        33 "additionalItems" JSONSchemaPropsOrBool,
        34 "definitions" {JSONSchemaProps},
        35 "externalDocs" ExternalDocumentation,
        36 "example" JSON,
        37 "nullable" bool,
        38 opt "x-kubernetes-preserve-unknown-fields" bool,
        39 "x-kubernetes-embedded-resource" bool,
        40 "x-kubernetes-int-or-string" bool,
        41 "x-kubernetes-list-map-keys" [string],
        42 opt "x-kubernetes-list-type" string,
        43 opt "x-kubernetes-map-type" string,
        44 "x-kubernetes-validations" [ValidationRule],
    }
    JSONSchemaPropsOrArray as OneOf {
        1 "schema" JSONSchemaProps,
        2 "jSONSchemas" [JSONSchemaProps],
    }
    JSONSchemaPropsOrBool as SchemaOrBool {
        1 "allows" bool,
        2 "schema" JSONSchemaProps,
    }
    JSONSchemaPropsOrStringArray as OneOf {
        1 "schema" JSONSchemaProps,
        2 "property" [string],
    }
    SelectableField { 1 opt "jsonPath" string }
    ServiceReference {
        1 opt "namespace" string,
        2 opt "name" string,
        3 opt "path" string,
        4 opt "port" int32,
    }
    ValidationRule {
        1 opt "rule" string,
        2 "message" string,
        3 "messageExpression" string,
        4 opt "reason" string,
        5 "fieldPath" string,
        6 opt "optionalOldSelf" bool,
    }
    WebhookClientConfig {
        1 "service" ServiceReference,
        2 "caBundle" bytes,
        3 opt "url" string,
    }
    WebhookConversion {
        2 "clientConfig" WebhookClientConfig,
        3 "conversionReviewVersions" [string],
    }
}
