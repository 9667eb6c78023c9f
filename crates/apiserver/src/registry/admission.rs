//! What is decided only where an object is written, by what it was and would be.

use access::node::Write;
use api::{kinds::Kind, status::Status};
use std::{fmt, sync::Arc};
use store::Revision;

type Check = dyn Fn(&Kind, &str, Write<'_>) -> Result<(), Status> + Send + Sync;

/// Refuses writes that their caller may not make. Asked with the object as it is in the state that the
/// write is decided on, each time that is read anew.
#[derive(Clone)]
pub struct Admission(Arc<Check>);

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

impl Admission {
    /// By kind, subresource and what would be done.
    pub fn new(
        check: impl Fn(&Kind, &str, Write<'_>) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(check))
    }

    pub(super) fn check(
        &self,
        kind: &Kind,
        subresource: &str,
        write: Write<'_>,
    ) -> Result<(), Status> {
        (self.0)(kind, subresource, write)
    }
}

/// Is told when what a caller writes is proposed, and when it is there.
pub trait Witness: fmt::Debug + Send + Sync {
    /// What comes of it has a revision above this one.
    fn proposes(&self, above: Revision);
    /// It has this one.
    fn committed(&self, at: Revision);
}
