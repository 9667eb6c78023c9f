//! Clients that keep a lease with a key on it for a while, and then leave it: it must not end before, and must
//! end after.

use super::{DEADLINE, RECONNECT, Service, Target, connect, convert, store};
use crate::record::Recorder;
use checkers::history::{Answer, Body, Call, Operation, Outcome, Put};
use etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, kv_client::KvClient, lease_client::LeaseClient,
};
use futures::stream;
use rand::Rng as _;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Of each lease, in seconds: above the shortest that etcd grants with its default timers.
const TTL_SECONDS: u64 = 4;
/// Between two renewals.
const RENEW: Duration = Duration::from_secs(1);
/// How often a lease is renewed before it is left.
const RENEWALS: u32 = 4;
/// How long a lease that was left is given before the next one.
const AFTER: Duration = Duration::from_secs(2 * TTL_SECONDS);

/// One client with one lease at a time.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) number: u64,
    pub(super) target: Target,
    pub(super) recorder: Arc<Recorder>,
}

impl Keeper {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut replica = self.number;
        while !stop.is_cancelled() {
            let lease = rand::rng().random_range(1..i64::MAX);
            let lease = convert::count(lease);
            if self.keep(lease, &mut replica, &stop).await.is_none() {
                // Nobody knows whether it is there: it is left alone, and another one is taken.
                if stop.run_until_cancelled(sleep(RECONNECT)).await.is_none() {
                    return;
                }
            }
        }
    }

    /// One lease from its grant to its end; none if that was cut short.
    async fn keep(&self, lease: u64, replica: &mut u64, stop: &CancellationToken) -> Option<()> {
        let client = self.recorder.fresh();
        let grant = Call::LeaseGrant { lease, ttl_seconds: TTL_SECONDS };
        self.ask(client, replica, grant).await?;
        let key = format!("{}l{}-{lease}", self.target.prefix, self.number);
        let put = Put { key, value: format!("v{}", self.recorder.fresh()), lease };
        self.ask(client, replica, Call::Put(put)).await?;
        for _ in 0..RENEWALS {
            stop.run_until_cancelled(sleep(RENEW)).await?;
            // One that is not answered is not made good: the next one comes soon enough, or it is over.
            self.ask(client, replica, Call::LeaseKeepAlive { lease }).await;
        }
        stop.run_until_cancelled(sleep(AFTER)).await
    }

    /// Asks one replica after another until one can be reached; whether it did what was asked.
    async fn ask(&self, client: u64, replica: &mut u64, call: Call) -> Option<()> {
        let count = self.target.etcd_urls.len() as u64;
        for _ in 0..count {
            let index = usize::try_from(*replica % count).ok()?;
            let url = self.target.etcd_urls.get(index)?;
            let Ok(service) = connect(url, &self.target.access).await else {
                *replica += 1;
                continue;
            };
            let invoked = Instant::now();
            let outcome = match timeout(DEADLINE, send(service, &call)).await {
                Ok(Ok(answer)) => Outcome::Ok(answer),
                Ok(Err(status)) => store::outcome_of(&status, true),
                Err(_) => Outcome::Unknown { reason: "no answer in time".to_owned() },
            };
            let done = matches!(outcome, Outcome::Ok(_)).then_some(());
            if done.is_none() {
                *replica += 1;
            }
            self.recorder.operation(Operation {
                client,
                replica: index as u64 + 1,
                invoked_ns: self.recorder.at(invoked),
                answered_ns: self.recorder.now(),
                call,
                outcome,
            });
            return done;
        }
        None
    }
}

async fn send(service: Service, call: &Call) -> Result<Answer, Status> {
    let mut leases = LeaseClient::new(service.clone());
    match call {
        Call::LeaseGrant { lease, ttl_seconds } => {
            let request = LeaseGrantRequest {
                id: convert::signed(*lease),
                ttl: convert::signed(*ttl_seconds),
            };
            let answer = leases.lease_grant(request).await?.into_inner();
            // Its revision is that of the store, which a grant does not change.
            Ok(Answer { revision: convert::header(answer.header.as_ref()), body: Body::Done })
        }
        Call::LeaseKeepAlive { lease } => {
            let one = LeaseKeepAliveRequest { id: convert::signed(*lease) };
            let mut answers = leases.lease_keep_alive(stream::iter([one])).await?.into_inner();
            let answer = answers.message().await?;
            let answer = answer.ok_or_else(|| Status::unknown("the stream ended"))?;
            let body = Body::Lease { ttl_seconds: convert::count(answer.ttl) };
            Ok(Answer { revision: convert::header(answer.header.as_ref()), body })
        }
        Call::Put(put) => {
            let answer = KvClient::new(service).put(convert::put(put)).await?.into_inner();
            Ok(Answer { revision: convert::header(answer.header.as_ref()), body: Body::Done })
        }
        Call::Delete(_)
        | Call::Range(_)
        | Call::Txn(_)
        | Call::LeaseRevoke { .. }
        | Call::Compact { .. }
        | Call::Object(_) => Err(Status::unimplemented("keepers do not send this")),
    }
}
