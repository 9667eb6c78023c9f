//! `networking.k8s.io/v1`.

use super::{
    Message,
    core_v1::TypedLocalObjectReference,
    machinery::IntOrString,
    meta_v1::{LabelSelector, ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] =
    &[&Ingress, &IngressClass, &IngressClassList, &IngressList, &NetworkPolicy, &NetworkPolicyList];

messages! {
    HTTPIngressPath {
        1 "path" string,
        2 "backend" IngressBackend,
        3 opt "pathType" string,
    }
    HTTPIngressRuleValue { 1 "paths" [HTTPIngressPath] }
    IPBlock {
        1 opt "cidr" string,
        2 "except" [string],
    }
    Ingress {
        1 "metadata" ObjectMeta,
        2 "spec" IngressSpec,
        3 "status" IngressStatus,
    }
    IngressBackend {
        3 "resource" TypedLocalObjectReference,
        4 "service" IngressServiceBackend,
    }
    IngressClass {
        1 "metadata" ObjectMeta,
        2 "spec" IngressClassSpec,
    }
    IngressClassList {
        1 "metadata" ListMeta,
        2 "items" [IngressClass],
    }
    IngressClassParametersReference {
        1 opt "apiGroup" string,
        2 opt "kind" string,
        3 opt "name" string,
        4 opt "scope" string,
        5 opt "namespace" string,
    }
    IngressClassSpec {
        1 "controller" string,
        2 "parameters" IngressClassParametersReference,
    }
    IngressList {
        1 "metadata" ListMeta,
        2 "items" [Ingress],
    }
    IngressLoadBalancerIngress {
        1 "ip" string,
        2 "hostname" string,
        4 "ports" [IngressPortStatus],
    }
    IngressLoadBalancerStatus { 1 "ingress" [IngressLoadBalancerIngress] }
    IngressPortStatus {
        1 opt "port" int32,
        2 opt "protocol" string,
        3 opt "error" string,
    }
    IngressRule {
        1 "host" string,
        2 "" IngressRuleValue,
    }
    IngressRuleValue { 1 "http" HTTPIngressRuleValue }
    IngressServiceBackend {
        1 opt "name" string,
        2 "port" ServiceBackendPort,
    }
    IngressSpec {
        1 "defaultBackend" IngressBackend,
        2 "tls" [IngressTLS],
        3 "rules" [IngressRule],
        4 opt "ingressClassName" string,
    }
    IngressStatus { 1 "loadBalancer" IngressLoadBalancerStatus }
    IngressTLS {
        1 "hosts" [string],
        2 "secretName" string,
    }
    NetworkPolicy {
        1 "metadata" ObjectMeta,
        2 "spec" NetworkPolicySpec,
    }
    NetworkPolicyEgressRule {
        1 "ports" [NetworkPolicyPort],
        2 "to" [NetworkPolicyPeer],
    }
    NetworkPolicyIngressRule {
        1 "ports" [NetworkPolicyPort],
        2 "from" [NetworkPolicyPeer],
    }
    NetworkPolicyList {
        1 "metadata" ListMeta,
        2 "items" [NetworkPolicy],
    }
    NetworkPolicyPeer {
        1 "podSelector" LabelSelector,
        2 "namespaceSelector" LabelSelector,
        3 "ipBlock" IPBlock,
    }
    NetworkPolicyPort {
        1 opt "protocol" string,
        2 "port" IntOrString,
        3 opt "endPort" int32,
    }
    NetworkPolicySpec {
        1 "podSelector" LabelSelector,
        2 "ingress" [NetworkPolicyIngressRule],
        3 "egress" [NetworkPolicyEgressRule],
        4 "policyTypes" [string],
    }
    ServiceBackendPort {
        1 "name" string,
        2 "number" int32,
    }
}
