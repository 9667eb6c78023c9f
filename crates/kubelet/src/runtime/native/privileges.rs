//! Whether this process may do what containers need.

/// Without one of these no container starts. Name, number, what for.
const NEEDED: &[(&str, u32, &str)] = &[
    ("CAP_SYS_ADMIN", 21, "namespaces and mounts"),
    ("CAP_NET_ADMIN", 12, "the Pods' network"),
    ("CAP_CHOWN", 0, "the owners of an image's files"),
    ("CAP_MKNOD", 27, "files that an image takes away"),
    ("CAP_SETUID", 7, "the users of containers"),
    ("CAP_SETGID", 6, "the groups of containers"),
];

/// What is missing and how to get it, by this process' `/proc/self/status`; `None` if nothing is.
pub(super) fn missing(uid: u32, status: &str) -> Option<String> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let lacks = |bit: u32| effective.is_some_and(|set| set >> bit & 1 == 0);
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(_, bit, _)| lacks(*bit))
        .map(|(name, _, what)| format!("{name} for {what}"))
        .collect();
    if uid != 0 {
        return Some(format!(
            "containers need root, and this is user {uid}: start it as root, such as with sudo, \
             or choose runtime = \"fake\" for a node that only pretends"
        ));
    }
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "this is root, but without {}: start it outside of a container, or in one that is \
         privileged",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let all = "Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        // What a container is usually given.
        let few = "CapEff:\t00000000a80425fb\n";
        assert_eq!(missing(0, all), None);
        assert_eq!(missing(0, ""), None, "a host that does not say");
        let text = missing(0, few).unwrap();
        assert!(text.contains("CAP_SYS_ADMIN for namespaces") && text.contains("CAP_NET_ADMIN"));
        assert!(!text.contains("CAP_CHOWN") && text.contains("privileged"), "{text}");
        assert!(missing(1000, few).unwrap().contains("user 1000"));
    }
}
