//! What goes wrong, in the user's words, and the exit code that scripts see.

use api::status::Status;
use client::ClientError;
use std::process::ExitCode;

#[derive(Debug)]
pub(crate) enum Failure {
    /// Bad usage, or bad input with its place.
    Input(String),
    /// As the API or the network says.
    Client(ClientError),
    /// It would not be right to do it, or it cannot be done here.
    Refused(String),
    /// It did not come about in time.
    Late(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    /// A refusal with several causes takes a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Input(text) | Self::Refused(text) | Self::Late(text) => vec![text.clone()],
            Self::Client(ClientError::Unreachable { attempts }) => {
                let mut lines = vec!["no replica answers:".to_owned()];
                lines.extend(attempts.iter().map(|a| format!("  {}: {}", a.endpoint, a.error)));
                lines
            }
            Self::Client(ClientError::Api(status)) => refusal(status),
            Self::Client(error) => vec![error.to_string()],
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Input(_) => 2,
            Self::Refused(_) => 1,
            Self::Late(_) => 5,
            Self::Client(ClientError::Unreachable { .. }) => 3,
            Self::Client(ClientError::Unknown { .. }) => 4,
            Self::Client(ClientError::Api(status)) if status.code == 504 => 4,
            Self::Client(ClientError::Api(_) | ClientError::Decode { .. }) => 1,
        })
    }
}

fn refusal(status: &Status) -> Vec<String> {
    let causes = status.details.get("causes").and_then(serde_json::Value::as_array);
    match causes {
        Some(causes) if causes.len() > 1 => {
            let text = |c: &serde_json::Value, key: &str| {
                c.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
            };
            causes.iter().map(|c| format!("{}: {}", text(c, "field"), text(c, "message"))).collect()
        }
        _ => vec![format!("({}) {}", status.reason, status.message)],
    }
}
