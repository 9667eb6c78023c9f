//! x
use crate::{group::Group, table::Seen};
pub(crate) async fn run(_: &Group) -> Vec<Seen> {
    Vec::new()
}
