//! `tar`, as far as `kubectl cp` needs it: `c` and `x`, with files in archives of this format.

use ::tar::{Archive, Builder, HeaderMode};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
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
        let kind = found.symlink_metadata();
        let kind = kind.map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        let name = path.trim_start_matches('/');
        let name = if name.is_empty() { "." } else { name };
        if kind.is_dir() {
            builder.append_dir_all(name, &found)?;
        } else {
            builder.append_path_with_name(&found, name)?;
        }
    }
    builder.into_inner()?.flush()
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
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if wanted(&path) && !entry.unpack_in(dir)? {
            return Err(io::Error::other(format!("{}: leads out of here", path.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
