//! A history as a file: one line of JSON for the settings, then one for each record.

use super::{History, Record, Settings};
use std::io::{self, BufRead, Write};

/// Of the format; a reader refuses another.
const FORMAT: u32 = 1;

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The file cannot be read.
    #[error("read line {line} of a history")]
    Read {
        /// From 1.
        line: usize,
        /// Why.
        source: io::Error,
    },
    /// The line is not what it should be.
    #[error("line {line} of a history is not a record")]
    Parse {
        /// From 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// There is no first line, or one of another format.
    #[error("not a history of format {FORMAT}")]
    Format,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    format: u32,
    settings: Settings,
}

/// Writes a history. Records can be appended later, each as one line of JSON.
///
/// # Errors
/// Of the writer.
pub fn write_lines(history: &History, mut to: impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut to, &Head { format: FORMAT, settings: history.settings.clone() })?;
    to.write_all(b"\n")?;
    for record in &history.records {
        serde_json::to_writer(&mut to, record)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads a history. A last line without an end is left out: whoever wrote it was killed.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read_lines(mut from: impl BufRead) -> Result<History, LineError> {
    let mut history = History::default();
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        from.read_line(&mut text).map_err(|source| LineError::Read { line, source })?;
        let parsed = |source| LineError::Parse { line, source };
        match text.strip_suffix('\n') {
            None if line == 1 => return Err(LineError::Format),
            None => break,
            Some(text) if line == 1 => {
                let head: Head = serde_json::from_str(text).map_err(parsed)?;
                if head.format != FORMAT {
                    return Err(LineError::Format);
                }
                history.settings = head.settings;
            }
            Some(text) => {
                let record: Record = serde_json::from_str(text).map_err(parsed)?;
                history.records.push(record);
            }
        }
    }
    Ok(history)
}
