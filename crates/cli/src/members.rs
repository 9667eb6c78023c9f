//! `cluster members`, and how they come and go.

use crate::{failure::Failure, get::unreadable, target::Target};
use client::admin::{self, Member, MemberChange, Replaced};
use std::time::Duration;

pub(crate) async fn list(target: &Target, json: bool) -> Result<(), Failure> {
    let members = admin::members(&target.endpoints, &MemberChange::List).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&members).map_err(unreadable)?);
        return Ok(());
    }
    print(&members);
    Ok(())
}

fn print(members: &[Member]) {
    println!("{:<20} {:<20} {:<8} {:<28} ETCD", "ID", "NAME", "STATE", "PEER");
    for member in members {
        let state = match (member.learner, member.name.is_empty()) {
            (true, _) => "learner",
            (false, true) => "new",
            (false, false) => "voter",
        };
        let (peers, clients) = (member.peer_urls.join(","), member.client_urls.join(","));
        println!("{:<20} {:<20} {state:<8} {peers:<28} {clients}", member.id, member.name);
    }
}

/// What the new replica's configuration must say.
fn tell(id: u64, peer_url: &str) {
    println!("member {id} is to be started now, with an empty data directory and");
    println!("  id = {id}");
    println!("  join = true");
    println!("  and in [[members]] itself, at {peer_url}, beside the others");
}

pub(crate) async fn add(
    target: &Target,
    peer_urls: Vec<String>,
    learner: bool,
) -> Result<(), Failure> {
    let change = MemberChange::Add { peer_urls: peer_urls.clone(), learner };
    let members = admin::members(&target.endpoints, &change).await?;
    if let Some(new) = members.iter().find(|m| m.peer_urls == peer_urls) {
        tell(new.id, &peer_urls.join(", "));
    }
    Ok(())
}

pub(crate) async fn remove(target: &Target, id: u64) -> Result<(), Failure> {
    let left = admin::members(&target.endpoints, &MemberChange::Remove(id)).await?;
    println!("member {id} was removed; {} are left", left.len());
    Ok(())
}

pub(crate) async fn promote(target: &Target, id: u64) -> Result<(), Failure> {
    admin::members(&target.endpoints, &MemberChange::Promote(id)).await?;
    println!("member {id} votes");
    Ok(())
}

pub(crate) async fn replace(
    target: &Target,
    old: u64,
    peer_url: &str,
    deadline: Duration,
) -> Result<(), Failure> {
    let told = |step| match step {
        Replaced::Added(id) => tell(id, peer_url),
        Replaced::Started(id) => println!("member {id} has started"),
        Replaced::Promoted(id) => println!("member {id} has caught up and votes"),
        Replaced::Removed(id) => println!("member {id} was removed"),
    };
    Ok(admin::replace_member(&target.endpoints, old, peer_url, deadline, told).await?)
}
