//! Writers and readers of keys: at fixed times each sends another request to its replica, however many are
//! unanswered, so that one that nobody answers hides nothing of what the others see.

use super::{DEADLINE, Service, Target, connect_again, convert};
use crate::record::Recorder;
use checkers::history::{
    Answer, Body, Call, Compare, CompareOperator, CompareTarget, Kv, Operation, Outcome, Put,
    Range, RangeRequest, Step, Txn,
};
use etcd::proto::etcdserverpb::kv_client::KvClient;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    error::Error as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Keys that all lanes share: few, so that they meet.
const KEYS: u32 = 16;
/// Requests of a lane that may be unanswered.
const OUTSTANDING_MAX: usize = 400;

/// Revisions of keys as answers have shown them, for compare-and-swap.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<Mutex<BTreeMap<String, u64>>>);

impl Known {
    fn of(&self, key: &str) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }

    fn learn(&self, key: &str, revision: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = known.entry(key.to_owned()).or_default();
        *newest = revision.max(*newest);
    }
}

/// What goes to one replica.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) replica: u64,
    pub(super) url: String,
    pub(super) target: Target,
    pub(super) recorder: Arc<Recorder>,
    pub(super) known: Known,
    pub(super) rate: u32,
    pub(super) seed: u64,
}

/// How a request of a lane ended.
struct Ended {
    /// Free again; none if its last request may yet take effect.
    client: Option<u64>,
    /// Whether the connection is of no use any more.
    lost: bool,
}

impl Lane {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut ticks = interval(Duration::from_secs(1) / self.rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut under_way: JoinSet<Ended> = JoinSet::new();
        let mut idle: Vec<u64> = Vec::new();
        let mut service: Option<Service> = None;
        loop {
            let connected = match service.clone() {
                Some(service) => service,
                None => match connect_again(&self.url, &self.target.access, &stop).await {
                    Some(connected) => service.insert(connected).clone(),
                    None => break,
                },
            };
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                    let Ok(ended) = ended else { continue };
                    idle.extend(ended.client);
                    if ended.lost {
                        service = None;
                    }
                }
                _ = ticks.tick() => {
                    if under_way.len() >= OUTSTANDING_MAX {
                        continue;
                    }
                    let client = idle.pop().unwrap_or_else(|| self.recorder.fresh());
                    let call = self.next_call(&mut random);
                    let (recorder, known) = (Arc::clone(&self.recorder), self.known.clone());
                    under_way.spawn(one(connected, self.replica, client, call, recorder, known));
                }
            }
        }
        // Each ends by its deadline.
        while under_way.join_next().await.is_some() {}
    }

    fn next_call(&self, random: &mut StdRng) -> Call {
        let prefix = &self.target.prefix;
        let mut key = || format!("{prefix}k{:02}", random.random_range(0..KEYS));
        let (first, second) = (key(), key());
        let value = || format!("v{}", self.recorder.fresh());
        let put = |key: &str| Put { key: key.to_owned(), value: value(), lease: 0 };
        let read = |range, serializable| {
            Call::Range(RangeRequest { range, serializable, revision: 0, limit: 0 })
        };
        match random.random_range(0..100) {
            0..40 => Call::Put(put(&first)),
            40..62 => read(Range::one(first), false),
            62..74 => read(Range::one(first), true),
            74..86 => {
                let target = CompareTarget::ModRevision(self.known.of(&first));
                let compare =
                    Compare { key: first.clone(), operator: CompareOperator::Equal, target };
                Call::Txn(Txn {
                    compare: vec![compare],
                    success: vec![Step::Put(put(&first))],
                    failure: vec![Step::Range(Range::one(first))],
                })
            }
            86..91 if first != second => Call::Txn(Txn {
                success: vec![Step::Put(put(&first)), Step::Put(put(&second))],
                ..Txn::default()
            }),
            91..94 => Call::Delete(Range::one(first)),
            _ => read(Range::prefix(&format!("{prefix}k")), false),
        }
    }
}

async fn one(
    service: Service,
    replica: u64,
    client: u64,
    call: Call,
    recorder: Arc<Recorder>,
    known: Known,
) -> Ended {
    let invoked = Instant::now();
    let answered = timeout(DEADLINE, send(service, &call)).await;
    let is_write = convert::is_write(&call);
    let silent = || "no answer in time".to_owned();
    let (outcome, lost, told) = match answered {
        Ok(Ok(answer)) => (Outcome::Ok(answer), false, true),
        Ok(Err(status)) => (outcome_of(&status, is_write), is_lost(&status), !is_lost(&status)),
        Err(_) if is_write => (Outcome::Unknown { reason: silent() }, false, false),
        Err(_) => (Outcome::Failed { reason: silent() }, false, false),
    };
    let ended =
        Ended { client: (!matches!(outcome, Outcome::Unknown { .. })).then_some(client), lost };
    if let (Call::Put(put), Outcome::Ok(answer)) = (&call, &outcome) {
        known.learn(&put.key, answer.revision);
    }
    count(&recorder, replica, told, (&call, &outcome));
    recorder.operation(Operation {
        client,
        replica,
        invoked_ns: recorder.at(invoked),
        answered_ns: recorder.now(),
        call,
        outcome,
    });
    ended
}

/// `told` says whether the server has answered, in whatever words.
fn count(recorder: &Recorder, replica: u64, told: bool, (call, outcome): (&Call, &Outcome)) {
    let ok = matches!(outcome, Outcome::Ok(_));
    let for_room =
        matches!(outcome, Outcome::Failed { reason } if reason.contains("space exceeded"));
    let serializable = matches!(call, Call::Range(range) if range.serializable);
    let is_write = convert::is_write(call);
    recorder.count(|tally| {
        if is_write {
            tally.writes += u64::from(ok);
            *tally.told.entry(replica).or_default() += u64::from(told);
            tally.refused_for_room += u64::from(for_room);
        } else if ok && serializable {
            *tally.stale_reads.entry(replica).or_default() += 1;
        } else if ok {
            tally.reads += 1;
        }
    });
}

async fn send(service: Service, call: &Call) -> Result<Answer, Status> {
    let mut client = KvClient::new(service);
    match call {
        Call::Put(put) => {
            let answer = client.put(convert::put(put)).await?.into_inner();
            Ok(Answer { revision: convert::header(answer.header.as_ref()), body: Body::Done })
        }
        Call::Delete(range) => {
            let answer = client.delete_range(convert::delete(range)).await?.into_inner();
            let body = Body::Deleted { count: convert::count(answer.deleted) };
            Ok(Answer { revision: convert::header(answer.header.as_ref()), body })
        }
        Call::Range(range) => {
            let answer = client.range(convert::range(range)).await?.into_inner();
            let kvs = answer.kvs.into_iter().map(convert::kv).collect();
            let body = Body::Range { kvs, more: answer.more };
            Ok(Answer { revision: convert::header(answer.header.as_ref()), body })
        }
        Call::Txn(txn) => {
            let answer = client.txn(convert::txn(txn)).await?.into_inner();
            Ok(convert::txn_answer(answer))
        }
        Call::LeaseGrant { .. }
        | Call::LeaseKeepAlive { .. }
        | Call::LeaseRevoke { .. }
        | Call::Compact { .. }
        | Call::Object(_) => Err(Status::unimplemented("lanes do not send this")),
    }
}

/// Keys as one replica has them: revision, pairs, and whether there are more.
///
/// # Errors
/// In words.
pub(super) async fn range(
    service: Service,
    request: &RangeRequest,
) -> Result<(u64, Vec<Kv>, bool), String> {
    let answer = timeout(DEADLINE, send(service, &Call::Range(request.clone()))).await;
    match answer {
        Ok(Ok(Answer { revision, body: Body::Range { kvs, more } })) => Ok((revision, kvs, more)),
        Ok(Ok(other)) => Err(format!("a range was answered with {other:?}")),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Removes keys, however often that is asked.
///
/// # Errors
/// In words.
pub(super) async fn remove(service: Service, range: &Range) -> Result<(), String> {
    match timeout(DEADLINE, send(service, &Call::Delete(range.clone()))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Whether the connection that gave this answer is of no use any more.
pub(super) fn is_lost(status: &Status) -> bool {
    // What a server has said has no source; what became of a connection has.
    status.source().is_some()
}

/// What is known of a request that was answered with an error.
pub(super) fn outcome_of(status: &Status, is_write: bool) -> Outcome {
    let reason = format!("{:?}: {}", status.code(), status.message());
    let refused = match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => !is_lost(status),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    };
    if refused || !is_write { Outcome::Failed { reason } } else { Outcome::Unknown { reason } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_server_has_refused_is_known_not_to_be() {
        let unknown = |status: &Status| matches!(outcome_of(status, true), Outcome::Unknown { .. });
        assert!(!unknown(&Status::resource_exhausted("etcdserver: mvcc: database space exceeded")));
        assert!(!unknown(&Status::failed_precondition("etcdserver: not leader")));
        assert!(unknown(&Status::unavailable("etcdserver: request timed out")));
        assert!(unknown(&Status::unknown("transport error")));
        // A read changes nothing, whatever became of it.
        let read = outcome_of(&Status::unavailable("etcdserver: no leader"), false);
        assert!(matches!(read, Outcome::Failed { .. }));
    }

    #[test]
    fn a_lane_asks_everything_and_never_writes_a_value_twice() {
        let target = Target {
            etcd_urls: Vec::new(),
            access: client::transport::Access::default(),
            api: None,
            prefix: "drill/1/".to_owned(),
            progress_is_true: true,
        };
        let lane = Lane {
            replica: 1,
            url: String::new(),
            target,
            recorder: Arc::new(Recorder::new()),
            known: Known::default(),
            rate: 1,
            seed: 7,
        };
        let mut random = StdRng::seed_from_u64(lane.seed);
        let calls: Vec<Call> = (0..2000).map(|_| lane.next_call(&mut random)).collect();
        let has = |which: fn(&Call) -> bool| calls.iter().filter(|call| which(call)).count();
        assert!(has(|c| matches!(c, Call::Put(_))) > 600);
        assert!(has(|c| matches!(c, Call::Delete(_))) > 20);
        assert!(has(|c| matches!(c, Call::Txn(txn) if txn.compare.is_empty())) > 30);
        assert!(has(|c| matches!(c, Call::Txn(txn) if !txn.compare.is_empty())) > 100);
        assert!(has(|c| matches!(c, Call::Range(range) if range.serializable)) > 100);
        assert!(has(|c| matches!(c, Call::Range(range) if range.range.end.is_some())) > 30);
        let steps = |call: &Call| match call {
            Call::Put(put) => vec![Step::Put(put.clone())],
            Call::Txn(txn) => txn.success.clone(),
            Call::Delete(_)
            | Call::Range(_)
            | Call::LeaseGrant { .. }
            | Call::LeaseKeepAlive { .. }
            | Call::LeaseRevoke { .. }
            | Call::Compact { .. }
            | Call::Object(_) => Vec::new(),
        };
        let written = calls.iter().flat_map(steps).filter_map(|step| match step {
            Step::Put(put) => Some(put.value),
            Step::Delete(_) | Step::Range(_) => None,
        });
        let mut values: Vec<String> = written.collect();
        let all = values.len();
        values.sort();
        values.dedup();
        assert_eq!(values.len(), all);
    }
}
