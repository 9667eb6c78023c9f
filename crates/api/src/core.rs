//! The typed objects that everybody uses, under one roof.

pub use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{
            Affinity, Binding, ConfigMap, Container, ContainerPort, ContainerState,
            ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
            ContainerStatus, EmptyDirVolumeSource, EndpointAddress, EndpointPort, EndpointSubset,
            Endpoints, EnvVar, Event, EventSource, ExecAction, Lifecycle, LifecycleHandler,
            Namespace, Node, NodeAddress, NodeCondition, NodeSelectorRequirement, NodeSelectorTerm,
            NodeSpec, NodeStatus, NodeSystemInfo, ObjectReference, Pod, PodCondition, PodIP,
            PodSpec, PodStatus, ResourceRequirements, Secret, Service, ServiceAccount, ServicePort,
            ServiceSpec, Taint, Toleration, Volume, VolumeMount,
        },
        discovery::v1::{Endpoint, EndpointConditions, EndpointSlice},
    },
    apimachinery::pkg::{
        api::resource::Quantity as QuantityText,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
        util::intstr::IntOrString,
    },
};
