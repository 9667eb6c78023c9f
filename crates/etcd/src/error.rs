//! Every status that the etcd v3 API answers with. Clients act on code *and* text: both are API.

use store::{MemberError, Rejection, StoreError};
use tonic::{Code, Status};

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $text:literal;)*) => {
        $($(#[$doc])* pub(crate) fn $name() -> Status {
            Status::new(Code::$code, concat!("etcdserver: ", $text))
        })*
    };
}

statuses! {
    empty_key = InvalidArgument, "key is not provided";
    /// Also of a step of a transaction that says nothing.
    key_not_found = InvalidArgument, "key not found";
    value_provided = InvalidArgument, "value is provided";
    lease_provided = InvalidArgument, "lease is provided";
    too_many_ops = InvalidArgument, "too many operations in txn request";
    duplicate_key = InvalidArgument, "duplicate key given in txn request";
    invalid_sort = InvalidArgument, "invalid sort option";
    too_large = InvalidArgument, "request is too large";
    compacted = OutOfRange, "mvcc: required revision has been compacted";
    future_revision = OutOfRange, "mvcc: required revision is a future revision";
    no_space = ResourceExhausted, "mvcc: database space exceeded";
    lease_not_found = NotFound, "requested lease not found";
    lease_exists = FailedPrecondition, "lease already exists";
    lease_ttl_too_large = OutOfRange, "too large lease TTL";
    member_not_found = NotFound, "member not found";
    peer_url_exists = FailedPrecondition, "Peer URLs already exists";
    bad_member_urls = InvalidArgument, "given member URLs are invalid";
    not_enough_started = FailedPrecondition, "re-configuration failed due to not enough started members";
    not_learner = FailedPrecondition, "can only promote a learner member";
    not_in_sync = FailedPrecondition, "can only promote a learner member which is in sync with leader";
    too_many_learners = FailedPrecondition, "too many learner members in cluster";
    unhealthy = Unavailable, "unhealthy cluster";
    corrupt = DataLoss, "corrupt cluster";
    too_many_requests = ResourceExhausted, "too many requests";
    no_leader = Unavailable, "no leader";
    not_leader = FailedPrecondition, "not leader";
    stopped = Unavailable, "server stopped";
    timed_out = Unavailable, "request timed out";
    /// Proposed, and whether it took effect is not known.
    outcome_unknown = Unavailable, "request timed out, possibly due to previous leader failure";
    bad_transferee = FailedPrecondition, "bad leader transferee";
    downgrade_version_format = InvalidArgument, "wrong downgrade target version format";
    downgrade_version = InvalidArgument, "invalid downgrade target version";
    no_downgrade = FailedPrecondition, "no inflight downgrade job";
}

/// What a watch is told that cannot begin or go on: etcd sends these as text, not as a status.
pub(crate) mod cancel_reason {
    pub(crate) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
    pub(crate) const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
    pub(crate) const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
}

pub(crate) fn of_store(error: StoreError) -> Status {
    match error {
        StoreError::NoLeader { .. } | StoreError::NotLeader => no_leader(),
        StoreError::Unknown { .. } => outcome_unknown(),
        StoreError::Busy => too_many_requests(),
        StoreError::TooLarge { .. } => too_large(),
        StoreError::NotYet { .. } => timed_out(),
        StoreError::Stopped { .. } => stopped(),
    }
}

pub(crate) fn of_rejection(rejection: &Rejection) -> Status {
    match rejection {
        Rejection::KeyNotFound => key_not_found(),
        Rejection::EmptyKey => empty_key(),
        Rejection::DuplicateKey => duplicate_key(),
        Rejection::TooDeep { .. } => too_many_ops(),
        Rejection::LeaseNotFound => lease_not_found(),
        Rejection::LeaseExists => lease_exists(),
        Rejection::Compacted { .. } => compacted(),
        Rejection::FutureRevision { .. } => future_revision(),
        Rejection::NoSpace => no_space(),
        Rejection::Corrupt => corrupt(),
        Rejection::Forgotten { .. } => outcome_unknown(),
        // Only asked for by controllers and by a new leader, never through this API.
        Rejection::Fenced { .. }
        | Rejection::Precondition { .. }
        | Rejection::StaleEpoch { .. } => Status::internal(rejection.to_string()),
    }
}

pub(crate) fn of_member(error: MemberError) -> Status {
    match error {
        MemberError::NotFound => member_not_found(),
        MemberError::PeerUrlExists => peer_url_exists(),
        MemberError::NotLearner => not_learner(),
        MemberError::NotInSync => not_in_sync(),
        MemberError::TooManyLearners => too_many_learners(),
        MemberError::Unhealthy => unhealthy(),
        MemberError::NotEnoughStarted => not_enough_started(),
        MemberError::Store(error) => of_store(error),
    }
}
