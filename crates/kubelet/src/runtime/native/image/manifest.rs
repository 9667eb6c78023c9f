//! The JSON documents of an image.

use super::{digest::Digest, error::ImageError};
use crate::runtime::Image;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// A manifest or an index is not larger.
pub(super) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// A configuration is not larger.
pub(super) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// An image has not more layers.
const LAYERS_MAX: usize = 256;

/// Names other content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// What a manifest of an index is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    architecture: String,
    os: String,
    variant: Option<String>,
}

/// A manifest of one image, or an index of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    /// By platform, or by name in a layout.
    Index(Vec<Descriptor>),
    /// Configuration and layers, lowest first.
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
}

impl Document {
    /// # Errors
    /// It is neither.
    pub(super) fn parse(what: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        struct Either {
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
        }
        let either: Either = parse(what, bytes)?;
        match (either.manifests, either.config) {
            (Some(manifests), _) => Ok(Self::Index(manifests)),
            (None, Some(config)) => {
                Ok(Self::Manifest { config, layers: either.layers.unwrap_or_default() })
            }
            (None, None) => {
                let text = format!("{what} is neither an image manifest nor an index");
                Err(ImageError::Malformed(text))
            }
        }
    }
}

/// # Errors
/// It is not JSON of this form.
pub(super) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Malformed(format!("{what} cannot be understood: {error}")))
}

/// This machine's architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The manifest for this machine.
///
/// # Errors
/// There is none.
pub(super) fn for_this_platform<'a>(
    what: &str,
    manifests: &'a [Descriptor],
) -> Result<&'a Descriptor, ImageError> {
    let fits = |d: &&Descriptor| {
        let platform = d.platform.as_ref();
        platform.is_some_and(|p| p.os == "linux" && p.architecture == architecture())
    };
    // A variant may ask for more than this machine has; the plain one comes first.
    let variant = |d: &&Descriptor| d.platform.as_ref().and_then(|p| p.variant.clone());
    manifests.iter().filter(fits).min_by_key(variant).ok_or_else(|| {
        let offered: Vec<String> = manifests
            .iter()
            .filter_map(|d| d.platform.as_ref())
            .map(|p| format!("{}/{}", p.os, p.architecture))
            .collect();
        let offered = offered.join(", ");
        ImageError::Malformed(format!(
            "{what} has no image for linux/{}, only for: {offered}",
            architecture()
        ))
    })
}

/// How a container of the image is run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RunConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    pub(super) user: Option<String>,
    stop_signal: Option<String>,
}

impl RunConfig {
    /// What the pod worker is told.
    pub(super) fn image(self, id: String, size_bytes: u64) -> Image {
        let variable = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        Image {
            id,
            size_bytes,
            entrypoint: self.entrypoint.unwrap_or_default(),
            cmd: self.cmd.unwrap_or_default(),
            env: self.env.unwrap_or_default().into_iter().map(variable).collect(),
            working_dir: self.working_dir.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            stop_signal: self.stop_signal.as_deref().and_then(signal),
        }
    }
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` (DEL-22).
fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => Some((libc::SIGRTMIN(), rest.strip_prefix('+').unwrap_or(rest))),
        (_, Some(rest)) => Some((libc::SIGRTMAX(), rest)),
        (None, None) => None,
    };
    if let Some((base, offset)) = real_time {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
        let number = base.checked_add(offset)?;
        return (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

/// The configuration document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageConfig {
    pub(super) run: RunConfig,
    /// The layers' digests before compression, lowest first.
    pub(super) diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// # Errors
    /// It is not one, or of an image with too many layers.
    pub(super) fn parse(what: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        struct Whole {
            config: Option<RunConfig>,
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Option<Vec<Digest>>,
        }
        let whole: Whole = parse(what, bytes)?;
        let diff_ids = whole.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() > LAYERS_MAX {
            let text = format!("{what}: {} layers, at most {LAYERS_MAX} can be", diff_ids.len());
            return Err(ImageError::Malformed(text));
        }
        Ok(Self { run: whole.config.unwrap_or_default(), diff_ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_numbers() {
        // DEL-22
        for (text, want) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("RTMAX-1", Some(libc::SIGRTMAX() - 1)),
            ("SIGRTMIN+99", None),
            ("0", None),
            ("-1", None),
            ("SIGNONE", None),
        ] {
            assert_eq!(signal(text), want, "{text}");
        }
    }

    #[test]
    fn this_platform_is_chosen() {
        let of = |list: &[(&str, &str, Option<&str>)]| -> Vec<Descriptor> {
            let each =
                list.iter().enumerate().map(|(at, (os, architecture, variant))| Descriptor {
                    digest: Digest::of(&[u8::try_from(at).unwrap()]),
                    size: 1,
                    platform: Some(Platform {
                        architecture: (*architecture).to_owned(),
                        os: (*os).to_owned(),
                        variant: variant.map(str::to_owned),
                    }),
                    annotations: None,
                });
            each.collect()
        };
        let own = architecture();
        let list = of(&[
            ("unknown", "unknown", None),
            ("linux", own, Some("v9")),
            ("linux", own, None),
            ("windows", own, None),
        ]);
        assert_eq!(for_this_platform("x", &list).unwrap(), &list[2]);
        let error = for_this_platform("x", &of(&[("plan9", "mips", None)])).unwrap_err();
        assert!(error.to_string().contains("only for: plan9/mips"), "{error}");
    }
}
