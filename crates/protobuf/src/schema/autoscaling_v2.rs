//! `autoscaling/v2`.

use super::{
    Message,
    machinery::{Quantity, Time},
    meta_v1::{LabelSelector, ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[&HorizontalPodAutoscaler, &HorizontalPodAutoscalerList];

messages! {
    ContainerResourceMetricSource {
        1 opt "name" string,
        2 "target" MetricTarget,
        3 opt "container" string,
    }
    ContainerResourceMetricStatus {
        1 opt "name" string,
        2 "current" MetricValueStatus,
        3 opt "container" string,
    }
    CrossVersionObjectReference {
        1 opt "kind" string,
        2 opt "name" string,
        3 "apiVersion" string,
    }
    ExternalMetricSource {
        1 "metric" MetricIdentifier,
        2 "target" MetricTarget,
    }
    ExternalMetricStatus {
        1 "metric" MetricIdentifier,
        2 "current" MetricValueStatus,
    }
    HPAScalingPolicy {
        1 opt "type" string,
        2 opt "value" int32,
        3 opt "periodSeconds" int32,
    }
    HPAScalingRules {
        1 opt "selectPolicy" string,
        2 "policies" [HPAScalingPolicy],
        3 opt "stabilizationWindowSeconds" int32,
        4 "tolerance" Quantity,
    }
    HorizontalPodAutoscaler {
        1 "metadata" ObjectMeta,
        2 "spec" HorizontalPodAutoscalerSpec,
        3 "status" HorizontalPodAutoscalerStatus,
    }
    HorizontalPodAutoscalerBehavior {
        1 "scaleUp" HPAScalingRules,
        2 "scaleDown" HPAScalingRules,
    }
    HorizontalPodAutoscalerCondition {
        1 opt "type" string,
        2 opt "status" string,
        3 "lastTransitionTime" Time,
        4 "reason" string,
        5 "message" string,
    }
    HorizontalPodAutoscalerList {
        1 "metadata" ListMeta,
        2 "items" [HorizontalPodAutoscaler],
    }
    HorizontalPodAutoscalerSpec {
        1 "scaleTargetRef" CrossVersionObjectReference,
        2 opt "minReplicas" int32,
        3 opt "maxReplicas" int32,
        4 "metrics" [MetricSpec],
        5 "behavior" HorizontalPodAutoscalerBehavior,
    }
    HorizontalPodAutoscalerStatus {
        1 opt "observedGeneration" int64,
        2 "lastScaleTime" Time,
        3 "currentReplicas" int32,
        4 opt "desiredReplicas" int32,
        5 "currentMetrics" [MetricStatus],
        6 "conditions" [HorizontalPodAutoscalerCondition],
    }
    MetricIdentifier {
        1 opt "name" string,
        2 "selector" LabelSelector,
    }
    MetricSpec {
        1 opt "type" string,
        2 "object" ObjectMetricSource,
        3 "pods" PodsMetricSource,
        4 "resource" ResourceMetricSource,
        5 "external" ExternalMetricSource,
        7 "containerResource" ContainerResourceMetricSource,
    }
    MetricStatus {
        1 opt "type" string,
        2 "object" ObjectMetricStatus,
        3 "pods" PodsMetricStatus,
        4 "resource" ResourceMetricStatus,
        5 "external" ExternalMetricStatus,
        7 "containerResource" ContainerResourceMetricStatus,
    }
    MetricTarget {
        1 opt "type" string,
        2 "value" Quantity,
        3 "averageValue" Quantity,
        4 opt "averageUtilization" int32,
    }
    MetricValueStatus {
        1 "value" Quantity,
        2 "averageValue" Quantity,
        3 opt "averageUtilization" int32,
    }
    ObjectMetricSource {
        1 "describedObject" CrossVersionObjectReference,
        2 "target" MetricTarget,
        3 "metric" MetricIdentifier,
    }
    ObjectMetricStatus {
        1 "metric" MetricIdentifier,
        2 "current" MetricValueStatus,
        3 "describedObject" CrossVersionObjectReference,
    }
    PodsMetricSource {
        1 "metric" MetricIdentifier,
        2 "target" MetricTarget,
    }
    PodsMetricStatus {
        1 "metric" MetricIdentifier,
        2 "current" MetricValueStatus,
    }
    ResourceMetricSource {
        1 opt "name" string,
        2 "target" MetricTarget,
    }
    ResourceMetricStatus {
        1 opt "name" string,
        2 "current" MetricValueStatus,
    }
}
