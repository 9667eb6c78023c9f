//! What is told of an object that is not as it should be: one sentence, what it waits for, what would help.

use serde::Serialize;
use serde_json::Value;

/// For a screen, and for programs as JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// `pod/web`
    pub(crate) object: String,
    /// Empty for what is in none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    /// The situation in one word, for programs.
    pub(crate) state: &'static str,
    /// The situation in one sentence.
    pub(crate) summary: String,
    /// What it waits for, the most important first.
    pub(crate) why: Vec<Why>,
    /// What each node has against it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) nodes: Vec<NodeWhy>,
    /// What somebody could do, the nearest first.
    pub(crate) help: Vec<Help>,
    /// The last warnings about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<String>,
    /// What could not be looked at, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unknown: Vec<String>,
}

/// One thing that it waits for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Why {
    /// Such as `container app`.
    pub(crate) about: String,
    /// What of it.
    pub(crate) text: String,
}

/// What one node has against a Pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NodeWhy {
    pub(crate) node: String,
    /// Empty if it would take it.
    pub(crate) reasons: Vec<String>,
}

/// Something that somebody could do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Help {
    pub(crate) text: String,
    /// To type, if it is one command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) commands: Vec<String>,
}

/// Nodes that are listed one by one; of more, those with equal reasons share a line.
const NODES_APART: usize = 12;

impl Report {
    pub(crate) fn because(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.why.push(Why { about: about.into(), text: text.into() });
    }

    pub(crate) fn advise<S: Into<String>>(
        &mut self,
        text: impl Into<String>,
        commands: impl IntoIterator<Item = S>,
    ) {
        let (text, commands) = (text.into(), commands.into_iter().map(Into::into));
        match self.help.iter_mut().find(|help| help.text == text) {
            Some(help) => {
                let new: Vec<String> = commands.filter(|c| !help.commands.contains(c)).collect();
                help.commands.extend(new);
            }
            None => self.help.push(Help { text, commands: commands.collect() }),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// For a screen.
    pub(crate) fn text(&self) -> String {
        let place = match self.namespace.as_str() {
            "" => String::new(),
            namespace => format!(" in {namespace}"),
        };
        let mut text = format!("{}{place}: {}\n", self.object, self.summary);
        let why = self.why.iter().map(|why| (why.about.clone(), vec![why.text.clone()]));
        table(&mut text, "Why", why.collect());
        table(&mut text, "Nodes", self.node_lines());
        if !self.help.is_empty() {
            text.push_str("\nWhat would help:\n");
        }
        for (number, help) in (1..).zip(&self.help) {
            text.push_str(&format!("  {number}. {}\n", help.text));
            for command in &help.commands {
                text.push_str(&format!("     $ {command}\n"));
            }
        }
        list(&mut text, "Last warnings", &self.events);
        list(&mut text, "Not looked at", &self.unknown);
        text
    }

    fn node_lines(&self) -> Vec<(String, Vec<String>)> {
        let reasons = |node: &NodeWhy| match node.reasons.as_slice() {
            [] => vec!["would take it".to_owned()],
            reasons => reasons.to_vec(),
        };
        if self.nodes.len() <= NODES_APART {
            return self.nodes.iter().map(|node| (node.node.clone(), reasons(node))).collect();
        }
        let mut groups: Vec<(Vec<String>, Vec<String>)> = Vec::new();
        for node in &self.nodes {
            let own = reasons(node);
            match groups.iter_mut().find(|(_, reasons)| *reasons == own) {
                Some((nodes, _)) => nodes.push(node.node.clone()),
                None => groups.push((vec![node.node.clone()], own)),
            }
        }
        groups.sort_by_key(|(nodes, _)| std::cmp::Reverse(nodes.len()));
        let named = |nodes: Vec<String>| match nodes.as_slice() {
            [first, .., last] => format!("{} nodes, {first} to {last}", nodes.len()),
            [only] => only.clone(),
            [] => String::new(),
        };
        groups.into_iter().map(|(nodes, reasons)| (named(nodes), reasons)).collect()
    }
}

/// A line for each, and how to see more.
pub(super) fn overview(reports: &[Report], verb: &str) -> String {
    let mut text = String::new();
    let name = |report: &Report| match report.namespace.as_str() {
        "" => report.object.clone(),
        namespace => format!("{namespace}  {}", report.object),
    };
    let width = reports.iter().map(|report| name(report).chars().count()).max().unwrap_or_default();
    let states = reports.iter().map(|report| report.state.len()).max().unwrap_or_default();
    for report in reports {
        let (name, state, summary) = (name(report), report.state, &report.summary);
        text.push_str(&format!("{name:<width$}  {state:<states$}  {summary}\n"));
        if let Some(help) = report.help.first() {
            text.push_str(&format!("{:<width$}  {:<states$}  would help: {}\n", "", "", help.text));
        }
    }
    text.push_str(&format!("\nMore of one: trireme {verb} NAME -n NAMESPACE\n"));
    text
}

/// Two columns; what has several lines on the right has them below each other.
fn table(text: &mut String, heading: &str, rows: Vec<(String, Vec<String>)>) {
    if rows.is_empty() {
        return;
    }
    text.push_str(&format!("\n{heading}:\n"));
    let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or_default();
    for (left, right) in rows {
        let mut left = left;
        for line in right {
            text.push_str(format!("  {left:<width$}  {line}").trim_end());
            text.push('\n');
            left.clear();
        }
    }
}

fn list(text: &mut String, heading: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    text.push_str(&format!("\n{heading}:\n"));
    lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
}
