//! Histories as files.

use crate::model::run;
use checkers::history::{History, LineError, Settings, read_lines, write_lines};

#[test]
fn a_history_is_read_as_it_was_written() {
    let mut history = run(1, 50, 4);
    history.settings = Settings { steady_nodes: vec!["n1".to_owned()], ..Settings::default() };
    let mut file = Vec::new();
    write_lines(&history, &mut file).unwrap();
    assert_eq!(read_lines(file.as_slice()).unwrap(), history);
    // Whoever wrote it was killed in the middle of the last line.
    file.truncate(file.len() - 2);
    let cut = read_lines(file.as_slice()).unwrap();
    assert_eq!(cut.records.as_slice(), &history.records[..history.records.len() - 1]);
}

#[test]
fn what_is_no_history_is_refused() {
    let read = |text: &str| read_lines(text.as_bytes());
    assert!(matches!(read(""), Err(LineError::Format)));
    assert!(matches!(read("{}\n"), Err(LineError::Parse { line: 1, .. })));
    assert!(matches!(read("{\"format\":2,\"settings\":{}}\n"), Err(LineError::Format)));
    let head = "{\"format\":1,\"settings\":{}}\n";
    assert_eq!(read(head).unwrap(), History::default());
    assert!(matches!(read(&format!("{head}nonsense\n")), Err(LineError::Parse { line: 2, .. })));
}
