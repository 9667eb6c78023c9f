//! Who a container's program is: names of the image's own files, as numbers.

/// A user with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Supplementary ones, by `/etc/group`.
    pub(super) groups: Vec<u32>,
    /// `/` for one who is not in `/etc/passwd`.
    pub(super) home: String,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        Some(Entry { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

/// Name, number and members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members, ..] = fields[..] else { return None };
        Some((name, gid.parse().ok()?, members))
    })
}

/// Resolves `USER`: empty for root, `user` or `user:group`, each a name or a number.
///
/// # Errors
/// A name that the image's files do not know.
pub(super) fn resolve(asked: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, own_group) = match asked.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (asked, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = entries(passwd).find(|e| e.name == user || Some(e.uid) == number);
    let uid =
        entry.as_ref().map(|e| e.uid).or(number).ok_or_else(|| {
            format!("unable to find user {user}: no matching entries in passwd file")
        })?;
    let home = entry.as_ref().map_or("/", |e| e.home).to_owned();
    let (gid, groups) = match own_group {
        Some(name) => {
            let number = name.parse::<u32>().ok();
            let found = groups(group).find(|(n, gid, _)| *n == name || Some(*gid) == number);
            let gid = found.map(|(_, gid, _)| gid).or(number).ok_or_else(|| {
                format!("unable to find group {name}: no matching entries in group file")
            })?;
            (gid, Vec::new())
        }
        None => {
            let name = entry.as_ref().map(|e| e.name);
            let is_member = |members: &str| members.split(',').any(|m| Some(m) == name);
            let of = groups(group).filter(|(_, _, m)| is_member(m)).map(|(_, gid, _)| gid);
            (entry.as_ref().map_or(0, |e| e.gid), of.collect())
        }
    };
    Ok(Identity { uid, gid, groups, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34:web:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:4:ann,web\nops:x:5:\n";

    #[test]
    fn users_are_found_by_name_and_by_number() {
        // The image's USER, as container users know it.
        for (asked, uid, gid, groups, home) in [
            ("", 0, 0, vec![], "/root"),
            ("web", 33, 34, vec![4], "/srv"),
            ("33", 33, 34, vec![4], "/srv"),
            ("web:ops", 33, 5, vec![], "/srv"),
            ("web:", 33, 34, vec![4], "/srv"),
            ("1000", 1000, 0, vec![], "/"),
            ("1000:1001", 1000, 1001, vec![], "/"),
            (":ops", 0, 5, vec![], "/root"),
        ] {
            let want = Identity { uid, gid, groups, home: home.to_owned() };
            assert_eq!(resolve(asked, PASSWD, GROUP), Ok(want), "{asked}");
        }
        for (asked, what) in [("ann", "user ann"), ("web:none", "group none"), ("-1", "user -1")] {
            let error = resolve(asked, PASSWD, GROUP).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        assert_eq!(resolve("", "", "").unwrap().uid, 0, "an image without the files");
    }
}
