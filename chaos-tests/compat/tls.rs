//! Clients by TLS: whom a member lets in, and that what is revoked stays out of every listener.

use crate::group::{Group, System, all_installed, free_ports};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use std::path::{Path, PathBuf};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Authority {
    fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), issuer.pem()).unwrap();
        Self { issuer, dir: dir.to_owned() }
    }

    fn issue(&self, name: &str, serial: u64) {
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(name), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}-key")), key.serialize_pem()).unwrap();
    }

    fn revoke(&self, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2999, 1, 1),
            crl_number: SerialNumber::from(serials.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).unwrap();
        std::fs::write(self.file("revoked"), list.pem().unwrap()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }
}

/// Whether `etcdctl` with this certificate gets an answer at a port.
async fn let_in(group: &Group, authority: &Authority, name: Option<&str>, port: u16) -> bool {
    let mut command = group.etcdctl();
    command.env("ETCDCTL_ENDPOINTS", format!("https://127.0.0.1:{port}"));
    command.args(["--command-timeout=2s", "put", "k", "v", "--cacert"]);
    command.arg(authority.file("authority"));
    if let Some(name) = name {
        command.arg("--cert").arg(authority.file(name));
        command.arg("--key").arg(authority.file(&format!("{name}-key")));
    }
    command.output().await.unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_client_is_let_in_nowhere_and_files_are_read_again() {
    if !all_installed(&["etcdctl"]) {
        return;
    }
    let mut group = Group::prepare(System::Trireme, 1);
    let authority = Authority::new(group.dir(), "authority");
    let stranger = Authority::new(group.dir(), "stranger");
    for (name, serial) in [("member", 1), ("alice", 2), ("mallory", 3)] {
        authority.issue(name, serial);
    }
    stranger.issue("eve", 2);
    authority.revoke(&[3]);
    let more = free_ports(1)[0];
    let path = |name: &str| authority.file(name).display().to_string();
    let flags = [
        ("cert-file", path("member")),
        ("key-file", path("member-key")),
        ("trusted-ca-file", path("authority")),
        ("client-crl-file", path("revoked")),
        ("listen-client-http-urls", format!("https://127.0.0.1:{more}")),
    ];
    let mut flags: Vec<String> = flags.iter().map(|(f, value)| format!("--{f}={value}")).collect();
    flags.push("--client-cert-auth".to_owned());
    group.spawn(0, "https", &flags);
    group.ready(0).await;
    let client = group.members[0].client;
    // Every listener holds clients against the same list.
    for port in [client, more] {
        for (name, want) in
            [(Some("alice"), true), (Some("mallory"), false), (Some("eve"), false), (None, false)]
        {
            assert_eq!(let_in(&group, &authority, name, port).await, want, "{name:?} at {port}");
        }
    }
    // A new list and a new certificate count at the next handshake.
    authority.revoke(&[2, 3]);
    assert!(!let_in(&group, &authority, Some("alice"), client).await);
    authority.issue("member", 9);
    authority.issue("bob", 10);
    assert!(let_in(&group, &authority, Some("bob"), more).await, "{}", group.log(0));
    assert!(group.log(0).contains("certificates read again"), "{}", group.log(0));
    assert!(group.end(0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_prove_who_they_are_and_a_certificate_of_its_own_serves_clients() {
    if !all_installed(&["etcdctl"]) {
        return;
    }
    let mut group = Group::prepare(System::Trireme, 3);
    let authority = Authority::new(group.dir(), "authority");
    authority.issue("member", 1);
    let path = |name: &str| authority.file(name).display().to_string();
    let tls = [
        format!("--peer-cert-file={}", path("member")),
        format!("--peer-key-file={}", path("member-key")),
        format!("--peer-trusted-ca-file={}", path("authority")),
        "--auto-tls".to_owned(),
    ];
    for i in 0..3 {
        let mut flags: Vec<String> = group.flags(i, "https");
        for flag in &mut flags {
            // Peers' URLs, which come in three flags.
            for member in &group.members {
                let peer = format!("127.0.0.1:{}", member.peer);
                *flag = flag.replace(&format!("http://{peer}"), &format!("https://{peer}"));
            }
        }
        flags.extend(tls.iter().cloned());
        group.spawn_with(i, &flags, &[]);
    }
    for i in 0..3 {
        group.ready(i).await;
    }
    for i in 0..3 {
        let mut command = group.etcdctl();
        let endpoint = format!("https://127.0.0.1:{}", group.members[i].client);
        command.env("ETCDCTL_ENDPOINTS", endpoint).args(["put", "k", "v", "--cacert"]);
        command.arg(group.data_dir(i).join("client-cert.pem"));
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}\n{}", group.log(i));
    }
}
