//! The images of this node: fetched, verified, unpacked once a layer, and found again.
//!
//! `layers/‹diff id›/fs` are directories for an overlay. `records/‹digest›.json` is an image that is
//! here as a whole, `references/` says which one a name stood for when it was last pulled, and
//! `toolbox/` has the built-in image. What has its name is complete: everything is made beside and
//! renamed.

mod digest;
mod error;
mod files;
mod layer;
mod manifest;
mod reference;
mod registry;
mod source;
mod toolbox;
mod unpack;
mod zstd;

use crate::runtime::{Image, RuntimeError, native::records};
use digest::Digest;
use error::{ImageError, io_error};
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture};
use layer::Layers;
use manifest::RunConfig;
use reference::Reference;
use registry::Registry;
use serde::{Deserialize, Serialize};
use source::{DockerArchive, Layout, Resolved};
use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

/// Layers of one image that are fetched at once.
const LAYERS_AT_ONCE: usize = 4;

/// What a container's root is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRoot {
    /// Directories of an overlay, uppermost first; at least one.
    pub(super) lower: Vec<PathBuf>,
    /// `USER`, empty when unset: only the image's own files can say who that is.
    pub(super) user: String,
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ImageRecord {
    digest: Digest,
    /// Lowest first.
    layers: Vec<Digest>,
    size_bytes: u64,
    run: RunConfig,
}

/// What a name stood for when it was last pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ReferenceRecord {
    reference: String,
    digest: Digest,
}

impl From<ImageError> for RuntimeError {
    fn from(error: ImageError) -> Self {
        Self::ImagePull { detail: error.to_string() }
    }
}

/// Runs on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ImageError::Malformed(error.to_string()))?
}

/// The images of one node.
#[derive(Debug)]
pub(super) struct ImageStore {
    dir: PathBuf,
    insecure_registries: Vec<String>,
    layers: Arc<Layers>,
    /// Made once by each start of the agent.
    toolbox: tokio::sync::OnceCell<Image>,
}

impl ImageStore {
    /// Opens the store, and removes what was cut off or is superseded: images that no name stands
    /// for any more, unless `in_use` has their id.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub(super) fn open(
        dir: PathBuf,
        insecure_registries: Vec<String>,
        in_use: &BTreeSet<String>,
    ) -> Result<Self, RuntimeError> {
        for sub in ["records", "references", "toolbox", "empty"] {
            fs::create_dir_all(dir.join(sub)).map_err(io_error("make the image store"))?;
        }
        let layers = Layers::open(dir.join("layers")).map_err(io_error("open the layers"))?;
        let store = Self {
            dir,
            insecure_registries,
            layers: Arc::new(layers),
            toolbox: tokio::sync::OnceCell::new(),
        };
        if let Err(error) = store.collect(in_use) {
            tracing::warn!(%error, "unused images are not removed");
        }
        Ok(store)
    }

    fn collect(&self, in_use: &BTreeSet<String>) -> std::io::Result<()> {
        let read = |sub: &str| -> std::io::Result<Vec<PathBuf>> {
            Ok(fs::read_dir(self.dir.join(sub))?.flatten().map(|entry| entry.path()).collect())
        };
        let mut named: BTreeSet<Digest> = in_use.iter().filter_map(|id| digest_of(id)).collect();
        for path in read("references")? {
            if let Ok(record) = records::read::<ReferenceRecord>(&path) {
                named.insert(record.digest);
            }
        }
        let mut used = BTreeSet::new();
        for path in read("records")? {
            match records::read::<ImageRecord>(&path) {
                Ok(record) if named.contains(&record.digest) => used.extend(record.layers),
                Ok(_) | Err(_) => fs::remove_file(&path)?,
            }
        }
        self.layers.retain(&used)
    }

    /// The image if it is here, without fetching anything.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidImageName`].
    pub(super) async fn image(&self, text: &str) -> Result<Option<Image>, RuntimeError> {
        let reference = Reference::parse(text)?;
        if reference == Reference::Toolbox {
            return self.toolbox().await.map(Some);
        }
        let digest = match &reference {
            Reference::Registry(name) => match name.digest() {
                Some(digest) => Digest::try_from(digest.to_owned()).ok(),
                None => None,
            },
            Reference::Toolbox
            | Reference::Layout { .. }
            | Reference::Archive { .. }
            | Reference::DockerArchive { .. } => {
                // A file may have changed since; one that is gone stands for what it was.
                let reference = reference.clone();
                blocking(move || digest_of_file(&reference)).await.ok()
            }
        };
        let digest = digest.or_else(|| self.remembered(&reference));
        let record = digest.and_then(|digest| self.record(&digest));
        Ok(record.map(|record| show(&reference, record)))
    }

    /// Fetches the image; layers that are here are not fetched again.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidImageName`], [`RuntimeError::ImagePull`].
    pub(super) async fn pull(&self, text: &str) -> Result<Image, RuntimeError> {
        let reference = Reference::parse(text)?;
        let record = match &reference {
            Reference::Toolbox => return self.toolbox().await,
            Reference::Registry(name) => {
                let registry = Registry::new((**name).clone(), &self.insecure_registries)?;
                self.store(Arc::new(registry).resolve().await?).await?
            }
            Reference::Layout { .. }
            | Reference::Archive { .. }
            | Reference::DockerArchive { .. } => {
                let from = reference.clone();
                self.store(blocking(move || resolve_file(&from)).await?).await?
            }
        };
        let canonical = reference.canonical();
        let name = Digest::of(canonical.as_bytes());
        let remembered = ReferenceRecord { reference: canonical, digest: record.digest.clone() };
        self.write("references", &name, &remembered)?;
        Ok(show(&reference, record))
    }

    /// The directories of an image that is here, by its id.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; or the toolbox cannot be made.
    pub(super) async fn root(&self, id: &str) -> Result<ImageRoot, RuntimeError> {
        let missing = || RuntimeError::NotFound { what: format!("image {id}") };
        let digest = digest_of(id).ok_or_else(missing)?;
        if id.starts_with(&Reference::Toolbox.repository()) {
            let lower = self.dir.join("toolbox").join(digest.hex());
            let root = ImageRoot { lower: vec![lower], user: String::new() };
            return if root.lower.iter().all(|dir| dir.exists()) {
                Ok(root)
            } else {
                Err(missing())
            };
        }
        let record = self.record(&digest).ok_or_else(missing)?;
        let mut lower = Vec::new();
        for layer in record.layers.iter().rev() {
            lower.push(self.layers.root(layer));
            if self.layers.get(layer).is_some_and(|kept| kept.hides_all) {
                break;
            }
        }
        if lower.is_empty() {
            lower.push(self.dir.join("empty"));
        }
        Ok(ImageRoot { lower, user: record.run.user.unwrap_or_default() })
    }

    async fn toolbox(&self) -> Result<Image, RuntimeError> {
        let make = async || {
            let dir = self.dir.join("toolbox");
            let made = tokio::task::spawn_blocking(move || toolbox::make(&dir)).await;
            made.map_err(|e| RuntimeError::ImagePull { detail: e.to_string() })?
        };
        self.toolbox.get_or_try_init(make).await.cloned()
    }

    /// Makes an image complete: all layers, then its record.
    async fn store(&self, resolved: Resolved) -> Result<ImageRecord, ImageError> {
        let layers: Vec<Digest> = resolved.layers.iter().map(|(l, _)| l.diff_id.clone()).collect();
        let mut each: Vec<BoxFuture<'_, Result<u64, ImageError>>> = Vec::new();
        for (wanted, fetch) in resolved.layers {
            each.push(Box::pin(async move { Ok(self.layers.ensure(&wanted, fetch).await?.bytes) }));
        }
        let each = futures::stream::iter(each).buffer_unordered(LAYERS_AT_ONCE);
        let size_bytes = each.try_fold(0, async |sum, bytes| Ok(sum + bytes)).await?;
        let run = resolved.config.run;
        let record = ImageRecord { digest: resolved.digest, layers, size_bytes, run };
        self.write("records", &record.digest, &record)?;
        Ok(record)
    }

    fn remembered(&self, reference: &Reference) -> Option<Digest> {
        let name = Digest::of(reference.canonical().as_bytes());
        let path = self.path("references", &name);
        records::read::<ReferenceRecord>(&path).ok().map(|record| record.digest)
    }

    /// An image with all of its layers.
    fn record(&self, digest: &Digest) -> Option<ImageRecord> {
        let record: ImageRecord = records::read(&self.path("records", digest)).ok()?;
        record.layers.iter().all(|layer| self.layers.get(layer).is_some()).then_some(record)
    }

    fn path(&self, sub: &str, name: &Digest) -> PathBuf {
        self.dir.join(sub).join(format!("{}.json", name.hex()))
    }

    fn write<T: Serialize>(&self, sub: &str, name: &Digest, of: &T) -> Result<(), ImageError> {
        records::write(&self.path(sub, name), of).map_err(io_error("record the image"))
    }
}

/// What stands behind the `@` of an id.
fn digest_of(id: &str) -> Option<Digest> {
    Digest::try_from(id.rsplit_once('@')?.1.to_owned()).ok()
}

fn show(reference: &Reference, record: ImageRecord) -> Image {
    let id = format!("{}@{}", reference.repository(), record.digest);
    record.run.image(id, record.size_bytes)
}

fn digest_of_file(reference: &Reference) -> Result<Digest, ImageError> {
    match reference {
        Reference::Layout { dir, tag } => Ok(Layout::dir(dir).choose(tag.as_deref())?.digest),
        Reference::Archive { file, tag } => {
            Ok(Layout::archive(file)?.choose(tag.as_deref())?.digest)
        }
        Reference::DockerArchive { file, name } => {
            DockerArchive::open(file)?.digest(name.as_deref())
        }
        Reference::Toolbox | Reference::Registry(_) => {
            Err(ImageError::Malformed("it is not in a file".to_owned()))
        }
    }
}

fn resolve_file(reference: &Reference) -> Result<Resolved, ImageError> {
    match reference {
        Reference::Layout { dir, tag } => Layout::dir(dir).resolve(tag.as_deref()),
        Reference::Archive { file, tag } => Layout::archive(file)?.resolve(tag.as_deref()),
        Reference::DockerArchive { file, name } => {
            DockerArchive::open(file)?.resolve(name.as_deref())
        }
        Reference::Toolbox | Reference::Registry(_) => {
            Err(ImageError::Malformed("it is not in a file".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
