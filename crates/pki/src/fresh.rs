//! What files hold, read again when they have changed.

use std::{
    error::Error,
    fmt::Debug,
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

type Load<T> = Box<dyn Fn() -> Result<Arc<T>, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// Something made of files.
pub struct Fresh<T> {
    files: Vec<PathBuf>,
    load: Load<T>,
    now: Mutex<(Vec<Stamp>, Arc<T>)>,
}

/// Size, time and inode of a file; `None` if it cannot be looked at. A file that is renamed into place within
/// one tick of the clock has another inode.
type Stamp = Option<(u64, SystemTime, u64)>;

impl<T> Fresh<T> {
    /// Reads for the first time.
    ///
    /// # Errors
    /// As `load`.
    pub fn new<E: Into<Box<dyn Error + Send + Sync>>>(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<Arc<T>, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let stamps = stamps(&files);
        let now = Mutex::new((stamps, load()?));
        Ok(Self { files, load: Box::new(move || load().map_err(Into::into)), now })
    }

    /// What was read last goes on while the files do not fit together.
    pub fn get(&self) -> Arc<T> {
        let stamps = stamps(&self.files);
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.0 != stamps {
            match (self.load)() {
                Ok(loaded) => {
                    tracing::info!(files = ?self.files, "certificates read again");
                    now.1 = loaded;
                }
                Err(error) => {
                    tracing::warn!("certificates not read again: {}", chain(&*error));
                }
            }
            now.0 = stamps;
        }
        Arc::clone(&now.1)
    }
}

impl<T> Debug for Fresh<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fresh").field(&self.files).finish()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let found = fs::metadata(file).ok()?;
        Some((found.len(), found.modified().ok()?, found.ino()))
    };
    files.iter().map(stamp).collect()
}

/// An error with what it came from.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
