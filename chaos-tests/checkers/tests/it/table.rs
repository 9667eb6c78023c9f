//! The table of properties is that of the code, and covers what was promised.

use checkers::{properties::ALL, table};
use std::{collections::BTreeSet, path::Path};

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_table_in_the_architecture_is_that_of_the_code() {
    let (begin, end) = ("<!-- properties: written by a test -->\n", "<!-- properties: end -->");
    let path = root().join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let from = text.find(begin).expect("a place for the table") + begin.len();
    let to = text.find(end).expect("the table's end");
    let table = table();
    if text[from..to] == table {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "how snapshots are updated")]
    let update = std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always");
    assert!(update, "ARCHITECTURE.md differs; INSTA_UPDATE=always writes it:\n{table}");
    std::fs::write(&path, format!("{}{table}{}", &text[..from], &text[to..])).unwrap();
}

#[test]
fn every_property_has_a_file_of_its_own() {
    let files: BTreeSet<&str> = ALL.iter().map(|property| property.file).collect();
    assert_eq!(files.len(), ALL.len(), "two properties in one file");
    for file in &files {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        // Known histories, right and wrong, stand beside it.
        assert!(text.contains("mod tests"), "{file} has no tests");
    }
    let names: BTreeSet<&str> = ALL.iter().map(|property| property.name).collect();
    assert_eq!(names.len(), ALL.len(), "two properties of one name");
}

/// INV-1 to INV-12
#[test]
fn every_invariant_of_the_specification_has_a_property() {
    let sources: BTreeSet<&str> =
        ALL.iter().flat_map(|property| property.sources).copied().collect();
    for number in 1..=12 {
        let invariant = format!("INV-{number}");
        assert!(sources.contains(invariant.as_str()), "{invariant} is nobody's source");
    }
}
