//! Files that change all at once (VOL-1): they are in a directory of their own beside a link to it, and
//! what programs open are links through that one, which one renaming turns to the next directory.

use super::content::{File, Files};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";
const DIRECTORY_MODE: u32 = 0o755;

/// Makes a volume's directory hold these files and nothing else, readable for `group`, too. `stamp` names
/// the directory that they are in. Whether anything was written.
///
/// # Errors
/// The disk. What was there before is there then, too.
pub(crate) fn write(
    volume: &Path,
    files: &Files,
    group: Option<u32>,
    stamp: u64,
) -> io::Result<bool> {
    let files: Files =
        files.iter().map(|(path, file)| (path.clone(), shared(file, group))).collect();
    fs::create_dir_all(volume)?;
    fs::set_permissions(volume, Permissions::from_mode(DIRECTORY_MODE))?;
    let data = volume.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && read(&data).is_ok_and(|found| found == files) {
        return Ok(false);
    }
    let name = fresh(volume, stamp)?;
    for (path, file) in &files {
        put(&volume.join(&name).join(path), file, group)?;
    }
    let next = volume.join(DATA_NEXT);
    if let Err(error) = fs::remove_file(&next)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;
    let wanted: BTreeSet<OsString> =
        files.keys().filter_map(|path| path.iter().next()).map(OsStr::to_owned).collect();
    for name in &wanted {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    clean(volume, &name, &wanted)?;
    Ok(true)
}

/// What a group is to read, it may.
fn shared(file: &File, group: Option<u32>) -> File {
    let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
    File { mode, ..file.clone() }
}

/// A directory that was not there.
fn fresh(volume: &Path, stamp: u64) -> io::Result<PathBuf> {
    let mut number = stamp;
    loop {
        let name = PathBuf::from(format!("..{number}"));
        match fs::create_dir(volume.join(&name)) {
            Ok(()) => {
                let mode = Permissions::from_mode(DIRECTORY_MODE);
                fs::set_permissions(volume.join(&name), mode)?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn put(path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
        fs::set_permissions(above, Permissions::from_mode(DIRECTORY_MODE))?;
    }
    // Nobody reads it before it has the permissions that it is to have.
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    out.write_all(&file.bytes)?;
    if group.is_some() {
        chown(path, None, group)?;
    }
    out.set_permissions(Permissions::from_mode(file.mode))
}

/// All files below a directory.
fn read(directory: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut ways = vec![PathBuf::new()];
    while let Some(way) = ways.pop() {
        for entry in fs::read_dir(directory.join(&way))? {
            let entry = entry?;
            let below = way.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                ways.push(below);
            } else {
                let mode = entry.metadata()?.permissions().mode() & 0o777;
                files.insert(below, File { bytes: fs::read(entry.path())?, mode });
            }
        }
    }
    Ok(files)
}

/// Removes links to what there is no more, and the directories of before.
fn clean(volume: &Path, current: &Path, wanted: &BTreeSet<OsString>) -> io::Result<()> {
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let own = name.as_encoded_bytes().starts_with(b"..");
        if own && entry.file_type()?.is_dir() && Path::new(&name) != current {
            fs::remove_dir_all(entry.path())?;
        } else if !own && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(of: &[(&str, &str, u32)]) -> Files {
        let file = |text: &str, mode: u32| File { bytes: text.as_bytes().to_vec(), mode };
        of.iter().map(|(path, text, mode)| (PathBuf::from(path), file(text, *mode))).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let all = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_links_through_one_that_is_turned() {
        // VOL-1
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        let first = files(&[("a", "1", 0o644), ("d/b", "2", 0o400)]);
        assert!(write(&volume, &first, None, 7).unwrap());
        assert_eq!(names(&volume), ["..7", "..data", "a", "d"]);
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(volume.join("d/b")).unwrap(), "2");
        assert_eq!(fs::read_link(volume.join("a")).unwrap(), Path::new("..data/a"));
        let mode = fs::metadata(volume.join("d/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
        // Who has a file open goes on reading what it was.
        let mut open = fs::File::open(volume.join("a")).unwrap();
        assert!(!write(&volume, &first, None, 8).unwrap(), "nothing changes");
        let second = files(&[("a", "3", 0o644), ("c", "4", 0o644)]);
        assert!(write(&volume, &second, None, 7).unwrap());
        assert_eq!(names(&volume), ["..8", "..data", "a", "c"], "7 was taken");
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert_eq!(io::read_to_string(&mut open).unwrap(), "1");
    }

    #[test]
    fn what_a_write_that_broke_off_has_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        write(&volume, &files(&[("a", "1", 0o644)]), None, 1).unwrap();
        fs::create_dir(volume.join("..2")).unwrap();
        fs::write(volume.join("..2/half"), "x").unwrap();
        symlink("..2", volume.join("..data_tmp")).unwrap();
        assert!(write(&volume, &files(&[("a", "2", 0o600)]), None, 2).unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "2");
        assert_eq!(names(&volume), ["..3", "..data", "a"]);
    }
}
