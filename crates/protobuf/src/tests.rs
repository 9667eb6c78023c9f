//! The rows against the types of `k8s-openapi`, which are made from upstream's OpenAPI documents.

use crate::{
    schema::{self, Form, KINDS, Many, Message, Type},
    to_json,
};
use k8s_openapi::{
    List, Resource,
    api::{
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
        authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview},
        authorization::v1::{
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview,
            SubjectAccessReview,
        },
        autoscaling::v1::{HorizontalPodAutoscaler as OldAutoscaler, Scale},
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::{CronJob, Job},
        coordination::v1::Lease,
        core::v1::{
            Binding, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
            PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret,
            Service, ServiceAccount,
        },
        discovery::v1::EndpointSlice,
        events::v1::Event as NewEvent,
        networking::v1::{Ingress, IngressClass, NetworkPolicy},
        policy::v1::{Eviction, PodDisruptionBudget},
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
        scheduling::v1::PriorityClass,
        storage::v1::StorageClass,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeSet;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn tagged(number: u32, wire_type: u64, rest: &[u8]) -> Vec<u8> {
    [&varint(u64::from(number) << 3 | wire_type)[..], rest].concat()
}

fn delimited(number: u32, bytes: &[u8]) -> Vec<u8> {
    tagged(number, 2, &[&varint(u64::try_from(bytes.len()).unwrap())[..], bytes].concat())
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [delimited(1, api_version.as_bytes()), delimited(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), delimited(1, &type_meta), delimited(2, raw)].concat()
}

/// A message with something in each of its fields; none within itself more than once.
fn full(message: &'static Message, outer: &[&str]) -> Vec<u8> {
    let mut names = outer.to_vec();
    names.push(message.name);
    let mut bytes = Vec::new();
    for field in message.fields {
        let number = if field.many == Many::Map { 2 } else { field.number };
        let value = match field.holds {
            Type::Bool | Type::Int32 | Type::Int64 => tagged(number, 0, &[1]),
            Type::Double => tagged(number, 1, &1.5f64.to_le_bytes()),
            Type::String => delimited(number, b"s"),
            Type::Bytes => delimited(number, &[0, 255]),
            Type::Json => delimited(number, br#"{"a":1}"#),
            Type::Message(inner) => {
                if names.iter().filter(|name| **name == inner.name).count() > 1 {
                    continue;
                }
                delimited(number, &full(inner, &names))
            }
        };
        match field.many {
            Many::One | Many::List => bytes.extend(value),
            Many::Map => {
                bytes.extend(delimited(field.number, &[delimited(1, b"k"), value].concat()))
            }
        }
    }
    bytes
}

/// Paths of what `theirs` lacks or has otherwise.
fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    if let (Some(ours), Some(theirs)) = (ours.as_object(), theirs.as_object()) {
        for (key, value) in ours {
            let path = format!("{path}.{key}");
            match theirs.get(key) {
                Some(other) => differences(&path, value, other, found),
                None => found.push(path),
            }
        }
    } else if let (Some([ours]), Some([theirs])) =
        (ours.as_array().map(Vec::as_slice), theirs.as_array().map(Vec::as_slice))
    {
        differences(&format!("{path}[0]"), ours, theirs, found);
    } else if ours != theirs {
        found.push(format!("{path}: {ours} is {theirs}"));
    }
}

fn read_by<T: Serialize + DeserializeOwned>(api_version: &str, kind: &str) -> String {
    let message = schema::kind(api_version, kind).unwrap_or_else(|| panic!("no {kind}"));
    let ours = to_json(&body(api_version, kind, &full(message, &[]))).unwrap();
    let theirs = serde_json::to_value(T::deserialize(&ours).unwrap()).unwrap();
    let mut found = Vec::new();
    differences(kind, &ours, &theirs, &mut found);
    assert_eq!(found, Vec::<String>::new());
    format!("{api_version} {kind}")
}

fn read<T: Resource + Serialize + DeserializeOwned>() -> String {
    read_by::<T>(T::API_VERSION, T::KIND)
}

macro_rules! read_with_lists {
    ($($kind:ident)*) => { [$(read::<$kind>(), read::<List<$kind>>()),*] };
}

#[test]
fn every_field_of_every_kind_is_one_that_upstream_documents() {
    let mut seen = BTreeSet::from([
        read::<Binding>(),
        read::<Eviction>(),
        read::<LocalSubjectAccessReview>(),
        read::<Scale>(),
        read::<SelfSubjectAccessReview>(),
        read::<SelfSubjectReview>(),
        read::<SelfSubjectRulesReview>(),
        read::<Status>(),
        read::<SubjectAccessReview>(),
        read::<TokenRequest>(),
        read::<TokenReview>(),
        read_by::<DeleteOptions>("v1", "DeleteOptions"),
        // There is no type for it; its items are whatever they say.
        "v1 List".to_owned(),
    ]);
    seen.extend(read_with_lists![
        ClusterRole ClusterRoleBinding ConfigMap ControllerRevision CronJob CustomResourceDefinition
        DaemonSet Deployment EndpointSlice Endpoints Event HorizontalPodAutoscaler Ingress
        IngressClass Job Lease LimitRange Namespace NetworkPolicy NewEvent Node OldAutoscaler
        PersistentVolume PersistentVolumeClaim Pod PodDisruptionBudget PodTemplate PriorityClass
        ReplicaSet ReplicationController ResourceQuota Role RoleBinding Secret Service
        ServiceAccount StatefulSet StorageClass
    ]);
    let rows = KINDS.iter().flat_map(|(version, kinds)| {
        kinds.iter().map(move |message| format!("{version} {}", message.name))
    });
    assert_eq!(seen, rows.collect());
}

#[test]
fn rows_are_in_order_and_hold_what_the_decoder_takes() {
    let mut left: Vec<&Message> = KINDS.iter().flat_map(|(_, kinds)| *kinds).copied().collect();
    let mut seen = BTreeSet::new();
    while let Some(message) = left.pop() {
        if !seen.insert(std::ptr::from_ref(message)) {
            continue;
        }
        let name = message.name;
        assert!(message.fields.is_sorted_by_key(|field| field.number), "{name} is out of order");
        let names: BTreeSet<&str> = message.fields.iter().map(|field| field.name).collect();
        assert!(names.len() == message.fields.len(), "{name} has two fields of one name");
        for field in message.fields {
            let scalar = !matches!(field.holds, Type::Json | Type::Message(_));
            assert!(!field.opt || (scalar && field.many == Many::One), "{name}.{}", field.name);
            // Packed or not, a list of doubles would have to be read as such.
            assert!(field.many == Many::One || !matches!(field.holds, Type::Double));
            if let Type::Message(inner) = field.holds {
                let inlined = field.many == Many::One && inner.form == Form::Object;
                assert!(!field.name.is_empty() || inlined, "{name} takes in {}", inner.name);
                left.push(inner);
            } else {
                assert!(!field.name.is_empty(), "{name} has a field without a name");
            }
        }
    }
    assert!(seen.len() > 300, "{} messages", seen.len());
}
