//! What every service stands on: the store, the group, and how a request becomes a proposal.

use crate::{
    Config, convert::number, counters::Counters, error, proto::etcdserverpb::ResponseHeader,
};
use prost::Message;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{
    Applied, Cluster, Op, Origin, Outcome, Proposal, RequestId, Revision, Store, state::View,
};
use tonic::{Request, Status};

/// How long a request waits for the group, unless its caller waits less. etcd waits so long, too, if
/// its election takes a second.
const PATIENCE: Duration = Duration::from_secs(7);

/// The store remembers the last 1,024 answers of a client. A replica that has more requests under way
/// speaks as several.
const CLIENTS: u64 = 8;

pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    /// The first of the ids under which this replica proposes.
    client: u64,
    requests: AtomicU64,
}

impl Core {
    pub(crate) fn new(store: Arc<dyn Store>, cluster: Arc<dyn Cluster>, config: Config) -> Self {
        let client = rand::random::<u64>() & !(CLIENTS - 1);
        let counters = Counters::new();
        Self { store, cluster, config, counters, client, requests: AtomicU64::new(CLIENTS) }
    }

    pub(crate) fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        let local = self.cluster.local();
        self.counters.saw_leader(local.leader);
        Some(ResponseHeader {
            cluster_id: local.cluster_id,
            member_id: local.member_id,
            revision: number(revision.get()),
            raft_term: local.term,
        })
    }

    /// A header with the revision that this replica has now.
    pub(crate) fn header_now(&self) -> Option<ResponseHeader> {
        self.header(self.store.view().revision())
    }

    fn request_id(&self) -> RequestId {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        RequestId { client: self.client | (request % CLIENTS), sequence: request / CLIENTS }
    }

    pub(crate) async fn propose(&self, op: Op, patience: Duration) -> Result<Applied, Status> {
        let proposal = Proposal { request: self.request_id(), origin: Origin::Client, op };
        self.counters
            .proposal(self.store.propose(proposal, patience))
            .await
            .map_err(error::of_store)
    }

    /// As [`Core::propose`], for what is refused or done.
    pub(crate) async fn carry_out(
        &self,
        op: Op,
        patience: Duration,
    ) -> Result<(Revision, Outcome), Status> {
        let Applied { revision, outcome } = self.propose(op, patience).await?;
        let outcome = outcome.map_err(|rejection| error::of_rejection(&rejection))?;
        Ok((revision, outcome))
    }

    /// The state for a read: everything acknowledged before, unless it may be behind.
    pub(crate) async fn view(
        &self,
        serializable: bool,
        patience: Duration,
    ) -> Result<View, Status> {
        if !serializable {
            self.store.barrier(patience).await.map_err(error::of_store)?;
        }
        Ok(self.store.view())
    }

    /// # Errors
    /// The request is larger than one may be.
    pub(crate) fn check_size(&self, request: &impl Message) -> Result<(), Status> {
        if request.encoded_len() > self.config.max_request_bytes {
            return Err(error::too_large());
        }
        Ok(())
    }
}

/// How long the caller of a request waits, as gRPC says it, but not longer than this replica would.
pub(crate) fn patience<T>(request: &Request<T>) -> Duration {
    let given = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
    given.and_then(parse_timeout).map_or(PATIENCE, |given| given.min(PATIENCE))
}

/// Up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => value.checked_mul(3600).map(Duration::from_secs),
        "M" => value.checked_mul(60).map(Duration::from_secs),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_waits_less_is_not_kept_longer() {
        for (text, want) in [
            ("100m", Duration::from_millis(100)),
            ("2S", Duration::from_secs(2)),
            ("1H", PATIENCE),
            ("99999999999999999999H", PATIENCE),
            ("", PATIENCE),
            ("soon", PATIENCE),
        ] {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(patience(&request), want, "{text}");
        }
    }
}
