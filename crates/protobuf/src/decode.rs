//! Messages to JSON, by the rows of [`crate::schema`].

use crate::{
    DecodeError, Envelope, MAGIC,
    schema::{self, Field, Form, Many, Message, Type},
    wire::{Fields, Wire, packed},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};
use std::fmt::Display;

/// How deep messages may be nested. JSON in them may be nested as deep again.
const DEPTH_MAX: usize = 100;
/// Bytes of memory that a body's lists and objects may take, so that a small body does not become a large
/// object: on the wire a message may take two bytes, and a number one.
const ROOM_BYTES: usize = 64 << 20;
/// What a message takes, for the most part as the first node of its map.
const MESSAGE_BYTES: usize = 640;
/// What an element of a list takes, in a list that has just doubled.
const ELEMENT_BYTES: usize = 64;
/// What an entry of a map takes without its text, in nodes that are half full.
const ENTRY_BYTES: usize = 128;
/// Go's zero time, 0001-01-01T00:00:00Z.
const ZERO_TIME_SECONDS: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can say.
const TIME_SECONDS_MAX: i64 = 253_402_300_799;

/// What is wrong with a message, and where.
#[derive(Debug)]
struct Fault {
    path: String,
    reason: String,
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self { path: String::new(), reason }
    }
}

impl Fault {
    fn new(reason: &str) -> Self {
        Self::from(reason.to_owned())
    }

    /// As the outer message sees it.
    fn within(mut self, step: impl Display) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}

/// Decodes one body and counts what it makes of it.
pub(crate) struct Decoder {
    room_bytes: usize,
    depth_left: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { room_bytes: ROOM_BYTES, depth_left: DEPTH_MAX }
    }
}

impl Decoder {
    /// The object in a body.
    pub(crate) fn object(&mut self, body: &[u8]) -> Result<Map<String, Value>, DecodeError> {
        let envelope = Envelope::parse(body)?;
        let Envelope { api_version, kind, raw } = envelope;
        let message = schema::kind(api_version, kind).ok_or_else(|| envelope.unknown_kind())?;
        let mut object = envelope.type_meta();
        match self.message(&mut object, message, raw) {
            Ok(()) => Ok(object),
            Err(Fault { path, reason }) => Err(DecodeError::Malformed {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                path,
                reason,
            }),
        }
    }

    /// Adds the fields of a message; of what a message says twice, the latter counts.
    fn message(
        &mut self,
        into: &mut Map<String, Value>,
        message: &Message,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        self.take(MESSAGE_BYTES)?;
        self.descend()?;
        for part in Fields::of(bytes) {
            let (number, wire) = part?;
            // As protobuf has it: a newer client may know more fields.
            let Some(field) = message.field(number) else { continue };
            // The path is that in JSON.
            let hidden = field.name.is_empty() || message.form != Form::Object;
            self.field(into, field, wire)
                .map_err(|fault| if hidden { fault } else { fault.within(field.name) })?;
        }
        self.depth_left += 1;
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        let too_large =
            || Fault::from(format!("it would take more than {ROOM_BYTES} bytes of memory"));
        self.room_bytes = self.room_bytes.checked_sub(bytes).ok_or_else(too_large)?;
        Ok(())
    }

    /// Whoever comes back adds one to `depth_left` again; a fault ends it all.
    fn descend(&mut self) -> Result<(), Fault> {
        let too_deep = || Fault::from(format!("messages nested more than {DEPTH_MAX} deep"));
        self.depth_left = self.depth_left.checked_sub(1).ok_or_else(too_deep)?;
        Ok(())
    }

    fn field(
        &mut self,
        into: &mut Map<String, Value>,
        field: &Field,
        wire: Wire<'_>,
    ) -> Result<(), Fault> {
        let Field { name, opt, many, holds, .. } = *field;
        match many {
            Many::One => {
                if let Type::Message(message) = holds
                    && message.form == Form::Object
                {
                    if name.is_empty() {
                        return self.message(into, message, wire.bytes()?);
                    }
                    let object = into.entry(name).or_insert_with(|| Value::Object(Map::new()));
                    let Some(object) = object.as_object_mut() else { return Ok(()) };
                    return self.message(object, message, wire.bytes()?);
                }
                let value = self.value(holds, wire)?;
                if value.is_null() || (!opt && is_zero(holds, &value)) {
                    into.remove(name);
                } else {
                    into.insert(name.to_owned(), value);
                }
            }
            Many::List => {
                let list = into.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Some(list) = list.as_array_mut() else { return Ok(()) };
                if let (Type::Bool | Type::Int32 | Type::Int64, Wire::Bytes(bytes)) = (holds, wire)
                {
                    for number in packed(bytes) {
                        self.take(ELEMENT_BYTES)?;
                        list.push(self.value(holds, Wire::Varint(number?))?);
                    }
                } else {
                    self.take(ELEMENT_BYTES)?;
                    let step = |fault: Fault| fault.within(format!("[{}]", list.len()));
                    let value = self.value(holds, wire).map_err(step)?;
                    list.push(value);
                }
            }
            Many::Map => {
                // A map takes its first node with its first entry.
                self.take(if into.contains_key(name) { ENTRY_BYTES } else { MESSAGE_BYTES })?;
                let map = into.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Some(map) = map.as_object_mut() else { return Ok(()) };
                let (mut key, mut value) = ("", None);
                for part in Fields::of(wire.bytes()?) {
                    match part? {
                        (1, wire) => key = wire.text()?,
                        (2, wire) => value = Some(wire),
                        _ => {}
                    }
                }
                let value = self.value(holds, value.unwrap_or_else(|| default(holds)));
                map.insert(key.to_owned(), value.map_err(|f| f.within(format!("[{key:?}]")))?);
            }
        }
        Ok(())
    }

    fn value(&mut self, holds: Type, wire: Wire<'_>) -> Result<Value, Fault> {
        Ok(match holds {
            Type::Bool => (wire.varint()? != 0).into(),
            // The upper half is the sign, or nothing: protobuf cuts it off.
            Type::Int32 => {
                let [a, b, c, d, ..] = wire.varint()?.to_le_bytes();
                i32::from_le_bytes([a, b, c, d]).into()
            }
            Type::Int64 => wire.varint()?.cast_signed().into(),
            Type::Double => double(wire.double()?)?,
            Type::String => wire.text()?.into(),
            Type::Bytes => BASE64_STANDARD.encode(wire.bytes()?).into(),
            Type::Json => self.json(wire.bytes()?)?,
            Type::Message(message) => {
                let mut fields = Map::new();
                self.message(&mut fields, message, wire.bytes()?)?;
                formed(message, fields)?
            }
        })
    }

    fn json(&mut self, bytes: &[u8]) -> Result<Value, Fault> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        if bytes.starts_with(MAGIC) {
            self.descend()?;
            let object = self.object(bytes).map_err(|error| Fault::from(error.to_string()))?;
            self.depth_left += 1;
            return Ok(Value::Object(object));
        }
        serde_json::from_slice(bytes).map_err(|error| Fault::from(format!("no JSON: {error}")))
    }
}

/// What a map's entry without a value has.
fn default(holds: Type) -> Wire<'static> {
    match holds {
        Type::Bool | Type::Int32 | Type::Int64 => Wire::Varint(0),
        Type::Double => Wire::Fixed64([0; 8]),
        Type::String | Type::Bytes | Type::Json | Type::Message(_) => Wire::Bytes(&[]),
    }
}

fn is_zero(holds: Type, value: &Value) -> bool {
    match holds {
        Type::Bool => *value == Value::Bool(false),
        Type::Int32 | Type::Int64 | Type::Double => value.as_f64() == Some(0.0),
        Type::String | Type::Bytes => value.as_str() == Some(""),
        Type::Json | Type::Message(_) => false,
    }
}

/// Whole numbers without a fraction, as Go writes them.
fn double(value: f64) -> Result<Value, Fault> {
    if let Ok(whole) = format!("{value}").parse::<i64>() {
        return Ok(whole.into());
    }
    let number = Number::from_f64(value);
    number
        .map(Value::Number)
        .ok_or_else(|| Fault::from(format!("json: unsupported value: {value}")))
}

/// What a message with a form of its own is in JSON.
fn formed(message: &Message, mut fields: Map<String, Value>) -> Result<Value, Fault> {
    let int = |name| fields.get(name).and_then(Value::as_i64).unwrap_or_default();
    Ok(match message.form {
        Form::Object => Value::Object(fields),
        Form::OneOf => last(message, fields).unwrap_or_default(),
        Form::SchemaOrBool => last(message, fields).unwrap_or(Value::Bool(false)),
        Form::Items => last(message, fields).unwrap_or_else(|| Value::Array(Vec::new())),
        Form::IntOrString => match int("type") {
            0 => int("intVal").into(),
            1 => fields.remove("strVal").unwrap_or_else(|| "".into()),
            _ => return Err(Fault::new("impossible IntOrString.Type")),
        },
        Form::Quantity => fields.remove("string").unwrap_or_else(|| "0".into()),
        Form::Time | Form::MicroTime => {
            let seconds = int("seconds");
            if fields.is_empty() || seconds == ZERO_TIME_SECONDS {
                return Ok(Value::Null);
            }
            if !(ZERO_TIME_SECONDS..=TIME_SECONDS_MAX).contains(&seconds) {
                return Err(Fault::from(format!(
                    "no year of four digits is {seconds} seconds from 1970"
                )));
            }
            // Upstream cuts a Time to seconds on purpose, so that it is the same in JSON.
            let micros = if message.form == Form::Time { 0 } else { int("nanos") / 1_000 };
            let total = seconds.checked_mul(1_000_000).and_then(|s| s.checked_add(micros));
            let time = total.and_then(|total| Timestamp::from_microsecond(total).ok());
            let time = time.ok_or_else(|| Fault::new("a time that is out of range"))?;
            if message.form == Form::Time {
                format!("{time:.0}").into()
            } else {
                format!("{time:.6}").into()
            }
        }
    })
}

/// The value of the field with the highest number.
fn last(message: &Message, mut fields: Map<String, Value>) -> Option<Value> {
    message.fields.iter().rev().find_map(|field| fields.remove(field.name))
}
