//! `trireme debug`: looks into the files of a replica that does not run.

use anyhow::Context as _;
use base64::Engine as _;
use prost::Message as _;
use std::{io::Write, path::Path};

/// Prints every request in a replica's log that etcd's could hold, too, in order: base64 of
/// `etcdserverpb.InternalRaftRequest`, one a line. Says on `notes` where the log begins, and what of
/// its end is left out because it is not known here to be committed, unless `uncommitted`.
///
/// # Errors
/// The directory is in use, its log is damaged, or nothing can be printed.
pub fn dump_requests(
    data_dir: &Path,
    uncommitted: bool,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> anyhow::Result<()> {
    // A configuration names data, and a cluster of `trireme dev` has it there.
    let inner = data_dir.join("data");
    let data_dir = if inner.join("log").is_dir() { &inner } else { data_dir };
    let mut left_out = 0;
    let part = raft::read_log(data_dir, |index, committed, command| {
        for request in etcd::internal_requests(index, command) {
            if committed || uncommitted {
                let bytes = request.encode_to_vec();
                writeln!(out, "{}", base64::engine::general_purpose::STANDARD.encode(bytes))?;
            } else {
                left_out += 1;
            }
        }
        Ok(())
    })
    .with_context(|| format!("read the log in {}", data_dir.display()))?;
    out.flush().context("print requests")?;
    if part.purged > 0 {
        writeln!(
            notes,
            "the log begins at index {}: what came before is in a snapshot, and its requests are gone",
            part.purged + 1
        )
    } else {
        writeln!(notes, "the log is complete from its first entry to index {}", part.last)
    }
    .and_then(|()| {
        if left_out == 0 {
            return Ok(());
        }
        writeln!(
            notes,
            "{left_out} requests after index {} are left out: it is not known here that they are \
             committed; --uncommitted prints them, too",
            part.committed
        )
    })
    .context("print notes")
}
