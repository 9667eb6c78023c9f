//! The bugs that `chaos-tests/mutations/run` brings back can still be brought back.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn patches() -> Vec<PathBuf> {
    let all = fs::read_dir(root().join("chaos-tests/mutations")).unwrap();
    let all = all.map(|entry| entry.unwrap().path());
    let mut patches: Vec<PathBuf> =
        all.filter(|p| p.extension().is_some_and(|e| e == "patch")).collect();
    patches.sort();
    patches
}

#[test]
fn every_bug_can_still_be_brought_back() {
    assert!(patches().len() >= 10, "too few to say that the checkers bite");
    for patch in patches() {
        let mut git = Command::new("git");
        let checked =
            git.current_dir(root()).args(["apply", "--check"]).arg(&patch).output().unwrap();
        let error = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{}: {error}", patch.display());
    }
}

#[test]
fn every_bug_says_what_it_breaks_and_has_a_number_of_its_own() {
    let mut numbers = BTreeSet::new();
    for patch in patches() {
        let text = fs::read_to_string(&patch).unwrap();
        let why = text.lines().next().unwrap_or_default();
        assert!(why.ends_with('.') && why.contains('('), "{}: {why:?}", patch.display());
        let layer = text.lines().nth(1).unwrap_or_default();
        assert!(
            ["Layer: store", "Layer: plane"].contains(&layer),
            "{}: {layer:?}",
            patch.display()
        );
        let name = patch.file_name().unwrap().to_string_lossy();
        let number: u32 = name.split('-').next().unwrap().parse().unwrap();
        assert!(numbers.insert(number), "number {number} twice");
    }
}
