//! A container's log as it is written: `‹n›.log`, and what was before it in `‹n›.log.1`.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Rotated between two looks, again and again.
const TRIES: u32 = 16;

/// Reads on where it has stopped, across rotations.
#[derive(Debug)]
pub(crate) struct LogReader {
    path: PathBuf,
    /// The file that was read last. While it is open, no other one has its number.
    last: Option<(u64, File)>,
}

impl LogReader {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    /// Everything that was written since the last call; at first, everything that is kept.
    ///
    /// # Errors
    /// The disk refuses. A log that is not there is empty.
    pub(crate) fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut files = self.files()?;
        if let Some((number, last)) = &mut self.last {
            // Also what came to it before it was renamed, or removed.
            last.read_to_end(&mut bytes)?;
            if let Some(at) = files.iter().position(|(other, _)| other == number) {
                files.drain(..=at);
            }
        }
        for (number, mut file) in files {
            file.read_to_end(&mut bytes)?;
            self.last = Some((number, file));
        }
        Ok(bytes)
    }

    /// The older file and the newer one with their numbers, as of one moment.
    fn files(&self) -> io::Result<Vec<(u64, File)>> {
        let mut found = Vec::new();
        for _ in 0..TRIES {
            // The newer first: when it is renamed meanwhile it is found twice, and we look again.
            let newer = open(&self.path)?;
            found = open(&rotated(&self.path))?.into_iter().chain(newer).collect();
            if !matches!(&found[..], [(a, _), (b, _)] if a == b) {
                break;
            }
        }
        Ok(found)
    }
}

fn open(path: &Path) -> io::Result<Option<(u64, File)>> {
    match File::open(path) {
        Ok(file) => Ok(Some((file.metadata()?.ino(), file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a log goes when it has become too long.
pub(crate) fn rotated(path: &Path) -> PathBuf {
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    PathBuf::from(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write as _};

    #[test]
    fn a_reader_goes_on_across_rotations() {
        // The kubelet's rotation keeps one older file; a follower misses nothing of it.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let append = |text: &str| {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let rotate = || fs::rename(&path, rotated(&path)).unwrap();
        let mut reader = LogReader::new(path.clone());
        let text = |reader: &mut LogReader| String::from_utf8(reader.read().unwrap()).unwrap();
        assert_eq!(text(&mut reader), "");
        append("a");
        assert_eq!(text(&mut reader), "a");
        append("b");
        rotate();
        assert_eq!(text(&mut reader), "b", "between the two steps of a rotation");
        append("c");
        assert_eq!(text(&mut reader), "c");
        append("d");
        rotate();
        append("e");
        assert_eq!(text(&mut reader), "de");
        assert_eq!(text(&mut reader), "");
        append("-");
        rotate();
        append("f");
        rotate();
        append("g");
        assert_eq!(text(&mut reader), "-fg", "two rotations at once");
        assert_eq!(text(&mut LogReader::new(path.clone())), "fg", "from the beginning");
    }
}
