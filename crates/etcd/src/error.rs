//! Every status that the etcd v3 API answers with. Clients act on code *and* text: both are API.

use store::{AuthRejection, MemberError, Rejection, StoreError};
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
    auth_not_enabled = FailedPrecondition, "authentication is not enabled";
    auth_failed = InvalidArgument, "authentication failed, invalid user ID or password";
    auth_old_revision = InvalidArgument, "revision of auth store is old";
    invalid_auth_token = Unauthenticated, "invalid auth token";
    invalid_auth_management = InvalidArgument, "invalid auth management";
    permission_denied = PermissionDenied, "permission denied";
    permission_not_given = InvalidArgument, "permission not given";
    permission_not_granted = FailedPrecondition, "permission is not granted to the role";
    role_empty = InvalidArgument, "role name is empty";
    role_exists = FailedPrecondition, "role name already exists";
    role_not_found = FailedPrecondition, "role name not found";
    role_not_granted = FailedPrecondition, "role is not granted to the user";
    root_role_not_granted = FailedPrecondition, "root user does not have root role";
    root_user_not_found = FailedPrecondition, "root user does not exist";
    user_empty = InvalidArgument, "user name is empty";
    user_exists = FailedPrecondition, "user name already exists";
    user_not_found = FailedPrecondition, "user name not found";
}

/// What etcd says of locks and elections, which are clients of its own services: it has no codes for it.
macro_rules! recipe_statuses {
    ($($name:ident = $text:literal;)*) => {
        $(pub(crate) fn $name() -> Status {
            Status::unknown($text)
        })*
    };
}

recipe_statuses! {
    session_expired = "mutex: session is expired";
    no_elected_leader = "election: no leader";
    not_elected = "election: not leader";
    leader_key_missing = "\"leader\" field must be provided";
}

/// A refusal on its way through a lock or an election: the text stays. What says that the caller may try
/// again, or may not ask at all, keeps its code, too.
pub(crate) fn of_recipe(status: Status) -> Status {
    match status.code() {
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::ResourceExhausted => status,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Status::unknown(status.message()),
    }
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
        Rejection::LeaseTtlTooLarge => lease_ttl_too_large(),
        Rejection::Compacted { .. } => compacted(),
        Rejection::FutureRevision { .. } => future_revision(),
        Rejection::Auth(rejection) => of_auth(*rejection),
        Rejection::NoSpace => no_space(),
        Rejection::Corrupt => corrupt(),
        Rejection::Forgotten { .. } => outcome_unknown(),
        // Only asked for by controllers and by a new leader, never through this API.
        Rejection::Fenced { .. }
        | Rejection::Precondition { .. }
        | Rejection::StaleEpoch { .. } => Status::internal(rejection.to_string()),
    }
}

pub(crate) fn of_auth(rejection: AuthRejection) -> Status {
    match rejection {
        AuthRejection::RootUserNotFound => root_user_not_found(),
        AuthRejection::RootRoleNotGranted => root_role_not_granted(),
        AuthRejection::UserExists => user_exists(),
        AuthRejection::UserEmpty => user_empty(),
        AuthRejection::UserNotFound => user_not_found(),
        AuthRejection::RoleExists => role_exists(),
        AuthRejection::RoleEmpty => role_empty(),
        AuthRejection::RoleNotFound => role_not_found(),
        AuthRejection::RoleNotGranted => role_not_granted(),
        AuthRejection::PermissionNotGranted => permission_not_granted(),
        AuthRejection::PermissionDenied => permission_denied(),
        AuthRejection::InvalidManagement => invalid_auth_management(),
        AuthRejection::OldRevision => auth_old_revision(),
    }
}

/// What etcd has no status of its own for: its text, of an unknown kind.
pub(crate) mod unknown {
    use tonic::Status;

    pub(crate) fn no_password_user() -> Status {
        Status::unknown("auth: authentication failed, password was given for no password user")
    }

    pub(crate) fn verify_only() -> Status {
        Status::unknown("auth: token signing attempted with verify-only key")
    }

    pub(crate) fn password_too_long() -> Status {
        Status::unknown("bcrypt: password length exceeds 72 bytes")
    }
}

/// A status as a watch is told of it, in Go's form: clients compare it as a whole.
pub(crate) fn as_cancel_reason(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
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
