//! `coordination.k8s.io/v1`.

use super::{
    Message,
    machinery::MicroTime,
    meta_v1::{ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[&Lease, &LeaseList];

messages! {
    Lease {
        1 "metadata" ObjectMeta,
        2 "spec" LeaseSpec,
    }
    LeaseList {
        1 "metadata" ListMeta,
        2 "items" [Lease],
    }
    LeaseSpec {
        1 opt "holderIdentity" string,
        2 opt "leaseDurationSeconds" int32,
        3 "acquireTime" MicroTime,
        4 "renewTime" MicroTime,
        5 opt "leaseTransitions" int32,
        6 opt "strategy" string,
        7 opt "preferredHolder" string,
    }
}
