//! JSON to messages and back, by description: as `grpc-gateway` does it for etcd.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::StatusCode;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// A flag and a length before each message on the wire.
const PREFIX: usize = 5;

/// A message for the wire. Fields may be named as in the description or in camel case; those that are
/// not in it are passed over.
///
/// # Errors
/// It is no JSON, or not of that message.
pub(super) fn encode(descriptor: &MessageDescriptor, json: &[u8]) -> Result<Bytes, Status> {
    let mut message = Vec::new();
    if !json.trim_ascii().is_empty() {
        let mut json = serde_json::Deserializer::from_slice(json);
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let parsed =
            DynamicMessage::deserialize_with_options(descriptor.clone(), &mut json, &options);
        message = parsed.map_err(|e| Status::invalid_argument(e.to_string()))?.encode_to_vec();
    }
    let len = u32::try_from(message.len()).map_err(|_| Status::invalid_argument("too large"))?;
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(len);
    framed.put_slice(&message);
    Ok(framed.freeze())
}

/// A message of the wire. Fields have the names of the description; those that are empty are left out;
/// numbers of 64 bits are strings, bytes are base64.
pub(super) fn decode(descriptor: &MessageDescriptor, message: Bytes) -> Result<Vec<u8>, Status> {
    let message = DynamicMessage::decode(descriptor.clone(), message)
        .map_err(|e| Status::internal(format!("an answer that cannot be decoded: {e}")))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut json = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options)
        .map_err(|e| Status::internal(format!("an answer that cannot be written: {e}")))?;
    Ok(json)
}

/// The next message of what an answer has brought so far, and takes it away; `None` if it is not whole.
pub(super) fn next_message(answer: &mut BytesMut) -> Option<Bytes> {
    let (_, len) = answer.first_chunk::<PREFIX>()?.split_first()?;
    let len = usize::try_from(u32::from_be_bytes(*len.first_chunk()?)).ok()?;
    if answer.len() < PREFIX + len {
        return None;
    }
    let message = answer.split_to(PREFIX + len).freeze();
    Some(message.slice(PREFIX..))
}

/// The next JSON value of what a request has brought so far, and takes it away; `None` if it is not
/// whole.
///
/// # Errors
/// It never will be.
pub(super) fn next_value(request: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    let mut values =
        serde_json::Deserializer::from_slice(request).into_iter::<serde::de::IgnoredAny>();
    match values.next() {
        None => Ok(None),
        Some(Ok(_)) => {
            let bytes = values.byte_offset();
            Ok(Some(request.split_to(bytes).freeze()))
        }
        Some(Err(error)) if error.is_eof() => Ok(None),
        Some(Err(error)) => Err(Status::invalid_argument(error.to_string())),
    }
}

/// How a code looks to an HTTP client.
pub(super) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        // The client has closed the request: no name in HTTP.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// In the form of both generations of the gateway.
pub(super) fn error(status: &Status) -> Value {
    let (code, message) = (i32::from(status.code()), status.message());
    json!({"error": message, "code": code, "message": message, "details": []})
}

/// The same within a stream.
pub(super) fn stream_error(status: &Status) -> Value {
    let (code, message) = (i32::from(status.code()), status.message());
    let http = http_status(status.code());
    json!({"error": {
        "code": code,
        "grpc_code": code,
        "http_code": http.as_u16(),
        "http_status": http.canonical_reason().unwrap_or_default(),
        "message": message,
        "details": [],
    }})
}
