//! `rbac.authorization.k8s.io/v1`.

use super::{
    Message,
    meta_v1::{LabelSelector, ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[
    &ClusterRole,
    &ClusterRoleBinding,
    &ClusterRoleBindingList,
    &ClusterRoleList,
    &Role,
    &RoleBinding,
    &RoleBindingList,
    &RoleList,
];

messages! {
    AggregationRule { 1 "clusterRoleSelectors" [LabelSelector] }
    ClusterRole {
        1 "metadata" ObjectMeta,
        2 "rules" [PolicyRule],
        3 "aggregationRule" AggregationRule,
    }
    ClusterRoleBinding {
        1 "metadata" ObjectMeta,
        2 "subjects" [Subject],
        3 "roleRef" RoleRef,
    }
    ClusterRoleBindingList {
        1 "metadata" ListMeta,
        2 "items" [ClusterRoleBinding],
    }
    ClusterRoleList {
        1 "metadata" ListMeta,
        2 "items" [ClusterRole],
    }
    PolicyRule {
        1 "verbs" [string],
        2 "apiGroups" [string],
        3 "resources" [string],
        4 "resourceNames" [string],
        5 "nonResourceURLs" [string],
    }
    Role {
        1 "metadata" ObjectMeta,
        2 "rules" [PolicyRule],
    }
    RoleBinding {
        1 "metadata" ObjectMeta,
        2 "subjects" [Subject],
        3 "roleRef" RoleRef,
    }
    RoleBindingList {
        1 "metadata" ListMeta,
        2 "items" [RoleBinding],
    }
    RoleList {
        1 "metadata" ListMeta,
        2 "items" [Role],
    }
    RoleRef {
        1 opt "apiGroup" string,
        2 opt "kind" string,
        3 opt "name" string,
    }
    Subject {
        1 opt "kind" string,
        2 "apiGroup" string,
        3 opt "name" string,
        4 "namespace" string,
    }
}
