//! The built-in image: made on the spot, so that nothing is downloaded for a first Pod.

use super::{digest::Digest, reference::Reference};
use crate::runtime::{Image, RuntimeError};
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

fn failed(step: &str) -> impl FnOnce(io::Error) -> RuntimeError + '_ {
    move |source| RuntimeError::Io { step: step.to_owned(), source }
}

/// Unpacks the image below `dir`, unless it is there: the programs of the host's static busybox if it
/// has one, else this very binary under the names of its applets, with the libraries it is linked to.
pub(super) fn make(dir: &Path) -> Result<Image, RuntimeError> {
    let busybox = Path::new("/bin/busybox");
    let program = if busybox.exists() {
        busybox.to_owned()
    } else {
        fs::canonicalize("/proc/self/exe").map_err(failed("find this program"))?
    };
    let bytes = fs::read(&program).map_err(failed("read the toolbox's program"))?;
    let digest = Digest::of(&bytes);
    let rootfs = dir.join(digest.hex());
    if !rootfs.exists() {
        let building = dir.join(format!(".building-{}-{}", digest.hex(), std::process::id()));
        let _ = fs::remove_dir_all(&building);
        build(&building, &program, &bytes).map_err(failed("build the toolbox image"))?;
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

fn build(root: &Path, program: &Path, bytes: &[u8]) -> io::Result<()> {
    for dir in ["bin", "etc", "proc", "dev", "sys", "tmp", "root", "var/log"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    let tool = root.join("bin/toolbox");
    fs::write(&tool, bytes)?;
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755))?;
    let mut names: Vec<String> = crate::toolbox::APPLETS.iter().map(|n| (*n).to_owned()).collect();
    if program.ends_with("busybox") {
        let listed = std::process::Command::new(program).arg("--list").output()?;
        names = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
    } else {
        for library in libraries()? {
            let target = root.join(library.trim_start_matches('/'));
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(&library, &target)?;
        }
    }
    for name in names.iter().filter(|name| *name != "toolbox") {
        symlink("toolbox", root.join("bin").join(name))?;
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
