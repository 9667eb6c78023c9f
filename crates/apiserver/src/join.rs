//! Machines that come to the cluster: nodes get their first certificates, replicas what replicas share.

use crate::{
    admin::{CHANGE_DEADLINE, member_error},
    certificates::Pki,
    proto::cluster::{
        JoinNodeRequest, JoinNodeResponse, JoinReplicaRequest, JoinReplicaResponse, JoinedMember,
        join_service_server::JoinService,
    },
    registry::Registry,
};
use api::{bootstrap, caller::Identity, kinds, names};
use pki::{Authority, Moment, Profile};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};
use store::{Cluster, MemberChange, MemberInfo};
use tonic::{Request, Response, Status};

const ADMINISTRATORS: &str = "system:masters";

pub(crate) struct Joins {
    pub(crate) registry: Registry,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) pki: Pki,
    /// URLs of replicas as configured.
    pub(crate) endpoints: Vec<String>,
    /// First two bytes of every Service's address.
    pub(crate) service_prefix: [u8; 2],
}

impl Joins {
    fn authority(&self) -> Result<&Authority, Status> {
        self.pki.authority.as_deref().ok_or_else(|| {
            Status::failed_precondition(
                "this replica does not have the authority's key: certificates are somebody else's task",
            )
        })
    }

    /// The node's name must be free.
    async fn check_node(&self, name: &str) -> Result<(), Status> {
        if let Some(wrong) = names::subdomain(name).first() {
            return Err(Status::invalid_argument(format!(
                "{name:?} is no name for a node: {wrong}"
            )));
        }
        let nodes = kinds::by_alias("nodes").expect("Node is served");
        match self.registry.get(nodes, "", name, "").await {
            Ok(_) => Err(Status::already_exists(format!(
                "there is a node {name:?}; choose another --name, or delete that one first"
            ))),
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(Status::unavailable(status.message)),
        }
    }

    /// A certificate that is valid for a replica's host would let a node take its place.
    fn check_hosts(&self, hosts: &[String], members: &[MemberInfo]) -> Result<(), Status> {
        let of_members = members.iter().flat_map(|m| m.peer_urls.iter().chain([&m.api_url]));
        let mut replicas: Vec<String> =
            of_members.chain(&self.endpoints).filter_map(|url| host_of(url)).collect();
        replicas.extend(members.iter().map(|member| member.name.clone()));
        check_hosts(hosts, &replicas, self.service_prefix)
    }
}

/// Addresses and plain names only, none of which a replica answers to, however it is written: a wildcard, or
/// other letters, would be valid for more than they look like.
fn check_hosts(
    hosts: &[String],
    replicas: &[String],
    service_prefix: [u8; 2],
) -> Result<(), Status> {
    for host in hosts {
        let taken = match host.parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                let same =
                    |other: &String| other.parse().is_ok_and(|o: IpAddr| o.to_canonical() == ip);
                let of_service =
                    matches!(ip, IpAddr::V4(ip) if ip.octets().starts_with(&service_prefix));
                let own = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
                of_service || own.contains(&ip) || replicas.iter().any(same)
            }
            Err(_) => {
                if let Some(wrong) = names::subdomain(host).first() {
                    let text =
                        format!("{host:?} is neither an address nor the name of a host: {wrong}");
                    return Err(Status::invalid_argument(text));
                }
                host == "localhost"
                    || host.split('.').next() == Some("kubernetes")
                    || replicas.iter().any(|other| other.eq_ignore_ascii_case(host))
            }
        };
        if taken {
            return Err(Status::invalid_argument(format!(
                "{host:?} is where a replica is; a node needs an address of its own"
            )));
        }
    }
    Ok(())
}

/// Who asks, as was found out before.
fn caller<T>(request: &Request<T>) -> Result<Identity, Status> {
    let found = request.extensions().get::<Identity>().cloned();
    found.ok_or_else(|| Status::unauthenticated("a bootstrap token, ID.SECRET, is needed"))
}

fn require(caller: &Identity, group: &str, what: &str) -> Result<(), Status> {
    if caller.groups.iter().any(|of| of == group || of == ADMINISTRATORS) {
        return Ok(());
    }
    let user = &caller.user;
    Err(Status::permission_denied(format!("user {user:?} is not of {group:?}, and may not {what}")))
}

fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn invalid(error: pki::PkiError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Where its API is, of each that has started.
pub(crate) fn api_urls(members: &[MemberInfo]) -> Vec<String> {
    let urls = members.iter().map(|member| member.api_url.clone());
    urls.filter(|url| !url.is_empty()).collect()
}

/// What becomes of a replica that wants to come.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    /// It was added before, and has not started.
    Made(u64),
    /// It is to be added.
    ToMake,
}

/// # Errors
/// Its name or its place is taken.
fn room(members: &[MemberInfo], name: &str, peer_url: &str) -> Result<Room, Status> {
    let here = members.iter().find(|m| m.peer_urls.iter().any(|url| url == peer_url));
    if let Some(member) = members.iter().find(|m| m.name == name) {
        return Err(Status::already_exists(format!(
            "there is a replica {name:?}, with the id {}; choose another --name",
            member.id
        )));
    }
    match here {
        None => Ok(Room::ToMake),
        Some(member) if member.name.is_empty() => Ok(Room::Made(member.id)),
        Some(member) => Err(Status::already_exists(format!(
            "{:?}, with the id {}, is the replica at {peer_url}",
            member.name, member.id
        ))),
    }
}

#[tonic::async_trait]
impl JoinService for Joins {
    async fn join_node(
        &self,
        request: Request<JoinNodeRequest>,
    ) -> Result<Response<JoinNodeResponse>, Status> {
        let caller = caller(&request)?;
        require(&caller, bootstrap::GROUP, "bring a node")?;
        let JoinNodeRequest { name, hosts, client_request, serving_request } = request.into_inner();
        let authority = self.authority()?;
        self.check_node(&name).await?;
        let members = self.cluster.members();
        self.check_hosts(&hosts, &members)?;
        let now = Moment(self.registry.now());
        let user = pki::names::node_user(&name);
        let client = Profile::client(user.as_str(), &[pki::names::NODES]);
        let serving =
            Profile { organizations: client.organizations.clone(), ..Profile::server(user, hosts) };
        let sign = |profile: &Profile, asked: &str| {
            let key = pki::Key::of_request(asked).map_err(invalid)?;
            authority.sign(profile, &key, now, pki::LIFETIME).map_err(invalid)
        };
        let client_certificate = sign(&client, &client_request)?;
        let serving_certificate = sign(&serving, &serving_request)?;
        tracing::info!(by = caller.user, node = name, "a node joins");
        let endpoints = match api_urls(&members) {
            none if none.is_empty() => self.endpoints.clone(),
            urls => urls,
        };
        Ok(Response::new(JoinNodeResponse {
            client_certificate,
            serving_certificate,
            authority: authority.pem().to_owned(),
            endpoints,
        }))
    }

    async fn join_replica(
        &self,
        request: Request<JoinReplicaRequest>,
    ) -> Result<Response<JoinReplicaResponse>, Status> {
        let caller = caller(&request)?;
        require(&caller, bootstrap::REPLICAS, "bring a replica")?;
        let JoinReplicaRequest { name, peer_url } = request.into_inner();
        if let Some(wrong) = names::subdomain(&name).first() {
            return Err(Status::invalid_argument(format!("{name:?} is no name: {wrong}")));
        }
        if !peer_url.starts_with("https://") || host_of(&peer_url).is_none() {
            return Err(Status::invalid_argument(format!(
                "{peer_url:?} must read https://HOST:PORT"
            )));
        }
        let authority = self.authority()?;
        let file = self.pki.service_account_key_file.as_ref().ok_or_else(|| {
            Status::failed_precondition("this replica has no key for service accounts")
        })?;
        let key = pki::read(file).map_err(|error| Status::internal(error.to_string()))?;
        self.registry.linearize().await.map_err(|status| Status::unavailable(status.message))?;
        let mut members = self.cluster.members();
        let id = match room(&members, &name, &peer_url)? {
            Room::Made(id) => id,
            Room::ToMake => {
                let change =
                    MemberChange::Add { peer_urls: vec![peer_url.clone()], learner: false };
                let changed = self.cluster.change_members(change, CHANGE_DEADLINE).await;
                members = changed.map_err(member_error)?;
                let new = members.iter().find(|m| m.peer_urls.contains(&peer_url));
                new.map(|m| m.id).ok_or_else(|| Status::internal("the new replica is not there"))?
            }
        };
        tracing::info!(by = caller.user, replica = name, id, "a replica joins");
        let members = members.into_iter().map(|m| JoinedMember {
            id: m.id,
            name: m.name,
            peer_url: m.peer_urls.into_iter().next().unwrap_or_default(),
            api_url: m.api_url,
        });
        Ok(Response::new(JoinReplicaResponse {
            id,
            members: members.collect(),
            authority: authority.pem().to_owned(),
            authority_key: authority.key_pem().to_owned(),
            service_account_key: String::from_utf8_lossy(&key).into_owned(),
            shared_configuration: self.pki.shared_configuration.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, url: &str) -> MemberInfo {
        MemberInfo {
            id,
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
            ..MemberInfo::default()
        }
    }

    #[test]
    fn a_node_s_hosts_are_no_replica_s_however_they_are_written() {
        let replicas = ["10.0.0.1", "fd00::1", "one.example.org", "replica-1"].map(str::to_owned);
        for (host, want) in [
            ("10.0.0.2", None),
            ("node-1", None),
            ("node-1.example.org", None),
            ("10.0.0.1", Some("where a replica is")),
            ("::ffff:10.0.0.1", Some("where a replica is")),
            ("fd00:0:0::1", Some("where a replica is")),
            ("10.96.0.1", Some("where a replica is")),
            ("127.0.0.1", Some("where a replica is")),
            ("::1", Some("where a replica is")),
            ("localhost", Some("where a replica is")),
            ("replica-1", Some("where a replica is")),
            ("one.example.org", Some("where a replica is")),
            ("kubernetes.default.svc", Some("where a replica is")),
            ("One.example.org", Some("neither an address nor the name of a host")),
            ("*.example.org", Some("neither an address nor the name of a host")),
            ("", Some("neither an address nor the name of a host")),
        ] {
            let found = check_hosts(&[host.to_owned()], &replicas, [10, 96]);
            match (found, want) {
                (Ok(()), None) => {}
                (Err(status), Some(want)) => assert!(status.message().contains(want), "{status}"),
                (found, want) => panic!("{host}: {found:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn a_replica_has_a_name_and_a_place_of_its_own() {
        let members = [member(1, "a", "https://a:1"), member(7, "", "https://b:1")];
        for (name, url, want) in [
            ("c", "https://c:1", Ok(Room::ToMake)),
            ("b", "https://b:1", Ok(Room::Made(7))),
            ("a", "https://c:1", Err("there is a replica \"a\", with the id 1")),
            ("a", "https://b:1", Err("there is a replica \"a\", with the id 1")),
            ("c", "https://a:1", Err("\"a\", with the id 1, is the replica at https://a:1")),
        ] {
            match (room(&members, name, url), want) {
                (Ok(found), Ok(want)) => assert_eq!(found, want, "{name} {url}"),
                (Err(status), Err(want)) => {
                    assert!(status.message().contains(want), "{status}");
                }
                (found, want) => panic!("{name} {url}: {found:?}, not {want:?}"),
            }
        }
    }
}
