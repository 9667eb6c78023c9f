//! The paths of printer columns and selectable fields: as much of kubectl's JSONPath as finds one value.

use serde_json::Value;

/// What one step of a path does.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// From the end if it is negative.
    Index(i64),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
    },
    All,
    /// At this place and everywhere below.
    Below,
    Filter {
        path: Path,
        test: Option<(Operator, Value)>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A path such as `.status.conditions[?(@.type=="Ready")].status`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Path {
    steps: Vec<Step>,
}

/// Values that one path may lead through: a path that goes everywhere is cut, not followed.
const FOUND_MAX: usize = 100_000;

impl Path {
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, at: 0 };
        let steps = reader.steps(false)?;
        Ok(Self { steps })
    }

    /// The names of a path that is nothing but fields.
    #[must_use]
    pub fn fields(&self) -> Option<Vec<&str>> {
        let fields = self
            .steps
            .iter()
            .map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None });
        fields.collect()
    }

    /// The first value there is.
    #[must_use]
    pub fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.find(object).into_iter().next()
    }

    fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![object];
        for step in &self.steps {
            found =
                found.into_iter().flat_map(|value| apply(step, value)).take(FOUND_MAX).collect();
        }
        found
    }
}

fn apply<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    let place = |index: i64| {
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        usize::try_from(if index < 0 { index.saturating_add(count) } else { index }).ok()
    };
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => place(*index).and_then(|at| items.get(at)).into_iter().collect(),
        Step::Slice { from, to } => {
            let from = from.map_or(Some(0), place).unwrap_or_default().min(items.len());
            let to = to.map_or(Some(items.len()), place).unwrap_or_default().min(items.len());
            items.get(from..to.max(from)).unwrap_or_default().iter().collect()
        }
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        },
        Step::Below => {
            let (mut all, mut at) = (vec![value], 0);
            while let Some(value) = all.get(at).copied().filter(|_| all.len() < FOUND_MAX) {
                all.extend(apply(&Step::All, value));
                at += 1;
            }
            all
        }
        Step::Filter { path, test } => {
            let accepted = |item: &&'a Value| {
                let found = path.first(item);
                match test {
                    None => found.is_some(),
                    Some((operator, want)) => {
                        found.is_some_and(|found| holds(*operator, found, want))
                    }
                }
            };
            items.iter().filter(accepted).collect()
        }
    }
}

fn holds(operator: Operator, found: &Value, want: &Value) -> bool {
    let order = match (found, want) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(std::cmp::Ordering::Equal),
    };
    match operator {
        Operator::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Operator::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Operator::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn spaces(&mut self) {
        while self.take(" ") {}
    }

    /// Steps up to the end, or to where a filter's condition goes on.
    fn steps(&mut self, in_filter: bool) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                None => return Ok(steps),
                Some(c) if in_filter && (c == ')' || c == ' ' || "=!<>".contains(c)) => {
                    return Ok(steps);
                }
                Some('.') => {
                    if self.take("..") {
                        steps.push(Step::Below);
                    } else {
                        self.at += 1;
                    }
                    match self.peek() {
                        Some('*') => {
                            self.at += 1;
                            steps.push(Step::All);
                        }
                        Some('[') => {}
                        // The object itself, or the end of what comes below.
                        None if steps.is_empty() || steps.last() == Some(&Step::Below) => {}
                        _ => steps.push(Step::Field(self.name()?)),
                    }
                }
                Some('[') => {
                    self.at += 1;
                    steps.push(self.bracket()?);
                }
                Some('$' | '@') if self.at == 0 => self.at += 1,
                Some(_) if steps.is_empty() && !in_filter => {
                    steps.push(Step::Field(self.name()?));
                }
                Some(c) => {
                    return Err(format!("unexpected {c:?} at {} of {:?}", self.at, self.text));
                }
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.at += 1;
                    let Some(c) = self.peek() else { break };
                    name.push(c);
                    self.at += c.len_utf8();
                }
                '.' | '[' | ']' | '(' | ')' | ' ' | '=' | '!' | '<' | '>' | '\'' | '"' | '{'
                | '}' => {
                    break;
                }
                c => {
                    name.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        if name.is_empty() {
            return Err(format!("a name is missing at {} of {:?}", self.at, self.text));
        }
        Ok(name)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.peek().filter(|c| *c == '\'' || *c == '"');
        let quote =
            quote.ok_or_else(|| format!("a text is missing at {} of {:?}", self.at, self.text))?;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                c if c == quote => return Ok(text),
                '\\' => {
                    if let Some(c) = self.peek() {
                        text.push(c);
                        self.at += c.len_utf8();
                    }
                }
                c => text.push(c),
            }
        }
        Err(format!("unterminated text in {:?}", self.text))
    }

    fn close(&mut self, step: Step) -> Result<Step, String> {
        self.spaces();
        if self.take("]") { Ok(step) } else { Err(format!("unterminated [ in {:?}", self.text)) }
    }

    fn integer(&mut self) -> Option<i64> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
        let number = rest.get(..end)?.parse().ok()?;
        self.at += end;
        Some(number)
    }

    fn bracket(&mut self) -> Result<Step, String> {
        self.spaces();
        if self.take("*") {
            return self.close(Step::All);
        }
        if self.take("?(") {
            return self.filter();
        }
        if matches!(self.peek(), Some('\'' | '"')) {
            let name = self.quoted()?;
            return self.close(Step::Field(name));
        }
        let from = self.integer();
        if self.take(":") {
            let to = self.integer();
            return self.close(Step::Slice { from, to });
        }
        match from {
            Some(index) => self.close(Step::Index(index)),
            None => Err(format!("invalid array index at {} of {:?}", self.at, self.text)),
        }
    }

    fn filter(&mut self) -> Result<Step, String> {
        self.spaces();
        if !self.take("@") {
            return Err(format!("a filter begins with @ in {:?}", self.text));
        }
        let path = Path { steps: self.steps(true)? };
        self.spaces();
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let operator = operators.into_iter().find(|(sign, _)| self.take(sign)).map(|(_, o)| o);
        let test = match operator {
            None => None,
            Some(operator) => {
                self.spaces();
                Some((operator, self.literal()?))
            }
        };
        self.spaces();
        if !self.take(")") {
            return Err(format!("unterminated filter in {:?}", self.text));
        }
        self.close(Step::Filter { path, test })
    }

    fn literal(&mut self) -> Result<Value, String> {
        if matches!(self.peek(), Some('\'' | '"')) {
            return self.quoted().map(Value::String);
        }
        let rest = self.rest();
        let end = rest.find([')', ' ']).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        self.at += end;
        serde_json::from_str(word).map_err(|_| format!("{word:?} is no value in {:?}", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_kubectl_finds() {
        let object = json!({
            "spec": {"size": 3, "names": ["a", "b", "c"], "a.b/c": "dotted"},
            "status": {"conditions": [
                {"type": "Synced", "status": "False", "n": 1},
                {"type": "Ready", "status": "True", "n": 2},
            ]},
        });
        for (path, want) in [
            (".spec.size", json!(3)),
            ("spec.size", json!(3)),
            ("$.spec.size", json!(3)),
            (".spec['size']", json!(3)),
            (r".spec.a\.b/c", json!("dotted")),
            (".spec['a.b/c']", json!("dotted")),
            (".spec.names[0]", json!("a")),
            (".spec.names[-1]", json!("c")),
            (".spec.names[1:]", json!("b")),
            (".spec.names[:2]", json!("a")),
            (".spec.names[*]", json!("a")),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type == 'Ready')].status", json!("True")),
            (".status.conditions[?(@.type!=\"Ready\")].status", json!("False")),
            (".status.conditions[?(@.n>1)].type", json!("Ready")),
            (".status.conditions[?(@.n)].type", json!("Synced")),
            (".status..type", json!("Synced")),
            (".spec.none", Value::Null),
            (".spec.names[7]", Value::Null),
            (".spec.size.below", Value::Null),
        ] {
            let found = Path::parse(path).unwrap().first(&object).cloned().unwrap_or_default();
            assert_eq!(found, want, "{path}");
        }
        for wrong in [".spec[", ".spec[x]", ".a[?(@.b==)]", ".a[?(b)]", ".a..]", ".a]b", ".a['b"] {
            assert!(Path::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Path::parse(".spec.size").unwrap().fields(), Some(vec!["spec", "size"]));
        assert_eq!(Path::parse(".spec.names[0]").unwrap().fields(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_or_an_error(text in r#"[.\[\]a@?()='"*:0-9\\$<! -]{0,30}"#) {
            if let Ok(path) = Path::parse(&text) {
                let _ = path.first(&json!({"a": [{"a": 1}, "a"]}));
            }
        }
    }
}
