//! `discovery.k8s.io/v1`.

use super::{
    Message,
    core_v1::ObjectReference,
    meta_v1::{ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[&EndpointSlice, &EndpointSliceList];

messages! {
    Endpoint {
        1 "addresses" [string],
        2 "conditions" EndpointConditions,
        3 opt "hostname" string,
        4 "targetRef" ObjectReference,
        5 "deprecatedTopology" {string},
        6 opt "nodeName" string,
        7 opt "zone" string,
        8 "hints" EndpointHints,
    }
    EndpointConditions {
        1 opt "ready" bool,
        2 opt "serving" bool,
        3 opt "terminating" bool,
    }
    EndpointHints {
        1 "forZones" [ForZone],
        2 "forNodes" [ForNode],
    }
    EndpointPort {
        1 opt "name" string,
        2 opt "protocol" string,
        3 opt "port" int32,
        4 opt "appProtocol" string,
    }
    EndpointSlice {
        1 "metadata" ObjectMeta,
        2 "endpoints" [Endpoint],
        3 "ports" [EndpointPort],
        4 opt "addressType" string,
    }
    EndpointSliceList {
        1 "metadata" ListMeta,
        2 "items" [EndpointSlice],
    }
    ForNode { 1 opt "name" string }
    ForZone { 1 opt "name" string }
}
