//! What a row of the tables is, and how it is written down.

/// A type of message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    /// By number.
    pub(crate) fields: &'static [Field],
}

impl Message {
    pub(crate) fn field(&self, number: u32) -> Option<&'static Field> {
        let place = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(place)
    }
}

/// What a message is in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// An object of its fields.
    Object,
    /// The value of the field that was sent, of two the one with the higher number, of none null.
    OneOf,
    /// The same, of none false.
    SchemaOrBool,
    IntOrString,
    Quantity,
    /// The list that is its one field.
    Items,
    /// RFC 3339, in seconds.
    Time,
    /// RFC 3339, in microseconds.
    MicroTime,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// In JSON; empty for a message whose fields are its parent's.
    pub(crate) name: &'static str,
    /// Whether a scalar's zero is kept.
    pub(crate) opt: bool,
    pub(crate) many: Many,
    pub(crate) holds: Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Many {
    One,
    List,
    /// From strings.
    Map,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Type {
    Bool,
    Int32,
    Int64,
    Double,
    String,
    Bytes,
    /// Bytes that hold JSON, or an object as a body holds it.
    Json,
    Message(&'static Message),
}

macro_rules! messages {
    ($($name:ident $(as $form:ident)? { $($number:literal $($opt:ident)? $json:literal $type:tt),* $(,)? })*) => {
        $(
            #[allow(
                non_upper_case_globals,
                reason = "messages have the names that Kubernetes gives them"
            )]
            pub(in crate::schema) static $name: $crate::schema::Message = $crate::schema::Message {
                name: stringify!($name),
                form: form!($($form)?),
                fields: &[$(field!($number, $json, opt!($($opt)?), $type)),*],
            };
        )*
    };
}
macro_rules! form {
    () => {
        $crate::schema::Form::Object
    };
    ($form:ident) => {
        $crate::schema::Form::$form
    };
}
macro_rules! opt {
    () => {
        false
    };
    (opt) => {
        true
    };
}
macro_rules! field {
    ($number:literal, $name:literal, $opt:expr, [$type:ident]) => {
        field!(@ $number, $name, $opt, List, $type)
    };
    ($number:literal, $name:literal, $opt:expr, {$type:ident}) => {
        field!(@ $number, $name, $opt, Map, $type)
    };
    ($number:literal, $name:literal, $opt:expr, $type:ident) => {
        field!(@ $number, $name, $opt, One, $type)
    };
    (@ $number:literal, $name:literal, $opt:expr, $many:ident, $type:ident) => {
        $crate::schema::Field {
            number: $number,
            name: $name,
            opt: $opt,
            many: $crate::schema::Many::$many,
            holds: holds!($type),
        }
    };
}
macro_rules! holds {
    (bool) => {
        $crate::schema::Type::Bool
    };
    (int32) => {
        $crate::schema::Type::Int32
    };
    (int64) => {
        $crate::schema::Type::Int64
    };
    (double) => {
        $crate::schema::Type::Double
    };
    (string) => {
        $crate::schema::Type::String
    };
    (bytes) => {
        $crate::schema::Type::Bytes
    };
    (json) => {
        $crate::schema::Type::Json
    };
    ($message:ident) => {
        $crate::schema::Type::Message(&$message)
    };
}
