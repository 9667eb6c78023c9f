//! What may be written as a container's `image`.

use crate::runtime::RuntimeError;
use std::path::PathBuf;

/// Where an image is to come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    /// `toolbox`: made on the spot.
    Toolbox,
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Layout { dir: PathBuf, tag: Option<String> },
    /// `oci-archive:FILE[:TAG]`: the same as a tar archive.
    Archive { file: PathBuf, tag: Option<String> },
    /// `docker-archive:FILE[:NAME:TAG]`: as `docker save` writes it.
    DockerArchive { file: PathBuf, name: Option<String> },
    /// `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`
    Registry(Box<oci_client::Reference>),
}

/// Everything that this binary makes itself is named below it.
const BUILT_IN: &str = "trireme.local/";

impl Reference {
    /// # Errors
    /// [`RuntimeError::InvalidImageName`] with what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, RuntimeError> {
        parse(text)
            .map_err(|detail| RuntimeError::InvalidImageName { image: text.to_owned(), detail })
    }

    /// One text for every way to write it: what it is remembered under.
    pub(super) fn canonical(&self) -> String {
        let file = |kind: &str, path: &PathBuf, tag: &Option<String>| {
            let tag = tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
            format!("{kind}:{}{tag}", path.display())
        };
        match self {
            Self::Toolbox => format!("{BUILT_IN}toolbox"),
            Self::Layout { dir, tag } => file("oci", dir, tag),
            Self::Archive { file: path, tag } => file("oci-archive", path, tag),
            Self::DockerArchive { file: path, name } => file("docker-archive", path, name),
            Self::Registry(reference) => reference.whole(),
        }
    }

    /// What stands before the `@` in the id of an image that came from there (CST-7). The same
    /// content from a file has the same id wherever the file is.
    pub(super) fn repository(&self) -> String {
        match self {
            Self::Toolbox => format!("{BUILT_IN}toolbox"),
            Self::Layout { .. } | Self::Archive { .. } | Self::DockerArchive { .. } => {
                format!("{BUILT_IN}image")
            }
            Self::Registry(reference) => {
                format!("{}/{}", reference.registry(), reference.repository())
            }
        }
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if matches!(text.strip_prefix(BUILT_IN).unwrap_or(text), "toolbox" | "toolbox:latest") {
        return Ok(Reference::Toolbox);
    }
    if text.starts_with(BUILT_IN) {
        return Err(format!("{BUILT_IN} has one image, toolbox"));
    }
    let file = |rest: &str| {
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !path.starts_with('/') {
            return Err("a path must be absolute, such as oci-archive:/images/web.tar".to_owned());
        }
        if tag == Some("") {
            return Err("nothing follows the last colon".to_owned());
        }
        Ok((PathBuf::from(path), tag.map(str::to_owned)))
    };
    if let Some(rest) = text.strip_prefix("oci:") {
        return file(rest).map(|(dir, tag)| Reference::Layout { dir, tag });
    }
    if let Some(rest) = text.strip_prefix("oci-archive:") {
        return file(rest).map(|(file, tag)| Reference::Archive { file, tag });
    }
    if let Some(rest) = text.strip_prefix("docker-archive:") {
        return file(rest).map(|(file, name)| Reference::DockerArchive { file, name });
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("{scheme}:// is not part of an image's name"));
    }
    let reference = oci_client::Reference::try_from(text).map_err(|error| {
        let lower = text.to_lowercase();
        if lower != text && oci_client::Reference::try_from(lower.as_str()).is_ok() {
            "repository name must be lowercase".to_owned()
        } else {
            error.to_string()
        }
    })?;
    if let Some(digest) = reference.digest() {
        super::digest::Digest::try_from(digest.to_owned())?;
    }
    Ok(Reference::Registry(Box::new(reference)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        let at = format!("reg:5000/a/b@{digest}");
        let both = format!("nginx:1.2@{digest}");
        let both_long = format!("docker.io/library/nginx:1.2@{digest}");
        for (text, canonical, repository) in [
            ("toolbox", "trireme.local/toolbox", "trireme.local/toolbox"),
            ("trireme.local/toolbox:latest", "trireme.local/toolbox", "trireme.local/toolbox"),
            ("toolbox:1", "docker.io/library/toolbox:1", "docker.io/library/toolbox"),
            ("oci:/a/b", "oci:/a/b", "trireme.local/image"),
            ("oci:/a/b:v1", "oci:/a/b:v1", "trireme.local/image"),
            ("oci-archive:/a.tar:x/y:v1", "oci-archive:/a.tar:x/y:v1", "trireme.local/image"),
            ("docker-archive:/a.tar", "docker-archive:/a.tar", "trireme.local/image"),
            ("docker-archive:/a.tar:b:c", "docker-archive:/a.tar:b:c", "trireme.local/image"),
            ("nginx", "docker.io/library/nginx:latest", "docker.io/library/nginx"),
            ("me/app:2", "docker.io/me/app:2", "docker.io/me/app"),
            ("localhost/x", "localhost/x:latest", "localhost/x"),
            ("127.0.0.1:5000/x:y", "127.0.0.1:5000/x:y", "127.0.0.1:5000/x"),
            (&at, &at, "reg:5000/a/b"),
            (&both, &both_long, "docker.io/library/nginx"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.canonical(), canonical, "{text}");
            assert_eq!(reference.repository(), repository, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        // CST-1: InvalidImageName
        let short = "nginx@sha256:abc";
        for (text, why) in [
            ("", "at least one component"),
            ("a b", "invalid reference format"),
            ("Nginx", "must be lowercase"),
            ("docker://nginx", "docker:// is not part"),
            ("oci:rel/path", "must be absolute"),
            ("oci-archive:", "must be absolute"),
            ("docker-archive:/a.tar:", "nothing follows"),
            ("trireme.local/other", "one image, toolbox"),
            (short, "invalid reference format"),
            (&format!("nginx@sha512:{}", "a".repeat(128)), "only sha256"),
            (&format!("nginx@sha256:{}", "A".repeat(64)), "lower-case"),
        ] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
