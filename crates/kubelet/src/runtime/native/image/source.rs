//! From a reference to the configuration and the layers: layouts and archives on the node.

use super::{
    digest::Digest,
    error::ImageError,
    files::{Files, Slice},
    layer::{Blob, Wanted},
    manifest::{
        CONFIG_BYTES_MAX, Descriptor, Document, ImageConfig, MANIFEST_BYTES_MAX, for_this_platform,
        parse,
    },
};
use futures::future::BoxFuture;
use serde::Deserialize;
use std::path::Path;

/// Opens a layer's bytes when it is polled, and not before.
pub(super) type Fetch = BoxFuture<'static, Result<Blob, ImageError>>;

/// An image that is understood, but not unpacked.
pub(super) struct Resolved {
    /// What the reference stands for: of a manifest, an index, or in a docker archive of the
    /// configuration.
    pub(super) digest: Digest,
    pub(super) config: ImageConfig,
    /// Lowest first.
    pub(super) layers: Vec<(Wanted, Fetch)>,
}

/// Checks content against its name.
pub(super) fn check(what: &str, wanted: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
    let found = Digest::of(bytes);
    if found == *wanted {
        return Ok(());
    }
    Err(ImageError::Digest { what: format!("{what} {wanted}"), wanted: wanted.clone(), found })
}

/// Puts the layers of a manifest and those of its configuration together.
pub(super) fn pair(
    what: &str,
    config: &ImageConfig,
    layers: Vec<(Option<Digest>, u64, Fetch)>,
) -> Result<Vec<(Wanted, Fetch)>, ImageError> {
    if config.diff_ids.len() != layers.len() {
        return Err(ImageError::Malformed(format!(
            "{what} has {} layers, but its configuration knows {}",
            layers.len(),
            config.diff_ids.len()
        )));
    }
    let wanted = config.diff_ids.iter().cloned().zip(layers);
    Ok(wanted
        .map(|(diff_id, (blob, size, fetch))| (Wanted { diff_id, blob, size }, fetch))
        .collect())
}

fn fetch(slice: Slice) -> Fetch {
    Box::pin(async move { slice.blob() })
}

/// A layout's name for an image, or another tool's.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// An OCI image layout, in a directory or an archive.
pub(super) struct Layout {
    files: Files,
}

impl Layout {
    pub(super) fn dir(dir: &Path) -> Self {
        Self { files: Files::Dir(dir.to_owned()) }
    }

    pub(super) fn archive(file: &Path) -> Result<Self, ImageError> {
        Ok(Self { files: Files::archive(file)? })
    }

    fn blob(&self, what: &str, of: &Descriptor, max: u64) -> Result<Vec<u8>, ImageError> {
        let bytes = self.files.find(&format!("blobs/sha256/{}", of.digest.hex()))?.read(max)?;
        check(what, &of.digest, &bytes)?;
        Ok(bytes)
    }

    /// What the tag stands for; without one the only image there is.
    pub(super) fn choose(&self, tag: Option<&str>) -> Result<Descriptor, ImageError> {
        let shown = self.files.shown();
        let index = self.files.find("index.json")?.read(MANIFEST_BYTES_MAX)?;
        let Document::Index(manifests) = Document::parse(&format!("{shown}: index.json"), &index)?
        else {
            return Err(ImageError::Malformed(format!("{shown}: index.json is not an index")));
        };
        let named = |d: &Descriptor| -> Vec<String> {
            let all = d.annotations.iter().flatten();
            all.filter(|(key, _)| NAMES.contains(&key.as_str())).map(|(_, v)| v.clone()).collect()
        };
        let fits = |d: &&Descriptor| tag.is_none_or(|tag| named(d).iter().any(|n| n == tag));
        let found: Vec<Descriptor> = manifests.iter().filter(fits).cloned().collect();
        match (&found[..], tag) {
            ([one], _) => Ok(one.clone()),
            // The same image for several platforms, listed one by one.
            ([first, ..], _) if found.iter().all(|d| named(d) == named(first)) => {
                for_this_platform(&shown, &found).cloned()
            }
            (_, _) => {
                let names: Vec<String> = manifests.iter().flat_map(named).collect();
                let names = names.join(", ");
                Err(ImageError::Malformed(match tag {
                    Some(tag) => format!("{shown} has no image {tag:?}, only: {names}"),
                    None if found.is_empty() => format!("{shown} has no image"),
                    None => format!("{shown} has several images; name one of: {names}"),
                }))
            }
        }
    }

    pub(super) fn resolve(&self, tag: Option<&str>) -> Result<Resolved, ImageError> {
        let shown = self.files.shown();
        let chosen = self.choose(tag)?;
        let what = format!("{shown}: manifest");
        let mut document = Document::parse(&what, &self.blob(&what, &chosen, MANIFEST_BYTES_MAX)?)?;
        if let Document::Index(manifests) = &document {
            let one = for_this_platform(&shown, manifests)?;
            document = Document::parse(&what, &self.blob(&what, one, MANIFEST_BYTES_MAX)?)?;
        }
        let Document::Manifest { config, layers } = document else {
            return Err(ImageError::Malformed(format!("{shown}: an index within an index")));
        };
        let what = format!("{shown}: configuration");
        let config = ImageConfig::parse(&what, &self.blob(&what, &config, CONFIG_BYTES_MAX)?)?;
        let places = layers.into_iter().map(|layer| {
            let slice = self.files.find(&format!("blobs/sha256/{}", layer.digest.hex()))?;
            Ok((Some(layer.digest), layer.size, fetch(slice)))
        });
        let layers = pair(&shown, &config, places.collect::<Result<_, ImageError>>()?)?;
        Ok(Resolved { digest: chosen.digest, config, layers })
    }
}

/// An archive as `docker save` writes it.
pub(super) struct DockerArchive {
    files: Files,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    pub(super) fn open(file: &Path) -> Result<Self, ImageError> {
        Ok(Self { files: Files::archive(file)? })
    }

    fn choose(&self, name: Option<&str>) -> Result<Saved, ImageError> {
        let shown = self.files.shown();
        let bytes = self.files.find("manifest.json")?.read(MANIFEST_BYTES_MAX)?;
        let mut all: Vec<Saved> = parse(&format!("{shown}: manifest.json"), &bytes)?;
        let whole = |name: &str| {
            oci_client::Reference::try_from(name).map_or_else(|_| name.to_owned(), |r| r.whole())
        };
        let tags = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
        let names: Vec<String> = all.iter().flat_map(tags).collect();
        let names = names.join(", ");
        if let Some(name) = name {
            all.retain(|saved| tags(saved).iter().any(|tag| whole(tag) == whole(name)));
        }
        match (all.pop(), all.is_empty(), name) {
            (Some(one), true, _) => Ok(one),
            (_, _, Some(name)) => {
                Err(ImageError::Malformed(format!("{shown} has no image {name:?}, only: {names}")))
            }
            (_, _, None) => Err(ImageError::Malformed(format!(
                "{shown} does not have exactly one image; name one of: {names}"
            ))),
        }
    }

    fn config(&self, saved: &Saved) -> Result<(Digest, Vec<u8>), ImageError> {
        let bytes = self.files.find(&saved.config)?.read(CONFIG_BYTES_MAX)?;
        let found = Digest::of(&bytes);
        // Its name is its digest.
        let name = Path::new(&saved.config).file_stem().unwrap_or_default().to_string_lossy();
        if let Ok(wanted) = Digest::try_from(format!("sha256:{name}"))
            && wanted != found
        {
            let what = format!("{}: configuration", self.files.shown());
            return Err(ImageError::Digest { what, wanted, found });
        }
        Ok((found, bytes))
    }

    /// What the name stands for.
    pub(super) fn digest(&self, name: Option<&str>) -> Result<Digest, ImageError> {
        Ok(self.config(&self.choose(name)?)?.0)
    }

    pub(super) fn resolve(&self, name: Option<&str>) -> Result<Resolved, ImageError> {
        let shown = self.files.shown();
        let saved = self.choose(name)?;
        let (digest, bytes) = self.config(&saved)?;
        let config = ImageConfig::parse(&format!("{shown}: configuration"), &bytes)?;
        let places = saved.layers.iter().map(|layer| {
            let slice = self.files.find(layer)?;
            Ok((None, slice.size, fetch(slice)))
        });
        let layers = pair(&shown, &config, places.collect::<Result<_, ImageError>>()?)?;
        Ok(Resolved { digest, config, layers })
    }
}
