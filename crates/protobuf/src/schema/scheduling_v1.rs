//! `scheduling.k8s.io/v1`.

use super::{
    Message,
    meta_v1::{ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[&PriorityClass, &PriorityClassList];

messages! {
    PriorityClass {
        1 "metadata" ObjectMeta,
        2 opt "value" int32,
        3 "globalDefault" bool,
        4 "description" string,
        5 opt "preemptionPolicy" string,
    }
    PriorityClassList {
        1 "metadata" ListMeta,
        2 "items" [PriorityClass],
    }
}
