//! What differs between any two groups and means nothing: ids, ports, times.

/// Whether the rest of a row may differ, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mask {
    /// Whole numbers.
    pub(crate) numbers: bool,
    /// The order of lines, and which member says what.
    pub(crate) order: bool,
}

/// The text without what means nothing.
pub(crate) fn normal(text: &str, endpoints: &[String], mask: Mask) -> String {
    let mut text = text.to_owned();
    for (n, endpoint) in endpoints.iter().enumerate() {
        let name = if mask.order { "<member>".to_owned() } else { format!("<member {n}>") };
        text = text.replace(endpoint.as_str(), &name);
    }
    // An id is padded with spaces where it begins with zeros.
    for before in ["Member ", "cluster "] {
        let padded = format!("{before} ");
        while text.contains(&padded) {
            text = text.replace(&padded, before);
        }
    }
    // What the client logs by itself, and how far it has come.
    let lines = text.lines().filter(|line| !line.starts_with("{\"level\":") && !line.contains('%'));
    let mut lines: Vec<String> = lines.map(|line| members(&words(line, mask))).collect();
    if mask.order {
        lines.sort();
    }
    lines.join("\n")
}

/// A list of members comes in the order of their ids.
fn members(line: &str) -> String {
    let Some(list) = line.strip_prefix("ETCD_INITIAL_CLUSTER=") else { return line.to_owned() };
    let mut names: Vec<&str> = list.trim_matches('"').split(',').collect();
    names.sort_unstable();
    format!("ETCD_INITIAL_CLUSTER={}", names.join(","))
}

fn words(line: &str, mask: Mask) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let in_word = |c: char| c.is_alphanumeric() || c == '.';
        if !in_word(first) {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let measured = ["\"raft_term\":", "raft_term: ", "\"RaftTerm\" : ", "remaining("]
            .iter()
            .any(|before| out.ends_with(before));
        out.push_str(if measured { "<n>" } else { name(word, mask) });
        rest = after;
    }
    out
}

/// What a word is replaced by.
fn name(word: &str, mask: Mask) -> &str {
    let hex = word.chars().all(|c| c.is_ascii_hexdigit());
    if hex && word.len() >= 12 && word.chars().any(|c| c.is_ascii_digit()) {
        return "<id>";
    }
    if matches!(word, "3.4.23" | "3.6.14" | "3.4" | "3.6.0") {
        return "<version>";
    }
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &word[..word.len() - unit.len()];
    if number.contains('.') && matches!(unit, "s" | "ms" | "µs" | "us") {
        return "<time>";
    }
    if mask.numbers && number.split('.').all(digits) && matches!(unit, "" | "s") {
        return "<n>";
    }
    if mask.numbers && matches!(word, "B" | "kB" | "MB") {
        return "<unit>";
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_this_group_goes_and_what_means_something_stays() {
        let endpoints = ["127.0.0.1:2379".to_owned()];
        for (text, numbers, want) in [
            (
                "lease 694d8257011ce0b2 granted with TTL(60s)",
                false,
                "lease <id> granted with TTL(60s)",
            ),
            (
                "127.0.0.1:2379 is healthy: took = 1.5ms",
                false,
                "<member 0> is healthy: took = <time>",
            ),
            ("{\"revision\":7,\"raft_term\":2}", false, "{\"revision\":7,\"raft_term\":<n>}"),
            (
                "granted with TTL(60s), remaining(59s)",
                false,
                "granted with TTL(60s), remaining(<n>)",
            ),
            ("3.6.14, 20 kB, 12", true, "<version>, <n> <unit>, <n>"),
            ("deadbeefdeadbeef", false, "deadbeefdeadbeef"),
            (
                "Member  94d8257011ce0b2 added to cluster   1c8a5e0d3b7f642",
                false,
                "Member <id> added to cluster <id>",
            ),
        ] {
            let mask = Mask { numbers, ..Mask::default() };
            assert_eq!(normal(text, &endpoints, mask), want);
        }
        let sorted = normal("b\na", &[], Mask { order: true, ..Mask::default() });
        assert_eq!(sorted, "a\nb");
    }
}
