//! Layers on disk: each is unpacked once, whoever asks for it.

use super::{
    digest::{Digest, Hashing},
    error::{ImageError, io_error},
    unpack::{LIMITS, Limits, unpack},
};
use crate::runtime::native::records;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// A layer's bytes as they arrive.
pub(super) struct Blob {
    pub(super) reader: Box<dyn Read + Send>,
    /// Feeds the reader; to be polled meanwhile.
    pub(super) pump: BoxFuture<'static, Result<(), ImageError>>,
}

/// What a layer has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Digest before compression: the layer's name here.
    pub(super) diff_id: Digest,
    /// Digest as fetched, where the source names one.
    pub(super) blob: Option<Digest>,
    /// Bytes as fetched.
    pub(super) size: u64,
}

/// What is kept beside an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) bytes: u64,
    /// Nothing of the layers below is seen.
    pub(super) hides_all: bool,
}

/// The unpacked layers: `‹diff id›/fs` and `‹diff id›/layer.json`.
#[derive(Debug)]
pub(super) struct Layers {
    dir: PathBuf,
    limits: Limits,
    /// Held while a layer is being unpacked.
    locks: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    builds: AtomicU64,
}

const BUILDING: &str = ".building-";

impl Layers {
    /// Throws away what a start that was cut off has left.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(BUILDING) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { dir, limits: LIMITS, locks: Mutex::default(), builds: AtomicU64::new(0) })
    }

    /// The layer's files.
    pub(super) fn root(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join(diff_id.hex()).join("fs")
    }

    /// The layer if it is here.
    pub(super) fn get(&self, diff_id: &Digest) -> Option<LayerRecord> {
        records::read(&self.dir.join(diff_id.hex()).join("layer.json")).ok()
    }

    /// The layer, fetched and unpacked if it is not here. Of those who ask at once, one does it.
    ///
    /// # Errors
    /// Nothing of a failed attempt is left.
    pub(super) async fn ensure(
        self: &Arc<Self>,
        wanted: &Wanted,
        fetch: impl Future<Output = Result<Blob, ImageError>> + Send,
    ) -> Result<LayerRecord, ImageError> {
        if let Some(record) = self.get(&wanted.diff_id) {
            return Ok(record);
        }
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody holds or waits for the others.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(wanted.diff_id.clone()).or_default())
        };
        let guard = lock.lock_owned().await;
        if let Some(record) = self.get(&wanted.diff_id) {
            return Ok(record);
        }
        let blob = fetch.await?;
        let (layers, wanted) = (Arc::clone(self), wanted.clone());
        let build = tokio::task::spawn_blocking(move || {
            let built = layers.build(&wanted, blob.reader);
            // Only now, so that the next one does not begin beside it if the caller went away.
            drop(guard);
            built
        });
        let (pumped, built) = tokio::join!(blob.pump, build);
        // What cuts the bytes off explains what is wrong with them.
        pumped?;
        built.map_err(|error| ImageError::Malformed(error.to_string()))?
    }

    fn build(&self, wanted: &Wanted, blob: impl Read) -> Result<LayerRecord, ImageError> {
        let number = self.builds.fetch_add(1, Ordering::Relaxed);
        let building = self.dir.join(format!("{BUILDING}{}-{number}", wanted.diff_id.hex()));
        let built = self.build_in(&building, wanted, blob);
        if built.is_err()
            && let Err(error) = fs::remove_dir_all(&building)
        {
            tracing::warn!(%error, dir = %building.display(), "a failed layer is left behind");
        }
        built
    }

    fn build_in(
        &self,
        building: &Path,
        wanted: &Wanted,
        blob: impl Read,
    ) -> Result<LayerRecord, ImageError> {
        let root = building.join("fs");
        fs::create_dir_all(&root).map_err(io_error("make the layer's directory"))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))
            .map_err(io_error("make the layer's directory"))?;
        let unpacked = verified(wanted, blob, |tar| unpack(tar, &root, self.limits))?;
        let record = LayerRecord { bytes: unpacked.bytes, hides_all: unpacked.hides_all };
        records::write(&building.join("layer.json"), &record)
            .map_err(io_error("record the layer"))?;
        // Once published it is believed: after a power cut, too.
        let dir = File::open(&self.dir).map_err(io_error("open the layers"))?;
        nix::unistd::syncfs(&dir).map_err(io_error("write the layer to the disk"))?;
        let published = self.dir.join(wanted.diff_id.hex());
        fs::rename(building, &published).map_err(io_error("publish the layer"))?;
        dir.sync_all().map_err(io_error("publish the layer"))?;
        Ok(record)
    }

    /// Removes every layer that is not named.
    pub(super) fn retain(&self, used: &BTreeSet<Digest>) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let name = entry.file_name();
            if !used.iter().any(|digest| *digest.hex() == *name) {
                tracing::info!(layer = %name.display(), "removed: no image uses it");
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Gives the archive inside to `unpack`, and believes it only if size and both digests are right.
fn verified<T>(
    wanted: &Wanted,
    blob: impl Read,
    unpack: impl FnOnce(&mut dyn Read) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let drain = |reader: &mut dyn Read| {
        io::copy(reader, &mut io::sink()).map_err(io_error("read the layer"))
    };
    let name = wanted.blob.as_ref().unwrap_or(&wanted.diff_id);
    let mut raw = Hashing::new(blob.take(wanted.size.saturating_add(1)));
    let outcome = plain(BufReader::with_capacity(1 << 18, &mut raw)).and_then(|plain| {
        let mut plain = Hashing::new(plain);
        let unpacked = unpack(&mut plain)?;
        // Behind the archive's end there is padding, and nothing to be believed.
        let mut padding = plain.by_ref().take(PADDING_BYTES_MAX);
        drain(&mut padding)?;
        Ok((unpacked, plain.digest()))
    });
    drain(&mut raw)?;
    let what = || format!("layer {name}");
    if raw.read != wanted.size {
        let found = if raw.read > wanted.size { "more".to_owned() } else { raw.read.to_string() };
        let text = format!("{}: {found} bytes instead of {}", what(), wanted.size);
        return Err(ImageError::Malformed(text));
    }
    let found = raw.digest();
    if let Some(wanted) = wanted.blob.as_ref().filter(|wanted| **wanted != found) {
        let wanted = wanted.clone();
        return Err(ImageError::Digest { what: what(), wanted, found });
    }
    let (unpacked, found) = outcome.map_err(|error| error.about(&what()))?;
    if found != wanted.diff_id {
        let what = format!("{}, unpacked", what());
        return Err(ImageError::Digest { what, wanted: wanted.diff_id.clone(), found });
    }
    Ok(unpacked)
}

/// More than any program pads with.
const PADDING_BYTES_MAX: u64 = 64 << 20;

/// What is in it, whatever it is compressed with.
fn plain<'a>(mut packed: impl io::BufRead + 'a) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut magic = Vec::new();
    packed.by_ref().take(4).read_to_end(&mut magic).map_err(io_error("read the layer"))?;
    let whole = io::Cursor::new(magic.clone()).chain(packed);
    Ok(match magic.get(..) {
        Some([0x1f, 0x8b, ..]) => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Some([0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18]) => {
            Box::new(super::zstd::Frames::new(whole))
        }
        _ => Box::new(whole),
    })
}
