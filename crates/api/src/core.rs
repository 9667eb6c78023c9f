//! The typed objects that everybody uses, under one roof.

pub use k8s_openapi::{
    api::{
        apps::v1::{
            ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus, Deployment,
            DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus,
            StatefulSet, StatefulSetSpec, StatefulSetStatus,
        },
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job, JobSpec, JobStatus},
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{
            Affinity, Binding, ConfigMap, ConfigMapKeySelector, Container, ContainerPort,
            ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
            ContainerStatus, EmptyDirVolumeSource, EndpointAddress, EndpointPort, EndpointSubset,
            Endpoints, EnvFromSource, EnvVar, EnvVarSource, EphemeralContainer, Event, EventSeries,
            EventSource, ExecAction, HTTPGetAction, HostIP, KeyToPath, Lifecycle, LifecycleHandler,
            LimitRange, Namespace, NamespaceSpec, NamespaceStatus, Node, NodeAddress, NodeAffinity,
            NodeCondition, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, NodeSpec,
            NodeStatus, NodeSystemInfo, ObjectFieldSelector, ObjectReference, Pod, PodAffinityTerm,
            PodCondition, PodDNSConfig, PodIP, PodSecurityContext, PodSpec, PodStatus, PodTemplate,
            PodTemplateSpec, Probe, ReplicationController, ReplicationControllerSpec,
            ResourceFieldSelector, ResourceQuota, ResourceRequirements, Secret, SecretKeySelector,
            SecurityContext, Service, ServiceAccount, ServicePort, ServiceSpec, ServiceStatus,
            Taint, Toleration, TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
        },
        discovery::v1::{
            Endpoint, EndpointConditions, EndpointPort as EndpointSlicePort, EndpointSlice,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus},
        rbac::v1::{
            ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
        },
        scheduling::v1::PriorityClass,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::{
        api::resource::Quantity as QuantityText,
        apis::meta::v1::{
            LabelSelector as LabelSelectorObject, LabelSelectorRequirement, MicroTime, ObjectMeta,
            OwnerReference, Time,
        },
        util::intstr::IntOrString,
    },
};
