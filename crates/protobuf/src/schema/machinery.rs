//! `k8s.io/apimachinery`: what has a form of its own in JSON, shared by all groups.

messages! {
    FieldsV1 as OneOf { 1 "raw" json }
    IntOrString as IntOrString {
        1 "type" int64,
        2 "intVal" int32,
        3 "strVal" string,
    }
    MicroTime as MicroTime {
        1 opt "seconds" int64,
        2 opt "nanos" int32,
    }
    Quantity as Quantity { 1 "string" string }
    RawExtension as OneOf { 1 "raw" json }
    Time as Time {
        1 opt "seconds" int64,
        2 opt "nanos" int32,
    }
}
