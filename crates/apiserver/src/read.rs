//! JSON and YAML as values, with what is there twice; YAML within bounds: by its aliases a small document
//! may say a large object.

use schema::fields::At;
use serde::de::{
    self, Deserialize as _, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Values of one YAML document at most, aliases written out.
const VALUES_MAX: usize = 1_000_000;
/// Bytes of the keys and texts of one YAML document at most, aliases written out.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Fields that are there twice and are told, as upstream bounds what it tells.
const DUPLICATES_MAX: usize = 100;

/// A value, and the paths of fields that are there more than once, such as `spec.containers[0].name`: of
/// each the last one counts.
pub(crate) type Read = (Value, Vec<String>);

/// The one value in `bytes`.
///
/// # Errors
/// What is wrong with it, and where: also if it is nested more than 128 deep.
pub(crate) fn json(bytes: &[u8]) -> Result<Read, serde_json::Error> {
    // What is written is all that there is: the body bounds it.
    let mut state = State::new(usize::MAX, usize::MAX);
    let mut document = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { state: &mut state, at: &At::Root }.deserialize(&mut document)?;
    document.end()?;
    Ok((value, state.duplicates))
}

/// The one document in `bytes` as JSON.
///
/// # Errors
/// What is wrong with it, and where: also if it is more than one document, nested more than 128 deep, or
/// larger than the bounds with its aliases written out.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Read, String> {
    let mut state = State::new(VALUES_MAX, TEXT_BYTES_MAX);
    // The library bounds how deep it goes.
    let document = serde_yaml_ng::Deserializer::from_slice(bytes);
    let value = Seed { state: &mut state, at: &At::Root }.deserialize(document);
    Ok((value.map_err(|error| error.to_string())?, state.duplicates))
}

/// What a document may still say, and what it has said twice.
struct State {
    values: usize,
    text_bytes: usize,
    duplicates: Vec<String>,
}

impl State {
    const fn new(values: usize, text_bytes: usize) -> Self {
        Self { values, text_bytes, duplicates: Vec::new() }
    }

    fn take_value<E: de::Error>(&mut self) -> Result<(), E> {
        let left = self.values.checked_sub(1);
        self.values = left.ok_or_else(|| {
            E::custom(format!(
                "the document has more than {VALUES_MAX} values, aliases written out"
            ))
        })?;
        Ok(())
    }

    fn take_text<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        let left = self.text_bytes.checked_sub(text.len());
        self.text_bytes = left.ok_or_else(|| {
            E::custom(format!(
                "the document has more than {TEXT_BYTES_MAX} bytes of text, aliases written out"
            ))
        })?;
        Ok(())
    }

    fn found_twice(&mut self, at: &At<'_>) {
        let path = at.to_string();
        if self.duplicates.len() < DUPLICATES_MAX && !self.duplicates.contains(&path) {
            self.duplicates.push(path);
        }
    }
}

/// One value of the document.
struct Seed<'a> {
    state: &'a mut State,
    at: &'a At<'a>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.state.take_value()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value that JSON has")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.state.take_text(text)?;
        Ok(text.into())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        self.state.take_text(&text)?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let at = At::Item(self.at, list.len());
            match items.next_element_seed(Seed { state: &mut *self.state, at: &at })? {
                Some(item) => list.push(item),
                None => return Ok(list.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key_seed(Key(&mut *self.state))? {
            let at = At::Field(self.at, &key);
            let value = entries.next_value_seed(Seed { state: &mut *self.state, at: &at })?;
            if fields.contains_key(&key) {
                self.state.found_twice(&at);
            }
            fields.insert(key, value);
        }
        Ok(fields.into())
    }
}

/// A key, which is a text however it is spelt: `1:` is `"1"`.
struct Key<'a>(&'a mut State);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let key = String::deserialize(deserializer)?;
        self.0.take_text(&key)?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_is_read_as_the_json_that_it_means() {
        for (text, want) in [
            (
                "a: 1\nb: [x, true, null, 1.5, -2]\n1: {}",
                json!({"a": 1, "b": ["x", true, null, 1.5, -2], "1": {}}),
            ),
            ("a: &x {b: [c]}\nd: *x", json!({"a": {"b": ["c"]}, "d": {"b": ["c"]}})),
            (
                "{\"kind\": \"Pod\", \"x\": 18446744073709551615}",
                json!({"kind": "Pod", "x": u64::MAX}),
            ),
            ("a: |\n  b\n  c\n", json!({"a": "b\nc\n"})),
            ("a: '1'\nb: .inf\nc: ~\nd:", json!({"a": "1", "b": null, "c": null, "d": null})),
            ("# nothing", Value::Null),
        ] {
            assert_eq!(yaml(text.as_bytes()), Ok((want.clone(), Vec::new())), "{text}");
            let library: Value = serde_yaml_ng::from_str(text).unwrap();
            assert_eq!(library, want, "{text}");
        }
        for text in ["a: [", "a: 1\n---\nb: 2", "{[a]: b}", "*x", "a: \u{0}"] {
            assert!(yaml(text.as_bytes()).is_err(), "{text}");
            assert!(serde_yaml_ng::from_str::<Value>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fields_that_are_there_twice_are_told_by_path_and_the_last_one_counts() {
        // HTTP-2
        let text = r#"{"a": {"x": 1, "x": 2, "x": 3}, "l": [{}, {"b": {"c": 1, "c": {"d": 1, "d": 2}}}], "a": 4}"#;
        let want = json!({"a": 4, "l": [{}, {"b": {"c": {"d": 2}}}]});
        let paths = ["a.x", "l[1].b.c.d", "l[1].b.c", "a"].map(str::to_owned);
        assert_eq!(json(text.as_bytes()).unwrap(), (want.clone(), paths.to_vec()));
        assert_eq!(yaml(text.as_bytes()), Ok((want, paths.to_vec())));
        let many: Vec<String> = (0..300).map(|i| format!("\"k{i}\": 1, \"k{i}\": 2")).collect();
        let many = format!("{{{}}}", many.join(", "));
        assert_eq!(json(many.as_bytes()).unwrap().1.len(), DUPLICATES_MAX);
    }

    proptest::proptest! {
        #[test]
        fn json_is_read_as_the_library_reads_it(text in "[\\[\\]{}:,\"a-c0-9.e+ -]{0,40}") {
            let library = serde_json::from_str::<Value>(&text);
            let read = json(text.as_bytes());
            proptest::prop_assert_eq!(read.is_ok(), library.is_ok());
            if let (Ok((read, _)), Ok(library)) = (read, library) {
                proptest::prop_assert_eq!(read, library);
            }
        }
    }

    /// Lists of ten aliases each, `levels` of them, down to `leaf`.
    fn laughs(levels: usize, leaf: &str) -> String {
        let mut text = format!("l0: &l0 {leaf}\n");
        for level in 1..=levels {
            let below = format!("*l{}, ", level - 1).repeat(10);
            text.push_str(&format!("l{level}: &l{level} [{below}]\n"));
        }
        text
    }

    #[test]
    fn aliases_do_not_make_a_small_document_large() {
        assert!(yaml(laughs(2, "x").as_bytes()).is_ok());
        // The library bounds aliases too, by the length of the document.
        let pad = format!("pad: [{}]\n", "x, ".repeat(20_000));
        let key = format!("{{? {} : 1}}", "k".repeat(900));
        for (levels, leaf, said) in [
            (9, "x".to_owned(), "more than 1000000 values"),
            (4, "x".repeat(10_000), "more than 16777216 bytes of text"),
            (5, key, "more than 16777216 bytes of text"),
        ] {
            let error = yaml((pad.clone() + &laughs(levels, &leaf)).as_bytes()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_deep_document_is_refused() {
        for text in ["[".repeat(50_000), "- ".repeat(3000), "a: &a [*a]".to_owned()] {
            assert!(yaml(text.as_bytes()).is_err());
        }
        let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
        assert!(yaml(deep.as_bytes()).is_ok());
    }
}
