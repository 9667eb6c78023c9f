//! `tar`, as far as `kubectl cp` needs it: `c` and `x`, with files in archives of this format.

use ::tar::{Archive, Builder, EntryType, Header, HeaderMode};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What a command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    create: bool,
    extract: bool,
    /// `-` is standard input or output, and what it is by default.
    file: String,
    dir: String,
    /// Files have the time at which they are extracted.
    touch: bool,
    any_permissions: bool,
    any_owner: bool,
    paths: Vec<String>,
}

/// `tar c|x [f FILE] [C DIR] [m] [v] [--no-same-permissions] [--no-same-owner] [PATH…]`
pub(super) fn run(arguments: &[String], out: &mut impl Write) -> io::Result<()> {
    let asked = parse(arguments).map_err(io::Error::other)?;
    let (file, dir) = (asked.file.as_str(), Path::new(&asked.dir));
    if asked.create {
        let to: Box<dyn Write + '_> =
            if file == "-" { Box::new(out) } else { Box::new(File::create(file)?) };
        return create(to, dir, &asked.paths);
    }
    let from: Box<dyn Read> =
        if file == "-" { Box::new(io::stdin().lock()) } else { Box::new(File::open(file)?) };
    extract(from, dir, &asked)
}

fn parse(arguments: &[String]) -> Result<Asked, String> {
    let mut asked = Asked { file: "-".to_owned(), dir: ".".to_owned(), ..Asked::default() };
    let mut arguments = arguments.iter().enumerate();
    while let Some((at, argument)) = arguments.next() {
        let letters = match argument.strip_prefix('-') {
            Some(long) if long.starts_with('-') => {
                match argument.as_str() {
                    "--no-same-permissions" => asked.any_permissions = true,
                    "--no-same-owner" => asked.any_owner = true,
                    "--touch" => asked.touch = true,
                    "--" => {
                        asked.paths.extend(arguments.by_ref().map(|(_, path)| path.clone()));
                    }
                    _ => return Err(format!("unknown option {argument:?}")),
                }
                continue;
            }
            Some(letters) if !letters.is_empty() => letters,
            // The first word is letters without a dash, too.
            None if at == 0 => argument,
            Some(_) | None => {
                asked.paths.push(argument.clone());
                continue;
            }
        };
        for letter in letters.chars() {
            let mut value = || {
                let value = arguments.next().map(|(_, value)| value.clone());
                value.ok_or_else(|| format!("option {letter:?} needs a value"))
            };
            match letter {
                'c' => asked.create = true,
                'x' => asked.extract = true,
                'f' => asked.file = value()?,
                'C' => asked.dir = value()?,
                'm' => asked.touch = true,
                'o' => asked.any_owner = true,
                'p' | 'v' => {}
                _ => return Err(format!("unknown option {letter:?}")),
            }
        }
    }
    if asked.create == asked.extract {
        return Err("one of c and x is needed".to_owned());
    }
    if asked.create && asked.paths.is_empty() {
        return Err("an empty archive is not made".to_owned());
    }
    Ok(asked)
}

/// As they are named, without what would lead out of where they are extracted.
fn create(to: impl Write, dir: &Path, paths: &[String]) -> io::Result<()> {
    let mut builder = Builder::new(to);
    builder.mode(HeaderMode::Complete);
    builder.follow_symlinks(false);
    for path in paths {
        let found = dir.join(path);
        let name = path.trim_start_matches('/');
        let name = if name.is_empty() { "." } else { name };
        let there = found.symlink_metadata();
        there.map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        append_all(&mut builder, found, name.into())?;
    }
    builder.into_inner()?.flush()
}

/// A file, or a directory with everything in it. What is no file, directory or link is left out.
fn append_all(to: &mut Builder<impl Write>, found: PathBuf, name: PathBuf) -> io::Result<()> {
    let mut left = vec![(found, name)];
    while let Some((found, name)) = left.pop() {
        let kind = match found.symlink_metadata() {
            Ok(stat) => stat.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                skipped(&found, "gone since it was listed");
                continue;
            }
            Err(error) => return Err(error),
        };
        if kind.is_dir() {
            to.append_dir(&name, &found)?;
            let mut inside: Vec<_> = fs::read_dir(&found)?.collect::<io::Result<_>>()?;
            inside.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            left.extend(inside.iter().map(|e| (e.path(), name.join(e.file_name()))));
        } else if kind.is_symlink() {
            to.append_path_with_name(&found, &name)?;
        } else if kind.is_file() {
            append_file(to, &found, &name)?;
        } else {
            skipped(&found, "neither file nor directory");
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a program's own output")]
fn skipped(path: &Path, why: &str) {
    eprintln!("tar: {}: left out, {why}", path.display());
}

/// As many bytes as its header says, whatever becomes of the file meanwhile.
fn append_file(to: &mut Builder<impl Write>, found: &Path, name: &Path) -> io::Result<()> {
    // It may be another one by now: one that would make us wait.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(found)?;
    let stat = file.metadata()?;
    if !stat.is_file() {
        skipped(found, "no file any more");
        return Ok(());
    }
    let mut header = Header::new_gnu();
    header.set_metadata_in_mode(&stat, HeaderMode::Complete);
    header.set_entry_type(EntryType::Regular);
    to.append_data(&mut header, name, exactly(file, stat.len()))
}

/// So many bytes: cut off, or with zeros at the end.
fn exactly(from: impl Read, bytes: u64) -> impl Read {
    from.chain(io::repeat(0)).take(bytes)
}

fn extract(from: impl Read, dir: &Path, asked: &Asked) -> io::Result<()> {
    let mut archive = Archive::new(from);
    archive.set_preserve_permissions(!asked.any_permissions);
    archive.set_preserve_ownerships(!asked.any_owner);
    archive.set_preserve_mtime(!asked.touch);
    archive.set_overwrite(true);
    let wanted = |path: &Path| {
        asked.paths.is_empty() || asked.paths.iter().any(|wanted| path.starts_with(wanted))
    };
    let outside = |path: &Path| io::Error::other(format!("{}: leads out of here", path.display()));
    // Last, and the deepest first: their modes may forbid to write into them.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if !wanted(&path) {
            continue;
        }
        if entry.header().entry_type().is_dir() {
            directories.push((path, entry));
        } else if !entry.unpack_in(dir)? {
            return Err(outside(&path));
        }
    }
    directories.sort_by(|(a, _), (b, _)| b.cmp(a));
    for (path, mut entry) in directories {
        if !entry.unpack_in(dir)? {
            return Err(outside(&path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_those_of_kubectl() {
        let plain = || Asked { file: "-".to_owned(), dir: ".".to_owned(), ..Asked::default() };
        let paths = vec!["/tmp/f".to_owned()];
        for (text, want) in [
            ("cf - /tmp/f", Asked { create: true, paths: paths.clone(), ..plain() }),
            (
                "-xmf - -C /tmp",
                Asked { extract: true, touch: true, dir: "/tmp".to_owned(), ..plain() },
            ),
            (
                "--no-same-permissions --no-same-owner -xmf - -C /",
                Asked {
                    extract: true,
                    touch: true,
                    any_permissions: true,
                    any_owner: true,
                    dir: "/".to_owned(),
                    ..plain()
                },
            ),
            (
                "-c -f out -- /tmp/f",
                Asked { create: true, file: "out".to_owned(), paths, ..plain() },
            ),
        ] {
            assert_eq!(parse(&words(text)), Ok(want), "{text}");
        }
        for text in ["", "cx f", "c", "xf", "-xq", "--wild x"] {
            assert!(parse(&words(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("d/e")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join("d/e/f"), "text").unwrap();
        std::os::unix::fs::symlink("e/f", from.join("d/link")).unwrap();
        let absolute = from.join("d").to_string_lossy().into_owned();
        let mut archive = Vec::new();
        run(&["cf".to_owned(), "-".to_owned(), absolute.clone()], &mut archive).unwrap();
        extract(archive.as_slice(), &to, &Asked::default()).unwrap();
        let out = to.join(absolute.trim_start_matches('/'));
        assert_eq!(fs::read_to_string(out.join("e/f")).unwrap(), "text");
        assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("e/f"));
        assert!(run(&words("cf - /does/not/exist"), &mut Vec::new()).is_err());
    }

    #[test]
    fn an_entry_has_the_length_that_its_header_says() {
        for (text, want) in [("abc", "abc\0\0"), ("abcde", "abcde"), ("abcdefg", "abcde")] {
            let mut got = String::new();
            exactly(text.as_bytes(), 5).read_to_string(&mut got).unwrap();
            assert_eq!(got, want, "{text}");
        }
        // Its length is said to be 0.
        let mut archive = Vec::new();
        run(&words("cf - /proc/self/status"), &mut archive).unwrap();
        let mut archive = Archive::new(archive.as_slice());
        let all: Vec<u64> = archive.entries().unwrap().map(|e| e.unwrap().size()).collect();
        assert_eq!(all, [0]);
    }

    #[test]
    fn sockets_are_left_out_and_modes_of_directories_come_last() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o777);
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let talk = || {
            // Modes mean nothing to root; this is the thread's own.
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
            fs::create_dir_all(from.join("d/e")).unwrap();
            fs::create_dir_all(&to).unwrap();
            fs::write(from.join("d/e/f"), "text").unwrap();
            let _socket = std::os::unix::net::UnixListener::bind(from.join("d/s")).unwrap();
            for name in ["d/e", "d"] {
                mode(&from.join(name), 0o555);
            }
            let mut archive = Vec::new();
            let arguments = ["cf", "-", "-C", from.to_str().unwrap(), "d"].map(str::to_owned);
            run(&arguments, &mut archive).unwrap();
            let asked = Asked { any_owner: true, ..Asked::default() };
            extract(archive.as_slice(), &to, &asked).unwrap();
            assert_eq!(fs::read_to_string(to.join("d/e/f")).unwrap(), "text");
            assert!(!to.join("d/s").exists());
            for name in ["d/e", "d"] {
                let stat = to.join(name).metadata().unwrap();
                assert_eq!(stat.permissions().mode() & 0o777, 0o555, "{name}");
                // So that it can be removed.
                mode(&to.join(name), 0o755);
                mode(&from.join(name), 0o755);
            }
        };
        std::thread::scope(|scope| scope.spawn(talk).join().unwrap());
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        fs::create_dir_all(&to).unwrap();
        let mut header = ::tar::Header::new_old();
        header.set_size(1);
        header.as_mut_bytes()[..4].copy_from_slice(b"../x");
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, &b"y"[..]).unwrap();
        let archive = builder.into_inner().unwrap();
        assert!(extract(archive.as_slice(), &to, &Asked::default()).is_err());
        assert!(!dir.path().join("x").exists());
    }
}
