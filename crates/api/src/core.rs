//! The typed objects that everybody uses, under one roof.

pub use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{
            Affinity, Binding, ConfigMap, ConfigMapKeySelector, Container, ContainerPort,
            ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
            ContainerStatus, EmptyDirVolumeSource, EndpointAddress, EndpointPort, EndpointSubset,
            Endpoints, EnvFromSource, EnvVar, EnvVarSource, EphemeralContainer, Event, EventSeries,
            EventSource, ExecAction, HTTPGetAction, HostIP, KeyToPath, Lifecycle, LifecycleHandler,
            Namespace, NamespaceSpec, NamespaceStatus, Node, NodeAddress, NodeAffinity,
            NodeCondition, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, NodeSpec,
            NodeStatus, NodeSystemInfo, ObjectFieldSelector, ObjectReference, Pod, PodAffinityTerm,
            PodCondition, PodDNSConfig, PodIP, PodSecurityContext, PodSpec, PodStatus, Probe,
            ResourceFieldSelector, ResourceRequirements, Secret, SecretKeySelector,
            SecurityContext, Service, ServiceAccount, ServicePort, ServiceSpec, ServiceStatus,
            Taint, Toleration, TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
        },
        discovery::v1::{
            Endpoint, EndpointConditions, EndpointPort as EndpointSlicePort, EndpointSlice,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity as QuantityText,
        apis::meta::v1::{
            LabelSelector as LabelSelectorObject, LabelSelectorRequirement, MicroTime, ObjectMeta,
            OwnerReference, Time,
        },
        util::intstr::IntOrString,
    },
};
