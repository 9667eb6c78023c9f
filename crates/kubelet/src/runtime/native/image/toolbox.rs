//! The built-in image: made on the spot, so that nothing is downloaded for a first Pod.

use super::{digest::Digest, reference::Reference};
use crate::runtime::{Image, RuntimeError};
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

fn failed(step: &str) -> impl FnOnce(io::Error) -> RuntimeError + '_ {
    move |source| RuntimeError::Io { step: step.to_owned(), source }
}

/// Unpacks the image below `dir`, unless it is there: this very binary under the names of its applets,
/// with the libraries it is linked to, and beside them what a static busybox of the host has more.
pub(super) fn make(dir: &Path) -> Result<Image, RuntimeError> {
    let own = fs::canonicalize("/proc/self/exe").map_err(failed("find this program"))?;
    let mut bytes = fs::read(&own).map_err(failed("read the toolbox's program"))?;
    let busybox = static_program(Path::new("/bin/busybox"));
    let own_len = bytes.len();
    bytes.extend(busybox.iter().flat_map(|(_, bytes)| bytes));
    let digest = Digest::of(&bytes);
    let rootfs = dir.join(digest.hex());
    if !rootfs.exists() {
        let building = dir.join(format!(".building-{}-{}", digest.hex(), std::process::id()));
        let _ = fs::remove_dir_all(&building);
        let (own, more) = bytes.split_at(own_len);
        let busybox = busybox.as_ref().map(|(path, _)| (path.as_path(), more));
        build(&building, own, busybox).map_err(failed("build the toolbox image"))?;
        if let Err(error) = fs::rename(&building, &rootfs) {
            // Another start was first.
            let _ = fs::remove_dir_all(&building);
            if !rootfs.exists() {
                return Err(failed("publish the toolbox image")(error));
            }
        }
    }
    Ok(Image {
        id: format!("{}@{digest}", Reference::Toolbox.repository()),
        size_bytes: bytes.len() as u64,
        entrypoint: Vec::new(),
        cmd: vec!["sleep".to_owned(), "inf".to_owned()],
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        working_dir: "/".to_owned(),
        user: String::new(),
        stop_signal: None,
    })
}

/// A program that runs without what else the host has.
fn static_program(path: &Path) -> Option<(PathBuf, Vec<u8>)> {
    let bytes = fs::read(path).ok()?;
    let needs_loader = bytes.windows(9).any(|window| window == b"/ld-linux");
    (!needs_loader).then(|| (path.to_owned(), bytes))
}

fn build(root: &Path, own: &[u8], busybox: Option<(&Path, &[u8])>) -> io::Result<()> {
    for dir in ["bin", "etc", "proc", "dev", "sys", "tmp", "root", "var/log"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    let bin = root.join("bin");
    let program = |name: &str, bytes: &[u8]| {
        fs::write(bin.join(name), bytes)?;
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755))
    };
    program("toolbox", own)?;
    for name in crate::toolbox::APPLETS.iter().filter(|name| **name != "toolbox") {
        symlink("toolbox", bin.join(name))?;
    }
    for library in libraries()? {
        let target = root.join(library.trim_start_matches('/'));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&library, &target)?;
    }
    let Some((path, bytes)) = busybox else { return Ok(()) };
    let listed = std::process::Command::new(path).arg("--list").output()?;
    program("busybox", bytes)?;
    for name in String::from_utf8_lossy(&listed.stdout).lines() {
        // Ours come first: they are the same on every node.
        if fs::symlink_metadata(bin.join(name)).is_err() {
            symlink("busybox", bin.join(name))?;
        }
    }
    Ok(())
}

/// The shared libraries and the loader of this process, where the loader will look for them.
fn libraries() -> io::Result<BTreeSet<String>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut found: BTreeSet<String> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/') && path.contains(".so"))
        .map(str::to_owned)
        .collect();
    // The name in the program's header is mostly a link to what is mapped.
    for loader in ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"] {
        if Path::new(loader).exists() {
            found.insert(loader.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busybox_of_the_host_adds_and_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let busybox = dir.path().join("busybox");
        fs::write(&busybox, "#!/bin/sh\necho sleep\necho vi\necho busybox\n").unwrap();
        fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
        let (path, bytes) = static_program(&busybox).unwrap();
        let root = dir.path().join("root");
        build(&root, b"own", Some((&path, &bytes))).unwrap();
        let target = |name: &str| fs::read_link(root.join("bin").join(name)).unwrap();
        assert_eq!(target("sleep"), Path::new("toolbox"));
        assert_eq!(target("vi"), Path::new("busybox"));
        assert_eq!(fs::read(root.join("bin/toolbox")).unwrap(), b"own");
        assert_eq!(fs::read(root.join("bin/busybox")).unwrap(), bytes);

        fs::write(&busybox, b"\x7fELF.../lib64/ld-linux-x86-64.so.2...").unwrap();
        assert!(static_program(&busybox).is_none(), "it would not run inside");
    }
}
