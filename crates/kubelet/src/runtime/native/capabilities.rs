//! Which of root's powers a container's programs may have.

/// Every capability, at the place of its number.
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Without a word from the Pod: the set that container users are used to.
const DEFAULT: u64 = 0xa804_25fb;

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL")
}

fn bit(name: &str) -> Result<u64, String> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let at = NAMES.iter().position(|known| *known == bare);
    at.map(|at| 1 << at).ok_or_else(|| format!("unknown capability {name:?}"))
}

/// A bit a capability: the default set with `drop` taken from it and `add` put in. `ALL` comes first on
/// either side, so that one by one can be taken from or added to it.
///
/// # Errors
/// Names what is no capability.
pub(super) fn kept(add: &[String], drop: &[String]) -> Result<u64, String> {
    let all = (1 << NAMES.len()) - 1;
    let mut kept = match (add.iter().any(|n| is_all(n)), drop.iter().any(|n| is_all(n))) {
        (_, true) => 0,
        (true, false) => all,
        (false, false) => DEFAULT,
    };
    for name in add.iter().filter(|name| !is_all(name)) {
        kept |= bit(name)?;
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        kept &= !bit(name)?;
    }
    Ok(kept)
}

/// What a process may have, by its `/proc/PID/status`; nothing if that does not say.
pub(super) fn permitted(status: &str) -> u64 {
    let set = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_adds_and_drops() {
        let kept = |add: &[&str], drop: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
            kept(&own(add), &own(drop))
        };
        assert_eq!(kept(&[], &[]), Ok(DEFAULT));
        assert_eq!(kept(&[], &["ALL"]), Ok(0));
        assert_eq!(kept(&["CHOWN", "CAP_NET_ADMIN"], &["all"]), Ok(1 | 1 << 12));
        assert_eq!(kept(&["ALL"], &["SYS_ADMIN"]), Ok(((1 << 41) - 1) & !(1 << 21)));
        assert_eq!(kept(&["net_admin"], &["chown"]), Ok((DEFAULT | 1 << 12) & !1));
        assert_eq!(permitted("CapInh:\t0\nCapPrm:\t00000000000000ff\n"), 0xff);
        assert_eq!(kept(&[], &["FLY"]), Err("unknown capability \"FLY\"".to_owned()));
    }
}
