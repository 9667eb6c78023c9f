//! Tables of the README that tests write.

use std::path::Path;

/// Set to `always`, as for other snapshots, it writes the README.
const UPDATE: &str = "INSTA_UPDATE";

/// Holds a table of the README against what was seen, or writes it; `details` are shown where they differ.
pub(crate) fn hold(name: &str, table: &str, details: &str) {
    let (begin, end) =
        (format!("<!-- {name}: written by a test -->\n"), format!("<!-- {name}: end -->"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let from = readme.find(&begin).expect("the README has a place for the table") + begin.len();
    let to = readme.find(&end).expect("the README's table ends");
    if readme[from..to] == *table {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "how snapshots are updated")]
    let update = std::env::var(UPDATE).is_ok_and(|value| value == "always");
    assert!(
        update,
        "the README's table is not what was seen; {UPDATE}=always writes it. Seen:\n{table}\n{details}"
    );
    std::fs::write(&path, format!("{}{table}{}", &readme[..from], &readme[to..])).unwrap();
}
