//! Every call of the crate `etcd-client`.

use crate::{
    group::{Group, SOON},
    normal::{Mask, normal},
    table::Seen,
};
use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error,
    GetOptions, LeaderKey, LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions,
    MemberAddOptions, MemberAddResponse, Permission, ProclaimOptions, PutOptions, ResignOptions,
    SortOrder, SortTarget, Txn, TxnOp, WatchFilterType, WatchOptions, WatchStream,
};
use std::{fmt::Debug, time::Duration};
use tokio::time::{sleep, timeout};

/// What a call has answered.
fn said<T: Debug>(answer: Result<T, Error>) -> String {
    told(answer.map(|answer| format!("{answer:?}")))
}

fn told(answer: Result<String, Error>) -> String {
    match answer {
        Ok(text) => text,
        Err(Error::GRpcStatus(status)) => {
            format!("Error: {:?} {}", status.code(), status.message())
        }
        Err(error) => format!("Error: {error}"),
    }
}

const NUMBERS: Mask = Mask { numbers: true, order: false };
const EXACT: Mask = Mask { numbers: false, order: false };

struct Calls {
    endpoints: Vec<String>,
    seen: Vec<Seen>,
}

impl Calls {
    async fn row(
        &mut self,
        name: &str,
        mask: Mask,
        note: &'static str,
        calls: impl Future<Output = Vec<String>>,
    ) {
        let lines = timeout(SOON, calls).await.unwrap_or_else(|_| vec!["not done".to_owned()]);
        let text = normal(&lines.join("\n"), &self.endpoints, mask);
        self.seen.push(Seen { row: name.to_owned(), note, text });
    }
}

/// Makes every call.
pub(crate) async fn run(group: &Group) -> Vec<Seen> {
    let mut calls = Calls { endpoints: group.addresses(), seen: Vec::new() };
    let mut client = Client::connect(group.endpoints(), None).await.unwrap();
    keys(&mut calls, &mut client).await;
    settled(&group.endpoints()).await;
    watches(&mut calls, &mut client).await;
    leases(&mut calls, &mut client).await;
    users(&mut calls, group, &mut client).await;
    recipes(&mut calls, &mut client).await;
    // Last: alarms stop what writes.
    cluster(&mut calls, group, &mut client).await;
    calls.seen
}

async fn keys(calls: &mut Calls, client: &mut Client) {
    let c = &mut *client;
    calls
        .row("put", EXACT, "", async {
            vec![
                said(c.put("q/a", "1", None).await),
                said(c.put("q/b", "1", None).await),
                said(c.put("q/a", "2", Some(PutOptions::new().with_prev_key())).await),
                said(c.put("q/a", "", Some(PutOptions::new().with_ignore_value())).await),
                said(c.put("q/a", "x", Some(PutOptions::new().with_ignore_value())).await),
                said(c.put("q/a", "x", Some(PutOptions::new().with_lease(99))).await),
                said(c.put("", "x", None).await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("get", EXACT, "", async {
            vec![
                said(c.get("q/a", None).await),
                said(c.get("q/", Some(GetOptions::new().with_prefix())).await),
                said(c.get("q/", Some(GetOptions::new().with_prefix().with_limit(1))).await),
                said(c.get("q/", Some(GetOptions::new().with_prefix().with_count_only())).await),
                said(
                    c.get(
                        "q/",
                        Some(
                            GetOptions::new()
                                .with_prefix()
                                .with_keys_only()
                                .with_sort(SortTarget::Mod, SortOrder::Descend),
                        ),
                    )
                    .await,
                ),
                said(c.get("", Some(GetOptions::new().with_all_keys().with_serializable())).await),
                said(
                    c.get("q/", Some(GetOptions::new().with_from_key().with_min_mod_revision(4)))
                        .await,
                ),
                said(
                    c.get("q/", Some(GetOptions::new().with_prefix().with_max_create_revision(2)))
                        .await,
                ),
                said(c.get("q/a", Some(GetOptions::new().with_revision(2))).await),
                said(c.get("q/a", Some(GetOptions::new().with_revision(999))).await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("txn", EXACT, "", async {
            let then = Txn::new()
                .when(vec![
                    Compare::version("q/a", CompareOp::Greater, 0),
                    Compare::value("q/b", CompareOp::Equal, "1"),
                    Compare::create_revision("q/", CompareOp::Less, 100).with_prefix(),
                    Compare::lease("q/a", CompareOp::NotEqual, 5),
                ])
                .and_then(vec![
                    TxnOp::put("q/t", "1", None),
                    TxnOp::get("q/t", None),
                    TxnOp::txn(Txn::new().and_then(vec![TxnOp::delete(
                        "q/t",
                        Some(DeleteOptions::new().with_prev_key()),
                    )])),
                ])
                .or_else(vec![TxnOp::get("q/b", None)]);
            let other = Txn::new()
                .when(vec![Compare::mod_revision("q/a", CompareOp::Equal, 1)])
                .and_then(vec![TxnOp::put("q/t", "1", None)])
                .or_else(vec![TxnOp::get("q/a", None)]);
            let twice = Txn::new().and_then(vec![
                TxnOp::put("q/t", "1", None),
                TxnOp::delete("q/", Some(DeleteOptions::new().with_prefix())),
            ]);
            let many = Txn::new().and_then(
                (0..129).map(|n| TxnOp::put(format!("q/{n}"), "", None)).collect::<Vec<_>>(),
            );
            vec![
                said(c.txn(then).await),
                said(c.txn(other).await),
                said(c.txn(twice).await),
                said(c.txn(many).await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("delete", EXACT, "", async {
            vec![
                said(c.put("q/x/1", "1", None).await),
                said(c.delete("q/x/1", Some(DeleteOptions::new().with_prev_key())).await),
                said(c.delete("q/x/1", None).await),
                said(c.put("q/x/2", "1", None).await),
                said(c.delete("q/x/", Some(DeleteOptions::new().with_prefix())).await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("compact", EXACT, "", async {
            vec![
                said(c.compact(3, None).await),
                said(c.compact(3, None).await),
                said(c.compact(999, None).await),
                said(c.compact(4, Some(CompactionOptions::new().with_physical())).await),
                said(c.get("q/a", Some(GetOptions::new().with_revision(3))).await),
            ]
        })
        .await;
    let c = client.kv_client();
    calls
        .row("get_stream", EXACT, "3.7's call, which 3.4 does not have", async {
            let mut c = c;
            let mut lines = Vec::new();
            match c.get_stream("q/", Some(GetOptions::new().with_prefix())).await {
                Ok(mut stream) => {
                    while let Ok(Some(part)) = stream.message().await {
                        lines.push(format!("{part:?}"));
                    }
                }
                Err(error) => lines.push(said::<()>(Err(error))),
            }
            lines
        })
        .await;
    let c = &mut *client;
    calls
        .row("limits", EXACT, "what is larger than any message is refused with OutOfRange", async {
            vec![
                said(c.put("q/large", vec![b'x'; 1_500_000], None).await),
                said(c.put("q/large", vec![b'x'; 1_600_000], None).await),
                said(c.put("q/large", vec![b'x'; 3_000_000], None).await)
                    .chars()
                    .take(40)
                    .collect(),
                said(c.delete("q/large", None).await),
            ]
        })
        .await;
}

async fn next(stream: &mut WatchStream) -> String {
    said(stream.message().await)
}

/// Returns when every member has applied what was written before: a watch is told the revision of the
/// member that it happens to reach.
async fn settled(endpoints: &[String]) {
    for endpoint in endpoints {
        let mut one = Client::connect([endpoint], None).await.unwrap();
        one.get("settled", None).await.unwrap();
    }
}

async fn watches(calls: &mut Calls, client: &mut Client) {
    let c = &mut *client;
    calls
        .row("watch", EXACT, "", async {
            let mut lines = Vec::new();
            let mut stream = c
                .watch("v/", Some(WatchOptions::new().with_prefix().with_prev_key()))
                .await
                .unwrap();
            lines.push(next(&mut stream).await);
            for value in ["1", "2"] {
                c.put("v/a", value, None).await.unwrap();
                lines.push(next(&mut stream).await);
            }
            c.delete("v/a", None).await.unwrap();
            lines.push(next(&mut stream).await);
            stream.request_progress().await.unwrap();
            lines.push(next(&mut stream).await);
            stream
                .watch(
                    "v/",
                    Some(
                        WatchOptions::new()
                            .with_prefix()
                            .with_start_revision(5)
                            .with_filters([WatchFilterType::NoDelete])
                            .with_watch_id(7),
                    ),
                )
                .await
                .unwrap();
            lines.push(next(&mut stream).await);
            // How many of an answer is each system's own choice.
            let mut events = Vec::new();
            while events.len() < 2 {
                let answer = stream.message().await.unwrap().unwrap();
                events.extend(answer.events().iter().map(|event| format!("{event:?}")));
            }
            lines.extend(events);
            stream.watch("v/", Some(WatchOptions::new().with_watch_id(7))).await.unwrap();
            lines.push(next(&mut stream).await);
            stream.cancel(7).await.unwrap();
            lines.push(next(&mut stream).await);
            stream.watch("v/", Some(WatchOptions::new().with_start_revision(2))).await.unwrap();
            lines.push(next(&mut stream).await);
            let gone = stream.message().await.unwrap().unwrap();
            lines.push(format!("{} {}", gone.canceled(), gone.compact_revision()));
            stream.watch("v/b", Some(WatchOptions::new().with_range("v/a"))).await.unwrap();
            lines.push(next(&mut stream).await);
            lines
        })
        .await;
    let c = &mut *client;
    calls
        .row("watch with fragments", EXACT, "", async {
            let mut lines = Vec::new();
            let steps: Vec<_> =
                (0..3).map(|n| TxnOp::put(format!("f/{n}"), vec![b'x'; 490_000], None)).collect();
            let mut stream = c
                .watch("f/", Some(WatchOptions::new().with_prefix().with_fragment()))
                .await
                .unwrap();
            lines.push(next(&mut stream).await);
            lines.push(said(c.txn(Txn::new().and_then(steps)).await));
            let mut events = 0;
            while events < 3 {
                let part = stream.message().await.unwrap().unwrap();
                events += part.events().len();
                lines.push(format!("{} events", part.events().len()));
            }
            lines
        })
        .await;
}

async fn leases(calls: &mut Calls, client: &mut Client) {
    let c = &mut *client;
    calls
        .row("lease_grant", EXACT, "", async {
            vec![
                said(c.lease_grant(60, None).await),
                said(c.lease_grant(60, Some(LeaseGrantOptions::new().with_id(77))).await),
                said(c.lease_grant(60, Some(LeaseGrantOptions::new().with_id(77))).await),
                said(c.lease_grant(1, Some(LeaseGrantOptions::new().with_id(78))).await),
                said(c.lease_grant(-1, Some(LeaseGrantOptions::new().with_id(79))).await),
                said(c.lease_grant(i64::MAX, None).await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("lease_keep_alive", EXACT, "", async {
            let mut lines = Vec::new();
            for id in [77, 1234] {
                let (mut keeper, mut stream) = match c.lease_keep_alive(id).await {
                    Ok(kept) => kept,
                    Err(error) => {
                        lines.push(said::<()>(Err(error)));
                        continue;
                    }
                };
                lines.push(said(keeper.keep_alive().await));
                lines.push(said(stream.message().await));
            }
            lines
        })
        .await;
    let c = &mut *client;
    calls
        .row("lease_time_to_live, leases", Mask { numbers: true, order: true }, "", async {
            vec![
                said(c.put("q/leased", "1", Some(PutOptions::new().with_lease(77))).await),
                said(
                    c.lease_time_to_live(77, Some(LeaseTimeToLiveOptions::new().with_keys())).await,
                ),
                said(c.lease_time_to_live(1234, None).await),
                c.leases().await.map(|l| l.leases().len() >= 2).unwrap_or(false).to_string(),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("lease_revoke", EXACT, "", async {
            vec![
                said(c.lease_revoke(77).await),
                said(c.lease_revoke(77).await),
                said(c.get("q/leased", None).await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("a lease that runs out", EXACT, "", async {
            let mut stream = c.watch("q/short", None).await.unwrap();
            let mut lines = vec![next(&mut stream).await];
            lines.push(said(c.lease_grant(2, Some(LeaseGrantOptions::new().with_id(80))).await));
            lines.push(said(c.put("q/short", "1", Some(PutOptions::new().with_lease(80))).await));
            lines.push(next(&mut stream).await);
            lines.push(next(&mut stream).await);
            lines
        })
        .await;
}

/// What of a key means something: not the lease at its end.
fn place(leader: Option<&LeaderKey>) -> String {
    leader.map_or("none".to_owned(), |leader| {
        format!("{:?}", leader.name_str().map(str::to_owned).unwrap_or_default())
    })
}

async fn recipes(calls: &mut Calls, client: &mut Client) {
    let c = &mut *client;
    calls
        .row("lock, unlock", EXACT, "", async {
            let mut lines = Vec::new();
            let lease = c.lease_grant(60, None).await.unwrap().id();
            let locked = c.lock("x", Some(LockOptions::new().with_lease(lease))).await;
            let key = locked.as_ref().map(|l| l.key().to_vec()).unwrap_or_default();
            lines.push(told(locked.map(|l| String::from_utf8_lossy(l.key()).into_owned())));
            lines.push(said(c.unlock(key).await));
            lines.push(said(c.get("x", Some(GetOptions::new().with_prefix())).await));
            lines.push(told(
                c.lock("x", Some(LockOptions::new().with_lease(1234)))
                    .await
                    .map(|l| format!("{}", l.key().len())),
            ));
            lines
        })
        .await;
    let c = &mut *client;
    calls
        .row("campaign, proclaim, leader, observe, resign", EXACT, "", async {
            let mut lines = Vec::new();
            lines.push(said(c.leader("el").await));
            let lease = c.lease_grant(60, None).await.unwrap().id();
            let leader = match c.campaign("el", "one", lease).await {
                Ok(mut campaign) => campaign.take_leader().unwrap(),
                Err(error) => return vec![said::<()>(Err(error))],
            };
            lines.push(place(Some(&leader)));
            let value =
                |l: Option<&etcd_client::KeyValue>| l.map(|kv| kv.value_str().unwrap().to_owned());
            lines.push(told(c.leader("el").await.map(|l| format!("{:?}", value(l.kv())))));
            let mut observed = c.observe("el").await.unwrap();
            lines.push(told(
                observed.message().await.map(|l| format!("{:?}", value(l.unwrap().kv()))),
            ));
            lines.push(said(
                c.proclaim("two", Some(ProclaimOptions::new().with_leader(leader.clone())))
                    .await
                    .map(|_| ()),
            ));
            lines.push(told(
                observed.message().await.map(|l| format!("{:?}", value(l.unwrap().kv()))),
            ));
            lines.push(said(
                c.resign(Some(ResignOptions::new().with_leader(leader.clone()))).await.map(|_| ()),
            ));
            lines.push(said(
                c.proclaim("three", Some(ProclaimOptions::new().with_leader(leader)))
                    .await
                    .map(|_| ()),
            ));
            lines
        })
        .await;
}

/// etcd changes no members in the first seconds.
async fn add(
    client: &mut Client,
    url: &str,
    options: Option<MemberAddOptions>,
) -> Result<MemberAddResponse, Error> {
    loop {
        match client.member_add([url], options.clone()).await {
            Err(Error::GRpcStatus(status)) if status.message().contains("unhealthy cluster") => {
                sleep(Duration::from_millis(200)).await;
            }
            answer => return answer,
        }
    }
}

async fn cluster(calls: &mut Calls, group: &Group, client: &mut Client) {
    let c = &mut *client;
    calls
        .row("member_list, member_add, member_update, member_remove", EXACT, "", async {
            let mut lines = vec![];
            let before = c.member_list().await.unwrap();
            let mut names: Vec<String> = before
                .members()
                .iter()
                .map(|m| format!("{} {:?} {:?}", m.name(), m.peer_urls().len(), m.client_urls()))
                .collect();
            names.sort();
            lines.extend(names);
            let added = add(c, "http://127.0.0.1:1", None).await;
            let id =
                added.as_ref().ok().and_then(|a| a.member()).map_or(1, etcd_client::Member::id);
            lines.push(told(added.map(|a| {
                format!(
                    "{:?} {}",
                    a.member().map(|m| m.peer_urls().to_vec()),
                    a.member_list().len()
                )
            })));
            lines.push(told(
                c.member_update(id, ["http://127.0.0.1:2".to_owned()])
                    .await
                    .map(|a| a.members().len().to_string()),
            ));
            lines.push(told(c.member_remove(id).await.map(|a| a.members().len().to_string())));
            lines.push(said(c.member_remove(1234).await));
            lines
        })
        .await;
    let c = &mut *client;
    calls
        .row("member_add as a learner, member_promote", EXACT, "", async {
            let added =
                add(c, "http://127.0.0.1:3", Some(MemberAddOptions::new().with_is_learner())).await;
            let id =
                added.as_ref().ok().and_then(|a| a.member()).map_or(1, etcd_client::Member::id);
            let mut lines = vec![told(
                added.map(|a| format!("{:?}", a.member().map(etcd_client::Member::is_learner))),
            )];
            lines.push(said(c.member_promote(id).await));
            lines.push(told(c.member_remove(id).await.map(|a| a.members().len().to_string())));
            lines
        })
        .await;
    let c = &mut *client;
    calls
        .row("status", NUMBERS, "", async {
            let status = c.status().await.unwrap();
            vec![
                format!(
                    "{} {} {} {}",
                    status.version(),
                    status.leader() > 0,
                    status.raft_index() > 0,
                    status.db_size() > 0
                ),
                format!("{} {}", status.raft_term() > 0, status.is_learner()),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row(
            "alarm",
            EXACT,
            "answers have a header, and leases can be granted without space",
            async {
                vec![
                    said(c.alarm(AlarmAction::Get, AlarmType::None, None).await),
                    said(c.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await),
                    said(c.put("q/full", "1", None).await),
                    said(c.delete("q/full", None).await),
                    said(c.lease_grant(60, None).await).chars().take(60).collect(),
                    said(c.alarm(AlarmAction::Get, AlarmType::None, None).await),
                    said(c.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await),
                    said(c.put("q/full", "1", None).await),
                ]
            },
        )
        .await;
    let c = &mut *client;
    calls.row("defragment", EXACT, "", async { vec![said(c.defragment().await)] }).await;
    let c = &mut *client;
    calls
        .row("hash, hash_kv", NUMBERS, "", async {
            vec![
                told(c.hash().await.map(|h| (h.hash() > 0).to_string())),
                said(c.hash_kv(0).await),
                said(c.hash_kv(999).await),
                said(c.hash_kv(2).await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("snapshot", EXACT, "", async {
            let mut stream = match c.snapshot().await {
                Ok(stream) => stream,
                Err(error) => return vec![said::<()>(Err(error))],
            };
            let (mut bytes, mut left) = (0, u64::MAX);
            loop {
                match stream.message().await {
                    Ok(Some(piece)) => {
                        (bytes, left) = (bytes + piece.blob().len(), piece.remaining_bytes())
                    }
                    Ok(None) => break vec![format!("{} left {left}", bytes > 0)],
                    Err(error) => break vec![said::<()>(Err(error))],
                }
            }
        })
        .await;
    calls
        .row("move_leader", EXACT, "", async {
            let mut lines = Vec::new();
            for endpoint in group.endpoints() {
                let mut one = Client::connect([endpoint], None).await.unwrap();
                let status = one.status().await.unwrap();
                let me = status.header().unwrap().member_id();
                if status.leader() == me {
                    let members = one.member_list().await.unwrap();
                    let other = members.members().iter().find(|m| m.id() != me).unwrap().id();
                    lines.push(said(one.move_leader(1234).await));
                    lines.push(said(one.move_leader(other).await.map(|_| ())));
                    lines.push(said(one.move_leader(other).await.map(|_| ())));
                    break;
                }
            }
            lines
        })
        .await;
}

async fn users(calls: &mut Calls, group: &Group, client: &mut Client) {
    let c = &mut *client;
    calls
        .row("role_add, role_get, role_list, role_delete", EXACT, "", async {
            vec![
                said(c.role_add("rr").await),
                said(c.role_add("rr").await),
                said(c.role_get("rr").await),
                said(c.role_get("none").await),
                said(c.role_add("gone").await),
                said(c.role_list().await),
                said(c.role_delete("gone").await),
                said(c.role_delete("gone").await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("role_grant_permission, role_revoke_permission", EXACT, "", async {
            vec![
                said(
                    c.role_grant_permission("rr", Permission::read_write("p/").with_prefix()).await,
                ),
                said(c.role_grant_permission("rr", Permission::read("one")).await),
                said(c.role_get("rr").await),
                said(c.role_revoke_permission("rr", "one", None).await),
                said(c.role_revoke_permission("rr", "one", None).await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("user_add, user_get, user_list, user_delete", EXACT, "", async {
            vec![
                said(c.user_add("ru", "pw", None).await),
                said(c.user_add("ru", "pw", None).await),
                said(c.user_add("root", "pw", None).await),
                said(c.user_get("ru").await),
                said(c.user_get("none").await),
                said(c.user_list().await),
                said(c.user_add("gone", "pw", None).await),
                said(c.user_delete("gone").await),
                said(c.user_delete("gone").await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("user_grant_role, user_revoke_role, user_change_password", EXACT, "", async {
            vec![
                said(c.user_grant_role("ru", "rr").await),
                said(c.user_grant_role("ru", "none").await),
                said(c.user_revoke_role("ru", "none").await),
                said(c.user_get("ru").await),
                said(c.user_change_password("ru", "pw2").await),
                said(c.role_add("root").await),
                said(c.user_grant_role("root", "root").await),
            ]
        })
        .await;
    let c = &mut *client;
    calls
        .row("auth_enable, with_user, auth_disable", EXACT, "", async {
            let mut lines = vec![said(c.auth_enable().await)];
            if lines[0].starts_with("Error") {
                return lines;
            }
            lines.push(said(c.get("p/1", None).await));
            for (name, password) in [("ru", "pw2"), ("ru", "wrong"), ("root", "pw")] {
                let options = etcd_client::ConnectOptions::new().with_user(name, password);
                match Client::connect(group.endpoints(), Some(options)).await {
                    Err(error) => lines.push(said::<()>(Err(error))),
                    Ok(mut c) => {
                        lines.push(said(c.put("p/1", "1", None).await));
                        lines.push(said(c.get("q/a", None).await));
                        lines.push(said(
                            c.get("p/", Some(GetOptions::new().with_from_key())).await.map(|_| ()),
                        ));
                        lines.push(said(c.user_list().await));
                        lines.push(said(c.auth_disable().await));
                    }
                }
            }
            lines.push(said(c.get("p/1", None).await));
            lines
        })
        .await;
}
