//! What expressions come to, and what they may not.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn schema() -> Schema {
    Schema::read(&json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "max": {"type": "integer"}, "ratio": {"type": "number"},
        "name": {"type": "string"}, "at": {"type": "string", "format": "date-time"},
        "wait": {"type": "string", "format": "duration"}, "a-b": {"type": "string"},
        "namespace": {"type": "string"}, "cpu": {"type": "string"},
        "list": {"type": "array", "items": {"type": "string"}},
        "ports": {"type": "array", "items": {"type": "object", "properties": {
            "name": {"type": "string"}, "port": {"type": "integer"}}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }}))
    .unwrap()
}

fn object() -> Value {
    json!({
        "replicas": 3, "max": 5, "ratio": 1, "name": "web-1", "at": "2026-01-02T03:04:05Z",
        "wait": "90s", "a-b": "dashed", "namespace": "default", "cpu": "1500m",
        "list": ["a", "b", "c"],
        "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
        "labels": {"app": "web", "tier": "front"},
    })
}

fn evaluated(text: &str) -> Result<String, String> {
    let (schema, object) = (schema(), object());
    let program = Program::parse(text)?;
    program.check(&schema, Old::Value)?;
    let own = Val::of(&object, Some(&schema));
    let variables = vec![("self", own.clone()), ("oldSelf", own)];
    match program.evaluate(variables, &mut Budget::new(100_000)) {
        Ok(Val::Bool(flag)) => Ok(flag.to_string()),
        Ok(Val::Int(n)) => Ok(n.to_string()),
        Ok(Val::Text(text)) => Ok(text.into_owned()),
        Ok(other) => Ok(format!("{other:?}")),
        Err(Fault::Error(error)) => Err(error),
        Err(Fault::OverBudget) => Err("over budget".to_owned()),
    }
}

#[test]
fn expressions_have_the_values_that_cel_gives_them() {
    for (text, want) in [
        ("self.replicas <= self.max", "true"),
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("-7 % 3", "-1"),
        ("-9223372036854775808 < 0", "true"),
        ("self.replicas > 2 ? 'many' : 'few'", "many"),
        ("!(self.name == 'x') && (false || true)", "true"),
        ("self.ratio == 1.0 && type(self.ratio) == double", "true"),
        ("1 == 1.0 && 1u == 1", "true"),
        ("self.name.startsWith('web') && self.name.endsWith('1')", "true"),
        ("self.name.matches('^[a-z]+-[0-9]+$')", "true"),
        ("self.name.find('[0-9]+')", "1"),
        ("self.list.all(x, x.size() == 1)", "true"),
        ("self.list.exists(x, x == 'b')", "true"),
        ("self.list.exists_one(x, x > 'a')", "false"),
        ("self.list.filter(x, x != 'b').join(',')", "a,c"),
        ("self.list.map(x, x + x).join('')", "aabbcc"),
        ("self.list.map(x, x != 'a', x).size()", "2"),
        ("self.ports.map(p, p.port).sum()", "523"),
        ("self.ports.all(p, self.ports.exists_one(q, q.name == p.name))", "true"),
        ("'app' in self.labels && !('x' in self.labels)", "true"),
        ("self.labels.all(k, self.labels[k].size() > 2)", "true"),
        ("has(self.labels.app) && !has(self.labels.none)", "true"),
        ("self.labels['tier']", "front"),
        ("self.list[1]", "b"),
        ("[1, 2] + [3] == [1, 2, 3]", "true"),
        ("{'a': 1}['a'] == 1", "true"),
        ("self.a__dash__b", "dashed"),
        ("self.__namespace__", "default"),
        ("self.at < timestamp('2027-01-01T00:00:00Z') && self.at.getFullYear() == 2026", "true"),
        ("self.wait == duration('1m30s') && self.wait.getSeconds() == 90", "true"),
        ("quantity(self.cpu).isGreaterThan(quantity('1'))", "true"),
        ("isQuantity('x') || isQuantity(self.cpu)", "true"),
        ("self.list.isSorted() && self.list.max() == 'c' && self.list.indexOf('b') == 1", "true"),
        (
            "'a,b'.split(',').size() == 2 && 'abc'.substring(1) == 'bc' && 'ABC'.lowerAscii() == 'abc'",
            "true",
        ),
        ("'äbc'.indexOf('b') == 1 && 'abc'.replace('b', 'x') == 'axc'", "true"),
        ("self.?name.orValue('none')", "web-1"),
        ("self.labels[?'none'].orValue('nothing')", "nothing"),
        ("optional.of(1).hasValue() && !optional.none().hasValue()", "true"),
        ("string(1) + string(true) + string(duration('1500ms'))", "1true1.5s"),
        ("int('7') + int(1.9)", "8"),
        ("r'\\d' == '\\\\d' && \"\"\"a\"b\"\"\" == 'a\"b' && '\\u0061' == 'a'", "true"),
        ("oldSelf.replicas == self.replicas // unchanged", "true"),
        ("isIP('10.0.0.1') && ip('::1').family() == 6 && isCIDR('10.0.0.0/8')", "true"),
        ("'%s has %d of %s, %.1f%%'.format(['w', 3, ['a', 1], 99.5])", "w has 3 of [a, 1], 99.5%"),
        ("'%x'.format([255])", "ff"),
        ("sets.contains(self.list, ['a']) && !sets.contains(['a'], self.list)", "true"),
        (
            "sets.equivalent(['a', 'b', 'c', 'a'], self.list) && sets.intersects(self.list, ['c', 'z'])",
            "true",
        ),
        // What decides decides, whatever the other side is.
        ("self.labels.none == 'x' || true", "true"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
    ] {
        assert_eq!(evaluated(text).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    for (text, want) in [
        ("self.labels.none == 'x'", "no such key: none"),
        ("self.list[7] == 'x'", "index out of bounds: 7"),
        ("1 / 0 == 1", "division by zero"),
        ("9223372036854775807 + 1 > 0", "return error for overflow"),
        ("1 + 'a' == 2", "no such overload: int + string"),
        ("self.typo == 1", "undefined field 'typo'"),
        ("self.ports.all(p, p.prot > 1)", "undefined field 'prot'"),
        ("nothing == 1", "undeclared reference to 'nothing' (in container '')"),
        ("self.name.frobnicate()", "undeclared reference to 'frobnicate' (in container '')"),
        ("self.name ==", "1:13: Syntax error: unexpected '<EOF>'"),
        ("self.name = 'x'", "1:11: token recognition error at: '='"),
        ("'%d'.format(['x']) == ''", "format: %d cannot be filled with string"),
        ("'%s %s'.format([1]) == ''", "format: too few values"),
        ("sets.union([1], [2]) == []", "undeclared reference to 'union' (in container '')"),
        ("has(self)", "invalid argument to has() macro"),
        ("'a", "1:1: unterminated text"),
    ] {
        assert_eq!(evaluated(text), Err(want.to_owned()), "{text}");
    }
}

#[test]
fn cost_is_bounded() {
    let many = format!("[{}]", vec!["1"; 400].join(","));
    let cubic = format!("{many}.all(a, {many}.all(b, {many}.all(c, a + b + c > 0)))");
    assert_eq!(evaluated(&cubic), Err("over budget".to_owned()));
    let deep = format!("{}1{}", "(".repeat(2000), ")".repeat(2000));
    assert_eq!(evaluated(&deep), Err("the expression is nested too deep".to_owned()));
    let chain = format!("self{}", ".a".repeat(2000));
    assert!(evaluated(&chain).is_err());
    let sum = vec!["1"; 2000].join(" + ");
    assert!(evaluated(&sum).is_err(), "a chain is as deep as it is long");
    let or = vec!["true"; 2000].join(" && ");
    assert_eq!(evaluated(&or).as_deref(), Ok("true"));
}

proptest! {
    #[test]
    fn any_text_is_an_expression_or_an_error(text in "[a-z0-9.()\\[\\]{}'\"?:&|!=<>+*/% ,-]{0,60}") {
        let _ = evaluated(&text);
    }
}
