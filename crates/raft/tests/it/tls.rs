//! Peers that prove who they are.

use crate::cluster::{Cluster, put};
use pki::{
    Authority, Moment, Profile, Usage,
    tls::{Clients, Pem, Shown},
};
use raft::PeerTls;
use std::{collections::BTreeMap, time::Duration};
use store::{Origin, Store as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The year 2020, and long enough for any clock that runs this.
const THEN: Moment = Moment(1_577_836_800);
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// One authority, and a certificate for each member of a group on loopback.
fn certificates(members: u64) -> BTreeMap<u64, PeerTls> {
    let authority = Authority::create("peers", THEN, CENTURY).unwrap();
    let authorities = || Pem::Bytes(authority.pem().as_bytes().to_vec());
    (1..=members)
        .map(|id| {
            let profile = Profile {
                usage: Usage::PEER,
                ..Profile::server(format!("member-{id}"), vec!["127.0.0.1".to_owned()])
            };
            let pem = authority.issue(&profile, THEN, CENTURY).unwrap().into_bytes();
            let shown = || Shown { chain: Pem::Bytes(pem.clone()), key: Pem::Bytes(pem.clone()) };
            let clients =
                Clients::Required { authorities: authorities(), organizations: Vec::new() };
            let client = pki::tls::client(authorities(), Some(shown())).unwrap();
            (id, PeerTls { client, server: pki::tls::server(shown(), clients).unwrap() })
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
