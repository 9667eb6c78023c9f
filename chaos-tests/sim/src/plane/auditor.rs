//! Looks whether everything has come to where it must be, once all faults are over, and takes down how it is.

use super::{
    caller::{Caller, Kind, NAMESPACE, NODE, POD, SERVICE, SLICE},
    load::WATCHED,
    settled::{Machine, Seen, unsettled},
};
use checkers::history::{Mark, Object};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// At what all replicas have in the end, until nothing has changed from the first to the last of them.
const LOOKS: usize = 20;

/// What was found last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audited {
    pub(crate) settled: bool,
    /// What is not as it must be.
    pub(crate) wrong: Vec<String>,
}

/// What is on a machine, whenever it is asked.
pub(crate) type Looker = Box<dyn Fn() -> Machine + Send + Sync>;

/// Looks until everything is as it must be, and then at what each replica has.
pub(crate) async fn audit(
    caller: Caller,
    replicas: Vec<Caller>,
    machines: Vec<(String, Looker)>,
    audited: Arc<Mutex<Audited>>,
) -> String {
    let revision = loop {
        sleep(PAUSE).await;
        release(&caller).await;
        let Some((revision, seen)) = look(&caller, &machines).await else {
            let wrong = vec!["nobody answers".to_owned()];
            *audited.lock().unwrap_or_else(PoisonError::into_inner) =
                Audited { settled: false, wrong };
            continue;
        };
        let wrong = unsettled(&seen);
        let settled = wrong.is_empty();
        *audited.lock().unwrap_or_else(PoisonError::into_inner) = Audited { settled, wrong };
        if settled {
            break revision;
        }
    };
    for rest in (0..LOOKS).rev() {
        let mut taken = Vec::new();
        for replica in &replicas {
            for kind in WATCHED {
                taken.push((replica, kind, take_down(replica, kind, revision).await));
            }
        }
        // What goes on slowly, such as the start of a container, is no difference between replicas.
        let mut revisions = taken.iter().map(|(.., (revision, _))| revision);
        let first = revisions.next();
        if rest > 0 && !revisions.all(|revision| Some(revision) == first) {
            sleep(PAUSE).await;
            continue;
        }
        for (caller, kind, (resource_version, items)) in taken {
            caller.recorder.mark(Mark::FinalObjects {
                at_ns: caller.recorder.now_ns(),
                replica: caller.replica,
                kind: kind.name.to_owned(),
                resource_version,
                items,
            });
        }
        break;
    }
    "settled".to_owned()
}

/// Lets go of what clients have held and deleted.
async fn release(caller: &Caller) {
    let Ok((_, pods)) = caller.list(POD, "", false).await else { return };
    let held = |pod: &&Object| {
        let is = |pointer: &str| pod.json.pointer(pointer).is_some_and(|found| !found.is_null());
        is("/metadata/deletionTimestamp") && is("/metadata/finalizers/0")
    };
    for pod in pods.iter().filter(held) {
        let change = json!({"metadata": {"finalizers": null}});
        let _ = caller.patch(POD, &pod.namespace, &pod.name, change).await;
    }
}

async fn look(caller: &Caller, machines: &[(String, Looker)]) -> Option<(u64, Seen)> {
    let all = async |kind: Kind| -> Option<(u64, Vec<Value>)> {
        let (revision, objects) = caller.list(kind, "", false).await.ok()?;
        Some((revision, objects.into_iter().map(|object| object.json).collect()))
    };
    let (first, pods) = all(POD).await?;
    let (_, nodes) = all(NODE).await?;
    let (_, namespaces) = all(NAMESPACE).await?;
    let (_, services) = all(SERVICE).await?;
    let (last, slices) = all(SLICE).await?;
    // Something has changed between them: they are no picture of one moment. Machines are as of now.
    let machines: BTreeMap<String, Machine> =
        machines.iter().map(|(name, look)| (name.clone(), look())).collect();
    let seen = Seen { pods, nodes, namespaces, services, slices, machines };
    debug_assert!(first <= last, "linearizable reads go forward");
    Some((last, seen))
}

/// What a replica has, not older than that, and at which revision.
async fn take_down(caller: &Caller, kind: Kind, revision: u64) -> (u64, Vec<Object>) {
    loop {
        if let Ok((resource_version, items)) = caller.list(kind, "", true).await
            && resource_version >= revision
        {
            return (resource_version, items);
        }
        sleep(PAUSE).await;
    }
}
