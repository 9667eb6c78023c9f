//! `storage.k8s.io/v1`.

use super::{
    Message,
    core_v1::TopologySelectorTerm,
    meta_v1::{ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[&StorageClass, &StorageClassList];

messages! {
    StorageClass {
        1 "metadata" ObjectMeta,
        2 opt "provisioner" string,
        3 "parameters" {string},
        4 opt "reclaimPolicy" string,
        5 "mountOptions" [string],
        6 opt "allowVolumeExpansion" bool,
        7 opt "volumeBindingMode" string,
        8 "allowedTopologies" [TopologySelectorTerm],
    }
    StorageClassList {
        1 "metadata" ListMeta,
        2 "items" [StorageClass],
    }
}
