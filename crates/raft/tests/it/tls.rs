//! Peers that prove who they are.

use crate::cluster::{Cluster, put};
use raft::PeerTls;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::{collections::BTreeMap, time::Duration};
use store::{Origin, Store as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One authority, and a certificate for each member of a group on loopback.
fn certificates(members: u64) -> BTreeMap<u64, PeerTls> {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authorities = authority.self_signed(&authority_key).unwrap().pem().into_bytes();
    let issuer = Issuer::new(authority, authority_key);
    (1..=members)
        .map(|id| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap().pem().into_bytes();
            let key = key.serialize_pem().into_bytes();
            (id, PeerTls { certificate, key, authorities: authorities.clone() })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_with_certificates_of_one_authority_form_a_group() {
    let cluster = Cluster::with(3, 10_000, certificates(3)).await;
    let (leader, _) = cluster.leader().await;
    for at in cluster.ids() {
        cluster.put(at, &format!("at-{at}"), "x").await.unwrap();
    }
    cluster.settle().await;

    // Who speaks plaintext is not answered.
    let address = cluster.config(leader).members[&leader].peer_urls[0].replace("https://", "");
    let mut stranger = TcpStream::connect(address).await.unwrap();
    stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stranger.read_to_end(&mut answer).await;
    // At most a TLS alert.
    assert!(answer.first().is_none_or(|first| *first == 0x15), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_authority_has_no_vote() {
    let mut tls = certificates(3);
    tls.insert(3, certificates(3).remove(&3).unwrap());
    let mut cluster = Cluster::with(3, 10_000, tls).await;
    let (leader, _) = cluster.leader().await;
    assert_ne!(leader, 3);
    cluster.put(leader, "k", "v").await.unwrap();
    // Two of three are a quorum, one and a stranger are not.
    cluster.kill(if leader == 1 { 2 } else { 1 }).await;
    let alone = cluster.proposal(Origin::Client, put("k", "w"));
    let store = cluster.store(leader);
    store.propose(alone, Duration::from_millis(1500)).await.unwrap_err();
}
