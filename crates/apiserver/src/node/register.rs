//! A node's registration: its object, its range of addresses, its session, its liveness.

use crate::{
    proto::node::Hello,
    registry::{Caller, Fence, Registry, key},
    serve::Config,
};
use access::node::{Write, admit};
use api::{
    kinds::{self, Kind},
    meta::{self, child_mut},
    names::stable_hash,
    status::Status,
};
use serde_json::{Value, json};
use store::LeaseId;

/// Tries against others who register at the same time.
const ATTEMPTS: usize = 32;

/// The namespace of nodes' Leases.
const LEASES: &str = "kube-node-lease";

/// What a session holds.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub(super) session: u64,
    pub(super) fence: Fence,
    pub(super) pod_cidr: String,
    pub(super) lease: LeaseId,
}

fn nodes() -> &'static Kind {
    kinds::by_alias("nodes").expect("Node is served")
}

fn leases() -> &'static Kind {
    kinds::by_alias("leases").expect("Lease is served")
}

pub(super) async fn register(
    registry: &Registry,
    config: &Config,
    hello: &Hello,
    certified: bool,
) -> Result<Registration, Status> {
    node_of(hello)?;
    registry.linearize().await?;
    let (session, fence) = open_session(registry, hello).await?;
    let pod_cidr = put_node(registry, config, hello, certified).await?;
    let lease = lease_id(&hello.node);
    let registration = Registration { session, fence, pod_cidr, lease };
    stay_alive(registry, config, &hello.node, lease).await?;
    Ok(registration)
}

/// The Node as its agent describes it.
fn node_of(hello: &Hello) -> Result<Value, Status> {
    let node: Value = serde_json::from_slice(&hello.node_json)
        .map_err(|e| Status::bad_request(format!("node_json: {e}")))?;
    if meta::name(&node) != hello.node {
        return Err(Status::other_name(meta::name(&node), &hello.node));
    }
    Ok(node)
}

/// Whether its Node and its Lease are there, by this replica's state.
pub(super) fn is_registered(registry: &Registry, name: &str) -> bool {
    let view = registry.store().view();
    let keys = [key(nodes(), "", name), key(leases(), LEASES, name)];
    keys.iter().all(|key| view.get(key.as_bytes()).is_some())
}

/// Counts the session up. Another machine under this name is refused while the first one is alive
/// (FEN-30).
async fn open_session(registry: &Registry, hello: &Hello) -> Result<(u64, Fence), Status> {
    let key = session_key(&hello.node);
    for _ in 0..ATTEMPTS {
        let old = registry.store().view().get(key.as_bytes());
        let found: Value =
            old.as_ref().and_then(|kv| serde_json::from_slice(&kv.value).ok()).unwrap_or_default();
        let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default();
        let alive = registry.get(leases(), LEASES, &hello.node, "0").await.is_ok();
        if alive && old.is_some() && text("machineId") != hello.machine_id {
            let message = format!(
                "node {} is held by another machine ({}), which is alive",
                hello.node,
                text("machineId")
            );
            return Err(Status::new(409, "Conflict", message));
        }
        let last = found.get("session").and_then(Value::as_u64).unwrap_or_default();
        let revision = old.map(|kv| kv.mod_revision);
        if text("instance") == hello.instance
            && let Some(revision) = revision
        {
            // The same agent, come back over another connection.
            return Ok((last, Fence { key, revision }));
        }
        let session = json!({
            "session": last + 1, "instance": hello.instance, "machineId": hello.machine_id,
            "bootId": hello.boot_id,
            // Stored without what an object gets when it is read.
            "metadata": {},
        });
        match registry.put_raw(&key, revision, &session).await? {
            Some(revision) => return Ok((last + 1, Fence { key, revision })),
            None => registry.linearize().await?,
        }
    }
    Err(Status::unavailable("others register under the same name"))
}

/// Whether this agent is the one that holds the node's name, as far as this replica knows.
pub(super) fn is_held_by(registry: &Registry, node: &str, instance: &str) -> bool {
    let found = registry.store().view().get(session_key(node).as_bytes());
    let found = found.and_then(|kv| serde_json::from_slice::<Value>(&kv.value).ok());
    found.is_some_and(|session| session.get("instance").and_then(Value::as_str) == Some(instance))
}

fn session_key(node: &str) -> String {
    format!("/trireme/nodesessions/{node}")
}

/// Makes the Node, or brings it up to date; its range of addresses.
pub(super) async fn put_node(
    registry: &Registry,
    config: &Config,
    hello: &Hello,
    certified: bool,
) -> Result<String, Status> {
    let (name, node) = (hello.node.as_str(), node_of(hello)?);
    let kind = nodes();
    let may = |write: Write<'_>| match admit(name, ("", "nodes", ""), write) {
        Err(why) if certified => Err(Status::forbidden(kind, name, &why)),
        Err(_) | Ok(()) => Ok(()),
    };
    let cidr = |node: &Value| {
        let found = node.pointer("/spec/podCIDR").and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    for _ in 0..ATTEMPTS {
        match registry.get(kind, "", name, "0").await {
            Ok(old) if !cidr(&old).is_empty() => {
                let caller = Caller::default();
                // Labels and status are the agent's to bring up to date, the rest is others'.
                registry
                    .change(kind, "", name, "", &caller, |old| {
                        let mut new = old.clone();
                        meta::metadata_mut(&mut new).remove("resourceVersion");
                        let own = meta::labels(&node);
                        let labels =
                            meta::metadata_mut(&mut new).entry("labels").or_insert(json!({}));
                        if let Some(labels) = labels.as_object_mut() {
                            labels.extend(own.into_iter().map(|(k, v)| (k, v.into())));
                        }
                        may(Write::Update { old, new: &new })?;
                        Ok(new)
                    })
                    .await?;
                let status = node.get("status").cloned().unwrap_or_default();
                put_status(registry, name, &status, &caller).await?;
                return Ok(cidr(&old));
            }
            Ok(_) | Err(_) => {}
        }
        may(Write::Create(&node))?;
        let Range { cidr, claim } = claim_range(registry, config, name).await?;
        let mut object = node.clone();
        let spec = child_mut(&mut object, "spec");
        spec.insert("podCIDR".to_owned(), cidr.clone().into());
        spec.insert("podCIDRs".to_owned(), json!([cidr]));
        // A node that is not there yet has no hold on its range but this.
        let caller = Caller { fence: Some(claim.clone()), ..Caller::default() };
        match registry.create(kind, "", object, &caller).await {
            Ok(_) => return Ok(cidr),
            Err(status) if status.is_already_exists() => registry.linearize().await?,
            Err(status) => {
                let now = registry.store().view().get(claim.key.as_bytes());
                if now.map(|kv| kv.mod_revision) == Some(claim.revision) {
                    return Err(status);
                }
            }
        }
    }
    Err(Status::unavailable("others register under the same name"))
}

/// A /24 of Pod addresses, and the key that says whose it is.
struct Range {
    cidr: String,
    claim: Fence,
}

/// Takes a /24 that no other node has. One that a node left behind is given to another only when there is no
/// other: its Pods may still run beyond a cut network.
async fn claim_range(registry: &Registry, config: &Config, name: &str) -> Result<Range, Status> {
    let [a, b] = config.pod_prefix;
    // Each begins elsewhere: nodes that come all at once must not ask for the same one all the time.
    let first = stable_hash(name) % 255;
    let ranges = (0..255).map(|offset| 1 + (first + offset) % 255).map(|third| {
        let key = format!("/trireme/podcidrs/{a}.{b}.{third}.0");
        (key, format!("{a}.{b}.{third}.0/24"))
    });
    let owner = json!({"node": name, "metadata": {}});
    for left_behind_too in [false, true] {
        for (key, cidr) in ranges.clone() {
            let found = registry.store().view().get(key.as_bytes());
            let old = found.as_ref().map(|kv| kv.mod_revision);
            if let Some(kv) = &found {
                let owner: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
                let owner = owner.get("node").and_then(Value::as_str).unwrap_or_default();
                if owner == name {
                    return Ok(Range { cidr, claim: Fence { key, revision: kv.mod_revision } });
                }
                if !left_behind_too || registry.get(nodes(), "", owner, "0").await.is_ok() {
                    continue;
                }
            }
            match registry.put_raw(&key, old, &owner).await? {
                Some(revision) => return Ok(Range { cidr, claim: Fence { key, revision } }),
                None => registry.linearize().await?,
            }
        }
    }
    Err(Status::internal("every range of Pod addresses is taken"))
}

/// Replaces a node's status, keeping what the control plane has put there.
pub(super) async fn put_status(
    registry: &Registry,
    name: &str,
    status: &Value,
    caller: &Caller,
) -> Result<u64, Status> {
    let written = registry
        .change(nodes(), "", name, "status", caller, |old| {
            let mut new = old.clone();
            meta::metadata_mut(&mut new).remove("resourceVersion");
            let target = child_mut(&mut new, "status");
            for (key, value) in status.as_object().into_iter().flatten() {
                if key != "conditions" {
                    target.insert(key.clone(), value.clone());
                }
            }
            for condition in
                status.get("conditions").and_then(Value::as_array).into_iter().flatten()
            {
                api::pod::set_condition(&mut new, condition.clone());
            }
            Ok(new)
        })
        .await?;
    Ok(meta::resource_version(&written.object).parse().unwrap_or_default())
}

fn lease_id(node: &str) -> LeaseId {
    LeaseId(i64::try_from(stable_hash(node) >> 1).unwrap_or(1).max(1))
}

/// A Lease object that is there while the node is: it hangs on a lease of the store, which the leader
/// lets run out by its own clock (NOD-10) when the node has been silent.
pub(super) async fn stay_alive(
    registry: &Registry,
    config: &Config,
    node: &str,
    lease: LeaseId,
) -> Result<(), Status> {
    let seconds = i64::try_from(config.node_silence.as_secs()).unwrap_or(50).max(1);
    for _ in 0..ATTEMPTS {
        registry.ensure_lease(lease, seconds).await?;
        let object = json!({
            "metadata": {"name": node},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": seconds},
        });
        let caller = Caller::default();
        let created = registry.create_with_lease(leases(), LEASES, object, &caller, lease).await;
        match created {
            Err(status) if status.is_already_exists() => return Ok(()),
            // The lease ran out between the two.
            Err(status) if status.code == 500 => {}
            result => return result.map(drop),
        }
    }
    Err(Status::unavailable("the node's lease runs out as fast as it is made"))
}
