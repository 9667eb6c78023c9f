//! Requests and answers in a line, as evidence is printed.

use crate::history::{
    Answer, Body, Call, Compare, CompareOperator, CompareTarget, Kv, Object, Operation, Outcome,
    Range, Step, StepAnswer,
};
use std::fmt;

/// Seconds, to the microsecond.
pub(crate) struct Time(pub(crate) u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}

/// Many things, with commas between.
fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            None => f.write_str(&self.key),
            Some(end) => write!(f, "{}..{end}", self.key),
        }
    }
}

impl fmt::Display for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?} of revision {}", self.key, self.value, self.mod_revision)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(put) => write!(f, "put {}={:?}", put.key, put.value),
            Self::Delete(range) => write!(f, "delete {range}"),
            Self::Range(range) => write!(f, "read {range}"),
        }
    }
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            CompareOperator::Equal => "=",
            CompareOperator::NotEqual => "!=",
            CompareOperator::Greater => ">",
            CompareOperator::Less => "<",
        };
        let key = &self.key;
        match &self.target {
            CompareTarget::Version(n) => write!(f, "version({key}) {operator} {n}"),
            CompareTarget::CreateRevision(n) => write!(f, "create({key}) {operator} {n}"),
            CompareTarget::ModRevision(n) => write!(f, "mod({key}) {operator} {n}"),
            CompareTarget::Value(value) => write!(f, "value({key}) {operator} {value:?}"),
            CompareTarget::Lease(n) => write!(f, "lease({key}) {operator} {n}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(put) if put.lease == 0 => write!(f, "put {}={:?}", put.key, put.value),
            Self::Put(put) => write!(f, "put {}={:?} lease {}", put.key, put.value, put.lease),
            Self::Delete(range) => write!(f, "delete {range}"),
            Self::Range(request) => {
                let kind = if request.serializable { "serializable read" } else { "read" };
                write!(f, "{kind} {}", request.range)?;
                if request.revision > 0 { write!(f, " at {}", request.revision) } else { Ok(()) }
            }
            Self::Txn(txn) => write!(
                f,
                "txn if {} then {} else {}",
                list(&txn.compare),
                list(&txn.success),
                list(&txn.failure)
            ),
            Self::LeaseGrant { lease, ttl_seconds } => {
                write!(f, "grant lease {lease} of {ttl_seconds} s")
            }
            Self::LeaseKeepAlive { lease } => write!(f, "renew lease {lease}"),
            Self::LeaseRevoke { lease } => write!(f, "revoke lease {lease}"),
            Self::Compact { revision } => write!(f, "compact {revision}"),
            Self::Object(call) => {
                let verb = format!("{:?}", call.verb).to_lowercase();
                write!(f, "{verb} {} {}/{}", call.kind, call.namespace, call.name)
            }
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, uid, resource_version, .. } = self;
        write!(f, "{kind} {namespace}/{name} ({uid}) at {resource_version}")
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Done => f.write_str("done")?,
            Body::Deleted { count } => write!(f, "{count} deleted")?,
            Body::Range { kvs, .. } if kvs.is_empty() => f.write_str("nothing")?,
            Body::Range { kvs, .. } => f.write_str(&list(kvs))?,
            Body::Txn { succeeded, steps } => {
                f.write_str(if *succeeded { "then" } else { "else" })?;
                for step in steps {
                    match step {
                        StepAnswer::Put => {}
                        StepAnswer::Deleted { count } => write!(f, ", {count} deleted")?,
                        StepAnswer::Range { kvs } => write!(f, ", read [{}]", list(kvs))?,
                    }
                }
            }
            Body::Lease { ttl_seconds } => write!(f, "{ttl_seconds} s left")?,
            Body::Object(None) => f.write_str("no object")?,
            Body::Object(Some(object)) => write!(f, "{object}")?,
            Body::Objects(objects) => f.write_str(&list(objects))?,
        }
        if self.revision > 0 { write!(f, " at revision {}", self.revision) } else { Ok(()) }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, replica, invoked_ns, answered_ns, call, outcome } = self;
        write!(f, "client {client} at replica {replica}")?;
        write!(f, " [{} to {}] {call}: ", Time(*invoked_ns), Time(*answered_ns))?;
        match outcome {
            Outcome::Ok(answer) => write!(f, "{answer}"),
            Outcome::Failed { reason } => write!(f, "refused ({reason})"),
            Outcome::Unknown { reason } => write!(f, "unknown outcome ({reason})"),
        }
    }
}
