//! `exec`: a program in a container, over a WebSocket.

use crate::{failure::Failure, target::Target};
use api::kinds;
use client::{Attempt, ClientError};
use futures::StreamExt as _;
use serde_json::Value;
use std::{io::Write as _, process::ExitCode};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, http::HeaderValue},
};

pub(crate) async fn exec(
    target: &Target,
    pod: &str,
    container: &str,
    command: &[String],
) -> Result<ExitCode, Failure> {
    let kind = kinds::by_alias("pods").expect("Pod is served");
    let mut pairs = vec![("stdout", "true"), ("stderr", "true"), ("container", container)];
    pairs.extend(command.iter().map(|argument| ("command", argument.as_str())));
    let path =
        format!("{}/exec{}", target.path(kind, &target.namespace, pod), client::encode(&pairs));
    let mut attempts = Vec::new();
    let lost = |endpoint: &String, error: String| Attempt { endpoint: endpoint.clone(), error };
    for endpoint in &target.endpoints.urls {
        let url = format!("{}{path}", endpoint.replacen("http", "ws", 1));
        let mut request =
            url.into_client_request().map_err(|e| Failure::Input(format!("{endpoint}: {e}")))?;
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", HeaderValue::from_static("v5.channel.k8s.io"));
        let access = &target.endpoints.access;
        let stream = match access.dial(endpoint, target.endpoints.connect_timeout).await {
            Ok(stream) => stream,
            Err(error) => {
                attempts.push(lost(endpoint, error.to_string()));
                continue;
            }
        };
        if let Some(token) = &access.token {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
            let bearer = bearer.map_err(|e| Failure::Input(format!("--token: {e}")))?;
            request.headers_mut().insert("Authorization", bearer);
        }
        match client_async(request, stream).await {
            Ok((socket, _)) => return relay(socket, endpoint).await,
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                let status = serde_json::from_slice(&body)
                    .ok()
                    .and_then(|value: Value| api::status::Status::from_json(&value));
                let status = status.unwrap_or_else(|| {
                    let text = String::from_utf8_lossy(&body).into_owned();
                    api::status::Status::new(response.status().as_u16(), "Refused", text)
                });
                return Err(ClientError::Api(status).into());
            }
            Err(error) => attempts.push(lost(endpoint, error.to_string())),
        }
    }
    Err(ClientError::Unreachable { attempts }.into())
}

async fn relay<S>(mut socket: S, endpoint: &str) -> Result<ExitCode, Failure>
where
    S: futures::Stream<Item = Result<Message, Error>> + Unpin,
{
    let lost = |error: String| {
        Failure::Client(ClientError::Unknown { endpoint: endpoint.to_owned(), error })
    };
    while let Some(message) = socket.next().await {
        let Message::Binary(bytes) = message.map_err(|e| lost(e.to_string()))? else { continue };
        match bytes.split_first() {
            Some((1, data)) => drop(std::io::stdout().lock().write_all(data)),
            Some((2, data)) => drop(std::io::stderr().lock().write_all(data)),
            Some((3, data)) => {
                let status: Value = serde_json::from_slice(data).unwrap_or_default();
                if status.get("status").and_then(Value::as_str) == Some("Success") {
                    return Ok(ExitCode::SUCCESS);
                }
                let code = status.pointer("/details/causes/0/message").and_then(Value::as_str);
                if let Some(code) = code.and_then(|code| code.parse::<u8>().ok()) {
                    return Ok(ExitCode::from(code));
                }
                let text = status.get("message").and_then(Value::as_str).unwrap_or_default();
                eprintln!("error: {text}");
                return Ok(ExitCode::FAILURE);
            }
            _ => {}
        }
    }
    Err(lost("the stream ended without a word on the program".to_owned()))
}
