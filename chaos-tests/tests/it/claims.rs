//! Every claim that is made is held by a test that names it.

use std::{collections::BTreeMap, fs, path::Path};

/// Claims of the specification (`S`) and promises of three replicas (`P`).
fn claims() -> Vec<String> {
    let numbers = [5, 6].into_iter().chain(9..=12).chain(16..=20).chain(22..=40);
    numbers.map(|n| format!("S{n}")).chain((1..=6).map(|n| format!("P{n}"))).collect()
}

/// What the comments at the head of every test name, with the test's file.
fn named() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut left = vec![root.join("crates"), root.join("chaos-tests")];
    let mut found = BTreeMap::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            if *line != "#[test]" && !line.starts_with("#[tokio::test") {
                continue;
            }
            let head = &lines[at..lines.len().min(at + 6)];
            let comments = head.iter().filter_map(|line| line.strip_prefix("//"));
            let words = comments.flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
            found.extend(words.map(|word| (word.to_owned(), path.display().to_string())));
        }
    }
    found
}

#[test]
fn every_claim_is_named_by_a_test() {
    let named = named();
    let missing: Vec<String> =
        claims().into_iter().filter(|claim| !named.contains_key(claim)).collect();
    assert!(missing.is_empty(), "no test names in a comment on its first lines: {missing:?}");
}
