//! Lines of cells whose columns are as wide as their neighbours above and below need.

use api::meta;
use serde_json::{Map, Value};

/// Between two columns.
const PADDING: usize = 2;

/// What has been written so far.
#[derive(Debug, Default)]
pub(super) struct Text {
    lines: Vec<Vec<String>>,
}

impl Text {
    /// A line of cells, `level` steps in.
    pub(super) fn row<'a>(&mut self, level: usize, cells: impl IntoIterator<Item = &'a str>) {
        let mut cells: Vec<String> = cells.into_iter().map(str::to_owned).collect();
        if let Some(first) = cells.first_mut() {
            first.insert_str(0, &"  ".repeat(level));
        }
        self.lines.push(cells);
    }

    /// `Name: value`
    pub(super) fn field(&mut self, name: &str, value: &str) {
        self.field_at(0, name, value);
    }

    /// The same, `level` steps in.
    pub(super) fn field_at(&mut self, level: usize, name: &str, value: &str) {
        self.row(level, [format!("{name}:").as_str(), value]);
    }

    /// `Name:` with what belongs to it below.
    pub(super) fn heading(&mut self, name: &str) {
        self.heading_at(0, name);
    }

    /// The same, `level` steps in.
    pub(super) fn heading_at(&mut self, level: usize, name: &str) {
        self.row(level, [format!("{name}:").as_str()]);
    }

    /// A field of several values, one below the other.
    pub(super) fn list(&mut self, name: &str, values: &[String]) {
        match values {
            [] => self.field(name, "<none>"),
            [first, rest @ ..] => {
                self.field(name, first);
                rest.iter().for_each(|value| self.row(0, ["", value.as_str()]));
            }
        }
    }

    /// Labels, annotations: `k=v` or `k: v`, sorted.
    pub(super) fn map(&mut self, name: &str, map: Option<&Value>, separator: &str) {
        self.list(name, &pairs(map, separator));
    }

    /// Everything, with its columns in line.
    pub(super) fn aligned(&self) -> String {
        let mut text = String::new();
        for (i, cells) in self.lines.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in cells.iter().enumerate() {
                line.push_str(cell);
                if column + 1 < cells.len() {
                    let width = self.width(i, column) + PADDING;
                    line.push_str(&" ".repeat(width.saturating_sub(cell.chars().count())));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// A column reaches over all lines in a row that have something to its right.
    fn width(&self, line: usize, column: usize) -> usize {
        let has = |cells: &&Vec<String>| cells.len() > column + 1;
        let (above, below) = self.lines.split_at(line);
        let lines = above.iter().rev().take_while(has).chain(below.iter().take_while(has));
        let cells = lines.filter_map(|cells| cells.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    }
}

/// `k=v` of each, sorted.
pub(super) fn pairs(map: Option<&Value>, separator: &str) -> Vec<String> {
    let map = map.and_then(Value::as_object).map_or_else(Map::new, Clone::clone);
    let pair = |(key, value): (&String, &Value)| format!("{key}{separator}{}", plain(value));
    let mut pairs: Vec<String> = map.iter().map(pair).collect();
    pairs.sort();
    pairs
}

/// A value without quotes.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// What is at a JSON pointer, as text; empty if there is nothing.
pub(super) fn at(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).map_or_else(String::new, plain)
}

/// The same, or `<none>`.
pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// The items of a list at a JSON pointer.
pub(super) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A time as kubectl prints it at length.
pub(super) fn time(object: &Value, pointer: &str) -> String {
    let time = object.pointer(pointer).and_then(Value::as_str).and_then(meta::parse_time);
    time.map_or_else(String::new, meta::long_time)
}
