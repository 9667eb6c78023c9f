//! What every service stands on: the store, the group, and how a request becomes a proposal.

use crate::{
    Config,
    auth::{Authenticator, Credentials},
    convert::number,
    counters::Counters,
    error,
    proto::etcdserverpb::ResponseHeader,
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
    Access, Applied, AuthRejection, Cluster, Identity, KeyRange, Op, Origin, Outcome, Proposal,
    Rejection, RequestId, Revision, Store, state::View,
};
use tonic::{Request, Status};

/// How long a request waits for the group, unless its caller waits less. etcd waits so long, too, if
/// its election takes a second.
const PATIENCE: Duration = Duration::from_secs(7);

/// The store remembers the last 1,024 answers of a client. A replica that has more requests under way
/// speaks as several.
const CLIENTS: u64 = 8;

/// Users and roles may change while a command is on its way; not again and again.
const TRIES: u32 = 3;

pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) config: Config,
    pub(crate) auth: Authenticator,
    pub(crate) counters: Counters,
    /// The first of the ids under which this replica proposes.
    client: u64,
    requests: AtomicU64,
}

impl Core {
    pub(crate) fn new(store: Arc<dyn Store>, cluster: Arc<dyn Cluster>, config: Config) -> Self {
        let client = rand::random::<u64>() & !(CLIENTS - 1);
        let auth = Authenticator::new(&config.auth);
        let counters = Counters::new();
        Self { store, cluster, config, auth, counters, client, requests: AtomicU64::new(CLIENTS) }
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

    async fn propose(&self, who: Identity, op: Op, patience: Duration) -> Result<Applied, Status> {
        let proposal = Proposal { request: self.request_id(), origin: Origin::User(who), op };
        self.counters
            .proposal(self.store.propose(proposal, patience))
            .await
            .map_err(error::of_store)
    }

    /// Has a command of somebody carried out who may do that.
    ///
    /// Whether it may is looked up here before it is proposed. Where that says no, or apply does, this
    /// replica may only have been behind: it catches up and tries again.
    pub(crate) async fn carry_out(
        &self,
        who: &Credentials,
        op: Op,
        patience: Duration,
    ) -> Result<(Revision, Outcome), Status> {
        // Not held while the command is carried out, which would have to work on a copy.
        let guarded = self.store.view().auth().is_enabled();
        if !guarded && !who.has_token() {
            // Nearly always: nobody asks who it is.
            let Applied { revision, outcome } =
                self.propose(Identity::default(), op, patience).await?;
            let outcome = outcome.map_err(|rejection| error::of_rejection(&rejection))?;
            return Ok((revision, outcome));
        }
        let mut tries = 0;
        loop {
            let view = self.view(tries == 0, patience).await?;
            let allowed = self.auth.identify(who, &view).and_then(|identity| {
                view.may(&identity, &op).map_err(error::of_auth)?;
                Ok(identity)
            });
            let (refusal, may_change) = match allowed {
                Ok(identity) => {
                    let Applied { revision, outcome } =
                        self.propose(identity, op.clone(), patience).await?;
                    match outcome {
                        Ok(outcome) => return Ok((revision, outcome)),
                        Err(rejection) => {
                            let outdated = matches!(
                                rejection,
                                Rejection::Auth(
                                    AuthRejection::OldRevision | AuthRejection::UserEmpty
                                )
                            );
                            (error::of_rejection(&rejection), outdated)
                        }
                    }
                }
                Err(refusal) => (refusal, tries == 0),
            };
            tries += 1;
            if !may_change || tries > TRIES {
                return Err(refusal);
            }
        }
    }

    /// The state for a read, and who asks. As [`Core::view`]; a token that a replica which is behind does
    /// not know may still be good.
    pub(crate) async fn read(
        &self,
        who: &Credentials,
        serializable: bool,
        patience: Duration,
    ) -> Result<(View, Identity), Status> {
        let view = self.view(serializable, patience).await?;
        match self.auth.identify(who, &view) {
            Ok(identity) => Ok((view, identity)),
            Err(_) if serializable => {
                let view = self.view(false, patience).await?;
                self.auth.identify(who, &view).map(|identity| (view, identity))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Who asks, if it may read all of a range.
    ///
    /// # Errors
    /// It may not, also after this replica has caught up.
    pub(crate) async fn may_read(
        &self,
        who: &Credentials,
        range: &KeyRange,
        patience: Duration,
    ) -> Result<Identity, Status> {
        let (view, identity) = self.read(who, true, patience).await?;
        if view.auth().check(&identity, Access::Read, range).is_ok() {
            return Ok(identity);
        }
        let (view, identity) = self.read(who, false, patience).await?;
        view.auth().check(&identity, Access::Read, range).map_err(error::of_auth)?;
        Ok(identity)
    }

    /// # Errors
    /// Somebody is not root, or not known.
    pub(crate) async fn check_root(
        &self,
        who: &Credentials,
        patience: Duration,
    ) -> Result<(), Status> {
        let (view, identity) = self.read_if_guarded(who, patience).await?;
        view.auth().check_root(&identity).map_err(error::of_auth)
    }

    /// # Errors
    /// Somebody is nobody in particular, though everybody has to say who they are.
    pub(crate) async fn check_known(
        &self,
        who: &Credentials,
        patience: Duration,
    ) -> Result<(), Status> {
        let (view, identity) = self.read_if_guarded(who, patience).await?;
        view.auth().check_known(&identity).map_err(error::of_auth)
    }

    /// While everybody may do everything, without asking the others: what may be asked of a member
    /// alone must also be answered by one that is alone.
    async fn read_if_guarded(
        &self,
        who: &Credentials,
        patience: Duration,
    ) -> Result<(View, Identity), Status> {
        let guarded = self.store.view().auth().is_enabled();
        self.read(who, !guarded, patience).await
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
