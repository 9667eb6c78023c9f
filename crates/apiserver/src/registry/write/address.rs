//! Addresses of Services: each is held by a key of its own.

use super::steps::{absent, put, remove};
use crate::registry::Registry;
use api::{
    field::{FieldError, Path},
    kinds::{self, Kind},
    meta::{self, child_mut},
    status::Status,
};
use serde_json::{Value, json};
use store::{Compare, LeaseId, TxnOp};

impl Registry {
    /// Gives a Service an address of its own, held by a key of its own so that two never share one.
    pub(super) fn allocate_address(
        &self,
        service: &mut Value,
        compares: &mut Vec<Compare>,
        steps: &mut Vec<TxnOp>,
    ) -> Result<(), Status> {
        let owner = format!("{}/{}", meta::namespace(service), meta::name(service));
        let text = |pointer: &str| {
            service.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let asked = text("/spec/clusterIP");
        if asked == "None" || text("/spec/type") == "ExternalName" {
            return Ok(());
        }
        let [a, b] = self.service_prefix;
        let view = self.store.view();
        let taken = |ip: &str| view.get(address_key(ip).as_bytes()).is_some();
        let ip = if asked.is_empty() {
            let first: u16 = rand::random();
            (0..u16::MAX)
                .map(|i| first.wrapping_add(i))
                .filter(|n| *n > 10 && *n != u16::MAX)
                .map(|n| format!("{a}.{b}.{}.{}", n >> 8, n & 255))
                .find(|ip| !taken(ip))
                .ok_or_else(|| Status::internal("no Service address is free"))?
        } else {
            let path = Path::new("spec").child("clusterIPs").index(0);
            if asked.parse::<std::net::Ipv4Addr>().is_err() || taken(&asked) {
                let kind = kinds::by_alias("services").expect("Service is served");
                let detail = if taken(&asked) {
                    "failed to allocate IP: provided IP is already allocated"
                } else {
                    "must be a valid IPv4 address"
                };
                let error = FieldError::invalid(&path, json!([asked]), detail);
                return Err(Status::invalid(kind, meta::name(service), &[error]));
            }
            asked
        };
        let spec = child_mut(service, "spec");
        spec.insert("clusterIP".to_owned(), ip.clone().into());
        spec.insert("clusterIPs".to_owned(), json!([ip]));
        spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
        spec.insert("ipFamilyPolicy".to_owned(), "SingleStack".into());
        compares.push(absent(&address_key(&ip)));
        steps.push(put(&address_key(&ip), &json!({"service": owner}), LeaseId::NONE));
        Ok(())
    }
}

/// What goes with an object: a Service's address, too.
pub(super) fn removal(kind: &Kind, key: &str, object: &Value) -> Vec<TxnOp> {
    let mut steps = vec![remove(key)];
    let ip = object.pointer("/spec/clusterIP").and_then(Value::as_str);
    if let (true, Some(ip)) = (kind.is("Service"), ip) {
        steps.push(remove(&address_key(ip)));
    }
    steps
}

fn address_key(ip: &str) -> String {
    format!("/trireme/serviceips/{ip}")
}
