//! Makes images: for the tests of the store, and for those that run containers.
#![allow(dead_code, reason = "each of the two uses a part of it")]

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

/// `sha256:…`
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a layer has under one name.
pub(crate) enum Content {
    Dir,
    File(Vec<u8>, u32),
    Link(String),
}

pub(crate) fn file(text: &str) -> Content {
    Content::File(text.as_bytes().to_vec(), 0o644)
}

/// A layer's archive.
pub(crate) fn tar(entries: &[(&str, Content)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let mut body: &[u8] = b"";
        match content {
            Content::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
            }
            Content::File(bytes, mode) => {
                header.set_mode(*mode);
                body = bytes;
            }
            Content::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name(target).unwrap();
                header.set_mode(0o777);
            }
        }
        header.set_size(body.len() as u64);
        builder.append_data(&mut header, name, body).unwrap();
    }
    builder.into_inner().unwrap()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image as its blobs.
#[derive(Clone)]
pub(crate) struct Made {
    /// By digest.
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) manifest: String,
    pub(crate) config: String,
    /// As packed, lowest first.
    pub(crate) layers: Vec<String>,
    /// As archives.
    pub(crate) tars: Vec<Vec<u8>>,
}

impl Made {
    /// An image of gzipped layers; `run` is the configuration's `config`.
    pub(crate) fn new(tars: &[Vec<u8>], run: &Value) -> Self {
        Self::packed(tars, &tars.iter().map(|tar| gzip(tar)).collect::<Vec<_>>(), run)
    }

    /// The same with layers that are packed already.
    pub(crate) fn packed(tars: &[Vec<u8>], packed: &[Vec<u8>], run: &Value) -> Self {
        let diff_ids: Vec<String> = tars.iter().map(|tar| digest(tar)).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux", "config": run,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Self::with_config(tars, packed, &config)
    }

    pub(crate) fn with_config(tars: &[Vec<u8>], packed: &[Vec<u8>], config: &Value) -> Self {
        let mut blobs = BTreeMap::new();
        let mut add = |bytes: Vec<u8>| {
            let (name, size) = (digest(&bytes), bytes.len());
            blobs.insert(name.clone(), bytes);
            json!({"mediaType": "x/y", "digest": name, "size": size})
        };
        let layers: Vec<Value> = packed.iter().map(|bytes| add(bytes.clone())).collect();
        let config = add(config.to_string().into_bytes());
        let name = |v: &Value| v["digest"].as_str().unwrap().to_owned();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let manifest = name(&add(manifest.to_string().into_bytes()));
        let (layers, config) = (layers.iter().map(name).collect(), name(&config));
        Self { blobs, manifest, config, layers, tars: tars.to_vec() }
    }

    /// Adds an index that has this image for this platform among others; its digest.
    pub(crate) fn index(&mut self) -> String {
        let of = |digest: &str, os: &str, architecture: &str| {
            let size = self.blobs.get(digest).map_or(1, Vec::len);
            json!({
                "mediaType": MANIFEST, "digest": digest, "size": size,
                "platform": {"os": os, "architecture": architecture},
            })
        };
        let other = digest(b"another");
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            of(&other, "unknown", "unknown"), of(&other, "linux", "mips"),
            of(&self.manifest, "linux", architecture()),
        ]});
        let bytes = index.to_string().into_bytes();
        let name = digest(&bytes);
        self.blobs.insert(name.clone(), bytes);
        name
    }

    /// The files of a layout in which `tags` name this image.
    fn files(&self, tags: &[&str]) -> BTreeMap<String, Vec<u8>> {
        let size = self.blobs[&self.manifest].len();
        let descriptor = |annotations: Value| {
            json!({"mediaType": MANIFEST, "digest": self.manifest, "size": size,
                "annotations": annotations})
        };
        let mut manifests: Vec<Value> = tags
            .iter()
            .map(|tag| descriptor(json!({"org.opencontainers.image.ref.name": tag})))
            .collect();
        if manifests.is_empty() {
            manifests.push(descriptor(Value::Null));
        }
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        let mut files: BTreeMap<String, Vec<u8>> = self
            .blobs
            .iter()
            .map(|(name, bytes)| (format!("blobs/{}", name.replace(':', "/")), bytes.clone()))
            .collect();
        files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        files.insert("index.json".to_owned(), index.to_string().into_bytes());
        files
    }

    /// An OCI layout in a directory.
    pub(crate) fn layout(&self, dir: &Path, tags: &[&str]) {
        for (name, bytes) in self.files(tags) {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// An OCI layout in an archive.
    pub(crate) fn archive(&self, path: &Path, tags: &[&str]) {
        fs::write(path, archive(&self.files(tags))).unwrap();
    }

    /// What `docker save` would write.
    pub(crate) fn docker(&self, path: &Path, names: &[&str]) {
        let config = format!("{}.json", &self.config[7..]);
        let mut files = BTreeMap::from([(config.clone(), self.blobs[&self.config].clone())]);
        let mut layers = Vec::new();
        for (at, tar) in self.tars.iter().enumerate() {
            layers.push(format!("{at}/layer.tar"));
            files.insert(format!("{at}/layer.tar"), tar.clone());
        }
        let manifest = json!([{"Config": config, "RepoTags": names, "Layers": layers}]);
        files.insert("manifest.json".to_owned(), manifest.to_string().into_bytes());
        fs::write(path, archive(&files)).unwrap();
    }
}

fn archive(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let entries: Vec<(&str, Content)> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), Content::File(bytes.clone(), 0o644)))
        .collect();
    tar(&entries)
}
