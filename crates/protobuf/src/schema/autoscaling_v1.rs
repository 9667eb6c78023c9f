//! `autoscaling/v1`.

use super::{
    Message,
    machinery::Time,
    meta_v1::{ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] =
    &[&HorizontalPodAutoscaler, &HorizontalPodAutoscalerList, &Scale];

messages! {
    CrossVersionObjectReference {
        1 opt "kind" string,
        2 opt "name" string,
        3 "apiVersion" string,
    }
    HorizontalPodAutoscaler {
        1 "metadata" ObjectMeta,
        2 "spec" HorizontalPodAutoscalerSpec,
        3 "status" HorizontalPodAutoscalerStatus,
    }
    HorizontalPodAutoscalerList {
        1 "metadata" ListMeta,
        2 "items" [HorizontalPodAutoscaler],
    }
    HorizontalPodAutoscalerSpec {
        1 "scaleTargetRef" CrossVersionObjectReference,
        2 opt "minReplicas" int32,
        3 opt "maxReplicas" int32,
        4 opt "targetCPUUtilizationPercentage" int32,
    }
    HorizontalPodAutoscalerStatus {
        1 opt "observedGeneration" int64,
        2 "lastScaleTime" Time,
        3 opt "currentReplicas" int32,
        4 opt "desiredReplicas" int32,
        5 opt "currentCPUUtilizationPercentage" int32,
    }
    Scale {
        1 "metadata" ObjectMeta,
        2 "spec" ScaleSpec,
        3 "status" ScaleStatus,
    }
    ScaleSpec { 1 "replicas" int32 }
    ScaleStatus {
        1 opt "replicas" int32,
        2 "selector" string,
    }
}
