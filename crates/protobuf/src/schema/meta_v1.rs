//! `k8s.io/apimachinery/pkg/apis/meta/v1`; its kinds are of `v1`.

use super::{
    Message,
    machinery::{FieldsV1, RawExtension, Time},
};

pub(super) const KINDS: &[&Message] = &[&DeleteOptions, &List, &Status];

messages! {
    Condition {
        1 opt "type" string,
        2 opt "status" string,
        3 "observedGeneration" int64,
        4 "lastTransitionTime" Time,
        5 opt "reason" string,
        6 opt "message" string,
    }
    DeleteOptions {
        1 opt "gracePeriodSeconds" int64,
        2 "preconditions" Preconditions,
        3 opt "orphanDependents" bool,
        4 opt "propagationPolicy" string,
        5 "dryRun" [string],
        6 opt "ignoreStoreReadErrorWithClusterBreakingPotential" bool,
    }
    FieldSelectorRequirement {
        1 opt "key" string,
        2 opt "operator" string,
        3 "values" [string],
    }
    LabelSelector {
        1 "matchLabels" {string},
        2 "matchExpressions" [LabelSelectorRequirement],
    }
    LabelSelectorRequirement {
        1 opt "key" string,
        2 opt "operator" string,
        3 "values" [string],
    }
    List {
        1 "metadata" ListMeta,
        2 "items" [RawExtension],
    }
    ListMeta {
        1 "selfLink" string,
        2 "resourceVersion" string,
        3 "continue" string,
        4 opt "remainingItemCount" int64,
        5 "shardInfo" ShardInfo,
    }
    ManagedFieldsEntry {
        1 "manager" string,
        2 "operation" string,
        3 "apiVersion" string,
        4 "time" Time,
        6 "fieldsType" string,
        7 "fieldsV1" FieldsV1,
        8 "subresource" string,
    }
    ObjectMeta {
        1 "name" string,
        2 "generateName" string,
        3 "namespace" string,
        4 "selfLink" string,
        5 "uid" string,
        6 "resourceVersion" string,
        7 "generation" int64,
        8 "creationTimestamp" Time,
        9 "deletionTimestamp" Time,
        10 opt "deletionGracePeriodSeconds" int64,
        11 "labels" {string},
        12 "annotations" {string},
        13 "ownerReferences" [OwnerReference],
        14 "finalizers" [string],
        17 "managedFields" [ManagedFieldsEntry],
    }
    OwnerReference {
        1 opt "kind" string,
        3 opt "name" string,
        4 opt "uid" string,
        5 opt "apiVersion" string,
        6 opt "controller" bool,
        7 opt "blockOwnerDeletion" bool,
    }
    Preconditions {
        1 opt "uid" string,
        2 opt "resourceVersion" string,
    }
    ShardInfo { 1 opt "selector" string }
    Status {
        1 "metadata" ListMeta,
        2 "status" string,
        3 "message" string,
        4 "reason" string,
        5 "details" StatusDetails,
        6 "code" int32,
    }
    StatusCause {
        1 "reason" string,
        2 "message" string,
        3 "field" string,
    }
    StatusDetails {
        1 "name" string,
        2 "group" string,
        3 "kind" string,
        4 "causes" [StatusCause],
        5 "retryAfterSeconds" int32,
        6 "uid" string,
    }
}
