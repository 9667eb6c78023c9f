//! What the client verbs do with files of replicas.

use server::recovery::{self, BackupWriter};
use std::path::{Path, PathBuf};

pub(crate) struct ReplicaFiles;

impl cli::Files for ReplicaFiles {
    type Backup = BackupWriter;

    fn begin_backup(&self, file: &Path) -> Result<BackupWriter, String> {
        BackupWriter::create(file).map_err(|error| format!("create {}: {error}", file.display()))
    }

    fn keep(&self, backup: &mut BackupWriter, piece: &[u8]) -> Result<(), String> {
        backup.write(piece).map_err(|error| format!("write the backup: {error}"))
    }

    fn end_backup(&self, backup: BackupWriter) -> Result<String, String> {
        backup.finish().map(|contents| contents.to_string()).map_err(|error| error.to_string())
    }

    fn verify_backup(&self, file: &Path) -> Result<String, String> {
        let verified = recovery::verify_backup(file);
        verified.map(|contents| contents.to_string()).map_err(|error| error.to_string())
    }

    fn restore(&self, file: &Path, configs: &[PathBuf], jump: u64) -> Result<String, String> {
        recovery::restore(file, configs, jump).map_err(|error| format!("{error:#}"))
    }
}
