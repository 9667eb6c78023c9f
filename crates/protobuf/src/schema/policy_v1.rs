//! `policy/v1`.

use super::{
    Message,
    machinery::{IntOrString, Time},
    meta_v1::{Condition, DeleteOptions, LabelSelector, ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[&Eviction, &PodDisruptionBudget, &PodDisruptionBudgetList];

messages! {
    Eviction {
        1 "metadata" ObjectMeta,
        2 "deleteOptions" DeleteOptions,
    }
    PodDisruptionBudget {
        1 "metadata" ObjectMeta,
        2 "spec" PodDisruptionBudgetSpec,
        3 "status" PodDisruptionBudgetStatus,
    }
    PodDisruptionBudgetList {
        1 "metadata" ListMeta,
        2 "items" [PodDisruptionBudget],
    }
    PodDisruptionBudgetSpec {
        1 "minAvailable" IntOrString,
        2 "selector" LabelSelector,
        3 "maxUnavailable" IntOrString,
        4 opt "unhealthyPodEvictionPolicy" string,
    }
    PodDisruptionBudgetStatus {
        1 "observedGeneration" int64,
        2 "disruptedPods" {Time},
        3 opt "disruptionsAllowed" int32,
        4 opt "currentHealthy" int32,
        5 opt "desiredHealthy" int32,
        6 opt "expectedPods" int32,
        7 "conditions" [Condition],
    }
}
