//! A property, and what a history says about it.

use crate::{evidence::Evidence, history::History, properties};
use serde::Serialize;

/// Violations of one property that a verdict names; the others are counted.
const NAMED: usize = 20;

/// Something that must hold of every history.
pub struct Property {
    /// A sentence without subject or full stop that users read: what holds.
    pub name: &'static str,
    /// Rules of `kubernetes-semantics.md`, sections of the raft paper, guarantees of etcd.
    pub sources: &'static [&'static str],
    /// The file that checks it, from the workspace's root.
    pub file: &'static str,
    pub(crate) check: fn(&Evidence<'_>, &mut Findings),
}

/// What did not hold, with the least evidence that shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// When it showed; 0 if it has no time.
    pub at_ns: u64,
    /// For people.
    pub text: String,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    examined: u64,
    undecided: u64,
    violations: Vec<Violation>,
    violations_count: u64,
}

impl Findings {
    /// Something was looked at that could have contradicted the property.
    pub(crate) fn look(&mut self) {
        self.examined += 1;
    }

    /// It was looked at, and the search for an explanation was given up.
    pub(crate) fn undecided(&mut self) {
        self.undecided += 1;
    }

    /// It does not hold.
    pub(crate) fn violated(&mut self, at_ns: u64, text: impl Into<String>) {
        self.violations_count += 1;
        if self.violations.len() < NAMED {
            self.violations.push(Violation { at_ns, text: text.into() });
        }
    }
}

/// Whether one property holds of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// [`Property::name`].
    pub property: &'static str,
    /// Nothing contradicts it.
    pub held: bool,
    /// Observations that could have: where there are none, that it held says nothing.
    pub examined: u64,
    /// Of these, those for which the search for an explanation was given up.
    pub undecided: u64,
    /// All violations, with those that are not named.
    pub violations_count: u64,
    /// The first ones, by time.
    pub violations: Vec<Violation>,
}

impl Property {
    /// Whether it holds of what was seen.
    #[must_use]
    pub fn verdict(&self, evidence: &Evidence<'_>) -> Verdict {
        let mut findings = Findings::default();
        (self.check)(evidence, &mut findings);
        findings.violations.sort_by_key(|violation| violation.at_ns);
        Verdict {
            property: self.name,
            held: findings.violations_count == 0,
            examined: findings.examined,
            undecided: findings.undecided,
            violations_count: findings.violations_count,
            violations: findings.violations,
        }
    }
}

/// What a history says about every property, in the order of [`properties::ALL`].
#[must_use]
pub fn check(history: &History) -> Vec<Verdict> {
    let evidence = Evidence::of(history);
    properties::ALL.iter().map(|property| property.verdict(&evidence)).collect()
}

/// All properties as a table of Markdown: what holds, by which source, and where it is checked.
#[must_use]
pub fn table() -> String {
    let mut table = "| property | source | checked in |\n|---|---|---|\n".to_owned();
    for Property { name, sources, file, .. } in properties::ALL {
        let (sources, short) = (sources.join(", "), file.rsplit('/').next().unwrap_or(file));
        table.push_str(&format!("| {name} | {sources} | [`{short}`]({file}) |\n"));
    }
    table
}
