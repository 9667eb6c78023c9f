//! `batch/v1`.

use super::{
    Message,
    core_v1::{ObjectReference, PodTemplateSpec},
    machinery::Time,
    meta_v1::{LabelSelector, ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[&CronJob, &CronJobList, &Job, &JobList];

messages! {
    CronJob {
        1 "metadata" ObjectMeta,
        2 "spec" CronJobSpec,
        3 "status" CronJobStatus,
    }
    CronJobList {
        1 "metadata" ListMeta,
        2 "items" [CronJob],
    }
    CronJobSpec {
        1 opt "schedule" string,
        2 opt "startingDeadlineSeconds" int64,
        3 "concurrencyPolicy" string,
        4 opt "suspend" bool,
        5 "jobTemplate" JobTemplateSpec,
        6 opt "successfulJobsHistoryLimit" int32,
        7 opt "failedJobsHistoryLimit" int32,
        8 opt "timeZone" string,
    }
    CronJobStatus {
        1 "active" [ObjectReference],
        4 "lastScheduleTime" Time,
        5 "lastSuccessfulTime" Time,
    }
    Job {
        1 "metadata" ObjectMeta,
        2 "spec" JobSpec,
        3 "status" JobStatus,
    }
    JobCondition {
        1 opt "type" string,
        2 opt "status" string,
        3 "lastProbeTime" Time,
        4 "lastTransitionTime" Time,
        5 "reason" string,
        6 "message" string,
    }
    JobList {
        1 "metadata" ListMeta,
        2 "items" [Job],
    }
    JobSpec {
        1 opt "parallelism" int32,
        2 opt "completions" int32,
        3 opt "activeDeadlineSeconds" int64,
        4 "selector" LabelSelector,
        5 opt "manualSelector" bool,
        6 "template" PodTemplateSpec,
        7 opt "backoffLimit" int32,
        8 opt "ttlSecondsAfterFinished" int32,
        9 opt "completionMode" string,
        10 opt "suspend" bool,
        11 "podFailurePolicy" PodFailurePolicy,
        12 opt "backoffLimitPerIndex" int32,
        13 opt "maxFailedIndexes" int32,
        14 opt "podReplacementPolicy" string,
        15 opt "managedBy" string,
        16 "successPolicy" SuccessPolicy,
    }
    JobStatus {
        1 "conditions" [JobCondition],
        2 "startTime" Time,
        3 "completionTime" Time,
        4 "active" int32,
        5 "succeeded" int32,
        6 "failed" int32,
        7 "completedIndexes" string,
        8 "uncountedTerminatedPods" UncountedTerminatedPods,
        9 opt "ready" int32,
        10 opt "failedIndexes" string,
        11 opt "terminating" int32,
    }
    JobTemplateSpec {
        1 "metadata" ObjectMeta,
        2 "spec" JobSpec,
    }
    PodFailurePolicy { 1 "rules" [PodFailurePolicyRule] }
    PodFailurePolicyOnExitCodesRequirement {
        1 opt "containerName" string,
        2 opt "operator" string,
        3 "values" [int32],
    }
    PodFailurePolicyOnPodConditionsPattern {
        1 opt "type" string,
        2 opt "status" string,
    }
    PodFailurePolicyRule {
        1 opt "action" string,
        2 "onExitCodes" PodFailurePolicyOnExitCodesRequirement,
        3 "onPodConditions" [PodFailurePolicyOnPodConditionsPattern],
    }
    SuccessPolicy { 1 "rules" [SuccessPolicyRule] }
    SuccessPolicyRule {
        1 opt "succeededIndexes" string,
        2 opt "succeededCount" int32,
    }
    UncountedTerminatedPods {
        1 "succeeded" [string],
        2 "failed" [string],
    }
}
