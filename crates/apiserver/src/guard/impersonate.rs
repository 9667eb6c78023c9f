//! Acting in somebody else's name, for who may.

use access::{
    ANONYMOUS, AUTHENTICATED, Attributes, Resource, UNAUTHENTICATED, service_account,
    service_account_groups,
};
use api::{caller::Identity, status::Status};
use axum::http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Whom a request wants to act as, and what its sender must be allowed for that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Impersonation {
    pub(super) who: Identity,
    pub(super) needs: Vec<Attributes>,
}

fn texts(headers: &HeaderMap, name: &str) -> Result<Vec<String>, Status> {
    let values = headers.get_all(name).iter().map(|value| {
        let text = value.to_str().map(str::to_owned);
        text.map_err(|_| Status::bad_request(format!("header {name} is not text")))
    });
    Ok(values.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|text| !text.is_empty()).collect())
}

fn need(group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> Attributes {
    Attributes::resource(
        "impersonate",
        Resource {
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            on_node: String::new(),
        },
    )
}

/// Reads the headers, and takes them away: they are for this server.
///
/// # Errors
/// 400 for groups and the like without a user.
pub(super) fn take(headers: &mut HeaderMap) -> Result<Option<Impersonation>, Status> {
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            matches!(name, USER | GROUP | UID) || name.starts_with(EXTRA)
        })
        .cloned()
        .collect();
    if own.is_empty() {
        return Ok(None);
    }
    let user = texts(headers, USER)?.into_iter().next().unwrap_or_default();
    let uid = texts(headers, UID)?.into_iter().next().unwrap_or_default();
    let mut who = Identity { user, uid, groups: texts(headers, GROUP)?, ..Identity::default() };
    for name in &own {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
            who.extra.entry(key).or_default().extend(texts(headers, name.as_str())?);
        }
    }
    for name in &own {
        headers.remove(name);
    }
    if who.user.is_empty() {
        return Err(Status::bad_request("requested impersonation without impersonating a user"));
    }
    let mut needs = Vec::new();
    match service_account(&who.user) {
        Some((namespace, name)) => needs.push(need("", "serviceaccounts", "", namespace, name)),
        None => needs.push(need("", "users", "", "", &who.user)),
    }
    needs.extend(who.groups.iter().map(|group| need("", "groups", "", "", group)));
    if !who.uid.is_empty() {
        needs.push(need("authentication.k8s.io", "uids", "", "", &who.uid));
    }
    for (key, values) in &who.extra {
        let of = |value: &String| need("authentication.k8s.io", "userextras", key, "", value);
        needs.extend(values.iter().map(of));
    }
    if let (Some((namespace, _)), true) = (service_account(&who.user), who.groups.is_empty()) {
        who.groups = service_account_groups(namespace);
    }
    let named = |group: &str| who.groups.iter().any(|own| own == group);
    if who.user == ANONYMOUS {
        if !named(UNAUTHENTICATED) {
            who.groups.push(UNAUTHENTICATED.to_owned());
        }
    } else if !named(AUTHENTICATED) && !named(UNAUTHENTICATED) {
        who.groups.push(AUTHENTICATED.to_owned());
    }
    Ok(Some(Impersonation { who, needs }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use access::Target;

    fn taken(pairs: &[(&str, &str)]) -> Result<Option<Impersonation>, Status> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let taken = take(&mut headers);
        assert!(taken.is_err() || headers.keys().all(|name| !name.as_str().starts_with("imp")));
        taken
    }

    #[test]
    fn each_part_of_who_is_impersonated_must_be_allowed() {
        let found = taken(&[
            ("Impersonate-User", "u"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", "b"),
            ("Impersonate-Uid", "7"),
            ("Impersonate-Extra-Acme.com%2FScope", "all"),
            ("Accept", "*/*"),
        ]);
        let Impersonation { who, needs } = found.unwrap().unwrap();
        assert_eq!(who.groups, ["a", "b", AUTHENTICATED]);
        assert_eq!(who.extra["acme.com/scope"], ["all"]);
        let needs = needs.iter().map(|need| match &need.target {
            Target::Resource(of) => format!("{} {} {}", of.group, of.combined(), of.name),
            Target::Path(path) => path.clone(),
        });
        assert_eq!(
            needs.collect::<Vec<_>>(),
            [
                " users u",
                " groups a",
                " groups b",
                "authentication.k8s.io uids 7",
                "authentication.k8s.io userextras/acme.com/scope all",
            ]
        );
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let found = taken(&[("Impersonate-User", "system:serviceaccount:ns:robot")]).unwrap();
        let groups = found.unwrap().who.groups;
        assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
        let anonymous = taken(&[("Impersonate-User", ANONYMOUS)]).unwrap().unwrap();
        assert_eq!(anonymous.who.groups, [UNAUTHENTICATED]);
        assert_eq!(taken(&[]), Ok(None));
        assert_eq!(taken(&[("Impersonate-Group", "system:masters")]).unwrap_err().code, 400);
    }
}
