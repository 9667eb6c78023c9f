//! Certificates of a whole cluster: what they open, and that they renew themselves while it works.

use crate::cluster::{Cluster, SOON, eventually, program, with_cluster, with_options};
use api::core::ConfigMap;
use client::{
    Client, ClientError, WatchEvent, WatchOptions,
    endpoints::Endpoints,
    transport::{Access, Tls},
};
use futures::StreamExt as _;
use http::Method;
use pki::tls::{Pem, Shown};
use serde_json::{Value, json};
use server::{
    config::{ReplicaConfig, read},
    workload::Workload,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Of every certificate, in the test of renewals: renewed after two thirds.
const LIFETIME: Duration = Duration::from_secs(12);
/// Renewals to be seen of each.
const RENEWALS: usize = 3;

/// Who trusts the cluster's authority, and shows what is in this file.
fn access(cluster: &Cluster, shown: Option<&Path>) -> Access {
    let authority = Pem::File(cluster.dir().join("pki/ca.crt"));
    let tls = pki::tls::client(authority, shown.map(Shown::in_file)).unwrap();
    Access { tls: Some(Tls::new(tls)), token: None }
}

/// What is answered to a plain request; empty if the connection is refused.
async fn asked(access: &Access, url: &str, path: &str) -> String {
    let Ok(mut stream) = access.dial(url, SOON).await else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    let _ = timeout(SOON, talk).await.expect("an answer, or none");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether anything but a TLS alert comes back to plaintext.
async fn speaks_plaintext(url: &str) -> bool {
    let address = url.trim_start_matches("https://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: it\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an end");
    answer.first().is_some_and(|first| *first != 0x15)
}

async fn kubelet_url(cluster: &Cluster) -> String {
    let node: Value = cluster.client.call(Method::GET, "/api/v1/nodes/node-1", None).await.unwrap();
    let port = &node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"];
    format!("https://127.0.0.1:{port}")
}

#[test]
fn every_port_takes_those_for_whom_it_is() {
    with_cluster(1, async |cluster| {
        let dir = cluster.dir();
        let config: ReplicaConfig = read(&dir.join("replica-1/config.toml")).unwrap();
        let api = cluster.endpoints.urls[0].clone();
        let etcd = format!("https://{}", config.etcd.as_ref().unwrap().listen);
        let raft = format!("https://{}", config.raft.listen);
        let kubelet = kubelet_url(cluster).await;
        for url in [&api, &etcd, &raft, &kubelet] {
            assert!(!speaks_plaintext(url).await, "{url}");
        }
        let (admin, node, peer) = (
            dir.join("pki/admin.pem"),
            dir.join("node-1/pki/node-1.pem"),
            dir.join("replica-1/pki/peer.pem"),
        );
        let files: [(&str, Option<&PathBuf>); 4] = [
            ("nobody", None),
            ("admin", Some(&admin)),
            ("node", Some(&node)),
            ("peer", Some(&peer)),
        ];
        // Whoever is let in gets some answer; the raft port knows no such request, and answers as HTTP/2 does.
        for (port, url, path, lets_in) in [
            ("api", &api, "/healthz", vec!["nobody", "admin", "node", "peer"]),
            ("etcd", &etcd, "/health", vec!["admin"]),
            ("kubelet", &kubelet, "/healthz", vec!["peer"]),
        ] {
            for (who, file) in files {
                let answer = asked(&access(cluster, file.map(PathBuf::as_path)), url, path).await;
                let let_in = answer.starts_with("HTTP/1.1 200");
                assert_eq!(let_in, lets_in.contains(&who), "{who} at {port}: {answer:?}");
            }
        }
        for (who, file) in files {
            let access = access(cluster, file.map(PathBuf::as_path));
            // A peer is greeted, in HTTP/2; others are told off.
            let mut stream = access.dial(&raft, SOON).await.unwrap();
            let greeted = timeout(SOON, stream.read_u8()).await.expect("a word");
            assert_eq!(greeted.is_ok(), who == "peer", "{who} at raft");
        }
        kubeconfigs(cluster).await;
        if Path::new("/usr/bin/etcdctl").exists() {
            etcdctl(cluster, &etcd).await;
        } else {
            eprintln!("skipped: no etcdctl is installed");
        }
        listed(cluster).await;
    });
}

/// Our own command line by each of the ways to name a cluster.
async fn kubeconfigs(cluster: &Cluster) {
    let text = |path: &str| cluster.dir().join(path).to_str().unwrap().to_owned();
    let (config, authority, admin, url) =
        (text("kubeconfig"), text("pki/ca.crt"), text("pki/admin.pem"), &cluster.endpoints.urls[1]);
    let get = ["get", "namespaces", "default", "-o", "name"];
    for (name, more) in [
        ("kubeconfig", vec!["--kubeconfig", &config]),
        ("variable", vec!["--kubeconfig-variable", &config]),
        ("another server", vec!["--kubeconfig", &config, "--server", url]),
        (
            "files",
            vec![
                "--server",
                url,
                "--certificate-authority",
                &authority,
                "--client-certificate",
                &admin,
                "--client-key",
                &admin,
            ],
        ),
    ] {
        let said = program(&[&get[..], &more].concat()).await;
        assert_eq!((said.code, said.out.trim()), (0, "namespace/default"), "{name}: {said:?}");
    }
    let said = program(&[&get[..], &["--server", url, "--data-dir", "/nowhere"]].concat()).await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("https needs the authority"), "{said:?}");
}

/// As `cluster etcd-env` says.
async fn etcdctl(cluster: &Cluster, etcd: &str) {
    let said =
        program(&["cluster", "etcd-env", "--data-dir", cluster.dir().to_str().unwrap()]).await;
    assert!(said.code == 0 && said.out.contains("ETCDCTL_CACERT="), "{said:?}");
    let script =
        format!("{}etcdctl put there safely && etcdctl get there --print-value-only", said.out);
    let run = |script: String| async move {
        let output =
            tokio::process::Command::new("sh").args(["-c", &script]).output().await.unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (out, err) = run(script).await;
    assert_eq!(out, "OK\nsafely\n", "{err}");
    let (out, _) = run(format!(
        "ETCDCTL_API=3 etcdctl --endpoints {etcd} --insecure-skip-tls-verify --command-timeout 3s get there"
    ))
    .await;
    assert_eq!(out, "", "without a certificate");
}

/// What `cluster certs` shows: name by owner, with its hash.
async fn certificates(cluster: &Cluster) -> Result<BTreeMap<(String, String), Value>, String> {
    let said = cluster.cli(&["cluster", "certs", "--json"]).await;
    if said.code != 0 {
        return Err(said.err);
    }
    let rows: Vec<Value> = serde_json::from_str(&said.out).map_err(|error| error.to_string())?;
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok(rows.into_iter().map(|row| ((text(&row, "of"), text(&row, "name")), row)).collect())
}

async fn listed(cluster: &Cluster) {
    let rows = certificates(cluster).await.unwrap();
    let mut expected: BTreeSet<(String, String)> = (1..=3)
        .flat_map(|id| {
            ["authority", "api", "etcd", "raft", "nodes"]
                .map(|name| (format!("replica-{id}"), name.to_owned()))
        })
        .collect();
    expected.extend(["replicas", "api"].map(|name| ("node-1".to_owned(), name.to_owned())));
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for (who, row) in &rows {
        assert_eq!(row["issuer"], "kubernetes", "{who:?}: {row}");
        assert!(row["daysLeft"].as_i64().unwrap() >= 364, "{who:?}: {row}");
        assert_eq!(row["nextRenewal"].is_null(), who.1 == "authority", "{who:?}: {row}");
    }
    let said = cluster.cli(&["cluster", "certs"]).await;
    assert!(said.out.contains("system:node:node-1"), "{said:?}");
}

#[test]
fn certificates_of_seconds_are_renewed_under_open_connections_and_new_ones() {
    let change = |options: &mut server::dev::DevOptions| options.certificate_lifetime = LIFETIME;
    let whole = Duration::from_secs(400);
    with_options(&std::env::temp_dir(), 1, change, whole, async |cluster| {
        let old = cluster.dir().join("old.pem");
        fs::copy(cluster.dir().join("pki/admin.pem"), &old).unwrap();
        let mut watch = cluster
            .client
            .watch::<ConfigMap>(Some("default"), &WatchOptions::default())
            .await
            .unwrap();
        let seen = async {
            // Renewed again and again, each of them.
            let mut hashes: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
            loop {
                cluster.processes().await.renew_admin().unwrap();
                for (who, row) in certificates(cluster).await.unwrap() {
                    assert!(row["error"].is_null(), "{who:?}: {row}");
                    let hash = row["sha256"].as_str().unwrap().to_owned();
                    hashes.entry(who).or_default().insert(hash);
                }
                // An authority stays.
                let renewed = hashes.iter().filter(|(who, _)| who.1 != "authority");
                if renewed.map(|(_, seen)| seen.len()).min().unwrap_or_default() > RENEWALS {
                    assert!(
                        hashes.iter().all(|(who, seen)| who.1 != "authority" || seen.len() == 1)
                    );
                    return;
                }
                sleep(Duration::from_millis(500)).await;
            }
        };
        let writes = async {
            // A new client each time: a connection of its own, with what holds now.
            for n in 0u64.. {
                let map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("n-{n}")},
                });
                let body = Some(map.to_string().into_bytes());
                let client = Client::connect(cluster.endpoints.clone()).unwrap();
                let path = "/api/v1/namespaces/default/configmaps";
                match client.call::<Value>(Method::POST, path, body).await {
                    Ok(_) | Err(ClientError::Unknown { .. }) => {}
                    // On a machine that is busy, leaders change.
                    Err(ClientError::Api(status)) if matches!(status.code, 503 | 504) => {}
                    Err(error) => panic!("{error}"),
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let mut watched = 0u64;
        let watching = async {
            while let Some(event) = watch.next().await {
                match event.unwrap() {
                    WatchEvent::Added(_) => watched += 1,
                    WatchEvent::Bookmark(_) => {}
                    other @ (WatchEvent::Modified(_) | WatchEvent::Deleted(_)) => {
                        panic!("{other:?}")
                    }
                }
            }
            panic!("the watch has ended");
        };
        tokio::select! {
            () = seen => {}
            () = writes => {}
            () = watching => {}
        }
        assert!(watched > 10, "{watched}");
        // What every process has begun with has expired since, and does not open anything.
        let expired = Endpoints::new(cluster.endpoints.urls.clone(), access(cluster, Some(&old)));
        match Client::connect(expired).unwrap().call::<Value>(Method::GET, "/version", None).await {
            Err(ClientError::Unreachable { .. }) => {}
            found => panic!("{found:?}"),
        }
        // Members find each other again, and a node its replica, with what was renewed.
        cluster.processes().await.renew_admin().unwrap();
        let killed = cluster.kill_leader().await;
        cluster.start_replica(killed).await;
        cluster.restart_node("node-1").await;
        cluster.processes().await.renew_admin().unwrap();
        let workload = Workload::start(&cluster.endpoints, 2).unwrap();
        timeout(SOON, workload.more(20)).await.expect("writes");
        drop(workload);
        eventually("the node tells of itself", SOON, async || {
            let found = certificates(cluster).await?;
            let row = found.get(&("node-1".to_owned(), "api".to_owned()));
            row.filter(|row| row["error"].is_null()).map(drop).ok_or(format!("{found:?}"))
        })
        .await;
        // A certificate that somebody has put there is shown from the next handshake on.
        let file = cluster.dir().join("replica-1/pki/server.pem");
        let authority = pki::Authority::load(
            &cluster.dir().join("pki/ca.crt"),
            &cluster.dir().join("pki/ca.key"),
        )
        .unwrap();
        let hosts = vec!["127.0.0.1".to_owned()];
        let profile = pki::Profile::server("by-hand", hosts);
        let day = Duration::from_secs(24 * 3600);
        let pem = authority.issue(&profile, server::clock::moment(), day).unwrap();
        pki::write_secret(&file, pem.as_bytes()).unwrap();
        let found = certificates(cluster).await.unwrap();
        let row = &found[&("replica-1".to_owned(), "api".to_owned())];
        assert_eq!(row["subject"], "by-hand");
        let rows = asked(&access(cluster, None), &cluster.endpoints.urls[0], "/healthz").await;
        assert!(rows.starts_with("HTTP/1.1 200"), "{rows}");
    });
}
