//! The store with images made on the spot, and with a registry.

use super::*;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode},
};
use kit::{Made, digest, file, gzip, tar};
use serde_json::json;
use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};
use tempfile::TempDir;

#[path = "../../../../tests/images/kit.rs"]
mod kit;

struct Bench {
    dir: TempDir,
    store: ImageStore,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir, &BTreeSet::new());
        Self { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What is under `layers`.
    fn layers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("images/layers")).unwrap().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn refused(&self, reference: &str) -> String {
        let error = self.store.pull(reference).await.unwrap_err();
        assert!(matches!(error, RuntimeError::ImagePull { .. }), "{error:?}");
        assert_eq!(self.store.image(reference).await.unwrap(), None, "{reference}");
        error.to_string()
    }

    async fn lower(&self, image: &Image) -> Vec<PathBuf> {
        self.store.root(&image.id).await.unwrap().lower
    }
}

fn open(dir: &TempDir, in_use: &BTreeSet<String>) -> ImageStore {
    ImageStore::open(dir.path().join("images"), Vec::new(), in_use).unwrap()
}

fn run() -> serde_json::Value {
    json!({
        "Entrypoint": ["/bin/serve"], "Cmd": ["--all"], "Env": ["A=1", "B=x=y", "C"],
        "WorkingDir": "/srv", "User": "web:ops", "StopSignal": "SIGQUIT",
    })
}

fn two_layers() -> Made {
    let lower = tar(&[("etc/kept", file("lower")), ("etc/gone", file("lower"))]);
    let upper = tar(&[("etc/.wh.gone", file("")), ("srv/page", file("upper"))]);
    Made::new(&[lower, upper], &run())
}

#[tokio::test]
async fn every_source_gives_the_same_image() {
    // CST-7, DEL-22, ENV-2
    let bench = Bench::new();
    let made = two_layers();
    made.layout(&bench.path("layout"), &["v1"]);
    made.archive(&bench.path("oci.tar"), &["v1"]);
    made.docker(&bench.path("docker.tar"), &["me/web:v1"]);
    let base = bench.dir.path().display();
    let by_manifest = format!("trireme.local/image@{}", made.manifest);
    let by_config = format!("trireme.local/image@{}", made.config);
    for (reference, id) in [
        (format!("oci:{base}/layout"), &by_manifest),
        (format!("oci:{base}/layout:v1"), &by_manifest),
        (format!("oci-archive:{base}/oci.tar:v1"), &by_manifest),
        (format!("docker-archive:{base}/docker.tar"), &by_config),
        (format!("docker-archive:{base}/docker.tar:docker.io/me/web:v1"), &by_config),
    ] {
        let image = bench.store.pull(&reference).await.unwrap();
        assert_eq!(bench.store.image(&reference).await.unwrap(), Some(image.clone()));
        let want = Image {
            id: id.clone(),
            size_bytes: 15,
            entrypoint: vec!["/bin/serve".into()],
            cmd: vec!["--all".into()],
            env: vec![
                ("A".into(), "1".into()),
                ("B".into(), "x=y".into()),
                ("C".into(), String::new()),
            ],
            working_dir: "/srv".into(),
            user: "web:ops".into(),
            stop_signal: Some(3),
        };
        assert_eq!(image, want, "{reference}");
        let root = bench.store.root(&image.id).await.unwrap();
        assert_eq!(root.user, "web:ops");
        assert_eq!(root.lower.len(), 2);
        assert_eq!(fs::read_to_string(root.lower[0].join("srv/page")).unwrap(), "upper");
        assert_eq!(fs::read_to_string(root.lower[1].join("etc/kept")).unwrap(), "lower");
    }
    assert_eq!(bench.layers().len(), 2, "each layer once, however it came");
}

#[tokio::test]
async fn an_image_is_on_the_node_only_after_a_pull_and_also_after_a_restart() {
    // ErrImageNeverPull and IfNotPresent rest on this (CST-1).
    let bench = Bench::new();
    let (mut made, path) = (two_layers(), bench.path("a.tar"));
    made.archive(&path, &["v1"]);
    let reference = format!("oci-archive:{}", path.display());
    assert_eq!(bench.store.image(&reference).await.unwrap(), None);
    assert_eq!(bench.store.image("oci:/nowhere").await.unwrap(), None);
    assert_eq!(bench.store.image("127.0.0.1:1/app").await.unwrap(), None);
    let first = bench.store.pull(&reference).await.unwrap();
    let Bench { dir, store } = bench;
    drop(store);
    fs::create_dir_all(dir.path().join("images/layers/.building-x-1/fs")).unwrap();
    let bench = Bench { store: open(&dir, &BTreeSet::new()), dir };
    assert_eq!(bench.store.image(&reference).await.unwrap(), Some(first.clone()));
    assert_eq!(bench.layers().len(), 2, "what was cut off is gone");
    // Another image in the same place is not on the node; the old one is, when the file is gone.
    made = Made::new(&[tar(&[("new", file("new"))])], &json!({}));
    made.archive(&path, &["v1"]);
    assert_eq!(bench.store.image(&reference).await.unwrap(), None);
    fs::remove_file(&path).unwrap();
    assert_eq!(bench.store.image(&reference).await.unwrap(), Some(first.clone()));
    // Superseded and unused it goes; a container keeps it.
    made.archive(&path, &["v1"]);
    bench.store.pull(&reference).await.unwrap();
    assert_eq!(bench.layers().len(), 3);
    let Bench { dir, store } = bench;
    drop(store);
    let store = open(&dir, &BTreeSet::from([first.id.clone()]));
    store.root(&first.id).await.unwrap();
    drop(store);
    let bench = Bench { store: open(&dir, &BTreeSet::new()), dir };
    bench.store.root(&first.id).await.unwrap_err();
    assert_eq!(bench.layers().len(), 1);
}

#[tokio::test]
async fn content_that_is_not_what_its_name_says_is_never_kept() {
    let bench = Bench::new();
    let good = Made::new(&[tar(&[("a", file("content"))])], &run());
    let reference = |name: &str| format!("oci:{}", bench.path(name).display());
    let spoil = |name: &str, digest: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let dir = bench.path(name);
        good.layout(&dir, &[]);
        let path = dir.join("blobs").join(digest.replace(':', "/"));
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    let flip = |bytes: &mut Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    };
    for (name, digest) in
        [("manifest", &good.manifest), ("config", &good.config), ("layer", &good.layers[0])]
    {
        spoil(name, digest, &flip);
        let error = bench.refused(&reference(name)).await;
        assert!(error.contains(digest.as_str()) && error.contains("its digest is"), "{error}");
    }
    spoil("short", &good.layers[0], &|bytes| bytes.truncate(bytes.len() - 1));
    let error = bench.refused(&reference("short")).await;
    assert!(error.contains("bytes instead of"), "{error}");
    // Another valid layer under its name.
    spoil("other", &good.layers[0], &|bytes| {
        let mut evil = gzip(&tar(&[("evil", file("x"))]));
        evil.resize(bytes.len(), 0);
        *bytes = evil;
    });
    let error = bench.refused(&reference("other")).await;
    assert!(error.contains(good.layers[0].as_str()), "{error}");
    // A diff id that is not the layer's.
    let layer = tar(&[("a", file("b"))]);
    let wrong = digest(b"other");
    let config = json!({"config": {}, "rootfs": {"diff_ids": [wrong]}});
    Made::with_config(std::slice::from_ref(&layer), &[gzip(&layer)], &config)
        .layout(&bench.path("diff"), &[]);
    let error = bench.refused(&reference("diff")).await;
    assert!(error.contains(&wrong) && error.contains(&digest(&layer)), "{error}");
    let config = json!({"config": {}, "rootfs": {"diff_ids": []}});
    Made::with_config(std::slice::from_ref(&layer), &[gzip(&layer)], &config)
        .layout(&bench.path("count"), &[]);
    assert!(bench.refused(&reference("count")).await.contains("configuration knows 0"));
    // A hostile layer says what is wrong with it, and of which layer.
    let mut hostile = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..7].copy_from_slice(b"../evil");
    header.set_mode(0);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    hostile.append(&header, &b""[..]).unwrap();
    let hostile = hostile.into_inner().unwrap();
    let made = Made::new(&[hostile], &json!({}));
    made.layout(&bench.path("hostile"), &[]);
    let error = bench.refused(&reference("hostile")).await;
    assert!(error.contains("leads out") && error.contains(&made.layers[0]), "{error}");
    assert_eq!(bench.layers(), Vec::<String>::new(), "nothing is kept");
}

#[tokio::test]
async fn layers_are_unpacked_however_they_are_packed() {
    let bench = Bench::new();
    let layer = tar(&[("a", file("content"))]);
    let zstd = |bytes: &[u8]| {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(bytes, level)
    };
    let (left, right) = layer.split_at(700);
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&layer)].concat();
    for (name, packed) in [
        ("plain", layer.clone()),
        ("gzip", gzip(&layer)),
        ("members", [gzip(left), gzip(right)].concat()),
        ("zstd", zstd(&layer)),
        ("frames", [zstd(left), zstd(right)].concat()),
        ("skippable", skipped),
    ] {
        fs::remove_dir_all(bench.path("images/layers")).unwrap();
        fs::create_dir(bench.path("images/layers")).unwrap();
        let made = Made::packed(std::slice::from_ref(&layer), &[packed], &json!({}));
        made.layout(&bench.path(name), &[]);
        let reference = format!("oci:{}", bench.path(name).display());
        let image = bench.store.pull(&reference).await.unwrap();
        let root = bench.lower(&image).await;
        assert_eq!(fs::read_to_string(root[0].join("a")).unwrap(), "content", "{name}");
    }
    let made =
        Made::packed(std::slice::from_ref(&layer), &[b"BZh9 and so on".to_vec()], &json!({}));
    made.layout(&bench.path("bzip2"), &[]);
    let reference = format!("oci:{}", bench.path("bzip2").display());
    fs::remove_dir_all(bench.path("images/layers")).unwrap();
    fs::create_dir(bench.path("images/layers")).unwrap();
    assert!(bench.refused(&reference).await.contains("tar archive"));
}

#[tokio::test]
async fn an_image_is_chosen_by_its_name() {
    let bench = Bench::new();
    let mut made = two_layers();
    made.archive(&bench.path("two.tar"), &["v1", "example.com/web:v2"]);
    made.docker(&bench.path("docker.tar"), &["me/web:v1"]);
    made.manifest = made.index();
    made.layout(&bench.path("index"), &["v1"]);
    let base = bench.dir.path().display();
    for name in ["v1", "example.com/web:v2"] {
        bench.store.pull(&format!("oci-archive:{base}/two.tar:{name}")).await.unwrap();
    }
    let image = bench.store.pull(&format!("oci:{base}/index:v1")).await.unwrap();
    assert!(image.id.ends_with(&made.manifest), "{}", image.id);
    fs::write(bench.path("junk"), "junk").unwrap();
    for (reference, why) in [
        (format!("oci-archive:{base}/two.tar"), "several images; name one of: v1, example"),
        (format!("oci-archive:{base}/two.tar:v9"), "no image \"v9\", only: v1"),
        (format!("docker-archive:{base}/docker.tar:other:v1"), "only: me/web:v1"),
        (format!("docker-archive:{base}/two.tar"), "no file manifest.json"),
        (format!("oci-archive:{base}/docker.tar"), "no file index.json"),
        (format!("oci-archive:{base}/junk"), "not a tar archive"),
        (format!("oci-archive:{base}/nothing"), "No such file"),
        (format!("oci-archive:{base}"), "is not a file"),
        (format!("oci:{base}/nothing"), "index.json: No such file"),
    ] {
        let error = bench.refused(&reference).await;
        assert!(error.contains(why), "{reference}: {error}");
    }
}

#[tokio::test]
async fn a_root_always_has_a_directory_and_none_that_is_hidden() {
    let bench = Bench::new();
    let below = tar(&[("below", file("x"))]);
    let hides = tar(&[(".wh..wh..opq", file("")), ("own", file("x"))]);
    let top = tar(&[("top", file("x"))]);
    let base = bench.dir.path().display();
    Made::new(&[below, hides, top], &json!({})).layout(&bench.path("opaque"), &[]);
    let image = bench.store.pull(&format!("oci:{base}/opaque")).await.unwrap();
    let lower = bench.lower(&image).await;
    assert_eq!(lower.len(), 2, "an overlay would show what is below");
    assert!(lower[0].join("top").exists() && lower[1].join("own").exists());
    Made::new(&[], &json!(null)).layout(&bench.path("none"), &[]);
    let image = bench.store.pull(&format!("oci:{base}/none")).await.unwrap();
    assert_eq!(bench.lower(&image).await, [bench.path("images/empty")]);
    let missing = bench.store.root("trireme.local/image@sha256:00").await.unwrap_err();
    assert!(matches!(missing, RuntimeError::NotFound { .. }));
}

/// How a registry behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Open,
    /// Asks for a token.
    Token,
    /// Sends something else under a layer's name.
    Lies,
    /// Ends in the middle of a layer.
    Breaks,
    /// Fails.
    Ill,
}

struct Served {
    made: Made,
    manner: Manner,
    address: String,
    asked: Mutex<Vec<String>>,
}

/// A registry of one image, `app/web:v1`.
async fn registry(made: Made, manner: Manner) -> (Arc<Served>, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = Arc::new(Served { made, manner, address, asked: Mutex::default() });
    let router = Router::new().fallback(serve).with_state(Arc::clone(&served));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (served, tasks)
}

async fn serve(State(served): State<Arc<Served>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    served.asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    let answer = |status, body: Vec<u8>| {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response
    };
    if path == "/token" {
        let scope = request.uri().query().unwrap_or_default();
        assert!(scope.contains("repository%3Aapp%2Fweb%3Apull"), "{scope}");
        return answer(StatusCode::OK, br#"{"token": "secret"}"#.to_vec());
    }
    let token = request.headers().get("authorization").and_then(|v| v.to_str().ok());
    if served.manner == Manner::Token && token != Some("Bearer secret") {
        let mut response = answer(StatusCode::UNAUTHORIZED, Vec::new());
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"test\"", served.address);
        response.headers_mut().insert("www-authenticate", realm.parse().unwrap());
        return response;
    }
    if path == "/v2/" {
        return answer(StatusCode::OK, b"{}".to_vec());
    }
    if served.manner == Manner::Ill {
        return answer(StatusCode::SERVICE_UNAVAILABLE, b"on holiday".to_vec());
    }
    let unknown = |code: &str| {
        let body = json!({"errors": [{"code": code, "message": "there is no such thing"}]});
        answer(StatusCode::NOT_FOUND, body.to_string().into_bytes())
    };
    let made = &served.made;
    if let Some(name) = path.strip_prefix("/v2/app/web/manifests/") {
        let name = if name == "v1" { &made.manifest } else { name };
        return match made.blobs.get(name) {
            Some(bytes) => {
                let mut response = answer(StatusCode::OK, bytes.clone());
                response.headers_mut().insert("docker-content-digest", name.parse().unwrap());
                response
            }
            None => unknown("MANIFEST_UNKNOWN"),
        };
    }
    let name = path.strip_prefix("/v2/app/web/blobs/").unwrap_or_default();
    match made.blobs.get(name) {
        Some(bytes) if made.layers.iter().any(|l| l == name) => match served.manner {
            Manner::Lies => answer(StatusCode::OK, gzip(&tar(&[("evil", file("x"))]))),
            Manner::Breaks => {
                let half = bytes::Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
                let cut = async {
                    // The half is sent first.
                    tokio::task::yield_now().await;
                    Err(std::io::Error::other("cut"))
                };
                let pieces = futures::stream::once(async { Ok(half) });
                let pieces = pieces.chain(futures::stream::once(cut));
                let mut response = Response::new(Body::from_stream(pieces));
                response.headers_mut().insert("content-length", bytes.len().into());
                response
            }
            Manner::Open | Manner::Token | Manner::Ill => answer(StatusCode::OK, bytes.clone()),
        },
        Some(bytes) => answer(StatusCode::OK, bytes.clone()),
        None => unknown("BLOB_UNKNOWN"),
    }
}

#[tokio::test]
async fn a_registry_is_asked_for_what_is_missing_and_once() {
    // CST-7; imagePullPolicy rests on `image` never asking.
    for manner in [Manner::Open, Manner::Token] {
        let bench = Bench::new();
        let mut made = two_layers();
        made.manifest = made.index();
        let (served, _tasks) = registry(made.clone(), manner).await;
        let reference = format!("{}/app/web:v1", served.address);
        assert_eq!(bench.store.image(&reference).await.unwrap(), None);
        let asked = || served.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(asked(), Vec::<String>::new());
        let (one, two) = tokio::join!(bench.store.pull(&reference), bench.store.pull(&reference));
        let image = one.unwrap();
        assert_eq!(two.unwrap(), image);
        let by_digest = format!("{}/app/web@{}", served.address, made.manifest);
        assert_eq!(image.id, by_digest);
        for layer in &made.layers {
            let asked = asked().iter().filter(|path| path.ends_with(layer.as_str())).count();
            assert_eq!(asked, 1, "two pulls at once do the work once");
        }
        let before = asked().len();
        assert_eq!(bench.store.image(&reference).await.unwrap(), Some(image.clone()));
        assert_eq!(bench.store.image(&by_digest).await.unwrap(), Some(image.clone()));
        assert_eq!(asked().len(), before, "nothing is asked for what is here");
        assert_eq!(bench.store.pull(&by_digest).await.unwrap(), image);
        let lower = bench.lower(&image).await;
        assert_eq!(fs::read_to_string(lower[0].join("srv/page")).unwrap(), "upper");
    }
}

#[tokio::test]
async fn what_a_registry_does_wrong_is_said() {
    // CST-1: ErrImagePull with a text that helps.
    let big = [tar(&[("a", kit::Content::File(vec![7; 300_000], 0o644))])];
    let made = Made::packed(&big, &big, &json!({}));
    for (manner, name, why) in [
        (Manner::Open, "app/web:v2", vec!["MANIFEST_UNKNOWN: there is no such thing"]),
        (Manner::Open, "other/web:v1", vec!["BLOB_UNKNOWN"]),
        (Manner::Lies, "app/web:v1", vec!["fetch sha256:", "Invalid digest"]),
        (Manner::Breaks, "app/web:v1", vec!["fetch sha256:", "after 15"]),
        (Manner::Ill, "app/web:v1", vec!["HTTP 503: on holiday"]),
    ] {
        let bench = Bench::new();
        let (served, _tasks) = registry(made.clone(), manner).await;
        let error = bench.refused(&format!("{}/{name}", served.address)).await;
        for why in why {
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(bench.layers(), Vec::<String>::new());
    }
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let error = Bench::new().refused(&format!("{address}/app")).await;
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_is_not_the_wanted_one_is_refused() {
    let bench = Bench::new();
    let mut made = two_layers();
    let other = Made::new(&[tar(&[("evil", file("x"))])], &json!({}));
    let evil = other.blobs[&other.manifest].clone();
    made.blobs.insert(made.manifest.clone(), evil);
    let (served, _tasks) = registry(made.clone(), Manner::Open).await;
    for name in ["app/web:v1".to_owned(), format!("app/web@{}", made.manifest)] {
        let error = bench.refused(&format!("{}/{name}", served.address)).await;
        assert!(error.contains(&made.manifest), "{error}");
    }
}

#[test]
fn a_path_is_safe_as_a_name() {
    // What a reference says never becomes part of a path.
    assert!(digest::Digest::try_from("sha256:../../x".to_owned()).is_err());
    assert!(!Path::new(digest::Digest::of(b"").hex()).is_absolute());
}
