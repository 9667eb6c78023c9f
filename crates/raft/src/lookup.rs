//! Who is in a group, for somebody who is not yet: a member that was added and knows only URLs.

use crate::{
    config::PeerTls,
    connection::{ATTEMPTS, lazy},
    core::Core,
    peer::{Acquaintance, MembersRequest, MembersResponse, peer_service_client::PeerServiceClient},
    types::Member,
};
use std::{collections::BTreeMap, io, time::Duration};
use tokio::time::timeout;

/// The members, as the first at these peer URLs knows them that answers.
///
/// # Errors
/// Nobody answers within `patience` each; what the last one said.
pub async fn look_up(
    urls: &[String],
    tls: Option<&PeerTls>,
    patience: Duration,
) -> io::Result<BTreeMap<u64, Member>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "there is nobody to ask");
    for url in urls {
        let asked = timeout(patience, ask(url, tls, patience)).await;
        match asked.unwrap_or_else(|late| Err(io::Error::other(late))) {
            Ok(members) => return Ok(members),
            Err(error) => last = io::Error::other(format!("{url}: {error}")),
        }
    }
    Err(last)
}

async fn ask(
    url: &str,
    tls: Option<&PeerTls>,
    patience: Duration,
) -> io::Result<BTreeMap<u64, Member>> {
    let channel = lazy(url, tls, patience / ATTEMPTS, |endpoint| endpoint)?;
    let answer = PeerServiceClient::new(channel).members(MembersRequest {}).await;
    let MembersResponse { members } = answer.map_err(io::Error::other)?.into_inner();
    if members.is_empty() {
        return Err(io::Error::other("it knows of no members yet"));
    }
    let member = |found: Acquaintance| {
        let member = Member {
            name: found.name,
            peer_urls: found.peer_urls,
            disk: found.disk,
            ..Member::default()
        };
        (found.id, member)
    };
    Ok(members.into_iter().map(member).collect())
}

impl Core {
    /// What a stranger is told: where the members are, as of what is applied here.
    pub(crate) fn acquaintances(&self) -> MembersResponse {
        let group = self.group.borrow();
        let member = |(id, member): (&u64, &Member)| Acquaintance {
            id: *id,
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            disk: member.disk,
        };
        MembersResponse { members: group.nodes().map(member).collect() }
    }
}
