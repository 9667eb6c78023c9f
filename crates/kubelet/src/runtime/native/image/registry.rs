//! Images of a registry.

use super::{
    digest::Digest,
    error::{ImageError, io_error},
    layer::Blob,
    manifest::{CONFIG_BYTES_MAX, Descriptor, Document, ImageConfig, for_this_platform},
    source::{Fetch, Resolved, check, pair},
};
use bytes::Bytes;
use futures::StreamExt as _;
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};
use std::{
    error::Error,
    io::{self, Read},
    net::IpAddr,
    sync::{Arc, Once},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};

/// For a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// For the next bytes.
const SILENCE: Duration = Duration::from_secs(30);
/// For a manifest or a token, all in all.
const ANSWER: Duration = Duration::from_secs(60);
/// Pieces of a layer that wait to be unpacked.
const PIECES: usize = 16;

const MEDIA_TYPES: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// One image of one registry.
pub(super) struct Registry {
    client: Client,
    reference: Reference,
}

/// Whether a registry is talked to without TLS: on this machine, or as configured.
fn is_plain(host: &str, insecure: &[String]) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_loopback = name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    is_loopback || insecure.iter().any(|other| other == host || other == name)
}

/// The answer of a registry as it is shown.
fn answer(error: &OciDistributionError) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others say enough themselves")]
    match error {
        OciDistributionError::RegistryError { envelope, .. } => {
            let each = envelope.errors.iter().map(|error| {
                // Serialised it is as the registry wrote it.
                let code = serde_json::to_value(&error.code).unwrap_or_default();
                format!("{}: {}", code.as_str().unwrap_or("error"), error.message)
            });
            each.collect::<Vec<_>>().join("; ")
        }
        OciDistributionError::ServerError { code, message, .. } => {
            let message: String = message.trim().chars().take(300).collect();
            format!("HTTP {code}: {message}")
        }
        OciDistributionError::UnauthorizedError { .. } => {
            "unauthorized: pull access is denied, or the image does not exist".to_owned()
        }
        other => {
            let mut text = other.to_string();
            let mut source = other.source();
            while let Some(error) = source {
                let more = error.to_string();
                if !text.contains(&more) {
                    text = format!("{text}: {more}");
                }
                source = error.source();
            }
            text
        }
    }
}

impl Registry {
    pub(super) fn new(reference: Reference, insecure: &[String]) -> Result<Self, ImageError> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Another part of this process may have been first; it is the same one.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let plain = is_plain(reference.resolve_registry(), insecure);
        let client = Client::try_from(ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("trireme/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })
        .map_err(|error| ImageError::Registry(format!("make a client: {}", answer(&error))))?;
        Ok(Self { client, reference })
    }

    fn failed(&self, what: &str) -> impl Fn(&OciDistributionError) -> ImageError {
        let registry = self.reference.resolve_registry().to_owned();
        let what = what.to_owned();
        move |error| ImageError::Registry(format!("{what} from {registry}: {}", answer(error)))
    }

    async fn in_time<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<T, ImageError> {
        match timeout(ANSWER, request).await {
            Ok(result) => result.map_err(|error| self.failed(what)(&error)),
            Err(_) => {
                let registry = self.reference.resolve_registry();
                let text = format!("{what} from {registry}: no answer within {ANSWER:?}");
                Err(ImageError::Registry(text))
            }
        }
    }

    /// A manifest and its digest, which is the wanted one.
    async fn manifest(&self, reference: &Reference) -> Result<(Bytes, Digest), ImageError> {
        let what = "fetch the manifest";
        let request =
            self.client.pull_manifest_raw(reference, &RegistryAuth::Anonymous, MEDIA_TYPES);
        let (bytes, told) = self.in_time(what, request).await?;
        let found = Digest::of(&bytes);
        let wanted = reference.digest().unwrap_or(&told).to_owned();
        let wanted = Digest::try_from(wanted).map_err(ImageError::Malformed)?;
        check("manifest", &wanted, &bytes)?;
        Ok((bytes, found))
    }

    pub(super) async fn resolve(self: Arc<Self>) -> Result<Resolved, ImageError> {
        // A registry that refuses tokens is asked without: it may say more then.
        let auth =
            self.client.auth(&self.reference, &RegistryAuth::Anonymous, RegistryOperation::Pull);
        self.in_time("ask for access", auth).await?;
        let shown = self.reference.whole();
        let (bytes, digest) = self.manifest(&self.reference).await?;
        let mut document = Document::parse(&shown, &bytes)?;
        if let Document::Index(manifests) = &document {
            let one = for_this_platform(&shown, manifests)?;
            let reference = self.reference.clone_with_digest(one.digest.to_string());
            document = Document::parse(&shown, &self.manifest(&reference).await?.0)?;
        }
        let Document::Manifest { config, layers } = document else {
            return Err(ImageError::Malformed(format!("{shown}: an index within an index")));
        };
        let config = ImageConfig::parse(&shown, &self.config(&config).await?)?;
        let places = layers.into_iter().map(|layer| {
            let (registry, descriptor) = (Arc::clone(&self), descriptor(&layer));
            let fetch: Fetch = Box::pin(async move { registry.blob(&descriptor).await });
            (Some(layer.digest), layer.size, fetch)
        });
        let layers = pair(&shown, &config, places.collect())?;
        Ok(Resolved { digest, config, layers })
    }

    async fn config(&self, config: &Descriptor) -> Result<Vec<u8>, ImageError> {
        if config.size > CONFIG_BYTES_MAX {
            let text = format!("a configuration of {} bytes is too large", config.size);
            return Err(ImageError::Malformed(text));
        }
        let wanted = config.digest.clone();
        let size = config.size;
        let blob = self.blob(&descriptor(config)).await?;
        let read = async {
            let mut reader = blob.reader;
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::new();
                let result = reader.by_ref().take(size + 1).read_to_end(&mut bytes);
                result.map(|_| bytes)
            });
            read.await.map_err(|error| ImageError::Malformed(error.to_string()))
        };
        let (pumped, read) = tokio::join!(blob.pump, read);
        pumped?;
        let bytes = read?.map_err(io_error("read the configuration"))?;
        check("configuration", &wanted, &bytes)?;
        Ok(bytes)
    }

    /// Begins to fetch.
    async fn blob(&self, descriptor: &OciDescriptor) -> Result<Blob, ImageError> {
        let what = format!("fetch {}", descriptor.digest);
        let request = self.client.pull_blob_stream(&self.reference, descriptor);
        let mut stream = self.in_time(&what, request).await?.stream;
        let size = u64::try_from(descriptor.size).unwrap_or_default();
        let registry = self.reference.resolve_registry().to_owned();
        let (sender, receiver) = mpsc::channel::<Bytes>(PIECES);
        let pump = async move {
            let mut arrived = 0;
            while let Some(piece) = stream.next().await {
                match piece {
                    Ok(bytes) => {
                        arrived += bytes.len() as u64;
                        if sender.send(bytes).await.is_err() {
                            // Whoever reads has seen enough, and says why.
                            return Ok(());
                        }
                    }
                    // The client's own check of the digest: ours says it better.
                    Err(_) if arrived >= size => return Ok(()),
                    Err(error) => {
                        let error = OciDistributionError::IoError(error);
                        let text = format!(
                            "{what} from {registry}: {} after {arrived} of {size} bytes",
                            answer(&error)
                        );
                        return Err(ImageError::Registry(text));
                    }
                }
            }
            Ok(())
        };
        let reader = Pieces { receiver, rest: Bytes::new() };
        Ok(Blob { reader: Box::new(reader), pump: Box::pin(pump) })
    }
}

fn descriptor(of: &Descriptor) -> OciDescriptor {
    OciDescriptor {
        digest: of.digest.to_string(),
        size: i64::try_from(of.size).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

/// What arrives, for a thread that may wait.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(bytes) => self.rest = bytes,
                None => return Ok(0),
            }
        }
        let piece = self.rest.split_to(buffer.len().min(self.rest.len()));
        buffer.get_mut(..piece.len()).unwrap_or_default().copy_from_slice(&piece);
        Ok(piece.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_what_is_configured_is_trusted_without_tls() {
        let insecure = ["lab:5000".to_owned(), "mirror".to_owned()];
        for (host, plain) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("10.0.0.1:5000", false),
            ("index.docker.io", false),
            ("lab:5000", true),
            ("lab:5001", false),
            ("mirror:80", true),
            ("localhost.example.com", false),
        ] {
            assert_eq!(is_plain(host, &insecure), plain, "{host}");
        }
    }
}
